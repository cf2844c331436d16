/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution and matrix products in the PIXEL layout (batch in the vector lanes), weights sparse in any format, or dense.
 *
 * Everything is one idea: an output row (channel) has a list of (byte offset, weight); the offset, from the position's base address,
 * already contains tap and channel. A panel of u neighbouring positions is computed at once with u vectors of accumulators.
 *
 *   mest_lanes_list      rows of entries, cut into channel tiles whose inputs fit the first-level cache; taps beside each other in runs
 *   mest_lanes_forward   Y = list * X at a grid of positions (forward pass; dX alone, over the transposed list)
 *   mest_lanes_backward  dX and dW (or dW alone) in one pass over the transposed list: each dY vector loaded once feeds both
 *   mest_lanes_weight    dW of a dense weight alone
 *   mest_lanes_isa       the passes compiled for one instruction set
 *   mest_lanes_key       what a derived list depends on besides the weight
 *
 * Letters as in ops/nn.h. Backward with stride: inputs are split by parity (phase) of their position; the entries of a phase are those
 * whose taps meet it, so every entry belongs to one phase and each phase is a pass with unit stride in dY.
 */
#ifndef MEST_SPARSE_KERNELS_LANES_H
#define MEST_SPARSE_KERNELS_LANES_H

#include "ops/nn.h"
#include "runtime/cpu.h"
#include "sparse/kernels/walk.h"

typedef struct mest_lanes_list {
    int32_t n_tiles, n_rows;   /* channel tiles, rows (of `height` outputs) */
    int32_t height;            /* 1, or 4 (images.h: 8, 16): outputs that share a column */
    const int32_t *start;      /* sparse: first entry of (tile, row), n_tiles * n_rows * parts + 1 */
    const int32_t *runs;       /* of each (tile, row, part): mest_lanes_runs; NULL: none */
    int32_t parts, from, to;   /* start divides the entries of a row by the row of their tap into so many parts, or 1; [from, to) are taken */
    const int32_t *first;      /* dense (start NULL): the rows of a tile share the offsets [first[tile], first[tile + 1]) */
    const int32_t *off;        /* bytes from the base address of a position */
    const mest_real *w;        /* height values an entry */
} mest_lanes_list;

/* Strides in elements. Rows are those of the position grid, not of the list. */
typedef struct mest_lanes_forward {
    int64_t blocks, rows, run;                 /* image blocks, rows of positions, positions in a row */
    const mest_real *x;                        /* base of position (0, 0, 0), channel 0, tap 0 */
    int64_t x_block, x_row, x_step;
    mest_real *y;
    int64_t y_block, y_row, y_step;
    const mest_real *bias;                     /* NULL: 0 */
    bool ends;                                 /* Y = clamp(sum * factor + bias) when all tiles are summed; factor NULL: 1 */
    const mest_real *factor;
    mest_clamp clamp;
    int64_t outs;                              /* output channels; the last row of height 4 may reach past them */
    int64_t group_rows, group_shift;           /* dense groups: rows of the list in a group, elements from group to group of x */
    mest_lanes_list list;
} mest_lanes_forward;

typedef struct mest_lanes_backward {
    int64_t blocks, rows, run;                 /* positions are those of X (of one phase) */
    const mest_real *x;
    int64_t x_block, x_row, x_step;
    mest_real *dx;                             /* NULL: dW alone */
    int64_t dx_block, dx_row, dx_step;
    const mest_real *dy;
    int64_t dy_block, dy_row, dy_step;
    int64_t group_rows, group_shift;           /* of dy */
    mest_lanes_list list;                      /* height 1 */
} mest_lanes_backward;

/* dW of a dense weight: every (m, c, tap), so sums stay in registers over a whole row of positions, which are those of Y. */
typedef struct mest_lanes_weight {
    int64_t blocks, rows, run;
    const mest_real *x;                        /* base of position (0, 0, 0), channel 0, tap 0 */
    int64_t x_block, x_row, x_step;
    const mest_real *dy;
    int64_t dy_block, dy_row, dy_step;
    int64_t c, m, taps;
    const int32_t *tap_off;                    /* bytes from the base to each tap */
} mest_lanes_weight;

typedef struct mest_lanes_isa {
    int v;                                     /* lanes */
    int run_single, run_quad, run_backward;    /* most positions of a panel */
    double flops_per_second;                   /* of single elements in cache, modelled */
    /* One row of positions of one image block, rows [r0, r1) of the list. */
    void (*forward)(const mest_lanes_forward *job, int64_t block, int64_t row, int32_t r0, int32_t r1);
    /* The same; gradients of the entries are added to dw, indexed like list.w. */
    void (*backward)(const mest_lanes_backward *job, int64_t block, int64_t row, int32_t r0, int32_t r1, mest_real *dw);
    /* Rows of positions [unit0, unit1), counted through all image blocks, for outputs [m0, m1), m0 a multiple of 4: added to
     * dw[(output * taps + tap) * c + input]. */
    void (*weight)(const mest_lanes_weight *job, int64_t unit0, int64_t unit1, int64_t m0, int64_t m1, mest_real *dw);
    /* db[c] = sum of dy over images and pixels for channels [c0, c1). */
    void (*channel_sums)(const mest_pixels *p, const mest_real *dy, int64_t c0, int64_t c1, mest_real *db);
} mest_lanes_isa;

/* Runs: entries of a row whose taps lie beside each other, as 4 of 9 in a pattern mostly do, or many of a weight that is not very sparse. Positions
 * are neighbours too, so the vector that one tap of a run reads for a position is what the next tap reads for the position before: it is loaded once.
 * A part of a row begins with fours of two runs of two, then fours of a run of three and one entry; the rest are single. */
typedef struct mest_lanes_runs { int32_t twos, threes; } mest_lanes_runs; /* numbers of fours */
static inline int32_t mest_lanes_runs_pack(mest_lanes_runs r) { return r.twos << 16 | r.threes; }
static inline mest_lanes_runs mest_lanes_runs_of(int32_t packed) { return (mest_lanes_runs){packed >> 16, packed & 0xffff}; }

/* Sparse: first entries of the parts of (tile, row), and the end of the last. */
static inline const int32_t *mest_lanes_start(const mest_lanes_list *l, int32_t tile, int32_t row)
{
    return l->start + ((int64_t)tile * l->n_rows + row) * l->parts;
}

/* Entries of (tile, row): number, offsets; returns the position of the first in w (and dw), in entries. */
static inline int64_t mest_lanes_entries(const mest_lanes_list *l, int32_t tile, int32_t row, int32_t *n, const int32_t **off)
{
    if (l->start) {
        const int32_t *s = mest_lanes_start(l, tile, row), first = s[l->from];
        *n = s[l->to] - first;
        *off = l->off + first;
        return first;
    }
    *n = l->first[tile + 1] - l->first[tile];
    *off = l->off + l->first[tile];
    return (int64_t)l->first[tile] * l->n_rows + (int64_t)row * *n;
}

/* ---- lists (lanes_list.c) ---- */
typedef struct mest_lanes_key {
    int64_t cap;                       /* most entries */
    int32_t pixel_bytes, row_bytes;    /* of the tensor that is read */
    int32_t c, m;                      /* channels of X and of Y */
    int32_t group, tile;               /* tile: channels of the tensor that is read */
    int16_t r, s, stride_y, stride_x, dilation_y, dilation_x, top, left;
    uint8_t lanes;
    uint8_t backward;                  /* rows are channels of X, entries read dY */
    uint8_t inputs_first;              /* the weight is stored [C, M] (Gemm with transB = 0, MatMul) */
    uint8_t height;                    /* 1, 4, 8 or 16: consecutive outputs that share their entries */
    uint8_t direct;                    /* the list's order is the storage order: values are read from the weight itself */
    uint8_t by_rows;                   /* entries of a row of the list are in the order of their taps' rows: mest_lanes_inside leaves out some */
    uint8_t pad[2];
    int32_t channel_bytes;             /* from channel to channel of the tensor that is read; 0: lanes */
    int32_t step_bytes;                /* from position to position of the tensor that is read: entries are brought into runs; 0: they are not */
} mest_lanes_key;

static inline int32_t mest_lanes_phases(const mest_lanes_key *k) { return k->backward ? k->stride_y * k->stride_x : 1; }
/* Offset of tap (r, s) in the tensor that is read, and the phase it belongs to (0 in the forward pass). */
int64_t mest_lanes_tap(const mest_lanes_key *k, int64_t r, int64_t s, int32_t *phase);

/* Leaves out the entries whose taps are above or below the image at this row of positions (of Y; backward: row of X): in images of few rows they are
 * many, and all of them zeros. Nothing where the list is not by rows. */
static inline void mest_lanes_inside(mest_lanes_list *l, const mest_conv_geometry *g, bool backward, int64_t row)
{
    if (l->parts <= 1)
        return;
    const int64_t at = backward ? row + g->top : g->top - row * g->stride_y; /* tap 0 reads dY at / stride; row -at of X */
    int64_t from = mest_ceil_div(backward ? at - (g->p - 1) * g->stride_y : at, g->dilation_y);
    int64_t to = mest_floor_div(backward ? at : g->h - 1 + at, g->dilation_y) + 1;
    from = from < 0 ? 0 : from > g->r ? g->r : from;
    to = to > g->r ? g->r : to < from ? from : to;
    l->from = (int32_t)from;
    l->to = (int32_t)to;
}

/* The list of a sparse weight: one block of memory, shared through mest_derived_get. */
size_t mest_lanes_bytes(const mest_lanes_key *key);
void mest_lanes_build(void *data, const mest_sparse *weight, const void *key);
void mest_lanes_refresh(void *data, const mest_sparse *weight, const void *key);
/* lanes_runs.c: brings the n entries of a part of a row into runs. Returns mest_lanes_runs_pack of what is there. */
int32_t mest_lanes_order_runs(int32_t step_bytes, int32_t n, int32_t *off, int32_t *perm);
/* View of phase `phase`; values NULL unless key->direct. perm (may be NULL): position in storage order of each entry. */
mest_lanes_list mest_lanes_view(const void *data, const mest_lanes_key *key, const mest_real *values, int32_t phase, const int32_t **perm,
                                int64_t *entries);

/* The list of a dense weight: offsets once, values packed each time they change. Offsets: bytes of `first` then `off`. */
size_t mest_lanes_dense_bytes(const mest_lanes_key *key);       /* offsets */
int64_t mest_lanes_dense_entries(const mest_lanes_key *key);    /* entries; each has `height` values in the pack */
void mest_lanes_dense_offsets(const mest_lanes_key *key, void *memory);
mest_lanes_list mest_lanes_dense_view(const void *memory, const mest_lanes_key *key, const mest_real *pack, int32_t phase);
/* Packs list rows [r0, r1) of all phases. */
void mest_lanes_dense_pack(const mest_lanes_key *key, const void *memory, const mest_real *weight, mest_real *pack, int32_t r0, int32_t r1);
/* weight gradient [rows r0..r1 of a backward list] = sum over n_parts packed gradients, `stride` values apart. */
void mest_lanes_dense_unpack(const mest_lanes_key *key, const void *memory, const mest_real *parts, int32_t n_parts, int64_t stride,
                             mest_real *dw, int32_t r0, int32_t r1);

/* ---- the operators (lanes_op.c, lanes_run.c), called by each instruction set's table ---- */
typedef enum mest_lanes_op { MEST_LANES_CONV, MEST_LANES_CONV_AFFINE, MEST_LANES_CONV_GRAD, MEST_LANES_GEMM, MEST_LANES_GEMM_GRAD, MEST_LANES_MATMUL, MEST_LANES_MATMUL_GRAD } mest_lanes_op;
bool mest_lanes_fits(const mest_kernel_query *q, mest_lanes_op op, const mest_lanes_isa *isa, const char **why);
double mest_lanes_cost(const mest_kernel_query *q, mest_lanes_op op, const mest_lanes_isa *isa);
void mest_lanes_halo(const mest_kernel_query *q, mest_lanes_op op, int input, uint8_t pad[4]);
mest_status mest_lanes_prepare(const mest_kernel_query *q, mest_lanes_op op, const mest_lanes_isa *isa, void **state, size_t *scratch_bytes, mest_error *err);
mest_status mest_lanes_run(const mest_args *a);
void mest_lanes_release(void *state, mest_heap *heap);
size_t mest_lanes_state_bytes(const void *state);

#endif
