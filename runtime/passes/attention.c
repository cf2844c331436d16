/* SPDX-License-Identifier: Apache-2.0 */
/* Scaled dot-product attention written out becomes mest.Attention, which never holds an S x T array:
 *
 *     MatMul(Softmax(scale * MatMul(Q, K^T) + mask), V)
 *
 * scale: products with or divisions by constants of Q, of K^T or of the scores. mask: an Add of a float (or two), or a Where whose other branch
 * is a constant. K^T: a Transpose of K, also between views. Behind the Softmax: Dropout, which the node does itself with the same random
 * numbers, and the Where that PyTorch puts there against rows that see nothing. Three axes are one head. */
#include "ops/elements.h"
#include "ops/nn.h"
#include "runtime/match.h"

typedef struct found {
    mest_id q, kt, v;              /* kt: K transposed, as the product reads it */
    mest_id add[2];                /* float masks */
    mest_id seen;                  /* bool mask, or MEST_NONE */
    bool invert;                   /* seen is true where nothing is seen */
    double fill, scale;
    const mest_dropout_params *dropout;
} found;

/* v is the product of one value and constants: that value. */
static mest_id scaled(const mest_pass_args *a, mest_id v, double *scale)
{
    mest_factors f;
    if (!mest_factorise(a, v, &f) || f.n != 1)
        return v;
    *scale *= f.scale;
    return f.v[0];
}

/* Behind the Softmax: Dropout and Where(IsNaN(p), 0, p), in any order. */
static const mest_node *softmax_of(const mest_pass_args *a, mest_id p, found *f)
{
    const mest_graph *g = a->graph;
    for (int step = 0; step < 3; step++) {
        const mest_node *softmax = mest_match_once(a, p, "Softmax"), *drop = mest_match_once(a, p, "mest.DropoutTrain"), *where = mest_match_once(a, p, "Where");
        if (drop && !f->dropout) {
            f->dropout = drop->params;
            p = drop->in[0];
            continue;
        }
        double zero;
        const mest_node *nan = where ? mest_match(g, where->in[0], "IsNaN") : NULL;
        if (nan && nan->in[0] == where->in[2] && mest_scalar(g, where->in[1], &zero) && zero == 0) {
            softmax = mest_match(g, where->in[2], "Softmax"); /* read by both */
            if (softmax && a->uses[softmax->out[0]] == 2)
                return softmax;
            if ((drop = mest_match(g, where->in[2], "mest.DropoutTrain")) && !f->dropout && a->uses[drop->out[0]] == 2) {
                f->dropout = drop->params;
                return mest_match_once(a, drop->in[0], "Softmax");
            }
            return NULL;
        }
        return softmax;
    }
    return NULL;
}

/* Scores: masks, scale, product. */
static bool scores_of(const mest_pass_args *a, mest_id x, found *f)
{
    const mest_graph *g = a->graph;
    for (int step = 0; step < 4; step++) {
        const mest_node *add = mest_match_once(a, x, "Add"), *where = mest_match_once(a, x, "Where");
        double c;
        if (where && f->seen == MEST_NONE && f->add[0] == MEST_NONE) { /* the last thing that happens to the scores */
            const bool first = mest_scalar(g, where->in[1], &c), second = !first && mest_scalar(g, where->in[2], &c);
            if (!first && !second)
                return false;
            f->seen = where->in[0];
            f->invert = first;
            f->fill = c;
            x = where->in[first ? 2 : 1];
            continue;
        }
        if (add) {
            /* the operand that a product makes is the scores, the other one the mask */
            int k = -1;
            for (int i = 0; i < 2; i++) {
                double any = 1;
                mest_id s = scaled(a, add->in[i], &any);
                if (mest_match_once(a, s, "MatMul") || mest_match_once(a, add->in[i], "Add"))
                    k = k < 0 ? i : k;
            }
            const int free = f->add[0] == MEST_NONE ? 0 : 1;
            if (k < 0 || f->seen != MEST_NONE || f->add[free] != MEST_NONE)
                return false;
            f->add[free] = add->in[1 - k];
            x = add->in[k];
            continue;
        }
        break;
    }
    x = scaled(a, x, &f->scale);
    const mest_node *product = mest_match_once(a, x, "MatMul");
    if (!product)
        return false;
    f->q = scaled(a, product->in[0], &f->scale);
    f->kt = scaled(a, product->in[1], &f->scale);
    return true;
}

static bool swaps_last(const mest_node *transpose, int rank)
{
    const mest_ints *perm = &((const mest_transpose_params *)transpose->params)->perm;
    for (int i = 0; i < rank; i++)
        if (perm->n != rank || perm->v[i] != (i < rank - 2 ? i : 2 * rank - 3 - i))
            return false;
    return rank >= 2;
}

/* K from K^T: in front of the Transpose, or by one more. `at`: the node that will read it. */
static mest_status keys(mest_pass_args *a, mest_id at, mest_id kt, mest_id *k)
{
    mest_graph *g = a->graph;
    const mest_node *t = mest_match(g, kt, "Transpose");
    const mest_shape *want = &g->values[kt].type.shape;
    const int rank = want->rank;
    if (t && swaps_last(t, rank)) {
        *k = t->in[0];
        return MEST_OK;
    }
    /* view of (a Transpose of the last two axes of (a view of K)) */
    const mest_node *outer = NULL;
    for (int v = 0; v < 2 && !outer; v++)
        outer = mest_match(g, kt, v ? "Reshape" : "mest.Reshape");
    const mest_node *middle = outer ? mest_match(g, outer->in[0], "Transpose") : NULL;
    if (middle && swaps_last(middle, g->values[outer->in[0]].type.shape.rank)) {
        const mest_node *inner = mest_match(g, middle->in[0], "Reshape");
        mest_id base = inner ? inner->in[0] : middle->in[0];
        const mest_shape *s = &g->values[base].type.shape, *m = &g->values[middle->in[0]].type.shape;
        bool same = s->rank == rank;
        for (int i = 0; i < rank && same; i++)
            same = s->dim[i] == want->dim[i < rank - 2 ? i : 2 * rank - 3 - i];
        if (same && m->dim[m->rank - 1] == s->dim[rank - 1] && m->dim[m->rank - 2] == s->dim[rank - 2]) {
            *k = base;
            return MEST_OK;
        }
    }
    /* another permutation, or none: two axes more or less */
    int64_t *v = mest_pass_alloc(a, (size_t)rank * sizeof *v);
    mest_transpose_params *p = mest_pass_alloc(a, sizeof *p);
    if (!v || !p)
        return MEST_E_NOMEM;
    const mest_ints *old = t ? &((const mest_transpose_params *)t->params)->perm : NULL;
    const bool compose = old && old->n == rank;
    for (int i = 0; i < rank; i++) {
        const int from = i < rank - 2 ? i : 2 * rank - 3 - i;
        v[i] = compose ? old->v[from] : from;
    }
    p->perm = (mest_ints){rank, v};
    mest_id in = compose ? t->in[0] : kt;
    return mest_insert(a, at, "Transpose", p, 1, &in, k);
}

/* A mask over [B,S,T] scores as one over [B,1,S,T]. */
static mest_status with_heads(mest_pass_args *a, mest_id at, mest_id *mask)
{
    const mest_shape *s = &a->graph->values[*mask].type.shape;
    if (s->rank != 3)
        return MEST_OK;
    mest_shape_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    p->shape = (mest_shape){.rank = 4, .dim = {s->dim[0], 1, s->dim[1], s->dim[2]}};
    return mest_insert(a, at, "mest.Reshape", p, 1, mask, mask);
}

static bool same_shape(const mest_graph *g, const found *f, const mest_shape *scores)
{
    const mest_shape *q = &g->values[f->q].type.shape, *kt = &g->values[f->kt].type.shape, *v = &g->values[f->v].type.shape;
    const int rank = q->rank;
    if ((rank != 3 && rank != 4) || kt->rank != rank || v->rank != rank || scores->rank != rank)
        return false;
    for (int i = 0; i < rank - 2; i++)
        if (q->dim[i] != kt->dim[i] || q->dim[i] != v->dim[i] || q->dim[i] != scores->dim[i])
            return false;
    if (q->dim[rank - 2] != scores->dim[rank - 2] || kt->dim[rank - 1] != scores->dim[rank - 1])
        return false; /* a mask made them larger */
    for (int i = 0; i < 3; i++) {
        mest_id m = i < 2 ? f->add[i] : f->seen;
        mest_shape all;
        if (m != MEST_NONE && (g->values[m].type.dtype != (i < 2 ? MEST_F32 : MEST_BOOL) || !mest_shape_broadcast(scores, &g->values[m].type.shape, &all) ||
                               !mest_shape_equal(&all, scores)))
            return false;
    }
    return true;
}

static bool last_axis(const mest_graph *g, const mest_node *softmax)
{
    const mest_softmax_params *p = softmax->params;
    const int rank = g->values[softmax->in[0]].type.shape.rank;
    return mest_axis(p->axis, rank) == rank - 1;
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    const mest_id n_nodes = g->n_nodes;
    for (mest_id i = 0; i < n_nodes; i++) {
        found f = {.add = {MEST_NONE, MEST_NONE}, .seen = MEST_NONE, .scale = 1};
        const mest_node *n = &g->nodes[i];
        const mest_node *softmax = mest_is_op(n, "MatMul") && !mest_taken(n) ? softmax_of(a, n->in[0], &f) : NULL;
        if (!softmax || !last_axis(g, softmax) || !scores_of(a, softmax->in[0], &f))
            continue;
        f.v = n->in[1];
        const mest_shape scores = g->values[softmax->in[0]].type.shape;
        if (!same_shape(g, &f, &scores) || f.scale == 0)
            continue;
        mest_attention_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        *p = (mest_attention_params){.scale = f.scale, .q_heads = scores.rank == 3, .kv_heads = scores.rank == 3, .mask_invert = f.invert, .fills = f.seen != MEST_NONE,
                                     .fill = f.fill};
        if (f.dropout)
            p->dropout = *f.dropout;
        mest_id in[4] = {f.q, MEST_NONE, f.v, f.seen != MEST_NONE ? f.seen : f.add[0]};
        MEST_TRY(keys(a, i, f.kt, &in[1]));
        if (f.add[1] != MEST_NONE) {
            mest_id masks[2] = {f.add[0], f.add[1]};
            MEST_TRY(mest_insert(a, i, "Add", NULL, 2, masks, &in[3]));
        }
        if (in[3] != MEST_NONE && scores.rank == 3)
            MEST_TRY(with_heads(a, i, &in[3]));
        mest_take(g, softmax->out[0]);
        MEST_TRY(mest_rewrite(a, i, "mest.Attention", p, in[3] == MEST_NONE ? 3 : 4, in, 1, false));
        MEST_TRY(mest_prepend_output(a, i));
    }
    return MEST_OK;
}

const mest_pass mest_pass_attention = {"attention", "attention written out is one node that keeps no scores", MEST_PASS_FORWARD, MEST_FOR_ALL, false, run};
