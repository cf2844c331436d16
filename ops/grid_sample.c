/* SPDX-License-Identifier: Apache-2.0 */
/* GridSample: Y[n,c,p,q] = X[n,c] at grid[n,p,q] = (x, y) in [-1, 1]; X[N,C,H,W], grid[N,P,Q,2]; or with one or three spatial axes, the grid's last
 * axis naming the image's last one first. Modes bilinear (linear), nearest, bicubic (cubic, a = -0.75); padding zeros, border, reflection;
 * align_corners. ONNX since 16 (20 renames the modes and allows other than two axes).
 * mest.GridSampleGrad (X, grid, dY) -> dX, dgrid. Nearest has no gradient for the grid (it is zero). */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct grid_params {
    const char *mode, *padding;
    int64_t align;
} grid_params;

enum { AXES = 3, CORNERS = 64 }; /* at most 4 taps on each of three axes */
typedef enum grid_mode { LINEAR, NEAREST, CUBIC, BAD_MODE } grid_mode;
typedef enum grid_pad { ZEROS, BORDER, REFLECTION, BAD_PAD } grid_pad;

static grid_mode mode_of(const char *s)
{
    return !s || !strcmp(s, "bilinear") || !strcmp(s, "linear") ? LINEAR : !strcmp(s, "nearest") ? NEAREST
        : !strcmp(s, "bicubic") || !strcmp(s, "cubic") ? CUBIC : BAD_MODE;
}
static grid_pad pad_of(const char *s)
{
    return !s || !strcmp(s, "zeros") ? ZEROS : !strcmp(s, "border") ? BORDER : !strcmp(s, "reflection") ? REFLECTION : BAD_PAD;
}

static mest_status grid_infer(mest_infer *c)
{
    const grid_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape, *g = &c->in[1]->shape;
    char tx[64], tg[64];
    const int axes = x->rank - 2;
    if (axes < 1 || axes > AXES)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "an input of rank %d; one to three spatial axes (rank 3 to 5) are supported", x->rank);
    bool fits = g->rank == x->rank && g->dim[0] == x->dim[0] && g->dim[axes + 1] == axes;
    mest_shape y = *x;
    for (int i = 2; fits && i < x->rank; i++) {
        fits = x->dim[i] > 0;
        y.dim[i] = g->dim[i - 1];
    }
    MEST_INFER_CHECK(c, fits, "grid %s does not fit the input %s", mest_shape_text(g, tg, sizeof tg), mest_shape_text(x, tx, sizeof tx));
    MEST_INFER_CHECK(c, mode_of(p->mode) != BAD_MODE && pad_of(p->padding) != BAD_PAD, "mode \"%.20s\" or padding_mode \"%.20s\" is unknown",
                     p->mode ? p->mode : "", p->padding ? p->padding : "");
    return mest_infer_set(c, 0, MEST_F32, &y);
}

/* Coordinate u folded into the image of n pixels, and the factor by which a step in u moves it. */
static double fold(double u, int64_t n, grid_pad pad, bool align, double *slope)
{
    double last = (double)(n - 1);
    if (pad == REFLECTION) {
        double lo = align ? 0 : -0.5, size = align ? last : (double)n;
        if (size <= 0) {
            *slope = 0;
            return 0;
        }
        double d = u - lo, sign = d < 0 ? -1 : 1;
        d = fabs(d);
        double turns = floor(d / size), rest = d - turns * size;
        bool back = fmod(turns, 2) != 0;
        *slope *= back ? -sign : sign;
        u = (back ? size - rest : rest) + lo;
    }
    if (pad != ZEROS && (u < 0 || u > last)) {
        u = u < 0 ? 0 : last;
        *slope = 0;
    }
    return u;
}

/* The taps of one coordinate: first pixel, weights, their derivatives by the coordinate of the grid. */
typedef struct taps {
    int n;
    int64_t first;
    double w[4], dw[4];
} taps;

static double cubic(double t, double *slope) /* a = -0.75 */
{
    const double a = -0.75, s = t < 0 ? -1 : 1;
    t = fabs(t);
    if (t <= 1) {
        *slope = s * (3 * (a + 2) * t * t - 2 * (a + 3) * t);
        return ((a + 2) * t - (a + 3)) * t * t + 1;
    }
    *slope = s * (3 * a * t * t - 10 * a * t + 8 * a);
    return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a;
}

static taps taps_of(double g, int64_t n, grid_mode mode, grid_pad pad, bool align)
{
    taps t = { .n = 1 };
    double slope = (align ? (double)(n - 1) : (double)n) / 2, u = align ? (g + 1) * slope : ((g + 1) * (double)n - 1) / 2;
    if (!(fabs(u) < 1e9)) /* far away, or not a number */
        u = -1e9;
    if (mode != CUBIC)
        u = fold(u, n, pad, align, &slope); /* a cubic folds each tap */
    if (mode == NEAREST) {
        t.first = (int64_t)nearbyint(u);
        t.w[0] = 1;
        return t;
    }
    double low = floor(u);
    if (mode == LINEAR) {
        t.n = 2;
        t.first = (int64_t)low;
        t.w[1] = u - low;
        t.w[0] = 1 - t.w[1];
        t.dw[0] = -slope;
        t.dw[1] = slope;
        return t;
    }
    t.n = 4;
    t.first = (int64_t)low - 1;
    for (int i = 0; i < 4; i++) {
        t.w[i] = cubic(u - (low - 1 + i), &t.dw[i]);
        t.dw[i] *= slope;
    }
    return t;
}

/* Pixel of a tap; -1: outside, counts as zero. */
static int64_t pixel(int64_t i, int64_t n, grid_mode mode, grid_pad pad, bool align)
{
    double none = 1;
    if (mode == CUBIC && pad != ZEROS)
        i = (int64_t)nearbyint(fold((double)i, n, pad, align, &none));
    if (pad != ZEROS) /* rounding may leave the image by one */
        i = i < 0 ? 0 : i >= n ? n - 1 : i;
    return i >= 0 && i < n ? i : -1;
}

typedef struct grid_job {
    grid_mode mode;
    grid_pad pad;
    bool align;
    int axes;
    int64_t c, plane, pixels, dim[AXES]; /* plane: pixels of an image; pixels: of a result */
    const mest_real *x, *grid, *dy;
    mest_real *y, *dx, *dgrid;
} grid_job;

static grid_job job_of(const mest_args *a)
{
    const grid_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape, *g = &a->in[1].type->shape;
    grid_job j = { .mode = mode_of(p->mode), .pad = pad_of(p->padding), .align = p->align != 0, .axes = x->rank - 2, .c = x->dim[1], .plane = 1, .pixels = 1,
                   .x = a->in[0].data, .grid = a->in[1].data };
    for (int i = 0; i < j.axes; i++) {
        j.dim[i] = x->dim[2 + i];
        j.plane *= j.dim[i];
        j.pixels *= g->dim[1 + i];
    }
    return j;
}

/* The pixels that make one result: place (-1: outside), weight, and the weight's derivative by each coordinate of the grid. */
typedef struct corners {
    int n;
    int64_t at[CORNERS];
    double w[CORNERS], dw[CORNERS][AXES];
} corners;

static void corners_of(const grid_job *j, const mest_real *g, corners *k)
{
    taps t[AXES];
    k->n = 1;
    for (int i = 0; i < j->axes; i++) {
        t[i] = taps_of((double)g[j->axes - 1 - i], j->dim[i], j->mode, j->pad, j->align);
        k->n *= t[i].n;
    }
    for (int m = 0; m < k->n; m++) {
        int pick[AXES], rest = m;
        for (int i = j->axes - 1; i >= 0; i--) {
            pick[i] = rest % t[i].n;
            rest /= t[i].n;
        }
        k->at[m] = 0;
        k->w[m] = 1;
        for (int d = 0; d < j->axes; d++)
            k->dw[m][d] = 1;
        for (int i = 0; i < j->axes; i++) {
            const int64_t p = pixel(t[i].first + pick[i], j->dim[i], j->mode, j->pad, j->align);
            k->at[m] = p < 0 || k->at[m] < 0 ? -1 : k->at[m] * j->dim[i] + p;
            k->w[m] *= t[i].w[pick[i]];
            for (int d = 0; d < j->axes; d++)
                k->dw[m][d] *= d == i ? t[i].dw[pick[i]] : t[i].w[pick[i]];
        }
    }
}

/* One image. */
static void grid_tile(void *context, size_t tile)
{
    const grid_job *j = context;
    const int64_t n = (int64_t)tile;
    corners k;
    if (j->dx)
        memset(j->dx + n * j->c * j->plane, 0, (size_t)(j->c * j->plane) * sizeof *j->dx);
    for (int64_t o = 0; o < j->pixels; o++) {
        const int64_t at_grid = (n * j->pixels + o) * j->axes;
        double by[AXES] = { 0 };
        corners_of(j, j->grid + at_grid, &k);
        for (int64_t c = 0; c < j->c; c++) {
            const mest_real *x = j->x + (n * j->c + c) * j->plane;
            const int64_t out = (n * j->c + c) * j->pixels + o;
            double sum = 0, dy = j->dy ? (double)j->dy[out] : 0;
            for (int m = 0; m < k.n; m++) {
                if (k.at[m] < 0)
                    continue;
                sum += k.w[m] * (double)x[k.at[m]];
                if (j->dx)
                    j->dx[(n * j->c + c) * j->plane + k.at[m]] += (mest_real)(k.w[m] * dy);
                for (int d = 0; d < j->axes && j->dgrid; d++)
                    by[d] += k.dw[m][d] * (double)x[k.at[m]] * dy;
            }
            if (j->y)
                j->y[out] = (mest_real)sum;
        }
        for (int d = 0; d < j->axes && j->dgrid; d++)
            j->dgrid[at_grid + j->axes - 1 - d] = (mest_real)by[d];
    }
}

static mest_status grid_forward(const mest_args *a)
{
    grid_job j = job_of(a);
    j.y = a->out[0].data;
    mest_parallel(a->threads, (size_t)a->in[0].type->shape.dim[0], grid_tile, &j);
    return MEST_OK;
}

static mest_status grad_forward(const mest_args *a)
{
    grid_job j = job_of(a);
    j.dy = a->in[2].data;
    j.dx = a->out[0].data;
    j.dgrid = a->n_out > 1 ? a->out[1].data : NULL;
    mest_parallel(a->threads, (size_t)a->in[0].type->shape.dim[0], grid_tile, &j);
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c)
{
    for (int i = 0; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, MEST_F32, &c->in[i]->shape));
    return MEST_OK;
}

static mest_status grid_vjp(mest_vjp *v)
{
    return mest_give_grads(v, "mest.GridSampleGrad", NULL, 3, (mest_id[]){ mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0) }, 2);
}

static const mest_attr grid_attrs[] = {
    { .name = "mode", .kind = MEST_ATTR_STRING, .offset = offsetof(grid_params, mode), .text = "bilinear" },
    { .name = "padding_mode", .kind = MEST_ATTR_STRING, .offset = offsetof(grid_params, padding), .text = "zeros" },
    { .name = "align_corners", .kind = MEST_ATTR_INT, .offset = offsetof(grid_params, align) },
    { .name = NULL } };

const mest_op mest_ops_grid_sample[] = {
    { .domain = "", .name = "GridSample", .limits = "more than three spatial axes", .since = 16, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .attrs = grid_attrs,
      .params_bytes = sizeof(grid_params), .infer = grid_infer, .forward = grid_forward, .vjp = grid_vjp },
    { .domain = "mest", .name = "mest.GridSampleGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 2,
      .params_bytes = sizeof(grid_params), .infer = grad_infer, .forward = grad_forward },
    { .name = NULL },
};
