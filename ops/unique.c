/* SPDX-License-Identifier: Apache-2.0 */
/* Unique(X): Y, the different elements (or slices along `axis`) of X, in order of size (slices: as words) or, sorted = 0, of appearance; indices of where each
 * is first, for each element of X its number in Y, and how often each is there. ONNX since 11. How many there are decides shapes, so X must be a
 * constant and the node is folded away: it works without memory of its own. */
#include <inttypes.h>

#include "ops/elements.h"

enum { MOST = 8192 }; /* slices */

typedef struct unique_params {
    int64_t axis;
    int32_t given; /* without an axis X is flattened */
    int64_t sorted;
} unique_params;

/* X as [outer, n, inner]. */
typedef struct slices { mest_dtype dtype; const char *data; size_t size; int64_t outer, n, inner; } slices;

static slices slices_of(const unique_params *p, const mest_type *x, const void *data)
{
    slices s = {.dtype = x->dtype, .data = data, .size = mest_dtype_size(x->dtype), .outer = 1, .n = mest_shape_span(&x->shape, 0, x->shape.rank), .inner = 1};
    if (p->given) {
        const int axis = mest_axis(p->axis, x->shape.rank);
        s.outer = mest_shape_span(&x->shape, 0, axis);
        s.n = x->shape.dim[axis];
        s.inner = mest_shape_span(&x->shape, axis + 1, x->shape.rank);
    }
    return s;
}

static int compare_elements(mest_dtype t, const char *x, int64_t i, const char *y, int64_t k)
{
    if (t == MEST_F32 || t == MEST_F64) {
        const double a = t == MEST_F32 ? (double)((const mest_real *)(const void *)x)[i] : ((const double *)(const void *)x)[i];
        const double b = t == MEST_F32 ? (double)((const mest_real *)(const void *)y)[k] : ((const double *)(const void *)y)[k];
        return a < b ? -1 : a > b;
    }
    const int64_t a = mest_integer_at(t, x, i), b = mest_integer_at(t, y, k);
    return a < b ? -1 : a > b;
}

/* Slice i of x with slice k of y. */
static int compare(const slices *x, int64_t i, const slices *y, int64_t k)
{
    for (int64_t o = 0; o < x->outer; o++)
        for (int64_t e = 0; e < x->inner; e++) {
            const int c = compare_elements(x->dtype, x->data, (o * x->n + i) * x->inner + e, y->data, (o * y->n + k) * y->inner + e);
            if (c)
                return c;
        }
    return 0;
}

/* The first slice that is equal to slice i. */
static int64_t first_of(const slices *s, int64_t i)
{
    for (int64_t k = 0; k < i; k++)
        if (!compare(s, k, s, i))
            return k;
    return i;
}

static mest_status unique_infer(mest_infer *c)
{
    const unique_params *p = c->params;
    const mest_type *x = c->in[0];
    int axis = 0;
    int64_t different = 0;
    if (p->given)
        MEST_TRY(mest_infer_axis(c, p->axis, x->shape.rank, &axis));
    if (!c->in_data[0])
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "how many different elements there are decides the shape of the result: the input must be a constant");
    if (x->dtype != MEST_F32 && x->dtype != MEST_F64 && !mest_dtype_is_integer(x->dtype))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(x->dtype));
    const slices s = slices_of(p, x, c->in_data[0]);
    if (s.n > MOST)
        return mest_infer_fail(c, MEST_E_LIMIT, "%" PRId64 " elements; at most %d are compared", s.n, MOST);
    for (int64_t i = 0; i < s.n; i++)
        different += first_of(&s, i) == i;
    mest_shape y = p->given ? x->shape : mest_shape_vector(different);
    if (p->given)
        y.dim[axis] = different;
    MEST_TRY(mest_infer_set(c, 0, x->dtype, &y));
    for (int i = 1; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, MEST_I64, &(mest_shape){.rank = 1, .dim = {i == 2 ? s.n : different}}));
    return MEST_OK;
}

static int64_t *ints(const mest_args *a, int i) { return i < a->n_out ? a->out[i].data : NULL; }

/* Among the first m of y: where x's slice i is or, sorted, belongs. */
static int64_t search(const slices *x, int64_t i, const slices *y, int64_t m, bool sorted, bool *there)
{
    int64_t lo = 0, hi = m;
    for (*there = false; lo < hi && !*there;) {
        const int64_t mid = sorted ? lo + (hi - lo) / 2 : lo;
        const int c = compare(x, i, y, mid);
        if (c == 0) {
            *there = true;
            return mid;
        }
        if (c < 0 && sorted)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static void open_gap(int64_t *v, int64_t at, int64_t m)
{
    if (v)
        memmove(v + at + 1, v + at, (size_t)(m - at) * sizeof *v);
}

/* Y grows slice by slice, in its order. */
static mest_status unique_forward(const mest_args *a)
{
    const unique_params *p = a->params;
    const slices x = slices_of(p, a->in[0].type, a->in[0].data), y = slices_of(p, a->out[0].type, a->out[0].data);
    int64_t *indices = ints(a, 1), *inverse = ints(a, 2), *counts = ints(a, 3), m = 0;
    const size_t bytes = (size_t)x.inner * x.size;
    bool there;
    for (int64_t i = 0; i < x.n; i++) {
        const int64_t at = search(&x, i, &y, m, p->sorted != 0, &there);
        if (!there && m == y.n)
            return mest_run_fail(a, MEST_E_INTERNAL, "the input changed");
        if (!there) {
            for (int64_t o = 0; o < x.outer; o++) {
                char *row = (char *)a->out[0].data + (size_t)(o * y.n) * bytes;
                memmove(row + (size_t)(at + 1) * bytes, row + (size_t)at * bytes, (size_t)(m - at) * bytes);
                memcpy(row + (size_t)at * bytes, x.data + (size_t)(o * x.n + i) * bytes, bytes);
            }
            open_gap(indices, at, m);
            open_gap(counts, at, m);
            if (indices)
                indices[at] = i;
            if (counts)
                counts[at] = 0;
            m++;
        }
        if (counts)
            counts[at]++;
    }
    for (int64_t i = 0; inverse && i < x.n; i++)
        inverse[i] = search(&x, i, &y, m, p->sorted != 0, &there);
    return MEST_OK;
}

static const mest_attr attrs[] = {{.name = "axis", .kind = MEST_ATTR_INT, .offset = offsetof(unique_params, axis), .given_used = true},
                                  {.name = "sorted", .kind = MEST_ATTR_INT, .offset = offsetof(unique_params, sorted), .number = 1},
                                  {.name = NULL}};

const mest_op mest_ops_unique[] = {
    {.domain = "", .name = "Unique", .limits = "inputs that are no constants", .since = 11, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 4, .flags = MEST_OP_ANY_TYPE,
     .attrs = attrs, .params_bytes = sizeof(unique_params), .infer = unique_infer, .forward = unique_forward, .no_grad = true},
    {.name = NULL},
};
