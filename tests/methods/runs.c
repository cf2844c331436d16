/* SPDX-License-Identifier: Apache-2.0 */
/* Whole runs of every method through the public API, on a network written here and samples made up here:
 *   - the same bits for one thread and for two
 *   - stopped after any epoch or in the middle of one and resumed by another session, the same bits as without the stop
 *   - the number of weights the target says, in the end
 *   - no block of the size of the large weight where the method promises that, by the allocator
 * Ends with "N passed, N failed, N skipped". */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mest/train.h"
#include "tests/onnx_write.h"

enum { IN = 400, HIDDEN = 300, CLASSES = 6, SAMPLES = 90, BATCH = 16, EPOCHS = 6, STEPS = 6 /* an epoch */ };

typedef struct method {
    const char *scheduler, *options, *second, *second_options;
    bool dense;          /* starts with all weights */
    double largest;      /* largest block, as part of the large weight's dense size; 0: not looked at */
    bool moves_units;    /* between layers: only the sum is the target */
    const char *optimizer; /* NULL: sgd */
    int rewinds;         /* to the initial weights, in a whole run */
} method;

/* A dense gradient is read in bands of 65,536 numbers: .55 of this weight. */
static const method methods[] = {
    {"mest", "mode=vanilla,freq=1", NULL, NULL, false, .25, false, NULL, 0},
    {"mest", "mode=em,freq=1,lambda=.5", NULL, NULL, false, .25, false, NULL, 0},
    {"mest", "mode=ems,freq=2", "forgetting", "epoch=3,count=20", false, .35, false, NULL, 0},
    {"mest", "mode=em,freq=1", "sieve", "fraction=.2,exchange=.1,every=2,freeze_from=.3", false, .35, false, NULL, 0},
    {"set", "", NULL, NULL, false, .25, false, NULL, 0},
    {"rigl", "every=2", NULL, NULL, false, .56, false, NULL, 0},
    {"mest", "mode=em,freq=1,lambda=.5", NULL, NULL, false, .25, false, "adam", 0},
    {"rigl", "every=2", NULL, NULL, false, .56, false, "adagrad", 0},
    {"dsr", "every=3,threshold=.02", NULL, NULL, false, .35, true, NULL, 0},
    {"deepr", "temperature=1e-3,l1=1e-3", NULL, NULL, false, .25, false, NULL, 0},
    {"snfs", "window=3", NULL, NULL, false, .56, true, NULL, 0},
    {"snfs", "memory=dense", NULL, NULL, false, 1.01, true, NULL, 0},
    {"magnitude", "every=4,stop=.6", NULL, NULL, true, 0, false, NULL, 0},
    {"magnitude", "mode=oneshot,scope=global", NULL, NULL, true, 0, true, NULL, 0},
    {"lottery", "rounds=2", NULL, NULL, true, 0, false, NULL, 2},
    {"lottery", "rounds=3,rewind=1,scope=global", NULL, NULL, true, 0, true, "adam", 0},
    {"snip", "batches=3", NULL, NULL, true, 0, true, NULL, 0},
    {"grasp", "", NULL, NULL, true, 0, true, NULL, 0},
};
enum { METHODS = sizeof methods / sizeof *methods };

static int passed, failed;

static void check(bool ok, const method *m, const char *scheme, const char *what, double got, double limit)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s:%s (%s): %s: %.17g, limit %.17g\n", m->scheduler, m->options, scheme, what, got, limit);
}

/* ---- samples: a class has a direction ---- */
static mest_status info(void *self, mest_source_info *i, mest_error *err)
{
    (void)self, (void)err;
    *i = (mest_source_info){.struct_size = sizeof *i, .count = SAMPLES, .input_type = MEST_SAMPLE_F32, .input_rank = 1, .input_dim = {IN},
                            .target_type = MEST_SAMPLE_I64, .n_classes = CLASSES, .has_targets = true};
    return MEST_OK;
}

static mest_status fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets, mest_error *err)
{
    float *x = inputs;
    int64_t *y = targets;
    (void)self, (void)how, (void)err;
    for (int64_t k = 0; k < n; k++) {
        int64_t class = ids[k] % CLASSES;
        for (int i = 0; i < IN; i++)
            x[k * IN + i] = (float)(sin(.3 * i * (double)(class + 1)) + .7 * sin(1.3 * i + (double)(ids[k] * ids[k])));
        if (y)
            y[k] = class;
    }
    return MEST_OK;
}

/* ---- the watching allocator ---- */
typedef struct watch { size_t now, largest; long calls; } watch;

static void *take(void *user, size_t size, size_t align)
{
    watch *w = user;
    __atomic_add_fetch(&w->now, size, __ATOMIC_RELAXED);
    if (size > w->largest)
        w->largest = size;
    w->calls++;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void give(void *user, void *p, size_t size)
{
    __atomic_sub_fetch(&((watch *)user)->now, size, __ATOMIC_RELAXED);
    free(p);
}

/* ---- one run ---- */
static char model_path[64], state_path[80];

typedef struct result {
    float *values;      /* all parameters, densely */
    size_t count;
    double stored, target, sum_stored, sum_target; /* units are weights here: of the worst layer, and of all */
    size_t largest;
} result;

typedef struct stop {
    int64_t at_step;
    mest_model *model;  /* of a method that rewinds: each mutation is looked at */
    result *first;      /* its weights before training */
    int64_t rewound, differ;
} stop;

/* All parameters, densely. */
static mest_status read_all(mest_model *model, result *r, mest_error *err)
{
    mest_status status = MEST_OK;
    r->count = 0;
    for (int i = 0; i < mest_model_parameter_count(model) && status == MEST_OK; i++) {
        mest_tensor_info t = {.struct_size = sizeof t};
        size_t n = 1;
        status = mest_model_parameter(model, i, &t, err);
        for (int k = 0; k < t.rank; k++)
            n *= (size_t)t.dim[k];
        r->values = realloc(r->values, (r->count + n) * sizeof(float));
        if (!r->values)
            exit(2);
        if (status == MEST_OK)
            status = mest_model_read_parameter(model, i, r->values + r->count, n, err);
        r->count += n;
    }
    return status;
}

/* After a rewind every weight, dense ones too, is what it was before training, or gone. */
static void look_at_rewind(stop *s)
{
    result now = {0};
    if (read_all(s->model, &now, NULL) != MEST_OK || now.count != s->first->count)
        s->differ++;
    for (size_t i = 0; i < now.count; i++)
        s->differ += now.values[i] != s->first->values[i] && now.values[i] != 0;
    s->rewound++;
    free(now.values);
}

static bool progress(void *user, const mest_event *e)
{
    stop *s = user;
    if (s->model && e->kind == MEST_EVENT_MUTATION)
        look_at_rewind(s);
    return e->kind != MEST_EVENT_STEP || s->at_step == 0 || e->total_step != s->at_step;
}

/* Trains from the beginning or from the checkpoint, to the end or to a step. */
static mest_status run(const method *m, const char *scheme, int threads, int64_t until, bool resume, result *r, mest_error *err)
{
    watch w = {0};
    mest_allocator allocator = {sizeof allocator, &w, take, give};
    mest_model_options mo;
    mest_sparsity sp;
    mest_train_config c;
    mest_run_options o;
    mest_model *model = NULL;
    mest_session *session = NULL;
    mest_source source = {.struct_size = sizeof source, .info = info, .fetch = fetch};
    stop s = {.at_step = until};
    result first = {0};
    memset(r, 0, sizeof *r);
    mest_model_options_init(&mo);
    mo.allocator = &allocator;
    mest_sparsity_init(&sp);
    sp.scheme = scheme;
    sp.sparsity = .95;
    sp.dense_layers = "none";
    sp.from_scratch = true;
    sp.seed = 4;
    sp.start_dense = m->dense;
    mest_train_config_init(&c);
    c.batch = BATCH;
    c.epochs = EPOCHS;
    c.lr = .02;
    if (m->optimizer)
        c.optimizer = m->optimizer;
    c.lr_decay = m->optimizer && !strcmp(m->optimizer, "adagrad") ? .05 : 0;
    c.schedule = "cosine";
    c.threads = threads;
    c.seed = 9;
    mest_run_options_init(&o);
    o.checkpoint_path = until || resume ? state_path : NULL;
    o.progress = progress;
    o.progress_user = &s;
    mest_status status = mest_model_load(&model, model_path, &mo, err);
    if (status == MEST_OK)
        status = mest_model_sparsify(model, &sp, err);
    if (status == MEST_OK)
        status = mest_session_create(&session, model, &c, err);
    if (status == MEST_OK)
        status = mest_session_add_scheduler(session, m->scheduler, m->options, err);
    if (status == MEST_OK && m->second)
        status = mest_session_add_scheduler(session, m->second, m->second_options, err);
    if (status == MEST_OK && resume)
        status = mest_session_resume(session, state_path, err);
    const bool looks = m->rewinds && !until && !resume;
    if (status == MEST_OK && looks) {
        s.model = model;
        s.first = &first;
        status = read_all(model, &first, err);
    }
    if (status == MEST_OK)
        status = mest_session_train(session, &source, &o, err);
    if (looks)
        check(s.rewound == m->rewinds && s.differ == 0, m, scheme, "weights that are not those of the beginning after a rewind", (double)s.differ, 0);
    free(first.values);
    if (status == MEST_E_CANCELLED && until)
        status = MEST_OK;
    if (status == MEST_OK)
        status = read_all(model, r, err);
    for (int i = 0; i < mest_model_parameter_count(model) && status == MEST_OK; i++) {
        mest_tensor_info t = {.struct_size = sizeof t};
        double n = 1;
        status = mest_model_parameter(model, i, &t, err);
        for (int k = 0; k < t.rank; k++)
            n *= (double)t.dim[k];
        if (strcmp(t.scheme, "dense")) {
            double target = floor((1 - sp.sparsity) * n + .5), off = (double)t.stored - target;
            if (fabs(off) >= fabs(r->stored - r->target))
                r->stored = (double)t.stored, r->target = target;
            r->sum_stored += (double)t.stored;
            r->sum_target += target;
        }
    }
    r->largest = w.largest;
    mest_session_destroy(session);
    mest_model_destroy(model);
    check(w.now == 0, m, scheme, "bytes left", (double)w.now, 0);
    return status;
}

static double distance(const result *a, const result *b)
{
    if (a->count != b->count)
        return INFINITY;
    double n = 0;
    for (size_t i = 0; i < a->count; i++)
        n += memcmp(&a->values[i], &b->values[i], sizeof(float)) != 0;
    return n;
}

static void try_method(const method *m, const char *scheme)
{
    mest_error err = {0};
    result whole, other;
    char what[60];
    mest_status status = run(m, scheme, 1, 0, false, &whole, &err);
    check(status == MEST_OK, m, scheme, err.msg, status, 0);
    if (status != MEST_OK)
        return;
    /* blocks: the target is rounded in blocks, and the last ones may reach past the matrix, more of them where units move */
    double slack = strcmp(scheme, "csr") == 0 ? 0 : m->moves_units ? 120 : 24;
    if (!m->moves_units)
        check(fabs(whole.stored - whole.target) <= slack / 2, m, scheme, "weights of a layer in the end", whole.stored, whole.target);
    check(fabs(whole.sum_stored - whole.sum_target) <= slack, m, scheme, "weights in the end", whole.sum_stored, whole.sum_target);
    if (m->largest > 0)
        check((double)whole.largest <= m->largest * IN * HIDDEN * sizeof(float), m, scheme, "largest block", (double)whole.largest,
              m->largest * IN * HIDDEN * sizeof(float));
    status = run(m, scheme, 2, 0, false, &other, &err);
    check(status == MEST_OK && distance(&whole, &other) == 0, m, scheme, "weights that differ with two threads", distance(&whole, &other), 0);
    free(other.values);
    static const int64_t stops[] = {1, 2, 6, 9, 12, 18, 23, 24, 30}; /* the end of each epoch, and places in some */
    for (size_t k = 0; k < sizeof stops / sizeof *stops; k++) {
        const int64_t at = stops[k];
        status = run(m, scheme, 1, at, false, &other, &err);
        free(other.values);
        if (status == MEST_OK)
            status = run(m, scheme, 1, 0, true, &other, &err);
        snprintf(what, sizeof what, "weights that differ when resumed at step %d", (int)at);
        check(status == MEST_OK && distance(&whole, &other) == 0, m, scheme, status ? err.msg : what, distance(&whole, &other), 0);
        if (status == MEST_OK)
            free(other.values);
        err = (mest_error){0};
    }
    free(whole.values);
}

static float wave(uint64_t i) { return (float)(.1 * sin(1.7 * (double)i + .3)); }

int main(void)
{
    onnx_bytes g = {0};
    snprintf(model_path, sizeof model_path, "/tmp/mest-runs-XXXXXX");
    int fd = mkstemp(model_path);
    if (fd < 0)
        return 2;
    close(fd);
    snprintf(state_path, sizeof state_path, "%s.state", model_path);
    onnx_node(&g, "Gemm:x,w1,b1:h1:transB=1");
    onnx_node(&g, "Relu:h1:r1");
    onnx_node(&g, "Gemm:r1,w2,b2:h2");
    onnx_node(&g, "Relu:h2:r2");
    onnx_node(&g, "Gemm:r2,w3,b3:y:transB=1");
    onnx_weight(&g, "w1", 2, (int64_t[]){HIDDEN, IN}, wave);
    onnx_weight(&g, "b1", 1, (int64_t[]){HIDDEN}, wave);
    onnx_weight(&g, "w2", 2, (int64_t[]){HIDDEN, 40}, wave);
    onnx_weight(&g, "b2", 1, (int64_t[]){40}, wave);
    onnx_weight(&g, "w3", 2, (int64_t[]){CLASSES, 40}, wave);
    onnx_weight(&g, "b3", 1, (int64_t[]){CLASSES}, wave);
    onnx_value(&g, 11, "x", 1, (int64_t[]){IN});
    onnx_value(&g, 12, "y", 1, (int64_t[]){CLASSES});
    onnx_save(&g, model_path);
    for (int i = 0; i < METHODS; i++) {
        try_method(&methods[i], "csr");
        try_method(&methods[i], "block4");
    }
    unlink(model_path);
    char path[100];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s%s", state_path, i ? ".prev" : "");
        unlink(path);
    }
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}
