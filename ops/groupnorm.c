/* SPDX-License-Identifier: Apache-2.0 */
/* InstanceNormalization and GroupNormalization of X[N,C,...]: mean and variance over one group of channels of one sample, then scale and
 * bias per channel. ONNX InstanceNormalization since 1 (6), GroupNormalization since 21, and since 18 with scale and bias per group.
 * mest.GroupNormGrad (X, scale, dY) -> dX, dscale, dB with either's params; statistics are computed again. */
#include "ops/dense.h"
#include "ops/nn.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

typedef struct groupnorm_params {
    double epsilon;
    int64_t groups; /* 0: every channel is a group */
    int64_t stash_type;
} groupnorm_params;

static const mest_attr instance_attrs[] = {
    { .name = "epsilon", .kind = MEST_ATTR_FLOAT, .offset = offsetof(groupnorm_params, epsilon), .number = 1e-5 },
    { .name = NULL },
};
static const mest_attr group_attrs[] = {
    { .name = "epsilon", .kind = MEST_ATTR_FLOAT, .offset = offsetof(groupnorm_params, epsilon), .number = 1e-5 },
    { .name = "num_groups", .kind = MEST_ATTR_INT, .offset = offsetof(groupnorm_params, groups), .required = true },
    { .name = "stash_type", .kind = MEST_ATTR_INT, .offset = offsetof(groupnorm_params, stash_type), .number = 1 },
    { .name = NULL },
};

static mest_status infer(mest_infer *c, bool per_group)
{
    const groupnorm_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape;
    MEST_INFER_CHECK(c, x->rank >= 3, "input must be [N, C, ...] with spatial axes, not of rank %d", (int)x->rank);
    MEST_INFER_CHECK(c, p->groups >= 0 && (p->groups == 0 || x->dim[1] % p->groups == 0), "%" PRId64 " groups do not divide %" PRId64 " channels",
                     p->groups, x->dim[1]);
    const int64_t entries = per_group ? p->groups : x->dim[1];
    for (int i = 1; i < c->n_in && i < 3; i++)
        MEST_INFER_CHECK(c, c->in[i]->shape.rank == 1 && c->in[i]->shape.dim[0] == entries, "input %d must have one entry per %s (%" PRId64 ")", i,
                         per_group ? "group" : "channel", entries);
    return mest_infer_same(c);
}
static mest_status channels_infer(mest_infer *c) { return infer(c, false); }
static mest_status groups_infer(mest_infer *c) { return infer(c, true); }

typedef struct groups {
    int64_t n, c, inner, per_sample, channels, size; /* size: channels * inner, elements of one group */
    bool per_group;                                 /* scale and bias have an entry per group */
    double epsilon;
    const mest_real *x, *scale, *bias, *dy;
    mest_real *y, *dscale, *dbias;
} groups;

static groups groups_of(const mest_args *a)
{
    const groupnorm_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    groups g = { .n = x->dim[0], .c = x->dim[1], .inner = mest_shape_span(x, 2, x->rank), .epsilon = p->epsilon, .x = a->in[0].data,
                 .scale = a->in[1].data };
    g.per_sample = p->groups ? p->groups : g.c;
    g.channels = g.per_sample ? g.c / g.per_sample : 0;
    g.size = g.channels * g.inner;
    g.per_group = (int64_t)a->in[1].count != g.c; /* where there are as many groups as channels it is the same */
    return g;
}

/* Entry of scale and bias for channel c of a group. */
static int64_t entry(const groups *g, int64_t group, int64_t c) { return g->per_group ? group : group * g->channels + c; }

static void statistics(const groups *g, const mest_real *x, double *mean, double *invstd)
{
    *mean = mest_dense_sum(x, g->size) / (double)g->size;
    *invstd = 1 / sqrt(mest_dense_spread(x, g->size, *mean) / (double)g->size + g->epsilon);
}

static void forward_tile(void *context, size_t tile)
{
    const groups *g = context;
    int64_t at = (int64_t)tile * g->size, group = (int64_t)tile % g->per_sample;
    double mean, invstd;
    statistics(g, g->x + at, &mean, &invstd);
    for (int64_t c = 0; c < g->channels; c++) {
        double factor = (double)g->scale[entry(g, group, c)] * invstd;
        mest_real f = (mest_real)factor, s = (mest_real)((double)g->bias[entry(g, group, c)] - mean * factor);
        const mest_real *x = g->x + at + c * g->inner;
        mest_real *y = g->y + at + c * g->inner;
        for (int64_t i = 0; i < g->inner; i++)
            y[i] = x[i] * f + s;
    }
}

static mest_status groupnorm_forward(const mest_args *a)
{
    groups g = groups_of(a);
    g.bias = a->in[2].data;
    g.y = a->out[0].data;
    if (g.size > 0)
        mest_parallel(a->threads, (size_t)(g.n * g.per_sample), forward_tile, &g);
    return MEST_OK;
}

static mest_status groupnorm_vjp(mest_vjp *v)
{
    return mest_give_grads(v, "mest.GroupNormGrad", NULL, 3, (mest_id[]){ mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0) }, 3);
}

static mest_status grad_infer(mest_infer *c)
{
    for (int i = 0; i < c->n_out; i++) {
        c->out[i].dtype = c->in[0]->dtype;
        c->out[i].shape = i == 0 ? c->in[0]->shape : c->in[1]->shape;
    }
    return MEST_OK;
}

/* dX = invstd * (q - mean(q) - xhat * mean(q * xhat)), q = dY * scale */
static void grad_tile(void *context, size_t tile)
{
    const groups *g = context;
    int64_t at = (int64_t)tile * g->size, group = (int64_t)tile % g->per_sample;
    double mean, invstd, sum = 0, cross = 0;
    statistics(g, g->x + at, &mean, &invstd);
    for (int64_t c = 0; c < g->channels; c++) {
        const mest_real *x = g->x + at + c * g->inner, *dy = g->dy + at + c * g->inner;
        sum += (double)g->scale[entry(g, group, c)] * mest_dense_sum(dy, g->inner);
        cross += (double)g->scale[entry(g, group, c)] * mest_dense_cross(x, dy, g->inner, mean);
    }
    mest_real m = (mest_real)mean, shift = (mest_real)(-sum / (double)g->size * invstd);
    mest_real slope = (mest_real)(-cross / (double)g->size * invstd * invstd * invstd);
    for (int64_t c = 0; c < g->channels; c++) {
        const mest_real *x = g->x + at + c * g->inner, *dy = g->dy + at + c * g->inner;
        mest_real *dx = g->y + at + c * g->inner, f = (mest_real)((double)g->scale[entry(g, group, c)] * invstd);
        for (int64_t i = 0; i < g->inner; i++)
            dx[i] = dy[i] * f + ((x[i] - m) * slope + shift);
    }
}

/* dscale and dB of one group, where that is what they are of. */
static void group_tile(void *context, size_t tile)
{
    const groups *g = context;
    double scale = 0, bias = 0;
    for (int64_t n = 0; n < g->n; n++) {
        const int64_t at = (n * g->per_sample + (int64_t)tile) * g->size;
        double mean, invstd;
        statistics(g, g->x + at, &mean, &invstd);
        bias += mest_dense_sum(g->dy + at, g->size);
        scale += mest_dense_cross(g->x + at, g->dy + at, g->size, mean) * invstd;
    }
    if (g->dscale)
        g->dscale[tile] = (mest_real)scale;
    if (g->dbias)
        g->dbias[tile] = (mest_real)bias;
}

/* dscale and dB of CHANNELS channels of one group, summed over the samples. */
enum { CHANNELS = 64 };
static void channels_tile(void *context, size_t tile)
{
    const groups *g = context;
    int64_t strips = (g->channels + CHANNELS - 1) / CHANNELS, group = (int64_t)tile / strips, c0 = (int64_t)tile % strips * CHANNELS;
    int64_t n_channels = g->channels - c0 < CHANNELS ? g->channels - c0 : CHANNELS;
    double scale[CHANNELS] = { 0 }, bias[CHANNELS] = { 0 };
    for (int64_t n = 0; n < g->n; n++) {
        int64_t at = (n * g->per_sample + group) * g->size;
        double mean = 0, invstd = 0;
        if (g->dscale)
            statistics(g, g->x + at, &mean, &invstd);
        for (int64_t c = 0; c < n_channels; c++) {
            int64_t from = at + (c0 + c) * g->inner;
            bias[c] += mest_dense_sum(g->dy + from, g->inner);
            if (g->dscale)
                scale[c] += mest_dense_cross(g->x + from, g->dy + from, g->inner, mean) * invstd;
        }
    }
    for (int64_t c = 0; c < n_channels; c++) {
        int64_t to = entry(g, group, c0 + c);
        if (g->dscale)
            g->dscale[to] = (mest_real)scale[c];
        if (g->dbias)
            g->dbias[to] = (mest_real)bias[c];
    }
}

static mest_status grad_forward(const mest_args *a)
{
    groups g = groups_of(a);
    g.dy = a->in[2].data;
    g.y = a->out[0].data;
    g.dscale = a->n_out > 1 ? a->out[1].data : NULL;
    g.dbias = a->n_out > 2 ? a->out[2].data : NULL;
    if (g.size == 0)
        return MEST_OK;
    if (g.y)
        mest_parallel(a->threads, (size_t)(g.n * g.per_sample), grad_tile, &g);
    if ((g.dscale || g.dbias) && g.per_group)
        mest_parallel(a->threads, (size_t)g.per_sample, group_tile, &g);
    else if (g.dscale || g.dbias)
        mest_parallel(a->threads, (size_t)(g.per_sample * ((g.channels + CHANNELS - 1) / CHANNELS)), channels_tile, &g);
    return MEST_OK;
}

#define NORM(name_, since_, attrs_, infer_)                                                                                            \
    { .domain = "", .name = name_, .since = since_, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_INPLACE, \
      .attrs = attrs_, .params_bytes = sizeof(groupnorm_params), .infer = infer_, .forward = groupnorm_forward, .vjp = groupnorm_vjp }

const mest_op mest_ops_groupnorm[] = {
    NORM("InstanceNormalization", 1, instance_attrs, channels_infer),
    NORM("GroupNormalization", 18, group_attrs, groups_infer),
    NORM("GroupNormalization", 21, group_attrs, channels_infer),
    { .domain = "mest", .name = "mest.GroupNormGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 3,
      .params_bytes = sizeof(groupnorm_params), .infer = grad_infer, .forward = grad_forward },
    { .name = NULL },
};
