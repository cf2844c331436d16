/* SPDX-License-Identifier: Apache-2.0 */
/* The session of a served model: made, fed from the store, saved, taken up again. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/trainer_parts.h"
#include "whole_file.h"

enum { PATH_ROOM = DIR_PATH + 64 };

/* ---- what is on disk: training/checkpoint.mest, and training/state.json, which says of which file it is and whether training goes on ---- */
static void path_of(const trainer *t, char path[PATH_ROOM], const char *file) { snprintf(path, PATH_ROOM, "%s/training/%s", t->model->folder, file); }

/* The text of state.json; NULL: there is none. */
static cJSON *read_state(const trainer *t, int64_t *base)
{
    enum { MOST = 4096 };
    char path[PATH_ROOM], body[MOST];
    path_of(t, path, "state.json");
    *base = 0;
    FILE *f = fopen(path, "r");
    if (!f)
        return NULL;
    size_t n = fread(body, 1, sizeof body, f);
    fclose(f);
    fault ignored = {0};
    cJSON *json = json_read((const unsigned char *)body, n, &ignored);
    const cJSON *b = cJSON_GetObjectItemCaseSensitive(json, "base");
    if (cJSON_IsNumber(b) && b->valuedouble >= 1 && b->valuedouble < 1e15)
        *base = (int64_t)b->valuedouble;
    return json;
}

void session_recall(trainer *t)
{
    int64_t base;
    fault f = {0};
    cJSON *json = read_state(t, &base);
    const cJSON *changes = cJSON_GetObjectItemCaseSensitive(json, "settings"), *left = cJSON_GetObjectItemCaseSensitive(json, "rounds_left");
    if (base > 0 && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "running"))) {
        t->ends_at = cJSON_IsNumber(left) && left->valuedouble >= 0 && left->valuedouble < 1e15 ? (int64_t)left->valuedouble : 0;
        t->wanted = !left || t->ends_at > 0;
        if (changes && !settings_change(&t->settings, changes, &f)) { /* trained with others than was asked for, it would not be what was asked for */
            t->wanted = false;
            snprintf(t->note, sizeof t->note, "training does not go on, training/state.json: %.300s", f.text);
        }
    }
    cJSON_Delete(json);
}

/* With `saved`. */
static bool write_state(trainer *t, int64_t base, fault *f)
{
    char path[PATH_ROOM];
    text state = {0};
    pthread_mutex_lock(&t->lock);
    text_printf(&state, "{\"base\":%" PRId64 ",\"running\":%s", base, t->wanted ? "true" : "false");
    if (t->ends_at)
        text_printf(&state, ",\"rounds_left\":%" PRId64, t->ends_at - t->rounds);
    text_printf(&state, ",\"settings\":");
    settings_changes(&t->settings, &t->model->settings, &state);
    pthread_mutex_unlock(&t->lock);
    text_printf(&state, "}\n");
    path_of(t, path, "state.json");
    whole_file w;
    bool good = state.data || refuse(f, 503, "out of memory");
    good = good && ((whole_open(&w, path) && whole_close(&w, fputs(state.data, w.file) >= 0)) || refuse(f, 500, "%s: %s", path, strerror(errno)));
    text_free(&state);
    return good;
}

static bool save(trainer *t, fault *f)
{
    char path[PATH_ROOM];
    path_of(t, path, "");
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return refuse(f, 500, "%s: %s", path, strerror(errno));
    mest_error err;
    path_of(t, path, "checkpoint.mest");
    if (t->session && mest_session_checkpoint(t->session, path, &err) != MEST_OK)
        return refuse_error(f, &err);
    return write_state(t, t->engine->base, f);
}

bool session_save(trainer *t, fault *f)
{
    if (!t->engine)
        return session_note_wish(t, f);
    pthread_mutex_lock(&t->saved);
    pthread_mutex_lock(&t->lock);
    bool useless = t->restore || t->anew; /* rolled back meanwhile: only that training goes on, from the version that answers, is worth a word */
    pthread_mutex_unlock(&t->lock);
    engine *now = served_engine(t->model);
    bool good = useless ? write_state(t, now->base, f) : save(t, f);
    engine_release(now);
    pthread_mutex_unlock(&t->saved);
    return good;
}

bool session_note_wish(trainer *t, fault *f)
{
    int64_t base;
    pthread_mutex_lock(&t->saved);
    cJSON_Delete(read_state(t, &base));
    if (!base) {
        engine *now = served_engine(t->model);
        base = now->base;
        engine_release(now);
    }
    bool good = write_state(t, base, f);
    pthread_mutex_unlock(&t->saved);
    return good;
}

bool session_forget(trainer *t, int64_t base, fault *f)
{
    char path[PATH_ROOM];
    pthread_mutex_lock(&t->saved);
    path_of(t, path, "checkpoint.mest");
    unlink(path);
    path_of(t, path, "checkpoint.mest.prev");
    unlink(path);
    bool good = write_state(t, base, f);
    pthread_mutex_unlock(&t->saved);
    return good;
}

/* ---- the session ---- */
static void configure(const trainer *t, mest_train_config *c)
{
    const settings *s = &t->now;
    mest_train_config_init(c);
    c->batch = s->batch;
    c->epochs = t->model->settings.rounds ? t->model->settings.rounds : 1000000; /* what schedulers take for the length of the run */
    c->loss = s->loss;
    c->optimizer = s->optimizer;
    c->lr = s->lr;
    c->momentum = s->momentum;
    c->weight_decay = s->weight_decay;
    c->clip_norm = s->clip_norm;
    c->batch_norm = s->batch_norm;
    c->seed = (uint64_t)s->seed;
    c->threads = 1;
    c->output = *s->output ? s->output : NULL;
}

static bool expect(trainer *t, fault *f)
{
    mest_source_info info = {.struct_size = sizeof info, .n_inputs = t->spec.n_inputs, .has_targets = true, .n_classes = t->spec.n_classes,
                             .target_type = t->spec.classes ? MEST_SAMPLE_I64 : MEST_SAMPLE_F32};
    for (int i = 0; i < t->spec.out->rank; i++)
        if (!t->spec.classes || i != t->spec.class_axis)
            info.target_dim[info.target_rank++] = t->spec.out->dim[i];
    for (int k = 0; k < t->spec.n_inputs; k++) {
        const tensor_spec *s = &t->spec.in[k];
        info.input[k] = (mest_sample_input){.name = s->name, .type = sample_is_float(s) ? MEST_SAMPLE_F32 : MEST_SAMPLE_I64, .rank = s->rank};
        if (s->rank > MEST_SAMPLE_MAX_RANK)
            return refuse(f, 409, "input '%.80s' has too many axes to be trained", s->name);
        memcpy(info.input[k].dim, s->dim, (size_t)s->rank * sizeof *s->dim);
    }
    info.input_type = info.input[0].type;
    info.input_rank = info.input[0].rank;
    memcpy(info.input_dim, info.input[0].dim, sizeof info.input_dim);
    mest_error err;
    return mest_session_expect(t->session, &info, &err) == MEST_OK || refuse_error(f, &err);
}

static bool make_session(trainer *t, fault *f)
{
    mest_train_config c;
    configure(t, &c);
    mest_error err;
    if (mest_session_create(&t->session, t->engine->model, &c, &err) != MEST_OK
        || (*t->now.scheduler && mest_session_add_scheduler(t->session, t->now.scheduler, *t->now.scheduler_options ? t->now.scheduler_options : NULL, &err) != MEST_OK))
        return refuse_error(f, &err);
    return expect(t, f);
}

/* The engine that the checkpoint is of: the one that answers, or its file once more. */
static engine *engine_of_checkpoint(trainer *t, bool *resumes)
{
    int64_t base;
    cJSON_Delete(read_state(t, &base));
    *resumes = base > 0;
    engine *e = served_engine(t->model);
    if (!*resumes || e->base == base)
        return e;
    char folder[PATH_ROOM];
    fault f = {0};
    snprintf(folder, sizeof folder, "%s/%" PRId64, t->model->folder, base);
    engine *other = engine_load(folder, base, &t->now, &f);
    if (other) {
        engine_release(e);
        return other;
    }
    *resumes = false;
    trainer_note(t, "the file that the saved training began with is gone; training begins anew from the current version");
    return e;
}

static bool allocate(trainer *t)
{
    bool good = (t->sample = t->sample ? t->sample : malloc(t->spec.input_bytes)) != NULL;
    size_t batch = (size_t)t->now.batch;
    for (int k = 0; k < t->spec.n_inputs; k++)
        if (!t->inputs[k])
            good = (t->inputs[k] = malloc(batch * (size_t)t->spec.in[k].count * sizeof(int64_t))) != NULL && good;
    if (!t->targets)
        good = (t->targets = malloc(batch * t->spec.target_bytes)) != NULL && good;
    if (!t->measure)
        t->measure = measure_create(&t->spec, t->now.loss, t->now.max_batch < 64 ? t->now.max_batch : 64);
    return good && t->measure;
}

bool session_open(trainer *t, fault *f)
{
    if (!allocate(t))
        return refuse(f, 503, "out of memory");
    char path[PATH_ROOM], before[PATH_ROOM];
    path_of(t, path, "checkpoint.mest");
    path_of(t, before, "checkpoint.mest.prev");
    bool resumes = !t->fresh && (access(path, R_OK) == 0 || access(before, R_OK) == 0);
    t->engine = resumes ? engine_of_checkpoint(t, &resumes) : served_engine(t->model);
    t->fresh = false;
    if (!make_session(t, f)) {
        session_close(t);
        return false;
    }
    mest_error err;
    if (resumes && mest_session_resume(t->session, path, &err) != MEST_OK) {
        trainer_note(t, err.msg); /* other settings than before, or a damaged file: the weights that answer are what training goes on from */
        session_close(t);
        resumes = false;
        t->engine = served_engine(t->model);
        if (!make_session(t, f)) {
            session_close(t);
            return false;
        }
    }
    if (!resumes) /* the model's own weights may be those of a training that was given up */
        session_restore(t, served_version(t->model));
    int64_t steps = 0;
    mest_session_position(t->session, NULL, &steps);
    t->drawn = replay_mix((uint64_t)t->now.seed, (uint64_t)steps);
    t->in_round = 0;
    t->loss_sum = 0;
    return session_save(t, f);
}

void session_close(trainer *t)
{
    mest_session_destroy(t->session);
    engine_release(t->engine);
    t->session = NULL;
    t->engine = NULL;
}

bool session_restore(trainer *t, int64_t version)
{
    mest_snapshot *s = mest_model_acquire_id(t->engine->model, version);
    mest_error err;
    if (s && mest_session_restore(t->session, s, &err) != MEST_OK)
        trainer_note(t, err.msg);
    mest_snapshot_release(s);
    t->in_round = 0;
    t->loss_sum = 0;
    t->refusals = 0;
    return s != NULL;
}

/* ---- a step ---- */
static int64_t draw_batch(trainer *t)
{
    int64_t n = 0;
    for (int64_t tries = 0; n < t->now.batch && tries < 4 * t->now.batch; tries++) {
        if (!replay_read(t->store, false, replay_mix(t->drawn, 0), t->sample, (char *)t->targets + (size_t)n * t->spec.target_bytes)) {
            t->drawn++;
            continue;
        }
        t->drawn++;
        const unsigned char *at = t->sample;
        for (int k = 0; k < t->spec.n_inputs; k++) {
            size_t bytes = (size_t)t->spec.in[k].count * (sample_is_float(&t->spec.in[k]) ? sizeof(float) : sizeof(int64_t));
            memcpy((char *)t->inputs[k] + (size_t)n * bytes, at, bytes);
            at += bytes;
        }
        n++;
    }
    return n;
}

bool session_learn(trainer *t, fault *f)
{
    double begin = clock_ms();
    mest_error err;
    mest_metrics m = {.struct_size = sizeof m};
    if (mest_session_set_learning_rate(t->session, t->now.lr, &err) != MEST_OK)
        return refuse_error(f, &err);
    int64_t n = draw_batch(t);
    if (!n)
        return refuse(f, 500, "no sample of the store can be read");
    const void *inputs[MAX_TENSORS];
    for (int k = 0; k < t->spec.n_inputs; k++)
        inputs[k] = t->inputs[k];
    if (mest_session_step_inputs(t->session, inputs, t->targets, n, &m, &err) != MEST_OK)
        return refuse_error(f, &err);
    t->loss_sum += m.loss;
    t->in_round++;
    double ms = clock_ms() - begin;
    atomic_fetch_add(&t->model->metrics.steps, 1);
    atomic_fetch_add(&t->model->metrics.trained_samples, n);
    atomic_fetch_add(&t->model->metrics.training_us, (int64_t)(ms * 1e3));
    pthread_mutex_lock(&t->lock);
    t->steps++;
    t->loss = m.loss;
    pthread_mutex_unlock(&t->lock);
    trainer_yield(t);
    return true;
}
