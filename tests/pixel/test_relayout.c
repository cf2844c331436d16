/* SPDX-License-Identifier: Apache-2.0 */
/* mest.Relayout: every pair of layouts gives back what went in, and idle lanes are zero. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/pixel/twin.h"

static const mest_layout layouts[] = {
    {.kind = MEST_PLAIN},
    {.kind = MEST_PIXEL, .v = 1},
    {.kind = MEST_PIXEL, .v = 1, .top = 1, .left = 2, .bottom = 1, .right = 1},
    {.kind = MEST_PIXEL, .v = 4},
    {.kind = MEST_PIXEL, .v = 8, .top = 1, .left = 1, .bottom = 1, .right = 1},
    {.kind = MEST_PIXEL, .v = 16},
    {.kind = MEST_PIXEL, .v = 16, .top = 2, .left = 1, .right = 3},
};
enum { N_LAYOUTS = sizeof layouts / sizeof *layouts };

static mest_type type_of(const mest_shape *shape, int layout, int spare)
{
    mest_type t = {.dtype = MEST_F32, .shape = *shape, .layout = layouts[layout]};
    if (t.layout.kind == MEST_PIXEL)
        t.layout.slots = mest_default_slots(shape->dim[1], t.layout.v) + spare;
    return t;
}

static mest_real *make(const mest_type *t, int64_t *storage)
{
    ck_assert(mest_type_storage(t, storage));
    mest_real *data = malloc(((size_t)*storage + 8) * sizeof *data);
    for (int64_t i = 0; i < *storage + 8; i++)
        data[i] = -99;
    return data;
}

static void convert(const mest_type *from, const mest_real *x, const mest_type *to, mest_real *y, const mest_threads *threads)
{
    int64_t n;
    mest_error err = {0};
    ck_assert(mest_shape_count(&from->shape, &n));
    const mest_tensor in = {.type = from, .data = (void *)x, .count = (size_t)n}, out = {.type = to, .data = y, .count = (size_t)n};
    const mest_op *op = twin_op("mest.Relayout");
    const mest_node node = {.name = "r", .op = op};
    ck_assert_int_eq(op->forward(&(mest_args){.node = &node, .n_in = 1, .n_out = 1, .in = &in, .out = &out, .threads = threads, .err = &err}), 0);
}

START_TEST(round_trips)
{
    static const mest_shape shapes[] = {{4, {5, 3, 6, 7}},   {4, {16, 32, 4, 4}}, {4, {17, 5, 1, 9}}, {4, {3, 8, 9, 1}}, {2, {19, 33}},
                                        {3, {2, 7, 13}},     {4, {1, 1, 1, 1}},   {2, {1, 10}},       {4, {8, 4, 12, 12}}};
    mest_threads two;
    mest_error err = {0};
    ck_assert_int_eq(mest_threads_create(&two, 2, &err), 0);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const mest_type plain = type_of(&shapes[i], 0, 0);
        int64_t n, na, nb;
        mest_real *x = make(&plain, &n), *z = make(&plain, &n);
        uint64_t random = 3;
        for (int64_t e = 0; e < n; e++)
            x[e] = (mest_real)twin_random(&random);
        for (int a = 0; a < N_LAYOUTS; a++)
            for (int b = 0; b < N_LAYOUTS; b++) {
                const mest_type ta = type_of(&shapes[i], a, 0), tb = type_of(&shapes[i], b, b == 5);
                mest_real *ya = make(&ta, &na), *yb = make(&tb, &nb);
                convert(&plain, x, &ta, ya, &two);
                convert(&ta, ya, &tb, yb, &two);
                convert(&tb, yb, &plain, z, &two);
                ck_assert_msg(!memcmp(x, z, (size_t)n * sizeof *x), "shape %zu, layouts %d and %d", i, a, b);
                if (tb.layout.kind == MEST_PIXEL) {
                    const mest_pixels g = mest_pixel_geometry(&tb);
                    for (int64_t c = 0; c < g.c; c++) /* an element where the layout says it is, and idle lanes */
                        for (int64_t m = 0; m < g.blocks * g.v; m++) {
                            const int64_t y = g.h / 2, w = g.w - 1;
                            const mest_real at = yb[g.origin + m / g.v * g.block + y * g.row + w * g.pixel + c * g.v + m % g.v];
                            ck_assert(at == (m < g.n ? x[((m * g.c + c) * g.h + y) * g.w + w] : 0));
                        }
                }
                for (int e = 0; e < 8; e++)
                    ck_assert(ya[na + e] == -99 && yb[nb + e] == -99);
                free(ya);
                free(yb);
            }
        free(x);
        free(z);
    }
    mest_threads_destroy(&two);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("relayout");
    TCase *t = tcase_create("relayout");
    tcase_add_test(t, round_trips);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
