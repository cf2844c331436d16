/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a round: a candidate is published where no reader gets it, measured beside the version that answers, on the same samples, and becomes current or
 * not. On disk first, then for readers: a version that has answered is there after a power cut. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/trainer_parts.h"

enum { TEST_SAMPLES = 512, REFUSALS = 4 /* in a row, until training goes back to the current version */ };

static int64_t next_id(const trainer *t)
{
    int64_t *ids = malloc(MAX_DIRS * sizeof *ids), id = 0;
    int n = ids ? version_dirs_list(t->model->folder, ids) : 0;
    if (n)
        id = ids[n - 1];
    free(ids);
    mest_version_info info = {.struct_size = sizeof info}; /* refused candidates have numbers, too */
    for (int64_t after = 0; mest_model_next_version(t->engine->model, after, &info, NULL) == MEST_OK && info.id; after = info.id)
        id = info.id > id ? info.id : id;
    return id + 1;
}

static bool rest(void *user)
{
    trainer *t = user;
    trainer_yield(t);
    return !trainer_interrupted(t);
}

static bool better(const trainer *t, const curve_point *p)
{
    if (!isfinite(p->candidate.loss))
        return false;
    if (!p->current.samples)
        return true;
    return t->spec.classes ? p->candidate.accuracy >= p->current.accuracy - t->now.max_accuracy_drop : p->candidate.loss <= p->current.loss;
}

static void facts_of(const curve_point *p, int64_t id, int64_t parent, text *out)
{
    text_printf(out, "{\"version\":%" PRId64 ",\"parent\":%" PRId64 ",\"round\":%" PRId64 ",\"steps\":%" PRId64 ",\"time\":%lld,\"samples\":%" PRId64 ",\"loss\":", id,
                parent, p->round, p->steps, (long long)time(NULL), p->candidate.samples);
    text_number(out, p->candidate.loss);
    text_printf(out, ",\"accuracy\":");
    text_number(out, p->candidate.accuracy);
    text_printf(out, ",\"parent_accuracy\":");
    text_number(out, p->current.accuracy);
    text_printf(out, "}\n");
}

bool version_becomes_current(trainer *t, engine *e, int64_t id, fault *f)
{
    served *m = t->model;
    mest_error err;
    if (!version_dirs_set_current(m->folder, id, f))
        return false;
    if (mest_model_promote(e->model, id, &err) != MEST_OK)
        return refuse_error(f, &err);
    engine *now = served_engine(m);
    bool same = now == e;
    engine_release(now);
    return same || served_replace(m, engine_hold(e), f);
}

static bool keep(trainer *t, int64_t id, const curve_point *p, fault *f)
{
    mest_snapshot *s = mest_model_acquire_id(t->engine->model, id);
    if (!s)
        return refuse(f, 500, "the candidate is gone");
    text facts = {0};
    int64_t current = served_version(t->model);
    facts_of(p, id, current, &facts);
    /* without `current` the largest would answer after a start: the candidate, promoted or not */
    bool good = facts.data ? version_dirs_settle(t->model->folder, current, f) && version_dirs_save(t->model->folder, id, s, facts.data, f)
                           : refuse(f, 503, "out of memory");
    text_free(&facts);
    mest_snapshot_release(s);
    if (good && t->now.auto_promote) {
        good = version_becomes_current(t, t->engine, id, f);
        atomic_fetch_add(&t->model->metrics.published, good);
    }
    version_dirs_prune(t->model->folder, t->now.keep_versions, served_version(t->model), t->engine->base);
    return good;
}

static void record(trainer *t, const curve_point *p, int64_t candidate)
{
    pthread_mutex_lock(&t->lock);
    t->curve[t->n_curve++ % CURVE] = *p;
    t->rounds++;
    if (candidate)
        t->candidate = t->now.auto_promote ? 0 : candidate;
    pthread_mutex_unlock(&t->lock);
    atomic_fetch_add(&t->model->metrics.rounds, 1);
}

static bool test(trainer *t, int64_t id, curve_point *p, fault *f)
{
    engine *now = served_engine(t->model);
    uint64_t seed = replay_mix((uint64_t)t->now.seed, (uint64_t)p->round);
    bool good = measure_version(t->measure, t->engine, id, t->store, TEST_SAMPLES, seed, rest, t, &p->candidate, f)
                && measure_version(t->measure, now, 0, t->store, TEST_SAMPLES, seed, rest, t, &p->current, f);
    engine_release(now);
    return good;
}

/* The oldest version in memory makes room for it: not while somebody is about to make that one current. */
static mest_status publish(trainer *t, int64_t *id, mest_error *err)
{
    mest_publish_options o;
    mest_publish_options_init(&o);
    o.hold = true;
    o.note = "candidate";
    pthread_mutex_lock(&t->versions);
    *id = o.id = next_id(t);
    mest_status status = mest_session_publish(t->session, &o, NULL, err);
    pthread_mutex_unlock(&t->versions);
    return status;
}

static bool offer(trainer *t, curve_point *p, fault *f)
{
    int64_t id;
    mest_error err;
    mest_status status = publish(t, &id, &err);
    if (status == MEST_E_NUMERIC) { /* nothing good can come of these weights */
        trainer_note(t, err.msg);
        t->refusals = REFUSALS;
        return true;
    }
    if (status != MEST_OK)
        return refuse_error(f, &err);
    if (!test(t, id, p, f))
        return false;
    if (trainer_interrupted(t)) /* the test was not finished: that says nothing about the candidate */
        return true;
    if (!better(t, p)) {
        t->refusals++;
        return true;
    }
    pthread_mutex_lock(&t->versions);
    bool undisturbed = !trainer_interrupted(t), good = !undisturbed || keep(t, id, p, f); /* a roll back may have come between test and promotion */
    pthread_mutex_unlock(&t->versions);
    t->refusals = 0;
    p->version = good && undisturbed ? id : 0;
    return good;
}

bool round_end(trainer *t, fault *f)
{
    mest_error err;
    if (mest_session_end_epoch(t->session, NULL, &err) != MEST_OK)
        return refuse_error(f, &err);
    pthread_mutex_lock(&t->lock);
    curve_point p = {.round = t->rounds + 1, .steps = t->steps, .seconds = (clock_ms() - t->begun_ms) / 1e3,
                     .train_loss = t->in_round ? t->loss_sum / (double)t->in_round : (double)NAN,
                     .candidate = {.loss = (double)NAN, .accuracy = (double)NAN}, .current = {.loss = (double)NAN, .accuracy = (double)NAN}};
    pthread_mutex_unlock(&t->lock);
    t->in_round = 0;
    t->loss_sum = 0;
    bool good = offer(t, &p, f);
    if (!good || trainer_interrupted(t))
        return good;
    record(t, &p, p.version);
    if (!p.version)
        atomic_fetch_add(&t->model->metrics.refused, 1);
    if (t->refusals >= REFUSALS) {
        engine *now = served_engine(t->model);
        bool same = now == t->engine;
        engine_release(now);
        t->refusals = 0;
        if (same)
            session_restore(t, served_version(t->model));
        else
            t->fresh = true;
    }
    return session_save(t, f);
}
