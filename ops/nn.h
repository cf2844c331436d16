/* SPDX-License-Identifier: Apache-2.0 */
/* Params and conventions of the operators that have kernels of their own (shared by ops/, ops/kernels, ops/xnn, sparse/kernels).
 *
 * Letters: N batch, C input channels, M output channels, G groups, H W image, R S kernel, P Q output image.
 *
 *   op                       inputs                                   outputs (any may be unwanted)
 *   Conv                     X[N,C,..] W[M,C/G,..] B[M]?              Y[N,M,..]
 *   mest.ConvGrad            X W dY                                   dX dW dB[M]
 *   ConvTranspose            X[N,C,..] W[C,M/G,..] B[M]?              Y[N,M,..]
 *   mest.ConvTransposeGrad   X W dY                                   dX dW dB[M]
 *   mest.ConvAffine          X W shift[M]? factor[M]?                 Y = act(Conv(X, W) * factor + shift); also mest.ConvTransposeAffine
 *   mest.BatchNormFold       scale B mean var bias?                   factor[M] shift[M]
 *   Gemm                     A B C?                                   Y = alpha A' B' + beta C
 *   mest.GemmGrad            A B C? dY                                dA dB dC
 *   MatMul                   A B                                      Y (numpy rules)
 *   mest.MatMulGrad          A B dY                                   dA dB (types of A and B: broadcast axes summed)
 *   BatchNormalization       X scale B mean var                       Y                     (running statistics)
 *   mest.BatchNormFrozenGrad X scale mean var dY Y?                   dX dscale dB (Y: with a clamp only)
 *   mest.BatchNormTrain      X scale B mean var moments[2,C]?         Y save_mean[C] save_invstd[C] map[3,C]; updates mean and var (PyTorch's rule:
 *                            unbiased variance, or ONNX's: params->biased; momentum as ONNX has it: running = running * momentum + batch * (1 - momentum))
 *                            moments, sums: float64, see ops/batchnorm.c
 *   mest.BatchNormAgain      X map S?                                 Y once more: (X - map[0]) map[1] + map[2] (+ S), the training form's bits
 *   mest.BatchNormMap        scale B mean var                         map[3,C] of the form with running statistics
 *   mest.BatchNormActGrad    X map dY                                 dZ = act'(Z) dY, Z = (X - map[0]) map[1] + map[2] made again
 *   mest.BatchNormGrad       X scale save_mean save_invstd dY Y? sums[2,C]?
 *                                                                     dX dscale dB map[4,C] dY' (Y: with a clamp only)
 *   mest.FusedConv, mest.FusedConvGrad                                see ops/fused_conv.c
 *   mest.DropoutTrain        X                                        Y, keyed by (run->seed, run->step, params->key, element)
 *   mest.DropoutGrad         dY                                       dX
 *   MaxPool                  X                                        Y Indices (the latter by the reference only)
 *   mest.MaxPoolGrad         X Y dY                                   dX (first maximum in scan order wins, as PyTorch)
 *   AveragePool              X                                        Y
 *   mest.AveragePoolGrad     dY                                       dX (params: a copy with x_shape)
 *   GlobalAveragePool        X                                        Y[N,C,1,..]
 *   mest.GlobalAveragePoolGrad dY                                     dX (params: mest_shape_params)
 *   Relu / mest.ReluGrad     X / Y dY                                 Y / dX
 *   mest.SoftmaxCrossEntropy logits targets(int64)                    loss[] row_loss[rows] correct[rows] (bool)
 *   mest.SoftmaxCrossEntropyGrad logits targets dloss[]               dlogits
 *   mest.MSELoss, mest.BCELoss y target                               loss[] row_loss[N]
 *   mest.MSELossGrad, mest.BCELossGrad y target dloss[]               dy
 *   mest.Relayout            X                                        X in another layout (and only that)
 *
 * 1-D and 2-D (and for plain references: 3-D) spatial ranks. Gradient ops take the forward op's params unless said otherwise.
 */
#ifndef MEST_OPS_NN_H
#define MEST_OPS_NN_H

#include "runtime/op.h"

typedef struct mest_conv_params {
    mest_ints kernel_shape, strides, pads, dilations; /* as in ONNX; n = 0 means absent */
    int64_t group;
    const char *auto_pad;                             /* NULL or NOTSET, SAME_UPPER, SAME_LOWER, VALID */
    mest_ints output_padding, output_shape;           /* ConvTranspose */
} mest_conv_params;

/* A convolution with every default filled in; 1-D becomes 2-D with height 1. */
typedef struct mest_conv_geometry {
    int64_t n, c, h, w;        /* input */
    int64_t m, p, q;           /* output channels, height, width */
    int64_t group, r, s;       /* kernel */
    int64_t stride_y, stride_x, dilation_y, dilation_x;
    int64_t top, left, bottom, right; /* pads */
    int spatial;               /* 1 or 2 */
} mest_conv_geometry;

/* From params and the shapes of X and W (output size computed, auto_pad resolved). False, with text, when they do not fit. Used by infer
 * rules and kernels alike. ops/conv.c */
bool mest_conv_geometry_of(const mest_conv_params *params, const mest_shape *x, const mest_shape *w, mest_conv_geometry *g, char *why, size_t why_size);

typedef struct mest_gemm_params {
    double alpha, beta;
    int64_t trans_a, trans_b;
} mest_gemm_params;

/* An activation that a layer does itself: y = min(max(y, lo), hi); NaN stays NaN. Relu is [0, inf), ReLU6 [0, 6]. Set by passes, never by a
 * file. The gradient passes strictly inside. */
typedef struct mest_clamp {
    bool on;
    mest_real lo, hi;
} mest_clamp;

/* The other activations that a layer does itself, in place of the node behind it (ops/act.h): what the operator of that name computes. Set by
 * passes, never by a file; never with a clamp. */
typedef enum mest_act_kind {
    MEST_ACT_NONE, MEST_ACT_LEAKY_RELU, MEST_ACT_SIGMOID, MEST_ACT_TANH, MEST_ACT_HARD_SIGMOID, MEST_ACT_HARD_SWISH, MEST_ACT_SWISH, MEST_ACT_GELU,
    MEST_ACT_GELU_TANH, MEST_ACT_MISH, MEST_ACT_KINDS
} mest_act_kind;
typedef struct mest_act {
    mest_act_kind kind;
    double alpha, beta;       /* attributes of the operator, where it has them */
} mest_act;

typedef struct mest_bn_params {
    double epsilon, momentum; /* ONNX: 1 - PyTorch's momentum */
    int64_t training_mode;
    int64_t spatial;          /* opset < 9, must be 1 */
    mest_clamp clamp;         /* pass bn_act: of Y; the gradients mask dY by where Y is inside */
    bool biased;              /* running variance by ONNX's rule, not PyTorch's; set by the runtime */
    mest_act act;             /* pass bn_act: of Y; the gradient rules put mest.BatchNormActGrad in front of the normalisation's own */
} mest_bn_params;

/* Running statistics after a batch of `count` values a channel with this mean and sum of squared distances from it. One value has no unbiased
 * variance: the biased one (0) is taken. run->bn_weight: a share of the batch other than 1 - momentum. */
static inline void mest_bn_track(const mest_bn_params *p, const mest_run *run, double batch_mean, double spread, double count, mest_real *mean, mest_real *var)
{
    const double keep = run && run->bn_weight > 0 ? 1 - run->bn_weight : p->momentum;
    const double variance = spread / (p->biased || count <= 1 ? count : count - 1);
    if (mean)
        *mean = (mest_real)((double)*mean * keep + batch_mean * (1 - keep));
    if (var)
        *var = (mest_real)((double)*var * keep + variance * (1 - keep));
}

typedef struct mest_channel_stats_params { /* mest.ChannelStats */
    double *mean, *var;
} mest_channel_stats_params;

typedef struct mest_norm_params { /* LayerNormalization, RMSNormalization */
    int64_t axis;
    double epsilon;
    int64_t stash_type;
} mest_norm_params;

typedef struct mest_softmax_params { int64_t axis, flatten; } mest_softmax_params; /* flatten: opset < 13, a matrix cut before axis */

typedef struct mest_dropout_params {
    double ratio;
    int64_t seed;             /* attribute of the file: ignored */
    uint64_t key;             /* number of the forward node */
} mest_dropout_params;

typedef struct mest_attention_params {
    int64_t causal, q_heads, kv_heads, output_mode, precision;
    double scale, softcap; /* scale 0: 1 / sqrt(E) */
    /* set by the pass attention, no attributes of files */
    int64_t mask_invert;   /* bool mask: true hides */
    int64_t fills;         /* bool mask: hidden scores become `fill` instead of -inf */
    double fill;
    mest_dropout_params dropout; /* of the probabilities, as a node mest.DropoutTrain would do it; ratio 0: none */
} mest_attention_params;

typedef struct mest_conv_affine_params { /* mest.ConvAffine, mest.ConvTransposeAffine: made by passes */
    mest_conv_params conv;    /* first: what reads only this reads the params of Conv */
    mest_clamp clamp;         /* of Y */
    mest_act act;             /* of Y */
} mest_conv_affine_params;

typedef struct mest_fused_conv_params { /* mest.FusedConv, mest.FusedConvGrad: made by passes */
    mest_conv_params conv;    /* first: what reads only this reads the params of Conv */
    mest_clamp clamp;         /* of X where it is read through a map */
    bool gate;                /* gradient: dX is 0 where X is not strictly inside the clamp */
} mest_fused_conv_params;

typedef struct mest_pool_params {
    mest_ints kernel_shape, strides, pads, dilations;
    int64_t ceil_mode, count_include_pad, storage_order;
    const char *auto_pad;
    mest_shape x_shape;       /* filled by the gradient rule */
} mest_pool_params;

typedef struct mest_pool_geometry {
    int64_t n, c, h, w, p, q, r, s, stride_y, stride_x, dilation_y, dilation_x, top, left, bottom, right;
    int spatial;
} mest_pool_geometry;
bool mest_pool_geometry_of(const mest_pool_params *params, const mest_shape *x, mest_pool_geometry *g, char *why, size_t why_size);

typedef struct mest_shape_params {
    mest_shape shape;         /* of the gradient */
} mest_shape_params;

typedef struct mest_loss_params {
    double label_smoothing;
    int64_t class_axis;       /* of the logits */
} mest_loss_params;

/* mest.Update: inputs gradient, scale[]?; mest.Accumulate: gradient of a part of the batch -> gradient of the batch. The optimizer is the runtime's business; an operator only calls it. */
struct mest_optimizer;
typedef struct mest_update_params {
    void (*apply)(const struct mest_update_params *u, const mest_args *a);
    struct mest_optimizer *optimizer;
    int32_t param;            /* of the model */
} mest_update_params;

#endif
