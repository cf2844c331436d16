/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoint container: what was written comes back, every damage is noticed, a whole checkpoint is always there. */
#include "tests/data/data_util.h"

#include <signal.h>
#include <sys/resource.h>

#include "runtime/checkpoint.h"

static mest_error err;

/* A small checkpoint whose sections depend on `mark`. */
static mest_status write_one(const char *path, uint32_t mark)
{
    mest_checkpoint_writer *w;
    MEST_TRY(mest_checkpoint_create(&w, &test_heap, path, &err));
    mest_status status = mest_checkpoint_begin(w, "numbers", &err);
    for (uint32_t i = 0; i < 10 && status == MEST_OK; i++)
        status = mest_checkpoint_append(w, &(uint32_t){mark + i}, 4, &err);
    if (status == MEST_OK)
        status = mest_checkpoint_end(w, &err);
    if (status == MEST_OK)
        status = mest_checkpoint_put(w, "empty", NULL, 0, &err);
    if (status == MEST_OK)
        status = mest_checkpoint_put(w, "text", "some text", 9, &err);
    if (status == MEST_OK)
        return mest_checkpoint_commit(w, &err);
    mest_checkpoint_abort(w);
    return status;
}

static uint32_t mark_of(const mest_checkpoint *f)
{
    mest_section s;
    uint32_t mark;
    assert_ok(mest_section_find(&s, f, "numbers", &err));
    assert_ok(mest_section_read(&s, &mark, 4, &err));
    return mark;
}

START_TEST(round_trip)
{
    const char *path = in_temp("c.ckpt");
    mest_checkpoint *f;
    mest_section s;
    uint64_t bytes;
    const void *lent;
    char text[10] = "";
    mest_error_clear(&err);
    assert_ok(write_one(path, 100));
    assert_ok(mest_checkpoint_open(&f, &test_heap, path, &err));
    ck_assert_int_eq(mest_checkpoint_count(f), 3);
    ck_assert_str_eq(mest_checkpoint_section(f, 0, &bytes), "numbers");
    ck_assert_uint_eq(bytes, 40);
    ck_assert_str_eq(mest_checkpoint_section(f, 1, &bytes), "empty");
    ck_assert_uint_eq(bytes, 0);
    ck_assert_ptr_null(mest_checkpoint_section(f, 3, NULL));
    ck_assert_str_eq(mest_checkpoint_path(f), path);
    ck_assert_uint_eq(mark_of(f), 100);
    assert_ok(mest_section_find(&s, f, "text", &err));
    assert_ok(mest_section_lend(&s, &lent, 4, &err));
    ck_assert_uint_eq((uintptr_t)lent % 64, 0);
    ck_assert_int_ne(mest_section_finish(&s, NULL), MEST_OK);
    assert_ok(mest_section_read(&s, text, 5, &err));
    ck_assert_str_eq(text, " text");
    assert_ok(mest_section_finish(&s, &err));
    assert_fails(mest_section_read(&s, text, 1, &err), MEST_E_FORMAT, "section 'text'");
    ck_assert_ptr_nonnull(strstr(err.msg, path));
    assert_ok(mest_section_find(&s, f, "empty", &err));
    assert_ok(mest_section_finish(&s, &err));
    ck_assert(mest_section_exists(f, "text") && !mest_section_exists(f, "tex"));
    assert_fails(mest_section_find(&s, f, "weights", &err), MEST_E_FORMAT, "no section 'weights'");
    mest_checkpoint_close(f);
    mest_checkpoint_close(NULL);
}
END_TEST

START_TEST(writer_rules)
{
    mest_checkpoint_writer *w;
    char name[80];
    assert_ok(mest_checkpoint_create(&w, &test_heap, in_temp("c"), &err));
    assert_fails(mest_checkpoint_append(w, "x", 1, &err), MEST_E_STATE, "outside a section");
    assert_fails(mest_checkpoint_end(w, &err), MEST_E_STATE, "end without");
    assert_fails(mest_checkpoint_begin(w, "", &err), MEST_E_ARGUMENT, "1 to 63");
    memset(name, 'x', 64);
    name[64] = 0;
    assert_fails(mest_checkpoint_begin(w, name, &err), MEST_E_ARGUMENT, "1 to 63");
    name[63] = 0;
    assert_ok(mest_checkpoint_begin(w, name, &err));
    assert_fails(mest_checkpoint_begin(w, "b", &err), MEST_E_STATE, "begun inside");
    assert_ok(mest_checkpoint_end(w, &err));
    assert_fails(mest_checkpoint_begin(w, name, &err), MEST_E_STATE, "written twice");
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "s%d", i);
        assert_ok(mest_checkpoint_put(w, name, name, strlen(name), &err));
    }
    assert_ok(mest_checkpoint_begin(w, "open", &err));
    assert_fails(mest_checkpoint_commit(w, &err), MEST_E_STATE, "not ended");
    ck_assert_int_ne(access(in_temp("c"), F_OK), 0);
}
END_TEST

START_TEST(every_bit_counts)
{
    static uint8_t whole[4096], bad[4096];
    mest_checkpoint *f;
    mest_error_clear(&err);
    assert_ok(write_one(in_temp("c"), 7));
    size_t n = read_file(in_temp("c"), whole, sizeof whole);
    ck_assert_uint_gt(n, 300);
    for (size_t bit = 0; bit < n * 8; bit++) {
        memcpy(bad, whole, n);
        bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
        write_file("bad", bad, n);
        assert_fails(mest_checkpoint_open(&f, &test_heap, in_temp("bad"), &err), MEST_E_FORMAT, "bad");
        ck_assert_ptr_null(f);
    }
    for (size_t cut = 0; cut < n; cut++) {
        write_file("bad", whole, cut);
        assert_fails(mest_checkpoint_open(&f, &test_heap, in_temp("bad"), &err), MEST_E_FORMAT, "bad");
    }
    memcpy(bad, whole, n);
    bad[64] ^= 1; /* the first byte of section "numbers" */
    write_file("bad", bad, n);
    assert_fails(mest_checkpoint_open(&f, &test_heap, in_temp("bad"), &err), MEST_E_FORMAT, "section 'numbers'");
    memcpy(bad, whole, n);
    bad[8] = 9;
    write_file("bad", bad, n);
    assert_fails(mest_checkpoint_open(&f, &test_heap, in_temp("bad"), &err), MEST_E_FORMAT, "version 9");
    assert_fails(mest_checkpoint_open(&f, &test_heap, in_temp("none"), &err), MEST_E_IO, strerror(ENOENT));
    write_text("bad", "this is no checkpoint, but it is long enough to be looked at; one more half sentence follows here and ends");
    assert_fails(mest_checkpoint_open(&f, &test_heap, in_temp("bad"), &err), MEST_E_FORMAT, "not a checkpoint");
}
END_TEST

START_TEST(keeps_previous)
{
    mest_checkpoint *f;
    const char *path = in_temp("c"), *prev = in_temp("c.prev");
    mest_error_clear(&err);
    assert_ok(write_one(path, 1));
    ck_assert_int_ne(access(prev, F_OK), 0);
    assert_ok(write_one(path, 2));
    assert_ok(write_one(path, 3));
    assert_ok(mest_checkpoint_open(&f, &test_heap, prev, &err));
    ck_assert_uint_eq(mark_of(f), 2);
    mest_checkpoint_close(f);
    assert_ok(mest_checkpoint_open_latest(&f, &test_heap, path, &err));
    ck_assert_uint_eq(mark_of(f), 3);
    mest_checkpoint_close(f);
    ck_assert_str_eq(last_log, "");

    /* the new one is damaged: the one before it serves, and is not pushed out by the damaged one */
    ck_assert_int_eq(truncate(path, 200), 0);
    assert_ok(mest_checkpoint_open_latest(&f, &test_heap, path, &err));
    ck_assert_uint_eq(mark_of(f), 2);
    ck_assert_str_eq(mest_checkpoint_path(f), prev);
    ck_assert_ptr_nonnull(strstr(last_log, "using the checkpoint before it"));
    mest_checkpoint_close(f);
    assert_ok(write_one(path, 4));
    assert_ok(mest_checkpoint_open(&f, &test_heap, prev, &err));
    ck_assert_uint_eq(mark_of(f), 2);
    mest_checkpoint_close(f);

    /* killed between the two renames of a file system without links */
    unlink(path);
    assert_ok(mest_checkpoint_open_latest(&f, &test_heap, path, &err));
    ck_assert_uint_eq(mark_of(f), 2);
    mest_checkpoint_close(f);
    write_text("c", "x");
    ck_assert_int_eq(truncate(prev, 100), 0);
    assert_fails(mest_checkpoint_open_latest(&f, &test_heap, path, &err), MEST_E_FORMAT, "not a checkpoint");
    ck_assert_ptr_nonnull(strstr(err.msg, "c.prev"));
    unlink(prev);
    assert_fails(mest_checkpoint_open_latest(&f, &test_heap, path, &err), MEST_E_FORMAT, "not a checkpoint");
}
END_TEST

START_TEST(no_room_keeps_both)
{
    mest_checkpoint *f;
    const char *path = in_temp("c"), *prev = in_temp("c.prev");
    struct rlimit before, small = {.rlim_cur = 256};
    mest_error_clear(&err);
    assert_ok(write_one(path, 1));
    assert_ok(write_one(path, 2));
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    mest_status status = write_one(path, 3);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    ck_assert_int_eq(status, MEST_E_IO);
    ck_assert_ptr_nonnull(strstr(err.msg, strerror(EFBIG)));
    mest_error_clear(&err);
    assert_ok(mest_checkpoint_open(&f, &test_heap, path, &err));
    ck_assert_uint_eq(mark_of(f), 2);
    mest_checkpoint_close(f);
    assert_ok(mest_checkpoint_open(&f, &test_heap, prev, &err));
    ck_assert_uint_eq(mark_of(f), 1);
    mest_checkpoint_close(f);
    assert_fails(write_one(in_temp("none/c"), 1), MEST_E_IO, strerror(ENOENT));
}
END_TEST

/* Every allocation fails once: an error, nothing leaked (the fixture counts), the old file whole. */
static int until_failure;
static void *failing_allocate(void *user, size_t size, size_t align)
{
    (void)user;
    return until_failure-- == 0 ? NULL : aligned_alloc(align, (size + align - 1) / align * align);
}
static void failing_release(void *user, void *memory, size_t size)
{
    (void)user;
    (void)size;
    free(memory);
}

START_TEST(out_of_memory)
{
    mest_checkpoint *f;
    const char *path = in_temp("c");
    mest_error_clear(&err);
    assert_ok(write_one(path, 1));
    mest_allocator allocator = {.struct_size = sizeof allocator, .allocate = failing_allocate, .release = failing_release};
    mest_heap keep = test_heap;
    ck_assert_int_eq(mest_heap_init(&test_heap, &allocator, NULL, NULL), MEST_OK);
    mest_status status = MEST_E_NOMEM;
    for (int n = 0; status != MEST_OK; n++) {
        ck_assert_int_lt(n, 50);
        mest_error_clear(&err);
        until_failure = n;
        status = write_one(path, 2);
        if (status == MEST_OK)
            status = mest_checkpoint_open_latest(&f, &test_heap, path, &err);
        if (status == MEST_OK)
            mest_checkpoint_close(f);
        else
            ck_assert_int_eq(status, MEST_E_NOMEM);
        ck_assert_int_eq(test_heap.current_bytes, 0);
    }
    test_heap = keep;
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("checkpoint");
    TCase *c = temp_case(suite, "checkpoint");
    tcase_add_test(c, round_trip);
    tcase_add_test(c, writer_rules);
    tcase_add_test(c, every_bit_counts);
    tcase_add_test(c, keeps_previous);
    tcase_add_test(c, no_room_keeps_both);
    tcase_add_test(c, out_of_memory);
    return run_suite(suite);
}
