/* SPDX-License-Identifier: Apache-2.0 */
/* Dense products of the reference implementations: one register-blocked inner kernel that Gemm, MatMul and the convolutions share.
 *
 *   panel   [depth][MEST_PANEL] numbers, packed and aligned: a strip of the right operand
 *   block   [rows][MEST_PANEL] numbers: a strip of the result while it is summed
 *   job     a (batched, strided) matrix product as a whole
 *
 * Every element is summed in ascending depth, MEST_PANEL_DEPTH terms at a time, whatever the number of threads and the CPU: the wide
 * variant of the inner kernel does the same additions in the same order as the narrow one.
 */
#ifndef MEST_OPS_DENSE_H
#define MEST_OPS_DENSE_H

#include "runtime/tensor.h"
#include "runtime/threads.h"

enum {
    MEST_PANEL = 64 / sizeof(mest_real), /* columns of a panel: one cache line */
    MEST_PANEL_DEPTH = 256,              /* 16 KiB: a panel stays in the first-level cache */
    MEST_BLOCK_ROWS = 128                /* rows that share one packed panel */
};

/* block[r][j] (+)= sum over k < depth of a[r * a_row + k * a_col] * panel[k][j]. add: adds to the block instead of overwriting it.
 * panel and block are aligned to 64 bytes. */
void mest_dense_block(const mest_real *a, int64_t a_row, int64_t a_col, int64_t rows, const mest_real *panel, int64_t depth,
                      mest_real *block, bool add);

/* c[i][j] = alpha * sum over k of a(i, k) * b(k, j) + beta * d(i, j), a(i, k) = a[i * a_row + k * a_col] and so on; c[m][n] is contiguous
 * unless c_row is set, and matrix after matrix unless c_offset says where each starts.
 * d may be NULL (strides 0 broadcast it). Batches: c holds `outer` matrices; each is the sum over `inner` products, whose operands start
 * where `offset` says (NULL: outer = inner = 1). */
typedef struct mest_dense_job {
    int64_t m, n, k;
    const mest_real *a, *b, *d;
    int64_t a_row, a_col, b_row, b_col, d_row, d_col;
    double alpha, beta;
    mest_real *c;
    int64_t outer, inner;
    void (*offset)(const void *context, int64_t outer, int64_t inner, int64_t *a, int64_t *b);
    const void *context;
    int64_t c_row;
    int64_t (*c_offset)(const void *context, int64_t outer);
} mest_dense_job;
void mest_dense_run(const mest_threads *threads, const mest_dense_job *job);

/* Sums in double with eight running sums: fast enough without -ffast-math, and always in the same order. */
static inline double mest_dense_fold(const double s[8])
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
static inline double mest_dense_sum(const mest_real *x, int64_t n)
{
    double s[8] = { 0 };
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++)
            s[l] += (double)x[i + l];
    for (; i < n; i++)
        s[i & 7] += (double)x[i];
    return mest_dense_fold(s);
}
/* Sum of (x - mean)^2. */
static inline double mest_dense_spread(const mest_real *x, int64_t n, double mean)
{
    double s[8] = { 0 };
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++) {
            double d = (double)x[i + l] - mean;
            s[l] += d * d;
        }
    for (; i < n; i++) {
        double d = (double)x[i] - mean;
        s[i & 7] += d * d;
    }
    return mest_dense_fold(s);
}
/* Sum of (x - mean) * y. */
static inline double mest_dense_cross(const mest_real *x, const mest_real *y, int64_t n, double mean)
{
    double s[8] = { 0 };
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++)
            s[l] += ((double)x[i + l] - mean) * (double)y[i + l];
    for (; i < n; i++)
        s[i & 7] += ((double)x[i] - mean) * (double)y[i];
    return mest_dense_fold(s);
}

#endif
