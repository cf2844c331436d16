/* SPDX-License-Identifier: Apache-2.0 */
/* Passes before autodiff: pin shapes, constants, training or evaluation form of BatchNormalization and Dropout. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ops/nn.h"
#include "runtime/infer.h"
#include "runtime/program.h"

static mest_status pin_inputs(mest_graph *g, const mest_program_spec *spec, mest_error *err)
{
    for (int i = 0; i < g->n_inputs; i++) {
        mest_value *v = &g->values[g->inputs[i]];
        mest_shape *s = &v->type.shape;
        char have[160], want[160];
        if (i < spec->n_shapes) {
            const mest_shape *given = &spec->input_shapes[i];
            mest_shape full = {.rank = given->rank + 1};
            MEST_CHECK(full.rank <= MEST_MAX_RANK, err, MEST_E_SHAPE, "input '%s': rank %d is too large", v->name, full.rank);
            full.dim[0] = spec->batch;
            memcpy(full.dim + 1, given->dim, (size_t)given->rank * sizeof full.dim[0]);
            bool fits = s->rank == full.rank;
            for (int k = 1; k < full.rank && fits; k++)
                fits = s->dim[k] < 0 || s->dim[k] == full.dim[k];
            MEST_CHECK(fits, err, MEST_E_SHAPE, "input '%s' of the model is %s, the data gives %s", v->name, mest_shape_text(s, have, sizeof have),
                       mest_shape_text(&full, want, sizeof want));
            *s = full;
        } else if (s->rank > 0) {
            s->dim[0] = spec->batch;
        }
        int64_t count;
        MEST_CHECK(mest_shape_count(s, &count), err, MEST_E_SHAPE, "input '%s' is %s: give the sizes that are free", v->name,
                   mest_shape_text(s, have, sizeof have));
    }
    return MEST_OK;
}

mest_status mest_lower_pin(mest_graph *g, mest_model *m, const mest_program_spec *spec, mest_error *err)
{
    MEST_TRY(pin_inputs(g, spec, err));
    for (int i = 0; i < g->n_values; i++) {
        mest_value *v = &g->values[i];
        if (v->kind != MEST_VALUE_PARAM)
            continue;
        mest_param *p = &m->params[v->param];
        if (p->sparse) {
            v->type.layout = (mest_layout){.kind = MEST_SPARSE, .param = v->param};
            continue;
        }
        MEST_TRY(mest_param_load(m, p, err));
        if (p->role == MEST_ROLE_CONSTANT) { /* shapes, scales and masks given as floats fold like any constant */
            v->kind = MEST_VALUE_CONST;
            v->data = p->values;
        }
    }
    MEST_TRY(mest_graph_sort(g, err));
    MEST_TRY(mest_graph_check(g, "import", err));
    MEST_TRY(mest_infer_graph(g, true, (size_t)16 << 20, err));
    return mest_graph_prune(g, err);
}

static mest_status to_train_form(mest_graph *g, mest_node *n, mest_id id, mest_error *err)
{
    const mest_op *op = mest_op_find("mest", "mest.BatchNormTrain", 1);
    MEST_CHECK(op, err, MEST_E_INTERNAL, "mest.BatchNormTrain is missing");
    mest_id *out = mest_region_alloc(&g->region, 3, sizeof *out);
    MEST_CHECK(out, err, MEST_E_NOMEM, "lower: out of memory");
    out[0] = n->out[0];
    for (int k = 1; k < 3; k++) {
        out[k] = mest_graph_value(g, NULL, MEST_VALUE_RESULT, NULL);
        MEST_CHECK(out[k] != MEST_NONE, err, MEST_E_NOMEM, "lower: out of memory");
        g->values[out[k]].producer = id;
        g->values[out[k]].output = k;
    }
    n->op = op;
    n->out = out;
    n->n_out = 3;
    n->n_in = 5;
    return mest_infer_node(g, id, err);
}

/* Recurrent layers and attention run in a form whose first output is their workspace: it is planned like any value, and the gradient reads it. */
static mest_status to_workspace_form(mest_graph *g, mest_id id, mest_error *err)
{
    mest_node *n = &g->nodes[id];
    char name[40];
    snprintf(name, sizeof name, "mest.%.30s", n->op->name);
    const mest_op *op = mest_op_find("mest", name, 1);
    MEST_CHECK(op, err, MEST_E_INTERNAL, "%s is missing", name);
    mest_id *out = mest_region_alloc(&g->region, (size_t)n->n_out + 1, sizeof *out);
    mest_id workspace = mest_graph_value(g, NULL, MEST_VALUE_RESULT, NULL);
    MEST_CHECK(out && workspace != MEST_NONE, err, MEST_E_NOMEM, "lower: out of memory");
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
    return mest_infer_node(g, id, err);
}

static mest_status lower_dropout(mest_graph *g, mest_node *n, mest_id id, const mest_program_spec *spec, mest_error *err)
{
    double ratio = 0.5; /* ONNX default where the file gives none */
    if (n->n_in > 1 && n->in[1] != MEST_NONE) {
        const mest_value *r = &g->values[n->in[1]];
        if (r->kind == MEST_VALUE_CONST && r->type.dtype == MEST_F32)
            ratio = (double)*(const mest_real *)r->data;
        else if (r->kind == MEST_VALUE_CONST && r->type.dtype == MEST_F64)
            ratio = *(const double *)r->data;
        else
            return mest_fail(err, MEST_E_UNSUPPORTED, "Dropout '%s': the ratio is not a constant", n->name);
    }
    if (spec->dropout >= 0)
        ratio = spec->dropout;
    MEST_CHECK(ratio >= 0 && ratio < 1, err, MEST_E_SHAPE, "Dropout '%s': ratio %g is not in [0, 1)", n->name, ratio);
    if (spec->kind != MEST_PROGRAM_TRAIN || ratio == 0) {
        mest_graph_replace(g, n->out[0], n->in[0]);
        return MEST_OK;
    }
    mest_dropout_params *p = mest_region_alloc(&g->region, 1, sizeof *p);
    const mest_op *op = mest_op_find("mest", "mest.DropoutTrain", 1);
    MEST_CHECK(p, err, MEST_E_NOMEM, "lower: out of memory");
    MEST_CHECK(op, err, MEST_E_INTERNAL, "mest.DropoutTrain is missing");
    MEST_CHECK(n->n_out < 2 || n->out[1] == MEST_NONE, err, MEST_E_UNSUPPORTED, "Dropout '%s': its mask output is used", n->name);
    p->ratio = ratio;
    p->key = (uint64_t)(n->origin >= 0 ? n->origin : id);
    n->op = op;
    n->params = p;
    n->n_in = 1;
    n->n_out = 1;
    return mest_infer_node(g, id, err);
}

mest_status mest_lower_mode(mest_graph *g, const mest_program_spec *spec, mest_error *err)
{
    bool batch_statistics = spec->kind == MEST_PROGRAM_TRAIN && strcmp(spec->batch_norm ? spec->batch_norm : "auto", "frozen") != 0;
    /* Outputs nobody reads (masks, statistics) must not keep a node from being lowered. */
    MEST_TRY(mest_graph_prune(g, err));
    uint8_t *read = mest_region_alloc(&g->region, (size_t)g->n_values + 1, 1);
    MEST_CHECK(read, err, MEST_E_NOMEM, "lower: out of memory");
    mest_graph_trim(g, read);
    for (mest_id i = 0; i < g->n_nodes; i++) {
        mest_node *n = &g->nodes[i];
        if (n->op->domain && n->op->domain[0])
            continue;
        if (!strcmp(n->op->name, "BatchNormalization") && batch_statistics)
            MEST_TRY(to_train_form(g, n, i, err));
        else if (!strcmp(n->op->name, "Dropout"))
            MEST_TRY(lower_dropout(g, n, i, spec, err));
        else if (!strcmp(n->op->name, "LSTM") || !strcmp(n->op->name, "GRU") || !strcmp(n->op->name, "RNN") ||
                 !strcmp(n->op->name, "Attention"))
            MEST_TRY(to_workspace_form(g, i, err));
        else if (!strcmp(n->op->name, "Identity"))
            mest_graph_replace(g, n->out[0], n->in[0]);
    }
    return mest_graph_prune(g, err);
}
