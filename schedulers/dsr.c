/* SPDX-License-Identifier: Apache-2.0 */
/* DSR, dynamic sparse reparameterization (Mostafa and Wang, ICML 2019). One threshold H for all parameters; at each update
 *
 *   1. active weights with |w| < H go (units of several weights: root mean square below H); K of them in all
 *   2. K far above the wanted number: H is halved; far below: doubled
 *   3. K units grow, each parameter's share by its active units after the removal, at random places, not where one has just gone
 *
 * so the number of units stays and they move between parameters. A parameter may hold `room` times its first number or an equal share of
 * all units, whichever is more; what does not fit goes to the others. State: H. */
#include "schedulers/method.h"

enum { MOST_STAGES = 8 };

typedef struct dsr {
    method m;
    double every[MOST_STAGES], stages[MOST_STAGES];
    int n_every, n_stages;
    double threshold, share, tolerance, room;
} dsr;

static const char option_text[] =
    "every=100/200/400/800  steps (or epochs) between updates, per stage\n"
    "stages=.125/.4/.7      where the next stage begins, parts of the run\n"
    "unit=steps             what every counts\n"
    "start=0, stop=.95      parts of the run between which updates happen\n"
    "threshold=1e-3         H at the beginning\n"
    "share=.1               part of the active units that an update should remove\n"
    "tolerance=.1           H changes when the removed number is off by more than this part\n"
    "room=2                 how far a parameter may grow: times its first number of units\n";
static const char option_names[] = "every, stages, unit, start, stop, threshold, share, tolerance, room";

static mest_status parse(dsr *d, const char *options, mest_error *err)
{
    mest_option o = mest_options("dsr", options);
    while (mest_option_next(&o, err)) {
        if (mest_option_is(&o, "every"))
            mest_option_list(&o, 1, 1e9, d->every, MOST_STAGES, &d->n_every, err);
        else if (mest_option_is(&o, "stages"))
            mest_option_list(&o, 0, 1, d->stages, MOST_STAGES, &d->n_stages, err);
        else if (method_when_option(&d->m, &o, err))
            continue;
        else if (mest_option_is(&o, "threshold"))
            mest_option_real(&o, 0, 1e6, &d->threshold, err);
        else if (mest_option_is(&o, "share"))
            mest_option_real(&o, 0, 1, &d->share, err);
        else if (mest_option_is(&o, "tolerance"))
            mest_option_real(&o, 0, 1, &d->tolerance, err);
        else if (mest_option_is(&o, "room"))
            mest_option_real(&o, 1, 1e6, &d->room, err);
        else
            mest_option_unknown(&o, option_names, err);
    }
    if (o.status != MEST_OK)
        return o.status;
    if (d->n_every == 1 && d->n_stages == 3 && d->stages[0] == .125)
        d->n_stages = 0; /* one interval: the default stages have no meaning */
    if (d->n_every != d->n_stages + 1)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler dsr: every has %d entries for %d stages (one more than boundaries)", d->n_every,
                                d->n_stages + 1);
    for (int i = 0; i < d->n_every; i++)
        if (d->every[i] != floor(d->every[i]) || (i > 0 && i < d->n_stages && d->stages[i] < d->stages[i - 1]))
            return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler dsr: every wants whole numbers, stages ascending ones");
    if (d->threshold <= 0)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler dsr: threshold must be above 0");
    return method_window(&d->m, err);
}

static mest_status reserve_room(const dsr *d, mest_host *host, mest_error *err)
{
    const method *m = &d->m;
    int n = m->api->sparse_count(host);
    int64_t target, active;
    mest_status status = method_totals(m, host, &target, &active, err);
    for (int p = 0; p < n && status == MEST_OK; p++) {
        mest_sparse_info info;
        status = method_info(m, host, p, &info, err);
        if (status == MEST_OK && info.group_units > 0)
            return mest_plugin_fail(err, MEST_E_UNSUPPORTED, "scheduler dsr: '%.100s' is %s: units of a balanced scheme cannot move to other parameters", info.name,
                                    info.scheme);
        double own = d->room * (double)info.n_active, equal = (double)active / (double)n, most = own > equal ? own : equal;
        if (status == MEST_OK)
            status = m->api->reserve(host, p, most < (double)info.n_units ? (int64_t)most : info.n_units, err);
    }
    return status;
}

static mest_status dsr_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    dsr d = { .m = { .name = "dsr", .api = api, .every = 1, .stop = .95 }, .every = { 100, 200, 400, 800 }, .stages = { .125, .4, .7 }, .n_every = 4,
              .n_stages = 3, .threshold = 1e-3, .share = .1, .tolerance = .1, .room = 2 };
    mest_status status = parse(&d, options, err);
    if (status == MEST_OK)
        status = method_count_epochs(&d.m, host, true, err);
    if (status == MEST_OK)
        status = reserve_room(&d, host, err);
    if (status != MEST_OK)
        return status;
    return method_keep(&d.m, host, &d, sizeof d, self, err);
}

/* ---- one update ---- */

typedef struct layer {
    mest_sparse_info info;
    int64_t below; /* units below the threshold */
} layer;

/* Counts, or with `drop` lists, the units below H. */
static mest_status below(const dsr *d, mest_host *host, int param, const mest_sparse_info *info, int64_t *n, int64_t *drop, mest_error *err)
{
    float norm[METHOD_PIECE];
    int64_t unit[METHOD_PIECE];
    const double limit = d->threshold * sqrt((double)info->unit_elements);
    *n = 0;
    for (int64_t at = 0; at < info->n_active; at += METHOD_PIECE) {
        int64_t k = info->n_active - at < METHOD_PIECE ? info->n_active - at : METHOD_PIECE;
        mest_status status = d->m.api->unit_scores(host, param, 0, false, at, k, norm, err);
        if (status == MEST_OK && drop)
            status = d->m.api->active_units(host, param, at, k, unit, err);
        if (status != MEST_OK)
            return status;
        for (int64_t i = 0; i < k; i++)
            if ((double)norm[i] < limit) {
                if (drop)
                    drop[*n] = unit[i];
                ++*n;
            }
    }
    return MEST_OK;
}

static mest_status change(const dsr *d, mest_host *host, int param, const layer *l, int64_t n_grow, uint64_t key, mest_error *err)
{
    const method *m = &d->m;
    int64_t room = l->below + n_grow, n, *drop;
    if (room == 0)
        return MEST_OK;
    drop = (int64_t *)method_take(m, host, room, sizeof *drop, err);
    if (!drop)
        return MEST_E_NOMEM;
    n = 0;
    mest_status status = l->below ? below(d, host, param, &l->info, &n, drop, err) : MEST_OK; /* 0: none goes, even if all are below the threshold */
    if (status == MEST_OK)
        status = m->api->drop(host, param, drop, n, err);
    if (status == MEST_OK)
        status = m->api->sample_inactive(host, param, key, drop, n, n_grow, drop + n, err);
    if (status == MEST_OK)
        status = m->api->grow(host, param, drop + n, n_grow, err);
    method_give(m, host, drop, room, sizeof *drop);
    return status;
}

static bool due(dsr *d, const mest_training_step *step)
{
    int stage = 0;
    while (stage < d->n_stages && step->progress >= d->stages[stage])
        stage++;
    d->m.every = (int64_t)d->every[stage];
    return method_due(&d->m, step);
}

static mest_status update(dsr *d, mest_host *host, const mest_training_step *step, mest_error *err)
{
    const method *m = &d->m;
    int n = m->api->sparse_count(host);
    if (n == 0 || !due(d, step))
        return MEST_OK;
    layer *l = (layer *)method_take(m, host, n, sizeof *l, err);
    int64_t *most = (int64_t *)method_take(m, host, 2 * n, sizeof *most, err), *grow = most ? most + n : NULL;
    double *weight = (double *)method_take(m, host, n, sizeof *weight, err);
    mest_status status = l && most && weight ? MEST_OK : MEST_E_NOMEM;
    int64_t removed = 0, active = 0;
    for (int p = 0; p < n && status == MEST_OK; p++) {
        status = method_info(m, host, p, &l[p].info, err);
        if (status == MEST_OK)
            status = below(d, host, p, &l[p].info, &l[p].below, NULL, err);
        if (status != MEST_OK)
            break;
        if (l[p].below == l[p].info.n_active || l[p].info.frozen)
            l[p].below = 0; /* a layer without weights would never come back */
        int64_t free = l[p].info.n_units - l[p].info.n_active, room = l[p].info.capacity - (l[p].info.n_active - l[p].below);
        most[p] = l[p].info.frozen ? 0 : free < room ? free : room;
        weight[p] = (double)(l[p].info.n_active - l[p].below);
        removed += l[p].below;
        active += l[p].info.n_active;
    }
    if (status == MEST_OK)
        (void)method_share_out(n, weight, most, grow, removed);
    for (int p = 0; p < n && status == MEST_OK; p++)
        if (l[p].below > 0 || grow[p] > 0)
            status = change(d, host, p, &l[p], grow[p], (uint64_t)step->step, err);
    if (status == MEST_OK) {
        const double want = d->share * (double)active, off = (double)removed - want;
        if (off > d->tolerance * want)
            d->threshold /= 2;
        else if (off < -d->tolerance * want && d->threshold < 1e6)
            d->threshold *= 2;
    }
    method_give(m, host, weight, n, sizeof *weight);
    method_give(m, host, most, 2 * n, sizeof *most);
    method_give(m, host, l, n, sizeof *l);
    return status;
}

static mest_status dsr_step_begin(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    return ((dsr *)self)->m.at_epochs ? MEST_OK : update((dsr *)self, host, step, err);
}

/* Each stage has an interval of its own. */
static void note_idle(dsr *d, mest_host *host, const mest_epoch *e)
{
    method *m = &d->m;
    char why[160];
    for (int i = 0; i <= d->n_stages; i++) {
        const double from = i > 0 && d->stages[i - 1] > m->start ? d->stages[i - 1] : m->start, to = i < d->n_stages && d->stages[i] < m->stop ? d->stages[i] : m->stop;
        m->every = (int64_t)d->every[i];
        if (from < to && method_any_due(m, e, from, to, 1))
            return;
    }
    snprintf(why, sizeof why, "updates are every=%lld%s %s from start=%g to stop=%g of it", (long long)d->every[0], d->n_every > 1 ? "/.." : "",
             m->unit == METHOD_EPOCHS ? "epochs" : "steps", m->start, m->stop);
    method_idle(m->api, host, e, why);
}

static mest_status dsr_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    if (method_at_beginning(e))
        note_idle((dsr *)self, host, e);
    const mest_training_step first = method_first_step(e);
    return ((dsr *)self)->m.at_epochs ? update((dsr *)self, host, &first, err) : MEST_OK;
}

static mest_status dsr_save(void *self, mest_state_io write, void *stream) { return write(stream, &((dsr *)self)->threshold, sizeof(double)); }

static mest_status dsr_load(void *self, mest_state_io read, void *stream)
{
    double h;
    mest_status status = read(stream, &h, sizeof h);
    if (status == MEST_OK && !(h > 0 && h < 1e300))
        status = MEST_E_FORMAT;
    if (status == MEST_OK)
        ((dsr *)self)->threshold = h;
    return status;
}

static void dsr_destroy(void *self, mest_host *host) { method_give(&((dsr *)self)->m, host, self, 1, sizeof(dsr)); }

extern const mest_scheduler mest_scheduler_dsr;
const mest_scheduler mest_scheduler_dsr = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "dsr",
    .summary = "dynamic sparse reparameterization: one threshold for all, weights move between layers", .options = option_text,
    .create = dsr_create, .save = dsr_save, .load = dsr_load, .destroy = dsr_destroy, .epoch_begin = dsr_epoch_begin, .step_begin = dsr_step_begin,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS,
};
