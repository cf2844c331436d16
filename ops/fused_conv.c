/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions that read their operands through maps and finish what they write; made by passes, with kernels for the batch-lane layout.
 *
 *   mest.FusedConv      X[N,C,..] W B? map[3,C]?  ->  Y moments[2,M]
 *       X' = X, or clamp((X - map[0]) map[1] + map[2]): a BatchNormalization and its activation in front
 *       Y  = Conv(X', W, B); moments (float64): mean of Y and sum of squared deviations from it, over batch and positions
 *   mest.FusedConvGrad  X W dY map[3,C]? V[N,M,..]? dmap[4,M]? D[N,C,..]? U[N,C,..]? mean[C]?  ->  dX dW dB sums[2,C]
 *       X'  = X, or clamp((X - map[0]) map[1] + map[2])
 *       dY' = dY, or (dY dmap[1] + dmap[3]) + (V - dmap[0]) dmap[2]: the gradient of a BatchNormalization of V behind
 *       dX  = gate(backward-data(dY', W) + D); gate: 0 where X' is not inside the clamp (params->gate)
 *       dW  = backward-weight(X', dY'); dB = sums of dY' over batch and positions
 *       sums (float64): sum of dX, of dX (U - mean), over batch and positions: what the BatchNormalization of U in front needs
 *
 * The references below are loops without memory of their own: for tests. */
#include "ops/nn.h"
#include "ops/outer.h"

#include <math.h>

typedef struct fused {
    mest_conv_geometry g;
    mest_clamp clamp;
    bool gate;
    const mest_real *x, *w, *bias, *map, *addend, *dy, *v, *dmap, *u, *mean;
    mest_real *y, *dx, *dw, *db;
    double *moments;
} fused;

static mest_real clamped(const mest_clamp *k, mest_real value)
{
    if (!k->on)
        return value;
    const mest_real t = value < k->lo ? k->lo : value;
    return t > k->hi ? k->hi : t;
}

static int64_t x_place(const mest_conv_geometry *g, int64_t n, int64_t c, int64_t y, int64_t x) { return ((n * g->c + c) * g->h + y) * g->w + x; }
static int64_t y_place(const mest_conv_geometry *g, int64_t n, int64_t m, int64_t y, int64_t x) { return ((n * g->m + m) * g->p + y) * g->q + x; }

static mest_real x_of(const fused *f, int64_t at)
{
    const int64_t c = at / (f->g.h * f->g.w) % f->g.c;
    if (!f->map)
        return f->x[at];
    const mest_real value = (f->x[at] - f->map[c]) * f->map[f->g.c + c] + f->map[2 * f->g.c + c];
    return clamped(&f->clamp, value);
}

static mest_real dy_of(const fused *f, int64_t at)
{
    const int64_t m = at / (f->g.p * f->g.q) % f->g.m, k = f->g.m;
    if (!f->dmap)
        return f->dy[at];
    return (f->dy[at] * f->dmap[k + m] + f->dmap[3 * k + m]) + (f->v[at] - f->dmap[m]) * f->dmap[2 * k + m];
}

/* Position of the input that output (p, q) and tap (r, s) read; false outside. */
static bool reads(const mest_conv_geometry *g, int64_t p, int64_t q, int64_t r, int64_t s, int64_t *y, int64_t *x)
{
    *y = p * g->stride_y + r * g->dilation_y - g->top;
    *x = q * g->stride_x + s * g->dilation_x - g->left;
    return *y >= 0 && *y < g->h && *x >= 0 && *x < g->w;
}

static void output_channel(void *context, size_t channel)
{
    const fused *f = context;
    const mest_conv_geometry *g = &f->g;
    const int64_t m = (int64_t)channel, group_c = g->c / g->group, c0 = m / (g->m / g->group) * group_c;
    double sum = 0, square = 0;
    for (int64_t n = 0; n < g->n; n++)
        for (int64_t p = 0; p < g->p; p++)
            for (int64_t q = 0; q < g->q; q++) {
                double t = f->bias ? (double)f->bias[m] : 0;
                for (int64_t c = 0; c < group_c; c++)
                    for (int64_t r = 0; r < g->r; r++)
                        for (int64_t s = 0; s < g->s; s++) {
                            int64_t y, x;
                            if (reads(g, p, q, r, s, &y, &x))
                                t += (double)f->w[((m * group_c + c) * g->r + r) * g->s + s] * (double)x_of(f, x_place(g, n, c0 + c, y, x));
                        }
                f->y[y_place(g, n, m, p, q)] = (mest_real)t;
                sum += (double)(mest_real)t;
            }
    if (!f->moments)
        return;
    const double mean = sum / (double)(g->n * g->p * g->q);
    for (int64_t n = 0; n < g->n; n++)
        for (int64_t i = 0; i < g->p * g->q; i++) {
            const double d = (double)f->y[y_place(g, n, m, 0, 0) + i] - mean;
            square += d * d;
        }
    f->moments[m] = mean;
    f->moments[g->m + m] = square;
}

static mest_status fused_of(const mest_args *a, fused *f)
{
    const mest_fused_conv_params *p = a->params;
    char why[160];
    *f = (fused){ .clamp = p->clamp, .gate = p->gate, .x = a->in[0].data, .w = a->in[1].data };
    if (!mest_conv_geometry_of(&p->conv, &a->in[0].type->shape, &a->in[1].type->shape, &f->g, why, sizeof why))
        return mest_run_fail(a, MEST_E_SHAPE, "%s", why);
    return MEST_OK;
}

static const void *in(const mest_args *a, int i) { return i < a->n_in ? a->in[i].data : NULL; }
static void *out(const mest_args *a, int i) { return i < a->n_out ? a->out[i].data : NULL; }

static mest_status forward(const mest_args *a)
{
    fused f;
    MEST_TRY(fused_of(a, &f));
    f.bias = in(a, 2);
    f.map = in(a, 3);
    f.y = out(a, 0);
    f.moments = out(a, 1);
    if (f.y)
        mest_parallel(a->threads, (size_t)f.g.m, output_channel, &f);
    return MEST_OK;
}

static void input_channel(void *context, size_t channel)
{
    const fused *f = context;
    const mest_conv_geometry *g = &f->g;
    const int64_t c = (int64_t)channel, group_m = g->m / g->group, group_c = g->c / g->group, m0 = c / group_c * group_m;
    double sum = 0, cross = 0;
    for (int64_t n = 0; n < g->n && (f->dx || f->moments); n++)
        for (int64_t i = 0; i < g->h * g->w; i++) {
            double t = 0;
            for (int64_t m = m0; m < m0 + group_m; m++)
                for (int64_t r = 0; r < g->r; r++)
                    for (int64_t s = 0; s < g->s; s++) {
                        const int64_t y = i / g->w + g->top - r * g->dilation_y, x = i % g->w + g->left - s * g->dilation_x;
                        if (y < 0 || x < 0 || y % g->stride_y || x % g->stride_x || y / g->stride_y >= g->p || x / g->stride_x >= g->q)
                            continue;
                        t += (double)f->w[((m * group_c + c % group_c) * g->r + r) * g->s + s] * (double)dy_of(f, y_place(g, n, m, y / g->stride_y, x / g->stride_x));
                    }
            const int64_t at = x_place(g, n, c, 0, 0) + i;
            const mest_real value = (mest_real)t + (f->addend ? f->addend[at] : 0);
            const mest_real z = f->gate ? x_of(f, at) : 0, d = !f->gate || ((z > f->clamp.lo) & (z < f->clamp.hi)) ? value : 0;
            f->dx[at] = d;
            sum += (double)d;
            if (f->u)
                cross += (double)d * ((double)f->u[at] - (double)f->mean[c]);
        }
    if (f->moments) {
        f->moments[c] = sum;
        f->moments[g->c + c] = cross;
    }
}

static void weight_row(void *context, size_t row)
{
    const fused *f = context;
    const mest_conv_geometry *g = &f->g;
    const int64_t m = (int64_t)row, group_c = g->c / g->group, c0 = m / (g->m / g->group) * group_c;
    double bias = 0;
    for (int64_t n = 0; n < g->n; n++)
        for (int64_t i = 0; i < g->p * g->q; i++)
            bias += (double)dy_of(f, y_place(g, n, m, 0, 0) + i);
    if (f->db)
        f->db[m] = (mest_real)bias;
    for (int64_t c = 0; c < group_c && f->dw; c++)
        for (int64_t r = 0; r < g->r; r++)
            for (int64_t s = 0; s < g->s; s++) {
                double t = 0;
                for (int64_t n = 0; n < g->n; n++)
                    for (int64_t p = 0; p < g->p; p++)
                        for (int64_t q = 0; q < g->q; q++) {
                            int64_t y, x;
                            if (reads(g, p, q, r, s, &y, &x))
                                t += (double)x_of(f, x_place(g, n, c0 + c, y, x)) * (double)dy_of(f, y_place(g, n, m, p, q));
                        }
                f->dw[((m * group_c + c) * g->r + r) * g->s + s] = (mest_real)t;
            }
}

static mest_status gradient(const mest_args *a)
{
    fused f;
    MEST_TRY(fused_of(a, &f));
    f.dy = in(a, 2);
    f.map = in(a, 3);
    f.v = in(a, 4);
    f.dmap = in(a, 5);
    f.addend = in(a, 6);
    f.u = in(a, 7);
    f.mean = in(a, 8);
    f.dx = out(a, 0);
    f.dw = out(a, 1);
    f.db = out(a, 2);
    f.moments = out(a, 3);
    if (f.dx)
        mest_parallel(a->threads, (size_t)f.g.c, input_channel, &f);
    if (f.dw || f.db)
        mest_parallel(a->threads, (size_t)f.g.m, weight_row, &f);
    return MEST_OK;
}

static mest_status grad_outer(const mest_args *a, mest_outer *o)
{
    fused f;
    MEST_TRY(fused_of(a, &f));
    const mest_conv_geometry *g = &f.g;
    *o = (mest_outer){ .rows = mest_operand_of(&a->in[2]), .cols = mest_operand_of(&a->in[0]), .n = g->n, .group = g->group,
                       .group_rows = g->m / g->group, .group_channels = g->c / g->group, .alpha = 1,
                       .window = { .in = { 1, g->h, g->w }, .out = { 1, g->p, g->q }, .kernel = { 1, g->r, g->s }, .stride = { 1, g->stride_y, g->stride_x },
                                   .dilation = { 1, g->dilation_y, g->dilation_x }, .lo = { 0, g->top, g->left } } };
    if (in(a, 5)) {
        o->rows_map = in(a, 5);
        o->rows_with = mest_operand_of(&a->in[4]);
        o->rows_channels = g->m;
    }
    if (in(a, 3)) {
        o->cols_map = in(a, 3);
        o->cols_channels = g->c;
        o->lo = f.clamp.on ? f.clamp.lo : (mest_real)-INFINITY;
        o->hi = f.clamp.on ? f.clamp.hi : (mest_real)INFINITY;
    }
    return MEST_OK;
}

static mest_status geometry(mest_infer *c, mest_conv_geometry *g)
{
    char why[160];
    const mest_fused_conv_params *p = c->params;
    MEST_INFER_CHECK(c, mest_conv_geometry_of(&p->conv, &c->in[0]->shape, &c->in[1]->shape, g, why, sizeof why), "%s", why);
    return MEST_OK;
}

static const mest_type *given(const mest_infer *c, int i) { return i < c->n_in ? c->in[i] : NULL; }

/* Input i, if it is given, is a map of `rows` numbers for each of n channels. */
static mest_status check_map(mest_infer *c, int i, int64_t rows, int64_t n)
{
    const mest_type *t = given(c, i);
    MEST_INFER_CHECK(c, !t || (t->shape.rank == 2 && t->shape.dim[0] == rows && t->shape.dim[1] == n), "the map in input %d must be [%d, %d]", i, (int)rows, (int)n);
    return MEST_OK;
}

static mest_status infer(mest_infer *c)
{
    mest_conv_geometry g;
    MEST_TRY(geometry(c, &g));
    MEST_TRY(check_map(c, 3, 3, g.c));
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = c->in[0]->shape;
    c->out[0].shape.dim[1] = g.m;
    c->out[0].shape.dim[2] = g.spatial == 1 ? g.q : g.p;
    if (g.spatial == 2)
        c->out[0].shape.dim[3] = g.q;
    if (c->n_out > 1)
        c->out[1] = (mest_type){ .dtype = MEST_F64, .shape = { .rank = 2, .dim = { 2, g.m } } };
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c)
{
    mest_conv_geometry g;
    MEST_TRY(geometry(c, &g));
    MEST_TRY(check_map(c, 3, 3, g.c));
    MEST_TRY(check_map(c, 5, 4, g.m));
    MEST_INFER_CHECK(c, !given(c, 4) == !given(c, 5) && (!given(c, 4) || mest_shape_equal(&c->in[4]->shape, &c->in[2]->shape)), "V and its map must be given together, V of the shape of dY");
    for (int i = 6; i < 8; i++)
        MEST_INFER_CHECK(c, !given(c, i) || mest_shape_equal(&c->in[i]->shape, &c->in[0]->shape), "input %d must have the shape of X", i);
    MEST_INFER_CHECK(c, !given(c, 7) == !given(c, 8), "U and its mean must be given together");
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = c->in[0]->shape;
    if (c->n_out > 1)
        c->out[1] = *c->in[1];
    if (c->n_out > 2) {
        c->out[2].dtype = c->in[0]->dtype;
        c->out[2].shape = (mest_shape){ .rank = 1, .dim = { g.m } };
    }
    if (c->n_out > 3)
        c->out[3] = (mest_type){ .dtype = MEST_F64, .shape = { .rank = 2, .dim = { 2, g.c } } };
    return MEST_OK;
}

static int64_t macs(const mest_node *node, const mest_type *const *in_types, const mest_type *const *out_types)
{
    const mest_fused_conv_params *p = node->params;
    mest_conv_geometry g;
    char why[160];
    (void)out_types;
    return mest_conv_geometry_of(&p->conv, &in_types[0]->shape, &in_types[1]->shape, &g, why, sizeof why)
               ? g.n * g.m * g.p * g.q * (g.c / g.group) * g.r * g.s : 0;
}

static int64_t grad_macs(const mest_node *node, const mest_type *const *in_types, const mest_type *const *out_types)
{
    return macs(node, in_types, out_types) * ((node->out[0] != MEST_NONE) + (node->n_out > 1 && node->out[1] != MEST_NONE));
}

const mest_op mest_ops_fused_conv[] = {
    { .domain = "mest", .name = "mest.FusedConv", .since = 1, .in_min = 2, .in_max = 4, .out_min = 1, .out_max = 2, .act_in = 1u << 0,
      .act_out = 1u << 0, .sparse_in = 1u << 1, .params_bytes = sizeof(mest_fused_conv_params), .infer = infer, .forward = forward,
      .macs = macs, .no_grad = true },
    { .domain = "mest", .name = "mest.FusedConvGrad", .since = 1, .in_min = 3, .in_max = 9, .out_min = 1, .out_max = 4,
      .act_in = 1u << 0 | 1u << 2 | 1u << 4 | 1u << 6 | 1u << 7, .act_out = 1u << 0, .sparse_in = 1u << 1,
      .params_bytes = sizeof(mest_fused_conv_params), .infer = grad_infer, .forward = gradient, .macs = grad_macs, .weight_outer = grad_outer,
      .no_grad = true },
    { .name = NULL },
};
