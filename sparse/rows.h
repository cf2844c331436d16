/* SPDX-License-Identifier: Apache-2.0 */
/* The index csr and block share: row_start[block_rows + 1], col[cap], both int32; see format.h. */
#ifndef MEST_SPARSE_ROWS_H
#define MEST_SPARSE_ROWS_H

#include "sparse/format.h"

mest_status mest_rows_configure(mest_sparse *s, mest_error *err);
size_t mest_rows_index_bytes(const mest_sparse *s, int64_t cap_units);
void mest_rows_append(mest_sparse *s, const int64_t *units, int64_t n);
void mest_rows_finish(mest_sparse *s);
void mest_rows_units(const mest_sparse *s, int64_t first, int64_t n, int64_t *out);
void mest_rows_entries(const mest_sparse *s, int64_t i, int32_t *row, int32_t *col);
mest_status mest_rows_check(const mest_sparse *s, mest_error *err);

#endif
