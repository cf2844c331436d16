/* SPDX-License-Identifier: Apache-2.0 */
/* blockH: columns of H consecutive rows. Unit p of block row b (row_start[b] <= p < row_start[b + 1]) holds M[b * H + e, col[p]] =
 * values[p * H + e], e = 0..H-1; columns ascend in a block row. Its id is b * cols + col. Where H does not divide the rows, the last
 * block row reaches past the matrix and those values are zero. */
#include "sparse/rows.h"

const mest_format mest_format_block = {
    .family = "block", .max_height = 64,
    .configure = mest_rows_configure, .index_bytes = mest_rows_index_bytes, .append = mest_rows_append,
    .finish = mest_rows_finish, .units = mest_rows_units, .entries = mest_rows_entries, .check = mest_rows_check,
};
