/* SPDX-License-Identifier: Apache-2.0 */
/* Every node alone. While the program runs forward, a node that has a gradient is put into a program of its own, on the values that go into
 * it here; L = sum of C * y over its results y, C random, is differentiated by its rule and by differences. So a wrong rule is found at the
 * node that has it, and the whole network costs a few forward passes. */
#include <math.h>
#include <stdlib.h>

#include "runtime/autodiff.h"
#include "runtime/gradcheck/gradcheck.h"
#include "runtime/infer.h"

enum { MANY = 32, DIRECTIONS = 2 };
static const double jitter = 1e-3; /* of a value: ties are left */

typedef struct operand {       /* an input by which is differentiated */
    mest_id outer, inner;      /* value of the program, of the node's own */
    mest_param *param;         /* NULL: a value */
    mest_real *x;              /* what is moved: the parameter's values, or a copy of the value */
    mest_real *x0, *dx;        /* at rest; gradient by the rule */
    size_t n;
    double limit;              /* what is larger stays: the -1e9 of a mask */
    double size;               /* root mean square of the rest */
} operand;

typedef struct lone {          /* the node on its own */
    gradcheck *c;
    const mest_node *node;
    mest_program *p;
    mest_arena arena;
    mest_region region;
    operand operand[MANY];
    int n_operands;
    mest_id y[MANY], dy[MANY];
    mest_real *weight[MANY];   /* C */
    size_t n_y[MANY];
    int n_results;
} lone;

static mest_status out_of_memory(lone *l) { return mest_fail(l->c->err, MEST_E_NOMEM, "gradcheck: no memory for node '%s' alone", l->node->name); }

static bool has_gradient(const gradcheck *c, mest_id v)
{
    const mest_value *value = v == MEST_NONE ? NULL : &c->p->graph.values[v];
    return value && value->grad != MEST_NONE && value->type.dtype == MEST_F32;
}

/* Inputs of the node as values of its own graph; one that comes twice is one. */
static mest_status make_inputs(lone *l, mest_graph *g, mest_id *in)
{
    const mest_graph *outer = &l->c->p->graph;
    for (int k = 0; k < l->node->n_in; k++) {
        in[k] = MEST_NONE;
        mest_id v = l->node->in[k];
        for (int j = 0; j < k && in[k] == MEST_NONE; j++)
            if (l->node->in[j] == v)
                in[k] = in[j];
        if (v == MEST_NONE || in[k] != MEST_NONE)
            continue;
        const mest_value *from = &outer->values[v];
        mest_value_kind kind = from->kind == MEST_VALUE_RESULT ? MEST_VALUE_INPUT : from->kind;
        in[k] = mest_graph_value(g, from->name, kind, &from->type);
        if (in[k] == MEST_NONE)
            return out_of_memory(l);
        g->values[in[k]].param = from->param;
        g->values[in[k]].data = from->data;
        if (from->kind != MEST_VALUE_CONST && l->c->learns[v] && l->n_operands < MANY)
            l->operand[l->n_operands++] = (operand){.outer = v, .inner = in[k], .param = from->kind == MEST_VALUE_PARAM ? &l->c->model->params[from->param] : NULL};
    }
    return MEST_OK;
}

static mest_status build(lone *l)
{
    gradcheck *c = l->c;
    mest_error *err = c->err;
    l->p = mest_calloc(c->session->heap, 1, sizeof *l->p);
    mest_id *in = mest_region_alloc(&l->region, (size_t)l->node->n_in + 1, sizeof *in);
    if (!l->p || !in)
        return out_of_memory(l);
    mest_program *p = l->p;
    mest_graph *g = &p->graph;
    p->spec = c->p->spec;
    p->spec.arena = &l->arena;
    p->spec.profile = NULL;
    p->model = c->model;
    p->input = p->target = p->logits = p->loss = p->row_loss = p->correct = MEST_NONE;
    mest_graph_init(g, c->session->heap);
    MEST_TRY(make_inputs(l, g, in));
    mest_id node = mest_graph_node(g, l->node->name, l->node->op, l->node->params, l->node->n_in, in, l->node->n_out, NULL);
    if (node == MEST_NONE)
        return out_of_memory(l);
    g->nodes[node].origin = l->node->origin;
    for (int k = 0; k < l->node->n_out; k++)
        if (l->node->out[k] == MEST_NONE) { /* not wanted here either */
            g->values[g->nodes[node].out[k]].producer = MEST_NONE;
            g->nodes[node].out[k] = MEST_NONE;
        }
    MEST_TRY(mest_infer_node(g, node, err));
    for (int k = 0; k < l->node->n_out; k++) {
        mest_id y = g->nodes[node].out[k];
        if (y == MEST_NONE || !has_gradient(c, l->node->out[k]) || l->n_results == MANY)
            continue;
        mest_type type = g->values[y].type;
        l->y[l->n_results] = y;
        l->dy[l->n_results] = mest_graph_value(g, "dy", MEST_VALUE_INPUT, &type);
        if (l->dy[l->n_results++] == MEST_NONE)
            return out_of_memory(l);
    }
    uint8_t *wanted = mest_region_alloc(&l->region, (size_t)g->n_values + 1, 1);
    if (!wanted)
        return out_of_memory(l);
    for (int i = 0; i < l->n_operands; i++)
        wanted[l->operand[i].inner] = 1;
    MEST_TRY(mest_autodiff_from(g, wanted, l->n_results, l->y, l->dy, err));
    g->outputs = mest_region_alloc(&g->region, (size_t)(l->n_results + l->n_operands) + 1, sizeof *g->outputs);
    if (!g->outputs)
        return out_of_memory(l);
    for (int i = 0; i < l->n_results; i++)
        g->outputs[g->n_outputs++] = l->y[i];
    for (int i = 0; i < l->n_operands; i++)
        if (g->values[l->operand[i].inner].grad != MEST_NONE)
            g->outputs[g->n_outputs++] = g->values[l->operand[i].inner].grad;
    MEST_TRY(mest_graph_prune(g, err));
    return mest_program_finish(p, err);
}

static bool moves(const operand *o, size_t i) { return fabs((double)o->x0[i]) <= o->limit; } /* not a number: no */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Masks put numbers among the others that are larger by orders; a step in proportion to those would say nothing about the others. */
static void measure(operand *o)
{
    enum { SAMPLE = 512 };
    double sample[SAMPLE], sum = 0;
    size_t n = 0, step = o->n / SAMPLE + 1, finite = 0;
    for (size_t i = 0; i < o->n && n < SAMPLE; i += step)
        if (o->x0[i] != 0 && isfinite((double)o->x0[i]))
            sample[n++] = fabs((double)o->x0[i]);
    qsort(sample, n, sizeof *sample, ascending);
    o->limit = n ? 1e5 * sample[n / 5] : 1;
    for (size_t i = 0; i < o->n; i++)
        if (moves(o, i)) {
            sum += (double)o->x0[i] * (double)o->x0[i];
            finite++;
        }
    o->size = sum > 0 ? sqrt(sum / (double)finite) : 1e-2;
}

/* Towards zero, so that nothing leaves a domain (Acos, Log); zeros become small and positive. */
static void leave_ties(mest_real *x, size_t n, double size, uint64_t key)
{
    for (size_t i = 0; i < n; i++) {
        double u = mest_rng_uniform(key, 76, i);
        x[i] = x[i] == 0 ? (mest_real)(jitter * size * (0.1 + u)) : x[i] * (mest_real)(1 - jitter * u);
    }
}

static mest_status fill(lone *l, uint64_t key)
{
    gradcheck *c = l->c;
    for (int i = 0; i < l->n_operands; i++) {
        operand *o = &l->operand[i];
        o->n = o->param ? (size_t)mest_param_stored(o->param) : c->p->tensors[o->outer].count;
        mest_real *room = mest_region_alloc(&l->region, 3 * (o->n + 16), sizeof *room);
        if (!room)
            return out_of_memory(l);
        const mest_real *now = o->param ? mest_param_data(o->param) : c->p->tensors[o->outer].data;
        o->x0 = room;
        o->dx = room + o->n + 16;
        o->x = o->param ? mest_param_data(o->param) : o->dx + o->n + 16;
        memcpy(o->x0, now, o->n * sizeof *now);
        measure(o);
        if (!o->param) {
            leave_ties(o->x0, o->n, o->size, key + (uint64_t)i);
            memcpy(o->x, o->x0, o->n * sizeof *o->x);
            mest_program_feed(l->p, o->inner, o->x);
        }
    }
    const mest_graph *g = &l->p->graph;
    for (mest_id i = 0; i < g->n_nodes && g->nodes[i].phase == MEST_PHASE_FORWARD; i++)
        for (int k = 0; k < g->nodes[i].n_in && g->nodes[i].n_in == l->node->n_in; k++) {
            mest_id v = g->nodes[i].in[k];
            bool operand_too = false;
            for (int j = 0; j < l->n_operands; j++)
                operand_too |= l->operand[j].inner == v;
            if (v != MEST_NONE && g->values[v].kind == MEST_VALUE_INPUT && !operand_too)
                mest_program_feed(l->p, v, c->p->tensors[l->node->in[k]].data);
        }
    for (int i = 0; i < l->n_results; i++) {
        l->n_y[i] = l->p->tensors[l->y[i]].count;
        l->weight[i] = mest_region_alloc(&l->region, l->n_y[i] + 16, sizeof(mest_real));
        if (!l->weight[i])
            return out_of_memory(l);
        mest_program_feed(l->p, l->dy[i], l->weight[i]);
    }
    return MEST_OK;
}

/* L, and the sum of what it adds up. */
static mest_status evaluate(lone *l, double *value, double *magnitude)
{
    MEST_TRY(mest_program_run(l->p, &l->c->run, true, l->c->err));
    *value = *magnitude = 0;
    for (int i = 0; i < l->n_results; i++) {
        const mest_real *y = l->p->tensors[l->y[i]].data;
        for (size_t k = 0; k < l->n_y[i]; k++)
            if (l->weight[i][k] != 0) {
                double term = (double)(l->weight[i][k] * y[k]);
                *value += term;
                *magnitude += fabs(term);
            }
    }
    return MEST_OK;
}

static void move(operand *o, double h, uint64_t key)
{
    for (size_t i = 0; i < o->n; i++)
        o->x[i] = moves(o, i) ? o->x0[i] + (mest_real)(h * o->size * gradcheck_sign(key, i)) : o->x0[i];
    if (o->param && o->param->sparse)
        o->param->sparse->value_version++;
    else if (o->param)
        o->param->value_version++;
}

static mest_status differentiate_numerically(lone *l, operand *o, double h, uint64_t key, double *numeric, double *noise)
{
    double plus, minus, size_plus, size_minus;
    move(o, h, key);
    mest_status status = evaluate(l, &plus, &size_plus);
    move(o, -h, key);
    if (status == MEST_OK)
        status = evaluate(l, &minus, &size_minus);
    move(o, 0, key);
    MEST_TRY(status);
    *numeric = (plus - minus) / (2 * h * o->size);
    *noise = 8 * 2.3e-16 * (size_plus + size_minus) / (2 * h * o->size);
    return MEST_OK;
}

static mest_status check_operand(lone *l, operand *o, uint64_t key)
{
    const gradcheck *c = l->c;
    const mest_node *origin = l->node->source >= 0 ? &c->model->graph.nodes[l->node->source] : l->node;
    mest_gradcheck_item item = {.kind = MEST_GRADCHECK_NODE, .name = l->node->name, .op = origin->op->name, .input = c->p->graph.values[o->outer].name};
    for (int d = 0; d < DIRECTIONS && item.result == MEST_GRADCHECK_GOOD; d++) {
        double analytic = 0, length = 0, numeric = 0, noise = 0, error = 0, best = INFINITY;
        for (size_t i = 0; i < o->n; i++)
            if (moves(o, i)) {
                double term = (double)o->dx[i] * gradcheck_sign(key + (uint64_t)d, i);
                analytic += term;
                length += term * term;
            }
        length = sqrt(length);
        bool good = false;
        double best_numeric = 0, step = 0;
        for (int k = 0; !good && gradcheck_step(k) > 0; k++) {
            MEST_TRY(differentiate_numerically(l, o, gradcheck_step(k), key + (uint64_t)d, &numeric, &noise));
            good = gradcheck_agree(c, analytic, numeric, length, noise, &error);
            if (good || error < best || k == 0) {
                best = error;
                best_numeric = numeric;
                step = gradcheck_step(k);
            }
        }
        if (d && good && best < item.error) /* the worse of two directions is told */
            continue;
        item.analytic = analytic;
        item.numeric = best_numeric;
        item.error = best;
        item.step = step;
        item.result = good ? MEST_GRADCHECK_GOOD : MEST_GRADCHECK_OFF;
    }
    gradcheck_report(l->c, &item);
    return MEST_OK;
}

static mest_status check_alone(lone *l, uint64_t key)
{
    double value, magnitude;
    MEST_TRY(build(l));
    MEST_TRY(fill(l, key));
    MEST_TRY(mest_program_run(l->p, &l->c->run, true, l->c->err));
    for (int i = 0; i < l->n_results; i++) { /* a masked -inf has no part in L */
        const mest_real *y = l->p->tensors[l->y[i]].data;
        for (size_t k = 0; k < l->n_y[i]; k++)
            l->weight[i][k] = isfinite((double)y[k]) ? (mest_real)gradcheck_noise(key + 7, k) : 0;
    }
    MEST_TRY(evaluate(l, &value, &magnitude));
    MEST_TRY(mest_program_run(l->p, &l->c->run, false, l->c->err));
    for (int i = 0; i < l->n_operands; i++) {
        operand *o = &l->operand[i];
        const mest_real *dx = mest_program_data(l->p, l->p->graph.values[o->inner].grad);
        if (dx)
            memcpy(o->dx, dx, o->n * sizeof *dx);
    }
    for (int i = 0; i < l->n_operands; i++)
        MEST_TRY(check_operand(l, &l->operand[i], key + 1000 * (uint64_t)(i + 1)));
    l->c->sum->n_nodes++;
    return MEST_OK;
}

static void unchecked(gradcheck *c, const mest_node *n, const char *why)
{
    mest_gradcheck_item item = {.kind = MEST_GRADCHECK_NODE, .result = MEST_GRADCHECK_UNCHECKED, .name = n->name, .op = n->op->name, .why = why};
    gradcheck_report(c, &item);
}

static mest_status check_node(gradcheck *c, mest_id id)
{
    lone l = {.c = c, .node = &c->p->graph.nodes[id]};
    bool any_in = false, any_out = false, plain = true;
    for (int k = 0; k < l.node->n_in; k++) {
        any_in |= l.node->in[k] != MEST_NONE && c->learns[l.node->in[k]];
        plain &= l.node->in[k] == MEST_NONE || c->p->graph.values[l.node->in[k]].type.layout.kind != MEST_PIXEL;
    }
    for (int k = 0; k < l.node->n_out; k++)
        any_out |= has_gradient(c, l.node->out[k]);
    if (!any_in || !any_out)
        return MEST_OK;
    if (!plain) {
        unchecked(c, l.node, "it runs in a layout of its own");
        return MEST_OK;
    }
    if (!gradcheck_time_left(c, 0.6)) {
        unchecked(c, l.node, "no time was left");
        return MEST_OK;
    }
    mest_region_init(&l.region, c->session->heap);
    l.arena.heap = c->session->heap;
    l.arena.generation = 1;
    mest_status status = check_alone(&l, c->run.seed + 100000 * (uint64_t)(id + 1));
    if (l.p)
        mest_program_destroy(l.p);
    mest_arena_free(&l.arena);
    mest_region_free(&l.region);
    if (status == MEST_OK || status == MEST_E_NOMEM)
        return status;
    unchecked(c, l.node, c->err->msg);
    mest_error_clear(c->err);
    return MEST_OK;
}

mest_status gradcheck_nodes(gradcheck *c)
{
    MEST_TRY(gradcheck_feed(c));
    MEST_TRY(mest_program_begin(c->p, c->err));
    for (mest_id i = 0; i < c->p->first_backward; i++) {
        MEST_TRY(check_node(c, i));
        MEST_TRY(mest_program_begin(c->p, c->err));
        MEST_TRY(mest_program_step(c->p, i, &c->run, c->err));
    }
    return MEST_OK;
}
