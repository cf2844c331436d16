/* SPDX-License-Identifier: Apache-2.0 */
/* Greedy placement: spans are taken in some order, and each goes to a gap among those already placed that live at the same time.
 *
 * By size, largest first, is the order of Pisarchyk and Lee 2020 ("Efficient memory management for deep neural net inference") and nearly always
 * the best; where it leaves a hole, by area (size x time), by the time of birth, or the tightest gap instead of the lowest does better. If
 * there are holes still, whatever lies on top of the best is taken earlier, some rounds long. The best is taken; ties are broken by number, so
 * the plan is the same everywhere. */
#include "runtime/place.h"

#include <string.h>

enum { ROUNDS = 60, COMPARISONS = 500 * 1000 * 1000 }; /* most of each, so that graphs of ten thousand nodes are placed in a second */

typedef enum rule { BY_SIZE, BY_AREA, BY_BIRTH, BY_END, N_RULES } rule;

static bool before(const mest_span *a, const mest_span *b, rule by)
{
    const int64_t time_a = (int64_t)a->last - a->first + 1, time_b = (int64_t)b->last - b->first + 1;
    switch (by) {
    case BY_AREA: {
        const double area_a = (double)a->bytes * (double)time_a, area_b = (double)b->bytes * (double)time_b;
        if (area_a < area_b || area_b < area_a)
            return area_a > area_b;
        break;
    }
    case BY_BIRTH:
        if (a->first != b->first)
            return a->first < b->first;
        break;
    case BY_END:
        if (a->last != b->last)
            return a->last > b->last;
        break;
    case BY_SIZE:
    case N_RULES: break;
    }
    if (a->bytes != b->bytes)
        return a->bytes > b->bytes;
    if (time_a != time_b)
        return time_a > time_b;
    return a->id < b->id;
}

static void sort(mest_span *s, int32_t n, rule by)
{
    for (int32_t gap = n / 2; gap > 0; gap /= 2) /* shell sort: no recursion, no callback, n is a few thousand */
        for (int32_t i = gap; i < n; i++) {
            const mest_span t = s[i];
            int32_t k = i;
            for (; k >= gap && before(&t, &s[k - gap], by); k -= gap)
                s[k] = s[k - gap];
            s[k] = t;
        }
}

/* low: those placed so far, by ascending offset. Returns where the span goes. */
static size_t gap_for(const mest_span *spans, const int32_t *low, int32_t n, const mest_span *s, bool tightest)
{
    size_t at = 0, best = SIZE_MAX, best_gap = SIZE_MAX;
    for (int32_t i = 0; i < n; i++) {
        const mest_span *o = &spans[low[i]];
        if (o->last < s->first || s->last < o->first)
            continue;
        if (o->offset > at && o->offset - at >= s->bytes) {
            if (!tightest)
                return at;
            if (o->offset - at < best_gap) {
                best_gap = o->offset - at;
                best = at;
            }
        }
        if (o->offset + o->bytes > at)
            at = o->offset + o->bytes;
    }
    return best < at ? best : at;
}

static size_t place_all(mest_span *spans, int32_t *low, int32_t n, bool tightest)
{
    size_t end = 0;
    for (int32_t i = 0; i < n; i++) {
        spans[i].offset = gap_for(spans, low, i, &spans[i], tightest);
        if (spans[i].offset + spans[i].bytes > end)
            end = spans[i].offset + spans[i].bytes;
        int32_t k = i;
        for (; k > 0 && spans[low[k - 1]].offset > spans[i].offset; k--)
            low[k] = low[k - 1];
        low[k] = i;
    }
    return end;
}

/* Rounds in which the span on top is moved towards the front of the order; `kept` ends as the best spans with their offsets. */
static size_t raise_top(mest_span *spans, mest_span *kept, int32_t *low, int32_t n, size_t bound, size_t best)
{
    size_t size = best;
    const int64_t most = COMPARISONS / ((int64_t)n * n);
    for (int round = 0; round < ROUNDS && round < most && best > bound; round++) {
        int32_t top = 0;
        for (int32_t i = 1; i < n; i++)
            if (spans[i].offset + spans[i].bytes == size)
                top = i; /* the last of them: the one that found everything taken */
        const int32_t to = round % 2 ? 0 : top / 2;
        const mest_span moved = spans[top];
        memmove(&spans[to + 1], &spans[to], (size_t)(top - to) * sizeof *spans);
        spans[to] = moved;
        size = place_all(spans, low, n, false);
        if (size < best) {
            best = size;
            memcpy(kept, spans, (size_t)n * sizeof *kept);
        }
    }
    return best;
}

mest_status mest_place(mest_heap *heap, mest_span *spans, int32_t n, size_t bound, size_t *end, mest_error *err)
{
    *end = 0;
    if (n == 0)
        return MEST_OK;
    int32_t *low = mest_alloc(heap, (size_t)n, sizeof *low);
    mest_span *kept = mest_alloc(heap, (size_t)n, sizeof *kept);
    mest_status status = MEST_OK;
    if (low && kept) {
        size_t best = SIZE_MAX;
        for (int by = 0; by < N_RULES && best > bound; by++)
            for (int tight = 0; tight < 2 && best > bound; tight++) {
                sort(spans, n, (rule)by);
                const size_t size = place_all(spans, low, n, tight);
                if (size < best) {
                    best = size;
                    memcpy(kept, spans, (size_t)n * sizeof *kept);
                }
            }
        memcpy(spans, kept, (size_t)n * sizeof *kept);
        *end = raise_top(spans, kept, low, n, bound, best);
        memcpy(spans, kept, (size_t)n * sizeof *kept);
    } else {
        status = mest_fail(err, MEST_E_NOMEM, "memory plan: no memory to place %d values", n);
    }
    mest_free(heap, low, (size_t)n, sizeof *low);
    mest_free(heap, kept, (size_t)n, sizeof *kept);
    return status;
}
