/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/graph.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/op.h"

void mest_graph_init(mest_graph *g, mest_heap *heap)
{
    memset(g, 0, sizeof *g);
    mest_region_init(&g->region, heap);
    g->loss = MEST_NONE;
}

void mest_graph_free(mest_graph *g)
{
    mest_heap *heap = g->region.heap;
    mest_region_free(&g->region);
    mest_graph_init(g, heap);
}

static mest_id *copy_ids(mest_region *region, const mest_id *ids, int n)
{
    mest_id *p = mest_region_alloc(region, (size_t)(n ? n : 1), sizeof *p);
    if (p && n)
        memcpy(p, ids, (size_t)n * sizeof *p);
    return p;
}

mest_status mest_graph_copy(mest_graph *to, const mest_graph *from, mest_error *err)
{
    mest_graph_init(to, from->region.heap);
    mest_region *r = &to->region;
    to->cap_values = from->n_values * 3 + 64; /* room for backward values without moving */
    to->cap_nodes = from->n_nodes * 3 + 64;
    to->values = mest_region_alloc(r, (size_t)to->cap_values, sizeof *to->values);
    to->nodes = mest_region_alloc(r, (size_t)to->cap_nodes, sizeof *to->nodes);
    to->inputs = copy_ids(r, from->inputs, from->n_inputs);
    to->outputs = copy_ids(r, from->outputs, from->n_outputs);
    bool ok = to->values && to->nodes && to->inputs && to->outputs;
    if (ok) {
        if (from->n_values)
            memcpy(to->values, from->values, (size_t)from->n_values * sizeof *to->values);
        if (from->n_nodes)
            memcpy(to->nodes, from->nodes, (size_t)from->n_nodes * sizeof *to->nodes);
        to->n_values = from->n_values;
        to->n_nodes = from->n_nodes;
        to->n_inputs = from->n_inputs;
        to->n_outputs = from->n_outputs;
        to->loss = from->loss;
        for (int i = 0; i < to->n_nodes && ok; i++) {
            to->nodes[i].in = copy_ids(r, from->nodes[i].in, from->nodes[i].n_in);
            to->nodes[i].out = copy_ids(r, from->nodes[i].out, from->nodes[i].n_out);
            ok = to->nodes[i].in && to->nodes[i].out;
        }
    }
    if (!ok) {
        mest_graph_free(to);
        return mest_fail(err, MEST_E_NOMEM, "graph: no memory for a copy of %d nodes", from->n_nodes);
    }
    return MEST_OK;
}

mest_id mest_graph_value(mest_graph *g, const char *name, mest_value_kind kind, const mest_type *type)
{
    if (!MEST_REGION_GROW(&g->region, g->values, g->n_values, g->cap_values))
        return MEST_NONE;
    char made[32];
    if (!name) {
        snprintf(made, sizeof made, "%%%d", g->n_values);
        name = made;
    }
    mest_value *v = &g->values[g->n_values];
    memset(v, 0, sizeof *v);
    v->name = mest_region_strdup(&g->region, name);
    if (!v->name)
        return MEST_NONE;
    if (type)
        v->type = *type;
    v->kind = kind;
    v->param = -1;
    v->producer = MEST_NONE;
    v->grad = MEST_NONE;
    return g->n_values++;
}

mest_id mest_graph_const(mest_graph *g, const char *name, const mest_type *type, const void *data)
{
    int64_t n;
    if (!mest_shape_count(&type->shape, &n))
        return MEST_NONE;
    size_t size = mest_dtype_size(type->dtype);
    char *copy = mest_region_alloc(&g->region, (size_t)n + 16 / (size ? size : 1) + 1, size);
    if (!copy)
        return MEST_NONE;
    if (n)
        memcpy(copy, data, (size_t)n * size);
    mest_id id = mest_graph_value(g, name, MEST_VALUE_CONST, type);
    if (id != MEST_NONE)
        g->values[id].data = copy;
    return id;
}

mest_id mest_graph_node(mest_graph *g, const char *name, const struct mest_op *op, const void *params, int n_in, const mest_id *in,
                        int n_out, const mest_id *out)
{
    if (!MEST_REGION_GROW(&g->region, g->nodes, g->n_nodes, g->cap_nodes))
        return MEST_NONE;
    mest_id id = g->n_nodes;
    char made[300];
    if (!name || !*name) {
        snprintf(made, sizeof made, "%s_%d", op->name, id);
        name = made;
    }
    mest_node n = {.op = op, .params = params, .n_in = n_in, .n_out = n_out, .origin = -1, .source = -1, .forward = MEST_NONE};
    n.name = mest_region_strdup(&g->region, name);
    n.in = copy_ids(&g->region, in, n_in);
    n.out = out ? copy_ids(&g->region, out, n_out) : mest_region_alloc(&g->region, (size_t)(n_out ? n_out : 1), sizeof *n.out);
    if (!n.name || !n.in || !n.out)
        return MEST_NONE;
    for (int i = 0; i < n_out; i++) {
        if (!out) {
            char vname[320];
            snprintf(vname, sizeof vname, i ? "%s.%d" : "%s", n.name, i);
            n.out[i] = mest_graph_value(g, vname, MEST_VALUE_RESULT, NULL);
            if (n.out[i] == MEST_NONE)
                return MEST_NONE;
        }
        if (n.out[i] != MEST_NONE) {
            mest_value *v = &g->values[n.out[i]];
            v->kind = MEST_VALUE_RESULT;
            v->producer = id;
            v->output = i;
        }
    }
    g->nodes[id] = n;
    g->n_nodes++;
    return id;
}

/* Moves node order[i] to place i and follows with every id that points at nodes. order must be a permutation of kept nodes. */
static void renumber(mest_graph *g, const mest_id *order, int n, mest_id *place, mest_node *moved)
{
    for (int i = 0; i < g->n_nodes; i++)
        place[i] = MEST_NONE;
    for (int i = 0; i < n; i++) {
        place[order[i]] = i;
        moved[i] = g->nodes[order[i]];
    }
    if (n > 0)
        memcpy(g->nodes, moved, (size_t)n * sizeof *moved);
    g->n_nodes = n;
    for (int i = 0; i < n; i++)
        if (g->nodes[i].forward != MEST_NONE)
            g->nodes[i].forward = place[g->nodes[i].forward];
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i].producer != MEST_NONE)
            g->values[i].producer = place[g->values[i].producer];
}

mest_status mest_graph_sort(mest_graph *g, mest_error *err)
{
    /* Kahn's algorithm; the ready node with the lowest number goes first, so an ordered file stays as it is */
    mest_heap *heap = g->region.heap;
    size_t n = (size_t)g->n_nodes;
    mest_status status = MEST_OK;
    mest_id *waits = mest_calloc(heap, n + 1, sizeof *waits), *order = mest_alloc(heap, n + 1, sizeof *order);
    mest_id *place = mest_alloc(heap, n + 1, sizeof *place), *next = mest_alloc(heap, n + 1, sizeof *next);
    mest_id *head = mest_alloc(heap, n + 1, sizeof *head), *heap_ids = mest_alloc(heap, n + 1, sizeof *heap_ids);
    mest_node *moved = mest_alloc(heap, n + 1, sizeof *moved);
    /* edges producer -> consumer as lists: one cell per input */
    size_t cells = 0;
    for (size_t i = 0; i < n; i++)
        cells += (size_t)g->nodes[i].n_in + 1;
    struct { mest_id consumer, next; } *cell = mest_alloc(heap, cells + 1, sizeof *cell);
    if (!waits || !order || !place || !next || !head || !heap_ids || !moved || !cell) {
        status = mest_fail(err, MEST_E_NOMEM, "graph: no memory to sort %d nodes", g->n_nodes);
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        head[i] = MEST_NONE;
    mest_id used = 0;
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = -1; k < g->nodes[i].n_in; k++) { /* -1: the condition of a branch comes before the branch */
            mest_id v = k < 0 ? mest_guard_value(&g->nodes[i]) : g->nodes[i].in[k];
            mest_id p = v == MEST_NONE ? MEST_NONE : g->values[v].producer;
            if (p == MEST_NONE)
                continue;
            cell[used].consumer = i;
            cell[used].next = head[p];
            head[p] = used++;
            waits[i]++;
        }
    /* binary min-heap of ready nodes */
    int ready = 0, done = 0;
#define SWAP(a, b) do { mest_id t_ = heap_ids[a]; heap_ids[a] = heap_ids[b]; heap_ids[b] = t_; } while (0)
#define PUSH(x) do { int c_ = ready++; heap_ids[c_] = (x); while (c_ && heap_ids[(c_ - 1) / 2] > heap_ids[c_]) { SWAP(c_, (c_ - 1) / 2); c_ = (c_ - 1) / 2; } } while (0)
    for (mest_id i = 0; i < g->n_nodes; i++)
        if (!waits[i])
            PUSH(i);
    while (ready) {
        mest_id i = heap_ids[0];
        heap_ids[0] = heap_ids[--ready];
        for (int c = 0;;) {
            int s = 2 * c + 1;
            if (s >= ready)
                break;
            if (s + 1 < ready && heap_ids[s + 1] < heap_ids[s])
                s++;
            if (heap_ids[s] >= heap_ids[c])
                break;
            SWAP(s, c);
            c = s;
        }
        order[done++] = i;
        for (mest_id e = head[i]; e != MEST_NONE; e = cell[e].next)
            if (--waits[cell[e].consumer] == 0)
                PUSH(cell[e].consumer);
    }
#undef PUSH
#undef SWAP
    if (done != g->n_nodes) {
        for (mest_id i = 0; i < g->n_nodes; i++)
            if (waits[i]) {
                status = mest_fail(err, MEST_E_FORMAT, "graph has a cycle through node '%s' (%s)", g->nodes[i].name, g->nodes[i].op->name);
                break;
            }
        goto out;
    }
    renumber(g, order, done, place, moved);
out:
    mest_free(heap, waits, n + 1, sizeof *waits);
    mest_free(heap, order, n + 1, sizeof *order);
    mest_free(heap, place, n + 1, sizeof *place);
    mest_free(heap, next, n + 1, sizeof *next);
    mest_free(heap, head, n + 1, sizeof *head);
    mest_free(heap, heap_ids, n + 1, sizeof *heap_ids);
    mest_free(heap, moved, n + 1, sizeof *moved);
    mest_free(heap, cell, cells + 1, sizeof *cell);
    return status;
}

mest_status mest_graph_order(mest_graph *g, const double *key, mest_error *err)
{
    mest_heap *heap = g->region.heap;
    size_t n = (size_t)g->n_nodes + 1;
    mest_status status = MEST_OK;
    mest_id *order = mest_alloc(heap, n, sizeof *order), *other = mest_alloc(heap, n, sizeof *other), *place = mest_alloc(heap, n, sizeof *place);
    mest_node *moved = mest_alloc(heap, n, sizeof *moved);
    if (!order || !other || !place || !moved) {
        status = mest_fail(err, MEST_E_NOMEM, "graph: no memory to order %d nodes", g->n_nodes);
        goto out;
    }
    for (mest_id i = 0; i < g->n_nodes; i++)
        order[i] = i;
    /* bottom-up merge sort: stable, no recursion */
    mest_id *from = order, *to = other;
    for (int32_t width = 1; width < g->n_nodes; width *= 2) {
        for (int32_t lo = 0; lo < g->n_nodes; lo += 2 * width) {
            int32_t mid = lo + width < g->n_nodes ? lo + width : g->n_nodes, hi = lo + 2 * width < g->n_nodes ? lo + 2 * width : g->n_nodes;
            int32_t a = lo, b = mid;
            for (int32_t k = lo; k < hi; k++)
                to[k] = a < mid && (b >= hi || key[from[a]] <= key[from[b]]) ? from[a++] : from[b++];
        }
        mest_id *t = from;
        from = to;
        to = t;
    }
    renumber(g, from, g->n_nodes, place, moved);
out:
    mest_free(heap, order, n, sizeof *order);
    mest_free(heap, other, n, sizeof *other);
    mest_free(heap, place, n, sizeof *place);
    mest_free(heap, moved, n, sizeof *moved);
    return status;
}

void mest_graph_replace(mest_graph *g, mest_id from, mest_id to)
{
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == from)
                g->nodes[i].in[k] = to;
    for (mest_id i = 0; i < g->n_nodes; i++)
        if (mest_guard_value(&g->nodes[i]) == from)
            g->nodes[i].guard = g->nodes[i].guard > 0 ? to + 1 : -(to + 1);
    for (int i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == from)
            g->outputs[i] = to;
}

mest_status mest_graph_prune(mest_graph *g, mest_error *err)
{
    mest_heap *heap = g->region.heap;
    size_t nv = (size_t)g->n_values + 1, nn = (size_t)g->n_nodes + 1;
    uint8_t *live = mest_calloc(heap, nv, 1);
    mest_id *order = mest_alloc(heap, nn, sizeof *order), *place = mest_alloc(heap, nn, sizeof *place);
    mest_node *moved = mest_alloc(heap, nn, sizeof *moved);
    uint8_t *keep = mest_calloc(heap, nn, 1);
    mest_status status = MEST_OK;
    if (!live || !order || !place || !moved || !keep) {
        status = mest_fail(err, MEST_E_NOMEM, "graph: no memory to prune %d nodes", g->n_nodes);
        goto out;
    }
    for (int i = 0; i < g->n_outputs; i++)
        live[g->outputs[i]] = 1;
    if (g->loss != MEST_NONE)
        live[g->loss] = 1;
    for (mest_id i = g->n_nodes - 1; i >= 0; i--) {
        mest_node *n = &g->nodes[i];
        bool wanted = n->op->flags & MEST_OP_SIDE_EFFECT;
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] != MEST_NONE && live[n->out[k]])
                wanted = true;
        keep[i] = wanted;
        if (wanted)
            for (int k = -1; k < n->n_in; k++) {
                mest_id v = k < 0 ? mest_guard_value(n) : n->in[k];
                if (v != MEST_NONE)
                    live[v] = 1;
            }
    }
    int n = 0;
    for (mest_id i = 0; i < g->n_nodes; i++)
        if (keep[i])
            order[n++] = i;
    renumber(g, order, n, place, moved);
out:
    mest_free(heap, live, nv, 1);
    mest_free(heap, order, nn, sizeof *order);
    mest_free(heap, place, nn, sizeof *place);
    mest_free(heap, moved, nn, sizeof *moved);
    mest_free(heap, keep, nn, 1);
    return status;
}

void mest_graph_trim(mest_graph *g, uint8_t *read)
{
    for (int i = 0; i < g->n_values; i++)
        read[i] = 0;
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] != MEST_NONE)
                read[g->nodes[i].in[k]] = 1;
    for (int i = 0; i < g->n_outputs; i++)
        read[g->outputs[i]] = 1;
    if (g->loss != MEST_NONE)
        read[g->loss] = 1;
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 1; k < g->nodes[i].n_out; k++) { /* output 0 stays: it is what a node is for */
            mest_id y = g->nodes[i].out[k];
            if (y == MEST_NONE || read[y] || (k < 32 && g->nodes[i].op->again_out >> k & 1))
                continue;
            g->values[y].producer = MEST_NONE;
            g->nodes[i].out[k] = MEST_NONE;
        }
}

mest_status mest_graph_check(const mest_graph *g, const char *stage, mest_error *err)
{
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        const mest_op *op = n->op;
        MEST_CHECK(op && n->name, err, MEST_E_INTERNAL, "%s: node %d has no operator", stage, i);
        MEST_CHECK(n->n_in >= op->in_min && (op->in_max < 0 || n->n_in <= op->in_max), err, MEST_E_FORMAT,
                   "%s '%s': %d inputs, the operator takes %d to %d", op->name, n->name, n->n_in, op->in_min, op->in_max);
        MEST_CHECK(n->n_out >= op->out_min && (op->out_max < 0 || n->n_out <= op->out_max), err, MEST_E_FORMAT,
                   "%s '%s': %d outputs, the operator gives %d to %d", op->name, n->name, n->n_out, op->out_min, op->out_max);
        for (int k = 0; k < n->n_in; k++) {
            mest_id v = n->in[k];
            if (v == MEST_NONE) {
                MEST_CHECK(k >= op->in_min || (op->domain && op->domain[0]), err, MEST_E_FORMAT, "%s '%s': required input %d is absent", op->name, n->name, k);
                continue;
            }
            MEST_CHECK(v >= 0 && v < g->n_values, err, MEST_E_INTERNAL, "%s: node '%s' input %d is value %d of %d", stage, n->name, k, v, g->n_values);
            mest_id p = g->values[v].producer;
            MEST_CHECK(p < i, err, MEST_E_INTERNAL, "%s: node '%s' reads '%s' before it is computed", stage, n->name, g->values[v].name);
            MEST_CHECK(p != MEST_NONE || g->values[v].kind != MEST_VALUE_RESULT, err, MEST_E_INTERNAL, "%s: node '%s' reads '%s', which no node computes", stage,
                       n->name, g->values[v].name);
        }
        for (int k = 0; k < n->n_out; k++) {
            mest_id v = n->out[k];
            if (v == MEST_NONE)
                continue;
            MEST_CHECK(v >= 0 && v < g->n_values && g->values[v].producer == i && g->values[v].output == k, err, MEST_E_INTERNAL,
                       "%s: node '%s' output %d is not its own", stage, n->name, k);
        }
    }
    return MEST_OK;
}

static const char *layout_text(const mest_layout *l, char *buf, size_t size)
{
    if (l->kind == MEST_PIXEL)
        snprintf(buf, size, " pixel%d+%d%d%d%d/%d", l->v, l->top, l->left, l->bottom, l->right, l->slots);
    else if (l->kind == MEST_SPARSE)
        snprintf(buf, size, " sparse");
    else
        buf[0] = 0;
    return buf;
}

void mest_graph_dump(const mest_graph *g, void (*write)(void *user, const char *text), void *user)
{
    char text[512], shape[160], layout[64];
    static const char *const phases[] = {"forward", "backward", "update"};
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        snprintf(text, sizeof text, "%4d %-8s %s '%s' (", i, phases[n->phase], n->op->name, n->name);
        write(user, text);
        for (int side = 0; side < 2; side++) {
            const mest_id *ids = side ? n->out : n->in;
            int count = side ? n->n_out : n->n_in;
            if (side)
                write(user, ") -> (");
            for (int k = 0; k < count; k++) {
                if (ids[k] == MEST_NONE) {
                    write(user, k ? ", -" : "-");
                    continue;
                }
                const mest_value *v = &g->values[ids[k]];
                snprintf(text, sizeof text, "%s%s:%s%s%s", k ? ", " : "", v->name, mest_dtype_name(v->type.dtype),
                         mest_shape_text(&v->type.shape, shape, sizeof shape), layout_text(&v->type.layout, layout, sizeof layout));
                write(user, text);
            }
        }
        write(user, ")\n");
    }
}
