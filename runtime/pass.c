/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/pass.h"

#include <stdio.h>
#include <string.h>

#include "runtime/program.h"

#define MEST_PASS(name) extern const mest_pass mest_pass_##name;
#include "runtime/passes/passes.def"
#undef MEST_PASS

static const mest_pass *const table[] = {
#define MEST_PASS(name) &mest_pass_##name,
#include "runtime/passes/passes.def"
#undef MEST_PASS
    NULL};

int mest_pass_count(void) { return (int)(sizeof table / sizeof *table) - 1; }
const mest_pass *mest_pass_at(int index) { return index >= 0 && index < mest_pass_count() ? table[index] : NULL; }

/* Next name of a comma-separated list: *at moves behind it. */
static bool next_name(const char **at, const char **name, size_t *n)
{
    while (**at == ',' || **at == ' ')
        ++*at;
    *name = *at;
    *n = strcspn(*at, ", ");
    *at += *n;
    return *n > 0;
}

static bool same(const char *name, size_t n, const char *text) { return strlen(text) == n && !strncmp(name, text, n); }

bool mest_pass_is_off(const mest_pass *pass, const char *off)
{
    const char *name;
    size_t n;
    while (off && !pass->required && next_name(&off, &name, &n))
        if (same(name, n, "all") || same(name, n, pass->name))
            return true;
    return false;
}

mest_status mest_passes_check(const char *off, mest_error *err)
{
    const char *name;
    size_t n;
    while (off && next_name(&off, &name, &n)) {
        bool found = same(name, n, "all");
        char known[400] = "";
        for (int i = 0; table[i]; i++) {
            if (same(name, n, table[i]->name)) {
                MEST_CHECK(!table[i]->required, err, MEST_E_ARGUMENT, "pass '%s' cannot be turned off: it is part of what a program is", table[i]->name);
                found = true;
            }
            if (!table[i]->required)
                snprintf(known + strlen(known), sizeof known - strlen(known), ", %s", table[i]->name);
        }
        MEST_CHECK(found, err, MEST_E_ARGUMENT, "'%.*s' is no pass; there are all%s", (int)(n < 80 ? n : 80), name, known);
    }
    return MEST_OK;
}

/* Readers of values [0, n). */
static void count_uses(const mest_graph *g, int32_t *uses, int32_t n)
{
    memset(uses, 0, (size_t)n * sizeof *uses);
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] != MEST_NONE && g->nodes[i].in[k] < n)
                uses[g->nodes[i].in[k]]++;
    for (int i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] < n)
            uses[g->outputs[i]]++;
    if (g->loss != MEST_NONE && g->loss < n)
        uses[g->loss]++;
}

/* Nodes that were added go where they belong, in the order in which they were made. */
static mest_status place_added(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    if (a->n_before == 0)
        return MEST_OK;
    const int32_t old = g->n_nodes - a->n_before;
    double *key = mest_alloc(g->region.heap, (size_t)g->n_nodes, sizeof *key);
    MEST_CHECK(key, a->err, MEST_E_NOMEM, "pass: out of memory");
    for (int32_t i = 0; i < g->n_nodes; i++)
        key[i] = i < old ? i : a->before[i - old] - 1 + (double)(i - old + 1) / (double)(a->n_before + 1);
    const size_t n = (size_t)g->n_nodes;
    mest_status status = mest_graph_order(g, key, a->err);
    mest_free(g->region.heap, key, n, sizeof *key);
    return status;
}

mest_status mest_pass_settle(mest_pass_args *a, mest_id *at)
{
    mest_graph *g = a->graph;
    const mest_id was = *at;
    MEST_TRY(mest_program_prune(a->program, a->err));
    mest_id i = 0;
    for (; i < g->n_nodes && g->nodes[i].mark <= was; i++) /* where they were; the order is kept */
        ;
    *at = i - 1;
    for (mest_id k = 0; k < g->n_nodes; k++)
        g->nodes[k].mark = 0;
    count_uses(g, a->uses, a->n_uses);
    return MEST_OK;
}

mest_status mest_passes_run(mest_pass_phase phase, mest_graph *g, mest_model *m, const mest_program_spec *spec, mest_program *program, const char *off,
                            int *counts, mest_error *err)
{
    for (int i = 0; table[i]; i++) {
        const mest_pass *pass = table[i];
        if (pass->phase != phase || (spec && !(pass->serves >> spec->kind & 1)) || mest_pass_is_off(pass, off))
            continue;
        mest_pass_args a = {.graph = g, .model = m, .spec = spec, .program = program, .n_uses = g->n_values, .typed = phase != MEST_PASS_WEIGHTS, .err = err};
        int32_t *uses = mest_alloc(g->region.heap, (size_t)g->n_values + 1, sizeof *uses);
        MEST_CHECK(uses, err, MEST_E_NOMEM, "pass %s: out of memory", pass->name);
        count_uses(g, uses, g->n_values);
        a.uses = uses;
        for (mest_id k = 0; k < g->n_nodes; k++)
            g->nodes[k].mark = 0;
        mest_status status = pass->run(&a);
        mest_free(g->region.heap, uses, (size_t)a.n_uses + 1, sizeof *uses);
        MEST_TRY(status);
        if (a.count == 0)
            continue;
        MEST_TRY(place_added(&a));
        if (counts)
            counts[i] += a.count;
        if (phase != MEST_PASS_BACKWARD) /* gradients of parameters have no readers before the updates are there; then all is pruned */
            MEST_TRY(program ? mest_program_prune(program, err) : mest_graph_prune(g, err));
        MEST_TRY(mest_graph_check(g, pass->name, err));
    }
    return MEST_OK;
}
