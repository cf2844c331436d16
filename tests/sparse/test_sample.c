/* SPDX-License-Identifier: Apache-2.0 */
/* Random units: distinct, free, keyed, uniform. */
#include "tests/sparse/fixture.h"

/* Chi-square of counts against equal expectation, in standard deviations from its mean (normal approximation). */
static double chi_square_z(const int64_t *count, int64_t cells, double expected, double variance_factor)
{
    double x = 0;
    for (int64_t i = 0; i < cells; i++)
        x += ((double)count[i] - expected) * ((double)count[i] - expected) / (expected * variance_factor);
    return (x - (double)(cells - 1)) / sqrt(2.0 * (double)(cells - 1));
}

static mest_sparse *thirds(bench_heap *b, const char *format, int64_t rows, int64_t cols)
{
    mest_sparse *s = sparse_make(b, format, &(mest_shape){ 2, { rows, cols } }, -1);
    int64_t *units = malloc((size_t)s->n_units * 8), n = 0;
    for (int64_t u = 0; u < s->n_units; u += 3)
        units[n++] = u;
    OK(mest_sparse_from_units(s, units, n, NULL, err));
    free(units);
    return s;
}

START_TEST(samples_are_free_distinct_and_repeatable)
{
    for (int f = 0; f < N_FORMATS; f++) {
        bench_heap b;
        heap_open(&b);
        mest_sparse *s = thirds(&b, test_formats[f], 37, 29);
        int64_t freed[] = { 0, 3, 27 }, exclude[] = { 0, 1, 6, 7, 28 }; /* 0: freed, but excluded; 6: active anyway */
        /* free: inactive + freed - excluded ones among them (0, 1, 7, 28) */
        int64_t most = s->n_units - s->active_units + 3 - 4, *a = malloc((size_t)most * 8), *c = malloc((size_t)most * 8);
        int64_t tries[] = { 0, 1, 2, most / 20, most / 3, most - 1, most };
        for (size_t t = 0; t < sizeof tries / sizeof *tries; t++) {
            int64_t n = tries[t];
            OK(mest_sparse_sample_inactive(s, 7, 100 + t, freed, 3, exclude, 5, n, a, err));
            OK(mest_sparse_sample_inactive(s, 7, 100 + t, freed, 3, exclude, 5, n, c, err));
            ck_assert_mem_eq(a, c, (size_t)n * 8);
            for (int64_t i = 0; i < n; i++) {
                MUST(a[i] >= 0 && a[i] < s->n_units && (i == 0 || a[i] > a[i - 1]));
                bool is_freed = a[i] == 3 || a[i] == 27;
                MUST(is_freed || !mest_sparse_active(s, a[i]));
                MUST(a[i] != 0 && a[i] != 1 && a[i] != 6 && a[i] != 7 && a[i] != 28);
            }
        }
        REFUSED(MEST_E_LIMIT, mest_sparse_sample_inactive(s, 7, 1, freed, 3, exclude, 5, most + 1, a, err));
        int64_t wrong[] = { 5, 5 };
        REFUSED(MEST_E_ARGUMENT, mest_sparse_sample_inactive(s, 7, 1, wrong, 2, NULL, 0, 1, a, err));
        REFUSED(MEST_E_ARGUMENT, mest_sparse_sample_inactive(s, 7, 1, NULL, 0, wrong, 2, 1, a, err));
        OK(mest_sparse_sample_inactive(s, 7, 1, NULL, 0, NULL, 0, 20, a, err));
        OK(mest_sparse_sample_inactive(s, 8, 1, NULL, 0, NULL, 0, 20, c, err));
        ck_assert_mem_ne(a, c, 20 * 8);
        OK(mest_sparse_sample_inactive(s, 7, 2, NULL, 0, NULL, 0, 20, c, err));
        ck_assert_mem_ne(a, c, 20 * 8);
        mest_sparse_destroy(s);
        free(a), free(c);
        heap_close(&b);
    }
}
END_TEST

/* Few and many draws take different ways; both must be uniform over the free units. */
START_TEST(growth_is_uniform)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = thirds(&b, "csr", 12, 50); /* 600 units, 400 free */
    const int64_t draws[] = { 10, 45, 49, 50, 51, 200, 390 };
    for (size_t d = 0; d < sizeof draws / sizeof *draws; d++) {
        int64_t count[600] = { 0 }, packed[400], n = draws[d], out[400], rounds = 40000 / n + 200, k = 0;
        for (int64_t r = 0; r < rounds; r++) {
            OK(mest_sparse_sample_inactive(s, (uint64_t)r, 9, NULL, 0, NULL, 0, n, out, err));
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
        OK(mest_sparse_sample_inactive(s, seed, 0, NULL, 0, NULL, 0, 2, o, err));
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
        OK(mest_sparse_sample_inactive(s, seed, 3, NULL, 0, NULL, 0, 2, o, err));
        more[o[1] * (o[1] - 1) / 2 + o[0]]++;
    }
    MUST(fabs(chi_square_z(more, 136, 500, 1)) < 4.5);
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

START_TEST(random_patterns_and_values)
{
    for (int f = 0; f < N_FORMATS; f++)
        for (int i = 0; i < N_SHAPES; i++) {
            bench_heap b;
            heap_open(&b);
            mest_sparse *s = sparse_make(&b, test_formats[f], &test_shapes[i], -1);
            int64_t tries[] = { 0, 1, s->n_units / 10, s->n_units };
            for (size_t t = 0; t < 4; t++) {
                OK(mest_sparse_from_random(s, tries[t], 4, 44, .25, err));
                sparse_check(s);
                MUST(s->active_units == tries[t]);
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
    heap_close(&b);
}
END_TEST

RUN("sparse sampling", samples_are_free_distinct_and_repeatable, growth_is_uniform, every_set_is_equally_likely, random_patterns_and_values)
