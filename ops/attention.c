/* SPDX-License-Identifier: Apache-2.0 */
/* Attention: Y = softmax(scale Q K^T + mask) V for each head; Q[B,Hq,S,E] K[B,Hk,T,E] V[B,Hk,T,F], or with the heads side by side in the last
 * of three axes; Hq a multiple of Hk; mask bool (true: seen) or float (added), broadcast to [B,Hq,S,T]; is_causal: position s sees t <= s.
 * A row that sees nothing gives 0, as in PyTorch. These are mest.Attention and mest.AttentionGrad, see ops/attention.h; ONNX's Attention becomes
 * them (ops/attention_onnx.c). The reference computes each score as often as it needs it. */
#include "ops/attention.h"

#include "ops/elements.h"

enum { Q, K, V, MASK, LSE, Y, DY, N_GRAD_IN };

static bool operand_of(const mest_shape *s, int64_t heads, mest_operand *o)
{
    if (s->rank == 4) {
        *o = (mest_operand){ s->dim[1], s->dim[2], s->dim[3], s->dim[1] * s->dim[2] * s->dim[3], s->dim[2] * s->dim[3], s->dim[3] };
        return heads == 0 || heads == s->dim[1];
    }
    if (s->rank != 3 || heads < 1 || s->dim[2] % heads)
        return false;
    *o = (mest_operand){ heads, s->dim[1], s->dim[2] / heads, s->dim[1] * s->dim[2], s->dim[2] / heads, s->dim[2] };
    return true;
}

bool mest_attention_sizes(const mest_attention_params *p, const mest_shape *q, const mest_shape *k, const mest_shape *v, mest_attention *a)
{
    *a = (mest_attention){ .causal = p->causal != 0 };
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

void mest_attention_run(const mest_args *args, mest_attention *a)
{
    const mest_attention_params *p = args->params;
    (void)mest_attention_sizes(p, &args->in[Q].type->shape, &args->in[K].type->shape, &args->in[V].type->shape, a);
    a->fill = p->fills ? (mest_real)p->fill : -(mest_real)INFINITY;
    a->mask_invert = p->mask_invert != 0;
    a->drops = p->dropout.ratio > 0;
    if (a->drops)
        a->keep = mest_dropout_keep_of(&p->dropout, args->run, &(mest_shape){.rank = 4, .dim = {a->batch, a->q.heads, a->q.steps, a->k.steps}});
    if (args->n_in <= MASK || !args->in[MASK].data)
        return;
    const mest_shape *m = &args->in[MASK].type->shape;
    int64_t stride = 1;
    a->mask = args->in[MASK].data;
    a->mask_bool = args->in[MASK].type->dtype == MEST_BOOL;
    for (int i = m->rank - 1; i >= 0; i--) {
        a->mask_stride[4 - m->rank + i] = m->dim[i] == 1 ? 0 : stride;
        stride *= m->dim[i];
    }
}

/* ---- shapes ---- */
static mest_shape scores_shape(const mest_attention *t)
{
    return (mest_shape){ .rank = 4, .dim = { t->batch, t->q.heads, t->q.steps, t->k.steps } };
}

static mest_status attention_infer(mest_infer *c)
{
    mest_attention t;
    char tq[64], tk[64], tv[64];
    for (int i = 0; i < 3; i++)
        MEST_INFER_CHECK(c, c->in[i]->dtype == MEST_F32, "input %d is %s; only float32 is supported", i, mest_dtype_name(c->in[i]->dtype));
    MEST_INFER_CHECK(c, mest_attention_sizes(c->params, &c->in[Q]->shape, &c->in[K]->shape, &c->in[V]->shape, &t), "Q %s, K %s, V %s do not fit",
                     mest_shape_text(&c->in[Q]->shape, tq, sizeof tq), mest_shape_text(&c->in[K]->shape, tk, sizeof tk), mest_shape_text(&c->in[V]->shape, tv, sizeof tv));
    mest_shape scores = scores_shape(&t), y = c->in[Q]->shape, all;
    if (c->n_in > MASK && c->in[MASK]) {
        MEST_INFER_CHECK(c, c->in[MASK]->dtype == MEST_BOOL || c->in[MASK]->dtype == MEST_F32, "the mask is %s, neither bool nor float32", mest_dtype_name(c->in[MASK]->dtype));
        MEST_INFER_CHECK(c, mest_shape_broadcast(&scores, &c->in[MASK]->shape, &all) && mest_shape_equal(&all, &scores), "the mask %s does not broadcast to %s",
                         mest_shape_text(&c->in[MASK]->shape, tq, sizeof tq), mest_shape_text(&scores, tk, sizeof tk));
    }
    y.dim[y.rank - 1] = y.rank == 4 ? t.v.size : t.q.heads * t.v.size;
    scores.rank = 3; /* lse: without T */
    MEST_TRY(mest_infer_set(c, 0, MEST_F32, &scores));
    return mest_infer_set(c, 1, MEST_F32, &y);
}

static mest_status grad_infer(mest_infer *c)
{
    mest_attention t;
    (void)mest_attention_sizes(c->params, &c->in[Q]->shape, &c->in[K]->shape, &c->in[V]->shape, &t);
    mest_shape scores = scores_shape(&t);
    for (int i = 0; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, MEST_F32, i == 0 ? &scores : &c->in[i - 1]->shape));
    return MEST_OK;
}

/* ---- reference ---- */
typedef struct job {
    mest_attention t;
    const mest_real *q, *k, *v, *dy, *y_in, *lse_in;
    mest_real *y, *lse, *dscores, *dq, *dk, *dv;
} job;

static mest_real dot(const mest_real *a, const mest_real *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return (mest_real)sum;
}

/* Score (s, t) behind the mask. */
static mest_real score(const job *j, int64_t b, int64_t h, int64_t s, int64_t t, bool *hidden)
{
    const mest_attention *a = &j->t;
    mest_real x = (mest_real)a->scale * dot(j->q + mest_operand_at(a, &a->q, b, h) + s * a->q.step, j->k + mest_operand_at(a, &a->k, b, h) + t * a->k.step, a->q.size);
    return mest_attention_masked(a, x, b, h, s, t, hidden);
}

/* Factor of dropout on probability (s, t). */
static mest_real kept(const mest_attention *a, int64_t b, int64_t h, int64_t s, int64_t t)
{
    const uint64_t element = (uint64_t)(((b * a->q.heads + h) * a->q.steps + s) * a->k.steps + t);
    return !a->drops ? 1 : mest_dropout_kept(&a->keep, element) ? (mest_real)a->keep.scale : 0;
}

static void forward_row(void *context, size_t tile)
{
    const job *j = context;
    const mest_attention *a = &j->t;
    const int64_t row = (int64_t)tile, s = row % a->q.steps, h = row / a->q.steps % a->q.heads, b = row / a->q.steps / a->q.heads;
    bool hidden;
    mest_real top = -(mest_real)INFINITY;
    double sum = 0;
    for (int64_t t = 0; t < a->k.steps; t++) {
        mest_real x = score(j, b, h, s, t, &hidden);
        top = x > top || x != x ? x : top;
    }
    const bool blind = top == -(mest_real)INFINITY;
    for (int64_t t = 0; t < a->k.steps && !blind; t++)
        sum += (double)REAL(exp)(score(j, b, h, s, t, &hidden) - top);
    if (j->lse)
        j->lse[row] = blind ? (mest_real)INFINITY : (mest_real)((double)top + log(sum));
    if (!j->y)
        return;
    mest_real *y = j->y + mest_operand_at(a, &a->y, b, h) + s * a->y.step;
    for (int64_t f = 0; f < a->v.size; f++)
        y[f] = 0;
    for (int64_t t = 0; t < a->k.steps && !blind; t++) {
        const mest_real p = (mest_real)((double)REAL(exp)(score(j, b, h, s, t, &hidden) - top) / sum) * kept(a, b, h, s, t);
        const mest_real *v = j->v + mest_operand_at(a, &a->v, b, h) + t * a->v.step;
        for (int64_t f = 0; f < a->v.size; f++)
            y[f] += p * v[f];
    }
}

static mest_status attention_forward(const mest_args *a)
{
    job j = { .q = a->in[Q].data, .k = a->in[K].data, .v = a->in[V].data, .lse = a->out[0].data, .y = a->n_out > 1 ? a->out[1].data : NULL };
    mest_attention_run(a, &j.t);
    mest_parallel(a->threads, (size_t)(j.t.batch * j.t.q.heads * j.t.q.steps), forward_row, &j);
    return MEST_OK;
}

/* Row s of head h: dS = P (dP - sum P dP), with dP = dY V^T through the dropout and sum P dP = dY Y. */
static void backward_row(const job *j, int64_t b, int64_t h, int64_t s)
{
    const mest_attention *a = &j->t;
    const int64_t row = (b * a->q.heads + h) * a->q.steps + s, at_q = mest_operand_at(a, &a->q, b, h) + s * a->q.step;
    const int64_t at_y = mest_operand_at(a, &a->y, b, h) + s * a->y.step;
    const mest_real *dy = j->dy + at_y, lse = j->lse_in[row], all = dot(dy, j->y_in + at_y, a->v.size), scale = (mest_real)a->scale;
    for (int64_t e = 0; j->dq && e < a->q.size; e++)
        j->dq[at_q + e] = 0;
    for (int64_t t = 0; t < a->k.steps; t++) {
        bool hidden;
        const int64_t at_k = mest_operand_at(a, &a->k, b, h) + t * a->k.step, at_v = mest_operand_at(a, &a->v, b, h) + t * a->v.step;
        const mest_real p = REAL(exp)(score(j, b, h, s, t, &hidden) - lse), keep = kept(a, b, h, s, t);
        const mest_real ds = p * (dot(dy, j->v + at_v, a->v.size) * keep - all);
        if (j->dscores)
            j->dscores[row * a->k.steps + t] = hidden ? 0 : ds;
        for (int64_t f = 0; j->dv && f < a->v.size; f++)
            j->dv[at_v + f] += p * keep * dy[f];
        if (hidden)
            continue;
        for (int64_t e = 0; j->dq && e < a->q.size; e++)
            j->dq[at_q + e] += scale * ds * j->k[at_k + e];
        for (int64_t e = 0; j->dk && e < a->q.size; e++)
            j->dk[at_k + e] += scale * ds * j->q[at_q + e];
    }
}

/* A head of K and V, with the heads of Q that share it. */
static void backward_head(void *context, size_t tile)
{
    const job *j = context;
    const mest_attention *a = &j->t;
    const int64_t b = (int64_t)tile / a->k.heads, first = (int64_t)tile % a->k.heads * a->group;
    for (int64_t t = 0; t < a->k.steps; t++) {
        if (j->dk)
            memset(j->dk + mest_operand_at(a, &a->k, b, first) + t * a->k.step, 0, (size_t)a->k.size * sizeof *j->dk);
        if (j->dv)
            memset(j->dv + mest_operand_at(a, &a->v, b, first) + t * a->v.step, 0, (size_t)a->v.size * sizeof *j->dv);
    }
    for (int64_t h = first; h < first + a->group; h++)
        for (int64_t s = 0; s < a->q.steps; s++)
            backward_row(j, b, h, s);
}

static mest_status grad_forward(const mest_args *a)
{
    job j = { .q = a->in[Q].data, .k = a->in[K].data, .v = a->in[V].data, .lse_in = a->in[LSE].data, .y_in = a->in[Y].data, .dy = a->in[DY].data };
    mest_real **const out[] = { &j.dscores, &j.dq, &j.dk, &j.dv };
    for (int i = 0; i < a->n_out; i++)
        *out[i] = a->out[i].data;
    mest_attention_run(a, &j.t);
    mest_parallel(a->threads, (size_t)(j.t.batch * j.t.k.heads), backward_head, &j);
    return MEST_OK;
}

static mest_status attention_vjp(mest_vjp *v)
{
    mest_id in[N_GRAD_IN] = { mest_in(v, 0), mest_in(v, 1), mest_in(v, 2), mest_in(v, 3), mest_out(v, 0), mest_out(v, 1), mest_dout(v, 1) }, out[4];
    bool want[4] = { mest_wants(v, 3), mest_wants(v, 0), mest_wants(v, 1), mest_wants(v, 2) };
    if (in[DY] == MEST_NONE)
        return MEST_OK;
    MEST_TRY(mest_emit(v, "mest.AttentionGrad", NULL, N_GRAD_IN, in, 4, want, out));
    for (int i = 0; i < 3; i++)
        if (want[i + 1])
            MEST_TRY(mest_give(v, i, out[i + 1]));
    return want[0] ? mest_give(v, 3, out[0]) : MEST_OK;
}

static int64_t macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    mest_attention t;
    (void)out;
    return mest_attention_sizes(node->params, &in[0]->shape, &in[1]->shape, &in[2]->shape, &t) ?
        t.batch * t.q.heads * t.q.steps * t.k.steps * (t.q.size + t.v.size) : 0;
}
/* scores again, dP, dQ, dK, dV */
static int64_t grad_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out) { return 5 * macs(node, in, out) / 2; }

const mest_op mest_ops_attention[] = {
    { .domain = "mest", .name = "mest.Attention", .since = 1, .in_min = 3, .in_max = 4, .out_min = 2, .out_max = 2, .flags = MEST_OP_ANY_TYPE,
      .params_bytes = sizeof(mest_attention_params), .infer = attention_infer, .forward = attention_forward, .vjp = attention_vjp, .macs = macs },
    { .domain = "mest", .name = "mest.AttentionGrad", .since = 1, .in_min = N_GRAD_IN, .in_max = N_GRAD_IN, .out_min = 1, .out_max = 4, .flags = MEST_OP_ANY_TYPE,
      .params_bytes = sizeof(mest_attention_params), .infer = grad_infer, .forward = grad_forward, .macs = grad_macs },
    { .name = NULL },
};
