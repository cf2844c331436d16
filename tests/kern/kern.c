/* SPDX-License-Identifier: Apache-2.0 */
/* Every registered kernel of the convolution and matrix-product operators that this processor can run, against naive loops in double:
 * random shapes, formats, densities from 0 to 100 %, layouts; NaN in padding slots, finite garbage in lanes past the batch, guards around
 * outputs; then again after the values and after the pattern of the weight changed, and with two threads, which must give the same bits.
 *   kern [SEED [CASES]] */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operands.h"
#include "runtime/cpu.h"
#include "runtime/kernel.h"

static const char *const op_names[] = {"Conv", "mest.ConvGrad", "ConvTranspose", "mest.ConvTransposeGrad",
                                       "Gemm", "mest.GemmGrad", "MatMul", "mest.MatMulGrad", "mest.ConvAffine", "mest.ConvTransposeAffine"};
enum { AFFINE = MATMUL_GRAD + 1 }; /* the last two serve problems of Conv and of ConvTranspose */
static int passed, failed, skipped, skipped_shapes;

/* ---- one kernel on one problem in one layout ---- */
static char trouble[600];
static bool compare(const char *what, const sums *e, int64_t i, double got)
{
    const double tolerance = MEST_REAL_IS_DOUBLE ? 1e-13 : 4e-6;
    if (fabs(got - e->value[i]) <= tolerance * (e->magnitude[i] + 1e-3))
        return true;
    snprintf(trouble, sizeof trouble, "%s[%" PRId64 "] is %.9g, must be %.9g", what, i, got, e->value[i]);
    return false;
}

static bool outputs_right(const problem *p, const mest_sparse *s, buffer out[3], const sums e[3], const bool want[3])
{
    static const char *const names[] = {"output 0", "output 1", "output 2"};
    const int64_t count[3] = {p->gradient ? p->n_x : p->n_y, p->n_w, p->n_b};
    for (int k = 0; k < 3; k++) {
        if (!want[k])
            continue;
        if (!guards_hold(&out[k])) {
            snprintf(trouble, sizeof trouble, "%s: guard overwritten", names[k]);
            return false;
        }
        if (k == 1 && s) {
            int64_t *at = get((size_t)s->stored, sizeof *at);
            bool right = true;
            mest_sparse_coords(s, 0, s->stored, at);
            for (int64_t i = 0; i < s->stored && right; i++) {
                if (at[i] < 0 && out[k].data[i] != 0) {
                    snprintf(trouble, sizeof trouble, "gradient of padding is %g", (double)out[k].data[i]);
                    right = false;
                } else if (at[i] >= 0) {
                    right = compare("dW at", &e[k], weight_place(p, at[i]), (double)out[k].data[i]);
                }
            }
            drop(at, s->stored, sizeof *at);
            if (!right)
                return false;
            continue;
        }
        for (int64_t i = 0; i < count[k]; i++) {
            int64_t at = k == 1 ? weight_place(p, i) : k == 0 && p->gradient && p->gemm.trans_a ? i % p->g.n * p->g.c + i / p->g.n : i;
            if (!compare(names[k], &e[k], at, (double)out[k].data[place(&out[k].type, i)]))
                return false;
        }
        if (k == 0 && out[k].type.layout.kind == MEST_PIXEL) {
            mest_pixels q = mest_pixel_geometry(&out[k].type);
            for (int64_t n = q.n; n < q.blocks * q.v; n++)
                for (int64_t i = 0; i < q.c * q.h * q.w; i++) {
                    double v = (double)out[k].data[q.origin + n / q.v * q.block + i / q.w % q.h * q.row + i % q.w * q.pixel +
                                                   i / (q.w * q.h) * q.v + n % q.v];
                    if (p->gradient ? v != 0 : !isfinite(v)) {
                        snprintf(trouble, sizeof trouble, "lane past the batch holds %g", v);
                        return false;
                    }
                }
        }
    }
    return true;
}

/* Of output channel c, where an operator has factors. */
static double factor_of(int64_t c) { return (double)(c % 5) * 0.75 - 1.25; }

static double activated(const mest_act *act, double x)
{
    switch (act->kind) {
    case MEST_ACT_LEAKY_RELU: return x < 0 ? act->alpha * x : x;
    case MEST_ACT_SIGMOID: return 1 / (1 + exp(-x));
    case MEST_ACT_TANH: return tanh(x);
    case MEST_ACT_HARD_SIGMOID: return fmax(0, fmin(1, act->alpha * x + act->beta));
    case MEST_ACT_HARD_SWISH: return x * fmax(0, fmin(1, x / 6 + 0.5));
    case MEST_ACT_SWISH: return x / (1 + exp(-act->alpha * x));
    case MEST_ACT_GELU: return 0.5 * x * erfc(-x / sqrt(2));
    case MEST_ACT_GELU_TANH: return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case MEST_ACT_MISH: return x * tanh(log1p(exp(x)));
    case MEST_ACT_NONE: case MEST_ACT_KINDS: break;
    }
    return x;
}

/* What follows the sum: times the factor, plus the bias (which is in the sum now), and the activation, a clamp or another. */
static void expect_ending(const problem *p, const mest_conv_affine_params *ending, bool with_factor, sums *e)
{
    const mest_clamp *clamp = &ending->clamp;
    const int64_t pixels = p->n_y / (p->g.n * p->n_b);
    for (int64_t i = 0; i < p->n_y; i++) {
        const int64_t c = i / pixels % p->n_b;
        const double bias = p->bias ? p->b[c] : 0, f = with_factor ? factor_of(c) : 1, y = (e->value[i] - bias) * f + bias;
        e->magnitude[i] = e->magnitude[i] * fabs(f) + 2 * fabs(bias) + (ending->act.kind ? 0.5 : 0); /* a sigmoid of little is a half */
        e->value[i] = !clamp->on ? activated(&ending->act, y) : y < (double)clamp->lo ? (double)clamp->lo : y > (double)clamp->hi ? (double)clamp->hi : y;
    }
}

/* Returns false where the kernel does not serve the layout. */
static bool try_kernel(problem *p, const mest_kernel *k, int v, const mest_threads *pool)
{
    const mest_conv_geometry *g = &p->g;
    mest_error err = {0};
    mest_sparse *s = NULL;
    mest_derived *derived = NULL;
    /* With the flag that sparsify would set, or the other one: two operators may share a weight. */
    const mest_sparse_spec spec = {.scheme = p->format, .shape = &p->weight_shape, .inputs_first = p->flag == (p->inputs_first || p->transposed)};
    if (p->format[0]) {
        mest_status status = mest_sparse_make(&s, &test_heap, &spec, 0, &err);
        if (status == MEST_E_SHAPE) { /* the scheme is not for such a weight */
            skipped_shapes++;
            return false;
        }
        if (status != MEST_OK || mest_sparse_reserve(s, s->n_units, &err) != MEST_OK) {
            fprintf(stderr, "%s\n", err.msg);
            exit(2);
        }
    }
    /* types */
    mest_type x = {.dtype = MEST_F32}, y = x, w = x, b = x;
    w.shape = p->weight_shape;
    w.layout.kind = s ? MEST_SPARSE : MEST_PLAIN;
    b.shape = p->c_kind ? c_shape(p) : shape_of(1, p->n_b, 0, 0, 0);
    if (p->matrix) {
        x.shape = p->gemm.trans_a ? shape_of(2, g->c, g->n, 0, 0) : shape_of(2, g->n, g->c, 0, 0);
        y.shape = shape_of(2, g->n, g->m, 0, 0);
        if (p->lead > 1) {
            x.shape = shape_of(3, p->lead, g->n / p->lead, g->c, 0);
            y.shape = shape_of(3, p->lead, g->n / p->lead, g->m, 0);
        }
    } else {
        x.shape = image(g, !p->transposed);
        y.shape = image(g, p->transposed);
    }
    mest_type dx = x;
    mest_type *images[3] = {&x, &y, &dx};
    for (int i = 0; i < 3 && v; i++) {
        images[i]->layout.kind = MEST_PIXEL;
        images[i]->layout.v = (uint8_t)v;
        images[i]->layout.slots = mest_default_slots(images[i]->shape.dim[1], v) + (v > 1 ? (int32_t)pick(0, 1) : 0);
    }
    const int dy_in = p->op == GEMM_GRAD ? 3 : 2, bias_in = 2;
    const bool has_bias = p->bias || p->c_kind, lent_c = p->op == GEMM_GRAD && p->c_kind;
    const mest_type *in[4] = {&x, &w, NULL, NULL}, *out[3] = {NULL, NULL, NULL};
    bool want[3] = {true, false, false}, fixed[4] = {false, false, false, false};
    if (p->gradient) {
        memcpy(want, p->want, sizeof want);
        if (lent_c)
            in[2] = &b;
        in[dy_in] = &y;
    } else if (has_bias) {
        in[bias_in] = &b;
    }
    const bool affine = !strcmp(k->op, op_names[AFFINE]) || !strcmp(k->op, op_names[AFFINE + 1]), with_factor = affine && p->n_b % 3;
    const mest_conv_affine_params ending = {.conv = p->conv, .clamp = {p->n_b % 2, (mest_real)-0.75, (mest_real)INFINITY},
                                            .act = {p->n_b % 2 ? MEST_ACT_NONE : (mest_act_kind)pick(0, MEST_ACT_KINDS - 1), 0.2, 0.5}};
    const mest_type factors = {.dtype = MEST_F32, .shape = shape_of(1, p->n_b, 0, 0, 0)};
    if (with_factor)
        in[3] = &factors;
    const int n_in = p->op == GEMM_GRAD || with_factor ? 4 : p->gradient || has_bias ? 3 : 2;
    const mest_type *outs[3] = {p->gradient ? &dx : &y, &w, &b};
    for (int i = 0; i < 3; i++)
        out[i] = want[i] ? outs[i] : NULL;
    const mest_op op = {.name = k->op};
    const mest_node node = {.name = "node", .op = &op};
    const mest_sparse *patterns[4] = {NULL, s, NULL, NULL};
    const void *constants[4] = {NULL, NULL, NULL, NULL};
    const void *params = p->matrix ? (p->op >= MATMUL ? NULL : (const void *)&p->gemm) : affine ? (const void *)&ending : (const void *)&p->conv;
    if (mest_derived_create(&derived, &test_heap, &err) != MEST_OK)
        exit(2);
    mest_kernel_query q = {.node = &node, .params = params, .n_in = n_in, .n_out = p->gradient ? (p->op == MATMUL_GRAD ? 2 : 3) : 1, .in = in,
                           .out = out, .sparse = patterns, .in_data = constants, .in_fixed = fixed, .cpu = cpu_features(), .threads = pool, .heap = &test_heap,
                           .derived = derived};
    draw_pattern(p, s);
    const char *why = "";
    bool served = k->fits(&q, &why);
    if (!served)
        goto out;
    const bool halo = v && !(v == 1 && p->matrix); /* a matrix with one lane is never given one: it is the plain layout */
    if (halo)
        for (int i = 0; i < n_in; i++) { /* at least the halo asked for, sometimes more */
            uint8_t pad[4] = {0, 0, 0, 0};
            mest_type *t = in[i] == &x ? &x : in[i] == &y ? &y : NULL;
            if (k->halo)
                k->halo(&q, i, pad);
            if (!t)
                continue;
            t->layout.top = (uint8_t)(pad[0] + pick(0, 1));
            t->layout.left = (uint8_t)(pad[1] + pick(0, 1));
            t->layout.bottom = (uint8_t)(pad[2] + pick(0, 1));
            t->layout.right = (uint8_t)(pad[3] + pick(0, 1));
        }
    if (halo) {
        mest_type *t = p->gradient ? &dx : &y;
        t->layout.top = (uint8_t)pick(0, 2);
        t->layout.right = (uint8_t)pick(0, 2);
    }
    void *state = NULL;
    size_t scratch_bytes = 0;
    snprintf(trouble, sizeof trouble, "prepare failed");
    bool right = !k->cost || k->cost(&q) > 0;
    if (k->prepare && k->prepare(&q, &state, &scratch_bytes, &err) != MEST_OK) {
        snprintf(trouble, sizeof trouble, "prepare: %s", err.msg);
        right = false;
    }
    /* memory */
    buffer bx = buffer_of(&x, -1), by = buffer_of(&y, -1), bw = buffer_of(&w, s ? 0 : p->n_w), bb = buffer_of(&b, p->n_b);
    double *xs = doubles(p->n_x);
    for (int64_t i = 0; i < p->n_x; i++)
        xs[i] = p->gemm.trans_a ? p->x[i % g->n * g->c + i / g->n] : p->x[i];
    set(&bx, xs, p->n_x, 0.75);
    set(&by, p->dy, p->n_y, 0);
    set(&bb, p->b, p->n_b, 0);
    drop(xs, p->n_x, 8);
    mest_real *factor = get((size_t)p->n_b, sizeof *factor);
    for (int64_t i = 0; i < p->n_b; i++)
        factor[i] = (mest_real)factor_of(i);
    mest_real *scratch = get(scratch_bytes / sizeof(mest_real) + 16, sizeof(mest_real));
    const int64_t most[3] = {p->n_x > p->n_y ? p->n_x : p->n_y, p->n_w, p->n_b > p->n_w ? p->n_b : p->n_w};
    uint32_t version = 0;
    const bool versioned = pick(0, 1);
    sums e[3];
    for (int i = 0; i < 3; i++)
        e[i] = (sums){doubles(most[i]), doubles(most[i])};
    for (int round = 0; right && round < (s ? 4 : 3); round++) {
        if (round == 2)
            for (int64_t i = 0; i < p->n_w; i++)
                p->w[i] = value();
        if (round == 3)
            draw_pattern(p, s);
        if (round != 1) {
            set_weight(p, s, &bw);
            version++;
        }
        expect(p, e);
        if (affine)
            expect_ending(p, &ending, with_factor, &e[0]);
        mest_tensor tin[4], tout[3];
        memset(tin, 0, sizeof tin);
        memset(tout, 0, sizeof tout);
        tin[0] = (mest_tensor){.type = &x, .data = bx.data, .count = (size_t)p->n_x, .sparse = NULL};
        tin[1] = (mest_tensor){.type = &w, .data = s ? s->values : bw.data, .count = (size_t)(s ? s->stored : p->n_w), .sparse = s,
                               .value_version = versioned ? &version : NULL};
        if (in[2] == &b)
            tin[2] = (mest_tensor){.type = &b, .data = bb.data, .count = (size_t)p->n_b, .sparse = NULL};
        if (with_factor)
            tin[3] = (mest_tensor){.type = &factors, .data = factor, .count = (size_t)p->n_b, .sparse = NULL};
        if (p->gradient)
            tin[dy_in] = (mest_tensor){.type = &y, .data = by.data, .count = (size_t)p->n_y, .sparse = NULL};
        buffer results[3];
        for (int i = 0; i < 3; i++) {
            results[i] = buffer_of(outs[i], i == 0 ? -1 : i == 1 && s ? s->stored : i == 1 ? p->n_w : p->n_b);
            if (want[i])
                tout[i] = (mest_tensor){.type = outs[i], .data = results[i].data, .count = (size_t)results[i].elements, .sparse = i == 1 ? s : NULL};
        }
        mest_args a = {.node = &node, .params = params, .n_in = n_in, .n_out = q.n_out, .in = tin, .out = tout, .state = state, .scratch = scratch,
                       .threads = round == 1 ? pool : NULL, .err = &err};
        if (k->run(&a) != MEST_OK) {
            snprintf(trouble, sizeof trouble, "run: %s", err.msg);
            right = false;
        } else if (!outputs_right(p, s, results, e, want)) {
            size_t n = strlen(trouble);
            snprintf(trouble + n, sizeof trouble - n, " (round %d)", round);
            right = false;
        } else if (round == 0) { /* again with threads: the same bits */
            a.threads = pool;
            buffer again = buffer_of(outs[0], -1), weights = buffer_of(outs[1], results[1].elements);
            mest_tensor repeat[3];
            memset(repeat, 0, sizeof repeat);
            repeat[0] = tout[0];
            repeat[1] = tout[1];
            repeat[0].data = want[0] ? again.data : NULL;
            repeat[1].data = want[1] ? weights.data : NULL;
            a.out = repeat;
            bool same = k->run(&a) == MEST_OK;
            for (int64_t i = 0; i < (p->gradient ? p->n_x : p->n_y) && want[0] && same; i++)
                same = again.data[place(outs[0], i)] == results[0].data[place(outs[0], i)];
            for (int64_t i = 0; i < results[1].elements && want[1] && same; i++)
                same = weights.data[i] == results[1].data[i];
            if (!same) {
                snprintf(trouble, sizeof trouble, "two threads give other bits than one");
                right = false;
            }
            free_buffer(&again);
            free_buffer(&weights);
        }
        for (int i = 0; i < 3; i++)
            free_buffer(&results[i]);
    }
    for (int i = 0; i < 3; i++) {
        drop(e[i].value, most[i], 8);
        drop(e[i].magnitude, most[i], 8);
    }
    free_buffer(&bx);
    free_buffer(&by);
    free_buffer(&bw);
    free_buffer(&bb);
    drop(factor, p->n_b, sizeof *factor);
    drop(scratch, (int64_t)(scratch_bytes / sizeof(mest_real) + 16), sizeof(mest_real));
    if (k->release)
        k->release(state, &test_heap);
    if (right) {
        passed++;
    } else {
        failed++;
        printf("FAIL %s: %s weight %d %%, v %d, N %" PRId64 " C %" PRId64 " %" PRId64 "x%" PRId64 " M %" PRId64 " %" PRId64 "x%" PRId64
               " group %" PRId64 " kernel %" PRId64 "x%" PRId64 " stride %" PRId64 ",%" PRId64 " dilation %" PRId64 ",%" PRId64
               " pads %" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 " want %d%d%d: %s\n",
               k->name, p->format[0] ? p->format : "dense", p->density, v, g->n, g->c, g->h, g->w, g->m, g->p, g->q, g->group, g->r, g->s,
               g->stride_y, g->stride_x, g->dilation_y, g->dilation_x, g->top, g->left, g->bottom, g->right, want[0], want[1], want[2], trouble);
    }
out:
    mest_derived_destroy(derived);
    mest_sparse_destroy(s);
    return served;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 20260101u;
    int cases = argc > 2 ? atoi(argv[2]) : 600;
    const unsigned cpu = cpu_features();
    mest_threads pool;
    if (mest_heap_init(&test_heap, NULL, NULL, NULL) != MEST_OK || mest_threads_create(&pool, 2, NULL) != MEST_OK)
        return 2;
    printf("seed %" PRIu64 ", %d problems\n", seed, cases);
    int runs[512] = {0};
    for (int i = 0; mest_kernel_at(i) && i < 512; i++)
        if (mest_kernel_at(i)->cpu & ~cpu) {
            printf("SKIP %s: this processor lacks the instructions\n", mest_kernel_at(i)->name);
            skipped++;
        }
    for (int c = 0; c < cases; c++) {
        problem p;
        seed_problems(seed + (uint64_t)c * 1000003u);
        draw_problem(&p);
        for (int i = 0; mest_kernel_at(i) && i < 512; i++) {
            const mest_kernel *k = mest_kernel_at(i);
            const char *const other = op_names[p.op == CONV ? AFFINE : p.op == TRANSPOSE ? AFFINE + 1 : p.op];
            if ((k->cpu & ~cpu) || (strcmp(k->op, op_names[p.op]) && strcmp(k->op, other)))
                continue;
            static const int lanes[] = {0, 1, 4, 8, 16};
            for (int l = 0; l < 5; l++)
                if (p.lead == 1 || p.op < GEMM || !lanes[l])
                    runs[i] += try_kernel(&p, k, lanes[l], &pool);
        }
        free_problem(&p);
    }
    for (int i = 0; mest_kernel_at(i) && i < 512; i++) {
        const mest_kernel *k = mest_kernel_at(i);
        for (size_t o = 0; o < sizeof op_names / sizeof *op_names; o++)
            if (!strcmp(k->op, op_names[o]) && !(k->cpu & ~cpu) && !runs[i] && cases >= 200) {
                printf("SKIP %s: served no problem\n", k->name);
                skipped++;
            }
    }
    mest_threads_destroy(&pool);
    if (test_heap.current_bytes) {
        printf("FAIL %" PRId64 " bytes leaked\n", (int64_t)test_heap.current_bytes);
        failed++;
    }
    printf("%d times a scheme was not for the weight's shape\n%d passed, %d failed, %d skipped\n", skipped_shapes, passed, failed, skipped);
    return failed ? 1 : 0;
}
