/* SPDX-License-Identifier: Apache-2.0 */
/* Plain-layout reference of Gemm and MatMul with a sparse second operand of any format, forward and gradient.
 *
 *     Y[i, o] = alpha * sum_k A'[i, k] B'[k, o] + beta * C      I rows, K inner, O outputs; ' = transposed where asked
 *
 * Stored rows of B are o with transB = 1 (PyTorch's Linear), k otherwise. Gradients: dA = alpha dY B'^T, dB[k, o] = alpha sum_i A' dY at
 * the stored entries, dC = beta * dY summed over the axes C was broadcast along.
 */
#include "ops/nn.h"
#include "sparse/kernels/walk.h"

typedef struct job {
    int64_t rows, inner, outs;      /* I, K, O */
    int64_t a_row, a_col;           /* strides of A' */
    double alpha, beta;
    bool trans_b;
    const mest_sparse *index;
    const mest_real *weight, *a, *dy, *c;
    mest_real *y, *da, *db;
    int64_t c_row, c_col;           /* strides of C, 0 where broadcast */
} job;

enum { ROWS_PER_TILE = 8 };

/* Runs the code given last for each stored entry with k, o (inner index, output) and e (position of its value). */
#define FOR_ENTRIES(j, ...)                                                               \
    MEST_FOR_ENTRIES((j)->index, 0, (j)->index->active_units, {                           \
        const int64_t o = (j)->trans_b ? row : col, k = (j)->trans_b ? col : row;         \
        __VA_ARGS__                                                                         \
    })

static void forward_rows(void *context, size_t tile)
{
    const job *j = context;
    int64_t from = (int64_t)tile * ROWS_PER_TILE, to = from + ROWS_PER_TILE < j->rows ? from + ROWS_PER_TILE : j->rows;
    for (int64_t i = from; i < to; i++)
        for (int64_t o = 0; o < j->outs; o++)
            j->y[i * j->outs + o] = j->c ? (mest_real)(j->beta * (double)j->c[i * j->c_row + o * j->c_col]) : 0;
    FOR_ENTRIES(j, {
        mest_real w = (mest_real)(j->alpha * (double)j->weight[e]);
        for (int64_t i = from; i < to; i++)
            j->y[i * j->outs + o] += w * j->a[i * j->a_row + k * j->a_col];
    });
}

static void input_gradient_rows(void *context, size_t tile)
{
    const job *j = context;
    int64_t from = (int64_t)tile * ROWS_PER_TILE, to = from + ROWS_PER_TILE < j->rows ? from + ROWS_PER_TILE : j->rows;
    for (int64_t i = from; i < to; i++)
        for (int64_t k = 0; k < j->inner; k++)
            j->da[i * j->a_row + k * j->a_col] = 0;
    FOR_ENTRIES(j, {
        mest_real w = (mest_real)(j->alpha * (double)j->weight[e]);
        for (int64_t i = from; i < to; i++)
            j->da[i * j->a_row + k * j->a_col] += w * j->dy[i * j->outs + o];
    });
}

static void weight_gradient(const job *j, int64_t stored)
{
    for (int64_t e = 0; e < stored; e++)
        j->db[e] = 0; /* padding entries stay 0 */
    FOR_ENTRIES(j, {
        double sum = 0;
        for (int64_t i = 0; i < j->rows; i++)
            sum += (double)j->a[i * j->a_row + k * j->a_col] * (double)j->dy[i * j->outs + o];
        j->db[e] = (mest_real)(j->alpha * sum);
    });
}

static void bias_gradient(const job *j, const mest_type *c, mest_real *dc)
{
    int rank = c->shape.rank;
    int64_t c_cols = rank > 0 ? c->shape.dim[rank - 1] : 1, c_rows = rank > 1 ? c->shape.dim[0] : 1;
    for (int64_t r = 0; r < c_rows; r++)
        for (int64_t o = 0; o < c_cols; o++) {
            double sum = 0;
            for (int64_t i = c_rows == 1 ? 0 : r; i < (c_rows == 1 ? j->rows : r + 1); i++)
                for (int64_t k = c_cols == 1 ? 0 : o; k < (c_cols == 1 ? j->outs : o + 1); k++)
                    sum += (double)j->dy[i * j->outs + k];
            dc[r * c_cols + o] = (mest_real)(j->beta * sum);
        }
}

/* gemm NULL: MatMul, whose A may have any rank >= 1; its leading axes are rows. */
static job setup(const mest_args *a, const mest_gemm_params *gemm)
{
    const mest_shape *as = &a->in[0].type->shape;
    const mest_sparse *b = a->in[1].sparse;
    bool trans_a = gemm && gemm->trans_a, trans_b = gemm && gemm->trans_b;
    job j = {.alpha = gemm ? gemm->alpha : 1, .beta = gemm ? gemm->beta : 1, .trans_b = trans_b, .index = b,
             .weight = a->in[1].data, .a = a->in[0].data};
    j.outs = trans_b ? b->rows : b->cols;
    j.inner = trans_b ? b->cols : b->rows;
    j.rows = trans_a ? as->dim[1] : mest_shape_span(as, 0, as->rank - 1);
    j.a_row = trans_a ? 1 : j.inner;
    j.a_col = trans_a ? j.rows : 1;
    return j;
}

static size_t row_tiles(const job *j) { return (size_t)mest_ceil_div(j->rows, ROWS_PER_TILE); }

static mest_status forward(const mest_args *a, const mest_gemm_params *gemm)
{
    job j = setup(a, gemm);
    j.y = a->out[0].data;
    if (!j.y)
        return MEST_OK;
    if (gemm && a->n_in > 2 && a->in[2].data && gemm->beta != 0.0) {
        const mest_shape *c = &a->in[2].type->shape;
        j.c = a->in[2].data;
        j.c_col = c->rank > 0 && c->dim[c->rank - 1] != 1 ? 1 : 0;
        j.c_row = c->rank > 1 && c->dim[0] != 1 ? c->dim[1] : 0;
    }
    mest_parallel(a->threads, row_tiles(&j), forward_rows, &j);
    return MEST_OK;
}

static mest_status gradient(const mest_args *a, const mest_gemm_params *gemm, int dy)
{
    job j = setup(a, gemm);
    j.dy = a->in[dy].data;
    if (a->out[0].data) {
        j.da = a->out[0].data;
        mest_parallel(a->threads, row_tiles(&j), input_gradient_rows, &j);
    }
    if (a->n_out > 1 && a->out[1].data) {
        j.db = a->out[1].data;
        weight_gradient(&j, a->in[1].sparse->stored);
    }
    if (a->n_out > 2 && a->out[2].data)
        bias_gradient(&j, a->out[2].type, a->out[2].data);
    return MEST_OK;
}

static mest_status gemm_run(const mest_args *a) { return forward(a, a->params); }
static mest_status gemm_grad_run(const mest_args *a) { return gradient(a, a->params, 3); }
static mest_status matmul_run(const mest_args *a) { return forward(a, NULL); }
static mest_status matmul_grad_run(const mest_args *a) { return gradient(a, NULL, 2); }

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
    if (q->in[1]->shape.rank != 2 || q->in[0]->shape.rank < 1) {
        *why = "sparse operand is not a matrix";
        return false;
    }
    *why = "plain reference over the stored entries";
    return true;
}

/* From the capacity, which stays: a resumed run chooses the same kernels. */
static double cost(const mest_kernel_query *q)
{
    const mest_shape *as = &q->in[0]->shape;
    double rows = (double)mest_shape_span(as, 0, as->rank - 1);
    int passes = (q->out[0] ? 1 : 0) + (q->n_out > 1 && q->out[1] ? 1 : 0);
    return 3e-9 * rows * (double)(q->sparse[1]->cap_units * q->sparse[1]->unit_elements) * (passes ? passes : 1) + 1e-6;
}

extern const mest_kernel MEST_KERNEL_TABLE(gemm_sparse_ref)[];
const mest_kernel MEST_KERNEL_TABLE(gemm_sparse_ref)[] = {
    {.name = "gemm_sparse_ref", .op = "Gemm", .fits = fits, .cost = cost, .run = gemm_run},
    {.name = "gemm_grad_sparse_ref", .op = "mest.GemmGrad", .fits = fits, .cost = cost, .run = gemm_grad_run},
    {.name = "matmul_sparse_ref", .op = "MatMul", .fits = fits, .cost = cost, .run = matmul_run},
    {.name = "matmul_grad_sparse_ref", .op = "mest.MatMulGrad", .fits = fits, .cost = cost, .run = matmul_grad_run},
    {.name = NULL},
};
