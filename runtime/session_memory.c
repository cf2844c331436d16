/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a session: what the config asks for, and what the process comes to. How a limit is obeyed: session_fit.c.
 *
 * The process is predicted from three parts: what it has resident beside the heap, measured; the heap at its fullest, counted (the programs of
 * the run are built, so that only the arena and the data pipeline are still to come); and what will grow outside of the heap. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/probe.h"
#include "runtime/process.h"
#include "runtime/session.h"

/* Grown outside of the heap during a run, as measured on small and large networks (tests/memory/test_process.c): pages of code that run for the
 * first time, and for each thread its stack and what the C library keeps for it. */
enum { CODE_BYTES = 768 << 10, THREAD_BYTES = 64 << 10, LOADER_BYTES = 128 << 10 };
/* Allocated for a moment by schedulers, checkpoints and exports. */
enum { MOMENT_BYTES = 128 << 10 };
/* Pages of a file that a touch maps at once, where the system's cache has it in such pieces (Linux 6.18, ext4: seen). */
enum { TOUCH_BYTES = 2 << 20 };
/* Of the units of a parameter that an update moves at most, in percent: the largest default of the schedulers is 30. */
enum { MOVED_PERCENT = 30 };

mest_status mest_recompute_parse(const char *text, mest_recompute_kind *kind, double *share, mest_error *err)
{
    *kind = MEST_RECOMPUTE_LIMIT;
    *share = 0;
    if (!text || !strcmp(text, "auto"))
        return MEST_OK;
    if (!strcmp(text, "off")) {
        *kind = MEST_RECOMPUTE_OFF;
        return MEST_OK;
    }
    if (!strcmp(text, "least")) {
        *kind = MEST_RECOMPUTE_LEAST;
        return MEST_OK;
    }
    char *end;
    const double percent = strtod(text, &end);
    MEST_CHECK(end != text && !strcmp(end, "%") && percent >= 0 && percent <= 1000, err, MEST_E_ARGUMENT,
               "config: recompute '%.40s' is none of auto, off, least, and no share of the time such as 10%%", text);
    *kind = MEST_RECOMPUTE_SHARE;
    *share = percent / 100;
    return MEST_OK;
}

mest_status mest_memory_config(mest_session *s, mest_error *err)
{
    mest_memory_state *m = &s->memory;
    m->arena_limit = SIZE_MAX;
    m->halves = !strcmp(s->config.activations, "bf16");
    MEST_CHECK(s->config.memory_limit >= 0, err, MEST_E_ARGUMENT, "config: memory_limit must not be negative");
    return mest_recompute_parse(s->config.recompute, &m->recompute, &m->share, err);
}

/* ---- the parts ---- */

/* What the kernels of all programs allocate outside of the heap. Programs run one at a time. */
static int64_t outside_of_kernels(const mest_session *s)
{
    int64_t kept = 0, most = 0;
    for (int k = 0; k < MEST_PROGRAM_SLOTS; k++) {
        const mest_program *p = s->programs[k];
        for (mest_id i = 0; p && i < p->graph.n_nodes; i++) {
            const mest_step *st = &p->steps[i];
            bool stays = false;
            int64_t bytes = st->kernel && st->kernel->outside_bytes && st->state && !st->borrowed ? (int64_t)st->kernel->outside_bytes(st->state, &stays) : 0;
            if (stays)
                kept += bytes;
            else if (bytes > most)
                most = bytes;
        }
    }
    return kept + most;
}

size_t mest_memory_arena(const mest_session *s, bool training)
{
    size_t most = 0;
    for (int k = 0; k < MEST_PROGRAM_SLOTS; k++)
        if (s->programs[k] && (s->programs[k]->spec.kind == MEST_PROGRAM_TRAIN) == training && s->programs[k]->arena_bytes > most)
            most = s->programs[k]->arena_bytes;
    return training && s->memory.peak_arena > most ? s->memory.peak_arena : most;
}

/* Pages of the model file that are in memory at once while a checkpoint or an export reads it, with the arena still there: pieces of
 * MEST_FORGET_BYTES may lie across two that come at a touch. */
static int64_t file_pages(const mest_model *model)
{
    int64_t bytes = 0;
    for (const mest_mapping *map = model->mappings; map; map = map->next)
        bytes += (int64_t)map->size;
    return bytes < 2 * TOUCH_BYTES ? bytes : 2 * TOUCH_BYTES;
}

/* What schedulers propose is held for all parameters until it is applied: ids of the units that go and of those that come. */
static int64_t proposals(const mest_session *s)
{
    int64_t units = 0;
    for (int i = 0; i < s->model->n_params && mest_schedulers_count(s->schedulers) > 0; i++)
        if (s->model->params[i].sparse)
            units += s->model->params[i].sparse->cap_units;
    return units * MOVED_PERCENT / 100 * 2 * (int64_t)sizeof(int64_t);
}

void mest_memory_account(const mest_session *s, int64_t coming, int64_t pipeline, mest_memory_plan *m)
{
    const size_t train = mest_memory_arena(s, true), other = mest_memory_arena(s, false);
    m->limit_bytes = s->config.memory_limit;
    m->arena_bytes = (int64_t)(train > other ? train : other);
    m->pipeline_bytes = pipeline;
    for (int i = 0; i < s->model->n_params; i++) {
        const mest_param *p = &s->model->params[i];
        if (p->sparse) {
            m->weight_bytes += p->sparse->cap_units * p->sparse->unit_elements * (int64_t)sizeof(mest_real);
            m->index_bytes += (int64_t)p->sparse->index_size;
        } else if (p->values) {
            m->weight_bytes += (p->count + 16) * (int64_t)sizeof(mest_real);
        }
    }
    m->derived_bytes = (int64_t)mest_derived_bytes(s->derived);
    m->optimizer_bytes = mest_optimizer_bytes(&s->optimizer);
    const int64_t now = atomic_load(&s->heap->current_bytes) - (int64_t)s->arena.bytes;
    m->heap_bytes = now + m->arena_bytes + coming + MOMENT_BYTES + proposals(s);
    if (mest_schedulers_watch_steps(s->schedulers)) /* they may look at gradients of weights that are not stored */
        m->heap_bytes += mest_gradient_reader_bytes(&s->host, s->threads.n > 1 ? s->threads.n : 1, s->part < s->config.batch);
    m->other_bytes = now - (pipeline - coming) - m->weight_bytes - m->index_bytes - m->derived_bytes - m->optimizer_bytes;
    if (s->config.memory_limit)
        mest_alloc_trim(); /* what building and searching left */
    const int64_t resident = mest_process_resident();
    m->base_bytes = resident > now ? resident - now : 0;
    const int threads = s->threads.n > 1 ? s->threads.n : 1;
    m->outside_bytes = outside_of_kernels(s) + CODE_BYTES + threads * THREAD_BYTES + 2 * LOADER_BYTES + file_pages(s->model);
    m->process_bytes = m->base_bytes + m->heap_bytes + m->outside_bytes;
}

mest_status mest_memory_look(mest_session *s, const mest_source *source, int64_t batch, int64_t *count, int64_t *bytes, mest_error *err)
{
    mest_loader *loader;
    const int64_t before = atomic_load(&s->heap->current_bytes);
    MEST_TRY(mest_loader_create(&loader, s->heap, source, batch, err));
    *bytes = atomic_load(&s->heap->current_bytes) - before;
    const mest_source_info *info = mest_loader_info(loader);
    *count = info->count;
    mest_status status = info->has_targets ? mest_session_set_source(s, info, err) : mest_fail(err, MEST_E_DATA, "the data set has no targets");
    mest_loader_destroy(loader);
    return status;
}

mest_status mest_session_plan_memory(mest_session *s, const mest_source *source, const mest_run_options *options, mest_memory_plan *plan, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s, err, MEST_E_ARGUMENT, "memory plan: a session must be given");
    MEST_CHECK(!plan || plan->struct_size >= 2 * sizeof(uint32_t), err, MEST_E_ARGUMENT, "memory plan: struct_size is not set");
    int64_t samples = 0, held = 0, bytes = 0, eval_bytes = 0;
    if (source) {
        MEST_TRY(mest_memory_look(s, source, s->config.batch, &samples, &bytes, err));
        bytes += samples * (int64_t)sizeof *s->classes + (samples + 7) / 8 - (s->classes ? samples * (int64_t)sizeof *s->classes + (samples + 7) / 8 : 0);
    } else {
        MEST_TRY(mest_session_shapes(s, err));
    }
    if (options && options->validation)
        MEST_TRY(mest_memory_look(s, options->validation, s->config.eval_batch, &held, &eval_bytes, err));
    mest_status status = mest_session_fit(s, samples, held, bytes + eval_bytes, bytes + eval_bytes, err);
    if (plan && (status == MEST_OK || status == MEST_E_LIMIT)) {
        if (status == MEST_OK)
            mest_memory_step(s, &s->memory.plan);
        const uint32_t size = plan->struct_size < sizeof *plan ? plan->struct_size : (uint32_t)sizeof *plan;
        memcpy((char *)plan + sizeof size, (const char *)&s->memory.plan + sizeof size, size - sizeof size);
    }
    return status;
}

void mest_process_memory(int64_t *current, int64_t *peak)
{
    if (current)
        *current = mest_process_resident();
    if (peak)
        *peak = mest_process_peak();
}
