/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a residual block in one pass: BatchNormalization applied, the other branch added, cut off by the activation. Y of the normalization
 * never exists. */
#include <string.h>

#include "ops/nn.h"
#include "runtime/refit.h"

/* The Add that alone reads v, both operands of one type; its other operand in *other. */
static mest_id find_add(const mest_pass_args *a, mest_id v, mest_id *other)
{
    const mest_graph *g = a->graph;
    mest_id i = mest_only_reader(a, v);
    if (i == MEST_NONE || !mest_is_op(&g->nodes[i], "Add"))
        return MEST_NONE;
    *other = g->nodes[i].in[g->nodes[i].in[0] == v];
    const mest_type *x = &g->values[v].type, *s = &g->values[*other].type;
    return *other != v && mest_in_lanes(g, *other) && mest_shape_equal(&x->shape, &s->shape) ? i : MEST_NONE;
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        const mest_bn_params *params = n->params;
        mest_id other, add;
        if (!mest_is_op(n, "mest.BatchNormTrain") || !mest_in_lanes(g, n->out[0]) || n->n_out < 4 || n->out[3] == MEST_NONE || params->clamp.on || params->act.kind)
            continue;
        add = find_add(a, n->out[0], &other);
        if (add == MEST_NONE)
            continue;
        mest_bn_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        *p = *params;
        const mest_id next = mest_only_reader(a, g->nodes[add].out[0]);
        const bool act = next != MEST_NONE && mest_match_clamp(g, &g->nodes[next], &p->clamp);
        if (!act)
            memset(&p->clamp, 0, sizeof p->clamp);
        mest_refit norm = mest_refit_of(a, i), last = mest_refit_of(a, act ? next : add);
        last.op = "mest.BatchNormAgain";
        last.params = p;
        last.n_in = 3;
        last.in[0] = n->in[0];
        last.in[1] = n->out[3];
        last.in[2] = other;
        norm.out[0] = MEST_NONE;
        if (!mest_refit_fits(a, &last) || !mest_refit_fits(a, &norm))
            continue;
        MEST_TRY(mest_refit_do(a, &norm));
        MEST_TRY(mest_refit_do(a, &last));
        MEST_TRY(mest_pass_settle(a, &i));
        a->count++;
    }
    return MEST_OK;
}

const mest_pass mest_pass_bn_add = {"bn_add", "BatchNormalization, Add and activation in one pass", MEST_PASS_KERNELS, MEST_FOR_TRAIN, false, run};
