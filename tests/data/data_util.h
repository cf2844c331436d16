/* SPDX-License-Identifier: Apache-2.0 */
/* What the data tests share: a folder of their own, files in it, and the usual checks. */
#ifndef MEST_TESTS_DATA_UTIL_H
#define MEST_TESTS_DATA_UTIL_H

#include <check.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mest/data.h"
#include "runtime/alloc.h"

__attribute__((unused)) static char temp_dir[256];
__attribute__((unused)) static char last_log[1024];
__attribute__((unused)) static mest_heap test_heap;

__attribute__((unused)) static void keep_log(void *user, mest_log_level level, const char *text)
{
    (void)user;
    (void)level;
    snprintf(last_log, sizeof last_log, "%s", text);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path);
}

static void make_temp(void)
{
    const char *base = getenv("TMPDIR");
    mest_logger logger = {.struct_size = sizeof logger, .log = keep_log};
    snprintf(temp_dir, sizeof temp_dir, "%s/mest-data-XXXXXX", base ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(temp_dir));
    ck_assert_int_eq(chmod(temp_dir, 0755), 0);
    last_log[0] = 0;
    ck_assert_int_eq(mest_heap_init(&test_heap, NULL, &logger, NULL), MEST_OK);
}

static void remove_temp(void)
{
    nftw(temp_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    ck_assert_int_eq(test_heap.current_bytes, 0); /* nothing leaked */
}

/* TEMP/NAME; a few results stay valid at once. */
__attribute__((unused)) static const char *in_temp(const char *name)
{
    static char paths[8][1024];
    static int next;
    char *p = paths[next++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", temp_dir, name);
    return p;
}

__attribute__((unused)) static const char *write_file(const char *name, const void *bytes, size_t n)
{
    const char *path = in_temp(name);
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
    ck_assert_int_eq(fclose(f), 0);
    return path;
}

__attribute__((unused)) static const char *write_text(const char *name, const char *text) { return write_file(name, text, strlen(text)); }

__attribute__((unused)) static size_t read_file(const char *path, void *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return 0;
    size_t n = fread(bytes, 1, room, f);
    fclose(f);
    return n;
}

/* A .npy file of the given version, dict and payload. */
__attribute__((unused)) static const char *write_npy(const char *name, int version, const char *dict, const void *payload, size_t n)
{
    char bytes[2048];
    size_t length = strlen(dict), at = version == 1 ? 10 : 12;
    memcpy(bytes, "\x93NUMPY", 6);
    bytes[6] = (char)version;
    bytes[7] = 0;
    for (size_t i = 8; i < at; i++)
        bytes[i] = (char)(length >> (8 * (i - 8)));
    memcpy(bytes + at, dict, length);
    memcpy(bytes + at + length, payload, n);
    return write_file(name, bytes, at + length + n);
}

#define NPY(name, type, shape, payload) \
    write_npy(name, 1, "{'descr': '" type "', 'fortran_order': False, 'shape': " shape ", }   \n", payload, sizeof payload)

/* Opens a source whose spec is KIND:TEMP/NAME[,TEMP/NAME2]. */
__attribute__((unused)) static mest_status open_source(mest_source *source, const char *kind, const char *name, const char *second,
                                                       const mest_source_options *options, mest_error *err)
{
    char spec[2400];
    if (second)
        snprintf(spec, sizeof spec, "%s:%s/%s,%s/%s", kind, temp_dir, name, temp_dir, second);
    else
        snprintf(spec, sizeof spec, "%s:%s/%s", kind, temp_dir, name);
    return mest_source_open(source, spec, options, err);
}

#define assert_ok(call)                                                                                    \
    do {                                                                                                   \
        mest_status assert_status_ = (call);                                                               \
        ck_assert_msg(assert_status_ == MEST_OK, "%s: %d: %s", #call, (int)assert_status_, err.msg);       \
    } while (0)

/* The call fails with `code` and a text that contains `part`. */
#define assert_fails(call, expected, part)                                                                                 \
    do {                                                                                                                   \
        mest_error_clear(&err);                                                                                            \
        mest_status assert_status_ = (call);                                                                               \
        ck_assert_msg(assert_status_ == (expected), "%s: %d: %s", #call, (int)assert_status_, err.msg);                    \
        ck_assert_msg(strstr(err.msg, (part)) != NULL, "%s: '%s' does not say '%s'", #call, err.msg, (part));              \
    } while (0)

__attribute__((unused)) static int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

__attribute__((unused)) static TCase *temp_case(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);
    tcase_add_checked_fixture(c, make_temp, remove_temp);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    return c;
}

#endif
