/* SPDX-License-Identifier: Apache-2.0 */
/* The published methods on a host with pretended values and gradients: what goes and what grows is compared with a plain search, counts with
 * their formulas; values, state, determinism, resumption, memory that runs out. */
#include "tests/plugin/world.h"

enum { N = 4, EPOCHS = 10, BATCHES = 20 };
static const world_param free_params[N] = {
    { "csr", { 2, { 20, 30 } }, .9 }, { "block4", { 2, { 22, 25 } }, .8 }, { "csr", { 4, { 6, 5, 3, 3 } }, .7 }, { "block3", { 2, { 10, 9 } }, .5 },
};
static const world_param grouped_params[N] = {
    { "pattern", { 4, { 8, 6, 3, 3 } }, .8 }, { "nm2:4", { 2, { 12, 20 } }, .5 }, { "punched4x2", { 4, { 8, 6, 3, 3 } }, .7 }, { "nm1:4", { 2, { 10, 24 } }, .75 },
};
static const world_param *params = free_params;

static void open_method(world *w, const char *method, const char *options, bool dense, uint64_t seed)
{
    world_param all[N];
    memcpy(all, params, sizeof all);
    for (int i = 0; dense && i < N; i++)
        all[i].sparsity = 0;
    world_open(w, seed, all, N, 0);
    for (int i = 0; i < N; i++)
        w->host.params[i].target_sparsity = params[i].sparsity;
    mest_error err = { 0 };
    mest_status status = mest_schedulers_add(w->list, method, options, &err);
    ck_assert_msg(status == MEST_OK, "%s:%s: %s", method, options, err.msg);
    world_plan(w);
}

static int64_t target_of(const world *w, int i) { return mest_sparse_units_at(w->host.params[i].sparse, params[i].sparsity); }

/* ---- a plain search for what a step must do ---- */

typedef struct scored { float score; int64_t unit; } scored;
static int by_score(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? -1 : 1) : x->unit < y->unit ? -1 : x->unit > y->unit;
}
static int by_score_down(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score > y->score ? -1 : 1) : x->unit < y->unit ? -1 : x->unit > y->unit;
}

static float norm_at(const picture *p, int64_t i)
{
    double sum = 0;
    for (int64_t e = 0; e < p->e; e++)
        sum += (double)p->values[i * p->e + e] * (double)p->values[i * p->e + e];
    return p->e == 1 ? fabsf((float)p->values[i]) : (float)sqrt(sum);
}

/* The k of smallest norm, ascending ids. */
static int64_t *smallest(const picture *p, int64_t k)
{
    scored *s = malloc((size_t)p->n * sizeof *s + 8);
    int64_t *ids = malloc((size_t)k * 8 + 8);
    for (int64_t i = 0; i < p->n; i++)
        s[i] = (scored){ norm_at(p, i), p->units[i] };
    qsort(s, (size_t)p->n, sizeof *s, by_score);
    for (int64_t i = 0; i < k; i++)
        ids[i] = s[i].unit;
    qsort(ids, (size_t)k, 8, id_compare);
    free(s);
    return ids;
}

/* ---- groups, the slow way ---- */

static int64_t group_of(const mest_sparse *s, int64_t unit) { return s->group_units ? unit / s->choices / s->group_units : 0; }

/* Which units grow: the emptiest groups get their best free slot, again and again, until k are given; where not all groups of a level can get
 * one, those whose next one is best do. `held`: units that stay. */
static int64_t *steepest(const mest_sparse *s, int param, int64_t step, const int64_t *held, int64_t n_held, int64_t k, int64_t *found)
{
    int64_t groups = s->group_units ? s->n_units / s->group_units : 1, *count = calloc((size_t)groups, 8), *out = malloc((size_t)k * 8 + 8);
    int64_t slots = s->n_units, n = 0;
    uint8_t *taken = calloc((size_t)slots, 1);
    for (int64_t i = 0; i < n_held; i++) {
        taken[held[i] / s->choices] = 1;
        count[group_of(s, held[i])]++;
    }
    for (bool any = true; n < k && any;) {
        int64_t least = INT64_MAX, m = 0;
        scored *next = malloc((size_t)groups * sizeof *next + 8);
        any = false;
        for (int64_t g = 0; g < groups; g++) {
            int64_t room = s->group_units ? s->group_units : s->n_units;
            if (count[g] < room && count[g] < least)
                least = count[g];
        }
        for (int64_t g = 0; g < groups; g++) { /* the best free slot of each of the emptiest groups */
            scored best = { -1, -1 };
            for (int64_t u = 0; u < mest_sparse_ids(s) && (!s->group_units || count[g] == least); u++) {
                if (taken[u / s->choices] || group_of(s, u) != g)
                    continue;
                float norm = unit_gradient(s, param, step, u);
                if (norm > best.score)
                    best = (scored){ norm, u };
            }
            if (best.unit >= 0)
                next[m++] = best;
        }
        qsort(next, (size_t)m, sizeof *next, by_score_down);
        for (int64_t i = 0; i < m && n < k; i++) {
            any = true;
            out[n++] = next[i].unit;
            taken[next[i].unit / s->choices] = 1;
            count[group_of(s, next[i].unit)]++;
        }
        free(next);
    }
    qsort(out, (size_t)n, 8, id_compare);
    free(taken), free(count);
    *found = n;
    return out;
}

/* Survivors keep value and state, the rest starts at 0 (or at what `fresh` says). */
static void check_survivors(const picture *a, const picture *b, bool zero)
{
    for (int64_t i = 0; i < b->n; i++) {
        const int64_t *at = bsearch(&b->units[i], a->units, (size_t)a->n, 8, id_compare);
        for (int64_t e = 0; e < b->e; e++)
            for (int t = -1; t < WORLD_SLOTS; t++) {
                const mest_real *x = t < 0 ? a->values : a->slots[t], *y = t < 0 ? b->values : b->slots[t];
                mest_real want = at ? x[(at - a->units) * a->e + e] : 0;
                MUST(y[i * b->e + e] == want || (!at && t < 0 && !zero));
            }
    }
}

static void rigl(int expected)
{
    world w;
    mest_host_report r;
    open_method(&w, "rigl", "every=7,rate=.4,stop=.8", false, 3);
    int updates = 0;
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        world_train(&w, epoch);
        for (int64_t batch = 0; batch < BATCHES; batch++) {
            picture before[N];
            for (int i = 0; i < N; i++)
                before[i] = take_picture(&w, i);
            int probes = w.probes;
            int64_t lowest[N][500]; /* with groups: tests/sparse looks at what these are */
            for (int i = 0; i < N; i++) {
                double t = ((double)epoch + (double)batch / BATCHES) / EPOCHS;
                int64_t k = (int64_t)(.4 / 2 * (1 + cos(3.14159265358979323846 * t / .8)) * (double)before[i].n + .5);
                ck_assert_int_le(k, 500);
                if (w.host.params[i].sparse->group_units)
                    OK(mest_host_functions()->lowest_units(&w.host, i, 0, false, k, lowest[i], err));
            }
            OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
            int64_t step = epoch * BATCHES + batch;
            double t = ((double)epoch + (double)batch / BATCHES) / EPOCHS;
            bool due = step > 0 && step % 7 == 0 && t < .8;
            int64_t most = 0;
            for (int i = 0; i < N; i++)
                most += (int64_t)(.4 / 2 * (1 + cos(3.14159265358979323846 * t / .8)) * (double)before[i].n + .5);
            due = due && most > 0;
            ck_assert(w.probes == probes + due && w.host.skip_update == due);
            updates += due;
            for (int i = 0; i < N; i++) {
                const mest_sparse *s = w.host.params[i].sparse;
                picture after = take_picture(&w, i);
                ck_assert_int_eq(after.n, target_of(&w, i));
                if (!due) {
                    ck_assert(same_picture(&before[i], &after));
                } else {
                    int64_t k = (int64_t)(.4 / 2 * (1 + cos(3.14159265358979323846 * t / .8)) * (double)before[i].n + .5);
                    int64_t *gone = malloc((size_t)k * 8 + 8), *held = malloc((size_t)before[i].n * 8 + 8), n_held = 0, found;
                    if (s->group_units) {
                        memcpy(gone, lowest[i], (size_t)k * 8);
                    } else {
                        free(gone);
                        gone = smallest(&before[i], k);
                    }
                    for (int64_t j = 0; j < before[i].n; j++)
                        if (!unit_in(gone, k, before[i].units[j]))
                            held[n_held++] = before[i].units[j];
                    int64_t *grown = steepest(s, i, step, held, n_held, k, &found);
                    ck_assert_int_eq(found, k);
                    for (int64_t u = 0; u < mest_sparse_ids(s); u++)
                        MUST((unit_in(held, n_held, u) || unit_in(grown, found, u)) == unit_in(after.units, after.n, u));
                    check_survivors(&before[i], &after, true); /* one that went and grew counts as a survivor */
                    free(gone), free(held), free(grown);
                }
                drop_picture(&after);
                drop_picture(&before[i]);
                sparse_check(s);
            }
        }
    }
    ck_assert_int_eq(updates, expected);
    world_close(&w);
}

START_TEST(rigl_drops_the_smallest_and_grows_the_steepest)
{
    params = free_params;
    rigl(21); /* steps 7..147; at 154 the rate rounds to no unit */
    params = grouped_params;
    rigl(21);
    params = free_params;
}
END_TEST

/* round(part * n), as the schedulers count */
static int64_t part(double rate, int64_t n) { return (int64_t)(rate * (double)n + .5); }

START_TEST(set_replaces_what_is_nearest_to_zero)
{
    for (int turn = 0; turn < 4; turn++) {
        const bool magnitude = turn & 1;
        world w;
        params = turn & 2 ? grouped_params : free_params;
        mest_host_report r;
        open_method(&w, "set", magnitude ? "select=magnitude,init=zero,exclude_just_removed=yes" : "", false, 3);
        for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
            for (int64_t batch = 0; batch < BATCHES; batch++) {
                picture before[N];
                for (int i = 0; i < N; i++)
                    before[i] = take_picture(&w, i);
                OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
                bool due = epoch > 0 && batch == 0;
                ck_assert(!w.host.skip_update && (r.removed > 0) == due);
                for (int i = 0; i < N; i++) {
                    picture after = take_picture(&w, i);
                    ck_assert_int_eq(after.n, target_of(&w, i));
                    if (due) {
                        int64_t k = part(.3, before[i].n), positive = 0, counted[2] = { 0, 0 };
                        bool by_sign = !magnitude && before[i].e == 1 && !w.host.params[i].sparse->group_units;
                        for (int64_t j = 0; j < before[i].n; j++)
                            positive += before[i].values[j] >= 0;
                        if (w.host.params[i].sparse->group_units) {
                            ck_assert(after.n == before[i].n); /* which ones: tests/sparse */
                        } else if (!by_sign) {
                            int64_t *gone = smallest(&before[i], k);
                            for (int64_t j = 0; j < before[i].n; j++)
                                MUST(unit_in(after.units, after.n, before[i].units[j]) || unit_in(gone, k, before[i].units[j]));
                            free(gone);
                        } else { /* no survivor of a side is nearer to zero than one that went; regrown ones look like survivors of value 0.1 N */
                            mest_real far[2] = { 0, 0 };
                            for (int64_t j = 0; j < before[i].n; j++) {
                                const int64_t *at = bsearch(&before[i].units[j], after.units, (size_t)after.n, 8, id_compare);
                                int side = before[i].values[j] < 0;
                                mest_real v = before[i].values[j] < 0 ? -before[i].values[j] : before[i].values[j];
                                if (!at || after.values[at - after.units] != before[i].values[j]) {
                                    counted[side]++;
                                    far[side] = v > far[side] ? v : far[side];
                                }
                            }
                            ck_assert_int_eq(counted[0] + counted[1], k);
                            ck_assert_int_eq(counted[0], part(.3, positive));
                            for (int64_t j = 0; j < before[i].n; j++) {
                                const int64_t *at = bsearch(&before[i].units[j], after.units, (size_t)after.n, 8, id_compare);
                                int side = before[i].values[j] < 0;
                                mest_real v = before[i].values[j] < 0 ? -before[i].values[j] : before[i].values[j];
                                if (at && after.values[at - after.units] == before[i].values[j])
                                    MUST(v >= far[side]);
                            }
                        }
                        if (magnitude)
                            check_survivors(&before[i], &after, true);
                    } else {
                        ck_assert(same_picture(&before[i], &after));
                    }
                    drop_picture(&after);
                    drop_picture(&before[i]);
                    sparse_check(w.host.params[i].sparse);
                }
            }
            world_train(&w, epoch);
        }
        world_close(&w);
    }
    params = free_params;
}
END_TEST

/* New weights of SET: mean 0, deviation sigma. */
START_TEST(new_weights_are_normal)
{
    world w;
    world_param p = { "csr", { 2, { 200, 200 } }, .5 };
    world_open(&w, 5, &p, 1, 0);
    OK(mest_schedulers_add(w.list, "set", "rate=1,sigma=.25,select=magnitude", err));
    world_plan(&w);
    mest_host_report r;
    OK(world_step(&w, 1, 0, EPOCHS, BATCHES, &r, err));
    const mest_sparse *s = w.host.params[0].sparse;
    double sum = 0, squares = 0, fourth = 0, n = (double)s->stored;
    for (int64_t i = 0; i < s->stored; i++) {
        double v = (double)s->values[i];
        sum += v, squares += v * v, fourth += v * v * v * v;
    }
    ck_assert_int_eq(r.removed, 20000);
    ck_assert(fabs(sum / n) < 4 * .25 / sqrt(n));
    ck_assert(fabs(squares / n / .0625 - 1) < 4 * sqrt(2 / n));
    ck_assert(fabs(fourth / n / (3 * .0625 * .0625) - 1) < .1);
    world_close(&w);
}
END_TEST

START_TEST(dsr_moves_units_and_keeps_their_number)
{
    world w;
    mest_host_report r;
    open_method(&w, "dsr", "every=5,threshold=.1,share=.2,room=3", false, 3);
    int64_t total = 0, moved = 0;
    for (int i = 0; i < N; i++)
        total += w.host.params[i].sparse->active_units;
    double threshold = .1;
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++)
        for (int64_t batch = 0; batch < BATCHES; batch++) {
            int64_t step = epoch * BATCHES + batch, now = 0, below = 0;
            picture before[N];
            for (int i = 0; i < N; i++) {
                before[i] = take_picture(&w, i);
                for (int64_t j = 0; j < before[i].n; j++)
                    below += (double)norm_at(&before[i], j) < threshold * sqrt((double)before[i].e);
            }
            OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
            bool due = step > 0 && step % 5 == 0 && step < .95 * EPOCHS * BATCHES;
            ck_assert_int_eq(r.removed, due ? below : 0);
            for (int i = 0; i < N; i++) {
                picture after = take_picture(&w, i);
                now += after.n;
                ck_assert_int_le(after.n, w.host.params[i].sparse->cap_units);
                if (after.n != before[i].n)
                    moved++;
                for (int64_t j = 0; due && j < before[i].n; j++) /* what went does not come back at once */
                    MUST(((double)norm_at(&before[i], j) < threshold * sqrt((double)before[i].e)) != unit_in(after.units, after.n, before[i].units[j]));
                check_survivors(&before[i], &after, true);
                drop_picture(&after);
                drop_picture(&before[i]);
                sparse_check(w.host.params[i].sparse);
            }
            ck_assert_int_eq(now, total);
            if (due)
                threshold *= (double)below > .22 * (double)total ? .5 : (double)below < .18 * (double)total ? 2 : 1;
            if (batch % 4 == 3)
                world_train(&w, step);
        }
    ck_assert_int_gt(moved, 20);
    world_close(&w);
}
END_TEST

static void cubic(void)
{
    world w;
    mest_host_report r;
    open_method(&w, "magnitude", "every=3,start=.1,stop=.7", true, 3);
    world_train(&w, 0);
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++)
        for (int64_t batch = 0; batch < BATCHES; batch++) {
            int64_t step = epoch * BATCHES + batch;
            double t = ((double)epoch + (double)batch / BATCHES) / EPOCHS, x = (t - .1) / .6;
            picture before[N];
            for (int i = 0; i < N; i++)
                before[i] = take_picture(&w, i);
            OK(world_step(&w, epoch, batch, EPOCHS, BATCHES, &r, err));
            bool due = step % 3 == 0 && t >= .1 - 1e-12 && t < .7 - 1e-12;
            for (int i = 0; i < N; i++) {
                picture after = take_picture(&w, i);
                double s = params[i].sparsity * (1 - (1 - x) * (1 - x) * (1 - x));
                int64_t want = t >= .7 - 1e-12 ? target_of(&w, i) : due ? mest_sparse_units_at(w.host.params[i].sparse, s) : before[i].n;
                ck_assert_msg(after.n == want, "step %d: %d, not %d", (int)step, (int)after.n, (int)want);
                int64_t *gone = smallest(&before[i], before[i].n - after.n);
                for (int64_t j = 0; j < before[i].n && !w.host.params[i].sparse->group_units; j++)
                    MUST(unit_in(after.units, after.n, before[i].units[j]) != unit_in(gone, before[i].n - after.n, before[i].units[j]));
                check_survivors(&before[i], &after, true);
                free(gone);
                drop_picture(&after);
                drop_picture(&before[i]);
            }
        }
    world_close(&w);
    open_method(&w, "magnitude", "mode=oneshot,start=.5", true, 3);
    world_train(&w, 0);
    OK(world_step(&w, 4, BATCHES - 1, EPOCHS, BATCHES, &r, err));
    ck_assert_int_eq(r.removed, 0);
    OK(world_step(&w, 5, 0, EPOCHS, BATCHES, &r, err));
    for (int i = 0; i < N; i++)
        ck_assert_int_eq(w.host.params[i].sparse->active_units, target_of(&w, i));
    OK(world_step(&w, 5, 1, EPOCHS, BATCHES, &r, err));
    ck_assert_int_eq(r.removed, 0);
    world_close(&w);
}

START_TEST(magnitude_follows_the_cubic)
{
    cubic();
    params = grouped_params;
    cubic();
    params = free_params;
}
END_TEST

/* ---- methods that choose once, over all parameters ---- */

typedef struct choice { float score; int param; int64_t unit; } choice;
static int by_rank(const void *a, const void *b)
{
    const choice *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->param != y->param ? (x->param < y->param ? -1 : 1) : x->unit < y->unit ? -1 : x->unit > y->unit;
}

/* Sum of weight times pretended gradient (what 9, product with the Hessian 11), over the steps first..last. */
static float product_of(const world *w, const picture *p, int param, int64_t i, uint64_t what, int64_t first, int64_t last)
{
    const mest_sparse *s = w->host.params[param].sparse;
    int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
    double sum = 0;
    mest_sparse_unit_entries(s, p->units[i], row, col);
    for (int64_t e = 0; e < p->e; e++) {
        mest_real g = 0;
        for (int64_t step = first; step <= last; step++)
            g += row[e] < s->rows && col[e] >= 0 ? trained(what, param, step, row[e] * s->cols + col[e]) : 0;
        sum += (double)p->values[i * p->e + e] * (double)g;
    }
    return (float)sum;
}

/* Balanced: each group keeps an even share of its best, those whose next one is best one more. all: of one parameter, best first. */
static void check_groups(const mest_sparse *s, const choice *all, int64_t n, int64_t keep)
{
    const int64_t groups = s->n_units / s->group_units, share = keep / groups, extra = keep % groups;
    choice *next = malloc((size_t)groups * sizeof *next);
    int64_t n_next = 0;
    for (int64_t g = 0; g < groups; g++) {
        int64_t rank = 0;
        for (int64_t j = 0; j < n; j++) {
            if (group_of(s, all[j].unit) != g)
                continue;
            if (rank == share) {
                next[n_next] = all[j];
                next[n_next++].unit = g; /* equal next ones: the earlier group */
            }
            if (rank < share)
                MUST(mest_sparse_active(s, all[j].unit));
            if (rank > share)
                MUST(!mest_sparse_active(s, all[j].unit));
            rank++;
        }
    }
    qsort(next, (size_t)n_next, sizeof *next, by_rank);
    for (int64_t i = 0; i < n_next; i++) {
        int64_t rank = 0;
        for (int64_t j = 0; j < n; j++)
            if (group_of(s, all[j].unit) == next[i].unit && rank++ == share)
                MUST(mest_sparse_active(s, all[j].unit) == (i < extra));
    }
    free(next);
}

static void choose_once(const char *method, const char *options, uint64_t what, bool each, int64_t batches)
{
    world w;
    mest_host_report r;
    open_method(&w, method, options, true, 3);
    world_train(&w, 0);
    picture before[N];
    int64_t n = 0, keep = 0;
    for (int i = 0; i < N; i++) {
        before[i] = take_picture(&w, i);
        n += before[i].n;
        keep += target_of(&w, i);
    }
    for (int64_t b = 0; b < batches; b++) {
        OK(world_step(&w, 0, b, EPOCHS, BATCHES, &r, err));
        ck_assert(w.host.skip_update == (batches > 1));
        ck_assert((r.removed > 0) == (b == batches - 1));
    }
    choice *all = malloc((size_t)n * sizeof *all);
    n = 0;
    for (int i = 0; i < N; i++) {
        for (int64_t j = 0; j < before[i].n; j++) {
            float p = product_of(&w, &before[i], i, j, what, 0, batches - 1);
            all[n++] = (choice){ what == 9 ? fabsf(p) : p, i, before[i].units[j] };
        }
        if (each) {
            const mest_sparse *s = w.host.params[i].sparse;
            qsort(all + n - before[i].n, (size_t)before[i].n, sizeof *all, by_rank);
            if (s->group_units)
                check_groups(s, all + n - before[i].n, before[i].n, target_of(&w, i));
            for (int64_t j = 0; j < before[i].n && !s->group_units; j++)
                MUST(mest_sparse_active(s, all[n - before[i].n + j].unit) == (j < target_of(&w, i)));
        }
    }
    if (!each) {
        qsort(all, (size_t)n, sizeof *all, by_rank);
        for (int i = 0; i < N; i++) {
            const mest_sparse *s = w.host.params[i].sparse;
            choice *own = malloc((size_t)before[i].n * sizeof *own);
            int64_t kept = 0, n_own = 0;
            for (int64_t j = 0; j < n; j++)
                if (all[j].param == i) {
                    kept += j < keep;
                    own[n_own++] = all[j];
                    MUST(s->group_units || mest_sparse_active(s, all[j].unit) == (j < keep));
                }
            ck_assert_int_eq(kept, s->active_units);
            if (s->group_units)
                check_groups(s, own, n_own, kept);
            free(own);
        }
    }
    for (int i = 0; i < N; i++) {
        picture after = take_picture(&w, i);
        check_survivors(&before[i], &after, true);
        drop_picture(&after);
        drop_picture(&before[i]);
        sparse_check(w.host.params[i].sparse);
    }
    free(all);
    int probes = w.probes;
    for (int64_t b = batches; b < 2 * BATCHES; b++) { /* and never again */
        OK(world_step(&w, b / BATCHES, b % BATCHES, EPOCHS, BATCHES, &r, err));
        ck_assert(r.removed + r.grown == 0 && !w.host.skip_update && w.probes == probes);
    }
    world_close(&w);
}

START_TEST(snip_keeps_the_largest_products)
{
    choose_once("snip", "", 9, false, 1);
    choose_once("snip", "scope=layer", 9, true, 1);
    choose_once("snip", "batches=3", 9, false, 3);
    params = grouped_params;
    choose_once("snip", "", 9, false, 1);
    choose_once("snip", "scope=layer", 9, true, 1);
    params = free_params;
}
END_TEST

START_TEST(grasp_keeps_what_keeps_the_flow)
{
    choose_once("grasp", "", 11, false, 1);
    choose_once("grasp", "scope=layer,temperature=1", 11, true, 1);
    params = grouped_params;
    choose_once("grasp", "", 11, false, 1);
    choose_once("grasp", "scope=layer", 11, true, 1);
    params = free_params;
}
END_TEST

/* A parameter whose scores are all the smallest keeps one unit: its best. */
START_TEST(no_layer_ends_empty)
{
    world w;
    mest_host_report r;
    open_method(&w, "magnitude", "mode=oneshot,start=0,scope=global", true, 3);
    world_train(&w, 0);
    mest_sparse *s = w.host.params[2].sparse;
    for (int64_t i = 0; i < s->stored; i++)
        s->values[i] = i == 77 ? (mest_real)-2e-6 : (mest_real)1e-6;
    int64_t unit, total = 0, target = 0;
    s->format->units(s, 77, 1, &unit);
    OK(world_step(&w, 0, 0, EPOCHS, BATCHES, &r, err));
    ck_assert(s->active_units == 1 && mest_sparse_active(s, unit));
    ck_assert(strstr(w.log, "'fc.weight' would end empty; its best unit stays"));
    for (int i = 0; i < N; i++) {
        total += w.host.params[i].sparse->active_units;
        target += target_of(&w, i);
    }
    ck_assert_int_eq(total, target + 1);
    world_close(&w);
}
END_TEST

/* ---- what holds for all ---- */

static const struct { const char *name, *options; bool dense; } all_methods[] = {
    { "set", "every=2", false }, { "rigl", "every=6,rate=.5", false }, { "dsr", "every=5,threshold=.3", false }, { "magnitude", "every=4", true },
    { "magnitude", "every=4,scope=global,initial=.2", true }, { "snip", "batches=2", true }, { "grasp", "", true },
};
enum { N_METHODS = sizeof all_methods / sizeof *all_methods };

static mest_status run_steps(world *w, int64_t from, int64_t to, mest_error *err)
{
    for (int64_t step = from; step < to; step++) {
        mest_host_report r;
        MEST_TRY(world_step(w, step / BATCHES, step % BATCHES, EPOCHS, BATCHES, &r, err));
        world_train(w, step);
    }
    return MEST_OK;
}

/* A copy of patterns, values and state into another world, as a checkpoint would carry them. */
static void copy_world(const world *from, world *to)
{
    for (int i = 0; i < N; i++) {
        picture p = take_picture(from, i);
        mest_host_param *q = &to->host.params[i];
        OK(mest_sparse_from_units(q->sparse, p.units, p.n, p.values, err));
        for (int t = 0; t < WORLD_SLOTS; t++)
            memcpy(q->slots[t], p.slots[t], p.stored * sizeof(mest_real));
        drop_picture(&p);
    }
}

static bool no_groups(int m) { return !strcmp(all_methods[m].name, "dsr"); }

START_TEST(resumed_at_every_step_it_is_the_same_run)
{
    for (int turn = 0; turn < 2 * N_METHODS; turn++) {
        const int m = turn / 2;
        if (turn % 2 && no_groups(m))
            continue;
        params = turn % 2 ? grouped_params : free_params;
        for (int64_t stop = 1; stop < 60; stop += m == 5 ? 1 : 7) {
            world a, b;
            open_method(&a, all_methods[m].name, all_methods[m].options, all_methods[m].dense, 8);
            open_method(&b, all_methods[m].name, all_methods[m].options, all_methods[m].dense, 8);
            OK(run_steps(&a, 0, stop, err));
            copy_world(&a, &b);
            bytes state = { 0 };
            OK(mest_schedulers_save(a.list, bytes_write, &state, err));
            OK(mest_schedulers_load(b.list, bytes_read, &state, err));
            ck_assert_uint_eq(state.n, state.at);
            OK(run_steps(&a, stop, 80, err));
            OK(run_steps(&b, stop, 80, err));
            for (int i = 0; i < N; i++) {
                picture p = take_picture(&a, i), q = take_picture(&b, i);
                ck_assert_msg(same_picture(&p, &q), "%s resumed at step %d differs", all_methods[m].name, (int)stop);
                drop_picture(&p), drop_picture(&q);
            }
            free(state.p);
            world_close(&a);
            world_close(&b);
        }
    }
    params = free_params;
}
END_TEST

/* Memory runs out at any point: an error, nothing half applied, nothing lost. */
START_TEST(every_failed_allocation_is_survived)
{
    for (int turn = 0; turn < 2 * N_METHODS; turn++) {
        const int m = turn / 2;
        bool finished = turn % 2 && no_groups(m);
        params = turn % 2 ? grouped_params : free_params;
        for (int64_t at = 0; !finished; at++) {
            world w;
            world_param all[N];
            memcpy(all, params, sizeof all);
            for (int i = 0; all_methods[m].dense && i < N; i++)
                all[i].sparsity = 0;
            world_open(&w, 8, all, N, 0);
            for (int i = 0; i < N; i++)
                w.host.params[i].target_sparsity = params[i].sparsity;
            mest_error err = { 0 };
            w.b.guard.fail_at = w.b.guard.n + at;
            mest_status status = mest_schedulers_add(w.list, all_methods[m].name, all_methods[m].options, &err);
            status = status ? status : mest_host_plan(&w.host, &err);
            for (int64_t step = 0; step < 45 && status == MEST_OK; step++) {
                picture before[N];
                mest_host_report r;
                for (int i = 0; i < N; i++)
                    before[i] = take_picture(&w, i);
                status = world_step(&w, step / BATCHES, step % BATCHES, EPOCHS, BATCHES, &r, &err);
                for (int i = 0; i < N; i++) {
                    picture after = take_picture(&w, i);
                    ck_assert(status == MEST_OK || same_picture(&before[i], &after));
                    drop_picture(&before[i]), drop_picture(&after);
                }
            }
            finished = status == MEST_OK;
            ck_assert_msg(finished || (status == MEST_E_NOMEM && err.code == MEST_E_NOMEM), "%s, allocation %d: %d %s", all_methods[m].name, (int)at, status,
                          err.msg);
            world_close(&w);
        }
    }
    params = free_params;
}
END_TEST

START_TEST(bad_options_are_explained)
{
    static const struct { const char *name, *options, *says; } bad[] = {
        { "rigl", "alpha=1", "there is no option 'alpha'; there are: rate, decay" }, { "rigl", "rate=2", "rate=2 is not a number from 0 to 1" },
        { "rigl", "every=0", "every=0" }, { "rigl", "decay=fast", "is not one of constant, cosine, linear" }, { "set", "unit=days", "is not one of steps, epochs" },
        { "set", "select=size", "is not one of magnitude, sign" }, { "set", "sigma=-1", "sigma=-1" }, { "dsr", "every=5/6", "every has 2 entries for 4 stages" },
        { "dsr", "every=5/6,stages=.5/.6", "every has 2 entries for 3 stages" }, { "dsr", "threshold=0", "threshold must be above 0" },
        { "dsr", "every=1.5", "whole numbers" }, { "dsr", "room=.5", "room=.5" }, { "magnitude", "start=.8,stop=.5", "stop is before start" },
        { "magnitude", "", "stores 60 of 600 units; the method begins with all of them" }, { "snip", "", "begins with all of them" },
        { "grasp", "temperature=0", "temperature=0" }, { "grasp", "", "begins with all of them" }, { "snip", "batches=0", "batches=0" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        world w;
        mest_error err = { 0 };
        world_open(&w, 5, params, N, 0);
        ck_assert_int_ne(mest_schedulers_add(w.list, bad[i].name, bad[i].options, &err), MEST_OK);
        ck_assert_msg(strstr(err.msg, bad[i].says) && strstr(err.msg, bad[i].name), "%s:%s: %s", bad[i].name, bad[i].options, err.msg);
        ck_assert_int_eq(mest_schedulers_count(w.list), 0);
        world_close(&w);
    }
    world v;
    mest_error why = { 0 };
    world_open(&v, 5, grouped_params, N, 0);
    ck_assert_int_eq(mest_schedulers_add(v.list, "dsr", "", &why), MEST_E_UNSUPPORTED);
    ck_assert_msg(strstr(why.msg, "'conv1.weight' is pattern: units of a balanced scheme cannot move"), "%s", why.msg);
    world_close(&v);
    int n = 0;
    const char *summary, *lines;
    for (const char *name; (name = mest_scheduler_builtin(n, &summary, &lines)); n++) {
        ck_assert(summary[0] && lines[0] && lines[strlen(lines) - 1] == '\n');
        ck_assert(mest_scheduler_flags(name) <= 3);
    }
    ck_assert(mest_scheduler_flags("snip") == (MEST_SCHEDULER_MOVES_WEIGHTS | MEST_SCHEDULER_STARTS_DENSE) && mest_scheduler_flags("forgetting") == 0 &&
              mest_scheduler_flags("none") == 0);
}
END_TEST

RUN("methods", rigl_drops_the_smallest_and_grows_the_steepest, set_replaces_what_is_nearest_to_zero, new_weights_are_normal,
    dsr_moves_units_and_keeps_their_number, magnitude_follows_the_cubic, snip_keeps_the_largest_products, grasp_keeps_what_keeps_the_flow,
    no_layer_ends_empty, resumed_at_every_step_it_is_the_same_run, every_failed_allocation_is_survived, bad_options_are_explained)
