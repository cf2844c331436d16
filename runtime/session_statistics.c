/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics of BatchNormalization over a data set, outside of training steps. */
#include <inttypes.h>
#include <string.h>

#include "runtime/session.h"

/* BatchNormalization nodes of the program that use, and track, the statistics of the batch. */
static int tracked(const mest_program *p)
{
    int n = 0;
    for (mest_id i = 0; i < p->graph.n_nodes; i++)
        n += !strcmp(p->graph.nodes[i].op->name, "mest.BatchNormTrain");
    return n;
}

/* Every part of a batch counts alike; *number: parts so far. */
static mest_status track(mest_session *s, const mest_batch *b, int64_t step, int64_t *number, int *n_layers, mest_error *err)
{
    *n_layers = 0;
    for (int32_t k = 0; k < mest_session_n_parts(s, b->n); k++) {
        mest_part part;
        mest_run run = {.seed = s->config.seed, .step = (uint64_t)(s->at.step + step), .bn_weight = 1.0 / (double)(*number + 1)};
        MEST_TRY(mest_session_part(s, b->inputs, b->targets, b->n, k, &part, err));
        run.first = part.first;
        run.samples = part.n;
        *n_layers = tracked(part.program);
        if (*n_layers)
            MEST_TRY(mest_program_run(part.program, &run, true, err));
        ++*number;
    }
    return MEST_OK;
}

mest_status mest_session_recompute_statistics(mest_session *s, const mest_source *source, int64_t batches, int *n_layers, mest_error *err)
{
    mest_error_clear(err);
    if (n_layers)
        *n_layers = 0;
    MEST_CHECK(s && source && source->info && batches >= 0, err, MEST_E_ARGUMENT, "recompute: session and source must be given, batches not negative");
    MEST_TRY(mest_session_settle_unfolded(s, source, err));
    mest_loader *loader;
    MEST_TRY(mest_loader_create(&loader, s->heap, source, s->config.batch, err));
    const mest_source_info *info = mest_loader_info(loader);
    mest_status status = info->has_targets ? mest_session_set_source(s, info, err) : mest_fail(err, MEST_E_DATA, "recompute: the data set has no targets");
    mest_loader_plan plan = {.seed = s->config.seed, .epoch = s->at.epoch, .shuffle = s->config.shuffle, .augment = true, .drop_last = s->config.drop_last};
    if (status == MEST_OK)
        status = mest_loader_begin(loader, NULL, &plan, err);
    int64_t parts = 0;
    for (int64_t k = 0; status == MEST_OK && (batches == 0 || k < batches); k++) {
        mest_batch b;
        int layers;
        status = mest_loader_next(loader, &b, err);
        if (status != MEST_OK || b.n == 0)
            break;
        status = track(s, &b, k, &parts, &layers, err);
        if (status == MEST_OK && k == 0 && n_layers)
            *n_layers = layers;
        if (status == MEST_OK && layers == 0)
            break;
        if (status == MEST_OK && atomic_load(&s->cancelled))
            status = mest_fail(err, MEST_E_CANCELLED, "stopped while statistics were estimated, after %" PRId64 " batches", k + 1);
    }
    mest_loader_destroy(loader);
    return status;
}

enum { MEASURED_SAMPLES = 2048 };

static mest_status measure(mest_session *s, const mest_source *source, int64_t samples, mest_error *err)
{
    mest_loader *loader;
    MEST_TRY(mest_loader_create(&loader, s->heap, source, s->config.eval_batch, err));
    mest_loader_plan plan = {.seed = s->config.seed, .shuffle = true}; /* a set may lie sorted by class */
    mest_status status = mest_session_set_source(s, mest_loader_info(loader), err);
    if (status == MEST_OK)
        status = mest_loader_begin(loader, NULL, &plan, err);
    for (int64_t seen = 0; status == MEST_OK && (samples == 0 || seen < samples);) {
        mest_batch b;
        mest_program *p;
        status = mest_loader_next(loader, &b, err);
        if (status != MEST_OK || b.n == 0)
            break;
        status = mest_session_program(s, MEST_PROGRAM_INFER, b.n, &p, err);
        seen += b.n;
        mest_run run = {.seed = s->config.seed, .bn_weight = (double)b.n / (double)seen};
        if (status == MEST_OK)
            status = mest_session_feed(s, p, b.inputs, err);
        if (status == MEST_OK)
            status = mest_program_run(p, &run, false, err);
        if (status == MEST_OK && atomic_load(&s->cancelled))
            status = mest_fail(err, MEST_E_CANCELLED, "stopped while unfolded layers were measured, after %" PRId64 " samples", seen);
    }
    mest_loader_destroy(loader);
    return status;
}

mest_status mest_session_measure_unfolded(mest_session *s, const mest_source *source, int64_t samples, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && source && source->info && samples >= 0, err, MEST_E_ARGUMENT, "measure: session and source must be given, samples not negative");
    mest_model *m = s->model;
    MEST_CHECK(!m->folds_measured, err, MEST_E_STATE, "measure: the unfolded layers have statistics already");
    if (m->n_folds == 0)
        return MEST_OK;
    for (int32_t i = 0; i < m->n_folds; i++)
        memset(m->folds[i].measured, 0, 2 * (size_t)m->params[m->folds[i].scale].count * sizeof *m->folds[i].measured);
    mest_session_drop_programs(s);
    s->measuring = true;
    mest_status status = measure(s, source, samples, err);
    s->measuring = false;
    mest_session_drop_programs(s);
    if (status == MEST_OK)
        mest_fold_measured(m);
    return status;
}

mest_status mest_session_settle_unfolded(mest_session *s, const mest_source *source, mest_error *err)
{
    if (s->model->n_folds == 0 || s->model->folds_measured)
        return MEST_OK;
    MEST_CHECK(source, err, MEST_E_STATE, "BatchNormalization was unfolded behind %d layers: call mest_session_measure_unfolded before the first step", s->model->n_folds);
    return mest_session_measure_unfolded(s, source, MEASURED_SAMPLES, err);
}
