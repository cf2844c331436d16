/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient cases of operators that move pixels to places: stretched Resize, Col2Im, grids; rotary embeddings; determinants. */
#include "tests/grad/cases.h"

#define INTS(...) { GRAD_DIMS(__VA_ARGS__), (const int64_t[]){ __VA_ARGS__ } }
#define VAR(...) { .shape = GRAD_SHAPE(__VA_ARGS__) }
#define FIXED(...) { .shape = GRAD_SHAPE(__VA_ARGS__), .role = GRAD_FIXED }
#define LIST(...) { .shape = { .rank = 1, .dim = { GRAD_DIMS(__VA_ARGS__) } }, .role = GRAD_CONST, .fill = GRAD_NUMBERS, .dtype = MEST_I64, .ints = (const int64_t[]){ __VA_ARGS__ } }
#define NUMBERS(numbers, ...) { .shape = GRAD_SHAPE(__VA_ARGS__), .fill = GRAD_NUMBERS, .reals = numbers }
#define INDICES(numbers, ...) { .shape = GRAD_SHAPE(__VA_ARGS__), .role = GRAD_FIXED, .fill = GRAD_NUMBERS, .dtype = MEST_I64, .ints = numbers }
#define ABSENT { .shape = { .rank = 0 }, .role = GRAD_ABSENT }

typedef struct resize_params {
    const char *mode, *coordinates, *nearest, *policy;
    double cubic_a, extrapolation;
    int64_t exclude_outside, antialias;
    mest_ints axes;
} resize_params;
static const resize_params linear = { .mode = "linear", .coordinates = "half_pixel", .antialias = 1 };
static const resize_params cubic = { .mode = "cubic", .coordinates = "align_corners", .cubic_a = -0.5, .exclude_outside = 1, .antialias = 1 };
#define RESIZE(name, params_, x, ...) { name, "Resize", .params = &params_, .n_in = 4, .in = { x, ABSENT, ABSENT, LIST(__VA_ARGS__) } }

static const struct { mest_ints dilations, pads, strides; } col = { .pads = INTS(1, 0, 0, 1), .strides = INTS(2, 1) }, col_1 = { .dilations = INTS(2) };

typedef struct grid_params { const char *mode, *padding; int64_t align; } grid_params;
static const grid_params zeros = { "linear", "zeros", 0 }, border = { "linear", "border", 1 }, cube = { "cubic", "reflection", 0 };
static const double places[] = { 0.11, -0.72, 0.53, 0.37, -1.31, 0.23, 0.91, 1.57, -0.27, -0.93, 0.83, -0.47 };

static const struct { int64_t align; } edges = { 0 }, centres = { 1 };
static const struct { int64_t interleaved, heads, dim; } rope = { 0, 0, 0 }, rope_pairs = { 1, 2, 4 };
static const double singular[] = { 1, 2, 3, 2, 4, 6, -1, 0.5, 2, 0.3, -0.7, 1.1, 0.2, 0.9, -1.3, 0.8, 0.4, 0.6 };
static const int64_t positions[] = { 2, 0, 1, 3, 3, 1 };

const grad_case grad_cases_places[] = {
    RESIZE("antialias, one axis grows", linear, VAR(1, 2, 7, 4), 1, 2, 3, 6), RESIZE("antialias, cubic", cubic, VAR(2, 1, 9, 5), 2, 1, 2, 4),
    { "padded, stepped", "Col2Im", .params = &col, .n_in = 3, .in = { VAR(2, 12, 4), LIST(5, 2), LIST(3, 2) } },
    { "one axis, dilated", "Col2Im", .params = &col_1, .n_in = 3, .in = { VAR(1, 4, 3), LIST(5), LIST(2) } },
    { "three axes, zeros", "GridSample", .params = &zeros, .n_in = 2, .in = { VAR(1, 2, 3, 4, 5), NUMBERS(places, 1, 2, 2, 1, 3) } },
    { "three axes, border", "GridSample", .params = &border, .n_in = 2, .in = { VAR(1, 1, 3, 2, 4), NUMBERS(places, 1, 1, 2, 2, 3) } },
    { "one axis, cubic", "GridSample", .params = &cube, .n_in = 2, .in = { VAR(2, 2, 7), NUMBERS(places, 2, 6, 1) } },
    { "two axes", "AffineGrid", .params = &edges, .n_in = 2, .in = { VAR(2, 2, 3), LIST(2, 5, 3, 4) } },
    { "three axes, align_corners", "AffineGrid", .params = &centres, .n_in = 2, .in = { VAR(1, 3, 4), LIST(1, 1, 2, 1, 3) } },
    { "by position", "RotaryEmbedding", .params = &rope, .n_in = 4, .in = { VAR(2, 2, 3, 4), FIXED(4, 2), FIXED(4, 2), INDICES(positions, 2, 3) } },
    { "three axes, pairs, a part of each head", "RotaryEmbedding", .params = &rope_pairs, .n_in = 4, .in = { VAR(1, 3, 12), FIXED(1, 3, 2), FIXED(1, 3, 2), ABSENT } },
    { "one by one", "Det", .n_in = 1, .in = { VAR(2, 1, 1) } }, { "4 x 4", "Det", .n_in = 1, .in = { VAR(2, 4, 4) } },
    { "one of two singular", "Det", .n_in = 1, .in = { NUMBERS(singular, 2, 3, 3) } },
    { .name = NULL },
};

const grad_exempt grad_exempt_places[] = { { .op = NULL } };
