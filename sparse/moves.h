/* SPDX-License-Identifier: Apache-2.0 */
/* A few units go, a few come: what lies between them moves up or down, in each array that has a place a unit, and nothing else is looked at.
 * A method that rewires in every step moves some hundred of 100,000 units at a time. */
#ifndef MEST_SPARSE_MOVES_H
#define MEST_SPARSE_MOVES_H

#include "sparse/format.h"

/* drop and grow ascend. drop_at[i]: where drop[i] lies; grow_at[i]: the old position that grow[i] comes before. n_old: units before the change. */
typedef struct mest_moves {
    const int64_t *drop, *grow;
    const int32_t *drop_at, *grow_at;
    int64_t n_drop, n_grow, n_old;
} mest_moves;

/* Moves the survivors in an array of n_old places of `size` bytes, in place; what grows has places of any content. */
void mest_moves_apply(const mest_moves *m, void *array, size_t size);
/* Calls fn with the index of each grown unit and its new position, ascending. */
void mest_moves_grown(const mest_moves *m, void (*fn)(void *context, int64_t i, int64_t at), void *context);

#endif
