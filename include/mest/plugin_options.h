/* SPDX-License-Identifier: Apache-2.0 */
/* mest/plugin_options.h - reading a scheduler's options, "key=value,key=value", with uniform messages.
 *
 * Static functions only, so that a plugin that links nothing can use them; built-in schedulers do too:
 *
 *     mest_option o = mest_options("mine", options);
 *     while (mest_option_next(&o, err)) {
 *         if (mest_option_is(&o, "freq"))        mest_option_int(&o, 1, 1000, &freq, err);
 *         else if (mest_option_is(&o, "rate"))   mest_option_list(&o, 0, 1, rate, 8, &n_rate, err);
 *         else                                   mest_option_unknown(&o, "freq, rate", err);
 *     }
 *     if (o.status != MEST_OK) return o.status;
 *
 * A function that finds a fault sets err and o.status; the walk then ends. Elements of a list are separated by '/'. Numbers are read
 * the same in every locale.
 */
#ifndef MEST_PLUGIN_OPTIONS_H
#define MEST_PLUGIN_OPTIONS_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "mest/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mest_option {
    const char *scheduler; /* for messages */
    const char *rest;      /* not read yet */
    const char *all;       /* from the beginning */
    const char *key, *value;
    size_t key_size, value_size; /* neither is terminated */
    mest_status status;
} mest_option;

/* Sets err, unless it is set already, and returns code: what mest_fail is inside the library. */
MEST_PRINTF(3, 4) static inline mest_status mest_plugin_fail(mest_error *err, mest_status code, const char *format, ...)
{
    if (err && err->code == MEST_OK) {
        va_list ap;
        err->code = code;
        va_start(ap, format);
        vsnprintf(err->msg, sizeof err->msg, format, ap);
        va_end(ap);
    }
    return code;
}

static inline mest_option mest_options(const char *scheduler, const char *options)
{
    mest_option o;
    memset(&o, 0, sizeof o);
    o.scheduler = scheduler;
    o.rest = o.all = options ? options : "";
    return o;
}

/* Did the key stand before this one? Of two values one would be lost without a word. */
static inline bool mest_option_again(const mest_option *o)
{
    for (const char *at = o->all; at < o->key; at += strcspn(at, ",") + 1)
        if (strncmp(at, o->key, o->key_size + 1) == 0) /* with its '=' */
            return true;
    return false;
}

/* The next "key=value"; false at the end or after a fault. Empty items (",,") are skipped; a key may stand once. */
static inline bool mest_option_next(mest_option *o, mest_error *err)
{
    if (o->status != MEST_OK)
        return false;
    while (*o->rest == ',')
        o->rest++;
    if (!*o->rest)
        return false;
    size_t size = strcspn(o->rest, ",");
    const char *equals = (const char *)memchr(o->rest, '=', size);
    if (!equals || equals == o->rest || equals == o->rest + size - 1) {
        o->status = mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler %s: option '%.*s' is not of the form key=value", o->scheduler,
                                     (int)(size < 100 ? size : 100), o->rest);
        return false;
    }
    o->key = o->rest;
    o->key_size = (size_t)(equals - o->rest);
    o->value = equals + 1;
    o->value_size = size - o->key_size - 1;
    o->rest += size;
    if (mest_option_again(o))
        o->status = mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler %s: option '%.*s' is given twice", o->scheduler,
                                     (int)(o->key_size < 60 ? o->key_size : 60), o->key);
    return o->status == MEST_OK;
}

static inline bool mest_option_is(const mest_option *o, const char *key)
{
    return strlen(key) == o->key_size && memcmp(o->key, key, o->key_size) == 0;
}

/* "scheduler mest: freq=x is not <what>" */
static inline void mest_option_fail(mest_option *o, const char *what, mest_error *err)
{
    o->status = mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler %s: %.*s=%.*s is not %s", o->scheduler, (int)(o->key_size < 60 ? o->key_size : 60),
                                 o->key, (int)(o->value_size < 100 ? o->value_size : 100), o->value, what);
}

static inline void mest_option_unknown(mest_option *o, const char *known, mest_error *err)
{
    o->status = mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler %s: there is no option '%.*s'; there are: %s", o->scheduler,
                                 (int)(o->key_size < 60 ? o->key_size : 60), o->key, known);
}

/* A decimal number ("12", ".9", "1e-3") that is the whole of text[0..size-1]. Exact for up to 15 digits and small exponents. */
static inline bool mest_option_number(const char *text, size_t size, double *out)
{
    static const double ten[] = { 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
                                  1e19, 1e20, 1e21, 1e22 };
    size_t i = 0;
    int exponent = 0, digits = 0, given = 0;
    bool minus = false, point = false, any = false;
    double value = 0;
    if (i < size && (text[i] == '-' || text[i] == '+'))
        minus = text[i++] == '-';
    for (; i < size && ((text[i] >= '0' && text[i] <= '9') || (text[i] == '.' && !point)); i++) {
        if (text[i] == '.') {
            point = true;
            continue;
        }
        any = true;
        if (digits < 15) {
            value = value * 10 + (text[i] - '0');
            digits += value > 0;
            exponent -= point;
        } else { /* too many digits to hold: the rest only scales */
            exponent += !point;
        }
    }
    if (!any)
        return false;
    if (i < size && (text[i] == 'e' || text[i] == 'E')) {
        bool down = false;
        if (++i < size && (text[i] == '-' || text[i] == '+'))
            down = text[i++] == '-';
        if (i == size)
            return false;
        for (; i < size && text[i] >= '0' && text[i] <= '9'; i++)
            given = given < 1000 ? given * 10 + (text[i] - '0') : given;
        exponent += down ? -given : given;
    }
    if (i != size)
        return false;
    for (; exponent < 0; exponent += exponent < -22 ? 22 : -exponent)
        value /= ten[exponent < -22 ? 22 : -exponent];
    for (; exponent > 0; exponent -= exponent > 22 ? 22 : exponent)
        value *= ten[exponent > 22 ? 22 : exponent];
    *out = minus ? -value : value;
    return true;
}

static inline void mest_option_real(mest_option *o, double low, double high, double *out, mest_error *err)
{
    double x;
    if (mest_option_number(o->value, o->value_size, &x) && x >= low && x <= high) {
        *out = x;
    } else {
        char what[80];
        snprintf(what, sizeof what, "a number from %g to %g", low, high);
        mest_option_fail(o, what, err);
    }
}

static inline void mest_option_int(mest_option *o, int64_t low, int64_t high, int64_t *out, mest_error *err)
{
    int64_t x = 0;
    size_t i = o->value[0] == '-';
    bool good = i < o->value_size && o->value_size - i <= 18;
    for (; good && i < o->value_size; i++) {
        good = o->value[i] >= '0' && o->value[i] <= '9';
        x = x * 10 + (o->value[i] - '0');
    }
    x = o->value[0] == '-' ? -x : x;
    if (good && x >= low && x <= high) {
        *out = x;
    } else {
        char what[80];
        snprintf(what, sizeof what, "a whole number from %lld to %lld", (long long)low, (long long)high);
        mest_option_fail(o, what, err);
    }
}

/* "yes", "no" (or 1, 0, true, false, on, off) */
static inline void mest_option_bool(mest_option *o, bool *out, mest_error *err)
{
    static const char *const words[] = { "no", "yes", "0", "1", "false", "true", "off", "on" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i]) == o->value_size && memcmp(words[i], o->value, o->value_size) == 0) {
            *out = i % 2 == 1;
            return;
        }
    mest_option_fail(o, "yes or no", err);
}

/* Index of the value among words, which ends with NULL. */
static inline void mest_option_choice(mest_option *o, const char *const *words, int *out, mest_error *err)
{
    char what[200] = "one of";
    for (int i = 0; words[i]; i++) {
        if (strlen(words[i]) == o->value_size && memcmp(words[i], o->value, o->value_size) == 0) {
            *out = i;
            return;
        }
        size_t used = strlen(what);
        snprintf(what + used, sizeof what - used, "%s %s", i ? "," : "", words[i]);
    }
    mest_option_fail(o, what, err);
}

/* Numbers separated by '/', at least one and at most `room`. */
static inline void mest_option_list(mest_option *o, double low, double high, double *out, int room, int *n, mest_error *err)
{
    const char *at = o->value, *end = o->value + o->value_size;
    int found = 0;
    for (;; at++) {
        const char *slash = (const char *)memchr(at, '/', (size_t)(end - at));
        const char *stop = slash ? slash : end;
        double x;
        if (found == room || !mest_option_number(at, (size_t)(stop - at), &x) || x < low || x > high) {
            char what[120];
            snprintf(what, sizeof what, "a list of at most %d numbers from %g to %g with '/' between them", room, low, high);
            mest_option_fail(o, what, err);
            return;
        }
        out[found++] = x;
        at = stop;
        if (!slash)
            break;
    }
    *n = found;
}

/* Copies the value; size is that of text[]. */
static inline void mest_option_text(mest_option *o, char *text, size_t size, mest_error *err)
{
    if (o->value_size >= size) {
        mest_option_fail(o, "short enough", err);
        return;
    }
    memcpy(text, o->value, o->value_size);
    text[o->value_size] = 0;
}

#ifdef __cplusplus
}
#endif
#endif
