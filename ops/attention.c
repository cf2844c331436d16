/* SPDX-License-Identifier: Apache-2.0 */
/* Attention: Y = softmax(scale Q K^T + mask) V for each head; Q[B,Hq,S,E] K[B,Hk,T,E] V[B,Hk,T,F], or with the heads side by side in the last
 * of three axes; Hq a multiple of Hk; mask bool (true: seen) or float (added), broadcast to [B,Hq,S,T]; is_causal: position s sees t <= s.
 * A row that sees nothing gives 0, as in PyTorch. ONNX since 23; no past or present, no softcap.
 * It runs as mest.Attention, whose first output is the probabilities [B,Hq,S,T].
 * mest.AttentionGrad (Q, K, V, mask?, probabilities, dY) -> dscores [B,Hq,S,T], dQ, dK, dV; dscores is the gradient of a float mask too. */
#include <inttypes.h>

#include "ops/dense.h"
#include "ops/elements.h"
#include "ops/nn.h"

#define ATTR(name_, kind_, field) { .name = name_, .kind = kind_, .offset = offsetof(mest_attention_params, field) }
static const mest_attr attention_attrs[] = {
    ATTR("is_causal", MEST_ATTR_INT, causal), ATTR("q_num_heads", MEST_ATTR_INT, q_heads), ATTR("kv_num_heads", MEST_ATTR_INT, kv_heads),
    ATTR("qk_matmul_output_mode", MEST_ATTR_INT, output_mode), ATTR("softmax_precision", MEST_ATTR_INT, precision),
    ATTR("scale", MEST_ATTR_FLOAT, scale), ATTR("softcap", MEST_ATTR_FLOAT, softcap), { .name = NULL } };

/* One of Q, K, V, Y: heads, steps, features, and strides. */
typedef struct operand { int64_t heads, steps, size, batch, head, step; } operand;

static bool operand_of(const mest_shape *s, int64_t heads, operand *o)
{
    if (s->rank == 4) {
        *o = (operand){ s->dim[1], s->dim[2], s->dim[3], s->dim[1] * s->dim[2] * s->dim[3], s->dim[2] * s->dim[3], s->dim[3] };
        return heads == 0 || heads == s->dim[1];
    }
    if (s->rank != 3 || heads < 1 || s->dim[2] % heads)
        return false;
    *o = (operand){ heads, s->dim[1], s->dim[2] / heads, s->dim[1] * s->dim[2], s->dim[2] / heads, s->dim[2] };
    return true;
}

typedef struct attention {
    operand q, k, v, y;
    int64_t batch, group; /* heads of Q that share one of K and V */
    double scale;
} attention;

static bool attention_of(const mest_attention_params *p, const mest_shape *q, const mest_shape *k, const mest_shape *v, attention *a)
{
    if (!operand_of(q, p->q_heads, &a->q) || !operand_of(k, p->kv_heads, &a->k) || !operand_of(v, p->kv_heads, &a->v))
        return false;
    a->batch = q->dim[0];
    a->group = a->k.heads ? a->q.heads / a->k.heads : 0;
    a->scale = p->scale != 0 ? p->scale : 1 / sqrt((double)a->q.size);
    mest_shape y = *q;
    y.dim[y.rank - 1] = y.rank == 4 ? a->v.size : a->q.heads * a->v.size;
    return operand_of(&y, a->q.heads, &a->y) && k->dim[0] == a->batch && v->dim[0] == a->batch && a->k.size == a->q.size && a->k.steps == a->v.steps &&
           a->k.heads == a->v.heads && a->group >= 1 && a->group * a->k.heads == a->q.heads && q->rank == k->rank && q->rank == v->rank;
}

static mest_shape scores_shape(const attention *t)
{
    return (mest_shape){ .rank = 4, .dim = { t->batch, t->q.heads, t->q.steps, t->k.steps } };
}

static mest_status infer(mest_infer *c, int first)
{
    const mest_attention_params *p = c->params;
    attention t;
    char tq[64], tk[64], tv[64];
    if (p->softcap != 0)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "softcap is not supported");
    for (int i = 4; i < c->n_in && i < 7; i++)
        if (c->in[i])
            return mest_infer_fail(c, MEST_E_UNSUPPORTED, "keys and values of the past (input %d) are not supported", i);
    for (int i = first + 1; i < c->n_out; i++) {
        if (c->node->out[i] != MEST_NONE)
            return mest_infer_fail(c, MEST_E_UNSUPPORTED, "output %d is not supported: only the first one is", i - first);
        MEST_TRY(mest_infer_set(c, i, MEST_F32, &c->in[0]->shape));
    }
    for (int i = 0; i < 3; i++)
        MEST_INFER_CHECK(c, c->in[i]->dtype == MEST_F32, "input %d is %s; only float32 is supported", i, mest_dtype_name(c->in[i]->dtype));
    MEST_INFER_CHECK(c, attention_of(p, &c->in[0]->shape, &c->in[1]->shape, &c->in[2]->shape, &t), "Q %s, K %s, V %s do not fit (q_num_heads %" PRId64
                     ", kv_num_heads %" PRId64 ")", mest_shape_text(&c->in[0]->shape, tq, sizeof tq), mest_shape_text(&c->in[1]->shape, tk, sizeof tk),
                     mest_shape_text(&c->in[2]->shape, tv, sizeof tv), p->q_heads, p->kv_heads);
    mest_shape scores = scores_shape(&t), y = c->in[0]->shape, all;
    if (c->n_in > 3 && c->in[3]) {
        MEST_INFER_CHECK(c, c->in[3]->dtype == MEST_BOOL || c->in[3]->dtype == MEST_F32, "the mask is %s, neither bool nor float32", mest_dtype_name(c->in[3]->dtype));
        MEST_INFER_CHECK(c, mest_shape_broadcast(&scores, &c->in[3]->shape, &all) && mest_shape_equal(&all, &scores), "the mask %s does not broadcast to %s",
                         mest_shape_text(&c->in[3]->shape, tq, sizeof tq), mest_shape_text(&scores, tk, sizeof tk));
    }
    y.dim[y.rank - 1] = y.rank == 4 ? t.v.size : t.q.heads * t.v.size;
    if (first)
        MEST_TRY(mest_infer_set(c, 0, MEST_F32, &scores));
    return mest_infer_set(c, first, MEST_F32, &y);
}
static mest_status file_infer(mest_infer *c) { return infer(c, 0); }
static mest_status run_infer(mest_infer *c) { return infer(c, 1); }

static mest_status grad_infer(mest_infer *c)
{
    for (int i = 0; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, MEST_F32, i == 0 ? &c->in[4]->shape : &c->in[i - 1]->shape));
    return MEST_OK;
}

/* ---- products: `outer` is a head of Q (or of K and V), numbered over the batch ---- */
typedef struct products {
    const attention *t;
    const operand *a, *b, *c; /* NULL: scores */
    int64_t heads;            /* of outer: Hq or Hk; Hk sums the heads of Q that share one */
} products;

static int64_t start(const products *p, const operand *o, int64_t batch, int64_t head)
{
    if (!o)
        return (batch * p->t->q.heads + head) * p->t->q.steps * p->t->k.steps;
    return batch * o->batch + (o->heads == p->t->q.heads ? head : head / p->t->group) * o->head;
}
static void offset(const void *context, int64_t outer, int64_t inner, int64_t *a, int64_t *b)
{
    const products *p = context;
    int64_t batch = outer / p->heads, head = outer % p->heads * (p->t->q.heads / p->heads) + inner;
    *a = start(p, p->a, batch, head);
    *b = start(p, p->b, batch, head);
}
static int64_t c_offset(const void *context, int64_t outer)
{
    const products *p = context;
    return start(p, p->c, outer / p->heads, outer % p->heads * (p->t->q.heads / p->heads));
}

static void multiply(const mest_threads *threads, const products *p, mest_dense_job job)
{
    job.outer = p->t->batch * p->heads;
    job.inner = p->t->q.heads / p->heads;
    job.offset = offset;
    job.c_offset = c_offset;
    job.context = p;
    job.c_row = p->c ? p->c->step : p->t->k.steps;
    mest_dense_run(threads, &job);
}

/* ---- softmax of the scores ---- */
typedef struct rows {
    const attention *t;
    bool causal;
    mest_real *scores;         /* in: scores; out: probabilities; backward: gradients */
    const mest_real *p;        /* backward: probabilities */
    const void *mask;
    bool mask_bool;
    int64_t mask_stride[4];
} rows;

enum { ROWS = 16 };

static void softmax_row(const rows *r, int64_t row)
{
    const attention *t = r->t;
    int64_t n = t->k.steps, s = row % t->q.steps, h = row / t->q.steps % t->q.heads, b = row / t->q.steps / t->q.heads;
    mest_real *x = r->scores + row * n, top = (mest_real)-INFINITY;
    int64_t at = b * r->mask_stride[0] + h * r->mask_stride[1] + s * r->mask_stride[2];
    for (int64_t k = 0; k < n; k++, at += r->mask_stride[3]) {
        if (r->mask)
            x[k] = !r->mask_bool ? x[k] + ((const mest_real *)r->mask)[at] : ((const uint8_t *)r->mask)[at] ? x[k] : (mest_real)-INFINITY;
        if (r->causal && k > s)
            x[k] = (mest_real)-INFINITY;
        top = x[k] > top || x[k] != x[k] ? x[k] : top;
    }
    double sum = 0;
    for (int64_t k = 0; k < n; k++) {
        x[k] = top == (mest_real)-INFINITY ? 0 : REAL(exp)(x[k] - top);
        sum += (double)x[k];
    }
    mest_real factor = sum == 0 ? 0 : (mest_real)(1 / sum);
    for (int64_t k = 0; k < n; k++)
        x[k] *= factor;
}

static void grad_row(const rows *r, int64_t row)
{
    int64_t n = r->t->k.steps;
    mest_real *d = r->scores + row * n;
    const mest_real *p = r->p + row * n;
    double sum = 0;
    for (int64_t k = 0; k < n; k++)
        sum += (double)d[k] * (double)p[k];
    for (int64_t k = 0; k < n; k++)
        d[k] = p[k] * (d[k] - (mest_real)sum);
}

static void rows_tile(void *context, size_t tile)
{
    const rows *r = context;
    int64_t all = r->t->batch * r->t->q.heads * r->t->q.steps;
    for (int64_t row = (int64_t)tile * ROWS; row < all && row < (int64_t)(tile + 1) * ROWS; row++) {
        if (r->p)
            grad_row(r, row);
        else
            softmax_row(r, row);
    }
}
static void run_rows(const mest_threads *threads, rows *r)
{
    mest_parallel(threads, (size_t)((r->t->batch * r->t->q.heads * r->t->q.steps + ROWS - 1) / ROWS), rows_tile, r);
}

static bool begin(const mest_args *a, attention *t)
{
    return attention_of(a->params, &a->in[0].type->shape, &a->in[1].type->shape, &a->in[2].type->shape, t);
}

static mest_status attention_forward(const mest_args *a)
{
    attention t;
    if (!begin(a, &t))
        return mest_run_fail(a, MEST_E_INTERNAL, "shapes changed");
    rows r = { .t = &t, .causal = ((const mest_attention_params *)a->params)->causal != 0, .scores = a->out[0].data };
    if (a->n_in > 3 && a->in[3].data) {
        const mest_shape *m = &a->in[3].type->shape;
        int64_t stride = 1;
        r.mask = a->in[3].data;
        r.mask_bool = a->in[3].type->dtype == MEST_BOOL;
        for (int i = m->rank - 1; i >= 0; i--) {
            r.mask_stride[4 - m->rank + i] = m->dim[i] == 1 ? 0 : stride;
            stride *= m->dim[i];
        }
    }
    multiply(a->threads, &(products){ &t, &t.q, &t.k, NULL, t.q.heads },
             (mest_dense_job){ .m = t.q.steps, .n = t.k.steps, .k = t.q.size, .a = a->in[0].data, .a_row = t.q.step, .a_col = 1, .b = a->in[1].data,
                               .b_row = 1, .b_col = t.k.step, .alpha = t.scale, .c = r.scores });
    run_rows(a->threads, &r);
    if (a->n_out > 1 && a->out[1].data)
        multiply(a->threads, &(products){ &t, NULL, &t.v, &t.y, t.q.heads },
                 (mest_dense_job){ .m = t.q.steps, .n = t.v.size, .k = t.k.steps, .a = r.scores, .a_row = t.k.steps, .a_col = 1, .b = a->in[2].data,
                                   .b_row = t.v.step, .b_col = 1, .alpha = 1, .c = a->out[1].data });
    return MEST_OK;
}

static mest_status grad_forward(const mest_args *a)
{
    attention t;
    if (!begin(a, &t))
        return mest_run_fail(a, MEST_E_INTERNAL, "shapes changed");
    const mest_real *q = a->in[0].data, *k = a->in[1].data, *v = a->in[2].data, *p = a->in[4].data, *dy = a->in[5].data;
    rows r = { .t = &t, .p = p, .scores = a->out[0].data };
    /* dP = dY V^T, then through the softmax */
    multiply(a->threads, &(products){ &t, &t.y, &t.v, NULL, t.q.heads },
             (mest_dense_job){ .m = t.q.steps, .n = t.k.steps, .k = t.v.size, .a = dy, .a_row = t.y.step, .a_col = 1, .b = v, .b_row = 1,
                               .b_col = t.v.step, .alpha = 1, .c = r.scores });
    run_rows(a->threads, &r);
    if (a->n_out > 1 && a->out[1].data) /* dQ = scale dS K */
        multiply(a->threads, &(products){ &t, NULL, &t.k, &t.q, t.q.heads },
                 (mest_dense_job){ .m = t.q.steps, .n = t.q.size, .k = t.k.steps, .a = r.scores, .a_row = t.k.steps, .a_col = 1, .b = k,
                                   .b_row = t.k.step, .b_col = 1, .alpha = t.scale, .c = a->out[1].data });
    if (a->n_out > 2 && a->out[2].data) /* dK = scale dS^T Q, over the heads that share it */
        multiply(a->threads, &(products){ &t, NULL, &t.q, &t.k, t.k.heads },
                 (mest_dense_job){ .m = t.k.steps, .n = t.q.size, .k = t.q.steps, .a = r.scores, .a_row = 1, .a_col = t.k.steps, .b = q,
                                   .b_row = t.q.step, .b_col = 1, .alpha = t.scale, .c = a->out[2].data });
    if (a->n_out > 3 && a->out[3].data) /* dV = P^T dY */
        multiply(a->threads, &(products){ &t, NULL, &t.y, &t.v, t.k.heads },
                 (mest_dense_job){ .m = t.k.steps, .n = t.v.size, .k = t.q.steps, .a = p, .a_row = 1, .a_col = t.k.steps, .b = dy,
                                   .b_row = t.y.step, .b_col = 1, .alpha = 1, .c = a->out[3].data });
    return MEST_OK;
}

static mest_status attention_vjp(mest_vjp *v)
{
    mest_id in[6] = { mest_in(v, 0), mest_in(v, 1), mest_in(v, 2), mest_in(v, 3), mest_out(v, 0), mest_dout(v, 1) }, out[4];
    bool want[4] = { true, mest_wants(v, 0), mest_wants(v, 1), mest_wants(v, 2) };
    if (in[5] == MEST_NONE)
        return MEST_OK;
    MEST_TRY(mest_emit(v, "mest.AttentionGrad", NULL, 6, in, 4, want, out));
    for (int i = 0; i < 3; i++)
        if (want[i + 1])
            MEST_TRY(mest_give(v, i, out[i + 1]));
    return mest_wants(v, 3) ? mest_give(v, 3, out[0]) : MEST_OK;
}

static int64_t macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    attention t;
    (void)out;
    return attention_of(node->params, &in[0]->shape, &in[1]->shape, &in[2]->shape, &t) ?
        t.batch * t.q.heads * t.q.steps * t.k.steps * (t.q.size + t.v.size) : 0;
}
static int64_t grad_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out) { return 2 * macs(node, in, out); }

const mest_op mest_ops_attention[] = {
    { .domain = "", .name = "Attention", .since = 23, .in_min = 3, .in_max = 7, .out_min = 1, .out_max = 4, .flags = MEST_OP_ANY_TYPE,
      .attrs = attention_attrs, .params_bytes = sizeof(mest_attention_params), .infer = file_infer, .macs = macs },
    { .domain = "mest", .name = "mest.Attention", .since = 1, .in_min = 3, .in_max = 7, .out_min = 1, .out_max = 5, .flags = MEST_OP_ANY_TYPE,
      .params_bytes = sizeof(mest_attention_params), .infer = run_infer, .forward = attention_forward, .vjp = attention_vjp, .macs = macs },
    { .domain = "mest", .name = "mest.AttentionGrad", .since = 1, .in_min = 6, .in_max = 6, .out_min = 1, .out_max = 4, .flags = MEST_OP_ANY_TYPE,
      .params_bytes = sizeof(mest_attention_params), .infer = grad_infer, .forward = grad_forward, .macs = grad_macs },
    { .name = NULL },
};
