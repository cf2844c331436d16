/* SPDX-License-Identifier: Apache-2.0 */
/* GatherND (batch_dims), ScatterElements (axis, reduction), ScatterND (reduction): any fixed-size type; reductions add, mul, min, max on
 * float32, int64, int32. Negative indices count from the end; an index out of range is an error that names it.
 * Gradients: mest.GatherNDGrad(indices, dY), added up in the order of the indices; mest.ScatterElementsGrad, mest.ScatterNDGrad
 * (indices, dY) -> mark dX dUpdates for the reductions none (of updates to one place the last counts; `mark` is workspace) and add;
 * mest.ScatterElementsReduceGrad, mest.ScatterNDReduceGrad for mul, min, max. */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct nd_params {
    int64_t batch_dims;
    mest_shape x; /* gradient node */
} nd_params;
typedef struct scatter_params { int64_t axis; const char *reduction; } scatter_params;

/* ---- places named by index tuples ---- */
typedef struct tuples {
    int64_t batches, per_batch; /* index tuples in all: batches * per_batch */
    int64_t batch_stride;       /* elements of X in one batch */
    int depth;                  /* entries of a tuple */
    int64_t dim[MEST_MAX_RANK], stride[MEST_MAX_RANK];
    int64_t slice;              /* elements each tuple names */
    mest_dtype itype;
    const void *indices;
} tuples;

static tuples read_tuples(const mest_shape *x, const mest_tensor *indices, int batch_dims)
{
    const mest_shape *k = &indices->type->shape;
    tuples t = {.itype = indices->type->dtype, .indices = indices->data, .depth = (int)k->dim[k->rank - 1]};
    t.batches = mest_shape_span(k, 0, batch_dims);
    t.per_batch = mest_shape_span(k, batch_dims, k->rank - 1);
    t.batch_stride = mest_shape_span(x, batch_dims, x->rank);
    for (int i = 0; i < t.depth; i++) {
        t.dim[i] = x->dim[batch_dims + i];
        t.stride[i] = mest_shape_span(x, batch_dims + i + 1, x->rank);
    }
    t.slice = mest_shape_span(x, batch_dims + t.depth, x->rank);
    return t;
}

/* First element of X that tuple number i names; -1 and *bad when out of range. */
static int64_t place(const tuples *t, int64_t i, int64_t *bad)
{
    int64_t at = i / t->per_batch * t->batch_stride;
    for (int k = 0; k < t->depth; k++) {
        int64_t pos = mest_int_at(t->itype, t->indices, i * t->depth + k);
        if (pos < -t->dim[k] || pos >= t->dim[k]) {
            *bad = pos;
            return -1;
        }
        at += (pos < 0 ? pos + t->dim[k] : pos) * t->stride[k];
    }
    return at;
}

static mest_status check_tuples(mest_infer *c, const mest_shape *x, const mest_shape *k, int64_t batch_dims)
{
    MEST_INFER_CHECK(c, mest_dtype_is_index(c->in[1]->dtype), "indices are %s, not int64", mest_dtype_name(c->in[1]->dtype));
    MEST_INFER_CHECK(c, batch_dims >= 0 && batch_dims < k->rank && batch_dims <= x->rank, "batch_dims is %" PRId64, batch_dims);
    for (int i = 0; i < batch_dims; i++)
        MEST_INFER_CHECK(c, k->dim[i] == x->dim[i], "batch sizes differ on axis %d", i);
    int64_t depth = k->dim[k->rank - 1];
    MEST_INFER_CHECK(c, depth >= 0 && depth <= x->rank - batch_dims, "index tuples have %" PRId64 " entries for %d axes", depth,
                     x->rank - (int)batch_dims);
    return MEST_OK;
}

static mest_status bad_place(const mest_args *a, int64_t bad) { return mest_run_fail(a, MEST_E_DATA, "index %" PRId64 " is out of range", bad); }

/* ---- GatherND ---- */
static mest_status gather_nd_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape, *k = &c->in[1]->shape;
    int64_t batch = ((const nd_params *)c->params)->batch_dims;
    MEST_TRY(check_tuples(c, x, k, batch));
    mest_shape y = *k;
    int from = (int)(batch + k->dim[k->rank - 1]);
    MEST_INFER_CHECK(c, k->rank - 1 + x->rank - from <= MEST_MAX_RANK, "the result has more than %d axes", MEST_MAX_RANK);
    y.rank = k->rank - 1;
    for (int i = from; i < x->rank; i++)
        y.dim[y.rank++] = x->dim[i];
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

static mest_status gather_nd_forward(const mest_args *a)
{
    tuples t = read_tuples(&a->in[0].type->shape, &a->in[1], (int)((const nd_params *)a->params)->batch_dims);
    size_t bytes = (size_t)t.slice * mest_dtype_size(a->out[0].type->dtype);
    for (int64_t i = 0, bad = 0; i < t.batches * t.per_batch; i++) {
        int64_t at = place(&t, i, &bad);
        if (at < 0)
            return bad_place(a, bad);
        if (bytes)
            memcpy((char *)a->out[0].data + (size_t)i * bytes, (const char *)a->in[0].data + (size_t)at * (bytes / (size_t)t.slice), bytes);
    }
    return MEST_OK;
}

static mest_status gather_nd_grad_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &((const nd_params *)c->params)->x); }

static mest_status gather_nd_grad_forward(const mest_args *a)
{
    const nd_params *p = a->params;
    tuples t = read_tuples(&p->x, &a->in[0], (int)p->batch_dims);
    memset(a->out[0].data, 0, a->out[0].count * sizeof(mest_real));
    for (int64_t i = 0, bad = 0; i < t.batches * t.per_batch; i++) {
        int64_t at = place(&t, i, &bad);
        if (at < 0)
            return bad_place(a, bad);
        for (int64_t e = 0; e < t.slice; e++)
            ((mest_real *)a->out[0].data)[at + e] += ((const mest_real *)a->in[1].data)[i * t.slice + e];
    }
    return MEST_OK;
}

static mest_status gather_nd_vjp(mest_vjp *v)
{
    nd_params *p = mest_vjp_alloc(v, sizeof *p);
    mest_id in[2] = {mest_in(v, 1), mest_dout(v, 0)};
    if (!p)
        return mest_vjp_nomem(v);
    *p = *(const nd_params *)mest_vjp_node(v)->params;
    p->x = mest_vjp_type(v, mest_in(v, 0))->shape;
    return mest_give_op(v, 0, "mest.GatherNDGrad", p, 2, in);
}

/* ---- scatter ---- */
typedef enum reduction { REPLACE, ADD, MUL, MIN, MAX, UNKNOWN } reduction;

static reduction reduction_of(const char *text)
{
    return !text || !strcmp(text, "none") ? REPLACE : !strcmp(text, "add") ? ADD : !strcmp(text, "mul") ? MUL : !strcmp(text, "min") ? MIN
        : !strcmp(text, "max") ? MAX : UNKNOWN;
}

static mest_status check_scatter(mest_infer *c)
{
    reduction r = reduction_of(((const scatter_params *)c->params)->reduction);
    mest_dtype t = c->in[0]->dtype;
    MEST_INFER_CHECK(c, r != UNKNOWN, "reduction \"%.20s\" is unknown", ((const scatter_params *)c->params)->reduction);
    if (r != REPLACE && t != MEST_F32 && !mest_dtype_is_index(t))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "reduction of %s is not supported", mest_dtype_name(t));
    MEST_INFER_CHECK(c, c->in[2]->dtype == t, "updates are %s, data are %s", mest_dtype_name(c->in[2]->dtype), mest_dtype_name(t));
    return mest_infer_set(c, 0, t, &c->in[0]->shape);
}

#define COMBINE(T, U)                                                                  \
    do {                                                                               \
        T *y = (T *)to, u = *(const T *)from;                                          \
        *y = r == ADD ? (T)((U)*y + (U)u) : r == MUL ? (T)((U)*y * (U)u)               \
            : r == MIN ? (u < *y ? u : *y) : (u > *y ? u : *y);                        \
    } while (0)

static void combine(mest_dtype t, reduction r, void *to, const void *from)
{
    if (r == REPLACE)
        memcpy(to, from, mest_dtype_size(t));
    else if (t == MEST_F32)
        COMBINE(mest_real, mest_real);
    else if (t == MEST_I64)
        COMBINE(int64_t, uint64_t);
    else
        COMBINE(int32_t, uint32_t);
}

static mest_status scatter_nd_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape, *k = &c->in[1]->shape, *u = &c->in[2]->shape;
    MEST_TRY(check_tuples(c, x, k, 0));
    int from = (int)k->dim[k->rank - 1];
    MEST_INFER_CHECK(c, u->rank == k->rank - 1 + x->rank - from, "updates have rank %d", u->rank);
    for (int i = 0; i < u->rank; i++)
        MEST_INFER_CHECK(c, u->dim[i] == (i < k->rank - 1 ? k->dim[i] : x->dim[i - (k->rank - 1) + from]), "updates do not fit on axis %d", i);
    return check_scatter(c);
}

static mest_status scatter_nd_forward(const mest_args *a)
{
    mest_dtype t = a->out[0].type->dtype;
    size_t size = mest_dtype_size(t);
    reduction r = reduction_of(((const scatter_params *)a->params)->reduction);
    tuples k = read_tuples(&a->in[0].type->shape, &a->in[1], 0);
    MEST_TRY(mest_forward_copy(a));
    for (int64_t i = 0, bad = 0; i < k.per_batch; i++) {
        int64_t at = place(&k, i, &bad);
        if (at < 0)
            return bad_place(a, bad);
        for (int64_t e = 0; e < k.slice; e++)
            combine(t, r, (char *)a->out[0].data + (size_t)(at + e) * size, (const char *)a->in[2].data + (size_t)(i * k.slice + e) * size);
    }
    return MEST_OK;
}

static mest_status scatter_elements_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape, *k = &c->in[1]->shape;
    int axis;
    MEST_TRY(mest_infer_axis(c, ((const scatter_params *)c->params)->axis, x->rank, &axis));
    MEST_INFER_CHECK(c, mest_dtype_is_index(c->in[1]->dtype), "indices are %s, not int64", mest_dtype_name(c->in[1]->dtype));
    MEST_INFER_CHECK(c, x->rank == k->rank && mest_shape_equal(k, &c->in[2]->shape), "indices and updates do not fit the data");
    for (int i = 0; i < x->rank; i++)
        MEST_INFER_CHECK(c, i == axis || k->dim[i] <= x->dim[i], "indices are longer than the data on axis %d", i);
    return check_scatter(c);
}

static mest_status scatter_elements_forward(const mest_args *a)
{
    const mest_shape *x = &a->in[0].type->shape, *k = &a->in[1].type->shape;
    const scatter_params *p = a->params;
    int axis = mest_axis(p->axis, x->rank);
    mest_dtype t = a->out[0].type->dtype;
    size_t size = mest_dtype_size(t);
    int64_t index[MEST_MAX_RANK] = {0};
    MEST_TRY(mest_forward_copy(a));
    for (int64_t i = 0; i < (int64_t)a->in[1].count; i++) {
        int64_t pos = mest_int_at(a->in[1].type->dtype, a->in[1].data, i), at = 0;
        if (pos < -x->dim[axis] || pos >= x->dim[axis])
            return bad_place(a, pos);
        for (int d = 0; d < x->rank; d++)
            at = at * x->dim[d] + (d == axis ? (pos < 0 ? pos + x->dim[axis] : pos) : index[d]);
        combine(t, reduction_of(p->reduction), (char *)a->out[0].data + (size_t)at * size, (const char *)a->in[2].data + (size_t)i * size);
        for (int d = x->rank - 1; d >= 0 && ++index[d] == k->dim[d]; d--)
            index[d] = 0;
    }
    return MEST_OK;
}

/* ---- gradients of scatters ---- */
typedef struct scatter_grad_params {
    scatter_params scatter;
    mest_shape updates;
} scatter_grad_params;

/* Outputs 1 and 2: dX, dUpdates. */
static mest_status grad_outputs(mest_infer *c, const mest_shape *x)
{
    for (int i = 1; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, MEST_F32, i == 1 ? x : &((const scatter_grad_params *)c->params)->updates));
    return MEST_OK;
}

/* Calls f for each update, last first: update i went to element `at` of X. */
typedef void each_update(void *context, int64_t i, int64_t at);

static mest_status each_tuple(const mest_args *a, const mest_shape *x, each_update *f, void *context)
{
    tuples k = read_tuples(x, &a->in[0], 0);
    for (int64_t i = k.per_batch - 1, bad = 0; i >= 0; i--) {
        int64_t at = place(&k, i, &bad);
        if (at < 0)
            return bad_place(a, bad);
        for (int64_t e = 0; e < k.slice; e++)
            f(context, i * k.slice + e, at + e);
    }
    return MEST_OK;
}

static mest_status each_element(const mest_args *a, const mest_shape *x, each_update *f, void *context)
{
    const mest_shape *k = &a->in[0].type->shape;
    int axis = mest_axis(((const scatter_grad_params *)a->params)->scatter.axis, x->rank);
    for (int64_t i = (int64_t)a->in[0].count - 1; i >= 0; i--) {
        int64_t pos = mest_int_at(a->in[0].type->dtype, a->in[0].data, i), at = 0, stride = 1, rest = i;
        if (pos < -x->dim[axis] || pos >= x->dim[axis])
            return bad_place(a, pos);
        for (int d = x->rank - 1; d >= 0; d--) {
            at += (d == axis ? (pos < 0 ? pos + x->dim[axis] : pos) : rest % k->dim[d]) * stride;
            rest /= k->dim[d];
            stride *= x->dim[d];
        }
        f(context, i, at);
    }
    return MEST_OK;
}

typedef struct scatter_grad {
    bool replace;
    uint8_t *mark;
    const mest_real *dy;
    mest_real *dx, *du;
} scatter_grad;

static mest_status scatter_grad_infer(mest_infer *c)
{
    MEST_TRY(mest_infer_set(c, 0, MEST_U8, &c->in[1]->shape));
    return grad_outputs(c, &c->in[1]->shape);
}

static void give_back(void *context, int64_t i, int64_t at)
{
    const scatter_grad *g = context;
    if (g->du)
        g->du[i] = g->replace && g->mark[at] ? 0 : g->dy[at];
    if (g->dx && g->replace)
        g->dx[at] = 0;
    g->mark[at] = 1;
}

static mest_status scatter_grad_run(const mest_args *a, mest_status (*each)(const mest_args *, const mest_shape *, each_update *, void *))
{
    const scatter_grad_params *p = a->params;
    scatter_grad g = {.replace = reduction_of(p->scatter.reduction) == REPLACE, .mark = a->out[0].data, .dy = a->in[1].data};
    g.dx = a->n_out > 1 ? a->out[1].data : NULL;
    g.du = a->n_out > 2 ? a->out[2].data : NULL;
    memset(g.mark, 0, a->out[0].count);
    if (g.dx)
        memcpy(g.dx, g.dy, a->in[1].count * sizeof *g.dx);
    return each(a, &a->in[1].type->shape, give_back, &g);
}
static mest_status scatter_nd_grad(const mest_args *a) { return scatter_grad_run(a, each_tuple); }
static mest_status scatter_elements_grad(const mest_args *a) { return scatter_grad_run(a, each_element); }

/* Reductions mul, min, max: (indices, dY, X, updates, Y) -> statistics[2, elements of X] (workspace), dX, dUpdates. What meets in an element is
 * X there and the updates that went there. mul: the derivative is the product of the others, from the product of the non-zeros and the number of
 * zeros. min, max: those that equal Y share the gradient evenly (PyTorch's scatter_reduce). */
typedef struct reduce_grad {
    bool product;
    int64_t n;
    const mest_real *x, *u, *y, *dy;
    mest_real *a, *z, *dx, *du; /* a: product of non-zeros, or how many equal Y; z: number of zeros */
} reduce_grad;

static void note_value(const reduce_grad *g, int64_t at, mest_real value)
{
    if (!g->product)
        g->a[at] += value == g->y[at] ? 1 : 0;
    else if (value != 0)
        g->a[at] *= value;
    else
        g->z[at] += 1;
}

static mest_real derivative(const reduce_grad *g, int64_t at, mest_real value)
{
    if (!g->product)
        return value == g->y[at] ? g->dy[at] / g->a[at] : 0;
    const mest_real others = value != 0 ? (g->z[at] == 0 ? g->a[at] / value : 0) : (g->z[at] == 1 ? g->a[at] : 0);
    return g->dy[at] * others;
}

static void note_update(void *context, int64_t i, int64_t at) { note_value(context, at, ((const reduce_grad *)context)->u[i]); }
static void derive_update(void *context, int64_t i, int64_t at)
{
    const reduce_grad *g = context;
    g->du[i] = derivative(g, at, g->u[i]);
}

static mest_status reduce_grad_infer(mest_infer *c)
{
    int64_t n;
    if (!mest_shape_count(&c->in[2]->shape, &n) || n > INT64_MAX / 2)
        return mest_infer_fail(c, MEST_E_SHAPE, "too many elements");
    MEST_TRY(mest_infer_set(c, 0, MEST_F32, &(mest_shape){.rank = 2, .dim = {2, n}}));
    return grad_outputs(c, &c->in[2]->shape);
}

static mest_status reduce_grad_run(const mest_args *a, mest_status (*each)(const mest_args *, const mest_shape *, each_update *, void *))
{
    const mest_shape *shape = &a->in[2].type->shape;
    reduce_grad g = {.product = reduction_of(((const scatter_grad_params *)a->params)->scatter.reduction) == MUL, .n = (int64_t)a->in[2].count,
                     .dy = a->in[1].data, .x = a->in[2].data, .u = a->in[3].data, .y = a->in[4].data, .a = a->out[0].data};
    g.z = g.a + g.n;
    g.dx = a->n_out > 1 ? a->out[1].data : NULL;
    g.du = a->n_out > 2 ? a->out[2].data : NULL;
    for (int64_t i = 0; i < g.n; i++) {
        g.a[i] = g.product ? 1 : 0;
        g.z[i] = 0;
        note_value(&g, i, g.x[i]);
    }
    MEST_TRY(each(a, shape, note_update, &g));
    for (int64_t i = 0; g.dx && i < g.n; i++)
        g.dx[i] = derivative(&g, i, g.x[i]);
    return g.du ? each(a, shape, derive_update, &g) : MEST_OK;
}
static mest_status reduce_nd_grad(const mest_args *a) { return reduce_grad_run(a, each_tuple); }
static mest_status reduce_elements_grad(const mest_args *a) { return reduce_grad_run(a, each_element); }

static mest_status scatter_vjp(mest_vjp *v, const char *op, const char *reduced)
{
    const scatter_params *s = mest_vjp_node(v)->params;
    const reduction r = reduction_of(s->reduction);
    const bool copied = r == REPLACE || r == ADD;
    scatter_grad_params *p = mest_vjp_alloc(v, sizeof *p);
    mest_id in[5] = {mest_in(v, 1), mest_dout(v, 0), mest_in(v, 0), mest_in(v, 2), mest_out(v, 0)}, out[3];
    bool want[3] = {true, mest_wants(v, 0), mest_wants(v, 2)};
    if (!p)
        return mest_vjp_nomem(v);
    p->scatter = *s;
    p->updates = mest_vjp_type(v, mest_in(v, 2))->shape;
    MEST_TRY(mest_emit(v, copied ? op : reduced, p, copied ? 2 : 5, in, 3, want, out));
    if (want[1])
        MEST_TRY(mest_give(v, 0, out[1]));
    return want[2] ? mest_give(v, 2, out[2]) : MEST_OK;
}
static mest_status scatter_nd_vjp(mest_vjp *v) { return scatter_vjp(v, "mest.ScatterNDGrad", "mest.ScatterNDReduceGrad"); }
static mest_status scatter_elements_vjp(mest_vjp *v) { return scatter_vjp(v, "mest.ScatterElementsGrad", "mest.ScatterElementsReduceGrad"); }

#define SCATTER_GRAD(name_, n_, infer_, forward_)                                                                                  \
    {.domain = "mest", .name = name_, .since = 1, .in_min = n_, .in_max = n_, .out_min = 1, .out_max = 3, .flags = MEST_OP_ANY_TYPE, \
     .params_bytes = sizeof(scatter_grad_params), .infer = infer_, .forward = forward_}

static const mest_attr nd_attrs[] = {{.name = "batch_dims", .kind = MEST_ATTR_INT, .offset = offsetof(nd_params, batch_dims)}, {.name = NULL}};
static const mest_attr scatter_attrs[] = {
    {.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(scatter_params, axis)},
    {.name = "reduction", .kind = MEST_ATTR_STRING, .offset = offsetof(scatter_params, reduction), .text = "none"},
    {.name = NULL}};

const mest_op mest_ops_scatter[] = {
    {.domain = "", .name = "GatherND", .since = 11, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = nd_attrs, .params_bytes = sizeof(nd_params), .infer = gather_nd_infer, .forward = gather_nd_forward, .vjp = gather_nd_vjp},
    {.domain = "mest", .name = "mest.GatherNDGrad", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .infer = gather_nd_grad_infer, .forward = gather_nd_grad_forward},
    {.domain = "", .name = "ScatterElements", .since = 11, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = scatter_attrs, .params_bytes = sizeof(scatter_params), .infer = scatter_elements_infer, .forward = scatter_elements_forward, .vjp = scatter_elements_vjp},
    {.domain = "", .name = "Scatter", .since = 9, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, /* the old name */
     .attrs = scatter_attrs, .params_bytes = sizeof(scatter_params), .infer = scatter_elements_infer, .forward = scatter_elements_forward, .vjp = scatter_elements_vjp},
    {.domain = "", .name = "ScatterND", .since = 11, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = scatter_attrs, .params_bytes = sizeof(scatter_params), .infer = scatter_nd_infer, .forward = scatter_nd_forward, .vjp = scatter_nd_vjp},
    SCATTER_GRAD("mest.ScatterElementsGrad", 2, scatter_grad_infer, scatter_elements_grad),
    SCATTER_GRAD("mest.ScatterElementsReduceGrad", 5, reduce_grad_infer, reduce_elements_grad),
    SCATTER_GRAD("mest.ScatterNDGrad", 2, scatter_grad_infer, scatter_nd_grad),
    SCATTER_GRAD("mest.ScatterNDReduceGrad", 5, reduce_grad_infer, reduce_nd_grad),
    {.name = NULL},
};
