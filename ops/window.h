/* SPDX-License-Identifier: Apache-2.0 */
/* Sliding windows of convolutions and pools in one to three spatial dimensions.
 *
 *   mest_window_spec   attributes as ONNX gives them
 *   mest_window        every default filled in; always three axes, missing ones in front have size 1
 */
#ifndef MEST_OPS_WINDOW_H
#define MEST_OPS_WINDOW_H

#include "ops/nn.h"

typedef struct mest_window_spec {
    const mest_ints *kernel, *strides, *pads, *dilations; /* kernel: n is the number of spatial axes; the others may have n = 0 */
    const char *auto_pad;
    bool ceil;              /* ceil_mode of pools; a last window that would start past the input and its left pad is dropped */
} mest_window_spec;

typedef struct mest_window {
    int spatial;            /* 1, 2 or 3: axes 3 - spatial .. 2 are real */
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], lo[3], hi[3];
} mest_window;

/* `x` is [N, C, ...]. False, with text, when attributes and shape do not fit. */
bool mest_window_of(const mest_window_spec *spec, const mest_shape *x, mest_window *w, char *why, size_t why_size);
/* The inverse (ConvTranspose): `in` of the result is the larger image that the transposed convolution produces, `out` the image `x` it is
 * given, so that the result describes the convolution whose gradient it is. output_padding and output_shape may have n = 0. */
bool mest_window_transposed(const mest_window_spec *spec, const mest_ints *output_padding, const mest_ints *output_shape,
                            const mest_shape *x, mest_window *w, char *why, size_t why_size);

static inline int64_t mest_window_volume(const int64_t d[3]) { return d[0] * d[1] * d[2]; }

#endif
