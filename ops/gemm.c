/* SPDX-License-Identifier: Apache-2.0 */
/* Gemm: Y[M,N] = alpha * A' * B' + beta * C; A' is A or its transpose, [M,K], B' likewise [K,N]; C broadcasts to [M,N].
 * ONNX Gemm since 7 (11 makes C optional; 6 and older broadcast by an attribute).
 * mest.GemmGrad (A, B, C, dY) -> dA, dB, dC (of the shapes of A, B, C) with Gemm's params. */
#include "ops/dense.h"
#include "ops/nn.h"
#include "ops/outer.h"

#include <inttypes.h>
#include <stddef.h>

static const mest_attr gemm_attrs[] = {
    { .name = "alpha", .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_gemm_params, alpha), .number = 1 },
    { .name = "beta", .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_gemm_params, beta), .number = 1 },
    { .name = "transA", .kind = MEST_ATTR_INT, .offset = offsetof(mest_gemm_params, trans_a) },
    { .name = "transB", .kind = MEST_ATTR_INT, .offset = offsetof(mest_gemm_params, trans_b) },
    { .name = NULL },
};

typedef struct sizes {
    int64_t m, n, k;
    int64_t a_row, a_col, b_row, b_col; /* strides of A'(m, k) and B'(k, n) */
} sizes;

static sizes sizes_of(const mest_gemm_params *p, const mest_shape *a, const mest_shape *b)
{
    sizes s;
    s.m = a->dim[p->trans_a ? 1 : 0];
    s.k = a->dim[p->trans_a ? 0 : 1];
    s.n = b->dim[p->trans_b ? 0 : 1];
    s.a_row = p->trans_a ? 1 : s.k;
    s.a_col = p->trans_a ? s.m : 1;
    s.b_row = p->trans_b ? 1 : s.n;
    s.b_col = p->trans_b ? s.k : 1;
    return s;
}

static mest_status check(mest_infer *c)
{
    const mest_gemm_params *p = c->params;
    const mest_shape *a = &c->in[0]->shape, *b = &c->in[1]->shape;
    MEST_INFER_CHECK(c, a->rank == 2 && b->rank == 2, "A and B must have rank 2, not %d and %d", (int)a->rank, (int)b->rank);
    int64_t k = a->dim[p->trans_a ? 0 : 1], kb = b->dim[p->trans_b ? 1 : 0];
    MEST_INFER_CHECK(c, k == kb, "the inner sizes of A and B differ: %" PRId64 " and %" PRId64, k, kb);
    return MEST_OK;
}

static mest_status gemm_infer(mest_infer *c)
{
    MEST_TRY(check(c));
    sizes s = sizes_of(c->params, &c->in[0]->shape, &c->in[1]->shape);
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = (mest_shape){ .rank = 2, .dim = { s.m, s.n } };
    if (c->n_in > 2 && c->in[2]) {
        const mest_shape *d = &c->in[2]->shape;
        char text[64];
        MEST_INFER_CHECK(c, d->rank <= 2, "C must have rank 2 at most, not %d", (int)d->rank);
        for (int i = 0; i < d->rank; i++) {
            int64_t size = d->dim[d->rank - 1 - i], into = i ? s.m : s.n;
            MEST_INFER_CHECK(c, size == 1 || size == into, "C %s does not broadcast to [%" PRId64 ",%" PRId64 "]",
                             mest_shape_text(d, text, sizeof text), s.m, s.n);
        }
    }
    return MEST_OK;
}

static mest_status gemm_forward(const mest_args *a)
{
    const mest_gemm_params *p = a->params;
    sizes s = sizes_of(p, &a->in[0].type->shape, &a->in[1].type->shape);
    mest_dense_job job = {
        .m = s.m, .n = s.n, .k = s.k, .a = a->in[0].data, .b = a->in[1].data, .a_row = s.a_row, .a_col = s.a_col, .b_row = s.b_row,
        .b_col = s.b_col, .alpha = p->alpha, .beta = p->beta, .c = a->out[0].data, .outer = 1, .inner = 1,
    };
    if (a->n_in > 2 && a->in[2].data) {
        const mest_shape *d = &a->in[2].type->shape;
        int64_t rows = d->rank > 1 ? d->dim[0] : 1, cols = d->rank > 0 ? d->dim[d->rank - 1] : 1;
        job.d = a->in[2].data;
        job.d_row = rows > 1 ? cols : 0;
        job.d_col = cols > 1 ? 1 : 0;
    }
    mest_dense_run(a->threads, &job);
    return MEST_OK;
}

static mest_status gemm_vjp(mest_vjp *v)
{
    return mest_give_grads(v, "mest.GemmGrad", NULL, 4, (mest_id[]){ mest_in(v, 0), mest_in(v, 1), mest_in(v, 2), mest_dout(v, 0) }, 3);
}

static int64_t gemm_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    sizes s = sizes_of(node->params, &in[0]->shape, &in[1]->shape);
    (void)out;
    return s.m * s.n * s.k;
}

static mest_status grad_infer(mest_infer *c)
{
    MEST_TRY(check(c));
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = c->in[0]->shape;
    if (c->n_out > 1)
        c->out[1] = *c->in[1]; /* with the layout: a sparse weight's gradient lives at its stored entries */
    if (c->n_out > 2) {
        c->out[2].dtype = c->in[0]->dtype;
        if (c->in[2])
            c->out[2].shape = c->in[2]->shape;
    }
    return MEST_OK;
}

typedef struct bias_context {
    const mest_real *dy;
    int64_t m, n;
    bool one_row, one_col;
    double beta;
    mest_real *out;
} bias_context;

/* dC, summed over the axes along which C was broadcast, in double. A tile is a strip of columns, or all of it where columns are summed. */
static void bias_tile(void *context, size_t tile)
{
    const bias_context *b = context;
    double sum[64] = { 0 };
    if (b->one_col) {
        double all = 0;
        for (int64_t i = 0; i < b->m; i++) {
            double row = mest_dense_sum(b->dy + i * b->n, b->n);
            all += row;
            if (!b->one_row)
                b->out[i] = (mest_real)(b->beta * row);
        }
        if (b->one_row)
            b->out[0] = (mest_real)(b->beta * all);
        return;
    }
    int64_t j0 = (int64_t)tile * 64, n = b->n - j0 < 64 ? b->n - j0 : 64;
    for (int64_t i = 0; i < b->m; i++) {
        const mest_real *dy = b->dy + i * b->n + j0;
        if (b->one_row) {
            for (int64_t j = 0; j < n; j++)
                sum[j] += (double)dy[j];
        } else {
            for (int64_t j = 0; j < n; j++)
                b->out[i * b->n + j0 + j] = (mest_real)b->beta * dy[j];
        }
    }
    if (b->one_row)
        for (int64_t j = 0; j < n; j++)
            b->out[j0 + j] = (mest_real)(b->beta * sum[j]);
}

static mest_status grad_forward(const mest_args *a)
{
    const mest_gemm_params *p = a->params;
    const mest_real *x = a->in[0].data, *w = a->in[1].data, *dy = a->in[3].data;
    sizes s = sizes_of(p, &a->in[0].type->shape, &a->in[1].type->shape);
    if (a->out[0].data) {
        /* dA' = alpha dY B'^T; where A is stored transposed: dA = alpha B' dY^T */
        mest_dense_job job = { .alpha = p->alpha, .c = a->out[0].data, .outer = 1, .inner = 1, .k = s.n };
        if (p->trans_a) {
            job.m = s.k, job.n = s.m;
            job.a = w, job.a_row = s.b_row, job.a_col = s.b_col;
            job.b = dy, job.b_row = 1, job.b_col = s.n;
        } else {
            job.m = s.m, job.n = s.k;
            job.a = dy, job.a_row = s.n, job.a_col = 1;
            job.b = w, job.b_row = s.b_col, job.b_col = s.b_row;
        }
        mest_dense_run(a->threads, &job);
    }
    if (a->n_out > 1 && a->out[1].data) {
        /* dB' = alpha A'^T dY; where B is stored transposed: dB = alpha dY^T A' */
        mest_dense_job job = { .alpha = p->alpha, .c = a->out[1].data, .outer = 1, .inner = 1, .k = s.m };
        if (p->trans_b) {
            job.m = s.n, job.n = s.k;
            job.a = dy, job.a_row = 1, job.a_col = s.n;
            job.b = x, job.b_row = s.a_row, job.b_col = s.a_col;
        } else {
            job.m = s.k, job.n = s.n;
            job.a = x, job.a_row = s.a_col, job.a_col = s.a_row;
            job.b = dy, job.b_row = s.n, job.b_col = 1;
        }
        mest_dense_run(a->threads, &job);
    }
    if (a->n_out > 2 && a->out[2].data) {
        const mest_shape *d = &a->out[2].type->shape;
        bias_context b = { dy, s.m, s.n, (d->rank > 1 ? d->dim[0] : 1) == 1, (d->rank > 0 ? d->dim[d->rank - 1] : 1) == 1, p->beta, a->out[2].data };
        mest_parallel(a->threads, b.one_col ? 1 : (size_t)((s.n + 63) / 64), bias_tile, &b);
    }
    return MEST_OK;
}

/* Operand of A' [M, K] as (n, c); plain, or pixel layout where it is not transposed. */
static mest_operand left_operand(const mest_gemm_params *p, const mest_tensor *a)
{
    mest_operand x = mest_operand_of(a);
    if (p->trans_a) {
        x.block = 1;
        x.channel = a->type->shape.dim[1];
    }
    return x;
}

static mest_status grad_outer(const mest_args *a, mest_outer *o)
{
    const mest_gemm_params *p = a->params;
    sizes s = sizes_of(p, &a->in[0].type->shape, &a->in[1].type->shape);
    mest_operand x = left_operand(p, &a->in[0]), dy = mest_operand_of(&a->in[3]);
    mest_outer_matrix(o, s.m, p->trans_b ? &dy : &x, p->trans_b ? &x : &dy, p->alpha);
    return MEST_OK;
}

static int64_t grad_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    int products = (node->n_out > 0 && out[0] ? 1 : 0) + (node->n_out > 1 && out[1] ? 1 : 0);
    return products * gemm_macs(node, in, out);
}

const mest_op mest_ops_gemm[] = {
    { .domain = "", .name = "Gemm", .since = 7, .in_min = 2, .in_max = 3, .out_min = 1, .out_max = 1, .act_in = 1u << 0, .act_out = 1u << 0,
      .sparse_in = 1u << 1, .attrs = gemm_attrs, .params_bytes = sizeof(mest_gemm_params), .infer = gemm_infer, .forward = gemm_forward,
      .vjp = gemm_vjp, .macs = gemm_macs },
    { .domain = "mest", .name = "mest.GemmGrad", .since = 1, .in_min = 4, .in_max = 4, .out_min = 1, .out_max = 3,
      .act_in = 1u << 0 | 1u << 3, .act_out = 1u << 0, .sparse_in = 1u << 1, .params_bytes = sizeof(mest_gemm_params), .infer = grad_infer,
      .forward = grad_forward, .macs = grad_macs, .weight_outer = grad_outer },
    { .name = NULL },
};
