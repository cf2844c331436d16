/* SPDX-License-Identifier: Apache-2.0 */
/* SNFS, sparse networks from scratch by sparse momentum (Dettmers and Zettlemoyer 2019). Once an epoch, per parameter: the part `rate` of the
 * smallest weights goes; what went in all parameters is given out in proportion to the mean momentum of each parameter's active weights;
 * there the inactive units of largest smoothed gradient grow at 0.
 *
 * The smoothed gradient of a weight that is not stored needs a number for each weight, at every step, which is the memory of a dense network.
 *   memory=bounded  the last `window` steps before an update count. The first of them chooses, per parameter, `candidates` times as many
 *                   inactive units as may grow, by gradient; the moving average is kept for these only
 *   memory=dense    the method as published: a moving average for every weight over the whole run, and a dense product in every step
 * State: candidates or averages. */
#include "schedulers/method.h"

typedef struct layer {
    int64_t n, room;   /* candidates (bounded); all ids (dense) */
    int64_t *unit;     /* bounded: ascending */
    float *average;    /* [n, elements] moving average of the gradient */
    float *norm;       /* bounded: scratch of the choice */
    int32_t elements;
} layer;

typedef struct snfs {
    method m;
    mest_host *host;
    double beta, candidates, share_room;
    int64_t window;
    bool dense;
    int n;
    layer *layers;
    mest_probe probe;
    mest_gradient_top *top;
    bool fresh;        /* the watched step chooses candidates; the average begins with the next one */
} snfs;

static const char option_text[] =
    "rate=.5           part of the active units that is replaced\n"
    "decay=cosine      how rate falls to 0 at stop: constant, cosine, linear\n"
    "every=1           epochs between updates\n"
    "start=0, stop=1   parts of the run between which updates happen\n"
    "beta=.9           of the moving average of gradients\n"
    "memory=bounded    bounded: averages of candidates, over a window; dense: of all weights, over the run\n"
    "window=20         bounded: steps before an update that count\n"
    "candidates=3      bounded: candidates, times the units that may be expected to grow\n"
    "room=2            how far a parameter may grow: times its first number of units\n"
    "init=zero         new weights: zero, or normal with deviation sigma\n"
    "sigma=.1          see init\n";
static const char option_names[] = "rate, decay, every, start, stop, beta, memory, window, candidates, room, init, sigma";

/* ---- memory ---- */

static void free_layer(const snfs *s, mest_host *host, layer *l)
{
    method_give(&s->m, host, l->unit, s->dense ? 0 : l->room, sizeof *l->unit);
    method_give(&s->m, host, l->norm, l->room, sizeof *l->norm);
    method_give(&s->m, host, l->average, l->room * l->elements, sizeof *l->average);
    l->unit = NULL;
    l->norm = l->average = NULL;
    l->n = l->room = 0;
}

static mest_status make_layer(const snfs *s, mest_host *host, layer *l, int64_t n, int32_t elements, mest_error *err)
{
    free_layer(s, host, l);
    l->elements = elements;
    l->n = l->room = n;
    l->average = (float *)method_take(&s->m, host, n * elements, sizeof *l->average, err);
    if (l->average && !s->dense) {
        l->norm = (float *)method_take(&s->m, host, n, sizeof *l->norm, err);
        l->unit = (int64_t *)method_take(&s->m, host, n, sizeof *l->unit, err);
    }
    if (!l->average || (!s->dense && (!l->norm || !l->unit))) {
        free_layer(s, host, l);
        return MEST_E_NOMEM;
    }
    memset(l->average, 0, (size_t)(n * elements) * sizeof *l->average);
    return MEST_OK;
}

static void snfs_destroy(void *self, mest_host *host)
{
    snfs *s = (snfs *)self;
    for (int p = 0; p < s->n && s->layers; p++)
        free_layer(s, host, &s->layers[p]);
    method_give(&s->m, host, s->layers, s->n, sizeof *s->layers);
    method_give(&s->m, host, s->top, s->n, sizeof *s->top);
    method_give(&s->m, host, s, 1, sizeof *s);
}

static mest_status set_up(snfs *s, mest_host *host, mest_error *err)
{
    const method *m = &s->m;
    int64_t target, active, bytes = 0;
    mest_status status = method_totals(m, host, &target, &active, err);
    s->layers = (layer *)method_take(m, host, s->n, sizeof *s->layers, err);
    if (s->layers)
        memset(s->layers, 0, (size_t)s->n * sizeof *s->layers);
    s->top = (mest_gradient_top *)method_take(m, host, s->n, sizeof *s->top, err);
    if (!s->layers || !s->top)
        return MEST_E_NOMEM;
    memset(s->top, 0, (size_t)s->n * sizeof *s->top);
    for (int p = 0; p < s->n && status == MEST_OK; p++) {
        mest_sparse_info info;
        status = method_info(m, host, p, &info, err);
        if (status != MEST_OK)
            break;
        if (info.group_units > 0)
            return mest_plugin_fail(err, MEST_E_UNSUPPORTED, "scheduler snfs: '%.100s' is %s: units of a balanced scheme cannot move to other parameters", info.name,
                                    info.scheme);
        double own = s->share_room * (double)info.n_active, equal = (double)active / (double)s->n, most = own > equal ? own : equal;
        status = m->api->reserve(host, p, most < (double)info.n_units ? (int64_t)most : info.n_units, err);
        if (status == MEST_OK && s->dense) {
            status = make_layer(s, host, &s->layers[p], info.n_units, info.unit_elements, err);
            bytes += info.n_units * info.unit_elements * (int64_t)sizeof(float);
        }
    }
    if (status == MEST_OK && s->dense) {
        char text[160];
        snprintf(text, sizeof text, "memory=dense keeps %lld bytes of averages, as many numbers as the layers have weights", (long long)bytes);
        method_log(m, host, MEST_LOG_INFO, text);
    }
    return status;
}

static mest_status snfs_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    static const char *const memories[] = { "bounded", "dense", NULL };
    snfs v = { .m = { .name = "snfs", .api = api, .every = 1, .unit = METHOD_EPOCHS, .stop = 1, .rate = .5, .decay = METHOD_COSINE, .sigma = .1 }, .host = host,
               .beta = .9, .candidates = 3, .share_room = 2, .window = 20, .n = api->sparse_count(host) };
    mest_option o = mest_options("snfs", options);
    while (mest_option_next(&o, err)) {
        int memory = 0;
        if (mest_option_is(&o, "beta"))
            mest_option_real(&o, 0, .999999, &v.beta, err);
        else if (mest_option_is(&o, "memory")) {
            mest_option_choice(&o, memories, &memory, err);
            v.dense = memory == 1;
        } else if (mest_option_is(&o, "window"))
            mest_option_int(&o, 2, 1000000, &v.window, err);
        else if (mest_option_is(&o, "candidates"))
            mest_option_real(&o, 1, 1e6, &v.candidates, err);
        else if (mest_option_is(&o, "room"))
            mest_option_real(&o, 1, 1e6, &v.share_room, err);
        else if (!method_rate_option(&v.m, &o, err) && !method_when_option(&v.m, &o, err))
            mest_option_unknown(&o, option_names, err);
    }
    if (o.status == MEST_OK && v.m.unit != METHOD_EPOCHS)
        o.status = mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler snfs: updates come between epochs");
    if (o.status == MEST_OK)
        o.status = method_window(&v.m, err);
    if (o.status == MEST_OK)
        o.status = method_no_channels(&v.m, host, "looks at gradients of single weights", "", err);
    if (o.status != MEST_OK)
        return o.status;
    snfs *s = (snfs *)method_take(&v.m, host, 1, sizeof v, err);
    if (!s)
        return MEST_E_NOMEM;
    *s = v;
    mest_status status = set_up(s, host, err);
    if (status != MEST_OK) {
        snfs_destroy(s, host);
        return status;
    }
    *self = s;
    return MEST_OK;
}

/* ---- watching gradients ---- */

static mest_status visit(void *user, const mest_gradient_piece *piece, mest_error *err)
{
    snfs *s = (snfs *)user;
    layer *l = &s->layers[piece->param];
    (void)err;
    int64_t at = 0;
    for (int64_t i = 0; i < piece->n; i++) {
        float *average = NULL;
        if (s->dense) {
            average = l->average + piece->units[i] * l->elements;
        } else {
            if (i == 0) { /* pieces ascend, candidates too: find the first of this piece */
                int64_t high = l->n;
                while (at < high) {
                    int64_t middle = at + (high - at) / 2;
                    if (l->unit[middle] < piece->units[0])
                        at = middle + 1;
                    else
                        high = middle;
                }
            }
            while (at < l->n && l->unit[at] < piece->units[i])
                at++;
            if (at == l->n)
                break;
            if (l->unit[at] == piece->units[i])
                average = l->average + at * l->elements;
        }
        for (int32_t e = 0; average && e < l->elements; e++)
            average[e] = (float)(s->beta * (double)average[e] + (1 - s->beta) * (double)piece->gradients[i * l->elements + e]);
    }
    return MEST_OK;
}

/* Units that every parameter gives up and what all of them may be expected to get. */
static mest_status shares(const snfs *s, mest_host *host, double rate, int64_t *give, double *get, mest_error *err)
{
    const method *m = &s->m;
    int64_t total = 0;
    double sum = 0;
    float norm[METHOD_PIECE];
    for (int p = 0; p < s->n; p++) {
        mest_sparse_info info;
        double momentum = 0;
        mest_status status = method_info(m, host, p, &info, err);
        if (status == MEST_OK && info.frozen)
            status = mest_plugin_fail(err, MEST_E_UNSUPPORTED, "scheduler snfs: '%.100s' is frozen, layers cannot share with it", info.name);
        for (int64_t at = 0; status == MEST_OK && at < info.n_active; at += METHOD_PIECE) {
            int64_t n = info.n_active - at < METHOD_PIECE ? info.n_active - at : METHOD_PIECE;
            status = m->api->unit_momentum(host, p, at, n, norm, err);
            for (int64_t i = 0; i < n && status == MEST_OK; i++)
                momentum += (double)norm[i] / sqrt((double)info.unit_elements);
        }
        if (status != MEST_OK)
            return status;
        give[p] = method_part(rate, info.n_active, info.n_active > 0 ? info.n_active - 1 : 0);
        get[p] = info.n_active ? momentum / (double)info.n_active : 0;
        sum += get[p];
        total += give[p];
    }
    for (int p = 0; p < s->n; p++)
        get[p] = sum > 0 ? get[p] / sum * (double)total : (double)give[p];
    return MEST_OK;
}

/* The last steps of an epoch before an update? Then candidates, chosen in the first of them, gather their average. */
static mest_status watch_window(snfs *s, mest_host *host, const mest_training_step *step, mest_error *err)
{
    const method *m = &s->m;
    const int64_t first = step->n_batches > s->window ? step->n_batches - s->window : 0;
    if (step->n_batches < 2)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler snfs: an epoch of one step has no window to smooth gradients over");
    mest_training_step next = *step; /* the step that the update precedes */
    next.epoch++;
    next.batch = 0;
    next.step = step->step + step->n_batches - step->batch;
    next.progress = step->n_epochs > 0 ? (double)next.epoch / (double)step->n_epochs : step->progress;
    if (step->batch < first || !method_due(m, &next) || (step->n_epochs > 0 && next.epoch >= step->n_epochs))
        return MEST_OK;
    s->probe = (mest_probe){ .struct_size = sizeof s->probe, .user = s, .visit_param = -1 };
    s->fresh = step->batch == first;
    if (!s->fresh) {
        s->probe.visit = visit;
        return m->api->watch(host, &s->probe, err);
    }
    int64_t *give = (int64_t *)method_take(m, host, s->n, sizeof *give, err);
    double *get = (double *)method_take(m, host, s->n, sizeof *get, err);
    mest_status status = give && get ? shares(s, host, method_rate(m, &next), give, get, err) : MEST_E_NOMEM;
    for (int p = 0; p < s->n && status == MEST_OK; p++) {
        mest_sparse_info info;
        status = method_info(m, host, p, &info, err);
        if (status != MEST_OK)
            break;
        double want = s->candidates * (get[p] > (double)give[p] ? get[p] : (double)give[p]);
        int64_t n = want < (double)info.n_units ? (int64_t)want + 1 : info.n_units; /* an update of this step may free more than are free now */
        status = make_layer(s, host, &s->layers[p], n, info.unit_elements, err);
        s->layers[p].n = 0; /* until the step is over */
        s->top[p] = (mest_gradient_top){ .param = p, .k = n, .units = s->layers[p].unit, .norms = s->layers[p].norm };
    }
    method_give(m, host, get, s->n, sizeof *get);
    method_give(m, host, give, s->n, sizeof *give);
    s->probe.n_top = s->n;
    s->probe.top = s->top;
    return status ? status : m->api->watch(host, &s->probe, err);
}

static mest_status snfs_step_end(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    snfs *s = (snfs *)self;
    (void)host, (void)step, (void)err;
    for (int p = 0; s->fresh && p < s->n; p++)
        s->layers[p].n = s->top[p].found;
    s->fresh = false;
    return MEST_OK;
}

/* ---- the update ---- */

/* The k candidates of largest average that are inactive (`gone`, ascending, counts as inactive), as ascending units. Returns how many. */
static mest_status choose(const snfs *s, mest_host *host, int param, const mest_sparse_info *info, const int64_t *gone, int64_t n_gone, int64_t k, int64_t *out,
                          int64_t *found, mest_error *err)
{
    const method *m = &s->m;
    const layer *l = &s->layers[param];
    uint32_t *key = (uint32_t *)method_take(m, host, l->n, sizeof *key, err);
    int64_t active[METHOD_PIECE], at = 0, have = 0, used = 0, drop = 0, free = 0;
    if (!key)
        return MEST_E_NOMEM;
    for (int64_t i = 0; i < l->n; i++) {
        const int64_t unit = s->dense ? i : l->unit[i];
        for (;;) { /* the first active unit at or behind this one */
            if (used < have && active[used] >= unit)
                break;
            if (used < have) {
                used++;
                continue;
            }
            have = info->n_active - at < METHOD_PIECE ? info->n_active - at : METHOD_PIECE;
            used = 0;
            if (have == 0)
                break;
            mest_status status = m->api->active_units(host, param, at, have, active, err);
            if (status != MEST_OK) {
                method_give(m, host, key, l->n, sizeof *key);
                return status;
            }
            at += have;
        }
        while (drop < n_gone && gone[drop] < unit)
            drop++;
        bool held = used < have && active[used] == unit && !(drop < n_gone && gone[drop] == unit);
        double sum = 0;
        for (int32_t e = 0; e < l->elements; e++)
            sum += (double)l->average[i * l->elements + e] * (double)l->average[i * l->elements + e];
        key[i] = held ? 0 : method_key((float)sqrt(sum)); /* a norm's key is above 0 */
        free += !held;
    }
    k = k < free ? k : free;
    uint32_t limit = 0; /* the k-th largest key, bit by bit */
    for (int bit = 31; bit >= 0 && k > 0; bit--) {
        const uint32_t higher = limit | 1u << bit;
        int64_t n = 0;
        for (int64_t i = 0; i < l->n; i++)
            n += key[i] >= higher;
        if (n >= k)
            limit = higher;
    }
    int64_t above = 0, n = 0;
    for (int64_t i = 0; i < l->n; i++)
        above += key[i] > limit;
    for (int64_t i = 0, equal = k - above; i < l->n && n < k; i++)
        if (key[i] > limit || (key[i] == limit && key[i] > 0 && equal-- > 0))
            out[n++] = s->dense ? i : l->unit[i];
    *found = n;
    method_give(m, host, key, l->n, sizeof *key);
    return MEST_OK;
}

/* What parameter p can take: free units among the candidates, and room. */
static int64_t most_of(const snfs *s, const mest_sparse_info *info, const layer *l, int64_t give)
{
    int64_t room = info->capacity - (info->n_active - give), free = info->n_units - info->n_active, known = s->dense ? free + give : l->n;
    room = room < free + give ? room : free + give;
    return known < room ? known : room;
}

static mest_status update(snfs *s, mest_host *host, const mest_training_step *step, int64_t *give, int64_t *grow, int64_t *most, double *get, mest_error *err)
{
    const method *m = &s->m;
    mest_status status = shares(s, host, method_rate(m, step), give, get, err);
    int64_t left = 0;
    for (int p = 0; p < s->n && status == MEST_OK; p++) {
        mest_sparse_info info;
        status = method_info(m, host, p, &info, err);
        most[p] = status == MEST_OK ? most_of(s, &info, &s->layers[p], give[p]) : 0;
        left += give[p];
    }
    if (status == MEST_OK)
        left = method_share_out(s->n, get, most, grow, left);
    for (int p = 0; p < s->n && left > 0; p++) { /* nobody has room: fewer go */
        int64_t less = give[p] < left ? give[p] : left;
        give[p] -= less;
        left -= less;
    }
    for (int p = 0; p < s->n && status == MEST_OK; p++) {
        mest_sparse_info info;
        int64_t room = give[p] + grow[p], found = 0;
        if (room == 0)
            continue;
        int64_t *drop = (int64_t *)method_take(m, host, room, sizeof *drop, err);
        status = drop ? method_info(m, host, p, &info, err) : MEST_E_NOMEM;
        if (status == MEST_OK)
            status = m->api->lowest_units(host, p, 0, false, give[p], drop, err);
        if (status == MEST_OK)
            status = choose(s, host, p, &info, drop, give[p], grow[p], drop + give[p], &found, err);
        if (status == MEST_OK && found < grow[p])
            status = mest_plugin_fail(err, MEST_E_STATE, "scheduler snfs: '%.100s': another scheduler took candidates, %lld of %lld are left", info.name,
                                      (long long)found, (long long)grow[p]);
        if (status == MEST_OK)
            status = method_move(m, host, p, &info, (uint64_t)step->step, drop, give[p], drop + give[p], found, err);
        method_give(m, host, drop, room, sizeof *drop);
    }
    return status;
}

static void tell_memory(const snfs *s, mest_host *host, const mest_training_step *step)
{
    char text[200];
    long long averages = 0;
    for (int p = 0; p < s->n; p++)
        averages += s->layers[p].average ? (long long)(s->layers[p].n * s->layers[p].elements) * (long long)sizeof *s->layers[p].average : 0;
    snprintf(text, sizeof text, "update at step %lld; the gradients took %lld bytes beside the step's, averages %lld", (long long)step->step, (long long)s->probe.extra_bytes,
             averages);
    method_log(&s->m, host, MEST_LOG_DEBUG, text);
}

static mest_status snfs_step_begin(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    snfs *s = (snfs *)self;
    const method *m = &s->m;
    mest_status status = MEST_OK;
    bool gathered = s->dense || (s->n > 0 && s->layers[0].average);
    if (method_due(m, step) && gathered) {
        int64_t *give = (int64_t *)method_take(m, host, 3 * s->n, sizeof *give, err);
        double *get = (double *)method_take(m, host, s->n, sizeof *get, err);
        tell_memory(s, host, step);
        status = give && get ? update(s, host, step, give, give + s->n, give + 2 * s->n, get, err) : MEST_E_NOMEM;
        method_give(m, host, get, s->n, sizeof *get);
        method_give(m, host, give, 3 * s->n, sizeof *give);
        for (int p = 0; p < s->n && !s->dense; p++)
            free_layer(s, host, &s->layers[p]);
    }
    if (status != MEST_OK || s->n == 0)
        return status;
    if (!s->dense)
        return watch_window(s, host, step, err);
    s->probe = (mest_probe){ .struct_size = sizeof s->probe, .user = s, .visit_param = -1, .visit = visit };
    return m->api->watch(host, &s->probe, err);
}

/* ---- state ---- */

static mest_status snfs_save(void *self, mest_state_io write, void *stream)
{
    snfs *s = (snfs *)self;
    mest_status status = MEST_OK;
    for (int p = 0; p < s->n && status == MEST_OK; p++) {
        layer *l = &s->layers[p];
        int64_t head[2] = { l->average ? l->n : -1, l->elements };
        status = write(stream, head, sizeof head);
        if (status == MEST_OK && l->average && !s->dense)
            status = write(stream, l->unit, (size_t)l->n * sizeof *l->unit);
        if (status == MEST_OK && l->average)
            status = write(stream, l->average, (size_t)(l->n * l->elements) * sizeof *l->average);
    }
    return status;
}

static mest_status snfs_load(void *self, mest_state_io read, void *stream)
{
    snfs *s = (snfs *)self;
    mest_status status = MEST_OK;
    for (int p = 0; p < s->n && status == MEST_OK; p++) {
        layer *l = &s->layers[p];
        mest_sparse_info info;
        int64_t head[2];
        status = read(stream, head, sizeof head);
        if (status == MEST_OK)
            status = method_info(&s->m, s->host, p, &info, NULL);
        if (status != MEST_OK)
            break;
        if (head[0] < -1 || head[0] > info.n_units || (head[0] >= 0 && head[1] != info.unit_elements) || (s->dense && head[0] != info.n_units))
            return MEST_E_FORMAT;
        free_layer(s, s->host, l);
        if (head[0] < 0)
            continue;
        status = make_layer(s, s->host, l, head[0], (int32_t)head[1], NULL);
        if (status == MEST_OK && !s->dense)
            status = read(stream, l->unit, (size_t)l->n * sizeof *l->unit);
        for (int64_t i = 0; i < l->n && status == MEST_OK && !s->dense; i++)
            if (l->unit[i] < (i ? l->unit[i - 1] + 1 : 0) || l->unit[i] >= info.n_units)
                status = MEST_E_FORMAT;
        if (status == MEST_OK)
            status = read(stream, l->average, (size_t)(l->n * l->elements) * sizeof *l->average);
    }
    return status;
}

static mest_status snfs_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    method m = ((snfs *)self)->m;
    m.at_epochs = true; /* its updates come before the first step of an epoch */
    (void)err;
    return method_note_idle(&m, host, e);
}

extern const mest_scheduler mest_scheduler_snfs;
const mest_scheduler mest_scheduler_snfs = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "snfs",
    .summary = "sparse momentum: smallest weights go, those of largest smoothed gradient grow, layers share by momentum", .options = option_text,
    .create = snfs_create, .save = snfs_save, .load = snfs_load, .destroy = snfs_destroy, .epoch_begin = snfs_epoch_begin, .step_begin = snfs_step_begin, .step_end = snfs_step_end,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS,
};
