/* SPDX-License-Identifier: Apache-2.0 */
/* Operands of kernels under test: values in a layout with guards around them, sparse and dense weights. Needs problem.h's memory; static, for
 * the two programs that use it. */
#ifndef MEST_TESTS_OPERANDS_H
#define MEST_TESTS_OPERANDS_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "problem.h"
#include "runtime/cpu.h"
#include "sparse/format.h"

enum { GUARD = 64 };

/* ---- values in a layout, with guards ---- */
typedef struct buffer { mest_type type; int64_t elements; mest_real *raw, *data; } buffer;

static int64_t place(const mest_type *t, int64_t i)
{
    if (t->layout.kind != MEST_PIXEL)
        return i;
    mest_pixels p = mest_pixel_geometry(t);
    int64_t x = i % p.w, y = i / p.w % p.h, c = i / (p.w * p.h) % p.c, n = i / (p.w * p.h * p.c);
    return p.origin + n / p.v * p.block + y * p.row + x * p.pixel + c * p.v + n % p.v;
}

static buffer buffer_of(const mest_type *type, int64_t elements)
{
    buffer b = {.type = *type, .elements = elements};
    if (elements < 0 && !mest_type_storage(type, &b.elements))
        exit(2);
    b.raw = get((size_t)b.elements + 2 * GUARD, sizeof(mest_real));
    b.data = b.raw + GUARD;
    for (int64_t i = 0; i < b.elements + 2 * GUARD; i++)
        b.raw[i] = i < GUARD || i >= b.elements + GUARD ? (mest_real)12345.5 : (mest_real)NAN;
    return b;
}
static void free_buffer(buffer *b) { drop(b->raw, b->elements + 2 * GUARD, sizeof(mest_real)); }
static bool guards_hold(const buffer *b)
{
    for (int64_t i = 0; i < GUARD; i++)
        if (b->raw[i] != (mest_real)12345.5 || b->raw[b->elements + GUARD + i] != (mest_real)12345.5)
            return false;
    return true;
}
/* Lanes past the batch: `rest` (channels that exist only; spare slots stay NaN). */
static void set_rest(buffer *b, double rest)
{
    if (b->type.layout.kind != MEST_PIXEL)
        return;
    mest_pixels p = mest_pixel_geometry(&b->type);
    for (int64_t n = p.n; n < p.blocks * p.v; n++)
        for (int64_t i = 0; i < p.c * p.h * p.w; i++) {
            int64_t x = i % p.w, y = i / p.w % p.h, c = i / (p.w * p.h);
            b->data[p.origin + n / p.v * p.block + y * p.row + x * p.pixel + c * p.v + n % p.v] = (mest_real)rest;
        }
}
static void set(buffer *b, const double *values, int64_t n, double rest)
{
    if (b->type.layout.kind == MEST_PIXEL)
        mest_pixel_clear_halo(&b->type, b->data);
    set_rest(b, rest);
    for (int64_t i = 0; i < n; i++)
        b->data[place(&b->type, i)] = (mest_real)values[i];
}

/* ---- the weight ---- */
static void draw_pattern(problem *p, mest_sparse *s)
{
    if (!s) {
        for (int64_t i = 0; i < p->n_w; i++)
            p->mask[i] = 1;
        return;
    }
    int64_t *units = get((size_t)s->n_units, sizeof *units), n = 0;
    for (int64_t i = 0; i < s->n_units; i++)
        if (pick(0, 99) < p->density)
            units[n++] = i * s->choices + (s->choices > 1 ? pick(0, s->choices - 1) : 0);
    mest_error err = {0};
    if (mest_sparse_from_units(s, units, n, NULL, &err) != MEST_OK) {
        fprintf(stderr, "%s\n", err.msg);
        exit(2);
    }
    drop(units, s->n_units, sizeof *units);
}
static void set_weight(problem *p, mest_sparse *s, buffer *dense)
{
    if (!s) {
        for (int64_t i = 0; i < p->n_w; i++)
            dense->data[i] = (mest_real)p->w[weight_place(p, i)];
        return;
    }
    int64_t *at = get((size_t)s->stored, sizeof *at);
    mest_sparse_coords(s, 0, s->stored, at);
    memset(p->mask, 0, (size_t)p->n_w * 8);
    for (int64_t i = 0; i < s->stored; i++) {
        s->values[i] = at[i] < 0 ? 0 : (mest_real)p->w[weight_place(p, at[i])];
        if (at[i] >= 0)
            p->mask[weight_place(p, at[i])] = 1;
    }
    s->value_version++;
    drop(at, s->stored, sizeof *at);
}

static unsigned cpu_features(void)
{
#if defined(__x86_64__)
    unsigned f = 0;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        f |= MEST_CPU_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        f |= MEST_CPU_AVX512;
    return f;
#elif defined(__aarch64__)
    return MEST_CPU_NEON;
#else
    return 0;
#endif
}

#endif
