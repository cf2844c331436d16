/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sparse/cursor.h"

#define MEST_FORMAT(file) extern const mest_format mest_format_##file;
#include "sparse/formats.def"
#undef MEST_FORMAT

static const mest_format *const formats[] = {
#define MEST_FORMAT(file) &mest_format_##file,
#include "sparse/formats.def"
#undef MEST_FORMAT
    NULL,
};

const mest_format *mest_format_at(int index)
{
    int n = (int)(sizeof formats / sizeof *formats) - 1;
    return index >= 0 && index < n ? formats[index] : NULL;
}

/* The decimal height after a family name; 0 if it is not one. */
static int32_t parse_height(const char *text, int32_t most)
{
    int32_t height = 0;
    if (*text == '0')
        return 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        height = height * 10 + (*text - '0');
        if (height > most)
            return 0;
    }
    return *text ? 0 : height;
}

mest_status mest_format_find(const char *name, const mest_format **format, int32_t *height, mest_error *err)
{
    for (int i = 0; name && formats[i]; i++) {
        size_t n = strlen(formats[i]->family);
        if (strncmp(name, formats[i]->family, n) != 0)
            continue;
        int32_t h = formats[i]->max_height ? parse_height(name + n, formats[i]->max_height) : name[n] == 0;
        if (h > 0) {
            *format = formats[i];
            *height = h;
            return MEST_OK;
        }
    }
    char known[200];
    size_t used = 0;
    known[0] = 0;
    for (int i = 0; formats[i] && used < sizeof known - 40; i++)
        used += (size_t)(formats[i]->max_height
                             ? snprintf(known + used, sizeof known - used, "%s%s1..%s%d", i ? ", " : "", formats[i]->family, formats[i]->family,
                                        (int)formats[i]->max_height)
                             : snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", formats[i]->family));
    return mest_fail(err, MEST_E_ARGUMENT, "there is no sparse format '%s'; there are: %s", name ? name : "", known);
}

/* Room for cap units: values and index, of which the caller owns both. */
static mest_status allocate(mest_sparse *s, int64_t cap_units, mest_real **values, void **index, size_t *index_size, mest_error *err)
{
    MEST_CHECK(cap_units >= 0 && cap_units <= s->n_units, err, MEST_E_ARGUMENT, "%s: room for %" PRId64 " units asked of a weight with %" PRId64,
               s->name, cap_units, s->n_units);
    MEST_CHECK(cap_units <= INT32_MAX / s->unit_elements, err, MEST_E_LIMIT, "%s: %" PRId64 " stored entries are too many for 32-bit indices",
               s->name, cap_units * s->unit_elements);
    *index_size = s->format->index_bytes(s, cap_units);
    *values = mest_calloc(s->heap, (size_t)cap_units * (size_t)s->unit_elements, sizeof **values);
    *index = mest_calloc(s->heap, *index_size, 1);
    if (*values && *index)
        return MEST_OK;
    mest_free(s->heap, *values, (size_t)cap_units * (size_t)s->unit_elements, sizeof **values);
    mest_free(s->heap, *index, *index_size, 1);
    return mest_fail(err, MEST_E_NOMEM, "%s: no memory for %" PRId64 " units", s->name, cap_units);
}

mest_status mest_sparse_create(mest_sparse **out, mest_heap *heap, const char *format, const mest_shape *shape, int64_t cap_units, mest_error *err)
{
    const mest_format *f;
    int32_t height;
    int64_t count;
    mest_sparse *s;
    mest_status status;
    *out = NULL;
    MEST_TRY(mest_format_find(format, &f, &height, err));
    MEST_CHECK(shape->rank >= 1, err, MEST_E_SHAPE, "%s: a scalar cannot be sparse", format);
    count = 1;
    for (int i = 0; i < shape->rank; i++)
        MEST_CHECK(shape->dim[i] >= 0 && !__builtin_mul_overflow(count, shape->dim[i], &count), err, MEST_E_SHAPE,
                   "%s: axis %d of a sparse weight has no usable size", format, i);
    MEST_NEW(heap, s, 1, err, "sparse weight");
    *s = (mest_sparse){ .format = f, .shape = *shape, .rows = shape->dim[0], .height = height, .heap = heap };
    s->cols = mest_shape_span(shape, 1, shape->rank);
    snprintf(s->name, sizeof s->name, "%s", format);
    MEST_TRY_OUT(f->configure(s, err));
    MEST_TRY_OUT(allocate(s, cap_units, &s->values, &s->index, &s->index_size, err));
    s->cap_units = cap_units;
    f->append(s, NULL, 0);
    f->finish(s);
    *out = s;
out:
    if (status != MEST_OK)
        mest_free(heap, s, 1, sizeof *s);
    return status;
}

void mest_sparse_destroy(mest_sparse *s)
{
    if (!s)
        return;
    mest_free(s->heap, s->values, (size_t)s->cap_units * (size_t)s->unit_elements, sizeof *s->values);
    mest_free(s->heap, s->index, s->index_size, 1);
    mest_free(s->heap, s, 1, sizeof *s);
}

void mest_sparse_copy_pattern(mest_sparse *to, const mest_sparse *from)
{
    mest_appender put;
    mest_cursor get;
    mest_appender_init(&put, to);
    mest_cursor_init(&get, from);
    for (; get.at < from->active_units; get.at++)
        mest_appender_put(&put, mest_cursor_peek(&get));
    mest_appender_finish(&put);
}

mest_status mest_sparse_reserve(mest_sparse *s, int64_t cap_units, mest_error *err)
{
    if (cap_units <= s->cap_units)
        return MEST_OK;
    mest_sparse larger = *s;
    MEST_TRY(allocate(s, cap_units, &larger.values, &larger.index, &larger.index_size, err));
    larger.cap_units = cap_units;
    mest_sparse_copy_pattern(&larger, s); /* versions move: whoever kept a pointer looks again */
    memcpy(larger.values, s->values, (size_t)s->stored * sizeof *s->values);
    mest_free(s->heap, s->values, (size_t)s->cap_units * (size_t)s->unit_elements, sizeof *s->values);
    mest_free(s->heap, s->index, s->index_size, 1);
    *s = larger;
    return MEST_OK;
}

/* Zeroes what reaches past the matrix: only units of the last block row do. */
static void clear_padding(mest_sparse *s)
{
    int64_t pad = mest_block_rows(s) * s->height - s->rows;
    if (pad <= 0)
        return;
    for (int64_t p = mest_sparse_lower_bound(s, (mest_block_rows(s) - 1) * s->cols); p < s->active_units; p++)
        for (int64_t e = s->height - pad; e < s->height; e++)
            s->values[p * s->height + e] = 0;
}

mest_status mest_sparse_from_units(mest_sparse *s, const int64_t *units, int64_t n, const mest_real *values, mest_error *err)
{
    MEST_CHECK(n >= 0 && n <= s->cap_units, err, MEST_E_LIMIT, "%s: %" PRId64 " units do not fit in room for %" PRId64, s->name, n, s->cap_units);
    MEST_CHECK(mest_units_valid(units, n, s->n_units), err, MEST_E_ARGUMENT, "%s: units are not ascending, distinct and below %" PRId64, s->name,
               s->n_units);
    s->active_units = 0;
    s->format->append(s, units, n);
    s->format->finish(s);
    s->stored = n * s->unit_elements;
    if (values)
        memcpy(s->values, values, (size_t)s->stored * sizeof *values);
    else
        memset(s->values, 0, (size_t)s->stored * sizeof *s->values);
    clear_padding(s);
    s->version++;
    s->value_version++;
    return MEST_OK;
}

void mest_sparse_set(mest_sparse *s, const int64_t *units, int64_t n, const mest_real *values)
{
    size_t bytes = (size_t)s->unit_elements * sizeof *values;
    for (int64_t i = 0; i < n; i++)
        memcpy(s->values + mest_sparse_lower_bound(s, units[i]) * s->unit_elements, values + i * s->unit_elements, bytes);
    clear_padding(s);
    s->value_version++;
}

int64_t mest_sparse_lower_bound(const mest_sparse *s, int64_t unit)
{
    int64_t low = 0, high = s->active_units;
    while (low < high) {
        int64_t middle = low + (high - low) / 2, at;
        s->format->units(s, middle, 1, &at);
        if (at < unit)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool mest_sparse_active(const mest_sparse *s, int64_t unit)
{
    int64_t at = mest_sparse_lower_bound(s, unit), found = -1;
    if (at < s->active_units)
        s->format->units(s, at, 1, &found);
    return found == unit;
}

enum { MAX_UNIT = 64 };

void mest_sparse_dense_rows(const mest_sparse *s, const mest_real *values, int64_t row0, int64_t n, float *out)
{
    int32_t row[MAX_UNIT], col[MAX_UNIT];
    memset(out, 0, (size_t)n * (size_t)s->cols * sizeof *out);
    /* Rows ascend with the units: skip those that end above row0, stop at the first that starts below the range. */
    int64_t low = 0, high = s->active_units;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        s->format->entries(s, middle, row, col);
        if (row[s->unit_elements - 1] < row0)
            low = middle + 1;
        else
            high = middle;
    }
    for (int64_t i = low; i < s->active_units; i++) {
        s->format->entries(s, i, row, col);
        if (row[0] >= row0 + n)
            break;
        for (int32_t e = 0; e < s->unit_elements; e++)
            if (row[e] >= row0 && row[e] < row0 + n && row[e] < s->rows)
                out[(row[e] - row0) * s->cols + col[e]] = (float)values[i * s->unit_elements + e];
    }
}

void mest_sparse_coords(const mest_sparse *s, int64_t first, int64_t n, int64_t *out)
{
    int32_t row[MAX_UNIT], col[MAX_UNIT];
    int64_t unit = -1;
    for (int64_t k = 0; k < n; k++) {
        int64_t i = (first + k) / s->unit_elements, e = (first + k) % s->unit_elements;
        if (i != unit)
            s->format->entries(s, unit = i, row, col);
        out[k] = row[e] < s->rows ? row[e] * s->cols + col[e] : -1;
    }
}

int64_t mest_sparse_nnz(const mest_sparse *s)
{
    int64_t pad = mest_block_rows(s) * s->height - s->rows;
    if (pad <= 0)
        return s->stored;
    return s->stored - pad * (s->active_units - mest_sparse_lower_bound(s, (mest_block_rows(s) - 1) * s->cols));
}
