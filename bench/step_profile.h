/* SPDX-License-Identifier: Apache-2.0 */
/* Where the time of a training step goes: the library's node times, summed by node and by kind of node.
 *
 *   step_profile   seconds by node index, gathered through mest_session_profile; a node's time is the median of its runs, so that
 *                  what else the machine does hardly shows
 */
#ifndef BENCH_STEP_PROFILE_H
#define BENCH_STEP_PROFILE_H

#include <stdio.h>
#include <time.h>

#include "mest/train.h"

enum { PROFILE_RUNS = 32 };

typedef struct profile_node {
    char op[48], kernel[48], phase[12], inputs[160];
    int64_t macs, bytes;
    double seconds; /* median of the runs kept */
    int64_t runs;
    double run[PROFILE_RUNS]; /* the last runs */
} profile_node;

typedef struct step_profile {
    profile_node *nodes;
    int n, room;
    clockid_t clock;
    double last; /* not CLOCK_MONOTONIC: that clock at the end of the node before */
    bool failed; /* memory ran out: the profile is not complete */
} step_profile;

/* Names the nodes of the training program for `batch` samples and starts timing them: by the library's wall time, or by another clock
 * from node to node. The profile must outlive the session or the next
 * mest_session_profile. Errors as mest_session_explain's, MEST_E_NOMEM. */
mest_status step_profile_start(step_profile *profile, mest_session *session, int64_t batch, clockid_t clock, mest_error *err);
/* Before each step. */
void step_profile_mark(step_profile *profile);
/* To be called after the timed steps, before printing. */
void step_profile_finish(step_profile *profile);
/* Table: kinds of nodes (phase, operator, kernel) by falling time, then the `top` slowest nodes. */
void step_profile_print(const step_profile *profile, FILE *file, const char *title, int top);
void step_profile_json(const step_profile *profile, FILE *file);
void step_profile_free(step_profile *profile);

#endif
