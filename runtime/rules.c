/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/rules.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { RULE_MOST = 256 };

/* One rule of a text: what stands before '=' (empty: nothing did) and the scheme with its sparsity. */
typedef struct one_rule {
    char text[RULE_MOST];
    const char *patterns, *scheme;
    double sparsity; /* -1 */
} one_rule;

bool mest_rule_structured(const char *scheme) { return !strcmp(scheme, "filter") || !strcmp(scheme, "channel"); }

static bool known(const char *name)
{
    mest_scheme scheme;
    return !strcmp(name, "dense") || !strcmp(name, "block") || !strcmp(name, "auto") || mest_rule_structured(name) || mest_scheme_find(name, &scheme, NULL) == MEST_OK;
}

/* Takes the next rule off *at; false at the end of the text. what: "rules" or "scheme", for messages. */
static mest_status next_rule(const char *what, const char **at, char separator, one_rule *r, bool *found, mest_error *err)
{
    const char ends[2] = {separator, 0};
    *found = false;
    for (;;) {
        *at += strspn(*at, " ");
        if (!**at)
            return MEST_OK;
        size_t n = strcspn(*at, ends);
        MEST_CHECK(n < sizeof r->text, err, MEST_E_ARGUMENT, "%s: a rule is longer than %d characters", what, RULE_MOST - 1);
        memcpy(r->text, *at, n);
        r->text[n] = 0;
        *at += n + ((*at)[n] == separator);
        while (n && r->text[n - 1] == ' ')
            r->text[--n] = 0;
        if (n)
            break;
    }
    *found = true;
    char *eq = strchr(r->text, '='), *scheme = eq ? eq + 1 : r->text;
    MEST_CHECK(eq || separator == ',', err, MEST_E_ARGUMENT, "%s: '%s' is not PATTERN=SCHEME:SPARSITY", what, r->text);
    MEST_CHECK(eq != r->text, err, MEST_E_ARGUMENT, "%s: '%s' has no pattern before '='", what, r->text);
    if (eq)
        *eq = 0;
    r->patterns = eq ? r->text : "";
    r->scheme = scheme;
    r->sparsity = -1;
    char *colon = known(scheme) ? NULL : strrchr(scheme, ':'); /* "nm2:4" has a colon of its own */
    if (colon && scheme[0] == 'n' && scheme[1] == 'm' && isdigit((unsigned char)scheme[2]) && strchr(scheme, ':') == colon)
        colon = NULL; /* a wrong one: not a sparsity after it */
    if (colon) {
        char *end;
        *colon = 0;
        r->sparsity = strtod(colon + 1, &end);
        MEST_CHECK(end != colon + 1 && !*end && r->sparsity >= 0 && r->sparsity < 1, err, MEST_E_ARGUMENT, "%s: sparsity '%s' is not in [0, 1)", what,
                   colon + 1);
    }
    if (!strcmp(scheme, "dense") || !strcmp(scheme, "block") || !strcmp(scheme, "auto") || mest_rule_structured(scheme))
        return MEST_OK;
    mest_scheme ignored;
    mest_error own = {MEST_OK, ""};
    mest_status status = mest_scheme_find(scheme, &ignored, &own);
    MEST_CHECK(status == MEST_OK, err, status, "%s: %s, filter, channel, auto", what, own.msg);
    return MEST_OK;
}

/* Does a comma-separated list match the name, or the name without ".weight"? */
static bool matches(const char *patterns, const char *name)
{
    size_t n = strlen(name);
    char layer[RULE_MOST];
    if (mest_match_any(patterns, name))
        return true;
    if (n < 7 || strcmp(name + n - 7, ".weight") != 0 || n - 7 >= sizeof layer)
        return false;
    memcpy(layer, name, n - 7);
    layer[n - 7] = 0;
    return mest_match_any(patterns, layer);
}

static void take(mest_rule *r, const one_rule *from, bool named)
{
    const char *name = strcmp(from->scheme, "block") == 0 ? "block4" : from->scheme;
    memcpy(r->scheme, name, strlen(name) + 1); /* a known scheme's name fits */
    r->sparsity = strcmp(name, "dense") == 0 ? 0 : from->sparsity;
    r->named = named;
}

mest_status mest_rule_find(const char *rules, const char *scheme, const char *name, mest_rule *r, mest_error *err)
{
    one_rule one;
    bool found;
    *r = (mest_rule){.scheme = "csr", .sparsity = -1};
    for (const char *at = rules ? rules : ""; *at;) {
        MEST_TRY(next_rule("rules", &at, ';', &one, &found, err));
        if (found && !r->named && matches(one.patterns, name))
            take(r, &one, true);
    }
    bool plain = false;
    mest_rule otherwise = *r;
    for (const char *at = scheme ? scheme : ""; *at;) {
        MEST_TRY(next_rule("scheme", &at, ',', &one, &found, err));
        if (!found)
            break;
        if (one.patterns[0]) {
            if (!r->named && matches(one.patterns, name))
                take(r, &one, true);
            continue;
        }
        MEST_CHECK(!plain, err, MEST_E_ARGUMENT, "scheme: '%s' is a second one without a pattern", one.scheme);
        plain = true;
        take(&otherwise, &one, false);
    }
    if (!r->named)
        *r = otherwise;
    return MEST_OK;
}

static mest_status match_all(const char *what, const char *text, char separator, const mest_model *m, mest_error *err)
{
    one_rule one;
    bool found;
    for (const char *at = text ? text : ""; *at;) {
        MEST_TRY(next_rule(what, &at, separator, &one, &found, err));
        for (const char *word = found ? one.patterns : ""; *word;) {
            char pattern[RULE_MOST];
            size_t n = strcspn(word, ",");
            bool any = n == 0, weight = n == 0 || !strcmp(one.scheme, "dense"); /* a bias is dense */
            memcpy(pattern, word, n);
            pattern[n] = 0;
            for (int32_t i = 0; i < m->n_params && !weight; i++)
                if (matches(pattern, m->params[i].name)) {
                    any = true;
                    weight = m->params[i].shape.rank >= 2 && m->params[i].role != MEST_ROLE_CONSTANT && m->params[i].role != MEST_ROLE_STATISTIC;
                }
            for (int32_t i = 0; i < m->n_params && !any; i++)
                any = matches(pattern, m->params[i].name);
            MEST_CHECK(any, err, MEST_E_ARGUMENT, "%s: '%s' matches no parameter", what, pattern);
            MEST_CHECK(weight, err, MEST_E_ARGUMENT, "%s: '%s' matches no weight of a layer, only parameters that are always dense", what, pattern);
            word += n + (word[n] == ',');
        }
    }
    return MEST_OK;
}

mest_status mest_rules_match(const char *rules, const char *scheme, const mest_model *m, mest_error *err)
{
    MEST_TRY(match_all("rules", rules, ';', m, err));
    return match_all("scheme", scheme, ',', m, err);
}
