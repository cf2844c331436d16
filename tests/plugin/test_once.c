/* SPDX-License-Identifier: Apache-2.0 */
/* Methods that choose once, before training, against a plain search over all parameters */
#include "tests/plugin/methods.h"

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

RUN("methods that choose once", snip_keeps_the_largest_products, grasp_keeps_what_keeps_the_flow, no_layer_ends_empty)
