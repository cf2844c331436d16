/* SPDX-License-Identifier: Apache-2.0 */
/* LSTM, GRU, RNN: X[T,N,I], W[D,G*H,I], R[D,G*H,H], B[D,2*G*H], sequence_lens[N], initial states [D,N,H], P[D,3*H] (LSTM's peepholes) to
 * Y[T,D,N,H], Y_h and Y_c [D,N,H]. Forward, reverse, both; GRU with either linear_before_reset; default and other activations, clip, input_forget.
 * ONNX since 7 (14 adds layout). Before anything runs the files' operators become mest.LSTM and so on, whose first output is a workspace
 * (ops/rnn.h). mest.LSTMGrad and its like go back through time by what the workspace holds.
 *
 * All steps of X W^T are one product; then every 16 rows of the batch run through the steps on their own, in parallel. */
#include "ops/rnn.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "ops/elements.h"

#define ATTRS(default_direction)                                                                                                    \
    { .name = "hidden_size", .kind = MEST_ATTR_INT, .offset = offsetof(mest_rnn_params, hidden_size) },                             \
    { .name = "direction", .kind = MEST_ATTR_STRING, .offset = offsetof(mest_rnn_params, direction), .text = default_direction },   \
    { .name = "layout", .kind = MEST_ATTR_INT, .offset = offsetof(mest_rnn_params, layout) },                                       \
    { .name = "clip", .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_rnn_params, clip) },                                         \
    { .name = "activations", .kind = MEST_ATTR_STRINGS, .offset = offsetof(mest_rnn_params, activations) },                         \
    { .name = "activation_alpha", .kind = MEST_ATTR_FLOATS, .offset = offsetof(mest_rnn_params, alpha) },                           \
    { .name = "activation_beta", .kind = MEST_ATTR_FLOATS, .offset = offsetof(mest_rnn_params, beta) }
static const mest_attr lstm_attrs[] = {
    ATTRS("forward"), { .name = "input_forget", .kind = MEST_ATTR_INT, .offset = offsetof(mest_rnn_params, input_forget) }, { .name = NULL } };
static const mest_attr gru_attrs[] = {
    ATTRS("forward"), { .name = "linear_before_reset", .kind = MEST_ATTR_INT, .offset = offsetof(mest_rnn_params, linear_before_reset) }, { .name = NULL } };
static const mest_attr rnn_attrs[] = { ATTRS("forward"), { .name = NULL } };

/* Inputs of every form, in LSTM's order; those of gradients follow. */
enum { X, W, R, B, LENS, H0, C0, P, N_IN, WS = N_IN, DY, DYH, DYC, N_GRAD_IN };

static mest_rnn_kind kind_of(const mest_node *n)
{
    const char *name = n->op->name + (strncmp(n->op->name, "mest.", 5) ? 0 : 5);
    return name[0] == 'L' ? MEST_LSTM : name[0] == 'G' ? MEST_GRU : MEST_RNN;
}

/* Sizes from params and the shapes of X and R, which have been checked. */
static mest_rnn layer_of(const mest_node *node, const mest_rnn_params *p, const mest_shape *x, const mest_shape *r)
{
    mest_rnn g = { .kind = kind_of(node), .batch_first = p->layout != 0, .linear_before_reset = p->linear_before_reset != 0 };
    g.gates = g.kind == MEST_LSTM ? 4 : g.kind == MEST_GRU ? 3 : 1;
    g.directions = (int)r->dim[0];
    g.reverse = p->direction && !strcmp(p->direction, "reverse");
    int which;
    (void)mest_rnn_activations(p, &g, &which);
    g.t = x->dim[g.batch_first ? 1 : 0];
    g.n = x->dim[g.batch_first ? 0 : 1];
    g.i = x->dim[2];
    g.h = r->dim[2];
    for (int k = 0; k < 4; k++)
        g.order[k] = k;
    mest_rnn_place(&g);
    return g;
}

/* ---- shapes ---- */
static mest_status check_activations(const mest_infer *c, int directions)
{
    const mest_rnn_params *p = c->params;
    mest_rnn g = { .kind = kind_of(c->node), .directions = directions };
    int per = 3 - (int)g.kind, which = 0;
    MEST_INFER_CHECK(c, p->activations.n == 0 || p->activations.n == per * directions, "%d activations, %d are needed", p->activations.n, per * directions);
    MEST_INFER_CHECK(c, p->clip >= 0, "clip %g is below 0", p->clip);
    const char *why = mest_rnn_activations(p, &g, &which);
    return why ? mest_infer_fail(c, MEST_E_UNSUPPORTED, "activation %.40s %s", p->activations.v[which], why) : MEST_OK;
}

static mest_status check_shape(const mest_infer *c, int input, const char *what, int rank, const int64_t *dim)
{
    if (input >= c->n_in || !c->in[input])
        return MEST_OK;
    mest_shape want = { .rank = rank };
    char have_text[64], want_text[64];
    memcpy(want.dim, dim, (size_t)rank * sizeof *dim);
    MEST_INFER_CHECK(c, mest_shape_equal(&want, &c->in[input]->shape), "%s is %s, must be %s", what,
                     mest_shape_text(&c->in[input]->shape, have_text, sizeof have_text), mest_shape_text(&want, want_text, sizeof want_text));
    MEST_INFER_CHECK(c, input == LENS ? c->in[input]->dtype == MEST_I32 : c->in[input]->dtype == MEST_F32, "%s is %s, must be %s", what,
                     mest_dtype_name(c->in[input]->dtype), input == LENS ? "int32" : "float32");
    return MEST_OK;
}

static mest_status check(const mest_infer *c, mest_rnn *g)
{
    const mest_rnn_params *p = c->params;
    const char *direction = p->direction ? p->direction : "forward";
    const mest_shape *x = &c->in[X]->shape, *r = &c->in[R]->shape;
    bool both = !strcmp(direction, "bidirectional");
    MEST_INFER_CHECK(c, both || !strcmp(direction, "forward") || !strcmp(direction, "reverse"), "direction \"%.30s\" is unknown", direction);
    MEST_INFER_CHECK(c, p->layout == 0 || p->layout == 1, "layout %" PRId64 " is unknown", p->layout);
    MEST_TRY(check_activations(c, both ? 2 : 1));
    MEST_INFER_CHECK(c, x->rank == 3 && r->rank == 3, "X has rank %d and R rank %d, both must be 3", x->rank, r->rank);
    MEST_INFER_CHECK(c, r->dim[0] == (both ? 2 : 1), "R has %" PRId64 " directions, the direction is %s", r->dim[0], direction);
    MEST_INFER_CHECK(c, r->dim[2] >= 1 && r->dim[2] < 1 << 20 && (p->hidden_size == 0 || p->hidden_size == r->dim[2]),
                     "hidden_size is %" PRId64 ", R is for %" PRId64, p->hidden_size, r->dim[2]);
    *g = layer_of(c->node, p, x, r);
    int64_t d = g->directions, gh = g->gates * g->h;
    int64_t state[3] = { g->batch_first ? g->n : d, g->batch_first ? d : g->n, g->h };
    MEST_TRY(check_shape(c, X, "X", 3, x->dim));
    MEST_TRY(check_shape(c, W, "W", 3, (int64_t[]){ d, gh, g->i }));
    MEST_TRY(check_shape(c, R, "R", 3, (int64_t[]){ d, gh, g->h }));
    MEST_TRY(check_shape(c, B, "B", 2, (int64_t[]){ d, 2 * gh }));
    MEST_TRY(check_shape(c, LENS, "sequence_lens", 1, &g->n));
    MEST_TRY(check_shape(c, H0, "initial_h", 3, state));
    MEST_TRY(check_shape(c, C0, "initial_c", 3, state));
    return check_shape(c, P, "P", 2, (int64_t[]){ d, 3 * g->h });
}

static mest_status infer_outputs(mest_infer *c, int first)
{
    mest_rnn g;
    MEST_TRY(check(c, &g));
    mest_shape y = { .rank = 4, .dim = { g.t, g.directions, g.n, g.h } }, state = { .rank = 3, .dim = { g.directions, g.n, g.h } };
    if (g.batch_first) {
        y = (mest_shape){ .rank = 4, .dim = { g.n, g.t, g.directions, g.h } };
        state = (mest_shape){ .rank = 3, .dim = { g.n, g.directions, g.h } };
    }
    mest_shape workspace = mest_shape_vector(g.size * g.directions);
    for (int i = 0; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, MEST_F32, i < first ? &workspace : i == first ? &y : &state));
    return MEST_OK;
}
static mest_status file_infer(mest_infer *c) { return infer_outputs(c, 0); }
static mest_status run_infer(mest_infer *c) { return infer_outputs(c, 1); }

static mest_status grad_infer(mest_infer *c)
{
    static const signed char like[] = { -1, X, W, R, B, H0, C0, P };
    mest_rnn g = layer_of(c->node, c->params, &c->in[X]->shape, &c->in[R]->shape);
    mest_shape workspace = mest_shape_vector(g.grad_size * g.directions), none = { .rank = 0 };
    for (int i = 0; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, MEST_F32, i == 0 ? &workspace : c->in[like[i]] ? &c->in[like[i]]->shape : &none));
    return MEST_OK;
}

/* ---- forward ---- */
static const void *in_data(const mest_args *a, int i) { return i < a->n_in ? a->in[i].data : NULL; }
static mest_real *out_data(const mest_args *a, int i) { return i < a->n_out ? a->out[i].data : NULL; }

static mest_status run_of(const mest_args *a, mest_rnn_run *r)
{
    *r = (mest_rnn_run){ .g = layer_of(a->node, a->params, &a->in[X].type->shape, &a->in[R].type->shape), .x = in_data(a, X), .w = in_data(a, W),
                         .r = in_data(a, R), .b = in_data(a, B), .lens = in_data(a, LENS), .h0 = in_data(a, H0), .c0 = in_data(a, C0),
                         .p = in_data(a, P) };
    for (int64_t n = 0; r->lens && n < r->g.n; n++)
        if (r->lens[n] < 0 || r->lens[n] > r->g.t)
            return mest_run_fail(a, MEST_E_DATA, "sequence_lens[%" PRId64 "] is %d, there are %" PRId64 " steps", n, (int)r->lens[n], r->g.t);
    return MEST_OK;
}

/* Row blocks of X: with the batch first, those of step `outer` (or `inner`) are T rows apart. */
static void by_step_outer(const void *context, int64_t outer, int64_t inner, int64_t *a, int64_t *b)
{
    const mest_rnn *g = context;
    (void)inner;
    *a = outer * g->i;
    *b = 0;
}

static mest_status rnn_forward(const mest_args *a)
{
    mest_rnn_run r;
    MEST_TRY(run_of(a, &r));
    const mest_rnn *g = &r.g;
    r.ws = out_data(a, 0);
    r.y = out_data(a, 1);
    r.yh = out_data(a, 2);
    r.yc = out_data(a, 3);
    int64_t gh = g->gates * g->h;
    for (int d = 0; d < g->directions; d++) {
        mest_real *ws = r.ws + d * g->size, *bias = ws + g->at_bias;
        int64_t start = mest_rnn_reversed(g, d) ? g->t : 0;
        mest_rnn_bias(&r, d, bias);
        mest_rnn_pack(&r, d, true, ws + g->at_panels);
        mest_rnn_take_state(g, d, ws + g->at_h + start * g->n * g->h, r.h0);
        if (g->kind == MEST_LSTM)
            mest_rnn_take_state(g, d, ws + g->at_c + start * g->n * g->h, r.c0);
        mest_dense_job job = { .m = g->t * g->n, .n = gh, .k = g->i, .a = r.x, .a_row = g->i, .a_col = 1, .b = r.w + d * gh * g->i, .b_row = 1,
                               .b_col = g->i, .d = bias, .d_col = 1, .alpha = 1, .beta = 1, .c = ws, .outer = 1, .inner = 1 };
        if (g->batch_first) {
            job.m = g->n;
            job.outer = g->t;
            job.a_row = g->t * g->i;
            job.offset = by_step_outer;
            job.context = g;
        }
        mest_dense_run(a->threads, &job);
    }
    mest_rnn_forward(a->threads, &r);
    for (int d = 0; d < g->directions; d++) {
        mest_real *ws = r.ws + d * g->size;
        int64_t end = mest_rnn_reversed(g, d) ? 0 : g->t;
        if (r.yh)
            mest_rnn_copy_state(g, d, ws + g->at_h + end * g->n * g->h, r.yh, true);
        if (r.yc)
            mest_rnn_copy_state(g, d, ws + g->at_c + end * g->n * g->h, r.yc, true);
    }
    return MEST_OK;
}

/* ---- backward ---- */
/* dW: gates of step `inner` against X of that step */
static void by_step_inner(const void *context, int64_t outer, int64_t inner, int64_t *a, int64_t *b)
{
    const mest_rnn *g = context;
    (void)outer;
    *a = inner * g->n * g->gates * g->h;
    *b = inner * g->i;
}
/* dX with the batch first: row `outer` of the batch */
static void by_row(const void *context, int64_t outer, int64_t inner, int64_t *a, int64_t *b)
{
    const mest_rnn *g = context;
    (void)inner;
    *a = outer * g->gates * g->h;
    *b = 0;
}

static void products_of_x(const mest_args *a, const mest_rnn_run *r, int d)
{
    const mest_rnn *g = &r->g;
    const mest_real *gates = r->grad + d * g->grad_size;
    int64_t gh = g->gates * g->h;
    if (r->dw) { /* dW[GH,I] = dgates^T X */
        mest_dense_job job = { .m = gh, .n = g->i, .k = g->t * g->n, .a = gates, .a_row = 1, .a_col = gh, .b = r->x, .b_row = g->i, .b_col = 1,
                               .alpha = 1, .c = r->dw + d * gh * g->i, .outer = 1, .inner = 1 };
        if (g->batch_first) {
            job.k = g->n;
            job.inner = g->t;
            job.b_row = g->t * g->i;
            job.offset = by_step_inner;
            job.context = g;
        }
        mest_dense_run(a->threads, &job);
    }
    if (r->dx) { /* dX (+)= dgates W */
        mest_dense_job job = { .m = g->t * g->n, .n = g->i, .k = gh, .a = gates, .a_row = gh, .a_col = 1, .b = r->w + d * gh * g->i, .b_row = g->i,
                               .b_col = 1, .alpha = 1, .beta = 1, .c = r->dx, .outer = 1, .inner = 1 };
        if (g->batch_first) {
            job.m = g->t;
            job.outer = g->n;
            job.a_row = g->n * gh;
            job.offset = by_row;
            job.context = g;
        }
        if (d > 0) { /* d has no batches of its own: the second direction goes row by row of the batch */
            job.d = r->dx;
            job.d_row = g->i;
            job.d_col = 1;
        }
        if (d > 0 && g->batch_first) {
            job.outer = 1;
            job.offset = NULL;
            for (int64_t n = 0; n < g->n; n++) {
                job.a = gates + n * gh;
                job.c = r->dx + n * g->t * g->i;
                job.d = job.c;
                mest_dense_run(a->threads, &job);
            }
            return;
        }
        mest_dense_run(a->threads, &job);
    }
}

static mest_status rnn_grad_forward(const mest_args *a)
{
    mest_rnn_run r;
    MEST_TRY(run_of(a, &r));
    const mest_rnn *g = &r.g;
    r.ws = (mest_real *)(uintptr_t)in_data(a, WS);
    r.dy = in_data(a, DY);
    r.dyh = in_data(a, DYH);
    r.dyc = in_data(a, DYC);
    mest_real **const out[] = { &r.grad, &r.dx, &r.dw, &r.dr, &r.db, &r.dh0, &r.dc0, &r.dp };
    for (int i = 0; i < a->n_out; i++)
        *out[i] = a->out[i].data;
    for (int d = 0; d < g->directions; d++) {
        mest_real *ws = r.grad + d * g->grad_size;
        mest_rnn_pack(&r, d, false, ws + g->grad_panels);
        mest_rnn_take_state(g, d, ws + g->grad_h, r.dyh);
        mest_rnn_take_state(g, d, ws + g->grad_c, r.dyc);
    }
    mest_rnn_backward(a->threads, &r);
    for (int d = 0; d < g->directions; d++) {
        mest_real *ws = r.grad + d * g->grad_size;
        if (r.dh0)
            mest_rnn_copy_state(g, d, ws + g->grad_h, r.dh0, true);
        if (r.dc0)
            mest_rnn_copy_state(g, d, ws + g->grad_c, r.dc0, true);
        products_of_x(a, &r, d);
        if (r.dr)
            mest_rnn_recurrent_gradient(a->threads, &r, d);
    }
    if (r.db || r.dp)
        mest_rnn_sums(a->threads, &r);
    return MEST_OK;
}

static mest_status rnn_vjp(mest_vjp *v)
{
    static const signed char to[] = { -1, X, W, R, B, H0, C0, P };
    static const char *const names[] = { "mest.LSTMGrad", "mest.GRUGrad", "mest.RNNGrad" };
    mest_id in[N_GRAD_IN], out[8];
    bool want[8] = { true };
    for (int i = 0; i < N_IN; i++)
        in[i] = mest_in(v, i);
    in[WS] = mest_out(v, 0);
    for (int i = 0; i < 3; i++)
        in[DY + i] = mest_dout(v, 1 + i);
    if (in[DY] == MEST_NONE && in[DYH] == MEST_NONE && in[DYC] == MEST_NONE)
        return MEST_OK;
    for (int i = 1; i < 8; i++)
        want[i] = mest_wants(v, to[i]);
    MEST_TRY(mest_emit(v, names[kind_of(mest_vjp_node(v))], NULL, N_GRAD_IN, in, 8, want, out));
    for (int i = 1; i < 8; i++)
        if (want[i])
            MEST_TRY(mest_give(v, to[i], out[i]));
    return MEST_OK;
}

static int64_t rnn_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    (void)out;
    mest_rnn g = layer_of(node, node->params, &in[X]->shape, &in[R]->shape);
    return g.directions * g.t * g.n * g.gates * g.h * (g.i + g.h);
}
static int64_t grad_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out) { return 2 * rnn_macs(node, in, out); }

#define LAYER(name_, attrs_, ins_, outs_, limits_)                                                                                                \
    { .domain = "", .name = name_, .limits = limits_, .since = 7, .in_min = 3, .in_max = ins_, .out_min = 0, .out_max = outs_, .flags = MEST_OP_ANY_TYPE,   \
      .attrs = attrs_, .params_bytes = sizeof(mest_rnn_params), .infer = file_infer, .macs = rnn_macs },                                 \
    { .domain = "mest", .name = "mest." name_, .since = 1, .in_min = 3, .in_max = ins_, .out_min = 1, .out_max = outs_ + 1,              \
      .flags = MEST_OP_ANY_TYPE, .params_bytes = sizeof(mest_rnn_params), .infer = run_infer, .forward = rnn_forward, .vjp = rnn_vjp,    \
      .macs = rnn_macs },                                                                                                                \
    { .domain = "mest", .name = "mest." name_ "Grad", .since = 1, .in_min = 9, .in_max = N_GRAD_IN, .out_min = 1, .out_max = 8,          \
      .flags = MEST_OP_ANY_TYPE, .params_bytes = sizeof(mest_rnn_params), .infer = grad_infer, .forward = rnn_grad_forward, .macs = grad_macs }

const mest_op mest_ops_rnn[] = {
    LAYER("LSTM", lstm_attrs, 8, 3, "activations with an alpha below 0"),
    LAYER("GRU", gru_attrs, 6, 2, "activations with an alpha below 0"),
    LAYER("RNN", rnn_attrs, 6, 2, "activations with an alpha below 0"),
    { .name = NULL },
};
