/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct parser {
    settings *s;
    int argc, next; /* next: the argument after the one being read */
    char **argv;
    char *message;
    size_t size;
} parser;

#define REFUSE(p, ...) (snprintf((p)->message, (p)->size, __VA_ARGS__), false)

/* ---- names ---- */

static int find_long(const char *name, size_t length)
{
    for (int i = 0; i < option_count; i++)
        if (option_table[i].name && strlen(option_table[i].name) == length && strncmp(option_table[i].name, name, length) == 0)
            return i;
    return -1;
}

static int find_letter(char letter)
{
    for (int i = 0; i < option_count; i++)
        if (option_table[i].name && letter && option_table[i].letter == letter)
            return i;
    return -1;
}

bool options_given(const settings *s, const char *name)
{
    int i = find_long(name, strlen(name));
    return i >= 0 && s->given[i / 64] >> (i % 64) & 1;
}

/* ---- arguments ---- */

static bool read_number(const char *text, size_t length, double *value)
{
    char copy[64];
    if (length == 0 || length >= sizeof copy || isspace((unsigned char)text[0]))
        return false;
    memcpy(copy, text, length);
    copy[length] = 0;
    char *end;
    errno = 0;
    *value = strtod(copy, &end);
    return *end == 0 && isfinite(*value) && strpbrk(copy, "xXpP") == NULL;
}

static bool is_number(const char *text)
{
    double ignored;
    return text && read_number(text, strlen(text), &ignored);
}

static bool check_number(const parser *p, const option *o, const char *text, size_t length, bool whole, double *value)
{
    if (!read_number(text, length, value))
        return REFUSE(p, "--%s: '%.*s' is not a %snumber", o->name, (int)length, text, whole ? "whole " : "");
    if (whole && *value != floor(*value))
        return REFUSE(p, "--%s: '%.*s' is not a whole number", o->name, (int)length, text);
    if (*value < o->low || *value > o->high) {
        if (o->high < 9e15)
            return REFUSE(p, "--%s: %.*s is out of range, %.10g to %.10g", o->name, (int)length, text, o->low, o->high);
        if (*value > o->high)
            return REFUSE(p, "--%s: %.*s is too large", o->name, (int)length, text);
        return REFUSE(p, "--%s: %.*s is too small; the least is %g", o->name, (int)length, text, o->low);
    }
    return true;
}

/* "90", "90s", "30m", "8h", "1d": seconds. */
static bool read_time(const parser *p, const option *o, const char *text, double *target)
{
    static const struct { char name; double seconds; } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    const size_t length = strlen(text);
    double value, unit = length && text[length - 1] >= '0' && text[length - 1] <= '9' ? 1 : 0;
    for (size_t i = 0; i < sizeof units / sizeof *units && length; i++)
        if (text[length - 1] == units[i].name)
            unit = units[i].seconds;
    if (unit <= 0 || !read_number(text, unit > 1 || text[length - 1] == 's' ? length - 1 : length, &value) || value < 0)
        return REFUSE(p, "--%s: '%s' is no time; 90s, 30m, 8h and 1.5d are", o->name, text);
    if (value * unit < o->low || value * unit > o->high)
        return REFUSE(p, "--%s: %s is not within %g and %g seconds", o->name, text, o->low, o->high);
    *target = value * unit;
    return true;
}

/* "64MiB", "1.5 GB": kB, MB, GB are powers of 1000, KiB, MiB, GiB and the letters alone powers of 1024. */
static bool read_size(const parser *p, const option *o, const char *text, int64_t *target)
{
    static const struct { const char *name; double bytes; } units[] = {
        {"b", 1}, {"k", 1024}, {"m", 1048576}, {"g", 1073741824}, {"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"kib", 1024}, {"mib", 1048576}, {"gib", 1073741824}};
    size_t n = strcspn(text, "bBkKmMgG"), digits = n;
    while (digits > 0 && text[digits - 1] == ' ')
        digits--;
    double value, unit = 0;
    if (!read_number(text, digits, &value) || value < 0)
        return REFUSE(p, "--%s: '%s' is no size; 64MiB and 1.5GB are", o->name, text);
    for (size_t i = 0; i < sizeof units / sizeof *units && text[n]; i++)
        if (strcasecmp(text + n, units[i].name) == 0)
            unit = units[i].bytes;
    if (!text[n])
        unit = value > 0 ? o->value : 1;
    if (unit <= 0 && !text[n])
        return REFUSE(p, "--%s: '%s' has no unit: %sMiB, or %sMB?", o->name, text, text, text);
    if (unit <= 0)
        return REFUSE(p, "--%s: '%s' has a unit that is none of kB, MB, GB, KiB, MiB, GiB", o->name, text);
    if (value * unit > o->high)
        return REFUSE(p, "--%s: %s is too large", o->name, text);
    *target = (int64_t)(value * unit);
    return true;
}

/* Reads "1,2,3" behind what the list holds already. */
static bool read_list(const parser *p, const option *o, const char *text, bool whole, void *target)
{
    real_list *reals = target;
    int_list *ints = target;
    int *n = whole ? &ints->n : &reals->n;
    for (const char *t = text;;) {
        size_t length = strcspn(t, ",");
        double value;
        if (!check_number(p, o, t, length, whole, &value))
            return false;
        if (*n == SETTINGS_REALS)
            return REFUSE(p, "--%s: more than %d numbers", o->name, SETTINGS_REALS);
        if (whole)
            ints->v[(*n)++] = (int64_t)value;
        else
            reals->v[(*n)++] = value;
        if (!t[length])
            return true;
        t += length + 1;
    }
}

static bool read_choice(const parser *p, const option *o, const char *text, const char **target)
{
    size_t length = strlen(text), n = 0;
    for (const char *w = o->argument; *w; w += n + (w[n] == '|')) {
        n = strcspn(w, "|");
        if (n == length && strncmp(w, text, n) == 0) {
            *target = text;
            return true;
        }
    }
    const char *near = options_nearest_word(o->argument, text, &n);
    if (near)
        return REFUSE(p, "--%s: '%s' is none of %s; did you mean '%.*s'?", o->name, text, o->argument, (int)n, near);
    return REFUSE(p, "--%s: '%s' is none of %s", o->name, text, o->argument);
}

/* Stores one argument. Presets come through here, too, so that help shows what is really set. */
static bool store(const parser *p, const option *o, const char *text)
{
    void *target = (char *)p->s + o->target;
    double value;
    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)target = true;
        return true;
    case OPT_MODE:
    case OPT_MODE_OF:
        if (p->s->mode != MODE_NONE && p->s->mode != o->value)
            return REFUSE(p, "--%s: only one of the modes can be given, see --help=modes", o->name);
        p->s->mode = o->value;
        if (o->kind == OPT_MODE && text)
            p->s->mode_word = text;
        return o->kind == OPT_MODE || read_choice(p, o, text, target);
    case OPT_TEXT:
        if (!*text)
            return REFUSE(p, "--%s: the %s is empty", o->name, o->argument);
        *(const char **)target = text;
        return true;
    case OPT_CHOICE:
        return read_choice(p, o, text, target);
    case OPT_INT:
        if (!check_number(p, o, text, strlen(text), true, &value))
            return false;
        *(int64_t *)target = (int64_t)value;
        return true;
    case OPT_TIME:
        return read_time(p, o, text, target);
    case OPT_SIZE:
        return read_size(p, o, text, target);
    case OPT_REAL:
        if (!check_number(p, o, text, strlen(text), false, &value))
            return false;
        *(double *)target = value;
        return true;
    case OPT_REALS:
    case OPT_INTS:
        return read_list(p, o, text, o->kind == OPT_INTS, target);
    case OPT_LIST: {
        text_list *list = target;
        if (list->n == SETTINGS_TEXTS)
            return REFUSE(p, "--%s: given more than %d times", o->name, SETTINGS_TEXTS);
        list->v[list->n++] = text;
        return true;
    }
    case OPT_RESUME:
        p->s->resume = true;
        *(const char **)target = text;
        return true;
    case OPT_HELP:
        p->s->help = true;
        *(const char **)target = text;
        return true;
    }
    return false;
}

/* "-0.5,1" is an argument, "-" too. */
static bool is_option(const char *arg) { return arg[0] == '-' && arg[1] && arg[1] != '.' && !isdigit((unsigned char)arg[1]); }

/* The optional argument of --resume and --help: whatever follows, unless it must be an option or the model. */
static const char *optional_argument(parser *p, const option *o)
{
    const char *next = p->next < p->argc ? p->argv[p->next] : NULL;
    if (!next || is_option(next))
        return NULL;
    size_t n = strlen(next);
    if (o->kind == OPT_RESUME && !p->s->model && n > 5 && strcmp(next + n - 5, ".onnx") == 0)
        return NULL;
    if (o->kind == OPT_HELP && strchr(next, '.'))
        return NULL;
    p->next++;
    return next;
}

/* `joined`: the argument that stood in the same word, or NULL. */
static bool take(parser *p, int index, const char *joined)
{
    const option *o = &option_table[index];
    const char *text = joined;
    bool list = o->kind == OPT_REALS || o->kind == OPT_INTS;
    p->s->given[index / 64] |= UINT64_C(1) << (index % 64);
    if (o->kind == OPT_FLAG || o->kind == OPT_MODE) {
        const char *word = joined ? joined : p->next < p->argc ? p->argv[p->next] : "";
        const size_t length = strlen(word);
        if (o->kind == OPT_MODE && o->argument && strlen(o->argument) == length + 2 && strncmp(o->argument + 1, word, length) == 0) {
            p->next += !joined;
            return store(p, o, word);
        }
        size_t n;
        if (o->argument && !strpbrk(word, "./") && options_nearest_word(o->argument + 1, word, &n)) /* a name of a file has one of them */
            return REFUSE(p, "--%s: '%s' is not the word that may follow; did you mean '%.*s'?", o->name, word, (int)strlen(o->argument) - 2, o->argument + 1);
        if (joined)
            return REFUSE(p, o->argument ? "--%s: the only word that may follow is '%.*s'" : "--%s takes no argument", o->name,
                          o->argument ? (int)strlen(o->argument) - 2 : 0, o->argument ? o->argument + 1 : "");
        return store(p, o, NULL);
    }
    if (o->kind == OPT_RESUME || o->kind == OPT_HELP)
        return store(p, o, joined ? joined : optional_argument(p, o));
    if (!text) {
        if (p->next >= p->argc || is_option(p->argv[p->next]))
            return REFUSE(p, "--%s needs an argument: %s", o->name, o->argument);
        text = p->argv[p->next++];
    }
    if (list)
        *(int *)(void *)((char *)p->s + o->target) = 0; /* both lists begin with their count; the last option given counts */
    if (!store(p, o, text))
        return false;
    while (list && !joined && p->next < p->argc && is_number(p->argv[p->next]))
        if (!store(p, o, p->argv[p->next++]))
            return false;
    return true;
}

static bool take_long(parser *p, const char *word)
{
    size_t length = strcspn(word, "=");
    int index = find_long(word, length);
    if (index >= 0)
        return take(p, index, word[length] ? word + length + 1 : NULL);
    const char *near = options_nearest_option(word, length);
    if (near)
        return REFUSE(p, "unknown option '--%.*s'; did you mean '--%s'?", (int)length, word, near);
    return REFUSE(p, "unknown option '--%.*s'", (int)length, word);
}

/* -b64, -b 64, -qv */
static bool take_letters(parser *p, const char *word)
{
    for (; *word; word++) {
        int index = find_letter(*word);
        if (index < 0)
            return REFUSE(p, "unknown option '-%c'", *word);
        option_kind kind = option_table[index].kind;
        if (kind != OPT_FLAG && kind != OPT_MODE)
            return take(p, index, word[1] && kind != OPT_HELP ? word + 1 : NULL);
        if (!take(p, index, NULL))
            return false;
    }
    return true;
}

bool options_parse(settings *s, int argc, char **argv, char *message, size_t size)
{
    parser p = {.s = s, .argc = argc, .next = 1, .argv = argv, .message = message, .size = size};
    memset(s, 0, sizeof *s);
    s->lr = s->drop = s->opt_eps = NAN;
    for (int i = 0; i < option_count; i++)
        if (option_table[i].name && option_table[i].preset && option_table[i].preset[0] != '('
            && !store(&p, &option_table[i], option_table[i].preset))
            return false;
    bool options = true;
    while (p.next < argc) {
        const char *arg = argv[p.next++];
        bool good;
        if (options && strcmp(arg, "--") == 0) {
            options = false;
            continue;
        }
        if (options && strncmp(arg, "--", 2) == 0)
            good = take_long(&p, arg + 2);
        else if (options && arg[0] == '-' && arg[1])
            good = take_letters(&p, arg + 1);
        else if (s->model)
            good = REFUSE(&p, "'%s': there is a model already, '%s'", arg, s->model);
        else
            good = (s->model = arg) != NULL;
        if (!good)
            return false;
    }
    return true;
}
