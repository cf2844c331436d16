/* SPDX-License-Identifier: Apache-2.0 */
/* Conv: Y[N,M,out] = X[N,C,in] * W[M,C/G,kernel] + B[M], one to three spatial axes, groups, strides, dilations, pads, auto_pad.
 * ONNX Conv since 1 (11 clarifies, 22 adds types).
 * mest.ConvGrad (X, W, dY) -> dX, dW, dB with Conv's params. */
#include "ops/conv_op.h"
#include "ops/outer.h"

#include <inttypes.h>
#include <stdio.h>

static const mest_attr conv_attrs[] = { MEST_CONV_ATTRS, { .name = NULL } };

static bool convolution_of(const mest_conv_params *params, const mest_shape *x, const mest_shape *w, mest_convolution *v, char *why,
                           size_t why_size)
{
    int64_t kernel[MEST_MAX_RANK] = { 0 };
    if (!mest_conv_kernel(params, x, w, kernel, why, why_size))
        return false;
    v->n = x->dim[0];
    v->c = x->dim[1];
    v->m = w->dim[0];
    v->group = params->group;
    if (v->c < 1 || v->m < 1 || v->group < 1 || v->c % v->group || v->m % v->group) {
        snprintf(why, why_size, "group %" PRId64 " does not divide %" PRId64 " input and %" PRId64 " output channels", v->group, v->c, v->m);
        return false;
    }
    if (w->dim[1] != v->c / v->group) {
        snprintf(why, why_size, "W has %" PRId64 " input channels per group, X has %" PRId64 " / %" PRId64, w->dim[1], v->c, v->group);
        return false;
    }
    mest_ints ks = { x->rank - 2, kernel };
    mest_window_spec spec = { &ks, &params->strides, &params->pads, &params->dilations, params->auto_pad, false };
    return mest_window_of(&spec, x, &v->window, why, why_size);
}

bool mest_conv_geometry_of(const mest_conv_params *params, const mest_shape *x, const mest_shape *w, mest_conv_geometry *g, char *why, size_t why_size)
{
    mest_convolution v;
    if (!convolution_of(params, x, w, &v, why, why_size))
        return false;
    const mest_window *k = &v.window;
    if (k->spatial > 2) {
        snprintf(why, why_size, "three spatial axes");
        return false;
    }
    *g = (mest_conv_geometry){
        .n = v.n, .c = v.c, .h = k->in[1], .w = k->in[2], .m = v.m, .p = k->out[1], .q = k->out[2], .group = v.group, .r = k->kernel[1],
        .s = k->kernel[2], .stride_y = k->stride[1], .stride_x = k->stride[2], .dilation_y = k->dilation[1], .dilation_x = k->dilation[2],
        .top = k->lo[1], .left = k->lo[2], .bottom = k->hi[1], .right = k->hi[2], .spatial = k->spatial,
    };
    return true;
}

static mest_status conv_infer(mest_infer *c) { return mest_conv_infer(c, convolution_of, false); }

static mest_status conv_forward(const mest_args *a)
{
    mest_convolution v;
    MEST_TRY(mest_conv_run(a, convolution_of, &v));
    mest_convolve(a->threads, &v, a->in[0].data, a->in[1].data, a->n_in > 2 ? a->in[2].data : NULL, a->out[0].data);
    return MEST_OK;
}

static mest_status conv_vjp(mest_vjp *v)
{
    return mest_give_grads(v, "mest.ConvGrad", NULL, 3, (mest_id[]){ mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0) }, 3);
}

static int64_t conv_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    (void)out;
    return mest_conv_macs(node, convolution_of, in);
}

static mest_status grad_infer(mest_infer *c) { return mest_conv_grad_infer(c, convolution_of, false); }

static mest_status grad_forward(const mest_args *a)
{
    mest_convolution v;
    const mest_real *x = a->in[0].data, *w = a->in[1].data, *dy = a->in[2].data;
    MEST_TRY(mest_conv_run(a, convolution_of, &v));
    if (a->out[0].data)
        mest_convolve_image(a->threads, &v, dy, w, NULL, a->out[0].data);
    if (a->n_out > 1 && a->out[1].data)
        mest_convolve_weight(a->threads, &v, x, dy, a->out[1].data);
    if (a->n_out > 2 && a->out[2].data)
        mest_channel_sums(a->threads, v.n, v.m, mest_window_volume(v.window.out), dy, a->out[2].data);
    return MEST_OK;
}

static mest_status grad_outer(const mest_args *a, mest_outer *o)
{
    mest_convolution v;
    MEST_TRY(mest_conv_run(a, convolution_of, &v));
    *o = (mest_outer){ .rows = mest_operand_of(&a->in[2]), .cols = mest_operand_of(&a->in[0]), .window = v.window, .n = v.n, .group = v.group,
                       .group_rows = v.m / v.group, .group_channels = v.c / v.group, .alpha = 1 };
    return MEST_OK;
}

static int64_t grad_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    return mest_conv_grad_macs(node, convolution_of, in, out);
}

const mest_op mest_ops_conv[] = {
    { .domain = "", .name = "Conv", .limits = "more than three spatial axes", .since = 1, .in_min = 2, .in_max = 3, .out_min = 1, .out_max = 1, .act_in = 1u << 0, .act_out = 1u << 0,
      .sparse_in = 1u << 1, .attrs = conv_attrs, .params_bytes = sizeof(mest_conv_params), .infer = conv_infer, .forward = conv_forward,
      .vjp = conv_vjp, .macs = conv_macs },
    { .domain = "mest", .name = "mest.ConvGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 3,
      .act_in = 1u << 0 | 1u << 2, .act_out = 1u << 0, .sparse_in = 1u << 1, .params_bytes = sizeof(mest_conv_params), .infer = grad_infer,
      .forward = grad_forward, .macs = grad_macs, .weight_outer = grad_outer },
    { .name = NULL },
};
