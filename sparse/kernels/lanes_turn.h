/* SPDX-License-Identifier: Apache-2.0 */
/* Plain rows to lanes and back, for one instruction set; static, as lanes_micro.h is. */
#ifndef MEST_SPARSE_KERNELS_LANES_TURN_H
#define MEST_SPARSE_KERNELS_LANES_TURN_H

#include "sparse/kernels/lanes_micro.h"

/* A square of V rows and V columns is transposed in log2(V) steps: step d swaps the blocks of d x d beside the diagonal. */
#define TURN_LOW(d, l) (((l) & (d)) ? V + (l) - (d) : (l))
#define TURN_HIGH(d, l) (((l) & (d)) ? V + (l) : (l) + (d))
#if defined(MEST_ISA_AVX512)
#define TURN_PICK(a, b, which, d)                                                                                                               \
    __builtin_shufflevector(a, b, which(d, 0), which(d, 1), which(d, 2), which(d, 3), which(d, 4), which(d, 5), which(d, 6), which(d, 7), \
                            which(d, 8), which(d, 9), which(d, 10), which(d, 11), which(d, 12), which(d, 13), which(d, 14), which(d, 15))
#elif defined(MEST_ISA_AVX2)
#define TURN_PICK(a, b, which, d) \
    __builtin_shufflevector(a, b, which(d, 0), which(d, 1), which(d, 2), which(d, 3), which(d, 4), which(d, 5), which(d, 6), which(d, 7))
#else
#define TURN_PICK(a, b, which, d) __builtin_shufflevector(a, b, which(d, 0), which(d, 1), which(d, 2), which(d, 3))
#endif
#define TURN_STEP(d)                                                   \
    UNROLL for (int i = 0; i < V; i++) if (!(i & (d)))            \
    {                                                             \
        const vec a = r[i], b = r[i + (d)];                       \
        r[i] = TURN_PICK(a, b, TURN_LOW, d);                                \
        r[i + (d)] = TURN_PICK(a, b, TURN_HIGH, d);                         \
    }

INLINE void turn_square(vec *r)
{
#if defined(MEST_ISA_AVX512)
    TURN_STEP(8)
#endif
#if defined(MEST_ISA_AVX512) || defined(MEST_ISA_AVX2)
    TURN_STEP(4)
#endif
    TURN_STEP(2)
    TURN_STEP(1)
}

/* Channels [c0, c1) of `valid` rows (at most V; row i at row + i * ld) to lanes[c * V + i]; lanes past `valid` become 0. */
static void turn_to_lanes(const mest_real *row, int64_t ld, int64_t valid, int64_t c0, int64_t c1, mest_real *lanes)
{
    int64_t c = c0;
    for (; c + V <= c1; c += V) {
        vec r[V];
        UNROLL for (int i = 0; i < V; i++)
        {
            r[i] = (vec){0};
            if (i < valid)
                r[i] = LOAD(row + i * ld + c);
        }
        turn_square(r);
        UNROLL for (int i = 0; i < V; i++) STORE(lanes + (c + i) * V, r[i]);
    }
    for (; c < c1; c++)
        for (int64_t i = 0; i < V; i++)
            lanes[c * V + i] = i < valid ? row[i * ld + c] : 0;
}

/* Back; lanes past `valid` are dropped. */
static void turn_to_rows(const mest_real *lanes, int64_t valid, int64_t c0, int64_t c1, mest_real *row, int64_t ld)
{
    int64_t c = c0;
    for (; c + V <= c1; c += V) {
        vec r[V];
        UNROLL for (int i = 0; i < V; i++) r[i] = LOAD(lanes + (c + i) * V);
        turn_square(r);
        UNROLL for (int i = 0; i < V; i++) if (i < valid) STORE(row + i * ld + c, r[i]);
    }
    for (; c < c1; c++)
        for (int64_t i = 0; i < valid; i++)
            row[i * ld + c] = lanes[c * V + i];
}

#endif
