/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/refit.h"

#include <stdio.h>
#include <string.h>

bool mest_in_lanes(const mest_graph *g, mest_id v)
{
    return v != MEST_NONE && g->values[v].type.layout.kind == MEST_PIXEL && g->values[v].type.layout.v > 1;
}

mest_refit mest_refit_of(const mest_pass_args *a, mest_id node)
{
    const mest_node *n = &a->graph->nodes[node];
    mest_refit r = {.node = node, .op = n->op->name, .params = n->params, .n_in = n->n_in, .n_out = n->n_out};
    for (int k = 0; k < MEST_REFIT_MAX; k++) {
        r.in[k] = k < n->n_in ? n->in[k] : MEST_NONE;
        r.out[k] = k < n->n_out ? n->out[k] : MEST_NONE;
    }
    return r;
}

/* The query of the node as it would be. Types of new outputs, by the operator's rule, go to `made`. */
typedef struct trial {
    mest_node node;
    mest_id out[MEST_REFIT_MAX];
    mest_type made[MEST_REFIT_MAX];
    mest_kernel_query q;
    mest_query_storage storage;
} trial;

static bool query(mest_pass_args *a, const mest_refit *r, trial *t)
{
    mest_program *p = a->program;
    mest_graph *g = a->graph;
    const mest_node was = g->nodes[r->node];
    const mest_op *op = mest_op_find("mest", r->op, 1);
    if (!op || r->n_in > MEST_REFIT_MAX || r->n_out > MEST_REFIT_MAX)
        return false;
    t->node = was;
    t->node.op = op;
    t->node.params = r->params;
    t->node.in = (mest_id *)(uintptr_t)r->in;
    t->node.n_in = r->n_in;
    t->node.out = t->out;
    t->node.n_out = r->n_out;
    for (int k = 0; k < r->n_out; k++)
        t->out[k] = r->out[k] == MEST_REFIT_NEW ? MEST_NONE : r->out[k];
    g->nodes[r->node] = t->node;
    mest_make_query(p, r->node, &t->q, &t->storage);
    g->nodes[r->node] = was;
    t->q.node = &t->node;
    memset(t->made, 0, sizeof t->made);
    mest_error unused = {0};
    mest_infer c = {.graph = g, .node = &t->node, .params = r->params, .n_in = r->n_in, .n_out = r->n_out, .in = t->q.in, .in_data = t->storage.data,
                    .out = t->made, .err = &unused};
    if (op->infer(&c) != MEST_OK)
        return false;
    for (int k = 0; k < r->n_out; k++)
        if (r->out[k] == MEST_REFIT_NEW) {
            if (r->like[k])
                t->made[k].layout = t->q.in[r->like[k]]->layout;
            t->storage.out[k] = &t->made[k];
        }
    return true;
}

bool mest_refit_fits(mest_pass_args *a, const mest_refit *r)
{
    trial t;
    double seconds;
    const char *why = "";
    return query(a, r, &t) && mest_fastest_kernel(&t.q, &seconds, &why) != NULL;
}

mest_status mest_refit_do(mest_pass_args *a, mest_refit *r)
{
    mest_graph *g = a->graph;
    trial t;
    mest_step *st = &a->program->steps[r->node];
    const char *name = g->nodes[r->node].name;
    MEST_CHECK(query(a, r, &t), a->err, MEST_E_INTERNAL, "%s '%s': does not fit", r->op, name);
    const mest_kernel *kernel = mest_fastest_kernel(&t.q, &st->seconds, &st->why);
    MEST_CHECK(kernel, a->err, MEST_E_INTERNAL, "%s '%s': no kernel runs it", r->op, name);
    st->kernel = kernel;
    mest_id *ids = mest_region_alloc(&g->region, (size_t)(r->n_in + r->n_out) + 1, sizeof *ids);
    MEST_CHECK(ids, a->err, MEST_E_NOMEM, "%s '%s': out of memory", r->op, name);
    mest_id *out = ids + r->n_in;
    memcpy(ids, r->in, (size_t)r->n_in * sizeof *ids);
    for (int k = 0; k < r->n_out; k++) {
        if (r->out[k] == MEST_REFIT_NEW) {
            char text[300];
            snprintf(text, sizeof text, "%.280s/%d", name, k);
            r->out[k] = mest_graph_value(g, text, MEST_VALUE_RESULT, &t.made[k]);
            MEST_CHECK(r->out[k] != MEST_NONE, a->err, MEST_E_NOMEM, "%s '%s': out of memory", r->op, name);
        }
        out[k] = r->out[k];
    }
    mest_node *n = &g->nodes[r->node];
    for (int k = 0; k < n->n_out; k++) /* what it makes no longer */
        if (n->out[k] != MEST_NONE)
            g->values[n->out[k]].producer = MEST_NONE;
    for (int k = 0; k < r->n_out; k++) {
        if (out[k] == MEST_NONE)
            continue;
        mest_value *v = &g->values[out[k]];
        if (v->producer != MEST_NONE) { /* of another node, which is not needed any longer */
            mest_node *other = &g->nodes[v->producer];
            for (int i = 0; i < other->n_out; i++)
                if (other->out[i] == out[k])
                    other->out[i] = MEST_NONE;
        }
        v->producer = r->node;
        v->output = k;
    }
    n->op = t.node.op;
    n->params = r->params;
    n->in = ids;
    n->n_in = r->n_in;
    n->out = out;
    n->n_out = r->n_out;
    return MEST_OK;
}

mest_status mest_program_prune(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    for (mest_id i = 0; i < g->n_nodes; i++)
        g->nodes[i].mark = i;
    MEST_TRY(mest_graph_prune(g, err));
    for (mest_id i = 0; i < g->n_nodes; i++) /* order is kept: mark >= i */
        p->steps[i] = p->steps[g->nodes[i].mark];
    return MEST_OK;
}
