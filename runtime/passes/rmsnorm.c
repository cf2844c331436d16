/* SPDX-License-Identifier: Apache-2.0 */
/* RMSNorm written out becomes RMSNormalization: y = x / sqrt(mean(x^2) + epsilon) [* scale], the forms as in layernorm. */
#include "ops/nn.h"
#include "runtime/match.h"

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        int axis;
        double epsilon;
        mest_id x;
        if (!mest_is_op(&g->nodes[i], "Div") && !mest_is_op(&g->nodes[i], "Mul"))
            continue;
        mest_id mean = mest_match_over_root(g, g->nodes[i].out[0], &x, &epsilon);
        if (mean == MEST_NONE || mest_match_square(g, mest_match_mean(g, mean, &axis)) != x)
            continue;
        mest_id last = i, in[2] = {x, MEST_NONE};
        MEST_TRY(mest_match_affine(a, &last, &g->values[x].type.shape, axis, &in[1], NULL));
        mest_norm_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        *p = (mest_norm_params){.axis = axis, .epsilon = epsilon, .stash_type = 1};
        MEST_TRY(mest_rewrite(a, last, "RMSNormalization", p, 2, in, 1, true));
    }
    return MEST_OK;
}

const mest_pass mest_pass_rmsnorm = {"rmsnorm", "RMSNorm written out is one RMSNormalization", MEST_PASS_FORWARD, MEST_FOR_ALL, false, run};
