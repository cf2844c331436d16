/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/rows.h"

#include <inttypes.h>

#include "sparse/moves.h"

mest_status mest_rows_configure(mest_sparse *s, mest_error *err)
{
    MEST_CHECK(s->rows <= INT32_MAX && s->cols <= INT32_MAX && s->unit_rows <= INT32_MAX && s->unit_cols <= INT32_MAX, err, MEST_E_LIMIT,
               "%s: a weight of %" PRId64 " x %" PRId64 " is too large for 32-bit indices", s->name, s->rows, s->cols);
    s->n_units = s->unit_rows * (s->unit_cols / s->choices);
    return MEST_OK;
}

size_t mest_rows_index_bytes(const mest_sparse *s, int64_t cap_units)
{
    return ((size_t)s->unit_rows + 1 + (size_t)cap_units) * sizeof(int32_t);
}

/* While the index is being filled, start[unit_rows] holds the row of the last unit: starts up to that row are final. */
void mest_rows_append(mest_sparse *s, const int64_t *units, int64_t n)
{
    int32_t *start = mest_rows_start(s), *col = mest_rows_col(s);
    int64_t at = s->active_units, n_rows = s->unit_rows;
    if (at == 0)
        start[0] = start[n_rows] = 0;
    int64_t row = start[n_rows], first = row * s->unit_cols; /* id of the row's first unit: a division only where a row ends */
    for (int64_t i = 0; i < n; i++) {
        if (units[i] - first >= s->unit_cols) {
            const int64_t r = units[i] / s->unit_cols;
            while (row < r)
                start[++row] = (int32_t)(at + i);
            first = r * s->unit_cols;
        }
        col[at + i] = (int32_t)(units[i] - first);
    }
    start[n_rows] = (int32_t)row;
    s->active_units = at + n;
}

void mest_rows_finish(mest_sparse *s)
{
    int32_t *start = mest_rows_start(s);
    for (int64_t row = start[s->unit_rows]; row < s->unit_rows; row++)
        start[row + 1] = (int32_t)s->active_units;
}

/* The row that holds position i: the last one that starts at or before it and is not empty. */
static int64_t row_of(const mest_sparse *s, int64_t i)
{
    const int32_t *start = mest_rows_start(s);
    int64_t low = 0, high = s->unit_rows;
    while (high - low > 1) { /* start[low] <= i < start[high] */
        int64_t middle = low + (high - low) / 2;
        if (start[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void mest_rows_units(const mest_sparse *s, int64_t first, int64_t n, int64_t *out)
{
    if (n <= 0)
        return;
    const int32_t *start = mest_rows_start(s), *col = mest_rows_col(s);
    int64_t row = row_of(s, first);
    for (int64_t i = 0; i < n; i++) {
        while (start[row + 1] <= first + i)
            row++;
        out[i] = row * s->unit_cols + col[first + i];
    }
}

int64_t mest_rows_find(const mest_sparse *s, int64_t unit)
{
    if (unit <= 0 || s->active_units == 0)
        return 0;
    const int64_t row = unit / s->unit_cols;
    if (row >= s->unit_rows)
        return s->active_units;
    const int32_t *start = mest_rows_start(s), *col = mest_rows_col(s), wanted = (int32_t)(unit - row * s->unit_cols);
    int64_t low = start[row], high = start[row + 1];
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (col[middle] < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

typedef struct grown_columns { mest_sparse *s; const int64_t *unit; } grown_columns;

static void put_column(void *context, int64_t i, int64_t at)
{
    const grown_columns *c = context;
    mest_rows_col(c->s)[at] = (int32_t)(c->unit[i] % c->s->unit_cols);
}

void mest_rows_edit(mest_sparse *s, const mest_moves *moves)
{
    int32_t *start = mest_rows_start(s);
    mest_moves_apply(moves, mest_rows_col(s), sizeof(int32_t)); /* columns of a row do not change with its place */
    mest_moves_grown(moves, put_column, &(grown_columns){ s, moves->grow });
    int64_t d = 0, g = 0, end = 0;
    for (int64_t row = 0; row < s->unit_rows; row++) {
        end += s->unit_cols;
        while (d < moves->n_drop && moves->drop[d] < end)
            d++;
        while (g < moves->n_grow && moves->grow[g] < end)
            g++;
        start[row + 1] += (int32_t)(g - d);
    }
}

/* Padding entries of active unit p of unit row b hold zero. */
static mest_status check_padding(const mest_sparse *s, int64_t b, int64_t p, mest_error *err)
{
    int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
    mest_sparse_unit_entries(s, b * s->unit_cols + mest_rows_col(s)[p], row, col);
    for (int32_t e = 0; e < s->unit_elements; e++)
        MEST_CHECK((col[e] >= 0 && row[e] < s->rows) || s->values[p * s->unit_elements + e] == 0, err, MEST_E_INTERNAL,
                   "%s: padding of unit %" PRId64 " is not zero", s->name, p);
    return MEST_OK;
}

mest_status mest_rows_check(const mest_sparse *s, mest_error *err)
{
    const int32_t *start = mest_rows_start(s), *col = mest_rows_col(s);
    MEST_CHECK(s->active_units >= 0 && s->active_units <= s->cap_units, err, MEST_E_INTERNAL, "%s: %" PRId64 " units in room for %" PRId64,
               s->name, s->active_units, s->cap_units);
    MEST_CHECK(s->stored == s->active_units * s->unit_elements, err, MEST_E_INTERNAL, "%s: %" PRId64 " values stored for %" PRId64 " units of %d",
               s->name, s->stored, s->active_units, (int)s->unit_elements);
    MEST_CHECK(start[0] == 0 && start[s->unit_rows] == s->active_units, err, MEST_E_INTERNAL, "%s: rows hold %d..%d of %" PRId64 " units", s->name,
               (int)start[0], (int)start[s->unit_rows], s->active_units);
    for (int64_t b = 0; b < s->unit_rows; b++) {
        MEST_CHECK(start[b] <= start[b + 1], err, MEST_E_INTERNAL, "%s: row %" PRId64 " ends before it starts", s->name, b);
        for (int32_t p = start[b]; p < start[b + 1]; p++) {
            MEST_CHECK(col[p] >= 0 && col[p] < s->unit_cols && (p == start[b] || col[p] > col[p - 1]), err, MEST_E_INTERNAL,
                       "%s: column %d at entry %d of row %" PRId64 " is out of range or out of order", s->name, (int)col[p], (int)p, b);
            MEST_CHECK(p == start[b] || col[p] / s->choices > col[p - 1] / s->choices, err, MEST_E_INTERNAL,
                       "%s: two choices of one slot at entry %d of row %" PRId64, s->name, (int)p, b);
            if (s->ragged || (b + 1) * s->row_span > s->rows)
                MEST_TRY(check_padding(s, b, p, err));
        }
    }
    return MEST_OK;
}
