/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel of mest.Recurrent and mest.RecurrentGrad, which have sparse weights, against the reference with the same weight kept densely:
 * random kinds, orders of gates, directions, sequence lengths, states, formats and densities, batches of several blocks and tiles; one and two
 * threads give the same bits; guards around outputs; scratch is not a number to begin with.
 *   recurrent [SEED [CASES]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/recurrent.h"
#include "runtime/cpu.h"
#include "runtime/kernel.h"

enum { GUARD = 32, INS = 9, OUTS = 6 };
static int passed, failed;
static uint64_t state = 1;
static mest_heap heap;

static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 40) / (double)(1 << 24) * 2 - 1;
}
static int64_t pick(int64_t from, int64_t to) { return from + (int64_t)((uniform() + 1) / 2 * (double)(to - from + 1)) % (to - from + 1); }

typedef struct buffer { mest_type type; mest_real *raw, *data; size_t n; } buffer;

static void make(buffer *b, const mest_type *type, size_t n)
{
    *b = (buffer){.type = *type, .n = n, .raw = calloc(n + 2 * GUARD, sizeof(mest_real))};
    if (!b->raw)
        exit(2);
    for (size_t i = 0; i < n + 2 * GUARD; i++)
        b->raw[i] = -777;
    b->data = b->raw + GUARD;
}
static void make_dims(buffer *b, mest_dtype dtype, int rank, const int64_t *dim)
{
    mest_type t = {.dtype = dtype, .shape = {.rank = rank}};
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= t.shape.dim[i] = dim[i];
    make(b, &t, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        b->data[i] = (mest_real)uniform();
}
static void drop(buffer *b)
{
    free(b->raw);
    *b = (buffer){.raw = NULL};
}

typedef struct problem {
    mest_recurrent_params p;
    mest_node node;
    mest_id ids[OUTS];
    buffer in[INS], out[OUTS];
    int n_in, n_out, r;         /* r: input that is R */
    bool wanted[OUTS];
} problem;

static void call(const problem *x, const mest_sparse *sparse, const mest_kernel *kernel, void *kernel_state, void *scratch, const mest_threads *threads)
{
    mest_tensor in[INS] = {{0}}, out[OUTS] = {{0}};
    mest_error err = {0};
    for (int i = 0; i < x->n_in && i < INS; i++)
        if (x->in[i].raw)
            in[i] = (mest_tensor){.type = &x->in[i].type, .data = i == x->r && sparse ? sparse->values : x->in[i].data, .count = x->in[i].n,
                                  .sparse = i == x->r ? (mest_sparse *)(uintptr_t)sparse : NULL};
    for (int i = 0; i < x->n_out && i < OUTS; i++)
        if (x->wanted[i])
            out[i] = (mest_tensor){.type = &x->out[i].type, .data = x->out[i].data, .count = x->out[i].n};
    mest_args a = {.node = &x->node, .params = &x->p, .n_in = x->n_in, .n_out = x->n_out, .in = in, .out = out, .state = kernel_state, .scratch = scratch,
                   .threads = threads, .err = &err};
    if ((kernel ? kernel->run(&a) : x->node.op->forward(&a)) != MEST_OK) {
        printf("FAIL %s: %s\n", kernel ? kernel->name : "reference", err.msg);
        failed++;
    }
}

/* Output types from the operator's rule, R sparse or not; fresh buffers. */
static void make_outputs(problem *x, const mest_sparse *sparse)
{
    const mest_type *in[INS] = {0};
    const void *data[INS] = {0};
    mest_type out[OUTS] = {{0}};
    mest_error err = {0};
    for (int i = 0; i < x->n_in && i < INS; i++)
        in[i] = x->in[i].raw ? &x->in[i].type : NULL;
    x->in[x->r].type.layout.kind = sparse ? MEST_SPARSE : MEST_PLAIN;
    mest_infer c = {.node = &x->node, .params = &x->p, .n_in = x->n_in, .n_out = x->n_out, .in = in, .in_data = data, .out = out, .err = &err};
    if (x->node.op->infer(&c) != MEST_OK) {
        printf("FAIL %s\n", err.msg);
        exit(1);
    }
    for (int i = 0; i < x->n_out; i++) {
        int64_t n = 1;
        (void)mest_shape_count(&out[i].shape, &n);
        make(&x->out[i], &out[i], out[i].layout.kind == MEST_SPARSE ? (size_t)sparse->stored : (size_t)n);
    }
}

static const mest_kernel *kernel_for(const char *op, unsigned cpu)
{
    for (int i = 0; mest_kernel_at(i); i++)
        if (!strcmp(mest_kernel_at(i)->op, op) && !(mest_kernel_at(i)->cpu & ~cpu))
            return mest_kernel_at(i);
    return NULL;
}

static void run_kernel(problem *x, const mest_sparse *sparse, unsigned cpu, const mest_threads *threads, mest_derived *derived)
{
    const mest_kernel *k = kernel_for(x->node.op->name, cpu);
    const mest_type *in[INS] = {0}, *out[OUTS] = {0};
    const mest_sparse *of[INS] = {0};
    for (int i = 0; i < x->n_in && i < INS; i++)
        in[i] = x->in[i].raw ? &x->in[i].type : NULL;
    for (int i = 0; i < x->n_out && i < OUTS; i++)
        out[i] = x->wanted[i] ? &x->out[i].type : NULL;
    of[x->r] = sparse;
    mest_kernel_query q = {.node = &x->node, .params = &x->p, .n_in = x->n_in, .n_out = x->n_out, .in = in, .out = out, .sparse = of, .cpu = cpu, .threads = threads,
                           .heap = &heap, .derived = derived};
    void *kernel_state = NULL;
    size_t bytes = 0;
    mest_error err = {0};
    const char *why = "";
    if (!k || !k->fits(&q, &why) || k->prepare(&q, &kernel_state, &bytes, &err) != MEST_OK) {
        printf("FAIL no kernel: %s %s\n", why, err.msg);
        exit(1);
    }
    char *scratch = aligned_alloc(64, bytes / 64 * 64 + 128);
    if (!scratch)
        exit(2);
    memset(scratch, 0xff, bytes / 64 * 64 + 128);
    call(x, sparse, k, kernel_state, scratch, threads);
    for (size_t i = bytes; i < bytes / 64 * 64 + 128; i++)
        if (scratch[i] != (char)0xff) {
            printf("FAIL %s: wrote behind its scratch\n", k->name);
            failed++;
            break;
        }
    free(scratch);
    k->release(kernel_state, &heap);
}

/* The kernel's outputs (in x->out) against the reference's, which sit in want. */
static void compare(const problem *x, const buffer *want, const mest_sparse *sparse, const char *what)
{
    int64_t *at = malloc((size_t)(sparse->stored + 1) * sizeof *at);
    if (!at)
        exit(2);
    mest_sparse_coords(sparse, 0, sparse->stored, at);
    bool ok = true;
    double worst = 0;
    for (int i = 1; i < x->n_out; i++) {
        double scale = 1; /* of the output as a whole: sums may cancel */
        for (size_t e = 0; x->wanted[i] && e < want[i].n; e++)
            scale = fmax(scale, fabs((double)want[i].data[e]));
        for (size_t e = 0; x->wanted[i] && e < x->out[i].n; e++) {
            const bool entry = x->out[i].type.layout.kind == MEST_SPARSE;
            const double b = entry ? (at[e] < 0 ? 0 : (double)want[i].data[at[e]]) : (double)want[i].data[e], d = fabs((double)x->out[i].data[e] - b) / scale;
            worst = d > worst || isnan(d) ? d : worst;
        }
        for (size_t g = 0; g < GUARD; g++)
            ok &= x->out[i].raw[g] == -777 && x->out[i].raw[GUARD + x->out[i].n + g] == -777;
    }
    ok &= worst <= (MEST_REAL_IS_DOUBLE ? 1e-12 : 2e-5);
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s: worst %.3g%s\n", what, worst, worst < 1e-5 ? ", or a guard" : "");
    free(at);
}

static void one_case(const mest_threads *two, unsigned cpu)
{
    static const char *const formats[] = {"csr", "block2", "block4", "block8"};
    static const int gates[] = {4, 3, 1};
    static problem x, g;
    mest_error err = {0};
    mest_threads one = {.n = 1};
    memset(&x, 0, sizeof x);
    const int kind = (int)pick(0, 2), G = gates[kind];
    const int64_t t = pick(1, 6), n = pick(1, pick(0, 1) ? 20 : 75), h = pick(1, pick(0, 1) ? 8 : 40), gh = G * h, twice = pick(0, 3) == 0;
    x.p = (mest_recurrent_params){.kind = (mest_rnn_kind)kind, .reverse = pick(0, 1), .linear_before_reset = true, .relu = pick(0, 1), .first = twice && pick(0, 1) ? gh : 0};
    for (int i = 0; i < G; i++)
        x.p.order[i] = i;
    for (int i = G - 1; i > 0; i--) {
        const int64_t k = pick(0, i);
        const int32_t old = x.p.order[i];
        x.p.order[i] = x.p.order[k];
        x.p.order[k] = old;
    }
    /* R with its zeros */
    const mest_shape shape = {.rank = 2, .dim = {gh * (twice ? 2 : 1), h}};
    mest_sparse *sparse = NULL;
    mest_derived *derived = NULL;
    if (mest_sparse_create(&sparse, &heap, formats[pick(0, 3)], &shape, 0, &err) != MEST_OK || mest_sparse_reserve(sparse, sparse->n_units, &err) != MEST_OK ||
        mest_sparse_from_random(sparse, pick(0, sparse->n_units), 7, (uint64_t)pick(0, 1000), 0.8, &err) != MEST_OK || mest_derived_create(&derived, &heap, &err) != MEST_OK) {
        printf("FAIL %s\n", err.msg);
        exit(1);
    }
    x.node = (mest_node){.name = "case", .op = mest_op_find("mest", "mest.Recurrent", 1), .out = x.ids};
    x.r = MEST_RECUR_R;
    x.n_in = kind == MEST_LSTM ? 6 : 5;
    x.n_out = kind == MEST_LSTM ? 4 : 3;
    make_dims(&x.in[MEST_RECUR_P], MEST_F32, 3, (int64_t[]){t, n, gh});
    make_dims(&x.in[MEST_RECUR_R], MEST_F32, 2, shape.dim);
    int64_t *at = malloc((size_t)(sparse->stored + 1) * sizeof *at);
    if (!at)
        exit(2);
    mest_sparse_coords(sparse, 0, sparse->stored, at);
    memset(x.in[MEST_RECUR_R].data, 0, x.in[MEST_RECUR_R].n * sizeof(mest_real));
    for (int64_t i = 0; i < sparse->stored; i++)
        if (at[i] >= 0)
            x.in[MEST_RECUR_R].data[at[i]] = sparse->values[i];
    free(at);
    if (pick(0, 1))
        make_dims(&x.in[MEST_RECUR_B], MEST_F32, 2, (int64_t[]){1, 2 * gh});
    if (pick(0, 2) == 0) {
        make_dims(&x.in[MEST_RECUR_LENS], MEST_I32, 1, &n);
        for (int64_t i = 0; i < n; i++)
            ((int32_t *)x.in[MEST_RECUR_LENS].data)[i] = (int32_t)pick(0, t);
    }
    for (int i = MEST_RECUR_H0; i < x.n_in; i++)
        if (pick(0, 1))
            make_dims(&x.in[i], MEST_F32, 3, (int64_t[]){1, n, h});
    for (int i = 0; i < x.n_out; i++)
        x.wanted[i] = i < 2 || pick(0, 1);
    buffer want[OUTS], grads[OUTS];
    make_outputs(&x, NULL);
    call(&x, NULL, NULL, NULL, NULL, &one);
    memcpy(want, x.out, sizeof want);
    /* the gradient's inputs: R B lens h0 c0 workspace dY dYh dYc */
    g = x;
    g.node.op = mest_op_find("mest", "mest.RecurrentGrad", 1);
    g.r = MEST_RECUR_GRAD_R;
    g.n_in = INS;
    g.n_out = kind == MEST_LSTM ? 6 : 5;
    g.p.t = t;
    g.p.n = n;
    memset(g.in, 0, sizeof g.in);
    memcpy(g.in, x.in + 1, 5 * sizeof *g.in);
    g.in[MEST_RECUR_GRAD_WS] = want[0];
    make_dims(&g.in[MEST_RECUR_GRAD_DY], MEST_F32, 4, (int64_t[]){t, 1, n, h});
    for (int i = MEST_RECUR_GRAD_DYH; i < (kind == MEST_LSTM ? INS : INS - 1); i++)
        if (pick(0, 1))
            make_dims(&g.in[i], MEST_F32, 3, (int64_t[]){1, n, h});
    for (int i = 0; i < g.n_out; i++)
        g.wanted[i] = i == 0 || pick(0, 4) > 0;
    make_outputs(&g, NULL);
    call(&g, NULL, NULL, NULL, NULL, &one);
    memcpy(grads, g.out, sizeof grads);
    static const unsigned levels[] = {~0u, MEST_CPU_AVX2, 0};
    for (int level = 0; level < 3; level++) {
        const unsigned mask = cpu & levels[level];
        buffer before[2][OUTS];
        for (int threads = 2; threads > 0; threads--) {
            char what[80];
            snprintf(what, sizeof what, "%s, features %x, %d threads", (const char *[]){"LSTM", "GRU", "RNN"}[kind], mask, threads);
            make_outputs(&x, sparse);
            run_kernel(&x, sparse, mask, threads == 2 ? two : &one, derived);
            compare(&x, want, sparse, what);
            g.in[MEST_RECUR_GRAD_WS] = x.out[0];
            make_outputs(&g, sparse);
            run_kernel(&g, sparse, mask, threads == 2 ? two : &one, derived);
            compare(&g, grads, sparse, what);
            for (int side = 0; side < 2; side++)
                for (int i = side ? 1 : 0; i < (side ? g.n_out : x.n_out); i++) {
                    buffer *b = side ? &g.out[i] : &x.out[i];
                    if (threads == 2) {
                        before[side][i] = *b;
                        continue;
                    }
                    if (i > 0 && memcmp(before[side][i].data, b->data, b->n * sizeof *b->data) != 0) {
                        printf("FAIL %s: other bits than with two\n", what);
                        failed++;
                    }
                    drop(&before[side][i]);
                    drop(b);
                }
            drop(&g.out[0]);
        }
    }
    for (int i = 0; i < x.n_in; i++)
        drop(&x.in[i]);
    for (int i = MEST_RECUR_GRAD_DY; i < INS; i++)
        drop(&g.in[i]);
    for (int i = 0; i < OUTS; i++) {
        if (i < x.n_out)
            drop(&want[i]);
        if (i < g.n_out)
            drop(&grads[i]);
    }
    mest_derived_destroy(derived);
    mest_sparse_destroy(sparse);
}

int main(int argc, char **argv)
{
    mest_threads two;
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : 20260402u;
    const int cases = argc > 2 ? atoi(argv[2]) : 100;
    if (mest_heap_init(&heap, NULL, NULL, NULL) != MEST_OK || mest_threads_create(&two, 2, NULL) != MEST_OK)
        return 2;
    for (int i = 0; i < cases; i++)
        one_case(&two, mest_cpu_features());
    mest_threads_destroy(&two);
    if (heap.current_bytes) {
        printf("FAIL %ld bytes leaked\n", (long)heap.current_bytes);
        failed++;
    }
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}
