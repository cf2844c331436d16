/* SPDX-License-Identifier: Apache-2.0 */
/* Formats: names, shapes, index, coordinates, dense rows, padding, failing allocations. */
#include "tests/sparse/fixture.h"

START_TEST(names_are_found_or_listed)
{
    mest_scheme f;
    OK(mest_scheme_find("csr", &f, err));
    ck_assert_str_eq(f.format->family, "csr");
    MUST(f.height == 1);
    OK(mest_scheme_find("block16", &f, err));
    MUST(f.height == 16);
    OK(mest_scheme_find("punched8x4", &f, err));
    MUST(f.height == 8 && f.width == 4);
    OK(mest_scheme_find("nm2:4", &f, err));
    MUST(f.n == 2 && f.m == 4 && f.height == 1);
    OK(mest_scheme_find("nm1:16x8", &f, err));
    MUST(f.n == 1 && f.m == 16 && f.height == 8);
    OK(mest_scheme_find("pattern", &f, err));
    const char *bad[] = { "", "cs", "csr4", "block", "block0", "block04", "block65", "block99999999999", "block4x", "n2m4", "nm", "nm2", "nm2:",
                          "nm:4", "nm4:4", "nm0:4", "nm2:17", "nm2:4x", "nm2:4x65", "nm2:4x4x4", "punched", "punched8", "punched8x", "punchedx4",
                          "punched64x64", "pattern4", "block4               " };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED(MEST_E_ARGUMENT, mest_scheme_find(bad[i], &f, err));
    REFUSED(MEST_E_ARGUMENT, mest_scheme_find(NULL, &f, err));
    mest_error e = { 0 };
    MUST(mest_scheme_find("coo", &f, &e) == MEST_E_ARGUMENT);
    MUST(strstr(e.msg, "coo") && strstr(e.msg, "csr") && strstr(e.msg, "block1..block64") && strstr(e.msg, "nmN:M"));
    int n = 0;
    while (mest_format_at(n))
        n++;
    MUST(n == 5);
    ck_assert_ptr_null(mest_format_at(-1));
}
END_TEST

/* Patterns of several densities: what goes in comes out, by units, coordinates and rows. */
START_TEST(units_round_trip)
{
    for (int f = 0; f < N_FORMATS; f++)
        for (int i = 0; i < N_SHAPES; i++)
            for (int density = 0; density <= 100; density += 25) {
                bench_heap b;
                heap_open(&b);
                mest_sparse *s = sparse_make(&b, test_formats[f], &test_shapes[i], -1);
                if (!s) {
                    heap_close(&b);
                    continue;
                }
                const int64_t ids = mest_sparse_ids(s);
                int64_t *units = malloc((size_t)ids * 8 + 8), *back = malloc((size_t)ids * 8 + 8), n = 0;
                for (int64_t u = 0; u < s->n_units; u++)
                    if ((int)mest_rng_below(5, (uint64_t)density, (uint64_t)u, 100) < density)
                        units[n++] = u * s->choices + (int64_t)mest_rng_below(6, 6, (uint64_t)u, (uint64_t)s->choices);
                size_t e = (size_t)s->unit_elements, stored = (size_t)n * e;
                mest_real *values = malloc(stored * sizeof *values + 8);
                for (size_t k = 0; k < stored; k++)
                    values[k] = (mest_real)(k + 1);
                uint32_t version = s->version;
                OK(mest_sparse_from_units(s, units, n, values, err));
                sparse_check(s);
                ck_assert_int_ne(s->version, version);
                MUST(s->active_units == n);
                for (int64_t from = 0; from < n; from += 3) {
                    int64_t m = n - from < 7 ? n - from : 7;
                    s->format->units(s, from, m, back);
                    ck_assert_mem_eq(back, units + from, (size_t)m * 8);
                }
                for (int64_t u = 0, k = 0; u < ids; u++) {
                    bool in = k < n && units[k] == u;
                    MUST(mest_sparse_lower_bound(s, u) == k);
                    MUST(mest_sparse_active(s, u) == in);
                    k += in;
                }
                /* coordinates, entries, rows and dense rows against the formats' definitions */
                int64_t *at = malloc(stored * 8 + 8), *in_row = malloc((size_t)mest_sparse_row_most(s) * 8 + 8), nnz = 0, seen = 0;
                mest_sparse_coords(s, 0, (int64_t)stored, at);
                float *want = calloc((size_t)(s->rows * s->cols) + 1, sizeof *want), *got = malloc((size_t)(s->rows * s->cols + 1) * sizeof *got);
                for (size_t k = 0; k < stored; k++) {
                    int64_t row, col;
                    bool inside = oracle_place(s, units[k / e], (int64_t)(k % e), &row, &col);
                    MUST(at[k] == (inside ? row * s->cols + col : -1));
                    if (inside) {
                        MUST(want[at[k]] == 0); /* no two entries in one place */
                        want[at[k]] = (float)values[k];
                        nnz++;
                    } else {
                        MUST(s->values[k] == 0);
                    }
                }
                MUST(mest_sparse_nnz(s) == nnz);
                for (int64_t row = 0; row < s->rows; row += 2) {
                    int64_t m = s->rows - row < 3 ? s->rows - row : 3;
                    got[m * s->cols] = 42;
                    mest_sparse_dense_rows(s, s->values, row, m, got);
                    ck_assert_mem_eq(got, want + row * s->cols, (size_t)(m * s->cols) * sizeof *got);
                    MUST(got[m * s->cols] == 42);
                }
                for (int64_t from = 0; from < s->rows * s->cols; from += 257) {
                    int64_t m = s->rows * s->cols - from < 300 ? s->rows * s->cols - from : 300;
                    mest_sparse_read(s, from, m, got);
                    ck_assert_mem_eq(got, want + from, (size_t)m * sizeof *got);
                }
                for (int64_t row = 0; row < s->rows; row++) {
                    int64_t m = mest_sparse_row(s, row, in_row);
                    MUST(m <= mest_sparse_row_most(s));
                    for (int64_t k = 0; k < m; k++) {
                        MUST(k == 0 || in_row[k] >> 32 > in_row[k - 1] >> 32);
                        MUST(at[in_row[k] & 0xffffffff] == row * s->cols + (in_row[k] >> 32));
                    }
                    seen += m;
                }
                MUST(seen == nnz);
                free(in_row);
                OK(mest_sparse_from_units(s, units, n, NULL, err));
                for (size_t k = 0; k < stored; k++)
                    MUST(s->values[k] == 0);
                mest_sparse_destroy(s);
                free(units), free(back), free(values), free(at), free(want), free(got);
                heap_close(&b);
            }
}
END_TEST

START_TEST(reserve_keeps_the_pattern)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, "block4", &(mest_shape){ 2, { 10, 9 } }, 4);
    int64_t units[] = { 0, 8, 9, 26 };
    mest_real values[16];
    for (int i = 0; i < 16; i++)
        values[i] = (mest_real)(i + 1);
    OK(mest_sparse_from_units(s, units, 4, values, err));
    mest_real before[16];
    memcpy(before, s->values, sizeof before);
    OK(mest_sparse_reserve(s, 2, err));
    MUST(s->cap_units == 4);
    OK(mest_sparse_reserve(s, 27, err));
    MUST(s->cap_units == 27);
    sparse_check(s);
    int64_t back[4];
    s->format->units(s, 0, 4, back);
    ck_assert_mem_eq(back, units, sizeof units);
    ck_assert_mem_eq(s->values, before, sizeof before);
    REFUSED(MEST_E_ARGUMENT, mest_sparse_reserve(s, 28, err));
    mest_sparse_destroy(s);
    mest_sparse_destroy(NULL);
    heap_close(&b);
}
END_TEST

START_TEST(bad_units_and_shapes_are_refused)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, "csr", &(mest_shape){ 2, { 4, 5 } }, 3), *none;
    int64_t good[] = { 1, 2, 3 };
    OK(mest_sparse_from_units(s, good, 3, NULL, err));
    int64_t range[] = { 1, 20 }, negative[] = { -1, 2 }, twice[] = { 2, 2 }, order[] = { 3, 2 }, many[] = { 0, 1, 2, 3 };
    REFUSED(MEST_E_ARGUMENT, mest_sparse_from_units(s, range, 2, NULL, err));
    REFUSED(MEST_E_ARGUMENT, mest_sparse_from_units(s, negative, 2, NULL, err));
    REFUSED(MEST_E_ARGUMENT, mest_sparse_from_units(s, twice, 2, NULL, err));
    REFUSED(MEST_E_ARGUMENT, mest_sparse_from_units(s, order, 2, NULL, err));
    REFUSED(MEST_E_LIMIT, mest_sparse_from_units(s, many, 4, NULL, err));
    MUST(s->active_units == 3);
    sparse_check(s);
    mest_sparse_destroy(s);
    REFUSED(MEST_E_SHAPE, mest_sparse_create(&none, &b.heap, "csr", &(mest_shape){ 0, { 0 } }, 0, err));
    REFUSED(MEST_E_SHAPE, mest_sparse_create(&none, &b.heap, "csr", &(mest_shape){ 2, { -1, 3 } }, 0, err));
    REFUSED(MEST_E_LIMIT, mest_sparse_create(&none, &b.heap, "csr", &(mest_shape){ 2, { (int64_t)1 << 33, 3 } }, 0, err));
    REFUSED(MEST_E_LIMIT, mest_sparse_create(&none, &b.heap, "block4", &(mest_shape){ 2, { 1 << 20, 1 << 20 } }, 1 << 30, err));
    ck_assert_ptr_null(none);
    OK(mest_sparse_create(&none, &b.heap, "block4", &(mest_shape){ 2, { 0, 8 } }, 0, err));
    OK(mest_sparse_from_units(none, NULL, 0, NULL, err));
    sparse_check(none);
    MUST(mest_sparse_nnz(none) == 0);
    mest_sparse_destroy(none);
    OK(mest_sparse_create(&none, &b.heap, "csr", &(mest_shape){ 2, { 8, 0 } }, 0, err));
    OK(mest_sparse_from_units(none, NULL, 0, NULL, err));
    sparse_check(none);
    mest_sparse_destroy(none);
    heap_close(&b);
}
END_TEST

/* Every position of the weight belongs to exactly one unit; of a kernel with masks, each position to the masks that keep it. */
START_TEST(units_cover_the_weight)
{
    for (int f = 0; f < N_FORMATS; f++)
        for (int i = 0; i < N_SHAPES; i++) {
            bench_heap b;
            heap_open(&b);
            mest_sparse *s = sparse_make(&b, test_formats[f], &test_shapes[i], 0);
            if (s) {
                int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
                int *count = calloc((size_t)(s->rows * s->cols) + 1, sizeof *count);
                MUST(s->unit_rows * s->unit_cols == mest_sparse_ids(s) && (s->group_units == 0 || s->unit_cols / s->choices % s->group_units == 0));
                for (int64_t id = 0; id < mest_sparse_ids(s); id++) {
                    mest_sparse_unit_entries(s, id, row, col);
                    for (int32_t e = 0; e < s->unit_elements; e++) {
                        int64_t r, c;
                        bool inside = oracle_place(s, id, e, &r, &c);
                        MUST(inside == (col[e] >= 0 && row[e] < s->rows) && (!inside || (row[e] == r && col[e] == c)));
                        MUST(row[e] / s->row_span == id / s->unit_cols);
                        if (inside)
                            count[r * s->cols + c]++;
                    }
                }
                static const int kept_by[9] = { 1, 4, 1, 4, 7, 5, 2, 6, 2 }; /* P1..P8 that keep each position */
                for (int64_t k = 0; k < s->rows * s->cols; k++)
                    MUST(count[k] == (s->choices == 1 ? 1 : kept_by[k % 9]));
                free(count);
                mest_sparse_destroy(s);
            }
            heap_close(&b);
        }
}
END_TEST

START_TEST(choices_and_groups_are_kept)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, "pattern", &(mest_shape){ 4, { 3, 4, 3, 3 } }, 6); /* two kernels a filter */
    MUST(mest_sparse_group_most(s) == 2);
    int64_t two_masks[] = { 3, 5 }, three_kernels[] = { 0, 8, 16 }, good[] = { 0, 9, 34 };
    REFUSED(MEST_E_ARGUMENT, mest_sparse_from_units(s, two_masks, 2, NULL, err));
    REFUSED(MEST_E_LIMIT, mest_sparse_from_units(s, three_kernels, 3, NULL, err));
    OK(mest_sparse_from_units(s, good, 3, NULL, err));
    mest_rows_col(s)[1] = 1; /* kernel 0 again, another mask */
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    mest_sparse_destroy(s);
    s = sparse_make(&b, "nm2:4", &(mest_shape){ 2, { 2, 8 } }, 8);
    MUST(mest_sparse_group_most(s) == 2);
    int64_t three[] = { 0, 1, 3 }, two[] = { 0, 1, 4, 7, 8, 9, 12, 13 };
    REFUSED(MEST_E_LIMIT, mest_sparse_from_units(s, three, 3, NULL, err));
    OK(mest_sparse_from_units(s, two, 8, NULL, err));
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

START_TEST(pattern_tables)
{
    mest_patterns p;
    const mest_patterns *eight = mest_patterns_default();
    OK(mest_patterns_make(&p, eight->mask, eight->n, err));
    ck_assert_mem_eq(p.mask, eight->mask, sizeof p.mask);
    ck_assert_mem_eq(p.tap, eight->tap, sizeof p.tap);
    MUST(p.n == 8 && p.kept == 4 && eight->kept == 4 && !p.rotates && !eight->rotates);
    OK(mest_patterns_parse(&p, "# two of each other\n0x1b0 27\n", "t", err)); /* 27 = 0x1b, 0x1b0 turned */
    MUST(p.n == 2 && p.kept == 4 && p.rotates && p.mask[1] == 0x1b);
    OK(mest_patterns_parse(&p, ".xx\n.xx # P3\n...\n\nxx.\nxx.\n000\n", "t", err));
    MUST(p.n == 2 && p.mask[0] == 0x36 && p.mask[1] == 0x1b && !p.rotates);
    OK(mest_patterns_parse(&p, "010 111 010", "t", err));
    MUST(p.n == 1 && p.kept == 5 && p.rotates && p.mask[0] == 0xba);
    const char *bad[] = { "", "0x1b0 0x1b0", "0x1b0 7", "0x200", "0", "xx. xx.", "x.y ... ...", "-4", "xx. 0x1b0", "four" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED(MEST_E_FORMAT, mest_patterns_parse(&p, bad[i], "t", err));
}
END_TEST

/* Worked counts: kernels kept per filter and what is left of the weight; N:M exactly; punched and block by units. */
START_TEST(counts_of_the_schemes)
{
    const double sparsity[3] = { .90, .95, .98 };
    const int64_t inputs[3] = { 32, 64, 128 }, kept[3][3] = { { 8, 15, 29 }, { 4, 8, 15 }, { 2, 3, 6 } };
    const double left[3][3] = { { .8889, .8958, .8993 }, { .9444, .9444, .9479 }, { .9722, .9792, .9792 } };
    bench_heap b;
    heap_open(&b);
    for (int i = 0; i < 3; i++) {
        mest_sparse *s = sparse_make(&b, "pattern", &(mest_shape){ 4, { 16, inputs[i], 3, 3 } }, 0);
        for (int j = 0; j < 3; j++) {
            const int64_t n = mest_sparse_units_at(s, sparsity[j]);
            MUST(n == 16 * kept[j][i]);
            ck_assert_double_eq_tol(1 - (double)(n * s->unit_elements) / (double)(s->rows * s->cols), left[j][i], 5e-5);
        }
        MUST(mest_sparse_units_at(s, 5.0 / 9) == s->n_units && mest_sparse_units_at(s, 0) == s->n_units);
        ck_assert_double_eq_tol(mest_sparse_least_sparsity(s), 5.0 / 9, 1e-12);
        mest_sparse_destroy(s);
    }
    mest_sparse *s = sparse_make(&b, "pattern", &(mest_shape){ 4, { 2, 40, 3, 3 } }, 0);
    MUST(mest_sparse_units_at(s, .9) == 2 * 9); /* 40 * 0.775 is 31 */
    mest_sparse_destroy(s);
    const struct { const char *name; int64_t n, m; } nm[] = { { "nm1:4", 1, 4 }, { "nm2:4", 2, 4 }, { "nm2:8", 2, 8 }, { "nm1:3", 1, 3 }, { "nm5:12", 5, 12 } };
    for (size_t i = 0; i < sizeof nm / sizeof *nm; i++) {
        s = sparse_make(&b, nm[i].name, &(mest_shape){ 4, { 7, 24, 3, 3 } }, 0);
        MUST(mest_sparse_units_at(s, mest_sparse_least_sparsity(s)) == 7 * 24 * 9 * nm[i].n / nm[i].m);
        mest_sparse_destroy(s);
    }
    s = sparse_make(&b, "punched8x4", &(mest_shape){ 4, { 64, 64, 3, 3 } }, 0);
    MUST(s->n_units == 8 * 16 * 9 && mest_sparse_units_at(s, .9) == 115);
    mest_sparse_destroy(s);
    s = sparse_make(&b, "block4", &(mest_shape){ 4, { 64, 64, 3, 3 } }, 0);
    MUST(s->n_units == 9216 && mest_sparse_units_at(s, .9) == 922);
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

START_TEST(every_failed_allocation_is_survived)
{
    for (int64_t at = 0; at < 5; at++) {
        bench_heap b;
        heap_open(&b);
        b.guard.fail_at = at;
        mest_sparse *s;
        mest_error err = { 0 };
        mest_status status = mest_sparse_create(&s, &b.heap, "block4", &(mest_shape){ 2, { 9, 9 } }, 5, &err);
        if (at < 3) {
            MUST(status == MEST_E_NOMEM);
            ck_assert_ptr_null(s);
        } else {
            MUST(status == MEST_OK);
            MUST(mest_sparse_reserve(s, 9, &err) == MEST_E_NOMEM);
            sparse_check(s);
            MUST(s->cap_units == 5);
            mest_sparse_destroy(s);
        }
        heap_close(&b);
    }
}
END_TEST

START_TEST(check_sees_damage)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, "block4", &(mest_shape){ 2, { 6, 5 } }, -1);
    int64_t units[] = { 0, 3, 4, 7, 9 };
    OK(mest_sparse_from_units(s, units, 5, NULL, err));
    int32_t *col = mest_rows_col(s);
    int32_t keep = col[1];
    col[1] = 5;
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    col[1] = 0;
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    col[1] = keep;
    s->values[3 * 4 + 2] = 1;
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    s->values[3 * 4 + 2] = 0;
    mest_rows_start(s)[1] = 6;
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    mest_rows_start(s)[1] = 3;
    sparse_check(s);
    s->stored--;
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

RUN("sparse formats", names_are_found_or_listed, units_round_trip, units_cover_the_weight, choices_and_groups_are_kept, pattern_tables,
    counts_of_the_schemes, reserve_keeps_the_pattern, bad_units_and_shapes_are_refused,
    every_failed_allocation_is_survived, check_sees_damage)
