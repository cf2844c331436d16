/* SPDX-License-Identifier: Apache-2.0 */
/* Versions one at a time: what is copied and what is shared, guards, keeping, rolling back, and that nobody waits. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "runtime/snapshot.h"
#include "tests/serve/serve_util.h"

static float x[40 * PIXELS];
static int64_t labels[32];

static mest_model *m;
static mest_session *s;

static void open_session(const char *scheme)
{
    make_inputs(x, 40);
    for (int i = 0; i < 32; i++)
        labels[i] = i % CLASSES;
    m = load_digits();
    if (scheme)
        make_sparse(m, scheme, 0.8);
    mest_train_config c = digits_config(1);
    c.optimizer = "adamw";
    c.lr = 0.002;
    MUST(mest_session_create(&s, m, &c, err));
}

static void close_session(void)
{
    mest_session_destroy(s);
    mest_model_destroy(m);
    s = NULL;
    m = NULL;
    ck_assert_int_eq(atomic_load(&bytes_out), 0);
}

static void train(int steps)
{
    mest_metrics metrics = {.struct_size = sizeof metrics};
    for (int i = 0; i < steps; i++)
        MUST(mest_session_step(s, x, labels, 32, &metrics, err));
}

static mest_version_info publish(const mest_publish_options *o)
{
    mest_version_info info = {.struct_size = sizeof info};
    MUST(s ? mest_session_publish(s, o, &info, err) : mest_model_publish(m, o, &info, err));
    return info;
}

static void refused(const mest_publish_options *o, mest_status code, const char *text)
{
    mest_error e;
    mest_version_info before = {.struct_size = sizeof before}, after = before;
    MUST(mest_model_next_version(m, 0, &before, err));
    ck_assert_int_eq(s ? mest_session_publish(s, o, NULL, &e) : mest_model_publish(m, o, NULL, &e), code);
    ck_assert_msg(strstr(e.msg, text), "'%s' is not in '%s'", text, e.msg);
    MUST(mest_model_next_version(m, 0, &after, err));
    ck_assert_int_eq(before.id, after.id);
}

static uint64_t answer(mest_predictor *p, int n, int64_t *version)
{
    float y[40 * CLASSES];
    MUST(mest_predictor_infer(p, x, n, y, (size_t)n * CLASSES, version, err));
    return fingerprint(y, (size_t)n * CLASSES);
}

static mest_predictor *predictor(int64_t max_batch)
{
    mest_predictor_options o;
    mest_predictor_options_init(&o);
    o.max_batch = max_batch;
    mest_predictor *p = NULL;
    MUST(mest_predictor_create(&p, m, &o, err));
    return p;
}

/* A version answers as the session did at that moment, as near as kernels chosen for other sizes and for resting weights are. */
START_TEST(as_the_session)
{
    static const char *const schemes[] = {NULL, "csr", "block4", "block8", "punched4x4", "pattern", "nm1:4"};
    open_session(schemes[_i]);
    mest_error e;
    mest_predictor *p;
    ck_assert_int_eq(mest_predictor_create(&p, m, NULL, &e), MEST_E_STATE);
    ck_assert_ptr_null(p);
    train(5);
    mest_version_info info = publish(NULL);
    ck_assert(info.id == 1 && info.current && info.kept && info.parent == 0 && info.step == 5 && isnan(info.loss));
    p = predictor(32);
    for (int round = 0; round < 3; round++) {
        float want[40 * CLASSES], got[40 * CLASSES];
        int64_t version;
        MUST(mest_session_infer(s, x, 32, want, 32 * CLASSES, err));
        MUST(mest_predictor_infer(p, x, 32, got, 32 * CLASSES, &version, err));
        ck_assert_int_eq(version, round + 1);
        for (int n = 1; n <= 40; n++) {
            MUST(mest_session_infer(s, x, n, want, (size_t)n * CLASSES, err));
            MUST(mest_predictor_infer(p, x, n, got, (size_t)n * CLASSES, NULL, err));
            for (int i = 0; i < n * CLASSES; i++)
                ck_assert_msg(fabsf(want[i] - got[i]) < 1e-4f * (1 + fabsf(want[i])), "%d samples, number %d: %g, %g", n, i, (double)want[i], (double)got[i]);
        }
        train(3); /* in place: what readers hold must not move */
        MUST(mest_predictor_infer(p, x, 32, want, 32 * CLASSES, &version, err));
        MUST(mest_predictor_infer(p, x, 32, got, 32 * CLASSES, NULL, err));
        ck_assert_int_eq(memcmp(want, got, 32 * CLASSES * sizeof *want), 0);
        ck_assert_int_eq(publish(NULL).parent, round + 1);
    }
    mest_predictor_destroy(p);
    close_session();
}
END_TEST

/* Only what changed is copied: values and statistics, the pattern once. */
START_TEST(what_is_copied)
{
    open_session("csr");
    mest_version_info a = publish(NULL);
    ck_assert_int_eq(a.copied_bytes, a.bytes);
    train(1);
    mest_version_info b = publish(NULL);
    ck_assert_int_eq(b.bytes, a.bytes);
    int64_t values = 0, index = 0, statistics = 0, dense = 0;
    for (int i = 0; i < mest_model_parameter_count(m); i++) {
        mest_tensor_info t = {.struct_size = sizeof t};
        MUST(mest_model_parameter(m, i, &t, err));
        if (t.role == MEST_ROLE_STATISTIC)
            statistics += (t.stored + 16) * 4;
        else if (strcmp(t.scheme, "dense") == 0)
            dense += (t.stored + 16) * 4;
        else
            values += t.stored * 4, index += (t.dim[0] + 1 + t.stored) * 4;
    }
    ck_assert_int_eq(a.bytes, values + index + statistics + dense);
    ck_assert_int_eq(b.copied_bytes, a.bytes - index);
    mest_version_info c = publish(NULL); /* nothing was trained: statistics carry no count */
    ck_assert_int_eq(c.copied_bytes, statistics);
    int64_t bytes;
    int alive;
    mest_model_version_memory(m, &bytes, &alive);
    ck_assert_int_eq(alive, 3);
    ck_assert_int_eq(bytes, a.copied_bytes + b.copied_bytes + c.copied_bytes);
    close_session();
}
END_TEST

START_TEST(frozen_parameters_are_shared)
{
    make_inputs(x, 40);
    m = load_digits();
    MUST(mest_model_freeze(m, "conv*,bn*", true, NULL, err));
    mest_train_config c = digits_config(1);
    c.batch_norm = "frozen";
    MUST(mest_session_create(&s, m, &c, err));
    mest_version_info info = publish(NULL);
    mest_predictor *p = predictor(32);
    float want[32 * CLASSES], got[32 * CLASSES];
    train(2);
    publish(NULL);
    MUST(mest_session_infer(s, x, 32, want, 32 * CLASSES, err));
    MUST(mest_predictor_infer(p, x, 32, got, 32 * CLASSES, NULL, err));
    for (int i = 0; i < 32 * CLASSES; i++)
        ck_assert(fabsf(want[i] - got[i]) < 1e-4f * (1 + fabsf(want[i])));
    ck_assert_int_lt(info.bytes, 8000); /* the last layer and the statistics, of 226 KB */
    mest_session_destroy(s);
    s = NULL;
    mest_error e;
    ck_assert_int_eq(mest_model_freeze(m, "conv*", false, NULL, &e), MEST_E_STATE);
    ck_assert_ptr_nonnull(strstr(e.msg, "2 versions"));
    mest_predictor_destroy(p);
    close_session();
}
END_TEST

START_TEST(guards)
{
    open_session("csr");
    mest_publish_options o;
    mest_publish_options_init(&o);
    o.loss = 0.5;
    o.accuracy = 0.9;
    o.samples = 100;
    o.note = "a note that is far longer than sixty-three bytes, and is cut there without a word being said about it";
    mest_version_info info = publish(&o);
    ck_assert(info.loss == 0.5 && info.accuracy == 0.9 && info.samples == 100 && strlen(info.note) == 63 && info.time_ms > 1600000000000);
    o.max_accuracy_drop = 0.01;
    o.accuracy = 0.85;
    refused(&o, MEST_E_LIMIT, "accuracy 0.85 is more than 0.01 below that of version 1 (0.9)");
    o.accuracy = 0.895;
    publish(&o);
    o.max_accuracy_drop = NAN;
    o.max_loss_rise = 0;
    o.loss = 0.51;
    refused(&o, MEST_E_LIMIT, "loss 0.51 is more than 0 above that of version 2 (0.5)");
    o.loss = NAN;
    refused(&o, MEST_E_LIMIT, "the loss is not known");
    mest_publish_options_init(&o);
    o.loss = 2;
    o.max_loss = 1;
    refused(&o, MEST_E_LIMIT, "loss 2 is above 1");
    o.max_loss = 3;
    o.accuracy = 0.1;
    o.min_accuracy = 0.2;
    refused(&o, MEST_E_LIMIT, "accuracy 0.1 is below 0.2");
    o.min_accuracy = 0.1;
    o.id = 2;
    refused(&o, MEST_E_ARGUMENT, "id 2 is not above the newest, 2");
    o.id = 50;
    ck_assert_int_eq(publish(&o).id, 50);
    ck_assert_int_eq(publish(NULL).id, 51);
    o.borrow = true;
    o.id = 0;
    refused(&o, MEST_E_ARGUMENT, "must be copied");
    o.struct_size = 0;
    refused(&o, MEST_E_ARGUMENT, "struct_size");
    m->params[0].role == MEST_ROLE_TRAINABLE ? (void)(mest_param_data(&m->params[0])[0] = NAN) : ck_abort();
    refused(NULL, MEST_E_NUMERIC, "not finite");
    close_session();
}
END_TEST

static bool is_kept(int64_t id)
{
    mest_snapshot *v = mest_model_acquire_id(m, id);
    mest_snapshot_release(v);
    return v != NULL;
}

START_TEST(keeping_and_rolling_back)
{
    open_session("csr");
    mest_error e;
    for (int i = 0; i < 6; i++) {
        publish(NULL);
        train(1);
    }
    ck_assert(!is_kept(1) && !is_kept(2) && is_kept(3) && is_kept(6)); /* four */
    mest_predictor *p = predictor(32);
    int64_t version;
    uint64_t six = answer(p, 32, &version);
    ck_assert_int_eq(version, 6);
    ck_assert_int_eq(mest_model_promote(m, 2, &e), MEST_E_ARGUMENT);
    MUST(mest_model_promote(m, 3, err));
    uint64_t three = answer(p, 32, &version);
    ck_assert_int_eq(version, 3);
    ck_assert_uint_ne(three, six);
    mest_publish_options o;
    mest_publish_options_init(&o);
    o.hold = true;
    mest_version_info held = publish(&o);
    ck_assert(held.id == 7 && !held.current && held.kept);
    for (int i = 0; i < 5; i++)
        publish(&o);
    ck_assert(is_kept(3) && is_kept(12) && !is_kept(8)); /* the current one stays, whatever its age */
    ck_assert_uint_eq(answer(p, 32, &version), three);
    mest_snapshot *old = mest_model_acquire(m);
    MUST(mest_model_promote(m, 12, err));
    MUST(mest_model_keep_versions(m, 1, err));
    answer(p, 32, &version);
    ck_assert(version == 12 && !is_kept(3));
    int alive;
    mest_model_version_memory(m, NULL, &alive);
    ck_assert_int_eq(alive, 2);
    mest_version_info info = {.struct_size = sizeof info};
    MUST(mest_snapshot_describe(old, &info, err)); /* held by us: still there */
    ck_assert(info.id == 3 && !info.kept && !info.current);
    MUST(mest_predictor_pin(p, old, err));
    ck_assert_uint_eq(answer(p, 32, &version), three);
    mest_snapshot_release(old);
    ck_assert_uint_eq(answer(p, 32, &version), three); /* the predictor holds it */
    MUST(mest_predictor_pin(p, NULL, err));
    answer(p, 32, &version);
    ck_assert_int_eq(version, 12);
    mest_model_version_memory(m, NULL, &alive);
    ck_assert_int_eq(alive, 1);
    ck_assert_int_eq(mest_model_keep_versions(m, 0, &e), MEST_E_ARGUMENT);
    int64_t mine, peak;
    mest_predictor_memory(p, &mine, &peak);
    ck_assert(mine > 0 && peak >= mine);
    mest_predictor_destroy(p);
    close_session();
}
END_TEST

/* Training goes on from a version that was put back exactly as it did from the weights when they were that version. */
START_TEST(restore)
{
    open_session(_i ? "csr" : NULL);
    train(4);
    publish(NULL);
    mest_snapshot *one = mest_model_acquire(m);
    MUST(mest_session_restore(s, one, err)); /* clears the optimizer: both ways start from there */
    train(3);
    publish(NULL);
    mest_predictor *p = predictor(32);
    int64_t version;
    uint64_t first = answer(p, 32, &version);
    train(7);
    MUST(mest_session_restore(s, one, err));
    ck_assert_int_eq(version, 2);
    mest_version_info again = publish(NULL);
    ck_assert_int_eq(again.parent, 1);
    train(3);
    publish(NULL);
    ck_assert_uint_eq(answer(p, 32, &version), first);
    ck_assert_int_eq(version, 4);
    mest_snapshot_release(one);
    mest_predictor_destroy(p);
    close_session();
}
END_TEST

/* A checkpoint knows that the optimizer began anew. */
START_TEST(restore_and_resume)
{
    char path[] = "/tmp/mest-serve-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    uint64_t straight = 0;
    for (int resumed = 0; resumed < 2; resumed++) {
        open_session("csr");
        if (resumed) {
            MUST(mest_session_resume(s, path, err));
        } else {
            train(4);
            publish(NULL);
            mest_snapshot *one = mest_model_acquire(m);
            train(2);
            MUST(mest_session_restore(s, one, err));
            mest_snapshot_release(one);
            train(2);
            MUST(mest_session_checkpoint(s, path, err));
        }
        train(3);
        publish(NULL);
        mest_predictor *p = predictor(32);
        uint64_t print = answer(p, 32, NULL);
        mest_predictor_destroy(p);
        close_session();
        if (resumed)
            ck_assert_uint_eq(print, straight);
        straight = print;
    }
    unlink(path);
}
END_TEST

START_TEST(borrowed_and_models_without_session)
{
    make_inputs(x, 40);
    m = load_digits();
    mest_error e;
    mest_publish_options o;
    mest_publish_options_init(&o);
    o.borrow = true;
    mest_version_info info = publish(&o);
    ck_assert(info.bytes == 0 && info.copied_bytes == 0);
    mest_predictor *p = predictor(8);
    uint64_t borrowed = answer(p, 8, NULL);
    mest_train_config c = digits_config(1);
    ck_assert_int_eq(mest_session_create(&s, m, &c, &e), MEST_E_STATE);
    ck_assert_ptr_nonnull(strstr(e.msg, "1 version of this model is alive that use"));
    mest_sparsity sp;
    mest_sparsity_init(&sp);
    ck_assert_int_eq(mest_model_sparsify(m, &sp, &e), MEST_E_STATE);
    info = publish(NULL);
    ck_assert(info.id == 2 && info.bytes > 200000);
    int64_t version;
    ck_assert_uint_eq(answer(p, 8, &version), borrowed);
    ck_assert_int_eq(version, 2);
    MUST(mest_model_keep_versions(m, 1, err));
    MUST(mest_session_create(&s, m, &c, err)); /* the borrowed one is gone */
    ck_assert_int_eq(mest_model_publish(m, NULL, NULL, &e), MEST_E_STATE);
    mest_session_destroy(s);
    s = NULL;
    mest_predictor_destroy(p);
    close_session();
}
END_TEST

/* A version's file is that of the model at that moment, whatever was trained since. */
START_TEST(export)
{
    char a[] = "/tmp/mest-serve-XXXXXX", b[] = "/tmp/mest-serve-XXXXXX";
    close(mkstemp(a));
    close(mkstemp(b));
    open_session("csr");
    train(2);
    publish(NULL);
    mest_export_options eo = {.struct_size = sizeof eo, .sparse = true};
    MUST(mest_model_export(m, a, &eo, err));
    train(2);
    mest_snapshot *v = mest_model_acquire(m);
    MUST(mest_snapshot_export(v, b, &eo, err));
    mest_snapshot_release(v);
    static char one[400000], two[400000];
    FILE *fa = fopen(a, "rb"), *fb = fopen(b, "rb");
    size_t na = fread(one, 1, sizeof one, fa), nb = fread(two, 1, sizeof two, fb);
    fclose(fa);
    fclose(fb);
    ck_assert(na > 50000 && na < sizeof one && na == nb && !memcmp(one, two, na));
    unlink(a);
    unlink(b);
    close_session();
}
END_TEST

START_TEST(calls_by_name)
{
    open_session(NULL);
    publish(NULL);
    mest_predictor *p = predictor(32);
    mest_tensor_info info = {.struct_size = sizeof info};
    MUST(mest_predictor_input(p, 0, &info, err));
    ck_assert(info.rank == 3 && info.dim[0] == 1 && info.dim[1] == 8 && info.dim[2] == 8 && info.stored == 64 && !strcmp(info.name, "image"));
    MUST(mest_predictor_output(p, 0, &info, err));
    ck_assert(info.rank == 1 && info.dim[0] == CLASSES && !strcmp(info.name, "logits"));
    float y[5 * CLASSES], z[5 * CLASSES];
    mest_input_data in = {"image", x, 5 * PIXELS * sizeof *x};
    mest_output_data out = {"logits", y, sizeof y};
    mest_error e;
    MUST(mest_predictor_run(p, 5, &in, 1, &out, 1, NULL, err));
    MUST(mest_predictor_infer(p, x, 5, z, 5 * CLASSES, NULL, err));
    ck_assert_int_eq(memcmp(y, z, sizeof y), 0);
    in.name = "picture";
    ck_assert_int_eq(mest_predictor_run(p, 5, &in, 1, &out, 1, NULL, &e), MEST_E_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "no input 'picture'"));
    in = (mest_input_data){NULL, x, 5 * PIXELS * sizeof *x - 1};
    ck_assert_int_eq(mest_predictor_run(p, 5, &in, 1, &out, 1, NULL, &e), MEST_E_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "1279 bytes given for input 'image', 1280 are needed for 5 samples"));
    in.bytes++;
    out.bytes = 4;
    ck_assert_int_eq(mest_predictor_run(p, 5, &in, 1, &out, 1, NULL, &e), MEST_E_ARGUMENT);
    ck_assert_int_eq(mest_predictor_infer(p, x, 5, z, 3, NULL, &e), MEST_E_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "50 are needed"));
    MUST(mest_predictor_run(p, 5, &in, 1, NULL, 0, NULL, err));
    mest_predictor_destroy(p);
    mest_predictor_options o;
    mest_predictor_options_init(&o);
    o.output = "nothing";
    ck_assert_int_eq(mest_predictor_create(&p, m, &o, &e), MEST_E_ARGUMENT);
    o.output = "logits";
    MUST(mest_predictor_create(&p, m, &o, err));
    MUST(mest_predictor_infer(p, x, 5, z, 5 * CLASSES, NULL, err));
    ck_assert_int_eq(memcmp(y, z, sizeof y), 0);
    mest_predictor_destroy(p);
    o.max_batch = 0;
    ck_assert_int_eq(mest_predictor_create(&p, m, &o, &e), MEST_E_ARGUMENT);
    close_session();
}
END_TEST

/* ---- nobody waits ---- */
static void *serve_without_lock(void *user)
{
    mest_predictor *p = user;
    int64_t version;
    for (int i = 0; i < 20; i++) {
        mest_snapshot *v = mest_model_acquire(m);
        answer(p, 4, &version);
        mest_snapshot_release(v);
    }
    return p;
}

START_TEST(readers_do_not_wait)
{
    open_session("csr");
    publish(NULL);
    mest_predictor *p = predictor(32);
    train(1);
    publish(NULL); /* the predictor has to move to it inside */
    pthread_t thread;
    void *done = NULL;
    pthread_mutex_lock(&m->registry->lock); /* as if the trainer, or a slow look-up, stood still in there */
    ck_assert_int_eq(pthread_create(&thread, NULL, serve_without_lock, p), 0);
    pthread_join(thread, &done); /* never returns if a reader took the lock: the test's time limit */
    pthread_mutex_unlock(&m->registry->lock);
    ck_assert_ptr_eq(done, p);
    mest_predictor_destroy(p);
    close_session();
}
END_TEST

/* No allocation after the first call of a size, also when versions change. */
START_TEST(serving_allocates_nothing)
{
    open_session("csr");
    publish(NULL);
    mest_predictor *p = predictor(32);
    answer(p, 3, NULL);
    answer(p, 32, NULL);
    train(1);
    for (int i = 0; i < 3; i++) {
        publish(NULL);
        long before = atomic_load(&m->heap.allocations);
        answer(p, 3, NULL);
        answer(p, 32, NULL);
        ck_assert_int_eq(atomic_load(&m->heap.allocations), before);
        train(1);
    }
    mest_predictor_destroy(p);
    close_session();
}
END_TEST

START_TEST(at_most_255)
{
    open_session("csr");
    static mest_snapshot *held[MEST_MAX_VERSIONS];
    MUST(mest_model_keep_versions(m, 1, err));
    mest_error e;
    for (int i = 0; i < MEST_MAX_VERSIONS; i++) {
        publish(NULL);
        held[i] = mest_model_acquire(m);
    }
    ck_assert_int_eq(mest_session_publish(s, NULL, NULL, &e), MEST_E_LIMIT);
    ck_assert_ptr_nonnull(strstr(e.msg, "255 versions are alive"));
    mest_snapshot_release(held[7]);
    ck_assert_int_eq(publish(NULL).id, 256);
    for (int i = 0; i < MEST_MAX_VERSIONS; i++)
        if (i != 7)
            mest_snapshot_release(held[i]);
    close_session();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("versions");
    TCase *t = tcase_create("versions");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, as_the_session, 0, 7);
    tcase_add_test(t, what_is_copied);
    tcase_add_test(t, frozen_parameters_are_shared);
    tcase_add_test(t, guards);
    tcase_add_test(t, keeping_and_rolling_back);
    tcase_add_loop_test(t, restore, 0, 2);
    tcase_add_test(t, restore_and_resume);
    tcase_add_test(t, borrowed_and_models_without_session);
    tcase_add_test(t, export);
    tcase_add_test(t, calls_by_name);
    tcase_add_test(t, readers_do_not_wait);
    tcase_add_test(t, serving_allocates_nothing);
    tcase_add_test(t, at_most_255);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
