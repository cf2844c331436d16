/* SPDX-License-Identifier: Apache-2.0 */
/* The epoch loop and evaluation. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mest/serve.h"
#include "runtime/guest.h"
#include "runtime/session.h"

void mest_run_options_init(mest_run_options *o)
{
    memset(o, 0, sizeof *o);
    o->struct_size = sizeof *o;
    o->validate_every = 1;
    o->checkpoint_every_epochs = 1;
}

typedef struct training {   /* one call of mest_session_train */
    mest_session *s;
    const mest_source *source;
    const mest_run_options *o;
    mest_loader *loader;
    int64_t n_epochs;       /* INT64_MAX when only max_steps bounds the run */
    bool stop, time_over;
    bool in_epoch;          /* the loader has its batches */
    double epoch_start;
    mest_metrics last_epoch; /* in training */
    int64_t epochs_done;    /* in this call */
    mest_host_report moves; /* mutations between steps that were not reported yet */
    int64_t move_steps, told_step;
    mest_progress_state moved_at; /* where the run stood at the last of them */
    double moves_seconds;   /* what they took */
    double scheduler_seconds; /* in callbacks of schedulers and in applying what they asked for, this epoch */
} training;

static mest_event event_of(const training *t, mest_event_kind kind)
{
    const mest_session *s = t->s;
    mest_event e = {.struct_size = sizeof e, .kind = kind, .epoch = s->at.epoch, .n_epochs = t->n_epochs == INT64_MAX ? 0 : t->n_epochs, .total_step = s->at.step};
    e.lr = mest_session_lr(s, s->at.epoch, 0);
    e.sparsity = mest_session_sparsity(s->model);
    e.active_samples = s->samples.active;
    e.n_samples = s->samples.count;
    mest_session_memory(s, NULL, &e.peak_bytes);
    e.train = mest_session_metrics(s->at.loss_sum, s->at.rows, s->at.hits, s->at.class_rows, s->at.rows, s->at.batch, mest_seconds() - t->epoch_start);
    const int64_t batches = t->in_epoch ? mest_loader_batches(t->loader) : mest_session_batches(s); /* of the next epoch, before the loader has begun it */
    e.n_steps = batches;
    e.step = s->at.batch;
    if (t->n_epochs != INT64_MAX)
        e.n_total_steps = s->at.step + (t->n_epochs - s->at.epoch) * batches - s->at.batch;
    if (s->config.max_steps && (!e.n_total_steps || s->config.max_steps < e.n_total_steps))
        e.n_total_steps = s->config.max_steps;
    return e;
}

static void emit(training *t, const mest_event *e)
{
    if (t->o->progress && !t->o->progress(t->o->progress_user, e))
        t->stop = true;
}

/* Survivors and distance of all watched parameters together: the distance is weighted by the units that are active. */
static void note_watch(const mest_watch *w, mest_event *e)
{
    double distance = 0, units = 0;
    for (int i = 0; i < w->n; i++) {
        mest_watch_param *p = &w->params[i];
        e->earlier += p->n_earlier;
        e->survivors += p->n_survivors;
        distance += mest_watch_distance(p) * (double)p->sparse->active_units;
        units += (double)p->sparse->active_units;
    }
    e->distance = units > 0 ? distance / units : 0;
}

static mest_event event_at(const training *t, mest_event_kind kind, const mest_progress_state *at)
{
    mest_event e = event_of(t, kind);
    e.epoch = at->epoch;
    e.step = at->batch;
    e.total_step = at->step;
    return e;
}

/* at: where the run stood when it happened. */
static void report_host(training *t, const mest_host_report *r, double seconds, const mest_progress_state *at)
{
    if (r->removed || r->grown) {
        mest_event e = event_at(t, MEST_EVENT_MUTATION, at);
        e.removed = r->removed;
        e.grown = r->grown;
        e.text = r->text;
        e.scheduler_seconds = seconds;
        if (t->s->host.account)
            note_watch(t->s->host.account, &e);
        emit(t, &e);
        mest_watch_reset(t->s->host.account);
    }
    if (r->removed_samples || r->restored_samples) {
        mest_event e = event_at(t, MEST_EVENT_SAMPLES, at);
        e.removed = r->removed_samples;
        e.grown = r->restored_samples;
        e.text = r->text;
        emit(t, &e);
    }
}

enum { TELL_STEPS = 10 }; /* schedulers that move at every step are reported once in so many */

static void flush_moves(training *t)
{
    if (t->move_steps > 1)
        snprintf(t->moves.text, sizeof t->moves.text, "%" PRId64 " units removed, %" PRId64 " grown between %" PRId64 " steps", t->moves.removed,
                 t->moves.grown, t->move_steps);
    if (t->move_steps > 0) {
        t->told_step = t->s->at.step;
        report_host(t, &t->moves, t->moves_seconds, &t->moved_at);
    }
    t->moves_seconds = 0;
    t->moves = (mest_host_report){0};
    t->move_steps = 0;
}

/* Rare mutations are reported at once, frequent ones together. */
static void note_moves(training *t, const mest_host_report *r, double seconds)
{
    if (r->removed + r->grown + r->removed_samples + r->restored_samples == 0)
        return;
    t->moves_seconds += seconds;
    t->moves.removed += r->removed;
    t->moves.grown += r->grown;
    t->moves.removed_samples += r->removed_samples;
    t->moves.restored_samples += r->restored_samples;
    memcpy(t->moves.text, r->text, sizeof t->moves.text);
    t->move_steps++;
    t->moved_at = t->s->at;
    if (t->s->at.step - t->told_step >= TELL_STEPS)
        flush_moves(t);
}

/* What moved before it is told before it, and then begins anew, so that a run that goes on from the checkpoint tells the same. */
static mest_status save(training *t, mest_error *err)
{
    if (!t->o->checkpoint_path)
        return MEST_OK;
    flush_moves(t);
    MEST_TRY(mest_session_checkpoint(t->s, t->o->checkpoint_path, err));
    t->told_step = t->s->at.step - TELL_STEPS;
    mest_event e = event_of(t, MEST_EVENT_CHECKPOINT);
    e.text = t->o->checkpoint_path;
    emit(t, &e);
    return MEST_OK;
}

static mest_training_step step_of(const training *t, double lr)
{
    const mest_session *s = t->s;
    mest_training_step e = {.struct_size = sizeof e, .step = s->at.step, .epoch = s->at.epoch, .n_epochs = mest_session_epochs(s), .batch = s->at.batch,
                            .n_batches = mest_loader_batches(t->loader), .lr = lr};
    if (e.n_epochs > 0)
        e.progress = ((double)e.epoch + (double)e.batch / (double)e.n_batches) / (double)e.n_epochs;
    if (s->config.max_steps > 0 && (double)e.step / (double)s->config.max_steps > e.progress)
        e.progress = (double)e.step / (double)s->config.max_steps;
    return e;
}

/* Seconds since `from`, counted as the schedulers'. */
static double since(training *t, double from)
{
    double took = mest_seconds() - from;
    t->scheduler_seconds += took;
    return took;
}

/* Before the first step of an epoch: schedulers, fresh sums, programs of both batch sizes. */
static mest_status open_epoch(training *t, mest_error *err)
{
    mest_session *s = t->s;
    if (!s->at.epoch_open) {
        mest_host_report report = {0};
        t->scheduler_seconds = 0;
        double from = mest_seconds();
        MEST_TRY(mest_session_begin_epoch(s, &report, err));
        double took = since(t, from);
        report_host(t, &report, took, &s->at);
        MEST_CHECK(s->samples.active > 0, err, MEST_E_DATA, "no sample is left to train on");
    }
    mest_loader_plan plan = {.seed = s->config.seed, .epoch = s->at.epoch, .shuffle = s->config.shuffle, .augment = true, .drop_last = s->config.drop_last,
                             .first_batch = s->at.batch};
    int64_t full = s->samples.active / s->config.batch, rest = s->samples.active % s->config.batch;
    if (full)
        MEST_TRY(mest_session_part_programs(s, s->config.batch, err));
    if (rest && !s->config.drop_last)
        MEST_TRY(mest_session_part_programs(s, rest, err));
    MEST_CHECK(full || !s->config.drop_last, err, MEST_E_DATA, "%" PRId64 " samples do not fill a batch of %" PRId64 ", and drop_last is set", s->samples.active,
               s->config.batch);
    t->in_epoch = true;
    return mest_loader_begin(t->loader, &s->samples, &plan, err);
}

static mest_status train_batch(training *t, const mest_batch *b, mest_error *err)
{
    mest_session *s = t->s;
    int64_t batches = mest_loader_batches(t->loader);
    double lr = mest_session_lr(s, s->at.epoch, (double)s->at.batch / (double)batches);
    mest_step_job job = {.inputs = b->inputs, .targets = b->targets, .ids = b->ids, .n = b->n, .about = step_of(t, lr),
                         .snapshot = s->at.batch + 1 == batches && s->at.snapshot_grads};
    MEST_TRY(mest_session_do_step(s, &job, err));
    t->scheduler_seconds += job.seconds_before + job.seconds_seen + job.seconds_after;
    note_moves(t, &job.moved_before, job.seconds_before);
    s->at.batch++;
    s->at.step++;
    note_moves(t, &job.moved_after, job.seconds_after);
    mest_event e = event_of(t, MEST_EVENT_STEP);
    e.lr = lr;
    e.batch = job.metrics;
    emit(t, &e);
    return MEST_OK;
}

static void tell_pause(void *user, const char *why)
{
    training *t = user;
    mest_event e = event_of(t, why ? MEST_EVENT_PAUSE : MEST_EVENT_CONTINUE);
    e.text = why;
    emit(t, &e);
}

static bool steps_done(const mest_session *s) { return s->config.max_steps && s->at.step >= s->config.max_steps; }

/* A version that a guard refuses, or whose weights are not finite, is news, not a failure: training goes on. */
static mest_status publish(training *t, const mest_metrics *validation, mest_error *err)
{
    mest_publish_options o;
    mest_publish_options_init(&o);
    mest_take_options(&o, sizeof o, t->o->publish); /* looked at before the run */
    o.id = 0;
    o.loss = validation->loss;
    o.accuracy = validation->accuracy;
    o.samples = validation->samples;
    mest_version_info info = {.struct_size = sizeof info};
    mest_error refused = {.code = MEST_OK};
    mest_status status = mest_session_publish(t->s, &o, &info, &refused);
    char text[160];
    if (status == MEST_OK)
        snprintf(text, sizeof text, "version %" PRId64 " published%s, %" PRId64 " bytes copied", info.id, info.current ? "" : " and held back", info.copied_bytes);
    else if (status != MEST_E_LIMIT && status != MEST_E_NUMERIC)
        return mest_fail(err, status, "%s", refused.msg);
    mest_event e = event_of(t, MEST_EVENT_VERSION);
    e.epoch--; /* the one that was validated */
    e.validation = *validation;
    e.text = status == MEST_OK ? text : refused.msg;
    emit(t, &e);
    return MEST_OK;
}

static mest_status close_epoch(training *t, mest_error *err)
{
    mest_session *s = t->s;
    flush_moves(t);
    mest_event e = event_of(t, MEST_EVENT_EPOCH);
    mest_host_report report = {0};
    double from = mest_seconds();
    MEST_TRY(mest_session_close_epoch(s, &report, err));
    t->in_epoch = false;
    double took = since(t, from);
    e.scheduler_seconds = t->scheduler_seconds;
    t->last_epoch = e.train;
    t->epochs_done++;
    report_host(t, &report, took, &s->at);
    bool final = s->at.epoch >= t->n_epochs || steps_done(s);
    if (t->o->validation && t->o->validation->info && (final || (t->o->validate_every > 0 && s->at.epoch % t->o->validate_every == 0)))
        MEST_TRY(mest_session_evaluate(s, t->o->validation, t->o, &e.validation, err));
    emit(t, &e);
    if (t->o->publish && e.validation.samples)
        MEST_TRY(publish(t, &e.validation, err));
    if (final || t->o->checkpoint_every_epochs <= 1 || s->at.epoch % t->o->checkpoint_every_epochs == 0)
        MEST_TRY(save(t, err));
    return MEST_OK;
}

static mest_status run_epochs(training *t, mest_error *err)
{
    mest_session *s = t->s;
    while (s->at.epoch < t->n_epochs && !steps_done(s) && (t->o->max_epochs == 0 || t->epochs_done < t->o->max_epochs)) {
        t->epoch_start = mest_seconds();
        MEST_TRY(open_epoch(t, err));
        mest_batch b;
        while (!steps_done(s)) {
            MEST_TRY(mest_loader_next(t->loader, &b, err));
            if (b.n == 0)
                break;
            MEST_TRY(train_batch(t, &b, err));
            if (t->o->guest && !t->stop && !steps_done(s) && mest_guest_rest(t->o->guest, tell_pause, t) == MEST_GUEST_TIME)
                t->stop = t->time_over = true;
            if (t->stop || atomic_load(&s->cancelled)) {
                atomic_store(&s->cancelled, false);
                MEST_TRY(save(t, err));
                return mest_fail(err, MEST_E_CANCELLED, "%s after step %" PRId64, t->time_over ? "the time limit was over" : "stopped", s->at.step);
            }
            if (t->o->checkpoint_every_steps > 0 && s->at.step % t->o->checkpoint_every_steps == 0 && s->at.batch < mest_loader_batches(t->loader))
                MEST_TRY(save(t, err));
        }
        MEST_TRY(close_epoch(t, err));
        if (t->stop) {
            MEST_CHECK(s->at.epoch >= t->n_epochs || steps_done(s), err, MEST_E_CANCELLED, "stopped after epoch %" PRId64, s->at.epoch);
            return MEST_OK;
        }
    }
    return MEST_OK;
}

/* The loss is looked at before each update, so what the last update did to the weights is not known yet. */
static mest_status check_weights(const mest_session *s, mest_error *err)
{
    for (int i = 0; i < s->model->n_params; i++) {
        const mest_param *p = &s->model->params[i];
        const mest_real *values = p->role == MEST_ROLE_CONSTANT ? NULL : mest_param_data(p); /* a mask may hold infinities */
        for (int64_t k = 0, n = values ? mest_param_stored(p) : 0; k < n; k++)
            MEST_CHECK(isfinite((double)values[k]), err, MEST_E_NUMERIC, "'%s' holds %s after step %" PRId64 ": the learning rate may be too high", p->name,
                       isnan((double)values[k]) ? "NaN" : "an infinite number", s->at.step);
    }
    return MEST_OK;
}

void mest_session_position(const mest_session *s, int64_t *epochs, int64_t *steps)
{
    if (epochs)
        *epochs = s->at.epoch;
    if (steps)
        *steps = s->at.step;
}

/* The memory of the run, before its first step. */
static mest_status fit(training *t, int64_t loader_bytes, mest_error *err)
{
    mest_session *s = t->s;
    int64_t held = 0, held_bytes = 0;
    if (t->o->validation && t->o->validation->info)
        MEST_TRY(mest_memory_look(s, t->o->validation, s->config.eval_batch, &held, &held_bytes, err));
    return mest_session_fit(s, s->samples.count, held, held_bytes, held_bytes + loader_bytes, err);
}

static mest_status take_run_options(mest_run_options *own, const mest_run_options *options, const char *what, mest_error *err)
{
    mest_run_options_init(own);
    MEST_CHECK(!options || mest_take_options(own, sizeof *own, options), err, MEST_E_ARGUMENT, "%s: struct_size of the options is not set", what);
    MEST_CHECK(own->max_epochs >= 0, err, MEST_E_ARGUMENT, "%s: max_epochs is negative", what);
    return MEST_OK;
}

/* most_epochs > 0 overrides that of the options. */
static mest_status train(mest_session *s, const mest_source *source, const mest_run_options *options, int64_t most_epochs, mest_metrics *last, mest_error *err)
{
    MEST_CHECK(s && source && source->info, err, MEST_E_ARGUMENT, "train: session and source must be given");
    mest_run_options own;
    MEST_TRY(take_run_options(&own, options, "train", err));
    if (most_epochs)
        own.max_epochs = most_epochs;
    MEST_CHECK(!own.publish || own.validation, err, MEST_E_ARGUMENT, "train: versions are published after validation, and there is no validation source");
    MEST_CHECK(!own.publish || own.publish->struct_size, err, MEST_E_ARGUMENT, "train: struct_size of the publish options is not set");
    training t = {.s = s, .source = source, .o = &own, .n_epochs = s->config.epochs};
    MEST_CHECK(s->config.epochs > 0 || s->config.max_steps > 0, err, MEST_E_ARGUMENT, "train: epochs or max_steps must be positive");
    if (s->config.epochs == 0)
        t.n_epochs = INT64_MAX;
    MEST_TRY(mest_loader_create(&t.loader, s->heap, source, s->config.batch, err));
    const mest_source_info *info = mest_loader_info(t.loader);
    mest_status status = MEST_OK;
    if (info->count < 1)
        status = mest_fail(err, MEST_E_DATA, "train: the data set is empty");
    else if (!info->has_targets)
        status = mest_fail(err, MEST_E_DATA, "train: the data set has no targets");
    if (status == MEST_OK)
        status = mest_session_set_source(s, info, err);
    if (status == MEST_OK)
        status = mest_session_settle_unfolded(s, source, err);
    if (status == MEST_OK && s->samples.count == 0)
        status = mest_sample_set_create(&s->samples, s->heap, info->count, err);
    if (status == MEST_OK && s->samples.count != info->count)
        status = mest_fail(err, MEST_E_DATA, "train: the data set has %" PRId64 " samples, the run began with %" PRId64, info->count, s->samples.count);
    if (status == MEST_OK && !s->classes) {
        s->classes = mest_alloc(s->heap, (size_t)info->count, sizeof *s->classes);
        if (!s->classes)
            status = mest_fail(err, MEST_E_NOMEM, "train: no memory for %" PRId64 " classes", info->count);
        else
            memset(s->classes, 0xff, (size_t)info->count * sizeof *s->classes);
    }
    if (status == MEST_OK)
        status = mest_session_prepare(s, err);
    if (status == MEST_OK)
        s->host.samples = &s->samples, s->host.sample_class = s->classes;
    if (status == MEST_OK)
        status = fit(&t, mest_loader_bytes(t.loader), err);
    t.told_step = s->at.step - TELL_STEPS;
    if (own.guest)
        (void)mest_guest_work(own.guest, &s->cancelled);
    if (status == MEST_OK)
        status = run_epochs(&t, err);
    if (own.guest)
        (void)mest_guest_work(own.guest, NULL);
    if (status == MEST_OK)
        status = check_weights(s, err);
    if (status == MEST_OK && (s->at.epoch >= t.n_epochs || steps_done(s)))
        mest_session_check_target(s);
    mest_loader_destroy(t.loader);
    if (last)
        *last = t.last_epoch;
    return status;
}

mest_status mest_session_train(mest_session *s, const mest_source *source, const mest_run_options *options, mest_error *err)
{
    mest_error_clear(err);
    return train(s, source, options, 0, NULL, err);
}

mest_status mest_session_train_epoch(mest_session *s, const mest_source *source, const mest_run_options *options, mest_metrics *metrics, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s, err, MEST_E_ARGUMENT, "train: no session");
    MEST_CHECK((s->config.epochs == 0 || s->at.epoch < s->config.epochs) && !steps_done(s), err, MEST_E_STATE, "train: the run is complete after %" PRId64 " epochs",
               s->at.epoch);
    return train(s, source, options, 1, metrics, err);
}

typedef struct evaluation {
    const mest_session *s;
    const mest_run_options *o;
} evaluation;

static void tell_evaluation_pause(void *user, const char *why)
{
    const evaluation *v = user;
    mest_event e = {.struct_size = sizeof e, .kind = why ? MEST_EVENT_PAUSE : MEST_EVENT_CONTINUE, .epoch = v->s->at.epoch, .total_step = v->s->at.step, .text = why};
    if (v->o->progress)
        (void)v->o->progress(v->o->progress_user, &e); /* who wants to stop says so to the next batch */
}

mest_status mest_session_evaluate(mest_session *s, const mest_source *source, const mest_run_options *options, mest_metrics *metrics, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && source && source->info && metrics, err, MEST_E_ARGUMENT, "evaluate: session, source and metrics must be given");
    mest_run_options own;
    MEST_TRY(take_run_options(&own, options, "evaluate", err));
    mest_loader *loader;
    if (s->config.memory_limit && !s->memory.planned) {
        int64_t held, bytes;
        MEST_TRY(mest_memory_look(s, source, s->config.eval_batch, &held, &bytes, err));
        MEST_TRY(mest_session_fit(s, -1, held, bytes, bytes, err));
    }
    MEST_TRY(mest_loader_create(&loader, s->heap, source, s->config.eval_batch, err));
    const mest_source_info *info = mest_loader_info(loader);
    mest_status status = info->has_targets ? mest_session_set_source(s, info, err) : mest_fail(err, MEST_E_DATA, "evaluate: the data set has no targets");
    mest_loader_plan plan = {.seed = s->config.seed};
    if (status == MEST_OK)
        status = mest_loader_begin(loader, NULL, &plan, err);
    double loss = 0, from = mest_seconds();
    int64_t rows = 0, hits = 0, class_rows = 0, samples = 0, steps = 0;
    const _Atomic bool *stop = own.guest ? mest_guest_work(own.guest, &s->cancelled) : NULL;
    while (status == MEST_OK) {
        mest_batch b;
        mest_program *p;
        status = mest_loader_next(loader, &b, err);
        if (status != MEST_OK || b.n == 0)
            break;
        status = mest_session_program(s, MEST_PROGRAM_EVAL, b.n, &p, err);
        if (status == MEST_OK)
            status = mest_session_run(s, p, b.inputs, b.targets, 0, false, false, err);
        if (status != MEST_OK)
            break;
        mest_session_count(p, &loss, &rows, &hits, &class_rows);
        samples += b.n;
        steps++;
        if (own.guest) /* not for the time limit: half an evaluation is none */
            (void)mest_guest_rest(own.guest, tell_evaluation_pause, &(evaluation){s, &own});
        if (own.progress) {
            mest_event e = {.struct_size = sizeof e, .kind = MEST_EVENT_EVALUATION, .epoch = s->at.epoch, .step = steps, .n_steps = mest_loader_batches(loader),
                            .batch = mest_session_metrics(loss, rows, hits, class_rows, samples, steps, mest_seconds() - from)};
            mest_session_memory(s, NULL, &e.peak_bytes);
            if (!own.progress(own.progress_user, &e) || atomic_load(&s->cancelled))
                status = mest_fail(err, MEST_E_CANCELLED, "evaluation stopped after %" PRId64 " samples", samples);
        }
    }
    if (own.guest)
        (void)mest_guest_work(own.guest, stop);
    mest_loader_destroy(loader);
    if (status == MEST_OK)
        *metrics = mest_session_metrics(loss, rows, hits, class_rows, samples, steps, mest_seconds() - from);
    return status;
}
