/* SPDX-License-Identifier: Apache-2.0 */
/* Naive loops in double that kernels are compared with. Beside each sum stands the sum of magnitudes, which scales the tolerance. */
#ifndef MEST_TESTS_NAIVE_H
#define MEST_TESTS_NAIVE_H

#include "ops/nn.h"

typedef struct sums { double *value, *magnitude; } sums;

/* small[n,m,p,q], large[n,c,h,w], weight[m,c/group,r,s], all dense in C order; large = input of a convolution, small = its output. */
void naive_small(const mest_conv_geometry *g, const double *large, const double *weight, const double *bias, sums small);
void naive_large(const mest_conv_geometry *g, const double *small, const double *weight, const double *bias, sums large);
void naive_weight(const mest_conv_geometry *g, const double *large, const double *small, sums weight);
/* out[c] = sum of x[n,c,i] */
void naive_channels(int64_t n, int64_t c, int64_t pixels, const double *x, sums out);

#endif
