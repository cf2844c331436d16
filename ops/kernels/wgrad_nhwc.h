/* SPDX-License-Identifier: Apache-2.0 */
/* Weight gradient of a convolution in NHWC without packing or transposes (included by conv_nhwc.c only).
 *
 * For a tap (r, s), a block of BR channels of one operand and one or two vectors of channels of the other, the sums stay in registers
 * while the pixels go by: two vector loads, BR broadcasts, 2 BR multiply-adds a pixel. The vectors run over whichever of input and output channels
 * fills them better (the "wide" side, letter V; the broadcast side is B). Pixel rows are cut into pieces that fit the second-level
 * cache. Sums go to partial arrays [chunk][group][tap][B][V], which are added in order: the number of chunks depends on the shape only.
 */
#ifndef MEST_OPS_KERNELS_WGRAD_NHWC_H
#define MEST_OPS_KERNELS_WGRAD_NHWC_H

#include "ops/kernels/nhwc.h"
#include "ops/kernels/pixel.h"
#include "ops/kernels/vector.h"

typedef struct wgrad {
    const mest_nhwc_job *job;
    mest_conv_geometry k;
    bool wide_m;              /* vectors run over output channels */
    int64_t nb, nv;           /* channels of a group on the broadcast and on the wide side */
    int64_t chunks, parts;    /* row ranges with sums of their own; ranges of the broadcast side */
    int64_t rows, chunk_rows, piece_rows;
    int64_t weights;          /* reals in one partial array */
    mest_real *partial;
    double *bias;             /* [chunks][M] */
    const mest_real *b, *v;   /* operands: broadcast and wide side */
    const mest_pixels *gb, *gv;
    const mest_real *v_end;   /* past the last element that may be read */
} wgrad;

/* One tap, for pixel rows [from, to) (numbered n * P + p). */
typedef struct wgrad_walk {
    const wgrad *w;
    int64_t from, to, r, s, q0, q1;
    int64_t b0, v0, width;    /* first channels; channels wanted of the last vector */
    mest_real *sum;           /* of (b0, v0); rows nv apart */
} wgrad_walk;

VEC_INLINE void walk(const wgrad_walk *t, const int br, const int vectors)
{
    const wgrad *w = t->w;
    const mest_conv_geometry *k = &w->k;
    const int64_t step_x = k->stride_x * w->job->gx.pixel, step_y = w->job->gdy.pixel;
    const int64_t b_step = w->wide_m ? step_x : step_y, v_step = w->wide_m ? step_y : step_x;
    const int64_t x0 = t->q0 * k->stride_x - k->left + t->s * k->dilation_x;
    vec acc[12][2];
    for (int i = 0; i < br; i++)
        for (int j = 0; j < vectors; j++)
            acc[i][j] = (vec){0};
    for (int64_t row = t->from, n = t->from / k->p, p = t->from % k->p; row < t->to; row++) {
        const int64_t y = p * k->stride_y - k->top + t->r * k->dilation_y;
        if (y >= 0 && y < k->h) {
            const int64_t at_x = w->job->gx.origin + n * w->job->gx.block + y * w->job->gx.row + x0 * w->job->gx.pixel;
            const int64_t at_y = w->job->gdy.origin + n * w->job->gdy.block + p * w->job->gdy.row + t->q0 * w->job->gdy.pixel;
            const mest_real *b = w->b + (w->wide_m ? at_x : at_y) + t->b0, *v = w->v + (w->wide_m ? at_y : at_x) + t->v0;
            int64_t pixels = t->q1 - t->q0, safe = pixels;
            if (vectors == 1 && v + (pixels - 1) * v_step + VL > w->v_end)
                safe = w->v_end - v < VL ? 0 : (w->v_end - v - VL) / v_step + 1;
            for (int64_t i = 0; i < safe; i++, b += b_step, v += v_step) {
                const vec v0 = VEC_LOAD(v), v1 = vectors > 1 ? VEC_LOAD(v + VL) : v0;
                for (int o = 0; o < br; o++) {
                    const vec s = VEC_SPLAT(b[o]);
                    acc[o][0] += s * v0;
                    if (vectors > 1)
                        acc[o][1] += s * v1;
                }
            }
            if (vectors == 1) /* the last pixels of the tensor: a full vector would read past its end */
                for (int64_t i = safe; i < pixels; i++, b += b_step, v += v_step) {
                    mest_real last[VL] = {0};
                    memcpy(last, v, (size_t)t->width * sizeof *last);
                    const vec v0 = VEC_LOAD(last);
                    for (int o = 0; o < br; o++)
                        acc[o][0] += VEC_SPLAT(b[o]) * v0;
                }
        }
        if (++p == k->p) {
            p = 0;
            n++;
        }
    }
    for (int o = 0; o < br; o++) {
        mest_real *sum = t->sum + o * w->nv;
        if (vectors > 1 || t->width == VL) {
            for (int j = 0; j < vectors; j++)
                VEC_STORE(sum + j * VL, VEC_LOAD(sum + j * VL) + acc[o][j]);
        } else {
            mest_real part[VL];
            VEC_STORE(part, acc[o][0]);
            for (int64_t j = 0; j < t->width; j++)
                sum[j] += part[j];
        }
    }
}

#define WALK(br, vectors) \
    static void walk_##br##_##vectors(const wgrad_walk *t) { walk(t, br, vectors); }
WALK(1, 1) WALK(1, 2) WALK(2, 1) WALK(2, 2) WALK(4, 1) WALK(4, 2)
#if VEC_REGISTERS == 32
WALK(8, 1) WALK(8, 2) WALK(12, 1) WALK(12, 2)
static void (*const walks[][2])(const wgrad_walk *) = {
    {walk_12_1, walk_12_2}, {walk_8_1, walk_8_2}, {walk_4_1, walk_4_2}, {walk_2_1, walk_2_2}, {walk_1_1, walk_1_2}};
static const int walk_rows[] = {12, 8, 4, 2, 1};
#else
WALK(6, 1) WALK(6, 2)
static void (*const walks[][2])(const wgrad_walk *) = {{walk_6_1, walk_6_2}, {walk_4_1, walk_4_2}, {walk_2_1, walk_2_2}, {walk_1_1, walk_1_2}};
static const int walk_rows[] = {6, 4, 2, 1};
#endif
#undef WALK

/* Block heights for `left` remaining broadcast channels: the largest that fits, but 8 + 8 rather than 12 + 4. */
static int walk_choice(int64_t left)
{
    int i = 0;
    while (walk_rows[i] > left)
        i++;
#if VEC_REGISTERS == 32
    if (i == 0 && left % 12 == 4)
        i = 1;
#endif
    return i;
}

/* All taps and channels of one piece of rows. */
static void wgrad_piece(const wgrad *w, int64_t from, int64_t to, int64_t b_from, int64_t b_to, mest_real *partial)
{
    const mest_conv_geometry *k = &w->k;
    wgrad_walk t = {.w = w, .from = from, .to = to};
    for (int64_t group = 0; group < k->group; group++)
        for (t.r = 0; t.r < k->r; t.r++)
            for (t.s = 0; t.s < k->s; t.s++) {
                /* output pixels whose input pixel exists: 0 <= q stride - left + s dilation < W */
                const int64_t shift = k->left - t.s * k->dilation_x;
                t.q0 = shift > 0 ? px_ceil(shift, k->stride_x) : 0;
                t.q1 = k->w + shift <= 0 ? 0 : px_min(k->q, (k->w - 1 + shift) / k->stride_x + 1);
                if (t.q0 >= t.q1)
                    continue;
                mest_real *sums = partial + (group * k->r * k->s + t.r * k->s + t.s) * w->nb * w->nv;
                for (int64_t v = 0; v < w->nv;) {
                    const int vectors = w->nv - v >= 2 * VL ? 2 : 1;
                    t.v0 = group * w->nv + v;
                    t.width = vectors == 2 ? VL : px_min(VL, w->nv - v);
                    for (int64_t b = b_from; b < b_to;) {
                        const int choice = walk_choice(b_to - b);
                        t.b0 = group * w->nb + b;
                        t.sum = sums + b * w->nv + v;
                        walks[choice][vectors - 1](&t);
                        b += walk_rows[choice];
                    }
                    v += vectors * VL;
                }
            }
}

/* dB of rows [from, to): a row in mest_real, rows in double. */
static void wgrad_bias(const wgrad *w, int64_t from, int64_t to, double *bias)
{
    const mest_pixels *g = &w->job->gdy;
    for (int64_t row = from; row < to; row++) {
        const mest_real *dy = px_row(g, w->job->dy, row);
        for (int64_t c0 = 0; c0 < g->c; c0 += 64) {
            const int64_t n = px_min(64, g->c - c0);
            mest_real sum[64] = {0};
            for (int64_t q = 0; q < g->w; q++)
                for (int64_t c = 0; c < n; c++)
                    sum[c] += dy[q * g->pixel + c0 + c];
            for (int64_t c = 0; c < n; c++)
                bias[c0 + c] += (double)sum[c];
        }
    }
}

static void wgrad_tile(void *context, size_t tile)
{
    const wgrad *w = context;
    const int64_t chunk = (int64_t)tile / w->parts, part = (int64_t)tile % w->parts, end = px_min((chunk + 1) * w->chunk_rows, w->rows);
    const int64_t b_from = w->nb * part / w->parts, b_to = w->nb * (part + 1) / w->parts;
    mest_real *partial = w->partial + chunk * w->weights;
    if (w->job->dw)
        for (int64_t i = 0, n = w->k.group * w->k.r * w->k.s; i < n; i++)
            memset(partial + (i * w->nb + b_from) * w->nv, 0, (size_t)((b_to - b_from) * w->nv) * sizeof *partial);
    for (int64_t from = chunk * w->chunk_rows; from < end; from += w->piece_rows) {
        const int64_t to = px_min(from + w->piece_rows, end);
        if (w->job->dw)
            wgrad_piece(w, from, to, b_from, b_to, partial);
        if (w->job->db && part == 0)
            wgrad_bias(w, from, to, w->bias + chunk * w->k.m);
    }
}

/* Adds the partial sums of one output channel and puts them into OIHW order. */
static void wgrad_collect(void *context, size_t tile)
{
    const wgrad *w = context;
    const int64_t m = (int64_t)tile, taps = w->k.r * w->k.s, of_m = w->k.m / w->k.group, of_c = w->k.c / w->k.group;
    const int64_t group = m / of_m, o = m % of_m, step = w->wide_m ? w->nv : 1;
    const mest_real *partial = w->partial + group * taps * w->nb * w->nv + (w->wide_m ? o : o * w->nv);
    mest_real *dw = w->job->dw + m * of_c * taps;
    for (int64_t c = 0; c < of_c; c++)
        for (int64_t t = 0; t < taps; t++) {
            mest_real s = 0;
            for (int64_t chunk = 0; chunk < w->chunks; chunk++)
                s += partial[chunk * w->weights + t * w->nb * w->nv + c * step];
            dw[c * taps + t] = s;
        }
}

/* The cut of the work: depends on the shape only. */
static void wgrad_plan(const mest_conv_geometry *k, wgrad *w)
{
    const int64_t m = k->m / k->group, c = k->c / k->group;
    /* waste of a side: the share of idle lanes in its vectors */
    const int64_t m_slots = px_ceil(m, VL) * VL, c_slots = px_ceil(c, VL) * VL;
    *w = (wgrad){.k = *k, .wide_m = m_slots * c < c_slots * m};
    w->nb = w->wide_m ? c : m;
    w->nv = w->wide_m ? m : c;
    w->weights = k->group * k->r * k->s * m * c;
    w->rows = k->n * k->p;
    w->chunks = px_max(1, px_min(w->rows, w->weights <= 32768 ? 8 : w->weights <= 262144 ? 2 : 1));
    w->parts = px_max(1, px_min(8 / w->chunks, w->nb / walk_rows[0]));
    w->chunk_rows = px_max(1, px_ceil(w->rows, w->chunks));
    w->chunks = px_ceil(w->rows, w->chunk_rows);
    const int64_t row_bytes = (k->q * k->m + k->stride_y * k->w * k->c) * (int64_t)sizeof(mest_real);
    w->piece_rows = px_max(1, 192 * 1024 / row_bytes);
}

static size_t weight_scratch(const mest_conv_geometry *k)
{
    wgrad w;
    wgrad_plan(k, &w);
    return (size_t)(w.chunks * k->m) * sizeof(double) + 64 + (size_t)(w.chunks * w.weights) * sizeof(mest_real);
}

static void weight_grad(const mest_nhwc_job *job)
{
    wgrad w;
    wgrad_plan(&job->k, &w);
    w.job = job;
    w.bias = job->scratch;
    w.partial = (mest_real *)(((uintptr_t)(w.bias + w.chunks * w.k.m) + 63) / 64 * 64);
    w.b = w.wide_m ? job->x : job->dy;
    w.v = w.wide_m ? job->dy : job->x;
    const mest_pixels *gv = w.wide_m ? &job->gdy : &job->gx;
    w.v_end = w.v + gv->storage;
    memset(w.bias, 0, (size_t)(w.chunks * w.k.m) * sizeof *w.bias);
    mest_parallel(job->threads, (size_t)(w.chunks * w.parts), wgrad_tile, &w);
    if (job->dw)
        mest_parallel(job->threads, (size_t)w.k.m, wgrad_collect, &w);
    if (job->db)
        for (int64_t m = 0; m < w.k.m; m++) {
            double s = 0;
            for (int64_t chunk = 0; chunk < w.chunks; chunk++)
                s += w.bias[chunk * w.k.m + m];
            job->db[m] = (mest_real)s;
        }
}

#endif
