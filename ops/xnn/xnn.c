/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/xnn/xnn.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <xnnpack.h>

#include "mest_config.h"
#include "runtime/cpu.h"
#include "runtime/pool.h"

/* The 2023 and later interface takes caches at creation, sizes at reshape and pointers at setup. */
#if MEST_XNN_RESHAPE
#define CACHES , NULL, NULL
#else
#define CACHES
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool usable;
static void initialise(void) { usable = xnn_initialize(NULL) == xnn_status_success; }

bool mest_xnn_ready(void)
{
    pthread_once(&once, initialise);
    return usable;
}

static pthreadpool_t pool_of(const mest_threads *threads) { return threads && threads->pool ? mest_pool_native(threads->pool) : NULL; }

void mest_xnn_drop(mest_xnn *x)
{
    if (x->op)
        xnn_delete_operator(x->op);
    x->op = NULL;
}

void mest_xnn_free(mest_xnn *x)
{
    mest_xnn_drop(x);
    mest_free(x->heap, x->workspace, x->workspace_bytes, 1);
    x->workspace = NULL;
    x->workspace_bytes = 0;
}

bool mest_xnn_run(mest_xnn *x, const mest_threads *threads) { return xnn_run_operator(x->op, pool_of(threads)) == xnn_status_success; }

#if MEST_XNN_RESHAPE
/* Grows only: after the first run nothing is allocated. */
static bool reserve(mest_xnn *x, size_t bytes)
{
    if (bytes <= x->workspace_bytes)
        return true;
    mest_free(x->heap, x->workspace, x->workspace_bytes, 1);
    x->workspace = mest_alloc(x->heap, bytes, 1);
    x->workspace_bytes = x->workspace ? bytes : 0;
    return x->workspace != NULL;
}
#endif

bool mest_xnn_conv_create(mest_xnn *x, const mest_xnn_window *w, bool depthwise, const float *weights, const float *bias, mest_clamp clamp)
{
    mest_xnn_drop(x);
    const size_t in = w->groups * w->group_in, out = w->groups * w->group_out;
    return xnn_create_convolution2d_nhwc_f32(w->top, w->right, w->bottom, w->left, w->r, w->s, w->stride_y, w->stride_x, w->dilation_y,
                                             w->dilation_x, w->groups, w->group_in, w->group_out, in, out, weights, bias,
                                             clamp.on ? (float)clamp.lo : -INFINITY, clamp.on ? (float)clamp.hi : INFINITY,
                                             depthwise ? XNN_FLAG_DEPTHWISE_CONVOLUTION : 0 CACHES, &x->op) == xnn_status_success;
}

bool mest_xnn_conv_bind(mest_xnn *x, int64_t n, int64_t h, int64_t w, const float *in, float *out, const mest_threads *threads)
{
#if MEST_XNN_RESHAPE
    size_t bytes = 0, align = 0, oh, ow;
    return xnn_reshape_convolution2d_nhwc_f32(x->op, (size_t)n, (size_t)h, (size_t)w, &bytes, &align, &oh, &ow, pool_of(threads)) ==
               xnn_status_success &&
           reserve(x, bytes) && xnn_setup_convolution2d_nhwc_f32(x->op, x->workspace, in, out) == xnn_status_success;
#else
    return xnn_setup_convolution2d_nhwc_f32(x->op, (size_t)n, (size_t)h, (size_t)w, in, out, pool_of(threads)) == xnn_status_success;
#endif
}

bool mest_xnn_deconv_create(mest_xnn *x, const mest_xnn_window *w, const float *weights)
{
    mest_xnn_drop(x);
    const size_t in = w->groups * w->group_in, out = w->groups * w->group_out;
    return xnn_create_deconvolution2d_nhwc_f32(w->top, w->right, w->bottom, w->left, w->r, w->s, w->stride_y, w->stride_x, w->dilation_y,
                                               w->dilation_x, w->groups, w->group_in, w->group_out, in, out, weights, NULL, -INFINITY, INFINITY,
                                               0 CACHES, &x->op) == xnn_status_success;
}

bool mest_xnn_deconv_bind(mest_xnn *x, int64_t n, int64_t h, int64_t w, int64_t adjust_y, int64_t adjust_x, const float *in, float *out,
                          const mest_threads *threads)
{
#if MEST_XNN_RESHAPE
    size_t oh, ow;
    return xnn_reshape_deconvolution2d_nhwc_f32(x->op, (size_t)n, (size_t)h, (size_t)w, (uint32_t)adjust_y, (uint32_t)adjust_x, &oh, &ow,
                                                pool_of(threads)) == xnn_status_success &&
           xnn_setup_deconvolution2d_nhwc_f32(x->op, in, out) == xnn_status_success;
#else
    return xnn_setup_deconvolution2d_nhwc_f32(x->op, (size_t)n, (size_t)h, (size_t)w, (uint32_t)adjust_y, (uint32_t)adjust_x, in, out,
                                              pool_of(threads)) == xnn_status_success;
#endif
}

bool mest_xnn_dense_create(mest_xnn *x, int64_t inputs, int64_t outputs, bool transposed, const float *weights, const float *bias)
{
    mest_xnn_drop(x);
    return xnn_create_fully_connected_nc_f32((size_t)inputs, (size_t)outputs, (size_t)inputs, (size_t)outputs, weights, bias, -INFINITY,
                                             INFINITY, transposed ? XNN_FLAG_TRANSPOSE_WEIGHTS : 0 CACHES, &x->op) == xnn_status_success;
}

bool mest_xnn_dense_bind(mest_xnn *x, int64_t rows, const float *in, float *out, const mest_threads *threads)
{
#if MEST_XNN_RESHAPE
    return xnn_reshape_fully_connected_nc_f32(x->op, (size_t)rows, pool_of(threads)) == xnn_status_success &&
           xnn_setup_fully_connected_nc_f32(x->op, in, out) == xnn_status_success;
#else
    return xnn_setup_fully_connected_nc_f32(x->op, (size_t)rows, in, out, pool_of(threads)) == xnn_status_success;
#endif
}

bool mest_xnn_maxpool_create(mest_xnn *x, const mest_xnn_window *w, int64_t channels)
{
    mest_xnn_drop(x);
#if MEST_XNN_RESHAPE
    (void)channels;
    return xnn_create_max_pooling2d_nhwc_f32(w->top, w->right, w->bottom, w->left, w->r, w->s, w->stride_y, w->stride_x, w->dilation_y,
                                             w->dilation_x, -INFINITY, INFINITY, 0, &x->op) == xnn_status_success;
#else
    return xnn_create_max_pooling2d_nhwc_f32(w->top, w->right, w->bottom, w->left, w->r, w->s, w->stride_y, w->stride_x, w->dilation_y,
                                             w->dilation_x, (size_t)channels, (size_t)channels, (size_t)channels, -INFINITY, INFINITY, 0,
                                             &x->op) == xnn_status_success;
#endif
}

bool mest_xnn_maxpool_bind(mest_xnn *x, int64_t n, int64_t h, int64_t w, int64_t channels, const float *in, float *out,
                           const mest_threads *threads)
{
#if MEST_XNN_RESHAPE
    size_t oh, ow, c = (size_t)channels;
    return xnn_reshape_max_pooling2d_nhwc_f32(x->op, (size_t)n, (size_t)h, (size_t)w, c, c, c, &oh, &ow, pool_of(threads)) ==
               xnn_status_success &&
           xnn_setup_max_pooling2d_nhwc_f32(x->op, in, out) == xnn_status_success;
#else
    (void)channels;
    return xnn_setup_max_pooling2d_nhwc_f32(x->op, (size_t)n, (size_t)h, (size_t)w, in, out, pool_of(threads)) == xnn_status_success;
#endif
}

/* Measured in networks: Zen 4; Zen 3, where matrix products and convolutions of Debian's library reach 19 to 36 GFLOP/s (docs/results/performance.md). */
double mest_xnn_flops(unsigned cpu) { return cpu & MEST_CPU_AVX512 ? 100e9 : cpu & MEST_CPU_AVX2 ? 30e9 : 15e9; }

uint64_t mest_xnn_fingerprint(const float *values, int64_t n, const float *more, int64_t n_more)
{
    uint64_t lane[4] = {1, 2, 3, 4}; /* four sums side by side: the multiplications overlap */
    for (int part = 0; part < 2; part++) {
        const float *from = part ? more : values;
        const int64_t count = part ? n_more : n;
        int64_t i = 0;
        for (; from && i + 8 <= count; i += 8) {
            uint64_t word[4];
            memcpy(word, from + i, sizeof word);
            for (int l = 0; l < 4; l++)
                lane[l] = (lane[l] ^ word[l]) * 0x9e3779b97f4a7c15u + (lane[l] >> 29);
        }
        for (; from && i < count; i++) {
            uint32_t bits;
            memcpy(&bits, from + i, sizeof bits);
            lane[0] = (lane[0] ^ bits) * 0x9e3779b97f4a7c15u + (lane[0] >> 29);
        }
    }
    return (lane[0] * 31 + lane[1]) * 31 + (lane[2] * 31 + lane[3]);
}
