/* SPDX-License-Identifier: Apache-2.0 */
/* LSTM, GRU and RNN take their weights as the file has them. Exporters cut PyTorch's weight_ih and weight_hh into gates, put these into ONNX's
 * order and stack the directions (Slice, Concat, Unsqueeze); or give a stack that is an initializer. Either way each direction becomes
 *
 *     mest.Linear(X, W) -> mest.Recurrent(.., R, ..)
 *
 * with the initializers themselves, gates in their order, which can therefore be sparse. B and the states go the ways they went. */
#include "ops/elements.h"
#include "ops/nn.h"
#include "ops/recurrent.h"
#include "runtime/match.h"

typedef struct source {   /* of W or R in one direction */
    mest_id weight;
    int32_t order[4];
    int64_t first;        /* row of the direction */
} source;

static bool ints(const mest_graph *g, const mest_node *n, int input, int64_t *v)
{
    int64_t count;
    const mest_value *c = input < n->n_in && n->in[input] != MEST_NONE ? &g->values[n->in[input]] : NULL;
    if (!c || c->kind != MEST_VALUE_CONST || !mest_dtype_is_index(c->type.dtype) || !mest_shape_count(&c->type.shape, &count) || count != 1)
        return false;
    *v = mest_int_at(c->type.dtype, c->data, 0);
    return true;
}

/* v = Unsqueeze(x, 0): x. */
static mest_id unstacked(const mest_graph *g, mest_id v)
{
    int64_t axis;
    const mest_node *n = mest_match(g, v, "Unsqueeze");
    return n && ints(g, n, 1, &axis) && axis == 0 ? n->in[0] : MEST_NONE;
}

static bool is_axis_0(const mest_node *concat) { return ((const mest_axis_params *)concat->params)->axis == 0; }

/* x: a weight [G*H, ..], or its rows put together anew gate by gate. */
static bool gates_of(const mest_graph *g, mest_id x, int gates, source *s)
{
    const mest_node *concat = mest_match(g, x, "Concat");
    int n = 0;
    s->weight = MEST_NONE;
    s->first = 0;
    for (int k = 0; k < (concat ? concat->n_in : 1); k++) {
        const mest_id piece = concat ? concat->in[k] : x;
        const mest_node *slice = mest_match(g, piece, "Slice");
        const mest_id w = slice ? slice->in[0] : piece;
        const mest_value *v = &g->values[w];
        if (v->kind != MEST_VALUE_PARAM || v->type.shape.rank != 2 || v->type.shape.dim[0] % gates || (s->weight != MEST_NONE && w != s->weight))
            return false;
        s->weight = w;
        const int64_t rows = v->type.shape.dim[0], h = rows / gates;
        int64_t from = 0, to = rows, axis = 0, step = 1;
        if (slice && (!ints(g, slice, 1, &from) || !ints(g, slice, 2, &to) || (slice->n_in > 3 && slice->in[3] != MEST_NONE && !ints(g, slice, 3, &axis)) ||
                      (slice->n_in > 4 && slice->in[4] != MEST_NONE && !ints(g, slice, 4, &step))))
            return false;
        to = to > rows ? rows : to;
        if (axis != 0 || step != 1 || from < 0 || to <= from || h == 0 || from % h || to % h)
            return false;
        for (; from < to; from += h) {
            if (n == gates)
                return false;
            s->order[n++] = (int32_t)(from / h);
        }
    }
    unsigned seen = 0;
    for (int k = 0; k < n; k++)
        seen |= 1u << s->order[k];
    return n == gates && seen == (1u << gates) - 1 && (!concat || is_axis_0(concat));
}

/* Input W or R of a node with `directions` directions. */
static bool sources_of(const mest_pass_args *a, mest_id v, int directions, int gates, source s[2])
{
    const mest_graph *g = a->graph;
    const mest_value *stack = &g->values[v];
    if (stack->kind == MEST_VALUE_PARAM) { /* [D, G*H, ..] as it is; nobody else may want it in that shape */
        if (stack->type.shape.rank != 3 || stack->type.shape.dim[0] != directions || !mest_read_once(a, v))
            return false;
        for (int d = 0; d < directions; d++)
            s[d] = (source){v, {0, 1, 2, 3}, d * stack->type.shape.dim[1]};
        return true;
    }
    const mest_node *concat = directions == 2 ? mest_match(g, v, "Concat") : NULL;
    if (directions == 2 && (!concat || concat->n_in != 2 || !is_axis_0(concat)))
        return false;
    for (int d = 0; d < directions; d++) {
        mest_id x = unstacked(g, concat ? concat->in[d] : v);
        if (x == MEST_NONE || !gates_of(g, x, gates, &s[d]))
            return false;
    }
    return directions == 1 || s[0].weight != s[1].weight;
}

/* The stack as a matrix: its rows one after the other. */
static void flatten(mest_graph *g, mest_id v)
{
    mest_shape *s = &g->values[v].type.shape;
    if (s->rank == 3)
        *s = (mest_shape){.rank = 2, .dim = {s->dim[0] * s->dim[1], s->dim[2]}};
}

static bool plain_activations(const mest_rnn_params *p, mest_rnn_kind kind, int directions, bool *relu)
{
    static const char *const standard[][3] = {{"Sigmoid", "Tanh", "Tanh"}, {"Sigmoid", "Tanh", NULL}, {"Tanh", NULL, NULL}};
    const int per = 3 - (int)kind;
    *relu = kind == MEST_RNN && p->activations.n > 0 && !strcmp(p->activations.v[0], "Relu");
    if (p->activations.n != 0 && p->activations.n != per * directions)
        return false;
    for (int i = 0; i < p->activations.n; i++)
        if (strcmp(p->activations.v[i], *relu ? "Relu" : standard[kind][i % per]))
            return false;
    return true;
}

static mest_status part(mest_pass_args *a, mest_id at, mest_id v, int64_t axis, int64_t from, int64_t n, mest_id *out)
{
    const mest_type one = {.dtype = MEST_I64, .shape = {.rank = 1, .dim = {1}}};
    const int64_t bounds[3] = {from, from + n, axis};
    mest_id in[4] = {v};
    for (int i = 0; i < 3; i++) {
        in[i + 1] = mest_graph_const(a->graph, NULL, &one, &bounds[i]);
        MEST_CHECK(in[i + 1] != MEST_NONE, a->err, MEST_E_NOMEM, "pass: out of memory");
    }
    return mest_insert(a, at, "Slice", NULL, 4, in, out);
}

typedef struct layer {
    mest_rnn_kind kind;
    int gates, directions;
    bool reverse, relu, linear_before_reset;
    source w[2], r[2];
} layer;

/* Params and inputs of direction d; the nodes they need are put in front of `at`. */
static mest_status direction(mest_pass_args *a, mest_id at, const layer *l, int d, mest_id in[MEST_RECUR_N_IN], mest_recurrent_params *p)
{
    mest_graph *g = a->graph;
    const mest_node *n = &g->nodes[at];
    mest_id given[7];
    for (int i = 0; i < 7; i++)
        given[i] = i < n->n_in ? n->in[i] : MEST_NONE;
    mest_gemm_params *gemm = mest_pass_alloc(a, sizeof *gemm);
    if (!gemm)
        return MEST_E_NOMEM;
    *gemm = (mest_gemm_params){.alpha = 1, .beta = 1, .trans_b = 1};
    const bool shared = l->directions == 2 && l->w[0].weight == l->w[1].weight;
    mest_id xw[2] = {given[0], l->w[d].weight};
    MEST_TRY(mest_insert(a, at, "mest.Linear", gemm, 2, xw, &in[MEST_RECUR_P]));
    if (shared)
        MEST_TRY(part(a, at, in[MEST_RECUR_P], 2, l->w[d].first, g->values[l->w[d].weight].type.shape.dim[0] / 2, &in[MEST_RECUR_P]));
    in[MEST_RECUR_R] = l->r[d].weight;
    for (int i = 0; i < 4; i++) { /* B, lens, h0, c0 */
        in[MEST_RECUR_B + i] = given[3 + i];
        if (i != 1 && given[3 + i] != MEST_NONE && l->directions == 2)
            MEST_TRY(part(a, at, given[3 + i], 0, d, 1, &in[MEST_RECUR_B + i]));
    }
    *p = (mest_recurrent_params){.kind = l->kind, .reverse = l->reverse || d == 1, .relu = l->relu, .linear_before_reset = l->linear_before_reset, .first = l->r[d].first};
    memcpy(p->order, l->r[d].order, sizeof p->order);
    return MEST_OK;
}

static mest_status rewrite(mest_pass_args *a, mest_id at, const layer *l)
{
    mest_graph *g = a->graph;
    mest_id out[2][4], in[MEST_RECUR_N_IN];
    const int n_out = g->nodes[at].n_out, n_in = l->kind == MEST_LSTM ? MEST_RECUR_N_IN : MEST_RECUR_N_IN - 1;
    for (int d = 0; d < l->directions; d++) {
        flatten(g, l->w[d].weight);
        flatten(g, l->r[d].weight);
    }
    for (int d = 0; d < l->directions; d++) {
        mest_recurrent_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        MEST_TRY(direction(a, at, l, d, in, p));
        if (l->directions == 1) {
            MEST_TRY(mest_rewrite(a, at, "mest.Recurrent", p, n_in, in, n_out, false));
            return mest_prepend_output(a, at);
        }
        MEST_TRY(mest_insert_many(a, at, "mest.Recurrent", p, n_in, in, n_out + 1, out[d]));
    }
    /* both directions side by side; the node itself becomes the last of what is wanted */
    int last = -1;
    mest_id old[3];
    for (int k = 0; k < n_out; k++) {
        old[k] = g->nodes[at].out[k];
        last = old[k] != MEST_NONE ? k : last;
    }
    for (int k = 0; k < n_out; k++) {
        mest_axis_params *axis = mest_pass_alloc(a, sizeof *axis);
        if (!axis)
            return MEST_E_NOMEM;
        axis->axis = k == 0 ? 1 : 0;
        mest_id pair[2] = {out[0][k + 1], out[1][k + 1]};
        if (old[k] == MEST_NONE)
            continue;
        if (k != last) {
            MEST_TRY(mest_insert_as(a, at, "Concat", axis, 2, pair, old[k]));
            continue;
        }
        for (int i = 0; i < n_out; i++)
            g->nodes[at].out[i] = MEST_NONE;
        g->nodes[at].out[0] = old[k];
        g->values[old[k]].output = 0;
        return mest_rewrite(a, at, "Concat", axis, 2, pair, 1, false);
    }
    return MEST_OK;
}

static mest_status run(mest_pass_args *a)
{
    static const char *const names[] = {"LSTM", "GRU", "RNN"};
    mest_graph *g = a->graph;
    const mest_id n_nodes = g->n_nodes;
    for (mest_id i = 0; i < n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        int kind = 0;
        while (kind < 3 && !mest_is_op(n, names[kind]))
            kind++;
        if (kind == 3)
            continue;
        const mest_rnn_params *p = n->params;
        const bool both = p->direction && !strcmp(p->direction, "bidirectional"), back = p->direction && !strcmp(p->direction, "reverse");
        layer l = {.kind = (mest_rnn_kind)kind, .gates = kind == MEST_LSTM ? 4 : kind == MEST_GRU ? 3 : 1, .directions = both ? 2 : 1, .reverse = back,
                   .linear_before_reset = p->linear_before_reset != 0};
        bool wanted = false;
        for (int k = 0; k < n->n_out; k++)
            wanted |= n->out[k] != MEST_NONE;
        /* what the nodes cannot do, or sparse kernels cannot, stays as it was */
        if (p->layout != 0 || p->clip != 0 || p->input_forget || (kind == MEST_GRU && !p->linear_before_reset) || (n->n_in > 7 && n->in[7] != MEST_NONE) || !wanted ||
            n->n_in < 3 || !plain_activations(p, l.kind, l.directions, &l.relu))
            continue;
        if (!sources_of(a, n->in[1], l.directions, l.gates, l.w) || !sources_of(a, n->in[2], l.directions, l.gates, l.r))
            continue;
        bool same = true; /* X W^T and R must have their gates in one order */
        for (int d = 0; d < l.directions; d++)
            for (int k = 0; k < l.gates; k++)
                same &= l.w[d].order[k] == l.r[d].order[k];
        if (same)
            MEST_TRY(rewrite(a, i, &l));
    }
    return MEST_OK;
}

const mest_pass mest_pass_recurrent = {"recurrent", "LSTM, GRU and RNN take their weights as the file has them, not cut into gates", MEST_PASS_WEIGHTS, MEST_FOR_ALL,
                                       false, run};
