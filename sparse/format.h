/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse weights: a flat array of values plus an index. Only sparse/ and kernels know what the index is.
 *
 *   mest_sparse   one sparse parameter's pattern and values
 *   mest_format   vtable of a storage format (csr, block4, ...); one file each, listed in formats.def
 *   mest_scheme   what a name says: "punched8x4" is the format `punched` with height 8 and width 4
 *   unit          what a scheme removes or grows as a whole; unit ids ascend in the order of storage
 *
 * A weight of dense shape [O, d1, d2, ...] is the matrix M[O, K], K = d1 * taps, taps = d2 * d3 * ... (Conv: d1 = C / group, then taps;
 * Gemm with transB = 1: [out, in]). A weight whose input axis is first ([in, out] of MatMul or Gemm transB = 0, [in, out / group, kh, kw]
 * of ConvTranspose) is stored by its own first axis as well; `inputs_first` tells formats which axis is which.
 *
 * Where a unit lies follows from its id alone: id = b * unit_cols + k, unit row b < unit_rows covers rows b * row_span .. of M, and the
 * format's `element` gives the entries of unit column k. A unit has unit_elements entries, in runs of `height` entries that share input
 * and tap and have consecutive outputs (csr, pattern: height 1). Entries that fall outside the matrix are padding: value, gradient and
 * optimizer state stay 0.
 *
 * A slot is what may be active or not: a unit, or, with choices > 1 (pattern: the masks of one kernel), `choices` units with consecutive
 * ids of which at most one is active. n_units counts slots: sparsity, counts and balance speak of slots; lists hold unit ids.
 * With group_units > 0, slots fall into groups of that many consecutive ones (the kernels of a filter, the M elements of N:M), and
 * selection, sampling and random patterns keep the groups balanced: their counts differ by one at most, unless a group is full.
 *
 * Values of stored entries are in ascending unit order, unit_elements values a unit. The same order holds for gradients and optimizer
 * slots, which are plain arrays of `stored` values beside it.
 */
#ifndef MEST_SPARSE_FORMAT_H
#define MEST_SPARSE_FORMAT_H

#include "mest/plugin.h" /* units, mest_units_at */
#include "runtime/alloc.h"
#include "runtime/tensor.h"
#include "sparse/patterns.h"

typedef struct mest_sparse mest_sparse;
typedef struct mest_format mest_format;
struct mest_moves;

enum { MEST_UNIT_MOST = 256 }; /* elements of a unit */

typedef struct mest_scheme {
    const mest_format *format;
    int32_t height;  /* consecutive outputs of a run; 1 unless the name says otherwise */
    int32_t width;   /* punched: input channels of a block */
    int32_t n, m;    /* nm: n of m */
} mest_scheme;

struct mest_format {
    const char *family;  /* "csr", "block" */
    const char *forms;   /* the names it takes, for messages: "block1..block64" */
    /* Reads what follows the family name; *scheme holds height = width = 1. False: no such name. */
    bool (*parse)(const char *suffix, mest_scheme *scheme);
    /* Sets the geometry (unit_elements .. ragged) from shape, inputs_first and scheme. MEST_E_SHAPE: the format does not fit this weight. */
    mest_status (*configure)(mest_sparse *s, mest_error *err);
    /* Entries of unit column k: row[e] within the unit row, column of M col[e], -1 where that is padding. NULL: one column, k, of
     * unit_elements rows. */
    void (*element)(const mest_sparse *s, int64_t k, int32_t *row, int32_t *col);
    /* Slots that a sparsity of the whole weight leaves. NULL: mest_units_at. */
    int64_t (*units_at)(const mest_sparse *s, double sparsity);
    /* Smallest sparsity a weight may have at the end. NULL: 0. */
    double (*least_sparsity)(const mest_sparse *s);

    /* Bytes of index for cap_units units. */
    size_t (*index_bytes)(const mest_sparse *s, int64_t cap_units);
    /* Streams a pattern into the index: append takes ascending distinct unit ids, all past those before, and adds n to
     * active_units; with active_units == 0 it forgets the old content first. The index may be read after finish. Values are not
     * touched. No allocation. */
    void (*append)(mest_sparse *s, const int64_t *units, int64_t n);
    void (*finish)(mest_sparse *s);
    /* Unit ids of active units first..first+n-1, ascending. */
    void (*units)(const mest_sparse *s, int64_t first, int64_t n, int64_t *out);
    /* Every invariant: counts, ranges, order, choices, padding zero. */
    mest_status (*check)(const mest_sparse *s, mest_error *err);
    /* Both optional, for methods that move a few units in every step; NULL: units and append do it. */
    /* Number of active units below `unit`. */
    int64_t (*find)(const mest_sparse *s, int64_t unit);
    /* The index after a change of a few units that has been checked, in place (moves.h). Values and counts are not touched. */
    void (*edit)(mest_sparse *s, const struct mest_moves *moves);
};

struct mest_sparse {
    const mest_format *format;
    char name[16];          /* "csr", "block4" */
    mest_shape shape;       /* dense shape */
    bool inputs_first;      /* the weight's first axis is its input */
    int64_t rows, cols;     /* O, K */
    int64_t channels, taps; /* K = channels * taps */
    mest_scheme scheme;
    mest_patterns patterns; /* of the pattern format */

    int32_t height;         /* consecutive outputs of a run; 1 for csr */
    int32_t unit_elements;
    int32_t row_span;       /* rows of M a unit row covers */
    int32_t choices;        /* units of a slot, of which at most one is active; 1 unless pattern */
    int64_t unit_rows, unit_cols;
    int64_t n_units;        /* U: slots, unit_rows * unit_cols / choices */
    int64_t group_units;    /* slots of a balance group; divides the slots of a unit row; 0: no groups */
    int64_t cell_cols;      /* columns [i * cell_cols, (i + 1) * cell_cols) hold just the slots ... */
    int64_t cell_units;     /* ... [i * cell_units, (i + 1) * cell_units) of a unit row, all alike but for padding: how a dense tensor is read in pieces */
    bool ragged;            /* some unit has a column outside the matrix */
    int64_t *group_room;    /* 2 * group_units: what selection and sampling look at, a group at a time */

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

/* The index of all built-in formats (rows.h): int32_t start[unit_rows + 1], then int32_t col[cap]. Unit row b holds the active units
 * start[b]..start[b + 1]-1; col[p] is the unit column k of unit p, ascending in a row. csr: start and col are those of CSR. */
static inline int32_t *mest_rows_start(const mest_sparse *s) { return (int32_t *)s->index; }
static inline int32_t *mest_rows_col(const mest_sparse *s) { return (int32_t *)s->index + s->unit_rows + 1; }

/* Unit ids are below this. */
static inline int64_t mest_sparse_ids(const mest_sparse *s) { return s->n_units * s->choices; }
/* Elements of the dense weight that one slot decides about, padding included: stored ones and those its pattern leaves out. */
static inline double mest_sparse_slot_elements(const mest_sparse *s)
{
    return (double)s->row_span * (double)s->cell_cols / (double)s->cell_units;
}

/* Lines of formats.def. Number `index`, NULL past the end. */
const mest_format *mest_format_at(int index);
/* "csr", "block4", "nm2:4": MEST_E_ARGUMENT lists what exists. */
mest_status mest_scheme_find(const char *name, mest_scheme *scheme, mest_error *err);
/* A positive decimal number below `most` without leading zeros at *text, which moves behind it; 0: none. */
int32_t mest_scheme_number(const char **text, int32_t most);

/* Creates an empty sparse weight. cap_units may be raised later by mest_sparse_reserve (before training). MEST_E_SHAPE where the format
 * does not fit the weight's shape (its text says why). */
typedef struct mest_sparse_spec {
    const char *scheme;            /* "csr", "block4" */
    const mest_shape *shape;
    bool inputs_first;
    const mest_patterns *patterns; /* pattern: its masks; NULL: the default eight */
} mest_sparse_spec;
mest_status mest_sparse_make(mest_sparse **out, mest_heap *heap, const mest_sparse_spec *spec, int64_t cap_units, mest_error *err);
/* The same with outputs first and default masks. */
mest_status mest_sparse_create(mest_sparse **out, mest_heap *heap, const char *scheme, const mest_shape *shape, int64_t cap_units, mest_error *err);
void mest_sparse_destroy(mest_sparse *s);
mest_status mest_sparse_reserve(mest_sparse *s, int64_t cap_units, mest_error *err);

/* Gives `to` the pattern of `from`: same format and shape, to->cap_units >= from->active_units (checked by the caller). Values are not
 * touched; nothing is allocated. */
void mest_sparse_copy_pattern(mest_sparse *to, const mest_sparse *from);
/* Units that a sparsity (part of the weight's elements that is not stored, 0..1) leaves: the one rule for targets and stages. */
int64_t mest_sparse_units_at(const mest_sparse *s, double sparsity);
/* The smallest sparsity the scheme can end with: pattern 1 - 4/9, nm 1 - N/M, else 0. */
double mest_sparse_least_sparsity(const mest_sparse *s);
/* Most active units a balance group may hold in this run: what an even share of the capacity makes. INT64_MAX without groups. */
int64_t mest_sparse_group_most(const mest_sparse *s);

/* Reads n elements from `first` of a dense tensor in C order, as float; how the mapped file is read without a dense copy. */
typedef struct mest_reader {
    mest_status (*read)(const void *self, int64_t first, int64_t n, float *out, mest_error *err);
    const void *self;
} mest_reader;

/* Keeps the n_units units of largest L2 norm (ties: lower id), values from the reader. The norm of a unit of one element is |w|; of
 * others the square root of the sum of squares, added in the order of entries in double and rounded to float. A NaN counts as larger
 * than everything. Of the choices of a slot the one of largest norm is taken (ties: lower id). With groups, each keeps its even share.
 * Four passes over the reader in pieces of 4096 elements, no memory beside the result; large weights a little more than two, sometimes three, and
 * up to 25 MiB. With groups one pass where all keep the same number, else as large weights; small ones two, with a key a group (1 MiB at most). */
mest_status mest_sparse_from_magnitude(mest_sparse *s, const mest_reader *reader, int64_t n_units, mest_error *err);
/* n_units distinct units, uniform (with groups: an even share of each, which ones get the remainder is uniform; choices uniform), keyed
 * by (seed, stream); values uniform in [-bound, bound), keyed by their place in the dense tensor (PyTorch's default, kaiming_uniform with
 * a = sqrt(5), has bound = sqrt(1 / fan_in)). No memory beside the result. */
mest_status mest_sparse_from_random(mest_sparse *s, int64_t n_units, uint64_t seed, uint64_t stream, double bound, mest_error *err);
/* Explicit units (ascending) and their values (unit order), NULL values = 0: sparse_initializer, checkpoints. */
mest_status mest_sparse_from_units(mest_sparse *s, const int64_t *units, int64_t n, const mest_real *values, mest_error *err);

/* New values (unit order) of active units, ascending; what reaches past the matrix stays 0. */
void mest_sparse_set(mest_sparse *s, const int64_t *units, int64_t n, const mest_real *values);
/* One change of pattern. drop and grow ascending, distinct; drop active, grow inactive or in drop, at most one choice of a slot active
 * afterwards, no group above mest_sparse_group_most. Survivors keep value and the slots given (arrays of cap_units * unit_elements, moved
 * in place); new entries get 0 in all of them. Scratch is preallocated by mest_sparse_edit_scratch bytes. All is checked before anything
 * changes. */
size_t mest_sparse_edit_scratch(const mest_sparse *s, int n_slots);
mest_status mest_sparse_edit(mest_sparse *s, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow,
                             mest_real *const *slots, int n_slots, void *scratch, mest_error *err);

/* A change of pattern that is planned: lists ascending and distinct, as mest_sparse_edit takes them. */
typedef struct mest_change {
    const int64_t *drop;
    int64_t n_drop;
    const int64_t *grow;
    int64_t n_grow;
} mest_change;

/* n distinct units that are inactive after `change` (NULL: none), ascending; keyed by (seed, stream). Units of `exclude` (ascending and
 * distinct, NULL when empty) are never taken, nor others of their slots. Without groups uniform over the free units. With groups the
 * emptiest are filled first, to an even level; which of them get the remainder, and the slots inside a group, are uniform; so is the choice
 * in a slot. Memory: `out`; time O(u + n log U), with groups O((u + groups) log group_units). MEST_E_LIMIT when
 * fewer than n are there. */
mest_status mest_sparse_sample_inactive(const mest_sparse *s, uint64_t seed, uint64_t stream, const mest_change *change, const int64_t *exclude,
                                        int64_t n_exclude, int64_t n, int64_t *out, mest_error *err);
/* ||w|| + lambda * ||g|| of active units first..first+n-1; grad NULL = 0. normalised: both terms divided by their mean over all
 * active units (a pass over them in each call). */
void mest_sparse_scores(const mest_sparse *s, const mest_real *grad, double lambda, bool normalised, int64_t first, int64_t n, float *out);
/* L2 norms over the same units of an array in the order of storage (gradients, optimizer state). */
void mest_sparse_norms(const mest_sparse *s, const mest_real *x, int64_t first, int64_t n, float *out);
/* The k active units of smallest score, ties to the lower id, as ascending unit ids. With groups: those whose removal leaves each group
 * an even share (the fullest lose first), the smallest inside each group, the remainder from the groups where it is smallest. Exact, no
 * sort: O(u), with groups O(u log group_units). A NaN score is never among the smallest unless all
 * others are. */
mest_status mest_sparse_lowest(const mest_sparse *s, const mest_real *grad, double lambda, bool normalised, int64_t k, int64_t *out, mest_error *err);

/* Row and column of M of every entry of active units first..first+n-1, n * unit_elements of each; padding has col -1 or row >= rows. */
void mest_sparse_entries(const mest_sparse *s, int64_t first, int64_t n, int32_t *row, int32_t *col);
/* Active units per call of mest_sparse_entries that fit buffers of `room` >= MEST_UNIT_MOST entries. */
static inline int64_t mest_sparse_batch(const mest_sparse *s, int64_t room) { return room / s->unit_elements; }
/* The same of one unit by its id, active or not. */
void mest_sparse_unit_entries(const mest_sparse *s, int64_t unit, int32_t *row, int32_t *col);
/* Dense rows [row0, row0 + n) of `values` (in storage order, e.g. weights or a gradient) into out[n * cols]: export, tests. */
void mest_sparse_dense_rows(const mest_sparse *s, const mest_real *values, int64_t row0, int64_t n, float *out);
/* n elements from `first` of the dense weight in C order. */
void mest_sparse_read(const mest_sparse *s, int64_t first, int64_t n, float *out);
/* The entries of row `row` of M by ascending column: out[i] = column << 32 | position in storage. Returns their number, at most
 * mest_sparse_row_most. */
int64_t mest_sparse_row(const mest_sparse *s, int64_t row, int64_t *out);
int64_t mest_sparse_row_most(const mest_sparse *s);
/* Linear index (row * cols + col) of each stored entry in storage order, -1 for padding; entries [first, first + n). */
void mest_sparse_coords(const mest_sparse *s, int64_t first, int64_t n, int64_t *out);
/* True if the unit is active: O(log u). */
bool mest_sparse_active(const mest_sparse *s, int64_t unit);
/* Number of active units below `unit`: its place in the order of storage. O(log u). */
int64_t mest_sparse_lower_bound(const mest_sparse *s, int64_t unit);
/* Entries that are not padding: what sparsity is counted from. */
int64_t mest_sparse_nnz(const mest_sparse *s);

#endif
