/* SPDX-License-Identifier: Apache-2.0 */
/* nmN:M and nmN:MxR: at most N of M consecutive inputs of an output (and tap) are stored; with xR, R consecutive outputs share the choice,
 * so that the block kernels run it. A unit is one element (R of them); a balance group is the M units of one (output, inputs, tap).
 *   outputs first   unit row ob, unit column (g * taps + t) * M + j:  M[ob * R + e, (g * M + j) * taps + t]
 *   inputs first    unit row g,  unit column (ob * taps + t) * M + j: M[g * M + j, (ob * R + e) * taps + t]
 * M must divide the inputs; where R does not divide the outputs, the last rows are padding.
 *
 * N is the count of the end. It binds through the capacity: without a soft memory bound a group never holds more than N; with one, groups
 * hold as many more as the reserved peak makes per group, until the last stage. */
#include <inttypes.h>

#include "sparse/rows.h"

static bool nm_parse(const char *suffix, mest_scheme *scheme)
{
    scheme->n = mest_scheme_number(&suffix, 16);
    if (scheme->n == 0 || *suffix++ != ':')
        return false;
    scheme->m = mest_scheme_number(&suffix, 16);
    if (*suffix == 'x') {
        suffix++;
        scheme->height = mest_scheme_number(&suffix, 64);
    }
    return scheme->n < scheme->m && scheme->height > 0 && *suffix == 0;
}

static mest_status nm_configure(mest_sparse *s, mest_error *err)
{
    const int32_t r = s->scheme.height, m = s->scheme.m;
    const int64_t inputs = s->inputs_first ? s->rows : s->channels, outputs = s->inputs_first ? s->channels : s->rows;
    MEST_CHECK(inputs % m == 0, err, MEST_E_SHAPE, "%s: %" PRId64 " inputs are not a multiple of %d", s->name, inputs, (int)m);
    s->height = s->unit_elements = r;
    s->group_units = m;
    if (s->inputs_first) {
        s->row_span = m;
        s->unit_rows = s->rows / m;
        s->unit_cols = (outputs + r - 1) / r * s->taps * m;
        s->cell_cols = r * s->taps;
        s->ragged = outputs % r != 0;
    } else {
        s->row_span = r;
        s->unit_rows = (s->rows + r - 1) / r;
        s->unit_cols = s->cols;
        s->cell_cols = m * s->taps;
    }
    s->cell_units = s->taps * m;
    return mest_rows_configure(s, err);
}

static void nm_element(const mest_sparse *s, int64_t k, int32_t *row, int32_t *col)
{
    const int32_t r = s->scheme.height, m = s->scheme.m;
    const uint32_t column = (uint32_t)k, cell = column / (uint32_t)m, above = cell / (uint32_t)s->taps; /* unit columns fit: small divisions */
    const int64_t j = column - cell * (uint32_t)m, tap = cell - above * (uint32_t)s->taps, block = above;
    for (int32_t e = 0; e < r; e++) {
        row[e] = s->inputs_first ? (int32_t)j : e;
        const int64_t along = s->inputs_first ? block * r + e : block * m + j;
        col[e] = (int32_t)(along < s->channels ? along * s->taps + tap : -1);
    }
}

static double nm_least_sparsity(const mest_sparse *s) { return 1.0 - (double)s->scheme.n / (double)s->scheme.m; }

const mest_format mest_format_nm = {
    .family = "nm", .forms = "nmN:M, nmN:MxR", .parse = nm_parse, .configure = nm_configure, .element = nm_element,
    .least_sparsity = nm_least_sparsity, MEST_ROWS_INDEX,
};
