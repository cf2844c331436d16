/* SPDX-License-Identifier: Apache-2.0 */
/* Speed of the batch-lane kernels layer by layer: csr and block4 at several sparsities beside our own dense kernel in the same layout and
 * XNNPACK's convolution (forward), all in one process on one thread. GF/s count the non-zeros only; ratios are dense time / sparse time.
 *   kernel_layers [--isa NAME] [--layer TEXT] [--batch N] [--cpu-time] [--full] */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mest_config.h"
#include "ops/nn.h"
#include "runtime/cpu.h"
#include "runtime/kernel.h"
#if MEST_HAVE_XNNPACK
#include <xnnpack.h>
#endif

typedef struct layer { const char *name; int64_t c, m, size, kernel, stride; } layer;
static const layer layers[] = {
    {"3x3 16>16 32x32", 16, 16, 32, 3, 1},   {"3x3 32>32 16x16", 32, 32, 16, 3, 1},     {"3x3 64>64 8x8", 64, 64, 8, 3, 1},
    {"3x3 64>64 56x56", 64, 64, 56, 3, 1},   {"3x3 256>256 14x14", 256, 256, 14, 3, 1}, {"1x1 64>256 56x56", 64, 256, 56, 1, 1},
    {"1x1 256>1024 14x14", 256, 1024, 14, 1, 1}, {"3x3 s2 32>64 16x16", 32, 64, 16, 3, 2}, {"fc 768>768", 768, 768, 1, 1, 1},
};
static mest_heap heap;
static double min_seconds = 0.015;

static clockid_t clock_used = CLOCK_MONOTONIC;

static double now(void)
{
    struct timespec t;
    clock_gettime(clock_used, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static float draw(void)
{
    static uint32_t s = 1;
    s = s * 1664525u + 1013904223u;
    return (float)(s >> 8) / 8388608.0f - 1.0f;
}
static void *get(size_t bytes)
{
    void *p = mest_calloc(&heap, bytes ? bytes : 1, 1);
    if (!p) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return p;
}

/* Shortest time of one call, repeated for at least min_seconds. */
static double time_of(void (*call)(void *), void *context)
{
    double best = 1e9, start = now();
    call(context); /* lists, caches */
    for (int n = 0; n < 3 || (now() - start < min_seconds && n < 1000); n++) {
        double t = now();
        call(context);
        t = now() - t;
        best = t < best ? t : best;
    }
    return best;
}

typedef struct call { const mest_kernel *k; mest_args a; } call;
static void run(void *context)
{
    call *c = context;
    if (c->k->run(&c->a) != MEST_OK)
        exit(1);
}

static const mest_kernel *find(const char *op, const char *isa)
{
    for (int i = 0; mest_kernel_at(i); i++)
        if (!strcmp(mest_kernel_at(i)->op, op) && strstr(mest_kernel_at(i)->name, "_lanes_") && strstr(mest_kernel_at(i)->name, isa))
            return mest_kernel_at(i);
    return NULL;
}

static mest_real *tensor(const mest_type *t)
{
    int64_t n = 0;
    if (!mest_type_storage(t, &n))
        exit(1);
    mest_real *p = get((size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++)
        p[i] = (mest_real)draw();
    mest_pixel_clear_halo(t, p);
    return p;
}
static void untensor(const mest_type *t, mest_real *p)
{
    int64_t n = 0;
    if (mest_type_storage(t, &n))
        mest_free(&heap, p, n ? (size_t)n * sizeof *p : 1, 1);
}

/* Forward and backward seconds of one layer; format NULL: dense. Returns stored entries, 0 if no kernel serves it. */
static int64_t measure(const layer *l, int64_t batch, int v, const char *isa, const char *format, double sparsity, double *forward, double *backward)
{
    const bool fc = l->size == 1;
    int64_t kernel_shape[2] = {l->kernel, l->kernel}, strides[2] = {l->stride, l->stride}, dilations[2] = {1, 1}, half = l->kernel / 2,
            pads[4] = {half, half, half, half}, out = (l->size + 2 * half - l->kernel) / l->stride + 1;
    const mest_conv_params conv = {.kernel_shape = {2, kernel_shape}, .strides = {2, strides}, .pads = {4, pads}, .dilations = {2, dilations}, .group = 1};
    const mest_gemm_params gemm = {.alpha = 1, .beta = 1, .trans_b = 1};
    const void *params = fc ? (const void *)&gemm : (const void *)&conv;
    mest_type x = {.dtype = MEST_F32, .layout = {.kind = MEST_PIXEL, .v = (uint8_t)v}}, y = x, w = {.dtype = MEST_F32};
    x.shape = fc ? (mest_shape){.rank = 2, .dim = {batch, l->c}} : (mest_shape){.rank = 4, .dim = {batch, l->c, l->size, l->size}};
    y.shape = fc ? (mest_shape){.rank = 2, .dim = {batch, l->m}} : (mest_shape){.rank = 4, .dim = {batch, l->m, out, out}};
    w.shape = fc ? (mest_shape){.rank = 2, .dim = {l->m, l->c}} : (mest_shape){.rank = 4, .dim = {l->m, l->c, l->kernel, l->kernel}};
    w.layout.kind = format ? MEST_SPARSE : MEST_PLAIN;
    x.layout.slots = mest_default_slots(l->c, v);
    y.layout.slots = mest_default_slots(l->m, v);
    mest_error err = {0};
    mest_sparse *s = NULL;
    mest_derived *derived = NULL;
    int64_t dense = l->m * l->c * l->kernel * l->kernel, entries = dense;
    mest_real *values = NULL;
    if (mest_derived_create(&derived, &heap, &err) != MEST_OK)
        exit(1);
    if (format) {
        int64_t height = !strcmp(format, "block4") ? 4 : 1, units = (int64_t)((1 - sparsity) * (double)(dense / height) + 0.5);
        if (mest_sparse_create(&s, &heap, format, &w.shape, units, &err) != MEST_OK ||
            mest_sparse_from_random(s, units, 1, 1, 1.0, &err) != MEST_OK) {
            fprintf(stderr, "%s\n", err.msg);
            exit(1);
        }
        entries = s->stored;
    } else {
        values = get((size_t)dense * sizeof *values);
        for (int64_t i = 0; i < dense; i++)
            values[i] = (mest_real)draw();
    }
    int64_t served = entries;
    double *seconds[2] = {forward, backward};
    for (int pass = 0; pass < 2; pass++) {
        call c = {.k = find(pass ? (fc ? "mest.GemmGrad" : "mest.ConvGrad") : fc ? "Gemm" : "Conv", isa)};
        const int dy_in = fc ? 3 : 2, n_in = pass ? dy_in + 1 : 2;
        mest_type xt = x, yt = y;
        const mest_type *in[4] = {&xt, &w, NULL, NULL}, *outs[3] = {&yt, NULL, NULL};
        if (pass) {
            in[dy_in] = &yt;
            outs[0] = &xt;
            outs[1] = &w;
        }
        const mest_sparse *patterns[4] = {NULL, s, NULL, NULL};
        const bool fixed[4] = {false, false, false, false};
        const void *data[4] = {NULL, NULL, NULL, NULL};
        const mest_op op = {.name = c.k ? c.k->op : ""};
        const mest_node node = {.name = l->name, .op = &op};
        mest_kernel_query q = {.node = &node, .params = params, .n_in = n_in, .n_out = pass ? 3 : 1, .in = in, .out = outs, .sparse = patterns,
                               .in_data = data, .in_fixed = fixed, .cpu = ~0u, .heap = &heap, .derived = derived};
        const char *why = "";
        if (!c.k || !c.k->fits(&q, &why)) {
            served = 0;
            break;
        }
        for (int i = 0; i < n_in; i++) {
            uint8_t pad[4] = {0, 0, 0, 0};
            mest_type *t = in[i] == &xt ? &xt : in[i] == &yt ? &yt : NULL;
            c.k->halo(&q, i, pad);
            if (t) {
                t->layout.top = pad[0];
                t->layout.left = pad[1];
                t->layout.bottom = pad[2];
                t->layout.right = pad[3];
            }
        }
        void *state = NULL;
        size_t scratch_bytes = 0;
        if (c.k->prepare(&q, &state, &scratch_bytes, &err) != MEST_OK) {
            fprintf(stderr, "%s\n", err.msg);
            exit(1);
        }
        mest_real *bx = tensor(&xt), *by = tensor(&yt), *bd = tensor(&xt), *dw = get((size_t)dense * sizeof *dw);
        void *scratch = get(scratch_bytes + 64);
        mest_tensor tin[4], tout[3];
        memset(tin, 0, sizeof tin);
        memset(tout, 0, sizeof tout);
        tin[0] = (mest_tensor){.type = &xt, .data = bx};
        tin[1] = (mest_tensor){.type = &w, .data = s ? s->values : values, .sparse = s};
        tout[0] = (mest_tensor){.type = pass ? &xt : &yt, .data = pass ? bd : by};
        if (pass) {
            tin[dy_in] = (mest_tensor){.type = &yt, .data = by};
            tout[1] = (mest_tensor){.type = &w, .data = dw, .sparse = s};
        }
        c.a = (mest_args){.node = &node, .params = params, .n_in = n_in, .n_out = q.n_out, .in = tin, .out = tout, .state = state, .scratch = scratch, .err = &err};
        *seconds[pass] = time_of(run, &c);
        c.k->release(state, &heap);
        untensor(&xt, bx);
        untensor(&yt, by);
        untensor(&xt, bd);
        mest_free(&heap, dw, (size_t)dense * sizeof *dw, 1);
        mest_free(&heap, scratch, scratch_bytes + 64, 1);
    }
    if (values)
        mest_free(&heap, values, (size_t)dense * sizeof *values, 1);
    mest_derived_destroy(derived);
    mest_sparse_destroy(s);
    return served;
}

#if MEST_HAVE_XNNPACK
static void run_xnn(void *context)
{
    if (xnn_run_operator(context, NULL) != xnn_status_success)
        exit(1);
}
static double xnn_forward(const layer *l, int64_t batch)
{
    uint32_t k = (uint32_t)l->kernel, half = k / 2, stride = (uint32_t)l->stride;
    int64_t out = (l->size + 2 * half - k) / stride + 1;
    size_t nw = (size_t)(l->m * l->c * k * k), nx = (size_t)(batch * l->size * l->size * l->c) + 64, ny = (size_t)(batch * out * out * l->m) + 64;
    float *w = get(nw * 4), *x = get(nx * 4), *y = get(ny * 4);
    for (size_t i = 0; i < nw; i++)
        w[i] = draw();
    for (size_t i = 0; i < nx; i++)
        x[i] = draw();
    xnn_operator_t op = NULL;
    double seconds = 0;
    if (xnn_create_convolution2d_nhwc_f32(half, half, half, half, k, k, stride, stride, 1, 1, 1, (size_t)l->c, (size_t)l->m, (size_t)l->c, (size_t)l->m,
                                          w, NULL, -INFINITY, INFINITY, 0, &op) == xnn_status_success &&
        xnn_setup_convolution2d_nhwc_f32(op, (size_t)batch, (size_t)l->size, (size_t)l->size, x, y, NULL) == xnn_status_success)
        seconds = time_of(run_xnn, op);
    xnn_delete_operator(op);
    mest_free(&heap, w, nw * 4, 1);
    mest_free(&heap, x, nx * 4, 1);
    mest_free(&heap, y, ny * 4, 1);
    return seconds;
}
#endif

static void line(const char *name, const char *scheme, double sparsity, int64_t entries, double positions, double f, double b, double df, double db, double xnn)
{
    double macs = (double)entries * positions;
    printf("%-20s %-7s %4.0f %% | %8.3f ms %6.1f GF/s | %8.3f ms %6.1f GF/s | %5.2f %5.2f %5.2f |", name, scheme, sparsity * 100, f * 1e3,
           2e-9 * macs / f, b * 1e3, 4e-9 * macs / b, df / f, db / b, (df + db) / (f + b));
    if (xnn > 0)
        printf(" %5.2f\n", xnn / f);
    else
        printf("     -\n");
}

int main(int argc, char **argv)
{
    const char *isa = "", *only = "";
    bool full = false;
    int64_t only_batch = 0;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--isa") && i + 1 < argc)
            isa = argv[++i];
        else if (!strcmp(argv[i], "--layer") && i + 1 < argc)
            only = argv[++i];
        else if (!strcmp(argv[i], "--batch") && i + 1 < argc)
            only_batch = strtoll(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--cpu-time")) /* on a machine with other work: time of this thread, not of the clock */
            clock_used = CLOCK_THREAD_CPUTIME_ID;
        else if (!strcmp(argv[i], "--full"))
            full = true;
        else {
            fprintf(stderr, "kernel_layers [--isa avx512|avx2|neon|scalar] [--layer TEXT] [--batch N] [--cpu-time] [--full]\n");
            return 2;
        }
    if (mest_heap_init(&heap, NULL, NULL, NULL) != MEST_OK)
        return 1;
#if MEST_HAVE_XNNPACK
    if (xnn_initialize(NULL) != xnn_status_success)
        return 1;
#endif
    if (!*isa) { /* the best this processor has */
        unsigned cpu = mest_cpu_features();
        isa = cpu & MEST_CPU_AVX512 ? "avx512" : cpu & MEST_CPU_AVX2 ? "avx2" : cpu & MEST_CPU_NEON ? "neon" : "scalar";
    }
    const int v = !strcmp(isa, "avx512") ? 16 : !strcmp(isa, "avx2") ? 8 : 4;
    static const double all[] = {0.5, 0.7, 0.8, 0.9, 0.95, 0.98}, few[] = {0.5, 0.9, 0.98};
    const double *sparsities = full ? all : few;
    if (full)
        min_seconds = 0.1;
    for (int n = 0; n < (only_batch > 0 ? 1 : 2); n++) {
        const int64_t batch = only_batch > 0 ? only_batch : n ? 1 : 16;
        printf("\n%s, batch %" PRId64 ", 1 thread: forward, backward (dX and dW); ratios to dense in the same layout: forward, backward, step; to XNNPACK: forward\n",
               isa, batch);
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
            layer l = layers[i];
            if (!strstr(l.name, only))
                continue;
            const bool fc = l.size == 1;
            const int64_t b = fc && batch > 1 ? 197 : batch; /* a transformer's tokens */
            int64_t out = (l.size + 2 * (l.kernel / 2) - l.kernel) / l.stride + 1;
            double df = 1, db = 1, xnn = 0, positions = (double)(b * out * out);
#if MEST_HAVE_XNNPACK
            xnn = xnn_forward(&l, b);
#endif
            int64_t entries = measure(&l, b, v, isa, NULL, 0, &df, &db);
            if (!entries) {
                printf("%-20s no kernel\n", l.name);
                continue;
            }
            line(l.name, "dense", 0, entries, positions, df, db, df, db, xnn);
            for (int k = 0; k < (full ? 6 : 3); k++)
                for (int scheme = 0; scheme < 2; scheme++) {
                    double f = 1, bw = 1;
                    const char *format = scheme ? "block4" : "csr";
                    entries = measure(&l, b, v, isa, format, sparsities[k], &f, &bw);
                    if (entries)
                        line(l.name, format, sparsities[k], entries, positions, f, bw, df, db, xnn);
                }
        }
    }
    return 0;
}
