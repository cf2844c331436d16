/* SPDX-License-Identifier: Apache-2.0 */
/* mest.Draw: moments, and on what the numbers depend: seed, step and node; not threads. The operators of files that become it. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mest/train.h"
#include "ops/draw.h"
#include "tests/onnx_write.h"

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

/* A file with the operator, opened and run; 4 samples of 5,000 numbers. */
static void run_file(const char *node, float input, double mean, double deviation)
{
    enum { SAMPLES = 4, EACH = 5000, ALL = SAMPLES * EACH };
    const int64_t dim[1] = { EACH };
    onnx_bytes g = { 0 };
    mest_model *m;
    mest_session *s;
    mest_train_config c;
    mest_error err = { 0 };
    char path[] = "draw_XXXXXX";
    float *x = malloc(ALL * sizeof *x), *y = malloc(ALL * sizeof *y);
    onnx_value(&g, 11, "x", 1, dim);
    onnx_node(&g, node);
    onnx_node(&g, strncmp(node, "Bernoulli", 9) ? "Sub:a,x:y" : "Identity:a:y");
    onnx_value(&g, 12, "y", 1, dim);
    const int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    onnx_save(&g, path);
    free(g.p);
    ck_assert_msg(mest_model_load(&m, path, NULL, &err) == MEST_OK, "%s: %s", node, err.msg);
    unlink(path);
    mest_train_config_init(&c);
    c.batch = SAMPLES;
    c.loss = "mse";
    c.seed = 3;
    ck_assert_msg(mest_session_create(&s, m, &c, &err) == MEST_OK, "%s: %s", node, err.msg);
    for (int i = 0; i < ALL; i++)
        x[i] = input;
    ck_assert_msg(mest_session_infer(s, x, SAMPLES, y, ALL, &err) == MEST_OK, "%s: %s", node, err.msg);
    double sum = 0, square = 0;
    for (int i = 0; i < ALL; i++)
        sum += y[i];
    for (int i = 0; i < ALL; i++)
        square += (y[i] - sum / ALL) * (y[i] - sum / ALL);
    ck_assert_double_eq_tol(sum / ALL, mean, 5 * deviation / sqrt(ALL));
    ck_assert_double_eq_tol(sqrt(square / ALL), deviation, 0.03 * deviation);
    ck_assert(memcmp(y, y + EACH, EACH * sizeof *y) != 0); /* another sample, other numbers */
    mest_session_destroy(s);
    mest_model_destroy(m);
    free(x), free(y);
}

START_TEST(test_files)
{
    run_file("RandomNormal::a:shape=4/5000,mean=2.0", 0, 2, 1);
    run_file("RandomNormalLike:x:a:scale=0.5", 0, 0, .5);
    run_file("RandomUniform::a:shape=4/5000,low=-3.0", 0, -1, 4 / sqrt(12));
    run_file("RandomUniformLike:x:a:high=5.0", 0, 2.5, 5 / sqrt(12));
    run_file("Bernoulli:x:a", .3f, .3, sqrt(.21));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("draw");
    TCase *c = tcase_create("draw");
    tcase_add_test(c, test_moments);
    tcase_add_test(c, test_bernoulli);
    tcase_add_test(c, test_keys);
    tcase_add_test(c, test_files);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
