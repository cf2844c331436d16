/* SPDX-License-Identifier: Apache-2.0 */
/* Header of a NumPy .npy file. */
#ifndef MEST_IMPORTERS_NPY_HEADER_H
#define MEST_IMPORTERS_NPY_HEADER_H

#include "runtime/status.h"

#define MEST_NPY_MAX_RANK 32 /* NumPy's own limit */

typedef struct mest_npy_header {
    char kind;       /* 'f', 'i', 'u', 'b' */
    int item_bytes;
    bool big_endian;
    int rank;
    int64_t dim[MEST_NPY_MAX_RANK];
    size_t payload;  /* offset of the first element */
} mest_npy_header;

/* Reads the header of a file of `size` bytes at `bytes`. MEST_E_DATA with `path`: not a .npy file, a version or type that is not read,
 * Fortran order, damaged. Dimensions are >= 0; whether the elements are there is the caller's check. */
mest_status mest_npy_parse(mest_npy_header *header, const uint8_t *bytes, size_t size, const char *path, mest_error *err);

#endif
