/* SPDX-License-Identifier: Apache-2.0 */
/* Where(condition, X, Y): x where the condition holds, else y, with broadcasting; any fixed-size type.
 * Gradient: dX = Where(condition, dY, 0), dY = Where(condition, 0, dY). */
#include "ops/elements.h"

#define WHERE_ROW(name, T)                                                                                    \
    static void name(const mest_io *io, const int64_t *off, int64_t n)                                        \
    {                                                                                                         \
        const uint8_t *c = (const uint8_t *)io->in[0] + off[1];                                               \
        const T *x = (const T *)io->in[1] + off[2], *y = (const T *)io->in[2] + off[3];                       \
        T *o = (T *)io->out + off[0];                                                                         \
        for (int64_t i = 0; i < n; i++)                                                                       \
            o[i] = c[i * io->step[1]] ? x[i * io->step[2]] : y[i * io->step[3]];                              \
    }
WHERE_ROW(where_1, uint8_t)
WHERE_ROW(where_2, uint16_t)
WHERE_ROW(where_4, uint32_t)
WHERE_ROW(where_8, uint64_t)

static mest_status where_infer(mest_infer *c)
{
    MEST_INFER_CHECK(c, c->in[0]->dtype == MEST_BOOL, "the condition is %s, not bool", mest_dtype_name(c->in[0]->dtype));
    MEST_INFER_CHECK(c, c->in[1]->dtype == c->in[2]->dtype, "X is %s but Y is %s", mest_dtype_name(c->in[1]->dtype),
                     mest_dtype_name(c->in[2]->dtype));
    MEST_TRY(mest_infer_broadcast(c));
    mest_shape shape = c->out[0].shape;
    return mest_infer_set(c, 0, c->in[1]->dtype, &shape);
}

static mest_status where_forward(const mest_args *a)
{
    size_t size = mest_dtype_size(a->out[0].type->dtype);
    mest_rows_all(a, size == 1 ? where_1 : size == 2 ? where_2 : size == 4 ? where_4 : where_8);
    return MEST_OK;
}

static mest_status where_vjp(mest_vjp *v)
{
    mest_type scalar = {.dtype = MEST_F32};
    mest_real none = 0;
    mest_id zero = mest_vjp_const(v, &scalar, &none);
    if (zero == MEST_NONE)
        return mest_vjp_nomem(v);
    mest_id dx[3] = {mest_in(v, 0), mest_dout(v, 0), zero}, dy[3] = {mest_in(v, 0), zero, mest_dout(v, 0)};
    MEST_TRY(mest_give_op(v, 1, "Where", NULL, 3, dx));
    return mest_give_op(v, 2, "Where", NULL, 3, dy);
}

const mest_op mest_ops_where[] = {
    {.domain = "", .name = "Where", .since = 9, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .infer = where_infer, .forward = where_forward, .vjp = where_vjp},
    {.name = NULL},
};
