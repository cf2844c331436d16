/* SPDX-License-Identifier: Apache-2.0 */
/* The file of measured kernels, text:
 *
 *   mest tune 1 VERSION PROCESSOR    what the times belong to
 *   SECONDS<TAB>KEY                  a line for each, ascending by key; -1: not measured for want of time
 *   crc HEX                          of all bytes before this line
 *
 * Another processor's or version's file, or a damaged one, counts as none and is replaced. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "runtime/mapfile.h"
#include "runtime/outfile.h"
#include "runtime/tune.h"

enum { MOST_BYTES = 4 << 20, HEAD = 256 };

/* The name that the system has for the processor. */
static void processor(char *text, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(text, size, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (colon && (!strncmp(line, "model name", 10) || !strncmp(line, "CPU part", 8))) {
            snprintf(text, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
            text[strcspn(text, "\n")] = 0;
            break;
        }
    }
    if (file)
        fclose(file);
    for (char *c = text; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
}

static void head_line(char head[HEAD])
{
    char name[160];
    processor(name, sizeof name);
    snprintf(head, HEAD, "mest tune 1 %d %s\n", MEST_VERSION, name);
}

const char *mest_tune_file_name(char name[32])
{
    char head[HEAD];
    head_line(head);
    snprintf(name, 32, "kernels-%08x.tune", (unsigned)crc32(crc32(0, NULL, 0), (const Bytef *)head, (uInt)strlen(head)));
    return name;
}

static bool take_lines(mest_tuner *t, const char *text, size_t n)
{
    mest_error err = {MEST_OK, ""};
    while (n) {
        const char *end = memchr(text, '\n', n);
        char key[MEST_TUNE_KEY];
        double seconds;
        if (!end || !mest_tune_line(text, (size_t)(end - text), key, &seconds) || mest_tuner_put(t, key, seconds, &err) != MEST_OK)
            return false;
        n -= (size_t)(end - text) + 1;
        text = end + 1;
    }
    return true;
}

/* NULL, or what is wrong with it. */
static const char *take(mest_tuner *t, const mest_mapfile *map)
{
    enum { TAIL = 13 }; /* "crc 12345678\n" */
    char head[HEAD], tail[TAIL + 1];
    head_line(head);
    const char *text = (const char *)map->bytes;
    const size_t first = strlen(head);
    if (map->size > MOST_BYTES || map->size < TAIL || memchr(text, 0, map->size))
        return "is no table of times";
    snprintf(tail, sizeof tail, "crc %08x\n", (unsigned)crc32(crc32(0, NULL, 0), map->bytes, (uInt)(map->size - TAIL)));
    if (memcmp(text + map->size - TAIL, tail, TAIL))
        return "is damaged";
    if (map->size < first + TAIL || memcmp(text, head, first))
        return "is of another processor or version";
    return take_lines(t, text + first, map->size - TAIL - first) ? NULL : "is damaged";
}

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

void mest_tune_load(mest_tuner *t)
{
    mest_mapfile map;
    mest_error err = {MEST_OK, ""};
    if (!is_file(t->path) || mest_mapfile_open(&map, t->path, &err) != MEST_OK)
        return; /* the first run of this user */
    const char *wrong = map.size ? take(t, &map) : "is empty";
    mest_mapfile_close(&map);
    if (!wrong)
        return;
    mest_tuner_clear(t);
    mest_logf(t->heap, MEST_LOG_INFO, "'%s' %s: kernels are measured anew", t->path, wrong);
}

/* The folders of the file, as far as they are missing. */
static void make_folders(const char *path)
{
    char text[4096];
    if ((size_t)snprintf(text, sizeof text, "%s", path) >= sizeof text)
        return;
    for (char *slash = text + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
        *slash = 0;
        mkdir(text, 0700);
    }
}

static mest_status write_lines(const mest_tuner *t, mest_outfile *out, mest_error *err)
{
    char line[MEST_TUNE_KEY + 64];
    head_line(line);
    uLong crc = crc32(0, NULL, 0);
    for (size_t i = 0; i <= t->n; i++) {
        const size_t n = strlen(line);
        crc = crc32(crc, (const Bytef *)line, (uInt)n);
        MEST_TRY(mest_outfile_write(out, line, n, err));
        if (i < t->n)
            snprintf(line, sizeof line, "%.9g\t%s\n", t->entries[i].seconds, t->entries[i].key);
    }
    snprintf(line, sizeof line, "crc %08x\n", (unsigned)crc);
    return mest_outfile_write(out, line, strlen(line), err);
}

void mest_tuner_save(mest_tuner *t)
{
    if (!t->changed || !t->path || t->replay || t->mode == MEST_TUNE_OFF)
        return;
    mest_outfile *out = NULL;
    mest_error err = {MEST_OK, ""};
    make_folders(t->path);
    mest_status status = mest_outfile_open(&out, t->heap, t->path, &err);
    if (status == MEST_OK)
        status = write_lines(t, out, &err);
    if (status == MEST_OK)
        status = mest_outfile_commit(out, &err);
    else
        mest_outfile_abort(out);
    t->changed = false; /* tried once */
    if (status != MEST_OK)
        mest_logf(t->heap, MEST_LOG_WARNING, "times of kernels are not kept: %s", err.msg);
}
