/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions by XNNPACK, activations in NHWC (PIXEL, one lane, no halo).
 *
 *   Conv            XNNPACK convolution. Weights are repacked when they have changed, which in training is every step; elsewhere what is packed
 *                   is kept where packing would take a tenth of the time
 *   mest.ConvAffine the same; the factor goes into the packed weights, the cut-off into XNNPACK (which makes NaN a number there); other
 *                   activations go over the result
 *   mest.ConvGrad   dX: 1 x 1 kernels as a matrix product with the weights as they lie in memory (stride > 1: on the small grid, then
 *                   spread into zeros); others as a transposed convolution; depthwise by our own kernel, since XNNPACK's transposed
 *                   convolution of one channel per group is 20-60 times too slow.
 *                   dW, dB: our own kernel, which needs no packing (ops/kernels/wgrad_nhwc.h)
 *
 * Letters: N batch, C input channels, M output channels, G groups, H W image, R S kernel, P Q output image. */
#include <string.h>

#include "ops/act.h"
#include "ops/kernels/nhwc.h"
#include "ops/xnn/xnn.h"

typedef enum route { ROUTE_CONV, ROUTE_DEPTHWISE, ROUTE_DENSE, ROUTE_TRANSPOSED, ROUTE_NONE } route; /* how it is computed */

typedef struct conv_state {
    mest_conv_geometry k;
    mest_xnn_window window;
    mest_xnn xnn;
    mest_heap *heap;
    const mest_nhwc *own;
    route route;
    bool affine;             /* factor and activation */
    mest_act_fn act;         /* activations that are no clamp */
    bool fixed;              /* weights do not change; the fingerprint checks it */
    bool kept;               /* forward: they may, but not with every run: what is packed is kept while their version stays */
    uint64_t fingerprint;    /* of weights, or of their version, and of bias and factor */
    size_t packed_bytes;
} conv_state;

static bool geometry_of(const mest_kernel_query *q, mest_conv_geometry *k)
{
    char why[160];
    return mest_conv_geometry_of(q->params, &q->in[0]->shape, &q->in[1]->shape, k, why, sizeof why);
}

static bool is_depthwise(const mest_conv_geometry *k) { return k->group == k->c && k->group > 1; }
static double macs_of(const mest_conv_geometry *k) { return (double)(k->n * k->p * k->q) * (double)(k->m * k->r * k->s) * (double)(k->c / k->group); }
static int64_t weights_of(const mest_conv_geometry *k) { return k->m * (k->c / k->group) * k->r * k->s; }

static mest_xnn_window window_of(const mest_conv_geometry *k)
{
    return (mest_xnn_window){.top = (uint32_t)k->top, .right = (uint32_t)k->right, .bottom = (uint32_t)k->bottom, .left = (uint32_t)k->left,
                             .r = (uint32_t)k->r, .s = (uint32_t)k->s, .stride_y = (uint32_t)k->stride_y, .stride_x = (uint32_t)k->stride_x,
                             .dilation_y = (uint32_t)k->dilation_y, .dilation_x = (uint32_t)k->dilation_x, .groups = (uint32_t)k->group,
                             .group_in = (size_t)(k->c / k->group), .group_out = (size_t)(k->m / k->group)};
}

/* ---- forward ---- */

static double conv_seconds(const mest_kernel_query *q, const mest_conv_geometry *k)
{
    return 2e-6 + 2 * macs_of(k) / (mest_xnn_flops(q->cpu) * (is_depthwise(k) ? 0.4 : 1));
}

/* Weights that rest between runs, unless training is in between. */
static bool worth_keeping(const mest_kernel_query *q, const mest_conv_geometry *k)
{
    return !q->learns && 10 * mest_xnn_pack_seconds((double)weights_of(k)) > conv_seconds(q, k);
}

static bool conv_fits(const mest_kernel_query *q, const char **why)
{
    mest_conv_geometry k;
    (void)why;
    if (!q->use_xnnpack || !mest_xnn_nhwc(q->in[0]) || !mest_xnn_nhwc(q->out[0]) || !mest_xnn_plain(q->in[1]) || q->sparse[1] ||
        (q->n_in > 2 && q->in[2] && !mest_xnn_plain(q->in[2])) || (q->n_in > 3 && q->in[3] && !mest_xnn_plain(q->in[3])) || !geometry_of(q, &k))
        return false;
    if (!mest_xnn_ready()) {
        *why = "xnn: XNNPACK cannot run on this processor";
        return false;
    }
    *why = q->in_fixed[1] ? "xnn: weights packed once" : worth_keeping(q, &k) ? "xnn: weights packed when they change" : "xnn: weights packed each step";
    return true;
}

static double conv_cost(const mest_kernel_query *q)
{
    mest_conv_geometry k;
    if (!geometry_of(q, &k))
        return 1;
    return conv_seconds(q, &k) + (q->in_fixed[1] || worth_keeping(q, &k) ? 0 : mest_xnn_pack_seconds((double)weights_of(&k)));
}

static void conv_halo(const mest_kernel_query *q, int input, uint8_t pad[4])
{
    (void)q;
    (void)input;
    memset(pad, 0, 4);
}

/* W[M][C/G][R][S] to [M][R][S][C/G]; depthwise to [R][S][M]. factor: of each output, NULL: 1. */
static void weights_forward(const conv_state *s, const float *w, const float *factor, float *out)
{
    const int64_t c = s->k.c / s->k.group, taps = s->k.r * s->k.s;
    for (int64_t m = 0; m < s->k.m; m++)
        for (int64_t i = 0; i < c; i++)
            for (int64_t t = 0; t < taps; t++)
                out[s->route == ROUTE_DEPTHWISE ? t * s->k.m + m : (m * taps + t) * c + i] = factor ? w[(m * c + i) * taps + t] * factor[m] : w[(m * c + i) * taps + t];
}

static mest_status conv_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    conv_state *s;
    MEST_NEW(q->heap, s, 1, err, "convolution");
    *s = (conv_state){.heap = q->heap, .xnn = {.heap = q->heap}, .affine = !strcmp(q->node->op->name, "mest.ConvAffine"),
                      .act = mest_act_for(q->cpu)};
    s->fixed = q->in_fixed[1] && (s->affine || q->n_in < 3 || !q->in[2] || q->in_fixed[2]); /* what follows from statistics: fingerprint */
    geometry_of(q, &s->k);
    s->kept = worth_keeping(q, &s->k);
    s->window = window_of(&s->k);
    s->route = is_depthwise(&s->k) ? ROUTE_DEPTHWISE : ROUTE_CONV;
    *state = s;
    *scratch_bytes = (size_t)weights_of(&s->k) * sizeof(float) + MEST_XNN_SLACK;
    return MEST_OK;
}

typedef struct ending {
    const conv_state *s;
    const mest_act *act;
    mest_real *y;
    int64_t rows, total, row; /* rows of a tile, of all, elements of one */
} ending;

static void ending_tile(void *context, size_t tile)
{
    const ending *e = context;
    const int64_t from = (int64_t)tile * e->rows, to = from + e->rows < e->total ? from + e->rows : e->total;
    e->s->act(e->act, e->y + from * e->row, e->y + from * e->row, (to - from) * e->row);
}

/* The activation over Y[N][P][Q][M]. */
static void end_with(const conv_state *s, const mest_act *act, const mest_args *a)
{
    const mest_conv_geometry *k = &s->k;
    enum { TILE = 16384 };
    ending e = {.s = s, .act = act, .y = a->out[0].data, .total = k->n * k->p, .row = k->q * k->m};
    e.rows = e.row >= TILE || e.row <= 0 ? 1 : TILE / e.row;
    mest_parallel(a->threads, (size_t)((e.total + e.rows - 1) / e.rows), ending_tile, &e);
}

static mest_status conv_run(const mest_args *a)
{
    conv_state *s = a->state;
    const mest_conv_geometry *k = &s->k;
    const float *w = a->in[1].data, *bias = a->n_in > 2 ? a->in[2].data : NULL;
    const float *factor = s->affine && a->n_in > 3 ? a->in[3].data : NULL;
    const mest_clamp clamp = s->affine ? ((const mest_conv_affine_params *)a->params)->clamp : (mest_clamp){.on = false};
    const uint32_t *version = a->in[1].value_version;
    const bool rests = s->fixed || (s->kept && version);
    uint64_t fingerprint = 0;
    if (rests && version) /* no need to look at all of them */
        fingerprint = ((uint64_t)*version + 1) * 0x9e3779b97f4a7c15u ^ (bias ? mest_xnn_fingerprint(bias, k->m, NULL, 0) : 0);
    else if (rests)
        fingerprint = mest_xnn_fingerprint(w, weights_of(k), bias, bias ? k->m : 0);
    if (rests && factor)
        fingerprint = fingerprint * 31 + mest_xnn_fingerprint(factor, k->m, NULL, 0);
    if (!s->xnn.op || !rests || fingerprint != s->fingerprint) {
        const float *packed = w;
        if (k->r * k->s > 1 || s->route == ROUTE_DEPTHWISE || factor) {
            weights_forward(s, w, factor, a->scratch);
            packed = a->scratch;
        }
        if (!mest_xnn_conv_create(&s->xnn, &s->window, s->route == ROUTE_DEPTHWISE, packed, bias, clamp))
            return mest_run_fail(a, MEST_E_NOMEM, "XNNPACK could not create the convolution");
        s->fingerprint = fingerprint;
        s->packed_bytes = (size_t)weights_of(k) * sizeof(float);
    }
    if (!mest_xnn_conv_bind(&s->xnn, k->n, k->h, k->w, a->in[0].data, a->out[0].data, a->threads) || !mest_xnn_run(&s->xnn, a->threads))
        return mest_run_fail(a, MEST_E_NOMEM, "XNNPACK could not run the convolution");
    if (s->affine && ((const mest_conv_affine_params *)a->params)->act.kind)
        end_with(s, &((const mest_conv_affine_params *)a->params)->act, a);
    if (!rests)
        mest_xnn_drop(&s->xnn); /* the weights will have changed when it runs next: what is packed would be held for nothing */
    return MEST_OK;
}

static void conv_release(void *state, mest_heap *heap)
{
    conv_state *s = state;
    mest_xnn_free(&s->xnn);
    mest_free(heap, s, 1, sizeof *s);
}

static size_t conv_bytes(const void *state)
{
    const conv_state *s = state;
    return sizeof *s + s->xnn.workspace_bytes + s->packed_bytes;
}

/* ---- gradient: X W dY -> dX dW dB ---- */

static route route_of(const mest_conv_geometry *k)
{
    if (k->group > 1 && k->c == k->group)
        return k->m == k->c && k->r * k->s <= 128 ? ROUTE_DEPTHWISE : ROUTE_NONE;
    if (k->group == 1 && k->r * k->s == 1 && !(k->top | k->left | k->bottom | k->right))
        return ROUTE_DENSE;
    return ROUTE_TRANSPOSED;
}

static bool grad_fits(const mest_kernel_query *q, const char **why)
{
    mest_conv_geometry k;
    (void)why;
    if (!q->use_xnnpack || !mest_xnn_nhwc(q->in[0]) || !mest_xnn_nhwc(q->in[2]) || !mest_xnn_plain(q->in[1]) || q->sparse[1] ||
        (q->out[0] && !mest_xnn_nhwc(q->out[0])) || (mest_xnn_out(q, 1) && !mest_xnn_plain(mest_xnn_out(q, 1))) || (mest_xnn_out(q, 2) && !mest_xnn_plain(mest_xnn_out(q, 2))) ||
        !geometry_of(q, &k) || (q->out[0] && route_of(&k) == ROUTE_NONE))
        return false;
    if (!mest_xnn_ready()) {
        *why = "xnn: XNNPACK cannot run on this processor";
        return false;
    }
    static const char *const text[] = {[ROUTE_DEPTHWISE] = "depthwise gradients by our own kernels",
                                       [ROUTE_DENSE] = "backward-data by xnn fully-connected, backward-weight our own",
                                       [ROUTE_TRANSPOSED] = "backward-data by xnn transposed convolution, backward-weight our own",
                                       [ROUTE_NONE] = "backward-weight our own"};
    *why = text[q->out[0] ? route_of(&k) : ROUTE_NONE];
    return true;
}

static double grad_cost(const mest_kernel_query *q)
{
    mest_conv_geometry k;
    if (!geometry_of(q, &k))
        return 1;
    const double macs = 2 * macs_of(&k), rate = mest_xnn_flops(q->cpu);
    double seconds = 4e-6;
    if (q->out[0])
        seconds += macs / (route_of(&k) == ROUTE_DEPTHWISE ? rate * 0.2 : k.c < 8 ? rate * 0.22 : rate) +
                   (q->in_fixed[1] ? 0 : 2 * mest_xnn_pack_seconds((double)weights_of(&k)));
    if (mest_xnn_out(q, 1))
        seconds += macs / (k.group == k.c && k.group > 1 ? rate * 0.25 : rate);
    return seconds;
}

/* Bytes of the weights in XNNPACK's order, of the small grid, and of our own kernels, whichever is largest: they are used in turn. */
static mest_status grad_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    conv_state *s;
    MEST_NEW(q->heap, s, 1, err, "convolution gradient");
    *s = (conv_state){.heap = q->heap, .xnn = {.heap = q->heap}, .fixed = q->in_fixed[1], .own = mest_nhwc_for(q->cpu)};
    geometry_of(q, &s->k);
    const mest_conv_geometry *k = &s->k;
    s->route = q->out[0] ? route_of(k) : ROUTE_NONE;
    s->window = window_of(k);
    s->window.group_in = (size_t)(k->m / k->group);
    s->window.group_out = (size_t)(k->c / k->group);
    size_t most = mest_xnn_out(q, 1) || mest_xnn_out(q, 2) ? s->own->weight_scratch(k) : 0, other = 0;
    if (s->route == ROUTE_DEPTHWISE)
        other = s->own->depthwise_scratch(k);
    else if (s->route == ROUTE_TRANSPOSED)
        other = (size_t)weights_of(k) * sizeof(float);
    else if (s->route == ROUTE_DENSE && k->stride_y * k->stride_x > 1)
        other = (size_t)(k->n * k->p * k->q * k->c) * sizeof(float);
    *scratch_bytes = (other > most ? other : most) + MEST_XNN_SLACK;
    *state = s;
    return MEST_OK;
}

/* W[M][C/G][R][S] to [G][C/G][R][S][M/G]. */
static void weights_backward(const mest_conv_geometry *k, const float *w, float *out)
{
    const int64_t c = k->c / k->group, m = k->m / k->group, taps = k->r * k->s;
    for (int64_t g = 0; g < k->group; g++)
        for (int64_t i = 0; i < c; i += 8) /* eight channels at a time: lines of w are read whole while they are near */
            for (int64_t o = 0; o < m; o++)
                for (int64_t e = i; e < c && e < i + 8; e++)
                    for (int64_t t = 0; t < taps; t++)
                        out[((g * c + e) * taps + t) * m + o] = w[((g * m + o) * c + e) * taps + t];
}

typedef struct spread {
    const mest_conv_geometry *k;
    const float *small;
    float *dx;
} spread;

/* One row of dX from the small grid of a 1 x 1 convolution with stride. */
static void spread_row(void *context, size_t tile)
{
    const spread *s = context;
    const mest_conv_geometry *k = s->k;
    const int64_t n = (int64_t)tile / k->h, y = (int64_t)tile % k->h, p = y / k->stride_y;
    float *dx = s->dx + (int64_t)tile * k->w * k->c;
    memset(dx, 0, (size_t)(k->w * k->c) * sizeof *dx);
    if (y % k->stride_y || p >= k->p)
        return;
    for (int64_t q = 0; q < k->q; q++)
        memcpy(dx + q * k->stride_x * k->c, s->small + ((n * k->p + p) * k->q + q) * k->c, (size_t)k->c * sizeof *dx);
}

static bool dx_dense(conv_state *s, const mest_args *a, bool fresh)
{
    const mest_conv_geometry *k = &s->k;
    const bool strided = k->stride_y * k->stride_x > 1;
    float *target = strided ? a->scratch : a->out[0].data;
    if (fresh && !mest_xnn_dense_create(&s->xnn, k->m, k->c, true, a->in[1].data, NULL))
        return false;
    if (!mest_xnn_dense_bind(&s->xnn, k->n * k->p * k->q, a->in[2].data, target, a->threads) || !mest_xnn_run(&s->xnn, a->threads))
        return false;
    if (strided)
        mest_parallel(a->threads, (size_t)(k->n * k->h), spread_row, &(spread){k, target, a->out[0].data});
    return true;
}

static bool dx_transposed(conv_state *s, const mest_args *a, bool fresh)
{
    const mest_conv_geometry *k = &s->k;
    if (fresh) {
        weights_backward(k, a->in[1].data, a->scratch);
        if (!mest_xnn_deconv_create(&s->xnn, &s->window, a->scratch))
            return false;
    }
    /* rows of X that no window of the last output row reaches */
    const int64_t rest_y = (k->h + k->top + k->bottom - (k->r - 1) * k->dilation_y - 1) % k->stride_y;
    const int64_t rest_x = (k->w + k->left + k->right - (k->s - 1) * k->dilation_x - 1) % k->stride_x;
    return mest_xnn_deconv_bind(&s->xnn, k->n, k->p, k->q, rest_y, rest_x, a->in[2].data, a->out[0].data, a->threads) &&
           mest_xnn_run(&s->xnn, a->threads);
}

static mest_status grad_run(const mest_args *a)
{
    conv_state *s = a->state;
    mest_nhwc_job job = {.k = s->k, .gx = mest_pixel_geometry(a->in[0].type), .gdy = mest_pixel_geometry(a->in[2].type), .x = a->in[0].data,
                         .w = a->in[1].data, .dy = a->in[2].data, .dw = mest_xnn_out_data(a, 1), .db = mest_xnn_out_data(a, 2), .scratch = a->scratch,
                         .threads = a->threads};
    if (job.dw || job.db)
        s->own->weight_grad(&job);
    if (!a->out[0].data)
        return MEST_OK;
    if (s->route == ROUTE_DEPTHWISE) {
        job.dx = a->out[0].data;
        job.gdx = mest_pixel_geometry(a->out[0].type);
        s->own->depthwise_data_grad(&job);
        return MEST_OK;
    }
    const uint64_t fingerprint = s->fixed ? mest_xnn_fingerprint(job.w, weights_of(&s->k), NULL, 0) : 0;
    const bool fresh = !s->xnn.op || !s->fixed || fingerprint != s->fingerprint;
    s->fingerprint = fingerprint;
    s->packed_bytes = (size_t)weights_of(&s->k) * sizeof(float);
    if (!(s->route == ROUTE_DENSE ? dx_dense(s, a, fresh) : dx_transposed(s, a, fresh)))
        return mest_run_fail(a, MEST_E_NOMEM, "XNNPACK could not create or run backward-data");
    if (!s->fixed)
        mest_xnn_drop(&s->xnn);
    return MEST_OK;
}

/* What XNNPACK packs; its padding of output channels is a few percent. */
static size_t conv_outside(const void *state, bool *kept)
{
    const conv_state *s = state;
    *kept = s->fixed;
    return s->route == ROUTE_NONE || (s->route == ROUTE_DEPTHWISE && s->own) ? 0 : (size_t)weights_of(&s->k) * sizeof(float);
}

const mest_kernel mest_kernels_conv_xnn_xnn[] = {
    {.name = "conv_xnn", .op = "Conv", .fits = conv_fits, .cost = conv_cost, .halo = conv_halo, .prepare = conv_prepare, .run = conv_run,
     .release = conv_release, .state_bytes = conv_bytes, .outside_bytes = conv_outside},
    {.name = "conv_affine_xnn", .op = "mest.ConvAffine", .fits = conv_fits, .cost = conv_cost, .halo = conv_halo, .prepare = conv_prepare, .run = conv_run,
     .release = conv_release, .state_bytes = conv_bytes, .outside_bytes = conv_outside},
    {.name = "conv_grad_xnn", .op = "mest.ConvGrad", .fits = grad_fits, .cost = grad_cost, .halo = conv_halo, .prepare = grad_prepare,
     .run = grad_run, .release = conv_release, .state_bytes = conv_bytes, .outside_bytes = conv_outside},
    {0},
};
