/* SPDX-License-Identifier: Apache-2.0 */
/* The account of patterns against brute force on copies of every pattern; its state; the lack of memory. */
#include "tests/plugin/world.h"

static const world_param few[] = {
    { "csr", { 4, { 16, 8, 3, 3 } }, .9 },
    { "block4", { 2, { 30, 40 } }, .8 },
    { "csr", { 2, { 3, 700 } }, .98 },
};
enum { FEW = 3, EPOCHS = 12 };

static void watch_world(world *w)
{
    mest_sparse *weights[FEW];
    for (int i = 0; i < FEW; i++)
        weights[i] = w->host.params[i].sparse;
    OK(mest_watch_create(&w->host.account, &w->b.heap, weights, FEW, err));
}

static int64_t shared(const int64_t *a, int64_t na, const int64_t *b, int64_t nb)
{
    int64_t n = 0;
    for (int64_t i = 0; i < na; i++)
        n += unit_in(b, nb, a[i]);
    return n;
}

static void check_against(const world *w, int param, const picture *start, const picture *old, const picture *now, const int64_t *grown,
                          int64_t n_grown)
{
    mest_watch_param *p = &w->host.account->params[param];
    int64_t both = shared(start->units, start->n, now->units, now->n);
    double distance = 1 - (double)both / (double)(start->n + now->n - both);
    ck_assert_double_eq_tol(mest_watch_distance(p), distance, 1e-15);
    ck_assert_int_eq(p->n_grown - p->n_removed, now->n - old->n);
    ck_assert_int_eq(p->n_earlier, n_grown);
    /* Who left may have come back at once, as a new unit: at least those that are gone were lost. */
    ck_assert_int_le(p->n_survivors, shared(grown, n_grown, now->units, now->n));
    ck_assert_int_ge(p->n_survivors, n_grown - p->n_removed);
}

START_TEST(counts_agree_with_copies_of_the_patterns)
{
    static const char *const options[] = { "mode=vanilla,freq=1,rate=.3", "mode=em,freq=1,exclude_just_removed=yes", "mode=ems,freq=2" };
    for (size_t o = 0; o < sizeof options / sizeof *options; o++) {
        world w;
        world_open(&w, 11 + o, few, FEW, 0);
        OK(mest_schedulers_add(w.list, "mest", options[o], err));
        world_plan(&w);
        watch_world(&w);
        picture start[FEW], old[FEW];
        int64_t *grown[FEW] = { 0 }, n_grown[FEW] = { 0 };
        for (int i = 0; i < FEW; i++)
            start[i] = take_picture(&w, i);
        for (int64_t e = 0; e < EPOCHS; e++) {
            for (int i = 0; i < FEW; i++)
                old[i] = take_picture(&w, i);
            mest_host_report report = { 0 };
            mest_epoch now = world_epoch(&w, e, EPOCHS);
            OK(mest_schedulers_epoch_begin(w.list, &now, &report, err));
            int64_t removed = 0, added = 0;
            for (int i = 0; i < FEW; i++) {
                mest_watch_param *p = &w.host.account->params[i];
                picture new = take_picture(&w, i);
                removed += p->n_removed, added += p->n_grown;
                if (p->n_removed || p->n_grown) {
                    check_against(&w, i, &start[i], &old[i], &new, grown[i], n_grown[i]);
                    if (o == 1) { /* nobody comes back at once: exact */
                        ck_assert_int_eq(p->n_survivors, shared(grown[i], n_grown[i], new.units, new.n));
                        ck_assert_int_eq(p->n_removed, old[i].n - shared(old[i].units, old[i].n, new.units, new.n));
                    }
                    free(grown[i]);
                    grown[i] = malloc((size_t)p->grown.n * 8 + 8);
                    n_grown[i] = p->grown.n;
                    ck_assert_int_eq(n_grown[i], p->n_grown);
                    mest_unit_reader r = mest_unit_list_read(&p->grown);
                    for (int64_t k = 0; k < n_grown[i]; k++) {
                        grown[i][k] = mest_unit_next(&r);
                        ck_assert(unit_in(new.units, new.n, grown[i][k]));
                    }
                }
                drop_picture(&new), drop_picture(&old[i]);
            }
            ck_assert_int_eq(removed, report.removed);
            ck_assert_int_eq(added, report.grown);
            mest_watch_reset(w.host.account);
            world_train(&w, e);
        }
        for (int i = 0; i < FEW; i++)
            drop_picture(&start[i]), free(grown[i]);
        world_close(&w);
    }
}
END_TEST

START_TEST(state_comes_back)
{
    world w, other;
    bytes saved = { 0 };
    world_open(&w, 3, few, FEW, 0), world_open(&other, 3, few, FEW, 0);
    OK(mest_schedulers_add(w.list, "mest", "mode=em,freq=1", err));
    world_plan(&w), world_plan(&other);
    watch_world(&w);
    for (int64_t e = 0; e < 3; e++) {
        mest_epoch now = world_epoch(&w, e, 20);
        OK(mest_schedulers_epoch_begin(w.list, &now, NULL, err));
        world_train(&w, e);
    }
    OK(mest_watch_save(w.host.account, bytes_write, &saved, err));
    watch_world(&other);
    OK(mest_watch_load(other.host.account, bytes_read, &saved, err));
    for (int i = 0; i < FEW; i++) {
        mest_watch_param *a = &w.host.account->params[i], *b = &other.host.account->params[i];
        ck_assert_int_eq(a->start.n, b->start.n);
        ck_assert_mem_eq(a->start.bytes, b->start.bytes, a->start.used);
        ck_assert_int_eq(a->grown.n, b->grown.n);
        ck_assert_mem_eq(a->grown.bytes, b->grown.bytes, a->grown.used);
    }
    saved.at = 0; /* cut off anywhere: an error, no crash */
    size_t whole = saved.n;
    for (saved.n = 0; saved.n < whole; saved.n += 7) {
        saved.at = 0;
        ck_assert(mest_watch_load(other.host.account, bytes_read, &saved, NULL) != MEST_OK);
    }
    free(saved.p);
    world_close(&w), world_close(&other);
}
END_TEST

START_TEST(every_failed_allocation_is_survived)
{
    bool finished = false;
    for (int64_t at = 0; !finished; at++) {
        world w;
        mest_sparse *weights[FEW];
        world_open(&w, 5, few, FEW, 0);
        world_plan(&w);
        for (int i = 0; i < FEW; i++)
            weights[i] = w.host.params[i].sparse;
        w.b.guard.fail_at = w.b.guard.n + at;
        mest_error err = { 0 };
        mest_status status = mest_watch_create(&w.host.account, &w.b.heap, weights, FEW, &err);
        finished = status == MEST_OK;
        ck_assert(finished || (status == MEST_E_NOMEM && !w.host.account));
        world_close(&w);
    }
}
END_TEST

RUN("watch", counts_agree_with_copies_of_the_patterns, state_comes_back, every_failed_allocation_is_survived)
