/* SPDX-License-Identifier: Apache-2.0 */
#include "importers/csv_line.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "runtime/mapfile.h"

enum { FIRST_CAP = 1 << 16 };
static const size_t max_line_bytes = (size_t)64 << 20;

mest_status mest_csv_open(mest_csv_reader *r, mest_heap *heap, const char *path, mest_error *err)
{
    mest_mapfile probe; /* the uniform messages for files that are missing, folders and the like */
    memset(r, 0, sizeof *r);
    MEST_TRY(mest_mapfile_open(&probe, path, err));
    mest_mapfile_close(&probe);
    r->heap = heap;
    r->path = path;
    MEST_NEW(heap, r->buffer, FIRST_CAP, err, path);
    r->cap = FIRST_CAP;
    r->gz = gzopen(path, "rbe"); /* reads plain files as they are */
    MEST_CHECK(r->gz, err, MEST_E_IO, "%s: cannot open: %s", path, strerror(errno));
    return MEST_OK;
}

void mest_csv_close(mest_csv_reader *r)
{
    if (r->gz)
        gzclose_r(r->gz);
    if (r->heap)
        mest_free(r->heap, r->buffer, r->cap, 1);
    memset(r, 0, sizeof *r);
}

/* Moves the rest to the front and reads more behind it; one byte stays free for the terminator. */
static mest_status fill(mest_csv_reader *r, mest_error *err)
{
    size_t rest = r->filled - r->at;
    memmove(r->buffer, r->buffer + r->at, rest);
    r->at = 0;
    r->filled = rest;
    if (rest + 1 >= r->cap) {
        MEST_CHECK(r->cap < max_line_bytes, err, MEST_E_DATA, "%s: line %" PRId64 " is longer than %zu bytes", r->path, r->line + 1,
                   max_line_bytes);
        char *more;
        MEST_NEW(r->heap, more, r->cap * 2, err, r->path);
        memcpy(more, r->buffer, rest);
        mest_free(r->heap, r->buffer, r->cap, 1);
        r->buffer = more;
        r->cap *= 2;
    }
    int got = gzread(r->gz, r->buffer + rest, (unsigned)(r->cap - 1 - rest));
    int code;
    const char *text = gzerror(r->gz, &code);
    if (got < 0 || (got == 0 && code != Z_OK))
        return mest_fail(err, code == Z_ERRNO ? MEST_E_IO : MEST_E_DATA, "%s: after line %" PRId64 ": %s", r->path, r->line,
                         code == Z_ERRNO ? strerror(errno) : code == Z_BUF_ERROR ? "the gzip data is cut short" : text);
    r->ended = got == 0;
    r->filled += (size_t)got;
    return MEST_OK;
}

static bool is_blank(const char *line)
{
    return line[strspn(line, " \t")] == 0;
}

mest_status mest_csv_next(mest_csv_reader *r, char **line, mest_error *err)
{
    *line = NULL;
    for (;;) {
        size_t searched = 0;
        char *end = NULL;
        while (!(end = memchr(r->buffer + r->at + searched, '\n', r->filled - r->at - searched)) && !r->ended) {
            searched = r->filled - r->at;
            MEST_TRY(fill(r, err));
        }
        if (!end && r->at == r->filled)
            return MEST_OK;
        char *start = r->buffer + r->at;
        size_t n = end ? (size_t)(end - start) : r->filled - r->at;
        r->at += n + (end ? 1 : 0);
        r->line++;
        MEST_CHECK(!memchr(start, 0, n), err, MEST_E_DATA, "%s: line %" PRId64 ": a zero byte; this is not a text file", r->path, r->line);
        start[n] = 0;
        if (n > 0 && start[n - 1] == '\r')
            start[n - 1] = 0;
        if (r->line == 1 && strncmp(start, "\xef\xbb\xbf", 3) == 0)
            start += 3; /* byte order mark of UTF-8 */
        if (!is_blank(start)) {
            *line = start;
            return MEST_OK;
        }
    }
}

int64_t mest_csv_fields(const char *line)
{
    int64_t n = 1;
    for (; (line = strchr(line, ',')) != NULL; line++)
        n++;
    return n;
}

/* strtod of the C locale, whatever the program has set: a decimal point is a point. */
static double parse_any(const char *text, char **end)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    double v = c ? strtod_l(text, end, c) : strtod(text, end);
    if (c)
        freelocale(c);
    return v;
}

/* Up to 15 digits and powers of ten up to 22 are exact in double, so one division or product is rounded correctly; the rest is strtod's. */
static double parse(const char *text, char **end)
{
    static const double ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *p = text;
    bool negative = *p == '-';
    int64_t digits = 0;
    int n = 0, fraction = 0;
    if (*p == '-' || *p == '+')
        p++;
    for (; *p >= '0' && *p <= '9' && n < 16; p++, n++)
        digits = digits * 10 + (*p - '0');
    if (*p == '.')
        for (p++; *p >= '0' && *p <= '9' && n < 16; p++, n++, fraction++)
            digits = digits * 10 + (*p - '0');
    if (n == 0 || n > 15 || (*p && *p != ',' && *p != ' ' && *p != '\t' && *p != '"'))
        return parse_any(text, end);
    *end = (char *)p;
    double v = (double)digits / ten[fraction];
    return negative ? -v : v;
}

bool mest_csv_number(char **text, double *value)
{
    char *p = *text + strspn(*text, " \t"), *end;
    bool quoted = *p == '"';
    p += quoted;
    const char *digits = p + (*p == '-' || *p == '+');
    if (!*p || *p == ',' || (digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X'))) /* empty; "0x1p3" is no number here */
        return false;
    *value = parse(p, &end);
    if (end == p || (quoted && *end != '"'))
        return false;
    end += quoted;
    end += strspn(end, " \t");
    if (*end && *end != ',')
        return false;
    *text = *end ? end + 1 : NULL;
    return true;
}
