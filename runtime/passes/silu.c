/* SPDX-License-Identifier: Apache-2.0 */
/* x * Sigmoid(x), as exporters write SiLU, becomes Swish. Its gradient needs x only: the sigmoid is not kept. */
#include "ops/elements.h"
#include "runtime/match.h"

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        if (!mest_is_op(n, "Mul"))
            continue;
        for (int k = 0; k < 2; k++) {
            const mest_node *sigmoid = mest_match_once(a, n->in[k], "Sigmoid");
            mest_id x = n->in[1 - k];
            if (!sigmoid || sigmoid->in[0] != x)
                continue;
            mest_alpha_params *p = mest_pass_alloc(a, sizeof *p);
            if (!p)
                return MEST_E_NOMEM;
            p->alpha = 1;
            mest_take(g, n->in[k]);
            MEST_TRY(mest_rewrite(a, i, "Swish", p, 1, &x, 1, true));
            break;
        }
    }
    return MEST_OK;
}

const mest_pass mest_pass_silu = {"silu", "x * Sigmoid(x) is one Swish", MEST_PASS_FORWARD, MEST_FOR_ALL, false, run};
