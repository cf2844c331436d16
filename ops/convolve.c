/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/convolve.h"
#include "ops/act.h"

#include <string.h>

/* Letters: N images, C image channels, M map channels, G groups, T = kernel positions (taps), J = output positions, I = image positions;
 * Cg = C/G, Mg = M/G, K = Cg*T: length of a weight row. Lanes are the MEST_PANEL columns of a panel. */
typedef struct product {
    const mest_convolution *v;
    const mest_real *image, *weight, *map, *bias;
    mest_real *out;
    int64_t cg, mg, taps, positions, pixels, k;
    int64_t panels, blocks, step; /* how tiles are cut; meaning differs per product */
} product;

static product product_of(const mest_convolution *v)
{
    product p = { .v = v };
    p.cg = v->c / v->group;
    p.mg = v->m / v->group;
    p.taps = mest_window_volume(v->window.kernel);
    p.positions = mest_window_volume(v->window.out);
    p.pixels = mest_window_volume(v->window.in);
    p.k = p.cg * p.taps;
    return p;
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* Where the window of an output position starts in the image (may be negative), per axis. */
static inline void window_start(const mest_window *w, int64_t position, int64_t start[3])
{
    start[2] = position % w->out[2] * w->stride[2] - w->lo[2];
    position /= w->out[2];
    start[1] = position % w->out[1] * w->stride[1] - w->lo[1];
    start[0] = position / w->out[1] * w->stride[0] - w->lo[0];
}

static inline void tap_shift(const mest_window *w, int64_t tap, int64_t shift[3])
{
    shift[2] = tap % w->kernel[2] * w->dilation[2];
    tap /= w->kernel[2];
    shift[1] = tap % w->kernel[1] * w->dilation[1];
    shift[0] = tap / w->kernel[1] * w->dilation[0];
}

/* Offset of start + shift within one channel, -1 outside the image. */
static inline int64_t pixel_at(const mest_window *w, const int64_t start[3], const int64_t shift[3])
{
    int64_t z = start[0] + shift[0], y = start[1] + shift[1], x = start[2] + shift[2];
    bool inside = z >= 0 && z < w->in[0] && y >= 0 && y < w->in[1] && x >= 0 && x < w->in[2];
    return inside ? (z * w->in[1] + y) * w->in[2] + x : -1;
}

/* ---- map = image * weight: right operand is windows [K][N*J], a panel is MEST_PANEL output positions, of one or more images ---- */
static void map_tile(void *context, size_t tile)
{
    const product *p = context;
    const mest_convolution *v = p->v;
    const mest_window *w = &v->window;
    _Alignas(64) mest_real panel[MEST_PANEL_DEPTH * MEST_PANEL];
    _Alignas(64) mest_real block[MEST_BLOCK_ROWS * MEST_PANEL];
    int64_t start[MEST_PANEL][3], base[MEST_PANEL], at[MEST_PANEL];
    int64_t t = (int64_t)tile;
    int64_t j0 = t % p->panels * MEST_PANEL;
    t /= p->panels;
    int64_t m0 = t % p->blocks * MEST_BLOCK_ROWS, g = t / p->blocks;
    int64_t rows = least(p->mg - m0, MEST_BLOCK_ROWS), lanes = least(v->n * p->positions - j0, MEST_PANEL);
    for (int64_t l = 0; l < lanes; l++) {
        int64_t n = (j0 + l) / p->positions;
        base[l] = (n * v->c + g * p->cg) * p->pixels;
        window_start(w, (j0 + l) % p->positions, start[l]);
    }
    memset(panel, 0, sizeof panel);
    const mest_real *weight = p->weight + (g * p->mg + m0) * p->k;
    /* a chunk of depth is whole channels if one fits, else part of one channel's taps */
    int64_t chunk_taps = least(p->taps, MEST_PANEL_DEPTH);
    int64_t chunk_channels = chunk_taps < p->taps ? 1 : MEST_PANEL_DEPTH / p->taps;
    for (int64_t c0 = 0; c0 < p->cg; c0 += chunk_channels) {
        int64_t channels = least(p->cg - c0, chunk_channels);
        for (int64_t t0 = 0; t0 < p->taps; t0 += chunk_taps) {
            int64_t taps = least(p->taps - t0, chunk_taps);
            for (int64_t i = 0; i < taps; i++) {
                int64_t shift[3];
                bool run = lanes == MEST_PANEL; /* neighbours in the image, none of them padding */
                tap_shift(w, t0 + i, shift);
                for (int64_t l = 0; l < lanes; l++) {
                    int64_t pixel = pixel_at(w, start[l], shift);
                    at[l] = pixel < 0 ? -1 : base[l] + pixel;
                    run = run && at[l] >= 0 && at[l] == at[0] + l;
                }
                const mest_real *from = p->image + c0 * p->pixels;
                mest_real *to = panel + i * MEST_PANEL;
                if (run) {
                    from += at[0];
                    for (int64_t c = 0; c < channels; c++, from += p->pixels, to += taps * MEST_PANEL)
                        memcpy(to, from, MEST_PANEL * sizeof *to);
                } else {
                    for (int64_t c = 0; c < channels; c++, from += p->pixels, to += taps * MEST_PANEL)
                        for (int64_t l = 0; l < lanes; l++)
                            to[l] = at[l] < 0 ? 0 : from[at[l]];
                }
            }
            mest_dense_block(weight + c0 * p->taps + t0, p->k, 1, rows, panel, channels * taps, block, c0 + t0 > 0);
        }
    }
    for (int64_t l = 0; l < lanes; l++)
        at[l] = (j0 + l) / p->positions * v->m * p->positions + (j0 + l) % p->positions;
    bool straight = at[lanes - 1] == at[0] + lanes - 1;
    for (int64_t r = 0; r < rows; r++) {
        int64_t m = g * p->mg + m0 + r;
        mest_real *out = p->out + m * p->positions, b = p->bias ? p->bias[m] : 0;
        const mest_real *from = block + r * MEST_PANEL;
        if (straight) {
            out += at[0];
            for (int64_t l = 0; l < lanes; l++)
                out[l] = from[l] + b;
        } else {
            for (int64_t l = 0; l < lanes; l++)
                out[at[l]] = from[l] + b;
        }
    }
}

/* ---- depthwise: one channel in, one or two out per group ---- */

/* Columns q of the map, first <= q < last, whose tap lies inside the image: at column q * stride + (the result). */
static inline int64_t tap_columns(const mest_window *w, int64_t shift, int64_t *first, int64_t *last)
{
    int64_t off = shift - w->lo[2];
    *first = off >= 0 ? 0 : pieces(-off, w->stride[2]);
    *last = w->in[2] - off <= 0 ? 0 : least(w->out[2], pieces(w->in[2] - off, w->stride[2]));
    return off;
}

/* Where the image row lies that a tap sees from a row of the map; -1 outside. */
static inline int64_t tap_row(const mest_window *w, const int64_t shift[3], int64_t row)
{
    int64_t z = row / w->out[1] * w->stride[0] - w->lo[0] + shift[0];
    int64_t y = row % w->out[1] * w->stride[1] - w->lo[1] + shift[1];
    return z < 0 || z >= w->in[0] || y < 0 || y >= w->in[1] ? -1 : (z * w->in[1] + y) * w->in[2];
}

/* Nothing is shared between channels, so rows of the map are summed tap by tap. */
static void depthwise_tile(void *context, size_t tile)
{
    const product *p = context;
    const mest_convolution *v = p->v;
    const mest_window *w = &v->window;
    int64_t m = (int64_t)tile % v->m, n = (int64_t)tile / v->m;
    const mest_real *image = p->image + (n * v->c + m / p->mg) * p->pixels;
    mest_real *map = p->out + (n * v->m + m) * p->positions;
    mest_real b = p->bias ? p->bias[m] : 0;
    for (int64_t j = 0; j < p->positions; j++)
        map[j] = 0;
    for (int64_t tap = 0; tap < p->taps; tap++) {
        int64_t shift[3], first, last;
        mest_real x = p->weight[m * p->taps + tap];
        tap_shift(w, tap, shift);
        int64_t off = tap_columns(w, shift[2], &first, &last);
        for (int64_t row = 0; row < w->out[0] * w->out[1]; row++) {
            int64_t at = tap_row(w, shift, row);
            if (at < 0)
                continue;
            const mest_real *from = image + at;
            mest_real *to = map + row * w->out[2];
            if (w->stride[2] == 1) {
                for (int64_t q = first; q < last; q++)
                    to[q] += x * from[q + off];
            } else {
                for (int64_t q = first; q < last; q++)
                    to[q] += x * from[q * w->stride[2] + off];
            }
        }
    }
    for (int64_t j = 0; j < p->positions; j++)
        map[j] += b;
}

void mest_convolve(const mest_threads *threads, const mest_convolution *v, const mest_real *image, const mest_real *weight,
                   const mest_real *bias, mest_real *map)
{
    product p = product_of(v);
    p.image = image;
    p.weight = weight;
    p.bias = bias;
    p.out = map;
    if (p.cg == 1 && p.mg <= 2) {
        mest_parallel(threads, (size_t)(v->n * v->m), depthwise_tile, &p);
        return;
    }
    p.panels = pieces(v->n * p.positions, MEST_PANEL);
    p.blocks = pieces(p.mg, MEST_BLOCK_ROWS);
    mest_parallel(threads, (size_t)(p.panels * p.blocks * v->group), map_tile, &p);
}

/* ---- image from map: columns [taps of some channels][lanes] = weight' * map, then added into the image where the windows lie. A tile
 * owns the channels c0.. of `step` images, so nobody else adds to its pixels ---- */
static void image_tile(void *context, size_t tile)
{
    const product *p = context;
    const mest_convolution *v = p->v;
    const mest_window *w = &v->window;
    _Alignas(64) mest_real panel[MEST_PANEL_DEPTH * MEST_PANEL];
    _Alignas(64) mest_real block[MEST_BLOCK_ROWS * MEST_PANEL];
    int64_t start[MEST_PANEL][3], base[MEST_PANEL], map_at[MEST_PANEL];
    int64_t t = (int64_t)tile;
    int64_t width = p->taps >= MEST_BLOCK_ROWS ? 1 : MEST_BLOCK_ROWS / p->taps; /* channels of a block of rows */
    int64_t c0 = t % p->blocks * width;
    t /= p->blocks;
    int64_t g = t % v->group, n0 = t / v->group * p->step;
    int64_t channels = least(p->cg - c0, width), images = least(v->n - n0, p->step);
    for (int64_t n = n0; n < n0 + images; n++)
        for (int64_t c = g * p->cg + c0; c < g * p->cg + c0 + channels; c++) {
            mest_real *x = p->out + (n * v->c + c) * p->pixels, b = p->bias ? p->bias[c] : 0;
            for (int64_t i = 0; i < p->pixels; i++)
                x[i] = b;
        }
    memset(panel, 0, sizeof panel);
    for (int64_t j0 = 0; j0 < images * p->positions; j0 += MEST_PANEL) {
        int64_t lanes = least(images * p->positions - j0, MEST_PANEL);
        for (int64_t l = 0; l < lanes; l++) {
            int64_t n = n0 + (j0 + l) / p->positions, j = (j0 + l) % p->positions;
            base[l] = (n * v->c + g * p->cg + c0) * p->pixels;
            map_at[l] = (n * v->m + g * p->mg) * p->positions + j;
            window_start(w, j, start[l]);
        }
        bool straight = lanes == MEST_PANEL && map_at[lanes - 1] == map_at[0] + lanes - 1;
        int64_t row_step = least(channels * p->taps, MEST_BLOCK_ROWS);
        for (int64_t r0 = 0; r0 < channels * p->taps; r0 += row_step) {
            int64_t rows = least(channels * p->taps - r0, row_step);
            for (int64_t m0 = 0; m0 < p->mg; m0 += MEST_PANEL_DEPTH) {
                int64_t depth = least(p->mg - m0, MEST_PANEL_DEPTH);
                const mest_real *from = p->map + m0 * p->positions;
                for (int64_t m = 0; m < depth; m++, from += p->positions) {
                    if (straight) {
                        memcpy(panel + m * MEST_PANEL, from + map_at[0], MEST_PANEL * sizeof *panel);
                    } else {
                        for (int64_t l = 0; l < lanes; l++)
                            panel[m * MEST_PANEL + l] = from[map_at[l]];
                    }
                }
                mest_dense_block(p->weight + (g * p->mg + m0) * p->k + c0 * p->taps + r0, 1, p->k, rows, panel, depth, block, m0 > 0);
            }
            /* the block holds whole channels, or some taps of one */
            int64_t taps = least(p->taps, rows);
            for (int64_t i = 0; i < taps; i++) {
                int64_t shift[3], to_at[MEST_PANEL];
                tap_shift(w, (r0 + i) % p->taps, shift);
                for (int64_t l = 0; l < lanes; l++) {
                    int64_t pixel = pixel_at(w, start[l], shift);
                    to_at[l] = pixel < 0 ? -1 : base[l] + pixel;
                }
                mest_real *to = p->out + r0 / p->taps * p->pixels;
                for (int64_t r = i; r < rows; r += taps, to += p->pixels)
                    for (int64_t l = 0; l < lanes; l++)
                        if (to_at[l] >= 0)
                            to[to_at[l]] += block[r * MEST_PANEL + l];
            }
        }
    }
}

/* The depthwise case, tap by tap. */
static void depthwise_image_tile(void *context, size_t tile)
{
    const product *p = context;
    const mest_convolution *v = p->v;
    const mest_window *w = &v->window;
    int64_t c = (int64_t)tile % v->c, n = (int64_t)tile / v->c;
    mest_real *image = p->out + (n * v->c + c) * p->pixels, b = p->bias ? p->bias[c] : 0;
    for (int64_t i = 0; i < p->pixels; i++)
        image[i] = b;
    for (int64_t m = c * p->mg; m < (c + 1) * p->mg; m++) {
        const mest_real *map = p->map + (n * v->m + m) * p->positions;
        for (int64_t tap = 0; tap < p->taps; tap++) {
            int64_t shift[3], first, last;
            mest_real x = p->weight[m * p->taps + tap];
            tap_shift(w, tap, shift);
            int64_t off = tap_columns(w, shift[2], &first, &last);
            for (int64_t row = 0; row < w->out[0] * w->out[1]; row++) {
                int64_t at = tap_row(w, shift, row);
                if (at < 0)
                    continue;
                mest_real *to = image + at;
                const mest_real *from = map + row * w->out[2];
                if (w->stride[2] == 1) {
                    for (int64_t q = first; q < last; q++)
                        to[q + off] += x * from[q];
                } else {
                    for (int64_t q = first; q < last; q++)
                        to[q * w->stride[2] + off] += x * from[q];
                }
            }
        }
    }
}

void mest_convolve_image(const mest_threads *threads, const mest_convolution *v, const mest_real *map, const mest_real *weight,
                         const mest_real *bias, mest_real *image)
{
    product p = product_of(v);
    p.map = map;
    p.weight = weight;
    p.bias = bias;
    p.out = image;
    if (p.cg == 1 && p.mg <= 2) {
        mest_parallel(threads, (size_t)(v->n * v->c), depthwise_image_tile, &p);
        return;
    }
    p.step = pieces(4 * MEST_PANEL, p.positions); /* small maps: several images fill the lanes of a panel */
    p.blocks = pieces(p.cg, p.taps >= MEST_BLOCK_ROWS ? 1 : MEST_BLOCK_ROWS / p.taps);
    mest_parallel(threads, (size_t)(p.blocks * v->group * pieces(v->n, p.step)), image_tile, &p);
}

/* ---- weight from image and map: [Mg rows][lanes of K] = sum over images and positions of map * windows' ---- */
static void weight_tile(void *context, size_t tile)
{
    const product *p = context;
    const mest_convolution *v = p->v;
    const mest_window *w = &v->window;
    _Alignas(64) mest_real panel[MEST_PANEL_DEPTH * MEST_PANEL];
    _Alignas(64) mest_real block[MEST_BLOCK_ROWS * MEST_PANEL];
    int64_t shift[MEST_PANEL][3], channel[MEST_PANEL], delta[MEST_PANEL], reach[3];
    int64_t t = (int64_t)tile;
    int64_t k0 = t % p->panels * MEST_PANEL;
    t /= p->panels;
    int64_t m0 = t % p->blocks * MEST_BLOCK_ROWS, g = t / p->blocks;
    int64_t rows = least(p->mg - m0, MEST_BLOCK_ROWS), lanes = least(p->k - k0, MEST_PANEL);
    for (int64_t l = 0; l < lanes; l++) {
        channel[l] = (g * p->cg + (k0 + l) / p->taps) * p->pixels;
        tap_shift(w, (k0 + l) % p->taps, shift[l]);
        delta[l] = channel[l] + (shift[l][0] * w->in[1] + shift[l][1]) * w->in[2] + shift[l][2];
    }
    for (int i = 0; i < 3; i++)
        reach[i] = w->in[i] - (w->kernel[i] - 1) * w->dilation[i]; /* windows that start in [0, reach) lie inside the image */
    memset(panel, 0, sizeof panel);
    memset(block, 0, sizeof block);
    /* images with a single position are taken together: their map values are M apart */
    int64_t images = p->positions == 1 ? MEST_PANEL_DEPTH : 1;
    for (int64_t n0 = 0; n0 < v->n; n0 += images) {
        int64_t count = least(v->n - n0, images) * p->positions;
        for (int64_t j0 = 0; j0 < count; j0 += MEST_PANEL_DEPTH) {
            int64_t depth = least(count - j0, MEST_PANEL_DEPTH);
            for (int64_t j = 0; j < depth; j++) {
                int64_t n = n0 + (j0 + j) / p->positions, start[3];
                const mest_real *from = p->image + n * v->c * p->pixels;
                mest_real *to = panel + j * MEST_PANEL;
                window_start(w, (j0 + j) % p->positions, start);
                bool inside = true;
                for (int i = 0; i < 3; i++)
                    inside = inside && start[i] >= 0 && start[i] < reach[i];
                if (inside) {
                    from += (start[0] * w->in[1] + start[1]) * w->in[2] + start[2];
                    for (int64_t l = 0; l < lanes; l++)
                        to[l] = from[delta[l]];
                    continue;
                }
                for (int64_t l = 0; l < lanes; l++) {
                    int64_t pixel = pixel_at(w, start, shift[l]);
                    to[l] = pixel < 0 ? 0 : from[channel[l] + pixel];
                }
            }
            const mest_real *map = p->map + (n0 * v->m + g * p->mg + m0) * p->positions + j0;
            mest_dense_block(map, p->positions, p->positions == 1 ? v->m : 1, rows, panel, depth, block, true);
        }
    }
    for (int64_t r = 0; r < rows; r++)
        memcpy(p->out + (g * p->mg + m0 + r) * p->k + k0, block + r * MEST_PANEL, (size_t)lanes * sizeof *block);
}

/* The depthwise case: per tap the product of two rows, added up in double over rows and images. */
static void depthwise_weight_tile(void *context, size_t tile)
{
    const product *p = context;
    const mest_convolution *v = p->v;
    const mest_window *w = &v->window;
    int64_t m = (int64_t)tile;
    for (int64_t tap = 0; tap < p->taps; tap++) {
        int64_t shift[3], first, last;
        double sum[8] = { 0 };
        tap_shift(w, tap, shift);
        int64_t off = tap_columns(w, shift[2], &first, &last);
        for (int64_t n = 0; n < v->n; n++) {
            const mest_real *image = p->image + (n * v->c + m / p->mg) * p->pixels, *map = p->map + (n * v->m + m) * p->positions;
            for (int64_t row = 0; row < w->out[0] * w->out[1]; row++) {
                int64_t at = tap_row(w, shift, row);
                if (at < 0)
                    continue;
                const mest_real *x = image + at, *y = map + row * w->out[2];
                int64_t q = first;
                if (w->stride[2] == 1)
                    for (; q + 8 <= last; q += 8)
                        for (int l = 0; l < 8; l++)
                            sum[l] += (double)x[q + l + off] * (double)y[q + l];
                for (; q < last; q++)
                    sum[q & 7] += (double)x[q * w->stride[2] + off] * (double)y[q];
            }
        }
        p->out[m * p->taps + tap] = (mest_real)mest_dense_fold(sum);
    }
}

void mest_convolve_weight(const mest_threads *threads, const mest_convolution *v, const mest_real *image, const mest_real *map,
                          mest_real *weight)
{
    product p = product_of(v);
    p.image = image;
    p.map = map;
    p.out = weight;
    if (p.cg == 1 && p.mg <= 2) {
        mest_parallel(threads, (size_t)v->m, depthwise_weight_tile, &p);
        return;
    }
    p.panels = pieces(p.k, MEST_PANEL);
    p.blocks = pieces(p.mg, MEST_BLOCK_ROWS);
    mest_parallel(threads, (size_t)(p.panels * p.blocks * v->group), weight_tile, &p);
}

typedef struct sums_context {
    int64_t n, c, inner;
    const mest_real *x;
    mest_real *sums;
} sums_context;

static void sums_tile(void *context, size_t tile)
{
    const sums_context *s = context;
    double sum = 0;
    for (int64_t n = 0; n < s->n; n++)
        sum += mest_dense_sum(s->x + (n * s->c + (int64_t)tile) * s->inner, s->inner);
    s->sums[tile] = (mest_real)sum;
}

void mest_channel_sums(const mest_threads *threads, int64_t n, int64_t c, int64_t inner, const mest_real *x, mest_real *sums)
{
    sums_context s = { n, c, inner, x, sums };
    mest_parallel(threads, (size_t)c, sums_tile, &s);
}

/* ---- what follows a product, channel by channel ---- */

typedef struct ending {
    int64_t c, inner;
    const mest_real *factor, *shift;
    mest_clamp clamp;
    mest_act act;
    mest_real *y;
} ending;

static void ending_tile(void *context, size_t tile)
{
    const ending *e = context;
    const int64_t c = (int64_t)tile % e->c;
    const mest_real f = e->factor ? e->factor[c] : 1, s = e->shift ? e->shift[c] : 0;
    mest_real *y = e->y + (int64_t)tile * e->inner;
    for (int64_t i = 0; i < e->inner; i++)
        y[i] = y[i] * f + s;
    for (int64_t i = 0; e->clamp.on && i < e->inner; i++) { /* in cache still; NaN stays NaN */
        const mest_real t = y[i] < e->clamp.lo ? e->clamp.lo : y[i];
        y[i] = t > e->clamp.hi ? e->clamp.hi : t;
    }
    if (e->act.kind)
        mest_act_reference(&e->act, y, y, e->inner);
}

void mest_channel_affine(const mest_threads *threads, int64_t n, int64_t c, int64_t inner, const mest_real *factor, const mest_real *shift,
                         const mest_clamp *clamp, const mest_act *act, mest_real *y)
{
    ending e = { .c = c, .inner = inner, .factor = factor, .shift = shift, .clamp = *clamp, .act = *act, .y = y };
    mest_parallel(threads, (size_t)(n * c), ending_tile, &e);
}
