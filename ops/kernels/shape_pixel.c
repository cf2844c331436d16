/* SPDX-License-Identifier: Apache-2.0 */
/* Operators in PIXEL layout that move elements or combine them across shapes:
 *   Flatten, Reshape, Squeeze, Unsqueeze, mest.Reshape   batch axis kept: [N, C, H, W] <-> [N, CHW], lanes travel together
 *   Concat                                               along channels
 *   mest.DropoutTrain, mest.DropoutGrad                  the decision of the logical element, as in the plain reference
 *   Mul, Add, Sub                                        a full value with one number per image and channel, per channel, or alone
 *
 * Letters: N batch, C channels, H W image, v lanes. */
#include "ops/dropout_keep.h"
#include "ops/kernels/pixel.h"

/* ---- reshape ---- */

typedef struct cursor { /* walks the elements of an image in C order */
    const mest_pixels *g;
    int64_t c, y, x;
} cursor;

static inline cursor cursor_at(const mest_pixels *g, int64_t element)
{
    return (cursor){g, element / (g->h * g->w), element / g->w % g->h, element % g->w};
}
static inline int64_t cursor_next(cursor *k)
{
    const int64_t at = k->y * k->g->row + k->x * k->g->pixel + k->c * k->g->v;
    if (++k->x == k->g->w) {
        k->x = 0;
        if (++k->y == k->g->h) {
            k->y = 0;
            k->c++;
        }
    }
    return at;
}

typedef struct reshape_run {
    mest_pixels from, to;
    const mest_real *x;
    mest_real *y;
    int64_t elements, chunks;
} reshape_run;

enum { RESHAPE_CHUNK = 1024 };

static void reshape_tile(void *context, size_t tile)
{
    const reshape_run *r = context;
    const int64_t block = (int64_t)tile / r->chunks, first = (int64_t)tile % r->chunks * RESHAPE_CHUNK;
    const int64_t last = px_min(first + RESHAPE_CHUNK, r->elements), v = r->from.v;
    const mest_real *x = r->x + r->from.origin + block * r->from.block;
    mest_real *y = r->y + r->to.origin + block * r->to.block;
    cursor a = cursor_at(&r->from, first), b = cursor_at(&r->to, first);
    for (int64_t i = first; i < last; i++) {
        const mest_real *from = x + cursor_next(&a);
        mest_real *to = y + cursor_next(&b);
        if (v == 16)
            memcpy(to, from, 16 * sizeof *to);
        else if (v == 1)
            *to = *from;
        else
            memcpy(to, from, (size_t)v * sizeof *to);
    }
}

static bool reshape_fits(const mest_kernel_query *q, const char **why)
{
    (void)why;
    return q->out[0] && px_same_lanes(q->in[0], q->out[0]);
}

static mest_status reshape_forward(const mest_args *a)
{
    reshape_run r = {.from = mest_pixel_geometry(a->in[0].type), .to = mest_pixel_geometry(a->out[0].type), .x = a->in[0].data,
                     .y = a->out[0].data};
    r.elements = r.from.c * r.from.h * r.from.w;
    r.chunks = px_ceil(r.elements, RESHAPE_CHUNK);
    mest_parallel(a->threads, (size_t)(r.from.blocks * r.chunks), reshape_tile, &r);
    return MEST_OK;
}

/* ---- Concat along channels ---- */

typedef struct concat_run {
    const mest_args *a;
    mest_pixels to;
} concat_run;

/* The axis is read off the shapes: channels add up, everything else agrees. */
static bool concat_fits(const mest_kernel_query *q, const char **why)
{
    (void)why;
    int64_t channels = 0;
    if (q->n_in < 2 || !px_pixel(q->out[0]))
        return false;
    for (int i = 0; i < q->n_in; i++) {
        if (!px_same_lanes(q->in[i], q->out[0]) || q->in[i]->shape.rank != q->out[0]->shape.rank)
            return false;
        for (int d = 2; d < q->out[0]->shape.rank; d++)
            if (q->in[i]->shape.dim[d] != q->out[0]->shape.dim[d])
                return false;
        channels += q->in[i]->shape.dim[1];
    }
    return channels == q->out[0]->shape.dim[1];
}

static void concat_row(void *context, size_t tile)
{
    const concat_run *r = context;
    mest_real *y = px_row(&r->to, r->a->out[0].data, (int64_t)tile);
    int64_t at = 0;
    for (int i = 0; i < r->a->n_in; i++) {
        const mest_pixels g = mest_pixel_geometry(r->a->in[i].type);
        const mest_real *x = px_row(&g, r->a->in[i].data, (int64_t)tile);
        for (int64_t p = 0; p < g.w; p++)
            memcpy(y + p * r->to.pixel + at, x + p * g.pixel, (size_t)(g.c * g.v) * sizeof *y);
        at += g.c * g.v;
    }
}

static mest_status concat_forward(const mest_args *a)
{
    const concat_run r = {a, mest_pixel_geometry(a->out[0].type)};
    mest_parallel(a->threads, (size_t)(r.to.blocks * r.to.h), concat_row, (void *)&r);
    return MEST_OK;
}

/* ---- dropout ---- */

typedef struct drop_run {
    mest_dropout_keep keep;
    mest_pixels gx, gy;
    const mest_real *x;
    mest_real *y;
} drop_run;

static void drop_row(void *context, size_t tile)
{
    const drop_run *r = context;
    const mest_pixels *g = &r->gx;
    const int64_t block = (int64_t)tile / g->h, row = (int64_t)tile % g->h, image = g->c * g->h * g->w;
    const mest_real *x = px_row(g, r->x, (int64_t)tile);
    mest_real *y = px_row(&r->gy, r->y, (int64_t)tile);
    const mest_real scale = (mest_real)r->keep.scale;
    for (int64_t i = 0; i < g->w; i++)
        for (int64_t c = 0; c < g->c; c++)
            for (int64_t l = 0; l < g->v; l++) {
                const int64_t element = (block * g->v + l) * image + (c * g->h + row) * g->w + i, at = c * g->v + l;
                const mest_real kept = mest_dropout_kept(&r->keep, (uint64_t)element) ? x[i * g->pixel + at] * scale : 0;
                y[i * r->gy.pixel + at] = kept;
            }
}

static bool drop_fits(const mest_kernel_query *q, const char **why)
{
    (void)why;
    return q->out[0] && px_same_rows(q->in[0], q->out[0]);
}

static double drop_cost(const mest_kernel_query *q) { return px_cost(q, 4); }

static mest_status drop_forward(const mest_args *a)
{
    drop_run r = {mest_dropout_keep_of(a->params, a->run, &a->in[0].type->shape), mest_pixel_geometry(a->in[0].type), mest_pixel_geometry(a->out[0].type),
                  a->in[0].data, a->out[0].data};
    mest_parallel(a->threads, (size_t)(r.gx.blocks * r.gx.h), drop_row, &r);
    return MEST_OK;
}

/* ---- Mul, Add, Sub with a broadcast operand ---- */

typedef enum other { OTHER_NONE, OTHER_IMAGE /* [N,C,1,1], PIXEL */, OTHER_CHANNEL /* plain, C numbers */, OTHER_ONE } other;

static other other_of(const mest_type *full, const mest_type *t)
{
    int64_t n;
    if (!px_pixel(full) || !t || t->dtype != MEST_F32 || !mest_shape_count(&t->shape, &n))
        return OTHER_NONE;
    const mest_shape *s = &t->shape;
    if (px_pixel(t))
        return px_same_lanes(full, t) && s->rank == full->shape.rank && s->dim[1] == full->shape.dim[1] && mest_shape_span(s, 2, s->rank) == 1
                   ? OTHER_IMAGE : OTHER_NONE;
    if (!px_plain(t) || s->rank > full->shape.rank)
        return OTHER_NONE;
    if (n == 1)
        return OTHER_ONE;
    const int channel = 1 - (full->shape.rank - s->rank);
    return channel >= 0 && s->dim[channel] == n && n == full->shape.dim[1] ? OTHER_CHANNEL : OTHER_NONE;
}

typedef struct scale_run {
    mest_pixels gx, gs, gy;
    const mest_real *x, *s;
    mest_real *y;
    char op;       /* '*', '+', '-': x - s, 'r': s - x */
    other kind;
} scale_run;

static void scale_row(void *context, size_t tile)
{
    const scale_run *r = context;
    const mest_pixels *g = &r->gx;
    const int64_t n = g->c * g->v;
    const mest_real *row = px_row(g, r->x, (int64_t)tile);
    mest_real *out = px_row(&r->gy, r->y, (int64_t)tile);
    for (int64_t from = 0; from < n; from += 256) {
        const int64_t some = px_min(256, n - from);
        mest_real s[256];
        for (int64_t e = 0; e < some; e++)
            s[e] = r->kind == OTHER_IMAGE ? r->s[r->gs.origin + (int64_t)tile / g->h * r->gs.block + from + e]
                   : r->kind == OTHER_ONE ? r->s[0] : r->s[(from + e) / g->v];
        for (int64_t i = 0; i < g->w; i++) {
            const mest_real *x = row + i * g->pixel + from; /* Y may lie over X */
            mest_real *y = out + i * r->gy.pixel + from;
            switch (r->op) {
            case '*': for (int64_t e = 0; e < some; e++) y[e] = x[e] * s[e]; break;
            case '+': for (int64_t e = 0; e < some; e++) y[e] = x[e] + s[e]; break;
            case '-': for (int64_t e = 0; e < some; e++) y[e] = x[e] - s[e]; break;
            default:  for (int64_t e = 0; e < some; e++) y[e] = s[e] - x[e]; break;
            }
        }
    }
}

static bool scale_fits(const mest_kernel_query *q, const char **why)
{
    (void)why;
    if (q->n_in != 2 || !q->in[0] || !q->in[1] || !px_pixel(q->out[0]))
        return false;
    return (px_same_rows(q->in[0], q->out[0]) && other_of(q->in[0], q->in[1])) || (px_same_rows(q->in[1], q->out[0]) && other_of(q->in[1], q->in[0]));
}

static mest_status scale_run_as(const mest_args *a, char op)
{
    const bool second = px_same_rows(a->in[0].type, a->out[0].type) && other_of(a->in[0].type, a->in[1].type);
    const mest_tensor *x = &a->in[second ? 0 : 1], *s = &a->in[second ? 1 : 0];
    scale_run r = {.gx = mest_pixel_geometry(x->type), .gy = mest_pixel_geometry(a->out[0].type), .x = x->data, .s = s->data,
                   .y = a->out[0].data, .op = op == '-' && !second ? 'r' : op, .kind = other_of(x->type, s->type)};
    if (r.kind == OTHER_IMAGE)
        r.gs = mest_pixel_geometry(s->type);
    mest_parallel(a->threads, (size_t)(r.gx.blocks * r.gx.h), scale_row, &r);
    return MEST_OK;
}
static mest_status mul_run(const mest_args *a) { return scale_run_as(a, '*'); }
static mest_status add_run(const mest_args *a) { return scale_run_as(a, '+'); }
static mest_status sub_run(const mest_args *a) { return scale_run_as(a, '-'); }

#define ROW(name_, op_, fits_, run_) \
    {.name = PX_NAME(name_), .op = op_, .cpu = PX_CPU, .fits = fits_, .cost = px_cost_once, .prepare = px_no_scratch, .run = run_}

const mest_kernel PX_TABLE(shape_pixel)[] = {
    ROW("flatten_pixel", "Flatten", reshape_fits, reshape_forward),
    ROW("reshape_pixel", "Reshape", reshape_fits, reshape_forward),
    ROW("squeeze_pixel", "Squeeze", reshape_fits, reshape_forward),
    ROW("unsqueeze_pixel", "Unsqueeze", reshape_fits, reshape_forward),
    ROW("reshape_to_pixel", "mest.Reshape", reshape_fits, reshape_forward),
    ROW("concat_pixel", "Concat", concat_fits, concat_forward),
    {.name = PX_NAME("dropout_pixel"), .op = "mest.DropoutTrain", .cpu = PX_CPU, .inplace = true, .fits = drop_fits, .cost = drop_cost,
     .prepare = px_no_scratch, .run = drop_forward},
    {.name = PX_NAME("dropout_grad_pixel"), .op = "mest.DropoutGrad", .cpu = PX_CPU, .inplace = true, .fits = drop_fits, .cost = drop_cost,
     .prepare = px_no_scratch, .run = drop_forward},
    ROW("mul_pixel", "Mul", scale_fits, mul_run),
    ROW("add_pixel", "Add", scale_fits, add_run),
    ROW("sub_pixel", "Sub", scale_fits, sub_run),
    {0},
};
