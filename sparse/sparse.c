/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sparse/cursor.h"
#include "sparse/piece.h"

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

static size_t room_count(const mest_sparse *s) { return 2 * (size_t)s->group_units; }

static mest_status allocate_room(mest_sparse *s, mest_error *err)
{
    if (s->group_units)
        MEST_NEW(s->heap, s->group_room, room_count(s), err, "slots of a group");
    return MEST_OK;
}

mest_status mest_sparse_make(mest_sparse **out, mest_heap *heap, const mest_sparse_spec *spec, int64_t cap_units, mest_error *err)
{
    const mest_shape *shape = spec->shape;
    mest_scheme scheme;
    int64_t count;
    mest_sparse *s;
    mest_status status;
    *out = NULL;
    MEST_TRY(mest_scheme_find(spec->scheme, &scheme, err));
    MEST_CHECK(shape->rank >= 1, err, MEST_E_SHAPE, "%s: a scalar cannot be sparse", spec->scheme);
    count = 1;
    for (int i = 0; i < shape->rank; i++)
        MEST_CHECK(shape->dim[i] >= 0 && !__builtin_mul_overflow(count, shape->dim[i], &count), err, MEST_E_SHAPE,
                   "%s: axis %d of a sparse weight has no usable size", spec->scheme, i);
    MEST_NEW(heap, s, 1, err, "sparse weight");
    *s = (mest_sparse){ .format = scheme.format, .scheme = scheme, .shape = *shape, .inputs_first = spec->inputs_first, .rows = shape->dim[0],
                        .patterns = spec->patterns ? *spec->patterns : *mest_patterns_default(), .choices = 1, .cell_cols = 1, .cell_units = 1,
                        .heap = heap };
    s->cols = mest_shape_span(shape, 1, shape->rank);
    s->channels = shape->rank > 1 ? shape->dim[1] : 1;
    s->taps = shape->rank > 2 ? mest_shape_span(shape, 2, shape->rank) : 1;
    if (s->taps == 0)
        s->taps = 1; /* no columns at all */
    snprintf(s->name, sizeof s->name, "%s", spec->scheme);
    MEST_TRY_OUT(scheme.format->configure(s, err));
    if (s->row_span * s->cell_cols > MEST_PIECE) {
        status = mest_fail(err, MEST_E_SHAPE, "%s: kernels of %" PRId64 " positions are too large for this scheme", s->name, s->taps);
        goto out;
    }
    MEST_TRY_OUT(allocate_room(s, err));
    MEST_TRY_OUT(allocate(s, cap_units, &s->values, &s->index, &s->index_size, err));
    s->cap_units = cap_units;
    s->format->append(s, NULL, 0);
    s->format->finish(s);
    *out = s;
out:
    if (status != MEST_OK) {
        mest_free(heap, s->group_room, room_count(s), sizeof *s->group_room);
        mest_free(heap, s, 1, sizeof *s);
    }
    return status;
}

mest_status mest_sparse_create(mest_sparse **out, mest_heap *heap, const char *scheme, const mest_shape *shape, int64_t cap_units, mest_error *err)
{
    return mest_sparse_make(out, heap, &(mest_sparse_spec){ .scheme = scheme, .shape = shape }, cap_units, err);
}

void mest_sparse_destroy(mest_sparse *s)
{
    if (!s)
        return;
    mest_free(s->heap, s->values, (size_t)s->cap_units * (size_t)s->unit_elements, sizeof *s->values);
    mest_free(s->heap, s->index, s->index_size, 1);
    mest_free(s->heap, s->group_room, room_count(s), sizeof *s->group_room);
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

int64_t mest_sparse_units_at(const mest_sparse *s, double sparsity)
{
    return s->format->units_at ? s->format->units_at(s, sparsity) : mest_units_at(sparsity, s->n_units);
}

double mest_sparse_least_sparsity(const mest_sparse *s) { return s->format->least_sparsity ? s->format->least_sparsity(s) : 0; }

int64_t mest_sparse_group_most(const mest_sparse *s)
{
    if (s->group_units == 0)
        return INT64_MAX;
    const int64_t groups = s->n_units / s->group_units;
    return groups ? (s->cap_units + groups - 1) / groups : 0;
}

/* Zeroes what reaches past the matrix. */
static void clear_padding(mest_sparse *s)
{
    int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
    int64_t from = s->ragged ? 0 : mest_sparse_lower_bound(s, (s->unit_rows - 1) * s->unit_cols);
    if (!s->ragged && s->unit_rows * s->row_span <= s->rows)
        return;
    for (int64_t p = from; p < s->active_units; p++) {
        mest_sparse_entries(s, p, 1, row, col);
        for (int32_t e = 0; e < s->unit_elements; e++)
            if (col[e] < 0 || row[e] >= s->rows)
                s->values[p * s->unit_elements + e] = 0;
    }
}

/* Ascending, in range, one choice a slot, no group too full. */
static mest_status check_units(const mest_sparse *s, const int64_t *units, int64_t n, mest_error *err)
{
    const int64_t most = mest_sparse_group_most(s), span = s->group_units * s->choices;
    MEST_CHECK(mest_units_valid(units, n, mest_sparse_ids(s)), err, MEST_E_ARGUMENT, "%s: units are not ascending, distinct and below %" PRId64,
               s->name, mest_sparse_ids(s));
    for (int64_t i = 0, in_group = 0; i < n && span; i++) {
        MEST_CHECK(i == 0 || units[i] / s->choices > units[i - 1] / s->choices, err, MEST_E_ARGUMENT, "%s: units %" PRId64 " and %" PRId64
                   " are two choices of one slot", s->name, units[i - 1], units[i]);
        in_group = i && units[i] / span == units[i - 1] / span ? in_group + 1 : 1;
        MEST_CHECK(in_group <= most, err, MEST_E_LIMIT, "%s: more than %" PRId64 " units in the group of unit %" PRId64, s->name, most, units[i]);
    }
    return MEST_OK;
}

mest_status mest_sparse_from_units(mest_sparse *s, const int64_t *units, int64_t n, const mest_real *values, mest_error *err)
{
    MEST_CHECK(n >= 0 && n <= s->cap_units, err, MEST_E_LIMIT, "%s: %" PRId64 " units do not fit in room for %" PRId64, s->name, n, s->cap_units);
    MEST_TRY(check_units(s, units, n, err));
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
    if (s->format->find)
        return s->format->find(s, unit);
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
