/* SPDX-License-Identifier: Apache-2.0 */
/* Normalization, activations and pooling, in pixel layouts and plain. */
#include <check.h>
#include <stdio.h>

#include "ops/elements.h"
#include "tests/pixel/twin.h"

static int total;
static void check(const twin_case *c)
{
    const int n = twin_check(c);
    ck_assert_msg(n > 0, "%s: no kernel accepts it", c->op);
    total += n;
}

START_TEST(normalization)
{
    static const int64_t shapes[][4] = {{5, 3, 4, 6}, {16, 16, 8, 8}, {33, 32, 3, 5}, {2, 7, 1, 1}, {1, 64, 7, 7}, {40, 5, 9, 2}};
    const mest_bn_params p = {.epsilon = 1e-5, .momentum = 0.9, .spatial = 1}, clamps[2] = {{.epsilon = 1e-5, .momentum = 0.9, .spatial = 1, .clamp = {true, 0, INFINITY}},
                                                                                                    {.epsilon = 1e-5, .momentum = 0.9, .spatial = 1, .clamp = {true, (mest_real)-0.5, (mest_real)0.5}}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t n = shapes[i][0], c = shapes[i][1], h = shapes[i][2], w = shapes[i][3];
        check(&(twin_case){"mest.BatchNormTrain", &p, {VALUE(n, c, h, w), PLAIN(c), PLAIN(c), PLAIN(c), POSITIVE(c)},
                           {VALUE(n, c, h, w), PLAIN(c), PLAIN(c)}, .tolerance = 2e-6, .updates = 3 << 3});
        check(&(twin_case){"mest.BatchNormAgain", &p, {VALUE(n, c, h, w), PLAIN(3, c)}, {VALUE(n, c, h, w)}, .tolerance = 2e-6});
        check(&(twin_case){"mest.BatchNormGrad", &p, {VALUE(n, c, h, w), PLAIN(c), PLAIN(c), POSITIVE(c), GRADIENT(n, c, h, w)},
                           {GRADIENT(n, c, h, w), PLAIN(c), PLAIN(c)}, .tolerance = 2e-5});
        check(&(twin_case){"mest.BatchNormGrad", &p, {VALUE(n, c, h, w), PLAIN(c), PLAIN(c), POSITIVE(c), GRADIENT(n, c, h, w)},
                           {NONE, PLAIN(c), PLAIN(c)}, .tolerance = 2e-5});
        check(&(twin_case){"BatchNormalization", &p, {VALUE(n, c, h, w), PLAIN(c), PLAIN(c), PLAIN(c), POSITIVE(c)}, {VALUE(n, c, h, w)},
                           .tolerance = 2e-6});
        check(&(twin_case){"mest.BatchNormFrozenGrad", &p, {VALUE(n, c, h, w), PLAIN(c), PLAIN(c), POSITIVE(c), GRADIENT(n, c, h, w)},
                           {GRADIENT(n, c, h, w), PLAIN(c), PLAIN(c)}, .tolerance = 2e-5});
        /* with its activation; Y of the gradients is any value here: ties make some of it the bounds */
        for (int act = 0; act < 2; act++) {
            check(&(twin_case){"mest.BatchNormTrain", &clamps[act], {VALUE(n, c, h, w), PLAIN(c), PLAIN(c), PLAIN(c), POSITIVE(c)},
                               {VALUE(n, c, h, w), PLAIN(c), PLAIN(c)}, .tolerance = 2e-6, .updates = 3 << 3});
            check(&(twin_case){"mest.BatchNormAgain", &clamps[act], {VALUE(n, c, h, w), PLAIN(3, c)}, {VALUE(n, c, h, w)}, .tolerance = 2e-6});
            check(&(twin_case){"BatchNormalization", &clamps[act], {VALUE(n, c, h, w), PLAIN(c), PLAIN(c), PLAIN(c), POSITIVE(c)}, {VALUE(n, c, h, w)},
                               .tolerance = 2e-6});
            static const char *const gradients[] = {"mest.BatchNormGrad", "mest.BatchNormFrozenGrad"};
            for (int k = 0; k < 4; k++) {
                twin_case gated = {gradients[k / 2], &clamps[act], {VALUE(n, c, h, w), PLAIN(c), PLAIN(c), POSITIVE(c), GRADIENT(n, c, h, w), VALUE(n, c, h, w)},
                                   {GRADIENT(n, c, h, w), PLAIN(c), PLAIN(c)}, .tolerance = 2e-5};
                gated.in[5].ties = true;
                if (k & 1)
                    gated.out[0].kind = TWIN_NONE;
                check(&gated);
            }
        }
    }
    /* with other activations */
    for (int kind = 1; kind < MEST_ACT_KINDS; kind++) {
        const mest_bn_params act = {.epsilon = 1e-5, .momentum = 0.9, .spatial = 1, .act = {(mest_act_kind)kind, kind == MEST_ACT_SWISH ? 1.5 : 0.2, 0.5}};
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            const int64_t n = shapes[i][0], c = shapes[i][1], h = shapes[i][2], w = shapes[i][3];
            check(&(twin_case){"mest.BatchNormTrain", &act, {VALUE(n, c, h, w), PLAIN(c), PLAIN(c), PLAIN(c), POSITIVE(c)},
                               {VALUE(n, c, h, w), PLAIN(c), PLAIN(c)}, .tolerance = 4e-6, .updates = 3 << 3});
            check(&(twin_case){"mest.BatchNormAgain", &act, {VALUE(n, c, h, w), PLAIN(3, c)}, {VALUE(n, c, h, w)}, .tolerance = 4e-6});
            check(&(twin_case){"BatchNormalization", &act, {VALUE(n, c, h, w), PLAIN(c), PLAIN(c), PLAIN(c), POSITIVE(c)}, {VALUE(n, c, h, w)},
                               .tolerance = 4e-6});
            check(&(twin_case){"mest.BatchNormActGrad", &act, {VALUE(n, c, h, w), PLAIN(3, c), GRADIENT(n, c, h, w)}, {GRADIENT(n, c, h, w)},
                               .tolerance = 4e-6});
        }
    }
    check(&(twin_case){"mest.BatchNormTrain", &p, {VALUE(19, 10), PLAIN(10), PLAIN(10), PLAIN(10), POSITIVE(10)},
                       {VALUE(19, 10), PLAIN(10), PLAIN(10)}, .tolerance = 2e-6, .updates = 3 << 3});
}
END_TEST

START_TEST(activations)
{
    static const int64_t shapes[][4] = {{5, 3, 4, 6}, {16, 16, 2, 8}, {33, 32, 3, 5}, {2, 7, 1, 1}};
    static const struct { const char *op, *grad; const char *form; double reach; } cases[] = {
        {"Gelu", "mest.GeluGrad", "none", 1}, {"Gelu", "mest.GeluGrad", "none", 12}, {"Gelu", "mest.GeluGrad", "tanh", 3}, {"Gelu", "mest.GeluGrad", "tanh", 30},
        {"Swish", "mest.SwishGrad", NULL, 2}, {"Swish", "mest.SwishGrad", NULL, 90}, {"Sigmoid", NULL, NULL, 20}, {"Tanh", NULL, NULL, 1}, {"Tanh", NULL, NULL, 20},
    };
    const mest_alpha_params alpha = {.alpha = 1};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            const int64_t n = shapes[i][0], c = shapes[i][1], h = shapes[i][2], w = shapes[i][3];
            const mest_gelu_params gelu = {cases[k].form};
            const void *p = cases[k].form ? (const void *)&gelu : &alpha;
            twin_case forward = {cases[k].op, p, {VALUE(n, c, h, w)}, {VALUE(n, c, h, w)}, .tolerance = 4e-7}; /* of 1 + |y| */
            forward.in[0].reach = cases[k].reach;
            check(&forward);
            twin_case backward = {cases[k].grad, p, {VALUE(n, c, h, w), GRADIENT(n, c, h, w)}, {GRADIENT(n, c, h, w)}, .tolerance = 4e-6};
            backward.in[0].reach = cases[k].reach;
            if (cases[k].grad)
                check(&backward);
        }
}
END_TEST

START_TEST(row_normalization)
{
    static const int64_t shapes[][2] = {{5, 3}, {1, 1}, {64, 64}, {65, 33}, {130, 768}, {3, 1031}, {33000, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t n = shapes[i][0], size = shapes[i][1];
        const mest_norm_params p = {.axis = -1, .epsilon = 1e-5, .stash_type = 1};
        for (int k = 0; k < 2; k++) {
            check(&(twin_case){"LayerNormalization", &p, {PLAIN(n, size), PLAIN(size), k ? (twin_operand)NONE : (twin_operand)PLAIN(size)}, {PLAIN(n, size)}, .tolerance = 4e-6});
            twin_case back = {"mest.LayerNormalizationGrad", &p, {PLAIN(n, size), PLAIN(size), PLAIN(n, size)}, {PLAIN(n, size), PLAIN(size), PLAIN(size)}, .tolerance = 2e-5};
            twin_case rms = {"mest.RMSNormalizationGrad", &p, {PLAIN(n, size), PLAIN(size), PLAIN(n, size)}, {PLAIN(n, size), PLAIN(size)}, .tolerance = 2e-5};
            if (k)
                back.out[0].kind = rms.out[0].kind = TWIN_NONE;
            check(&back);
            check(&rms);
        }
        check(&(twin_case){"RMSNormalization", &p, {PLAIN(n, size), PLAIN(size)}, {PLAIN(n, size)}, .tolerance = 2e-6});
    }
}
END_TEST

START_TEST(pooling)
{
    static const struct { int64_t n, c, h, w, k[2], s[2], pads[4], d[2]; int ceil, include; } cases[] = {
        {5, 3, 8, 8, {2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1}, 0, 0},  {16, 32, 7, 9, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, 0, 0},
        {3, 6, 7, 7, {3, 2}, {1, 2}, {1, 0, 1, 1}, {1, 1}, 0, 1},  {18, 5, 9, 8, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, 1},
        {2, 70, 6, 5, {3, 3}, {3, 3}, {0, 0, 0, 0}, {1, 1}, 1, 0}, {1, 4, 9, 9, {2, 3}, {2, 1}, {1, 1, 0, 0}, {2, 2}, 0, 1},
        {4, 130, 4, 4, {4, 4}, {4, 4}, {0, 0, 0, 0}, {1, 1}, 0, 0}, {1, 3, 32, 37, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, 0, 0},
        {2, 2, 5, 40, {1, 5}, {1, 3}, {0, 2, 0, 2}, {1, 1}, 0, 0},  {1, 2, 19, 33, {3, 4}, {3, 1}, {1, 2, 2, 1}, {2, 3}, 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mest_pool_params p = {.kernel_shape = {2, cases[i].k}, .strides = {2, cases[i].s}, .pads = {4, cases[i].pads},
                              .dilations = {2, cases[i].d}, .ceil_mode = cases[i].ceil, .count_include_pad = cases[i].include};
        const int64_t n = cases[i].n, c = cases[i].c, h = cases[i].h, w = cases[i].w;
        p.x_shape = (mest_shape){4, {n, c, h, w}};
        mest_pool_geometry g;
        char why[160];
        ck_assert_msg(mest_pool_geometry_of(&p, &p.x_shape, &g, why, sizeof why), "%s", why);
        twin_case m = {"MaxPool", &p, {VALUE(n, c, h, w)}, {VALUE(n, c, g.p, g.q)}, .tolerance = 0};
        m.in[0].ties = true;
        check(&m);
        twin_case mg = {"mest.MaxPoolGrad", &p, {VALUE(n, c, h, w), VALUE(n, c, g.p, g.q), GRADIENT(n, c, g.p, g.q)}, {GRADIENT(n, c, h, w)},
                        .tolerance = 1e-6, .source = "MaxPool"};
        mg.in[0].ties = true;
        mg.in[1].copy_of = 1;
        check(&mg);
        check(&(twin_case){"AveragePool", &p, {VALUE(n, c, h, w)}, {VALUE(n, c, g.p, g.q)}, .tolerance = 1e-6});
        check(&(twin_case){"mest.AveragePoolGrad", &p, {GRADIENT(n, c, g.p, g.q)}, {GRADIENT(n, c, h, w)}, .tolerance = 1e-6});
    }
    ck_assert_int_ge(twin_runs("maxpool_plain_scalar"), (int)(sizeof cases / sizeof *cases));
}
END_TEST

START_TEST(global_pooling)
{
    static const int64_t shapes[][4] = {{5, 3, 4, 6}, {16, 32, 8, 8}, {17, 70, 3, 1}, {1, 1030, 2, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t n = shapes[i][0], c = shapes[i][1], h = shapes[i][2], w = shapes[i][3];
        const mest_shape_params p = {{4, {n, c, h, w}}};
        check(&(twin_case){"GlobalAveragePool", NULL, {VALUE(n, c, h, w)}, {VALUE(n, c, 1, 1)}, .tolerance = 1e-6});
        check(&(twin_case){"mest.GlobalAveragePoolGrad", &p, {GRADIENT(n, c, 1, 1)}, {GRADIENT(n, c, h, w)}, .tolerance = 1e-6});
        if (twin_op("GlobalMaxPool"))
            check(&(twin_case){"GlobalMaxPool", NULL, {VALUE(n, c, h, w)}, {VALUE(n, c, 1, 1)}, .tolerance = 0});
    }
}
END_TEST

START_TEST(shapes)
{
    static const int64_t cases[][4] = {{5, 3, 4, 6}, {16, 32, 2, 2}, {17, 70, 1, 1}, {2, 5, 9, 1}};
    const mest_axis_params one = {.axis = 1};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int64_t n = cases[i][0], c = cases[i][1], h = cases[i][2], w = cases[i][3];
        const mest_shape_params back = {{4, {n, c, h, w}}}, split = {{3, {n, c * h, w}}};
        check(&(twin_case){"Flatten", &one, {VALUE(n, c, h, w)}, {VALUE(n, c * h * w)}, .tolerance = 0});
        check(&(twin_case){"mest.Reshape", &back, {GRADIENT(n, c * h * w)}, {GRADIENT(n, c, h, w)}, .tolerance = 0});
        check(&(twin_case){"mest.Reshape", &split, {VALUE(n, c, h, w)}, {VALUE(n, c * h, w)}, .tolerance = 0});
        check(&(twin_case){"Concat", &one, {VALUE(n, c, h, w), VALUE(n, 2, h, w), VALUE(n, c + 1, h, w)}, {VALUE(n, 2 * c + 3, h, w)},
                           .tolerance = 0});
        const mest_dropout_params drop = {.ratio = 0.3, .key = 9};
        check(&(twin_case){"mest.DropoutTrain", &drop, {VALUE(n, c, h, w)}, {VALUE(n, c, h, w)}, .tolerance = 0});
        check(&(twin_case){"mest.DropoutGrad", &drop, {GRADIENT(n, c, h, w)}, {GRADIENT(n, c, h, w)}, .tolerance = 0});
        static const char *const ops[] = {"Mul", "Add", "Sub"};
        for (int o = 0; o < 3; o++) {
            if (h * w > 1) {
                check(&(twin_case){ops[o], NULL, {VALUE(n, c, h, w), VALUE(n, c, 1, 1)}, {VALUE(n, c, h, w)}, .tolerance = 0});
                check(&(twin_case){ops[o], NULL, {VALUE(n, c, 1, 1), VALUE(n, c, h, w)}, {VALUE(n, c, h, w)}, .tolerance = 0});
            }
            check(&(twin_case){ops[o], NULL, {VALUE(n, c, h, w), PLAIN(c, 1, 1)}, {VALUE(n, c, h, w)}, .tolerance = 0});
            check(&(twin_case){ops[o], NULL, {PLAIN(1, c, 1, 1), VALUE(n, c, h, w)}, {VALUE(n, c, h, w)}, .tolerance = 0});
            check(&(twin_case){ops[o], NULL, {VALUE(n, c, h, w), PLAIN(1)}, {VALUE(n, c, h, w)}, .tolerance = 0});
        }
        const mest_shape_params pooled = {{4, {n, c, 1, 1}}};
        if (h * w > 1)
            check(&(twin_case){"mest.ReduceTo", &pooled, {GRADIENT(n, c, h, w)}, {GRADIENT(n, c, 1, 1)}, .tolerance = 2e-6});
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pixel kernels");
    TCase *t = tcase_create("pixel kernels");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, normalization);
    tcase_add_test(t, activations);
    tcase_add_test(t, row_normalization);
    tcase_add_test(t, pooling);
    tcase_add_test(t, global_pooling);
    tcase_add_test(t, shapes);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    printf("%d kernel runs compared\n", total);
    return failed != 0;
}
