/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax and LogSoftmax along one axis. ONNX since 1: up to opset 12 the input is seen as a matrix cut before `axis` (default 1), and all
 * of a row is normalised; since 13 one axis is (default -1). `flatten` says which; it is not an attribute of any file, so each
 * version's default stands.
 * mest.SoftmaxGrad, mest.LogSoftmaxGrad (Y, dY) -> dX. */
#include "ops/nn.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

#define SOFTMAX_ATTRS(default_axis, default_flatten)                                                                               \
    {                                                                                                                              \
        { .name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(mest_softmax_params, axis), .number = default_axis },               \
        { .name = "mest.flatten", .kind = MEST_ATTR_INT, .offset = offsetof(mest_softmax_params, flatten), .number = default_flatten }, \
        { .name = NULL },                                                                                                          \
    }
static const mest_attr attrs_1[] = SOFTMAX_ATTRS(1, 1);
static const mest_attr attrs_13[] = SOFTMAX_ATTRS(-1, 0);

static mest_status softmax_infer(mest_infer *c)
{
    const mest_softmax_params *p = c->params;
    int rank = c->in[0]->shape.rank;
    /* a matrix may also be cut behind the last axis */
    bool fits = mest_axis(p->axis, rank) >= 0 || (p->flatten && p->axis == rank);
    MEST_INFER_CHECK(c, fits, "axis %" PRId64 " of an input of rank %d", p->axis, rank);
    return mest_infer_same(c);
}

static inline mest_real real_exp(mest_real x) { return MEST_REAL_IS_DOUBLE ? (mest_real)exp((double)x) : (mest_real)expf((float)x); }

/* X seen as [outer, size, inner], normalised along `size`. A tile is one strip: WIDTH neighbours of one `outer`, or, where inner is 1,
 * one row. */
enum { WIDTH = 64 };
typedef struct strips {
    int64_t outer, size, inner, per_outer, rows;
    bool log;
    const mest_real *x, *dy;
    mest_real *y;
    void (*strip)(const struct strips *s, int64_t at, int64_t width);
} strips;

static void strip_tile(void *context, size_t tile)
{
    const strips *s = context;
    if (s->inner == 1) {
        for (int64_t r = (int64_t)tile * s->rows; r < s->outer && r < (int64_t)(tile + 1) * s->rows; r++)
            s->strip(s, r * s->size, 1);
        return;
    }
    int64_t outer = (int64_t)tile / s->per_outer, i = (int64_t)tile % s->per_outer * WIDTH;
    s->strip(s, outer * s->size * s->inner + i, s->inner - i < WIDTH ? s->inner - i : WIDTH);
}

static void run(const mest_args *a, bool logarithm, void (*strip)(const strips *, int64_t, int64_t))
{
    const mest_softmax_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    int axis = p->flatten && p->axis == x->rank ? x->rank : mest_axis(p->axis, x->rank);
    strips s = { .log = logarithm, .x = a->in[0].data, .y = a->out[0].data, .strip = strip, .dy = a->n_in > 1 ? a->in[1].data : NULL };
    s.outer = mest_shape_span(x, 0, axis);
    s.size = p->flatten ? mest_shape_span(x, axis, x->rank) : x->dim[axis];
    s.inner = p->flatten ? 1 : mest_shape_span(x, axis + 1, x->rank);
    if (s.outer == 0 || s.size == 0 || s.inner == 0)
        return;
    s.per_outer = (s.inner + WIDTH - 1) / WIDTH;
    s.rows = s.size >= 4096 ? 1 : 4096 / s.size;
    mest_parallel(a->threads, (size_t)(s.inner == 1 ? (s.outer + s.rows - 1) / s.rows : s.outer * s.per_outer), strip_tile, &s);
}

static void forward_strip(const strips *s, int64_t at, int64_t width)
{
    mest_real top[WIDTH];
    double sum[WIDTH];
    const mest_real *x = s->x + at;
    mest_real *y = s->y + at;
    for (int64_t i = 0; i < width; i++) {
        top[i] = x[i];
        sum[i] = 0;
    }
    for (int64_t k = 1; k < s->size; k++)
        for (int64_t i = 0; i < width; i++)
            top[i] = x[k * s->inner + i] > top[i] ? x[k * s->inner + i] : top[i];
    for (int64_t k = 0; k < s->size; k++)
        for (int64_t i = 0; i < width; i++) {
            mest_real d = x[k * s->inner + i] - top[i], e = real_exp(d);
            y[k * s->inner + i] = s->log ? d : e;
            sum[i] += (double)e;
        }
    for (int64_t i = 0; i < width; i++)
        top[i] = (mest_real)(s->log ? log(sum[i]) : 1 / sum[i]);
    for (int64_t k = 0; k < s->size; k++)
        for (int64_t i = 0; i < width; i++)
            y[k * s->inner + i] = s->log ? y[k * s->inner + i] - top[i] : y[k * s->inner + i] * top[i];
}

static mest_status softmax_forward(const mest_args *a)
{
    run(a, false, forward_strip);
    return MEST_OK;
}

static mest_status log_softmax_forward(const mest_args *a)
{
    run(a, true, forward_strip);
    return MEST_OK;
}

/* dX = Y (dY - sum(Y dY)), or for the logarithm dY - exp(Y) sum(dY); x is Y here, y is dX */
static void grad_strip(const strips *s, int64_t at, int64_t width)
{
    double sum[WIDTH] = { 0 };
    const mest_real *x = s->x + at, *dy = s->dy + at;
    mest_real *y = s->y + at;
    for (int64_t k = 0; k < s->size * s->inner; k += s->inner)
        for (int64_t i = 0; i < width; i++)
            sum[i] += s->log ? (double)dy[k + i] : (double)x[k + i] * (double)dy[k + i];
    for (int64_t k = 0; k < s->size * s->inner; k += s->inner)
        for (int64_t i = 0; i < width; i++)
            y[k + i] = s->log ? dy[k + i] - real_exp(x[k + i]) * (mest_real)sum[i] : x[k + i] * (dy[k + i] - (mest_real)sum[i]);
}

static mest_status softmax_grad_forward(const mest_args *a)
{
    run(a, false, grad_strip);
    return MEST_OK;
}

static mest_status log_softmax_grad_forward(const mest_args *a)
{
    run(a, true, grad_strip);
    return MEST_OK;
}

static mest_status softmax_vjp(mest_vjp *v)
{
    mest_id in[2] = { mest_out(v, 0), mest_dout(v, 0) };
    return mest_give_op(v, 0, "mest.SoftmaxGrad", NULL, 2, in);
}

static mest_status log_softmax_vjp(mest_vjp *v)
{
    mest_id in[2] = { mest_out(v, 0), mest_dout(v, 0) };
    return mest_give_op(v, 0, "mest.LogSoftmaxGrad", NULL, 2, in);
}

#define SOFTMAX(name_, since_, attrs_, forward_, vjp_)                                                                                       \
    { .domain = "", .name = name_, .since = since_, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_INPLACE,          \
      .attrs = attrs_, .params_bytes = sizeof(mest_softmax_params), .infer = softmax_infer, .forward = forward_, .vjp = vjp_ }
#define SOFTMAX_GRAD(name_, forward_)                                                                                                        \
    { .domain = "mest", .name = name_, .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_INPLACE,           \
      .params_bytes = sizeof(mest_softmax_params), .infer = mest_infer_same, .forward = forward_ }

const mest_op mest_ops_softmax[] = {
    SOFTMAX("Softmax", 1, attrs_1, softmax_forward, softmax_vjp),
    SOFTMAX("Softmax", 13, attrs_13, softmax_forward, softmax_vjp),
    SOFTMAX("LogSoftmax", 1, attrs_1, log_softmax_forward, log_softmax_vjp),
    SOFTMAX("LogSoftmax", 13, attrs_13, log_softmax_forward, log_softmax_vjp),
    SOFTMAX_GRAD("mest.SoftmaxGrad", softmax_grad_forward),
    SOFTMAX_GRAD("mest.LogSoftmaxGrad", log_softmax_grad_forward),
    { .name = NULL },
};
