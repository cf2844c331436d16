/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/batcher.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "serve/clock.h"

enum { MOST_PLANS = 200 }; /* of a model: each may keep alive the version that it ran on last, and no more than MEST_MAX_VERSIONS are */

/* The network at one length of each axis. */
typedef struct plan {
    mest_predictor *predictor;  /* NULL: a free place */
    input_shapes in;
    int64_t out[MAX_TENSORS][MEST_MAX_RANK];
    uint64_t used;              /* when, in batches */
} plan;

typedef struct worker {
    batcher *owner;
    pthread_t thread;
    bool started;
    engine *engine;             /* that the plans belong to */
    int n_plans;
    plan *plans;
    uint64_t batches;
    char *in[MAX_TENSORS], *out[MAX_TENSORS]; /* of a batch */
    size_t in_room[MAX_TENSORS], out_room[MAX_TENSORS];
    batch_item **batch;         /* [max_batch] */
} worker;

struct batcher {
    batcher_options o;
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    batch_item *first, *last;
    int64_t waiting;
    _Atomic int64_t load;
    bool stopping;
    int n_workers;
    worker *workers;
};

/* ---- choosing a batch; the lock is held ---- */
static batch_item *pop(batcher *b, batch_item *before)
{
    batch_item *item = before ? before->next : b->first;
    if (before)
        before->next = item->next;
    else
        b->first = item->next;
    if (b->last == item)
        b->last = before;
    item->next = NULL;
    b->waiting--;
    return item;
}

static bool same_shapes(const tensor_spec *in, int n, const infer_call *a, const infer_call *b)
{
    for (int k = 0; k < n; k++)
        if (!in[k].count && memcmp(a->in[k].dim, b->in[k].dim, sizeof a->in[k].dim) != 0)
            return false;
    return true;
}

/* Can it run in a batch with the first? */
static bool fits(const batcher *b, const infer_call *c, const infer_call *first)
{
    return c->version == first->version && same_shapes(b->o.in, b->o.n_inputs, c, first);
}

/* Samples that could run with the first one now. */
static int64_t ready_samples(const batcher *b)
{
    int64_t n = 0;
    for (const batch_item *i = b->first; i && n < b->o.settings->max_batch; i = i->next)
        n += fits(b, i->call, b->first->call) ? i->call->n : 0;
    return n;
}

static int collect(batcher *b, worker *w)
{
    int count = 0;
    int64_t samples = 0;
    const infer_call *first = b->first->call;
    batch_item *before = NULL;
    for (batch_item *i = b->first; i;) {
        if (!fits(b, i->call, first) || samples + i->call->n > b->o.settings->max_batch) {
            before = i;
            i = i->next;
            continue;
        }
        samples += i->call->n;
        w->batch[count++] = pop(b, before);
        i = before ? before->next : b->first;
    }
    return count;
}

/* ---- running it ---- */
static void forget_plans(worker *w)
{
    for (int i = 0; w->plans && i < w->n_plans; i++) {
        mest_predictor_destroy(w->plans[i].predictor);
        w->plans[i].predictor = NULL;
    }
}

/* A plan for these shapes: one that is there, or a new one in the place of that which was not used for longest. */
static plan *plan_for(worker *w, input_shapes in, fault *f)
{
    const batcher_options *o = &w->owner->o;
    plan *p = w->plans;
    for (int i = 0; i < w->n_plans; i++) {
        plan *q = &w->plans[i];
        bool same = q->predictor != NULL;
        for (int k = 0; same && w->engine->open && k < o->n_inputs; k++)
            same = !memcmp(q->in[k], in[k], (size_t)o->in[k].rank * sizeof *in[k]);
        if (same)
            return q;
        if (p->predictor && (!q->predictor || q->used < p->used))
            p = q;
    }
    mest_predictor_destroy(p->predictor);
    p->predictor = engine_predictor(w->engine, in, o->settings->max_batch, f);
    memcpy(p->in, in, sizeof p->in);
    for (int k = 0; p->predictor && k < o->n_outputs; k++)
        if (!engine_output_shape(p->predictor, k, o->out[k].rank, p->out[k], f)) {
            mest_predictor_destroy(p->predictor);
            p->predictor = NULL;
        }
    return p->predictor ? p : NULL;
}

static plan *settle(worker *w, const infer_call *c, mest_snapshot **pinned, fault *f)
{
    batcher *b = w->owner;
    engine *now = b->o.engine(b->o.user);
    if (now == w->engine) {
        engine_release(now);
    } else {
        forget_plans(w);
        engine_release(w->engine);
        w->engine = now;
    }
    input_shapes in = {{0}};
    for (int k = 0; k < b->o.n_inputs; k++)
        memcpy(in[k], c->in[k].dim, sizeof in[k]);
    plan *p = plan_for(w, in, f);
    if (!p)
        return NULL;
    p->used = ++w->batches;
    *pinned = c->version ? mest_model_acquire_id(w->engine->model, c->version) : NULL;
    if (c->version && !*pinned) {
        refuse(f, 404, "version %" PRId64 " is not in memory; ask for the current one, or roll back to it", c->version);
        return NULL;
    }
    mest_error err;
    if (mest_predictor_pin(p->predictor, *pinned, &err) == MEST_OK)
        return p;
    refuse_error(f, &err);
    return NULL;
}

static bool make_outputs(worker *w, const plan *p, infer_call *c)
{
    for (int k = 0; k < c->n_outputs; k++) {
        tensor *t = &c->out[k];
        if (!tensor_make(t, &w->owner->o.out[c->output[k]], p->out[c->output[k]], c->n) || !(t->data = malloc(t->bytes)))
            return false;
    }
    return true;
}

static bool make_room(char **data, size_t *room, size_t bytes)
{
    if (*room >= bytes && *data)
        return true;
    free(*data);
    *data = malloc(bytes);
    *room = *data ? bytes : 0;
    return *data != NULL;
}

/* Room for that many samples in the shapes of the plan. */
static bool make_buffers(worker *w, const plan *p, int64_t samples)
{
    const batcher_options *o = &w->owner->o;
    tensor t;
    bool good = true;
    for (int k = 0; good && k < o->n_inputs; k++)
        good = tensor_make(&t, &o->in[k], w->engine->open ? p->in[k] : o->in[k].dim, samples) && make_room(&w->in[k], &w->in_room[k], t.bytes);
    for (int k = 0; good && k < o->n_outputs; k++)
        good = tensor_make(&t, &o->out[k], p->out[k], samples) && make_room(&w->out[k], &w->out_room[k], t.bytes);
    return good;
}

static bool run(worker *w, const plan *p, batch_item *const *batch, int count, int64_t samples, int64_t *version, fault *f)
{
    const batcher_options *o = &w->owner->o;
    mest_input_data in[MAX_TENSORS];
    mest_output_data out[MAX_TENSORS];
    bool wanted[MAX_TENSORS] = {false};
    int n_out = 0;
    if (!make_buffers(w, p, samples))
        return refuse(f, 503, "out of memory");
    for (int k = 0; k < o->n_inputs; k++) {
        size_t at = 0;
        for (int i = 0; i < count; i++) {
            const tensor *t = &batch[i]->call->in[k];
            memcpy(w->in[k] + at, t->data, t->bytes);
            at += t->bytes;
        }
        in[k] = (mest_input_data){o->in[k].name, w->in[k], at};
    }
    for (int i = 0; i < count; i++)
        for (int k = 0; k < batch[i]->call->n_outputs; k++)
            wanted[batch[i]->call->output[k]] = true;
    for (int k = 0; k < o->n_outputs; k++) {
        tensor t;
        if (wanted[k] && tensor_make(&t, &o->out[k], p->out[k], samples))
            out[n_out++] = (mest_output_data){o->out[k].name, w->out[k], t.bytes};
    }
    mest_error err;
    return mest_predictor_run(p->predictor, samples, in, o->n_inputs, out, n_out, version, &err) == MEST_OK || refuse_error(f, &err);
}

static void answer(worker *w, batch_item *const *batch, int count)
{
    fault why = {0};
    const batcher_options *o = &w->owner->o;
    double begin = clock_ms();
    int64_t samples = 0, version = 0;
    for (int i = 0; i < count; i++)
        samples += batch[i]->call->n;
    mest_snapshot *pinned = NULL;
    const plan *p = settle(w, batch[0]->call, &pinned, &why);
    bool good = p && run(w, p, batch, count, samples, &version, &why);
    if (pinned && p && mest_predictor_pin(p->predictor, NULL, &(mest_error){MEST_OK, ""}) != MEST_OK) /* or it would keep that version alive */
        good = good || refuse(&why, 500, "the version cannot be let go");
    mest_snapshot_release(pinned);
    if (!good && count > 1 && why.status == 400) { /* what one of them says is wrong (a number of a word that there is not): the others get their answer */
        for (int i = 0; i < count; i++)
            answer(w, batch + i, 1);
        return;
    }
    int64_t row = 0;
    for (int i = 0; i < count; i++) {
        batch_item *item = batch[i];
        infer_call *c = item->call;
        if (!good) {
            item->fault = why;
        } else if (!make_outputs(w, p, c)) {
            refuse(&item->fault, 503, "out of memory");
        } else {
            c->version = version;
            for (int k = 0; k < c->n_outputs; k++) {
                const tensor *t = &c->out[k];
                memcpy(t->data, w->out[c->output[k]] + (size_t)(t->count * row) * t->spec->item, t->bytes);
            }
        }
        row += c->n;
    }
    if (o->ran)
        o->ran(o->user, samples, (clock_ms() - begin) / 1e3);
}

static int expire(worker *w, int count, double now)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        batch_item *item = w->batch[i];
        item->waited_ms = now - item->arrived_ms;
        if (item->call->deadline_ms > 0 && item->waited_ms > item->call->deadline_ms) {
            refuse(&item->fault, 504, "waited %.1f ms, longer than parameters.timeout", item->waited_ms);
            atomic_fetch_sub(&w->owner->load, 1);
            item->done(item);
        } else {
            w->batch[kept++] = item;
        }
    }
    return kept;
}

static void *work(void *argument)
{
    worker *w = argument;
    batcher *b = w->owner;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        while (!b->first && !b->stopping)
            pthread_cond_wait(&b->arrived, &b->lock);
        if (!b->first)
            break;
        double until = b->first->arrived_ms + b->o.settings->batch_delay_ms;
        if (!b->stopping && ready_samples(b) < b->o.settings->max_batch && clock_ms() < until) {
            clock_wait(&b->arrived, &b->lock, until);
            continue;
        }
        int count = collect(b, w);
        pthread_mutex_unlock(&b->lock);
        count = expire(w, count, clock_ms());
        if (count)
            answer(w, w->batch, count);
        for (int i = 0; i < count; i++) {
            atomic_fetch_sub(&b->load, 1);
            w->batch[i]->done(w->batch[i]);
        }
        pthread_mutex_lock(&b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* ---- from outside ---- */
bool batcher_add(batcher *b, batch_item *item, fault *f)
{
    item->arrived_ms = clock_ms();
    item->next = NULL;
    pthread_mutex_lock(&b->lock);
    bool room = b->waiting < b->o.settings->max_waiting && !b->stopping;
    if (room) {
        if (b->last)
            b->last->next = item;
        else
            b->first = item;
        b->last = item;
        b->waiting++;
        atomic_fetch_add(&b->load, 1);
        pthread_cond_signal(&b->arrived);
    }
    pthread_mutex_unlock(&b->lock);
    return room || refuse(f, 503, "%" PRId64 " requests are waiting already", b->o.settings->max_waiting);
}

int64_t batcher_load(const batcher *b) { return atomic_load(&((batcher *)(uintptr_t)b)->load); }

static bool start(batcher *b, worker *w, fault *f)
{
    const batcher_options *o = &b->o;
    size_t most = (size_t)o->settings->max_batch;
    w->owner = b;
    w->engine = o->engine(o->user);
    w->n_plans = w->engine->open ? (int)o->settings->max_shapes : 1;
    if (o->settings->infer_threads * w->n_plans > MOST_PLANS)
        return refuse(f, 500, "infer_threads times max_shapes is more than %d", MOST_PLANS);
    w->batch = calloc(most, sizeof *w->batch);
    w->plans = calloc((size_t)w->n_plans, sizeof *w->plans);
    if (!w->batch || !w->plans)
        return refuse(f, 503, "out of memory");
    if (!w->engine->open) { /* planned now, so that the first request does not wait for it and a model that cannot run is refused at the start */
        input_shapes fixed = {{0}};
        const plan *p = plan_for(w, fixed, f);
        if (!p)
            return false;
        if (!make_buffers(w, p, o->settings->max_batch))
            return refuse(f, 503, "out of memory");
    }
    w->started = pthread_create(&w->thread, NULL, work, w) == 0;
    return w->started || refuse(f, 503, "a thread cannot be started");
}

batcher *batcher_create(const batcher_options *options, fault *f)
{
    batcher *b = calloc(1, sizeof *b);
    if (b) {
        b->o = *options;
        pthread_mutex_init(&b->lock, NULL);
        clock_condition(&b->arrived);
        b->n_workers = (int)options->settings->infer_threads;
        b->workers = calloc((size_t)b->n_workers, sizeof *b->workers);
    }
    bool good = (b && b->workers) || refuse(f, 503, "out of memory");
    for (int i = 0; good && i < b->n_workers; i++)
        good = start(b, &b->workers[i], f);
    if (!good) {
        batcher_destroy(b);
        return NULL;
    }
    return b;
}

void batcher_destroy(batcher *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_cond_broadcast(&b->arrived);
    pthread_mutex_unlock(&b->lock);
    for (int i = 0; b->workers && i < b->n_workers; i++) {
        worker *w = &b->workers[i];
        if (w->started)
            pthread_join(w->thread, NULL);
        forget_plans(w);
        engine_release(w->engine);
        free(w->plans);
        free(w->batch);
        for (int k = 0; k < MAX_TENSORS; k++) {
            free(w->in[k]);
            free(w->out[k]);
        }
    }
    pthread_cond_destroy(&b->arrived);
    pthread_mutex_destroy(&b->lock);
    free(b->workers);
    free(b);
}
