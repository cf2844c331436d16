/* SPDX-License-Identifier: Apache-2.0 */
/* Dense gradients of sparse weights, read in pieces: every unit of every layer against the gradients of a dense network with the same
 * numbers, the largest ones against a search, and nothing moved by looking. One network with convolutions of several shapes, transposed
 * convolutions and matrix products both ways round; formats, kernel sets and batch sizes around it. */
#include <check.h>
#include <math.h>
#include <unistd.h>

#include "runtime/session.h"
#include "tests/onnx_write.h"

enum { CLASSES = 5, MOST_PARAMS = 32, STEP = 41 };

#define OK(call)                                                                                            \
    do {                                                                                                    \
        mest_error ok_ = {MEST_OK, ""}, *err = &ok_;                                                        \
        mest_status status_ = (call);                                                                       \
        ck_assert_msg(status_ == MEST_OK, "%s: %s: %s", #call, mest_status_text(status_), ok_.msg);         \
    } while (0)
#define REFUSED(code, call)                                                                                 \
    do {                                                                                                    \
        mest_error refused_ = {MEST_OK, ""}, *err = &refused_;                                              \
        ck_assert_msg((call) == (code), "%s: %s", #call, refused_.msg);                                     \
    } while (0)

static float wave(uint64_t i) { return (float)(0.4 * sin(1.7 * (double)i + 0.3)); }
static float ones(uint64_t i) { return 1 + 0.01f * (float)(i % 7); }
static float zeros(uint64_t i) { return (float)(i % 3) * 0.001f; }

static char made[64];

/* conv (stride, pads) - transposed conv - conv (dilated, 1-D kernel shape) - grouped conv - BatchNormalization - Gemm, Gemm', MatMul */
static void make_model(void)
{
    onnx_bytes g = {0};
    static const struct { const char *name; int rank; int64_t dim[4]; } weights[] = {
        {"c1.w", 4, {10, 3, 3, 3}}, {"t1.w", 4, {10, 7, 3, 3}}, {"c2.w", 4, {8, 7, 3, 1}}, {"g1.w", 4, {12, 4, 3, 3}}, {"c3.w", 4, {9, 12, 1, 1}},
        {"f1.w", 2, {40, 36}}, {"f2.w", 2, {40, 22}}, {"m1.w", 2, {22, CLASSES}},
    };
    static const struct { const char *name; int64_t dim; bool one; } vectors[] = {
        {"c1.b", 10, false}, {"t1.b", 7, false}, {"c2.b", 8, false}, {"n.s", 12, true}, {"n.b", 12, false}, {"n.m", 12, false}, {"n.v", 12, true}, {"f1.b", 40, false},
    };
    onnx_node(&g, "Conv:x,c1.w,c1.b:c1:strides=2/2,pads=1/1/1/1");
    onnx_node(&g, "Relu:c1:r1");
    onnx_node(&g, "ConvTranspose:r1,t1.w,t1.b:t1:strides=2/2,pads=1/1/0/0");
    onnx_node(&g, "Relu:t1:r2");
    onnx_node(&g, "Conv:r2,c2.w,c2.b:c2:dilations=2/1,pads=2/0/1/0,strides=1/2");
    onnx_node(&g, "Relu:c2:r3");
    onnx_node(&g, "Conv:r3,g1.w:g1:group=2,pads=1/1/1/1");
    onnx_node(&g, "BatchNormalization:g1,n.s,n.b,n.m,n.v:n1");
    onnx_node(&g, "Relu:n1:r4");
    onnx_node(&g, "Conv:r4,c3.w:c3");
    onnx_node(&g, "AveragePool:c3:p1:kernel_shape=4/2,strides=4/2");
    onnx_node(&g, "Flatten:p1:v1");
    onnx_node(&g, "Gemm:v1,f1.w,f1.b:f1:transB=1");
    onnx_node(&g, "Relu:f1:r5");
    onnx_node(&g, "Gemm:r5,f2.w:f2");
    onnx_node(&g, "Relu:f2:r6");
    onnx_node(&g, "MatMul:r6,m1.w:y");
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        onnx_weight(&g, weights[i].name, weights[i].rank, weights[i].dim, wave);
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        onnx_weight(&g, vectors[i].name, 1, &vectors[i].dim, vectors[i].one ? ones : zeros);
    onnx_value(&g, 11, "x", 3, (int64_t[]){3, 9, 8});
    onnx_value(&g, 12, "y", 1, (int64_t[]){CLASSES});
    snprintf(made, sizeof made, "/tmp/mest-probe-XXXXXX");
    int fd = mkstemp(made);
    if (fd < 0)
        exit(2);
    close(fd);
    onnx_save(&g, made);
}

typedef struct net {
    mest_model *model;
    mest_session *session;
    int64_t n;
    mest_real x[17 * 3 * 9 * 8];
    int64_t y[17];
} net;

static void load(net *t, const char *path, const char *scheme, const char *kernels, const char *layers, int64_t n, int threads)
{
    memset(t, 0, sizeof *t);
    t->n = n;
    for (int i = 0; i < 17 * 3 * 9 * 8; i++)
        t->x[i] = (mest_real)(float)sin(0.37 * i);
    for (int i = 0; i < 17; i++)
        t->y[i] = (i * 3) % CLASSES;
    OK(mest_model_load(&t->model, path, NULL, err));
    if (scheme) {
        mest_sparsity how;
        mest_sparsity_init(&how);
        how.scheme = scheme;
        how.sparsity = .7;
        how.dense_layers = layers;
        OK(mest_model_sparsify(t->model, &how, err));
    }
    mest_train_config c;
    mest_train_config_init(&c);
    c.batch = n;
    c.lr = 0;
    c.momentum = 0;
    c.threads = threads;
    c.kernels = kernels;
    c.keep_gradients = scheme == NULL;
    OK(mest_session_create(&t->session, t->model, &c, err));
}

static void unload(net *t)
{
    mest_session_destroy(t->session);
    mest_model_destroy(t->model);
}

/* The step that is about to be trained, as the trainer would leave it to a scheduler. */
static void begin_step(net *t, const void *const *inputs)
{
    mest_session *s = t->session;
    OK(mest_session_step(s, t->x, t->y, t->n, NULL, err)); /* builds the program; lr is 0 */
    mest_program *p;
    OK(mest_session_program(s, MEST_PROGRAM_TRAIN, t->n, &p, err));
    s->step = (mest_step_at_work){.program = p, .inputs = inputs, .targets = t->y, .n = t->n};
    mest_host_enter(&s->host, MEST_HOST_STEP, "tester", 0);
    s->host.prober = mest_session_probe;
    s->host.prober_self = s;
}

typedef struct seen {
    net *t;
    float *grad[MOST_PARAMS];    /* [units, unit_elements] */
    uint8_t *active[MOST_PARAMS];
    int64_t next[MOST_PARAMS], most_piece;
} seen;

static void see(seen *v, net *t)
{
    *v = (seen){.t = t};
    for (int k = 0; k < t->session->host.n_params; k++) {
        const mest_sparse *s = t->session->host.params[k].sparse;
        v->grad[k] = calloc((size_t)(mest_sparse_ids(s) * s->unit_elements), sizeof(float));
        v->active[k] = calloc((size_t)mest_sparse_ids(s), 1);
    }
}

static void forget(seen *v)
{
    for (int k = 0; k < MOST_PARAMS; k++)
        free(v->grad[k]), free(v->active[k]);
}

static mest_status visit(void *user, const mest_gradient_piece *piece, mest_error *err)
{
    seen *v = user;
    const mest_sparse *s = v->t->session->host.params[piece->param].sparse;
    (void)err;
    v->most_piece = piece->n > v->most_piece ? piece->n : v->most_piece;
    for (int64_t i = 0; i < piece->n; i++) {
        int64_t u = piece->units[i];
        ck_assert_int_eq(u, v->next[piece->param]++);
        memcpy(v->grad[piece->param] + u * s->unit_elements, piece->gradients + i * s->unit_elements, (size_t)s->unit_elements * sizeof(float));
        v->active[piece->param][u] = piece->active[i];
    }
    return MEST_OK;
}

static const mest_host_api *api;

static float unit_norm(const float *g, int n)
{
    double sum = 0;
    for (int e = 0; e < n; e++)
        sum += (double)g[e] * (double)g[e];
    return (float)sqrt(sum);
}

/* Are these the k best free units? Every free unit that is not among them must be worse than all of them. */
static void check_top(const seen *v, int param, const mest_gradient_top *top, const uint8_t *free_unit)
{
    const mest_sparse *s = v->t->session->host.params[param].sparse;
    int64_t n_free = 0;
    float least = INFINITY;
    for (int64_t u = 0; u < mest_sparse_ids(s); u++)
        n_free += free_unit[u];
    ck_assert_int_eq(top->found, top->k < n_free ? top->k : n_free);
    for (int64_t i = 0; i < top->found; i++) {
        ck_assert(i == 0 || top->units[i] > top->units[i - 1]);
        ck_assert(free_unit[top->units[i]] == 1);
        float norm = unit_norm(v->grad[param] + top->units[i] * s->unit_elements, s->unit_elements);
        ck_assert(fabsf(norm - top->norms[i]) <= 1e-6f * norm);
        least = top->norms[i] < least ? top->norms[i] : least;
    }
    for (int64_t u = 0, i = 0; u < mest_sparse_ids(s); u++) {
        if (i < top->found && top->units[i] == u) {
            i++;
            continue;
        }
        if (free_unit[u])
            ck_assert(unit_norm(v->grad[param] + u * s->unit_elements, s->unit_elements) <= least * (1 + 1e-6f));
    }
}

static void compare(const char *scheme, const char *kernels, int64_t n, const char *layers)
{
    const double limit = MEST_REAL_IS_DOUBLE ? 1e-6 : 2e-4; /* what is handed out is float */
    static net a, d;
    static char dense[80];
    const void *inputs[1] = {a.x};
    mest_export_options eo = {.struct_size = sizeof eo};
    seen v;
    /* the same numbers sparsely and densely: what the file keeps at 70 %, written with zeros, read back both ways */
    load(&a, made, scheme, "scalar", layers, 2, 1);
    snprintf(dense, sizeof dense, "%s.dense", made);
    OK(mest_model_export(a.model, dense, &eo, err));
    unload(&a);
    load(&a, dense, scheme, kernels, layers, n, 2);
    load(&d, dense, NULL, "scalar", NULL, n, 1);
    OK(mest_session_step(d.session, d.x, d.y, n, NULL, err));
    begin_step(&a, inputs);
    mest_host *h = &a.session->host;
    ck_assert_int_ge(h->n_params, 3); /* pattern and N:M do not fit every weight */
    see(&v, &a);
    mest_real *statistics = NULL;
    for (int i = 0; i < a.model->n_params; i++)
        if (!strcmp(a.model->params[i].name, "n.m")) {
            statistics = malloc(12 * sizeof *statistics);
            memcpy(statistics, a.model->params[i].values, 12 * sizeof *statistics);
        }
    /* wishes: one in three inactive units of each parameter; of parameter 1 with two units about to be dropped and one about to grow;
     * of parameter 4 with three more that count as free */
    mest_gradient_top top[MOST_PARAMS];
    int64_t also[3];
    for (int k = 0; k < h->n_params; k++) {
        const mest_sparse *s = h->params[k].sparse;
        int64_t want = (mest_sparse_ids(s) - s->active_units) / 3 + (k == 2 ? mest_sparse_ids(s) : 0);
        if (k == 4)
            OK(api->active_units(h, k, 3, 3, also, err));
        top[k] = (mest_gradient_top){.param = k, .k = want, .also = k == 4 ? also : NULL, .n_also = k == 4 ? 3 : 0, .units = malloc((size_t)want * 8), .norms = malloc((size_t)want * 4)};
    }
    int64_t drop[2], grow;
    OK(api->active_units(h, 1, 0, 2, drop, err));
    OK(api->drop(h, 1, drop, 2, err));
    OK(api->sample_inactive(h, 1, 3, drop, 2, 1, &grow, err));
    OK(api->grow(h, 1, &grow, 1, err));
    mest_probe probe = {.struct_size = sizeof probe, .keep = true, .n_top = h->n_params, .top = top, .visit = visit, .user = &v, .visit_param = -1};
    OK(api->probe(h, &probe, err));
    ck_assert_int_gt(probe.extra_bytes, 0);
    for (int k = 0; k < h->n_params; k++) {
        const mest_host_param *p = &h->params[k];
        const mest_sparse *s = p->sparse;
        float *want = malloc((size_t)(s->rows * s->cols) * sizeof *want);
        OK(mest_session_read_gradient(d.session, p->model_param, want, (size_t)(s->rows * s->cols), err));
        double largest = 0, worst = 0;
        for (int64_t i = 0; i < s->rows * s->cols; i++)
            largest = fmax(largest, fabs((double)want[i]));
        ck_assert_int_eq(v.next[k], mest_sparse_ids(s));
        for (int64_t u = 0; u < mest_sparse_ids(s); u++) {
            int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
            mest_sparse_unit_entries(s, u, row, col);
            for (int32_t e = 0; e < s->unit_elements; e++) {
                const bool inside = row[e] < s->rows && col[e] >= 0;
                double g = (double)v.grad[k][u * s->unit_elements + e], w = inside ? (double)want[row[e] * s->cols + col[e]] : 0;
                worst = fmax(worst, fabs(g - w));
            }
            ck_assert(v.active[k][u] == mest_sparse_active(s, u));
        }
        ck_assert_msg(worst <= limit * largest && largest > 0, "%s %s batch %d: '%s' differs by %.3g of %.3g", scheme, kernels, (int)n, p->name, worst,
                      largest);
        /* kept: the same at the stored entries */
        for (int64_t i = 0; i < s->stored; i++) {
            int64_t at;
            mest_sparse_coords(s, i, 1, &at);
            ck_assert(fabs((double)p->grad_snapshot[i] - (at < 0 ? 0 : (double)want[at])) <= limit * largest);
        }
        float product;
        OK(api->unit_products(h, k, 1, 1, &product, err));
        double sum = 0;
        for (int32_t e = 0; e < s->unit_elements; e++)
            sum += (double)s->values[s->unit_elements + e] * (double)p->grad_snapshot[s->unit_elements + e];
        ck_assert(product == (float)sum);
        uint8_t *free_unit = malloc((size_t)mest_sparse_ids(s));
        for (int64_t u = 0; u < mest_sparse_ids(s); u++)
            free_unit[u] = !v.active[k][u] || (k == 1 && (u == drop[0] || u == drop[1])) || (k == 4 && (u == also[0] || u == also[1] || u == also[2]));
        if (k == 1)
            free_unit[grow] = 0;
        if (s->group_units == 0) /* with groups: test_methods.c */
            check_top(&v, k, &top[k], free_unit);
        free(free_unit);
        free(want);
    }
    ck_assert_int_le(v.most_piece, 4096);
    for (int i = 0; i < a.model->n_params; i++) {
        const mest_param *p = &a.model->params[i], *q = &d.model->params[i];
        if (!strcmp(p->name, "n.m"))
            ck_assert(!memcmp(p->values, statistics, 12 * sizeof *statistics));
        for (int64_t k = 0; p->role == MEST_ROLE_TRAINABLE && !p->sparse && k < p->count; k++)
            ck_assert(p->values[k] == q->values[k]);
    }
    free(statistics);
    OK(mest_host_leave(h, false, NULL, err));
    for (int k = 0; k < h->n_params; k++)
        free(top[k].units), free(top[k].norms);
    forget(&v);
    unload(&a);
    unload(&d);
    unlink(dense);
}

START_TEST(dense_gradients_are_those_of_a_dense_network)
{
    static const char *const schemes[] = {"csr", "block4", "block3", "punched4x2", "nm2:4", "pattern"}, *const kernels[] = {"scalar", "auto"};
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 2; k++) {
            compare(schemes[i], kernels[k], 5, "g1.w");
            compare(schemes[i], kernels[k], 17, "g1.w");
        }
    compare("csr", "scalar", 3, "none"); /* grouped convolution */
}
END_TEST

/* Any number of threads, the same bits; and the bytes that a probe says it needed are all it took. */
START_TEST(threads_and_memory)
{
    seen v[2];
    static net t[2];
    for (int i = 0; i < 2; i++) {
        load(&t[i], made, "csr", "auto", "g1.w", 16, i + 1);
        begin_step(&t[i], (const void *const[]){t[i].x});
        see(&v[i], &t[i]);
        int64_t peak = atomic_load(&t[i].model->heap.current_bytes);
        atomic_store(&t[i].model->heap.peak_bytes, peak);
        mest_probe probe = {.struct_size = sizeof probe, .visit = visit, .user = &v[i], .visit_param = -1};
        OK(api->probe(&t[i].session->host, &probe, err));
        ck_assert_int_eq(atomic_load(&t[i].model->heap.current_bytes), peak);
        ck_assert_int_le(atomic_load(&t[i].model->heap.peak_bytes) - peak, probe.extra_bytes);
        ck_assert_int_ge(atomic_load(&t[i].model->heap.peak_bytes) - peak, probe.extra_bytes * 9 / 10);
    }
    for (int k = 0; k < t[0].session->host.n_params; k++) {
        const mest_sparse *s = t[0].session->host.params[k].sparse;
        ck_assert(!memcmp(v[0].grad[k], v[1].grad[k], (size_t)(mest_sparse_ids(s) * s->unit_elements) * sizeof(float)));
    }
    for (int i = 0; i < 2; i++)
        forget(&v[i]), unload(&t[i]);
}
END_TEST

/* A watched step trains as any other and shows the same gradients as a probe before it. */
START_TEST(watching_is_probing)
{
    static net t;
    seen v[2];
    load(&t, made, "block4", "auto", "g1.w", 16, 1);
    begin_step(&t, (const void *const[]){t.x});
    mest_host *h = &t.session->host;
    see(&v[0], &t);
    see(&v[1], &t);
    mest_probe probe = {.struct_size = sizeof probe, .visit = visit, .user = &v[0], .visit_param = 3};
    mest_probe watch = probe;
    watch.user = &v[1];
    watch.keep = true;
    OK(api->probe(h, &probe, err));
    ck_assert(v[0].next[3] == mest_sparse_ids(h->params[3].sparse) && v[0].next[2] == 0);
    OK(api->watch(h, &watch, err));
    REFUSED(MEST_E_STATE, api->watch(h, &watch, err));
    mest_host_leave(h, true, NULL, NULL);
    h->prober = NULL;
    REFUSED(MEST_E_STATE, api->probe(h, &probe, err));
    OK(mest_session_learn(t.session, .1, false, err));
    const mest_sparse *s = h->params[3].sparse;
    ck_assert(!memcmp(v[0].grad[3], v[1].grad[3], (size_t)(mest_sparse_ids(s) * s->unit_elements) * sizeof(float)));
    ck_assert(h->gradients_taken && !h->watch);
    ck_assert(v[1].next[2] == 0);
    forget(&v[0]), forget(&v[1]);
    unload(&t);
}
END_TEST

START_TEST(wrong_wishes_are_refused)
{
    static net t;
    load(&t, made, "csr", "auto", "g1.w", 4, 1);
    begin_step(&t, (const void *const[]){t.x});
    mest_host *h = &t.session->host;
    int64_t unit;
    float norm;
    mest_gradient_top top[2] = {{.param = 0, .k = 1, .units = &unit, .norms = &norm}, {.param = 0, .k = 1, .units = &unit, .norms = &norm}};
    mest_probe probe = {.struct_size = sizeof probe, .n_top = 2, .top = top};
    REFUSED(MEST_E_PLUGIN, api->probe(h, &probe, err)); /* twice the same parameter */
    top[1].param = 99;
    REFUSED(MEST_E_ARGUMENT, api->probe(h, &probe, err));
    top[1] = (mest_gradient_top){.param = 1, .k = 2};
    REFUSED(MEST_E_PLUGIN, api->probe(h, &probe, err)); /* nowhere to write */
    int64_t wild[2] = {3, 3};
    top[1] = (mest_gradient_top){.param = 1, .also = wild, .n_also = 2};
    REFUSED(MEST_E_PLUGIN, api->probe(h, &probe, err)); /* out of order */
    wild[1] = 1 << 20;
    REFUSED(MEST_E_PLUGIN, api->probe(h, &probe, err)); /* out of range */
    top[1] = (mest_gradient_top){.param = 1, .k = -1};
    REFUSED(MEST_E_PLUGIN, api->probe(h, &probe, err));
    probe.n_top = 1;
    probe.hessian = true;
    REFUSED(MEST_E_ARGUMENT, api->probe(h, &probe, err));
    probe.hessian = false;
    probe.logit_scale = -1;
    REFUSED(MEST_E_ARGUMENT, api->probe(h, &probe, err));
    probe.logit_scale = 0;
    probe.struct_size = 8;
    REFUSED(MEST_E_ARGUMENT, api->probe(h, &probe, err));
    probe.struct_size = sizeof probe;
    float product;
    REFUSED(MEST_E_STATE, api->unit_products(h, 0, 0, 1, &product, err)); /* nothing was kept */
    OK(api->probe(h, &probe, err));
    ck_assert_int_eq(top[0].found, 1);
    /* a visitor's own error comes through */
    mest_host_enter(h, MEST_HOST_BEGIN, "tester", 0);
    REFUSED(MEST_E_STATE, api->probe(h, &probe, err));
    unload(&t);
}
END_TEST

/* Gradient and Hessian-gradient product of a convolutional network against automatic differentiation (data/grasp.*; how it was made:
 * tests/fixtures/make_grasp.py), with logits as they are and divided by GraSP's temperature of 200. */
START_TEST(hessian_gradients_are_those_of_automatic_differentiation)
{
    enum { N = 12, IN = 64, ALL = N * IN + N + 4 * (54 + 432 + 2048 + 64) };
    static const char *const names[] = {"c1", "c2", "f1", "f2"};
    static const char *const schemes[] = {"csr", "block4"};
    static float file[ALL];
    const char *dir = getenv("MEST_PLUGIN_DATA");
    char path[600];
    snprintf(path, sizeof path, "%s/grasp.bin", dir ? dir : "tests/plugin/data");
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f && fread(file, sizeof *file, ALL, f) == ALL && fgetc(f) == EOF, "%s", path);
    fclose(f);
    snprintf(path, sizeof path, "%s/grasp.onnx", dir ? dir : "tests/plugin/data");
    for (int scheme = 0; scheme < 2; scheme++) {
        static net t;
        memset(&t, 0, sizeof t);
        t.n = N;
        for (int i = 0; i < N * IN; i++)
            t.x[i] = (mest_real)file[i];
        for (int i = 0; i < N; i++)
            t.y[i] = (int64_t)file[N * IN + i];
        OK(mest_model_load(&t.model, path, NULL, err));
        mest_sparsity how;
        mest_sparsity_init(&how);
        how.scheme = schemes[scheme];
        how.sparsity = .5;
        how.dense_layers = "none";
        how.start_dense = true;
        OK(mest_model_sparsify(t.model, &how, err));
        mest_train_config c;
        mest_train_config_init(&c);
        c.batch = N;
        c.lr = c.momentum = 0;
        OK(mest_session_create(&t.session, t.model, &c, err));
        begin_step(&t, (const void *const[]){t.x});
        mest_host *h = &t.session->host;
        ck_assert_int_eq(h->n_params, 4);
        for (int turn = 0; turn < 4; turn++) {
            const float *want = file + N * IN + N;
            mest_probe probe = {.struct_size = sizeof probe, .keep = true, .hessian = turn % 2, .logit_scale = turn < 2 ? 0 : 1. / 200};
            OK(api->probe(h, &probe, err));
            want += turn < 2 ? 0 : 2 * (54 + 432 + 2048 + 64);
            double off = 0, all = 0;
            for (int k = 0; k < 4; k++) {
                ck_assert_str_eq(h->params[k].name, names[k]);
                const mest_sparse *s = h->params[k].sparse;
                ck_assert_int_eq(s->active_units, mest_sparse_ids(s));
                for (int64_t i = 0; i < s->stored; i++) {
                    int64_t at;
                    mest_sparse_coords(s, i, 1, &at);
                    double w = at < 0 ? 0 : (double)want[at + (turn % 2) * s->rows * s->cols], d = (double)h->params[k].grad_snapshot[i] - w;
                    off += d * d;
                    all += w * w;
                }
                want += 2 * s->rows * s->cols;
            }
            double error = sqrt(off / all), limit = turn % 2 == 0 ? 1e-5 : MEST_REAL_IS_DOUBLE ? 1e-6 : 5e-3;
            ck_assert_msg(error <= limit, "%s, turn %d: relative error %.3g", schemes[scheme], turn, error);
        }
        unload(&t);
    }
}
END_TEST

int main(void)
{
    api = mest_host_functions();
    make_model();
    Suite *suite = suite_create("probe");
    TCase *c = tcase_create("probe");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, dense_gradients_are_those_of_a_dense_network);
    tcase_add_test(c, threads_and_memory);
    tcase_add_test(c, watching_is_probing);
    tcase_add_test(c, hessian_gradients_are_those_of_automatic_differentiation);
    tcase_add_test(c, wrong_wishes_are_refused);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    unlink(made);
    return failed ? 1 : 0;
}
