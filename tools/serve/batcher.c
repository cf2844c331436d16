/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/batcher.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "serve/clock.h"

typedef struct worker {
    batcher *owner;
    pthread_t thread;
    bool started;
    engine *engine;             /* that predictor belongs to */
    mest_predictor *predictor;
    char *in[MAX_TENSORS], *out[MAX_TENSORS]; /* max_batch samples each */
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

/* Samples that could run with the first one now. */
static int64_t ready_samples(const batcher *b)
{
    int64_t n = 0;
    for (const batch_item *i = b->first; i && n < b->o.settings->max_batch; i = i->next)
        n += i->call->version == b->first->call->version ? i->call->n : 0;
    return n;
}

static int collect(batcher *b, worker *w)
{
    int count = 0;
    int64_t samples = 0, version = b->first->call->version;
    batch_item *before = NULL;
    for (batch_item *i = b->first; i;) {
        if (i->call->version != version || samples + i->call->n > b->o.settings->max_batch) {
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
static bool settle(worker *w, int64_t version, mest_snapshot **pinned, fault *f)
{
    batcher *b = w->owner;
    engine *now = b->o.engine(b->o.user);
    if (now == w->engine) {
        engine_release(now);
    } else {
        mest_predictor_destroy(w->predictor);
        engine_release(w->engine);
        w->engine = now;
        w->predictor = NULL;
    }
    if (!w->predictor && !(w->predictor = engine_predictor(w->engine, b->o.settings->max_batch, f)))
        return false;
    mest_error err;
    *pinned = version ? mest_model_acquire_id(w->engine->model, version) : NULL;
    if (version && !*pinned)
        return refuse(f, 404, "version %" PRId64 " is not in memory; ask for the current one, or roll back to it", version);
    return mest_predictor_pin(w->predictor, *pinned, &err) == MEST_OK || refuse_error(f, &err);
}

static bool make_outputs(worker *w, infer_call *c)
{
    for (int k = 0; k < c->n_outputs; k++) {
        const tensor_spec *s = &w->owner->o.out[c->output[k]];
        c->out[k] = (tensor){.spec = s, .n = c->n, .bytes = (size_t)(c->n * s->count) * s->item};
        c->out[k].data = malloc(c->out[k].bytes);
        if (!c->out[k].data)
            return false;
    }
    return true;
}

static bool run(worker *w, batch_item *const *batch, int count, int64_t samples, int64_t *version, fault *f)
{
    const batcher_options *o = &w->owner->o;
    mest_input_data in[MAX_TENSORS];
    mest_output_data out[MAX_TENSORS];
    bool wanted[MAX_TENSORS] = {false};
    int n_out = 0;
    for (int k = 0; k < o->n_inputs; k++) {
        size_t bytes = (size_t)o->in[k].count * o->in[k].item, at = 0;
        for (int i = 0; i < count; i++) {
            const tensor *t = &batch[i]->call->in[k];
            memcpy(w->in[k] + at, t->data, t->bytes);
            at += t->bytes;
        }
        in[k] = (mest_input_data){o->in[k].name, w->in[k], bytes * (size_t)samples};
    }
    for (int i = 0; i < count; i++)
        for (int k = 0; k < batch[i]->call->n_outputs; k++)
            wanted[batch[i]->call->output[k]] = true;
    for (int k = 0; k < o->n_outputs; k++)
        if (wanted[k])
            out[n_out++] = (mest_output_data){o->out[k].name, w->out[k], (size_t)o->out[k].count * o->out[k].item * (size_t)samples};
    mest_error err;
    return mest_predictor_run(w->predictor, samples, in, o->n_inputs, out, n_out, version, &err) == MEST_OK || refuse_error(f, &err);
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
    bool good = settle(w, batch[0]->call->version, &pinned, &why) && run(w, batch, count, samples, &version, &why);
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
        } else if (!make_outputs(w, c)) {
            refuse(&item->fault, 503, "out of memory");
        } else {
            c->version = version;
            for (int k = 0; k < c->n_outputs; k++) {
                size_t one = (size_t)o->out[c->output[k]].count * o->out[c->output[k]].item;
                memcpy(c->out[k].data, w->out[c->output[k]] + one * (size_t)row, c->out[k].bytes);
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
    bool good = (w->batch = calloc(most, sizeof *w->batch)) != NULL;
    w->owner = b;
    for (int k = 0; k < o->n_inputs; k++)
        good = good && (w->in[k] = malloc(most * (size_t)o->in[k].count * o->in[k].item)) != NULL;
    for (int k = 0; k < o->n_outputs; k++)
        good = good && (w->out[k] = malloc(most * (size_t)o->out[k].count * o->out[k].item)) != NULL;
    if (!good)
        return refuse(f, 503, "out of memory");
    /* planned now, so that the first request does not wait for it and a model that cannot run is refused at the start */
    w->engine = o->engine(o->user);
    w->predictor = engine_predictor(w->engine, o->settings->max_batch, f);
    if (!w->predictor)
        return false;
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
        mest_predictor_destroy(w->predictor);
        engine_release(w->engine);
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
