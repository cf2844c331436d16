/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution gradients in NHWC: the weight gradient (wgrad_nhwc.h) and the data gradient of depthwise convolutions, as building blocks
 * for the providers, and the complete gradient of depthwise convolutions as a kernel.
 *
 * Letters: N batch, C channels, H W image, R S kernel, P Q output image. */
#include "ops/kernels/wgrad_nhwc.h"

/* ---- depthwise: dX[y][x][c] = sum over taps of dY[p][q][c] W[c][r][s], p stride - top + r dilation = y, likewise q ---- */

typedef struct depthwise {
    const mest_nhwc_job *job;
    mest_real *taps; /* W as [R][S][C], C rounded up to whole vectors */
    int64_t slots;
} depthwise;

enum { MOST_TAPS = 128 };

static size_t depthwise_scratch(const mest_conv_geometry *k)
{
    return (size_t)(k->r * k->s * px_ceil(k->c, VL) * VL) * sizeof(mest_real) + 64;
}

/* Pixels of one row whose column is congruent to `phase` modulo the stride use the same taps: a list, walked along the row. */
static void depthwise_phase(const depthwise *d, int64_t n, int64_t y, int64_t phase)
{
    const mest_nhwc_job *j = d->job;
    const mest_conv_geometry *k = &j->k;
    const mest_real *from[MOST_TAPS], *weight[MOST_TAPS];
    int64_t first[MOST_TAPS]; /* column of dY for the first pixel of the phase */
    int count = 0;
    for (int64_t r = 0; r < k->r; r++) {
        const int64_t at = y + k->top - r * k->dilation_y;
        if (at < 0 || at % k->stride_y || at / k->stride_y >= k->p)
            continue;
        for (int64_t s = 0; s < k->s; s++) {
            const int64_t across = phase + k->left - s * k->dilation_x;
            if ((across % k->stride_x + k->stride_x) % k->stride_x || count == MOST_TAPS)
                continue;
            first[count] = across < 0 ? -(-across / k->stride_x) : across / k->stride_x;
            from[count] = j->dy + j->gdy.origin + n * j->gdy.block + at / k->stride_y * j->gdy.row;
            weight[count++] = d->taps + (r * k->s + s) * d->slots;
        }
    }
    for (int64_t x = phase, i = 0; x < k->w; x += k->stride_x, i++) {
        const mest_real *dy[MOST_TAPS], *w[MOST_TAPS];
        int used = 0;
        for (int t = 0; t < count; t++)
            if (first[t] + i >= 0 && first[t] + i < k->q) {
                dy[used] = from[t] + (first[t] + i) * j->gdy.pixel;
                w[used++] = weight[t];
            }
        mest_real *dx = j->dx + j->gdx.origin + n * j->gdx.block + y * j->gdx.row + x * j->gdx.pixel;
        int64_t c = 0;
        for (; c + 2 * VL <= k->c; c += 2 * VL) {
            vec a = {0}, b = {0};
            for (int t = 0; t < used; t++) {
                a += VEC_LOAD(dy[t] + c) * VEC_LOAD(w[t] + c);
                b += VEC_LOAD(dy[t] + c + VL) * VEC_LOAD(w[t] + c + VL);
            }
            VEC_STORE(dx + c, a);
            VEC_STORE(dx + c + VL, b);
        }
        for (; c < k->c; c++) {
            mest_real a = 0;
            for (int t = 0; t < used; t++)
                a += dy[t][c] * w[t][c];
            dx[c] = a;
        }
    }
}

static void depthwise_row(void *context, size_t tile)
{
    const depthwise *d = context;
    const mest_conv_geometry *k = &d->job->k;
    for (int64_t phase = 0; phase < px_min(k->stride_x, k->w); phase++)
        depthwise_phase(d, (int64_t)tile / k->h, (int64_t)tile % k->h, phase);
}

static void depthwise_data_grad(const mest_nhwc_job *job)
{
    const mest_conv_geometry *k = &job->k;
    depthwise d = {.job = job, .slots = px_ceil(k->c, VL) * VL, .taps = (mest_real *)(((uintptr_t)job->scratch + 63) / 64 * 64)};
    for (int64_t c = 0; c < k->c; c++)
        for (int64_t t = 0; t < k->r * k->s; t++)
            d.taps[t * d.slots + c] = job->w[c * k->r * k->s + t];
    mest_parallel(job->threads, (size_t)(k->n * k->h), depthwise_row, &d);
}

/* ---- depthwise weight gradient: for a vector of channels and a kernel row, the sums of its taps stay in registers ---- */

typedef struct depthwise_weight {
    const mest_nhwc_job *job;
    int64_t chunks, rows, chunk_rows;
    mest_real *partial; /* [chunks][R][S][slots] */
    double *bias;       /* [chunks][C] */
    int64_t slots;
} depthwise_weight;

static void depthwise_weight_plan(const mest_conv_geometry *k, depthwise_weight *d)
{
    d->rows = k->n * k->p;
    d->chunk_rows = px_max(1, px_ceil(d->rows, 8));
    d->chunks = px_ceil(d->rows, d->chunk_rows);
    d->slots = px_ceil(k->c, VL) * VL;
}

/* acc[s] += dY x over one row, for kernel columns [s0, s0 + taps): taps is a constant where inlined. */
VEC_INLINE void depthwise_sums(const mest_nhwc_job *j, int64_t n, int64_t p, int64_t y, int64_t s0, const int taps, int64_t c, mest_real *sum, int64_t slots)
{
    const mest_conv_geometry *k = &j->k;
    const mest_real *dy = j->dy + j->gdy.origin + n * j->gdy.block + p * j->gdy.row + c;
    const mest_real *x = j->x + j->gx.origin + n * j->gx.block + y * j->gx.row + c;
    const int64_t step = k->stride_x * j->gx.pixel, tap = k->dilation_x * j->gx.pixel, left = k->left - s0 * k->dilation_x;
    /* inner pixels: every tap is on the image */
    const int64_t reach = (taps - 1) * k->dilation_x, q0 = px_min(k->q, left > 0 ? px_ceil(left, k->stride_x) : 0);
    const int64_t q1 = k->w - 1 + left - reach < 0 ? q0 : px_max(q0, px_min(k->q, (k->w - 1 + left - reach) / k->stride_x + 1));
    vec acc[4];
    for (int s = 0; s < taps; s++)
        acc[s] = VEC_LOAD(sum + (s0 + s) * slots);
    for (int64_t q = 0; q < k->q; q++) {
        if (q == q0 && q1 > q0) {
            for (; q < q1; q++) {
                const vec g = VEC_LOAD(dy + q * j->gdy.pixel);
                const mest_real *at = x + q * step - left * j->gx.pixel;
                for (int s = 0; s < taps; s++)
                    acc[s] += g * VEC_LOAD(at + s * tap);
            }
            q--;
            continue;
        }
        for (int s = 0; s < taps; s++) {
            const int64_t at = q * k->stride_x - left + s * k->dilation_x;
            if (at >= 0 && at < k->w)
                acc[s] += VEC_LOAD(dy + q * j->gdy.pixel) * VEC_LOAD(x + at * j->gx.pixel);
        }
    }
    for (int s = 0; s < taps; s++)
        VEC_STORE(sum + (s0 + s) * slots, acc[s]);
}

static void depthwise_weight_rest(const mest_nhwc_job *j, int64_t n, int64_t p, int64_t y, int64_t c, mest_real *sum, int64_t slots)
{
    const mest_conv_geometry *k = &j->k;
    const mest_real *dy = j->dy + j->gdy.origin + n * j->gdy.block + p * j->gdy.row;
    const mest_real *x = j->x + j->gx.origin + n * j->gx.block + y * j->gx.row;
    for (int64_t s = 0; s < k->s; s++)
        for (int64_t q = 0; q < k->q; q++) {
            const int64_t at = q * k->stride_x - k->left + s * k->dilation_x;
            if (at >= 0 && at < k->w)
                for (int64_t e = c; e < k->c; e++)
                    sum[s * slots + e] += dy[q * j->gdy.pixel + e] * x[at * j->gx.pixel + e];
        }
}

static void depthwise_weight_tile(void *context, size_t chunk)
{
    const depthwise_weight *d = context;
    const mest_nhwc_job *j = d->job;
    const mest_conv_geometry *k = &j->k;
    const int64_t size = k->r * k->s * d->slots, end = px_min(((int64_t)chunk + 1) * d->chunk_rows, d->rows);
    mest_real *partial = d->partial + (int64_t)chunk * size;
    double *bias = d->bias + (int64_t)chunk * k->c;
    memset(partial, 0, (size_t)size * sizeof *partial);
    memset(bias, 0, (size_t)k->c * sizeof *bias);
    for (int64_t row = (int64_t)chunk * d->chunk_rows; row < end; row++) {
        const int64_t n = row / k->p, p = row % k->p;
        for (int64_t r = 0; r < k->r && j->dw; r++) {
            const int64_t y = p * k->stride_y - k->top + r * k->dilation_y;
            if (y < 0 || y >= k->h)
                continue;
            mest_real *sums = partial + r * k->s * d->slots;
            int64_t c = 0;
            for (; c + VL <= k->c; c += VL) {
                int64_t s = 0;
                for (; s + 3 <= k->s; s += 3)
                    depthwise_sums(j, n, p, y, s, 3, c, sums + c, d->slots);
                for (; s < k->s; s++)
                    depthwise_sums(j, n, p, y, s, 1, c, sums + c, d->slots);
            }
            if (c < k->c)
                depthwise_weight_rest(j, n, p, y, c, sums, d->slots);
        }
        if (j->db)
            wgrad_bias(&(wgrad){.job = j}, row, row + 1, bias);
    }
}

static size_t depthwise_weight_scratch(const mest_conv_geometry *k)
{
    depthwise_weight d;
    depthwise_weight_plan(k, &d);
    return (size_t)(d.chunks * k->c) * sizeof(double) + 64 + (size_t)(d.chunks * k->r * k->s * d.slots) * sizeof(mest_real);
}

static void depthwise_weight_grad(const mest_nhwc_job *job)
{
    const mest_conv_geometry *k = &job->k;
    depthwise_weight d = {.job = job};
    depthwise_weight_plan(k, &d);
    d.bias = job->scratch;
    d.partial = (mest_real *)(((uintptr_t)(d.bias + d.chunks * k->c) + 63) / 64 * 64);
    mest_parallel(job->threads, (size_t)d.chunks, depthwise_weight_tile, &d);
    for (int64_t c = 0; c < k->c; c++) {
        for (int64_t t = 0; t < k->r * k->s && job->dw; t++) {
            mest_real s = 0;
            for (int64_t chunk = 0; chunk < d.chunks; chunk++)
                s += d.partial[(chunk * k->r * k->s + t) * d.slots + c];
            job->dw[c * k->r * k->s + t] = s;
        }
        double s = 0;
        for (int64_t chunk = 0; chunk < d.chunks; chunk++)
            s += d.bias[chunk * k->c + c];
        if (job->db)
            job->db[c] = (mest_real)s;
    }
}

/* ---- what others see ---- */

static bool is_depthwise(const mest_conv_geometry *k) { return k->group == k->c && k->m == k->c && k->c > 1; }
static size_t any_weight_scratch(const mest_conv_geometry *k) { return is_depthwise(k) ? depthwise_weight_scratch(k) : weight_scratch(k); }
static void any_weight_grad(const mest_nhwc_job *job)
{
    if (is_depthwise(&job->k))
        depthwise_weight_grad(job);
    else
        weight_grad(job);
}

const mest_nhwc PX_CAT(mest_, nhwc, MEST_ISA) = {
    .weight_scratch = any_weight_scratch, .weight_grad = any_weight_grad,
    .depthwise_scratch = depthwise_scratch, .depthwise_data_grad = depthwise_data_grad};

/* ---- mest.ConvGrad of depthwise convolutions: X W dY -> dX dW dB ---- */

static bool geometry_of(const mest_kernel_query *q, mest_conv_geometry *k)
{
    char why[160];
    return mest_conv_geometry_of(q->params, &q->in[0]->shape, &q->in[1]->shape, k, why, sizeof why);
}

static bool one_lane(const mest_type *t) { return px_pixel(t) && t->layout.v == 1; }

static bool depthwise_fits(const mest_kernel_query *q, const char **why)
{
    mest_conv_geometry k;
    (void)why;
    return one_lane(q->in[0]) && px_plain(q->in[1]) && !q->sparse[1] && one_lane(q->in[2]) && (!q->out[0] || one_lane(q->out[0])) &&
           (!px_out(q, 1) || px_plain(px_out(q, 1))) && (!px_out(q, 2) || px_plain(px_out(q, 2))) && geometry_of(q, &k) && is_depthwise(&k) &&
           k.r * k.s <= MOST_TAPS;
}

static double depthwise_cost(const mest_kernel_query *q)
{
    mest_conv_geometry k;
    if (!geometry_of(q, &k))
        return px_cost(q, 1);
    const double macs = (double)(k.n * k.p * k.q * k.c * k.r * k.s) * ((q->out[0] ? 1 : 0) + (px_out(q, 1) ? 1 : 0));
    return px_cost(q, 1) + macs * 2 / (1.2e9 * VL);
}

static mest_status depthwise_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    mest_conv_geometry k;
    MEST_CHECK(geometry_of(q, &k), err, MEST_E_INTERNAL, "%s: geometry", q->node->name);
    const size_t a = depthwise_scratch(&k), b = depthwise_weight_scratch(&k);
    *state = NULL;
    *scratch_bytes = a > b ? a : b;
    return MEST_OK;
}

static mest_status depthwise_run(const mest_args *a)
{
    char why[160];
    mest_nhwc_job job = {.gx = mest_pixel_geometry(a->in[0].type), .gdy = mest_pixel_geometry(a->in[2].type), .x = a->in[0].data,
                         .w = a->in[1].data, .dy = a->in[2].data, .dx = a->out[0].data, .dw = px_out_data(a, 1), .db = px_out_data(a, 2),
                         .scratch = a->scratch, .threads = a->threads};
    if (!mest_conv_geometry_of(a->params, &a->in[0].type->shape, &a->in[1].type->shape, &job.k, why, sizeof why))
        return mest_run_fail(a, MEST_E_SHAPE, "%s", why);
    if (job.dw || job.db)
        depthwise_weight_grad(&job);
    if (job.dx) {
        job.gdx = mest_pixel_geometry(a->out[0].type);
        depthwise_data_grad(&job);
    }
    return MEST_OK;
}

const mest_kernel PX_TABLE(conv_nhwc)[] = {
    {.name = PX_NAME("conv_grad_depthwise_nhwc"), .op = "mest.ConvGrad", .cpu = PX_CPU, .fits = depthwise_fits, .cost = depthwise_cost,
     .prepare = depthwise_prepare, .run = depthwise_run},
    {0},
};
