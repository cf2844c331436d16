/* SPDX-License-Identifier: Apache-2.0 */
/* One worker thread fills two buffers in turn: batch k lives in slot k % 2. The caller holds at most one slot, so the worker is at most
 * one batch ahead of it. Order and contents depend on the plan alone, never on which thread was faster. */
#include "runtime/loader.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

#include "runtime/rng.h"

enum { SLOTS = 2, SLACK_BYTES = 64 /* kernels may read a vector past the last sample */ };

typedef struct slot {
    void *inputs[MEST_SAMPLE_MAX_INPUTS], *targets;
    const void *lent[MEST_SAMPLE_MAX_INPUTS]; /* the same, as the caller gets them */
    mest_status status; /* of the fetch */
    mest_error error;
} slot;

struct mest_loader {
    mest_heap *heap;
    mest_source source;
    mest_source_info info;
    int64_t batch;
    int n_inputs;
    size_t input_bytes[MEST_SAMPLE_MAX_INPUTS], target_bytes; /* of one sample */
    int64_t *order;                   /* info.count ids, the first n_order are this epoch's */
    int64_t n_order;
    mest_fetch how;
    slot slots[SLOTS];

    pthread_t thread;
    bool started;
    pthread_mutex_t mutex; /* guards everything below */
    pthread_cond_t changed;
    int64_t n_batches;
    int64_t taken;   /* batches asked for by the caller: the caller holds batch taken - 1 */
    int64_t fetched; /* batches fetched: the worker is at batch `fetched` */
    bool busy;       /* the worker is inside fetch */
    bool pause, quit;
};

mest_status mest_sample_set_create(mest_sample_set *set, mest_heap *heap, int64_t count, mest_error *err)
{
    memset(set, 0, sizeof *set);
    MEST_CHECK(count >= 0, err, MEST_E_ARGUMENT, "sample set: %" PRId64 " samples", count);
    size_t bytes = ((size_t)count + 7) / 8;
    MEST_NEW(heap, set->bits, bytes, err, "sample set");
    memset(set->bits, 0xff, bytes);
    set->heap = heap;
    set->count = set->active = count;
    return MEST_OK;
}

void mest_sample_set_destroy(mest_sample_set *set)
{
    if (set->heap)
        mest_free(set->heap, set->bits, ((size_t)set->count + 7) / 8, 1);
    memset(set, 0, sizeof *set);
}

void mest_sample_remove(mest_sample_set *set, int64_t id)
{
    if (id < 0 || id >= set->count || !mest_sample_active(set, id))
        return;
    set->bits[id >> 3] &= (uint8_t)~(1u << (id & 7));
    set->active--;
}

void mest_sample_restore(mest_sample_set *set, int64_t id)
{
    if (id < 0 || id >= set->count || mest_sample_active(set, id))
        return;
    set->bits[id >> 3] |= (uint8_t)(1u << (id & 7));
    set->active++;
}

/* Bytes of one sample; checks what a source, perhaps the caller's own, says of itself. */
static mest_status sample_bytes(const char *what, mest_sample_type type, int rank, const int64_t *dim, size_t *bytes, mest_error *err)
{
    MEST_CHECK(type == MEST_SAMPLE_F32 || type == MEST_SAMPLE_I64, err, MEST_E_ARGUMENT, "data source: %s type %d", what, (int)type);
    MEST_CHECK(rank >= 0 && rank <= MEST_SAMPLE_MAX_RANK, err, MEST_E_ARGUMENT, "data source: %s rank %d", what, rank);
    *bytes = type == MEST_SAMPLE_F32 ? sizeof(float) : sizeof(int64_t);
    for (int i = 0; i < rank; i++)
        MEST_CHECK(dim[i] > 0 && (uint64_t)dim[i] <= SIZE_MAX / 4 && mest_mul(*bytes, (size_t)dim[i], bytes), err, MEST_E_ARGUMENT,
                   "data source: %s dimension %d is %" PRId64, what, i, dim[i]);
    return MEST_OK;
}

static int64_t batch_size(const mest_loader *l, int64_t k)
{
    int64_t left = l->n_order - k * l->batch;
    return left < l->batch ? left : l->batch;
}

/* Runs without the mutex: slot, order and plan belong to the worker while it is busy. */
static void fetch_batch(mest_loader *l, int64_t k)
{
    slot *s = &l->slots[k % SLOTS];
    const int64_t *ids = l->order + k * l->batch, n = batch_size(l, k);
    void *targets = l->info.has_targets ? s->targets : NULL;
    mest_error_clear(&s->error);
    s->status = l->info.n_inputs ? l->source.fetch_inputs(l->source.self, ids, n, &l->how, s->inputs, targets, &s->error)
                                 : l->source.fetch(l->source.self, ids, n, &l->how, s->inputs[0], targets, &s->error);
}

static void *work(void *argument)
{
    mest_loader *l = argument;
    pthread_mutex_lock(&l->mutex);
    for (;;) {
        while (!l->quit && (l->pause || l->fetched >= l->n_batches || l->fetched > l->taken))
            pthread_cond_wait(&l->changed, &l->mutex);
        if (l->quit)
            break;
        int64_t k = l->fetched;
        l->busy = true;
        pthread_mutex_unlock(&l->mutex);
        fetch_batch(l, k);
        pthread_mutex_lock(&l->mutex);
        l->busy = false;
        l->fetched = k + 1;
        if (l->slots[k % SLOTS].status != MEST_OK)
            l->pause = true; /* the epoch ends here, once the caller has come to it */
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

static mest_status start_worker(mest_loader *l, mest_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the application's signals are not this thread's business */
    int code = pthread_create(&l->thread, NULL, work, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    MEST_CHECK(code == 0, err, MEST_E_NOMEM, "data loader: cannot start a thread: %s", strerror(code));
    l->started = true;
    return MEST_OK;
}

static mest_status read_info(mest_loader *l, mest_error *err)
{
    l->info.struct_size = sizeof l->info;
    MEST_TRY(l->source.info(l->source.self, &l->info, err));
    MEST_CHECK(l->info.count > 0, err, MEST_E_DATA, "data source: no samples");
    MEST_CHECK(l->info.n_inputs >= 0 && l->info.n_inputs <= MEST_SAMPLE_MAX_INPUTS, err, MEST_E_ARGUMENT, "data source: %d inputs, at most %d are possible",
               l->info.n_inputs, MEST_SAMPLE_MAX_INPUTS);
    MEST_CHECK(l->info.n_inputs ? l->source.fetch_inputs != NULL : l->source.fetch != NULL, err, MEST_E_ARGUMENT, "data source: %s must be set",
               l->info.n_inputs ? "fetch_inputs" : "fetch");
    for (l->n_inputs = 0; l->n_inputs < l->info.n_inputs; l->n_inputs++) {
        const mest_sample_input *in = &l->info.input[l->n_inputs];
        MEST_TRY(sample_bytes(in->name ? in->name : "input", in->type, in->rank, in->dim, &l->input_bytes[l->n_inputs], err));
    }
    if (l->n_inputs == 0) {
        MEST_TRY(sample_bytes("input", l->info.input_type, l->info.input_rank, l->info.input_dim, &l->input_bytes[0], err));
        l->n_inputs = 1;
    }
    if (l->info.has_targets)
        MEST_TRY(sample_bytes("target", l->info.target_type, l->info.target_rank, l->info.target_dim, &l->target_bytes, err));
    if (l->batch > l->info.count)
        l->batch = l->info.count; /* a batch is never larger than the set: no need for more memory */
    return MEST_OK;
}

static mest_status buffer(mest_loader *l, void **out, size_t sample, mest_error *err)
{
    size_t bytes = 0;
    MEST_CHECK(mest_mul(sample, (size_t)l->batch, &bytes) && bytes < SIZE_MAX / 2 && (*out = mest_calloc(l->heap, bytes + SLACK_BYTES, 1)), err,
               MEST_E_NOMEM, "data loader: no memory for a batch of %" PRId64 " x %zu bytes", l->batch, sample);
    return MEST_OK;
}

mest_status mest_loader_create(mest_loader **loader, mest_heap *heap, const mest_source *source, int64_t batch, mest_error *err)
{
    mest_status status;
    *loader = NULL;
    MEST_CHECK(source && source->struct_size >= offsetof(mest_source, fetch_inputs) && source->info, err, MEST_E_ARGUMENT,
               "data source: struct_size, info and fetch must be set");
    MEST_CHECK(batch > 0, err, MEST_E_ARGUMENT, "data loader: batch %" PRId64, batch);
    mest_loader *l = mest_calloc(heap, 1, sizeof *l);
    MEST_CHECK(l, err, MEST_E_NOMEM, "data loader: no memory");
    l->heap = heap;
    memcpy(&l->source, source, source->struct_size < sizeof l->source ? source->struct_size : sizeof l->source);
    l->batch = batch;
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->changed, NULL);
    MEST_TRY_OUT(read_info(l, err));
    l->order = mest_alloc(heap, (size_t)l->info.count, sizeof *l->order);
    if (!l->order) {
        status = mest_fail(err, MEST_E_NOMEM, "data loader: no memory for the order of %" PRId64 " samples", l->info.count);
        goto out;
    }
    for (int i = 0; i < SLOTS; i++) {
        for (int k = 0; k < l->n_inputs; k++) {
            MEST_TRY_OUT(buffer(l, &l->slots[i].inputs[k], l->input_bytes[k], err));
            l->slots[i].lent[k] = l->slots[i].inputs[k];
        }
        MEST_TRY_OUT(buffer(l, &l->slots[i].targets, l->target_bytes, err));
    }
    MEST_TRY_OUT(start_worker(l, err));
out:
    if (status == MEST_OK)
        *loader = l;
    else
        mest_loader_destroy(l);
    return status;
}

void mest_loader_destroy(mest_loader *l)
{
    if (!l)
        return;
    if (l->started) {
        pthread_mutex_lock(&l->mutex);
        l->quit = true;
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->mutex);
        pthread_join(l->thread, NULL);
    }
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->mutex);
    for (int i = 0; i < SLOTS; i++) {
        for (int k = 0; k < l->n_inputs; k++)
            mest_free(l->heap, l->slots[i].inputs[k], l->input_bytes[k] * (size_t)l->batch + SLACK_BYTES, 1);
        mest_free(l->heap, l->slots[i].targets, l->target_bytes * (size_t)l->batch + SLACK_BYTES, 1);
    }
    mest_free(l->heap, l->order, (size_t)l->info.count, sizeof *l->order);
    mest_free(l->heap, l, 1, sizeof *l);
}

const mest_source_info *mest_loader_info(const mest_loader *l) { return &l->info; }

/* Fisher-Yates from the end; the number drawn for place i depends on (seed, epoch, i) only. */
static void shuffle(int64_t *order, int64_t n, uint64_t seed, int64_t epoch)
{
    uint64_t stream = (uint64_t)MEST_STREAM_SHUFFLE << 32 | (uint32_t)epoch;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)mest_rng_below(seed, stream, (uint64_t)i, (uint64_t)i + 1);
        int64_t keep = order[i];
        order[i] = order[j];
        order[j] = keep;
    }
}

mest_status mest_loader_begin(mest_loader *l, const mest_sample_set *set, const mest_loader_plan *plan, mest_error *err)
{
    MEST_CHECK(!set || set->count == l->info.count, err, MEST_E_ARGUMENT, "data loader: a sample set of %" PRId64 " for a source of %" PRId64,
               set->count, l->info.count);
    MEST_CHECK(plan->first_batch >= 0, err, MEST_E_ARGUMENT, "data loader: first batch %" PRId64, plan->first_batch);
    pthread_mutex_lock(&l->mutex);
    l->pause = true; /* an epoch that was left in the middle: let the fetch under way finish */
    while (l->busy)
        pthread_cond_wait(&l->changed, &l->mutex);
    l->n_order = 0;
    for (int64_t id = 0; id < l->info.count; id++)
        if (!set || mest_sample_active(set, id))
            l->order[l->n_order++] = id;
    if (plan->shuffle)
        shuffle(l->order, l->n_order, plan->seed, plan->epoch);
    l->how = (mest_fetch){.struct_size = sizeof l->how, .seed = plan->seed, .epoch = plan->epoch, .augment = plan->augment};
    l->n_batches = plan->drop_last ? l->n_order / l->batch : (l->n_order + l->batch - 1) / l->batch;
    l->taken = l->fetched = plan->first_batch < l->n_batches ? plan->first_batch : l->n_batches;
    l->pause = false;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
    return MEST_OK;
}

int64_t mest_loader_bytes(const mest_loader *l)
{
    size_t n = l->target_bytes * (size_t)l->batch + SLACK_BYTES;
    for (int k = 0; k < l->n_inputs; k++)
        n += l->input_bytes[k] * (size_t)l->batch + SLACK_BYTES;
    return (int64_t)(n * SLOTS + (size_t)l->info.count * sizeof *l->order + sizeof *l);
}

int64_t mest_loader_batches(const mest_loader *l) { return l->n_batches; }

mest_status mest_loader_next(mest_loader *l, mest_batch *batch, mest_error *err)
{
    memset(batch, 0, sizeof *batch);
    pthread_mutex_lock(&l->mutex);
    int64_t k = l->taken;
    if (k >= l->n_batches) {
        pthread_mutex_unlock(&l->mutex);
        return MEST_OK;
    }
    while (l->fetched <= k)
        pthread_cond_wait(&l->changed, &l->mutex);
    slot *s = &l->slots[k % SLOTS];
    if (s->status == MEST_OK) {
        l->taken = k + 1; /* frees the other slot */
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->mutex);
    if (s->status != MEST_OK) /* batch k stays due: asking again gives the same answer */
        return mest_fail(err, s->status, "%s", s->error.msg[0] ? s->error.msg : "data source: fetch failed without a reason");
    batch->ids = l->order + k * l->batch;
    batch->n = batch_size(l, k);
    batch->n_inputs = l->n_inputs;
    batch->inputs = s->lent;
    batch->targets = l->info.has_targets ? s->targets : NULL;
    return MEST_OK;
}
