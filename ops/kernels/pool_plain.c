/* SPDX-License-Identifier: Apache-2.0 */
/* MaxPool on plain images as vector code: the maximum over the rows of the windows, column by column, then over neighbouring columns, and every
 * stride-th of those is a result.
 *
 * Letters: N batch, C channels, H W image, R S window, P Q output image. */
#include <math.h>

#include "ops/kernels/pixel.h"

enum { TILE_ELEMENTS = 16384 };

typedef struct job {
    mest_pool_geometry k;
    int64_t columns, starts;   /* of a row and its padding that windows reach; of these, where windows might begin */
    int64_t tile_planes, planes;
    const mest_real *x;
    mest_real *y, *scratch;    /* of each worker: columns, starts */
} job;

/* NaN wins, as in PyTorch. Two choices without a branch, or the loops are not vectorized. */
static inline mest_real larger(mest_real a, mest_real b)
{
    const mest_real t = a > b ? a : b;
    return a != a ? a : t;
}

static void take(int64_t n, const mest_real *restrict x, mest_real *restrict best)
{
    for (int64_t i = 0; i < n; i++)
        best[i] = larger(x[i], best[i]);
}

/* Maxima over the rows of the windows of output row p. What is beside the image stays as it is: below everything. */
static void over_rows(const job *j, const mest_real *image, int64_t p, mest_real *line)
{
    const mest_pool_geometry *k = &j->k;
    const int64_t from = px_max(0, -k->left), shift = px_max(0, k->left), n = px_min(k->w - from, j->columns - shift);
    int64_t taken = 0;
    for (int64_t r = 0; r < k->r && n > 0; r++) {
        const int64_t row = p * k->stride_y - k->top + r * k->dilation_y;
        if (row < 0 || row >= k->h)
            continue;
        const mest_real *x = image + row * k->w + from;
        if (taken++)
            take(n, x, line + shift);
        else
            memcpy(line + shift, x, (size_t)n * sizeof *line);
    }
    for (int64_t i = 0; !taken && i < n; i++)
        line[shift + i] = (mest_real)-INFINITY;
}

/* Maxima over the columns of every window that could begin. */
static void over_columns(const job *j, const mest_real *restrict line, mest_real *restrict best)
{
    const int64_t n = j->starts, d = j->k.dilation_x;
    int64_t s = 1;
    if (j->k.s >= 3) { /* the common windows in one pass */
        for (int64_t i = 0; i < n; i++)
            best[i] = larger(larger(line[i], line[i + d]), line[i + 2 * d]);
        s = 3;
    } else {
        memcpy(best, line, (size_t)n * sizeof *best);
    }
    for (; s < j->k.s; s++)
        take(n, line + s * d, best);
}

static void tile(void *context, size_t worker, size_t t)
{
    const job *j = context;
    const mest_pool_geometry *k = &j->k;
    mest_real *line = j->scratch + (int64_t)worker * (j->columns + j->starts), *best = line + j->columns;
    for (int64_t i = 0; i < j->columns; i++)
        line[i] = (mest_real)-INFINITY;
    for (int64_t plane = (int64_t)t * j->tile_planes, end = px_min(plane + j->tile_planes, j->planes); plane < end; plane++)
        for (int64_t p = 0; p < k->p; p++) {
            mest_real *restrict y = j->y + (plane * k->p + p) * k->q;
            over_rows(j, j->x + plane * k->h * k->w, p, line);
            over_columns(j, line, best);
            if (k->stride_x == 2) /* a constant, so that it becomes shuffles */
                for (int64_t q = 0; q < k->q; q++)
                    y[q] = best[2 * q];
            else
                for (int64_t q = 0; q < k->q; q++)
                    y[q] = best[q * k->stride_x];
        }
}

static bool job_of(const void *params, const mest_shape *x, job *j)
{
    char why[160];
    *j = (job){0};
    if (!mest_pool_geometry_of(params, x, &j->k, why, sizeof why))
        return false;
    const mest_pool_geometry *k = &j->k;
    j->starts = (k->q - 1) * k->stride_x + 1;
    j->columns = j->starts + (k->s - 1) * k->dilation_x;
    j->planes = k->n * k->c;
    j->tile_planes = px_max(1, TILE_ELEMENTS / px_max(1, k->h * k->w));
    return k->p > 0 && k->q > 0;
}

static bool fits(const mest_kernel_query *q, const char **why)
{
    job j;
    for (int i = 1; i < q->n_out; i++)
        if (q->out[i])
            return false; /* indices: the reference gives them */
    if (q->n_in < 1 || !px_plain(q->in[0]) || !px_plain(px_out(q, 0)) || !job_of(q->params, &q->in[0]->shape, &j))
        return false;
    *why = "vector code, a row of an image at a time";
    return true;
}

/* The reference, which looks at one window after the other, is modelled at 10 GB/s. */
static double cost(const mest_kernel_query *q) { return px_cost(q, 0.5) - 0.95e-6; }

static mest_status prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    job j;
    *state = NULL;
    *scratch_bytes = 0;
    if (!job_of(q->params, &q->in[0]->shape, &j))
        return mest_fail(err, MEST_E_SHAPE, "%s: window does not fit", q->node->name);
    *scratch_bytes = (size_t)((j.columns + j.starts) * px_workers(q->threads)) * sizeof(mest_real);
    return MEST_OK;
}

static mest_status run(const mest_args *a)
{
    job j;
    if (!job_of(a->params, &a->in[0].type->shape, &j))
        return mest_run_fail(a, MEST_E_SHAPE, "window does not fit");
    j.x = a->in[0].data;
    j.y = a->out[0].data;
    j.scratch = a->scratch;
    mest_parallel_worker(a->threads, (size_t)px_ceil(j.planes, j.tile_planes), tile, &j);
    return MEST_OK;
}

const mest_kernel PX_TABLE(pool_plain)[] = {
    {.name = PX_NAME("maxpool_plain"), .op = "MaxPool", .cpu = PX_CPU, .fits = fits, .cost = cost, .prepare = prepare, .run = run},
    {0},
};
