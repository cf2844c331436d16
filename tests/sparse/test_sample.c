/* SPDX-License-Identifier: Apache-2.0 */
/* Random units: distinct, free, keyed, uniform. */
#include "runtime/growth.h"
#include "sparse/balance.h"
#include "tests/sparse/fixture.h"

/* Chi-square of counts against equal expectation, in standard deviations from its mean (normal approximation). */
static double chi_square_z(const int64_t *count, int64_t cells, double expected, double variance_factor)
{
    double x = 0;
    for (int64_t i = 0; i < cells; i++)
        x += ((double)count[i] - expected) * ((double)count[i] - expected) / (expected * variance_factor);
    return (x - (double)(cells - 1)) / sqrt(2.0 * (double)(cells - 1));
}

static mest_sparse *thirds(bench_heap *b, const char *format, const mest_shape *shape)
{
    mest_sparse *s = sparse_make(b, format, shape, -1);
    if (!s)
        return NULL;
    int64_t *units = malloc((size_t)s->n_units * 8), n = 0;
    for (int64_t u = 0; u < s->n_units; u += 3)
        units[n++] = u * s->choices + u % s->choices;
    OK(mest_sparse_from_units(s, units, n, NULL, err));
    free(units);
    return s;
}

/* What is grown makes the groups as even as they can get: none of those that grew is more than one above one that had room left. */
static void check_balance(const mest_sparse *s, const int64_t *freed, int64_t n_freed, const int64_t *exclude, int64_t n_exclude, const int64_t *grown,
                          int64_t n)
{
    if (!s->group_units)
        return;
    const int64_t groups = s->n_units / s->group_units;
    int64_t *held = calloc((size_t)groups, 8), *room = calloc((size_t)groups, 8), *grew = calloc((size_t)groups, 8);
    int64_t top = -1, low = INT64_MAX;
    for (int64_t slot = 0; slot < s->n_units; slot++) {
        bool active = false, out = false;
        for (int64_t id = slot * s->choices; id < (slot + 1) * s->choices; id++)
            active |= mest_sparse_active(s, id);
        for (int64_t k = 0; k < n_freed; k++)
            active &= freed[k] / s->choices != slot;
        for (int64_t k = 0; k < n_exclude; k++)
            out |= exclude[k] / s->choices == slot;
        held[slot / s->group_units] += active;
        room[slot / s->group_units] += !active && !out;
    }
    for (int64_t k = 0; k < n; k++)
        grew[grown[k] / s->choices / s->group_units]++;
    for (int64_t g = 0; g < groups; g++) {
        MUST(grew[g] <= room[g]);
        if (grew[g] && held[g] + grew[g] > top)
            top = held[g] + grew[g];
        if (grew[g] < room[g] && held[g] + grew[g] < low)
            low = held[g] + grew[g];
    }
    MUST(top < 0 || low == INT64_MAX || top <= low + 1);
    free(held), free(room), free(grew);
}

START_TEST(samples_are_free_distinct_and_repeatable)
{
    static const mest_shape shapes[] = { { 2, { 37, 29 } }, { 4, { 8, 16, 3, 3 } }, { 2, { 36, 24 } } };
    for (int f = 0; f < N_FORMATS; f++)
        for (int shape = 0; shape < 3; shape++) {
            bench_heap b;
            heap_open(&b);
            mest_sparse *s = thirds(&b, test_formats[f], &shapes[shape]);
            if (!s || s->n_units < 40) {
                mest_sparse_destroy(s);
                heap_close(&b);
                continue;
            }
            const int64_t ch = s->choices;
            /* slots 0, 3, 27 dropped, 0, 1, 6, 7, 28 excluded (0: freed, but excluded; 6: active anyway) */
            int64_t freed[] = { 0, 3 * ch + 3 % ch, 27 * ch + 27 % ch }, exclude[] = { 0, ch, 6 * ch, 7 * ch, 28 * ch + ch - 1 };
            /* free: inactive + freed - excluded ones among them (0, 1, 7, 28) */
            int64_t most = s->n_units - s->active_units + 3 - 4, *a = malloc((size_t)(most + 20) * 8), *c = malloc((size_t)(most + 20) * 8);
            int64_t tries[] = { 0, 1, 2, most / 20, most / 3, most - 1, most };
            for (size_t t = 0; t < sizeof tries / sizeof *tries; t++) {
                int64_t n = tries[t];
                OK(mest_sparse_sample_inactive(s, 7, 100 + t, &(mest_change){ freed, 3, NULL, 0 }, exclude, 5, n, a, err));
                OK(mest_sparse_sample_inactive(s, 7, 100 + t, &(mest_change){ freed, 3, NULL, 0 }, exclude, 5, n, c, err));
                ck_assert_mem_eq(a, c, (size_t)n * 8);
                for (int64_t i = 0; i < n; i++) {
                    const int64_t slot = a[i] / ch;
                    MUST(a[i] >= 0 && slot < s->n_units && (i == 0 || slot > a[i - 1] / ch));
                    for (int64_t id = slot * ch; id < (slot + 1) * ch; id++)
                        MUST(slot == 3 || slot == 27 || !mest_sparse_active(s, id));
                    MUST(slot != 0 && slot != 1 && slot != 6 && slot != 7 && slot != 28);
                }
                check_balance(s, freed, 3, exclude, 5, a, n);
            }
            REFUSED(MEST_E_LIMIT, mest_sparse_sample_inactive(s, 7, 1, &(mest_change){ freed, 3, NULL, 0 }, exclude, 5, most + 1, a, err));
            int64_t wrong[] = { 5, 5 };
            REFUSED(MEST_E_ARGUMENT, mest_sparse_sample_inactive(s, 7, 1, &(mest_change){ wrong, 2, NULL, 0 }, NULL, 0, 1, a, err));
            REFUSED(MEST_E_ARGUMENT, mest_sparse_sample_inactive(s, 7, 1, NULL, wrong, 2, 1, a, err));
            OK(mest_sparse_sample_inactive(s, 7, 1, NULL, NULL, 0, 20, a, err));
            OK(mest_sparse_sample_inactive(s, 8, 1, NULL, NULL, 0, 20, c, err));
            if (most > 60) {
                ck_assert_mem_ne(a, c, 20 * 8);
                OK(mest_sparse_sample_inactive(s, 7, 2, NULL, NULL, 0, 20, c, err));
                ck_assert_mem_ne(a, c, 20 * 8);
            }
            mest_sparse_destroy(s);
            free(a), free(c);
            heap_close(&b);
        }
}
END_TEST

/* Growth by norm: the result of adding one unit after the other, each time the best that is free in one of the emptiest groups. */
START_TEST(best_growth_is_balanced)
{
    static const struct { const char *format; mest_shape shape; } all[] = {
        { "pattern", { 4, { 6, 5, 3, 3 } } }, { "nm2:4", { 2, { 9, 12 } } }, { "nm3:8x2", { 4, { 5, 8, 2, 1 } } }, { "~nm1:4", { 2, { 8, 7 } } },
    };
    for (uint64_t seed = 0; seed < 400; seed++) {
        bench_heap b;
        heap_open(&b);
        mest_sparse *s = sparse_make(&b, all[seed % 4].format, &all[seed % 4].shape, -1);
        const int64_t ids = mest_sparse_ids(s), groups = mest_groups(s);
        int64_t units[256], drop[256], grow[256], n = 0, nd = 0, ng = 0, held[64] = { 0 };
        bool taken[256] = { false };
        float norm[256];
        MUST(ids <= 256 && groups <= 64);
        for (int64_t slot = 0; slot < s->n_units; slot++) {
            const int64_t id = slot * s->choices + (int64_t)mest_rng_below(seed, 1, (uint64_t)slot, (uint64_t)s->choices);
            const uint64_t what = mest_rng_below(seed, 2, (uint64_t)slot, 10);
            if (what < 4)
                units[n++] = id;
            if (what == 3)
                drop[nd++] = id;
            if (what == 4)
                grow[ng++] = id;
            taken[slot] = what < 3 || what == 4;
            held[slot / s->group_units] += taken[slot];
        }
        OK(mest_sparse_from_units(s, units, n, NULL, err));
        for (int64_t id = 0; id < ids; id++)
            norm[id] = (float)mest_rng_below(seed, 3, (uint64_t)id, seed % 3 ? 1000 : 3);
        for (int64_t k = 0; k <= s->n_units; k += 1 + s->n_units / 6) {
            int64_t want[256], got[256], found = 0, room = 0, now[64];
            float norms[256];
            bool used[256];
            memcpy(now, held, sizeof now);
            memcpy(used, taken, sizeof used);
            while (found < k) {
                int64_t best = -1;
                int64_t least = INT64_MAX;
                for (int64_t id = 0; id < ids; id++) {
                    const int64_t slot = id / s->choices;
                    if (!used[slot] && now[slot / s->group_units] < least)
                        least = now[slot / s->group_units];
                }
                for (int64_t id = 0; id < ids; id++) {
                    const int64_t slot = id / s->choices;
                    if (!used[slot] && now[slot / s->group_units] == least && (best < 0 || norm[id] > norm[best]))
                        best = id;
                }
                if (best < 0)
                    break;
                used[best / s->choices] = true;
                now[best / s->choices / s->group_units]++;
                want[found++] = best;
            }
            qsort(want, (size_t)found, sizeof *want, id_compare);
            for (int64_t slot = 0; slot < s->n_units; slot++)
                room += !taken[slot];
            MUST(found == (k < room ? k : room));
            mest_growth t;
            const mest_growth_lists lists = { { drop, NULL, grow }, { nd, 0, ng } };
            OK(mest_growth_open(&t, s, &lists, k, got, norms, err));
            for (int64_t id = 0; id < ids; id++) {
                bool out = mest_sparse_active(s, id);
                for (int64_t i = 0; i < nd; i++)
                    out &= drop[i] != id;
                for (int64_t i = 0; i < ng; i++)
                    out |= grow[i] == id;
                mest_growth_put(&t, id, norm[id], out);
            }
            MUST(mest_growth_close(&t) == found);
            ck_assert_mem_eq(got, want, (size_t)found * 8);
            for (int64_t i = 0; i < found; i++)
                MUST(norms[i] == norm[got[i]]);
        }
        mest_sparse_destroy(s);
        heap_close(&b);
    }
}
END_TEST

/* With groups: which groups get the remainder, which slots inside, and which mask are each uniform. */
START_TEST(growth_in_groups_is_uniform)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, "pattern", &(mest_shape){ 4, { 10, 12, 3, 3 } }, -1);
    OK(mest_sparse_from_units(s, NULL, 0, NULL, err));
    int64_t slots[120] = { 0 }, groups[10] = { 0 }, masks[8] = { 0 }, out[43];
    const int64_t rounds = 4000, n = 43; /* four in each filter, five in three of them */
    for (int64_t r = 0; r < rounds; r++) {
        OK(mest_sparse_sample_inactive(s, (uint64_t)r, 3, NULL, NULL, 0, n, out, err));
        int64_t in[10] = { 0 };
        for (int64_t i = 0; i < n; i++) {
            slots[out[i] / 8]++;
            masks[out[i] % 8]++;
            in[out[i] / 96]++;
        }
        for (int g = 0; g < 10; g++) {
            MUST(in[g] == 4 || in[g] == 5);
            groups[g] += in[g] == 5;
        }
    }
    double p = 4.3 / 12, z = chi_square_z(slots, 120, (double)rounds * p, 1 - p);
    MUST(z < 4.5);
    MUST(fabs(chi_square_z(masks, 8, (double)(rounds * n) / 8, 1)) < 4.5);
    MUST(fabs(chi_square_z(groups, 10, (double)rounds * .3, .7 * 10 / 9)) < 4.5);
    mest_sparse_destroy(s);
    /* beside active ones: 2 of 8 are there, one more grows in each group, uniform over the other six */
    s = sparse_make(&b, "nm3:8", &(mest_shape){ 2, { 4, 16 } }, -1);
    int64_t active[16], free_count[64] = { 0 }, packed[48], k = 0;
    for (int64_t g = 0; g < 8; g++) {
        active[2 * g] = 8 * g + g % 3;
        active[2 * g + 1] = 8 * g + 5;
    }
    OK(mest_sparse_from_units(s, active, 16, NULL, err));
    for (uint64_t r = 0; r < 6000; r++) {
        OK(mest_sparse_sample_inactive(s, r, 4, NULL, NULL, 0, 8, out, err));
        for (int64_t i = 0; i < 8; i++) {
            MUST(out[i] / 8 == i);
            free_count[out[i]]++;
        }
    }
    for (int64_t u = 0; u < 64; u++)
        if (mest_sparse_active(s, u))
            MUST(free_count[u] == 0);
        else
            packed[k++] = free_count[u];
    MUST(k == 48);
    for (int64_t g = 0; g < 8; g++)
        MUST(fabs(chi_square_z(packed + 6 * g, 6, 1000, 1)) < 4.5);
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

/* Full groups that lost a few units are looked at alone; with room for one more in each group all are walked over. Both give the same. */
static void few_and_all(const char *format, const mest_shape *shape, int64_t level)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *few = sparse_make(&b, format, shape, 0), *all = sparse_make(&b, format, shape, 0);
    const int64_t groups = few->n_units / few->group_units, n = groups * level;
    OK(mest_sparse_reserve(few, n, err));
    OK(mest_sparse_reserve(all, n + groups, err));
    MUST(mest_sparse_group_most(few) == level && mest_sparse_group_most(all) > level);
    int64_t *active = calloc((size_t)n, 8), *drop = calloc((size_t)n, 8), *grow[2];
    OK(mest_sparse_from_units(few, NULL, 0, NULL, err));
    OK(mest_sparse_sample_inactive(few, 1, 2, NULL, NULL, 0, n, active, err)); /* the same number in each group */
    OK(mest_sparse_from_units(few, active, n, NULL, err));
    OK(mest_sparse_from_units(all, active, n, NULL, err));
    for (int i = 0; i < 2; i++)
        grow[i] = calloc((size_t)n, 8);
    for (uint64_t round = 0; round < 60; round++) {
        int64_t n_drop = 0;
        for (int64_t i = 0; i < n; i++) /* in rows now and then, so that groups lose several */
            if (mest_rng_below(round, 7, (uint64_t)(round % 2 ? i / 4 : i), 40) == 0 && n_drop < n / 17)
                drop[n_drop++] = active[i];
        const mest_change change = { drop, n_drop, NULL, 0 };
        const int64_t exclude = round % 3 ? n_drop : 0, wanted = round % 5 == 4 ? n_drop / 2 : n_drop;
        OK(mest_sparse_sample_inactive(few, round, 8, &change, drop, exclude, wanted, grow[0], err));
        OK(mest_sparse_sample_inactive(all, round, 8, &change, drop, exclude, wanted, grow[1], err));
        MUST(memcmp(grow[0], grow[1], (size_t)wanted * 8) == 0);
    }
    free(active), free(drop), free(grow[0]), free(grow[1]);
    mest_sparse_destroy(few), mest_sparse_destroy(all);
    heap_close(&b);
}

START_TEST(groups_that_lost_a_few)
{
    few_and_all("nm2:4", &(mest_shape){ 2, { 20, 64 } }, 2);
    few_and_all("nm2:8", &(mest_shape){ 4, { 16, 32, 3, 3 } }, 2);
    few_and_all("nm3:4x2", &(mest_shape){ 2, { 34, 64 } }, 3); /* no room for two that are not to come back: others must grow */
    few_and_all("pattern", &(mest_shape){ 4, { 24, 64, 3, 3 } }, 12);
}
END_TEST

/* Few and many draws take different ways; both must be uniform over the free units. */
START_TEST(growth_is_uniform)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = thirds(&b, "csr", &(mest_shape){ 2, { 12, 50 } }); /* 600 units, 400 free */
    const int64_t draws[] = { 10, 45, 49, 50, 51, 200, 390 };
    for (size_t d = 0; d < sizeof draws / sizeof *draws; d++) {
        int64_t count[600] = { 0 }, packed[400], n = draws[d], out[400], rounds = 40000 / n + 200, k = 0;
        for (int64_t r = 0; r < rounds; r++) {
            OK(mest_sparse_sample_inactive(s, (uint64_t)r, 9, NULL, NULL, 0, n, out, err));
            for (int64_t i = 0; i < n; i++)
                count[out[i]]++;
        }
        for (int64_t u = 0; u < 600; u++) {
            if (u % 3)
                packed[k++] = count[u];
            else
                MUST(count[u] == 0);
        }
        /* drawing without replacement: variance of a cell is rounds * p * (1 - p), shared with 400 / 399 */
        double p = (double)n / 400, z = chi_square_z(packed, 400, (double)rounds * p, (1 - p) * 400 / 399);
        ck_assert_msg(fabs(z) < 4.5, "%" PRId64 " of 400: chi-square is %.1f deviations off", n, z);
    }
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

/* Pairs too: 2 of 6 free units, 15 pairs, all equally likely. */
START_TEST(every_set_is_equally_likely)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, "csr", &(mest_shape){ 2, { 2, 3 } }, -1);
    OK(mest_sparse_from_units(s, NULL, 0, NULL, err));
    int64_t pairs[15] = { 0 };
    for (uint64_t seed = 0; seed < 30000; seed++) {
        int64_t o[2], cell = 0;
        OK(mest_sparse_sample_inactive(s, seed, 0, NULL, NULL, 0, 2, o, err));
        for (int64_t a = 0; a < 6; a++)
            for (int64_t c = a + 1; c < 6; c++, cell++)
                if (o[0] == a && o[1] == c)
                    pairs[cell]++;
    }
    MUST(fabs(chi_square_z(pairs, 15, 2000, 1)) < 4.5);
    mest_sparse_destroy(s);
    /* the sparse-draw way: 2 of 17 units, 136 pairs */
    s = sparse_make(&b, "csr", &(mest_shape){ 2, { 1, 17 } }, -1);
    OK(mest_sparse_from_units(s, NULL, 0, NULL, err));
    int64_t more[136] = { 0 };
    for (uint64_t seed = 0; seed < 68000; seed++) {
        int64_t o[2];
        OK(mest_sparse_sample_inactive(s, seed, 3, NULL, NULL, 0, 2, o, err));
        more[o[1] * (o[1] - 1) / 2 + o[0]]++;
    }
    MUST(fabs(chi_square_z(more, 136, 500, 1)) < 4.5);
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

/* Groups of a random pattern differ by one at most. */
static void check_even(const mest_sparse *s)
{
    int64_t least = INT64_MAX, most = 0;
    for (int64_t g = 0; s->group_units && g < s->n_units / s->group_units; g++) {
        const int64_t span = s->group_units * s->choices, n = mest_sparse_lower_bound(s, (g + 1) * span) - mest_sparse_lower_bound(s, g * span);
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    MUST(most == 0 || most - least <= 1);
}

START_TEST(random_patterns_and_values)
{
    for (int f = 0; f < N_FORMATS; f++)
        for (int i = 0; i < N_SHAPES; i++) {
            bench_heap b;
            heap_open(&b);
            mest_sparse *s = sparse_make(&b, test_formats[f], &test_shapes[i], -1);
            if (!s) {
                heap_close(&b);
                continue;
            }
            int64_t tries[] = { 0, 1, s->n_units / 10, s->n_units };
            for (size_t t = 0; t < 4; t++) {
                OK(mest_sparse_from_random(s, tries[t], 4, 44, .25, err));
                sparse_check(s);
                MUST(s->active_units == tries[t]);
                check_even(s);
                for (int64_t p = 0; p < s->stored; p++)
                    MUST(fabs((double)s->values[p]) <= .25);
            }
            mest_sparse_destroy(s);
            heap_close(&b);
        }
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, "csr", &(mest_shape){ 2, { 20, 25 } }, 50);
    int64_t count[500] = { 0 };
    double mean = 0, square = 0;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        int64_t units[50];
        OK(mest_sparse_from_random(s, 50, seed, 6, 1, err));
        s->format->units(s, 0, 50, units);
        for (int k = 0; k < 50; k++) {
            count[units[k]]++;
            mean += (double)s->values[k] / 1e5;
            square += (double)s->values[k] * (double)s->values[k] / 1e5;
        }
    }
    MUST(fabs(chi_square_z(count, 500, 200, .9 * 500 / 499)) < 4.5);
    ck_assert_double_eq_tol(mean, 0, .01);
    ck_assert_double_eq_tol(square, 1.0 / 3, .01);
    REFUSED(MEST_E_LIMIT, mest_sparse_from_random(s, 51, 1, 6, 1, err));
    mest_sparse_destroy(s);
    s = sparse_make(&b, "pattern", &(mest_shape){ 4, { 5, 10, 3, 3 } }, 17);
    int64_t kernels[50] = { 0 }, masks[8] = { 0 };
    for (uint64_t seed = 0; seed < 4000; seed++) {
        int64_t units[17];
        OK(mest_sparse_from_random(s, 17, seed, 6, 1, err));
        s->format->units(s, 0, 17, units);
        for (int k = 0; k < 17; k++) {
            kernels[units[k] / 8]++;
            masks[units[k] % 8]++;
        }
    }
    MUST(chi_square_z(kernels, 50, 4000 * .34, .66) < 4.5);
    MUST(fabs(chi_square_z(masks, 8, 4000 * 17 / 8., 1)) < 4.5);
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

RUN("sparse sampling", best_growth_is_balanced, samples_are_free_distinct_and_repeatable, growth_in_groups_is_uniform, growth_is_uniform, groups_that_lost_a_few, every_set_is_equally_likely, random_patterns_and_values)
