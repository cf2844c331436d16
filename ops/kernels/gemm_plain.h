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

#include "ops/kernels/gemm_micro.h"

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
