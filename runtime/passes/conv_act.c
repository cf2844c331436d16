/* SPDX-License-Identifier: Apache-2.0 */
/* A convolution does the activation behind it, in evaluation and inference. */
#include "ops/nn.h"
#include "runtime/match.h"

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        const bool affine = mest_is_op(n, "mest.ConvAffine") || mest_is_op(n, "mest.ConvTransposeAffine");
        const bool transposed = mest_is_op(n, "ConvTranspose") || mest_is_op(n, "mest.ConvTransposeAffine");
        const mest_conv_affine_params *old = affine ? n->params : NULL;
        if (mest_taken(n) || (!affine && !transposed && !mest_is_op(n, "Conv")) || (old && (old->clamp.on || old->act.kind)))
            continue;
        mest_clamp clamp;
        mest_act act;
        const mest_id next = mest_only_reader(a, n->out[0]);
        const bool cuts = next != MEST_NONE && mest_match_clamp(g, &g->nodes[next], &clamp);
        if (next == MEST_NONE || (!cuts && !mest_match_act(g, &g->nodes[next], &act)))
            continue;
        mest_conv_affine_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        if (old)
            *p = *old;
        else
            p->conv = *(const mest_conv_params *)n->params;
        if (cuts)
            p->clamp = clamp;
        else
            p->act = act;
        MEST_TRY(mest_rewrite(a, i, transposed ? "mest.ConvTransposeAffine" : "mest.ConvAffine", p, n->n_in, n->in, 1, true));
        mest_absorb(a, i, next);
        a->count--; /* one thing was done, in two steps */
    }
    return MEST_OK;
}

const mest_pass mest_pass_conv_act = {"conv_act", "Conv does the activation behind it", MEST_PASS_FORWARD, MEST_FOR_EVAL | MEST_FOR_INFER, false, run};
