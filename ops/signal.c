/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of signal processing whose sizes and numbers are constants (ONNX since 17); they are folded away, and have no gradient.
 *
 *   HannWindow, HammingWindow, BlackmanWindow (size)    a0 - a1 cos(2 pi n / N) + a2 cos(4 pi n / N), N = size if periodic, else size - 1
 *   MelWeightMatrix (bins, length, rate, low, high)     [length / 2 + 1, bins]: triangles between points that are evenly spaced in mel = 2595 log10(1 + f / 700)
 *
 * Coefficients of the windows and the rounding of the points to bins: as the standard says. */
#include <inttypes.h>

#include "ops/elements.h"

enum { LONGEST = 1 << 24 };

typedef struct window_params { int64_t dtype, periodic; } window_params;

static mest_status check_type(const mest_infer *c, int64_t dtype)
{
    return dtype == MEST_F32 || dtype == MEST_F64 || dtype == MEST_F16 || dtype == MEST_BF16 ? MEST_OK :
        mest_infer_fail(c, MEST_E_UNSUPPORTED, "results of element type %d are not supported", (int)(dtype & 0xff));
}

static mest_status one_int(const mest_infer *c, int input, int64_t lo, int64_t hi, int64_t *v)
{
    int n;
    MEST_TRY(mest_infer_ints(c, input, 1, v, &n));
    MEST_INFER_CHECK(c, n == 1 && *v >= lo && *v <= hi, "input %d must be one number from %" PRId64 " to %" PRId64, input, lo, hi);
    return MEST_OK;
}

static mest_status window_infer(mest_infer *c)
{
    int64_t n;
    MEST_TRY(check_type(c, ((const window_params *)c->params)->dtype));
    MEST_TRY(one_int(c, 0, 0, LONGEST, &n));
    return mest_infer_set(c, 0, MEST_F32, &(mest_shape){.rank = 1, .dim = {n}});
}

static mest_status window_forward(const mest_args *a)
{
    static const struct { const char *name; double a0, a1, a2; } windows[] = {
        {"HannWindow", 0.5, 0.5, 0}, {"HammingWindow", 25.0 / 46, 21.0 / 46, 0}, {"BlackmanWindow", 0.42, 0.5, 0.08}};
    const int64_t n = (int64_t)a->out[0].count, of = ((const window_params *)a->params)->periodic ? n : n - 1;
    int k = 0;
    while (k < 2 && strcmp(windows[k].name, a->node->op->name))
        k++;
    for (int64_t i = 0; i < n; i++) {
        const double x = of > 0 ? 2 * 3.14159265358979323846 * (double)i / (double)of : 0;
        ((mest_real *)a->out[0].data)[i] = (mest_real)(windows[k].a0 - windows[k].a1 * cos(x) + windows[k].a2 * cos(2 * x));
    }
    return MEST_OK;
}

typedef struct mel_params { int64_t dtype; } mel_params;

/* One number, a float. */
static mest_status edge(const mest_infer *c, int input, double *v)
{
    if (!c->in_data[input])
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "input %d must be a constant", input);
    MEST_INFER_CHECK(c, c->in[input]->dtype == MEST_F32 && mest_shape_span(&c->in[input]->shape, 0, c->in[input]->shape.rank) == 1, "input %d must be one float", input);
    *v = (double)*(const mest_real *)c->in_data[input];
    MEST_INFER_CHECK(c, *v >= 0 && *v < 1e9, "input %d is out of range", input);
    return MEST_OK;
}

static int64_t point(double low, double high, int64_t bins, int64_t k, int64_t length, int64_t rate)
{
    const double from = 2595 * log10(1 + low / 700), to = 2595 * log10(1 + high / 700), mel = from + (double)k * (to - from) / (double)(bins + 2);
    return (int64_t)floor((double)(length + 1) * (700 * (pow(10, mel / 2595) - 1)) / (double)rate);
}

static mest_status mel_infer(mest_infer *c)
{
    int64_t bins, length, rate;
    double low, high;
    MEST_TRY(check_type(c, ((const mel_params *)c->params)->dtype));
    MEST_TRY(one_int(c, 0, 1, 1 << 16, &bins));
    MEST_TRY(one_int(c, 1, 1, 1 << 16, &length));
    MEST_TRY(one_int(c, 2, 1, INT32_MAX, &rate));
    MEST_TRY(edge(c, 3, &low));
    MEST_TRY(edge(c, 4, &high));
    MEST_INFER_CHECK(c, bins * (length / 2 + 1) <= LONGEST, "the matrix is too large");
    MEST_INFER_CHECK(c, low <= high && point(low, high, bins, bins + 1, length, rate) <= length / 2, "the edges do not lie between 0 and half the sample rate");
    return mest_infer_set(c, 0, MEST_F32, &(mest_shape){.rank = 2, .dim = {length / 2 + 1, bins}});
}

static mest_status mel_forward(const mest_args *a)
{
    const int64_t bins = a->out[0].type->shape.dim[1], length = mest_int_at(a->in[1].type->dtype, a->in[1].data, 0), rate = mest_int_at(a->in[2].type->dtype, a->in[2].data, 0);
    const double low = (double)*(const mest_real *)a->in[3].data, high = (double)*(const mest_real *)a->in[4].data;
    mest_real *y = a->out[0].data;
    memset(y, 0, a->out[0].count * sizeof *y);
    for (int64_t i = 0; i < bins; i++) {
        const int64_t left = point(low, high, bins, i, length, rate), mid = point(low, high, bins, i + 1, length, rate), right = point(low, high, bins, i + 2, length, rate);
        if (mid == left)
            y[mid * bins + i] = 1;
        for (int64_t k = left; mid > left && k <= mid; k++)
            y[k * bins + i] = (mest_real)((double)(k - left) / (double)(mid - left));
        for (int64_t k = mid; right > mid && k < right; k++)
            y[k * bins + i] = (mest_real)((double)(right - k) / (double)(right - mid));
    }
    return MEST_OK;
}

static const mest_attr window_attrs[] = {{.name = "output_datatype", .kind = MEST_ATTR_INT, .offset = offsetof(window_params, dtype), .number = MEST_F32},
                                         {.name = "periodic", .kind = MEST_ATTR_INT, .offset = offsetof(window_params, periodic), .number = 1},
                                         {.name = NULL}};
static const mest_attr mel_attrs[] = {{.name = "output_datatype", .kind = MEST_ATTR_INT, .offset = offsetof(mel_params, dtype), .number = MEST_F32}, {.name = NULL}};

#define WINDOW(name_)                                                                                                                                            \
    {.domain = "", .name = name_, .limits = "sizes that are no constants", .since = 17, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,                     \
     .flags = MEST_OP_ANY_TYPE, .attrs = window_attrs, .params_bytes = sizeof(window_params), .infer = window_infer, .forward = window_forward, .no_grad = true}

const mest_op mest_ops_signal[] = {
    WINDOW("HannWindow"), WINDOW("HammingWindow"), WINDOW("BlackmanWindow"),
    {.domain = "", .name = "MelWeightMatrix", .limits = "inputs that are no constants", .since = 17, .in_min = 5, .in_max = 5, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ANY_TYPE, .attrs = mel_attrs, .params_bytes = sizeof(mel_params), .infer = mel_infer, .forward = mel_forward, .no_grad = true},
    {.name = NULL},
};
