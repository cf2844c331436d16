/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/mapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static mest_status open_file(mest_mapfile *map, const char *path, bool keep, mest_error *err)
{
    memset(map, 0, sizeof *map);
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a named pipe must not make us wait */
    if (fd < 0 || fstat(fd, &st) != 0) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return mest_fail(err, MEST_E_IO, "%s: cannot open: %s", path, strerror(code));
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return mest_fail(err, MEST_E_IO, "%s: cannot read: %s", path, S_ISDIR(st.st_mode) ? strerror(EISDIR) : "not a regular file");
    }
    if (st.st_size > 0) {
        void *p = (uintmax_t)st.st_size > SIZE_MAX ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        int code = errno;
        if (p == MAP_FAILED || !keep)
            close(fd);
        else
            map->kept = fd + 1;
        MEST_CHECK(p != MAP_FAILED, err, MEST_E_IO, "%s: cannot map: %s", path, strerror(code));
        map->bytes = p;
        map->size = (size_t)st.st_size;
        return MEST_OK;
    }
    close(fd);
    return MEST_OK;
}

mest_status mest_mapfile_open(mest_mapfile *map, const char *path, mest_error *err) { return open_file(map, path, false, err); }
mest_status mest_mapfile_open_kept(mest_mapfile *map, const char *path, mest_error *err) { return open_file(map, path, true, err); }

mest_status mest_mapfile_read(const mest_mapfile *map, size_t at, size_t n, void *to, const char *path, mest_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(map->kept - 1, (char *)to + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR)
            continue;
        MEST_CHECK(got >= 0, err, MEST_E_IO, "%s: cannot read: %s", path, strerror(errno));
        MEST_CHECK(got > 0, err, MEST_E_IO, "%s: the file ends at byte %zu now, it had %zu when it was opened", path, at + done, map->size);
        done += (size_t)got;
    }
    return MEST_OK;
}

void mest_mapfile_forget(const mest_mapfile *map)
{
    if (map->size > (size_t)1 << 20)
        madvise((void *)(uintptr_t)(const void *)map->bytes, map->size, MADV_DONTNEED);
}

void mest_mapfile_close(mest_mapfile *map)
{
    if (map->bytes)
        munmap((void *)map->bytes, map->size);
    if (map->kept)
        close(map->kept - 1);
    memset(map, 0, sizeof *map);
}
