/* SPDX-License-Identifier: Apache-2.0 */
/* Lottery tickets against their definition: which epochs are rounds, who goes, what the survivors get back, the learning rate's place. */
#include "tests/plugin/methods.h"

/* What a run of E epochs with R rounds and rewinding to k must do at the start of an epoch, the slow way: epochs are dealt out one by one. */
typedef struct want { int64_t round, at, length; bool begins; } want;

static want plan(int64_t all, int64_t rounds, int64_t rewind, int64_t epoch)
{
    int64_t first = 0;
    while (first + 1 + rounds * (first + 1 - rewind) <= all) /* the longest first round with room for the others */
        first++;
    want w = { 0, 0, first, false };
    for (int64_t e = 1; e <= epoch; e++) {
        w.begins = false;
        w.at++;
        if (w.at == first && w.round < rounds) {
            w.round++;
            w.at = rewind;
            w.begins = true;
        }
    }
    if (w.round == rounds)
        w.length = all - rounds * (first - rewind);
    return w;
}

static int64_t kept_after(const world *w, int i, int64_t round, int64_t rounds)
{
    return mest_sparse_units_at(w->host.params[i].sparse, 1 - pow(1 - params[i].sparsity, (double)round / (double)rounds));
}

static void follow(const char *options, int64_t all, int64_t rounds, int64_t rewind, bool keeps_values)
{
    world w;
    mest_host_report r;
    picture start[N] = { { 0 } };
    open_method(&w, "lottery", options, true, 3);
    for (int64_t e = 0; e < all; e++) {
        const mest_epoch now = world_epoch(&w, e, all);
        const want t = plan(all, rounds, rewind, e);
        picture before[N];
        for (int i = 0; i < N; i++) {
            before[i] = take_picture(&w, i);
            if (e == rewind)
                start[i] = take_picture(&w, i);
        }
        w.host.lr_epochs = 0;
        OK(mest_schedulers_epoch_begin(w.list, &now, &r, err));
        ck_assert(w.host.lr_epoch == t.at && w.host.lr_epochs == t.length);
        for (int i = 0; i < N; i++) {
            const mest_sparse *s = w.host.params[i].sparse;
            picture after = take_picture(&w, i);
            sparse_check(s);
            if (!t.begins) {
                ck_assert(same_picture(&before[i], &after));
            } else {
                const int64_t keep = kept_after(&w, i, t.round, rounds);
                ck_assert_int_eq(after.n, keep);
                if (!s->group_units) { /* in groups the smallest of each go: the tests of selection look at that */
                    int64_t *gone = smallest(&before[i], before[i].n - keep);
                    for (int64_t k = 0; k < before[i].n; k++)
                        MUST(unit_in(after.units, after.n, before[i].units[k]) != unit_in(gone, before[i].n - keep, before[i].units[k]));
                    free(gone);
                }
                const picture *from = keeps_values ? &before[i] : &start[i];
                for (int64_t k = 0; k < after.n; k++) {
                    const int64_t *at = bsearch(&after.units[k], from->units, (size_t)from->n, 8, id_compare);
                    MUST(at);
                    MUST(!memcmp(after.values + k * after.e, from->values + (at - from->units) * after.e, (size_t)after.e * sizeof(mest_real)));
                    for (int64_t x = k * after.e; x < (k + 1) * after.e && !keeps_values; x++)
                        for (int slot = 0; slot < WORLD_SLOTS; slot++)
                            MUST(after.slots[slot][x] == 0);
                }
            }
            drop_picture(&before[i]), drop_picture(&after);
        }
        world_train(&w, e);
        OK(mest_schedulers_epoch_end(w.list, &now, &r, err));
    }
    for (int i = 0; i < N; i++) {
        ck_assert_int_eq(w.host.params[i].sparse->active_units, target_of(&w, i));
        drop_picture(&start[i]);
    }
    world_close(&w);
}

START_TEST(rounds_prune_and_rewind)
{
    for (int grouped = 0; grouped < 2; grouped++) {
        params = grouped ? grouped_params : free_params;
        follow("rounds=3", 12, 3, 0, false);
        follow("rounds=3", 14, 3, 0, false); /* two epochs are left over */
        follow("rounds=4,rewind=2", 20, 4, 2, false);
        follow("rounds=1,rewind=1", 3, 1, 1, false);
        follow("rounds=2,values=keep", 7, 2, 0, true);
    }
    params = free_params;
}
END_TEST

/* The default: a fifth of what is left goes in each round, so .9 takes 11 of them, by the parameter that loses most. */
START_TEST(the_rate_says_how_many_rounds)
{
    world w;
    mest_error error = { 0 };
    open_method(&w, "lottery", "", true, 3);
    mest_epoch e = world_epoch(&w, 0, 11);
    ck_assert_int_eq(mest_schedulers_epoch_begin(w.list, &e, NULL, &error), MEST_E_ARGUMENT);
    ck_assert_str_eq(error.msg, "scheduler lottery: 11 rounds of pruning and one before need at least 12 epochs, the run has 11 (rounds=N: fewer rounds)");
    world_close(&w);
    open_method(&w, "lottery", "rate=.5", true, 3); /* .5^4 is below .1 */
    for (int64_t at = 0; at < 5; at++) {
        e = world_epoch(&w, at, 5);
        OK(mest_schedulers_epoch_begin(w.list, &e, NULL, err));
        ck_assert_int_eq(w.host.params[0].sparse->active_units, kept_after(&w, 0, at, 4));
    }
    ck_assert(strstr(w.log, "4 rounds of pruning; the weights to go back to take ") != NULL);
    world_close(&w);
}
END_TEST

START_TEST(all_parameters_together)
{
    world w;
    open_method(&w, "lottery", "rounds=2,scope=global", true, 3);
    for (int64_t at = 0; at < 3; at++) {
        mest_epoch e = world_epoch(&w, at, 3);
        int64_t now = 0, wanted = 0;
        OK(mest_schedulers_epoch_begin(w.list, &e, NULL, err));
        for (int i = 0; i < N; i++) {
            now += w.host.params[i].sparse->active_units;
            wanted += kept_after(&w, i, at, 2);
        }
        ck_assert_int_eq(now, wanted);
        world_train(&w, at);
    }
    world_close(&w);
}
END_TEST

START_TEST(options_and_starts_are_checked)
{
    static const char *const bad[] = { "rate=0", "rate=1", "rounds=0", "rewind=-1", "values=both", "scope=all", "every=3", "rate=.3,rounds=2" };
    world w;
    open_params(&w, true, 3);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED(MEST_E_ARGUMENT, mest_schedulers_add(w.list, "lottery", bad[i], err));
    w.host.epochs = 4; /* too few are told before the run, where their number is known */
    REFUSED(MEST_E_ARGUMENT, mest_schedulers_add(w.list, "lottery", "rounds=4", err));
    REFUSED(MEST_E_ARGUMENT, mest_schedulers_add(w.list, "lottery", "rounds=3,rewind=1", err));
    OK(mest_schedulers_add(w.list, "lottery", "rounds=3", err));
    world_close(&w);
    world_open(&w, 3, free_params, 1, 0); /* stored sparsely already */
    REFUSED(MEST_E_STATE, mest_schedulers_add(w.list, "lottery", "rounds=1", err));
    world_close(&w);
}
END_TEST

/* The services themselves. */
START_TEST(services_know_their_moments)
{
    static const world_param two[] = { { "csr", { 2, { 20, 20 } }, .9 }, { "block4", { 2, { 10, 30 } }, .8 } };
    const mest_host_api *api = mest_host_functions();
    world w;
    world_open(&w, 1, two, 2, 0);
    world_plan(&w);
    mest_host *h = &w.host;
    mest_host_enter(h, MEST_HOST_STEP, "x", 0);
    REFUSED(MEST_E_STATE, api->remember(h, err));
    REFUSED(MEST_E_STATE, api->rewind(h, err));
    REFUSED(MEST_E_STATE, api->schedule_at(h, 0, 1, err));
    mest_host_enter(h, MEST_HOST_BEGIN, "x", 0);
    REFUSED(MEST_E_STATE, api->rewind(h, err)); /* nothing was remembered */
    REFUSED(MEST_E_ARGUMENT, api->schedule_at(h, 3, 3, err));
    REFUSED(MEST_E_ARGUMENT, api->schedule_at(h, -1, 3, err));
    const int64_t idle = atomic_load(&w.b.heap.current_bytes);
    OK(api->remember(h, err)); /* stored entries, nothing dense */
    ck_assert_int_eq(atomic_load(&w.b.heap.current_bytes) - idle, (int64_t)((40 + 18 * 4) * sizeof(mest_real)));
    OK(mest_host_leave(h, true, NULL, err));
    picture start = take_picture(&w, 0);
    world_train(&w, 1);
    int64_t drop[2], grow[2];
    float one[1] = { 7 };
    mest_host_enter(h, MEST_HOST_BEGIN, "x", 0);
    OK(api->active_units(h, 0, 5, 2, drop, err));
    OK(api->sample_inactive(h, 0, 1, NULL, 0, 2, grow, err));
    OK(api->drop(h, 0, drop, 2, err));
    OK(api->grow(h, 0, grow, 2, err));
    OK(api->set_values(h, 0, grow, 1, one, err));
    OK(api->rewind(h, err));
    OK(mest_host_leave(h, false, NULL, err)); /* refused: nothing happens */
    ck_assert(unit_in(start.units, start.n, drop[0]) && h->params[0].sparse->values[0] == trained(1, 0, 1, start.units[0]));
    mest_host_enter(h, MEST_HOST_BEGIN, "x", 0);
    OK(api->drop(h, 0, drop, 2, err));
    OK(api->grow(h, 0, grow, 2, err));
    OK(api->set_values(h, 0, grow, 1, one, err));
    OK(api->rewind(h, err));
    OK(mest_host_leave(h, true, NULL, err));
    picture now = take_picture(&w, 0);
    for (int64_t i = 0; i < now.n; i++) {
        const int64_t *at = bsearch(&now.units[i], start.units, (size_t)start.n, 8, id_compare);
        MUST(now.values[i] == (at ? start.values[at - start.units] : 0) && now.slots[0][i] == 0);
    }
    ck_assert(unit_in(now.units, now.n, grow[0]) && !unit_in(now.units, now.n, drop[0]));
    drop_picture(&start), drop_picture(&now);
    mest_host_forget(h);
    ck_assert_int_eq(atomic_load(&w.b.heap.current_bytes), idle);
    world_close(&w);
}
END_TEST

START_TEST(every_failed_allocation_is_survived)
{
    bool finished = false;
    for (int64_t at = 0; !finished; at++) {
        world w;
        mest_error error = { 0 };
        world_param one = { "csr", { 2, { 12, 10 } }, 0 };
        world_open(&w, 5, &one, 1, 0);
        w.host.params[0].target_sparsity = .8;
        w.b.guard.fail_at = w.b.guard.n + at;
        mest_status status = mest_schedulers_add(w.list, "lottery", "rounds=2", &error);
        status = status ? status : mest_host_plan(&w.host, &error);
        for (int64_t e = 0; e < 4 && status == MEST_OK; e++) {
            const mest_epoch now = world_epoch(&w, e, 4);
            const int64_t before = w.host.params[0].sparse->active_units;
            status = mest_schedulers_epoch_begin(w.list, &now, NULL, &error);
            ck_assert(status == MEST_OK || w.host.params[0].sparse->active_units == before);
        }
        finished = status == MEST_OK;
        ck_assert(finished || (status == MEST_E_NOMEM && error.code == MEST_E_NOMEM));
        world_close(&w);
    }
}
END_TEST

RUN("lottery", rounds_prune_and_rewind, the_rate_says_how_many_rounds, all_parameters_together, options_and_starts_are_checked, every_failed_allocation_is_survived,
    services_know_their_moments)
