/* SPDX-License-Identifier: Apache-2.0 */
/* What operators do with the samples, see runtime/rebatch.h. Shapes are those at the file's batch. A rule finds the samples in inputs, says
 * where they are in outputs, and refuses what would let one sample look at another. A new operator is a line in the table. */
#include <string.h>

#include "runtime/rebatch_parts.h"

/* ---- operands ---- */
static bool attribute(const mest_node *n, const char *name, int64_t *v)
{
    for (const mest_attr *a = n->op->attrs; a && a->name; a++)
        if (!strcmp(a->name, name) && a->kind == MEST_ATTR_INT) {
            memcpy(v, (const char *)n->params + a->offset, sizeof *v);
            return true;
        }
    return false;
}
static const void *attribute_at(const mest_node *n, const char *name)
{
    for (const mest_attr *a = n->op->attrs; a && a->name; a++)
        if (!strcmp(a->name, name))
            return (const char *)n->params + a->offset;
    return NULL;
}

/* Element i of an input that is a constant of integers; *n of them, 0 where it is absent, -1 where it is none. */
static int64_t int_in(const mest_rebatcher *r, mest_id node, int k, int64_t i, int64_t *n)
{
    const mest_id v = mest_rebatch_in(r, node, k);
    const mest_value *x = v == MEST_NONE ? NULL : &r->at.values[v];
    *n = x ? -1 : 0;
    if (!x || x->kind != MEST_VALUE_CONST || (x->type.dtype != MEST_I64 && x->type.dtype != MEST_I32) || !mest_shape_count(&x->type.shape, n) || i >= *n)
        return 0;
    return x->type.dtype == MEST_I32 ? ((const int32_t *)x->data)[i] : ((const int64_t *)x->data)[i];
}

/* An operand of a broadcast result of this rank, whose axis p holds the samples: it has them there, too, or is the same for all. */
static bool operand(mest_rebatcher *r, mest_id node, int k, int rank, int p, int64_t outer, int64_t size)
{
    const mest_spot *s = mest_rebatch_spot(r, node, k);
    if (mest_rebatch_in(r, node, k) == MEST_NONE)
        return true;
    const mest_shape *x = mest_rebatch_shape_in(r, node, k);
    const int axis = p - (rank - x->rank);
    if (s->axis >= 0)
        return (s->axis == axis && s->outer == outer && x->dim[axis] == size) || mest_rebatch_mixes(r, node);
    if (s->by_size && mest_shape_equal(x, &r->to.values[mest_rebatch_in(r, node, k)].type.shape))
        return mest_rebatch_refuse(r, node, "has '%.160s', which depends on the size of the batch", r->to.values[mest_rebatch_in(r, node, k)].name);
    if (axis < 0 || (x->dim[axis] == 1 && !s->by_size))
        return true;
    if (x->dim[axis] != size)
        return mest_rebatch_mixes(r, node);
    const mest_spot to = {.axis = axis, .outer = outer};
    return mest_rebatch_lift(r, node, k, &to);
}

/* The first input from k on with samples; its axis in a result of this rank. */
static int first_with(const mest_rebatcher *r, mest_id node, int k, int rank, int *axis)
{
    for (; k < r->at.nodes[node].n_in; k++)
        if (mest_rebatch_spot(r, node, k)->axis >= 0) {
            *axis = mest_rebatch_spot(r, node, k)->axis + rank - mest_rebatch_shape_in(r, node, k)->rank;
            return k;
        }
    return -1;
}

/* ---- rules ---- */

/* Elementwise with broadcasting, any number of operands. */
static bool each(mest_rebatcher *r, mest_id node)
{
    const mest_node *n = &r->to.nodes[node];
    const int rank = mest_rebatch_shape(r, n->out[0])->rank;
    int axis = 0;
    const int first = first_with(r, node, 0, rank, &axis), n_in = n->n_in;
    const int64_t outer = mest_rebatch_spot(r, node, first)->outer, size = mest_rebatch_shape_in(r, node, first)->dim[mest_rebatch_spot(r, node, first)->axis];
    if (axis < 0 || mest_rebatch_shape(r, n->out[0])->dim[axis] != size)
        return mest_rebatch_mixes(r, node);
    for (int k = 0; k < n_in; k++)
        if (!operand(r, node, k, rank, axis, outer, size))
            return false;
    for (int k = 0; k < r->at.nodes[node].n_out; k++)
        mest_rebatch_put(r, node, k, axis, outer);
    return true;
}

/* Outputs like input 0, whatever the other inputs, which are the same for all. */
static bool like(mest_rebatcher *r, mest_id node)
{
    const mest_spot s = *mest_rebatch_spot(r, node, 0);
    if (s.axis < 0 || !mest_rebatch_plain(r, node, 1))
        return mest_rebatch_mixes(r, node);
    for (int k = 0; k < r->at.nodes[node].n_out; k++)
        mest_rebatch_put(r, node, k, s.axis, s.outer);
    return true;
}

static bool cast_like(mest_rebatcher *r, mest_id node)
{
    if (mest_rebatch_spot(r, node, 0)->axis >= 0)
        mest_rebatch_put(r, node, 0, mest_rebatch_spot(r, node, 0)->axis, mest_rebatch_spot(r, node, 0)->outer);
    return true;
}

/* Image by image: the samples are along axis 0 of input 0 and of output 0. */
static bool images(mest_rebatcher *r, mest_id node)
{
    const mest_node *n = &r->to.nodes[node];
    const mest_spot s = *mest_rebatch_spot(r, node, 0);
    if (s.axis != 0 || !mest_rebatch_plain(r, node, 1))
        return mest_rebatch_mixes(r, node);
    if (n->n_out > 1 && n->out[1] != MEST_NONE && strcmp(n->op->name, "BatchNormalization"))
        return mest_rebatch_refuse(r, node, "has an output 1 that counts across the batch");
    mest_rebatch_put(r, node, 0, 0, s.outer);
    return true;
}

/* All axes from attribute `axis` on belong together; what comes before does not. */
static bool rows_from(mest_rebatcher *r, mest_id node)
{
    const mest_node *n = &r->to.nodes[node];
    int64_t axis = -1, flat = 1;
    attribute(n, "axis", &axis);
    if (attribute(n, "mest.flatten", &flat) && !flat) { /* one axis only */
        const int at = mest_axis(axis, mest_rebatch_shape_in(r, node, 0)->rank);
        return at != mest_rebatch_spot(r, node, 0)->axis ? like(r, node) : mest_rebatch_mixes(r, node);
    }
    if (axis < 0)
        axis += mest_rebatch_shape_in(r, node, 0)->rank;
    return mest_rebatch_spot(r, node, 0)->axis < axis ? like(r, node) : mest_rebatch_mixes(r, node);
}

/* Along one axis, by attribute: TopK, LpNormalization; all else stays. */
static bool along(mest_rebatcher *r, mest_id node)
{
    int64_t axis = -1;
    attribute(&r->to.nodes[node], "axis", &axis);
    return mest_axis(axis, mest_rebatch_shape_in(r, node, 0)->rank) != mest_rebatch_spot(r, node, 0)->axis ? like(r, node) : mest_rebatch_mixes(r, node);
}

static bool cumulate(mest_rebatcher *r, mest_id node)
{
    int64_t n;
    const int64_t axis = int_in(r, node, 1, 0, &n);
    return n == 1 && mest_axis(axis, mest_rebatch_shape_in(r, node, 0)->rank) != mest_rebatch_spot(r, node, 0)->axis ? like(r, node) : mest_rebatch_mixes(r, node);
}

static bool triangle(mest_rebatcher *r, mest_id node)
{
    return mest_rebatch_spot(r, node, 0)->axis < mest_rebatch_shape_in(r, node, 0)->rank - 2 ? like(r, node) : mest_rebatch_mixes(r, node);
}

/* What is left of the samples' axis when others are reduced; -1: it is reduced itself. */
static bool reduced(mest_rebatcher *r, mest_id node, const bool *gone, bool keep)
{
    const mest_spot s = *mest_rebatch_spot(r, node, 0);
    int axis = s.axis;
    if (s.axis < 0 || gone[s.axis])
        return mest_rebatch_mixes(r, node);
    for (int i = 0; i < s.axis && !keep; i++)
        axis -= gone[i];
    mest_rebatch_put(r, node, 0, axis, s.outer);
    return true;
}

static bool reduce(mest_rebatcher *r, mest_id node)
{
    const mest_node *n = &r->to.nodes[node];
    const int rank = mest_rebatch_shape_in(r, node, 0)->rank;
    bool gone[MEST_MAX_RANK] = {false};
    int64_t count = 0, keep = 1, noop = 0;
    if (!mest_rebatch_plain(r, node, 1))
        return false;
    attribute(n, "keepdims", &keep);
    attribute(n, "noop_with_empty_axes", &noop);
    int_in(r, node, 1, 0, &count);
    if (count < 0 || (count == 0 && !noop))
        return mest_rebatch_mixes(r, node);
    for (int64_t i = 0; i < count; i++) {
        const int axis = mest_axis(int_in(r, node, 1, i, &count), rank);
        if (axis < 0)
            return mest_rebatch_mixes(r, node);
        gone[axis] = true;
    }
    return reduced(r, node, gone, keep != 0);
}

static bool arg(mest_rebatcher *r, mest_id node)
{
    const mest_node *n = &r->to.nodes[node];
    bool gone[MEST_MAX_RANK] = {false};
    int64_t axis = 0, keep = 1;
    attribute(n, "axis", &axis);
    attribute(n, "keepdims", &keep);
    const int at = mest_axis(axis, mest_rebatch_shape_in(r, node, 0)->rank);
    if (at < 0)
        return mest_rebatch_mixes(r, node);
    gone[at] = true;
    return reduced(r, node, gone, keep != 0);
}

static bool transpose(mest_rebatcher *r, mest_id node)
{
    const mest_spot s = *mest_rebatch_spot(r, node, 0);
    const int rank = mest_rebatch_shape_in(r, node, 0)->rank;
    const mest_ints *perm = attribute_at(&r->to.nodes[node], "perm");
    for (int i = 0; i < rank; i++)
        if ((perm && perm->n == rank ? mest_axis(perm->v[i], rank) : rank - 1 - i) == s.axis) {
            mest_rebatch_put(r, node, 0, i, s.outer);
            return true;
        }
    return mest_rebatch_mixes(r, node);
}

/* Nothing happens along the axis of the samples: Tile with 1, Pad with 0 there. Input k has one number an axis, Pad's two. */
static bool untouched(mest_rebatcher *r, mest_id node)
{
    const bool pad = !strcmp(r->to.nodes[node].op->name, "Pad");
    const mest_spot *s = mest_rebatch_spot(r, node, 0);
    const int rank = mest_rebatch_shape_in(r, node, 0)->rank;
    int64_t n = 0, n_axes = 0;
    if (!mest_rebatch_plain(r, node, 1) || s->axis < 0)
        return mest_rebatch_mixes(r, node);
    int_in(r, node, 1, 0, &n);
    int_in(r, node, 3, 0, &n_axes);
    const int64_t parts = pad ? n / 2 : n;
    if (n < 0 || (pad && n_axes < 0) || parts != (pad && n_axes ? n_axes : rank))
        return mest_rebatch_mixes(r, node);
    for (int64_t i = 0; i < parts; i++) {
        const int axis = pad && n_axes ? mest_axis(int_in(r, node, 3, i, &n_axes), rank) : (int)i;
        if (axis == s->axis && (pad ? int_in(r, node, 1, i, &n) || int_in(r, node, 1, i + parts, &n) : int_in(r, node, 1, i, &n) != 1))
            return mest_rebatch_mixes(r, node);
    }
    return like(r, node);
}

static bool slice(mest_rebatcher *r, mest_id node)
{
    const mest_spot *s = mest_rebatch_spot(r, node, 0);
    int64_t n = 0, n_axes = 0, n_steps = 0;
    if (!mest_rebatch_plain(r, node, 1) || s->axis < 0)
        return mest_rebatch_mixes(r, node);
    int_in(r, node, 1, 0, &n);
    int_in(r, node, 3, 0, &n_axes);
    int_in(r, node, 4, 0, &n_steps);
    if (n < 0 || n_axes < 0 || n_steps < 0)
        return mest_rebatch_mixes(r, node);
    for (int64_t i = 0; i < n; i++) {
        const int axis = n_axes ? mest_axis(int_in(r, node, 3, i, &n_axes), mest_rebatch_shape_in(r, node, 0)->rank) : (int)i;
        const bool all = int_in(r, node, 1, i, &n) == 0 && int_in(r, node, 2, i, &n) >= INT32_MAX && (!n_steps || int_in(r, node, 4, i, &n_steps) == 1);
        if (axis == s->axis && !all)
            return mest_rebatch_mixes(r, node);
    }
    return like(r, node);
}

static bool gather(mest_rebatcher *r, mest_id node)
{
    const mest_spot x = *mest_rebatch_spot(r, node, 0), at = *mest_rebatch_spot(r, node, 1);
    int64_t attr = 0;
    attribute(&r->to.nodes[node], "axis", &attr);
    const int axis = mest_axis(attr, mest_rebatch_shape_in(r, node, 0)->rank);
    if (x.by_size || at.by_size || (x.axis >= 0 && at.axis >= 0) || axis == x.axis || axis < 0)
        return mest_rebatch_mixes(r, node);
    if (at.axis >= 0)
        mest_rebatch_put(r, node, 0, axis + at.axis, at.outer);
    else
        mest_rebatch_put(r, node, 0, x.axis < axis ? x.axis : x.axis - 1 + mest_rebatch_shape_in(r, node, 1)->rank, x.outer);
    return true;
}

/* Operands of equal rank with the samples along one axis, which is not the attribute's: Concat, GatherElements, ScatterElements. */
static bool side_by_side(mest_rebatcher *r, mest_id node)
{
    int64_t attr = 0;
    int at = 0;
    attribute(&r->to.nodes[node], "axis", &attr);
    const int rank = mest_rebatch_shape(r, r->to.nodes[node].out[0])->rank, first = first_with(r, node, 0, rank, &at);
    const mest_spot s = *mest_rebatch_spot(r, node, first);
    const int64_t size = mest_rebatch_shape_in(r, node, first)->dim[s.axis];
    if (mest_axis(attr, rank) == at)
        return mest_rebatch_mixes(r, node);
    for (int k = 0; k < r->at.nodes[node].n_in; k++) {
        const mest_spot *x = mest_rebatch_spot(r, node, k);
        if (mest_rebatch_shape_in(r, node, k)->dim[s.axis] != size || (x->axis >= 0 && (x->axis != s.axis || x->outer != s.outer)))
            return mest_rebatch_mixes(r, node);
        if (x->axis < 0 && !mest_rebatch_lift(r, node, k, &s))
            return false;
    }
    mest_rebatch_put(r, node, 0, s.axis, s.outer);
    return true;
}

static bool one_hot(mest_rebatcher *r, mest_id node)
{
    int64_t attr = -1;
    const mest_spot s = *mest_rebatch_spot(r, node, 0);
    attribute(&r->to.nodes[node], "axis", &attr);
    const int axis = mest_axis(attr, mest_rebatch_shape_in(r, node, 0)->rank + 1);
    if (!mest_rebatch_plain(r, node, 1) || s.axis < 0)
        return mest_rebatch_mixes(r, node);
    mest_rebatch_put(r, node, 0, s.axis < axis ? s.axis : s.axis + 1, s.outer);
    return true;
}

/* A product of [..,M,K] and [..,K,N]: batch axes broadcast, K has no samples. */
static bool product(mest_rebatcher *r, mest_id node)
{
    const mest_shape *a = mest_rebatch_shape_in(r, node, 0), *b = mest_rebatch_shape_in(r, node, 1);
    const mest_spot sa = *mest_rebatch_spot(r, node, 0), sb = *mest_rebatch_spot(r, node, 1);
    const int rank = a->rank > b->rank ? a->rank : b->rank;
    if (b->rank == 1 || !strcmp(r->to.nodes[node].op->name, "mest.Linear")) {
        if (sb.axis >= 0 || sb.by_size || sa.axis == a->rank - 1)
            return mest_rebatch_mixes(r, node);
        mest_rebatch_put(r, node, 0, sa.axis, sa.outer);
        return true;
    }
    if (a->rank < 2 || sa.axis == a->rank - 1 || sb.axis == b->rank - 2)
        return mest_rebatch_mixes(r, node);
    const bool rows = sa.axis == a->rank - 2, cols = sb.axis == b->rank - 1;
    if (rows || cols) {
        if ((rows && (sb.axis >= 0 || sb.by_size)) || (cols && (sa.axis >= 0 || sa.by_size)))
            return mest_rebatch_mixes(r, node);
        mest_rebatch_put(r, node, 0, rows ? rank - 2 : rank - 1, rows ? sa.outer : sb.outer);
        return true;
    }
    const bool first = sa.axis >= 0;
    const int axis = first ? sa.axis + rank - a->rank : sb.axis + rank - b->rank;
    const int64_t outer = first ? sa.outer : sb.outer, size = first ? a->dim[sa.axis] : b->dim[sb.axis];
    if (mest_rebatch_shape(r, r->to.nodes[node].out[0])->dim[axis] != size)
        return mest_rebatch_mixes(r, node);
    mest_rebatch_put(r, node, 0, axis, outer);
    return operand(r, node, 0, rank, axis, outer, size) && operand(r, node, 1, rank, axis, outer, size);
}

static bool gemm(mest_rebatcher *r, mest_id node)
{
    int64_t ta = 0, tb = 0;
    const mest_spot a = *mest_rebatch_spot(r, node, 0), b = *mest_rebatch_spot(r, node, 1);
    attribute(&r->to.nodes[node], "transA", &ta);
    attribute(&r->to.nodes[node], "transB", &tb);
    const bool rows = a.axis >= 0;
    if (a.by_size || b.by_size || (rows && b.axis >= 0) || (rows && a.axis != (ta ? 1 : 0)) || (b.axis >= 0 && b.axis != (tb ? 0 : 1)) || (!rows && b.axis < 0))
        return mest_rebatch_mixes(r, node);
    const mest_spot *s = rows ? &a : &b;
    const int64_t size = mest_rebatch_shape_in(r, node, rows ? 0 : 1)->dim[s->axis];
    mest_rebatch_put(r, node, 0, rows ? 0 : 1, s->outer);
    return operand(r, node, 2, 2, rows ? 0 : 1, s->outer, size);
}

/* Letters of one operand of an equation; false where there are others than plain ones. */
static bool letters(const char **at, char *out, int rank)
{
    int n = 0;
    for (; **at && **at != ',' && **at != '-'; (*at)++) {
        if (**at == ' ')
            continue;
        if (**at == '.' || n == rank)
            return false;
        out[n++] = **at;
    }
    out[n] = 0;
    return n == rank;
}

static bool einsum(mest_rebatcher *r, mest_id node)
{
    const char *const *text = attribute_at(&r->to.nodes[node], "equation");
    const char *at = text ? *text : NULL;
    char term[MEST_MAX_RANK + 1], letter = 0;
    const mest_spot *s = NULL;
    int64_t size = 0;
    for (int pass = 0; pass < 2 && at; pass++) {
        at = *text;
        for (int k = 0; k < r->at.nodes[node].n_in; k++, at += *at == ',') {
            const mest_spot *x = mest_rebatch_spot(r, node, k);
            if (!letters(&at, term, mest_rebatch_shape_in(r, node, k)->rank))
                return mest_rebatch_refuse(r, node, "has an equation with '...'");
            if (pass == 0 && x->axis >= 0 && !letter) {
                letter = term[x->axis];
                s = x;
                size = mest_rebatch_shape_in(r, node, k)->dim[x->axis];
            }
            const char *where = letter ? strchr(term, letter) : NULL;
            if (pass == 0 || (!where && x->axis < 0))
                continue;
            if (!where || strchr(where + 1, letter) || (x->axis >= 0 && (x->axis != where - term || x->outer != s->outer)))
                return mest_rebatch_mixes(r, node);
            const mest_spot to = {.axis = (int32_t)(where - term), .outer = s->outer};
            if (x->axis < 0 && (mest_rebatch_shape_in(r, node, k)->dim[to.axis] != size || !mest_rebatch_lift(r, node, k, &to)))
                return mest_rebatch_mixes(r, node);
        }
    }
    if (!at || at[0] != '-' || at[1] != '>')
        return mest_rebatch_refuse(r, node, "has an equation without '->'");
    at += 2;
    const char *where = letters(&at, term, mest_rebatch_shape(r, r->to.nodes[node].out[0])->rank) ? strchr(term, letter) : NULL;
    if (!where || strchr(where + 1, letter))
        return mest_rebatch_mixes(r, node);
    mest_rebatch_put(r, node, 0, (int)(where - term), s->outer);
    return true;
}

/* An operand with the samples along `axis`: lengths and first states of recurrent layers, masks. */
static bool beside(mest_rebatcher *r, mest_id node, int k, int axis, int64_t outer)
{
    const mest_spot *s = mest_rebatch_spot(r, node, k), to = {.axis = axis, .outer = outer};
    if (mest_rebatch_in(r, node, k) == MEST_NONE)
        return true;
    if (s->axis < 0)
        return axis < mest_rebatch_shape_in(r, node, k)->rank ? mest_rebatch_lift(r, node, k, &to) : mest_rebatch_mixes(r, node);
    return (s->axis == axis && s->outer == outer) || mest_rebatch_mixes(r, node);
}

static bool recurrent(mest_rebatcher *r, mest_id node)
{
    const bool own = !strcmp(r->to.nodes[node].op->name, "mest.Recurrent"); /* R B lens h c; workspace Y Y_h Y_c */
    const int lens = own ? 3 : 4, y = own ? 1 : 0;
    int64_t layout = 0;
    attribute(&r->to.nodes[node], "layout", &layout);
    const int axis = layout ? 0 : 1;
    const mest_spot x = *mest_rebatch_spot(r, node, 0);
    for (int k = 1; k < lens; k++)
        if (mest_rebatch_spot(r, node, k)->axis >= 0 || mest_rebatch_spot(r, node, k)->by_size)
            return mest_rebatch_mixes(r, node);
    if (x.axis != axis || mest_rebatch_spot(r, node, lens + 3)->axis >= 0)
        return mest_rebatch_mixes(r, node);
    if (!beside(r, node, lens, 0, x.outer) || !beside(r, node, lens + 1, axis, x.outer) || !beside(r, node, lens + 2, axis, x.outer))
        return false;
    if (own)
        mest_rebatch_put(r, node, 0, MEST_REBATCH_OWN, 1);
    mest_rebatch_put(r, node, y, layout ? 0 : 2, x.outer);
    mest_rebatch_put(r, node, y + 1, axis, x.outer);
    mest_rebatch_put(r, node, y + 2, axis, x.outer);
    return true;
}

static bool attention(mest_rebatcher *r, mest_id node)
{
    const mest_spot q = *mest_rebatch_spot(r, node, 0);
    const mest_id mask = mest_rebatch_in(r, node, 3);
    for (int k = 4; k < r->at.nodes[node].n_in; k++)
        if (mest_rebatch_in(r, node, k) != MEST_NONE)
            return mest_rebatch_refuse(r, node, "has an input %d", k);
    for (int k = 1; k < 3; k++)
        if (!beside(r, node, k, 0, q.outer))
            return false;
    const int64_t size = mest_rebatch_shape_in(r, node, 0)->dim[0];
    if (q.axis != 0 || (mask != MEST_NONE && !operand(r, node, 3, 4, 0, q.outer, size)))
        return mest_rebatch_mixes(r, node);
    mest_rebatch_put(r, node, 0, 0, q.outer);
    return true;
}

static bool resize(mest_rebatcher *r, mest_id node)
{
    const mest_spot s = *mest_rebatch_spot(r, node, 0);
    const mest_shape *x = mest_rebatch_shape_in(r, node, 0), *y = mest_rebatch_shape(r, r->to.nodes[node].out[0]);
    const mest_ints *axes = attribute_at(&r->to.nodes[node], "axes");
    int64_t n = 0;
    if (s.axis < 0 || y->dim[s.axis] != x->dim[s.axis])
        return mest_rebatch_mixes(r, node);
    int_in(r, node, 3, 0, &n);
    mest_rebatch_put(r, node, 0, s.axis, s.outer);
    if (n <= 0 || (axes && axes->n))
        return mest_rebatch_plain(r, node, 1);
    const mest_shape to = mest_rebatch_scaled(r, y, &s);
    return mest_rebatch_ints(r, node, 3, to.rank, to.dim);
}

static bool pairs(mest_rebatcher *r, mest_id node) /* GridSample: an image and its grid */
{
    if (mest_rebatch_spot(r, node, 0)->axis > 0 || mest_rebatch_spot(r, node, 1)->axis > 0)
        return mest_rebatch_mixes(r, node);
    const int64_t outer = mest_rebatch_spot(r, node, mest_rebatch_spot(r, node, 0)->axis == 0 ? 0 : 1)->outer;
    mest_rebatch_put(r, node, 0, 0, outer);
    return beside(r, node, 0, 0, outer) && beside(r, node, 1, 0, outer);
}

static const struct {
    const char *op;
    bool (*rule)(mest_rebatcher *r, mest_id node);
} rules[] = {
    {"Abs", each}, {"Acos", each}, {"Acosh", each}, {"Add", each}, {"And", each}, {"ArgMax", arg}, {"ArgMin", arg}, {"Asin", each},
    {"Asinh", each}, {"Atan", each}, {"Atanh", each}, {"Attention", attention}, {"AveragePool", images}, {"BatchNormalization", images},
    {"Bernoulli", each}, {"BitShift", each}, {"BitwiseAnd", each}, {"BitwiseNot", each}, {"BitwiseOr", each}, {"BitwiseXor", each}, {"Cast", each},
    {"CastLike", cast_like}, {"Ceil", each}, {"Celu", each}, {"Clip", each}, {"Col2Im", images}, {"Concat", side_by_side}, {"Conv", images},
    {"ConvTranspose", images}, {"Cos", each}, {"Cosh", each}, {"CumSum", cumulate}, {"DepthToSpace", images}, {"Div", each}, {"Dropout", like},
    {"Einsum", einsum}, {"Elu", each}, {"Equal", each}, {"Erf", each}, {"Exp", each}, {"Expand", mest_rebatch_expand}, {"Flatten", mest_rebatch_view}, {"Floor", each},
    {"GRU", recurrent}, {"Gather", gather}, {"GatherElements", side_by_side}, {"Gelu", each}, {"Gemm", gemm}, {"GlobalAveragePool", images},
    {"GlobalLpPool", images}, {"GlobalMaxPool", images}, {"Greater", each}, {"GreaterOrEqual", each}, {"GridSample", pairs},
    {"GroupNormalization", images}, {"HardSigmoid", each}, {"HardSwish", each}, {"Hardmax", rows_from}, {"Identity", each},
    {"InstanceNormalization", images}, {"IsInf", each}, {"IsNaN", each}, {"LRN", images}, {"LSTM", recurrent}, {"LayerNormalization", rows_from},
    {"LeakyRelu", each}, {"Less", each}, {"LessOrEqual", each}, {"Log", each}, {"LogSoftmax", rows_from}, {"LpNormalization", along},
    {"LpPool", images}, {"MatMul", product}, {"Max", each}, {"MaxPool", images}, {"Mean", each}, {"Min", each}, {"Mish", each}, {"Mod", each},
    {"Mul", each}, {"Neg", each}, {"Not", each}, {"OneHot", one_hot}, {"Or", each}, {"PRelu", each}, {"Pad", untouched}, {"Pow", each},
    {"RMSNormalization", rows_from}, {"RNN", recurrent}, {"RandomNormalLike", each}, {"RandomUniformLike", each}, {"Reciprocal", each},
    {"ReduceL1", reduce}, {"ReduceL2", reduce}, {"ReduceLogSum", reduce}, {"ReduceLogSumExp", reduce}, {"ReduceMax", reduce}, {"ReduceMean", reduce},
    {"ReduceMin", reduce}, {"ReduceProd", reduce}, {"ReduceSum", reduce}, {"ReduceSumSquare", reduce}, {"Relu", each}, {"Reshape", mest_rebatch_reshape},
    {"Resize", resize}, {"Round", each}, {"ScatterElements", side_by_side}, {"Selu", each}, {"Shrink", each}, {"Sigmoid", each}, {"Sign", each},
    {"Sin", each}, {"Sinh", each}, {"Slice", slice}, {"Softmax", rows_from}, {"Softplus", each}, {"Softsign", each}, {"SpaceToDepth", images},
    {"Split", along}, {"Sqrt", each}, {"Squeeze", mest_rebatch_view}, {"Sub", each}, {"Sum", each}, {"Swish", each}, {"Tan", each}, {"Tanh", each},
    {"ThresholdedRelu", each}, {"Tile", untouched}, {"TopK", along}, {"Transpose", transpose}, {"Trilu", triangle}, {"Unsqueeze", mest_rebatch_view},
    {"Where", each}, {"Xor", each}, {"mest.Linear", product}, {"mest.Recurrent", recurrent},
};

bool mest_rebatch_rule(mest_rebatcher *r, mest_id node)
{
    const mest_op *op = r->to.nodes[node].op;
    for (size_t i = 0; i < sizeof rules / sizeof *rules && (!op->domain || !*op->domain || !strcmp(op->domain, "mest")); i++)
        if (!strcmp(rules[i].op, op->name))
            return rules[i].rule(r, node);
    return mest_rebatch_refuse(r, node, "is not known to treat the samples of a batch one by one");
}
