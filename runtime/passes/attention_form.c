/* SPDX-License-Identifier: Apache-2.0 */
/* What of ONNX's Attention mest.Attention does not know (ops/attention_onnx.c): keys and values of the past are Concat, lengths and windows are
 * bool masks; softcap, or the scores as a result, write the whole of it out in MatMul, Softmax and the like. A row that sees nothing is 0. */
#include <float.h>
#include <math.h>

#include "ops/attention.h"
#include "ops/elements.h"
#include "ops/nn.h"
#include "runtime/compose.h"
#include "runtime/survey.h"

typedef struct work {
    mest_pass_args *a;
    mest_id at;
    const mest_attention_file *p;
    mest_attention t;               /* sizes, without the past */
    int64_t past, steps;            /* steps of the past; of all keys */
    mest_id q, k, v, mask, lengths; /* MEST_NONE: not given */
    mest_id allow;                  /* bool, broadcasts to the scores; MEST_NONE: all */
    mest_id out[4];                 /* MEST_NONE: not wanted */
    bool flat;                      /* Q, K, V have three axes */
} work;

static const mest_type *type_of(const work *w, mest_id v) { return &w->a->graph->values[v].type; }

static mest_id input(const mest_node *n, int i) { return i < n->n_in ? n->in[i] : MEST_NONE; }

/* [B,T,H*E] to [B,H,T,E] */
static mest_status split_heads(work *w, int64_t heads, mest_id *v)
{
    const mest_shape s = type_of(w, *v)->shape;
    MEST_TRY(mest_compose_reshape(w->a, w->at, &(mest_shape){.rank = 4, .dim = {s.dim[0], s.dim[1], heads, s.dim[2] / heads}}, v));
    return mest_compose_transpose(w->a, w->at, 4, (int64_t[]){0, 2, 1, 3}, v);
}

/* present = past and v, along the steps. */
static mest_status extend(work *w, mest_id past, mest_id *v, mest_id present)
{
    mest_axis_params *p = mest_pass_alloc(w->a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    p->axis = 2;
    if (past != MEST_NONE)
        MEST_TRY(mest_insert(w->a, w->at, "Concat", p, 2, (mest_id[]){past, *v}, v));
    return present == MEST_NONE ? MEST_OK : mest_insert_as(w->a, w->at, "Identity", NULL, 1, v, present);
}

static mest_status also(work *w, mest_id condition)
{
    if (w->allow == MEST_NONE) {
        w->allow = condition;
        return MEST_OK;
    }
    return mest_compose_two(w->a, w->at, "And", w->allow, condition, &w->allow);
}

/* ---- masks ---- */
/* Causal and windows, where what comes before the queries is the same for all of the batch. */
static mest_status allow_places(work *w)
{
    mest_id id;
    uint8_t *allow = mest_compose_bools(w->a, &(mest_shape){.rank = 2, .dim = {w->t.q.steps, w->steps}}, &id);
    if (!allow)
        return MEST_E_NOMEM;
    for (int64_t s = 0; s < w->t.q.steps; s++)
        for (int64_t t = 0; t < w->steps; t++) {
            const int64_t ahead = t - s - w->past;
            *allow++ = (!w->p->run.causal || ahead <= 0) && (w->p->left < 0 || -ahead <= w->p->left) && (w->p->right < 0 || ahead <= w->p->right);
        }
    return also(w, id);
}

/* t - s + more, int64 [S,T] */
static mest_status distances(work *w, int64_t more, mest_id *id)
{
    int64_t *v = mest_pass_alloc(w->a, (size_t)(w->t.q.steps * w->steps + 1) * sizeof *v);
    const mest_type type = {.dtype = MEST_I64, .shape = {.rank = 2, .dim = {w->t.q.steps, w->steps}}};
    if (!v)
        return MEST_E_NOMEM;
    for (int64_t i = 0; i < w->t.q.steps * w->steps; i++)
        v[i] = i % w->steps - i / w->steps + more;
    *id = mest_graph_value(w->a->graph, NULL, MEST_VALUE_CONST, &type);
    if (*id == MEST_NONE)
        return mest_fail(w->a->err, MEST_E_NOMEM, "out of memory");
    w->a->graph->values[*id].data = v;
    return MEST_OK;
}

/* The same with lengths: the queries are the last of each sequence. */
static mest_status allow_lengths(work *w)
{
    const int64_t minus = w->t.q.steps;
    mest_id n = w->lengths, place, offset, v;
    int64_t *t = mest_pass_alloc(w->a, (size_t)(w->steps + 1) * sizeof *t);
    if (!t)
        return MEST_E_NOMEM;
    for (int64_t i = 0; i < w->steps; i++)
        t[i] = i;
    MEST_TRY(mest_compose_reshape(w->a, w->at, &(mest_shape){.rank = 4, .dim = {w->t.batch, 1, 1, 1}}, &n));
    MEST_TRY(mest_compose_ints(w->a, (int)w->steps, t, &place));
    MEST_TRY(mest_compose_two(w->a, w->at, "Less", place, n, &v));
    MEST_TRY(also(w, v));
    MEST_TRY(mest_compose_ints(w->a, 1, &minus, &v));
    MEST_TRY(mest_compose_two(w->a, w->at, "Sub", n, v, &offset));
    if (w->p->run.causal) {
        MEST_TRY(distances(w, 0, &v));
        MEST_TRY(mest_compose_two(w->a, w->at, "LessOrEqual", v, offset, &v));
        MEST_TRY(also(w, v));
    }
    if (w->p->left >= 0) {
        MEST_TRY(distances(w, w->p->left, &v));
        MEST_TRY(mest_compose_two(w->a, w->at, "GreaterOrEqual", v, offset, &v));
        MEST_TRY(also(w, v));
    }
    if (w->p->right >= 0) {
        MEST_TRY(distances(w, -w->p->right, &v));
        MEST_TRY(mest_compose_two(w->a, w->at, "LessOrEqual", v, offset, &v));
        MEST_TRY(also(w, v));
    }
    return MEST_OK;
}

/* A mask that ends before the keys hides the others. */
static mest_status pad_mask(work *w)
{
    const mest_type *type = w->mask == MEST_NONE ? NULL : type_of(w, w->mask);
    const int last = type ? type->shape.rank - 1 : -1;
    if (last < 0 || type->shape.dim[last] == 1 || type->shape.dim[last] == w->steps)
        return MEST_OK;
    mest_shape rest = type->shape;
    mest_id id;
    mest_axis_params *p = mest_pass_alloc(w->a, sizeof *p);
    rest.dim[last] = w->steps - rest.dim[last];
    if (!p)
        return MEST_E_NOMEM;
    p->axis = last;
    if (type->dtype == MEST_BOOL) {
        if (!mest_compose_bools(w->a, &rest, &id)) /* zeroed */
            return MEST_E_NOMEM;
    } else {
        mest_real *v = mest_compose_table(w->a, &rest, &id);
        for (int64_t i = 0, n = mest_shape_span(&rest, 0, rest.rank); v && i < n; i++)
            v[i] = -(mest_real)INFINITY;
        if (!v)
            return MEST_E_NOMEM;
    }
    return mest_insert(w->a, w->at, "Concat", p, 2, (mest_id[]){w->mask, id}, &w->mask);
}

/* Where(allow, v, -inf) */
static mest_status hide(work *w, mest_id *v)
{
    mest_id none;
    MEST_TRY(mest_compose_scalar(w->a, -INFINITY, &none));
    return mest_insert(w->a, w->at, "Where", NULL, 3, (mest_id[]){w->allow, *v, none}, v);
}

/* ---- mest.Attention with other inputs ---- */
static mest_status rewrite_plain(work *w, bool causal)
{
    const mest_shape y = type_of(w, w->out[0])->shape;
    mest_attention_file *p = mest_pass_alloc(w->a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    *p = (mest_attention_file){.run = {.causal = causal, .scale = w->t.scale}, .left = -1, .right = -1};
    if (w->allow != MEST_NONE && w->mask != MEST_NONE) {
        if (type_of(w, w->mask)->dtype == MEST_BOOL) {
            MEST_TRY(also(w, w->mask));
            w->mask = w->allow;
        } else {
            MEST_TRY(hide(w, &w->mask));
        }
    } else if (w->allow != MEST_NONE) {
        w->mask = w->allow;
    }
    const mest_id in[4] = {w->q, w->k, w->v, w->mask};
    mest_id v;
    if (!w->flat)
        return mest_rewrite(w->a, w->at, "Attention", p, 4, in, 1, true);
    mest_shape_params *whole = mest_pass_alloc(w->a, sizeof *whole);
    if (!whole)
        return MEST_E_NOMEM;
    whole->shape = y;
    MEST_TRY(mest_insert(w->a, w->at, "Attention", p, 4, in, &v));
    MEST_TRY(mest_compose_transpose(w->a, w->at, 4, (int64_t[]){0, 2, 1, 3}, &v));
    return mest_rewrite(w->a, w->at, "mest.Reshape", whole, 1, &v, 1, true);
}

/* ---- all of it in other operators ---- */
static mest_status scale_by(work *w, double factor, mest_id *v)
{
    mest_id s;
    MEST_TRY(mest_compose_scalar(w->a, factor, &s));
    return mest_compose_two(w->a, w->at, "Mul", *v, s, v);
}

static mest_status result(work *w, int mode, mest_id v)
{
    return w->out[3] == MEST_NONE || w->p->run.output_mode != mode ? MEST_OK : mest_insert_as(w->a, w->at, "Identity", NULL, 1, &v, w->out[3]);
}

/* Softmax along the last axis; scores of -inf have probability 0, also where a row has no other. */
static mest_status probabilities(work *w, mest_id *v)
{
    mest_softmax_params *p = mest_pass_alloc(w->a, sizeof *p);
    mest_id none, least, zero, seen;
    if (!p)
        return MEST_E_NOMEM;
    p->axis = -1;
    if (w->allow == MEST_NONE && w->mask == MEST_NONE)
        return mest_insert(w->a, w->at, "Softmax", p, 1, v, v);
    MEST_TRY(mest_compose_scalar(w->a, -INFINITY, &none));
    MEST_TRY(mest_compose_scalar(w->a, -FLT_MAX, &least));
    MEST_TRY(mest_compose_scalar(w->a, 0, &zero));
    MEST_TRY(mest_compose_two(w->a, w->at, "Greater", *v, none, &seen));
    MEST_TRY(mest_insert(w->a, w->at, "Where", NULL, 3, (mest_id[]){seen, *v, least}, v));
    MEST_TRY(mest_insert(w->a, w->at, "Softmax", p, 1, v, v));
    return mest_insert(w->a, w->at, "Where", NULL, 3, (mest_id[]){seen, *v, zero}, v);
}

static mest_status write_out(work *w)
{
    const mest_shape y = type_of(w, w->out[0])->shape;
    const int64_t b = w->t.batch, hq = w->t.q.heads, hk = w->t.k.heads, s = w->t.q.steps, rows = w->t.group * s;
    const mest_shape grouped = {.rank = 4, .dim = {b, hk, rows, w->steps}}, whole = {.rank = 4, .dim = {b, hq, s, w->steps}};
    mest_id v = w->q, kt = w->k;
    if (w->p->run.causal && w->lengths == MEST_NONE && w->past == 0 && w->p->left < 0 && w->p->right < 0)
        MEST_TRY(allow_places(w)); /* not there yet: mest.Attention would do it */
    MEST_TRY(mest_compose_transpose(w->a, w->at, 4, (int64_t[]){0, 1, 3, 2}, &kt));
    MEST_TRY(mest_compose_reshape(w->a, w->at, &(mest_shape){.rank = 4, .dim = {b, hk, rows, w->t.q.size}}, &v)); /* heads that share keys: more rows */
    MEST_TRY(mest_compose_two(w->a, w->at, "MatMul", v, kt, &v));
    MEST_TRY(mest_compose_reshape(w->a, w->at, &whole, &v));
    MEST_TRY(scale_by(w, w->t.scale, &v));
    MEST_TRY(result(w, 0, v));
    if (w->p->run.softcap > 0) {
        MEST_TRY(scale_by(w, 1 / w->p->run.softcap, &v));
        MEST_TRY(mest_insert(w->a, w->at, "Tanh", NULL, 1, &v, &v));
        MEST_TRY(scale_by(w, w->p->run.softcap, &v));
    }
    MEST_TRY(result(w, 1, v));
    if (w->mask != MEST_NONE && type_of(w, w->mask)->dtype == MEST_BOOL)
        MEST_TRY(also(w, w->mask));
    else if (w->mask != MEST_NONE)
        MEST_TRY(mest_compose_two(w->a, w->at, "Add", v, w->mask, &v));
    if (w->allow != MEST_NONE)
        MEST_TRY(hide(w, &v));
    MEST_TRY(result(w, 2, v));
    MEST_TRY(probabilities(w, &v));
    MEST_TRY(result(w, 3, v));
    MEST_TRY(mest_compose_reshape(w->a, w->at, &grouped, &v));
    MEST_TRY(mest_compose_two(w->a, w->at, "MatMul", v, w->v, &v));
    if (w->flat) {
        MEST_TRY(mest_compose_reshape(w->a, w->at, &(mest_shape){.rank = 4, .dim = {b, hq, s, w->t.v.size}}, &v));
        MEST_TRY(mest_compose_transpose(w->a, w->at, 4, (int64_t[]){0, 2, 1, 3}, &v));
    }
    mest_shape_params *p = mest_pass_alloc(w->a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    p->shape = y;
    return mest_rewrite(w->a, w->at, "mest.Reshape", p, 1, &v, 1, true);
}

static mest_status lower(mest_pass_args *a, mest_id at)
{
    const mest_graph *g = a->graph;
    const mest_node *n = &g->nodes[at];
    work w = {.a = a, .at = at, .p = n->params, .q = n->in[0], .k = n->in[1], .v = n->in[2], .mask = input(n, MEST_ATTENTION_MASK),
              .lengths = input(n, MEST_ATTENTION_LENGTHS), .allow = MEST_NONE};
    const mest_id past[2] = {input(n, MEST_ATTENTION_PAST_K), input(n, MEST_ATTENTION_PAST_V)};
    for (int i = 0; i < 4; i++)
        w.out[i] = i < n->n_out && n->out[i] != MEST_NONE && (i == 0 || a->uses[n->out[i]] > 0) ? n->out[i] : MEST_NONE;
    const mest_shape *q = &type_of(&w, w.q)->shape;
    MEST_CHECK(mest_attention_sizes(&w.p->run, q, &type_of(&w, w.k)->shape, &type_of(&w, w.v)->shape, &w.t), a->err, MEST_E_INTERNAL, "Attention '%s': sizes", n->name);
    w.past = past[0] == MEST_NONE ? 0 : type_of(&w, past[0])->shape.dim[2];
    w.steps = w.t.k.steps + w.past;
    const bool apart = w.p->run.softcap > 0 || w.out[3] != MEST_NONE, cache = past[0] != MEST_NONE || w.out[1] != MEST_NONE || w.out[2] != MEST_NONE;
    const bool windows = w.p->left >= 0 || w.p->right >= 0, bare = w.lengths == MEST_NONE && !windows && w.past == 0;
    const bool shorter = w.mask != MEST_NONE && type_of(&w, w.mask)->shape.rank > 0 &&
        type_of(&w, w.mask)->shape.dim[type_of(&w, w.mask)->shape.rank - 1] != w.steps && type_of(&w, w.mask)->shape.dim[type_of(&w, w.mask)->shape.rank - 1] != 1;
    if (!apart && !cache && bare && !shorter)
        return MEST_OK; /* mest.Attention does it all */
    if ((w.flat = q->rank == 3)) {
        MEST_TRY(split_heads(&w, w.t.q.heads, &w.q));
        MEST_TRY(split_heads(&w, w.t.k.heads, &w.k));
        MEST_TRY(split_heads(&w, w.t.k.heads, &w.v));
    }
    MEST_TRY(extend(&w, past[0], &w.k, w.out[1]));
    MEST_TRY(extend(&w, past[1], &w.v, w.out[2]));
    MEST_TRY(pad_mask(&w));
    if (w.lengths != MEST_NONE)
        MEST_TRY(allow_lengths(&w));
    else if (windows || (w.p->run.causal && w.past > 0))
        MEST_TRY(allow_places(&w));
    return apart ? write_out(&w) : rewrite_plain(&w, w.p->run.causal && bare);
}

static mest_status run(mest_pass_args *a)
{
    const mest_id n = a->graph->n_nodes;
    for (mest_id i = 0; i < n; i++)
        if (mest_is_op(&a->graph->nodes[i], "Attention"))
            MEST_TRY(mest_survey_forward(a->graph, i, lower(a, i), a->err));
    return MEST_OK;
}

const mest_pass mest_pass_attention_form = {"attention_form", "attention with a past, lengths, windows, softcap or its scores as a result, in other operators", MEST_PASS_FORM,
                                            MEST_FOR_ALL, true, run};
