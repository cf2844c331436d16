/* SPDX-License-Identifier: Apache-2.0 */
/* RotaryEmbedding(X, cos, sin, positions?): the first R features of each head, taken in pairs (a, b), are rotated by the angle of their position:
 * (a cos - b sin, a sin + b cos); the others stay. R is rotary_embedding_dim, or all. Pairs are (i, i + R/2), interleaved ones (2i, 2i + 1).
 * X[B, H, S, E], or [B, S, H E] with num_heads; cos and sin [positions, R/2] with positions[B, S], or [B, S, R/2] without. ONNX since 23.
 * mest.RotaryEmbeddingGrad(dY, cos, sin, positions?): rotated back. cos and sin are tables: no gradient passes to them. */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct rope_params { int64_t interleaved, heads, dim; } rope_params;

typedef struct rope {
    int64_t batch, heads, steps, size, half; /* size: E; half: R/2 */
    int64_t head, step;                      /* strides of X, in elements */
    int64_t table;                           /* rows of cos and sin */
    bool by_position;
} rope;

enum { X, COS, SIN, POSITIONS };

/* NULL, or what is wrong. */
static const char *resolve(const rope_params *p, const mest_type *const *in, rope *r)
{
    const mest_shape *x = &in[X]->shape, *c = &in[COS]->shape;
    if (x->rank == 4) {
        *r = (rope){.batch = x->dim[0], .heads = x->dim[1], .steps = x->dim[2], .size = x->dim[3], .head = x->dim[2] * x->dim[3], .step = x->dim[3]};
    } else if (x->rank == 3 && p->heads > 0 && x->dim[2] % p->heads == 0) {
        const int64_t size = x->dim[2] / p->heads;
        *r = (rope){.batch = x->dim[0], .heads = p->heads, .steps = x->dim[1], .size = size, .head = size, .step = x->dim[2]};
    } else {
        return "the input must be [B, heads, S, E], or [B, S, heads x E] with num_heads";
    }
    const int64_t rotated = p->dim ? p->dim : r->size;
    if (rotated < 0 || rotated > r->size || rotated % 2)
        return "rotary_embedding_dim must be even and not larger than a head";
    r->half = rotated / 2;
    r->by_position = in[POSITIONS] != NULL;
    if (!mest_shape_equal(c, &in[SIN]->shape))
        return "the shapes of cos and sin differ";
    if (r->by_position) {
        const mest_shape *at = &in[POSITIONS]->shape;
        if (in[POSITIONS]->dtype != MEST_I64 || at->rank != 2 || at->dim[0] != r->batch || at->dim[1] != r->steps)
            return "position_ids must be int64 [B, S]";
        if (c->rank != 2 || c->dim[1] != r->half)
            return "cos and sin must be [positions, half of the rotated features]";
    } else if (c->rank != 3 || c->dim[0] != r->batch || c->dim[1] != r->steps || c->dim[2] != r->half) {
        return "cos and sin without position_ids must be [B, S, half of the rotated features]";
    }
    r->table = c->dim[0];
    return NULL;
}

static mest_status rope_infer(mest_infer *c)
{
    const mest_type *in[4] = {c->in[0], c->in[1], c->in[2], c->n_in > 3 ? c->in[3] : NULL};
    rope r;
    for (int i = 0; i < 3; i++)
        if (in[i]->dtype != MEST_F32)
            return mest_infer_fail(c, MEST_E_UNSUPPORTED, "input %d is %s; only float32 is supported", i, mest_dtype_name(in[i]->dtype));
    const char *why = resolve(c->params, in, &r);
    MEST_INFER_CHECK(c, !why, "%s", why);
    return mest_infer_set(c, 0, MEST_F32, &c->in[0]->shape);
}

typedef struct job {
    rope r;
    bool interleaved;
    const mest_real *x, *cos, *sin;
    const int64_t *at;
    mest_real *y, back; /* back: -1 rotates back */
} job;

/* One step of one sample, all heads. */
static void tile(void *context, size_t index)
{
    const job *j = context;
    const rope *r = &j->r;
    const int64_t b = (int64_t)index / r->steps, s = (int64_t)index % r->steps;
    int64_t row = j->at ? j->at[index] : (int64_t)index;
    const mest_real *cosine = j->cos + row * r->half, *sine = j->sin + row * r->half;
    for (int64_t h = 0; h < r->heads; h++) {
        const int64_t first = b * r->heads * r->steps * r->size + h * r->head + s * r->step;
        const mest_real *x = j->x + first;
        mest_real *y = j->y + first;
        for (int64_t i = 0; i < r->half; i++) {
            const int64_t at = j->interleaved ? 2 * i : i, other = j->interleaved ? 2 * i + 1 : i + r->half;
            const mest_real a = x[at], c = x[other], turn = j->back * sine[i];
            y[at] = a * cosine[i] - c * turn;
            y[other] = a * turn + c * cosine[i];
        }
        for (int64_t i = 2 * r->half; i < r->size; i++)
            y[i] = x[i];
    }
}

static mest_status run(const mest_args *a, mest_real back)
{
    const mest_type *in[4] = {a->in[0].type, a->in[1].type, a->in[2].type, a->n_in > 3 && a->in[3].data ? a->in[3].type : NULL};
    const rope_params *p = a->params;
    job j = {.interleaved = p->interleaved != 0, .x = a->in[X].data, .cos = a->in[COS].data, .sin = a->in[SIN].data, .y = a->out[0].data, .back = back};
    const char *why = resolve(p, in, &j.r);
    if (why)
        return mest_run_fail(a, MEST_E_INTERNAL, "%s", why);
    j.at = in[POSITIONS] ? a->in[POSITIONS].data : NULL;
    for (int64_t i = 0; j.at && i < j.r.batch * j.r.steps; i++)
        if (j.at[i] < 0 || j.at[i] >= j.r.table)
            return mest_run_fail(a, MEST_E_DATA, "position %" PRId64 " is outside of the %" PRId64 " rows of cos and sin", j.at[i], j.r.table);
    mest_parallel(a->threads, (size_t)(j.r.batch * j.r.steps), tile, &j);
    return MEST_OK;
}

static mest_status rope_forward(const mest_args *a) { return run(a, 1); }
static mest_status grad_forward(const mest_args *a) { return run(a, -1); }

static mest_status rope_vjp(mest_vjp *v)
{
    if (mest_wants(v, COS) || mest_wants(v, SIN))
        return mest_fail(mest_vjp_err(v), MEST_E_UNSUPPORTED, "RotaryEmbedding '%s': no gradient through cos and sin; freeze them (--freeze)", mest_vjp_node(v)->name);
    return mest_give_op(v, 0, "mest.RotaryEmbeddingGrad", NULL, 4, (mest_id[]){mest_dout(v, 0), mest_in(v, COS), mest_in(v, SIN), mest_in(v, POSITIONS)});
}

static const mest_attr attrs[] = {
    {.name = "interleaved", .kind = MEST_ATTR_INT, .offset = offsetof(rope_params, interleaved)},
    {.name = "num_heads", .kind = MEST_ATTR_INT, .offset = offsetof(rope_params, heads)},
    {.name = "rotary_embedding_dim", .kind = MEST_ATTR_INT, .offset = offsetof(rope_params, dim)},
    {.name = NULL},
};

const mest_op mest_ops_rope[] = {
    {.domain = "", .name = "RotaryEmbedding", .limits = "gradients for cos and sin", .since = 23, .in_min = 3, .in_max = 4, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE | MEST_OP_INPLACE,
     .attrs = attrs, .params_bytes = sizeof(rope_params), .infer = rope_infer, .forward = rope_forward, .vjp = rope_vjp},
    {.domain = "mest", .name = "mest.RotaryEmbeddingGrad", .since = 1, .in_min = 4, .in_max = 4, .out_min = 1, .out_max = 1,
     .flags = MEST_OP_ANY_TYPE | MEST_OP_INPLACE, .params_bytes = sizeof(rope_params), .infer = rope_infer, .forward = grad_forward},
    {.name = NULL},
};
