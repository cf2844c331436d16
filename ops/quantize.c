/* SPDX-License-Identifier: Apache-2.0 */
/* Quantisation to whole numbers and back (ONNX; axis since 13, blocks and 16 bits since 21):
 *
 *   QuantizeLinear(X, scale, zero?)     q = saturate(round(X / scale) + zero), round to even; int8, uint8 (also where zero is absent), int16, uint16
 *   DequantizeLinear(Q, scale, zero?)   (Q - zero) * scale
 *   DynamicQuantizeLinear(X)            Q uint8, scale, zero: the range of X and 0 on 0..255
 *   mest.FakeQuantize(X, scale, zero?)  one after the other, which the pass fake_quantize puts for the pair; lo <= round(X / scale) + zero <= hi
 *
 * scale and zero: one number, one for each index of `axis`, or one for each `block` of them. Gradient of mest.FakeQuantize: straight through
 * where nothing was cut off, 0 elsewhere, as in PyTorch's fake_quantize (Jacob et al. 2018, arXiv:1712.05877); none for scale and zero. The others have
 * none: the result of QuantizeLinear is a whole number. */
#include <inttypes.h>

#include "ops/elements.h"
#include "ops/quantize.h"

enum { X, SCALE, ZERO, DY };

/* Elements seen as [outer, k, inner]; scale number of an element: per tensor 0, per axis its k, else blocks of k for each outer and inner. */
typedef struct spots { int64_t k, inner, block, blocks; bool one; } spots;

static spots spots_of(const mest_quantize_params *p, const mest_shape *x, const mest_shape *scale)
{
    const int axis = x->rank ? mest_axis(p->axis, x->rank) : 0;
    spots s = { .one = mest_shape_span(scale, 0, scale->rank) == 1, .k = 1, .inner = 1 };
    if (s.one || axis < 0)
        return s;
    s.k = x->dim[axis];
    s.inner = mest_shape_span(x, axis + 1, x->rank);
    s.block = p->block;
    s.blocks = p->block > 0 ? scale->dim[axis] : 0;
    return s;
}

static int64_t spot(const spots *s, int64_t i)
{
    if (s->one)
        return 0;
    const int64_t k = i / s->inner % s->k;
    return s->block > 0 ? (i / s->inner / s->k * s->blocks + k / s->block) * s->inner + i % s->inner : k;
}

static mest_status check_scale(const mest_infer *c)
{
    const mest_quantize_params *p = c->params;
    const mest_shape *x = &c->in[X]->shape, *s = &c->in[SCALE]->shape;
    char tx[64], ts[64];
    int axis;
    if (c->in[SCALE]->dtype != MEST_F32)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "the scale is %s; only float32 is supported", mest_dtype_name(c->in[SCALE]->dtype));
    MEST_INFER_CHECK(c, c->n_in <= ZERO || !c->in[ZERO] || mest_shape_equal(&c->in[ZERO]->shape, s), "scale and zero point have different shapes");
    if (mest_shape_span(s, 0, s->rank) == 1 && s->rank <= 1)
        return MEST_OK;
    MEST_TRY(mest_infer_axis(c, p->axis, x->rank, &axis));
    mest_shape want = mest_shape_vector(x->dim[axis]);
    if (p->block > 0) {
        want = *x;
        want.dim[axis] = (x->dim[axis] + p->block - 1) / p->block;
    }
    MEST_INFER_CHECK(c, mest_shape_equal(&want, s), "the scale %s does not fit an input %s along axis %d", mest_shape_text(s, ts, sizeof ts), mest_shape_text(x, tx, sizeof tx),
                     axis);
    return MEST_OK;
}

static bool narrow(mest_dtype t) { return t == MEST_I8 || t == MEST_U8 || t == MEST_I16 || t == MEST_U16; }

static mest_status quantize_infer(mest_infer *c)
{
    const mest_quantize_params *p = c->params;
    const bool zero = c->n_in > ZERO && c->in[ZERO];
    const mest_dtype t = zero ? c->in[ZERO]->dtype : p->output_dtype ? (mest_dtype)(p->output_dtype & 0xff) : MEST_U8;
    MEST_TRY(check_scale(c));
    if (c->in[X]->dtype != MEST_F32)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "the input is %s; only float32 is supported", mest_dtype_name(c->in[X]->dtype));
    if (!narrow(t))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s of the result is not supported: int8, uint8, int16 and uint16 are", mest_dtype_name(t));
    return mest_infer_set(c, 0, t, &c->in[X]->shape);
}

static mest_status dequantize_infer(mest_infer *c)
{
    const mest_dtype t = c->in[X]->dtype;
    MEST_TRY(check_scale(c));
    if (!narrow(t) && t != MEST_I32)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "element type %s is not supported: int8, uint8, int16, uint16 and int32 are", mest_dtype_name(t));
    MEST_INFER_CHECK(c, c->n_in <= ZERO || !c->in[ZERO] || c->in[ZERO]->dtype == t, "the zero point is %s, the input %s", mest_dtype_name(c->in[ZERO]->dtype), mest_dtype_name(t));
    return mest_infer_set(c, 0, MEST_F32, &c->in[X]->shape);
}

static double zero_at(const mest_args *a, int64_t at)
{
    return a->n_in > ZERO && a->in[ZERO].data ? (double)mest_integer_at(a->in[ZERO].type->dtype, a->in[ZERO].data, at) : 0;
}

/* round(x / scale) + zero. The quotient is one of floats, as in the standard's reference. */
static double level(mest_real x, mest_real scale, double zero) { return rint((double)(x / scale)) + zero; }

static mest_status quantize_forward(const mest_args *a)
{
    const spots s = spots_of(a->params, &a->in[X].type->shape, &a->in[SCALE].type->shape);
    const mest_real *x = a->in[X].data, *scale = a->in[SCALE].data;
    const mest_dtype t = a->out[0].type->dtype;
    int64_t lo, hi;
    mest_integer_range(t, &lo, &hi);
    for (int64_t i = 0; i < (int64_t)a->out[0].count; i++) {
        const int64_t at = spot(&s, i);
        const double q = level(x[i], scale[at], zero_at(a, at));
        mest_integer_store(t, a->out[0].data, i, q >= (double)hi ? hi : q > (double)lo ? (int64_t)q : lo);
    }
    return MEST_OK;
}

static mest_status dequantize_forward(const mest_args *a)
{
    const spots s = spots_of(a->params, &a->in[X].type->shape, &a->in[SCALE].type->shape);
    const mest_real *scale = a->in[SCALE].data;
    for (int64_t i = 0; i < (int64_t)a->out[0].count; i++) {
        const int64_t at = spot(&s, i);
        ((mest_real *)a->out[0].data)[i] = (mest_real)((double)mest_integer_at(a->in[X].type->dtype, a->in[X].data, i) - zero_at(a, at)) * scale[at];
    }
    return MEST_OK;
}

/* ---- DynamicQuantizeLinear ---- */
static mest_status dynamic_infer(mest_infer *c)
{
    if (c->in[X]->dtype != MEST_F32)
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "the input is %s; only float32 is supported", mest_dtype_name(c->in[X]->dtype));
    for (int i = 1; i < c->n_out; i++)
        MEST_TRY(mest_infer_set(c, i, i == 1 ? MEST_F32 : MEST_U8, &(mest_shape){ .rank = 0 }));
    return mest_infer_set(c, 0, MEST_U8, &c->in[X]->shape);
}

static mest_status dynamic_forward(const mest_args *a)
{
    const mest_real *x = a->in[X].data;
    mest_real lo = 0, hi = 0;
    for (size_t i = 0; i < a->in[X].count; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    const mest_real scale = (hi - lo) / 255;
    const double zero = scale > 0 ? rint((double)(-lo / scale)) : 0;
    for (size_t i = 0; i < a->in[X].count && a->out[0].data; i++) {
        const double q = scale > 0 ? level(x[i], scale, zero) : 0;
        ((uint8_t *)a->out[0].data)[i] = (uint8_t)(q >= 255 ? 255 : q > 0 ? q : 0);
    }
    if (a->n_out > 1 && a->out[1].data)
        *(mest_real *)a->out[1].data = scale;
    if (a->n_out > 2 && a->out[2].data)
        *(uint8_t *)a->out[2].data = (uint8_t)(zero > 255 ? 255 : zero);
    return MEST_OK;
}

/* ---- the pair ---- */
static mest_status fake_infer(mest_infer *c)
{
    MEST_TRY(check_scale(c));
    return mest_infer_set(c, 0, MEST_F32, &c->in[X]->shape);
}

typedef struct job { const mest_args *a; const mest_quantize_params *p; spots s; int64_t n; } job;
enum { CHUNK = 4096 }; /* elements of a tile */

/* Forward; with dY its gradient. */
static void fake_tile(void *context, size_t tile)
{
    const job *j = context;
    const mest_real *x = j->a->in[X].data, *scale = j->a->in[SCALE].data, *dy = j->a->n_in > DY ? j->a->in[DY].data : NULL;
    mest_real *out = j->a->out[0].data;
    const int64_t first = (int64_t)tile * CHUNK, last = first + CHUNK < j->n ? first + CHUNK : j->n;
    for (int64_t i = first; i < last; i++) {
        const int64_t at = spot(&j->s, i);
        const mest_real step = scale[at];
        if (!(step > 0)) { /* DynamicQuantizeLinear of zeros */
            out[i] = dy ? dy[i] : 0;
            continue;
        }
        const double zero = zero_at(j->a, at), q = level(x[i], step, zero), cut = q >= j->p->hi ? j->p->hi : q > j->p->lo ? q : j->p->lo;
        if (dy)
            out[i] = q >= j->p->lo && q <= j->p->hi ? dy[i] : 0;
        else
            out[i] = (mest_real)(cut - zero) * step;
    }
}

static mest_status fake_forward(const mest_args *a)
{
    job j = { a, a->params, spots_of(a->params, &a->in[X].type->shape, &a->in[SCALE].type->shape), (int64_t)a->out[0].count };
    mest_parallel(a->threads, (size_t)((j.n + CHUNK - 1) / CHUNK), fake_tile, &j);
    return MEST_OK;
}

static mest_status fake_vjp(mest_vjp *v)
{
    return mest_give_op(v, 0, "mest.FakeQuantizeGrad", mest_vjp_node(v)->params, 4, (mest_id[]){ mest_in(v, X), mest_in(v, SCALE), mest_in(v, ZERO), mest_dout(v, 0) });
}

#define ATTR(name_, field, default_) { .name = name_, .kind = MEST_ATTR_INT, .offset = offsetof(mest_quantize_params, field), .number = default_ }
/* saturate and precision only concern float8 */
static const mest_attr attrs[] = { ATTR("axis", axis, 1), ATTR("block_size", block, 0), ATTR("output_dtype", output_dtype, 0), { .name = NULL } };

#define LINEAR(name_, infer_, forward_)                                                                                                                           \
    { .domain = "", .name = name_, .limits = "float8 and 4 bits; gradients, but for a QuantizeLinear with its DequantizeLinear (straight through)", .since = 10,   \
      .in_min = 2, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, .attrs = attrs, .params_bytes = sizeof(mest_quantize_params),               \
      .infer = infer_, .forward = forward_ }

const mest_op mest_ops_quantize[] = {
    LINEAR("QuantizeLinear", quantize_infer, quantize_forward),
    LINEAR("DequantizeLinear", dequantize_infer, dequantize_forward),
    { .domain = "", .name = "DynamicQuantizeLinear", .limits = "gradients, but for one with its DequantizeLinear (straight through)", .since = 11, .in_min = 1, .in_max = 1,
      .out_min = 1, .out_max = 3, .flags = MEST_OP_ANY_TYPE, .infer = dynamic_infer, .forward = dynamic_forward },
    { .domain = "mest", .name = "mest.FakeQuantize", .since = 1, .in_min = 2, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
      .params_bytes = sizeof(mest_quantize_params), .infer = fake_infer, .forward = fake_forward, .vjp = fake_vjp },
    { .domain = "mest", .name = "mest.FakeQuantizeGrad", .since = 1, .in_min = 4, .in_max = 4, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
      .params_bytes = sizeof(mest_quantize_params), .infer = fake_infer, .forward = fake_forward },
    { .name = NULL },
};
