/* SPDX-License-Identifier: Apache-2.0 */
/* Data sieving and progressive layer freezing, as in SpFDE (Yuan et al., NeurIPS 2022).
 *
 * From the first epoch on a random part `fraction` of the samples is out; they wait in a queue. At the start of every `every`-th epoch the
 * `exchange` easiest of those that are trained on go to the end of the queue, and as many come back from its head. Easy are learned samples
 * that were forgotten least since the last exchange (right, then wrong at the next presentation); ties are broken at random, never-learned
 * ones are the hardest. When all that were out at first have come back, the queue is shuffled, and again after each round of it. The number of
 * samples that are trained on never changes.
 *
 * From `freeze_from` on, one more sparse layer is frozen at each exchange, from the input on, with everything that trains before it, until
 * `freeze_part` of the layers are.
 *
 * State: the queue (8 bytes a sample that is out), 16 bits a sample. */
#include "schedulers/method.h"

enum { RIGHT = 1, LEARNED = 2, EVENT = 4, MOST_EVENTS = 254, BINS = MOST_EVENTS + 2 };

typedef struct sieve {
    method m;
    mest_host *host;              /* load is called without it */
    double fraction, exchange, freeze_from, freeze_part;
    int64_t n, n_out, head, rounds; /* samples; of the queue: length, first one, how often it was gone through */
    int64_t frozen;               /* layers */
    int64_t *queue;
    uint16_t *state;              /* per sample: RIGHT last time, LEARNED, events since the last exchange */
} sieve;

static const char option_text[] =
    "fraction=.25      part of the samples that is out at any time\n"
    "exchange=.05      part of all samples that changes places at each exchange\n"
    "every=5           epochs between exchanges\n"
    "freeze_from=.75   part of the run from which layers are frozen, one at each exchange; 1: never\n"
    "freeze_part=.67   part of the sparse layers that is frozen in the end, at most\n";
static const char option_names[] = "fraction, exchange, every, freeze_from, freeze_part";

static void free_state(sieve *s, mest_host *host)
{
    method_give(&s->m, host, s->state, s->n, sizeof *s->state);
    method_give(&s->m, host, s->queue, s->n_out, sizeof *s->queue);
    s->state = NULL;
    s->queue = NULL;
}

static mest_status make_state(sieve *s, mest_host *host, int64_t n, int64_t n_out, mest_error *err)
{
    free_state(s, host);
    s->n = n;
    s->n_out = n_out;
    s->state = (uint16_t *)method_take(&s->m, host, n, sizeof *s->state, err);
    s->queue = s->state ? (int64_t *)method_take(&s->m, host, n_out, sizeof *s->queue, err) : NULL;
    if (!s->queue) {
        free_state(s, host);
        return MEST_E_NOMEM;
    }
    memset(s->state, 0, (size_t)n * sizeof *s->state);
    return MEST_OK;
}

static mest_status sieve_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    sieve s = { .m = { .name = "sieve", .api = api, .every = 5 }, .host = host, .fraction = .25, .exchange = .05, .freeze_from = .75, .freeze_part = .67 };
    mest_option o = mest_options("sieve", options);
    while (mest_option_next(&o, err)) {
        if (mest_option_is(&o, "fraction"))
            mest_option_real(&o, 0, .999, &s.fraction, err);
        else if (mest_option_is(&o, "exchange"))
            mest_option_real(&o, 0, 1, &s.exchange, err);
        else if (mest_option_is(&o, "every"))
            mest_option_int(&o, 1, 1000000000, &s.m.every, err);
        else if (mest_option_is(&o, "freeze_from"))
            mest_option_real(&o, 0, 1, &s.freeze_from, err);
        else if (mest_option_is(&o, "freeze_part"))
            mest_option_real(&o, 0, 1, &s.freeze_part, err);
        else
            mest_option_unknown(&o, option_names, err);
    }
    if (o.status == MEST_OK && s.freeze_from < 1 && s.freeze_part > 0)
        o.status = method_no_channels(&s.m, host, "freezes layers", "; freeze_from=1 freezes none", err);
    return o.status ? o.status : method_keep(&s.m, host, &s, sizeof s, self, err);
}

static void sieve_destroy(void *self, mest_host *host)
{
    sieve *s = (sieve *)self;
    free_state(s, host);
    method_give(&s->m, host, s, 1, sizeof *s);
}

/* ---- counting ---- */

static mest_status sieve_batch_seen(void *self, mest_host *host, const int64_t *ids, const uint8_t *correct, int64_t n, mest_error *err)
{
    sieve *s = (sieve *)self;
    (void)host;
    for (int64_t i = 0; i < n && s->state; i++) {
        if (correct[i] > 1)
            return mest_plugin_fail(err, MEST_E_UNSUPPORTED, "scheduler sieve: the task has no classes, so nothing is ever learned or forgotten");
        if (ids[i] < 0 || ids[i] >= s->n)
            return mest_plugin_fail(err, MEST_E_DATA, "scheduler sieve: sample %lld of %lld", (long long)ids[i], (long long)s->n);
        uint16_t *x = &s->state[ids[i]];
        if ((*x & RIGHT) && !correct[i] && *x / EVENT < MOST_EVENTS)
            *x = (uint16_t)(*x + EVENT);
        *x = (uint16_t)((*x & ~RIGHT) | (correct[i] ? RIGHT | LEARNED : 0));
    }
    return MEST_OK;
}

static int bin_of(uint16_t x) { return x & LEARNED ? x / EVENT : BINS - 1; }

/* ---- the queue ---- */

/* The order of a shuffle: every order is equally likely. */
static void shuffle(const sieve *s, mest_host *host, uint64_t stream)
{
    for (int64_t i = s->n_out; i > 1; i--) {
        int64_t k = (int64_t)(s->m.api->random(host, stream, (uint64_t)i) % (uint64_t)i), x = s->queue[k];
        s->queue[k] = s->queue[i - 1];
        s->queue[i - 1] = x;
    }
}

/* The first samples that are out: a random part, in random order; proposed at once. */
static mest_status begin(sieve *s, mest_host *host, const mest_epoch *e, mest_error *err)
{
    const int64_t n_out = (int64_t)(s->fraction * (double)e->n_active_samples + .5);
    if (n_out >= e->n_active_samples)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler sieve: %lld of %lld samples out leaves none", (long long)n_out, (long long)e->n_active_samples);
    mest_status status = make_state(s, host, e->n_samples, n_out, err);
    int64_t left = e->n_active_samples, need = n_out, n = 0;
    for (int64_t id = 0; id < s->n && status == MEST_OK && need > 0; id++) { /* selection sampling: ascending, each set equally likely */
        if (!s->m.api->sample_active(host, id))
            continue;
        if ((int64_t)(s->m.api->random(host, 0, (uint64_t)id) % (uint64_t)left) < need) {
            s->queue[n++] = id;
            need--;
        }
        left--;
    }
    if (status == MEST_OK)
        status = s->m.api->remove_samples(host, s->queue, n_out, err);
    if (status == MEST_OK)
        shuffle(s, host, 1);
    return status;
}

/* The n easiest samples that are trained on, ascending; ties at random. */
static mest_status easiest(const sieve *s, mest_host *host, int64_t n, uint64_t stream, int64_t *out, mest_error *err)
{
    int64_t *left = (int64_t *)method_take(&s->m, host, BINS, sizeof *left, err), found = 0, before = 0;
    if (!left)
        return MEST_E_NOMEM;
    memset(left, 0, BINS * sizeof *left);
    for (int64_t id = 0; id < s->n; id++)
        if (s->m.api->sample_active(host, id))
            left[bin_of(s->state[id])]++;
    int last = 0; /* the bin that is taken in part */
    while (last < BINS - 1 && before + left[last] < n)
        before += left[last++];
    int64_t need = n - before;
    for (int64_t id = 0; id < s->n && found < n; id++) {
        if (!s->m.api->sample_active(host, id))
            continue;
        const int b = bin_of(s->state[id]);
        bool take = b < last;
        if (b == last) {
            take = (int64_t)(s->m.api->random(host, stream, (uint64_t)id) % (uint64_t)left[last]) < need;
            need -= take;
            left[last]--;
        }
        if (take)
            out[found++] = id;
    }
    method_give(&s->m, host, left, BINS, sizeof *left);
    return MEST_OK;
}

static mest_status exchange(sieve *s, mest_host *host, const mest_epoch *e, mest_error *err)
{
    int64_t n = (int64_t)(s->exchange * (double)s->n + .5);
    n = n < s->n_out - s->head ? n : s->n_out - s->head; /* up to the end of this round */
    n = n < e->n_active_samples ? n : e->n_active_samples - 1;
    if (n <= 0)
        return MEST_OK;
    int64_t *goes = (int64_t *)method_take(&s->m, host, 2 * n, sizeof *goes, err), *back = goes ? goes + n : NULL;
    mest_status status = goes ? easiest(s, host, n, 2 * (uint64_t)e->epoch + 2, goes, err) : MEST_E_NOMEM;
    if (status == MEST_OK)
        status = s->m.api->remove_samples(host, goes, n, err);
    if (status == MEST_OK) {
        memcpy(back, s->queue + s->head, (size_t)n * sizeof *back);
        method_sort_ids(back, n);
        status = s->m.api->restore_samples(host, back, n, err);
    }
    if (status == MEST_OK) { /* the queue is full, so its end is where its head was */
        memcpy(s->queue + s->head, goes, (size_t)n * sizeof *goes);
        s->head += n;
        if (s->head == s->n_out) {
            s->head = 0;
            s->rounds++;
            shuffle(s, host, 2 * (uint64_t)e->epoch + 3);
        }
    }
    method_give(&s->m, host, goes, 2 * n, sizeof *goes);
    return status;
}

/* ---- epochs ---- */

static mest_status freeze_next(sieve *s, mest_host *host, mest_error *err)
{
    const int64_t most = (int64_t)(s->freeze_part * (double)s->m.api->sparse_count(host));
    char text[200];
    mest_sparse_info info = { .frozen = 1 };
    while (s->frozen < most && info.frozen) { /* what another one froze counts */
        mest_status status = method_info(&s->m, host, (int)s->frozen, &info, err);
        if (status == MEST_OK && !info.frozen) {
            status = s->m.api->freeze(host, (int)s->frozen, err);
            snprintf(text, sizeof text, "'%.100s' is frozen, %lld of %lld layers", info.name, (long long)s->frozen + 1, (long long)most);
            method_log(&s->m, host, MEST_LOG_INFO, text);
        }
        if (status != MEST_OK)
            return status;
        s->frozen++;
    }
    return MEST_OK;
}

static mest_status sieve_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    sieve *s = (sieve *)self;
    if (e->n_samples <= 0)
        return mest_plugin_fail(err, MEST_E_STATE, "scheduler sieve: there are no samples");
    if (method_at_beginning(e) && e->n_epochs > 0 && s->m.every >= e->n_epochs && s->exchange > 0) {
        char text[120];
        snprintf(text, sizeof text, "no samples change places in this run: it has %lld epochs, and exchanges are every=%lld", (long long)e->n_epochs, (long long)s->m.every);
        method_log(&s->m, host, MEST_LOG_WARNING, text);
    }
    if (!s->state)
        return begin(s, host, e, err);
    if (s->n != e->n_samples)
        return mest_plugin_fail(err, MEST_E_DATA, "scheduler sieve: there were %lld samples, now there are %lld", (long long)s->n, (long long)e->n_samples);
    if (e->epoch % s->m.every != 0)
        return MEST_OK;
    mest_status status = exchange(s, host, e, err);
    for (int64_t id = 0; id < s->n; id++) /* a new interval; what the last presentations were stays known */
        s->state[id] &= RIGHT | LEARNED;
    if (status == MEST_OK && s->freeze_from < 1) {
        if (e->n_epochs <= 0)
            return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler sieve: freeze_from is a part of a run whose number of epochs is not known");
        if ((double)e->epoch >= s->freeze_from * (double)e->n_epochs - 1e-9)
            status = freeze_next(s, host, err);
    }
    return status;
}

/* ---- state ---- */

static mest_status sieve_save(void *self, mest_state_io write, void *stream)
{
    sieve *s = (sieve *)self;
    int64_t head[5] = { s->state ? s->n : -1, s->n_out, s->head, s->rounds, s->frozen };
    mest_status status = write(stream, head, sizeof head);
    if (status == MEST_OK && s->state)
        status = write(stream, s->queue, (size_t)s->n_out * sizeof *s->queue);
    return status == MEST_OK && s->state ? write(stream, s->state, (size_t)s->n * sizeof *s->state) : status;
}

static mest_status sieve_load(void *self, mest_state_io read, void *stream)
{
    sieve *s = (sieve *)self;
    int64_t head[5];
    mest_status status = read(stream, head, sizeof head);
    if (status != MEST_OK)
        return status;
    if (head[0] < -1 || head[0] > INT64_MAX / 16 || head[1] < 0 || head[1] > head[0] + (head[0] < 0) || head[2] < 0 || head[2] > head[1] || head[3] < 0 || head[4] < 0 ||
        head[4] > s->m.api->sparse_count(s->host))
        return MEST_E_FORMAT;
    free_state(s, s->host);
    s->head = head[2];
    s->rounds = head[3];
    s->frozen = head[4];
    if (head[0] < 0)
        return MEST_OK;
    status = make_state(s, s->host, head[0], head[1], NULL);
    if (status == MEST_OK)
        status = read(stream, s->queue, (size_t)s->n_out * sizeof *s->queue);
    for (int64_t i = 0; i < s->n_out && status == MEST_OK; i++)
        if (s->queue[i] < 0 || s->queue[i] >= s->n)
            status = MEST_E_FORMAT;
    return status == MEST_OK ? read(stream, s->state, (size_t)s->n * sizeof *s->state) : status;
}

extern const mest_scheduler mest_scheduler_sieve;
const mest_scheduler mest_scheduler_sieve = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "sieve",
    .summary = "a part of the samples is always out, the easiest change places with them; layers freeze one by one", .options = option_text,
    .create = sieve_create, .epoch_begin = sieve_epoch_begin, .batch_seen = sieve_batch_seen, .save = sieve_save, .load = sieve_load, .destroy = sieve_destroy,
    .flags = MEST_SCHEDULER_CHOOSES_SAMPLES,
};
