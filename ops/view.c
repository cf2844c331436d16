/* SPDX-License-Identifier: Apache-2.0 */
/* The same elements under another shape: Reshape (0, -1, allowzero), Flatten, Squeeze, Unsqueeze; any fixed-size type. Gradient:
 * mest.Reshape(dY) to the shape of X (params: mest_shape_params). */
#include <inttypes.h>

#include "ops/elements.h"
#include "ops/nn.h"

typedef struct reshape_params { int64_t allowzero; } reshape_params;

static mest_status reshape_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape;
    bool keep_zero = ((const reshape_params *)c->params)->allowzero != 0;
    mest_shape y = {0};
    char a[128], b[128];
    int n = 0, unknown = -1;
    int64_t count, rest = 1;
    MEST_TRY(mest_infer_ints(c, 1, MEST_MAX_RANK, y.dim, &n));
    y.rank = n;
    MEST_INFER_CHECK(c, mest_shape_count(x, &count), "the shape of the input is unknown");
    for (int i = 0; i < n; i++) {
        if (y.dim[i] == 0 && !keep_zero) {
            MEST_INFER_CHECK(c, i < x->rank, "shape[%d] is 0 but the input has rank %d", i, x->rank);
            y.dim[i] = x->dim[i];
        } else if (y.dim[i] == -1) {
            MEST_INFER_CHECK(c, unknown < 0, "shape %s has more than one -1", mest_shape_text(&y, a, sizeof a));
            unknown = i;
            continue;
        }
        MEST_INFER_CHECK(c, y.dim[i] >= 0, "shape[%d] is %" PRId64, i, y.dim[i]);
        MEST_INFER_CHECK(c, !__builtin_mul_overflow(rest, y.dim[i], &rest), "the sizes of the shape overflow");
    }
    if (unknown >= 0) {
        MEST_INFER_CHECK(c, rest > 0 && count % rest == 0, "%" PRId64 " elements cannot be split into parts of %" PRId64, count, rest);
        y.dim[unknown] = count / rest;
    } else {
        MEST_INFER_CHECK(c, rest == count, "%s has %" PRId64 " elements, %s has %" PRId64, mest_shape_text(x, a, sizeof a), count,
                         mest_shape_text(&y, b, sizeof b), rest);
    }
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

static mest_status flatten_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape;
    int64_t axis = ((const mest_axis_params *)c->params)->axis;
    if (axis < 0)
        axis += x->rank;
    MEST_INFER_CHECK(c, axis >= 0 && axis <= x->rank, "axis %" PRId64 " is out of range for rank %d", axis, x->rank);
    mest_shape y = {.rank = 2};
    y.dim[0] = mest_shape_span(x, 0, (int)axis);
    y.dim[1] = mest_shape_span(x, (int)axis, x->rank);
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

/* Marks the axes that input 1 names, against `rank`. */
static mest_status read_axes(const mest_infer *c, int rank, bool *marked)
{
    int64_t axes[MEST_MAX_RANK];
    int n;
    memset(marked, 0, MEST_MAX_RANK * sizeof *marked);
    MEST_TRY(mest_infer_ints(c, 1, MEST_MAX_RANK, axes, &n));
    for (int i = 0; i < n; i++) {
        int axis;
        MEST_TRY(mest_infer_axis(c, axes[i], rank, &axis));
        MEST_INFER_CHECK(c, !marked[axis], "axis %d is named twice", axis);
        marked[axis] = true;
    }
    return MEST_OK;
}

static mest_status squeeze_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape;
    bool drop[MEST_MAX_RANK];
    if (c->n_in > 1 && c->in[1]) {
        MEST_TRY(read_axes(c, x->rank, drop));
    } else {
        for (int i = 0; i < x->rank; i++)
            drop[i] = x->dim[i] == 1;
    }
    mest_shape y = {0};
    for (int i = 0; i < x->rank; i++) {
        MEST_INFER_CHECK(c, !drop[i] || x->dim[i] == 1, "axis %d has %" PRId64 " elements, not 1", i, x->dim[i]);
        if (!drop[i])
            y.dim[y.rank++] = x->dim[i];
    }
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

static mest_status unsqueeze_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape;
    int64_t n;
    bool fresh[MEST_MAX_RANK];
    MEST_INFER_CHECK(c, c->in[1] && mest_shape_count(&c->in[1]->shape, &n) && n + x->rank <= MEST_MAX_RANK, "the result has more than %d axes",
                     MEST_MAX_RANK);
    mest_shape y = {.rank = x->rank + (int)n};
    MEST_TRY(read_axes(c, y.rank, fresh));
    for (int i = 0, k = 0; i < y.rank; i++)
        y.dim[i] = fresh[i] ? 1 : x->dim[k++];
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

static mest_status reshape_to_infer(mest_infer *c)
{
    const mest_shape_params *p = c->params;
    int64_t n, m;
    MEST_INFER_CHECK(c, mest_shape_count(&c->in[0]->shape, &n) && mest_shape_count(&p->shape, &m) && n == m, "element counts differ");
    return mest_infer_set(c, 0, c->in[0]->dtype, &p->shape);
}

static mest_status view_vjp(mest_vjp *v) { return mest_vjp_reshaped(v, 0, mest_dout(v, 0)); }

static const mest_attr reshape_attrs[] = {{.name = "allowzero", .kind = MEST_ATTR_INT, .offset = offsetof(reshape_params, allowzero)}, {.name = NULL}};
static const mest_attr flatten_attrs[] = {{.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(mest_axis_params, axis), .number = 1}, {.name = NULL}};

#define VIEW(onnx, since_, ins_min, ins_max, c_name, attributes, P)                                                                      \
    {.domain = "", .name = onnx, .since = since_, .in_min = ins_min, .in_max = ins_max, .out_min = 1, .out_max = 1,                       \
     .flags = MEST_OP_VIEW | MEST_OP_ANY_TYPE, .act_in = 1, .act_out = 1, .attrs = attributes, .params_bytes = P, .infer = c_name##_infer,                           \
     .forward = mest_forward_copy, .vjp = view_vjp}

const mest_op mest_ops_view[] = {
    VIEW("Reshape", 5, 2, 2, reshape, reshape_attrs, sizeof(reshape_params)),
    VIEW("Flatten", 1, 1, 1, flatten, flatten_attrs, sizeof(mest_axis_params)),
    VIEW("Squeeze", 1, 1, 2, squeeze, NULL, 0),
    VIEW("Unsqueeze", 1, 2, 2, unsqueeze, NULL, 0),
    {.domain = "mest", .name = "mest.Reshape", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_VIEW | MEST_OP_ANY_TYPE, .act_in = 1, .act_out = 1,
     .params_bytes = sizeof(mest_shape_params), .infer = reshape_to_infer, .forward = mest_forward_copy, .vjp = view_vjp},
    {.name = NULL},
};
