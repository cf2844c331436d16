/* SPDX-License-Identifier: Apache-2.0 */
/* The index the built-in formats share: start[unit_rows + 1], col[cap], both int32; see format.h. A format that uses it gives its name,
 * its geometry and the entries of a unit column, nothing else. */
#ifndef MEST_SPARSE_ROWS_H
#define MEST_SPARSE_ROWS_H

#include "sparse/format.h"

/* To be called at the end of configure, when the geometry is set: checks that 32-bit indices do, sets n_units. */
mest_status mest_rows_configure(mest_sparse *s, mest_error *err);
size_t mest_rows_index_bytes(const mest_sparse *s, int64_t cap_units);
void mest_rows_append(mest_sparse *s, const int64_t *units, int64_t n);
void mest_rows_finish(mest_sparse *s);
void mest_rows_units(const mest_sparse *s, int64_t first, int64_t n, int64_t *out);
mest_status mest_rows_check(const mest_sparse *s, mest_error *err);
int64_t mest_rows_find(const mest_sparse *s, int64_t unit);
void mest_rows_edit(mest_sparse *s, const struct mest_moves *moves);

/* The seven members of a mest_format. */
#define MEST_ROWS_INDEX                                                                                                    \
    .index_bytes = mest_rows_index_bytes, .append = mest_rows_append, .finish = mest_rows_finish, .units = mest_rows_units, \
    .check = mest_rows_check, .find = mest_rows_find, .edit = mest_rows_edit

#endif
