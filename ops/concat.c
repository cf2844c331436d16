/* SPDX-License-Identifier: Apache-2.0 */
/* Concat (axis) and Split (axis; sizes as input 1, or equal parts), any fixed-size type. Each is the other's gradient:
 *   mest.Split(dY)                       parts of the sizes in split_params: gradient of Concat
 *   mest.SplitGrad(dY0?, dY1?, ...)      joins them, absent ones as zeros: gradient of Split */
#include <inttypes.h>

#include "ops/elements.h"

static mest_status concat_infer(mest_infer *c)
{
    int axis;
    const mest_shape *first = &c->in[0]->shape;
    mest_shape y = *first;
    MEST_TRY(mest_infer_axis(c, ((const mest_axis_params *)c->params)->axis, first->rank, &axis));
    for (int i = 1; i < c->n_in; i++) {
        MEST_INFER_CHECK(c, c->in[i], "input %d is absent", i);
        const mest_shape *x = &c->in[i]->shape;
        MEST_INFER_CHECK(c, x->rank == first->rank, "input %d has rank %d, input 0 has %d", i, x->rank, first->rank);
        MEST_INFER_CHECK(c, c->in[i]->dtype == c->in[0]->dtype, "inputs 0 and %d differ in type", i);
        for (int k = 0; k < x->rank; k++)
            MEST_INFER_CHECK(c, k == axis || x->dim[k] == first->dim[k], "input %d has size %" PRId64 " on axis %d, input 0 has %" PRId64, i,
                             x->dim[k], k, first->dim[k]);
        MEST_INFER_CHECK(c, !__builtin_add_overflow(y.dim[axis], x->dim[axis], &y.dim[axis]), "sizes overflow");
    }
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

/* Copies `part` (packed) from or to the slab of `whole` that begins at `from` on the axis. */
static void copy_part(const mest_args *a, const mest_tensor *whole, const mest_tensor *part, int axis, int64_t from, bool gather)
{
    const mest_shape *ws = &whole->type->shape, *ps = &part->type->shape;
    size_t size = mest_dtype_size(whole->type->dtype);
    int64_t outer = mest_shape_span(ws, 0, axis), inner = mest_shape_span(ws, axis + 1, ws->rank);
    mest_spread s = {.n = 2, .rank = 2, .dim = {outer, ps->dim[axis] * inner}};
    int w = gather ? 1 : 0;
    s.stride[w][0] = ws->dim[axis] * inner;
    s.stride[1 - w][0] = ps->dim[axis] * inner;
    s.stride[0][1] = s.stride[1][1] = 1;
    char *slab = (char *)whole->data + (size_t)(from * inner) * size;
    if (gather)
        mest_spread_copy(a->threads, &s, size, part->data, slab);
    else
        mest_spread_copy(a->threads, &s, size, slab, part->data);
}

static mest_status concat_forward(const mest_args *a)
{
    int axis = mest_axis(((const mest_axis_params *)a->params)->axis, a->out[0].type->shape.rank);
    int64_t at = 0;
    for (int i = 0; i < a->n_in; i++) {
        copy_part(a, &a->out[0], &a->in[i], axis, at, false);
        at += a->in[i].type->shape.dim[axis];
    }
    return MEST_OK;
}

/* ---- Split ---- */
typedef struct split_params {
    int64_t axis, num_outputs;
    mest_ints sizes; /* mest.Split, mest.SplitGrad */
    mest_shape x;    /* mest.SplitGrad: shape of the whole */
} split_params;

static mest_status set_part(mest_infer *c, int i, int axis, int64_t size)
{
    mest_shape y = c->in[0]->shape;
    y.dim[axis] = size;
    return mest_infer_set(c, i, c->in[0]->dtype, &y);
}

static mest_status split_infer(mest_infer *c)
{
    const split_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape;
    int axis;
    MEST_TRY(mest_infer_axis(c, p->axis, x->rank, &axis));
    int64_t whole = x->dim[axis], sum = 0;
    if (c->n_in > 1 && c->in[1]) {
        int64_t n;
        const mest_type *t = c->in[1];
        MEST_INFER_CHECK(c, mest_dtype_is_index(t->dtype) && t->shape.rank == 1 && mest_shape_count(&t->shape, &n), "sizes must be a vector of int64");
        MEST_INFER_CHECK(c, n == c->n_out, "%" PRId64 " sizes are given for %d outputs", n, c->n_out);
        if (!c->in_data[1])
            return mest_infer_fail(c, MEST_E_UNSUPPORTED, "the sizes decide the shapes of the results and must be a constant");
        for (int i = 0; i < c->n_out; i++) {
            int64_t size = mest_int_at(t->dtype, c->in_data[1], i);
            MEST_INFER_CHECK(c, size >= 0 && size <= whole - sum, "sizes do not add up to %" PRId64, whole);
            sum += size;
            MEST_TRY(set_part(c, i, axis, size));
        }
        MEST_INFER_CHECK(c, sum == whole, "sizes add up to %" PRId64 ", not to %" PRId64, sum, whole);
        return MEST_OK;
    }
    MEST_INFER_CHECK(c, c->n_out > 0 && (p->num_outputs == 0 || p->num_outputs == c->n_out), "num_outputs is %" PRId64 " but the node has %d outputs",
                     p->num_outputs, c->n_out);
    /* Without num_outputs (below opset 18) the parts must be equal; with it the last one may be smaller. */
    MEST_INFER_CHECK(c, p->num_outputs || whole % c->n_out == 0, "%" PRId64 " elements do not split into %d equal parts", whole, c->n_out);
    int64_t part = (whole + c->n_out - 1) / c->n_out;
    for (int i = 0; i < c->n_out; i++) {
        int64_t size = part < whole - sum ? part : whole - sum;
        sum += size;
        MEST_TRY(set_part(c, i, axis, size));
    }
    return MEST_OK;
}

static mest_status split_to_infer(mest_infer *c)
{
    const split_params *p = c->params;
    for (int i = 0; i < c->n_out; i++)
        MEST_TRY(set_part(c, i, (int)p->axis, p->sizes.v[i]));
    return MEST_OK;
}

/* Parts that nobody wants have no data and no type, so offsets come from the sizes. */
static mest_status split_forward(const mest_args *a)
{
    const split_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    int axis = mest_axis(p->axis, x->rank);
    int64_t at = 0, part = (x->dim[axis] + a->n_out - 1) / a->n_out;
    const mest_tensor *given = a->n_in > 1 && a->in[1].data ? &a->in[1] : NULL;
    for (int i = 0; i < a->n_out; i++) {
        int64_t size = p->sizes.n ? p->sizes.v[i] : given ? mest_int_at(given->type->dtype, given->data, i) : part;
        if (a->out[i].data)
            copy_part(a, &a->in[0], &a->out[i], axis, at, true);
        at += size;
    }
    return MEST_OK;
}

static mest_status concat_vjp(mest_vjp *v)
{
    const mest_node *n = mest_vjp_node(v);
    int n_in = n->n_in, rank = mest_vjp_type(v, mest_out(v, 0))->shape.rank;
    split_params *p = mest_vjp_alloc(v, sizeof *p);
    int64_t *sizes = mest_vjp_alloc(v, (size_t)n_in * sizeof *sizes);
    mest_id *grads = mest_vjp_alloc(v, (size_t)n_in * sizeof *grads), dy = mest_dout(v, 0);
    bool *want = mest_vjp_alloc(v, (size_t)n_in * sizeof *want);
    if (!p || !sizes || !grads || !want)
        return mest_vjp_nomem(v);
    p->axis = mest_axis(((const mest_axis_params *)n->params)->axis, rank);
    p->sizes = (mest_ints){n_in, sizes};
    for (int i = 0; i < n_in; i++) {
        sizes[i] = mest_vjp_type(v, mest_in(v, i))->shape.dim[p->axis];
        want[i] = mest_wants(v, i);
    }
    MEST_TRY(mest_emit(v, "mest.Split", p, 1, &dy, n_in, want, grads));
    for (int i = 0; i < n_in; i++)
        MEST_TRY(mest_give(v, i, grads[i]));
    return MEST_OK;
}

/* Joins the gradients of the parts; absent ones are zero. The sizes are params->sizes: an output that nobody uses has no type. */
static mest_status split_grad_infer(mest_infer *c)
{
    const split_params *p = c->params;
    return mest_infer_set(c, 0, MEST_F32, &p->x);
}

static mest_status split_grad_forward(const mest_args *a)
{
    const split_params *p = a->params;
    const mest_shape *x = &p->x;
    int64_t outer = mest_shape_span(x, 0, (int)p->axis), inner = mest_shape_span(x, (int)p->axis + 1, x->rank), at = 0;
    for (int i = 0; i < a->n_in; i++) {
        if (a->in[i].data) {
            copy_part(a, &a->out[0], &a->in[i], (int)p->axis, at, false);
        } else {
            for (int64_t k = 0; k < outer; k++)
                memset((mest_real *)a->out[0].data + (k * x->dim[p->axis] + at) * inner, 0, (size_t)(p->sizes.v[i] * inner) * sizeof(mest_real));
        }
        at += p->sizes.v[i];
    }
    return MEST_OK;
}

static mest_status split_vjp(mest_vjp *v)
{
    const mest_node *n = mest_vjp_node(v);
    int n_out = n->n_out;
    split_params *p = mest_vjp_alloc(v, sizeof *p);
    int64_t *sizes = mest_vjp_alloc(v, (size_t)n_out * sizeof *sizes);
    mest_id *parts = mest_vjp_alloc(v, (size_t)n_out * sizeof *parts), given = mest_in(v, 1);
    if (!p || !sizes || !parts)
        return mest_vjp_nomem(v);
    const void *data = mest_vjp_data(v, given);
    p->x = mest_vjp_type(v, mest_in(v, 0))->shape;
    p->axis = mest_axis(((const split_params *)n->params)->axis, p->x.rank);
    p->sizes = (mest_ints){n_out, sizes};
    int64_t whole = p->x.dim[p->axis], part = (whole + n_out - 1) / n_out, at = 0;
    for (int i = 0; i < n_out; i++) {
        parts[i] = mest_dout(v, i);
        sizes[i] = data ? mest_int_at(mest_vjp_type(v, given)->dtype, data, i) : part < whole - at ? part : whole - at;
        at += sizes[i];
    }
    return mest_give_op(v, 0, "mest.SplitGrad", p, n_out, parts);
}

static const mest_attr concat_attrs[] = {
    {.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(mest_axis_params, axis), .required = true}, {.name = NULL}};
static const mest_attr split_attrs[] = {
    {.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(split_params, axis)},
    {.name = "num_outputs", .kind = MEST_ATTR_INT, .offset = offsetof(split_params, num_outputs)},
    {.name = NULL}};

const mest_op mest_ops_concat[] = {
    {.domain = "", .name = "Concat", .since = 4, .act_in = ~0u, .act_out = 1, .in_min = 1, .in_max = -1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = concat_attrs, .params_bytes = sizeof(mest_axis_params), .infer = concat_infer, .forward = concat_forward, .vjp = concat_vjp},
    {.domain = "", .name = "Split", .since = 2, .in_min = 1, .in_max = 2, .out_min = 1, .out_max = -1, .flags = MEST_OP_ANY_TYPE,
     .attrs = split_attrs, .params_bytes = sizeof(split_params), .infer = split_infer, .forward = split_forward, .vjp = split_vjp},
    {.domain = "mest", .name = "mest.Split", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = -1, .flags = MEST_OP_ANY_TYPE,
     .infer = split_to_infer, .forward = split_forward},
    {.domain = "mest", .name = "mest.SplitGrad", .since = 1, .in_min = 1, .in_max = -1, .out_min = 1, .out_max = 1, .infer = split_grad_infer,
     .forward = split_grad_forward},
    {.name = NULL},
};
