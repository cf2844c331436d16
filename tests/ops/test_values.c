/* SPDX-License-Identifier: Apache-2.0 */
/* Forward values of operators: against PyTorch's (values.h), against plain loops for larger convolutions and products, and the errors
 * of losses and windows. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/convolve.h"
#include "ops/loss.h"
#include "runtime/infer.h"
#include "runtime/rng.h"

/* params of operators that keep them to themselves */
typedef struct groupnorm_params { double epsilon; int64_t groups, stash_type; } groupnorm_params;
typedef struct lrn_params { double alpha, beta, bias; int64_t size; } lrn_params;

typedef struct value_tensor {
    mest_dtype dtype;
    mest_shape shape;
    const double *v;
} value_tensor;
typedef struct value_case {
    const char *op, *name;
    int opset;
    const void *params;
    int n_in;
    value_tensor in[5];
    int n_out; /* results of the node; what is left over is compared with the last inputs, which the node has changed */
    value_tensor out[6];
} value_case;
#include "tests/ops/values.h"

static mest_threads threads;

/* ---- a node by itself ---- */
typedef struct single {
    mest_heap heap;
    mest_graph g;
    mest_id node;
    mest_tensor in[5], out[6];
    mest_error err;
} single;

static mest_tensor make_tensor(const mest_type *type)
{
    int64_t n = 0;
    ck_assert(mest_shape_count(&type->shape, &n));
    mest_tensor t = { .type = type, .count = (size_t)n };
    t.data = aligned_alloc(64, ((size_t)n * 8 + 64 + 63) / 64 * 64);
    memset(t.data, 0xee, (size_t)n * 8 + 64);
    return t;
}

static void put(const mest_tensor *t, size_t i, double v)
{
    if (t->type->dtype == MEST_I64)
        ((int64_t *)t->data)[i] = (int64_t)v;
    else
        ((mest_real *)t->data)[i] = (mest_real)v;
}

static double get(const mest_tensor *t, size_t i)
{
    switch (t->type->dtype) {
    case MEST_I64: return (double)((const int64_t *)t->data)[i];
    case MEST_BOOL: return ((const uint8_t *)t->data)[i];
    default: return (double)((const mest_real *)t->data)[i];
    }
}

static mest_status single_make(single *s, const char *op_name, int opset, const void *params, int n_in, const value_tensor *in, int n_out)
{
    mest_id ids[5];
    memset(s, 0, sizeof *s);
    ck_assert_int_eq(mest_heap_init(&s->heap, NULL, NULL, &s->err), MEST_OK);
    mest_graph_init(&s->g, &s->heap);
    const mest_op *op = mest_op_find(strncmp(op_name, "mest.", 5) ? "" : "mest", op_name, opset ? opset : 1000);
    ck_assert_msg(op != NULL, "%s does not exist", op_name);
    for (int i = 0; i < n_in; i++) {
        mest_type t = { .dtype = in[i].dtype, .shape = in[i].shape };
        ids[i] = mest_graph_value(&s->g, NULL, MEST_VALUE_INPUT, &t);
    }
    s->node = mest_graph_node(&s->g, "node", op, params, n_in, ids, n_out, NULL);
    MEST_TRY(mest_infer_node(&s->g, s->node, &s->err));
    const mest_node *n = &s->g.nodes[s->node];
    for (int i = 0; i < n_in; i++) {
        s->in[i] = make_tensor(&s->g.values[n->in[i]].type);
        for (size_t k = 0; k < s->in[i].count; k++)
            put(&s->in[i], k, in[i].v[k]);
    }
    for (int i = 0; i < n_out; i++)
        s->out[i] = make_tensor(&s->g.values[n->out[i]].type);
    return MEST_OK;
}

static mest_status single_run(single *s)
{
    const mest_node *n = &s->g.nodes[s->node];
    mest_run run = { .seed = 1 };
    mest_args a = { .node = n, .params = n->params, .n_in = n->n_in, .n_out = n->n_out, .in = s->in, .out = s->out, .threads = &threads,
                    .run = &run, .err = &s->err };
    return n->op->forward(&a);
}

static void single_free(single *s)
{
    for (int i = 0; i < 5; i++) {
        free(s->in[i].data);
        free(s->out[i].data);
    }
    mest_graph_free(&s->g);
}

START_TEST(test_values)
{
    const value_case *c = &value_cases[_i];
    single s;
    const mest_op *op = mest_op_find(strncmp(c->op, "mest.", 5) ? "" : "mest", c->op, c->opset ? c->opset : 1000);
    int results = op && op->out_max < c->n_out ? op->out_max : c->n_out;
    ck_assert_msg(single_make(&s, c->op, c->opset, c->params, c->n_in, c->in, results) == MEST_OK, "%s", s.err.msg);
    ck_assert_msg(single_run(&s) == MEST_OK, "%s", s.err.msg);
    for (int i = 0; i < c->n_out; i++) {
        const mest_tensor *t = i < results ? &s.out[i] : &s.in[c->n_in - (c->n_out - i)];
        char have[64], want[64];
        ck_assert_msg(mest_shape_equal(&t->type->shape, &c->out[i].shape), "%s (%s): output %d is %s, not %s", c->op, c->name, i,
                      mest_shape_text(&t->type->shape, have, sizeof have), mest_shape_text(&c->out[i].shape, want, sizeof want));
        ck_assert_int_eq(t->type->dtype, c->out[i].dtype);
        for (size_t k = 0; k < t->count; k++) {
            double x = get(t, k), y = c->out[i].v[k];
            ck_assert_msg(fabs(x - y) <= 2e-6 * fmax(1, fabs(y)), "%s (%s): output %d, element %zu: %.9g, not %.9g", c->op, c->name, i, k, x, y);
        }
    }
    single_free(&s);
}
END_TEST

/* ---- larger convolutions against plain loops ---- */
static mest_real *numbers(size_t n, uint64_t key)
{
    mest_real *x = aligned_alloc(64, (n * sizeof *x + 127) / 64 * 64);
    for (size_t i = 0; i < n; i++)
        x[i] = (mest_real)(mest_rng_uniform(5, key, i) - 0.5);
    return x;
}

typedef struct naive {
    double *map, *image, *weight;
} naive;

static void naive_convolution(const mest_convolution *v, const mest_real *image, const mest_real *weight, const mest_real *map, naive *r)
{
    const mest_window *w = &v->window;
    int64_t pixels = mest_window_volume(w->in), positions = mest_window_volume(w->out), taps = mest_window_volume(w->kernel), cg = v->c / v->group;
    for (int64_t n = 0; n < v->n; n++)
        for (int64_t m = 0; m < v->m; m++)
            for (int64_t j = 0; j < positions; j++)
                for (int64_t c = 0; c < cg; c++)
                    for (int64_t t = 0; t < taps; t++) {
                        int64_t x = j % w->out[2] * w->stride[2] - w->lo[2] + t % w->kernel[2] * w->dilation[2];
                        int64_t y = j / w->out[2] % w->out[1] * w->stride[1] - w->lo[1] + t / w->kernel[2] % w->kernel[1] * w->dilation[1];
                        int64_t z = j / w->out[2] / w->out[1] * w->stride[0] - w->lo[0] + t / w->kernel[2] / w->kernel[1] * w->dilation[0];
                        if (x < 0 || x >= w->in[2] || y < 0 || y >= w->in[1] || z < 0 || z >= w->in[0])
                            continue;
                        int64_t at_image = (n * v->c + m / (v->m / v->group) * cg + c) * pixels + (z * w->in[1] + y) * w->in[2] + x;
                        int64_t at_map = (n * v->m + m) * positions + j, at_weight = (m * cg + c) * taps + t;
                        r->map[at_map] += (double)image[at_image] * (double)weight[at_weight];
                        r->image[at_image] += (double)map[at_map] * (double)weight[at_weight];
                        r->weight[at_weight] += (double)map[at_map] * (double)image[at_image];
                    }
}

static void check_close(const char *what, int seed, const mest_real *have, const double *want, size_t n, double scale)
{
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(fabs((double)have[i] - want[i]) <= 1e-6 * scale, "seed %d, %s, element %zu: %.9g, not %.9g", seed, what, i, (double)have[i], want[i]);
}

START_TEST(test_convolutions)
{
#define DRAW(n) ((int64_t)mest_rng_below(99, (uint64_t)_i, draw++, (uint64_t)(n)))
    uint64_t draw = 0;
    int64_t group = DRAW(3) == 0 ? 1 + DRAW(4) : 1, sizes[5];
    const int64_t images = 1 + DRAW(5), each_in = 1 + DRAW(_i % 4 ? 6 : 70), each_out = 1 + DRAW(_i % 3 ? 9 : 150); /* drawn one after the other */
    mest_convolution v = { .n = images, .group = group, .c = group * each_in, .m = group * each_out };
    mest_shape x = { .rank = 3 + (int32_t)DRAW(3), .dim = { v.n, v.c } };
    int64_t kernel[3], stride[3], dilation[3], pads[6];
    int spatial = x.rank - 2;
    for (int i = 0; i < spatial; i++) {
        x.dim[2 + i] = 1 + DRAW(spatial == 1 ? 40 : spatial == 2 ? 12 : 5);
        kernel[i] = 1 + DRAW(4);
        stride[i] = 1 + DRAW(3);
        dilation[i] = 1 + DRAW(2);
        pads[i] = DRAW(3);
        int64_t missing = (kernel[i] - 1) * dilation[i] + 1 - x.dim[2 + i] - pads[i];
        pads[spatial + i] = missing > 0 ? missing : DRAW(3);
    }
    mest_ints k = { spatial, kernel }, s = { spatial, stride }, d = { spatial, dilation }, p = { 2 * spatial, pads };
    mest_window_spec spec = { &k, &s, &p, &d, NULL, false };
    char why[160];
    ck_assert_msg(mest_window_of(&spec, &x, &v.window, why, sizeof why), "%s", why);
    sizes[0] = v.n * v.c * mest_window_volume(v.window.in);
    sizes[1] = v.m * (v.c / v.group) * mest_window_volume(v.window.kernel);
    sizes[2] = v.n * v.m * mest_window_volume(v.window.out);
    mest_real *image = numbers((size_t)sizes[0], 1), *weight = numbers((size_t)sizes[1], 2), *map = numbers((size_t)sizes[2], 3);
    mest_real *out = numbers((size_t)(sizes[0] + sizes[1] + sizes[2]), 4);
    naive r = { calloc((size_t)sizes[2], 8), calloc((size_t)sizes[0], 8), calloc((size_t)sizes[1], 8) };
    naive_convolution(&v, image, weight, map, &r);
    double taps = (double)mest_window_volume(v.window.kernel), positions = (double)mest_window_volume(v.window.out);
    mest_convolve(&threads, &v, image, weight, NULL, out);
    check_close("map", _i, out, r.map, (size_t)sizes[2], 1 + (double)(v.c / group) * taps * 0.1);
    mest_convolve_image(&threads, &v, map, weight, NULL, out);
    check_close("image", _i, out, r.image, (size_t)sizes[0], 1 + (double)(v.m / group) * taps * 0.1);
    mest_convolve_weight(&threads, &v, image, map, out);
    check_close("weight", _i, out, r.weight, (size_t)sizes[1], 1 + (double)v.n * positions * 0.1);
    free(image), free(weight), free(map), free(out), free(r.map), free(r.image), free(r.weight);
}
END_TEST

START_TEST(test_products)
{
    static const int64_t shapes[][3] = { { 1, 1, 1 }, { 130, 17, 257 }, { 5, 40, 600 }, { 129, 16, 3 }, { 64, 10, 0 } };
    int64_t m = shapes[_i][0], n = shapes[_i][1], k = shapes[_i][2];
    mest_real *a = numbers((size_t)(m * k), 1), *b = numbers((size_t)(k * n), 2), *d = numbers((size_t)n, 3), *c = numbers((size_t)(m * n), 4);
    for (int transposed = 0; transposed < 4; transposed++) {
        bool ta = transposed & 1, tb = transposed & 2;
        mest_dense_job job = { .m = m, .n = n, .k = k, .a = a, .b = b, .d = d, .a_row = ta ? 1 : k, .a_col = ta ? m : 1, .b_row = tb ? 1 : n,
                               .b_col = tb ? k : 1, .d_row = 0, .d_col = 1, .alpha = 0.5, .beta = 2, .c = c, .outer = 1, .inner = 1 };
        mest_dense_run(&threads, &job);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int64_t l = 0; l < k; l++)
                    sum += (double)a[ta ? l * m + i : i * k + l] * (double)b[tb ? j * k + l : l * n + j];
                ck_assert_double_eq_tol((double)c[i * n + j], 0.5 * sum + 2 * (double)d[j], 1e-5);
            }
    }
    free(a), free(b), free(c), free(d);
}
END_TEST

START_TEST(test_target_out_of_range)
{
    static const double logits[] = { 1, 2, 3, 4, 5, 6 }, targets[] = { 2, 3 };
    const value_tensor in[2] = { { MEST_F32, { 2, { 2, 3 } }, logits }, { MEST_I64, { 1, { 2 } }, targets } };
    const mest_ce_params p = { { 0, -1 }, true, -100 };
    single s;
    ck_assert_int_eq(single_make(&s, "mest.SoftmaxCrossEntropy", 0, &p, 2, in, 3), MEST_OK);
    ck_assert_int_eq(single_run(&s), MEST_E_DATA);
    ck_assert_msg(strstr(s.err.msg, "target 3 of row 1") != NULL, "%s", s.err.msg);
    single_free(&s);
}
END_TEST

/* Numbers of PyTorch 2.13: F.cross_entropy(logits, targets) with targets 2, -100, 0. */
START_TEST(test_targets_that_do_not_count)
{
    static const double logits[] = { 1, 2, 3, 4, 5, 6, 0, 0, 1 }, some[] = { 2, -100, 0 }, none[] = { -100, -100, -100 };
    value_tensor in[2] = { { MEST_F32, { 2, { 3, 3 } }, logits }, { MEST_I64, { 1, { 3 } }, some } };
    const mest_ce_params p = { { 0, -1 }, true, -100 };
    single s;
    ck_assert_int_eq(single_make(&s, "mest.SoftmaxCrossEntropy", 0, &p, 2, in, 3), MEST_OK);
    ck_assert_msg(single_run(&s) == MEST_OK, "%s", s.err.msg);
    ck_assert(fabs(get(&s.out[0], 0) - 0.9795253391882157) < 1e-6 && get(&s.out[1], 1) == 0);
    ck_assert_int_eq(((const uint8_t *)s.out[2].data)[0], MEST_ROW_RIGHT);
    ck_assert_int_eq(((const uint8_t *)s.out[2].data)[1], MEST_ROW_IGNORED);
    ck_assert_int_eq(((const uint8_t *)s.out[2].data)[2], MEST_ROW_WRONG);
    single_free(&s);
    in[1].v = none;
    ck_assert_int_eq(single_make(&s, "mest.SoftmaxCrossEntropy", 0, &p, 2, in, 3), MEST_OK);
    ck_assert_int_eq(single_run(&s), MEST_OK);
    ck_assert(get(&s.out[0], 0) == 0);
    single_free(&s);
}
END_TEST

START_TEST(test_geometry)
{
    const int64_t two[] = { 2, 2 }, pads[] = { 1, 2, 3, 4 }, huge[] = { INT64_MAX, 1 }, negative[] = { 1, -1 };
    mest_conv_params p = { .group = 2, .strides = { 2, two }, .pads = { 4, pads } };
    mest_shape x = { 4, { 3, 4, 9, 8 } }, w = { 4, { 6, 2, 3, 5 } }, line = { 3, { 3, 4, 9 } }, line_w = { 3, { 6, 2, 3 } };
    mest_conv_geometry g;
    char why[160];
    ck_assert(mest_conv_geometry_of(&p, &x, &w, &g, why, sizeof why));
    ck_assert(g.n == 3 && g.c == 4 && g.h == 9 && g.w == 8 && g.m == 6 && g.p == 6 && g.q == 5 && g.r == 3 && g.s == 5 && g.top == 1 &&
              g.left == 2 && g.bottom == 3 && g.right == 4 && g.spatial == 2);
    p.pads = (mest_ints){ 0, NULL };
    p.strides = (mest_ints){ 0, NULL };
    ck_assert(mest_conv_geometry_of(&p, &line, &line_w, &g, why, sizeof why));
    ck_assert(g.h == 1 && g.w == 9 && g.r == 1 && g.s == 3 && g.p == 1 && g.q == 7 && g.spatial == 1);
    p.strides = (mest_ints){ 2, huge };
    ck_assert(!mest_conv_geometry_of(&p, &x, &w, &g, why, sizeof why) && strstr(why, "stride"));
    p.strides = (mest_ints){ 2, negative };
    ck_assert(!mest_conv_geometry_of(&p, &x, &w, &g, why, sizeof why) && strstr(why, "stride -1"));
    p.strides = (mest_ints){ 0, NULL };
    p.group = 3;
    ck_assert(!mest_conv_geometry_of(&p, &x, &w, &g, why, sizeof why) && strstr(why, "group 3"));
    p.group = 2;
    p.auto_pad = "SOME";
    ck_assert(!mest_conv_geometry_of(&p, &x, &w, &g, why, sizeof why) && strstr(why, "SOME"));
}
END_TEST

int main(void)
{
    mest_error err = { 0 };
    if (mest_threads_create(&threads, 2, &err) != MEST_OK)
        return 1;
    Suite *s = suite_create("values");
    TCase *t = tcase_create("values");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, test_values, 0, (int)(sizeof value_cases / sizeof *value_cases));
    tcase_add_loop_test(t, test_convolutions, 0, 60);
    tcase_add_loop_test(t, test_products, 0, 5);
    tcase_add_test(t, test_target_out_of_range);
    tcase_add_test(t, test_targets_that_do_not_count);
    tcase_add_test(t, test_geometry);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    mest_threads_destroy(&threads);
    return failed ? 1 : 0;
}
