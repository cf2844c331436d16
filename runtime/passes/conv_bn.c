/* SPDX-License-Identifier: Apache-2.0 */
/* A convolution applies the BatchNormalization behind it, activation included, while its result is at hand: in evaluation and inference that
 * is one factor and one shift a channel. They are computed from the statistics in each run; weights are not touched, so sparse ones stay
 * sparse and versions of a model can be published as they are. */
#include "ops/nn.h"
#include "runtime/match.h"

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        if (!mest_is_op(&g->nodes[i], "BatchNormalization"))
            continue;
        const mest_node *conv = mest_match_once(a, g->nodes[i].in[0], "Conv");
        const bool transposed = !conv;
        if (transposed)
            conv = mest_match_once(a, g->nodes[i].in[0], "ConvTranspose");
        if (!conv)
            continue;
        const mest_bn_params *bn = g->nodes[i].params;
        mest_conv_affine_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        *p = (mest_conv_affine_params){.conv = *(const mest_conv_params *)conv->params, .clamp = bn->clamp, .act = bn->act};
        const mest_id y = g->nodes[i].in[0], x = conv->in[0], w = conv->in[1], bias = conv->n_in > 2 ? conv->in[2] : MEST_NONE;
        const mest_id *norm = g->nodes[i].in;
        mest_id fold[5] = {norm[1], norm[2], norm[3], norm[4], bias}, made[2];
        MEST_TRY(mest_insert_many(a, i, "mest.BatchNormFold", bn, bias == MEST_NONE ? 4 : 5, fold, 2, made));
        mest_id in[4] = {x, w, made[1], made[0]};
        mest_take(g, y);
        MEST_TRY(mest_rewrite(a, i, transposed ? "mest.ConvTransposeAffine" : "mest.ConvAffine", p, 4, in, 1, true));
    }
    return MEST_OK;
}

const mest_pass mest_pass_conv_bn = {"conv_bn", "Conv applies the BatchNormalization behind it", MEST_PASS_FORWARD, MEST_FOR_EVAL | MEST_FOR_INFER, false,
                                     run};
