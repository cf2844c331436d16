/* SPDX-License-Identifier: Apache-2.0 */
/* BatchNormalization with its Relu, then MaxPool: the gradient is masked on the small side of the pool. A window's gradient goes to an element that
 * equals the window's maximum, so it is masked there exactly when the maximum is not above zero; and the normalization's gradient, which
 * reads everything twice, need not read the Relu's result. */
#include "ops/nn.h"
#include "runtime/match.h"

enum { POOL_X = 0, POOL_Y = 1, POOL_DY = 2, NORM_DY = 4, NORM_Y = 5 };

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    const mest_id end = g->n_nodes;
    for (mest_id i = 0; i < end; i++) {
        if (!mest_is_op(&g->nodes[i], "mest.BatchNormGrad") || g->nodes[i].n_in != NORM_Y + 1)
            continue;
        const mest_bn_params *old = g->nodes[i].params;
        const mest_id y = g->nodes[i].in[NORM_Y];
        const mest_node *pool = mest_match_once(a, g->nodes[i].in[NORM_DY], "mest.MaxPoolGrad");
        if (!old->clamp.on || old->clamp.lo != 0 || !(old->clamp.hi > (mest_real)1e30) || !pool || y == MEST_NONE || pool->in[POOL_X] != y)
            continue;
        mest_bn_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        *p = *old;
        p->clamp = (mest_clamp){.on = false};
        const mest_id at = g->values[g->nodes[i].in[NORM_DY]].producer, in[2] = {pool->in[POOL_Y], pool->in[POOL_DY]};
        mest_id masked;
        MEST_TRY(mest_insert(a, at, "mest.ReluGrad", NULL, 2, in, &masked));
        g->nodes[at].in[POOL_DY] = masked;
        g->nodes[i].params = p;
        g->nodes[i].n_in = NORM_Y;
        a->count++;
    }
    return MEST_OK;
}

const mest_pass mest_pass_pool_gate = {"pool_gate", "the gradient of Relu before MaxPool is taken behind the pool", MEST_PASS_BACKWARD, MEST_FOR_TRAIN, false, run};
