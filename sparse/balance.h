/* SPDX-License-Identifier: Apache-2.0 */
/* Selection, sampling and random patterns of weights whose groups stay balanced (group_units > 0); called by the functions of format.h
 * that say what they do. In all of them groups are filled or emptied to an even level L, and r of those that could hold one more do. */
#ifndef MEST_SPARSE_BALANCE_H
#define MEST_SPARSE_BALANCE_H

#include "runtime/rng.h"
#include "sparse/cursor.h"
#include "sparse/score.h"

/* ---- balance.c ---- */
void mest_balance_lowest(const mest_score *score, int64_t k, int64_t *out);
void mest_balance_random(mest_sparse *s, int64_t n_units, uint64_t seed, uint64_t stream);

/* ---- balance_magnitude.c ---- */
mest_status mest_balance_magnitude(mest_sparse *s, const mest_reader *reader, int64_t n_units, mest_error *err);

/* ---- balance_grow.c ---- */
mest_status mest_balance_sample(const mest_sparse *s, uint64_t seed, uint64_t stream, const mest_change *change, const int64_t *exclude,
                                int64_t n_exclude, int64_t n, int64_t *out, mest_error *err);

/* What one group holds while it is looked at: two arrays of group_units in the weight's own room, so that a mutation within a step allocates
 * nothing. */
typedef struct mest_group_room {
    int64_t *a, *b;
} mest_group_room;

static inline mest_group_room mest_group_room_of(const mest_sparse *s)
{
    return (mest_group_room){ s->group_room, s->group_room + s->group_units };
}

static inline int64_t mest_groups(const mest_sparse *s) { return s->n_units / s->group_units; }

static inline int64_t mest_random_choice(const mest_sparse *s, uint64_t seed, uint64_t stream, int64_t slot)
{
    return s->choices == 1 ? 0 : (int64_t)mest_rng_below(seed, mest_mix64(stream ^ 0x63686f696365u), (uint64_t)slot, (uint64_t)s->choices);
}

/* sample.c: n distinct ranks in [0, m), uniform, ascending. */
void mest_draw_ranks(uint64_t seed, uint64_t stream, int64_t m, int64_t n, int64_t *out);

#endif
