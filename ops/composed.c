/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that exist here by their shape rule alone; passes write them out in others, which have kernels and gradients:
 *   LpNormalization            X / max(|X|_p, tiny) along one axis, p = 1 or 2. ONNX since 1
 *   MeanVarianceNormalization  (X - mean) / (deviation + 1e-9) over axes (0, 2, 3 unless given). ONNX since 9
 *   CenterCropPad              cut or filled with zeros to a constant shape, the middle stays. ONNX since 18
 *   DFT, STFT                  products with constant tables of cosines and sines; a transform of n points costs n^2. ONNX since 17 */
#include "ops/composed.h"
#include "ops/elements.h"

static mest_status lp_infer(mest_infer *c)
{
    const mest_lp_norm_params *p = c->params;
    int axis;
    MEST_TRY(mest_infer_axis(c, p->axis, c->in[0]->shape.rank, &axis));
    MEST_INFER_CHECK(c, p->p == 1 || p->p == 2, "p = %lld is neither 1 nor 2", (long long)p->p);
    return mest_infer_float(c);
}

static mest_status mvn_infer(mest_infer *c)
{
    const mest_axes_params *p = c->params;
    static const int64_t usual[] = {0, 2, 3};
    for (int i = 0; i < (p->axes.n ? p->axes.n : 3); i++) {
        int axis;
        MEST_TRY(mest_infer_axis(c, p->axes.n ? p->axes.v[i] : usual[i], c->in[0]->shape.rank, &axis));
    }
    return mest_infer_float(c);
}

static mest_status crop_infer(mest_infer *c)
{
    const mest_axes_params *p = c->params;
    mest_shape y = c->in[0]->shape;
    int64_t size[MEST_MAX_RANK];
    int n;
    MEST_TRY(mest_infer_ints(c, 1, MEST_MAX_RANK, size, &n));
    MEST_INFER_CHECK(c, n == (p->axes.n ? p->axes.n : y.rank), "%d sizes do not fit the axes", n);
    for (int i = 0; i < n; i++) {
        int axis;
        MEST_TRY(mest_infer_axis(c, p->axes.n ? p->axes.v[i] : i, y.rank, &axis));
        y.dim[axis] = size[i];
    }
    if (c->in[0]->dtype != MEST_F32)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(c->in[0]->dtype));
    return mest_infer_set(c, 0, MEST_F32, &y);
}

/* ---- DFT and STFT ---- */
enum { LONGEST = 1 << 13, LARGEST = 1 << 25 }; /* points of a transform; numbers of its table */

/* One integer of a constant; false: it is not one. */
static bool constant(const mest_type *t, const void *data, int64_t *v)
{
    int64_t n;
    if (!t || !data || !mest_dtype_is_index(t->dtype) || !mest_shape_count(&t->shape, &n) || n != 1)
        return false;
    *v = mest_int_at(t->dtype, data, 0);
    return true;
}

static const char *resolve_dft(const mest_spectrum_params *p, const mest_type *const *in, const void *const *data, int n_in, int64_t axis, mest_spectrum *s)
{
    const mest_shape *x = &in[0]->shape;
    if (n_in > 2 && in[2] && !constant(in[2], data[2], &axis))
        return "the axis must be a constant";
    s->axis = mest_axis(axis, x->rank);
    if (s->axis < 0 || s->axis == x->rank - 1)
        return "the axis is out of range, or the last one, which holds real and imaginary part";
    s->parts = x->dim[x->rank - 1];
    s->n = s->length = x->dim[s->axis];
    if (n_in > 1 && in[1] && !constant(in[1], data[1], &s->length))
        return "the length must be a constant";
    s->inverse = p->inverse != 0;
    if (s->inverse && p->onesided)
        return "inverse with onesided is not supported";
    return NULL;
}

static const char *resolve_stft(const mest_type *const *in, const void *const *data, int n_in, mest_spectrum *s)
{
    const mest_shape *x = &in[0]->shape;
    const mest_type *window = n_in > 2 ? in[2] : NULL;
    if (!constant(in[1], data[1], &s->step) || s->step < 1)
        return "frame_step must be a constant above 0";
    if (x->rank != 2 && !(x->rank == 3 && x->dim[2] == 1))
        return "a signal other than [B, L] or [B, L, 1] is not supported";
    s->parts = 1;
    s->n = x->dim[1];
    if (window && (window->dtype != MEST_F32 || window->shape.rank != 1 || !data[2]))
        return "the window must be a constant vector of float32";
    if (window)
        s->length = window->shape.dim[0];
    s->window = window ? data[2] : NULL;
    int64_t length = s->length;
    if (n_in > 3 && in[3] && !constant(in[3], data[3], &length))
        return "frame_length must be a constant";
    if (window && length != s->length)
        return "frame_length and the window's length differ";
    s->length = length;
    if (s->length < 1 || s->length > s->n)
        return "the signal is shorter than a frame, or the frame's length is not known";
    s->frames = (s->n - s->length) / s->step + 1;
    return NULL;
}

const char *mest_spectrum_of(const mest_node *node, const mest_type *const *in, const void *const *data, mest_spectrum *s, bool *unsupported)
{
    const mest_spectrum_params *p = node->params;
    const bool stft = node->op->name[0] == 'S';
    *s = (mest_spectrum){0};
    *unsupported = true;
    for (int i = 0; i < node->n_in; i++)
        if (in[i] && i == 0 && in[i]->dtype != MEST_F32)
            return "element types other than float32 are not supported";
    const char *why = stft ? resolve_stft(in, data, node->n_in, s) : in[0]->shape.rank < 2 ? "the input needs two axes at least"
                           : resolve_dft(p, in, data, node->n_in, node->op->since < 20 ? p->axis : -2, s);
    if (why)
        return why;
    if (s->length > LONGEST || s->length * s->n > LARGEST)
        return "the transform is too long: 8192 points are the limit";
    *unsupported = false;
    if (s->length < 1 || (s->parts != 1 && s->parts != 2))
        return "the length is below 1, or the last axis has neither one nor two numbers";
    s->bins = p->onesided ? s->length / 2 + 1 : s->length;
    return NULL;
}

static mest_status spectrum_infer(mest_infer *c)
{
    mest_spectrum s;
    bool unsupported;
    const char *why = mest_spectrum_of(c->node, c->in, c->in_data, &s, &unsupported);
    if (why)
        return mest_infer_fail(c, unsupported ? MEST_E_UNSUPPORTED : MEST_E_SHAPE, "%s", why);
    mest_shape y = c->in[0]->shape;
    if (c->node->op->name[0] == 'S') {
        y = (mest_shape){.rank = 4, .dim = {y.dim[0], s.frames, s.bins, 2}};
    } else {
        y.dim[s.axis] = s.bins;
        y.dim[y.rank - 1] = 2;
    }
    return mest_infer_set(c, 0, MEST_F32, &y);
}

static const mest_attr lp_attrs[] = {{.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(mest_lp_norm_params, axis), .number = -1},
                                     {.name = "p", .kind = MEST_ATTR_INT, .offset = offsetof(mest_lp_norm_params, p), .number = 2},
                                     {.name = NULL}};
static const mest_attr axes_attrs[] = {{.name = "axes", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_axes_params, axes)}, {.name = NULL}};
#define INVERSE {.name = "inverse", .kind = MEST_ATTR_INT, .offset = offsetof(mest_spectrum_params, inverse)}
#define ONESIDED(default_) {.name = "onesided", .kind = MEST_ATTR_INT, .offset = offsetof(mest_spectrum_params, onesided), .number = default_}
static const mest_attr dft_17[] = {{.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(mest_spectrum_params, axis), .number = 1}, INVERSE, ONESIDED(0), {.name = NULL}};
static const mest_attr dft_20[] = {INVERSE, ONESIDED(0), {.name = NULL}};
static const mest_attr stft[] = {ONESIDED(1), {.name = NULL}};

#define COMPOSED(onnx, since_, least, most, type, attrs_, rule, limits_)                                                                                       \
    {.domain = "", .name = onnx, .since = since_, .in_min = least, .in_max = most, .out_min = 1, .out_max = 1, \
     .flags = MEST_OP_ANY_TYPE, .attrs = attrs_, .params_bytes = sizeof(type), .infer = rule, .composed = true, .limits = limits_}

const mest_op mest_ops_composed[] = {
    COMPOSED("LpNormalization", 1, 1, 1, mest_lp_norm_params, lp_attrs, lp_infer, NULL),
    COMPOSED("MeanVarianceNormalization", 9, 1, 1, mest_axes_params, axes_attrs, mvn_infer, NULL),
    COMPOSED("CenterCropPad", 18, 2, 2, mest_axes_params, axes_attrs, crop_infer, NULL),
    COMPOSED("DFT", 17, 1, 2, mest_spectrum_params, dft_17, spectrum_infer, "inverse with onesided, more than 8192 points"),
    COMPOSED("DFT", 20, 1, 3, mest_spectrum_params, dft_20, spectrum_infer, "inverse with onesided, more than 8192 points"),
    COMPOSED("STFT", 17, 2, 4, mest_spectrum_params, stft, spectrum_infer, "complex signals, windows that are no constants, more than 8192 points"),
    {.name = NULL},
};
