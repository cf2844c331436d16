/* SPDX-License-Identifier: Apache-2.0 */
/* MEST: memory-economic sparse training (Yuan et al., NeurIPS 2021). One code path for its three modes:
 *
 *   at the start of an epoch that is due, for each sparse parameter of U units
 *     1. drop the units of smallest score ||w|| + lambda * ||g|| until round((1 - prune_to[stage]) * U) are left
 *     2. grow uniformly drawn inactive units, value 0, until round((1 - grow_to[stage]) * U) are active
 *
 *   vanilla   prune_to = target + rate * density, grow_to = target: one stage, the same rate to the end
 *   em        the same with a rate that falls from stage to stage to 0 (elastic mutation)
 *   ems       prune_to = target, grow_to = target - bound with a bound that falls to 0 (soft memory bound): new units are trained
 *             beside the old ones for an interval before the weakest of both go
 *
 * Nothing of the mask is kept here: the stage follows from the epoch, random numbers are keyed by it, so there is no state to save. */
#include "schedulers/method.h"

enum { MAX_STAGES = 8 };
enum { VANILLA, EM, EMS };

typedef struct list {
    double at[MAX_STAGES];
    int n;
} list;

typedef struct mest_self {
    const mest_host_api *api;
    int mode, n_stages;
    double target;               /* < 0: each parameter's own */
    int64_t freq, first, last;
    list boundaries;             /* where the next stage begins */
    bool fractions;              /* boundaries are fractions of the run, not epochs */
    list prune_to, grow_to;      /* absolute sparsities, if given; otherwise from rate and bound */
    list rate, bound;
    double lambda;
    bool normalised, exclude_just_removed;
} mest_self;

static const char option_text[] =
    "mode=em                em, ems (soft memory bound) or vanilla\n"
    "target=                final sparsity, 0..1; default: what each parameter was made sparse with\n"
    "freq=5                 epochs between mutations, the first one at epoch 0\n"
    "boundaries=.5625/.75   where the next stage begins: fractions of the run (all below 1), or epochs\n"
    "rate=.2/.1/0           per stage: fraction of the active units that is removed (vanilla: one number, .2; ems: 0)\n"
    "bound=.05/.025/0       ems, per stage: density added to the target's\n"
    "prune_to=              per stage: sparsity after removal, instead of rate\n"
    "grow_to=               per stage: sparsity after growth, instead of bound\n"
    "lambda=0               weight of the gradient's norm in the score\n"
    "normalised=no          divide both terms of the score by their means\n"
    "exclude_just_removed=no  do not grow what was removed a moment ago, while there are enough others\n"
    "first=0, last=         first and last epoch of mutations; ems reaches its target in any case\n";
static const char option_names[] =
    "mode, target, freq, boundaries, rate, bound, prune_to, grow_to, lambda, normalised, exclude_just_removed, first, last";

static mest_status parse(mest_self *m, const char *options, mest_error *err)
{
    static const char *const modes[] = { "vanilla", "em", "ems", NULL };
    mest_option o = mest_options("mest", options);
    while (mest_option_next(&o, err)) {
        if (mest_option_is(&o, "mode"))
            mest_option_choice(&o, modes, &m->mode, err);
        else if (mest_option_is(&o, "target"))
            mest_option_real(&o, 0, 1, &m->target, err);
        else if (mest_option_is(&o, "freq"))
            mest_option_int(&o, 1, 1000000, &m->freq, err);
        else if (mest_option_is(&o, "boundaries"))
            mest_option_list(&o, 0, 1e9, m->boundaries.at, MAX_STAGES - 1, &m->boundaries.n, err);
        else if (mest_option_is(&o, "rate"))
            mest_option_list(&o, 0, 1, m->rate.at, MAX_STAGES, &m->rate.n, err);
        else if (mest_option_is(&o, "bound"))
            mest_option_list(&o, 0, 1, m->bound.at, MAX_STAGES, &m->bound.n, err);
        else if (mest_option_is(&o, "prune_to"))
            mest_option_list(&o, 0, 1, m->prune_to.at, MAX_STAGES, &m->prune_to.n, err);
        else if (mest_option_is(&o, "grow_to"))
            mest_option_list(&o, 0, 1, m->grow_to.at, MAX_STAGES, &m->grow_to.n, err);
        else if (mest_option_is(&o, "lambda"))
            mest_option_real(&o, 0, 1e9, &m->lambda, err);
        else if (mest_option_is(&o, "normalised"))
            mest_option_bool(&o, &m->normalised, err);
        else if (mest_option_is(&o, "exclude_just_removed"))
            mest_option_bool(&o, &m->exclude_just_removed, err);
        else if (mest_option_is(&o, "first"))
            mest_option_int(&o, 0, INT64_MAX / 1024, &m->first, err);
        else if (mest_option_is(&o, "last"))
            mest_option_int(&o, 0, INT64_MAX / 1024, &m->last, err);
        else
            mest_option_unknown(&o, option_names, err);
    }
    return o.status;
}

static mest_status invalid(mest_error *err, const char *why) { return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler mest: %s", why); }

static mest_status check_boundaries(mest_self *m, mest_error *err)
{
    const list *b = &m->boundaries;
    m->fractions = b->n > 0 && b->at[0] < 1 && b->at[b->n - 1] < 1;
    for (int i = 0; i < b->n; i++) {
        if (!m->fractions && b->at[i] != (double)(int64_t)b->at[i])
            return invalid(err, "boundaries must be all fractions below 1 or all whole epochs");
        if (i && b->at[i] < b->at[i - 1])
            return invalid(err, "boundaries must ascend");
    }
    return MEST_OK;
}

static mest_status check_length(const list *l, int n, const char *name, mest_error *err)
{
    if (l->n != 0 && l->n != n)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler mest: %s has %d entries for %d stages (one more than boundaries)", name, l->n, n);
    return MEST_OK;
}

static int64_t next_on_grid(const mest_self *m, int64_t epoch) { return (epoch + m->freq - 1) / m->freq * m->freq; }

static mest_status check_window(const mest_self *m, mest_error *err)
{
    if (next_on_grid(m, m->first) > m->last)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler mest: no mutation is due between first=%lld and last=%lld (freq=%lld)", (long long)m->first,
                                (long long)m->last, (long long)m->freq);
    return MEST_OK;
}

static mest_status check_lists(mest_self *m, mest_error *err)
{
    static const list em_rate = { { .2, .1, 0 }, 3 }, ems_bound = { { .05, .025, 0 }, 3 }, thirds = { { .5625, .75 }, 2 };
    if (m->mode == VANILLA) {
        if (m->boundaries.n > 0)
            return invalid(err, "vanilla has one stage and no boundaries");
    } else if (m->boundaries.n == 0) {
        m->boundaries = thirds;
    }
    m->n_stages = m->boundaries.n + 1;
    if (m->prune_to.n && m->rate.n)
        return invalid(err, "give either prune_to or rate");
    if (m->grow_to.n && m->bound.n)
        return invalid(err, "give either grow_to or bound");
    if (m->bound.n && m->mode != EMS)
        return invalid(err, "bound is an option of mode=ems");
    if (!m->prune_to.n && !m->rate.n && m->mode == EM)
        m->rate = em_rate;
    if (!m->prune_to.n && !m->rate.n && m->mode == VANILLA)
        m->rate = (list){ { .2 }, 1 };
    if (!m->grow_to.n && !m->bound.n && m->mode == EMS)
        m->bound = ems_bound;
    mest_status status = check_length(&m->prune_to, m->n_stages, "prune_to", err);
    status = status ? status : check_length(&m->grow_to, m->n_stages, "grow_to", err);
    status = status ? status : check_length(&m->rate, m->n_stages, "rate", err);
    status = status ? status : check_length(&m->bound, m->n_stages, "bound", err);
    return status ? status : check_boundaries(m, err);
}

/* The two sparsities of a stage for a parameter whose target is `target`. */
static void stage_of_target(const mest_self *m, double target, int stage, double *prune_to, double *grow_to)
{
    *prune_to = m->prune_to.n ? m->prune_to.at[stage] : target + (m->rate.n ? m->rate.at[stage] : 0) * (1 - target);
    *grow_to = m->grow_to.n ? m->grow_to.at[stage] : target - (m->bound.n ? m->bound.at[stage] : 0);
    if (!m->grow_to.n && *grow_to < 0)
        *grow_to = 0; /* a layer that is nearly dense (distribution erk) has room for less than the bound */
}

static bool same(double a, double b) { return a - b < 1e-9 && b - a < 1e-9; }

static mest_status check_target(const mest_self *m, const char *name, double target, mest_error *err)
{
    double prune_to, grow_to;
    for (int st = 0; st < m->n_stages; st++) {
        bool end = st == m->n_stages - 1;
        const char *fault = NULL;
        stage_of_target(m, target, st, &prune_to, &grow_to);
        if (grow_to < -1e-9)
            fault = "grow_to must not be negative";
        else if (prune_to < target - 1e-9)
            fault = "prune_to must not be below the target";
        else if (grow_to > prune_to + 1e-9)
            fault = "grow_to must not be above prune_to";
        else if (m->mode != EMS && !same(grow_to, target))
            fault = "grow_to must be the target in each stage, or mode=ems";
        else if (end && (!same(grow_to, target) || (m->mode != VANILLA && !same(prune_to, target))))
            fault = "the last stage must end and stay at the target: prune_to and grow_to equal to it, rate and bound 0";
        if (fault)
            return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler mest: %s: stage %d with target %g, prune_to %g, grow_to %g: %s", name, st,
                                    target, prune_to, grow_to, fault);
    }
    return MEST_OK;
}

static mest_status look(const mest_self *m, mest_host *host, int param, mest_sparse_info *info, double *target, mest_error *err)
{
    memset(info, 0, sizeof *info);
    info->struct_size = sizeof *info;
    mest_status status = m->api->sparse_info(host, param, info, err);
    *target = m->target >= 0 ? m->target : info->target_sparsity;
    return status;
}

/* Checks the stages against each parameter's target, and reserves the peak: the densest stage. */
static mest_status prepare(mest_self *m, mest_host *host, mest_error *err)
{
    const int n = m->api->sparse_count(host);
    double most = 0, target, prune_to, grow_to;
    for (int p = 0; p < n; p++) {
        mest_sparse_info info;
        mest_status status = look(m, host, p, &info, &target, err);
        if (status == MEST_OK)
            status = check_target(m, info.name, target, err);
        for (int st = 0; st < m->n_stages && status == MEST_OK; st++) {
            stage_of_target(m, target, st, &prune_to, &grow_to);
            status = m->api->reserve(host, p, m->api->units_at(host, p, grow_to), err);
        }
        if (status != MEST_OK)
            return status;
        most = target > most ? target : most;
    }
    for (int st = 0; st < m->bound.n && n > 0; st++)
        if (m->bound.at[st] > most + 1e-9)
            return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler mest: stage %d: bound %g is more than any weight has room for", st, m->bound.at[st]);
    return MEST_OK;
}

static mest_status mest_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    mest_self *m = api->allocate(host, sizeof *m);
    if (!m)
        return mest_plugin_fail(err, MEST_E_NOMEM, "scheduler mest: no memory");
    memset(m, 0, sizeof *m);
    m->api = api;
    m->mode = EM;
    m->target = -1;
    m->freq = 5;
    m->last = INT64_MAX;
    mest_status status = parse(m, options, err);
    status = status ? status : check_window(m, err);
    status = status ? status : check_lists(m, err);
    status = status ? status : prepare(m, host, err);
    if (status != MEST_OK) {
        api->release(host, m, sizeof *m);
        return status;
    }
    *self = m;
    return MEST_OK;
}

static void mest_destroy(void *self, mest_host *host)
{
    mest_self *m = self;
    m->api->release(host, m, sizeof *m);
}

/* ---- when ---- */

/* First epoch of the stage after boundary i. In a run too short for it, the last epoch: the run always ends in the last stage. */
static int64_t boundary_epoch(const mest_self *m, int i, int64_t n_epochs)
{
    double at = m->boundaries.at[i] * (m->fractions ? (double)n_epochs : 1) - 1e-9;
    int64_t epoch = at <= 0 ? 0 : (int64_t)at + ((double)(int64_t)at < at);
    return n_epochs > 0 && epoch > n_epochs - 1 ? n_epochs - 1 : epoch;
}

static int stage_at(const mest_self *m, int64_t epoch, int64_t n_epochs)
{
    int stage = 0;
    while (stage < m->boundaries.n && boundary_epoch(m, stage, n_epochs) <= epoch)
        stage++;
    return stage;
}

static bool on_grid(const mest_self *m, int64_t epoch) { return epoch % m->freq == 0 && epoch >= m->first && epoch <= m->last; }

/* On the grid of freq epochs. ems must also come down from its last bound: if no epoch of the grid lies in the last stage, the stage's
 * first epoch is due as well. */
static bool is_due(const mest_self *m, int64_t epoch, int64_t n_epochs)
{
    if (n_epochs > 0 && epoch >= n_epochs)
        return false;
    if (on_grid(m, epoch))
        return true;
    if (m->mode != EMS || m->boundaries.n == 0 || n_epochs <= 0)
        return false;
    int64_t close = boundary_epoch(m, m->boundaries.n - 1, n_epochs);
    if (epoch != close)
        return false;
    int64_t next = next_on_grid(m, close > m->first ? close : m->first);
    return next >= n_epochs || next > m->last;
}

/* ---- what ---- */

/* Are there enough others if what is removed now does not grow again? In each group, where there are groups. */
static bool room_without(const mest_sparse_info *info, int64_t n_grow)
{
    if (info->group_units == 0)
        return n_grow <= info->n_units - info->n_active;
    int64_t groups = info->n_units / info->group_units;
    return groups > 0 && (n_grow + groups - 1) / groups <= info->group_units - (info->n_active + groups - 1) / groups;
}

static mest_status no_room(const mest_sparse_info *info, int64_t n, mest_error *err)
{
    return mest_plugin_fail(err, MEST_E_NOMEM, "scheduler mest: %s: no memory for %lld units", info->name, (long long)n);
}

static mest_status mutate(const mest_self *m, mest_host *host, int param, int stage, int64_t epoch, mest_error *err)
{
    mest_sparse_info info;
    double target, prune_to, grow_to;
    mest_status status = look(m, host, param, &info, &target, err);
    if (status != MEST_OK || info.frozen)
        return status;
    stage_of_target(m, target, stage, &prune_to, &grow_to);
    int64_t keep = m->api->units_at(host, param, prune_to), final = m->api->units_at(host, param, grow_to);
    int64_t n_drop = info.n_active > keep ? info.n_active - keep : 0;
    int64_t n_grow = final > info.n_active - n_drop ? final - (info.n_active - n_drop) : 0;
    if (n_drop == 0 && n_grow == 0)
        return MEST_OK;
    /* Both lists exist together only where one excludes the other: the host holds copies of them beside everything that a step needs. */
    bool exclude = m->exclude_just_removed && room_without(&info, n_grow);
    size_t drop_bytes = (size_t)n_drop * sizeof(int64_t), grow_bytes = (size_t)n_grow * sizeof(int64_t);
    int64_t *dropped = NULL, *grown = NULL;
    if (n_drop > 0) {
        dropped = m->api->allocate(host, drop_bytes);
        status = dropped ? m->api->lowest_units(host, param, m->lambda, m->normalised, n_drop, dropped, err) : no_room(&info, n_drop, err);
        if (status == MEST_OK)
            status = m->api->drop(host, param, dropped, n_drop, err);
    }
    if (!exclude) {
        m->api->release(host, dropped, drop_bytes);
        dropped = NULL;
    }
    if (status == MEST_OK && n_grow > 0) {
        grown = m->api->allocate(host, grow_bytes);
        status = grown ? m->api->sample_inactive(host, param, (uint64_t)epoch, dropped, dropped ? n_drop : 0, n_grow, grown, err)
                       : no_room(&info, n_grow, err);
        m->api->release(host, dropped, drop_bytes);
        dropped = NULL;
        if (status == MEST_OK)
            status = m->api->grow(host, param, grown, n_grow, err);
    }
    m->api->release(host, dropped, drop_bytes);
    m->api->release(host, grown, grow_bytes);
    return status;
}

/* Is some mutation of the run due in a stage that moves units? In each stage the first one on the grid, and the one that ems adds. */
static bool any_moves(const mest_self *m, mest_host *host, int64_t n_epochs, mest_error *err)
{
    for (int st = 0; st < m->n_stages; st++) {
        const int64_t from = st ? boundary_epoch(m, st - 1, n_epochs) : 0, to = st < m->boundaries.n ? boundary_epoch(m, st, n_epochs) : n_epochs;
        const int64_t on = next_on_grid(m, from > m->first ? from : m->first);
        if (from >= to || (!(on < to && on <= m->last) && !is_due(m, from, n_epochs)))
            continue;
        for (int p = 0; p < m->api->sparse_count(host); p++) {
            mest_sparse_info info;
            double target, prune_to, grow_to;
            if (look(m, host, p, &info, &target, err) != MEST_OK)
                return true;
            stage_of_target(m, target, st, &prune_to, &grow_to);
            if (!same(prune_to, grow_to) || info.n_active != m->api->units_at(host, p, grow_to))
                return true;
        }
    }
    return false;
}

/* Before the first step: weights that would stay as dense as they begin are an error, a pattern that stays is news. */
static mest_status look_ahead(const mest_self *m, mest_host *host, const mest_epoch *e, mest_error *err)
{
    char why[200];
    if (e->n_epochs <= 0 || any_moves(m, host, e->n_epochs, err))
        return MEST_OK;
    for (int p = 0; p < m->api->sparse_count(host); p++) {
        mest_sparse_info info;
        double target;
        mest_status status = look(m, host, p, &info, &target, err);
        if (status == MEST_OK && info.n_active > m->api->units_at(host, p, target))
            status = mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler mest: '%.100s' begins above its target and stays there: no mutation is due in the run's %lld epochs (freq=%lld, first=%lld)",
                                      info.name, (long long)e->n_epochs, (long long)m->freq, (long long)m->first);
        if (status != MEST_OK)
            return status;
    }
    snprintf(why, sizeof why, "no mutation that moves units is due in it (freq=%lld, first=%lld%s; stages begin at boundaries)", (long long)m->freq, (long long)m->first,
             m->last < INT64_MAX ? ", last" : "");
    method_idle(m->api, host, e, why);
    return MEST_OK;
}

static mest_status mest_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    const mest_self *m = self;
    mest_status ahead = method_at_beginning(e) ? look_ahead(m, host, e, err) : MEST_OK;
    if (ahead != MEST_OK)
        return ahead;
    if (m->fractions && e->n_epochs <= 0)
        return invalid(err, "boundaries are fractions of a run whose number of epochs is not known; give them in epochs");
    if (is_due(m, e->epoch, e->n_epochs)) {
        int stage = stage_at(m, e->epoch, e->n_epochs);
        for (int p = 0; p < m->api->sparse_count(host); p++) {
            mest_status status = mutate(m, host, p, stage, e->epoch, err);
            if (status != MEST_OK)
                return status;
        }
        char text[80];
        snprintf(text, sizeof text, "mutation at epoch %lld, stage %d", (long long)e->epoch, stage);
        m->api->log(host, MEST_LOG_DEBUG, text);
    }
    /* The score needs gradients of the very last step before the mutation: that step is at the end of this epoch. */
    if (m->lambda > 0 && is_due(m, e->epoch + 1, e->n_epochs))
        return m->api->keep_gradients(host, err);
    return MEST_OK;
}

static mest_status mest_epoch_end(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    const mest_self *m = self;
    if (e->n_epochs <= 0 || e->epoch != e->n_epochs - 1)
        return MEST_OK;
    for (int p = 0; p < m->api->sparse_count(host); p++) { /* the promise of the method: the run ends at the target exactly */
        mest_sparse_info info;
        double target;
        mest_status status = look(m, host, p, &info, &target, err);
        if (status != MEST_OK)
            return status;
        int64_t want = m->api->units_at(host, p, target);
        if (info.n_active != want) { /* frozen in an earlier stage, perhaps */
            char text[240];
            snprintf(text, sizeof text, "%.80s ends with %lld active units, its target of %g is %lld", info.name, (long long)info.n_active, target,
                     (long long)want);
            m->api->log(host, MEST_LOG_WARNING, text);
        }
    }
    return MEST_OK;
}

extern const mest_scheduler mest_scheduler_mest;
const mest_scheduler mest_scheduler_mest = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler),
    .name = "mest", .summary = "MEST mutation: drop the least important units, grow random ones (vanilla, EM, EM&S)",
    .options = option_text,
    .create = mest_create, .epoch_begin = mest_epoch_begin, .epoch_end = mest_epoch_end, .destroy = mest_destroy,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS,
};
