/* SPDX-License-Identifier: Apache-2.0 */
/* What lanes_op.c prepares for a node and lanes_run.c runs. */
#ifndef MEST_SPARSE_KERNELS_LANES_STATE_H
#define MEST_SPARSE_KERNELS_LANES_STATE_H

#include "ops/act.h"
#include "sparse/kernels/lanes.h"

typedef struct mest_lanes_problem {
    mest_conv_geometry g;
    bool inputs_first, gradient;
    int x, dy, y_out; /* inputs X and dY (-1), output Y (-1) */
    int bias;         /* input (forward), output (gradient); -1 */
    bool affine;      /* input 3 is a factor, params have an activation */
} mest_lanes_problem;

/* From a query; false with a reason where the operator is used in a way that no list can express. */
bool mest_lanes_problem_of(const mest_kernel_query *q, mest_lanes_op op, mest_lanes_problem *p, const char **why);
/* Channels of a tile of the tensor that is read (`channels` of them), so that a panel stays in the first-level cache. */
int32_t mest_lanes_tile(const mest_lanes_isa *isa, const mest_lanes_problem *p, bool sparse, double entries, bool backward, int64_t channels);

typedef struct mest_lanes_state {
    const mest_lanes_isa *isa;
    mest_act_fn act;                       /* activations that are no clamp */
    mest_lanes_problem p;
    bool sparse, want_dx, want_dw, fixed, packed, fold;
    mest_pixels x, y, dx;                  /* y: Y or dY */
    mest_lanes_key key;
    mest_derived_list *list;               /* sparse */
    char *offsets;                         /* dense */
    mest_real *pack;                       /* dense: weights in the order of the passes; in scratch where they change with every run */
    bool pack_in_scratch;
    size_t offsets_bytes, pack_values, parts_bytes; /* parts_bytes: of scratch, before the pack */
    int64_t entries;                       /* capacity of dW parts */
    int32_t position_parts, row_parts;
    int32_t dx_position_parts, dx_row_parts; /* of dX where it is a pass of its own */
    uint32_t packed_version;
    bool dense_dw;                         /* dW and dX apart: dense, one group */
    int32_t *tap_off;
    int64_t n_taps, weight_m;              /* taps; outputs as the dW pass sees them */
} mest_lanes_state;

/* Fills in what follows from the query alone; the state must be zero before. */
mest_status mest_lanes_describe(const mest_kernel_query *q, mest_lanes_op op, const mest_lanes_isa *isa, mest_lanes_state *s, mest_error *err);
/* Key and list (or offsets and place of packed weights) for a tensor that is read with these strides, in elements; step: from position to position, 0
 * where taps beside each other are none of positions beside each other. */
mest_status mest_lanes_lists(const mest_kernel_query *q, mest_lanes_state *s, int64_t pixel, int64_t row, int64_t step, mest_error *err);
/* Frees what the two above have allocated, not the state. */
void mest_lanes_free(mest_lanes_state *s, mest_heap *heap);

/* ---- a run (lanes_run.c) ---- */
typedef struct mest_lanes_job {
    const mest_lanes_state *s;
    const void *list;              /* derived data, sparse */
    const mest_real *w;            /* weight as given */
    const mest_real *x, *dy, *bias, *factor;
    mest_clamp clamp;
    const mest_act *act;           /* NULL: none, or a clamp */
    mest_real *y, *dx, *dw, *db, *parts;
    const int32_t *perm;
    int64_t n_entries;             /* in use */
} mest_lanes_job;

/* Brings the list up to date, or packs the weight where it moved. */
void mest_lanes_update(mest_lanes_state *s, mest_lanes_job *job, const mest_args *a);
mest_lanes_list mest_lanes_of(const mest_lanes_job *job, int32_t phase);
/* Clears the parts of dW (in scratch) before they are added to; sums them in order afterwards, into the order of storage. */
void mest_lanes_clear_parts(mest_lanes_job *job, void *scratch);
void mest_lanes_collect(mest_lanes_job *job, const mest_args *a);
/* db = sums of dY. */
void mest_lanes_bias(mest_lanes_job *job, const mest_args *a);

#endif
