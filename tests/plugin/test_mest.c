/* SPDX-License-Identifier: Apache-2.0 */
/* The MEST scheduler on a real host: counts, victims, survivors, stages, resume. */
#include "tests/plugin/world.h"

static const world_param few[] = {
    { "csr", { 4, { 16, 8, 3, 3 } }, .9 },
    { "block4", { 2, { 30, 40 } }, .9 },
    { "block8", { 4, { 17, 5, 3, 3 } }, .75 },
};
enum { FEW = 3 };
/* The schemes with groups and choices, and blocks of two axes. */
static const world_param more[] = {
    { "pattern", { 4, { 16, 10, 3, 3 } }, .9 },
    { "nm2:4", { 4, { 12, 8, 3, 3 } }, .5 },
    { "punched4x2", { 4, { 17, 9, 3, 3 } }, .9 },
    { "~nm1:4x4", { 2, { 40, 30 } }, .75 },
};
enum { MORE = 4 };

/* Filters and N:M groups differ by one at most; a pattern's filters not at all, whose counts are rounded per filter. */
static void check_groups(const mest_sparse *s)
{
    const int64_t span = s->group_units * s->choices;
    int64_t least = INT64_MAX, most = 0;
    for (int64_t g = 0; span && g < s->n_units / s->group_units; g++) {
        const int64_t n = mest_sparse_lower_bound(s, (g + 1) * span) - mest_sparse_lower_bound(s, g * span);
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    MUST(!span || most - least <= (strcmp(s->name, "pattern") ? 1 : 0));
}

/* Checks one mutation of one parameter against the definition: who had to go, what stayed as it was, what is new. */
static void check_mutation(const mest_sparse *s, const picture *old, const picture *now, double prune_to, double grow_to, double lambda)
{
    int64_t keep = mest_sparse_units_at(s, prune_to), final = mest_sparse_units_at(s, grow_to);
    int64_t n_drop = old->n > keep ? old->n - keep : 0;
    ranked *order = malloc((size_t)old->n * sizeof *order + 8);
    for (int64_t i = 0; i < old->n; i++) {
        double w2 = 0, g2 = 0;
        for (int64_t k = i * old->e; k < (i + 1) * old->e; k++) {
            w2 += (double)old->values[k] * (double)old->values[k];
            g2 += (double)old->grad[k] * (double)old->grad[k];
        }
        double norm = old->e == 1 ? fabs((double)old->values[i]) : sqrt(w2), slope = old->e == 1 ? fabs((double)old->grad[i]) : sqrt(g2);
        order[i] = (ranked){ (double)(float)(norm + lambda * slope), old->units[i] };
    }
    qsort(order, (size_t)old->n, sizeof *order, ranked_compare);
    int64_t *victims = malloc((size_t)n_drop * 8 + 8);
    oracle_lowest(s, order, old->n, n_drop, victims);
    MUST(now->n == final);
    check_groups(s);
    int64_t survivors = 0;
    for (int64_t i = 0, j = 0; i < now->n; i++) {
        MUST(i == 0 || now->units[i] > now->units[i - 1]);
        while (j < old->n && old->units[j] < now->units[i])
            MUST(unit_in(victims, n_drop, old->units[j++])); /* who left was a victim */
        bool survivor = j < old->n && old->units[j] == now->units[i] && !unit_in(victims, n_drop, now->units[i]);
        for (int64_t k = 0; k < now->e; k++) {
            MUST(now->values[i * now->e + k] == (survivor ? old->values[j * now->e + k] : 0));
            for (int t = 0; t < WORLD_SLOTS; t++)
                MUST(now->slots[t][i * now->e + k] == (survivor ? old->slots[t][j * now->e + k] : 0));
        }
        survivors += survivor;
        j += j < old->n && old->units[j] == now->units[i];
    }
    MUST(survivors == old->n - n_drop);
    free(order), free(victims);
}

typedef struct stages {
    const char *options;
    double lambda;
    double rate[3], bound[3]; /* as the options say */
} stages;

static int stage_of(int64_t epoch, int64_t n_epochs)
{
    return ((double)epoch >= .5625 * (double)n_epochs) + ((double)epoch >= .75 * (double)n_epochs);
}

static void mutations_follow(const world_param *params, int n, size_t dense_bytes)
{
    static const stages all[] = {
        { "mode=vanilla,rate=.3", 0, { .3, .3, .3 }, { 0 } },
        { "", 0, { .2, .1, 0 }, { 0 } },
        { "mode=em,lambda=.5", .5, { .2, .1, 0 }, { 0 } },
        { "mode=ems", 0, { 0 }, { .05, .025, 0 } },
        { "mode=ems,lambda=2,exclude_just_removed=yes", 2, { 0 }, { .05, .025, 0 } },
        { "mode=em,rate=.5/.25/0,exclude_just_removed=yes", 0, { .5, .25, 0 }, { 0 } },
    };
    for (size_t a = 0; a < sizeof all / sizeof *all; a++) {
        world w;
        world_open(&w, 100 + a, params, n, 10);
        OK(mest_schedulers_add(w.list, "mest", all[a].options, err));
        world_plan(&w);
        for (int i = 0; i < n; i++) { /* the peak was reserved, and not more */
            const mest_sparse *s = w.host.params[i].sparse;
            ck_assert_int_eq(s->cap_units, mest_sparse_units_at(s, params[i].sparsity - all[a].bound[0]));
        }
        int64_t n_epochs = 40;
        for (int64_t e = 0; e < n_epochs; e++) {
            mest_epoch now = world_epoch(&w, e, n_epochs);
            picture before[MORE];
            for (int i = 0; i < n; i++)
                before[i] = take_picture(&w, i);
            mest_host_report report;
            int st = stage_of(e, n_epochs);
            OK(mest_schedulers_epoch_begin(w.list, &now, &report, err));
            int64_t removed = 0, grown = 0;
            for (int i = 0; i < n; i++) {
                picture after = take_picture(&w, i);
                const mest_sparse *s = w.host.params[i].sparse;
                double target = params[i].sparsity;
                sparse_check(s);
                if (e % 5 == 0)
                    check_mutation(s, &before[i], &after, target + all[a].rate[st] * (1 - target), target - all[a].bound[st], all[a].lambda);
                else
                    MUST(same_picture(&before[i], &after));
                int64_t keep = mest_sparse_units_at(s, target + all[a].rate[st] * (1 - target)), gone = before[i].n > keep ? before[i].n - keep : 0;
                if (e % 5 == 0) {
                    removed += gone;
                    grown += after.n - (before[i].n - gone);
                }
                drop_picture(&before[i]), drop_picture(&after);
            }
            ck_assert_int_eq(report.removed, removed);
            ck_assert_int_eq(report.grown, grown);
            ck_assert((removed + grown > 0) == (strstr(report.text, "mest: ") != NULL));
            ck_assert(w.host.gradients_wanted == (all[a].lambda > 0 && (e + 1) % 5 == 0 && e + 1 < n_epochs));
            world_train(&w, e);
            OK(mest_schedulers_epoch_end(w.list, &now, &report, err));
        }
        for (int i = 0; i < n; i++)
            ck_assert_int_eq(w.host.params[i].sparse->active_units, mest_sparse_units_at(w.host.params[i].sparse, params[i].sparsity));
        ck_assert(strstr(w.log, "ends with") == NULL);
        ck_assert_uint_lt(w.b.guard.largest, dense_bytes); /* no block of a dense weight's size */
        world_close(&w);
    }
}

START_TEST(mutations_follow_the_definition)
{
    mutations_follow(few, FEW, 30 * 40 * 4);
    mutations_follow(more, MORE, 16 * 10 * 9 * 4);
}
END_TEST

/* The table of worked counts: N, kept at .90, EM stage 0 and 1 (left, grown), EM&S stage 0 and 1. */
START_TEST(worked_counts)
{
    static const int64_t table[5][8] = {
        { 9216, 922, 737, 185, 829, 93, 1382, 1152 },        { 18432, 1843, 1475, 368, 1659, 184, 2765, 2304 },
        { 36864, 3686, 2949, 737, 3318, 368, 5530, 4608 },   { 73728, 7373, 5898, 1475, 6636, 737, 11059, 9216 },
        { 147456, 14746, 11796, 2950, 13271, 1475, 22118, 18432 },
    };
    static const char *const forms[2][2] = { { "mode=em", "mode=em,prune_to=.92/.91/.90,grow_to=.9/.9/.9" },
                                             { "mode=ems", "mode=ems,prune_to=.9/.9/.9,grow_to=.85/.875/.9,boundaries=90/120" } };
    for (int row = 0; row < 5; row++)
        for (int mode = 0; mode < 2; mode++)
            for (int form = 0; form < 2; form++) {
                world w;
                world_param p = { "csr", { 2, { 32, table[row][0] / 32 } }, .9 };
                world_open(&w, 1, &p, 1, 0);
                OK(mest_schedulers_add(w.list, "mest", forms[mode][form], err));
                world_plan(&w);
                const mest_sparse *s = w.host.params[0].sparse;
                int64_t mutations = 0;
                for (int64_t e = 0; e < 160; e++) {
                    mest_epoch now = world_epoch(&w, e, 160);
                    mest_host_report r;
                    OK(mest_schedulers_epoch_begin(w.list, &now, &r, err));
                    mutations += r.removed + r.grown > 0;
                    int st = (e >= 90) + (e >= 120);
                    if (mode == 0) {
                        ck_assert_int_eq(s->active_units, table[row][1]);
                        if (e % 5 == 0 && st < 2) {
                            ck_assert_int_eq(table[row][1] - r.removed, st == 0 ? table[row][2] : table[row][4]);
                            ck_assert_int_eq(r.grown, st == 0 ? table[row][3] : table[row][5]);
                        }
                    } else {
                        ck_assert_int_eq(s->active_units, st == 0 ? table[row][6] : st == 1 ? table[row][7] : table[row][1]);
                    }
                }
                /* em: 18 + 6; ems: the growth at 0, 17 exchanges, 6 more, the last removal at 120 */
                ck_assert_int_eq(mutations, mode == 0 ? 24 : 25);
                world_close(&w);
            }
}
END_TEST

START_TEST(every_length_of_run_ends_at_the_target)
{
    static const char *const modes[] = { "mode=ems", "mode=ems,freq=3", "mode=ems,freq=100", "mode=ems,boundaries=90/120", "mode=ems,last=4",
                                         "mode=ems,first=2", "mode=em", "mode=vanilla" };
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
        for (int64_t n_epochs = 1; n_epochs < 24; n_epochs++) {
            world w;
            world_open(&w, 3, few, FEW, 0);
            OK(mest_schedulers_add(w.list, "mest", modes[m], err));
            world_plan(&w);
            for (int64_t e = 0; e < n_epochs; e++) {
                mest_epoch now = world_epoch(&w, e, n_epochs);
                OK(mest_schedulers_epoch_begin(w.list, &now, NULL, err));
                OK(mest_schedulers_epoch_end(w.list, &now, NULL, err));
            }
            for (int i = 0; i < FEW; i++)
                ck_assert_int_eq(w.host.params[i].sparse->active_units, mest_units_at(few[i].sparsity, w.host.params[i].sparse->n_units));
            ck_assert(strstr(w.log, "ends with") == NULL);
            world_close(&w);
        }
}
END_TEST

static void run(world *w, int64_t from, int64_t to, int64_t n_epochs)
{
    for (int64_t e = from; e < to; e++) {
        mest_epoch now = world_epoch(w, e, n_epochs);
        OK(mest_schedulers_epoch_begin(w->list, &now, NULL, err));
        world_train(w, e);
        OK(mest_schedulers_epoch_end(w->list, &now, NULL, err));
    }
}

START_TEST(same_seed_same_masks)
{
    world w[3];
    picture p[3];
    for (int i = 0; i < 3; i++) {
        world_open(&w[i], i == 2 ? 8 : 7, few, 1, 0);
        OK(mest_schedulers_add(w[i].list, "mest", "", err));
        world_plan(&w[i]);
        run(&w[i], 0, 11, 20);
        p[i] = take_picture(&w[i], 0);
    }
    ck_assert(same_picture(&p[0], &p[1]));
    ck_assert(!same_picture(&p[0], &p[2]));
    for (int i = 0; i < 3; i++) {
        drop_picture(&p[i]);
        world_close(&w[i]);
    }
}
END_TEST

/* Stop after any epoch, bring patterns, values, slots and scheduler state into a new host: the masks go on as if nothing happened. */
START_TEST(resume_goes_on_with_the_same_masks)
{
    for (int64_t stop = 1; stop < 20; stop += 3) {
        world a, b;
        world *w[] = { &a, &b };
        for (int i = 0; i < 2; i++) {
            world_open(w[i], 5, few, FEW, 0);
            OK(mest_schedulers_add(w[i]->list, "mest", "mode=ems,lambda=1,freq=2", err));
            world_plan(w[i]);
        }
        run(&a, 0, stop, 20);
        bytes state = { 0 };
        OK(mest_schedulers_save(a.list, bytes_write, &state, err));
        for (int i = 0; i < FEW; i++) {
            picture p = take_picture(&a, i);
            OK(mest_sparse_from_units(b.host.params[i].sparse, p.units, p.n, p.values, err));
            for (int t = 0; t < WORLD_SLOTS; t++)
                memcpy(b.host.params[i].slots[t], p.slots[t], p.stored * sizeof(mest_real));
            drop_picture(&p);
        }
        OK(mest_schedulers_load(b.list, bytes_read, &state, err));
        ck_assert_uint_eq(state.at, state.n);
        for (size_t cut = 0; cut < state.n; cut += state.n / 7 + 1) { /* short state: an error, nothing worse */
            bytes part = { .p = state.p, .n = cut };
            world c;
            world_open(&c, 5, few, FEW, 0);
            OK(mest_schedulers_add(c.list, "mest", "mode=ems,lambda=1,freq=2", err));
            world_plan(&c);
            ck_assert_int_ne(mest_schedulers_load(c.list, bytes_read, &part, NULL), MEST_OK);
            world_close(&c);
        }
        run(&a, stop, 20, 20);
        run(&b, stop, 20, 20);
        for (int i = 0; i < FEW; i++) {
            picture p = take_picture(&a, i), q = take_picture(&b, i);
            ck_assert(same_picture(&p, &q));
            drop_picture(&p), drop_picture(&q);
        }
        free(state.p);
        world_close(&a);
        world_close(&b);
    }
}
END_TEST

START_TEST(state_of_other_schedulers_is_refused)
{
    world a, b;
    world_open(&a, 5, few, 1, 0);
    OK(mest_schedulers_add(a.list, "mest", "freq=2", err));
    bytes state = { 0 };
    OK(mest_schedulers_save(a.list, bytes_write, &state, err));
    struct { const char *name, *options; } other[] = { { NULL, NULL }, { "mest", "freq=3" }, { "mest", "" }, { "forgetting", "epoch=1,count=1" } };
    for (size_t i = 0; i < 4; i++) {
        world_open(&b, 5, few, 1, 0);
        if (other[i].name)
            OK(mest_schedulers_add(b.list, other[i].name, other[i].options, err));
        state.at = 0;
        REFUSED(MEST_E_STATE, mest_schedulers_load(b.list, bytes_read, &state, err));
        world_close(&b);
    }
    state.p[0] ^= 1;
    state.at = 0;
    REFUSED(MEST_E_FORMAT, mest_schedulers_load(a.list, bytes_read, &state, err));
    bytes full = { .fail_at = 20 };
    REFUSED(MEST_E_IO, mest_schedulers_save(a.list, bytes_write, &full, err));
    free(state.p), free(full.p);
    world_close(&a);
}
END_TEST

/* Gradients opposed to the weights: with lambda the other half goes. And the snapshot is that of the last step before. */
START_TEST(lambda_uses_the_last_gradients)
{
    world w;
    world_param p = { "csr", { 2, { 10, 10 } }, .9 };
    world_open(&w, 5, &p, 1, 0);
    OK(mest_schedulers_add(w.list, "mest", "mode=vanilla,rate=.5,lambda=1,freq=1", err));
    world_plan(&w);
    mest_epoch e0 = world_epoch(&w, 0, 9), e1 = world_epoch(&w, 1, 9);
    OK(mest_schedulers_epoch_begin(w.list, &e0, NULL, err));
    ck_assert(w.host.gradients_wanted);
    mest_sparse *s = w.host.params[0].sparse;
    mest_real g[10];
    int64_t units[10];
    for (int i = 0; i < 10; i++) {
        s->values[i] = (mest_real)(i + 1);
        g[i] = (mest_real)-(100 - 10 * i);
    }
    s->format->units(s, 0, 10, units);
    mest_host_take_gradients(&w.host, 0, g);
    OK(mest_schedulers_epoch_begin(w.list, &e1, NULL, err));
    int64_t kept = 0;
    for (int i = 0; i < 5; i++) { /* large gradients, small weights: survivors, value intact */
        int64_t at = mest_sparse_lower_bound(s, units[i]);
        kept += mest_sparse_active(s, units[i]) && s->values[at] == (mest_real)(i + 1);
    }
    ck_assert_int_eq(kept, 5);
    world_close(&w);
}
END_TEST

/* Active means stored, not non-zero: weights that are exactly 0 stay where the method does not remove them. */
START_TEST(zero_weights_stay_active)
{
    world w;
    world_open(&w, 5, few, FEW, 0);
    OK(mest_schedulers_add(w.list, "mest", "mode=em,boundaries=1/2", err));
    world_plan(&w);
    mest_epoch e = world_epoch(&w, 0, 20);
    OK(mest_schedulers_epoch_begin(w.list, &e, NULL, err));
    for (int i = 0; i < FEW; i++)
        memset(w.host.params[i].sparse->values, 0, (size_t)w.host.params[i].sparse->stored * sizeof(mest_real));
    for (int i = 0; i < FEW; i++) {
        picture a = take_picture(&w, i);
        for (int64_t k = 1; k < 20; k++) {
            e = world_epoch(&w, k, 20);
            OK(mest_schedulers_epoch_begin(w.list, &e, NULL, err));
        }
        picture b = take_picture(&w, i);
        ck_assert(same_picture(&a, &b));
        drop_picture(&a), drop_picture(&b);
    }
    world_close(&w);
}
END_TEST

START_TEST(bad_options_are_explained)
{
    static const char *const bad[] = {
        "mode=fast", "mode", "=em", "freq=0", "freq=x", "freq=1.5", "freq=99999999", "speed=3", "target=1.5", "target=-1", "target=nan", "lambda=-1",
        "lambda=1e99", "boundaries=.5/.4", "boundaries=.5/80", "boundaries=1.5/2", "rate=.2/.1", "rate=.2/.1/.1", "rate=.2//0", "rate=/",
        "mode=vanilla,boundaries=.5", "mode=vanilla,rate=.2/.1", "bound=.1/0/0", "mode=ems,bound=.95/0/0", "mode=ems,bound=.1/.05/.01",
        "prune_to=.92/.91/.9,rate=.2/.1/0", "prune_to=.8/.8/.9", "grow_to=.85/.9/.9", "mode=ems,grow_to=.95/.9/.9", "mode=ems,grow_to=.85/.875/.95",
        "target=.8,prune_to=.92/.91/.9", "normalised=perhaps", "exclude_just_removed=2", "first=-1", "mode=ems,grow_to=.8/.9/.9,bound=.1/0/0",
        "rate=.1/.1/.1/.1/.1/.1/.1/.1/.1",
    };
    world w;
    world_open(&w, 5, few, 1, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mest_error err = { 0 };
        ck_assert_msg(mest_schedulers_add(w.list, "mest", bad[i], &err) == MEST_E_ARGUMENT, "'%s' was accepted", bad[i]);
        ck_assert_msg(strncmp(err.msg, "scheduler mest: ", 16) == 0, "'%s': %s", bad[i], err.msg);
    }
    ck_assert_int_eq(mest_schedulers_count(w.list), 0);
    OK(mest_schedulers_add(w.list, "mest", ",mode=em,,target=.9,freq=1,first=1,last=3,normalised=on,boundaries=1/2,", err));
    REFUSED(MEST_E_ARGUMENT, mest_schedulers_add(w.list, "sgd", "", err));
    REFUSED(MEST_E_ARGUMENT, mest_schedulers_add(w.list, "", "", err));
    const char *options = NULL;
    ck_assert_str_eq(mest_schedulers_name(w.list, 0, &options), "mest");
    ck_assert_ptr_nonnull(strstr(options, "first=1"));
    ck_assert_ptr_null(mest_schedulers_name(w.list, 1, NULL));
    world_close(&w);
    const char *summary, *lines;
    ck_assert_str_eq(mest_scheduler_builtin(0, &summary, &lines), "mest");
    ck_assert(summary[0] && lines[strlen(lines) - 1] == '\n');
    ck_assert_str_eq(mest_scheduler_builtin(1, NULL, NULL), "forgetting");
    /* fractions need a length */
    world_open(&w, 5, few, 1, 0);
    OK(mest_schedulers_add(w.list, "mest", "", err));
    world_plan(&w);
    mest_epoch e = world_epoch(&w, 0, 0);
    REFUSED(MEST_E_ARGUMENT, mest_schedulers_epoch_begin(w.list, &e, NULL, err));
    world_close(&w);
}
END_TEST

/* Memory runs out at any point: an error, nothing lost, nothing half applied. */
START_TEST(every_failed_allocation_is_survived)
{
    bool finished = false;
    for (int64_t at = 0; !finished; at++) {
        world w;
        world_open(&w, 5, few, FEW, 0);
        w.b.guard.fail_at = w.b.guard.n + at;
        mest_error err = { 0 };
        mest_status status = mest_schedulers_add(w.list, "mest", "mode=em,lambda=1,freq=1", &err);
        status = status ? status : mest_host_plan(&w.host, &err);
        for (int64_t e = 0; e < 3 && status == MEST_OK; e++) {
            mest_epoch now = world_epoch(&w, e, 3);
            picture before[FEW];
            for (int i = 0; i < FEW; i++)
                before[i] = take_picture(&w, i);
            status = mest_schedulers_epoch_begin(w.list, &now, NULL, &err);
            for (int i = 0; i < FEW; i++) {
                picture after = take_picture(&w, i);
                ck_assert(status == MEST_OK || same_picture(&before[i], &after));
                drop_picture(&before[i]), drop_picture(&after);
            }
        }
        finished = status == MEST_OK;
        ck_assert(finished || (status == MEST_E_NOMEM && err.code == MEST_E_NOMEM));
        world_close(&w);
    }
}
END_TEST

RUN("scheduler mest", mutations_follow_the_definition, worked_counts, every_length_of_run_ends_at_the_target, same_seed_same_masks,
    resume_goes_on_with_the_same_masks, state_of_other_schedulers_is_refused, lambda_uses_the_last_gradients, zero_weights_stay_active,
    bad_options_are_explained, every_failed_allocation_is_survived)
