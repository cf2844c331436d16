/* SPDX-License-Identifier: Apache-2.0 */
/* Det: determinants of the n x n matrices in the last two axes; n up to 16. By elimination with row exchange. ONNX since 11.
 * mest.DetGrad(X, dY): dX = dY times the matrix of cofactors, each a determinant of order n - 1: right for singular matrices too. */
#include <inttypes.h>

#include "ops/elements.h"

enum { ORDER = 16 };

static mest_status det_infer(mest_infer *c)
{
    mest_shape y = c->in[0]->shape;
    MEST_INFER_CHECK(c, y.rank >= 2 && y.dim[y.rank - 1] == y.dim[y.rank - 2] && y.dim[y.rank - 1] > 0, "the last two axes are not those of a square matrix");
    if (y.dim[y.rank - 1] > ORDER)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "a matrix of order %" PRId64 "; at most %d is supported", y.dim[y.rank - 1], ORDER);
    y.rank -= 2;
    MEST_INFER_CHECK(c, c->in[0]->dtype == MEST_F32, "element type %s is not supported", mest_dtype_name(c->in[0]->dtype));
    return mest_infer_set(c, 0, MEST_F32, &y);
}

/* Determinant of a[n][n], which is used up. */
static double eliminate(double a[ORDER][ORDER], int n)
{
    double det = 1;
    for (int k = 0; k < n; k++) {
        int top = k;
        for (int i = k + 1; i < n; i++)
            if (fabs(a[i][k]) > fabs(a[top][k]))
                top = i;
        if (a[top][k] == 0)
            return 0;
        for (int j = k; j < n && top != k; j++) {
            const double t = a[k][j];
            a[k][j] = a[top][j];
            a[top][j] = t;
        }
        det *= top == k ? a[k][k] : -a[k][k];
        for (int i = k + 1; i < n; i++) {
            const double f = a[i][k] / a[k][k];
            for (int j = k + 1; j < n; j++)
                a[i][j] -= f * a[k][j];
        }
    }
    return det;
}

/* Determinant of x without a row and a column; -1: with all. */
static double minor_of(const mest_real *x, int n, int row, int column)
{
    double a[ORDER][ORDER];
    int r = 0;
    for (int i = 0; i < n; i++) {
        int c = 0;
        if (i == row)
            continue;
        for (int j = 0; j < n; j++)
            if (j != column)
                a[r][c++] = (double)x[i * n + j];
        r++;
    }
    return eliminate(a, r);
}

typedef struct job {
    int n;
    const mest_real *x, *dy;
    mest_real *out;
} job;

static void forward_tile(void *context, size_t tile)
{
    const job *j = context;
    j->out[tile] = (mest_real)minor_of(j->x + (int64_t)tile * j->n * j->n, j->n, -1, -1);
}

static void grad_tile(void *context, size_t tile)
{
    const job *j = context;
    const int64_t at = (int64_t)tile * j->n * j->n;
    for (int r = 0; r < j->n; r++)
        for (int c = 0; c < j->n; c++)
            j->out[at + r * j->n + c] = (mest_real)((double)j->dy[tile] * ((r + c) % 2 ? -1 : 1) * minor_of(j->x + at, j->n, r, c));
}

static job job_of(const mest_args *a)
{
    const mest_shape *x = &a->in[0].type->shape;
    return (job){.n = (int)x->dim[x->rank - 1], .x = a->in[0].data, .out = a->out[0].data};
}

static mest_status det_forward(const mest_args *a)
{
    job j = job_of(a);
    mest_parallel(a->threads, a->out[0].count, forward_tile, &j);
    return MEST_OK;
}

static mest_status grad_forward(const mest_args *a)
{
    job j = job_of(a);
    j.dy = a->in[1].data;
    mest_parallel(a->threads, a->in[1].count, grad_tile, &j);
    return MEST_OK;
}

const mest_op mest_ops_det[] = {
    {.domain = "", .name = "Det", .since = 11, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .infer = det_infer, .forward = det_forward,
     .vjp = mest_vjp_from_x, .limits = "matrices above 16 x 16"},
    {.domain = "mest", .name = "mest.DetGrad", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .infer = mest_infer_same,
     .forward = grad_forward},
    {.name = NULL},
};
