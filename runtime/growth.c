/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/growth.h"

#include <string.h>

#include "sparse/cursor.h"

/* ---- how full groups are ---- */

typedef struct count_walk {
    mest_cursor active;
    const mest_growth_lists *lists;
    int64_t at[3];
} count_walk;

static bool next_is(const mest_growth_lists *l, int64_t *at, int which, int64_t unit)
{
    while (at[which] < l->n[which] && l->list[which][at[which]] < unit)
        at[which]++;
    return at[which] < l->n[which] && l->list[which][at[which]] == unit;
}

/* Slots of the next group (ids below `end`) that are not free. */
static int64_t count_group(count_walk *w, int64_t end)
{
    int64_t n = 0;
    for (; mest_cursor_peek(&w->active) < end; w->active.at++) {
        const int64_t unit = mest_cursor_peek(&w->active);
        const bool first = next_is(w->lists, w->at, 0, unit), second = next_is(w->lists, w->at, 1, unit);
        n += !first && !second;
    }
    for (; w->at[2] < w->lists->n[2] && w->lists->list[2][w->at[2]] < end; w->at[2]++)
        n++;
    return n;
}

/* Units needed to bring every group to `level`. */
static int64_t needed(const mest_sparse *s, const mest_growth_lists *lists, int64_t level)
{
    const int64_t span = s->group_units * s->choices, groups = s->n_units / s->group_units;
    count_walk w = { .lists = lists };
    int64_t n = 0;
    mest_cursor_init(&w.active, s);
    for (int64_t g = 0; g < groups; g++) {
        const int64_t held = count_group(&w, (g + 1) * span);
        n += held < level ? level - held : 0;
    }
    return n;
}

mest_status mest_growth_open(mest_growth *g, const mest_sparse *s, const mest_growth_lists *lists, int64_t k, int64_t *units, float *norms, mest_error *err)
{
    *g = (mest_growth){ .s = s, .units = units, .norms = norms, .k = k, .slot = -1, .best = -1 };
    g->top = (mest_topk){ .k = k, .unit = units, .norm = norms };
    if (s->group_units == 0)
        return MEST_OK;
    int64_t high = s->group_units + 1;
    while (high - g->level > 1) { /* needed(level) <= k < needed(high) */
        const int64_t middle = g->level + (high - g->level) / 2;
        if (needed(s, lists, middle) <= k)
            g->level = middle;
        else
            high = middle;
    }
    const int64_t direct = needed(s, lists, g->level);
    g->top = (mest_topk){ .k = k - direct, .unit = units + direct, .norm = norms + direct };
    MEST_NEW(s->heap, g->slots.unit, s->group_units, err, "growth of a group");
    g->slots.norm = mest_alloc(s->heap, (size_t)s->group_units, sizeof *g->slots.norm);
    if (!g->slots.norm) {
        mest_free(s->heap, g->slots.unit, (size_t)s->group_units, sizeof *g->slots.unit);
        g->slots.unit = NULL;
        return mest_fail(err, MEST_E_NOMEM, "growth of a group: no memory");
    }
    return MEST_OK;
}

int64_t mest_growth_bytes(const mest_growth *g)
{
    return g->slots.unit ? g->s->group_units * (int64_t)(sizeof *g->slots.unit + sizeof *g->slots.norm) : 0;
}

/* ---- the stream ---- */

static void end_slot(mest_growth *g)
{
    if (g->slot >= 0 && g->slot_held) {
        g->held++;
    } else if (g->slot >= 0) {
        g->slots.unit[g->slots.n] = g->best;
        g->slots.norm[g->slots.n++] = g->best_norm;
    }
    g->slot = -1;
}

static void end_group(mest_growth *g)
{
    mest_topk *t = &g->slots;
    end_slot(g);
    const int64_t want = g->level - g->held;
    for (int64_t gap = t->n / 2; gap > 0; gap /= 2) /* best first; groups are small */
        for (int64_t i = gap; i < t->n; i++) {
            const float norm = t->norm[i];
            const int64_t unit = t->unit[i];
            int64_t j = i;
            for (; j >= gap && mest_topk_less(t, j - gap, norm, unit); j -= gap) {
                t->norm[j] = t->norm[j - gap];
                t->unit[j] = t->unit[j - gap];
            }
            t->norm[j] = norm;
            t->unit[j] = unit;
        }
    int64_t i = 0;
    for (; i < want && i < t->n; i++) {
        g->units[g->n] = t->unit[i];
        g->norms[g->n++] = t->norm[i];
    }
    if (want >= 0 && i < t->n)
        mest_topk_put(&g->top, t->norm[i], t->unit[i]);
    t->n = g->held = 0;
}

void mest_growth_put(mest_growth *g, int64_t unit, float norm, bool held)
{
    const mest_sparse *s = g->s;
    if (s->group_units == 0) {
        if (!held)
            mest_topk_put(&g->top, norm, unit);
        return;
    }
    const int64_t slot = unit / s->choices, group = slot / s->group_units;
    if (group != g->group) {
        end_group(g);
        g->group = group;
    } else if (slot != g->slot) {
        end_slot(g);
    }
    if (slot != g->slot) {
        g->slot = slot;
        g->best = unit;
        g->best_norm = norm;
        g->slot_held = false;
    } else if (norm > g->best_norm) {
        g->best = unit;
        g->best_norm = norm;
    }
    g->slot_held |= held;
}

int64_t mest_growth_close(mest_growth *g)
{
    if (!g->s)
        return 0;
    if (g->s->group_units) {
        end_group(g);
        if (g->n < g->k - g->top.k) { /* fewer free slots than the level asked for: close the gap */
            memmove(g->units + g->n, g->top.unit, (size_t)g->top.n * sizeof *g->units);
            memmove(g->norms + g->n, g->top.norm, (size_t)g->top.n * sizeof *g->norms);
        }
    }
    mest_topk all = { .k = g->k, .n = g->n + g->top.n, .unit = g->units, .norm = g->norms };
    mest_topk_sort(&all);
    mest_free(g->s->heap, g->slots.unit, (size_t)g->s->group_units, sizeof *g->slots.unit);
    mest_free(g->s->heap, g->slots.norm, (size_t)g->s->group_units, sizeof *g->slots.norm);
    *g = (mest_growth){ 0 };
    return all.n;
}
