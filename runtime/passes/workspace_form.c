/* SPDX-License-Identifier: Apache-2.0 */
/* Recurrent layers and attention run in a form whose first output is their workspace: it is planned like any value, and the gradient
 * reads it. */
#include <stdio.h>

#include "runtime/match.h"

static mest_status lower(mest_pass_args *a, mest_id id)
{
    mest_graph *g = a->graph;
    char name[40];
    snprintf(name, sizeof name, "mest.%.30s", g->nodes[id].op->name);
    const mest_op *op = mest_op_find("mest", name, 1);
    MEST_CHECK(op, a->err, MEST_E_INTERNAL, "%s is missing", name);
    g->nodes[id].op = op;
    a->count++;
    return mest_prepend_output(a, id);
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
