/* SPDX-License-Identifier: Apache-2.0 */
/* Builds and runs programs. */
#include "runtime/program.h"

#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <string.h>

#include "runtime/autodiff.h"
#include "runtime/counter.h"
#include "runtime/infer.h"
#include "runtime/survey.h"
#include "runtime/recompute.h"

/* ---- building ---- */
static mest_status differentiate(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    uint8_t *wanted = mest_region_alloc(&g->region, (size_t)g->n_values + 1, 1);
    MEST_CHECK(wanted, err, MEST_E_NOMEM, "program: out of memory");
    for (int i = 0; i < g->n_values; i++) {
        const mest_value *v = &g->values[i];
        if (v->kind == MEST_VALUE_PARAM)
            wanted[i] = p->model->params[v->param].role == MEST_ROLE_TRAINABLE && !(p->spec.frozen && p->spec.frozen[v->param]);
        else if (v->kind == MEST_VALUE_INPUT && p->spec.input_gradients)
            wanted[i] = v->type.dtype == MEST_F32 && i != p->target;
    }
    const mest_survey *survey = g->survey; /* what comes out of a node that cannot run may have learnt from what goes in */
    for (int i = 0; survey && survey->starts && i < survey->n_starts; i++)
        wanted[i] |= survey->starts[i] && g->values[i].type.dtype == MEST_F32;
    MEST_TRY(mest_autodiff(g, wanted, err));
    if (p->spec.keep_gradients || p->spec.no_update) { /* gradients are results: prune must not drop them */
        mest_id *outputs = mest_region_alloc(&g->region, (size_t)(g->n_outputs + g->n_values), sizeof *outputs);
        MEST_CHECK(outputs, err, MEST_E_NOMEM, "program: out of memory");
        memcpy(outputs, g->outputs, (size_t)g->n_outputs * sizeof *outputs);
        for (int i = 0; i < g->n_values; i++)
            if (wanted[i] && i < g->n_values && g->values[i].grad != MEST_NONE)
                outputs[g->n_outputs++] = g->values[i].grad;
        g->outputs = outputs;
    }
    return MEST_OK;
}

int64_t mest_program_macs(const mest_program *p, mest_id node)
{
    const mest_node *n = &p->graph.nodes[node];
    if (!n->op->macs)
        return 0;
    mest_kernel_query q;
    mest_query_storage storage;
    mest_make_query(p, node, &q, &storage);
    double macs = (double)n->op->macs(n, q.in, q.out);
    for (int k = 0; k < q.n_in; k++)
        if (q.sparse[k])
            macs *= (double)mest_sparse_nnz(q.sparse[k]) / (double)(q.sparse[k]->rows * q.sparse[k]->cols);
    return (int64_t)macs;
}

static mest_status make_args(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    mest_region *r = &g->region;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        p->n_pool_in += g->nodes[i].n_in;
        p->n_pool_out += g->nodes[i].n_out;
    }
    p->tensors = mest_region_alloc(r, (size_t)g->n_values + 1, sizeof *p->tensors);
    p->in_pool = mest_region_alloc(r, (size_t)p->n_pool_in + 1, sizeof *p->in_pool);
    p->out_pool = mest_region_alloc(r, (size_t)p->n_pool_out + 1, sizeof *p->out_pool);
    MEST_CHECK(p->tensors && p->in_pool && p->out_pool, err, MEST_E_NOMEM, "program: out of memory");
    for (int i = 0; i < g->n_values; i++) {
        const mest_value *v = &g->values[i];
        mest_tensor *t = &p->tensors[i];
        int64_t count = 0;
        t->type = &v->type;
        if (v->type.dtype != MEST_UNDEFINED && mest_shape_count(&v->type.shape, &count))
            t->count = (size_t)count;
        if (v->type.layout.kind == MEST_SPARSE)
            t->sparse = p->model->params[v->type.layout.param].sparse;
        if (v->kind == MEST_VALUE_CONST)
            t->data = (void *)(uintptr_t)v->data;
        if (v->kind == MEST_VALUE_PARAM) {
            const mest_param *param = &p->model->params[v->param];
            t->value_version = param->sparse ? &param->sparse->value_version : &param->value_version;
        }
    }
    int in = 0, out = 0;
    p->first_backward = g->n_nodes;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        mest_step *st = &p->steps[i];
        if (n->phase != MEST_PHASE_FORWARD && p->first_backward == g->n_nodes)
            p->first_backward = i;
        st->args = (mest_args){.node = n, .params = n->params, .n_in = n->n_in, .n_out = n->n_out, .in = p->in_pool + in, .out = p->out_pool + out,
                               .state = st->state, .threads = p->spec.threads};
        st->weight_param = -1;
        if (n->op->weight_outer && n->n_out > 1 && n->out[1] != MEST_NONE && g->values[n->out[1]].type.layout.kind == MEST_SPARSE)
            st->weight_param = g->values[n->out[1]].type.layout.param;
        in += n->n_in;
        out += n->n_out;
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] != MEST_NONE) {
                const mest_layout *l = &g->values[n->out[k]].type.layout;
                bool in_place = false; /* the halo of what it is written over is clear */
                for (int j = 0; j < n->n_in; j++)
                    in_place |= n->in[j] != MEST_NONE && p->root[n->out[k]] == p->root[n->in[j]];
                st->clear_halo |= l->kind == MEST_PIXEL && (l->top | l->left | l->bottom | l->right) && !in_place;
            }
        p->macs += mest_program_macs(p, i);
    }
    return MEST_OK;
}

/* A sparse weight can only be read by a layer: what stands between them must have gone by now. */
static mest_status sparse_readers(mest_program *p, mest_error *err)
{
    for (mest_id i = 0; i < p->graph.n_nodes; i++) {
        const mest_node *n = &p->graph.nodes[i];
        for (int k = 0; k < n->n_in; k++) {
            const mest_value *v = n->in[k] == MEST_NONE ? NULL : &p->graph.values[n->in[k]];
            MEST_CHECK(!v || v->kind != MEST_VALUE_PARAM || !p->model->params[v->param].sparse || (k < 32 && (n->op->sparse_in >> k & 1)), err,
                       MEST_E_UNSUPPORTED, "'%s' is sparse and %s '%s' cannot read it: the pass that hands it to its layer is turned off (no_fuse)", v->name,
                       n->op->name, n->name);
        }
    }
    return MEST_OK;
}

static mest_status trim(mest_graph *g, mest_error *err)
{
    uint8_t *read = mest_region_alloc(&g->region, (size_t)g->n_values + 1, 1);
    MEST_CHECK(read, err, MEST_E_NOMEM, "program: out of memory");
    mest_graph_trim(g, read);
    return MEST_OK;
}

/* Nodes that do something: views move no data. */
static int working_nodes(const mest_graph *g)
{
    int n = 0;
    for (mest_id i = 0; i < g->n_nodes; i++)
        n += !(g->nodes[i].op->flags & MEST_OP_VIEW);
    return n;
}

static mest_status passes(mest_program *p, mest_pass_phase phase, mest_error *err)
{
    return mest_passes_run(phase, &p->graph, p->model, &p->spec, phase == MEST_PASS_KERNELS ? p : NULL, p->spec.no_fuse, p->pass_counts, err);
}

/* Without the backward part where it cannot be made as a whole: the rest can still be judged. */
static mest_status differentiate_or_note(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    mest_id n_nodes = g->n_nodes;
    mest_status status = differentiate(p, err);
    if (status != MEST_OK && g->survey) {
        g->n_nodes = n_nodes;
        for (int i = 0; i < g->n_values; i++)
            g->values[i].grad = MEST_NONE;
    }
    return mest_survey_failure(g, status, err);
}

static mest_status attach_loss(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    const mest_survey *s = g->survey;
    if (!s)
        return mest_attach_loss(p, err);
    if (!s->no_loss)
        MEST_TRY(mest_survey_failure(g, mest_attach_loss(p, err), err));
    if (!s->n_ends || g->loss == MEST_NONE)
        return MEST_OK;
    mest_id *outputs = mest_region_alloc(&g->region, (size_t)(g->n_outputs + s->n_ends), sizeof *outputs);
    MEST_CHECK(outputs, err, MEST_E_NOMEM, "program: out of memory");
    memcpy(outputs, g->outputs, (size_t)g->n_outputs * sizeof *outputs);
    memcpy(outputs + g->n_outputs, s->ends, (size_t)s->n_ends * sizeof *outputs);
    g->outputs = outputs;
    g->n_outputs += s->n_ends;
    return MEST_OK;
}

mest_status mest_program_finish(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    MEST_TRY(trim(g, err));
    MEST_TRY(mest_graph_check(g, "lowered", err));
    MEST_TRY(mest_assign_layouts(p, err));
    MEST_TRY(mest_graph_check(g, "layouts", err));
    MEST_TRY(passes(p, MEST_PASS_KERNELS, err));
    MEST_TRY(mest_assign_halo(p, err));
    MEST_TRY(mest_prepare_kernels(p, err));
    MEST_TRY(mest_store_halves(p, err));
    MEST_TRY(mest_recompute(p, err));
    MEST_TRY(mest_plan_memory(p, err));
    return make_args(p, err); /* the arena is taken by whoever plans the run, at the latest by the first run */
}

mest_status mest_program_build(mest_program **program, mest_model *model, const mest_program_spec *spec, mest_error *err)
{
    *program = NULL;
    mest_program *p = mest_calloc(&model->heap, 1, sizeof *p);
    MEST_CHECK(p, err, MEST_E_NOMEM, "program: out of memory");
    p->spec = *spec;
    p->model = model;
    p->input = p->target = p->logits = p->loss = p->row_loss = p->correct = MEST_NONE;
    mest_graph *g = &p->graph;
    bool learns = spec->kind == MEST_PROGRAM_TRAIN, has_loss = spec->kind != MEST_PROGRAM_INFER;
    mest_status status = mest_graph_copy(g, &model->graph, err);
    g->survey = spec->survey;
    if (status == MEST_OK && !(p->pass_counts = mest_region_alloc(&g->region, (size_t)mest_pass_count() + 1, sizeof *p->pass_counts)))
        status = mest_fail(err, MEST_E_NOMEM, "program: out of memory");
    if (status == MEST_OK)
        status = mest_graph_sort(g, err);
    if (status == MEST_OK)
        status = passes(p, MEST_PASS_WEIGHTS, err);
    if (status == MEST_OK)
        status = sparse_readers(p, err);
    if (status == MEST_OK)
        status = mest_lower_pin(g, model, spec, err);
    p->n_folded_nodes = working_nodes(g);
    if (status == MEST_OK)
        status = trim(g, err); /* outputs nobody reads (masks, statistics) must not keep a node from being changed */
    if (status == MEST_OK)
        status = passes(p, MEST_PASS_FORM, err);
    if (status == MEST_OK && g->n_inputs > 0)
        p->input = g->inputs[0];
    if (status == MEST_OK && has_loss)
        status = attach_loss(p, err);
    else if (status == MEST_OK && g->n_outputs > 0)
        p->logits = g->outputs[0];
    if (status == MEST_OK)
        status = mest_graph_prune(g, err);
    if (status == MEST_OK)
        status = passes(p, MEST_PASS_FORWARD, err);
    p->n_fused_nodes = working_nodes(g);
    if (status == MEST_OK && learns)
        status = differentiate_or_note(p, err);
    if (status == MEST_OK && learns)
        status = passes(p, MEST_PASS_BACKWARD, err);
    if (status == MEST_OK && learns && !spec->no_update)
        status = mest_append_updates(p, err);
    if (status == MEST_OK && learns)
        status = mest_graph_prune(g, err);
    if (status == MEST_OK && !spec->counts_only)
        status = mest_program_finish(p, err);
    if (status != MEST_OK) {
        mest_program_destroy(p);
        return status;
    }
    *program = p;
    return MEST_OK;
}

void mest_program_destroy(mest_program *p)
{
    if (!p)
        return;
    for (mest_id i = 0; p->steps && i < p->graph.n_nodes; i++)
        if (p->steps[i].kernel && p->steps[i].kernel->release && p->steps[i].state && !p->steps[i].borrowed)
            p->steps[i].kernel->release(p->steps[i].state, &p->model->heap);
    if (p->graph.region.heap)
        mest_graph_free(&p->graph);
    mest_free(&p->model->heap, p, 1, sizeof *p);
}

/* ---- running ---- */
void mest_program_feed(mest_program *p, mest_id value, const void *data)
{
    if (value != MEST_NONE) {
        p->tensors[value].data = (void *)(uintptr_t)data;
        p->bound_generation = 0; /* argument tensors are copies: bind again */
    }
}

/* Fills the argument tensors from present addresses: arena, parameters, inputs. */
static void bind(mest_program *p)
{
    mest_graph *g = &p->graph;
    const mest_arena *arena = p->spec.arena;
    for (int i = 0; i < g->n_values; i++) {
        mest_value *v = &g->values[i];
        mest_tensor *t = &p->tensors[i];
        if (v->kind == MEST_VALUE_PARAM)
            t->data = mest_param_data(&p->model->params[v->param]);
        else if (p->offset[i] != SIZE_MAX)
            t->data = arena->base + p->offset[i];
    }
    mest_tensor *in = p->in_pool, *out = p->out_pool;
    static const mest_tensor absent = {0};
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        for (int k = 0; k < n->n_in; k++)
            *in++ = n->in[k] == MEST_NONE ? absent : p->tensors[n->in[k]];
        for (int k = 0; k < n->n_out; k++)
            *out++ = n->out[k] == MEST_NONE ? absent : p->tensors[n->out[k]];
        p->steps[i].args.scratch = arena->base + p->steps[i].scratch_offset;
    }
    p->bound_generation = arena->generation;
}

/* Counts of sparse values move with the pattern, so they are set at each run. */
static void refresh_counts(mest_program *p)
{
    for (int side = 0; side < 2; side++) {
        mest_tensor *t = side ? p->out_pool : p->in_pool;
        int n = side ? p->n_pool_out : p->n_pool_in;
        for (int i = 0; i < n; i++)
            if (t[i].sparse)
                t[i].count = (size_t)t[i].sparse->stored;
    }
}

mest_status mest_program_step(mest_program *p, mest_id i, const mest_run *run, mest_error *err)
{
    mest_step *st = &p->steps[i];
    if (st->nothing)
        return MEST_OK;
    st->args.run = run;
    st->args.err = err;
    if (run->hook && st->weight_param >= 0)
        MEST_TRY(run->hook->before(run->hook->context, &st->args, st->weight_param));
    mest_threads_at(p->spec.threads, &st->times);
    const mest_status status = st->kernel ? st->kernel->run(&st->args) : st->args.node->op->forward(&st->args);
    mest_threads_at(p->spec.threads, NULL);
    MEST_TRY(status);
    if (st->clear_halo)
        for (int k = 0; k < st->args.n_out; k++)
            if (st->args.out[k].data && st->args.out[k].type->layout.kind == MEST_PIXEL)
                mest_pixel_clear_halo(st->args.out[k].type, st->args.out[k].data);
    return MEST_OK;
}

static void trace(const mest_program *p, const mest_profile *profile, mest_id i, double start, double seconds, int64_t cycles)
{
    const mest_node *n = &p->graph.nodes[i];
    const mest_node_time time = {.struct_size = sizeof time, .kind = p->spec.kind, .index = i, .batch = p->spec.batch, .name = n->name, .op = n->op->name,
                                 .kernel = mest_program_kernel(p, i), .phase = mest_phase_name(n->phase), .start = start, .seconds = seconds,
                                 .cycles = cycles, .macs = mest_program_macs(p, i), .nonzeros = mest_program_nonzeros(p, i),
                                 .bytes = mest_program_node_bytes(p, i)};
    profile->trace(profile->trace_user, &time);
}

/* Nodes from..to-1; each is timed when somebody asked for it. */
static mest_status run_steps(mest_program *p, mest_id from, mest_id to, const mest_run *run, mest_error *err)
{
    const mest_profile *profile = p->spec.profile;
    const bool nice = p->spec.threads && p->spec.threads->nice;
    if (!profile || (!profile->node && !profile->trace)) {
        for (mest_id i = from; i < to; i++) {
            MEST_TRY(mest_program_step(p, i, run, err));
            if (nice && !p->steps[i].nothing)
                sched_yield();
        }
        return MEST_OK;
    }
    for (mest_id i = from; i < to; i++) {
        const int64_t cycles = profile->trace ? mest_counter_read(profile->counter) : -1;
        const double start = mest_seconds();
        MEST_TRY(mest_program_step(p, i, run, err));
        const double seconds = mest_seconds() - start;
        if (p->steps[i].nothing)
            continue;
        if (profile->trace)
            trace(p, profile, i, start, seconds, cycles < 0 ? -1 : mest_counter_read(profile->counter) - cycles);
        if (profile->node)
            profile->node(profile->user, p->spec.kind, i, seconds);
    }
    return MEST_OK;
}

mest_status mest_program_reserve(const mest_program *p, mest_error *err)
{
    const mest_graph *g = &p->graph;
    mest_error why = {MEST_OK, ""};
    const mest_status status = mest_arena_reserve(p->spec.arena, p->arena_bytes, &why);
    if (status == MEST_OK || p->peak_node < 0 || p->peak_node >= g->n_nodes)
        return status == MEST_OK ? status : mest_fail(err, status, "%s", why.msg);
    return mest_fail(err, status, "%s; most of it is alive at node '%.100s' (%s)", why.msg, g->nodes[p->peak_node].name, g->nodes[p->peak_node].op->name);
}

mest_status mest_program_begin(mest_program *p, mest_error *err)
{
    MEST_TRY(mest_program_reserve(p, err)); /* nothing to do where a run was planned */
    if (p->bound_generation != p->spec.arena->generation)
        bind(p);
    refresh_counts(p);
    return MEST_OK;
}

mest_status mest_program_run(mest_program *p, const mest_run *run, bool forward_only, mest_error *err)
{
    MEST_TRY(mest_program_begin(p, err));
    mest_id split = p->first_backward;
    MEST_TRY(run_steps(p, 0, split, run, err));
    if (p->loss != MEST_NONE) {
        double loss = (double)*(const mest_real *)p->tensors[p->loss].data;
        MEST_CHECK(isfinite(loss), err, MEST_E_NUMERIC, "the loss is %s at step %" PRIu64 ": the learning rate may be too high, or the data hold NaN",
                   isnan(loss) ? "NaN" : "infinite", run->step);
    }
    if (forward_only)
        return MEST_OK;
    return run_steps(p, split, p->graph.n_nodes, run, err);
}

const void *mest_program_data(const mest_program *p, mest_id value) { return value == MEST_NONE ? NULL : p->tensors[value].data; }

int mest_program_weight_nodes(const mest_program *p, int32_t param)
{
    int n = 0;
    for (mest_id i = 0; i < p->graph.n_nodes; i++)
        n += p->steps[i].weight_param == param;
    return n;
}

mest_id mest_program_find(const mest_program *p, const char *name)
{
    for (int i = 0; i < p->graph.n_values; i++)
        if (!strcmp(p->graph.values[i].name, name))
            return i;
    return MEST_NONE;
}

mest_id mest_program_param_grad(const mest_program *p, int32_t param)
{
    for (int i = 0; i < p->graph.n_values; i++)
        if (p->graph.values[i].kind == MEST_VALUE_PARAM && p->graph.values[i].param == param)
            return p->graph.values[i].grad;
    return MEST_NONE;
}
