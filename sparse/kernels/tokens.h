/* SPDX-License-Identifier: Apache-2.0 */
/* Gemm with a sparse weight on plain rows: Y[T,M] = X[T,C] W + b, tokens of a transformer or samples of a batch. The inner loops are those
 * of the batch lanes (lanes.h): a chunk of rows is turned into lanes in scratch, computed there, and turned back, so that nobody else needs
 * to know of the layout.
 *
 *   chunk    some blocks of v rows: as many as fit the second-level cache with their results
 *   panel    [block][channel, one spare slot][v]: a chunk in lanes
 *
 * Letters: T rows, C inputs, M outputs, v lanes.
 */
#ifndef MEST_SPARSE_KERNELS_TOKENS_H
#define MEST_SPARSE_KERNELS_TOKENS_H

#include "sparse/kernels/lanes.h"

typedef struct mest_tokens_isa {
    /* Channels [c0, c1) of `valid` rows (at most v; row[i] at row + i * ld) to lanes[(c * v) + i]; lanes past `valid` become 0. */
    void (*to_lanes)(const mest_real *row, int64_t ld, int64_t valid, int64_t c0, int64_t c1, mest_real *lanes);
    /* Back; lanes past `valid` are dropped. */
    void (*to_rows)(const mest_real *lanes, int64_t valid, int64_t c0, int64_t c1, mest_real *row, int64_t ld);
} mest_tokens_isa;

bool mest_tokens_fits(const mest_kernel_query *q, mest_lanes_op op, const char **why);
double mest_tokens_cost(const mest_kernel_query *q, mest_lanes_op op, double flops_per_second);
mest_status mest_tokens_prepare(const mest_kernel_query *q, mest_lanes_op op, const mest_lanes_isa *isa, const mest_tokens_isa *turn, void **state,
                                size_t *scratch_bytes, mest_error *err);
mest_status mest_tokens_run(const mest_args *a);
void mest_tokens_release(void *state, mest_heap *heap);

#endif
