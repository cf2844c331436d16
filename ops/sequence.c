/* SPDX-License-Identifier: Apache-2.0 */
/* Along axes: CumSum (exclusive, reverse), Trilu (upper, k), OneHot (axis; forward only).
 * Gradients: CumSum - the cumulative sum from the other end; Trilu - the same triangle of dY. */
#include <inttypes.h>

#include "ops/elements.h"

/* ---- CumSum(X, axis) ---- */
typedef struct cumsum_params { int64_t exclusive, reverse; } cumsum_params;

static mest_status cumsum_infer(mest_infer *c)
{
    int64_t axis, n;
    mest_dtype t = c->in[0]->dtype;
    int resolved;
    if (!mest_dtype_is_float(t) && !mest_dtype_is_index(t))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(t));
    MEST_INFER_CHECK(c, mest_dtype_is_index(c->in[1]->dtype) && mest_shape_count(&c->in[1]->shape, &n) && n == 1, "the axis must be one integer");
    if (c->in_data[1]) {
        axis = mest_int_at(c->in[1]->dtype, c->in_data[1], 0);
        MEST_TRY(mest_infer_axis(c, axis, c->in[0]->shape.rank, &resolved));
    }
    return mest_infer_set(c, 0, t, &c->in[0]->shape);
}

#define CUMSUM(T, ADD)                                                                                              \
    do {                                                                                                            \
        const T *x = a->in[0].data;                                                                                 \
        T *y = a->out[0].data;                                                                                      \
        for (int64_t o = 0; o < outer; o++)                                                                         \
            for (int64_t k = 0; k < d; k++)                                                                         \
                for (int64_t i = 0; i < inner; i++) {                                                               \
                    int64_t at = (o * d + (p->reverse ? d - 1 - k : k)) * inner + i;                                \
                    int64_t before = p->reverse ? at + inner : at - inner;                                          \
                    T sum = k == 0 ? (T)0 : y[before], last = k == 0 ? (T)0 : x[p->exclusive ? before : at];        \
                    if (k == 0)                                                                                     \
                        y[at] = p->exclusive ? (T)0 : x[at];                                                        \
                    else                                                                                            \
                        y[at] = (T)(ADD(sum, last));                                                                \
                }                                                                                                   \
    } while (0)
#define FLOAT_ADD(p_, q_) ((p_) + (q_))
#define WRAP_ADD(p_, q_) ((uint64_t)(p_) + (uint64_t)(q_))

static mest_status cumsum_forward(const mest_args *a)
{
    const cumsum_params *p = a->params;
    const mest_shape *s = &a->in[0].type->shape;
    int axis = mest_axis(mest_int_at(a->in[1].type->dtype, a->in[1].data, 0), s->rank);
    if (axis < 0)
        return mest_run_fail(a, MEST_E_DATA, "axis %" PRId64 " is out of range", mest_int_at(a->in[1].type->dtype, a->in[1].data, 0));
    int64_t outer = mest_shape_span(s, 0, axis), d = s->dim[axis], inner = mest_shape_span(s, axis + 1, s->rank);
    switch (a->in[0].type->dtype) {
    case MEST_F32: CUMSUM(mest_real, FLOAT_ADD); break;
    case MEST_F64: CUMSUM(double, FLOAT_ADD); break;
    case MEST_I64: CUMSUM(int64_t, WRAP_ADD); break;
    default: CUMSUM(int32_t, WRAP_ADD); break;
    }
    return MEST_OK;
}

static mest_status cumsum_vjp(mest_vjp *v)
{
    cumsum_params *p = mest_vjp_alloc(v, sizeof *p);
    mest_id in[2] = {mest_dout(v, 0), mest_in(v, 1)};
    if (!p)
        return mest_vjp_nomem(v);
    *p = *(const cumsum_params *)mest_vjp_node(v)->params;
    p->reverse = !p->reverse;
    return mest_give_op(v, 0, "CumSum", p, 2, in);
}

/* ---- Trilu(X, k?) ---- */
typedef struct trilu_params { int64_t upper; } trilu_params;

static mest_status trilu_infer(mest_infer *c)
{
    int64_t n;
    MEST_INFER_CHECK(c, c->in[0]->shape.rank >= 2, "the input has rank %d, at least 2 is needed", c->in[0]->shape.rank);
    if (c->n_in > 1 && c->in[1])
        MEST_INFER_CHECK(c, mest_dtype_is_index(c->in[1]->dtype) && mest_shape_count(&c->in[1]->shape, &n) && n == 1, "k must be one integer");
    return mest_infer_set(c, 0, c->in[0]->dtype, &c->in[0]->shape);
}

static mest_status trilu_forward(const mest_args *a)
{
    const mest_shape *s = &a->in[0].type->shape;
    int64_t k = a->n_in > 1 && a->in[1].data ? mest_int_at(a->in[1].type->dtype, a->in[1].data, 0) : 0;
    int64_t rows = s->dim[s->rank - 2], cols = s->dim[s->rank - 1], planes = mest_shape_span(s, 0, s->rank - 2);
    bool upper = ((const trilu_params *)a->params)->upper != 0;
    size_t size = mest_dtype_size(a->out[0].type->dtype);
    k = k > cols ? cols : k < -rows ? -rows : k;
    for (int64_t r = 0; r < planes * rows; r++) {
        /* upper keeps columns >= row + k, lower those <= row + k */
        int64_t edge = r % rows + k + (upper ? 0 : 1);
        edge = edge < 0 ? 0 : edge > cols ? cols : edge;
        const char *x = (const char *)a->in[0].data + (size_t)(r * cols) * size;
        char *y = (char *)a->out[0].data + (size_t)(r * cols) * size;
        size_t left = (size_t)edge * size, right = (size_t)(cols - edge) * size;
        memset(upper ? y : y + left, 0, upper ? left : right);
        memcpy(upper ? y + left : y, upper ? x + left : x, upper ? right : left);
    }
    return MEST_OK;
}

static mest_status trilu_vjp(mest_vjp *v)
{
    mest_id in[2] = {mest_dout(v, 0), mest_in(v, 1)};
    return mest_give_op(v, 0, "Trilu", NULL, in[1] == MEST_NONE ? 1 : 2, in);
}

/* ---- OneHot(indices, depth, [off, on]) ---- */
static mest_status one_hot_infer(mest_infer *c)
{
    int64_t n, depth, axis = ((const mest_axis_params *)c->params)->axis;
    const mest_shape *k = &c->in[0]->shape;
    MEST_INFER_CHECK(c, mest_dtype_is_index(c->in[0]->dtype) || c->in[0]->dtype == MEST_F32, "indices are %s", mest_dtype_name(c->in[0]->dtype));
    MEST_INFER_CHECK(c, mest_shape_count(&c->in[1]->shape, &n) && n == 1 && (mest_dtype_is_index(c->in[1]->dtype) || c->in[1]->dtype == MEST_F32),
                     "the depth must be one number");
    if (!c->in_data[1])
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "the depth decides the shape of the result and must be a constant");
    double real = c->in[1]->dtype == MEST_F32 ? (double)*(const mest_real *)c->in_data[1] : (double)mest_int_at(c->in[1]->dtype, c->in_data[1], 0);
    MEST_INFER_CHECK(c, real >= 1 && real < 0x1p40, "the depth is %g", real);
    depth = (int64_t)real;
    MEST_INFER_CHECK(c, mest_shape_count(&c->in[2]->shape, &n) && n == 2, "the values must be two elements");
    MEST_INFER_CHECK(c, k->rank < MEST_MAX_RANK, "the result has more than %d axes", MEST_MAX_RANK);
    int at;
    mest_shape y = {.rank = k->rank + 1};
    MEST_TRY(mest_infer_axis(c, axis, y.rank, &at));
    for (int i = 0, from = 0; i < y.rank; i++)
        y.dim[i] = i == at ? depth : k->dim[from++];
    return mest_infer_set(c, 0, c->in[2]->dtype, &y);
}

static mest_status one_hot_forward(const mest_args *a)
{
    const mest_shape *y = &a->out[0].type->shape;
    int axis = mest_axis(((const mest_axis_params *)a->params)->axis, y->rank);
    int64_t depth = y->dim[axis], inner = mest_shape_span(y, axis + 1, y->rank);
    size_t size = mest_dtype_size(a->out[0].type->dtype);
    mest_fill_elements(a->out[0].data, (int64_t)a->out[0].count, size, a->in[2].data);
    for (int64_t i = 0; i < (int64_t)a->in[0].count; i++) {
        double real = a->in[0].type->dtype == MEST_F32 ? (double)((const mest_real *)a->in[0].data)[i]
                                                       : (double)mest_int_at(a->in[0].type->dtype, a->in[0].data, i);
        if (!(real >= -(double)depth && real < (double)depth))
            continue; /* out of range: all off, says ONNX */
        int64_t k = (int64_t)real;
        k = k < 0 ? k + depth : k;
        memcpy((char *)a->out[0].data + (size_t)((i / inner * depth + k) * inner + i % inner) * size, (const char *)a->in[2].data + size, size);
    }
    return MEST_OK;
}

static const mest_attr cumsum_attrs[] = {
    {.name = "exclusive", .kind = MEST_ATTR_INT, .offset = offsetof(cumsum_params, exclusive)},
    {.name = "reverse", .kind = MEST_ATTR_INT, .offset = offsetof(cumsum_params, reverse)},
    {.name = NULL}};
static const mest_attr trilu_attrs[] = {{.name = "upper", .kind = MEST_ATTR_INT, .offset = offsetof(trilu_params, upper), .number = 1}, {.name = NULL}};
static const mest_attr one_hot_attrs[] = {{.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(mest_axis_params, axis), .number = -1}, {.name = NULL}};

const mest_op mest_ops_sequence[] = {
    {.domain = "", .name = "CumSum", .since = 11, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = cumsum_attrs, .params_bytes = sizeof(cumsum_params), .infer = cumsum_infer, .forward = cumsum_forward, .vjp = cumsum_vjp},
    {.domain = "", .name = "Trilu", .since = 14, .in_min = 1, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = trilu_attrs, .params_bytes = sizeof(trilu_params), .infer = trilu_infer, .forward = trilu_forward, .vjp = trilu_vjp},
    {.domain = "", .name = "OneHot", .since = 9, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = one_hot_attrs, .params_bytes = sizeof(mest_axis_params), .infer = one_hot_infer, .forward = one_hot_forward, .no_grad = true},
    {.name = NULL},
};
