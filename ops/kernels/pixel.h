/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels in PIXEL layout share. Everything is static inline: each kernel file is compiled once per instruction set, and a function
 * with linkage could end up in its widest form for every processor.
 *
 *   PX_TABLE, PX_NAME, PX_CPU   name of the kernel table, kernel names, features, for the instruction set being compiled
 *   px_*                        rows, lanes and tests of PIXEL values
 *
 * A "row" is one image row of one image block, W pixels of `slots` channels of v lanes; rows are numbered block * H + y.
 */
#ifndef MEST_OPS_KERNELS_PIXEL_H
#define MEST_OPS_KERNELS_PIXEL_H

#include <string.h>

#include "ops/nn.h"
#include "runtime/cpu.h"
#include "runtime/kernel.h"

#define PX_CAT_(a, b, c) a##b##_##c
#define PX_CAT(a, b, c) PX_CAT_(a, b, c)
#define PX_STR_(x) #x
#define PX_STR(x) PX_STR_(x)
#define PX_TABLE(file) PX_CAT(mest_kernels_, file, MEST_ISA)
#define PX_NAME(name) name "_" PX_STR(MEST_ISA)
#if defined(MEST_ISA_AVX512)
#define PX_CPU (MEST_CPU_AVX512 | MEST_CPU_AVX2)
#elif defined(MEST_ISA_AVX2)
#define PX_CPU MEST_CPU_AVX2
#elif defined(MEST_ISA_NEON)
#define PX_CPU MEST_CPU_NEON
#else
#define PX_CPU 0u
#endif

static inline int64_t px_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t px_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t px_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

static inline bool px_pixel(const mest_type *t)
{
    return t && t->layout.kind == MEST_PIXEL && t->dtype == MEST_F32 && t->shape.rank >= 2 && t->shape.rank <= 4;
}
static inline bool px_plain(const mest_type *t) { return t && t->layout.kind == MEST_PLAIN && t->dtype == MEST_F32; }
/* Both PIXEL, of the same batch and lanes. */
static inline bool px_same_lanes(const mest_type *a, const mest_type *b)
{
    return px_pixel(a) && px_pixel(b) && a->layout.v == b->layout.v && a->shape.dim[0] == b->shape.dim[0];
}
/* The same lanes, shape and channel slots: rows have the same form (halos may differ). */
static inline bool px_same_rows(const mest_type *a, const mest_type *b)
{
    return px_same_lanes(a, b) && mest_shape_equal(&a->shape, &b->shape) && a->layout.slots == b->layout.slots;
}
static inline mest_real *px_row(const mest_pixels *g, const void *data, int64_t row)
{
    return (mest_real *)data + g->origin + row / g->h * g->block + row % g->h * g->row;
}
/* Elements from the first channel of the first pixel of a row to the last channel of its last pixel. */
static inline int64_t px_row_length(const mest_pixels *g) { return (g->w - 1) * g->pixel + g->c * g->v; }
/* Lanes of a block that hold images. */
static inline int64_t px_lanes(const mest_pixels *g, int64_t block) { return px_min(g->v, g->n - block * g->v); }
/* Clears the lanes past the batch in one row. */
static inline void px_zero_lanes(const mest_pixels *g, mest_real *row, int64_t lanes)
{
    for (int64_t x = 0; x < g->w; x++)
        for (int64_t c = 0; c < g->c; c++)
            for (int64_t l = lanes; l < g->v; l++)
                row[x * g->pixel + c * g->v + l] = 0;
}
/* Output i of a query and of a run; NULL where it does not exist or is not wanted. */
static inline const mest_type *px_out(const mest_kernel_query *q, int i) { return i < q->n_out ? q->out[i] : NULL; }
static inline void *px_out_data(const mest_args *a, int i) { return i < a->n_out ? a->out[i].data : NULL; }
static inline int px_workers(const mest_threads *threads) { return threads && threads->n > 1 ? threads->n : 1; }
/* Bytes that a run moves if every operand is touched once, over 10 GB/s; times `passes`. */
static inline double px_cost(const mest_kernel_query *q, double passes)
{
    double bytes = 0;
    int64_t n;
    for (int i = 0; i < q->n_in; i++)
        if (q->in[i] && mest_shape_count(&q->in[i]->shape, &n))
            bytes += (double)n * sizeof(mest_real);
    for (int i = 0; i < q->n_out; i++)
        if (q->out[i] && mest_shape_count(&q->out[i]->shape, &n))
            bytes += (double)n * sizeof(mest_real);
    return 1e-6 + bytes * passes / 10e9;
}
static inline double px_cost_once(const mest_kernel_query *q) { return px_cost(q, 1); }
static inline mest_status px_no_scratch(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    (void)q;
    (void)err;
    *state = NULL;
    *scratch_bytes = 0;
    return MEST_OK;
}

#endif
