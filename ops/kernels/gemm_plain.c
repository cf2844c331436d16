/* SPDX-License-Identifier: Apache-2.0 */
/* Gemm, MatMul and their gradients by gemm_plain.h. Operands are plain matrices, or PIXEL values of one lane without gaps, which lie
 * in memory the same way. MatMul: A[..., M, K] with B[K, N], or equal batch axes on both sides.
 *
 * Letters: Y[M, N] = alpha A'[M, K] B'[K, N] + beta C. */
#include "ops/kernels/gemm_plain.h"

/* Row-major without gaps, whatever the layout is called. */
static bool dense(const mest_type *t)
{
    if (px_plain(t))
        return true;
    return px_pixel(t) && t->layout.v == 1 && t->shape.rank == 2 && t->layout.slots == t->shape.dim[1] &&
           !(t->layout.top | t->layout.left | t->layout.bottom | t->layout.right);
}

static bool all_dense(const mest_kernel_query *q)
{
    for (int i = 0; i < q->n_in; i++)
        if (q->in[i] && (!dense(q->in[i]) || q->sparse[i]))
            return false;
    for (int i = 0; i < q->n_out; i++)
        if (q->out[i] && !dense(q->out[i]))
            return false;
    return true;
}

static mest_status gemm_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    (void)err;
    *state = NULL;
    *scratch_bytes = (size_t)px_workers(q->threads) * GEMM_SCRATCH * sizeof(mest_real);
    return MEST_OK;
}

/* Of one thread, whatever the session has: the choice of kernels, and so the bits of the result, must not depend on it. */
static double seconds(double macs) { return 1e-6 + 2 * macs / (VL * 4.5e9); /* about 70 GFLOP/s with 16 lanes */ }

/* ---- Gemm ---- */

typedef struct gemm_shape {
    int64_t m, n, k, a_row, a_col, b_row, b_col; /* strides of A' and B' */
} gemm_shape;

static gemm_shape shape_of(const mest_gemm_params *p, const mest_shape *a, const mest_shape *b)
{
    gemm_shape s = {.m = a->dim[p->trans_a ? 1 : 0], .k = a->dim[p->trans_a ? 0 : 1], .n = b->dim[p->trans_b ? 0 : 1]};
    s.a_row = p->trans_a ? 1 : s.k;
    s.a_col = p->trans_a ? s.m : 1;
    s.b_row = p->trans_b ? 1 : s.n;
    s.b_col = p->trans_b ? s.k : 1;
    return s;
}

/* Strides of C broadcast to [M, N]. */
static void strides_of_c(const mest_shape *c, int64_t *row, int64_t *col)
{
    const int64_t n = c->rank > 0 ? c->dim[c->rank - 1] : 1, m = c->rank > 1 ? c->dim[c->rank - 2] : 1;
    *col = n > 1 ? 1 : 0;
    *row = m > 1 ? n : 0;
}

static bool gemm_fits(const mest_kernel_query *q, const char **why)
{
    (void)why;
    return all_dense(q) && q->in[0]->shape.rank == 2 && q->in[1]->shape.rank == 2 && q->out[0];
}

static double gemm_cost(const mest_kernel_query *q)
{
    const gemm_shape s = shape_of(q->params, &q->in[0]->shape, &q->in[1]->shape);
    return seconds((double)s.m * (double)s.n * (double)s.k);
}

static mest_status gemm_forward(const mest_args *a)
{
    const mest_gemm_params *p = a->params;
    const gemm_shape s = shape_of(p, &a->in[0].type->shape, &a->in[1].type->shape);
    gemm_job j = {.m = s.m, .n = s.n, .k = s.k, .batch = 1, .a = a->in[0].data, .b = a->in[1].data, .c = a->out[0].data, .a_row = s.a_row,
                  .a_col = s.a_col, .b_row = s.b_row, .b_col = s.b_col, .c_row = s.n, .c_col = 1, .alpha = p->alpha, .beta = p->beta};
    if (a->n_in > 2 && a->in[2].data && p->beta != 0) {
        j.d = a->in[2].data;
        strides_of_c(&a->in[2].type->shape, &j.d_row, &j.d_col);
    }
    gemm_do(&j, a->scratch, a->threads);
    return MEST_OK;
}

/* Gradient: A B C? dY -> dA dB dC; dC for a C that is a row [N] or full. */
static bool gemm_grad_fits(const mest_kernel_query *q, const char **why)
{
    (void)why;
    if (!all_dense(q) || q->n_in != 4 || !q->in[3] || q->in[0]->shape.rank != 2 || q->in[1]->shape.rank != 2)
        return false;
    if (px_out(q, 2)) {
        int64_t count;
        const int64_t m = q->in[3]->shape.dim[0], n = q->in[3]->shape.dim[1];
        const mest_shape *c = &px_out(q, 2)->shape;
        if (!mest_shape_count(c, &count) || c->rank < 1 || c->dim[c->rank - 1] != n || (count != n && count != m * n))
            return false;
    }
    return true;
}

static double gemm_grad_cost(const mest_kernel_query *q)
{
    const gemm_shape s = shape_of(q->params, &q->in[0]->shape, &q->in[1]->shape);
    return seconds((double)s.m * (double)s.n * (double)s.k * ((q->out[0] ? 1 : 0) + (px_out(q, 1) ? 1 : 0)));
}

typedef struct bias_run {
    const mest_real *dy;
    mest_real *dc;
    int64_t m, n;
    double beta;
} bias_run;

static void bias_tile(void *context, size_t tile)
{
    const bias_run *r = context;
    const int64_t from = (int64_t)tile * 64, width = px_min(64, r->n - from);
    double sum[64] = {0};
    for (int64_t i = 0; i < r->m; i++)
        for (int64_t j = 0; j < width; j++)
            sum[j] += (double)r->dy[i * r->n + from + j];
    for (int64_t j = 0; j < width; j++)
        r->dc[from + j] = (mest_real)(r->beta * sum[j]);
}

static mest_status gemm_grad_run(const mest_args *a)
{
    const mest_gemm_params *p = a->params;
    const gemm_shape s = shape_of(p, &a->in[0].type->shape, &a->in[1].type->shape);
    const mest_real *dy = a->in[3].data;
    if (a->out[0].data) /* dA'[M,K] = alpha dY[M,N] B'^T[N,K] */
        gemm_do(&(gemm_job){.m = s.m, .n = s.k, .k = s.n, .batch = 1, .a = dy, .a_row = s.n, .a_col = 1, .b = a->in[1].data, .b_row = s.b_col,
                            .b_col = s.b_row, .c = a->out[0].data, .c_row = s.a_row, .c_col = s.a_col, .alpha = p->alpha},
                a->scratch, a->threads);
    if (px_out_data(a, 1)) /* dB'[K,N] = alpha A'^T[K,M] dY[M,N] */
        gemm_do(&(gemm_job){.m = s.k, .n = s.n, .k = s.m, .batch = 1, .a = a->in[0].data, .a_row = s.a_col, .a_col = s.a_row, .b = dy,
                            .b_row = s.n, .b_col = 1, .c = px_out_data(a, 1), .c_row = s.b_row, .c_col = s.b_col, .alpha = p->alpha},
                a->scratch, a->threads);
    if (px_out_data(a, 2)) {
        mest_real *dc = px_out_data(a, 2);
        if ((int64_t)a->out[2].count == s.n && s.m != 1) {
            mest_parallel(a->threads, (size_t)px_ceil(s.n, 64), bias_tile, &(bias_run){dy, dc, s.m, s.n, p->beta});
        } else {
            for (int64_t i = 0; i < s.m * s.n; i++)
                dc[i] = (mest_real)p->beta * dy[i];
        }
    }
    return MEST_OK;
}

/* ---- MatMul ---- */

typedef struct matmul_shape {
    int64_t m, n, k, batch, a_batch, b_batch;
} matmul_shape;

static bool matmul_of(const mest_shape *a, const mest_shape *b, matmul_shape *s)
{
    if (a->rank < 2 || b->rank < 2)
        return false;
    *s = (matmul_shape){.k = a->dim[a->rank - 1], .n = b->dim[b->rank - 1], .batch = 1};
    if (b->rank == 2) { /* the batch of A is more rows */
        s->m = mest_shape_span(a, 0, a->rank - 1);
        return true;
    }
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank - 2; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    s->m = a->dim[a->rank - 2];
    s->batch = mest_shape_span(a, 0, a->rank - 2);
    s->a_batch = s->m * s->k;
    s->b_batch = s->k * s->n;
    return true;
}

static bool matmul_fits(const mest_kernel_query *q, const char **why)
{
    matmul_shape s;
    (void)why;
    return all_dense(q) && matmul_of(&q->in[0]->shape, &q->in[1]->shape, &s);
}

static double matmul_cost(const mest_kernel_query *q)
{
    matmul_shape s;
    if (!matmul_of(&q->in[0]->shape, &q->in[1]->shape, &s))
        return 1;
    double products = 0;
    for (int i = 0; i < q->n_out; i++)
        products += q->out[i] ? 1 : 0;
    return seconds(products * (double)s.m * (double)s.n * (double)s.k * (double)s.batch);
}

static mest_status matmul_run(const mest_args *a)
{
    matmul_shape s;
    if (!matmul_of(&a->in[0].type->shape, &a->in[1].type->shape, &s))
        return mest_run_fail(a, MEST_E_INTERNAL, "shapes");
    gemm_do(&(gemm_job){.m = s.m, .n = s.n, .k = s.k, .batch = s.batch, .a = a->in[0].data, .a_row = s.k, .a_col = 1, .a_batch = s.a_batch,
                        .b = a->in[1].data, .b_row = s.n, .b_col = 1, .b_batch = s.b_batch, .c = a->out[0].data, .c_row = s.n, .c_col = 1,
                        .c_batch = s.m * s.n, .alpha = 1},
            a->scratch, a->threads);
    return MEST_OK;
}

/* A B dY -> dA dB */
static mest_status matmul_grad_run(const mest_args *a)
{
    matmul_shape s;
    if (!matmul_of(&a->in[0].type->shape, &a->in[1].type->shape, &s))
        return mest_run_fail(a, MEST_E_INTERNAL, "shapes");
    const mest_real *dy = a->in[2].data;
    if (a->out[0].data)
        gemm_do(&(gemm_job){.m = s.m, .n = s.k, .k = s.n, .batch = s.batch, .a = dy, .a_row = s.n, .a_col = 1, .a_batch = s.m * s.n,
                            .b = a->in[1].data, .b_row = 1, .b_col = s.n, .b_batch = s.b_batch, .c = a->out[0].data, .c_row = s.k,
                            .c_col = 1, .c_batch = s.a_batch, .alpha = 1},
                a->scratch, a->threads);
    if (px_out_data(a, 1))
        gemm_do(&(gemm_job){.m = s.k, .n = s.n, .k = s.m, .batch = s.batch, .a = a->in[0].data, .a_row = 1, .a_col = s.k,
                            .a_batch = s.a_batch, .b = dy, .b_row = s.n, .b_col = 1, .b_batch = s.m * s.n, .c = px_out_data(a, 1), .c_row = s.n,
                            .c_col = 1, .c_batch = s.b_batch, .alpha = 1},
                a->scratch, a->threads);
    return MEST_OK;
}

const mest_kernel PX_TABLE(gemm_plain)[] = {
    {.name = PX_NAME("gemm"), .op = "Gemm", .cpu = PX_CPU, .fits = gemm_fits, .cost = gemm_cost, .prepare = gemm_prepare, .run = gemm_forward},
    {.name = PX_NAME("gemm_grad"), .op = "mest.GemmGrad", .cpu = PX_CPU, .fits = gemm_grad_fits, .cost = gemm_grad_cost,
     .prepare = gemm_prepare, .run = gemm_grad_run},
    {.name = PX_NAME("matmul"), .op = "MatMul", .cpu = PX_CPU, .fits = matmul_fits, .cost = matmul_cost, .prepare = gemm_prepare,
     .run = matmul_run},
    {.name = PX_NAME("matmul_grad"), .op = "mest.MatMulGrad", .cpu = PX_CPU, .fits = matmul_fits, .cost = matmul_cost,
     .prepare = gemm_prepare, .run = matmul_grad_run},
    {0},
};
