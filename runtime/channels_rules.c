/* SPDX-License-Identifier: Apache-2.0 */
/* Operators and the channels they tie together. Every channel of every value, and every position along the first two axes of every
 * parameter, is a site; a rule unites the sites that must live and die together, or marks them as staying. An operator without a rule keeps
 * the channels of all it reads and writes: nothing is guessed. A new operator is a rule and a line in the table. */
#include "runtime/channels_parts.h"

#include <string.h>

#include "ops/nn.h"
#include "runtime/match.h"

/* ---- sites ---- */

int32_t mest_finder_root(mest_finder *f, int32_t a)
{
    while (f->up[a] != a)
        a = f->up[a] = f->up[f->up[a]];
    return a;
}

void mest_finder_unite(mest_finder *f, int32_t a, int32_t b)
{
    a = mest_finder_root(f, a);
    b = mest_finder_root(f, b);
    if (a < b)
        f->up[b] = a; /* the lower one leads: MEST_SITE_STAYS always, and classes come in the order of their first site */
    else
        f->up[a] = b;
}

static const mest_shape *shape_of(const mest_finder *f, mest_id v) { return &f->g.values[v].type.shape; }

/* Number of sites of a value that is no parameter. */
int64_t mest_finder_channels(const mest_finder *f, mest_id v)
{
    const mest_value *x = &f->g.values[v];
    return x->kind == MEST_VALUE_PARAM || x->type.dtype != MEST_F32 || x->type.shape.rank < 2 ? 0 : x->type.shape.dim[1];
}

void mest_finder_stay(mest_finder *f, mest_id v)
{
    if (v == MEST_NONE)
        return;
    if (mest_finder_is_param(f, v)) {
        const int32_t p = f->g.values[v].param;
        for (int axis = 0; axis < 2; axis++)
            for (int64_t i = 0; f->param_site[p][axis] >= 0 && i < f->m->params[p].shape.dim[axis]; i++)
                mest_finder_unite(f, f->param_site[p][axis] + (int32_t)i, MEST_SITE_STAYS);
        return;
    }
    for (int64_t i = 0; f->value_site[v] >= 0 && i < mest_finder_channels(f, v); i++)
        mest_finder_unite(f, f->value_site[v] + (int32_t)i, MEST_SITE_STAYS);
}

static void stay_all(mest_finder *f, const mest_node *n)
{
    for (int i = 0; i < n->n_in; i++)
        mest_finder_stay(f, n->in[i]);
    for (int i = 0; i < n->n_out; i++)
        mest_finder_stay(f, n->out[i]);
}

/* Channel i of a and of b, for n of them. Sites -1: there is no such axis. */
static void tie_sites(mest_finder *f, int32_t a, int32_t b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        mest_finder_unite(f, a < 0 ? MEST_SITE_STAYS : a + (int32_t)i, b < 0 ? MEST_SITE_STAYS : b + (int32_t)i);
}

static bool tie(mest_finder *f, mest_id a, mest_id b)
{
    const int64_t n = mest_finder_channels(f, a);
    if (n == 0 || n != mest_finder_channels(f, b))
        return false;
    tie_sites(f, f->value_site[a], f->value_site[b], n);
    return true;
}

/* A parameter with one number (or slice) a channel along `axis`. */
static bool tie_vector(mest_finder *f, mest_id v, int axis, mest_id to, float fresh, float gone)
{
    if (v == MEST_NONE)
        return true;
    if (!mest_finder_is_param(f, v))
        return false;
    const int32_t p = f->g.values[v].param;
    const mest_param *param = &f->m->params[p];
    if (axis < 0 || axis > 1 || axis >= param->shape.rank || param->shape.dim[axis] != mest_finder_channels(f, to) || param->role == MEST_ROLE_CONSTANT)
        return false;
    for (int i = 0; i < param->shape.rank; i++)
        if (i != axis && param->shape.dim[i] != 1)
            return false;
    f->axes[p].kind = MEST_CHANNEL_VECTOR;
    f->axes[p].fresh = fresh;
    f->axes[p].gone = gone;
    f->seen[p] = true;
    tie_sites(f, f->param_site[p][axis], f->value_site[to], param->shape.dim[axis]);
    return true;
}

/* ---- rules: false keeps all channels of the node ---- */

/* Output and every operand have the same channels; operands that are broadcast along them, and scalars, are no matter. */
static bool each(mest_finder *f, const mest_node *n)
{
    const mest_id y = n->out[0];
    const mest_shape *ys = shape_of(f, y);
    const bool product = mest_is_op(n, "Mul") || mest_is_op(n, "Div");
    if (mest_finder_channels(f, y) == 0)
        return false;
    for (int i = 0; i < n->n_in; i++) {
        const mest_id x = n->in[i];
        if (x == MEST_NONE)
            continue;
        const mest_value *v = &f->g.values[x];
        const mest_shape *xs = &v->type.shape;
        const int axis = 1 - (ys->rank - xs->rank); /* where axis 1 of Y is in X */
        int64_t count;
        if (axis < 0 || axis >= xs->rank || xs->dim[axis] == 1)
            continue;
        if (v->type.dtype != MEST_F32 || !mest_shape_count(xs, &count))
            return false;
        if (v->kind == MEST_VALUE_PARAM) {
            if (!tie_vector(f, x, axis, y, mest_is_op(n, "PRelu") ? 0.25f : product ? 1.0f : 0.0f, 0))
                return false;
        } else if (v->kind == MEST_VALUE_CONST || axis != 1 || !tie(f, x, y)) {
            return false;
        }
    }
    return true;
}

static bool same(mest_finder *f, const mest_node *n) { return n->n_in > 0 && tie(f, n->in[0], n->out[0]); }

static bool batch_norm(mest_finder *f, const mest_node *n)
{
    static const float fresh[5] = {0, 1, 0, 0, 1}, gone[5] = {0, 0, 0, 0, 1};
    for (int i = 1; i < n->n_out; i++)
        if (n->out[i] != MEST_NONE)
            return false;
    bool ok = n->n_in == 5 && tie(f, n->in[0], n->out[0]);
    for (int i = 1; i < 5 && ok; i++)
        ok = tie_vector(f, n->in[i], 0, n->out[0], fresh[i], gone[i]);
    return ok;
}

/* The two axes of a layer's weight and its bias. */
static bool layer(mest_finder *f, mest_id x, mest_id w, mest_id bias, mest_id y, int out_axis)
{
    if (!mest_finder_is_param(f, w))
        return false;
    const int32_t p = f->g.values[w].param;
    const mest_param *param = &f->m->params[p];
    if ((f->seen[p] && (f->axes[p].kind != MEST_CHANNEL_WEIGHT || f->axes[p].out_axis != out_axis)) ||
        param->shape.dim[out_axis] != mest_finder_channels(f, y) || param->shape.dim[1 - out_axis] != mest_finder_channels(f, x))
        return false;
    f->axes[p].kind = MEST_CHANNEL_WEIGHT;
    f->axes[p].out_axis = (int8_t)out_axis;
    f->seen[p] = true;
    tie_sites(f, f->param_site[p][out_axis], f->value_site[y], param->shape.dim[out_axis]);
    tie_sites(f, f->param_site[p][1 - out_axis], f->value_site[x], param->shape.dim[1 - out_axis]);
    return tie_vector(f, bias, bias != MEST_NONE ? shape_of(f, bias)->rank - 1 : 0, y, 0, 0);
}

static mest_id input(const mest_node *n, int i) { return i < n->n_in ? n->in[i] : MEST_NONE; }

static bool conv(mest_finder *f, const mest_node *n)
{
    const mest_conv_params *c = n->params;
    const int64_t group = c->group > 0 ? c->group : 1;
    if (group == 1)
        return layer(f, n->in[0], n->in[1], input(n, 2), n->out[0], mest_is_op(n, "ConvTranspose") ? 1 : 0);
    const int64_t channels = mest_finder_channels(f, n->in[0]);
    if (mest_is_op(n, "ConvTranspose") || group != channels || mest_finder_channels(f, n->out[0]) != channels || !mest_finder_is_param(f, n->in[1]))
        return false;
    const int32_t p = f->g.values[n->in[1]].param;
    if (f->seen[p])
        return false;
    f->seen[p] = true;
    f->axes[p].kind = MEST_CHANNEL_DEPTHWISE;
    tie_sites(f, f->param_site[p][0], f->value_site[n->out[0]], channels);
    return tie(f, n->in[0], n->out[0]) && tie_vector(f, input(n, 2), 0, n->out[0], 0, 0);
}

static bool product(mest_finder *f, const mest_node *n)
{
    const mest_gemm_params *g = mest_is_op(n, "MatMul") ? NULL : n->params;
    if (shape_of(f, n->in[0])->rank != 2 || shape_of(f, n->out[0])->rank != 2 || (g && g->trans_a))
        return false;
    return layer(f, n->in[0], n->in[1], input(n, 2), n->out[0], g && g->trans_b ? 0 : 1);
}

/* Concat reads parts and writes the whole, Split the other way round; along axis 1, or not along it. */
static bool parts(mest_finder *f, mest_id whole, const mest_id *part, int n)
{
    const mest_shape *w = shape_of(f, whole);
    int64_t sum = 0;
    bool along = true, across = true;
    for (int i = 0; i < n; i++) {
        const mest_shape *s = part[i] == MEST_NONE ? NULL : shape_of(f, part[i]);
        if (!s || s->rank != w->rank || mest_finder_channels(f, part[i]) == 0)
            return false;
        sum += s->dim[1];
        across &= s->dim[1] == w->dim[1];
        for (int k = 0; k < s->rank; k++)
            along &= k == 1 || s->dim[k] == w->dim[k];
    }
    along &= sum == w->dim[1];
    if (mest_finder_channels(f, whole) == 0 || along == (across && n > 1))
        return false;
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        tie_sites(f, f->value_site[part[i]], f->value_site[whole] < 0 ? -1 : f->value_site[whole] + (int32_t)at, shape_of(f, part[i])->dim[1]);
        at += along ? shape_of(f, part[i])->dim[1] : 0;
    }
    return true;
}

static bool concat(mest_finder *f, const mest_node *n) { return parts(f, n->out[0], n->in, n->n_in); }
static bool split(mest_finder *f, const mest_node *n) { return parts(f, n->in[0], n->out, n->n_out); }

/* Elements keep their order: [N, C, ...] stays [N, C, ...], or becomes [N, C * ...] with the positions of a channel side by side. */
static bool reshape(mest_finder *f, const mest_node *n)
{
    const mest_id x = n->in[0], y = n->out[0];
    const mest_shape *a = shape_of(f, x), *b = shape_of(f, y);
    const int64_t c = mest_finder_channels(f, x), d = mest_finder_channels(f, y);
    if (c == 0 || d == 0 || a->dim[0] != b->dim[0])
        return false;
    if (c == d)
        return tie(f, x, y);
    if (b->rank != 2 || d % c)
        return false;
    for (int64_t i = 0; i < d; i++)
        mest_finder_unite(f, f->value_site[x] + (int32_t)(i / (d / c)), f->value_site[y] + (int32_t)i);
    return true;
}

/* Over axes behind the second one. */
static bool reduce(mest_finder *f, const mest_node *n)
{
    const mest_id a = input(n, 1);
    if (a == MEST_NONE || f->g.values[a].kind != MEST_VALUE_CONST || f->g.values[a].type.dtype != MEST_I64)
        return false;
    int64_t count;
    if (!mest_shape_count(shape_of(f, a), &count) || count == 0)
        return false;
    for (int64_t i = 0; i < count; i++) {
        const int axis = mest_axis(((const int64_t *)f->g.values[a].data)[i], shape_of(f, n->in[0])->rank);
        if (axis < 2)
            return false;
    }
    return tie(f, n->in[0], n->out[0]);
}

static const struct {
    const char *op;
    bool (*rule)(mest_finder *f, const mest_node *n);
} rules[] = {
    {"Conv", conv}, {"ConvTranspose", conv}, {"Gemm", product}, {"MatMul", product}, {"mest.Linear", product}, {"BatchNormalization", batch_norm},
    {"MaxPool", same}, {"AveragePool", same}, {"LpPool", same}, {"GlobalAveragePool", same}, {"GlobalMaxPool", same}, {"GlobalLpPool", same},
    {"Resize", same}, {"Pad", same}, {"PRelu", each}, {"Pow", each}, {"Mean", each}, {"Concat", concat}, {"Split", split}, {"Identity", reshape},
    {"Reshape", reshape}, {"Flatten", reshape}, {"Squeeze", reshape}, {"Unsqueeze", reshape}, {"ReduceMean", reduce}, {"ReduceSum", reduce},
    {"ReduceMax", reduce}, {"ReduceMin", reduce}, {"ReduceL2", reduce},
};

void mest_finder_apply(mest_finder *f, const mest_node *n)
{
    bool ok = false, known = false;
    for (size_t i = 0; i < sizeof rules / sizeof *rules && !known; i++)
        if (!strcmp(n->op->name, rules[i].op)) {
            known = true;
            ok = n->out[0] != MEST_NONE && rules[i].rule(f, n);
        }
    if (!known && (n->op->flags & MEST_OP_ELEMENTWISE))
        ok = each(f, n);
    if (ok)
        return;
    stay_all(f, n);
    if (!f->why && !mest_is_op(n, "Shape"))
        f->why = mest_region_printf(f->region, "%s '%s'", n->op->name, n->name);
}
