/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers shared by kernels with sparse weights. */
#ifndef MEST_SPARSE_KERNELS_WALK_H
#define MEST_SPARSE_KERNELS_WALK_H

#include <string.h>

#include "runtime/kernel.h"
#include "sparse/cursor.h"

/* Table of this file for the instruction set it is being compiled for: mest_kernels_<file>_<isa>. */
#define MEST_KERNEL_TABLE_PASTE(file, isa) mest_kernels_##file##_##isa
#define MEST_KERNEL_TABLE_EXPAND(file, isa) MEST_KERNEL_TABLE_PASTE(file, isa)
#define MEST_KERNEL_TABLE(file) MEST_KERNEL_TABLE_EXPAND(file, MEST_ISA)

/* Do the weight's entries come in runs of `height` consecutive outputs (of one group) that share input and tap? Then one list serves them all.
 * inputs_first: as the operator reads the weight; m outputs. */
static inline bool mest_shared_outputs(const mest_sparse *w, bool inputs_first, int64_t m, int64_t group, int height)
{
    return w->height % height == 0 && w->inputs_first == inputs_first && (group == 1 || m / group % height == 0);
}
static inline bool mest_quads(const mest_sparse *w, bool inputs_first, int64_t m, int64_t group) { return mest_shared_outputs(w, inputs_first, m, group, 4); }

/* Is the order of storage that of a list with rows of `height` outputs, so that kernels read values from the weight itself? */
static inline bool mest_row_order(const mest_sparse *w, int32_t height)
{
    return w->height == height && w->row_span == height && !w->ragged;
}

/* Is t absent or a float value in C order? */
static inline bool mest_plain_real(const mest_type *t) { return !t || (t->dtype == MEST_F32 && t->layout.kind == MEST_PLAIN); }

static inline int64_t mest_ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }
static inline int64_t mest_floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

#endif
