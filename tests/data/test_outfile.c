/* SPDX-License-Identifier: Apache-2.0 */
/* Output files appear whole or not at all; run folders are used by one process. */
#include "tests/data/data_util.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "runtime/outfile.h"
#include "runtime/runlock.h"

static mest_error err;

static int files_in_temp(void)
{
    int n = 0;
    DIR *d = opendir(temp_dir);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static mest_status write_whole(const char *path, const void *bytes, size_t n)
{
    mest_outfile *f;
    mest_error_clear(&err);
    MEST_TRY(mest_outfile_open(&f, &test_heap, path, &err));
    mest_status status = mest_outfile_write(f, bytes, n, &err);
    if (status == MEST_OK)
        return mest_outfile_commit(f, &err);
    mest_outfile_abort(f);
    return status;
}

START_TEST(new_file)
{
    char back[64];
    mode_t mask = umask(027);
    const char *path = in_temp("out.bin");
    mest_outfile *f;
    assert_ok(mest_outfile_open(&f, &test_heap, path, &err));
    assert_ok(mest_outfile_write(f, "one,", 4, &err));
    assert_ok(mest_outfile_write(f, "two", 3, &err));
    ck_assert_uint_eq(mest_outfile_size(f), 7);
    ck_assert_int_ne(access(path, F_OK), 0); /* not before commit */
    assert_ok(mest_outfile_commit(f, &err));
    umask(mask);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0640);
    ck_assert_uint_eq(read_file(path, back, sizeof back), 7);
    ck_assert_mem_eq(back, "one,two", 7);
    ck_assert_int_eq(files_in_temp(), 1);
}
END_TEST

START_TEST(large_file)
{
    enum { N = 300001 };
    static uint8_t big[N], back[N + 1];
    for (size_t i = 0; i < N; i++)
        big[i] = (uint8_t)(i * 7 + i / 251);
    mest_outfile *f;
    assert_ok(mest_outfile_open(&f, &test_heap, in_temp("big"), &err));
    size_t sizes[] = {1, 65535, 1, 65536, 65537, 30000, 0, 3};
    size_t at = 0;
    for (size_t i = 0; at < N; i++) {
        size_t n = sizes[i % 8] < N - at ? sizes[i % 8] : N - at;
        assert_ok(mest_outfile_write(f, big + at, n, &err));
        at += n;
    }
    assert_ok(mest_outfile_commit(f, &err));
    ck_assert_uint_eq(read_file(in_temp("big"), back, sizeof back), N);
    ck_assert_mem_eq(big, back, N);
}
END_TEST

START_TEST(replaces_and_keeps_mode)
{
    char back[16];
    struct stat st;
    const char *path = write_text("out", "old content");
    chmod(path, 0604);
    assert_ok(write_whole(path, "new", 3));
    ck_assert_uint_eq(read_file(path, back, sizeof back), 3);
    stat(path, &st);
    ck_assert_uint_eq(st.st_mode & 07777, 0604);
    /* through a link: the file is replaced, the link stays */
    ck_assert_int_eq(symlink("out", in_temp("link")), 0);
    assert_ok(write_whole(in_temp("link"), "newer", 5));
    ck_assert_uint_eq(read_file(path, back, sizeof back), 5);
    ck_assert_int_eq(lstat(in_temp("link"), &st), 0);
    ck_assert(S_ISLNK(st.st_mode));
    ck_assert_int_eq(files_in_temp(), 2);
}
END_TEST

START_TEST(abort_leaves_nothing)
{
    char back[16];
    const char *path = write_text("out", "old");
    mest_outfile *f;
    assert_ok(mest_outfile_open(&f, &test_heap, path, &err));
    assert_ok(mest_outfile_write(f, "new", 3, &err));
    mest_outfile_abort(f);
    mest_outfile_abort(NULL);
    ck_assert_uint_eq(read_file(path, back, sizeof back), 3);
    ck_assert_mem_eq(back, "old", 3);
    ck_assert_int_eq(files_in_temp(), 1);
}
END_TEST

START_TEST(bad_places)
{
    char deep[512];
    assert_fails(write_whole(in_temp("none/out"), "x", 1), MEST_E_IO, strerror(ENOENT));
    ck_assert_ptr_nonnull(strstr(err.msg, "none/out"));
    assert_fails(write_whole(temp_dir, "x", 1), MEST_E_IO, strerror(EISDIR));
    assert_fails(write_whole("/dev/null", "x", 1), MEST_E_IO, "not a regular file");
    write_text("file", "x");
    assert_fails(write_whole(in_temp("file/out"), "x", 1), MEST_E_IO, strerror(ENOTDIR));
    mest_outfile *f;
    assert_fails(mest_outfile_open(&f, &test_heap, "", &err), MEST_E_ARGUMENT, "no name");
    ck_assert_ptr_null(f);
    /* a name as long as the system allows is fine: the temporary name is made shorter */
    memset(deep, 'n', 255);
    deep[255] = 0;
    assert_ok(write_whole(in_temp(deep), "x", 1));
}
END_TEST

START_TEST(no_permission)
{
    char back[16];
    bool root = geteuid() == 0;
    const char *path = write_text("out", "old");
    chmod(path, 0444);
    chmod(temp_dir, 0755);
    if (root)
        ck_assert_int_eq(seteuid(65534), 0); /* root may do everything: look with other eyes */
    else
        chmod(temp_dir, 0555);
    mest_status existing = write_whole(path, "new", 3);
    mest_error first = err;
    mest_status fresh = write_whole(in_temp("fresh"), "new", 3);
    if (root)
        ck_assert_int_eq(seteuid(0), 0);
    chmod(temp_dir, 0755);
    ck_assert_int_eq(existing, MEST_E_IO);
    ck_assert_int_eq(fresh, MEST_E_IO);
    ck_assert_ptr_nonnull(strstr(first.msg, strerror(EACCES)));
    ck_assert_ptr_nonnull(strstr(err.msg, strerror(EACCES)));
    ck_assert_uint_eq(read_file(path, back, sizeof back), 3);
    ck_assert_mem_eq(back, "old", 3);
}
END_TEST

/* A file-size limit stands for a full disk: the write fails half-way, in write or in commit. */
START_TEST(no_room)
{
    static char big[200000];
    char back[16];
    struct rlimit before, small = {.rlim_cur = 100000};
    const char *path = write_text("out", "old");
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (int in_commit = 0; in_commit < 2; in_commit++) {
        mest_outfile *f;
        mest_error_clear(&err);
        assert_ok(mest_outfile_open(&f, &test_heap, path, &err));
        if (in_commit)
            small.rlim_cur = 10;
        setrlimit(RLIMIT_FSIZE, &small);
        mest_status written = mest_outfile_write(f, big, in_commit ? 5000 : sizeof big, &err);
        mest_error first = err;
        mest_status committed = mest_outfile_commit(f, in_commit ? &err : NULL); /* must not publish what was cut */
        setrlimit(RLIMIT_FSIZE, &before);
        ck_assert_int_eq(written, in_commit ? MEST_OK : MEST_E_IO);
        ck_assert_int_eq(committed, MEST_E_IO);
        ck_assert_ptr_nonnull(strstr(in_commit ? err.msg : first.msg, strerror(EFBIG)));
        ck_assert_ptr_nonnull(strstr(in_commit ? err.msg : first.msg, path));
        ck_assert_uint_eq(read_file(path, back, sizeof back), 3);
        ck_assert_int_eq(files_in_temp(), 1);
    }
    signal(SIGXFSZ, handler);
}
END_TEST

START_TEST(run_lock)
{
    mest_run_lock a = {0}, b = {0};
    assert_ok(mest_run_lock_acquire(&a, temp_dir, &err));
    assert_fails(mest_run_lock_acquire(&b, temp_dir, &err), MEST_E_STATE, "in use by another run (process ");
    mest_run_lock_release(&b); /* not held: nothing happens */
    pid_t child = fork();
    if (child == 0)
        _exit(mest_run_lock_acquire(&b, temp_dir, NULL) == MEST_E_STATE ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
    mest_run_lock_release(&a);
    mest_error_clear(&err);
    assert_ok(mest_run_lock_acquire(&b, temp_dir, &err));
    mest_run_lock_release(&b);
    /* a process that dies holding it leaves it free */
    child = fork();
    if (child == 0) {
        (void)!mest_run_lock_acquire(&a, temp_dir, NULL);
        raise(SIGKILL);
    }
    waitpid(child, &status, 0);
    ck_assert(WIFSIGNALED(status));
    assert_ok(mest_run_lock_acquire(&b, temp_dir, &err));
    mest_run_lock_release(&b);
    assert_fails(mest_run_lock_acquire(&b, in_temp("none"), &err), MEST_E_IO, strerror(ENOENT));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outfile");
    TCase *c = temp_case(suite, "outfile");
    tcase_add_test(c, new_file);
    tcase_add_test(c, large_file);
    tcase_add_test(c, replaces_and_keeps_mode);
    tcase_add_test(c, abort_leaves_nothing);
    tcase_add_test(c, bad_places);
    tcase_add_test(c, no_permission);
    tcase_add_test(c, no_room);
    tcase_add_test(c, run_lock);
    return run_suite(suite);
}
