/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/match.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/nn.h"
#include "runtime/infer.h"

bool mest_is_op(const mest_node *n, const char *op)
{
    bool helper = n->op->domain && !strcmp(n->op->domain, "mest"), wanted = !strncmp(op, "mest.", 5);
    return helper == wanted && (helper || !n->op->domain || !n->op->domain[0]) && !strcmp(n->op->name, op);
}

mest_node *mest_match(const mest_graph *g, mest_id v, const char *op)
{
    mest_id p = v == MEST_NONE ? MEST_NONE : g->values[v].producer;
    return p != MEST_NONE && !mest_taken(&g->nodes[p]) && mest_is_op(&g->nodes[p], op) ? &g->nodes[p] : NULL;
}

bool mest_read_once(const mest_pass_args *a, mest_id v) { return v != MEST_NONE && v < a->n_uses && a->uses[v] == 1; }

mest_node *mest_match_once(const mest_pass_args *a, mest_id v, const char *op) { return mest_read_once(a, v) ? mest_match(a->graph, v, op) : NULL; }

bool mest_scalar(const mest_graph *g, mest_id v, double *x)
{
    int64_t n;
    const mest_value *c = v == MEST_NONE ? NULL : &g->values[v];
    if (!c || c->kind != MEST_VALUE_CONST || !mest_shape_count(&c->type.shape, &n) || n != 1)
        return false;
    if (c->type.dtype == MEST_F32)
        *x = (double)*(const mest_real *)c->data;
    else if (c->type.dtype == MEST_F64)
        *x = *(const double *)c->data;
    else
        return false;
    return true;
}

bool mest_close(double a, double b) { return fabs(a - b) <= 1e-6 * fabs(b); }

bool mest_scalar_is(const mest_graph *g, mest_id v, double x)
{
    double c;
    return mest_scalar(g, v, &c) && mest_close(c, x);
}

mest_id mest_with_scalar(const mest_graph *g, const mest_node *n, double *x)
{
    if (n->n_in != 2)
        return MEST_NONE;
    return mest_scalar(g, n->in[1], x) ? n->in[0] : mest_scalar(g, n->in[0], x) ? n->in[1] : MEST_NONE;
}

bool mest_factorise(const mest_pass_args *a, mest_id v, mest_factors *f)
{
    const mest_graph *g = a->graph;
    mest_id todo[2 * MEST_FACTORS];
    int n_todo = 0;
    double c;
    *f = (mest_factors){.scale = 1};
    todo[n_todo++] = v;
    while (n_todo > 0) {
        mest_id at = todo[--n_todo];
        bool inside = at == v || mest_read_once(a, at);
        const mest_node *mul = inside ? mest_match(g, at, "Mul") : NULL, *div = inside ? mest_match(g, at, "Div") : NULL;
        if (div && !mest_scalar(g, div->in[1], &c))
            div = NULL;
        if ((mul || div) && (f->n_nodes == 8 || n_todo + 2 > 2 * MEST_FACTORS))
            return false;
        if (mul || div)
            f->node[f->n_nodes++] = g->values[at].producer;
        if (mul) {
            todo[n_todo++] = mul->in[1];
            todo[n_todo++] = mul->in[0];
        } else if (div) {
            f->scale /= c;
            todo[n_todo++] = div->in[0];
        } else if (mest_scalar(g, at, &c)) {
            f->scale *= c;
        } else {
            if (f->n == MEST_FACTORS)
                return false;
            f->v[f->n++] = at;
        }
    }
    return true;
}

void mest_take(mest_graph *g, mest_id v)
{
    if (v != MEST_NONE && g->values[v].producer != MEST_NONE)
        g->nodes[g->values[v].producer].mark = 1;
}

void mest_take_factors(mest_graph *g, const mest_factors *f)
{
    for (int i = 0; i < f->n_nodes; i++)
        g->nodes[f->node[i]].mark = 1;
}

mest_status mest_rewrite(mest_pass_args *a, mest_id node, const char *op_name, const void *params, int n_in, const mest_id *in, int n_out, bool infer)
{
    mest_graph *g = a->graph;
    mest_node *n = &g->nodes[node];
    const mest_op *op = mest_op_find(strncmp(op_name, "mest.", 5) == 0 ? "mest" : "", op_name, 1000);
    MEST_CHECK(op, a->err, MEST_E_INTERNAL, "%s is missing", op_name);
    mest_id *ids = mest_region_alloc(&g->region, (size_t)n_in + 1, sizeof *ids);
    MEST_CHECK(ids, a->err, MEST_E_NOMEM, "%s '%s': out of memory", op_name, n->name);
    memcpy(ids, in, (size_t)n_in * sizeof *ids);
    for (int k = n_out; k < n->n_out; k++)
        if (n->out[k] != MEST_NONE && g->values[n->out[k]].producer == node) /* not of mest_insert_as */
            g->values[n->out[k]].producer = MEST_NONE;
    n->op = op;
    n->params = params;
    n->in = ids;
    n->n_in = n_in;
    n->n_out = n_out;
    a->count++;
    return infer ? mest_infer_node(g, node, a->err) : MEST_OK;
}

mest_status mest_prepend_output(mest_pass_args *a, mest_id id)
{
    mest_graph *g = a->graph;
    mest_id first = mest_graph_value(g, NULL, MEST_VALUE_RESULT, NULL);
    mest_node *n = &g->nodes[id];
    mest_id *out = mest_region_alloc(&g->region, (size_t)n->n_out + 1, sizeof *out);
    MEST_CHECK(out && first != MEST_NONE, a->err, MEST_E_NOMEM, "pass: out of memory");
    out[0] = first;
    for (int k = 0; k < n->n_out; k++)
        out[k + 1] = n->out[k];
    n->out = out;
    n->n_out++;
    for (int k = 0; k < n->n_out; k++)
        if (out[k] != MEST_NONE) {
            g->values[out[k]].producer = id;
            g->values[out[k]].output = k;
        }
    return a->typed ? mest_infer_node(g, id, a->err) : MEST_OK;
}

static mest_status insert(mest_pass_args *a, mest_id at, const char *op_name, const void *params, int n_in, const mest_id *in, int n_out, const mest_id *given,
                          mest_id *node)
{
    mest_graph *g = a->graph;
    const mest_op *op = mest_op_find(strncmp(op_name, "mest.", 5) == 0 ? "mest" : "", op_name, 1000);
    MEST_CHECK(op, a->err, MEST_E_INTERNAL, "%s is missing", op_name);
    char name[300];
    snprintf(name, sizeof name, "%.250s/%s", g->nodes[at].name, op->name + (op->name[0] == 'm' ? 5 : 0));
    bool room = MEST_REGION_GROW(&g->region, a->before, a->n_before, a->cap_before);
    *node = room ? mest_graph_node(g, name, op, params, n_in, in, n_out, given) : MEST_NONE;
    MEST_CHECK(*node != MEST_NONE, a->err, MEST_E_NOMEM, "pass: no memory for node '%s'", name);
    a->before[a->n_before++] = at;
    g->nodes[*node].origin = g->nodes[at].origin;
    g->nodes[*node].phase = g->nodes[at].phase; /* lives and recomputation go by it */
    g->nodes[*node].forward = g->nodes[at].forward;
    return a->typed ? mest_infer_node(g, *node, a->err) : MEST_OK;
}

mest_status mest_insert_many(mest_pass_args *a, mest_id at, const char *op, const void *params, int n_in, const mest_id *in, int n_out, mest_id *out)
{
    mest_id node;
    MEST_TRY(insert(a, at, op, params, n_in, in, n_out, NULL, &node));
    memcpy(out, a->graph->nodes[node].out, (size_t)n_out * sizeof *out);
    return MEST_OK;
}

mest_status mest_insert(mest_pass_args *a, mest_id at, const char *op, const void *params, int n_in, const mest_id *in, mest_id *out)
{
    return mest_insert_many(a, at, op, params, n_in, in, 1, out);
}

mest_status mest_insert_as(mest_pass_args *a, mest_id at, const char *op, const void *params, int n_in, const mest_id *in, mest_id out)
{
    mest_id node;
    return insert(a, at, op, params, n_in, in, 1, &out, &node);
}

mest_id mest_only_reader(const mest_pass_args *a, mest_id v)
{
    const mest_graph *g = a->graph;
    for (mest_id i = mest_read_once(a, v) ? g->values[v].producer + 1 : g->n_nodes; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == v)
                return i;
    return MEST_NONE;
}

void mest_absorb(mest_pass_args *a, mest_id layer, mest_id next)
{
    mest_graph *g = a->graph;
    mest_node *from = &g->nodes[layer], *to = &g->nodes[next];
    /* They swap results: `next` then makes a value nobody reads, and the order stays valid, for whoever read its result comes later still. */
    mest_id inner = from->out[0], result = to->out[0];
    from->out[0] = result;
    g->values[result].producer = layer;
    to->out[0] = inner;
    to->in[0] = result;
    g->values[inner].producer = next;
    to->mark = 1;
    a->count++;
}

bool mest_match_clamp(const mest_graph *g, const mest_node *n, mest_clamp *clamp)
{
    *clamp = (mest_clamp){.on = true, .lo = 0, .hi = (mest_real)INFINITY};
    if (mest_is_op(n, "Relu"))
        return true;
    double bound[2] = {-(double)INFINITY, (double)INFINITY};
    if (!mest_is_op(n, "Clip") || g->values[n->in[0]].type.dtype != MEST_F32)
        return false;
    for (int i = 1; i < 3; i++)
        if (n->n_in > i && n->in[i] != MEST_NONE && !mest_scalar(g, n->in[i], &bound[i - 1]))
            return false;
    clamp->lo = (mest_real)bound[0];
    clamp->hi = (mest_real)bound[1];
    return bound[0] < bound[1];
}

void *mest_pass_alloc(mest_pass_args *a, size_t bytes)
{
    void *p = mest_region_alloc(&a->graph->region, bytes, 1);
    if (!p)
        (void)mest_fail(a->err, MEST_E_NOMEM, "pass: out of memory");
    return p;
}
