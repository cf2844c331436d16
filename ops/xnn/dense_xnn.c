/* SPDX-License-Identifier: Apache-2.0 */
/* Fully-connected layers and max pooling by XNNPACK.
 *
 *   Gemm      Y[N,M] = A[N,K] W[M,K]^T + C (transB = 1, transA = 0, alpha = 1). Weights that rest are packed once. Weights that change every
 *             step swap roles: W is XNNPACK's input, read in place, and the batch A is its "weights", so N x K numbers are packed
 *             instead of M x K; the result comes out transposed.
 *   MaxPool   NHWC
 */
#include "ops/xnn/xnn.h"

#include <string.h>

typedef struct dense_state {
    mest_xnn xnn;
    int64_t n, m, k;
    bool fixed;
    uint64_t fingerprint;
    size_t packed_bytes;
} dense_state;

static bool usable(const mest_kernel_query *q, const char **why)
{
    if (!q->use_xnnpack)
        return false;
    if (!mest_xnn_ready())
        *why = "xnn: XNNPACK cannot run on this processor";
    return mest_xnn_ready();
}

/* C is a row [M] or [1, M]: what XNNPACK calls a bias. */
static bool row_bias(const mest_type *c, int64_t m)
{
    int64_t n;
    return mest_xnn_plain(c) && c->shape.rank >= 1 && c->shape.dim[c->shape.rank - 1] == m && mest_shape_count(&c->shape, &n) && n == m;
}

static bool rests(const mest_kernel_query *q) { return q->in_fixed[1] && (q->n_in < 3 || !q->in[2] || q->in_fixed[2]); }

static bool dense_fits(const mest_kernel_query *q, const char **why)
{
    const mest_gemm_params *p = q->params;
    if (!mest_xnn_matrix(q->in[0]) || !mest_xnn_matrix(q->out[0]) || !mest_xnn_plain(q->in[1]) || q->sparse[1] || q->in[1]->shape.rank != 2 ||
        p->trans_a || !p->trans_b || p->alpha != 1)
        return false;
    if (q->n_in > 2 && q->in[2] && (p->beta != 1 || !row_bias(q->in[2], q->in[1]->shape.dim[0])))
        return false;
    if (!usable(q, why))
        return false;
    *why = rests(q) ? "xnn: weights packed once" : "xnn: swapped roles, weights read in place";
    return true;
}

/* The swapped form packs the batch and transposes the result; with few or very many rows our own product does better. */
static double dense_cost(const mest_kernel_query *q)
{
    const double n = (double)q->in[0]->shape.dim[0], k = (double)q->in[0]->shape.dim[1], m = (double)q->in[1]->shape.dim[0];
    const double run = 2 * n * m * k / mest_xnn_flops(q->cpu) + m * k * 4 / 10e9;
    return 2e-6 + run + (rests(q) ? 0 : mest_xnn_pack_seconds(n * k) + n * m * 1e-9);
}

static mest_status dense_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    dense_state *s;
    MEST_NEW(q->heap, s, 1, err, "fully-connected layer");
    *s = (dense_state){.xnn = {.heap = q->heap}, .n = q->in[0]->shape.dim[0], .k = q->in[0]->shape.dim[1], .m = q->in[1]->shape.dim[0],
                       .fixed = rests(q)};
    *scratch_bytes = s->fixed ? 0 : (size_t)(s->n * s->m) * sizeof(float) + MEST_XNN_SLACK;
    *state = s;
    return MEST_OK;
}

static mest_status dense_run(const mest_args *a)
{
    dense_state *s = a->state;
    const float *x = a->in[0].data, *w = a->in[1].data, *bias = a->n_in > 2 ? a->in[2].data : NULL;
    float *y = a->out[0].data;
    if (s->fixed) {
        const uint64_t fingerprint = mest_xnn_fingerprint(w, s->m * s->k, bias, bias ? s->m : 0);
        if (!s->xnn.op || fingerprint != s->fingerprint) {
            if (!mest_xnn_dense_create(&s->xnn, s->k, s->m, false, w, bias))
                return mest_run_fail(a, MEST_E_NOMEM, "XNNPACK could not create the layer");
            s->fingerprint = fingerprint;
            s->packed_bytes = (size_t)(s->m * s->k) * sizeof(float);
        }
        if (!mest_xnn_dense_bind(&s->xnn, s->n, x, y, a->threads) || !mest_xnn_run(&s->xnn, a->threads))
            return mest_run_fail(a, MEST_E_NOMEM, "XNNPACK could not run the layer");
        return MEST_OK;
    }
    float *across = a->scratch;
    if (!mest_xnn_dense_create(&s->xnn, s->k, s->n, false, x, NULL) || !mest_xnn_dense_bind(&s->xnn, s->m, w, across, a->threads) ||
        !mest_xnn_run(&s->xnn, a->threads))
        return mest_run_fail(a, MEST_E_NOMEM, "XNNPACK could not create or run the layer");
    mest_xnn_drop(&s->xnn); /* the packed batch is of no further use */
    for (int64_t j = 0; j < s->m; j += 16)
        for (int64_t i = 0; i < s->n; i++)
            for (int64_t e = j; e < s->m && e < j + 16; e++)
                y[i * s->m + e] = across[e * s->n + i] + (bias ? bias[e] : 0);
    return MEST_OK;
}

static void dense_release(void *state, mest_heap *heap)
{
    dense_state *s = state;
    mest_xnn_free(&s->xnn);
    mest_free(heap, s, 1, sizeof *s);
}

static size_t dense_bytes(const void *state)
{
    const dense_state *s = state;
    return sizeof *s + s->xnn.workspace_bytes + s->packed_bytes;
}

static size_t dense_outside(const void *state, bool *kept)
{
    const dense_state *s = state;
    *kept = s->fixed;
    return (size_t)(s->k * (s->fixed ? s->m : s->n)) * sizeof(float);
}

/* ---- MaxPool ---- */

static bool pool_window(const mest_kernel_query *q, mest_pool_geometry *g)
{
    char why[160];
    return mest_pool_geometry_of(q->params, &q->in[0]->shape, g, why, sizeof why);
}

/* XNNPACK computes the output size by rounding down, so ceil_mode fits only where that gives the same size. */
static bool maxpool_fits(const mest_kernel_query *q, const char **why)
{
    mest_pool_geometry g;
    if (!mest_xnn_nhwc(q->in[0]) || !mest_xnn_nhwc(q->out[0]) || !pool_window(q, &g) || g.r * g.s < 2)
        return false;
    for (int i = 1; i < q->n_out; i++)
        if (q->out[i])
            return false;
    if ((g.h + g.top + g.bottom - (g.r - 1) * g.dilation_y - 1) / g.stride_y + 1 != g.p ||
        (g.w + g.left + g.right - (g.s - 1) * g.dilation_x - 1) / g.stride_x + 1 != g.q)
        return false;
    /* a window wholly on padding has no maximum: XNNPACK would read outside */
    if (g.top >= (g.r - 1) * g.dilation_y + 1 || g.left >= (g.s - 1) * g.dilation_x + 1 || g.bottom >= (g.r - 1) * g.dilation_y + 1 ||
        g.right >= (g.s - 1) * g.dilation_x + 1 || g.dilation_y > 1 || g.dilation_x > 1)
        return false;
    return usable(q, why);
}

static double maxpool_cost(const mest_kernel_query *q)
{
    mest_pool_geometry g;
    if (!pool_window(q, &g))
        return 1;
    return 2e-6 + (double)(g.n * g.c) * (double)(g.h * g.w + g.p * g.q) * 4 / 10e9;
}

typedef struct pool_state {
    mest_xnn xnn;
    mest_pool_geometry g;
} pool_state;

static mest_status maxpool_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    pool_state *s;
    MEST_NEW(q->heap, s, 1, err, "max pooling");
    *s = (pool_state){.xnn = {.heap = q->heap}};
    pool_window(q, &s->g);
    const mest_pool_geometry *g = &s->g;
    const mest_xnn_window w = {.top = (uint32_t)g->top, .right = (uint32_t)g->right, .bottom = (uint32_t)g->bottom, .left = (uint32_t)g->left,
                               .r = (uint32_t)g->r, .s = (uint32_t)g->s, .stride_y = (uint32_t)g->stride_y, .stride_x = (uint32_t)g->stride_x,
                               .dilation_y = (uint32_t)g->dilation_y, .dilation_x = (uint32_t)g->dilation_x};
    if (!mest_xnn_maxpool_create(&s->xnn, &w, g->c)) {
        mest_free(q->heap, s, 1, sizeof *s);
        return mest_fail(err, MEST_E_NOMEM, "MaxPool '%s': XNNPACK could not create the operator", q->node->name);
    }
    *state = s;
    *scratch_bytes = 0;
    return MEST_OK;
}

static mest_status maxpool_run(const mest_args *a)
{
    pool_state *s = a->state;
    const mest_pool_geometry *g = &s->g;
    if (!mest_xnn_maxpool_bind(&s->xnn, g->n, g->h, g->w, g->c, a->in[0].data, a->out[0].data, a->threads) || !mest_xnn_run(&s->xnn, a->threads))
        return mest_run_fail(a, MEST_E_NOMEM, "XNNPACK could not run the pool");
    return MEST_OK;
}

static void maxpool_release(void *state, mest_heap *heap)
{
    pool_state *s = state;
    mest_xnn_free(&s->xnn);
    mest_free(heap, s, 1, sizeof *s);
}

const mest_kernel mest_kernels_dense_xnn_xnn[] = {
    {.name = "gemm_xnn", .op = "Gemm", .fits = dense_fits, .cost = dense_cost, .prepare = dense_prepare, .run = dense_run,
     .release = dense_release, .state_bytes = dense_bytes, .outside_bytes = dense_outside},
    {.name = "maxpool_xnn", .op = "MaxPool", .fits = maxpool_fits, .cost = maxpool_cost, .prepare = maxpool_prepare, .run = maxpool_run,
     .release = maxpool_release},
    {0},
};
