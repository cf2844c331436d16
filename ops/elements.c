/* SPDX-License-Identifier: Apache-2.0 */
/* Shape rules, gradient rules and loops shared by the general operators. */
#include "ops/elements.h"

#include <inttypes.h>
#include <stdio.h>

#include "ops/nn.h"

/* ---- shape rules ---- */

mest_status mest_infer_set(mest_infer *c, int output, mest_dtype dtype, const mest_shape *shape)
{
    char text[128];
    size_t size = mest_dtype_size(dtype);
    if (size == 0)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported", mest_dtype_name(dtype));
    int64_t count = 0;
    for (int i = 0; i < shape->rank; i++)
        if (shape->dim[i] < 0)
            return mest_infer_fail(c, MEST_E_SHAPE, "output has a negative or unknown size: %s", mest_shape_text(shape, text, sizeof text));
    if (!mest_shape_count(shape, &count) || count > MEST_VALUE_LIMIT_BYTES / (int64_t)size)
        return mest_infer_fail(c, MEST_E_LIMIT, "output %s is larger than %" PRId64 " GiB", mest_shape_text(shape, text, sizeof text),
                               MEST_VALUE_LIMIT_BYTES >> 30);
    c->out[output].dtype = dtype;
    c->out[output].shape = *shape;
    return MEST_OK;
}

static mest_status check_float(const mest_infer *c)
{
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->dtype != MEST_F32)
            return mest_infer_fail(c, MEST_E_UNSUPPORTED, "input %d is %s; only float32 is supported", i, mest_dtype_name(c->in[i]->dtype));
    return MEST_OK;
}

mest_status mest_infer_float(mest_infer *c)
{
    MEST_TRY(check_float(c));
    return mest_infer_set(c, 0, c->in[0]->dtype, &c->in[0]->shape);
}

mest_status mest_infer_float_broadcast(mest_infer *c)
{
    MEST_TRY(check_float(c));
    MEST_TRY(mest_infer_broadcast(c));
    mest_shape shape = c->out[0].shape;
    return mest_infer_set(c, 0, MEST_F32, &shape);
}

mest_status mest_infer_shape_params(mest_infer *c)
{
    const mest_shape_params *p = c->params;
    return mest_infer_set(c, 0, MEST_F32, &p->shape);
}

mest_status mest_infer_ints(const mest_infer *c, int input, int max, int64_t *v, int *n)
{
    const mest_type *t = input < c->n_in ? c->in[input] : NULL;
    int64_t count = 0;
    if (!t)
        return mest_infer_fail(c, MEST_E_SHAPE, "input %d is missing", input);
    if (!mest_dtype_is_index(t->dtype) || t->shape.rank > 1 || !mest_shape_count(&t->shape, &count))
        return mest_infer_fail(c, MEST_E_SHAPE, "input %d must be a vector of int64", input);
    if (count > max)
        return mest_infer_fail(c, MEST_E_SHAPE, "input %d has %" PRId64 " elements, at most %d make sense", input, count, max);
    if (count > 0 && !c->in_data[input])
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "input %d decides the shape of the result and must be a constant", input);
    for (int64_t i = 0; i < count; i++)
        v[i] = mest_int_at(t->dtype, c->in_data[input], i);
    *n = (int)count;
    return MEST_OK;
}

int mest_read_ints(const mest_tensor *t, int max, int64_t *v)
{
    if (!t->data)
        return 0;
    int n = (int)t->count < max ? (int)t->count : max;
    for (int i = 0; i < n; i++)
        v[i] = mest_int_at(t->type->dtype, t->data, i);
    return n;
}

mest_status mest_infer_axis(const mest_infer *c, int64_t axis, int rank, int *resolved)
{
    *resolved = mest_axis(axis, rank);
    if (*resolved < 0)
        return mest_infer_fail(c, MEST_E_SHAPE, "axis %" PRId64 " is out of range for rank %d", axis, rank);
    return MEST_OK;
}

mest_shape mest_shape_vector(int64_t n)
{
    mest_shape s = {.rank = 1};
    s.dim[0] = n;
    return s;
}

/* ---- gradient rules ---- */

static mest_status vjp_by(mest_vjp *v, bool from_y)
{
    if (!mest_wants(v, 0) || mest_dout(v, 0) == MEST_NONE)
        return MEST_OK;
    char name[64];
    snprintf(name, sizeof name, "mest.%sGrad", mest_vjp_node(v)->op->name);
    mest_id in[2] = {from_y ? mest_out(v, 0) : mest_in(v, 0), mest_dout(v, 0)};
    return mest_give_op(v, 0, name, NULL, 2, in);
}

mest_status mest_vjp_from_x(mest_vjp *v) { return vjp_by(v, false); }
mest_status mest_vjp_from_y(mest_vjp *v) { return vjp_by(v, true); }

mest_status mest_vjp_zero(mest_vjp *v)
{
    (void)v;
    return MEST_OK;
}

mest_status mest_vjp_nomem(mest_vjp *v)
{
    return mest_fail(mest_vjp_err(v), MEST_E_NOMEM, "gradient of '%s': out of memory", mest_vjp_node(v)->name);
}

void *mest_vjp_shape_params(mest_vjp *v, mest_id id)
{
    mest_shape_params *p = mest_vjp_alloc(v, sizeof *p);
    if (p)
        p->shape = mest_vjp_type(v, id)->shape;
    return p;
}

mest_status mest_vjp_reshaped(mest_vjp *v, int input, mest_id gradient)
{
    void *p = mest_vjp_shape_params(v, mest_in(v, input));
    if (!p)
        return mest_vjp_nomem(v);
    return mest_give_op(v, input, "mest.Reshape", p, 1, &gradient);
}

/* ---- loops ---- */

void mest_spread_begin(mest_spread *s, const mest_shape *out)
{
    s->n = 0;
    s->rank = out->rank;
    for (int i = 0; i < out->rank; i++)
        s->dim[i] = out->dim[i];
    mest_spread_add(s, out);
}

void mest_spread_add(mest_spread *s, const mest_shape *operand)
{
    int64_t stride = 1;
    int shift = s->rank - operand->rank; /* missing leading axes broadcast */
    for (int i = s->rank - 1; i >= 0; i--) {
        int64_t d = i >= shift ? operand->dim[i - shift] : 1;
        s->stride[s->n][i] = d == 1 ? 0 : stride;
        stride *= d;
    }
    s->n++;
}

/* Drops axes of size 1 and merges neighbours that are contiguous for every operand. */
static void collapse(mest_spread *s)
{
    int m = 0;
    for (int i = 0; i < s->rank; i++) {
        if (s->dim[i] == 1)
            continue;
        bool merge = m > 0;
        for (int k = 0; k < s->n && merge; k++)
            merge = s->stride[k][m - 1] == s->stride[k][i] * s->dim[i];
        int to = merge ? m - 1 : m++;
        s->dim[to] = merge ? s->dim[to] * s->dim[i] : s->dim[i];
        for (int k = 0; k < s->n; k++)
            s->stride[k][to] = s->stride[k][i];
    }
    if (m == 0) {
        s->dim[0] = 1;
        for (int k = 0; k < s->n; k++)
            s->stride[k][0] = 1;
        m = 1;
    }
    s->rank = m;
}

enum { TILE = 16384 }; /* elements: large enough to pay for a task, small enough to balance */

typedef struct nest {
    const mest_spread *s;
    const mest_io *io;
    mest_row_fn fn;
    int64_t rows, inner, rows_per_tile, pieces; /* pieces > 1: a row is cut */
} nest;

static void nest_tile(void *context, size_t tile)
{
    const nest *t = context;
    const mest_spread *s = t->s;
    int64_t first = t->pieces > 1 ? (int64_t)tile / t->pieces : (int64_t)tile * t->rows_per_tile;
    int64_t last = t->pieces > 1 ? first + 1 : first + t->rows_per_tile;
    if (last > t->rows)
        last = t->rows;
    int64_t begin = t->pieces > 1 ? (int64_t)tile % t->pieces * TILE : 0;
    int64_t n = t->inner - begin;
    if (t->pieces > 1 && n > TILE)
        n = TILE;
    int64_t index[MEST_SPREAD_RANK], off[MEST_SPREAD_MAX];
    for (int k = 0; k < s->n; k++)
        off[k] = begin * s->stride[k][s->rank - 1];
    int64_t rest = first;
    for (int i = s->rank - 2; i >= 0; i--) {
        index[i] = rest % s->dim[i];
        rest /= s->dim[i];
        for (int k = 0; k < s->n; k++)
            off[k] += index[i] * s->stride[k][i];
    }
    for (int64_t row = first; row < last; row++) {
        t->fn(t->io, off, n);
        for (int i = s->rank - 2; i >= 0; i--) {
            for (int k = 0; k < s->n; k++)
                off[k] += s->stride[k][i];
            if (++index[i] < s->dim[i])
                break;
            for (int k = 0; k < s->n; k++)
                off[k] -= s->dim[i] * s->stride[k][i];
            index[i] = 0;
        }
    }
}

void mest_spread_run(const mest_threads *threads, mest_spread *s, mest_io *io, mest_row_fn fn)
{
    collapse(s);
    nest t = {.s = s, .io = io, .fn = fn, .rows = 1, .inner = s->dim[s->rank - 1], .pieces = 1, .rows_per_tile = 1};
    for (int i = 0; i < s->rank - 1; i++)
        t.rows *= s->dim[i];
    if (t.rows == 0 || t.inner == 0)
        return;
    for (int k = 0; k < s->n; k++)
        io->step[k] = s->stride[k][s->rank - 1];
    size_t tiles;
    if (t.inner > TILE) {
        t.pieces = (t.inner + TILE - 1) / TILE;
        tiles = (size_t)(t.rows * t.pieces);
    } else {
        t.rows_per_tile = TILE / t.inner;
        tiles = (size_t)((t.rows + t.rows_per_tile - 1) / t.rows_per_tile);
    }
    if (tiles == 1)
        nest_tile(&t, 0);
    else
        mest_parallel(threads, tiles, nest_tile, &t);
}

typedef struct storage_rows {
    const mest_io *io;
    mest_row_fn fn;
    int n;
} storage_rows;

static void storage_row(void *context, int64_t offset, int64_t n)
{
    const storage_rows *r = context;
    int64_t off[MEST_SPREAD_MAX];
    for (int k = 0; k < r->n; k++)
        off[k] = offset * r->io->step[k];
    r->fn(r->io, off, n);
}

void mest_rows(const mest_args *a, int n_in, const int *which, mest_row_fn fn)
{
    const mest_tensor *out = &a->out[0];
    mest_io io = {.out = out->data, .params = a->params};
    for (int i = 0; i < n_in; i++)
        io.in[i] = a->in[which[i]].data;
    if (out->type->layout.kind == MEST_PIXEL) {
        /* Operands of the same layout share offsets; scalars are plain. */
        storage_rows r = {.io = &io, .fn = fn, .n = n_in + 1};
        io.step[0] = 1;
        for (int i = 0; i < n_in; i++)
            io.step[i + 1] = a->in[which[i]].type->layout.kind == MEST_PIXEL;
        mest_for_rows(a->threads, out->type, storage_row, &r);
        return;
    }
    mest_spread s;
    if (out->type->layout.kind == MEST_SPARSE) {
        mest_shape stored = mest_shape_vector((int64_t)out->count);
        mest_spread_begin(&s, &stored);
        for (int i = 0; i < n_in; i++)
            mest_spread_add(&s, &stored);
    } else {
        mest_spread_begin(&s, &out->type->shape);
        for (int i = 0; i < n_in; i++)
            mest_spread_add(&s, &a->in[which[i]].type->shape);
    }
    mest_spread_run(a->threads, &s, &io, fn);
}

void mest_rows_all(const mest_args *a, mest_row_fn fn)
{
    static const int all[MEST_SPREAD_MAX - 1] = {0, 1, 2, 3};
    mest_rows(a, a->n_in < MEST_SPREAD_MAX - 1 ? a->n_in : MEST_SPREAD_MAX - 1, all, fn);
}

#define COPY_ROW(name, T)                                              \
    static void name(const mest_io *io, const int64_t *off, int64_t n) \
    {                                                                  \
        T *o = (T *)io->out + off[0];                                  \
        const T *x = (const T *)io->in[0] + off[1];                    \
        int64_t so = io->step[0], sx = io->step[1];                    \
        if (so == 1 && sx == 1) {                                      \
            memcpy(o, x, (size_t)n * sizeof(T));                       \
        } else if (so == 1 && sx == 0) {                               \
            for (int64_t i = 0; i < n; i++)                            \
                o[i] = *x;                                             \
        } else {                                                       \
            for (int64_t i = 0; i < n; i++)                            \
                o[i * so] = x[i * sx];                                 \
        }                                                              \
    }
COPY_ROW(copy_1, uint8_t)
COPY_ROW(copy_2, uint16_t)
COPY_ROW(copy_4, uint32_t)
COPY_ROW(copy_8, uint64_t)

void mest_spread_copy(const mest_threads *threads, mest_spread *s, size_t element_bytes, void *out, const void *in)
{
    mest_io io = {.out = out, .in = {in}};
    mest_spread_run(threads, s, &io, element_bytes == 1 ? copy_1 : element_bytes == 2 ? copy_2 : element_bytes == 4 ? copy_4 : copy_8);
}

mest_status mest_forward_copy(const mest_args *a)
{
    const mest_tensor *x = &a->in[0], *y = &a->out[0];
    if (x->data == y->data)
        return MEST_OK;
    int64_t n = (int64_t)y->count;
    if (y->type->layout.kind == MEST_PIXEL && !mest_type_storage(y->type, &n))
        return mest_run_fail(a, MEST_E_INTERNAL, "storage of a pixel value is unknown");
    if (n > 0)
        memcpy(y->data, x->data, (size_t)n * mest_dtype_size(y->type->dtype));
    return MEST_OK;
}

void mest_fill_elements(void *out, int64_t n, size_t bytes, const void *value)
{
    char *o = out;
    if (n <= 0)
        return;
    memcpy(o, value, bytes);
    /* Doubles the filled part: log2(n) copies. */
    for (int64_t done = 1; done < n;) {
        int64_t part = done < n - done ? done : n - done;
        memcpy(o + (size_t)done * bytes, o, (size_t)part * bytes);
        done += part;
    }
}
