/* SPDX-License-Identifier: Apache-2.0 */
/* BatchNormalization that was folded at export: found, unfolded without a change of outputs, trained, folded again on export. */
#include <math.h>

#include "mest/train.h"
#include "runtime/rng.h"
#include "tests/import/import_fixture.h"

enum { SAMPLES = 96, MOST = 3 * 32 * 32 };

/* ---- samples from memory: two blobs a class, so that something can be learnt ---- */
typedef struct memory {
    int rank;
    int64_t dim[4], per, classes;
} memory;

static mest_status info(void *self, mest_source_info *i, mest_error *err)
{
    const memory *m = self;
    (void)err;
    *i = (mest_source_info){ .struct_size = sizeof *i, .count = SAMPLES, .input_type = MEST_SAMPLE_F32, .input_rank = m->rank, .target_type = MEST_SAMPLE_I64,
                             .n_classes = m->classes, .has_targets = true };
    memcpy(i->input_dim, m->dim, (size_t)m->rank * sizeof *m->dim);
    return MEST_OK;
}

static void sample(const memory *m, int64_t id, float *x)
{
    for (int64_t k = 0; k < m->per; k++)
        x[k] = (float)(2 * mest_rng_uniform(5, (uint64_t)id, (uint64_t)k) - 1 + (k % m->classes == id % m->classes ? 1.5 : 0));
}

static mest_status fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets, mest_error *err)
{
    const memory *m = self;
    (void)how, (void)err;
    for (int64_t i = 0; i < n; i++) {
        sample(m, ids[i], (float *)inputs + i * m->per);
        if (targets)
            ((int64_t *)targets)[i] = ids[i] % m->classes;
    }
    return MEST_OK;
}

typedef struct net {
    mest_model *m;
    mest_session *s;
    memory data;
    mest_source source;
} net;

static void close_net(net *n)
{
    mest_session_destroy(n->s);
    mest_model_destroy(n->m);
}

static net open_net(const char *path, bool unfold, double sparsity, int *n_layers)
{
    net n = { 0 };
    mest_train_config c;
    mest_tensor_info in = { .struct_size = sizeof in }, out = { .struct_size = sizeof out };
    mest_model_options o;
    mest_model_options_init(&o);
    OK(mest_model_load(&n.m, path, &o, err));
    if (unfold)
        OK(mest_model_unfold_batch_norm(n.m, n_layers, err));
    if (sparsity > 0) {
        mest_sparsity how;
        mest_sparsity_init(&how);
        how.scheme = "csr";
        how.sparsity = sparsity;
        OK(mest_model_sparsify(n.m, &how, err));
    }
    mest_train_config_init(&c);
    c.batch = 32;
    c.epochs = 4;
    c.lr = 0.05;
    c.threads = 1;
    OK(mest_session_create(&n.s, n.m, &c, err));
    OK(mest_model_input(n.m, 0, &in, err));
    OK(mest_model_output(n.m, 0, &out, err));
    n.data = (memory){ .rank = in.rank - 1, .per = 1, .classes = out.dim[1] };
    for (int i = 1; i < in.rank; i++) {
        n.data.dim[i - 1] = in.dim[i];
        n.data.per *= in.dim[i];
    }
    ck_assert(n.data.per <= MOST);
    return n;
}

/* The source points at the net, which must not move any more. */
static const mest_source *source_of(net *n)
{
    n->source = (mest_source){ .struct_size = sizeof n->source, .self = &n->data, .info = info, .fetch = fetch };
    return &n->source;
}

static void outputs(net *n, float *y)
{
    static float x[SAMPLES * MOST];
    for (int64_t i = 0; i < SAMPLES; i++)
        sample(&n->data, i, x + i * n->data.per);
    OK(mest_session_infer(n->s, x, SAMPLES, y, (size_t)(SAMPLES * n->data.classes), err));
}

static double gap(const float *a, const float *b, int64_t n)
{
    double d = 0, size = 1e-30;
    for (int64_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(d / size);
}

static int batch_norms(const mest_model *m)
{
    int n = 0;
    for (mest_id i = 0; i < m->graph.n_nodes; i++)
        n += !strcmp(m->graph.nodes[i].op->name, "BatchNormalization");
    return n;
}

static const struct { const char *file; int layers; bool biases; } files[] = {
    { "folded_legacy", 3, true }, { "folded_dynamo", 3, true }, { "folded_nobias", 2, false }, { "shared", 9, true },
};
enum { N_FILES = sizeof files / sizeof *files };

static bool path_of(int i, char path[1024])
{
    if (!strcmp(files[i].file, "shared")) {
        if (no_shared("a folded ResNet"))
            return false;
        shared_path(path, "variants/resnet8_folded.onnx");
    } else {
        snprintf(path, 1024, "%s/bn/%s.onnx", getenv("MEST_TEST_DATA") ? getenv("MEST_TEST_DATA") : "tests/data", files[i].file);
    }
    return true;
}

START_TEST(outputs_stay_what_they_are)
{
    char path[1024], out[1024];
    static float y[SAMPLES * 10], z[SAMPLES * 10];
    int layers = 0;
    if (!path_of(_i, path))
        return;
    net plain = open_net(path, false, 0, NULL), n = open_net(path, true, 0, &layers);
    const int64_t count = SAMPLES * n.data.classes;
    ck_assert_int_eq(mest_model_folded_count(plain.m), files[_i].layers);
    ck_assert_int_eq(layers, files[_i].layers);
    ck_assert_int_eq(batch_norms(n.m), layers);
    mest_folded_info f = { .struct_size = sizeof f };
    OK(mest_model_folded(plain.m, 0, &f, err));
    ck_assert(f.sign && f.node && find_param(plain.m, f.weight));
    outputs(&plain, y);
    outputs(&n, z);
    ck_assert_msg(gap(z, y, count) < 2e-6, "unfolded: %g", gap(z, y, count));
    /* a step needs statistics */
    mest_error e = { 0 };
    static float x[32 * MOST];
    int64_t t[32] = { 0 };
    ck_assert_int_eq(mest_session_step(n.s, x, t, 32, NULL, &e), MEST_E_STATE);
    OK(mest_session_measure_unfolded(n.s, source_of(&n), 0, err));
    ck_assert_int_eq(mest_session_measure_unfolded(n.s, &n.source, 0, &e), MEST_E_STATE); /* once is enough */
    outputs(&n, z);
    ck_assert_msg(gap(z, y, count) < 1e-5, "measured: %g", gap(z, y, count));
    OK(mest_model_export(n.m, temporary(out), NULL, err));
    net back = open_net(out, false, 0, NULL);
    outputs(&back, z);
    ck_assert_msg(gap(z, y, count) < 1e-5, "folded again: %g", gap(z, y, count));
    ck_assert_int_eq(back.m->graph.n_nodes, plain.m->graph.n_nodes);
    ck_assert_int_eq(batch_norms(back.m), 0);
    unlink(out);
    close_net(&back);
    close_net(&n);
    close_net(&plain);
}
END_TEST

/* In training form the statistics of the batch stand in for those of the data: with all samples in the batch nothing changes either. */
START_TEST(the_whole_set_as_a_batch_changes_nothing)
{
    char path[1024];
    mest_train_config c;
    if (!path_of(_i, path))
        return;
    net n = open_net(path, true, 0, NULL);
    mest_session_destroy(n.s);
    mest_train_config_init(&c);
    c.batch = SAMPLES;
    c.lr = 0;
    c.threads = 1;
    OK(mest_session_create(&n.s, n.m, &c, err));
    OK(mest_session_measure_unfolded(n.s, source_of(&n), 0, err));
    mest_metrics eval = { .struct_size = sizeof eval }, step = { .struct_size = sizeof step };
    OK(mest_session_evaluate(n.s, &n.source, NULL, &eval, err));
    static float x[SAMPLES * MOST];
    int64_t t[SAMPLES];
    for (int64_t i = 0; i < SAMPLES; i++) {
        sample(&n.data, i, x + i * n.data.per);
        t[i] = i % n.data.classes;
    }
    OK(mest_session_step(n.s, x, t, SAMPLES, &step, err));
    ck_assert_msg(fabs(step.loss - eval.loss) < 1e-5 * (1 + eval.loss), "%g and %g", step.loss, eval.loss);
    close_net(&n);
}
END_TEST

static void trains(const char *path, double sparsity, bool sparse_file, int layers, bool biases)
{
    char out[1024];
    static float y[SAMPLES * 10], z[SAMPLES * 10];
    net n = open_net(path, true, sparsity, NULL);
    const int64_t count = SAMPLES * n.data.classes;
    mest_metrics before = { .struct_size = sizeof before }, after = { .struct_size = sizeof after };
    OK(mest_session_evaluate(n.s, source_of(&n), NULL, &before, err));
    OK(mest_session_train(n.s, &n.source, NULL, err));
    OK(mest_session_evaluate(n.s, &n.source, NULL, &after, err));
    ck_assert_msg(after.loss < before.loss, "%s: loss %g, then %g", path, before.loss, after.loss);
    int moved = 0;
    for (int i = 0; i < n.m->n_params; i++) /* scale and shift learn */
        moved += strstr(n.m->params[i].name, ".bn.weight") && n.m->params[i].value_version > 2;
    ck_assert_int_eq(moved, layers);
    outputs(&n, y);
    mest_export_options o = { .struct_size = sizeof o, .sparse = sparse_file, .form = "inference" };
    OK(mest_model_export(n.m, temporary(out), &o, err));
    net back = open_net(out, false, 0, NULL), plain = open_net(path, false, 0, NULL);
    outputs(&back, z);
    ck_assert_msg(gap(z, y, count) < 2e-5, "%s (%g, %d): %g", path, sparsity, sparse_file, gap(z, y, count));
    ck_assert_int_eq(back.m->graph.n_nodes, plain.m->graph.n_nodes);
    ck_assert_int_eq(back.m->n_params, plain.m->n_params + (biases ? 0 : layers)); /* a bias each where the file had none */
    for (int i = 0; i < plain.m->n_params; i++)
        ck_assert(find_param(back.m, plain.m->params[i].name));
    unlink(out);
    close_net(&plain);
    close_net(&back);
    close_net(&n);
}

START_TEST(training_folds_back)
{
    char path[1024];
    if (!path_of(_i, path))
        return;
    trains(path, 0, false, files[_i].layers, files[_i].biases);
    trains(path, 0.5, false, files[_i].layers, files[_i].biases);
    trains(path, 0.5, true, files[_i].layers, files[_i].biases);
}
END_TEST

START_TEST(a_run_goes_on_bit_for_bit)
{
    char path[1024], checkpoint[1024];
    static float y[SAMPLES * 10], z[SAMPLES * 10];
    ck_assert(path_of(0, path));
    net whole = open_net(path, true, 0, NULL), first = open_net(path, true, 0, NULL), second = open_net(path, true, 0, NULL);
    OK(mest_session_train(whole.s, source_of(&whole), NULL, err));
    /* stopped after five steps */
    mest_train_config c;
    mest_session_destroy(first.s);
    mest_train_config_init(&c);
    c.batch = 32;
    c.epochs = 4;
    c.lr = 0.05;
    c.threads = 1;
    OK(mest_session_create(&first.s, first.m, &c, err));
    mest_run_options o;
    mest_run_options_init(&o);
    o.checkpoint_path = temporary(checkpoint);
    o.checkpoint_every_steps = 5;
    unlink(checkpoint);
    OK(mest_session_train(first.s, source_of(&first), &o, err));
    char before[1100];
    snprintf(before, sizeof before, "%s.prev", checkpoint);
    OK(mest_session_resume(second.s, access(before, R_OK) == 0 ? before : checkpoint, err));
    OK(mest_session_train(second.s, source_of(&second), NULL, err));
    outputs(&whole, y);
    outputs(&second, z);
    ck_assert(!memcmp(y, z, (size_t)(SAMPLES * whole.data.classes) * sizeof *y));
    unlink(checkpoint);
    unlink(before);
    close_net(&whole);
    close_net(&first);
    close_net(&second);
}
END_TEST

START_TEST(other_networks_are_left_alone)
{
    static const char *const with[] = { "resnet8/model.onnx", "mobilenetv2/model.onnx", "lenet5/model.onnx", "unet/model.onnx", "vit/model.onnx", "mlp/model.onnx" };
    char path[1024];
    int n = 7;
    if (no_shared("networks"))
        return;
    for (size_t i = 0; i < sizeof with / sizeof *with; i++) {
        mest_model *m = load(shared_path(path, with[i]));
        ck_assert_msg(mest_model_folded_count(m) == 0, "%s: %d", with[i], mest_model_folded_count(m));
        OK(mest_model_unfold_batch_norm(m, &n, err));
        ck_assert_int_eq(n, 0);
        mest_model_destroy(m);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("unfold");
    TCase *t = tcase_create("unfold");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, outputs_stay_what_they_are, 0, N_FILES);
    tcase_add_loop_test(t, the_whole_set_as_a_batch_changes_nothing, 0, N_FILES);
    tcase_add_loop_test(t, training_folds_back, 0, N_FILES);
    tcase_add_test(t, a_run_goes_on_bit_for_bit);
    tcase_add_test(t, other_networks_are_left_alone);
    suite_add_tcase(suite, t);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
