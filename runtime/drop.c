/* SPDX-License-Identifier: Apache-2.0 */
/* The search for what to drop. Finding the optimum is an integer program (Jain and others 2020, "Checkmate"); networks are near enough to chains for
 * this to be close to it (tests/memory/test_drop.c compares with all subsets of small problems):
 *
 *   starts     nothing dropped; and for k = 1, 2, .. everything dropped except what crosses k narrow places of the forward part, evenly spaced by
 *              bytes - the segments of Chen and others 2016 ("Training deep nets with sublinear memory cost")
 *   descent    from each start the best change of one value, dropped or kept, by bytes above the limit saved a second; ranks of earlier
 *              rounds are upper bounds, so that few values are tried in a round
 *   clean-up   when the limit holds: what can be kept is kept, costliest first
 *
 * Values are taken in groups: a view goes with what it looks at. What no backward operation reads is not kept for its own sake, and is
 * computed again where a second run needs it. */
#include "runtime/drop.h"

#include <string.h>

typedef struct group {
    int32_t first_op;      /* producer of the value itself */
    int32_t last_forward;  /* last forward operation that reads it */
    size_t bytes;
    double seconds;        /* of its producer */
    double rank;           /* upper bound of what a change saves per second */
} group;

typedef struct search {
    const mest_lives *l;
    size_t limit;
    uint8_t *dropped;      /* per value */
    int32_t *group_of;     /* per value: its group, -1: not ours to decide */
    group *groups;
    int32_t n_groups;
    uint8_t *set, *best;   /* per group */
    mest_lives_run run;
    double best_seconds, best_excess;
    int64_t tries;         /* evaluations left */
} search;

static int32_t looks_at(const mest_lives *l, int32_t v)
{
    for (;;) {
        const int32_t p = l->values[v].producer;
        if (p < 0 || !l->ops[p].form.view || l->ops[p].out[0] != v || !l->values[l->ops[p].form.in[0]].planned)
            return v;
        v = l->ops[p].form.in[0];
    }
}

/* Groups: roots under views, of values that backward operations read and that may be computed again, all of them. */
static void make_groups(search *s)
{
    const mest_lives *l = s->l;
    for (int32_t v = 0; v < l->n_values; v++) {
        s->group_of[v] = -1;
        s->dropped[v] = l->values[v].again && l->values[v].planned && !l->values[v].kept; /* for now: allowed */
    }
    for (int32_t v = 0; v < l->n_values; v++) /* one that is not allowed holds the memory of all */
        if (!s->dropped[v] && l->values[v].planned)
            s->dropped[looks_at(l, v)] = 0;
    for (int32_t v = 0; v < l->n_values; v++)
        if (s->dropped[v] && !s->dropped[looks_at(l, v)])
            s->dropped[v] = 0;
    for (int32_t i = 0; i < l->n_ops; i++) {
        const mest_lives_op *op = &l->ops[i];
        for (int32_t k = 0; k < op->form.n_in && !op->forward; k++) {
            const int32_t v = op->form.in[k] < 0 ? -1 : looks_at(l, op->form.in[k]);
            if (v < 0 || !s->dropped[v] || s->group_of[v] >= 0)
                continue;
            const int32_t p = l->values[v].producer;
            s->groups[s->n_groups] = (group){.first_op = p, .last_forward = p, .bytes = l->values[v].bytes, .seconds = l->ops[p].again.seconds};
            s->group_of[v] = s->n_groups++;
        }
    }
    for (int32_t v = 0; v < l->n_values; v++) {
        const int32_t root = looks_at(l, v);
        if (root != v)
            s->group_of[v] = s->dropped[v] ? s->group_of[root] : -1;
    }
    for (int32_t i = 0; i < l->n_ops; i++)
        for (int32_t k = 0; k < l->ops[i].form.n_in && l->ops[i].forward; k++) {
            const int32_t v = l->ops[i].form.in[k];
            if (v >= 0 && s->group_of[v] >= 0)
                s->groups[s->group_of[v]].last_forward = i;
        }
}

static void evaluate(search *s)
{
    for (int32_t v = 0; v < s->l->n_values; v++)
        if (s->group_of[v] >= 0)
            s->dropped[v] = s->set[s->group_of[v]];
    mest_lives_evaluate(&s->run, s->dropped, s->limit);
    s->tries--;
}

/* Is what was evaluated last better than the best so far? */
static void remember(search *s)
{
    const double excess = s->run.excess, seconds = s->run.seconds_again;
    const bool better = excess < s->best_excess || (excess <= s->best_excess && seconds < s->best_seconds);
    if (!better)
        return;
    s->best_excess = excess;
    s->best_seconds = seconds;
    memcpy(s->best, s->set, (size_t)s->n_groups);
}

/* Changes one group at a time, the most bytes above the limit saved a second first, until the limit holds or nothing helps. */
static void descend(search *s)
{
    evaluate(s);
    remember(s);
    const double unit = 1e-9;
    double excess = s->run.excess, seconds = s->run.seconds_again;
    for (int32_t g = 0; g < s->n_groups; g++)
        s->groups[g].rank = 1e300;
    bool fresh = false; /* every rank was found anew since the last change */
    while (excess > 0 && s->tries > 0) {
        int32_t chosen = -1;
        double chosen_rank = 0, chosen_excess = 0, chosen_seconds = 0;
        for (;;) { /* the highest rank that is up to date */
            int32_t top = -1;
            for (int32_t g = 0; g < s->n_groups; g++)
                if (g != chosen && (top < 0 || s->groups[g].rank > s->groups[top].rank))
                    top = g;
            if (top < 0 || s->tries <= 0 || s->groups[top].rank <= chosen_rank || s->groups[top].rank <= 0)
                break;
            s->set[top] ^= 1;
            evaluate(s);
            s->set[top] ^= 1;
            const double saved = excess - s->run.excess, cost = s->run.seconds_again - seconds;
            const double rank = saved > 0 ? saved / (cost > 0 ? cost + unit : unit) : 0;
            s->groups[top].rank = rank;
            if (rank > chosen_rank) {
                chosen = top;
                chosen_rank = rank;
                chosen_excess = s->run.excess;
                chosen_seconds = s->run.seconds_again;
            }
        }
        if (chosen < 0) {
            if (fresh)
                return;
            fresh = true; /* ranks may have risen since they were found: once more from all */
            for (int32_t g = 0; g < s->n_groups; g++)
                s->groups[g].rank = 1e300;
            continue;
        }
        fresh = false;
        s->set[chosen] ^= 1;
        s->groups[chosen].rank = 0; /* back again only when all are looked at anew */
        excess = chosen_excess;
        seconds = chosen_seconds;
        s->run.excess = excess;
        s->run.seconds_again = seconds;
        remember(s);
    }
}

/* Keeps what can be kept within the limit, costliest first. */
static void clean_up(search *s)
{
    memcpy(s->set, s->best, (size_t)s->n_groups);
    for (bool changed = true; changed && s->tries > 0;) {
        changed = false;
        for (int32_t g = 0; g < s->n_groups; g++)
            s->groups[g].rank = s->set[g] ? s->groups[g].seconds : -1;
        for (;;) {
            int32_t top = -1;
            for (int32_t g = 0; g < s->n_groups; g++)
                if (s->groups[g].rank >= 0 && (top < 0 || s->groups[g].rank > s->groups[top].rank))
                    top = g;
            if (top < 0 || s->tries <= 0)
                break;
            s->groups[top].rank = -1;
            s->set[top] = 0;
            evaluate(s);
            if (s->run.excess > 0 || s->run.seconds_again >= s->best_seconds)
                s->set[top] = 1;
            else
                changed = true;
            remember(s);
        }
    }
}

/* Bytes of the groups that cross the place behind forward operation `at`. */
static size_t crossing(const search *s, int32_t at)
{
    size_t bytes = 0;
    for (int32_t g = 0; g < s->n_groups; g++)
        if (s->groups[g].first_op <= at && s->groups[g].last_forward > at)
            bytes += s->groups[g].bytes;
    return bytes;
}

/* Everything dropped except what crosses k places. */
static void segments(search *s, int32_t k, const size_t *cross, const size_t *before, int32_t n_forward)
{
    memset(s->set, 1, (size_t)s->n_groups);
    const double total = (double)before[n_forward];
    for (int32_t j = 1; j <= k; j++) {
        const double from = total * (j - 0.35) / (k + 1), to = total * (j + 0.35) / (k + 1);
        int32_t place = -1;
        for (int32_t i = 0; i < n_forward; i++)
            if ((double)before[i + 1] >= from && (double)before[i + 1] <= to && (place < 0 || cross[i] < cross[place]))
                place = i;
        for (int32_t g = 0; place >= 0 && g < s->n_groups; g++)
            if (s->groups[g].first_op <= place && s->groups[g].last_forward > place)
                s->set[g] = 0;
    }
}

static mest_status try_segments(search *s, mest_error *err)
{
    const mest_lives *l = s->l;
    int32_t n_forward = l->n_ops;
    while (n_forward > 0 && !l->ops[n_forward - 1].forward)
        n_forward--;
    const size_t n = (size_t)n_forward + 1;
    size_t *cross = mest_alloc(l->heap, n, sizeof *cross), *before = mest_calloc(l->heap, n, sizeof *before);
    if (cross && before) {
        for (int32_t g = 0; g < s->n_groups; g++)
            before[s->groups[g].first_op + 1] += s->groups[g].bytes;
        for (int32_t i = 0; i < n_forward; i++) {
            before[i + 1] += before[i];
            cross[i] = crossing(s, i);
        }
        int32_t most = 1;
        while (most * most < s->n_groups)
            most++;
        for (int32_t k = 1; k <= 2 * most && k < s->n_groups && s->tries > 0; k += 1 + k / 8) {
            segments(s, k, cross, before, n_forward);
            descend(s);
        }
    }
    const bool good = cross && before;
    mest_free(l->heap, cross, n, sizeof *cross);
    mest_free(l->heap, before, n, sizeof *before);
    return good ? MEST_OK : mest_fail(err, MEST_E_NOMEM, "recomputation: out of memory");
}

static void close_search(search *s)
{
    mest_heap *heap = s->l->heap;
    const size_t n = (size_t)s->l->n_values + 1;
    mest_free(heap, s->group_of, n, sizeof *s->group_of);
    mest_free(heap, s->groups, n, sizeof *s->groups);
    mest_free(heap, s->set, n, 1);
    mest_free(heap, s->best, n, 1);
    mest_lives_run_free(&s->run);
}

static mest_status open_search(search *s, const mest_lives *l, uint8_t *dropped, mest_error *err)
{
    const size_t n = (size_t)l->n_values + 1;
    *s = (search){.l = l, .dropped = dropped};
    s->group_of = mest_alloc(l->heap, n, sizeof *s->group_of);
    s->groups = mest_alloc(l->heap, n, sizeof *s->groups);
    s->set = mest_calloc(l->heap, n, 1);
    s->best = mest_calloc(l->heap, n, 1);
    mest_status status = s->group_of && s->groups && s->set && s->best ? MEST_OK : mest_fail(err, MEST_E_NOMEM, "recomputation: out of memory");
    if (status == MEST_OK)
        status = mest_lives_run_create(&s->run, l, err);
    if (status == MEST_OK)
        make_groups(s);
    else
        close_search(s);
    return status;
}

/* About a second on a slow machine: an evaluation takes some ten nanoseconds an operation and value. */
static int64_t tries_for(const mest_lives *l)
{
    const int64_t n = 40000000 / (2 * l->n_ops + 4 * l->n_values + 100);
    return n < 200 ? 200 : n > 20000 ? 20000 : n;
}

static mest_status find(search *s, size_t limit, mest_error *err)
{
    s->limit = limit;
    s->tries = tries_for(s->l);
    s->best_excess = s->best_seconds = 1e300;
    memset(s->set, 0, (size_t)s->n_groups);
    descend(s);
    if (s->best_seconds > 0 || s->best_excess > 0) {
        MEST_TRY(try_segments(s, err));
        s->tries += tries_for(s->l) / 4;
        if (s->best_excess <= 0)
            clean_up(s);
    }
    memcpy(s->set, s->best, (size_t)s->n_groups);
    evaluate(s);
    return MEST_OK;
}

static void tell(const search *s, mest_drop_result *result)
{
    *result = (mest_drop_result){.peak = s->run.peak, .seconds_again = s->run.seconds_again};
    for (int32_t g = 0; g < s->n_groups; g++)
        result->n_dropped += s->set[g];
}

mest_status mest_drop_search(const mest_lives *l, size_t limit, uint8_t *dropped, mest_drop_result *result, mest_error *err)
{
    search s;
    MEST_TRY(open_search(&s, l, dropped, err));
    mest_status status = find(&s, limit, err);
    tell(&s, result);
    close_search(&s);
    return status;
}

/* One attempt at a limit; keeps the set if it lies within the time and needs least so far. */
static mest_status attempt(search *s, size_t limit, double seconds, uint8_t *chosen, size_t *reached, bool *met, mest_error *err)
{
    MEST_TRY(find(s, limit, err));
    const bool within = s->run.seconds_again <= seconds;
    if (within && s->run.peak < *reached) {
        *reached = s->run.peak;
        memcpy(chosen, s->best, (size_t)s->n_groups);
    }
    *met = within && s->run.peak <= limit;
    return MEST_OK;
}

mest_status mest_drop_within(const mest_lives *l, double seconds, uint8_t *dropped, mest_drop_result *result, mest_error *err)
{
    search s;
    MEST_TRY(open_search(&s, l, dropped, err));
    const size_t n = (size_t)s.n_groups + 1;
    uint8_t *chosen = mest_calloc(l->heap, n, 1); /* nothing dropped: always within */
    mest_status status = chosen ? MEST_OK : mest_fail(err, MEST_E_NOMEM, "recomputation: out of memory");
    evaluate(&s);
    size_t low = 0, reached = s.run.peak;
    bool met;
    while (status == MEST_OK && reached > low + reached / 100 + 64) {
        const size_t middle = low + (reached - low) / 2;
        status = attempt(&s, middle, seconds, chosen, &reached, &met, err);
        if (!met)
            low = middle;
    }
    for (int misses = 0; status == MEST_OK && misses < 3;) { /* a limit that was missed may be met from another start */
        const size_t before = reached;
        status = attempt(&s, reached - reached / 100 * (size_t)(1 + 2 * misses), seconds, chosen, &reached, &met, err);
        misses = reached < before ? 0 : misses + 1;
    }
    if (chosen)
        memcpy(s.set, chosen, (size_t)s.n_groups);
    evaluate(&s);
    tell(&s, result);
    mest_free(l->heap, chosen, n, 1);
    close_search(&s);
    return status;
}
