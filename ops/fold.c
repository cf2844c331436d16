/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions over any axes of a packed array. Sums are kept in double (integers: 64 bits, wrapping), in an order that depends on the
 * shape alone. */
#include "ops/elements.h"

enum { FOLD_LANES = 8, FOLD_CHUNK = 64 };

typedef struct fold_plan {
    mest_fold_kind kind;
    const void *in, *with;
    void *out;
    bool last_kept;
    int n_kept_axes, n_reduced;                    /* without the last axis */
    int64_t kept_dim[MEST_SPREAD_RANK], kept_stride[MEST_SPREAD_RANK];
    int64_t reduced_dim[MEST_SPREAD_RANK], reduced_stride[MEST_SPREAD_RANK];
    int64_t inner, n_kept, n_reduced_rows, rows_per_tile;
    int64_t count;                                 /* elements of one group */
} fold_plan;

/* Offset of the first element of the row-th group. */
static int64_t fold_offset(const fold_plan *p, int64_t row)
{
    int64_t off = 0;
    for (int i = p->n_kept_axes - 1; i >= 0; i--) {
        off += row % p->kept_dim[i] * p->kept_stride[i];
        row /= p->kept_dim[i];
    }
    return off;
}

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

/* floating */
#define ACC double
#define ACC_ADD(a, b) ((a) + (b))
#define ACC_MUL(a, b) ((a) * (b))
#define ACC_NEG(a) (-(a))
#define ACC_NAN(a) ((a) != (a))
#define ACC_FINITE(a) isfinite(a)
#define ACC_LOWEST (-INFINITY)
#define ACC_HIGHEST INFINITY
#define MATH 1
#define T mest_real
#define FOLD_NAME(x) JOIN(x, real)
#include "ops/fold_impl.h"
#undef T
#undef FOLD_NAME
#define T double
#define FOLD_NAME(x) JOIN(x, f64)
#include "ops/fold_impl.h"
#undef T
#undef FOLD_NAME
#undef ACC
#undef ACC_ADD
#undef ACC_MUL
#undef ACC_NEG
#undef ACC_NAN
#undef ACC_FINITE
#undef ACC_LOWEST
#undef ACC_HIGHEST
#undef MATH

/* integers: two's complement without overflow traps */
#define ACC int64_t
#define ACC_ADD(a, b) ((int64_t)((uint64_t)(a) + (uint64_t)(b)))
#define ACC_MUL(a, b) ((int64_t)((uint64_t)(a) * (uint64_t)(b)))
#define ACC_NEG(a) ((int64_t)(0 - (uint64_t)(a)))
#define ACC_NAN(a) 0
#define ACC_FINITE(a) 1
#define ACC_LOWEST INT64_MIN
#define ACC_HIGHEST INT64_MAX
#define MATH 0
#define T int64_t
#define FOLD_NAME(x) JOIN(x, i64)
#include "ops/fold_impl.h"
#undef T
#undef FOLD_NAME
#define T int32_t
#define FOLD_NAME(x) JOIN(x, i32)
#include "ops/fold_impl.h"
#undef T
#undef FOLD_NAME
#define T uint8_t
#define FOLD_NAME(x) JOIN(x, u8)
#include "ops/fold_impl.h"
#undef T
#undef FOLD_NAME
#define T int8_t
#define FOLD_NAME(x) JOIN(x, i8)
#include "ops/fold_impl.h"

bool mest_fold_run(const mest_threads *threads, const mest_fold *f, mest_dtype dtype, const void *in, const void *with, void *out)
{
    void (*tile)(void *, size_t) = dtype == MEST_F32 ? tile_real : dtype == MEST_F64 ? tile_f64 : dtype == MEST_I64 ? tile_i64
        : dtype == MEST_I32 ? tile_i32 : dtype == MEST_U8 ? tile_u8 : dtype == MEST_I8 ? tile_i8 : NULL;
    bool floating = dtype == MEST_F32 || dtype == MEST_F64;
    if (!tile || (!floating && (f->kind == MEST_FOLD_LOG_SUM_EXP || f->kind == MEST_FOLD_LOG_SUM)))
        return false;

    fold_plan p = {.kind = f->kind, .in = in, .with = with, .out = out, .n_kept = 1, .n_reduced_rows = 1, .count = 1};
    int64_t dim[MEST_SPREAD_RANK + 1];
    bool reduced[MEST_SPREAD_RANK + 1];
    int rank = 0;
    for (int i = 0; i < f->rank; i++) {
        if (f->dim[i] == 1)
            continue;
        if (rank > 0 && reduced[rank - 1] == f->reduced[i]) {
            dim[rank - 1] *= f->dim[i];
        } else {
            dim[rank] = f->dim[i];
            reduced[rank++] = f->reduced[i];
        }
    }
    if (rank == 0) { /* one element: a group of one */
        dim[0] = 1;
        reduced[0] = true;
        rank = 1;
    }
    int64_t stride = 1;
    p.last_kept = !reduced[rank - 1];
    p.inner = dim[rank - 1];
    stride = p.inner;
    if (!p.last_kept)
        p.count = p.inner;
    for (int i = rank - 2; i >= 0; i--) {
        if (reduced[i])
            p.n_reduced++;
        else
            p.n_kept_axes++;
    }
    int k = p.n_kept_axes, r = p.n_reduced;
    for (int i = rank - 2; i >= 0; i--) {
        if (reduced[i]) {
            p.reduced_dim[--r] = dim[i];
            p.reduced_stride[r] = stride;
            p.n_reduced_rows *= dim[i];
            p.count *= dim[i];
        } else {
            p.kept_dim[--k] = dim[i];
            p.kept_stride[k] = stride;
            p.n_kept *= dim[i];
        }
        stride *= dim[i];
    }
    size_t tiles;
    if (p.last_kept) {
        tiles = (size_t)(p.n_kept * ((p.inner + FOLD_CHUNK - 1) / FOLD_CHUNK));
    } else {
        p.rows_per_tile = p.count >= 4096 ? 1 : 4096 / (p.count > 0 ? p.count : 1);
        tiles = (size_t)((p.n_kept + p.rows_per_tile - 1) / p.rows_per_tile);
    }
    if (tiles == 1)
        tile(&p, 0);
    else if (tiles > 1)
        mest_parallel(threads, tiles, tile, &p);
    return true;
}
