/* SPDX-License-Identifier: Apache-2.0 */
/* Sigmoid and tanh for the gates of recurrent layers, the normal distribution for Gelu: without branches and library calls, so that a loop over units becomes vector code.
 * float: within 2.5 units in the last place; polynomials fitted by least squares in relative error. double: the C library. Not a number in, not a
 * number out. */
#ifndef MEST_OPS_GATE_MATH_H
#define MEST_OPS_GATE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "runtime/tensor.h"

#if MEST_REAL_IS_DOUBLE
static inline double mest_gate_exp(double x) { return exp(x); }
static inline double mest_gate_tanh(double x) { return tanh(x); }
static inline double mest_gate_normal(double x, double *density)
{
    *density = 0.39894228040143267794 * exp(-0.5 * x * x);
    return 0.5 * erfc(-0.70710678118654752440 * x);
}
#else
/* e^x, x limited to +-87 */
static inline float mest_gate_exp(float x)
{
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    float t = x * 1.44269504f + 12582912.0f; /* rounds to the nearest whole number, which is then in the low bits */
    uint32_t n;
    memcpy(&n, &t, sizeof n);
    t -= 12582912.0f;
    float r = x - t * 0.693145752f - t * 1.42860677e-6f; /* ln 2 in two parts */
    float p = 0.0013946455f;
    p = p * r + 0.008369157f;
    p = p * r + 0.04166626f;
    p = p * r + 0.16666517f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    n = (n << 23) + 0x3f800000u;
    float power;
    memcpy(&power, &n, sizeof power);
    return p * power;
}

/* An odd polynomial near 0, where 1 - e^(-2|x|) would cancel. Both sides are computed, one is taken. */
static inline float mest_gate_tanh(float x)
{
    float a = fabsf(x), z = x * x, e = mest_gate_exp(-2.0f * a);
    float far = (1.0f - e) / (1.0f + e), p = -0.0057040486f;
    p = p * z + 0.020637868f;
    p = p * z - 0.05373916f;
    p = p * z + 0.13331431f;
    p = p * z - 0.3333328f;
    p = p * z * x + x;
    return a < 0.625f ? p : copysignf(far, x);
}

/* Phi(x), the normal distribution, and its density: Phi(-|x|) = e^(-x^2 / 2) times a polynomial in 1 / (1 + 0.26 |x|), fitted in relative error
 * (2e-7 in float). */
static inline float mest_gate_normal(float x, float *density)
{
    float a = fabsf(x), e = mest_gate_exp(-0.5f * x * x), t = 1.0f / (1.0f + 0.26f * a);
    float p = 0.0339188002f;
    p = p * t - 0.170477131f;
    p = p * t + 0.290880144f;
    p = p * t - 0.200668564f;
    p = p * t + 0.199992491f;
    p = p * t + 0.0312787492f;
    p = p * t + 0.109455338f;
    p = p * t + 0.101721474f;
    p = p * t + 0.103905824f;
    p = p * t - 7.12254591e-06f;
    p *= e;
    *density = e * 0.39894228f;
    return x > 0 ? 1.0f - p : p;
}
#endif
static inline mest_real mest_gate_sigmoid(mest_real x) { return 1 / (1 + mest_gate_exp(-x)); }

#endif
