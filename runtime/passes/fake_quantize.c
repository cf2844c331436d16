/* SPDX-License-Identifier: Apache-2.0 */
/* DequantizeLinear(QuantizeLinear(X)) by one scale and zero point, as quantisation-aware training exports it, becomes mest.FakeQuantize, which has a
 * gradient. Between them there may be a Clip (a narrower range) by constants. DynamicQuantizeLinear keeps making scale and zero point. */
#include "ops/elements.h"
#include "ops/quantize.h"
#include "runtime/match.h"

/* The same value, or constants with the same numbers. */
static bool same(const mest_graph *g, mest_id a, mest_id b)
{
    int64_t n;
    if (a == b)
        return true;
    if (a == MEST_NONE || b == MEST_NONE)
        return false;
    const mest_value *x = &g->values[a], *y = &g->values[b];
    return x->kind == MEST_VALUE_CONST && y->kind == MEST_VALUE_CONST && x->type.dtype == y->type.dtype && mest_shape_equal(&x->type.shape, &y->type.shape) &&
           mest_shape_count(&x->type.shape, &n) && !memcmp(x->data, y->data, (size_t)n * mest_dtype_size(x->type.dtype));
}

/* A whole number that is constant; absent: nothing happens. */
static bool bound(const mest_graph *g, const mest_node *clip, int input, double *to)
{
    int64_t n;
    if (input >= clip->n_in || clip->in[input] == MEST_NONE)
        return true;
    const mest_value *v = &g->values[clip->in[input]];
    if (v->kind != MEST_VALUE_CONST || !mest_dtype_is_integer(v->type.dtype) || !mest_shape_count(&v->type.shape, &n) || n != 1)
        return false;
    *to = (double)mest_integer_at(v->type.dtype, v->data, 0);
    return true;
}

static mest_status pair(mest_pass_args *a, mest_id at)
{
    mest_graph *g = a->graph;
    const mest_node *back = &g->nodes[at];
    const mest_quantize_params *bp = back->params;
    const mest_node *clip = mest_match(g, back->in[0], "Clip"), *to = mest_match(g, clip ? clip->in[0] : back->in[0], "QuantizeLinear");
    const mest_node *dynamic = to ? NULL : mest_match(g, back->in[0], "DynamicQuantizeLinear");
    const mest_id zero = back->n_in > 2 ? back->in[2] : MEST_NONE;
    if (to) {
        const mest_quantize_params *tp = to->params;
        const mest_id from = to->n_in > 2 ? to->in[2] : MEST_NONE;
        if (!same(g, to->in[1], back->in[1]) || !same(g, from, zero) || (tp->axis != bp->axis && mest_shape_span(&g->values[to->in[1]].type.shape, 0, g->values[to->in[1]].type.shape.rank) != 1) || tp->block != bp->block)
            return MEST_OK;
    } else if (!dynamic || dynamic->n_out < 2 || back->in[1] != dynamic->out[1] || (zero != MEST_NONE && (dynamic->n_out < 3 || zero != dynamic->out[2]))) {
        return MEST_OK;
    }
    int64_t lo, hi;
    mest_quantize_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    mest_integer_range(g->values[(to ? to : dynamic)->out[0]].type.dtype, &lo, &hi);
    *p = (mest_quantize_params){ .axis = bp->axis, .block = bp->block, .lo = (double)lo, .hi = (double)hi };
    if (clip && (!bound(g, clip, 1, &p->lo) || !bound(g, clip, 2, &p->hi)))
        return MEST_OK;
    return mest_rewrite(a, at, "mest.FakeQuantize", p, 3, (mest_id[]){ (to ? to : dynamic)->in[0], back->in[1], zero }, 1, true);
}

static mest_status run(mest_pass_args *a)
{
    for (mest_id i = 0; i < a->graph->n_nodes; i++)
        if (mest_is_op(&a->graph->nodes[i], "DequantizeLinear"))
            MEST_TRY(pair(a, i));
    return MEST_OK;
}

const mest_pass mest_pass_fake_quantize = { "fake_quantize", "DequantizeLinear(QuantizeLinear(x)) is one node, whose gradient goes straight through", MEST_PASS_FORM,
                                            MEST_FOR_ALL, true, run };
