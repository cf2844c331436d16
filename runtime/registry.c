/* SPDX-License-Identifier: Apache-2.0 */
/* The versions of a model: publishing, guards, the current one, those that are kept. */
#include "runtime/snapshot.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { KEPT_BY_DEFAULT = 4 };

mest_status mest_registry_create(mest_registry **registry, mest_heap *heap, mest_error *err)
{
    *registry = NULL;
    mest_registry *r = mest_calloc(heap, 1, sizeof *r);
    MEST_CHECK(r, err, MEST_E_NOMEM, "model: no memory for %zu bytes", sizeof *r);
    if (pthread_mutex_init(&r->lock, NULL)) {
        mest_free(heap, r, 1, sizeof *r);
        return mest_fail(err, MEST_E_NOMEM, "model: no lock can be made");
    }
    r->most_kept = KEPT_BY_DEFAULT;
    *registry = r;
    return MEST_OK;
}

mest_status mest_registry_idle(const mest_model *m, bool only_borrowed, const char *what, mest_error *err)
{
    int n = m->registry ? (int)atomic_load(only_borrowed ? &m->registry->n_borrowed : &m->registry->n_alive) : 0;
    MEST_CHECK(n == 0, err, MEST_E_STATE, "%s: %d version%s of this model %s alive%s", what, n, n == 1 ? "" : "s", n == 1 ? "is" : "are",
               only_borrowed ? " that use its memory (published with borrow)" : "");
    return MEST_OK;
}

/* ---- the current version ---- */
mest_snapshot *mest_model_acquire(mest_model *model)
{
    mest_registry *r = model ? model->registry : NULL;
    if (!r || mest_registry_current_slot(r) == 0)
        return NULL;
    uint64_t word = atomic_fetch_add(&r->current, 1);
    return atomic_load(&r->slot[word >> MEST_SLOT_SHIFT]);
}

/* Under the lock. s NULL: there is none any more. */
static void make_current(mest_registry *r, mest_snapshot *s)
{
    if (s && mest_registry_current_slot(r) == s->slot)
        return;
    if (s)
        atomic_fetch_add(&s->refs, MEST_CURRENT);
    uint64_t word = atomic_exchange(&r->current, s ? (uint64_t)s->slot << MEST_SLOT_SHIFT : 0);
    unsigned slot = (unsigned)(word >> MEST_SLOT_SHIFT);
    if (!slot)
        return;
    mest_snapshot *old = atomic_load(&r->slot[slot]);
    atomic_fetch_add(&old->refs, (int64_t)(word & (((uint64_t)1 << MEST_SLOT_SHIFT) - 1)) + 1 - MEST_CURRENT); /* + 1: let go properly */
    mest_snapshot_release(old);
}

static bool is_current(const mest_snapshot *s) { return s->slot && mest_registry_current_slot(s->registry) == s->slot; }

/* ---- those that are kept; all under the lock ---- */
static int find_kept(const mest_registry *r, int64_t id)
{
    for (int i = 0; i < r->n_kept; i++)
        if (r->kept[i]->info.id == id)
            return i;
    return -1;
}

static void drop_kept(mest_registry *r, int i)
{
    mest_snapshot *s = r->kept[i];
    memmove(&r->kept[i], &r->kept[i + 1], (size_t)(--r->n_kept - i) * sizeof *r->kept);
    s->kept = false;
    mest_snapshot_release(s);
}

/* The oldest go first; the current one and the newest stay whatever the limit. */
static void keep_within(mest_registry *r)
{
    for (int i = 0; r->n_kept > r->most_kept && i < r->n_kept - 1;) {
        if (is_current(r->kept[i]))
            i++;
        else
            drop_kept(r, i);
    }
}

void mest_registry_destroy(mest_registry *r, mest_heap *heap)
{
    if (!r)
        return;
    make_current(r, NULL);
    while (r->n_kept)
        drop_kept(r, r->n_kept - 1);
    mest_snapshot_release(r->newest);
    pthread_mutex_destroy(&r->lock);
    mest_free(heap, r, 1, sizeof *r);
}

/* ---- publishing ---- */
void mest_publish_options_init(mest_publish_options *o)
{
    memset(o, 0, sizeof *o);
    o->struct_size = sizeof *o;
    o->loss = o->accuracy = o->max_loss = o->min_accuracy = o->max_loss_rise = o->max_accuracy_drop = (double)NAN;
}

/* The message has the numbers: it is what the log of an unattended service shows. */
static mest_status pass_guards(const mest_publish_options *o, const mest_version_info *now, mest_error *err)
{
    bool on_loss = !isnan(o->max_loss) || !isnan(o->max_loss_rise), on_accuracy = !isnan(o->min_accuracy) || !isnan(o->max_accuracy_drop);
    MEST_CHECK(!on_loss || !isnan(o->loss), err, MEST_E_LIMIT, "not published: the loss is not known, and a guard asks for it");
    MEST_CHECK(!on_accuracy || !isnan(o->accuracy), err, MEST_E_LIMIT, "not published: the accuracy is not known, and a guard asks for it");
    MEST_CHECK(isnan(o->max_loss) || o->loss <= o->max_loss, err, MEST_E_LIMIT, "not published: loss %.6g is above %.6g", o->loss, o->max_loss);
    MEST_CHECK(isnan(o->min_accuracy) || o->accuracy >= o->min_accuracy, err, MEST_E_LIMIT, "not published: accuracy %.6g is below %.6g", o->accuracy,
               o->min_accuracy);
    if (!now->id)
        return MEST_OK;
    MEST_CHECK(isnan(o->max_loss_rise) || isnan(now->loss) || o->loss - now->loss <= o->max_loss_rise, err, MEST_E_LIMIT,
               "not published: loss %.6g is more than %.6g above that of version %" PRId64 " (%.6g)", o->loss, o->max_loss_rise, now->id, now->loss);
    MEST_CHECK(isnan(o->max_accuracy_drop) || isnan(now->accuracy) || now->accuracy - o->accuracy <= o->max_accuracy_drop, err, MEST_E_LIMIT,
               "not published: accuracy %.6g is more than %.6g below that of version %" PRId64 " (%.6g)", o->accuracy, o->max_accuracy_drop, now->id,
               now->accuracy);
    return MEST_OK;
}

static int64_t wall_clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Among the kept, and current unless it is held back. The version keeps its own reference; each list takes another. */
static mest_status enlist(mest_registry *r, mest_snapshot *s, bool hold, mest_error *err)
{
    unsigned slot = 1;
    pthread_mutex_lock(&r->lock);
    while (slot < MEST_VERSION_SLOTS && atomic_load(&r->slot[slot]))
        slot++;
    if (slot == MEST_VERSION_SLOTS) {
        pthread_mutex_unlock(&r->lock);
        return mest_fail(err, MEST_E_LIMIT, "not published: %d versions are alive, readers must let go of some", MEST_MAX_VERSIONS);
    }
    s->slot = slot;
    s->kept = true;
    atomic_store(&r->slot[slot], s);
    mest_snapshot_retain(s);
    r->kept[r->n_kept++] = s;
    if (!hold)
        make_current(r, s);
    keep_within(r);
    pthread_mutex_unlock(&r->lock);
    return MEST_OK;
}

/* Copies as much as the caller's structure holds. */
static mest_status tell(const mest_snapshot *s, mest_version_info *to, mest_error *err)
{
    mest_version_info info = {.id = 0};
    if (s) {
        info = s->info;
        info.current = is_current(s);
        info.kept = s->kept;
    }
    MEST_CHECK(mest_tell(to, &info, sizeof info), err, MEST_E_ARGUMENT, "version: struct_size of the info is not set");
    return MEST_OK;
}

static mest_status checked_options(const mest_publish_options *given, mest_publish_options *own, const mest_version_info *info, const mest_registry *r,
                                   bool trains, mest_error *err)
{
    mest_publish_options_init(own);
    MEST_CHECK(!given || mest_take_options(own, sizeof *own, given), err, MEST_E_ARGUMENT,
               "publish: struct_size of the options is not set; call mest_publish_options_init");
    MEST_CHECK(!info || info->struct_size >= 2 * sizeof info->struct_size, err, MEST_E_ARGUMENT, "publish: struct_size of the info is not set");
    MEST_CHECK(!own->borrow || !trains, err, MEST_E_ARGUMENT, "publish: a session trains these weights, they must be copied");
    MEST_CHECK(own->id == 0 || own->id > r->last_id, err, MEST_E_ARGUMENT, "publish: id %" PRId64 " is not above the newest, %" PRId64, own->id, r->last_id);
    return MEST_OK;
}

mest_status mest_registry_publish(mest_model *m, const mest_publish_options *options, mest_position at, mest_version_info *info, mest_error *err)
{
    mest_registry *r = m->registry;
    mest_publish_options o;
    MEST_CHECK(!m->channels, err, MEST_E_UNSUPPORTED, "publish: versions of a model whose layers change size (schemes filter and channel) are not kept");
    MEST_TRY(checked_options(options, &o, info, r, m->n_sessions > 0, err));
    mest_snapshot *now = mest_model_acquire(m), *s;
    mest_version_info none = {.id = 0};
    mest_status status = pass_guards(&o, now ? &now->info : &none, err);
    mest_snapshot_release(now);
    MEST_TRY(status);
    MEST_TRY(mest_snapshot_capture(&s, m, o.borrow, err));
    s->info.id = o.id ? o.id : r->last_id + 1;
    s->info.parent = r->parent;
    s->info.epoch = at.epoch;
    s->info.step = at.step;
    s->info.time_ms = wall_clock_ms();
    s->info.samples = o.samples;
    s->info.loss = o.loss;
    s->info.accuracy = o.accuracy;
    if (o.note)
        snprintf(s->info.note, sizeof s->info.note, "%s", o.note);
    status = enlist(r, s, o.hold, err);
    if (status != MEST_OK) {
        mest_snapshot_release(s);
        return status;
    }
    r->last_id = r->parent = s->info.id;
    mest_snapshot_release(r->newest);
    r->newest = s; /* with the reference of its making */
    return info ? mest_snapshot_describe(s, info, err) : MEST_OK;
}

mest_status mest_model_publish(mest_model *model, const mest_publish_options *options, mest_version_info *info, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(model, err, MEST_E_ARGUMENT, "publish: no model");
    MEST_CHECK(model->n_sessions == 0, err, MEST_E_STATE, "publish: a session of this model is alive; mest_session_publish knows where it stands");
    return mest_registry_publish(model, options, (mest_position){0, 0}, info, err);
}

/* ---- what any thread may ask ---- */
mest_status mest_model_promote(mest_model *model, int64_t id, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(model, err, MEST_E_ARGUMENT, "promote: no model");
    mest_registry *r = model->registry;
    pthread_mutex_lock(&r->lock);
    int at = find_kept(r, id);
    if (at >= 0)
        make_current(r, r->kept[at]);
    pthread_mutex_unlock(&r->lock);
    MEST_CHECK(at >= 0, err, MEST_E_ARGUMENT, "promote: version %" PRId64 " is not kept", id);
    return MEST_OK;
}

mest_status mest_model_keep_versions(mest_model *model, int n, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(model && n >= 1 && n < MEST_MAX_VERSIONS, err, MEST_E_ARGUMENT, "keep versions: %d is not in 1..%d", n, MEST_MAX_VERSIONS - 1);
    mest_registry *r = model->registry;
    pthread_mutex_lock(&r->lock);
    r->most_kept = n;
    keep_within(r);
    pthread_mutex_unlock(&r->lock);
    return MEST_OK;
}

mest_status mest_model_next_version(mest_model *model, int64_t after, mest_version_info *info, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(model && info, err, MEST_E_ARGUMENT, "versions: model and info must be given");
    mest_registry *r = model->registry;
    const mest_snapshot *found = NULL;
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < r->n_kept && !found; i++)
        if (r->kept[i]->info.id > after)
            found = r->kept[i];
    mest_status status = tell(found, info, err);
    pthread_mutex_unlock(&r->lock);
    return status;
}

mest_snapshot *mest_model_acquire_id(mest_model *model, int64_t id)
{
    mest_registry *r = model ? model->registry : NULL;
    if (!r)
        return NULL;
    pthread_mutex_lock(&r->lock);
    int at = find_kept(r, id);
    mest_snapshot *s = at >= 0 ? r->kept[at] : NULL;
    if (s)
        mest_snapshot_retain(s);
    pthread_mutex_unlock(&r->lock);
    return s;
}

mest_status mest_snapshot_describe(const mest_snapshot *snapshot, mest_version_info *info, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(snapshot && info, err, MEST_E_ARGUMENT, "version: snapshot and info must be given");
    pthread_mutex_lock(&snapshot->registry->lock);
    mest_status status = tell(snapshot, info, err);
    pthread_mutex_unlock(&snapshot->registry->lock);
    return status;
}

void mest_model_version_memory(const mest_model *model, int64_t *bytes, int *n_alive)
{
    const mest_registry *r = model ? model->registry : NULL;
    if (bytes)
        *bytes = r ? atomic_load(&r->bytes) : 0;
    if (n_alive)
        *n_alive = r ? (int)atomic_load(&r->n_alive) : 0;
}
