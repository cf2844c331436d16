/* SPDX-License-Identifier: Apache-2.0 */
/* A convolution in the batch-lane layout takes the statistics of its result while that is in cache, for the BatchNormalization behind it: one
 * pass over the activations less. */
#include "ops/nn.h"
#include "runtime/refit.h"

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        if (!mest_is_op(n, "mest.BatchNormTrain") || n->n_in > 5 || !mest_in_lanes(g, n->in[0]) || !mest_match(g, n->in[0], "Conv"))
            continue;
        mest_refit conv = mest_refit_of(a, g->values[n->in[0]].producer), norm = mest_refit_of(a, i);
        mest_fused_conv_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        p->conv = *(const mest_conv_params *)conv.params;
        conv.op = "mest.FusedConv";
        conv.params = p;
        conv.n_in = 4;
        conv.n_out = 2;
        conv.out[1] = MEST_REFIT_NEW;
        if (!mest_refit_fits(a, &conv))
            continue;
        MEST_TRY(mest_refit_do(a, &conv));
        norm.n_in = 6;
        norm.in[5] = conv.out[1];
        MEST_TRY(mest_refit_do(a, &norm));
        MEST_TRY(mest_pass_settle(a, &i));
        a->count++;
    }
    return MEST_OK;
}

const mest_pass mest_pass_conv_moments = {"conv_moments", "Conv takes the statistics for the BatchNormalization behind it", MEST_PASS_KERNELS, MEST_FOR_TRAIN,
                                          false, run};
