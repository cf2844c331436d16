/* SPDX-License-Identifier: Apache-2.0 */
/* mest_gradcheck finds what is broken on purpose, where it is broken; and finds nothing in what is right. Built with mest_real = double. */
#include "mest/gradcheck.h"

#include <math.h>

#include "tests/import/import_fixture.h"

typedef struct seen {
    int items, off[4], unchecked[4], good[4];
    char first_off[256];
    double scale; /* of the gradients that "float32" has */
    int steps;
} seen;

static void on_item(void *user, const mest_gradcheck_item *i)
{
    seen *s = user;
    s->items++;
    (i->result == MEST_GRADCHECK_GOOD ? s->good : i->result == MEST_GRADCHECK_OFF ? s->off : s->unchecked)[i->kind]++;
    if (i->result == MEST_GRADCHECK_OFF && !s->first_off[0])
        snprintf(s->first_off, sizeof s->first_off, "%s %s", i->op, i->name);
    ck_assert((i->result == MEST_GRADCHECK_UNCHECKED) == (i->why != NULL));
}

static mest_gradcheck_summary look(const char *path, seen *s, const char *loss, double seconds)
{
    mest_gradcheck_options o;
    mest_train_config config;
    mest_gradcheck_summary sum = { .struct_size = sizeof sum };
    meter held = { 0 };
    mest_allocator allocator = meter_allocator(&held);
    memset(s, 0, sizeof *s);
    mest_train_config_init(&config);
    config.batch = 3;
    config.loss = loss;
    config.threads = 1;
    mest_gradcheck_options_init(&o);
    o.config = &config;
    o.item = on_item;
    o.user = s;
    o.allocator = &allocator;
    if (seconds > 0)
        o.seconds = seconds;
    OK(mest_gradcheck(path, &o, &sum, err));
    ck_assert_int_eq(held.now, 0);
    ck_assert_int_eq(sum.n_good + sum.n_off + sum.n_unchecked, s->items);
    return sum;
}

static const char *mlp(char buf[1024])
{
    snprintf(buf, 1024, "%s/check/mlp.onnx", getenv("MEST_TEST_DATA") ? getenv("MEST_TEST_DATA") : "tests/data");
    return buf;
}

START_TEST(right_gradients_are_good)
{
    char path[1024];
    seen s;
    mest_gradcheck_summary sum = look(mlp(path), &s, "mse", 0);
    ck_assert_msg(sum.n_off == 0 && sum.n_unchecked == 0, "%s", sum.first);
    ck_assert_int_eq(sum.n_parameters, 5);
    ck_assert_int_ge(sum.n_nodes, 5);
    ck_assert_int_eq(s.good[MEST_GRADCHECK_MODEL], 2);
    ck_assert(sum.worst < 1e-4 && isfinite(sum.loss) && !sum.first[0]);
}
END_TEST

/* ---- broken on purpose ---- */
static const char *broken_op;
static mest_status (*broken_vjp)(mest_vjp *v), (*broken_forward)(const mest_args *a), (*true_forward)(const mest_args *a);

static const mest_op *break_one(const mest_op *op)
{
    static mest_op copy;
    if (strcmp(op->name, broken_op))
        return op;
    copy = *op;
    if (broken_vjp)
        copy.vjp = broken_vjp;
    if (broken_forward) {
        true_forward = op->forward;
        copy.forward = broken_forward;
        copy.flags &= ~(unsigned)MEST_OP_VIEW;
    }
    return &copy;
}

static mest_status gives_dy(mest_vjp *v) { return mest_give(v, 0, mest_dout(v, 0)); } /* as if it were the identity */
static mest_status gives_nothing(mest_vjp *v)
{
    (void)v;
    return MEST_OK;
}

/* The first output of a gradient operator is 0.1 % too large. */
static mest_status slightly_off(const mest_args *a)
{
    MEST_TRY(true_forward(a));
    for (size_t i = 0; a->out[0].data && i < a->out[0].count; i++)
        ((mest_real *)a->out[0].data)[i] *= (mest_real)1.001;
    return MEST_OK;
}

/* A sum of contributions loses the last. */
static mest_status loses_one(const mest_args *a)
{
    memset(a->out[0].data, 0, a->out[0].count * sizeof(mest_real));
    for (int k = 0; k + 1 < a->n_in; k++)
        for (size_t i = 0; i < a->out[0].count; i++)
            ((mest_real *)a->out[0].data)[i] += ((const mest_real *)a->in[k].data)[i];
    return MEST_OK;
}

static const struct breakage {
    const char *op;
    mest_status (*vjp)(mest_vjp *v);
    mest_status (*forward)(const mest_args *a);
    const char *first;   /* in summary.first */
    bool node;           /* found at a node, not only as a parameter */
} breakages[] = {
    { "Tanh", gives_dy, NULL, "Tanh 'tanh'", true },
    { "Relu", gives_dy, NULL, "Relu 'relu1'", true },
    { "Softplus", gives_nothing, NULL, "Softplus 'softplus'", true },
    { "mest.SoftplusGrad", NULL, slightly_off, "Softplus 'softplus'", true },
    { "mest.AddN", NULL, loses_one, "parameter 'w1'", false }, /* no node is wrong by itself */
};
enum { N_BREAKAGES = sizeof breakages / sizeof *breakages };

START_TEST(broken_operators_are_named)
{
    char path[1024];
    seen s;
    const struct breakage *b = &breakages[_i];
    broken_op = b->op;
    broken_vjp = b->vjp;
    broken_forward = b->forward;
    mest_op_replace = break_one;
    mest_gradcheck_summary sum = look(mlp(path), &s, "mse", 0);
    mest_op_replace = NULL;
    ck_assert_msg(sum.n_off > 0, "%s broken: nothing is off", b->op);
    ck_assert_msg(strstr(sum.first, b->first), "%s broken: first is %s, not %s", b->op, sum.first, b->first);
    ck_assert_msg((s.off[MEST_GRADCHECK_NODE] > 0) == b->node, "%s broken: %d nodes are off", b->op, s.off[MEST_GRADCHECK_NODE]);
    ck_assert(s.off[MEST_GRADCHECK_MODEL] > 0 || b->forward == slightly_off); /* the whole notices, too, unless it is a trifle there */
    ck_assert(s.off[MEST_GRADCHECK_PARAMETER] > 0 && s.good[MEST_GRADCHECK_PARAMETER] > 0); /* what is behind the break is good */
}
END_TEST

/* ---- float32 in the caller's hands ---- */
static bool step(void *user, const mest_source_info *info, const void *const *inputs, const void *targets, int64_t n)
{
    seen *s = user;
    ck_assert(info->input_rank == 1 && info->input_dim[0] == 4 && inputs[0] && targets && n == 3);
    s->steps++;
    return s->scale != 0;
}

static bool gradient(void *user, const char *parameter, float *out, size_t count)
{
    (void)user;
    for (size_t i = 0; i < count; i++)
        out[i] = strcmp(parameter, "w2") ? 0 : NAN; /* wrong, and no number */
    return strcmp(parameter, "b1") != 0;            /* this one cannot be had */
}

START_TEST(float_gradients_are_compared)
{
    char path[1024];
    mest_gradcheck_options o;
    mest_train_config config;
    mest_gradcheck_summary sum = { .struct_size = sizeof sum };
    seen s = { .scale = 1 };
    mest_train_config_init(&config);
    config.batch = 3;
    config.loss = "mse";
    mest_gradcheck_options_init(&o);
    o.config = &config;
    o.item = on_item;
    o.user = &s;
    o.float_step = step;
    mest_error e = { 0 };
    ck_assert_int_eq(mest_gradcheck(mlp(path), &o, &sum, &e), MEST_E_ARGUMENT); /* one without the other */
    o.float_gradient = gradient;
    OK(mest_gradcheck(path, &o, &sum, err));
    ck_assert_int_eq(s.steps, 1);
    ck_assert_int_eq(s.off[MEST_GRADCHECK_KERNELS], 4);
    ck_assert_int_eq(s.unchecked[MEST_GRADCHECK_KERNELS], 1);
    ck_assert(strstr(sum.first, "in float32"));
    memset(&s, 0, sizeof s);
    OK(mest_gradcheck(path, &o, &sum, err));
    ck_assert_int_eq(s.unchecked[MEST_GRADCHECK_KERNELS], 1);
    ck_assert_int_eq(sum.n_off, 0);
}
END_TEST

START_TEST(time_is_bounded)
{
    if (no_shared("time"))
        return;
    char path[1024];
    seen s;
    mest_gradcheck_summary sum = look(shared_path(path, "resnet8/model.onnx"), &s, "ce", 1e-3);
    ck_assert(sum.n_off == 0 && s.unchecked[MEST_GRADCHECK_NODE] > 0 && s.unchecked[MEST_GRADCHECK_PARAMETER] > 0);
    ck_assert_int_eq(s.good[MEST_GRADCHECK_MODEL], 2); /* always */
}
END_TEST

static const struct { const char *name, *loss; } networks[] = { { "mlp", "mse" }, { "lenet5", "ce" }, { "resnet8", "ce" }, { "vit", "ce" },
                                                                { "bert", "ce" }, { "lstm", "ce" }, { "unet", "mse" } };
enum { N_NETWORKS = sizeof networks / sizeof *networks };

START_TEST(networks_are_good)
{
    if (no_shared("networks"))
        return;
    char path[1024], file[128];
    seen s;
    snprintf(file, sizeof file, "%s/model.onnx", networks[_i].name);
    mest_gradcheck_summary sum = look(shared_path(path, file), &s, networks[_i].loss, 30);
    ck_assert_msg(sum.n_off == 0, "%s: %s", networks[_i].name, sum.first);
    ck_assert(s.good[MEST_GRADCHECK_NODE] > 0 && s.good[MEST_GRADCHECK_PARAMETER] > 0);
    for (int k = 0; k < 4; k++)
        ck_assert(s.unchecked[k] == 0 || getenv("MEST_SLOW"));
}
END_TEST

START_TEST(what_cannot_be_checked_is_an_error)
{
    char path[1024];
    mest_gradcheck_options o;
    mest_gradcheck_summary sum = { .struct_size = sizeof sum };
    mest_error e = { 0 };
    mest_gradcheck_options_init(&o);
    ck_assert_int_eq(mest_gradcheck("no such file", &o, &sum, &e), MEST_E_IO);
    ck_assert_int_eq(mest_gradcheck(mlp(path), &o, NULL, &e), MEST_E_ARGUMENT);
    o.seconds = 0;
    ck_assert_int_eq(mest_gradcheck(path, &o, &sum, &e), MEST_E_ARGUMENT);
    o.seconds = 1;
    snprintf(path, sizeof path, "%s/check/free.onnx", getenv("MEST_TEST_DATA") ? getenv("MEST_TEST_DATA") : "tests/data");
    ck_assert_int_eq(mest_gradcheck(path, &o, &sum, &e), MEST_E_SHAPE);
    ck_assert(strstr(e.msg, "free"));
    snprintf(path, sizeof path, "%s/check/unknown.onnx", getenv("MEST_TEST_DATA") ? getenv("MEST_TEST_DATA") : "tests/data");
    ck_assert_int_eq(mest_gradcheck(path, &o, &sum, &e), MEST_E_UNSUPPORTED);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gradcheck");
    TCase *t = tcase_create("gradcheck");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, right_gradients_are_good);
    tcase_add_loop_test(t, broken_operators_are_named, 0, N_BREAKAGES);
    tcase_add_test(t, float_gradients_are_compared);
    tcase_add_test(t, time_is_bounded);
    tcase_add_loop_test(t, networks_are_good, 0, N_NETWORKS);
    tcase_add_test(t, what_cannot_be_checked_is_an_error);
    suite_add_tcase(suite, t);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
