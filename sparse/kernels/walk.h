/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers shared by kernels with sparse weights. */
#ifndef MEST_SPARSE_KERNELS_WALK_H
#define MEST_SPARSE_KERNELS_WALK_H

#include <string.h>

#include "runtime/kernel.h"

/* Table of this file for the instruction set it is being compiled for: mest_kernels_<file>_<isa>. */
#define MEST_KERNEL_TABLE_PASTE(file, isa) mest_kernels_##file##_##isa
#define MEST_KERNEL_TABLE_EXPAND(file, isa) MEST_KERNEL_TABLE_PASTE(file, isa)
#define MEST_KERNEL_TABLE(file) MEST_KERNEL_TABLE_EXPAND(file, MEST_ISA)

/* Does the index have the row_start/col form of csr and block? */
static inline bool mest_rowwise(const mest_sparse *s) { return !strcmp(s->format->family, "csr") || !strcmp(s->format->family, "block"); }

/* The index of a csr or block weight: unit p of block row b covers rows b * height + (0 .. height-1) of column col[p]. */
typedef struct mest_rows_view {
    int64_t block_rows, rows;
    int32_t height;
    const int32_t *start, *col;
} mest_rows_view;
static inline mest_rows_view mest_rows_view_of(const mest_sparse *s)
{
    mest_rows_view v = {mest_block_rows(s), s->rows, s->height, s->index, NULL};
    v.col = v.start + v.block_rows + 1;
    return v;
}

/* Is t absent or a float value in C order? */
static inline bool mest_plain_real(const mest_type *t) { return !t || (t->dtype == MEST_F32 && t->layout.kind == MEST_PLAIN); }

static inline int64_t mest_ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }
static inline int64_t mest_floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

#endif
