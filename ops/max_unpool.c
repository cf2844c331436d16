/* SPDX-License-Identifier: Apache-2.0 */
/* MaxUnpool (X, indices of a MaxPool, output_shape?): puts each element where the pool took it from, zero elsewhere. ONNX since 9.
 * mest.MaxUnpoolGrad (indices, dY) -> dX: reads those places. */
#include <inttypes.h>

#include "ops/elements.h"
#include "ops/nn.h"

static const mest_attr unpool_attrs[] = {
    { .name = "kernel_shape", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_pool_params, kernel_shape), .required = true },
    { .name = "strides", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_pool_params, strides) },
    { .name = "pads", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_pool_params, pads) },
    { .name = NULL } };

/* The image the pool was given, as far as sizes tell. Indices count in this one, also where output_shape is larger. */
static bool pooled(const mest_pool_params *p, const mest_shape *x, mest_shape *y)
{
    int n = x->rank - 2;
    *y = *x;
    if (n < 1 || p->kernel_shape.n != n || (p->strides.n && p->strides.n != n) || (p->pads.n && p->pads.n != 2 * n))
        return false;
    for (int i = 0; i < n; i++) {
        int64_t stride = p->strides.n ? p->strides.v[i] : 1, kernel = p->kernel_shape.v[i], pad = p->pads.n ? p->pads.v[i] + p->pads.v[n + i] : 0;
        if (stride < 1 || stride >= 1 << 20 || kernel < 1 || kernel >= 1 << 20 || pad < 0 || pad >= 1 << 20 || x->dim[i + 2] >= 1 << 30)
            return false;
        y->dim[i + 2] = (x->dim[i + 2] - 1) * stride + kernel - pad;
    }
    return true;
}

static mest_status unpool_infer(mest_infer *c)
{
    mest_shape y;
    int n = 0;
    MEST_INFER_CHECK(c, pooled(c->params, &c->in[0]->shape, &y), "the attributes do not fit an input of rank %d", c->in[0]->shape.rank);
    MEST_INFER_CHECK(c, c->in[1]->dtype == MEST_I64 && mest_shape_equal(&c->in[0]->shape, &c->in[1]->shape), "indices must be int64 and of the shape of X");
    if (c->n_in > 2 && c->in[2]) {
        int64_t dim[MEST_MAX_RANK];
        MEST_TRY(mest_infer_ints(c, 2, MEST_MAX_RANK, dim, &n));
        MEST_INFER_CHECK(c, n == y.rank, "output_shape has %d entries for %d axes", n, y.rank);
        for (int i = 0; i < n; i++)
            MEST_INFER_CHECK(c, dim[i] >= y.dim[i], "output_shape has %" PRId64 " on axis %d, at least %" PRId64 " are needed", dim[i], i, y.dim[i]);
        memcpy(y.dim, dim, (size_t)n * sizeof *dim);
    }
    return mest_infer_set(c, 0, MEST_F32, &y);
}

/* Place in a tensor of shape y of what index `at` names in the pooled image; -1: nowhere. */
static int64_t place(const mest_shape *from, const mest_shape *y, int64_t at)
{
    int64_t to = 0, stride = 1;
    if (at < 0)
        return -1;
    for (int d = y->rank - 1; d >= 0; d--) {
        to += at % from->dim[d] * stride;
        at /= from->dim[d];
        stride *= y->dim[d];
    }
    return at ? -1 : to;
}

/* Calls fn for each element and its place. */
static mest_status walk(const mest_args *a, const mest_tensor *indices, const mest_shape *y, void (*fn)(const mest_args *a, int64_t i, int64_t at))
{
    mest_shape from;
    if (!pooled(a->params, &indices->type->shape, &from))
        return mest_run_fail(a, MEST_E_INTERNAL, "the attributes do not fit");
    for (int64_t i = 0; i < (int64_t)indices->count; i++) {
        int64_t index = ((const int64_t *)indices->data)[i], at = place(&from, y, index);
        if (at < 0)
            return mest_run_fail(a, MEST_E_DATA, "index %" PRId64 " is outside of the image", index);
        fn(a, i, at);
    }
    return MEST_OK;
}

static void put(const mest_args *a, int64_t i, int64_t at) { ((mest_real *)a->out[0].data)[at] = ((const mest_real *)a->in[0].data)[i]; }
static void take(const mest_args *a, int64_t i, int64_t at) { ((mest_real *)a->out[0].data)[i] = ((const mest_real *)a->in[1].data)[at]; }

static mest_status unpool_forward(const mest_args *a)
{
    memset(a->out[0].data, 0, a->out[0].count * sizeof(mest_real));
    return walk(a, &a->in[1], &a->out[0].type->shape, put);
}

static mest_status grad_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &c->in[0]->shape); }

static mest_status grad_forward(const mest_args *a) { return walk(a, &a->in[0], &a->in[1].type->shape, take); }

static mest_status unpool_vjp(mest_vjp *v)
{
    mest_id in[2] = { mest_in(v, 1), mest_dout(v, 0) };
    return mest_give_op(v, 0, "mest.MaxUnpoolGrad", NULL, 2, in);
}

const mest_op mest_ops_max_unpool[] = {
    { .domain = "", .name = "MaxUnpool", .since = 9, .in_min = 2, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
      .attrs = unpool_attrs, .params_bytes = sizeof(mest_pool_params), .infer = unpool_infer, .forward = unpool_forward, .vjp = unpool_vjp },
    { .domain = "mest", .name = "mest.MaxUnpoolGrad", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
      .params_bytes = sizeof(mest_pool_params), .infer = grad_infer, .forward = grad_forward },
    { .name = NULL },
};
