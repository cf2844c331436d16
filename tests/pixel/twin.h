/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel of an operator against its plain reference, in every layout it accepts.
 *
 *   twin_case   an operator with shapes
 *   twin_check  runs the reference, then each kernel that fits: with 1 and 2 threads (same bits), odd lanes and halos, guard bytes
 *               around outputs, garbage in spare slots and idle lanes of forward values
 */
#ifndef MEST_TESTS_PIXEL_TWIN_H
#define MEST_TESTS_PIXEL_TWIN_H

#include "ops/nn.h"

enum { TWIN_IN = 6, TWIN_OUT = 4 };

typedef enum twin_kind {
    TWIN_NONE = 0,     /* absent */
    TWIN_PLAIN = 1,    /* stays plain */
    TWIN_VALUE = 2,    /* takes the layout under test; idle lanes hold anything finite */
    TWIN_GRADIENT = 3, /* takes the layout under test; idle lanes are zero */
    TWIN_INDEX = 4     /* int64, plain */
} twin_kind;

typedef struct twin_operand {
    twin_kind kind;
    int rank;
    int64_t dim[5];
    bool positive; /* variances: uniform in [0.5, 1.5] */
    double reach;  /* uniform in [-reach, reach]; 0: 1 */
    bool ties;     /* multiples of 1/2: maxima are met more than once */
    int copy_of;   /* inputs: 1 + number of the output of `source` it holds (Y of a forward op) */
} twin_operand;

/* Operands by dimensions. */
#define TWIN_OF(k, ...) {.kind = (k), .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = {__VA_ARGS__}}
#define VALUE(...) TWIN_OF(TWIN_VALUE, __VA_ARGS__)
#define GRADIENT(...) TWIN_OF(TWIN_GRADIENT, __VA_ARGS__)
#define PLAIN(...) TWIN_OF(TWIN_PLAIN, __VA_ARGS__)
#define POSITIVE(...) {.kind = TWIN_PLAIN, .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = {__VA_ARGS__}, .positive = true}
#define NONE {.kind = TWIN_NONE}

typedef struct twin_case {
    const char *op;
    const void *params;
    twin_operand in[TWIN_IN], out[TWIN_OUT];
    double tolerance;  /* of |difference| / (1 + |reference|) */
    const char *source; /* forward operator (first input) that makes the inputs marked copy_of */
    int updates;       /* bit i: input i is written too, and compared */
} twin_case;

/* Number of kernel runs compared. Fails the test on any difference. */
int twin_check(const twin_case *c);
/* How often a kernel has been run by name, so that a test can insist on it. */
int twin_runs(const char *name);
/* ONNX name: domain ""; "mest.*": helpers. */
const mest_op *twin_op(const char *name);
double twin_random(uint64_t *state);

#endif
