/* SPDX-License-Identifier: Apache-2.0 */
/* What the rules of runtime/rebatch.h share: operands of a node as in the file, whatever was put in their place since. */
#ifndef MEST_RUNTIME_REBATCH_PARTS_H
#define MEST_RUNTIME_REBATCH_PARTS_H

#include "runtime/rebatch.h"

static inline mest_id mest_rebatch_in(const mest_rebatcher *r, mest_id node, int k)
{
    const mest_node *n = &r->at.nodes[node];
    return k < n->n_in ? n->in[k] : MEST_NONE;
}
static inline const mest_spot *mest_rebatch_spot(const mest_rebatcher *r, mest_id node, int k)
{
    static const mest_spot nowhere = {.axis = -1, .outer = 1};
    const mest_id v = mest_rebatch_in(r, node, k);
    return v == MEST_NONE ? &nowhere : &r->spot[v];
}
static inline const mest_shape *mest_rebatch_shape_in(const mest_rebatcher *r, mest_id node, int k) { return mest_rebatch_shape(r, mest_rebatch_in(r, node, k)); }

static inline void mest_rebatch_put(mest_rebatcher *r, mest_id node, int output, int axis, int64_t outer)
{
    const mest_node *n = &r->to.nodes[node];
    if (output < n->n_out && n->out[output] != MEST_NONE)
        r->spot[n->out[output]] = (mest_spot){.axis = axis, .outer = outer};
}

static inline bool mest_rebatch_mixes(mest_rebatcher *r, mest_id node) { return mest_rebatch_refuse(r, node, "mixes the samples of a batch, or picks one of them"); }

/* Inputs from k on are the same for all samples. */
static inline bool mest_rebatch_plain(mest_rebatcher *r, mest_id node, int k)
{
    for (; k < r->at.nodes[node].n_in; k++)
        if (mest_rebatch_spot(r, node, k)->axis >= 0 || mest_rebatch_spot(r, node, k)->by_size)
            return mest_rebatch_refuse(r, node, "has an input %d that depends on the samples or on the batch", k);
    return true;
}

/* rebatch_views.c: Reshape; Flatten, Squeeze, Unsqueeze; Expand. */
bool mest_rebatch_reshape(mest_rebatcher *r, mest_id node);
bool mest_rebatch_view(mest_rebatcher *r, mest_id node);
bool mest_rebatch_expand(mest_rebatcher *r, mest_id node);

#endif
