/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the pretended library share: objects, and how a function fails or tells what it got (fake_mest.c). */
#ifndef MEST_TESTS_CLI_FAKE_H
#define MEST_TESTS_CLI_FAKE_H

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "mest/check.h"
#include "mest/guest.h"
#include "mest/memory.h"

#define N_PARAMETERS 4

struct mest_model {
    double sparsity;
    char scheme[16];
    bool frozen[N_PARAMETERS];
};

struct mest_session {
    mest_model *model;
    mest_train_config config;
    atomic_bool cancelled;
    int64_t steps;
    void (*trace)(void *user, const mest_node_time *time);
    void *trace_user;
};

/* What fake_data.c hands out as a source's self. */
typedef struct fake_source {
    int64_t count;
    int width;
    int64_t classes;
    bool floats, bare, named;
    mest_source_options options;
} fake_source;

mest_status fail(mest_error *err, mest_status status, const char *format, ...) MEST_PRINTF(3, 4);
/* Is this function asked to fail? */
bool asked(const char *function, mest_status *status, mest_error *err);
void echo(const char *format, ...) MEST_PRINTF(1, 2);

#define MAY_FAIL(err)                            \
    do {                                         \
        mest_status wanted_;                     \
        if (asked(__func__, &wanted_, (err)))    \
            return wanted_;                      \
    } while (0)

#endif
