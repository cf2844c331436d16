/* SPDX-License-Identifier: Apache-2.0 */
/* TensorScatter(past, update, indices?): past, with update written along one axis (default -2) from indices[b] on, b along axis 0; 0 where absent; mode
 * "circular" goes on at the front. ONNX since 24: caches of keys and values. mest.TensorScatterGrad(dY, indices?) gives dpast (0 where something was
 * written) and dupdate. */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct scatter_params { int64_t axis; const char *mode; int64_t steps; /* gradient: of update */ } scatter_params;

static mest_status check_indices(const mest_infer *c, int input, int64_t batch)
{
    const mest_type *t = input < c->n_in ? c->in[input] : NULL;
    MEST_INFER_CHECK(c, !t || (mest_dtype_is_index(t->dtype) && t->shape.rank == 1 && t->shape.dim[0] == batch), "the indices are not %" PRId64 " whole numbers", batch);
    return MEST_OK;
}

static mest_status scatter_infer(mest_infer *c)
{
    const scatter_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape;
    mest_shape u = c->in[1]->shape;
    char tx[64], tu[64];
    int axis;
    MEST_TRY(mest_infer_axis(c, p->axis, x->rank, &axis));
    MEST_INFER_CHECK(c, !p->mode || !strcmp(p->mode, "linear") || !strcmp(p->mode, "circular"), "mode \"%.30s\" is unknown", p->mode);
    MEST_INFER_CHECK(c, axis > 0, "the axis must not be the first one");
    const bool fits = u.rank == x->rank && u.dim[axis] <= x->dim[axis];
    if (fits)
        u.dim[axis] = x->dim[axis];
    MEST_INFER_CHECK(c, fits && mest_shape_equal(&u, x) && c->in[0]->dtype == c->in[1]->dtype, "update %s does not fit %s along axis %d",
                     mest_shape_text(&c->in[1]->shape, tu, sizeof tu), mest_shape_text(x, tx, sizeof tx), axis);
    MEST_TRY(check_indices(c, 2, x->dim[0]));
    return mest_infer_set(c, 0, c->in[0]->dtype, x);
}

static mest_status grad_infer(mest_infer *c)
{
    const scatter_params *p = c->params;
    mest_shape u = c->in[0]->shape;
    u.dim[mest_axis(p->axis, u.rank)] = p->steps;
    for (int i = 0; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, MEST_F32, i == 0 ? &c->in[0]->shape : &u));
    return MEST_OK;
}

/* Both, seen as [batch, outer, steps, bytes]. */
typedef struct places { int64_t batch, outer, length, steps; size_t bytes; bool circular; const mest_tensor *indices; } places;

static mest_status places_of(const mest_args *a, const mest_shape *x, int64_t steps, int indices, size_t element, places *p)
{
    const scatter_params *params = a->params;
    const int axis = mest_axis(params->axis, x->rank);
    *p = (places){.batch = x->dim[0], .outer = mest_shape_span(x, 1, axis), .length = x->dim[axis], .steps = steps,
                  .bytes = (size_t)mest_shape_span(x, axis + 1, x->rank) * element, .circular = params->mode && !strcmp(params->mode, "circular"),
                  .indices = a->n_in > indices && a->in[indices].data ? &a->in[indices] : NULL};
    for (int64_t b = 0; b < p->batch && p->indices; b++) {
        const int64_t at = mest_int_at(p->indices->type->dtype, p->indices->data, b);
        if (at < 0 || (!p->circular && at > p->length - steps) || (p->circular && at > INT64_MAX - steps))
            return mest_run_fail(a, MEST_E_DATA, "index %" PRId64 " of row %" PRId64 ": %" PRId64 " steps do not fit into %" PRId64 " from there", at, b, steps, p->length);
    }
    return MEST_OK;
}

/* Where step s of row r (of batch and outer) is written. */
static int64_t place(const places *p, int64_t r, int64_t s)
{
    const int64_t at = (p->indices ? mest_int_at(p->indices->type->dtype, p->indices->data, r / p->outer) : 0) + s;
    return r * p->length + (p->circular ? at % p->length : at);
}

static mest_status scatter_forward(const mest_args *a)
{
    places p;
    const mest_shape *x = &a->in[0].type->shape;
    const int axis = mest_axis(((const scatter_params *)a->params)->axis, x->rank);
    MEST_TRY(places_of(a, x, a->in[1].type->shape.dim[axis], 2, mest_dtype_size(a->in[0].type->dtype), &p));
    MEST_TRY(mest_forward_copy(a));
    for (int64_t r = 0; r < p.batch * p.outer; r++)
        for (int64_t s = 0; s < p.steps; s++)
            memcpy((char *)a->out[0].data + (size_t)place(&p, r, s) * p.bytes, (const char *)a->in[1].data + (size_t)(r * p.steps + s) * p.bytes, p.bytes);
    return MEST_OK;
}

static mest_status grad_forward(const mest_args *a)
{
    places p;
    MEST_TRY(places_of(a, &a->in[0].type->shape, ((const scatter_params *)a->params)->steps, 1, sizeof(mest_real), &p));
    char *dpast = a->out[0].data, *dupdate = a->n_out > 1 ? a->out[1].data : NULL;
    const char *dy = a->in[0].data;
    if (dpast)
        memcpy(dpast, dy, a->in[0].count * sizeof(mest_real));
    for (int64_t r = 0; r < p.batch * p.outer; r++)
        for (int64_t s = 0; s < p.steps; s++) {
            const size_t at = (size_t)place(&p, r, s) * p.bytes;
            if (dpast)
                memset(dpast + at, 0, p.bytes);
            if (dupdate) /* at most as many steps as places, so none is written twice */
                memcpy(dupdate + (size_t)(r * p.steps + s) * p.bytes, dy + at, p.bytes);
        }
    return MEST_OK;
}

static mest_status scatter_vjp(mest_vjp *v)
{
    scatter_params *p = mest_vjp_alloc(v, sizeof *p);
    if (!p)
        return mest_vjp_nomem(v);
    *p = *(const scatter_params *)mest_vjp_node(v)->params;
    const mest_shape *u = &mest_vjp_type(v, mest_in(v, 1))->shape;
    p->steps = u->dim[mest_axis(p->axis, u->rank)];
    return mest_give_grads(v, "mest.TensorScatterGrad", p, 2, (mest_id[]){mest_dout(v, 0), mest_in(v, 2)}, 2);
}

static const mest_attr attrs[] = {{.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(scatter_params, axis), .number = -2},
                                  {.name = "mode", .kind = MEST_ATTR_STRING, .offset = offsetof(scatter_params, mode), .text = "linear"},
                                  {.name = NULL}};

const mest_op mest_ops_tensor_scatter[] = {
    {.domain = "", .name = "TensorScatter", .since = 24, .in_min = 2, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, .attrs = attrs,
     .params_bytes = sizeof(scatter_params), .infer = scatter_infer, .forward = scatter_forward, .vjp = scatter_vjp},
    {.domain = "mest", .name = "mest.TensorScatterGrad", .since = 1, .in_min = 1, .in_max = 2, .out_min = 1, .out_max = 2, .flags = MEST_OP_ANY_TYPE,
     .params_bytes = sizeof(scatter_params), .infer = grad_infer, .forward = grad_forward},
    {.name = NULL},
};
