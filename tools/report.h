/* SPDX-License-Identifier: Apache-2.0 */
/* report.h - the tables at the end of a run, and the "summary" event. */
#ifndef TOOLS_REPORT_H
#define TOOLS_REPORT_H

#include <stdio.h>

#include "progress.h"
#include "tool.h"

/* One training run. Metrics with samples == 0 were not measured. */
typedef struct train_report {
    mest_metrics original; /* the model as it came, before it was made sparse */
    mest_metrics start;    /* where training began */
    mest_metrics end;
    double seconds;        /* of training, evaluations in between included */
    int64_t steps, samples, epochs; /* trained by this process */
    mest_plan_info plan;   /* of the training program */
    mest_memory_plan memory; /* predicted for the run */
    const char *resumed;   /* checkpoint, NULL: none */
    bool made_sparse;      /* some weights were sparse where training began: not if a method takes them there from all weights */
    bool complete;           /* nothing was left to train */
} train_report;

/* Prints the table (stdout; stderr with --json), emits "summary" and saves it to output_dir. An exit code. */
int report_train(tool *t, const train_report *r);
int report_eval(tool *t, const mest_metrics *m);

/* Where results for people go: stdout, or stderr with --json. */
FILE *report_stream(const tool *t);
/* Most memory this process ever had resident, bytes (VmHWM of /proc/self/status); 0: unknown. */
int64_t report_resident_peak(void);
/* Begins the measurement of that peak anew, where the system can. */
void report_reset_peak(void);
/* "12.3 MB" */
void report_bytes(char *text, size_t size, int64_t bytes);
/* `text` without control characters: names come from model files and must not steer the terminal. */
typedef struct plain_text {
    char s[640];
} plain_text;
plain_text report_plain(const char *text);
/* "[16,3,3,3]"; symbolic axes are "?". */
void report_shape(char *text, size_t size, const int64_t *dim, int rank);
/* Flushes stdout; EXIT_FILES if it could not be written. */
int report_finish(tool *t);

#endif
