/* SPDX-License-Identifier: Apache-2.0 */
/* Sum, Mean, Max, Min of one or more operands with broadcasting; Max and Min for every numeric type (NaN wins).
 * Gradient of Max and Min: to the operands that equal the result, in equal parts when several do (PyTorch's maximum):
 *   mest.TieCount(Y, X0, X1, ...)        how many operands equal y
 *   mest.TieGrad(X, Y, count, dY)        dY / count where x = y, else 0
 * mest.AddN: sum of operands of one type - gradients that meet. Any layout, stored entries of sparse weights included; out may be in[0]. */
#include "ops/binary_impl.h"

FLOAT_ROWS(add, x + y)
static const typed_row add_rows[] = {{MEST_F32, add_real}, {MEST_F64, add_f64}, {MEST_UNDEFINED, NULL}};
FLOAT_ROWS(max, x > y || x != x ? x : y)
SIGNED_ROWS(max, x > y ? x : y)
UNSIGNED_ROWS(max, x > y ? x : y)
ROW_TABLE(max);
FLOAT_ROWS(min, x < y || x != x ? x : y)
SIGNED_ROWS(min, x < y ? x : y)
UNSIGNED_ROWS(min, x < y ? x : y)
ROW_TABLE(min);

#define RULES(name)                                                                                        \
    static mest_status name##_infer(mest_infer *c) { return infer_typed(c, name##_rows, MEST_UNDEFINED); } \
    static mest_status name##_forward(const mest_args *a) { return forward_variadic(a, name##_rows); }
RULES(max)
RULES(min)
static mest_status sum_infer(mest_infer *c) { return infer_typed(c, add_rows, MEST_UNDEFINED); }
static mest_status sum_forward(const mest_args *a) { return forward_variadic(a, add_rows); }

static mest_status mean_forward(const mest_args *a)
{
    MEST_TRY(forward_variadic(a, add_rows));
    double scale = 1.0 / a->n_in;
    for (size_t i = 0; i < a->out[0].count; i++) {
        if (a->out[0].type->dtype == MEST_F64)
            ((double *)a->out[0].data)[i] *= scale;
        else
            ((mest_real *)a->out[0].data)[i] *= (mest_real)scale;
    }
    return MEST_OK;
}

static mest_status add_n_infer(mest_infer *c)
{
    for (int i = 1; i < c->n_in; i++)
        MEST_INFER_CHECK(c, mest_shape_equal(&c->in[i]->shape, &c->in[0]->shape), "operands differ in shape");
    c->out[0] = *c->in[0]; /* layout included: a gradient of a sparse weight stays one */
    return MEST_OK;
}

/* Stored entries of a sparse weight are so many numbers. */
static mest_status add_n_forward(const mest_args *a)
{
    if (a->out[0].type->layout.kind != MEST_SPARSE)
        return sum_forward(a);
    mest_real *y = a->out[0].data;
    for (size_t k = 0; k < a->out[0].count; k++) { /* all operands of an element before it is written: y may be any of them */
        mest_real sum = ((const mest_real *)a->in[0].data)[k];
        for (int i = 1; i < a->n_in; i++)
            sum += ((const mest_real *)a->in[i].data)[k];
        y[k] = sum;
    }
    return MEST_OK;
}

static mest_status sum_vjp(mest_vjp *v)
{
    for (int i = 0; i < mest_vjp_node(v)->n_in; i++)
        MEST_TRY(mest_give(v, i, mest_dout(v, 0)));
    return MEST_OK;
}

static mest_status mean_vjp(mest_vjp *v)
{
    mest_type scalar = {.dtype = MEST_F32};
    int n = mest_vjp_node(v)->n_in;
    mest_real part = (mest_real)(1.0 / n);
    mest_id in[2] = {mest_dout(v, 0), mest_vjp_const(v, &scalar, &part)}, g;
    if (in[1] == MEST_NONE)
        return mest_vjp_nomem(v);
    MEST_TRY(mest_emit(v, "Mul", NULL, 2, in, 1, NULL, &g));
    for (int i = 0; i < n; i++)
        MEST_TRY(mest_give(v, i, g));
    return MEST_OK;
}

static void tie_count_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_real *y = (const mest_real *)io->in[0] + off[1], *x = (const mest_real *)io->in[1] + off[2];
    mest_real *o = (mest_real *)io->out + off[0];
    bool first = io->params != NULL;
    for (int64_t i = 0; i < n; i++)
        o[i] = (first ? 0 : o[i]) + (x[i * io->step[2]] == y[i * io->step[1]] ? 1 : 0);
}
static mest_status tie_count_forward(const mest_args *a)
{
    for (int i = 1; i < a->n_in; i++) {
        int which[2] = {0, i};
        mest_args step = *a;
        step.params = i == 1 ? a : NULL; /* only a sign: start from zero */
        mest_rows(&step, 2, which, tie_count_row);
    }
    return MEST_OK;
}
static mest_status tie_count_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &c->in[0]->shape); }

static void tie_grad_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_real *x = (const mest_real *)io->in[0] + off[1], *y = (const mest_real *)io->in[1] + off[2];
    const mest_real *count = (const mest_real *)io->in[2] + off[3], *dy = (const mest_real *)io->in[3] + off[4];
    mest_real *o = (mest_real *)io->out + off[0];
    for (int64_t i = 0; i < n; i++)
        o[i] = x[i * io->step[1]] == y[i * io->step[2]] ? dy[i * io->step[4]] / count[i * io->step[3]] : 0;
}
static mest_status tie_grad_forward(const mest_args *a)
{
    mest_rows_all(a, tie_grad_row);
    return MEST_OK;
}

static mest_status extremum_vjp(mest_vjp *v)
{
    int n = mest_vjp_node(v)->n_in;
    if (n == 1)
        return mest_give(v, 0, mest_dout(v, 0));
    mest_id *in = mest_vjp_alloc(v, ((size_t)n + 1) * sizeof *in), count;
    if (!in)
        return mest_vjp_nomem(v);
    in[0] = mest_out(v, 0);
    for (int i = 0; i < n; i++)
        in[i + 1] = mest_in(v, i);
    MEST_TRY(mest_emit(v, "mest.TieCount", NULL, n + 1, in, 1, NULL, &count));
    for (int i = 0; i < n; i++) {
        mest_id of[4] = {mest_in(v, i), mest_out(v, 0), count, mest_dout(v, 0)};
        MEST_TRY(mest_give_op(v, i, "mest.TieGrad", NULL, 4, of));
    }
    return MEST_OK;
}

#define VARIADIC(onnx, c_name, c_forward, vjp_rule)                                                                             \
    {.domain = "", .name = onnx, .since = 1, .in_min = 1, .in_max = -1, .out_min = 1, .out_max = 1,                             \
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE | MEST_OP_ANY_TYPE, .act_in = ~0u, .act_out = 1, .infer = c_name##_infer, .forward = c_forward, .vjp = vjp_rule}

const mest_op mest_ops_variadic[] = {
    VARIADIC("Sum", sum, sum_forward, sum_vjp),
    VARIADIC("Max", max, max_forward, extremum_vjp),
    VARIADIC("Min", min, min_forward, extremum_vjp),
    {.domain = "", .name = "Mean", .since = 1, .in_min = 1, .in_max = -1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, .infer = sum_infer,
     .forward = mean_forward, .vjp = mean_vjp},
    {.domain = "mest", .name = "mest.AddN", .since = 1, .in_min = 1, .in_max = -1, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE | MEST_OP_FLAT, .act_in = ~0u, .act_out = 1, .sparse_in = ~0u, .infer = add_n_infer,
     .forward = add_n_forward},
    {.domain = "mest", .name = "mest.TieCount", .since = 1, .in_min = 2, .in_max = -1, .out_min = 1, .out_max = 1, .infer = tie_count_infer,
     .forward = tie_count_forward},
    {.domain = "mest", .name = "mest.TieGrad", .since = 1, .in_min = 4, .in_max = 4, .out_min = 1, .out_max = 1,
     .infer = mest_infer_float_broadcast, .forward = tie_grad_forward},
    {.name = NULL},
};
