/* SPDX-License-Identifier: Apache-2.0 */
/* Activations as bfloat16: rounding; less memory, the same loss in the first step, gradients within a bound, a run of ten steps that stays close; with recomputation or
 * another number of threads the same bits as without, and after a checkpoint. */
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/op.h"
#include "tests/memory/nets.h"

static int passed, failed, skipped;

static void check(bool ok, const net *n, const char *how, const char *what, double value)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s (%s): %s (%g)\n", n->name, how, what, value);
}

/* Through the operators: each bfloat16 comes back as it was; what lies between two goes to the nearer, halfway to the even one. */
static void rounding(void)
{
    enum { N = 0x10000 };
    static const net none = {.name = "rounding"};
    static float x[N], back[N];
    static uint16_t halves[N];
    const mest_type full = {.dtype = MEST_F32, .shape = {.rank = 1, .dim = {N}}}, half = {.dtype = MEST_BF16, .shape = {.rank = 1, .dim = {N}}};
    const mest_tensor a = {.type = &full, .data = x, .count = N}, b = {.type = &half, .data = halves, .count = N}, c = {.type = &full, .data = back, .count = N};
    const mest_op *store = mest_op_find("mest", "mest.StoreBf16", 1), *load = mest_op_find("mest", "mest.LoadBf16", 1);
    for (int between = 0; between < 4; between++) { /* the value itself; below the middle to the next; the middle; above it */
        static const uint32_t more[] = {0, 0x7fff, 0x8000, 0x8001};
        int wrong = 0;
        for (uint32_t i = 0; i < N; i++) {
            const uint32_t bits = i << 16 | more[between];
            memcpy(&x[i], &bits, sizeof bits);
        }
        const mest_args in = {.n_in = 1, .n_out = 1, .in = &a, .out = &b}, out = {.n_in = 1, .n_out = 1, .in = &b, .out = &c};
        check(store && load && store->forward(&in) == MEST_OK && load->forward(&out) == MEST_OK, &none, "operators", "failed", 0);
        for (uint32_t i = 0; i < N; i++) {
            const bool nan = x[i] != x[i], infinite = (i & 0x7fff) == 0x7f80;
            const uint32_t want = i + (between == 3 || (between == 2 && (i & 1)));
            wrong += nan ? back[i] == back[i] : !infinite && halves[i] != want;
            wrong += !between && !nan && memcmp(&x[i], &back[i], sizeof *x) != 0;
        }
        check(!wrong, &none, "rounding", "values that are not the nearest", wrong);
    }
}

static bool run(const net *n, const net_how *how, const char *name, net_result *r)
{
    const bool good = net_train(n, how, r) == MEST_OK;
    check(good, n, name, good ? "" : r->error.msg, 0);
    return good;
}

/* How far the first update is off, in units of that update: the error of the gradient, as the optimizer is plain descent. */
static double update_error(const net_result *a, const net_result *b, const net_result *start)
{
    double off = 0, all = 0;
    for (size_t i = 0; i < b->n_values && a->n_values == b->n_values && start->n_values == b->n_values; i++) {
        off += pow((double)a->values[i] - (double)b->values[i], 2);
        all += pow((double)b->values[i] - (double)start->values[i], 2);
    }
    return all > 0 ? sqrt(off / all) : INFINITY;
}

static void compare(const net *n, net_how how, const char *name)
{
    net_result start, full, half, again;
    how.plan_first = true;
    how.config.momentum = 0;
    how.samples = 16;
    how.epochs = 1; /* one step */
    how.config.lr = 0;
    bool good = run(n, &how, name, &start);
    how.config.lr = 0.5; /* the update must stand out from the weights it is added to */
    good = run(n, &how, name, &full) && good;
    how.config.activations = "bf16";
    good = run(n, &how, name, &half) && good;
    if (good) {
        check(half.loss == full.loss, n, name, "the loss of the first step is another", half.loss - full.loss);
        const double error = update_error(&half, &full, &start);
        /* with BatchNormalization, Relu's mask may be made again from the rounded input: some signs near zero flip, and a share f of them costs sqrt(f) */
        check(error < (n->batch_statistics ? 0.05 : 0.02), n, name, "the gradient is further off than rounding explains", error);
        printf("%s (%s): gradient off by %.2g, arena %.2g of that of floats\n", n->name, name, error, (double)half.memory.arena_bytes / (double)full.memory.arena_bytes);
        check(half.memory.activation_bytes <= full.memory.activation_bytes, n, name, "it does not need less", (double)half.memory.activation_bytes);
        const bool any = strstr(half.memory.chosen, "as bf16") != NULL;
        check(!any || error > 0, n, name, "nothing was rounded", error);
        check(!n->batch_statistics || n->shared || (double)half.memory.arena_bytes < 0.7 * (double)full.memory.arena_bytes, n, name, "the arena is hardly smaller",
              (double)half.memory.arena_bytes / (double)full.memory.arena_bytes);
        check((int64_t)half.peak <= half.memory.heap_bytes && half.now == 0, n, name, "memory is not as planned", (double)half.peak);
    }
    net_result_free(&start);
    net_result_free(&full);
    net_result_free(&half);
    how.config.lr = 0.02;
    how.config.momentum = 0.9;
    how.samples = 80;
    how.epochs = 2; /* ten steps */
    how.config.activations = "f32";
    good = run(n, &how, name, &full);
    how.config.activations = "bf16";
    good = run(n, &how, name, &half) && good;
    if (good) {
        check(fabs(half.loss - full.loss) <= 0.02 * fabs(full.loss), n, name, "ten steps end at another loss", half.loss / full.loss - 1);
        check(half.calls_in_steps == 0, n, name, "allocations in the steps", (double)half.calls_in_steps);
        how.config.recompute = "least";
        how.config.threads = 1;
        if (run(n, &how, name, &again))
            check(again.weights == half.weights, n, name, "recomputation and one thread give other bits", 0);
        net_result_free(&again);
    }
    net_result_free(&full);
    net_result_free(&half);
}

/* A limit that only they can obey: taken where it is allowed, and otherwise named in the refusal. */
static void limited(const net *n)
{
    net_how how;
    net_result full, half, r;
    net_how_init(&how);
    how.plan_first = true;
    how.epochs = 1;
    how.samples = how.config.batch = 64;
    how.config.recompute = "off";
    how.config.micro_batch = -1;
    bool good = run(n, &how, "limit", &full); /* first runs leave memory in this process */
    net_result_free(&full);
    good = run(n, &how, "limit", &full) && good;
    how.config.activations = "bf16";
    good = run(n, &how, "limit", &half) && good;
    check(half.memory.process_bytes + (1 << 20) < full.memory.process_bytes, n, "limit", "bf16 does not save 1 MiB", (double)(full.memory.process_bytes - half.memory.process_bytes));
    how.config.memory_limit = half.memory.process_bytes + (full.memory.process_bytes - half.memory.process_bytes) / 2;
    how.config.activations = "f32";
    check(good && net_train(n, &how, &r) == MEST_E_LIMIT && strstr(r.error.msg, "with activations bf16"), n, "limit", r.error.msg, 0);
    net_result_free(&r);
    how.config.activations = "auto";
    if (good && run(n, &how, "limit, auto", &r))
        check(r.weights == half.weights && strstr(r.memory.chosen, "as bf16"), n, "limit, auto", r.memory.chosen, 0);
    net_result_free(&r);
    net_result_free(&full);
    net_result_free(&half);
    how.config.activations = "f16";
    check(net_train(n, &how, &r) == MEST_E_ARGUMENT && strstr(r.error.msg, "f32, bf16, auto"), n, "config", r.error.msg, 0);
    net_result_free(&r);
}

/* A checkpoint knows of them: what it is resumed with must agree, and gives the bits of a run without a break. */
static void resume(const net *n)
{
    char file[] = "/tmp/mest-bf16-XXXXXX";
    const int fd = mkstemp(file);
    net_how how;
    net_result straight, first, second;
    net_how_init(&how);
    how.config.epochs = 2;
    how.config.loss = n->loss;
    how.config.activations = "bf16";
    check(fd >= 0 && net_half(n, &how.config, NULL, NULL, &straight) == MEST_OK, n, "resume", straight.error.msg, 0);
    check(net_half(n, &how.config, NULL, file, &first) == MEST_OK, n, "resume", first.error.msg, 0);
    for (int k = 0; k < 2; k++) {
        how.config.activations = k ? "auto" : "bf16"; /* auto: as it was */
        check(net_half(n, &how.config, file, NULL, &second) == MEST_OK && second.weights == straight.weights, n, "resume", second.error.msg, 0);
        net_result_free(&second);
    }
    how.config.activations = "f32";
    check(net_half(n, &how.config, file, NULL, &second) == MEST_E_STATE && strstr(second.error.msg, "activations are bf16"), n, "resume", second.error.msg, 0);
    net_result_free(&straight);
    net_result_free(&first);
    net_result_free(&second);
    if (fd >= 0)
        close(fd);
    (void)unlink(file);
}

int main(int argc, char **argv)
{
    char path[600];
    (void)mallopt(M_MMAP_THRESHOLD, 256 << 10); /* what is freed leaves the process, as with the library's own allocator */
    (void)mallopt(M_TRIM_THRESHOLD, 64 << 10);
    rounding();
    for (const net *n = nets; n->name; n++) {
        net_how how;
        if (argc > 1 && strcmp(argv[1], n->name))
            continue;
        if (!net_path(n, path, sizeof path)) {
            skipped++;
            continue;
        }
        net_how_init(&how);
        compare(n, how, "dense");
        how.scheme = "csr";
        how.config.kernels = "scalar";
        how.config.clip_norm = 1;
        if (!n->shared)
            compare(n, how, "csr, scalar");
        if (!strcmp(n->name, "residual") || !strcmp(n->name, "mixer"))
            limited(n);
        if (!n->shared)
            resume(n);
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? 1 : 0;
}
