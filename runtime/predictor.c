/* SPDX-License-Identifier: Apache-2.0 */
/* Inference on versions of the weights, beside a session that trains: programs, arena, derived lists and threads of its own. */
#include "runtime/predictor.h"

#include <inttypes.h>
#include <string.h>

#include "runtime/cpu.h"
#include "runtime/rebatch.h"

enum { MOST_BATCH = 1 << 20 };

void mest_predictor_options_init(mest_predictor_options *o)
{
    memset(o, 0, sizeof *o);
    o->struct_size = sizeof *o;
    o->max_batch = 32;
    o->threads = 1;
    o->kernels = "auto";
    o->use_xnnpack = true;
}

/* ---- moving to a version ---- */
static void drop_programs(mest_predictor *p)
{
    for (int i = 0; i < p->n_sizes; i++) {
        mest_program_destroy(p->program[i]);
        p->program[i] = NULL;
    }
    mest_derived_destroy(p->derived);
    p->derived = NULL;
}

/* Takes over the caller's reference. */
static void move_to(mest_predictor *p, mest_snapshot *s)
{
    bool outgrown = false;
    for (int32_t i = 0; i < p->n_params; i++) {
        p->params[i] = s->params[i];
        if (!s->params[i].sparse)
            continue;
        p->sparse[i] = *s->params[i].sparse;
        p->params[i].sparse = &p->sparse[i];
        if (s->blocks[i].cap_units > p->cap_units[i]) {
            p->cap_units[i] = s->blocks[i].cap_units;
            outgrown = true;
        }
    }
    if (outgrown)
        drop_programs(p);
    mest_snapshot_release(p->now);
    p->now = s;
}

void mest_predictor_follow(mest_predictor *p)
{
    if (p->pinned || mest_registry_current_slot(p->model->registry) == p->now->slot)
        return;
    mest_snapshot *s = mest_model_acquire(p->model);
    if (s == p->now)
        mest_snapshot_release(s);
    else
        move_to(p, s);
}

/* ---- programs ---- */
mest_status mest_predictor_program(mest_predictor *p, int64_t n, mest_program **program, mest_error *err)
{
    int at = 0;
    while (at < p->n_sizes - 1 && p->size[at] < n)
        at++;
    *program = p->program[at];
    if (*program)
        return MEST_OK;
    if (!p->derived)
        MEST_TRY(mest_derived_create(&p->derived, p->heap, err));
    mest_program_spec spec = {.kind = MEST_PROGRAM_INFER, .batch = p->size[at], .batch_norm = "auto", .dropout = -1, .cpu = p->cpu,
                              .use_xnnpack = p->use_xnnpack, .weights_rest = true, .threads = &p->threads, .derived = p->derived, .arena = &p->arena, .output = p->output,
                              .input_shapes = p->shapes};
    /* lists are planned for the room training has, so that a pattern may grow; the version itself has no room to spare */
    for (int32_t i = 0; i < p->n_params; i++)
        if (p->params[i].sparse)
            p->sparse[i].cap_units = p->cap_units[i];
    mest_status status = mest_program_build(&p->program[at], &p->view, &spec, err);
    for (int32_t i = 0; i < p->n_params; i++)
        if (p->params[i].sparse)
            p->sparse[i].cap_units = p->now->params[i].sparse->cap_units;
    MEST_TRY(status);
    p->program[at]->spec.input_shapes = NULL; /* lent for the build only */
    *program = p->program[at];
    return MEST_OK;
}

/* ---- life ---- */
static mest_status take_shapes(mest_predictor *p, const mest_source_info *info, mest_error *err)
{
    const mest_graph *g = &p->model->graph;
    if (!info)
        return MEST_OK;
    mest_source_info own = {.count = 0};
    MEST_CHECK(mest_take_options(&own, sizeof own, info), err, MEST_E_ARGUMENT, "predictor: struct_size of what to expect is not set");
    MEST_CHECK(own.n_inputs >= 0 && own.n_inputs <= MEST_SAMPLE_MAX_INPUTS, err, MEST_E_ARGUMENT, "predictor: %d inputs to expect, at most %d are possible",
               own.n_inputs, MEST_SAMPLE_MAX_INPUTS);
    for (int k = 0; k < (own.n_inputs ? own.n_inputs : 1); k++) {
        const char *name = own.n_inputs ? own.input[k].name : NULL;
        int rank = own.n_inputs ? own.input[k].rank : own.input_rank, at = name ? -1 : k;
        for (int i = 0; name && i < g->n_inputs; i++)
            if (!strcmp(g->values[g->inputs[i]].name, name))
                at = i;
        MEST_CHECK(at >= 0 && at < g->n_inputs, err, MEST_E_ARGUMENT, "predictor: the model has no input '%.80s'", name ? name : "past its last");
        MEST_CHECK(rank >= 0 && rank <= MEST_SAMPLE_MAX_RANK, err, MEST_E_ARGUMENT, "predictor: rank %d of an input is not in 0..%d", rank, MEST_SAMPLE_MAX_RANK);
        p->shapes[at].rank = rank;
        memcpy(p->shapes[at].dim, own.n_inputs ? own.input[k].dim : own.input_dim, (size_t)rank * sizeof *p->shapes[at].dim);
    }
    return MEST_OK;
}

static mest_status set_up(mest_predictor *p, const mest_predictor_options *o, mest_error *err)
{
    size_t n = (size_t)p->n_params + 1;
    p->params = mest_calloc(p->heap, n, sizeof *p->params);
    p->sparse = mest_calloc(p->heap, n, sizeof *p->sparse);
    p->cap_units = mest_calloc(p->heap, n, sizeof *p->cap_units);
    MEST_CHECK(p->params && p->sparse && p->cap_units, err, MEST_E_NOMEM, "predictor: out of memory");
    MEST_TRY(mest_cpu_limit(o->kernels ? o->kernels : "auto", &p->cpu, err));
    MEST_TRY(mest_threads_create(&p->threads, o->threads, err));
    p->use_xnnpack = o->use_xnnpack;
    const mest_graph *g = &p->model->graph;
    MEST_CHECK(g->n_inputs > 0 && g->n_outputs > 0, err, MEST_E_UNSUPPORTED, "predictor: the model has %d inputs and %d outputs", g->n_inputs, g->n_outputs);
    const mest_shape *in = &g->values[g->inputs[0]].type.shape;
    p->fixed = in->rank > 0 && in->dim[0] > 0 && !mest_model_rebatches(p->model, 2 * in->dim[0], false, NULL);
    if (p->fixed) {
        p->size[p->n_sizes++] = in->dim[0];
    } else {
        for (int64_t k = 1; k < o->max_batch; k *= 2)
            p->size[p->n_sizes++] = k;
        p->size[p->n_sizes++] = o->max_batch;
    }
    p->shapes = mest_alloc(p->heap, (size_t)g->n_inputs, sizeof *p->shapes);
    p->needed = mest_calloc(p->heap, (size_t)g->n_inputs, 1);
    p->given = mest_calloc(p->heap, (size_t)g->n_inputs, 1);
    MEST_CHECK(p->shapes && p->needed && p->given, err, MEST_E_NOMEM, "predictor: out of memory");
    for (int i = 0; i < g->n_inputs; i++)
        p->shapes[i].rank = -1;
    for (int i = 0; o->output && i < g->n_outputs && !p->output; i++)
        if (!strcmp(g->values[g->outputs[i]].name, o->output))
            p->output = g->values[g->outputs[i]].name; /* the model's text lives longer than the caller's */
    MEST_CHECK(!o->output || p->output, err, MEST_E_ARGUMENT, "predictor: the model has no output '%.80s'", o->output);
    MEST_TRY(take_shapes(p, o->expect, err));
    mest_snapshot *s = mest_model_acquire(p->model);
    MEST_CHECK(s, err, MEST_E_STATE, "predictor: no version of the model was published yet");
    move_to(p, s);
    p->view = (mest_model){.heap = p->view.heap};
    mest_model described;
    mest_snapshot_view(s, &described);
    p->view.graph = described.graph;
    p->view.graph.region.heap = p->heap;
    p->view.params = p->params;
    p->view.n_params = p->n_params;
    mest_program *largest;
    MEST_TRY(mest_predictor_program(p, p->size[p->n_sizes - 1], &largest, err));
    for (mest_id i = 0; i < largest->graph.n_nodes; i++)
        for (int k = 0; k < largest->graph.nodes[i].n_in; k++)
            for (int j = 0; j < g->n_inputs; j++)
                p->needed[j] |= largest->graph.nodes[i].in[k] == largest->graph.inputs[j];
    return MEST_OK;
}

mest_status mest_predictor_create(mest_predictor **predictor, mest_model *model, const mest_predictor_options *options, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(predictor, err, MEST_E_ARGUMENT, "predictor: no place for the handle");
    *predictor = NULL;
    MEST_CHECK(model, err, MEST_E_ARGUMENT, "predictor: no model");
    mest_predictor_options o;
    mest_predictor_options_init(&o);
    MEST_CHECK(!options || mest_take_options(&o, sizeof o, options), err, MEST_E_ARGUMENT,
               "predictor: struct_size of the options is not set; call mest_predictor_options_init");
    MEST_CHECK(o.max_batch >= 1 && o.max_batch <= MOST_BATCH, err, MEST_E_ARGUMENT, "predictor: max_batch %" PRId64 " is not in 1..2^20", o.max_batch);
    mest_predictor *p = mest_calloc(&model->heap, 1, sizeof *p);
    MEST_CHECK(p, err, MEST_E_NOMEM, "predictor: out of memory");
    p->model = model;
    p->n_params = model->n_params;
    p->heap = &p->view.heap;
    mest_heap_init_child(p->heap, &model->heap);
    p->arena = (mest_arena){.heap = p->heap, .generation = 1};
    mest_status status = set_up(p, &o, err);
    if (status != MEST_OK) {
        mest_predictor_destroy(p);
        return status;
    }
    *predictor = p;
    return MEST_OK;
}

void mest_predictor_destroy(mest_predictor *p)
{
    if (!p)
        return;
    size_t n = (size_t)p->n_params + 1;
    drop_programs(p);
    mest_arena_free(&p->arena);
    mest_threads_destroy(&p->threads);
    mest_free(p->heap, p->params, n, sizeof *p->params);
    mest_free(p->heap, p->sparse, n, sizeof *p->sparse);
    mest_free(p->heap, p->cap_units, n, sizeof *p->cap_units);
    mest_free(p->heap, p->shapes, (size_t)p->model->graph.n_inputs, sizeof *p->shapes);
    mest_free(p->heap, p->needed, (size_t)p->model->graph.n_inputs, 1);
    mest_free(p->heap, p->given, (size_t)p->model->graph.n_inputs, 1);
    mest_free(p->heap, p->padded, p->padded_bytes, 1);
    mest_model *model = p->model;
    mest_snapshot_release(p->now);
    mest_free(&model->heap, p, 1, sizeof *p);
}

mest_status mest_predictor_pin(mest_predictor *p, mest_snapshot *snapshot, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(p, err, MEST_E_ARGUMENT, "pin: no predictor");
    MEST_CHECK(!snapshot || snapshot->model == p->model, err, MEST_E_STATE, "pin: version %" PRId64 " is of another model", snapshot->info.id);
    p->pinned = snapshot != NULL;
    if (snapshot && snapshot != p->now) {
        mest_snapshot_retain(snapshot);
        move_to(p, snapshot);
    }
    return MEST_OK;
}
