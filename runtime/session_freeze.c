/* SPDX-License-Identifier: Apache-2.0 */
/* Freezing while training: a parameter and everything before it in the network stays as it is, and backward passes end behind it. */
#include <string.h>

#include "runtime/session.h"

/* Marks the nodes that read the parameter as a weight, through nodes that only weights go into (a Transpose, say). */
static void mark_readers(const mest_graph *g, int param, uint8_t *node, uint8_t *weight)
{
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        bool reads = false, only_weights = true;
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] == MEST_NONE)
                continue;
            const mest_value *v = &g->values[n->in[k]];
            reads = reads || (v->kind == MEST_VALUE_PARAM ? v->param == param : weight[n->in[k]]);
            only_weights = only_weights && (v->kind == MEST_VALUE_PARAM || v->kind == MEST_VALUE_CONST || weight[n->in[k]]);
        }
        for (int k = 0; reads && only_weights && k < n->n_out; k++)
            if (n->out[k] != MEST_NONE)
                weight[n->out[k]] = 1;
        node[i] = reads && !only_weights;
    }
}

/* The parameters that go into marked nodes or into what they are computed from. Nodes are in an order in which they run. */
static void mark_before(const mest_graph *g, uint8_t *node, uint8_t *frozen)
{
    for (mest_id i = g->n_nodes; i-- > 0;)
        for (int k = 0; node[i] && k < g->nodes[i].n_in; k++) {
            if (g->nodes[i].in[k] == MEST_NONE)
                continue;
            const mest_value *v = &g->values[g->nodes[i].in[k]];
            if (v->kind == MEST_VALUE_PARAM)
                frozen[v->param] = 1;
            else if (v->kind == MEST_VALUE_RESULT && v->producer != MEST_NONE)
                node[v->producer] = 1;
        }
}

mest_status mest_session_set_frozen(mest_session *s, const uint8_t *frozen, mest_error *err)
{
    const int n = s->model->n_params;
    bool any = false;
    for (int i = 0; i < n; i++)
        any = any || (s->model->params[i].role == MEST_ROLE_TRAINABLE && !frozen[i]);
    MEST_CHECK(any, err, MEST_E_ARGUMENT, "freeze: nothing would be left to train");
    if (!s->frozen)
        s->frozen = mest_calloc(s->heap, (size_t)n + 1, 1);
    MEST_CHECK(s->frozen, err, MEST_E_NOMEM, "freeze: out of memory");
    for (int i = 0; i < n; i++) {
        s->frozen[i] = s->model->params[i].role == MEST_ROLE_TRAINABLE && (frozen[i] || s->frozen[i]);
        if (s->frozen[i])
            mest_optimizer_drop(&s->optimizer, i);
    }
    for (int k = 0; k < s->host.n_params; k++)
        if (s->frozen[s->host_param[k]]) {
            s->host.params[k].frozen = true;
            s->host.params[k].n_slots = 0;
        }
    mest_session_drop_programs(s); /* the next ones are smaller, and so is what they need */
    mest_arena_free(&s->arena);
    return MEST_OK;
}

mest_status mest_session_freezer(void *session, int model_param, mest_error *err)
{
    mest_session *s = session;
    const mest_graph *g = &s->model->graph;
    const size_t n_nodes = (size_t)g->n_nodes + 1, n_values = (size_t)g->n_values + 1, n_params = (size_t)s->model->n_params + 1;
    uint8_t *marks = mest_calloc(s->heap, n_nodes + n_values + n_params, 1);
    MEST_CHECK(marks, err, MEST_E_NOMEM, "freeze: out of memory");
    uint8_t *frozen = marks + n_nodes + n_values;
    mark_readers(g, model_param, marks, marks + n_nodes);
    mark_before(g, marks, frozen);
    frozen[model_param] = 1;
    for (size_t i = 0; i + 1 < n_params && s->frozen; i++)
        frozen[i] |= s->frozen[i];
    mest_status status = mest_session_set_frozen(s, frozen, err);
    mest_free(s->heap, marks, n_nodes + n_values + n_params, 1);
    return status;
}
