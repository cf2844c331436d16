/* SPDX-License-Identifier: Apache-2.0 */
/* RMSNormalization: Y = scale * X / sqrt(mean(X^2) + epsilon) over the axes from `axis` on; scale is one number or has
 * those axes; others that broadcast to X are written out by the pass composed_form. ONNX since 23.
 * mest.RMSNormalizationGrad (X, scale, dY) -> dX, dscale [the normalised axes]: the deviation is computed again. */
#include <inttypes.h>

#include "ops/composed.h"
#include "ops/elements.h"
#include "ops/nn.h"

static const mest_attr rms_attrs[] = {
    { .name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(mest_norm_params, axis), .number = -1 },
    { .name = "epsilon", .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_norm_params, epsilon), .number = 1e-5 },
    { .name = "stash_type", .kind = MEST_ATTR_INT, .offset = offsetof(mest_norm_params, stash_type), .number = 1 },
    { .name = NULL } };

static mest_status rms_infer(mest_infer *c)
{
    const mest_norm_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape, *s = &c->in[1]->shape;
    int axis;
    char tx[64], ts[64];
    MEST_TRY(mest_infer_axis(c, p->axis, x->rank, &axis));
    mest_shape all;
    MEST_INFER_CHECK(c, mest_shape_broadcast(x, s, &all) && mest_shape_equal(&all, x), "scale %s does not broadcast to X %s", mest_shape_text(s, ts, sizeof ts),
                     mest_shape_text(x, tx, sizeof tx));
    return mest_infer_set(c, 0, MEST_F32, x);
}

typedef struct rows {
    int64_t n, size, scale_step;
    double epsilon;
    const mest_real *x, *scale, *dy;
    mest_real *y, *dscale;
} rows;

static rows rows_of(const mest_args *a)
{
    const mest_norm_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    int axis = mest_axis(p->axis, x->rank);
    return (rows){ .n = mest_shape_span(x, 0, axis), .size = mest_shape_span(x, axis, x->rank), .scale_step = a->in[1].count > 1, .epsilon = p->epsilon,
                   .x = a->in[0].data, .scale = a->in[1].data, .y = a->out[0].data };
}

static double inverse(const rows *r, const mest_real *x)
{
    double sum = 0;
    for (int64_t i = 0; i < r->size; i++)
        sum += (double)x[i] * (double)x[i];
    return 1 / sqrt(sum / (double)r->size + r->epsilon);
}

static void forward_tile(void *context, size_t tile)
{
    const rows *r = context;
    const mest_real *x = r->x + (int64_t)tile * r->size;
    mest_real *y = r->y + (int64_t)tile * r->size, s = (mest_real)inverse(r, x);
    for (int64_t i = 0; i < r->size; i++)
        y[i] = x[i] * s * (r->scale ? r->scale[i * r->scale_step] : 1);
}

static mest_status rms_forward(const mest_args *a)
{
    const mest_shape *x = &a->in[0].type->shape;
    const bool shaped = a->in[1].count == 1 || mest_norm_row_shaped(&a->in[1].type->shape, x, mest_axis(((const mest_norm_params *)a->params)->axis, x->rank));
    rows r = rows_of(a);
    if (!shaped)
        r.scale = NULL;
    if (r.size > 0)
        mest_parallel(a->threads, (size_t)r.n, forward_tile, &r);
    if (!shaped)
        mest_norm_broadcast(a);
    return MEST_OK;
}

/* dX = s * (g - x * s^2 * mean(g x)), g = dY * scale, s = 1 / sqrt(mean(x^2) + epsilon) */
static void grad_tile(void *context, size_t tile)
{
    const rows *r = context;
    const mest_real *x = r->x + (int64_t)tile * r->size, *dy = r->dy + (int64_t)tile * r->size;
    mest_real *dx = r->y + (int64_t)tile * r->size;
    double s = inverse(r, x), cross = 0;
    for (int64_t i = 0; i < r->size; i++)
        cross += (double)dy[i] * (double)r->scale[i * r->scale_step] * (double)x[i];
    cross *= s * s / (double)r->size;
    for (int64_t i = 0; i < r->size; i++)
        dx[i] = (mest_real)(s * ((double)dy[i] * (double)r->scale[i * r->scale_step] - (double)x[i] * cross));
}

enum { STRIP = 512 };
static void columns_tile(void *context, size_t tile)
{
    const rows *r = context;
    double sum[STRIP] = { 0 };
    int64_t from = (int64_t)tile * STRIP, n = r->size - from < STRIP ? r->size - from : STRIP;
    for (int64_t k = 0; k < r->n; k++) {
        const mest_real *x = r->x + k * r->size, *dy = r->dy + k * r->size;
        double s = inverse(r, x);
        for (int64_t i = 0; i < n; i++)
            sum[i] += (double)dy[from + i] * (double)x[from + i] * s;
    }
    for (int64_t i = 0; i < n; i++)
        r->dscale[from + i] = (mest_real)sum[i];
}

static mest_status grad_forward(const mest_args *a)
{
    rows r = rows_of(a);
    r.dy = a->in[2].data;
    r.dscale = a->n_out > 1 ? a->out[1].data : NULL;
    if (r.y && r.size > 0)
        mest_parallel(a->threads, (size_t)r.n, grad_tile, &r);
    if (r.dscale && r.size > 0)
        mest_parallel(a->threads, (size_t)((r.size + STRIP - 1) / STRIP), columns_tile, &r);
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape;
    mest_shape s = { .rank = 0 };
    MEST_TRY(mest_infer_set(c, 0, MEST_F32, x));
    for (int i = mest_axis(((const mest_norm_params *)c->params)->axis, x->rank); i < x->rank; i++)
        s.dim[s.rank++] = x->dim[i];
    /* of the scale's own shape where it has the same elements; one number is summed up by the driver */
    return c->n_out > 1 ? mest_infer_set(c, 1, MEST_F32, c->in[1]->shape.rank >= s.rank && mest_shape_span(&c->in[1]->shape, 0, c->in[1]->shape.rank) ==
                                                             mest_shape_span(&s, 0, s.rank) ? &c->in[1]->shape : &s) : MEST_OK;
}

static mest_status rms_vjp(mest_vjp *v)
{
    return mest_give_grads(v, "mest.RMSNormalizationGrad", NULL, 3, (mest_id[]){ mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0) }, 2);
}

const mest_op mest_ops_rmsnorm[] = {
    { .domain = "", .name = "RMSNormalization", .since = 23, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_INPLACE,
      .attrs = rms_attrs, .params_bytes = sizeof(mest_norm_params), .infer = rms_infer, .forward = rms_forward, .vjp = rms_vjp },
    { .domain = "mest", .name = "mest.RMSNormalizationGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 2,
      .params_bytes = sizeof(mest_norm_params), .infer = grad_infer, .forward = grad_forward },
    { .name = NULL },
};
