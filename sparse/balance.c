/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/balance.h"

#include <inttypes.h>
#include <string.h>

#include "runtime/rng.h"
#include "sparse/cursor.h"
#include "sparse/kth.h"
#include "sparse/piece.h"
#include "sparse/sort.h"

/* What a group holds while it is looked at: one allocation, released at the end of the call. */
typedef struct group_room {
    mest_heap *heap;
    int64_t *a, *b; /* group_units each */
    int64_t n;
} group_room;

static mest_status room_get(group_room *g, const mest_sparse *s, mest_error *err)
{
    *g = (group_room){ .heap = s->heap, .n = s->group_units };
    MEST_NEW(s->heap, g->a, 2 * g->n, err, "scores of a group");
    g->b = g->a + g->n;
    return MEST_OK;
}

static void room_free(group_room *g) { mest_free(g->heap, g->a, (size_t)(2 * g->n), sizeof *g->a); }

static int64_t groups_of(const mest_sparse *s) { return s->n_units / s->group_units; }
static int64_t group_of(const mest_sparse *s, int64_t unit) { return unit / (s->group_units * s->choices); }

/* ---- lowest ---- */

/* Number of active units of the group of the cursor's unit; the cursor moves behind it. ids (may be NULL): their unit ids. */
static int64_t take_group(mest_cursor *c, int64_t *ids)
{
    const int64_t group = group_of(c->s, mest_cursor_peek(c));
    int64_t n = 0;
    for (; mest_cursor_peek(c) != INT64_MAX && group_of(c->s, mest_cursor_peek(c)) == group; c->at++, n++)
        if (ids)
            ids[n] = mest_cursor_peek(c);
    return n;
}

/* Units that stay if no group keeps more than `level`. above: groups that have more. */
static int64_t kept_at(const mest_sparse *s, int64_t level, int64_t *above)
{
    mest_cursor c;
    int64_t kept = 0;
    mest_cursor_init(&c, s);
    *above = 0;
    while (c.at < s->active_units) {
        const int64_t n = take_group(&c, NULL);
        kept += n < level ? n : level;
        *above += n > level;
    }
    return kept;
}

/* The n units of a group that starts at position `first`: key << 32 | number, ascending, so that the last ones stay. */
static void rank_group(const mest_score *score, int64_t first, int64_t n, int64_t *item)
{
    for (int64_t i = 0; i < n; i++) {
        const uint32_t key = mest_float_bits(fabsf(mest_score_of(score, first + i)));
        item[i] = (int64_t)((uint64_t)key << 32 | (uint64_t)i);
    }
    mest_sort_ids(item, n, 62);
}

mest_status mest_balance_lowest(const mest_score *score, int64_t k, int64_t *out, mest_error *err)
{
    const mest_sparse *s = score->s;
    const int64_t keep = s->active_units - k;
    int64_t level = 0, high = s->group_units + 1, above;
    while (high - level > 1) { /* kept_at(level) <= keep < kept_at(high) */
        const int64_t middle = level + (high - level) / 2;
        if (kept_at(s, middle, &above) <= keep)
            level = middle;
        else
            high = middle;
    }
    const int64_t extra = keep - kept_at(s, level, &above), lose = above - extra; /* of the groups above the level, `lose` come down to it */
    group_room room;
    MEST_TRY(room_get(&room, s, err));
    mest_kth kth;
    mest_cursor c;
    mest_kth_init(&kth, lose);
    for (int pass = 0; pass < MEST_KTH_PASSES && lose > 0 && lose < above; pass++) {
        mest_cursor_init(&c, s);
        while (c.at < s->active_units) {
            const int64_t first = c.at, n = take_group(&c, NULL);
            if (n <= level)
                continue;
            rank_group(score, first, n, room.a);
            mest_kth_count(&kth, (uint32_t)(room.a[n - level - 1] >> 32));
        }
        mest_kth_next(&kth);
    }
    int64_t done = 0;
    mest_cursor_init(&c, s);
    while (c.at < s->active_units) {
        const int64_t first = c.at, n = take_group(&c, room.b);
        if (n <= level)
            continue;
        rank_group(score, first, n, room.a);
        int64_t drop = n - level - 1;
        drop += lose == above || (lose > 0 && mest_kth_take(&kth, (uint32_t)(room.a[drop] >> 32)));
        for (int64_t i = 0; i < drop; i++)
            out[done + i] = room.b[room.a[i] & 0xffffffff];
        mest_sort_ids(out + done, drop, 62);
        done += drop;
    }
    room_free(&room);
    return MEST_OK;
}

/* ---- magnitude ---- */

/* Reads on until a group is complete: its slots as key << 32 | number, ascending (the first ones stay), and the best choice of each.
 * False at the end. */
typedef struct group_reader {
    mest_piece piece;
    int64_t next; /* slot of the piece */
} group_reader;

static mest_status read_group(group_reader *r, int64_t *item, int64_t *choice, bool *found, mest_error *err)
{
    const mest_sparse *s = r->piece.s;
    *found = false;
    for (int64_t n = 0; n < s->group_units;) {
        if (r->next == r->piece.n_slots) {
            MEST_TRY(mest_piece_next(&r->piece, err));
            r->next = 0;
            if (r->piece.n_cols == 0)
                return MEST_OK;
        }
        uint32_t best = 0;
        choice[n] = 0;
        for (int32_t i = 0; i < s->choices; i++) {
            const uint32_t key = mest_float_bits(mest_piece_norm(&r->piece, r->piece.slot0 + r->next, i)) & 0x7fffffff;
            if (key > best) {
                best = key;
                choice[n] = i;
            }
        }
        item[n] = (int64_t)((uint64_t)(0x7fffffff - best) << 32 | (uint64_t)n);
        r->next++;
        n++;
    }
    mest_sort_ids(item, s->group_units, 62);
    *found = true;
    return MEST_OK;
}

mest_status mest_balance_magnitude(mest_sparse *s, const mest_reader *reader, int64_t n_units, mest_error *err)
{
    const int64_t groups = groups_of(s), level = groups ? n_units / groups : 0, extra = groups ? n_units % groups : 0;
    group_reader r = { .piece = { .s = s, .reader = reader } };
    group_room room;
    mest_kth kth;
    mest_appender to;
    bool found;
    mest_status status = MEST_OK;
    mest_appender_init(&to, s);
    MEST_TRY_OUT(room_get(&room, s, err));
    mest_kth_init(&kth, extra);
    for (int pass = 0; pass < MEST_KTH_PASSES && extra > 0; pass++) {
        mest_piece_rewind(&r.piece);
        r.next = 0;
        for (;;) {
            MEST_TRY_OUT(read_group(&r, room.a, room.b, &found, err));
            if (!found)
                break;
            mest_kth_count(&kth, (uint32_t)(room.a[level] >> 32));
        }
        mest_kth_next(&kth);
    }
    mest_piece_rewind(&r.piece);
    r.next = 0;
    for (int64_t g = 0; g < groups && n_units > 0; g++) {
        MEST_TRY_OUT(read_group(&r, room.a, room.b, &found, err));
        if (!found)
            break;
        const int64_t keep = level + (extra > 0 && mest_kth_take(&kth, (uint32_t)(room.a[level] >> 32)));
        for (int64_t i = 0; i < keep; i++)
            room.a[i] &= 0xffffffff;
        mest_sort_ids(room.a, keep, 31);
        for (int64_t i = 0; i < keep; i++)
            mest_appender_put(&to, (g * s->group_units + room.a[i]) * s->choices + room.b[room.a[i]]);
    }
out:
    mest_appender_finish(&to);
    room_free(&room);
    return status;
}

/* ---- random ---- */

static int64_t random_choice(const mest_sparse *s, uint64_t seed, uint64_t stream, int64_t slot)
{
    return s->choices == 1 ? 0 : (int64_t)mest_rng_below(seed, mest_mix64(stream ^ 0x63686f696365u), (uint64_t)slot, (uint64_t)s->choices);
}

/* Groups, and the slots of each, by selection sampling (Knuth's algorithm S), keyed by group and slot. */
void mest_balance_random(mest_sparse *s, int64_t n_units, uint64_t seed, uint64_t stream)
{
    const int64_t groups = groups_of(s), level = groups ? n_units / groups : 0;
    const uint64_t group_stream = mest_mix64(stream ^ 0x67726f7570u);
    int64_t extra = groups ? n_units % groups : 0;
    mest_appender to;
    mest_appender_init(&to, s);
    for (int64_t g = 0; g < groups; g++) {
        int64_t wanted = level;
        if (extra > 0 && (int64_t)mest_rng_below(seed, group_stream, (uint64_t)g, (uint64_t)(groups - g)) < extra) {
            wanted++;
            extra--;
        }
        for (int64_t i = 0; wanted > 0; i++) {
            const int64_t slot = g * s->group_units + i;
            if ((int64_t)mest_rng_below(seed, stream, (uint64_t)slot, (uint64_t)(s->group_units - i)) < wanted) {
                mest_appender_put(&to, slot * s->choices + random_choice(s, seed, stream, slot));
                wanted--;
            }
        }
    }
    mest_appender_finish(&to);
}

/* ---- sampling ---- */

/* Group by group: its slots that cannot be drawn, ascending, and how many of them are active (and not freed). */
typedef struct taken_groups {
    const mest_sparse *s;
    mest_cursor active;
    const int64_t *freed, *freed_end, *exclude, *exclude_end;
    int64_t group; /* the next one */
} taken_groups;

static void taken_init(taken_groups *t, const mest_sparse *s, const int64_t *freed, int64_t n_freed, const int64_t *exclude, int64_t n_exclude)
{
    t->s = s;
    mest_cursor_init(&t->active, s);
    t->freed = freed;
    t->freed_end = n_freed ? freed + n_freed : freed;
    t->exclude = exclude;
    t->exclude_end = n_exclude ? exclude + n_exclude : exclude;
    t->group = 0;
}

static int64_t list_slot(const mest_sparse *s, const int64_t *at, const int64_t *end) { return at < end ? *at / s->choices : INT64_MAX; }

/* slots (may be NULL): slot numbers within the group. Returns their number. */
static int64_t taken_next(taken_groups *t, int64_t *slots, int64_t *active)
{
    const mest_sparse *s = t->s;
    const int64_t first = t->group * s->group_units, end = first + s->group_units;
    int64_t n = 0;
    *active = 0;
    for (;;) {
        int64_t a = mest_cursor_peek(&t->active);
        while (t->freed < t->freed_end && *t->freed <= a) { /* freed units are active ones: skip them */
            if (*t->freed == a) {
                t->active.at++;
                a = mest_cursor_peek(&t->active);
            }
            t->freed++;
        }
        a = a == INT64_MAX ? a : a / s->choices;
        const int64_t e = list_slot(s, t->exclude, t->exclude_end), slot = a < e ? a : e;
        if (slot >= end)
            break;
        if (slots)
            slots[n] = slot - first;
        n++;
        if (a == slot) {
            ++*active;
            t->active.at++;
        }
        while (list_slot(s, t->exclude, t->exclude_end) == slot) /* several choices of one slot may be excluded */
            t->exclude++;
    }
    t->group++;
    return n;
}

/* Units that would be grown if every group were filled up to `level`; groups that could then take one more. */
static int64_t filled_at(const taken_groups *start, int64_t level, int64_t *open)
{
    const mest_sparse *s = start->s;
    const int64_t groups = groups_of(s);
    taken_groups t = *start;
    int64_t sum = 0, active;
    *open = 0;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t taken = taken_next(&t, NULL, &active), most = active + s->group_units - taken;
        const int64_t to = level < active ? active : level > most ? most : level;
        sum += to - active;
        *open += active <= level && level < most;
    }
    return sum;
}

mest_status mest_balance_sample(const mest_sparse *s, uint64_t seed, uint64_t stream, const int64_t *freed, int64_t n_freed,
                                const int64_t *exclude, int64_t n_exclude, int64_t n, int64_t *out, mest_error *err)
{
    taken_groups start, t;
    int64_t open, level = 0, high = s->group_units;
    taken_init(&start, s, freed, n_freed, exclude, n_exclude);
    const int64_t all = filled_at(&start, high, &open);
    MEST_CHECK(n >= 0 && n <= all, err, MEST_E_LIMIT, "%s: %" PRId64 " units to grow, but only %" PRId64 " are free", s->name, n, all);
    if (n == 0)
        return MEST_OK;
    if (n == all)
        level = high;
    while (level < high && high - level > 1) { /* filled_at(level) <= n < filled_at(high) */
        const int64_t middle = level + (high - level) / 2;
        if (filled_at(&start, middle, &open) <= n)
            level = middle;
        else
            high = middle;
    }
    const int64_t extra = n - filled_at(&start, level, &open);
    /* Which open groups get one more: ranks at the end of `out`, used up as fast as the front grows. */
    int64_t *lucky = out + n - extra, used = 0, rank = 0, done = 0;
    mest_draw_ranks(seed, mest_mix64(stream ^ 0x67726f7570u), open, extra, lucky);
    group_room room;
    MEST_TRY(room_get(&room, s, err));
    t = start;
    const int64_t groups = groups_of(s);
    for (int64_t g = 0; g < groups && done < n; g++) {
        int64_t active;
        const int64_t taken = taken_next(&t, room.a, &active), most = active + s->group_units - taken;
        int64_t grow = (level < active ? active : level > most ? most : level) - active;
        if (active <= level && level < most) {
            if (used < extra && lucky[used] == rank) {
                grow++;
                used++;
            }
            rank++;
        }
        if (grow == 0)
            continue;
        mest_draw_ranks(seed, mest_mix64(mest_mix64(stream) ^ (uint64_t)g), s->group_units - taken, grow, room.b);
        for (int64_t i = 0, below = 0; i < grow; i++) { /* rank r of the free slots is slot r + (taken slots at or below it) */
            while (below < taken && room.a[below] <= room.b[i] + below)
                below++;
            const int64_t slot = g * s->group_units + room.b[i] + below;
            out[done++] = slot * s->choices + random_choice(s, seed, stream, slot);
        }
    }
    room_free(&room);
    return MEST_OK;
}
