/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: how they begin, what they hold, how they end. */
#include "runtime/session.h"

#include <string.h>

#include "runtime/channels.h"
#include "runtime/counter.h"
#include "runtime/cpu.h"
#include "runtime/snapshot.h"
#include "runtime/sparsify.h"
#include "runtime/tune.h"

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
    s->host.epochs = s->config.epochs;
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
        own.batch = mest_model_batch(model, MEST_DEFAULT_BATCH, NULL);
    MEST_TRY(mest_session_check_config(&own, err));
    MEST_TRY(mest_session_check_output(model, own.output, err));
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
                            &s->config.activations, &s->config.freeze_front, &s->config.recipe};
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
