/* SPDX-License-Identifier: Apache-2.0 */
/* MatMul: Y = A * B by numpy's rules: rank 1 is a row (A) or a column (B), leading axes are batches and broadcast.
 * ONNX MatMul since 1 (9, 13 add types).
 * mest.MatMulGrad (A, B, dY) -> dA, dB with the types of A and B: sums over broadcast batches happen inside the product. */
#include "ops/dense.h"
#include "ops/nn.h"
#include "ops/outer.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

/* M, N, K of one product, and where the operands of each batch lie. */
typedef struct shapes {
    int64_t m, n, k;
    int rank;                           /* batch axes of the result */
    int64_t dim[MEST_MAX_RANK];         /* their sizes */
    int64_t a_dim[MEST_MAX_RANK], b_dim[MEST_MAX_RANK]; /* those of A and B, 1 where broadcast or missing */
    int64_t a_batches, b_batches, batches;
} shapes;

static bool shapes_of(const mest_shape *a, const mest_shape *b, shapes *s)
{
    memset(s, 0, sizeof *s);
    if (a->rank < 1 || b->rank < 1)
        return false;
    s->m = a->rank > 1 ? a->dim[a->rank - 2] : 1;
    s->k = a->dim[a->rank - 1];
    s->n = b->rank > 1 ? b->dim[b->rank - 1] : 1;
    if (s->k != (b->rank > 1 ? b->dim[b->rank - 2] : b->dim[0]))
        return false;
    int ra = a->rank > 2 ? a->rank - 2 : 0, rb = b->rank > 2 ? b->rank - 2 : 0;
    s->rank = ra > rb ? ra : rb;
    s->a_batches = s->b_batches = s->batches = 1;
    for (int i = 0; i < s->rank; i++) {
        int ia = i - (s->rank - ra), ib = i - (s->rank - rb);
        int64_t da = ia >= 0 ? a->dim[ia] : 1, db = ib >= 0 ? b->dim[ib] : 1;
        if (da != db && da != 1 && db != 1)
            return false;
        s->a_dim[i] = da;
        s->b_dim[i] = db;
        s->dim[i] = da == 1 ? db : da;
        s->a_batches *= da;
        s->b_batches *= db;
        s->batches *= s->dim[i];
    }
    return true;
}

static mest_status matmul_infer(mest_infer *c)
{
    shapes s;
    char ta[64], tb[64];
    const mest_shape *a = &c->in[0]->shape, *b = &c->in[1]->shape;
    MEST_INFER_CHECK(c, shapes_of(a, b, &s), "shapes %s and %s cannot be multiplied", mest_shape_text(a, ta, sizeof ta),
                     mest_shape_text(b, tb, sizeof tb));
    mest_shape *y = &c->out[0].shape;
    c->out[0].dtype = c->in[0]->dtype;
    y->rank = 0;
    for (int i = 0; i < s.rank; i++)
        y->dim[y->rank++] = s.dim[i];
    if (a->rank > 1)
        y->dim[y->rank++] = s.m;
    if (b->rank > 1)
        y->dim[y->rank++] = s.n;
    return MEST_OK;
}

/* Batch number of an operand with batch axes `mine` for batch `index` of the result. */
static int64_t operand_batch(const shapes *s, const int64_t *mine, int64_t index)
{
    int64_t at = 0, step = 1;
    for (int i = s->rank - 1; i >= 0; i--) {
        int64_t x = index % s->dim[i];
        index /= s->dim[i];
        if (mine[i] > 1)
            at += x * step;
        step *= mine[i];
    }
    return at;
}

static void forward_offset(const void *context, int64_t outer, int64_t inner, int64_t *a, int64_t *b)
{
    const shapes *s = context;
    (void)inner;
    *a = operand_batch(s, s->a_dim, outer) * s->m * s->k;
    *b = operand_batch(s, s->b_dim, outer) * s->k * s->n;
}

/* One B for all batches: the rows of A are simply more rows. */
static bool flat(const shapes *s) { return s->b_batches == 1; }

static mest_status matmul_forward(const mest_args *a)
{
    shapes s;
    if (!shapes_of(&a->in[0].type->shape, &a->in[1].type->shape, &s))
        return mest_run_fail(a, MEST_E_INTERNAL, "shapes changed");
    mest_dense_job job = {
        .m = s.m, .n = s.n, .k = s.k, .a = a->in[0].data, .b = a->in[1].data, .a_row = s.k, .a_col = 1, .b_row = s.n, .b_col = 1,
        .alpha = 1, .c = a->out[0].data, .outer = s.batches, .inner = 1, .offset = forward_offset, .context = &s,
    };
    if (flat(&s)) {
        job.m = s.batches * s.m;
        job.outer = 1;
        job.offset = NULL;
    }
    mest_dense_run(a->threads, &job);
    return MEST_OK;
}

static mest_status matmul_vjp(mest_vjp *v)
{
    return mest_give_grads(v, "mest.MatMulGrad", NULL, 3, (mest_id[]){ mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0) }, 2);
}

static int64_t matmul_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    shapes s;
    (void)node;
    (void)out;
    return shapes_of(&in[0]->shape, &in[1]->shape, &s) ? s.batches * s.m * s.n * s.k : 0;
}

static mest_status grad_infer(mest_infer *c)
{
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = c->in[0]->shape;
    if (c->n_out > 1)
        c->out[1] = *c->in[1]; /* with the layout: a sparse weight's gradient lives at its stored entries */
    return MEST_OK;
}

/* Gradient of one operand: batch `outer` of it collects `inner` batches of the result, those that had used it. */
typedef struct collect {
    const shapes *s;
    const int64_t *mine, *other; /* batch axes of the operand and of the other operand */
    int64_t other_size;          /* elements of one matrix of the other operand */
    bool result_first;           /* left operand of the product is dY */
} collect;

static void collect_offset(const void *context, int64_t outer, int64_t inner, int64_t *a, int64_t *b)
{
    const collect *c = context;
    const shapes *s = c->s;
    int64_t index = 0, step = 1;
    for (int i = s->rank - 1; i >= 0; i--) {
        int64_t x;
        if (c->mine[i] > 1 || s->dim[i] == 1) {
            x = outer % c->mine[i];
            outer /= c->mine[i];
        } else {
            x = inner % s->dim[i];
            inner /= s->dim[i];
        }
        index += x * step;
        step *= s->dim[i];
    }
    int64_t dy = index * s->m * s->n, at = operand_batch(s, c->other, index) * c->other_size;
    *a = c->result_first ? dy : at;
    *b = c->result_first ? at : dy;
}

static mest_status grad_forward(const mest_args *a)
{
    shapes s;
    const mest_real *x = a->in[0].data, *w = a->in[1].data, *dy = a->in[2].data;
    if (!shapes_of(&a->in[0].type->shape, &a->in[1].type->shape, &s))
        return mest_run_fail(a, MEST_E_INTERNAL, "shapes changed");
    if (a->out[0].data) { /* dA[M,K] = dY[M,N] B[K,N]^T */
        collect c = { &s, s.a_dim, s.b_dim, s.k * s.n, true };
        mest_dense_job job = {
            .m = s.m, .n = s.k, .k = s.n, .a = dy, .a_row = s.n, .a_col = 1, .b = w, .b_row = 1, .b_col = s.n, .alpha = 1,
            .c = a->out[0].data, .outer = s.a_batches, .inner = s.a_batches ? s.batches / s.a_batches : 0, .offset = collect_offset, .context = &c,
        };
        if (flat(&s)) {
            job.m = s.batches * s.m;
            job.outer = job.inner = 1;
            job.offset = NULL;
        }
        mest_dense_run(a->threads, &job);
    }
    if (a->n_out > 1 && a->out[1].data) { /* dB[K,N] = A[M,K]^T dY[M,N] */
        collect c = { &s, s.b_dim, s.a_dim, s.m * s.k, false };
        mest_dense_job job = {
            .m = s.k, .n = s.n, .k = s.m, .a = x, .a_row = 1, .a_col = s.k, .b = dy, .b_row = s.n, .b_col = 1, .alpha = 1,
            .c = a->out[1].data, .outer = s.b_batches, .inner = s.b_batches ? s.batches / s.b_batches : 0, .offset = collect_offset, .context = &c,
        };
        if (flat(&s)) {
            job.k = s.batches * s.m;
            job.outer = job.inner = 1;
            job.offset = NULL;
        }
        mest_dense_run(a->threads, &job);
    }
    return MEST_OK;
}

static mest_status grad_outer(const mest_args *a, mest_outer *o)
{
    shapes s;
    if (!shapes_of(&a->in[0].type->shape, &a->in[1].type->shape, &s))
        return mest_run_fail(a, MEST_E_INTERNAL, "shapes changed");
    if (!flat(&s) || a->in[0].type->layout.kind != MEST_PLAIN || a->in[2].type->layout.kind != MEST_PLAIN)
        return mest_run_fail(a, MEST_E_UNSUPPORTED, "the dense gradient of a batch of matrices cannot be read in pieces");
    mest_operand x = { .data = a->in[0].data, .v = 1, .lane = 1, .block = s.k, .channel = 1 };
    mest_operand dy = { .data = a->in[2].data, .v = 1, .lane = 1, .block = s.n, .channel = 1 };
    mest_outer_matrix(o, s.batches * s.m, &x, &dy, 1);
    return MEST_OK;
}

static int64_t grad_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    int products = (node->n_out > 0 && out[0] ? 1 : 0) + (node->n_out > 1 && out[1] ? 1 : 0);
    return products * matmul_macs(node, in, out);
}

const mest_op mest_ops_matmul[] = {
    { .domain = "", .name = "MatMul", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .sparse_in = 1u << 1,
      .infer = matmul_infer, .forward = matmul_forward, .vjp = matmul_vjp, .macs = matmul_macs },
    { .domain = "mest", .name = "mest.MatMulGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 2, .sparse_in = 1u << 1,
      .infer = grad_infer, .forward = grad_forward, .macs = grad_macs, .weight_outer = grad_outer },
    { .name = NULL },
};
