/* SPDX-License-Identifier: Apache-2.0 */
/* Inner loops of images.c for vectors of W elements. Included by it once for each W that the instruction set has: W is 4, 8 or 16. Names
 * carry it. Letters as in images.h; u positions and p vectors of a block are constants where the functions are inlined. */
typedef mest_real IMAGE(vec) __attribute__((vector_size(W * sizeof(mest_real))));
typedef mest_real IMAGE(mem) __attribute__((vector_size(W * sizeof(mest_real)), aligned(sizeof(mest_real)), may_alias));
#define WVEC IMAGE(vec)
#define WLOAD(p) (*(const IMAGE(mem) *)(p))
#define WSTORE(p, value) (*(IMAGE(mem) *)(p) = (value))
#define WSPLAT(x) ((x) - (WVEC){0})
#define BYTES (W * (ptrdiff_t)sizeof(mest_real))

/* The first n < W elements, the others 0; and back. */
INLINE void IMAGE(load_part)(WVEC *to, const mest_real *from, int64_t n)
{
    *to = (WVEC){0};
    memcpy(to, from, (size_t)n * sizeof *from);
}
INLINE void IMAGE(store_part)(mest_real *to, const WVEC *from, int64_t n) { memcpy(to, from, (size_t)n * sizeof *to); }

/* What follows the sum over all tiles: sum * factor + shift, cut off. NaN stays NaN. */
INLINE void IMAGE(end)(const mest_clamp *clamp, const WVEC *factor, const WVEC *shift, WVEC *sum)
{
    WVEC t = *sum * *factor + *shift;
    if (clamp->on) {
        const WVEC lo = WSPLAT(clamp->lo), hi = WSPLAT(clamp->hi);
        typedef __typeof__(t < lo) mask;
        const mask below = t < lo;
        t = (WVEC)((below & (mask)lo) | (~below & (mask)t));
        const mask above = t > hi;
        t = (WVEC)((above & (mask)hi) | (~above & (mask)t));
    }
    *sum = t;
}

/* ---- pixel lanes: u vectors of neighbouring positions, rows of one output, or of four that share their columns ---- */

/* Rows [r0, r1) at the positions from x and y on; the last vector has `rest` positions. With few vectors `sets` entries are summed apart, to hide
 * the latency of a multiply-add. */
INLINE void IMAGE(pixels)(const int height, const int u, const int sets, const mest_lanes_forward *j, int32_t tile, int32_t r0, int32_t r1,
                          const char *x, mest_real *y, int64_t rest)
{
    for (int32_t row = r0; row < r1; row++) {
        int32_t n;
        const int32_t *off;
        const mest_real *w = j->list.w + height * mest_lanes_entries(&j->list, tile, row, &n, &off);
        const bool last = j->ends && tile == j->list.n_tiles - 1;
        if (n == 0 && tile && !last)
            continue;
        const int64_t first = (int64_t)row * height, valid = j->outs - first;
        mest_real *out = y + first * j->y_row;
        WVEC acc[8][8];
        UNROLL for (int h = 0; h < height; h++)
        {
            const WVEC bias = WSPLAT(tile == 0 && j->bias && !j->ends && h < valid ? j->bias[first + h] : 0);
            UNROLL for (int k = 0; k < u; k++)
            {
                acc[h][k] = bias;
                if (tile && h < valid) {
                    if (k == u - 1 && rest < W)
                        IMAGE(load_part)(&acc[h][k], out + h * j->y_row + k * W, rest);
                    else
                        acc[h][k] = WLOAD(out + h * j->y_row + k * W);
                }
            }
        }
        UNROLL for (int s = 1; s < sets; s++)
        {
            UNROLL for (int k = 0; k < u; k++) acc[s][k] = (WVEC){0}; /* sets > 1 only where height is 1 */
        }
        int32_t i = 0;
        if (height == 1) {
            for (; i + sets <= n; i += sets) {
                UNROLL for (int s = 0; s < sets; s++)
                {
                    const char *p = x + off[i + s];
                    const WVEC weight = WSPLAT(w[i + s]);
                    UNROLL for (int k = 0; k < u; k++) acc[s][k] += weight * WLOAD(p + k * BYTES);
                }
            }
            UNROLL for (int half = 4; half >= 1; half /= 2) if (half < sets && (n - i) & half) /* what is left: in sets again, or each waits for the last */
            {
                UNROLL for (int s = 0; s < half; s++)
                {
                    const char *p = x + off[i + s];
                    const WVEC weight = WSPLAT(w[i + s]);
                    UNROLL for (int k = 0; k < u; k++) acc[s][k] += weight * WLOAD(p + k * BYTES);
                }
                i += half;
            }
            UNROLL for (int s = 1; s < sets; s++)
            {
                UNROLL for (int k = 0; k < u; k++) acc[0][k] += acc[s][k];
            }
        } else {
            for (; i < n; i++) {
                const char *p = x + off[i];
                WVEC in[8];
                UNROLL for (int k = 0; k < u; k++)
                {
                    in[k] = WLOAD(p + k * BYTES);
                    KEEP(in[k]);
                }
                UNROLL for (int h = 0; h < height; h++)
                {
                    const WVEC weight = WSPLAT(w[4 * i + h]);
                    UNROLL for (int k = 0; k < u; k++) acc[h][k] += weight * in[k];
                }
            }
        }
        UNROLL for (int h = 0; h < height; h++) if (h < valid)
        {
            const WVEC factor = WSPLAT(last && j->factor ? j->factor[first + h] : 1), shift = WSPLAT(last && j->bias ? j->bias[first + h] : 0);
            UNROLL for (int k = 0; k < u; k++)
            {
                if (last)
                    IMAGE(end)(&j->clamp, &factor, &shift, &acc[h][k]);
                if (k == u - 1 && rest < W)
                    IMAGE(store_part)(out + h * j->y_row + k * W, &acc[h][k], rest);
                else
                    WSTORE(out + h * j->y_row + k * W, acc[h][k]);
            }
        }
    }
}

#define PIXELS(u, sets)                                                       \
    static __attribute__((noinline)) void IMAGE(pixels_##u)(PIXEL_ARGS) \
    {                                                                         \
        IMAGE(pixels)(1, u, sets, j, tile, r0, r1, x, y, rest);               \
    }
PIXELS(1, 8)
PIXELS(2, 4)
PIXELS(3, 2)
PIXELS(4, 2)
PIXELS(5, 1)
PIXELS(6, 1)
PIXELS(7, 1)
PIXELS(8, 1)
#define PIXEL_QUADS(u)                                                              \
    static __attribute__((noinline)) void IMAGE(pixel_quads_##u)(PIXEL_ARGS)  \
    {                                                                               \
        if (u <= RUN_QUAD)                                                          \
            IMAGE(pixels)(4, u, 1, j, tile, r0, r1, x, y, rest);                    \
    }
PIXEL_QUADS(1)
PIXEL_QUADS(2)
PIXEL_QUADS(3)
PIXEL_QUADS(4)
PIXEL_QUADS(5)
PIXEL_QUADS(6)

/* ---- channel lanes: u positions, p vectors of a block of outputs that share their columns ---- */
INLINE void IMAGE(channels)(const int p, const int u, const int sets, const mest_lanes_forward *j, int32_t tile, int32_t r0, int32_t r1, const char *x,
                            mest_real *y)
{
    const ptrdiff_t xs = (ptrdiff_t)(j->x_step * (int64_t)sizeof(mest_real));
    const stride x_stride = {xs, 3 * xs};
    for (int32_t row = r0; row < r1; row++) {
        int32_t n;
        const int32_t *off;
        const mest_real *w = j->list.w + p * W * mest_lanes_entries(&j->list, tile, row, &n, &off);
        const bool last = j->ends && tile == j->list.n_tiles - 1;
        if (n == 0 && tile && !last)
            continue;
        const int64_t first = (int64_t)row * p * W, valid = j->outs - first;
        mest_real *out = y + first;
        WVEC acc[4][8][4]; /* sets, positions, vectors */
        UNROLL for (int q = 0; q < p; q++)
        {
            WVEC start = {0};
            const int64_t here = valid - q * W;
            if (tile == 0 && j->bias && !j->ends && here > 0)
                IMAGE(load_part)(&start, j->bias + first + q * W, here < W ? here : W);
            UNROLL for (int k = 0; k < u; k++)
            {
                acc[0][k][q] = start;
                if (tile && here > 0) {
                    if (here < W)
                        IMAGE(load_part)(&acc[0][k][q], out + k * j->y_step + q * W, here);
                    else
                        acc[0][k][q] = WLOAD(out + k * j->y_step + q * W);
                }
                UNROLL for (int s = 1; s < sets; s++) acc[s][k][q] = (WVEC){0};
            }
        }
        int32_t i = 0;
        for (; i + sets <= n; i += sets) {
            UNROLL for (int s = 0; s < sets; s++)
            {
                const char *from = x + off[i + s];
                STEPS(st, from, x_stride);
                WVEC weight[4];
                UNROLL for (int q = 0; q < p; q++) weight[q] = WLOAD(w + ((i + s) * p + q) * W);
                UNROLL for (int k = 0; k < u; k++)
                {
                    const WVEC in = WSPLAT(*(const mest_real *)(const void *)step(from, st, k));
                    UNROLL for (int q = 0; q < p; q++) acc[s][k][q] += weight[q] * in;
                }
            }
        }
        for (; i < n && sets > 1; i++) {
            const char *from = x + off[i];
            STEPS(st, from, x_stride);
            UNROLL for (int k = 0; k < u; k++)
            {
                const WVEC in = WSPLAT(*(const mest_real *)(const void *)step(from, st, k));
                UNROLL for (int q = 0; q < p; q++) acc[0][k][q] += WLOAD(w + (i * p + q) * W) * in;
            }
        }
        UNROLL for (int q = 0; q < p; q++)
        {
            const int64_t here = valid - q * W;
            WVEC factor = WSPLAT(1), shift = {0};
            if (last && j->factor && here > 0)
                IMAGE(load_part)(&factor, j->factor + first + q * W, here < W ? here : W);
            if (last && j->bias && here > 0)
                IMAGE(load_part)(&shift, j->bias + first + q * W, here < W ? here : W);
            UNROLL for (int k = 0; k < u; k++)
            {
                UNROLL for (int s = 1; s < sets; s++) acc[0][k][q] += acc[s][k][q];
                if (last)
                    IMAGE(end)(&j->clamp, &factor, &shift, &acc[0][k][q]);
                if (here >= W)
                    WSTORE(out + k * j->y_step + q * W, acc[0][k][q]);
                else if (here > 0)
                    IMAGE(store_part)(out + k * j->y_step + q * W, &acc[0][k][q], here);
            }
        }
    }
}

/* Sums of p vectors of u positions must stay in registers. */
#define CHANNELS(p, u, sets)                                                          \
    static __attribute__((noinline)) void IMAGE(channels_##p##_##u)(CHANNEL_ARGS)     \
    {                                                                                 \
        if (u <= CHANNEL_RUN(p))                                                      \
            IMAGE(channels)(p, u, sets, j, tile, r0, r1, x, y);                       \
    }
#define CHANNEL_SET(p)   \
    CHANNELS(p, 1, 4)    \
    CHANNELS(p, 2, 2)    \
    CHANNELS(p, 3, 1)    \
    CHANNELS(p, 4, 1)    \
    CHANNELS(p, 5, 1)    \
    CHANNELS(p, 6, 1)    \
    CHANNELS(p, 7, 1)    \
    CHANNELS(p, 8, 1)
CHANNEL_SET(1)
#if W == IMAGE_WIDEST && W < 16
CHANNEL_SET(2)
#endif
#if W == IMAGE_WIDEST && W < 8
CHANNEL_SET(4)
#endif

#undef PIXELS
#undef PIXEL_QUADS
#undef CHANNELS
#undef CHANNEL_SET
#undef WVEC
#undef WLOAD
#undef WSTORE
#undef WSPLAT
#undef BYTES
