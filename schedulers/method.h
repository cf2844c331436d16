/* SPDX-License-Identifier: Apache-2.0 */
/* What the schedulers of published methods share: when they are due, rates that fall over the run, units that change places, initial
 * values. Static functions only; an author outside the tree may copy the file.
 *
 *   method         the host's table and the options every method has
 *   method_window  refuses start and stop with nothing between
 *   method_due     is this step one of the method's?
 *   method_any_due will there be one? method_note_idle warns before a run in which there is none
 *   method_no_channels  refuses schemes that remove whole channels, before the run
 *   method_rate    the part that is replaced now
 *   method_move    proposes drops, growth and new values; a unit in both lists stays as it is
 */
#ifndef SCHEDULERS_METHOD_H
#define SCHEDULERS_METHOD_H

#include <math.h>

#include "mest/plugin.h"
#include "mest/plugin_options.h"

enum { METHOD_STEPS, METHOD_EPOCHS };
enum { METHOD_CONSTANT, METHOD_COSINE, METHOD_LINEAR };
enum { METHOD_ZERO, METHOD_NORMAL };
enum { METHOD_PIECE = 256 }; /* units that are looked at together */

typedef struct method {
    const char *name;
    const mest_host_api *api;
    int64_t every;     /* steps or epochs between updates */
    int unit;
    double start, stop; /* parts of the run between which updates happen */
    double rate;       /* part of the active units that is replaced */
    int decay;
    int init;
    double sigma;      /* of METHOD_NORMAL */
    bool at_epochs;    /* updates are in epoch_begin: see method_count_epochs */
} method;

/* "every", "unit", "start", "stop": true when the option was one of them. */
static inline bool method_when_option(method *m, mest_option *o, mest_error *err)
{
    static const char *const units[] = { "steps", "epochs", NULL };
    if (mest_option_is(o, "every"))
        mest_option_int(o, 1, 1000000000, &m->every, err);
    else if (mest_option_is(o, "unit"))
        mest_option_choice(o, units, &m->unit, err);
    else if (mest_option_is(o, "start"))
        mest_option_real(o, 0, 1, &m->start, err);
    else if (mest_option_is(o, "stop"))
        mest_option_real(o, 0, 1, &m->stop, err);
    else
        return false;
    return true;
}

/* A window in which nothing can happen is a mistake, not a wish: the last step's progress is below 1, and at `stop` it is over. */
static inline mest_status method_window(const method *m, mest_error *err)
{
    if (m->start < m->stop)
        return MEST_OK;
    return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler %s: no part of the run lies between start=%g and stop=%g, nothing would ever move", m->name, m->start, m->stop);
}

/* "rate", "decay", "init", "sigma" */
static inline bool method_rate_option(method *m, mest_option *o, mest_error *err)
{
    static const char *const decays[] = { "constant", "cosine", "linear", NULL }, *const inits[] = { "zero", "normal", NULL };
    if (mest_option_is(o, "rate"))
        mest_option_real(o, 0, 1, &m->rate, err);
    else if (mest_option_is(o, "decay"))
        mest_option_choice(o, decays, &m->decay, err);
    else if (mest_option_is(o, "init"))
        mest_option_choice(o, inits, &m->init, err);
    else if (mest_option_is(o, "sigma"))
        mest_option_real(o, 0, 1e6, &m->sigma, err);
    else
        return false;
    return true;
}

static inline mest_status method_fail(const method *m, mest_error *err, mest_status code, const char *what, const char *about)
{
    return mest_plugin_fail(err, code, "scheduler %s: %s%s%s", m->name, about, *about ? ": " : "", what);
}

static inline void method_log(const method *m, mest_host *host, mest_log_level level, const char *text) { m->api->log(host, level, text); }

static inline void *method_take(const method *m, mest_host *host, int64_t n, size_t size, mest_error *err)
{
    void *p = n >= 0 && (uint64_t)n <= SIZE_MAX / size ? m->api->allocate(host, (size_t)n * size) : NULL;
    if (!p)
        (void)mest_plugin_fail(err, MEST_E_NOMEM, "scheduler %s: no memory for %lld x %zu bytes", m->name, (long long)n, size);
    return p;
}

static inline void method_give(const method *m, mest_host *host, void *p, int64_t n, size_t size)
{
    if (p)
        m->api->release(host, p, (size_t)n * size);
}

/* The end of a scheduler's create: *self becomes a copy of `state`, which was filled in on the stack. */
static inline mest_status method_keep(const method *m, mest_host *host, const void *state, size_t size, void **self, mest_error *err)
{
    *self = method_take(m, host, 1, size, err);
    if (!*self)
        return MEST_E_NOMEM;
    memcpy(*self, state, size);
    return MEST_OK;
}

static inline mest_status method_info(const method *m, mest_host *host, int param, mest_sparse_info *info, mest_error *err)
{
    memset(info, 0, sizeof *info);
    info->struct_size = sizeof *info;
    return m->api->sparse_info(host, param, info, err);
}

/* Is a unit a whole channel of several layers? Their number changes between epochs only, no single weight or gradient of theirs can be asked for,
 * and what grows gets its first values from the host. */
static inline bool method_of_channels(const mest_sparse_info *info) { return !strcmp(info->scheme, "filter") || !strcmp(info->scheme, "channel"); }

/* The first parameter whose units are channels, with its information; -1: there is none. */
static inline int method_first_channels(const method *m, mest_host *host, mest_sparse_info *info, mest_error *err)
{
    for (int p = 0; p < m->api->sparse_count(host); p++)
        if (method_info(m, host, p, info, err) == MEST_OK && method_of_channels(info))
            return p;
    return -1;
}

/* For create: a method that is not for whole channels says so before the run. `does`: what of it is not; `instead`: what to ask for, or "". */
static inline mest_status method_no_channels(const method *m, mest_host *host, const char *does, const char *instead, mest_error *err)
{
    mest_sparse_info info;
    if (method_first_channels(m, host, &info, err) < 0)
        return MEST_OK;
    return mest_plugin_fail(err, MEST_E_UNSUPPORTED, "scheduler %s: it %s, but '%.100s' are removed as a whole (scheme %s)%s", m->name, does, info.name, info.scheme, instead);
}

/* For create of a method that changes the number of units: that of channels changes in epoch_begin only, where `at_epochs` says that updates are then. */
static inline mest_status method_count_epochs(method *m, mest_host *host, bool counts, mest_error *err)
{
    mest_sparse_info info;
    m->at_epochs = method_first_channels(m, host, &info, err) >= 0;
    if (m->at_epochs && counts && m->unit != METHOD_EPOCHS)
        return mest_plugin_fail(err, MEST_E_UNSUPPORTED, "scheduler %s: it counts steps, but the number of '%.100s' can change between epochs only: unit=epochs, and every=",
                                m->name, info.name);
    return MEST_OK;
}

/* The step that an epoch begins with. */
static inline mest_training_step method_first_step(const mest_epoch *e)
{
    mest_training_step s;
    memset(&s, 0, sizeof s);
    s.struct_size = sizeof s;
    s.step = e->step;
    s.epoch = e->epoch;
    s.n_epochs = e->n_epochs;
    s.progress = e->n_epochs > 0 ? (double)e->epoch / (double)e->n_epochs : 0;
    return s;
}

/* Units of a parameter that a sparsity of its elements leaves. */
static inline int64_t method_units(const method *m, mest_host *host, int param, double sparsity) { return m->api->units_at(host, param, sparsity); }

/* ---- when, how much ---- */

static inline bool method_due(const method *m, const mest_training_step *s)
{
    bool at = m->unit == METHOD_STEPS ? s->step > 0 && s->step % m->every == 0 : s->batch == 0 && s->epoch > 0 && s->epoch % m->every == 0;
    return at && s->progress >= m->start && (s->progress < m->stop || m->stop >= 1);
}

/* Before the first step of a run, in epoch_begin: what its length makes of the options is known here. */
static inline bool method_at_beginning(const mest_epoch *e) { return e->epoch == 0 && e->step == 0; }

/* Steps of the run, or 0: a host that does not say, or a loop of the caller's own. */
static inline int64_t method_run_steps(const mest_epoch *e)
{
    return e->struct_size >= offsetof(mest_epoch, n_steps) + sizeof e->n_steps && e->n_batches > 0 ? e->n_steps : 0;
}

/* Will method_due accept a step (at_epochs: the beginning of an epoch) of the run's part from start to stop, `first` or later? Without
 * stepping through the run, whose length decides; where that is not known the answer is yes. What lies on the edge counts. */
static inline bool method_any_due(const method *m, const mest_epoch *e, double start, double stop, int64_t first)
{
    const double steps = (double)method_run_steps(e);
    const double all = m->at_epochs ? (double)e->n_epochs : m->unit == METHOD_EPOCHS && steps > 0 ? steps / (double)e->n_batches : steps;
    if (all <= 0)
        return true;
    double at = ceil(start * all - 1e-6);
    at = at < (double)first ? (double)first : at;
    at = ceil(at / (double)m->every) * (double)m->every;
    return at < all - 1e-9 && (at / all < stop + 1e-9 || stop >= 1);
}

/* `why`: the options that make it so. */
static inline void method_idle(const mest_host_api *api, mest_host *host, const mest_epoch *e, const char *why)
{
    char text[320], length[80] = "";
    if (method_run_steps(e) > 0)
        snprintf(length, sizeof length, " (%lld steps)", (long long)method_run_steps(e));
    snprintf(text, sizeof text, "nothing will move in this run: it has %lld epoch%s%s, and %s", (long long)e->n_epochs, e->n_epochs == 1 ? "" : "s", length, why);
    if (api->sparse_count(host) > 0)
        api->log(host, MEST_LOG_WARNING, text);
}

/* For the epoch_begin of a method whose updates are where method_due says. */
static inline mest_status method_note_idle(const method *m, mest_host *host, const mest_epoch *e)
{
    char why[160];
    snprintf(why, sizeof why, "updates are every=%lld %s from start=%g to stop=%g of it", (long long)m->every, m->unit == METHOD_EPOCHS ? "epochs" : "steps", m->start, m->stop);
    if (method_at_beginning(e) && !method_any_due(m, e, m->start, m->stop, 1))
        method_idle(m->api, host, e, why);
    return MEST_OK;
}

static inline double method_rate(const method *m, const mest_training_step *s)
{
    double t = m->stop > m->start ? (s->progress - m->start) / (m->stop - m->start) : 0;
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    return m->decay == METHOD_COSINE ? m->rate * .5 * (1 + cos(3.14159265358979323846 * t)) : m->decay == METHOD_LINEAR ? m->rate * (1 - t) : m->rate;
}

/* round(rate * n), at most `most` */
static inline int64_t method_part(double rate, int64_t n, int64_t most)
{
    int64_t k = (int64_t)(rate * (double)n + .5);
    return k < most ? k : most;
}

/* ---- moving units ---- */

static inline void method_sort_ids(int64_t *a, int64_t n)
{
    for (int64_t gap = n / 2; gap > 0; gap /= 2)
        for (int64_t i = gap; i < n; i++) {
            int64_t x = a[i], k = i;
            for (; k >= gap && a[k - gap] > x; k -= gap)
                a[k] = a[k - gap];
            a[k] = x;
        }
}

/* Takes out of both ascending lists what is in both. */
static inline void method_cancel(int64_t *a, int64_t *n_a, int64_t *b, int64_t *n_b)
{
    int64_t i = 0, j = 0, x = 0, y = 0;
    while (i < *n_a || j < *n_b) {
        if (j >= *n_b || (i < *n_a && a[i] < b[j])) {
            a[x++] = a[i++];
        } else if (i >= *n_a || b[j] < a[i]) {
            b[y++] = b[j++];
        } else {
            i++;
            j++;
        }
    }
    *n_a = x;
    *n_b = y;
}

/* One standard normal number (Box and Muller 1958), keyed. */
static inline double method_normal(const method *m, mest_host *host, uint64_t stream, uint64_t counter)
{
    double a = ((double)(m->api->random(host, stream, 2 * counter) >> 11) + 1) * 0x1p-53, b = (double)(m->api->random(host, stream, 2 * counter + 1) >> 11) * 0x1p-53;
    return sqrt(-2 * log(a)) * cos(6.28318530717958647692 * b);
}

/* Initial values of new units that are not to be 0; key: of this update. Channels have those of the host. */
static inline mest_status method_fill(const method *m, mest_host *host, int param, const mest_sparse_info *info, uint64_t key, const int64_t *units, int64_t n,
                                      mest_error *err)
{
    int64_t count = n * info->unit_elements;
    if (m->init == METHOD_ZERO || n == 0 || method_of_channels(info))
        return MEST_OK;
    float *values = (float *)method_take(m, host, count, sizeof *values, err);
    if (!values)
        return MEST_E_NOMEM;
    for (int64_t i = 0; i < n; i++)
        for (int32_t e = 0; e < info->unit_elements; e++)
            values[i * info->unit_elements + e] =
                (float)(m->sigma * method_normal(m, host, key << 16 ^ (uint64_t)param, (uint64_t)(units[i] * info->unit_elements + e)));
    mest_status status = m->api->set_values(host, param, units, n, values, err);
    method_give(m, host, values, count, sizeof *values);
    return status;
}

/* The lists are ascending and are changed: what is in both is left out, such a unit keeps value and state. */
static inline mest_status method_move(const method *m, mest_host *host, int param, const mest_sparse_info *info, uint64_t key, int64_t *drop,
                                      int64_t n_drop, int64_t *grow, int64_t n_grow, mest_error *err)
{
    method_cancel(drop, &n_drop, grow, &n_grow);
    mest_status status = m->api->drop(host, param, drop, n_drop, err);
    if (status == MEST_OK)
        status = m->api->grow(host, param, grow, n_grow, err);
    return status ? status : method_fill(m, host, param, info, key, grow, n_grow, err);
}

/* Proposes dropping the n active units of smallest norm. */
static inline mest_status method_drop_lowest(const method *m, mest_host *host, int param, int64_t n, mest_error *err)
{
    int64_t *drop = (int64_t *)method_take(m, host, n, sizeof *drop, err);
    if (!drop)
        return MEST_E_NOMEM;
    mest_status status = m->api->lowest_units(host, param, 0, false, n, drop, err);
    if (status == MEST_OK)
        status = m->api->drop(host, param, drop, n, err);
    method_give(m, host, drop, n, sizeof *drop);
    return status;
}

/* Gives out `total` units in proportion to the weights, parameter i at most most[i]; what does not fit goes to the others. Returns what
 * nobody has room for. */
static inline int64_t method_share_out(int n, const double *weight, const int64_t *most, int64_t *share, int64_t total)
{
    int64_t left = total;
    for (int i = 0; i < n; i++)
        share[i] = 0;
    while (left > 0) { /* each round gives at least one unit, or nobody has room */
        double sum = 0;
        int64_t given = 0;
        for (int i = 0; i < n; i++)
            sum += share[i] < most[i] ? weight[i] + 1e-9 : 0;
        if (sum == 0)
            break;
        for (int i = 0; i < n; i++) {
            if (share[i] >= most[i])
                continue;
            int64_t k = (int64_t)((double)left * (weight[i] + 1e-9) / sum + .5);
            k = k > left - given ? left - given : k;
            k = k > most[i] - share[i] ? most[i] - share[i] : k;
            share[i] += k;
            given += k;
        }
        for (int i = 0; i < n && given == 0; i++) /* all shares round to 0 */
            if (share[i] < most[i])
                given = ++share[i] > 0;
        left -= given;
    }
    return left;
}

/* ---- numbers of all parameters ---- */

/* Floats as integers of the same order; NaN below everything. */
static inline uint32_t method_key(float x)
{
    uint32_t bits;
    if (x != x)
        return 0;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Units that the parameters' targets leave together, and those that are active now. */
static inline mest_status method_totals(const method *m, mest_host *host, int64_t *target, int64_t *active, mest_error *err)
{
    *target = *active = 0;
    for (int p = 0; p < m->api->sparse_count(host); p++) {
        mest_sparse_info info;
        mest_status status = method_info(m, host, p, &info, err);
        if (status != MEST_OK)
            return status;
        *target += method_units(m, host, p, info.target_sparsity);
        *active += info.n_active;
    }
    return MEST_OK;
}

/* For methods that begin with all weights: is every unit stored? */
static inline mest_status method_all_stored(const method *m, mest_host *host, mest_error *err)
{
    for (int p = 0; p < m->api->sparse_count(host); p++) {
        mest_sparse_info info;
        mest_status status = method_info(m, host, p, &info, err);
        if (status != MEST_OK)
            return status;
        if (info.n_active < info.n_units)
            return mest_plugin_fail(err, MEST_E_STATE, "scheduler %s: '%.100s' stores %lld of %lld units; the method begins with all of them (start_dense)", m->name,
                                    info.name, (long long)info.n_active, (long long)info.n_units);
    }
    return MEST_OK;
}

#endif
