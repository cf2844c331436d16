/* SPDX-License-Identifier: Apache-2.0 */
/* MaxPool (with Indices) and AveragePool over X[N,C,...], one to three spatial axes; ceil_mode, dilations, pads, auto_pad, count_include_pad.
 * ONNX MaxPool since 1 (8 Indices, 10 ceil_mode and dilations, 12), AveragePool since 1 (7, 10, 11, 19 dilations). With ceil_mode the
 * last window must start inside the input or its leading pad, as in PyTorch. Padding never wins a maximum.
 * mest.MaxPoolGrad (X, Y, dY) -> dX: to the first maximum in scan order. mest.AveragePoolGrad (dY) -> dX, params with x_shape. */
#include "ops/window.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define POOL_ATTRS                                                                                                          \
    { .name = "kernel_shape", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_pool_params, kernel_shape), .required = true }, \
    { .name = "strides", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_pool_params, strides) },                            \
    { .name = "pads", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_pool_params, pads) },                                  \
    { .name = "dilations", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_pool_params, dilations) },                        \
    { .name = "ceil_mode", .kind = MEST_ATTR_INT, .offset = offsetof(mest_pool_params, ceil_mode) },                         \
    { .name = "auto_pad", .kind = MEST_ATTR_STRING, .offset = offsetof(mest_pool_params, auto_pad), .text = "NOTSET" }

static const mest_attr max_attrs[] = {
    POOL_ATTRS,
    { .name = "storage_order", .kind = MEST_ATTR_INT, .offset = offsetof(mest_pool_params, storage_order) },
    { .name = NULL },
};
static const mest_attr average_attrs[] = {
    POOL_ATTRS,
    { .name = "count_include_pad", .kind = MEST_ATTR_INT, .offset = offsetof(mest_pool_params, count_include_pad) },
    { .name = NULL },
};

static bool window_of(const mest_pool_params *p, const mest_shape *x, mest_window *w, char *why, size_t why_size)
{
    mest_window_spec spec = { &p->kernel_shape, &p->strides, &p->pads, &p->dilations, p->auto_pad, p->ceil_mode != 0 };
    return mest_window_of(&spec, x, w, why, why_size);
}

bool mest_pool_geometry_of(const mest_pool_params *params, const mest_shape *x, mest_pool_geometry *g, char *why, size_t why_size)
{
    mest_window w;
    if (!window_of(params, x, &w, why, why_size))
        return false;
    if (w.spatial > 2) {
        snprintf(why, why_size, "three spatial axes");
        return false;
    }
    *g = (mest_pool_geometry){
        .n = x->dim[0], .c = x->dim[1], .h = w.in[1], .w = w.in[2], .p = w.out[1], .q = w.out[2], .r = w.kernel[1], .s = w.kernel[2],
        .stride_y = w.stride[1], .stride_x = w.stride[2], .dilation_y = w.dilation[1], .dilation_x = w.dilation[2], .top = w.lo[1],
        .left = w.lo[2], .bottom = w.hi[1], .right = w.hi[2], .spatial = w.spatial,
    };
    return true;
}

static mest_status pool_infer(mest_infer *c)
{
    char why[160];
    mest_window w;
    const mest_shape *x = &c->in[0]->shape;
    if (!window_of(c->params, x, &w, why, sizeof why))
        return mest_infer_fail(c, MEST_E_SHAPE, "%s", why);
    for (int i = 1; i < c->n_out; i++)
        c->out[i].dtype = MEST_I64;
    c->out[0].dtype = c->in[0]->dtype;
    for (int k = 0; k < c->n_out; k++) {
        c->out[k].shape = *x;
        for (int i = 2; i < x->rank; i++)
            c->out[k].shape.dim[i] = w.out[3 - w.spatial + i - 2];
    }
    return MEST_OK;
}

typedef struct pool {
    mest_window w;
    size_t planes;
    int64_t pixels, positions; /* of one plane of X and of Y */
    bool include_pad;
    const mest_real *x, *y, *dy;
    mest_real *out;
    int64_t *indices;
    bool column_major;         /* indices count within a plane down the columns (two spatial axes) */
} pool;

static mest_status pool_of(const mest_args *a, const mest_shape *x, pool *p)
{
    const mest_pool_params *params = a->params;
    char why[160];
    memset(p, 0, sizeof *p);
    if (!window_of(params, x, &p->w, why, sizeof why))
        return mest_run_fail(a, MEST_E_INTERNAL, "%s", why);
    p->pixels = mest_window_volume(p->w.in);
    p->positions = mest_window_volume(p->w.out);
    p->include_pad = params->count_include_pad != 0;
    p->planes = (size_t)(x->dim[0] * x->dim[1]);
    return MEST_OK;
}

/* Taps [first, last) of a window at output index o that lie inside the image, per axis; `limit` counts those before the end of the
 * trailing pad (what an average that includes padding divides by). */
typedef struct span { int64_t start, first, last, limit; } span;

static inline span span_of(const mest_window *w, int axis, int64_t o)
{
    int64_t step = w->dilation[axis];
    span s = { .start = o * w->stride[axis] - w->lo[axis] };
    s.first = s.start >= 0 ? 0 : (-s.start + step - 1) / step;
    s.last = w->in[axis] <= s.start ? 0 : (w->in[axis] - s.start + step - 1) / step;
    s.last = s.last < w->kernel[axis] ? s.last : w->kernel[axis];
    s.limit = (w->in[axis] + w->hi[axis] - s.start + step - 1) / step;
    s.limit = s.limit < w->kernel[axis] ? s.limit : w->kernel[axis];
    return s;
}

/* A window: its taps inside the image along each axis. */
typedef struct place { span z, y, x; } place;

/* Calls fn for every window of plane `tile`; j numbers the output positions of all planes. */
static inline __attribute__((always_inline)) void for_windows(const pool *p, size_t tile, void (*fn)(const pool *, size_t, const place *, int64_t))
{
    int64_t j = (int64_t)tile * p->positions;
    for (int64_t z = 0; z < p->w.out[0]; z++)
        for (int64_t y = 0; y < p->w.out[1]; y++)
            for (int64_t x = 0; x < p->w.out[2]; x++, j++) {
                place s = { span_of(&p->w, 0, z), span_of(&p->w, 1, y), span_of(&p->w, 2, x) };
                fn(p, tile, &s, j);
            }
}

/* Offset in the image tensor of tap (z, y, first of x) of a window. */
static inline int64_t row_at(const pool *p, size_t tile, const place *s, int64_t z, int64_t y)
{
    const mest_window *w = &p->w;
    int64_t row = (s->z.start + z * w->dilation[0]) * w->in[1] + s->y.start + y * w->dilation[1];
    return (int64_t)tile * p->pixels + row * w->in[2] + s->x.start + s->x.first * w->dilation[2];
}

static inline void max_window(const pool *p, size_t tile, const place *s, int64_t j)
{
    mest_real best = (mest_real)-INFINITY;
    for (int64_t z = s->z.first; z < s->z.last; z++)
        for (int64_t y = s->y.first; y < s->y.last; y++) {
            const mest_real *x = p->x + row_at(p, tile, s, z, y);
            for (int64_t i = s->x.first; i < s->x.last; i++, x += p->w.dilation[2])
                best = *x > best || *x != *x ? *x : best; /* not a number wins, so that it is seen */
        }
    p->out[j] = best;
}

static void max_tile(void *context, size_t tile) { for_windows(context, tile, max_window); }

static int64_t winner(const pool *p, size_t tile, const place *s, mest_real y);

static inline void index_window(const pool *p, size_t tile, const place *s, int64_t j)
{
    int64_t at = winner(p, tile, s, p->y[j]);
    if (at >= 0 && p->column_major) {
        int64_t in_plane = at - (int64_t)tile * p->pixels, width = p->w.in[2];
        at += in_plane % width * p->w.in[1] + in_plane / width - in_plane;
    }
    p->indices[j] = at;
}
static void index_tile(void *context, size_t tile) { for_windows(context, tile, index_window); }

static mest_status max_forward(const mest_args *a)
{
    pool p;
    MEST_TRY(pool_of(a, &a->in[0].type->shape, &p));
    p.x = a->in[0].data;
    p.out = a->out[0].data;
    mest_parallel(a->threads, p.planes, max_tile, &p);
    if (a->n_out > 1 && a->out[1].data) { /* of the whole of X, as ONNX counts */
        p.y = p.out;
        p.indices = a->out[1].data;
        p.column_major = ((const mest_pool_params *)a->params)->storage_order != 0 && p.w.spatial == 2;
        mest_parallel(a->threads, p.planes, index_tile, &p);
    }
    return MEST_OK;
}

static mest_status max_vjp(mest_vjp *v)
{
    mest_id in[3] = { mest_in(v, 0), mest_out(v, 0), mest_dout(v, 0) };
    return mest_give_op(v, 0, "mest.MaxPoolGrad", NULL, 3, in);
}

/* Where the maximum came from, -1 if nowhere (a window in the padding). */
static int64_t winner(const pool *p, size_t tile, const place *s, mest_real y)
{
    for (int64_t z = s->z.first; z < s->z.last; z++)
        for (int64_t r = s->y.first; r < s->y.last; r++) {
            int64_t at = row_at(p, tile, s, z, r);
            for (int64_t i = s->x.first; i < s->x.last; i++, at += p->w.dilation[2])
                if (p->x[at] == y || (p->x[at] != p->x[at] && y != y))
                    return at;
        }
    return -1;
}

static inline void max_grad_window(const pool *p, size_t tile, const place *s, int64_t j)
{
    int64_t at = winner(p, tile, s, p->y[j]);
    if (at >= 0)
        p->out[at] += p->dy[j];
}

static void max_grad_tile(void *context, size_t tile)
{
    const pool *p = context;
    memset(p->out + (int64_t)tile * p->pixels, 0, (size_t)p->pixels * sizeof *p->out);
    for_windows(p, tile, max_grad_window);
}

static mest_status max_grad_forward(const mest_args *a)
{
    pool p;
    MEST_TRY(pool_of(a, &a->in[0].type->shape, &p));
    p.x = a->in[0].data;
    p.y = a->in[1].data;
    p.dy = a->in[2].data;
    p.out = a->out[0].data;
    mest_parallel(a->threads, p.planes, max_grad_tile, &p);
    return MEST_OK;
}

static inline int64_t divisor(const pool *p, const place *s)
{
    if (p->include_pad)
        return s->z.limit * s->y.limit * s->x.limit;
    return (s->z.last - s->z.first) * (s->y.last - s->y.first) * (s->x.last - s->x.first);
}

static inline void average_window(const pool *p, size_t tile, const place *s, int64_t j)
{
    mest_real sum = 0;
    for (int64_t z = s->z.first; z < s->z.last; z++)
        for (int64_t y = s->y.first; y < s->y.last; y++) {
            const mest_real *x = p->x + row_at(p, tile, s, z, y);
            for (int64_t i = s->x.first; i < s->x.last; i++, x += p->w.dilation[2])
                sum += *x;
        }
    int64_t n = divisor(p, s);
    p->out[j] = n > 0 ? sum / (mest_real)n : 0; /* a window that lies in the padding */
}

static void average_tile(void *context, size_t tile) { for_windows(context, tile, average_window); }

static mest_status average_forward(const mest_args *a)
{
    pool p;
    MEST_TRY(pool_of(a, &a->in[0].type->shape, &p));
    p.x = a->in[0].data;
    p.out = a->out[0].data;
    mest_parallel(a->threads, p.planes, average_tile, &p);
    return MEST_OK;
}

static mest_status average_vjp(mest_vjp *v)
{
    mest_pool_params *p = mest_vjp_alloc(v, sizeof *p);
    if (!p)
        return mest_fail(mest_vjp_err(v), MEST_E_NOMEM, "AveragePool: no memory for the gradient's parameters");
    *p = *(const mest_pool_params *)mest_vjp_node(v)->params;
    p->x_shape = mest_vjp_type(v, mest_in(v, 0))->shape;
    mest_id dy = mest_dout(v, 0);
    return mest_give_op(v, 0, "mest.AveragePoolGrad", p, 1, &dy);
}

static mest_status average_grad_infer(mest_infer *c)
{
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = ((const mest_pool_params *)c->params)->x_shape;
    return MEST_OK;
}

static inline void average_grad_window(const pool *p, size_t tile, const place *s, int64_t j)
{
    int64_t n = divisor(p, s);
    mest_real share = n > 0 ? p->dy[j] / (mest_real)n : 0;
    for (int64_t z = s->z.first; z < s->z.last; z++)
        for (int64_t y = s->y.first; y < s->y.last; y++) {
            mest_real *dx = p->out + row_at(p, tile, s, z, y);
            for (int64_t i = s->x.first; i < s->x.last; i++, dx += p->w.dilation[2])
                *dx += share;
        }
}

static void average_grad_tile(void *context, size_t tile)
{
    const pool *p = context;
    memset(p->out + (int64_t)tile * p->pixels, 0, (size_t)p->pixels * sizeof *p->out);
    for_windows(p, tile, average_grad_window);
}

static mest_status average_grad_forward(const mest_args *a)
{
    pool p;
    MEST_TRY(pool_of(a, &a->out[0].type->shape, &p));
    p.dy = a->in[0].data;
    p.out = a->out[0].data;
    mest_parallel(a->threads, p.planes, average_grad_tile, &p);
    return MEST_OK;
}

const mest_op mest_ops_pool[] = {
    { .domain = "", .name = "MaxPool", .limits = "numbers other than float32, more than three spatial axes", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 2, .act_in = 1u << 0, .act_out = 1u << 0,
      .attrs = max_attrs, .params_bytes = sizeof(mest_pool_params), .infer = pool_infer, .forward = max_forward, .vjp = max_vjp },
    { .domain = "mest", .name = "mest.MaxPoolGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1,
      .act_in = 1u << 0 | 1u << 1 | 1u << 2, .act_out = 1u << 0, .params_bytes = sizeof(mest_pool_params), .infer = mest_infer_same,
      .forward = max_grad_forward },
    { .domain = "", .name = "AveragePool", .limits = "more than three spatial axes", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .act_in = 1u << 0,
      .act_out = 1u << 0, .attrs = average_attrs, .params_bytes = sizeof(mest_pool_params), .infer = pool_infer, .forward = average_forward,
      .vjp = average_vjp },
    { .domain = "mest", .name = "mest.AveragePoolGrad", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .act_in = 1u << 0,
      .act_out = 1u << 0, .params_bytes = sizeof(mest_pool_params), .infer = average_grad_infer, .forward = average_grad_forward },
    { .name = NULL },
};
