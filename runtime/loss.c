/* SPDX-License-Identifier: Apache-2.0 */
/* Attaches a loss by name to output 0. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ops/loss.h"
#include "runtime/infer.h"
#include "runtime/match.h"
#include "runtime/program.h"

static int default_class_axis(int rank) { return rank >= 4 ? 1 : rank - 1; }

/* Class axis of the logits: where the target lacks one of their axes. Sizes tell; where both places fit, axis 1 for maps (rank 4 and more: PyTorch's
 * place), the last axis for sequences, as networks give [batch, tokens, classes]. */
static bool class_axis(const mest_shape *logits, const mest_shape *target, int64_t *axis)
{
    if (target->rank != logits->rank - 1)
        return false;
    const int first = default_class_axis(logits->rank);
    const int candidates[2] = {first, first == 1 ? logits->rank - 1 : 1};
    for (int c = 0; c < 2; c++) {
        bool ok = candidates[c] >= 1 && candidates[c] < logits->rank;
        for (int i = 0, k = 0; i < logits->rank && ok; i++)
            if (i != candidates[c])
                ok = logits->dim[i] == target->dim[k++];
        if (ok) {
            *axis = candidates[c];
            return true;
        }
    }
    return false;
}

/* Targets as they usually are for an output: class indices without the class axis for ce, otherwise numbers like it. */
void mest_default_target(const char *loss, const mest_type *output, mest_type *target)
{
    *target = (mest_type){.dtype = MEST_F32, .shape = output->shape};
    if (strcmp(loss, "ce"))
        return;
    target->dtype = MEST_I64;
    if (output->shape.rank == 0)
        return;
    for (int i = default_class_axis(output->shape.rank); i + 1 < output->shape.rank; i++)
        target->shape.dim[i] = output->shape.dim[i + 1];
    target->shape.rank--;
}

/* Appends a node with one output. */
static mest_status append(mest_graph *g, const char *name, const char *op_name, int n_in, const mest_id *in, mest_id *out, mest_error *err)
{
    const mest_op *op = mest_op_find("", op_name, 1000);
    mest_id node = op ? mest_graph_node(g, name, op, NULL, n_in, in, 1, NULL) : MEST_NONE;
    MEST_CHECK(node != MEST_NONE, err, MEST_E_NOMEM, "loss: out of memory");
    *out = g->nodes[node].out[0];
    return mest_infer_node(g, node, err);
}

/* The losses take logits. Where the network ends in probabilities, these are turned back: log(p) for ce, log(p) - log(1 - p) for bce; the pass
 * loss_end then takes both ways out. LogSoftmax gives logits that are as good as any. */
static mest_status to_logits(mest_graph *g, bool ce, bool bce, int64_t class_axis_, mest_id *y, mest_error *err)
{
    mest_id end = *y;
    for (mest_id p; (p = g->values[end].producer) != MEST_NONE && (g->nodes[p].op->flags & MEST_OP_VIEW);)
        end = g->nodes[p].in[0];
    const mest_node *n = g->values[end].producer == MEST_NONE ? NULL : &g->nodes[g->values[end].producer];
    if (n && ce && (mest_is_op(n, "Softmax") || mest_is_op(n, "LogSoftmax"))) {
        const mest_shape *s = &g->values[end].type.shape, *f = &g->values[*y].type.shape;
        const mest_softmax_params *p = n->params;
        int axis = mest_axis(p->axis, s->rank);
        if (p->flatten && axis >= 0 && mest_shape_span(s, axis + 1, s->rank) != 1) /* the old form takes all axes from there on at once */
            axis = -1;
        bool same = axis >= 0 && s->dim[axis] == f->dim[class_axis_] && mest_shape_span(s, 0, axis) == mest_shape_span(f, 0, (int)class_axis_);
        MEST_CHECK(same, err, MEST_E_UNSUPPORTED, "loss ce: %s '%s' at the end does not normalise over the classes, which are in axis %d of output '%s'", n->op->name,
                   n->name, (int)class_axis_, g->values[*y].name);
        return mest_is_op(n, "Softmax") ? append(g, "loss/log", "Log", 1, y, y, err) : MEST_OK;
    }
    if (n && bce && mest_is_op(n, "Sigmoid")) {
        mest_type scalar = {.dtype = MEST_F32};
        mest_real one = 1;
        mest_id in[2] = {mest_graph_const(g, NULL, &scalar, &one), *y}, rest, logs[2];
        MEST_CHECK(in[0] != MEST_NONE, err, MEST_E_NOMEM, "loss: out of memory");
        MEST_TRY(append(g, "loss/rest", "Sub", 2, in, &rest, err));
        MEST_TRY(append(g, "loss/log", "Log", 1, y, &logs[0], err));
        MEST_TRY(append(g, "loss/log_rest", "Log", 1, &rest, &logs[1], err));
        return append(g, "loss/logit", "Sub", 2, logs, y, err);
    }
    return MEST_OK;
}

mest_status mest_attach_loss(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    const mest_program_spec *spec = &p->spec;
    MEST_CHECK(g->n_outputs > 0, err, MEST_E_FORMAT, "the model has no output");
    MEST_CHECK(spec->target || g->survey, err, MEST_E_ARGUMENT, "the data has no targets: a loss cannot be computed");
    mest_id y = g->outputs[0];
    bool ce = !strcmp(spec->loss, "ce"), mse = !strcmp(spec->loss, "mse"), bce = !strcmp(spec->loss, "bce");
    MEST_CHECK(ce || mse || bce, err, MEST_E_ARGUMENT, "loss '%s' is not one of ce, mse, bce", spec->loss);
    char have[160], want[160];
    const mest_shape *pinned = &g->values[y].type.shape;
    MEST_CHECK(pinned->rank > 0 && pinned->dim[0] == spec->batch, err, MEST_E_SHAPE,
               "output '%s' is %s for a batch of %" PRId64 ": the file has its batch size baked in; export it with a dynamic batch axis", g->values[y].name,
               mest_shape_text(pinned, have, sizeof have), spec->batch);
    mest_type usual;
    const mest_type *ty = &g->values[y].type, *tt = spec->target;
    if (!tt) {
        mest_default_target(spec->loss, ty, &usual);
        tt = &usual;
    }
    MEST_CHECK(ty->dtype == MEST_F32, err, MEST_E_SHAPE, "output '%s' is %s, a loss needs float32", g->values[y].name, mest_dtype_name(ty->dtype));
    mest_ce_params *all = mest_region_alloc(&g->region, 1, sizeof *all);
    MEST_CHECK(all, err, MEST_E_NOMEM, "loss: out of memory");
    mest_loss_params *params = &all->loss;
    params->label_smoothing = spec->label_smoothing;
    all->ignores = spec->ignores;
    all->ignore_index = spec->ignore_index;
    mest_type type = *tt;
    if (ce) {
        MEST_CHECK(tt->dtype == MEST_I64 && class_axis(&ty->shape, &tt->shape, &params->class_axis), err, MEST_E_SHAPE,
                   "loss ce: output '%s' is %s, the targets are %s %s; class indices without the class axis are wanted", g->values[y].name,
                   mest_shape_text(&ty->shape, have, sizeof have), mest_dtype_name(tt->dtype), mest_shape_text(&tt->shape, want, sizeof want));
    } else {
        int64_t a = 0, b = 0;
        bool ok = tt->dtype == MEST_F32 && mest_shape_count(&ty->shape, &a) && mest_shape_count(&tt->shape, &b) && a == b;
        MEST_CHECK(ok, err, MEST_E_SHAPE, "loss %s: output '%s' is %s, the targets are %s %s", spec->loss, g->values[y].name,
                   mest_shape_text(&ty->shape, have, sizeof have), mest_dtype_name(tt->dtype), mest_shape_text(&tt->shape, want, sizeof want));
        type.shape = ty->shape; /* [N] and [N,1] are the same numbers */
    }
    MEST_TRY(to_logits(g, ce, bce, params->class_axis, &y, err));
    mest_id target = mest_graph_value(g, "target", MEST_VALUE_INPUT, &type);
    const char *name = ce ? "mest.SoftmaxCrossEntropy" : mse ? "mest.MSELoss" : "mest.BCELoss";
    const mest_op *op = mest_op_find("mest", name, 1);
    MEST_CHECK(op, err, MEST_E_INTERNAL, "%s is missing", name);
    mest_id in[2] = {y, target};
    mest_id node = target == MEST_NONE ? MEST_NONE : mest_graph_node(g, "loss", op, params, 2, in, ce ? 3 : 2, NULL);
    MEST_CHECK(node != MEST_NONE, err, MEST_E_NOMEM, "loss: out of memory");
    MEST_TRY(mest_infer_node(g, node, err));
    const mest_node *n = &g->nodes[node];
    g->loss = n->out[0];
    p->logits = y;
    p->target = target;
    p->row_loss = n->out[1];
    p->correct = ce ? n->out[2] : MEST_NONE;
    g->n_outputs = 0; /* what must survive the run: the loss and what metrics are made of */
    mest_id *outputs = mest_region_alloc(&g->region, 3, sizeof *outputs);
    MEST_CHECK(outputs, err, MEST_E_NOMEM, "loss: out of memory");
    outputs[g->n_outputs++] = p->row_loss;
    if (p->correct != MEST_NONE)
        outputs[g->n_outputs++] = p->correct;
    g->outputs = outputs;
    p->loss = g->loss;
    return MEST_OK;
}
