/* SPDX-License-Identifier: Apache-2.0 */
/* mest.Linear (X[..,K], W[K,N], or [N,K] with transB = 1) -> Y[..,N]: a product with a weight, whatever path the file takes to it. Made by the
 * pass linear before shapes are known; the pass linear_form turns it into Gemm over the rows of X, so it never runs itself. */
#include <inttypes.h>

#include "ops/elements.h"
#include "ops/nn.h"

static mest_status infer(mest_infer *c)
{
    const mest_gemm_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape, *w = &c->in[1]->shape;
    MEST_INFER_CHECK(c, x->rank >= 1 && w->rank == 2, "X must have rank 1 at least and W rank 2, not %d and %d", (int)x->rank, (int)w->rank);
    const int64_t k = x->dim[x->rank - 1], kw = w->dim[p->trans_b ? 1 : 0];
    MEST_INFER_CHECK(c, k == kw, "the inner sizes of X and W differ: %" PRId64 " and %" PRId64, k, kw);
    mest_shape y = *x;
    y.dim[y.rank - 1] = w->dim[p->trans_b ? 0 : 1];
    return mest_infer_set(c, 0, MEST_F32, &y);
}

const mest_op mest_ops_linear[] = {
    {.domain = "mest", .name = "mest.Linear", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .sparse_in = 1u << 1,
     .params_bytes = sizeof(mest_gemm_params), .infer = infer},
    {.name = NULL},
};
