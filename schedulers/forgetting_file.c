/* SPDX-License-Identifier: Apache-2.0 */
#include "schedulers/forgetting_file.h"

#include <errno.h>
#include <fcntl.h>
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

/* Appears whole or not at all: written beside its place, synced, renamed. */
mest_status mest_forgetting_export(const char *path, const uint16_t *state, int64_t n, const mest_host_api *api, mest_host *host,
                                   mest_error *err)
{
    char part[MEST_FORGET_PATH + 8], text[4096];
    size_t used = 0;
    snprintf(part, sizeof part, "%s.part", path);
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return file_error("cannot write", part, err);
    used += (size_t)snprintf(text, sizeof text, "id,forgets,learned\n");
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

/* One line "id,forgets" or "id,forgets,learned". */
static bool take_line(uint16_t *state, int64_t n, const char *line, size_t size)
{
    long long number[3] = { 0, 0, 1 };
    int fields = 0;
    for (size_t i = 0; i < size; fields++) {
        size_t digits = 0;
        if (fields == 3)
            return false;
        number[fields] = 0;
        for (; i < size && line[i] >= '0' && line[i] <= '9' && digits < 18; i++, digits++)
            number[fields] = number[fields] * 10 + (line[i] - '0');
        if (digits == 0 || (i < size && line[i] != ',') || (i == size - 1))
            return false;
        i += i < size;
    }
    if (fields < 2 || number[0] >= n || number[2] > 1)
        return false;
    state[number[0]] = (uint16_t)((number[1] < MEST_FORGET_MOST ? number[1] : MEST_FORGET_MOST) * MEST_FORGET_EVENT | (number[2] ? MEST_FORGET_LEARNED : 0));
    return true;
}

/* Samples the file does not name stay as never learned. */
mest_status mest_forgetting_import(const char *path, uint16_t *state, int64_t n, mest_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_error("cannot read", path, err);
    char text[4096], line[64];
    size_t length = 0;
    long long number = 1;
    mest_status status = MEST_OK;
    for (bool end = false; !end && status == MEST_OK;) {
        ssize_t k = read(fd, text, sizeof text);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            status = file_error("cannot read", path, err);
        end = k == 0;
        for (ssize_t i = 0; i < k + end && status == MEST_OK; i++) {
            char c = end ? '\n' : text[i];
            if (c == '\r')
                continue;
            if (c != '\n' && length < sizeof line) {
                line[length++] = c;
                continue;
            }
            bool header = number == 1 && length >= 2 && memcmp(line, "id", 2) == 0;
            if (length == sizeof line || (length > 0 && !header && !take_line(state, n, line, length)))
                status = mest_plugin_fail(err, MEST_E_DATA, "scheduler forgetting: %s, line %lld is not id,forgets,learned with id below %lld",
                                          path, number, (long long)n);
            length = 0;
            number++;
        }
    }
    close(fd);
    return status;
}
