/* SPDX-License-Identifier: Apache-2.0 */
/* The three products of a convolution in plain layout, dense: what Conv, ConvTranspose and their gradients are made of.
 *
 *   image    [N, C, in...]      what the windows slide over
 *   weight   [M, C/G, kernel...]
 *   map      [N, M, out...]
 *
 * A transposed convolution is `image` computed from `map` (weight [C', M'/G] with the two channel counts exchanged).
 * No buffer grows with the problem: windows are gathered a panel at a time.
 */
#ifndef MEST_OPS_CONVOLVE_H
#define MEST_OPS_CONVOLVE_H

#include "ops/dense.h"
#include "ops/nn.h"
#include "ops/window.h"

typedef struct mest_convolution {
    int64_t n, c, m, group; /* image channels, map channels */
    mest_window window;
} mest_convolution;

/* map = image * weight + bias[M] (NULL: none) */
void mest_convolve(const mest_threads *threads, const mest_convolution *v, const mest_real *image, const mest_real *weight,
                   const mest_real *bias, mest_real *map);
/* image = gradient of the above for the image, given map; + bias[C] (NULL: none) */
void mest_convolve_image(const mest_threads *threads, const mest_convolution *v, const mest_real *map, const mest_real *weight,
                         const mest_real *bias, mest_real *image);
/* weight = gradient of the above for the weight, given image and map */
void mest_convolve_weight(const mest_threads *threads, const mest_convolution *v, const mest_real *image, const mest_real *map,
                          mest_real *weight);
/* sums[c] = sum of x[n][c][...] over n and the `inner` positions, in double */
void mest_channel_sums(const mest_threads *threads, int64_t n, int64_t c, int64_t inner, const mest_real *x, mest_real *sums);
/* y[n][c][...] = clamp(y * factor[c] + shift[c]) (factor NULL: 1; shift NULL: 0), `inner` positions. */
void mest_channel_affine(const mest_threads *threads, int64_t n, int64_t c, int64_t inner, const mest_real *factor, const mest_real *shift,
                         const mest_clamp *clamp, const mest_act *act, mest_real *y);
/* Multiply-adds of one of the three products. */
static inline int64_t mest_convolution_macs(const mest_convolution *v)
{
    return v->n * v->m * mest_window_volume(v->window.out) * (v->c / v->group) * mest_window_volume(v->window.kernel);
}

#endif
