/* SPDX-License-Identifier: Apache-2.0 */
/* What finding groups of channels is made of: channels_rules.c says what each operator ties together, channels_find.c the rest.
 * Private to those two. */
#ifndef MEST_RUNTIME_CHANNELS_PARTS_H
#define MEST_RUNTIME_CHANNELS_PARTS_H

#include "runtime/channels.h"

enum { MEST_SITE_STAYS = 0 };

typedef struct mest_finder {
    mest_model *m;
    mest_graph g;               /* shapes known, constants folded */
    mest_region *region;        /* of the result */
    mest_region scratch;
    const mest_channel_wish *wish;
    int32_t *up, n_sites;       /* union-find; site 0 stays */
    int32_t *value_site;        /* first site of a value's axis 1, or -1 */
    int32_t (*param_site)[2];   /* of a parameter's axes, or -1 */
    mest_axes *axes;            /* kind, out_axis, fresh, gone; per parameter */
    bool *seen;                 /* parameter has a use that a rule knows */
    const char *why;            /* the last operator without a rule that kept channels */
    mest_error *err;
} mest_finder;

/* The site that stands for the class of site `a`. */
int32_t mest_finder_root(mest_finder *f, int32_t a);
/* Both live and die together from now on. */
void mest_finder_unite(mest_finder *f, int32_t a, int32_t b);
/* All channels of a value (or positions of a parameter) stay. v may be MEST_NONE. */
void mest_finder_stay(mest_finder *f, mest_id v);
/* Number of sites of a value; 0 for parameters and what has no channels. */
int64_t mest_finder_channels(const mest_finder *f, mest_id v);
/* What the node ties together; without a rule, or where the rule does not fit: all it touches stays. */
void mest_finder_apply(mest_finder *f, const mest_node *n);

static inline bool mest_finder_is_param(const mest_finder *f, mest_id v) { return v != MEST_NONE && f->g.values[v].kind == MEST_VALUE_PARAM; }

#endif
