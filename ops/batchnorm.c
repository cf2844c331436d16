/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation over channels (axis 1) of X[N,C,...].
 *   BatchNormalization        Y = scale * (X - mean) / sqrt(var + epsilon) + B, running statistics. ONNX since 1 (9 drops `spatial`, 14 adds
 *                             training_mode; the training form is made by lowering, outputs past the first are never computed)
 *   mest.BatchNormFrozenGrad  its gradient: the statistics are constants
 *   mest.BatchNormTrain       batch statistics, biased variance for Y; updates the running ones (inputs 3, 4) by PyTorch's rule (unbiased
 *                             variance) or ONNX's, running = momentum * running + (1 - momentum) * batch
 *                             With moments[2,C] (float64: mean, sum of squared deviations) X is not summed: who made X has done it
 *   mest.BatchNormAgain       Y once more, from X and the map Y = (X - map[0]) map[1] + map[2] that the training form noted (its
 *                             output 3); plus S where given, before it is cut off
 *   mest.BatchNormGrad        its gradient, through the batch statistics. With sums[2,C] (float64: sum of dY, of dY (X - mean)) dY is not
 *                             summed, and is behind the activation already. Output 3: dX as a map, dX = (dY map[1] + map[3]) + (X - map[0]) map[2],
 *                             for who reads dX through it; output 4: dY behind the activation
 * Statistics are summed in double, mean first, then squared distances from it.
 *
 * With params->clamp (pass bn_act) Y is cut off as it is written, by the rules of Relu and Clip, and the gradients take that Y as their last
 * input and read dY as 0 where Y is not inside. The bits are those of the two nodes one after the other.
 *
 * With params->act Y is what that activation makes of it, and what the activation read, Z, is never stored: its gradient makes it again.
 *   mest.BatchNormActGrad     dZ = act'(Z) dY, Z = (X - map[0]) map[1] + map[2]; the gradients above then take dZ as their dY, and have
 *                             no activation in their params
 *   mest.BatchNormMap         that map of the form with running statistics: mean, scale / sqrt(var + epsilon), B */
#include "ops/act.h"
#include "ops/dense.h"
#include "ops/elements.h"
#include "ops/nn.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

static const mest_attr bn_attrs[] = {
    { .name = "epsilon", .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_bn_params, epsilon), .number = 1e-5 },
    { .name = "momentum", .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_bn_params, momentum), .number = 0.9 },
    { .name = "training_mode", .kind = MEST_ATTR_INT, .offset = offsetof(mest_bn_params, training_mode) },
    { .name = "spatial", .kind = MEST_ATTR_INT, .offset = offsetof(mest_bn_params, spatial), .number = 1 },
    { .name = NULL },
};

typedef struct norm {
    int64_t n, c, inner;
    mest_clamp clamp;
    double epsilon;
    const mest_bn_params *params;
    const mest_run *run;
    const mest_real *x, *scale, *bias, *mean, *var, *dy;
    const mest_real *gate; /* gradients with a clamp: Y; otherwise NULL */
    const mest_real *addend; /* of a second run; NULL: none */
    const double *given;   /* moments or sums; NULL: to be taken */
    mest_real *gated;      /* gradient: dY behind the activation, where wanted */
    mest_real *y, *save_mean, *save_invstd, *map, *run_mean, *run_var, *dscale, *dbias;
} norm;

static norm norm_of(const mest_args *a)
{
    const mest_bn_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    return (norm){ .n = x->dim[0], .c = x->dim[1], .inner = mest_shape_span(x, 2, x->rank), .epsilon = p->epsilon, .params = p, .run = a->run,
                   .clamp = p->clamp, .x = a->in[0].data };
}

/* X[N,C,...] and inputs first..last of shape [C]. */
static mest_status check(mest_infer *c, int first, int last)
{
    const mest_bn_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape;
    MEST_INFER_CHECK(c, x->rank >= 2, "X must be [N, C, ...], not of rank %d", (int)x->rank);
    MEST_INFER_CHECK(c, p->spatial, "spatial = 0 is not supported");
    for (int i = first; i <= last; i++)
        MEST_INFER_CHECK(c, c->in[i]->shape.rank == 1 && c->in[i]->shape.dim[0] == x->dim[1], "input %d must have one entry per channel (%" PRId64 ")", i,
                         x->dim[1]);
    return MEST_OK;
}

static void like_x(mest_infer *c)
{
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = c->in[0]->shape;
    for (int i = 1; i < c->n_out; i++) {
        c->out[i].dtype = c->in[0]->dtype;
        c->out[i].shape = (mest_shape){ .rank = 1, .dim = { c->in[0]->shape.dim[1] } };
    }
    if (c->n_out > 3)
        c->out[3].shape = (mest_shape){ .rank = 2, .dim = { 3, c->in[0]->shape.dim[1] } };
}

static mest_status bn_infer(mest_infer *c)
{
    MEST_TRY(check(c, 1, 4));
    like_x(c);
    return MEST_OK;
}

/* y = (x - from) * factor + shift (+ addend) over one channel, cut off where wanted */
static void affine(const norm *b, int64_t c, mest_real from, double factor, double shift)
{
    mest_real f = (mest_real)factor, s = (mest_real)shift;
    for (int64_t n = 0; n < b->n; n++) {
        const int64_t at = (n * b->c + c) * b->inner;
        const mest_real *x = b->x + at;
        mest_real *y = b->y + at;
        if (b->addend)
            for (int64_t i = 0; i < b->inner; i++) /* y may be the addend: each element is read before it is written */
                y[i] = (x[i] - from) * f + s + b->addend[at + i];
        else
            for (int64_t i = 0; i < b->inner; i++)
                y[i] = (x[i] - from) * f + s; /* from is 0 but where a kernel noted another: x - 0 is x to the bit */
        for (int64_t i = 0; b->clamp.on && i < b->inner; i++) { /* in cache still */
            mest_real t = y[i] < b->clamp.lo ? b->clamp.lo : y[i];
            y[i] = t > b->clamp.hi ? b->clamp.hi : t;
        }
        if (b->params->act.kind)
            mest_act_reference(&b->params->act, y, y, b->inner);
    }
}

static void bn_tile(void *context, size_t tile)
{
    const norm *b = context;
    double factor = (double)b->scale[tile] / sqrt((double)b->var[tile] + b->epsilon);
    affine(b, (int64_t)tile, 0, factor, (double)b->bias[tile] - (double)b->mean[tile] * factor);
}

static mest_status bn_forward(const mest_args *a)
{
    norm b = norm_of(a);
    for (int i = 1; i < a->n_out; i++)
        if (a->out[i].data)
            return mest_run_fail(a, MEST_E_UNSUPPORTED, "output %d exists in training only", i);
    b.scale = a->in[1].data;
    b.bias = a->in[2].data;
    b.mean = a->in[3].data;
    b.var = a->in[4].data;
    b.y = a->out[0].data;
    mest_parallel(a->threads, (size_t)b.c, bn_tile, &b);
    return MEST_OK;
}

/* map: of Z, for the activation's gradient; not looked at without one. */
static mest_status emit_grad(mest_vjp *v, const char *op, mest_id mean, mest_id spread, mest_id map)
{
    const mest_bn_params *p = mest_vjp_node(v)->params;
    mest_bn_params *own = NULL;
    mest_id dz = mest_dout(v, 0);
    if (p->act.kind) {
        own = mest_vjp_alloc(v, sizeof *own);
        if (!own)
            return mest_vjp_nomem(v);
        *own = *p;
        own->act = (mest_act){ .kind = MEST_ACT_NONE };
        MEST_TRY(mest_emit(v, "mest.BatchNormActGrad", NULL, 3, (mest_id[]){ mest_in(v, 0), map, dz }, 1, NULL, &dz));
    }
    const mest_id in[6] = { mest_in(v, 0), mest_in(v, 1), mean, spread, dz, p->clamp.on ? mest_out(v, 0) : MEST_NONE };
    return mest_give_grads(v, op, own, p->clamp.on ? 6 : 5, in, 3);
}

static mest_status bn_vjp(mest_vjp *v)
{
    mest_id map = MEST_NONE;
    if (mest_dout(v, 0) != MEST_NONE && ((const mest_bn_params *)mest_vjp_node(v)->params)->act.kind)
        MEST_TRY(mest_emit(v, "mest.BatchNormMap", NULL, 4, (mest_id[]){ mest_in(v, 1), mest_in(v, 2), mest_in(v, 3), mest_in(v, 4) }, 1, NULL, &map));
    return emit_grad(v, "mest.BatchNormFrozenGrad", mest_in(v, 3), mest_in(v, 4), map);
}

static mest_status map_infer(mest_infer *c)
{
    for (int i = 0; i < c->n_in; i++)
        MEST_INFER_CHECK(c, c->in[i]->shape.rank == 1 && mest_shape_equal(&c->in[i]->shape, &c->in[0]->shape), "input %d must have one entry per channel", i);
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = (mest_shape){ .rank = 2, .dim = { 3, c->in[0]->shape.dim[0] } };
    return MEST_OK;
}

static mest_status map_forward(const mest_args *a)
{
    const mest_bn_params *p = a->params;
    const mest_real *scale = a->in[0].data, *bias = a->in[1].data, *mean = a->in[2].data, *var = a->in[3].data;
    const int64_t channels = (int64_t)a->in[0].count;
    mest_real *map = a->out[0].data;
    for (int64_t c = 0; c < channels; c++) {
        map[c] = mean[c];
        map[channels + c] = (mest_real)((double)scale[c] / sqrt((double)var[c] + p->epsilon));
        map[2 * channels + c] = bias[c];
    }
    return MEST_OK;
}

static mest_status act_grad_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape, *map = &c->in[1]->shape;
    MEST_INFER_CHECK(c, ((const mest_bn_params *)c->params)->act.kind, "there is no activation");
    MEST_INFER_CHECK(c, x->rank >= 2 && map->rank == 2 && map->dim[0] == 3 && map->dim[1] == x->dim[1], "the map must be [3, C]");
    MEST_INFER_CHECK(c, mest_shape_equal(&c->in[2]->shape, x), "dY must have the shape of X");
    like_x(c);
    return MEST_OK;
}

static void act_grad_tile(void *context, size_t tile)
{
    const norm *b = context;
    enum { PART = 256 };
    const int64_t c = (int64_t)tile;
    const mest_real from = b->map[c], f = b->map[b->c + c], s = b->map[2 * b->c + c];
    mest_real z[PART];
    for (int64_t n = 0; n < b->n; n++)
        for (int64_t i = 0; i < b->inner; i += PART) {
            const int64_t at = (n * b->c + c) * b->inner + i, count = b->inner - i < PART ? b->inner - i : PART;
            for (int64_t k = 0; k < count; k++)
                z[k] = (b->x[at + k] - from) * f + s;
            mest_act_slope_reference(&b->params->act, z, b->dy + at, b->y + at, count);
        }
}

static mest_status act_grad_forward(const mest_args *a)
{
    norm b = norm_of(a);
    b.map = a->in[1].data;
    b.dy = a->in[2].data;
    b.y = a->out[0].data;
    mest_parallel(a->threads, (size_t)b.c, act_grad_tile, &b);
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c)
{
    const mest_bn_params *p = c->params;
    bool gated = c->n_in > 5 && c->in[5], given = c->n_in > 6 && c->in[6];
    MEST_TRY(check(c, 1, 3));
    MEST_INFER_CHECK(c, gated == (p->clamp.on && !given), "Y must be given with a clamp and without sums, and only then");
    MEST_INFER_CHECK(c, !given || c->n_out < 5, "dY is behind the activation already");
    MEST_INFER_CHECK(c, !gated || mest_shape_equal(&c->in[5]->shape, &c->in[0]->shape), "Y must have the shape of X");
    like_x(c);
    if (c->n_out > 3)
        c->out[3].shape = (mest_shape){ .rank = 2, .dim = { 4, c->in[0]->shape.dim[1] } };
    if (c->n_out > 4)
        c->out[4].shape = c->in[0]->shape;
    return MEST_OK;
}

/* dY behind the activation, a piece at a time: what a node of its own would have written. */
enum { PIECE = 256 };
static const mest_real *gated(const mest_real *dy, const mest_real *y, mest_clamp clamp, int64_t n, mest_real to[PIECE])
{
    for (int64_t i = 0; i < n; i++) {
        const mest_real g = dy[i];
        to[i] = ((y[i] > clamp.lo) & (y[i] < clamp.hi)) ? g : 0;
    }
    return to;
}

/* The two sums below over one row of dY behind the activation, in the order of mest_dense_sum and mest_dense_cross. */
static void gated_sums(const mest_real *x, const mest_real *dy, const mest_real *y, mest_clamp clamp, int64_t n, double mean, double *sum, double *cross)
{
    double s[8] = { 0 }, t[8] = { 0 };
    mest_real piece[PIECE];
    for (int64_t from = 0; from < n; from += PIECE) {
        int64_t count = n - from < PIECE ? n - from : PIECE;
        const mest_real *g = gated(dy + from, y + from, clamp, count, piece);
        for (int64_t i = 0; i < count; i++) { /* PIECE is a multiple of 8: element k of the row is in running sum k mod 8 */
            s[i & 7] += (double)g[i];
            t[i & 7] += ((double)x[from + i] - mean) * (double)g[i];
        }
    }
    *sum += mest_dense_fold(s);
    *cross += mest_dense_fold(t);
}

/* Sums of dY and of dY * (X - mean) over a channel. */
static void channel_sums(const norm *b, int64_t c, double mean, double *sum, double *cross)
{
    *sum = *cross = 0;
    for (int64_t n = 0; n < b->n; n++) {
        int64_t at = (n * b->c + c) * b->inner;
        if (b->gate) {
            gated_sums(b->x + at, b->dy + at, b->gate + at, b->clamp, b->inner, mean, sum, cross);
            continue;
        }
        *sum += mest_dense_sum(b->dy + at, b->inner);
        *cross += mest_dense_cross(b->x + at, b->dy + at, b->inner, mean);
    }
}

static void frozen_tile(void *context, size_t tile)
{
    const norm *b = context;
    int64_t c = (int64_t)tile;
    double invstd = 1 / sqrt((double)b->var[c] + b->epsilon);
    if (b->dscale || b->dbias) {
        double sum, cross;
        channel_sums(b, c, (double)b->mean[c], &sum, &cross);
        if (b->dscale)
            b->dscale[c] = (mest_real)(cross * invstd);
        if (b->dbias)
            b->dbias[c] = (mest_real)sum;
    }
    if (b->y) {
        mest_real f = (mest_real)((double)b->scale[c] * invstd), piece[PIECE];
        for (int64_t n = 0; n < b->n; n++)
            for (int64_t from = 0; from < b->inner; from += PIECE) {
                int64_t at = (n * b->c + c) * b->inner + from, span = b->inner - from < PIECE ? b->inner - from : PIECE;
                const mest_real *dy = b->gate ? gated(b->dy + at, b->gate + at, b->clamp, span, piece) : b->dy + at;
                mest_real *dx = b->y + at;
                for (int64_t i = 0; i < span; i++)
                    dx[i] = dy[i] * f;
            }
    }
}

static mest_status frozen_forward(const mest_args *a)
{
    norm b = norm_of(a);
    b.scale = a->in[1].data;
    b.mean = a->in[2].data;
    b.var = a->in[3].data;
    b.dy = a->in[4].data;
    b.gate = b.clamp.on ? a->in[5].data : NULL;
    b.y = a->out[0].data;
    b.dscale = a->n_out > 1 ? a->out[1].data : NULL;
    b.dbias = a->n_out > 2 ? a->out[2].data : NULL;
    mest_parallel(a->threads, (size_t)b.c, frozen_tile, &b);
    return MEST_OK;
}

static void train_tile(void *context, size_t tile)
{
    const norm *b = context;
    int64_t c = (int64_t)tile, count = b->n * b->inner;
    double sum = 0, spread = b->given ? b->given[b->c + c] : 0;
    for (int64_t n = 0; n < b->n && !b->given; n++)
        sum += mest_dense_sum(b->x + (n * b->c + c) * b->inner, b->inner);
    double mean = b->given ? b->given[c] : sum / (double)count;
    for (int64_t n = 0; n < b->n && !b->given; n++)
        spread += mest_dense_spread(b->x + (n * b->c + c) * b->inner, b->inner, mean);
    double var = spread / (double)count, invstd = 1 / sqrt(var + b->epsilon);
    double factor = (double)b->scale[c] * invstd;
    if (b->save_mean)
        b->save_mean[c] = (mest_real)mean;
    if (b->save_invstd)
        b->save_invstd[c] = (mest_real)invstd;
    if (b->run_mean)
        mest_bn_track(b->params, b->run, mean, spread, (double)count, &b->run_mean[c], &b->run_var[c]);
    double shift = (double)b->bias[c] - mean * factor;
    if (b->map) {
        b->map[c] = 0;
        b->map[b->c + c] = (mest_real)factor;
        b->map[2 * b->c + c] = (mest_real)shift;
    }
    if (b->y)
        affine(b, c, 0, factor, shift);
}

static mest_status train_forward(const mest_args *a)
{
    norm b = norm_of(a);
    if (b.n * b.inner == 0)
        return mest_run_fail(a, MEST_E_DATA, "an empty batch has no statistics");
    b.scale = a->in[1].data;
    b.bias = a->in[2].data;
    b.run_mean = a->in[3].data;
    b.run_var = a->in[4].data;
    b.y = a->out[0].data;
    b.save_mean = a->n_out > 1 ? a->out[1].data : NULL;
    b.save_invstd = a->n_out > 2 ? a->out[2].data : NULL;
    b.map = a->n_out > 3 ? a->out[3].data : NULL;
    b.given = a->n_in > 5 ? a->in[5].data : NULL;
    mest_parallel(a->threads, (size_t)b.c, train_tile, &b);
    return MEST_OK;
}

static mest_status again_infer(mest_infer *c)
{
    const mest_shape *x = &c->in[0]->shape, *map = &c->in[1]->shape;
    MEST_INFER_CHECK(c, x->rank >= 2 && map->rank == 2 && map->dim[0] == 3 && map->dim[1] == x->dim[1], "the map must be [3, C]");
    MEST_INFER_CHECK(c, c->n_in < 3 || !c->in[2] || mest_shape_equal(&c->in[2]->shape, x), "the addend must have the shape of X");
    like_x(c);
    return MEST_OK;
}

static void again_tile(void *context, size_t tile)
{
    const norm *b = context;
    affine(b, (int64_t)tile, b->map[tile], (double)b->map[b->c + (int64_t)tile], (double)b->map[2 * b->c + (int64_t)tile]);
}

static mest_status again_forward(const mest_args *a)
{
    norm b = norm_of(a);
    b.map = a->in[1].data;
    b.addend = a->n_in > 2 ? a->in[2].data : NULL;
    b.y = a->out[0].data;
    mest_parallel(a->threads, (size_t)b.c, again_tile, &b);
    return MEST_OK;
}

static mest_status train_vjp(mest_vjp *v)
{
    const bool act = ((const mest_bn_params *)mest_vjp_node(v)->params)->act.kind != MEST_ACT_NONE;
    return mest_dout(v, 0) == MEST_NONE ? MEST_OK : emit_grad(v, "mest.BatchNormGrad", mest_out(v, 1), mest_out(v, 2), act ? mest_out(v, 3) : MEST_NONE);
}

static void grad_tile(void *context, size_t tile)
{
    const norm *b = context;
    int64_t c = (int64_t)tile;
    double mean = (double)b->save_mean[c], invstd = (double)b->save_invstd[c], count = (double)(b->n * b->inner), sum, cross;
    if (b->given) {
        sum = b->given[c];
        cross = b->given[b->c + c];
    } else {
        channel_sums(b, c, mean, &sum, &cross);
    }
    if (b->dscale)
        b->dscale[c] = (mest_real)(cross * invstd);
    if (b->dbias)
        b->dbias[c] = (mest_real)sum;
    /* dx = scale * invstd * (dy - mean(dy) - xhat * mean(dy * xhat)) = dy * f + (x - mean) * g + h */
    double factor = (double)b->scale[c] * invstd;
    mest_real f = (mest_real)factor, g = (mest_real)(-factor * invstd * invstd * cross / count), h = (mest_real)(-factor * sum / count);
    mest_real m = (mest_real)mean, piece[PIECE];
    if (b->map) {
        b->map[c] = m;
        b->map[b->c + c] = f;
        b->map[2 * b->c + c] = g;
        b->map[3 * b->c + c] = h;
    }
    for (int64_t n = 0; n < b->n && b->gated; n++)
        for (int64_t from = 0; from < b->inner; from += PIECE) {
            int64_t at = (n * b->c + c) * b->inner + from, span = b->inner - from < PIECE ? b->inner - from : PIECE;
            const mest_real *dy = b->gate ? gated(b->dy + at, b->gate + at, b->clamp, span, piece) : b->dy + at;
            for (int64_t i = 0; i < span; i++)
                b->gated[at + i] = dy[i];
        }
    for (int64_t n = 0; n < b->n && b->y; n++)
        for (int64_t from = 0; from < b->inner; from += PIECE) {
            int64_t at = (n * b->c + c) * b->inner + from, span = b->inner - from < PIECE ? b->inner - from : PIECE;
            const mest_real *x = b->x + at, *dy = b->gate ? gated(b->dy + at, b->gate + at, b->clamp, span, piece) : b->dy + at;
            mest_real *dx = b->y + at;
            for (int64_t i = 0; i < span; i++)
                dx[i] = dy[i] * f + ((x[i] - m) * g + h);
        }
}

static mest_status grad_forward(const mest_args *a)
{
    norm b = norm_of(a);
    b.scale = a->in[1].data;
    b.save_mean = a->in[2].data;
    b.save_invstd = a->in[3].data;
    b.dy = a->in[4].data;
    b.gate = b.clamp.on ? a->in[5].data : NULL;
    b.given = a->n_in > 6 ? a->in[6].data : NULL;
    b.y = a->out[0].data;
    b.dscale = a->n_out > 1 ? a->out[1].data : NULL;
    b.dbias = a->n_out > 2 ? a->out[2].data : NULL;
    b.map = a->n_out > 3 ? a->out[3].data : NULL;
    b.gated = a->n_out > 4 ? a->out[4].data : NULL;
    mest_parallel(a->threads, (size_t)b.c, grad_tile, &b);
    return MEST_OK;
}

const mest_op mest_ops_batchnorm[] = {
    { .domain = "mest", .name = "mest.BatchNormAgain", .since = 1, .in_min = 2, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_INPLACE,
      .act_in = 1u << 0 | 1u << 2, .act_out = 1u << 0, .params_bytes = sizeof(mest_bn_params), .infer = again_infer, .forward = again_forward, .no_grad = true },
    { .domain = "", .name = "BatchNormalization", .limits = "spatial = 0; its statistics as outputs", .since = 1, .in_min = 5, .in_max = 5, .out_min = 1, .out_max = 5, .flags = MEST_OP_INPLACE,
      .act_in = 1u << 0, .act_out = 1u << 0, .attrs = bn_attrs, .params_bytes = sizeof(mest_bn_params), .infer = bn_infer,
      .forward = bn_forward, .vjp = bn_vjp },
    { .domain = "mest", .name = "mest.BatchNormFrozenGrad", .since = 1, .in_min = 5, .in_max = 6, .out_min = 1, .out_max = 3,
      .act_in = 1u << 0 | 1u << 4 | 1u << 5, .act_out = 1u << 0, .params_bytes = sizeof(mest_bn_params), .infer = grad_infer, .forward = frozen_forward },
    { .domain = "mest", .name = "mest.BatchNormTrain", .since = 1, .in_min = 5, .in_max = 6, .out_min = 1, .out_max = 4,
      .state_in = 1u << 3 | 1u << 4, .again = "mest.BatchNormAgain", .again_in = 1u << 0, .again_out = 1u << 3, .flags = MEST_OP_SIDE_EFFECT, .act_in = 1u << 0,
      .act_out = 1u << 0, .attrs = bn_attrs, .params_bytes = sizeof(mest_bn_params), .infer = bn_infer, .forward = train_forward, .vjp = train_vjp },
    { .domain = "mest", .name = "mest.BatchNormMap", .since = 1, .in_min = 4, .in_max = 4, .out_min = 1, .out_max = 1, .params_bytes = sizeof(mest_bn_params),
      .infer = map_infer, .forward = map_forward },
    { .domain = "mest", .name = "mest.BatchNormActGrad", .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_INPLACE,
      .act_in = 1u << 0 | 1u << 2, .act_out = 1u << 0, .params_bytes = sizeof(mest_bn_params), .infer = act_grad_infer, .forward = act_grad_forward },
    { .domain = "mest", .name = "mest.BatchNormGrad", .since = 1, .in_min = 5, .in_max = 7, .out_min = 1, .out_max = 5,
      .act_in = 1u << 0 | 1u << 4 | 1u << 5, .act_out = 1u << 0 | 1u << 4, .params_bytes = sizeof(mest_bn_params), .infer = grad_infer, .forward = grad_forward },
    { .name = NULL },
};
