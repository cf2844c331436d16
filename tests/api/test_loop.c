/* SPDX-License-Identifier: Apache-2.0 */
/* Loops of the caller's own: epoch by epoch, step by step, with schedulers, rates and ends of epochs. */
#include <check.h>
#include <math.h>
#include <unistd.h>

#include "tests/serve/serve_util.h"

enum { N = SAMPLES, BATCH = 32 };
static mest_error e;
static unsigned char one[1 << 20], two[1 << 20];

typedef struct job { mest_model *m; mest_session *s; mest_source train, validation; } job;

static const char *recipe;

static job begin(int64_t epochs, const char *schedule)
{
    job j = {.m = load_digits()};
    make_sparse(j.m, "csr", 0.8);
    mest_train_config c = digits_config(1);
    c.epochs = epochs;
    c.schedule = schedule;
    c.shuffle = false;
    c.recipe = recipe;
    MUST(mest_session_create(&j.s, j.m, &c, err));
    MUST(mest_session_add_scheduler(j.s, "mest", "mode=em,freq=1", err));
    open_digits(&j.train, false);
    open_digits(&j.validation, true);
    return j;
}

static size_t finish(job *j, unsigned char *bytes)
{
    size_t n;
    mest_export_options eo = {.struct_size = sizeof eo, .sparse = true};
    MUST(mest_model_export_memory(j->m, bytes, sizeof one, &n, &eo, err));
    mest_session_destroy(j->s);
    mest_model_destroy(j->m);
    mest_source_close(&j->train);
    mest_source_close(&j->validation);
    ck_assert_int_eq(atomic_load(&bytes_out), 0);
    return n;
}

/* The samples of the training set as tensors. */
static void samples(const mest_source *source, float *x, int64_t *y)
{
    int64_t ids[N];
    for (int i = 0; i < N; i++)
        ids[i] = i;
    mest_fetch how = {.struct_size = sizeof how};
    MUST(source->fetch(source->self, ids, N, &how, x, y, err));
}

typedef struct seen { int epochs, mutations, off; double lr[8]; } seen;

static bool look(void *user, const mest_event *event)
{
    seen *k = user;
    if (event->kind == MEST_EVENT_EPOCH)
        k->lr[k->epochs++ % 8] = event->lr;
    k->mutations += event->kind == MEST_EVENT_MUTATION;
    if (event->kind == MEST_EVENT_MUTATION) /* before the first step of its epoch; the length of the run is known */
        k->off += event->step != 0 || event->total_step != event->epoch * (N / BATCH) || event->n_total_steps != event->n_epochs * (N / BATCH);
    return true;
}

/* Four epochs at once, one at a time, two and two, and as steps on the caller's tensors: the same bytes. */
START_TEST(all_ways_are_one)
{
    job j = begin(4, "cosine");
    seen whole = {.epochs = 0}, parts = {.epochs = 0};
    mest_run_options ro;
    mest_run_options_init(&ro);
    ro.progress = look;
    ro.progress_user = &whole;
    MUST(mest_session_train(j.s, &j.train, &ro, err));
    size_t n = finish(&j, one);
    ck_assert_int_eq(whole.epochs, 4);
    ck_assert_int_ge(whole.mutations, 3);
    ck_assert_int_eq(whole.off, 0);

    j = begin(4, "cosine");
    ro.progress_user = &parts;
    mest_metrics metrics;
    double before = 100;
    for (int i = 0; i < 4; i++) {
        MUST(mest_session_train_epoch(j.s, &j.train, &ro, &metrics, err));
        ck_assert(metrics.samples == N && metrics.steps == N / BATCH && metrics.loss < before);
        before = metrics.loss;
    }
    ck_assert_int_eq(parts.mutations, whole.mutations);
    ck_assert_int_eq(memcmp(parts.lr, whole.lr, sizeof whole.lr), 0);
    ck_assert_int_eq(mest_session_train_epoch(j.s, &j.train, &ro, &metrics, &e), MEST_E_STATE);
    ck_assert_ptr_nonnull(strstr(e.msg, "complete after 4 epochs"));
    ck_assert(finish(&j, two) == n && !memcmp(one, two, n));

    j = begin(4, "cosine");
    ro.max_epochs = 2;
    for (int i = 0; i < 2; i++) {
        int64_t epochs;
        MUST(mest_session_train(j.s, &j.train, &ro, err));
        mest_session_position(j.s, &epochs, NULL);
        ck_assert_int_eq(epochs, 2 * (i + 1));
    }
    ck_assert(finish(&j, two) == n && !memcmp(one, two, n));

    j = begin(4, "cosine");
    static float x[N * PIXELS];
    int64_t y[N], steps;
    samples(&j.train, x, y);
    ck_assert_int_eq(mest_session_end_epoch(j.s, NULL, &e), MEST_E_STATE);
    for (int i = 0; i < 4; i++) {
        double sum = 0;
        for (int k = 0; k < N; k += BATCH) {
            MUST(mest_session_step(j.s, x + k * PIXELS, y + k, BATCH, &metrics, err));
            sum += metrics.loss * BATCH;
        }
        MUST(mest_session_end_epoch(j.s, &metrics, err));
        ck_assert(fabs(metrics.loss - sum / N) < 1e-9 && metrics.samples == N);
    }
    mest_session_position(j.s, &steps, NULL);
    ck_assert_int_eq(steps, 4);
    ck_assert(finish(&j, two) == n && !memcmp(one, two, n));
}
END_TEST

START_TEST(learning_rates)
{
    job j = begin(1, "constant");
    static float x[N * PIXELS];
    int64_t y[N];
    samples(&j.train, x, y);
    float before[CLASSES], after[CLASSES];
    int bias = mest_model_parameter_count(j.m) - 1;
    mest_tensor_info info = {.struct_size = sizeof info};
    MUST(mest_model_parameter(j.m, bias, &info, err));
    ck_assert_str_eq(info.name, "fc.bias");
    MUST(mest_model_read_parameter(j.m, bias, before, CLASSES, err));
    MUST(mest_session_set_learning_rate(j.s, 0, err));
    MUST(mest_session_step(j.s, x, y, BATCH, NULL, err));
    MUST(mest_model_read_parameter(j.m, bias, after, CLASSES, err));
    ck_assert_int_eq(memcmp(before, after, sizeof before), 0);
    MUST(mest_session_set_learning_rate(j.s, 0.1, err));
    MUST(mest_session_step(j.s, x, y, BATCH, NULL, err));
    MUST(mest_model_read_parameter(j.m, bias, after, CLASSES, err));
    ck_assert_int_ne(memcmp(before, after, sizeof before), 0);
    ck_assert_int_eq(mest_session_set_learning_rate(j.s, -1, &e), MEST_E_ARGUMENT);
    ck_assert_int_eq(mest_session_set_learning_rate(j.s, (double)NAN, &e), MEST_E_ARGUMENT);
    finish(&j, two);
}
END_TEST

/* A loop of the caller's own that was cut off between two ends of epochs goes on from its checkpoint as if nothing had happened. */
START_TEST(checkpoints_between_ends)
{
    char path[] = "/tmp/mest-api-XXXXXX";
    close(mkstemp(path));
    static float x[N * PIXELS];
    int64_t y[N];
    size_t n = 0;
    for (int resumed = 0; resumed < 2; resumed++) {
        job j = begin(4, "cosine");
        samples(&j.train, x, y);
        if (resumed)
            MUST(mest_session_resume(j.s, path, err));
        for (int i = resumed ? 6 : 0; i < 12; i++) {
            int k = i % 4 * BATCH;
            MUST(mest_session_step(j.s, x + k * PIXELS, y + k, BATCH, NULL, err));
            if (i % 4 == 3)
                MUST(mest_session_end_epoch(j.s, NULL, err));
            if (!resumed && i == 5)
                MUST(mest_session_checkpoint(j.s, path, err));
        }
        size_t size = finish(&j, resumed ? two : one);
        ck_assert(!resumed || size == n);
        n = size;
    }
    ck_assert_int_eq(memcmp(one, two, n), 0);
    unlink(path);
}
END_TEST

/* What the caller says of its data stands in the checkpoint: other lines are another run; one who says nothing is not asked. */
START_TEST(recipes_of_the_caller)
{
    static const char *const texts[] = {"scale 16\nflip 0", "scale 16\nflip 0.5", "scale 16", "scale 16\nflip 0\nmore", "", "scale 16\nflip 0", NULL};
    char path[] = "/tmp/mest-api-XXXXXX", want[100];
    close(mkstemp(path));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        recipe = texts[i];
        job j = begin(4, "cosine");
        const bool same = i == 5 || !recipe;
        if (i == 0) {
            MUST(mest_session_checkpoint(j.s, path, err));
        } else if (same) {
            MUST(mest_session_resume(j.s, path, err));
        } else {
            ck_assert_int_eq(mest_session_resume(j.s, path, &e), MEST_E_STATE);
            snprintf(want, sizeof want, "it has '%s', this run has '%s'", i == 4 ? "scale 16" : i == 3 ? "" : "flip 0",
                     i == 1 ? "flip 0.5" : i == 3 ? "more" : "");
            ck_assert_msg(strstr(e.msg, want) != NULL, "%s, not %s", e.msg, want);
        }
        finish(&j, two);
    }
    recipe = NULL;
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("api loop");
    TCase *t = tcase_create("loop");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, all_ways_are_one);
    tcase_add_test(t, learning_rates);
    tcase_add_test(t, checkpoints_between_ends);
    tcase_add_test(t, recipes_of_the_caller);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
