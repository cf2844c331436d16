/* SPDX-License-Identifier: Apache-2.0 */
/* Operators whose result has as many elements as the data says: NonZero, Compress. A plan needs sizes, so what decides them must be a
 * constant (or become one by folding). Gradient of Compress: that of the Gather it amounts to. */
#include <inttypes.h>

#include "ops/elements.h"

/* ---- NonZero(X): indices of what is not zero, [rank, count] ---- */
static bool is_zero(mest_dtype t, const char *x)
{
    static const char zero[8];
    if (t == MEST_F32)
        return *(const mest_real *)(const void *)x == 0;
    if (t == MEST_F64)
        return *(const double *)(const void *)x == 0;
    return !memcmp(x, zero, mest_dtype_size(t));
}

static mest_status nonzero_infer(mest_infer *c)
{
    const mest_shape *s = &c->in[0]->shape;
    size_t size = mest_dtype_size(c->in[0]->dtype);
    int64_t n = 0, all = mest_shape_span(s, 0, s->rank);
    if (!c->in_data[0])
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "the number of elements that are not zero decides the shape of the result: the input must be a constant. "
                               "Where it selects elements, a mask with Where or a product does without");
    for (int64_t i = 0; i < all; i++)
        n += !is_zero(c->in[0]->dtype, (const char *)c->in_data[0] + (size_t)i * size);
    return mest_infer_set(c, 0, MEST_I64, &(mest_shape){ .rank = 2, .dim = { s->rank ? s->rank : 1, n } });
}

static mest_status nonzero_forward(const mest_args *a)
{
    const mest_shape *s = &a->in[0].type->shape;
    mest_dtype t = a->in[0].type->dtype;
    int64_t *y = a->out[0].data, n = a->out[0].type->shape.dim[1], at = 0;
    for (int64_t i = 0; i < (int64_t)a->in[0].count && at < n; i++) {
        if (is_zero(t, (const char *)a->in[0].data + (size_t)i * mest_dtype_size(t)))
            continue;
        int64_t rest = i;
        for (int d = s->rank - 1; d >= 0; d--) {
            y[d * n + at] = rest % s->dim[d];
            rest /= s->dim[d];
        }
        if (s->rank == 0)
            y[at] = 0;
        at++;
    }
    return MEST_OK;
}

/* ---- Compress(X, condition): the slices along an axis for which the condition holds ---- */
typedef struct compress_params {
    int64_t axis;
    int32_t given; /* without an axis X is flattened */
} compress_params;

static mest_status compress_infer(mest_infer *c)
{
    const compress_params *p = c->params;
    const mest_shape *k = &c->in[1]->shape;
    mest_shape y = c->in[0]->shape;
    int axis = 0;
    int64_t n = 0;
    if (p->given)
        MEST_TRY(mest_infer_axis(c, p->axis, y.rank, &axis));
    else
        y = mest_shape_vector(mest_shape_span(&y, 0, y.rank));
    MEST_INFER_CHECK(c, k->rank == 1 && c->in[1]->dtype == MEST_BOOL && k->dim[0] <= y.dim[axis], "the condition is not a bool for each of at most %" PRId64 " slices",
                     y.dim[axis]);
    if (!c->in_data[1])
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "the condition decides the shape of the result and must be a constant");
    for (int64_t i = 0; i < k->dim[0]; i++)
        n += ((const uint8_t *)c->in_data[1])[i] != 0;
    y.dim[axis] = n;
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

static mest_status compress_forward(const mest_args *a)
{
    const compress_params *p = a->params;
    mest_shape s = a->in[0].type->shape;
    if (!p->given)
        s = mest_shape_vector((int64_t)a->in[0].count);
    int axis = p->given ? mest_axis(p->axis, s.rank) : 0;
    size_t bytes = (size_t)mest_shape_span(&s, axis + 1, s.rank) * mest_dtype_size(a->out[0].type->dtype);
    char *y = a->out[0].data;
    for (int64_t o = 0; o < mest_shape_span(&s, 0, axis); o++)
        for (int64_t i = 0; i < (int64_t)a->in[1].count; i++)
            if (((const uint8_t *)a->in[1].data)[i]) {
                memcpy(y, (const char *)a->in[0].data + (size_t)(o * s.dim[axis] + i) * bytes, bytes);
                y += bytes;
            }
    return MEST_OK;
}

static mest_status compress_vjp(mest_vjp *v)
{
    const compress_params *p = mest_vjp_node(v)->params;
    const mest_type *x = mest_vjp_type(v, mest_in(v, 0)), *k = mest_vjp_type(v, mest_in(v, 1)), *y = mest_vjp_type(v, mest_out(v, 0));
    const uint8_t *keep = mest_vjp_data(v, mest_in(v, 1));
    mest_gather_params *g = mest_vjp_alloc(v, sizeof *g);
    if (!mest_wants(v, 0))
        return MEST_OK;
    if (!g)
        return mest_vjp_nomem(v);
    g->x = p->given ? x->shape : mest_shape_vector(mest_shape_span(&x->shape, 0, x->shape.rank));
    g->axis = p->given ? mest_axis(p->axis, x->shape.rank) : 0;
    int64_t *index = mest_vjp_alloc(v, (size_t)(k->shape.dim[0] + 1) * sizeof *index), n = 0;
    if (!index)
        return mest_vjp_nomem(v);
    for (int64_t i = 0; i < k->shape.dim[0]; i++)
        if (keep[i])
            index[n++] = i;
    if (n != y->shape.dim[g->axis])
        return mest_fail(mest_vjp_err(v), MEST_E_INTERNAL, "Compress '%s': the condition changed", mest_vjp_node(v)->name);
    mest_type type = { .dtype = MEST_I64, .shape = mest_shape_vector(n) };
    mest_id in[2] = { mest_vjp_const(v, &type, index), mest_dout(v, 0) }, dx;
    if (in[0] == MEST_NONE)
        return mest_vjp_nomem(v);
    MEST_TRY(mest_emit(v, "mest.GatherGrad", g, 2, in, 1, NULL, &dx));
    return p->given ? mest_give(v, 0, dx) : mest_vjp_reshaped(v, 0, dx);
}

static const mest_attr compress_attrs[] = {
    { .name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(compress_params, axis), .given_used = true }, { .name = NULL } };

const mest_op mest_ops_compress[] = {
    { .domain = "", .name = "NonZero", .limits = "inputs that are no constants", .since = 9, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
      .infer = nonzero_infer, .forward = nonzero_forward, .no_grad = true },
    { .domain = "", .name = "Compress", .limits = "conditions that are no constants", .since = 9, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
      .attrs = compress_attrs, .params_bytes = sizeof(compress_params), .infer = compress_infer, .forward = compress_forward, .vjp = compress_vjp },
    { .name = NULL },
};
