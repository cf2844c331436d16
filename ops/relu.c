/* SPDX-License-Identifier: Apache-2.0 */
/* Relu: y = max(x, 0), elementwise; any shape and layout. ONNX Relu since 6 (13, 14 only add types). NaN stays NaN.
 * mest.ReluGrad(Y, dY): dx = dy where y > 0, else 0; at x = 0 the subgradient 0 is taken, as PyTorch does. */
#include "ops/elements.h"

static void relu_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_real *x = (const mest_real *)io->in[0] + off[1];
    mest_real *y = (mest_real *)io->out + off[0];
    MEST_IVDEP
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] < 0 ? 0 : x[i];
}

static mest_status relu_forward(const mest_args *a)
{
    mest_rows_all(a, relu_row);
    return MEST_OK;
}

static void relu_grad_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_real *y = (const mest_real *)io->in[0] + off[1], *dy = (const mest_real *)io->in[1] + off[2];
    mest_real *dx = (mest_real *)io->out + off[0];
    MEST_IVDEP
    for (int64_t i = 0; i < n; i++) {
        const mest_real g = dy[i]; /* read in any case: a conditional load would keep the loop scalar */
        dx[i] = y[i] > 0 ? g : 0;
    }
}

static mest_status relu_grad_forward(const mest_args *a)
{
    mest_rows_all(a, relu_grad_row);
    return MEST_OK;
}

const mest_op mest_ops_relu[] = {
    {.domain = "", .name = "Relu", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE, .act_in = 1, .act_out = 1,
     .infer = mest_infer_float, .forward = relu_forward, .vjp = mest_vjp_from_y},
    {.domain = "mest", .name = "mest.ReluGrad", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE, .act_in = 3, .act_out = 1,
     .infer = mest_infer_float, .forward = relu_grad_forward},
    {.name = NULL},
};
