/* SPDX-License-Identifier: Apache-2.0 */
/* More elementwise functions of one float: Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh, ThresholdedRelu, Shrink; IsNaN, IsInf give bool.
 * All in plain layout. Gradients from X. */
#include "ops/unary_impl.h"

#define R(x) ((mest_real)(x))
typedef struct shrink_params { double lambda, bias; } shrink_params;
typedef struct inf_params { int64_t negative, positive; } inf_params;

UNARY(tan, no_params, REAL(tan)(x))
GRAD(tan, no_params, dy * (1 + REAL(tan)(z) * REAL(tan)(z)))
UNARY(asin, no_params, REAL(asin)(x))
GRAD(asin, no_params, dy / REAL(sqrt)(1 - z * z))
UNARY(acos, no_params, REAL(acos)(x))
GRAD(acos, no_params, -dy / REAL(sqrt)(1 - z * z))
UNARY(atan, no_params, REAL(atan)(x))
GRAD(atan, no_params, dy / (1 + z * z))
UNARY(sinh, no_params, REAL(sinh)(x))
GRAD(sinh, no_params, dy * REAL(cosh)(z))
UNARY(cosh, no_params, REAL(cosh)(x))
GRAD(cosh, no_params, dy * REAL(sinh)(z))
UNARY(asinh, no_params, REAL(asinh)(x))
GRAD(asinh, no_params, dy / REAL(sqrt)(z * z + 1))
UNARY(acosh, no_params, REAL(acosh)(x))
GRAD(acosh, no_params, dy / REAL(sqrt)(z * z - 1))
UNARY(atanh, no_params, REAL(atanh)(x))
GRAD(atanh, no_params, dy / (1 - z * z))
UNARY(thresholded_relu, mest_alpha_params, x > R(p->alpha) ? x : 0)
GRAD(thresholded_relu, mest_alpha_params, z > R(p->alpha) ? dy : 0)
UNARY(shrink, shrink_params, x < R(-p->lambda) ? x + R(p->bias) : x > R(p->lambda) ? x - R(p->bias) : 0)
GRAD(shrink, shrink_params, z < R(-p->lambda) || z > R(p->lambda) ? dy : 0)

static mest_status test_infer(mest_infer *c)
{
    MEST_INFER_CHECK(c, c->in[0]->dtype == MEST_F32, "input is %s, not float32", mest_dtype_name(c->in[0]->dtype));
    return mest_infer_set(c, 0, MEST_BOOL, &c->in[0]->shape);
}
static mest_status isnan_forward(const mest_args *a)
{
    for (size_t i = 0; i < a->out[0].count; i++)
        ((uint8_t *)a->out[0].data)[i] = isnan(((const mest_real *)a->in[0].data)[i]) != 0;
    return MEST_OK;
}
static mest_status isinf_forward(const mest_args *a)
{
    const inf_params *p = a->params;
    for (size_t i = 0; i < a->out[0].count; i++) {
        mest_real x = ((const mest_real *)a->in[0].data)[i];
        ((uint8_t *)a->out[0].data)[i] = isinf(x) && (x > 0 ? p->positive : p->negative);
    }
    return MEST_OK;
}

static const mest_attr threshold_attrs[] = {
    {.name = "alpha", .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_alpha_params, alpha), .number = 1}, {.name = NULL}};
static const mest_attr shrink_attrs[] = {
    {.name = "lambd", .kind = MEST_ATTR_FLOAT, .offset = offsetof(shrink_params, lambda), .number = 0.5},
    {.name = "bias", .kind = MEST_ATTR_FLOAT, .offset = offsetof(shrink_params, bias)},
    {.name = NULL}};
static const mest_attr inf_attrs[] = {
    {.name = "detect_negative", .kind = MEST_ATTR_INT, .offset = offsetof(inf_params, negative), .number = 1},
    {.name = "detect_positive", .kind = MEST_ATTR_INT, .offset = offsetof(inf_params, positive), .number = 1},
    {.name = NULL}};

#define PAIR(onnx, c_name, attributes, P) OP(onnx, c_name, false, attributes, P, mest_vjp_from_x), GRAD_OP(onnx, c_name, false, P)

const mest_op mest_ops_trig[] = {
    PAIR("Tan", tan, NULL, no_params), PAIR("Asin", asin, NULL, no_params), PAIR("Acos", acos, NULL, no_params), PAIR("Atan", atan, NULL, no_params),
    PAIR("Sinh", sinh, NULL, no_params), PAIR("Cosh", cosh, NULL, no_params), PAIR("Asinh", asinh, NULL, no_params),
    PAIR("Acosh", acosh, NULL, no_params), PAIR("Atanh", atanh, NULL, no_params),
    PAIR("ThresholdedRelu", thresholded_relu, threshold_attrs, mest_alpha_params), PAIR("Shrink", shrink, shrink_attrs, shrink_params),
    {.domain = "", .name = "IsNaN", .since = 9, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .infer = test_infer,
     .forward = isnan_forward, .no_grad = true},
    {.domain = "", .name = "IsInf", .since = 10, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .attrs = inf_attrs,
     .params_bytes = sizeof(inf_params), .infer = test_infer, .forward = isinf_forward, .no_grad = true},
    {.name = NULL},
};
