/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts and kernels: every node gets a layout family (plain, NHWC, batch lanes) and a kernel so that the modelled time of kernels and
 * conversions is smallest; conversions become mest.Relayout nodes.
 *
 * Search: iterated conditional modes from each uniform start. A node's cost in a family is that of its best kernel; an edge between
 * two families costs a conversion. Graphs are chains with short branches, for which this finds the optimum or is close to it.
 */
#include <stdio.h>
#include <string.h>

#include "runtime/cpu.h"
#include "runtime/program.h"
#include "runtime/tune.h"

enum { PLAIN = 0, NHWC = 1, LANES = 2, FAMILIES = 3 };
#define IMPOSSIBLE MEST_NO_KERNEL

typedef struct choice {
    double cost[FAMILIES];
    const mest_kernel *kernel[FAMILIES]; /* NULL: reference */
    const char *why[FAMILIES];
    uint8_t family;
} choice;

typedef struct search {
    mest_program *p;
    choice *nodes;
    int lanes;
    mest_measure *measure;
} search;

/* May this value lie in a pixel layout at all? */
static bool layoutable(const mest_value *v)
{
    return v->type.dtype == MEST_F32 && v->type.layout.kind != MEST_SPARSE && v->type.shape.rank >= 2 && v->type.shape.rank <= 4 &&
           v->kind == MEST_VALUE_RESULT;
}

static mest_layout layout_of(const search *s, const mest_type *t, int family)
{
    mest_layout l = {.kind = MEST_PLAIN};
    if (family == PLAIN)
        return l;
    l.kind = MEST_PIXEL;
    l.v = (uint8_t)(family == NHWC ? 1 : s->lanes);
    l.slots = mest_default_slots(t->shape.dim[1], l.v);
    return l;
}

static bool in_is_act(const mest_graph *g, const mest_node *n, int i)
{
    return i < 32 && (n->op->act_in >> i & 1) && n->in[i] != MEST_NONE && g->values[n->in[i]].type.dtype == MEST_F32 &&
           g->values[n->in[i]].type.layout.kind != MEST_SPARSE && g->values[n->in[i]].type.shape.rank >= 2 && g->values[n->in[i]].type.shape.rank <= 4 &&
           (g->values[n->in[i]].kind == MEST_VALUE_RESULT || g->values[n->in[i]].kind == MEST_VALUE_INPUT);
}

static bool out_is_act(const mest_graph *g, const mest_node *n, int i)
{
    return i < 32 && (n->op->act_out >> i & 1) && n->out[i] != MEST_NONE && layoutable(&g->values[n->out[i]]);
}

static bool same_shapes(const mest_kernel_query *q)
{
    const mest_type *o = NULL;
    for (int i = 0; i < q->n_out; i++)
        if (q->out[i]) {
            if (o && !mest_shape_equal(&o->shape, &q->out[i]->shape))
                return false;
            o = q->out[i];
        }
    for (int i = 0; i < q->n_in && o; i++)
        if (q->in[i] && (!mest_shape_equal(&o->shape, &q->in[i]->shape) || q->in[i]->layout.kind != o->layout.kind))
            return q->in[i]->shape.rank == 0 && i > 0; /* scalars beside (Clip bounds) are the op's own business */
    return o != NULL;
}

static bool any_sparse(const mest_kernel_query *q)
{
    for (int i = 0; i < q->n_in; i++)
        if (q->in[i] && q->in[i]->layout.kind == MEST_SPARSE)
            return true;
    return false;
}

/* Best kernel of node `id` with all its activations in `family`. Types of the graph are set for the query and put back. */
static void evaluate(search *s, mest_id id, int family)
{
    mest_graph *g = &s->p->graph;
    mest_node *n = &g->nodes[id];
    choice *c = &s->nodes[id];
    c->cost[family] = IMPOSSIBLE;
    c->kernel[family] = NULL;
    c->why[family] = "";
    mest_layout saved_in[64], saved_out[64];
    int n_in = n->n_in < 64 ? n->n_in : 64, n_out = n->n_out < 64 ? n->n_out : 64;
    bool act = false;
    for (int i = 0; i < n_in; i++)
        if (n->in[i] != MEST_NONE)
            saved_in[i] = g->values[n->in[i]].type.layout;
    for (int i = 0; i < n_out; i++)
        if (n->out[i] != MEST_NONE)
            saved_out[i] = g->values[n->out[i]].type.layout;
    for (int i = 0; i < n_in; i++)
        if (in_is_act(g, n, i)) {
            act = true;
            g->values[n->in[i]].type.layout = layout_of(s, &g->values[n->in[i]].type, family);
        }
    for (int i = 0; i < n_out; i++)
        if (out_is_act(g, n, i)) {
            act = true;
            g->values[n->out[i]].type.layout = layout_of(s, &g->values[n->out[i]].type, family);
        }
    if (family == PLAIN || act) {
        mest_kernel_query q;
        mest_query_storage storage;
        mest_make_query(s->p, id, &q, &storage);
        q.measure = s->measure;
        c->kernel[family] = mest_fastest_kernel(&q, &c->cost[family], &c->why[family]);
        bool reference = n->op->forward && (!any_sparse(&q) || (n->op->flags & MEST_OP_FLAT)) &&
                         (family == PLAIN || ((n->op->flags & MEST_OP_ELEMENTWISE) && same_shapes(&q)));
        double cost = reference ? mest_reference_cost(&q) : IMPOSSIBLE;
        if (reference && family == PLAIN && (n->op->flags & MEST_OP_VIEW))
            cost = 0; /* no data moves */
        if (cost < c->cost[family]) {
            c->cost[family] = cost;
            c->kernel[family] = NULL;
            c->why[family] = family == PLAIN ? "portable reference: no faster kernel fits" : "elementwise: runs on the layout as it lies";
        }
    }
    for (int i = n_in - 1; i >= 0; i--)
        if (n->in[i] != MEST_NONE)
            g->values[n->in[i]].type.layout = saved_in[i];
    for (int i = n_out - 1; i >= 0; i--)
        if (n->out[i] != MEST_NONE)
            g->values[n->out[i]].type.layout = saved_out[i];
}

/* Measures the kernels of a layer, if there is more than one that the models do not rule out. Where one could not be measured they all are
 * compared by their models. */
static void measure(search *s, mest_id id)
{
    enum { RULED_OUT = 4 }; /* models are seldom wrong by so much */
    choice *c = &s->nodes[id];
    double least = IMPOSSIBLE;
    const mest_op *op = s->p->graph.nodes[id].op;
    for (int f = 0; f < FAMILIES; f++)
        least = c->cost[f] < least ? c->cost[f] : least;
    if (!op->macs || least >= IMPOSSIBLE)
        return;
    mest_measure m = {.below = RULED_OUT * least};
    s->measure = &m;
    for (int f = 0; f < FAMILIES; f++)
        evaluate(s, id, f);
    m.tuner = m.candidates > 1 ? s->p->spec.tuner : NULL;
    if (m.tuner) {
        const choice modelled = *c;
        double fastest = IMPOSSIBLE;
        bool measured = false;
        for (int f = 0; f < FAMILIES; f++) {
            m.measured = false;
            evaluate(s, id, f);
            if (m.measured && c->kernel[f])
                c->why[f] = "fastest that fits, by measurement";
            if (c->cost[f] < fastest) {
                fastest = c->cost[f];
                measured = m.measured;
            }
        }
        if (m.missing)
            *c = modelled;
        else
            s->p->n_measured += measured;
    }
    s->measure = NULL;
}

/* Family in which node `id` delivers output value v (PLAIN when the op keeps it plain). */
static int family_of_value(const search *s, mest_id v)
{
    const mest_graph *g = &s->p->graph;
    mest_id p = g->values[v].producer;
    return p != MEST_NONE && out_is_act(g, &g->nodes[p], g->values[v].output) ? s->nodes[p].family : PLAIN;
}

static double conversion_cost(const mest_graph *g, mest_id v)
{
    int64_t n = 0;
    if (!mest_shape_count(&g->values[v].type.shape, &n))
        return 0;
    return (double)n * 8 / 4e9 + 5e-7;
}

/* consumers of each value, as lists */
typedef struct edges {
    int32_t *head, *next;
    mest_id *node;
    int32_t *slot;
    size_t n_head, n_cells;
} edges;

static void edges_free(mest_heap *heap, edges *e)
{
    mest_free(heap, e->head, e->n_head, sizeof *e->head);
    mest_free(heap, e->next, e->n_cells, sizeof *e->next);
    mest_free(heap, e->node, e->n_cells, sizeof *e->node);
    mest_free(heap, e->slot, e->n_cells, sizeof *e->slot);
}

static mest_status edges_make(mest_heap *heap, const mest_graph *g, edges *e, mest_error *err)
{
    memset(e, 0, sizeof *e);
    e->n_head = (size_t)g->n_values + 1;
    e->n_cells = 1;
    for (int i = 0; i < g->n_nodes; i++)
        e->n_cells += (size_t)g->nodes[i].n_in;
    e->head = mest_alloc(heap, e->n_head, sizeof *e->head);
    e->next = mest_alloc(heap, e->n_cells, sizeof *e->next);
    e->node = mest_alloc(heap, e->n_cells, sizeof *e->node);
    e->slot = mest_alloc(heap, e->n_cells, sizeof *e->slot);
    if (!e->head || !e->next || !e->node || !e->slot) {
        edges_free(heap, e);
        return mest_fail(err, MEST_E_NOMEM, "layout: out of memory");
    }
    for (size_t i = 0; i < e->n_head; i++)
        e->head[i] = -1;
    int32_t n = 0;
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] != MEST_NONE) {
                e->node[n] = i;
                e->slot[n] = k;
                e->next[n] = e->head[g->nodes[i].in[k]];
                e->head[g->nodes[i].in[k]] = n++;
            }
    return MEST_OK;
}

/* Cost of node id in family f given its neighbours' families. */
static double local_cost(const search *s, const edges *e, mest_id id, int f)
{
    const mest_graph *g = &s->p->graph;
    const mest_node *n = &g->nodes[id];
    double cost = s->nodes[id].cost[f];
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != MEST_NONE && (in_is_act(g, n, i) ? f : PLAIN) != family_of_value(s, n->in[i]))
            cost += conversion_cost(g, n->in[i]);
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] == MEST_NONE)
            continue;
        int mine = out_is_act(g, n, i) ? f : PLAIN;
        bool paid[FAMILIES] = {0}; /* one conversion serves all consumers of a family */
        for (int32_t c = e->head[n->out[i]]; c >= 0; c = e->next[c]) {
            int theirs = in_is_act(g, &g->nodes[e->node[c]], e->slot[c]) ? s->nodes[e->node[c]].family : PLAIN;
            if (theirs != mine && !paid[theirs]) {
                paid[theirs] = true;
                cost += conversion_cost(g, n->out[i]);
            }
        }
    }
    return cost;
}

static double total_cost(const search *s)
{
    const mest_graph *g = &s->p->graph;
    double cost = 0;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        cost += s->nodes[i].cost[s->nodes[i].family];
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] != MEST_NONE && (in_is_act(g, n, k) ? s->nodes[i].family : PLAIN) != family_of_value(s, n->in[k]))
                cost += conversion_cost(g, n->in[k]);
    }
    return cost;
}

static void settle(search *s, const edges *e, int start)
{
    const mest_graph *g = &s->p->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        choice *c = &s->nodes[i];
        c->family = (uint8_t)start;
        for (int f = 0; f < FAMILIES && c->cost[c->family] >= IMPOSSIBLE; f++)
            c->family = (uint8_t)f;
    }
    for (int round = 0; round < 8; round++) {
        bool moved = false;
        for (mest_id i = 0; i < g->n_nodes; i++) {
            int best = s->nodes[i].family;
            double best_cost = local_cost(s, e, i, best);
            for (int f = 0; f < FAMILIES; f++) {
                if (s->nodes[i].cost[f] >= IMPOSSIBLE || f == s->nodes[i].family)
                    continue;
                double cost = local_cost(s, e, i, f);
                if (cost < best_cost * (1 - 1e-9)) {
                    best_cost = cost;
                    best = f;
                }
            }
            moved |= best != s->nodes[i].family;
            s->nodes[i].family = (uint8_t)best;
        }
        if (!moved)
            break;
    }
}

/* Inserts conversions and sets the final layouts (without halo). */
static mest_status materialise(search *s, const edges *e, mest_error *err)
{
    mest_program *p = s->p;
    mest_graph *g = &p->graph;
    mest_heap *heap = &p->model->heap;
    const mest_op *relayout = mest_op_find("mest", "mest.Relayout", 1);
    mest_id n_nodes = g->n_nodes;
    int32_t n_values = g->n_values;
    size_t cap = (size_t)n_nodes;
    for (int32_t v = 0; v < n_values; v++)
        cap += e->head[v] >= 0 ? FAMILIES : 0;
    double *key = mest_alloc(heap, cap + 1, sizeof *key);
    MEST_CHECK(key, err, MEST_E_NOMEM, "layout: out of memory");
    mest_status status = MEST_OK;
    for (mest_id i = 0; i < n_nodes; i++)
        key[i] = i;
    for (mest_id v = 0; v < n_values; v++) {
        int have = family_of_value(s, v);
        if (have != PLAIN)
            g->values[v].type.layout = layout_of(s, &g->values[v].type, have);
    }
    for (mest_id v = 0; v < n_values; v++) {
        int have = family_of_value(s, v);
        mest_id converted[FAMILIES] = {MEST_NONE, MEST_NONE, MEST_NONE};
        bool graph_output = false;
        for (int i = 0; i < g->n_outputs; i++)
            graph_output |= g->outputs[i] == v;
        if (graph_output && have != PLAIN)
            converted[PLAIN] = -2; /* wanted by the caller */
        mest_id first[FAMILIES] = {n_nodes, n_nodes, n_nodes};
        for (int32_t c = e->head[v]; c >= 0; c = e->next[c]) {
            int f = in_is_act(g, &g->nodes[e->node[c]], e->slot[c]) ? s->nodes[e->node[c]].family : PLAIN;
            if (f == have)
                continue;
            converted[f] = -2;
            if (e->node[c] < first[f])
                first[f] = e->node[c];
        }
        for (int f = 0; f < FAMILIES; f++) {
            if (converted[f] != -2)
                continue;
            if (!relayout) {
                status = mest_fail(err, MEST_E_INTERNAL, "mest.Relayout is missing");
                goto out;
            }
            char name[300];
            static const char *const names[] = {"plain", "nhwc", "lanes"};
            snprintf(name, sizeof name, "%.250s/to_%s", g->values[v].name, names[f]);
            mest_id node = mest_graph_node(g, name, relayout, NULL, 1, &v, 1, NULL);
            if (node == MEST_NONE) {
                status = mest_fail(err, MEST_E_NOMEM, "layout: out of memory");
                goto out;
            }
            mest_id out = g->nodes[node].out[0];
            g->values[out].type = g->values[v].type;
            g->values[out].type.layout = layout_of(s, &g->values[v].type, f);
            mest_id at = first[f] < n_nodes ? first[f] : (g->values[v].producer != MEST_NONE ? g->values[v].producer : 0);
            g->nodes[node].phase = g->nodes[at].phase;
            key[node] = first[f] < n_nodes ? first[f] - 0.5 : at + 0.5;
            converted[f] = out;
            p->n_conversions++;
        }
        for (int32_t c = e->head[v]; c >= 0; c = e->next[c]) {
            int f = in_is_act(g, &g->nodes[e->node[c]], e->slot[c]) ? s->nodes[e->node[c]].family : PLAIN;
            if (f != have)
                g->nodes[e->node[c]].in[e->slot[c]] = converted[f];
        }
        if (graph_output && have != PLAIN) {
            for (int i = 0; i < g->n_outputs; i++)
                if (g->outputs[i] == v)
                    g->outputs[i] = converted[PLAIN];
            for (mest_id *special = &p->input; special <= &p->correct; special++)
                if (*special == v)
                    *special = converted[PLAIN];
        }
    }
    /* the choices follow their nodes when these are put in order */
    p->steps = mest_region_alloc(&g->region, (size_t)g->n_nodes + 1, sizeof *p->steps);
    if (!p->steps) {
        status = mest_fail(err, MEST_E_NOMEM, "layout: out of memory");
        goto out;
    }
    for (mest_id i = 0; i < g->n_nodes; i++)
        g->nodes[i].mark = i;
    status = mest_graph_order(g, key, err);
    for (mest_id i = 0; i < g->n_nodes && status == MEST_OK; i++) {
        mest_id was = g->nodes[i].mark;
        p->steps[i].kernel = was < n_nodes ? s->nodes[was].kernel[s->nodes[was].family] : NULL;
        p->steps[i].why = was < n_nodes ? s->nodes[was].why[s->nodes[was].family] : "conversion of layout";
        p->steps[i].seconds = was < n_nodes ? s->nodes[was].cost[s->nodes[was].family] : conversion_cost(g, g->nodes[i].in[0]);
    }
out:
    mest_free(heap, key, cap + 1, sizeof *key);
    return status;
}

/* Halo: each kernel says what it needs of its inputs; elementwise nodes in lanes share offsets, so their operands share the halo. */
static int32_t find(int32_t *parent, int32_t v)
{
    while (parent[v] != v)
        v = parent[v] = parent[parent[v]];
    return v;
}

mest_status mest_assign_halo(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    int32_t *parent = mest_region_alloc(&g->region, (size_t)g->n_values + 1, sizeof *parent);
    uint8_t(*pad)[4] = mest_region_alloc(&g->region, (size_t)g->n_values + 1, sizeof *pad);
    MEST_CHECK(parent && pad, err, MEST_E_NOMEM, "layout: out of memory");
    for (int32_t i = 0; i < g->n_values; i++)
        parent[i] = i;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        if (p->steps[i].kernel || !(n->op->flags & MEST_OP_ELEMENTWISE))
            continue;
        int32_t first = -1;
        for (int side = 0; side < 2; side++)
            for (int k = 0; k < (side ? n->n_out : n->n_in); k++) {
                mest_id v = side ? n->out[k] : n->in[k];
                if (v == MEST_NONE || g->values[v].type.layout.kind != MEST_PIXEL)
                    continue;
                if (first < 0)
                    first = v;
                else
                    parent[find(parent, v)] = find(parent, first);
            }
    }
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_kernel *kernel = p->steps[i].kernel;
        if (!kernel || !kernel->halo)
            continue;
        mest_kernel_query q;
        mest_query_storage storage;
        mest_make_query(p, i, &q, &storage);
        for (int k = 0; k < q.n_in; k++) {
            if (!q.in[k] || q.in[k]->layout.kind != MEST_PIXEL)
                continue;
            uint8_t want[4] = {0};
            kernel->halo(&q, k, want);
            int32_t root = find(parent, g->nodes[i].in[k]);
            for (int d = 0; d < 4; d++)
                if (want[d] > pad[root][d])
                    pad[root][d] = want[d];
        }
    }
    for (int32_t i = 0; i < g->n_values; i++) {
        mest_layout *l = &g->values[i].type.layout;
        if (l->kind != MEST_PIXEL)
            continue;
        const uint8_t *w = pad[find(parent, i)];
        l->top = w[0];
        l->left = w[1];
        l->bottom = w[2];
        l->right = w[3];
    }
    return MEST_OK;
}

mest_status mest_assign_layouts(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    mest_heap *heap = &p->model->heap;
    search s = {.p = p, .lanes = mest_cpu_lanes(p->spec.cpu)};
    size_t n = (size_t)g->n_nodes + 1;
    edges e;
    MEST_TRY(edges_make(heap, g, &e, err));
    mest_status status = MEST_OK;
    uint8_t *best = mest_alloc(heap, n, 1);
    s.nodes = mest_calloc(heap, n, sizeof *s.nodes);
    if (!best || !s.nodes) {
        status = mest_fail(err, MEST_E_NOMEM, "layout: out of memory");
        goto out;
    }
    int forced = -1;
    const bool forced_layout = p->spec.force_layout != NULL;
    if (forced_layout)
        forced = !strcmp(p->spec.force_layout, "lanes") ? LANES : !strcmp(p->spec.force_layout, "nhwc") ? NHWC : PLAIN;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        for (int f = 0; f < FAMILIES; f++)
            evaluate(&s, i, f);
        if (p->spec.tuner && !forced_layout)
            measure(&s, i);
        bool any = false;
        for (int f = 0; f < FAMILIES; f++)
            any |= s.nodes[i].cost[f] < IMPOSSIBLE;
        if (!any) {
            const mest_node *node = &g->nodes[i];
            status = mest_fail(err, MEST_E_UNSUPPORTED, "%s '%s': no kernel runs it%s", node->op->name, node->name,
                               node->op->sparse_in ? " (a sparse weight?); keep its weight dense with --dense-layers" : "");
            goto out;
        }
        if (forced >= 0 && s.nodes[i].cost[forced] < IMPOSSIBLE)
            for (int f = 0; f < FAMILIES; f++)
                if (f != forced)
                    s.nodes[i].cost[f] = IMPOSSIBLE;
    }
    double best_cost = IMPOSSIBLE * 2;
    for (int start = 0; start < FAMILIES; start++) {
        settle(&s, &e, start);
        double cost = total_cost(&s);
        if (cost < best_cost) {
            best_cost = cost;
            for (mest_id i = 0; i < g->n_nodes; i++)
                best[i] = s.nodes[i].family;
        }
    }
    for (mest_id i = 0; i < g->n_nodes; i++)
        s.nodes[i].family = best[i];
    status = materialise(&s, &e, err);
out:
    mest_free(heap, best, n, 1);
    mest_free(heap, s.nodes, n, sizeof *s.nodes);
    edges_free(heap, &e);
    return status;
}

mest_status mest_prepare_kernels(mest_program *p, mest_error *err)
{
    for (mest_id i = 0; i < p->graph.n_nodes; i++) {
        mest_step *st = &p->steps[i];
        if (!st->kernel || !st->kernel->prepare)
            continue;
        mest_kernel_query q;
        mest_query_storage storage;
        mest_make_query(p, i, &q, &storage);
        MEST_TRY(st->kernel->prepare(&q, &st->state, &st->scratch_bytes, err));
    }
    return MEST_OK;
}
