/* SPDX-License-Identifier: Apache-2.0 */
/* The session behind the public handle: programs, optimizer, schedulers, and where the run stands. */
#ifndef MEST_RUNTIME_SESSION_H
#define MEST_RUNTIME_SESSION_H

#include <stdatomic.h>

#include "mest/memory.h"
#include "mest/train.h"
#include "runtime/checkpoint.h"
#include "runtime/loader.h"
#include "runtime/optim.h"
#include "runtime/plugin.h"
#include "runtime/program.h"

enum { MEST_PROGRAM_SLOTS = 6 }; /* train, eval and infer, each at full batch and at the size of the last batch */

/* Where the run stands: everything that decides the next step. Saved as it is. */
typedef struct mest_progress_state {
    int64_t epoch;          /* in work or next, 0-based */
    int64_t batch;          /* batches done in it */
    int64_t step;           /* steps done since the run began */
    double loss_sum;        /* over rows of this epoch */
    int64_t rows, hits, class_rows;
    bool epoch_open;        /* epoch_begin of the schedulers has run */
    bool snapshot_grads;    /* a scheduler wants |g| of the last step of this epoch */
} mest_progress_state;

/* What the data give and which graph input each goes to. n 0: nobody has said, the model's own inputs in its order. */
typedef struct mest_feed {
    mest_dtype type;        /* of the data */
    mest_shape shape;       /* without batch axis */
    int32_t graph_input;
    void *converted;        /* a batch in the model's type, where that is another; NULL otherwise */
    size_t converted_bytes;
} mest_feed;

typedef struct mest_step_at_work { /* between step_begin and the end of a training step */
    const void *const *inputs; /* one block for each feed */
    const void *targets;
    int64_t n;              /* samples */
    mest_program *program;  /* of its last part */
    double loss;            /* sums over what ran last, part by part; s->hits has the samples one by one */
    int64_t rows, hits, class_rows;
    bool computed;          /* a probe ran it: these are those of the step */
} mest_step_at_work;

typedef struct mest_memory_state {
    size_t arena_limit;     /* for programs built from now on; SIZE_MAX: none */
    size_t peak_arena;      /* of a training step with the most channels that groups may have; 0: they do not grow */
    mest_recompute_kind recompute;
    double share;
    bool halves;            /* activations are stored as bfloat16 */
    bool planned;           /* by mest_session_fit, for so many samples: */
    int64_t samples, held;
    mest_memory_plan plan;  /* its last */
} mest_memory_state;

struct mest_session {
    mest_heap *heap;        /* the model's */
    mest_model *model;
    mest_region region;     /* config texts */
    mest_train_config config;
    mest_threads threads;
    unsigned cpu;
    mest_optimizer optimizer;
    mest_derived *derived;
    mest_arena arena;
    mest_program *programs[MEST_PROGRAM_SLOTS];
    mest_profile profile;   /* programs point at it */
    struct mest_tuner *tuner; /* NULL: kernels by their models of cost */
    int8_t rebatches;       /* the file fixes a batch, and it can (1) or cannot (-1) be shown that others are right; 0: not asked yet */
    bool measuring;         /* inference programs measure unfolded layers */
    uint32_t channels_version; /* of the model's channels when programs were built */
    int64_t peak_batch;           /* steps of up to so many samples have memory for the most channels the groups may have */
    bool plain_gradients;   /* training programs end with the gradients, in plain layouts: checks of gradients */
    struct mest_survey *survey; /* not NULL while verdicts are made: programs get it */
    mest_host host;
    mest_schedulers *schedulers;
    int32_t *host_param;    /* parameter index of each sparse parameter of the host */
    mest_sample_set samples;
    int32_t *classes;       /* class of each sample as seen, -1 unknown; allocated with the first source */
    uint8_t *hits;          /* one batch: prediction right (1), wrong (0), no classes (255) */
    bool prepared;          /* memory of the run is allocated: no more schedulers */
    int n_feeds;
    mest_feed feed[MEST_SAMPLE_MAX_INPUTS];
    mest_shape target_shape; /* without batch axis, as the source gave it */
    mest_dtype target_type;
    mest_shape output_shape; /* of one sample, if known: until programs are dropped */
    bool output_known;
    mest_progress_state at;
    mest_step_at_work step;
    int64_t part;           /* samples that are computed at once: config.batch, or less, and then gradients are added part by part */
    bool part_stays;        /* it is that of a checkpoint that the run goes on from */
    uint8_t *frozen;        /* per parameter: does not train any more; NULL: all that can do */
    mest_real **kept;       /* per parameter: the copy that a scheduler's rewind brings back, of those that are not the host's; NULL: none */
    mest_memory_state memory;
    uint32_t file_crc;      /* of the model file, for checkpoints */
    bool have_file_crc;
    _Atomic bool cancelled;
};

/* session_memory.c */
mest_status mest_recompute_parse(const char *text, mest_recompute_kind *kind, double *share, mest_error *err);
mest_status mest_memory_config(mest_session *s, mest_error *err); /* what the config says of memory */
/* Arena of the training programs, or of the others, that needs most. */
size_t mest_memory_arena(const mest_session *s, bool training);
/* Fills everything but what belongs to the step and the choice. `coming`: bytes of the pipeline that are not allocated yet. */
void mest_memory_account(const mest_session *s, int64_t coming, int64_t pipeline, mest_memory_plan *plan);
/* session_fit.c */
/* Plans a run of `samples` (0: whatever number, in steps of config.batch; -1: no training) with an evaluation of `held` samples (0: none), obeys
 * the limit or fails with MEST_E_LIMIT, takes the arena. pipeline: bytes of the loaders; coming: those of them not allocated yet. */
mest_status mest_session_fit(mest_session *s, int64_t samples, int64_t held, int64_t coming, int64_t pipeline, mest_error *err);
/* A program that is built once the plan stands must keep within it. */
mest_status mest_memory_check(const mest_session *s, const mest_program *p, mest_error *err);
/* Bytes of the loader of a source and its number of samples; the session takes the source's shapes. */
mest_status mest_memory_look(mest_session *s, const mest_source *source, int64_t batch, int64_t *count, int64_t *bytes, mest_error *err);
/* memory_report.c: the parts of a plan that belong to a step, from the program that needs most. */
void mest_memory_step(const mest_session *s, mest_memory_plan *plan);

/* session_config.c */
enum { MEST_DEFAULT_BATCH = 32 };
mest_status mest_session_check_config(const mest_train_config *c, mest_error *err);
mest_status mest_session_check_output(const mest_model *m, const char *name, mest_error *err); /* is there an output of that name? NULL: the first */

/* session.c, session_programs.c, session_numbers.c */
void mest_session_follow_channels(mest_session *s); /* layers that have other sizes now: programs are dropped */
mest_status mest_session_prepare(mest_session *s, mest_error *err);  /* optimizer slots, host scratch */
/* The program for n samples, built if needed. Not to be called inside the step loop with a new size. */
mest_status mest_session_program(mest_session *s, mest_program_kind kind, int64_t n, mest_program **program, mest_error *err);
/* The graph and the types of inference on n samples, without kernels and memory: to be asked about, not to be run. The caller destroys it. */
mest_status mest_session_sketch(mest_session *s, int64_t n, mest_program **program, mest_error *err);
mest_status mest_session_set_source(mest_session *s, const mest_source_info *info, mest_error *err); /* session_feed.c */
/* session_tune.c: config.tune */
mest_status mest_session_tune_open(mest_session *s, mest_error *err);
/* After a program was built: keeps what was measured. */
void mest_session_tune_keep(mest_session *s);
/* Section "kernels": the times that the session's choices depend on; only if there are any. */
mest_status mest_session_write_tuning(const mest_session *s, mest_checkpoint_writer *w, mest_error *err);
/* From here on choices are those of the checkpoint's session, measured or not. Drops programs if that may change any. */
mest_status mest_session_read_tuning(mest_session *s, const mest_checkpoint *file, mest_error *err);
/* The output that config.output names, of the model's graph; the first where it names none. MEST_NONE: there is no output. */
mest_id mest_session_chosen_output(const mest_session *s);
void mest_session_drop_programs(mest_session *s);
/* Unfolded layers have statistics: measured, if a source is there to do it. MEST_E_STATE if not (session_statistics.c). */
mest_status mest_session_settle_unfolded(mest_session *s, const mest_source *source, mest_error *err);
void mest_session_drop_training(mest_session *s);   /* those for training only */
void mest_session_drop_evaluation(mest_session *s);
/* Memory and work of a program, as mest_session_explain gives them (explain.c). */
void mest_session_plan(const mest_session *s, const mest_program *p, mest_plan_info *plan);
/* Shapes of samples and targets from the model's output when no source gave them. */
mest_status mest_session_shapes(mest_session *s, mest_error *err);
/* Epochs of the whole run. Where max_steps bounds it: as many as that takes with all samples (schedulers need a length). */
int64_t mest_session_epochs(const mest_session *s);
/* Steps of an epoch with the samples that are active; of the whole run, with all samples. 0: not known. */
int64_t mest_session_batches(const mest_session *s);
int64_t mest_session_steps(const mest_session *s);
double mest_session_lr(const mest_session *s, int64_t epoch, double fraction);
double mest_session_sparsity(const mest_model *m);
/* At the end of a run: a warning where the weights stored are not as many as were asked for. */
void mest_session_check_target(mest_session *s);
/* Rows, loss and hits of the program's last run, added to the sums. */
void mest_session_count(const mest_program *p, double *loss_sum, int64_t *rows, int64_t *hits, int64_t *class_rows);
/* Per-sample correctness of the last run, of n samples from `first` on, into s->hits. */
void mest_session_hits(mest_session *s, const mest_program *p, int64_t first, int64_t n);
/* Runs `program` on a packed batch. */
mest_status mest_session_run(mest_session *s, mest_program *program, const void *const *inputs, const void *targets, double lr, bool learn, bool snapshot,
                             mest_error *err);

/* session_parts.c: steps of which not all samples are computed at once */
typedef struct mest_part {
    mest_program *program;
    int64_t first, n;          /* samples of the batch */
    int32_t index, count;
    const void *const *inputs; /* of its samples */
    const void *targets;
    const void *moved[MEST_SAMPLE_MAX_INPUTS];
} mest_part;
/* Parts of a batch of n samples: as many full ones as it has, and the rest. */
int32_t mest_session_n_parts(const mest_session *s, int64_t n);
/* The programs that a step of n samples needs. */
mest_status mest_session_part_programs(mest_session *s, int64_t n, mest_error *err);
/* Part number `index` of a batch, its program fed. */
mest_status mest_session_part(mest_session *s, const void *const *inputs, const void *targets, int64_t n, int32_t index, mest_part *part, mest_error *err);
/* Runs the step at work, part after part; its sums are those of this run. `run` says all but what belongs to a part. */
mest_status mest_session_run_parts(mest_session *s, const mest_run *run, bool forward_only, mest_error *err);
/* Samples of a part from here on; s->config.batch: steps are whole. Drops the training programs. */
mest_status mest_session_set_part(mest_session *s, int64_t samples, mest_error *err);
/* Does a training step normalise over its samples? Asked once a training program is there. */
bool mest_session_normalises(const mest_session *s); /* session_fit.c */
/* Section "part", where steps are in parts: a run goes on with what it began with, and refuses other wishes. */
mest_status mest_session_write_part(const mest_session *s, mest_checkpoint_writer *w, mest_error *err);
mest_status mest_session_read_part(mest_session *s, const mest_checkpoint *file, mest_error *err);
/* session_recipe.c. The first line in which n bytes of a checkpoint and this run's text differ is MEST_E_STATE. */
mest_status mest_session_compare_lines(const char *theirs, size_t n, const char *mine, const char *path, mest_error *err);
/* config.recipe in a checkpoint, and compared with it. */
mest_status mest_session_write_recipe(const mest_session *s, mest_checkpoint_writer *w, mest_error *err);
mest_status mest_session_compare_recipe(const mest_session *s, const mest_checkpoint *file, mest_error *err);
/* Bytes of one sample of input k as the caller gives it. */
size_t mest_session_sample_bytes(const mest_session *s, const mest_program *p, int k, int64_t batch);

/* session_feed.c */
/* Shape of each graph input without its batch axis into shapes[0..n_inputs-1]; rank -1: not known. */
void mest_session_input_shapes(const mest_session *s, mest_shape *shapes);
/* Room to convert a batch of `n` samples into the model's types. */
mest_status mest_session_feed_reserve(mest_session *s, const mest_program *p, mest_error *err);
/* Binds the inputs of the next run; types that are not the model's are converted. MEST_E_DATA when a number does not fit its type. */
mest_status mest_session_feed(mest_session *s, mest_program *p, const void *const *inputs, mest_error *err);
void mest_session_feed_free(mest_session *s);

/* session_rewind.c: host->keeper; `session` is a mest_session. */
mest_status mest_session_keeper(void *session, bool bring_back, mest_error *err);
/* Drops the copy, the host's part as well. */
void mest_session_forget(mest_session *s);
/* The copy and this epoch's place in the schedule: sections "remembered" and "schedule", only when there is something to say. */
bool mest_session_remembers(const mest_session *s);
mest_status mest_session_write_remembered(mest_session *s, mest_state_io write, void *stream);
mest_status mest_session_read_remembered(mest_session *s, mest_state_io read, void *stream, mest_error *err);

/* session_freeze.c: host->freezer. */
mest_status mest_session_freezer(void *session, int model_param, mest_error *err);
/* [n_params] 1: stays as it is from here on; what is frozen already stays so. Drops programs and optimizer state. */
mest_status mest_session_set_frozen(mest_session *s, const uint8_t *frozen, mest_error *err);

/* session_loop.c */
typedef struct mest_step_job { /* the programs are built */
    const void *const *inputs; /* one block for each feed */
    const void *targets;
    int64_t n;
    const int64_t *ids;        /* of the samples, if they come from a source; NULL: schedulers do not hear who was right */
    bool snapshot;             /* keep |g| of sparse parameters for schedulers */
    mest_training_step about;  /* what schedulers are told, the learning rate among it */
    /* results */
    mest_metrics metrics;
    mest_host_report moved_before, moved_after; /* by step_begin and step_end, with the time they took; batch_seen's */
    double seconds_before, seconds_after, seconds_seen;
} mest_step_job;
/* One step: the sums of the epoch grow, the counters do not. */
mest_status mest_session_do_step(mest_session *s, mest_step_job *job, mest_error *err);
mest_metrics mest_session_metrics(double loss_sum, int64_t rows, int64_t hits, int64_t class_rows, int64_t samples, int64_t steps, double seconds);
/* Schedulers and sums at the beginning and the end of an epoch. */
mest_status mest_session_begin_epoch(mest_session *s, mest_host_report *report, mest_error *err);
mest_status mest_session_close_epoch(mest_session *s, mest_host_report *report, mest_error *err);
/* A step of the caller's own loop on n <= batch samples. */
mest_status mest_session_step_on(mest_session *s, const void *const *inputs, const void *targets, int64_t n, mest_metrics *metrics, mest_error *err);

/* session_probe.c: the step at work; `session` is a mest_session (host->prober). */
mest_status mest_session_probe(void *session, mest_probe *probe, mest_error *err);
/* Forward, backward and update; fills in host->watch. snapshot: keep the gradients of sparse parameters. */
mest_status mest_session_learn(mest_session *s, double lr, bool snapshot, mest_error *err);

#endif
