/* SPDX-License-Identifier: Apache-2.0 */
/* BatchNormalization in PIXEL layout: training form and its second run, frozen form, and both gradients.
 *
 * Rows are cut into tiles that fit the second-level cache; a tile never mixes full image blocks with a last block that has idle lanes.
 * Statistics: each tile takes its own mean and its sum of squared deviations (the second pass finds the tile in cache), and tiles are
 * merged in order in double (Chan, Golub, LeVeque 1979). The number of tiles depends on the shape only, so results do not depend on the
 * number of threads. Inside a tile, sums run over a "period" of pixels side by side, so that even 3 channels fill vectors and no float sum
 * has more than a few dozen terms in sequence.
 *
 * With params->clamp, Y is cut off as it is written, and the gradients take that Y and read dY as 0 where it is not inside: the bits are
 * those of Relu or Clip and its gradient as nodes of their own. With params->act a piece of Y goes through the activation while it is in cache; its
 * gradient is a node of its own (ops/kernels/act.c).
 *
 * Letters: N batch, C channels, H W image, v lanes, L period in elements. */
#include <math.h>

#include "ops/kernels/act_math.h"
#include "ops/kernels/pixel.h"

typedef struct bn_plan {
    mest_pixels g;
    int64_t length, period, tile_rows, full_tiles, tiles;
    int64_t full_rows; /* rows of blocks without idle lanes */
    int64_t count;     /* elements a channel has */
    size_t worker;     /* reals of scratch a worker needs: three arrays of one period */
} bn_plan;

static bn_plan plan_of(const mest_type *x)
{
    bn_plan p = {.g = mest_pixel_geometry(x)};
    const mest_pixels *g = &p.g;
    p.length = px_row_length(g);
    p.period = g->pixel * px_max(1, px_min(g->w, 192 / g->pixel));
    const int64_t elements = px_max(16384, 16 * p.period);
    p.tile_rows = px_max(1, elements / px_max(1, g->w * g->pixel));
    p.full_rows = g->n / g->v * g->h;
    p.full_tiles = px_ceil(p.full_rows, p.tile_rows);
    p.tiles = p.full_tiles + (g->n % g->v ? px_ceil(g->h, p.tile_rows) : 0);
    p.count = g->n * g->h * g->w;
    p.worker = (size_t)px_ceil(p.period, 16) * 16 * 3;
    return p;
}

/* Rows [*from, *to) of a tile; returns its lanes in use. */
static int64_t tile_rows(const bn_plan *p, size_t tile, int64_t *from, int64_t *to)
{
    const int64_t t = (int64_t)tile;
    if (t < p->full_tiles) {
        *from = t * p->tile_rows;
        *to = px_min(*from + p->tile_rows, p->full_rows);
        return p->g.v;
    }
    *from = p->full_rows + (t - p->full_tiles) * p->tile_rows;
    *to = px_min(*from + p->tile_rows, p->full_rows + p->g.h);
    return p->g.n % p->g.v;
}

/* Sum over the lanes in use and the pixels of the period, per channel. */
static void fold(const bn_plan *p, const mest_real *acc, int64_t lanes, double *out)
{
    const mest_pixels *g = &p->g;
    for (int64_t c = 0; c < g->c; c++) {
        double s = 0;
        for (int64_t o = c * g->v; o < p->period; o += g->pixel)
            for (int64_t l = 0; l < lanes; l++)
                s += (double)acc[o + l];
        out[c] = s;
    }
}

/* The other way: one value per channel to one per element of the period; spare slots get 0. */
static void spread(const bn_plan *p, const double *values, mest_real *out)
{
    const mest_pixels *g = &p->g;
    for (int64_t o = 0; o < p->period; o += g->pixel)
        for (int64_t c = 0; c < g->slots; c++)
            for (int64_t l = 0; l < g->v; l++)
                out[o + c * g->v + l] = c < g->c ? (mest_real)values[c] : 0;
}

static void add_row(const mest_real *restrict x, int64_t length, int64_t period, mest_real *restrict acc)
{
    for (; length >= 4 * period; length -= 4 * period, x += 4 * period)
        for (int64_t i = 0; i < period; i++)
            acc[i] += (x[i] + x[period + i]) + (x[2 * period + i] + x[3 * period + i]);
    for (; length > 0; length -= period, x += period) {
        const int64_t n = px_min(period, length);
        for (int64_t i = 0; i < n; i++)
            acc[i] += x[i];
    }
}

static void add_squares(const mest_real *restrict x, int64_t length, int64_t period, const mest_real *restrict mean, mest_real *restrict acc)
{
    for (; length > 0; length -= period, x += period) {
        const int64_t n = px_min(period, length);
        for (int64_t i = 0; i < n; i++) {
            const mest_real d = x[i] - mean[i];
            acc[i] += d * d;
        }
    }
}

static void add_gradient(const mest_real *restrict x, const mest_real *restrict dy, int64_t length, int64_t period,
                         const mest_real *restrict mean, mest_real *restrict acc, mest_real *restrict acc_x)
{
    for (; length > 0; length -= period, x += period, dy += period) {
        const int64_t n = px_min(period, length);
        for (int64_t i = 0; i < n; i++) {
            acc[i] += dy[i];
            acc_x[i] += dy[i] * (x[i] - mean[i]);
        }
    }
}

/* The same with dY behind the activation whose result is y. */
static void add_gated_gradient(const mest_real *restrict x, const mest_real *restrict dy, const mest_real *restrict y, mest_clamp clamp,
                               int64_t length, int64_t period, const mest_real *restrict mean, mest_real *restrict acc, mest_real *restrict acc_x)
{
    for (; length > 0; length -= period, x += period, dy += period, y += period) {
        const int64_t n = px_min(period, length);
        for (int64_t i = 0; i < n; i++) {
            const mest_real g = dy[i], d = ((y[i] > clamp.lo) & (y[i] < clamp.hi)) ? g : 0;
            acc[i] += d;
            acc_x[i] += d * (x[i] - mean[i]);
        }
    }
}

typedef struct bn_run {
    bn_plan p;
    const mest_threads *threads;
    const mest_real *x, *dy;
    const mest_real *gate;      /* gradient with a clamp: Y of the forward node; otherwise NULL */
    const mest_real *addend;    /* second run: added before the clamp; NULL: none */
    mest_real *gated;           /* gradient: dY behind the activation, where it is wanted by itself */
    mest_real *y;               /* Y or dX */
    mest_pixels gy, gdy, ggate, gaddend, ggated; /* geometry of y, dy, ... */
    mest_real *workers;         /* p.worker reals each */
    double *partial;            /* [tiles][2][C] */
    double *k0, *k1, *k2, *k3;  /* [C] each */
    mest_real *m, *a, *b;       /* one period each: y = (x - m) a + b; gradient: dx = dy a + (x - m) b + c */
    mest_real *c;
    bool gradient;
    mest_clamp clamp;
    const mest_act *act;        /* forward: of Y; NULL: none */
    bool spread_x;              /* gradient: the term with x exists */
} bn_run;

/* Scratch in this order: doubles, then reals. */
static size_t scratch_of(const bn_plan *p, int workers)
{
    const size_t doubles = (size_t)p->g.c * (2 * (size_t)p->tiles + 4);
    const size_t reals = p->worker * (size_t)workers + 4 * (p->worker / 3) + 64;
    return doubles * sizeof(double) + 128 + reals * sizeof(mest_real);
}

static void lay_out(bn_run *r, void *scratch)
{
    const size_t c = (size_t)r->p.g.c, period = r->p.worker / 3;
    r->partial = scratch;
    r->k0 = r->partial + 2 * c * (size_t)r->p.tiles;
    r->k1 = r->k0 + c;
    r->k2 = r->k1 + c;
    r->k3 = r->k2 + c;
    const uintptr_t end = (uintptr_t)(r->k3 + c);
    r->m = (mest_real *)((end + 63) / 64 * 64);
    r->a = r->m + period;
    r->b = r->a + period;
    r->c = r->b + period;
    r->workers = r->c + period;
}

static void statistics_tile(void *context, size_t worker, size_t tile)
{
    const bn_run *r = context;
    const bn_plan *p = &r->p;
    int64_t from, to;
    const int64_t lanes = tile_rows(p, tile, &from, &to), n = (to - from) * p->g.w * lanes;
    mest_real *acc = r->workers + worker * p->worker, *mean = acc + p->worker / 3;
    double *sum = r->partial + tile * 2 * (size_t)p->g.c, *square = sum + p->g.c;
    memset(acc, 0, (size_t)p->period * sizeof *acc);
    for (int64_t row = from; row < to; row++)
        add_row(px_row(&p->g, r->x, row), p->length, p->period, acc);
    fold(p, acc, lanes, sum);
    for (int64_t c = 0; c < p->g.c; c++)
        sum[c] /= (double)n;
    spread(p, sum, mean);
    memset(acc, 0, (size_t)p->period * sizeof *acc);
    for (int64_t row = from; row < to; row++)
        add_squares(px_row(&p->g, r->x, row), p->length, p->period, mean, acc);
    fold(p, acc, lanes, square);
    for (int64_t c = 0; c < p->g.c; c++) { /* the deviations were taken from the rounded mean */
        const double offset = sum[c] - (double)(mest_real)sum[c];
        square[c] = fmax(0, square[c] - (double)n * offset * offset);
    }
}

/* Mean to k0, sum of squared deviations to k1. */
static void merge_statistics(const bn_run *r)
{
    const bn_plan *p = &r->p;
    const int64_t channels = p->g.c;
    double n = 0;
    for (int64_t c = 0; c < channels; c++)
        r->k0[c] = r->k1[c] = 0;
    for (int64_t t = 0; t < p->tiles; t++) {
        int64_t from, to;
        const int64_t lanes = tile_rows(p, (size_t)t, &from, &to);
        const double m = (double)((to - from) * p->g.w * lanes), total = n + m;
        const double *mean = r->partial + t * 2 * channels, *square = mean + channels;
        for (int64_t c = 0; c < channels; c++) {
            const double d = mean[c] - r->k0[c];
            r->k0[c] += d * (m / total);
            r->k1[c] += square[c] + d * d * (n * m / total);
        }
        n = total;
    }
}

static void gradient_tile(void *context, size_t worker, size_t tile)
{
    const bn_run *r = context;
    const bn_plan *p = &r->p;
    int64_t from, to;
    const int64_t lanes = tile_rows(p, tile, &from, &to);
    mest_real *acc = r->workers + worker * p->worker, *acc_x = acc + p->worker / 3;
    double *sum = r->partial + tile * 2 * (size_t)p->g.c;
    memset(acc, 0, p->worker / 3 * 2 * sizeof *acc);
    for (int64_t row = from; row < to; row++)
        if (r->gate)
            add_gated_gradient(px_row(&p->g, r->x, row), px_row(&r->gdy, r->dy, row), px_row(&r->ggate, r->gate, row), r->clamp, p->length, p->period,
                               r->m, acc, acc_x);
        else
            add_gradient(px_row(&p->g, r->x, row), px_row(&r->gdy, r->dy, row), p->length, p->period, r->m, acc, acc_x);
    fold(p, acc, lanes, sum);
    fold(p, acc_x, lanes, sum + p->g.c);
    for (int64_t row = from; row < to && r->gated; row++) { /* may be dy itself: what was summed is in cache still */
        const mest_real *dy = px_row(&r->gdy, r->dy, row), *y = r->gate ? px_row(&r->ggate, r->gate, row) : NULL;
        mest_real *out = px_row(&r->ggated, r->gated, row);
        MEST_IVDEP
        for (int64_t i = 0; i < p->length; i++) {
            const mest_real g = dy[i];
            out[i] = !y || ((y[i] > r->clamp.lo) & (y[i] < r->clamp.hi)) ? g : 0;
        }
    }
}

/* sum dY to k2, sum dY (X - mean) to k3. */
static void merge_gradient(const bn_run *r)
{
    const int64_t channels = r->p.g.c;
    for (int64_t c = 0; c < channels; c++)
        r->k2[c] = r->k3[c] = 0;
    for (int64_t t = 0; t < r->p.tiles; t++)
        for (int64_t c = 0; c < channels; c++) {
            r->k2[c] += r->partial[t * 2 * channels + c];
            r->k3[c] += r->partial[(t * 2 + 1) * channels + c];
        }
}

/* One period of the forms below. y may be x, s or dy: each element is read before it is written. s: an addend, may be NULL. */
static inline void forward_period(const mest_real *x, const mest_real *s, int64_t n, const mest_real *restrict m, const mest_real *restrict a,
                                  const mest_real *restrict b, mest_clamp clamp, mest_real *y)
{
    if (s && clamp.on) {
        MEST_IVDEP
        for (int64_t i = 0; i < n; i++) {
            const mest_real value = (x[i] - m[i]) * a[i] + b[i] + s[i];
            const mest_real t = value < clamp.lo ? clamp.lo : value;
            y[i] = t > clamp.hi ? clamp.hi : t;
        }
    } else if (s) {
        MEST_IVDEP
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - m[i]) * a[i] + b[i] + s[i];
    } else if (clamp.on) {
        MEST_IVDEP
        for (int64_t i = 0; i < n; i++) {
            const mest_real value = (x[i] - m[i]) * a[i] + b[i];
            const mest_real t = value < clamp.lo ? clamp.lo : value;
            y[i] = t > clamp.hi ? clamp.hi : t;
        }
    } else {
        MEST_IVDEP
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - m[i]) * a[i] + b[i];
    }
}

/* x NULL: without the term that has it. gate NULL: without activation. dy is read in any case: a conditional load would keep a loop scalar. */
static inline void gradient_period(const mest_real *x, const mest_real *dy, const mest_real *gate, mest_clamp clamp, int64_t n,
                                   const mest_real *restrict m, const mest_real *restrict a, const mest_real *restrict b, const mest_real *restrict c, mest_real *y)
{
    if (x && gate) {
        MEST_IVDEP
        for (int64_t i = 0; i < n; i++) {
            const mest_real g = dy[i], d = ((gate[i] > clamp.lo) & (gate[i] < clamp.hi)) ? g : 0;
            y[i] = (d * a[i] + c[i]) + (x[i] - m[i]) * b[i];
        }
    } else if (x) {
        MEST_IVDEP
        for (int64_t i = 0; i < n; i++)
            y[i] = (dy[i] * a[i] + c[i]) + (x[i] - m[i]) * b[i];
    } else if (gate) {
        MEST_IVDEP
        for (int64_t i = 0; i < n; i++) {
            const mest_real g = dy[i], d = ((gate[i] > clamp.lo) & (gate[i] < clamp.hi)) ? g : 0;
            y[i] = d * a[i];
        }
    } else {
        MEST_IVDEP
        for (int64_t i = 0; i < n; i++)
            y[i] = dy[i] * a[i];
    }
}

/* Tiles are taken from the last to the first: the pass before this one has left the last ones in cache. */
static void apply_tile(void *context, size_t turn)
{
    const bn_run *r = context;
    const bn_plan *p = &r->p;
    int64_t from, to;
    const int64_t lanes = tile_rows(p, (size_t)p->tiles - 1 - turn, &from, &to), period = p->period;
    for (int64_t row = from; row < to; row++) {
        const mest_real *x = px_row(&p->g, r->x, row), *dy = r->gradient ? px_row(&r->gdy, r->dy, row) : NULL;
        const mest_real *gate = r->gate ? px_row(&r->ggate, r->gate, row) : NULL, *addend = r->addend ? px_row(&r->gaddend, r->addend, row) : NULL;
        mest_real *y = px_row(&r->gy, r->y, row);
        for (int64_t o = 0; o < p->length; o += period) {
            const int64_t n = px_min(period, p->length - o);
            if (r->gradient)
                gradient_period(r->spread_x ? x + o : NULL, dy + o, gate ? gate + o : NULL, r->clamp, n, r->m, r->a, r->b, r->c, y + o);
            else
                forward_period(x + o, addend ? addend + o : NULL, n, r->m, r->a, r->b, r->clamp, y + o);
            if (r->act)
                act_row(r->act, y + o, y + o, n);
        }
        if (r->gradient && lanes < p->g.v)
            px_zero_lanes(&r->gy, y, lanes);
    }
}

static const mest_act *act_of(const mest_bn_params *p) { return p->act.kind ? &p->act : NULL; }
static const mest_real *values_of(const mest_args *a, int input) { return a->in[input].data; }

static mest_status train_run(const mest_args *a)
{
    const mest_bn_params *params = a->params;
    bn_run r = {.p = plan_of(a->in[0].type), .threads = a->threads, .x = a->in[0].data};
    const int64_t channels = r.p.g.c;
    lay_out(&r, a->scratch);
    const double *moments = a->n_in > 5 ? a->in[5].data : NULL;
    if (moments) {
        memcpy(r.k0, moments, (size_t)channels * sizeof *moments);
        memcpy(r.k1, moments + channels, (size_t)channels * sizeof *moments);
    } else {
        mest_parallel_worker(a->threads, (size_t)r.p.tiles, statistics_tile, &r);
        merge_statistics(&r);
    }
    const mest_real *scale = values_of(a, 1), *bias = values_of(a, 2);
    mest_real *mean = a->in[3].data, *var = a->in[4].data, *save_mean = px_out_data(a, 1), *save_invstd = px_out_data(a, 2), *map = px_out_data(a, 3);
    const double n = (double)r.p.count;
    for (int64_t c = 0; c < channels; c++) {
        const double v = r.k1[c] / n, invstd = 1 / sqrt(v + params->epsilon);
        mest_bn_track(params, a->run, r.k0[c], r.k1[c], n, mean ? &mean[c] : NULL, var ? &var[c] : NULL);
        if (save_mean)
            save_mean[c] = (mest_real)r.k0[c];
        if (save_invstd)
            save_invstd[c] = (mest_real)invstd;
        r.k1[c] = invstd * (double)scale[c];
        /* m is rounded to mest_real; b takes up the difference. */
        r.k2[c] = (double)bias[c] - (r.k0[c] - (double)(mest_real)r.k0[c]) * r.k1[c];
        if (map) {
            map[c] = (mest_real)r.k0[c];
            map[channels + c] = (mest_real)r.k1[c];
            map[2 * channels + c] = (mest_real)r.k2[c];
        }
    }
    if (!a->out[0].data)
        return MEST_OK;
    spread(&r.p, r.k0, r.m);
    spread(&r.p, r.k1, r.a);
    spread(&r.p, r.k2, r.b);
    r.clamp = params->clamp;
    r.act = act_of(params);
    r.y = a->out[0].data;
    r.gy = mest_pixel_geometry(a->out[0].type);
    mest_parallel(a->threads, (size_t)r.p.tiles, apply_tile, &r);
    return MEST_OK;
}

/* Y once more, by the map that train_run noted. */
static mest_status again_run(const mest_args *a)
{
    const mest_bn_params *params = a->params;
    bn_run r = {.p = plan_of(a->in[0].type), .threads = a->threads, .x = a->in[0].data, .y = a->out[0].data, .clamp = params->clamp,
                .act = act_of(params)};
    const int64_t channels = r.p.g.c;
    const mest_real *map = values_of(a, 1);
    lay_out(&r, a->scratch);
    for (int64_t c = 0; c < channels; c++) {
        r.k0[c] = (double)map[c];
        r.k1[c] = (double)map[channels + c];
        r.k2[c] = (double)map[2 * channels + c];
    }
    spread(&r.p, r.k0, r.m);
    spread(&r.p, r.k1, r.a);
    spread(&r.p, r.k2, r.b);
    r.gy = mest_pixel_geometry(a->out[0].type);
    if (a->n_in > 2 && a->in[2].data) {
        r.addend = a->in[2].data;
        r.gaddend = mest_pixel_geometry(a->in[2].type);
    }
    mest_parallel(a->threads, (size_t)r.p.tiles, apply_tile, &r);
    return MEST_OK;
}

static mest_status frozen_run(const mest_args *a)
{
    const mest_bn_params *params = a->params;
    bn_run r = {.p = plan_of(a->in[0].type), .threads = a->threads, .x = a->in[0].data, .y = a->out[0].data,
                .clamp = params->clamp, .act = act_of(params)};
    lay_out(&r, a->scratch);
    const mest_real *scale = values_of(a, 1), *bias = values_of(a, 2), *mean = values_of(a, 3), *var = values_of(a, 4);
    for (int64_t c = 0; c < r.p.g.c; c++) {
        r.k0[c] = (double)mean[c];
        r.k1[c] = (double)scale[c] / sqrt((double)var[c] + params->epsilon);
        r.k2[c] = (double)bias[c];
    }
    spread(&r.p, r.k0, r.m);
    spread(&r.p, r.k1, r.a);
    spread(&r.p, r.k2, r.b);
    r.gy = mest_pixel_geometry(a->out[0].type);
    mest_parallel(a->threads, (size_t)r.p.tiles, apply_tile, &r);
    return MEST_OK;
}

/* Both gradients. frozen: inputs X scale mean var dY, the statistics are constants; otherwise X scale save_mean save_invstd dY. With a clamp
 * Y follows. */
static mest_status grad_run(const mest_args *a, bool frozen)
{
    const mest_bn_params *params = a->params;
    bn_run r = {.p = plan_of(a->in[0].type), .threads = a->threads, .x = a->in[0].data, .dy = a->in[4].data, .clamp = params->clamp, .gradient = true};
    const int64_t channels = r.p.g.c;
    lay_out(&r, a->scratch);
    r.gdy = mest_pixel_geometry(a->in[4].type);
    const double *sums = a->n_in > 6 ? a->in[6].data : NULL;
    if (params->clamp.on && !sums) {
        r.gate = a->in[5].data;
        r.ggate = mest_pixel_geometry(a->in[5].type);
    }
    if (px_out_data(a, 4)) {
        r.gated = a->out[4].data;
        r.ggated = mest_pixel_geometry(a->out[4].type);
    }
    const mest_real *scale = values_of(a, 1), *mean = values_of(a, 2), *spread_of = values_of(a, 3);
    mest_real *dscale = px_out_data(a, 1), *dbias = px_out_data(a, 2), *map = px_out_data(a, 3);
    for (int64_t c = 0; c < channels; c++) {
        r.k0[c] = (double)mean[c];
        r.k1[c] = frozen ? 1 / sqrt((double)spread_of[c] + params->epsilon) : (double)spread_of[c];
    }
    spread(&r.p, r.k0, r.m);
    if (!frozen || dscale || dbias) {
        if (sums) {
            memcpy(r.k2, sums, (size_t)channels * sizeof *sums);
            memcpy(r.k3, sums + channels, (size_t)channels * sizeof *sums);
        } else {
            mest_parallel_worker(a->threads, (size_t)r.p.tiles, gradient_tile, &r);
            merge_gradient(&r);
        }
        for (int64_t c = 0; c < channels; c++) {
            if (dscale)
                dscale[c] = (mest_real)(r.k3[c] * r.k1[c]);
            if (dbias)
                dbias[c] = (mest_real)r.k2[c];
        }
    }
    if (!a->out[0].data && !map)
        return MEST_OK;
    /* dX = gain (dY - sum dY / n - (X - mean) invstd^2 sum(dY (X - mean)) / n), gain = scale invstd */
    const double n = (double)r.p.count;
    for (int64_t c = 0; c < channels; c++) {
        const double invstd = r.k1[c], gain = (double)scale[c] * invstd;
        r.k0[c] = gain;
        if (!frozen) {
            r.k1[c] = -gain * invstd * invstd * r.k3[c] / n;
            r.k2[c] = -gain * r.k2[c] / n;
        }
    }
    for (int64_t c = 0; c < channels && map; c++) {
        map[c] = mean[c];
        map[channels + c] = (mest_real)r.k0[c];
        map[2 * channels + c] = (mest_real)r.k1[c];
        map[3 * channels + c] = (mest_real)r.k2[c];
    }
    if (!a->out[0].data)
        return MEST_OK;
    spread(&r.p, r.k0, r.a);
    if (!frozen) {
        spread(&r.p, r.k1, r.b);
        spread(&r.p, r.k2, r.c);
    }
    r.spread_x = !frozen;
    r.y = a->out[0].data;
    r.gy = mest_pixel_geometry(a->out[0].type);
    mest_parallel(a->threads, (size_t)r.p.tiles, apply_tile, &r);
    return MEST_OK;
}

static mest_status train_grad_run(const mest_args *a) { return grad_run(a, false); }
static mest_status frozen_grad_run(const mest_args *a) { return grad_run(a, true); }

static bool with_clamp(const mest_kernel_query *q) { return ((const mest_bn_params *)q->params)->clamp.on; }
static bool forward_fits(const mest_kernel_query *q, const char **why)
{
    if (with_clamp(q) || ((const mest_bn_params *)q->params)->act.kind)
        *why = "with its activation";
    return px_pixel(q->in[0]) && (!q->out[0] || px_same_rows(q->in[0], q->out[0]));
}
static bool again_fits(const mest_kernel_query *q, const char **why)
{
    return forward_fits(q, why) && (q->n_in < 3 || !q->in[2] || px_same_rows(q->in[0], q->in[2]));
}
static bool grad_fits(const mest_kernel_query *q, const char **why)
{
    const bool clamp = with_clamp(q) && !(q->n_in > 6 && q->in[6]);
    if (clamp)
        *why = "with its activation";
    return px_pixel(q->in[0]) && px_same_rows(q->in[0], q->in[4]) && (!clamp || (q->n_in > 5 && px_same_rows(q->in[0], q->in[5]))) &&
           (!q->out[0] || px_same_rows(q->in[0], q->out[0])) && (!px_out(q, 4) || px_same_rows(q->in[0], q->out[4]));
}
static double train_cost(const mest_kernel_query *q) { return px_cost(q, 1.5); }
static mest_status bn_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    (void)err;
    const bn_plan p = plan_of(q->in[0]);
    *state = NULL;
    *scratch_bytes = scratch_of(&p, px_workers(q->threads));
    return MEST_OK;
}

enum { GRAD_OVER = 1 << 0 | 1 << 4 | 1 << 5 }; /* dX may go over X, dY or Y: the sums are complete before it is written, element by element */

const mest_kernel PX_TABLE(bn_pixel)[] = {
    {.name = PX_NAME("bn_train_pixel"), .op = "mest.BatchNormTrain", .cpu = PX_CPU, .inplace = 1, .fits = forward_fits, .cost = train_cost,
     .prepare = bn_prepare, .run = train_run, .again = PX_NAME("bn_again_pixel")},
    {.name = PX_NAME("bn_again_pixel"), .op = "mest.BatchNormAgain", .cpu = PX_CPU, .inplace = 1 << 0 | 1 << 2, .fits = again_fits, .cost = px_cost_once,
     .prepare = bn_prepare, .run = again_run},
    {.name = PX_NAME("bn_grad_pixel"), .op = "mest.BatchNormGrad", .cpu = PX_CPU, .inplace = GRAD_OVER, .fits = grad_fits, .cost = train_cost,
     .prepare = bn_prepare, .run = train_grad_run},
    {.name = PX_NAME("bn_pixel"), .op = "BatchNormalization", .cpu = PX_CPU, .inplace = 1, .fits = forward_fits, .cost = px_cost_once,
     .prepare = bn_prepare, .run = frozen_run},
    {.name = PX_NAME("bn_frozen_grad_pixel"), .op = "mest.BatchNormFrozenGrad", .cpu = PX_CPU, .inplace = GRAD_OVER, .fits = grad_fits, .cost = train_cost,
     .prepare = bn_prepare, .run = frozen_grad_run},
    {0},
};
