/* SPDX-License-Identifier: Apache-2.0 */
/* AffineGrid(theta, size): places for GridSample. theta[N,A,A+1] for A = 2 or 3 axes, size = (N, C, D?, H, W), a constant; Y[N,D?,H,W,A] =
 * theta (x, y, z?, 1) with x, y, z in [-1, 1]: the corners' centres if align_corners, otherwise the corners' outer edges. ONNX since 20.
 * mest.AffineGridGrad(dY): dtheta = sum of dY (x, y, z?, 1)' (params: affine_places). */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct affine_params { int64_t align; } affine_params;

enum { AXES = 3 };
typedef struct affine_places {
    int axes;
    bool align;
    int64_t n, dim[AXES], points; /* dim in the order of the image: D, H, W or H, W */
} affine_places;

static const char *resolve(const affine_params *p, const mest_shape *theta, const int64_t *size, int n, affine_places *t)
{
    *t = (affine_places){.axes = n - 2, .align = p->align != 0, .points = 1};
    if (n != 4 && n != 5)
        return "size must be N, C, H, W or N, C, D, H, W";
    t->n = size[0];
    if (theta->rank != 3 || theta->dim[0] != t->n || theta->dim[1] != t->axes || theta->dim[2] != t->axes + 1)
        return "theta must be [N, 2, 3] for two spatial axes, [N, 3, 4] for three";
    for (int i = 0; i < t->axes; i++) {
        t->dim[i] = size[2 + i];
        if (t->dim[i] < 1 || __builtin_mul_overflow(t->points, t->dim[i], &t->points))
            return "a size is not positive, or too large";
    }
    return NULL;
}

static mest_status affine_infer(mest_infer *c)
{
    int64_t size[5];
    int n;
    affine_places t;
    MEST_INFER_CHECK(c, c->in[0]->dtype == MEST_F32, "element type %s is not supported", mest_dtype_name(c->in[0]->dtype));
    MEST_TRY(mest_infer_ints(c, 1, 5, size, &n));
    const char *why = resolve(c->params, &c->in[0]->shape, size, n, &t);
    MEST_INFER_CHECK(c, !why, "%s", why);
    mest_shape y = {.rank = t.axes + 2, .dim = {t.n}};
    for (int i = 0; i < t.axes; i++)
        y.dim[1 + i] = t.dim[i];
    y.dim[t.axes + 1] = t.axes;
    return mest_infer_set(c, 0, MEST_F32, &y);
}

/* (x, y, z?, 1) of a point. */
static void place(const affine_places *t, int64_t point, double *at)
{
    for (int i = t->axes - 1; i >= 0; i--) {
        const double n = (double)t->dim[i], k = (double)(point % t->dim[i]);
        point /= t->dim[i];
        at[t->axes - 1 - i] = !t->align ? (2 * k + 1) / n - 1 : n > 1 ? 2 * k / (n - 1) - 1 : 0;
    }
    at[t->axes] = 1;
}

typedef struct job {
    const affine_places *t;
    const mest_real *in;
    mest_real *out;
} job;

/* A sample. */
static void forward_tile(void *context, size_t tile)
{
    const job *j = context;
    const affine_places *t = j->t;
    const mest_real *theta = j->in + (int64_t)tile * t->axes * (t->axes + 1);
    mest_real *y = j->out + (int64_t)tile * t->points * t->axes;
    for (int64_t k = 0; k < t->points; k++) {
        double at[AXES + 1];
        place(t, k, at);
        for (int r = 0; r < t->axes; r++) {
            double sum = 0;
            for (int i = 0; i <= t->axes; i++)
                sum += (double)theta[r * (t->axes + 1) + i] * at[i];
            *y++ = (mest_real)sum;
        }
    }
}

static void grad_tile(void *context, size_t tile)
{
    const job *j = context;
    const affine_places *t = j->t;
    const mest_real *dy = j->in + (int64_t)tile * t->points * t->axes;
    double sum[AXES][AXES + 1] = {{0}};
    for (int64_t k = 0; k < t->points; k++) {
        double at[AXES + 1];
        place(t, k, at);
        for (int r = 0; r < t->axes; r++, dy++)
            for (int i = 0; i <= t->axes; i++)
                sum[r][i] += (double)*dy * at[i];
    }
    mest_real *out = j->out + (int64_t)tile * t->axes * (t->axes + 1);
    for (int r = 0; r < t->axes; r++)
        for (int i = 0; i <= t->axes; i++)
            *out++ = (mest_real)sum[r][i];
}

static mest_status affine_forward(const mest_args *a)
{
    int64_t size[5];
    affine_places t;
    const char *why = resolve(a->params, &a->in[0].type->shape, size, mest_read_ints(&a->in[1], 5, size), &t);
    if (why)
        return mest_run_fail(a, MEST_E_DATA, "%s", why);
    job j = {.t = &t, .in = a->in[0].data, .out = a->out[0].data};
    mest_parallel(a->threads, (size_t)t.n, forward_tile, &j);
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c)
{
    const affine_places *t = c->params;
    return mest_infer_set(c, 0, MEST_F32, &(mest_shape){.rank = 3, .dim = {t->n, t->axes, t->axes + 1}});
}

static mest_status grad_forward(const mest_args *a)
{
    job j = {.t = a->params, .in = a->in[0].data, .out = a->out[0].data};
    mest_parallel(a->threads, (size_t)j.t->n, grad_tile, &j);
    return MEST_OK;
}

static mest_status affine_vjp(mest_vjp *v)
{
    const mest_id dy = mest_dout(v, 0);
    const mest_type *type = mest_vjp_type(v, mest_in(v, 1));
    const mest_tensor sizes = {.type = type, .data = (void *)(uintptr_t)mest_vjp_data(v, mest_in(v, 1)), .count = (size_t)type->shape.dim[0]};
    int64_t size[5];
    affine_places *t = mest_vjp_alloc(v, sizeof *t);
    if (!t)
        return mest_vjp_nomem(v);
    const char *why = resolve(mest_vjp_node(v)->params, &mest_vjp_type(v, mest_in(v, 0))->shape, size, mest_read_ints(&sizes, 5, size), t);
    if (why)
        return mest_fail(mest_vjp_err(v), MEST_E_INTERNAL, "AffineGrid '%s': %s", mest_vjp_node(v)->name, why);
    return mest_give_op(v, 0, "mest.AffineGridGrad", t, 1, &dy);
}

static const mest_attr attrs[] = {{.name = "align_corners", .kind = MEST_ATTR_INT, .offset = offsetof(affine_params, align)}, {.name = NULL}};

const mest_op mest_ops_affine_grid[] = {
    {.domain = "", .name = "AffineGrid", .since = 20, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, .attrs = attrs,
     .params_bytes = sizeof(affine_params), .infer = affine_infer, .forward = affine_forward, .vjp = affine_vjp},
    {.domain = "mest", .name = "mest.AffineGridGrad", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .infer = grad_infer,
     .forward = grad_forward},
    {.name = NULL},
};
