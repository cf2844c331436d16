/* SPDX-License-Identifier: Apache-2.0 */
/* BatchNormalization -> mest.BatchNormTrain where a training program uses the statistics of the batch. */
#include <string.h>

#include "ops/nn.h"
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
    mest_bn_params *params = a->spec->bn_biased ? mest_pass_alloc(a, sizeof *params) : NULL;
    if (!out || (a->spec->bn_biased && !params))
        return MEST_E_NOMEM;
    if (params) {
        *params = *(const mest_bn_params *)g->nodes[id].params;
        params->biased = true;
        g->nodes[id].params = params;
    }
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

static bool is_frozen(const mest_pass_args *a, mest_id v)
{
    const mest_value *value = &a->graph->values[v];
    return value->kind == MEST_VALUE_PARAM && a->model->params[value->param].role == MEST_ROLE_FROZEN;
}

static mest_status run(mest_pass_args *a)
{
    const char *how = a->spec->batch_norm ? a->spec->batch_norm : "auto";
    if (!strcmp(how, "frozen"))
        return MEST_OK;
    for (mest_id i = 0; i < a->graph->n_nodes; i++) /* auto: a layer that the caller froze is to stay what it is, statistics included */
        if (mest_is_op(&a->graph->nodes[i], "BatchNormalization") &&
            (strcmp(how, "auto") || !is_frozen(a, a->graph->nodes[i].in[1]) || !is_frozen(a, a->graph->nodes[i].in[2])))
            MEST_TRY(to_train_form(a, i));
    return MEST_OK;
}

const mest_pass mest_pass_batchnorm_form = {"batchnorm_form", "BatchNormalization with the statistics of the batch", MEST_PASS_FORM, MEST_FOR_TRAIN, true, run};
