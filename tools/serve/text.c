/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool make_room(text *t, size_t more)
{
    if (t->failed)
        return false;
    if (t->room - t->size > more)
        return true;
    size_t room = t->room ? t->room : 256;
    while (room - t->size <= more)
        room *= 2;
    char *data = realloc(t->data, room);
    if (!data) {
        text_free(t);
        t->failed = true;
        return false;
    }
    t->data = data;
    t->room = room;
    return true;
}

void text_add(text *t, const void *data, size_t size)
{
    if (!make_room(t, size))
        return;
    if (size)
        memcpy(t->data + t->size, data, size);
    t->size += size;
    t->data[t->size] = 0;
}

void text_printf(text *t, const char *format, ...)
{
    va_list args;
    for (size_t need = 120;;) {
        if (!make_room(t, need))
            return;
        va_start(args, format);
        int n = vsnprintf(t->data + t->size, t->room - t->size, format, args);
        va_end(args);
        if (n < 0)
            return;
        if ((size_t)n < t->room - t->size) {
            t->size += (size_t)n;
            return;
        }
        need = (size_t)n + 1;
    }
}

/* Length of the UTF-8 character at s, 0 if there is none (RFC 3629). */
static size_t utf8_length(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3 : s[0] >= 0xF0 && s[0] < 0xF5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    bool bad = n > 2 && ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F));
    return bad ? 0 : n;
}

void text_quote(text *t, const char *s)
{
    if (!s) {
        text_add(t, "null", 4);
        return;
    }
    text_add(t, "\"", 1);
    while (*s) {
        size_t n = utf8_length((const unsigned char *)s);
        if (*s == '"' || *s == '\\')
            text_printf(t, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            text_printf(t, "\\u%04x", (unsigned)(unsigned char)*s);
        else
            text_add(t, n ? s : "?", n ? n : 1);
        s += n ? n : 1;
    }
    text_add(t, "\"", 1);
}

void text_number(text *t, double value)
{
    if (isfinite(value))
        text_printf(t, "%.9g", value);
    else
        text_add(t, "null", 4);
}

void text_free(text *t)
{
    free(t->data);
    *t = (text){.failed = t->failed};
}
