/* SPDX-License-Identifier: Apache-2.0 */
/* Dropout -> mest.DropoutTrain in a training program; elsewhere it is what it is in use: nothing. */
#include "ops/nn.h"
#include "runtime/infer.h"
#include "runtime/match.h"
#include "runtime/program.h"
#include "runtime/survey.h"

static mest_status lower(mest_pass_args *a, mest_id id)
{
    mest_graph *g = a->graph;
    mest_node *n = &g->nodes[id];
    double ratio = 0.5; /* ONNX default where the file gives none */
    MEST_CHECK(n->n_in < 2 || n->in[1] == MEST_NONE || mest_scalar(g, n->in[1], &ratio), a->err, MEST_E_UNSUPPORTED,
               "Dropout '%s': the ratio is not a constant", n->name);
    if (a->spec->dropout >= 0)
        ratio = a->spec->dropout;
    MEST_CHECK(ratio >= 0 && ratio < 1, a->err, MEST_E_SHAPE, "Dropout '%s': ratio %g is not in [0, 1)", n->name, ratio);
    if (a->spec->kind != MEST_PROGRAM_TRAIN || ratio == 0) {
        mest_graph_replace(g, n->out[0], n->in[0]);
        a->count++;
        return MEST_OK;
    }
    MEST_CHECK(n->n_out < 2 || n->out[1] == MEST_NONE, a->err, MEST_E_UNSUPPORTED, "Dropout '%s': its mask output is used", n->name);
    mest_dropout_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    p->ratio = ratio;
    p->key = (uint64_t)(n->origin >= 0 ? n->origin : id);
    return mest_rewrite(a, id, "mest.DropoutTrain", p, 1, n->in, 1, true);
}

static mest_status run(mest_pass_args *a)
{
    for (mest_id i = 0; i < a->graph->n_nodes; i++)
        if (mest_is_op(&a->graph->nodes[i], "Dropout"))
            MEST_TRY(mest_survey_forward(a->graph, i, lower(a, i), a->err));
    return MEST_OK;
}

const mest_pass mest_pass_dropout_form = {"dropout_form", "Dropout as training draws it, or gone", MEST_PASS_FORM, MEST_FOR_ALL, true, run};
