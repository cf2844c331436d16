/* SPDX-License-Identifier: Apache-2.0 */
/* Batch loader: order, determinism, resume in the middle of an epoch, errors when due, shutdown at any moment. */
#include "tests/data/data_util.h"

#include <stdatomic.h>
#include <time.h>

#include "runtime/loader.h"

static mest_error err;

/* A source of its own: input = [id, epoch, augment], target = id * 10. */
typedef struct fake {
    int64_t count, bad_id;
    int delay_us;
    atomic_int inside, calls;
    bool targets;
} fake;

static mest_status fake_info(void *self, mest_source_info *info, mest_error *e)
{
    const fake *f = self;
    (void)e;
    info->count = f->count;
    info->input_type = MEST_SAMPLE_F32;
    info->input_rank = 1;
    info->input_dim[0] = 3;
    info->target_type = MEST_SAMPLE_I64;
    info->has_targets = f->targets;
    return MEST_OK;
}

static mest_status fake_fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets, mest_error *e)
{
    fake *f = self;
    ck_assert_int_eq(atomic_fetch_add(&f->inside, 1), 0); /* one call at a time */
    atomic_fetch_add(&f->calls, 1);
    if (f->delay_us)
        nanosleep(&(struct timespec){.tv_nsec = f->delay_us * 1000L}, NULL);
    mest_status status = MEST_OK;
    for (int64_t i = 0; i < n; i++) {
        float *in = (float *)inputs + 3 * i;
        in[0] = (float)ids[i];
        in[1] = (float)how->epoch;
        in[2] = how->augment;
        if (targets)
            ((int64_t *)targets)[i] = ids[i] * 10;
        if (ids[i] == f->bad_id)
            status = mest_fail(e, MEST_E_DATA, "sample %d is bad", (int)ids[i]);
    }
    atomic_fetch_sub(&f->inside, 1);
    return status;
}

static mest_source source_of(fake *f)
{
    return (mest_source){.struct_size = sizeof(mest_source), .self = f, .info = fake_info, .fetch = fake_fetch};
}

/* Runs an epoch to its end; the ids seen, one after another. */
static int64_t run_epoch(mest_loader *l, const mest_sample_set *set, const mest_loader_plan *plan, int64_t *ids)
{
    mest_batch b;
    int64_t n = 0, batches = plan->first_batch;
    assert_ok(mest_loader_begin(l, set, plan, &err));
    for (;;) {
        assert_ok(mest_loader_next(l, &b, &err));
        if (b.n == 0)
            break;
        batches++;
        for (int64_t i = 0; i < b.n; i++) {
            const float *in = (const float *)b.inputs[0] + 3 * i;
            ck_assert_int_eq((int64_t)in[0], b.ids[i]);
            ck_assert_int_eq((int64_t)in[1], plan->epoch);
            ck_assert(in[2] == (float)plan->augment);
            if (b.targets)
                ck_assert_int_eq(((const int64_t *)b.targets)[i], b.ids[i] * 10);
            ids[n++] = b.ids[i];
        }
    }
    ck_assert_int_eq(batches, mest_loader_batches(l));
    return n;
}

START_TEST(plain_order)
{
    fake f = {.count = 10, .bad_id = -1, .targets = true};
    mest_source s = source_of(&f);
    mest_loader *l;
    int64_t ids[16];
    assert_ok(mest_loader_create(&l, &test_heap, &s, 4, &err));
    ck_assert_int_eq(mest_loader_info(l)->count, 10);
    mest_loader_plan plan = {.epoch = 3, .augment = true};
    int64_t before = test_heap.allocations;
    ck_assert_int_eq(run_epoch(l, NULL, &plan, ids), 10);
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(ids[i], i);
    ck_assert_int_eq(mest_loader_batches(l), 3);
    plan.drop_last = true;
    ck_assert_int_eq(run_epoch(l, NULL, &plan, ids), 8);
    plan.first_batch = 1;
    ck_assert_int_eq(run_epoch(l, NULL, &plan, ids), 4);
    ck_assert_int_eq(ids[0], 4);
    plan.first_batch = 2;
    ck_assert_int_eq(run_epoch(l, NULL, &plan, ids), 0);
    ck_assert_int_eq(test_heap.allocations, before);
    mest_loader_destroy(l);
    mest_loader_destroy(NULL);
}
END_TEST

START_TEST(shuffled)
{
    enum { N = 101 };
    int64_t a[N], b[N], c[N], rest[N];
    fake f = {.count = N, .bad_id = -1, .targets = true}, slow = {.count = N, .bad_id = -1, .delay_us = 300};
    mest_source s = source_of(&f), t = source_of(&slow);
    mest_loader *l, *m;
    assert_ok(mest_loader_create(&l, &test_heap, &s, 8, &err));
    assert_ok(mest_loader_create(&m, &test_heap, &t, 8, &err));
    mest_loader_plan plan = {.seed = 42, .epoch = 1, .shuffle = true};
    ck_assert_int_eq(run_epoch(l, NULL, &plan, a), N);
    ck_assert_int_eq(run_epoch(m, NULL, &plan, b), N); /* another loader, another speed: the same order */
    ck_assert_mem_eq(a, b, sizeof a);
    bool seen[N] = {false}, moved = false;
    for (int i = 0; i < N; i++) {
        ck_assert(!seen[a[i]]);
        seen[a[i]] = true;
        moved |= a[i] != i;
    }
    ck_assert(moved);
    plan.epoch = 2;
    run_epoch(l, NULL, &plan, c);
    ck_assert_mem_ne(a, c, sizeof a);
    plan.epoch = 1;
    plan.first_batch = 5; /* resume: the tail of the same epoch */
    ck_assert_int_eq(run_epoch(m, NULL, &plan, rest), N - 40);
    ck_assert_mem_eq(rest, a + 40, (N - 40) * sizeof *a);
    mest_loader_destroy(l);
    mest_loader_destroy(m);
}
END_TEST

START_TEST(removed_samples)
{
    int64_t ids[32];
    fake f = {.count = 21, .bad_id = -1};
    mest_source s = source_of(&f);
    mest_loader *l;
    mest_sample_set set, other;
    assert_ok(mest_sample_set_create(&set, &test_heap, 21, &err));
    assert_ok(mest_sample_set_create(&other, &test_heap, 20, &err));
    assert_ok(mest_loader_create(&l, &test_heap, &s, 5, &err));
    mest_loader_plan plan = {.shuffle = false};
    for (int64_t id = 0; id < 21; id += 3)
        mest_sample_remove(&set, id);
    mest_sample_remove(&set, 3); /* again, and out of range: no effect */
    mest_sample_remove(&set, 99);
    mest_sample_remove(&set, -1);
    ck_assert_int_eq(set.active, 14);
    ck_assert_int_eq(run_epoch(l, &set, &plan, ids), 14);
    for (int i = 0; i < 14; i++)
        ck_assert_int_eq(ids[i], i / 2 * 3 + 1 + i % 2);
    for (int64_t id = 0; id < 21; id++)
        mest_sample_remove(&set, id);
    ck_assert_int_eq(run_epoch(l, &set, &plan, ids), 0);
    assert_fails(mest_loader_begin(l, &other, &plan, &err), MEST_E_ARGUMENT, "20");
    mest_loader_destroy(l);
    mest_sample_set_destroy(&set);
    mest_sample_set_destroy(&other);
}
END_TEST

START_TEST(batch_larger_than_set)
{
    int64_t ids[8];
    fake f = {.count = 5, .bad_id = -1};
    mest_source s = source_of(&f);
    mest_loader *l;
    assert_ok(mest_loader_create(&l, &test_heap, &s, INT64_MAX, &err));
    mest_loader_plan plan = {.shuffle = true};
    ck_assert_int_eq(run_epoch(l, NULL, &plan, ids), 5);
    ck_assert_int_eq(mest_loader_batches(l), 1);
    mest_loader_destroy(l);
}
END_TEST

START_TEST(error_when_due)
{
    int64_t ids[64];
    fake f = {.count = 40, .bad_id = 13, .targets = true};
    mest_source s = source_of(&f);
    mest_loader *l;
    mest_batch b;
    mest_error_clear(&err);
    assert_ok(mest_loader_create(&l, &test_heap, &s, 4, &err));
    mest_loader_plan plan = {.epoch = 0};
    assert_ok(mest_loader_begin(l, NULL, &plan, &err));
    for (int i = 0; i < 3; i++) {
        assert_ok(mest_loader_next(l, &b, &err));
        ck_assert_int_eq(b.ids[0], 4 * i);
    }
    assert_fails(mest_loader_next(l, &b, &err), MEST_E_DATA, "sample 13 is bad");
    ck_assert_int_eq(b.n, 0);
    assert_fails(mest_loader_next(l, &b, &err), MEST_E_DATA, "sample 13 is bad");
    mest_error_clear(&err);
    plan.first_batch = 4; /* behind the bad one */
    ck_assert_int_eq(run_epoch(l, NULL, &plan, ids), 24);
    mest_loader_destroy(l);
}
END_TEST

/* Left after any number of batches, begun anew or destroyed while the worker is fetching. */
START_TEST(left_in_the_middle)
{
    int64_t ids[64], first[64];
    mest_batch b;
    for (int taken = 0; taken < 6; taken++) {
        fake f = {.count = 50, .bad_id = -1, .delay_us = taken % 2 ? 500 : 0, .targets = true};
        mest_source s = source_of(&f);
        mest_loader *l;
        assert_ok(mest_loader_create(&l, &test_heap, &s, 7, &err));
        mest_loader_plan plan = {.seed = 5, .epoch = 0, .shuffle = true};
        for (int again = 0; again < 3; again++) {
            assert_ok(mest_loader_begin(l, NULL, &plan, &err));
            for (int i = 0; i < taken; i++)
                assert_ok(mest_loader_next(l, &b, &err));
        }
        ck_assert_int_eq(run_epoch(l, NULL, &plan, ids), 50);
        if (taken == 0)
            memcpy(first, ids, sizeof first);
        ck_assert_mem_eq(ids, first, 50 * sizeof *ids);
        assert_ok(mest_loader_begin(l, NULL, &plan, &err));
        for (int i = 0; i < taken; i++)
            assert_ok(mest_loader_next(l, &b, &err));
        mest_loader_destroy(l);
    }
}
END_TEST

START_TEST(bad_sources)
{
    fake f = {.count = 0};
    mest_source s = source_of(&f);
    mest_loader *l;
    assert_fails(mest_loader_create(&l, &test_heap, &s, 4, &err), MEST_E_DATA, "no samples");
    ck_assert_ptr_null(l);
    f.count = 3;
    assert_fails(mest_loader_create(&l, &test_heap, &s, 0, &err), MEST_E_ARGUMENT, "batch 0");
    s.fetch = NULL;
    assert_fails(mest_loader_create(&l, &test_heap, &s, 4, &err), MEST_E_ARGUMENT, "fetch");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader");
    TCase *c = temp_case(suite, "loader");
    tcase_add_test(c, plain_order);
    tcase_add_test(c, shuffled);
    tcase_add_test(c, removed_samples);
    tcase_add_test(c, batch_larger_than_set);
    tcase_add_test(c, error_when_due);
    tcase_add_test(c, left_in_the_middle);
    tcase_add_test(c, bad_sources);
    return run_suite(suite);
}
