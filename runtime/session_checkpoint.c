/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of a session. Sections:
 *   identity     lines "key=value": what must be equal for a resume to continue the same run
 *   state        where the run stands (mest_progress_state as numbers)
 *   frozen       only if a scheduler froze parameters: a byte each
 *   samples      active bits, then the classes seen
 *   pN           parameter N: values; sparse ones units first; then optimizer slots
 *   optimizer    only after a version was put back: steps done when its slots were cleared
 *   schedulers   their state
 *   schedule     only if a scheduler placed this epoch in the learning-rate schedule: epoch and number of epochs
 *   kernels      only if kernels were chosen by measurement: the times (session_tune.c)
 *   bf16         only if activations are stored as bfloat16
 *   part         only if steps are in parts: samples of one (session_parts.c)
 *   recipe       only if the caller gave one: its text (session_recipe.c)
 *   remembered   only if a scheduler remembers weights to go back to: the sparse parameters' values, then the others'
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "runtime/checkpoint.h"
#include "runtime/channels.h"
#include "runtime/head.h"
#include "runtime/session.h"

/* ---- identity ---- */
enum { IDENTITY_MAX = 8192 };

static uint32_t file_crc(mest_model *m)
{
    uint32_t crc = (uint32_t)crc32(0, NULL, 0);
    for (const mest_mapping *map = m->mappings; map; map = map->next)
        for (size_t at = 0; at < map->size;) {
            size_t n = map->size - at < MEST_FORGET_BYTES ? map->size - at : MEST_FORGET_BYTES;
            crc = (uint32_t)crc32(crc, map->bytes + at, (uInt)n);
            at += n;
            mest_model_forget(m);
        }
    return crc;
}

static int identity_text(mest_session *s, char *text, size_t size)
{
    const mest_train_config *c = &s->config;
    if (!s->have_file_crc) { /* the file does not change under us: once is enough */
        s->file_crc = file_crc(s->model);
        s->have_file_crc = true;
    }
    int n = snprintf(text, size,
                     "model crc=%08x\nbatch=%" PRId64 "\nshuffle=%d\ndrop_last=%d\nepochs=%" PRId64 "\nmax_steps=%" PRId64
                     "\nloss=%s\nlabel_smoothing=%.17g\noptimizer=%s\nlr=%.17g\nmomentum=%.17g\nnesterov=%d\nweight_decay=%.17g\nbeta1=%.17g\nbeta2=%.17g\neps=%.17g\n"
                     "no_decay=%s\nclip_norm=%.17g\nschedule=%s\nmin_lr=%.17g\ngamma=%.17g\nstep_epochs=%" PRId64 "\nwarmup_epochs=%" PRId64
                     "\nwarmup_lr=%.17g\nschedule_per_step=%d\nbatch_norm=%s\ndropout=%.17g\nseed=%" PRIu64 "\nsamples=%" PRId64 "\nparameters=%d\n",
                     s->file_crc, c->batch, c->shuffle, c->drop_last, c->epochs, c->max_steps, c->loss, c->label_smoothing, c->optimizer, c->lr, c->momentum,
                     c->nesterov, c->weight_decay, c->beta1, c->beta2, c->eps, c->no_decay ? c->no_decay : "", c->clip_norm, c->schedule, c->min_lr, c->gamma,
                     c->step_epochs, c->warmup_epochs, c->warmup_lr, c->schedule_per_step, c->batch_norm, c->dropout, c->seed, s->samples.count, s->model->n_params);
    const mest_graph *graph = &s->model->graph;
    const bool other = c->output && graph->n_outputs > 0 && strcmp(c->output, graph->values[graph->outputs[0]].name) != 0;
    if (other && n > 0 && (size_t)n < size)
        n += snprintf(text + n, size - (size_t)n, "output=%.200s\n", c->output);
    if (strcmp(c->bn_stats, "pytorch") && n > 0 && (size_t)n < size)
        n += snprintf(text + n, size - (size_t)n, "bn_stats=%s\n", c->bn_stats);
    if (s->model->head && n > 0 && (size_t)n < size)
        n += snprintf(text + n, size - (size_t)n, "head=%" PRId64 " classes\n", s->model->head->classes);
    if (c->lr_decay > 0 && n > 0 && (size_t)n < size)
        n += snprintf(text + n, size - (size_t)n, "lr_decay=%.17g\n", c->lr_decay);
    if (c->ignore_index != -100 && n > 0 && (size_t)n < size)
        n += snprintf(text + n, size - (size_t)n, "ignore_index=%" PRId64 "\n", c->ignore_index);
    for (int i = 0; i < s->model->n_params && n > 0 && (size_t)n < size; i++) {
        const mest_param *p = &s->model->params[i];
        if (p->sparse || p->role == MEST_ROLE_FROZEN)
            n += snprintf(text + n, size - (size_t)n, "%.40s=%s %.6g%s\n", p->name, p->sparse ? p->sparse->name : "dense", p->target_sparsity,
                          p->role == MEST_ROLE_FROZEN ? " frozen" : "");
        if (p->sparse && n > 0 && (size_t)n < size && p->sparse->choices > 1 && memcmp(&p->sparse->patterns, mest_patterns_default(), sizeof(mest_patterns)))
            for (int k = 0; k < p->sparse->choices && (size_t)n < size; k++) /* a mask's number says which one it is of these */
                n += snprintf(text + n, size - (size_t)n, "%s%03x%s", k ? " " : "masks ", p->sparse->patterns.mask[k], k + 1 < p->sparse->choices ? "" : "\n");
    }
    for (int g = 0; s->model->channels && g < s->model->channels->n_groups && n > 0 && (size_t)n < size; g++)
        n += snprintf(text + n, size - (size_t)n, "%.60s=%s %.6g\n", s->model->channels->group[g].name, s->model->channels->group[g].units->name,
                      s->model->channels->group[g].target);
    return n;
}

/* ---- writing ---- */
typedef struct stream {
    mest_checkpoint_writer *writer;
    mest_section *section;
    mest_error *err;
} stream;

static mest_status write_bytes(void *self, void *bytes, size_t n)
{
    stream *st = self;
    return mest_checkpoint_append(st->writer, bytes, n, st->err);
}

static mest_status read_bytes(void *self, void *bytes, size_t n)
{
    stream *st = self;
    return mest_section_read(st->section, bytes, n, st->err);
}

static mest_status write_param(mest_session *s, mest_checkpoint_writer *w, int index, mest_error *err)
{
    const mest_param *p = &s->model->params[index];
    char name[32];
    snprintf(name, sizeof name, "p%d", index);
    MEST_TRY(mest_checkpoint_begin(w, name, err));
    int64_t stored = mest_param_stored(p), units = p->sparse ? p->sparse->active_units : -1;
    MEST_TRY(mest_checkpoint_append(w, &units, sizeof units, err));
    MEST_TRY(mest_checkpoint_append(w, &stored, sizeof stored, err));
    for (int64_t at = 0; at < units; at += 512) {
        int64_t chunk[512], n = units - at < 512 ? units - at : 512;
        p->sparse->format->units(p->sparse, at, n, chunk);
        MEST_TRY(mest_checkpoint_append(w, chunk, (size_t)n * sizeof *chunk, err));
    }
    MEST_TRY(mest_checkpoint_append(w, mest_param_data(p), (size_t)stored * sizeof(mest_real), err));
    const mest_param_state *state = s->optimizer.state ? &s->optimizer.state[index] : NULL;
    for (int k = 0; k < MEST_OPTIM_SLOTS; k++) {
        uint8_t have = state && state->slot[k];
        MEST_TRY(mest_checkpoint_append(w, &have, 1, err));
        if (have)
            MEST_TRY(mest_checkpoint_append(w, state->slot[k], (size_t)stored * sizeof(mest_real), err));
    }
    return mest_checkpoint_end(w, err);
}

/* Which channels are there: number and units of each group. */
static mest_status write_channels(const mest_channels *c, mest_checkpoint_writer *w, mest_error *err)
{
    MEST_TRY(mest_checkpoint_begin(w, "channels", err));
    for (int32_t g = 0; g < c->n_groups; g++) {
        const mest_sparse *units = c->group[g].units;
        MEST_TRY(mest_checkpoint_append(w, &units->active_units, sizeof units->active_units, err));
        for (int64_t i = 0, id; i < units->active_units; i++) {
            units->format->units(units, i, 1, &id);
            MEST_TRY(mest_checkpoint_append(w, &id, sizeof id, err));
        }
    }
    return mest_checkpoint_end(w, err);
}

static mest_status write_all(mest_session *s, mest_checkpoint_writer *w, const char *identity, size_t n, mest_error *err)
{
    MEST_TRY(mest_checkpoint_put(w, "identity", identity, n, err));
    const mest_progress_state *a = &s->at;
    int64_t numbers[8] = {a->epoch, a->batch, a->step, a->rows, a->hits, a->class_rows, a->epoch_open, a->snapshot_grads};
    MEST_TRY(mest_checkpoint_begin(w, "state", err));
    MEST_TRY(mest_checkpoint_append(w, numbers, sizeof numbers, err));
    MEST_TRY(mest_checkpoint_append(w, &a->loss_sum, sizeof a->loss_sum, err));
    MEST_TRY(mest_checkpoint_end(w, err));
    if (s->frozen)
        MEST_TRY(mest_checkpoint_put(w, "frozen", s->frozen, (size_t)s->model->n_params, err));
    MEST_TRY(mest_checkpoint_begin(w, "samples", err));
    if (s->samples.count) {
        MEST_TRY(mest_checkpoint_append(w, s->samples.bits, (size_t)(s->samples.count + 7) / 8, err));
        MEST_TRY(mest_checkpoint_append(w, s->classes, (size_t)s->samples.count * sizeof *s->classes, err));
    }
    MEST_TRY(mest_checkpoint_end(w, err));
    if (s->model->channels)
        MEST_TRY(write_channels(s->model->channels, w, err));
    for (int i = 0; i < s->model->n_params; i++)
        if (s->model->params[i].role != MEST_ROLE_CONSTANT)
            MEST_TRY(write_param(s, w, i, err));
    if (s->optimizer.since)
        MEST_TRY(mest_checkpoint_put(w, "optimizer", &s->optimizer.since, sizeof s->optimizer.since, err));
    MEST_TRY(mest_checkpoint_begin(w, "schedulers", err));
    stream st = {.writer = w, .err = err};
    MEST_TRY(mest_schedulers_save(s->schedulers, write_bytes, &st, err));
    MEST_TRY(mest_checkpoint_end(w, err));
    if (s->host.lr_epochs) {
        const int64_t place[2] = {s->host.lr_epoch, s->host.lr_epochs};
        MEST_TRY(mest_checkpoint_put(w, "schedule", place, sizeof place, err));
    }
    MEST_TRY(mest_session_write_tuning(s, w, err));
    MEST_TRY(mest_session_write_part(s, w, err));
    MEST_TRY(mest_session_write_recipe(s, w, err));
    if (mest_session_remembers(s)) {
        MEST_TRY(mest_checkpoint_begin(w, "remembered", err));
        MEST_TRY(mest_session_write_remembered(s, write_bytes, &st));
        MEST_TRY(mest_checkpoint_end(w, err));
    }
    if (!s->host.account)
        return MEST_OK;
    MEST_TRY(mest_checkpoint_begin(w, "watch", err));
    MEST_TRY(mest_watch_save(s->host.account, write_bytes, &st, err));
    return mest_checkpoint_end(w, err);
}

mest_status mest_session_checkpoint(mest_session *s, const char *path, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && path, err, MEST_E_ARGUMENT, "checkpoint: session and path must be given");
    MEST_TRY(mest_session_prepare(s, err));
    char *identity = mest_alloc(s->heap, IDENTITY_MAX, 1);
    MEST_CHECK(identity, err, MEST_E_NOMEM, "checkpoint: out of memory");
    int n = identity_text(s, identity, IDENTITY_MAX);
    if (n >= IDENTITY_MAX)
        n = IDENTITY_MAX - 1; /* many layers: the first 8 KB decide, counts of parameters are among them */
    mest_checkpoint_writer *w;
    mest_status status = mest_checkpoint_create(&w, s->heap, path, err);
    if (status == MEST_OK) {
        status = write_all(s, w, identity, (size_t)n, err);
        if (status == MEST_OK)
            status = mest_checkpoint_commit(w, err);
        else
            mest_checkpoint_abort(w);
    }
    mest_free(s->heap, identity, IDENTITY_MAX, 1);
    return status;
}

/* ---- reading ---- */
static mest_status read_param(mest_session *s, const mest_checkpoint *file, int index, mest_error *err)
{
    mest_param *p = &s->model->params[index];
    char name[32];
    snprintf(name, sizeof name, "p%d", index);
    mest_section sec;
    MEST_TRY(mest_section_find(&sec, file, name, err));
    int64_t units, stored;
    MEST_TRY(mest_section_read(&sec, &units, sizeof units, err));
    MEST_TRY(mest_section_read(&sec, &stored, sizeof stored, err));
    const char *path = mest_checkpoint_path(file);
    if (p->sparse) {
        mest_sparse *sp = p->sparse;
        MEST_CHECK(units >= 0 && units <= sp->cap_units && stored == units * sp->unit_elements, err, MEST_E_FORMAT,
                   "checkpoint '%s': parameter '%s' has %" PRId64 " units, at most %" PRId64 " fit", path, p->name, units, sp->cap_units);
        const void *ids, *values;
        MEST_TRY(mest_section_lend(&sec, &ids, (size_t)units * sizeof(int64_t), err));
        MEST_TRY(mest_section_lend(&sec, &values, (size_t)stored * sizeof(mest_real), err));
        MEST_TRY(mest_sparse_from_units(sp, ids, units, values, err));
    } else {
        MEST_CHECK(units == -1 && stored == p->count, err, MEST_E_FORMAT, "checkpoint '%s': parameter '%s' has another size or scheme", path, p->name);
        MEST_TRY(mest_section_read(&sec, p->values, (size_t)stored * sizeof(mest_real), err));
        p->value_version++;
    }
    mest_param_state *state = &s->optimizer.state[index];
    for (int k = 0; k < MEST_OPTIM_SLOTS; k++) {
        uint8_t have;
        MEST_TRY(mest_section_read(&sec, &have, 1, err));
        MEST_CHECK((have != 0) == (state->slot[k] != NULL), err, MEST_E_FORMAT, "checkpoint '%s': optimizer state of '%s' does not fit", path, p->name);
        if (have)
            MEST_TRY(mest_section_read(&sec, state->slot[k], (size_t)stored * sizeof(mest_real), err));
    }
    return mest_section_finish(&sec, err);
}

static mest_status read_channels(mest_model *m, const mest_checkpoint *file, mest_error *err)
{
    mest_section sec;
    MEST_TRY(mest_section_find(&sec, file, "channels", err));
    for (int32_t g = 0; g < m->channels->n_groups; g++) {
        mest_sparse *units = m->channels->group[g].units;
        int64_t n;
        const void *ids;
        MEST_TRY(mest_section_read(&sec, &n, sizeof n, err));
        MEST_CHECK(n >= 0 && n <= units->cap_units, err, MEST_E_FORMAT, "checkpoint '%s': %s: %" PRId64 " units, at most %" PRId64 " fit",
                   mest_checkpoint_path(file), m->channels->group[g].name, n, units->cap_units);
        MEST_TRY(mest_section_lend(&sec, &ids, (size_t)n * sizeof(int64_t), err));
        MEST_TRY(mest_sparse_from_units(units, ids, n, NULL, err));
    }
    mest_channels_resize(m);
    return mest_section_finish(&sec, err);
}

static mest_status read_samples(mest_session *s, const mest_checkpoint *file, mest_error *err)
{
    mest_section sec;
    MEST_TRY(mest_section_find(&sec, file, "samples", err));
    int64_t n = s->samples.count;
    if (n) {
        MEST_TRY(mest_section_read(&sec, s->samples.bits, (size_t)(n + 7) / 8, err));
        MEST_TRY(mest_section_read(&sec, s->classes, (size_t)n * sizeof *s->classes, err));
        s->samples.active = 0;
        for (int64_t i = 0; i < n; i++)
            s->samples.active += mest_sample_active(&s->samples, i);
    }
    return mest_section_finish(&sec, err);
}

/* What schedulers that go back left: this epoch's place in the schedule, the copy of the weights. */
static mest_status read_rewind(mest_session *s, const mest_checkpoint *file, mest_error *err)
{
    mest_section sec;
    stream st = {.section = &sec, .err = err};
    int64_t place[2] = {0, 0};
    if (mest_section_exists(file, "schedule")) {
        MEST_TRY(mest_section_find(&sec, file, "schedule", err));
        MEST_TRY(mest_section_read(&sec, place, sizeof place, err));
        MEST_TRY(mest_section_finish(&sec, err));
        MEST_CHECK(place[0] >= 0 && place[0] < place[1], err, MEST_E_FORMAT, "checkpoint '%s': epoch %" PRId64 " of %" PRId64 " in its schedule", mest_checkpoint_path(file),
                   place[0], place[1]);
    }
    s->host.lr_epoch = place[0];
    s->host.lr_epochs = place[1];
    if (!mest_section_exists(file, "remembered"))
        return MEST_OK;
    MEST_TRY(mest_section_find(&sec, file, "remembered", err));
    MEST_TRY(mest_session_read_remembered(s, read_bytes, &st, err));
    return mest_section_finish(&sec, err);
}

static mest_status read_all(mest_session *s, const mest_checkpoint *file, char *identity, mest_error *err)
{
    mest_section sec;
    MEST_TRY(mest_section_find(&sec, file, "identity", err));
    const void *text;
    char *theirs = identity + IDENTITY_MAX;
    MEST_CHECK(sec.size < IDENTITY_MAX, err, MEST_E_FORMAT, "checkpoint '%s': its identity is too long", mest_checkpoint_path(file));
    MEST_TRY(mest_section_lend(&sec, &text, sec.size, err));
    memcpy(theirs, text, sec.size);
    theirs[sec.size] = 0;
    /* the number of samples comes from the checkpoint when no source was seen yet */
    const char *samples = strstr(theirs, "\nsamples=");
    int64_t n_samples = 0;
    if (samples && sscanf(samples, "\nsamples=%" SCNd64, &n_samples) == 1 && s->samples.count == 0 && n_samples > 0 && n_samples < (int64_t)1 << 40) {
        mest_section probe;
        MEST_TRY(mest_section_find(&probe, file, "samples", err));
        MEST_CHECK(probe.size == (size_t)(n_samples + 7) / 8 + (size_t)n_samples * sizeof *s->classes, err, MEST_E_FORMAT,
                   "checkpoint '%s': its samples do not fit", mest_checkpoint_path(file));
        MEST_TRY(mest_sample_set_create(&s->samples, s->heap, n_samples, err));
        s->classes = mest_alloc(s->heap, (size_t)n_samples, sizeof *s->classes);
        MEST_CHECK(s->classes, err, MEST_E_NOMEM, "resume: out of memory");
    }
    identity_text(s, identity, IDENTITY_MAX);
    MEST_TRY(mest_session_compare_lines(theirs, strlen(theirs), identity, mest_checkpoint_path(file), err));
    MEST_TRY(mest_session_compare_recipe(s, file, err));
    MEST_TRY(mest_section_find(&sec, file, "state", err));
    int64_t numbers[8];
    double loss_sum;
    MEST_TRY(mest_section_read(&sec, numbers, sizeof numbers, err));
    MEST_TRY(mest_section_read(&sec, &loss_sum, sizeof loss_sum, err));
    MEST_TRY(mest_section_finish(&sec, err));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) /* 2^53 steps are more than any run has; sums of such numbers do not overflow */
        MEST_CHECK(numbers[i] >= 0 && numbers[i] <= (int64_t)1 << 53, err, MEST_E_FORMAT, "checkpoint '%s': section 'state': number %zu is %" PRId64,
                   mest_checkpoint_path(file), i, numbers[i]);
    MEST_TRY(read_samples(s, file, err));
    if (s->model->channels)
        MEST_TRY(read_channels(s->model, file, err));
    if (mest_section_exists(file, "frozen")) { /* before the parameters: frozen ones have no slots */
        const void *frozen;
        MEST_TRY(mest_section_find(&sec, file, "frozen", err));
        MEST_TRY(mest_section_lend(&sec, &frozen, (size_t)s->model->n_params, err));
        MEST_TRY(mest_section_finish(&sec, err));
        MEST_TRY(mest_session_set_frozen(s, frozen, err));
    }
    for (int i = 0; i < s->model->n_params; i++)
        if (s->model->params[i].role != MEST_ROLE_CONSTANT)
            MEST_TRY(read_param(s, file, i, err));
    s->optimizer.since = 0;
    if (mest_section_exists(file, "optimizer")) {
        MEST_TRY(mest_section_find(&sec, file, "optimizer", err));
        MEST_TRY(mest_section_read(&sec, &s->optimizer.since, sizeof s->optimizer.since, err));
        MEST_TRY(mest_section_finish(&sec, err));
        MEST_CHECK(s->optimizer.since >= 0 && s->optimizer.since <= numbers[2], err, MEST_E_FORMAT, "checkpoint '%s': its optimizer is ahead of its steps",
                   mest_checkpoint_path(file));
    }
    MEST_TRY(mest_section_find(&sec, file, "schedulers", err));
    stream st = {.section = &sec, .err = err};
    MEST_TRY(mest_schedulers_load(s->schedulers, read_bytes, &st, err));
    MEST_TRY(mest_section_finish(&sec, err));
    MEST_TRY(read_rewind(s, file, err));
    MEST_TRY(mest_session_read_tuning(s, file, err));
    MEST_TRY(mest_session_read_part(s, file, err));
    if (s->host.account && mest_section_exists(file, "watch")) { /* without one the patterns of the checkpoint are the beginning */
        MEST_TRY(mest_section_find(&sec, file, "watch", err));
        MEST_TRY(mest_watch_load(s->host.account, read_bytes, &st, err));
        MEST_TRY(mest_section_finish(&sec, err));
    } else if (s->host.account) {
        MEST_TRY(mest_watch_restart(s->host.account, err));
    }
    s->at = (mest_progress_state){.epoch = numbers[0], .batch = numbers[1], .step = numbers[2], .rows = numbers[3], .hits = numbers[4], .class_rows = numbers[5],
                                  .epoch_open = numbers[6] != 0, .snapshot_grads = numbers[7] != 0, .loss_sum = loss_sum};
    return MEST_OK;
}

mest_status mest_session_resume(mest_session *s, const char *path, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && path, err, MEST_E_ARGUMENT, "resume: session and path must be given");
    MEST_CHECK(s->at.step == 0 && s->at.epoch == 0, err, MEST_E_STATE, "resume: the session has trained already");
    MEST_TRY(mest_session_prepare(s, err));
    mest_checkpoint *file;
    MEST_TRY(mest_checkpoint_open_latest(&file, s->heap, path, err));
    char *identity = mest_alloc(s->heap, 2 * IDENTITY_MAX, 1);
    mest_status status = identity ? read_all(s, file, identity, err) : mest_fail(err, MEST_E_NOMEM, "resume: out of memory");
    mest_free(s->heap, identity, 2 * IDENTITY_MAX, 1);
    mest_checkpoint_close(file);
    s->model->folds_measured |= status == MEST_OK && s->at.step > 0;
    return status;
}
