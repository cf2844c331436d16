/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the active units of a sparse weight in ascending order through a small buffer, whatever the format. */
#ifndef MEST_SPARSE_CURSOR_H
#define MEST_SPARSE_CURSOR_H

#include "sparse/format.h"

enum { MEST_CURSOR_ROOM = 256 };

typedef struct mest_cursor {
    const mest_sparse *s;
    int64_t at;        /* position of the next unit */
    int64_t base, end; /* positions in the buffer: [base, end) */
    int64_t ahead;     /* units that are fetched at a time */
    int64_t unit[MEST_CURSOR_ROOM];
} mest_cursor;

static inline void mest_cursor_init(mest_cursor *c, const mest_sparse *s)
{
    c->s = s;
    c->at = c->base = c->end = 0;
    c->ahead = MEST_CURSOR_ROOM;
}

/* Goes to any position; what is fetched already is used again. */
static inline void mest_cursor_seek(mest_cursor *c, int64_t at)
{
    c->at = at;
    if (at < c->base)
        c->end = at; /* nothing */
}

/* The unit at c->at without moving; INT64_MAX past the end. */
static inline int64_t mest_cursor_peek(mest_cursor *c)
{
    if (c->at >= c->s->active_units)
        return INT64_MAX;
    if (c->at >= c->end) {
        int64_t left = c->s->active_units - c->at;
        c->base = c->at;
        c->end = c->at + (left < c->ahead ? left : c->ahead);
        c->s->format->units(c->s, c->base, c->end - c->base, c->unit);
    }
    return c->unit[c->at - c->base];
}

/* Makes the counts and versions agree with a new pattern. */
static inline void mest_sparse_changed(mest_sparse *s)
{
    s->stored = s->active_units * s->unit_elements;
    s->version++;
    s->value_version++;
}

/* Appends units one at a time through a buffer; flush at the end. */
typedef struct mest_appender {
    mest_sparse *s;
    int64_t n;
    int64_t unit[MEST_CURSOR_ROOM];
} mest_appender;

static inline void mest_appender_flush(mest_appender *a)
{
    a->s->format->append(a->s, a->unit, a->n);
    a->n = 0;
}

/* Forgets the old pattern. */
static inline void mest_appender_init(mest_appender *a, mest_sparse *s)
{
    a->s = s;
    a->n = 0;
    s->active_units = 0;
    s->format->append(s, NULL, 0);
}

static inline void mest_appender_put(mest_appender *a, int64_t unit)
{
    if (a->n == MEST_CURSOR_ROOM)
        mest_appender_flush(a);
    a->unit[a->n++] = unit;
}

/* After the last put: flushes, and makes the counts and versions agree with the new pattern. */
static inline void mest_appender_finish(mest_appender *a)
{
    mest_appender_flush(a);
    a->s->format->finish(a->s);
    mest_sparse_changed(a->s);
}

/* Runs the code given last with row, col and e (row and column of M, position in storage) for each entry of active units [from, to) that is not padding:
 * the generic path, which serves any format. A kernel of one format reads its index instead. */
#define MEST_FOR_ENTRIES(s, from, to, ...)                                                                                      \
    do {                                                                                                                        \
        int32_t row_[1024], col_[1024];                                                                                         \
        const int64_t batch_ = mest_sparse_batch(s, 1024);                                                                      \
        for (int64_t first_ = (from); first_ < (to); first_ += batch_) {                                                        \
            const int64_t n_ = (to) - first_ < batch_ ? (to) - first_ : batch_;                                                 \
            mest_sparse_entries(s, first_, n_, row_, col_);                                                                     \
            for (int64_t i_ = 0; i_ < n_ * (s)->unit_elements; i_++) {                                                          \
                const int64_t row = row_[i_], col = col_[i_], e = first_ * (s)->unit_elements + i_;                             \
                if (col < 0 || row >= (s)->rows)                                                                                \
                    continue;                                                                                                   \
                __VA_ARGS__                                                                                                     \
            }                                                                                                                   \
        }                                                                                                                       \
    } while (0)

/* Ascending, distinct and within 0..limit-1? */
static inline bool mest_units_valid(const int64_t *units, int64_t n, int64_t limit)
{
    for (int64_t i = 0; i < n; i++)
        if (units[i] < (i ? units[i - 1] + 1 : 0) || units[i] >= limit)
            return false;
    return true;
}

#endif
