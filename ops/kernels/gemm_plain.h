/* SPDX-License-Identifier: Apache-2.0 */
/* Dense matrix product where both operands change every step (included by gemm_plain.c only).
 *
 * One side of the product is "wide": its columns fill vectors. The other is "narrow": its elements are broadcast, straight from memory,
 * whatever its strides; so weights are read in place and only panels of 256 x two vectors of the wide side are packed, into scratch. Which side
 * is which is decided from the shape: the one that needs less packing. A tile is a panel of columns times a range of rows; it is summed in
 * pieces of 256 terms, in order, so results do not depend on threads.
 */
#ifndef MEST_OPS_KERNELS_GEMM_PLAIN_H
#define MEST_OPS_KERNELS_GEMM_PLAIN_H

#include "ops/kernels/pixel.h"
#include "ops/kernels/vector.h"

enum { GEMM_DEPTH = 256, GEMM_WIDE = 2 * VL, GEMM_ROWS = 144 };

/* c(i, j) = alpha sum_k a(i, k) b(k, j) + beta d(i, j), times `batch`; every operand with two strides and a batch stride. d may be NULL. */
typedef struct gemm_job {
    int64_t m, n, k, batch;
    const mest_real *a, *b, *d;
    mest_real *c;
    int64_t a_row, a_col, a_batch, b_row, b_col, b_batch, c_row, c_col, c_batch, d_row, d_col;
    double alpha, beta;
} gemm_job;

typedef struct gemm_run {
    gemm_job j;
    int64_t panels, blocks;
    mest_real *scratch;
} gemm_run;

enum { GEMM_SCRATCH = (GEMM_DEPTH + GEMM_ROWS) * GEMM_WIDE }; /* reals a worker needs */

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

static void gemm_store(const gemm_job *j, int64_t batch, int64_t i0, int64_t rows, int64_t j0, int64_t width, const mest_real *sum)
{
    const mest_real alpha = (mest_real)j->alpha, beta = (mest_real)j->beta;
    mest_real *c = j->c + batch * j->c_batch + i0 * j->c_row + j0 * j->c_col;
    const mest_real *d = j->d ? j->d + i0 * j->d_row + j0 * j->d_col : NULL;
    if (j->c_col == 1) {
        for (int64_t i = 0; i < rows; i++)
            for (int64_t x = 0; x < width; x++)
                c[i * j->c_row + x] = alpha * sum[i * GEMM_WIDE + x] + (d ? beta * d[i * j->d_row + x * j->d_col] : 0);
        return;
    }
    for (int64_t x = 0; x < width; x++)
        for (int64_t i = 0; i < rows; i++)
            c[i * j->c_row + x * j->c_col] = alpha * sum[i * GEMM_WIDE + x] + (d ? beta * d[i * j->d_row + x * j->d_col] : 0);
}

static void gemm_tile(void *context, size_t worker, size_t tile)
{
    const gemm_run *r = context;
    const gemm_job *j = &r->j;
    const int64_t t = (int64_t)tile, block = t % r->blocks, panel_no = t / r->blocks % r->panels, batch = t / r->blocks / r->panels;
    const int64_t i0 = block * GEMM_ROWS, rows = px_min(GEMM_ROWS, j->m - i0), j0 = panel_no * GEMM_WIDE, width = px_min(GEMM_WIDE, j->n - j0);
    const int vectors = width > VL ? 2 : 1;
    mest_real *panel = r->scratch + worker * GEMM_SCRATCH, *sum = panel + GEMM_DEPTH * GEMM_WIDE;
    const mest_real *a = j->a + batch * j->a_batch + i0 * j->a_row, *b = j->b + batch * j->b_batch + j0 * j->b_col;
    /* few rows use a panel too seldom to pay for packing it */
    const bool in_place = j->b_col == 1 && width == vectors * VL && rows <= 24;
    for (int64_t k = 0; k < j->k; k += GEMM_DEPTH) {
        const int64_t depth = px_min(GEMM_DEPTH, j->k - k);
        const mest_real *v = b + k * j->b_row;
        int64_t v_row = j->b_row;
        if (!in_place) {
            gemm_pack(v, j->b_row, j->b_col, depth, width, vectors * VL, panel);
            v = panel;
            v_row = GEMM_WIDE;
        }
        gemm_rows(rows, vectors, a + k * j->a_col, j->a_row, j->a_col, v, v_row, depth, sum, k > 0);
    }
    if (j->k == 0)
        memset(sum, 0, (size_t)(rows * GEMM_WIDE) * sizeof *sum);
    gemm_store(j, batch, i0, rows, j0, width, sum);
}

/* Work of one orientation in vector operations or so: products, packing, storing. */
static double gemm_effort(int64_t narrow, int64_t wide, int64_t k, bool contiguous, bool stores_rows)
{
    const double n = (double)narrow, w = (double)(px_ceil(wide, VL) * VL), d = (double)k;
    return n * w * d / 24 + (double)px_ceil(narrow, GEMM_ROWS) * w * d * (contiguous ? 0.15 : 0.6) + n * w * (stores_rows ? 0.2 : 1);
}

static void gemm_do(const gemm_job *job, void *scratch, const mest_threads *threads)
{
    gemm_run r = {.j = *job, .scratch = scratch};
    const gemm_job *j = job;
    if (gemm_effort(j->n, j->m, j->k, j->a_row == 1, j->c_row == 1) < gemm_effort(j->m, j->n, j->k, j->b_col == 1, j->c_col == 1)) {
        /* C' = B' A' */
        r.j = (gemm_job){.m = j->n, .n = j->m, .k = j->k, .batch = j->batch, .a = j->b, .b = j->a, .d = j->d, .c = j->c, .a_row = j->b_col,
                         .a_col = j->b_row, .a_batch = j->b_batch, .b_row = j->a_col, .b_col = j->a_row, .b_batch = j->a_batch,
                         .c_row = j->c_col, .c_col = j->c_row, .c_batch = j->c_batch, .d_row = j->d_col, .d_col = j->d_row,
                         .alpha = j->alpha, .beta = j->beta};
    }
    r.blocks = px_ceil(r.j.m, GEMM_ROWS);
    r.panels = px_ceil(r.j.n, GEMM_WIDE);
    mest_parallel_worker(threads, (size_t)(r.blocks * r.panels * r.j.batch), gemm_tile, &r);
}

#endif
