/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of convolutions in the batch-lane layout with what lies around them:
 *   in front   the gradient of the BatchNormalization behind the layer is made from its map while dY is read: it never exists
 *   behind     the gradient that comes by another branch is added, the gate of the activation applied and the sums taken that the
 *              BatchNormalization in front of the layer needs, while the row is in cache
 * So dX is written once, behind the activation, and read once. */
#include <math.h>

#include "ops/nn.h"
#include "runtime/refit.h"

enum { X = 0, DY = 2, MAP = 3, V = 4, DMAP = 5, D = 6, U = 7, MEAN = 8, INPUTS = 9, SUMS = 3 };

typedef struct change {
    mest_refit conv, behind, front; /* behind, front: BatchNormGrad nodes; op NULL: none */
    mest_fused_conv_params params;
    mest_id place;                  /* of the node, in the order of execution */
} change;

/* dY from the BatchNormGrad that makes it for this node alone. */
static bool take_map(mest_pass_args *a, change *c)
{
    const mest_graph *g = a->graph;
    const mest_id dy = c->conv.in[DY];
    const mest_node *n = mest_read_once(a, dy) ? mest_match(g, dy, "mest.BatchNormGrad") : NULL;
    if (!n || n->out[0] != dy || !mest_in_lanes(g, n->in[0]))
        return false;
    c->behind = mest_refit_of(a, g->values[dy].producer);
    const mest_bn_params *p = n->params;
    const bool gated = p->clamp.on && !(n->n_in > 6 && n->in[6] != MEST_NONE);
    c->behind.n_out = gated ? 5 : 4;
    c->behind.out[0] = MEST_NONE;
    c->behind.out[3] = MEST_REFIT_NEW;
    if (gated) {
        c->behind.out[4] = MEST_REFIT_NEW;
        c->behind.like[4] = 4;
    }
    c->conv.in[DY] = n->in[4];
    c->conv.in[V] = n->in[0];
    return mest_refit_fits(a, &c->behind);
}

static bool before(const mest_graph *g, mest_id v, mest_id node) { return g->values[v].producer == MEST_NONE || g->values[v].producer < node; }

/* The node of operator `op` whose input `slot` is v; MEST_NONE: none, or more than one. */
static mest_id reader(const mest_graph *g, mest_id v, const char *op, int slot)
{
    mest_id found = MEST_NONE;
    for (mest_id i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].n_in > slot && g->nodes[i].in[slot] == v && mest_is_op(&g->nodes[i], op)) {
            if (found != MEST_NONE)
                return MEST_NONE;
            found = i;
        }
    return found;
}

static bool same(const mest_clamp *a, const mest_clamp *b) { return a->on == b->on && a->lo == b->lo && a->hi == b->hi; }

/* What happens to dX: an addend, a gate by X, sums. */
static void take_result(mest_pass_args *a, change *c)
{
    const mest_graph *g = a->graph;
    mest_id r = c->conv.out[0], next = mest_only_reader(a, r);
    if (r == MEST_NONE)
        return;
    if (next != MEST_NONE && mest_is_op(&g->nodes[next], "mest.AddN") && g->nodes[next].n_in == 2) {
        const mest_node *n = &g->nodes[next];
        const mest_id other = n->in[n->in[0] == r];
        if (other != r && before(g, other, c->place) && mest_in_lanes(g, other)) {
            c->conv.in[D] = other;
            r = n->out[0];
            next = mest_only_reader(a, r);
        }
    }
    if (next != MEST_NONE && (mest_is_op(&g->nodes[next], "mest.ReluGrad") || mest_is_op(&g->nodes[next], "mest.ClipGrad")) &&
        g->nodes[next].in[0] == c->conv.in[X] && g->nodes[next].in[1] == r) {
        const mest_node *n = &g->nodes[next];
        double lo = 0, hi = (double)INFINITY;
        bool known = true;
        if (mest_is_op(n, "mest.ClipGrad")) {
            lo = -hi;
            known = (n->n_in < 3 || n->in[2] == MEST_NONE || mest_scalar(g, n->in[2], &lo)) && (n->n_in < 4 || n->in[3] == MEST_NONE || mest_scalar(g, n->in[3], &hi));
        }
        const mest_clamp gate = {.on = true, .lo = (mest_real)lo, .hi = (mest_real)hi};
        if (known && (!c->params.clamp.on || same(&gate, &c->params.clamp))) {
            c->params.clamp = gate;
            c->params.gate = true;
            r = n->out[0];
            next = mest_only_reader(a, r);
        }
    }
    c->conv.out[0] = r;
    const mest_id norm = reader(g, r, "mest.BatchNormGrad", 4);
    if (norm == MEST_NONE || norm <= c->place || !mest_in_lanes(g, g->nodes[norm].in[0]))
        return;
    const mest_node *n = &g->nodes[norm];
    const mest_bn_params *p = n->params;
    if ((n->n_in > 6 && n->in[6] != MEST_NONE) || !before(g, n->in[0], c->place)) /* a conversion may stand just before the normalization */
        return;
    if (p->clamp.on) { /* the gate that the normalization would apply goes here */
        if (c->params.gate || next != norm || n->in[5] != c->conv.in[X] || (c->params.clamp.on && !same(&p->clamp, &c->params.clamp)))
            return;
        c->params.clamp = p->clamp;
        c->params.gate = true;
    }
    c->front = mest_refit_of(a, norm);
    c->front.n_in = 7;
    c->front.in[5] = MEST_NONE;
    c->conv.in[U] = n->in[0];
    c->conv.in[MEAN] = n->in[2];
    c->conv.n_out = 4;
    c->conv.out[SUMS] = MEST_REFIT_NEW;
}

/* The same node with the gradient map given by a value that stands for the one to come: does it have a kernel? */
static bool fits(mest_pass_args *a, const change *c)
{
    change t = *c;
    if (t.behind.op) { /* any map of the right shape will do for the question */
        mest_type map = {.dtype = MEST_F32, .shape = {.rank = 2, .dim = {4, a->graph->values[t.conv.in[V]].type.shape.dim[1]}}};
        t.conv.in[DMAP] = mest_graph_value(a->graph, NULL, MEST_VALUE_RESULT, &map);
        if (t.conv.in[DMAP] == MEST_NONE)
            return false;
    }
    t.conv.params = &t.params;
    return mest_refit_fits(a, &t.conv);
}

static mest_status apply(mest_pass_args *a, change *c, mest_id *at)
{
    if (c->behind.op) {
        MEST_TRY(mest_refit_do(a, &c->behind));
        c->conv.in[DMAP] = c->behind.out[3];
        if (c->behind.n_out > 4)
            c->conv.in[DY] = c->behind.out[4];
    }
    mest_fused_conv_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    *p = c->params;
    c->conv.params = p;
    MEST_TRY(mest_refit_do(a, &c->conv));
    if (c->front.op) {
        c->front.in[6] = c->conv.out[SUMS];
        MEST_TRY(mest_refit_do(a, &c->front));
    }
    a->count++;
    return mest_pass_settle(a, at);
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        if (!mest_is_op(n, "mest.ConvGrad") || !mest_in_lanes(g, n->in[0]))
            continue;
        change none = {.conv = mest_refit_of(a, i), .place = i};
        none.params.conv = *(const mest_conv_params *)n->params;
        none.conv.op = "mest.FusedConvGrad";
        none.conv.n_in = INPUTS;
        change map = none;
        const bool reads = take_map(a, &map);
        change all = reads ? map : none;
        take_result(a, &all);
        const bool ends = all.conv.in[D] != MEST_NONE || all.params.gate || all.front.op;
        change result = none;
        take_result(a, &result);
        if ((reads || ends) && fits(a, &all))
            MEST_TRY(apply(a, &all, &i));
        else if (reads && ends && fits(a, &map))
            MEST_TRY(apply(a, &map, &i));
        else if (reads && ends && fits(a, &result))
            MEST_TRY(apply(a, &result, &i));
    }
    return MEST_OK;
}

const mest_pass mest_pass_conv_grad = {"conv_grad", "gradients of Conv read and write through what lies around them", MEST_PASS_KERNELS, MEST_FOR_TRAIN, false,
                                       run};
