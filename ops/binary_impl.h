/* SPDX-License-Identifier: Apache-2.0 */
/* How operators of two operands with numpy broadcasting are written: one expression of x and y for each group of element types.
 * Included by the files that define them. */
#ifndef MEST_OPS_BINARY_IMPL_H
#define MEST_OPS_BINARY_IMPL_H

#include "ops/elements.h"

typedef struct typed_row { mest_dtype dtype; mest_row_fn fn; } typed_row;

/* Row function fn: elements of type T in, O out. Contiguous and scalar operands get loops of their own, which vectorise. */
#define BINARY_ROW(fn, T, O, expr)                                                                              \
    static void fn(const mest_io *io, const int64_t *off, int64_t n)                                            \
    {                                                                                                           \
        const T *p = (const T *)io->in[0] + off[1], *q = (const T *)io->in[1] + off[2];                         \
        O *o = (O *)io->out + off[0];                                                                           \
        const int64_t sp = io->step[1], sq = io->step[2];                                                       \
        if (sp == 1 && sq == 1) {                                                                               \
            MEST_IVDEP                                                                                          \
            for (int64_t i = 0; i < n; i++) { T x = p[i], y = q[i]; o[i] = (O)(expr); }                         \
        } else if (sp == 1 && sq == 0) {                                                                        \
            T y = *q;                                                                                           \
            MEST_IVDEP                                                                                          \
            for (int64_t i = 0; i < n; i++) { T x = p[i]; o[i] = (O)(expr); }                                   \
        } else if (sp == 0 && sq == 1) {                                                                        \
            T x = *p;                                                                                           \
            MEST_IVDEP                                                                                          \
            for (int64_t i = 0; i < n; i++) { T y = q[i]; o[i] = (O)(expr); }                                   \
        } else {                                                                                                \
            for (int64_t i = 0; i < n; i++) { T x = p[i * sp], y = q[i * sq]; o[i] = (O)(expr); }               \
        }                                                                                                       \
    }

/* name_rows: a table over all numeric types. O: output type, or SAME. Expressions may use T's name as `type`. */
#define SIGNED_ROWS(name, expr)                        \
    BINARY_ROW(name##_i8, int8_t, int8_t, expr)        \
    BINARY_ROW(name##_i16, int16_t, int16_t, expr)     \
    BINARY_ROW(name##_i32, int32_t, int32_t, expr)     \
    BINARY_ROW(name##_i64, int64_t, int64_t, expr)
#define UNSIGNED_ROWS(name, expr)                      \
    BINARY_ROW(name##_u8, uint8_t, uint8_t, expr)      \
    BINARY_ROW(name##_u16, uint16_t, uint16_t, expr)   \
    BINARY_ROW(name##_u32, uint32_t, uint32_t, expr)   \
    BINARY_ROW(name##_u64, uint64_t, uint64_t, expr)
#define FLOAT_ROWS(name, expr)                         \
    BINARY_ROW(name##_real, mest_real, mest_real, expr)\
    BINARY_ROW(name##_f64, double, double, expr)
#define ROW_TABLE(name)                                                                                                      \
    static const typed_row name##_rows[] = {{MEST_F32, name##_real}, {MEST_I64, name##_i64}, {MEST_I32, name##_i32},          \
        {MEST_F64, name##_f64}, {MEST_U8, name##_u8}, {MEST_I8, name##_i8}, {MEST_U16, name##_u16}, {MEST_I16, name##_i16},   \
        {MEST_U32, name##_u32}, {MEST_U64, name##_u64}, {MEST_UNDEFINED, NULL}}

static inline mest_row_fn find_row(const typed_row *rows, mest_dtype dtype)
{
    for (; rows->fn; rows++)
        if (rows->dtype == dtype)
            return rows->fn;
    return NULL;
}

/* Shape rule: all inputs of one type found in `rows`; output of type `out`, or the inputs' when MEST_UNDEFINED. */
static inline mest_status infer_typed(mest_infer *c, const typed_row *rows, mest_dtype out)
{
    for (int i = 0; i < c->n_in; i++) {
        MEST_INFER_CHECK(c, c->in[i], "input %d is absent", i);
        MEST_INFER_CHECK(c, c->in[i]->dtype == c->in[0]->dtype, "inputs 0 and %d differ in type: %s and %s", i,
                         mest_dtype_name(c->in[0]->dtype), mest_dtype_name(c->in[i]->dtype));
    }
    if (!find_row(rows, c->in[0]->dtype))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(c->in[0]->dtype));
    MEST_TRY(mest_infer_broadcast(c));
    mest_shape shape = c->out[0].shape;
    return mest_infer_set(c, 0, out == MEST_UNDEFINED ? c->in[0]->dtype : out, &shape);
}

static inline mest_status forward_typed(const mest_args *a, const typed_row *rows)
{
    mest_rows_all(a, find_row(rows, a->in[0].type->dtype));
    return MEST_OK;
}

/* out = in[0] op in[1] op in[2] ...: later operands are folded into the output in place. One operand: a copy. */
static inline mest_status forward_variadic(const mest_args *a, const typed_row *rows)
{
    if (a->n_in == 1)
        return mest_forward_copy(a);
    mest_row_fn fn = find_row(rows, a->in[0].type->dtype);
    static const int first_two[2] = {0, 1};
    mest_rows(a, 2, first_two, fn);
    for (int i = 2; i < a->n_in; i++) {
        mest_tensor pair[2] = {a->out[0], a->in[i]};
        mest_args step = *a;
        step.in = pair;
        step.n_in = 2;
        mest_rows(&step, 2, first_two, fn);
    }
    return MEST_OK;
}

#endif
