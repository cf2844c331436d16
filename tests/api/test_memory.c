/* SPDX-License-Identifier: Apache-2.0 */
/* Models in memory: loaded from bytes, written to bytes, equal to those in files. */
#include <check.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/serve/serve_util.h"

enum { ROOM = 1 << 20 };
static unsigned char file[ROOM], out[ROOM], again[ROOM];
static mest_error e;

static size_t read_file(const char *path, unsigned char *bytes)
{
    FILE *f = fopen(path, "rb");
    EXPECT(f);
    size_t n = fread(bytes, 1, ROOM, f);
    fclose(f);
    EXPECT(n > 0 && n < ROOM);
    return n;
}

static const char *digits(void)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/digits_cnn.onnx", getenv("MEST_DIGITS"));
    return path;
}

static mest_model_options counted(bool lend)
{
    static mest_allocator allocator = {sizeof allocator, NULL, counted_take, counted_give};
    mest_model_options o;
    mest_model_options_init(&o);
    o.allocator = &allocator;
    o.lend_memory = lend;
    return o;
}

static void same_parameters(mest_model *a, mest_model *b)
{
    static float v[40000], w[40000];
    ck_assert_int_eq(mest_model_parameter_count(a), mest_model_parameter_count(b));
    for (int i = 0; i < mest_model_parameter_count(a); i++) {
        mest_tensor_info x = {.struct_size = sizeof x}, y = x;
        MUST(mest_model_parameter(a, i, &x, err));
        int other = -1; /* sparse initializers come last in a file */
        do
            MUST(mest_model_parameter(b, ++other, &y, err));
        while (strcmp(x.name, y.name) != 0);
        size_t n = 1;
        for (int k = 0; k < x.rank; k++)
            n *= (size_t)x.dim[k];
        MUST(mest_model_read_parameter(a, i, v, n, err));
        MUST(mest_model_read_parameter(b, other, w, n, err));
        ck_assert_int_eq(memcmp(v, w, n * sizeof *v), 0);
    }
}

START_TEST(same_as_the_file)
{
    size_t n = read_file(digits(), file);
    mest_model_options o = counted(_i);
    mest_model *a, *b;
    MUST(mest_model_load(&a, digits(), NULL, err));
    MUST(mest_model_load_memory(&b, file, n, &o, err));
    if (!_i)
        memset(file, 0xff, n); /* it was copied */
    else
        ck_assert_int_lt(atomic_load(&bytes_out), (long)n); /* it was not */
    same_parameters(a, b);
    mest_model_summary s = {.struct_size = sizeof s};
    MUST(mest_model_summarize(b, &s, err));
    ck_assert_int_eq(s.file_bytes, (int64_t)n);
    mest_model_destroy(a);
    mest_model_destroy(b);
    ck_assert_int_eq(atomic_load(&bytes_out), 0);
}
END_TEST

/* A file that is cut while its model is at work: one that was read is not touched by it. */
START_TEST(file_that_is_cut)
{
    char path[] = "/tmp/mest-api-XXXXXX";
    int fd = mkstemp(path);
    size_t n = read_file(digits(), file), wrote;
    EXPECT(write(fd, file, n) == (ssize_t)n);
    mest_model_options o = counted(false);
    o.read_files = true;
    mest_model *a, *b;
    MUST(mest_model_load(&a, digits(), NULL, err));
    MUST(mest_model_load(&b, path, &o, err));
    ck_assert_int_ge(atomic_load(&bytes_out), (long)n);
    EXPECT(ftruncate(fd, 100) == 0);
    same_parameters(a, b);
    MUST(mest_model_export_memory(b, out, ROOM, &wrote, NULL, err));
    MUST(mest_model_export_memory(a, again, ROOM, &n, NULL, err));
    ck_assert(wrote == n && !memcmp(out, again, n));
    mest_model_destroy(a);
    mest_model_destroy(b);
    ck_assert_int_eq(atomic_load(&bytes_out), 0);
    ck_assert_int_eq(mest_model_load(&b, path, &o, &e), MEST_E_FORMAT);
    EXPECT(ftruncate(fd, 0) == 0);
    ck_assert_int_eq(mest_model_load(&b, path, &o, &e), MEST_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "empty"));
    ck_assert_int_eq(mest_model_load(&b, "/tmp", &o, &e), MEST_E_IO);
    ck_assert_int_eq(atomic_load(&bytes_out), 0);
    close(fd);
    unlink(path);
}
END_TEST

START_TEST(export_is_the_file)
{
    char path[] = "/tmp/mest-api-XXXXXX";
    close(mkstemp(path));
    mest_model *m;
    MUST(mest_model_load(&m, digits(), NULL, err));
    make_sparse(m, "csr", 0.9);
    for (int sparse = 0; sparse < 2; sparse++) {
        mest_export_options o = {.struct_size = sizeof o, .sparse = sparse};
        size_t told, n, wrote;
        MUST(mest_model_export(m, path, &o, err));
        n = read_file(path, file);
        MUST(mest_model_export_memory(m, NULL, 0, &told, &o, err));
        ck_assert_uint_eq(told, n);
        out[n] = 0x5a;
        MUST(mest_model_export_memory(m, out, n, &wrote, &o, err));
        ck_assert(wrote == n && out[n] == 0x5a && !memcmp(out, file, n));
        ck_assert_int_eq(mest_model_export_memory(m, out, n - 1, &wrote, &o, &e), MEST_E_ARGUMENT);
        char text[80];
        snprintf(text, sizeof text, "the model has %zu bytes, there is room for %zu", n, n - 1);
        ck_assert_ptr_nonnull(strstr(e.msg, text));
        mest_model *b; /* round trip without a file: what was written can be read, and is the original of the next export */
        MUST(mest_model_load_memory(&b, out, n, NULL, err));
        memset(out, 0, n);
        MUST(mest_model_export_memory(b, again, ROOM, &wrote, &o, err));
        same_parameters(m, b);
        mest_model_destroy(b);
    }
    ck_assert_int_eq(mest_model_export_memory(m, NULL, 0, NULL, NULL, &e), MEST_E_ARGUMENT);
    mest_model_destroy(m);
    unlink(path);
}
END_TEST

/* Training from memory alone, and a checkpoint of it resumed by a model from the file: the same bytes are the same model. */
START_TEST(trains_without_files)
{
    size_t n = read_file(digits(), file);
    float x[32 * PIXELS];
    int64_t y[32];
    make_inputs(x, 32);
    for (int i = 0; i < 32; i++)
        y[i] = i % CLASSES;
    char path[] = "/tmp/mest-api-XXXXXX";
    close(mkstemp(path));
    size_t size[2];
    for (int k = 0; k < 2; k++) {
        mest_model *m;
        if (k == 0)
            MUST(mest_model_load_memory(&m, file, n, NULL, err));
        else
            MUST(mest_model_load(&m, digits(), NULL, err));
        make_sparse(m, "csr", 0.9);
        mest_train_config c = digits_config(1);
        mest_session *s;
        MUST(mest_session_create(&s, m, &c, err));
        if (k)
            MUST(mest_session_resume(s, path, err));
        mest_metrics metrics = {.struct_size = sizeof metrics};
        for (int i = 0; i < (k ? 2 : 4); i++) {
            MUST(mest_session_step(s, x, y, 32, &metrics, err));
            if (!k && i == 1)
                MUST(mest_session_checkpoint(s, path, err));
        }
        MUST(mest_model_export_memory(m, k ? again : out, ROOM, &size[k], NULL, err));
        mest_session_destroy(s);
        mest_model_destroy(m);
    }
    ck_assert(size[0] == size[1] && !memcmp(out, again, size[0]));
    unlink(path);
}
END_TEST

/* Pages of a mapped file are given back to the system once they were read; memory must not be: it would come back as zeros. */
START_TEST(large_models_stay_whole)
{
    enum { LARGE = 6 << 20 };
    unsigned char *bytes = mmap(NULL, LARGE + ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *copy = malloc(LARGE + ROOM), *back = malloc(LARGE + ROOM);
    EXPECT(bytes != MAP_FAILED && copy && back);
    size_t n = read_file(digits(), file), size;
    memcpy(bytes, file, n);
    bytes[n++] = 6 << 3 | 2; /* ModelProto.doc_string of LARGE bytes */
    for (uint32_t left = LARGE; left; left >>= 7)
        bytes[n++] = (unsigned char)((left & 127) | (left > 127 ? 128 : 0));
    memset(bytes + n, 'x', LARGE);
    n += LARGE;
    memcpy(copy, bytes, n);
    mest_model_options o = counted(true);
    o.max_metadata_bytes = (uint64_t)64 << 20;
    mest_model *m;
    MUST(mest_model_load_memory(&m, bytes, n, &o, err));
    mest_train_config c = digits_config(1);
    mest_session *s;
    MUST(mest_session_create(&s, m, &c, err));
    char path[] = "/tmp/mest-api-XXXXXX";
    close(mkstemp(path));
    MUST(mest_session_checkpoint(s, path, err)); /* reads the whole model: its sum is in there */
    unlink(path);
    mest_session_destroy(s);
    ck_assert_int_eq(memcmp(bytes, copy, n), 0);
    MUST(mest_model_export_memory(m, back, LARGE + ROOM, &size, NULL, err));
    ck_assert_int_ge((int64_t)size, (int64_t)n);
    mest_model_destroy(m);
    munmap(bytes, LARGE + ROOM);
    free(copy);
    free(back);
}
END_TEST

START_TEST(refusals)
{
    mest_model *m = (mest_model *)(uintptr_t)1;
    ck_assert_int_eq(mest_model_load_memory(&m, NULL, 5, NULL, &e), MEST_E_ARGUMENT);
    ck_assert_ptr_null(m);
    ck_assert_int_eq(mest_model_load_memory(&m, "", 0, NULL, &e), MEST_E_ARGUMENT);
    ck_assert_int_eq(mest_model_load_memory(&m, "not a model", 11, NULL, &e), MEST_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "onnx '(memory)': byte 0"));
    size_t n = read_file(digits(), file);
    for (size_t cut = 0; cut < n; cut += n / 97 + 1)
        ck_assert_int_ne(mest_model_load_memory(&m, file, cut, NULL, &e), MEST_OK);
    char path[1024];
    snprintf(path, sizeof path, "%s/import/external.onnx", getenv("MEST_TEST_DATA"));
    n = read_file(path, file);
    ck_assert_int_eq(mest_model_load_memory(&m, file, n, NULL, &e), MEST_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(e.msg, "a model in memory has no folder"));
    ck_assert_ptr_null(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("api memory");
    TCase *t = tcase_create("memory");
    tcase_add_loop_test(t, same_as_the_file, 0, 2);
    tcase_add_test(t, file_that_is_cut);
    tcase_add_test(t, export_is_the_file);
    tcase_add_test(t, trains_without_files);
    tcase_add_test(t, large_models_stay_whole);
    tcase_add_test(t, refusals);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
