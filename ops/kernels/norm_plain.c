/* SPDX-License-Identifier: Apache-2.0 */
/* LayerNormalization, RMSNormalization and their gradients on plain rows as vector code. A row is read from cache after its first pass. Sums over
 * a row run in vectors, their lanes meet in double; sums over rows (dscale, dB) in float over the rows of a tile, over tiles in double. Tiles
 * depend on the shape only. Formulas: ops/layernorm.c, ops/rmsnorm.c. */
#include <math.h>

#include "ops/elements.h"
#include "ops/kernels/pixel.h"
#include "ops/kernels/vector.h"

enum { TILE_ROWS = 64, MOST_TILES = 512 };

typedef struct job {
    int64_t n, size, rows, tiles; /* rows of a tile */
    double epsilon;
    bool centred;                 /* LayerNormalization */
    const mest_real *x, *scale, *bias, *dy;
    mest_real *y, *dscale, *dbias;
    mest_real *parts;             /* [tiles][2][size] */
} job;

static double lanes(vec v)
{
    double sum = 0;
    for (int i = 0; i < VL; i++)
        sum += (double)v[i];
    return sum;
}

/* Two sums over a row at once: of FIRST and SECOND, expressions of x (and of the other arrays by `i`), as vectors and, at the end, as numbers. */
#define TWO_SUMS(size, first, second, sum1, sum2)            \
    do {                                                     \
        vec a_ = {0}, b_ = {0}, c_ = {0}, d_ = {0};          \
        int64_t i = 0;                                       \
        for (; i + 2 * VL <= (size); i += VL) {              \
            a_ += first(VEC_LOAD, VEC_SPLAT);                \
            b_ += second(VEC_LOAD, VEC_SPLAT);               \
            i += VL;                                         \
            c_ += first(VEC_LOAD, VEC_SPLAT);                \
            d_ += second(VEC_LOAD, VEC_SPLAT);               \
        }                                                    \
        (sum1) = lanes(a_ + c_);                             \
        (sum2) = lanes(b_ + d_);                             \
        for (; i < (size); i++) {                            \
            (sum1) += (double)(first(*, +));                 \
            (sum2) += (double)(second(*, +));                \
        }                                                    \
    } while (0)

/* Mean (0 where it is not taken) and 1 / deviation of a row. */
static void statistics(const job *j, const mest_real *x, mest_real *mean, mest_real *inverse)
{
    double sum = 0, square = 0, none;
    *mean = 0;
#define X(load, splat) load(x + i)
#define NOTHING(load, splat) (load(x + i) - load(x + i))
    if (j->centred) {
        TWO_SUMS(j->size, X, NOTHING, sum, none);
        *mean = (mest_real)(sum / (double)j->size);
        (void)none;
    }
    const mest_real m = *mean;
#define SQUARE(load, splat) ((load(x + i) - splat(m)) * (load(x + i) - splat(m)))
#define DISTANCE(load, splat) (load(x + i) - splat(m))
    TWO_SUMS(j->size, SQUARE, DISTANCE, square, sum);
    const double n = (double)j->size, rest = j->centred ? sum / n : 0; /* the mean was rounded */
    *inverse = (mest_real)(1 / sqrt(fmax(0, square / n - rest * rest) + j->epsilon));
}

static void forward_tile(void *context, size_t tile)
{
    const job *j = context;
    for (int64_t r = (int64_t)tile * j->rows; r < px_min(j->n, (int64_t)(tile + 1) * j->rows); r++) {
        const mest_real *x = j->x + r * j->size, *scale = j->scale, *bias = j->bias;
        mest_real *y = j->y + r * j->size, mean, inverse;
        statistics(j, x, &mean, &inverse);
        MEST_IVDEP
        for (int64_t i = 0; i < j->size; i++)
            y[i] = (x[i] - mean) * inverse * scale[i] + (bias ? bias[i] : 0);
    }
}

static void backward_row(const job *j, int64_t r, mest_real *dscale, mest_real *dbias)
{
    const mest_real *x = j->x + r * j->size, *dy = j->dy + r * j->size, *scale = j->scale;
    mest_real mean, inverse;
    double sum, cross;
    statistics(j, x, &mean, &inverse);
    if (dscale) {
        MEST_IVDEP
        for (int64_t i = 0; i < j->size; i++) {
            dscale[i] += dy[i] * ((x[i] - mean) * inverse);
            dbias[i] += dy[i];
        }
    }
    if (!j->y)
        return;
#define GRADIENT(load, splat) (load(dy + i) * load(scale + i))
#define CROSS(load, splat) (load(dy + i) * load(scale + i) * (load(x + i) - splat(mean)))
    TWO_SUMS(j->size, GRADIENT, CROSS, sum, cross);
    const double n = (double)j->size, inv = (double)inverse;
    const mest_real first = j->centred ? (mest_real)(sum / n) : 0, second = (mest_real)(cross * inv * inv / n);
    mest_real *dx = j->y + r * j->size;
    MEST_IVDEP
    for (int64_t i = 0; i < j->size; i++)
        dx[i] = inverse * (dy[i] * scale[i] - first - (x[i] - mean) * second);
}

static void backward_tile(void *context, size_t tile)
{
    const job *j = context;
    mest_real *dscale = j->parts ? j->parts + (int64_t)tile * 2 * j->size : NULL, *dbias = dscale ? dscale + j->size : NULL;
    if (dscale)
        memset(dscale, 0, 2 * (size_t)j->size * sizeof *dscale);
    for (int64_t r = (int64_t)tile * j->rows; r < px_min(j->n, (int64_t)(tile + 1) * j->rows); r++)
        backward_row(j, r, dscale, dbias);
}

static void collect_tile(void *context, size_t strip)
{
    const job *j = context;
    const int64_t from = (int64_t)strip * 64, to = px_min(j->size, from + 64);
    for (int64_t i = from; i < to; i++) {
        double a = 0, b = 0;
        for (int64_t t = 0; t < j->tiles; t++) {
            a += (double)j->parts[t * 2 * j->size + i];
            b += (double)j->parts[(t * 2 + 1) * j->size + i];
        }
        if (j->dscale)
            j->dscale[i] = (mest_real)a;
        if (j->dbias)
            j->dbias[i] = (mest_real)b;
    }
}

static job job_of(const mest_norm_params *p, const mest_shape *x, bool centred)
{
    const int axis = mest_axis(p->axis, x->rank);
    job j = {.n = mest_shape_span(x, 0, axis), .size = mest_shape_span(x, axis, x->rank), .epsilon = p->epsilon, .centred = centred};
    j.rows = px_max(TILE_ROWS, px_ceil(j.n, MOST_TILES));
    j.tiles = px_ceil(j.n, j.rows);
    return j;
}

static bool centred(const mest_node *n) { return strstr(n->op->name, "Layer") != NULL; }

static mest_status forward_run(const mest_args *a)
{
    job j = job_of(a->params, &a->in[0].type->shape, centred(a->node));
    j.x = a->in[0].data;
    j.scale = a->in[1].data;
    j.bias = a->n_in > 2 ? a->in[2].data : NULL;
    j.y = a->out[0].data;
    mest_parallel(a->threads, (size_t)j.tiles, forward_tile, &j);
    return MEST_OK;
}

static mest_status backward_run(const mest_args *a)
{
    job j = job_of(a->params, &a->in[0].type->shape, centred(a->node));
    j.x = a->in[0].data;
    j.scale = a->in[1].data;
    j.dy = a->in[2].data;
    j.y = a->out[0].data;
    j.dscale = px_out_data(a, 1);
    j.dbias = px_out_data(a, 2);
    j.parts = j.dscale || j.dbias ? a->scratch : NULL;
    mest_parallel(a->threads, (size_t)j.tiles, backward_tile, &j);
    if (j.parts)
        mest_parallel(a->threads, (size_t)px_ceil(j.size, 64), collect_tile, &j);
    return MEST_OK;
}

static bool fits(const mest_kernel_query *q, const char **why)
{
    int64_t n;
    for (int i = 0; i < q->n_in; i++)
        if (q->in[i] && !px_plain(q->in[i]))
            return false;
    for (int i = 0; i < q->n_out; i++)
        if (q->out[i] && !px_plain(q->out[i]))
            return false;
    const bool gradient = !strncmp(q->node->op->name, "mest.", 5);
    for (int i = 1; !gradient && i < q->n_out; i++)
        if (q->out[i])
            return false; /* means and deviations: the reference gives them */
    const job j = job_of(q->params, &q->in[0]->shape, true);
    if (!mest_shape_count(&q->in[1]->shape, &n) || n != j.size)
        return false; /* one scale for all */
    *why = "vector code, a row at a time";
    return true;
}

static mest_status backward_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    (void)err;
    const job j = job_of(q->params, &q->in[0]->shape, true);
    *state = NULL;
    *scratch_bytes = px_out(q, 1) || px_out(q, 2) ? (size_t)(j.tiles * 2 * j.size) * sizeof(mest_real) : 0;
    return MEST_OK;
}

const mest_kernel PX_TABLE(norm_plain)[] = {
    {.name = PX_NAME("layernorm"), .op = "LayerNormalization", .cpu = PX_CPU, .fits = fits, .run = forward_run},
    {.name = PX_NAME("layernorm_grad"), .op = "mest.LayerNormalizationGrad", .cpu = PX_CPU, .fits = fits, .prepare = backward_prepare, .run = backward_run},
    {.name = PX_NAME("rmsnorm"), .op = "RMSNormalization", .cpu = PX_CPU, .fits = fits, .run = forward_run},
    {.name = PX_NAME("rmsnorm_grad"), .op = "mest.RMSNormalizationGrad", .cpu = PX_CPU, .fits = fits, .prepare = backward_prepare, .run = backward_run},
    {0},
};
