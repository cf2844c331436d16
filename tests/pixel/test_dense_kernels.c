/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions in NHWC by XNNPACK and our own gradients; matrix products. */
#include <check.h>
#include <stdio.h>

#include "mest_config.h"
#include "tests/pixel/twin.h"

static int total;
static void check(const twin_case *c)
{
    const int n = twin_check(c);
    ck_assert_msg(n > 0, "%s: no kernel accepts it", c->op);
    total += n;
}

START_TEST(convolutions)
{
    static const struct { int64_t n, c, h, w, m, group, k[2], s[2], pads[4], d[2]; } cases[] = {
        {2, 3, 8, 8, 16, 1, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},     {3, 16, 9, 7, 16, 1, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
        {2, 16, 9, 9, 32, 1, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}},    {2, 16, 8, 8, 32, 1, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}},
        {1, 20, 6, 5, 13, 1, {1, 1}, {1, 1}, {0, 0, 0, 0}, {1, 1}},    {2, 40, 7, 6, 24, 1, {1, 1}, {2, 2}, {0, 0, 0, 0}, {1, 1}},
        {2, 5, 10, 9, 7, 1, {5, 3}, {1, 2}, {2, 1, 0, 3}, {1, 1}},     {2, 8, 12, 11, 12, 2, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
        {2, 6, 13, 9, 4, 1, {3, 3}, {1, 1}, {2, 2, 2, 2}, {2, 2}},     {1, 1, 12, 12, 6, 1, {5, 5}, {1, 1}, {0, 0, 0, 0}, {1, 1}},
        {3, 33, 6, 6, 35, 1, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},    {2, 24, 9, 8, 24, 24, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
        {2, 35, 9, 8, 35, 35, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}},   {2, 16, 7, 9, 16, 16, {5, 5}, {2, 1}, {2, 2, 2, 2}, {1, 1}},
        {1, 64, 4, 4, 64, 1, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},    {2, 4, 9, 9, 4, 4, {3, 3}, {1, 1}, {2, 2, 2, 2}, {2, 2}},
        {2, 8, 8, 8, 16, 1, {2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1}},     {2, 8, 7, 7, 8, 1, {1, 1}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mest_conv_params p = {.kernel_shape = {2, cases[i].k}, .strides = {2, cases[i].s}, .pads = {4, cases[i].pads},
                                    .dilations = {2, cases[i].d}, .group = cases[i].group};
        const int64_t n = cases[i].n, c = cases[i].c, h = cases[i].h, w = cases[i].w, m = cases[i].m, r = cases[i].k[0], s = cases[i].k[1];
        const int64_t per = c / cases[i].group;
        mest_conv_geometry g;
        char why[160];
        ck_assert_msg(mest_conv_geometry_of(&p, &(mest_shape){4, {n, c, h, w}}, &(mest_shape){4, {m, per, r, s}}, &g, why, sizeof why), "%s", why);
#if MEST_HAVE_XNNPACK
        check(&(twin_case){"Conv", &p, {VALUE(n, c, h, w), PLAIN(m, per, r, s), PLAIN(m)}, {VALUE(n, m, g.p, g.q)}, .tolerance = 1e-5});
        check(&(twin_case){"Conv", &p, {VALUE(n, c, h, w), PLAIN(m, per, r, s)}, {VALUE(n, m, g.p, g.q)}, .tolerance = 1e-5});
        check(&(twin_case){"mest.ConvGrad", &p, {VALUE(n, c, h, w), PLAIN(m, per, r, s), GRADIENT(n, m, g.p, g.q)},
                           {GRADIENT(n, c, h, w), PLAIN(m, per, r, s), PLAIN(m)}, .tolerance = 2e-5});
        check(&(twin_case){"mest.ConvGrad", &p, {VALUE(n, c, h, w), PLAIN(m, per, r, s), GRADIENT(n, m, g.p, g.q)},
                           {NONE, PLAIN(m, per, r, s)}, .tolerance = 2e-5});
        check(&(twin_case){"mest.ConvGrad", &p, {VALUE(n, c, h, w), PLAIN(m, per, r, s), GRADIENT(n, m, g.p, g.q)},
                           {GRADIENT(n, c, h, w)}, .tolerance = 2e-5});
#endif
    }
#if MEST_HAVE_XNNPACK
    ck_assert_int_eq(twin_runs("conv_xnn"), 2 * 18);
    ck_assert_int_eq(twin_runs("conv_grad_xnn"), 3 * 18);
#endif
    ck_assert_int_gt(twin_runs("conv_grad_depthwise_nhwc_scalar"), 0);
}
END_TEST

START_TEST(gemm)
{
    static const int64_t sizes[][3] = {{1, 10, 7}, {5, 3, 300}, {64, 40, 33}, {150, 33, 20}, {17, 300, 513}, {33, 64, 1}, {32, 10, 64}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int trans = 0; trans < 4; trans++) {
            const int64_t m = sizes[i][0], n = sizes[i][1], k = sizes[i][2];
            const mest_gemm_params p = {.alpha = trans == 3 ? 0.5 : 1, .beta = trans == 1 ? 2 : 1, .trans_a = trans & 1, .trans_b = trans >> 1};
            const twin_operand a = {.kind = TWIN_VALUE, .rank = 2, .dim = {trans & 1 ? k : m, trans & 1 ? m : k}}, b = {.kind = TWIN_PLAIN, .rank = 2, .dim = {trans & 2 ? n : k, trans & 2 ? k : n}};
            const twin_operand y = {.kind = TWIN_VALUE, .rank = 2, .dim = {m, n}}, row = {.kind = TWIN_PLAIN, .rank = 1, .dim = {n}}, column = {.kind = TWIN_PLAIN, .rank = 2, .dim = {m, 1}}, none = NONE;
            const twin_operand da = {.kind = TWIN_GRADIENT, .rank = 2, .dim = {a.dim[0], a.dim[1]}};
            check(&(twin_case){"Gemm", &p, {a, b, row}, {y}, .tolerance = 2e-5});
            check(&(twin_case){"Gemm", &p, {a, b, column}, {y}, .tolerance = 2e-5});
            check(&(twin_case){"Gemm", &p, {a, b}, {y}, .tolerance = 2e-5});
            const twin_operand dy = {.kind = TWIN_GRADIENT, .rank = 2, .dim = {m, n}};
            check(&(twin_case){"mest.GemmGrad", &p, {a, b, row, dy}, {da, b, row}, .tolerance = 2e-5});
            check(&(twin_case){"mest.GemmGrad", &p, {a, b, none, dy}, {none, b}, .tolerance = 2e-5});
        }
}
END_TEST

START_TEST(matmul)
{
    check(&(twin_case){"MatMul", NULL, {PLAIN(20, 70), PLAIN(70, 35)}, {PLAIN(20, 35)}, .tolerance = 2e-5});
    check(&(twin_case){"MatMul", NULL, {PLAIN(3, 20, 7), PLAIN(7, 5)}, {PLAIN(3, 20, 5)}, .tolerance = 2e-5});
    check(&(twin_case){"MatMul", NULL, {PLAIN(2, 3, 20, 7), PLAIN(2, 3, 7, 50)}, {PLAIN(2, 3, 20, 50)}, .tolerance = 2e-5});
    check(&(twin_case){"mest.MatMulGrad", NULL, {PLAIN(20, 70), PLAIN(70, 35), PLAIN(20, 35)}, {PLAIN(20, 70), PLAIN(70, 35)}, .tolerance = 2e-5});
    check(&(twin_case){"mest.MatMulGrad", NULL, {PLAIN(3, 20, 7), PLAIN(7, 5), PLAIN(3, 20, 5)}, {PLAIN(3, 20, 7), PLAIN(7, 5)}, .tolerance = 2e-5});
    check(&(twin_case){"mest.MatMulGrad", NULL, {PLAIN(2, 3, 20, 7), PLAIN(2, 3, 7, 50), PLAIN(2, 3, 20, 50)},
                       {PLAIN(2, 3, 20, 7), PLAIN(2, 3, 7, 50)}, .tolerance = 2e-5});
}
END_TEST

int main(void)
{
    Suite *s = suite_create("dense kernels");
    TCase *t = tcase_create("dense kernels");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, convolutions);
    tcase_add_test(t, gemm);
    tcase_add_test(t, matmul);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    printf("%d kernel runs compared\n", total);
    return failed != 0;
}
