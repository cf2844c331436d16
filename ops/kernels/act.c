/* SPDX-License-Identifier: Apache-2.0 */
/* Activations that are a part of a layer (mest_act), as vector code:
 *
 *   mest_act_<isa>               rows, for kernels that are not compiled for each instruction set (ops/act.h)
 *   bn_act_grad                  mest.BatchNormActGrad, plain and PIXEL: Z is made again piece by piece
 *   *_act_plain                  layers whose plain form is the reference: it runs without the activation, which then goes over the result
 *                                where it lies, image by image and channel by channel */
#include "ops/kernels/act_math.h"
#include "ops/kernels/pixel.h"

enum { PART = 512 };

void PX_CAT(mest_act, , MEST_ISA)(const mest_act *act, const mest_real *x, mest_real *y, int64_t n);
void PX_CAT(mest_act, , MEST_ISA)(const mest_act *act, const mest_real *x, mest_real *y, int64_t n) { act_row(act, x, y, n); }

/* ---- gradient ---- */

typedef struct job {
    const mest_act *act;
    const mest_real *x, *map, *dy;
    mest_real *y;
    int64_t c, inner;           /* plain */
    mest_pixels gx, gdy, gy;    /* PIXEL */
    int64_t period;
    const mest_real *m, *a, *b; /* the map, an element for each of a period */
} job;

static inline void piece(const job *j, const mest_real *restrict x, const mest_real *dy, mest_real *out, int64_t n, const mest_real *restrict m,
                         const mest_real *restrict a, const mest_real *restrict b)
{
    mest_real z[PART];
    for (int64_t i = 0; i < n; i++)
        z[i] = (x[i] - m[i]) * a[i] + b[i];
    act_slope_row(j->act, z, dy, out, n);
}

static void plain_tile(void *context, size_t tile)
{
    const job *j = context;
    const int64_t c = (int64_t)tile % j->c, at = (int64_t)tile * j->inner;
    const mest_real m = j->map[c], a = j->map[j->c + c], b = j->map[2 * j->c + c];
    mest_real z[PART];
    for (int64_t i = 0; i < j->inner; i += PART) {
        const int64_t n = px_min(PART, j->inner - i);
        for (int64_t k = 0; k < n; k++)
            z[k] = (j->x[at + i + k] - m) * a + b;
        act_slope_row(j->act, z, j->dy + at + i, j->y + at + i, n);
    }
}

static void pixel_tile(void *context, size_t tile)
{
    const job *j = context;
    const int64_t row = (int64_t)tile, length = px_row_length(&j->gy), lanes = px_lanes(&j->gy, row / j->gy.h);
    const mest_real *x = px_row(&j->gx, j->x, row), *dy = px_row(&j->gdy, j->dy, row);
    mest_real *out = px_row(&j->gy, j->y, row);
    for (int64_t o = 0; o < length; o += j->period)
        for (int64_t i = 0; i < px_min(j->period, length - o); i += PART)
            piece(j, x + o + i, dy + o + i, out + o + i, px_min(PART, px_min(j->period, length - o) - i), j->m + i, j->a + i, j->b + i);
    if (lanes < j->gy.v)
        px_zero_lanes(&j->gy, out, lanes);
}

static int64_t period_of(const mest_pixels *g) { return g->pixel * px_max(1, px_min(g->w, 192 / g->pixel)); }

/* One value a channel to one an element of the period; spare slots get 0. */
static void spread(const mest_pixels *g, int64_t period, const mest_real *values, mest_real *out)
{
    for (int64_t o = 0; o < period; o += g->pixel)
        for (int64_t c = 0; c < g->slots; c++)
            for (int64_t l = 0; l < g->v; l++)
                out[o + c * g->v + l] = c < g->c ? values[c] : 0;
}

static mest_status grad_run(const mest_args *a)
{
    const mest_bn_params *params = a->params;
    job j = {.act = &params->act, .x = a->in[0].data, .map = a->in[1].data, .dy = a->in[2].data, .y = a->out[0].data};
    const mest_type *t = a->out[0].type;
    if (t->layout.kind == MEST_PLAIN) {
        j.c = t->shape.dim[1];
        j.inner = mest_shape_span(&t->shape, 2, t->shape.rank);
        mest_parallel(a->threads, (size_t)(t->shape.dim[0] * j.c), plain_tile, &j);
        return MEST_OK;
    }
    j.gx = mest_pixel_geometry(a->in[0].type);
    j.gdy = mest_pixel_geometry(a->in[2].type);
    j.gy = mest_pixel_geometry(t);
    j.period = period_of(&j.gy);
    mest_real *m = a->scratch, *gain = m + j.period, *shift = gain + j.period;
    spread(&j.gy, j.period, j.map, m);
    spread(&j.gy, j.period, j.map + j.gy.c, gain);
    spread(&j.gy, j.period, j.map + 2 * j.gy.c, shift);
    j.m = m;
    j.a = gain;
    j.b = shift;
    mest_parallel(a->threads, (size_t)(j.gy.blocks * j.gy.h), pixel_tile, &j);
    return MEST_OK;
}

static bool grad_fits(const mest_kernel_query *q, const char **why)
{
    *why = "makes again what the activation read";
    if (!q->out[0])
        return false;
    return (px_plain(q->in[0]) && px_plain(q->in[2]) && px_plain(q->out[0])) || (px_same_rows(q->in[0], q->in[2]) && px_same_rows(q->in[0], q->out[0]));
}

static mest_status grad_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)
{
    (void)err;
    *state = NULL;
    *scratch_bytes = 0;
    if (px_pixel(q->out[0])) {
        const mest_pixels g = mest_pixel_geometry(q->out[0]);
        *scratch_bytes = 3 * (size_t)period_of(&g) * sizeof(mest_real);
    }
    return MEST_OK;
}

/* ---- plain layers ---- */

extern const mest_op mest_ops_conv_affine[], mest_ops_batchnorm[];

typedef struct ending {
    const mest_act *act;
    mest_real *y;
    int64_t span;
} ending;

static void ending_tile(void *context, size_t tile)
{
    const ending *e = context;
    act_row(e->act, e->y + (int64_t)tile * e->span, e->y + (int64_t)tile * e->span, e->span);
}

/* The operator of the table with `params`, which are the node's without the activation. */
static mest_status ended(const mest_args *a, const mest_op *table, const void *params, const mest_act *act)
{
    mest_args plain = *a;
    plain.params = params;
    while (strcmp(table->name, a->node->op->name) != 0)
        table++;
    MEST_TRY(table->forward(&plain));
    if (!a->out[0].data)
        return MEST_OK;
    const mest_shape *y = &a->out[0].type->shape;
    ending e = {.act = act, .y = a->out[0].data, .span = mest_shape_span(y, 2, y->rank)};
    int64_t tiles = y->dim[0] * y->dim[1];
    if (e.span < PART) { /* whole images */
        e.span *= y->dim[1];
        tiles = y->dim[0];
    }
    mest_parallel(a->threads, (size_t)tiles, ending_tile, &e);
    return MEST_OK;
}

static mest_status conv_run(const mest_args *a)
{
    mest_conv_affine_params p = *(const mest_conv_affine_params *)a->params;
    const mest_act act = p.act;
    p.act.kind = MEST_ACT_NONE;
    return ended(a, mest_ops_conv_affine, &p, &act);
}

/* Also of BatchNormAgain: its operator is that of the node that is made again, its place in the table of its own. */
static mest_status norm_as(const mest_args *a, const char *name)
{
    mest_bn_params p = *(const mest_bn_params *)a->params;
    mest_node node = *a->node;
    mest_args own = *a;
    const mest_act act = p.act;
    const mest_op *op = mest_ops_batchnorm;
    while (strcmp(op->name, name) != 0)
        op++;
    node.op = op;
    own.node = &node;
    p.act.kind = MEST_ACT_NONE;
    return ended(&own, mest_ops_batchnorm, &p, &act);
}
static mest_status train_run(const mest_args *a) { return norm_as(a, "mest.BatchNormTrain"); }
static mest_status again_run(const mest_args *a) { return norm_as(a, "mest.BatchNormAgain"); }
static mest_status frozen_run(const mest_args *a) { return norm_as(a, "BatchNormalization"); }

static bool all_plain(const mest_kernel_query *q)
{
    for (int i = 0; i < q->n_in; i++)
        if (q->in[i] && q->in[i]->layout.kind != MEST_PLAIN)
            return false;
    return !q->out[0] || px_plain(q->out[0]);
}

static bool conv_fits(const mest_kernel_query *q, const char **why)
{
    *why = "portable reference, vector code for the activation";
    return ((const mest_conv_affine_params *)q->params)->act.kind && all_plain(q);
}

static bool norm_fits(const mest_kernel_query *q, const char **why)
{
    *why = "portable reference, vector code for the activation";
    return ((const mest_bn_params *)q->params)->act.kind && all_plain(q);
}

/* What the portable reference is taken to cost, and less for the activation. */
static double plain_cost(const mest_kernel_query *q)
{
    const double macs = q->node->op->macs ? (double)q->node->op->macs(q->node, q->in, q->out) : 0;
    return 0.9 * (macs / 2e9 + px_cost_once(q));
}

const mest_kernel PX_TABLE(act)[] = {
    {.name = PX_NAME("bn_act_grad"), .op = "mest.BatchNormActGrad", .cpu = PX_CPU, .inplace = 1 << 0 | 1 << 2, .fits = grad_fits, .prepare = grad_prepare,
     .run = grad_run},
    {.name = PX_NAME("bn_train_act_plain"), .op = "mest.BatchNormTrain", .cpu = PX_CPU, .inplace = 1, .fits = norm_fits, .cost = plain_cost, .run = train_run,
     .again = PX_NAME("bn_again_act_plain")},
    {.name = PX_NAME("bn_again_act_plain"), .op = "mest.BatchNormAgain", .cpu = PX_CPU, .inplace = 1, .fits = norm_fits, .cost = plain_cost, .run = again_run},
    {.name = PX_NAME("bn_act_plain"), .op = "BatchNormalization", .cpu = PX_CPU, .inplace = 1, .fits = norm_fits, .cost = plain_cost, .run = frozen_run},
    {.name = PX_NAME("conv_affine_act_plain"), .op = "mest.ConvAffine", .cpu = PX_CPU, .fits = conv_fits, .cost = plain_cost, .run = conv_run},
    {.name = PX_NAME("conv_transpose_affine_act_plain"), .op = "mest.ConvTransposeAffine", .cpu = PX_CPU, .fits = conv_fits, .cost = plain_cost, .run = conv_run},
    {0},
};
