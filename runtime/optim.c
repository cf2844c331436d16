/* SPDX-License-Identifier: Apache-2.0 */
/* State of the optimizer, and the pass that appends update nodes. */
#include "runtime/optim.h"

#include "runtime/channels.h"

#include <stdio.h>
#include <string.h>

#include "ops/nn.h"
#include "runtime/infer.h"
#include "runtime/perturb.h"
#include "runtime/program.h"

mest_status mest_optimizer_init(mest_optimizer *o, mest_model *model, const char *rule, mest_error *err)
{
    memset(o, 0, sizeof *o);
    o->model = model;
    o->rule = mest_optim_rule_find(rule);
    MEST_CHECK(o->rule, err, MEST_E_ARGUMENT, "config: optimizer '%s' is not one of %s", rule ? rule : "", mest_optim_rule_names);
    return MEST_OK;
}

static int64_t capacity_of(const mest_param *p) { return p->sparse ? p->sparse->cap_units * p->sparse->unit_elements : mest_param_room(p); }

mest_status mest_optimizer_allocate(mest_optimizer *o, mest_error *err)
{
    mest_heap *heap = &o->model->heap;
    int slots = o->rule->n_slots;
    if (!strcmp(o->rule->name, "sgd") && o->momentum == 0)
        slots = 0;
    o->n_state = o->model->n_params;
    o->state = mest_calloc(heap, (size_t)o->n_state + 1, sizeof *o->state);
    MEST_CHECK(o->state, err, MEST_E_NOMEM, "optimizer: out of memory");
    for (int i = 0; i < o->n_state; i++) {
        const mest_param *p = &o->model->params[i];
        mest_param_state *s = &o->state[i];
        if (p->role != MEST_ROLE_TRAINABLE)
            continue;
        s->capacity = capacity_of(p);
        for (int k = 0; k < slots; k++) {
            s->slot[k] = mest_calloc(heap, (size_t)s->capacity, sizeof **s->slot);
            MEST_CHECK(s->slot[k], err, MEST_E_NOMEM, "optimizer: no memory for the state of '%s'", p->name);
        }
    }
    return MEST_OK;
}

void mest_optimizer_free(mest_optimizer *o)
{
    if (!o->state)
        return;
    mest_heap *heap = &o->model->heap;
    for (int i = 0; i < o->n_state; i++) {
        for (int k = 0; k < MEST_OPTIM_SLOTS; k++)
            mest_free(heap, o->state[i].slot[k], (size_t)o->state[i].capacity, sizeof(mest_real));
        mest_free(heap, o->state[i].sum, (size_t)o->state[i].capacity, sizeof(mest_real));
    }
    mest_free(heap, o->state, (size_t)o->n_state + 1, sizeof *o->state);
    o->state = NULL;
}

void mest_optimizer_drop(mest_optimizer *o, int param)
{
    mest_param_state *s = &o->state[param];
    for (int k = 0; k < MEST_OPTIM_SLOTS; k++) {
        mest_free(&o->model->heap, s->slot[k], (size_t)s->capacity, sizeof(mest_real));
        s->slot[k] = NULL;
    }
    mest_free(&o->model->heap, s->sum, (size_t)s->capacity, sizeof(mest_real));
    s->sum = NULL;
}

void mest_optimizer_clear(mest_optimizer *o, int64_t at)
{
    for (int i = 0; o->state && i < o->n_state; i++)
        for (int k = 0; k < MEST_OPTIM_SLOTS; k++)
            if (o->state[i].slot[k])
                memset(o->state[i].slot[k], 0, (size_t)o->state[i].capacity * sizeof(mest_real));
    o->since = at;
}

int64_t mest_optimizer_bytes(const mest_optimizer *o)
{
    int64_t n = 0;
    for (int i = 0; o->state && i < o->n_state; i++) {
        for (int k = 0; k < MEST_OPTIM_SLOTS; k++)
            n += o->state[i].slot[k] ? o->state[i].capacity * (int64_t)sizeof(mest_real) : 0;
        n += o->state[i].sum ? o->state[i].capacity * (int64_t)sizeof(mest_real) : 0;
    }
    return n;
}

typedef struct update_job {
    const mest_optimizer *o;
    mest_real *w, *slots[MEST_OPTIM_SLOTS], *snapshot;
    const mest_real *g;
    int64_t n;
    double scale, lr, wd;
    uint64_t t;
    bool only_snapshot, add;
} update_job;

enum { UPDATE_CHUNK = 16384 };

static void update_tile(void *context, size_t tile)
{
    const update_job *j = context;
    int64_t from = (int64_t)tile * UPDATE_CHUNK, n = j->n - from < UPDATE_CHUNK ? j->n - from : UPDATE_CHUNK;
    mest_real *slots[MEST_OPTIM_SLOTS];
    for (int k = 0; k < MEST_OPTIM_SLOTS; k++)
        slots[k] = j->slots[k] ? j->slots[k] + from : NULL;
    if (j->snapshot)
        for (int64_t i = from; i < from + n; i++)
            j->snapshot[i] = (j->add ? j->snapshot[i] : 0) + j->g[i];
    if (!j->only_snapshot)
        j->o->rule->step(j->o, j->w + from, j->g + from, slots, n, j->scale, j->lr, j->wd, j->t);
}

/* What a mest.Update node does. */
static void apply_update(const mest_update_params *u, const mest_args *a)
{
    if (!mest_run_completes(a->run)) /* more parts of the batch are to come */
        return;
    mest_param *p = &u->optimizer->model->params[u->param];
    const mest_param_state *s = &u->optimizer->state[u->param];
    update_job job = {.o = u->optimizer, .w = mest_param_data(p), .g = a->in[0].data, .n = mest_param_stored(p), .scale = 1, .lr = a->run->lr,
                      .wd = p->no_decay ? 0 : u->optimizer->weight_decay, .t = a->run->step + 1 - (uint64_t)u->optimizer->since};
    for (int k = 0; k < MEST_OPTIM_SLOTS; k++)
        job.slots[k] = s->slot[k];
    if (a->run->snapshot_grads)
        job.snapshot = s->snapshot;
    job.add = a->run->snapshot_add;
    if (a->run->keep_weights) {
        job.only_snapshot = true;
        if (!job.snapshot)
            return;
    }
    if (a->n_in > 1 && a->in[1].data)
        job.scale = (double)*(const mest_real *)a->in[1].data;
    const bool perturb = u->optimizer->perturb && p->sparse && !job.only_snapshot;
    job.only_snapshot |= perturb;
    if (!perturb || job.snapshot)
        mest_parallel(a->threads, (size_t)((job.n + UPDATE_CHUNK - 1) / UPDATE_CHUNK), update_tile, &job);
    if (perturb) {
        mest_perturb_job own = {.o = job.o, .param = u->param, .w = job.w, .g = job.g, .units = p->sparse->active_units, .elements = p->sparse->unit_elements,
                                .scale = job.scale, .lr = job.lr, .wd = job.wd, .t = job.t, .turned = s->turned};
        memcpy(own.slots, job.slots, sizeof own.slots);
        mest_perturbed_update(&own, a->threads);
        job.only_snapshot = false;
    }
    if (job.only_snapshot)
        return;
    if (p->sparse)
        p->sparse->value_version++;
    else
        p->value_version++;
}

mest_id mest_append_update_node(mest_graph *g, const char *name, const char *op_name, const void *params, int n_in, const mest_id *in, int n_out, mest_error *err)
{
    const mest_op *op = mest_op_find("mest", op_name, 1);
    mest_id id = op ? mest_graph_node(g, name, op, params, n_in, in, n_out, NULL) : MEST_NONE;
    if (id == MEST_NONE) {
        mest_fail(err, op ? MEST_E_NOMEM : MEST_E_INTERNAL, "%s: cannot add the node", op_name);
        return id;
    }
    g->nodes[id].phase = MEST_PHASE_UPDATE;
    return mest_infer_node(g, id, err) == MEST_OK ? id : MEST_NONE;
}

/* An update runs as soon as its gradient is complete and nobody reads the weight any more: gradients live short. Clipped ones stay at the end. */
static mest_status order_updates(mest_graph *g, mest_id first_sum, mest_id first_update, bool clipped, mest_error *err)
{
    mest_heap *heap = g->region.heap;
    size_t n_params = 1;
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i].kind == MEST_VALUE_PARAM && (size_t)g->values[i].param >= n_params)
            n_params = (size_t)g->values[i].param + 1;
    double *key = mest_alloc(heap, (size_t)g->n_nodes, sizeof *key);
    mest_id *last_read = mest_alloc(heap, n_params, sizeof *last_read); /* by parameter: the last node that does */
    for (size_t i = 0; last_read && i < n_params; i++)
        last_read[i] = MEST_NONE; /* before all nodes */
    for (mest_id k = 0; last_read && k < first_sum; k++)
        for (int j = 0; j < g->nodes[k].n_in; j++)
            if (g->nodes[k].in[j] != MEST_NONE && g->values[g->nodes[k].in[j]].kind == MEST_VALUE_PARAM)
                last_read[g->values[g->nodes[k].in[j]].param] = k;
    for (mest_id i = 0; key && last_read && i < g->n_nodes; i++) {
        key[i] = i >= first_sum && i < first_update ? g->values[g->nodes[i].in[0]].producer + 0.25 : i; /* sums, too, are taken at once */
        if (i < first_update || clipped)
            continue;
        const mest_update_params *u = g->nodes[i].params;
        mest_id last = g->values[g->nodes[i].in[0]].producer;
        if (last >= first_sum)
            last = g->values[g->nodes[last].in[0]].producer;
        if (last_read[u->param] > last)
            last = last_read[u->param];
        key[i] = last + 0.5;
    }
    mest_status status = key && last_read ? mest_graph_order(g, key, err) : mest_fail(err, MEST_E_NOMEM, "optimizer: out of memory");
    mest_free(heap, last_read, n_params, sizeof *last_read);
    mest_free(heap, key, (size_t)g->n_nodes, sizeof *key);
    return status;
}

mest_status mest_append_updates(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    mest_optimizer *o = p->spec.optimizer;
    mest_id scale = MEST_NONE;
    const mest_id first_sum = g->n_nodes;
    if (p->spec.accumulate)
        MEST_TRY(mest_append_accumulation(p, err));
    mest_id first_update = g->n_nodes;
    int n_grads = 0;
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i].kind == MEST_VALUE_PARAM && g->values[i].grad != MEST_NONE)
            n_grads++;
    if (p->spec.clip_norm > 0 && n_grads) {
        mest_id *in = mest_region_alloc(&g->region, (size_t)n_grads, sizeof *in);
        double *limit = mest_region_alloc(&g->region, 1, sizeof *limit);
        MEST_CHECK(in && limit, err, MEST_E_NOMEM, "optimizer: out of memory");
        int k = 0;
        for (int i = 0; i < g->n_values; i++)
            if (g->values[i].kind == MEST_VALUE_PARAM && g->values[i].grad != MEST_NONE)
                in[k++] = g->values[i].grad;
        *limit = p->spec.clip_norm;
        mest_id node = mest_append_update_node(g, "clip", "mest.ClipScale", limit, n_grads, in, 1, err);
        MEST_CHECK(node != MEST_NONE, err, MEST_E_NOMEM, "optimizer: cannot add the clipping node");
        scale = g->nodes[node].out[0];
    }
    int n_values = g->n_values;
    for (int i = 0; i < n_values; i++) {
        if (g->values[i].kind != MEST_VALUE_PARAM || g->values[i].grad == MEST_NONE)
            continue;
        mest_update_params *u = mest_region_alloc(&g->region, 1, sizeof *u);
        MEST_CHECK(u, err, MEST_E_NOMEM, "optimizer: out of memory");
        u->apply = apply_update;
        u->optimizer = o;
        u->param = g->values[i].param;
        char name[300];
        snprintf(name, sizeof name, "%.280s/update", g->values[i].name);
        mest_id in[2] = {g->values[i].grad, scale};
        MEST_CHECK(mest_append_update_node(g, name, "mest.Update", u, scale == MEST_NONE ? 1 : 2, in, 0, err) != MEST_NONE, err, MEST_E_NOMEM,
                   "optimizer: cannot add the update of '%s'", g->values[i].name);
    }
    return order_updates(g, first_sum, first_update, scale != MEST_NONE, err);
}
