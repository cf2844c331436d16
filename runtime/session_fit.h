/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of fitting a run into a limit share: session_fit.c, session_front.c. */
#ifndef MEST_RUNTIME_SESSION_FIT_H
#define MEST_RUNTIME_SESSION_FIT_H

#include "runtime/session.h"

typedef struct mest_fit_sizes { /* of what runs in a run; 0: none */
    int64_t train[2], eval[2];
} mest_fit_sizes;

typedef struct mest_fitting { /* one call of mest_session_fit */
    mest_session *s;
    int64_t samples, held;      /* to train on (0: whatever number, -1: no training), to evaluate */
    int64_t coming, pipeline;   /* bytes of the loaders that are not allocated yet; of all */
    int64_t released;           /* bytes of optimizer state that go when what was tried is taken */
    int64_t margin;             /* bytes to be left free: the process grows a little while it is searched */
    mest_fit_sizes n;
    mest_memory_plan m;
    double whole_seconds;       /* modelled time of a step that is not in parts */
    int n_front;                /* parameters that were frozen to obey, in front of: */
    const char *front_name;
    mest_error *err;
} mest_fitting;

static inline bool mest_fit_exceeds(const mest_fitting *f) { return f->m.limit_bytes && f->m.process_bytes + f->margin > f->m.limit_bytes; }
/* Builds the programs of the run as everything stands and counts. */
mest_status mest_fit_build(mest_fitting *f);
/* From whole steps on, as far as the limit asks for it: recomputation, parts, bfloat16, each where the config allows it. */
mest_status mest_fit_try(mest_fitting *f);

/* session_front.c: freezes the fewest parameters, from the input on, with which the limit is obeyed; none if it cannot be: then f->m is the least
 * that was found and nothing is frozen. Only for runs that have not begun. */
mest_status mest_fit_freeze_front(mest_fitting *f);
/* Why not, for a refusal; NULL: it can be tried. */
const char *mest_fit_no_front(const mest_session *s);
/* What all but the last layer frozen would come to, with the least memory of a step. */
mest_status mest_fit_least_front(mest_fitting *f);

#endif
