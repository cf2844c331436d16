/* SPDX-License-Identifier: Apache-2.0 */
/* A dense tensor read through a mest_reader in pieces of whole cells: all rows of a unit row, some columns. */
#ifndef MEST_SPARSE_PIECE_H
#define MEST_SPARSE_PIECE_H

#include "sparse/format.h"

enum { MEST_PIECE = 4096 }; /* elements */

typedef struct mest_piece {
    const mest_sparse *s;
    const mest_reader *reader;
    int64_t b, col0, n_cols;    /* columns col0 .. col0 + n_cols - 1 of unit row b */
    int64_t slot0, n_slots;     /* slots of that unit row they decide about */
    int64_t width;              /* columns of a full piece */
    bool ready;                 /* the two below are known */
    bool upright;               /* every unit is one column of the piece, from its first row to its last */
    int16_t place[MEST_PIECE];  /* otherwise: entries of the units of the first cell, as places in `value`, -1: padding; they lie alike in all cells */
    float value[MEST_PIECE];    /* [row_span, width] */
} mest_piece;

void mest_piece_rewind(mest_piece *p);
/* How many pieces there are; the next one read is piece `at`. */
int64_t mest_piece_count(const mest_sparse *s);
void mest_piece_seek(mest_piece *p, int64_t at);
/* Reads the next piece; n_cols == 0 at the end. Rows and columns past the matrix are zero. */
mest_status mest_piece_next(mest_piece *p, mest_error *err);
/* L2 norms of the n_slots slots of the piece (format.h); of a slot with choices that of its best one, which is choice[i] (untouched where there
 * are none, and may be NULL then). */
void mest_piece_norms(const mest_piece *p, float *norm, uint8_t *choice);
/* Values of the entries of a choice of slot `slot` of the unit row, padding 0. */
void mest_piece_values(const mest_piece *p, int64_t slot, int32_t choice, mest_real *out);

#endif
