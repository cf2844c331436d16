/* SPDX-License-Identifier: Apache-2.0 */
/* Which elements dropout keeps: a function of (session seed, step, node, logical element of the batch), so layouts, kernels, threads and parts of a batch agree. */
#ifndef MEST_OPS_DROPOUT_KEEP_H
#define MEST_OPS_DROPOUT_KEEP_H

#include "ops/nn.h"
#include "runtime/rng.h"

typedef struct mest_dropout_keep {
    uint64_t key;       /* of this node in this step */
    uint64_t before;    /* elements of the batch before those of this run */
    uint64_t threshold; /* kept when the 53 random bits are at least this */
    double scale;       /* of what is kept: 1 / (1 - ratio); 0 when nothing is */
} mest_dropout_keep;

static inline mest_dropout_keep mest_dropout_keep_of(const mest_dropout_params *p, const mest_run *run, const mest_shape *shape)
{
    mest_dropout_keep k = {.before = (uint64_t)mest_run_before(run, shape)};
    double ratio = p->ratio < 0 ? 0 : p->ratio > 1 ? 1 : p->ratio;
    uint64_t seed = run ? run->seed : 0, step = run ? run->step : 0;
    k.key = mest_rng(seed, (uint64_t)MEST_STREAM_DROPOUT << 32 | (p->key & 0xffffffffu), step);
    k.threshold = (uint64_t)(ratio * 0x1p53);
    k.scale = ratio < 1 ? 1 / (1 - ratio) : 0;
    return k;
}

/* `element`: index in C order of the logical shape of this run. */
static inline bool mest_dropout_kept(const mest_dropout_keep *k, uint64_t element)
{
    return mest_mix64(k->key ^ (k->before + element)) >> 11 >= k->threshold;
}

#endif
