/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels chosen by measurement: the same table gives the same bits, whatever the number of threads and however often a run is taken up again; files
 * that are damaged, hostile or cannot be written do no harm. */
#include <check.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/tune.h"
#include "tests/serve/serve_util.h"

static char folder[] = "/tmp/mest-tune-XXXXXX";

static unsigned char one[1 << 20], two[1 << 20];
static char notes[4096];

static void listen(void *user, mest_log_level level, const char *text)
{
    (void)user, (void)level;
    strncat(notes, text, sizeof notes - strlen(notes) - 1);
    strncat(notes, "\n", sizeof notes - strlen(notes) - 1);
}

static const char *at(const char *name)
{
    static char path[4][160];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", folder, name);
    return path[k];
}

typedef struct way { /* of a training run */
    const char *tune, *cache, *stop; /* stop: checkpoint after one epoch, to be taken up by another session with `later` */
    const char *later_tune, *later_cache;
    int threads;
    bool nice;
} way;

static mest_session *session_of(mest_model *m, const way *w, bool later)
{
    mest_train_config c = digits_config(1);
    mest_session *s = NULL;
    c.epochs = 2;
    c.threads = w->threads ? w->threads : 1;
    c.nice = w->nice;
    c.tune = later ? w->later_tune : w->tune;
    c.tune_cache = later ? w->later_cache : w->cache;
    MUST(mest_session_create(&s, m, &c, err));
    return s;
}

static mest_model *model_of(void)
{
    mest_model_options o;
    mest_model_options_init(&o);
    const mest_logger logger = {.struct_size = sizeof logger, .log = listen};
    o.logger = &logger;
    char path[1024];
    snprintf(path, sizeof path, "%s/digits_cnn.onnx", getenv("MEST_DIGITS"));
    mest_model *m = NULL;
    MUST(mest_model_load(&m, path, &o, err));
    make_sparse(m, "csr", 0.8);
    return m;
}

static size_t train(const way *w, unsigned char *bytes, mest_plan_info *plan)
{
    mest_source source;
    mest_model *m = model_of();
    mest_session *s = session_of(m, w, false);
    size_t n;
    open_digits(&source, false);
    mest_run_options ro;
    mest_run_options_init(&ro);
    if (w->stop) {
        ro.checkpoint_path = w->stop;
        ro.max_epochs = 1;
        MUST(mest_session_train(s, &source, &ro, err));
        mest_session_destroy(s);
        mest_model_destroy(m);
        m = model_of();
        s = session_of(m, w, true);
        MUST(mest_session_resume(s, w->stop, err));
        ro.max_epochs = 0;
    }
    MUST(mest_session_train(s, &source, &ro, err));
    *plan = (mest_plan_info){.struct_size = sizeof *plan};
    MUST(mest_session_explain(s, MEST_PROGRAM_TRAIN, 32, NULL, NULL, plan, err));
    mest_export_options eo = {.struct_size = sizeof eo, .sparse = true};
    MUST(mest_model_export_memory(m, bytes, sizeof one, &n, &eo, err));
    mest_session_destroy(s);
    mest_model_destroy(m);
    mest_source_close(&source);
    return n;
}

START_TEST(one_table_one_result)
{
    mest_plan_info a, b;
    const char *file = at("deep/er/times");
    size_t n = train(&(way){.tune = "full", .cache = file}, one, &a);
    struct stat st;
    ck_assert_int_eq(stat(file, &st), 0);
    ck_assert_int_gt(a.n_measured, 0);
    const time_t changed = st.st_mtime;
    /* the same file: the same choices and bits, and nothing new to write; two threads: the same */
    ck_assert_uint_eq(train(&(way){.tune = "full", .cache = file}, two, &b), n);
    ck_assert(memcmp(one, two, n) == 0 && a.kernels == b.kernels && a.n_measured == b.n_measured);
    ck_assert(stat(file, &st) == 0 && st.st_mtime == changed);
    ck_assert_uint_eq(train(&(way){.tune = "full", .cache = file, .threads = 2}, two, &b), n);
    ck_assert(memcmp(one, two, n) == 0 && a.kernels == b.kernels);
    ck_assert_uint_eq(train(&(way){.tune = "full", .cache = file, .threads = 2, .nice = true}, two, &b), n);
    ck_assert(memcmp(one, two, n) == 0 && a.kernels == b.kernels);
    /* taken up where there is no file, and by a session that would not measure: the checkpoint has the times */
    ck_assert_uint_eq(train(&(way){.tune = "full", .cache = file, .stop = at("c1"), .later_tune = "full", .later_cache = ""}, two, &b), n);
    ck_assert(memcmp(one, two, n) == 0 && a.kernels == b.kernels);
    ck_assert_uint_eq(train(&(way){.tune = "full", .cache = file, .stop = at("c2"), .later_tune = "off"}, two, &b), n);
    ck_assert(memcmp(one, two, n) == 0 && a.kernels == b.kernels);
    /* a run that did not measure goes on without, whatever the session says */
    n = train(&(way){.tune = "off"}, one, &a);
    ck_assert_int_eq(a.n_measured, 0);
    ck_assert_uint_eq(train(&(way){.tune = "off", .stop = at("c3"), .later_tune = "full", .later_cache = file}, two, &b), n);
    ck_assert(memcmp(one, two, n) == 0 && a.kernels == b.kernels);
    ck_assert_ptr_nonnull(strstr(notes, "did not measure kernels"));
}
END_TEST

static void overwrite(const char *path, long offset, const char *bytes)
{
    FILE *f = fopen(path, "r+");
    ck_assert_ptr_nonnull(f);
    fseek(f, offset, offset < 0 ? SEEK_END : SEEK_SET);
    fputs(bytes, f);
    fclose(f);
}

START_TEST(bad_files)
{
    mest_plan_info plan;
    const char *file = at("times");
    train(&(way){.tune = "fast", .cache = file}, one, &plan);
    notes[0] = 0;
    train(&(way){.tune = "fast", .cache = file}, one, &plan);
    ck_assert_ptr_null(strstr(notes, "measured anew"));
    static const struct { long offset; const char *bytes, *says; } cases[] = {
        {90, "#", "is damaged"}, {0, "nest", "is damaged"}, {-1, "x", "is damaged"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        notes[0] = 0;
        overwrite(file, cases[i].offset, cases[i].bytes);
        train(&(way){.tune = "fast", .cache = file}, one, &plan);
        ck_assert_msg(strstr(notes, cases[i].says), "case %zu: %s", i, notes);
        notes[0] = 0; /* and it was replaced by a good one */
        train(&(way){.tune = "fast", .cache = file}, one, &plan);
        ck_assert_msg(!strstr(notes, "measured anew"), "case %zu: %s", i, notes);
    }
    ck_assert_int_eq(truncate(file, 40), 0);
    train(&(way){.tune = "fast", .cache = file}, one, &plan);
    ck_assert_int_eq(truncate(file, 0), 0);
    train(&(way){.tune = "fast", .cache = file}, one, &plan);
    ck_assert_int_eq(truncate(file, 1 << 28), 0); /* zeros */
    train(&(way){.tune = "fast", .cache = file}, one, &plan);
    ck_assert_ptr_nonnull(strstr(notes, "no table of times"));
    /* a folder in its place, and one that cannot be: the run does not mind */
    notes[0] = 0;
    ck_assert_int_eq(mkdir(at("folder"), 0700), 0);
    train(&(way){.tune = "fast", .cache = at("folder")}, one, &plan);
    ck_assert_ptr_nonnull(strstr(notes, "are not kept"));
    notes[0] = 0;
    train(&(way){.tune = "fast", .cache = at("times/below")}, one, &plan);
    ck_assert_ptr_nonnull(strstr(notes, "are not kept"));
    /* NULL: in the user's folder */
    setenv("XDG_CACHE_HOME", at("user"), 1);
    train(&(way){.tune = "fast"}, one, &plan);
    char command[256];
    snprintf(command, sizeof command, "test -s %s/user/mest/kernels-*.tune", folder);
    ck_assert_int_eq(system(command), 0);
    setenv("XDG_CACHE_HOME", "relative", 1);
    setenv("HOME", "", 1);
    train(&(way){.tune = "fast"}, one, &plan);
    ck_assert_int_ne(access("relative", F_OK), 0);
}
END_TEST

START_TEST(lines)
{
    char key[MEST_TUNE_KEY], longer[700];
    double seconds;
    ck_assert(mest_tune_line("1.5e-3\ta b", 10, key, &seconds) && fabs(seconds - 1.5e-3) < 1e-12 && !strcmp(key, "a b"));
    ck_assert(mest_tune_line("-1\tx", 4, key, &seconds) && seconds < 0);
    static const char *const bad[] = {"", "\t", "1\t", "\tx", "1 x", "nan\tx", "inf\tx", "-2\tx", "0\tx", "1e9\tx", "0x1\tx", " 1\tx", "1\tx\ty", "1\t\x80", "1e-3,5\tx"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!mest_tune_line(bad[i], strlen(bad[i]), key, &seconds), "'%s'", bad[i]);
    memset(longer, 'x', sizeof longer);
    memcpy(longer, "1\t", 2);
    ck_assert(!mest_tune_line(longer, sizeof longer, key, &seconds));
}
END_TEST

START_TEST(arguments)
{
    mest_model *m = model_of();
    mest_train_config c = digits_config(1);
    mest_session *s = NULL;
    mest_error e = {0};
    c.tune = "faster";
    ck_assert_int_eq(mest_session_create(&s, m, &c, &e), MEST_E_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "off, fast, full"));
    mest_model_destroy(m);
}
END_TEST

/* Scheme auto: by the models always the same, by measurement the same with the same file; every choice has a reason, and dense layers stay dense. */
START_TEST(schemes)
{
    const char *const tune[] = {"off", "off", "full", "full"};
    char chosen[4][8][16];
    for (int k = 0; k < 4; k++) {
        char path[1024];
        mest_model *m = NULL;
        mest_sparsity sp;
        snprintf(path, sizeof path, "%s/digits_cnn.onnx", getenv("MEST_DIGITS"));
        MUST(mest_model_load(&m, path, NULL, err));
        mest_sparsity_init(&sp);
        sp.scheme = "auto";
        sp.sparsity = 0.9;
        sp.tune = tune[k];
        sp.tune_cache = at("schemes");
        MUST(mest_model_sparsify(m, &sp, err));
        int reasons = 0;
        for (int i = 0; i < mest_model_parameter_count(m); i++) {
            mest_tensor_info info = {.struct_size = sizeof info};
            MUST(mest_model_parameter(m, i, &info, err));
            if (!info.scheme_reason) {
                ck_assert_str_eq(info.scheme, "dense");
                continue;
            }
            ck_assert_int_eq(strncmp(info.scheme_reason, info.scheme, strlen(info.scheme)), 0);
            ck_assert_ptr_nonnull(strstr(info.scheme_reason, k < 2 ? "model of cost" : "measurement"));
            ck_assert(info.sparsity > 0.89 && info.sparsity < 0.91);
            snprintf(chosen[k][reasons++], 16, "%s", info.scheme);
        }
        ck_assert_int_eq(reasons, 2);
        for (int i = 0; k % 2 && i < reasons; i++)
            ck_assert_str_eq(chosen[k][i], chosen[k - 1][i]);
        mest_model_destroy(m);
    }
}
END_TEST

int main(void)
{
    if (!getenv("MEST_DIGITS") || !mkdtemp(folder))
        return 77;
    Suite *suite = suite_create("tune");
    TCase *t = tcase_create("tune");
    tcase_set_timeout(t, 0);
    tcase_add_test(t, lines);
    tcase_add_test(t, arguments);
    tcase_add_test(t, one_table_one_result);
    tcase_add_test(t, bad_files);
    tcase_add_test(t, schemes);
    suite_add_tcase(suite, t);
    SRunner *r = srunner_create(suite);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return failed != 0 || system(command) != 0;
}
