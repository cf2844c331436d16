/* SPDX-License-Identifier: Apache-2.0 */
/* Callers built against older headers have shorter structures. Each structure lies right before a page that must not be touched, at every
 * length it may ever have had, so that a read or write past the caller's end is a crash here. */
#include <check.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mest/check.h"
#include "tests/serve/serve_util.h"

static char *pages;
static size_t page;

/* Room for `size` bytes with nothing behind it; struct_size is set. */
static void *edge(size_t size)
{
    char *p = pages + page - size;
    memset(pages, 0xa5, page);
    memcpy(p, &(uint32_t){(uint32_t)size}, sizeof(uint32_t));
    return p;
}

/* The first `size` bytes of `full`. */
static void *cut(const void *full, size_t size)
{
    char *p = edge(size);
    memcpy(p + sizeof(uint32_t), (const char *)full + sizeof(uint32_t), size - sizeof(uint32_t));
    return p;
}

static mest_model *m;
static mest_session *s;
static mest_error e;
static float x[32 * PIXELS];
static int64_t y[32];

static void set_up(void)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(pages != MAP_FAILED && !mprotect(pages + page, page, PROT_NONE));
    make_inputs(x, 32);
    for (int i = 0; i < 32; i++)
        y[i] = i % CLASSES;
    m = load_digits();
    mest_train_config c = digits_config(1);
    MUST(mest_session_create(&s, m, &c, err));
    MUST(mest_session_publish(s, NULL, NULL, err));
}

static void tear_down(void)
{
    mest_session_destroy(s);
    mest_model_destroy(m);
    munmap(pages, 2 * page);
    EXPECT(atomic_load(&bytes_out) == 0);
}

/* Each length from `least` up to what the structure has now. */
#define EACH_SIZE(type, least) for (size_t size = (least); size <= sizeof(type); size += 8)
#define END_OF(type, member) ((offsetof(type, member) + sizeof(((type *)0)->member) + 7) / 8 * 8)

/* mest_session_check wants a tolerant model and a run that has not begun. */
static void checks(bool options)
{
    mest_model_options mo;
    mest_model_options_init(&mo);
    mo.tolerant = true;
    char path[1024];
    snprintf(path, sizeof path, "%s/digits_cnn.onnx", getenv("MEST_DIGITS"));
    mest_model *other;
    mest_session *session;
    mest_train_config c = digits_config(1);
    mest_check_options co;
    mest_check_options_init(&co);
    mest_check_summary sum = {.struct_size = sizeof sum};
    MUST(mest_model_load(&other, path, &mo, err));
    MUST(mest_session_create(&session, other, &c, err));
    EACH_SIZE(mest_check_options, 8)
        if (options)
            MUST(mest_session_check(session, cut(&co, size), &sum, err));
    EACH_SIZE(mest_check_summary, 8)
        if (!options)
            MUST(mest_session_check(session, NULL, edge(size), err));
    mest_session_destroy(session);
    mest_model_destroy(other);
}

START_TEST(told_by_the_library)
{
    EACH_SIZE(mest_tensor_info, 8)
        MUST(mest_model_parameter(m, 0, edge(size), err));
    EACH_SIZE(mest_tensor_info, 8)
        MUST(mest_model_input(m, 0, edge(size), err));
    EACH_SIZE(mest_model_summary, 8)
        MUST(mest_model_summarize(m, edge(size), err));
    EACH_SIZE(mest_version_info, 8)
        MUST(mest_model_next_version(m, 0, edge(size), err));
    EACH_SIZE(mest_plan_info, 8)
        MUST(mest_session_explain(s, MEST_PROGRAM_INFER, 4, NULL, NULL, edge(size), err));
    EACH_SIZE(mest_pass_info, 8)
        ck_assert(mest_pass_list(0, edge(size)));
    checks(false);
    EACH_SIZE(mest_version_info, 8)
        MUST(mest_session_publish(s, NULL, edge(size), err));
    mest_predictor *p;
    MUST(mest_predictor_create(&p, m, NULL, err));
    EACH_SIZE(mest_tensor_info, 8)
        MUST(mest_predictor_output(p, 0, edge(size), err));
    mest_predictor_destroy(p);
    /* what a longer caller has and this library does not know stays as it was */
    char longer[sizeof(mest_tensor_info) + 16];
    memset(longer, 0x77, sizeof longer);
    memcpy(longer, &(uint32_t){sizeof longer}, sizeof(uint32_t));
    MUST(mest_model_parameter(m, 0, (mest_tensor_info *)(void *)longer, err));
    for (size_t i = sizeof(mest_tensor_info); i < sizeof longer; i++)
        ck_assert_int_eq(longer[i], 0x77);
}
END_TEST

START_TEST(unset_sizes_are_refused)
{
    mest_tensor_info t = {.struct_size = 0};
    ck_assert_int_eq(mest_model_parameter(m, 0, &t, &e), MEST_E_ARGUMENT);
    mest_version_info v = {.struct_size = 0};
    ck_assert_int_eq(mest_model_next_version(m, 0, &v, &e), MEST_E_ARGUMENT);
    mest_plan_info p = {.struct_size = 4};
    ck_assert_int_eq(mest_session_explain(s, MEST_PROGRAM_INFER, 4, NULL, NULL, &p, &e), MEST_E_ARGUMENT);
    mest_train_config c = {.struct_size = 0};
    mest_session *other;
    ck_assert_int_eq(mest_session_create(&other, m, &c, &e), MEST_E_ARGUMENT);
    mest_run_options r = {.struct_size = 0};
    mest_source source;
    open_digits(&source, false);
    ck_assert_int_eq(mest_session_train(s, &source, &r, &e), MEST_E_ARGUMENT);
    mest_metrics metrics;
    ck_assert_int_eq(mest_session_evaluate(s, &source, &r, &metrics, &e), MEST_E_ARGUMENT);
    mest_source_close(&source);
}
END_TEST

START_TEST(given_to_the_library)
{
    mest_model_options mo;
    mest_model_options_init(&mo);
    char path[1024];
    snprintf(path, sizeof path, "%s/digits_cnn.onnx", getenv("MEST_DIGITS"));
    EACH_SIZE(mest_model_options, 8) {
        mest_model *other;
        MUST(mest_model_load(&other, path, cut(&mo, size), err));
        mest_model_destroy(other);
    }
    mest_sparsity sp;
    mest_sparsity_init(&sp);
    sp.sparsity = 0.5;
    mest_train_config c = digits_config(1);
    size_t config_size = 8, sparsity_size = END_OF(mest_sparsity, sparsity);
    while (config_size <= sizeof c || sparsity_size <= sizeof sp) {
        mest_model *other;
        mest_session *session;
        MUST(mest_model_load(&other, path, NULL, err));
        MUST(mest_model_sparsify(other, cut(&sp, sparsity_size <= sizeof sp ? sparsity_size : sizeof sp), err));
        MUST(mest_session_create(&session, other, cut(&c, config_size <= sizeof c ? config_size : sizeof c), err));
        mest_session_destroy(session);
        mest_model_destroy(other);
        config_size += 8;
        sparsity_size += 8;
    }
    mest_source source;
    open_digits(&source, false);
    mest_run_options ro;
    mest_run_options_init(&ro);
    ro.max_epochs = 1;
    mest_metrics metrics;
    EACH_SIZE(mest_run_options, 8)
        MUST(mest_session_evaluate(s, &source, cut(&ro, size), &metrics, err));
    MUST(mest_session_train(s, &source, cut(&ro, END_OF(mest_run_options, progress_user)), err));
    mest_source_close(&source);
    mest_publish_options po;
    mest_publish_options_init(&po);
    EACH_SIZE(mest_publish_options, 8)
        MUST(mest_session_publish(s, cut(&po, size), NULL, err));
    mest_predictor_options pro;
    mest_predictor_options_init(&pro);
    EACH_SIZE(mest_predictor_options, 8) {
        mest_predictor *p;
        MUST(mest_predictor_create(&p, m, cut(&pro, size), err));
        mest_predictor_destroy(p);
    }
    mest_export_options eo = {.struct_size = sizeof eo};
    size_t bytes;
    EACH_SIZE(mest_export_options, 8)
        MUST(mest_model_export_memory(m, NULL, 0, &bytes, cut(&eo, size), err));
    checks(true);
    mest_source_options so;
    mest_source_options_init(&so);
    char spec[1100];
    snprintf(spec, sizeof spec, "csv:%s/digits.csv.gz", getenv("MEST_DIGITS"));
    EACH_SIZE(mest_source_options, 8) {
        MUST(mest_source_open(&source, spec, cut(&so, size), err));
        mest_source_close(&source);
    }
}
END_TEST

/* ---- a source and an allocator of a caller with the headers of the first version ---- */
static mest_status old_info(void *self, mest_source_info *info, mest_error *err)
{
    (void)self;
    (void)err;
    info->count = 40;
    info->input_type = MEST_SAMPLE_F32;
    info->input_rank = 3;
    info->input_dim[0] = 1;
    info->input_dim[1] = info->input_dim[2] = 8;
    info->target_type = MEST_SAMPLE_I64;
    info->has_targets = true;
    return MEST_OK;
}

static mest_status old_fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets, mest_error *err)
{
    (void)self;
    (void)how;
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        memcpy((float *)inputs + i * PIXELS, x + ids[i] % 32 * PIXELS, PIXELS * sizeof *x);
        if (targets)
            ((int64_t *)targets)[i] = ids[i] % CLASSES;
    }
    return MEST_OK;
}

START_TEST(sources_and_allocators)
{
    mest_source source = {.struct_size = sizeof source, .info = old_info, .fetch = old_fetch};
    mest_metrics metrics;
    EACH_SIZE(mest_source, END_OF(mest_source, destroy))
        MUST(mest_session_evaluate(s, cut(&source, size), NULL, &metrics, err));
    ck_assert_int_eq(metrics.samples, 40);
    mest_allocator a = {sizeof a, NULL, counted_take, counted_give};
    mest_logger l = {.struct_size = sizeof l};
    mest_model_options mo;
    mest_model_options_init(&mo);
    mo.allocator = cut(&a, sizeof a);
    mo.logger = &l;
    char path[1024];
    snprintf(path, sizeof path, "%s/digits_cnn.onnx", getenv("MEST_DIGITS"));
    mest_model *other;
    MUST(mest_model_load(&other, path, &mo, err));
    mest_model_destroy(other);
    mo.allocator = cut(&a, sizeof a - 8); /* no release */
    ck_assert_int_eq(mest_model_load(&other, path, &mo, &e), MEST_E_ARGUMENT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("api sizes");
    TCase *t = tcase_create("sizes");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, told_by_the_library);
    tcase_add_test(t, unset_sizes_are_refused);
    tcase_add_test(t, given_to_the_library);
    tcase_add_test(t, sources_and_allocators);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
