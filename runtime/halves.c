/* SPDX-License-Identifier: Apache-2.0 */
/* Activations in half the bytes: a forward value that the backward part reads is stored as bfloat16 right after it was made, and made float again before the first
 * backward node that reads it. The forward part computes with the float value, so the loss of a step is that of a run without; gradients see values rounded to 8 bits.
 * It comes after kernels were chosen and before recomputation, which may drop the stored form like any other value.
 *
 * Views of one value are one block of memory: it is stored once, and stays float if any of them has to.
 *
 * What stays float: values that a node of the backward part compares with others (pooling, ties: rounding makes equals of what was not), what the loss is made of,
 * outputs that are no activations (statistics, indices, normalisers), small values, and what the backward part wants back at once. */
#include <stdio.h>
#include <string.h>

#include "runtime/plan.h"
#include "runtime/recompute.h"

enum { SMALL_BYTES = 4096, AT_ONCE = 4, NEAR = 8 }; /* nodes: a wait that is not worth it; readers that share one float form */

/* Does a backward node of this operator compare its operands? */
static bool compares(const mest_op *op)
{
    static const char *const names[] = {"mest.MaxPoolGrad", "mest.GlobalMaxPoolGrad", "mest.TieGrad", "mest.TieCount", "mest.TopKGrad", "mest.LpPoolGrad", NULL};
    for (int i = 0; names[i]; i++)
        if (!strcmp(op->name, names[i]))
            return true;
    return false;
}

/* Outputs that are activations, as a set of bits: the first one, but for... */
static uint32_t activations_of(const mest_op *op)
{
    if (!strcmp(op->name, "mest.Attention")) /* the first are logarithms of sums, whose error would be that of every probability */
        return 1u << 1;
    return strcmp(op->name, "mest.Split") && strcmp(op->name, "Split") ? 1 : UINT32_MAX;
}

static bool is_activation(const mest_graph *g, mest_id v)
{
    const mest_node *n = &g->nodes[g->values[v].producer];
    for (int k = 0; k < n->n_out && k < 32; k++)
        if (n->out[k] == v)
            return activations_of(n->op) >> k & 1;
    return false;
}

/* Of the block behind a value, which is that of its root. */
typedef struct use { mest_id root, first_backward, last_forward, stored; bool compared, loss; } use;

static void find_uses(const mest_program *p, use *uses)
{
    const mest_graph *g = &p->graph;
    for (int32_t v = 0; v < g->n_values; v++)
        uses[v] = (use){.root = v, .first_backward = MEST_NONE, .last_forward = g->values[v].producer, .stored = MEST_NONE};
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        const bool forward = n->phase == MEST_PHASE_FORWARD, view = forward && n->n_out && n->out[0] != MEST_NONE && mest_plan_is_view(p, i);
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] == MEST_NONE)
                continue;
            use *u = &uses[uses[n->in[k]].root];
            if (view && k == 0)
                uses[n->out[0]].root = uses[n->in[0]].root;
            if (forward)
                u->last_forward = i;
            else if (u->first_backward == MEST_NONE)
                u->first_backward = i;
            u->compared |= !forward && compares(n->op);
            u->loss |= forward && g->loss != MEST_NONE && g->values[g->loss].producer == i;
        }
    }
    for (int i = 0; i < g->n_outputs; i++)
        uses[uses[g->outputs[i]].root].loss = true;
    if (p->logits != MEST_NONE)
        uses[uses[p->logits].root].loss = true;
}

/* NULL: the root v goes into halves; "": it is no activation that is kept; otherwise why it stays float. */
static const char *stays(const mest_program *p, mest_id v, const use *u)
{
    const mest_graph *g = &p->graph;
    const mest_value *x = &g->values[v];
    if (u->root != v || x->kind != MEST_VALUE_RESULT || x->producer == MEST_NONE || g->nodes[x->producer].phase != MEST_PHASE_FORWARD ||
        u->first_backward == MEST_NONE || x->type.dtype != MEST_F32 || x->type.layout.kind == MEST_SPARSE || mest_plan_bytes(p, v) < SMALL_BYTES ||
        u->first_backward - u->last_forward < AT_ONCE)
        return "";
    if (u->compared)
        return "compared in the backward part";
    if (u->loss)
        return "the loss reads it";
    return is_activation(g, v) ? NULL : "a statistic";
}

typedef struct change {
    mest_program *p;
    double *key;
    mest_step *steps;
    mest_error *err;
} change;

static mest_id add(change *c, const char *op_name, const char *name, mest_id in, const mest_type *type, mest_phase phase, double key)
{
    mest_graph *g = &c->p->graph;
    const mest_op *op = mest_op_find("mest", op_name, 1);
    mest_id *inputs = mest_region_alloc(&g->region, 2, sizeof *inputs), out = mest_graph_value(g, name, MEST_VALUE_RESULT, type);
    if (!op || !inputs || out == MEST_NONE)
        return MEST_NONE;
    inputs[0] = in;
    inputs[1] = out;
    const mest_id node = mest_graph_node(g, name, op, NULL, 1, inputs, 1, inputs + 1);
    if (node == MEST_NONE)
        return MEST_NONE;
    g->nodes[node].phase = phase;
    c->key[node] = key;
    c->steps[node] = (mest_step){.why = "activations as bfloat16", .seconds = 1e-10 * 1.5 * (double)mest_plan_bytes(c->p, phase == MEST_PHASE_FORWARD ? in : out)};
    return out;
}

static mest_id store(change *c, mest_id v)
{
    const mest_graph *g = &c->p->graph;
    mest_type half = {.dtype = MEST_BF16, .shape = {.rank = 1}};
    char name[300];
    if (!mest_type_storage(&g->values[v].type, &half.shape.dim[0]))
        return MEST_NONE;
    snprintf(name, sizeof name, "%.280s/bf16", g->values[v].name);
    return add(c, "mest.StoreBf16", name, v, &half, MEST_PHASE_FORWARD, g->values[v].producer + 0.5);
}

/* Readers of the backward part get float forms of v: one for those that stand near each other, since a float form waits in full. */
static mest_status load(change *c, mest_id v, mest_id stored, mest_id n_nodes)
{
    mest_graph *g = &c->p->graph;
    const mest_type full = g->values[v].type;
    mest_id loaded = MEST_NONE, last = MEST_NONE;
    char name[300];
    for (mest_id i = 0; i < n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in && g->nodes[i].phase != MEST_PHASE_FORWARD; k++) {
            if (g->nodes[i].in[k] != v)
                continue;
            if (loaded == MEST_NONE || i - last > NEAR) {
                snprintf(name, sizeof name, "%.280s/float", g->values[v].name);
                loaded = add(c, "mest.LoadBf16", name, stored, &full, MEST_PHASE_BACKWARD, i - 0.5);
                MEST_CHECK(loaded != MEST_NONE, c->err, MEST_E_NOMEM, "activations: out of memory");
            }
            last = i;
            g->nodes[i].in[k] = loaded;
        }
    return MEST_OK;
}

mest_status mest_store_halves(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    if (!p->spec.halves || p->spec.kind != MEST_PROGRAM_TRAIN || p->spec.survey)
        return MEST_OK;
    const mest_id n_nodes = g->n_nodes;
    const int32_t n_values = g->n_values;
    size_t most = (size_t)n_nodes + (size_t)n_values + 1; /* a store for each value, a load for each input of a node */
    for (mest_id i = 0; i < n_nodes; i++)
        most += (size_t)g->nodes[i].n_in;
    use *uses = mest_region_alloc(&g->region, (size_t)n_values + 1, sizeof *uses);
    change c = {.p = p, .err = err, .key = mest_region_alloc(&g->region, most, sizeof *c.key), .steps = mest_region_alloc(&g->region, most, sizeof *c.steps)};
    mest_step *ordered = mest_region_alloc(&g->region, most, sizeof *ordered);
    MEST_CHECK(uses && c.key && c.steps && ordered, err, MEST_E_NOMEM, "activations: out of memory");
    find_uses(p, uses);
    for (mest_id i = 0; i < n_nodes; i++) {
        c.key[i] = i;
        c.steps[i] = p->steps[i];
    }
    mest_status status = MEST_OK;
    for (mest_id v = 0; v < n_values && status == MEST_OK; v++) {
        const char *why = stays(p, v, &uses[v]);
        p->n_floats += why && *why;
        if (why)
            continue;
        p->n_halves++;
        uses[v].stored = store(&c, v);
        if (uses[v].stored == MEST_NONE)
            status = mest_fail(err, MEST_E_NOMEM, "activations: out of memory");
    }
    for (mest_id v = 0; v < n_values && status == MEST_OK; v++)
        if (uses[uses[v].root].stored != MEST_NONE)
            status = load(&c, v, uses[uses[v].root].stored, n_nodes);
    for (mest_id i = 0; i < g->n_nodes; i++)
        g->nodes[i].mark = i;
    if (status == MEST_OK)
        status = mest_graph_order(g, c.key, err);
    for (mest_id i = 0; i < g->n_nodes; i++)
        ordered[i] = c.steps[g->nodes[i].mark];
    p->steps = ordered; /* whatever failed: every state has its owner */
    return status == MEST_OK ? mest_graph_check(g, "activations as bfloat16", err) : status;
}
