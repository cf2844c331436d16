/* SPDX-License-Identifier: Apache-2.0 */
/* Activation functions, elementwise, float, any shape and layout. Gradients use the output y where the derivative can be read from it (the
 * input need not be kept then), otherwise the input x. At kinks PyTorch's choice is taken.
 *
 *   LeakyRelu    x < 0 ? alpha x : x                        from Y (alpha >= 0)
 *   Sigmoid      1 / (1 + e^-x)                              y (1 - y)
 *   Tanh         tanh x                                      1 - y^2
 *   HardSigmoid  max(0, min(1, alpha x + beta))              alpha inside
 *   HardSwish    x max(0, min(1, x / 6 + 1/2))               from X
 *   Elu, Celu    x > 0 ? x : alpha (e^(x / c) - 1)           from Y (alpha > 0); Elu: c = 1, Celu: c = alpha
 *   Selu         gamma (x > 0 ? x : alpha (e^x - 1))         from Y
 *   Softplus     log(1 + e^x)                                1 - e^-y
 *   Softsign     x / (1 + |x|)                               (1 - |y|)^2
 *   Mish         x tanh(log(1 + e^x))                        from X
 *   Gelu         x Phi(x), or its tanh approximation         from X
 *   Swish        x sigmoid(alpha x)                          from X
 */
#include "ops/act.h"
#include "ops/unary_impl.h"

#define R(x) ((mest_real)(x))

/* exp of a number <= 0 only: no overflow for large |x| */
static inline mest_real sigmoid(mest_real x)
{
    mest_real e = REAL(exp)(-REAL(fabs)(x));
    return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}
static inline mest_real softplus(mest_real x) { return (x > 0 ? x : 0) + REAL(log1p)(REAL(exp)(-REAL(fabs)(x))); }

UNARY(leaky_relu, mest_alpha_params, x < 0 ? R(p->alpha) * x : x)
GRAD(leaky_relu, mest_alpha_params, z > 0 ? dy : R(p->alpha) * dy)
UNARY(sigmoid, no_params, sigmoid(x))
GRAD(sigmoid, no_params, dy * z * (1 - z))
UNARY(tanh, no_params, REAL(tanh)(x))
GRAD(tanh, no_params, dy * (1 - z * z))
UNARY(hard_sigmoid, mest_alpha_params, REAL(fmax)(0, REAL(fmin)(1, R(p->alpha) * x + R(p->beta))))
GRAD(hard_sigmoid, mest_alpha_params, z > 0 && z < 1 ? R(p->alpha) * dy : 0)
UNARY(hard_swish, no_params, x * REAL(fmax)(0, REAL(fmin)(1, x / 6 + R(0.5))))
GRAD(hard_swish, no_params, z <= -3 ? 0 : z < 3 ? dy * (z / 3 + R(0.5)) : dy)
UNARY(elu, mest_alpha_params, x > 0 ? x : R(p->alpha) * REAL(expm1)(x))
GRAD(elu, mest_alpha_params, z > 0 ? dy : dy * (z + R(p->alpha)))
UNARY(celu, mest_alpha_params, x > 0 ? x : R(p->alpha) * REAL(expm1)(x / R(p->alpha)))
GRAD(celu, mest_alpha_params, z > 0 ? dy : dy * (z / R(p->alpha) + 1))
UNARY(selu, mest_alpha_params, R(p->beta) * (x > 0 ? x : R(p->alpha) * REAL(expm1)(x)))
GRAD(selu, mest_alpha_params, z > 0 ? R(p->beta) * dy : dy * (z + R(p->beta) * R(p->alpha)))
UNARY(softplus, no_params, softplus(x))
GRAD(softplus, no_params, -dy * REAL(expm1)(-z))
UNARY(softsign, no_params, x / (1 + REAL(fabs)(x)))
GRAD(softsign, no_params, dy * (1 - REAL(fabs)(z)) * (1 - REAL(fabs)(z)))
UNARY(mish, no_params, x * REAL(tanh)(softplus(x)))

static inline mest_real mish_slope(mest_real x)
{
    mest_real t = REAL(tanh)(softplus(x));
    return t + x * sigmoid(x) * (1 - t * t);
}
GRAD(mish, no_params, dy * mish_slope(z))

UNARY(swish, mest_alpha_params, x * sigmoid(R(p->alpha) * x))
static inline mest_real swish_slope(mest_real x, mest_real alpha)
{
    mest_real s = sigmoid(alpha * x);
    return s + alpha * x * s * (1 - s);
}
GRAD(swish, mest_alpha_params, dy * swish_slope(z, R(p->alpha)))

/* Gelu: both forms; the form is fixed by the params, so the branch is the same for all elements. */
static inline bool gelu_tanh(const mest_gelu_params *p) { return p->approximate && p->approximate[0] == 't'; }
#define SQRT_2_PI R(0.79788456080286535588)  /* sqrt(2 / pi) */
#define SQRT_1_2 R(0.70710678118654752440)
#define PDF_SCALE R(0.39894228040143267794)  /* 1 / sqrt(2 pi) */
#define CUBIC R(0.044715)
static inline mest_real gelu_of(mest_real x, bool approximate)
{
    if (approximate)
        return R(0.5) * x * (1 + REAL(tanh)(SQRT_2_PI * (x + CUBIC * x * x * x)));
    return R(0.5) * x * (1 + REAL(erf)(x * SQRT_1_2));
}
static inline mest_real gelu_slope(mest_real x, bool approximate)
{
    if (approximate) {
        mest_real t = REAL(tanh)(SQRT_2_PI * (x + CUBIC * x * x * x));
        return R(0.5) * (1 + t) + R(0.5) * x * (1 - t * t) * SQRT_2_PI * (1 + 3 * CUBIC * x * x);
    }
    return R(0.5) * (1 + REAL(erf)(x * SQRT_1_2)) + x * PDF_SCALE * REAL(exp)(R(-0.5) * x * x);
}
UNARY(gelu, mest_gelu_params, gelu_of(x, gelu_tanh(p)))
GRAD(gelu, mest_gelu_params, dy * gelu_slope(z, gelu_tanh(p)))

/* ---- as a part of a layer (ops/act.h) ---- */

static const struct part {
    mest_row_fn forward, gradient;
    bool from_y; /* the gradient reads the output */
} parts[MEST_ACT_KINDS] = {
    [MEST_ACT_LEAKY_RELU] = {leaky_relu_row, leaky_relu_grad_row, false}, /* either has the sign */
    [MEST_ACT_SIGMOID] = {sigmoid_row, sigmoid_grad_row, true},
    [MEST_ACT_TANH] = {tanh_row, tanh_grad_row, true},
    [MEST_ACT_HARD_SIGMOID] = {hard_sigmoid_row, hard_sigmoid_grad_row, true},
    [MEST_ACT_HARD_SWISH] = {hard_swish_row, hard_swish_grad_row, false},
    [MEST_ACT_SWISH] = {swish_row, swish_grad_row, false},
    [MEST_ACT_GELU] = {gelu_row, gelu_grad_row, false},
    [MEST_ACT_GELU_TANH] = {gelu_row, gelu_grad_row, false},
    [MEST_ACT_MISH] = {mish_row, mish_grad_row, false},
};

static void run_part(const mest_act *act, mest_row_fn row, const mest_real *z, const mest_real *dy, mest_real *out, int64_t n)
{
    const mest_alpha_params alpha = {act->alpha, act->beta};
    const mest_gelu_params gelu = {act->kind == MEST_ACT_GELU_TANH ? "tanh" : "none"};
    const bool is_gelu = act->kind == MEST_ACT_GELU || act->kind == MEST_ACT_GELU_TANH;
    const mest_io io = {.out = out, .in = {z, dy}, .params = is_gelu ? (const void *)&gelu : &alpha};
    row(&io, (const int64_t[MEST_SPREAD_MAX]){0}, n);
}

void mest_act_reference(const mest_act *act, const mest_real *x, mest_real *y, int64_t n) { run_part(act, parts[act->kind].forward, x, NULL, y, n); }

void mest_act_slope_reference(const mest_act *act, const mest_real *z, const mest_real *dy, mest_real *dx, int64_t n)
{
    const struct part *p = &parts[act->kind];
    enum { PIECE = 256 };
    mest_real y[PIECE];
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t count = n - at < PIECE ? n - at : PIECE;
        if (p->from_y)
            run_part(act, p->forward, z + at, NULL, y, count);
        run_part(act, p->gradient, p->from_y ? y : z + at, dy + at, dx + at, count);
    }
}

/* With a negative alpha the sign of x cannot be read from y. */
static mest_status vjp_leaky(mest_vjp *v)
{
    const mest_alpha_params *p = mest_vjp_node(v)->params;
    return p->alpha >= 0 ? mest_vjp_from_y(v) : mest_vjp_from_x(v);
}
static mest_status vjp_elu(mest_vjp *v)
{
    const mest_alpha_params *p = mest_vjp_node(v)->params;
    if (p->alpha <= 0)
        return mest_fail(mest_vjp_err(v), MEST_E_UNSUPPORTED, "%s '%s': no gradient for alpha <= 0", mest_vjp_node(v)->op->name,
                         mest_vjp_node(v)->name);
    return mest_vjp_from_y(v);
}
static mest_status infer_celu(mest_infer *c)
{
    MEST_INFER_CHECK(c, ((const mest_alpha_params *)c->params)->alpha != 0, "alpha must not be 0");
    return mest_infer_float(c);
}
static mest_status infer_gelu(mest_infer *c)
{
    const char *kind = ((const mest_gelu_params *)c->params)->approximate;
    MEST_INFER_CHECK(c, !kind || !strcmp(kind, "none") || !strcmp(kind, "tanh"), "approximate \"%.40s\" is neither none nor tanh", kind);
    return mest_infer_float(c);
}

#define ALPHA(default_) {.name = "alpha", .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_alpha_params, alpha), .number = (default_)}
#define BETA(name_, default_) {.name = (name_), .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_alpha_params, beta), .number = (default_)}
static const mest_attr alpha_001[] = {ALPHA(0.01), {.name = NULL}};
static const mest_attr alpha_1[] = {ALPHA(1), {.name = NULL}};
static const mest_attr hard_sigmoid_attrs[] = {ALPHA(0.2), BETA("beta", 0.5), {.name = NULL}};
static const mest_attr selu_attrs[] = {ALPHA(1.67326319217681884765625), BETA("gamma", 1.05070102214813232421875), {.name = NULL}};
static const mest_attr gelu_attrs[] = {
    {.name = "approximate", .kind = MEST_ATTR_STRING, .offset = offsetof(mest_gelu_params, approximate), .text = "none"}, {.name = NULL}};

const mest_op mest_ops_activation[] = {
    OP("LeakyRelu", leaky_relu, true, alpha_001, mest_alpha_params, vjp_leaky),
    GRAD_OP("LeakyRelu", leaky_relu, true, mest_alpha_params),
    OP("Sigmoid", sigmoid, true, NULL, no_params, mest_vjp_from_y),
    GRAD_OP("Sigmoid", sigmoid, true, no_params),
    OP("Tanh", tanh, true, NULL, no_params, mest_vjp_from_y),
    GRAD_OP("Tanh", tanh, true, no_params),
    OP("HardSigmoid", hard_sigmoid, true, hard_sigmoid_attrs, mest_alpha_params, mest_vjp_from_y),
    GRAD_OP("HardSigmoid", hard_sigmoid, true, mest_alpha_params),
    OP("HardSwish", hard_swish, true, NULL, no_params, mest_vjp_from_x),
    GRAD_OP("HardSwish", hard_swish, true, no_params),
    OP("Elu", elu, true, alpha_1, mest_alpha_params, vjp_elu),
    GRAD_OP("Elu", elu, true, mest_alpha_params),
    {.domain = "", .name = "Celu", .limits = "gradients with alpha <= 0", .since = 12, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE, .act_in = 1, .act_out = 1, .attrs = alpha_1, .params_bytes = sizeof(mest_alpha_params),
     .infer = infer_celu, .forward = celu_forward, .vjp = vjp_elu},
    GRAD_OP("Celu", celu, true, mest_alpha_params),
    OP("Selu", selu, true, selu_attrs, mest_alpha_params, vjp_elu),
    GRAD_OP("Selu", selu, true, mest_alpha_params),
    OP("Softplus", softplus, true, NULL, no_params, mest_vjp_from_y),
    GRAD_OP("Softplus", softplus, true, no_params),
    OP("Softsign", softsign, true, NULL, no_params, mest_vjp_from_y),
    GRAD_OP("Softsign", softsign, true, no_params),
    OP("Mish", mish, true, NULL, no_params, mest_vjp_from_x),
    GRAD_OP("Mish", mish, true, no_params),
    OP("Swish", swish, true, alpha_1, mest_alpha_params, mest_vjp_from_x),
    GRAD_OP("Swish", swish, true, mest_alpha_params),
    {.domain = "", .name = "Gelu", .since = 20, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE, .act_in = 1, .act_out = 1, .attrs = gelu_attrs, .params_bytes = sizeof(mest_gelu_params),
     .infer = infer_gelu, .forward = gelu_forward, .vjp = mest_vjp_from_x},
    GRAD_OP("Gelu", gelu, true, mest_gelu_params),
    {.name = NULL},
};
