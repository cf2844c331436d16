/* SPDX-License-Identifier: Apache-2.0 */
/* What the reference of attention and its kernels share.
 *
 *   mest_operand     one of Q, K, V, Y: heads, steps, features, and strides in elements
 *   mest_attention   sizes, scale, mask and dropout of a node
 *
 * Letters: B batch, Hq and Hk heads of Q and of K (Hq a multiple of Hk: neighbours share), S and T steps of Q and of K, E features of Q and K, F
 * of V.
 *
 *   mest.Attention       Q K V mask?                  lse[B,Hq,S] Y
 *   mest.AttentionGrad   Q K V mask? lse Y dY         dscores[B,Hq,S,T] dQ dK dV      (any may be unwanted)
 *
 * lse is log sum exp of a row of scores: probabilities are computed again where they are needed, and no S x T array exists unless dscores, the
 * gradient of a float mask, is wanted. A row that sees nothing has lse = inf and Y = 0.
 */
#ifndef MEST_OPS_ATTENTION_H
#define MEST_OPS_ATTENTION_H

#include <math.h>

#include "ops/dropout_keep.h"
#include "ops/nn.h"

typedef struct mest_operand { int64_t heads, steps, size, batch, head, step; } mest_operand;

typedef struct mest_attention {
    mest_operand q, k, v, y;
    int64_t batch, group;         /* group: heads of Q that share one of K and V */
    double scale;
    bool causal, drops;
    const void *mask;             /* NULL: none */
    bool mask_bool, mask_invert;
    mest_real fill;               /* score of what a bool mask hides */
    int64_t mask_stride[4];       /* 0 where it broadcasts */
    mest_dropout_keep keep;       /* of probability ((b * Hq + h) * S + s) * T + t */
} mest_attention;

/* ONNX's attributes; what is ours comes first, so that mest.Attention reads the same memory. */
typedef struct mest_attention_file {
    mest_attention_params run;
    int64_t left, right;          /* window before and behind a position; -1: no end */
} mest_attention_file;
enum { MEST_ATTENTION_Q, MEST_ATTENTION_K, MEST_ATTENTION_V, MEST_ATTENTION_MASK, MEST_ATTENTION_PAST_K, MEST_ATTENTION_PAST_V, MEST_ATTENTION_LENGTHS, MEST_ATTENTION_INPUTS };

/* Sizes only; false where the shapes do not fit. ops/attention.c */
bool mest_attention_sizes(const mest_attention_params *p, const mest_shape *q, const mest_shape *k, const mest_shape *v, mest_attention *a);
/* For a run, mask and dropout included. Shapes have been checked by the infer rule. */
void mest_attention_run(const mest_args *args, mest_attention *a);

/* Where head h (of Q) of batch b starts. */
static inline int64_t mest_operand_at(const mest_attention *a, const mest_operand *o, int64_t b, int64_t h)
{
    return b * o->batch + (o->heads == a->q.heads ? h : h / a->group) * o->head;
}

/* Score t of row (b, h, s) behind the mask; *hidden: no gradient passes to Q and K. */
static inline mest_real mest_attention_masked(const mest_attention *a, mest_real score, int64_t b, int64_t h, int64_t s, int64_t t, bool *hidden)
{
    *hidden = false;
    if (a->mask) {
        const int64_t at = b * a->mask_stride[0] + h * a->mask_stride[1] + s * a->mask_stride[2] + t * a->mask_stride[3];
        if (!a->mask_bool)
            score += ((const mest_real *)a->mask)[at];
        else if ((((const uint8_t *)a->mask)[at] != 0) == a->mask_invert) {
            *hidden = true;
            score = a->fill;
        }
    }
    if (a->causal && t > s) {
        *hidden = true;
        score = -(mest_real)INFINITY;
    }
    return score;
}

#endif
