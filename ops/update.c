/* SPDX-License-Identifier: Apache-2.0 */
/* Weight update and gradient clipping as nodes, so that the memory plan and the order of execution know them.
 *   mest.Update     gradient, scale[]?  -> nothing; writes the parameter and its optimizer slots (the rule is the runtime's: params->apply)
 *   mest.Accumulate gradient            -> gradient of the whole batch, where that comes in parts: valid with the last one
 *   mest.ClipScale  gradients...        -> scale[] = min(1, max_norm / (||all gradients|| + 1e-6)), PyTorch's clip_grad_norm_ */
#include <math.h>

#include "ops/nn.h"

static mest_status update_infer(mest_infer *c)
{
    (void)c;
    return MEST_OK;
}

static mest_status update_forward(const mest_args *a)
{
    const mest_update_params *u = a->params;
    u->apply(u, a);
    return MEST_OK;
}

static mest_status clip_infer(mest_infer *c)
{
    c->out[0].dtype = MEST_F32;
    return MEST_OK;
}

static mest_status clip_forward(const mest_args *a)
{
    double sum = 0;
    if (!mest_run_completes(a->run)) /* there is nothing to scale yet */
        return MEST_OK;
    for (int i = 0; i < a->n_in; i++) {
        const mest_real *g = a->in[i].data;
        for (size_t k = 0; k < a->in[i].count; k++)
            sum += (double)g[k] * (double)g[k];
    }
    double scale = *(const double *)a->params / (sqrt(sum) + 1e-6);
    *(mest_real *)a->out[0].data = (mest_real)(scale < 1 ? scale : 1);
    return MEST_OK;
}

const mest_op mest_ops_update[] = {
    {.domain = "mest", .name = "mest.Update", .since = 1, .in_min = 1, .in_max = 2, .out_min = 0, .out_max = 0, .flags = MEST_OP_SIDE_EFFECT | MEST_OP_FLAT,
     .infer = update_infer, .forward = update_forward, .no_grad = true},
    {.domain = "mest", .name = "mest.Accumulate", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_SIDE_EFFECT | MEST_OP_FLAT | MEST_OP_INPLACE, .infer = mest_infer_same, .forward = update_forward, .no_grad = true},
    {.domain = "mest", .name = "mest.ClipScale", .since = 1, .in_min = 1, .in_max = -1, .out_min = 1, .out_max = 1, .flags = MEST_OP_FLAT, .infer = clip_infer,
     .forward = clip_forward, .no_grad = true},
    {0}};
