/* SPDX-License-Identifier: Apache-2.0 */
/* Formats: names, shapes, index, coordinates, dense rows, padding, failing allocations. */
#include "tests/sparse/fixture.h"

START_TEST(names_are_found_or_listed)
{
    const mest_format *f;
    int32_t h;
    OK(mest_format_find("csr", &f, &h, err));
    ck_assert_str_eq(f->family, "csr");
    MUST(h == 1);
    OK(mest_format_find("block16", &f, &h, err));
    MUST(h == 16);
    const char *bad[] = { "", "cs", "csr4", "block", "block0", "block04", "block65", "block99999999999", "block4x", "n2m4" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED(MEST_E_ARGUMENT, mest_format_find(bad[i], &f, &h, err));
    REFUSED(MEST_E_ARGUMENT, mest_format_find(NULL, &f, &h, err));
    mest_error e = { 0 };
    MUST(mest_format_find("coo", &f, &h, &e) == MEST_E_ARGUMENT);
    MUST(strstr(e.msg, "coo") && strstr(e.msg, "csr") && strstr(e.msg, "block1..block64"));
    int n = 0;
    while (mest_format_at(n))
        n++;
    MUST(n == 2);
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
                MUST(s->n_units == (s->rows + s->height - 1) / s->height * s->cols);
                int64_t *units = malloc((size_t)s->n_units * 8 + 8), *back = malloc((size_t)s->n_units * 8 + 8), n = 0;
                for (int64_t u = 0; u < s->n_units; u++)
                    if ((int)mest_rng_below(5, (uint64_t)density, (uint64_t)u, 100) < density)
                        units[n++] = u;
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
                for (int64_t u = 0, k = 0; u < s->n_units; u++) {
                    bool in = k < n && units[k] == u;
                    MUST(mest_sparse_lower_bound(s, u) == k);
                    MUST(mest_sparse_active(s, u) == in);
                    k += in;
                }
                /* coordinates and dense rows against unit arithmetic */
                int64_t *at = malloc(stored * 8 + 8), nnz = 0;
                mest_sparse_coords(s, 0, (int64_t)stored, at);
                float *want = calloc((size_t)(s->rows * s->cols) + 1, sizeof *want), *got = malloc((size_t)(s->rows * s->cols + 1) * sizeof *got);
                for (size_t k = 0; k < stored; k++) {
                    int64_t u = units[k / e], row = u / s->cols * s->height + (int64_t)(k % e);
                    MUST(at[k] == (row < s->rows ? row * s->cols + u % s->cols : -1));
                    if (at[k] >= 0) {
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
    int32_t *col = mest_csr_row_start(s) + mest_block_rows(s) + 1;
    int32_t keep = col[1];
    col[1] = 5;
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    col[1] = 0;
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    col[1] = keep;
    s->values[3 * 4 + 2] = 1;
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    s->values[3 * 4 + 2] = 0;
    mest_csr_row_start(s)[1] = 6;
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    mest_csr_row_start(s)[1] = 3;
    sparse_check(s);
    s->stored--;
    REFUSED(MEST_E_INTERNAL, s->format->check(s, err));
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

RUN("sparse formats", names_are_found_or_listed, units_round_trip, reserve_keeps_the_pattern, bad_units_and_shapes_are_refused,
    every_failed_allocation_is_survived, check_sees_damage)
