/* SPDX-License-Identifier: Apache-2.0 */
/* HardSwish written out: x * HardSigmoid(x) with slope 1/6, or x * Clip(x + 3, 0, 6) / 6, the division at any place. */
#include "ops/elements.h"
#include "runtime/match.h"

/* gate is HardSigmoid(x) scaled by 1, or Clip(x + 3, 0, 6) scaled by 1/6. */
static bool is_gate(mest_pass_args *a, mest_id gate, mest_id x, double scale)
{
    const mest_graph *g = a->graph;
    const mest_node *hard = mest_match_once(a, gate, "HardSigmoid"), *clip = mest_match_once(a, gate, "Clip");
    double three;
    if (hard) {
        const mest_alpha_params *p = hard->params;
        return hard->in[0] == x && mest_close(p->alpha, 1.0 / 6) && mest_close(p->beta, 0.5) && mest_close(scale, 1);
    }
    double lo;
    if (!clip || clip->n_in != 3 || !mest_scalar(g, clip->in[1], &lo) || lo != 0 || !mest_scalar_is(g, clip->in[2], 6) || !mest_close(scale, 1.0 / 6))
        return false;
    const mest_node *add = mest_match_once(a, clip->in[0], "Add");
    if (!add || mest_with_scalar(g, add, &three) != x || !mest_close(three, 3))
        return false;
    mest_take(a->graph, clip->in[0]);
    return true;
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = g->n_nodes - 1; i >= 0; i--) {
        mest_factors f;
        const mest_node *n = &g->nodes[i];
        if (mest_taken(n) || (!mest_is_op(n, "Mul") && !mest_is_op(n, "Div")) || !mest_factorise(a, n->out[0], &f) || f.n != 2)
            continue;
        for (int k = 0; k < 2; k++)
            if (mest_shape_equal(&g->values[f.v[1 - k]].type.shape, &g->values[n->out[0]].type.shape) && is_gate(a, f.v[k], f.v[1 - k], f.scale)) {
                mest_take_factors(g, &f);
                mest_take(g, f.v[k]);
                MEST_TRY(mest_rewrite(a, i, "HardSwish", NULL, 1, &f.v[1 - k], 1, true));
                break;
            }
    }
    return MEST_OK;
}

const mest_pass mest_pass_hardswish = {"hardswish", "x * HardSigmoid(x), or x * Clip(x + 3, 0, 6) / 6, is one HardSwish", MEST_PASS_FORWARD, MEST_FOR_ALL, false,
                                       run};
