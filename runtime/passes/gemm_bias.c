/* SPDX-License-Identifier: Apache-2.0 */
/* A Gemm without C, maybe behind a view of its rows, takes the bias that is added to its result. */
#include "ops/nn.h"
#include "runtime/match.h"

/* v is a bias of n numbers along the last axis: rank 1, or 1 before it. */
static bool is_bias(const mest_graph *g, mest_id v, int64_t n)
{
    int64_t count;
    const mest_value *b = &g->values[v];
    return (b->kind == MEST_VALUE_PARAM || b->kind == MEST_VALUE_CONST) && b->type.layout.kind == MEST_PLAIN && b->type.dtype == MEST_F32 &&
           mest_shape_count(&b->type.shape, &count) && count == n && b->type.shape.rank >= 1 && b->type.shape.rank <= 2 &&
           b->type.shape.dim[b->type.shape.rank - 1] == n;
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *gemm = &g->nodes[i];
        if (!mest_is_op(gemm, "Gemm") || (gemm->n_in > 2 && gemm->in[2] != MEST_NONE))
            continue;
        mest_id view = mest_only_reader(a, gemm->out[0]), add = view;
        if (view != MEST_NONE && mest_is_op(&g->nodes[view], "mest.Reshape"))
            add = mest_only_reader(a, g->nodes[view].out[0]);
        else
            view = MEST_NONE;
        if (add == MEST_NONE || !mest_is_op(&g->nodes[add], "Add"))
            continue;
        const mest_id result = view == MEST_NONE ? gemm->out[0] : g->nodes[view].out[0];
        const mest_id bias = g->nodes[add].in[g->nodes[add].in[0] == result];
        const mest_shape *y = &g->values[result].type.shape;
        if (!is_bias(g, bias, y->dim[y->rank - 1]) || !mest_shape_equal(y, &g->values[g->nodes[add].out[0]].type.shape))
            continue;
        mest_gemm_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        *p = *(const mest_gemm_params *)gemm->params;
        p->beta = 1;
        mest_id in[3] = {gemm->in[0], gemm->in[1], bias};
        MEST_TRY(mest_rewrite(a, i, "Gemm", p, 3, in, 1, true));
        mest_absorb(a, view == MEST_NONE ? i : view, add);
        a->count--; /* one thing was done, in two steps */
    }
    return MEST_OK;
}

const mest_pass mest_pass_gemm_bias = {"gemm_bias", "Gemm adds the bias behind it", MEST_PASS_FORWARD, MEST_FOR_ALL, false, run};
