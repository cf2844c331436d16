/* SPDX-License-Identifier: Apache-2.0 */
/* Plain-layout reference of convolution and transposed convolution with a sparse weight of any format, all passes, any group, stride,
 * pad and dilation, 1-D and 2-D. Clarity before speed: one loop over the stored entries, one over the positions a tap reaches.
 *
 * Both operators tie a large image to a small one through the same weight:
 *     small[n, m, p, q] ~ w[m, c, r, s] ~ large[n, c, p * stride_y + r * dilation_y - top, q * stride_x + s * dilation_x - left]
 * Conv gathers small (Y) from large (X); ConvTranspose scatters small (X) into large (Y); their gradients are the other two of the three
 * passes below. mest_conv_geometry is read with (c, h, w) = large and (m, p, q) = small.
 */
#include "ops/convolve.h"
#include "ops/nn.h"
#include "sparse/kernels/walk.h"

enum { UNITS_PER_PART = 64 };

typedef struct job {
    mest_conv_geometry g;
    const mest_sparse *index;
    const mest_real *weight; /* stored order */
    mest_real *dw;
    const mest_real *large_in, *small_in, *bias;
    mest_real *large_out, *small_out;
} job;

/* One stored entry: where it sits and which outputs its tap reaches. */
typedef struct tap {
    int64_t m, c;
    int64_t dy, dx;                   /* large = small * stride + d */
    int64_t p0, p1, q0, q1;           /* positions of the small image whose tap falls inside the large one */
} tap;

static tap tap_of(const mest_conv_geometry *g, int64_t row, int64_t col)
{
    int64_t s = col % g->s, r = col / g->s % g->r, c = col / (g->r * g->s);
    tap t = {.m = row, .c = row / (g->m / g->group) * (g->c / g->group) + c, .dy = r * g->dilation_y - g->top, .dx = s * g->dilation_x - g->left};
    t.p0 = mest_ceil_div(-t.dy, g->stride_y);
    t.p1 = mest_floor_div(g->h - 1 - t.dy, g->stride_y) + 1;
    t.q0 = mest_ceil_div(-t.dx, g->stride_x);
    t.q1 = mest_floor_div(g->w - 1 - t.dx, g->stride_x) + 1;
    t.p0 = t.p0 < 0 ? 0 : t.p0;
    t.q0 = t.q0 < 0 ? 0 : t.q0;
    t.p1 = t.p1 > g->p ? g->p : t.p1;
    t.q1 = t.q1 > g->q ? g->q : t.q1;
    return t;
}

/* small[n] = bias + sum over entries; one image. */
static void gather_image(void *context, size_t n)
{
    const job *j = context;
    const mest_conv_geometry *g = &j->g;
    mest_real *small = j->small_out + (int64_t)n * g->m * g->p * g->q;
    const mest_real *large = j->large_in + (int64_t)n * g->c * g->h * g->w;
    for (int64_t m = 0; m < g->m; m++)
        for (int64_t i = 0; i < g->p * g->q; i++)
            small[m * g->p * g->q + i] = j->bias ? j->bias[m] : 0;
    MEST_FOR_ENTRIES(j->index, 0, j->index->active_units, {
        const tap t = tap_of(g, row, col);
        const mest_real w = j->weight[e];
        for (int64_t p = t.p0; p < t.p1; p++)
            for (int64_t q = t.q0; q < t.q1; q++)
                small[(t.m * g->p + p) * g->q + q] += w * large[(t.c * g->h + p * g->stride_y + t.dy) * g->w + q * g->stride_x + t.dx];
    });
}

/* large[n] = bias + sum over entries, scattered; one image. */
static void scatter_image(void *context, size_t n)
{
    const job *j = context;
    const mest_conv_geometry *g = &j->g;
    const mest_real *small = j->small_in + (int64_t)n * g->m * g->p * g->q;
    mest_real *large = j->large_out + (int64_t)n * g->c * g->h * g->w;
    for (int64_t c = 0; c < g->c; c++)
        for (int64_t i = 0; i < g->h * g->w; i++)
            large[c * g->h * g->w + i] = j->bias ? j->bias[c] : 0;
    MEST_FOR_ENTRIES(j->index, 0, j->index->active_units, {
        const tap t = tap_of(g, row, col);
        const mest_real w = j->weight[e];
        for (int64_t p = t.p0; p < t.p1; p++)
            for (int64_t q = t.q0; q < t.q1; q++)
                large[(t.c * g->h + p * g->stride_y + t.dy) * g->w + q * g->stride_x + t.dx] += w * small[(t.m * g->p + p) * g->q + q];
    });
}

/* Gradient of the entries of one part of the units: sum over images and positions of large * small. Padding entries get 0. */
static void sample_part(void *context, size_t part)
{
    const job *j = context;
    const mest_conv_geometry *g = &j->g;
    const int64_t size = j->index->unit_elements, from = (int64_t)part * UNITS_PER_PART;
    const int64_t to = from + UNITS_PER_PART < j->index->active_units ? from + UNITS_PER_PART : j->index->active_units;
    memset(j->dw + from * size, 0, (size_t)((to - from) * size) * sizeof *j->dw);
    MEST_FOR_ENTRIES(j->index, from, to, {
        const tap t = tap_of(g, row, col);
        double sum = 0;
        for (int64_t n = 0; n < g->n; n++)
            for (int64_t p = t.p0; p < t.p1; p++)
                for (int64_t q = t.q0; q < t.q1; q++)
                    sum += (double)j->large_in[((n * g->c + t.c) * g->h + p * g->stride_y + t.dy) * g->w + q * g->stride_x + t.dx] *
                           (double)j->small_in[((n * g->m + t.m) * g->p + p) * g->q + q];
        j->dw[e] = (mest_real)sum;
    });
}

static size_t parts_of(const job *j) { return (size_t)mest_ceil_div(j->index->active_units, UNITS_PER_PART); }

/* db[c] = sum of dy[n, c, i]. */
static void bias_gradient(const mest_real *dy, int64_t n, int64_t c, int64_t pixels, mest_real *db)
{
    for (int64_t k = 0; k < c; k++) {
        double sum = 0;
        for (int64_t b = 0; b < n; b++)
            for (int64_t i = 0; i < pixels; i++)
                sum += (double)dy[(b * c + k) * pixels + i];
        db[k] = (mest_real)sum;
    }
}

/* Fills in the geometry of Conv (transposed false) or ConvTranspose, whose large image is the operator's output. */
static mest_status setup(const mest_args *a, bool transposed, const mest_type *x, const mest_type *y, job *j)
{
    char why[160];
    const mest_conv_params *p = a->params;
    const mest_shape *wshape = &a->in[1].type->shape;
    *j = (job){.index = a->in[1].sparse, .weight = a->in[1].data};
    if (!transposed) {
        if (!mest_conv_geometry_of(p, &x->shape, wshape, &j->g, why, sizeof why))
            return mest_run_fail(a, MEST_E_SHAPE, "%s", why);
        return MEST_OK;
    }
    int dims = x->shape.rank - 2;
    int64_t in[2] = {1, 1}, out[2] = {1, 1}, kernel[2] = {1, 1}, stride[2] = {1, 1}, dilation[2] = {1, 1}, begin[2] = {0, 0}, end[2] = {0, 0};
    bool same_upper = p->auto_pad && !strcmp(p->auto_pad, "SAME_UPPER"), same_lower = p->auto_pad && !strcmp(p->auto_pad, "SAME_LOWER");
    for (int i = 0; i < dims; i++) {
        int at = i + 2 - dims;
        in[at] = x->shape.dim[2 + i];
        out[at] = y->shape.dim[2 + i];
        kernel[at] = wshape->dim[2 + i];
        stride[at] = p->strides.n ? p->strides.v[i] : 1;
        dilation[at] = p->dilations.n ? p->dilations.v[i] : 1;
        if (same_upper || same_lower || p->output_shape.n) { /* the output is given, the padding follows from it */
            int64_t total = stride[at] * (in[at] - 1) + (p->output_padding.n ? p->output_padding.v[i] : 0) +
                            (kernel[at] - 1) * dilation[at] + 1 - out[at];
            total = total < 0 ? 0 : total;
            begin[at] = same_upper ? total / 2 : total - total / 2;
            end[at] = total - begin[at];
        } else if (p->pads.n) {
            begin[at] = p->pads.v[i];
            end[at] = p->pads.v[dims + i];
        }
    }
    j->g = (mest_conv_geometry){
        .n = x->shape.dim[0], .c = y->shape.dim[1], .h = out[0], .w = out[1], .m = x->shape.dim[1], .p = in[0], .q = in[1],
        .group = p->group > 0 ? p->group : 1, .r = kernel[0], .s = kernel[1], .stride_y = stride[0], .stride_x = stride[1],
        .dilation_y = dilation[0], .dilation_x = dilation[1], .top = begin[0], .left = begin[1], .bottom = end[0], .right = end[1],
        .spatial = dims,
    };
    return MEST_OK;
}

static mest_status conv_run(const mest_args *a)
{
    job j;
    if (!a->out[0].data)
        return MEST_OK;
    MEST_TRY(setup(a, false, a->in[0].type, a->out[0].type, &j));
    j.large_in = a->in[0].data;
    j.bias = a->n_in > 2 ? a->in[2].data : NULL;
    j.small_out = a->out[0].data;
    mest_parallel(a->threads, (size_t)j.g.n, gather_image, &j);
    return MEST_OK;
}

/* The same with a factor, a shift and a cut-off for each output channel. */
static mest_status ended(const mest_args *a, mest_status (*run)(const mest_args *))
{
    mest_args plain = *a;
    if (!a->out[0].data)
        return MEST_OK;
    plain.n_in = 2;
    MEST_TRY(run(&plain));
    const mest_shape *y = &a->out[0].type->shape;
    mest_channel_affine(a->threads, y->dim[0], y->dim[1], mest_shape_span(y, 2, y->rank), a->n_in > 3 ? a->in[3].data : NULL,
                        a->n_in > 2 ? a->in[2].data : NULL, &((const mest_conv_affine_params *)a->params)->clamp, &((const mest_conv_affine_params *)a->params)->act, a->out[0].data);
    return MEST_OK;
}
static mest_status conv_affine_run(const mest_args *a) { return ended(a, conv_run); }

static mest_status conv_grad_run(const mest_args *a)
{
    job j;
    MEST_TRY(setup(a, false, a->in[0].type, a->in[2].type, &j));
    j.large_in = a->in[0].data;
    j.small_in = a->in[2].data;
    if (a->out[0].data) {
        j.large_out = a->out[0].data;
        mest_parallel(a->threads, (size_t)j.g.n, scatter_image, &j);
    }
    if (a->n_out > 1 && a->out[1].data) {
        j.dw = a->out[1].data;
        mest_parallel(a->threads, parts_of(&j), sample_part, &j);
    }
    if (a->n_out > 2 && a->out[2].data)
        bias_gradient(a->in[2].data, j.g.n, j.g.m, j.g.p * j.g.q, a->out[2].data);
    return MEST_OK;
}

static mest_status transpose_run(const mest_args *a)
{
    job j;
    if (!a->out[0].data)
        return MEST_OK;
    MEST_TRY(setup(a, true, a->in[0].type, a->out[0].type, &j));
    j.small_in = a->in[0].data;
    j.bias = a->n_in > 2 ? a->in[2].data : NULL;
    j.large_out = a->out[0].data;
    mest_parallel(a->threads, (size_t)j.g.n, scatter_image, &j);
    return MEST_OK;
}

static mest_status transpose_affine_run(const mest_args *a) { return ended(a, transpose_run); }

static mest_status transpose_grad_run(const mest_args *a)
{
    job j;
    MEST_TRY(setup(a, true, a->in[0].type, a->in[2].type, &j));
    j.small_in = a->in[0].data;
    j.large_in = a->in[2].data;
    if (a->out[0].data) {
        j.small_out = a->out[0].data;
        mest_parallel(a->threads, (size_t)j.g.n, gather_image, &j);
    }
    if (a->n_out > 1 && a->out[1].data) {
        j.dw = a->out[1].data;
        mest_parallel(a->threads, parts_of(&j), sample_part, &j);
    }
    if (a->n_out > 2 && a->out[2].data)
        bias_gradient(a->in[2].data, j.g.n, j.g.c, j.g.h * j.g.w, a->out[2].data);
    return MEST_OK;
}

static bool fits(const mest_kernel_query *q, const char **why)
{
    if (q->n_in < 2 || !q->in[1] || q->in[1]->layout.kind != MEST_SPARSE || !q->sparse[1])
        return false;
    for (int i = 0; i < q->n_in; i++)
        if (i != 1 && !mest_plain_real(q->in[i]))
            return false;
    for (int i = 0; i < q->n_out; i++)
        if (q->out[i] && q->out[i]->layout.kind != MEST_SPARSE && !mest_plain_real(q->out[i]))
            return false;
    if (q->in[0]->shape.rank != 3 && q->in[0]->shape.rank != 4) {
        *why = "not 1-D or 2-D";
        return false;
    }
    *why = "plain reference over the stored entries";
    return true;
}

/* About 1 GF/s: each entry streams through a whole image. From the capacity: what is stored changes during a run, and a resumed run must
 * choose the same kernels. */
static double cost(const mest_kernel_query *q)
{
    const mest_shape *small = &q->in[0]->shape;
    bool grad = !strcmp(q->node->op->name, "mest.ConvGrad"), forward = !strcmp(q->node->op->name, "Conv") || !strcmp(q->node->op->name, "mest.ConvAffine");
    if (forward && q->out[0])
        small = &q->out[0]->shape;
    else if (grad && q->in[2])
        small = &q->in[2]->shape;
    double positions = (double)small->dim[0];
    for (int i = 2; i < small->rank; i++)
        positions *= (double)small->dim[i];
    int passes = q->out[0] ? 1 : 0;
    passes += q->n_out > 1 && q->out[1] ? 1 : 0;
    return 2e-9 * positions * (double)(q->sparse[1]->cap_units * q->sparse[1]->unit_elements) * (passes ? passes : 1) + 1e-6;
}

extern const mest_kernel MEST_KERNEL_TABLE(conv_sparse_ref)[];
const mest_kernel MEST_KERNEL_TABLE(conv_sparse_ref)[] = {
    {.name = "conv_sparse_ref", .op = "Conv", .fits = fits, .cost = cost, .run = conv_run},
    {.name = "conv_affine_sparse_ref", .op = "mest.ConvAffine", .fits = fits, .cost = cost, .run = conv_affine_run},
    {.name = "conv_grad_sparse_ref", .op = "mest.ConvGrad", .fits = fits, .cost = cost, .run = conv_grad_run},
    {.name = "conv_transpose_sparse_ref", .op = "ConvTranspose", .fits = fits, .cost = cost, .run = transpose_run},
    {.name = "conv_transpose_affine_sparse_ref", .op = "mest.ConvTransposeAffine", .fits = fits, .cost = cost, .run = transpose_affine_run},
    {.name = "conv_transpose_grad_sparse_ref", .op = "mest.ConvTransposeGrad", .fits = fits, .cost = cost, .run = transpose_grad_run},
    {.name = NULL},
};
