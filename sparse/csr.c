/* SPDX-License-Identifier: Apache-2.0 */
/* csr: single elements. Entry p of row r (row_start[r] <= p < row_start[r + 1]) is M[r, col[p]] = values[p]; columns ascend in a row.
 * A unit is one element; its id is its linear index r * cols + col. */
#include "sparse/rows.h"

static mest_status csr_configure(mest_sparse *s, mest_error *err)
{
    s->height = 1;
    return mest_rows_configure(s, err);
}

const mest_format mest_format_csr = {
    .family = "csr", .max_height = 0,
    .configure = csr_configure, .index_bytes = mest_rows_index_bytes, .append = mest_rows_append,
    .finish = mest_rows_finish, .units = mest_rows_units, .entries = mest_rows_entries, .check = mest_rows_check,
};
