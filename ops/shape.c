/* SPDX-License-Identifier: Apache-2.0 */
/* Values made of shapes: Shape (start, end), Size, ConstantOfShape, Range. None has a gradient. */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct shape_op_params { int64_t start, end; int32_t end_given; } shape_op_params;

static int64_t clamp(int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; }

static void shape_part(const shape_op_params *p, int rank, int *from, int *to)
{
    int64_t s = p->start, e = p->end_given ? p->end : rank;
    *from = (int)clamp(s < 0 ? s + rank : s, 0, rank);
    *to = (int)clamp(e < 0 ? e + rank : e, *from, rank);
}

static mest_status shape_infer(mest_infer *c)
{
    int from, to;
    shape_part(c->params, c->in[0]->shape.rank, &from, &to);
    mest_shape s = mest_shape_vector(to - from);
    return mest_infer_set(c, 0, MEST_I64, &s);
}

static mest_status shape_forward(const mest_args *a)
{
    int from, to;
    const mest_shape *s = &a->in[0].type->shape;
    shape_part(a->params, s->rank, &from, &to);
    for (int i = from; i < to; i++)
        ((int64_t *)a->out[0].data)[i - from] = s->dim[i];
    return MEST_OK;
}

static mest_status size_infer(mest_infer *c)
{
    mest_shape scalar = {0};
    return mest_infer_set(c, 0, MEST_I64, &scalar);
}

static mest_status size_forward(const mest_args *a)
{
    int64_t n;
    if (!mest_shape_count(&a->in[0].type->shape, &n))
        return mest_run_fail(a, MEST_E_SHAPE, "the size of the input is unknown");
    *(int64_t *)a->out[0].data = n;
    return MEST_OK;
}

/* ---- ConstantOfShape ---- */
typedef struct fill_params { mest_attr_tensor value; } fill_params;

static mest_status constant_infer(mest_infer *c)
{
    const fill_params *p = c->params;
    int64_t n;
    mest_shape s = {0};
    int rank = 0;
    if (p->value.data)
        MEST_INFER_CHECK(c, mest_shape_count(&p->value.type.shape, &n) && n == 1, "the value must have one element");
    MEST_TRY(mest_infer_ints(c, 0, MEST_MAX_RANK, s.dim, &rank));
    s.rank = rank;
    return mest_infer_set(c, 0, p->value.data ? p->value.type.dtype : MEST_F32, &s);
}

static mest_status constant_forward(const mest_args *a)
{
    const fill_params *p = a->params;
    static const uint64_t zero = 0;
    mest_fill_elements(a->out[0].data, (int64_t)a->out[0].count, mest_dtype_size(a->out[0].type->dtype), p->value.data ? p->value.data : &zero);
    return MEST_OK;
}

/* ---- Range ---- */
static double scalar_at(mest_dtype t, const void *data)
{
    return t == MEST_F32 ? (double)*(const mest_real *)data : t == MEST_F64 ? *(const double *)data : (double)mest_int_at(t, data, 0);
}

static mest_status range_infer(mest_infer *c)
{
    mest_dtype t = c->in[0]->dtype;
    if (!mest_dtype_is_float(t) && !mest_dtype_is_index(t))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(t));
    for (int i = 0; i < 3; i++) {
        int64_t n;
        MEST_INFER_CHECK(c, c->in[i]->dtype == t && mest_shape_count(&c->in[i]->shape, &n) && n == 1,
                         "input %d must be a scalar of the type of input 0", i);
        if (!c->in_data[i])
            return mest_infer_fail(c, MEST_E_UNSUPPORTED, "input %d decides the shape of the result and must be a constant", i);
    }
    double start = scalar_at(t, c->in_data[0]), limit = scalar_at(t, c->in_data[1]), delta = scalar_at(t, c->in_data[2]);
    MEST_INFER_CHECK(c, delta != 0, "the step is 0");
    double n = ceil((limit - start) / delta);
    MEST_INFER_CHECK(c, n == n, "start, limit and step give no number of elements");
    if (n > (double)MEST_VALUE_LIMIT_BYTES)
        return mest_infer_fail(c, MEST_E_LIMIT, "%.0f elements are too many", n);
    mest_shape s = mest_shape_vector(n > 0 ? (int64_t)n : 0);
    return mest_infer_set(c, 0, t, &s);
}

static mest_status range_forward(const mest_args *a)
{
    mest_dtype t = a->out[0].type->dtype;
    for (int64_t i = 0; i < (int64_t)a->out[0].count; i++) {
        if (t == MEST_F32)
            ((mest_real *)a->out[0].data)[i] = *(const mest_real *)a->in[0].data + (mest_real)i * *(const mest_real *)a->in[2].data;
        else if (t == MEST_F64)
            ((double *)a->out[0].data)[i] = *(const double *)a->in[0].data + (double)i * *(const double *)a->in[2].data;
        else {
            int64_t x = (int64_t)((uint64_t)mest_int_at(t, a->in[0].data, 0) + (uint64_t)i * (uint64_t)mest_int_at(t, a->in[2].data, 0));
            if (t == MEST_I64)
                ((int64_t *)a->out[0].data)[i] = x;
            else
                ((int32_t *)a->out[0].data)[i] = (int32_t)x;
        }
    }
    return MEST_OK;
}

static const mest_attr shape_attrs[] = {
    {.name = "start", .kind = MEST_ATTR_INT, .offset = offsetof(shape_op_params, start)},
    {.name = "end", .kind = MEST_ATTR_INT, .offset = offsetof(shape_op_params, end), .given_used = true},
    {.name = NULL}};
static const mest_attr fill_attrs[] = {{.name = "value", .kind = MEST_ATTR_TENSOR, .offset = offsetof(fill_params, value)}, {.name = NULL}};

const mest_op mest_ops_shape[] = {
    {.domain = "", .name = "Shape", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ANY_TYPE | MEST_OP_TYPE_ONLY, .attrs = shape_attrs, .params_bytes = sizeof(shape_op_params), .infer = shape_infer,
     .forward = shape_forward, .no_grad = true},
    {.domain = "", .name = "Size", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ANY_TYPE | MEST_OP_TYPE_ONLY, .infer = size_infer, .forward = size_forward, .no_grad = true},
    {.domain = "", .name = "ConstantOfShape", .since = 9, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = fill_attrs, .params_bytes = sizeof(fill_params), .infer = constant_infer, .forward = constant_forward, .no_grad = true},
    {.domain = "", .name = "Range", .since = 11, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .infer = range_infer, .forward = range_forward, .no_grad = true},
    {.name = NULL},
};
