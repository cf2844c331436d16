/* SPDX-License-Identifier: Apache-2.0 */
/* A sparse weight never exists densely, not even for a moment, and the step loop allocates nothing: the caller's allocator watches.
 * The models are written here; one weight of each is far larger than everything else together. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mest/train.h"
#include "tests/onnx_write.h"

enum { K = 1024, H = 2048, M = 512, C = 8, BATCH = 16 };

static int passed, failed;

static void check(bool ok, const char *scheme, const char *what, double got, double limit)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s: %s: %.0f, limit %.0f\n", scheme, what, got, limit);
}

static float pseudo(uint64_t i)
{
    const uint32_t state = (uint32_t)(i + 1) * 2654435761u;
    return (float)((double)(state >> 8) / (1 << 24) - 0.5) * 0.1f;
}

static void weight(onnx_bytes *g, const char *name, int rank, int64_t a, int64_t b, int64_t k)
{
    onnx_weight(g, name, rank, (int64_t[]){a, b, k, k}, pseudo);
}

/* x[N,K] -> Gemm(W1[H,K]) -> Relu -> Gemm(W2[C,H]): W1 far larger than everything else together. */
static void write_matrices(const char *path)
{
    onnx_bytes g = {0};
    onnx_node(&g, "Gemm:x,W1,b1:h:transB=1");
    onnx_node(&g, "Relu:h:r");
    onnx_node(&g, "Gemm:r,W2,b2:y:transB=1");
    weight(&g, "W1", 2, H, K, 0);
    weight(&g, "b1", 1, H, 0, 0);
    weight(&g, "W2", 2, C, H, 0);
    weight(&g, "b2", 1, C, 0, 0);
    onnx_value(&g, 11, "x", 1, (int64_t[]){K});
    onnx_value(&g, 12, "y", 1, (int64_t[]){C});
    onnx_save(&g, path);
}

/* x[N,K,1,1] -> Conv(W1[M,K,1,1]) -> Relu -> Conv(W3[M,M,3,3]) -> mean -> Gemm(W2[C,M]): W3 is the large one. Images of one pixel, so that
 * activations are small beside it. */
static void write_convolutions(const char *path)
{
    onnx_bytes g = {0};
    onnx_node(&g, "Conv:x,W1,b1:h:kernel_shape=1/1");
    onnx_node(&g, "Relu:h:r");
    onnx_node(&g, "Conv:r,W3:s:pads=1/1/1/1,kernel_shape=3/3");
    onnx_node(&g, "GlobalAveragePool:s:p");
    onnx_node(&g, "Flatten:p:f:axis=1");
    onnx_node(&g, "Gemm:f,W2,b2:y:transB=1");
    weight(&g, "W1", 4, M, K, 1);
    weight(&g, "b1", 1, M, 0, 0);
    weight(&g, "W3", 4, M, M, 3);
    weight(&g, "W2", 2, C, M, 0);
    weight(&g, "b2", 1, C, 0, 0);
    onnx_value(&g, 11, "x", 3, (int64_t[]){K, 1, 1});
    onnx_value(&g, 12, "y", 1, (int64_t[]){C});
    onnx_save(&g, path);
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

/* Weights of a unit of the scheme. */
static int unit_width(const char *scheme)
{
    static const struct { const char *scheme; int width; } of[] = {
        {"csr", 1}, {"block4", 4}, {"block8", 8}, {"block16", 16}, {"punched8x4", 32}, {"nm1:16", 1}, {"nm1:16x4", 4}, {"pattern", 4}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        if (!strcmp(of[i].scheme, scheme))
            return of[i].width;
    return 0;
}

static double stored_sparse(const mest_model *m, mest_error *err)
{
    double sum = 0;
    for (int i = 0; i < mest_model_parameter_count(m); i++) {
        mest_tensor_info t = {.struct_size = sizeof t};
        if (mest_model_parameter(m, i, &t, err))
            return -1;
        if (strcmp(t.scheme, "dense"))
            sum += (double)t.stored;
    }
    return sum;
}

static void run(const char *path, bool convolutions, const char *scheme, double sparsity, const char *kernels, bool scratch, const char *optimizer,
                const char *method, double rate)
{
    const double dense = (convolutions ? (double)M * M * 9 : (double)H * K) * sizeof(float);
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
    sp.sparsity = sparsity;
    sp.dense_layers = "none";
    sp.from_scratch = scratch;
    mest_train_config c;
    mest_train_config_init(&c);
    c.batch = BATCH;
    c.epochs = 10;
    c.kernels = kernels;
    c.optimizer = optimizer;
    c.threads = 2;
    c.lr = strcmp(optimizer, "adamw") ? 0.01 : 0.001;
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
        mest_session_add_scheduler(s, "mest", method, &err) || mest_session_step(s, x, y, BATCH, &metrics, &err))
        goto broken;
    first = metrics.loss;
    long calls = w.calls;
    for (int i = 0; i < 10; i++)
        if (mest_session_step(s, x, y, BATCH, &metrics, &err))
            goto broken;
    last = metrics.loss;
    check(w.calls == calls, scheme, "allocations in 10 steps", (double)(w.calls - calls), 0);
    check(last < first, scheme, "loss after 11 steps", last * 1e6, first * 1e6);
    /* A mutation beside all that a step needs. For each unit that moves: its id in the proposals (one for its removal, one for the growth),
     * and once more in the list of the scheduler. Gradients for lambda, one for each stored weight, are held since the first step. */
    double stored = stored_sparse(m, &err), held = (double)w.now, moved = stored * rate / (rate > 0 ? unit_width(scheme) : 1);
    const size_t peak = w.peak;
    w.peak = w.now;
    if (stored < 0 || mest_session_end_epoch(s, NULL, &err) || mest_session_step(s, x, y, BATCH, &metrics, &err))
        goto broken;
    double took = (double)w.peak - held, ids = moved * 3 * sizeof(int64_t), gradients = strstr(method, "lambda") ? stored * sizeof(float) : 0;
    if (rate > 0) { /* whole channels: steps are planned anew when their number changes */
        check(took > ids / 2, scheme, "the mutation is there", took, ids / 2);
        check(took <= ids + 64, scheme, "bytes of a mutation", took, ids + 64);
    }
    w.peak = peak > w.peak ? peak : w.peak;
    for (eo.sparse = false;; eo.sparse = true) {
        if (mest_model_export(m, out, &eo, &err))
            goto broken;
        if (eo.sparse)
            break;
    }
    /* 5 % of the weights: values, index, momentum (twice for adamw), gradient, two lists of 12 bytes an entry; activations are small, those
     * of the convolutions with their halo about a fifth of a dense weight. Beside that the mutation above. */
    const double most = dense * (convolutions ? 1 : 0.75);
    /* The arena is one allocation. It holds the rings of the fused convolutions, which do not depend on the weight: at most RING_BYTES
     * (sparse/kernels/fused_op.c) for each of the two threads. */
    const double largest = dense / 4 + (convolutions ? 2 * (512 << 10) : 0);
    check((double)w.largest < largest, scheme, "largest allocation", (double)w.largest, largest);
    check(held - gradients < most, scheme, "bytes held between steps", held - gradients, most);
    check((double)w.peak < most + gradients + ids, scheme, "most bytes held", (double)w.peak, most + gradients + ids);
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
    static const char *const schemes[] = {"csr", "block4", "block8", "block16", "punched8x4", "nm1:16", "nm1:16x4", "pattern"};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        for (int conv = 0; conv < 2; conv++) {
            if (!conv && !strcmp(schemes[i], "pattern")) /* it is for 3x3 kernels */
                continue;
            (conv ? write_convolutions : write_matrices)(path);
            run(path, conv, schemes[i], 0.95, "auto", false, "sgd", "mode=em,freq=1", 0.2);
            run(path, conv, schemes[i], 0.95, "scalar", true, "adamw", "mode=em,freq=1,exclude_just_removed=1", 0.2);
            run(path, conv, schemes[i], 0.95, "auto", true, "sgd", "mode=em,freq=1,lambda=0.1", 0.2);
            run(path, conv, schemes[i], 0.97, "auto", true, "sgd", "mode=ems,freq=1,bound=.02/.01/0", 0.4); /* the peak is the 95 % of the others */
            run(path, conv, schemes[i], 0.95, "auto", true, "sgd", "mode=vanilla,freq=1", 0.2);
        }
    /* whole channels: a fifth of the filters, and of what reads them; the large weight has a twenty-fifth then */
    write_convolutions(path);
    for (int by_inputs = 0; by_inputs < 2; by_inputs++) {
        const char *scheme = by_inputs ? "channel" : "filter";
        run(path, true, scheme, 0.8, "auto", false, "sgd", "mode=em,freq=1", 0);
        run(path, true, scheme, 0.8, "scalar", true, "adamw", "mode=em,freq=1,lambda=.1", 0);
        run(path, true, scheme, 0.85, "auto", true, "sgd", "mode=ems,freq=1,bound=.05/.02/0", 0);
        run(path, true, scheme, 0.8, "auto", true, "sgd", "mode=vanilla,freq=1", 0);
    }
    unlink(path);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}
