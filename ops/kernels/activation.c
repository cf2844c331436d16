/* SPDX-License-Identifier: Apache-2.0 */
/* Activations with exponentials in them, and their gradients, as vector code: the references call the C library once an element. Elementwise, so
 * any layout will do as long as all operands share it. Formulas: ops/activation.c. */
#include "ops/kernels/act_math.h"
#include "ops/kernels/pixel.h"

typedef struct job {
    const mest_real *x, *dy;
    mest_real *y;
    mest_real alpha;
    mest_pixels gx, gdy, gy;   /* PIXEL: halos may differ */
    int64_t length;            /* of a row */
    void (*row)(const struct job *j, const mest_real *x, const mest_real *dy, mest_real *y, int64_t n);
} job;

#define ROWS(name, expression)                                              \
    static void name##_row(const job *j, const mest_real *in, const mest_real *dy, mest_real *out, int64_t n) \
    {                                                                       \
        const mest_real alpha = j->alpha;                                   \
        (void)alpha, (void)dy;                                              \
        MEST_IVDEP                                                          \
        for (int64_t i = 0; i < n; i++) {                                   \
            const mest_real x = in[i];                                      \
            out[i] = (expression);                                          \
        }                                                                   \
    }
#define GRADIENT_ROWS(name, slope)                                          \
    static void name##_grad_row(const job *j, const mest_real *in, const mest_real *dy, mest_real *out, int64_t n) \
    {                                                                       \
        const mest_real alpha = j->alpha;                                   \
        (void)alpha;                                                        \
        MEST_IVDEP                                                          \
        for (int64_t i = 0; i < n; i++) {                                   \
            const mest_real x = in[i], g = dy[i];                           \
            out[i] = g * (slope);                                           \
        }                                                                   \
    }
ROWS(gelu, act_gelu(x))
GRADIENT_ROWS(gelu, act_gelu_slope(x))
ROWS(gelu_tanh, act_gelu_tanh(x))
GRADIENT_ROWS(gelu_tanh, act_gelu_tanh_slope(x))
ROWS(swish, act_swish(x, alpha))
GRADIENT_ROWS(swish, act_swish_slope(x, alpha))
ROWS(sigmoid, mest_gate_sigmoid(x))
ROWS(tanh, mest_gate_tanh(x))

static void plain_run(void *context, int64_t offset, int64_t n)
{
    const job *j = context;
    j->row(j, j->x + offset, j->dy ? j->dy + offset : NULL, j->y + offset, n);
}

static void pixel_row(void *context, size_t row)
{
    const job *j = context;
    const int64_t r = (int64_t)row;
    j->row(j, px_row(&j->gx, j->x, r), j->dy ? px_row(&j->gdy, j->dy, r) : NULL, px_row(&j->gy, j->y, r), j->length);
}

typedef void (*row_fn)(const job *j, const mest_real *x, const mest_real *dy, mest_real *y, int64_t n);

static mest_status run(const mest_args *a, row_fn fn, mest_real alpha)
{
    job j = {.x = a->in[0].data, .dy = a->n_in > 1 ? a->in[1].data : NULL, .y = a->out[0].data, .alpha = alpha, .row = fn};
    if (a->out[0].type->layout.kind == MEST_PLAIN) {
        mest_for_rows(a->threads, a->out[0].type, plain_run, &j);
        return MEST_OK;
    }
    j.gx = mest_pixel_geometry(a->in[0].type);
    j.gy = mest_pixel_geometry(a->out[0].type);
    if (j.dy)
        j.gdy = mest_pixel_geometry(a->in[1].type);
    j.length = px_row_length(&j.gy);
    mest_parallel(a->threads, (size_t)(j.gy.blocks * j.gy.h), pixel_row, &j);
    return MEST_OK;
}

static bool tanh_form(const mest_args *a)
{
    const char *approximate = ((const mest_gelu_params *)a->params)->approximate;
    return approximate && approximate[0] == 't';
}
static mest_real alpha_of(const mest_args *a) { return (mest_real)((const mest_alpha_params *)a->params)->alpha; }
static mest_status gelu_run(const mest_args *a) { return run(a, tanh_form(a) ? gelu_tanh_row : gelu_row, 0); }
static mest_status gelu_grad_run(const mest_args *a) { return run(a, tanh_form(a) ? gelu_tanh_grad_row : gelu_grad_row, 0); }
static mest_status swish_run(const mest_args *a) { return run(a, swish_row, alpha_of(a)); }
static mest_status swish_grad_run(const mest_args *a) { return run(a, swish_grad_row, alpha_of(a)); }
static mest_status sigmoid_run(const mest_args *a) { return run(a, sigmoid_row, 0); }
static mest_status tanh_run(const mest_args *a) { return run(a, tanh_row, 0); }

/* All operands lie alike. */
static bool fits(const mest_kernel_query *q, const char **why)
{
    if (!q->out[0] || q->out[0]->layout.kind == MEST_SPARSE)
        return false;
    for (int i = 0; i < q->n_in; i++)
        if (!(px_plain(q->in[i]) && px_plain(q->out[0])) && !px_same_rows(q->in[i], q->out[0]))
            return false;
    *why = "vector code for the exponential";
    return true;
}

const mest_kernel PX_TABLE(activation)[] = {
    {.name = PX_NAME("gelu"), .op = "Gelu", .cpu = PX_CPU, .inplace = 1, .fits = fits, .run = gelu_run},
    {.name = PX_NAME("gelu_grad"), .op = "mest.GeluGrad", .cpu = PX_CPU, .inplace = 3, .fits = fits, .run = gelu_grad_run},
    {.name = PX_NAME("swish"), .op = "Swish", .cpu = PX_CPU, .inplace = 1, .fits = fits, .run = swish_run},
    {.name = PX_NAME("swish_grad"), .op = "mest.SwishGrad", .cpu = PX_CPU, .inplace = 3, .fits = fits, .run = swish_grad_run},
    {.name = PX_NAME("sigmoid"), .op = "Sigmoid", .cpu = PX_CPU, .inplace = 1, .fits = fits, .run = sigmoid_run},
    {.name = PX_NAME("tanh"), .op = "Tanh", .cpu = PX_CPU, .inplace = 1, .fits = fits, .run = tanh_run},
    {0},
};
