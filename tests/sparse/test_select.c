/* SPDX-License-Identifier: Apache-2.0 */
/* Selection by magnitude and by score against comparison sorts. */
#include "tests/sparse/fixture.h"

/* The slots a balanced choice keeps, said greedily: the best (least key, then least id) of those whose groups hold fewest. */
static void oracle_best(const mest_sparse *s, const ranked *order, int64_t k, int64_t *out)
{
    const int64_t size = oracle_group(s), groups = s->n_units / size;
    int64_t *held = calloc((size_t)groups + 1, 8), n = 0;
    bool *taken = calloc((size_t)s->n_units + 1, 1);
    for (int64_t level = 0; n < k; level++)
        for (int64_t i = 0; i < s->n_units && n < k; i++) { /* `order` is sorted: the first of each group not yet taken is its best */
            const int64_t id = order[i].id, g = id / s->choices / size;
            if (taken[i] || (groups > 1 && held[g] > level))
                continue;
            taken[i] = true;
            held[g]++;
            out[n++] = id;
        }
    qsort(out, (size_t)k, sizeof *out, id_compare);
    free(held), free(taken);
}

START_TEST(magnitude_is_exact_top_k)
{
    for (int f = 0; f < N_FORMATS; f++)
        for (int i = 0; i < N_SHAPES; i++)
            for (int levels = 0; levels <= 8; levels += 4) {
                bench_heap b;
                heap_open(&b);
                mest_sparse *s = sparse_make(&b, test_formats[f], &test_shapes[i], -1);
                if (!s) {
                    heap_close(&b);
                    continue;
                }
                dense_weight d = dense_make(&test_shapes[i], 11, levels);
                ranked *order = malloc((size_t)s->n_units * sizeof *order + 8);
                for (int64_t u = 0; u < s->n_units; u++) {
                    order[u] = (ranked){ 1, -1 };
                    for (int64_t id = u * s->choices; id < (u + 1) * s->choices; id++) /* the best mask of a kernel */
                        if (-(double)oracle_norm(s, d.w, id) < order[u].key)
                            order[u] = (ranked){ -(double)oracle_norm(s, d.w, id), id };
                }
                qsort(order, (size_t)s->n_units, sizeof *order, ranked_compare);
                int64_t tries[] = { 0, 1, s->n_units / 10, s->n_units / 2, s->n_units - 1, s->n_units };
                for (size_t t = 0; t < sizeof tries / sizeof *tries; t++) {
                    int64_t k = tries[t], *want = malloc((size_t)k * 8 + 8), *got = malloc((size_t)k * 8 + 8);
                    oracle_best(s, order, k, want);
                    OK(mest_sparse_from_magnitude(s, &(mest_reader){ dense_read, &d }, k, err));
                    sparse_check(s);
                    MUST(s->active_units == k);
                    s->format->units(s, 0, k, got);
                    ck_assert_mem_eq(got, want, (size_t)k * 8);
                    for (int64_t p = 0; p < s->stored; p++) {
                        int64_t at;
                        mest_sparse_coords(s, p, 1, &at);
                        MUST(s->values[p] == (at < 0 ? 0 : (mest_real)d.w[at]));
                    }
                    free(want), free(got);
                }
                ck_assert_int_le(d.largest_read, 4096);
                mest_sparse_destroy(s);
                free(order), free(d.w);
                heap_close(&b);
            }
}
END_TEST

START_TEST(magnitude_needs_no_dense_memory)
{
    static const char *const schemes[] = { "csr", "block4", "punched8x4", "pattern", "nm2:8", "nm1:16x4" };
    for (size_t f = 0; f < sizeof schemes / sizeof *schemes; f++) {
        bench_heap b;
        heap_open(&b);
        mest_shape shape = { 4, { 64, 64, 3, 3 } };
        dense_weight d = dense_make(&shape, 3, 0);
        mest_sparse *s = sparse_make(&b, schemes[f], &shape, 0);
        int64_t keep = mest_sparse_units_at(s, .9);
        OK(mest_sparse_reserve(s, keep, err));
        OK(mest_sparse_from_magnitude(s, &(mest_reader){ dense_read, &d }, keep, err));
        MUST(s->active_units == keep && (f || keep == 3686));
        size_t values = (size_t)(keep * s->unit_elements) * sizeof(mest_real), index = s->format->index_bytes(s, keep);
        size_t keys = s->group_units ? (size_t)(s->n_units / s->group_units) * sizeof(uint32_t) : 0, most = values > index ? values : index;
        ck_assert_uint_le(b.guard.largest, keys > most ? keys : most);
        ck_assert_int_le(d.elements, (s->group_units ? 2 : 4) * d.n);
        mest_sparse_destroy(s);
        free(d.w);
        heap_close(&b);
    }
}
END_TEST

/* From MEST_THRESHOLD_LARGE slots on the threshold is sought in another way. */
static int key_compare(const void *a, const void *b) { return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b); }

START_TEST(large_weights_are_exact)
{
    enum { RANDOM, BY_ROWS, TIES, ONE_VALUE, SAMPLE_BLIND, KINDS };
    static const struct { const char *format; mest_shape shape; } all[] = { { "csr", { 2, { 1031, 1024 } } }, { "block2", { 2, { 1031, 2053 } } } };
    for (size_t f = 0; f < sizeof all / sizeof *all; f++)
        for (int kind = 0; kind < (f ? TIES : KINDS); kind++) {
            bench_heap b;
            heap_open(&b);
            dense_weight d = dense_make(&all[f].shape, 21, kind == TIES ? 4 : 0);
            const int64_t cols = all[f].shape.dim[1];
            for (int64_t i = 0; i < d.n; i++)
                if (kind == BY_ROWS) /* every row of another size */
                    d.w[i] *= (float)(1 + i / cols);
                else if (kind == ONE_VALUE)
                    d.w[i] = .5f;
                else if (kind == SAMPLE_BLIND) /* pieces that are sampled hold small numbers, others large ones */
                    d.w[i] = i / 4096 % 8 ? 2 + d.w[i] : d.w[i];
            d.w[17] = -NAN;
            mest_sparse *s = sparse_make(&b, all[f].format, &all[f].shape, -1);
            MUST(s->n_units >= 1 << 20);
            uint32_t *key = malloc((size_t)s->n_units * 4), *sorted = malloc((size_t)s->n_units * 4);
            for (int64_t u = 0; u < s->n_units; u++) {
                const float norm = oracle_norm(s, d.w, u);
                memcpy(&key[u], &norm, 4);
                key[u] = ~key[u] & 0x7fffffff;
            }
            memcpy(sorted, key, (size_t)s->n_units * 4);
            qsort(sorted, (size_t)s->n_units, 4, key_compare);
            const int64_t tries[] = { 1, s->n_units / 10, s->n_units - 1 }; /* the ends: nothing, or everything, is beyond the sample */
            for (size_t t = 0; t < sizeof tries / sizeof *tries; t++) {
                const int64_t k = tries[t];
                const uint32_t last = sorted[k - 1];
                int64_t equal = 0, n = 0, *got = malloc((size_t)k * 8);
                for (int64_t i = k - 1; i >= 0 && sorted[i] == last; i--)
                    equal++;
                d.elements = 0;
                OK(mest_sparse_from_magnitude(s, &(mest_reader){ dense_read, &d }, k, err));
                MUST(s->active_units == k);
                s->format->units(s, 0, k, got);
                for (int64_t u = 0; u < s->n_units; u++)
                    if (key[u] < last || (key[u] == last && equal-- > 0)) {
                        MUST(n < k && got[n] == u);
                        n++;
                    }
                MUST(n == k);
                for (int64_t p = 0; p < s->stored; p += 997) {
                    int64_t at;
                    mest_sparse_coords(s, p, 1, &at);
                    MUST(at < 0 ? s->values[p] == 0 : s->values[p] == (mest_real)d.w[at] || at == 17);
                }
                ck_assert_int_le(d.elements, (int64_t)((kind == RANDOM ? 2.2 : 3.2) * (double)d.n));
                free(got);
            }
            for (int at = 0; at < 2; at++) { /* without memory for it: said, nothing lost */
                b.guard.fail_at = b.guard.n + at;
                mest_error refused = {0};
                MUST(mest_sparse_from_magnitude(s, &(mest_reader){ dense_read, &d }, s->n_units / 2, &refused) == MEST_E_NOMEM || (at && kind >= TIES));
                sparse_check(s);
                b.guard.fail_at = -1;
            }
            mest_sparse_destroy(s);
            free(key), free(sorted), free(d.w);
            heap_close(&b);
        }
}
END_TEST

/* Groups beyond what is kept in memory, and small ones and patterns beside it: an even share, one slot more for some groups, passes over the reader. */
START_TEST(large_groups_are_exact)
{
    static const struct { const char *format; mest_shape shape; double passes; } all[] = {
        { "nm2:4", { 2, { 1031, 1024 } }, 2.2 }, { "nm5:8", { 4, { 40, 64, 5, 5 } }, 2 }, { "nm3:4x3", { 2, { 100, 400 } }, 2 }, { "pattern", { 4, { 40, 500, 3, 3 } }, 2 } };
    for (size_t f = 0; f < sizeof all / sizeof *all; f++)
        for (int levels = 0; levels <= 4; levels += 4) {
            bench_heap b;
            heap_open(&b);
            dense_weight d = dense_make(&all[f].shape, 22, levels);
            mest_sparse *s = sparse_make(&b, all[f].format, &all[f].shape, -1);
            const int64_t size = s->group_units, groups = s->n_units / size;
            MUST(f || groups > 1 << 18);
            ranked *order = malloc((size_t)s->n_units * sizeof *order);
            for (int64_t u = 0; u < s->n_units; u++) {
                order[u] = (ranked){ 1, -1 };
                for (int64_t id = u * s->choices; id < (u + 1) * s->choices; id++)
                    if (-(double)oracle_norm(s, d.w, id) < order[u].key)
                        order[u] = (ranked){ -(double)oracle_norm(s, d.w, id), id };
            }
            qsort(order, (size_t)s->n_units, sizeof *order, ranked_compare);
            const int64_t tries[] = { groups / 3, groups, groups + groups / 2 };
            for (size_t t = 0; t < sizeof tries / sizeof *tries; t++) {
                const int64_t k = tries[t];
                int64_t *want = malloc((size_t)k * 8), *got = malloc((size_t)k * 8);
                oracle_best(s, order, k, want);
                d.elements = 0;
                OK(mest_sparse_from_magnitude(s, &(mest_reader){ dense_read, &d }, k, err));
                MUST(s->active_units == k);
                s->format->units(s, 0, k, got);
                ck_assert_mem_eq(got, want, (size_t)k * 8);
                for (int64_t p = 0; p < s->stored; p += 97) {
                    int64_t at;
                    mest_sparse_coords(s, p, 1, &at);
                    MUST(s->values[p] == (at < 0 ? 0 : (mest_real)d.w[at]));
                }
                ck_assert_int_le(d.elements, (int64_t)((t == 1 ? 1 : levels && !f ? 3.2 : all[f].passes) * (double)d.n));
                free(want), free(got);
            }
            for (int at = 0; at < 2; at++) {
                b.guard.fail_at = b.guard.n + at;
                mest_error refused = {0};
                mest_status status = mest_sparse_from_magnitude(s, &(mest_reader){ dense_read, &d }, groups / 3, &refused);
                MUST(status == MEST_E_NOMEM || (at && status == MEST_OK));
                sparse_check(s);
                b.guard.fail_at = -1;
            }
            mest_sparse_destroy(s);
            free(order), free(d.w);
            heap_close(&b);
        }
}
END_TEST

START_TEST(nan_and_infinity_rank_highest)
{
    bench_heap b;
    heap_open(&b);
    float w[] = { 1, -NAN, 0, -INFINITY, 3, -0.0f, 1e-45f, 2 };
    dense_weight d = { .w = w, .n = 8 };
    mest_sparse *s = sparse_make(&b, "csr", &(mest_shape){ 2, { 2, 4 } }, 6);
    int64_t got[6], want3[] = { 1, 3, 4 }, want6[] = { 0, 1, 3, 4, 6, 7 };
    OK(mest_sparse_from_magnitude(s, &(mest_reader){ dense_read, &d }, 3, err));
    s->format->units(s, 0, 3, got);
    ck_assert_mem_eq(got, want3, sizeof want3);
    OK(mest_sparse_from_magnitude(s, &(mest_reader){ dense_read, &d }, 6, err));
    s->format->units(s, 0, 6, got);
    ck_assert_mem_eq(got, want6, sizeof want6);
    REFUSED(MEST_E_LIMIT, mest_sparse_from_magnitude(s, &(mest_reader){ dense_read, &d }, 7, err));
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

static mest_status failing_read(const void *self, int64_t first, int64_t n, float *out, mest_error *err)
{
    int *left = (int *)(uintptr_t)self;
    (void)first;
    for (int64_t i = 0; i < n; i++)
        out[i] = 1;
    if ((*left)-- == 0) {
        if (err) {
            err->code = MEST_E_IO;
            snprintf(err->msg, sizeof err->msg, "gone");
        }
        return MEST_E_IO;
    }
    return MEST_OK;
}

START_TEST(a_failing_reader_leaves_a_valid_weight)
{
    static const struct { const char *format; mest_shape shape; } all[] = {
        { "block4", { 2, { 10, 20 } } }, { "pattern", { 4, { 10, 6, 3, 3 } } }, { "nm2:4", { 2, { 10, 20 } } }, { "punched4x2", { 2, { 10, 20 } } },
    };
    for (size_t f = 0; f < sizeof all / sizeof *all; f++)
        for (int n = 0; n < 36; n += 3) { /* ten reads a pass, eight in the last of block4 */
            bench_heap b;
            heap_open(&b);
            mest_sparse *s = sparse_make(&b, all[f].format, &all[f].shape, -1);
            int left = s->group_units ? n / 2 : n; /* two passes, others four */
            REFUSED(MEST_E_IO, mest_sparse_from_magnitude(s, &(mest_reader){ failing_read, &left }, s->n_units * 31 / 60, err));
            sparse_check(s);
            mest_sparse_destroy(s);
            heap_close(&b);
        }
}
END_TEST

/* Unbalanced weights too (a plugin may have grown as it liked): the fullest groups lose first. */
START_TEST(lowest_of_unbalanced_groups)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        bench_heap b;
        heap_open(&b);
        mest_sparse *s = sparse_make(&b, seed % 2 ? "nm3:8" : "pattern", &(mest_shape){ 4, { 5, 8, 3, 3 } }, -1);
        int64_t units[360], got[360], want[360], u = 0;
        mest_real values[360 * 4];
        ranked order[360];
        for (int64_t slot = 0; slot < s->n_units; slot++)
            if (mest_rng_below(seed, (uint64_t)(slot / s->group_units), (uint64_t)slot, 100) < 30 + 40 * (uint64_t)(slot / s->group_units % 2))
                units[u++] = slot * s->choices + (slot % s->choices);
        for (int64_t k = 0; k < u * s->unit_elements; k++)
            values[k] = (mest_real)(1 + mest_rng_below(seed, 7, (uint64_t)k, 4));
        OK(mest_sparse_from_units(s, units, u, values, err));
        float score[360];
        mest_sparse_scores(s, NULL, 0, false, 0, u, score);
        for (int64_t k = 0; k < u; k++)
            order[k] = (ranked){ (double)score[k], units[k] };
        qsort(order, (size_t)u, sizeof *order, ranked_compare);
        for (int64_t k = 0; k <= u; k += 1 + u / 7) {
            OK(mest_sparse_lowest(s, NULL, 0, false, k, got, err));
            oracle_lowest(s, order, u, k, want);
            ck_assert_mem_eq(got, want, (size_t)k * 8);
        }
        mest_sparse_destroy(s);
        heap_close(&b);
    }
}
END_TEST

/* Scores by definition, then the k lowest by sorting, for all modes. */
START_TEST(lowest_matches_the_definition)
{
    for (int f = 0; f < N_FORMATS; f++)
        for (int i = 0; i < N_SHAPES; i++)
            for (int mode = 0; mode < 6; mode++) {
                bench_heap b;
                heap_open(&b);
                mest_sparse *s = sparse_make(&b, test_formats[f], &test_shapes[i], -1);
                if (!s) {
                    heap_close(&b);
                    continue;
                }
                dense_weight d = dense_make(&test_shapes[i], 21, mode % 2 ? 0 : 3);
                int64_t u = (s->n_units * 2 + 2) / 3;
                OK(mest_sparse_from_magnitude(s, &(mest_reader){ dense_read, &d }, u, err));
                double lambda = mode < 2 ? 0 : .5;
                bool normalised = mode >= 4;
                mest_real *grad = malloc((size_t)s->stored * sizeof *grad + 8);
                for (int64_t k = 0; k < s->stored; k++)
                    grad[k] = s->values[k] == 0 ? 0 : (mest_real)(floor(8 * mest_rng_uniform(9, 9, (uint64_t)k)) - 4);
                double mean_w = 0, mean_g = 0;
                double *nw = malloc((size_t)u * 8 + 8), *ng = malloc((size_t)u * 8 + 8);
                for (int64_t k = 0; k < u; k++) {
                    double w2 = 0, g2 = 0;
                    for (int64_t e = 0; e < s->unit_elements; e++) {
                        w2 += (double)s->values[k * s->unit_elements + e] * (double)s->values[k * s->unit_elements + e];
                        g2 += (double)grad[k * s->unit_elements + e] * (double)grad[k * s->unit_elements + e];
                    }
                    nw[k] = s->unit_elements == 1 ? fabs((double)s->values[k]) : sqrt(w2);
                    ng[k] = s->unit_elements == 1 ? fabs((double)grad[k]) : sqrt(g2);
                    mean_w += nw[k] / (double)u;
                    mean_g += ng[k] / (double)u;
                }
                float *score = malloc((size_t)u * sizeof *score + 8);
                mest_sparse_scores(s, grad, lambda, normalised, 0, u, score);
                ranked *order = malloc((size_t)u * sizeof *order + 8);
                int64_t *units = malloc((size_t)u * 8 + 8), *got = malloc((size_t)u * 8 + 8);
                s->format->units(s, 0, u, units);
                for (int64_t k = 0; k < u; k++) {
                    double want = normalised ? (mean_w > 0 ? nw[k] / mean_w : 0) + (mean_g > 0 ? lambda * ng[k] / mean_g : 0) : nw[k] + lambda * ng[k];
                    ck_assert_double_eq_tol((double)score[k], want, 1e-6 * (1 + want));
                    if (mode < 2)
                        MUST((float)nw[k] == score[k]);
                    order[k] = (ranked){ (double)score[k], units[k] };
                }
                qsort(order, (size_t)u, sizeof *order, ranked_compare);
                int64_t tries[] = { 0, 1, u / 5, u / 2, u };
                for (size_t t = 0; t < 5; t++) {
                    int64_t k = tries[t] > u ? u : tries[t];
                    OK(mest_sparse_lowest(s, grad, lambda, normalised, k, got, err));
                    int64_t *want = malloc((size_t)k * 8 + 8);
                    oracle_lowest(s, order, u, k, want);
                    ck_assert_mem_eq(got, want, (size_t)k * 8);
                    free(want);
                }
                REFUSED(MEST_E_ARGUMENT, mest_sparse_lowest(s, grad, lambda, normalised, u + 1, got, err));
                REFUSED(MEST_E_ARGUMENT, mest_sparse_lowest(s, grad, -1, normalised, 1, got, err));
                mest_sparse_destroy(s);
                free(d.w), free(grad), free(nw), free(ng), free(score), free(order), free(units), free(got);
                heap_close(&b);
            }
}
END_TEST

/* The gradient term must be able to change who goes. */
START_TEST(lambda_changes_the_victims)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, "csr", &(mest_shape){ 2, { 1, 4 } }, 4);
    int64_t units[] = { 0, 1, 2, 3 }, got[2], small[] = { 0, 1 }, large[] = { 2, 3 };
    mest_real w[] = { 1, 2, 3, 4 }, g[] = { 40, 30, 20, 10 };
    OK(mest_sparse_from_units(s, units, 4, w, err));
    OK(mest_sparse_lowest(s, g, 0, false, 2, got, err));
    ck_assert_mem_eq(got, small, sizeof small);
    OK(mest_sparse_lowest(s, g, 1, false, 2, got, err));
    ck_assert_mem_eq(got, large, sizeof large);
    OK(mest_sparse_lowest(s, NULL, 1, false, 2, got, err));
    ck_assert_mem_eq(got, small, sizeof small);
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

/* Counts of the worked table: round((1 - s) * U), halves up. */
START_TEST(counts_round_halves_up)
{
    const int64_t n[] = { 9216, 18432, 36864, 73728, 147456 };
    const double s[] = { .90, .92, .91, .85, .875, .95, .98 };
    const int64_t want[5][7] = { { 922, 737, 829, 1382, 1152, 461, 184 },       { 1843, 1475, 1659, 2765, 2304, 922, 369 },
                                 { 3686, 2949, 3318, 5530, 4608, 1843, 737 },   { 7373, 5898, 6636, 11059, 9216, 3686, 1475 },
                                 { 14746, 11796, 13271, 22118, 18432, 7373, 2949 } };
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 7; j++)
            MUST(mest_units_at(s[j], n[i]) == want[i][j]);
    MUST(mest_units_at(0, 7) == 7);
    MUST(mest_units_at(1, 7) == 0);
    MUST(mest_units_at(.5, 7) == 4);
    MUST(mest_units_at(.9, 15) == 2); /* 1.5, although (1 - .9) * 15 < 1.5 in binary */
    MUST(mest_units_at(.9, 5) == 1);
    MUST(mest_units_at(2, 5) == 0);
    MUST(mest_units_at(-1, 5) == 5);
}
END_TEST

RUN("sparse selection", magnitude_is_exact_top_k, large_weights_are_exact, large_groups_are_exact, magnitude_needs_no_dense_memory, nan_and_infinity_rank_highest,
    a_failing_reader_leaves_a_valid_weight, lowest_matches_the_definition, lowest_of_unbalanced_groups, lambda_changes_the_victims, counts_round_halves_up)
