/* SPDX-License-Identifier: Apache-2.0 */
/* The slots of largest norm of each balance group, from a dense tensor that is read in pieces. An even share needs one pass. Where some groups
 * keep one slot more, these are the groups whose next slot is largest: a threshold over one key a group, and a second pass. */
#include "sparse/balance.h"

#include <string.h>

#include "sparse/piece.h"
#include "sparse/sort.h"
#include "sparse/threshold.h"

enum { SMALL = 16 /* slots of a group that are ranked by comparing each with each */, ROOM = 1 << 18 /* keys in memory: 1 MiB */ };

typedef struct groups {
    mest_piece piece;
    int64_t next;             /* slot of the piece */
    int64_t level;            /* slots that each group keeps */
    float norm[MEST_PIECE];   /* of the piece's slots */
    uint8_t choice[MEST_PIECE];
    mest_group_room room;     /* a large group: its slots as key << 32 | number, ascending, and the choice of each */
    mest_real *values;        /* of the best choice of each of its slots; NULL: not wanted */
} groups;

static mest_status next_piece(groups *g, mest_error *err)
{
    MEST_TRY(mest_piece_next(&g->piece, err));
    g->next = 0;
    if (g->piece.n_slots > 0)
        mest_piece_norms(&g->piece, g->norm, g->choice);
    return MEST_OK;
}

static void seek(void *self, int64_t part)
{
    groups *g = self;
    mest_piece_seek(&g->piece, part);
    g->next = 0;
}

/* ---- small groups, which lie within a piece (nm) ---- */

static bool is_small(const mest_sparse *s) { return s->group_units <= SMALL && s->choices == 1 && s->cell_units % s->group_units == 0; }

/* Ranks by key, of equal ones the first one first. No branches: what the keys are is not predictable. */
static inline void rank_keys(const uint32_t *key, int n, uint8_t *rank)
{
    for (int i = 0; i < n; i++) {
        rank[i] = 0;
        for (int k = 0; k < i; k++) {
            const uint8_t before = key[k] <= key[i];
            rank[i] = (uint8_t)(rank[i] + before);
            rank[k] = (uint8_t)(rank[k] + 1 - before);
        }
    }
}

static void rank_group(const float *norm, int32_t n, uint32_t *key, uint8_t *rank)
{
    for (int32_t i = 0; i < n; i++)
        key[i] = mest_descending(norm[i]);
    switch (n) { /* the common ones, unrolled */
    case 4: rank_keys(key, 4, rank); break;
    case 8: rank_keys(key, 8, rank); break;
    case 16: rank_keys(key, 16, rank); break;
    default: rank_keys(key, n, rank);
    }
}

/* The key that decides whether the group keeps one slot more: that of rank `level`. */
static uint32_t small_key(const float *norm, int32_t n, int64_t level)
{
    uint32_t key[SMALL], best = UINT32_MAX;
    uint8_t rank[SMALL];
    if (level == 0) {
        for (int32_t i = 0; i < n; i++) {
            const uint32_t k = mest_descending(norm[i]);
            best = k < best ? k : best;
        }
        return best;
    }
    rank_group(norm, n, key, rank);
    for (int32_t i = 0; i < n; i++)
        best = rank[i] == level ? key[i] : best;
    return best;
}

static mest_status next_small(void *self, uint32_t *key, int64_t *n, mest_error *err)
{
    groups *g = self;
    const int32_t size = (int32_t)g->piece.s->group_units;
    MEST_TRY(next_piece(g, err));
    *n = g->piece.n_slots / size;
    for (int64_t i = 0; i < *n; i++)
        key[i] = small_key(g->norm + i * size, size, g->level);
    return MEST_OK;
}

static mest_status take_small(groups *g, mest_sparse *s, mest_threshold *last, mest_appender *to, mest_error *err)
{
    const int32_t size = (int32_t)s->group_units;
    mest_real *values = s->values;
    uint32_t key[SMALL];
    uint8_t rank[SMALL];
    seek(g, 0);
    for (;;) {
        MEST_TRY(next_piece(g, err));
        if (g->piece.n_slots == 0)
            return MEST_OK;
        for (int64_t first = 0; first < g->piece.n_slots; first += size) {
            int64_t keep = g->level;
            keep += last && mest_threshold_take(last, small_key(g->norm + first, size, g->level));
            if (keep == 0)
                continue;
            rank_group(g->norm + first, size, key, rank);
            for (int32_t i = 0; i < size; i++)
                if (rank[i] < keep) {
                    const int64_t slot = g->piece.slot0 + first + i;
                    mest_piece_values(&g->piece, slot, 0, values);
                    values += s->unit_elements;
                    mest_appender_put(to, g->piece.b * s->unit_cols + slot);
                }
        }
    }
}

/* ---- others, which may begin in one piece and end in the next (pattern) ---- */

/* Reads on until a group is complete. False at the end. */
static mest_status next_group(groups *g, bool *found, mest_error *err)
{
    const mest_sparse *s = g->piece.s;
    *found = false;
    for (int64_t n = 0; n < s->group_units; n++, g->next++) {
        if (g->next == g->piece.n_slots) {
            MEST_TRY(next_piece(g, err));
            if (g->piece.n_slots == 0)
                return MEST_OK;
        }
        const int64_t choice = s->choices > 1 ? g->choice[g->next] : 0;
        g->room.a[n] = (int64_t)((uint64_t)mest_descending(g->norm[g->next]) << 32 | (uint64_t)n);
        g->room.b[n] = choice;
        if (g->values)
            mest_piece_values(&g->piece, g->piece.slot0 + g->next, (int32_t)choice, g->values + n * s->unit_elements);
    }
    mest_sort_ids(g->room.a, s->group_units, 62);
    *found = true;
    return MEST_OK;
}

static mest_status next_large(void *self, uint32_t *key, int64_t *n, mest_error *err)
{
    groups *g = self;
    bool found;
    MEST_TRY(next_group(g, &found, err));
    if (found)
        key[0] = (uint32_t)(g->room.a[g->level] >> 32);
    *n = found;
    return MEST_OK;
}

static mest_status take_large(groups *g, mest_sparse *s, mest_threshold *last, mest_appender *to, mest_error *err)
{
    const size_t bytes = (size_t)s->unit_elements * sizeof *s->values;
    mest_real *values = s->values;
    seek(g, 0);
    for (int64_t at = 0;; at += s->group_units) {
        bool found;
        MEST_TRY(next_group(g, &found, err));
        if (!found)
            return MEST_OK;
        int64_t keep = g->level;
        keep += last && mest_threshold_take(last, (uint32_t)(g->room.a[keep] >> 32));
        for (int64_t i = 0; i < keep; i++)
            g->room.a[i] &= 0xffffffff;
        mest_sort_ids(g->room.a, keep, 31);
        for (int64_t i = 0; i < keep; i++) {
            const int64_t n = g->room.a[i];
            memcpy(values, g->values + n * s->unit_elements, bytes);
            values += s->unit_elements;
            mest_appender_put(to, (at + n) * s->choices + g->room.b[n]);
        }
    }
}

mest_status mest_balance_magnitude(mest_sparse *s, const mest_reader *reader, int64_t n_units, mest_error *err)
{
    const int64_t n = mest_groups(s), extra = n ? n_units % n : 0, room = s->group_units * s->unit_elements;
    const bool small = is_small(s);
    groups g = { .piece = { .s = s, .reader = reader }, .level = n ? n_units / n : 0, .room = mest_group_room_of(s) };
    const mest_keys keys = { .total = n, .parts = small ? mest_piece_count(s) : 0, .room = ROOM, .seek = seek, .next = small ? next_small : next_large,
                             .self = &g, .heap = s->heap };
    mest_threshold last;
    mest_appender to;
    mest_status status = MEST_OK;
    if (!small)
        MEST_NEW(s->heap, g.values, room, err, "values of a group");
    mest_appender_init(&to, s);
    if (extra > 0)
        MEST_TRY_OUT(mest_threshold_find(&last, &keys, extra, err));
    if (n_units > 0)
        MEST_TRY_OUT((small ? take_small : take_large)(&g, s, extra > 0 ? &last : NULL, &to, err));
out:
    if (g.values)
        mest_free(s->heap, g.values, (size_t)room, sizeof *g.values);
    mest_appender_finish(&to); /* also after a failed read: whatever stands is a valid pattern */
    return status;
}
