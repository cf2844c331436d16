/* SPDX-License-Identifier: Apache-2.0 */
/* Shared jobs: each tile runs once, a worker's number belongs to one thread at a time, whether times are kept or not and whatever they say. */
#include <check.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "runtime/threads.h"

enum { MOST_TILES = 300, MOST_WORKERS = 8 };

typedef struct counted {
    atomic_int runs[MOST_TILES], busy[MOST_WORKERS], wrong;
    int workers;
    long ns;
} counted;

static void work(const counted *c)
{
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec < c->ns);
}

static void tile(void *context, size_t i)
{
    counted *c = context;
    atomic_fetch_add(&c->runs[i], 1);
    work(c);
}

static void worker_tile(void *context, size_t worker, size_t i)
{
    counted *c = context;
    atomic_fetch_add(&c->runs[i], 1);
    if (worker >= (size_t)c->workers) {
        atomic_fetch_add(&c->wrong, 1);
        return;
    }
    if (atomic_fetch_add(&c->busy[worker], 1) != 0)
        atomic_fetch_add(&c->wrong, 1);
    work(c);
    atomic_fetch_sub(&c->busy[worker], 1);
}

static void all_once(const mest_threads *threads, int tiles, long ns, bool workers)
{
    counted c = {.workers = threads ? threads->n : 1, .ns = ns};
    if (workers)
        mest_parallel_worker(threads, (size_t)tiles, worker_tile, &c);
    else
        mest_parallel(threads, (size_t)tiles, tile, &c);
    ck_assert_int_eq(c.wrong, 0);
    for (int i = 0; i < MOST_TILES; i++)
        ck_assert_int_eq(c.runs[i], i < tiles);
}

START_TEST(test_every_tile_once)
{
    static const int tiles[] = {0, 1, 2, 3, 4, 7, 64, MOST_TILES};
    mest_threads threads;
    mest_error err = {MEST_OK, ""};
    ck_assert_int_eq((_i & 4 ? mest_threads_create_nice : mest_threads_create)(&threads, (_i & 3) + 1, &err), MEST_OK);
    for (int t = 0; t < 8; t++) {
        mest_job_times times = {0};
        for (int run = 0; run < 4; run++) { /* not known, then known */
            mest_threads_at(&threads, &times);
            for (int job = 0; job < MEST_TIMED_JOBS + 2; job++) /* more than are kept */
                all_once(&threads, tiles[t], job % 3 * 3000, job & 1);
            mest_threads_at(&threads, NULL);
            all_once(&threads, tiles[t], 1000, run & 1);
        }
        for (int8_t how = 0; how <= 3; how++) { /* times as wrong as they can be */
            for (int k = 0; k < MEST_TIMED_JOBS; k++) {
                times.job[k].alone = k & 1 ? INT64_C(1) << 40 : 1;
                times.job[k].how = how;
            }
            mest_threads_at(&threads, &times);
            for (int k = 0; k < MEST_TIMED_JOBS; k++)
                all_once(&threads, tiles[t], 2000, k & 2);
        }
    }
    mest_threads_destroy(&threads);
    all_once(NULL, 5, 0, _i & 1);
}
END_TEST

/* What is known is kept by the caller: a long job is known to be one, a short one is not shared. */
START_TEST(test_times_are_kept)
{
    mest_threads threads;
    mest_error err = {MEST_OK, ""};
    ck_assert_int_eq(mest_threads_create(&threads, 2, &err), MEST_OK);
    mest_job_times times = {0};
    for (int run = 0; run < 3; run++) {
        mest_threads_at(&threads, &times);
        all_once(&threads, 8, 1000000, true);
        all_once(&threads, 2, 0, false);
        mest_threads_at(&threads, NULL);
        all_once(&threads, 8, 0, false); /* nobody's */
    }
    ck_assert_int_gt(times.job[0].alone, 4000000); /* eight tiles of a millisecond on two threads take four at least */
    ck_assert_int_gt(times.job[1].alone, 0);
    ck_assert_int_ne(times.job[0].how, 0);
    ck_assert_int_eq(times.job[2].how, 0);
    mest_threads_destroy(&threads);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("threads");
    TCase *t = tcase_create("jobs");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, test_every_tile_once, 0, 8);
    tcase_add_test(t, test_times_are_kept);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
