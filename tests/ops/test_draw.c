/* SPDX-License-Identifier: Apache-2.0 */
/* mest.Draw: moments, and on what the numbers depend: seed, step and node; not threads. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/draw.h"

enum { N = 100003 };

static void draw(mest_draw_params p, uint64_t seed, uint64_t step, int n_threads, mest_dtype dtype, const mest_real *chance, void *out)
{
    const mest_op *op = mest_op_find("mest", "mest.Draw", 1);
    ck_assert_ptr_nonnull(op);
    const mest_type type = { .dtype = dtype, .shape = { .rank = 1, .dim = { N } } }, in_type = { .dtype = MEST_F32, .shape = type.shape };
    mest_tensor y = { .type = &type, .data = out, .count = N }, x = { .type = &in_type, .data = (void *)(uintptr_t)chance, .count = N };
    mest_threads threads;
    mest_run run = { .seed = seed, .step = step };
    mest_node node = { .op = op, .name = "draw" };
    mest_error err = { 0 };
    ck_assert_int_eq(mest_threads_create(&threads, n_threads, &err), MEST_OK);
    const mest_args a = { .node = &node, .params = &p, .n_in = chance ? 1 : 0, .n_out = 1, .in = &x, .out = &y, .threads = &threads, .run = &run, .err = &err };
    ck_assert_int_eq(op->forward(&a), MEST_OK);
    mest_threads_destroy(&threads);
}

static void moments(const mest_real *v, double *mean, double *deviation)
{
    double sum = 0, square = 0;
    for (int i = 0; i < N; i++)
        sum += (double)v[i];
    *mean = sum / N;
    for (int i = 0; i < N; i++)
        square += ((double)v[i] - *mean) * ((double)v[i] - *mean);
    *deviation = sqrt(square / N);
}

START_TEST(test_moments)
{
    mest_real *v = malloc(N * sizeof *v);
    double mean, deviation;
    int within = 0;
    draw((mest_draw_params){ .a = 1.5, .b = 2, .kind = MEST_DRAW_NORMAL }, 1, 0, 1, MEST_F32, NULL, v);
    moments(v, &mean, &deviation);
    for (int i = 0; i < N; i++)
        within += fabs((double)v[i] - 1.5) < 2;
    ck_assert_double_eq_tol(mean, 1.5, 5 * 2 / sqrt(N)); /* five standard errors */
    ck_assert_double_eq_tol(deviation, 2, 5 * 2 / sqrt(2.0 * N));
    ck_assert_double_eq_tol(within / (double)N, 0.6827, 5 * sqrt(0.6827 * 0.3173 / N));
    draw((mest_draw_params){ .a = -1, .b = 3, .kind = MEST_DRAW_UNIFORM }, 1, 0, 1, MEST_F32, NULL, v);
    moments(v, &mean, &deviation);
    ck_assert_double_eq_tol(mean, 1, 5 * 4 / sqrt(12.0 * N));
    ck_assert_double_eq_tol(deviation, 4 / sqrt(12), 0.01);
    for (int i = 0; i < N; i++)
        ck_assert(v[i] >= -1 && v[i] <= 3);
    free(v);
}
END_TEST

START_TEST(test_bernoulli)
{
    mest_real *chance = malloc(N * sizeof *chance);
    uint8_t *hit = malloc(N);
    int ones = 0;
    for (int i = 0; i < N; i++)
        chance[i] = i < 10 ? 0 : i < 20 ? 1 : (mest_real)0.3;
    draw((mest_draw_params){ .kind = MEST_DRAW_BERNOULLI }, 1, 0, 1, MEST_BOOL, chance, hit);
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(hit[i], i >= 10);
    for (int i = 20; i < N; i++)
        ones += hit[i];
    ck_assert_double_eq_tol(ones / (double)(N - 20), 0.3, 5 * sqrt(0.21 / N));
    free(chance);
    free(hit);
}
END_TEST

/* Of what differs, about no number is the same. */
static int equal(const mest_real *a, const mest_real *b)
{
    int n = 0;
    for (int i = 0; i < N; i++)
        n += memcmp(&a[i], &b[i], sizeof *a) == 0;
    return n;
}

START_TEST(test_keys)
{
    mest_real *a = malloc(N * sizeof *a), *b = malloc(N * sizeof *b);
    const mest_draw_params p = { .a = 0, .b = 1, .kind = MEST_DRAW_NORMAL, .key = 3 };
    mest_draw_params other = p;
    other.key = 4;
    draw(p, 7, 5, 1, MEST_F32, NULL, a);
    draw(p, 7, 5, 3, MEST_F32, NULL, b);
    ck_assert_int_eq(equal(a, b), N);
    draw(p, 8, 5, 1, MEST_F32, NULL, b);
    ck_assert_int_lt(equal(a, b), 10);
    draw(p, 7, 6, 1, MEST_F32, NULL, b);
    ck_assert_int_lt(equal(a, b), 10);
    draw(other, 7, 5, 1, MEST_F32, NULL, b);
    ck_assert_int_lt(equal(a, b), 10);
    free(a);
    free(b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("draw");
    TCase *c = tcase_create("draw");
    tcase_add_test(c, test_moments);
    tcase_add_test(c, test_bernoulli);
    tcase_add_test(c, test_keys);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
