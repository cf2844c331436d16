/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling in PIXEL layout. Inner loops run over the contiguous channels x lanes of a pixel.
 * Forward passes are cut by output row; gradients scatter into their image block, so they are cut by image block and channel range.
 *
 * Letters: N batch, C channels, H W image, R S window, P Q output image, v lanes. */
#include <math.h>

#include "ops/kernels/pixel.h"
#include "ops/kernels/vector.h"

typedef struct pool_run {
    mest_pool_geometry k;
    bool include_pad;
    mest_pixels gx, gy, gdy, gdx; /* X, Y, dY, dX */
    const mest_real *x, *y, *dy;
    mest_real *out;               /* Y or dX */
    int64_t chunk, chunks;        /* elements of a pixel a tile handles, and how many such ranges */
    int64_t rows_per_tile, rows;
    mest_real factor;             /* global sums */
} pool_run;

/* The taps of one window along one axis that fall on the image: [*from, *to). Dilated windows may start late: from is the first tap. */
static void taps(int64_t at, int64_t stride, int64_t before, int64_t dilation, int64_t window, int64_t size, int64_t *from, int64_t *to)
{
    const int64_t start = at * stride - before;
    *from = start < 0 ? px_ceil(-start, dilation) : 0;
    *to = start >= size ? 0 : px_min(window, (size - 1 - start) / dilation + 1);
    if (*from > *to)
        *from = *to;
}

/* Divisor of an average window: taps on the image, or on image and padding (ONNX count_include_pad; past the padding never counts). */
static int64_t extent(int64_t at, int64_t stride, int64_t before, int64_t after, int64_t dilation, int64_t window, int64_t size)
{
    int64_t from, to;
    taps(at, stride, 0, dilation, window, size + before + after, &from, &to);
    return to - from;
}

static mest_real average_factor(const pool_run *r, int64_t p, int64_t q, int64_t taps_inside)
{
    const mest_pool_geometry *k = &r->k;
    if (r->include_pad)
        taps_inside = extent(p, k->stride_y, k->top, k->bottom, k->dilation_y, k->r, k->h) *
                      extent(q, k->stride_x, k->left, k->right, k->dilation_x, k->s, k->w);
    return taps_inside > 0 ? (mest_real)(1.0 / (double)taps_inside) : 0;
}

/* NaN wins, as in PyTorch. Two choices without a branch, or the loops are not vectorized. */
static inline mest_real larger(mest_real a, mest_real b)
{
    const mest_real t = a > b ? a : b;
    return a != a ? a : t;
}

static inline void forward_row(const pool_run *r, int64_t row, bool max)
{
    const mest_pool_geometry *k = &r->k;
    const int64_t block = row / k->p, p = row % k->p, n = k->c * r->gx.v;
    const mest_real *image = r->x + r->gx.origin + block * r->gx.block;
    mest_real *out = r->out + r->gy.origin + block * r->gy.block + p * r->gy.row;
    int64_t r0, r1, s0, s1;
    taps(p, k->stride_y, k->top, k->dilation_y, k->r, k->h, &r0, &r1);
    for (int64_t q = 0; q < k->q; q++, out += r->gy.pixel) {
        taps(q, k->stride_x, k->left, k->dilation_x, k->s, k->w, &s0, &s1);
        const int64_t width = s1 - s0, count = (r1 - r0) * width;
        const mest_real *corner = image + (p * k->stride_y - k->top + r0 * k->dilation_y) * r->gx.row +
                                  (q * k->stride_x - k->left + s0 * k->dilation_x) * r->gx.pixel;
        const int64_t down = k->dilation_y * r->gx.row, right = k->dilation_x * r->gx.pixel;
        mest_real *restrict y = out;
        if (count <= 0) {
            for (int64_t i = 0; i < n; i++)
                y[i] = max ? (mest_real)-INFINITY : 0;
            continue;
        }
        int64_t t = 1;
        if (count >= 4 && width >= 2) { /* four taps at once: the common 2 x 2 and 3 x 3 windows */
            const mest_real *restrict a = corner, *restrict b = corner + right;
            const mest_real *restrict c = corner + 2 / width * down + 2 % width * right, *restrict d = corner + 3 / width * down + 3 % width * right;
            if (max)
                for (int64_t i = 0; i < n; i++)
                    y[i] = larger(larger(a[i], b[i]), larger(c[i], d[i]));
            else
                for (int64_t i = 0; i < n; i++)
                    y[i] = (a[i] + b[i]) + (c[i] + d[i]);
            t = 4;
        } else {
            memcpy(y, corner, (size_t)n * sizeof *y);
        }
        for (; t < count; t++) {
            const mest_real *restrict x = corner + t / width * down + t % width * right;
            if (max)
                for (int64_t i = 0; i < n; i++)
                    y[i] = larger(x[i], y[i]);
            else
                for (int64_t i = 0; i < n; i++)
                    y[i] += x[i];
        }
        if (!max) {
            const mest_real factor = average_factor(r, p, q, count);
            for (int64_t i = 0; i < n; i++)
                y[i] *= factor;
        }
    }
}

static void max_tile(void *context, size_t tile)
{
    const pool_run *r = context;
    for (int64_t row = (int64_t)tile * r->rows_per_tile, end = px_min(row + r->rows_per_tile, r->rows); row < end; row++)
        forward_row(r, row, true);
}

static void average_tile(void *context, size_t tile)
{
    const pool_run *r = context;
    for (int64_t row = (int64_t)tile * r->rows_per_tile, end = px_min(row + r->rows_per_tile, r->rows); row < end; row++)
        forward_row(r, row, false);
}

static bool geometry(const mest_args *a, const mest_shape *x, mest_pool_geometry *k)
{
    char why[160];
    return mest_pool_geometry_of(a->params, x, k, why, sizeof why);
}

static mest_status forward_run(const mest_args *a, bool max)
{
    const mest_pool_params *params = a->params;
    pool_run r = {.x = a->in[0].data, .out = a->out[0].data, .include_pad = params->count_include_pad != 0};
    if (!geometry(a, &a->in[0].type->shape, &r.k))
        return mest_run_fail(a, MEST_E_SHAPE, "window does not fit");
    r.gx = mest_pixel_geometry(a->in[0].type);
    r.gy = mest_pixel_geometry(a->out[0].type);
    r.rows = r.gx.blocks * r.k.p;
    r.rows_per_tile = px_max(1, 16384 / px_max(1, r.k.q * r.k.c * r.gx.v * r.k.r * r.k.s));
    mest_parallel(a->threads, (size_t)px_ceil(r.rows, r.rows_per_tile), max ? max_tile : average_tile, &r);
    return MEST_OK;
}
static mest_status max_run(const mest_args *a) { return forward_run(a, true); }
static mest_status average_run(const mest_args *a) { return forward_run(a, false); }

enum { GLOBAL_CHUNK = 512 };

/* ---- gradients ---- */

/* Cuts a pixel's channels x lanes into ranges of at most `limit` so that there are at least `tiles` tiles. */
static void cut(pool_run *r, const mest_pixels *g, int64_t tiles, int64_t limit)
{
    const int64_t n = g->c * g->v;
    r->chunks = px_max(px_min(px_ceil(n, 64), px_ceil(tiles, g->blocks)), (n - 1) / limit + 1);
    r->chunk = px_ceil(px_ceil(n, r->chunks), 16) * 16;
    r->chunks = px_ceil(n, r->chunk);
}

/* Clears the rows of dX that windows of output row p are the first to reach, from row `cleared` on; returns the next one. Just before they are written they
 * come into the cache once; what lies below all windows goes with the last of them. */
static int64_t clear_reached(const pool_run *r, mest_real *image, int64_t n, int64_t p, int64_t cleared)
{
    const mest_pixels *g = &r->gdx;
    const int64_t reached = p == r->k.p - 1 ? g->h : px_min(g->h, p * r->k.stride_y - r->k.top + (r->k.r - 1) * r->k.dilation_y + 1);
    for (; cleared < reached; cleared++)
        for (int64_t x = 0; x < g->w; x++)
            memset(image + cleared * g->row + x * g->pixel, 0, (size_t)n * sizeof *image);
    return cleared;
}

/* The taps of one window that are on the image, from the first: their number, elements from one to the next down and to the right. */
typedef struct window { int64_t rows, columns, x_down, x_right, dx_down, dx_right; } window;

/* dY goes to the first tap equal to Y: `rest` holds what has not found its tap yet. u vectors, which stay in registers over the window. */
VEC_INLINE void give(const int u, const window *w, const mest_real *x, mest_real *dx, const mest_real *y, const mest_real *dy)
{
    vec top[4], rest[4];
    typedef __typeof__(top[0] == rest[0]) mask;
    for (int k = 0; k < u; k++) {
        top[k] = VEC_LOAD(y + k * VL);
        rest[k] = VEC_LOAD(dy + k * VL);
    }
    for (int64_t i = 0; i < w->rows; i++)
        for (int64_t j = 0; j < w->columns; j++)
            for (int k = 0; k < u; k++) {
                const vec here = VEC_LOAD(x + i * w->x_down + j * w->x_right + k * VL);
                const mask hit = (here == top[k]) | (here != here);
                mest_real *to = dx + i * w->dx_down + j * w->dx_right + k * VL;
                VEC_STORE(to, VEC_LOAD(to) + (vec)(hit & (mask)rest[k]));
                rest[k] = (vec)(~hit & (mask)rest[k]);
            }
}

static void give_one(const window *w, const mest_real *x, mest_real *dx, mest_real y, mest_real rest)
{
    for (int64_t i = 0; i < w->rows; i++)
        for (int64_t j = 0; j < w->columns; j++) {
            const mest_real here = x[i * w->x_down + j * w->x_right];
            const bool hit = (here == y) | (here != here);
            dx[i * w->dx_down + j * w->dx_right] += hit ? rest : 0;
            rest = hit ? 0 : rest;
        }
}

static void max_grad_tile(void *context, size_t tile)
{
    const pool_run *r = context;
    const mest_pool_geometry *k = &r->k;
    const int64_t block = (int64_t)tile / r->chunks, from = (int64_t)tile % r->chunks * r->chunk, n = px_min(r->chunk, k->c * r->gx.v - from);
    const mest_real *image = r->x + r->gx.origin + block * r->gx.block + from;
    mest_real *target = r->out + r->gdx.origin + block * r->gdx.block + from;
    for (int64_t p = 0, cleared = 0; p < k->p; p++) {
        cleared = clear_reached(r, target, n, p, cleared);
        int64_t r0, r1, s0, s1;
        taps(p, k->stride_y, k->top, k->dilation_y, k->r, k->h, &r0, &r1);
        for (int64_t q = 0; q < k->q; q++) {
            taps(q, k->stride_x, k->left, k->dilation_x, k->s, k->w, &s0, &s1);
            const mest_real *y = r->y + r->gy.origin + block * r->gy.block + p * r->gy.row + q * r->gy.pixel + from;
            const mest_real *dy = r->dy + r->gdy.origin + block * r->gdy.block + p * r->gdy.row + q * r->gdy.pixel + from;
            const int64_t iy = p * k->stride_y - k->top + r0 * k->dilation_y, ix = q * k->stride_x - k->left + s0 * k->dilation_x;
            const window w = {r1 - r0, s1 - s0, k->dilation_y * r->gx.row, k->dilation_x * r->gx.pixel, k->dilation_y * r->gdx.row, k->dilation_x * r->gdx.pixel};
            const mest_real *x = image + iy * r->gx.row + ix * r->gx.pixel;
            mest_real *dx = target + iy * r->gdx.row + ix * r->gdx.pixel;
            int64_t e = 0;
            for (; e + 4 * VL <= n; e += 4 * VL)
                give(4, &w, x + e, dx + e, y + e, dy + e);
            for (; e + VL <= n; e += VL)
                give(1, &w, x + e, dx + e, y + e, dy + e);
            for (; e < n; e++)
                give_one(&w, x + e, dx + e, y[e], dy[e]);
        }
    }
}

static void average_grad_tile(void *context, size_t tile)
{
    const pool_run *r = context;
    const mest_pool_geometry *k = &r->k;
    const int64_t block = (int64_t)tile / r->chunks, from = (int64_t)tile % r->chunks * r->chunk, n = px_min(r->chunk, k->c * r->gdx.v - from);
    mest_real *target = r->out + r->gdx.origin + block * r->gdx.block + from;
    for (int64_t p = 0, cleared = 0; p < k->p; p++) {
        cleared = clear_reached(r, target, n, p, cleared);
        int64_t r0, r1, s0, s1;
        taps(p, k->stride_y, k->top, k->dilation_y, k->r, k->h, &r0, &r1);
        for (int64_t q = 0; q < k->q; q++) {
            taps(q, k->stride_x, k->left, k->dilation_x, k->s, k->w, &s0, &s1);
            const mest_real factor = average_factor(r, p, q, (r1 - r0) * (s1 - s0));
            const mest_real *restrict dy = r->dy + r->gdy.origin + block * r->gdy.block + p * r->gdy.row + q * r->gdy.pixel + from;
            for (int64_t i = r0; i < r1; i++)
                for (int64_t j = s0; j < s1; j++) {
                    const int64_t iy = p * k->stride_y - k->top + i * k->dilation_y, ix = q * k->stride_x - k->left + j * k->dilation_x;
                    mest_real *restrict dx = target + iy * r->gdx.row + ix * r->gdx.pixel;
                    for (int64_t e = 0; e < n; e++)
                        dx[e] += dy[e] * factor;
                }
        }
    }
}

/* X Y dY -> dX */
static mest_status max_grad_run(const mest_args *a)
{
    pool_run r = {.x = a->in[0].data, .y = a->in[1].data, .dy = a->in[2].data, .out = a->out[0].data};
    if (!geometry(a, &a->in[0].type->shape, &r.k))
        return mest_run_fail(a, MEST_E_SHAPE, "window does not fit");
    r.gx = mest_pixel_geometry(a->in[0].type);
    r.gy = mest_pixel_geometry(a->in[1].type);
    r.gdy = mest_pixel_geometry(a->in[2].type);
    r.gdx = mest_pixel_geometry(a->out[0].type);
    cut(&r, &r.gdx, 4, INT64_MAX);
    mest_parallel(a->threads, (size_t)(r.gdx.blocks * r.chunks), max_grad_tile, &r);
    return MEST_OK;
}

/* dY -> dX */
static mest_status average_grad_run(const mest_args *a)
{
    const mest_pool_params *params = a->params;
    pool_run r = {.dy = a->in[0].data, .out = a->out[0].data, .include_pad = params->count_include_pad != 0};
    if (!geometry(a, &a->out[0].type->shape, &r.k))
        return mest_run_fail(a, MEST_E_SHAPE, "window does not fit");
    r.gdy = mest_pixel_geometry(a->in[0].type);
    r.gdx = mest_pixel_geometry(a->out[0].type);
    cut(&r, &r.gdx, 8, GLOBAL_CHUNK);
    mest_parallel(a->threads, (size_t)(r.gdx.blocks * r.chunks), average_grad_tile, &r);
    return MEST_OK;
}

/* ---- global ---- */

/* Rows are summed on their own, then added: no float sum is longer than a row or a column. */
static void global_tile(void *context, size_t tile)
{
    const pool_run *r = context;
    const mest_pixels *g = &r->gx;
    const int64_t block = (int64_t)tile / r->chunks, from = (int64_t)tile % r->chunks * r->chunk, n = px_min(r->chunk, g->c * g->v - from);
    mest_real *restrict y = r->out + r->gy.origin + block * r->gy.block + from;
    const mest_real factor = r->factor;
    mest_real total[GLOBAL_CHUNK], sum[GLOBAL_CHUNK];
    memset(total, 0, sizeof total);
    for (int64_t row = 0; row < g->h; row++) {
        const mest_real *restrict x = r->x + g->origin + block * g->block + row * g->row + from;
        memcpy(sum, x, (size_t)n * sizeof *sum);
        for (int64_t i = 1; i < g->w; i++)
            for (int64_t e = 0; e < n; e++)
                sum[e] += x[i * g->pixel + e];
        for (int64_t e = 0; e < n; e++)
            total[e] += sum[e];
    }
    for (int64_t e = 0; e < n; e++)
        y[e] = total[e] * factor;
}

static void global_max_tile(void *context, size_t tile)
{
    const pool_run *r = context;
    const mest_pixels *g = &r->gx;
    const int64_t block = (int64_t)tile / r->chunks, from = (int64_t)tile % r->chunks * r->chunk, n = px_min(r->chunk, g->c * g->v - from);
    mest_real *restrict y = r->out + r->gy.origin + block * r->gy.block + from;
    for (int64_t e = 0; e < n; e++)
        y[e] = (mest_real)-INFINITY;
    for (int64_t row = 0; row < g->h; row++) {
        const mest_real *restrict x = r->x + g->origin + block * g->block + row * g->row + from;
        for (int64_t i = 0; i < g->w; i++)
            for (int64_t e = 0; e < n; e++)
                y[e] = larger(x[i * g->pixel + e], y[e]);
    }
}

static mest_status global_run(const mest_args *a, bool max, bool mean)
{
    pool_run r = {.x = a->in[0].data, .out = a->out[0].data};
    r.gx = mest_pixel_geometry(a->in[0].type);
    r.gy = mest_pixel_geometry(a->out[0].type);
    r.factor = mean ? (mest_real)(1.0 / (double)(r.gx.h * r.gx.w)) : 1;
    cut(&r, &r.gx, 8, GLOBAL_CHUNK);
    mest_parallel(a->threads, (size_t)(r.gx.blocks * r.chunks), max ? global_max_tile : global_tile, &r);
    return MEST_OK;
}
static mest_status global_average_run(const mest_args *a) { return global_run(a, false, true); }
static mest_status global_max_run(const mest_args *a) { return global_run(a, true, false); }
static mest_status global_sum_run(const mest_args *a) { return global_run(a, false, false); }

static void global_grad_tile(void *context, size_t tile)
{
    const pool_run *r = context;
    const mest_pixels *g = &r->gdx;
    const int64_t n = g->c * g->v;
    const mest_real factor = (mest_real)(1.0 / (double)(g->h * g->w));
    for (int64_t row = (int64_t)tile * r->rows_per_tile, end = px_min(row + r->rows_per_tile, r->rows); row < end; row++) {
        const mest_real *restrict dy = r->dy + r->gdy.origin + row / g->h * r->gdy.block;
        mest_real *restrict dx = px_row(g, r->out, row);
        for (int64_t x = 0; x < g->w; x++)
            for (int64_t e = 0; e < n; e++)
                dx[x * g->pixel + e] = dy[e] * factor;
    }
}

static mest_status global_grad_run(const mest_args *a)
{
    pool_run r = {.dy = a->in[0].data, .out = a->out[0].data};
    r.gdy = mest_pixel_geometry(a->in[0].type);
    r.gdx = mest_pixel_geometry(a->out[0].type);
    r.rows = r.gdx.blocks * r.gdx.h;
    r.rows_per_tile = px_max(1, 16384 / px_max(1, r.gdx.w * r.gdx.c * r.gdx.v));
    mest_parallel(a->threads, (size_t)px_ceil(r.rows, r.rows_per_tile), global_grad_tile, &r);
    return MEST_OK;
}

/* Lanes and batch agree; pixel sizes need not. */
static bool pool_fits(const mest_kernel_query *q, const char **why)
{
    (void)why;
    for (int i = 1; i < q->n_in; i++)
        if (!px_same_lanes(q->in[0], q->in[i]))
            return false;
    for (int i = 1; i < q->n_out; i++)
        if (q->out[i])
            return false;
    return q->n_out > 0 && px_same_lanes(q->in[0], q->out[0]);
}

/* Sums over all pixels: what undoes a broadcast [N, C, 1, 1]. */
static bool sum_fits(const mest_kernel_query *q, const char **why)
{
    if (!pool_fits(q, why) || q->in[0]->shape.rank != q->out[0]->shape.rank || q->in[0]->shape.dim[1] != q->out[0]->shape.dim[1])
        return false;
    return mest_shape_span(&q->out[0]->shape, 2, q->out[0]->shape.rank) == 1;
}

const mest_kernel PX_TABLE(pool_pixel)[] = {
    {.name = PX_NAME("maxpool_pixel"), .op = "MaxPool", .cpu = PX_CPU, .fits = pool_fits, .cost = px_cost_once, .prepare = px_no_scratch,
     .run = max_run},
    {.name = PX_NAME("maxpool_grad_pixel"), .op = "mest.MaxPoolGrad", .cpu = PX_CPU, .fits = pool_fits, .cost = px_cost_once,
     .prepare = px_no_scratch, .run = max_grad_run},
    {.name = PX_NAME("avgpool_pixel"), .op = "AveragePool", .cpu = PX_CPU, .fits = pool_fits, .cost = px_cost_once,
     .prepare = px_no_scratch, .run = average_run},
    {.name = PX_NAME("avgpool_grad_pixel"), .op = "mest.AveragePoolGrad", .cpu = PX_CPU, .fits = pool_fits, .cost = px_cost_once,
     .prepare = px_no_scratch, .run = average_grad_run},
    {.name = PX_NAME("gap_pixel"), .op = "GlobalAveragePool", .cpu = PX_CPU, .fits = pool_fits, .cost = px_cost_once,
     .prepare = px_no_scratch, .run = global_average_run},
    {.name = PX_NAME("gap_grad_pixel"), .op = "mest.GlobalAveragePoolGrad", .cpu = PX_CPU, .fits = pool_fits, .cost = px_cost_once,
     .prepare = px_no_scratch, .run = global_grad_run},
    {.name = PX_NAME("gmp_pixel"), .op = "GlobalMaxPool", .cpu = PX_CPU, .fits = pool_fits, .cost = px_cost_once,
     .prepare = px_no_scratch, .run = global_max_run},
    {.name = PX_NAME("sum_pixels"), .op = "mest.ReduceTo", .cpu = PX_CPU, .fits = sum_fits, .cost = px_cost_once, .prepare = px_no_scratch,
     .run = global_sum_run},
    {0},
};
