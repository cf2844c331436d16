/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions in the batch-lane layout that apply the BatchNormalization (and its activation) in front of them as they read: its result never
 * exists, neither forward nor for the gradient of the weights. Only where every reader can do so. */
#include "ops/nn.h"
#include "runtime/refit.h"

enum { X = 0, MAP = 3, CONV_INPUTS = 4, GRAD_INPUTS = 9, READERS = 32 };

/* The node, reading X through the map; false: it reads v in another way or has no kernel for that. */
static mest_status reads_map(mest_pass_args *a, mest_id node, const mest_node *norm, mest_refit *r, bool *can)
{
    const mest_graph *g = a->graph;
    const mest_node *n = &g->nodes[node];
    const mest_clamp clamp = ((const mest_bn_params *)norm->params)->clamp;
    const bool fused = mest_is_op(n, "mest.FusedConv") || mest_is_op(n, "mest.FusedConvGrad");
    const bool gradient = mest_is_op(n, "mest.ConvGrad") || mest_is_op(n, "mest.FusedConvGrad");
    *can = fused || gradient || mest_is_op(n, "Conv");
    for (int k = 0; k < n->n_in; k++)
        *can &= (n->in[k] == norm->out[0]) == (k == X);
    if (!*can)
        return MEST_OK;
    mest_fused_conv_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    if (fused)
        *p = *(const mest_fused_conv_params *)n->params;
    else
        p->conv = *(const mest_conv_params *)n->params;
    *can = !p->gate || (clamp.on && p->clamp.lo == clamp.lo && p->clamp.hi == clamp.hi);
    p->clamp = clamp;
    *r = mest_refit_of(a, node);
    r->op = gradient ? "mest.FusedConvGrad" : "mest.FusedConv";
    r->params = p;
    r->n_in = gradient ? GRAD_INPUTS : CONV_INPUTS;
    r->in[X] = norm->in[0];
    r->in[MAP] = norm->out[3];
    *can = *can && mest_refit_fits(a, r);
    return MEST_OK;
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        const mest_id y = n->out[0];
        if (!mest_is_op(n, "mest.BatchNormTrain") || !mest_in_lanes(g, y) || n->n_out < 4 || n->out[3] == MEST_NONE ||
            ((const mest_bn_params *)n->params)->act.kind) /* readers can cut off, and that alone */
            continue;
        mest_refit readers[READERS];
        int found = 0;
        bool can = true;
        for (mest_id k = 0; k < g->n_nodes && can; k++) {
            bool reads = false;
            for (int j = 0; j < g->nodes[k].n_in; j++)
                reads |= g->nodes[k].in[j] == y;
            if (!reads)
                continue;
            if (found == READERS)
                can = false;
            else
                MEST_TRY(reads_map(a, k, n, &readers[found++], &can));
        }
        for (int k = 0; k < g->n_outputs; k++)
            can &= g->outputs[k] != y;
        mest_refit norm = mest_refit_of(a, i);
        norm.out[0] = MEST_NONE;
        if (!can || found == 0 || !mest_refit_fits(a, &norm))
            continue;
        for (int k = 0; k < found; k++)
            MEST_TRY(mest_refit_do(a, &readers[k]));
        MEST_TRY(mest_refit_do(a, &norm));
        MEST_TRY(mest_pass_settle(a, &i));
        a->count++;
    }
    return MEST_OK;
}

const mest_pass mest_pass_bn_load = {"bn_load", "Conv applies the BatchNormalization in front of it as it reads", MEST_PASS_KERNELS, MEST_FOR_TRAIN, false, run};
