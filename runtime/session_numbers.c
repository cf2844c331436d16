/* SPDX-License-Identifier: Apache-2.0 */
/* What a session says of itself: rates, sparsity, counts of a step, gradients, patterns, memory. */
#include "runtime/session.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "ops/loss.h"
#include "runtime/channels.h"
#include "runtime/snapshot.h"

static int64_t batches_of(const mest_session *s, int64_t samples)
{
    return samples <= 0 ? 0 : s->config.drop_last ? samples / s->config.batch : (samples - 1) / s->config.batch + 1;
}

int64_t mest_session_epochs(const mest_session *s)
{
    const mest_train_config *c = &s->config;
    if (c->max_steps == 0 || s->samples.count == 0)
        return c->epochs;
    const int64_t batches = batches_of(s, s->samples.count), n = batches > 0 ? (c->max_steps - 1) / batches + 1 : 0;
    return n > 0 && (c->epochs == 0 || n < c->epochs) ? n : c->epochs > 0 ? c->epochs : 1;
}

int64_t mest_session_batches(const mest_session *s) { return batches_of(s, s->samples.active); }

int64_t mest_session_steps(const mest_session *s)
{
    const int64_t most = s->config.max_steps, batches = batches_of(s, s->samples.count), epochs = s->config.epochs;
    if (batches == 0 || epochs == 0 || epochs > INT64_MAX / batches)
        return most;
    return most > 0 && most < epochs * batches ? most : epochs * batches;
}

double mest_session_lr(const mest_session *s, int64_t epoch, double fraction)
{
    const mest_train_config *c = &s->config;
    const bool placed = s->host.lr_epochs > 0; /* by a scheduler */
    /* a schedule goes by the epochs that were asked for, even if max_steps ends the run before */
    const int64_t epochs = placed ? s->host.lr_epochs : s->config.epochs > 0 ? s->config.epochs : mest_session_epochs(s);
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

void mest_session_check_target(mest_session *s)
{
    mest_model *m = s->model;
    double all = 0, stored = 0, wanted = 0, units = 0;
    for (int i = 0; i < m->n_params; i++) {
        const mest_sparse *sp = m->params[i].sparse;
        if (!sp || m->params[i].axes)
            continue;
        all += (double)sp->n_units * sp->unit_elements;
        stored += (double)sp->active_units * sp->unit_elements;
        wanted += (double)mest_sparse_units_at(sp, m->params[i].target_sparsity) * sp->unit_elements;
        units += 2 * sp->unit_elements; /* shares of a layer are rounded */
    }
    const double apart = stored - wanted;
    if ((apart < 0 ? -apart : apart) > units + .005 * all)
        mest_logf(&m->heap, MEST_LOG_WARNING, "the run ended with %.2f %% of its sparse weights stored, and %.2f %% were asked for: its scheduler was not done by then",
                  100 * stored / all, 100 * wanted / all);
}
