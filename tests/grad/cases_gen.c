/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient cases of the general operators: elementwise, broadcasting, shape and data movement, reductions. */
#include "ops/elements.h"
#include "ops/nn.h"
#include "tests/grad/cases.h"

#define INTS(...) { GRAD_DIMS(__VA_ARGS__), (const int64_t[]){ __VA_ARGS__ } }
#define VAR(...) { .shape = GRAD_SHAPE(__VA_ARGS__) }
#define SCALAR { .shape = { .rank = 0 } }
#define OFF_ZERO(...) { .shape = GRAD_SHAPE(__VA_ARGS__), .fill = GRAD_SIGNED }
#define DISTINCT(...) { .shape = GRAD_SHAPE(__VA_ARGS__), .fill = GRAD_DISTINCT }
#define BETWEEN(low, high, ...) { .shape = GRAD_SHAPE(__VA_ARGS__), .lo = low, .hi = high }
#define ABSENT { .shape = { .rank = 0 }, .role = GRAD_ABSENT }
#define LIST(...) { .shape = GRAD_SHAPE(GRAD_DIMS(__VA_ARGS__)), .role = GRAD_CONST, .fill = GRAD_NUMBERS, .dtype = MEST_I64, \
                    .ints = (const int64_t[]){ __VA_ARGS__ } }
#define INTEGER(n) { .shape = { .rank = 0 }, .role = GRAD_CONST, .fill = GRAD_NUMBERS, .dtype = MEST_I64, .ints = (const int64_t[]){ n } }
#define REALS(...) { .shape = GRAD_SHAPE((int64_t)(sizeof((double[]){ __VA_ARGS__ }) / sizeof(double))), .role = GRAD_CONST, .fill = GRAD_NUMBERS, \
                     .reals = (const double[]){ __VA_ARGS__ } }
#define NUMBER(x) { .shape = { .rank = 0 }, .role = GRAD_CONST, .fill = GRAD_NUMBERS, .reals = (const double[]){ x } }
/* indices of a given shape */
#define INDICES(numbers, ...) { .shape = GRAD_SHAPE(__VA_ARGS__), .role = GRAD_FIXED, .fill = GRAD_NUMBERS, .dtype = MEST_I64, .ints = numbers }
#define FLAGS(numbers, ...) { .shape = GRAD_SHAPE(__VA_ARGS__), .role = GRAD_FIXED, .fill = GRAD_NUMBERS, .dtype = MEST_BOOL, .ints = numbers }

static const mest_alpha_params leaky = { 0.1, 0 }, leaky_negative = { -0.3, 0 }, hard = { 0.2, 0.5 }, elu = { 1.3, 0 }, swish = { 1.7, 0 };
static const mest_alpha_params selu = { 1.6732632, 1.0507010 };
static const struct { double lambda, bias; } shrink = { 0.1049, 0.05 };
static const mest_gelu_params gelu_exact = { "none" }, gelu_fast = { "tanh" };
static const struct { int64_t to; } to_real = { MEST_F32 };
static const struct { int64_t allowzero; } reshape = { 0 };
static const mest_axis_params axis_0 = { 0 }, axis_1 = { 1 }, axis_last = { -1 };
static const mest_transpose_params reversed = { { 0, NULL } }, attention = { INTS(0, 2, 1, 3) }, rotated = { INTS(2, 0, 1) };
static const struct { int64_t blocksize; const char *mode; } block_dcr = { 2, "DCR" }, block_crd = { 2, "CRD" }, block_depth = { 2, NULL };
static const struct { int64_t axis, num_outputs; mest_ints sizes; mest_shape x; } split_0 = { .axis = 0 }, split_1 = { .axis = 1 }, split_last = { .axis = -1, .num_outputs = 3 };
static const mest_gather_params gather_0 = { .axis = 0 }, gather_1 = { .axis = 1 };
static const struct { int64_t batch_dims; mest_shape x; } nd_0 = { .batch_dims = 0 }, nd_1 = { .batch_dims = 1 };
static const struct { const char *mode; } pad_constant = { "constant" }, pad_reflect = { "reflect" }, pad_edge = { "edge" }, pad_wrap = { "wrap" };
static const struct { int64_t exclusive, reverse; } cumsum = { 0, 0 }, cumsum_before = { 1, 0 }, cumsum_back = { 0, 1 };
static const struct { int64_t upper; } upper = { 1 }, lower = { 0 };
static const struct { int64_t axis, largest, sorted; } topk = { 1, 1, 1 }, bottomk = { 0, 0, 1 };
typedef struct reduce_params { int64_t keepdims, noop, pad[40]; } reduce_params;
static const reduce_params keep = { .keepdims = 1 }, drop = { .keepdims = 0 }, noop = { .keepdims = 1, .noop = 1 };
typedef struct resize_params {
    const char *mode, *coordinates, *nearest, *policy;
    double cubic_a, extrapolation;
    int64_t exclude_outside, antialias;
    mest_ints axes;
} resize_params;
static const resize_params nearest = { .mode = "nearest", .coordinates = "asymmetric", .nearest = "floor" };
static const resize_params nearest_center = { .mode = "nearest", .coordinates = "half_pixel", .nearest = "round_prefer_ceil" };
static const resize_params linear = { .mode = "linear", .coordinates = "half_pixel" }, linear_corners = { .mode = "linear", .coordinates = "align_corners" };
static const resize_params linear_torch = { .mode = "linear", .coordinates = "pytorch_half_pixel", .axes = INTS(3, 2) };
static const resize_params cubic = { .mode = "cubic", .coordinates = "half_pixel", .cubic_a = -0.75 };
static const resize_params cubic_inside = { .mode = "cubic", .coordinates = "half_pixel_symmetric", .cubic_a = -0.5, .exclude_outside = 1 };
static const resize_params crop = { .mode = "linear", .coordinates = "tf_crop_and_resize", .extrapolation = 3 };

static const int64_t repeated[] = { 2, 0, -1, 2, 2, 1 }, pairs[] = { 0, 1, 1, 0, 1, -1 }, singles[] = { 1, 0 }, columns[] = { 0, 2, 1, 1, 2, 2 };
static const int64_t flags[] = { 1, 0, 0, 1, 1, 0 };
static const double with_zeros[] = { 0.5, 0, -0.7, 1.2, 0.3, 0.9, 0, 0, 1.1, -0.4, 0.8, 0.6 };

/* One input: name, operator, params. Two inputs of one shape, and broadcast both ways. */
#define ONE(op_, params_, input) { "any", op_, .params = params_, .n_in = 1, .in = { input } }
#define TWO(op_, a, b)                                                              \
    { "same shape", op_, .n_in = 2, .in = { a(2, 3, 4), b(2, 3, 4) } },             \
    { "row", op_, .n_in = 2, .in = { a(2, 3, 4), b(4) } },                          \
    { "channels", op_, .n_in = 2, .in = { a(2, 3, 2, 2), b(3, 1, 1) } },            \
    { "left is smaller", op_, .n_in = 2, .in = { a(1, 3), b(4, 1, 3) } },           \
    { "both are broadcast", op_, .n_in = 2, .in = { a(3, 1), b(1, 4) } }
#define POSITIVE(...) BETWEEN(0.4, 2, __VA_ARGS__)

const grad_case grad_cases_gen[] = {
    ONE("Relu", NULL, OFF_ZERO(2, 3, 5)), ONE("LeakyRelu", &leaky, OFF_ZERO(2, 7)), { "negative slope", "LeakyRelu", .params = &leaky_negative, .n_in = 1, .in = { OFF_ZERO(2, 7) } },
    ONE("Sigmoid", NULL, BETWEEN(-4, 4, 3, 5)), ONE("Tanh", NULL, VAR(3, 5)), ONE("HardSigmoid", &hard, BETWEEN(-1.4, 1.4, 9)),
    { "saturated", "HardSigmoid", .params = &hard, .n_in = 1, .in = { BETWEEN(2.7, 4, 5) } },
    ONE("HardSwish", NULL, BETWEEN(-2.9, 2.9, 9)), { "outside", "HardSwish", .n_in = 1, .in = { { .shape = GRAD_SHAPE(7), .fill = GRAD_SIGNED, .lo = 3.1, .hi = 5 } } },
    ONE("Elu", &elu, OFF_ZERO(2, 7)), ONE("Celu", &elu, OFF_ZERO(2, 7)), ONE("Selu", &selu, OFF_ZERO(2, 7)), ONE("Softplus", NULL, BETWEEN(-5, 5, 11)),
    ONE("Softsign", NULL, VAR(11)), ONE("Mish", NULL, BETWEEN(-4, 4, 11)), ONE("Swish", &swish, BETWEEN(-4, 4, 11)),
    { "exact", "Gelu", .params = &gelu_exact, .n_in = 1, .in = { BETWEEN(-3, 3, 11) } }, { "tanh", "Gelu", .params = &gelu_fast, .n_in = 1, .in = { BETWEEN(-3, 3, 11) } },
    { "one for all", "PRelu", .n_in = 2, .in = { OFF_ZERO(2, 3, 4), VAR(1) } }, { "channels", "PRelu", .n_in = 2, .in = { OFF_ZERO(2, 3, 4), VAR(3, 1) } },
    ONE("Tan", NULL, VAR(7)), ONE("Asin", NULL, BETWEEN(-0.9, 0.9, 7)), ONE("Acos", NULL, BETWEEN(-0.9, 0.9, 7)), ONE("Atan", NULL, VAR(7)), ONE("Sinh", NULL, VAR(7)),
    ONE("Cosh", NULL, VAR(7)), ONE("Asinh", NULL, VAR(7)), ONE("Acosh", NULL, BETWEEN(1.2, 3, 7)), ONE("Atanh", NULL, BETWEEN(-0.9, 0.9, 7)),
    ONE("ThresholdedRelu", &leaky, OFF_ZERO(2, 7)), ONE("Shrink", &shrink, DISTINCT(20)),
    { "two bounds", "Clip", .n_in = 3, .in = { DISTINCT(4, 5), NUMBER(-0.1049), NUMBER(0.151) } }, { "lower bound", "Clip", .n_in = 2, .in = { DISTINCT(4, 5), NUMBER(-0.1049) } },
    { "upper bound", "Clip", .n_in = 3, .in = { DISTINCT(4, 5), ABSENT, NUMBER(0.151) } },
    ONE("Exp", NULL, VAR(2, 5)), ONE("Log", NULL, POSITIVE(2, 5)), ONE("Sqrt", NULL, POSITIVE(2, 5)), ONE("Reciprocal", NULL, POSITIVE(2, 5)), ONE("Erf", NULL, VAR(2, 5)),
    ONE("Sin", NULL, VAR(2, 5)), ONE("Cos", NULL, VAR(2, 5)), ONE("Abs", NULL, OFF_ZERO(2, 5)), ONE("Neg", NULL, VAR(2, 5)), ONE("Identity", NULL, VAR(2, 5)),
    ONE("Sign", NULL, OFF_ZERO(2, 5)), ONE("Floor", NULL, BETWEEN(0.1, 0.9, 2, 5)), ONE("Ceil", NULL, BETWEEN(0.1, 0.9, 2, 5)), ONE("Round", NULL, BETWEEN(0.1, 0.4, 2, 5)),
    ONE("Cast", &to_real, VAR(2, 5)), { "like float32", "CastLike", .n_in = 2, .in = { VAR(2, 5), { .shape = GRAD_SHAPE(1), .role = GRAD_FIXED } } },
    TWO("Add", VAR, VAR), TWO("Sub", VAR, VAR), TWO("Mul", VAR, VAR), TWO("Div", VAR, POSITIVE), TWO("Pow", POSITIVE, VAR),
    TWO("Max", DISTINCT, OFF_ZERO), TWO("Min", DISTINCT, OFF_ZERO),
    { "scalar", "Mul", .n_in = 2, .in = { VAR(2, 3), SCALAR } }, { "itself", "Add", .n_in = 2, .in = { SCALAR, SCALAR } },
    { "large, several tiles", "Mul", .n_in = 2, .in = { VAR(3, 7), { .shape = GRAD_SHAPE(130, 3, 7), .role = GRAD_FIXED } } },
    { "square", "Pow", .n_in = 2, .in = { VAR(2, 5), NUMBER(2) } }, { "integer exponent", "Pow", .n_in = 2, .in = { VAR(2, 5), INTEGER(3) } },
    { "exponent 0", "Pow", .n_in = 2, .in = { VAR(2, 5), NUMBER(0) } },
    { "one", "Sum", .n_in = 1, .in = { VAR(2, 3) } }, { "three, broadcast", "Sum", .n_in = 3, .in = { VAR(2, 3), VAR(3), VAR(4, 1, 1) } },
    { "three, broadcast", "Mean", .n_in = 3, .in = { VAR(2, 3), VAR(3), VAR(4, 1, 1) } }, { "three", "Max", .n_in = 3, .in = { DISTINCT(2, 6), OFF_ZERO(6), VAR(2, 1) } },
    { "one", "Min", .n_in = 1, .in = { VAR(2, 3) } },
    { "same shape", "Where", .n_in = 3, .in = { FLAGS(flags, 2, 3), VAR(2, 3), VAR(2, 3) } }, { "broadcast", "Where", .n_in = 3, .in = { FLAGS(flags, 3), VAR(2, 1), VAR(3) } },

    { "rows", "mest.Reshape", .params = &(mest_shape_params){ { 2, { 6, 4 } } }, .n_in = 1, .in = { VAR(2, 3, 4) } },
    { "-1 and 0", "Reshape", .params = &reshape, .n_in = 2, .in = { VAR(2, 3, 4), LIST(0, -1) } }, { "axis 2", "Flatten", .params = &(mest_axis_params){ 2 }, .n_in = 1, .in = { VAR(2, 3, 2, 2) } },
    { "all", "Squeeze", .n_in = 1, .in = { VAR(1, 3, 1, 2) } }, { "named", "Squeeze", .n_in = 2, .in = { VAR(1, 3, 1, 2), LIST(-2) } }, { "two", "Unsqueeze", .n_in = 2, .in = { VAR(3, 2), LIST(0, -1) } },
    { "reversed", "Transpose", .params = &reversed, .n_in = 1, .in = { VAR(2, 3, 4) } }, { "attention", "Transpose", .params = &attention, .n_in = 1, .in = { VAR(2, 3, 2, 4) } },
    { "rotated", "Transpose", .params = &rotated, .n_in = 1, .in = { VAR(2, 3, 4) } },
    { "DCR", "DepthToSpace", .params = &block_dcr, .n_in = 1, .in = { VAR(2, 8, 2, 3) } }, { "CRD", "DepthToSpace", .params = &block_crd, .n_in = 1, .in = { VAR(2, 8, 2, 3) } },
    { "2", "SpaceToDepth", .params = &block_depth, .n_in = 1, .in = { VAR(2, 2, 4, 6) } },
    { "first axis", "Concat", .params = &axis_0, .n_in = 3, .in = { VAR(2, 3), VAR(1, 3), VAR(4, 3) } }, { "channels", "Concat", .params = &axis_1, .n_in = 2, .in = { VAR(2, 3, 2, 2), VAR(2, 1, 2, 2) } },
    { "last axis, one frozen", "Concat", .params = &axis_last, .n_in = 3, .in = { VAR(2, 3), { .shape = GRAD_SHAPE(2, 2), .role = GRAD_FIXED }, VAR(2, 1) } },
    { "sizes", "Split", .params = &split_1, .n_out = 3, .n_in = 2, .in = { VAR(2, 6, 2), LIST(1, 3, 2) } }, { "equal", "Split", .params = &split_0, .n_out = 3, .n_in = 1, .in = { VAR(6, 2) } },
    { "rest", "Split", .params = &split_last, .n_out = 3, .n_in = 1, .in = { VAR(2, 7) } },
    { "middle", "Slice", .n_in = 4, .in = { VAR(4, 5), LIST(1), LIST(3), LIST(1) } }, { "backwards", "Slice", .n_in = 5, .in = { VAR(4, 5), LIST(-1, 1), LIST(-100, 100), LIST(0, 1), LIST(-2, 2) } },
    { "first axes", "Slice", .n_in = 3, .in = { VAR(4, 5), LIST(0, 2), LIST(1, -1) } },
    { "embedding", "Gather", .params = &gather_0, .n_in = 2, .in = { VAR(3, 4), INDICES(repeated, 2, 3) } }, { "axis 1", "Gather", .params = &gather_1, .n_in = 2, .in = { VAR(2, 3, 2), INDICES(repeated, 6) } },
    { "one", "Gather", .params = &gather_1, .n_in = 2, .in = { VAR(2, 3, 2), INTEGER(-1) } }, { "wide", "Gather", .params = &gather_0, .n_in = 2, .in = { VAR(3, 70), INDICES(repeated, 6) } },
    { "axis 1", "GatherElements", .params = &gather_1, .n_in = 2, .in = { VAR(2, 3), INDICES(columns, 2, 3) } }, { "fewer", "GatherElements", .params = &gather_0, .n_in = 2, .in = { VAR(3, 4), INDICES(columns, 3, 2) } },
    { "elements", "GatherND", .params = &nd_0, .n_in = 2, .in = { VAR(2, 3), INDICES(pairs, 3, 2) } }, { "slices", "GatherND", .params = &nd_0, .n_in = 2, .in = { VAR(2, 3), INDICES(pairs, 6, 1) } },
    { "batches", "GatherND", .params = &nd_1, .n_in = 2, .in = { VAR(2, 3, 2), INDICES(singles, 2, 1) } },
    { "new axes", "Expand", .n_in = 2, .in = { VAR(3, 1), LIST(2, 1, 4) } }, { "token", "Expand", .n_in = 2, .in = { VAR(1, 1, 5), LIST(3, 1, 1) } },
    { "two axes", "Tile", .n_in = 2, .in = { VAR(2, 3), LIST(2, 3) } }, { "inner", "Tile", .n_in = 2, .in = { VAR(2, 1, 3), LIST(1, 4, 2) } },
    { "constant", "Pad", .params = &pad_constant, .n_in = 3, .in = { VAR(1, 2, 3, 2), LIST(0, 0, 1, 2, 0, 0, 0, 1), NUMBER(0.5) } },
    { "cropped", "Pad", .params = &pad_constant, .n_in = 2, .in = { VAR(4, 5), LIST(-1, 2, 1, -2) } }, { "axes", "Pad", .params = &pad_constant, .n_in = 4, .in = { VAR(4, 3), LIST(1, 2), ABSENT, LIST(-1) } },
    { "reflect", "Pad", .params = &pad_reflect, .n_in = 2, .in = { VAR(2, 3, 4), LIST(0, 2, 3, 0, 1, 2) } }, { "edge", "Pad", .params = &pad_edge, .n_in = 2, .in = { VAR(2, 3), LIST(1, 2, 2, 0) } },
    { "wrap", "Pad", .params = &pad_wrap, .n_in = 2, .in = { VAR(3, 2), LIST(1, 3, 0, 2) } },
    { "forward", "CumSum", .params = &cumsum, .n_in = 2, .in = { VAR(2, 4, 3), INTEGER(1) } }, { "exclusive", "CumSum", .params = &cumsum_before, .n_in = 2, .in = { VAR(5, 2), INTEGER(0) } },
    { "reverse", "CumSum", .params = &cumsum_back, .n_in = 2, .in = { VAR(2, 4), INTEGER(-1) } },
    { "upper", "Trilu", .params = &upper, .n_in = 2, .in = { VAR(2, 3, 4), INTEGER(1) } }, { "lower", "Trilu", .params = &lower, .n_in = 1, .in = { VAR(4, 3) } },
    { "without Indices", "TopK", .params = &topk, .n_in = 2, .in = { DISTINCT(3, 6), LIST(2) } }, { "smallest, without Indices", "TopK", .params = &bottomk, .n_in = 2, .in = { DISTINCT(5, 2), LIST(3) } },
    { "largest", "TopK", .params = &topk, .n_out = 2, .n_in = 2, .in = { DISTINCT(3, 6), LIST(2) } }, { "smallest", "TopK", .params = &bottomk, .n_out = 2, .n_in = 2, .in = { DISTINCT(5, 2), LIST(3) } },

    { "all", "ReduceSum", .params = &drop, .n_in = 1, .in = { VAR(2, 3, 4) } }, { "middle", "ReduceSum", .params = &keep, .n_in = 2, .in = { VAR(2, 3, 4), LIST(1) } },
    { "outer and inner", "ReduceSum", .params = &drop, .n_in = 2, .in = { VAR(2, 3, 4), LIST(0, -1) } }, { "nothing", "ReduceSum", .params = &noop, .n_in = 1, .in = { VAR(2, 3) } },
    { "last", "ReduceMean", .params = &keep, .n_in = 2, .in = { VAR(2, 3, 19), LIST(-1) } }, { "first, dropped", "ReduceMean", .params = &drop, .n_in = 2, .in = { VAR(5, 3, 2), LIST(0) } },
    { "last", "ReduceMax", .params = &keep, .n_in = 2, .in = { DISTINCT(3, 9), LIST(-1) } }, { "middle", "ReduceMax", .params = &drop, .n_in = 2, .in = { DISTINCT(2, 4, 3), LIST(1) } },
    { "all", "ReduceMin", .params = &drop, .n_in = 1, .in = { DISTINCT(3, 5) } }, { "last", "ReduceProd", .params = &keep, .n_in = 2, .in = { POSITIVE(3, 4), LIST(1) } },
    { "zeros", "ReduceProd", .params = &drop, .n_in = 2, .in = { { .shape = GRAD_SHAPE(3, 4), .fill = GRAD_NUMBERS, .reals = with_zeros }, LIST(1) } },
    { "last", "ReduceL1", .params = &keep, .n_in = 2, .in = { OFF_ZERO(3, 4), LIST(1) } }, { "first", "ReduceL2", .params = &drop, .n_in = 2, .in = { OFF_ZERO(3, 4), LIST(0) } },
    { "last", "ReduceLogSum", .params = &keep, .n_in = 2, .in = { POSITIVE(3, 4), LIST(1) } }, { "middle", "ReduceLogSumExp", .params = &drop, .n_in = 2, .in = { VAR(2, 3, 4), LIST(1) } },
    { "last", "ReduceLogSumExp", .params = &keep, .n_in = 2, .in = { VAR(2, 9), LIST(1) } }, { "two", "ReduceSumSquare", .params = &drop, .n_in = 2, .in = { VAR(2, 3, 4), LIST(0, 2) } },

    { "nothing", "ReduceL1", .params = &noop, .n_in = 1, .in = { OFF_ZERO(2, 3) } }, { "nothing", "ReduceSumSquare", .params = &noop, .n_in = 1, .in = { VAR(2, 3) } },
    { "nothing", "ReduceLogSum", .params = &noop, .n_in = 1, .in = { POSITIVE(2, 3) } }, { "nothing", "ReduceProd", .params = &noop, .n_in = 1, .in = { VAR(2, 3) } },

    { "nearest, twice", "Resize", .params = &nearest, .n_in = 3, .in = { VAR(1, 2, 3, 2), ABSENT, REALS(1, 1, 2, 2) } },
    { "nearest, sizes", "Resize", .params = &nearest_center, .n_in = 4, .in = { VAR(1, 2, 3, 4), ABSENT, ABSENT, LIST(1, 2, 5, 3) } },
    { "linear, twice", "Resize", .params = &linear, .n_in = 3, .in = { VAR(2, 2, 3, 2), ABSENT, REALS(1, 1, 2, 2) } },
    { "linear, align_corners", "Resize", .params = &linear_corners, .n_in = 4, .in = { VAR(1, 2, 3, 4), ABSENT, ABSENT, LIST(1, 2, 5, 7) } },
    { "linear, axes, smaller", "Resize", .params = &linear_torch, .n_in = 4, .in = { VAR(1, 2, 5, 4), ABSENT, ABSENT, LIST(3, 1) } },
    { "linear, one axis, wide", "Resize", .params = &linear, .n_in = 3, .in = { VAR(2, 40), ABSENT, REALS(1, 2.5) } },
    { "cubic", "Resize", .params = &cubic, .n_in = 3, .in = { VAR(1, 1, 4, 4), ABSENT, REALS(1, 1, 2, 0.8) } },
    { "cubic, exclude_outside", "Resize", .params = &cubic_inside, .n_in = 3, .in = { VAR(1, 1, 4, 3), ABSENT, REALS(1, 1, 1.5, 2) } },
    { "crop", "Resize", .params = &crop, .n_in = 4, .in = { VAR(1, 1, 4, 4), REALS(0, 0, 0.4, -0.2, 1, 1, 0.9, 0.8), ABSENT, LIST(1, 1, 3, 3) } },
    { .name = NULL },
};

const grad_exempt grad_exempt_gen[] = { { .op = NULL } };
