/* SPDX-License-Identifier: Apache-2.0 */
/* The samples in another shape of the same elements, see runtime/rebatch.h. In front of each sample there are as many elements as before;
 * where that is between two axes, either may take them, and what follows decides. */
#include "runtime/rebatch_parts.h"

/* Where the samples can be in another shape of the same elements: in front of each there are as many elements as before. */
static int places(const mest_rebatcher *r, const mest_shape *x, const mest_spot *s, const mest_shape *y, mest_spot *found)
{
    const int64_t before = mest_shape_span(x, 0, s->axis) * s->outer;
    int n = 0;
    for (int j = 0; j < y->rank; j++) {
        const int64_t pre = mest_shape_span(y, 0, j), outer = pre > 0 && before % pre == 0 ? before / pre : 0;
        if (outer > 0 && y->dim[j] > 0 && y->dim[j] % (outer * r->from) == 0)
            found[n++] = (mest_spot){.axis = j, .outer = outer};
    }
    return n;
}

/* The lower the likelier: an axis of their own; the rows of a matrix; before axes that stay as they were; in front of what was split. */
static int unlikely(const mest_rebatcher *r, const mest_shape *x, const mest_spot *s, const mest_shape *y, const mest_spot *to)
{
    const int tail = x->rank - 1 - s->axis, tail_y = y->rank - 1 - to->axis;
    bool same_tail = tail == tail_y;
    for (int i = 1; i <= tail && same_tail; i++)
        same_tail = x->dim[x->rank - i] == y->dim[y->rank - i];
    if (to->outer == 1 && mest_rebatch_inner(r, y, to) == 1)
        return 0;
    if (y->rank == 2 && to->axis == 0)
        return 1;
    return same_tail ? 2 : to->outer == 1 ? 3 : 4;
}

/* Places, likeliest first. */
static int sorted_places(const mest_rebatcher *r, mest_id node, mest_spot *found)
{
    const mest_shape *x = mest_rebatch_shape_in(r, node, 0), *y = mest_rebatch_shape(r, r->to.nodes[node].out[0]);
    const mest_spot *s = mest_rebatch_spot(r, node, 0);
    const int n = s->axis < 0 ? 0 : places(r, x, s, y, found);
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && unlikely(r, x, s, y, &found[j]) < unlikely(r, x, s, y, &found[j - 1]); j--) {
            const mest_spot t = found[j];
            found[j] = found[j - 1];
            found[j - 1] = t;
        }
    return n;
}

bool mest_rebatch_reshape(mest_rebatcher *r, mest_id node)
{
    mest_spot found[MEST_MAX_RANK];
    const int n = sorted_places(r, node, found);
    if (n == 0)
        return mest_rebatch_refuse(r, node, "has a shape into which another batch does not fit");
    const mest_spot *s = &found[mest_rebatch_choose(r, n)];
    const mest_shape y = mest_rebatch_scaled(r, mest_rebatch_shape(r, r->to.nodes[node].out[0]), s);
    mest_rebatch_put(r, node, 0, s->axis, s->outer);
    return mest_rebatch_ints(r, node, 1, y.rank, y.dim);
}

/* Flatten, Squeeze, Unsqueeze: their result follows from the input. */
bool mest_rebatch_view(mest_rebatcher *r, mest_id node)
{
    mest_spot found[MEST_MAX_RANK];
    mest_error err = {0};
    const int n = mest_rebatch_plain(r, node, 1) ? sorted_places(r, node, found) : 0;
    const mest_id y = r->to.nodes[node].out[0];
    if (n == 0 || mest_infer_node(&r->to, node, &err) != MEST_OK)
        return mest_rebatch_refuse(r, node, "takes the axis of the samples away");
    for (int i = 0; i < n; i++) {
        const mest_shape want = mest_rebatch_scaled(r, mest_rebatch_shape(r, y), &found[i]);
        if (mest_shape_equal(&want, &r->to.values[y].type.shape)) {
            mest_rebatch_put(r, node, 0, found[i].axis, found[i].outer);
            return true;
        }
    }
    return mest_rebatch_mixes(r, node);
}

bool mest_rebatch_expand(mest_rebatcher *r, mest_id node)
{
    const mest_shape *x = mest_rebatch_shape_in(r, node, 0), *y = mest_rebatch_shape(r, r->to.nodes[node].out[0]);
    mest_spot s = *mest_rebatch_spot(r, node, 0);
    if (s.axis < 0 || mest_rebatch_spot(r, node, 1)->axis >= 0)
        return mest_rebatch_mixes(r, node);
    const int axis = s.axis + y->rank - x->rank;
    if (y->dim[axis] != x->dim[s.axis])
        return mest_rebatch_mixes(r, node);
    s.axis = axis;
    const mest_shape to = mest_rebatch_scaled(r, y, &s);
    mest_rebatch_put(r, node, 0, axis, s.outer);
    return mest_rebatch_ints(r, node, 1, to.rank, to.dim);
}
