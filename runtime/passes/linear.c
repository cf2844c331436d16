/* SPDX-License-Identifier: Apache-2.0 */
/* MatMul with a weight, or with the Transpose of one, as exporters write a Linear over more than two axes, becomes mest.Linear with the
 * weight as the file has it: the weight can then be sparse. Gemm with a transposed weight likewise. */
#include "ops/nn.h"
#include "ops/elements.h"
#include "runtime/match.h"

static bool is_weight(const mest_graph *g, mest_id v) { return v != MEST_NONE && g->values[v].kind == MEST_VALUE_PARAM && g->values[v].type.shape.rank == 2; }

/* The weight behind v and whether it lies transposed; MEST_NONE if v is none. */
static mest_id weight_of(const mest_graph *g, mest_id v, bool *transposed)
{
    *transposed = false;
    for (;;) {
        const mest_node *t = mest_match(g, v, "Transpose"), *same = mest_match(g, v, "Identity");
        if (t) {
            const mest_ints *perm = &((const mest_transpose_params *)t->params)->perm;
            if (perm->n == 2 && perm->v[0] == 0 && perm->v[1] == 1)
                ; /* nothing moves */
            else if (perm->n == 0 || (perm->n == 2 && perm->v[0] == 1 && perm->v[1] == 0))
                *transposed = !*transposed;
            else
                return MEST_NONE;
        }
        if (!t && !same)
            return is_weight(g, v) ? v : MEST_NONE;
        v = (t ? t : same)->in[0];
    }
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        const bool gemm = mest_is_op(n, "Gemm"), matmul = mest_is_op(n, "MatMul");
        bool transposed;
        mest_id w = gemm || matmul ? weight_of(g, n->in[1], &transposed) : MEST_NONE;
        if (w == MEST_NONE || (gemm && w == n->in[1]))
            continue;
        mest_gemm_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        *p = gemm ? *(const mest_gemm_params *)n->params : (mest_gemm_params){.alpha = 1, .beta = 1};
        p->trans_b ^= transposed;
        mest_id in[3] = {n->in[0], w, n->n_in > 2 ? n->in[2] : MEST_NONE};
        MEST_TRY(mest_rewrite(a, i, gemm ? "Gemm" : "mest.Linear", p, n->n_in, in, 1, false));
    }
    return MEST_OK;
}

const mest_pass mest_pass_linear = {"linear", "MatMul and Gemm take their weight as the file has it, not behind a Transpose", MEST_PASS_WEIGHTS, MEST_FOR_ALL, false,
                                    run};
