/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that draw random numbers: what the file's operators and the form they run in share. */
#ifndef MEST_OPS_DRAW_H
#define MEST_OPS_DRAW_H

#include "runtime/op.h"

typedef enum mest_draw_kind { MEST_DRAW_NORMAL, MEST_DRAW_UNIFORM, MEST_DRAW_BERNOULLI } mest_draw_kind;

typedef struct mest_draw_params {
    double a, b;          /* normal: mean and deviation; uniform: low and high */
    double seed;          /* attribute of the file: ignored, draws follow the session's seed */
    int64_t dtype;        /* ONNX's number of the element type; 0: the input's, without one float32 */
    mest_ints shape;      /* of operators without an input */
    mest_draw_kind kind;  /* mest.Draw only, as what follows */
    uint64_t key;         /* of the node */
} mest_draw_params;

#endif
