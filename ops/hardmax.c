/* SPDX-License-Identifier: Apache-2.0 */
/* Hardmax: 1 at the first largest element, 0 elsewhere; along one axis since 13 (default -1), before of each row of the matrix cut at `axis`
 * (default 1). EyeLike: a matrix of the shape of X with ones on diagonal k, in the type `dtype` or that of X. Neither has a gradient. */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct hardmax_params { int64_t axis, flatten; } hardmax_params;

#define HARDMAX_ATTRS(default_axis, default_flatten)                                                                               \
    {                                                                                                                              \
        { .name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(hardmax_params, axis), .number = default_axis },               \
        { .name = "mest.flatten", .kind = MEST_ATTR_INT, .offset = offsetof(hardmax_params, flatten), .number = default_flatten }, \
        { .name = NULL },                                                                                                          \
    }
static const mest_attr attrs_1[] = HARDMAX_ATTRS(1, 1);
static const mest_attr attrs_13[] = HARDMAX_ATTRS(-1, 0);

static mest_status hardmax_infer(mest_infer *c)
{
    const hardmax_params *p = c->params;
    int rank = c->in[0]->shape.rank;
    MEST_INFER_CHECK(c, mest_axis(p->axis, rank) >= 0 || (p->flatten && p->axis == rank), "axis %" PRId64 " of an input of rank %d", p->axis, rank);
    return mest_infer_float(c);
}

static mest_status hardmax_forward(const mest_args *a)
{
    const hardmax_params *p = a->params;
    const mest_shape *s = &a->in[0].type->shape;
    int axis = p->flatten && p->axis == s->rank ? s->rank : mest_axis(p->axis, s->rank);
    int64_t outer = mest_shape_span(s, 0, axis), size = p->flatten ? mest_shape_span(s, axis, s->rank) : s->dim[axis];
    int64_t inner = p->flatten ? 1 : mest_shape_span(s, axis + 1, s->rank);
    memset(a->out[0].data, 0, a->out[0].count * sizeof(mest_real));
    for (int64_t r = 0; size > 0 && r < outer * inner; r++) {
        const mest_real *x = (const mest_real *)a->in[0].data + r / inner * size * inner + r % inner;
        int64_t best = 0;
        for (int64_t k = 1; k < size; k++)
            best = x[k * inner] > x[best * inner] ? k : best;
        ((mest_real *)a->out[0].data)[r / inner * size * inner + r % inner + best * inner] = 1;
    }
    return MEST_OK;
}

typedef struct eye_params { int64_t dtype, k; } eye_params;
static const mest_attr eye_attrs[] = {
    { .name = "dtype", .kind = MEST_ATTR_INT, .offset = offsetof(eye_params, dtype) },
    { .name = "k", .kind = MEST_ATTR_INT, .offset = offsetof(eye_params, k) },
    { .name = NULL } };

static mest_status eye_infer(mest_infer *c)
{
    const eye_params *p = c->params;
    mest_dtype t = p->dtype ? (mest_dtype)p->dtype : c->in[0]->dtype;
    if (t == MEST_F64 || t == MEST_F16 || t == MEST_BF16) /* everything floating point is computed in one type */
        t = MEST_F32;
    MEST_INFER_CHECK(c, c->in[0]->shape.rank == 2, "the input has rank %d, 2 is needed", c->in[0]->shape.rank);
    if (mest_dtype_size(t) == 0)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %d is not supported", (int)t);
    return mest_infer_set(c, 0, t, &c->in[0]->shape);
}

static mest_status eye_forward(const mest_args *a)
{
    const mest_shape *s = &a->out[0].type->shape;
    mest_dtype t = a->out[0].type->dtype;
    size_t size = mest_dtype_size(t);
    int64_t k = ((const eye_params *)a->params)->k, whole = 1;
    const mest_real real = 1;
    const double wide = 1;
    const int32_t middle = 1;
    const int16_t narrow = 1;
    const uint8_t byte = 1;
    const void *one = t == MEST_F32 ? (const void *)&real : t == MEST_F64 ? (const void *)&wide : size == 8 ? (const void *)&whole
        : size == 4 ? (const void *)&middle : size == 2 ? (const void *)&narrow : (const void *)&byte;
    memset(a->out[0].data, 0, a->out[0].count * size);
    for (int64_t r = 0; r < s->dim[0]; r++)
        if (k > -s->dim[0] && k < s->dim[1] && r + k >= 0 && r + k < s->dim[1])
            memcpy((char *)a->out[0].data + (size_t)(r * s->dim[1] + r + k) * size, one, size);
    return MEST_OK;
}

#define HARDMAX(since_, attrs_)                                                                                             \
    { .domain = "", .name = "Hardmax", .since = since_, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .attrs = attrs_, \
      .params_bytes = sizeof(hardmax_params), .infer = hardmax_infer, .forward = hardmax_forward, .no_grad = true }

const mest_op mest_ops_hardmax[] = {
    HARDMAX(1, attrs_1),
    HARDMAX(13, attrs_13),
    { .domain = "", .name = "EyeLike", .since = 9, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE | MEST_OP_TYPE_ONLY,
      .attrs = eye_attrs, .params_bytes = sizeof(eye_params), .infer = eye_infer, .forward = eye_forward, .no_grad = true },
    { .name = NULL },
};
