/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing what grows from a stream of all units with a norm each, in ascending order of their ids.
 *
 * Without groups the k free units of largest norm. With groups, groups are filled as evenly as random growth fills them (sparse/format.h):
 * the emptiest first, to a common level, each with its best free slots; the remainder goes to the groups whose next slot is best. Of a
 * slot's choices the one of largest norm counts. Equal norms: the lower id. Memory: the caller's arrays of k, and one group. */
#ifndef MEST_RUNTIME_GROWTH_H
#define MEST_RUNTIME_GROWTH_H

#include "runtime/plugin.h"
#include "sparse/topk.h"

/* What counts beside the pattern: active units that are free, units that are taken. Ascending lists. */
typedef struct mest_growth_lists {
    const int64_t *list[3]; /* two of free ones, one of taken ones */
    int64_t n[3];
} mest_growth_lists;

typedef struct mest_growth {
    const mest_sparse *s;
    mest_topk top;       /* no groups: everything. Groups: the remainder, behind what was given out directly */
    int64_t *units;      /* the caller's */
    float *norms;
    int64_t k, n, level;
    mest_topk slots;     /* free slots of the group at work, unordered */
    int64_t group, held; /* of it: slots that are not free */
    int64_t slot, best;  /* slot at work, its best choice */
    float best_norm;
    bool slot_held;
} mest_growth;

mest_status mest_growth_open(mest_growth *g, const mest_sparse *s, const mest_growth_lists *lists, int64_t k, int64_t *units, float *norms, mest_error *err);
/* The next unit; held: it is active (and not free) or taken. */
void mest_growth_put(mest_growth *g, int64_t unit, float norm, bool held);
/* Orders the result; returns how many were found. A zeroed structure is fine. */
int64_t mest_growth_close(mest_growth *g);
/* Bytes held beside the caller's arrays. */
int64_t mest_growth_bytes(const mest_growth *g);

#endif
