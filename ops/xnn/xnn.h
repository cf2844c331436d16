/* SPDX-License-Identifier: Apache-2.0 */
/* XNNPACK behind one small interface: create, bind, run, drop. Hides the two generations of its operator interface (2022: setup;
 * 2023 and later: reshape + setup with workspace; MEST_XNN_RESHAPE tells which one the build found).
 *
 *   mest_xnn         one operator, and the workspace it may need
 *   mest_xnn_window  a convolution's or pool's geometry in XNNPACK's terms
 *
 * XNNPACK copies ("packs") weights when an operator is created; changing weights means creating the operator again. It keeps
 * process-wide state and allocates packed weights itself, not through mest_heap. Functions return false when XNNPACK refuses.
 */
#ifndef MEST_OPS_XNN_XNN_H
#define MEST_OPS_XNN_XNN_H

#include "ops/nn.h"
#include "runtime/kernel.h"

typedef struct mest_xnn {
    struct xnn_operator *op; /* NULL: none */
    mest_heap *heap;
    void *workspace;         /* grows only */
    size_t workspace_bytes;
} mest_xnn;

typedef struct mest_xnn_window {
    uint32_t top, right, bottom, left;
    uint32_t r, s, stride_y, stride_x, dilation_y, dilation_x;
    uint32_t groups;
    size_t group_in, group_out; /* channels of a group */
} mest_xnn_window;

/* Initialises XNNPACK once for the process; false when it cannot run here. Any thread. */
bool mest_xnn_ready(void);
/* Deletes the operator, keeps the workspace. */
void mest_xnn_drop(mest_xnn *x);
/* Deletes both. */
void mest_xnn_free(mest_xnn *x);
bool mest_xnn_run(mest_xnn *x, const mest_threads *threads);

/* Weights [group][out][R][S][in] (depthwise: [R][S][C] with one channel a group). bias may be NULL; clamp.on: results are cut off. */
bool mest_xnn_conv_create(mest_xnn *x, const mest_xnn_window *w, bool depthwise, const float *weights, const float *bias, mest_clamp clamp);
bool mest_xnn_conv_bind(mest_xnn *x, int64_t n, int64_t h, int64_t w, const float *in, float *out, const mest_threads *threads);
/* Transposed convolution; weights [group][out][R][S][in], pads are those cut from the output; adjust: rows and columns that the output
 * is larger than the smallest one. */
bool mest_xnn_deconv_create(mest_xnn *x, const mest_xnn_window *w, const float *weights);
bool mest_xnn_deconv_bind(mest_xnn *x, int64_t n, int64_t h, int64_t w, int64_t adjust_y, int64_t adjust_x, const float *in, float *out,
                          const mest_threads *threads);
/* out[rows][outputs] = in[rows][inputs] weights; weights [outputs][inputs], or [inputs][outputs] if transposed. */
bool mest_xnn_dense_create(mest_xnn *x, int64_t inputs, int64_t outputs, bool transposed, const float *weights, const float *bias);
bool mest_xnn_dense_bind(mest_xnn *x, int64_t rows, const float *in, float *out, const mest_threads *threads);
/* Windows of at least two taps. */
bool mest_xnn_maxpool_create(mest_xnn *x, const mest_xnn_window *w, int64_t channels);
bool mest_xnn_maxpool_bind(mest_xnn *x, int64_t n, int64_t h, int64_t w, int64_t channels, const float *in, float *out,
                           const mest_threads *threads);

/* ---- shared by the kernels here ---- */

/* The value lies as NHWC without gaps: PIXEL, one lane, no halo, no spare slots. */
static inline bool mest_xnn_nhwc(const mest_type *t)
{
    return t && t->layout.kind == MEST_PIXEL && t->dtype == MEST_F32 && t->layout.v == 1 && t->shape.rank >= 2 && t->shape.rank <= 4 &&
           !(t->layout.top | t->layout.left | t->layout.bottom | t->layout.right) && t->layout.slots == t->shape.dim[1];
}
static inline bool mest_xnn_plain(const mest_type *t) { return t && t->layout.kind == MEST_PLAIN && t->dtype == MEST_F32; }
/* Rows of a matrix: plain, or NHWC of H = W = 1. */
static inline bool mest_xnn_matrix(const mest_type *t) { return t && t->shape.rank == 2 && (mest_xnn_plain(t) || mest_xnn_nhwc(t)); }

/* Output i of a query and of a run; NULL where it does not exist or is not wanted. */
static inline const mest_type *mest_xnn_out(const mest_kernel_query *q, int i) { return i < q->n_out ? q->out[i] : NULL; }
static inline void *mest_xnn_out_data(const mest_args *a, int i) { return i < a->n_out ? a->out[i].data : NULL; }

/* Multiply-add rate of one core, for cost models (never of all cores: the choice of kernels must not depend on the number of threads).
 * XNNPACK reaches about 64 % of the peak on these processors. */
double mest_xnn_flops(unsigned cpu);
/* Seconds to pack n weights. */
static inline double mest_xnn_pack_seconds(double n) { return n * 1.2e-9; }
enum { MEST_XNN_SLACK = 64 }; /* bytes after scratch that XNNPACK reads as input: it may read a little past the end */
/* A fingerprint of weights that are said not to change: if they do after all (evaluation between training steps), they are packed again. */
uint64_t mest_xnn_fingerprint(const float *values, int64_t n, const float *more, int64_t n_more);

#endif
