/* SPDX-License-Identifier: Apache-2.0 */
/* GELU written out becomes Gelu, whose gradient keeps x and nothing else:
 *
 *     0.5 x (1 + Erf(x / sqrt 2))
 *     0.5 x (1 + Tanh(sqrt(2 / pi) (x + 0.044715 x^3)))     also with x (1 + 0.044715 x^2) inside
 *
 * the factors in any order, divisions by constants or products with them. */
#include "ops/elements.h"
#include "runtime/match.h"

/* v = x^k, k 2 or 3, as Pow or as products. */
static bool is_power(const mest_pass_args *a, mest_id v, mest_id x, int k, double scale)
{
    mest_factors f;
    if (!mest_factorise(a, v, &f) || !mest_close(f.scale, scale))
        return false;
    int have = 0;
    for (int i = 0; i < f.n; i++) {
        double exponent = 1;
        const mest_node *pow = mest_match_once(a, f.v[i], "Pow");
        if (pow && pow->in[0] == x && mest_scalar(a->graph, pow->in[1], &exponent))
            have += exponent == 2 || exponent == 3 ? (int)exponent : 100;
        else
            have += f.v[i] == x ? 1 : 100;
    }
    return have == k;
}

/* v = 1 + fn(...): the argument of fn, else MEST_NONE. */
static mest_id one_plus(const mest_pass_args *a, mest_id v, const char *fn)
{
    double one;
    const mest_node *add = mest_match_once(a, v, "Add");
    mest_id inside = add ? mest_with_scalar(a->graph, add, &one) : MEST_NONE;
    const mest_node *n = inside != MEST_NONE && mest_close(one, 1) ? mest_match_once(a, inside, fn) : NULL;
    return n ? n->in[0] : MEST_NONE;
}

static bool is_erf_argument(const mest_pass_args *a, mest_id v, mest_id x)
{
    mest_factors f;
    return mest_factorise(a, v, &f) && f.n == 1 && f.v[0] == x && mest_close(f.scale, 0.70710678118654752440);
}

static bool is_tanh_argument(const mest_pass_args *a, mest_id v, mest_id x)
{
    mest_factors f;
    double one;
    if (!mest_factorise(a, v, &f) || !mest_close(f.scale, 0.79788456080286535588))
        return false;
    if (f.n == 1) { /* x + 0.044715 x^3 */
        const mest_node *add = mest_match_once(a, f.v[0], "Add");
        return add && ((add->in[0] == x && is_power(a, add->in[1], x, 3, 0.044715)) || (add->in[1] == x && is_power(a, add->in[0], x, 3, 0.044715)));
    }
    for (int k = 0; f.n == 2 && k < 2; k++) { /* x (1 + 0.044715 x^2) */
        const mest_node *add = mest_match_once(a, f.v[k], "Add");
        mest_id square = add && f.v[1 - k] == x ? mest_with_scalar(a->graph, add, &one) : MEST_NONE;
        if (square != MEST_NONE && mest_close(one, 1) && is_power(a, square, x, 2, 0.044715))
            return true;
    }
    return false;
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = g->n_nodes - 1; i >= 0; i--) {
        mest_factors f;
        const mest_node *n = &g->nodes[i];
        if (mest_taken(n) || (!mest_is_op(n, "Mul") && !mest_is_op(n, "Div")) || !mest_factorise(a, n->out[0], &f) || f.n != 2 || !mest_close(f.scale, 0.5))
            continue;
        for (int k = 0; k < 2; k++) {
            mest_id x = f.v[1 - k], erf = one_plus(a, f.v[k], "Erf"), tanh = one_plus(a, f.v[k], "Tanh");
            bool exact = erf != MEST_NONE && is_erf_argument(a, erf, x), approximate = !exact && tanh != MEST_NONE && is_tanh_argument(a, tanh, x);
            if ((!exact && !approximate) || !mest_shape_equal(&g->values[x].type.shape, &g->values[n->out[0]].type.shape))
                continue;
            mest_gelu_params *p = mest_pass_alloc(a, sizeof *p);
            if (!p)
                return MEST_E_NOMEM;
            p->approximate = exact ? "none" : "tanh";
            mest_take_factors(g, &f);
            MEST_TRY(mest_rewrite(a, i, "Gelu", p, 1, &x, 1, true));
            break;
        }
    }
    return MEST_OK;
}

const mest_pass mest_pass_gelu = {"gelu", "GELU written out with Erf or Tanh is one Gelu", MEST_PASS_FORWARD, MEST_FOR_ALL, false, run};
