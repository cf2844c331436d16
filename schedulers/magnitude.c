/* SPDX-License-Identifier: Apache-2.0 */
/* Magnitude pruning while training. Training begins with all weights stored; the units of smallest norm go, nothing grows.
 *
 *   gradual   every `every` steps of the run's part from start to stop, t running from 0 to 1 over it, to the sparsity
 *             s(t) = target + (initial - target) * (1 - t)^3         (Zhu and Gupta 2017)
 *   oneshot   at `start` to the target, all at once
 *
 * Scope `layer` takes each parameter to its own target; `global` compares norms over all parameters, divided by the square root of a
 * unit's weights. No state: what is due follows from the step and the number of units. */
#include "schedulers/method_select.h"

typedef struct magnitude {
    method m;
    bool oneshot, global;
    double initial;
} magnitude;

static const char option_text[] =
    "mode=gradual      gradual (cubic), or oneshot: all at start\n"
    "every=100         steps (or epochs) between prunings\n"
    "unit=steps        what every counts\n"
    "start=0, stop=.75 parts of the run between which it prunes (oneshot: start=.5)\n"
    "initial=0         sparsity at start\n"
    "scope=layer       layer: each parameter to its target; global: over all parameters\n";
static const char option_names[] = "mode, every, unit, start, stop, initial, scope";

/* No step begins at 1: what is to happen there never does, and the weights would stay dense. start == stop before that is at once. */
static mest_status check_window(const magnitude *g, mest_error *err)
{
    if (g->oneshot && g->m.start >= 1)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler magnitude: mode=oneshot with start=%g prunes after the last step, that is never", g->m.start);
    if (!g->oneshot && g->m.stop < g->m.start)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler magnitude: stop is before start: start=%g, stop=%g", g->m.start, g->m.stop);
    return g->oneshot || g->m.start < 1 ? MEST_OK : method_window(&g->m, err);
}

static mest_status magnitude_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    static const char *const modes[] = { "gradual", "oneshot", NULL }, *const scopes[] = { "layer", "global", NULL };
    magnitude g = { .m = { .name = "magnitude", .api = api, .every = 100, .start = -1, .stop = .75 } };
    int mode = 0, scope = 0;
    mest_option o = mest_options("magnitude", options);
    while (mest_option_next(&o, err)) {
        if (method_when_option(&g.m, &o, err))
            continue;
        if (mest_option_is(&o, "mode"))
            mest_option_choice(&o, modes, &mode, err);
        else if (mest_option_is(&o, "scope"))
            mest_option_choice(&o, scopes, &scope, err);
        else if (mest_option_is(&o, "initial"))
            mest_option_real(&o, 0, 1, &g.initial, err);
        else
            mest_option_unknown(&o, option_names, err);
    }
    g.oneshot = mode == 1;
    g.global = scope == 1;
    if (g.m.start < 0)
        g.m.start = g.oneshot ? .5 : 0;
    o.status = o.status ? o.status : check_window(&g, err);
    mest_status status = o.status == MEST_OK ? method_count_epochs(&g.m, host, !g.oneshot, err) : o.status;
    status = status ? status : method_all_stored(&g.m, host, err);
    if (status != MEST_OK)
        return status;
    return method_keep(&g.m, host, &g, sizeof g, self, err);
}

static double sparsity_at(const magnitude *g, double target, double progress)
{
    double t = g->m.stop > g->m.start ? (progress - g->m.start) / (g->m.stop - g->m.start) : 1;
    t = g->oneshot || t > 1 ? 1 : t < 0 ? 0 : t;
    double s = target + (g->initial - target) * (1 - t) * (1 - t) * (1 - t);
    return s < 0 ? 0 : s > target ? target : s;
}

static mest_status prune_layer(const magnitude *g, mest_host *host, int param, double progress, mest_error *err)
{
    const method *m = &g->m;
    mest_sparse_info info;
    mest_status status = method_info(m, host, param, &info, err);
    int64_t keep = status == MEST_OK ? method_units(m, host, param, sparsity_at(g, info.target_sparsity, progress)) : 0;
    int64_t n = status == MEST_OK && !info.frozen && info.n_active > keep ? info.n_active - keep : 0;
    return n == 0 ? status : method_drop_lowest(m, host, param, n, err);
}

static mest_status prune_all(const magnitude *g, mest_host *host, double progress, mest_error *err)
{
    int64_t keep = 0, target, active;
    mest_status status = method_totals(&g->m, host, &target, &active, err);
    for (int p = 0; p < g->m.api->sparse_count(host) && status == MEST_OK; p++) {
        mest_sparse_info info;
        status = method_info(&g->m, host, p, &info, err);
        if (status == MEST_OK)
            keep += method_units(&g->m, host, p, sparsity_at(g, info.target_sparsity, progress));
    }
    return status == MEST_OK && keep > 0 && keep < active ? method_select(&g->m, host, method_norms, 0, g->m.api->sparse_count(host), keep, err) : status;
}

static mest_status update(const magnitude *g, mest_host *host, const mest_training_step *step, mest_error *err)
{
    bool ended = step->progress >= (g->oneshot ? g->m.start : g->m.stop); /* the target is reached on the grid or off it */
    bool due = method_due(&g->m, step) || (step->step == 0 && g->m.start == 0 && g->initial > 0);
    mest_status status = MEST_OK;
    if (!ended && (g->oneshot || !due))
        return MEST_OK;
    if (g->global) /* once at the target, the number of units says that nothing is left to do */
        return prune_all(g, host, step->progress, err);
    for (int p = 0; p < g->m.api->sparse_count(host) && status == MEST_OK; p++)
        status = prune_layer(g, host, p, step->progress, err);
    return status;
}

/* Before the first step, with the length of the run: what would leave the weights dense is refused, what ends before the target is told. Where a step
 * begins at `stop` (oneshot: start) or later, all is well: whatever is left goes there. */
static mest_status look_ahead(const magnitude *g, mest_host *host, const mest_epoch *e, mest_error *err)
{
    const method *m = &g->m;
    const bool by_epochs = m->at_epochs || m->unit == METHOD_EPOCHS;
    const double n = m->at_epochs ? (double)e->n_epochs : (double)method_run_steps(e), last = (n - 1) / n;
    char text[200];
    if (n <= 0 || m->api->sparse_count(host) == 0 || last >= (g->oneshot ? m->start : m->stop))
        return MEST_OK;
    if (g->oneshot)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler magnitude: nothing would be pruned: the last of the run's %lld %s begins at %.6g of it, before start=%g", (long long)n,
                                m->at_epochs ? "epochs" : "steps", last, m->start);
    if (!method_any_due(m, e, m->start, m->stop, 1) && !(m->start == 0 && g->initial > 0))
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler magnitude: nothing would be pruned: no multiple of every=%lld %s is between start=%g and stop=%g of the run's %lld %s",
                                (long long)m->every, by_epochs ? "epochs" : "steps", m->start, m->stop, (long long)n, m->at_epochs ? "epochs" : "steps");
    const double all = by_epochs && !m->at_epochs ? n / (double)e->n_batches : n;
    const double t = (floor((ceil(all) - 1) / (double)m->every) * (double)m->every / all - m->start) / (m->stop - m->start), left = t < 0 ? 1 : (1 - t) * (1 - t) * (1 - t);
    if (left > .005) {
        snprintf(text, sizeof text, "the weights will not reach their target: no step begins at stop=%g or later, and the last pruning (every=%lld %s) goes %.0f %% of the way", m->stop,
                 (long long)m->every, by_epochs ? "epochs" : "steps", 100 * (1 - left));
        method_log(m, host, MEST_LOG_WARNING, text);
    }
    return MEST_OK;
}

static mest_status magnitude_step_begin(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    return ((magnitude *)self)->m.at_epochs ? MEST_OK : update((magnitude *)self, host, step, err);
}

static mest_status magnitude_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    const mest_training_step first = method_first_step(e);
    mest_status status = method_at_beginning(e) ? look_ahead((magnitude *)self, host, e, err) : MEST_OK;
    return status ? status : ((magnitude *)self)->m.at_epochs ? update((magnitude *)self, host, &first, err) : MEST_OK;
}

static void magnitude_destroy(void *self, mest_host *host) { method_give(&((magnitude *)self)->m, host, self, 1, sizeof(magnitude)); }

extern const mest_scheduler mest_scheduler_magnitude;
const mest_scheduler mest_scheduler_magnitude = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "magnitude",
    .summary = "magnitude pruning from all weights, gradual (cubic) or at once", .options = option_text,
    .create = magnitude_create, .destroy = magnitude_destroy, .epoch_begin = magnitude_epoch_begin, .step_begin = magnitude_step_begin,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS | MEST_SCHEDULER_STARTS_DENSE,
};
