/* SPDX-License-Identifier: Apache-2.0 */
/* Lottery tickets: iterative magnitude pruning with rewinding (Frankle and Carbin, ICLR 2019; to an early epoch: Frankle et al., ICML 2020).
 *
 * A run of E epochs is cut into R + 1 rounds. Round 0 trains all weights for T epochs. Each of the R others takes away the smallest units, sets the
 * survivors, all dense parameters and the statistics back to what they were at the start of epoch `rewind`, lets the optimizer begin
 * anew, and trains from there to epoch T, with the learning rates those epochs have in a run of T. After round r of R a parameter keeps
 * the part (1 - target)^(r / R), so all layers reach their targets together. What the division of E leaves over prolongs the last round.
 *
 * The copy to go back to is the host's. It is taken while all weights are stored, so it is as large as the dense weights, and so is the
 * memory reserved for the weights: the method demands that. No state of its own. */
#include "schedulers/method_select.h"

typedef struct lottery {
    method m;
    int64_t rounds, rewind;
    bool global, keep;
} lottery;

static const char option_text[] =
    "rate=.2           part of the active units that a round removes, at most; decides how many rounds there are\n"
    "rounds=N          instead: rounds of pruning\n"
    "rewind=0          epoch whose first weights the survivors get back; 0: the initial ones\n"
    "values=rewind     rewind, or keep: go on with the trained values (learning rates begin anew all the same)\n"
    "scope=layer       layer: each parameter to its share; global: over all parameters\n";
static const char option_names[] = "rate, rounds, rewind, values, scope";

/* As many rounds as the rate needs for the parameter that loses most. */
static mest_status count_rounds(lottery *l, mest_host *host, mest_error *err)
{
    l->rounds = 1;
    for (int p = 0; p < l->m.api->sparse_count(host); p++) {
        mest_sparse_info info;
        mest_status status = method_info(&l->m, host, p, &info, err);
        if (status != MEST_OK)
            return status;
        double n = ceil(log(1 - info.target_sparsity) / log(1 - l->m.rate) - 1e-9);
        if (info.target_sparsity < 1 && n > (double)l->rounds)
            l->rounds = (int64_t)n;
    }
    return MEST_OK;
}

/* Epochs of round 0; each further one has `rewind` fewer. */
static int64_t first_round(const lottery *l, int64_t epochs) { return (epochs + l->rounds * l->rewind) / (l->rounds + 1); }

static mest_status check_length(const lottery *l, int64_t epochs, mest_error *err)
{
    if (epochs > 0 && first_round(l, epochs) > l->rewind)
        return MEST_OK;
    return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler lottery: %lld round%s of pruning and one before need at least %lld epochs, the run has %lld%s",
                            (long long)l->rounds, l->rounds == 1 ? "" : "s", (long long)(l->rounds + 1 + l->rewind), (long long)epochs, l->rounds == 1 ? "" : " (rounds=N: fewer rounds)");
}

static mest_status lottery_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    static const char *const values[] = { "rewind", "keep", NULL }, *const scopes[] = { "layer", "global", NULL };
    lottery l = { .m = { .name = "lottery", .api = api, .rate = .2 } };
    int value = 0, scope = 0;
    bool rate = false;
    mest_option o = mest_options("lottery", options);
    while (mest_option_next(&o, err)) {
        if (mest_option_is(&o, "rate"))
            mest_option_real(&o, 1e-3, .999, &l.m.rate, err), rate = true;
        else if (mest_option_is(&o, "rounds"))
            mest_option_int(&o, 1, 1000000, &l.rounds, err);
        else if (mest_option_is(&o, "rewind"))
            mest_option_int(&o, 0, 1000000000, &l.rewind, err);
        else if (mest_option_is(&o, "values"))
            mest_option_choice(&o, values, &value, err);
        else if (mest_option_is(&o, "scope"))
            mest_option_choice(&o, scopes, &scope, err);
        else
            mest_option_unknown(&o, option_names, err);
    }
    l.keep = value == 1;
    l.global = scope == 1;
    mest_status status = o.status;
    if (status == MEST_OK && rate && l.rounds > 0)
        status = mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler lottery: give either rate or rounds");
    if (status == MEST_OK && !l.keep)
        status = method_no_channels(&l.m, host, "goes back to earlier weights", "; values=keep prunes without going back", err);
    status = status ? status : method_all_stored(&l.m, host, err);
    if (status == MEST_OK && l.rounds == 0)
        status = count_rounds(&l, host, err);
    if (status == MEST_OK && api->epochs(host) > 0)
        status = check_length(&l, api->epochs(host), err);
    return status ? status : method_keep(&l.m, host, &l, sizeof l, self, err);
}

/* ---- the plan of a run ---- */

typedef struct place {
    int64_t round, epoch; /* epoch: within a run of one round */
    int64_t length;       /* epochs of that run */
    bool begins;          /* the first epoch of a round of pruning */
} place;

static mest_status find_place(const lottery *l, const mest_epoch *e, place *at, mest_error *err)
{
    const int64_t all = e->n_epochs, first = first_round(l, all), each = first - l->rewind;
    mest_status status = check_length(l, all, err);
    if (status != MEST_OK)
        return status;
    at->round = e->epoch < first ? 0 : 1 + (e->epoch - first) / each;
    at->round = at->round < l->rounds ? at->round : l->rounds;
    const int64_t start = at->round ? first + (at->round - 1) * each : 0;
    at->epoch = e->epoch - start + (at->round ? l->rewind : 0);
    at->length = at->round < l->rounds ? first : first + all - (first + l->rounds * each);
    at->begins = at->round > 0 && e->epoch == start;
    return MEST_OK;
}

static double sparsity_after(const lottery *l, double target, int64_t round)
{
    return round == l->rounds ? target : 1 - pow(1 - target, (double)round / (double)l->rounds);
}

static mest_status prune(const lottery *l, mest_host *host, int64_t round, mest_error *err)
{
    const method *m = &l->m;
    int64_t all = 0, active = 0;
    for (int p = 0; p < m->api->sparse_count(host); p++) {
        mest_sparse_info info;
        mest_status status = method_info(m, host, p, &info, err);
        if (status == MEST_OK && info.frozen)
            status = mest_plugin_fail(err, MEST_E_UNSUPPORTED, "scheduler lottery: '%.100s' is frozen and cannot be pruned any more", info.name);
        int64_t keep = status == MEST_OK ? method_units(m, host, p, sparsity_after(l, info.target_sparsity, round)) : 0;
        if (status == MEST_OK && !l->global && keep < info.n_active)
            status = method_drop_lowest(m, host, p, info.n_active - keep, err);
        if (status != MEST_OK)
            return status;
        all += keep;
        active += info.n_active;
    }
    return l->global && all < active ? method_select(m, host, method_norms, 0, m->api->sparse_count(host), all > 0 ? all : 1, err) : MEST_OK;
}

static mest_status remember(const lottery *l, mest_host *host, mest_error *err)
{
    const method *m = &l->m;
    int64_t bytes = 0;
    mest_status status = m->api->remember(host, err);
    for (int p = 0; p < m->api->sparse_count(host) && status == MEST_OK; p++) {
        mest_sparse_info info;
        status = method_info(m, host, p, &info, err);
        bytes += info.capacity * info.unit_elements * (int64_t)sizeof(float);
    }
    char text[160];
    snprintf(text, sizeof text, "%lld round%s of pruning; the weights to go back to take %lld bytes, as many as the weights of a dense network", (long long)l->rounds,
             l->rounds == 1 ? "" : "s", (long long)bytes);
    if (status == MEST_OK)
        method_log(m, host, MEST_LOG_INFO, text);
    return status;
}

static mest_status lottery_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    const lottery *l = (const lottery *)self;
    place at = { 0 };
    if (l->m.api->sparse_count(host) == 0) /* nothing is pruned, so nothing is to go back either */
        return MEST_OK;
    mest_status status = find_place(l, e, &at, err);
    if (status == MEST_OK && !l->keep && e->epoch == l->rewind)
        status = remember(l, host, err);
    if (status == MEST_OK && at.begins)
        status = prune(l, host, at.round, err);
    if (status == MEST_OK && at.begins && !l->keep)
        status = l->m.api->rewind(host, err);
    if (status == MEST_OK && at.begins) {
        char text[120];
        snprintf(text, sizeof text, "round %lld of %lld: %s", (long long)at.round, (long long)l->rounds, l->keep ? "pruned" : "pruned and rewound");
        method_log(&l->m, host, MEST_LOG_INFO, text);
    }
    return status ? status : l->m.api->schedule_at(host, at.epoch, at.length, err);
}

static void lottery_destroy(void *self, mest_host *host) { method_give(&((lottery *)self)->m, host, self, 1, sizeof(lottery)); }

extern const mest_scheduler mest_scheduler_lottery;
const mest_scheduler mest_scheduler_lottery = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "lottery",
    .summary = "lottery tickets: rounds of training, magnitude pruning and rewinding, from all weights", .options = option_text,
    .create = lottery_create, .destroy = lottery_destroy, .epoch_begin = lottery_epoch_begin,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS | MEST_SCHEDULER_STARTS_DENSE,
};
