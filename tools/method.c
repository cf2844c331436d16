/* SPDX-License-Identifier: Apache-2.0 */
/* --method and --scheduler: names of settings into schedulers of the session. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mest/plugin.h"
#include "options.h"
#include "pictures.h"
#include "tool.h"

static bool is_mest(const char *name, size_t n, const char **mode)
{
    static const char *const known[] = {"mest", "mest-em", "mest-ems", "mest-vanilla"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == n && memcmp(known[i], name, n) == 0) {
            *mode = i == 0 ? "em" : known[i] + 5;
            return true;
        }
    return false;
}

bool tool_scheme_says(const settings *s)
{
    if (options_given(s, "sparsity"))
        return false;
    return s->rules || (options_given(s, "scheme") && (strstr(s->scheme, "nm") || strstr(s->scheme, "pattern") || strchr(s->scheme, ':')));
}

bool tool_wants_sparsity(const settings *s) { return s->sparsity > 0 || s->rules || s->ratios || tool_scheme_says(s); }

/* NAME[:OPTIONS]: length of the name. A path may hold a colon before its last slash; values of options may hold slashes. */
static size_t name_length(const char *text)
{
    const size_t first = strcspn(text, ":");
    if (!memchr(text, '/', first))
        return first;
    const char *object = strstr(text, ".so:"), *slash = strrchr(text, '/');
    return object ? (size_t)(object - text) + 3 : (size_t)(slash - text) + strcspn(slash, ":");
}

/* Does a scheduler of --scheduler move weights, or may it? Of a shared object that is not known before it is loaded. */
static bool is_moved(const settings *s)
{
    char name[64];
    for (int i = 0; i < s->scheduler.n; i++) {
        const char *text = s->scheduler.v[i];
        snprintf(name, sizeof name, "%.*s", (int)name_length(text), text);
        if (strchr(name, '/') || (mest_scheduler_flags(name) & MEST_SCHEDULER_MOVES_WEIGHTS))
            return true;
    }
    return false;
}

const char *tool_method(const settings *s)
{
    if (s->method)
        return strcmp(s->method, "mest") == 0 ? "mest-em" : s->method;
    return tool_wants_sparsity(s) && !is_moved(s) ? "mest-em" : "static";
}

/* The name in front of ":options". */
static void method_name(const settings *s, char *name, size_t size)
{
    snprintf(name, size, "%.*s", (int)strcspn(tool_method(s), ":"), tool_method(s));
}

bool tool_starts_dense(const settings *s)
{
    char name[64];
    method_name(s, name, sizeof name);
    return s->start_dense || (mest_scheduler_flags(name) & MEST_SCHEDULER_STARTS_DENSE);
}

static bool is_builtin(const char *name)
{
    const char *other;
    for (int i = 0; (other = mest_scheduler_builtin(i, NULL, NULL)) != NULL; i++)
        if (strcmp(other, name) == 0)
            return true;
    return false;
}

/* Does it take a dense start down to the target, or may it? What is not built in is not known before it is loaded. */
static bool may_thin(const char *name)
{
    const char *mode;
    return is_mest(name, strlen(name), &mode) || !is_builtin(name) || (mest_scheduler_flags(name) & MEST_SCHEDULER_STARTS_DENSE);
}

/* --start-dense without anybody who makes the weights sparse would train all of them to the end. */
static int check_dense_start(tool *t)
{
    const settings *s = t->s;
    char name[64], who[64], known[200] = "mest-vanilla, mest-em, mest-ems";
    method_name(s, name, sizeof name);
    bool fixed = strcmp(name, "static") == 0, thins = !fixed && may_thin(name);
    snprintf(who, sizeof who, "%s", name);
    for (int i = 0; i < s->scheduler.n && !thins; i++) {
        snprintf(name, sizeof name, "%.*s", (int)name_length(s->scheduler.v[i]), s->scheduler.v[i]);
        thins = may_thin(name);
        if (fixed && (mest_scheduler_flags(name) & MEST_SCHEDULER_MOVES_WEIGHTS))
            snprintf(who, sizeof who, "%s", name);
    }
    if (!s->start_dense || !tool_wants_sparsity(s) || thins)
        return 0;
    for (int i = 0; mest_scheduler_builtin(i, NULL, NULL); i++) {
        const char *other = mest_scheduler_builtin(i, NULL, NULL);
        const size_t used = strlen(known);
        if (mest_scheduler_flags(other) & MEST_SCHEDULER_STARTS_DENSE)
            snprintf(known + used, sizeof known - used, ", %s", other);
    }
    return tool_refuse(t, EXIT_USAGE, "--start-dense: %s keeps the number of weights, so they would stay dense; %s and plugins take them to their target", who, known);
}

/* Has the built-in scheduler an interval that --mutate-every could set? Otherwise *summary says when it moves weights. */
static bool has_interval(const char *name, const char **summary)
{
    const char *other, *options;
    for (int i = 0; (other = mest_scheduler_builtin(i, summary, &options)) != NULL; i++)
        if (strcmp(other, name) == 0)
            return strncmp(options, "every=", 6) == 0 || strstr(options, "\nevery=");
    return true;
}

/* ---- schedulers side by side ---- */

typedef struct asked {
    char option[80], name[64]; /* as it was given; of the scheduler */
} asked;

/* The library refuses them too, in words of its own; here options have names, and nothing was read yet. */
static int check_pair(tool *t, const asked *a, const asked *b)
{
    const unsigned both = mest_scheduler_flags(a->name) & mest_scheduler_flags(b->name);
    const bool object = strchr(a->name, '/') || strstr(a->name, ".so");
    if (strcmp(a->option, b->option) == 0 && !object)
        return tool_refuse(t, EXIT_USAGE, "%s is given twice: a scheduler does its work once", a->option);
    if (both & MEST_SCHEDULER_MOVES_WEIGHTS)
        return tool_refuse(t, EXIT_USAGE, "%s and %s both move weights: a run has one method of sparse training, by --method or by --scheduler", a->option, b->option);
    if (strcmp(a->name, b->name) == 0 && !object)
        return tool_refuse(t, EXIT_USAGE, "%s and %s are the same scheduler: give one of them", a->option, b->option);
    if (both & MEST_SCHEDULER_CHOOSES_SAMPLES)
        return tool_refuse(t, EXIT_USAGE, "%s and %s both choose the samples that are trained on: give one of them", a->option, b->option);
    return 0;
}

static int check_company(tool *t)
{
    const settings *s = t->s;
    asked all[SETTINGS_TEXTS + 2];
    const char *mode;
    int n = 0, code = 0;
    char name[64];
    method_name(s, name, sizeof name);
    if (strcmp(name, "static") != 0) {
        snprintf(all[n].option, sizeof all[n].option, "--method %s", name);
        snprintf(all[n].name, sizeof all[n].name, "%s", is_mest(name, strlen(name), &mode) ? "mest" : name);
        n++;
    }
    if (s->forget_epoch > 0)
        all[n++] = (asked){"--forget-epoch", "forgetting"};
    for (int i = 0; i < s->scheduler.n; i++, n++) {
        const char *text = s->scheduler.v[i];
        snprintf(all[n].name, sizeof all[n].name, "%.*s", (int)name_length(text), text);
        snprintf(all[n].option, sizeof all[n].option, "--scheduler %s", all[n].name);
    }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i && code == 0; k++)
            code = check_pair(t, &all[k], &all[i]);
    return code;
}

/* The value that "key=value,.." gives this key; NULL: none. It ends at a comma. */
static const char *says(const char *options, const char *key)
{
    const size_t n = strlen(key);
    for (const char *at = options; *at; at += strcspn(at, ","), at += *at == ',')
        if (strncmp(at, key, n) == 0 && at[n] == '=')
            return at + n + 1;
    return NULL;
}

/* What stands behind the method's name (`own`) wins over --mutate-every and --mest-lambda, which is said; what contradicts the name is refused. */
static int check_twice(tool *t, const char *name, const char *mode, const char *own)
{
    const settings *s = t->s;
    const char *said = says(own, "mode"), *unit = says(own, "unit"), *interval = mode ? "freq" : "every";
    const bool every = options_given(s, "mutate-every");
    if (mode && said && strcmp(name, "mest") != 0 && (strcspn(said, ",") != strlen(mode) || strncmp(said, mode, strlen(mode)) != 0))
        return tool_refuse(t, EXIT_USAGE, "--method %s: mode=%.*s contradicts the name; 'mest' takes a mode, or name mest-vanilla, mest-em or mest-ems", name, (int)strcspn(said, ","), said);
    if (every && says(own, interval))
        tool_note(t, "--mutate-every has no effect: --method %s says %s=", name, interval);
    else if (every && !mode && unit && strcspn(unit, ",") == 5 && strncmp(unit, "steps", 5) == 0)
        return tool_refuse(t, EXIT_USAGE, "--mutate-every counts epochs, and --method %s:unit=steps counts steps: give every= there", name);
    if (mode && options_given(s, "mest-lambda") && says(own, "lambda"))
        tool_note(t, "--mest-lambda has no effect: --method %s says lambda=", name);
    return 0;
}

int tool_check_method(tool *t)
{
    const settings *s = t->s;
    const char *mode = NULL, *method = tool_method(s), *summary;
    char name[64], known[400] = "static, mest-vanilla, mest-em, mest-ems";
    method_name(s, name, sizeof name);
    bool mest = is_mest(name, strlen(name), &mode), fixed = strcmp(name, "static") == 0;
    for (int i = 0; mest_scheduler_builtin(i, NULL, NULL); i++) {
        const char *other = mest_scheduler_builtin(i, NULL, NULL);
        size_t used = strlen(known);
        if (strcmp(other, "mest") != 0 && (mest_scheduler_flags(other) & MEST_SCHEDULER_MOVES_WEIGHTS))
            snprintf(known + used, sizeof known - used, ", %s", other);
    }
    if (!mest && !fixed && !(mest_scheduler_flags(name) & MEST_SCHEDULER_MOVES_WEIGHTS))
        return tool_refuse(t, EXIT_USAGE, "--method: '%s' is none of %s", name, known);
    if (fixed && method[strlen(name)])
        return tool_refuse(t, EXIT_USAGE, "--method static takes no options");
    if (s->method && !fixed && !tool_wants_sparsity(s))
        tool_note(t, "--method %s moves only weights that the file holds sparsely, as --sparsity is 0", method);
    const bool every = options_given(s, "mutate-every"), lambda = options_given(s, "mest-lambda");
    if (fixed && (every || lambda))
        tool_note(t, "%s%s%s no effect: %s", every ? "--mutate-every" : "--mest-lambda", every && lambda ? " and --mest-lambda" : "", every && lambda ? " have" : " has",
                  !is_moved(s) ? "the pattern is static" : "weights are moved by a --scheduler, which has options of its own");
    else if (!mest && lambda)
        tool_note(t, "--mest-lambda has no effect: it is an option of MEST");
    if (!mest && !fixed && every && !has_interval(name, &summary))
        tool_note(t, "--mutate-every has no effect: method %s has no interval (%s)", name, summary);
    const size_t n = strlen(name);
    int code = fixed ? 0 : check_twice(t, name, mode, method[n] ? method + n + 1 : "");
    code = code ? code : check_dense_start(t);
    return code ? code : check_company(t);
}

static double number_of(const char *options, const char *key)
{
    const char *text = options ? says(options, key) : NULL;
    return text ? strtod(text, NULL) : 0;
}

/* The library finds it too, but not before it trains: the samples of a session are those it is given then. Here a sweep's are known. */
static int check_amount(tool *t, const char *options)
{
    const double n = (double)t->data_info.count, keep = number_of(options, "keep_lowest"), remove = number_of(options, "remove");
    double wanted = number_of(options, "count") + number_of(options, "fraction") * n + (remove < 1 ? remove * n : remove);
    wanted = floor(wanted + .5);
    if (n < 1 || !(wanted >= 1) || wanted + keep < n)
        return 0;
    return tool_refuse(t, EXIT_USAGE, "scheduler forgetting: %.0f of %.0f samples to remove and %.0f to keep leave none", wanted, n, keep);
}

static int add_scheduler(tool *t, const char *name, const char *options)
{
    mest_error err = {0};
    const int code = strcmp(name, "forgetting") == 0 ? check_amount(t, options) : 0;
    if (code)
        return code;
    if (mest_session_add_scheduler(t->session, name, options, &err) != MEST_OK)
        return tool_fail(t, STAGE_PLUGIN, &err);
    return 0;
}

static int add_named(tool *t, const char *text)
{
    char name[4096];
    const size_t n = name_length(text);
    if (n == 0 || n >= sizeof name)
        return tool_refuse(t, EXIT_USAGE, "--scheduler: '%s' has no name", text);
    memcpy(name, text, n);
    name[n] = 0;
    const char *own = text[n] ? text + n + 1 : "";
    char options[1024], counts[4200];
    if (strcmp(name, "forgetting") == 0 && !says(own, "export") && *pictures_counts(t, counts, sizeof counts) &&
        (size_t)snprintf(options, sizeof options, "%s%sexport=%.250s", own, *own ? "," : "", counts) < sizeof options)
        own = options; /* the gallery of --report is made of them */
    return add_scheduler(t, name, *own ? own : NULL);
}

/* Appends an item; false: it does not fit. */
static bool put(char *options, size_t size, size_t *used, const char *format, ...) MEST_PRINTF(4, 5);
static bool put(char *options, size_t size, size_t *used, const char *format, ...)
{
    va_list list;
    *used += (size_t)snprintf(options + *used, size - *used, "%s", *used ? "," : "");
    va_start(list, format);
    const int n = vsnprintf(options + *used, size - *used, format, list);
    va_end(list);
    const bool fits = n >= 0 && (size_t)n < size - *used;
    *used += fits ? (size_t)n : 0;
    return fits;
}

/* What the other options say, except where the options given with the name do: those win. --mutate-every counts epochs: it is left out where the name
 * says how often, in steps perhaps, and where the method has no interval. */
static int add_method(tool *t)
{
    const settings *s = t->s;
    const char *mode, *method = tool_method(s), *own, *summary;
    char name[64], options[1000] = "";
    method_name(s, name, sizeof name);
    own = method + strlen(name);
    own += *own == ':';
    if (strcmp(name, "static") == 0)
        return 0;
    bool mest = is_mest(name, strlen(name), &mode);
    size_t used = 0;
    const bool every = options_given(s, "mutate-every") && has_interval(name, &summary) && !says(own, "every");
    if (mest && !says(own, "mode"))
        put(options, sizeof options, &used, "mode=%s", mode);
    if (mest && !says(own, "freq"))
        put(options, sizeof options, &used, "freq=%" PRId64, s->mutate_every);
    if (mest && !says(own, "lambda"))
        put(options, sizeof options, &used, "lambda=%.9g", s->mest_lambda);
    if (!mest && every)
        put(options, sizeof options, &used, "every=%" PRId64, s->mutate_every);
    if (!mest && every && !says(own, "unit"))
        put(options, sizeof options, &used, "unit=epochs");
    if (*own && !put(options, sizeof options, &used, "%s", own))
        return tool_refuse(t, EXIT_USAGE, "--method: its options are too long");
    return add_scheduler(t, mest ? "mest" : name, *options ? options : NULL);
}

int tool_add_schedulers(tool *t)
{
    const settings *s = t->s;
    char options[512], counts[4200];
    int code = add_method(t);
    if (code == 0 && s->forget_epoch > 0) {
        int n = snprintf(options, sizeof options, "epoch=%" PRId64, s->forget_epoch);
        if (s->forget_remove)
            snprintf(options + n, sizeof options - (size_t)n, ",remove=%s", s->forget_remove);
        else
            snprintf(options + n, sizeof options - (size_t)n, ",max_forgets=%" PRId64, s->forget_max);
        if (*pictures_counts(t, counts, sizeof counts))
            snprintf(options + strlen(options), sizeof options - strlen(options), ",export=%.250s", counts);
        code = add_scheduler(t, "forgetting", options);
    }
    for (int i = 0; code == 0 && i < s->scheduler.n; i++)
        code = add_named(t, s->scheduler.v[i]);
    return code;
}
