/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/autodiff.h"

#include <stdio.h>
#include <string.h>

#include "ops/nn.h"
#include "runtime/infer.h"
#include "runtime/survey.h"

/* Contributions to the gradient of one value, in order of arrival. */
typedef struct contribution {
    mest_id value;
    int32_t next; /* older contribution, -1 = none */
} contribution;

struct mest_vjp {
    mest_graph *g;
    mest_id node;
    uint8_t *needs;      /* per forward value: on a path from a wanted value */
    int32_t n_forward;   /* values of the forward graph */
    int32_t *newest;     /* per forward value: index into list, -1 = none */
    contribution *list;
    int32_t n_list, cap_list;
    mest_error *err;
};

static mest_node *here(const mest_vjp *v) { return &v->g->nodes[v->node]; }

bool mest_wants(const mest_vjp *v, int input)
{
    const mest_node *n = here(v);
    return input < n->n_in && n->in[input] != MEST_NONE && v->needs[n->in[input]];
}

mest_id mest_in(const mest_vjp *v, int input) { return input < here(v)->n_in ? here(v)->in[input] : MEST_NONE; }

mest_id mest_out(const mest_vjp *v, int output) { return output < here(v)->n_out ? here(v)->out[output] : MEST_NONE; }

mest_id mest_need_out(mest_vjp *v, int output)
{
    mest_graph *g = v->g;
    mest_id y = mest_out(v, output);
    if (y != MEST_NONE)
        return y;
    const mest_id id = (mest_id)(here(v) - g->nodes);
    mest_id *out = mest_region_alloc(&g->region, (size_t)output + 1 + (size_t)g->nodes[id].n_out, sizeof *out);
    y = mest_graph_value(g, NULL, MEST_VALUE_RESULT, NULL);
    if (!out || y == MEST_NONE)
        return MEST_NONE;
    mest_node *n = &g->nodes[id];
    for (int k = 0; k <= output || k < n->n_out; k++)
        out[k] = k == output ? y : k < n->n_out ? n->out[k] : MEST_NONE;
    n->out = out;
    n->n_out = n->n_out > output ? n->n_out : output + 1;
    g->values[y].producer = id;
    g->values[y].output = output;
    return mest_infer_node(g, id, v->err) == MEST_OK ? y : MEST_NONE;
}

mest_id mest_dout(const mest_vjp *v, int output)
{
    mest_id y = mest_out(v, output);
    return y == MEST_NONE ? MEST_NONE : v->g->values[y].grad;
}

const mest_node *mest_vjp_node(const mest_vjp *v) { return here(v); }
const mest_type *mest_vjp_type(const mest_vjp *v, mest_id value) { return &v->g->values[value].type; }
const void *mest_vjp_data(const mest_vjp *v, mest_id value)
{
    return value != MEST_NONE && v->g->values[value].kind == MEST_VALUE_CONST ? v->g->values[value].data : NULL;
}
mest_error *mest_vjp_err(mest_vjp *v) { return v->err; }
void *mest_vjp_alloc(mest_vjp *v, size_t bytes) { return mest_region_alloc(&v->g->region, bytes, 1); }
mest_id mest_vjp_const(mest_vjp *v, const mest_type *type, const void *data) { return mest_graph_const(v->g, NULL, type, data); }

/* Emits a node of a helper or ONNX op and infers its output types. */
static mest_status emit(mest_graph *g, mest_id forward, const char *suffix, const char *op_name, const void *params, int n_in, const mest_id *in, int n_out,
                        const bool *want, mest_id *out, mest_error *err)
{
    const mest_op *op = mest_op_find(strncmp(op_name, "mest.", 5) == 0 ? "mest" : "", op_name, 1000);
    MEST_CHECK(op, err, MEST_E_INTERNAL, "autodiff: operator %s does not exist", op_name);
    char name[300];
    snprintf(name, sizeof name, "%.250s/%s", g->nodes[forward].name, suffix);
    mest_id id = mest_graph_node(g, name, op, params, n_in, in, n_out, NULL);
    MEST_CHECK(id != MEST_NONE, err, MEST_E_NOMEM, "autodiff: no memory for node '%s'", name);
    mest_node *n = &g->nodes[id];
    n->phase = MEST_PHASE_BACKWARD;
    n->forward = forward;
    MEST_TRY(mest_infer_node(g, id, err));
    n = &g->nodes[id];
    for (int i = 0; i < n_out; i++) {
        if (want && !want[i]) {
            g->values[n->out[i]].producer = MEST_NONE;
            n->out[i] = MEST_NONE;
        }
        out[i] = n->out[i];
    }
    return MEST_OK;
}

mest_status mest_emit(mest_vjp *v, const char *op, const void *params, int n_in, const mest_id *in, int n_out, const bool *want, mest_id *out)
{
    return emit(v->g, v->node, "grad", op, params ? params : here(v)->params, n_in, in, n_out, want, out, v->err);
}

static mest_status contribute(mest_vjp *v, mest_id x, mest_id gradient)
{
    if (!MEST_REGION_GROW(&v->g->region, v->list, v->n_list, v->cap_list))
        return mest_fail(v->err, MEST_E_NOMEM, "autodiff: out of memory");
    v->list[v->n_list] = (contribution){gradient, v->newest[x]};
    v->newest[x] = v->n_list++;
    return MEST_OK;
}

mest_status mest_give(mest_vjp *v, int input, mest_id gradient)
{
    mest_id x = mest_in(v, input);
    if (gradient == MEST_NONE || x == MEST_NONE || !v->needs[x])
        return MEST_OK;
    const mest_type *tx = &v->g->values[x].type, *tg = &v->g->values[gradient].type;
    if (tx->layout.kind != MEST_SPARSE && !mest_shape_equal(&tx->shape, &tg->shape)) {
        mest_shape_params *p = mest_vjp_alloc(v, sizeof *p);
        MEST_CHECK(p, v->err, MEST_E_NOMEM, "autodiff: out of memory");
        p->shape = tx->shape;
        MEST_TRY(emit(v->g, v->node, "unbroadcast", "mest.ReduceTo", p, 1, &gradient, 1, NULL, &gradient, v->err));
    }
    return contribute(v, x, gradient);
}

mest_status mest_give_op(mest_vjp *v, int input, const char *op, const void *params, int n_in, const mest_id *in)
{
    mest_id out;
    if (!mest_wants(v, input))
        return MEST_OK;
    MEST_TRY(mest_emit(v, op, params, n_in, in, 1, NULL, &out));
    return mest_give(v, input, out);
}

mest_status mest_give_grads(mest_vjp *v, const char *op, const void *params, int n_in, const mest_id *in, int n)
{
    bool want[4] = {false};
    mest_id out[4];
    for (int i = 0; i < n; i++)
        want[i] = mest_wants(v, i);
    MEST_TRY(mest_emit(v, op, params, n_in, in, n, want, out));
    for (int i = 0; i < n; i++)
        if (want[i])
            MEST_TRY(mest_give(v, i, out[i]));
    return MEST_OK;
}

/* Gives x a gradient that nothing computes: the graph will not run, but what is before x is to be judged too. */
static mest_status pretend(mest_vjp *v, mest_id x)
{
    if (x == MEST_NONE || x >= v->n_forward || !v->needs[x])
        return MEST_OK;
    mest_type type = v->g->values[x].type; /* a copy: the array may move */
    mest_id gradient = mest_graph_value(v->g, NULL, MEST_VALUE_INPUT, &type);
    MEST_CHECK(gradient != MEST_NONE, v->err, MEST_E_NOMEM, "autodiff: out of memory");
    return contribute(v, x, gradient);
}

static mest_status pretend_inputs(mest_vjp *v)
{
    for (int k = 0; k < here(v)->n_in; k++)
        MEST_TRY(pretend(v, here(v)->in[k]));
    return MEST_OK;
}

/* Where a survey cut the graph, gradients come from behind the cut. */
static mest_status seed_ends(mest_vjp *v)
{
    const mest_survey *s = v->g->survey;
    for (int32_t i = 0; s && i < s->n_ends; i++)
        MEST_TRY(pretend(v, s->ends[i]));
    return MEST_OK;
}

/* Sums the contributions to x into values[x].grad. `at` names the sum. */
static mest_status settle(mest_vjp *v, mest_id x, mest_id at)
{
    if (v->newest[x] < 0 || v->g->values[x].grad != MEST_NONE)
        return MEST_OK;
    int n = 0;
    for (int32_t c = v->newest[x]; c >= 0; c = v->list[c].next)
        n++;
    mest_id sum;
    if (n == 1) {
        sum = v->list[v->newest[x]].value;
    } else {
        mest_id *in = mest_vjp_alloc(v, (size_t)n * sizeof *in);
        MEST_CHECK(in, v->err, MEST_E_NOMEM, "autodiff: out of memory");
        int k = n;
        for (int32_t c = v->newest[x]; c >= 0; c = v->list[c].next)
            in[--k] = v->list[c].value;
        MEST_TRY(emit(v->g, at, "sum", "mest.AddN", NULL, n, in, 1, NULL, &sum, v->err));
    }
    v->g->values[x].grad = sum;
    return MEST_OK;
}

/* Marks what lies on a path from a wanted value; collects live ops without a gradient. */
static void mark(mest_vjp *v, const uint8_t *wanted, mest_id n_wanted, mest_id n_nodes)
{
    const mest_graph *g = v->g;
    for (mest_id i = 0; i < v->n_forward; i++)
        v->needs[i] = i < n_wanted && wanted[i];
    for (mest_id i = 0; i < n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        bool any = false;
        for (int k = 0; k < n->n_in; k++)
            any |= n->in[k] != MEST_NONE && v->needs[n->in[k]];
        if (!any || n->op->no_grad)
            continue;
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] != MEST_NONE && (g->values[n->out[k]].type.dtype == MEST_F32))
                v->needs[n->out[k]] = 1;
    }
}

/* wanted has an entry for each of the first n_wanted values. */
static mest_status differentiate(mest_graph *g, const uint8_t *wanted, mest_id n_wanted, int n_from, const mest_id *from, const mest_id *seed, mest_error *err)
{
    mest_vjp v = {.g = g, .n_forward = g->n_values, .err = err};
    mest_id n_nodes = g->n_nodes;
    v.needs = mest_region_alloc(&g->region, (size_t)g->n_values, 1);
    v.newest = mest_region_alloc(&g->region, (size_t)g->n_values, sizeof *v.newest);
    MEST_CHECK(v.needs && v.newest, err, MEST_E_NOMEM, "autodiff: out of memory");
    for (int i = 0; i < g->n_values; i++) {
        v.newest[i] = -1;
        g->values[i].grad = MEST_NONE;
    }
    mark(&v, wanted, n_wanted, n_nodes);
    bool depends = g->survey != NULL;
    for (int k = 0; k < n_from; k++)
        depends |= v.needs[from[k]];
    MEST_CHECK(depends, err, MEST_E_UNSUPPORTED, "the loss does not depend on any trainable parameter");
    for (int k = 0; k < n_from; k++)
        if (v.needs[from[k]])
            MEST_TRY(contribute(&v, from[k], seed[k]));
    MEST_TRY(seed_ends(&v));

    char missing[300] = "";
    size_t used = 0;
    int n_missing = 0;
    for (mest_id i = n_nodes - 1; i >= 0; i--) {
        bool any_in = false, any_out = false;
        for (int k = 0; k < g->nodes[i].n_in; k++)
            any_in |= g->nodes[i].in[k] != MEST_NONE && v.needs[g->nodes[i].in[k]];
        if (!any_in)
            continue;
        for (int k = 0; k < g->nodes[i].n_out; k++) {
            mest_id y = g->nodes[i].out[k];
            if (y == MEST_NONE || !v.needs[y])
                continue;
            MEST_TRY(settle(&v, y, i));
            any_out |= g->values[y].grad != MEST_NONE;
        }
        if (!any_out || g->nodes[i].op->no_grad)
            continue;
        v.node = i;
        mest_survey_live(g, i);
        mest_status status = g->nodes[i].op->vjp ? g->nodes[i].op->vjp(&v)
                                                 : mest_fail(err, MEST_E_UNSUPPORTED, "%s '%s': the operator has no gradient", g->nodes[i].op->name, g->nodes[i].name);
        const bool failed = status == MEST_E_UNSUPPORTED;
        if (failed && !g->survey) { /* those before it are to be named, too */
            const char *text = err && g->nodes[i].op->vjp ? err->msg : "";
            int w = snprintf(missing + used, sizeof missing - used, "%s%s '%s'%s%.120s%s", used ? ", " : "", g->nodes[i].op->name, g->nodes[i].name,
                             *text ? " (" : "", text, *text ? ")" : "");
            if (w > 0 && used + (size_t)w < sizeof missing)
                used += (size_t)w;
            n_missing++;
            mest_error_clear(err);
            status = MEST_OK;
        }
        MEST_TRY(mest_survey_backward(g, i, status, err));
        if (failed || status != MEST_OK)
            MEST_TRY(pretend_inputs(&v));
    }
    MEST_CHECK(n_missing == 0 || g->survey, err, MEST_E_UNSUPPORTED,
               "%d operator(s) between trainable parameters and the loss have no gradient: %s; freeze the parameters before them", n_missing, missing);
    mest_id *first_reader = mest_region_alloc(&g->region, (size_t)v.n_forward, sizeof *first_reader);
    MEST_CHECK(first_reader, err, MEST_E_NOMEM, "autodiff: out of memory");
    for (mest_id x = 0; x < v.n_forward; x++)
        first_reader[x] = n_nodes ? n_nodes - 1 : 0;
    for (mest_id i = n_nodes - 1; i >= 0; i--)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] != MEST_NONE && g->nodes[i].in[k] < v.n_forward)
                first_reader[g->nodes[i].in[k]] = i;
    for (mest_id x = 0; x < n_wanted; x++)
        if (wanted[x])
            MEST_TRY(settle(&v, x, first_reader[x]));
    return MEST_OK;
}

mest_status mest_autodiff_from(mest_graph *g, const uint8_t *wanted, int n_from, const mest_id *from, const mest_id *seed, mest_error *err)
{
    return differentiate(g, wanted, g->n_values, n_from, from, seed, err);
}

mest_status mest_autodiff(mest_graph *g, const uint8_t *wanted, mest_error *err)
{
    const mest_id n_wanted = g->n_values; /* the seed below comes behind them */
    MEST_CHECK(g->loss != MEST_NONE || g->survey, err, MEST_E_STATE, "autodiff: the graph has no loss");
    if (g->loss == MEST_NONE)
        return differentiate(g, wanted, n_wanted, 0, NULL, NULL, err);
    mest_real one = 1;
    mest_id seed = mest_graph_const(g, "dloss", &g->values[g->loss].type, &one);
    MEST_CHECK(seed != MEST_NONE, err, MEST_E_NOMEM, "autodiff: out of memory");
    return differentiate(g, wanted, n_wanted, 1, &g->loss, &seed, err);
}
