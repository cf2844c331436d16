/* SPDX-License-Identifier: Apache-2.0 */
/* Gather(X, indices; axis) and GatherElements(X, indices; axis): any fixed-size type, int64 or int32 indices, negative ones count from the
 * end; an index out of range is an error that names it. Gradients add up at repeated indices, in the order of the indices:
 * mest.GatherGrad(indices, dY), mest.GatherElementsGrad(indices, dY); params: mest_gather_params with the shape of X. */
#include <inttypes.h>

#include "ops/elements.h"

/* First index outside [-limit, limit); false if there is none. */
static bool bad_index(mest_dtype t, const void *data, int64_t n, int64_t limit, int64_t *bad)
{
    for (int64_t i = 0; i < n; i++) {
        *bad = mest_int_at(t, data, i);
        if (*bad < -limit || *bad >= limit)
            return true;
    }
    return false;
}

/* Type of the indices; constant ones are checked now. */
static mest_status check_indices(const mest_infer *c, int input, int64_t limit)
{
    int64_t n, bad = 0;
    const mest_type *t = c->in[input];
    MEST_INFER_CHECK(c, mest_dtype_is_index(t->dtype), "indices are %s, not int64 or int32", mest_dtype_name(t->dtype));
    MEST_INFER_CHECK(c, mest_shape_count(&t->shape, &n), "the number of indices is unknown");
    MEST_INFER_CHECK(c, !c->in_data[input] || !bad_index(t->dtype, c->in_data[input], n, limit, &bad),
                     "index %" PRId64 " is out of range for %" PRId64 " elements", bad, limit);
    return MEST_OK;
}

static mest_status check_run(const mest_args *a, int input, int64_t limit)
{
    int64_t bad = 0;
    if (bad_index(a->in[input].type->dtype, a->in[input].data, (int64_t)a->in[input].count, limit, &bad))
        return mest_run_fail(a, MEST_E_DATA, "index %" PRId64 " is out of range for %" PRId64 " elements", bad, limit);
    return MEST_OK;
}

static mest_status gather_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape, *k = &c->in[1]->shape;
    int axis;
    MEST_TRY(mest_infer_axis(c, ((const mest_gather_params *)c->params)->axis, x->rank, &axis));
    MEST_TRY(check_indices(c, 1, x->dim[axis]));
    MEST_INFER_CHECK(c, x->rank - 1 + k->rank <= MEST_MAX_RANK, "the result has more than %d axes", MEST_MAX_RANK);
    mest_shape y = {0};
    for (int i = 0; i < axis; i++)
        y.dim[y.rank++] = x->dim[i];
    for (int i = 0; i < k->rank; i++)
        y.dim[y.rank++] = k->dim[i];
    for (int i = axis + 1; i < x->rank; i++)
        y.dim[y.rank++] = x->dim[i];
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

/* X[outer, d, inner], indices[k], Y[outer, k, inner] */
typedef struct gather_job {
    const void *indices;
    mest_dtype itype;
    const char *x;
    char *y;
    size_t size;
    int64_t outer, d, inner, k, chunk, chunks;
} gather_job;

static int64_t index_of(const gather_job *j, int64_t i)
{
    int64_t at = mest_int_at(j->itype, j->indices, i);
    return at < 0 ? at + j->d : at;
}

static void gather_tile(void *context, size_t tile) /* a tile: some rows (outer, k) of Y */
{
    const gather_job *j = context;
    int64_t first = (int64_t)tile * j->chunk, last = first + j->chunk, rows = j->outer * j->k;
    size_t bytes = (size_t)j->inner * j->size;
    for (int64_t row = first; row < last && row < rows; row++) {
        int64_t from = row / j->k * j->d + index_of(j, row % j->k);
        memcpy(j->y + (size_t)row * bytes, j->x + (size_t)from * bytes, bytes);
    }
}

static gather_job make_job(const mest_shape *x, int axis, const mest_tensor *indices)
{
    gather_job j = {.indices = indices->data, .itype = indices->type->dtype, .k = (int64_t)indices->count};
    j.outer = mest_shape_span(x, 0, axis);
    j.d = x->dim[axis];
    j.inner = mest_shape_span(x, axis + 1, x->rank);
    return j;
}

static mest_status gather_forward(const mest_args *a)
{
    const mest_shape *x = &a->in[0].type->shape;
    int axis = mest_axis(((const mest_gather_params *)a->params)->axis, x->rank);
    MEST_TRY(check_run(a, 1, x->dim[axis]));
    gather_job j = make_job(x, axis, &a->in[1]);
    j.size = mest_dtype_size(a->out[0].type->dtype);
    j.x = a->in[0].data;
    j.y = a->out[0].data;
    if (a->out[0].count == 0)
        return MEST_OK;
    j.chunk = j.inner >= 16384 ? 1 : 16384 / j.inner;
    mest_parallel(a->threads, (size_t)((j.outer * j.k + j.chunk - 1) / j.chunk), gather_tile, &j);
    return MEST_OK;
}

static void gather_grad_tile(void *context, size_t tile) /* a tile: one outer index, a chunk of inner: no two tiles meet */
{
    const gather_job *j = context;
    int64_t o = (int64_t)tile / j->chunks, from = (int64_t)tile % j->chunks * j->chunk;
    int64_t n = j->inner - from < j->chunk ? j->inner - from : j->chunk;
    mest_real *dx = (mest_real *)j->y + o * j->d * j->inner + from;
    const mest_real *dy = (const mest_real *)j->x + o * j->k * j->inner + from;
    for (int64_t r = 0; r < j->d; r++)
        memset(dx + r * j->inner, 0, (size_t)n * sizeof *dx);
    for (int64_t i = 0; i < j->k; i++) {
        mest_real *to = dx + index_of(j, i) * j->inner;
        for (int64_t e = 0; e < n; e++)
            to[e] += dy[i * j->inner + e];
    }
}

static mest_status gather_grad_forward(const mest_args *a)
{
    const mest_gather_params *p = a->params;
    MEST_TRY(check_run(a, 0, p->x.dim[p->axis]));
    gather_job j = make_job(&p->x, (int)p->axis, &a->in[0]);
    j.x = a->in[1].data;
    j.y = a->out[0].data;
    if (a->out[0].count == 0)
        return MEST_OK;
    j.chunk = 64;
    j.chunks = (j.inner + j.chunk - 1) / j.chunk;
    mest_parallel(a->threads, (size_t)(j.outer * j.chunks), gather_grad_tile, &j);
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &((const mest_gather_params *)c->params)->x); }

static mest_status give(mest_vjp *v, const char *op)
{
    mest_gather_params *p = mest_vjp_alloc(v, sizeof *p);
    mest_id in[2] = {mest_in(v, 1), mest_dout(v, 0)};
    if (!p)
        return mest_vjp_nomem(v);
    p->x = mest_vjp_type(v, mest_in(v, 0))->shape;
    p->axis = mest_axis(((const mest_gather_params *)mest_vjp_node(v)->params)->axis, p->x.rank);
    return mest_give_op(v, 0, op, p, 2, in);
}
static mest_status gather_vjp(mest_vjp *v) { return give(v, "mest.GatherGrad"); }
static mest_status elements_vjp(mest_vjp *v) { return give(v, "mest.GatherElementsGrad"); }

/* ---- GatherElements: Y[i] = X[i with the axis replaced by indices[i]] ---- */
static mest_status elements_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape, *k = &c->in[1]->shape;
    int axis;
    MEST_TRY(mest_infer_axis(c, ((const mest_gather_params *)c->params)->axis, x->rank, &axis));
    MEST_INFER_CHECK(c, x->rank == k->rank, "indices have rank %d, the input %d", k->rank, x->rank);
    for (int i = 0; i < x->rank; i++)
        MEST_INFER_CHECK(c, i == axis || k->dim[i] <= x->dim[i], "indices are longer than the input on axis %d", i);
    MEST_TRY(check_indices(c, 1, x->dim[axis]));
    return mest_infer_set(c, 0, c->in[0]->dtype, k);
}

/* Calls for each element of the index array: its position there and in X. */
static void walk_elements(const mest_shape *x, int axis, const mest_tensor *indices, void (*fn)(const void *from, void *to, int64_t at, int64_t in_x, size_t size),
                          const void *from, void *to, size_t size)
{
    const mest_shape *k = &indices->type->shape;
    int64_t index[MEST_MAX_RANK] = {0}, stride[MEST_MAX_RANK], n = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        stride[i] = n;
        n *= x->dim[i];
    }
    for (int64_t at = 0; at < (int64_t)indices->count; at++) {
        int64_t pos = mest_int_at(indices->type->dtype, indices->data, at);
        pos = (pos < 0 ? pos + x->dim[axis] : pos) * stride[axis];
        for (int i = 0; i < x->rank; i++)
            pos += i == axis ? 0 : index[i] * stride[i];
        fn(from, to, at, pos, size);
        for (int i = x->rank - 1; i >= 0 && ++index[i] == k->dim[i]; i--)
            index[i] = 0;
    }
}

static void take(const void *from, void *to, int64_t at, int64_t in_x, size_t size)
{
    memcpy((char *)to + (size_t)at * size, (const char *)from + (size_t)in_x * size, size);
}
static void put_back(const void *from, void *to, int64_t at, int64_t in_x, size_t size)
{
    (void)size;
    ((mest_real *)to)[in_x] += ((const mest_real *)from)[at];
}

static mest_status elements_forward(const mest_args *a)
{
    const mest_shape *x = &a->in[0].type->shape;
    int axis = mest_axis(((const mest_gather_params *)a->params)->axis, x->rank);
    MEST_TRY(check_run(a, 1, x->dim[axis]));
    walk_elements(x, axis, &a->in[1], take, a->in[0].data, a->out[0].data, mest_dtype_size(a->out[0].type->dtype));
    return MEST_OK;
}

static mest_status elements_grad_forward(const mest_args *a)
{
    const mest_gather_params *p = a->params;
    MEST_TRY(check_run(a, 0, p->x.dim[p->axis]));
    memset(a->out[0].data, 0, a->out[0].count * sizeof(mest_real));
    walk_elements(&p->x, (int)p->axis, &a->in[0], put_back, a->in[1].data, a->out[0].data, sizeof(mest_real));
    return MEST_OK;
}

static const mest_attr gather_attrs[] = {{.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(mest_gather_params, axis)}, {.name = NULL}};

const mest_op mest_ops_gather[] = {
    {.domain = "", .name = "Gather", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = gather_attrs, .params_bytes = sizeof(mest_gather_params), .infer = gather_infer, .forward = gather_forward, .vjp = gather_vjp},
    {.domain = "mest", .name = "mest.GatherGrad", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .infer = grad_infer, .forward = gather_grad_forward},
    {.domain = "", .name = "GatherElements", .since = 11, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = gather_attrs, .params_bytes = sizeof(mest_gather_params), .infer = elements_infer, .forward = elements_forward, .vjp = elements_vjp},
    {.domain = "mest", .name = "mest.GatherElementsGrad", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ANY_TYPE, .infer = grad_infer, .forward = elements_grad_forward},
    {.name = NULL},
};
