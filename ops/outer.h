/* SPDX-License-Identifier: Apache-2.0 */
/* The dense gradient of a layer's weight, a piece at a time, from the layer's operands as they lie in memory.
 *
 *     dW[row][col] = alpha * sum over positions of a(row, position) * b(col, position)
 *
 *   mest_operand   an activation in any layout, as strides
 *   mest_outer     one layer: which operand gives the rows, which the columns, and how windows join them
 *
 * Rows are channels of `rows` at a position of the small image; a column is a channel of `cols` and a kernel position, read from the large
 * image where the window of that position lies (outside of it: 0). For a matrix product both images have one pixel. The weight is the
 * matrix M[O, K] of sparse/format.h. Methods that grow by the gradient of weights that are not stored are built on this; a whole dense
 * gradient is never held.
 */
#ifndef MEST_OPS_OUTER_H
#define MEST_OPS_OUTER_H

#include "ops/window.h"

/* Element (n, c, z, y, x) is data[(n / v) * block + (n % v) * lane + c * channel + z * step[0] + y * step[1] + x * step[2]]. */
typedef struct mest_operand {
    const mest_real *data;
    int64_t v, block, lane, channel, step[3];
} mest_operand;

typedef struct mest_outer {
    mest_operand rows, cols;
    mest_window window;         /* out: pixels of the image of `rows`; in: of that of `cols` */
    int64_t n;                  /* images (or rows of a matrix product) */
    int64_t group, group_rows;  /* rows of one group; its columns are the channels (row / group_rows) * group_channels + .. of `cols` */
    int64_t group_channels;
    double alpha;
    /* Operands that lie in memory as what a BatchNormalization reads (ops/fused_conv.c says how maps are applied); NULL: as they are. */
    const mest_real *rows_map;  /* [4, rows_channels] */
    mest_operand rows_with;
    int64_t rows_channels;
    const mest_real *cols_map;  /* [3, cols_channels] */
    int64_t cols_channels;
    mest_real lo, hi;           /* with cols_map; -INFINITY, INFINITY: no activation */
} mest_outer;

/* An activation of rank 2 to 5, plain or in pixel layout. */
mest_operand mest_operand_of(const mest_tensor *t);
/* A plain matrix: element (n, c) at data[n * row + c * col]. Windows of 1. */
void mest_outer_matrix(mest_outer *o, int64_t n, const mest_operand *rows, const mest_operand *cols, double alpha);

/* Numbers that mest_outer_tile needs as scratch, aligned to 64 bytes. */
size_t mest_outer_scratch(void);
/* out[i * stride + j] = dW[row0 + i][col0 + j] for i < n_rows, j < n_cols. One thread; the same bits whatever tile they are computed in. */
void mest_outer_tile(const mest_outer *o, int64_t row0, int64_t n_rows, int64_t col0, int64_t n_cols, mest_real *out, int64_t stride,
                     mest_real *scratch);

#endif
