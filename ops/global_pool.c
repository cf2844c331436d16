/* SPDX-License-Identifier: Apache-2.0 */
/* GlobalAveragePool, GlobalMaxPool: X[N,C,...] to Y[N,C,1,...]. ONNX since 1.
 * mest.GlobalAveragePoolGrad (dY) -> dX, params: the shape of X. mest.GlobalMaxPoolGrad (X, Y, dY) -> dX: to the first maximum. */
#include "ops/dense.h"
#include "ops/nn.h"

#include <string.h>

static mest_status global_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape;
    MEST_INFER_CHECK(c, x->rank >= 3, "input must be [N, C, ...] with spatial axes, not of rank %d", (int)x->rank);
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = *x;
    for (int i = 2; i < x->rank; i++) {
        MEST_INFER_CHECK(c, x->dim[i] != 0, "axis %d is empty", i);
        c->out[0].shape.dim[i] = 1;
    }
    return MEST_OK;
}

typedef struct pool {
    int64_t planes, inner;
    const mest_real *x, *y, *dy;
    mest_real *out;
} pool;

enum { PLANES = 16 }; /* of a tile */

static void run(const mest_args *a, const mest_shape *x, pool *p, void (*tile)(void *, size_t))
{
    p->planes = x->dim[0] * x->dim[1];
    p->inner = mest_shape_span(x, 2, x->rank);
    p->out = a->out[0].data;
    mest_parallel(a->threads, (size_t)((p->planes + PLANES - 1) / PLANES), tile, p);
}

#define FOR_PLANES(p, tile, i) \
    for (int64_t i = (int64_t)(tile) * PLANES, end_ = i + PLANES < (p)->planes ? i + PLANES : (p)->planes; i < end_; i++)

static void average_tile(void *context, size_t tile)
{
    const pool *p = context;
    FOR_PLANES(p, tile, i)
        p->out[i] = (mest_real)(mest_dense_sum(p->x + i * p->inner, p->inner) / (double)p->inner);
}

static mest_status average_forward(const mest_args *a)
{
    pool p = { .x = a->in[0].data };
    run(a, &a->in[0].type->shape, &p, average_tile);
    return MEST_OK;
}

static mest_status average_vjp(mest_vjp *v)
{
    mest_shape_params *p = mest_vjp_alloc(v, sizeof *p);
    if (!p)
        return mest_fail(mest_vjp_err(v), MEST_E_NOMEM, "GlobalAveragePool: no memory for the gradient's parameters");
    p->shape = mest_vjp_type(v, mest_in(v, 0))->shape;
    mest_id dy = mest_dout(v, 0);
    return mest_give_op(v, 0, "mest.GlobalAveragePoolGrad", p, 1, &dy);
}

static mest_status average_grad_infer(mest_infer *c)
{
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = ((const mest_shape_params *)c->params)->shape;
    return MEST_OK;
}

static void average_grad_tile(void *context, size_t tile)
{
    const pool *p = context;
    FOR_PLANES(p, tile, i)
    {
        mest_real share = p->dy[i] / (mest_real)p->inner, *dx = p->out + i * p->inner;
        for (int64_t k = 0; k < p->inner; k++)
            dx[k] = share;
    }
}

static mest_status average_grad_forward(const mest_args *a)
{
    pool p = { .dy = a->in[0].data };
    run(a, &a->out[0].type->shape, &p, average_grad_tile);
    return MEST_OK;
}

static void max_tile(void *context, size_t tile)
{
    const pool *p = context;
    FOR_PLANES(p, tile, i)
    {
        const mest_real *x = p->x + i * p->inner;
        mest_real best = x[0];
        for (int64_t k = 1; k < p->inner; k++)
            best = x[k] > best || x[k] != x[k] ? x[k] : best;
        p->out[i] = best;
    }
}

static mest_status max_forward(const mest_args *a)
{
    pool p = { .x = a->in[0].data };
    run(a, &a->in[0].type->shape, &p, max_tile);
    return MEST_OK;
}

static mest_status max_vjp(mest_vjp *v)
{
    mest_id in[3] = { mest_in(v, 0), mest_out(v, 0), mest_dout(v, 0) };
    return mest_give_op(v, 0, "mest.GlobalMaxPoolGrad", NULL, 3, in);
}

static void max_grad_tile(void *context, size_t tile)
{
    const pool *p = context;
    FOR_PLANES(p, tile, i)
    {
        const mest_real *x = p->x + i * p->inner;
        mest_real *dx = p->out + i * p->inner;
        int64_t k = 0;
        memset(dx, 0, (size_t)p->inner * sizeof *dx);
        while (k < p->inner && !(x[k] == p->y[i] || (x[k] != x[k] && p->y[i] != p->y[i])))
            k++;
        if (k < p->inner)
            dx[k] = p->dy[i];
    }
}

static mest_status max_grad_forward(const mest_args *a)
{
    pool p = { .x = a->in[0].data, .y = a->in[1].data, .dy = a->in[2].data };
    run(a, &a->in[0].type->shape, &p, max_grad_tile);
    return MEST_OK;
}

const mest_op mest_ops_global_pool[] = {
    { .domain = "", .name = "GlobalAveragePool", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .act_in = 1u << 0,
      .act_out = 1u << 0, .infer = global_infer, .forward = average_forward, .vjp = average_vjp },
    { .domain = "mest", .name = "mest.GlobalAveragePoolGrad", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
      .act_in = 1u << 0, .act_out = 1u << 0, .params_bytes = sizeof(mest_shape_params), .infer = average_grad_infer,
      .forward = average_grad_forward },
    { .domain = "", .name = "GlobalMaxPool", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .act_in = 1u << 0,
      .act_out = 1u << 0, .infer = global_infer, .forward = max_forward, .vjp = max_vjp },
    { .domain = "mest", .name = "mest.GlobalMaxPoolGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1,
      .act_in = 1u << 0 | 1u << 1 | 1u << 2, .act_out = 1u << 0, .infer = mest_infer_same, .forward = max_grad_forward },
    { .name = NULL },
};
