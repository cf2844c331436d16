/* SPDX-License-Identifier: Apache-2.0 */
/* Vector types and inner loops of the batch-lane kernels, written once with the compiler's vector extensions. Included by files
 * that are compiled per instruction set; everything here is static, so no variant can be linked into another one's place.
 *
 * The number of positions u is a constant where these functions are inlined: accumulator arrays become registers, and the multiples of
 * the position stride stay in registers too. Weights are splat as w - 0, which the compiler drops; w + 0 it must keep for -0. */
#ifndef MEST_SPARSE_KERNELS_LANES_MICRO_H
#define MEST_SPARSE_KERNELS_LANES_MICRO_H

#include "sparse/kernels/lanes.h"

/* The table of this instruction set, for other files that are compiled for it. */
#define MEST_LANES_PASTE(isa) mest_lanes_isa_##isa
#define MEST_LANES_EXPAND(isa) MEST_LANES_PASTE(isa)
#define MEST_LANES_ISA MEST_LANES_EXPAND(MEST_ISA)
extern const mest_lanes_isa MEST_LANES_ISA;

#if defined(MEST_ISA_AVX512)
#define MEST_LANES_CPU MEST_CPU_AVX512
#define FLOPS_PER_SECOND 60e9
enum { V = 16, RUN_SINGLE = 8, RUN_QUAD = 6, RUN_BACKWARD = 8, WEIGHT_M = 6 };
#define VECTOR_BYTES (16 * sizeof(mest_real))
#elif defined(MEST_ISA_AVX2)
#define MEST_LANES_CPU MEST_CPU_AVX2
#define FLOPS_PER_SECOND 32e9
enum { V = 8, RUN_SINGLE = 8, RUN_QUAD = 3, RUN_BACKWARD = 4, WEIGHT_M = 3 };
#define VECTOR_BYTES (8 * sizeof(mest_real))
#elif defined(MEST_ISA_NEON)
#define MEST_LANES_CPU MEST_CPU_NEON
#define FLOPS_PER_SECOND 12e9
enum { V = 4, RUN_SINGLE = 8, RUN_QUAD = 4, RUN_BACKWARD = 8, WEIGHT_M = 4 };
#define VECTOR_BYTES (4 * sizeof(mest_real))
#else
#define MEST_LANES_CPU 0
#define FLOPS_PER_SECOND 14e9
enum { V = 4, RUN_SINGLE = 8, RUN_QUAD = 2, RUN_BACKWARD = 4, WEIGHT_M = 2 };
#define VECTOR_BYTES (4 * sizeof(mest_real))
#endif

/* A row of positions is cut into runs of nearly equal length, none longer than `most`: 14 is 7 + 7, not 8 + 4 + 2. */
typedef struct runs { int64_t n, base, longer; } runs;
static inline runs runs_of(int64_t length, int64_t most)
{
    runs r = {.n = (length + most - 1) / most};
    if (r.n) {
        r.base = length / r.n;
        r.longer = length % r.n;
    }
    return r;
}

typedef mest_real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef mest_real quad __attribute__((vector_size(4 * sizeof(mest_real))));
/* The same in memory: any alignment an element has. */
typedef mest_real vec_mem __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(mest_real)), may_alias));
typedef mest_real quad_mem __attribute__((vector_size(4 * sizeof(mest_real)), aligned(sizeof(mest_real)), may_alias));

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define LOAD(p) (*(const vec_mem *)(p))
#define STORE(p, value) (*(vec_mem *)(p) = (value))
#define SPLAT(x) ((x) - (vec){0})

/* Addresses p + k * stride of u vectors. On x86 they are built from two pointers and two strides with scaled indices: left alone, the
 * compiler keeps every multiple and runs out of registers. */
typedef struct stride { ptrdiff_t one, three; } stride;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
#define STEPS(name, p, s)                                             \
    stride name = s;                                                  \
    __asm__("" : "+r"(name.one), "+r"(name.three) : "r"(p)) /* in each turn anew, so that no multiple is hoisted */
#else
#define STEPS(name, p, s) const stride name = s
#endif
INLINE const char *step(const char *p, stride s, int k)
{
#if defined(__x86_64__)
    switch (k) {
    case 0: return p;
    case 1: return p + s.one;
    case 2: return p + 2 * s.one;
    case 3: return p + s.three;
    case 4: return p + 4 * s.one;
    case 5: return p + s.one + 4 * s.one;
    case 6: return p + 2 * s.three;
    case 7: return p + s.one + 2 * s.three;
    case 8: return p + 8 * s.one;
    default: return p + s.one + 8 * s.one;
    }
#else
    return p + k * s.one;
#endif
}

/* Keeps a loaded vector in a register: the compiler would rather load it again for each of its uses, and loads are what limits us. */
#if defined(MEST_ISA_AVX512)
#define KEEP(x) __asm__("" : "+v"(x))
#elif defined(MEST_ISA_AVX2)
#define KEEP(x) __asm__("" : "+x"(x))
#else
#define KEEP(x) (void)0
#endif

/* sums of the lanes of a, b, c, d into the four lanes of *out */
INLINE void reduce4(const vec *s, quad *out)
{
#if defined(MEST_ISA_AVX512)
    vec t0 = __builtin_shufflevector(s[0], s[1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
             __builtin_shufflevector(s[0], s[1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    vec t1 = __builtin_shufflevector(s[2], s[3], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
             __builtin_shufflevector(s[2], s[3], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    vec t = __builtin_shufflevector(t0, t1, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
            __builtin_shufflevector(t0, t1, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    typedef mest_real half __attribute__((vector_size(8 * sizeof(mest_real))));
    half h = __builtin_shufflevector(t, t, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(t, t, 8, 9, 10, 11, 12, 13, 14, 15);
    *out = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
#elif defined(MEST_ISA_AVX2)
    vec t0 = __builtin_shufflevector(s[0], s[1], 0, 8, 1, 9, 4, 12, 5, 13) + __builtin_shufflevector(s[0], s[1], 2, 10, 3, 11, 6, 14, 7, 15);
    vec t1 = __builtin_shufflevector(s[2], s[3], 0, 8, 1, 9, 4, 12, 5, 13) + __builtin_shufflevector(s[2], s[3], 2, 10, 3, 11, 6, 14, 7, 15);
    vec t = __builtin_shufflevector(t0, t1, 0, 1, 8, 9, 4, 5, 12, 13) + __builtin_shufflevector(t0, t1, 2, 3, 10, 11, 6, 7, 14, 15);
    *out = __builtin_shufflevector(t, t, 0, 1, 2, 3) + __builtin_shufflevector(t, t, 4, 5, 6, 7);
#else
    vec t0 = __builtin_shufflevector(s[0], s[1], 0, 4, 1, 5) + __builtin_shufflevector(s[0], s[1], 2, 6, 3, 7);
    vec t1 = __builtin_shufflevector(s[2], s[3], 0, 4, 1, 5) + __builtin_shufflevector(s[2], s[3], 2, 6, 3, 7);
    *out = __builtin_shufflevector(t0, t1, 0, 1, 4, 5) + __builtin_shufflevector(t0, t1, 2, 3, 6, 7);
#endif
}

/* What follows the sum over all tiles: sum * factor + shift, cut off. NaN stays NaN. */
INLINE void ended(const mest_lanes_forward *j, int64_t row, vec *sum)
{
    const vec factor = SPLAT(j->factor ? j->factor[row] : 1), shift = SPLAT(j->bias ? j->bias[row] : 0);
    vec t = *sum * factor + shift;
    if (j->clamp.on) {
        const vec lo = SPLAT(j->clamp.lo), hi = SPLAT(j->clamp.hi);
        typedef __typeof__(t < lo) mask;
        const mask below = t < lo;
        t = (vec)((below & (mask)lo) | (~below & (mask)t));
        const mask above = t > hi;
        t = (vec)((above & (mask)hi) | (~above & (mask)t));
    }
    *sum = t;
}

/* ---- forward ---- */
/* `taps` entries beside each other: what one reads for a position the next reads for the one before. */
INLINE void forward_run(const int taps, const int u, const char *p, stride x_stride, const mest_real *w, vec *acc)
{
    vec weight[3];
    UNROLL for (int a = 0; a < taps; a++) weight[a] = SPLAT(w[a]);
    STEPS(st, p, x_stride);
    UNROLL for (int k = 0; k < u + taps - 1; k++)
    {
        vec t = LOAD(step(p, st, k));
        if (k && k < u + taps - 2)
            KEEP(t);
        UNROLL for (int a = 0; a < taps; a++) if (k >= a && k - a < u) acc[k - a] += weight[a] * t;
    }
}

/* n entries one by one. */
INLINE void forward_entries(const int u, const int sets, const char *in, stride x_stride, int32_t n, const int32_t *off, const mest_real *w, vec (*acc)[8])
{
    int32_t i = 0;
    for (; i + sets <= n; i += sets) {
        UNROLL for (int s = 0; s < sets; s++)
        {
            const char *p = in + off[i + s];
            STEPS(st, p, x_stride);
            vec weight = SPLAT(w[i + s]);
            UNROLL for (int k = 0; k < u; k++) acc[s][k] += weight * LOAD(step(p, st, k));
        }
    }
    if (sets > 1)
        for (; i < n; i++) {
            const char *p = in + off[i];
            STEPS(st, p, x_stride);
            vec weight = SPLAT(w[i]);
            UNROLL for (int k = 0; k < u; k++) acc[0][k] += weight * LOAD(step(p, st, k));
        }
}

/* The same in runs: the parts of a row, whose first entries are at `start`. */
INLINE void forward_parts(const int u, const int sets, const mest_lanes_list *l, const int32_t *start, const char *in, stride x_stride, vec (*acc)[8])
{
    for (int32_t part = l->from; part < l->to; part++) {
        const mest_lanes_runs in_fours = mest_lanes_runs_of(l->runs[start - l->start + part]);
        const int32_t *off = l->off + start[part];
        const mest_real *w = l->w + start[part];
        const int32_t n = start[part + 1] - start[part], twos = 4 * in_fours.twos, fours = twos + 4 * in_fours.threes;
        int32_t i = 0;
        for (; i < twos; i += 4) {
            forward_run(2, u, in + off[i], x_stride, w + i, acc[0]);
            forward_run(2, u, in + off[i + 2], x_stride, w + i + 2, acc[sets > 1]);
        }
        for (; i < fours; i += 4) {
            forward_run(3, u, in + off[i], x_stride, w + i, acc[0]);
            forward_run(1, u, in + off[i + 3], x_stride, w + i + 3, acc[sets > 1]);
        }
        forward_entries(u, sets, in, x_stride, n - i, off + i, w + i, acc);
    }
}

/* Rows [r0, r1) of one output each at u positions. Few positions leave too few independent sums to hide the latency of a multiply-add:
 * then `sets` entries are summed apart. */
INLINE void forward_singles(const int u, const int sets, const bool in_runs, const mest_lanes_forward *j, int32_t tile, int32_t r0, int32_t r1, const char *x,
                            char *y)
{
    const ptrdiff_t xs = (ptrdiff_t)(j->x_step * (int64_t)sizeof(mest_real)), ys = (ptrdiff_t)(j->y_step * (int64_t)sizeof(mest_real));
    const stride x_stride = {xs, 3 * xs};
    for (int32_t row = r0; row < r1; row++) {
        int32_t n;
        const int32_t *off;
        const mest_real *w = j->list.w + mest_lanes_entries(&j->list, tile, row, &n, &off);
        const bool last = j->ends && tile == j->list.n_tiles - 1;
        if (n == 0 && tile && !last)
            continue;
        char *out = y + (size_t)row * VECTOR_BYTES;
        const char *in = j->group_shift ? x + row / j->group_rows * j->group_shift * (int64_t)sizeof(mest_real) : x;
        vec acc[8][8];
        vec bias = SPLAT(tile == 0 && j->bias && !j->ends ? j->bias[row] : 0);
        UNROLL for (int k = 0; k < u; k++)
        {
            acc[0][k] = bias;
            if (tile)
                acc[0][k] = LOAD(out + k * ys);
            UNROLL for (int s = 1; s < sets; s++) acc[s][k] = (vec){0};
        }
        if (in_runs)
            forward_parts(u, sets, &j->list, mest_lanes_start(&j->list, tile, row), in, x_stride, acc);
        else
            forward_entries(u, sets, in, x_stride, n, off, w, acc);
        UNROLL for (int k = 0; k < u; k++)
        {
            UNROLL for (int s = 1; s < sets; s++) acc[0][k] += acc[s][k];
            if (last)
                ended(j, row, &acc[0][k]);
            STORE(out + k * ys, acc[0][k]);
        }
    }
}

/* Rows [r0, r1) of four outputs each that share their columns, at u positions. */
INLINE void forward_quads(const int u, const mest_lanes_forward *j, int32_t tile, int32_t r0, int32_t r1, const char *x, char *y)
{
    const ptrdiff_t xs = (ptrdiff_t)(j->x_step * (int64_t)sizeof(mest_real)), ys = (ptrdiff_t)(j->y_step * (int64_t)sizeof(mest_real));
    const stride x_stride = {xs, 3 * xs};
    for (int32_t row = r0; row < r1; row++) {
        int32_t n;
        const int32_t *off;
        const mest_real *w = j->list.w + 4 * mest_lanes_entries(&j->list, tile, row, &n, &off);
        const bool last = j->ends && tile == j->list.n_tiles - 1;
        if (n == 0 && tile && !last)
            continue;
        const int64_t valid = j->outs - 4 * (int64_t)row; /* fewer than 4 in the last row */
        char *out = y + (size_t)row * 4 * VECTOR_BYTES;
        vec acc[4][8];
        UNROLL for (int h = 0; h < 4; h++)
        {
            vec bias = SPLAT(tile == 0 && j->bias && !j->ends && h < valid ? j->bias[4 * (int64_t)row + h] : 0);
            UNROLL for (int k = 0; k < u; k++)
            {
                acc[h][k] = bias;
                if (tile && h < valid)
                    acc[h][k] = LOAD(out + (size_t)h * VECTOR_BYTES + k * ys);
            }
        }
        for (int32_t i = 0; i < n; i++) {
            const char *p = x + off[i];
            STEPS(st, p, x_stride);
            vec in[8];
            UNROLL for (int k = 0; k < u; k++)
            {
                in[k] = LOAD(step(p, st, k));
                KEEP(in[k]);
            }
            UNROLL for (int h = 0; h < 4; h++)
            {
                vec weight = SPLAT(w[4 * i + h]);
                UNROLL for (int k = 0; k < u; k++) acc[h][k] += weight * in[k];
            }
        }
        UNROLL for (int h = 0; h < 4; h++) if (h < valid)
        {
            UNROLL for (int k = 0; k < u; k++)
            {
                if (last)
                    ended(j, 4 * (int64_t)row + h, &acc[h][k]);
                STORE(out + (size_t)h * VECTOR_BYTES + k * ys, acc[h][k]);
            }
        }
    }
}

/* ---- fused backward ---- */
/* e <= 4 entries of one row: their dY vectors go into dX (with_dx) and, times x, into dw[0..e-1]. */
INLINE void backward_entries(const int e, const int u, const bool with_dx, const char *dy, stride dys, const int32_t *off,
                             const mest_real *w, const vec *x, vec *d, mest_real *dw)
{
    vec sum[4] = {{0}, {0}, {0}, {0}};
    UNROLL for (int i = 0; i < e; i++)
    {
        const char *p = dy + off[i];
        STEPS(st, p, dys);
        vec weight = SPLAT(w[i]);
        UNROLL for (int k = 0; k < u; k++)
        {
            vec t = LOAD(step(p, st, k));
            if (with_dx)
                KEEP(t);
            if (with_dx)
                d[k] += weight * t;
            sum[i] += x[k] * t;
        }
    }
    quad r;
    reduce4(sum, &r);
    if (e == 4) {
        *(quad_mem *)dw += r;
    } else {
        UNROLL for (int i = 0; i < e; i++) dw[i] += r[i];
    }
}

INLINE void backward_rows(const int u, const bool with_dx, const mest_lanes_backward *j, int32_t tile, int32_t r0, int32_t r1, const char *x,
                          char *dx, const char *dy, mest_real *dw)
{
    const ptrdiff_t real = (ptrdiff_t)sizeof(mest_real), xs = (ptrdiff_t)j->x_step * real, dxs = (ptrdiff_t)j->dx_step * real,
                    one = (ptrdiff_t)j->dy_step * real;
    const stride dys = {one, 3 * one};
    for (int32_t row = r0; row < r1; row++) {
        int32_t n;
        const int32_t *off;
        const int64_t e0 = mest_lanes_entries(&j->list, tile, row, &n, &off);
        if (n == 0 && (tile || !with_dx))
            continue;
        const mest_real *w = j->list.w + e0;
        mest_real *g = dw + e0;
        const char *in = x + (size_t)row * VECTOR_BYTES, *from = j->group_shift ? dy + row / j->group_rows * j->group_shift * real : dy;
        char *out = with_dx ? dx + (size_t)row * VECTOR_BYTES : NULL;
        vec xv[8], d[8];
        UNROLL for (int k = 0; k < u; k++)
        {
            xv[k] = LOAD(in + k * xs);
            d[k] = (vec){0};
            if (with_dx && tile)
                d[k] = LOAD(out + k * dxs);
        }
        int32_t i = 0;
        for (; i + 4 <= n; i += 4)
            backward_entries(4, u, with_dx, from, dys, off + i, w + i, xv, d, g + i);
        switch (n - i) {
        case 3: backward_entries(3, u, with_dx, from, dys, off + i, w + i, xv, d, g + i); break;
        case 2: backward_entries(2, u, with_dx, from, dys, off + i, w + i, xv, d, g + i); break;
        case 1: backward_entries(1, u, with_dx, from, dys, off + i, w + i, xv, d, g + i); break;
        default: break;
        }
        if (with_dx) {
            UNROLL for (int k = 0; k < u; k++) STORE(out + k * dxs, d[k]);
        }
    }
}

/* ---- dense dW ---- */
/* WEIGHT_M outputs, none past m1, times four columns (an input and a tap) over rows of positions [unit0, unit1). What lies past the last is read as
 * the last and dropped. */
INLINE void weight_tile(const mest_lanes_weight *j, int64_t unit0, int64_t unit1, int64_t m, int64_t m1, int64_t column, mest_real *dw)
{
    const ptrdiff_t real = (ptrdiff_t)sizeof(mest_real), xs = (ptrdiff_t)j->x_step * real, dys = (ptrdiff_t)j->dy_step * real;
    const int64_t columns = j->taps * j->c;
    ptrdiff_t at_c[4], at_m[WEIGHT_M];
    UNROLL for (int k = 0; k < 4; k++)
    {
        const int64_t i = column + k < columns ? column + k : columns - 1;
        at_c[k] = j->tap_off[i / j->c] + (ptrdiff_t)(i % j->c * (int64_t)VECTOR_BYTES);
    }
    UNROLL for (int k = 0; k < WEIGHT_M; k++) at_m[k] = (ptrdiff_t)((m + k < m1 ? m + k : m1 - 1) * (int64_t)VECTOR_BYTES);
    vec acc[WEIGHT_M][4];
    UNROLL for (int a = 0; a < WEIGHT_M; a++)
    {
        UNROLL for (int b = 0; b < 4; b++) acc[a][b] = (vec){0};
    }
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int64_t block = unit / j->rows, row = unit % j->rows;
        const char *xp = (const char *)(j->x + block * j->x_block + row * j->x_row), *dp = (const char *)(j->dy + block * j->dy_block + row * j->dy_row);
        for (int64_t i = 0; i < j->run; i++, xp += xs, dp += dys) {
            if (WEIGHT_M < 4) { /* 16 registers: 12 sums, three gradients, one input at a time */
                vec t[WEIGHT_M];
                UNROLL for (int a = 0; a < WEIGHT_M; a++)
                {
                    t[a] = LOAD(dp + at_m[a]);
                    KEEP(t[a]);
                }
                UNROLL for (int b = 0; b < 4; b++)
                {
                    vec in = LOAD(xp + at_c[b]);
                    KEEP(in);
                    UNROLL for (int a = 0; a < WEIGHT_M; a++) acc[a][b] += t[a] * in;
                }
            } else {
                vec in[4];
                UNROLL for (int b = 0; b < 4; b++) in[b] = LOAD(xp + at_c[b]);
                UNROLL for (int a = 0; a < WEIGHT_M; a++)
                {
                    vec t = LOAD(dp + at_m[a]);
                    UNROLL for (int b = 0; b < 4; b++) acc[a][b] += t * in[b];
                }
            }
        }
    }
    UNROLL for (int a = 0; a < WEIGHT_M; a++) if (m + a < m1)
    {
        quad r;
        reduce4(acc[a], &r);
        mest_real *to = dw + (m + a) * columns + column;
        if (column + 4 <= columns) {
            *(quad_mem *)to += r;
        } else {
            for (int64_t b = 0; column + b < columns; b++)
                to[b] += r[b];
        }
    }
}

#endif
