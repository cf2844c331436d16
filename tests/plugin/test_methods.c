/* SPDX-License-Identifier: Apache-2.0 */
/* The published methods that move units, on a host with pretended values and gradients: what goes and what grows is compared with a plain
 * search, counts with their formulas */
#include "tests/plugin/methods.h"

static void rigl(int expected)
{
    world w;
    mest_host_report r;
    open_method(&w, "rigl", "every=7,rate=.4,stop=.8", false, 3);
    int updates = 0;
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        world_train(&w, epoch);
        for (int64_t batch = 0; batch < BATCHES; batch++) {
            picture before[N];
            for (int i = 0; i < N; i++)
                before[i] = take_picture(&w, i);
            int probes = w.probes;
            int64_t lowest[N][500]; /* with groups: tests/sparse looks at what these are */
            for (int i = 0; i < N; i++) {
                double t = ((double)epoch + (double)batch / BATCHES) / EPOCHS;
                int64_t k = (int64_t)(.4 / 2 * (1 + cos(3.14159265358979323846 * t / .8)) * (double)before[i].n + .5);
                ck_assert_int_le(k, 500);
                if (w.host.params[i].sparse->group_units)
                    OK(mest_host_functions()->lowest_units(&w.host, i, 0, false, k, lowest[i], err));
            }
            OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
            int64_t step = epoch * BATCHES + batch;
            double t = ((double)epoch + (double)batch / BATCHES) / EPOCHS;
            bool due = step > 0 && step % 7 == 0 && t < .8;
            int64_t most = 0;
            for (int i = 0; i < N; i++)
                most += (int64_t)(.4 / 2 * (1 + cos(3.14159265358979323846 * t / .8)) * (double)before[i].n + .5);
            due = due && most > 0;
            ck_assert(w.probes == probes + due && w.host.skip_update == due);
            updates += due;
            for (int i = 0; i < N; i++) {
                const mest_sparse *s = w.host.params[i].sparse;
                picture after = take_picture(&w, i);
                ck_assert_int_eq(after.n, target_of(&w, i));
                if (!due) {
                    ck_assert(same_picture(&before[i], &after));
                } else {
                    int64_t k = (int64_t)(.4 / 2 * (1 + cos(3.14159265358979323846 * t / .8)) * (double)before[i].n + .5);
                    int64_t *gone = malloc((size_t)k * 8 + 8), *held = malloc((size_t)before[i].n * 8 + 8), n_held = 0, found;
                    if (s->group_units) {
                        memcpy(gone, lowest[i], (size_t)k * 8);
                    } else {
                        free(gone);
                        gone = smallest(&before[i], k);
                    }
                    for (int64_t j = 0; j < before[i].n; j++)
                        if (!unit_in(gone, k, before[i].units[j]))
                            held[n_held++] = before[i].units[j];
                    int64_t *grown = steepest(s, i, step, held, n_held, k, &found);
                    ck_assert_int_eq(found, k);
                    for (int64_t u = 0; u < mest_sparse_ids(s); u++)
                        MUST((unit_in(held, n_held, u) || unit_in(grown, found, u)) == unit_in(after.units, after.n, u));
                    check_survivors(&before[i], &after, true); /* one that went and grew counts as a survivor */
                    free(gone), free(held), free(grown);
                }
                drop_picture(&after);
                drop_picture(&before[i]);
                sparse_check(s);
            }
        }
    }
    ck_assert_int_eq(updates, expected);
    world_close(&w);
}

START_TEST(rigl_drops_the_smallest_and_grows_the_steepest)
{
    params = free_params;
    rigl(21); /* steps 7..147; at 154 the rate rounds to no unit */
    params = grouped_params;
    rigl(21);
    params = free_params;
}
END_TEST

/* round(part * n), as the schedulers count */
static int64_t part(double rate, int64_t n) { return (int64_t)(rate * (double)n + .5); }

START_TEST(set_replaces_what_is_nearest_to_zero)
{
    for (int turn = 0; turn < 4; turn++) {
        const bool magnitude = turn & 1;
        world w;
        params = turn & 2 ? grouped_params : free_params;
        mest_host_report r;
        open_method(&w, "set", magnitude ? "select=magnitude,init=zero,exclude_just_removed=yes" : "", false, 3);
        for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
            for (int64_t batch = 0; batch < BATCHES; batch++) {
                picture before[N];
                for (int i = 0; i < N; i++)
                    before[i] = take_picture(&w, i);
                OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
                bool due = epoch > 0 && batch == 0;
                ck_assert(!w.host.skip_update && (r.removed > 0) == due);
                for (int i = 0; i < N; i++) {
                    picture after = take_picture(&w, i);
                    ck_assert_int_eq(after.n, target_of(&w, i));
                    if (due) {
                        int64_t k = part(.3, before[i].n), positive = 0, counted[2] = { 0, 0 };
                        bool by_sign = !magnitude && before[i].e == 1 && !w.host.params[i].sparse->group_units;
                        for (int64_t j = 0; j < before[i].n; j++)
                            positive += before[i].values[j] >= 0;
                        if (w.host.params[i].sparse->group_units) {
                            ck_assert(after.n == before[i].n); /* which ones: tests/sparse */
                        } else if (!by_sign) {
                            int64_t *gone = smallest(&before[i], k);
                            for (int64_t j = 0; j < before[i].n; j++)
                                MUST(unit_in(after.units, after.n, before[i].units[j]) || unit_in(gone, k, before[i].units[j]));
                            free(gone);
                        } else { /* no survivor of a side is nearer to zero than one that went; regrown ones look like survivors of value 0.1 N */
                            mest_real far[2] = { 0, 0 };
                            for (int64_t j = 0; j < before[i].n; j++) {
                                const int64_t *at = bsearch(&before[i].units[j], after.units, (size_t)after.n, 8, id_compare);
                                int side = before[i].values[j] < 0;
                                mest_real v = before[i].values[j] < 0 ? -before[i].values[j] : before[i].values[j];
                                if (!at || after.values[at - after.units] != before[i].values[j]) {
                                    counted[side]++;
                                    far[side] = v > far[side] ? v : far[side];
                                }
                            }
                            ck_assert_int_eq(counted[0] + counted[1], k);
                            ck_assert_int_eq(counted[0], part(.3, positive));
                            for (int64_t j = 0; j < before[i].n; j++) {
                                const int64_t *at = bsearch(&before[i].units[j], after.units, (size_t)after.n, 8, id_compare);
                                int side = before[i].values[j] < 0;
                                mest_real v = before[i].values[j] < 0 ? -before[i].values[j] : before[i].values[j];
                                if (at && after.values[at - after.units] == before[i].values[j])
                                    MUST(v >= far[side]);
                            }
                        }
                        if (magnitude)
                            check_survivors(&before[i], &after, true);
                    } else {
                        ck_assert(same_picture(&before[i], &after));
                    }
                    drop_picture(&after);
                    drop_picture(&before[i]);
                    sparse_check(w.host.params[i].sparse);
                }
            }
            world_train(&w, epoch);
        }
        world_close(&w);
    }
    params = free_params;
}
END_TEST

/* New weights of SET: mean 0, deviation sigma. */
START_TEST(new_weights_are_normal)
{
    world w;
    world_param p = { "csr", { 2, { 200, 200 } }, .5 };
    world_open(&w, 5, &p, 1, 0);
    OK(mest_schedulers_add(w.list, "set", "rate=1,sigma=.25,select=magnitude", err));
    world_plan(&w);
    mest_host_report r;
    OK(world_step(&w, 1, 0, EPOCHS, BATCHES, &r, err));
    const mest_sparse *s = w.host.params[0].sparse;
    double sum = 0, squares = 0, fourth = 0, n = (double)s->stored;
    for (int64_t i = 0; i < s->stored; i++) {
        double v = (double)s->values[i];
        sum += v, squares += v * v, fourth += v * v * v * v;
    }
    ck_assert_int_eq(r.removed, 20000);
    ck_assert(fabs(sum / n) < 4 * .25 / sqrt(n));
    ck_assert(fabs(squares / n / .0625 - 1) < 4 * sqrt(2 / n));
    ck_assert(fabs(fourth / n / (3 * .0625 * .0625) - 1) < .1);
    world_close(&w);
}
END_TEST

START_TEST(dsr_moves_units_and_keeps_their_number)
{
    world w;
    mest_host_report r;
    open_method(&w, "dsr", "every=5,threshold=.1,share=.2,room=3", false, 3);
    int64_t total = 0, moved = 0;
    for (int i = 0; i < N; i++)
        total += w.host.params[i].sparse->active_units;
    double threshold = .1;
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++)
        for (int64_t batch = 0; batch < BATCHES; batch++) {
            int64_t step = epoch * BATCHES + batch, now = 0, below = 0;
            picture before[N];
            for (int i = 0; i < N; i++) {
                before[i] = take_picture(&w, i);
                for (int64_t j = 0; j < before[i].n; j++)
                    below += (double)norm_at(&before[i], j) < threshold * sqrt((double)before[i].e);
            }
            OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
            bool due = step > 0 && step % 5 == 0 && step < .95 * EPOCHS * BATCHES;
            ck_assert_int_eq(r.removed, due ? below : 0);
            for (int i = 0; i < N; i++) {
                picture after = take_picture(&w, i);
                now += after.n;
                ck_assert_int_le(after.n, w.host.params[i].sparse->cap_units);
                if (after.n != before[i].n)
                    moved++;
                for (int64_t j = 0; due && j < before[i].n; j++) /* what went does not come back at once */
                    MUST(((double)norm_at(&before[i], j) < threshold * sqrt((double)before[i].e)) != unit_in(after.units, after.n, before[i].units[j]));
                check_survivors(&before[i], &after, true);
                drop_picture(&after);
                drop_picture(&before[i]);
                sparse_check(w.host.params[i].sparse);
            }
            ck_assert_int_eq(now, total);
            if (due)
                threshold *= (double)below > .22 * (double)total ? .5 : (double)below < .18 * (double)total ? 2 : 1;
            if (batch % 4 == 3)
                world_train(&w, step);
        }
    ck_assert_int_gt(moved, 20);
    world_close(&w);
}
END_TEST

/* A layer whose weights are all below the threshold keeps them, also while it is given others. */
START_TEST(dsr_empties_no_layer)
{
    world w;
    mest_host_report r;
    open_method(&w, "dsr", "every=5,threshold=.1,share=.2,room=3", false, 3);
    for (int i = 0; i < N; i++) {
        mest_sparse *s = w.host.params[i].sparse;
        for (int64_t k = 0; k < s->stored; k++)
            s->values[k] = i == 3 || k % 5 == 0 ? (mest_real)1e-6 : 1;
    }
    picture before = take_picture(&w, 3);
    OK(world_step(&w, 0, 5, EPOCHS, BATCHES, &r, err));
    picture after = take_picture(&w, 3);
    ck_assert_int_gt(r.removed, 0);
    ck_assert_int_gt(after.n, before.n);
    for (int64_t i = 0; i < before.n; i++)
        MUST(unit_in(after.units, after.n, before.units[i]));
    check_survivors(&before, &after, true);
    drop_picture(&before), drop_picture(&after);
    world_close(&w);
}
END_TEST

static void cubic(void)
{
    world w;
    mest_host_report r;
    open_method(&w, "magnitude", "every=3,start=.1,stop=.7", true, 3);
    world_train(&w, 0);
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++)
        for (int64_t batch = 0; batch < BATCHES; batch++) {
            int64_t step = epoch * BATCHES + batch;
            double t = ((double)epoch + (double)batch / BATCHES) / EPOCHS, x = (t - .1) / .6;
            picture before[N];
            for (int i = 0; i < N; i++)
                before[i] = take_picture(&w, i);
            OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
            bool due = step % 3 == 0 && t >= .1 - 1e-12 && t < .7 - 1e-12;
            for (int i = 0; i < N; i++) {
                picture after = take_picture(&w, i);
                double s = params[i].sparsity * (1 - (1 - x) * (1 - x) * (1 - x));
                int64_t want = t >= .7 - 1e-12 ? target_of(&w, i) : due ? mest_sparse_units_at(w.host.params[i].sparse, s) : before[i].n;
                ck_assert_msg(after.n == want, "step %d: %d, not %d", (int)step, (int)after.n, (int)want);
                int64_t *gone = smallest(&before[i], before[i].n - after.n);
                for (int64_t j = 0; j < before[i].n && !w.host.params[i].sparse->group_units; j++)
                    MUST(unit_in(after.units, after.n, before[i].units[j]) != unit_in(gone, before[i].n - after.n, before[i].units[j]));
                check_survivors(&before[i], &after, true);
                free(gone);
                drop_picture(&after);
                drop_picture(&before[i]);
            }
        }
    world_close(&w);
    open_method(&w, "magnitude", "mode=oneshot,start=.5", true, 3);
    world_train(&w, 0);
    OK(world_step(&w, 4, BATCHES - 1, EPOCHS, BATCHES, &r, err));
    ck_assert_int_eq(r.removed, 0);
    OK(world_step(&w, 5, 0, EPOCHS, BATCHES, &r, err));
    for (int i = 0; i < N; i++)
        ck_assert_int_eq(w.host.params[i].sparse->active_units, target_of(&w, i));
    OK(world_step(&w, 5, 1, EPOCHS, BATCHES, &r, err));
    ck_assert_int_eq(r.removed, 0);
    world_close(&w);
}

START_TEST(magnitude_follows_the_cubic)
{
    cubic();
    params = grouped_params;
    cubic();
    params = free_params;
}
END_TEST

RUN("methods", rigl_drops_the_smallest_and_grows_the_steepest, set_replaces_what_is_nearest_to_zero, new_weights_are_normal,
    dsr_moves_units_and_keeps_their_number, dsr_empties_no_layer, magnitude_follows_the_cubic)
