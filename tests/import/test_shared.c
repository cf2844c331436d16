/* SPDX-License-Identifier: Apache-2.0 */
/* The shared fixtures: every network, every variant, every hostile file, and each of them exported and read back. */
#include <pthread.h>
#include <time.h>

#include "tests/import/import_fixture.h"

static const char *const networks[] = { "mlp", "lenet5", "resnet8", "mobilenetv2", "vit", "bert", "dscnn1d", "lstm", "unet" };
enum { N_NETWORKS = sizeof networks / sizeof *networks };

/* LSTM comes with a later operator set: until then its files must be refused by name. */
static bool known(const char *name)
{
    return strncmp(name, "lstm", 4) || mest_op_find("", "LSTM", 17);
}

static mest_model *load_shared(const char *file)
{
    char path[1024];
    return load(shared_path(path, file));
}

/* Compares with params.tsv or buffers.tsv: same names, order-free, same shapes, the role. */
static int compare_table(const mest_model *m, const char *network, const char *table, mest_role role)
{
    char path[1024], file[256], line[1024], name[256], kind[64], dims[128];
    int n = 0;
    snprintf(file, sizeof file, "%s/%s", network, table);
    FILE *f = fopen(shared_path(path, file), "r");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f)) {
        if (line[0] == '#' || sscanf(line, "%255s %63s %127s", name, kind, dims) != 3)
            continue;
        const mest_param *p = find_param(m, name);
        ck_assert_msg(p != NULL, "%s: '%s' is not a parameter", network, name);
        ck_assert_msg(p->role == role, "%s: '%s' has role %d: %s", network, name, p->role, p->role_reason);
        char *at = dims;
        for (int k = 0; k < p->shape.rank; k++) {
            ck_assert_int_eq(p->shape.dim[k], strtoll(at, &at, 10));
            at += *at == 'x';
        }
        n++;
    }
    fclose(f);
    return n;
}

static int count_role(const mest_model *m, mest_role role)
{
    int n = 0;
    for (int i = 0; i < m->n_params; i++)
        n += m->params[i].role == role;
    return n;
}

START_TEST(networks_have_their_parameters)
{
    if (no_shared("networks"))
        return;
    const char *name = networks[_i];
    if (!known(name))
        return;
    char file[256];
    snprintf(file, sizeof file, "%s/model.onnx", name);
    mest_model *m = load_shared(file);
    ck_assert_int_eq(compare_table(m, name, "params.tsv", MEST_ROLE_TRAINABLE), count_role(m, MEST_ROLE_TRAINABLE));
    ck_assert_int_eq(compare_table(m, name, "buffers.tsv", MEST_ROLE_STATISTIC), count_role(m, MEST_ROLE_STATISTIC));
    OK(infer_model(m, 4, err));
    mest_model_summary s = { .struct_size = sizeof s };
    OK(mest_model_summarize(m, &s, err));
    ck_assert_int_eq(s.n_trainable, count_role(m, MEST_ROLE_TRAINABLE));
    ck_assert_int_eq(mest_model_input_count(m), 1);
    mest_tensor_info t = { .struct_size = sizeof t };
    OK(mest_model_input(m, 0, &t, err));
    ck_assert_int_eq(t.dim[0], -1);
    OK(mest_model_output(m, 0, &t, err));
    ck_assert_str_eq(t.name, "output");
    mest_model_destroy(m);
}
END_TEST

/* ---- variants ---- */
static void same_values(const mest_model *a, const mest_model *b, const char *what)
{
    ck_assert_int_eq(a->n_params, b->n_params);
    for (int i = 0; i < a->n_params; i++) {
        const mest_param *p = &a->params[i], *q = find_param(b, p->name);
        ck_assert_msg(q && q->role == p->role && q->count == p->count && mest_shape_equal(&p->shape, &q->shape), "%s: '%s' differs", what, p->name);
        float *x = malloc((size_t)p->count * 4 + 4), *y = malloc((size_t)p->count * 4 + 4);
        OK(mest_model_read_parameter(a, i, x, (size_t)p->count, err));
        OK(mest_model_read_parameter(b, (int)(q - b->params), y, (size_t)q->count, err));
        ck_assert_msg(!memcmp(x, y, (size_t)p->count * 4), "%s: values of '%s' differ", what, p->name);
        free(x);
        free(y);
    }
}

START_TEST(variants_equal_their_base)
{
    if (no_shared("variants"))
        return;
    static const char *const same[] = { "external", "typed", "ir3", "identity", "function", "dynamo" };
    mest_model *base = load_shared("mlp/model.onnx");
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char file[256];
        snprintf(file, sizeof file, "variants/mlp_%s.onnx", same[i]);
        mest_model *m = load_shared(file);
        same_values(base, m, same[i]);
        ck_assert_int_eq(mest_model_input_count(m), 1);
        ck_assert_int_eq(m->n_untied, 0);
        OK(infer_model(m, 4, err));
        mest_model_destroy(m);
    }
    mest_model *m = load_shared("variants/mlp_constants.onnx");
    ck_assert_int_eq(m->n_params, 0);
    OK(infer_model(m, 4, err));
    mest_model_destroy(m);
    char path[1024]; /* weights are Constant nodes: they train when the caller says so */
    mest_model_options o;
    mest_model_options_init(&o);
    o.trainable = "net.*";
    OK(mest_model_load(&m, shared_path(path, "variants/mlp_constants.onnx"), &o, err));
    ck_assert_int_eq(m->n_params, 6);
    same_values(base, m, "constants");
    OK(infer_model(m, 4, err));
    mest_model_destroy(m);
    mest_model_destroy(base);
}
END_TEST

START_TEST(sparse_variants_equal_the_masked_base)
{
    if (no_shared("sparse variants"))
        return;
    char path[1024];
    uint8_t mask[2048];
    FILE *f = fopen(shared_path(path, "mlp/mask.npy"), "rb");
    ck_assert(f);
    ck_assert(fseek(f, 8, SEEK_SET) == 0 && fread(mask, 1, 2, f) == 2 && fseek(f, mask[0] | mask[1] << 8, SEEK_CUR) == 0);
    size_t n_mask = fread(mask, 1, sizeof mask, f);
    fclose(f);
    mest_model *base = load_shared("mlp/model.onnx");
    for (int coo = 0; coo < 2; coo++) {
        mest_model *m = load_shared(coo ? "variants/mlp_sparse_coo.onnx" : "variants/mlp_sparse_linear.onnx");
        size_t at = 0;
        for (int i = 0; i < base->n_params; i++) { /* params.tsv has the order of the file */
            const mest_param *p = &base->params[i], *q = find_param(m, p->name);
            ck_assert(q && q->role == MEST_ROLE_TRAINABLE && (q->payload.linear != NULL) == (p->shape.rank > 1));
            float x[1024], y[1024];
            ck_assert(p->count <= 1024);
            OK(mest_param_read(p, 0, p->count, x, err));
            for (int64_t k = 0; k < p->count; k += 7) /* in pieces that cut rows */
                OK(mest_param_read(q, k, p->count - k < 7 ? p->count - k : 7, y + k, err));
            for (int64_t k = 0; k < p->count; k++)
                ck_assert_msg(y[k] == (mask[at + (size_t)k] ? x[k] : 0), "%s[%d]", p->name, (int)k);
            at += (size_t)p->count;
        }
        ck_assert_uint_eq(at, n_mask);
        mest_model_destroy(m);
    }
    mest_model_destroy(base);
}
END_TEST

START_TEST(folded_variants_load)
{
    if (no_shared("folded variants"))
        return;
    mest_model *m = load_shared("variants/resnet8_folded.onnx");
    ck_assert_int_eq(count_ops(m, "BatchNormalization"), 0);
    ck_assert_int_eq(count_role(m, MEST_ROLE_TRAINABLE), m->n_params);
    OK(infer_model(m, 4, err));
    mest_model_destroy(m);
}
END_TEST

/* ---- export and read back ---- */
static void round_trip(const char *file, bool sparse)
{
    char path[1024], out[1024];
    mest_model *m = load(shared_path(path, file));
    mest_export_options o = { .struct_size = sizeof o, .sparse = sparse };
    temporary(out);
    OK(mest_model_export(m, out, &o, err));
    mest_model *back = load(out);
    same_values(m, back, file);
    ck_assert_int_eq(back->graph.n_nodes, m->graph.n_nodes);
    ck_assert_int_eq(back->external_bytes, 0);
    ck_assert_int_eq(back->n_untied, 0);
    ck_assert_int_eq(back->opset, m->opset);
    ck_assert_int_eq(unlink(out), 0);
    mest_model_destroy(back);
    mest_model_destroy(m);
}

START_TEST(exports_read_back)
{
    if (no_shared("export"))
        return;
    char file[256];
    for (int i = 0; i < N_NETWORKS; i++) {
        snprintf(file, sizeof file, "%s/model.onnx", networks[i]);
        if (known(networks[i]))
            round_trip(file, false);
    }
    static const char *const variants[] = { "mlp_external", "mlp_typed", "mlp_ir3", "mlp_constants", "mlp_identity", "mlp_sparse_linear",
                                            "mlp_sparse_coo", "mlp_function", "mlp_dynamo", "resnet8_folded" };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        snprintf(file, sizeof file, "variants/%s.onnx", variants[i]);
        round_trip(file, false);
        round_trip(file, true);
    }
}
END_TEST

/* ---- hostile files ---- */
typedef struct attempt {
    const char *path;
    mest_status status;
    mest_error err;
    meter meter;
} attempt;

static void *try_file(void *user)
{
    attempt *a = user;
    mest_allocator allocator = meter_allocator(&a->meter);
    mest_model_options o;
    mest_model_options_init(&o);
    o.allocator = &allocator;
    mest_model *m;
    a->status = mest_model_load(&m, a->path, &o, &a->err);
    if (a->status == MEST_OK)
        a->status = infer_model(m, 2, &a->err);
    mest_model_destroy(m);
    return NULL;
}

START_TEST(hostile_files_are_refused)
{
    if (no_shared("hostile files"))
        return;
    char path[1024], line[1024], name[128], expected[64];
    FILE *f = fopen(shared_path(path, "hostile/hostile.tsv"), "r");
    ck_assert(f);
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        if (line[0] == '#' || sscanf(line, "%127[^\t]\t%63[^\t]", name, expected) != 2)
            continue;
        char file[256];
        snprintf(file, sizeof file, "hostile/%s.onnx", name);
        attempt *a = calloc(1, sizeof *a);
        a->path = shared_path(path, file);
        pthread_attr_t attr;
        pthread_t thread;
        struct timespec t0, t1;
        clock_gettime(CLOCK_MONOTONIC, &t0);
        ck_assert_int_eq(pthread_attr_init(&attr), 0);
        ck_assert_int_eq(pthread_attr_setstacksize(&attr, 256 * 1024), 0);
        ck_assert_int_eq(pthread_create(&thread, &attr, try_file, a), 0);
        pthread_join(thread, NULL);
        pthread_attr_destroy(&attr);
        clock_gettime(CLOCK_MONOTONIC, &t1);
        double seconds = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec);
        bool accept = a->status == MEST_OK;
        if (getenv("MEST_VERBOSE"))
            printf("%-16s %-8s %s  (%.3f s, %.1f MB)\n", name, expected, accept ? "accepted" : a->err.msg, seconds, (double)a->meter.peak * 1e-6);
        ck_assert_msg(!strcmp(expected, "either") || accept == !strcmp(expected, "accept"), "%s: expected %s, got %s: %s", name, expected,
                      accept ? "accept" : "reject", a->err.msg);
        ck_assert_msg(accept || (a->err.code == a->status && a->err.msg[0]), "%s: no text", name);
        ck_assert_msg(a->meter.peak <= (int64_t)64 << 20, "%s: %lld bytes", name, (long long)a->meter.peak);
        ck_assert_msg(a->meter.now == 0, "%s: %lld bytes leaked", name, (long long)a->meter.now);
        ck_assert_msg(seconds < 5, "%s: %g s", name, seconds); /* the goal is 1 s; sanitizers and busy machines need slack */
        free(a);
        n++;
    }
    fclose(f);
    ck_assert_int_eq(n, 92);
}
END_TEST

/* Memory that runs out at any point: an error, nothing lost. */
START_TEST(memory_may_run_out_anywhere)
{
    if (no_shared("failing allocations"))
        return;
    char path[1024], out[1024];
    temporary(out);
    static const char *const files[] = { "mobilenetv2/model.onnx", "variants/mlp_sparse_coo.onnx", "variants/mlp_function.onnx",
                                         "variants/mlp_external.onnx", "variants/mlp_identity.onnx" };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        shared_path(path, files[i]);
        for (int64_t n = 0;; n++) {
            meter count = { 0 };
            mest_allocator allocator = meter_allocator(&count);
            mest_model_options o;
            mest_model_options_init(&o);
            o.allocator = &allocator;
            count.fail_at = n;
            mest_model *m;
            mest_error e;
            mest_status status = mest_model_load(&m, path, &o, &e);
            if (status == MEST_OK)
                status = mest_model_export(m, out, NULL, &e);
            ck_assert_msg(status == MEST_OK || status == MEST_E_NOMEM, "%s at %d: %s: %s", files[i], (int)n, mest_status_text(status), e.msg);
            mest_model_destroy(m);
            ck_assert_msg(count.now == 0, "%s at %d: %lld bytes leaked", files[i], (int)n, (long long)count.now);
            if (status == MEST_OK && count.calls <= n)
                break;
        }
    }
    unlink(out);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("import shared");
    TCase *t = tcase_create("fixtures");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, networks_have_their_parameters, 0, N_NETWORKS);
    tcase_add_test(t, variants_equal_their_base);
    tcase_add_test(t, sparse_variants_equal_the_masked_base);
    tcase_add_test(t, folded_variants_load);
    tcase_add_test(t, exports_read_back);
    tcase_add_test(t, hostile_files_are_refused);
    tcase_add_test(t, memory_may_run_out_anywhere);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
