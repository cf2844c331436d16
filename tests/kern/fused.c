/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of mest.FusedConv and mest.FusedConvGrad against naive loops in double: random shapes, formats and densities, with every
 * combination of maps, addend, gate and sums; odd sizes, guards, halos that hold NaN where nothing may be read; images wide enough for several
 * strips and tall enough for several parts; with two threads, which must give the same bits.
 *   fused [SEED [CASES]] */
#include <inttypes.h>

#include "operands.h"
#include "runtime/kernel.h"

static int passed, failed, skipped;

static double inside(double x, const mest_clamp *k) { return k->on ? (x < (double)k->lo ? (double)k->lo : x > (double)k->hi ? (double)k->hi : x) : x; }

/* A map of `rows` numbers for n channels, of few bits so that what it makes is exact in float. */
static buffer draw_map(int64_t rows, int64_t n)
{
    const mest_type type = {.dtype = MEST_F32, .shape = shape_of(2, rows, n, 0, 0)};
    buffer b = buffer_of(&type, rows * n);
    for (int64_t i = 0; i < rows * n; i++)
        b.data[i] = (mest_real)((double)pick(-16, 16) / 16);
    return b;
}

static void few_bits(double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (double)pick(-64, 64) / 32;
}

static bool near(const char *what, int64_t i, double got, double want, double magnitude)
{
    const double tolerance = MEST_REAL_IS_DOUBLE ? 1e-12 : 1e-5;
    if (fabs(got - want) <= tolerance * (magnitude + 1e-3))
        return true;
    printf("  %s[%" PRId64 "] is %.9g, must be %.9g\n", what, i, got, want);
    return false;
}

static bool image_right(const char *what, const buffer *b, const double *want, const double *magnitude, int64_t n, bool zero_rest)
{
    if (!guards_hold(b)) {
        printf("  %s: guard overwritten\n", what);
        return false;
    }
    for (int64_t i = 0; i < n; i++)
        if (!near(what, i, (double)b->data[place(&b->type, i)], want[i], magnitude[i]))
            return false;
    const mest_pixels p = mest_pixel_geometry(&b->type);
    for (int64_t k = p.n; k < p.blocks * p.v; k++)
        for (int64_t i = 0; i < p.c * p.h * p.w; i++) {
            const double rest = (double)b->data[p.origin + k / p.v * p.block + i / p.w % p.h * p.row + i % p.w * p.pixel + i / (p.w * p.h) * p.v + k % p.v];
            if (zero_rest ? rest != 0 : !isfinite(rest)) {
                printf("  %s: a lane past the batch holds %g\n", what, rest);
                return false;
            }
        }
    return true;
}

/* Mean and squared deviations, or sums and products, of the values themselves as the kernel wrote them. */
static bool moments_right(const buffer *y, const double *got, const mest_conv_geometry *g, bool gradient, const buffer *u, const buffer *mean)
{
    const int64_t channels = gradient ? g->c : g->m, pixels = gradient ? g->h * g->w : g->p * g->q;
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, most = 0, second = 0, scale = 0;
        for (int64_t n = 0; n < g->n; n++)
            for (int64_t i = 0; i < pixels; i++) {
                const double t = (double)y->data[place(&y->type, (n * channels + c) * pixels + i)];
                sum += t;
                most += fabs(t);
            }
        const double average = sum / (double)(g->n * pixels);
        for (int64_t n = 0; n < g->n; n++)
            for (int64_t i = 0; i < pixels; i++) {
                const double t = (double)y->data[place(&y->type, (n * channels + c) * pixels + i)];
                const double v = gradient ? t * ((double)u->data[place(&u->type, (n * channels + c) * pixels + i)] - (double)mean->data[c]) : (t - average) * (t - average);
                second += v;
                scale += gradient ? fabs(v) : v + 1e-3 * average * average;
            }
        if (!near(gradient ? "sum" : "mean", c, got[c], gradient ? sum : average, gradient ? most : most / (double)(g->n * pixels)) ||
            !near(gradient ? "product" : "square", c, got[channels + c], second, scale))
            return false;
    }
    return true;
}

static mest_type image_type(const mest_conv_geometry *g, bool large, int v)
{
    mest_type t = {.dtype = MEST_F32, .shape = image(g, large), .layout = {.kind = MEST_PIXEL, .v = (uint8_t)v}};
    t.layout.slots = mest_default_slots(t.shape.dim[1], v) + (int32_t)pick(0, 1);
    t.layout.top = (uint8_t)pick(0, 1);
    t.layout.right = (uint8_t)pick(0, 1);
    return t;
}

enum { X, W, DY, V, D, U, OPERANDS };

/* Returns false where the kernel does not serve the problem. */
static bool try_kernel(problem *p, const mest_kernel *k, int v, const mest_threads *pool)
{
    const mest_conv_geometry *g = &p->g;
    const bool gradient = p->op == CONV_GRAD;
    mest_error err = {0};
    mest_sparse *s = NULL;
    mest_derived *derived = NULL;
    const mest_sparse_spec spec = {.scheme = p->format, .shape = &p->weight_shape};
    if (p->format[0] && mest_sparse_make(&s, &test_heap, &spec, 0, &err) != MEST_OK)
        return false; /* the scheme is not for such a weight */
    if ((s && mest_sparse_reserve(s, s->n_units, &err) != MEST_OK) || mest_derived_create(&derived, &test_heap, &err) != MEST_OK)
        exit(2);
    draw_pattern(p, s);
    const bool clamps = pick(0, 2) > 0;
    const bool map = pick(0, 1), dmap = gradient && pick(0, 1), add = gradient && pick(0, 1), gate = gradient && clamps && pick(0, 1), sum = pick(0, 2) > 0;
    bool want_dx = gradient && (p->want[0] || pick(0, 1)), want_dw = gradient && (p->want[1] || !want_dx);
    mest_fused_conv_params params = {.conv = p->conv, .gate = gate};
    if (clamps)
        params.clamp = (mest_clamp){.on = true, .lo = pick(0, 1) ? 0 : (mest_real)-0.25, .hi = pick(0, 1) ? (mest_real)INFINITY : (mest_real)0.75};
    mest_type type[OPERANDS], w = {.dtype = MEST_F32, .shape = p->weight_shape, .layout = {.kind = s ? MEST_SPARSE : MEST_PLAIN}};
    for (int i = 0; i < OPERANDS; i++)
        type[i] = i == W ? w : image_type(g, i != DY && i != V, v);
    buffer xmap = draw_map(3, g->c), ymap = draw_map(4, g->m), mean = draw_map(1, g->c);
    mest_type bias_type = {.dtype = MEST_F32, .shape = shape_of(1, g->m, 0, 0, 0)}, mean_type = {.dtype = MEST_F32, .shape = shape_of(1, g->c, 0, 0, 0)};
    mest_type moment_type = {.dtype = MEST_F64, .shape = shape_of(2, 2, gradient ? g->c : g->m, 0, 0)}, result_type = image_type(g, gradient, v);
    const mest_type *in[9] = {&type[X], &type[W]}, *out[4] = {NULL};
    int n_in = gradient ? 9 : 4, n_out = gradient ? 4 : 2;
    if (map)
        in[3] = &xmap.type;
    if (gradient) {
        in[2] = &type[DY];
        in[4] = dmap ? &type[V] : NULL;
        in[5] = dmap ? &ymap.type : NULL;
        in[6] = add && want_dx ? &type[D] : NULL;
        in[7] = sum && want_dx ? &type[U] : NULL;
        in[8] = sum && want_dx ? &mean_type : NULL;
        out[0] = want_dx ? &result_type : NULL;
        out[1] = want_dw ? &type[W] : NULL;
        out[3] = sum && want_dx ? &moment_type : NULL;
    } else {
        in[2] = p->bias ? &bias_type : NULL;
        out[0] = &result_type;
        out[1] = sum ? &moment_type : NULL;
    }
    const mest_op op = {.name = k->op};
    const mest_node node = {.name = "node", .op = &op};
    const mest_sparse *patterns[9] = {NULL, s};
    const void *constants[9] = {NULL};
    const bool fixed[9] = {false};
    mest_kernel_query q = {.node = &node, .params = &params, .n_in = n_in, .n_out = n_out, .in = in, .out = out, .sparse = patterns, .in_data = constants,
                           .in_fixed = fixed, .cpu = ~0u, .threads = pool, .heap = &test_heap, .derived = derived};
    const char *why = "";
    bool served = k->fits(&q, &why), right = true;
    void *state = NULL;
    size_t scratch_bytes = 0;
    if (served)
        for (int i = 0; i < OPERANDS; i++) {
            uint8_t pad[4] = {0};
            const int input = i == X ? 0 : i == DY ? 2 : -1;
            if (input < 0 || (i == DY && !gradient))
                continue;
            k->halo(&q, input, pad);
            type[i].layout.top = pad[0];
            type[i].layout.left = pad[1];
            type[i].layout.bottom = pad[2];
            type[i].layout.right = (uint8_t)(pad[3] + pick(0, 1));
        }
    if (!served)
        goto out;
    if (k->prepare(&q, &state, &scratch_bytes, &err) != MEST_OK) {
        printf("  prepare: %s\n", err.msg);
        exit(2);
    }
    few_bits(p->x, p->n_x);
    few_bits(p->dy, p->n_y);
    double *vs = doubles(p->n_y), *ds = doubles(p->n_x), *us = doubles(p->n_x), *x = doubles(p->n_x), *dy = doubles(p->n_y);
    few_bits(vs, p->n_y);
    few_bits(ds, p->n_x);
    few_bits(us, p->n_x);
    for (int64_t i = 0; i < p->n_x; i++) {
        const int64_t c = i / (g->h * g->w) % g->c;
        x[i] = map ? inside((p->x[i] - (double)xmap.data[c]) * (double)xmap.data[g->c + c] + (double)xmap.data[2 * g->c + c], &params.clamp) : p->x[i];
    }
    for (int64_t i = 0; i < p->n_y; i++) {
        const int64_t m = i / (g->p * g->q) % g->m;
        const mest_real *t = ymap.data;
        dy[i] = dmap ? p->dy[i] * (double)t[g->m + m] + (double)t[3 * g->m + m] + (vs[i] - (double)t[m]) * (double)t[2 * g->m + m] : p->dy[i];
    }
    const double *source[OPERANDS] = {p->x, NULL, p->dy, vs, ds, us};
    buffer operand[OPERANDS];
    for (int i = 0; i < OPERANDS; i++) {
        operand[i] = buffer_of(&type[i], i == W ? (s ? 0 : p->n_w) : -1);
        if (i != W)
            set(&operand[i], source[i], i == DY || i == V ? p->n_y : p->n_x, i == X || i == V || i == U ? 0.75 : 0);
        if (i == X && map) /* no halo may be read */
            set(&operand[i], source[i], p->n_x, 0.75);
    }
    set_weight(p, s, &operand[W]);
    buffer bias = buffer_of(&bias_type, g->m);
    set(&bias, p->b, g->m, 0);
    double *w_masked = doubles(p->n_w);
    for (int64_t i = 0; i < p->n_w; i++)
        w_masked[i] = p->w[i] * p->mask[i];
    sums y = {doubles(p->n_y), doubles(p->n_y)}, dx = {doubles(p->n_x), doubles(p->n_x)}, dw = {doubles(p->n_w), doubles(p->n_w)};
    if (!gradient)
        naive_small(g, x, w_masked, p->bias ? p->b : NULL, y);
    if (want_dx)
        naive_large(g, dy, w_masked, NULL, dx);
    if (want_dw)
        naive_weight(g, x, dy, dw);
    for (int64_t i = 0; i < p->n_x && want_dx; i++) {
        dx.value[i] += add ? ds[i] : 0;
        dx.magnitude[i] += add ? fabs(ds[i]) : 0;
        if (gate && !(x[i] > (double)params.clamp.lo && x[i] < (double)params.clamp.hi))
            dx.value[i] = 0;
    }
    mest_real *scratch = get(scratch_bytes / sizeof(mest_real) + 16, sizeof(mest_real));
    buffer result[2], weights[2];
    double *moments[2];
    for (int round = 0; round < 2 && right; round++) {
        result[round] = buffer_of(&result_type, -1);
        weights[round] = buffer_of(&w, s ? s->stored : p->n_w);
        moments[round] = doubles(2 * (g->c + g->m));
        mest_tensor tin[9], tout[4];
        memset(tin, 0, sizeof tin);
        memset(tout, 0, sizeof tout);
        const void *data[9] = {operand[X].data, s ? s->values : operand[W].data, gradient ? (void *)operand[DY].data : (void *)bias.data, xmap.data, operand[V].data,
                               ymap.data, operand[D].data, operand[U].data, mean.data};
        for (int i = 0; i < n_in; i++)
            if (in[i])
                tin[i] = (mest_tensor){.type = in[i], .data = (void *)(uintptr_t)data[i], .sparse = i == 1 ? s : NULL};
        void *to[4] = {result[round].data, gradient ? (void *)weights[round].data : (void *)moments[round], NULL, moments[round]};
        for (int i = 0; i < n_out; i++)
            if (out[i])
                tout[i] = (mest_tensor){.type = out[i], .data = to[i], .sparse = gradient && i == 1 ? s : NULL};
        mest_args a = {.node = &node, .params = &params, .n_in = n_in, .n_out = n_out, .in = tin, .out = tout, .state = state, .scratch = scratch,
                       .threads = round ? pool : NULL, .err = &err};
        right = k->run(&a) == MEST_OK;
        if (round == 0) {
            if (out[0])
                right = right && image_right(gradient ? "dX" : "Y", &result[0], gradient ? dx.value : y.value, gradient ? dx.magnitude : y.magnitude,
                                             gradient ? p->n_x : p->n_y, gradient);
            if (out[gradient ? 3 : 1])
                right = right && moments_right(&result[0], moments[0], g, gradient, &operand[U], &mean);
            int64_t *at = get((size_t)(s ? s->stored : 1), sizeof *at);
            if (s)
                mest_sparse_coords(s, 0, s->stored, at);
            for (int64_t i = 0; i < weights[0].elements && want_dw && right; i++) {
                const int64_t e = s ? (at[i] < 0 ? -1 : weight_place(p, at[i])) : i;
                right = e < 0 ? weights[0].data[i] == 0 : near("dW", e, (double)weights[0].data[i], dw.value[e], dw.magnitude[e]);
            }
            drop(at, s ? s->stored : 1, sizeof *at);
            right = right && guards_hold(&weights[0]);
        } else {
            for (int64_t i = 0; i < (gradient ? p->n_x : p->n_y) && out[0]; i++)
                right &= result[0].data[place(&result_type, i)] == result[1].data[place(&result_type, i)];
            for (int64_t i = 0; i < weights[0].elements && want_dw; i++)
                right &= weights[0].data[i] == weights[1].data[i];
            right &= memcmp(moments[0], moments[1], (size_t)(2 * (gradient ? g->c : g->m)) * sizeof(double)) == 0;
            if (!right)
                printf("  two threads give other bits than one\n");
        }
    }
    if (right) {
        passed++;
    } else {
        failed++;
        printf("FAIL %s: %s weight %d %%, v %d, N %" PRId64 " C %" PRId64 " %" PRId64 "x%" PRId64 " M %" PRId64 " %" PRId64 "x%" PRId64 " group %" PRId64
               " kernel %" PRId64 "x%" PRId64 " stride %" PRId64 ",%" PRId64 " dilation %" PRId64 ",%" PRId64 " pads %" PRId64 ",%" PRId64
               ": map %d dmap %d addend %d gate %d sums %d dX %d dW %d\n",
               k->name, p->format[0] ? p->format : "dense", p->density, v, g->n, g->c, g->h, g->w, g->m, g->p, g->q, g->group, g->r, g->s, g->stride_y,
               g->stride_x, g->dilation_y, g->dilation_x, g->top, g->left, map, dmap, add, gate, sum, want_dx, want_dw);
    }
    for (int round = 0; round < 2; round++) {
        if (round && failed)
            break;
        free_buffer(&result[round]);
        free_buffer(&weights[round]);
        drop(moments[round], 2 * (g->c + g->m), 8);
    }
    for (int i = 0; i < OPERANDS; i++)
        free_buffer(&operand[i]);
    free_buffer(&bias);
    drop(scratch, (int64_t)(scratch_bytes / sizeof(mest_real) + 16), sizeof(mest_real));
    double *arrays[] = {vs, ds, us, x, dy, w_masked, y.value, y.magnitude, dx.value, dx.magnitude, dw.value, dw.magnitude};
    const int64_t counts[] = {p->n_y, p->n_x, p->n_x, p->n_x, p->n_y, p->n_w, p->n_y, p->n_y, p->n_x, p->n_x, p->n_w, p->n_w};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        drop(arrays[i], counts[i], 8);
    k->release(state, &test_heap);
out:
    free_buffer(&xmap);
    free_buffer(&ymap);
    free_buffer(&mean);
    mest_derived_destroy(derived);
    mest_sparse_destroy(s);
    return served;
}

int main(int argc, char **argv)
{
    const uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 20261122u;
    const int cases = argc > 2 ? atoi(argv[2]) : 500;
    const unsigned cpu = cpu_features();
    mest_threads pool;
    if (mest_heap_init(&test_heap, NULL, NULL, NULL) != MEST_OK || mest_threads_create(&pool, 3, NULL) != MEST_OK)
        return 2;
    printf("seed %" PRIu64 ", %d problems\n", seed, cases);
    int runs[1024] = {0};
    for (int c = 0; c < cases && failed < 5; c++) {
        problem p;
        seed_problems(seed + (uint64_t)c * 1000003u);
        draw_fused_problem(&p, c % 25 == 24);
        for (int i = 0; mest_kernel_at(i) && i < 1024 && failed < 5; i++) {
            const mest_kernel *k = mest_kernel_at(i);
            static const int lanes[] = {4, 8, 16};
            if (!(k->cpu & ~cpu) && !strcmp(k->op, p.op == CONV ? "mest.FusedConv" : "mest.FusedConvGrad"))
                for (int l = 0; l < 3; l++)
                    runs[i] += try_kernel(&p, k, lanes[l], &pool);
        }
        free_problem(&p);
    }
    for (int i = 0; mest_kernel_at(i) && i < 1024; i++) {
        const mest_kernel *k = mest_kernel_at(i);
        if (strncmp(k->op, "mest.FusedConv", 14))
            continue;
        if (k->cpu & ~cpu) {
            printf("SKIP %s: this processor lacks the instructions\n", k->name);
            skipped++;
            continue;
        }
        printf("%s: %d\n", k->name, runs[i]);
        if (!runs[i] && cases >= 100) {
            printf("FAIL %s: never served\n", k->name);
            failed++;
        }
    }
    mest_threads_destroy(&pool);
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed != 0;
}
