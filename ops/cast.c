/* SPDX-License-Identifier: Apache-2.0 */
/* Cast: any numeric type to any other (attribute to). Identity: a view; any fixed-size type.
 * Float to integer truncates; what does not fit saturates and NaN becomes 0 (ONNX leaves both open). Gradient between float types: cast back. */
#include "ops/elements.h"

typedef struct cast_params { int64_t to; } cast_params;

static float half_to_float(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    float m = exponent == 0 ? ldexpf((float)mantissa, -24) : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                                                          : ldexpf((float)(mantissa + 1024), exponent - 25);
    return h & 0x8000 ? -m : m;
}

static uint16_t float_to_half(double x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    double m = fabs(x);
    if (m != m)
        return sign | 0x7e00;
    if (m >= 65520)
        return sign | 0x7c00;
    if (m < 0x1p-14) /* subnormal: multiples of 2^-24; rounding up to 1024 is the smallest normal number */
        return sign | (uint16_t)rint(m * 0x1p24);
    int e;
    frexp(m, &e);
    unsigned mantissa = (unsigned)rint(ldexp(m, 11 - e)); /* 1024..2048 */
    return (uint16_t)(sign | (((unsigned)(e + 14) << 10) + mantissa - 1024));
}

static float bf16_to_float(uint16_t b)
{
    uint32_t bits = (uint32_t)b << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint16_t float_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (f != f)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to nearest even */
}

static int64_t to_int(double x, double lo, double hi_exclusive, int64_t min, int64_t max)
{
    return x != x ? 0 : x <= lo ? min : x >= hi_exclusive ? max : (int64_t)x;
}

typedef struct number { /* one element on its way: integers keep all 64 bits */
    bool integer, is_unsigned;
    int64_t i;
    double d;
} number;

static number load(mest_dtype t, const void *data, int64_t k)
{
    number n = {.integer = true};
    switch (t) {
    case MEST_F32: n.integer = false; n.d = (double)((const mest_real *)data)[k]; break;
    case MEST_F64: n.integer = false; n.d = ((const double *)data)[k]; break;
    case MEST_F16: n.integer = false; n.d = (double)half_to_float(((const uint16_t *)data)[k]); break;
    case MEST_BF16: n.integer = false; n.d = (double)bf16_to_float(((const uint16_t *)data)[k]); break;
    case MEST_U8: n.i = ((const uint8_t *)data)[k]; break;
    case MEST_I8: n.i = ((const int8_t *)data)[k]; break;
    case MEST_U16: n.i = ((const uint16_t *)data)[k]; break;
    case MEST_I16: n.i = ((const int16_t *)data)[k]; break;
    case MEST_I32: n.i = ((const int32_t *)data)[k]; break;
    case MEST_U32: n.i = ((const uint32_t *)data)[k]; break;
    case MEST_I64: n.i = ((const int64_t *)data)[k]; break;
    case MEST_U64: n.is_unsigned = true; n.i = (int64_t)((const uint64_t *)data)[k]; break;
    case MEST_BOOL: n.i = ((const uint8_t *)data)[k] != 0; break;
    default: break;
    }
    return n;
}

static void store(mest_dtype t, void *data, int64_t k, number n)
{
    double d = !n.integer ? n.d : n.is_unsigned ? (double)(uint64_t)n.i : (double)n.i;
    int64_t i = n.i;
    if (!n.integer)
        i = t == MEST_U64 ? (d >= 0x1p63 ? (d >= 0x1p64 ? -1 : (int64_t)(uint64_t)d) : to_int(d, -1, 0x1p63, 0, INT64_MAX))
            : t == MEST_I64 ? to_int(d, -0x1p63, 0x1p63, INT64_MIN, INT64_MAX)
            : t == MEST_U32 ? to_int(d, -1, 0x1p32, 0, UINT32_MAX)
            : t == MEST_I32 ? to_int(d, -0x1p31 - 1, 0x1p31, INT32_MIN, INT32_MAX)
                            : to_int(d, -0x1p31, 0x1p31, INT32_MIN, INT32_MAX);
    switch (t) {
    case MEST_F32: ((mest_real *)data)[k] = n.integer && !n.is_unsigned ? (mest_real)n.i : (mest_real)d; break;
    case MEST_F64: ((double *)data)[k] = d; break;
    case MEST_F16: ((uint16_t *)data)[k] = float_to_half(d); break;
    case MEST_BF16: ((uint16_t *)data)[k] = float_to_bf16((float)d); break;
    case MEST_U8: ((uint8_t *)data)[k] = (uint8_t)i; break;
    case MEST_I8: ((int8_t *)data)[k] = (int8_t)i; break;
    case MEST_U16: ((uint16_t *)data)[k] = (uint16_t)i; break;
    case MEST_I16: ((int16_t *)data)[k] = (int16_t)i; break;
    case MEST_I32: ((int32_t *)data)[k] = (int32_t)i; break;
    case MEST_U32: ((uint32_t *)data)[k] = (uint32_t)i; break;
    case MEST_I64: ((int64_t *)data)[k] = i; break;
    case MEST_U64: ((uint64_t *)data)[k] = (uint64_t)i; break;
    case MEST_BOOL: ((uint8_t *)data)[k] = n.integer ? n.i != 0 : d != 0; break;
    default: break;
    }
}

static mest_status cast_infer(mest_infer *c)
{
    const cast_params *p = c->params;
    if (p->to < 1 || p->to > MEST_BF16 || mest_dtype_size((mest_dtype)p->to) == 0)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %d is not supported", (int)(p->to & 0xffff));
    return mest_infer_set(c, 0, (mest_dtype)p->to, &c->in[0]->shape);
}

static mest_status cast_forward(const mest_args *a)
{
    mest_dtype from = a->in[0].type->dtype, to = a->out[0].type->dtype;
    if (from == to)
        return mest_forward_copy(a);
    for (size_t i = 0; i < a->out[0].count; i++)
        store(to, a->out[0].data, (int64_t)i, load(from, a->in[0].data, (int64_t)i));
    return MEST_OK;
}

static mest_status cast_vjp(mest_vjp *v)
{
    cast_params *p = mest_vjp_alloc(v, sizeof *p);
    mest_id dy = mest_dout(v, 0);
    if (!p)
        return mest_vjp_nomem(v);
    p->to = mest_vjp_type(v, mest_in(v, 0))->dtype;
    return mest_give_op(v, 0, "Cast", p, 1, &dy);
}

/* CastLike(X, T): the type of T. */
static mest_status cast_like_infer(mest_infer *c) { return mest_infer_set(c, 0, c->in[1]->dtype, &c->in[0]->shape); }

static mest_status identity_infer(mest_infer *c) { return mest_infer_set(c, 0, c->in[0]->dtype, &c->in[0]->shape); }
static mest_status identity_vjp(mest_vjp *v) { return mest_give(v, 0, mest_dout(v, 0)); }

static const mest_attr cast_attrs[] = {
    {.name = "to", .kind = MEST_ATTR_INT, .offset = offsetof(cast_params, to), .required = true}, {.name = NULL}};

const mest_op mest_ops_cast[] = {
    {.domain = "", .name = "Cast", .limits = "strings, float8", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = cast_attrs, .params_bytes = sizeof(cast_params), .infer = cast_infer, .forward = cast_forward, .vjp = cast_vjp},
    {.domain = "", .name = "CastLike", .limits = "strings, float8", .since = 15, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .infer = cast_like_infer, .forward = cast_forward, .vjp = cast_vjp},
    {.domain = "", .name = "Identity", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ANY_TYPE | MEST_OP_VIEW | MEST_OP_INPLACE, .infer = identity_infer, .forward = mest_forward_copy, .vjp = identity_vjp},
    {.name = NULL},
};
