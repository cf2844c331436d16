/* SPDX-License-Identifier: Apache-2.0 */
/* Pow: y = a^b with broadcasting; the output has the type of a (float32, int64 or int32), b may be any of these, float64, uint32 or uint64.
 * mest.PowGrad(A, B, dY)          dA = dY b a^(b-1), 0 where b = 0
 * mest.PowExponentGrad(A, Y, dY)  dB = dY y log a where a > 0, else 0 */
#include "ops/elements.h"

static bool is_whole(mest_dtype t) { return mest_dtype_is_index(t) || t == MEST_U32 || t == MEST_U64; }

/* A uint64 beyond the range of int64 becomes the largest of its parity, which is what a base of -1 asks for; others are 0, 1 or beyond all anyway. */
static inline int64_t whole_at(mest_dtype t, const void *data, int64_t i)
{
    if (t == MEST_U32)
        return ((const uint32_t *)data)[i];
    if (t != MEST_U64)
        return mest_int_at(t, data, i);
    const uint64_t x = ((const uint64_t *)data)[i];
    return x <= INT64_MAX ? (int64_t)x : x & 1 ? INT64_MAX : INT64_MAX - 1;
}

static inline double exponent_at(mest_dtype t, const void *data, int64_t i)
{
    return t == MEST_F32 ? (double)((const mest_real *)data)[i] : t == MEST_F64 ? ((const double *)data)[i] : (double)whole_at(t, data, i);
}

/* Wraps around; a negative exponent gives what truncation of 1 / a^|b| gives. */
static int64_t int_pow(int64_t a, int64_t b)
{
    if (b < 0)
        return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
    uint64_t result = 1, base = (uint64_t)a;
    for (; b > 0; b >>= 1, base *= base)
        if (b & 1)
            result *= base;
    return (int64_t)result;
}

static void pow_real_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_dtype t = *(const mest_dtype *)io->params;
    const mest_real *a = (const mest_real *)io->in[0] + off[1];
    mest_real *o = (mest_real *)io->out + off[0];
    int64_t sa = io->step[1], sb = io->step[2];
    double first = exponent_at(t, io->in[1], off[2]);
    if (sb == 0 && (first == 2 || first == 3)) { /* squares of variances and the cube of GELU */
        for (int64_t i = 0; i < n; i++) {
            mest_real x = a[i * sa];
            o[i] = first == 2 ? x * x : x * x * x;
        }
    } else if (t == MEST_F32) {
        const mest_real *b = (const mest_real *)io->in[1] + off[2];
        for (int64_t i = 0; i < n; i++)
            o[i] = REAL(pow)(a[i * sa], b[i * sb]);
    } else {
        for (int64_t i = 0; i < n; i++)
            o[i] = (mest_real)pow((double)a[i * sa], exponent_at(t, io->in[1], off[2] + i * sb));
    }
}

static int64_t saturate(double x)
{
    return x != x ? 0 : x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : (int64_t)x;
}

#define INT_POW_ROW(name, T)                                                                                   \
    static void name(const mest_io *io, const int64_t *off, int64_t n)                                         \
    {                                                                                                          \
        const mest_dtype t = *(const mest_dtype *)io->params;                                                  \
        const T *a = (const T *)io->in[0] + off[1];                                                            \
        T *o = (T *)io->out + off[0];                                                                          \
        for (int64_t i = 0; i < n; i++) {                                                                      \
            T x = a[i * io->step[1]];                                                                          \
            int64_t at = off[2] + i * io->step[2];                                                             \
            o[i] = is_whole(t) ? (T)int_pow(x, whole_at(t, io->in[1], at))                                     \
                               : (T)saturate(pow((double)x, exponent_at(t, io->in[1], at)));                   \
        }                                                                                                      \
    }
INT_POW_ROW(pow_i64_row, int64_t)
INT_POW_ROW(pow_i32_row, int32_t)

static mest_status pow_infer(mest_infer *c)
{
    for (int i = 0; i < 2; i++)
        if (c->in[i]->dtype != MEST_F32 && !mest_dtype_is_index(c->in[i]->dtype) &&
            !(i == 1 && (c->in[i]->dtype == MEST_F64 || is_whole(c->in[i]->dtype))))
            return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(c->in[i]->dtype));
    MEST_TRY(mest_infer_broadcast(c));
    mest_shape shape = c->out[0].shape;
    return mest_infer_set(c, 0, c->in[0]->dtype, &shape);
}

static void run(const mest_args *a, int exponent, mest_row_fn fn)
{
    mest_dtype t = a->in[exponent].type->dtype;
    mest_args with = *a;
    with.params = &t;
    mest_rows_all(&with, fn);
}

static mest_status pow_forward(const mest_args *a)
{
    mest_dtype t = a->in[0].type->dtype;
    run(a, 1, t == MEST_F32 ? pow_real_row : t == MEST_I64 ? pow_i64_row : pow_i32_row);
    return MEST_OK;
}

static void grad_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_dtype t = *(const mest_dtype *)io->params;
    const mest_real *a = (const mest_real *)io->in[0] + off[1], *dy = (const mest_real *)io->in[2] + off[3];
    mest_real *o = (mest_real *)io->out + off[0];
    for (int64_t i = 0; i < n; i++) {
        mest_real x = a[i * io->step[1]], g = dy[i * io->step[3]];
        mest_real b = (mest_real)exponent_at(t, io->in[1], off[2] + i * io->step[2]);
        o[i] = b == 0 ? 0 : b == 2 ? 2 * x * g : g * b * REAL(pow)(x, b - 1);
    }
}

static void exponent_grad_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_real *a = (const mest_real *)io->in[0] + off[1], *y = (const mest_real *)io->in[1] + off[2];
    const mest_real *dy = (const mest_real *)io->in[2] + off[3];
    mest_real *o = (mest_real *)io->out + off[0];
    for (int64_t i = 0; i < n; i++) {
        mest_real x = a[i * io->step[1]];
        o[i] = x > 0 ? dy[i * io->step[3]] * y[i * io->step[2]] * REAL(log)(x) : 0;
    }
}

static mest_status grad_infer(mest_infer *c)
{
    MEST_TRY(mest_infer_broadcast(c));
    mest_shape shape = c->out[0].shape;
    return mest_infer_set(c, 0, MEST_F32, &shape);
}
static mest_status grad_forward(const mest_args *a)
{
    run(a, 1, grad_row);
    return MEST_OK;
}
static mest_status exponent_grad_forward(const mest_args *a)
{
    mest_rows_all(a, exponent_grad_row);
    return MEST_OK;
}

static mest_status pow_vjp(mest_vjp *v)
{
    mest_id da[3] = {mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0)};
    MEST_TRY(mest_give_op(v, 0, "mest.PowGrad", NULL, 3, da));
    if (!mest_wants(v, 1))
        return MEST_OK;
    mest_id db[3] = {mest_in(v, 0), mest_out(v, 0), mest_dout(v, 0)};
    return mest_give_op(v, 1, "mest.PowExponentGrad", NULL, 3, db);
}

const mest_op mest_ops_pow[] = {
    {.domain = "", .name = "Pow", .since = 7, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, .infer = pow_infer, .forward = pow_forward,
     .vjp = pow_vjp},
    {.domain = "mest", .name = "mest.PowGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .infer = grad_infer,
     .forward = grad_forward},
    {.domain = "mest", .name = "mest.PowExponentGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1,
     .infer = mest_infer_float_broadcast, .forward = exponent_grad_forward},
    {.name = NULL},
};
