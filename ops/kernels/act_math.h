/* SPDX-License-Identifier: Apache-2.0 */
/* Activations and their slopes as vector code, for the instruction set being compiled; static inline for the reason given in pixel.h. Formulas:
 * ops/activation.c. NaN in, NaN out. */
#ifndef MEST_OPS_KERNELS_ACT_MATH_H
#define MEST_OPS_KERNELS_ACT_MATH_H

#include "ops/act.h"
#include "ops/elements.h"
#include "ops/gate_math.h"

#define ACT_R(x) ((mest_real)(x))
#define ACT_SQRT_2_PI ACT_R(0.79788456080286535588)
#define ACT_CUBIC ACT_R(0.044715)

static inline mest_real act_gelu(mest_real x)
{
    mest_real density;
    return x * mest_gate_normal(x, &density);
}
static inline mest_real act_gelu_slope(mest_real x)
{
    mest_real density, phi = mest_gate_normal(x, &density);
    return phi + x * density;
}
static inline mest_real act_gelu_tanh(mest_real x) { return ACT_R(0.5) * x * (1 + mest_gate_tanh(ACT_SQRT_2_PI * (x + ACT_CUBIC * x * x * x))); }
static inline mest_real act_gelu_tanh_slope(mest_real x)
{
    const mest_real t = mest_gate_tanh(ACT_SQRT_2_PI * (x + ACT_CUBIC * x * x * x));
    return ACT_R(0.5) * (1 + t) + ACT_R(0.5) * x * (1 - t * t) * ACT_SQRT_2_PI * (1 + 3 * ACT_CUBIC * x * x);
}
static inline mest_real act_swish(mest_real x, mest_real alpha) { return x * mest_gate_sigmoid(alpha * x); }
static inline mest_real act_swish_slope(mest_real x, mest_real alpha)
{
    const mest_real s = mest_gate_sigmoid(alpha * x);
    return s + alpha * x * s * (1 - s);
}
static inline mest_real act_hard_sigmoid(mest_real x, mest_real alpha, mest_real beta)
{
    mest_real t = alpha * x + beta;
    t = t < 0 ? 0 : t;
    return t > 1 ? 1 : t;
}
static inline mest_real act_hard_swish(mest_real x)
{
    mest_real t = x / 6 + ACT_R(0.5);
    t = t < 0 ? 0 : t;
    return x * (t > 1 ? 1 : t);
}
/* tanh(log(1 + e)) with e = e^x, without a logarithm: 1 - 2 / ((1 + e)^2 + 1), as a quotient of sums that do not cancel. */
static inline mest_real act_mish_gate(mest_real x)
{
    const mest_real e = mest_gate_exp(x > 20 ? 20 : x), t = e * (e + 2);
    return t / (t + 2);
}
static inline mest_real act_mish_slope(mest_real x)
{
    const mest_real t = act_mish_gate(x);
    return t + x * mest_gate_sigmoid(x) * (1 - t * t);
}

/* The expression of x for n elements of in[], to out[]. */
#define ACT_LOOP(expression)                \
    do {                                    \
        MEST_IVDEP                          \
        for (int64_t i = 0; i < n; i++) {   \
            const mest_real x = in[i];      \
            out[i] = (expression);          \
        }                                   \
    } while (0)
/* The same with g = dy[i]. */
#define ACT_GRAD_LOOP(expression)                       \
    do {                                                \
        MEST_IVDEP                                      \
        for (int64_t i = 0; i < n; i++) {               \
            const mest_real x = in[i], g = dy[i];       \
            out[i] = (expression);                      \
        }                                               \
    } while (0)

static inline void act_row(const mest_act *act, const mest_real *in, mest_real *out, int64_t n)
{
    const mest_real alpha = ACT_R(act->alpha), beta = ACT_R(act->beta);
    switch (act->kind) {
    case MEST_ACT_LEAKY_RELU: ACT_LOOP(x < 0 ? alpha * x : x); break;
    case MEST_ACT_SIGMOID: ACT_LOOP(mest_gate_sigmoid(x)); break;
    case MEST_ACT_TANH: ACT_LOOP(mest_gate_tanh(x)); break;
    case MEST_ACT_HARD_SIGMOID: ACT_LOOP(act_hard_sigmoid(x, alpha, beta)); break;
    case MEST_ACT_HARD_SWISH: ACT_LOOP(act_hard_swish(x)); break;
    case MEST_ACT_SWISH: ACT_LOOP(act_swish(x, alpha)); break;
    case MEST_ACT_GELU: ACT_LOOP(act_gelu(x)); break;
    case MEST_ACT_GELU_TANH: ACT_LOOP(act_gelu_tanh(x)); break;
    case MEST_ACT_MISH: ACT_LOOP(x * act_mish_gate(x)); break;
    case MEST_ACT_NONE: case MEST_ACT_KINDS: break;
    }
}

/* out = act'(in) dy; out may be in or dy. */
static inline void act_slope_row(const mest_act *act, const mest_real *in, const mest_real *dy, mest_real *out, int64_t n)
{
    const mest_real alpha = ACT_R(act->alpha), beta = ACT_R(act->beta);
    switch (act->kind) {
    case MEST_ACT_LEAKY_RELU: ACT_GRAD_LOOP(x > 0 ? g : alpha * g); break;
    case MEST_ACT_SIGMOID: ACT_GRAD_LOOP(g * mest_gate_sigmoid(x) * (1 - mest_gate_sigmoid(x))); break;
    case MEST_ACT_TANH: ACT_GRAD_LOOP(g * (1 - mest_gate_tanh(x) * mest_gate_tanh(x))); break;
    case MEST_ACT_HARD_SIGMOID: ACT_GRAD_LOOP((alpha * x + beta > 0) & (alpha * x + beta < 1) ? alpha * g : 0); break;
    case MEST_ACT_HARD_SWISH: ACT_GRAD_LOOP(x <= -3 ? 0 : x < 3 ? g * (x / 3 + ACT_R(0.5)) : g); break;
    case MEST_ACT_SWISH: ACT_GRAD_LOOP(g * act_swish_slope(x, alpha)); break;
    case MEST_ACT_GELU: ACT_GRAD_LOOP(g * act_gelu_slope(x)); break;
    case MEST_ACT_GELU_TANH: ACT_GRAD_LOOP(g * act_gelu_tanh_slope(x)); break;
    case MEST_ACT_MISH: ACT_GRAD_LOOP(g * act_mish_slope(x)); break;
    case MEST_ACT_NONE: case MEST_ACT_KINDS: break;
    }
}

#endif
