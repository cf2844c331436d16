/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing which units stay by a score, over all parameters or in each; exact, equal scores by place. Static functions only.
 *
 *   method_select       the k largest scores of some parameters, by radix selection over a replayed stream: no list of scores
 *   method_select_all   down to what the targets of all parameters leave together
 *   method_select_each  each parameter down to its own target
 */
#ifndef SCHEDULERS_METHOD_SELECT_H
#define SCHEDULERS_METHOD_SELECT_H

#include "schedulers/method.h"

/* Scores of active units first..first+n-1, larger is better; may change sign. */
typedef mest_status (*method_scores)(const method *m, mest_host *host, int param, int64_t first, int64_t n, float *scores, mest_error *err);

/* Norms that can be compared between schemes: divided by the square root of a unit's weights. */
static inline mest_status method_norms(const method *m, mest_host *host, int param, int64_t first, int64_t n, float *scores, mest_error *err)
{
    mest_sparse_info info;
    mest_status status = method_info(m, host, param, &info, err);
    if (status == MEST_OK)
        status = m->api->unit_scores(host, param, 0, false, first, n, scores, err);
    for (int64_t i = 0; i < n && status == MEST_OK && info.unit_elements > 1; i++)
        scores[i] = (float)((double)scores[i] / sqrt((double)info.unit_elements));
    return status;
}

enum { METHOD_DIGIT = 11, METHOD_PASSES = 3 };

typedef struct method_threshold {
    uint32_t key, mask;   /* leading digits of the k-th largest key */
    int64_t need;         /* keys equal to it that are kept: the first ones, by parameter and place */
    int64_t count[1 << METHOD_DIGIT];
} method_threshold;

/* Key of the k-th largest score of parameters from..to-1 (1 <= k <= their active units): radix selection, the stream of scores is replayed for each digit. */
static inline mest_status method_kth(const method *m, mest_host *host, method_scores scores, int from, int to, int64_t k, method_threshold *t, mest_error *err)
{
    static const int shift[METHOD_PASSES] = { 21, 10, 0 }, bits[METHOD_PASSES] = { 11, 11, 10 };
    float piece[METHOD_PIECE];
    t->key = t->mask = 0;
    t->need = k;
    for (int pass = 0; pass < METHOD_PASSES; pass++) {
        memset(t->count, 0, sizeof t->count);
        for (int p = from; p < to; p++) {
            mest_sparse_info info;
            mest_status status = method_info(m, host, p, &info, err);
            for (int64_t at = 0; status == MEST_OK && at < info.n_active; at += METHOD_PIECE) {
                int64_t n = info.n_active - at < METHOD_PIECE ? info.n_active - at : METHOD_PIECE;
                status = scores(m, host, p, at, n, piece, err);
                for (int64_t i = 0; i < n && status == MEST_OK; i++) {
                    uint32_t key = method_key(piece[i]);
                    if ((key & t->mask) == t->key)
                        t->count[key >> shift[pass] & ((1u << bits[pass]) - 1)]++;
                }
            }
            if (status != MEST_OK)
                return status;
        }
        uint32_t digit = (1u << bits[pass]) - 1;
        while (digit > 0 && t->need > t->count[digit])
            t->need -= t->count[digit--];
        t->key |= digit << shift[pass];
        t->mask |= ((1u << bits[pass]) - 1) << shift[pass];
    }
    return MEST_OK;
}

/* Walks the scores of one parameter: counts what the threshold keeps, or, with drop, lists what it does not. *need: equal keys still to keep. */
static inline mest_status method_split(const method *m, mest_host *host, method_scores scores, int param, int64_t n_active, const method_threshold *t,
                                       int64_t *need, int64_t *kept, int64_t *drop, int64_t except, int64_t *best, mest_error *err)
{
    float piece[METHOD_PIECE];
    int64_t unit[METHOD_PIECE], n_drop = 0;
    uint32_t best_key = 0;
    *kept = 0;
    *best = 0;
    for (int64_t at = 0; at < n_active; at += METHOD_PIECE) {
        int64_t n = n_active - at < METHOD_PIECE ? n_active - at : METHOD_PIECE;
        mest_status status = scores(m, host, param, at, n, piece, err);
        if (status == MEST_OK && drop)
            status = m->api->active_units(host, param, at, n, unit, err);
        if (status != MEST_OK)
            return status;
        for (int64_t i = 0; i < n; i++) {
            uint32_t key = method_key(piece[i]);
            bool keep = key > t->key || (key == t->key && (*need)-- > 0);
            if (key > best_key || at + i == 0) {
                best_key = key;
                *best = at + i;
            }
            keep = keep || at + i == except;
            *kept += keep;
            if (!keep && drop)
                drop[n_drop++] = unit[i];
        }
    }
    return MEST_OK;
}

/* ---- balanced groups: each keeps an even share, and those with the best next unit one more ---- */

typedef struct method_scored {
    uint32_t key;
    int32_t place;
} method_scored;

/* Best first, equal ones by place. */
static inline void method_rank(method_scored *a, int64_t n)
{
    for (int64_t gap = n / 2; gap > 0; gap /= 2)
        for (int64_t i = gap; i < n; i++) {
            method_scored x = a[i];
            int64_t j = i;
            for (; j >= gap && (a[j - gap].key < x.key || (a[j - gap].key == x.key && a[j - gap].place > x.place)); j -= gap)
                a[j] = a[j - gap];
            a[j] = x;
        }
}

/* The active units first..first+n-1 of one group, ranked; their ids into unit[]. */
static inline mest_status method_group(const method *m, mest_host *host, method_scores scores, int param, int64_t first, int64_t n, method_scored *rank, int64_t *unit,
                                       float *score, mest_error *err)
{
    mest_status status = scores(m, host, param, first, n, score, err);
    if (status == MEST_OK)
        status = m->api->active_units(host, param, first, n, unit, err);
    for (int64_t i = 0; i < n && status == MEST_OK; i++)
        rank[i] = (method_scored){ method_key(score[i]), (int32_t)i };
    if (status == MEST_OK)
        method_rank(rank, n);
    return status;
}

/* All slots are active (the methods that choose once or prune from all weights), or at least as many in each group as it keeps. */
static inline mest_status method_select_groups(const method *m, mest_host *host, method_scores scores, int param, const mest_sparse_info *info, int64_t keep,
                                               mest_error *err)
{
    const int64_t size = info->group_units, groups = info->n_units / size, share = keep / groups, extra = keep % groups;
    method_scored *rank = (method_scored *)method_take(m, host, size + groups, sizeof *rank, err), *next = rank ? rank + size : NULL;
    int64_t *unit = (int64_t *)method_take(m, host, size + info->n_active, sizeof *unit, err), *drop = unit ? unit + size : NULL, n_drop = 0;
    float *score = (float *)method_take(m, host, size, sizeof *score, err);
    mest_status status = rank && unit && score ? MEST_OK : MEST_E_NOMEM;
    int64_t at = 0;
    for (int pass = 0; pass < 2 && status == MEST_OK; pass++) { /* 0: the next unit of each group; 1: what goes */
        int64_t first = 0;
        for (int64_t g = 0; g < groups && status == MEST_OK; g++) {
            int64_t n = 0, id;
            while (n < size && first + n < info->n_active && status == MEST_OK) { /* how many are active in this group */
                status = m->api->active_units(host, param, first + n, 1, &id, err);
                if (status != MEST_OK || id / info->choices / size != g)
                    break;
                n++;
            }
            if (status == MEST_OK)
                status = method_group(m, host, scores, param, first, n, rank, unit, score, err);
            first += n;
            if (status != MEST_OK)
                break;
            if (pass == 0) {
                next[g] = (method_scored){ n > share ? rank[share].key : 0, (int32_t)g };
                continue;
            }
            const bool more = at < extra && next[at].place == g;
            const int64_t stay = share + more, old = n_drop;
            at += more;
            for (int64_t i = stay; i < n; i++)
                drop[n_drop++] = unit[rank[i].place];
            method_sort_ids(drop + old, n_drop - old);
        }
        if (pass == 0 && status == MEST_OK) { /* the first `extra` groups have one more; then by number */
            method_rank(next, groups);
            for (int64_t i = 0; i < extra; i++)
                next[i].key = UINT32_MAX - (uint32_t)next[i].place;
            method_rank(next, extra);
        }
    }
    if (status == MEST_OK)
        status = m->api->drop(host, param, drop, n_drop, err);
    method_give(m, host, score, size, sizeof *score);
    method_give(m, host, unit, size + info->n_active, sizeof *unit);
    method_give(m, host, rank, size + groups, sizeof *rank);
    return status;
}

/* ---- all or each ---- */

/* Proposes dropping all but the `keep` >= 1 units of largest score of parameters from..to-1 (equal scores: the earlier parameter and lower
 * unit stay). A parameter with groups keeps as many as that gives it, balanced. One that would end empty keeps its best unit, with a
 * warning. */
static inline mest_status method_select(const method *m, mest_host *host, method_scores scores, int from, int to, int64_t keep, mest_error *err)
{
    method_threshold *t = (method_threshold *)method_take(m, host, 1, sizeof *t, err);
    mest_status status = t ? method_kth(m, host, scores, from, to, keep, t, err) : MEST_E_NOMEM;
    int64_t need = t ? t->need : 0;
    for (int p = from; status == MEST_OK && p < to; p++) {
        mest_sparse_info info;
        int64_t before = need, kept, best, except = -1;
        status = method_info(m, host, p, &info, err);
        if (status == MEST_OK)
            status = method_split(m, host, scores, p, info.n_active, t, &need, &kept, NULL, -1, &best, err);
        if (status != MEST_OK || kept == info.n_active)
            continue;
        if (kept == 0) {
            char text[200];
            snprintf(text, sizeof text, "'%.100s' would end empty; its best unit stays", info.name);
            method_log(m, host, MEST_LOG_WARNING, text);
            except = best;
            kept = 1;
        }
        if (info.group_units > 0) {
            status = method_select_groups(m, host, scores, p, &info, kept, err);
            continue;
        }
        int64_t n = info.n_active - kept, *drop = (int64_t *)method_take(m, host, n, sizeof *drop, err);
        status = drop ? method_split(m, host, scores, p, info.n_active, t, &before, &kept, drop, except, &best, err) : MEST_E_NOMEM;
        if (status == MEST_OK)
            status = m->api->drop(host, p, drop, n, err);
        method_give(m, host, drop, n, sizeof *drop);
    }
    method_give(m, host, t, 1, sizeof *t);
    return status;
}

/* Down to the targets: all parameters together, or each on its own. */
static inline mest_status method_select_all(const method *m, mest_host *host, method_scores scores, mest_error *err)
{
    int64_t target, active;
    mest_status status = method_totals(m, host, &target, &active, err);
    return status == MEST_OK && target < active ? method_select(m, host, scores, 0, m->api->sparse_count(host), target > 0 ? target : 1, err) : status;
}

static inline mest_status method_select_each(const method *m, mest_host *host, method_scores scores, mest_error *err)
{
    mest_status status = MEST_OK;
    for (int p = 0; status == MEST_OK && p < m->api->sparse_count(host); p++) {
        mest_sparse_info info;
        status = method_info(m, host, p, &info, err);
        int64_t keep = status == MEST_OK ? method_units(m, host, p, info.target_sparsity) : 0;
        if (status == MEST_OK && keep < info.n_active)
            status = method_select(m, host, scores, p, p + 1, keep > 0 ? keep : 1, err);
    }
    return status;
}

#endif
