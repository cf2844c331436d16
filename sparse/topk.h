/* SPDX-License-Identifier: Apache-2.0 */
/* The k largest of a stream of (norm, unit) pairs, in the caller's two arrays of k: a heap with the least of them on top. Equal norms: the
 * lower unit is the larger one. The result depends on the pairs only, not on their order. */
#ifndef MEST_SPARSE_TOPK_H
#define MEST_SPARSE_TOPK_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mest_topk {
    int64_t k, n;
    int64_t *unit;
    float *norm;
} mest_topk;

static inline bool mest_topk_less(const mest_topk *t, int64_t i, float norm, int64_t unit)
{
    return t->norm[i] < norm || (t->norm[i] == norm && t->unit[i] > unit);
}

/* Puts the pair at i or below, where the heap wants it. */
static inline void mest_topk_sink(mest_topk *t, int64_t i, float norm, int64_t unit)
{
    for (int64_t child; (child = 2 * i + 1) < t->n; i = child) {
        if (child + 1 < t->n && mest_topk_less(t, child + 1, t->norm[child], t->unit[child]))
            child++;
        if (!mest_topk_less(t, child, norm, unit))
            break;
        t->norm[i] = t->norm[child];
        t->unit[i] = t->unit[child];
    }
    t->norm[i] = norm;
    t->unit[i] = unit;
}

static inline void mest_topk_put(mest_topk *t, float norm, int64_t unit)
{
    if (t->n == t->k) {
        if (t->k > 0 && mest_topk_less(t, 0, norm, unit))
            mest_topk_sink(t, 0, norm, unit);
        return;
    }
    int64_t i = t->n++;
    for (int64_t parent; i > 0; i = parent) {
        parent = (i - 1) / 2;
        if (mest_topk_less(t, parent, norm, unit))
            break;
        t->norm[i] = t->norm[parent];
        t->unit[i] = t->unit[parent];
    }
    t->norm[i] = norm;
    t->unit[i] = unit;
}

/* Ascending units, norms beside them; the heap is over. */
static inline void mest_topk_sort(mest_topk *t)
{
    int64_t n = t->n;
    for (int64_t start = n / 2, end = n; end > 1;) { /* heapsort by unit, largest to the end */
        float norm;
        int64_t unit, i;
        if (start > 0) {
            i = --start;
            norm = t->norm[i];
            unit = t->unit[i];
        } else {
            end--;
            norm = t->norm[end];
            unit = t->unit[end];
            t->norm[end] = t->norm[0];
            t->unit[end] = t->unit[0];
            i = 0;
        }
        for (int64_t child; (child = 2 * i + 1) < end; i = child) {
            if (child + 1 < end && t->unit[child + 1] > t->unit[child])
                child++;
            if (t->unit[child] <= unit)
                break;
            t->norm[i] = t->norm[child];
            t->unit[i] = t->unit[child];
        }
        t->norm[i] = norm;
        t->unit[i] = unit;
    }
}

#endif
