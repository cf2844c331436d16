/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/recompute.h"

#include <stdio.h>
#include <string.h>

#include "ops/nn.h"
#include "runtime/drop.h"
#include "runtime/plan.h"

typedef struct change {      /* from an order of numbers to nodes */
    mest_program *p;
    const mest_lives *l;
    const mest_lives_run *r;
    const uint8_t *dropped;
    mest_id *twin;           /* per value of the problem: the value that stands for its second life */
    double *key;             /* per node, old and new: its place */
    mest_step *steps;        /* per node, in the order of ids before sorting */
    mest_error *err;
} change;

/* The value that input number v of step s reads, after the change. */
static mest_id reads(const change *c, int32_t v, int32_t s)
{
    return v < 0 ? MEST_NONE : mest_lives_seen(c->r, c->dropped, v, s) != v ? c->twin[v] : v;
}

static mest_status fail_nomem(const change *c) { return mest_fail(c->err, MEST_E_NOMEM, "recomputation: out of memory"); }

/* Operator and inputs of the second run of node `id`. */
static const mest_op *second_form(const change *c, mest_id id, int32_t step, mest_id *in, int *n_in)
{
    const mest_node *n = &c->p->graph.nodes[id];
    const mest_lives_form *form = mest_lives_form_of(c->r, step);
    *n_in = form->n_in;
    for (int k = 0; k < form->n_in; k++)
        in[k] = reads(c, form->in[k], step);
    if (mest_plan_again_op(c->p, id))
        return mest_op_find("mest", n->op->again, 1);
    for (int k = 0; k < form->n_in && k < 32; k++)
        if (n->op->state_in >> k & 1)
            in[k] = MEST_NONE;
    return n->op;
}

/* Appends the second run that stands at `step` of the order. */
static mest_status add_again(change *c, int32_t step)
{
    mest_program *p = c->p;
    mest_graph *g = &p->graph;
    const mest_id id = c->r->op[step];
    const int32_t n_values = c->l->n_values;
    const int n_all = g->nodes[id].n_in + g->nodes[id].n_out;
    mest_id *in = mest_region_alloc(&g->region, (size_t)n_all, sizeof *in), *out = mest_region_alloc(&g->region, (size_t)n_all, sizeof *out);
    if (!in || !out)
        return fail_nomem(c);
    int n_in, n_out = g->nodes[id].n_out;
    const mest_op *op = second_form(c, id, step, in, &n_in);
    if (op != g->nodes[id].op)
        n_out = 1;
    char name[300];
    for (int k = 0; k < n_out; k++) {
        const mest_id v = g->nodes[id].out[k];
        out[k] = MEST_NONE;
        if (v == MEST_NONE || c->r->first[v + n_values] != step)
            continue;
        snprintf(name, sizeof name, "%.280s/again", g->values[v].name);
        out[k] = mest_graph_value(g, name, MEST_VALUE_RESULT, &g->values[v].type);
        if (out[k] == MEST_NONE)
            return fail_nomem(c);
        c->twin[v] = out[k];
    }
    snprintf(name, sizeof name, "%.280s/again", g->nodes[id].name);
    const mest_id made = mest_graph_node(g, name, op, g->nodes[id].params, n_in, in, n_out, out);
    if (made == MEST_NONE)
        return fail_nomem(c);
    mest_node *n = &g->nodes[made];
    n->phase = MEST_PHASE_BACKWARD;
    n->forward = id;
    c->key[made] = step;
    mest_step *st = &c->steps[made];
    *st = p->steps[id]; /* its state too: that of one node at a time is in use */
    st->borrowed = true;
    st->again = true;
    st->why = "computed again instead of kept";
    st->seconds = mest_lives_form_of(c->r, step)->seconds;
    p->n_again++;
    p->again_seconds += st->seconds;
    if (op == g->nodes[id].op)
        return MEST_OK;
    *st = (mest_step){.kernel = mest_plan_again_kernel(p, id), .why = st->why, .seconds = st->seconds, .again = true};
    if (!st->kernel || !st->kernel->prepare)
        return MEST_OK;
    mest_kernel_query q;
    mest_query_storage storage;
    mest_make_query(p, made, &q, &storage);
    return st->kernel->prepare(&q, &st->state, &st->scratch_bytes, c->err);
}

/* An update must come after every reader of its parameter, second runs included. */
static void updates_last(change *c)
{
    const mest_graph *g = &c->p->graph;
    for (mest_id i = c->l->n_ops; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            const mest_id v = g->nodes[i].in[k];
            if (v == MEST_NONE || g->values[v].kind != MEST_VALUE_PARAM)
                continue;
            for (mest_id u = 0; u < c->l->n_ops; u++)
                if (!strcmp(g->nodes[u].op->name, "mest.Update") && ((const mest_update_params *)g->nodes[u].params)->param == g->values[v].param &&
                    c->key[u] < c->key[i])
                    c->key[u] = c->key[i] + 0.5;
        }
}

static mest_status apply(change *c)
{
    mest_program *p = c->p;
    mest_graph *g = &p->graph;
    const mest_lives_run *r = c->r;
    for (int32_t v = 0; v < c->l->n_values; v++)
        c->twin[v] = MEST_NONE;
    for (int32_t s = 0; s < r->n_steps; s++) {
        if (r->again[s]) {
            MEST_TRY(add_again(c, s));
            continue;
        }
        const mest_id id = r->op[s];
        c->key[id] = s;
        c->steps[id] = p->steps[id];
        for (int k = 0; k < g->nodes[id].n_in; k++)
            g->nodes[id].in[k] = reads(c, g->nodes[id].in[k], s);
    }
    updates_last(c);
    for (mest_id i = 0; i < g->n_nodes; i++)
        g->nodes[i].mark = i;
    mest_step *ordered = mest_region_alloc(&g->region, (size_t)g->n_nodes + 1, sizeof *ordered);
    if (!ordered)
        return fail_nomem(c);
    mest_status status = mest_graph_order(g, c->key, c->err);
    for (mest_id i = 0; i < g->n_nodes; i++)
        ordered[i] = c->steps[g->nodes[i].mark];
    p->steps = ordered; /* even if the order failed: every state has its owner */
    return status;
}

static mest_status change_program(mest_program *p, const mest_lives *l, const mest_lives_run *r, const uint8_t *dropped, mest_error *err)
{
    mest_region *region = &p->graph.region;
    change c = {.p = p, .l = l, .r = r, .dropped = dropped, .err = err};
    c.twin = mest_region_alloc(region, (size_t)l->n_values + 1, sizeof *c.twin);
    c.key = mest_region_alloc(region, (size_t)r->n_steps + 1, sizeof *c.key);
    c.steps = mest_region_alloc(region, (size_t)r->n_steps + 1, sizeof *c.steps);
    if (!c.twin || !c.key || !c.steps)
        return fail_nomem(&c);
    mest_status status = apply(&c);
    if (status == MEST_OK)
        status = mest_graph_check(&p->graph, "recompute", err);
    return status;
}

/* The set for a limit on the arena: placement may need a little more than what is alive, so the search is asked for that much less. */
static mest_status choose(const mest_lives *l, mest_lives_run *r, size_t limit, uint8_t *dropped, mest_error *err)
{
    size_t target = limit, end = 0;
    for (int round = 0; round < 4; round++) {
        mest_drop_result result;
        MEST_TRY(mest_drop_search(l, target, dropped, &result, err));
        mest_lives_evaluate(r, dropped, limit);
        MEST_TRY(mest_plan_place(l, r, NULL, NULL, &end, err));
        if (end <= limit || result.peak > target || end - limit >= target)
            break;
        target -= end - limit;
    }
    if (end > limit) { /* the search has other starts when it looks for the least */
        mest_drop_result result;
        MEST_TRY(mest_drop_within(l, 1e300, dropped, &result, err));
        mest_lives_evaluate(r, dropped, limit);
    }
    return MEST_OK;
}

mest_status mest_recompute(mest_program *p, mest_error *err)
{
    const mest_program_spec *spec = &p->spec;
    p->seconds = 0;
    for (mest_id i = 0; i < p->graph.n_nodes; i++)
        p->seconds += p->steps[i].seconds;
    if (spec->recompute == MEST_RECOMPUTE_OFF || spec->kind != MEST_PROGRAM_TRAIN || spec->survey)
        return MEST_OK;
    mest_heap *heap = &p->model->heap;
    mest_lives lives;
    mest_lives_run run = {.problem = NULL};
    MEST_TRY(mest_plan_lives(p, &lives, err));
    const size_t n = (size_t)lives.n_values + 1;
    uint8_t *dropped = mest_calloc(heap, n, 1);
    mest_drop_result result;
    size_t end = 0;
    mest_status status = dropped ? mest_lives_run_create(&run, &lives, err) : mest_fail(err, MEST_E_NOMEM, "recomputation: out of memory");
    if (status == MEST_OK) {
        mest_lives_evaluate(&run, NULL, SIZE_MAX);
        status = mest_plan_place(&lives, &run, NULL, NULL, &end, err);
    }
    bool needed = status == MEST_OK;
    if (needed && spec->recompute == MEST_RECOMPUTE_LIMIT) {
        needed = end > spec->arena_limit;
        if (needed)
            status = choose(&lives, &run, spec->arena_limit, dropped, err);
    } else if (needed) {
        status = mest_drop_within(&lives, spec->recompute == MEST_RECOMPUTE_LEAST ? 1e300 : spec->recompute_share * p->seconds, dropped, &result, err);
        if (status == MEST_OK)
            mest_lives_evaluate(&run, dropped, SIZE_MAX);
    }
    if (status == MEST_OK && needed && run.seconds_again > 0)
        status = change_program(p, &lives, &run, dropped, err);
    mest_lives_run_free(&run);
    mest_free(heap, dropped, n, 1);
    mest_lives_free(&lives);
    return status;
}
