/* SPDX-License-Identifier: Apache-2.0 */
/* How a limit on memory is obeyed: what is tried, in which order, and what a refusal says. docs/memory.md has the order for people. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/session_fit.h"

/* Full parts, and the rest of the last batch. */
static void training_sizes(mest_fitting *f)
{
    const mest_train_config *c = &f->s->config;
    const int64_t part = f->s->part, rest = c->drop_last || f->samples <= 0 ? 0 : f->samples % c->batch;
    f->n.train[0] = f->samples == 0 || f->samples >= c->batch || rest >= part ? part : 0;
    f->n.train[1] = rest % part;
    if (f->samples < 0)
        f->n.train[0] = f->n.train[1] = 0;
}

static void evaluation_sizes(mest_fitting *f)
{
    const int64_t batch = f->s->config.eval_batch;
    f->n.eval[0] = f->held >= batch ? batch : 0;
    f->n.eval[1] = f->held > 0 ? f->held % batch : 0;
}

mest_status mest_fit_build(mest_fitting *f)
{
    mest_program *p;
    for (int k = 0; k < 2; k++) {
        if (f->n.train[k])
            MEST_TRY(mest_session_program(f->s, MEST_PROGRAM_TRAIN, f->n.train[k], &p, f->err));
        if (f->n.eval[k])
            MEST_TRY(mest_session_program(f->s, MEST_PROGRAM_EVAL, f->n.eval[k], &p, f->err));
    }
    f->m = (mest_memory_plan){.struct_size = sizeof f->m};
    mest_memory_account(f->s, f->coming, f->pipeline, &f->m);
    f->m.optimizer_bytes -= f->released;
    f->m.heap_bytes -= f->released;
    f->m.process_bytes -= f->released;
    return MEST_OK;
}

/* ---- what is chosen ---- */

static const mest_program *training_program(const mest_session *s)
{
    const int first = MEST_PROGRAM_TRAIN * 2;
    return s->programs[first] ? s->programs[first] : s->programs[first + 1];
}

static int64_t arena_room(const mest_fitting *f) { return f->m.limit_bytes - f->margin - (f->m.process_bytes - f->m.arena_bytes); }

/* Half of the samples of an evaluation, as long as it is what does not fit. */
static mest_status shrink_evaluation(mest_fitting *f)
{
    mest_session *s = f->s;
    while (mest_fit_exceeds(f) && (int64_t)mest_memory_arena(s, false) > arena_room(f) && s->config.eval_batch > 1 && f->held > 0) {
        s->config.eval_batch = (s->config.eval_batch + 1) / 2;
        mest_session_drop_evaluation(s);
        evaluation_sizes(f);
        MEST_TRY(mest_fit_build(f));
    }
    return MEST_OK;
}

/* Recomputation of activations: as little as the limit needs; the last round: the least memory there is, which is what a refusal names. */
static mest_status recompute(mest_fitting *f)
{
    mest_session *s = f->s;
    for (int round = 0; round < 4 && mest_fit_exceeds(f) && s->memory.recompute == MEST_RECOMPUTE_LIMIT; round++) {
        const int64_t room = arena_room(f); /* second runs are nodes too: the graph grows a little with each round */
        s->memory.arena_limit = room > 0 && round < 3 ? (size_t)room : 0;
        mest_session_drop_training(s);
        MEST_TRY(mest_fit_build(f));
    }
    return MEST_OK;
}

/* The next smaller number of samples that divides the batch: half, or less. */
static int64_t smaller_part(const mest_session *s)
{
    int64_t part = s->part / 2;
    while (part > 0 && s->config.batch % part)
        part--;
    return part;
}

enum { STATISTICS_SAMPLES = 8 }; /* fewer are no fair sample of what BatchNormalization normalises over */

bool mest_session_normalises(const mest_session *s)
{
    const mest_program *p = training_program(s);
    for (mest_id i = 0; p && i < p->graph.n_nodes; i++)
        if (!strcmp(p->graph.nodes[i].op->name, "mest.BatchNormTrain"))
            return true;
    return false;
}

/* Steps in parts, the largest ones that do, each with as much recomputation as it needs. */
static mest_status divide(mest_fitting *f)
{
    mest_session *s = f->s;
    const int64_t least = mest_session_normalises(s) ? STATISTICS_SAMPLES : 1;
    while (mest_fit_exceeds(f) && smaller_part(s) >= least) {
        const int64_t room = arena_room(f);
        const double shrunk = (double)mest_memory_arena(s, true) * (double)smaller_part(s) / (double)s->part;
        const bool hopeless = 0.5 * shrunk > (double)room && smaller_part(s) / 2 >= least; /* another half may do */
        MEST_TRY(mest_session_set_part(s, smaller_part(s), f->err));
        if (hopeless && smaller_part(s) >= least)
            continue;
        s->memory.arena_limit = SIZE_MAX;
        training_sizes(f);
        MEST_TRY(mest_fit_build(f));
        MEST_TRY(recompute(f));
    }
    return MEST_OK;
}

/* Whole steps, nothing dropped. */
static mest_status begin_anew(mest_fitting *f, bool halves)
{
    mest_session *s = f->s;
    s->memory.halves = halves;
    s->memory.arena_limit = SIZE_MAX;
    if (s->config.micro_batch == 0 && !s->part_stays)
        MEST_TRY(mest_session_set_part(s, s->config.batch, f->err));
    mest_session_drop_training(s);
    training_sizes(f);
    MEST_TRY(mest_fit_build(f));
    const mest_program *p = training_program(s);
    if (!halves && s->part == s->config.batch && p)
        f->whole_seconds = p->seconds * (double)s->part / (double)p->spec.batch;
    return MEST_OK;
}

static mest_status obey(mest_fitting *f)
{
    MEST_TRY(recompute(f));
    return f->s->config.micro_batch == 0 && !f->s->part_stays ? divide(f) : MEST_OK;
}

/* The same as before with activations as bfloat16, from whole steps on. */
static mest_status obey_halved(mest_fitting *f)
{
    if (!mest_fit_exceeds(f) || strcmp(f->s->config.activations, "auto") || f->s->part_stays)
        return MEST_OK;
    MEST_TRY(begin_anew(f, true));
    return obey(f);
}

mest_status mest_fit_try(mest_fitting *f)
{
    MEST_TRY(begin_anew(f, !strcmp(f->s->config.activations, "bf16")));
    MEST_TRY(obey(f));
    return obey_halved(f);
}

/* Adds to what was chosen, as far as there is room. */
static void say(mest_memory_plan *m, const char *format, ...)
{
    const size_t n = strlen(m->chosen);
    va_list list;
    va_start(list, format);
    vsnprintf(m->chosen + n, sizeof m->chosen - n, format, list);
    va_end(list);
}

static void note_choice(mest_fitting *f)
{
    mest_session *s = f->s;
    mest_memory_plan *m = &f->m;
    const mest_program *p = training_program(s);
    m->eval_batch = s->config.eval_batch;
    m->micro_batch = s->part;
    if (!p)
        return;
    m->n_again = p->n_again;
    m->again_share = p->seconds > 0 ? p->again_seconds / p->seconds : 0;
    if (f->n_front)
        say(m, "%d parameters in front of '%.60s' frozen", f->n_front, f->front_name);
    if (s->part < s->config.batch) {
        const double parts = (double)s->config.batch / (double)p->spec.batch;
        m->parts_share = f->whole_seconds > 0 ? parts * p->seconds / f->whole_seconds - 1 : 0;
        say(m, "%ssteps in parts of %" PRId64 " samples", *m->chosen ? "; " : "", s->part);
        if (f->whole_seconds > 0)
            say(m, ", which takes %.1f %% more time", 100 * m->parts_share);
        say(m, "%s", mest_session_normalises(s) ? ", BatchNormalization over a part" : "");
    }
    if (p->n_halves)
        say(m, "%s%d activations as bf16, %d stay f32", *m->chosen ? "; " : "", p->n_halves, p->n_floats);
    if (p->n_again)
        say(m, "%s%d nodes computed again, which takes %.1f %% more time", *m->chosen ? "; " : "", p->n_again, 100 * m->again_share);
}

/* ---- refusals ---- */

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

/* What was built last as another choice, in the refusal's words; nothing if that is no less than `so_far`. */
static void add_hint(const mest_fitting *f, int64_t so_far, const char *how, char *hint, size_t size)
{
    const size_t n = strlen(hint);
    char text[32];
    if (f->m.process_bytes < so_far && n < size)
        snprintf(hint + n, size - n, "; %s %s", how, megabytes(with_room(f->m.process_bytes), text, sizeof text));
}

static mest_status tell_alternative(mest_fitting *f, int64_t so_far, const char *how, char *hint, size_t size)
{
    mest_session_drop_training(f->s);
    training_sizes(f);
    MEST_TRY(mest_fit_build(f));
    add_hint(f, so_far, how, hint, size);
    return MEST_OK;
}

static mest_status tell_alternatives(mest_fitting *f, int64_t so_far, char *hint, size_t size)
{
    mest_session *s = f->s;
    const mest_recompute_kind asked = s->memory.recompute;
    const int64_t part = s->part;
    mest_status status = MEST_OK;
    if (asked != MEST_RECOMPUTE_LIMIT && asked != MEST_RECOMPUTE_LEAST) {
        s->memory.recompute = MEST_RECOMPUTE_LEAST;
        status = tell_alternative(f, so_far, "with recomputation (recompute auto)", hint, size);
        s->memory.recompute = asked;
    }
    if (status == MEST_OK && f->samples >= 0 && !s->memory.halves) {
        s->memory.halves = true;
        status = tell_alternative(f, so_far, "with activations bf16", hint, size);
        s->memory.halves = false;
    }
    if (status == MEST_OK && !mest_fit_no_front(s) && strcmp(s->config.freeze_front, "auto")) {
        status = mest_fit_least_front(f);
        if (status == MEST_OK)
            add_hint(f, so_far, "with all but the last layer frozen (freeze-front auto)", hint, size);
    }
    const int64_t half = smaller_part(s);
    if (status == MEST_OK && f->samples >= 0 && s->config.micro_batch && half > 0) {
        char how[80];
        snprintf(how, sizeof how, "in parts of %" PRId64 " samples (micro-batch)", half);
        status = mest_session_set_part(s, half, f->err);
        if (status == MEST_OK)
            status = tell_alternative(f, so_far, how, hint, size);
        if (status == MEST_OK)
            status = mest_session_set_part(s, part, f->err);
    }
    return status;
}

static mest_status refuse(mest_fitting *f)
{
    char limit[32], needed[32], do_text[32], hint[400] = "";
    const mest_memory_plan m = f->m;
    if (f->samples >= 0)
        MEST_TRY(tell_alternatives(f, m.process_bytes, hint, sizeof hint));
    return mest_fail(f->err, MEST_E_LIMIT,
                     "the memory limit is %s, the process would need %s: %.1f MiB beside the library, %.1f of weights, optimizer and lists, %.1f of one step, "
                     "%.1f of data and all else; %s would do%s",
                     megabytes(m.limit_bytes, limit, sizeof limit), megabytes(m.process_bytes, needed, sizeof needed),
                     (double)(m.base_bytes + m.outside_bytes) / (1 << 20),
                     (double)(m.weight_bytes + m.index_bytes + m.derived_bytes + m.optimizer_bytes) / (1 << 20), (double)m.arena_bytes / (1 << 20),
                     (double)(m.heap_bytes - m.arena_bytes - m.weight_bytes - m.index_bytes - m.derived_bytes - m.optimizer_bytes) / (1 << 20),
                     megabytes(with_room(m.process_bytes), do_text, sizeof do_text), hint);
}

mest_status mest_memory_check(const mest_session *s, const mest_program *p, mest_error *err)
{
    const mest_memory_state *m = &s->memory;
    MEST_CHECK(!s->config.memory_limit || !m->planned || p->arena_bytes <= m->arena_limit, err, MEST_E_LIMIT,
               "a step of %" PRId64 " samples needs %.1f MiB, the memory limit of %.1f MiB leaves %.1f", p->spec.batch, (double)p->arena_bytes / (1 << 20),
               (double)s->config.memory_limit / (1 << 20), (double)m->arena_limit / (1 << 20));
    return MEST_OK;
}

/* ---- fitting ---- */

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
    mest_fitting f = {.s = s, .samples = samples, .held = held, .coming = coming, .pipeline = pipeline, .err = err};
    if (samples >= 0)
        MEST_TRY(mest_session_prepare(s, err));
    training_sizes(&f);
    evaluation_sizes(&f);
    if (state->planned && samples == state->samples && held == state->held) { /* what ran since is no reason to refuse: it was counted */
        MEST_TRY(mest_fit_build(&f));
        return take_arena(s, (size_t)state->plan.arena_bytes, err);
    }
    state->planned = false;
    mest_arena_free(&s->arena); /* what an evaluation left: nothing in it outlives a run */
    mest_model_forget(s->model);
    MEST_TRY(mest_fit_build(&f));
    if (s->part == s->config.batch && training_program(s))
        f.whole_seconds = training_program(s)->seconds * (double)s->part / (double)training_program(s)->spec.batch;
    MEST_TRY(shrink_evaluation(&f));
    if (samples >= 0) {
        MEST_TRY(obey(&f));
        MEST_TRY(obey_halved(&f));
        if (mest_fit_exceeds(&f) && !strcmp(s->config.freeze_front, "auto") && !mest_fit_no_front(s))
            MEST_TRY(mest_fit_freeze_front(&f));
    }
    note_choice(&f);
    state->plan = f.m;
    if (mest_fit_exceeds(&f))
        return refuse(&f);
    state->planned = true;
    state->samples = samples;
    state->held = held;
    if (f.m.limit_bytes)
        state->arena_limit = (size_t)arena_room(&f) > (size_t)f.m.arena_bytes ? (size_t)arena_room(&f) : (size_t)f.m.arena_bytes;
    return take_arena(s, (size_t)f.m.arena_bytes, err);
}
