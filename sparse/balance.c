/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/balance.h"

#include <string.h>

#include "runtime/rng.h"
#include "sparse/cursor.h"
#include "sparse/kth.h"
#include "sparse/sort.h"

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

/* above[l], l = 0..group_units: groups that have more than l units. One walk. */
static void count_above(const mest_sparse *s, int64_t *above)
{
    mest_cursor c;
    mest_cursor_init(&c, s);
    memset(above, 0, (size_t)(s->group_units + 1) * sizeof *above);
    while (c.at < s->active_units)
        above[take_group(&c, NULL) - 1]++;
    for (int64_t l = s->group_units; l-- > 0;)
        above[l] += above[l + 1];
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

void mest_balance_lowest(const mest_score *score, int64_t k, int64_t *out)
{
    const mest_sparse *s = score->s;
    int64_t level = 0, extra = s->active_units - k, *at_level = s->group_room; /* two lists of group_units each, not yet in use */
    count_above(s, at_level);
    while (level < s->group_units && extra >= at_level[level]) /* what stays if no group keeps more than `level` */
        extra -= at_level[level++];
    const int64_t above = at_level[level], lose = above - extra; /* of the groups above the level, `lose` come down to it */
    const mest_group_room room = mest_group_room_of(s);
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
}

/* ---- random ---- */

/* Groups, and the slots of each, by selection sampling (Knuth's algorithm S), keyed by group and slot. */
void mest_balance_random(mest_sparse *s, int64_t n_units, uint64_t seed, uint64_t stream)
{
    const int64_t groups = mest_groups(s), level = groups ? n_units / groups : 0;
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
                mest_appender_put(&to, slot * s->choices + mest_random_choice(s, seed, stream, slot));
                wanted--;
            }
        }
    }
    mest_appender_finish(&to);
}
