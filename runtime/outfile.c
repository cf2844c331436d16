/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 16, NAME_KEPT = 180 /* of the final name, so that the temporary one stays below NAME_MAX */ };

struct mest_outfile {
    mest_heap *heap;
    char *path, *temp, *folder; /* path: after following a symbolic link */
    size_t path_size, temp_size, folder_size;
    int fd;
    bool failed;        /* a write failed: commit must not publish the rest */
    mode_t keep_mode;   /* mode of the file that is replaced; 0 = new file */
    uint64_t size;
    size_t used;
    uint8_t *buffer;
};

static mest_status io_error(mest_error *err, const char *what, const char *path)
{
    int code = errno;
    return mest_fail(err, MEST_E_IO, "%s: %s: %s", path, what, strerror(code));
}

static mest_status copy_text(mest_heap *heap, char **out, size_t *size, const char *text, size_t n, mest_error *err)
{
    MEST_NEW(heap, *out, n + 1, err, "output file");
    memcpy(*out, text, n);
    (*out)[n] = 0;
    *size = n + 1;
    return MEST_OK;
}

/* What already stands at `path`: refuse what must not be replaced, follow a link, remember the mode. */
static mest_status look_at_target(mest_outfile *f, const char *path, mest_error *err)
{
    char real[PATH_MAX];
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && realpath(path, real))
        path = real; /* replace what the link points to, not the link */
    if (stat(path, &st) == 0) {
        MEST_CHECK(!S_ISDIR(st.st_mode), err, MEST_E_IO, "%s: cannot write: %s", path, strerror(EISDIR));
        MEST_CHECK(S_ISREG(st.st_mode), err, MEST_E_IO, "%s: cannot write: not a regular file", path);
        if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0)
            return io_error(err, "cannot write", path);
        f->keep_mode = st.st_mode & 07777;
    } else if (errno != ENOENT) {
        return io_error(err, "cannot write", path);
    }
    MEST_TRY(copy_text(f->heap, &f->path, &f->path_size, path, strlen(path), err));
    const char *slash = strrchr(f->path, '/');
    size_t folder = !slash ? 0 : slash == f->path ? 1 : (size_t)(slash - f->path);
    return copy_text(f->heap, &f->folder, &f->folder_size, folder ? f->path : ".", folder ? folder : 1, err);
}

static mest_status open_temporary(mest_outfile *f, mest_error *err)
{
    static _Atomic unsigned serial;
    const char *slash = strrchr(f->path, '/');
    const char *name = slash ? slash + 1 : f->path;
    MEST_CHECK(*name, err, MEST_E_IO, "%s: cannot write: no file name", f->path);
    size_t size = f->folder_size + NAME_KEPT + 64;
    MEST_NEW(f->heap, f->temp, size, err, "output file");
    f->temp_size = size;
    for (int attempt = 0; attempt < 100; attempt++) {
        /* .NAME.tmp-PID-n: hidden, in the same folder (rename must not cross file systems), unique in and among processes */
        snprintf(f->temp, size, "%s/.%.*s.tmp-%ld-%u", f->folder, NAME_KEPT, name, (long)getpid(), atomic_fetch_add(&serial, 1u));
        f->fd = open(f->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, f->keep_mode ? 0600 : 0666);
        if (f->fd >= 0)
            return MEST_OK;
        if (errno != EEXIST)
            break;
    }
    mest_status status = io_error(err, "cannot create a file beside it", f->path);
    return status;
}

static void release(mest_outfile *f)
{
    mest_heap *heap = f->heap;
    mest_free(heap, f->path, f->path_size, 1);
    mest_free(heap, f->temp, f->temp_size, 1);
    mest_free(heap, f->folder, f->folder_size, 1);
    mest_free(heap, f->buffer, BUFFER_BYTES, 1);
    mest_free(heap, f, 1, sizeof *f);
}

mest_status mest_outfile_open(mest_outfile **file, mest_heap *heap, const char *path, mest_error *err)
{
    mest_status status;
    mest_outfile *f;
    *file = NULL;
    MEST_CHECK(path && *path, err, MEST_E_ARGUMENT, "output file: no name given");
    f = mest_calloc(heap, 1, sizeof *f);
    MEST_CHECK(f, err, MEST_E_NOMEM, "output file '%s': no memory", path);
    f->heap = heap;
    f->fd = -1;
    f->buffer = mest_alloc(heap, BUFFER_BYTES, 1);
    if (!f->buffer) {
        status = mest_fail(err, MEST_E_NOMEM, "output file '%s': no memory", path);
        goto out;
    }
    MEST_TRY_OUT(look_at_target(f, path, err));
    MEST_TRY_OUT(open_temporary(f, err));
    if (f->keep_mode && fchmod(f->fd, f->keep_mode) != 0)
        status = io_error(err, "cannot set the mode of its replacement", f->path);
out:
    if (status == MEST_OK)
        *file = f;
    else
        mest_outfile_abort(f);
    return status;
}

static mest_status write_all(mest_outfile *f, const uint8_t *p, size_t n, mest_error *err)
{
    while (n > 0) {
        ssize_t done = write(f->fd, p, n < ((size_t)1 << 30) ? n : (size_t)1 << 30);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            f->failed = true;
            if (done == 0)
                errno = ENOSPC;
            return io_error(err, "write failed", f->path);
        }
        p += done;
        n -= (size_t)done;
    }
    return MEST_OK;
}

static mest_status flush(mest_outfile *f, mest_error *err)
{
    size_t n = f->used;
    f->used = 0;
    return write_all(f, f->buffer, n, err);
}

mest_status mest_outfile_write(mest_outfile *f, const void *bytes, size_t n, mest_error *err)
{
    MEST_CHECK(!f->failed, err, MEST_E_IO, "%s: an earlier write failed", f->path);
    f->size += n;
    if (n <= BUFFER_BYTES - f->used) {
        if (n)
            memcpy(f->buffer + f->used, bytes, n);
        f->used += n;
        return MEST_OK;
    }
    MEST_TRY(flush(f, err));
    if (n >= BUFFER_BYTES)
        return write_all(f, bytes, n, err);
    memcpy(f->buffer, bytes, n);
    f->used = n;
    return MEST_OK;
}

uint64_t mest_outfile_size(const mest_outfile *f) { return f->size; }

mest_status mest_outfile_sync(mest_outfile *f, mest_error *err)
{
    MEST_CHECK(!f->failed, err, MEST_E_IO, "%s: an earlier write failed", f->path);
    MEST_TRY(flush(f, err));
    if (fsync(f->fd) != 0) {
        f->failed = true; /* the kernel may have dropped the pages: a second fsync that succeeds would prove nothing */
        return io_error(err, "fsync failed", f->path);
    }
    return MEST_OK;
}

mest_status mest_sync_folder(const char *folder, mest_error *err)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == EACCES ? MEST_OK : io_error(err, "cannot open the folder", folder); /* writable, not readable: nothing to sync by */
    mest_status status = MEST_OK;
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) /* some file systems cannot sync folders */
        status = io_error(err, "fsync of the folder failed", folder);
    close(fd);
    return status;
}

mest_status mest_outfile_commit(mest_outfile *f, mest_error *err)
{
    mest_status status;
    MEST_TRY_OUT(mest_outfile_sync(f, err));
    int fd = f->fd;
    f->fd = -1;
    if (close(fd) != 0) {
        status = io_error(err, "close failed", f->path);
        goto out;
    }
    if (rename(f->temp, f->path) != 0) {
        status = io_error(err, "cannot move the finished file into place", f->path);
        goto out;
    }
    f->temp[0] = 0; /* published: nothing to remove */
    status = mest_sync_folder(f->folder, err);
out:
    mest_outfile_abort(f);
    return status;
}

void mest_outfile_abort(mest_outfile *f)
{
    if (!f)
        return;
    bool created = f->fd >= 0 || f->temp;
    if (f->fd >= 0)
        close(f->fd);
    if (created && f->temp && f->temp[0])
        unlink(f->temp);
    release(f);
}
