/* SPDX-License-Identifier: Apache-2.0 */
/* Runs an operator on the batch-lane passes: positions and list rows of each part of the work, lists brought up to date, sums of dW. */
#include "sparse/kernels/lanes_state.h"

typedef mest_lanes_problem problem;
typedef mest_lanes_state state;

enum { WEIGHT_POSITIONS = 48 };
enum { PACK_ROWS = 16 }; /* parts that packing and collecting are cut into */

typedef mest_lanes_job job;

static int64_t share(int64_t n, int64_t part, int64_t parts) { return n * part / parts; }

mest_lanes_list mest_lanes_of(const job *j, int32_t phase)
{
    const state *s = j->s;
    if (s->sparse)
        return mest_lanes_view(j->list, &s->key, j->w, phase, NULL, NULL);
    return mest_lanes_dense_view(s->offsets, &s->key, s->pack, phase);
}

static void pack_part(void *context, size_t part)
{
    const job *j = context;
    const mest_lanes_list l = mest_lanes_of(j, 0);
    mest_lanes_dense_pack(&j->s->key, j->s->offsets, j->w, j->s->pack, (int32_t)share(l.n_rows, (int64_t)part, PACK_ROWS),
                          (int32_t)share(l.n_rows, (int64_t)part + 1, PACK_ROWS));
}

/* The activation over what a row of positions has got, while it is near: outputs of list rows [r0, r1). */
static void activate(const state *s, const mest_lanes_forward *f, const mest_act *act, int64_t block, int64_t row, int32_t r0, int32_t r1)
{
    const int64_t height = f->list.height, m0 = r0 * height, m1 = r1 * height < f->outs ? r1 * height : f->outs;
    mest_real *y = f->y + block * f->y_block + row * f->y_row + m0 * s->isa->v;
    for (int64_t i = 0; i < f->run && m1 > m0; i++)
        s->act(act, y + i * f->y_step, y + i * f->y_step, (m1 - m0) * s->isa->v);
}

/* Runs position part and row part `part` of a forward-like job. Its row of positions i is row first + i * step of Y, of X if `back`. */
static void forward_part(const state *s, const mest_lanes_forward *f, const mest_act *act, bool back, int64_t first, int64_t step, int64_t part,
                         int32_t position_parts, int32_t row_parts)
{
    const int64_t pp = part / row_parts, rp = part % row_parts, units = f->blocks * f->rows;
    const int32_t r0 = (int32_t)share(f->list.n_rows, rp, row_parts), r1 = (int32_t)share(f->list.n_rows, rp + 1, row_parts);
    mest_lanes_forward own = *f;
    for (int64_t u = share(units, pp, position_parts); u < share(units, pp + 1, position_parts); u++) {
        mest_lanes_inside(&own.list, &s->p.g, back, first + u % f->rows * step);
        s->isa->forward(&own, u / f->rows, u % f->rows, r0, r1);
        if (act)
            activate(s, f, act, u / f->rows, u % f->rows, r0, r1);
    }
}

static void y_part(void *context, size_t part)
{
    const job *j = context;
    const state *s = j->s;
    const mest_conv_geometry *g = &s->p.g;
    mest_lanes_forward f = {
        .blocks = s->x.blocks, .rows = s->y.h, .run = s->y.w,
        .x = j->x + s->x.origin - g->top * s->x.row - g->left * s->x.pixel,
        .x_block = s->x.block, .x_row = g->stride_y * s->x.row, .x_step = g->stride_x * s->x.pixel,
        .y = j->y + s->y.origin, .y_block = s->y.block, .y_row = s->y.row, .y_step = s->y.pixel,
        .bias = j->bias, .ends = s->p.affine, .factor = j->factor, .clamp = j->clamp, .outs = g->m, .list = mest_lanes_of(j, 0),
    };
    if (!s->sparse && g->group > 1) {
        f.group_rows = g->m / g->group;
        f.group_shift = g->c / g->group * s->isa->v;
    }
    if (s->fold) {
        f.run = f.blocks;
        f.blocks = 1;
        f.x_step = s->x.block;
        f.y_step = s->y.block;
    }
    forward_part(s, &f, j->act, false, 0, 1, (int64_t)part, s->position_parts, s->row_parts);
}

/* dX alone: the forward pass over the transposed list, phase by phase. */
static void dx_part(void *context, size_t part)
{
    const job *j = context;
    const state *s = j->s;
    const mest_conv_geometry *g = &s->p.g;
    for (int32_t phase = 0; phase < mest_lanes_phases(&s->key); phase++) {
        const int64_t py = phase / g->stride_x, px = phase % g->stride_x;
        mest_lanes_forward f = {
            .blocks = s->x.blocks, .rows = mest_ceil_div(g->h - py, g->stride_y), .run = mest_ceil_div(g->w - px, g->stride_x),
            .x = j->dy + s->y.origin, .x_block = s->y.block, .x_row = s->y.row, .x_step = s->y.pixel,
            .y = j->dx + s->dx.origin + py * s->dx.row + px * s->dx.pixel,
            .y_block = s->dx.block, .y_row = g->stride_y * s->dx.row, .y_step = g->stride_x * s->dx.pixel,
            .outs = g->c, .list = mest_lanes_of(j, phase),
        };
        if (!s->sparse && g->group > 1) {
            f.group_rows = g->c / g->group;
            f.group_shift = g->m / g->group * s->isa->v;
        }
        if (s->fold && f.rows == 1 && f.run == 1) {
            f.run = f.blocks;
            f.blocks = 1;
            f.x_step = s->y.block;
            f.y_step = s->dx.block;
        }
        if (f.rows > 0 && f.run > 0)
            forward_part(s, &f, NULL, true, py, g->stride_y, (int64_t)part, s->dx_position_parts, s->dx_row_parts);
    }
}

/* dW, and dX with it where wanted. */
static void fused_part(void *context, size_t part)
{
    const job *j = context;
    const state *s = j->s;
    const mest_conv_geometry *g = &s->p.g;
    const int64_t pp = (int64_t)part / s->row_parts, rp = (int64_t)part % s->row_parts;
    mest_real *dw = j->parts + pp * s->entries;
    for (int32_t phase = 0; phase < mest_lanes_phases(&s->key); phase++) {
        const int64_t py = phase / g->stride_x, px = phase % g->stride_x;
        mest_lanes_backward b = {
            .blocks = s->x.blocks, .rows = mest_ceil_div(g->h - py, g->stride_y), .run = mest_ceil_div(g->w - px, g->stride_x),
            .x = j->x + s->x.origin + py * s->x.row + px * s->x.pixel,
            .x_block = s->x.block, .x_row = g->stride_y * s->x.row, .x_step = g->stride_x * s->x.pixel,
            .dy = j->dy + s->y.origin, .dy_block = s->y.block, .dy_row = s->y.row, .dy_step = s->y.pixel,
            .list = mest_lanes_of(j, phase),
        };
        if (j->dx) {
            b.dx = j->dx + s->dx.origin + py * s->dx.row + px * s->dx.pixel;
            b.dx_block = s->dx.block;
            b.dx_row = g->stride_y * s->dx.row;
            b.dx_step = g->stride_x * s->dx.pixel;
        }
        if (!s->sparse && g->group > 1) {
            b.group_rows = g->c / g->group;
            b.group_shift = g->m / g->group * s->isa->v;
        }
        if (b.rows <= 0 || b.run <= 0)
            continue;
        if (s->fold) {
            b.run = b.blocks;
            b.blocks = 1;
            b.x_step = s->x.block;
            b.dy_step = s->y.block;
            b.dx_step = s->dx.block;
        }
        const int32_t r0 = (int32_t)share(b.list.n_rows, rp, s->row_parts), r1 = (int32_t)share(b.list.n_rows, rp + 1, s->row_parts);
        const int64_t units = b.blocks * b.rows;
        for (int64_t u = share(units, pp, s->position_parts); u < share(units, pp + 1, s->position_parts); u++) {
            mest_lanes_inside(&b.list, g, true, py + u % b.rows * g->stride_y);
            s->isa->backward(&b, u / b.rows, u % b.rows, r0, r1, dw);
        }
    }
}

/* dW of a dense weight: parts are [m][tap][c]. Sums stay in registers over so many positions that adding up their lanes is little beside them. */
static void weight_part(void *context, size_t part)
{
    const job *j = context;
    const state *s = j->s;
    const mest_conv_geometry *g = &s->p.g;
    const int64_t pp = (int64_t)part / s->row_parts, rp = (int64_t)part % s->row_parts, quads = mest_ceil_div(s->weight_m, 4);
    mest_lanes_weight w = {
        .blocks = s->y.blocks, .rows = s->y.h, .run = s->y.w,
        .x = j->x + s->x.origin - g->top * s->x.row - g->left * s->x.pixel,
        .x_block = s->x.block, .x_row = g->stride_y * s->x.row, .x_step = g->stride_x * s->x.pixel,
        .dy = j->dy + s->y.origin, .dy_block = s->y.block, .dy_row = s->y.row, .dy_step = s->y.pixel,
        .c = g->c, .m = g->m, .taps = s->n_taps, .tap_off = s->tap_off,
    };
    if (s->fold) {
        w.run = w.blocks;
        w.blocks = 1;
        w.x_step = s->x.block;
        w.dy_step = s->y.block;
    }
    if (s->p.inputs_first) {
        w.x = j->dy + s->y.origin;
        w.dy = j->x + s->x.origin;
        w.c = g->m;
        w.m = g->c;
        w.x_step = s->y.block;
        w.dy_step = s->x.block;
    }
    const int64_t units = w.blocks * w.rows, m0 = 4 * share(quads, rp, s->row_parts), m1 = 4 * share(quads, rp + 1, s->row_parts);
    const int64_t end = share(units, pp + 1, s->position_parts), step = mest_ceil_div(WEIGHT_POSITIONS, w.run > 0 ? w.run : 1);
    const mest_lanes_weight all = w;
    for (int64_t at = 0; at < all.run; at += w.run) { /* long rows (images of one position: all of them are one) are cut, too */
        w.run = all.run - at < 2 * WEIGHT_POSITIONS ? all.run - at : WEIGHT_POSITIONS;
        w.x = all.x + at * w.x_step;
        w.dy = all.dy + at * w.dy_step;
        for (int64_t u = share(units, pp, s->position_parts); u < end; u += step)
            s->isa->weight(&w, u, u + step < end ? u + step : end, m0, m1 < w.m ? m1 : w.m, j->parts + pp * s->entries);
    }
}

static void weight_collect_part(void *context, size_t part)
{
    const job *j = context;
    const state *s = j->s;
    const int64_t m = s->weight_m, c = s->entries / (m * s->n_taps), taps = s->n_taps;
    for (int64_t k = share(m, (int64_t)part, PACK_ROWS); k < share(m, (int64_t)part + 1, PACK_ROWS); k++)
        for (int64_t i = 0; i < c; i++)
            for (int64_t t = 0; t < taps; t++) {
                const mest_real *from = j->parts + (k * taps + t) * c + i;
                mest_real sum = from[0];
                for (int32_t n = 1; n < s->position_parts; n++)
                    sum += from[n * s->entries];
                j->dw[(k * c + i) * taps + t] = sum;
            }
}

/* Sums the parts of dW in order and returns them to storage order. */
static void collect_part(void *context, size_t part)
{
    const job *j = context;
    const state *s = j->s;
    if (!s->sparse) {
        const mest_lanes_list l = mest_lanes_of(j, 0);
        mest_lanes_dense_unpack(&s->key, s->offsets, j->parts, s->position_parts, s->entries, j->dw,
                                (int32_t)share(l.n_rows, (int64_t)part, PACK_ROWS), (int32_t)share(l.n_rows, (int64_t)part + 1, PACK_ROWS));
        return;
    }
    const int64_t to = share(j->n_entries, (int64_t)part + 1, PACK_ROWS);
    for (int64_t e = share(j->n_entries, (int64_t)part, PACK_ROWS); e < to; e++) {
        mest_real sum = j->parts[e];
        for (int32_t i = 1; i < s->position_parts; i++)
            sum += j->parts[i * s->entries + e];
        j->dw[j->perm[e]] = sum;
    }
}

static void bias_part(void *context, size_t part)
{
    const job *j = context;
    const int64_t c0 = (int64_t)part * 16, c1 = c0 + 16 < j->s->p.g.m ? c0 + 16 : j->s->p.g.m;
    j->s->isa->channel_sums(&j->s->y, j->dy, c0, c1, j->db);
}

void mest_lanes_update(state *s, job *j, const mest_args *a)
{
    if (s->sparse) {
        j->list = mest_derived_use(s->list);
        mest_lanes_view(j->list, &s->key, j->w, 0, &j->perm, &j->n_entries);
        return;
    }
    const uint32_t *version = a->in[1].value_version;
    if (s->pack_in_scratch)
        s->pack = (mest_real *)(void *)((char *)a->scratch + s->parts_bytes);
    if (!s->packed || s->pack_in_scratch || (version ? *version != s->packed_version : !s->fixed))
        mest_parallel(a->threads, PACK_ROWS, pack_part, j);
    s->packed = true;
    s->packed_version = version ? *version : 0;
}

void mest_lanes_clear_parts(job *j, void *scratch)
{
    const state *s = j->s;
    const int64_t used = s->sparse ? j->n_entries : s->entries;
    j->parts = scratch;
    for (int32_t i = 0; i < s->position_parts; i++)
        memset(j->parts + i * s->entries, 0, (size_t)used * sizeof *j->parts);
}

void mest_lanes_collect(job *j, const mest_args *a)
{
    const state *s = j->s;
    if (s->sparse && j->n_entries < a->in[1].sparse->stored)
        memset(j->dw, 0, (size_t)a->in[1].sparse->stored * sizeof *j->dw); /* padding entries */
    mest_parallel(a->threads, PACK_ROWS, s->dense_dw ? weight_collect_part : collect_part, j);
}

void mest_lanes_bias(job *j, const mest_args *a)
{
    mest_parallel(a->threads, (size_t)mest_ceil_div(j->s->p.g.m, 16), bias_part, j);
}

mest_status mest_lanes_run(const mest_args *a)
{
    state *s = a->state;
    const problem *p = &s->p;
    const size_t parts = (size_t)s->position_parts * (size_t)s->row_parts;
    job j = {.s = s, .w = a->in[1].data, .x = a->in[0].data};
    if (p->gradient) {
        j.dy = a->in[p->dy].data;
        j.dx = a->out[0].data;
        j.dw = a->n_out > 1 ? a->out[1].data : NULL;
        j.db = p->bias >= 0 && a->n_out > p->bias ? a->out[p->bias].data : NULL;
    } else {
        j.y = a->out[0].data;
        j.bias = p->bias >= 0 && a->n_in > p->bias ? a->in[p->bias].data : NULL;
        if (p->affine) {
            j.factor = a->n_in > 3 ? a->in[3].data : NULL;
            const mest_conv_affine_params *params = a->params;
            j.clamp = params->clamp;
            j.act = params->act.kind ? &params->act : NULL;
        }
    }
    if (s->sparse ? j.y || j.dx || j.dw : j.y || j.dx || (j.dw && !s->dense_dw))
        mest_lanes_update(s, &j, a);
    if (j.y)
        mest_parallel(a->threads, parts, y_part, &j);
    if (j.dw) {
        mest_lanes_clear_parts(&j, a->scratch);
        mest_parallel(a->threads, parts, s->dense_dw ? weight_part : fused_part, &j);
        mest_lanes_collect(&j, a);
    }
    if (j.dx && (s->dense_dw || !j.dw))
        mest_parallel(a->threads, (size_t)s->dx_position_parts * (size_t)s->dx_row_parts, dx_part, &j);
    if (j.db)
        mest_lanes_bias(&j, a);
    return MEST_OK;
}
