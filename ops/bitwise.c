/* SPDX-License-Identifier: Apache-2.0 */
/* BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot (ONNX since 18) and BitShift (since 11; direction LEFT or RIGHT) of integers, with broadcasting.
 * BitShift takes signed integers too, as PyTorch writes them: RIGHT then keeps the sign. A shift by the width or more gives 0, or -1 for negative
 * numbers to the right. Not differentiable. */
#include "ops/binary_impl.h"

typedef struct shift_params { const char *direction; } shift_params;

#define INTEGER_TABLE(name)                                                                                                                     \
    static const typed_row name##_rows[] = {{MEST_I8, name##_i8},   {MEST_I16, name##_i16}, {MEST_I32, name##_i32}, {MEST_I64, name##_i64},     \
                                            {MEST_U8, name##_u8},   {MEST_U16, name##_u16}, {MEST_U32, name##_u32}, {MEST_U64, name##_u64},     \
                                            {MEST_UNDEFINED, NULL}};
#define INTEGER_ROWS(name, e) SIGNED_ROWS(name, e) UNSIGNED_ROWS(name, e) INTEGER_TABLE(name)

INTEGER_ROWS(and, x & y)
INTEGER_ROWS(or, x | y)
INTEGER_ROWS(xor, x ^ y)

#define FAR ((uint64_t)y >= 8 * sizeof x) /* a negative count is far too */
INTEGER_ROWS(left, FAR ? 0 : (uint64_t)x << y)
SIGNED_ROWS(right, FAR ? -(x < 0) : x >> y)
UNSIGNED_ROWS(right, FAR ? 0 : x >> y)
INTEGER_TABLE(right)

#define RULES(name)                                                                                             \
    static mest_status name##_infer(mest_infer *c) { return infer_typed(c, name##_rows, c->in[0]->dtype); }     \
    static mest_status name##_forward(const mest_args *a) { return forward_typed(a, name##_rows); }
RULES(and)
RULES(or)
RULES(xor)

static bool leftwards(const shift_params *p) { return p->direction && !strcmp(p->direction, "LEFT"); }

static mest_status shift_infer(mest_infer *c)
{
    const shift_params *p = c->params;
    MEST_INFER_CHECK(c, leftwards(p) || (p->direction && !strcmp(p->direction, "RIGHT")), "direction \"%.20s\" is neither LEFT nor RIGHT",
                     p->direction ? p->direction : "");
    return infer_typed(c, left_rows, c->in[0]->dtype);
}
static mest_status shift_forward(const mest_args *a) { return forward_typed(a, leftwards(a->params) ? left_rows : right_rows); }

static mest_status not_infer(mest_infer *c)
{
    for (const typed_row *r = and_rows; r->fn; r++)
        if (r->dtype == c->in[0]->dtype)
            return mest_infer_set(c, 0, c->in[0]->dtype, &c->in[0]->shape);
    return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(c->in[0]->dtype));
}
static mest_status not_forward(const mest_args *a)
{
    const uint8_t *x = a->in[0].data;
    uint8_t *y = a->out[0].data;
    for (size_t i = 0; i < a->out[0].count * mest_dtype_size(a->out[0].type->dtype); i++)
        y[i] = (uint8_t)~x[i];
    return MEST_OK;
}

static const mest_attr shift_attrs[] = {
    {.name = "direction", .kind = MEST_ATTR_STRING, .offset = offsetof(shift_params, direction), .required = true},
    {.name = NULL},
};

#define BITWISE(onnx, c_name)                                                                                                  \
    {.domain = "", .name = onnx, .since = 18, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, \
     .infer = c_name##_infer, .forward = c_name##_forward, .no_grad = true}

const mest_op mest_ops_bitwise[] = {
    BITWISE("BitwiseAnd", and), BITWISE("BitwiseOr", or), BITWISE("BitwiseXor", xor),
    {.domain = "", .name = "BitwiseNot", .since = 18, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .infer = not_infer, .forward = not_forward, .no_grad = true},
    {.domain = "", .name = "BitShift", .since = 11, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = shift_attrs, .params_bytes = sizeof(shift_params), .infer = shift_infer, .forward = shift_forward, .no_grad = true},
    {.name = NULL},
};
