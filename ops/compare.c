/* SPDX-License-Identifier: Apache-2.0 */
/* Comparisons (Equal Less LessOrEqual Greater GreaterOrEqual) and logic (And Or Xor Not) with broadcasting; results are bool.
 * Not differentiable. */
#include "ops/binary_impl.h"

#define ALL_ROWS(name, op)                             \
    BINARY_ROW(name##_real, mest_real, uint8_t, x op y)\
    BINARY_ROW(name##_f64, double, uint8_t, x op y)    \
    BINARY_ROW(name##_i8, int8_t, uint8_t, x op y)     \
    BINARY_ROW(name##_i16, int16_t, uint8_t, x op y)   \
    BINARY_ROW(name##_i32, int32_t, uint8_t, x op y)   \
    BINARY_ROW(name##_i64, int64_t, uint8_t, x op y)   \
    BINARY_ROW(name##_u8, uint8_t, uint8_t, x op y)    \
    BINARY_ROW(name##_u16, uint16_t, uint8_t, x op y)  \
    BINARY_ROW(name##_u32, uint32_t, uint8_t, x op y)  \
    BINARY_ROW(name##_u64, uint64_t, uint8_t, x op y)  \
    ROW_TABLE(name)

ALL_ROWS(less, <);
ALL_ROWS(less_equal, <=);
ALL_ROWS(greater, >);
ALL_ROWS(greater_equal, >=);
ALL_ROWS(same, ==);
BINARY_ROW(same_bool, uint8_t, uint8_t, !x == !y)
static const typed_row same_bool_rows[] = {{MEST_BOOL, same_bool}, {MEST_UNDEFINED, NULL}};
BINARY_ROW(and_bool, uint8_t, uint8_t, x && y)
static const typed_row and_rows[] = {{MEST_BOOL, and_bool}, {MEST_UNDEFINED, NULL}};
BINARY_ROW(or_bool, uint8_t, uint8_t, x || y)
static const typed_row or_rows[] = {{MEST_BOOL, or_bool}, {MEST_UNDEFINED, NULL}};
BINARY_ROW(xor_bool, uint8_t, uint8_t, !x != !y)
static const typed_row xor_rows[] = {{MEST_BOOL, xor_bool}, {MEST_UNDEFINED, NULL}};

#define RULES(name)                                                                                   \
    static mest_status name##_infer(mest_infer *c) { return infer_typed(c, name##_rows, MEST_BOOL); } \
    static mest_status name##_forward(const mest_args *a) { return forward_typed(a, name##_rows); }
RULES(less)
RULES(less_equal)
RULES(greater)
RULES(greater_equal)
RULES(and)
RULES(or)
RULES(xor)

static mest_status equal_infer(mest_infer *c) { return infer_typed(c, c->in[0]->dtype == MEST_BOOL ? same_bool_rows : same_rows, MEST_BOOL); }
static mest_status equal_forward(const mest_args *a)
{
    return forward_typed(a, a->in[0].type->dtype == MEST_BOOL ? same_bool_rows : same_rows);
}

static mest_status not_infer(mest_infer *c)
{
    MEST_INFER_CHECK(c, c->in[0]->dtype == MEST_BOOL, "input is %s, not bool", mest_dtype_name(c->in[0]->dtype));
    return mest_infer_set(c, 0, MEST_BOOL, &c->in[0]->shape);
}
static mest_status not_forward(const mest_args *a)
{
    const uint8_t *x = a->in[0].data;
    uint8_t *y = a->out[0].data;
    for (size_t i = 0; i < a->out[0].count; i++)
        y[i] = !x[i];
    return MEST_OK;
}

#define COMPARE(onnx, c_name)                                                                                                    \
    {.domain = "", .name = onnx, .since = 7, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,     \
     .infer = c_name##_infer, .forward = c_name##_forward, .no_grad = true}

const mest_op mest_ops_compare[] = {
    COMPARE("Equal", equal), COMPARE("Less", less), COMPARE("LessOrEqual", less_equal), COMPARE("Greater", greater),
    COMPARE("GreaterOrEqual", greater_equal), COMPARE("And", and), COMPARE("Or", or), COMPARE("Xor", xor),
    {.domain = "", .name = "Not", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .infer = not_infer, .forward = not_forward, .no_grad = true},
    {.name = NULL},
};
