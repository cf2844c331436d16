/* SPDX-License-Identifier: Apache-2.0 */
/* Who holds the memory of a step: mest_session_memory_values, and the parts of a plan that belong to a step. */
#include <stdio.h>
#include <string.h>

#include "runtime/session.h"

enum { ACTIVATION, AGAIN, GRADIENT, WEIGHT_GRADIENT, SCRATCH };
static const char *const kind_names[] = {"activation", "recomputed", "gradient", "weight gradient", "scratch"};

/* Whether a value is the gradient of a parameter: one byte a value. */
static void mark_weight_gradients(const mest_graph *g, uint8_t *marks)
{
    for (int32_t v = 0; v < g->n_values; v++)
        if (g->values[v].kind == MEST_VALUE_PARAM && g->values[v].grad != MEST_NONE)
            for (mest_id grad = g->values[v].grad; grad != MEST_NONE;) { /* where the batch comes in parts, that of a part too */
                const mest_id made = g->values[grad].producer;
                marks[grad] = 1;
                grad = made != MEST_NONE && !strcmp(g->nodes[made].op->name, "mest.Accumulate") ? g->nodes[made].in[0] : MEST_NONE;
            }
}

static int kind_of(const mest_program *p, mest_id v, const uint8_t *marks)
{
    const mest_id node = p->graph.values[v].producer;
    if (marks[v])
        return WEIGHT_GRADIENT;
    return p->graph.nodes[node].phase == MEST_PHASE_FORWARD ? ACTIVATION : p->steps[node].again ? AGAIN : GRADIENT;
}

static bool has_memory(const mest_program *p, mest_id v)
{
    return p->offset[v] != SIZE_MAX && p->root[v] == v && p->first[v] <= p->last[v] && p->graph.values[v].producer != MEST_NONE;
}

void mest_memory_step(const mest_session *s, mest_memory_plan *m)
{
    const mest_program *p = NULL;
    for (int k = 0; k < MEST_PROGRAM_SLOTS; k++) /* the one that needs most */
        if (s->programs[k] && (!p || s->programs[k]->arena_bytes > p->arena_bytes))
            p = s->programs[k];
    m->batch = s->config.batch;
    if (!p || p->graph.n_nodes == 0)
        return;
    const mest_graph *g = &p->graph;
    uint8_t *marks = mest_calloc(s->heap, (size_t)g->n_values + 1, 1);
    int64_t bytes[SCRATCH + 1] = {0};
    if (!marks)
        return;
    mark_weight_gradients(g, marks);
    for (mest_id v = 0; v < g->n_values; v++)
        if (has_memory(p, v) && p->first[v] <= p->peak_node && p->peak_node <= p->last[v])
            bytes[kind_of(p, v, marks)] += (int64_t)p->bytes[v];
    mest_free(s->heap, marks, (size_t)g->n_values + 1, 1);
    m->live_bytes = (int64_t)p->peak_live_bytes;
    m->activation_bytes = bytes[ACTIVATION];
    m->recomputed_bytes = bytes[AGAIN];
    m->gradient_bytes = bytes[GRADIENT];
    m->weight_gradient_bytes = bytes[WEIGHT_GRADIENT];
    m->scratch_bytes = m->live_bytes - bytes[ACTIVATION] - bytes[AGAIN] - bytes[GRADIENT] - bytes[WEIGHT_GRADIENT];
    m->peak_node = g->nodes[p->peak_node].name;
    m->peak_op = g->nodes[p->peak_node].op->name;
}

typedef struct block { mest_memory_value v; int32_t id; } block;

static bool larger(const block *a, const block *b) { return a->v.bytes > b->v.bytes || (a->v.bytes == b->v.bytes && a->id < b->id); }

static void sort(block *b, int32_t n)
{
    for (int32_t gap = n / 2; gap > 0; gap /= 2)
        for (int32_t i = gap; i < n; i++) {
            const block t = b[i];
            int32_t k = i;
            for (; k >= gap && larger(&t, &b[k - gap]); k -= gap)
                b[k] = b[k - gap];
            b[k] = t;
        }
}

static mest_memory_value describe(const mest_program *p, const char *name, int kind, mest_id made, int32_t last, size_t bytes, size_t offset)
{
    const mest_graph *g = &p->graph;
    return (mest_memory_value){.struct_size = sizeof(mest_memory_value), .name = name, .op = g->nodes[made].op->name, .kind = kind_names[kind],
                               .bytes = (int64_t)bytes, .offset = (int64_t)offset, .born = made, .dies = last, .born_name = g->nodes[made].name,
                               .dies_name = last < g->n_nodes ? g->nodes[last].name : "end", .at_peak = made <= p->peak_node && p->peak_node <= last};
}

mest_status mest_session_memory_values(mest_session *s, mest_program_kind kind, int64_t batch, void (*value)(void *user, const mest_memory_value *value),
                                       void *user, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && value && batch >= 1, err, MEST_E_ARGUMENT, "memory values: session, batch and callback must be given");
    mest_program *p;
    if (kind != MEST_PROGRAM_INFER)
        MEST_TRY(mest_session_shapes(s, err));
    MEST_TRY(mest_session_program(s, kind, kind == MEST_PROGRAM_TRAIN && batch > s->part ? s->part : batch, &p, err)); /* a step may be made in parts */
    const mest_graph *g = &p->graph;
    const size_t most = (size_t)g->n_values + (size_t)g->n_nodes + 1;
    block *blocks = mest_calloc(s->heap, most, sizeof *blocks);
    uint8_t *marks = mest_calloc(s->heap, (size_t)g->n_values + 1, 1);
    mest_status status = blocks && marks ? MEST_OK : mest_fail(err, MEST_E_NOMEM, "memory values: out of memory");
    if (status == MEST_OK) {
        int32_t n = 0;
        mark_weight_gradients(g, marks);
        for (mest_id v = 0; v < g->n_values; v++)
            if (has_memory(p, v))
                blocks[n++] = (block){describe(p, g->values[v].name, kind_of(p, v, marks), g->values[v].producer, p->last[v], p->bytes[v], p->offset[v]), v};
        for (mest_id i = 0; i < g->n_nodes; i++)
            if (p->steps[i].scratch_bytes)
                blocks[n++] = (block){describe(p, g->nodes[i].name, SCRATCH, i, i, p->steps[i].scratch_bytes, p->steps[i].scratch_offset), g->n_values + i};
        sort(blocks, n);
        for (int32_t i = 0; i < n; i++)
            value(user, &blocks[i].v);
    }
    mest_free(s->heap, blocks, most, sizeof *blocks);
    mest_free(s->heap, marks, (size_t)g->n_values + 1, 1);
    return status;
}
