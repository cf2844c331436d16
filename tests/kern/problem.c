/* SPDX-License-Identifier: Apache-2.0 */
#include "problem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mest_heap test_heap;
static uint64_t rng;

void seed_problems(uint64_t seed) { rng = seed; }
static uint64_t next(void)
{
    rng += 0x9e3779b97f4a7c15u;
    uint64_t z = rng;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
int64_t pick(int64_t from, int64_t to) { return from + (int64_t)(next() % (uint64_t)(to - from + 1)); }
double value(void) { return (double)((int64_t)(next() % 2001) - 1000) / 512.0; } /* exact in float */

void *get(size_t n, size_t size)
{
    void *p = mest_calloc(&test_heap, n ? n : 1, size);
    if (!p) {
        fprintf(stderr, "no memory\n");
        exit(2);
    }
    return p;
}
double *doubles(int64_t n) { return get((size_t)n, sizeof(double)); }
void drop(void *p, int64_t n, size_t size) { mest_free(&test_heap, p, (size_t)(n ? n : 1), size); }

mest_shape shape_of(int rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (mest_shape){.rank = rank, .dim = {a, b, c, d}};
}
mest_shape image(const mest_conv_geometry *g, bool large)
{
    int64_t c = large ? g->c : g->m, h = large ? g->h : g->p, w = large ? g->w : g->q;
    return g->spatial == 1 ? shape_of(3, g->n, c, w, 0) : shape_of(4, g->n, c, h, w);
}

/* M of an N:M format, else 1: the inputs must be a multiple of it. */
static int64_t multiple_of(const problem *p) { return !strncmp(p->format, "nm", 2) ? strtol(strchr(p->format, ':') + 1, NULL, 10) : 1; }

/* large: several strips beside each other or several parts of the work */
static void draw_convolution(problem *p, bool large)
{
    const bool masks = !strcmp(p->format, "pattern") && !p->transposed;
    const int64_t multiple = multiple_of(p);
    mest_conv_geometry *g = &p->g;
    for (;;) {
        bool deep = pick(0, 3) == 0;
        int64_t groups = pick(0, 4) == 0 ? pick(2, 5) : 1;
        int64_t each = groups > 1 && pick(0, 1) ? 1 : pick(1, deep ? 40 : 9);
        bool flat = pick(0, 3) == 0 && !masks, point = pick(0, 5) == 0;
        each = (each + multiple - 1) / multiple * multiple;
        if (masks && each == 1)
            each = 2;
        *g = (mest_conv_geometry){.n = pick(0, 3) ? pick(1, 5) : pick(1, 35), .group = groups, .c = groups * each, .spatial = flat ? 1 : 2,
                                  .m = groups * (groups > 1 && pick(0, 1) ? 1 : pick(1, deep ? 40 : 9)),
                                  .h = flat || point ? 1 : pick(1, 8), .w = point ? 1 : pick(1, pick(0, 2) ? 9 : 20), .r = flat ? 1 : pick(1, 4),
                                  .s = pick(1, 4), .stride_y = flat ? 1 : pick(1, 3), .stride_x = pick(1, 3), .dilation_y = flat ? 1 : pick(1, 2),
                                  .dilation_x = pick(1, 2)};
        if (masks)
            g->r = g->s = 3;
        else if (pick(0, 2) == 0)
            g->r = g->s = 1;
        if (!flat) {
            g->top = pick(0, g->r);
            g->bottom = pick(0, g->r);
        }
        g->left = pick(0, g->s);
        g->right = pick(0, g->s);
        if (pick(0, 2) == 0)
            g->stride_y = g->stride_x = 1;
        if (large && !flat && !point) {
            const bool wide = pick(0, 1);
            g->h = wide ? pick(3, 6) : pick(20, 40);
            g->w = wide ? pick(60, 90) : pick(7, 14);
        }
        int64_t high = g->h + g->top + g->bottom - (g->r - 1) * g->dilation_y - 1, wide = g->w + g->left + g->right - (g->s - 1) * g->dilation_x - 1;
        if (high < 0 || wide < 0)
            continue;
        g->p = high / g->stride_y + 1;
        g->q = wide / g->stride_x + 1;
        if (g->n * g->m * (g->c / g->group) * g->p * g->q * g->r * g->s < (large ? 6000000 : 200000) &&
            (!large || g->n * g->m * (g->c / g->group) * g->p * g->q * g->r * g->s > 1000000))
            break;
    }
    int dims = g->spatial;
    int64_t *v = p->ints;
    const int64_t all[5][2] = {{g->r, g->s}, {g->stride_y, g->stride_x}, {g->dilation_y, g->dilation_x}, {g->top, g->left}, {g->bottom, g->right}};
    int64_t *at[5] = {v, v + 2, v + 4, v + 6, v + 6 + dims};
    for (int k = 0; k < 5; k++)
        for (int i = 0; i < dims; i++)
            at[k][i] = all[k][i + 2 - dims];
    p->conv = (mest_conv_params){.kernel_shape = {dims, v}, .strides = {dims, v + 2}, .dilations = {dims, v + 4}, .pads = {2 * dims, v + 6},
                                 .output_padding = {dims, v + 10}, .group = g->group};
    v[10] = (dims == 1 ? g->w + g->left + g->right - (g->s - 1) * g->dilation_x - 1 : g->h + g->top + g->bottom - (g->r - 1) * g->dilation_y - 1) %
            (dims == 1 ? g->stride_x : g->stride_y); /* what the transposed operator must add to get this image back */
    v[11] = (g->w + g->left + g->right - (g->s - 1) * g->dilation_x - 1) % g->stride_x;
    p->bias = pick(0, 1);
    p->weight_shape = dims == 1 ? shape_of(3, g->m, g->c / g->group, g->s, 0) : shape_of(4, g->m, g->c / g->group, g->r, g->s);
    p->rows = g->m;
    p->cols = g->c / g->group * g->r * g->s;
}

static void draw_matrices(problem *p)
{
    mest_conv_geometry *g = &p->g;
    *g = (mest_conv_geometry){.n = pick(1, 70), .c = pick(1, pick(0, 2) ? 20 : 150), .m = pick(1, 40), .h = 1, .w = 1, .p = 1, .q = 1, .group = 1,
                              .r = 1, .s = 1, .stride_y = 1, .stride_x = 1, .dilation_y = 1, .dilation_x = 1, .spatial = 2};
    g->c = (g->c + multiple_of(p) - 1) / multiple_of(p) * multiple_of(p);
    bool gemm = p->op == GEMM || p->op == GEMM_GRAD, plain = pick(0, 1);
    if (gemm && pick(0, 40) == 0) { /* several chunks of rows, several parts of work */
        g->n = pick(1, 2) == 1 ? pick(1, 16) : pick(200, 300);
        g->c = pick(100, 300);
        g->m = pick(100, 300);
    } else if (gemm && pick(0, 40) == 0) { /* a row of positions so long that passes cut it */
        g->n = pick(300, 1700);
        g->c = pick(1, 30);
        g->m = pick(1, 12);
    }
    p->gemm = (mest_gemm_params){.alpha = 1, .beta = 1, .trans_b = gemm && (plain || pick(0, 1))};
    p->c_kind = gemm ? (int)pick(0, plain ? 2 : 6) : 0;
    if (gemm && !plain) {
        p->gemm.alpha = pick(0, 1) ? 1 : 0.5;
        p->gemm.beta = pick(0, 1) ? 1 : pick(0, 1) ? 0 : -2;
        p->gemm.trans_a = pick(0, 1);
    }
    p->lead = !gemm && pick(0, 2) == 0 ? (int)pick(2, 3) : 1;
    if (p->lead > 1)
        g->n = p->lead * pick(1, 6);
    p->inputs_first = !p->gemm.trans_b;
    p->rows = p->inputs_first ? g->c : g->m;
    p->cols = p->inputs_first ? g->m : g->c;
    p->weight_shape = shape_of(2, p->rows, p->cols, 0, 0);
}

int64_t weight_place(const problem *p, int64_t at) /* from storage (row * cols + col) to the order of w */
{
    return p->inputs_first ? at % p->cols * p->g.c + at / p->cols : at;
}

mest_shape c_shape(const problem *p)
{
    int64_t n = p->g.n, m = p->g.m;
    switch (p->c_kind) {
    case 1: return shape_of(1, m, 0, 0, 0);
    case 2: return shape_of(2, 1, m, 0, 0);
    case 3: return shape_of(2, n, m, 0, 0);
    case 4: return shape_of(2, n, 1, 0, 0);
    case 5: return shape_of(0, 0, 0, 0, 0);
    default: return shape_of(1, 1, 0, 0, 0);
    }
}

static double *draw(int64_t n)
{
    double *v = doubles(n);
    for (int64_t i = 0; i < n; i++)
        v[i] = value();
    return v;
}

static void draw_operator(problem *p, int op, bool large)
{
    static const char *const formats[] = {"", "csr", "csr", "block2", "block3", "block4", "block4", "block8", "block16", "pattern", "pattern", "punched4x4",
                                          "punched8x2", "punched3x5", "nm2:4", "nm1:4x4", "nm3:8x8"};
    static const int densities[] = {0, 2, 10, 30, 100};
    *p = (problem){.op = op};
    p->transposed = p->op == TRANSPOSE || p->op == TRANSPOSE_GRAD;
    p->matrix = p->op >= GEMM;
    p->gradient = p->op == CONV_GRAD || p->op == TRANSPOSE_GRAD || p->op == GEMM_GRAD || p->op == MATMUL_GRAD;
    snprintf(p->format, sizeof p->format, "%s", formats[pick(0, (int64_t)(sizeof formats / sizeof *formats) - 1)]);
    if (!strcmp(p->format, "pattern") && (p->matrix || p->transposed)) /* its masks are for convolutions */
        strcpy(p->format, "nm1:2");
    p->flag = pick(0, 3) > 0;
    if (p->matrix)
        draw_matrices(p);
    else
        draw_convolution(p, large);
    p->density = densities[pick(0, 4)];
    int want = (int)pick(1, 7);
    for (int i = 0; i < 3; i++)
        p->want[i] = want >> i & 1;
    if (p->op == MATMUL_GRAD || (p->op == GEMM_GRAD && !p->c_kind))
        p->want[2] = false;
    const mest_conv_geometry *g = &p->g;
    int64_t all = g->n * g->c * g->h * g->w, small = g->n * g->m * g->p * g->q;
    p->n_x = p->transposed ? small : all;
    p->n_y = p->transposed ? all : small;
    p->n_w = p->rows * p->cols;
    p->n_b = p->transposed ? g->c : g->m;
    if (p->c_kind) {
        mest_shape c = c_shape(p);
        p->n_b = mest_shape_span(&c, 0, c.rank);
    }
    p->x = draw(p->n_x);
    p->dy = draw(p->n_y);
    p->w = draw(p->n_w);
    p->b = draw(p->n_b);
    p->mask = doubles(p->n_w);
}

void draw_problem(problem *p)
{
    const int op = (int)pick(CONV, MATMUL_GRAD);
    draw_operator(p, op, op == CONV && pick(0, 9) == 0);
}
void draw_fused_problem(problem *p, bool large) { draw_operator(p, (int)pick(CONV, CONV_GRAD), large); }

void free_problem(problem *p)
{
    drop(p->x, p->n_x, 8);
    drop(p->dy, p->n_y, 8);
    drop(p->w, p->n_w, 8);
    drop(p->b, p->n_b, 8);
    drop(p->mask, p->n_w, 8);
}

/* ---- what must come out: up to three outputs ---- */
void expect(const problem *p, sums out[3])
{
    const mest_conv_geometry *g = &p->g;
    double *w = doubles(p->n_w);
    for (int64_t i = 0; i < p->n_w; i++)
        w[i] = p->w[i] * p->mask[i] * (p->matrix ? p->gemm.alpha : 1);
    if (!p->gradient) {
        (p->transposed ? naive_large : naive_small)(g, p->x, w, p->bias ? p->b : NULL, out[0]);
        mest_shape c = c_shape(p);
        if (p->c_kind && p->gemm.beta != 0)
            for (int64_t i = 0; i < p->n_y; i++) {
                int64_t col = c.rank && c.dim[c.rank - 1] > 1 ? i % g->m : 0, row = c.rank == 2 && c.dim[0] > 1 ? i / g->m : 0;
                double term = p->gemm.beta * p->b[row * (c.rank ? c.dim[c.rank - 1] : 1) + col];
                out[0].value[i] += term;
                out[0].magnitude[i] += fabs(term);
            }
    } else {
        (p->transposed ? naive_small : naive_large)(g, p->dy, w, NULL, out[0]);
        naive_weight(g, p->transposed ? p->dy : p->x, p->transposed ? p->x : p->dy, out[1]);
        for (int64_t i = 0; i < p->n_w && p->matrix; i++)
            out[1].value[i] *= p->gemm.alpha;
        if (!p->matrix) {
            naive_channels(g->n, p->n_b, p->n_y / (g->n * p->n_b), p->dy, out[2]);
        } else if (p->c_kind) {
            mest_shape c = c_shape(p);
            memset(out[2].value, 0, (size_t)p->n_b * 8);
            memset(out[2].magnitude, 0, (size_t)p->n_b * 8);
            for (int64_t i = 0; i < p->n_y; i++) {
                int64_t col = c.rank && c.dim[c.rank - 1] > 1 ? i % g->m : 0, row = c.rank == 2 && c.dim[0] > 1 ? i / g->m : 0;
                int64_t at = row * (c.rank ? c.dim[c.rank - 1] : 1) + col;
                out[2].value[at] += p->gemm.beta * p->dy[i];
                out[2].magnitude[at] += fabs(p->gemm.beta * p->dy[i]);
            }
        }
    }
    drop(w, p->n_w, 8);
}
