/* SPDX-License-Identifier: Apache-2.0 */
/* Random growth that keeps groups balanced. */
#include "sparse/balance.h"

#include <inttypes.h>
#include <string.h>

/* Group by group: its slots that cannot grow (active after the change, or excluded), ascending. */
typedef struct taken_groups {
    const mest_sparse *s;
    mest_cursor active;
    const int64_t *drop, *drop_end, *grow, *grow_end, *exclude, *exclude_end;
    int64_t group;  /* the next one */
    int64_t listed; /* the first unit of the three lists that is still to come, INT64_MAX: none */
} taken_groups;

static int64_t first_listed(const taken_groups *t)
{
    int64_t unit = t->drop < t->drop_end ? *t->drop : INT64_MAX;
    if (t->grow < t->grow_end && *t->grow < unit)
        unit = *t->grow;
    return t->exclude < t->exclude_end && *t->exclude < unit ? *t->exclude : unit;
}

/* Divisions are what these walks would take most of their time for. */
static int64_t slot_of(const mest_sparse *s, int64_t unit) { return s->choices == 1 ? unit : unit / s->choices; }

static void taken_init(taken_groups *t, const mest_sparse *s, const mest_change *change, const int64_t *exclude, int64_t n_exclude)
{
    static const mest_change none = { 0 };
    change = change ? change : &none;
    *t = (taken_groups){ .s = s, .drop = change->drop, .grow = change->grow, .exclude = exclude };
    mest_cursor_init(&t->active, s);
    t->drop_end = change->n_drop ? change->drop + change->n_drop : change->drop;
    t->grow_end = change->n_grow ? change->grow + change->n_grow : change->grow;
    t->exclude_end = n_exclude ? exclude + n_exclude : exclude;
    t->listed = first_listed(t);
}

static int64_t list_slot(const mest_sparse *s, const int64_t *at, const int64_t *end) { return at < end ? slot_of(s, *at) : INT64_MAX; }

/* A group that none of the lists has a unit of, which most are when few units move. `last`: units of the groups behind it begin there. */
static int64_t taken_untouched(taken_groups *t, int64_t first, int64_t last, int64_t *slots)
{
    int64_t n = 0;
    for (int64_t a; (a = mest_cursor_peek(&t->active)) < last; t->active.at++, n++)
        if (slots)
            slots[n] = slot_of(t->s, a) - first;
    return n;
}

/* slots (may be NULL): slot numbers within the group. Returns their number; *active: those that are not just excluded. */
static int64_t taken_next(taken_groups *t, int64_t *slots, int64_t *active)
{
    const mest_sparse *s = t->s;
    const int64_t first = t->group * s->group_units, end = first + s->group_units;
    int64_t n = 0;
    *active = 0;
    if (t->listed >= end * s->choices) {
        t->group++;
        return *active = taken_untouched(t, first, end * s->choices, slots);
    }
    for (;;) {
        int64_t a = mest_cursor_peek(&t->active);
        while (t->drop < t->drop_end && *t->drop <= a) { /* what is dropped is active now: skip it */
            if (*t->drop == a) {
                t->active.at++;
                a = mest_cursor_peek(&t->active);
            }
            t->drop++;
        }
        a = a == INT64_MAX ? a : slot_of(s, a);
        const int64_t g = list_slot(s, t->grow, t->grow_end), held = a < g ? a : g;
        const int64_t e = list_slot(s, t->exclude, t->exclude_end), slot = held < e ? held : e;
        if (slot >= end)
            break;
        if (slots)
            slots[n] = slot - first;
        n++;
        *active += held == slot;
        t->active.at += a == slot;
        if (g == slot)
            t->grow++;
        while (list_slot(s, t->exclude, t->exclude_end) == slot) /* several choices of one slot may be excluded */
            t->exclude++;
    }
    t->listed = first_listed(t);
    t->group++;
    return n;
}

/* open[l], l = 0..group_units: groups that hold at most l units and have room for more than l, which is what growth from level l to l + 1 takes.
 * One walk; the sum over all l is how many units could grow. */
static int64_t count_open(const taken_groups *start, int64_t *open)
{
    const mest_sparse *s = start->s;
    const int64_t groups = mest_groups(s);
    taken_groups t = *start;
    int64_t all = 0, active;
    memset(open, 0, (size_t)(s->group_units + 1) * sizeof *open);
    for (int64_t g = 0; g < groups; g++) {
        const int64_t taken = taken_next(&t, NULL, &active);
        open[active]++;
        open[active + s->group_units - taken]--;
        all += s->group_units - taken;
    }
    for (int64_t l = 1; l <= s->group_units; l++)
        open[l] += open[l - 1];
    return all;
}

/* Goes to a group all of whose predecessors hold `level` units each; drop: the first of its units that go. */
static void taken_seek(taken_groups *t, int64_t group, int64_t level, const int64_t *drop)
{
    const int64_t first = group * t->s->group_units * t->s->choices;
    t->group = group;
    t->drop = drop;
    mest_cursor_seek(&t->active, group * level);
    while (t->exclude < t->exclude_end && *t->exclude < first)
        t->exclude++;
    t->listed = first_listed(t);
}

/* Where each group was full and a few units went, as many grow there again: only groups that lost one are looked at. The result is that of a walk
 * over all. */
typedef struct lost_groups {
    const int64_t *at, *end; /* what is dropped */
    int64_t units, level;    /* ids of a group; units that each held */
} lost_groups;

static bool next_lost(lost_groups *l, taken_groups *t)
{
    if (l->at == l->end)
        return false;
    const int64_t group = *l->at / l->units;
    taken_seek(t, group, l->level, l->at);
    while (l->at < l->end && *l->at < (group + 1) * l->units)
        l->at++;
    return true;
}

static bool few_lost(const mest_sparse *s, const mest_change *change, int64_t n, lost_groups *l)
{
    if (!change || change->n_grow > 0 || n > change->n_drop || change->n_drop * 16 >= s->active_units)
        return false;
    *l = (lost_groups){ change->drop, change->drop + change->n_drop, s->group_units * s->choices, mest_sparse_group_most(s) };
    return s->active_units == mest_groups(s) * l->level; /* no group holds more than the most, so each holds just that */
}

/* open[l] of levels below the one that groups were full at; how many units could grow up to it. */
static int64_t count_lost(lost_groups l, taken_groups t, int64_t *open)
{
    int64_t all = 0, active;
    memset(open, 0, (size_t)(l.level + 1) * sizeof *open);
    while (next_lost(&l, &t)) {
        const int64_t taken = taken_next(&t, NULL, &active), most = active + t.s->group_units - taken, end = most < l.level ? most : l.level;
        for (int64_t level = active; level < end; level++)
            open[level]++;
        all += end > active ? end - active : 0;
    }
    return all;
}

mest_status mest_balance_sample(const mest_sparse *s, uint64_t seed, uint64_t stream, const mest_change *change, const int64_t *exclude,
                                int64_t n_exclude, int64_t n, int64_t *out, mest_error *err)
{
    taken_groups start, t;
    int64_t level = 0, extra = n;
    taken_init(&start, s, change, exclude, n_exclude);
    int64_t *at_level = s->group_room; /* two lists of group_units each, not yet in use */
    lost_groups lost;
    bool few = few_lost(s, change, n, &lost);
    if (few) {
        start.active.ahead = lost.level < MEST_CURSOR_ROOM ? lost.level : MEST_CURSOR_ROOM;
        few = n <= count_lost(lost, start, at_level); /* else others would grow beyond that level */
    }
    const int64_t all = few ? n : count_open(&start, at_level), levels = few ? lost.level : s->group_units;
    MEST_CHECK(n >= 0 && n <= all, err, MEST_E_LIMIT, "%s: %" PRId64 " units to grow, but only %" PRId64 " are free", s->name, n, all);
    if (n == 0)
        return MEST_OK;
    while (level < levels && extra >= at_level[level]) /* all groups that can come to this level */
        extra -= at_level[level++];
    const int64_t open = at_level[level];
    /* Which open groups get one more: ranks at the end of `out`, used up as fast as the front grows. */
    int64_t *lucky = out + n - extra, used = 0, rank = 0, done = 0;
    mest_draw_ranks(seed, mest_mix64(stream ^ 0x67726f7570u), open, extra, lucky);
    const mest_group_room room = mest_group_room_of(s);
    t = start;
    const int64_t groups = mest_groups(s);
    for (int64_t next = 0; next < groups && done < n; next++) {
        int64_t active;
        if (few && !next_lost(&lost, &t))
            break;
        const int64_t g = few ? t.group : next;
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
            out[done++] = slot * s->choices + mest_random_choice(s, seed, stream, slot);
        }
    }
    return MEST_OK;
}
