/* SPDX-License-Identifier: Apache-2.0 */
/* LRN: Y = X / S^beta, S = bias + alpha / size * sum of X^2 over `size` neighbouring channels of X[N,C,...]. ONNX LRN since 1.
 * mest.LRNGrad (X, dY) -> dX. */
#include "ops/nn.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

typedef struct lrn_params {
    double alpha, beta, bias;
    int64_t size;
} lrn_params;

static const mest_attr lrn_attrs[] = {
    { .name = "alpha", .kind = MEST_ATTR_FLOAT, .offset = offsetof(lrn_params, alpha), .number = 1e-4 },
    { .name = "beta", .kind = MEST_ATTR_FLOAT, .offset = offsetof(lrn_params, beta), .number = 0.75 },
    { .name = "bias", .kind = MEST_ATTR_FLOAT, .offset = offsetof(lrn_params, bias), .number = 1 },
    { .name = "size", .kind = MEST_ATTR_INT, .offset = offsetof(lrn_params, size), .required = true },
    { .name = NULL },
};

static mest_status lrn_infer(mest_infer *c)
{
    const lrn_params *p = c->params;
    MEST_INFER_CHECK(c, c->in[0]->shape.rank >= 2, "input must be [N, C, ...], not of rank %d", (int)c->in[0]->shape.rank);
    MEST_INFER_CHECK(c, p->size >= 1, "size %" PRId64, p->size);
    return mest_infer_same(c);
}

/* A tile is WIDTH pixels of all channels of one sample. */
enum { WIDTH = 64 };
typedef struct lrn {
    int64_t c, inner, strips, before, after; /* neighbours below and above a channel */
    double factor, beta, bias;
    const mest_real *x, *dy;
    mest_real *y;
} lrn;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* S of one channel for `width` pixels; x is at channel 0. */
static void sums(const lrn *l, const mest_real *x, int64_t channel, int64_t width, double *s)
{
    for (int64_t i = 0; i < width; i++)
        s[i] = 0;
    for (int64_t k = most(0, channel - l->before); k < least(l->c, channel + l->after + 1); k++)
        for (int64_t i = 0; i < width; i++)
            s[i] += (double)x[k * l->inner + i] * (double)x[k * l->inner + i];
    for (int64_t i = 0; i < width; i++)
        s[i] = l->bias + l->factor * s[i];
}

static void forward_tile(void *context, size_t tile)
{
    const lrn *l = context;
    int64_t from = (int64_t)tile % l->strips * WIDTH, width = least(l->inner - from, WIDTH);
    int64_t at = (int64_t)tile / l->strips * l->c * l->inner + from;
    double s[WIDTH];
    for (int64_t c = 0; c < l->c; c++) {
        sums(l, l->x + at, c, width, s);
        for (int64_t i = 0; i < width; i++)
            l->y[at + c * l->inner + i] = (mest_real)((double)l->x[at + c * l->inner + i] * pow(s[i], -l->beta));
    }
}

/* dx_c = dy_c S_c^-beta - 2 beta factor x_c * sum over the k whose window holds c of dy_k x_k S_k^(-beta - 1) */
static void grad_tile(void *context, size_t tile)
{
    const lrn *l = context;
    int64_t from = (int64_t)tile % l->strips * WIDTH, width = least(l->inner - from, WIDTH);
    int64_t at = (int64_t)tile / l->strips * l->c * l->inner + from;
    double s[WIDTH], sum[WIDTH], own[WIDTH] = { 0 };
    for (int64_t c = 0; c < l->c; c++) {
        for (int64_t i = 0; i < width; i++)
            sum[i] = 0;
        for (int64_t k = most(0, c - l->after); k < least(l->c, c + l->before + 1); k++) {
            sums(l, l->x + at, k, width, s);
            for (int64_t i = 0; i < width; i++) {
                double power = pow(s[i], -l->beta), dy = (double)l->dy[at + k * l->inner + i];
                sum[i] += dy * (double)l->x[at + k * l->inner + i] * power / s[i];
                if (k == c)
                    own[i] = dy * power;
            }
        }
        for (int64_t i = 0; i < width; i++)
            l->y[at + c * l->inner + i] = (mest_real)(own[i] - 2 * l->beta * l->factor * (double)l->x[at + c * l->inner + i] * sum[i]);
    }
}

static void run(const mest_args *a, const mest_real *dy, void (*tile)(void *, size_t))
{
    const lrn_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    lrn l = { .c = x->dim[1], .inner = mest_shape_span(x, 2, x->rank), .before = (p->size - 1) / 2, .after = p->size / 2,
              .factor = p->alpha / (double)p->size, .beta = p->beta, .bias = p->bias, .x = a->in[0].data, .dy = dy, .y = a->out[0].data };
    l.strips = (l.inner + WIDTH - 1) / WIDTH;
    mest_parallel(a->threads, (size_t)(x->dim[0] * l.strips), tile, &l);
}

static mest_status lrn_forward(const mest_args *a)
{
    run(a, NULL, forward_tile);
    return MEST_OK;
}

static mest_status lrn_grad_forward(const mest_args *a)
{
    run(a, a->in[1].data, grad_tile);
    return MEST_OK;
}

static mest_status lrn_vjp(mest_vjp *v)
{
    mest_id in[2] = { mest_in(v, 0), mest_dout(v, 0) };
    return mest_give_op(v, 0, "mest.LRNGrad", NULL, 2, in);
}

const mest_op mest_ops_lrn[] = {
    { .domain = "", .name = "LRN", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .attrs = lrn_attrs,
      .params_bytes = sizeof(lrn_params), .infer = lrn_infer, .forward = lrn_forward, .vjp = lrn_vjp },
    { .domain = "mest", .name = "mest.LRNGrad", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1,
      .params_bytes = sizeof(lrn_params), .infer = mest_infer_same, .forward = lrn_grad_forward },
    { .name = NULL },
};
