/* SPDX-License-Identifier: Apache-2.0 */
/* Packed lists of units: what goes in comes out, the room that was promised is enough for the worst ids, damage is noticed. */
#include "sparse/unit_list.h"
#include "tests/sparse/fixture.h"

static void round_trip(const int64_t *ids, int64_t n, int64_t cap, int64_t limit)
{
    bench_heap b;
    heap_open(&b);
    mest_unit_list list, copy;
    MUST(mest_unit_list_create(&list, &b.heap, cap, limit, NULL) == MEST_OK);
    MUST(mest_unit_list_create(&copy, &b.heap, cap, limit, NULL) == MEST_OK);
    for (int64_t i = 0; i < n; i++)
        MUST(mest_unit_list_put(&list, ids[i]));
    MUST(list.n == n && (n == 0 || list.last == ids[n - 1]));
    MUST(mest_unit_list_load(&copy, list.bytes, list.used, n, limit, NULL) == MEST_OK);
    mest_unit_reader r = mest_unit_list_read(&copy);
    for (int64_t i = 0; i < n; i++)
        MUST(mest_unit_next(&r) == ids[i]);
    MUST(mest_unit_next(&r) == INT64_MAX && mest_unit_next(&r) == INT64_MAX);
    if (n > 0) { /* one id less than promised, one byte less, a last id past the limit */
        mest_error err = {0};
        MUST(mest_unit_list_load(&copy, list.bytes, list.used, n - 1, limit, &err) == MEST_E_FORMAT);
        MUST(mest_unit_list_load(&copy, list.bytes, list.used - 1, n, limit, NULL) == MEST_E_FORMAT);
        MUST(mest_unit_list_load(&copy, list.bytes, list.used, n, ids[n - 1], NULL) == MEST_E_FORMAT);
    }
    mest_unit_list_clear(&list);
    MUST(list.n == 0 && mest_unit_list_put(&list, 0));
    mest_unit_list_free(&list);
    mest_unit_list_free(&copy);
    heap_close(&b);
}

START_TEST(any_ids_of_full_capacity)
{
    static const int64_t limits[] = {1, 2, 127, 128, 129, 1000, 40000, 3000000, (int64_t)1 << 40};
    for (size_t k = 0; k < sizeof limits / sizeof *limits; k++)
        for (int64_t cap = 0; cap <= 300 && cap <= limits[k]; cap += cap < 8 ? 1 : 73) {
            int64_t ids[301];
            for (int form = 0; form < 4; form++) { /* dense at the start, dense at the end, even steps, random steps */
                int64_t at = form == 1 ? limits[k] - cap : 0;
                for (int64_t i = 0; i < cap; i++) {
                    int64_t left = limits[k] - at - (cap - i), step = form < 2 ? 0 : left / (cap - i);
                    if (form == 3 && left > 0)
                        step = (int64_t)(mest_rng(7, (uint64_t)k, (uint64_t)(cap * 1000 + i)) % (uint64_t)(left / (i % 3 + 1) + 1));
                    ids[i] = at + step;
                    at = ids[i] + 1;
                }
                round_trip(ids, cap, cap, limits[k]);
            }
        }
}
END_TEST

START_TEST(damaged_bytes)
{
    bench_heap b;
    heap_open(&b);
    mest_unit_list list;
    MUST(mest_unit_list_create(&list, &b.heap, 64, 1 << 20, NULL) == MEST_OK);
    uint8_t endless[32];
    memset(endless, 0xff, sizeof endless);
    MUST(mest_unit_list_load(&list, endless, sizeof endless, 1, 1 << 20, NULL) == MEST_E_FORMAT);
    MUST(mest_unit_list_load(&list, endless, 0, 1, 1 << 20, NULL) == MEST_E_FORMAT);
    for (uint64_t seed = 0; seed < 20000; seed++) {
        uint8_t bytes[24];
        size_t n = (size_t)(mest_rng(seed, 1, 0) % sizeof bytes);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)mest_rng(seed, 2, i);
        int64_t count = (int64_t)(mest_rng(seed, 3, 0) % 16);
        if (mest_unit_list_load(&list, bytes, n, count, 1 << 20, NULL) == MEST_OK)
            MUST(list.n == count && list.last < 1 << 20);
    }
    mest_unit_list_free(&list);
    b.guard.fail_at = b.guard.n;
    MUST(mest_unit_list_create(&list, &b.heap, 64, 1 << 20, NULL) == MEST_E_NOMEM);
    mest_unit_list_free(&list);
    heap_close(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("unit_list");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, any_ids_of_full_capacity);
    tcase_add_test(t, damaged_bytes);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
