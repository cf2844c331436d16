/* SPDX-License-Identifier: Apache-2.0 */
/* mest.Recurrent and mest.RecurrentGrad, see ops/recurrent.h. Made by the pass recurrent. */
#include "ops/recurrent.h"

#include <inttypes.h>
#include <string.h>

#include "ops/elements.h"

static int gates_of(mest_rnn_kind kind) { return kind == MEST_LSTM ? 4 : kind == MEST_GRU ? 3 : 1; }

static mest_rnn layer_of(const mest_recurrent_params *p, int64_t t, int64_t n, int64_t h)
{
    mest_rnn g = {.kind = p->kind, .gates = gates_of(p->kind), .directions = 1, .t = t, .n = n, .h = h, .reverse = p->reverse,
                  .linear_before_reset = p->linear_before_reset, .relu = p->relu};
    for (int k = 0; k < 4; k++)
        g.order[k] = p->order[k];
    mest_rnn_place(&g);
    return g;
}

static mest_status check(const mest_infer *c, int input, const char *what, mest_dtype dtype, int rank, const int64_t *dim)
{
    if (input >= c->n_in || !c->in[input])
        return MEST_OK;
    mest_shape want = {.rank = rank};
    char have[64], text[64];
    memcpy(want.dim, dim, (size_t)rank * sizeof *dim);
    MEST_INFER_CHECK(c, mest_shape_equal(&want, &c->in[input]->shape) && c->in[input]->dtype == dtype, "%s is %s %s, must be %s %s", what,
                     mest_dtype_name(c->in[input]->dtype), mest_shape_text(&c->in[input]->shape, have, sizeof have), mest_dtype_name(dtype),
                     mest_shape_text(&want, text, sizeof text));
    return MEST_OK;
}

static mest_status infer(mest_infer *c)
{
    const mest_recurrent_params *p = c->params;
    const mest_shape *x = &c->in[MEST_RECUR_P]->shape, *r = &c->in[MEST_RECUR_R]->shape;
    MEST_INFER_CHECK(c, x->rank == 3 && r->rank == 2, "P has rank %d and R rank %d, they must be 3 and 2", x->rank, r->rank);
    const int64_t t = x->dim[0], n = x->dim[1], h = r->dim[1], gh = gates_of(p->kind) * h;
    MEST_INFER_CHECK(c, h >= 1 && h < 1 << 20 && p->first >= 0 && p->first + gh <= r->dim[0], "R has %" PRId64 " rows of %" PRId64 ", %" PRId64 " are needed from row %" PRId64,
                     r->dim[0], h, gh, p->first);
    MEST_TRY(check(c, MEST_RECUR_P, "P", MEST_F32, 3, (int64_t[]){t, n, gh}));
    MEST_TRY(check(c, MEST_RECUR_B, "B", MEST_F32, 2, (int64_t[]){1, 2 * gh}));
    MEST_TRY(check(c, MEST_RECUR_LENS, "sequence_lens", MEST_I32, 1, &n));
    MEST_TRY(check(c, MEST_RECUR_H0, "initial_h", MEST_F32, 3, (int64_t[]){1, n, h}));
    MEST_TRY(check(c, MEST_RECUR_C0, "initial_c", MEST_F32, 3, (int64_t[]){1, n, h}));
    const bool sparse = c->in[MEST_RECUR_R]->layout.kind == MEST_SPARSE;
    const mest_shape workspace = mest_shape_vector(sparse ? mest_recurrent_lanes_of(p->kind, t, n, h, r->dim[0]).size : layer_of(p, t, n, h).size);
    const mest_shape y = {.rank = 4, .dim = {t, 1, n, h}}, state = {.rank = 3, .dim = {1, n, h}};
    for (int i = 0; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, MEST_F32, i == 0 ? &workspace : i == 1 ? &y : &state));
    return MEST_OK;
}

static const void *in_data(const mest_args *a, int i) { return i < a->n_in ? a->in[i].data : NULL; }
static mest_real *out_data(const mest_args *a, int i) { return i < a->n_out ? a->out[i].data : NULL; }

static mest_status check_lens(const mest_args *a, const int32_t *lens, int64_t t, int64_t n)
{
    for (int64_t i = 0; lens && i < n; i++)
        if (lens[i] < 0 || lens[i] > t)
            return mest_run_fail(a, MEST_E_DATA, "sequence_lens[%" PRId64 "] is %d, there are %" PRId64 " steps", i, (int)lens[i], t);
    return MEST_OK;
}

typedef struct gates_job {
    const mest_rnn *g;
    const mest_real *from, *bias; /* bias NULL: back from the gates' order to the weights' */
    mest_real *to;
} gates_job;

/* Gates of all rows of a step, from the weights' order to ONNX's with the bias added, or back. */
static void gates_tile(void *context, size_t t)
{
    const gates_job *j = context;
    const mest_rnn *g = j->g;
    const int64_t gh = g->gates * g->h;
    for (int64_t n = 0; n < g->n; n++) {
        const int64_t at = ((int64_t)t * g->n + n) * gh;
        for (int k = 0; k < g->gates; k++) {
            const mest_real *from = j->from + at + (j->bias ? g->order[k] : k) * g->h;
            mest_real *to = j->to + at + (j->bias ? k : g->order[k]) * g->h;
            for (int64_t i = 0; i < g->h; i++)
                to[i] = j->bias ? from[i] + j->bias[k * g->h + i] : from[i];
        }
    }
}

static mest_status forward(const mest_args *a)
{
    const mest_recurrent_params *p = a->params;
    const mest_shape *x = &a->in[MEST_RECUR_P].type->shape;
    const int64_t h = a->in[MEST_RECUR_R].type->shape.dim[1];
    mest_rnn_run r = {.g = layer_of(p, x->dim[0], x->dim[1], h), .r = (const mest_real *)a->in[MEST_RECUR_R].data + p->first * h, .b = in_data(a, MEST_RECUR_B),
                      .lens = in_data(a, MEST_RECUR_LENS), .h0 = in_data(a, MEST_RECUR_H0), .c0 = in_data(a, MEST_RECUR_C0), .ws = out_data(a, 0), .y = out_data(a, 1)};
    const mest_rnn *g = &r.g;
    MEST_TRY(check_lens(a, r.lens, g->t, g->n));
    mest_real *bias = r.ws + g->at_bias, *yh = out_data(a, 2), *yc = out_data(a, 3);
    const int64_t start = g->reverse ? g->t : 0, end = g->reverse ? 0 : g->t;
    mest_rnn_bias(&r, 0, bias);
    mest_rnn_pack(&r, 0, true, r.ws + g->at_panels);
    mest_rnn_take_state(g, 0, r.ws + g->at_h + start * g->n * h, r.h0);
    if (g->kind == MEST_LSTM)
        mest_rnn_take_state(g, 0, r.ws + g->at_c + start * g->n * h, r.c0);
    mest_parallel(a->threads, (size_t)g->t, gates_tile, &(gates_job){g, a->in[MEST_RECUR_P].data, bias, r.ws});
    mest_rnn_forward(a->threads, &r);
    if (yh)
        mest_rnn_copy_state(g, 0, r.ws + g->at_h + end * g->n * h, yh, true);
    if (yc)
        mest_rnn_copy_state(g, 0, r.ws + g->at_c + end * g->n * h, yc, true);
    return MEST_OK;
}

static mest_status vjp(mest_vjp *v)
{
    static const signed char to[] = {-1, MEST_RECUR_P, MEST_RECUR_R, MEST_RECUR_B, MEST_RECUR_H0, MEST_RECUR_C0};
    mest_id in[MEST_RECUR_GRAD_N_IN], out[6];
    bool want[6] = {true}, any = false;
    for (int i = 0; i < MEST_RECUR_N_IN - 1; i++)
        in[i] = mest_in(v, i + 1);
    in[MEST_RECUR_GRAD_WS] = mest_out(v, 0);
    for (int i = 0; i < 3; i++) {
        in[MEST_RECUR_GRAD_DY + i] = mest_dout(v, 1 + i);
        any |= in[MEST_RECUR_GRAD_DY + i] != MEST_NONE;
    }
    mest_recurrent_params *p = mest_vjp_alloc(v, sizeof *p);
    if (!p)
        return mest_vjp_nomem(v);
    *p = *(const mest_recurrent_params *)mest_vjp_node(v)->params;
    const mest_shape *x = &mest_vjp_type(v, mest_in(v, MEST_RECUR_P))->shape;
    p->t = x->dim[0];
    p->n = x->dim[1];
    for (int i = 1; i < 6; i++)
        want[i] = mest_wants(v, to[i]);
    if (!any)
        return MEST_OK;
    MEST_TRY(mest_emit(v, "mest.RecurrentGrad", p, MEST_RECUR_GRAD_N_IN, in, 6, want, out));
    for (int i = 1; i < 6; i++)
        if (want[i])
            MEST_TRY(mest_give(v, to[i], out[i]));
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c)
{
    const mest_recurrent_params *p = c->params;
    const mest_type *r = c->in[MEST_RECUR_GRAD_R];
    const int64_t h = r->shape.dim[1], gh = gates_of(p->kind) * h;
    const bool sparse = r->layout.kind == MEST_SPARSE;
    const mest_shape workspace =
        mest_shape_vector(sparse ? mest_recurrent_lanes_of(p->kind, p->t, p->n, h, r->shape.dim[0]).grad_size : layer_of(p, p->t, p->n, h).grad_size);
    const mest_shape shapes[] = {workspace, {.rank = 3, .dim = {p->t, p->n, gh}}, r->shape, {.rank = 2, .dim = {1, 2 * gh}}, {.rank = 3, .dim = {1, p->n, h}},
                                 {.rank = 3, .dim = {1, p->n, h}}};
    for (int i = 0; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, MEST_F32, &shapes[i]));
    if (c->n_out > 2)
        c->out[2] = *r; /* a sparse weight's gradient lives at its stored entries */
    return MEST_OK;
}

static mest_status grad_forward(const mest_args *a)
{
    const mest_recurrent_params *p = a->params;
    const mest_shape *rs = &a->in[MEST_RECUR_GRAD_R].type->shape;
    const int64_t h = rs->dim[1];
    mest_rnn_run r = {.g = layer_of(p, p->t, p->n, h), .r = (const mest_real *)a->in[MEST_RECUR_GRAD_R].data + p->first * h, .b = in_data(a, MEST_RECUR_GRAD_B),
                      .lens = in_data(a, MEST_RECUR_GRAD_LENS), .h0 = in_data(a, MEST_RECUR_GRAD_H0), .c0 = in_data(a, MEST_RECUR_GRAD_C0),
                      .ws = (mest_real *)(uintptr_t)in_data(a, MEST_RECUR_GRAD_WS), .dy = in_data(a, MEST_RECUR_GRAD_DY), .grad = out_data(a, 0),
                      .dr = out_data(a, 2), .db = out_data(a, 3)};
    const mest_rnn *g = &r.g;
    mest_rnn_pack(&r, 0, false, r.grad + g->grad_panels);
    mest_rnn_take_state(g, 0, r.grad + g->grad_h, in_data(a, MEST_RECUR_GRAD_DYH));
    mest_rnn_take_state(g, 0, r.grad + g->grad_c, in_data(a, MEST_RECUR_GRAD_DYC));
    mest_rnn_backward(a->threads, &r);
    if (out_data(a, 1))
        mest_parallel(a->threads, (size_t)g->t, gates_tile, &(gates_job){g, r.grad, NULL, out_data(a, 1)});
    if (r.dr) {
        if (g->gates * h < rs->dim[0])
            memset(r.dr, 0, (size_t)(rs->dim[0] * h) * sizeof *r.dr); /* the other direction's rows */
        r.dr += p->first * h;
        mest_rnn_recurrent_gradient(a->threads, &r, 0);
    }
    if (out_data(a, 4))
        mest_rnn_copy_state(g, 0, r.grad + g->grad_h, out_data(a, 4), true);
    if (out_data(a, 5))
        mest_rnn_copy_state(g, 0, r.grad + g->grad_c, out_data(a, 5), true);
    if (r.db)
        mest_rnn_sums(a->threads, &r);
    return MEST_OK;
}

static int64_t macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    const mest_shape *x = &in[MEST_RECUR_P]->shape;
    (void)node, (void)out;
    return mest_shape_span(x, 0, 3) * in[MEST_RECUR_R]->shape.dim[1];
}
static int64_t grad_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    const mest_recurrent_params *p = node->params;
    const int64_t h = in[MEST_RECUR_GRAD_R]->shape.dim[1];
    return p->t * p->n * gates_of(p->kind) * h * h * (1 + (node->n_out > 2 && out[2]));
}

const mest_op mest_ops_recurrent[] = {
    {.domain = "mest", .name = "mest.Recurrent", .since = 1, .in_min = 2, .in_max = MEST_RECUR_N_IN, .out_min = 1, .out_max = 4, .flags = MEST_OP_ANY_TYPE,
     .sparse_in = 1u << MEST_RECUR_R, .params_bytes = sizeof(mest_recurrent_params), .infer = infer, .forward = forward, .vjp = vjp, .macs = macs},
    {.domain = "mest", .name = "mest.RecurrentGrad", .since = 1, .in_min = MEST_RECUR_GRAD_N_IN, .in_max = MEST_RECUR_GRAD_N_IN, .out_min = 1, .out_max = 6,
     .flags = MEST_OP_ANY_TYPE, .sparse_in = 1u << MEST_RECUR_GRAD_R, .params_bytes = sizeof(mest_recurrent_params), .infer = grad_infer,
     .forward = grad_forward, .macs = grad_macs},
    {.name = NULL},
};
