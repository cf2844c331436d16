/* SPDX-License-Identifier: Apache-2.0 */
/* ConvTranspose: Y[N,M,out] from X[N,C,in], W[C,M/G,kernel], B[M]: the gradient of a convolution for its image, used forward.
 * Groups, strides, dilations, pads, output_padding, output_shape, auto_pad. ONNX ConvTranspose since 1 (11 clarifies).
 * mest.ConvTransposeGrad (X, W, dY) -> dX, dW, dB with ConvTranspose's params. */
#include "ops/convolve.h"
#include "ops/outer.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

static const mest_attr transpose_attrs[] = {
    { .name = "kernel_shape", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, kernel_shape) },
    { .name = "strides", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, strides) },
    { .name = "pads", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, pads) },
    { .name = "dilations", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, dilations) },
    { .name = "group", .kind = MEST_ATTR_INT, .offset = offsetof(mest_conv_params, group), .number = 1 },
    { .name = "auto_pad", .kind = MEST_ATTR_STRING, .offset = offsetof(mest_conv_params, auto_pad), .text = "NOTSET" },
    { .name = "output_padding", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, output_padding) },
    { .name = "output_shape", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, output_shape) },
    { .name = NULL },
};

/* The convolution whose image gradient this is: its image is our Y (v->c = M channels), its map our X (v->m = C channels). */
static bool convolution_of(const mest_conv_params *params, const mest_shape *x, const mest_shape *w, mest_convolution *v, char *why,
                           size_t why_size)
{
    int64_t kernel[MEST_MAX_RANK] = { 0 };
    if (x->rank < 3 || x->rank > 5 || w->rank != x->rank) {
        snprintf(why, why_size, "X of rank %d and W of rank %d; both must have one rank from 3 to 5", (int)x->rank, (int)w->rank);
        return false;
    }
    for (int i = 2; i < w->rank; i++) {
        kernel[i - 2] = w->dim[i];
        if (params->kernel_shape.n && (params->kernel_shape.n != w->rank - 2 || params->kernel_shape.v[i - 2] != w->dim[i])) {
            snprintf(why, why_size, "kernel_shape does not agree with the shape of W");
            return false;
        }
    }
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

static mest_status transpose_infer(mest_infer *c)
{
    char why[160];
    mest_convolution v;
    const mest_shape *x = &c->in[0]->shape;
    if (!convolution_of(c->params, x, &c->in[1]->shape, &v, why, sizeof why))
        return mest_infer_fail(c, MEST_E_SHAPE, "%s", why);
    if (c->n_in > 2 && c->in[2])
        MEST_INFER_CHECK(c, c->in[2]->shape.rank == 1 && c->in[2]->shape.dim[0] == v.c, "bias must have one entry per output channel (%" PRId64 ")", v.c);
    mest_shape *y = &c->out[0].shape;
    c->out[0].dtype = c->in[0]->dtype;
    y->rank = x->rank;
    y->dim[0] = v.n;
    y->dim[1] = v.c;
    for (int i = 2; i < x->rank; i++)
        y->dim[i] = v.window.in[3 - v.window.spatial + i - 2];
    return MEST_OK;
}

static mest_status transpose_forward(const mest_args *a)
{
    char why[160];
    mest_convolution v;
    if (!convolution_of(a->params, &a->in[0].type->shape, &a->in[1].type->shape, &v, why, sizeof why))
        return mest_run_fail(a, MEST_E_INTERNAL, "%s", why);
    mest_convolve_image(a->threads, &v, a->in[0].data, a->in[1].data, a->n_in > 2 ? a->in[2].data : NULL, a->out[0].data);
    return MEST_OK;
}

static mest_status transpose_vjp(mest_vjp *v)
{
    mest_id in[3] = { mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0) }, out[3];
    bool want[3] = { mest_wants(v, 0), mest_wants(v, 1), mest_wants(v, 2) };
    MEST_TRY(mest_emit(v, "mest.ConvTransposeGrad", NULL, 3, in, 3, want, out));
    for (int i = 0; i < 3; i++)
        if (want[i])
            MEST_TRY(mest_give(v, i, out[i]));
    return MEST_OK;
}

static int64_t transpose_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    char why[160];
    mest_convolution v;
    (void)out;
    return convolution_of(node->params, &in[0]->shape, &in[1]->shape, &v, why, sizeof why) ? mest_convolution_macs(&v) : 0;
}

static mest_status grad_infer(mest_infer *c)
{
    char why[160];
    mest_convolution v;
    if (!convolution_of(c->params, &c->in[0]->shape, &c->in[1]->shape, &v, why, sizeof why))
        return mest_infer_fail(c, MEST_E_SHAPE, "%s", why);
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = c->in[0]->shape;
    if (c->n_out > 1)
        c->out[1] = *c->in[1]; /* with the layout: a sparse weight's gradient lives at its stored entries */
    if (c->n_out > 2) {
        c->out[2].dtype = c->in[2]->dtype;
        c->out[2].shape = (mest_shape){ .rank = 1, .dim = { v.c } };
    }
    return MEST_OK;
}

static mest_status grad_forward(const mest_args *a)
{
    char why[160];
    mest_convolution v;
    const mest_real *x = a->in[0].data, *w = a->in[1].data, *dy = a->in[2].data;
    if (!convolution_of(a->params, &a->in[0].type->shape, &a->in[1].type->shape, &v, why, sizeof why))
        return mest_run_fail(a, MEST_E_INTERNAL, "%s", why);
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
    char why[160];
    mest_convolution v;
    if (!convolution_of(a->params, &a->in[0].type->shape, &a->in[1].type->shape, &v, why, sizeof why))
        return mest_run_fail(a, MEST_E_INTERNAL, "%s", why);
    *o = (mest_outer){ .rows = mest_operand_of(&a->in[0]), .cols = mest_operand_of(&a->in[2]), .window = v.window, .n = v.n, .group = v.group,
                       .group_rows = v.m / v.group, .group_channels = v.c / v.group, .alpha = 1 };
    return MEST_OK;
}

static int64_t grad_macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    int products = (node->n_out > 0 && out[0] ? 1 : 0) + (node->n_out > 1 && out[1] ? 1 : 0);
    return products * transpose_macs(node, in, out);
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
