/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions that finish their result, for evaluation and inference; made by the passes conv_bn and conv_act.
 *
 *   mest.ConvAffine           X W shift[M]? factor[M]?  ->  Y = act(Conv(X, W) * factor + shift); without factor: * 1; act: a clamp, another, none
 *   mest.ConvTransposeAffine  the same for ConvTranspose
 *   mest.BatchNormFold        scale[M] B[M] mean[M] var[M] bias[M]?  ->  factor[M] shift[M]
 *       factor = scale / sqrt(var + epsilon), shift = B + (bias - mean) * factor: what a BatchNormalization makes of a convolution's result
 *
 * Weights stay as they are: sparse ones sparse, without a copy, and a new version of them needs nothing done. factor and shift are computed
 * in every run, 2 M numbers. */
#include "ops/convolve.h"
#include "ops/elements.h"
#include "ops/nn.h"

#include <inttypes.h>

extern const mest_op mest_ops_conv[], mest_ops_conv_transpose[]; /* the first of each is the operator itself */

static mest_status infer(mest_infer *c, const mest_op *op)
{
    MEST_TRY(op->infer(c)); /* its params are the first member of ours */
    const int64_t m = c->out[0].shape.dim[1];
    if (c->n_in > 3 && c->in[3])
        MEST_INFER_CHECK(c, c->in[3]->shape.rank == 1 && c->in[3]->shape.dim[0] == m, "factor must have one entry per output channel (%" PRId64 ")", m);
    return MEST_OK;
}

static mest_status forward(const mest_args *a, const mest_op *op)
{
    mest_args plain = *a;
    plain.n_in = 2;
    MEST_TRY(op->forward(&plain));
    const mest_conv_affine_params *p = a->params;
    const mest_shape *y = &a->out[0].type->shape;
    mest_channel_affine(a->threads, y->dim[0], y->dim[1], mest_shape_span(y, 2, y->rank), a->n_in > 3 ? a->in[3].data : NULL,
                        a->n_in > 2 ? a->in[2].data : NULL, &p->clamp, &p->act, a->out[0].data);
    return MEST_OK;
}

static mest_status conv_infer(mest_infer *c) { return infer(c, &mest_ops_conv[0]); }
static mest_status conv_forward(const mest_args *a) { return forward(a, &mest_ops_conv[0]); }
static int64_t conv_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out) { return mest_ops_conv[0].macs(node, in, out); }
static mest_status transpose_infer(mest_infer *c) { return infer(c, &mest_ops_conv_transpose[0]); }
static mest_status transpose_forward(const mest_args *a) { return forward(a, &mest_ops_conv_transpose[0]); }
static int64_t transpose_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    return mest_ops_conv_transpose[0].macs(node, in, out);
}

static mest_status fold_infer(mest_infer *c)
{
    const mest_shape *scale = &c->in[0]->shape;
    for (int i = 0; i < c->n_in; i++)
        MEST_INFER_CHECK(c, !c->in[i] || (c->in[i]->shape.rank == 1 && mest_shape_equal(&c->in[i]->shape, scale)),
                         "input %d must have one entry per channel", i);
    MEST_TRY(mest_infer_set(c, 0, MEST_F32, scale));
    return mest_infer_set(c, 1, MEST_F32, scale);
}

static mest_status fold_forward(const mest_args *a)
{
    const mest_bn_params *p = a->params;
    const mest_real *scale = a->in[0].data, *b = a->in[1].data, *mean = a->in[2].data, *var = a->in[3].data;
    const mest_real *bias = a->n_in > 4 ? a->in[4].data : NULL;
    mest_real *factor = a->out[0].data, *shift = a->out[1].data;
    for (int64_t c = 0; c < (int64_t)a->in[0].count; c++) {
        const double f = (double)scale[c] / sqrt((double)var[c] + p->epsilon);
        if (factor)
            factor[c] = (mest_real)f;
        if (shift)
            shift[c] = (mest_real)((double)b[c] + ((bias ? (double)bias[c] : 0) - (double)mean[c]) * f);
    }
    return MEST_OK;
}

const mest_op mest_ops_conv_affine[] = {
    { .domain = "mest", .name = "mest.ConvAffine", .since = 1, .in_min = 2, .in_max = 4, .out_min = 1, .out_max = 1, .act_in = 1u << 0,
      .act_out = 1u << 0, .sparse_in = 1u << 1, .params_bytes = sizeof(mest_conv_affine_params), .infer = conv_infer, .forward = conv_forward,
      .no_grad = true, .macs = conv_macs },
    { .domain = "mest", .name = "mest.ConvTransposeAffine", .since = 1, .in_min = 2, .in_max = 4, .out_min = 1, .out_max = 1, .sparse_in = 1u << 1,
      .params_bytes = sizeof(mest_conv_affine_params), .infer = transpose_infer, .forward = transpose_forward, .no_grad = true, .macs = transpose_macs },
    { .domain = "mest", .name = "mest.BatchNormFold", .since = 1, .in_min = 4, .in_max = 5, .out_min = 2, .out_max = 2,
      .params_bytes = sizeof(mest_bn_params), .infer = fold_infer, .forward = fold_forward, .no_grad = true },
    { .name = NULL },
};
