/* SPDX-License-Identifier: Apache-2.0 */
/* Clip: y = min(max(x, min), max); inputs X, min[]?, max[]? (form of opset 11; integers too).
 * mest.ClipGrad(Y, dY, min?, max?): dx = dy strictly inside the bounds, else 0 - PyTorch's rule for ReLU6 and hardtanh, and it needs only Y. */
#include "ops/elements.h"

typedef struct bounds { mest_real lo, hi; } bounds;

static mest_status clip_infer(mest_infer *c)
{
    mest_dtype dtype = c->in[0]->dtype;
    if (dtype != MEST_F32 && (!mest_dtype_is_integer(dtype) || dtype == MEST_BOOL || dtype == MEST_U64))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(dtype));
    for (int i = 1; i < c->n_in; i++) {
        int64_t n;
        if (c->in[i])
            MEST_INFER_CHECK(c, c->in[i]->dtype == dtype && mest_shape_count(&c->in[i]->shape, &n) && n == 1,
                             "the %s bound must be a scalar of the input's type", i == 1 ? "lower" : "upper");
    }
    return mest_infer_set(c, 0, dtype, &c->in[0]->shape);
}

static mest_status clip_grad_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &c->in[1]->shape); }

static bounds read_bounds(const mest_args *a, int first)
{
    bounds b = {-(mest_real)INFINITY, (mest_real)INFINITY};
    if (a->n_in > first && a->in[first].data)
        b.lo = *(const mest_real *)a->in[first].data;
    if (a->n_in > first + 1 && a->in[first + 1].data)
        b.hi = *(const mest_real *)a->in[first + 1].data;
    return b;
}

static void clip_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const bounds *b = io->params;
    const mest_real *x = (const mest_real *)io->in[0] + off[1], lo = b->lo, hi = b->hi;
    mest_real *y = (mest_real *)io->out + off[0];
    MEST_IVDEP
    for (int64_t i = 0; i < n; i++) {
        mest_real t = x[i] < lo ? lo : x[i];
        y[i] = t > hi ? hi : t;
    }
}

static void clip_grad_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const bounds *b = io->params;
    const mest_real *y = (const mest_real *)io->in[0] + off[1], *dy = (const mest_real *)io->in[1] + off[2], lo = b->lo, hi = b->hi;
    mest_real *dx = (mest_real *)io->out + off[0];
    MEST_IVDEP
    for (int64_t i = 0; i < n; i++) {
        const mest_real g = dy[i]; /* read in any case, and no short circuit: either would keep the loop scalar */
        dx[i] = ((y[i] > lo) & (y[i] < hi)) ? g : 0;
    }
}

/* The row functions get the bounds instead of the node's params (there are none). */
static void run(const mest_args *a, int n_in, const bounds *b, mest_row_fn fn)
{
    static const int which[2] = {0, 1};
    mest_args with = *a;
    with.params = b;
    mest_rows(&with, n_in, which, fn);
}

static mest_status clip_forward(const mest_args *a)
{
    if (a->out[0].type->dtype == MEST_F32) {
        bounds b = read_bounds(a, 1);
        run(a, 1, &b, clip_row);
        return MEST_OK;
    }
    int64_t lo = INT64_MIN, hi = INT64_MAX;
    mest_dtype dtype = a->in[0].type->dtype;
    if (a->n_in > 1 && a->in[1].data)
        lo = mest_integer_at(dtype, a->in[1].data, 0);
    if (a->n_in > 2 && a->in[2].data)
        hi = mest_integer_at(dtype, a->in[2].data, 0);
    for (int64_t i = 0; i < (int64_t)a->out[0].count; i++) {
        int64_t x = mest_integer_at(dtype, a->in[0].data, i);
        x = x < lo ? lo : x;
        mest_integer_store(dtype, a->out[0].data, i, x > hi ? hi : x);
    }
    return MEST_OK;
}

static mest_status clip_grad_forward(const mest_args *a)
{
    bounds b = read_bounds(a, 2);
    run(a, 2, &b, clip_grad_row);
    return MEST_OK;
}

static mest_status clip_vjp(mest_vjp *v)
{
    mest_id in[4] = {mest_out(v, 0), mest_dout(v, 0), mest_in(v, 1), mest_in(v, 2)};
    return mest_give_op(v, 0, "mest.ClipGrad", NULL, 4, in);
}

const mest_op mest_ops_clip[] = {
    {.domain = "", .name = "Clip", .since = 1, .in_min = 1, .in_max = 3, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE | MEST_OP_ANY_TYPE, .act_in = 1, .act_out = 1, .infer = clip_infer, .forward = clip_forward, .vjp = clip_vjp},
    {.domain = "mest", .name = "mest.ClipGrad", .since = 1, .in_min = 2, .in_max = 4, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE, .act_in = 3, .act_out = 1, .infer = clip_grad_infer, .forward = clip_grad_forward},
    {.name = NULL},
};
