/* SPDX-License-Identifier: Apache-2.0 */
/* mest.ChannelStats   X[N,C,..] -> nothing of use []; mean and (biased) variance of X per channel, over all runs so far, go to params. The share
 * of this run is run->bn_weight: samples of the run / samples so far. Two parts of a set have the variances and means of the whole by
 *     mean = mean + w d,  var = (1 - w) var + w var' + w (1 - w) d^2,  d = mean' - mean   (Chan, Golub, LeVeque 1979) */
#include "ops/dense.h"
#include "ops/nn.h"

static mest_status stats_infer(mest_infer *c)
{
    MEST_INFER_CHECK(c, c->in[0]->shape.rank >= 2, "X must be [N, C, ...]");
    c->out[0] = (mest_type){ .dtype = MEST_F32 };
    return MEST_OK;
}

typedef struct channels {
    const mest_real *x;
    int64_t n, c, inner;
    double weight;
    const mest_channel_stats_params *to;
} channels;

static void channel_tile(void *context, size_t tile)
{
    const channels *s = context;
    const int64_t c = (int64_t)tile;
    double sum = 0, spread = 0, count = (double)(s->n * s->inner);
    for (int64_t n = 0; n < s->n; n++)
        sum += mest_dense_sum(s->x + (n * s->c + c) * s->inner, s->inner);
    const double mean = sum / count;
    for (int64_t n = 0; n < s->n; n++)
        spread += mest_dense_spread(s->x + (n * s->c + c) * s->inner, s->inner, mean);
    const double w = s->weight, d = mean - s->to->mean[c];
    s->to->var[c] = (1 - w) * s->to->var[c] + w * spread / count + w * (1 - w) * d * d;
    s->to->mean[c] += w * d;
}

static mest_status stats_forward(const mest_args *a)
{
    const mest_shape *x = &a->in[0].type->shape;
    channels s = { .x = a->in[0].data, .n = x->dim[0], .c = x->dim[1], .inner = mest_shape_span(x, 2, x->rank), .weight = a->run->bn_weight, .to = a->params };
    *(mest_real *)a->out[0].data = 0;
    if (s.n * s.inner == 0 || !(s.weight > 0))
        return mest_run_fail(a, MEST_E_DATA, "an empty batch has no statistics");
    mest_parallel(a->threads, (size_t)s.c, channel_tile, &s);
    return MEST_OK;
}

const mest_op mest_ops_channel_stats[] = {
    { .domain = "mest", .name = "mest.ChannelStats", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_SIDE_EFFECT,
      .params_bytes = sizeof(mest_channel_stats_params), .infer = stats_infer, .forward = stats_forward, .no_grad = true },
    { 0 },
};
