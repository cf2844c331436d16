/* SPDX-License-Identifier: Apache-2.0 */
/* Choice of kernels by measurement: the time of a kernel on a layer's shapes, taken once, kept in a table and, between processes, in a file.
 *
 *   mest_tuner        the table of a session: key -> seconds, how much may still be measured
 *   mest_tune_mode    off: the models of cost alone; fast: what is contested, in a quarter of a second; full: ten seconds
 *
 * Kernels round differently, so what was chosen decides about the last bits of a run. The table is therefore all that choices depend on: a
 * time that was not taken because the bound was reached is written down as such, the next process finds the same table in the file, and a
 * checkpoint holds it. Times are those of one thread, so that the number of threads changes nothing. */
#ifndef MEST_RUNTIME_TUNE_H
#define MEST_RUNTIME_TUNE_H

#include "runtime/kernel.h"

typedef enum mest_tune_mode { MEST_TUNE_OFF = 0, MEST_TUNE_FAST = 1, MEST_TUNE_FULL = 2 } mest_tune_mode;

enum { MEST_TUNE_KEY = 480 };

typedef struct mest_tune_entry {
    char *key;
    double seconds;      /* negative: not measured for want of time; the model decides */
    bool used;           /* by this session */
} mest_tune_entry;

typedef struct mest_tuner {
    mest_heap *heap;
    mest_tune_mode mode;
    bool replay;         /* the table is that of a checkpoint: nothing is measured */
    mest_tune_entry *entries; /* ascending by key */
    size_t n, room;
    double left;         /* seconds that may still be spent */
    int measured, cached, given_up; /* kernels timed by this process; found in the file; left to the model */
    bool changed;        /* the file lacks something */
    char *path;          /* of the file; NULL: none */
    size_t path_bytes;
} mest_tuner;

/* "off", "fast", "full": MEST_E_ARGUMENT says what there is. NULL is off. */
mest_status mest_tune_parse(const char *text, mest_tune_mode *mode, mest_error *err);

/* file: NULL: the user's cache folder ($XDG_CACHE_HOME/mest or $HOME/.cache/mest), a file for each kind of processor and version; "": none. Reads it;
 * one that is damaged is ignored with a note in the log. */
mest_status mest_tuner_create(mest_tuner **tuner, mest_heap *heap, mest_tune_mode mode, const char *file, mest_error *err);
/* Writes what is new into the file, as a whole; that it cannot be written is a note in the log. */
void mest_tuner_save(mest_tuner *tuner);
void mest_tuner_destroy(mest_tuner *tuner); /* NULL is fine */

/* Seconds of `kernel` for the node of the query: of the table, or measured now; false: the model has to do. `modelled`: its seconds. */
bool mest_tuner_seconds(mest_tuner *tuner, const mest_kernel_query *q, const mest_kernel *kernel, double modelled, double *seconds);

/* ---- the table ---- */
mest_tune_entry *mest_tuner_find(const mest_tuner *tuner, const char *key);
/* Adds or replaces. */
mest_status mest_tuner_put(mest_tuner *tuner, const char *key, double seconds, mest_error *err);
/* Forgets all entries. */
void mest_tuner_clear(mest_tuner *tuner);
/* A line "seconds<TAB>key" without newline. False: it is none. */
bool mest_tune_line(const char *line, size_t n, char key[MEST_TUNE_KEY], double *seconds);

/* ---- measuring (tune_time.c) ---- */
/* Operator, shapes, layouts, sparse forms and densities, kernel: all that its time depends on. False: too long. */
bool mest_tune_key(const mest_kernel_query *q, const mest_kernel *kernel, mest_tune_mode mode, char key[MEST_TUNE_KEY]);
/* Runs the kernel on made-up operands; weights are those of the query where they are sparse. False: it cannot be run, or there is no memory. Fast: on at
 * most 16 samples (4 images where they follow each other), scaled. */
bool mest_tune_time(const mest_kernel_query *q, const mest_kernel *kernel, mest_tune_mode mode, double *seconds);

/* ---- the file (tune_file.c) ---- */
void mest_tune_load(mest_tuner *tuner);
/* Name of the file of this processor and version; returns `name`. */
const char *mest_tune_file_name(char name[32]);

#endif
