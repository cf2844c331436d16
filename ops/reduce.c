/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions over axes: ReduceSum Mean Max Min Prod L1 L2 LogSum LogSumExp SumSquare. Inputs X, axes? (form of opset 18; keepdims,
 * noop_with_empty_axes). Float32, float64, int64, int32, uint8, int8 where the arithmetic makes sense; Max and Min
 * of bool too (any, all).
 *   mest.ReduceAux(X, Y?)                 statistics that gradients need: number of ties, product of non-zeros, number of zeros
 *   mest.ReduceGrad(dY, X?, Y?, aux?)     dX; dY, Y and aux broadcast along the reduced axes (Prod: Y is the product of non-zeros)
 *   mest.ReduceTo(X)                      sums a broadcast value down to params' shape (mest_shape_params)
 * Max and Min share the gradient among equal elements (PyTorch's amax). */
#include "ops/elements.h"
#include "ops/nn.h"

static mest_status mark_axes(const mest_infer *c, const mest_reduce_params *p, bool reduced[MEST_MAX_RANK])
{
    int64_t axes[MEST_MAX_RANK];
    int n = 0, rank = c->in[0]->shape.rank;
    memset(reduced, 0, MEST_MAX_RANK * sizeof *reduced);
    if (c->n_in > 1 && c->in[1])
        MEST_TRY(mest_infer_ints(c, 1, MEST_MAX_RANK, axes, &n));
    for (int i = 0; i < n; i++) {
        int axis;
        MEST_TRY(mest_infer_axis(c, axes[i], rank, &axis));
        reduced[axis] = true;
    }
    for (int i = 0; n == 0 && !p->noop && i < rank; i++)
        reduced[i] = true;
    return MEST_OK;
}

static mest_status infer_of(mest_infer *c, bool order)
{
    bool reduced[MEST_MAX_RANK];
    const mest_reduce_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape;
    mest_dtype t = c->in[0]->dtype;
    if (!mest_dtype_is_float(t) && !mest_dtype_is_index(t) && t != MEST_U8 && t != MEST_I8 && !(t == MEST_BOOL && order))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(t));
    MEST_TRY(mark_axes(c, p, reduced));
    mest_shape y = {0};
    for (int i = 0; i < x->rank; i++)
        if (!reduced[i] || p->keepdims)
            y.dim[y.rank++] = reduced[i] ? 1 : x->dim[i];
    return mest_infer_set(c, 0, t, &y);
}

static mest_status sum_infer(mest_infer *c) { return infer_of(c, false); }
static mest_status order_infer(mest_infer *c) { return infer_of(c, true); }

static mest_status reduce(const mest_args *a, mest_fold_kind kind)
{
    const mest_reduce_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    int64_t axes[MEST_MAX_RANK];
    int n = a->n_in > 1 ? mest_read_ints(&a->in[1], MEST_MAX_RANK, axes) : 0;
    mest_fold f = {.kind = kind, .rank = x->rank};
    for (int i = 0; i < x->rank; i++) {
        f.dim[i] = x->dim[i];
        f.reduced[i] = n == 0 && !p->noop; /* noop: every element is a group of its own, so L1 takes |x|, as the reference evaluator */
    }
    for (int i = 0; i < n; i++)
        f.reduced[mest_axis(axes[i], x->rank)] = true;
    const mest_dtype t = a->in[0].type->dtype;
    if (!mest_fold_run(a->threads, &f, t == MEST_BOOL ? MEST_U8 : t, a->in[0].data, NULL, a->out[0].data))
        return mest_run_fail(a, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(t));
    for (size_t i = 0; t == MEST_BOOL && i < a->out[0].count; i++) /* the least of nothing is 255 */
        ((uint8_t *)a->out[0].data)[i] = ((const uint8_t *)a->out[0].data)[i] != 0;
    return MEST_OK;
}

/* ---- gradients ---- */

/* X in, statistics of each group out: shape p->kept. */
static mest_status aux_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &((const mest_reduce_params *)c->params)->kept); }

static mest_status aux_forward(const mest_args *a)
{
    const mest_reduce_params *p = a->params;
    mest_fold f = {.kind = p->kind, .rank = p->x.rank};
    for (int i = 0; i < p->x.rank; i++) {
        f.dim[i] = p->x.dim[i];
        f.reduced[i] = p->kept.dim[i] == 1;
    }
    if (!mest_fold_run(a->threads, &f, MEST_F32, a->in[0].data, a->n_in > 1 ? a->in[1].data : NULL, a->out[0].data))
        return mest_run_fail(a, MEST_E_INTERNAL, "not a float");
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &((const mest_reduce_params *)c->params)->x); }

/* Operands of a row: dY, X, Y or first statistic, second statistic; absent ones are not touched. */
static void grad_row(const mest_io *io, const int64_t *off, int64_t n)
{
    const mest_reduce_params *p = io->params;
    const mest_real *dy = (const mest_real *)io->in[0] + off[1];
    const mest_real *x = io->in[1] ? (const mest_real *)io->in[1] + off[2] : NULL;
    const mest_real *y = io->in[2] ? (const mest_real *)io->in[2] + off[3] : NULL;
    const mest_real *z = io->in[3] ? (const mest_real *)io->in[3] + off[4] : NULL;
    mest_real *o = (mest_real *)io->out + off[0];
    const int64_t sdy = io->step[1], sx = io->step[2], sy = io->step[3], sz = io->step[4];
    mest_real scale = (mest_real)p->scale;
    switch (p->kind) {
    case MEST_FOLD_SUM: case MEST_FOLD_MEAN:
        for (int64_t i = 0; i < n; i++)
            o[i] = scale * dy[i * sdy];
        break;
    case MEST_FOLD_MAX: case MEST_FOLD_MIN: /* z: how many equal y */
        for (int64_t i = 0; i < n; i++)
            o[i] = x[i * sx] == y[i * sy] ? dy[i * sdy] / z[i * sz] : 0;
        break;
    case MEST_FOLD_PROD: /* y: product of the non-zeros, z: number of zeros */
        for (int64_t i = 0; i < n; i++) {
            mest_real rest = x[i * sx] != 0 ? (z[i * sz] == 0 ? y[i * sy] / x[i * sx] : 0) : (z[i * sz] == 1 ? y[i * sy] : 0);
            o[i] = dy[i * sdy] * rest;
        }
        break;
    case MEST_FOLD_L1:
        for (int64_t i = 0; i < n; i++)
            o[i] = x[i * sx] > 0 ? dy[i * sdy] : x[i * sx] < 0 ? -dy[i * sdy] : 0;
        break;
    case MEST_FOLD_L2:
        for (int64_t i = 0; i < n; i++)
            o[i] = y[i * sy] != 0 ? dy[i * sdy] * x[i * sx] / y[i * sy] : 0;
        break;
    case MEST_FOLD_SUM_SQUARE:
        for (int64_t i = 0; i < n; i++)
            o[i] = 2 * dy[i * sdy] * x[i * sx];
        break;
    case MEST_FOLD_LOG_SUM:
        for (int64_t i = 0; i < n; i++)
            o[i] = dy[i * sdy] / REAL(exp)(y[i * sy]);
        break;
    case MEST_FOLD_LOG_SUM_EXP:
        for (int64_t i = 0; i < n; i++)
            o[i] = dy[i * sdy] * REAL(exp)(x[i * sx] - y[i * sy]);
        break;
    default: break;
    }
}

static mest_status grad_forward(const mest_args *a)
{
    const mest_reduce_params *p = a->params;
    mest_io io = {.out = a->out[0].data, .params = p};
    mest_spread s;
    mest_spread_begin(&s, &p->x);
    for (int i = 0; i < 4; i++) {
        bool present = i < a->n_in && a->in[i].data;
        io.in[i] = present ? a->in[i].data : NULL;
        /* Packed values of the reduced shape, whatever keepdims was; absent operands get the shape of one that is there. */
        mest_spread_add(&s, i == 1 && present ? &p->x : &p->kept);
    }
    mest_spread_run(a->threads, &s, &io, grad_row);
    return MEST_OK;
}

static mest_status reduce_vjp(mest_vjp *v, mest_fold_kind kind)
{
    if (!mest_wants(v, 0))
        return MEST_OK;
    const mest_node *n = mest_vjp_node(v);
    const mest_reduce_params *given = n->params;
    mest_reduce_params *p = mest_vjp_alloc(v, sizeof *p);
    mest_reduce_params *aux = mest_vjp_alloc(v, 2 * sizeof *aux);
    mest_id axes = mest_in(v, 1), in[4] = {mest_dout(v, 0), MEST_NONE, MEST_NONE, MEST_NONE};
    if (!p || !aux)
        return mest_vjp_nomem(v);
    p->kind = kind;
    p->scale = 1;
    p->x = p->kept = mest_vjp_type(v, mest_in(v, 0))->shape;
    const mest_type *t = axes == MEST_NONE ? NULL : mest_vjp_type(v, axes);
    int64_t n_axes = 0, count = 1;
    if (t)
        mest_shape_count(&t->shape, &n_axes);
    for (int64_t i = 0; i < n_axes; i++)
        p->kept.dim[mest_axis(mest_int_at(t->dtype, mest_vjp_data(v, axes), i), p->x.rank)] = 1;
    for (int i = 0; n_axes == 0 && !given->noop && i < p->x.rank; i++)
        p->kept.dim[i] = 1;
    for (int i = 0; i < p->x.rank; i++)
        count *= p->kept.dim[i] == 1 ? p->x.dim[i] : 1;
    if (kind == MEST_FOLD_MEAN)
        p->scale = count ? 1.0 / (double)count : 0;
    if (kind != MEST_FOLD_SUM && kind != MEST_FOLD_MEAN && kind != MEST_FOLD_LOG_SUM)
        in[1] = mest_in(v, 0);
    if (kind != MEST_FOLD_SUM && kind != MEST_FOLD_MEAN && kind != MEST_FOLD_PROD && kind != MEST_FOLD_L1 && kind != MEST_FOLD_SUM_SQUARE)
        in[2] = mest_out(v, 0);
    aux[0] = aux[1] = *p;
    if (kind == MEST_FOLD_MAX || kind == MEST_FOLD_MIN) {
        mest_id of[2] = {in[1], in[2]};
        aux[0].kind = MEST_FOLD_TIES;
        MEST_TRY(mest_emit(v, "mest.ReduceAux", &aux[0], 2, of, 1, NULL, &in[3]));
    }
    if (kind == MEST_FOLD_PROD) {
        aux[0].kind = MEST_FOLD_PROD_NONZERO;
        aux[1].kind = MEST_FOLD_ZEROS;
        MEST_TRY(mest_emit(v, "mest.ReduceAux", &aux[0], 1, &in[1], 1, NULL, &in[2]));
        MEST_TRY(mest_emit(v, "mest.ReduceAux", &aux[1], 1, &in[1], 1, NULL, &in[3]));
    }
    return mest_give_op(v, 0, "mest.ReduceGrad", p, 4, in);
}

/* ---- mest.ReduceTo ---- */
static mest_status reduce_to_infer(mest_infer *c)
{
    const mest_shape *to = &((const mest_shape_params *)c->params)->shape, *from = &c->in[0]->shape;
    mest_shape both;
    char a[128], b[128];
    MEST_INFER_CHECK(c, mest_shape_broadcast(to, from, &both) && mest_shape_equal(&both, from), "%s is not %s broadcast",
                     mest_shape_text(from, a, sizeof a), mest_shape_text(to, b, sizeof b));
    return mest_infer_set(c, 0, c->in[0]->dtype, to);
}

static mest_status reduce_to_forward(const mest_args *a)
{
    const mest_shape *from = &a->in[0].type->shape, *to = &a->out[0].type->shape;
    int shift = from->rank - to->rank;
    mest_fold f = {.kind = MEST_FOLD_SUM, .rank = from->rank};
    for (int i = 0; i < from->rank; i++) {
        f.dim[i] = from->dim[i];
        f.reduced[i] = i < shift || to->dim[i - shift] != from->dim[i];
    }
    if (!mest_fold_run(a->threads, &f, a->in[0].type->dtype, a->in[0].data, NULL, a->out[0].data))
        return mest_run_fail(a, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(a->in[0].type->dtype));
    return MEST_OK;
}

#define KIND(name, kind)                                                                  \
    static mest_status name##_forward(const mest_args *a) { return reduce(a, kind); }    \
    static mest_status name##_vjp(mest_vjp *v) { return reduce_vjp(v, kind); }
KIND(sum, MEST_FOLD_SUM)
KIND(mean, MEST_FOLD_MEAN)
KIND(max, MEST_FOLD_MAX)
KIND(min, MEST_FOLD_MIN)
KIND(prod, MEST_FOLD_PROD)
KIND(l1, MEST_FOLD_L1)
KIND(l2, MEST_FOLD_L2)
KIND(log_sum, MEST_FOLD_LOG_SUM)
KIND(log_sum_exp, MEST_FOLD_LOG_SUM_EXP)
KIND(sum_square, MEST_FOLD_SUM_SQUARE)

static const mest_attr reduce_attrs[] = {
    {.name = "keepdims", .kind = MEST_ATTR_INT, .offset = offsetof(mest_reduce_params, keepdims), .number = 1},
    {.name = "noop_with_empty_axes", .kind = MEST_ATTR_INT, .offset = offsetof(mest_reduce_params, noop)},
    {.name = NULL}};

#define REDUCE(onnx, c_name, shape_rule)                                                                                                 \
    {.domain = "", .name = onnx, .since = 1, .in_min = 1, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,   \
     .attrs = reduce_attrs, .params_bytes = sizeof(mest_reduce_params), .infer = shape_rule, .forward = c_name##_forward, .vjp = c_name##_vjp}

const mest_op mest_ops_reduce[] = {
    REDUCE("ReduceSum", sum, sum_infer), REDUCE("ReduceMean", mean, sum_infer), REDUCE("ReduceMax", max, order_infer),
    REDUCE("ReduceMin", min, order_infer), REDUCE("ReduceProd", prod, sum_infer), REDUCE("ReduceL1", l1, sum_infer),
    REDUCE("ReduceL2", l2, sum_infer), REDUCE("ReduceLogSum", log_sum, sum_infer), REDUCE("ReduceLogSumExp", log_sum_exp, sum_infer),
    REDUCE("ReduceSumSquare", sum_square, sum_infer),
    {.domain = "mest", .name = "mest.ReduceAux", .since = 1, .in_min = 1, .in_max = 2, .out_min = 1, .out_max = 1, .infer = aux_infer,
     .forward = aux_forward},
    {.domain = "mest", .name = "mest.ReduceGrad", .since = 1, .in_min = 1, .in_max = 4, .out_min = 1, .out_max = 1, .infer = grad_infer,
     .forward = grad_forward},
    {.domain = "mest", .name = "mest.ReduceTo", .since = 1, .act_in = 1, .act_out = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .infer = reduce_to_infer,
     .forward = reduce_to_forward},
    {.name = NULL},
};
