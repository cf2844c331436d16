/* SPDX-License-Identifier: Apache-2.0 */
/* One change of pattern, in place. Of a few units: what lies between them moves up or down (moves.h), everything else is left alone. Of many: values
 * and optimizer slots are first closed up over the dropped units, then opened for the new ones, and the index is rebuilt from a copy of the old
 * one. Nothing is allocated. */
#include "sparse/format.h"

#include <inttypes.h>
#include <string.h>

#include "sparse/cursor.h"
#include "sparse/moves.h"

size_t mest_sparse_edit_scratch(const mest_sparse *s, int n_slots)
{
    (void)n_slots; /* slots are moved in place */
    return s->format->index_bytes(s, s->cap_units);
}

static mest_status check_order(const mest_sparse *s, const char *what, const int64_t *units, int64_t n, mest_error *err)
{
    MEST_CHECK(n >= 0 && mest_units_valid(units, n, mest_sparse_ids(s)), err, MEST_E_ARGUMENT,
               "%s: units to %s are not ascending, distinct and below %" PRId64, s->name, what, mest_sparse_ids(s));
    return MEST_OK;
}

/* Walks the pattern as it will be, from active unit c->at on and as far as units below `end`: one choice a slot, no group too full. *d and *g: where
 * the lists are. Ends of slots and groups are compared with, not divided by. */
static mest_status check_part(const mest_sparse *s, mest_cursor *c, int64_t end, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow,
                              int64_t *d, int64_t *g, mest_error *err)
{
    const int64_t most = mest_sparse_group_most(s), span = s->group_units * s->choices;
    int64_t before = -1, in_group = 0, slot_end = 0, group_end = 0;
    for (;;) {
        while (*d < n_drop && drop[*d] < end && mest_cursor_peek(c) == drop[*d]) {
            c->at++;
            ++*d;
        }
        const int64_t old = mest_cursor_peek(c), new = *g < n_grow ? grow[*g] : INT64_MAX, unit = old < new ? old : new;
        if (unit >= end)
            return MEST_OK;
        MEST_CHECK(unit >= slot_end, err, MEST_E_ARGUMENT,
                   "%s: units %" PRId64 " and %" PRId64 " are two choices of one slot, only one can be active", s->name, before, unit);
        slot_end = s->choices == 1 ? unit + 1 : (unit / s->choices + 1) * s->choices;
        in_group = unit < group_end ? in_group + 1 : 1;
        group_end = in_group > 1 ? group_end : (unit / span + 1) * span;
        MEST_CHECK(in_group <= most, err, MEST_E_LIMIT, "%s: the group of unit %" PRId64 " would hold more than %" PRId64 " units", s->name, unit, most);
        before = unit;
        if (old < new)
            c->at++;
        else
            ++*g;
    }
}

/* Looking for a place costs as much as walking over this many, or more. */
static bool are_few(const mest_sparse *s, int64_t n_drop, int64_t n_grow) { return (n_drop + n_grow) * 16 < s->active_units; }

static mest_status check_result(const mest_sparse *s, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow, mest_error *err)
{
    const int64_t span = s->group_units * s->choices;
    int64_t d = 0, g = 0;
    mest_cursor c;
    mest_cursor_init(&c, s);
    if (!are_few(s, n_drop, n_grow))
        return check_part(s, &c, INT64_MAX, drop, n_drop, grow, n_grow, &d, &g, err);
    c.ahead = s->group_units < MEST_CURSOR_ROOM ? s->group_units : MEST_CURSOR_ROOM;
    while (g < n_grow) { /* only what grows can break a group */
        const int64_t first = grow[g] / span * span;
        while (d < n_drop && drop[d] < first)
            d++;
        mest_cursor_seek(&c, mest_sparse_lower_bound(s, first));
        MEST_TRY(check_part(s, &c, first + span, drop, n_drop, grow, n_grow, &d, &g, err));
    }
    return MEST_OK;
}

static mest_status check_lists(const mest_sparse *s, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow, mest_error *err)
{
    MEST_TRY(check_order(s, "drop", drop, n_drop, err));
    MEST_TRY(check_order(s, "grow", grow, n_grow, err));
    const bool few = are_few(s, n_drop, n_grow);
    mest_cursor c;
    mest_cursor_init(&c, s);
    for (int64_t d = 0, g = 0; d < n_drop || g < n_grow;) {
        int64_t unit = d < n_drop && (g >= n_grow || drop[d] <= grow[g]) ? drop[d] : grow[g];
        bool dropped = d < n_drop && drop[d] == unit, grown = g < n_grow && grow[g] == unit;
        while (!few && mest_cursor_peek(&c) < unit)
            c.at++;
        bool active = few ? mest_sparse_active(s, unit) : mest_cursor_peek(&c) == unit;
        MEST_CHECK(!dropped || active, err, MEST_E_ARGUMENT, "%s: unit %" PRId64 " cannot be dropped, it is not active", s->name, unit);
        MEST_CHECK(!grown || !active || dropped, err, MEST_E_ARGUMENT, "%s: unit %" PRId64 " cannot grow, it is active already", s->name, unit);
        d += dropped;
        g += grown;
    }
    MEST_CHECK(s->active_units - n_drop + n_grow <= s->cap_units, err, MEST_E_LIMIT,
               "%s: %" PRId64 " units after the change, but room was reserved for %" PRId64, s->name, s->active_units - n_drop + n_grow,
               s->cap_units);
    return s->group_units ? check_result(s, drop, n_drop, grow, n_grow, err) : MEST_OK;
}

/* Moves n units from position `from` to `to` in values and slots. */
static void move_units(mest_sparse *s, mest_real *const *slots, int n_slots, int64_t to, int64_t from, int64_t n)
{
    size_t e = (size_t)s->unit_elements, bytes = (size_t)n * e * sizeof(mest_real);
    if (to == from || n == 0)
        return;
    memmove(s->values + (size_t)to * e, s->values + (size_t)from * e, bytes);
    for (int k = 0; k < n_slots; k++)
        memmove(slots[k] + (size_t)to * e, slots[k] + (size_t)from * e, bytes);
}

static void clear_unit(mest_sparse *s, mest_real *const *slots, int n_slots, int64_t at)
{
    size_t e = (size_t)s->unit_elements;
    memset(s->values + (size_t)at * e, 0, e * sizeof(mest_real));
    for (int k = 0; k < n_slots; k++)
        memset(slots[k] + (size_t)at * e, 0, e * sizeof(mest_real));
}

typedef struct grown_units { mest_sparse *s; mest_real *const *slots; int n_slots; } grown_units;

static void clear_grown(void *context, int64_t i, int64_t at)
{
    const grown_units *c = context;
    (void)i;
    clear_unit(c->s, c->slots, c->n_slots, at);
}

static void edit_few(mest_sparse *s, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow, mest_real *const *slots, int n_slots,
                     void *scratch)
{
    int32_t *drop_at = scratch, *grow_at = drop_at + n_drop;
    const mest_moves moves = { drop, grow, drop_at, grow_at, n_drop, n_grow, s->active_units };
    const size_t bytes = (size_t)s->unit_elements * sizeof(mest_real);
    for (int64_t i = 0; i < n_drop; i++)
        drop_at[i] = (int32_t)mest_sparse_lower_bound(s, drop[i]);
    for (int64_t i = 0; i < n_grow; i++)
        grow_at[i] = (int32_t)mest_sparse_lower_bound(s, grow[i]);
    s->format->edit(s, &moves);
    s->active_units += n_grow - n_drop;
    mest_moves_apply(&moves, s->values, bytes);
    for (int k = 0; k < n_slots; k++)
        mest_moves_apply(&moves, slots[k], bytes);
    mest_moves_grown(&moves, clear_grown, &(grown_units){ s, slots, n_slots });
    mest_sparse_changed(s);
}

mest_status mest_sparse_edit(mest_sparse *s, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow,
                             mest_real *const *slots, int n_slots, void *scratch, mest_error *err)
{
    MEST_TRY(check_lists(s, drop, n_drop, grow, n_grow, err));
    if (n_drop == 0 && n_grow == 0)
        return MEST_OK;
    /* Positions are kept in the room that the copy of an index takes: 4 bytes a unit of the capacity. */
    if (s->format->edit && are_few(s, n_drop, n_grow) && s->active_units <= INT32_MAX) {
        edit_few(s, drop, n_drop, grow, n_grow, slots, n_slots, scratch);
        return MEST_OK;
    }
    mest_sparse old = *s;
    old.index = scratch;
    memcpy(scratch, s->index, s->index_size);

    mest_cursor c;
    mest_appender to;
    mest_cursor_init(&c, &old);
    mest_appender_init(&to, s);
    /* New index: old units that stay, and new ones, in order. Beside it the values close up: [run, c.at) are survivors in a row. */
    int64_t d = 0, g = 0, run = 0, kept = 0;
    while (c.at < old.active_units) {
        int64_t unit = mest_cursor_peek(&c);
        for (; g < n_grow && grow[g] < unit; g++)
            mest_appender_put(&to, grow[g]);
        if (d < n_drop && drop[d] == unit) {
            move_units(s, slots, n_slots, kept, run, c.at - run);
            kept += c.at - run;
            run = c.at + 1;
            d++;
        } else {
            mest_appender_put(&to, unit);
        }
        c.at++;
    }
    move_units(s, slots, n_slots, kept, run, c.at - run);
    kept += c.at - run;
    for (; g < n_grow; g++)
        mest_appender_put(&to, grow[g]);
    mest_appender_finish(&to);

    /* Open up from the end: behind the place of each new unit go the survivors that follow it. */
    int64_t end = s->active_units, left = kept;
    for (g = n_grow; g-- > 0;) {
        int64_t at = mest_sparse_lower_bound(s, grow[g]), n = end - at - 1;
        move_units(s, slots, n_slots, at + 1, left - n, n);
        clear_unit(s, slots, n_slots, at);
        left -= n;
        end = at;
    }
    return MEST_OK;
}
