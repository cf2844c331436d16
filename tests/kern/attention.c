/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel of mest.Attention and mest.AttentionGrad against the reference: random sizes, masks of both kinds in every form of broadcast,
 * causal, fill, dropout, shared heads, heads side by side; one and two threads give the same bits; guards around outputs.
 *   attention [SEED [CASES]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/attention.h"
#include "runtime/cpu.h"
#include "runtime/kernel.h"

enum { GUARD = 32, MANY = 8 };
static int passed, failed;
static uint64_t state = 1;

static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 40) / (double)(1 << 24) * 2 - 1;
}
static int64_t pick(int64_t from, int64_t to) { return from + (int64_t)((uniform() + 1) / 2 * (double)(to - from + 1)) % (to - from + 1); }

typedef struct buffer { mest_type type; mest_tensor t; mest_real *raw; size_t n; } buffer;

static void make(buffer *b, mest_dtype dtype, const mest_shape *shape)
{
    int64_t n = 0;
    *b = (buffer){.type = {.dtype = dtype, .shape = *shape}};
    if (!mest_shape_count(shape, &n) || !(b->raw = calloc((size_t)n + 2 * GUARD, sizeof *b->raw)))
        exit(2);
    b->n = (size_t)n;
    for (size_t i = 0; i < b->n + 2 * GUARD; i++)
        b->raw[i] = -777;
    b->t = (mest_tensor){.type = &b->type, .data = b->raw + GUARD, .count = b->n};
}

static void fill(buffer *b)
{
    for (size_t i = 0; i < b->n; i++) {
        if (b->type.dtype == MEST_BOOL)
            ((uint8_t *)b->t.data)[i] = uniform() > -0.4;
        else
            ((mest_real *)b->t.data)[i] = (mest_real)uniform();
    }
}

static bool intact(const buffer *b)
{
    bool ok = true;
    for (size_t i = 0; i < GUARD; i++)
        ok &= b->raw[i] == -777 && b->raw[GUARD + b->n + i] == -777;
    return ok;
}

typedef struct problem {
    mest_attention_params p;
    mest_node node;
    buffer in[7], out[4], want[4];
    int n_in, n_out, first; /* first: of the outputs that are compared */
    bool wanted[4];
} problem;

static void call(const problem *x, buffer *out, const mest_kernel *kernel, void *scratch, const mest_threads *threads)
{
    mest_tensor in[7] = {{0}}, to[4] = {{0}};
    mest_error err = {0};
    mest_run run = {.seed = 5, .step = 3};
    for (int i = 0; i < x->n_in; i++)
        if (x->in[i].raw)
            in[i] = x->in[i].t;
    for (int i = 0; i < x->n_out; i++)
        if (x->wanted[i])
            to[i] = out[i].t;
    mest_args a = {.node = &x->node, .params = &x->p, .n_in = x->n_in, .n_out = x->n_out, .in = in, .out = to, .scratch = scratch, .threads = threads, .run = &run, .err = &err};
    if ((kernel ? kernel->run(&a) : x->node.op->forward(&a)) != MEST_OK) {
        printf("FAIL %s: %s\n", kernel ? kernel->name : "reference", err.msg);
        failed++;
    }
}

/* Kernels against x->want, which holds the reference's results. */
static void compare(problem *x, mest_heap *heap, const mest_threads *two, unsigned cpu)
{
    for (int i = 0; mest_kernel_at(i); i++) {
        const mest_kernel *k = mest_kernel_at(i);
        if (strcmp(k->op, x->node.op->name) || (k->cpu & ~cpu))
            continue;
        const mest_type *in[7] = {0}, *out[4] = {0};
        const mest_sparse *none[7] = {0};
        for (int n = 0; n < x->n_in; n++)
            in[n] = x->in[n].raw ? &x->in[n].type : NULL;
        for (int n = 0; n < x->n_out; n++)
            out[n] = x->wanted[n] ? &x->out[n].type : NULL;
        const char *why = "";
        buffer before[4];
        for (int threads = 2; threads > 0; threads--) {
            mest_threads one = {.n = 1};
            mest_kernel_query q = {.node = &x->node, .params = &x->p, .n_in = x->n_in, .n_out = x->n_out, .in = in, .out = out, .sparse = none, .cpu = cpu,
                                   .threads = threads == 2 ? two : &one, .heap = heap};
            void *kernel_state = NULL;
            size_t bytes = 0;
            mest_error err = {0};
            if (!k->fits(&q, &why) || k->prepare(&q, &kernel_state, &bytes, &err) != MEST_OK)
                exit(2);
            char *scratch = aligned_alloc(64, bytes / 64 * 64 + 128);
            if (!scratch)
                exit(2);
            memset(scratch, 0xff, bytes / 64 * 64 + 128); /* not a number */
            scratch[bytes] = 0x55;
            for (int n = 0; n < x->n_out; n++)
                make(&x->out[n], MEST_F32, &x->want[n].type.shape);
            call(x, x->out, k, scratch, q.threads);
            bool ok = scratch[bytes] == 0x55;
            double worst = 0;
            for (int n = 0; n < x->n_out; n++) {
                ok &= intact(&x->out[n]);
                for (size_t e = 0; x->wanted[n] && e < x->out[n].n; e++) {
                    const double a = (double)((mest_real *)x->out[n].t.data)[e], b = (double)((mest_real *)x->want[n].t.data)[e];
                    const double d = a == b ? 0 : fabs(a - b) / (1 + fabs(b));
                    worst = d > worst || isnan(d) ? d : worst;
                    if (threads == 1)
                        ok &= ((mest_real *)before[n].t.data)[e] == ((mest_real *)x->out[n].t.data)[e];
                }
            }
            ok &= worst <= (MEST_REAL_IS_DOUBLE ? 1e-12 : 4e-6);
            passed += ok;
            failed += !ok;
            if (!ok)
                printf("FAIL %s, %d threads: worst %.3g\n", k->name, threads, worst);
            for (int n = 0; n < x->n_out; n++) {
                if (threads == 1)
                    free(before[n].raw);
                before[n] = x->out[n];
                if (threads == 1)
                    free(x->out[n].raw);
            }
            free(scratch);
        }
    }
}

static mest_shape four(int64_t a, int64_t b, int64_t c, int64_t d) { return (mest_shape){.rank = 4, .dim = {a, b, c, d}}; }

static void one_case(mest_heap *heap, const mest_threads *two, unsigned cpu)
{
    static problem x, g;
    memset(&x, 0, sizeof x);
    const int64_t b = pick(1, 3), hk = pick(1, 3), hq = hk * pick(1, 2), s = pick(1, pick(0, 3) ? 20 : 120), t = pick(0, 4) ? pick(1, 90) : s, e = pick(1, 70), f = pick(1, 40);
    const bool flat = pick(0, 4) == 0;
    const mest_shape q = flat ? (mest_shape){.rank = 3, .dim = {b, s, hq * e}} : four(b, hq, s, e), k = flat ? (mest_shape){.rank = 3, .dim = {b, t, hk * e}} : four(b, hk, t, e);
    const mest_shape v = flat ? (mest_shape){.rank = 3, .dim = {b, t, hk * f}} : four(b, hk, t, f), y = flat ? (mest_shape){.rank = 3, .dim = {b, s, hq * f}} : four(b, hq, s, f);
    const mest_shape lse = {.rank = 3, .dim = {b, hq, s}}, scores = four(b, hq, s, t);
    x.p = (mest_attention_params){.causal = pick(0, 2) == 0, .q_heads = flat ? hq : 0, .kv_heads = flat ? hk : 0, .scale = pick(0, 1) ? 0 : 0.7};
    if (pick(0, 2) == 0)
        x.p.dropout = (mest_dropout_params){.ratio = 0.3, .key = 11};
    x.node = (mest_node){.name = "case", .op = mest_op_find("mest", "mest.Attention", 1)};
    x.n_in = 4;
    x.n_out = 2;
    make(&x.in[0], MEST_F32, &q);
    make(&x.in[1], MEST_F32, &k);
    make(&x.in[2], MEST_F32, &v);
    const int mask = (int)pick(0, 2);
    if (mask) {
        const mest_shape forms[] = {scores, {.rank = 2, .dim = {s, t}}, four(b, 1, 1, t), four(1, hq, s, t), {.rank = 1, .dim = {t}}};
        make(&x.in[3], mask == 1 ? MEST_BOOL : MEST_F32, &forms[pick(0, 4)]);
        x.p.mask_invert = mask == 1 && pick(0, 1);
        x.p.fills = mask == 1 && pick(0, 1);
        x.p.fill = -1e4;
    }
    for (int i = 0; i < 4; i++)
        if (x.in[i].raw)
            fill(&x.in[i]);
    make(&x.want[0], MEST_F32, &lse);
    make(&x.want[1], MEST_F32, &y);
    for (int i = 0; i < 2; i++)
        x.wanted[i] = true, x.out[i].type = x.want[i].type;
    call(&x, x.want, NULL, NULL, NULL);
    compare(&x, heap, two, cpu);
    g = x;
    g.node.op = mest_op_find("mest", "mest.AttentionGrad", 1);
    g.n_in = 7;
    g.n_out = 4;
    g.in[4] = x.want[0];
    g.in[5] = x.want[1];
    g.in[4].t.type = &g.in[4].type;
    g.in[5].t.type = &g.in[5].type;
    make(&g.in[6], MEST_F32, &y);
    fill(&g.in[6]);
    const mest_shape shapes[4] = {scores, q, k, v};
    for (int i = 0; i < 4; i++) {
        make(&g.want[i], MEST_F32, &shapes[i]);
        g.out[i].type = g.want[i].type;
        g.wanted[i] = i == 0 ? mask == 2 : pick(0, 3) > 0;
    }
    for (int i = 0; i < 4; i++)
        g.in[i].t.type = &g.in[i].type;
    call(&g, g.want, NULL, NULL, NULL);
    compare(&g, heap, two, cpu);
    for (int i = 0; i < 7; i++)
        free(g.in[i].raw);
    for (int i = 0; i < 4; i++)
        free(g.want[i].raw);
}

int main(int argc, char **argv)
{
    mest_heap heap;
    mest_threads two;
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : 20260401u;
    const int cases = argc > 2 ? atoi(argv[2]) : 120;
    if (mest_heap_init(&heap, NULL, NULL, NULL) != MEST_OK || mest_threads_create(&two, 2, NULL) != MEST_OK)
        return 2;
    const unsigned cpu = mest_cpu_features();
    for (int i = 0; i < cases; i++)
        one_case(&heap, &two, cpu);
    mest_threads_destroy(&two);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}
