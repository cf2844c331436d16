/* SPDX-License-Identifier: Apache-2.0 */
/* A recurrent layer written out step by step, as PyTorch's newer exporter does with nn.RNN:
 *
 *     y[t] = Tanh or Relu(P[t] + Gemm(y[t - 1], R) + bias)        for all t of P[T,N,H], P = X W^T (+ bias), or P flipped along t
 *
 * becomes one mest.Recurrent, which packs R once and runs the T small products without T nodes. Whoever reads a single y[t] gets it as a cut of
 * Y; a Concat of all is Y itself. R lies as outputs x inputs there: a dense weight that lies the other way, as constant folding leaves it, is
 * transposed in front; a sparse one stays as it was. */
#include "ops/elements.h"
#include "ops/nn.h"
#include "ops/recurrent.h"
#include "runtime/match.h"

typedef struct step {       /* one activation and what its input is made of */
    mest_id node, p, state, r, bias; /* state: what R multiplies; MEST_NONE, like R and bias: nothing */
    int64_t t;
    bool relu, trans_b;
} step;

typedef struct chain {
    const step *s;          /* T of them, in the order in which they run */
    int64_t t, n, h;
    mest_id r;
    bool trans_b, back;     /* back: time runs from the last slice of P to the first */
    mest_id p, flip;        /* flip: P is that value turned round along t; MEST_NONE: it is not */
    mest_id y;
} chain;

static const mest_shape *shape_of(const mest_graph *g, mest_id v) { return &g->values[v].type.shape; }

/* What v shows in another shape, or v. */
static mest_id behind_views(const mest_graph *g, mest_id v)
{
    static const char *const views[] = {"mest.Reshape", "Reshape", "Squeeze", "Unsqueeze", "Identity"};
    for (;;) {
        const mest_node *n = NULL;
        for (size_t i = 0; i < sizeof views / sizeof *views && !n; i++)
            n = mest_match(g, v, views[i]);
        if (!n)
            return v;
        v = n->in[0];
    }
}

static bool int_of(const mest_graph *g, const mest_node *n, int input, int64_t otherwise, int64_t *x)
{
    int64_t count;
    *x = otherwise;
    if (input >= n->n_in || n->in[input] == MEST_NONE)
        return true;
    const mest_value *c = &g->values[n->in[input]];
    if (c->kind != MEST_VALUE_CONST || !mest_dtype_is_index(c->type.dtype) || !mest_shape_count(&c->type.shape, &count) || count != 1)
        return false;
    *x = mest_int_at(c->type.dtype, c->data, 0);
    return true;
}

/* n cuts along axis 0 only. */
static bool slice_of(const mest_graph *g, const mest_node *n, int64_t *from, int64_t *to, int64_t *by)
{
    int64_t axis;
    return n && n->n_in >= 3 && int_of(g, n, 1, 0, from) && int_of(g, n, 2, 0, to) && int_of(g, n, 3, 0, &axis) && int_of(g, n, 4, 1, by) && axis == 0;
}

/* v is x turned round along axis 0: x, otherwise MEST_NONE. */
static mest_id flipped(const mest_graph *g, mest_id v)
{
    int64_t from, to, by;
    const mest_node *n = mest_match(g, v, "Slice");
    const bool all = slice_of(g, n, &from, &to, &by) && by == -1 && shape_of(g, v)->rank == 3 && shape_of(g, v)->dim[0] == shape_of(g, n->in[0])->dim[0];
    return all ? n->in[0] : MEST_NONE;
}

static bool is_vector(const mest_graph *g, mest_id v, int64_t h)
{
    int64_t count;
    const mest_value *b = &g->values[v];
    return (b->kind == MEST_VALUE_PARAM || b->kind == MEST_VALUE_CONST) && b->type.layout.kind == MEST_PLAIN && b->type.dtype == MEST_F32 &&
           mest_shape_count(&b->type.shape, &count) && count == h && b->type.shape.rank >= 1 && b->type.shape.dim[b->type.shape.rank - 1] == h;
}

/* One summand of what an activation takes. False: it is none of a recurrent layer. */
static bool term(const mest_graph *g, mest_id v, int64_t h, step *s)
{
    int64_t from, to, by;
    const mest_node *spread = mest_match(g, v, "Expand");
    if (spread && is_vector(g, spread->in[0], h))
        v = spread->in[0];
    if (is_vector(g, v, h)) {
        const bool first = s->bias == MEST_NONE;
        s->bias = v;
        return first;
    }
    v = behind_views(g, v);
    const mest_node *gemm = mest_match(g, v, "Gemm"), *slice = mest_match(g, v, "Slice");
    if (gemm && s->r == MEST_NONE) {
        const mest_gemm_params *p = gemm->params;
        const mest_id c = gemm->n_in > 2 ? gemm->in[2] : MEST_NONE;
        if (p->alpha != 1 || p->trans_a || (c != MEST_NONE && (p->beta != 1 || s->bias != MEST_NONE || !is_vector(g, c, h))))
            return false;
        s->state = behind_views(g, gemm->in[0]);
        s->r = gemm->in[1];
        s->trans_b = p->trans_b != 0;
        s->bias = c != MEST_NONE ? c : s->bias;
        return true;
    }
    const mest_node *gather = mest_match(g, v, "Gather");
    if (gather && (((const mest_axis_params *)gather->params)->axis != 0 || !int_of(g, gather, 1, -1, &from)))
        return false;
    if (slice && (!slice_of(g, slice, &from, &to, &by) || by != 1 || to != from + 1))
        return false;
    if ((!slice && !gather) || s->p != MEST_NONE || from < 0)
        return false;
    s->p = (slice ? slice : gather)->in[0];
    s->t = from;
    return true;
}

/* The node is a step: Tanh or Relu of a sum of two to four summands in any order. */
static bool parse(const mest_pass_args *a, mest_id node, step *s)
{
    const mest_graph *g = a->graph;
    const mest_node *n = &g->nodes[node];
    *s = (step){.node = node, .p = MEST_NONE, .state = MEST_NONE, .r = MEST_NONE, .bias = MEST_NONE, .relu = mest_is_op(n, "Relu")};
    if (mest_taken(n) || (!s->relu && !mest_is_op(n, "Tanh")) || shape_of(g, n->out[0])->rank < 1)
        return false;
    const mest_shape *y = shape_of(g, n->out[0]);
    const int64_t h = y->dim[y->rank - 1];
    mest_id todo[4] = {n->in[0]};
    for (int at = 0, n_todo = 1; at < n_todo; at++) {
        const mest_node *add = mest_match_once(a, todo[at], "Add");
        if (!add) {
            if (!term(g, todo[at], h, s))
                return false;
        } else if (n_todo == 4) {
            return false;
        } else { /* its two stand in for it: the first in its place, which is looked at again */
            todo[at--] = add->in[0];
            todo[n_todo++] = add->in[1];
        }
    }
    int64_t count;
    if (s->p == MEST_NONE || shape_of(g, s->p)->rank != 3 || !mest_shape_count(y, &count))
        return false;
    const mest_shape *p = shape_of(g, s->p), *r = s->r != MEST_NONE ? shape_of(g, s->r) : NULL;
    if (r ? r->rank != 2 || r->dim[0] != h || r->dim[1] != h : s->t != 0 && s->t != p->dim[0] - 1)
        return false; /* the first step may have no product: of a state of zeros only the bias is left */
    return p->dim[2] == h && count == p->dim[1] * h && (!r || (mest_shape_count(shape_of(g, s->state), &count) && count == p->dim[1] * h));
}

static bool follows(const mest_graph *g, const step *before, const step *s, bool back)
{
    return s->p == before->p && s->t == before->t + (back ? -1 : 1) && s->state == g->nodes[before->node].out[0] && s->relu == before->relu &&
           s->bias == before->bias && (before->r == MEST_NONE || (s->r == before->r && s->trans_b == before->trans_b));
}

/* The chain that begins at steps[first]: its steps are moved to the front of the rest, in order. */
static bool find(const mest_graph *g, step *steps, int32_t n, int32_t first, chain *c)
{
    step *s = &steps[first];
    const mest_shape *p = shape_of(g, s->p);
    *c = (chain){.s = s, .t = p->dim[0], .n = p->dim[1], .h = p->dim[2], .back = s->t != 0, .p = s->p, .flip = flipped(g, s->p)};
    if (c->t < 2 || n - first < c->t || (s->t != 0 && s->t != c->t - 1))
        return false;
    for (int64_t k = 1; k < c->t; k++) {
        int32_t next = first + (int32_t)k;
        while (next < n && !follows(g, &s[k - 1], &steps[next], c->back))
            next++;
        if (next == n)
            return false;
        const step found = steps[next];
        steps[next] = s[k];
        s[k] = found;
    }
    const mest_value *r = &g->values[s[1].r];
    c->r = s[1].r;
    c->trans_b = s[1].trans_b;
    return (c->trans_b || r->type.layout.kind != MEST_SPARSE) && (s->r != MEST_NONE || r->kind == MEST_VALUE_PARAM || r->kind == MEST_VALUE_CONST);
}

static bool all_zero(const mest_graph *g, mest_id v)
{
    int64_t count;
    const mest_value *c = &g->values[v];
    if (c->kind != MEST_VALUE_CONST || c->type.dtype != MEST_F32 || !mest_shape_count(&c->type.shape, &count))
        return false;
    for (int64_t i = 0; i < count; i++)
        if (((const mest_real *)c->data)[i] != 0)
            return false;
    return true;
}

static mest_status reshape(mest_pass_args *a, mest_id at, mest_id v, const mest_shape *shape, mest_id *out)
{
    mest_shape_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    p->shape = *shape;
    return mest_insert(a, at, "mest.Reshape", p, 1, &v, out);
}

static mest_status cut(mest_pass_args *a, mest_id at, mest_id v, int64_t from, int64_t to, int64_t by, mest_id *out)
{
    const mest_type one = {.dtype = MEST_I64, .shape = {.rank = 1, .dim = {1}}};
    const int64_t numbers[4] = {from, to, 0, by};
    mest_id in[5] = {v};
    for (int i = 0; i < 4; i++) {
        in[i + 1] = mest_graph_const(a->graph, NULL, &one, &numbers[i]);
        MEST_CHECK(in[i + 1] != MEST_NONE, a->err, MEST_E_NOMEM, "pass: out of memory");
    }
    return mest_insert(a, at, "Slice", NULL, 5, in, out);
}

/* B[1,2H]: zeros for the side of X, whose bias P has, and the bias. */
static mest_status make_bias(mest_pass_args *a, mest_id at, mest_id bias, int64_t h, mest_id *b)
{
    mest_axis_params *axis = mest_pass_alloc(a, sizeof *axis);
    mest_real *zeros = mest_pass_alloc(a, (size_t)h * sizeof *zeros);
    if (!axis || !zeros)
        return MEST_E_NOMEM;
    const mest_shape vector = mest_shape_vector(h), both = {.rank = 2, .dim = {1, 2 * h}};
    const mest_type type = {.dtype = MEST_F32, .shape = vector};
    mest_id pair[2] = {mest_graph_const(a->graph, NULL, &type, zeros), bias};
    MEST_CHECK(pair[0] != MEST_NONE, a->err, MEST_E_NOMEM, "pass: out of memory");
    if (shape_of(a->graph, bias)->rank != 1)
        MEST_TRY(reshape(a, at, bias, &vector, &pair[1]));
    MEST_TRY(mest_insert(a, at, "Concat", axis, 2, pair, b));
    return reshape(a, at, *b, &both, b);
}

/* Puts the layer in front of the first step. */
static mest_status layer(mest_pass_args *a, chain *c)
{
    mest_graph *g = a->graph;
    const step *s = c->s;
    const mest_id at = s->node;
    const mest_shape state = {.rank = 3, .dim = {1, c->n, c->h}};
    mest_id in[MEST_RECUR_N_IN - 1] = {c->flip != MEST_NONE ? c->flip : c->p, c->r, MEST_NONE, MEST_NONE, MEST_NONE}, out[2];
    if (!c->trans_b) {
        mest_transpose_params *swap = mest_pass_alloc(a, sizeof *swap);
        if (!swap)
            return MEST_E_NOMEM;
        MEST_TRY(mest_insert(a, at, "Transpose", swap, 1, &c->r, &in[MEST_RECUR_R]));
    }
    if (s->bias != MEST_NONE)
        MEST_TRY(make_bias(a, at, s->bias, c->h, &in[MEST_RECUR_B]));
    if (s->state != MEST_NONE && !all_zero(g, s->state))
        MEST_TRY(reshape(a, at, s->state, &state, &in[MEST_RECUR_H0]));
    mest_recurrent_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    *p = (mest_recurrent_params){.kind = MEST_RNN, .reverse = c->back != (c->flip != MEST_NONE), .relu = s->relu};
    MEST_TRY(mest_insert_many(a, at, "mest.Recurrent", p, MEST_RECUR_N_IN - 1, in, 2, out));
    c->y = out[1];
    return MEST_OK;
}

/* Does node n put all steps together, in their order, along axis 0? */
static bool gathers(const mest_graph *g, const mest_node *n, const chain *c)
{
    if (!mest_is_op(n, "Concat") || n->n_in != c->t || ((const mest_axis_params *)n->params)->axis != 0)
        return false;
    for (int64_t k = 0; k < c->t; k++)
        if (behind_views(g, n->in[k]) != g->nodes[c->s[k].node].out[0])
            return false;
    return true;
}

static mest_status as_view(mest_pass_args *a, mest_id node, mest_id v)
{
    mest_shape_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    p->shape = *shape_of(a->graph, a->graph->nodes[node].out[0]);
    MEST_TRY(mest_rewrite(a, node, "mest.Reshape", p, 1, &v, 1, true));
    a->count--;
    return MEST_OK;
}

/* What read the steps together reads Y. Steps run in time unless P is read backwards or flipped. */
static mest_status join(mest_pass_args *a, const chain *c, mest_id n_nodes)
{
    mest_graph *g = a->graph;
    const bool reversed = c->back != (c->flip != MEST_NONE);
    for (mest_id i = c->s[0].node + 1; i < n_nodes; i++) {
        if (!gathers(g, &g->nodes[i], c))
            continue;
        mest_id y = c->y;
        const mest_id next = reversed ? mest_only_reader(a, g->nodes[i].out[0]) : MEST_NONE;
        if (next != MEST_NONE && flipped(g, g->nodes[next].out[0]) == g->nodes[i].out[0]) { /* turned round again: as it lies */
            MEST_TRY(as_view(a, next, y));
            continue;
        }
        if (reversed)
            MEST_TRY(cut(a, i, y, -1, -c->t - 1, -1, &y));
        MEST_TRY(as_view(a, i, y));
    }
    return MEST_OK;
}

static mest_status rewrite(mest_pass_args *a, chain *c, mest_id n_nodes)
{
    MEST_TRY(layer(a, c));
    MEST_TRY(join(a, c, n_nodes));
    const bool reversed = c->back != (c->flip != MEST_NONE);
    for (int64_t k = 0; k < c->t; k++) {
        mest_id y;
        const int64_t t = reversed ? c->t - 1 - k : k;
        MEST_TRY(cut(a, c->s[k].node, c->y, t, t + 1, 1, &y));
        MEST_TRY(as_view(a, c->s[k].node, y));
        mest_take(a->graph, a->graph->nodes[c->s[k].node].out[0]);
    }
    a->count++;
    return MEST_OK;
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    const mest_id n_nodes = g->n_nodes;
    int32_t n = 0, count = 0;
    step s, *steps;
    for (mest_id i = 0; i < n_nodes; i++)
        count += parse(a, i, &s);
    if (count < 2)
        return MEST_OK;
    steps = mest_pass_alloc(a, (size_t)count * sizeof *steps);
    if (!steps)
        return MEST_E_NOMEM;
    for (mest_id i = 0; i < n_nodes; i++)
        if (parse(a, i, &s))
            steps[n++] = s;
    for (int32_t i = 0; i < n;) {
        chain c;
        if (!find(g, steps, n, i, &c)) {
            i++;
            continue;
        }
        MEST_TRY(rewrite(a, &c, n_nodes));
        i += (int32_t)c.t;
    }
    return MEST_OK;
}

const mest_pass mest_pass_unrolled = {"unrolled", "a recurrent layer written out step by step is one RNN", MEST_PASS_FORWARD, MEST_FOR_ALL, false, run};
