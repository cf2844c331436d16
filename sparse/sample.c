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

/* Ascending union of (active minus freed) and exclude: the units that cannot be drawn. */
typedef struct taken_walk {
    mest_cursor active;
    const int64_t *freed, *freed_end, *exclude, *exclude_end;
} taken_walk;

static void taken_init(taken_walk *w, const mest_sparse *s, const int64_t *freed, int64_t n_freed, const int64_t *exclude, int64_t n_exclude)
{
    mest_cursor_init(&w->active, s);
    w->freed = freed;
    w->freed_end = n_freed ? freed + n_freed : freed;
    w->exclude = exclude;
    w->exclude_end = n_exclude ? exclude + n_exclude : exclude;
}

/* INT64_MAX at the end. */
static int64_t taken_next(taken_walk *w)
{
    int64_t a = mest_cursor_peek(&w->active);
    while (w->freed < w->freed_end && *w->freed <= a) {
        if (*w->freed == a) {
            w->active.at++;
            a = mest_cursor_peek(&w->active);
        }
        w->freed++;
    }
    int64_t e = w->exclude < w->exclude_end ? *w->exclude : INT64_MAX;
    if (a <= e && a != INT64_MAX)
        w->active.at++;
    if (e <= a && e != INT64_MAX)
        w->exclude++;
    return a < e ? a : e;
}

mest_status mest_sparse_sample_inactive(const mest_sparse *s, uint64_t seed, uint64_t stream, const int64_t *freed, int64_t n_freed,
                                        const int64_t *exclude, int64_t n_exclude, int64_t n, int64_t *out, mest_error *err)
{
    MEST_CHECK(n_freed >= 0 && mest_units_valid(freed, n_freed, mest_sparse_ids(s)), err, MEST_E_ARGUMENT,
               "%s: dropped units are not ascending, distinct and below %" PRId64, s->name, s->n_units);
    MEST_CHECK(n_exclude >= 0 && mest_units_valid(exclude, n_exclude, mest_sparse_ids(s)), err, MEST_E_ARGUMENT,
               "%s: excluded units are not ascending, distinct and below %" PRId64, s->name, s->n_units);
    if (s->group_units)
        return mest_balance_sample(s, seed, stream, freed, n_freed, exclude, n_exclude, n, out, err);
    taken_walk walk;
    int64_t taken = 0;
    taken_init(&walk, s, freed, n_freed, exclude, n_exclude);
    while (taken_next(&walk) != INT64_MAX)
        taken++;
    MEST_CHECK(n >= 0 && n <= s->n_units - taken, err, MEST_E_LIMIT, "%s: %" PRId64 " units to grow, but only %" PRId64 " are free", s->name, n,
               s->n_units - taken);
    if (n == 0)
        return MEST_OK;
    mest_draw_ranks(seed, stream, s->n_units - taken, n, out);
    /* Rank r of the free units is unit r + (number of taken units at or below it). */
    int64_t below = 0;
    taken_init(&walk, s, freed, n_freed, exclude, n_exclude);
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
