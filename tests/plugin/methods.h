/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the published methods share: two worlds, one with balanced schemes, and plain searches for what a step must do. */
#ifndef MEST_TESTS_PLUGIN_METHODS_H
#define MEST_TESTS_PLUGIN_METHODS_H

#include "tests/plugin/world.h"

enum { N = 4, EPOCHS = 10, BATCHES = 20 };
static const world_param free_params[N] = {
    { "csr", { 2, { 20, 30 } }, .9 }, { "block4", { 2, { 22, 25 } }, .8 }, { "csr", { 4, { 6, 5, 3, 3 } }, .7 }, { "block3", { 2, { 10, 9 } }, .5 },
};
static const world_param grouped_params[N] = {
    { "pattern", { 4, { 8, 6, 3, 3 } }, .8 }, { "nm2:4", { 2, { 12, 20 } }, .5 }, { "punched4x2", { 4, { 8, 6, 3, 3 } }, .7 }, { "nm1:4", { 2, { 10, 24 } }, .75 },
};
static const world_param *params = free_params;

static inline void open_params(world *w, bool dense, uint64_t seed)
{
    world_param all[N];
    memcpy(all, params, sizeof all);
    for (int i = 0; dense && i < N; i++)
        all[i].sparsity = 0;
    world_open(w, seed, all, N, 0);
    for (int i = 0; i < N; i++)
        w->host.params[i].target_sparsity = params[i].sparsity;
}

static inline void open_method(world *w, const char *method, const char *options, bool dense, uint64_t seed)
{
    open_params(w, dense, seed);
    mest_error err = { 0 };
    mest_status status = mest_schedulers_add(w->list, method, options, &err);
    ck_assert_msg(status == MEST_OK, "%s:%s: %s", method, options, err.msg);
    world_plan(w);
}

static inline int64_t target_of(const world *w, int i) { return mest_sparse_units_at(w->host.params[i].sparse, params[i].sparsity); }

/* ---- a plain search for what a step must do ---- */

typedef struct scored { float score; int64_t unit; } scored;
static inline int by_score(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? -1 : 1) : x->unit < y->unit ? -1 : x->unit > y->unit;
}
static inline int by_score_down(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score > y->score ? -1 : 1) : x->unit < y->unit ? -1 : x->unit > y->unit;
}

static inline float norm_at(const picture *p, int64_t i)
{
    double sum = 0;
    for (int64_t e = 0; e < p->e; e++)
        sum += (double)p->values[i * p->e + e] * (double)p->values[i * p->e + e];
    return p->e == 1 ? fabsf((float)p->values[i]) : (float)sqrt(sum);
}

/* The k of smallest norm, ascending ids. */
static inline int64_t *smallest(const picture *p, int64_t k)
{
    scored *s = malloc((size_t)p->n * sizeof *s + 8);
    int64_t *ids = malloc((size_t)k * 8 + 8);
    for (int64_t i = 0; i < p->n; i++)
        s[i] = (scored){ norm_at(p, i), p->units[i] };
    qsort(s, (size_t)p->n, sizeof *s, by_score);
    for (int64_t i = 0; i < k; i++)
        ids[i] = s[i].unit;
    qsort(ids, (size_t)k, 8, id_compare);
    free(s);
    return ids;
}

/* ---- groups, the slow way ---- */

static inline int64_t group_of(const mest_sparse *s, int64_t unit) { return s->group_units ? unit / s->choices / s->group_units : 0; }

/* Which units grow: the emptiest groups get their best free slot, again and again, until k are given; where not all groups of a level can get
 * one, those whose next one is best do. `held`: units that stay. */
static inline int64_t *steepest(const mest_sparse *s, int param, int64_t step, const int64_t *held, int64_t n_held, int64_t k, int64_t *found)
{
    int64_t groups = s->group_units ? s->n_units / s->group_units : 1, *count = calloc((size_t)groups, 8), *out = malloc((size_t)k * 8 + 8);
    int64_t slots = s->n_units, n = 0;
    uint8_t *taken = calloc((size_t)slots, 1);
    for (int64_t i = 0; i < n_held; i++) {
        taken[held[i] / s->choices] = 1;
        count[group_of(s, held[i])]++;
    }
    for (bool any = true; n < k && any;) {
        int64_t least = INT64_MAX, m = 0;
        scored *next = malloc((size_t)groups * sizeof *next + 8);
        any = false;
        for (int64_t g = 0; g < groups; g++) {
            int64_t room = s->group_units ? s->group_units : s->n_units;
            if (count[g] < room && count[g] < least)
                least = count[g];
        }
        for (int64_t g = 0; g < groups; g++) { /* the best free slot of each of the emptiest groups */
            scored best = { -1, -1 };
            for (int64_t u = 0; u < mest_sparse_ids(s) && (!s->group_units || count[g] == least); u++) {
                if (taken[u / s->choices] || group_of(s, u) != g)
                    continue;
                float norm = unit_gradient(s, param, step, u);
                if (norm > best.score)
                    best = (scored){ norm, u };
            }
            if (best.unit >= 0)
                next[m++] = best;
        }
        qsort(next, (size_t)m, sizeof *next, by_score_down);
        for (int64_t i = 0; i < m && n < k; i++) {
            any = true;
            out[n++] = next[i].unit;
            taken[next[i].unit / s->choices] = 1;
            count[group_of(s, next[i].unit)]++;
        }
        free(next);
    }
    qsort(out, (size_t)n, 8, id_compare);
    free(taken), free(count);
    *found = n;
    return out;
}

/* Survivors keep value and state, the rest starts at 0 (or at what `fresh` says). */
static inline void check_survivors(const picture *a, const picture *b, bool zero)
{
    for (int64_t i = 0; i < b->n; i++) {
        const int64_t *at = bsearch(&b->units[i], a->units, (size_t)a->n, 8, id_compare);
        for (int64_t e = 0; e < b->e; e++)
            for (int t = -1; t < WORLD_SLOTS; t++) {
                const mest_real *x = t < 0 ? a->values : a->slots[t], *y = t < 0 ? b->values : b->slots[t];
                mest_real want = at ? x[(at - a->units) * a->e + e] : 0;
                MUST(y[i * b->e + e] == want || (!at && t < 0 && !zero));
            }
    }
}

#endif
