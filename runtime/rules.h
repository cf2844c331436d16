/* SPDX-License-Identifier: Apache-2.0 */
/* Which scheme a weight gets: texts of rules, as mest_sparsity has them.
 *   rules    "PATTERN=SCHEME:SPARSITY;..."      PATTERN may be several, separated by commas
 *   scheme   "SCHEME" or "PATTERN=SCHEME[:SPARSITY],...[,SCHEME]"; a SCHEME alone is for the weights no pattern matches
 * A pattern ("*", "?") is meant for a parameter's name, with or without ".weight" at its end. SCHEME is a storage format, "block" (block4)
 * "filter", "channel", "auto" (runtime/scheme_auto.h) or "dense". The first rule that matches counts, rules before scheme. */
#ifndef MEST_RUNTIME_RULES_H
#define MEST_RUNTIME_RULES_H

#include "runtime/model.h"

typedef struct mest_rule {
    char scheme[16];   /* canonical: "block4", "dense" */
    double sparsity;   /* -1: the rule does not say */
    bool named;        /* a pattern matched: not the default */
} mest_rule;

/* Reads all of both texts, so that mistakes are found whatever the name; *r is set in any case. scheme NULL: csr. */
mest_status mest_rule_find(const char *rules, const char *scheme, const char *name, mest_rule *r, mest_error *err);
/* Is it one of the schemes that take whole channels (runtime/channels.h): "filter", "channel"? */
bool mest_rule_structured(const char *scheme);
/* MEST_E_ARGUMENT names a pattern that matches no parameter. */
mest_status mest_rules_match(const char *rules, const char *scheme, const mest_model *m, mest_error *err);

#endif
