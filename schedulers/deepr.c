/* SPDX-License-Identifier: Apache-2.0 */
/* DeepR, deep rewiring (Bellec et al., ICLR 2018), in the form of gradient noise that later implementations use. In every step
 *
 *   1. the gradient of each stored weight gets l1 * sign(w) and normal noise of deviation sqrt(2 * eta * T), T the stage's temperature
 *   2. after the update, each weight whose sign changed goes (a weight of 0 has none; a unit of several weights: the inner product of
 *      before and after is negative), and as many grow at random places of the parameter, not where one has just gone
 *
 * New weights are 0 and take the sign of their first update. The number of units stays. No state; its lists keep their memory. */
#include "schedulers/method.h"

enum { MOST_STAGES = 8 };

typedef struct deepr {
    method m;
    double l1, eta, temperature[MOST_STAGES], stages[MOST_STAGES];
    int n_temperature, n_stages;
    int64_t *units, room; /* lists of a step: what goes, then what grows */
} deepr;

static const char option_text[] =
    "l1=1e-5           pull towards 0, added to each gradient with the weight's sign\n"
    "temperature=1e-5/1e-8/1e-12/1e-15  of the noise, per stage\n"
    "stages=.3/.6/.8   where the next stage begins, parts of the run\n"
    "eta=.01           the noise has deviation sqrt(2 * eta * temperature)\n"
    "start=0, stop=.95 parts of the run between which weights are rewired\n";
static const char option_names[] = "l1, temperature, stages, eta, start, stop";

static mest_status parse(deepr *d, const char *options, mest_error *err)
{
    mest_option o = mest_options("deepr", options);
    bool given = false;
    while (mest_option_next(&o, err)) {
        if (mest_option_is(&o, "l1"))
            mest_option_real(&o, 0, 1e6, &d->l1, err);
        else if (mest_option_is(&o, "temperature"))
            mest_option_list(&o, 0, 1e6, d->temperature, MOST_STAGES, &d->n_temperature, err);
        else if (mest_option_is(&o, "stages"))
            mest_option_list(&o, 0, 1, d->stages, MOST_STAGES, &d->n_stages, err), given = true;
        else if (mest_option_is(&o, "eta"))
            mest_option_real(&o, 0, 1e6, &d->eta, err);
        else if (mest_option_is(&o, "start"))
            mest_option_real(&o, 0, 1, &d->m.start, err);
        else if (mest_option_is(&o, "stop"))
            mest_option_real(&o, 0, 1, &d->m.stop, err);
        else
            mest_option_unknown(&o, option_names, err);
    }
    if (o.status != MEST_OK)
        return o.status;
    if (d->n_temperature == 1 && !given)
        d->n_stages = 0; /* one temperature: the default stages have no meaning */
    if (d->n_temperature != d->n_stages + 1)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler deepr: temperature has %d entries for %d stages (one more than boundaries)", d->n_temperature,
                                d->n_stages + 1);
    for (int i = 1; i < d->n_stages; i++)
        if (d->stages[i] < d->stages[i - 1])
            return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler deepr: stages must ascend");
    return method_window(&d->m, err);
}

static mest_status deepr_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    deepr d = { .m = { .name = "deepr", .api = api, .every = 1, .stop = .95 }, .l1 = 1e-5, .eta = .01, .temperature = { 1e-5, 1e-8, 1e-12, 1e-15 },
                .n_temperature = 4, .stages = { .3, .6, .8 }, .n_stages = 3 };
    mest_status status = parse(&d, options, err);
    status = status ? status : method_no_channels(&d.m, host, "looks at signs of single weights", "", err);
    return status ? status : method_keep(&d.m, host, &d, sizeof d, self, err);
}

static mest_status deepr_step_begin(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    const deepr *d = (const deepr *)self;
    int stage = 0;
    while (stage < d->n_stages && step->progress >= d->stages[stage])
        stage++;
    return d->m.api->perturb(host, d->l1, sqrt(2 * d->eta * d->temperature[stage]), err);
}

static mest_status make_room(deepr *d, mest_host *host, int64_t n, mest_error *err)
{
    if (2 * n <= d->room)
        return MEST_OK;
    method_give(&d->m, host, d->units, d->room, sizeof *d->units);
    d->room = 0;
    d->units = (int64_t *)method_take(&d->m, host, 3 * n, sizeof *d->units, err);
    if (!d->units)
        return MEST_E_NOMEM;
    d->room = 3 * n;
    return MEST_OK;
}

static mest_status rewire(deepr *d, mest_host *host, int param, int64_t step, mest_error *err)
{
    const method *m = &d->m;
    mest_sparse_info info;
    int64_t n;
    mest_status status = m->api->turned_units(host, param, d->room / 2, d->units, &n, err);
    if (status == MEST_OK && 2 * n > d->room) {
        status = make_room(d, host, n, err);
        if (status == MEST_OK)
            status = m->api->turned_units(host, param, d->room / 2, d->units, &n, err);
    }
    if (status == MEST_OK)
        status = method_info(m, host, param, &info, err);
    if (status != MEST_OK || n == 0)
        return status;
    int64_t *drop = d->units, *grow = d->units + n;
    const bool exclude = n <= info.n_units - info.n_active;
    status = m->api->drop(host, param, drop, n, err);
    if (status == MEST_OK)
        status = m->api->sample_inactive(host, param, (uint64_t)step, exclude ? drop : NULL, exclude ? n : 0, n, grow, err);
    return status ? status : m->api->grow(host, param, grow, n, err);
}

static mest_status deepr_step_end(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    deepr *d = (deepr *)self;
    mest_status status = MEST_OK;
    if (step->progress < d->m.start || step->progress >= d->m.stop)
        return MEST_OK;
    for (int p = 0; p < d->m.api->sparse_count(host) && status == MEST_OK; p++)
        status = rewire(d, host, p, step->step, err);
    return status;
}

static mest_status deepr_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    const method *m = &((deepr *)self)->m;
    char why[120];
    (void)err;
    snprintf(why, sizeof why, "no step is between start=%g and stop=%g of it", m->start, m->stop);
    if (method_at_beginning(e) && !method_any_due(m, e, m->start, m->stop, 0))
        method_idle(m->api, host, e, why);
    return MEST_OK;
}

static void deepr_destroy(void *self, mest_host *host)
{
    deepr *d = (deepr *)self;
    method_give(&d->m, host, d->units, d->room, sizeof *d->units);
    method_give(&d->m, host, self, 1, sizeof *d);
}

extern const mest_scheduler mest_scheduler_deepr;
const mest_scheduler mest_scheduler_deepr = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "deepr",
    .summary = "deep rewiring: noise and L1 in every step; a weight whose sign changes goes, a random one grows", .options = option_text,
    .create = deepr_create, .destroy = deepr_destroy, .epoch_begin = deepr_epoch_begin, .step_begin = deepr_step_begin, .step_end = deepr_step_end,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS,
};
