/* SPDX-License-Identifier: Apache-2.0 */
/* Activations as a part of a layer (mest_act, ops/nn.h): portable, as the operators compute them, and as vector code.
 *
 *   mest_act_reference         y = act(x) by the rows of ops/activation.c, which is the definition
 *   mest_act_slope_reference   dx = act'(z) dy, from the input z in any case
 *   mest_act_for               the vector code of the widest instruction set that the processor has (ops/kernels/act.c)
 */
#ifndef MEST_OPS_ACT_H
#define MEST_OPS_ACT_H

#include "mest_config.h"
#include "ops/nn.h"
#include "runtime/cpu.h"

/* y may be x; dx may be z or dy. kind is not MEST_ACT_NONE. n elements. Any thread. */
void mest_act_reference(const mest_act *act, const mest_real *x, mest_real *y, int64_t n);
void mest_act_slope_reference(const mest_act *act, const mest_real *z, const mest_real *dy, mest_real *dx, int64_t n);

/* y = act(x), elementwise; y may be x. */
typedef void (*mest_act_fn)(const mest_act *act, const mest_real *x, mest_real *y, int64_t n);

void mest_act_scalar(const mest_act *act, const mest_real *x, mest_real *y, int64_t n);
#if MEST_HAVE_AVX2 && !MEST_REAL_IS_DOUBLE
void mest_act_avx2(const mest_act *act, const mest_real *x, mest_real *y, int64_t n);
#endif
#if MEST_HAVE_AVX512 && !MEST_REAL_IS_DOUBLE
void mest_act_avx512(const mest_act *act, const mest_real *x, mest_real *y, int64_t n);
#endif
#if MEST_HAVE_NEON && !MEST_REAL_IS_DOUBLE
void mest_act_neon(const mest_act *act, const mest_real *x, mest_real *y, int64_t n);
#endif

static inline mest_act_fn mest_act_for(unsigned cpu)
{
#if MEST_HAVE_AVX512 && !MEST_REAL_IS_DOUBLE
    if (cpu & MEST_CPU_AVX512)
        return mest_act_avx512;
#endif
#if MEST_HAVE_AVX2 && !MEST_REAL_IS_DOUBLE
    if (cpu & MEST_CPU_AVX2)
        return mest_act_avx2;
#endif
#if MEST_HAVE_NEON && !MEST_REAL_IS_DOUBLE
    if (cpu & MEST_CPU_NEON)
        return mest_act_neon;
#endif
    (void)cpu;
    return mest_act_scalar;
}

#endif
