/* SPDX-License-Identifier: Apache-2.0 */
/* blockH: H consecutive outputs of one input (and tap). Values of unit p are values[p * H + e], e = 0..H-1.
 *   outputs first   unit row b, unit column c:  M[b * H + e, c]; id b * cols + c
 *   inputs first    unit row c, unit column mb * taps + t:  M[c, (mb * H + e) * taps + t]
 * Where H does not divide the outputs, the last block reaches past the matrix and those values are zero. */
#include "sparse/rows.h"

static bool block_parse(const char *suffix, mest_scheme *scheme)
{
    scheme->height = mest_scheme_number(&suffix, 64);
    return scheme->height > 0 && *suffix == 0;
}

static mest_status block_configure(mest_sparse *s, mest_error *err)
{
    const int32_t h = s->scheme.height;
    s->height = s->unit_elements = h;
    if (s->inputs_first) {
        s->row_span = 1;
        s->unit_rows = s->rows;
        s->unit_cols = (s->channels + h - 1) / h * s->taps;
        s->cell_cols = h * s->taps;
        s->cell_units = s->taps;
        s->ragged = s->channels % h != 0;
    } else {
        s->row_span = h;
        s->unit_rows = (s->rows + h - 1) / h;
        s->unit_cols = s->cols;
    }
    return mest_rows_configure(s, err);
}

static void block_element(const mest_sparse *s, int64_t k, int32_t *row, int32_t *col)
{
    const int64_t first = k / s->taps * s->height, tap = k % s->taps;
    for (int32_t e = 0; e < s->height; e++) {
        row[e] = s->inputs_first ? 0 : e;
        col[e] = (int32_t)(!s->inputs_first ? k : first + e < s->channels ? (first + e) * s->taps + tap : -1);
    }
}

const mest_format mest_format_block = {
    .family = "block", .forms = "block1..block64", .parse = block_parse, .configure = block_configure, .element = block_element, MEST_ROWS_INDEX,
};
