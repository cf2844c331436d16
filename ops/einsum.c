/* SPDX-License-Identifier: Apache-2.0 */
/* Einsum of one or two operands: letters, repeated letters in an operand (diagonals), "..." (broadcast), implicit outputs. ONNX since 12.
 * mest.EinsumGrad (dY, other operand?) -> gradient of operand `operand`: the same sum with the roles of that operand and Y exchanged.
 *
 * Every label is a loop with a stride in each operand. What forms a matrix product (a run of labels that only one operand and the result
 * have, one of the other operand, one that is summed) goes through mest_dense_run, the other labels around it; else plain loops. */
#include <inttypes.h>
#include <stdio.h>

#include "ops/dense.h"
#include "ops/elements.h"

enum { MAX_LABELS = 52 + MEST_MAX_RANK, ELLIPSIS = 52 }; /* A-Z, a-z, then the axes of "..." from the right */

typedef struct einsum_params {
    const char *equation;
    int64_t operand; /* gradient: which */
    mest_shape x;    /* and its shape */
} einsum_params;

typedef struct term { int rank; int label[MEST_MAX_RANK]; } term;

typedef struct equation {
    int n_in;
    term in[2], out;
    int64_t dim[MAX_LABELS];
} equation;

#define FAIL(...) (snprintf(why, why_size, __VA_ARGS__), false)

static int letter(char c) { return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : -1; }

/* One term, up to `end`; `dots` axes stand for "...", -1: whatever the rank leaves. */
static bool read_term(const char *s, const char *end, int rank, int dots, term *t, int *n_dots, char *why, size_t why_size)
{
    int letters = 0;
    for (const char *p = s; p < end; p++)
        letters += letter(*p) >= 0;
    t->rank = 0;
    *n_dots = 0;
    for (const char *p = s; p < end; p++) {
        if (*p == ' ')
            continue;
        if (end - p >= 3 && !memcmp(p, "...", 3)) {
            int n = dots >= 0 ? dots : rank - letters;
            if (n < 0 || *n_dots || t->rank + n > MEST_MAX_RANK)
                return FAIL("\"...\" does not fit a tensor of rank %d", rank);
            for (int i = 0; i < n; i++)
                t->label[t->rank++] = ELLIPSIS + n - 1 - i;
            *n_dots = n;
            p += 2;
            continue;
        }
        if (letter(*p) < 0 || t->rank == MEST_MAX_RANK)
            return FAIL("the equation cannot be read at \"%.20s\"", p);
        t->label[t->rank++] = letter(*p);
    }
    return true;
}

static bool has(const term *t, int label)
{
    for (int i = 0; i < t->rank; i++)
        if (t->label[i] == label)
            return true;
    return false;
}

static bool read_equation(const char *text, int n_in, const mest_shape *const *shape, equation *e, char *why, size_t why_size)
{
    if (!text)
        return FAIL("no equation");
    const char *arrow = strstr(text, "->"), *end = arrow ? arrow : text + strlen(text), *s = text;
    int dots = 0, seen[MAX_LABELS] = { 0 };
    memset(e, 0, sizeof *e);
    e->n_in = n_in;
    if (n_in > 2)
        return FAIL("%d operands; one or two are supported", n_in);
    for (int i = 0; i < MAX_LABELS; i++)
        e->dim[i] = 1;
    for (int k = 0; k < n_in; k++) {
        const char *comma = memchr(s, ',', (size_t)(end - s));
        int n_dots;
        if (!comma != (k == n_in - 1))
            return FAIL("the equation \"%.60s\" is not one of %d operands", text, n_in);
        if (!read_term(s, comma ? comma : end, shape[k]->rank, -1, &e->in[k], &n_dots, why, why_size))
            return false;
        if (e->in[k].rank != shape[k]->rank)
            return FAIL("operand %d has rank %d, its term %d labels", k, shape[k]->rank, e->in[k].rank);
        for (int i = 0; i < e->in[k].rank; i++) {
            int label = e->in[k].label[i];
            int64_t d = shape[k]->dim[i];
            if (seen[label] && d != e->dim[label] && !(label >= ELLIPSIS && (d == 1 || e->dim[label] == 1)))
                return FAIL("sizes %" PRId64 " and %" PRId64 " of one label", d, e->dim[label]);
            if (!seen[label] || d != 1)
                e->dim[label] = d;
            seen[label]++;
        }
        dots = n_dots > dots ? n_dots : dots;
        s = comma ? comma + 1 : end;
    }
    if (arrow) {
        int n_dots;
        if (!read_term(arrow + 2, arrow + strlen(arrow), 0, dots, &e->out, &n_dots, why, why_size))
            return false;
    } else { /* "..." and the labels that come once, in alphabetical order */
        for (int i = 0; i < dots; i++)
            e->out.label[e->out.rank++] = ELLIPSIS + dots - 1 - i;
        for (int label = 0; label < ELLIPSIS; label++)
            if (seen[label] == 1) {
                if (e->out.rank == MEST_MAX_RANK)
                    return FAIL("the result has more than %d axes", MEST_MAX_RANK);
                e->out.label[e->out.rank++] = label;
            }
    }
    for (int i = 0; i < e->out.rank; i++) {
        if (!seen[e->out.label[i]])
            return FAIL("a label of the result is in no operand");
        for (int k = 0; k < i; k++)
            if (e->out.label[k] == e->out.label[i])
                return FAIL("a label comes twice in the result");
    }
    return true;
}

/* ---- the loops ---- */
typedef struct loops {
    int n_out, n;                                /* labels of the result first, then those that are summed */
    int64_t dim[MAX_LABELS], y[MAX_LABELS], a[MAX_LABELS], b[MAX_LABELS]; /* sizes; strides */
    int64_t rows, sums;                          /* elements of the result, terms of each */
    const mest_real *pa, *pb;                    /* pb NULL: one operand */
    mest_real *py;
    bool packed;                                 /* the result's strides are those of C order */
} loops;

static void strides_of(const term *t, const mest_shape *shape, int64_t *of_label)
{
    int64_t s = 1;
    for (int i = 0; i < MAX_LABELS; i++)
        of_label[i] = 0;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (shape->dim[i] != 1)
            of_label[t->label[i]] += s;
        s *= shape->dim[i];
    }
}

static void add_label(loops *l, int64_t dim, int64_t y, int64_t a, int64_t b)
{
    if (dim == 1)
        return;
    l->dim[l->n] = dim;
    l->y[l->n] = y;
    l->a[l->n] = a;
    l->b[l->n++] = b;
}

/* result = sum of a * b over the labels that the result lacks. x: the result's shape (axes of size 1 take no label). */
static void make_loops(loops *l, const equation *e, const term *y, const mest_shape *ys, const term *a, const mest_shape *as, const term *b, const mest_shape *bs)
{
    int64_t sy[MAX_LABELS], sa[MAX_LABELS], sb[MAX_LABELS] = { 0 };
    bool done[MAX_LABELS] = { false };
    memset(l, 0, sizeof *l);
    l->packed = true;
    strides_of(y, ys, sy);
    strides_of(a, as, sa);
    if (b)
        strides_of(b, bs, sb);
    for (int i = 0; i < y->rank; i++) {
        int label = y->label[i];
        l->packed &= !done[label];
        if (!done[label] && ys->dim[i] == e->dim[label])
            add_label(l, e->dim[label], sy[label], sa[label], sb[label]);
        done[label] |= ys->dim[i] == e->dim[label];
    }
    l->n_out = l->n;
    l->rows = l->sums = 1;
    for (int label = 0; label < MAX_LABELS; label++)
        if (!done[label] && (has(y, label) || has(a, label) || (b && has(b, label))))
            add_label(l, e->dim[label], 0, sa[label], sb[label]);
    for (int i = 0; i < l->n; i++)
        *(i < l->n_out ? &l->rows : &l->sums) *= l->dim[i];
}

static void place(const loops *l, int from, int to, int64_t index, int64_t *y, int64_t *a, int64_t *b)
{
    for (int i = to - 1; i >= from; i--) {
        int64_t x = index % l->dim[i];
        index /= l->dim[i];
        *y += x * l->y[i];
        *a += x * l->a[i];
        *b += x * l->b[i];
    }
}

enum { CHUNK = 512 };
static void loop_tile(void *context, size_t tile)
{
    const loops *l = context;
    int64_t first = (int64_t)tile * CHUNK, last = first + CHUNK < l->rows ? first + CHUNK : l->rows;
    int64_t dim = l->n > l->n_out ? l->dim[l->n - 1] : 1, sa = l->n > l->n_out ? l->a[l->n - 1] : 0, sb = l->n > l->n_out ? l->b[l->n - 1] : 0;
    for (int64_t r = first; r < last; r++) {
        int64_t y = 0, a0 = 0, b0 = 0, none = 0;
        mest_real sum = 0;
        place(l, 0, l->n_out, r, &y, &a0, &b0);
        for (int64_t k = 0; k < l->sums / (dim ? dim : 1); k++) {
            int64_t a = a0, b = b0;
            place(l, l->n_out, l->n - 1, k, &none, &a, &b);
            for (int64_t i = 0; i < dim; i++)
                sum += l->pb ? l->pa[a + i * sa] * l->pb[b + i * sb] : l->pa[a + i * sa];
        }
        l->py[y] = sum;
    }
}

static void product_offset(const void *context, int64_t outer, int64_t inner, int64_t *a, int64_t *b)
{
    const loops *l = context;
    int64_t none = 0;
    *a = *b = 0;
    place(l, 0, l->n_out, outer, &none, a, b);
    place(l, l->n_out, l->n, inner, &none, a, b);
}

/* Length of the run of labels before `end` that are one loop: strides zero in `without`, each a multiple of the next in `with`. */
static int run_before(const loops *l, int end, const int64_t *with, const int64_t *without)
{
    int n = 0;
    while (n < end && without[end - 1 - n] == 0 && with[end - 1 - n] != 0 && (n == 0 || with[end - 1 - n] == with[end - n] * l->dim[end - n]))
        n++;
    return n;
}
static int64_t span(const loops *l, int from, int n)
{
    int64_t size = 1;
    for (int i = from; i < from + n; i++)
        size *= l->dim[i];
    return size;
}

/* As batches of matrix products; false when there is none in it. */
static bool run_products(const mest_threads *threads, loops *l)
{
    if (!l->pb || !l->packed || l->n_out == 0 || l->n == l->n_out)
        return false;
    if (l->b[l->n_out - 1] == 0) { /* the columns come from the second operand */
        const mest_real *p = l->pa;
        l->pa = l->pb;
        l->pb = p;
        for (int i = 0; i < l->n; i++) {
            int64_t s = l->a[i];
            l->a[i] = l->b[i];
            l->b[i] = s;
        }
    }
    int columns = run_before(l, l->n_out, l->b, l->a), rows = run_before(l, l->n_out - columns, l->a, l->b), depth = 1;
    while (depth < l->n - l->n_out && l->a[l->n - depth - 1] == l->a[l->n - depth] * l->dim[l->n - depth] &&
           l->b[l->n - depth - 1] == l->b[l->n - depth] * l->dim[l->n - depth])
        depth++;
    if (columns == 0 && rows == 0)
        return false;
    int outer = l->n_out - columns - rows, k = l->n - depth;
    mest_dense_job job = { .m = span(l, outer, rows), .n = span(l, outer + rows, columns), .k = span(l, k, depth), .a = l->pa, .b = l->pb,
                           .a_row = rows ? l->a[outer + rows - 1] : 0, .a_col = l->a[l->n - 1], .b_row = l->b[l->n - 1],
                           .b_col = columns ? l->b[l->n_out - 1] : 0, .alpha = 1, .c = l->py, .outer = span(l, 0, outer),
                           .inner = span(l, l->n_out, k - l->n_out), .offset = product_offset };
    if (job.m * job.n < 8)
        return false;
    loops rest = *l; /* the labels around the product */
    rest.n_out = outer;
    for (int i = l->n_out; i < k; i++) {
        int to = outer + i - l->n_out;
        rest.dim[to] = l->dim[i];
        rest.a[to] = l->a[i];
        rest.b[to] = l->b[i];
    }
    rest.n = outer + k - l->n_out;
    job.context = &rest;
    mest_dense_run(threads, &job);
    return true;
}

static void run_loops(const mest_args *a, loops *l, const void *first, const void *second)
{
    l->pa = first;
    l->pb = second;
    l->py = a->out[0].data;
    if (!l->packed || l->sums == 0)
        memset(l->py, 0, a->out[0].count * sizeof *l->py);
    if (l->rows > 0 && l->sums > 0 && !run_products(a->threads, l))
        mest_parallel(a->threads, (size_t)((l->rows + CHUNK - 1) / CHUNK), loop_tile, l);
}

/* ---- the operator ---- */
static mest_status einsum_infer(mest_infer *c)
{
    const mest_shape *shape[2] = { &c->in[0]->shape, c->n_in > 1 && c->in[1] ? &c->in[1]->shape : NULL };
    char why[160];
    equation e;
    if (!read_equation(((const einsum_params *)c->params)->equation, c->n_in, shape, &e, why, sizeof why))
        return mest_infer_fail(c, c->n_in > 2 ? MEST_E_UNSUPPORTED : MEST_E_SHAPE, "%s", why);
    mest_shape y = { .rank = e.out.rank };
    for (int i = 0; i < y.rank; i++)
        y.dim[i] = e.dim[e.out.label[i]];
    return mest_infer_set(c, 0, MEST_F32, &y);
}

static mest_status einsum_forward(const mest_args *a)
{
    const mest_shape *shape[2] = { &a->in[0].type->shape, a->n_in > 1 ? &a->in[1].type->shape : NULL };
    char why[160];
    equation e;
    loops l;
    if (!read_equation(((const einsum_params *)a->params)->equation, a->n_in, shape, &e, why, sizeof why))
        return mest_run_fail(a, MEST_E_INTERNAL, "%s", why);
    make_loops(&l, &e, &e.out, &a->out[0].type->shape, &e.in[0], shape[0], a->n_in > 1 ? &e.in[1] : NULL, shape[1]);
    run_loops(a, &l, a->in[0].data, a->n_in > 1 ? a->in[1].data : NULL);
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &((const einsum_params *)c->params)->x); }

static mest_status grad_forward(const mest_args *a)
{
    const einsum_params *p = a->params;
    const mest_shape *shape[2] = { &p->x, &p->x }, *dy = &a->in[0].type->shape, *other = a->n_in > 1 ? &a->in[1].type->shape : NULL;
    int k = (int)p->operand;
    char why[160];
    equation e;
    loops l;
    if (other)
        shape[1 - k] = other;
    if (!read_equation(p->equation, a->n_in, shape, &e, why, sizeof why))
        return mest_run_fail(a, MEST_E_INTERNAL, "%s", why);
    make_loops(&l, &e, &e.in[k], &p->x, &e.out, dy, other ? &e.in[1 - k] : NULL, other);
    run_loops(a, &l, a->in[0].data, other ? a->in[1].data : NULL);
    return MEST_OK;
}

static mest_status einsum_vjp(mest_vjp *v)
{
    const mest_node *n = mest_vjp_node(v);
    for (int k = 0; k < n->n_in; k++) {
        mest_id in[2] = { mest_dout(v, 0), mest_in(v, 1 - k) };
        einsum_params *p = mest_vjp_alloc(v, sizeof *p);
        if (!p)
            return mest_vjp_nomem(v);
        p->equation = ((const einsum_params *)n->params)->equation;
        p->operand = k;
        p->x = mest_vjp_type(v, mest_in(v, k))->shape;
        MEST_TRY(mest_give_op(v, k, "mest.EinsumGrad", p, n->n_in, in));
    }
    return MEST_OK;
}

static const mest_attr einsum_attrs[] = {
    { .name = "equation", .kind = MEST_ATTR_STRING, .offset = offsetof(einsum_params, equation), .required = true }, { .name = NULL } };

const mest_op mest_ops_einsum[] = {
    { .domain = "", .name = "Einsum", .since = 12, .in_min = 1, .in_max = -1, .out_min = 1, .out_max = 1, .attrs = einsum_attrs,
      .params_bytes = sizeof(einsum_params), .infer = einsum_infer, .forward = einsum_forward, .vjp = einsum_vjp },
    { .domain = "mest", .name = "mest.EinsumGrad", .since = 1, .in_min = 1, .in_max = 2, .out_min = 1, .out_max = 1,
      .params_bytes = sizeof(einsum_params), .infer = grad_infer, .forward = grad_forward },
    { .name = NULL },
};
