/* SPDX-License-Identifier: Apache-2.0 */
/* Which forward values to drop and compute again in the backward part, so that a step needs no more than so many bytes, in the least time. */
#ifndef MEST_RUNTIME_DROP_H
#define MEST_RUNTIME_DROP_H

#include "runtime/lives.h"

typedef struct mest_drop_result {
    size_t peak;          /* bytes alive at once at most */
    double seconds_again; /* modelled time of what is computed again */
    int32_t n_dropped;    /* values dropped that the backward part reads, views of one counted once */
} mest_drop_result;

/* `limit` is met if the search can, and then at the least time it finds; otherwise result->peak is above it and the set is the best found.
 * dropped: one byte a value, as for mest_lives_evaluate. The result depends on the problem alone. */
mest_status mest_drop_search(const mest_lives *l, size_t limit, uint8_t *dropped, mest_drop_result *result, mest_error *err);
/* The least peak, within a percent, for which what is computed again takes no more than `seconds` (1e300: whatever it takes). */
mest_status mest_drop_within(const mest_lives *l, double seconds, uint8_t *dropped, mest_drop_result *result, mest_error *err);

#endif
