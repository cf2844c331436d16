/* SPDX-License-Identifier: Apache-2.0 */
/* csr: single elements. Entry p of row r (start[r] <= p < start[r + 1]) is M[r, col[p]] = values[p]; columns ascend in a row.
 * A unit is one element; its id is its linear index r * cols + col. */
#include "sparse/rows.h"

static bool csr_parse(const char *suffix, mest_scheme *scheme)
{
    (void)scheme;
    return *suffix == 0;
}

static mest_status csr_configure(mest_sparse *s, mest_error *err)
{
    s->height = s->row_span = s->unit_elements = 1;
    s->unit_rows = s->rows;
    s->unit_cols = s->cols;
    return mest_rows_configure(s, err);
}

const mest_format mest_format_csr = {
    .family = "csr", .forms = "csr", .parse = csr_parse, .configure = csr_configure, MEST_ROWS_INDEX,
};
