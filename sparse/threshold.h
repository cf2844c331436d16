/* SPDX-License-Identifier: Apache-2.0 */
/* Where the k smallest keys of a stream end; keys of norms, largest first. */
#ifndef MEST_SPARSE_THRESHOLD_H
#define MEST_SPARSE_THRESHOLD_H

#include "sparse/keys.h"
#include "sparse/kth.h"

typedef struct mest_threshold {
    uint32_t key;   /* of the last one that is kept */
    int64_t equal;  /* those of just that key to be kept: the first */
} mest_threshold;

enum { MEST_THRESHOLD_LARGE = 1 << 20 }; /* keys from which one pass over the stream is enough as a rule, with up to 25 MiB beside it; fewer where `room` says */

/* Largest first is smallest first of the complement; equal norms keep the order of ids. A NaN is larger than everything, whatever its sign. */
static inline uint32_t mest_descending(float norm) { return ~mest_float_bits(norm) & 0x7fffffff; }

/* 1 <= k <= keys->total. Exact. Reads the stream once if there is room for all keys, else three times; a large one about 1.1 times, or 2.1 times
 * where its keys are so unevenly spread, or so often equal, that a sample says too little. */
mest_status mest_threshold_find(mest_threshold *t, const mest_keys *keys, int64_t k, mest_error *err);

/* In the order of the stream: is it one of the k? */
static inline bool mest_threshold_take(mest_threshold *t, uint32_t key)
{
    return key < t->key || (key == t->key && t->equal-- > 0);
}

#endif
