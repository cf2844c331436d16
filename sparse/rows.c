/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/rows.h"

#include <inttypes.h>

static int32_t *cols_of(const mest_sparse *s) { return (int32_t *)s->index + mest_block_rows(s) + 1; }

mest_status mest_rows_configure(mest_sparse *s, mest_error *err)
{
    MEST_CHECK(s->rows <= INT32_MAX && s->cols <= INT32_MAX, err, MEST_E_LIMIT,
               "%s: a weight of %" PRId64 " x %" PRId64 " is too large for 32-bit indices", s->name, s->rows, s->cols);
    s->unit_elements = s->height;
    s->n_units = mest_block_rows(s) * s->cols;
    return MEST_OK;
}

size_t mest_rows_index_bytes(const mest_sparse *s, int64_t cap_units)
{
    return ((size_t)mest_block_rows(s) + 1 + (size_t)cap_units) * sizeof(int32_t);
}

/* While the index is being filled, row_start[block_rows] holds the row of the last unit: starts up to that row are final. */
void mest_rows_append(mest_sparse *s, const int64_t *units, int64_t n)
{
    int32_t *start = s->index, *col = cols_of(s);
    int64_t at = s->active_units, n_rows = mest_block_rows(s);
    if (at == 0)
        start[0] = start[n_rows] = 0;
    int64_t row = start[n_rows];
    for (int64_t i = 0; i < n; i++) {
        int64_t r = units[i] / s->cols;
        while (row < r)
            start[++row] = (int32_t)(at + i);
        col[at + i] = (int32_t)(units[i] - r * s->cols);
    }
    start[n_rows] = (int32_t)row;
    s->active_units = at + n;
}

void mest_rows_finish(mest_sparse *s)
{
    int32_t *start = s->index;
    int64_t n_rows = mest_block_rows(s);
    for (int64_t row = start[n_rows]; row < n_rows; row++)
        start[row + 1] = (int32_t)s->active_units;
}

/* The row that holds position i: the last one that starts at or before it and is not empty. */
static int64_t row_of(const mest_sparse *s, int64_t i)
{
    const int32_t *start = s->index;
    int64_t low = 0, high = mest_block_rows(s);
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
    const int32_t *start = s->index, *col = cols_of(s);
    int64_t row = row_of(s, first);
    for (int64_t i = 0; i < n; i++) {
        while (start[row + 1] <= first + i)
            row++;
        out[i] = row * s->cols + col[first + i];
    }
}

void mest_rows_entries(const mest_sparse *s, int64_t i, int32_t *row, int32_t *col)
{
    int32_t top = (int32_t)(row_of(s, i) * s->height), c = cols_of(s)[i];
    for (int32_t e = 0; e < s->height; e++) {
        row[e] = top + e;
        col[e] = c;
    }
}

mest_status mest_rows_check(const mest_sparse *s, mest_error *err)
{
    const int32_t *start = s->index, *col = cols_of(s);
    int64_t n_rows = mest_block_rows(s), pad = n_rows * s->height - s->rows;
    MEST_CHECK(s->active_units >= 0 && s->active_units <= s->cap_units, err, MEST_E_INTERNAL, "%s: %" PRId64 " units in room for %" PRId64,
               s->name, s->active_units, s->cap_units);
    MEST_CHECK(s->stored == s->active_units * s->unit_elements, err, MEST_E_INTERNAL, "%s: %" PRId64 " values stored for %" PRId64 " units of %d",
               s->name, s->stored, s->active_units, (int)s->unit_elements);
    MEST_CHECK(start[0] == 0 && start[n_rows] == s->active_units, err, MEST_E_INTERNAL, "%s: rows hold %d..%d of %" PRId64 " units", s->name,
               (int)start[0], (int)start[n_rows], s->active_units);
    for (int64_t r = 0; r < n_rows; r++) {
        MEST_CHECK(start[r] <= start[r + 1], err, MEST_E_INTERNAL, "%s: row %" PRId64 " ends before it starts", s->name, r);
        for (int32_t p = start[r]; p < start[r + 1]; p++)
            MEST_CHECK(col[p] >= 0 && col[p] < s->cols && (p == start[r] || col[p] > col[p - 1]), err, MEST_E_INTERNAL,
                       "%s: column %d at entry %d of row %" PRId64 " is out of range or out of order", s->name, (int)col[p], (int)p, r);
    }
    if (pad > 0)
        for (int64_t p = start[n_rows - 1]; p < start[n_rows]; p++)
            for (int64_t e = s->height - pad; e < s->height; e++)
                MEST_CHECK(s->values[p * s->height + e] == 0, err, MEST_E_INTERNAL, "%s: padding of unit %" PRId64 " is not zero", s->name, p);
    return MEST_OK;
}
