/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/lives.h"

#include <string.h>

mest_status mest_lives_create(mest_lives *l, mest_heap *heap, int32_t n_ops, int32_t n_values, mest_error *err)
{
    memset(l, 0, sizeof *l);
    l->heap = heap;
    l->n_ops = n_ops;
    l->n_values = n_values;
    l->ops = mest_calloc(heap, (size_t)n_ops + 1, sizeof *l->ops);
    l->values = mest_calloc(heap, (size_t)n_values + 1, sizeof *l->values);
    if (l->ops && l->values)
        return MEST_OK;
    mest_lives_free(l);
    return mest_fail(err, MEST_E_NOMEM, "memory plan: no memory for the lifetimes of %d values", n_values);
}

void mest_lives_free(mest_lives *l)
{
    mest_free(l->heap, l->ops, (size_t)l->n_ops + 1, sizeof *l->ops);
    mest_free(l->heap, l->values, (size_t)l->n_values + 1, sizeof *l->values);
    l->ops = NULL;
    l->values = NULL;
}

static size_t most_steps(const mest_lives *l) { return 2 * (size_t)l->n_ops + 1; }
static size_t most_values(const mest_lives *l) { return 2 * (size_t)l->n_values + 1; }

mest_status mest_lives_run_create(mest_lives_run *r, const mest_lives *l, mest_error *err)
{
    memset(r, 0, sizeof *r);
    r->problem = l;
    const size_t steps = most_steps(l), values = most_values(l);
    r->op = mest_alloc(l->heap, steps, sizeof *r->op);
    r->again = mest_alloc(l->heap, steps, sizeof *r->again);
    r->live = mest_alloc(l->heap, steps, sizeof *r->live);
    r->stack = mest_alloc(l->heap, steps, sizeof *r->stack);
    r->first = mest_alloc(l->heap, values, sizeof *r->first);
    r->last = mest_alloc(l->heap, values, sizeof *r->last);
    r->root = mest_alloc(l->heap, values, sizeof *r->root);
    if (r->op && r->again && r->live && r->stack && r->first && r->last && r->root)
        return MEST_OK;
    mest_lives_run_free(r);
    return mest_fail(err, MEST_E_NOMEM, "memory plan: no memory for an order of %d operations", l->n_ops);
}

void mest_lives_run_free(mest_lives_run *r)
{
    const mest_lives *l = r->problem;
    if (!l)
        return;
    const size_t steps = most_steps(l), values = most_values(l);
    mest_free(l->heap, r->op, steps, sizeof *r->op);
    mest_free(l->heap, r->again, steps, sizeof *r->again);
    mest_free(l->heap, r->live, steps, sizeof *r->live);
    mest_free(l->heap, r->stack, steps, sizeof *r->stack);
    mest_free(l->heap, r->first, values, sizeof *r->first);
    mest_free(l->heap, r->last, values, sizeof *r->last);
    mest_free(l->heap, r->root, values, sizeof *r->root);
    memset(r, 0, sizeof *r);
}

static void append(mest_lives_run *r, int32_t op, bool again)
{
    r->op[r->n_steps] = op;
    r->again[r->n_steps] = again;
    r->n_steps++;
}

/* Appends the second runs that make the twin of v, inputs first. `first` of a twin doubles as the mark that it is made. */
static void make_again(mest_lives_run *r, const uint8_t *dropped, int32_t v)
{
    const mest_lives *l = r->problem;
    int32_t top = 0;
    r->stack[top++] = l->values[v].producer;
    while (top > 0) {
        const mest_lives_op *op = &l->ops[r->stack[top - 1]];
        bool ready = true;
        for (int32_t k = 0; k < op->again.n_in && ready; k++) {
            const int32_t u = op->again.in[k];
            if (u < 0 || !dropped[u] || r->first[u + l->n_values] != INT32_MAX)
                continue;
            ready = false;
            r->stack[top++] = l->values[u].producer;
        }
        if (!ready)
            continue;
        bool made = true;
        for (int32_t k = 0; k < op->n_out; k++)
            if (op->out[k] >= 0 && (dropped[op->out[k]] || k == 0)) {
                int32_t *first = &r->first[op->out[k] + l->n_values];
                made &= *first != INT32_MAX;
                *first = r->n_steps;
            }
        top--;
        if (!made) {
            r->seconds_again += op->again.seconds;
            append(r, (int32_t)(op - l->ops), true);
        }
    }
}

static void order(mest_lives_run *r, const uint8_t *dropped)
{
    const mest_lives *l = r->problem;
    r->n_steps = 0;
    r->seconds_again = 0;
    for (int32_t i = 0; i < l->n_ops; i++) {
        const mest_lives_op *op = &l->ops[i];
        if (dropped && !op->forward)
            for (int32_t k = 0; k < op->form.n_in; k++) {
                const int32_t v = op->form.in[k];
                if (v >= 0 && dropped[v] && r->first[v + l->n_values] == INT32_MAX)
                    make_again(r, dropped, v);
            }
        append(r, i, false);
    }
}

static bool planned(const mest_lives *l, int32_t id) { return l->values[id % l->n_values].planned; }
static size_t bytes_of(const mest_lives *l, int32_t id) { return l->values[id % l->n_values].bytes; }
static int32_t written(const mest_lives_run *r, int32_t v, int32_t step) { return r->again[step] ? v + r->problem->n_values : v; }

/* Views share memory; an output may take over an input that nobody reads after this step. Steps come in order, so that the end of a root is
 * final when it is asked for: whoever shares it later reads it later. */
static void share(mest_lives_run *r, const uint8_t *dropped, int32_t step)
{
    const mest_lives *l = r->problem;
    const mest_lives_op *op = &l->ops[r->op[step]];
    const mest_lives_form *form = mest_lives_form_of(r, step);
    if (op->n_out == 0 || op->out[0] < 0 || !l->values[op->out[0]].planned || (!form->view && !form->over))
        return;
    const int32_t y = written(r, op->out[0], step);
    for (int32_t k = 0; k < form->n_in && k < 32; k++) {
        if (form->in[k] < 0 || !(form->view ? k == 0 : form->over >> k & 1))
            continue;
        const int32_t root = mest_lives_root(r, mest_lives_seen(r, dropped, form->in[k], step));
        if (!planned(l, root))
            continue;
        bool fits = form->view || (r->last[root] == step && bytes_of(l, y) <= bytes_of(l, root));
        for (int32_t j = 0; j < form->n_in && fits && !form->view; j++) /* read through another input as well? */
            fits = j == k || form->in[j] < 0 || mest_lives_root(r, mest_lives_seen(r, dropped, form->in[j], step)) != root;
        if (!fits)
            continue;
        r->root[y] = root;
        if (r->last[y] > r->last[root])
            r->last[root] = r->last[y];
        return;
    }
}

/* First and last step of every number, before anything is shared. */
static void mark(mest_lives_run *r, const uint8_t *dropped)
{
    const mest_lives *l = r->problem;
    for (int32_t s = 0; s < r->n_steps; s++) {
        const mest_lives_op *op = &l->ops[r->op[s]];
        const mest_lives_form *form = mest_lives_form_of(r, s);
        for (int32_t k = 0; k < form->n_in; k++)
            if (form->in[k] >= 0)
                r->last[mest_lives_seen(r, dropped, form->in[k], s)] = s;
        for (int32_t k = 0; k < op->n_out; k++) {
            if (op->out[k] < 0 || (r->again[s] && k > 0 && !dropped[op->out[k]]))
                continue;
            const int32_t id = written(r, op->out[k], s);
            r->first[id] = s;
            r->last[id] = s;
        }
    }
    for (int32_t v = 0; v < l->n_values; v++)
        if (l->values[v].kept)
            r->last[v] = r->n_steps;
}

/* If the memory behind `id` ends at step s: its bytes, once (`last` remembers that they were taken until put_back). */
static size_t take(mest_lives_run *r, int32_t id, int32_t s)
{
    const int32_t root = mest_lives_root(r, id);
    if (!planned(r->problem, root) || r->last[root] != s)
        return 0;
    r->last[root] = -s - 2;
    return bytes_of(r->problem, root);
}
static void put_back(mest_lives_run *r, int32_t id, int32_t s)
{
    const int32_t root = mest_lives_root(r, id);
    if (r->last[root] == -s - 2)
        r->last[root] = s;
}

static size_t ending(mest_lives_run *r, const uint8_t *dropped, int32_t s)
{
    const mest_lives_op *op = &r->problem->ops[r->op[s]];
    const mest_lives_form *form = mest_lives_form_of(r, s);
    size_t bytes = 0;
    for (int32_t k = 0; k < form->n_in; k++)
        if (form->in[k] >= 0)
            bytes += take(r, mest_lives_seen(r, dropped, form->in[k], s), s);
    for (int32_t k = 0; k < op->n_out; k++)
        if (op->out[k] >= 0)
            bytes += take(r, written(r, op->out[k], s), s);
    for (int32_t k = 0; k < form->n_in; k++)
        if (form->in[k] >= 0)
            put_back(r, mest_lives_seen(r, dropped, form->in[k], s), s);
    for (int32_t k = 0; k < op->n_out; k++)
        if (op->out[k] >= 0)
            put_back(r, written(r, op->out[k], s), s);
    return bytes;
}

void mest_lives_evaluate(mest_lives_run *r, const uint8_t *dropped, size_t limit)
{
    const mest_lives *l = r->problem;
    const int32_t n_ids = 2 * l->n_values;
    for (int32_t i = 0; i < n_ids; i++) {
        r->first[i] = INT32_MAX;
        r->last[i] = -1;
        r->root[i] = i;
    }
    order(r, dropped);
    mark(r, dropped);
    size_t live = 0;
    r->peak = 0;
    r->peak_step = 0;
    r->excess = 0;
    for (int32_t s = 0; s < r->n_steps; s++) {
        const mest_lives_op *op = &l->ops[r->op[s]];
        share(r, dropped, s);
        for (int32_t k = 0; k < op->n_out; k++) {
            const int32_t id = op->out[k] < 0 ? -1 : written(r, op->out[k], s);
            if (id >= 0 && r->first[id] == s && r->root[id] == id && planned(l, id))
                live += bytes_of(l, id);
        }
        r->live[s] = live + mest_lives_form_of(r, s)->scratch;
        if (r->live[s] > r->peak) {
            r->peak = r->live[s];
            r->peak_step = s;
        }
        if (r->live[s] > limit)
            r->excess += (double)(r->live[s] - limit);
        live -= ending(r, dropped, s);
    }
}
