/* SPDX-License-Identifier: Apache-2.0 */
/* LpPool, GlobalLpPool: Y = (sum over the window of |x|^p)^(1/p), padding counts as zero; one to three spatial axes. ONNX LpPool since 2
 * (11; 18 adds ceil_mode and dilations). mest.LpPoolGrad (X, Y, dY) -> dX: dY sign(x) (|x| / y)^(p-1), 0 where y is 0; a global pool is
 * one window. */
#include "ops/elements.h"
#include "ops/window.h"

typedef struct lp_params {
    mest_pool_params pool;
    int64_t p;
} lp_params;

#define POOL(name_, kind_, field, ...) { .name = name_, .kind = kind_, .offset = offsetof(lp_params, pool.field), __VA_ARGS__ }
static const mest_attr lp_attrs[] = {
    POOL("kernel_shape", MEST_ATTR_INTS, kernel_shape, .required = true), POOL("strides", MEST_ATTR_INTS, strides, .number = 0),
    POOL("pads", MEST_ATTR_INTS, pads, .number = 0), POOL("dilations", MEST_ATTR_INTS, dilations, .number = 0),
    POOL("ceil_mode", MEST_ATTR_INT, ceil_mode, .number = 0), POOL("auto_pad", MEST_ATTR_STRING, auto_pad, .text = "NOTSET"),
    { .name = "p", .kind = MEST_ATTR_INT, .offset = offsetof(lp_params, p), .number = 2 }, { .name = NULL } };
static const mest_attr global_attrs[] = { { .name = "p", .kind = MEST_ATTR_INT, .offset = offsetof(lp_params, p), .number = 2 }, { .name = NULL } };

/* The window of a node; without kernel_shape it is all of the image. */
static bool window_of(const lp_params *p, const mest_shape *x, mest_window *w, char *why, size_t why_size)
{
    static const mest_ints none;
    mest_ints whole = { x->rank - 2, x->dim + 2 };
    bool global = p->pool.kernel_shape.n == 0;
    mest_window_spec spec = { global ? &whole : &p->pool.kernel_shape, global ? &none : &p->pool.strides, global ? &none : &p->pool.pads,
                              global ? &none : &p->pool.dilations, p->pool.auto_pad, p->pool.ceil_mode != 0 };
    return mest_window_of(&spec, x, w, why, why_size);
}

static mest_status lp_infer(mest_infer *c)
{
    char why[160];
    mest_window w;
    mest_shape y = c->in[0]->shape;
    MEST_INFER_CHECK(c, y.rank >= 3, "input must be [N, C, ...] with spatial axes, not of rank %d", (int)y.rank);
    MEST_INFER_CHECK(c, ((const lp_params *)c->params)->p >= 1, "p must be at least 1");
    if (!window_of(c->params, &y, &w, why, sizeof why))
        return mest_infer_fail(c, MEST_E_SHAPE, "%s", why);
    for (int i = 2; i < y.rank; i++)
        y.dim[i] = w.out[3 - w.spatial + i - 2];
    return mest_infer_set(c, 0, MEST_F32, &y);
}

typedef struct lp_pool {
    mest_window w;
    mest_real p;
    const mest_real *x, *y, *dy;
    mest_real *out;
} lp_pool;

/* Calls fn for each tap inside the image of each window of a plane. */
static inline __attribute__((always_inline)) void for_taps(const lp_pool *l, int64_t plane, void (*fn)(const lp_pool *, int64_t x, int64_t y))
{
    const mest_window *w = &l->w;
    int64_t y = plane * mest_window_volume(w->out), start = plane * mest_window_volume(w->in), o[3], k[3];
    for (o[0] = 0; o[0] < w->out[0]; o[0]++)
        for (o[1] = 0; o[1] < w->out[1]; o[1]++)
            for (o[2] = 0; o[2] < w->out[2]; o[2]++, y++)
                for (k[0] = 0; k[0] < w->kernel[0]; k[0]++)
                    for (k[1] = 0; k[1] < w->kernel[1]; k[1]++)
                        for (k[2] = 0; k[2] < w->kernel[2]; k[2]++) {
                            int64_t at = 0;
                            bool inside = true;
                            for (int i = 0; i < 3; i++) {
                                int64_t pos = o[i] * w->stride[i] - w->lo[i] + k[i] * w->dilation[i];
                                inside &= pos >= 0 && pos < w->in[i];
                                at = at * w->in[i] + pos;
                            }
                            if (inside)
                                fn(l, start + at, y);
                        }
}

static inline mest_real power(mest_real x, mest_real p) { return p == 1 ? x : p == 2 ? x * x : REAL(pow)(x, p); }

static inline void add_tap(const lp_pool *l, int64_t x, int64_t y) { l->out[y] += power(REAL(fabs)(l->x[x]), l->p); }
static void forward_tile(void *context, size_t tile)
{
    const lp_pool *l = context;
    int64_t n = mest_window_volume(l->w.out);
    mest_real *y = l->out + (int64_t)tile * n;
    memset(y, 0, (size_t)n * sizeof *y);
    for_taps(l, (int64_t)tile, add_tap);
    for (int64_t i = 0; i < n; i++)
        y[i] = l->p == 1 ? y[i] : l->p == 2 ? REAL(sqrt)(y[i]) : REAL(pow)(y[i], 1 / l->p);
}

static inline void grad_tap(const lp_pool *l, int64_t x, int64_t y)
{
    mest_real v = l->x[x], norm = l->y[y];
    if (norm > 0 && v != 0)
        l->out[x] += l->dy[y] * (v > 0 ? 1 : -1) * power(REAL(fabs)(v) / norm, l->p - 1);
}
static void grad_tile(void *context, size_t tile)
{
    const lp_pool *l = context;
    int64_t n = mest_window_volume(l->w.in);
    memset(l->out + (int64_t)tile * n, 0, (size_t)n * sizeof *l->out);
    for_taps(l, (int64_t)tile, grad_tap);
}

static mest_status run(const mest_args *a, bool grad)
{
    const mest_shape *x = &a->in[0].type->shape;
    lp_pool l = { .p = (mest_real)((const lp_params *)a->params)->p, .x = a->in[0].data, .out = a->out[0].data };
    char why[160];
    if (grad) {
        l.y = a->in[1].data;
        l.dy = a->in[2].data;
    }
    if (!window_of(a->params, x, &l.w, why, sizeof why))
        return mest_run_fail(a, MEST_E_INTERNAL, "%s", why);
    mest_parallel(a->threads, (size_t)(x->dim[0] * x->dim[1]), grad ? grad_tile : forward_tile, &l);
    return MEST_OK;
}
static mest_status lp_forward(const mest_args *a) { return run(a, false); }
static mest_status lp_grad(const mest_args *a) { return run(a, true); }

static mest_status lp_vjp(mest_vjp *v)
{
    mest_id in[3] = { mest_in(v, 0), mest_out(v, 0), mest_dout(v, 0) };
    return mest_give_op(v, 0, "mest.LpPoolGrad", NULL, 3, in);
}

#define LP_POOL(name_, since_, attrs_)                                                                                       \
    { .domain = "", .name = name_, .since = since_, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .attrs = attrs_,   \
      .params_bytes = sizeof(lp_params), .infer = lp_infer, .forward = lp_forward, .vjp = lp_vjp }

const mest_op mest_ops_lp_pool[] = {
    LP_POOL("LpPool", 2, lp_attrs),
    LP_POOL("GlobalLpPool", 2, global_attrs),
    { .domain = "mest", .name = "mest.LpPoolGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1,
      .params_bytes = sizeof(lp_params), .infer = mest_infer_same, .forward = lp_grad },
    { .name = NULL },
};
