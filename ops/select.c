/* SPDX-License-Identifier: Apache-2.0 */
/* ArgMax, ArgMin (axis, keepdims, select_last_index) and TopK(X, k; axis, largest, sorted): float32, float64, int64, int32, uint8, int8.
 * Ties go to the lower index. TopK's gradient goes to the elements that were chosen: mest.GatherElementsGrad(indices, dY), or where the output
 * Indices is not wanted mest.TopKGrad(X, k, dY), which chooses once more. */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct arg_params { int64_t axis, keepdims, select_last; } arg_params;
typedef struct topk_params { int64_t axis, largest, sorted; } topk_params;

static bool type_ok(mest_dtype t) { return mest_dtype_is_float(t) || mest_dtype_is_index(t) || t == MEST_U8 || t == MEST_I8; }

/* Is element i larger than element k? Integers are compared in 64 bits; NaN is larger than everything. */
static bool larger(mest_dtype t, const void *data, int64_t i, int64_t k)
{
    switch (t) {
    case MEST_F32: { const mest_real *x = data; return x[i] > x[k] || (x[i] != x[i] && x[k] == x[k]); }
    case MEST_F64: { const double *x = data; return x[i] > x[k] || (x[i] != x[i] && x[k] == x[k]); }
    case MEST_U8: return ((const uint8_t *)data)[i] > ((const uint8_t *)data)[k];
    case MEST_I8: return ((const int8_t *)data)[i] > ((const int8_t *)data)[k];
    default: return mest_int_at(t, data, i) > mest_int_at(t, data, k);
    }
}

static mest_status arg_infer(mest_infer *c)
{
    const arg_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape;
    int axis;
    if (!type_ok(c->in[0]->dtype))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(c->in[0]->dtype));
    MEST_TRY(mest_infer_axis(c, p->axis, x->rank, &axis));
    MEST_INFER_CHECK(c, x->dim[axis] > 0, "axis %d is empty", axis);
    mest_shape y = {0};
    for (int i = 0; i < x->rank; i++)
        if (i != axis || p->keepdims)
            y.dim[y.rank++] = i == axis ? 1 : x->dim[i];
    return mest_infer_set(c, 0, MEST_I64, &y);
}

static mest_status arg(const mest_args *a, bool max)
{
    const arg_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    mest_dtype t = a->in[0].type->dtype;
    int axis = mest_axis(p->axis, x->rank);
    int64_t outer = mest_shape_span(x, 0, axis), d = x->dim[axis], inner = mest_shape_span(x, axis + 1, x->rank);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            int64_t base = o * d * inner + i, best = 0;
            for (int64_t k = 1; k < d; k++) {
                int64_t challenger = base + k * inner, holder = base + best * inner;
                bool wins = max ? larger(t, a->in[0].data, challenger, holder) : larger(t, a->in[0].data, holder, challenger);
                bool loses = max ? larger(t, a->in[0].data, holder, challenger) : larger(t, a->in[0].data, challenger, holder);
                if (wins || (p->select_last && !loses))
                    best = k;
            }
            ((int64_t *)a->out[0].data)[o * inner + i] = best;
        }
    return MEST_OK;
}
static mest_status argmax_forward(const mest_args *a) { return arg(a, true); }
static mest_status argmin_forward(const mest_args *a) { return arg(a, false); }

static mest_status topk_infer(mest_infer *c)
{
    const topk_params *p = c->params;
    int64_t k = 0;
    int n = 0, axis;
    mest_shape y = c->in[0]->shape;
    if (!type_ok(c->in[0]->dtype))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(c->in[0]->dtype));
    MEST_TRY(mest_infer_axis(c, p->axis, y.rank, &axis));
    MEST_TRY(mest_infer_ints(c, 1, 1, &k, &n));
    MEST_INFER_CHECK(c, n == 1 && k >= 0 && k <= y.dim[axis], "k = %" PRId64 " of %" PRId64 " elements", k, y.dim[axis]);
    y.dim[axis] = k;
    MEST_TRY(mest_infer_set(c, 0, c->in[0]->dtype, &y));
    return c->n_out > 1 ? mest_infer_set(c, 1, MEST_I64, &y) : MEST_OK;
}

/* The best of d elements, `inner` apart, behind `last` (the one chosen before; -1: of all) in the order. */
static int64_t next_best(const topk_params *p, mest_dtype t, const char *from, int64_t d, int64_t inner, int64_t last)
{
    int64_t best = -1;
    for (int64_t e = 0; e < d; e++) {
        int64_t ea = e * inner, la = last * inner, ba = best * inner;
        if (last >= 0) {
            bool before = p->largest ? larger(t, from, ea, la) : larger(t, from, la, ea);
            bool after = p->largest ? larger(t, from, la, ea) : larger(t, from, ea, la);
            if (before || (!after && e <= last))
                continue;
        }
        if (best < 0 || (p->largest ? larger(t, from, ea, ba) : larger(t, from, ba, ea)))
            best = e;
    }
    return best;
}

/* k passes over each slice: without memory of its own, each pass finds the best element behind the one chosen before. */
static mest_status topk_forward(const mest_args *a)
{
    const topk_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    mest_dtype t = a->in[0].type->dtype;
    size_t size = mest_dtype_size(t);
    int axis = mest_axis(p->axis, x->rank);
    int64_t outer = mest_shape_span(x, 0, axis), d = x->dim[axis], inner = mest_shape_span(x, axis + 1, x->rank);
    int64_t top = mest_int_at(a->in[1].type->dtype, a->in[1].data, 0);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            const char *from = (const char *)a->in[0].data + (size_t)(o * d * inner + i) * size;
            int64_t last = -1; /* the element chosen before: the next one is the best of those behind it in the order */
            for (int64_t k = 0; k < top; k++) {
                const int64_t best = next_best(p, t, from, d, inner, last);
                size_t to = (size_t)((o * top + k) * inner + i);
                if (a->out[0].data)
                    memcpy((char *)a->out[0].data + to * size, from + (size_t)(best * inner) * size, size);
                if (a->n_out > 1 && a->out[1].data)
                    ((int64_t *)a->out[1].data)[to] = best;
                last = best;
            }
        }
    return MEST_OK;
}

/* X, k, dY -> dX */
static mest_status topk_grad_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &c->in[0]->shape); }

static mest_status topk_grad_forward(const mest_args *a)
{
    const topk_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    const int axis = mest_axis(p->axis, x->rank);
    const int64_t outer = mest_shape_span(x, 0, axis), d = x->dim[axis], inner = mest_shape_span(x, axis + 1, x->rank);
    const int64_t top = mest_int_at(a->in[1].type->dtype, a->in[1].data, 0);
    const mest_real *from = a->in[0].data, *dy = a->in[2].data;
    mest_real *dx = a->out[0].data;
    memset(dx, 0, a->out[0].count * sizeof *dx);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++)
            for (int64_t k = 0, best = -1; k < top; k++) {
                best = next_best(p, MEST_F32, (const char *)(from + o * d * inner + i), d, inner, best);
                dx[(o * d + best) * inner + i] = dy[(o * top + k) * inner + i];
            }
    return MEST_OK;
}

static mest_status topk_vjp(mest_vjp *v)
{
    mest_gather_params *p = mest_vjp_alloc(v, sizeof *p);
    mest_id in[2] = {mest_need_out(v, 1), mest_dout(v, 0)};
    if (!p)
        return mest_vjp_nomem(v);
    if (in[0] == MEST_NONE)
        return mest_vjp_nomem(v);
    p->x = mest_vjp_type(v, mest_in(v, 0))->shape;
    p->axis = mest_axis(((const topk_params *)mest_vjp_node(v)->params)->axis, p->x.rank);
    return mest_give_op(v, 0, "mest.GatherElementsGrad", p, 2, in);
}

static const mest_attr arg_attrs[] = {
    {.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(arg_params, axis)},
    {.name = "keepdims", .kind = MEST_ATTR_INT, .offset = offsetof(arg_params, keepdims), .number = 1},
    {.name = "select_last_index", .kind = MEST_ATTR_INT, .offset = offsetof(arg_params, select_last)},
    {.name = NULL}};
static const mest_attr topk_attrs[] = {
    {.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(topk_params, axis), .number = -1},
    {.name = "largest", .kind = MEST_ATTR_INT, .offset = offsetof(topk_params, largest), .number = 1},
    {.name = "sorted", .kind = MEST_ATTR_INT, .offset = offsetof(topk_params, sorted), .number = 1},
    {.name = NULL}};

#define ARG(onnx, c_name)                                                                                                       \
    {.domain = "", .name = onnx, .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,    \
     .attrs = arg_attrs, .params_bytes = sizeof(arg_params), .infer = arg_infer, .forward = c_name##_forward, .no_grad = true}

const mest_op mest_ops_select[] = {
    ARG("ArgMax", argmax), ARG("ArgMin", argmin),
    {.domain = "", .name = "TopK", .since = 10, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 2, .flags = MEST_OP_ANY_TYPE,
     .attrs = topk_attrs, .params_bytes = sizeof(topk_params), .infer = topk_infer, .forward = topk_forward, .vjp = topk_vjp},
    {.domain = "mest", .name = "mest.TopKGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .params_bytes = sizeof(topk_params), .infer = topk_grad_infer, .forward = topk_grad_forward},
    {.name = NULL},
};
