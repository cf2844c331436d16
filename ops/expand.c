/* SPDX-License-Identifier: Apache-2.0 */
/* Expand (shape) and Tile (repeats): any fixed-size type; shapes and repeats are constants. mest.Fill: zeros of params' shape.
 * Gradients: Expand - dY, which the driver sums; Tile - mest.TileGrad(dY), the sum over the repeats. */
#include <inttypes.h>

#include "ops/elements.h"
#include "ops/nn.h"

static mest_status expand_infer(mest_infer *c)
{
    mest_shape to = {0}, y;
    int n;
    char a[128], b[128];
    MEST_TRY(mest_infer_ints(c, 1, MEST_MAX_RANK, to.dim, &n));
    to.rank = n;
    for (int i = 0; i < n; i++)
        MEST_INFER_CHECK(c, to.dim[i] >= 0, "shape[%d] is %" PRId64, i, to.dim[i]);
    MEST_INFER_CHECK(c, mest_shape_broadcast(&c->in[0]->shape, &to, &y), "shapes %s and %s do not broadcast",
                     mest_shape_text(&c->in[0]->shape, a, sizeof a), mest_shape_text(&to, b, sizeof b));
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

static mest_status expand_forward(const mest_args *a)
{
    mest_spread s;
    mest_spread_begin(&s, &a->out[0].type->shape);
    mest_spread_add(&s, &a->in[0].type->shape);
    mest_spread_copy(a->threads, &s, mest_dtype_size(a->out[0].type->dtype), a->out[0].data, a->in[0].data);
    return MEST_OK;
}

static mest_status expand_vjp(mest_vjp *v) { return mest_give(v, 0, mest_dout(v, 0)); }

static mest_status tile_infer(mest_infer *c)
{
    int64_t repeats[MEST_MAX_RANK];
    int n;
    mest_shape y = c->in[0]->shape;
    MEST_TRY(mest_infer_ints(c, 1, MEST_MAX_RANK, repeats, &n));
    MEST_INFER_CHECK(c, n == y.rank, "%d repeats for an input of rank %d", n, y.rank);
    for (int i = 0; i < n; i++) {
        MEST_INFER_CHECK(c, repeats[i] >= 0, "repeats[%d] is %" PRId64, i, repeats[i]);
        MEST_INFER_CHECK(c, !__builtin_mul_overflow(y.dim[i], repeats[i], &y.dim[i]), "sizes overflow");
    }
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

/* Each axis is seen as [repeats, size]: the repeats have stride 0 in X. */
static mest_status tile_forward(const mest_args *a)
{
    const mest_shape *x = &a->in[0].type->shape, *y = &a->out[0].type->shape;
    mest_spread s = {.n = 2, .rank = 2 * x->rank};
    if (a->out[0].count == 0)
        return MEST_OK;
    int64_t in_stride = 1, out_stride = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        s.dim[2 * i] = y->dim[i] / x->dim[i];
        s.dim[2 * i + 1] = x->dim[i];
        s.stride[0][2 * i + 1] = out_stride;
        s.stride[0][2 * i] = out_stride * x->dim[i];
        s.stride[1][2 * i + 1] = in_stride;
        in_stride *= x->dim[i];
        out_stride *= y->dim[i];
    }
    mest_spread_copy(a->threads, &s, mest_dtype_size(a->out[0].type->dtype), a->out[0].data, a->in[0].data);
    return MEST_OK;
}

static mest_status tile_grad_forward(const mest_args *a)
{
    const mest_shape *x = &a->out[0].type->shape, *y = &a->in[0].type->shape;
    mest_fold f = {.kind = MEST_FOLD_SUM, .rank = 2 * x->rank};
    if (a->out[0].count == 0)
        return MEST_OK;
    for (int i = 0; i < x->rank; i++) {
        f.dim[2 * i] = y->dim[i] / x->dim[i];
        f.reduced[2 * i] = true;
        f.dim[2 * i + 1] = x->dim[i];
    }
    mest_fold_run(a->threads, &f, MEST_F32, a->in[0].data, NULL, a->out[0].data);
    return MEST_OK;
}

static mest_status tile_vjp(mest_vjp *v)
{
    void *p = mest_vjp_shape_params(v, mest_in(v, 0));
    mest_id dy = mest_dout(v, 0);
    return p ? mest_give_op(v, 0, "mest.TileGrad", p, 1, &dy) : mest_vjp_nomem(v);
}

static mest_status fill_forward(const mest_args *a)
{
    memset(a->out[0].data, 0, a->out[0].count * sizeof(mest_real));
    return MEST_OK;
}

const mest_op mest_ops_expand[] = {
    {.domain = "", .name = "Expand", .since = 8, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .infer = expand_infer, .forward = expand_forward, .vjp = expand_vjp},
    {.domain = "", .name = "Tile", .since = 6, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .infer = tile_infer, .forward = tile_forward, .vjp = tile_vjp},
    {.domain = "mest", .name = "mest.TileGrad", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
     .infer = mest_infer_shape_params, .forward = tile_grad_forward},
    {.domain = "mest", .name = "mest.Fill", .since = 1, .in_min = 0, .in_max = 0, .out_min = 1, .out_max = 1,
     .infer = mest_infer_shape_params, .forward = fill_forward},
    {.name = NULL},
};
