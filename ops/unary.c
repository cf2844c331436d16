/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise mathematics: Exp Log Sqrt Reciprocal Erf Sin Cos Abs Neg Floor Ceil Round Sign. Float; Abs, Neg and Sign also int64 and int32
 * (shape code). Round: halves go to the even neighbour. Functions with poles stay in plain layout. */
#include "ops/unary_impl.h"

#define R(x) ((mest_real)(x))

UNARY(exp, no_params, REAL(exp)(x))
UNARY(log, no_params, REAL(log)(x))
UNARY(sqrt, no_params, REAL(sqrt)(x))
GRAD(sqrt, no_params, R(0.5) * dy / z)
UNARY(reciprocal, no_params, 1 / x)
GRAD(reciprocal, no_params, -dy * z * z)
UNARY(erf, no_params, REAL(erf)(x))
GRAD(erf, no_params, dy * R(1.12837916709551257390) * REAL(exp)(-z * z)) /* 2 / sqrt(pi) */
UNARY(sin, no_params, REAL(sin)(x))
GRAD(sin, no_params, dy * REAL(cos)(z))
UNARY(cos, no_params, REAL(cos)(x))
GRAD(cos, no_params, -dy * REAL(sin)(z))
UNARY(abs_real, no_params, REAL(fabs)(x))
GRAD(abs, no_params, z > 0 ? dy : z < 0 ? -dy : 0)
UNARY(neg_real, no_params, -x)
UNARY(sign_real, no_params, x > 0 ? R(1) : x < 0 ? R(-1) : x)
UNARY(floor, no_params, REAL(floor)(x))
UNARY(ceil, no_params, REAL(ceil)(x))
UNARY(round, no_params, REAL(rint)(x))

static mest_status infer_signed(mest_infer *c)
{
    mest_dtype t = c->in[0]->dtype;
    if (t != MEST_F32 && !mest_dtype_is_index(t))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(t));
    return mest_infer_set(c, 0, t, &c->in[0]->shape);
}

/* Integers wrap, as two's complement does. */
#define SIGNED(name, expr)                                                           \
    static mest_status name##_forward(const mest_args *a)                            \
    {                                                                                \
        mest_dtype t = a->in[0].type->dtype;                                         \
        if (t == MEST_F32)                                                           \
            return name##_real_forward(a);                                           \
        for (size_t i = 0; i < a->out[0].count; i++) {                               \
            int64_t x = mest_int_at(t, a->in[0].data, (int64_t)i), y = (expr);       \
            if (t == MEST_I64)                                                       \
                ((int64_t *)a->out[0].data)[i] = y;                                  \
            else                                                                     \
                ((int32_t *)a->out[0].data)[i] = (int32_t)y;                         \
        }                                                                            \
        return MEST_OK;                                                              \
    }
SIGNED(abs, x < 0 ? (int64_t)(0 - (uint64_t)x) : x)
SIGNED(neg, (int64_t)(0 - (uint64_t)x))
SIGNED(sign, x > 0 ? 1 : x < 0 ? -1 : 0)

static mest_status exp_vjp(mest_vjp *v)
{
    mest_id in[2] = {mest_dout(v, 0), mest_out(v, 0)};
    return mest_wants(v, 0) ? mest_give_op(v, 0, "Mul", NULL, 2, in) : MEST_OK;
}
static mest_status log_vjp(mest_vjp *v)
{
    mest_id in[2] = {mest_dout(v, 0), mest_in(v, 0)};
    return mest_give_op(v, 0, "Div", NULL, 2, in);
}
static mest_status neg_vjp(mest_vjp *v)
{
    mest_id dy = mest_dout(v, 0);
    return mest_give_op(v, 0, "Neg", NULL, 1, &dy);
}

#define SIGNED_OP(onnx, c_name, vjp_rule)                                                                                     \
    {.domain = "", .name = onnx, .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,                             \
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE | MEST_OP_ANY_TYPE, .act_in = 1, .act_out = 1, .infer = infer_signed, .forward = c_name##_forward, .vjp = vjp_rule}

const mest_op mest_ops_unary[] = {
    OP("Exp", exp, true, NULL, no_params, exp_vjp),
    OP("Log", log, false, NULL, no_params, log_vjp),
    OP("Sqrt", sqrt, false, NULL, no_params, mest_vjp_from_y),
    GRAD_OP("Sqrt", sqrt, false, no_params),
    OP("Reciprocal", reciprocal, false, NULL, no_params, mest_vjp_from_y),
    GRAD_OP("Reciprocal", reciprocal, false, no_params),
    OP("Erf", erf, true, NULL, no_params, mest_vjp_from_x),
    GRAD_OP("Erf", erf, true, no_params),
    OP("Sin", sin, true, NULL, no_params, mest_vjp_from_x),
    GRAD_OP("Sin", sin, true, no_params),
    OP("Cos", cos, true, NULL, no_params, mest_vjp_from_x),
    GRAD_OP("Cos", cos, true, no_params),
    GRAD_OP("Abs", abs, true, no_params),
    SIGNED_OP("Abs", abs, mest_vjp_from_x),
    SIGNED_OP("Neg", neg, neg_vjp),
    SIGNED_OP("Sign", sign, mest_vjp_zero),
    OP("Floor", floor, true, NULL, no_params, mest_vjp_zero),
    OP("Ceil", ceil, true, NULL, no_params, mest_vjp_zero),
    OP("Round", round, true, NULL, no_params, mest_vjp_zero),
    {.name = NULL},
};
