/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of the gradient check: one table per author, listed in cases.def.
 *
 *   grad_input   one input of the operator: type, where its numbers come from, whether it is differentiated
 *   grad_case    one application of one operator
 *   grad_exempt  an operator whose gradient rule cannot be checked by differences, and why
 *
 * The runner builds a graph with the one node, puts mest.MSELoss with a random target behind each float output in turn (or takes output 0
 * itself as the loss), differentiates it, and compares the gradient of every element of every GRAD_VAR input with a central difference
 * in double. An operator with a vjp that has neither a case nor an exemption fails.
 */
#ifndef MEST_TESTS_GRAD_CASES_H
#define MEST_TESTS_GRAD_CASES_H

#include "runtime/op.h"

typedef enum grad_role {
    GRAD_VAR = 0,    /* float, differentiated */
    GRAD_FIXED = 1,  /* data of the run, gradient not asked for (running statistics, targets, indices) */
    GRAD_CONST = 2,  /* a constant of the graph: shape rules see its data (axes, sizes, pads) */
    GRAD_ABSENT = 3  /* optional input that is not there */
} grad_role;

typedef enum grad_fill {
    GRAD_UNIFORM = 0,  /* uniform in [lo, hi]; lo = hi = 0 means [-1, 1] */
    GRAD_SIGNED = 1,   /* |x| uniform in [lo, hi] (0, 0 means [0.1, 1]) with a random sign: off a kink at 0 */
    GRAD_DISTINCT = 2, /* a random order of numbers at least 0.02 apart: no ties for maxima, sorts */
    GRAD_NUMBERS = 3   /* the numbers given: `ints` for integer and bool types, else `reals` */
} grad_fill;

typedef struct grad_input {
    mest_shape shape;
    grad_role role;
    grad_fill fill;
    double lo, hi;
    mest_dtype dtype;      /* MEST_UNDEFINED means MEST_F32 */
    const double *reals;   /* GRAD_NUMBERS: as many as the shape has elements */
    const int64_t *ints;
} grad_input;

#define GRAD_MAX_IN 8
typedef struct grad_case {
    const char *name;      /* what is special: "grouped, dilated"; NULL ends a table */
    const char *op;        /* "Conv", "mest.BatchNormTrain" */
    int64_t opset;         /* 0: the newest form of the operator */
    const void *params;    /* the operator's params structure, every field set (attribute defaults are not applied); NULL: none */
    int n_in;
    grad_input in[GRAD_MAX_IN];
    int n_out;             /* outputs the node has; 0 means 1 */
    unsigned skip_out;     /* bit i: do not differentiate output i (masks, saved statistics, integer outputs are skipped anyway) */
    bool is_loss;          /* output 0 is a scalar and the loss itself */
    double tolerance;      /* relative to the largest gradient of the input; 0 means 1e-7 */
} grad_case;

/* Shapes: GRAD_SHAPE(2, 3, 4); a scalar is { .rank = 0 }. */
#define GRAD_DIMS(...) ((int32_t)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)))
#define GRAD_SHAPE(...) { .rank = GRAD_DIMS(__VA_ARGS__), .dim = { __VA_ARGS__ } }

typedef struct grad_exempt {
    const char *op;        /* NULL ends a table */
    const char *reason;
} grad_exempt;

#define GRAD_CASES(author)                     \
    extern const grad_case grad_cases_##author[]; \
    extern const grad_exempt grad_exempt_##author[];
#include "tests/grad/cases.def"
#undef GRAD_CASES

#endif
