/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient cases of Einsum, the losses of files, RMSNormalization, scatters, Lp pools and other operators that came later. */
#include "ops/nn.h"
#include "tests/grad/cases.h"

#define INTS(...) { GRAD_DIMS(__VA_ARGS__), (const int64_t[]){ __VA_ARGS__ } }
#define VAR(...) { .shape = GRAD_SHAPE(__VA_ARGS__) }
#define SIGNED(...) { .shape = GRAD_SHAPE(__VA_ARGS__), .fill = GRAD_SIGNED }
#define DISTINCT(...) { .shape = GRAD_SHAPE(__VA_ARGS__), .fill = GRAD_DISTINCT }
#define POSITIVE(...) { .shape = GRAD_SHAPE(__VA_ARGS__), .role = GRAD_FIXED, .lo = 0.5, .hi = 2 }
#define INDICES(numbers, ...) { .shape = GRAD_SHAPE(__VA_ARGS__), .role = GRAD_FIXED, .fill = GRAD_NUMBERS, .dtype = MEST_I64, .ints = numbers }
#define LIST(...) { .shape = { .rank = 1, .dim = { GRAD_DIMS(__VA_ARGS__) } }, .role = GRAD_CONST, .fill = GRAD_NUMBERS, .dtype = MEST_I64, .ints = (const int64_t[]){ __VA_ARGS__ } }
#define CONDITION(...) { .shape = { .rank = 1, .dim = { GRAD_DIMS(__VA_ARGS__) } }, .role = GRAD_CONST, .fill = GRAD_NUMBERS, .dtype = MEST_BOOL, .ints = (const int64_t[]){ __VA_ARGS__ } }
#define ABSENT { .shape = { .rank = 0 }, .role = GRAD_ABSENT }

typedef struct einsum_params { const char *equation; int64_t operand; mest_shape x; } einsum_params;
#define EINSUM1(equation_, a) { equation_, "Einsum", .params = &(const einsum_params){ .equation = equation_ }, .n_in = 1, .in = { a } }
#define EINSUM2(equation_, a, b) { equation_, "Einsum", .params = &(const einsum_params){ .equation = equation_ }, .n_in = 2, .in = { a, b } }

typedef struct nll_params { int64_t ignore_index; int32_t ignore; const char *reduction; } nll_params;
static const nll_params mean = { .reduction = "mean" }, sum = { .reduction = "sum" }, none = { .reduction = "none" };
static const nll_params mean_skip = { 1, 1, "mean" }, sum_skip = { -5, 1, "sum" }, none_skip = { 2, 1, "none" };
static const int64_t labels[] = { 2, 0, 1, 1, 2, 0, 1, 2 }, far[] = { 2, -5, 1, 0, -5, 0, 1, 2 };
#define NLL(name, params_, ...) { name, "NegativeLogLikelihoodLoss", .params = &params_, .n_in = sizeof((grad_input[]){ __VA_ARGS__ }) / sizeof(grad_input), .in = { __VA_ARGS__ } }
#define SCE(name, params_, ...) { name, "SoftmaxCrossEntropyLoss", .params = &params_, .n_out = 2, .n_in = sizeof((grad_input[]){ __VA_ARGS__ }) / sizeof(grad_input), .in = { __VA_ARGS__ } }

static const mest_norm_params rms_last = { -1, 1e-5, 1 }, rms_two = { 1, 1e-3, 1 };

typedef struct mod_params { int64_t fmod; } mod_params;
static const mod_params c_mod = { 1 };

typedef struct compress_params { int64_t axis; int32_t given; } compress_params;
static const compress_params axis_1 = { 1, 1 }, flat = { 0, 0 };

typedef struct scatter_params { int64_t axis; const char *reduction; } scatter_params;
static const scatter_params put_0 = { 0, "none" }, put_1 = { 1, "none" }, add_0 = { 0, "add" }, add_1 = { -1, "add" };
static const scatter_params mul_1 = { 1, "mul" }, min_0 = { 0, "min" }, max_1 = { 1, "max" };
static const double some_zeros[] = { 0.5, 0, -0.7, 0, 1.2, 0.3, 0.9, -1.1 };
static const int64_t spots[] = { 1, 0, 2, 1, 1, -1 }, pairs[] = { 1, 0, 0, 2, 1, 0 };

typedef struct lp_params { mest_pool_params pool; int64_t p; } lp_params;
static const lp_params lp_2 = { { .kernel_shape = INTS(2, 2), .strides = INTS(2, 1), .pads = INTS(1, 0, 0, 1) }, 2 };
static const lp_params lp_3 = { { .kernel_shape = INTS(2, 3), .dilations = INTS(2, 1) }, 3 }, lp_1 = { { .kernel_shape = INTS(2) }, 1 }, all_3 = { .p = 3 };

static const mest_pool_params unpool = { .kernel_shape = INTS(2, 2), .strides = INTS(2, 2) };
static const int64_t pooled[] = { 0, 3, 13, 10 };
static const mest_pool_params pool_indices = { .kernel_shape = INTS(2, 2), .strides = INTS(2, 1) };

static const mest_attention_params heads = { .causal = 0 }, causal = { .causal = 1, .scale = 0.4 }, flat_heads = { .q_heads = 2, .kv_heads = 1 };
static const int64_t seen[] = { 1, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0 };
#define SEEN(...) { .shape = GRAD_SHAPE(__VA_ARGS__), .role = GRAD_FIXED, .fill = GRAD_NUMBERS, .dtype = MEST_BOOL, .ints = seen }
#define ATTENTION(name, params_, ...) { name, "mest.Attention", .params = &params_, .n_out = 2, .skip_out = 1, .n_in = sizeof((grad_input[]){ __VA_ARGS__ }) / sizeof(grad_input), .in = { __VA_ARGS__ } }

typedef struct tensor_scatter_params { int64_t axis; const char *mode; int64_t steps; } tensor_scatter_params;
static const tensor_scatter_params scatter_linear = { -2, "linear", 0 }, scatter_circular = { 1, "circular", 0 };
static const int64_t starts[] = { 2, 0 }, starts_around[] = { 3, 9 };
typedef struct reverse_params { int64_t batch_axis, time_axis; } reverse_params;
static const reverse_params rows_first = { 0, 1 }, steps_first = { 1, 0 };
static const int64_t lengths[] = { 3, 0, 4 };

typedef struct grid_params { const char *mode, *padding; int64_t align; } grid_params;
static const grid_params grid_linear = { "bilinear", "zeros", 0 }, grid_border = { "linear", "border", 1 }, grid_reflect = { "bilinear", "reflection", 0 };
static const grid_params grid_nearest = { "nearest", "border", 0 }, grid_cubic = { "bicubic", "zeros", 0 }, grid_cubic_border = { "cubic", "border", 1 };
static const grid_params grid_cubic_reflect = { "bicubic", "reflection", 1 };
static const double places[] = { 0.11, -0.72, 0.53, 0.37, -1.31, 0.23, 0.91, 1.57, -0.27, -0.93, 1.83, -1.47 };
#define GRID(name, params_) { name, "GridSample", .params = &params_, .n_in = 2, .in = { VAR(1, 2, 4, 5), { .shape = GRAD_SHAPE(1, 2, 3, 2), .fill = GRAD_NUMBERS, .reals = places } } }

const grad_case grad_cases_more[] = {
    ATTENTION("plain", heads, VAR(2, 2, 3, 4), VAR(2, 2, 5, 4), VAR(2, 2, 5, 3)), ATTENTION("causal", causal, VAR(1, 2, 4, 3), VAR(1, 2, 4, 3), VAR(1, 2, 4, 2)),
    ATTENTION("float mask", heads, VAR(2, 2, 3, 2), VAR(2, 2, 4, 2), VAR(2, 2, 4, 2), VAR(2, 1, 3, 4)),
    ATTENTION("bool mask, a row sees nothing", heads, VAR(1, 2, 3, 2), VAR(1, 2, 4, 2), VAR(1, 2, 4, 2), SEEN(3, 4)),
    ATTENTION("heads side by side, shared", flat_heads, VAR(2, 3, 4), VAR(2, 4, 2), VAR(2, 4, 3)),

    EINSUM1("ij->ji", VAR(3, 4)), EINSUM1("ij->i", VAR(3, 4)), EINSUM1("ii->i", VAR(3, 3)), EINSUM1("ii", VAR(3, 3)), EINSUM1("i...->...", VAR(2, 3, 2)),
    EINSUM2("ij,jk->ik", VAR(5, 3), VAR(3, 4)), EINSUM2("ij,kj->ki", VAR(5, 3), VAR(4, 3)), EINSUM2("bij,bjk->bik", VAR(2, 3, 4), VAR(2, 4, 5)),
    EINSUM2("bhqd,bhkd->bhqk", VAR(2, 2, 3, 4), VAR(2, 2, 5, 4)), EINSUM2("bhqk,bkhd->bqhd", VAR(2, 2, 3, 4), VAR(2, 4, 2, 5)),
    EINSUM2("i,j->ij", VAR(4), VAR(5)), EINSUM2("i,i->", VAR(4), VAR(4)), EINSUM2("ij,ij->ij", VAR(3, 4), VAR(3, 4)),
    EINSUM2("...ij,...jk->...ik", VAR(2, 1, 3, 2), VAR(3, 2, 4)), EINSUM2("iij,jk->ki", VAR(3, 3, 2), VAR(2, 4)), EINSUM2("abc,d->ad", VAR(2, 3, 2), VAR(9)),
    EINSUM2("nct,ncp->nt p", VAR(2, 3, 4), VAR(2, 3, 5)),

    NLL("mean", mean, VAR(4, 3), INDICES(labels, 4)), NLL("weights", mean, VAR(4, 3), INDICES(labels, 4), POSITIVE(3)), NLL("sum, ignored", sum_skip, VAR(2, 3, 4), INDICES(far, 2, 4)),
    NLL("none, image", none, VAR(2, 3, 2, 2), INDICES(labels, 2, 2, 2), POSITIVE(3)),
    SCE("mean", mean, VAR(4, 3), INDICES(labels, 4)), SCE("weights, ignored", mean_skip, VAR(4, 3), INDICES(labels, 4), POSITIVE(3)), SCE("sum", sum, VAR(2, 3, 4), INDICES(labels, 2, 4)),
    SCE("sum, ignored", sum_skip, VAR(2, 3, 4), INDICES(far, 2, 4)), SCE("none, ignored, image", none_skip, VAR(2, 3, 2, 2), INDICES(labels, 2, 2, 2), POSITIVE(3)),

    { "last axis", "RMSNormalization", .params = &rms_last, .n_in = 2, .in = { VAR(2, 3, 5), VAR(5) } },
    { "two axes", "RMSNormalization", .params = &rms_two, .n_in = 2, .in = { VAR(2, 3, 4), VAR(3, 4) } },
    { "one scale", "RMSNormalization", .params = &rms_last, .n_in = 2, .in = { VAR(3, 4), VAR(1) } },
    { "broadcast", "Mod", .params = &c_mod, .n_in = 2, .in = { { .shape = GRAD_SHAPE(2, 3), .fill = GRAD_NUMBERS, .reals = (const double[]){ 5.3, -4.2, 0.4, 7.7, -8.1, 2.9 } }, { .shape = GRAD_SHAPE(3), .fill = GRAD_NUMBERS, .reals = (const double[]){ 2, -1.5, 3.1 } } } },
    { "axis 1", "Compress", .params = &axis_1, .n_in = 2, .in = { VAR(2, 4), CONDITION(0, 1, 1) } }, { "flat", "Compress", .params = &flat, .n_in = 2, .in = { VAR(2, 3), CONDITION(1, 0, 0, 1, 1) } },

    { "put, axis 0", "ScatterElements", .params = &put_0, .n_in = 3, .in = { VAR(3, 3), INDICES(spots, 2, 3), VAR(2, 3) } },
    { "put twice, axis 1", "ScatterElements", .params = &put_1, .n_in = 3, .in = { VAR(2, 4), INDICES(spots, 2, 3), VAR(2, 3) } },
    { "add", "ScatterElements", .params = &add_1, .n_in = 3, .in = { VAR(2, 4), INDICES(spots, 2, 3), VAR(2, 3) } }, { "old name", "Scatter", .params = &put_0, .n_in = 3, .in = { VAR(3, 3), INDICES(spots, 2, 3), VAR(2, 3) } },
    { "mul", "ScatterElements", .params = &mul_1, .n_in = 3, .in = { VAR(2, 4), INDICES(spots, 2, 3), VAR(2, 3) } },
    { "mul, one zero", "ScatterElements", .params = &mul_1, .n_in = 3, .in = { { .shape = GRAD_SHAPE(2, 4), .fill = GRAD_NUMBERS, .reals = some_zeros }, INDICES(spots, 2, 3), VAR(2, 3) } },
    { "mul, two zeros", "ScatterND", .params = &mul_1, .n_in = 3, .in = { { .shape = GRAD_SHAPE(2, 3), .fill = GRAD_NUMBERS, .reals = some_zeros }, INDICES(pairs, 3, 2), { .shape = GRAD_SHAPE(3), .fill = GRAD_NUMBERS, .reals = some_zeros } } },
    { "min", "ScatterElements", .params = &min_0, .n_in = 3, .in = { DISTINCT(3, 3), INDICES(spots, 2, 3), DISTINCT(2, 3) } }, { "max", "ScatterElements", .params = &max_1, .n_in = 3, .in = { DISTINCT(2, 4), INDICES(spots, 2, 3), DISTINCT(2, 3) } },
    { "max", "ScatterND", .params = &max_1, .n_in = 3, .in = { DISTINCT(2, 3, 2), INDICES(pairs, 3, 2), DISTINCT(3, 2) } },
    { "put twice", "ScatterND", .params = &put_0, .n_in = 3, .in = { VAR(2, 3, 2), INDICES(pairs, 3, 2), VAR(3, 2) } }, { "add", "ScatterND", .params = &add_0, .n_in = 3, .in = { VAR(2, 3), INDICES(pairs, 3, 2), VAR(3) } },

    { "2, padded", "LpPool", .params = &lp_2, .n_in = 1, .in = { SIGNED(1, 2, 3, 4) } }, { "3, dilated", "LpPool", .params = &lp_3, .n_in = 1, .in = { SIGNED(1, 1, 4, 4) } },
    { "1, one axis", "LpPool", .params = &lp_1, .n_in = 1, .in = { SIGNED(2, 2, 4) } }, { "3", "GlobalLpPool", .params = &all_3, .n_in = 1, .in = { SIGNED(2, 2, 3, 2) } },
    { "with Indices", "MaxPool", .params = &pool_indices, .n_out = 2, .n_in = 1, .in = { DISTINCT(1, 2, 4, 4) } },
    { "2x2", "MaxUnpool", .params = &unpool, .n_in = 2, .in = { VAR(1, 1, 2, 2), INDICES(pooled, 1, 1, 2, 2) } },
    { "larger", "MaxUnpool", .params = &unpool, .n_in = 3, .in = { VAR(1, 1, 2, 2), INDICES(pooled, 1, 1, 2, 2), LIST(1, 1, 5, 6) } },
    { "rows", "ReverseSequence", .params = &rows_first, .n_in = 2, .in = { VAR(3, 4, 2), INDICES(lengths, 3) } },
    { "steps first", "ReverseSequence", .params = &steps_first, .n_in = 2, .in = { VAR(4, 3), INDICES(lengths, 3) } },
    { "linear", "TensorScatter", .params = &scatter_linear, .n_in = 3, .in = { VAR(2, 4, 3), VAR(2, 2, 3), INDICES(starts, 2) } },
    { "circular", "TensorScatter", .params = &scatter_circular, .n_in = 3, .in = { VAR(2, 4, 3), VAR(2, 3, 3), INDICES(starts_around, 2) } },
    { "from the front", "TensorScatter", .params = &scatter_circular, .n_in = 2, .in = { VAR(1, 3, 2), VAR(1, 3, 2) } },
    GRID("linear, zeros", grid_linear), GRID("linear, border", grid_border), GRID("linear, reflection", grid_reflect), GRID("nearest", grid_nearest),
    GRID("cubic, zeros", grid_cubic), GRID("cubic, border", grid_cubic_border), GRID("cubic, reflection", grid_cubic_reflect),
    { .name = NULL },
};

const grad_exempt grad_exempt_more[] = { { .op = NULL } };
