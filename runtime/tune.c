/* SPDX-License-Identifier: Apache-2.0 */
/* The table of measured kernels, and what may be measured. */
#include "runtime/tune.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/program.h"

static const char *const mode_names[] = {"off", "fast", "full"};
/* Seconds for all that a session measures. */
static const double bounds[] = {0, 0.25, 10};

mest_status mest_tune_parse(const char *text, mest_tune_mode *mode, mest_error *err)
{
    *mode = MEST_TUNE_OFF;
    for (int i = 0; text && i < 3; i++)
        if (!strcmp(text, mode_names[i])) {
            *mode = (mest_tune_mode)i;
            return MEST_OK;
        }
    return text ? mest_fail(err, MEST_E_ARGUMENT, "config: tune '%s' is none of off, fast, full", text) : MEST_OK;
}

/* ---- the table ---- */
static size_t key_bytes(const char *key) { return strlen(key) + 1; }

/* Place of the first entry whose key is not below. */
static size_t place_of(const mest_tuner *t, const char *key)
{
    size_t low = 0, high = t->n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (strcmp(t->entries[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

mest_tune_entry *mest_tuner_find(const mest_tuner *t, const char *key)
{
    const size_t at = place_of(t, key);
    return at < t->n && !strcmp(t->entries[at].key, key) ? &t->entries[at] : NULL;
}

mest_status mest_tuner_put(mest_tuner *t, const char *key, double seconds, mest_error *err)
{
    const size_t at = place_of(t, key);
    if (at < t->n && !strcmp(t->entries[at].key, key)) {
        t->entries[at].seconds = seconds;
        return MEST_OK;
    }
    if (t->n == t->room) {
        const size_t room = t->room ? 2 * t->room : 64;
        mest_tune_entry *more = mest_alloc(t->heap, room, sizeof *more);
        MEST_CHECK(more, err, MEST_E_NOMEM, "table of measured kernels: out of memory");
        if (t->n)
            memcpy(more, t->entries, t->n * sizeof *more);
        if (t->entries)
            mest_free(t->heap, t->entries, t->room, sizeof *more);
        t->entries = more;
        t->room = room;
    }
    char *copy = mest_alloc(t->heap, key_bytes(key), 1);
    MEST_CHECK(copy, err, MEST_E_NOMEM, "table of measured kernels: out of memory");
    memcpy(copy, key, key_bytes(key));
    memmove(t->entries + at + 1, t->entries + at, (t->n - at) * sizeof *t->entries);
    t->entries[at] = (mest_tune_entry){.key = copy, .seconds = seconds};
    t->n++;
    return MEST_OK;
}

void mest_tuner_clear(mest_tuner *t)
{
    for (size_t i = 0; i < t->n; i++)
        mest_free(t->heap, t->entries[i].key, key_bytes(t->entries[i].key), 1);
    if (t->entries)
        mest_free(t->heap, t->entries, t->room, sizeof *t->entries);
    t->entries = NULL;
    t->n = t->room = 0;
}

bool mest_tune_line(const char *line, size_t n, char key[MEST_TUNE_KEY], double *seconds)
{
    char number[40];
    const char *tab = memchr(line, '\t', n);
    const size_t digits = tab ? (size_t)(tab - line) : n, rest = tab ? n - digits - 1 : 0;
    if (!tab || digits == 0 || digits >= sizeof number || rest == 0 || rest >= MEST_TUNE_KEY)
        return false;
    memcpy(number, line, digits);
    number[digits] = 0;
    char *end = NULL;
    *seconds = strtod(number, &end);
    if (*end || strspn(number, "0123456789.e+-") != digits || !isfinite(*seconds) || !(*seconds == -1 || (*seconds > 0 && *seconds < 1e4)))
        return false;
    for (size_t i = 0; i < rest; i++)
        if (tab[1 + i] < 0x20 || tab[1 + i] > 0x7e)
            return false;
    memcpy(key, tab + 1, rest);
    key[rest] = 0;
    return true;
}

/* ---- choosing ---- */
bool mest_tuner_seconds(mest_tuner *t, const mest_kernel_query *q, const mest_kernel *kernel, double modelled, double *seconds)
{
    char key[MEST_TUNE_KEY];
    if (!mest_tune_key(q, kernel, t->mode, key))
        return false;
    mest_tune_entry *have = mest_tuner_find(t, key);
    if (have) {
        t->cached += !have->used && !t->replay;
        have->used = true;
        *seconds = have->seconds;
        return have->seconds > 0;
    }
    if (t->replay)
        return false;
    double time = -1;
    const double from = mest_seconds();
    /* what the model expects must fit into what is left: it is seldom wrong by more than this */
    if (t->left > 0 && modelled < t->left && !mest_tune_time(q, kernel, t->mode, &time))
        time = -1;
    t->left -= mest_seconds() - from;
    mest_error err = {MEST_OK, ""};
    if (time < 0)
        t->given_up++;
    else
        t->measured++;
    t->changed = true;
    if (mest_tuner_put(t, key, time, &err) == MEST_OK)
        mest_tuner_find(t, key)->used = true;
    *seconds = time;
    return time > 0;
}

/* ---- life ---- */
static char *own_path(mest_tuner *t, const char *format, const char *a, const char *b)
{
    char text[4096];
    const int n = snprintf(text, sizeof text, format, a, b);
    if (n <= 0 || (size_t)n >= sizeof text)
        return NULL;
    t->path_bytes = (size_t)n + 1;
    char *path = mest_alloc(t->heap, t->path_bytes, 1);
    if (path)
        memcpy(path, text, t->path_bytes);
    return path;
}

mest_status mest_tuner_create(mest_tuner **tuner, mest_heap *heap, mest_tune_mode mode, const char *file, mest_error *err)
{
    *tuner = NULL;
    mest_tuner *t = mest_calloc(heap, 1, sizeof *t);
    MEST_CHECK(t, err, MEST_E_NOMEM, "table of measured kernels: out of memory");
    t->heap = heap;
    t->mode = mode;
    t->left = bounds[mode];
    char name[32];
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (file && *file)
        t->path = own_path(t, "%s%s", file, "");
    else if (!file && cache && cache[0] == '/') /* the specification: what is not absolute is to be ignored */
        t->path = own_path(t, "%s/mest/%s", cache, mest_tune_file_name(name));
    else if (!file && home && home[0] == '/')
        t->path = own_path(t, "%s/.cache/mest/%s", home, mest_tune_file_name(name));
    if (t->path && mode != MEST_TUNE_OFF)
        mest_tune_load(t);
    *tuner = t;
    return MEST_OK;
}

void mest_tuner_destroy(mest_tuner *t)
{
    if (!t)
        return;
    mest_tuner_clear(t);
    if (t->path)
        mest_free(t->heap, t->path, t->path_bytes, 1);
    mest_free(t->heap, t, 1, sizeof *t);
}
