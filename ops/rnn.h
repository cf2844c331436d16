/* SPDX-License-Identifier: Apache-2.0 */
/* Recurrent layers: what LSTM, GRU and RNN share.
 *
 *   mest_rnn_params   attributes
 *   mest_rnn          sizes of a layer, and where the parts of its workspace lie
 *   mest_rnn_run      one run: operands, workspace, results
 *   mest_rnn_rows     some rows of the batch in one direction at one step: what a cell works on
 *
 * Letters: T steps, N batch, I input size, H hidden size, D directions (1 or 2), G gates (LSTM 4: i o f c, GRU 3: z r h, RNN 1).
 *
 *   mest.LSTM, mest.GRU, mest.RNN     X W R B? lens? h0? c0? P?                        workspace Y Y_h Y_c
 *   mest.LSTMGrad, ...                X W R B? lens? h0? c0? P? workspace dY? dY_h? dY_c?   workspace dX dW dR dB dh0 dc0 dP
 *
 * The workspace is the first output: it holds what the steps compute, for the steps themselves and for the gradient, so that nothing is
 * allocated in a run. Per direction, each part rounded up to a cache line:
 *   gates   [T][N][G][H]    the gates after their activations (first X W^T + bias, all steps in one product)
 *   extra   [T][N][H]       GRU: R_h h + Rb_h (linear_before_reset) or r * h
 *   h, c    [T+1][N][H]     the states; forward: slot t is the state before step t; reverse: slot t+1
 *   bias    [G][H]          Wb + Rb
 *   panels  [G][H/16][H][16] R^T as mest_dense_block wants it
 * and of a gradient:
 *   gates   [T][N][G][H]    gradients before the activations
 *   extra   [T][N][H]       GRU: gradient of that extra value
 *   h, c    [N][H]          gradients of the states, from step to step
 *   panels  [G][H/16][H][16] R
 */
#ifndef MEST_OPS_RNN_H
#define MEST_OPS_RNN_H

#include "ops/dense.h"
#include "runtime/op.h"

typedef enum mest_rnn_kind { MEST_LSTM, MEST_GRU, MEST_RNN } mest_rnn_kind;

typedef struct mest_rnn_params {
    int64_t hidden_size;                    /* 0: from R */
    const char *direction;
    int64_t linear_before_reset, input_forget, layout; /* layout 1: the batch is the first axis of X, Y and the states */
    double clip;
    mest_strings activations;
    mest_floats alpha, beta;                /* of activations that have such, in their order */
} mest_rnn_params;

typedef enum mest_cell_kind {
    MEST_CELL_SIGMOID, MEST_CELL_TANH, MEST_CELL_RELU, MEST_CELL_HARD_SIGMOID, MEST_CELL_SOFTSIGN, MEST_CELL_SOFTPLUS, MEST_CELL_LEAKY_RELU, MEST_CELL_ELU,
    MEST_CELL_THRESHOLDED_RELU, MEST_CELL_AFFINE, MEST_CELL_SCALED_TANH
} mest_cell_kind;
typedef struct mest_cell { mest_cell_kind kind; double alpha, beta; } mest_cell;

typedef struct mest_rnn {
    mest_rnn_kind kind;
    int gates, directions;
    int64_t t, n, i, h;
    bool reverse;                           /* direction 0 runs from the end */
    bool batch_first, linear_before_reset, relu;
    bool other, coupled;                    /* other: not the default activations (act), or clip, or input_forget (coupled) */
    double clip;                            /* of what goes into the activations of gates; 0: none */
    mest_cell act[2][3];                    /* per direction: gates, candidate, state (RNN: the first; GRU: two) */
    int order[4];                           /* place of each gate in R (and in what X W^T gave) */
    int64_t at_extra, at_h, at_c, at_bias, at_panels, size;                 /* workspace of one direction; gates are at 0 */
    int64_t grad_extra, grad_h, grad_c, grad_panels, grad_size;
} mest_rnn;

typedef struct mest_rnn_run {
    mest_rnn g;
    const mest_real *x, *w, *r, *b, *h0, *c0, *p;
    const int32_t *lens;
    mest_real *ws, *y, *yh, *yc;
    mest_real *grad;                        /* workspace of the gradient */
    const mest_real *dy, *dyh, *dyc;
    mest_real *dx, *dw, *dr, *db, *dh0, *dc0, *dp;
} mest_rnn_run;

enum { MEST_RNN_ROWS = 16 };                /* rows of a tile: they run through all steps on their own */

typedef struct mest_rnn_rows {
    const mest_rnn_run *run;
    int direction;
    int64_t first, n, t;                    /* rows [first, first + n) at step t */
} mest_rnn_rows;

static inline bool mest_rnn_reversed(const mest_rnn *g, int direction) { return direction == 1 || g->reverse; }
/* Slot of the state before (and after) step t. */
static inline int64_t mest_rnn_before(const mest_rnn *g, int direction, int64_t t) { return mest_rnn_reversed(g, direction) ? t + 1 : t; }
static inline int64_t mest_rnn_after(const mest_rnn *g, int direction, int64_t t) { return mest_rnn_reversed(g, direction) ? t : t + 1; }
/* The sequence of row n is over before step t: its state stays, its output is zero. */
static inline bool mest_rnn_over(const mest_rnn_run *r, int64_t n, int64_t t) { return r->lens && t >= r->lens[n]; }
/* Offset of Y[t, direction, n, 0], and of the state (direction, n). */
static inline int64_t mest_rnn_y(const mest_rnn *g, int direction, int64_t t, int64_t n)
{
    return (g->batch_first ? (n * g->t + t) * g->directions + direction : (t * g->directions + direction) * g->n + n) * g->h;
}
static inline int64_t mest_rnn_state(const mest_rnn *g, int direction, int64_t n)
{
    return (g->batch_first ? n * g->directions + direction : direction * g->n + n) * g->h;
}

/* Fills the places of the workspaces from kind and sizes. ops/rnn_run.c, as all up to the cells */
void mest_rnn_place(mest_rnn *g);
/* R of a direction (or R^T) as the cells want it. */
void mest_rnn_pack(const mest_rnn_run *run, int direction, bool transposed, mest_real *panels);
/* Fills what activations, clip and input_forget say; kind and directions are there. NULL, or what is wrong with activation *which. ops/rnn_cells_other.c */
const char *mest_rnn_activations(const mest_rnn_params *p, mest_rnn *g, int *which);
/* What is added to the gates: Wb + Rb, but for GRU's Rb_h with linear_before_reset. */
void mest_rnn_bias(const mest_rnn_run *run, int direction, mest_real *bias);
/* Rows [N][H] of a state to or from its place in Y_h's layout; taking: zero if there is none. */
void mest_rnn_copy_state(const mest_rnn *g, int direction, mest_real *rows, mest_real *state, bool out);
void mest_rnn_take_state(const mest_rnn *g, int direction, mest_real *rows, const mest_real *state);
/* All steps; then dR of a direction, and dB and dP of both. */
void mest_rnn_forward(const mest_threads *threads, const mest_rnn_run *run);
void mest_rnn_backward(const mest_threads *threads, const mest_rnn_run *run);
void mest_rnn_recurrent_gradient(const mest_threads *threads, const mest_rnn_run *run, int direction);
void mest_rnn_sums(const mest_threads *threads, const mest_rnn_run *run);

/* One step of some rows: gates (which hold X W^T + bias) and states of the step. ops/rnn_cells.c */
void mest_rnn_step(const mest_rnn_rows *rows);
/* One step back: gradients of the gates at t, of the states before t. */
void mest_rnn_step_back(const mest_rnn_rows *rows);

#endif
