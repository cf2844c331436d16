/* SPDX-License-Identifier: Apache-2.0 */
/* Where the entries of a sparse weight lie, for everybody who is not a kernel of one format: export, checkpoints, references, tests. */
#include <string.h>

#include "sparse/cursor.h"
#include "sparse/format.h"
#include "sparse/sort.h"

/* Of the unit in unit row b and unit column k. */
static inline void place_unit(const mest_sparse *s, int64_t b, int64_t k, int32_t *row, int32_t *col)
{
    const int32_t top = (int32_t)(b * s->row_span);
    if (!s->format->element) {
        for (int32_t e = 0; e < s->unit_elements; e++) {
            row[e] = top + e;
            col[e] = (int32_t)k;
        }
        return;
    }
    s->format->element(s, k, row, col);
    for (int32_t e = 0; e < s->unit_elements; e++)
        row[e] += top;
}

void mest_sparse_unit_entries(const mest_sparse *s, int64_t unit, int32_t *row, int32_t *col)
{
    const int64_t b = unit / s->unit_cols;
    place_unit(s, b, unit - b * s->unit_cols, row, col);
}

void mest_sparse_entries(const mest_sparse *s, int64_t first, int64_t n, int32_t *row, int32_t *col)
{
    int64_t unit[MEST_CURSOR_ROOM], b = 0, from = 0, to = 0; /* units of unit row b: [from, to); a division a row, not a unit */
    while (n > 0) {
        const int64_t part = n < MEST_CURSOR_ROOM ? n : MEST_CURSOR_ROOM;
        s->format->units(s, first, part, unit);
        for (int64_t i = 0; i < part; i++, row += s->unit_elements, col += s->unit_elements) {
            if (unit[i] >= to) {
                b = unit[i] / s->unit_cols;
                from = b * s->unit_cols;
                to = from + s->unit_cols;
            }
            place_unit(s, b, unit[i] - from, row, col);
        }
        first += part;
        n -= part;
    }
}

/* Active units whose unit row holds one of the rows [row0, row1). */
static void units_of_rows(const mest_sparse *s, int64_t row0, int64_t row1, int64_t *from, int64_t *to)
{
    *from = mest_sparse_lower_bound(s, row0 / s->row_span * s->unit_cols);
    *to = mest_sparse_lower_bound(s, (row1 + s->row_span - 1) / s->row_span * s->unit_cols);
}

void mest_sparse_dense_rows(const mest_sparse *s, const mest_real *values, int64_t row0, int64_t n, float *out)
{
    int64_t from, to;
    memset(out, 0, (size_t)n * (size_t)s->cols * sizeof *out);
    units_of_rows(s, row0, row0 + n, &from, &to);
    MEST_FOR_ENTRIES(s, from, to, {
        if (row >= row0 && row < row0 + n)
            out[(row - row0) * s->cols + col] = (float)values[e];
    });
}

void mest_sparse_read(const mest_sparse *s, int64_t first, int64_t n, float *out)
{
    int64_t from, to;
    memset(out, 0, (size_t)n * sizeof *out);
    if (n == 0 || s->cols == 0)
        return;
    units_of_rows(s, first / s->cols, (first + n - 1) / s->cols + 1, &from, &to);
    MEST_FOR_ENTRIES(s, from, to, {
        const int64_t at = row * s->cols + col - first;
        if (at >= 0 && at < n)
            out[at] = (float)s->values[e];
    });
}

int64_t mest_sparse_row(const mest_sparse *s, int64_t wanted, int64_t *out)
{
    int64_t from, to, n = 0;
    bool ascends = true;
    units_of_rows(s, wanted, wanted + 1, &from, &to);
    MEST_FOR_ENTRIES(s, from, to, {
        if (row == wanted) {
            out[n] = col << 32 | e;
            ascends &= n == 0 || out[n] > out[n - 1];
            n++;
        }
    });
    if (!ascends)
        mest_sort_ids(out, n, 62);
    return n;
}

int64_t mest_sparse_row_most(const mest_sparse *s)
{
    /* A unit has at most unit_elements / height entries in a row if outputs are rows, height otherwise. */
    int64_t most = 0, from, to;
    const int32_t in_row = s->inputs_first ? s->height : s->unit_elements / s->height;
    for (int64_t b = 0; b < s->unit_rows; b++) {
        units_of_rows(s, b * s->row_span, b * s->row_span + 1, &from, &to);
        most = to - from > most ? to - from : most;
    }
    return most * in_row;
}

void mest_sparse_coords(const mest_sparse *s, int64_t first, int64_t n, int64_t *out)
{
    int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
    int64_t unit = -1;
    for (int64_t k = 0; k < n; k++) {
        const int64_t i = (first + k) / s->unit_elements, e = (first + k) % s->unit_elements;
        if (i != unit)
            mest_sparse_entries(s, unit = i, 1, row, col);
        out[k] = row[e] < s->rows && col[e] >= 0 ? row[e] * s->cols + col[e] : -1;
    }
}

int64_t mest_sparse_nnz(const mest_sparse *s)
{
    if (!s->ragged && s->unit_rows * s->row_span <= s->rows)
        return s->stored;
    /* units of the last unit row, or of all rows, may reach past the matrix */
    int64_t n = 0, from = s->ragged ? 0 : mest_sparse_lower_bound(s, (s->unit_rows - 1) * s->unit_cols);
    MEST_FOR_ENTRIES(s, from, s->active_units, { n += e >= 0; });
    return from * s->unit_elements + n;
}
