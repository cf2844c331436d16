/* SPDX-License-Identifier: Apache-2.0 */
/* Slice(X, starts, ends, axes?, steps?): negative positions and steps, clamped as ONNX says; any fixed-size type.
 * mest.SliceGrad(dY): zeros of the shape of X with dY in the places that were read (params: slice_places). */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct slice_places {
    mest_shape x, y;
    int64_t start[MEST_MAX_RANK], step[MEST_MAX_RANK];
} slice_places;

/* Resolves the bounds. On failure returns a text, NULL if all is well. */
static const char *resolve(const mest_shape *x, int n, const int64_t *starts, const int64_t *ends, const int64_t *axes, const int64_t *steps,
                           slice_places *p)
{
    bool seen[MEST_MAX_RANK] = {false};
    p->x = p->y = *x;
    for (int i = 0; i < x->rank; i++) {
        p->start[i] = 0;
        p->step[i] = 1;
    }
    for (int i = 0; i < n; i++) {
        int axis = mest_axis(axes ? axes[i] : i, x->rank);
        if (axis < 0)
            return "an axis is out of range";
        if (seen[axis])
            return "an axis is named twice";
        seen[axis] = true;
        int64_t d = x->dim[axis], step = steps ? steps[i] : 1, s = starts[i], e = ends[i];
        if (step == 0)
            return "a step is 0";
        if (step < -INT64_MAX)
            step = -INT64_MAX;
        s = s < 0 ? s + d : s;
        e = e < 0 ? e + d : e; /* INT64_MIN + d stays negative */
        int64_t lo = step > 0 ? 0 : -1, hi = step > 0 ? d : d - 1;
        s = s < 0 ? 0 : s > hi ? hi : s;
        e = e < lo ? lo : e > d ? d : e;
        int64_t length = step > 0 ? (e > s ? (e - s - 1) / step + 1 : 0) : (s > e ? (s - e - 1) / -step + 1 : 0);
        p->start[axis] = length ? s : 0;
        p->step[axis] = length > 1 ? step : 1;
        p->y.dim[axis] = length;
    }
    return NULL;
}

static mest_status slice_infer(mest_infer *c)
{
    int64_t v[4][MEST_MAX_RANK];
    int n[4] = {0};
    slice_places p;
    for (int i = 0; i < 4; i++)
        if (i < 2 || (i + 1 < c->n_in && c->in[i + 1]))
            MEST_TRY(mest_infer_ints(c, i + 1, MEST_MAX_RANK, v[i], &n[i]));
        else
            n[i] = -1;
    MEST_INFER_CHECK(c, n[0] == n[1] && (n[2] < 0 || n[2] == n[0]) && (n[3] < 0 || n[3] == n[0]), "starts, ends, axes and steps differ in length");
    const char *why = resolve(&c->in[0]->shape, n[0], v[0], v[1], n[2] < 0 ? NULL : v[2], n[3] < 0 ? NULL : v[3], &p);
    MEST_INFER_CHECK(c, !why, "%s", why);
    return mest_infer_set(c, 0, c->in[0]->dtype, &p.y);
}

/* Copies between the packed slice and its places in the whole. */
static void copy(const mest_args *a, const slice_places *p, void *whole, void *part, bool read)
{
    size_t size = mest_dtype_size(a->out[0].type->dtype);
    mest_spread s;
    mest_spread_begin(&s, &p->y);
    mest_spread_add(&s, &p->y);
    int64_t stride = 1, first = 0;
    for (int i = p->x.rank - 1; i >= 0; i--) {
        s.stride[read ? 1 : 0][i] = stride * p->step[i];
        first += stride * p->start[i];
        stride *= p->x.dim[i];
    }
    char *at = (char *)whole + (size_t)first * size;
    if (read)
        mest_spread_copy(a->threads, &s, size, part, at);
    else
        mest_spread_copy(a->threads, &s, size, at, part);
}

static mest_status slice_forward(const mest_args *a)
{
    int64_t v[4][MEST_MAX_RANK];
    int n[4] = {0};
    slice_places p;
    for (int i = 0; i < 4; i++)
        n[i] = i + 1 < a->n_in && a->in[i + 1].data ? mest_read_ints(&a->in[i + 1], MEST_MAX_RANK, v[i]) : -1;
    const char *why = resolve(&a->in[0].type->shape, n[0], v[0], v[1], n[2] < 0 ? NULL : v[2], n[3] < 0 ? NULL : v[3], &p);
    if (why || !mest_shape_equal(&p.y, &a->out[0].type->shape))
        return mest_run_fail(a, MEST_E_DATA, "%s", why ? why : "the bounds changed");
    if (a->out[0].count > 0)
        copy(a, &p, a->in[0].data, a->out[0].data, true);
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &((const slice_places *)c->params)->x); }

static mest_status grad_forward(const mest_args *a)
{
    memset(a->out[0].data, 0, a->out[0].count * sizeof(mest_real));
    if (a->in[0].count > 0)
        copy(a, a->params, a->out[0].data, a->in[0].data, false);
    return MEST_OK;
}

static mest_status slice_vjp(mest_vjp *v)
{
    int64_t bound[4][MEST_MAX_RANK];
    bool given[4] = {false};
    int64_t n = 0;
    slice_places *p = mest_vjp_alloc(v, sizeof *p);
    if (!p)
        return mest_vjp_nomem(v);
    for (int i = 0; i < 4; i++) {
        mest_id id = mest_in(v, i + 1);
        if (id == MEST_NONE)
            continue;
        const mest_type *t = mest_vjp_type(v, id);
        const void *data = mest_vjp_data(v, id);
        if (!mest_shape_count(&t->shape, &n) || (n > 0 && !data))
            return mest_fail(mest_vjp_err(v), MEST_E_INTERNAL, "Slice '%s': the bounds are not constant", mest_vjp_node(v)->name);
        given[i] = true;
        for (int64_t k = 0; k < n; k++)
            bound[i][k] = mest_int_at(t->dtype, data, k);
    }
    resolve(&mest_vjp_type(v, mest_in(v, 0))->shape, (int)n, bound[0], bound[1], given[2] ? bound[2] : NULL, given[3] ? bound[3] : NULL, p);
    mest_id dy = mest_dout(v, 0);
    return mest_give_op(v, 0, "mest.SliceGrad", p, 1, &dy);
}

const mest_op mest_ops_slice[] = {
    {.domain = "", .name = "Slice", .since = 1, .in_min = 3, .in_max = 5, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .infer = slice_infer, .forward = slice_forward, .vjp = slice_vjp},
    {.domain = "mest", .name = "mest.SliceGrad", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .infer = grad_infer,
     .forward = grad_forward},
    {.name = NULL},
};
