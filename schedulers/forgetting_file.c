/* SPDX-License-Identifier: Apache-2.0 */
#include "schedulers/forgetting_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mest/plugin_options.h"

static mest_status file_error(const char *what, const char *path, mest_error *err)
{
    return mest_plugin_fail(err, MEST_E_IO, "scheduler forgetting: %s %s: %s", what, path, strerror(errno));
}

static bool put(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t k = write(fd, text, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return false;
        text += k;
        n -= (size_t)k;
    }
    return true;
}

static const char header[] = "id,forgets,learned";

mest_status mest_forgetting_may_export(const char *path, const char *import, mest_error *err)
{
    struct stat st, other;
    char head[sizeof header - 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? MEST_OK : file_error("cannot look at", path, err);
    mest_status status = MEST_OK;
    if (fstat(fd, &st) != 0)
        status = file_error("cannot look at", path, err);
    else if (!S_ISREG(st.st_mode))
        status = mest_plugin_fail(err, MEST_E_IO, "scheduler forgetting: cannot write %s: not a regular file", path);
    else if (st.st_size > 0 && (read(fd, head, sizeof head) != (ssize_t)sizeof head || memcmp(head, header, sizeof head) != 0) &&
             !(import[0] && stat(import, &other) == 0 && st.st_dev == other.st_dev && st.st_ino == other.st_ino))
        status = mest_plugin_fail(err, MEST_E_IO, "scheduler forgetting: export=%s: the file is there and does not begin with '%s': it is not replaced", path,
                                  header);
    close(fd);
    return status;
}

/* Appears whole or not at all: written beside its place, synced, renamed. */
mest_status mest_forgetting_export(const char *path, const uint16_t *state, int64_t n, const mest_host_api *api, mest_host *host,
                                   mest_error *err)
{
    char part[MEST_FORGET_PATH + 32], text[4096];
    size_t used = 0;
    snprintf(part, sizeof part, "%s.tmp-%ld", path, (long)getpid());
    unlink(part); /* of a process that was killed and had our number */
    int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return file_error("cannot write", part, err);
    used += (size_t)snprintf(text, sizeof text, "%s\n", header);
    bool good = true;
    for (int64_t id = 0; id < n && good; id++) {
        if (!api->sample_active(host, id))
            continue;
        used += (size_t)snprintf(text + used, sizeof text - used, "%lld,%d,%d\n", (long long)id, state[id] / MEST_FORGET_EVENT, (state[id] & MEST_FORGET_LEARNED) != 0);
        if (used > sizeof text - 64) {
            good = put(fd, text, used);
            used = 0;
        }
    }
    good = good && put(fd, text, used) && fsync(fd) == 0;
    mest_status status = good ? MEST_OK : file_error("cannot write", part, err);
    if (close(fd) != 0 && status == MEST_OK)
        status = file_error("cannot write", part, err);
    if (status == MEST_OK && rename(part, path) != 0)
        status = file_error("cannot rename to", path, err);
    if (status != MEST_OK)
        unlink(part);
    return status;
}

/* One line "id,forgets" or "id,forgets,learned", as many columns as the lines before; what is wrong with it, NULL: nothing. Without state its form only. */
static const char *take_line(uint16_t *state, int64_t n, int *columns, const char *line, size_t size)
{
    static const char form[] = "not numbers id,forgets or id,forgets,learned";
    long long number[3] = { 0, 0, 1 };
    int fields = 0;
    for (size_t i = 0; i < size; fields++) {
        size_t digits = 0;
        if (fields == 3)
            return form;
        number[fields] = 0;
        for (; i < size && line[i] >= '0' && line[i] <= '9' && digits < 18; i++, digits++)
            number[fields] = number[fields] * 10 + (line[i] - '0');
        if (digits == 0 || (i < size && line[i] != ',') || (i == size - 1))
            return form;
        i += i < size;
    }
    if (fields < 2 || number[2] > 1)
        return form;
    if (*columns && fields != *columns)
        return "not as many columns as in the lines before";
    *columns = fields;
    if (!state)
        return NULL;
    if (number[0] >= n)
        return "there is no such sample";
    if (state[number[0]] & MEST_FORGET_PREVIOUS)
        return "the sample is there twice";
    state[number[0]] = (uint16_t)((number[1] < MEST_FORGET_MOST ? number[1] : MEST_FORGET_MOST) * MEST_FORGET_EVENT |
                                  (number[2] ? MEST_FORGET_LEARNED : 0) | MEST_FORGET_PREVIOUS);
    return NULL;
}

/* The first line may be a header: it begins with "id". Returns its columns, 0: it is none. */
static int header_columns(const char *line, size_t size)
{
    int n = 1;
    if (size < 2 || memcmp(line, "id", 2) != 0)
        return 0;
    for (size_t i = 0; i < size; i++)
        n += line[i] == ',';
    return n;
}

static mest_status take_file(int fd, const char *path, uint16_t *state, int64_t n, mest_error *err)
{
    char text[4096], line[64];
    size_t length = 0;
    long long number = 1, taken = 0;
    int columns = 0;
    for (bool end = false; !end;) {
        ssize_t k = read(fd, text, sizeof text);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return file_error("cannot read", path, err);
        end = k == 0;
        for (ssize_t i = 0; i < k + end; i++) {
            char c = end ? '\n' : text[i];
            if (c == '\r')
                continue;
            if (c != '\n' && length < sizeof line) {
                line[length++] = c;
                continue;
            }
            const int named = number == 1 && length < sizeof line ? header_columns(line, length) : 0;
            const char *wrong = NULL;
            if (named) {
                columns = named;
            } else if (length > 0) {
                wrong = take_line(state, n, &columns, line, length < sizeof line ? length : 0);
                taken++;
            }
            if (wrong && !state)
                return mest_plugin_fail(err, MEST_E_DATA, "scheduler forgetting: %s, line %lld: %s", path, number, wrong);
            if (wrong)
                return mest_plugin_fail(err, MEST_E_DATA, "scheduler forgetting: %s, line %lld: %s (samples are 0 to %lld)", path, number, wrong,
                                        (long long)n - 1);
            length = 0;
            number++;
        }
    }
    return taken ? MEST_OK : mest_plugin_fail(err, MEST_E_DATA, "scheduler forgetting: %s, line %lld: it ends before any sample", path, number - 1);
}

static mest_status read_counts(const char *path, uint16_t *state, int64_t n, mest_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a named pipe must not make the run wait */
    if (fd < 0)
        return file_error("cannot read", path, err);
    mest_status status = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? take_file(fd, path, state, n, err) :
                         mest_plugin_fail(err, MEST_E_IO, "scheduler forgetting: cannot read %s: not a regular file", path);
    close(fd);
    return status;
}

mest_status mest_forgetting_look(const char *path, mest_error *err) { return read_counts(path, NULL, 0, err); }

mest_status mest_forgetting_import(const char *path, uint16_t *state, int64_t n, mest_error *err)
{
    memset(state, 0, (size_t)n * sizeof *state);
    mest_status status = read_counts(path, state, n, err);
    for (int64_t id = 0; id < n; id++)
        state[id] = (uint16_t)(state[id] & ~MEST_FORGET_PREVIOUS); /* while reading: the sample was named */
    return status;
}
