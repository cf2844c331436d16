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

/* Inputs over which output y may be written: what the kernel or operator allows, where the types make it possible. */
static uint32_t over_of(const mest_program *p, const mest_kernel *kernel, const mest_op *op, const mest_id *in, int n_in, mest_id out)
{
    const mest_graph *g = &p->graph;
    const uint32_t allowed = kernel ? kernel->inplace : mest_op_over(op);
    const mest_value *y = &g->values[out];
    uint32_t over = 0;
    for (int k = 0; k < n_in && k < 32; k++) {
        if (in[k] == MEST_NONE || !(allowed >> k & 1))
            continue;
        const mest_value *x = &g->values[in[k]];
        if (x->type.dtype == y->type.dtype && memcmp(&x->type.layout, &y->type.layout, sizeof x->type.layout) == 0 &&
            mest_shape_equal(&x->type.shape, &y->type.shape))
            over |= 1u << k;
    }
    return over;
}

bool mest_plan_is_view(const mest_program *p, mest_id i)
{
    const mest_graph *g = &p->graph;
    const mest_node *n = &g->nodes[i];
    if (p->steps[i].kernel || !(n->op->flags & MEST_OP_VIEW) || n->in[0] == MEST_NONE)
        return false;
    const mest_value *x = &g->values[n->in[0]], *y = &g->values[n->out[0]];
    return x->type.layout.kind == MEST_PLAIN && y->type.layout.kind == MEST_PLAIN && x->type.dtype == y->type.dtype;
}

const mest_kernel *mest_plan_again_kernel(const mest_program *p, mest_id node)
{
    const mest_step *st = &p->steps[node];
    if (!st->kernel)
        return NULL;
    for (int k = 0; st->kernel->again && mest_kernel_at(k); k++)
        if (!strcmp(mest_kernel_at(k)->name, st->kernel->again))
            return mest_kernel_at(k);
    return st->kernel;
}

bool mest_plan_again_op(const mest_program *p, mest_id node)
{
    const mest_step *st = &p->steps[node];
    return p->graph.nodes[node].op->again && (!st->kernel || st->kernel->again);
}

/* How a forward node is run a second time, and which of its outputs that makes. */
static mest_status again(const mest_program *p, mest_id i, mest_lives *l, mest_error *err)
{
    mest_graph *g = (mest_graph *)(uintptr_t)&p->graph; /* for its memory only */
    const mest_node *n = &g->nodes[i];
    mest_lives_op *op = &l->ops[i];
    op->again = op->form;
    if (mest_plan_again_op(p, i)) {
        if (n->out[0] == MEST_NONE) /* there is nothing to make again */
            return MEST_OK;
        const mest_op *other = mest_op_find("mest", n->op->again, 1);
        MEST_CHECK(other, err, MEST_E_INTERNAL, "%s is missing", n->op->again);
        mest_id *in = mest_region_alloc(&g->region, (size_t)(n->n_in + n->n_out), sizeof *in);
        MEST_CHECK(in, err, MEST_E_NOMEM, "memory plan: out of memory");
        int count = mest_plan_again_inputs(n, in);
        op->again.in = in;
        op->again.n_in = count;
        op->again.seconds *= 0.5; /* that is what the other operator is for */
        op->again.over = over_of(p, mest_plan_again_kernel(p, i), other, in, count, n->out[0]);
        l->values[n->out[0]].again = true;
        return MEST_OK;
    }
    if ((n->op->flags & MEST_OP_SIDE_EFFECT) && !n->op->state_in)
        return MEST_OK;
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k] != MEST_NONE)
            l->values[n->out[k]].again = true;
    return MEST_OK;
}

int mest_plan_again_inputs(const mest_node *n, mest_id *in)
{
    int count = 0;
    for (int k = 0; k < n->n_in && k < 32; k++)
        if (n->op->again_in >> k & 1)
            in[count++] = n->in[k];
    for (int k = 0; k < n->n_out && k < 32; k++)
        if (n->op->again_out >> k & 1)
            in[count++] = n->out[k];
    return count;
}

mest_status mest_plan_lives(const mest_program *p, mest_lives *l, mest_error *err)
{
    const mest_graph *g = &p->graph;
    mest_status status = MEST_OK;
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
        *op = (mest_lives_op){.out = n->out, .n_out = n->n_out, .forward = n->phase == MEST_PHASE_FORWARD};
        op->form = (mest_lives_form){.in = n->in, .n_in = n->n_in, .seconds = st->seconds, .scratch = st->scratch_bytes ? ALIGN_UP(st->scratch_bytes + 64) : 0};
        if (n->n_in && n->n_out && n->out[0] != MEST_NONE) {
            op->form.view = mest_plan_is_view(p, i);
            op->form.over = op->form.view ? 0 : over_of(p, st->kernel, n->op, n->in, n->n_in, n->out[0]);
        }
        if (op->forward)
            MEST_TRY_OUT(again(p, i, l, err));
    }
    return MEST_OK;
out:
    mest_lives_free(l);
    return status;
}

mest_status mest_plan_place(const mest_lives *l, const mest_lives_run *r, size_t *offset, size_t *scratch, size_t *end, mest_error *err)
{
    const int32_t n_ids = 2 * l->n_values;
    const size_t most = (size_t)n_ids + (size_t)r->n_steps + 1;
    mest_span *spans = mest_alloc(l->heap, most, sizeof *spans);
    MEST_CHECK(spans, err, MEST_E_NOMEM, "memory plan: no memory to place %d values", l->n_values);
    int32_t n = 0;
    for (int32_t id = 0; id < n_ids; id++)
        if (l->values[id % l->n_values].planned && r->root[id] == id && r->first[id] <= r->last[id])
            spans[n++] = (mest_span){.id = id, .first = r->first[id], .last = r->last[id], .bytes = l->values[id % l->n_values].bytes};
    for (int32_t s = 0; s < r->n_steps; s++)
        if (mest_lives_form_of(r, s)->scratch)
            spans[n++] = (mest_span){.id = n_ids + s, .first = s, .last = s, .bytes = mest_lives_form_of(r, s)->scratch};
    mest_status status = mest_place(l->heap, spans, n, r->peak, end, err);
    for (int32_t i = 0; i < n && status == MEST_OK; i++) {
        if (offset && spans[i].id < l->n_values)
            offset[spans[i].id] = spans[i].offset;
        else if (scratch && spans[i].id >= n_ids)
            scratch[spans[i].id - n_ids] = spans[i].offset;
    }
    mest_free(l->heap, spans, most, sizeof *spans);
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
    p->bytes = mest_region_alloc(&g->region, nv, sizeof *p->bytes);
    size_t *scratch = mest_region_alloc(&g->region, (size_t)g->n_nodes + 1, sizeof *scratch);
    MEST_CHECK(p->root && p->offset && p->first && p->last && p->bytes && scratch, err, MEST_E_NOMEM, "memory plan: out of memory");
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
            p->bytes[v] = lives.values[v].bytes;
        }
        for (mest_id i = 0; i < g->n_nodes; i++)
            p->steps[i].nothing = lives.ops[i].form.view && p->root[g->nodes[i].out[0]] != g->nodes[i].out[0];
        p->peak_live_bytes = run.peak;
        p->peak_node = run.peak_step;
        status = mest_plan_place(&lives, &run, p->offset, scratch, &p->arena_bytes, err);
        for (int32_t v = 0; v < g->n_values; v++)
            p->offset[v] = p->offset[p->root[v]];
        for (mest_id i = 0; i < g->n_nodes; i++)
            p->steps[i].scratch_offset = scratch[i];
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
    mest_alloc_large_pages(arena->heap, arena->base, bytes);
    return MEST_OK;
}

void mest_arena_free(mest_arena *arena)
{
    mest_free(arena->heap, arena->base, arena->bytes, 1);
    arena->base = NULL;
    arena->bytes = 0;
}
