/* SPDX-License-Identifier: Apache-2.0 */
/* A sparse weight never exists densely, not even for a moment, and the step loop allocates nothing: the caller's allocator watches.
 * The model is written here: x[N,K] -> Gemm(W1[H,K]) -> Relu -> Gemm(W2[C,H]), W1 far larger than everything else together. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mest/train.h"

enum { K = 1024, H = 2048, C = 8, BATCH = 16 };

static int passed, failed;

static void check(bool ok, const char *scheme, const char *what, double got, double limit)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s: %s: %.0f, limit %.0f\n", scheme, what, got, limit);
}

/* ---- a few bytes of protobuf ---- */
typedef struct buffer { unsigned char *bytes; size_t n; } buffer;

static void put(buffer *b, const void *p, size_t n)
{
    b->bytes = realloc(b->bytes, b->n + n + 1);
    if (!b->bytes)
        exit(2);
    if (n)
        memcpy(b->bytes + b->n, p, n);
    b->n += n;
}

static void varint(buffer *b, uint64_t v)
{
    do {
        unsigned char c = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
        put(b, &c, 1);
        v >>= 7;
    } while (v);
}

static void number(buffer *b, int field, uint64_t v)
{
    varint(b, (uint64_t)field << 3);
    varint(b, v);
}

static void bytes(buffer *b, int field, const void *p, size_t n)
{
    varint(b, (uint64_t)field << 3 | 2);
    varint(b, n);
    put(b, p, n);
}

static void text(buffer *b, int field, const char *s) { bytes(b, field, s, strlen(s)); }

static void nest(buffer *b, int field, buffer *inner)
{
    bytes(b, field, inner->bytes, inner->n);
    free(inner->bytes);
    *inner = (buffer){0};
}

static void tensor(buffer *graph, const char *name, int64_t rows, int64_t cols)
{
    buffer t = {0};
    size_t n = (size_t)(rows * (cols ? cols : 1));
    float *v = malloc(n * sizeof *v);
    if (!v)
        exit(2);
    uint32_t state = 12345;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = (float)((double)(state >> 8) / (1 << 24) - 0.5) * 0.1f;
    }
    number(&t, 1, (uint64_t)rows);
    if (cols)
        number(&t, 1, (uint64_t)cols);
    number(&t, 2, 1);
    text(&t, 8, name);
    bytes(&t, 9, v, n * sizeof *v);
    free(v);
    nest(graph, 5, &t);
}

static void value(buffer *graph, int field, const char *name, int64_t cols)
{
    buffer v = {0}, type = {0}, tt = {0}, shape = {0}, d = {0};
    text(&d, 2, "N");
    nest(&shape, 1, &d);
    number(&d, 1, (uint64_t)cols);
    nest(&shape, 1, &d);
    number(&tt, 1, 1);
    nest(&tt, 2, &shape);
    nest(&type, 1, &tt);
    text(&v, 1, name);
    nest(&v, 2, &type);
    nest(graph, field, &v);
}

static void node(buffer *graph, const char *op, const char *name, const char *a, const char *w, const char *bias, const char *out)
{
    buffer n = {0}, attr = {0};
    text(&n, 1, a);
    if (w) {
        text(&n, 1, w);
        text(&n, 1, bias);
        text(&attr, 1, "transB");
        number(&attr, 3, 1);
        number(&attr, 20, 2);
    }
    text(&n, 2, out);
    text(&n, 3, name);
    text(&n, 4, op);
    if (w)
        nest(&n, 5, &attr);
    nest(graph, 1, &n);
}

static void write_model(const char *path)
{
    buffer m = {0}, g = {0}, o = {0};
    node(&g, "Gemm", "fc1", "x", "W1", "b1", "h");
    node(&g, "Relu", "relu", "h", NULL, NULL, "r");
    node(&g, "Gemm", "fc2", "r", "W2", "b2", "y");
    text(&g, 2, "wide");
    tensor(&g, "W1", H, K);
    tensor(&g, "b1", H, 0);
    tensor(&g, "W2", C, H);
    tensor(&g, "b2", C, 0);
    value(&g, 11, "x", K);
    value(&g, 12, "y", C);
    number(&m, 1, 8);
    nest(&m, 7, &g);
    number(&o, 2, 17);
    nest(&m, 8, &o);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(m.bytes, 1, m.n, f) != m.n || fclose(f))
        exit(2);
    free(m.bytes);
}

/* ---- the watching allocator ---- */
typedef struct watch { size_t now, peak, largest; long calls; } watch;

static void *take(void *user, size_t size, size_t align)
{
    watch *w = user;
    w->now += size;
    w->calls++;
    if (w->now > w->peak)
        w->peak = w->now;
    if (size > w->largest)
        w->largest = size;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void give(void *user, void *p, size_t size)
{
    ((watch *)user)->now -= size;
    free(p);
}

static void run(const char *path, const char *scheme, const char *kernels, bool scratch, const char *optimizer)
{
    const double dense = (double)H * K * sizeof(float);
    watch w = {0};
    mest_allocator allocator = {sizeof allocator, &w, take, give};
    mest_model_options mo;
    mest_model_options_init(&mo);
    mo.allocator = &allocator;
    mest_error err = {0};
    mest_model *m = NULL;
    mest_session *s = NULL;
    mest_sparsity sp;
    mest_sparsity_init(&sp);
    sp.scheme = scheme;
    sp.sparsity = 0.95;
    sp.dense_layers = "none";
    sp.from_scratch = scratch;
    mest_train_config c;
    mest_train_config_init(&c);
    c.batch = BATCH;
    c.kernels = kernels;
    c.optimizer = optimizer;
    c.threads = 2;
    c.lr = 0.01;
    static float x[BATCH * K];
    static int64_t y[BATCH];
    for (int i = 0; i < BATCH * K; i++)
        x[i] = (float)sin(i * 0.7);
    for (int i = 0; i < BATCH; i++)
        y[i] = i % C;
    mest_metrics metrics;
    char out[600];
    snprintf(out, sizeof out, "%s.out", path);
    mest_export_options eo = {.struct_size = sizeof eo};
    double first = 0, last = 0;
    if (mest_model_load(&m, path, &mo, &err) || mest_model_sparsify(m, &sp, &err) || mest_session_create(&s, m, &c, &err) ||
        mest_session_add_scheduler(s, "mest", "mode=em,freq=1", &err) || mest_session_step(s, x, y, BATCH, &metrics, &err))
        goto broken;
    first = metrics.loss;
    long calls = w.calls;
    for (int i = 0; i < 20; i++)
        if (mest_session_step(s, x, y, BATCH, &metrics, &err))
            goto broken;
    last = metrics.loss;
    check(w.calls == calls, scheme, "allocations in 20 steps", (double)(w.calls - calls), 0);
    check(last < first, scheme, "loss after 21 steps", last * 1e6, first * 1e6);
    for (eo.sparse = false;; eo.sparse = true) {
        if (mest_model_export(m, out, &eo, &err))
            goto broken;
        if (eo.sparse)
            break;
    }
    /* 5 % of the weights: values, index, momentum (twice for adamw), gradient, two lists of 12 bytes an entry; activations are small */
    check((double)w.largest < dense / 4, scheme, "largest allocation", (double)w.largest, dense / 4);
    check((double)w.peak < dense * 0.75, scheme, "most bytes held", (double)w.peak, dense * 0.75);
    goto done;
broken:
    failed++;
    printf("FAIL %s: %s: %s\n", scheme, mest_status_text(err.code), err.msg);
done:
    mest_session_destroy(s);
    mest_model_destroy(m);
    check(w.now == 0, scheme, "bytes left after destroy", (double)w.now, 0);
    unlink(out);
}

int main(void)
{
    char path[] = "/tmp/mest-memory-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0)
        return 2;
    close(fd);
    write_model(path);
    static const char *const schemes[] = {"csr", "block4", "block8", "block16", "punched8x4", "nm1:16", "nm1:16x4"};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        run(path, schemes[i], "auto", false, "sgd");
        run(path, schemes[i], "scalar", true, "adamw");
    }
    unlink(path);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}
