/* SPDX-License-Identifier: Apache-2.0 */
/* PRelu(X, slope): x < 0 ? slope x : x, slope broadcasts to X.
 *   mest.PReluGrad(X, slope, dY)    dX = x > 0 ? dY : slope dY
 *   mest.PReluSlopeGrad(X, dY)      dslope = x > 0 ? 0 : x dY, in the shape of X; the driver sums it */
#include "ops/elements.h"

static void prelu_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_real *x = (const mest_real *)io->in[0] + off[1], *slope = (const mest_real *)io->in[1] + off[2];
    mest_real *y = (mest_real *)io->out + off[0];
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i * io->step[1]] < 0 ? slope[i * io->step[2]] * x[i * io->step[1]] : x[i * io->step[1]];
}
static void grad_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_real *x = (const mest_real *)io->in[0] + off[1], *slope = (const mest_real *)io->in[1] + off[2];
    const mest_real *dy = (const mest_real *)io->in[2] + off[3];
    mest_real *dx = (mest_real *)io->out + off[0];
    for (int64_t i = 0; i < n; i++)
        dx[i] = x[i * io->step[1]] > 0 ? dy[i * io->step[3]] : slope[i * io->step[2]] * dy[i * io->step[3]];
}
static void slope_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_real *x = (const mest_real *)io->in[0] + off[1], *dy = (const mest_real *)io->in[1] + off[2];
    mest_real *o = (mest_real *)io->out + off[0];
    for (int64_t i = 0; i < n; i++)
        o[i] = x[i * io->step[1]] > 0 ? 0 : x[i * io->step[1]] * dy[i * io->step[2]];
}

static mest_status prelu_infer(mest_infer *c)
{
    mest_shape both;
    char a[128], b[128];
    MEST_INFER_CHECK(c, mest_shape_broadcast(&c->in[0]->shape, &c->in[1]->shape, &both) && mest_shape_equal(&both, &c->in[0]->shape),
                     "slope %s does not broadcast to %s", mest_shape_text(&c->in[1]->shape, b, sizeof b),
                     mest_shape_text(&c->in[0]->shape, a, sizeof a));
    return mest_infer_float_broadcast(c);
}
static mest_status prelu_forward(const mest_args *a)
{
    mest_rows_all(a, prelu_row);
    return MEST_OK;
}
static mest_status grad_forward(const mest_args *a)
{
    mest_rows_all(a, grad_row);
    return MEST_OK;
}
static mest_status slope_forward(const mest_args *a)
{
    mest_rows_all(a, slope_row);
    return MEST_OK;
}

static mest_status prelu_vjp(mest_vjp *v)
{
    mest_id dx[3] = {mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0)}, dslope[2] = {mest_in(v, 0), mest_dout(v, 0)};
    MEST_TRY(mest_give_op(v, 0, "mest.PReluGrad", NULL, 3, dx));
    return mest_give_op(v, 1, "mest.PReluSlopeGrad", NULL, 2, dslope);
}

const mest_op mest_ops_prelu[] = {
    {.domain = "", .name = "PRelu", .since = 7, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .infer = prelu_infer,
     .forward = prelu_forward, .vjp = prelu_vjp},
    {.domain = "mest", .name = "mest.PReluGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1,
     .infer = mest_infer_float_broadcast, .forward = grad_forward},
    {.domain = "mest", .name = "mest.PReluSlopeGrad", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1,
     .infer = mest_infer_float, .forward = slope_forward},
    {.name = NULL},
};
