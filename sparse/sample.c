/* SPDX-License-Identifier: Apache-2.0 */
/* Random units: without replacement, keyed, and without memory of the order of the weight. */
#include "sparse/format.h"

#include <inttypes.h>
#include <math.h>

#include "runtime/rng.h"
#include "sparse/balance.h"
#include "sparse/cursor.h"
#include "sparse/sort.h"

/* Selection sampling (Fan, Muller, Rezucha 1962; Knuth's algorithm S): unit u is taken with probability wanted / left. */
static void uniform_pattern(mest_sparse *s, int64_t n_units, uint64_t seed, uint64_t stream)
{
    mest_appender to;
    int64_t wanted = n_units;
    mest_appender_init(&to, s);
    for (int64_t u = 0; wanted > 0; u++) {
        int64_t left = s->n_units - u;
        if ((int64_t)mest_rng_below(seed, stream, (uint64_t)u, (uint64_t)left) < wanted) {
            mest_appender_put(&to, u);
            wanted--;
        }
    }
    mest_appender_finish(&to);
}

mest_status mest_sparse_from_random(mest_sparse *s, int64_t n_units, uint64_t seed, uint64_t stream, double bound, mest_error *err)
{
    MEST_CHECK(n_units >= 0 && n_units <= s->cap_units, err, MEST_E_LIMIT, "%s: %" PRId64 " units do not fit in room for %" PRId64, s->name,
               n_units, s->cap_units);
    if (s->group_units)
        mest_balance_random(s, n_units, seed, stream);
    else
        uniform_pattern(s, n_units, seed, stream);
    uint64_t value_stream = mest_mix64(stream);
    for (int64_t first = 0; first < s->stored;) {
        int64_t at[MEST_CURSOR_ROOM], n = s->stored - first < MEST_CURSOR_ROOM ? s->stored - first : MEST_CURSOR_ROOM;
        mest_sparse_coords(s, first, n, at);
        for (int64_t i = 0; i < n; i++)
            s->values[first + i] = at[i] < 0 ? 0 : (mest_real)(bound * (2 * mest_rng_uniform(seed, value_stream, (uint64_t)at[i]) - 1));
        first += n;
    }
    return MEST_OK;
}

/* n distinct ranks in [0, m), uniform, ascending. */
void mest_draw_ranks(uint64_t seed, uint64_t stream, int64_t m, int64_t n, int64_t *out)
{
    uint64_t counter = 0;
    if (n > m / 8) { /* dense draws: one look at each rank */
        for (int64_t r = 0, k = 0; k < n; r++)
            if ((int64_t)mest_rng_below(seed, stream, counter++, (uint64_t)(m - r)) < n - k)
                out[k++] = r;
        return;
    }
    /* Sparse draws: draw what is missing, sort, drop doubles, again. No rank is treated differently from another, so every set of n
     * ranks is equally likely; less than one draw in eight is a double, so the rounds are few. */
    int bits = 0;
    while (bits < 62 && m >> bits)
        bits++;
    for (int64_t have = 0; have < n;) {
        for (int64_t k = have; k < n; k++)
            out[k] = (int64_t)mest_rng_below(seed, stream, counter++, (uint64_t)m);
        mest_sort_ids(out, n, bits - 1);
        have = 1;
        for (int64_t k = 1; k < n; k++)
            if (out[k] != out[have - 1])
                out[have++] = out[k];
    }
}

/* Ascending union of (active minus dropped), grown and exclude: the units that cannot be drawn. */
typedef struct taken_walk {
    mest_cursor active;
    const int64_t *drop, *drop_end, *grow, *grow_end, *exclude, *exclude_end;
} taken_walk;

static void taken_init(taken_walk *w, const mest_sparse *s, const mest_change *c, const int64_t *exclude, int64_t n_exclude)
{
    mest_cursor_init(&w->active, s);
    w->drop = c->drop;
    w->drop_end = c->n_drop ? c->drop + c->n_drop : c->drop;
    w->grow = c->grow;
    w->grow_end = c->n_grow ? c->grow + c->n_grow : c->grow;
    w->exclude = exclude;
    w->exclude_end = n_exclude ? exclude + n_exclude : exclude;
}

static int64_t peek(const int64_t *at, const int64_t *end) { return at < end ? *at : INT64_MAX; }

/* INT64_MAX at the end. */
static int64_t taken_next(taken_walk *w)
{
    int64_t a = mest_cursor_peek(&w->active);
    while (w->drop < w->drop_end && *w->drop <= a) {
        if (*w->drop == a) {
            w->active.at++;
            a = mest_cursor_peek(&w->active);
        }
        w->drop++;
    }
    const int64_t g = peek(w->grow, w->grow_end), e = peek(w->exclude, w->exclude_end);
    int64_t least = a < g ? a : g;
    least = least < e ? least : e;
    if (least != INT64_MAX) {
        w->active.at += a == least;
        if (g == least)
            w->grow++;
        if (e == least)
            w->exclude++; /* not "+= e == least": without a list the pointer is NULL, and nothing may be added to that, not even 0 */
    }
    return least;
}

static mest_status check_list(const mest_sparse *s, const char *what, const int64_t *units, int64_t n, mest_error *err)
{
    MEST_CHECK(n >= 0 && mest_units_valid(units, n, mest_sparse_ids(s)), err, MEST_E_ARGUMENT,
               "%s: %s units are not ascending, distinct and below %" PRId64, s->name, what, mest_sparse_ids(s));
    return MEST_OK;
}

mest_status mest_sparse_sample_inactive(const mest_sparse *s, uint64_t seed, uint64_t stream, const mest_change *change, const int64_t *exclude,
                                        int64_t n_exclude, int64_t n, int64_t *out, mest_error *err)
{
    static const mest_change none = { 0 };
    change = change ? change : &none;
    MEST_TRY(check_list(s, "dropped", change->drop, change->n_drop, err));
    MEST_TRY(check_list(s, "grown", change->grow, change->n_grow, err));
    MEST_TRY(check_list(s, "excluded", exclude, n_exclude, err));
    if (s->group_units)
        return mest_balance_sample(s, seed, stream, change, exclude, n_exclude, n, out, err);
    taken_walk walk;
    int64_t taken = 0;
    taken_init(&walk, s, change, exclude, n_exclude);
    while (taken_next(&walk) != INT64_MAX)
        taken++;
    MEST_CHECK(n >= 0 && n <= s->n_units - taken, err, MEST_E_LIMIT, "%s: %" PRId64 " units to grow, but only %" PRId64 " are free", s->name, n,
               s->n_units - taken);
    if (n == 0)
        return MEST_OK;
    mest_draw_ranks(seed, stream, s->n_units - taken, n, out);
    /* Rank r of the free units is unit r + (number of taken units at or below it). */
    int64_t below = 0;
    taken_init(&walk, s, change, exclude, n_exclude);
    int64_t next = taken_next(&walk);
    for (int64_t k = 0; k < n; k++) {
        while (next <= out[k] + below) {
            below++;
            next = taken_next(&walk);
        }
        out[k] += below;
    }
    return MEST_OK;
}
