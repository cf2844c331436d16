/* SPDX-License-Identifier: Apache-2.0 */
/* Exact selection of the k smallest of a stream of 32-bit keys that is replayed MEST_KTH_PASSES times: each pass counts one digit of
 * the keys that still may be the k-th (radix selection, most significant digit first). Bits of non-negative floats order as numbers.
 *
 *   mest_kth_init(&t, k);                       1 <= k <= number of keys
 *   for (pass) { for (each key) mest_kth_count(&t, key); mest_kth_next(&t); }
 *   afterwards: mest_kth_take(&t, key) in stream order is true for exactly k keys, of equal ones for the first
 */
#ifndef MEST_SPARSE_KTH_H
#define MEST_SPARSE_KTH_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { MEST_KTH_PASSES = 3, MEST_KTH_BITS = 11 };

typedef struct mest_kth {
    uint32_t key, mask; /* leading digits of the k-th key, as far as known */
    int shift, bits;    /* digit that is being counted */
    int64_t need;       /* rank of the k-th among the keys that share those digits, from 1; in the end: equal keys still to take */
    int64_t count[1 << MEST_KTH_BITS];
} mest_kth;

static inline void mest_kth_init(mest_kth *t, int64_t k)
{
    t->key = t->mask = 0;
    t->shift = 32 - MEST_KTH_BITS;
    t->bits = MEST_KTH_BITS;
    t->need = k;
    memset(t->count, 0, sizeof t->count);
}

static inline void mest_kth_count(mest_kth *t, uint32_t key)
{
    if ((key & t->mask) == t->key)
        t->count[key >> t->shift & ((1u << t->bits) - 1)]++;
}

static inline void mest_kth_next(mest_kth *t)
{
    uint32_t digit = 0;
    while (t->need > t->count[digit])
        t->need -= t->count[digit++];
    t->key |= digit << t->shift;
    t->mask |= ((1u << t->bits) - 1) << t->shift;
    t->bits = t->shift < MEST_KTH_BITS ? t->shift : MEST_KTH_BITS;
    t->shift -= t->bits;
    memset(t->count, 0, sizeof t->count);
}

static inline bool mest_kth_take(mest_kth *t, uint32_t key)
{
    return key < t->key || (key == t->key && t->need-- > 0);
}

static inline uint32_t mest_float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

#endif
