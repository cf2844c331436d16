/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: configuration, programs by purpose and size, single steps, inference. */
#include "runtime/session.h"

#include "ops/loss.h"
#include "runtime/channels.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/counter.h"
#include "runtime/cpu.h"
#include "runtime/snapshot.h"
#include "runtime/sparsify.h"
#include "runtime/tune.h"

enum { DEFAULT_BATCH = 32 };

void mest_train_config_init(mest_train_config *c)
{
    memset(c, 0, sizeof *c);
    c->struct_size = sizeof *c;
    c->batch = DEFAULT_BATCH;
    c->ignore_index = -100;
    c->shuffle = true;
    c->epochs = 1;
    c->loss = "ce";
    c->optimizer = "sgd";
    c->lr = 0.01;
    c->momentum = 0.9;
    c->beta1 = 0.9;
    c->beta2 = 0.999;
    c->eps = -1;
    c->schedule = "constant";
    c->gamma = 0.1;
    c->step_epochs = 30;
    c->batch_norm = "auto";
    c->bn_stats = "pytorch";
    c->dropout = -1;
    c->kernels = "auto";
    c->use_xnnpack = true;
    c->recompute = "auto";
    c->tune = "off";
    c->activations = "f32";
    c->freeze_front = "off";
}

static bool one_of(const char *text, const char *const *names)
{
    for (; text && *names; names++)
        if (!strcmp(text, *names))
            return true;
    return false;
}

static mest_status check_config(const mest_train_config *c, mest_error *err)
{
#define WANT(cond, ...) MEST_CHECK(cond, err, MEST_E_ARGUMENT, __VA_ARGS__)
    WANT(c->batch >= 1 && c->batch <= 1 << 20, "config: batch %" PRId64 " is not in 1..2^20", c->batch);
    WANT(c->eval_batch >= 0 && c->eval_batch <= 1 << 20, "config: eval_batch %" PRId64 " is not in 0..2^20", c->eval_batch);
    WANT(c->epochs >= 0 && c->max_steps >= 0, "config: epochs and max_steps must not be negative");
    WANT(one_of(c->loss, (const char *const[]){"ce", "mse", "bce", NULL}), "config: loss '%s' is not one of ce, mse, bce", c->loss ? c->loss : "");
    WANT(c->label_smoothing >= 0 && c->label_smoothing < 1, "config: label smoothing %g is not in [0, 1)", c->label_smoothing);
    WANT(mest_optim_rule_find(c->optimizer), "config: optimizer '%s' is not one of %s", c->optimizer ? c->optimizer : "", mest_optim_rule_names);
    WANT(c->lr >= 0 && isfinite(c->lr), "config: learning rate %g is negative or not finite", c->lr);
    WANT(c->momentum >= 0 && c->momentum < 1, "config: momentum %g is not in [0, 1)", c->momentum);
    WANT(!c->nesterov || c->momentum > 0, "config: nesterov needs a momentum");
    WANT(c->weight_decay >= 0 && isfinite(c->weight_decay), "config: weight decay %g is negative or not finite", c->weight_decay);
    WANT(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1 && (c->eps >= 0 || c->eps == -1), "config: betas must be in [0, 1), eps >= 0");
    WANT(c->lr_decay >= 0 && isfinite(c->lr_decay), "config: lr_decay %g is negative or not finite", c->lr_decay);
    WANT(c->clip_norm >= 0, "config: gradient clipping %g is negative", c->clip_norm);
    WANT(one_of(c->schedule, (const char *const[]){"constant", "step", "cosine", NULL}), "config: schedule '%s' is not one of constant, step, cosine",
         c->schedule ? c->schedule : "");
    WANT(c->min_lr >= 0 && c->warmup_lr >= 0 && c->gamma >= 0 && c->step_epochs >= 1 && c->warmup_epochs >= 0,
         "config: min_lr, warmup_lr, gamma, warmup_epochs must not be negative, step_epochs at least 1");
    WANT(one_of(c->batch_norm, (const char *const[]){"auto", "train", "frozen", NULL}), "config: batch_norm '%s' is not one of auto, train, frozen",
         c->batch_norm ? c->batch_norm : "");
    WANT(one_of(c->bn_stats, (const char *const[]){"pytorch", "onnx", NULL}), "config: bn_stats '%s' is not one of pytorch, onnx", c->bn_stats ? c->bn_stats : "");
    WANT(c->dropout < 1, "config: dropout %g is not below 1", c->dropout);
    WANT(c->micro_batch >= -1 && c->micro_batch <= c->batch && (c->micro_batch < 1 || c->batch % c->micro_batch == 0),
         "config: micro_batch %" PRId64 " does not divide the batch of %" PRId64, c->micro_batch, c->batch);
    WANT(c->threads >= 0 && c->threads <= 1024, "config: threads %d is not in 0..1024", c->threads);
#undef WANT
    mest_tune_mode mode;
    MEST_CHECK(one_of(c->activations, (const char *const[]){"f32", "bf16", "auto", NULL}), err, MEST_E_ARGUMENT, "config: activations '%s' is not one of f32, bf16, auto",
               c->activations ? c->activations : "");
    MEST_CHECK(one_of(c->freeze_front, (const char *const[]){"off", "auto", NULL}), err, MEST_E_ARGUMENT, "config: freeze_front '%s' is not one of off, auto",
               c->freeze_front ? c->freeze_front : "");
    MEST_TRY(mest_tune_parse(c->tune, &mode, err));
    return mest_passes_check(c->no_fuse, err);
}

static mest_status check_output(const mest_model *m, const char *name, mest_error *err)
{
    const mest_graph *g = &m->graph;
    char names[300] = "";
    size_t n = 0;
    for (int i = 0; i < g->n_outputs; i++) {
        const char *have = g->values[g->outputs[i]].name;
        if (!name || !strcmp(have, name))
            return MEST_OK;
        if (n < sizeof names)
            n += (size_t)snprintf(names + n, sizeof names - n, "%s%.60s", i ? ", " : "", have);
    }
    MEST_CHECK(!name, err, MEST_E_ARGUMENT, "config: the model has no output '%s' (it has %s)", name, names);
    return MEST_OK;
}

/* The host sees the sparse trainable parameters, in graph order, then the groups of channels. */
static mest_status open_host(mest_session *s, mest_error *err)
{
    int n = 0;
    s->host_param = mest_alloc(s->heap, 2 * (size_t)s->model->n_params + 1, sizeof *s->host_param); /* no more groups than parameters */
    MEST_CHECK(s->host_param, err, MEST_E_NOMEM, "session: out of memory");
    for (int i = 0; i < s->model->n_params; i++)
        if (s->model->params[i].sparse && s->model->params[i].role == MEST_ROLE_TRAINABLE)
            s->host_param[n++] = i;
    const mest_channels *c = s->model->channels;
    const int n_weights = n;
    for (int g = 0; c && g < c->n_groups; g++)
        s->host_param[n++] = c->group[g].maker;
    MEST_TRY(mest_host_init(&s->host, s->heap, s->config.seed, n, err));
    s->host.model = s->model;
    s->host.optimizer = &s->optimizer;
    for (int k = 0; k < n; k++) {
        const mest_param *p = &s->model->params[s->host_param[k]];
        mest_host_param *hp = &s->host.params[k];
        const mest_channel_group *g = k >= n_weights ? &c->group[k - n_weights] : NULL;
        hp->group = g ? 1 + k - n_weights : 0;
        hp->name = g ? g->name : p->name;
        hp->model_param = s->host_param[k];
        hp->sparse = g ? g->units : p->sparse;
        hp->target_sparsity = g ? g->target : p->target_sparsity;
    }
    s->host.keeper = mest_session_keeper;
    s->host.freezer = mest_session_freezer;
    s->host.keeper_self = s;
    return mest_schedulers_create(&s->schedulers, &s->host, err);
}

mest_status mest_session_add_scheduler(mest_session *s, const char *name, const char *options, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && name, err, MEST_E_ARGUMENT, "scheduler: session and name must be given");
    MEST_CHECK(!s->prepared, err, MEST_E_STATE, "scheduler '%s': the run has begun", name);
    return mest_schedulers_add(s->schedulers, name, options, err);
}

mest_status mest_session_create(mest_session **session, mest_model *model, const mest_train_config *config, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(session, err, MEST_E_ARGUMENT, "session: no place for the handle");
    *session = NULL;
    MEST_CHECK(model && config, err, MEST_E_ARGUMENT, "session: model and config must be given");
    mest_train_config own;
    mest_train_config_init(&own);
    MEST_CHECK(mest_take_options(&own, sizeof own, config), err, MEST_E_ARGUMENT, "config: struct_size is not set; call mest_train_config_init");
    if (own.batch == 0)
        own.batch = mest_model_batch(model, DEFAULT_BATCH, NULL);
    MEST_TRY(check_config(&own, err));
    MEST_TRY(check_output(model, own.output, err));
    MEST_CHECK(model->n_sessions == 0, err, MEST_E_STATE, "session: the model has one already");
    MEST_TRY(mest_registry_idle(model, true, "session", err));
    mest_session *s = mest_calloc(&model->heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "session: out of memory");
    s->heap = &model->heap;
    s->model = model;
    s->arena.heap = s->heap;
    s->arena.generation = 1;
    s->profile.counter = -1;
    mest_region_init(&s->region, s->heap);
    s->config = own;
    s->part = own.micro_batch > 0 ? own.micro_batch : own.batch;
    const char **texts[] = {&s->config.loss, &s->config.optimizer, &s->config.no_decay, &s->config.schedule, &s->config.batch_norm, &s->config.kernels,
                            &s->config.no_fuse, &s->config.output, &s->config.recompute, &s->config.bn_stats, &s->config.tune, &s->config.tune_cache,
                            &s->config.activations, &s->config.freeze_front};
    mest_status status = MEST_OK;
    for (size_t i = 0; i < sizeof texts / sizeof *texts && status == MEST_OK; i++)
        if (*texts[i] && !(*texts[i] = mest_region_strdup(&s->region, *texts[i])))
            status = mest_fail(err, MEST_E_NOMEM, "session: out of memory");
    if (!s->config.eval_batch)
        s->config.eval_batch = s->config.batch;
    if (status == MEST_OK)
        status = mest_memory_config(s, err);
    if (status == MEST_OK)
        status = mest_cpu_limit(s->config.kernels, &s->cpu, err);
    if (status == MEST_OK)
        status = (s->config.nice ? mest_threads_create_nice : mest_threads_create)(&s->threads, s->config.threads, err);
    if (status == MEST_OK)
        status = mest_session_tune_open(s, err);
    if (status == MEST_OK)
        status = mest_model_materialise(model, err);
    for (int i = 0; i < model->n_params; i++)
        model->params[i].no_decay = s->config.no_decay && mest_match_any(s->config.no_decay, model->params[i].name);
    if (status == MEST_OK)
        status = mest_optimizer_init(&s->optimizer, model, s->config.optimizer, err);
    s->optimizer.momentum = s->config.momentum;
    s->optimizer.weight_decay = s->config.weight_decay;
    s->optimizer.beta1 = s->config.beta1;
    s->optimizer.beta2 = s->config.beta2;
    s->optimizer.lr_decay = s->config.lr_decay;
    if (s->config.eps < 0 && status == MEST_OK)
        s->config.eps = s->optimizer.rule->eps;
    s->optimizer.eps = s->config.eps;
    s->optimizer.nesterov = s->config.nesterov;
    if (status == MEST_OK)
        status = mest_derived_create(&s->derived, s->heap, err);
    if (status == MEST_OK)
        status = open_host(s, err);
    model->n_sessions++;
    if (status != MEST_OK) {
        mest_session_destroy(s);
        return status;
    }
    *session = s;
    return MEST_OK;
}

void mest_session_drop_programs(mest_session *s)
{
    for (int i = 0; i < MEST_PROGRAM_SLOTS; i++) {
        mest_program_destroy(s->programs[i]);
        s->programs[i] = NULL;
    }
    s->output_known = false;
}

void mest_session_follow_channels(mest_session *s)
{
    if (!s->model->channels || s->channels_version == s->model->channels->version)
        return;
    mest_session_drop_programs(s);
    s->channels_version = s->model->channels->version;
}

static void drop_kind(mest_session *s, mest_program_kind kind)
{
    for (int i = 2 * (int)kind; i < 2 * (int)kind + 2; i++) {
        mest_program_destroy(s->programs[i]);
        s->programs[i] = NULL;
    }
}
void mest_session_drop_training(mest_session *s)
{
    drop_kind(s, MEST_PROGRAM_TRAIN);
    s->peak_batch = 0;
    s->memory.peak_arena = 0;
}
void mest_session_drop_evaluation(mest_session *s) { drop_kind(s, MEST_PROGRAM_EVAL); }

void mest_session_destroy(mest_session *s)
{
    if (!s)
        return;
    mest_heap *heap = s->heap;
    mest_counter_close(s->profile.counter);
    mest_tuner_destroy(s->tuner);
    mest_session_forget(s);
    mest_free(heap, s->frozen, (size_t)s->model->n_params + 1, 1);
    mest_schedulers_destroy(s->schedulers);
    mest_host_free(&s->host);
    mest_free(heap, s->host_param, 2 * (size_t)s->model->n_params + 1, sizeof *s->host_param);
    mest_session_drop_programs(s);
    mest_session_feed_free(s);
    mest_derived_destroy(s->derived);
    mest_optimizer_free(&s->optimizer);
    mest_arena_free(&s->arena);
    mest_free(heap, s->classes, (size_t)s->samples.count, sizeof *s->classes);
    mest_free(heap, s->hits, (size_t)s->config.batch, 1);
    mest_sample_set_destroy(&s->samples);
    mest_threads_destroy(&s->threads);
    mest_region_free(&s->region);
    s->model->n_sessions--;
    mest_free(heap, s, 1, sizeof *s);
}

void mest_session_cancel(mest_session *s)
{
    if (s)
        atomic_store(&s->cancelled, true);
}

static mest_status open_watch(mest_session *s, mest_error *err)
{
    int n = s->host.n_params;
    mest_sparse **weights = mest_region_alloc(&s->region, (size_t)n + 1, sizeof(mest_sparse *));
    MEST_CHECK(weights, err, MEST_E_NOMEM, "session: out of memory");
    for (int k = 0; k < n; k++)
        weights[k] = s->host.params[k].sparse;
    return mest_watch_create(&s->host.account, s->heap, weights, n, err);
}

mest_status mest_session_prepare(mest_session *s, mest_error *err)
{
    if (s->prepared)
        return MEST_OK;
    MEST_TRY(mest_host_plan(&s->host, err)); /* capacities are final after this */
    if (s->model->channels)
        MEST_TRY(mest_channels_reserve(s->model, err));
    /* programs that ran before (an evaluation) hold lists of the old capacity */
    mest_session_drop_programs(s);
    mest_derived_destroy(s->derived);
    s->derived = NULL;
    MEST_TRY(mest_derived_create(&s->derived, s->heap, err));
    MEST_TRY(mest_optimizer_allocate(&s->optimizer, err));
    MEST_TRY(mest_optimizer_sums(&s->optimizer, s->part < s->config.batch, s->frozen, err));
    if (s->config.watch_patterns && !s->host.account)
        MEST_TRY(open_watch(s, err));
    for (int k = 0; k < s->host.n_params; k++) {
        const mest_param_state *state = &s->optimizer.state[s->host_param[k]];
        mest_host_param *hp = &s->host.params[k];
        hp->n_slots = 0;
        hp->has_momentum = s->optimizer.rule->has_momentum && state->slot[0];
        for (int i = 0; i < MEST_OPTIM_SLOTS && !hp->group; i++)
            if (state->slot[i])
                hp->slots[hp->n_slots++] = state->slot[i];
    }
    if (!s->hits) {
        s->hits = mest_calloc(s->heap, (size_t)s->config.batch, 1);
        MEST_CHECK(s->hits, err, MEST_E_NOMEM, "session: out of memory");
    }
    s->prepared = true;
    return MEST_OK;
}

/* ---- programs ---- */
/* spec is complete but for the target. */
static mest_status build_program(mest_session *s, mest_program_spec *spec, mest_program **program, mest_error *err)
{
    mest_type target = {.dtype = s->target_type};
    if (spec->kind != MEST_PROGRAM_INFER && (s->target_type || !s->survey)) {
        MEST_CHECK(s->target_type, err, MEST_E_DATA, "the data has no targets: a loss cannot be computed");
        target.shape.rank = s->target_shape.rank + 1;
        MEST_CHECK(target.shape.rank <= MEST_MAX_RANK, err, MEST_E_SHAPE, "targets of rank %d are too large", target.shape.rank);
        target.shape.dim[0] = spec->batch;
        memcpy(target.shape.dim + 1, s->target_shape.dim, (size_t)s->target_shape.rank * sizeof target.shape.dim[0]);
        spec->target = &target;
    }
    MEST_TRY(mest_program_build(program, s->model, spec, err));
    mest_status status = spec->counts_only ? MEST_OK : mest_session_feed_reserve(s, *program, err);
    if (status != MEST_OK) {
        mest_program_destroy(*program);
        *program = NULL;
    }
    return status;
}

static mest_status refused(const mest_session *s, mest_error *err)
{
    MEST_CHECK(s->model->refusal.code == MEST_OK || s->survey, err, s->model->refusal.code, "%s", s->model->refusal.msg);
    return MEST_OK;
}

/* Layers that will have more channels than now need more memory for a step. It is taken before the run: a step of that size is planned
 * once, and the arena has that size from the beginning. */
static mest_status reserve_peak(mest_session *s, mest_program_spec *spec, mest_error *err)
{
    mest_channels *c = s->model->channels;
    mest_program *largest = NULL;
    bool grows = false;
    for (int32_t g = 0; c && g < c->n_groups; g++)
        grows |= c->group[g].units->cap_units > c->group[g].units->active_units;
    if (!grows || s->survey || spec->batch <= s->peak_batch)
        return MEST_OK;
    mest_channels_pretend(s->model, true);
    mest_status status = build_program(s, spec, &largest, err);
    if (status == MEST_OK)
        status = mest_memory_check(s, largest, err);
    if (status == MEST_OK && largest->arena_bytes > s->memory.peak_arena)
        s->memory.peak_arena = largest->arena_bytes;
    if (status == MEST_OK && !s->config.memory_limit)
        status = mest_program_reserve(largest, err);
    mest_program_destroy(largest);
    mest_channels_pretend(s->model, false);
    s->channels_version = c->version;
    s->peak_batch = status == MEST_OK ? spec->batch : s->peak_batch;
    return status;
}

/* A new program, as the session is configured. */
static mest_status new_program(mest_session *s, mest_program_kind kind, int64_t n, bool counts_only, mest_program **program, mest_error *err)
{
    mest_program_spec spec = {.kind = kind,
                              .batch = n,
                              .loss = s->config.loss,
                              .output = s->config.output ? s->config.output : s->model->graph.n_outputs ? s->model->graph.values[s->model->graph.outputs[0]].name : NULL,
                              .label_smoothing = s->config.label_smoothing,
                              .ignores = true,
                              .ignore_index = s->config.ignore_index,
                              .batch_norm = s->config.batch_norm,
                              .measure_unfolded = s->measuring,
                              .bn_biased = !strcmp(s->config.bn_stats, "onnx"),
                              .no_fuse = s->config.no_fuse,
                              .dropout = s->config.dropout,
                              .clip_norm = s->config.clip_norm,
                              .keep_gradients = s->config.keep_gradients,
                              .optimizer = &s->optimizer,
                              .frozen = s->frozen,
                              .cpu = s->cpu,
                              .use_xnnpack = s->config.use_xnnpack,
                              .threads = &s->threads,
                              .derived = s->derived,
                              .arena = &s->arena,
                              .profile = &s->profile,
                              .counts_only = counts_only,
                              .survey = s->survey,
                              .tuner = s->survey || counts_only ? NULL : s->tuner,
                              .no_update = s->plain_gradients,
                              .force_layout = s->plain_gradients ? "plain" : NULL};
    spec.recompute = s->memory.recompute;
    spec.recompute_share = s->memory.share;
    spec.arena_limit = s->memory.arena_limit;
    spec.halves = s->memory.halves;
    spec.accumulate = kind == MEST_PROGRAM_TRAIN && s->part < s->config.batch;
    mest_shape *shapes = mest_alloc(s->heap, (size_t)s->model->graph.n_inputs + 1, sizeof *shapes);
    MEST_CHECK(shapes, err, MEST_E_NOMEM, "session: out of memory");
    mest_session_input_shapes(s, shapes);
    spec.input_shapes = shapes;
    mest_status status = kind == MEST_PROGRAM_TRAIN && !counts_only ? reserve_peak(s, &spec, err) : MEST_OK;
    if (status == MEST_OK)
        status = build_program(s, &spec, program, err);
    mest_free(s->heap, shapes, (size_t)s->model->graph.n_inputs + 1, sizeof *shapes);
    mest_session_tune_keep(s);
    if (status == MEST_OK) { /* lent for the build only */
        (*program)->spec.input_shapes = NULL;
        (*program)->spec.target = NULL;
    }
    return status;
}

mest_status mest_session_sketch(mest_session *s, int64_t n, mest_program **program, mest_error *err)
{
    MEST_TRY(refused(s, err));
    return new_program(s, MEST_PROGRAM_INFER, n, true, program, err);
}

mest_status mest_session_program(mest_session *s, mest_program_kind kind, int64_t n, mest_program **program, mest_error *err)
{
    MEST_TRY(refused(s, err));
    mest_session_follow_channels(s);
    int base = (int)kind * 2;
    int64_t full = kind == MEST_PROGRAM_TRAIN ? s->part : s->config.eval_batch;
    int slot = base + (n != full);
    mest_program *p = s->programs[slot];
    if (p && p->spec.batch == n) {
        *program = p;
        return MEST_OK;
    }
    mest_program_destroy(p);
    s->programs[slot] = NULL;
    if (kind == MEST_PROGRAM_TRAIN)
        MEST_TRY(mest_session_prepare(s, err));
    MEST_TRY(new_program(s, kind, n, false, &p, err));
    const mest_status status = mest_memory_check(s, p, err);
    if (status != MEST_OK) {
        mest_program_destroy(p);
        return status;
    }
    s->programs[slot] = p;
    *program = p;
    return MEST_OK;
}

/* ---- numbers ---- */
int64_t mest_session_epochs(const mest_session *s)
{
    const mest_train_config *c = &s->config;
    if (c->epochs > 0 || c->max_steps == 0 || s->samples.count == 0)
        return c->epochs;
    int64_t batches = c->drop_last ? s->samples.count / c->batch : (s->samples.count - 1) / c->batch + 1;
    return batches > 0 ? (c->max_steps - 1) / batches + 1 : 1;
}

double mest_session_lr(const mest_session *s, int64_t epoch, double fraction)
{
    const mest_train_config *c = &s->config;
    const bool placed = s->host.lr_epochs > 0; /* by a scheduler */
    const int64_t epochs = placed ? s->host.lr_epochs : mest_session_epochs(s);
    double e = (double)(placed ? s->host.lr_epoch : epoch) + (c->schedule_per_step ? fraction : 0);
    if (e < (double)c->warmup_epochs)
        return c->warmup_lr + (c->lr - c->warmup_lr) * e / (double)c->warmup_epochs;
    if (!strcmp(c->schedule, "step"))
        return c->lr * pow(c->gamma, floor(e / (double)c->step_epochs));
    if (!strcmp(c->schedule, "cosine") && epochs > 0) {
        double t = e / (double)epochs;
        return c->min_lr + 0.5 * (c->lr - c->min_lr) * (1 + cos(3.14159265358979323846 * (t < 1 ? t : 1)));
    }
    return c->lr;
}

double mest_session_sparsity(const mest_model *m)
{
    int64_t all = 0, stored = 0;
    for (int i = 0; i < m->n_params; i++) {
        const mest_param *p = &m->params[i];
        if (!p->sparse && !(p->axes && p->axes->kind != MEST_CHANNEL_VECTOR))
            continue;
        all += mest_param_file_count(p);
        stored += p->sparse ? mest_sparse_nnz(p->sparse) : p->count;
    }
    return all ? 1 - (double)stored / (double)all : 0;
}

void mest_session_count(const mest_program *p, double *loss_sum, int64_t *rows, int64_t *hits, int64_t *class_rows)
{
    const mest_tensor *row = &p->tensors[p->row_loss];
    const mest_real *loss = row->data;
    int64_t ignored = 0;
    for (size_t i = 0; i < row->count; i++)
        *loss_sum += (double)loss[i]; /* that of an ignored row is 0 */
    *rows += (int64_t)row->count;
    if (p->correct == MEST_NONE)
        return;
    const uint8_t *correct = p->tensors[p->correct].data;
    for (size_t i = 0; i < p->tensors[p->correct].count; i++) {
        *hits += correct[i] == 1;
        ignored += correct[i] == MEST_ROW_IGNORED;
    }
    *rows -= ignored;
    *class_rows += (int64_t)p->tensors[p->correct].count - ignored;
}

void mest_session_hits(mest_session *s, const mest_program *p, int64_t first, int64_t n)
{
    uint8_t *hits = s->hits + first;
    if (p->correct == MEST_NONE) {
        memset(hits, 255, (size_t)n);
        return;
    }
    const uint8_t *correct = p->tensors[p->correct].data;
    size_t per = p->tensors[p->correct].count / (size_t)n; /* rows a sample: a sample is right when all its rows are that count */
    for (int64_t i = 0; i < n; i++) {
        hits[i] = 1;
        for (size_t k = 0; k < per; k++)
            hits[i] &= correct[(size_t)i * per + k] != 0;
    }
}

mest_status mest_session_read_gradient(mest_session *s, int parameter, float *out, size_t count, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && out && parameter >= 0 && parameter < s->model->n_params, err, MEST_E_ARGUMENT, "gradient: no such parameter");
    MEST_CHECK(s->config.keep_gradients, err, MEST_E_STATE, "gradient: the session was created without keep_gradients");
    const mest_param *param = &s->model->params[parameter];
    const int64_t all = mest_param_file_count(param);
    MEST_CHECK(count == (size_t)all, err, MEST_E_ARGUMENT, "gradient of '%s' has %" PRId64 " elements", param->name, all);
    for (int slot = 0; slot < 2; slot++) {
        mest_program *p = s->programs[MEST_PROGRAM_TRAIN * 2 + slot];
        mest_id g = p ? mest_program_param_grad(p, parameter) : MEST_NONE;
        const mest_real *data = mest_program_data(p, g);
        if (!p || !data || (s->step.program && p != s->step.program) || p->bound_generation != s->arena.generation) /* memory has moved since: nothing of that step is left */
            continue;
        if (param->sparse)
            mest_sparse_dense_rows(param->sparse, data, 0, param->sparse->rows, out);
        else if (param->axes)
            mest_channels_expand(param, data, 0, 0, all, out);
        else
            for (size_t i = 0; i < count; i++)
                out[i] = (float)data[i];
        return MEST_OK;
    }
    return mest_fail(err, MEST_E_STATE, "gradient of '%s': no training step has run, or the loss does not depend on it", param->name);
}

mest_status mest_session_publish(mest_session *s, const mest_publish_options *options, mest_version_info *info, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s, err, MEST_E_ARGUMENT, "publish: no session");
    return mest_registry_publish(s->model, options, (mest_position){s->at.epoch, s->at.step}, info, err);
}

void mest_session_memory(const mest_session *s, int64_t *current_bytes, int64_t *peak_bytes)
{
    if (current_bytes)
        *current_bytes = atomic_load(&s->heap->current_bytes);
    if (peak_bytes)
        *peak_bytes = atomic_load(&s->heap->peak_bytes);
}

bool mest_session_pattern(const mest_session *s, int index, mest_pattern_info *info)
{
    if (!s || !info || info->struct_size < sizeof info->struct_size || index < 0 || index >= s->host.n_params)
        return false;
    const mest_host_param *p = &s->host.params[index];
    const mest_sparse *w = p->sparse;
    mest_pattern_info full = {.name = p->name, .parameter = s->host_param[index], .n_units = w->n_units, .n_active = w->active_units, .n_reserved = w->cap_units};
    full.density = (double)mest_sparse_nnz(w) / ((double)w->rows * (double)w->cols);
    if (s->host.account) {
        mest_watch_param *seen = &s->host.account->params[index];
        full.removed = seen->n_removed;
        full.grown = seen->n_grown;
        full.earlier = seen->n_earlier;
        full.survivors = seen->n_survivors;
        full.distance = mest_watch_distance(seen);
    }
    full.struct_size = info->struct_size < sizeof full ? info->struct_size : (uint32_t)sizeof full;
    memcpy(info, &full, full.struct_size);
    return true;
}

void mest_session_samples(const mest_session *s, int64_t *active, int64_t *total)
{
    if (active)
        *active = s->samples.active;
    if (total)
        *total = s->samples.count;
}
