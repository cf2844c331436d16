/* SPDX-License-Identifier: Apache-2.0 */
/* The inner loops of dense products where both operands change every step: blocks of rows times a panel of one or two vectors of columns.
 * Static, for the kernel files of one instruction set: gemm_plain.c, attention_plain.c.
 *
 *   panel   [depth][GEMM_WIDE] numbers, or any array whose rows hold one or two vectors
 *   sum     [rows][GEMM_WIDE]
 */
#ifndef MEST_OPS_KERNELS_GEMM_MICRO_H
#define MEST_OPS_KERNELS_GEMM_MICRO_H

#include "ops/kernels/pixel.h"
#include "ops/kernels/vector.h"

enum { GEMM_DEPTH = 256, GEMM_WIDE = 2 * VL, GEMM_ROWS = 144 };

/* sum[i][0..vectors) (+)= a(i, k) panel[k], for 3 * groups rows (groups 0: one row). */
VEC_INLINE void gemm_block(const int groups, const int vectors, const mest_real *a, int64_t a_row, int64_t a_col, const mest_real *v,
                           int64_t v_row, int64_t depth, mest_real *sum, bool add)
{
    const int rows = groups ? 3 * groups : 1, sets = groups ? groups : 1, each = groups ? 3 : 1;
    vec acc[12][2];
    const mest_real *from[4];
    for (int i = 0; i < rows; i++)
        for (int x = 0; x < vectors; x++)
            acc[i][x] = (vec){0};
    for (int g = 0; g < sets; g++)
        from[g] = a + 3 * g * a_row;
    for (int64_t k = 0; k < depth; k++, v += v_row) {
        const vec v0 = VEC_LOAD(v), v1 = vectors > 1 ? VEC_LOAD(v + VL) : v0;
        for (int g = 0; g < sets; g++) {
            for (int e = 0; e < each; e++) {
                const vec s = VEC_SPLAT(from[g][e * a_row]);
                acc[3 * g + e][0] += s * v0;
                if (vectors > 1)
                    acc[3 * g + e][1] += s * v1;
            }
            from[g] += a_col;
        }
    }
    for (int i = 0; i < rows; i++)
        for (int x = 0; x < vectors; x++) {
            mest_real *at = sum + i * GEMM_WIDE + x * VL;
            VEC_STORE(at, add ? VEC_LOAD(at) + acc[i][x] : acc[i][x]);
        }
}

#define GEMM_BLOCK(groups, vectors)                                                                                              \
    static void gemm_block_##groups##_##vectors(const mest_real *a, int64_t a_row, int64_t a_col, const mest_real *v, int64_t v_row, \
                                                int64_t depth, mest_real *sum, bool add)                                        \
    {                                                                                                                           \
        gemm_block(groups, vectors, a, a_row, a_col, v, v_row, depth, sum, add);                                                \
    }
GEMM_BLOCK(0, 1) GEMM_BLOCK(0, 2) GEMM_BLOCK(1, 1) GEMM_BLOCK(1, 2) GEMM_BLOCK(2, 1) GEMM_BLOCK(2, 2)
#if VEC_REGISTERS == 32
GEMM_BLOCK(4, 1) GEMM_BLOCK(4, 2)
#endif
#undef GEMM_BLOCK

static void gemm_rows(int64_t rows, int vectors, const mest_real *a, int64_t a_row, int64_t a_col, const mest_real *v, int64_t v_row,
                      int64_t depth, mest_real *sum, bool add)
{
    for (int64_t i = 0; i < rows;) {
        const mest_real *from = a + i * a_row;
        mest_real *to = sum + i * GEMM_WIDE;
#if VEC_REGISTERS == 32
        if (rows - i >= 12) {
            (vectors > 1 ? gemm_block_4_2 : gemm_block_4_1)(from, a_row, a_col, v, v_row, depth, to, add);
            i += 12;
            continue;
        }
#endif
        if (rows - i >= 6) {
            (vectors > 1 ? gemm_block_2_2 : gemm_block_2_1)(from, a_row, a_col, v, v_row, depth, to, add);
            i += 6;
        } else if (rows - i >= 3) {
            (vectors > 1 ? gemm_block_1_2 : gemm_block_1_1)(from, a_row, a_col, v, v_row, depth, to, add);
            i += 3;
        } else {
            (vectors > 1 ? gemm_block_0_2 : gemm_block_0_1)(from, a_row, a_col, v, v_row, depth, to, add);
            i += 1;
        }
    }
}

/* panel[k][j] = b(k, j), zero past the width. */
static void gemm_pack(const mest_real *b, int64_t b_row, int64_t b_col, int64_t depth, int64_t width, int64_t padded, mest_real *panel)
{
    if (b_col == 1) {
        for (int64_t k = 0; k < depth; k++) {
            memcpy(panel + k * GEMM_WIDE, b + k * b_row, (size_t)width * sizeof *panel);
            for (int64_t j = width; j < padded; j++)
                panel[k * GEMM_WIDE + j] = 0;
        }
        return;
    }
    int64_t j = 0;
#if !MEST_REAL_IS_DOUBLE
    typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
    if (b_row == 1)
        for (; j + 4 <= width; j += 4) {
            int64_t k = 0;
            for (; k + 4 <= depth; k += 4) { /* 4 x 4 transpose */
                const float *p = b + k + j * b_col;
                float *to = panel + k * GEMM_WIDE + j;
                const four r0 = *(const four *)(const void *)p, r1 = *(const four *)(const void *)(p + b_col);
                const four r2 = *(const four *)(const void *)(p + 2 * b_col), r3 = *(const four *)(const void *)(p + 3 * b_col);
                const four s0 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), s1 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
                const four s2 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5), s3 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
                *(four *)(void *)to = __builtin_shufflevector(s0, s2, 0, 1, 4, 5);
                *(four *)(void *)(to + GEMM_WIDE) = __builtin_shufflevector(s0, s2, 2, 3, 6, 7);
                *(four *)(void *)(to + 2 * GEMM_WIDE) = __builtin_shufflevector(s1, s3, 0, 1, 4, 5);
                *(four *)(void *)(to + 3 * GEMM_WIDE) = __builtin_shufflevector(s1, s3, 2, 3, 6, 7);
            }
            for (; k < depth; k++)
                for (int64_t i = 0; i < 4; i++)
                    panel[k * GEMM_WIDE + j + i] = b[k + (j + i) * b_col];
        }
#endif
    for (; j < padded; j++)
        for (int64_t k = 0; k < depth; k++)
            panel[k * GEMM_WIDE + j] = j < width ? b[k * b_row + j * b_col] : 0;
}

#endif
