/* SPDX-License-Identifier: Apache-2.0 */
/* Resize(X, roi?, scales?, sizes?): nearest (all rounding modes), linear and cubic in any number of axes, all coordinate modes; float.
 * roi, scales and sizes are constants; an empty tensor means absent (opset 11).
 * Every output element is a weighted sum of input elements: the product over the axes of 1, 2 or 4 weights each.
 * antialias: where an axis shrinks, the linear or cubic filter is stretched by 1 / scale and its weights are divided by their sum (ONNX since 18).
 * A stretched window has any number of weights: they are computed where they are used.
 * mest.ResizeGrad(dY): the transposed weights (params: resize_places). */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct resize_params {
    const char *mode, *coordinates, *nearest, *policy;
    double cubic_a, extrapolation;
    int64_t exclude_outside, antialias;
    mest_ints axes;
} resize_params;

typedef enum coordinate_mode { HALF_PIXEL, PYTORCH_HALF_PIXEL, ALIGN_CORNERS, ASYMMETRIC, SYMMETRIC, TF_CROP, TF_HALF_PIXEL_NN } coordinate_mode;
typedef enum rounding { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL } rounding;
typedef enum interpolation { NEAREST, LINEAR, CUBIC } interpolation;

typedef struct resize_places {
    mest_shape x, y;
    double scale[MEST_MAX_RANK], roi_start[MEST_MAX_RANK], roi_end[MEST_MAX_RANK];
    interpolation mode;
    coordinate_mode coordinates;
    rounding nearest;
    double cubic_a, extrapolation;
    bool exclude_outside, antialias;
} resize_places;

typedef struct taps {
    int64_t n;
    bool outside; /* tf_crop_and_resize: takes the extrapolation value */
    bool wide;    /* a stretched filter: at and w are not used */
    int64_t at[4];
    mest_real w[4];
    int64_t first, last; /* wide: the first position, maybe before the axis; the axis' last one */
    double centre, stretch, norm;
} taps;

/* ---- where output positions lie in the input ---- */
static double coordinate(const resize_places *p, int axis, int64_t i)
{
    double n = (double)p->x.dim[axis], m = (double)p->y.dim[axis], x = (double)i, s = p->scale[axis];
    switch (p->coordinates) {
    case PYTORCH_HALF_PIXEL: return m > 1 ? (x + 0.5) / s - 0.5 : 0;
    case ALIGN_CORNERS: return m > 1 ? x * (n - 1) / (m - 1) : 0;
    case ASYMMETRIC: return x / s;
    case SYMMETRIC: return n / 2 * (1 - m / (s * n)) + (x + 0.5) / s - 0.5;
    case TF_CROP:
        return m > 1 ? p->roi_start[axis] * (n - 1) + x * (p->roi_end[axis] - p->roi_start[axis]) * (n - 1) / (m - 1)
                     : 0.5 * (p->roi_start[axis] + p->roi_end[axis]) * (n - 1);
    case TF_HALF_PIXEL_NN: return (x + 0.5) / s;
    default: return (x + 0.5) / s - 0.5;
    }
}

static double cubic_weight(double a, double d)
{
    d = fabs(d);
    return d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

/* Weight of a position of a stretched filter, before the division by the sum. */
static double wide_weight(const resize_places *p, const taps *t, int64_t at)
{
    double d = ((double)at - t->centre) * t->stretch;
    if (p->exclude_outside && (at < 0 || at > t->last))
        return 0;
    return p->mode == CUBIC ? cubic_weight(p->cubic_a, d) : fabs(d) < 1 ? 1 - fabs(d) : 0;
}

static inline int64_t tap_at(const taps *t, int64_t k)
{
    if (!t->wide)
        return t->at[k];
    int64_t at = t->first + k;
    return at < 0 ? 0 : at > t->last ? t->last : at;
}

static inline mest_real tap_weight(const resize_places *p, const taps *t, int64_t k)
{
    return t->wide ? (mest_real)(wide_weight(p, t, t->first + k) * t->norm) : t->w[k];
}

/* The window has at most 4 / stretch + 1 positions, and an axis of n elements shrinks to one or more: stretch is 1 / (2 n) at least. */
static taps wide_taps(const resize_places *p, double centre, double stretch, int64_t n)
{
    const double support = (p->mode == CUBIC ? 2 : 1) / stretch;
    taps t = {.wide = true, .centre = centre, .stretch = stretch, .last = n - 1, .first = (int64_t)floor(centre - support) + 1};
    double sum = 0;
    t.n = (int64_t)ceil(centre + support) - t.first;
    for (int64_t k = 0; k < t.n; k++)
        sum += wide_weight(p, &t, t.first + k);
    t.norm = sum != 0 ? 1 / sum : 0;
    return t;
}

static taps taps_at(const resize_places *p, int axis, int64_t i)
{
    taps t = {.n = 1, .w = {1}};
    int64_t n = p->x.dim[axis];
    if (p->x.dim[axis] == p->y.dim[axis] && p->scale[axis] == 1 && p->coordinates != TF_CROP) {
        t.at[0] = i;
        return t;
    }
    double c = coordinate(p, axis, i);
    t.outside = p->coordinates == TF_CROP && (c < 0 || c > (double)(n - 1));
    if (p->coordinates == TF_CROP && p->mode == NEAREST && fabs(2 * c - rint(2 * c)) < 1e-6 * (double)n)
        c = rint(2 * c) / 2; /* roi is float32: 0.2f * 5 is meant to be 1 */
    c = c < -1e15 ? -1e15 : c > 1e15 ? 1e15 : c; /* a roi of any size stays convertible */
    double low = floor(c), part = c - low;
    if (p->antialias && p->mode != NEAREST && p->scale[axis] < 1 && !t.outside)
        return wide_taps(p, c, p->scale[axis], n);
    if (p->mode == NEAREST) {
        double r = p->nearest == FLOOR ? low : p->nearest == CEIL ? ceil(c) : p->nearest == PREFER_CEIL ? floor(c + 0.5) : ceil(c - 0.5);
        t.at[0] = r < 0 ? 0 : r > (double)(n - 1) ? n - 1 : (int64_t)r;
        return t;
    }
    t.n = p->mode == LINEAR ? 2 : 4;
    double w[4], sum = 0;
    for (int k = 0; k < t.n; k++) {
        int64_t at = (int64_t)low + k - (p->mode == CUBIC);
        w[k] = p->mode == LINEAR ? (k ? part : 1 - part) : cubic_weight(p->cubic_a, (double)(k - 1) - part);
        if (p->exclude_outside && (at < 0 || at >= n))
            w[k] = 0;
        sum += w[k];
        t.at[k] = at < 0 ? 0 : at >= n ? n - 1 : at;
    }
    for (int k = 0; k < t.n; k++)
        t.w[k] = (mest_real)(p->exclude_outside && sum != 0 ? w[k] / sum : w[k]);
    return t;
}

/* ---- sizes and modes from attributes and inputs ---- */
static int find(const char *const *names, const char *text)
{
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], text))
            return i;
    return -1;
}

static const char *modes_of(const resize_params *q, resize_places *p)
{
    static const char *const modes[] = {"nearest", "linear", "cubic", NULL};
    static const char *const coordinates[] = {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric",
                                              "tf_crop_and_resize", "tf_half_pixel_for_nn", NULL};
    static const char *const roundings[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil", NULL};
    int m = find(modes, q->mode ? q->mode : "nearest");
    int k = find(coordinates, q->coordinates ? q->coordinates : "half_pixel");
    int r = find(roundings, q->nearest ? q->nearest : "round_prefer_floor");
    if (m < 0)
        return "mode is none of nearest, linear, cubic";
    if (k < 0)
        return "coordinate_transformation_mode is unknown";
    if (r < 0)
        return "nearest_mode is unknown";
    p->mode = (interpolation)m;
    p->coordinates = (coordinate_mode)k;
    p->nearest = (rounding)r;
    p->cubic_a = q->cubic_a;
    p->extrapolation = q->extrapolation;
    p->exclude_outside = q->exclude_outside != 0;
    p->antialias = q->antialias != 0;
    return NULL;
}

static double number_at(const mest_type *t, const void *data, int64_t i)
{
    return t->dtype == MEST_F32 ? (double)((const mest_real *)data)[i] : t->dtype == MEST_F64 ? ((const double *)data)[i] : (double)mest_int_at(t->dtype, data, i);
}

static int64_t elements(const mest_type *t)
{
    int64_t n;
    return t && mest_shape_count(&t->shape, &n) ? n : 0;
}

/* types and data of the inputs X, roi, scales, sizes; a NULL type is absent. Returns a text on failure. */
static const char *resolve(const resize_params *q, const mest_type *const type[4], const void *const data[4], resize_places *p)
{
    memset(p, 0, sizeof *p);
    const char *why = modes_of(q, p);
    if (why)
        return why;
    int rank = type[0]->shape.rank, n = q->axes.n ? q->axes.n : rank, axes[MEST_MAX_RANK];
    p->x = p->y = type[0]->shape;
    if (n > rank)
        return "there are more axes than the input has";
    for (int i = 0; i < rank; i++) {
        p->scale[i] = 1;
        p->roi_end[i] = 1;
    }
    for (int i = 0; i < n; i++)
        if ((axes[i] = mest_axis(q->axes.n ? q->axes.v[i] : i, rank)) < 0)
            return "an axis is out of range";
    bool by_scale = elements(type[2]) > 0, by_size = elements(type[3]) > 0;
    if (by_scale == by_size)
        return "exactly one of scales and sizes must be given";
    int from = by_scale ? 2 : 3;
    if (elements(type[from]) != n)
        return "scales or sizes do not fit the number of axes";
    if (!data[from])
        return "scales and sizes must be constants";
    if (by_scale ? !mest_dtype_is_float(type[2]->dtype) : !mest_dtype_is_index(type[3]->dtype))
        return "scales must be float32, sizes int64";
    double ratio = 0; /* one scale for all axes, under a keep_aspect_ratio_policy */
    bool not_larger = q->policy && !strcmp(q->policy, "not_larger"), not_smaller = q->policy && !strcmp(q->policy, "not_smaller");
    for (int i = 0; by_size && i < n; i++) {
        double d = (double)p->x.dim[axes[i]], r = d > 0 ? number_at(type[3], data[3], i) / d : 0;
        ratio = i == 0 || (not_larger ? r < ratio : r > ratio) ? r : ratio;
    }
    for (int i = 0; i < n; i++) {
        int axis = axes[i];
        double d = (double)p->x.dim[axis], v = number_at(type[from], data[from], i), size;
        if (!(v > 0 && v < 0x1p40))
            return "scales and sizes must be positive and below 2^40";
        if (by_scale) {
            p->scale[axis] = v;
            size = floor(d * v);
        } else if (not_larger || not_smaller) {
            p->scale[axis] = ratio;
            size = floor(d * ratio + 0.5);
        } else {
            p->scale[axis] = d > 0 ? v / d : 1;
            size = v;
        }
        if (!(size < 0x1p40))
            return "the result is too large";
        if (d == 0 && size > 0)
            return "an empty axis cannot grow";
        p->y.dim[axis] = (int64_t)size;
    }
    if (p->coordinates == TF_CROP) {
        if (elements(type[1]) != 2 * n || !data[1] || !mest_dtype_is_float(type[1]->dtype))
            return "tf_crop_and_resize needs a constant roi of two numbers for each axis";
        for (int i = 0; i < n; i++) {
            p->roi_start[axes[i]] = number_at(type[1], data[1], i);
            p->roi_end[axes[i]] = number_at(type[1], data[1], i + n);
        }
    }
    return NULL;
}

static mest_status resize_infer(mest_infer *c)
{
    const mest_type *type[4] = {NULL};
    const void *data[4] = {NULL};
    resize_places p;
    for (int i = 0; i < c->n_in; i++) {
        type[i] = c->in[i];
        data[i] = c->in_data[i];
    }
    if (type[0]->dtype != MEST_F32)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(type[0]->dtype));
    const char *why = resolve(c->params, type, data, &p);
    MEST_INFER_CHECK(c, !why, "%s", why);
    return mest_infer_set(c, 0, MEST_F32, &p.y);
}

/* ---- forward and gradient ---- */
enum { CHUNK = 64 }; /* output positions of the last axis whose taps are kept */

typedef struct resize_job {
    const resize_places *p;
    const mest_real *in; /* X, or dY */
    mest_real *out;      /* Y, or dX */
    int lead;            /* leading axes that stay as they are: one tile for each index of theirs */
    bool gradient;
} resize_job;

/* One run of outputs y[0..n) along the last axis: every combination of taps of the other axes, times those of the last. */
static void run_row(const resize_job *j, const taps *outer, int n_outer, int64_t from, int64_t to, const taps *last, int64_t n)
{
    const resize_places *p = j->p;
    int rank = p->x.rank;
    int64_t pick[MEST_MAX_RANK] = {0};
    bool outside = false;
    for (int k = 0; k < n_outer; k++)
        outside |= outer[k].outside;
    if (!j->gradient)
        for (int64_t i = 0; i < n; i++)
            j->out[to + i] = outside || last[i].outside ? (mest_real)p->extrapolation : 0;
    if (outside)
        return;
    for (;;) {
        mest_real w = 1;
        int64_t base = 0;
        for (int k = 0; k < n_outer; k++) {
            w *= tap_weight(p, &outer[k], pick[k]);
            base = base * p->x.dim[rank - 1 - n_outer + k] + tap_at(&outer[k], pick[k]);
        }
        base = from + base * p->x.dim[rank - 1];
        for (int64_t i = 0; i < n; i++) {
            const taps *t = &last[i];
            if (t->outside)
                continue;
            for (int64_t k = 0; k < t->n; k++) {
                if (j->gradient)
                    j->out[base + tap_at(t, k)] += w * tap_weight(p, t, k) * j->in[to + i];
                else
                    j->out[to + i] += w * tap_weight(p, t, k) * j->in[base + tap_at(t, k)];
            }
        }
        int k = n_outer - 1;
        for (; k >= 0 && ++pick[k] == outer[k].n; k--)
            pick[k] = 0;
        if (k < 0)
            return;
    }
}

static void resize_tile(void *context, size_t tile)
{
    const resize_job *j = context;
    const resize_places *p = j->p;
    int rank = p->x.rank, n_outer = rank - 1 - j->lead;
    int64_t from = (int64_t)tile * mest_shape_span(&p->x, j->lead, rank), to = (int64_t)tile * mest_shape_span(&p->y, j->lead, rank);
    int64_t rows = mest_shape_span(&p->y, j->lead, rank - 1), width = p->y.dim[rank - 1];
    taps outer[MEST_MAX_RANK], last[CHUNK];
    for (int64_t x = 0; x < width; x += CHUNK) {
        int64_t n = width - x < CHUNK ? width - x : CHUNK;
        for (int64_t i = 0; i < n; i++)
            last[i] = taps_at(p, rank - 1, x + i);
        for (int64_t row = 0; row < rows; row++) {
            int64_t rest = row;
            for (int k = n_outer - 1; k >= 0; k--) {
                outer[k] = taps_at(p, j->lead + k, rest % p->y.dim[j->lead + k]);
                rest /= p->y.dim[j->lead + k];
            }
            run_row(j, outer, n_outer, from, to + row * width + x, last, n);
        }
    }
}

static void run(const mest_args *a, const resize_places *p, bool gradient)
{
    resize_job j = {.p = p, .in = a->in[0].data, .out = a->out[0].data, .gradient = gradient};
    int64_t tiles = 1, n;
    if (p->x.rank == 0 || !mest_shape_count(&p->y, &n) || n == 0)
        return;
    while (j.lead < p->x.rank - 1 && p->scale[j.lead] == 1 && p->x.dim[j.lead] == p->y.dim[j.lead] && p->coordinates != TF_CROP)
        tiles *= p->x.dim[j.lead++];
    mest_parallel(a->threads, (size_t)tiles, resize_tile, &j);
}

static mest_status resize_forward(const mest_args *a)
{
    const mest_type *type[4] = {NULL};
    const void *data[4] = {NULL};
    resize_places p;
    for (int i = 0; i < a->n_in; i++)
        if (a->in[i].data) {
            type[i] = a->in[i].type;
            data[i] = a->in[i].data;
        }
    const char *why = resolve(a->params, type, data, &p);
    if (why || !mest_shape_equal(&p.y, &a->out[0].type->shape))
        return mest_run_fail(a, MEST_E_DATA, "%s", why ? why : "the sizes changed");
    if (p.x.rank == 0)
        return mest_forward_copy(a);
    run(a, &p, false);
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &((const resize_places *)c->params)->x); }

static mest_status grad_forward(const mest_args *a)
{
    memset(a->out[0].data, 0, a->out[0].count * sizeof(mest_real));
    run(a, a->params, true);
    return MEST_OK;
}

static mest_status resize_vjp(mest_vjp *v)
{
    const mest_type *type[4] = {NULL};
    const void *data[4] = {NULL};
    mest_id dy = mest_dout(v, 0);
    resize_places *p = mest_vjp_alloc(v, sizeof *p);
    if (!p)
        return mest_vjp_nomem(v);
    for (int i = 0; i < 4; i++)
        if (mest_in(v, i) != MEST_NONE) {
            type[i] = mest_vjp_type(v, mest_in(v, i));
            data[i] = mest_vjp_data(v, mest_in(v, i));
        }
    const char *why = resolve(mest_vjp_node(v)->params, type, data, p);
    if (why)
        return mest_fail(mest_vjp_err(v), MEST_E_INTERNAL, "Resize '%s': %s", mest_vjp_node(v)->name, why);
    return mest_give_op(v, 0, "mest.ResizeGrad", p, 1, &dy);
}

#define TEXT(name_, field, default_) {.name = name_, .kind = MEST_ATTR_STRING, .offset = offsetof(resize_params, field), .text = default_}
static const mest_attr resize_attrs[] = {
    TEXT("mode", mode, "nearest"),
    TEXT("coordinate_transformation_mode", coordinates, "half_pixel"),
    TEXT("nearest_mode", nearest, "round_prefer_floor"),
    TEXT("keep_aspect_ratio_policy", policy, "stretch"),
    {.name = "cubic_coeff_a", .kind = MEST_ATTR_FLOAT, .offset = offsetof(resize_params, cubic_a), .number = -0.75},
    {.name = "extrapolation_value", .kind = MEST_ATTR_FLOAT, .offset = offsetof(resize_params, extrapolation)},
    {.name = "exclude_outside", .kind = MEST_ATTR_INT, .offset = offsetof(resize_params, exclude_outside)},
    {.name = "antialias", .kind = MEST_ATTR_INT, .offset = offsetof(resize_params, antialias)},
    {.name = "axes", .kind = MEST_ATTR_INTS, .offset = offsetof(resize_params, axes)},
    {.name = NULL}};

const mest_op mest_ops_resize[] = {
    {.domain = "", .name = "Resize", .limits = "numbers other than float32", .since = 10, .in_min = 1, .in_max = 4, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, .attrs = resize_attrs,
     .params_bytes = sizeof(resize_params), .infer = resize_infer, .forward = resize_forward, .vjp = resize_vjp},
    {.domain = "mest", .name = "mest.ResizeGrad", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .infer = grad_infer,
     .forward = grad_forward},
    {.name = NULL},
};
