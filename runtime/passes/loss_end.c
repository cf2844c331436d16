/* SPDX-License-Identifier: Apache-2.0 */
/* A Softmax, LogSoftmax or Sigmoid at the end of the network, turned back into logits for the loss, goes out with what turned it back: the
 * loss then works on the network's own logits, which neither overflow nor vanish. Views between them stay. */
#include "ops/nn.h"
#include "runtime/match.h"
#include "runtime/model.h"

/* The node behind v and views, if it is `op`. */
static const mest_node *behind_views(const mest_graph *g, mest_id v, const char *op)
{
    for (mest_id p; (p = g->values[v].producer) != MEST_NONE && (g->nodes[p].op->flags & MEST_OP_VIEW);)
        v = g->nodes[p].in[0];
    return mest_match(g, v, op);
}

static const mest_node *end_of(const mest_graph *g, const mest_node *loss)
{
    const mest_id y = loss->in[0];
    if (mest_is_op(loss, "mest.SoftmaxCrossEntropy")) {
        const mest_node *log = mest_match(g, y, "Log");
        return log ? behind_views(g, log->in[0], "Softmax") : behind_views(g, y, "LogSoftmax");
    }
    const mest_node *sub = mest_is_op(loss, "mest.BCELoss") ? mest_match(g, y, "Sub") : NULL, *log = sub ? mest_match(g, sub->in[0], "Log") : NULL;
    const mest_node *log_rest = sub ? mest_match(g, sub->in[1], "Log") : NULL, *rest = log_rest ? mest_match(g, log_rest->in[0], "Sub") : NULL;
    return log && rest && rest->in[1] == log->in[0] && mest_scalar_is(g, rest->in[0], 1) ? behind_views(g, log->in[0], "Sigmoid") : NULL;
}

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    const mest_id loss = g->loss == MEST_NONE ? MEST_NONE : g->values[g->loss].producer;
    const mest_node *end = loss == MEST_NONE ? NULL : end_of(g, &g->nodes[loss]);
    if (!end)
        return MEST_OK;
    if (a->model)
        mest_logf(&a->model->heap, MEST_LOG_INFO, "%s '%s' at the end is part of the loss", end->op->name, end->name);
    mest_id logits = end->in[0];
    mest_shape_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    p->shape = g->values[g->nodes[loss].in[0]].type.shape;
    if (!mest_shape_equal(&p->shape, &g->values[logits].type.shape))
        MEST_TRY(mest_insert(a, loss, "mest.Reshape", p, 1, &logits, &logits));
    g->nodes[loss].in[0] = logits;
    a->count++;
    return MEST_OK;
}

const mest_pass mest_pass_loss_end = {"loss_end", "Softmax or Sigmoid at the end is part of the loss", MEST_PASS_FORWARD, MEST_FOR_TRAIN | MEST_FOR_EVAL, false, run};
