/* SPDX-License-Identifier: Apache-2.0 */
/* BatchNormalization -> mest.BatchNormTrain where a training program uses the statistics of the batch. */
#include <string.h>

#include "runtime/infer.h"
#include "runtime/match.h"
#include "runtime/program.h"

enum { OUTPUTS = 4 }; /* Y, saved mean, saved 1 / sigma, the map of X to Y */

static mest_status to_train_form(mest_pass_args *a, mest_id id)
{
    mest_graph *g = a->graph;
    const mest_op *op = mest_op_find("mest", "mest.BatchNormTrain", 1);
    MEST_CHECK(op, a->err, MEST_E_INTERNAL, "mest.BatchNormTrain is missing");
    mest_id *out = mest_pass_alloc(a, OUTPUTS * sizeof *out);
    if (!out)
        return MEST_E_NOMEM;
    out[0] = g->nodes[id].out[0];
    for (int k = 1; k < OUTPUTS; k++) {
        out[k] = mest_graph_value(g, NULL, MEST_VALUE_RESULT, NULL);
        MEST_CHECK(out[k] != MEST_NONE, a->err, MEST_E_NOMEM, "pass: out of memory");
        g->values[out[k]].producer = id;
        g->values[out[k]].output = k;
    }
    mest_node *n = &g->nodes[id];
    n->op = op;
    n->out = out;
    n->n_out = OUTPUTS;
    n->n_in = 5;
    a->count++;
    return mest_infer_node(g, id, a->err);
}

static mest_status run(mest_pass_args *a)
{
    if (a->spec->batch_norm && !strcmp(a->spec->batch_norm, "frozen"))
        return MEST_OK;
    for (mest_id i = 0; i < a->graph->n_nodes; i++)
        if (mest_is_op(&a->graph->nodes[i], "BatchNormalization"))
            MEST_TRY(to_train_form(a, i));
    return MEST_OK;
}

const mest_pass mest_pass_batchnorm_form = {"batchnorm_form", "BatchNormalization with the statistics of the batch", MEST_PASS_FORM, MEST_FOR_TRAIN, true, run};
