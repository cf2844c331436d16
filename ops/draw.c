/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers in the graph: RandomNormal, RandomUniform (a shape), RandomNormalLike, RandomUniformLike (the shape of the input; all since 1),
 * Bernoulli (the input has the probabilities of 1; since 15). Results are float32, Bernoulli's also bool or integer. Nothing passes back to an input.
 * They run as mest.Draw, whose numbers are a function of (session seed, training step, node, element): any thread count and layout, a second
 * run of the node, and a batch in parts give the same ones. Inference repeats those of step 0. */
#include "ops/draw.h"
#include "ops/elements.h"
#include "runtime/rng.h"

static mest_dtype dtype_of(const mest_infer *c, const mest_draw_params *p)
{
    return p->dtype ? (mest_dtype)p->dtype : c->n_in > 0 && c->in[0] ? c->in[0]->dtype : MEST_F32;
}

static mest_status draw_infer(mest_infer *c)
{
    const mest_draw_params *p = c->params;
    const mest_dtype t = dtype_of(c, p);
    const bool may_be_integer = c->n_in > 0 && (p->kind == MEST_DRAW_BERNOULLI || !strcmp(c->node->op->name, "Bernoulli"));
    if (t != MEST_F32 && !(may_be_integer && (t == MEST_BOOL || mest_dtype_is_index(t))))
        return mest_infer_fail(c, MEST_E_UNSUPPORTED, "results of type %s are not supported", mest_dtype_name(t));
    if (c->n_in > 0)
        return mest_infer_set(c, 0, t, &c->in[0]->shape);
    mest_shape s = {.rank = p->shape.n};
    MEST_INFER_CHECK(c, p->shape.n <= MEST_MAX_RANK, "a shape of %d axes, at most %d are supported", (int)p->shape.n, MEST_MAX_RANK);
    for (int i = 0; i < s.rank; i++)
        s.dim[i] = p->shape.v[i];
    return mest_infer_set(c, 0, t, &s);
}

typedef struct job {
    const mest_draw_params *p;
    mest_dtype dtype;
    uint64_t key;
    int64_t count, before; /* before: elements of the batch that belong to earlier parts of it */
    const mest_real *chance;
    void *out;
} job;

enum { CHUNK = 4096 };

static double uniform(uint64_t key, uint64_t i) { return (double)(mest_mix64(key ^ i) >> 11) * 0x1p-53; }

static double drawn(const job *j, int64_t i)
{
    const uint64_t at = 2 * (uint64_t)(j->before + i);
    if (j->p->kind == MEST_DRAW_NORMAL) /* Box and Muller: 1 - u is in (0, 1] */
        return j->p->a + j->p->b * sqrt(-2 * log(1 - uniform(j->key, at))) * cos(6.283185307179586 * uniform(j->key, at + 1));
    if (j->p->kind == MEST_DRAW_UNIFORM)
        return j->p->a + (j->p->b - j->p->a) * uniform(j->key, at);
    return uniform(j->key, at) < (double)j->chance[i];
}

static void draw_tile(void *context, size_t tile)
{
    const job *j = context;
    const int64_t from = (int64_t)tile * CHUNK, to = from + CHUNK < j->count ? from + CHUNK : j->count;
    for (int64_t i = from; i < to; i++) {
        const double x = drawn(j, i);
        if (j->dtype == MEST_F32)
            ((mest_real *)j->out)[i] = (mest_real)x;
        else if (j->dtype == MEST_BOOL)
            ((uint8_t *)j->out)[i] = x != 0;
        else if (j->dtype == MEST_I64)
            ((int64_t *)j->out)[i] = (int64_t)x;
        else
            ((int32_t *)j->out)[i] = (int32_t)x;
    }
}

static mest_status draw_forward(const mest_args *a)
{
    const mest_draw_params *p = a->params;
    const uint64_t seed = a->run ? a->run->seed : 0, step = a->run ? a->run->step : 0;
    job j = {.p = p, .dtype = a->out[0].type->dtype, .count = (int64_t)a->out[0].count, .out = a->out[0].data,
             .key = mest_rng(seed, (uint64_t)MEST_STREAM_DRAW << 32 | (p->key & 0xffffffffu), step)};
    j.before = mest_run_before(a->run, &a->out[0].type->shape);
    if (p->kind == MEST_DRAW_BERNOULLI)
        j.chance = a->in[0].data;
    mest_parallel(a->threads, (size_t)((j.count + CHUNK - 1) / CHUNK), draw_tile, &j);
    return MEST_OK;
}

#define NUMBER(name_, field, default_) {.name = name_, .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_draw_params, field), .number = default_}
#define COMMON                                                                                \
    {.name = "dtype", .kind = MEST_ATTR_INT, .offset = offsetof(mest_draw_params, dtype)},    \
    NUMBER("seed", seed, 0)
#define SHAPE {.name = "shape", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_draw_params, shape), .required = true}
static const mest_attr normal[] = {NUMBER("mean", a, 0), NUMBER("scale", b, 1), COMMON, SHAPE, {.name = NULL}};
static const mest_attr normal_like[] = {NUMBER("mean", a, 0), NUMBER("scale", b, 1), COMMON, {.name = NULL}};
static const mest_attr uniform_[] = {NUMBER("low", a, 0), NUMBER("high", b, 1), COMMON, SHAPE, {.name = NULL}};
static const mest_attr uniform_like[] = {NUMBER("low", a, 0), NUMBER("high", b, 1), COMMON, {.name = NULL}};
static const mest_attr bernoulli[] = {COMMON, {.name = NULL}};

#define FILE_OP(onnx, since_, inputs, attrs_)                                                                                                     \
    {.domain = "", .name = onnx, .since = since_, .in_min = inputs, .in_max = inputs, .out_min = 1, .out_max = 1,                                 \
     .flags = MEST_OP_ANY_TYPE | MEST_OP_RANDOM, .attrs = attrs_, .params_bytes = sizeof(mest_draw_params), .infer = draw_infer, .no_grad = true, .limits = "results in double and half precision"}

const mest_op mest_ops_draw[] = {
    FILE_OP("RandomNormal", 1, 0, normal), FILE_OP("RandomNormalLike", 1, 1, normal_like), FILE_OP("RandomUniform", 1, 0, uniform_),
    FILE_OP("RandomUniformLike", 1, 1, uniform_like), FILE_OP("Bernoulli", 15, 1, bernoulli),
    {.domain = "mest", .name = "mest.Draw", .since = 1, .in_min = 0, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE | MEST_OP_RANDOM,
     .params_bytes = sizeof(mest_draw_params), .infer = draw_infer, .forward = draw_forward, .no_grad = true},
    {.name = NULL},
};
