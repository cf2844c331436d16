/* SPDX-License-Identifier: Apache-2.0 */
/* Where the time of a training step goes: the library's node times, summed by node and by kind of node.
 *
 *   step_profile   seconds by node index, gathered through mest_session_profile
 */
#ifndef BENCH_STEP_PROFILE_H
#define BENCH_STEP_PROFILE_H

#include <stdio.h>

#include "mest/train.h"

typedef struct profile_node {
    char op[48], kernel[48], phase[12], inputs[160];
    int64_t macs, bytes;
    double seconds; /* of all steps */
    int64_t runs;
} profile_node;

typedef struct step_profile {
    profile_node *nodes;
    int n, room;
    bool failed; /* memory ran out: the profile is not complete */
} step_profile;

/* Names the nodes of the training program for `batch` samples and starts timing them. The profile must outlive the session or the next
 * mest_session_profile. Errors as mest_session_explain's, MEST_E_NOMEM. */
mest_status step_profile_start(step_profile *profile, mest_session *session, int64_t batch, mest_error *err);
/* Table: kinds of nodes (phase, operator, kernel) by falling time, then the `top` slowest nodes. `steps`: timed steps. */
void step_profile_print(const step_profile *profile, FILE *file, const char *title, int64_t steps, int top);
void step_profile_json(const step_profile *profile, FILE *file, int64_t steps);
void step_profile_free(step_profile *profile);

#endif
