/* SPDX-License-Identifier: Apache-2.0 */
/* --train. Everything that can fail early does: outputs, model, data, plan and plugins are checked before the first step. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "json.h"
#include "op_times.h"
#include "pictures.h"
#include "progress.h"
#include "report.h"
#include "rundir.h"

/* Accuracy of the model as it came. It needs a dense session, so it is a model of its own that is gone before training begins. */
static int measure_original(tool *t, mest_metrics *metrics)
{
    int code = tool_create_session(t);
    if (code)
        return code;
    signals_watch(t->session);
    code = cmd_measure(t, &t->val, "evaluating the model as given", metrics);
    signals_watch(NULL);
    mest_session_destroy(t->session);
    t->session = NULL;
    mest_model_destroy(t->model);
    t->model = NULL;
    report_reset_peak(); /* its dense weights shall not count as memory of the sparse training */
    return code ? code : tool_load_model(t);
}

typedef struct peak { int64_t all, now, reserved; } peak;

/* Units of all patterns: how many there are, are stored, have room. Capacities are final once a step is planned. */
static peak peak_of(const tool *t)
{
    peak sum = {0};
    mest_pattern_info p = {.struct_size = sizeof p};
    for (int i = 0; mest_session_pattern(t->session, i, &p); i++) {
        sum.all += p.n_units;
        sum.now += p.n_active;
        sum.reserved += p.n_reserved;
        p.struct_size = sizeof p;
    }
    return sum;
}

static void log_start(tool *t, const train_report *r)
{
    const settings *s = t->s;
    const mest_train_config *c = &t->config;
    char text[1200];
    if (!json_wanted(t))
        return;
    cJSON *event = json_event("start");
    json_text(event, "model", s->model);
    json_text(event, "data", s->data);
    json_number(event, "samples", (double)t->data_info.count);
    if (t->has_val)
        json_number(event, "validation_samples", (double)t->val_info.count);
    tool_normalisation_text(&t->data, text, sizeof text);
    json_text(event, "normalisation", text);
    json_number(event, "epochs", (double)c->epochs);
    json_number(event, "max_steps", (double)c->max_steps);
    json_number(event, "batch_size", (double)c->batch);
    json_text(event, "loss", c->loss);
    json_text(event, "opt", c->optimizer);
    json_number(event, "lr", c->lr);
    json_number(event, "weight_decay", c->weight_decay);
    json_text(event, "sched", c->schedule);
    json_number(event, "sparsity", s->sparsity);
    json_text(event, "scheme", s->scheme);
    json_text(event, "method", tool_method(s));
    json_number(event, "seed", (double)s->seed);
    json_number(event, "threads", c->threads);
    json_number(event, "planned_bytes", (double)r->plan.total_bytes);
    const peak units = peak_of(t);
    json_number(event, "units", (double)units.all);
    json_number(event, "units_stored", (double)units.now);
    json_number(event, "units_reserved", (double)units.reserved);
    json_number(event, "activation_bytes", (double)r->memory.arena_bytes);
    json_number(event, "predicted_heap_bytes", (double)r->memory.heap_bytes);
    json_number(event, "predicted_process_bytes", (double)r->memory.process_bytes);
    json_text(event, "memory_chosen", r->memory.chosen);
    json_text(event, "resume", r->resumed);
    (void)json_emit(t, event); /* the events of the run find out whether the log can be written */
}

static void tell_start(tool *t, const train_report *r)
{
    char bytes[32], text[1200];
    const peak units = peak_of(t);
    report_bytes(bytes, sizeof bytes, r->memory.process_bytes);
    tool_note(t, "%" PRId64 " samples to train on, %" PRId64 " held out; %s of memory predicted; method %s", t->data_info.count,
              t->has_val ? t->val_info.count : 0, bytes, tool_method(t->s));
    if (units.reserved > units.now)
        tool_note(t, "up to %" PRId64 " of %" PRId64 " units (%.2f %%) will be stored, %" PRId64 " are now: memory for the most is reserved and in what is planned",
                  units.reserved, units.all, 100 * (double)units.reserved / (double)units.all, units.now);
    tool_normalisation_text(&t->data, text, sizeof text);
    if (t->s->measure)
        tool_note(t, "measured: %s", text);
    if (!t->s->output && !t->s->output_dir)
        tool_note(t, "neither -o nor --output-dir: the trained model will not be kept");
    if (*r->memory.chosen)
        tool_note(t, "to need less memory: %s", r->memory.chosen);
    if (r->resumed)
        tool_note(t, "going on from '%s'", r->resumed);
}

/* Interrupted: the step is finished; where there is no run folder, the checkpoint is written here. */
static int interrupted(tool *t)
{
    const int code = signals_caught() ? EXIT_SIGNAL + signals_caught() : EXIT_TIME;
    const char *why = signals_caught() ? "interrupted" : "the time limit is over";
    mest_error err = {0};
    const char *path = rundir_interrupt_path(t);
    if (!*path)
        return tool_refuse(t, code, "%s; no checkpoint, as there is neither -o nor --output-dir", why);
    if (!t->s->output_dir && mest_session_checkpoint(t->session, path, &err) != MEST_OK)
        return tool_fail(t, STAGE_FILES, &err);
    return tool_refuse(t, code, "%s; '%s' holds the state: the same command with --resume goes on", why, path);
}

static int export_to(tool *t, const char *path)
{
    const settings *s = t->s;
    mest_export_options options = {.struct_size = sizeof options,
                                   .sparse = strcmp(s->export_as, "sparse") == 0,
                                   .form = s->export_form,
                                   .shrunk = strcmp(s->export_as, "shrunk") == 0};
    mest_error err = {0};
    char version[32], sparsity[32], normalisation[1200];
    int v = mest_version();
    snprintf(version, sizeof version, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
    snprintf(sparsity, sizeof sparsity, "%.9g", s->sparsity);
    tool_normalisation_text(&t->data, normalisation, sizeof normalisation);
    const char *metadata[] = {
        "mest.version", version, "mest.sparsity", sparsity, "mest.scheme", s->scheme, "mest.method", tool_method(s),
        "mest.normalisation", normalisation, NULL,
    };
    options.metadata = metadata;
    if (mest_model_export(t->model, path, &options, &err) != MEST_OK)
        return tool_fail(t, STAGE_FILES, &err);
    return 0;
}

/* --bn-recompute, where it asks for `when`. */
static int recompute(tool *t, const char *when)
{
    mest_error err = {0};
    int layers = 0;
    if (strcmp(t->s->bn_recompute, when) != 0 && strcmp(t->s->bn_recompute, "both") != 0)
        return 0;
    mest_status status = mest_session_recompute_statistics(t->session, &t->data, t->s->bn_recompute_batches, &layers, &err);
    if (signals_caught() && (status == MEST_OK || status == MEST_E_CANCELLED))
        return tool_refuse(t, EXIT_SIGNAL + signals_caught(), "interrupted while statistics were estimated");
    if (status != MEST_OK)
        return tool_fail(t, STAGE_RUN, &err);
    if (layers)
        tool_note(t, "statistics of %d BatchNormalization layers were estimated anew %s training", layers, when);
    else
        tool_note(t, "--bn-recompute: no layer tracks statistics");
    return 0;
}

/* Did the checkpoint's run reach its end, with its results in the folder? After a crash between the two they are still to be written. */
static bool complete(tool *t)
{
    int64_t epochs = 0, steps = 0;
    mest_session_position(t->session, &epochs, &steps);
    bool ended = (t->config.epochs > 0 && epochs >= t->config.epochs) || (t->config.max_steps > 0 && steps >= t->config.max_steps);
    return ended && rundir_has_results(t);
}

/* Nothing is left to train: the folder stays as it is, as a summary of zero steps would replace that of the run. */
static int already_complete(tool *t)
{
    int64_t epochs = 0, steps = 0;
    mest_session_position(t->session, &epochs, &steps);
    tool_note(t, "--resume: the run is complete (%" PRId64 " steps); '%s' stays as it is", steps, t->s->output_dir);
    int code = t->s->output ? recompute(t, "after") : 0;
    if (code == 0 && t->s->output)
        code = export_to(t, t->s->output);
    if (code == 0 && t->s->json) {
        cJSON *event = json_event("complete");
        json_number(event, "steps", (double)steps);
        json_text(event, "summary", t->summary);
        json_text(event, "output", t->s->output ? t->s->output : t->run_model);
        (void)json_emit(t, event); /* report_finish tells of a failure */
    }
    return code ? code : report_finish(t);
}

/* Model, data, session, schedulers, plan: all that can fail before the first step. */
static int prepare(tool *t, train_report *r)
{
    const settings *s = t->s;
    mest_error err = {0};
    int code = tool_create_guest(t);
    tool_budget(t, true);
    if (code == 0)
        code = tool_load_model(t);
    if (code == 0)
        code = rundir_prepare(t);
    if (code == 0)
        code = tool_open_sources(t, true);
    if (code == 0)
        code = tool_check_sources(t, true);
    r->resumed = code == 0 ? rundir_resume_path(t) : NULL;
    bool compare = t->has_val && !s->no_eval_before && !r->resumed && (s->sparsity > 0 || s->rules) && !s->from_scratch &&
                   !s->memory_limit; /* it would need its dense weights */
    if (code == 0 && compare)
        code = measure_original(t, &r->original);
    if (code == 0)
        code = tool_sparsify(t);
    if (code == 0)
        code = tool_create_session(t);
    if (code == 0)
        code = tool_add_schedulers(t);
    if (code)
        return code;
    mest_run_options run;
    mest_run_options_init(&run);
    run.validation = t->has_val ? &t->val : NULL;
    if (mest_session_plan_memory(t->session, &t->data, &run, &r->memory, &err) != MEST_OK)
        return tool_fail(t, STAGE_PREPARE, &err);
    tool_budget(t, false);
    const int64_t step = t->config.batch < t->data_info.count ? t->config.batch : t->data_info.count;
    if (mest_session_explain(t->session, MEST_PROGRAM_TRAIN, step, NULL, NULL, &r->plan, &err) != MEST_OK)
        return tool_fail(t, STAGE_PREPARE, &err);
    if (r->resumed && mest_session_resume(t->session, r->resumed, &err) != MEST_OK)
        return tool_fail(t, STAGE_FILES, &err);
    r->complete = r->resumed && !t->folder.fresh && complete(t); /* a checkpoint of the folder, not from elsewhere */
    return r->complete ? 0 : rundir_begin(t);
}

static int run(tool *t, train_report *r, progress *p)
{
    const settings *s = t->s;
    mest_run_options options;
    mest_error err = {0};
    mest_run_options_init(&options);
    options.validation = t->has_val ? &t->val : NULL;
    options.validate_every = s->val_interval;
    if (s->output_dir) {
        options.checkpoint_path = t->checkpoint;
        options.checkpoint_every_steps = s->checkpoint_steps;
        options.checkpoint_every_epochs = s->checkpoint_every;
    }
    options.progress = progress_event;
    options.progress_user = p;
    options.guest = t->guest;
    progress_init(p, t);
    mest_status status = mest_session_train(t->session, &t->data, &options, &err);
    progress_clear(p);
    r->seconds = progress_clock() - p->began;
    r->steps = p->steps;
    r->samples = p->samples;
    r->epochs = p->epochs_done;
    if (status == MEST_OK && t->folder.waiting && t->folder.fresh) /* a checkpoint from elsewhere that no step follows: the folder shall have one, too */
        status = mest_session_checkpoint(t->session, t->checkpoint, &err);
    if (p->code == 0 && (status == MEST_OK || (status == MEST_E_CANCELLED && p->steps > 0))) /* no step was left, or one was made */
        p->code = rundir_open(t);
    if (p->code)
        return p->code;
    if (p->failed && (status == MEST_OK || status == MEST_E_CANCELLED))
        return tool_refuse(t, EXIT_FILES, "the log or standard output cannot be written: %s", strerror(errno));
    if (signals_caught() && (status == MEST_OK || status == MEST_E_CANCELLED))
        return interrupted(t);
    if (status == MEST_E_CANCELLED && mest_guest_time_over(t->guest))
        return interrupted(t);
    return status == MEST_OK ? 0 : tool_fail(t, STAGE_TRAIN, &err);
}

static int train(tool *t)
{
    const settings *s = t->s;
    train_report r = {.plan = {.struct_size = sizeof r.plan}, .memory = {.struct_size = sizeof r.memory}};
    progress p;
    op_times ops;
    int code = prepare(t, &r);
    if (code)
        return code;
    if (r.complete)
        return already_complete(t);
    const peak units = peak_of(t);
    r.made_sparse = t->sparsified && units.now < units.all;
    tell_start(t, &r);
    log_start(t, &r);
    if (!r.resumed)
        code = pictures_patterns(t, "start");
    signals_watch(t->session);
    if (code == 0 && !r.resumed)
        code = recompute(t, "before");
    if (code == 0 && t->has_val && !s->no_eval_before && !r.resumed)
        code = cmd_measure(t, &t->val, "evaluating before training", &r.start);
    if (code == 0)
        code = op_times_profile(t, &ops);
    if (code == 0)
        code = op_times_finish(t, &ops, run(t, &r, &p));
    if (code == 0)
        code = recompute(t, "after");
    const bool same = strcmp(s->bn_recompute, "after") != 0 && strcmp(s->bn_recompute, "both") != 0; /* new statistics make another network */
    if (code == 0 && t->has_val && same && p.validation.samples && p.validation_epoch == p.last_epoch)
        r.end = p.validation;
    else if (code == 0 && t->has_val)
        code = cmd_measure(t, &t->val, "evaluating after training", &r.end);
    else if (code == 0)
        r.end = p.train.samples ? p.train : (mest_metrics){.loss = NAN, .accuracy = NAN}; /* no step was left: the numbers went with the process before */
    signals_watch(NULL); /* from here on a signal ends the process at once; files appear whole or not at all */
    if (code == 0 && s->output)
        code = export_to(t, s->output);
    if (code == 0 && s->output_dir)
        code = export_to(t, t->run_model);
    if (code == 0)
        code = pictures_patterns(t, "end");
    if (code == 0)
        code = pictures_gallery(t);
    if (code == 0 && !s->output_dir && r.resumed && !s->resume_file)
        unlink(r.resumed); /* the checkpoint of an interruption; the run is complete now */
    return code ? code : report_train(t, &r);
}

int cmd_train(tool *t)
{
    int code = train(t);
    if (code)
        rundir_leave(t);
    return code;
}
