/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the fused convolutions strip by strip.
 *
 * Statistics: every part sums by itself, lane by lane in floats over a few hundred terms, then in double; parts are merged in their order. */
#include "sparse/kernels/fused.h"

typedef mest_fused_state state;
typedef mest_lanes_job job;

enum { FOLD = 128 }; /* terms of a float sum, or those of a row */

typedef struct run {
    job job;                       /* lists, weights, parts of dW */
    const state *s;
    const mest_real *map, *add, *v, *dmap, *u, *mean;
    char *scratch;
    double *stats;                 /* [parts][1 + 2 C]: terms, then mean or sum, squares or products */
} run;

/* One part at work: which strip, which rows of it are in the ring. */
typedef struct strip {
    const run *r;
    const state *s;
    mest_real *ring, *x, *dx, *y, *sums;
    mest_real *shift;              /* moments: what they are taken about */
    int64_t clean;                 /* rows of the ring, from the first, whose columns beside the image are zero already */
    int64_t block, segment, next;  /* first block of the group; next: first row of the strip not yet in the ring, counted from its topmost tap */
    int64_t from, columns;         /* first position and positions of the segment */
    int64_t c0, c1;                /* channels of the result */
    int64_t summed, lanes;         /* terms in the float sums of a lane; lanes that hold images */
    double *stat;
    double terms;
} strip;

static int64_t share(int64_t n, int64_t part, int64_t parts) { return n * part / parts; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t lanes_of(const mest_pixels *g, int64_t block) { return least(g->v, g->n - block * g->v); }

/* ---- the ring ---- */

static void copy_row(int64_t n, int64_t elements, const mest_real *from, int64_t fp, mest_real *to, int64_t top)
{
    for (int64_t p = 0; p < n; p++)
        memcpy(to + p * top, from + p * fp, (size_t)elements * sizeof *to);
}

/* Row `row` of the tensor read, columns of the segment and taps beside it, of all blocks of the group; zero outside of the image (clean: the columns beside it are). */
static void make_row(const strip *t, int64_t row, bool clean, mest_real *to)
{
    const state *s = t->s;
    const run *r = t->r;
    const bool gradient = s->lanes.p.gradient;
    const mest_pixels *g = gradient ? &s->lanes.y : &s->lanes.x;
    if (s->lanes.key.by_rows && (row < 0 || row >= g->h))
        return; /* no entry of the list reads it */
    const int64_t first = t->from * s->step_x + s->low_x, n = (t->columns - 1) * s->step_x + s->span_x, column = s->group * s->pixel;
    const int64_t a = row < 0 || row >= g->h ? n : least(n, first < 0 ? -first : 0), end = row < 0 || row >= g->h ? n : least(n, g->w - first);
    const int64_t b = end < a ? a : end;
    for (int64_t p = clean && a < b ? n * s->group : 0; p < n * s->group; p++)
        if (p < a * s->group || p >= b * s->group)
            memset(to + p * s->pixel, 0, (size_t)(g->c * g->v) * sizeof *to);
    for (int64_t k = 0; k < s->group && a < b; k++) {
        const int64_t at = g->origin + (t->block + k) * g->block + row * g->row + (first + a) * g->pixel;
        mest_real *out = to + a * column + k * s->pixel;
        if (gradient && r->dmap) {
            const mest_real *v = r->v + s->v.origin + (t->block + k) * s->v.block + row * s->v.row + (first + a) * s->v.pixel;
            s->rows->gradient_row(b - a, g->c, r->job.dy + at, g->pixel, v, s->v.pixel, r->dmap, lanes_of(g, t->block + k), out, column);
        } else if (!gradient && r->map) {
            s->rows->forward_row(b - a, g->c, r->job.x + at, g->pixel, r->map, g->c, s->clamp, out, column);
        } else {
            copy_row(b - a, g->c * g->v, (gradient ? r->job.dy : r->job.x) + at, g->pixel, out, column);
        }
    }
}

/* First tap of position row `i` in the ring; the rows up to its last tap are made. */
static const mest_real *taps_of(strip *t, int64_t i)
{
    const state *s = t->s;
    const int64_t top = i * s->step_y, extra = s->span_y - 1, row_bytes = s->ring_row * (int64_t)sizeof(mest_real);
    for (int64_t k = t->next > top ? t->next : top; k < top + s->span_y; k++) {
        const int64_t slot = k % s->ring_rows;
        mest_real *to = t->ring + slot * s->ring_row;
        /* With one segment the columns beside the image are the same in all rows, and nobody else writes them. */
        make_row(t, k + s->low_y, s->segments == 1 && slot < t->clean, to);
        const int64_t row = k + s->low_y;
        if (slot == t->clean && !(s->lanes.key.by_rows && (row < 0 || row >= (s->lanes.p.gradient ? s->lanes.y.h : s->lanes.x.h))))
            t->clean++;
        if (slot < extra)
            memcpy(t->ring + (s->ring_rows + slot) * s->ring_row, to, (size_t)row_bytes);
        t->next = k + 1;
    }
    return t->ring + top % s->ring_rows * s->ring_row;
}

/* ---- sums ---- */

/* Sum over the lanes of channel c0 + c. */
static double lane_sum(const strip *t, int64_t which, int64_t c, int64_t lanes)
{
    const int64_t v = t->s->lanes.isa->v, n = t->c1 - t->c0;
    double sum = 0;
    for (int64_t l = 0; l < lanes; l++)
        sum += (double)t->sums[(which * n + c) * v + l];
    return sum;
}

/* Float sums go into those of the part. Moments: mean and squared deviations of two sets become those of both (Chan, Golub, LeVeque 1979), and
 * from then on are taken about the mean so far: a first row that is unlike the rest, as padding makes it, costs no digits. */
static void fold(strip *t)
{
    if (!t->summed)
        return;
    const int64_t n = t->c1 - t->c0, channels = (int64_t)(t->s->stats_doubles - 1) / 2, lanes = t->lanes;
    double *first = t->stat + 1 + t->c0, *second = first + channels;
    const double terms = (double)(t->summed * lanes), all = t->terms + terms;
    for (int64_t c = 0; c < n; c++) {
        const double sum = lane_sum(t, 0, c, lanes), square = lane_sum(t, 1, c, lanes);
        if (!t->shift) {
            first[c] += sum;
            second[c] += square;
            continue;
        }
        const double rest = square - sum * sum / terms, d = (double)t->shift[c] + sum / terms - first[c];
        first[c] += d * (terms / all);
        second[c] += (rest > 0 ? rest : 0) + d * d * (t->terms * terms / all);
        t->shift[c] = (mest_real)first[c];
    }
    t->terms = all;
    memset(t->sums, 0, (size_t)(2 * n * t->s->lanes.isa->v) * sizeof *t->sums);
    t->summed = 0;
}

/* Sums of a row of `block` come next. */
static void expect(strip *t, int64_t block)
{
    const int64_t lanes = lanes_of(&t->s->lanes.y, block);
    if (lanes != t->lanes || t->summed >= FOLD)
        fold(t);
    t->lanes = lanes;
}

/* Mean of one row of Y, rounded: what the first moments are taken about. */
static void first_row(strip *t, const mest_real *y, int64_t yp)
{
    const int64_t n = t->c1 - t->c0, lanes = t->lanes;
    memset(t->shift, 0, (size_t)n * sizeof *t->shift);
    t->s->rows->moments_row(t->columns, n, y, yp, t->shift, t->sums);
    for (int64_t c = 0; c < n; c++)
        t->shift[c] = (mest_real)(lane_sum(t, 0, c, lanes) / (double)(t->columns * lanes));
    memset(t->sums, 0, (size_t)(2 * n * t->s->lanes.isa->v) * sizeof *t->sums);
}

/* Opens part `part`: scratch of the worker, no strip yet. */
static strip open_part(const run *r, size_t worker, int64_t position_part, int64_t c0, int64_t c1)
{
    const state *s = r->s;
    mest_real *base = (mest_real *)(void *)(r->scratch + s->workers_at) + worker * s->worker_reals;
    strip t = {.r = r, .s = s, .ring = base + s->ring_at, .x = base + s->x_at, .dx = base + s->dx_at, .y = base + s->y_at, .sums = base + s->sums_at, .block = -1, .c0 = c0,
               .c1 = c1};
    if (s->stats_doubles) {
        t.stat = r->stats + (size_t)position_part * s->stats_doubles;
        memset(t.sums, 0, (size_t)(2 * (c1 - c0) * s->lanes.isa->v) * sizeof *t.sums);
    }
    return t;
}

/* Position row of unit `unit`; opens its strip. */
static int64_t enter(strip *t, int64_t unit)
{
    const state *s = t->s;
    const int64_t row = unit % s->n_rows, segment = unit / s->n_rows % s->segments, block = unit / s->n_rows / s->segments * s->group;
    if (block != t->block || segment != t->segment) {
        t->block = block;
        t->segment = segment;
        t->next = 0;
        t->from = segment * s->segment;
        t->columns = least(s->segment, s->run - t->from);
    }
    return row;
}

/* ---- forward ---- */

static void forward_part(void *context, size_t worker, size_t part)
{
    const run *r = context;
    const state *s = r->s;
    const mest_lanes_state *l = &s->lanes;
    const int64_t pp = (int64_t)part / l->row_parts, rp = (int64_t)part % l->row_parts;
    mest_lanes_forward f = {.blocks = 1, .rows = 1, .y_step = l->y.pixel, .bias = r->job.bias, .outs = l->p.g.m, .list = mest_lanes_of(&r->job, 0)};
    const int32_t r0 = (int32_t)share(f.list.n_rows, rp, l->row_parts), r1 = (int32_t)share(f.list.n_rows, rp + 1, l->row_parts);
    strip t = open_part(r, worker, pp, (int64_t)r0 * f.list.height, least((int64_t)r1 * f.list.height, l->p.g.m));
    t.shift = t.sums + 2 * (t.c1 - t.c0) * l->isa->v;
    if (!l->sparse && l->p.g.group > 1) {
        f.group_rows = l->p.g.m / l->p.g.group;
        f.group_shift = l->p.g.c / l->p.g.group * l->isa->v;
    }
    const int64_t first = share(s->units, pp, l->position_parts), end = share(s->units, pp + 1, l->position_parts);
    for (int64_t unit = first; unit < end; unit++) {
        const int64_t row = enter(&t, unit);
        f.run = t.columns * s->group;
        if (s->through) {
            f.x = taps_of(&t, row);
            f.x_step = s->step_x * s->pixel;
        } else {
            f.x = r->job.x + l->x.origin + t.block * l->x.block + (row * s->step_y + s->low_y) * l->x.row + (t.from * s->step_x + s->low_x) * l->x.pixel;
            f.x_step = s->step_x * l->x.pixel;
        }
        mest_lanes_inside(&f.list, &l->p.g, false, row);
        mest_real *to = r->job.y + l->y.origin + t.block * l->y.block + row * l->y.row + t.from * l->y.pixel;
        f.y = s->group > 1 ? t.y : to;
        l->isa->forward(&f, 0, 0, r0, r1);
        for (int64_t k = 0; k < s->group; k++) {
            const int64_t own = t.c0 * l->isa->v, step = s->group * l->y.pixel;
            const mest_real *y = f.y + k * l->y.pixel + own;
            if (s->group > 1)
                copy_row(t.columns, (t.c1 - t.c0) * l->isa->v, y, step, to + k * l->y.block + own, l->y.pixel);
            if (!t.stat)
                continue;
            expect(&t, t.block + k);
            if (unit == first && k == 0)
                first_row(&t, y, step);
            s->rows->moments_row(t.columns, t.c1 - t.c0, y, step, t.shift, t.sums);
            t.summed += t.columns;
        }
    }
    if (!t.stat)
        return;
    fold(&t);
    if (rp == 0)
        t.stat[0] = t.terms;
}

/* Merges the parts in order (Chan, Golub, LeVeque 1979). */
static void merge_moments(const run *r, double *moments)
{
    const state *s = r->s;
    const int64_t channels = s->lanes.p.g.m;
    double n = 0;
    memset(moments, 0, (size_t)(2 * channels) * sizeof *moments);
    for (int32_t p = 0; p < s->lanes.position_parts; p++) {
        const double *stat = r->stats + (size_t)p * s->stats_doubles, m = stat[0], all = n + m;
        if (m <= 0)
            continue;
        for (int64_t c = 0; c < channels; c++) {
            const double d = stat[1 + c] - moments[c];
            moments[c] += d * (m / all);
            moments[channels + c] += stat[1 + channels + c] + d * d * (n * m / all);
        }
        n = all;
    }
}

static const void *in(const mest_args *a, int i) { return i < a->n_in ? a->in[i].data : NULL; }
static void *out(const mest_args *a, int i) { return i < a->n_out ? a->out[i].data : NULL; }

static void begin(run *r, const mest_args *a)
{
    mest_fused_state *s = a->state;
    r->s = s;
    r->job.s = &s->lanes;
    r->job.w = in(a, FUSED_W);
    r->job.x = in(a, FUSED_X);
    r->scratch = a->scratch;
    r->stats = (double *)(void *)(r->scratch + s->stats_at);
    memset(r->stats, 0, (size_t)s->lanes.position_parts * s->stats_doubles * sizeof(double));
    mest_lanes_update(&s->lanes, &r->job, a);
}

mest_status mest_fused_forward(const mest_args *a)
{
    const state *s = a->state;
    run r = {.map = in(a, FUSED_MAP)};
    begin(&r, a);
    r.job.bias = in(a, FUSED_B);
    r.job.y = out(a, 0);
    mest_parallel_worker(a->threads, (size_t)s->parts, forward_part, &r);
    if (s->stats_doubles)
        merge_moments(&r, out(a, 1));
    return MEST_OK;
}

/* ---- gradient ---- */

/* Columns of inputs of one row as the passes see them: those of one parity, of all blocks of the group. */
typedef struct parity {
    int64_t columns, step;  /* of one block; elements from position to position */
    const mest_real *x;
    mest_real *dx;
} parity;

/* X' of a row where it is not read as it lies: made from X by the map, or brought together from the blocks of the group. */
static parity parity_of(const strip *t, int64_t y, int64_t px, bool make)
{
    const run *r = t->r;
    const state *s = t->s;
    const mest_lanes_state *l = &s->lanes;
    const int64_t stride = l->p.g.stride_x, x0 = t->from * stride, n = least(t->columns * stride, l->p.g.w - x0), v = l->isa->v;
    const int64_t apart = s->group > 1 ? px * t->columns * s->group * s->dx_pixel : px * s->dx_pixel, own = t->c0 * v;
    const mest_real *x = r->job.x + l->x.origin + t->block * l->x.block + y * l->x.row + (x0 + px) * l->x.pixel;
    parity p = {.columns = mest_ceil_div(n - px, stride), .step = s->group > 1 ? s->dx_pixel : stride * s->dx_pixel, .x = x, .dx = t->dx + apart};
    if (!r->map && s->group == 1)
        return p; /* dx_pixel is X's own */
    p.x = t->x + apart;
    for (int64_t k = 0; k < s->group && make && p.columns > 0; k++) {
        mest_real *to = t->x + apart + k * s->dx_pixel + own; /* dX may lie over X: other channels are another part's to write */
        const mest_real *from = x + k * l->x.block + own;
        if (r->map)
            s->rows->forward_row(p.columns, t->c1 - t->c0, from, stride * l->x.pixel, r->map + t->c0, l->p.g.c, s->clamp, to, s->group * p.step);
        else
            copy_row(p.columns, (t->c1 - t->c0) * v, from, stride * l->x.pixel, to, s->group * p.step);
    }
    return p;
}

/* dX of a row, from scratch to where it goes, with what is added, the gate and the sums. */
static void finish_row(strip *t, int64_t y, int64_t px, const parity *p)
{
    const run *r = t->r;
    const state *s = t->s;
    const mest_lanes_state *l = &s->lanes;
    const int64_t stride = l->p.g.stride_x, own = t->c0 * l->isa->v, x0 = t->from * stride + px, step = s->group * p->step;
    for (int64_t k = 0; k < s->group; k++) {
        if (t->stat)
            expect(t, t->block + k);
#define ROW(base, geometry) ((base) + (geometry).origin + (t->block + k) * (geometry).block + y * (geometry).row + x0 * (geometry).pixel + own)
        s->rows->result_row(p->columns, t->c1 - t->c0, p->dx + k * s->dx_pixel + own, step, r->add ? ROW(r->add, s->d) : NULL, stride * s->d.pixel,
                            s->gate ? p->x + k * s->dx_pixel + own : NULL, step, s->clamp, t->stat ? ROW(r->u, s->u) : NULL, stride * s->u.pixel,
                            t->stat ? r->mean + t->c0 : NULL, ROW(r->job.dx, l->dx), stride * l->dx.pixel, t->stat ? t->sums : NULL);
#undef ROW
        t->summed += p->columns;
    }
}

/* One row of inputs. */
static void gradient_row(strip *t, int64_t y, const mest_real *taps, int64_t taps_pixel, int32_t r0, int32_t r1, mest_real *dw)
{
    const run *r = t->r;
    const state *s = t->s;
    const mest_lanes_state *l = &s->lanes;
    const mest_conv_geometry *g = &l->p.g;
    const int64_t group_rows = !l->sparse && g->group > 1 ? g->c / g->group : 0, group_shift = group_rows ? g->m / g->group * l->isa->v : 0;
    for (int64_t px = 0; px < g->stride_x; px++) {
        const parity p = parity_of(t, y, px, dw || s->gate);
        if (p.columns <= 0)
            continue;
        mest_lanes_list list = mest_lanes_of(&r->job, (int32_t)(y % g->stride_y * g->stride_x + px));
        mest_lanes_inside(&list, g, true, y);
        if (dw) {
            const mest_lanes_backward b = {.blocks = 1, .rows = 1, .run = p.columns * s->group, .x = p.x, .x_step = p.step, .dx = r->job.dx ? p.dx : NULL,
                                           .dx_step = p.step, .dy = taps, .dy_step = taps_pixel, .group_rows = group_rows, .group_shift = group_shift,
                                           .list = list};
            l->isa->backward(&b, 0, 0, r0, r1, dw);
        } else {
            const mest_lanes_forward f = {.blocks = 1, .rows = 1, .run = p.columns * s->group, .x = taps, .x_step = taps_pixel, .y = p.dx, .y_step = p.step,
                                          .outs = g->c, .group_rows = group_rows, .group_shift = group_shift, .list = list};
            l->isa->forward(&f, 0, 0, r0, r1);
        }
        if (r->job.dx)
            finish_row(t, y, px, &p);
    }
}

static void gradient_part(void *context, size_t worker, size_t part)
{
    const run *r = context;
    const state *s = r->s;
    const mest_lanes_state *l = &s->lanes;
    const mest_conv_geometry *g = &l->p.g;
    const int64_t pp = (int64_t)part / l->row_parts, rp = (int64_t)part % l->row_parts, rows = g->c;
    const int32_t r0 = (int32_t)share(rows, rp, l->row_parts), r1 = (int32_t)share(rows, rp + 1, l->row_parts);
    strip t = open_part(r, worker, pp, r0, r1);
    mest_real *dw = r->job.dw ? r->job.parts + pp * l->entries : NULL;
    for (int64_t unit = share(s->units, pp, l->position_parts), end = share(s->units, pp + 1, l->position_parts); unit < end; unit++) {
        const int64_t row = enter(&t, unit);
        const mest_real *taps;
        if (s->through)
            taps = taps_of(&t, row) - s->low_y * s->ring_row - s->low_x * s->group * s->pixel;
        else
            taps = r->job.dy + l->y.origin + t.block * l->y.block + row * l->y.row + t.from * l->y.pixel;
        for (int64_t y = row * g->stride_y; y < (row + 1) * g->stride_y && y < g->h; y++)
            gradient_row(&t, y, taps, s->pixel, r0, r1, dw);
    }
    if (t.stat)
        fold(&t);
}

mest_status mest_fused_gradient(const mest_args *a)
{
    const state *s = a->state;
    run r = {.map = in(a, FUSED_MAP), .add = in(a, FUSED_D), .v = in(a, FUSED_V), .dmap = in(a, FUSED_DMAP), .u = in(a, FUSED_U), .mean = in(a, FUSED_MEAN)};
    begin(&r, a);
    job *j = &r.job;
    j->dy = in(a, FUSED_DY);
    j->dx = out(a, 0);
    j->dw = out(a, 1);
    j->db = out(a, 2);
    if (j->dw)
        mest_lanes_clear_parts(j, a->scratch);
    if (j->dw || j->dx)
        mest_parallel_worker(a->threads, (size_t)s->parts, gradient_part, &r);
    if (j->dw)
        mest_lanes_collect(j, a);
    if (s->stats_doubles) {
        double *sums = out(a, 3);
        const size_t n = s->stats_doubles - 1;
        memset(sums, 0, n * sizeof *sums);
        for (int32_t p = 0; p < s->lanes.position_parts; p++)
            for (size_t i = 0; i < n; i++)
                sums[i] += r.stats[(size_t)p * s->stats_doubles + 1 + i];
    }
    if (j->db)
        mest_lanes_bias(j, a);
    return MEST_OK;
}
