/* SPDX-License-Identifier: Apache-2.0 */
/* The table of layers: our sparse kernels beside the best dense library call for the same pass, in one process, on one thread, thread's processor
 * time. Prints rows of Markdown; ratios are dense / ours.
 *   layer_table [--isa avx512|avx2|scalar] [--layer TEXT] [--batch N]
 * avx2 holds the libraries to AVX2 as well (ONEDNN_MAX_CPU_ISA, OPENBLAS_CORETYPE), which takes a process of its own: the program runs itself again. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dense_libs.h"
#include "ops/nn.h"
#include "runtime/cpu.h"
#include "runtime/tune.h"

static const bench_layer layers[] = {
    {"3x3 16>16 32x32", 16, 16, 32, 3},   {"3x3 32>32 16x16", 32, 32, 16, 3},       {"3x3 64>64 8x8", 64, 64, 8, 3},          {"3x3 64>64 56x56", 64, 64, 56, 3},
    {"3x3 256>256 14x14", 256, 256, 14, 3}, {"1x1 64>256 56x56", 64, 256, 56, 1},   {"1x1 256>1024 14x14", 256, 1024, 14, 1}, {"fc 768>768", 768, 768, 1, 1},
};
static const char *const schemes[] = {"csr", "pattern", "block4", "block16"};
static const double sparsities[] = {0.5, 0.7, 0.8, 0.9, 0.95, 0.98};
static mest_heap heap;

/* Seconds of the fastest kernel of this instruction set for one pass, in any layout; 0: none. */
static double ours(const bench_layer *l, int64_t batch, bool backward, const mest_sparse *s, const char *isa, unsigned cpu, const char **which)
{
    const bool fc = l->size == 1;
    int64_t window[2] = {l->kernel, l->kernel}, ones[2] = {1, 1}, half = l->kernel / 2, pads[4] = {half, half, half, half};
    const mest_conv_params conv = {.kernel_shape = {2, window}, .strides = {2, ones}, .pads = {4, pads}, .dilations = {2, ones}, .group = 1};
    const mest_gemm_params gemm = {.alpha = 1, .beta = 1, .trans_b = 1};
    const int lanes[] = {0, 1, mest_cpu_lanes(cpu)};
    const char *name = fc ? (backward ? "mest.GemmGrad" : "Gemm") : backward ? "mest.ConvGrad" : "Conv";
    const mest_node node = {.name = l->name, .op = mest_op_find(backward ? "mest" : "", name, 25)};
    double best = 0;
    for (int k = 0; k < 3; k++) {
        mest_type x = {.dtype = MEST_F32}, y = x, w = x;
        x.shape = fc ? (mest_shape){.rank = 2, .dim = {batch, l->c}} : (mest_shape){.rank = 4, .dim = {batch, l->c, l->size, l->size}};
        y.shape = fc ? (mest_shape){.rank = 2, .dim = {batch, l->m}} : (mest_shape){.rank = 4, .dim = {batch, l->m, l->size, l->size}};
        w.shape = s->shape;
        w.layout.kind = MEST_SPARSE;
        if (lanes[k]) {
            x.layout = y.layout = (mest_layout){.kind = MEST_PIXEL, .v = (uint8_t)lanes[k]};
            x.layout.slots = mest_default_slots(l->c, lanes[k]);
            y.layout.slots = mest_default_slots(l->m, lanes[k]);
        }
        const mest_type *in[4] = {&x, &w, NULL, NULL}, *out[3] = {backward ? &x : &y, backward ? &w : NULL, NULL};
        const int dy = fc ? 3 : 2;
        if (backward)
            in[dy] = &y;
        const mest_sparse *patterns[4] = {NULL, s, NULL, NULL};
        const bool fixed[4] = {false};
        const void *data[4] = {NULL};
        const mest_kernel_query q = {.node = &node, .params = fc ? (const void *)&gemm : (const void *)&conv, .n_in = backward ? dy + 1 : 2, .n_out = backward ? 3 : 1, .in = in,
                                     .out = out, .sparse = patterns, .in_data = data, .in_fixed = fixed, .learns = backward, .cpu = cpu, .heap = &heap};
        for (int i = 0; mest_kernel_at(i); i++) {
            const mest_kernel *kernel = mest_kernel_at(i);
            const char *why = "";
            double seconds = 0;
            if (strcmp(kernel->op, name) || !strstr(kernel->name, isa) || !kernel->fits(&q, &why) || !mest_tune_time(&q, kernel, MEST_TUNE_FULL, &seconds))
                continue;
            if (best == 0 || seconds < best) {
                best = seconds;
                *which = kernel->name;
            }
        }
    }
    return best;
}

static double less(double a, double b) { return a == 0 || (b > 0 && b < a) ? b : a; }

static void one_layer(const bench_layer *l, int64_t batch, const char *isa, unsigned cpu)
{
    double dense[3];
    bool blas = false;
    for (int pass = 0; pass < 3; pass++) {
        const double a = onednn_seconds(l, batch, pass), b = openblas_seconds(l, batch, pass);
        dense[pass] = less(a, b);
        blas |= b > 0 && b < a;
    }
    const double positions = (double)(batch * l->size * l->size), all = (double)(l->m * l->c * l->kernel * l->kernel);
    printf("| %s, batch %" PRId64 " | dense%s | | %.0f GF/s | %.0f GF/s | | |\n", l->name, batch, blas ? " (OpenBLAS in part)" : "", 2e-9 * all * positions / dense[0],
           4e-9 * all * positions / (dense[1] + dense[2]));
    for (size_t k = 0; k < sizeof schemes / sizeof *schemes; k++)
        for (size_t i = 0; i < sizeof sparsities / sizeof *sparsities; i++) {
            const mest_shape shape = l->size == 1 ? (mest_shape){.rank = 2, .dim = {l->m, l->c}} : (mest_shape){.rank = 4, .dim = {l->m, l->c, l->kernel, l->kernel}};
            mest_error err = {0};
            mest_sparse *s = NULL;
            const char *forward_name = "", *backward_name = "";
            if (mest_sparse_create(&s, &heap, schemes[k], &shape, 0, &err) != MEST_OK)
                continue; /* not for this shape */
            if (sparsities[i] >= mest_sparse_least_sparsity(s) - 1e-9) {
                const int64_t units = mest_sparse_units_at(s, sparsities[i]);
                if (mest_sparse_reserve(s, units, &err) != MEST_OK || mest_sparse_from_random(s, units, 1, 1, 1.0, &err) != MEST_OK) {
                    fprintf(stderr, "%s\n", err.msg);
                    exit(1);
                }
                const double f = ours(l, batch, false, s, isa, cpu, &forward_name), b = ours(l, batch, true, s, isa, cpu, &backward_name);
                if (f > 0 && b > 0)
                    printf("| | %s | %.0f %% | %.2f | %.2f | **%.2f** | %s |\n", schemes[k], 100 * sparsities[i], dense[0] / f, (dense[1] + dense[2]) / b,
                           (dense[0] + dense[1] + dense[2]) / (f + b), forward_name);
            }
            mest_sparse_destroy(s);
            fflush(stdout);
        }
}

/* The libraries read the environment when they are loaded. */
static void begin_anew(char **argv, const char *isa)
{
    if (getenv("MEST_LAYER_TABLE"))
        return;
    setenv("MEST_LAYER_TABLE", "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    if (!strcmp(isa, "avx2")) {
        setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
        setenv("OPENBLAS_CORETYPE", "Haswell", 1);
    }
    execv("/proc/self/exe", argv);
    perror("layer_table");
    exit(1);
}

int main(int argc, char **argv)
{
    const char *isa = "avx512", *only = "";
    int64_t only_batch = 0;
    mest_error err = {0};
    unsigned cpu = 0;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--isa") && i + 1 < argc)
            isa = argv[++i];
        else if (!strcmp(argv[i], "--layer") && i + 1 < argc)
            only = argv[++i];
        else if (!strcmp(argv[i], "--batch") && i + 1 < argc)
            only_batch = strtoll(argv[++i], NULL, 10);
        else {
            fprintf(stderr, "layer_table [--isa avx512|avx2|scalar] [--layer TEXT] [--batch N]\n");
            return 2;
        }
    begin_anew(argv, isa);
    if (mest_cpu_limit(isa, &cpu, &err) != MEST_OK || mest_heap_init(&heap, NULL, NULL, NULL) != MEST_OK) {
        fprintf(stderr, "layer_table: %s\n", err.msg);
        return 2;
    }
    printf("<!-- %s; %s -->\n| layer | scheme | sparsity | forward | backward | step | forward kernel |\n| --- | --- | --- | --- | --- | --- | --- |\n", isa, dense_versions());
    for (int n = 0; n < 2; n++)
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
            const int64_t batch = n ? 1 : layers[i].size == 1 ? 197 : 16; /* a transformer's tokens */
            if (strstr(layers[i].name, only) && (only_batch == 0 || only_batch == batch))
                one_layer(&layers[i], batch, isa, cpu);
        }
    return heap.current_bytes != 0;
}
