/* SPDX-License-Identifier: Apache-2.0 */
/* LayerNormalization: Y = scale * (X - mean) / sqrt(var + epsilon) + B over the axes from `axis` on; scale and B have the shape of those
 * axes; others that broadcast to X are written out by the pass composed_form. Outputs Mean and InvStdDev [leading axes, 1, ...]. ONNX since 17.
 * mest.LayerNormalizationGrad (X, scale, dY) -> dX, dscale, dB: mean and deviation are computed again, which is cheaper than to keep them. */
#include "ops/composed.h"
#include "ops/dense.h"
#include "ops/elements.h"
#include "ops/nn.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

static const mest_attr layernorm_attrs[] = {
    { .name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(mest_norm_params, axis), .number = -1 },
    { .name = "epsilon", .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_norm_params, epsilon), .number = 1e-5 },
    { .name = "stash_type", .kind = MEST_ATTR_INT, .offset = offsetof(mest_norm_params, stash_type), .number = 1 },
    { .name = NULL },
};

/* leading ones allowed */
bool mest_norm_row_shaped(const mest_shape *s, const mest_shape *x, int axis)
{
    int extra = s->rank - (x->rank - axis);
    if (extra < 0)
        return false;
    for (int i = 0; i < s->rank; i++)
        if (s->dim[i] != (i < extra ? 1 : x->dim[axis + i - extra]))
            return false;
    return true;
}

static mest_status layernorm_infer(mest_infer *c)
{
    const mest_norm_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape;
    int axis = mest_axis(p->axis, x->rank);
    char text[64], text_x[64];
    mest_shape all;
    MEST_INFER_CHECK(c, axis >= 0, "axis %" PRId64 " of an input of rank %d", p->axis, (int)x->rank);
    for (int i = 1; i < c->n_in && i < 3; i++)
        MEST_INFER_CHECK(c, !c->in[i] || (mest_shape_broadcast(x, &c->in[i]->shape, &all) && mest_shape_equal(&all, x)), "%s %s does not broadcast to X %s",
                         i == 1 ? "Scale" : "B", mest_shape_text(&c->in[i]->shape, text, sizeof text), mest_shape_text(x, text_x, sizeof text_x));
    for (int i = 0; i < c->n_out; i++) {
        c->out[i].dtype = c->in[0]->dtype;
        c->out[i].shape = *x;
        for (int k = axis; i > 0 && k < x->rank; k++)
            c->out[i].shape.dim[k] = 1;
    }
    return MEST_OK;
}

typedef struct rows {
    int64_t n, size;
    double epsilon;
    const mest_real *x, *scale, *bias, *dy;
    mest_real *y, *mean, *invstd, *dscale, *dbias;
} rows;

static rows rows_of(const mest_args *a)
{
    const mest_norm_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    int axis = mest_axis(p->axis, x->rank);
    return (rows){ .n = mest_shape_span(x, 0, axis), .size = mest_shape_span(x, axis, x->rank), .epsilon = p->epsilon, .x = a->in[0].data,
                   .scale = a->in[1].data };
}

static void statistics(const rows *r, const mest_real *x, double *mean, double *invstd)
{
    *mean = mest_dense_sum(x, r->size) / (double)r->size;
    *invstd = 1 / sqrt(mest_dense_spread(x, r->size, *mean) / (double)r->size + r->epsilon);
}

static void forward_tile(void *context, size_t tile)
{
    const rows *r = context;
    const mest_real *x = r->x + (int64_t)tile * r->size;
    mest_real *y = r->y + (int64_t)tile * r->size;
    double mean, invstd;
    statistics(r, x, &mean, &invstd);
    mest_real m = (mest_real)mean, s = (mest_real)invstd;
    for (int64_t i = 0; i < r->size; i++)
        y[i] = (x[i] - m) * s * (r->scale ? r->scale[i] : 1) + (r->bias ? r->bias[i] : 0);
    if (r->mean)
        r->mean[tile] = m;
    if (r->invstd)
        r->invstd[tile] = s;
}

static void times_row(const mest_io *io, const int64_t *off, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        ((mest_real *)io->out)[off[0] + i * io->step[0]] = ((const mest_real *)io->in[0])[off[1] + i * io->step[1]] * ((const mest_real *)io->in[1])[off[2] + i * io->step[2]];
}
static void plus_row(const mest_io *io, const int64_t *off, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        ((mest_real *)io->out)[off[0] + i * io->step[0]] = ((const mest_real *)io->in[0])[off[1] + i * io->step[1]] + ((const mest_real *)io->in[1])[off[2] + i * io->step[2]];
}

void mest_norm_broadcast(const mest_args *a)
{
    static const int both[2] = { 0, 1 };
    for (int i = 1; i < a->n_in && i < 3; i++) {
        if (!a->in[i].data)
            continue;
        mest_tensor pair[2] = { a->out[0], a->in[i] };
        mest_args step = *a;
        step.in = pair;
        step.n_in = 2;
        mest_rows(&step, 2, both, i == 1 ? times_row : plus_row);
    }
}

static mest_status layernorm_forward(const mest_args *a)
{
    rows r = rows_of(a);
    r.bias = a->n_in > 2 ? a->in[2].data : NULL;
    const mest_shape *x = &a->in[0].type->shape;
    const int axis = mest_axis(((const mest_norm_params *)a->params)->axis, x->rank);
    bool shaped = true;
    for (int i = 1; i < a->n_in; i++)
        shaped &= !a->in[i].data || mest_norm_row_shaped(&a->in[i].type->shape, x, axis);
    if (!shaped)
        r.scale = r.bias = NULL;
    r.y = a->out[0].data;
    r.mean = a->n_out > 1 ? a->out[1].data : NULL;
    r.invstd = a->n_out > 2 ? a->out[2].data : NULL;
    if (r.size > 0)
        mest_parallel(a->threads, (size_t)r.n, forward_tile, &r);
    if (!shaped)
        mest_norm_broadcast(a);
    return MEST_OK;
}

static mest_status layernorm_vjp(mest_vjp *v)
{
    const mest_id in[3] = { mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0) };
    if (mest_dout(v, 1) != MEST_NONE || mest_dout(v, 2) != MEST_NONE)
        return mest_fail(mest_vjp_err(v), MEST_E_UNSUPPORTED, "LayerNormalization '%s': no gradient through Mean and InvStdDev", mest_vjp_node(v)->name);
    if (in[2] == MEST_NONE)
        return MEST_OK;
    return mest_give_grads(v, "mest.LayerNormalizationGrad", NULL, 3, in, 3);
}

static mest_status grad_infer(mest_infer *c)
{
    for (int i = 0; i < c->n_out; i++) {
        c->out[i].dtype = c->in[0]->dtype;
        c->out[i].shape = i == 0 ? c->in[0]->shape : c->in[1]->shape;
    }
    return MEST_OK;
}

/* dX = invstd * (g - mean(g) - xhat * mean(g * xhat)), g = dY * scale */
static void grad_tile(void *context, size_t tile)
{
    const rows *r = context;
    const mest_real *x = r->x + (int64_t)tile * r->size, *dy = r->dy + (int64_t)tile * r->size;
    mest_real *dx = r->y + (int64_t)tile * r->size;
    double mean, invstd, sum = 0, cross = 0;
    statistics(r, x, &mean, &invstd);
    for (int64_t i = 0; i < r->size; i++) {
        double g = (double)dy[i] * (double)r->scale[i];
        sum += g;
        cross += g * ((double)x[i] - mean);
    }
    double a = -sum / (double)r->size * invstd, b = -cross / (double)r->size * invstd * invstd * invstd;
    mest_real m = (mest_real)mean, s = (mest_real)invstd, shift = (mest_real)a, slope = (mest_real)b;
    for (int64_t i = 0; i < r->size; i++)
        dx[i] = dy[i] * r->scale[i] * s + ((x[i] - m) * slope + shift);
}

/* Columns: dscale and dB summed over the rows, in double and row order. A tile is a strip of columns; it needs the statistics of every
 * row, which mean and invstd of the strip's own pass would repeat: so strips are wide. */
enum { STRIP = 512 };
static void columns_tile(void *context, size_t tile)
{
    const rows *r = context;
    double scale[STRIP] = { 0 }, bias[STRIP] = { 0 };
    int64_t from = (int64_t)tile * STRIP, n = r->size - from < STRIP ? r->size - from : STRIP;
    for (int64_t k = 0; k < r->n; k++) {
        const mest_real *x = r->x + k * r->size, *dy = r->dy + k * r->size + from;
        double mean = 0, invstd = 0;
        if (r->dscale)
            statistics(r, x, &mean, &invstd);
        for (int64_t i = 0; i < n; i++) {
            bias[i] += (double)dy[i];
            scale[i] += (double)dy[i] * (((double)x[from + i] - mean) * invstd);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        if (r->dscale)
            r->dscale[from + i] = (mest_real)scale[i];
        if (r->dbias)
            r->dbias[from + i] = (mest_real)bias[i];
    }
}

static mest_status grad_forward(const mest_args *a)
{
    rows r = rows_of(a);
    r.dy = a->in[2].data;
    r.y = a->out[0].data;
    r.dscale = a->n_out > 1 ? a->out[1].data : NULL;
    r.dbias = a->n_out > 2 ? a->out[2].data : NULL;
    if (r.size == 0)
        return MEST_OK;
    if (r.y)
        mest_parallel(a->threads, (size_t)r.n, grad_tile, &r);
    if (r.dscale || r.dbias)
        mest_parallel(a->threads, (size_t)((r.size + STRIP - 1) / STRIP), columns_tile, &r);
    return MEST_OK;
}

const mest_op mest_ops_layernorm[] = {
    { .domain = "", .name = "LayerNormalization", .limits = "gradients through Mean and InvStdDev", .since = 17, .in_min = 2, .in_max = 3, .out_min = 1, .out_max = 3, .flags = MEST_OP_INPLACE,
      .attrs = layernorm_attrs, .params_bytes = sizeof(mest_norm_params), .infer = layernorm_infer, .forward = layernorm_forward,
      .vjp = layernorm_vjp },
    { .domain = "mest", .name = "mest.LayerNormalizationGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 3,
      .params_bytes = sizeof(mest_norm_params), .infer = grad_infer, .forward = grad_forward },
    { .name = NULL },
};
