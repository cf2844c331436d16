/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse weights: a flat array of values plus an index. Only sparse/ and kernels know what the index is.
 *
 *   mest_sparse   one sparse parameter's pattern and values
 *   mest_format   vtable of a storage format (csr, block4, ...); one file each, listed in formats.def
 *   unit          what a scheme removes or grows as a whole; unit ids ascend in the order of storage
 *
 * A weight of dense shape [O, d1, d2, ...] is the matrix M[O, K], K = d1 * d2 * ... (Conv: d1 = C / group, then taps; Gemm with
 * transB = 1: [out, in]). A weight whose output axis is not first ([in, out] of MatMul or Gemm transB = 0, [in, out/group, kh, kw] of
 * ConvTranspose) is still stored by its own first axis; kernels know which axis is which.
 * Values of stored entries are in ascending unit order, unit_elements values a unit; entries of a unit that fall outside the matrix
 * (last block row when O % h != 0) are padding: value, gradient and optimizer state stay 0.
 * The same order holds for gradients and optimizer slots, which are plain arrays of `stored` values beside it.
 */
#ifndef MEST_SPARSE_FORMAT_H
#define MEST_SPARSE_FORMAT_H

#include "mest/plugin.h" /* units, mest_units_at */
#include "runtime/alloc.h"
#include "runtime/tensor.h"

typedef struct mest_sparse mest_sparse;

typedef struct mest_format {
    const char *family;  /* "csr", "block" */
    int32_t max_height;  /* largest parameter accepted after the family name ("block8"), 0: none is taken */
    /* Sets unit_elements, rows_per_unit, n_units from shape and height. */
    mest_status (*configure)(mest_sparse *s, mest_error *err);
    /* Bytes of index for cap_units units. */
    size_t (*index_bytes)(const mest_sparse *s, int64_t cap_units);
    /* Streams a pattern into the index: append takes ascending distinct unit ids, all past those before, and adds n to
     * active_units; with active_units == 0 it forgets the old content first. The index may be read after finish. Values are not
     * touched. No allocation. */
    void (*append)(mest_sparse *s, const int64_t *units, int64_t n);
    void (*finish)(mest_sparse *s);
    /* Unit ids of active units first..first+n-1, ascending. */
    void (*units)(const mest_sparse *s, int64_t first, int64_t n, int64_t *out);
    /* Row (of M) and column of every stored entry of active unit i: rows row[0..unit_elements-1] (ascending, may reach past O), one column each. */
    void (*entries)(const mest_sparse *s, int64_t i, int32_t *row, int32_t *col);
    /* Every invariant: counts, ranges, order, padding zero. */
    mest_status (*check)(const mest_sparse *s, mest_error *err);
} mest_format;

struct mest_sparse {
    const mest_format *format;
    char name[16];          /* "csr", "block4" */
    mest_shape shape;       /* dense shape */
    int64_t rows, cols;     /* O, K */
    int32_t height;         /* block height, 1 for csr */
    int32_t unit_elements;
    int64_t n_units;        /* U */
    int64_t active_units;   /* u */
    int64_t cap_units;      /* most units this run may hold */
    int64_t stored;         /* active_units * unit_elements: length of values, gradients, slots in use */
    uint32_t version;       /* +1 whenever the pattern changes; lists derived from the pattern compare it */
    uint32_t value_version; /* +1 whenever values change (optimizer step, load, edit); packed copies compare it */
    mest_real *values;      /* cap_units * unit_elements */
    void *index;            /* the format's; index_bytes(cap_units) */
    size_t index_size;
    mest_heap *heap;
};

/* csr index: int32_t row_start[rows + 1], then int32_t col[cap]. Row r holds entries row_start[r]..row_start[r+1]-1, columns ascending. */
static inline int32_t *mest_csr_row_start(const mest_sparse *s) { return (int32_t *)s->index; }
static inline int32_t *mest_csr_col(const mest_sparse *s) { return (int32_t *)s->index + s->rows + 1; }
/* block index: int32_t row_start[block_rows + 1], then int32_t col[cap]. Unit p of block row b covers rows b*h..b*h+h-1 of column
 * col[p]; its values are values[p*h .. p*h+h-1]. csr is the case h = 1 with the same arrays, so one kernel source may serve both. */
static inline int64_t mest_block_rows(const mest_sparse *s) { return (s->rows + s->height - 1) / s->height; }

/* Lines of formats.def. Number `index`, NULL past the end. */
const mest_format *mest_format_at(int index);
/* "csr", "block4": finds the format and the height. MEST_E_ARGUMENT lists what exists. */
mest_status mest_format_find(const char *name, const mest_format **format, int32_t *height, mest_error *err);

/* Creates an empty sparse weight. cap_units may be raised later by mest_sparse_reserve (before training). */
mest_status mest_sparse_create(mest_sparse **out, mest_heap *heap, const char *format, const mest_shape *shape, int64_t cap_units, mest_error *err);
void mest_sparse_destroy(mest_sparse *s);
mest_status mest_sparse_reserve(mest_sparse *s, int64_t cap_units, mest_error *err);

/* Gives `to` the pattern of `from`: same format and shape, to->cap_units >= from->active_units (checked by the caller). Values are not
 * touched; nothing is allocated. */
void mest_sparse_copy_pattern(mest_sparse *to, const mest_sparse *from);

/* Reads n elements from `first` of a dense tensor in C order, as float; how the mapped file is read without a dense copy. */
typedef struct mest_reader {
    mest_status (*read)(const void *self, int64_t first, int64_t n, float *out, mest_error *err);
    const void *self;
} mest_reader;

/* Keeps the n_units units of largest L2 norm (ties: lower id), values from the reader. The norm of a csr unit is |w| itself; of a
 * block, the square root of the sum of squares, added from the first row down in double and rounded to float. A NaN counts as larger
 * than everything. Four passes over the reader in pieces of 4096 elements; no memory beside the result. */
mest_status mest_sparse_from_magnitude(mest_sparse *s, const mest_reader *reader, int64_t n_units, mest_error *err);
/* n_units distinct units, uniform, keyed by (seed, stream); values uniform in [-bound, bound), keyed by their place in the dense
 * tensor (PyTorch's default, kaiming_uniform with a = sqrt(5), has bound = sqrt(1 / fan_in)). No memory beside the result. */
mest_status mest_sparse_from_random(mest_sparse *s, int64_t n_units, uint64_t seed, uint64_t stream, double bound, mest_error *err);
/* Explicit units (ascending) and their values (unit order), NULL values = 0: sparse_initializer, checkpoints. */
mest_status mest_sparse_from_units(mest_sparse *s, const int64_t *units, int64_t n, const mest_real *values, mest_error *err);

/* New values (unit order) of active units, ascending; what reaches past the matrix stays 0. */
void mest_sparse_set(mest_sparse *s, const int64_t *units, int64_t n, const mest_real *values);
/* One change of pattern. drop and grow ascending, distinct; drop active, grow inactive or in drop. Survivors keep value and the
 * slots given (arrays of cap_units * unit_elements, moved in place); new entries get 0 in all of them. Scratch is preallocated by
 * mest_sparse_edit_scratch bytes. All is checked before anything changes. */
size_t mest_sparse_edit_scratch(const mest_sparse *s, int n_slots);
mest_status mest_sparse_edit(mest_sparse *s, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow,
                             mest_real *const *slots, int n_slots, void *scratch, mest_error *err);

/* n distinct inactive units, uniform, ascending; keyed by (seed, stream). Units of `freed` (active ones about to be dropped) count as
 * inactive; units of `exclude` are never taken. Both ascending and distinct, NULL when empty. Memory: `out` only; time
 * O(u + n log U). MEST_E_LIMIT when fewer than n are there. */
mest_status mest_sparse_sample_inactive(const mest_sparse *s, uint64_t seed, uint64_t stream, const int64_t *freed, int64_t n_freed,
                                        const int64_t *exclude, int64_t n_exclude, int64_t n, int64_t *out, mest_error *err);
/* ||w|| + lambda * ||g|| of active units first..first+n-1; grad NULL = 0. normalised: both terms divided by their mean over all
 * active units (a pass over them in each call). */
void mest_sparse_scores(const mest_sparse *s, const mest_real *grad, double lambda, bool normalised, int64_t first, int64_t n, float *out);
/* L2 norms over the same units of an array in the order of storage (gradients, optimizer state). */
void mest_sparse_norms(const mest_sparse *s, const mest_real *x, int64_t first, int64_t n, float *out);
/* The k active units of smallest score, ties to the lower id, as ascending unit ids. Exact; no memory, no sort: O(u). A NaN score is
 * never among the smallest unless all others are. */
mest_status mest_sparse_lowest(const mest_sparse *s, const mest_real *grad, double lambda, bool normalised, int64_t k, int64_t *out, mest_error *err);

/* Dense rows [row0, row0 + n) of `values` (in storage order, e.g. weights or a gradient) into out[n * cols]: export, tests. */
void mest_sparse_dense_rows(const mest_sparse *s, const mest_real *values, int64_t row0, int64_t n, float *out);
/* Linear index (row * cols + col) of each stored entry in storage order, -1 for padding; entries [first, first + n). */
void mest_sparse_coords(const mest_sparse *s, int64_t first, int64_t n, int64_t *out);
/* True if the unit is active: O(log u). */
bool mest_sparse_active(const mest_sparse *s, int64_t unit);
/* Number of active units below `unit`: its place in the order of storage. O(log u). */
int64_t mest_sparse_lower_bound(const mest_sparse *s, int64_t unit);
/* Entries that are not padding: what sparsity is counted from. */
int64_t mest_sparse_nnz(const mest_sparse *s);

#endif
