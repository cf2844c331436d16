/* SPDX-License-Identifier: Apache-2.0 */
#include "naive.h"

#include <math.h>

static void add(sums s, int64_t at, double term)
{
    s.value[at] += term;
    s.magnitude[at] += fabs(term);
}

/* Calls BODY for every product of the convolution: positions l of large, s of small, w of the weight. */
#define FOR_PRODUCTS(g, BODY)                                                                                                  \
    for (int64_t n_ = 0; n_ < (g)->n; n_++)                                                                                    \
        for (int64_t m_ = 0; m_ < (g)->m; m_++)                                                                                \
            for (int64_t c_ = 0; c_ < (g)->c / (g)->group; c_++)                                                               \
                for (int64_t p_ = 0; p_ < (g)->p; p_++)                                                                        \
                    for (int64_t q_ = 0; q_ < (g)->q; q_++)                                                                    \
                        for (int64_t r_ = 0; r_ < (g)->r; r_++)                                                                \
                            for (int64_t s_ = 0; s_ < (g)->s; s_++) {                                                          \
                                int64_t y_ = p_ * (g)->stride_y + r_ * (g)->dilation_y - (g)->top;                             \
                                int64_t x_ = q_ * (g)->stride_x + s_ * (g)->dilation_x - (g)->left;                            \
                                if (y_ < 0 || y_ >= (g)->h || x_ < 0 || x_ >= (g)->w)                                          \
                                    continue;                                                                                  \
                                int64_t in_ = m_ / ((g)->m / (g)->group) * ((g)->c / (g)->group) + c_;                         \
                                int64_t l = ((n_ * (g)->c + in_) * (g)->h + y_) * (g)->w + x_;                                 \
                                int64_t s = ((n_ * (g)->m + m_) * (g)->p + p_) * (g)->q + q_;                                  \
                                int64_t w = ((m_ * ((g)->c / (g)->group) + c_) * (g)->r + r_) * (g)->s + s_;                   \
                                BODY                                                                                           \
                            }

static void start(int64_t n, int64_t c, int64_t pixels, const double *bias, sums out)
{
    for (int64_t i = 0; i < n * c * pixels; i++) {
        out.value[i] = bias ? bias[i / pixels % c] : 0;
        out.magnitude[i] = fabs(out.value[i]);
    }
}

void naive_small(const mest_conv_geometry *g, const double *large, const double *weight, const double *bias, sums small)
{
    start(g->n, g->m, g->p * g->q, bias, small);
    FOR_PRODUCTS(g, { add(small, s, large[l] * weight[w]); })
}

void naive_large(const mest_conv_geometry *g, const double *small, const double *weight, const double *bias, sums large)
{
    start(g->n, g->c, g->h * g->w, bias, large);
    FOR_PRODUCTS(g, { add(large, l, small[s] * weight[w]); })
}

void naive_weight(const mest_conv_geometry *g, const double *large, const double *small, sums weight)
{
    for (int64_t i = 0; i < g->m * (g->c / g->group) * g->r * g->s; i++)
        weight.value[i] = weight.magnitude[i] = 0;
    FOR_PRODUCTS(g, { add(weight, w, large[l] * small[s]); })
}

void naive_channels(int64_t n, int64_t c, int64_t pixels, const double *x, sums out)
{
    for (int64_t i = 0; i < c; i++)
        out.value[i] = out.magnitude[i] = 0;
    for (int64_t i = 0; i < n * c * pixels; i++)
        add(out, i / pixels % c, x[i]);
}
