/* SPDX-License-Identifier: Apache-2.0 */
/* Mapping of the model file and of external data, or reading them. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "importers/onnx.h"

enum { MAX_FILES = 4096 };
static const char in_memory[] = "(memory)"; /* instead of a path */

static void append(mest_model *m, mest_mapping *map)
{
    mest_mapping **last = &m->mappings;
    while (*last)
        last = &(*last)->next;
    *last = map;
}

static mest_status read_file(mest_region *region, int fd, size_t size, const char *path, const char *what, void **bytes, mest_error *err)
{
    char *own = mest_region_alloc(region, size, 1);
    MEST_CHECK(own, err, MEST_E_NOMEM, "%s '%s': no memory for %zu bytes", what, path, size);
    for (size_t done = 0; done < size;) {
        ssize_t got = read(fd, own + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        MEST_CHECK(got >= 0, err, MEST_E_IO, "%s '%s': cannot be read: %s", what, path, strerror(errno));
        MEST_CHECK(got > 0, err, MEST_E_IO, "%s '%s': it ends at byte %zu now, it had %zu when it was opened", what, path, done, size);
        done += (size_t)got;
    }
    *bytes = own;
    return MEST_OK;
}

static mest_status map_file(mest_model *m, const char *path, const char *key, const char *what, int flags, const mest_mapping **mapping,
                            mest_error *err)
{
    struct stat st;
    /* O_NONBLOCK: opening a pipe or device must not wait; it is refused right after */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
    MEST_CHECK(fd >= 0, err, MEST_E_IO, "%s '%s': %s", what, path, strerror(errno));
    mest_status status = MEST_OK;
    void *bytes = NULL;
    mest_mapping *map = mest_region_alloc(&m->region, 1, sizeof *map);
    char *name = mest_region_strdup(&m->region, key);
    if (!map || !name)
        status = mest_fail(err, MEST_E_NOMEM, "%s '%s': out of memory", what, path);
    else if (fstat(fd, &st) != 0)
        status = mest_fail(err, MEST_E_IO, "%s '%s': %s", what, path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        status = mest_fail(err, MEST_E_IO, "%s '%s': not a regular file", what, path);
    else if (st.st_size > 0 && m->read_files)
        status = read_file(&m->region, fd, (size_t)st.st_size, path, what, &bytes, err);
    else if (st.st_size > 0) {
        bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            status = mest_fail(err, MEST_E_IO, "%s '%s': cannot be mapped: %s", what, path, strerror(errno));
    }
    close(fd);
    if (status != MEST_OK)
        return status;
    map->bytes = bytes;
    map->size = (size_t)st.st_size;
    map->path = name;
    map->borrowed = m->read_files;
    append(m, map);
    *mapping = map;
    return MEST_OK;
}

mest_status mest_onnx_map(mest_model *m, const char *path, mest_error *err)
{
    const mest_mapping *mapping = NULL;
    MEST_TRY(map_file(m, path, path, "onnx", 0, &mapping, err));
    MEST_CHECK(mapping->size > 0, err, MEST_E_FORMAT, "onnx '%s': byte 0: the file is empty", path);
    return MEST_OK;
}

mest_status mest_onnx_lend(mest_model *m, const void *bytes, size_t size, bool copy, mest_error *err)
{
    mest_mapping *map = mest_region_alloc(&m->region, 1, sizeof *map);
    void *own = copy && map ? mest_region_alloc(&m->region, size, 1) : NULL;
    MEST_CHECK(map && (own || !copy), err, MEST_E_NOMEM, "onnx '%s': no memory for %zu bytes", in_memory, size);
    if (copy)
        memcpy(own, bytes, size);
    *map = (mest_mapping){ .bytes = copy ? own : bytes, .size = size, .path = in_memory, .borrowed = true };
    append(m, map);
    return MEST_OK;
}

/* Relative, and no part is "..": what is left can only leave the folder by a link, which is looked at afterwards. */
static bool stays_inside(const char *location)
{
    if (*location == '/' || !*location)
        return false;
    for (const char *p = location; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.')
            return false;
        p += n + (p[n] == '/');
    }
    return true;
}

/* Own functions, so that the path buffers are on the stack for as short as possible. */
static mest_status resolve(mest_region *region, const char *model_path, const char *location, const char *tensor, char **path, mest_error *err)
{
    char folder[PATH_MAX], file[PATH_MAX];
    const char *slash = strrchr(model_path, '/');
    size_t n = slash ? (size_t)(slash - model_path) + 1 : 0;
    char *joined = mest_region_alloc(region, n + strlen(location) + 4, 1);
    MEST_CHECK(joined, err, MEST_E_NOMEM, "tensor '%s': out of memory", tensor);
    memcpy(joined, model_path, n);
    if (n == 0)
        memcpy(joined, "./", n = 2);
    joined[n] = 0;
    MEST_CHECK(realpath(joined, folder), err, MEST_E_IO, "tensor '%s': folder of external data '%s': %s", tensor, joined, strerror(errno));
    strcpy(joined + n, location);
    MEST_CHECK(realpath(joined, file), err, MEST_E_IO, "tensor '%s': external data '%s': %s", tensor, location, strerror(errno));
    size_t length = strlen(folder);
    MEST_CHECK(length == 1 || (!strncmp(file, folder, length) && file[length] == '/'), err, MEST_E_FORMAT,
               "tensor '%s': external data '%s' is a link that leaves the model's folder", tensor, location);
    *path = mest_region_strdup(region, file);
    MEST_CHECK(*path, err, MEST_E_NOMEM, "tensor '%s': out of memory", tensor);
    return MEST_OK;
}

mest_status mest_onnx_map_external(mest_model *m, const char *model_path, const char *location, const char *tensor, const mest_mapping **mapping,
                                   mest_error *err)
{
    int n = 0;
    MEST_CHECK(m->mappings->path != in_memory, err, MEST_E_UNSUPPORTED, "tensor '%s': its data lie in the file '%s', and a model in memory has no folder", tensor, location);
    for (const mest_mapping *map = m->mappings->next; map; map = map->next, n++)
        if (!strcmp(map->path, location)) {
            *mapping = map;
            return MEST_OK;
        }
    MEST_CHECK(n < MAX_FILES, err, MEST_E_LIMIT, "tensor '%s': more than %d files of external data", tensor, MAX_FILES);
    MEST_CHECK(stays_inside(location), err, MEST_E_FORMAT, "tensor '%s': external data '%s' is not a relative path inside the model's folder",
               tensor, location);
    char *path;
    MEST_TRY(resolve(&m->region, model_path, location, tensor, &path, err));
    mest_error why = { 0 };
    mest_status status = map_file(m, path, location, "external data", O_NOFOLLOW, mapping, &why);
    if (status != MEST_OK)
        return mest_fail(err, status, "tensor '%s': %s", tensor, why.msg);
    m->external_bytes += (int64_t)(*mapping)->size;
    return MEST_OK;
}
