/* SPDX-License-Identifier: Apache-2.0 */
/* Add Sub Mul Div Mod: two operands with numpy broadcasting, every numeric type of equal kind. Integers wrap around; dividing by an integer
 * zero is an error. Gradients are given in the output's shape; the driver sums broadcast axes.
 *   Add: dA = dY, dB = dY    Sub: dB = -dY    Mul: dA = dY B, dB = dY A    Div: dA = dY / B, dB = -dY Y / B (mest.DivGrad(B, Y, dY))
 *   Mod: attribute fmod = 0: integers, sign of the divisor; 1: sign of the dividend (C); dA = dY, dB = -dY trunc(A / B)
 */
#include "ops/binary_impl.h"

#define U(x) ((uint64_t)(x))
FLOAT_ROWS(add, x + y)
SIGNED_ROWS(add, U(x) + U(y))
UNSIGNED_ROWS(add, U(x) + U(y))
ROW_TABLE(add);
FLOAT_ROWS(sub, x - y)
SIGNED_ROWS(sub, U(x) - U(y))
UNSIGNED_ROWS(sub, U(x) - U(y))
ROW_TABLE(sub);
FLOAT_ROWS(mul, x * y)
SIGNED_ROWS(mul, U(x) * U(y))
UNSIGNED_ROWS(mul, U(x) * U(y))
ROW_TABLE(mul);
FLOAT_ROWS(div, x / y)
SIGNED_ROWS(div, y == -1 ? (int64_t)(0 - U(x)) : (int64_t)x / y) /* the smallest number / -1 wraps */
UNSIGNED_ROWS(div, x / y)
ROW_TABLE(div);
/* Python's modulo and C's remainder */
static inline int64_t floor_mod(int64_t x, int64_t y)
{
    int64_t r = y == -1 ? 0 : x % y;
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
FLOAT_ROWS(mod, fmod((double)x, (double)y))
SIGNED_ROWS(mod, floor_mod(x, y))
UNSIGNED_ROWS(mod, x % y)
ROW_TABLE(mod);
FLOAT_ROWS(rem, fmod((double)x, (double)y))
SIGNED_ROWS(rem, y == -1 ? 0 : x % y)
UNSIGNED_ROWS(rem, x % y)
ROW_TABLE(rem);

#define RULES(name)                                                                                        \
    static mest_status name##_infer(mest_infer *c) { return infer_typed(c, name##_rows, MEST_UNDEFINED); } \
    static mest_status name##_forward(const mest_args *a) { return forward_typed(a, name##_rows); }
RULES(add)
RULES(sub)
RULES(mul)

static bool has_integer_zero(const mest_tensor *t)
{
    size_t size = mest_dtype_size(t->type->dtype);
    static const uint64_t zero = 0;
    if (mest_dtype_is_float(t->type->dtype))
        return false;
    for (size_t i = 0; i < t->count; i++)
        if (!memcmp((const char *)t->data + i * size, &zero, size))
            return true;
    return false;
}

static mest_status div_infer(mest_infer *c) { return infer_typed(c, div_rows, MEST_UNDEFINED); }
static mest_status div_forward(const mest_args *a)
{
    if (has_integer_zero(&a->in[1]))
        return mest_run_fail(a, MEST_E_DATA, "integer division by zero");
    return forward_typed(a, div_rows);
}

typedef struct mod_params { int64_t fmod; } mod_params;
static mest_status mod_infer(mest_infer *c)
{
    MEST_INFER_CHECK(c, ((const mod_params *)c->params)->fmod || !mest_dtype_is_float(c->in[0]->dtype), "fmod must be 1 for floating types");
    return infer_typed(c, mod_rows, MEST_UNDEFINED);
}
static mest_status mod_forward(const mest_args *a)
{
    if (has_integer_zero(&a->in[1]))
        return mest_run_fail(a, MEST_E_DATA, "integer division by zero");
    return forward_typed(a, ((const mod_params *)a->params)->fmod ? rem_rows : mod_rows);
}

static void div_grad_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_real *b = (const mest_real *)io->in[0] + off[1], *y = (const mest_real *)io->in[1] + off[2];
    const mest_real *dy = (const mest_real *)io->in[2] + off[3];
    mest_real *o = (mest_real *)io->out + off[0];
    for (int64_t i = 0; i < n; i++)
        o[i] = -dy[i * io->step[3]] * y[i * io->step[2]] / b[i * io->step[1]];
}
/* Of the divisor: A = trunc(A / B) B + Y */
static void mod_grad_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_real *a = (const mest_real *)io->in[0] + off[1], *b = (const mest_real *)io->in[1] + off[2];
    const mest_real *dy = (const mest_real *)io->in[2] + off[3];
    mest_real *o = (mest_real *)io->out + off[0];
    for (int64_t i = 0; i < n; i++)
        o[i] = -dy[i * io->step[3]] * REAL(trunc)(a[i * io->step[1]] / b[i * io->step[2]]);
}
static mest_status mod_grad_forward(const mest_args *a)
{
    mest_rows_all(a, mod_grad_row);
    return MEST_OK;
}
static mest_status div_grad_forward(const mest_args *a)
{
    mest_rows_all(a, div_grad_row);
    return MEST_OK;
}

static mest_status add_vjp(mest_vjp *v)
{
    MEST_TRY(mest_give(v, 0, mest_dout(v, 0)));
    return mest_give(v, 1, mest_dout(v, 0));
}
static mest_status sub_vjp(mest_vjp *v)
{
    mest_id dy = mest_dout(v, 0);
    MEST_TRY(mest_give(v, 0, dy));
    return mest_give_op(v, 1, "Neg", NULL, 1, &dy);
}
static mest_status mul_vjp(mest_vjp *v)
{
    mest_id da[2] = {mest_dout(v, 0), mest_in(v, 1)}, db[2] = {mest_dout(v, 0), mest_in(v, 0)};
    MEST_TRY(mest_give_op(v, 0, "Mul", NULL, 2, da));
    return mest_give_op(v, 1, "Mul", NULL, 2, db);
}
static mest_status div_vjp(mest_vjp *v)
{
    mest_id da[2] = {mest_dout(v, 0), mest_in(v, 1)};
    MEST_TRY(mest_give_op(v, 0, "Div", NULL, 2, da));
    if (!mest_wants(v, 1))
        return MEST_OK;
    mest_id db[3] = {mest_in(v, 1), mest_out(v, 0), mest_dout(v, 0)};
    return mest_give_op(v, 1, "mest.DivGrad", NULL, 3, db);
}

static mest_status mod_vjp(mest_vjp *v)
{
    mest_id in[3] = {mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0)};
    MEST_TRY(mest_give(v, 0, in[2]));
    return mest_give_op(v, 1, "mest.ModGrad", NULL, 3, in);
}

#define BINARY(onnx, c_name, act, vjp_rule)                                                                        \
    {.domain = "", .name = onnx, .since = 7, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1,                  \
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE | MEST_OP_ANY_TYPE, .act_in = (act) ? 3 : 0, .act_out = (act) ? 1 : 0,             \
     .infer = c_name##_infer, .forward = c_name##_forward, .vjp = vjp_rule}
static const mest_attr mod_attrs[] = {{.name = "fmod", .kind = MEST_ATTR_INT, .offset = offsetof(mod_params, fmod)}, {.name = NULL}};

const mest_op mest_ops_arith[] = {
    BINARY("Add", add, true, add_vjp),
    BINARY("Sub", sub, true, sub_vjp),
    BINARY("Mul", mul, true, mul_vjp),
    BINARY("Div", div, false, div_vjp), /* plain: lanes past the batch may hold zeros */
    {.domain = "", .name = "Mod", .since = 10, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, .attrs = mod_attrs,
     .params_bytes = sizeof(mod_params), .infer = mod_infer, .forward = mod_forward, .vjp = mod_vjp},
    {.domain = "mest", .name = "mest.ModGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1,
     .infer = mest_infer_float_broadcast, .forward = mod_grad_forward},
    {.domain = "mest", .name = "mest.DivGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1,
     .infer = mest_infer_float_broadcast, .forward = div_grad_forward},
    {.name = NULL},
};
