/* SPDX-License-Identifier: Apache-2.0 */
/* settings.h - what the command line says, one field an option; filled by options.c from the table in option_table.c.
 *
 * Text is lent: it points into argv or into the option table. A number that was not given and has no fixed default is NaN.
 */
#ifndef TOOLS_SETTINGS_H
#define TOOLS_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#define SETTINGS_REALS 16 /* most numbers of a list option; equals the channels of mest_source_options */
#define SETTINGS_TEXTS 16 /* how often a repeatable option may be given */

typedef enum run_mode { MODE_NONE = 0, MODE_TRAIN, MODE_EVAL, MODE_INFER, MODE_INFO, MODE_EXPLAIN, MODE_CHECK, MODE_GRADCHECK, MODE_REPORT, MODE_BENCH } run_mode;

typedef struct real_list {
    int n;
    double v[SETTINGS_REALS];
} real_list;

typedef struct int_list {
    int n;
    int64_t v[SETTINGS_REALS];
} int_list;

typedef struct text_list {
    int n;
    const char *v[SETTINGS_TEXTS];
} text_list;

typedef struct settings {
    const char *model;
    int64_t mode; /* run_mode */
    const char *mode_word; /* what followed the mode: "memory" behind --explain; NULL: nothing */
    bool help, help_all, version;
    const char *help_group;

    /* data */
    const char *data, *val, *normalise, *augment;
    double val_split, scale_input, hflip;
    int64_t limit, val_limit, max_bad;
    real_list mean, std;
    int_list input_shape, img_size;
    bool measure, no_shuffle, drop_last;

    /* training */
    int64_t epochs, max_steps, batch, eval_batch, seed, val_interval;
    const char *bn_stats, *bn_recompute;
    int64_t new_head;
    int64_t bn_recompute_batches;
    const char *loss, *output_name, *bn, *freeze, *train_only, *trainable;
    int64_t ignore_index;
    double smoothing, drop;
    bool no_eval_before;

    /* optimizer and schedule */
    const char *opt, *no_decay, *sched;
    double lr, momentum, weight_decay, opt_eps, opt_lr_decay, clip_grad, min_lr, decay_rate, warmup_lr;
    real_list opt_betas;
    int64_t warmup_epochs, decay_epochs;
    bool nesterov, sched_on_updates;

    /* sparsity */
    double sparsity, mest_lambda;
    const char *scheme, *distribution, *ratios, *patterns, *dense_layers, *rules, *method, *forget_remove;
    int64_t mutate_every, forget_epoch, forget_max;
    bool from_scratch, start_dense;
    text_list scheduler;

    /* output */
    const char *output, *output_dir, *export_as, *export_form, *resume_file;
    int64_t checkpoint_every, checkpoint_steps, topk;
    bool resume, overwrite;

    /* machine */
    int64_t threads, memory_limit; /* bytes */
    double gradcheck_seconds, bench_seconds;
    int64_t bench_runs, bench_warmup;
    const char *bench, *profile, *tune;

    /* a good guest */
    double time_limit; /* seconds */
    double cpu_share, min_battery, max_temp;
    const char *pause_file, *sys_root;

    const char *kernels, *program, *no_fuse, *recompute, *micro_batch, *activations, *freeze_front;
    bool no_xnnpack, nice;

    /* talk */
    bool json, quiet, verbose;
    const char *log;
    const char *progress;
    int64_t log_interval;

    /* sweeps */
    const char *sweep;
    int64_t jobs;
    bool dry_run;

    uint64_t given[4]; /* bit i: option i of the table stood on the command line */
} settings;

#endif
