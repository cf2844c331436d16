/* SPDX-License-Identifier: Apache-2.0 */
/* What the general operators share: checked shapes, constant integers, loops over elements with strides, reductions.
 *
 *   mest_spread   a loop nest over a result, with strides for every operand (broadcasting: stride 0)
 *   mest_io       the operands of a loop nest; what a row function gets
 *   mest_row_fn   does the innermost loop
 *   mest_fold     a reduction over some axes of a packed array
 *
 * Nothing here allocates: forwards run inside the step loop.
 */
#ifndef MEST_OPS_ELEMENTS_H
#define MEST_OPS_ELEMENTS_H

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "runtime/op.h"

/* libm for mest_real: REAL(exp)(x) */
#if MEST_REAL_IS_DOUBLE
#define REAL(fn) fn
#else
#define REAL(fn) fn##f
#endif

/* Iterations of the loop do not depend on each other, although input and output may be the same memory (same index). clang checks for overlap
 * by itself, and would warn where it cannot vectorise. */
#if defined(__GNUC__) && !defined(__clang__)
#define MEST_IVDEP _Pragma("GCC ivdep")
#else
#define MEST_IVDEP
#endif

/* No value may be larger than this: sizes come from files. */
#define MEST_VALUE_LIMIT_BYTES ((int64_t)1 << 40)

/* ---- shape rules ---- */
/* Sets dtype and shape of an output; MEST_E_SHAPE on negative sizes, MEST_E_LIMIT past MEST_VALUE_LIMIT_BYTES, MEST_E_UNSUPPORTED for
 * element types without storage (strings). */
mest_status mest_infer_set(mest_infer *c, int output, mest_dtype dtype, const mest_shape *shape);
/* Output 0 like input 0, which must be float. */
mest_status mest_infer_float(mest_infer *c);
/* Output 0: broadcast of all inputs, which must be float. */
mest_status mest_infer_float_broadcast(mest_infer *c);
/* Output 0: the float type with params' shape (params start with a mest_shape_params). */
mest_status mest_infer_shape_params(mest_infer *c);
/* Reads input `input`, which must be a constant of rank 0 or 1 with at most max int64 or int32 elements. */
mest_status mest_infer_ints(const mest_infer *c, int input, int max, int64_t *v, int *n);
/* The same input at run time, after infer accepted it. Absent: 0 elements. */
int mest_read_ints(const mest_tensor *t, int max, int64_t *v);
/* Element i of an int64 or int32 array. */
static inline int64_t mest_int_at(mest_dtype dtype, const void *data, int64_t i)
{
    return dtype == MEST_I32 ? ((const int32_t *)data)[i] : ((const int64_t *)data)[i];
}

/* Any integer type, bool included (uint64: above 2^63 - 1 it wraps); the range of the type, which store does not check. */
bool mest_dtype_is_integer(mest_dtype dtype);
int64_t mest_integer_at(mest_dtype dtype, const void *data, int64_t i);
void mest_integer_store(mest_dtype dtype, void *data, int64_t i, int64_t v);
void mest_integer_range(mest_dtype dtype, int64_t *lo, int64_t *hi);
static inline bool mest_dtype_is_index(mest_dtype dtype) { return dtype == MEST_I64 || dtype == MEST_I32; }
static inline bool mest_dtype_is_float(mest_dtype dtype) { return dtype == MEST_F32 || dtype == MEST_F64; }
/* Axis attribute of the node against a rank; -1 and an error when out of range. */
mest_status mest_infer_axis(const mest_infer *c, int64_t axis, int rank, int *resolved);
mest_shape mest_shape_vector(int64_t n); /* [n] */

/* ---- gradient rules ---- */
mest_status mest_vjp_from_x(mest_vjp *v); /* mest.<Op>Grad(X, dY) */
mest_status mest_vjp_from_y(mest_vjp *v); /* mest.<Op>Grad(Y, dY) */
mest_status mest_vjp_zero(mest_vjp *v);   /* the gradient is zero everywhere */
/* Gives input i the gradient reshaped to that input's shape, without moving data. */
mest_status mest_vjp_reshaped(mest_vjp *v, int input, mest_id gradient);
/* params of type mest_shape_params with the shape of value `id`; NULL when out of memory. */
void *mest_vjp_shape_params(mest_vjp *v, mest_id id);
mest_status mest_vjp_nomem(mest_vjp *v);

/* ---- loops ---- */
#define MEST_SPREAD_RANK (2 * MEST_MAX_RANK)
#define MEST_SPREAD_MAX 5 /* output and up to four inputs */

typedef struct mest_spread {
    int n, rank;                                        /* operands (0 is the output); axes */
    int64_t dim[MEST_SPREAD_RANK];
    int64_t stride[MEST_SPREAD_MAX][MEST_SPREAD_RANK];  /* in elements */
} mest_spread;

typedef struct mest_io {
    void *out;
    const void *in[MEST_SPREAD_MAX - 1];
    const void *params;
    int64_t step[MEST_SPREAD_MAX]; /* stride of the innermost loop: 0 is the output, i + 1 input i */
} mest_io;

/* One innermost loop of n elements; off[k] are element offsets of the operands. */
typedef void (*mest_row_fn)(const mest_io *io, const int64_t *off, int64_t n);

/* Starts a nest over a packed output of shape `out`; adds a packed operand that broadcasts to it. */
void mest_spread_begin(mest_spread *s, const mest_shape *out);
void mest_spread_add(mest_spread *s, const mest_shape *operand);
/* Merges axes; runs the nest. io->step is filled here. Rows are cut into tiles by size alone, so the result never depends on threads. */
void mest_spread_run(const mest_threads *threads, mest_spread *s, mest_io *io, mest_row_fn fn);
/* out = row(in...) for operands that broadcast to the output; PIXEL layouts when all operands that are not scalars share it. */
void mest_rows(const mest_args *a, int n_in, const int *which, mest_row_fn fn);
/* The same for inputs 0..n_in-1. */
void mest_rows_all(const mest_args *a, mest_row_fn fn);
/* Strided copy: operand 0 is written, operand 1 read; bases point to the first elements. */
void mest_spread_copy(const mest_threads *threads, mest_spread *s, size_t element_bytes, void *out, const void *in);
/* Copies in[0] to out[0] unless they are the same memory. Any fixed-size type. */
mest_status mest_forward_copy(const mest_args *a);
/* n elements of `bytes` set to the pattern at `value`. */
void mest_fill_elements(void *out, int64_t n, size_t bytes, const void *value);

/* ---- reductions ---- */
typedef enum mest_fold_kind {
    MEST_FOLD_SUM, MEST_FOLD_MEAN, MEST_FOLD_MAX, MEST_FOLD_MIN, MEST_FOLD_PROD, MEST_FOLD_L1, MEST_FOLD_L2, MEST_FOLD_LOG_SUM,
    MEST_FOLD_LOG_SUM_EXP, MEST_FOLD_SUM_SQUARE,
    MEST_FOLD_TIES,          /* elements equal to the group's value in `with` */
    MEST_FOLD_PROD_NONZERO,  /* product of the elements that are not zero */
    MEST_FOLD_ZEROS          /* number of zeros */
} mest_fold_kind;

typedef struct mest_fold {
    mest_fold_kind kind;
    int rank;
    int64_t dim[MEST_SPREAD_RANK];
    bool reduced[MEST_SPREAD_RANK];
} mest_fold;

/* out[kept] = fold of in over the reduced axes; both packed. `with` (TIES only) has the shape of out. Fixed order of summation.
 * dtype: MEST_F32, MEST_F64, MEST_I64, MEST_I32, MEST_U8, MEST_I8. False: not supported for the type. */
bool mest_fold_run(const mest_threads *threads, const mest_fold *f, mest_dtype dtype, const void *in, const void *with, void *out);

/* ---- params that kernels may want to read ---- */
typedef struct mest_alpha_params { double alpha, beta; } mest_alpha_params; /* LeakyRelu, Elu, Celu, HardSigmoid, Swish; Selu: alpha, beta = gamma */
typedef struct mest_gelu_params { const char *approximate; } mest_gelu_params; /* "none", "tanh" */
typedef struct mest_axis_params { int64_t axis; } mest_axis_params;            /* Concat, Flatten, OneHot */
typedef struct mest_gather_params { int64_t axis; mest_shape x; } mest_gather_params; /* Gather, GatherElements; x: gradients, shape of X */
typedef struct mest_transpose_params { mest_ints perm; } mest_transpose_params;
typedef struct mest_reduce_params {
    int64_t keepdims, noop;
    mest_fold_kind kind;  /* gradient nodes only, as all that follows */
    double scale;
    mest_shape x, kept;   /* shape of X; the same with reduced axes of size 1 */
} mest_reduce_params;

#endif
