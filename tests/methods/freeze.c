/* SPDX-License-Identifier: Apache-2.0 */
/* Freezing while training: what is frozen with a layer, that it trains like a model in which the same parameters were frozen from outside, that
 * memory becomes less, and that the last layer cannot go. Ends with "N passed, N failed, N skipped". */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/model.h"
#include "runtime/session.h"
#include "tests/onnx_write.h"

enum { IN = 24, WIDTH = 40, CLASSES = 5, BATCH = 12 };

static int passed, failed;
static mest_error err;

static void check(bool ok, const char *what)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s (%s)\n", what, err.msg);
}

static float wave(uint64_t i) { return (float)(.2 * sin(1.7 * (double)i + .3)); }

/* x -> w1 -> r1 -> w2 -> r2, r1 + r2 -> w3 (through a Transpose) -> y: before w2 lies w1, before w3 everything. */
static void write_model(const char *path)
{
    onnx_bytes g = {0};
    onnx_node(&g, "Gemm:x,w1,b1:h1:transB=1");
    onnx_node(&g, "Relu:h1:r1");
    onnx_node(&g, "Gemm:r1,w2,b2:h2:transB=1");
    onnx_node(&g, "Relu:h2:r2");
    onnx_node(&g, "Add:r1,r2:s");
    onnx_node(&g, "Transpose:w3:t3:perm=1/0");
    onnx_node(&g, "MatMul:s,t3:m");
    onnx_node(&g, "Add:m,b3:y");
    onnx_weight(&g, "w1", 2, (int64_t[]){WIDTH, IN}, wave);
    onnx_weight(&g, "b1", 1, (int64_t[]){WIDTH}, wave);
    onnx_weight(&g, "w2", 2, (int64_t[]){WIDTH, WIDTH}, wave);
    onnx_weight(&g, "b2", 1, (int64_t[]){WIDTH}, wave);
    onnx_weight(&g, "w3", 2, (int64_t[]){CLASSES, WIDTH}, wave);
    onnx_weight(&g, "b3", 1, (int64_t[]){CLASSES}, wave);
    onnx_value(&g, 11, "x", 1, (int64_t[]){IN});
    onnx_value(&g, 12, "y", 1, (int64_t[]){CLASSES});
    onnx_save(&g, path);
}

typedef struct run {
    mest_model *model;
    mest_session *session;
    float *values;
    size_t count;
    int64_t bytes;
} run;

static int host_param(const run *r, const char *name)
{
    for (int k = 0; k < r->session->host.n_params; k++)
        if (!strcmp(r->session->host.params[k].name, name))
            return k;
    return -1;
}

/* names: parameters frozen before the session is there; freeze: sparse parameter that is frozen after `before` steps. */
static run train(const char *path, const char *names, const char *freeze, int before, int steps)
{
    run r = {0};
    mest_model_options mo;
    mest_sparsity sp;
    mest_train_config c;
    mest_metrics m;
    float x[BATCH * IN];
    int64_t y[BATCH];
    mest_model_options_init(&mo);
    mest_sparsity_init(&sp);
    sp.scheme = "csr";
    sp.sparsity = .8;
    sp.dense_layers = "none";
    mest_train_config_init(&c);
    c.batch = BATCH;
    c.threads = 1;
    c.lr = .05;
    check(mest_model_load(&r.model, path, &mo, &err) == MEST_OK && mest_model_sparsify(r.model, &sp, &err) == MEST_OK, "a sparse model");
    char pattern[16];
    for (const char *word = names; word && *word; word += strcspn(word, ",") + (word[strcspn(word, ",")] == ',')) {
        snprintf(pattern, sizeof pattern, "%.*s", (int)strcspn(word, ","), word);
        check(mest_model_freeze(r.model, pattern, true, NULL, &err) == MEST_OK, pattern);
    }
    check(mest_session_create(&r.session, r.model, &c, &err) == MEST_OK, "a session");
    for (int step = 0; step < steps; step++) {
        if (freeze && step == before) {
            check(mest_session_prepare(r.session, &err) == MEST_OK, "prepared");
            const int k = host_param(&r, freeze);
            check(k >= 0 && mest_session_freezer(r.session, r.session->host.params[k].model_param, &err) == MEST_OK, "frozen");
            check(r.session->host.params[k].frozen, "the host knows");
        }
        for (int i = 0; i < BATCH * IN; i++)
            x[i] = (float)sin(.37 * (double)(i + 31 * step));
        for (int i = 0; i < BATCH; i++)
            y[i] = (i + step) % CLASSES;
        check(mest_session_step(r.session, x, y, BATCH, &m, &err) == MEST_OK && isfinite(m.loss), "a step");
    }
    for (int i = 0; i < r.model->n_params; i++) {
        const size_t n = (size_t)r.model->params[i].count;
        r.values = realloc(r.values, (r.count + n) * sizeof(float));
        if (!r.values)
            exit(2);
        check(mest_model_read_parameter(r.model, i, r.values + r.count, n, &err) == MEST_OK, "values");
        r.count += n;
    }
    mest_session_memory(r.session, &r.bytes, NULL);
    return r;
}

static void drop(run *r)
{
    mest_session_destroy(r->session);
    mest_model_destroy(r->model);
    free(r->values);
}

int main(void)
{
    char path[] = "/tmp/mest-freeze-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0)
        return 2;
    close(fd);
    write_model(path);
    /* from the first step on: like a model whose parameters were frozen by name */
    static const struct { const char *layer, *names; } same[] = { { "w1", "w1,b1" }, { "w2", "w1,b1,w2,b2" } };
    for (int i = 0; i < 2; i++) {
        run a = train(path, NULL, same[i].layer, 0, 6), b = train(path, same[i].names, NULL, 0, 6);
        check(a.count == b.count && !memcmp(a.values, b.values, a.count * sizeof(float)), same[i].layer);
        drop(&a), drop(&b);
    }
    /* after four steps: what is frozen stays what it was, the rest moves, and memory is less */
    run a = train(path, NULL, NULL, 0, 4), b = train(path, NULL, "w2", 4, 9), c = train(path, NULL, NULL, 0, 9);
    size_t at = 0;
    for (int i = 0; i < a.model->n_params; i++) {
        const char *name = a.model->params[i].name;
        const size_t n = (size_t)a.model->params[i].count;
        const bool stays = strchr("12", name[1]) != NULL;
        check(!memcmp(a.values + at, b.values + at, n * sizeof(float)) == stays, name);
        check((b.session->optimizer.state[i].slot[0] == NULL) == stays, "state of the optimizer");
        at += n;
    }
    check(b.bytes < c.bytes, "less memory");
    check(b.session->arena.bytes < c.session->arena.bytes, "fewer activations are kept");
    const int last = host_param(&b, "w3");
    err = (mest_error){0};
    /* with w3 its bias would still train; b3 alone is left then */
    check(mest_session_freezer(b.session, b.session->host.params[last].model_param, &err) == MEST_OK, "w3 can be frozen, b3 trains on");
    uint8_t *all = malloc((size_t)b.model->n_params);
    memset(all, 1, (size_t)b.model->n_params);
    check(mest_session_set_frozen(b.session, all, &err) == MEST_E_ARGUMENT && strstr(err.msg, "nothing would be left"), "the last one cannot");
    free(all);
    drop(&a), drop(&b), drop(&c);
    unlink(path);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}
