/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a session: what the config asks for, the plan of a run, and how a limit is obeyed.
 *
 * The process is predicted from three parts: what it has resident beside the heap, measured; the heap at its fullest, counted (the programs of
 * the run are built, so that only the arena and the data pipeline are still to come); and what will grow outside of the heap. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/process.h"
#include "runtime/session.h"

/* Grown outside of the heap during a run, as measured on small and large networks (tests/memory/test_process.c): pages of code that run for the
 * first time, and for each thread its stack and what the C library keeps for it. */
enum { CODE_BYTES = 768 << 10, THREAD_BYTES = 64 << 10, LOADER_BYTES = 128 << 10 };
/* Allocated for a moment by schedulers, checkpoints and exports. */
enum { MOMENT_BYTES = 128 << 10 };

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

static size_t largest_arena(const mest_session *s, bool training)
{
    size_t most = 0;
    for (int k = 0; k < MEST_PROGRAM_SLOTS; k++)
        if (s->programs[k] && (s->programs[k]->spec.kind == MEST_PROGRAM_TRAIN) == training && s->programs[k]->arena_bytes > most)
            most = s->programs[k]->arena_bytes;
    return training && s->memory.peak_arena > most ? s->memory.peak_arena : most;
}

/* Fills everything but what belongs to the step and the choice. `coming`: bytes of the pipeline that are not allocated yet. */
static void account(const mest_session *s, int64_t coming, int64_t pipeline, mest_memory_plan *m)
{
    const size_t train = largest_arena(s, true), other = largest_arena(s, false);
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
    m->heap_bytes = now + m->arena_bytes + coming + MOMENT_BYTES;
    m->other_bytes = now - (pipeline - coming) - m->weight_bytes - m->index_bytes - m->derived_bytes - m->optimizer_bytes;
    if (s->config.memory_limit)
        mest_alloc_trim(); /* what building and searching left */
    const int64_t resident = mest_process_resident();
    m->base_bytes = resident > now ? resident - now : 0;
    const int threads = s->threads.n > 1 ? s->threads.n : 1;
    m->outside_bytes = outside_of_kernels(s) + CODE_BYTES + threads * THREAD_BYTES + 2 * LOADER_BYTES;
    m->process_bytes = m->base_bytes + m->heap_bytes + m->outside_bytes;
}

/* ---- programs of a run ---- */

typedef struct need {   /* sizes of the steps of a run; 0: none */
    int64_t train[2], eval[2];
} need;

static void sizes(int64_t count, int64_t batch, bool drop_last, int64_t size[2])
{
    size[0] = count >= batch ? batch : 0;
    size[1] = drop_last ? 0 : count % batch;
}

static mest_status build(mest_session *s, const need *n, mest_error *err)
{
    mest_program *p;
    for (int k = 0; k < 2; k++) {
        if (n->train[k])
            MEST_TRY(mest_session_program(s, MEST_PROGRAM_TRAIN, n->train[k], &p, err));
        if (n->eval[k])
            MEST_TRY(mest_session_program(s, MEST_PROGRAM_EVAL, n->eval[k], &p, err));
    }
    return MEST_OK;
}

/* ---- obeying ---- */

static const char *megabytes(int64_t bytes, char *text, size_t size)
{
    snprintf(text, size, "%.1f MiB", (double)bytes / (1 << 20));
    return text;
}

/* A limit that will do is named with some room: what the process has beside the heap differs from run to run, by
 * half a MiB at most as far as was seen. */
static int64_t with_room(int64_t bytes)
{
    const double step = (1 << 20) / 10.0;
    return (int64_t)(ceil(((double)bytes * 1.005 + (768 << 10)) / step) * step) + 1;
}

static int64_t arena_room(const mest_memory_plan *m) { return m->limit_bytes - (m->process_bytes - m->arena_bytes); }

static mest_status refuse(mest_session *s, const need *n, int64_t coming, int64_t pipeline, const mest_memory_plan *m, mest_error *err)
{
    char limit[32], needed[32], do_text[32], hint[200] = "";
    const int64_t would_do = with_room(m->process_bytes);
    if (s->memory.recompute != MEST_RECOMPUTE_LIMIT && s->memory.recompute != MEST_RECOMPUTE_LEAST) { /* what would it be with recomputation? */
        const mest_recompute_kind asked = s->memory.recompute;
        mest_memory_plan less = {.struct_size = sizeof less};
        s->memory.recompute = MEST_RECOMPUTE_LEAST;
        mest_session_drop_programs(s);
        mest_status status = build(s, n, err);
        s->memory.recompute = asked;
        MEST_TRY(status);
        account(s, coming, pipeline, &less);
        if (less.process_bytes < m->process_bytes)
            snprintf(hint, sizeof hint, "; with recomputation (recompute auto) %s", megabytes(with_room(less.process_bytes), needed, sizeof needed));
    }
    return mest_fail(err, MEST_E_LIMIT,
                     "the memory limit is %s, the process would need %s: %.1f MiB beside the library, %.1f of weights, optimizer and lists, %.1f of one step, "
                     "%.1f of data and all else; %s would do%s",
                     megabytes(m->limit_bytes, limit, sizeof limit), megabytes(m->process_bytes, needed, sizeof needed),
                     (double)(m->base_bytes + m->outside_bytes) / (1 << 20),
                     (double)(m->weight_bytes + m->index_bytes + m->derived_bytes + m->optimizer_bytes) / (1 << 20), (double)m->arena_bytes / (1 << 20),
                     (double)(m->heap_bytes - m->arena_bytes - m->weight_bytes - m->index_bytes - m->derived_bytes - m->optimizer_bytes) / (1 << 20),
                     megabytes(would_do, do_text, sizeof do_text), hint);
}

static void note_choice(mest_session *s, mest_memory_plan *m)
{
    const mest_program *p = s->programs[MEST_PROGRAM_TRAIN * 2] ? s->programs[MEST_PROGRAM_TRAIN * 2] : s->programs[MEST_PROGRAM_TRAIN * 2 + 1];
    m->eval_batch = s->config.eval_batch;
    if (!p)
        return;
    m->n_again = p->n_again;
    m->again_share = p->seconds > 0 ? p->again_seconds / p->seconds : 0;
    if (p->n_again)
        snprintf(m->chosen, sizeof m->chosen, "%d nodes computed again, %.1f %% of a step", p->n_again, 100 * m->again_share);
}

mest_status mest_memory_check(const mest_session *s, const mest_program *p, mest_error *err)
{
    const mest_memory_state *m = &s->memory;
    MEST_CHECK(!s->config.memory_limit || !m->planned || p->arena_bytes <= m->arena_limit, err, MEST_E_LIMIT,
               "a step of %" PRId64 " samples needs %.1f MiB, the memory limit of %.1f MiB leaves %.1f", p->spec.batch, (double)p->arena_bytes / (1 << 20),
               (double)s->config.memory_limit / (1 << 20), (double)m->arena_limit / (1 << 20));
    return MEST_OK;
}

static mest_status take_arena(mest_session *s, size_t bytes, mest_error *err)
{
    for (int k = 0; k < MEST_PROGRAM_SLOTS; k++)
        if (s->programs[k] && s->programs[k]->arena_bytes == bytes)
            return mest_program_reserve(s->programs[k], err);
    return mest_arena_reserve(&s->arena, bytes, err);
}

mest_status mest_session_fit(mest_session *s, int64_t samples, int64_t held, int64_t coming, int64_t pipeline, mest_error *err)
{
    mest_memory_state *state = &s->memory;
    need n = {.train = {0, 0}};
    if (samples >= 0)
        MEST_TRY(mest_session_prepare(s, err));
    if (samples > 0)
        sizes(samples, s->config.batch, s->config.drop_last, n.train);
    else if (samples == 0)
        n.train[0] = s->config.batch;
    if (held > 0)
        sizes(held, s->config.eval_batch, false, n.eval);
    if (state->planned && samples == state->samples && held == state->held) { /* what ran since is no reason to refuse: it was counted */
        MEST_TRY(build(s, &n, err));
        return take_arena(s, (size_t)state->plan.arena_bytes, err);
    }
    state->planned = false;
    mest_arena_free(&s->arena); /* what an evaluation left: nothing in it outlives a run */
    mest_model_forget(s->model);
    MEST_TRY(build(s, &n, err));
    mest_memory_plan m = {.struct_size = sizeof m};
    account(s, coming, pipeline, &m);
    while (m.limit_bytes && m.process_bytes > m.limit_bytes && (int64_t)largest_arena(s, false) > arena_room(&m) && s->config.eval_batch > 1 && held > 0) {
        s->config.eval_batch = (s->config.eval_batch + 1) / 2;
        mest_session_drop_evaluation(s);
        sizes(held, s->config.eval_batch, false, n.eval);
        MEST_TRY(build(s, &n, err));
        m = (mest_memory_plan){.struct_size = sizeof m};
        account(s, coming, pipeline, &m);
    }
    for (int round = 0; round < 4 && m.limit_bytes && m.process_bytes > m.limit_bytes && samples >= 0 && state->recompute == MEST_RECOMPUTE_LIMIT; round++) {
        const int64_t room = arena_room(&m); /* second runs are nodes too: the graph grows a little with each round */
        state->arena_limit = room > 0 && round < 3 ? (size_t)room : 0; /* the last: the least there is, which is what a refusal names */
        mest_session_drop_training(s);
        MEST_TRY(build(s, &n, err));
        m = (mest_memory_plan){.struct_size = sizeof m};
        account(s, coming, pipeline, &m);
    }
    note_choice(s, &m);
    state->plan = m;
    if (m.limit_bytes && m.process_bytes > m.limit_bytes)
        return refuse(s, &n, coming, pipeline, &m, err);
    state->planned = true;
    state->samples = samples;
    state->held = held;
    if (m.limit_bytes)
        state->arena_limit = (size_t)arena_room(&m) > (size_t)m.arena_bytes ? (size_t)arena_room(&m) : (size_t)m.arena_bytes;
    return take_arena(s, (size_t)m.arena_bytes, err);
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
