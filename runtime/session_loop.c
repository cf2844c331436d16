/* SPDX-License-Identifier: Apache-2.0 */
/* One training step with all that schedulers have a say in, and the epochs of a loop of the caller's own. The epoch loop of the trainer and
 * mest_session_step are the same step. */
#include <math.h>
#include <string.h>

#include "runtime/session.h"

static void note_classes(mest_session *s, const int64_t *ids, const int64_t *targets, int64_t n)
{
    if (!s->classes || s->target_type != MEST_I64 || s->target_shape.rank != 0)
        return;
    for (int64_t i = 0; i < n; i++)
        s->classes[ids[i]] = (int32_t)targets[i];
}

static mest_status step_begin(mest_session *s, mest_step_job *job, mest_error *err)
{
    double began = mest_seconds();
    s->host.watch = NULL;
    s->host.prober = mest_session_probe;
    s->host.prober_self = s;
    mest_status status = mest_schedulers_step_begin(s->schedulers, &job->about, &job->moved_before, err);
    s->host.prober = NULL;
    job->seconds_before = mest_seconds() - began;
    return status;
}

mest_status mest_session_do_step(mest_session *s, mest_step_job *job, mest_error *err)
{
    double from = mest_seconds();
    bool watched = mest_schedulers_watch_steps(s->schedulers);
    s->step = (mest_step_at_work){.inputs = job->inputs, .targets = job->targets, .n = job->n};
    const mest_run forward = {.seed = s->config.seed, .step = (uint64_t)s->at.step, .lr = job->about.lr};
    s->host.skip_update = s->host.perturbed = false;
    if (watched)
        MEST_TRY(step_begin(s, job, err));
    if (!s->host.skip_update)
        MEST_TRY(mest_session_learn(s, job->about.lr, job->snapshot, err));
    else if (!s->step.computed)
        MEST_TRY(mest_session_run_parts(s, &forward, true, err));
    if (job->ids) {
        double seen = mest_seconds();
        note_classes(s, job->ids, job->targets, job->n);
        MEST_TRY(mest_schedulers_batch_seen(s->schedulers, job->ids, s->hits, job->n, err));
        job->seconds_seen = mest_seconds() - seen;
    }
    const double loss = s->step.loss;
    const int64_t rows = s->step.rows, hits = s->step.hits, class_rows = s->step.class_rows;
    s->at.loss_sum += loss;
    s->at.rows += rows;
    s->at.hits += hits;
    s->at.class_rows += class_rows;
    if (watched) {
        double began = mest_seconds();
        job->about.loss = rows ? loss / (double)rows : 0;
        MEST_TRY(mest_schedulers_step_end(s->schedulers, &job->about, &job->moved_after, err));
        job->seconds_after = mest_seconds() - began;
    }
    job->metrics = mest_session_metrics(loss, rows, hits, class_rows, job->n, 1, mest_seconds() - from);
    return MEST_OK;
}

mest_metrics mest_session_metrics(double loss_sum, int64_t rows, int64_t hits, int64_t class_rows, int64_t samples, int64_t steps, double seconds)
{
    return (mest_metrics){.struct_size = sizeof(mest_metrics), .loss = rows ? loss_sum / (double)rows : 0,
                          .accuracy = class_rows ? (double)hits / (double)class_rows : (double)NAN, .samples = samples, .steps = steps, .seconds = seconds};
}

/* ---- epochs ---- */
static mest_epoch epoch_of(const mest_session *s, bool ended)
{
    mest_epoch e = {.struct_size = sizeof e, .epoch = s->at.epoch, .n_epochs = mest_session_epochs(s), .step = s->at.step,
                    .n_samples = s->samples.count, .n_active_samples = s->samples.active, .n_batches = mest_session_batches(s), .n_steps = mest_session_steps(s)};
    if (ended && s->at.rows) {
        e.train_loss = s->at.loss_sum / (double)s->at.rows;
        e.train_accuracy = s->at.class_rows ? (double)s->at.hits / (double)s->at.class_rows : 0;
    }
    return e;
}

mest_status mest_session_begin_epoch(mest_session *s, mest_host_report *report, mest_error *err)
{
    mest_epoch e = epoch_of(s, false);
    s->host.lr_epoch = s->host.lr_epochs = 0;
    MEST_TRY(mest_schedulers_epoch_begin(s->schedulers, &e, report, err));
    s->at.batch = 0;
    s->at.loss_sum = 0;
    s->at.rows = s->at.hits = s->at.class_rows = 0;
    s->at.epoch_open = true;
    s->at.snapshot_grads = s->host.gradients_wanted;
    return MEST_OK;
}

mest_status mest_session_close_epoch(mest_session *s, mest_host_report *report, mest_error *err)
{
    mest_epoch epoch = epoch_of(s, true);
    MEST_TRY(mest_schedulers_epoch_end(s->schedulers, &epoch, report, err));
    s->at.epoch++;
    s->at.batch = 0;
    s->at.epoch_open = false;
    return MEST_OK;
}

/* ---- a loop of the caller's own ---- */
mest_status mest_session_step_on(mest_session *s, const void *const *inputs, const void *targets, int64_t n, mest_metrics *metrics, mest_error *err)
{
    MEST_TRY(mest_session_shapes(s, err));
    mest_step_job job = {.inputs = inputs, .targets = targets, .n = n};
    if (s->config.memory_limit && !s->memory.planned)
        MEST_TRY(mest_session_fit(s, 0, 0, 0, 0, err));
    MEST_TRY(mest_session_part_programs(s, n, err));
    if (!s->at.epoch_open) {
        mest_host_report report = {0};
        MEST_TRY(mest_session_begin_epoch(s, &report, err));
        MEST_TRY(mest_session_part_programs(s, n, err)); /* layers may have other sizes now */
    }
    job.snapshot = s->at.snapshot_grads; /* which step is the last of the epoch only the caller knows */
    job.about = (mest_training_step){.struct_size = sizeof job.about, .step = s->at.step, .epoch = s->at.epoch, .n_epochs = mest_session_epochs(s),
                                     .lr = mest_session_lr(s, s->at.epoch, 0)};
    if (job.about.n_epochs > 0)
        job.about.progress = (double)s->at.epoch / (double)job.about.n_epochs;
    if (s->config.max_steps > 0 && (double)s->at.step / (double)s->config.max_steps > job.about.progress)
        job.about.progress = (double)s->at.step / (double)s->config.max_steps;
    MEST_TRY(mest_session_do_step(s, &job, err));
    s->at.step++;
    if (metrics)
        *metrics = job.metrics;
    return MEST_OK;
}

mest_status mest_session_end_epoch(mest_session *s, mest_metrics *metrics, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s, err, MEST_E_ARGUMENT, "end of epoch: no session");
    MEST_CHECK(s->at.epoch_open, err, MEST_E_STATE, "end of epoch: no step was done in it");
    mest_metrics m = mest_session_metrics(s->at.loss_sum, s->at.rows, s->at.hits, s->at.class_rows, s->at.rows, 0, 0);
    mest_host_report report = {0};
    MEST_TRY(mest_session_close_epoch(s, &report, err));
    if (metrics)
        *metrics = m;
    return MEST_OK;
}

mest_status mest_session_set_learning_rate(mest_session *s, double lr, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s, err, MEST_E_ARGUMENT, "learning rate: no session");
    MEST_CHECK(lr >= 0 && isfinite(lr), err, MEST_E_ARGUMENT, "learning rate %g is negative or not finite", lr);
    s->config.lr = lr;
    return MEST_OK;
}
