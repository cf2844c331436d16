/* SPDX-License-Identifier: Apache-2.0 */
/* The masks of the pattern scheme: which positions of a 3x3 kernel are kept, bit 3 * row + column.
 * The default eight are those of MEST's released code (prune_utils/utils_pr.py, P1..P8). Backward-data sees each mask rotated by 180
 * degrees; six of the eight have that partner in the set, P5 (0x1e0) and P6 (0x0b8) have not, so kernels that are specialised by mask
 * must look at the masks and not assume a closed set. */
#ifndef MEST_SPARSE_PATTERNS_H
#define MEST_SPARSE_PATTERNS_H

#include "runtime/status.h"

enum { MEST_PATTERNS_MOST = 32, MEST_PATTERN_TAPS = 9 };

typedef struct mest_patterns {
    int32_t n, kept;                  /* masks, positions each of them keeps */
    uint16_t mask[MEST_PATTERNS_MOST];
    uint8_t tap[MEST_PATTERNS_MOST][MEST_PATTERN_TAPS]; /* the kept positions of each, ascending */
    bool rotates;                     /* the set holds each mask rotated by 180 degrees: backward-data may use the same kernels */
} mest_patterns;

const mest_patterns *mest_patterns_default(void);
/* Checks and fills in the rest: 1..32 distinct masks that all keep the same number of positions, 1..9. */
mest_status mest_patterns_make(mest_patterns *p, const uint16_t *mask, int n, mest_error *err);
/* A text of masks: numbers (0x1b0, decimal) or three rows of three ('x' or '1' kept, '.' or '0' not), separated by blanks or line ends;
 * '#' starts a comment. name is for messages. */
mest_status mest_patterns_parse(mest_patterns *p, const char *text, const char *name, mest_error *err);

#endif
