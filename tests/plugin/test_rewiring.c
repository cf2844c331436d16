/* SPDX-License-Identifier: Apache-2.0 */
/* DeepR and SNFS against plain searches: what turned around goes; what has the largest smoothed gradient grows, layers share by momentum. */
#include "tests/plugin/methods.h"

START_TEST(deepr_replaces_what_turned_around)
{
    for (int turn = 0; turn < 2; turn++) {
        world w;
        mest_host_report r;
        int64_t gone_in_all = 0;
        params = turn ? grouped_params : free_params;
        open_method(&w, "deepr", "stop=.8,l1=.01,eta=.02,temperature=1e-4/1e-6,stages=.5", false, 3);
        for (int64_t epoch = 0; epoch < EPOCHS; epoch++)
            for (int64_t batch = 0; batch < BATCHES; batch++) {
                const int64_t step = epoch * BATCHES + batch;
                const double t = (double)step / (EPOCHS * BATCHES);
                OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
                ck_assert(r.removed == 0 && w.host.perturbed && w.host.l1 == .01);
                ck_assert(fabs(w.host.noise - sqrt(2 * .02 * (t < .5 ? 1e-4 : 1e-6))) < 1e-12);
                world_train(&w, step);
                picture before[N];
                for (int i = 0; i < N; i++)
                    before[i] = take_picture(&w, i);
                OK(world_step_end(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
                for (int i = 0; i < N; i++) {
                    picture after = take_picture(&w, i);
                    int64_t gone = 0;
                    ck_assert_int_eq(after.n, target_of(&w, i));
                    for (int64_t j = 0; j < before[i].n; j++) {
                        const bool went = t < .8 && turns(i, step, before[i].units[j]);
                        gone += went;
                        /* without groups it never comes back at once; with groups there may be no other place */
                        MUST(went ? params == grouped_params || !unit_in(after.units, after.n, before[i].units[j])
                                  : unit_in(after.units, after.n, before[i].units[j]));
                    }
                    gone_in_all += gone;
                    if (!turn)
                        check_survivors(&before[i], &after, true);
                    drop_picture(&after);
                    drop_picture(&before[i]);
                    sparse_check(w.host.params[i].sparse);
                }
            }
        ck_assert_int_gt(gone_in_all, 300);
        world_close(&w);
    }
    params = free_params;
}
END_TEST

/* After some steps, steps of steady length take no memory. */
START_TEST(deepr_allocates_nothing_in_the_long_run)
{
    world w;
    mest_host_report r;
    open_method(&w, "deepr", "", false, 3);
    int64_t before = 0;
    for (int64_t step = 0; step < 150; step++) {
        OK(world_step(&w, step / BATCHES, step % BATCHES, EPOCHS, BATCHES, &r, err));
        OK(world_step_end(&w, step / BATCHES, step % BATCHES, EPOCHS, BATCHES, &r, err));
        if (step == 120)
            before = atomic_load(&w.b.heap.allocations);
    }
    ck_assert_int_eq(atomic_load(&w.b.heap.allocations), before);
    world_close(&w);
}
END_TEST

/* ---- SNFS ---- */

typedef struct averages { float *of[N]; } averages; /* [ids, elements] */

/* The moving averages after the step at work, of all units, whether anybody keeps them or not. */
static void smooth(const world *w, averages *a, double beta)
{
    int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
    for (int i = 0; i < N; i++) {
        const mest_sparse *s = w->host.params[i].sparse;
        if (!a->of[i])
            a->of[i] = calloc((size_t)(mest_sparse_ids(s) * s->unit_elements), sizeof(float));
        for (int64_t u = 0; u < mest_sparse_ids(s); u++) {
            mest_sparse_unit_entries(s, u, row, col);
            for (int32_t e = 0; e < s->unit_elements; e++) {
                double g = row[e] < s->rows && col[e] >= 0 ? (double)gradient_at(i, w->step, row[e], col[e], s->cols) : 0;
                float *x = &a->of[i][u * s->unit_elements + e];
                *x = (float)(beta * (double)*x + (1 - beta) * g);
            }
        }
    }
}

static void forget(averages *a)
{
    for (int i = 0; i < N; i++)
        free(a->of[i]), a->of[i] = NULL;
}

static float average_norm(const averages *a, int i, int64_t unit, int32_t elements)
{
    double sum = 0;
    for (int32_t e = 0; e < elements; e++)
        sum += (double)a->of[i][unit * elements + e] * (double)a->of[i][unit * elements + e];
    return (float)sqrt(sum);
}

/* One run in which every update is compared: with window = all steps and all inactive units as candidates the bounded form must choose
 * like the dense one, whose averages begin with the window. */
static void momentum(bool dense)
{
    world w;
    mest_host_report r;
    averages a = { { NULL } };
    int updates = 0, free_shares = 0;
    open_method(&w, "snfs", dense ? "memory=dense,rate=.4,room=3" : "rate=.4,room=3,window=1000,candidates=1000000", false, 3);
    int64_t total = 0;
    for (int i = 0; i < N; i++)
        total += target_of(&w, i);
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++)
        for (int64_t batch = 0; batch < BATCHES; batch++) {
            const int64_t step = epoch * BATCHES + batch;
            const double rate = .4 / 2 * (1 + cos(3.14159265358979323846 * (double)epoch / EPOCHS));
            picture before[N];
            double mean[N], sum = 0;
            int64_t give[N], gone = 0, now = 0;
            for (int i = 0; i < N; i++) {
                before[i] = take_picture(&w, i);
                give[i] = (int64_t)(rate * (double)before[i].n + .5);
                mean[i] = 0;
                for (int64_t j = 0; j < before[i].n; j++) {
                    double m = 0;
                    for (int64_t e = 0; e < before[i].e; e++)
                        m += (double)before[i].slots[0][j * before[i].e + e] * (double)before[i].slots[0][j * before[i].e + e];
                    mean[i] += sqrt(m) / sqrt((double)before[i].e);
                }
                mean[i] /= (double)before[i].n;
                sum += mean[i];
                gone += give[i];
            }
            OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
            const bool due = epoch > 0 && batch == 0;
            updates += due;
            bool all_have_room = true;
            for (int i = 0; i < N; i++) {
                const mest_sparse *s = w.host.params[i].sparse;
                double want = mean[i] / sum * (double)gone;
                all_have_room = all_have_room && want < (double)(s->cap_units - before[i].n + give[i]) && want < (double)(s->n_units - before[i].n);
            }
            for (int i = 0; i < N; i++) {
                const mest_sparse *s = w.host.params[i].sparse;
                picture after = take_picture(&w, i);
                now += after.n;
                ck_assert_int_le(after.n, s->cap_units);
                if (!due) {
                    ck_assert(same_picture(&before[i], &after));
                } else {
                    int64_t *drop = smallest(&before[i], give[i]), grown = after.n - (before[i].n - give[i]), n = 0;
                    if (all_have_room) {
                        ck_assert(fabs((double)grown - mean[i] / sum * (double)gone) < N);
                        free_shares++;
                    }
                    scored *all = malloc((size_t)s->n_units * sizeof *all);
                    for (int64_t u = 0; u < s->n_units; u++) {
                        bool was = unit_in(before[i].units, before[i].n, u);
                        if (!was || (dense && unit_in(drop, give[i], u)))
                            all[n++] = (scored){ average_norm(&a, i, u, s->unit_elements), u };
                    }
                    qsort(all, (size_t)n, sizeof *all, by_score_down);
                    for (int64_t j = 0; j < n; j++)
                        MUST(unit_in(after.units, after.n, all[j].unit) == (j < grown));
                    for (int64_t j = 0; j < before[i].n && !dense; j++)
                        MUST(unit_in(after.units, after.n, before[i].units[j]) != unit_in(drop, give[i], before[i].units[j]));
                    check_survivors(&before[i], &after, true);
                    free(all), free(drop);
                }
                drop_picture(&after);
                drop_picture(&before[i]);
                sparse_check(s);
            }
            ck_assert_int_eq(now, total);
            world_train(&w, step);
            if (!dense && batch == 0)
                forget(&a); /* the first step of the window chooses, the next ones count */
            if (dense || batch > 0)
                smooth(&w, &a, .9);
            OK(world_step_end(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
        }
    ck_assert_int_eq(updates, EPOCHS - 1);
    ck_assert_int_gt(free_shares, 3);
    forget(&a);
    world_close(&w);
}

START_TEST(snfs_grows_the_largest_smoothed_gradients)
{
    momentum(true);
    momentum(false);
}
END_TEST

/* Bounded: what it holds is a few times what grows, and nothing between updates outside of the window. */
START_TEST(snfs_is_bounded)
{
    world w;
    mest_host_report r;
    world_param large = { "csr", { 2, { 300, 400 } }, .98 };
    world_open(&w, 5, &large, 1, 0);
    OK(mest_schedulers_add(w.list, "snfs", "rate=.2,window=4", err));
    world_plan(&w);
    const int64_t idle = atomic_load(&w.b.heap.current_bytes);
    w.b.guard.largest = 0;
    for (int64_t epoch = 0; epoch < 4; epoch++)
        for (int64_t batch = 0; batch < BATCHES; batch++) {
            OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
            world_train(&w, epoch * BATCHES + batch);
            OK(world_step_end(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
            if (batch > 0 && batch < BATCHES - 4) /* lists of proposals keep their memory */
                ck_assert_int_lt(atomic_load(&w.b.heap.current_bytes) - idle, 2400 * 24);
        }
    ck_assert_uint_lt(w.b.guard.largest, 300 * 400 * 4 / 8);
    ck_assert_int_eq(w.host.params[0].sparse->active_units, 2400);
    world_close(&w);
}
END_TEST

RUN("rewiring", deepr_replaces_what_turned_around, deepr_allocates_nothing_in_the_long_run, snfs_grows_the_largest_smoothed_gradients, snfs_is_bounded)
