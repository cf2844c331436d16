/* SPDX-License-Identifier: Apache-2.0 */
/* mest.Recurrent: one direction of a recurrent layer behind the product of X with its weight.
 *
 *   mest.Recurrent      P[T,N,G*H] R[rows,H] B[1,2*G*H]? lens[N]? h0[1,N,H]? c0[1,N,H]?       workspace Y[T,1,N,H] Y_h[1,N,H] Y_c[1,N,H]
 *   mest.RecurrentGrad  R B? lens? h0? c0? workspace dY? dY_h? dY_c?                          workspace dP dR dB dh0 dc0
 *
 * P = X W^T. The gates of P and R lie in the order of the weights (PyTorch: i f g o; r z n): gate k of ONNX (i o f c; z r h) is block
 * params->order[k]; R's blocks begin at row params->first (a weight of two directions has both). B is ONNX's, in ONNX's order.
 * Letters and formulas: ops/rnn.h.
 *
 * Dense R: the reference, its workspace that of ops/rnn.h. Sparse R: kernels only, v rows of the batch in the lanes of vectors; workspace
 * [block of v rows][..] with
 *   gates   [T][G*H][v]     after their activations, in the weights' order
 *   extra   [T][H][v]       GRU: R_h h + Rb_h
 *   h, c    [T+1][H][v]     forward: slot t is the state before step t; reverse: slot t+1
 * and for gradients
 *   gates   [T][rows][v]    gradients on the side of R; GRU's hidden gate: that of `extra`
 *   h, c    [H][v]
 * The batch is rounded up to 16 rows, whatever v is.
 */
#ifndef MEST_OPS_RECURRENT_H
#define MEST_OPS_RECURRENT_H

#include "ops/rnn.h"

typedef struct mest_recurrent_params {
    mest_rnn_kind kind;
    bool reverse, linear_before_reset, relu;
    int32_t order[4];
    int64_t first;
    int64_t t, n; /* gradient: sizes of P */
} mest_recurrent_params;

enum { MEST_RECUR_P, MEST_RECUR_R, MEST_RECUR_B, MEST_RECUR_LENS, MEST_RECUR_H0, MEST_RECUR_C0, MEST_RECUR_N_IN };
enum { MEST_RECUR_GRAD_R, MEST_RECUR_GRAD_B, MEST_RECUR_GRAD_LENS, MEST_RECUR_GRAD_H0, MEST_RECUR_GRAD_C0, MEST_RECUR_GRAD_WS, MEST_RECUR_GRAD_DY,
       MEST_RECUR_GRAD_DYH, MEST_RECUR_GRAD_DYC, MEST_RECUR_GRAD_N_IN };

/* The lane workspaces: places in elements, all rows. */
typedef struct mest_recurrent_lanes {
    int64_t rows;  /* of the batch, rounded up */
    int64_t gates, extra, h, c, size;
    int64_t grad_gates, grad_h, grad_c, grad_size;
} mest_recurrent_lanes;
static inline mest_recurrent_lanes mest_recurrent_lanes_of(mest_rnn_kind kind, int64_t t, int64_t n, int64_t h, int64_t r_rows)
{
    const int64_t g = kind == MEST_LSTM ? 4 : kind == MEST_GRU ? 3 : 1;
    mest_recurrent_lanes l = {.rows = (n + 15) / 16 * 16};
    l.extra = l.rows * t * g * h;
    l.h = l.extra + (kind == MEST_GRU ? l.rows * t * h : 0);
    l.c = l.h + l.rows * (t + 1) * h;
    l.size = l.c + (kind == MEST_LSTM ? l.rows * (t + 1) * h : 0);
    l.grad_h = l.rows * t * r_rows;
    l.grad_c = l.grad_h + l.rows * h;
    l.grad_size = l.grad_c + l.rows * h;
    return l;
}

#endif
