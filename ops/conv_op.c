/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/conv_op.h"

#include <inttypes.h>
#include <stdio.h>

bool mest_conv_kernel(const mest_conv_params *params, const mest_shape *x, const mest_shape *w, int64_t *kernel, char *why, size_t why_size)
{
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
    return true;
}

mest_status mest_conv_infer(mest_infer *c, mest_conv_rule *rule, bool transposed)
{
    char why[160];
    mest_convolution v;
    const mest_shape *x = &c->in[0]->shape;
    if (!rule(c->params, x, &c->in[1]->shape, &v, why, sizeof why))
        return mest_infer_fail(c, MEST_E_SHAPE, "%s", why);
    const int64_t channels = transposed ? v.c : v.m, *sizes = transposed ? v.window.in : v.window.out;
    if (c->n_in > 2 && c->in[2])
        MEST_INFER_CHECK(c, c->in[2]->shape.rank == 1 && c->in[2]->shape.dim[0] == channels, "bias must have one entry per output channel (%" PRId64 ")", channels);
    mest_shape *y = &c->out[0].shape;
    c->out[0].dtype = c->in[0]->dtype;
    y->rank = x->rank;
    y->dim[0] = v.n;
    y->dim[1] = channels;
    for (int i = 2; i < x->rank; i++)
        y->dim[i] = sizes[3 - v.window.spatial + i - 2];
    return MEST_OK;
}

mest_status mest_conv_grad_infer(mest_infer *c, mest_conv_rule *rule, bool transposed)
{
    char why[160];
    mest_convolution v;
    if (!rule(c->params, &c->in[0]->shape, &c->in[1]->shape, &v, why, sizeof why))
        return mest_infer_fail(c, MEST_E_SHAPE, "%s", why);
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = c->in[0]->shape;
    if (c->n_out > 1)
        c->out[1] = *c->in[1]; /* with the layout: a sparse weight's gradient lives at its stored entries */
    if (c->n_out > 2) {
        c->out[2].dtype = c->in[2]->dtype;
        c->out[2].shape = (mest_shape){ .rank = 1, .dim = { transposed ? v.c : v.m } };
    }
    return MEST_OK;
}

mest_status mest_conv_run(const mest_args *a, mest_conv_rule *rule, mest_convolution *v)
{
    char why[160];
    if (!rule(a->params, &a->in[0].type->shape, &a->in[1].type->shape, v, why, sizeof why))
        return mest_run_fail(a, MEST_E_INTERNAL, "%s", why);
    return MEST_OK;
}

int64_t mest_conv_macs(const mest_node *node, mest_conv_rule *rule, const mest_type *const *in)
{
    char why[160];
    mest_convolution v;
    return rule(node->params, &in[0]->shape, &in[1]->shape, &v, why, sizeof why) ? mest_convolution_macs(&v) : 0;
}

int64_t mest_conv_grad_macs(const mest_node *node, mest_conv_rule *rule, const mest_type *const *in, const mest_type *const *out)
{
    const int products = (node->n_out > 0 && out[0] ? 1 : 0) + (node->n_out > 1 && out[1] ? 1 : 0);
    return products * mest_conv_macs(node, rule, in);
}
