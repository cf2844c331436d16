/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of normalisations that exporters write out. */
#include "runtime/match.h"

mest_id mest_match_mean(const mest_graph *g, mest_id v, int *axis)
{
    const mest_node *mean = mest_match(g, v, "ReduceMean");
    if (!mean)
        return MEST_NONE;
    const mest_shape *x = &g->values[mean->in[0]].type.shape, *y = &g->values[v].type.shape;
    if (x->rank != y->rank || x->rank == 0)
        return MEST_NONE;
    int first = x->rank;
    while (first > 0 && y->dim[first - 1] == 1)
        first--;
    for (int i = 0; i < first; i++)
        if (x->dim[i] != y->dim[i])
            return MEST_NONE;
    while (first < x->rank && x->dim[first] == 1) /* axes of size 1 are as good on either side; one must be left */
        first++;
    *axis = first < x->rank ? first : x->rank - 1;
    return mean->in[0];
}

mest_id mest_match_square(const mest_graph *g, mest_id v)
{
    const mest_node *pow = mest_match(g, v, "Pow"), *mul = mest_match(g, v, "Mul");
    if (pow)
        return mest_scalar_is(g, pow->in[1], 2) ? pow->in[0] : MEST_NONE;
    return mul && mul->in[0] == mul->in[1] ? mul->in[0] : MEST_NONE;
}

/* v = sqrt(z + epsilon): z. */
static mest_id root(const mest_graph *g, mest_id v, double exponent, double *epsilon)
{
    const mest_node *sqrt = exponent > 0 ? mest_match(g, v, "Sqrt") : NULL, *pow = mest_match(g, v, "Pow");
    if (pow && !mest_scalar_is(g, pow->in[1], exponent))
        pow = NULL;
    const mest_node *n = sqrt ? sqrt : pow, *add = n ? mest_match(g, n->in[0], "Add") : NULL;
    return add ? mest_with_scalar(g, add, epsilon) : MEST_NONE;
}

mest_id mest_match_over_root(const mest_graph *g, mest_id v, mest_id *numerator, double *epsilon)
{
    const mest_node *div = mest_match(g, v, "Div"), *mul = mest_match(g, v, "Mul");
    if (div) {
        *numerator = div->in[0];
        return root(g, div->in[1], 0.5, epsilon);
    }
    for (int k = 0; mul && k < 2; k++) {
        const mest_node *reciprocal = mest_match(g, mul->in[k], "Reciprocal"), *one = mest_match(g, mul->in[k], "Div");
        mest_id z = MEST_NONE;
        if (reciprocal)
            z = root(g, reciprocal->in[0], 0.5, epsilon);
        else if (one && mest_scalar_is(g, one->in[0], 1))
            z = root(g, one->in[1], 0.5, epsilon);
        else
            z = root(g, mul->in[k], -0.5, epsilon);
        *numerator = mul->in[1 - k];
        if (z != MEST_NONE)
            return z;
    }
    return MEST_NONE;
}

/* The other operand of the node if it is a weight or constant of the shape of the axes from `axis` on (ones before them). */
static mest_id row_operand(const mest_graph *g, const mest_node *n, mest_id v, const mest_shape *x, int axis)
{
    mest_id w = n->in[n->in[0] == v];
    const mest_value *s = &g->values[w];
    int extra = s->type.shape.rank - (x->rank - axis);
    if ((s->kind != MEST_VALUE_PARAM && s->kind != MEST_VALUE_CONST) || s->type.dtype != MEST_F32 || s->type.layout.kind != MEST_PLAIN || extra < 0 ||
        s->type.shape.rank > x->rank)
        return MEST_NONE;
    for (int i = 0; i < s->type.shape.rank; i++)
        if (s->type.shape.dim[i] != (i < extra ? 1 : x->dim[axis + i - extra]))
            return MEST_NONE;
    return w;
}

mest_status mest_match_affine(mest_pass_args *a, mest_id *node, const mest_shape *x, int axis, mest_id *scale, mest_id *bias)
{
    mest_graph *g = a->graph;
    static const char *const ops[2] = {"Mul", "Add"};
    mest_id *const operands[2] = {scale, bias};
    for (int step = 0; step < (bias ? 2 : 1); step++) {
        mest_id v = g->nodes[*node].out[0], next = mest_only_reader(a, v);
        if (next == MEST_NONE || !mest_is_op(&g->nodes[next], ops[step]))
            continue;
        *operands[step] = row_operand(g, &g->nodes[next], v, x, axis);
        if (*operands[step] == MEST_NONE)
            continue;
        mest_take(g, v);
        *node = next;
    }
    if (*scale != MEST_NONE)
        return MEST_OK;
    mest_type t = {.dtype = MEST_F32, .shape = {.rank = x->rank - axis}};
    int64_t n = 1;
    for (int i = axis; i < x->rank; i++)
        n *= t.shape.dim[i - axis] = x->dim[i];
    mest_real *ones = mest_pass_alloc(a, (size_t)n * sizeof *ones);
    if (!ones)
        return MEST_E_NOMEM;
    for (int64_t i = 0; i < n; i++)
        ones[i] = 1;
    *scale = mest_graph_const(g, NULL, &t, ones);
    MEST_CHECK(*scale != MEST_NONE, a->err, MEST_E_NOMEM, "pass: out of memory");
    return MEST_OK;
}
