/* SPDX-License-Identifier: Apache-2.0 */
/* mest.FusedConv and mest.FusedConvGrad on the batch-lane passes.
 *
 * The passes work on strips: a segment of columns of one image block, row by row from the top. The tensor whose taps they read (X, or dY in the
 * gradient) goes through a ring of rows that stays in the second-level cache: each row is read from memory once, made into what the convolution
 * reads (a BatchNormalization and its activation, or the gradient of one), and dropped when the last tap has passed. Halo exists only there.
 * What a row of the result needs besides (statistics, an addend, a gate) is done while the row is in cache. So per step and layer every
 * activation is read and written once where separate nodes would do it three to five times.
 *
 *   mest_fused_isa    what is done to rows, compiled for one instruction set
 *   mest_fused_state  what fused_op.c prepares and fused_run.c runs
 *
 * Rows of the ring lie one after the other: the last span - 1 of `ring_rows` are written twice, in front and behind, so that any span rows
 * in sequence are contiguous. */
#ifndef MEST_SPARSE_KERNELS_FUSED_H
#define MEST_SPARSE_KERNELS_FUSED_H

#include "sparse/kernels/lanes_state.h"

/* Rows of n pixels of c channels of v lanes; `..p`: elements from pixel to pixel. */
typedef struct mest_fused_isa {
    /* to = clamp((x - map[0]) map[1] + map[2]); rows of the map are `step` apart */
    void (*forward_row)(int64_t n, int64_t c, const mest_real *x, int64_t xp, const mest_real *map, int64_t step, mest_clamp clamp, mest_real *to,
                        int64_t top);
    /* to = (dy map[1] + map[3]) + (u - map[0]) map[2] in the first `lanes` lanes, 0 in the others */
    void (*gradient_row)(int64_t n, int64_t c, const mest_real *dy, int64_t dyp, const mest_real *u, int64_t up, const mest_real *map, int64_t lanes,
                         mest_real *to, int64_t top);
    /* sums[0][c] += y - shift[c], sums[1][c] += (y - shift[c])^2, lane by lane */
    void (*moments_row)(int64_t n, int64_t c, const mest_real *y, int64_t yp, const mest_real *shift, mest_real *sums);
    /* to = dx + s where x is inside the clamp (x NULL: everywhere; s NULL: 0), 0 elsewhere; sums[0][c] += to, sums[1][c] += to (u - mean[c]) (sums
     * NULL: not wanted). to may be s, x or u. */
    void (*result_row)(int64_t n, int64_t c, const mest_real *dx, int64_t dxp, const mest_real *s, int64_t sp, const mest_real *x, int64_t xp,
                       mest_clamp clamp, const mest_real *u, int64_t up, const mest_real *mean, mest_real *to, int64_t top, mest_real *sums);
} mest_fused_isa;

typedef struct mest_fused_state {
    mest_lanes_state lanes;                /* geometry, lists, parts of dW */
    const mest_fused_isa *rows;
    mest_clamp clamp;
    bool gate, through;                    /* through: the tensor read goes through the ring */
    mest_pixels d, u, v;                   /* of the operands that exist */
    int64_t group;                         /* image blocks of a strip, side by side: pixel x of block b is pixel x * group + b of the ring */
    int64_t units;                         /* rows of strips in all: groups of blocks * segments * n_rows */
    int64_t segments, segment;             /* strips beside each other; positions of a row in one */
    int64_t n_rows, run;                   /* rows of positions and positions in a row, of one image block; small images are run `group` at once */
    int64_t step_y, step_x;                /* rows and columns of the tensor read, from position to position */
    int64_t low_y, low_x, span_y, span_x;  /* taps of position 0: from low, span of them */
    int64_t ring_rows, ring_row, pixel;    /* rows before one is overwritten; elements of a row and of a pixel (of the ring) */
    int64_t dx_pixel;                      /* of the rows of X and dX in scratch; with a group, columns of one parity lie together */
    int32_t parts;
    size_t ring_at, x_at, dx_at, y_at, sums_at, worker_reals; /* scratch of a worker, in elements */
    size_t workers_at, stats_at;           /* bytes from the start of scratch */
    size_t stats_doubles;                  /* of one part: mean or sum, squares or products */
} mest_fused_state;

typedef enum mest_fused_in { /* by name, see ops/fused_conv.c */
    FUSED_X = 0, FUSED_W = 1, FUSED_B = 2, FUSED_MAP = 3,
    FUSED_DY = 2, FUSED_V = 4, FUSED_DMAP = 5, FUSED_D = 6, FUSED_U = 7, FUSED_MEAN = 8
} mest_fused_in;

bool mest_fused_fits(const mest_kernel_query *q, bool gradient, const mest_lanes_isa *isa, const char **why);
double mest_fused_cost(const mest_kernel_query *q, bool gradient, const mest_lanes_isa *isa);
void mest_fused_halo(const mest_kernel_query *q, bool gradient, const mest_lanes_isa *isa, int input, uint8_t pad[4]);
mest_status mest_fused_prepare(const mest_kernel_query *q, bool gradient, const mest_lanes_isa *isa, const mest_fused_isa *rows, void **state,
                               size_t *scratch_bytes, mest_error *err);
mest_status mest_fused_forward(const mest_args *a);
mest_status mest_fused_gradient(const mest_args *a);
void mest_fused_release(void *state, mest_heap *heap);
size_t mest_fused_state_bytes(const void *state);

#endif
