/* SPDX-License-Identifier: Apache-2.0 */
/* BatchNormalization does the activation behind it. Relu and Clip: a pass over the activations less, forward, and one and a gradient less
 * backward, for it masks dY as it reads it. Others: a pass less forward, and what the activation reads is not kept for its gradient, which makes
 * it again from X. */
#include "ops/nn.h"
#include "runtime/match.h"

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        mest_node *n = &g->nodes[i];
        mest_clamp clamp;
        mest_act act;
        if (!mest_is_op(n, "BatchNormalization") && !mest_is_op(n, "mest.BatchNormTrain"))
            continue;
        const mest_bn_params *old = n->params;
        const mest_id next = old->clamp.on || old->act.kind ? MEST_NONE : mest_only_reader(a, n->out[0]);
        const bool cuts = next != MEST_NONE && mest_match_clamp(g, &g->nodes[next], &clamp);
        if (next == MEST_NONE || (!cuts && !mest_match_act(g, &g->nodes[next], &act)))
            continue;
        mest_bn_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        *p = *old;
        if (cuts)
            p->clamp = clamp;
        else
            p->act = act;
        n->params = p;
        mest_absorb(a, i, next);
    }
    return MEST_OK;
}

const mest_pass mest_pass_bn_act = {"bn_act", "BatchNormalization does the activation behind it", MEST_PASS_FORWARD, MEST_FOR_ALL, false, run};
