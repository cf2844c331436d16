/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/survey.h"

#include <string.h>

mest_status mest_survey_init(mest_survey *s, mest_heap *heap, int32_t n, int64_t batch, mest_error *err)
{
    memset(s, 0, sizeof *s);
    mest_region_init(&s->region, heap);
    s->batch = batch;
    s->verdict = mest_region_alloc(&s->region, (size_t)n + 1, sizeof *s->verdict);
    MEST_CHECK(s->verdict, err, MEST_E_NOMEM, "check: no memory for %d nodes", n);
    s->n = n;
    for (int32_t i = 0; i < n; i++)
        s->verdict[i].unknown = MEST_NONE;
    return MEST_OK;
}

void mest_survey_free(mest_survey *s)
{
    if (s->region.heap)
        mest_region_free(&s->region);
    s->verdict = NULL;
    s->n = 0;
}

static mest_verdict *verdict_of(const mest_graph *g, mest_id node)
{
    int32_t source = g->nodes[node].source;
    return source >= 0 && source < g->survey->n ? &g->survey->verdict[source] : NULL;
}

/* Takes the text out of err. NULL when out of memory. */
static const char *take_text(mest_survey *s, mest_error *err)
{
    const char *text = mest_region_strdup(&s->region, err && err->msg[0] ? err->msg : "no reason is given");
    mest_error_clear(err);
    return text;
}

mest_status mest_survey_failure(mest_graph *g, mest_status status, mest_error *err)
{
    mest_survey *s = g->survey;
    if (!s || status == MEST_OK || status == MEST_E_NOMEM)
        return status;
    if (s->n_failures == MEST_SURVEY_FAILURES) {
        mest_error_clear(err);
        return MEST_OK;
    }
    const char *text = take_text(s, err);
    if (!text)
        return mest_fail(err, MEST_E_NOMEM, "check: out of memory");
    s->failure[s->n_failures++] = text;
    return MEST_OK;
}

static mest_status note(mest_graph *g, mest_id node, mest_status status, mest_error *err, bool backward)
{
    if (!g->survey || status == MEST_OK || status == MEST_E_NOMEM)
        return status;
    mest_verdict *v = verdict_of(g, node);
    if (!v)
        return mest_survey_failure(g, status, err);
    mest_status *code = backward ? &v->backward : &v->forward;
    const char **why = backward ? &v->backward_why : &v->forward_why;
    if (*code != MEST_OK) { /* the first one counts */
        mest_error_clear(err);
        return MEST_OK;
    }
    const char *text = take_text(g->survey, err);
    if (!text)
        return mest_fail(err, MEST_E_NOMEM, "check: out of memory");
    *code = status;
    *why = text;
    return MEST_OK;
}

/* What the file declares of a value nobody can compute. */
static void settle_type(mest_type *t, int64_t batch)
{
    if (t->shape.rank > 0 && t->shape.dim[0] < 0)
        t->shape.dim[0] = batch;
    for (int i = 0; i < t->shape.rank; i++)
        if (t->shape.dim[i] < 0)
            t->dtype = MEST_UNDEFINED;
}

static void settle_results(mest_graph *g, mest_id node)
{
    for (int k = 0; k < g->nodes[node].n_out; k++)
        if (g->nodes[node].out[k] != MEST_NONE)
            settle_type(&g->values[g->nodes[node].out[k]].type, g->survey->batch);
}

mest_status mest_survey_forward(mest_graph *g, mest_id node, mest_status status, mest_error *err)
{
    if (status != MEST_OK && g->survey)
        settle_results(g, node);
    return note(g, node, status, err, false);
}

mest_status mest_survey_backward(mest_graph *g, mest_id node, mest_status status, mest_error *err) { return note(g, node, status, err, true); }

void mest_survey_live(mest_graph *g, mest_id node)
{
    mest_verdict *v = g->survey ? verdict_of(g, node) : NULL;
    if (v)
        v->live = true;
}

bool mest_survey_undecided(mest_graph *g, mest_id node, mest_id value)
{
    mest_verdict *v = g->survey ? verdict_of(g, node) : NULL;
    if (v && v->unknown == MEST_NONE)
        v->unknown = value;
    if (v)
        settle_results(g, node);
    return v != NULL;
}

void mest_survey_forget_inputs(mest_graph *g)
{
    for (int i = 0; g->survey && i < g->n_inputs; i++) {
        mest_type *t = &g->values[g->inputs[i]].type;
        int64_t count;
        if (!mest_shape_count(&t->shape, &count))
            t->dtype = MEST_UNDEFINED;
    }
}

void mest_survey_fixed_batch(mest_graph *g, int64_t batch, const char *why)
{
    mest_survey *s = g->survey;
    if (!s)
        return;
    s->fixed_batch = batch;
    s->fixed_why = mest_region_strdup(&s->region, why);
    if (!s->fixed_why)
        s->fixed_why = "memory ran out";
}

static bool out_of_it(const mest_graph *g, mest_id node)
{
    const mest_verdict *v = verdict_of(g, node);
    return v && (v->forward != MEST_OK || v->unknown != MEST_NONE);
}

bool mest_survey_takes(mest_graph *g, mest_id node)
{
    if (!g->survey)
        return true;
    const mest_node *n = &g->nodes[node];
    mest_verdict *v = verdict_of(g, node);
    for (int k = 0; v && v->forward == MEST_OK && v->unknown == MEST_NONE && k < n->n_in; k++)
        if (n->in[k] != MEST_NONE && g->values[n->in[k]].type.dtype == MEST_UNDEFINED)
            v->unknown = n->in[k];
    if (!out_of_it(g, node))
        return true;
    settle_results(g, node);
    return false;
}

mest_status mest_survey_cut(mest_graph *g, mest_error *err)
{
    mest_survey *s = g->survey;
    if (!s)
        return MEST_OK;
    size_t n_values = (size_t)g->n_values + 1;
    mest_id *outputs = mest_region_alloc(&g->region, n_values, sizeof *outputs);
    s->ends = mest_region_alloc(&s->region, n_values, sizeof *s->ends);
    uint8_t *seen = mest_region_alloc(&s->region, n_values, 1);
    s->starts = mest_region_alloc(&s->region, n_values, 1);
    s->n_starts = g->n_values;
    MEST_CHECK(outputs && s->ends && s->starts && seen, err, MEST_E_NOMEM, "check: out of memory");
    for (mest_id i = 0; i < g->n_nodes; i++) {
        mest_node *n = &g->nodes[i];
        if (!out_of_it(g, i))
            continue;
        s->cut = true;
        for (int k = 0; k < n->n_in; k++) {
            mest_id x = n->in[k];
            mest_id p = x == MEST_NONE ? MEST_NONE : g->values[x].producer;
            if (p != MEST_NONE && !out_of_it(g, p) && !seen[x]) {
                seen[x] = 1;
                s->ends[s->n_ends++] = x;
            }
        }
    }
    for (mest_id i = 0; i < g->n_nodes; i++) {
        mest_node *n = &g->nodes[i];
        if (!out_of_it(g, i))
            continue;
        for (int k = 0; k < n->n_out; k++) {
            if (n->out[k] == MEST_NONE)
                continue;
            g->values[n->out[k]].producer = MEST_NONE;
            g->values[n->out[k]].kind = MEST_VALUE_INPUT;
            s->starts[n->out[k]] = 1;
            n->out[k] = MEST_NONE;
        }
    }
    /* the graph's own output stays in front if something still has it: that is where the loss goes */
    int32_t n_outputs = 0;
    for (int32_t i = 0; i < g->n_outputs; i++)
        if (g->values[g->outputs[i]].type.dtype != MEST_UNDEFINED)
            outputs[n_outputs++] = g->outputs[i];
    s->no_loss = g->n_outputs == 0 || g->values[g->outputs[0]].type.dtype == MEST_UNDEFINED;
    if (s->n_ends || n_outputs < g->n_outputs) {
        for (int32_t i = 0; i < s->n_ends && n_outputs < (int32_t)n_values - 1; i++)
            outputs[n_outputs++] = s->ends[i];
        g->outputs = outputs;
        g->n_outputs = n_outputs;
    }
    return MEST_OK;
}

/* ---- operators that are not there ---- */
static mest_status unknown_infer(mest_infer *c) { return mest_infer_fail(c, MEST_E_UNSUPPORTED, "the operator is not supported"); }

const mest_op *mest_unknown_op(mest_region *region, const char *domain, const char *name)
{
    mest_op *op = mest_region_alloc(region, 1, sizeof *op);
    if (!op)
        return NULL;
    *op = (mest_op){ .domain = domain, .name = name, .since = 1, .in_max = -1, .out_max = -1, .flags = MEST_OP_ANY_TYPE, .infer = unknown_infer };
    return op;
}
