/* SPDX-License-Identifier: Apache-2.0 */
/* RigL, the rigged lottery (Evci et al., ICML 2020). Every `every` steps until the part `stop` of the run, per parameter:
 *
 *   k = round(rate / 2 * (1 + cos(pi * t / stop)) * active)
 *   the k active units of smallest norm go, and the k of largest dense gradient grow, of those that are inactive after the drop
 *
 * A unit that goes and grows in one update keeps its value and optimizer state; new ones start at 0. The update takes the place of that
 * step's optimizer update. The gradients are those of the step's batch, read one layer at a time (mest_probe): beside a training step it
 * takes the lists of k units (20 bytes each) and the probe's buffers. No state. */
#include "schedulers/method.h"

typedef struct rigl {
    method m;
    bool skip;
} rigl;

static const char option_text[] =
    "rate=.3           part of the active units that is replaced, alpha of the paper\n"
    "decay=cosine      how rate falls to 0 at stop: constant, cosine, linear\n"
    "every=100         steps (or epochs) between updates\n"
    "unit=steps        what every counts\n"
    "start=0, stop=.75 parts of the run between which updates happen\n"
    "init=zero         new weights: zero, or normal with deviation sigma\n"
    "sigma=.1          see init\n"
    "skip=yes          no optimizer update in the steps of an update\n";
static const char option_names[] = "rate, decay, every, unit, start, stop, init, sigma, skip";

static mest_status rigl_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    rigl r = { .m = { .name = "rigl", .api = api, .every = 100, .stop = .75, .rate = .3, .decay = METHOD_COSINE, .sigma = .1 }, .skip = true };
    mest_option o = mest_options("rigl", options);
    while (mest_option_next(&o, err)) {
        if (method_when_option(&r.m, &o, err) || method_rate_option(&r.m, &o, err))
            continue;
        if (mest_option_is(&o, "skip"))
            mest_option_bool(&o, &r.skip, err);
        else
            mest_option_unknown(&o, option_names, err);
    }
    mest_status status = o.status ? o.status : method_window(&r.m, err);
    status = status ? status : method_no_channels(&r.m, host, "looks at gradients of single weights", "", err);
    return status ? status : method_keep(&r.m, host, &r, sizeof r, self, err);
}

/* Lists of one update: per parameter k units that go, k that grow, k norms. */
typedef struct update {
    int n;
    mest_gradient_top *top; /* also: the list that goes */
    int64_t total;          /* units of all lists */
    int64_t *units;         /* [2 * total] */
    float *norms;           /* [total] */
} update;

static void free_update(const method *m, mest_host *host, update *u)
{
    method_give(m, host, u->norms, u->total, sizeof *u->norms);
    method_give(m, host, u->units, 2 * u->total, sizeof *u->units);
    method_give(m, host, u->top, u->n, sizeof *u->top);
}

/* Chooses what goes. */
static mest_status make_update(const method *m, mest_host *host, double rate, update *u, mest_error *err)
{
    mest_sparse_info info;
    mest_status status = MEST_OK;
    memset(u, 0, sizeof *u);
    u->n = m->api->sparse_count(host);
    u->top = (mest_gradient_top *)method_take(m, host, u->n, sizeof *u->top, err);
    if (!u->top)
        return MEST_E_NOMEM;
    memset(u->top, 0, (size_t)u->n * sizeof *u->top);
    for (int p = 0; p < u->n && status == MEST_OK; p++) {
        status = method_info(m, host, p, &info, err);
        int64_t k = info.n_active == info.n_units || info.frozen ? 0 : method_part(rate, info.n_active, info.n_active);
        u->top[p].param = p;
        u->top[p].k = u->top[p].n_also = k;
        u->total += k;
    }
    if (status == MEST_OK && (!(u->units = (int64_t *)method_take(m, host, 2 * u->total, sizeof *u->units, err)) ||
                              !(u->norms = (float *)method_take(m, host, u->total, sizeof *u->norms, err))))
        status = MEST_E_NOMEM;
    int64_t at = 0;
    for (int p = 0; p < u->n && status == MEST_OK; p++) {
        mest_gradient_top *t = &u->top[p];
        t->also = u->units + at;
        t->units = u->units + u->total + at;
        t->norms = u->norms + at;
        status = m->api->lowest_units(host, p, 0, false, t->k, u->units + at, err);
        at += t->k;
    }
    return status;
}

static mest_status rigl_step_begin(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    const rigl *r = (const rigl *)self;
    const method *m = &r->m;
    update u;
    if (!method_due(m, step))
        return MEST_OK;
    mest_status status = make_update(m, host, method_rate(m, step), &u, err);
    if (status == MEST_OK && u.total > 0) {
        mest_probe probe;
        memset(&probe, 0, sizeof probe);
        probe.struct_size = sizeof probe;
        probe.n_top = u.n;
        probe.top = u.top;
        status = m->api->probe(host, &probe, err);
        int64_t at = 0;
        for (int p = 0; p < u.n && status == MEST_OK; p++) {
            mest_sparse_info info;
            mest_gradient_top *t = &u.top[p];
            status = method_info(m, host, p, &info, err);
            if (status == MEST_OK) /* found == k: what goes is free as well */
                status = method_move(m, host, p, &info, (uint64_t)step->step, u.units + at, t->k, t->units, t->found, err);
            at += t->k;
        }
        if (status == MEST_OK && r->skip)
            status = m->api->skip_update(host, err);
        char text[160];
        snprintf(text, sizeof text, "update at step %lld, rate %.4g; the gradients took %lld bytes beside the step's, lists %lld", (long long)step->step,
                 method_rate(m, step), (long long)probe.extra_bytes, (long long)(u.total * 20));
        method_log(m, host, MEST_LOG_DEBUG, text);
    }
    free_update(m, host, &u);
    return status;
}

static mest_status rigl_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    (void)err;
    return method_note_idle(&((rigl *)self)->m, host, e);
}

static void rigl_destroy(void *self, mest_host *host) { method_give(&((rigl *)self)->m, host, self, 1, sizeof(rigl)); }

extern const mest_scheduler mest_scheduler_rigl;
const mest_scheduler mest_scheduler_rigl = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "rigl",
    .summary = "RigL: the smallest weights go, those of largest gradient grow", .options = option_text,
    .create = rigl_create, .destroy = rigl_destroy, .epoch_begin = rigl_epoch_begin, .step_begin = rigl_step_begin,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS,
};
