/* SPDX-License-Identifier: Apache-2.0 */
/* mest.Linear is a Gemm over the rows of X, between two views: whatever can run a Gemm runs it. */
#include "ops/nn.h"
#include "runtime/match.h"

static mest_status lower(mest_pass_args *a, mest_id id)
{
    mest_graph *g = a->graph;
    const mest_node *n = &g->nodes[id];
    const mest_shape x = g->values[n->in[0]].type.shape, y = g->values[n->out[0]].type.shape;
    const mest_gemm_params *p = n->params;
    mest_id in[2] = {n->in[0], n->in[1]};
    if (x.rank == 2)
        return mest_rewrite(a, id, "Gemm", p, 2, in, 1, true);
    mest_shape_params *rows = mest_pass_alloc(a, sizeof *rows), *whole = mest_pass_alloc(a, sizeof *whole);
    if (!rows || !whole)
        return MEST_E_NOMEM;
    rows->shape = (mest_shape){.rank = 2, .dim = {mest_shape_span(&x, 0, x.rank - 1), x.dim[x.rank - 1]}};
    whole->shape = y;
    MEST_TRY(mest_insert(a, id, "mest.Reshape", rows, 1, in, &in[0]));
    mest_id gemm;
    MEST_TRY(mest_insert(a, id, "Gemm", p, 2, in, &gemm));
    return mest_rewrite(a, id, "mest.Reshape", whole, 1, &gemm, 1, true);
}

static mest_status run(mest_pass_args *a)
{
    const mest_id n = a->graph->n_nodes;
    for (mest_id i = 0; i < n; i++)
        if (mest_is_op(&a->graph->nodes[i], "mest.Linear"))
            MEST_TRY(lower(a, i));
    return MEST_OK;
}

const mest_pass mest_pass_linear_form = {"linear_form", "a product with a weight is a Gemm over all rows", MEST_PASS_FORM, MEST_FOR_ALL, true, run};
