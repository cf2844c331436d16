/* SPDX-License-Identifier: Apache-2.0 */
/* What fits, what taps read, how the work is cut, and running, for the kernels of images.h. Independent of the instruction set. */
#include "sparse/kernels/images.h"

typedef mest_lanes_problem problem;

enum { MAX_PARTS = 16, FEW_COLUMNS = 4 };
#define VISIT 3e-8 /* seconds to begin and end the sums of a row of the list in a panel */

/* What the taps read. A plane is a shifted copy: of one channel (pixel lanes) or of all (channel lanes), in the order of positions. */
typedef struct reading {
    bool copied;            /* else the input as it lies */
    bool whole;             /* positions run through the image without gaps; else row by row */
    bool every_tap;         /* a plane for each tap, P rows; else one for each column of taps, rows as far as taps reach */
    int64_t planes;         /* 0: one copy of the image with zeros around it */
    int64_t rows, columns;  /* of a plane or of that copy */
    int64_t plane, pixel;   /* elements from plane to plane; channel lanes: from pixel to pixel */
    int64_t reals;
} reading;

typedef struct state {
    const mest_images_isa *isa;
    mest_act_fn act;        /* activations that are no clamp */
    mest_images_kind kind;
    problem p;
    mest_pixels x, y;       /* channel lanes */
    int width;              /* pixel lanes */
    reading r;
    mest_lanes_key key;
    mest_derived_list *list;
    int64_t images, positions;
    int32_t row_parts, position_parts;
    int64_t units;          /* what position parts are cut from: panels, or rows of positions */
    int64_t unit;           /* positions of one */
    int32_t *at, *keep;     /* pixel lanes: of each plane and position, element of a channel and whether it is on the image; at NULL: shift + position */
    int64_t *shift;
    int64_t table;          /* entries of keep */
} state;

static int64_t round_up(int64_t n, int64_t m) { return (n + m - 1) / m * m; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- what is read ---- */

/* Vectors that make up an image in the fewest cycles: wide ones cost about twice as much as narrow ones. */
static int width_for(const mest_images_isa *isa, int64_t positions)
{
    int best = isa->widest;
    for (int w = isa->widest / 2; w >= 4; w /= 2)
        if ((double)mest_ceil_div(positions, w) * (0.45 + 0.55 * w / best) < (double)mest_ceil_div(positions, best))
            best = w;
    return best;
}

static bool point(const mest_conv_geometry *g)
{
    return g->r * g->s == 1 && g->stride_y * g->stride_x == 1 && g->top == 0 && g->left == 0 && g->p == g->h && g->q == g->w;
}

static void tap_planes(const mest_conv_geometry *g, bool every_tap, reading *r)
{
    r->copied = r->whole = true;
    r->every_tap = every_tap;
    r->planes = every_tap ? g->r * g->s : g->s;
    r->rows = every_tap ? g->p : g->p + (g->r - 1) * g->dilation_y;
    r->columns = g->q;
}

static reading read_pixels(const mest_conv_geometry *g, int width)
{
    reading r = {.whole = true};
    const int64_t positions = g->p * g->q;
    if (point(g) && positions % width == 0)
        return r;
    const bool same = g->stride_y == 1 && g->stride_x == 1 && g->q == g->w;
    const int64_t tap_plane = round_up(positions, width);
    /* Rows of whole vectors: taps of one column share a plane. Others would be loads across lines, at twice the price, so small images get a plane a tap. */
    const bool columns = same && (g->r == 1 || g->q % width == 0 || g->c * g->r * g->s * tap_plane * (int64_t)sizeof(mest_real) > 1 << 20);
    tap_planes(g, !columns, &r);
    r.plane = round_up(tap_plane + (columns ? (g->r - 1) * g->dilation_y * g->q : 0), width);
    r.reals = g->c * r.planes * r.plane;
    return r;
}

/* Is the halo of the input as wide as the taps reach? */
static bool halo_holds(const mest_conv_geometry *g, const mest_layout *l)
{
    return l->top >= g->top && l->left >= g->left && l->bottom >= (g->p - 1) * g->stride_y + (g->r - 1) * g->dilation_y - g->top - (g->h - 1) &&
           l->right >= (g->q - 1) * g->stride_x + (g->s - 1) * g->dilation_x - g->left - (g->w - 1);
}

static reading read_channels(const mest_conv_geometry *g, const mest_type *xt, const mest_pixels *x, const mest_pixels *y)
{
    reading r = {.pixel = x->pixel};
    const bool even = y->row == g->q * y->pixel; /* results without gaps */
    if (point(g)) {
        r.whole = even && x->row == g->w * x->pixel;
        return r;
    }
    const int64_t pixel = g->c + (g->c % 256 ? 0 : 16); /* strides that are not a power of two keep pixels in sets of their own */
    if (even && g->q <= FEW_COLUMNS && g->p * g->q > 1) {
        tap_planes(g, g->stride_y > 1, &r);
        r.pixel = pixel;
        r.plane = r.rows * r.columns * pixel;
        r.reals = r.planes * r.plane;
        return r;
    }
    if (halo_holds(g, &xt->layout))
        return r;
    r.copied = true;
    r.pixel = pixel;
    r.rows = (g->p - 1) * g->stride_y + (g->r - 1) * g->dilation_y + 1;
    r.columns = (g->q - 1) * g->stride_x + (g->s - 1) * g->dilation_x + 1;
    r.reals = r.rows * r.columns * pixel;
    return r;
}

/* ---- what fits ---- */

/* Outputs of a block that share their columns; 0: none. */
static int height_for(const mest_sparse *w, const problem *p, mest_images_kind kind)
{
    if (kind == MEST_IMAGES_PIXELS)
        return mest_shared_outputs(w, p->inputs_first, p->g.m, p->g.group, 4) ? 4 : 1;
    for (int h = 16; h >= 4; h /= 2)
        if (mest_shared_outputs(w, p->inputs_first, p->g.m, p->g.group, h))
            return h;
    return 0;
}

static bool one_lane(const mest_type *t) { return t && t->dtype == MEST_F32 && t->layout.kind == MEST_PIXEL && t->layout.v == 1; }

bool mest_images_fits(const mest_kernel_query *q, mest_images_kind kind, mest_lanes_op op, const char **why)
{
    problem p;
    const bool pixels = kind == MEST_IMAGES_PIXELS;
    if (q->n_in < 2 || !q->in[0] || !q->in[1] || !q->out[0] || q->in[1]->layout.kind != MEST_SPARSE || !q->sparse[1] || q->in[1]->dtype != MEST_F32)
        return false;
    if (pixels ? !mest_plain_real(q->in[0]) || !mest_plain_real(q->out[0]) : !one_lane(q->in[0]) || !one_lane(q->out[0]))
        return false;
    if (q->learns) {
        *why = "for inference: a training step has its convolutions fused in the batch lanes";
        return false;
    }
    if (!mest_lanes_problem_of(q, op, &p, why) || (q->n_in > 2 && !mest_plain_real(q->in[2])) || (p.affine && q->n_in > 3 && !mest_plain_real(q->in[3])))
        return false;
    const mest_conv_geometry *g = &p.g;
    if (g->r > 16384 || g->s > 16384 || g->dilation_y > 16384 || g->dilation_x > 16384 || g->stride_y > 16384 || g->stride_x > 16384 || g->p < 1 || g->q < 1 || g->n < 1) {
        *why = "geometry beyond the lists' range";
        return false;
    }
    if (height_for(q->sparse[1], &p, kind) == 0) {
        *why = "no blocks of outputs that share their columns";
        return false;
    }
    const double taps = (double)(g->r * g->s), image = (double)(g->h + g->p + g->r * g->dilation_y) * (double)(g->w + g->q + g->s * g->dilation_x);
    if (taps * image * (double)(g->c + 32) * (double)sizeof(mest_real) > 2e9 || (double)q->sparse[1]->cap_units * q->sparse[1]->unit_elements > 2e9) {
        *why = "offsets beyond 32 bits";
        return false;
    }
    *why = pixels ? "sparse weight, pixels of one image in the vector lanes" : "blocks of outputs, their channels in the vector lanes";
    return true;
}

double mest_images_cost(const mest_kernel_query *q, mest_images_kind kind, mest_lanes_op op, const mest_images_isa *isa)
{
    const char *why = NULL;
    problem p;
    if (!mest_lanes_problem_of(q, op, &p, &why))
        return 1e9;
    const mest_conv_geometry *g = &p.g;
    const double entries = (double)q->sparse[1]->cap_units * q->sparse[1]->unit_elements, images = (double)g->n, each = (double)sizeof(mest_real);
    const int64_t positions = g->p * g->q;
    const int h = height_for(q->sparse[1], &p, kind);
    const double moved = (double)(g->m * positions);
    if (kind == MEST_IMAGES_CHANNELS) {
        const mest_pixels x = mest_pixel_geometry(q->in[0]), y = mest_pixel_geometry(q->out[0]);
        const double copy = (double)read_channels(g, q->in[0], &x, &y).reals;
        const double rate = isa->flops_per_second * 1.7 * (h < isa->widest ? (double)h / isa->widest : 1);
        const double visits = (double)mest_ceil_div(positions, isa->most_positions(h)) * (double)mest_ceil_div(g->m, h);
        return images * (2 * entries * (double)positions / rate + visits * VISIT + entries * each / 12e9 + copy * each / 15e9 + moved * each / 30e9) + 1e-6;
    }
    const int width = width_for(isa, positions);
    const reading r = read_pixels(g, width);
    const double vectors = (double)mest_ceil_div(positions, width), rate = isa->flops_per_second * (h == 4 ? 1.6 : 1) * width / isa->widest * 2 / (1 + (double)width / isa->widest);
    const bool gathered = r.every_tap && (g->stride_y * g->stride_x > 1 || g->q != g->w || g->p != g->h);
    const double visits = (double)mest_ceil_div(positions, (h == 4 ? 4 : 8) * width) * (double)mest_ceil_div(g->m, h);
    return images * (2 * entries * vectors * width / rate + visits * VISIT + entries * 2e-10 + (double)r.reals * (gathered ? 6e-10 : 1.5e-10) + moved * each / 30e9) + 1e-6;
}

/* ---- preparation ---- */

/* Channels of a tile, whose inputs take `bytes` each, so that a panel stays near; rows keep at least about three entries in one. */
static int32_t tile_for(double budget, double bytes, double entries, const mest_conv_geometry *g)
{
    const double all = (double)g->m * (double)(g->c / g->group) * (double)(g->r * g->s);
    double tile = budget / bytes;
    if (entries > 0) {
        const double floor = 8 * all / entries / (double)(g->r * g->s);
        tile = tile < floor ? floor : tile;
    }
    if (tile >= (double)g->c)
        return (int32_t)most(g->c, 1);
    const int64_t t = most((int64_t)tile / 4 * 4, 4), n = mest_ceil_div(g->c, t);
    return (int32_t)round_up(mest_ceil_div(g->c, n), 4);
}

static void cut(state *s, double flops)
{
    const int64_t rows = mest_ceil_div(s->p.g.m, s->key.height), n = most(1, least(MAX_PARTS, (int64_t)(flops / 5e5)));
    s->row_parts = (int32_t)most(1, least(n, rows));
    s->position_parts = (int32_t)most(1, least(n / s->row_parts, s->units));
}

/* Where each position of each plane comes from. */
static mest_status pixel_tables(const mest_kernel_query *q, state *s, mest_error *err)
{
    const mest_conv_geometry *g = &s->p.g;
    /* Planes that are one shift of the channel; the smallest are picked one by one, all planes at once. */
    const bool small = s->r.every_tap && s->r.plane == g->p * g->q && s->r.plane < 16;
    const bool flat = !small && g->stride_y == 1 && g->stride_x == 1 && g->q == g->w && (!s->r.every_tap || g->p == g->h);
    const int64_t n = s->r.every_tap ? g->p * g->q : g->h * g->q;
    s->table = s->r.planes * n;
    s->keep = mest_alloc(q->heap, (size_t)s->table, sizeof *s->keep);
    s->shift = mest_alloc(q->heap, (size_t)s->r.planes, sizeof *s->shift);
    s->at = flat ? NULL : mest_alloc(q->heap, (size_t)s->table, sizeof *s->at);
    MEST_CHECK(s->keep && s->shift && (s->at || flat), err, MEST_E_NOMEM, "%s: no memory for the tables of a kernel", q->node->name);
    for (int64_t k = 0; k < s->r.planes; k++) {
        const int64_t dy = s->r.every_tap ? k / g->s * g->dilation_y - g->top : 0, dx = (s->r.every_tap ? k % g->s : k) * g->dilation_x - g->left;
        s->shift[k] = dy * g->w + dx;
        for (int64_t i = 0; i < n; i++) { /* columns of taps: i is a pixel of the image, whose row the copy has `top` rows lower */
            const int64_t y = i / g->q * (s->r.every_tap ? g->stride_y : 1) + dy, x = i % g->q * g->stride_x + dx;
            const bool on = y >= 0 && y < g->h && x >= 0 && x < g->w;
            s->keep[k * n + i] = on;
            if (s->at)
                s->at[k * n + i] = on ? (int32_t)(y * g->w + x) : 0;
        }
    }
    return MEST_OK;
}

static void describe_list(state *s, const mest_sparse *weight)
{
    const mest_conv_geometry *g = &s->p.g;
    const reading *r = &s->r;
    const int64_t bytes = (int64_t)sizeof(mest_real), entries = weight->cap_units * weight->unit_elements;
    const int height = height_for(weight, &s->p, s->kind);
    int64_t channel = 1, column, row; /* elements from channel to channel and from tap to tap */
    double near;                      /* bytes a channel takes in a panel */
    if (s->kind == MEST_IMAGES_PIXELS) {
        const int64_t u = least(8, mest_ceil_div(s->positions, s->width)) * s->width;
        channel = r->copied ? r->planes * r->plane : g->h * g->w;
        column = r->plane;
        row = r->every_tap ? g->s * r->plane : g->q * g->dilation_y;
        near = (double)bytes * (r->every_tap ? (double)(r->planes * u) : (double)g->s * (double)(u + (g->r - 1) * g->dilation_y * g->q));
    } else {
        if (r->planes) {
            column = r->plane;
            row = r->every_tap ? g->s * r->plane : g->q * g->dilation_y * r->pixel;
        } else {
            column = g->dilation_x * r->pixel;
            row = g->dilation_y * (r->copied ? r->columns * r->pixel : s->x.row);
        }
        near = (double)bytes * (double)(g->r * (8 * g->stride_x + g->s - 1));
    }
    s->key = (mest_lanes_key){
        .cap = entries / height, .c = (int32_t)g->c, .m = (int32_t)g->m, .group = (int32_t)g->group, .r = (int16_t)g->r, .s = (int16_t)g->s, .stride_y = 1,
        .stride_x = 1, .dilation_y = 1, .dilation_x = 1, .lanes = 1, .inputs_first = s->p.inputs_first, .height = (uint8_t)height,
        .pixel_bytes = (int32_t)(column * bytes), .row_bytes = (int32_t)(row * bytes), .channel_bytes = (int32_t)(channel * bytes),
        .tile = tile_for(65536, near, (double)entries, g),
    };
    s->key.direct = !s->p.inputs_first && mest_row_order(weight, height) && s->key.tile >= g->c;
}

mest_status mest_images_prepare(const mest_kernel_query *q, mest_images_kind kind, mest_lanes_op op, const mest_images_isa *isa, void **out,
                                size_t *scratch_bytes, mest_error *err)
{
    const char *why = "kernel does not fit";
    problem p;
    *out = NULL;
    *scratch_bytes = 0;
    MEST_CHECK(mest_lanes_problem_of(q, op, &p, &why), err, MEST_E_INTERNAL, "%s: %s", q->node->name, why);
    state *s = mest_calloc(q->heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "%s: no memory for the state of a kernel", q->node->name);
    const mest_conv_geometry *g = &s->p.g;
    mest_status status = MEST_OK;
    *s = (state){.isa = isa, .act = mest_act_for(q->cpu), .kind = kind, .p = p, .images = p.g.n, .positions = p.g.p * p.g.q};
    if (kind == MEST_IMAGES_PIXELS) {
        s->width = width_for(isa, s->positions);
        s->r = read_pixels(g, s->width);
        if (s->r.copied)
            MEST_TRY_OUT(pixel_tables(q, s, err));
    } else {
        s->x = mest_pixel_geometry(q->in[0]);
        s->y = mest_pixel_geometry(q->out[0]);
        if (s->x.h == 1 && s->x.w == 1 && s->y.h == 1 && s->y.w == 1 && point(g)) { /* one position an image: all images at once */
            s->r = (reading){.whole = true, .pixel = s->x.block};
            s->positions = g->n;
            s->images = 1;
        } else {
            s->r = read_channels(g, q->in[0], &s->x, &s->y);
        }
    }
    describe_list(s, q->sparse[1]);
    s->unit = s->kind == MEST_IMAGES_PIXELS ? (s->key.height == 4 ? 4 : 8) * s->width : s->r.whole ? isa->most_positions(s->key.height) : g->q;
    s->units = mest_ceil_div(s->positions, s->unit);
    cut(s, 2.0 * (double)(s->key.cap * s->key.height) * (double)s->positions);
    *scratch_bytes = (size_t)s->r.reals * sizeof(mest_real);
    MEST_TRY_OUT(mest_derived_get(q->derived, q->sparse[1], &s->key, sizeof s->key, mest_lanes_bytes(&s->key), mest_lanes_build, mest_lanes_refresh, &s->list, err));
out:
    if (status != MEST_OK) {
        mest_images_release(s, q->heap);
        return status;
    }
    *out = s;
    return MEST_OK;
}

void mest_images_release(void *state_, mest_heap *heap)
{
    state *s = state_;
    if (!s)
        return;
    mest_free(heap, s->keep, (size_t)s->table, sizeof *s->keep);
    mest_free(heap, s->at, (size_t)s->table, sizeof *s->at);
    mest_free(heap, s->shift, (size_t)s->r.planes, sizeof *s->shift);
    mest_free(heap, s, 1, sizeof *s);
}

size_t mest_images_state_bytes(const void *state_)
{
    const state *s = state_;
    return s ? sizeof *s + (size_t)s->table * sizeof *s->keep * (s->at ? 2 : 1) + (size_t)s->r.planes * sizeof *s->shift : 0;
}

/* ---- running ---- */
typedef struct job {
    const state *s;
    const mest_real *x;  /* of one image */
    mest_real *y, *copy;
    const mest_act *act; /* NULL: none, or a clamp */
    mest_lanes_forward f;
} job;

static int64_t share(int64_t n, int64_t part, int64_t parts) { return n * part / parts; }

/* Planes of one channel. */
static void copy_channel(const job *j, int64_t c)
{
    const state *s = j->s;
    const mest_conv_geometry *g = &s->p.g;
    const int64_t n = s->table / s->r.planes, pixels = g->h * g->w;
    const mest_real *x = j->x + c * pixels;
    if (s->at && s->r.every_tap && s->r.plane == n) { /* no gaps between planes */
        s->isa->pick(x, s->at, s->keep, s->table, j->copy + c * s->table);
        return;
    }
    for (int64_t k = 0; k < s->r.planes; k++) {
        mest_real *to = j->copy + (c * s->r.planes + k) * s->r.plane;
        int64_t count = n;
        if (!s->r.every_tap) { /* rows above and below the image */
            const int64_t above = least(g->top, s->r.rows) * g->q, body = most(0, least(n, s->r.rows * g->q - above));
            memset(to, 0, (size_t)above * sizeof *to);
            memset(to + above + body, 0, (size_t)(s->r.rows * g->q - above - body) * sizeof *to);
            to += above;
            count = body;
        }
        if (s->at) {
            s->isa->pick(x, s->at + k * n, s->keep + k * n, count, to);
            continue;
        }
        const int64_t shift = s->shift[k], from = least(count, most(0, -shift)), end = most(from, least(count, pixels - shift));
        memset(to, 0, (size_t)from * sizeof *to);
        s->isa->pick(x + shift + from, NULL, s->keep + k * n + from, end - from, to + from);
        memset(to + end, 0, (size_t)(count - end) * sizeof *to);
    }
}

/* Row `row` of plane k, or of the one padded copy (k = 0), of all channels. */
static void copy_row(const job *j, int64_t k, int64_t row)
{
    const state *s = j->s;
    const mest_conv_geometry *g = &s->p.g;
    const reading *r = &s->r;
    const size_t bytes = (size_t)g->c * sizeof(mest_real);
    int64_t y = row - g->top, x = -g->left, step = 1;
    if (r->planes) {
        y = r->every_tap ? row * g->stride_y + k / g->s * g->dilation_y - g->top : y;
        x = (r->every_tap ? k % g->s : k) * g->dilation_x - g->left;
        step = g->stride_x;
    }
    mest_real *to = j->copy + k * r->plane + row * r->columns * r->pixel;
    for (int64_t q = 0; q < r->columns; q++, x += step, to += r->pixel)
        if (y < 0 || y >= g->h || x < 0 || x >= g->w)
            memset(to, 0, bytes);
        else
            memcpy(to, j->x + y * s->x.row + x * s->x.pixel, bytes);
}

enum { COPY_PARTS = 8 };

static void copy_part(void *context, size_t part)
{
    const job *j = context;
    const state *s = j->s;
    if (s->kind == MEST_IMAGES_PIXELS) {
        for (int64_t c = share(s->p.g.c, (int64_t)part, COPY_PARTS); c < share(s->p.g.c, (int64_t)part + 1, COPY_PARTS); c++)
            copy_channel(j, c);
        return;
    }
    const int64_t n = most(1, s->r.planes) * s->r.rows;
    for (int64_t i = share(n, (int64_t)part, COPY_PARTS); i < share(n, (int64_t)part + 1, COPY_PARTS); i++)
        copy_row(j, i / s->r.rows, i % s->r.rows);
}

/* Positions [first, last) of the outputs of list rows [r0, r1) from f->y on, and what follows their sums. */
static void compute(const job *j, const mest_lanes_forward *f, int64_t first, int64_t last, int32_t r0, int32_t r1)
{
    const state *s = j->s;
    const int64_t height = f->list.height, m0 = r0 * height, m1 = least(r1 * height, f->outs);
    const bool pixels = s->kind == MEST_IMAGES_PIXELS;
    if (pixels)
        s->isa->pixels(f, s->width, first, last, r0, r1);
    else
        s->isa->channels(f, first, last, r0, r1);
    if (!j->act || m0 >= m1 || first >= last)
        return;
    if (pixels)
        for (int64_t m = m0; m < m1; m++)
            s->act(j->act, f->y + m * f->y_row + first, f->y + m * f->y_row + first, last - first);
    else
        for (int64_t i = first; i < last; i++)
            s->act(j->act, f->y + i * f->y_step + m0, f->y + i * f->y_step + m0, m1 - m0);
}

static void compute_part(void *context, size_t part)
{
    const job *j = context;
    const state *s = j->s;
    const int64_t rp = (int64_t)part % s->row_parts, pp = (int64_t)part / s->row_parts, rows = j->f.list.n_rows;
    const int32_t r0 = (int32_t)share(rows, rp, s->row_parts), r1 = (int32_t)share(rows, rp + 1, s->row_parts);
    const int64_t u0 = share(s->units, pp, s->position_parts), u1 = share(s->units, pp + 1, s->position_parts);
    const int64_t first = u0 * s->unit, last = least(u1 * s->unit, s->positions);
    if (s->kind == MEST_IMAGES_PIXELS || s->r.whole) {
        compute(j, &j->f, first, last, r0, r1);
        return;
    }
    mest_lanes_forward f = j->f;
    for (int64_t row = u0; row < u1; row++) {
        f.x = j->f.x + row * j->f.x_row;
        f.y = j->f.y + row * j->f.y_row;
        compute(j, &f, 0, s->unit, r0, r1);
    }
}

mest_status mest_images_run(const mest_args *a)
{
    const state *s = a->state;
    const mest_conv_geometry *g = &s->p.g;
    const bool pixels = s->kind == MEST_IMAGES_PIXELS;
    job j = {.s = s, .copy = a->scratch};
    j.f = (mest_lanes_forward){.bias = a->n_in > 2 ? a->in[2].data : NULL, .ends = s->p.affine, .outs = g->m, .run = s->positions,
                               .list = mest_lanes_view(mest_derived_use(s->list), &s->key, a->in[1].data, 0, NULL, NULL)};
    if (s->p.affine) {
        j.f.factor = a->n_in > 3 ? a->in[3].data : NULL;
        const mest_conv_affine_params *params = a->params;
        j.f.clamp = params->clamp;
        j.act = params->act.kind ? &params->act : NULL;
    }
    for (int64_t n = 0; n < s->images; n++) {
        const mest_real *x = a->in[0].data;
        mest_real *y = a->out[0].data;
        if (pixels) {
            j.x = x + n * g->c * g->h * g->w;
            j.f.x = s->r.copied ? j.copy : j.x;
            j.f.y = y + n * g->m * s->positions;
            j.f.y_row = s->positions;
        } else {
            j.x = x + s->x.origin + n * s->x.block;
            j.f.y = y + s->y.origin + n * s->y.block;
            j.f.y_row = s->y.row;
            j.f.y_step = s->images == 1 && s->positions == g->n && s->y.h * s->y.w == 1 ? s->y.block : s->y.pixel;
            j.f.x = s->r.copied ? j.copy : j.x - g->top * s->x.row - g->left * s->x.pixel;
            j.f.x_step = s->r.whole ? s->r.pixel : g->stride_x * s->r.pixel;
            j.f.x_row = g->stride_y * (s->r.copied ? s->r.columns * s->r.pixel : s->x.row);
        }
        if (s->r.copied)
            mest_parallel(a->threads, COPY_PARTS, copy_part, &j);
        mest_parallel(a->threads, (size_t)s->row_parts * (size_t)s->position_parts, compute_part, &j);
    }
    return MEST_OK;
}
