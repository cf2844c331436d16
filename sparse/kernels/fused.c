/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of strips for one instruction set, and the kernels of mest.FusedConv and mest.FusedConvGrad. */
#include "sparse/kernels/fused.h"

#include "sparse/kernels/lanes_micro.h"

#if defined(MEST_ISA_AVX512) || defined(MEST_ISA_AVX2)
#include <immintrin.h>
#endif

/* lo where x < lo, else x; hi where x > hi, else x: NaN stays NaN. value where z is strictly inside, else 0. */
#if defined(MEST_ISA_AVX512)
INLINE vec at_least(vec x, vec lo) { return _mm512_max_ps(lo, x); } /* of two numbers one of which is NaN: the second */
INLINE vec at_most(vec x, vec hi) { return _mm512_min_ps(hi, x); }
INLINE vec inside(vec z, vec lo, vec hi, vec value)
{
    return _mm512_maskz_mov_ps(_mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(z, lo, _CMP_GT_OQ), z, hi, _CMP_LT_OQ), value);
}
#elif defined(MEST_ISA_AVX2)
INLINE vec at_least(vec x, vec lo) { return _mm256_max_ps(lo, x); }
INLINE vec at_most(vec x, vec hi) { return _mm256_min_ps(hi, x); }
INLINE vec inside(vec z, vec lo, vec hi, vec value)
{
    return _mm256_and_ps(_mm256_and_ps(_mm256_cmp_ps(z, lo, _CMP_GT_OQ), _mm256_cmp_ps(z, hi, _CMP_LT_OQ)), value);
}
#else
#if MEST_REAL_IS_DOUBLE
typedef int64_t bits __attribute__((vector_size(VECTOR_BYTES)));
#else
typedef int32_t bits __attribute__((vector_size(VECTOR_BYTES)));
#endif
/* Macros: where the target has no such vectors, gcc warns about functions that take them, inlined or not. */
#define CHOOSE(where, a, b) ((vec)(((where) & (bits)(a)) | (~(where) & (bits)(b))))
#define at_least(x, lo) CHOOSE((x) < (lo), lo, x)
#define at_most(x, hi) CHOOSE((x) > (hi), hi, x)
#define inside(z, lo, hi, value) ((vec)(((z) > (lo)) & ((z) < (hi)) & (bits)(value)))
#endif

/* Pixels at a time: constants of a channel are loaded once for all of them. */
enum { GROUP = 4, GROUP_SUMS = 8 };

INLINE void forward_pixels(const int k, int64_t c, const mest_real *x, int64_t xp, const mest_real *map, int64_t step, mest_clamp clamp, const bool on,
                           mest_real *to, int64_t top)
{
    const vec lo = SPLAT(clamp.lo), hi = SPLAT(clamp.hi);
    for (int64_t i = 0; i < c; i++) {
        const vec m = SPLAT(map[i]), a = SPLAT(map[step + i]), b = SPLAT(map[2 * step + i]);
        UNROLL for (int p = 0; p < k; p++)
        {
            vec t = (LOAD(x + p * xp + i * V) - m) * a + b;
            if (on) {
                t = at_least(t, lo);
                t = at_most(t, hi);
            }
            STORE(to + p * top + i * V, t);
        }
    }
}

static void forward_row(int64_t n, int64_t c, const mest_real *x, int64_t xp, const mest_real *map, int64_t step, mest_clamp clamp, mest_real *to,
                        int64_t top)
{
    int64_t p = 0;
    for (; p + GROUP <= n; p += GROUP)
        if (clamp.on)
            forward_pixels(GROUP, c, x + p * xp, xp, map, step, clamp, true, to + p * top, top);
        else
            forward_pixels(GROUP, c, x + p * xp, xp, map, step, clamp, false, to + p * top, top);
    for (; p < n; p++)
        forward_pixels(1, c, x + p * xp, xp, map, step, clamp, clamp.on, to + p * top, top);
}

INLINE void gradient_pixels(const int k, int64_t c, const mest_real *dy, int64_t dyp, const mest_real *u, int64_t up, const mest_real *map, const bool idle,
                            const mest_real *mask_row, mest_real *to, int64_t top)
{
    const vec mask = LOAD(mask_row), none = {0}, two = SPLAT(2);
    for (int64_t i = 0; i < c; i++) {
        const vec m = SPLAT(map[i]), a = SPLAT(map[c + i]), b = SPLAT(map[2 * c + i]), d = SPLAT(map[3 * c + i]);
        UNROLL for (int p = 0; p < k; p++)
        {
            vec t = (LOAD(dy + p * dyp + i * V) * a + d) + (LOAD(u + p * up + i * V) - m) * b;
            if (idle)
                t = inside(mask, none, two, t);
            STORE(to + p * top + i * V, t);
        }
    }
}

static void gradient_row(int64_t n, int64_t c, const mest_real *dy, int64_t dyp, const mest_real *u, int64_t up, const mest_real *map, int64_t lanes,
                         mest_real *to, int64_t top)
{
    mest_real mask[V];
    for (int l = 0; l < V; l++)
        mask[l] = l < lanes;
    int64_t p = 0;
    for (; p + GROUP <= n; p += GROUP)
        if (lanes < V)
            gradient_pixels(GROUP, c, dy + p * dyp, dyp, u + p * up, up, map, true, mask, to + p * top, top);
        else
            gradient_pixels(GROUP, c, dy + p * dyp, dyp, u + p * up, up, map, false, mask, to + p * top, top);
    for (; p < n; p++)
        gradient_pixels(1, c, dy + p * dyp, dyp, u + p * up, up, map, lanes < V, mask, to + p * top, top);
}

INLINE void moments_pixels(const int k, int64_t c, const mest_real *y, int64_t yp, const mest_real *shift, mest_real *sums)
{
    for (int64_t i = 0; i < c; i++) {
        const vec m = SPLAT(shift[i]);
        vec sum = LOAD(sums + i * V), square = LOAD(sums + (c + i) * V);
        UNROLL for (int p = 0; p < k; p++)
        {
            const vec d = LOAD(y + p * yp + i * V) - m;
            sum += d;
            square += d * d;
        }
        STORE(sums + i * V, sum);
        STORE(sums + (c + i) * V, square);
    }
}

static void moments_row(int64_t n, int64_t c, const mest_real *y, int64_t yp, const mest_real *shift, mest_real *sums)
{
    int64_t p = 0;
    for (; p + GROUP_SUMS <= n; p += GROUP_SUMS)
        moments_pixels(GROUP_SUMS, c, y + p * yp, yp, shift, sums);
    for (; p < n; p++)
        moments_pixels(1, c, y + p * yp, yp, shift, sums);
}

INLINE void result_pixels(const int k, int64_t c, const mest_real *dx, int64_t dxp, const mest_real *s, int64_t sp, const mest_real *x, int64_t xp,
                          mest_clamp clamp, const mest_real *u, int64_t up, const mest_real *mean, mest_real *to, int64_t top, mest_real *sums)
{
    const vec lo = SPLAT(clamp.lo), hi = SPLAT(clamp.hi);
    for (int64_t i = 0; i < c; i++) {
        vec sum = {0}, cross = {0}, m = {0};
        if (sums) {
            sum = LOAD(sums + i * V);
            cross = LOAD(sums + (c + i) * V);
            m = SPLAT(mean[i]);
        }
        UNROLL for (int p = 0; p < k; p++)
        {
            vec d = LOAD(dx + p * dxp + i * V);
            if (s)
                d += LOAD(s + p * sp + i * V);
            if (x) {
                const vec z = LOAD(x + p * xp + i * V);
                d = inside(z, lo, hi, d);
            }
            if (sums) {
                sum += d;
                cross += d * (LOAD(u + p * up + i * V) - m);
            }
            STORE(to + p * top + i * V, d);
        }
        if (sums) {
            STORE(sums + i * V, sum);
            STORE(sums + (c + i) * V, cross);
        }
    }
}

static void result_row(int64_t n, int64_t c, const mest_real *dx, int64_t dxp, const mest_real *s, int64_t sp, const mest_real *x, int64_t xp,
                       mest_clamp clamp, const mest_real *u, int64_t up, const mest_real *mean, mest_real *to, int64_t top, mest_real *sums)
{
    int64_t p = 0;
#define PIXELS(k, with_s, with_x, with_sums) \
    result_pixels(k, c, dx + p * dxp, dxp, with_s, sp, with_x, xp, clamp, u ? u + p * up : NULL, up, mean, to + p * top, top, with_sums)
    for (; p + GROUP_SUMS <= n; p += GROUP_SUMS) {
        const mest_real *a = s ? s + p * sp : NULL, *g = x ? x + p * xp : NULL;
        if (s && x && sums)
            PIXELS(GROUP_SUMS, a, g, sums);
        else if (x && sums)
            PIXELS(GROUP_SUMS, NULL, g, sums);
        else if (s && sums)
            PIXELS(GROUP_SUMS, a, NULL, sums);
        else if (sums)
            PIXELS(GROUP_SUMS, NULL, NULL, sums);
        else
            PIXELS(GROUP_SUMS, a, g, NULL);
    }
    for (; p < n; p++)
        PIXELS(1, s ? s + p * sp : NULL, x ? x + p * xp : NULL, sums);
#undef PIXELS
}

static const mest_fused_isa rows = {forward_row, gradient_row, moments_row, result_row};

#define OPERATOR(name, gradient)                                                                                                       \
    static bool name##_fits(const mest_kernel_query *q, const char **why) { return mest_fused_fits(q, gradient, &MEST_LANES_ISA, why); } \
    static double name##_cost(const mest_kernel_query *q) { return mest_fused_cost(q, gradient, &MEST_LANES_ISA); }                    \
    static void name##_halo(const mest_kernel_query *q, int input, uint8_t pad[4]) { mest_fused_halo(q, gradient, &MEST_LANES_ISA, input, pad); }       \
    static mest_status name##_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)                \
    {                                                                                                                                  \
        return mest_fused_prepare(q, gradient, &MEST_LANES_ISA, &rows, state, scratch_bytes, err);                                     \
    }
OPERATOR(forward, false)
OPERATOR(gradient, true)

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define LINE(kernel, title, helper, over)                                                                                         \
    {.name = title "_" TEXT(MEST_ISA), .op = helper, .cpu = MEST_LANES_CPU, .inplace = over, .fits = kernel##_fits, .cost = kernel##_cost, \
     .halo = kernel##_halo, .prepare = kernel##_prepare, .run = mest_fused_##kernel, .release = mest_fused_release,              \
     .state_bytes = mest_fused_state_bytes}
extern const mest_kernel MEST_KERNEL_TABLE(fused)[];
const mest_kernel MEST_KERNEL_TABLE(fused)[] = {
    LINE(forward, "fused_conv", "mest.FusedConv", 0),
    /* dX is written a row at a time, when all that reads the row has been done */
    LINE(gradient, "fused_conv_grad", "mest.FusedConvGrad", 1 << FUSED_X | 1 << FUSED_D | 1 << FUSED_U),
    {.name = NULL},
};
