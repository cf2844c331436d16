/* SPDX-License-Identifier: Apache-2.0 */
/* tool.h - what the commands of mest-run share: one run's objects, error reports, exit codes, signals.
 *
 *   run_folder  where a training run writes, and how far it has come with that
 *   tool        the settings and everything that was opened for them; tool_close releases it all
 *   tool_stage  what was being done when the library failed; with the status it decides the exit code
 *
 * Functions that return int return an exit code: 0, or the code of a failure that has been reported already.
 */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include <signal.h>

#include "mest/check.h"
#include "mest/guest.h"
#include "mest/memory.h"
#include "logs.h"
#include "settings.h"

/* Documented in --help and docs/cli.md. */
enum {
    EXIT_DONE = 0,
    EXIT_INTERNAL = 1,
    EXIT_USAGE = 2,
    EXIT_MODEL = 3,
    EXIT_DATA = 4,
    EXIT_FILES = 5,
    EXIT_NUMERIC = 6,
    EXIT_LIMIT = 7,
    EXIT_PLUGIN = 8,
    EXIT_TIME = 124,  /* as of timeout(1) */
    EXIT_SIGNAL = 128 /* + number of the signal */
};

typedef enum tool_stage { STAGE_MODEL, STAGE_DATA, STAGE_PREPARE, STAGE_PLUGIN, STAGE_RUN, STAGE_TRAIN, STAGE_FILES } tool_stage;

typedef struct memory_budget {
    mest_allocator under; /* where the memory comes from */
    _Atomic int64_t used_bytes;
    int64_t limit_bytes, start_bytes; /* of allocations; of the process when it began */
    _Atomic bool refused; /* something was asked for that the limit did not allow */
} memory_budget;

enum { RUN_FILES = 8 };

typedef struct run_folder { /* --output-dir */
    size_t made;     /* length of the path down to the first folder that was made for it, 0: all were there */
    bool made_lock;
    bool fresh;      /* what is in it is of no use to this run, and goes */
    bool waiting;    /* all is ready, nothing was trained: events are held */
    bool begun;      /* what is in it is of this run */
    int64_t epochs, steps; /* of the checkpoint it goes on from */
    uint64_t earlier[RUN_FILES]; /* inodes of the files that were there, 0: none */
    cJSON *held;     /* events for the logs; NULL: none */
} run_folder;

typedef struct tool {
    const settings *s;
    mest_model *model;
    mest_session *session;
    mest_source data, val;
    mest_source_info data_info, val_info;
    bool has_val, sparsified, told_unfold, told_head, told_batch;
    mest_head_info head; /* of --new-head; weight NULL: none */
    mest_guest *guest; /* NULL: nothing was asked of it */
    mest_train_config config;
    mest_logger logger;
    mest_allocator allocator;
    memory_budget budget;
    log_file log[LOG_FORMS]; /* logs in output_dir, by number of the form */
    bool logging;    /* any of them is open, or will be */
    run_folder folder;
    int lock_fd;     /* output_dir/lock, -1: none */
    bool line_open;  /* a progress bar stands on the last line of the terminal */
    char recipe[4096]; /* how data are prepared and weights begin, for checkpoints */
    char checkpoint[4096], run_model[4096], summary[4096]; /* paths in output_dir; "" without one */
} tool;

void tool_init(tool *t, const settings *s);
void tool_close(tool *t);
/* What --mem-limit allows the library from now on. While a run is planned it may hold more, up to a wall, so that the plan can say what would do. */
void tool_budget(tool *t, bool planning);

/* Reports a failure of the library on stderr (and as JSON) and returns the exit code for it. */
int tool_fail(tool *t, tool_stage stage, const mest_error *err);
/* The same with the tool's own text. */
int tool_refuse(tool *t, int code, const char *format, ...) MEST_PRINTF(3, 4);
/* A remark on stderr, unless --quiet. Clears a progress bar first. */
void tool_note(tool *t, const char *format, ...) MEST_PRINTF(2, 3);
int tool_exit_code(tool_stage stage, mest_status status);

/* setup.c: in this order. */
int tool_check_settings(tool *t);    /* combinations that no table can express */
int tool_load_model(tool *t);        /* also --freeze and --train-only */
int tool_sparsify(tool *t);          /* does nothing when the settings ask for nothing */
int tool_create_session(tool *t);
int tool_create_guest(tool *t);      /* if the settings ask for one; its time begins */
/* cmd_gradcheck.c: what --gradcheck changes in the recipe. */
void tool_gradcheck_config(const settings *s, mest_train_config *c);

/* method.c */
bool tool_scheme_says(const settings *s);    /* does the scheme say a sparsity by itself: nmN:M, pattern, or one of its own in a rule? */
bool tool_wants_sparsity(const settings *s);
const char *tool_method(const settings *s); /* --method or what it defaults to */
bool tool_starts_dense(const settings *s);  /* does the method begin with all weights stored? */
int tool_check_method(tool *t);
int tool_add_schedulers(tool *t);           /* after the session was created */

/* sources.c: opens --data (and --val or the split, if `validation`), with the normalisation of the first for both: as the options say, or,
 * if none of them is given, as a trained model says. The model must be loaded. */
int tool_open_sources(tool *t, bool validation);
/* Do inputs, classes and targets fit the model? Before anything is planned. */
int tool_check_sources(tool *t, bool targets);
/* What the model was trained with, in the form of the next; NULL if it does not say. */
const char *tool_model_normalisation(const tool *t);
/* "--scale-input 255 --mean 0.49,.. --std 0.24,.." of the source; "" if it does not normalise. */
void tool_normalisation_text(const mest_source *source, char *text, size_t size);
/* recipe.c. Fills t->recipe: how samples are made of the data that were opened with these options, and weights of the file; which kernels may be used. A resumed run must have it in common with the
 * one before. */
void tool_recipe(tool *t, const mest_source_options *o);

/* signals.c: SIGINT and SIGTERM ask the session to stop after the step; a second one, or one without a session, ends at once. */
void signals_install(void);
void signals_watch(mest_session *session); /* NULL: none */
int signals_caught(void);                  /* number of the signal, 0: none */

#endif
