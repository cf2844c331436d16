/* SPDX-License-Identifier: Apache-2.0 */
/* mest.Relayout: the same value in another memory layout. PLAIN and PIXEL in any combination, rank 2 to 4, any number of lanes, any halo.
 * The layout pass inserts it and sets the layout of its output; lanes past the batch become zero, halos are left to the executor.
 *
 * Letters: N batch, C channels, H W image; v lanes. Everything is a set of small matrix transposes:
 *     PLAIN -> PIXEL, v lanes    per image row and channel  [lane][x] -> [x][lane];  one pixel: [lane][channel] -> [channel][lane]
 *     PLAIN -> PIXEL, v = 1      per image row              [channel][x] -> [x][channel]
 *     PIXEL v -> PIXEL v         rows are copied
 *     PIXEL 1 -> PIXEL v         per pixel                  [lane][channel] -> [channel][lane]
 * and the other way round. */
#include <string.h>

#include "ops/nn.h"

typedef struct relayout {
    const mest_type *from, *to;
    const mest_real *x;
    mest_real *y;
    mest_pixels gx, gy;      /* geometry of the PIXEL sides */
    int64_t n, c, h, w;
    int64_t per_tile, items; /* items: pairs of image block and row */
    bool flat;               /* the rows of an image follow each other in both layouts: one row of H * W pixels */
} relayout;

#if !MEST_REAL_IS_DOUBLE
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
#define LOAD4(p) (*(const four *)(const void *)(p))
#define STORE4(p, value) (*(four *)(void *)(p) = (value))

/* 4 x 4 transpose: b[j][i] = a[i][j]. */
static inline void transpose4(const float *a, int64_t lda, float *b, int64_t ldb)
{
    four r0 = LOAD4(a), r1 = LOAD4(a + lda), r2 = LOAD4(a + 2 * lda), r3 = LOAD4(a + 3 * lda);
    four s0 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), s1 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
    four s2 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5), s3 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
    STORE4(b, __builtin_shufflevector(s0, s2, 0, 1, 4, 5));
    STORE4(b + ldb, __builtin_shufflevector(s0, s2, 2, 3, 6, 7));
    STORE4(b + 2 * ldb, __builtin_shufflevector(s1, s3, 0, 1, 4, 5));
    STORE4(b + 3 * ldb, __builtin_shufflevector(s1, s3, 2, 3, 6, 7));
}
#endif

/* b[j * ldb + i] = a[i * lda + j] for i < rows, j < cols. Walks columns in groups so that each written line is finished soon. */
static void transpose(const mest_real *a, int64_t lda, mest_real *b, int64_t ldb, int64_t rows, int64_t cols)
{
    int64_t j = 0;
#if !MEST_REAL_IS_DOUBLE
    for (; j + 4 <= cols; j += 4) {
        int64_t i = 0;
        for (; i + 4 <= rows; i += 4)
            transpose4(a + i * lda + j, lda, b + j * ldb + i, ldb);
        for (; i < rows; i++)
            for (int64_t k = 0; k < 4; k++)
                b[(j + k) * ldb + i] = a[i * lda + j + k];
    }
#endif
    for (; j < cols; j++)
        for (int64_t i = 0; i < rows; i++)
            b[j * ldb + i] = a[i * lda + j];
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Lanes [from, v) of all channels of `pixels` pixels become zero. */
static void zero_lanes(mest_real *y, const mest_pixels *g, int64_t pixels, int64_t from)
{
    for (int64_t x = 0; x < pixels && from < g->v; x++)
        for (int64_t c = 0; c < g->c; c++)
            memset(y + x * g->pixel + c * g->v + from, 0, (size_t)(g->v - from) * sizeof *y);
}

static void plain_to_pixel(const relayout *r, int64_t block, int64_t row)
{
    const mest_pixels *g = &r->gy;
    const int64_t plane = r->h * r->w, width = r->flat ? plane : r->w;
    mest_real *y = r->y + g->origin + block * g->block + row * g->row;
    const mest_real *x = r->x + block * g->v * r->c * plane + row * r->w;
    if (g->v == 1) {
        transpose(x, plane, y, g->pixel, r->c, width);
        return;
    }
    const int64_t lanes = least(g->v, r->n - block * g->v);
    if (plane == 1)
        transpose(x, r->c, y, g->v, lanes, r->c);
    else
        for (int64_t c = 0; c < r->c; c++)
            transpose(x + c * plane, r->c * plane, y + c * g->v, g->pixel, lanes, width);
    zero_lanes(y, g, width, lanes);
}

static void pixel_to_plain(const relayout *r, int64_t block, int64_t row)
{
    const mest_pixels *g = &r->gx;
    const int64_t plane = r->h * r->w, width = r->flat ? plane : r->w;
    const mest_real *x = r->x + g->origin + block * g->block + row * g->row;
    mest_real *y = r->y + block * g->v * r->c * plane + row * r->w;
    if (g->v == 1) {
        transpose(x, g->pixel, y, plane, width, r->c);
        return;
    }
    const int64_t lanes = least(g->v, r->n - block * g->v);
    if (plane == 1)
        transpose(x, g->v, y, r->c, r->c, lanes);
    else
        for (int64_t c = 0; c < r->c; c++)
            transpose(x + c * g->v, g->pixel, y + c * plane, r->c * plane, width, lanes);
}

/* One row of block `block` of the output, whatever the lanes of both sides. */
static void pixel_to_pixel(const relayout *r, int64_t block, int64_t row)
{
    const mest_pixels *a = &r->gx, *b = &r->gy;
    const int64_t width = r->flat ? r->h * r->w : r->w, first = block * b->v, lanes = least(b->v, r->n - first);
    mest_real *y = r->y + b->origin + block * b->block + row * b->row;
    const mest_real *x = r->x + a->origin + row * a->row;
    if (a->v == b->v) {
        x += block * a->block;
        if (a->pixel == b->pixel)
            memcpy(y, x, (size_t)((width - 1) * a->pixel + a->c * a->v) * sizeof *y);
        else
            for (int64_t i = 0; i < width; i++)
                memcpy(y + i * b->pixel, x + i * a->pixel, (size_t)(a->c * a->v) * sizeof *y);
    } else if (a->v == 1) {
        for (int64_t i = 0; i < width; i++)
            transpose(x + first * a->block + i * a->pixel, a->block, y + i * b->pixel, b->v, lanes, r->c);
        zero_lanes(y, b, width, lanes);
    } else {
        for (int64_t l = 0; l < lanes; l++) {
            const mest_real *from = x + (first + l) / a->v * a->block + (first + l) % a->v;
            for (int64_t i = 0; i < width; i++)
                for (int64_t c = 0; c < r->c; c++)
                    y[i * b->pixel + c * b->v + l] = from[i * a->pixel + c * a->v];
        }
        zero_lanes(y, b, width, lanes);
    }
}

static void relayout_tile(void *context, size_t tile)
{
    const relayout *r = context;
    const int64_t first = (int64_t)tile * r->per_tile, last = least(first + r->per_tile, r->items);
    const int64_t rows = r->flat ? 1 : r->h;
    for (int64_t i = first; i < last; i++) {
        const int64_t block = i / rows, row = i % rows;
        if (r->from->layout.kind == MEST_PLAIN)
            plain_to_pixel(r, block, row);
        else if (r->to->layout.kind == MEST_PLAIN)
            pixel_to_plain(r, block, row);
        else
            pixel_to_pixel(r, block, row);
    }
}

static mest_status relayout_forward(const mest_args *a)
{
    const mest_type *from = a->in[0].type, *to = a->out[0].type;
    const bool from_pixel = from->layout.kind == MEST_PIXEL, to_pixel = to->layout.kind == MEST_PIXEL;
    if (!from_pixel && !to_pixel) {
        memcpy(a->out[0].data, a->in[0].data, a->out[0].count * sizeof(mest_real));
        return MEST_OK;
    }
    relayout r = {.from = from, .to = to, .x = a->in[0].data, .y = a->out[0].data};
    if (from_pixel)
        r.gx = mest_pixel_geometry(from);
    if (to_pixel)
        r.gy = mest_pixel_geometry(to);
    const mest_pixels *g = to_pixel ? &r.gy : &r.gx;
    r.n = g->n;
    r.c = g->c;
    r.h = g->h;
    r.w = g->w;
    if (r.n * r.c * r.h * r.w == 0)
        return MEST_OK;
    r.flat = (!from_pixel || r.gx.row == r.w * r.gx.pixel) && (!to_pixel || r.gy.row == r.w * r.gy.pixel);
    const int64_t rows = r.flat ? 1 : r.h, work = g->v * r.c * r.h * r.w / rows;
    r.items = g->blocks * rows;
    r.per_tile = work < 4096 ? 4096 / (work + 1) + 1 : 1;
    mest_parallel(a->threads, (size_t)((r.items + r.per_tile - 1) / r.per_tile), relayout_tile, &r);
    return MEST_OK;
}

/* The layout pass sets the output's layout afterwards. */
static mest_status relayout_infer(mest_infer *c)
{
    MEST_INFER_CHECK(c, c->in[0]->shape.rank >= 2 && c->in[0]->shape.rank <= 4, "rank %d has no pixel layout", (int)c->in[0]->shape.rank);
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = c->in[0]->shape;
    return MEST_OK;
}

const mest_op mest_ops_relayout[] = {
    {.domain = "mest", .name = "mest.Relayout", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .act_in = 1, .act_out = 1,
     .infer = relayout_infer, .forward = relayout_forward},
    {0},
};
