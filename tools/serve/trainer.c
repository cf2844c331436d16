/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that trains, and what requests may ask of it. */
#include "serve/trainer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "serve/trainer_parts.h"

void trainer_note(trainer *t, const char *note)
{
    pthread_mutex_lock(&t->lock);
    snprintf(t->note, sizeof t->note, "%s", note);
    pthread_mutex_unlock(&t->lock);
}

bool trainer_interrupted(trainer *t)
{
    pthread_mutex_lock(&t->lock);
    bool yes = t->quit || !t->wanted || t->restore || t->anew;
    pthread_mutex_unlock(&t->lock);
    return yes;
}

static void set_state(trainer *t, const char *state)
{
    pthread_mutex_lock(&t->lock);
    t->state = state;
    pthread_mutex_unlock(&t->lock);
}

/* Sleeps until then, or until something is to be done. */
static void sleep_until(trainer *t, double until)
{
    pthread_mutex_lock(&t->lock);
    while (!t->quit && t->wanted && !t->restore && !t->anew && clock_ms() < until)
        clock_wait(&t->changed, &t->lock, until);
    pthread_mutex_unlock(&t->lock);
}

void trainer_yield(trainer *t)
{
    enum { LOOK_MS = 2 };
    double begin = clock_ms();
    if (t->now.duty < 1)
        sleep_until(t, begin + (begin - t->worked_since) * (1 / t->now.duty - 1));
    double paused = clock_ms();
    bool any = false;
    while (batcher_load(t->model->batcher) > t->now.pause_waiting && (t->now.pause_at_most_ms <= 0 || clock_ms() - begin < t->now.pause_at_most_ms) && !trainer_interrupted(t)) {
        if (!any)
            set_state(t, "paused");
        any = true;
        sleep_until(t, clock_ms() + LOOK_MS);
    }
    if (any) {
        set_state(t, "training");
        atomic_fetch_add(&t->model->metrics.paused_us, (int64_t)((clock_ms() - paused) * 1e3));
    }
    t->worked_since = clock_ms();
}

static void told(void *user, const char *why)
{
    trainer *t = user;
    set_state(t, why ? "paused" : "training");
    trainer_note(t, why ? why : "");
}

/* A file, the battery, the heat. Woken, it looks around as after any step. */
static void rest_as_guest(trainer *t)
{
    if (t->guest && mest_guest_rest(t->guest, told, t) != MEST_GUEST_GO)
        set_state(t, "training");
    t->worked_since = clock_ms();
}

/* With the lock: something is to be done. */
static void wake(trainer *t)
{
    pthread_cond_broadcast(&t->changed);
    if (t->guest)
        mest_guest_wake(t->guest);
}

static bool make_guest(trainer *t, fault *f)
{
    const settings *s = &t->settings;
    if (!*s->pause_file && s->min_battery <= 0 && s->max_temperature <= 0)
        return true;
    mest_guest_options o;
    mest_guest_options_init(&o);
    o.pause_file = *s->pause_file ? s->pause_file : NULL;
    o.min_battery = s->min_battery;
    o.max_temperature = s->max_temperature;
    o.sys_root = s->sys_root;
    o.poll_seconds = 0.2;
    mest_error err;
    return mest_guest_create(&t->guest, &o, &err) == MEST_OK || refuse_error(f, &err);
}

/* ---- the thread ---- */
static bool enough_samples(trainer *t)
{
    int64_t training = replay_count(t->store, false), testing = replay_count(t->store, true);
    return training > 0 && testing > 0 && training + testing >= t->now.min_samples;
}

static bool advance(trainer *t, fault *f)
{
    pthread_mutex_lock(&t->lock);
    t->now = t->settings;
    int64_t restore = t->restore;
    t->restore = 0;
    t->fresh = t->fresh || t->anew;
    t->anew = false;
    pthread_mutex_unlock(&t->lock);
    if (t->fresh && t->session)
        session_close(t);
    if (!enough_samples(t)) {
        set_state(t, "waiting for samples");
        sleep_until(t, clock_ms() + 100);
        return true;
    }
    if (!t->session) {
        t->worked_since = clock_ms();
        if (!session_open(t, f))
            return false;
    }
    if (restore && !session_restore(t, restore)) { /* it is of the engine that answers: train on there */
        t->fresh = true;
        return true;
    }
    set_state(t, "training");
    if (!session_learn(t, f))
        return false;
    rest_as_guest(t);
    if (t->in_round < t->now.round_steps)
        return true;
    if (!round_end(t, f))
        return false;
    pthread_mutex_lock(&t->lock);
    if (t->ends_at && t->rounds >= t->ends_at) {
        t->wanted = false;
        snprintf(t->note, sizeof t->note, "all rounds are done");
    }
    pthread_mutex_unlock(&t->lock);
    return true;
}

static void stop_session(trainer *t)
{
    fault f = {0};
    pthread_mutex_lock(&t->lock);
    bool useless = t->anew;
    int64_t restore = t->restore;
    if (t->session)
        t->restore = 0;
    pthread_mutex_unlock(&t->lock);
    if (t->session && !useless && restore) /* a roll back came in the last step: what is saved has to be of there */
        useless = !session_restore(t, restore);
    if (useless)
        session_close(t);
    if (!session_save(t, &f))
        trainer_note(t, f.text);
    session_close(t);
    set_state(t, "idle");
}

static void *train(void *argument)
{
    trainer *t = argument;
    /* On Linux a thread has a niceness of its own, by its thread id. */
    if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), (int)t->model->settings.nice) != 0)
        trainer_note(t, "the niceness of the training thread could not be set");
    for (bool at_work = false;;) { /* waiting for samples is work, too */
        pthread_mutex_lock(&t->lock);
        while (!t->quit && !t->wanted && !at_work)
            pthread_cond_wait(&t->changed, &t->lock);
        bool quit = t->quit, wanted = t->wanted;
        pthread_mutex_unlock(&t->lock);
        if (quit || !wanted) {
            if (at_work)
                stop_session(t);
            at_work = false;
            if (quit)
                break;
            continue;
        }
        fault f = {0};
        at_work = true;
        if (advance(t, &f))
            continue;
        trainer_note(t, f.text); /* training ends, answering goes on */
        pthread_mutex_lock(&t->lock);
        t->wanted = false;
        pthread_mutex_unlock(&t->lock);
    }
    return NULL;
}

/* ---- life ---- */
static uint64_t shape_key(const sample_spec *s) /* FNV-1a of what a sample means */
{
    text all = {0};
    for (int k = 0; k < s->n_inputs; k++) {
        text_quote(&all, s->in[k].name);
        text_add(&all, s->in[k].datatype, strlen(s->in[k].datatype));
        tensor_shape(&all, s->in[k].rank, s->in[k].dim, -1);
    }
    text_quote(&all, s->out->name);
    text_printf(&all, "%d", s->classes);
    tensor_shape(&all, s->out->rank, s->out->dim, -1);
    if (s->points > 1)
        text_printf(&all, "axis %d", s->class_axis);
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < all.size; i++)
        h = (h ^ (unsigned char)all.data[i]) * 0x100000001B3u;
    text_free(&all);
    return h;
}

static bool open_store(trainer *t, fault *f)
{
    const served *m = t->model;
    char path[DIR_PATH + 64];
    snprintf(path, sizeof path, "%s/training", m->folder);
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return refuse(f, 500, "%s: %s", path, strerror(errno));
    snprintf(path, sizeof path, "%s/training/samples.mest", m->folder);
    replay_options o = {.input_bytes = t->spec.input_bytes, .target_bytes = t->spec.target_bytes, .shape_key = shape_key(&t->spec), .max_bytes = m->settings.replay_bytes,
                        .sample = !strcmp(m->settings.replay_keep, "sample"), .hold_out = m->settings.hold_out, .seed = (uint64_t)m->settings.seed};
    t->store = replay_open(path, &o, f);
    if (!t->store)
        return false;
    version_dirs_clean(m->folder); /* the store is locked: no other process is at work here */
    snprintf(path, sizeof path, "%s/training", m->folder);
    version_dirs_clean(path);
    return true;
}

/* What samples look like: as what is served, with lengths for the free axes. */
static bool describe(trainer *t, fault *f)
{
    const served *m = t->model;
    input_shapes shapes = {{0}};
    memcpy(t->in, m->in, sizeof t->in);
    t->out = m->out[m->target];
    if (m->engine->open) {
        if (!*m->settings.sample_shape)
            return refuse(f, 409, "the file leaves axes of its inputs free: \"sample_shape\" in config.json says how long they are in training");
        if (!sample_shape_read(t->in, m->n_inputs, m->settings.sample_shape, f))
            return false;
        for (int k = 0; k < m->n_inputs; k++)
            memcpy(shapes[k], t->in[k].dim, sizeof shapes[k]);
        mest_predictor *p = engine_predictor(m->engine, shapes, 1, f);
        bool good = p && engine_output_shape(p, m->target, t->out.rank, t->out.dim, f)
                    && (tensor_spec_complete(&t->out) || refuse(f, 409, "output '%.80s' is too large with this sample_shape", t->out.name));
        mest_predictor_destroy(p);
        if (!good)
            return false;
    } else if (*m->settings.sample_shape) {
        return refuse(f, 409, "sample_shape: the file leaves no axis free");
    }
    return sample_spec_make(&t->spec, t->in, m->n_inputs, &t->out, m->settings.loss, !strcmp(m->settings.class_axis, "first"), f);
}

trainer *trainer_create(served *m, fault *f)
{
    trainer *t = calloc(1, sizeof *t);
    if (!t) {
        refuse(f, 503, "out of memory");
        return NULL;
    }
    t->model = m;
    t->settings = t->now = m->settings;
    t->state = "idle";
    t->loss = (double)NAN;
    t->begun_ms = clock_ms();
    pthread_mutex_init(&t->lock, NULL);
    pthread_mutex_init(&t->versions, NULL);
    pthread_mutex_init(&t->saved, NULL);
    clock_condition(&t->changed);
    bool good = describe(t, f) && make_guest(t, f) && open_store(t, f);
    if (good) {
        session_recall(t);
        t->started = pthread_create(&t->thread, NULL, train, t) == 0;
        good = t->started || refuse(f, 503, "a thread cannot be started");
    }
    if (!good) {
        trainer_destroy(t);
        return NULL;
    }
    return t;
}

void trainer_destroy(trainer *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->quit = true;
    wake(t);
    pthread_mutex_unlock(&t->lock);
    if (t->started)
        pthread_join(t->thread, NULL);
    mest_guest_destroy(t->guest);
    replay_close(t->store);
    measure_destroy(t->measure);
    for (int k = 0; k < MAX_TENSORS; k++)
        free(t->inputs[k]);
    free(t->targets);
    free(t->sample);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    pthread_mutex_destroy(&t->versions);
    pthread_mutex_destroy(&t->saved);
    free(t);
}

/* ---- requests ---- */
const sample_spec *trainer_samples(const trainer *t) { return &t->spec; }

bool trainer_add(trainer *t, const train_call *c, fault *f)
{
    if (!replay_add(t->store, c->n, c->inputs, c->targets, f))
        return false;
    atomic_fetch_add(&t->model->metrics.added, c->n);
    return true;
}

/* Before the answer: what was answered is so after a power cut. */
static void note_wish(trainer *t)
{
    fault f = {0};
    if (!session_note_wish(t, &f))
        trainer_note(t, f.text);
}

bool trainer_start(trainer *t, const cJSON *changes, fault *f)
{
    pthread_mutex_lock(&t->lock);
    bool good = !changes || settings_change(&t->settings, changes, f);
    if (good) {
        t->wanted = true;
        t->ends_at = t->settings.rounds ? t->rounds + t->settings.rounds : 0;
        t->note[0] = 0;
        wake(t);
    }
    pthread_mutex_unlock(&t->lock);
    if (good)
        note_wish(t);
    return good;
}

void trainer_cancel(trainer *t)
{
    pthread_mutex_lock(&t->lock);
    t->wanted = false;
    wake(t);
    pthread_mutex_unlock(&t->lock);
    note_wish(t);
}

static bool kept_in_memory(engine *e, int64_t id)
{
    mest_snapshot *s = mest_model_acquire_id(e->model, id);
    mest_snapshot_release(s);
    return s != NULL;
}

/* The saved training led away from the version that answers now: a start after a power cut must not take it up. */
static void forget(trainer *t, int64_t base)
{
    fault f = {0};
    if (!session_forget(t, base, &f))
        trainer_note(t, f.text);
}

/* From the folder: an engine of its own, from which training begins anew. */
static bool load_version(trainer *t, int64_t id, fault *f)
{
    char folder[DIR_PATH + 32], path[DIR_PATH + 64];
    snprintf(folder, sizeof folder, "%s/%" PRId64, t->model->folder, id);
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    if (access(path, R_OK) != 0)
        return refuse(f, 404, "there is no version %" PRId64, id);
    engine *e = engine_load(folder, id, &t->model->settings, f);
    if (!e || !version_dirs_set_current(t->model->folder, id, f)) {
        engine_release(e);
        return false;
    }
    if (!served_replace(t->model, e, f))
        return false;
    pthread_mutex_lock(&t->lock);
    t->anew = true;
    pthread_mutex_unlock(&t->lock);
    forget(t, id);
    return true;
}

static bool change_version(trainer *t, int64_t id, bool back, fault *f)
{
    engine *e = served_engine(t->model);
    /* a refused candidate has a number in memory, but no folder: it cannot become current */
    char path[DIR_PATH + 64];
    snprintf(path, sizeof path, "%s/%" PRId64 "/model.onnx", t->model->folder, id);
    bool good = access(path, R_OK) == 0 || refuse(f, 404, "there is no version %" PRId64, id);
    bool here = good && kept_in_memory(e, id);
    good = good && (here ? version_becomes_current(t, e, id, f) : load_version(t, id, f));
    pthread_mutex_lock(&t->lock);
    if (good && here && back)
        t->restore = id;
    pthread_mutex_unlock(&t->lock);
    if (good && here && back)
        forget(t, e->base);
    engine_release(e);
    pthread_mutex_lock(&t->lock);
    if (good && t->candidate == id)
        t->candidate = 0;
    wake(t);
    pthread_mutex_unlock(&t->lock);
    return good;
}

bool trainer_promote(trainer *t, int64_t id, fault *f)
{
    pthread_mutex_lock(&t->versions);
    bool good = change_version(t, id, false, f);
    pthread_mutex_unlock(&t->versions);
    atomic_fetch_add(&t->model->metrics.published, good);
    return good;
}

bool trainer_rollback(trainer *t, int64_t id, fault *f)
{
    pthread_mutex_lock(&t->versions);
    int64_t now = served_version(t->model);
    if (!id) {
        int64_t *ids = malloc(MAX_DIRS * sizeof *ids);
        int n = ids ? version_dirs_list(t->model->folder, ids) : 0;
        for (int i = 0; i < n && ids[i] < now; i++)
            id = ids[i];
        free(ids);
    }
    bool good;
    if (id >= now)
        good = refuse(f, 409, "version %" PRId64 " is not before %" PRId64 ", which answers; promote takes any version", id, now);
    else
        good = id > 0 ? change_version(t, id, true, f) : refuse(f, 409, "there is no version before %" PRId64, now);
    pthread_mutex_unlock(&t->versions);
    atomic_fetch_add(&t->model->metrics.rolled_back, good);
    return good;
}
