/* SPDX-License-Identifier: Apache-2.0 */
/* sweep.h - many trainings from one file: a grid of options, a process and a folder a run, one table of results.
 *
 *   sweep_set    one option of mest-run with its argument
 *   sweep_value  a point of an axis: a label, and the options it stands for
 *   sweep_axis, sweep_grid, sweep   what the file says
 *   sweep_run    one combination: its folder, its command, what became of it
 *
 * sweep_file.c reads the file, sweep_runs.c makes the list of runs and looks what is done, sweep_exec.c runs them, sweep_table.c tells.
 * Everything here lives until sweep_free. Functions that return int return an exit code of tool.h; the failure was reported.
 */
#ifndef TOOLS_SWEEP_H
#define TOOLS_SWEEP_H

#include <sys/types.h>

#include "options.h"
#include "tool.h"

enum { SWEEP_MOST_RUNS = 10000, SWEEP_MOST_JOBS = 256 };

typedef struct sweep_set {
    const char *name, *value; /* value NULL: a switch */
} sweep_set;

typedef struct sweep_value {
    const char *label;
    sweep_set *set;
    int n;
} sweep_value;

typedef struct sweep_axis {
    const char *name; /* an option, or the file's own name for values that are mappings */
    sweep_value *value;
    int n;
} sweep_axis;

typedef struct sweep_grid {
    sweep_axis *axis;
    int n;
} sweep_grid;

typedef enum sweep_state { SWEEP_OPEN, SWEEP_RUNNING, SWEEP_DONE, SWEEP_FAILED } sweep_state;

typedef struct sweep_run {
    const char **label;   /* one a column; NULL: its grid has no such axis */
    char **argument;      /* the command without output folder: NULL-terminated, argument[0] is the model */
    int n_arguments;
    char *name, *folder;  /* name: of the folder */
    sweep_state state;
    bool begun;           /* there is a folder of the same command: go on with it */
    int exit_code;        /* SWEEP_FAILED */
    bool unreadable;      /* SWEEP_FAILED: it ended well, but what it left cannot be read */
    pid_t process;        /* SWEEP_RUNNING */
    /* SWEEP_DONE; NaN: not known */
    double loss, accuracy, sparsity, seconds, steps, peak_bytes;
} sweep_run;

typedef struct sweep {
    const char *path, *model;
    sweep_set *option; /* of every run */
    int n_options;
    sweep_grid *grid;
    int n_grids;
    const char **average; /* axes that the table takes means over */
    int n_average;
    const char **column;  /* names of all axes */
    int n_columns;
    sweep_run *run;
    int n_runs;
    void *memory;         /* all of it, a list */
} sweep;

/* Zeroed memory that sweep_free releases; NULL when there is none. */
void *sweep_take(sweep *s, size_t n, size_t size);
char *sweep_text(sweep *s, const char *text, size_t length);
void sweep_free(sweep *s);

/* The row of the option table, NULL if there is none of that name. */
const option *sweep_option(const char *name);

int sweep_read(tool *t, sweep *s, const char *path);
/* Every combination, checked as the command line would be. */
int sweep_expand(tool *t, sweep *s);
/* What the command line would say to the run: its options alone; with the model, whether it can be read and made sparse, and its schedulers go with
 * it and with the number of epochs; with the data, too. Says what is wrong, and with which run. */
typedef enum sweep_depth { SWEEP_OPTIONS, SWEEP_MODEL, SWEEP_DATA } sweep_depth;
int sweep_check_run(tool *t, const sweep *s, const sweep_run *r, sweep_depth depth);
/* Which runs are done or begun in the folder; a run there that was made with other options is refused, unless --overwrite. */
int sweep_look(tool *t, sweep *s, const char *folder);
/* The results of a finished run, from its folder; false: it is not finished. */
bool sweep_results(sweep_run *r);
/* Remembers in the run's folder which command it is. */
int sweep_begin_run(tool *t, const sweep_run *r);

/* Runs what is open, `jobs` at a time; told is called after each run that ended. 0 also if runs failed; EXIT_SIGNAL + n when interrupted. */
int sweep_execute(tool *t, sweep *s, int64_t jobs, int (*told)(tool *t, sweep *s, const sweep_run *r));

/* A finished run as an event of --json. */
int sweep_emit_run(tool *t, const sweep *s, const sweep_run *r);
/* Writes sweep.csv and sweep.json of the folder. */
int sweep_save(tool *t, const sweep *s, const char *folder);
/* Prints the table of groups, then what failed. */
int sweep_print(tool *t, const sweep *s);
/* "method=set, sparsity=0.9, seed=1" */
const char *sweep_describe(const sweep *s, const sweep_run *r, char *text, size_t size);

#endif
