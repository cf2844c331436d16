/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of convolutions in PIXEL layout with one lane (NHWC), for every instruction set, as building blocks: the XNNPACK provider
 * pairs the weight gradient with its own backward-data.
 *
 *   mest_nhwc_job    one gradient: geometry, operands, scratch
 *   mest_nhwc        the functions of one instruction set
 */
#ifndef MEST_OPS_KERNELS_NHWC_H
#define MEST_OPS_KERNELS_NHWC_H

#include "mest_config.h"
#include "ops/nn.h"
#include "runtime/cpu.h"

typedef struct mest_nhwc_job {
    mest_conv_geometry k;
    mest_pixels gx, gdy, gdx;       /* of X, dY, dX: v = 1, any halo */
    const mest_real *x, *w, *dy;
    mest_real *dx, *dw, *db;        /* NULL: not wanted; dw is OIHW */
    void *scratch;
    const mest_threads *threads;
} mest_nhwc_job;

typedef struct mest_nhwc {
    size_t (*weight_scratch)(const mest_conv_geometry *k);   /* bytes */
    void (*weight_grad)(const mest_nhwc_job *job);           /* dw and db */
    size_t (*depthwise_scratch)(const mest_conv_geometry *k);
    void (*depthwise_data_grad)(const mest_nhwc_job *job);   /* dx; group = c = m */
} mest_nhwc;

extern const mest_nhwc mest_nhwc_scalar;
#if MEST_HAVE_AVX2 && !MEST_REAL_IS_DOUBLE
extern const mest_nhwc mest_nhwc_avx2;
#endif
#if MEST_HAVE_AVX512 && !MEST_REAL_IS_DOUBLE
extern const mest_nhwc mest_nhwc_avx512;
#endif
#if MEST_HAVE_NEON && !MEST_REAL_IS_DOUBLE
extern const mest_nhwc mest_nhwc_neon;
#endif

/* The best that the features allow. */
static inline const mest_nhwc *mest_nhwc_for(unsigned cpu)
{
#if MEST_HAVE_AVX512 && !MEST_REAL_IS_DOUBLE
    if (cpu & MEST_CPU_AVX512)
        return &mest_nhwc_avx512;
#endif
#if MEST_HAVE_AVX2 && !MEST_REAL_IS_DOUBLE
    if (cpu & MEST_CPU_AVX2)
        return &mest_nhwc_avx2;
#endif
#if MEST_HAVE_NEON && !MEST_REAL_IS_DOUBLE
    if (cpu & MEST_CPU_NEON)
        return &mest_nhwc_neon;
#endif
    (void)cpu;
    return &mest_nhwc_scalar;
}

#endif
