/* SPDX-License-Identifier: Apache-2.0 */
/* What Conv and ConvTranspose share around the products of ops/convolve.h. Each brings its rule, which reads the convolution out of
 * the shapes; `transposed` says that Y is the convolution's image and X its map. Inputs X, W, B; gradient operators X, W, dY -> dX, dW, dB. */
#ifndef MEST_OPS_CONV_OP_H
#define MEST_OPS_CONV_OP_H

#include "ops/convolve.h"

#include <stddef.h>

/* The attributes of both. */
#define MEST_CONV_ATTRS \
    { .name = "kernel_shape", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, kernel_shape) }, \
    { .name = "strides", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, strides) }, \
    { .name = "pads", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, pads) }, \
    { .name = "dilations", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_conv_params, dilations) }, \
    { .name = "group", .kind = MEST_ATTR_INT, .offset = offsetof(mest_conv_params, group), .number = 1 }, \
    { .name = "auto_pad", .kind = MEST_ATTR_STRING, .offset = offsetof(mest_conv_params, auto_pad), .text = "NOTSET" }

/* False with the reason in `why` where the shapes do not fit. */
typedef bool mest_conv_rule(const mest_conv_params *params, const mest_shape *x, const mest_shape *w, mest_convolution *v, char *why, size_t why_size);

/* The ranks of X and W, and W's kernel against kernel_shape; kernel[MEST_MAX_RANK] gets the kernel's sizes. */
bool mest_conv_kernel(const mest_conv_params *params, const mest_shape *x, const mest_shape *w, int64_t *kernel, char *why, size_t why_size);

mest_status mest_conv_infer(mest_infer *c, mest_conv_rule *rule, bool transposed);
mest_status mest_conv_grad_infer(mest_infer *c, mest_conv_rule *rule, bool transposed);
/* The convolution of a node that runs; both operators' first inputs are X and W. */
mest_status mest_conv_run(const mest_args *a, mest_conv_rule *rule, mest_convolution *v);
/* Of the forward product; 0 where the shapes do not fit. */
int64_t mest_conv_macs(const mest_node *node, mest_conv_rule *rule, const mest_type *const *in);
/* One product for each of dX and dW that is made. */
int64_t mest_conv_grad_macs(const mest_node *node, mest_conv_rule *rule, const mest_type *const *in, const mest_type *const *out);

#endif
