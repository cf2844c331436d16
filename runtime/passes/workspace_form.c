/* SPDX-License-Identifier: Apache-2.0 */
/* Recurrent layers and attention run in a form whose first output is their workspace: it is planned like any value, and the gradient
 * reads it. */
#include <stdio.h>

#include "runtime/infer.h"
#include "runtime/match.h"

static mest_status lower(mest_pass_args *a, mest_id id)
{
    mest_graph *g = a->graph;
    char name[40];
    snprintf(name, sizeof name, "mest.%.30s", g->nodes[id].op->name);
    const mest_op *op = mest_op_find("mest", name, 1);
    MEST_CHECK(op, a->err, MEST_E_INTERNAL, "%s is missing", name);
    mest_id workspace = mest_graph_value(g, NULL, MEST_VALUE_RESULT, NULL);
    mest_node *n = &g->nodes[id];
    mest_id *out = mest_region_alloc(&g->region, (size_t)n->n_out + 1, sizeof *out);
    MEST_CHECK(out && workspace != MEST_NONE, a->err, MEST_E_NOMEM, "pass: out of memory");
    out[0] = workspace;
    for (int k = 0; k < n->n_out; k++)
        out[k + 1] = n->out[k];
    n->op = op;
    n->out = out;
    n->n_out++;
    for (int k = 0; k < n->n_out; k++)
        if (out[k] != MEST_NONE) {
            g->values[out[k]].producer = id;
            g->values[out[k]].output = k;
        }
    a->count++;
    return mest_infer_node(g, id, a->err);
}

static mest_status run(mest_pass_args *a)
{
    static const char *const ops[] = {"LSTM", "GRU", "RNN", "Attention"};
    for (mest_id i = 0; i < a->graph->n_nodes; i++)
        for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
            if (mest_is_op(&a->graph->nodes[i], ops[k])) {
                MEST_TRY(lower(a, i));
                break;
            }
    return MEST_OK;
}

const mest_pass mest_pass_workspace_form = {"workspace_form", "recurrent layers and attention with their workspace as an output", MEST_PASS_FORM,
                                            MEST_FOR_ALL, true, run};
