/* SPDX-License-Identifier: Apache-2.0 */
/* progress.h - what is seen while a run goes on: a bar on a terminal, plain lines elsewhere, JSON events.
 *
 * The bar is redrawn at most ten times a second. Plain lines come at the end of each epoch and every ten seconds, or every
 * --log-interval steps. Terminals without cursor control (TERM=dumb) get plain lines; NO_COLOR and COLUMNS are honoured.
 */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include "tool.h"

typedef struct progress {
    tool *t;
    bool bar, colour, failed; /* failed: an event could not be written */
    int code;                 /* the run's folder could not be opened, which was told */
    const char *task;         /* "validating", "evaluating before training", ...: what the bar says */
    double began, shown, logged; /* seconds, monotonic clock */
    int64_t steps, samples;   /* trained here */
    mest_metrics validation;  /* the latest, samples == 0: none */
    mest_metrics train;       /* of the latest epoch, complete or not */
    int64_t validation_epoch, last_epoch; /* -1: none yet; last_epoch: the one in which the latest step was */
    int64_t epochs_done;
} progress;

void progress_init(progress *p, tool *t);
/* The callback for mest_run_options; user is the progress. Returns false when the run shall stop: a signal came, or failed. */
bool progress_event(void *user, const mest_event *event);
/* Removes the bar. */
void progress_clear(progress *p);

double progress_clock(void);      /* seconds, monotonic */
int progress_columns(int fd);     /* COLUMNS, else the terminal's width, else 80 */
bool progress_colour(int fd);     /* may escape sequences be sent there? */
/* "1:02:03", "4:05" */
void progress_duration(char *text, size_t size, double seconds);

#endif
