/* SPDX-License-Identifier: Apache-2.0 */
/* Selection, sampling and random patterns of weights whose groups stay balanced (group_units > 0); called by the functions of format.h
 * that say what they do. In all of them groups are filled or emptied to an even level L, and r of those that could hold one more do. */
#ifndef MEST_SPARSE_BALANCE_H
#define MEST_SPARSE_BALANCE_H

#include "sparse/score.h"

mest_status mest_balance_lowest(const mest_score *score, int64_t k, int64_t *out, mest_error *err);
/* Pattern only; values are another pass. */
mest_status mest_balance_magnitude(mest_sparse *s, const mest_reader *reader, int64_t n_units, mest_error *err);
void mest_balance_random(mest_sparse *s, int64_t n_units, uint64_t seed, uint64_t stream);
mest_status mest_balance_sample(const mest_sparse *s, uint64_t seed, uint64_t stream, const int64_t *freed, int64_t n_freed,
                                const int64_t *exclude, int64_t n_exclude, int64_t n, int64_t *out, mest_error *err);

/* sample.c: n distinct ranks in [0, m), uniform, ascending. */
void mest_draw_ranks(uint64_t seed, uint64_t stream, int64_t m, int64_t n, int64_t *out);

#endif
