/* SPDX-License-Identifier: Apache-2.0 */
/* Memory plan: lifetimes of values over the order of execution, in-place and view sharing, offsets in one arena.
 *
 * Offsets: values are placed largest first at the lowest gap among those alive at the same time (greedy by size, as in Pisarchyk and
 * Lee 2020, "Efficient memory management for deep neural net inference"). */
#include <string.h>

#include "runtime/program.h"

#define ALIGN_UP(n) (((n) + 63) & ~(size_t)63)

typedef struct span {
    int32_t value; /* root */
    int32_t first, last;
    size_t bytes, offset;
} span;

static size_t storage_bytes(const mest_program *p, mest_id v)
{
    const mest_type *t = &p->graph.values[v].type;
    int64_t n = 0;
    if (t->layout.kind == MEST_SPARSE) {
        const mest_sparse *s = p->model->params[t->layout.param].sparse;
        n = s->cap_units * s->unit_elements;
    } else if (!mest_type_storage(t, &n)) {
        return SIZE_MAX;
    }
    size_t bytes;
    if (!mest_mul((size_t)n, mest_dtype_size(t->dtype), &bytes) || bytes > SIZE_MAX / 4)
        return SIZE_MAX;
    return ALIGN_UP(bytes + 64); /* slack: vector tails and XNN_EXTRA_BYTES */
}

static int32_t root_of(const mest_program *p, int32_t v)
{
    while (p->root[v] != v)
        v = p->root[v];
    return v;
}

/* Views share memory; in-place results take over an input that dies here. */
static void share(mest_program *p, int32_t *last)
{
    mest_graph *g = &p->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        mest_node *n = &g->nodes[i];
        mest_step *st = &p->steps[i];
        if (n->n_in == 0 || n->n_out == 0 || n->in[0] == MEST_NONE || n->out[0] == MEST_NONE)
            continue;
        mest_id x = n->in[0], y = n->out[0];
        const mest_value *vx = &g->values[x], *vy = &g->values[y];
        bool plain = vx->type.layout.kind == MEST_PLAIN && vy->type.layout.kind == MEST_PLAIN;
        if (!st->kernel && (n->op->flags & MEST_OP_VIEW) && plain && vx->kind == MEST_VALUE_RESULT && vx->type.dtype == vy->type.dtype) {
            p->root[y] = root_of(p, x);
            if (last[y] > last[p->root[y]])
                last[p->root[y]] = last[y];
            st->nothing = true;
            continue;
        }
        bool in_place = st->kernel ? st->kernel->inplace : (n->op->flags & MEST_OP_INPLACE) != 0;
        int32_t root = root_of(p, x);
        bool twice = false; /* x (or a view of it) read through another input as well */
        for (int k = 1; k < n->n_in; k++)
            twice |= n->in[k] != MEST_NONE && root_of(p, n->in[k]) == root;
        bool same_layout = memcmp(&vx->type.layout, &vy->type.layout, sizeof vx->type.layout) == 0;
        if (in_place && !twice && g->values[root].kind == MEST_VALUE_RESULT && last[root] == i && same_layout && vx->type.dtype == vy->type.dtype &&
            storage_bytes(p, y) <= storage_bytes(p, root)) {
            p->root[y] = root;
            last[root] = last[y];
        }
    }
}

/* Largest first; ties by id, so that the plan is the same everywhere. */
static void sort_spans(span *s, int32_t n)
{
    for (int32_t gap = n / 2; gap > 0; gap /= 2) /* shell sort: no recursion, no libc callback, n is a few thousand */
        for (int32_t i = gap; i < n; i++) {
            span t = s[i];
            int32_t k = i;
            for (; k >= gap && (s[k - gap].bytes < t.bytes || (s[k - gap].bytes == t.bytes && s[k - gap].value > t.value)); k -= gap)
                s[k] = s[k - gap];
            s[k] = t;
        }
}

/* Lowest offset at which a span fits among those already placed that live at the same time. */
static size_t place(const span *placed, int32_t n, const span *s)
{
    size_t at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int32_t i = 0; i < n; i++) {
            const span *o = &placed[i];
            if (o->last < s->first || s->last < o->first)
                continue;
            if (at < o->offset + o->bytes && o->offset < at + s->bytes) {
                at = o->offset + o->bytes;
                moved = true;
            }
        }
    }
    return at;
}

mest_status mest_plan_memory(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    mest_heap *heap = &p->model->heap;
    size_t nv = (size_t)g->n_values + 1;
    p->root = mest_region_alloc(&g->region, nv, sizeof *p->root);
    p->offset = mest_region_alloc(&g->region, nv, sizeof *p->offset);
    int32_t *first = mest_alloc(heap, nv, sizeof *first), *last = mest_alloc(heap, nv, sizeof *last);
    span *spans = mest_alloc(heap, nv, sizeof *spans);
    mest_status status = MEST_OK;
    if (!p->root || !p->offset || !first || !last || !spans) {
        status = mest_fail(err, MEST_E_NOMEM, "plan: out of memory");
        goto out;
    }
    for (int32_t i = 0; i < g->n_values; i++) {
        p->root[i] = i;
        p->offset[i] = SIZE_MAX;
        first[i] = g->n_nodes;
        last[i] = -1;
    }
    size_t scratch = 0;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] != MEST_NONE)
                last[g->nodes[i].in[k]] = i;
        for (int k = 0; k < g->nodes[i].n_out; k++)
            if (g->nodes[i].out[k] != MEST_NONE) {
                first[g->nodes[i].out[k]] = i;
                if (last[g->nodes[i].out[k]] < i)
                    last[g->nodes[i].out[k]] = i;
            }
        if (p->steps[i].scratch_bytes > scratch)
            scratch = p->steps[i].scratch_bytes;
    }
    for (int i = 0; i < g->n_outputs; i++)
        last[g->outputs[i]] = g->n_nodes;
    if (g->loss != MEST_NONE)
        last[g->loss] = g->n_nodes;
    if (p->spec.keep_gradients)
        for (int32_t i = 0; i < g->n_values; i++)
            if ((g->values[i].kind == MEST_VALUE_PARAM || g->values[i].kind == MEST_VALUE_INPUT) && g->values[i].grad != MEST_NONE)
                last[g->values[i].grad] = g->n_nodes;
    share(p, last);

    int32_t n = 0;
    for (int32_t i = 0; i < g->n_values; i++) {
        if (g->values[i].kind != MEST_VALUE_RESULT || g->values[i].producer == MEST_NONE || p->root[i] != i)
            continue;
        size_t bytes = storage_bytes(p, i);
        if (bytes == SIZE_MAX) {
            status = mest_fail(err, MEST_E_LIMIT, "plan: value '%s' is too large", g->values[i].name);
            goto out;
        }
        spans[n++] = (span){.value = i, .first = first[i], .last = last[i], .bytes = bytes};
    }
    sort_spans(spans, n);
    size_t end = 0;
    for (int32_t i = 0; i < n; i++) {
        spans[i].offset = place(spans, i, &spans[i]);
        p->offset[spans[i].value] = spans[i].offset;
        if (spans[i].offset + spans[i].bytes > end)
            end = spans[i].offset + spans[i].bytes;
    }
    for (int32_t i = 0; i < g->n_values; i++)
        if (p->root[i] != i)
            p->offset[i] = p->offset[root_of(p, i)];
    for (mest_id t = 0; t < g->n_nodes; t++) { /* the lower bound no plan can beat, for reports */
        size_t live = 0;
        for (int32_t i = 0; i < n; i++)
            if (spans[i].first <= t && t <= spans[i].last)
                live += spans[i].bytes;
        if (live > p->peak_live_bytes)
            p->peak_live_bytes = live;
    }
    p->scratch_offset = end;
    p->arena_bytes = end + ALIGN_UP(scratch + 64);
out:
    mest_free(heap, first, nv, sizeof *first);
    mest_free(heap, last, nv, sizeof *last);
    mest_free(heap, spans, nv, sizeof *spans);
    return status;
}

mest_status mest_arena_reserve(mest_arena *arena, size_t bytes, mest_error *err)
{
    if (bytes <= arena->bytes)
        return MEST_OK;
    char *base = mest_alloc(arena->heap, bytes, 1);
    MEST_CHECK(base, err, MEST_E_NOMEM, "no memory for the activations of one step: %zu bytes", bytes);
    mest_free(arena->heap, arena->base, arena->bytes, 1);
    arena->base = base;
    arena->bytes = bytes;
    arena->generation++;
    return MEST_OK;
}

void mest_arena_free(mest_arena *arena)
{
    mest_free(arena->heap, arena->base, arena->bytes, 1);
    arena->base = NULL;
    arena->bytes = 0;
}
