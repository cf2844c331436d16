/* SPDX-License-Identifier: Apache-2.0 */
/* Fusion: nodes that one kernel can do in one go become one node, before the loss is attached and the graph differentiated, so that the
 * gradient is fused as well. A table of passes in a fixed order; each can be turned off by its name.
 *
 *   bn_relu   mest.BatchNormTrain or BatchNormalization whose Y goes to one Relu and nowhere else: the node computes max(Y, 0) itself.
 *             Saves a pass over the activations forward and, since the gradient masks dY while reading it, one and a buffer backward.
 *
 * A pass must keep bits: in a given layout the joined node computes what its parts computed, in the same order. (Which layouts are best is
 * decided later, and may change with the nodes.) */
#include <string.h>

#include "ops/nn.h"
#include "runtime/program.h"

static bool is_op(const mest_node *n, const char *name) { return !strcmp(n->op->name, name); }

/* The node that is the only reader of v; MEST_NONE if there are several, none, or v is an output of the graph. `uses`: number of reads of
 * each value, graph outputs included. */
static mest_id only_reader(const mest_id *reader, const int32_t *uses, mest_id v) { return uses[v] == 1 ? reader[v] : MEST_NONE; }

static mest_status bn_relu(mest_graph *g, mest_error *err)
{
    size_t n = (size_t)g->n_values + 1;
    mest_id *reader = mest_region_alloc(&g->region, n, sizeof *reader);
    int32_t *uses = mest_region_alloc(&g->region, n, sizeof *uses);
    MEST_CHECK(reader && uses, err, MEST_E_NOMEM, "fuse: out of memory");
    memset(uses, 0, n * sizeof *uses);
    for (int i = 0; i < g->n_outputs; i++) {
        uses[g->outputs[i]]++;
        reader[g->outputs[i]] = MEST_NONE;
    }
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] != MEST_NONE) {
                uses[g->nodes[i].in[k]]++;
                reader[g->nodes[i].in[k]] = i;
            }
    for (mest_id i = 0; i < g->n_nodes; i++) {
        mest_node *bn = &g->nodes[i];
        if (!is_op(bn, "BatchNormalization") && !is_op(bn, "mest.BatchNormTrain"))
            continue;
        mest_id y = bn->out[0], at = y == MEST_NONE ? MEST_NONE : only_reader(reader, uses, y);
        /* both are asked for by name, not by layout or kernel: those are chosen later */
        if (at == MEST_NONE || !is_op(&g->nodes[at], "Relu") || g->nodes[at].out[0] == MEST_NONE)
            continue;
        mest_node *relu = &g->nodes[at];
        mest_bn_params *p = mest_region_alloc(&g->region, 1, sizeof *p);
        MEST_CHECK(p, err, MEST_E_NOMEM, "fuse: out of memory");
        *p = *(const mest_bn_params *)bn->params;
        p->relu = 1;
        bn->params = p;
        /* The two swap their results. The Relu now makes a value nobody reads, so pruning takes it away; until then the graph is in order:
         * its producers are unique, and whoever read the Relu's result comes after the normalisation as well. */
        mest_id z = relu->out[0];
        bn->out[0] = z;
        g->values[z].producer = i;
        relu->out[0] = y;
        relu->in[0] = z;
        g->values[y].producer = at;
    }
    return mest_graph_prune(g, err);
}

static const struct {
    const char *name;
    mest_status (*run)(mest_graph *g, mest_error *err);
} passes[] = {
    {"bn_relu", bn_relu},
};
enum { N_PASSES = sizeof passes / sizeof *passes };

/* Is `name` an entry of the comma-separated list? */
static bool listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    while (list && *list) {
        size_t n = strcspn(list, ",");
        if (n == length && !memcmp(list, name, n))
            return true;
        list += n + (list[n] == ',');
    }
    return false;
}

mest_status mest_fuse_check(const char *no_fuse, mest_error *err)
{
    for (const char *at = no_fuse; at && *at;) {
        size_t n = strcspn(at, ",");
        bool known = n == 3 && !memcmp(at, "all", 3);
        for (int i = 0; i < N_PASSES; i++)
            known |= n == strlen(passes[i].name) && !memcmp(at, passes[i].name, n);
        if (!known) {
            char names[200] = "";
            for (int i = 0; i < N_PASSES; i++)
                strncat(strncat(names, ", ", sizeof names - strlen(names) - 1), passes[i].name, sizeof names - strlen(names) - 1);
            return mest_fail(err, MEST_E_ARGUMENT, "config: no_fuse: '%.*s' is not one of all%s", (int)(n < 60 ? n : 60), at, names);
        }
        at += n + (at[n] == ',');
    }
    return MEST_OK;
}

mest_status mest_fuse(mest_graph *g, const char *no_fuse, mest_error *err)
{
    for (int i = 0; i < N_PASSES; i++)
        if (!listed(no_fuse, "all") && !listed(no_fuse, passes[i].name))
            MEST_TRY(passes[i].run(g, err));
    return MEST_OK;
}
