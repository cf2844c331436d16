/* SPDX-License-Identifier: Apache-2.0 */
/* LayerNorm written out becomes LayerNormalization:
 *
 *     d = x - mean(x);  y = d / sqrt(mean(d^2) + epsilon) [* scale] [+ bias]
 *
 * means over the last axes; d^2 as Pow or Mul; the division as Div, as Mul by a Reciprocal, or as Mul by Pow(-0.5); x - mean(x) may be
 * computed twice. What is left out gets its neutral value. */
#include "ops/nn.h"
#include "runtime/match.h"

/* v = x - mean(x) over the axes from *axis on: x, or MEST_NONE. */
static mest_id centred(const mest_graph *g, mest_id v, int *axis)
{
    const mest_node *sub = mest_match(g, v, "Sub");
    return sub && mest_match_mean(g, sub->in[1], axis) == sub->in[0] ? sub->in[0] : MEST_NONE;
}

/* v is the normalised value: x, the first axis, epsilon; MEST_NONE if it is not. */
static mest_id normalised(const mest_graph *g, mest_id v, int *axis, double *epsilon)
{
    mest_id d, variance = mest_match_over_root(g, v, &d, epsilon);
    if (variance == MEST_NONE)
        return MEST_NONE;
    int axis_d, axis_v, axis_s;
    mest_id square = mest_match_mean(g, variance, &axis_v), base = mest_match_square(g, square), x = centred(g, d, &axis_d);
    if (base == MEST_NONE || x == MEST_NONE || centred(g, base, &axis_s) != x || axis_d != axis_v || axis_s != axis_d)
        return MEST_NONE;
    *axis = axis_d;
    return x;
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        int axis;
        double epsilon;
        if (!mest_is_op(&g->nodes[i], "Div") && !mest_is_op(&g->nodes[i], "Mul"))
            continue;
        mest_id x = normalised(g, g->nodes[i].out[0], &axis, &epsilon), in[3] = {x, MEST_NONE, MEST_NONE};
        if (x == MEST_NONE)
            continue;
        mest_id last = i;
        MEST_TRY(mest_match_affine(a, &last, &g->values[x].type.shape, axis, &in[1], &in[2]));
        mest_norm_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        *p = (mest_norm_params){.axis = axis, .epsilon = epsilon, .stash_type = 1};
        MEST_TRY(mest_rewrite(a, last, "LayerNormalization", p, in[2] == MEST_NONE ? 2 : 3, in, 1, true));
    }
    return MEST_OK;
}

const mest_pass mest_pass_layernorm = {"layernorm", "LayerNorm written out is one LayerNormalization", MEST_PASS_FORWARD, MEST_FOR_ALL, false, run};
