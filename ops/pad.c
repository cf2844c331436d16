/* SPDX-License-Identifier: Apache-2.0 */
/* Pad(X, pads, value?, axes?; mode constant | reflect | edge | wrap): any fixed-size type; negative pads crop. pads and axes are constants.
 * mest.PadGrad(dY): every element of dY goes back to the element of X it was copied from (params: pad_places). */
#include <inttypes.h>

#include "ops/elements.h"

typedef enum pad_mode { CONSTANT, REFLECT, EDGE, WRAP, UNKNOWN } pad_mode;
typedef struct pad_params { const char *mode; } pad_params;
typedef struct pad_places {
    pad_mode mode;
    mest_shape x, y;
    int64_t before[MEST_MAX_RANK];
} pad_places;

static pad_mode mode_of(const char *text)
{
    return !text || !strcmp(text, "constant") ? CONSTANT : !strcmp(text, "reflect") ? REFLECT : !strcmp(text, "edge") ? EDGE
        : !strcmp(text, "wrap") ? WRAP : UNKNOWN;
}

/* Where output position i of an axis of n elements comes from; -1: from the constant. Reflections repeat when the pad is longer than the
 * axis. */
static int64_t source(pad_mode mode, int64_t i, int64_t before, int64_t n)
{
    int64_t at = i - before;
    if (at >= 0 && at < n)
        return at;
    switch (mode) {
    case EDGE: return at < 0 ? 0 : n - 1;
    case WRAP: return ((at % n) + n) % n;
    case REFLECT: {
        if (n == 1)
            return 0;
        int64_t period = 2 * (n - 1);
        at = ((at % period) + period) % period;
        return at < n ? at : period - at;
    }
    default: return -1;
    }
}

/* pads: n_axes befores, then n_axes afters. */
static const char *resolve(const mest_shape *x, const char *mode, const int64_t *pads, int n_pads, const int64_t *axes, int n_axes, pad_places *p)
{
    p->mode = mode_of(mode);
    p->x = p->y = *x;
    memset(p->before, 0, sizeof p->before);
    if (p->mode == UNKNOWN)
        return "the mode is none of constant, reflect, edge, wrap";
    if (n_axes < 0)
        n_axes = x->rank;
    if (n_pads != 2 * n_axes)
        return "pads needs two numbers for each axis";
    bool seen[MEST_MAX_RANK] = {false};
    for (int i = 0; i < n_axes; i++) {
        int axis = mest_axis(axes ? axes[i] : i, x->rank);
        if (axis < 0 || seen[axis])
            return "an axis is out of range or named twice";
        seen[axis] = true;
        p->before[axis] = pads[i];
        if (__builtin_add_overflow(p->y.dim[axis], pads[i], &p->y.dim[axis]) ||
            __builtin_add_overflow(p->y.dim[axis], pads[i + n_axes], &p->y.dim[axis]))
            return "sizes overflow";
        if (p->y.dim[axis] < 0)
            return "pads crop more than there is";
        if (p->mode != CONSTANT && x->dim[axis] == 0 && p->y.dim[axis] > 0)
            return "an empty axis has nothing to copy";
    }
    return NULL;
}

static mest_status pad_infer(mest_infer *c)
{
    int64_t pads[2 * MEST_MAX_RANK], axes[MEST_MAX_RANK];
    int n_pads, n_axes = -1;
    pad_places p;
    MEST_TRY(mest_infer_ints(c, 1, 2 * MEST_MAX_RANK, pads, &n_pads));
    if (c->n_in > 3 && c->in[3])
        MEST_TRY(mest_infer_ints(c, 3, MEST_MAX_RANK, axes, &n_axes));
    if (c->n_in > 2 && c->in[2]) {
        int64_t n;
        MEST_INFER_CHECK(c, c->in[2]->dtype == c->in[0]->dtype && mest_shape_count(&c->in[2]->shape, &n) && n == 1,
                         "the value must be a scalar of the input's type");
    }
    const char *why = resolve(&c->in[0]->shape, ((const pad_params *)c->params)->mode, pads, n_pads, n_axes < 0 ? NULL : axes, n_axes, &p);
    MEST_INFER_CHECK(c, !why, "%s", why);
    return mest_infer_set(c, 0, c->in[0]->dtype, &p.y);
}

typedef struct pad_job {
    const pad_places *p;
    size_t size;
    const char *x;
    char *y;
    const void *value;
    int lead;         /* leading axes without padding: tiles */
} pad_job;

/* Copies (or, for the gradient, adds back) the part of one leading index. */
static void walk(const pad_job *j, size_t tile, bool gradient)
{
    const pad_places *p = j->p;
    int rank = p->x.rank;
    int64_t inner = mest_shape_span(&p->y, j->lead, rank), from = (int64_t)tile * mest_shape_span(&p->x, j->lead, rank);
    int64_t to = (int64_t)tile * inner, index[MEST_MAX_RANK] = {0};
    int64_t width = rank > j->lead ? p->y.dim[rank - 1] : 1;
    for (int64_t row = 0; row < inner; row += width) {
        int64_t base = 0;
        bool outside = false;
        for (int i = j->lead; i < rank - 1; i++) {
            int64_t s = source(p->mode, index[i], p->before[i], p->x.dim[i]);
            outside |= s < 0;
            base = base * p->x.dim[i] + s;
        }
        for (int64_t k = 0; k < width; k++) {
            int64_t s = rank > j->lead ? source(p->mode, k, p->before[rank - 1], p->x.dim[rank - 1]) : 0;
            int64_t at = from + base * (rank > j->lead ? p->x.dim[rank - 1] : 1) + s, y = to + row + k;
            bool none = outside || s < 0;
            if (gradient && !none)
                ((mest_real *)j->y)[at] += ((const mest_real *)j->x)[y];
            else if (!gradient)
                memcpy(j->y + (size_t)y * j->size, none ? j->value : j->x + (size_t)at * j->size, j->size);
        }
        for (int i = rank - 2; i >= j->lead && ++index[i] == p->y.dim[i]; i--)
            index[i] = 0;
    }
}

static void forward_tile(void *context, size_t tile) { walk(context, tile, false); }
static void gradient_tile(void *context, size_t tile) { walk(context, tile, true); }

static void run(const mest_args *a, pad_job *j, void (*tile)(void *, size_t))
{
    const pad_places *p = j->p;
    int64_t tiles = 1, n;
    if (!mest_shape_count(&p->y, &n) || n == 0)
        return;
    while (j->lead < p->x.rank && p->before[j->lead] == 0 && p->x.dim[j->lead] == p->y.dim[j->lead])
        tiles *= p->x.dim[j->lead++];
    mest_parallel(a->threads, (size_t)tiles, tile, j);
}

/* Zero (or value) everywhere, then the part of X that stays as one strided copy. */
static void constant_forward(const mest_args *a, const pad_places *p, const void *value)
{
    size_t size = mest_dtype_size(a->out[0].type->dtype);
    mest_fill_elements(a->out[0].data, (int64_t)a->out[0].count, size, value);
    mest_spread s;
    mest_shape kept = p->x;
    int64_t in = 0, out = 0, sx = 1, sy = 1;
    for (int i = 0; i < p->x.rank; i++) {
        int64_t lo = p->before[i] < 0 ? -p->before[i] : 0, hi = p->y.dim[i] - p->before[i];
        hi = hi < p->x.dim[i] ? hi : p->x.dim[i];
        kept.dim[i] = hi > lo ? hi - lo : 0;
    }
    mest_spread_begin(&s, &kept);
    mest_spread_add(&s, &kept);
    for (int i = p->x.rank - 1; i >= 0; i--) {
        int64_t lo = p->before[i] < 0 ? -p->before[i] : 0;
        in += lo * sx;
        out += (lo + p->before[i]) * sy;
        s.stride[0][i] = sy;
        s.stride[1][i] = sx;
        sx *= p->x.dim[i];
        sy *= p->y.dim[i];
    }
    int64_t n;
    if (mest_shape_count(&kept, &n) && n > 0)
        mest_spread_copy(a->threads, &s, size, (char *)a->out[0].data + (size_t)out * size, (char *)a->in[0].data + (size_t)in * size);
}

static mest_status pad_forward(const mest_args *a)
{
    int64_t pads[2 * MEST_MAX_RANK], axes[MEST_MAX_RANK];
    static const uint64_t zero = 0;
    pad_places p;
    int n_pads = mest_read_ints(&a->in[1], 2 * MEST_MAX_RANK, pads);
    int n_axes = a->n_in > 3 && a->in[3].data ? mest_read_ints(&a->in[3], MEST_MAX_RANK, axes) : -1;
    const char *why = resolve(&a->in[0].type->shape, ((const pad_params *)a->params)->mode, pads, n_pads, n_axes < 0 ? NULL : axes, n_axes, &p);
    if (why || !mest_shape_equal(&p.y, &a->out[0].type->shape))
        return mest_run_fail(a, MEST_E_DATA, "%s", why ? why : "the pads changed");
    const void *value = a->n_in > 2 && a->in[2].data ? a->in[2].data : &zero;
    if (p.mode == CONSTANT) {
        constant_forward(a, &p, value);
        return MEST_OK;
    }
    pad_job j = {.p = &p, .size = mest_dtype_size(a->out[0].type->dtype), .x = a->in[0].data, .y = a->out[0].data, .value = value};
    run(a, &j, forward_tile);
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c) { return mest_infer_set(c, 0, MEST_F32, &((const pad_places *)c->params)->x); }

static mest_status grad_forward(const mest_args *a)
{
    memset(a->out[0].data, 0, a->out[0].count * sizeof(mest_real));
    pad_job j = {.p = a->params, .size = sizeof(mest_real), .x = a->in[0].data, .y = a->out[0].data};
    run(a, &j, gradient_tile);
    return MEST_OK;
}

static mest_status pad_vjp(mest_vjp *v)
{
    int64_t pads[2 * MEST_MAX_RANK], axes[MEST_MAX_RANK], n[2] = {0, -1};
    int64_t *into[2] = {pads, axes};
    pad_places *p = mest_vjp_alloc(v, sizeof *p);
    if (!p)
        return mest_vjp_nomem(v);
    for (int k = 0; k < 2; k++) {
        mest_id id = mest_in(v, k ? 3 : 1);
        if (id == MEST_NONE)
            continue;
        const mest_type *t = mest_vjp_type(v, id);
        const void *data = mest_vjp_data(v, id);
        if (!mest_shape_count(&t->shape, &n[k]) || (n[k] > 0 && !data))
            return mest_fail(mest_vjp_err(v), MEST_E_INTERNAL, "Pad '%s': the pads are not constant", mest_vjp_node(v)->name);
        for (int64_t i = 0; i < n[k]; i++)
            into[k][i] = mest_int_at(t->dtype, data, i);
    }
    resolve(&mest_vjp_type(v, mest_in(v, 0))->shape, ((const pad_params *)mest_vjp_node(v)->params)->mode, pads, (int)n[0], n[1] < 0 ? NULL : axes,
            (int)n[1], p);
    mest_id dy = mest_dout(v, 0);
    return mest_give_op(v, 0, "mest.PadGrad", p, 1, &dy);
}

static const mest_attr pad_attrs[] = {
    {.name = "mode", .kind = MEST_ATTR_STRING, .offset = offsetof(pad_params, mode), .text = "constant"}, {.name = NULL}};

const mest_op mest_ops_pad[] = {
    {.domain = "", .name = "Pad", .since = 2, .in_min = 2, .in_max = 4, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = pad_attrs, .params_bytes = sizeof(pad_params), .infer = pad_infer, .forward = pad_forward, .vjp = pad_vjp},
    {.domain = "mest", .name = "mest.PadGrad", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .infer = grad_infer,
     .forward = grad_forward},
    {.name = NULL},
};
