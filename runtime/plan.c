/* SPDX-License-Identifier: Apache-2.0 */
/* Memory plan of a program: lifetimes over the order of execution, in-place and view sharing (runtime/lives.c), places in one arena
 * (runtime/place.c). Scratch of a kernel is a block that lives while its node runs. */
#include <string.h>

#include "runtime/place.h"
#include "runtime/plan.h"

#define ALIGN_UP(n) (((n) + 63) & ~(size_t)63)

size_t mest_plan_bytes(const mest_program *p, mest_id v)
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

/* Inputs over which the node may write output 0: what the kernel or operator allows, where the types make it possible. */
static uint32_t over_of(const mest_program *p, mest_id i)
{
    const mest_graph *g = &p->graph;
    const mest_node *n = &g->nodes[i];
    const mest_step *st = &p->steps[i];
    const uint32_t allowed = st->kernel ? st->kernel->inplace : mest_op_over(n->op);
    const mest_value *y = &g->values[n->out[0]];
    uint32_t over = 0;
    for (int k = 0; k < n->n_in && k < 32; k++) {
        if (n->in[k] == MEST_NONE || !(allowed >> k & 1))
            continue;
        const mest_value *x = &g->values[n->in[k]];
        if (x->type.dtype == y->type.dtype && memcmp(&x->type.layout, &y->type.layout, sizeof x->type.layout) == 0 &&
            mest_shape_equal(&x->type.shape, &y->type.shape))
            over |= 1u << k;
    }
    return over;
}

static bool is_view(const mest_program *p, mest_id i)
{
    const mest_graph *g = &p->graph;
    const mest_node *n = &g->nodes[i];
    if (p->steps[i].kernel || !(n->op->flags & MEST_OP_VIEW) || n->in[0] == MEST_NONE)
        return false;
    const mest_value *x = &g->values[n->in[0]], *y = &g->values[n->out[0]];
    return x->type.layout.kind == MEST_PLAIN && y->type.layout.kind == MEST_PLAIN && x->type.dtype == y->type.dtype;
}

mest_status mest_plan_lives(const mest_program *p, mest_lives *l, mest_error *err)
{
    const mest_graph *g = &p->graph;
    MEST_TRY(mest_lives_create(l, &p->model->heap, g->n_nodes, g->n_values, err));
    for (int32_t v = 0; v < g->n_values; v++) {
        const mest_value *value = &g->values[v];
        mest_lives_value *lv = &l->values[v];
        lv->producer = value->producer;
        lv->planned = value->kind == MEST_VALUE_RESULT && value->producer != MEST_NONE;
        lv->bytes = lv->planned ? mest_plan_bytes(p, v) : 0;
        lv->kept = v == g->loss;
        if (lv->bytes == SIZE_MAX) {
            mest_lives_free(l);
            return mest_fail(err, MEST_E_LIMIT, "plan: value '%s' is too large", value->name);
        }
    }
    for (int32_t v = 0; v < g->n_values; v++)
        if (p->spec.keep_gradients && (g->values[v].kind == MEST_VALUE_PARAM || g->values[v].kind == MEST_VALUE_INPUT) && g->values[v].grad != MEST_NONE)
            l->values[g->values[v].grad].kept = true;
    for (int i = 0; i < g->n_outputs; i++)
        l->values[g->outputs[i]].kept = true;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        mest_lives_op *op = &l->ops[i];
        const mest_step *st = &p->steps[i];
        *op = (mest_lives_op){.in = n->in, .out = n->out, .n_in = n->n_in, .n_out = n->n_out, .forward = n->phase == MEST_PHASE_FORWARD,
                              .seconds = st->seconds, .scratch = st->scratch_bytes ? ALIGN_UP(st->scratch_bytes + 64) : 0};
        if (n->n_in && n->n_out && n->out[0] != MEST_NONE) {
            op->view = is_view(p, i);
            op->over = op->view ? 0 : over_of(p, i);
        }
    }
    return MEST_OK;
}

/* Offsets of values and of scratch, from the lifetimes. */
static mest_status place(mest_program *p, const mest_lives *l, const mest_lives_run *r, mest_error *err)
{
    const mest_graph *g = &p->graph;
    mest_heap *heap = &p->model->heap;
    const size_t most = (size_t)g->n_values + (size_t)g->n_nodes + 1;
    mest_span *spans = mest_alloc(heap, most, sizeof *spans);
    MEST_CHECK(spans, err, MEST_E_NOMEM, "memory plan: no memory to place %d values", g->n_values);
    int32_t n = 0;
    for (int32_t v = 0; v < g->n_values; v++)
        if (l->values[v].planned && r->root[v] == v && r->first[v] <= r->last[v])
            spans[n++] = (mest_span){.id = v, .first = r->first[v], .last = r->last[v], .bytes = l->values[v].bytes};
    for (mest_id i = 0; i < g->n_nodes; i++)
        if (l->ops[i].scratch)
            spans[n++] = (mest_span){.id = g->n_values + i, .first = i, .last = i, .bytes = l->ops[i].scratch};
    mest_status status = mest_place(heap, spans, n, r->peak, &p->arena_bytes, err);
    for (int32_t i = 0; i < n && status == MEST_OK; i++) {
        if (spans[i].id < g->n_values)
            p->offset[spans[i].id] = spans[i].offset;
        else
            p->steps[spans[i].id - g->n_values].scratch_offset = spans[i].offset;
    }
    for (int32_t v = 0; v < g->n_values; v++)
        if (p->root[v] != v)
            p->offset[v] = p->offset[p->root[v]];
    mest_free(heap, spans, most, sizeof *spans);
    return status;
}

mest_status mest_plan_memory(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    const size_t nv = (size_t)g->n_values + 1;
    p->root = mest_region_alloc(&g->region, nv, sizeof *p->root);
    p->offset = mest_region_alloc(&g->region, nv, sizeof *p->offset);
    p->first = mest_region_alloc(&g->region, nv, sizeof *p->first);
    p->last = mest_region_alloc(&g->region, nv, sizeof *p->last);
    MEST_CHECK(p->root && p->offset && p->first && p->last, err, MEST_E_NOMEM, "memory plan: out of memory");
    mest_lives lives = {.heap = NULL};
    mest_lives_run run = {.problem = NULL};
    MEST_TRY(mest_plan_lives(p, &lives, err));
    mest_status status = mest_lives_run_create(&run, &lives, err);
    if (status == MEST_OK) {
        mest_lives_evaluate(&run, NULL, SIZE_MAX);
        for (int32_t v = 0; v < g->n_values; v++) {
            int32_t root = v;
            while (run.root[root] != root)
                root = run.root[root];
            p->root[v] = root;
            p->offset[v] = SIZE_MAX;
            p->first[v] = run.first[v];
            p->last[v] = run.last[v];
        }
        for (mest_id i = 0; i < g->n_nodes; i++)
            p->steps[i].nothing = lives.ops[i].view && p->root[g->nodes[i].out[0]] != g->nodes[i].out[0];
        p->peak_live_bytes = run.peak;
        p->peak_node = run.peak_step;
        status = place(p, &lives, &run, err);
    }
    mest_lives_run_free(&run);
    mest_lives_free(&lives);
    return status;
}

mest_status mest_arena_reserve(mest_arena *arena, size_t bytes, mest_error *err)
{
    if (bytes <= arena->bytes)
        return MEST_OK;
    mest_arena_free(arena); /* first: nothing in it outlives a run, and both at once would be the peak */
    arena->base = mest_alloc(arena->heap, bytes, 1);
    arena->generation++;
    MEST_CHECK(arena->base, err, MEST_E_NOMEM, "no memory for the activations of one step: %zu bytes", bytes);
    arena->bytes = bytes;
    return MEST_OK;
}

void mest_arena_free(mest_arena *arena)
{
    mest_free(arena->heap, arena->base, arena->bytes, 1);
    arena->base = NULL;
    arena->bytes = 0;
}
