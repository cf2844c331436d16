/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient cases of the neural-network operators. */
#include <math.h>

#include "ops/loss.h"
#include "tests/grad/cases.h"

#define INTS(...) { GRAD_DIMS(__VA_ARGS__), (const int64_t[]){ __VA_ARGS__ } }
#define VAR(...) { .shape = GRAD_SHAPE(__VA_ARGS__) }
#define DISTINCT(...) { .shape = GRAD_SHAPE(__VA_ARGS__), .fill = GRAD_DISTINCT }
#define FIXED(...) { .shape = GRAD_SHAPE(__VA_ARGS__), .role = GRAD_FIXED }
#define FIXED_POSITIVE(...) { .shape = GRAD_SHAPE(__VA_ARGS__), .role = GRAD_FIXED, .lo = 0.5, .hi = 2 }
#define ABSENT { .shape = { .rank = 0 }, .role = GRAD_ABSENT }

/* ---- convolutions ---- */
static const mest_conv_params conv_plain = { .group = 1 };
static const mest_conv_params conv_padded = { .group = 1, .pads = INTS(1, 1, 1, 1) };
static const mest_conv_params conv_uneven = { .group = 1, .pads = INTS(0, 2, 1, 0), .strides = INTS(2, 3), .dilations = INTS(2, 1) };
static const mest_conv_params conv_grouped = { .group = 2, .pads = INTS(1, 1, 1, 1), .strides = INTS(2, 2) };
static const mest_conv_params conv_depthwise = { .group = 3, .pads = INTS(1, 2, 0, 1), .strides = INTS(1, 2), .dilations = INTS(1, 2) };
static const mest_conv_params conv_line = { .group = 1, .pads = INTS(2, 1), .strides = INTS(2) };
static const mest_conv_params conv_upper = { .group = 1, .auto_pad = "SAME_UPPER", .strides = INTS(2, 2) };
static const mest_conv_params conv_lower = { .group = 1, .auto_pad = "SAME_LOWER", .strides = INTS(2, 2) };
static const mest_conv_params conv_valid = { .group = 1, .auto_pad = "VALID", .pads = INTS(7, 7, 7, 7) };
static const mest_conv_params conv_volume = { .group = 2, .pads = INTS(1, 0, 1, 0, 1, 1), .strides = INTS(1, 2, 1) };
static const mest_conv_params up_plain = { .group = 1, .strides = INTS(2, 2) };
static const mest_conv_params up_padding = { .group = 1, .strides = INTS(2, 3), .pads = INTS(1, 0, 1, 1), .output_padding = INTS(1, 2) };
static const mest_conv_params up_grouped = { .group = 2, .strides = INTS(2, 2), .pads = INTS(1, 1, 1, 1), .dilations = INTS(1, 2) };
static const mest_conv_params up_shape = { .group = 1, .strides = INTS(2, 2), .output_shape = INTS(6, 7) };
static const mest_conv_params up_same = { .group = 1, .strides = INTS(2, 2), .auto_pad = "SAME_UPPER" };
static const mest_conv_params up_line = { .group = 3, .strides = INTS(3), .pads = INTS(1, 1) };

/* ---- products ---- */
static const mest_gemm_params gemm_plain = { 1, 1, 0, 0 }, gemm_b = { 0.7, 1.3, 0, 1 }, gemm_a = { -2, 0.5, 1, 0 }, gemm_ab = { 1.5, 2, 1, 1 };

/* ---- normalisation ---- */
static const mest_bn_params bn = { .epsilon = 1e-5, .momentum = 0.9, .spatial = 1 },
    bn_relu = { .epsilon = 1e-5, .momentum = 0.9, .spatial = 1, .clamp = { true, 0, INFINITY } },
    bn_clip = { .epsilon = 1e-5, .momentum = 0.9, .spatial = 1, .clamp = { true, -0.3, 0.6 } };
#define BN_ACT(name, ...) static const mest_bn_params name = { .epsilon = 1e-5, .momentum = 0.9, .spatial = 1, .act = { __VA_ARGS__ } }
BN_ACT(bn_leaky, MEST_ACT_LEAKY_RELU, 0.2, 0);
BN_ACT(bn_sigmoid, MEST_ACT_SIGMOID, 0, 0);
BN_ACT(bn_tanh, MEST_ACT_TANH, 0, 0);
BN_ACT(bn_hard_sigmoid, MEST_ACT_HARD_SIGMOID, 0.2, 0.5);
BN_ACT(bn_hard_swish, MEST_ACT_HARD_SWISH, 0, 0);
BN_ACT(bn_swish, MEST_ACT_SWISH, 1.5, 0);
BN_ACT(bn_gelu, MEST_ACT_GELU, 0, 0);
BN_ACT(bn_gelu_tanh, MEST_ACT_GELU_TANH, 0, 0);
BN_ACT(bn_mish, MEST_ACT_MISH, 0, 0);
static const mest_norm_params ln_last = { -1, 1e-5, 1 }, ln_two = { 1, 1e-3, 1 };
typedef struct groupnorm_params { double epsilon; int64_t groups, stash_type; } groupnorm_params;
static const groupnorm_params gn_instance = { 1e-5, 0, 1 }, gn_two = { 1e-3, 2, 1 };
typedef struct lrn_params { double alpha, beta, bias; int64_t size; } lrn_params;
static const lrn_params lrn_even = { 0.4, 0.75, 1, 4 }, lrn_odd = { 0.3, 0.6, 2, 3 };

/* ---- pools ---- */
static const mest_pool_params pool_22 = { .kernel_shape = INTS(2, 2), .strides = INTS(2, 2) };
static const mest_pool_params pool_pad = { .kernel_shape = INTS(3, 3), .strides = INTS(2, 2), .pads = INTS(1, 1, 1, 1) };
static const mest_pool_params pool_pad_all = { .kernel_shape = INTS(3, 3), .strides = INTS(2, 2), .pads = INTS(1, 1, 1, 1), .count_include_pad = 1 };
static const mest_pool_params pool_ceil = { .kernel_shape = INTS(3, 2), .strides = INTS(2, 2), .ceil_mode = 1 };
static const mest_pool_params pool_ceil_all = { .kernel_shape = INTS(3, 3), .strides = INTS(2, 2), .pads = INTS(1, 0, 1, 1), .ceil_mode = 1, .count_include_pad = 1 };
static const mest_pool_params pool_dilated = { .kernel_shape = INTS(2, 3), .dilations = INTS(2, 2), .pads = INTS(1, 1, 0, 1) };
static const mest_pool_params pool_line = { .kernel_shape = INTS(3), .strides = INTS(2) };
static const mest_pool_params pool_volume = { .kernel_shape = INTS(2, 2, 2), .strides = INTS(1, 2, 1) };
static const mest_pool_params pool_same = { .kernel_shape = INTS(2, 2), .strides = INTS(2, 2), .auto_pad = "SAME_UPPER" };

/* ---- the rest ---- */
static const mest_dropout_params dropout = { .ratio = 0.4, .key = 5 };
static const mest_softmax_params softmax_last = { -1, 0 }, softmax_middle = { 1, 0 }, softmax_flat = { 1, 1 }, softmax_flat_end = { 2, 1 };
static const mest_loss_params loss_any = { 0, -1 };
static const mest_ce_params loss_last = { { 0, -1 }, false, 0 }, loss_smooth = { { 0.1, -1 }, false, 0 }, loss_middle = { { 0.2, 1 }, false, 0 },
                            loss_ignores = { { 0.1, 1 }, true, 2 };
static const int64_t targets_4[] = { 2, 0, 4, 4 }, targets_6[] = { 1, 0, 2, 2, 1, 0 };

/* An activation behind both forms, on an image and on a line past a piece of the slopes. */
#define BN_ACT_CASES(text, p)                                                                                                                  \
    { "image, " text, "BatchNormalization", .params = &p, .n_in = 5, .in = { VAR(2, 3, 3, 2), VAR(3), VAR(3), FIXED(3), FIXED_POSITIVE(3) } },   \
    { "image, " text, "mest.BatchNormTrain", .params = &p, .n_out = 4, .skip_out = 14, .n_in = 5,                                               \
      .in = { VAR(3, 2, 3, 3), VAR(2), VAR(2), FIXED(2), FIXED_POSITIVE(2) } },                                                                \
    { "line, " text, "mest.BatchNormTrain", .params = &p, .n_out = 4, .skip_out = 14, .n_in = 5,                                                \
      .in = { VAR(1, 2, 300), VAR(2), VAR(2), FIXED(2), FIXED_POSITIVE(2) } }

const grad_case grad_cases_nn[] = {
    { "no padding, bias", "Conv", .params = &conv_plain, .n_in = 3, .in = { VAR(2, 3, 4, 5), VAR(4, 3, 3, 2), VAR(4) } },
    { "3x3 padded, no bias", "Conv", .params = &conv_padded, .n_in = 2, .in = { VAR(2, 2, 5, 4), VAR(3, 2, 3, 3) } },
    { "uneven pads, strides, dilation", "Conv", .params = &conv_uneven, .n_in = 3, .in = { VAR(2, 2, 7, 6), VAR(3, 2, 2, 3), VAR(3) } },
    { "grouped, stride 2", "Conv", .params = &conv_grouped, .n_in = 3, .in = { VAR(2, 4, 5, 5), VAR(6, 2, 3, 3), VAR(6) } },
    { "depthwise", "Conv", .params = &conv_depthwise, .n_in = 3, .in = { VAR(2, 3, 5, 6), VAR(3, 1, 2, 3), VAR(3) } },
    { "depthwise, two outputs each", "Conv", .params = &conv_depthwise, .n_in = 2, .in = { VAR(2, 3, 5, 6), VAR(6, 1, 2, 3) } },
    { "one axis", "Conv", .params = &conv_line, .n_in = 3, .in = { VAR(3, 2, 9), VAR(5, 2, 4), VAR(5) } },
    { "SAME_UPPER", "Conv", .params = &conv_upper, .n_in = 2, .in = { VAR(1, 2, 5, 6), VAR(2, 2, 2, 3) } },
    { "SAME_LOWER", "Conv", .params = &conv_lower, .n_in = 2, .in = { VAR(1, 2, 6, 5), VAR(2, 2, 3, 2) } },
    { "VALID", "Conv", .params = &conv_valid, .n_in = 2, .in = { VAR(1, 2, 4, 4), VAR(2, 2, 3, 3) } },
    { "1x1", "Conv", .params = &conv_plain, .n_in = 3, .in = { VAR(2, 5, 3, 3), VAR(7, 5, 1, 1), VAR(7) } },
    { "kernel as large as the image", "Conv", .params = &conv_plain, .n_in = 3, .in = { VAR(5, 3, 3, 3), VAR(4, 3, 3, 3), VAR(4) } },
    { "three axes, grouped", "Conv", .params = &conv_volume, .n_in = 3, .in = { VAR(1, 2, 3, 4, 3), VAR(2, 1, 2, 2, 3), VAR(2) } },
    { "input frozen", "Conv", .params = &conv_padded, .n_in = 3, .in = { FIXED(1, 2, 4, 4), VAR(2, 2, 3, 3), VAR(2) } },
    { "2x2 stride 2", "ConvTranspose", .params = &up_plain, .n_in = 3, .in = { VAR(2, 3, 3, 2), VAR(3, 2, 2, 2), VAR(2) } },
    { "output_padding", "ConvTranspose", .params = &up_padding, .n_in = 3, .in = { VAR(2, 2, 3, 3), VAR(2, 3, 3, 4), VAR(3) } },
    { "grouped, dilated", "ConvTranspose", .params = &up_grouped, .n_in = 3, .in = { VAR(2, 4, 3, 3), VAR(4, 2, 3, 2), VAR(4) } },
    { "output_shape", "ConvTranspose", .params = &up_shape, .n_in = 2, .in = { VAR(1, 2, 3, 3), VAR(2, 2, 3, 3) } },
    { "SAME_UPPER", "ConvTranspose", .params = &up_same, .n_in = 2, .in = { VAR(1, 2, 3, 2), VAR(2, 2, 3, 3) } },
    { "one axis, depthwise", "ConvTranspose", .params = &up_line, .n_in = 3, .in = { VAR(2, 3, 4), VAR(3, 1, 4), VAR(3) } },

    { "row bias", "Gemm", .params = &gemm_plain, .n_in = 3, .in = { VAR(3, 5), VAR(5, 4), VAR(4) } },
    { "B transposed, full bias", "Gemm", .params = &gemm_b, .n_in = 3, .in = { VAR(3, 5), VAR(4, 5), VAR(3, 4) } },
    { "A transposed, column bias", "Gemm", .params = &gemm_a, .n_in = 3, .in = { VAR(5, 3), VAR(5, 4), VAR(3, 1) } },
    { "both transposed, scalar bias", "Gemm", .params = &gemm_ab, .n_in = 3, .in = { VAR(5, 3), VAR(4, 5), { .shape = { .rank = 0 } } } },
    { "no bias, past one panel", "Gemm", .params = &gemm_b, .n_in = 2, .in = { VAR(2, 3), VAR(19, 3) } },
    { "matrices", "MatMul", .n_in = 2, .in = { VAR(3, 4), VAR(4, 5) } },
    { "vectors", "MatMul", .n_in = 2, .in = { VAR(4), VAR(4) } },
    { "row times batch", "MatMul", .n_in = 2, .in = { VAR(4), VAR(2, 4, 3) } },
    { "batch times column", "MatMul", .n_in = 2, .in = { VAR(2, 3, 4), VAR(4) } },
    { "batch times matrix", "MatMul", .n_in = 2, .in = { VAR(2, 2, 3, 4), VAR(4, 2) } },
    { "matrix times batch", "MatMul", .n_in = 2, .in = { VAR(3, 4), VAR(2, 3, 4, 2) } },
    { "both broadcast", "MatMul", .n_in = 2, .in = { VAR(2, 1, 3, 2), VAR(1, 3, 2, 2) } },
    { "batches", "MatMul", .n_in = 2, .in = { VAR(2, 3, 2, 4), VAR(2, 3, 4, 2) } },

    { "image", "BatchNormalization", .params = &bn, .n_in = 5, .in = { VAR(2, 3, 3, 2), VAR(3), VAR(3), FIXED(3), FIXED_POSITIVE(3) } },
    { "rows", "BatchNormalization", .params = &bn, .n_in = 5, .in = { VAR(4, 3), VAR(3), VAR(3), FIXED(3), FIXED_POSITIVE(3) } },
    { "image", "mest.BatchNormTrain", .params = &bn, .n_out = 3, .skip_out = 6, .n_in = 5,
      .in = { VAR(3, 2, 3, 3), VAR(2), VAR(2), FIXED(2), FIXED_POSITIVE(2) } },
    { "rows", "mest.BatchNormTrain", .params = &bn, .n_out = 3, .skip_out = 6, .n_in = 5, .in = { VAR(6, 3), VAR(3), VAR(3), FIXED(3), FIXED_POSITIVE(3) } },
    /* None of these pre-activations is within a step of a bound, where a difference would be halved; 300 is past a piece of the masked sums. */
    { "image, relu", "BatchNormalization", .params = &bn_relu, .n_in = 5, .in = { VAR(2, 3, 3, 2), VAR(3), VAR(3), FIXED(3), FIXED_POSITIVE(3) } },
    { "line, relu", "BatchNormalization", .params = &bn_relu, .n_in = 5,
      .in = { { .shape = GRAD_SHAPE(1, 2, 300), .lo = -1, .hi = 1.01 }, VAR(2), VAR(2), FIXED(2), FIXED_POSITIVE(2) } },
    { "image, relu", "mest.BatchNormTrain", .params = &bn_relu, .n_out = 3, .skip_out = 6, .n_in = 5,
      .in = { VAR(3, 2, 3, 3), VAR(2), VAR(2), FIXED(2), FIXED_POSITIVE(2) } },
    { "line, relu", "mest.BatchNormTrain", .params = &bn_relu, .n_out = 3, .skip_out = 6, .n_in = 5,
      .in = { VAR(1, 2, 300), VAR(2), VAR(2), FIXED(2), FIXED_POSITIVE(2) } },
    { "image, clip", "BatchNormalization", .params = &bn_clip, .n_in = 5, .in = { VAR(2, 3, 3, 2), VAR(3), VAR(3), FIXED(3), FIXED_POSITIVE(3) } },
    { "image, clip", "mest.BatchNormTrain", .params = &bn_clip, .n_out = 3, .skip_out = 6, .n_in = 5,
      .in = { VAR(3, 2, 3, 3), VAR(2), VAR(2), FIXED(2), FIXED_POSITIVE(2) } },
    BN_ACT_CASES("leaky", bn_leaky),
    BN_ACT_CASES("sigmoid", bn_sigmoid),
    BN_ACT_CASES("tanh", bn_tanh),
    BN_ACT_CASES("hard sigmoid", bn_hard_sigmoid),
    BN_ACT_CASES("hard swish", bn_hard_swish),
    BN_ACT_CASES("swish", bn_swish),
    BN_ACT_CASES("gelu", bn_gelu),
    BN_ACT_CASES("gelu tanh", bn_gelu_tanh),
    BN_ACT_CASES("mish", bn_mish),
    { "rows, relu", "mest.BatchNormTrain", .params = &bn_relu, .n_out = 3, .skip_out = 6, .n_in = 5, .in = { VAR(6, 3), VAR(3), VAR(3), FIXED(3), FIXED_POSITIVE(3) } },
    { "last axis", "LayerNormalization", .params = &ln_last, .n_in = 3, .in = { VAR(2, 3, 6), VAR(6), VAR(6) } },
    { "two axes, no bias, all outputs", "LayerNormalization", .params = &ln_two, .n_out = 3, .skip_out = 6, .n_in = 2, .in = { VAR(2, 3, 4), VAR(3, 4) } },
    { "image", "InstanceNormalization", .params = &gn_instance, .n_in = 3, .in = { VAR(2, 3, 3, 2), VAR(3), VAR(3) } },
    { "two groups", "GroupNormalization", .params = &gn_two, .n_in = 3, .in = { VAR(2, 4, 3, 2), VAR(4), VAR(4) } },
    { "scale per group", "GroupNormalization", .opset = 18, .params = &gn_two, .n_in = 3, .in = { VAR(2, 4, 3, 2), VAR(2), VAR(2) } },
    { "even window", "LRN", .params = &lrn_even, .n_in = 1, .in = { VAR(2, 6, 2, 2) } },
    { "odd window", "LRN", .params = &lrn_odd, .n_in = 1, .in = { VAR(1, 5, 3) } },

    { "2x2", "MaxPool", .params = &pool_22, .n_in = 1, .in = { DISTINCT(2, 2, 4, 5) } },
    { "padded, overlapping", "MaxPool", .params = &pool_pad, .n_in = 1, .in = { DISTINCT(1, 2, 5, 6) } },
    { "ceil_mode", "MaxPool", .params = &pool_ceil, .n_in = 1, .in = { DISTINCT(1, 2, 6, 5) } },
    { "dilated", "MaxPool", .params = &pool_dilated, .n_in = 1, .in = { DISTINCT(1, 1, 5, 6) } },
    { "one axis", "MaxPool", .params = &pool_line, .n_in = 1, .in = { DISTINCT(2, 2, 8) } },
    { "three axes", "MaxPool", .params = &pool_volume, .n_in = 1, .in = { DISTINCT(1, 2, 3, 4, 3) } },
    { "2x2", "AveragePool", .params = &pool_22, .n_in = 1, .in = { VAR(2, 2, 4, 5) } },
    { "padded, overlapping", "AveragePool", .params = &pool_pad, .n_in = 1, .in = { VAR(1, 2, 5, 6) } },
    { "padding counts", "AveragePool", .params = &pool_pad_all, .n_in = 1, .in = { VAR(1, 2, 5, 6) } },
    { "ceil_mode, padding counts", "AveragePool", .params = &pool_ceil_all, .n_in = 1, .in = { VAR(1, 2, 6, 5) } },
    { "dilated", "AveragePool", .params = &pool_dilated, .n_in = 1, .in = { VAR(1, 1, 5, 6) } },
    { "SAME_UPPER", "AveragePool", .params = &pool_same, .n_in = 1, .in = { VAR(1, 2, 5, 3) } },
    { "image", "GlobalAveragePool", .n_in = 1, .in = { VAR(2, 3, 3, 2) } },
    { "line", "GlobalAveragePool", .n_in = 1, .in = { VAR(2, 3, 5) } },
    { "image", "GlobalMaxPool", .n_in = 1, .in = { DISTINCT(2, 3, 3, 2) } },

    { "inference", "Dropout", .params = &dropout, .n_in = 1, .n_out = 2, .in = { VAR(3, 5) } },
    { "ratio 0.4", "mest.DropoutTrain", .params = &dropout, .n_in = 1, .in = { VAR(5, 9) } },
    { "last axis", "Softmax", .params = &softmax_last, .n_in = 1, .in = { VAR(3, 5) } },
    { "middle axis", "Softmax", .params = &softmax_middle, .n_in = 1, .in = { VAR(2, 4, 3) } },
    { "flattened", "Softmax", .opset = 11, .params = &softmax_flat, .n_in = 1, .in = { VAR(2, 2, 3) } },
    { "flattened behind the last axis", "Softmax", .opset = 11, .params = &softmax_flat_end, .n_in = 1, .in = { VAR(2, 3) } },
    { "last axis", "LogSoftmax", .params = &softmax_last, .n_in = 1, .in = { VAR(3, 5) } },
    { "middle axis", "LogSoftmax", .params = &softmax_middle, .n_in = 1, .in = { VAR(2, 4, 3) } },
    { "flattened", "LogSoftmax", .opset = 11, .params = &softmax_flat, .n_in = 1, .in = { VAR(2, 2, 3) } },

    { "classes last", "mest.SoftmaxCrossEntropy", .params = &loss_last, .n_out = 3, .is_loss = true, .n_in = 2,
      .in = { VAR(4, 5), { .shape = GRAD_SHAPE(4), .role = GRAD_FIXED, .fill = GRAD_NUMBERS, .dtype = MEST_I64, .ints = targets_4 } } },
    { "smoothed", "mest.SoftmaxCrossEntropy", .params = &loss_smooth, .n_out = 3, .is_loss = true, .n_in = 2,
      .in = { VAR(4, 5), { .shape = GRAD_SHAPE(4), .role = GRAD_FIXED, .fill = GRAD_NUMBERS, .dtype = MEST_I64, .ints = targets_4 } } },
    { "classes in the middle, smoothed", "mest.SoftmaxCrossEntropy", .params = &loss_middle, .n_out = 3, .is_loss = true, .n_in = 2,
      .in = { VAR(2, 3, 3), { .shape = GRAD_SHAPE(2, 3), .role = GRAD_FIXED, .fill = GRAD_NUMBERS, .dtype = MEST_I64, .ints = targets_6 } } },
    { "classes in the middle, one of them ignored", "mest.SoftmaxCrossEntropy", .params = &loss_ignores, .n_out = 3, .is_loss = true, .n_in = 2,
      .in = { VAR(2, 3, 3), { .shape = GRAD_SHAPE(2, 3), .role = GRAD_FIXED, .fill = GRAD_NUMBERS, .dtype = MEST_I64, .ints = targets_6 } } },
    { "matrix", "mest.MSELoss", .params = &loss_any, .n_out = 2, .is_loss = true, .n_in = 2, .in = { VAR(3, 4), FIXED(3, 4) } },
    { "logits", "mest.BCELoss", .params = &loss_any, .n_out = 2, .is_loss = true, .n_in = 2,
      .in = { { .shape = GRAD_SHAPE(3, 4), .lo = -4, .hi = 4 }, { .shape = GRAD_SHAPE(3, 4), .role = GRAD_FIXED, .lo = 0, .hi = 1 } } },
    { .name = NULL },
};
const grad_exempt grad_exempt_nn[] = { { "mest.FakeQuantize", "the gradient goes straight through a step function; the zoo compares it with PyTorch's (fn_fake_quantize)" }, { .op = NULL } };
