/* SPDX-License-Identifier: Apache-2.0 */
/* ConvTranspose: Y[N,M,out] from X[N,C,in], W[C,M/G,kernel], B[M]: the gradient of a convolution for its image, used forward.
 * Groups, strides, dilations, pads, output_padding, output_shape, auto_pad. ONNX ConvTranspose since 1 (11 clarifies).
 * mest.ConvTransposeGrad (X, W, dY) -> dX, dW, dB with ConvTranspose's params. */
#include "ops/conv_op.h"
#include "ops/outer.h"

#include <inttypes.h>
#include <stdio.h>

static const mest_attr transpose_attrs[] = {
    MEST_CONV_ATTRS,
    { .name = "output_padding", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, output_padding) },
    { .name = "output_shape", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, output_shape) },
    { .name = NULL },
};

/* The convolution whose image gradient this is: its image is our Y (v->c = M channels), its map our X (v->m = C channels). */
static bool convolution_of(const mest_conv_params *params, const mest_shape *x, const mest_shape *w, mest_convolution *v, char *why,
                           size_t why_size)
{
    int64_t kernel[MEST_MAX_RANK] = { 0 };
    if (!mest_conv_kernel(params, x, w, kernel, why, why_size))
        return false;
    if (w->dim[0] != x->dim[1] || x->dim[1] < 1 || w->dim[1] < 1) {
        snprintf(why, why_size, "W has %" PRId64 " input channels, X has %" PRId64, w->dim[0], x->dim[1]);
        return false;
    }
    if (params->group < 1 || x->dim[1] % params->group || w->dim[1] >= ((int64_t)1 << 31) / params->group) {
        snprintf(why, why_size, "group %" PRId64 " does not divide %" PRId64 " input channels", params->group, x->dim[1]);
        return false;
    }
    v->n = x->dim[0];
    v->c = w->dim[1] * params->group;
    v->m = x->dim[1];
    v->group = params->group;
    mest_ints ks = { x->rank - 2, kernel };
    mest_window_spec spec = { &ks, &params->strides, &params->pads, &params->dilations, params->auto_pad, false };
    return mest_window_transposed(&spec, &params->output_padding, &params->output_shape, x, &v->window, why, why_size);
}

static mest_status transpose_infer(mest_infer *c) { return mest_conv_infer(c, convolution_of, true); }

static mest_status transpose_forward(const mest_args *a)
{
    mest_convolution v;
    MEST_TRY(mest_conv_run(a, convolution_of, &v));
    mest_convolve_image(a->threads, &v, a->in[0].data, a->in[1].data, a->n_in > 2 ? a->in[2].data : NULL, a->out[0].data);
    return MEST_OK;
}

static mest_status transpose_vjp(mest_vjp *v)
{
    return mest_give_grads(v, "mest.ConvTransposeGrad", NULL, 3, (mest_id[]){ mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0) }, 3);
}

static int64_t transpose_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    (void)out;
    return mest_conv_macs(node, convolution_of, in);
}

static mest_status grad_infer(mest_infer *c) { return mest_conv_grad_infer(c, convolution_of, true); }

static mest_status grad_forward(const mest_args *a)
{
    mest_convolution v;
    const mest_real *x = a->in[0].data, *w = a->in[1].data, *dy = a->in[2].data;
    MEST_TRY(mest_conv_run(a, convolution_of, &v));
    if (a->out[0].data)
        mest_convolve(a->threads, &v, dy, w, NULL, a->out[0].data);
    if (a->n_out > 1 && a->out[1].data)
        mest_convolve_weight(a->threads, &v, dy, x, a->out[1].data);
    if (a->n_out > 2 && a->out[2].data)
        mest_channel_sums(a->threads, v.n, v.c, mest_window_volume(v.window.in), dy, a->out[2].data);
    return MEST_OK;
}

static mest_status grad_outer(const mest_args *a, mest_outer *o)
{
    mest_convolution v;
    MEST_TRY(mest_conv_run(a, convolution_of, &v));
    *o = (mest_outer){ .rows = mest_operand_of(&a->in[0]), .cols = mest_operand_of(&a->in[2]), .window = v.window, .n = v.n, .group = v.group,
                       .group_rows = v.m / v.group, .group_channels = v.c / v.group, .alpha = 1 };
    return MEST_OK;
}

static int64_t grad_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    return mest_conv_grad_macs(node, convolution_of, in, out);
}

const mest_op mest_ops_conv_transpose[] = {
    { .domain = "", .name = "ConvTranspose", .limits = "more than three spatial axes", .since = 1, .in_min = 2, .in_max = 3, .out_min = 1, .out_max = 1, .sparse_in = 1u << 1,
      .attrs = transpose_attrs, .params_bytes = sizeof(mest_conv_params), .infer = transpose_infer, .forward = transpose_forward,
      .vjp = transpose_vjp, .macs = transpose_macs },
    { .domain = "mest", .name = "mest.ConvTransposeGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 3,
      .sparse_in = 1u << 1, .params_bytes = sizeof(mest_conv_params), .infer = grad_infer, .forward = grad_forward, .macs = grad_macs,
      .weight_outer = grad_outer },
    { .name = NULL },
};
