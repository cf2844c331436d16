/* SPDX-License-Identifier: Apache-2.0 */
/* Attention a block of rows at a time: the scores of BLOCK rows against all keys are made, used, and forgotten, forward and backward alike, so
 * no S x T array exists. A tile is a head (backward: a head of K and V with the heads of Q that share it), whose K and V are packed once into
 * panels of two vectors; the products are those of gemm_micro.h.
 *
 * Letters as in ops/attention.h; W = GEMM_WIDE, np = panels of keys. Arrays in scratch: kt [np][E][W] K transposed; kp [E/W][np * W][W] K by
 * features; the same for V, and, as sums, for dK and dV; s, d [np][BLOCK][W] scores and their gradients. */
#include "ops/attention.h"

#include "ops/elements.h"
#include "ops/gate_math.h"
#include "ops/kernels/gemm_micro.h"

enum { BLOCK = 48, W = GEMM_WIDE };
enum { Q, K, V, MASK, LSE, Y, DY };

typedef struct job {
    mest_attention t;
    int64_t keys, np, ne, nf;   /* keys: np * W */
    const mest_real *q, *k, *v, *dy, *y_in, *lse_in;
    mest_real *y, *lse, *dscores, *dq, *dk, *dv;
    mest_real *scratch;
    size_t worker;              /* reals of scratch of a worker */
} job;

typedef struct panels {
    mest_real *kt, *kp, *vt, *vp, *dk, *dv, *s, *d, *qp, *dyp, *out;
    size_t reals;
} panels;

/* Where a worker's arrays lie; base NULL: how many reals they take. */
static panels panels_of(const job *j, bool backward, mest_real *base)
{
    panels p = {0};
    const int64_t e = j->t.q.size, f = j->t.v.size;
#define ARRAY(field, needed, count)                               \
    if (needed) {                                                 \
        p.field = base ? base + p.reals : NULL;                   \
        p.reals += (size_t)px_ceil((count), 16) * 16;             \
    }
    ARRAY(kt, true, j->np * e * W)
    ARRAY(kp, backward, j->ne * j->keys * W)
    ARRAY(vt, backward, j->np * f * W)
    ARRAY(vp, !backward, j->nf * j->keys * W)
    ARRAY(dk, backward, j->ne * j->keys * W)
    ARRAY(dv, backward, j->nf * j->keys * W)
    ARRAY(s, true, j->np * BLOCK * W)
    ARRAY(d, backward, j->np * BLOCK * W)
    ARRAY(qp, backward, j->ne * BLOCK * W)
    ARRAY(dyp, backward, j->nf * BLOCK * W)
    ARRAY(out, true, BLOCK * W)
#undef ARRAY
    return p;
}

static void sizes(job *j)
{
    j->np = px_ceil(j->t.k.steps, W);
    j->keys = j->np * W;
    j->ne = px_ceil(j->t.q.size, W);
    j->nf = px_ceil(j->t.v.size, W);
}

/* x[rows][size] with rows `step` apart, to panels of W features: to[size / W][stride][W]. */
static void pack_features(const mest_real *x, int64_t step, int64_t rows, int64_t size, int64_t stride, mest_real *to)
{
    for (int64_t f = 0; f < size; f += W)
        gemm_pack(x + f, step, 1, rows, px_min(W, size - f), W, to + f / W * stride * W);
}

/* The same transposed: to[rows / W][size][W]. */
static void pack_rows(const mest_real *x, int64_t step, int64_t rows, int64_t size, mest_real *to)
{
    for (int64_t t = 0; t < rows; t += W)
        gemm_pack(x + t * step, 1, step, size, px_min(W, rows - t), W, to + t / W * size * W);
}

/* Panels of keys that rows up to `last` see at all. */
static int64_t seen(const job *j, int64_t last) { return j->t.causal ? px_min(j->np, last / W + 1) : j->np; }

/* Scores x[n] of keys [t0, t0 + n) in row (b, h, s) behind the mask; or, gradient, zeros where Q and K get none. */
static void mask_chunk(const mest_attention *a, int64_t b, int64_t h, int64_t s, int64_t t0, int64_t n, mest_real *x, bool gradient)
{
    if (a->mask) {
        const int64_t step = a->mask_stride[3], at = b * a->mask_stride[0] + h * a->mask_stride[1] + s * a->mask_stride[2] + t0 * step;
        const mest_real *m = (const mest_real *)a->mask + at;
        const uint8_t *m8 = (const uint8_t *)a->mask + at, hides = a->mask_invert;
        const mest_real fill = gradient ? 0 : a->fill;
        if (!a->mask_bool && !gradient)
            for (int64_t t = 0; t < n; t++)
                x[t] += m[t * step];
        else if (a->mask_bool)
            for (int64_t t = 0; t < n; t++)
                x[t] = (m8[t * step] != 0) == hides ? fill : x[t];
    }
    if (a->causal)
        for (int64_t t = px_max(0, s + 1 - t0); t < n; t++)
            x[t] = gradient ? 0 : -(mest_real)INFINITY;
}

/* Scores of rows [i0, i0 + rows) of head (b, h), scaled and masked; hidden and missing keys: -inf, or the fill. */
static void scores(const job *j, const panels *p, int64_t b, int64_t h, int64_t i0, int64_t rows)
{
    const mest_attention *a = &j->t;
    const mest_real *q = j->q + mest_operand_at(a, &a->q, b, h) + i0 * a->q.step, scale = (mest_real)a->scale;
    for (int64_t k = 0; k < seen(j, i0 + rows - 1); k++) {
        mest_real *s = p->s + k * BLOCK * W;
        const int64_t width = px_min(W, a->k.steps - k * W);
        gemm_rows(rows, 2, q, a->q.step, 1, p->kt + k * a->q.size * W, W, a->q.size, s, false);
        for (int64_t r = 0; r < rows; r++) {
            mest_real *x = s + r * W;
            for (int64_t t = 0; t < W; t++)
                x[t] *= scale;
            mask_chunk(a, b, h, i0 + r, k * W, width, x, false);
            for (int64_t t = width; t < W; t++)
                x[t] = -(mest_real)INFINITY;
        }
    }
}

/* x[t] = e^(x[t] - top), 0 where that would be below the smallest normal number. */
static void exponentials(mest_real *x, mest_real top)
{
    MEST_IVDEP
    for (int t = 0; t < W; t++) {
        const mest_real d = x[t] - top, e = mest_gate_exp(d);
        x[t] = d < (MEST_REAL_IS_DOUBLE ? -700 : -87) ? 0 : e;
    }
}

/* Factors of dropout on keys [t0, t0 + n). */
static void drop_chunk(const mest_attention *a, int64_t b, int64_t h, int64_t s, int64_t t0, int64_t n, mest_real *x)
{
    const uint64_t first = (uint64_t)(((b * a->q.heads + h) * a->q.steps + s) * a->k.steps + t0);
    const mest_real factor = (mest_real)a->keep.scale;
    for (int64_t t = 0; t < n; t++)
        x[t] = mest_dropout_kept(&a->keep, first + (uint64_t)t) ? x[t] * factor : 0;
}

/* NaN wins. Two choices without a branch, or the loop is not vectorized. */
static inline mest_real larger(mest_real a, mest_real b)
{
    const mest_real t = a > b ? a : b;
    return a != a ? a : t;
}

/* Scores of a row to e^(score - top); returns lse, and 1 / sum in *inverse. */
static mest_real softmax_row(const panels *p, int64_t np, int64_t r, mest_real *inverse)
{
    mest_real tops[W], top = -(mest_real)INFINITY;
    for (int t = 0; t < W; t++)
        tops[t] = top;
    for (int64_t k = 0; k < np; k++) {
        const mest_real *x = p->s + (k * BLOCK + r) * W;
        for (int t = 0; t < W; t++)
            tops[t] = larger(x[t], tops[t]);
    }
    for (int t = 0; t < W; t++)
        top = larger(tops[t], top);
    const bool blind = top == -(mest_real)INFINITY;
    vec sums = {0};
    for (int64_t k = 0; k < np; k++) {
        mest_real *x = p->s + (k * BLOCK + r) * W;
        if (blind) {
            memset(x, 0, W * sizeof *x);
            continue;
        }
        exponentials(x, top);
        sums += VEC_LOAD(x) + VEC_LOAD(x + VL);
    }
    double sum = 0;
    for (int i = 0; i < VL; i++)
        sum += (double)sums[i];
    *inverse = blind ? 0 : (mest_real)(1 / sum);
    return blind ? (mest_real)INFINITY : (mest_real)((double)top + log(sum));
}

static void store(const mest_real *from, int64_t rows, int64_t width, mest_real *to, int64_t step, const mest_real *factor)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t x = 0; x < width; x++)
            to[r * step + x] = factor ? from[r * W + x] * factor[r] : from[r * W + x];
}

static void forward_block(const job *j, const panels *p, int64_t b, int64_t h, int64_t i0, int64_t rows)
{
    const mest_attention *a = &j->t;
    const int64_t np = seen(j, i0 + rows - 1);
    mest_real inverse[BLOCK];
    scores(j, p, b, h, i0, rows);
    for (int64_t r = 0; r < rows; r++) {
        const mest_real lse = softmax_row(p, np, r, &inverse[r]);
        if (j->lse)
            j->lse[(b * a->q.heads + h) * a->q.steps + i0 + r] = lse;
        for (int64_t k = 0; a->drops && k < np; k++)
            drop_chunk(a, b, h, i0 + r, k * W, px_min(W, a->k.steps - k * W), p->s + (k * BLOCK + r) * W);
    }
    for (int64_t f = 0; j->y && f < j->nf; f++) { /* a second run of the step may want lse alone */
        const int64_t width = px_min(W, a->v.size - f * W);
        for (int64_t k = 0; k < np; k++)
            gemm_rows(rows, width > VL ? 2 : 1, p->s + k * BLOCK * W, W, 1, p->vp + (f * j->keys + k * W) * W, W, px_min(W, a->k.steps - k * W), p->out, k > 0);
        store(p->out, rows, width, j->y + mest_operand_at(a, &a->y, b, h) + i0 * a->y.step + f * W, a->y.step, inverse);
    }
}

static void forward_head(void *context, size_t worker, size_t tile)
{
    const job *j = context;
    const mest_attention *a = &j->t;
    const int64_t b = (int64_t)tile / a->q.heads, h = (int64_t)tile % a->q.heads;
    const panels p = panels_of(j, false, j->scratch + worker * j->worker);
    pack_rows(j->k + mest_operand_at(a, &a->k, b, h), a->k.step, a->k.steps, a->q.size, p.kt);
    pack_features(j->v + mest_operand_at(a, &a->v, b, h), a->v.step, a->k.steps, a->v.size, j->keys, p.vp);
    for (int64_t i = 0; i < a->q.steps; i += BLOCK)
        forward_block(j, &p, b, h, i, px_min(BLOCK, a->q.steps - i));
}

/* Probabilities and gradients of the scores of a block: s becomes P through the dropout, d the gradient times scale. */
static void gradients(const job *j, const panels *p, int64_t b, int64_t h, int64_t i0, int64_t rows)
{
    const mest_attention *a = &j->t;
    const int64_t np = seen(j, i0 + rows - 1), at_y = mest_operand_at(a, &a->y, b, h) + i0 * a->y.step, row0 = (b * a->q.heads + h) * a->q.steps + i0;
    const mest_real scale = (mest_real)a->scale;
    mest_real all[BLOCK], kept[W];
    scores(j, p, b, h, i0, rows);
    for (int64_t r = 0; r < rows; r++) {
        const mest_real *dy = j->dy + at_y + r * a->y.step, *y = j->y_in + at_y + r * a->y.step;
        double sums[8] = {0}, sum = 0; /* eight at a time: one would wait for itself */
        int64_t f = 0;
        for (; f + 8 <= a->v.size; f += 8)
            for (int i = 0; i < 8; i++)
                sums[i] += (double)dy[f + i] * (double)y[f + i];
        for (int i = 0; i < 8; i++)
            sum += sums[i];
        for (; f < a->v.size; f++)
            sum += (double)dy[f] * (double)y[f];
        all[r] = (mest_real)sum;
    }
    for (int64_t k = 0; k < np; k++) {
        const int64_t width = px_min(W, a->k.steps - k * W);
        mest_real *s = p->s + k * BLOCK * W, *d = p->d + k * BLOCK * W;
        gemm_rows(rows, 2, j->dy + at_y, a->y.step, 1, p->vt + k * a->v.size * W, W, a->v.size, d, false);
        for (int64_t r = 0; r < rows; r++) {
            mest_real *sr = s + r * W, *dr = d + r * W;
            exponentials(sr, j->lse_in[row0 + r]);
            for (int t = 0; t < W; t++)
                kept[t] = 1;
            if (a->drops)
                drop_chunk(a, b, h, i0 + r, k * W, width, kept);
            MEST_IVDEP
            for (int t = 0; t < W; t++) {
                dr[t] = sr[t] * (dr[t] * kept[t] - all[r]);
                sr[t] *= kept[t];
            }
            mask_chunk(a, b, h, i0 + r, k * W, width, dr, true);
            if (j->dscores)
                memcpy(j->dscores + (row0 + r) * a->k.steps + k * W, dr, (size_t)width * sizeof *dr);
            for (int t = 0; t < W; t++)
                dr[t] *= scale;
        }
    }
    for (int64_t r = 0; j->dscores && r < rows && np < j->np; r++)
        memset(j->dscores + (row0 + r) * a->k.steps + np * W, 0, (size_t)(a->k.steps - np * W) * sizeof *j->dscores);
}

static void backward_block(const job *j, const panels *p, int64_t b, int64_t h, int64_t i0, int64_t rows)
{
    const mest_attention *a = &j->t;
    const int64_t np = seen(j, i0 + rows - 1);
    gradients(j, p, b, h, i0, rows);
    if (j->dq)
        for (int64_t e = 0; e < j->ne; e++) {
            const int64_t width = px_min(W, a->q.size - e * W);
            for (int64_t k = 0; k < np; k++)
                gemm_rows(rows, width > VL ? 2 : 1, p->d + k * BLOCK * W, W, 1, p->kp + (e * j->keys + k * W) * W, W, px_min(W, a->k.steps - k * W), p->out, k > 0);
            store(p->out, rows, width, j->dq + mest_operand_at(a, &a->q, b, h) + i0 * a->q.step + e * W, a->q.step, NULL);
        }
    if (j->dk)
        pack_features(j->q + mest_operand_at(a, &a->q, b, h) + i0 * a->q.step, a->q.step, rows, a->q.size, BLOCK, p->qp);
    if (j->dv)
        pack_features(j->dy + mest_operand_at(a, &a->y, b, h) + i0 * a->y.step, a->y.step, rows, a->v.size, BLOCK, p->dyp);
    for (int64_t k = 0; k < np; k++) {
        const int64_t keys = px_min(W, a->k.steps - k * W);
        for (int64_t e = 0; j->dk && e < j->ne; e++) /* dK[t] += sum over rows of dS[row][t] Q[row] */
            gemm_rows(keys, 2, p->d + k * BLOCK * W, 1, W, p->qp + e * BLOCK * W, W, rows, p->dk + (e * j->keys + k * W) * W, true);
        for (int64_t f = 0; j->dv && f < j->nf; f++)
            gemm_rows(keys, 2, p->s + k * BLOCK * W, 1, W, p->dyp + f * BLOCK * W, W, rows, p->dv + (f * j->keys + k * W) * W, true);
    }
}

static void backward_head(void *context, size_t worker, size_t tile)
{
    const job *j = context;
    const mest_attention *a = &j->t;
    const int64_t b = (int64_t)tile / a->k.heads, first = (int64_t)tile % a->k.heads * a->group;
    const int64_t at_k = mest_operand_at(a, &a->k, b, first), at_v = mest_operand_at(a, &a->v, b, first);
    const panels p = panels_of(j, true, j->scratch + worker * j->worker);
    pack_rows(j->k + at_k, a->k.step, a->k.steps, a->q.size, p.kt);
    pack_features(j->k + at_k, a->k.step, a->k.steps, a->q.size, j->keys, p.kp);
    pack_rows(j->v + at_v, a->v.step, a->k.steps, a->v.size, p.vt);
    memset(p.dk, 0, (size_t)(j->ne * j->keys * W) * sizeof *p.dk);
    memset(p.dv, 0, (size_t)(j->nf * j->keys * W) * sizeof *p.dv);
    for (int64_t h = first; h < first + a->group; h++)
        for (int64_t i = 0; i < a->q.steps; i += BLOCK)
            backward_block(j, &p, b, h, i, px_min(BLOCK, a->q.steps - i));
    for (int64_t e = 0; j->dk && e < j->ne; e++)
        store(p.dk + e * j->keys * W, a->k.steps, px_min(W, a->q.size - e * W), j->dk + at_k + e * W, a->k.step, NULL);
    for (int64_t f = 0; j->dv && f < j->nf; f++)
        store(p.dv + f * j->keys * W, a->k.steps, px_min(W, a->v.size - f * W), j->dv + at_v + f * W, a->v.step, NULL);
}

static mest_status run(const mest_args *a, bool backward)
{
    job j = {.q = a->in[Q].data, .k = a->in[K].data, .v = a->in[V].data, .scratch = a->scratch};
    mest_attention_run(a, &j.t);
    sizes(&j);
    j.worker = panels_of(&j, backward, NULL).reals;
    if (backward) {
        j.lse_in = a->in[LSE].data;
        j.y_in = a->in[Y].data;
        j.dy = a->in[DY].data;
        j.dscores = a->out[0].data;
        j.dq = px_out_data(a, 1);
        j.dk = px_out_data(a, 2);
        j.dv = px_out_data(a, 3);
        mest_parallel_worker(a->threads, (size_t)(j.t.batch * j.t.k.heads), backward_head, &j);
        return MEST_OK;
    }
    j.lse = a->out[0].data;
    j.y = px_out_data(a, 1);
    if (j.y || j.lse)
        mest_parallel_worker(a->threads, (size_t)(j.t.batch * j.t.q.heads), forward_head, &j);
    return MEST_OK;
}
static mest_status forward_run(const mest_args *a) { return run(a, false); }
static mest_status backward_run(const mest_args *a) { return run(a, true); }

static bool fits(const mest_kernel_query *q, const char **why)
{
    for (int i = 0; i < q->n_in; i++)
        if (q->in[i] && q->in[i]->layout.kind != MEST_PLAIN)
            return false;
    for (int i = 0; i < q->n_out; i++)
        if (q->out[i] && q->out[i]->layout.kind != MEST_PLAIN)
            return false;
    *why = "scores a block of rows at a time";
    return true;
}

static double cost(const mest_kernel_query *q)
{
    const double macs = q->node->op->macs ? (double)q->node->op->macs(q->node, q->in, q->out) : 0;
    return 2e-6 + 2 * macs / (VL * 3e9);
}

static mest_status prepare(const mest_kernel_query *q, bool backward, void **state, size_t *scratch_bytes)
{
    job j = {.scratch = NULL};
    *state = NULL;
    (void)mest_attention_sizes(q->params, &q->in[Q]->shape, &q->in[K]->shape, &q->in[V]->shape, &j.t);
    sizes(&j);
    *scratch_bytes = panels_of(&j, backward, NULL).reals * sizeof(mest_real) * (size_t)px_workers(q->threads);
    return MEST_OK;
}
static mest_status forward_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    (void)err;
    return prepare(q, false, state, scratch_bytes);
}
static mest_status backward_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    (void)err;
    return prepare(q, true, state, scratch_bytes);
}

const mest_kernel PX_TABLE(attention_plain)[] = {
    {.name = PX_NAME("attention"), .op = "mest.Attention", .cpu = PX_CPU, .fits = fits, .cost = cost, .prepare = forward_prepare, .run = forward_run},
    {.name = PX_NAME("attention_grad"), .op = "mest.AttentionGrad", .cpu = PX_CPU, .fits = fits, .cost = cost, .prepare = backward_prepare,
     .run = backward_run},
    {0},
};
