/* SPDX-License-Identifier: Apache-2.0 */
/* Dropout as inference sees it: Y = X; the second output, a mask, is all true. ONNX Dropout since 1 (12 makes ratio and training_mode
 * inputs, which lowering reads).
 * mest.DropoutTrain: Y = X / (1 - ratio) where kept, else 0; mest.DropoutGrad is the same map on dY: the choice is recomputed from its
 * key, so no mask is stored. */
#include "ops/dropout_keep.h"

#include <stddef.h>
#include <string.h>

static const mest_attr dropout_attrs[] = {
    { .name = "ratio", .kind = MEST_ATTR_FLOAT, .offset = offsetof(mest_dropout_params, ratio), .number = 0.5 },
    { .name = "seed", .kind = MEST_ATTR_INT, .offset = offsetof(mest_dropout_params, seed) },
    { .name = NULL },
};

static mest_status dropout_infer(mest_infer *c)
{
    MEST_INFER_CHECK(c, c->in[0]->dtype == MEST_F32, "input is %s, not float32", mest_dtype_name(c->in[0]->dtype));
    for (int i = 0; i < c->n_out; i++) {
        c->out[i].dtype = i == 0 ? c->in[0]->dtype : MEST_BOOL;
        c->out[i].shape = c->in[0]->shape;
    }
    return MEST_OK;
}

typedef struct copy { const mest_real *x; mest_real *y; } copy;

static void copy_row(void *context, int64_t offset, int64_t n)
{
    const copy *c = context;
    memcpy(c->y + offset, c->x + offset, (size_t)n * sizeof *c->y);
}

static mest_status dropout_forward(const mest_args *a)
{
    copy c = { a->in[0].data, a->out[0].data };
    if (c.y && c.x != c.y)
        mest_for_rows(a->threads, a->in[0].type, copy_row, &c);
    if (a->n_out > 1 && a->out[1].data)
        memset(a->out[1].data, 1, a->out[1].count);
    return MEST_OK;
}

static mest_status dropout_vjp(mest_vjp *v)
{
    return mest_give(v, 0, mest_dout(v, 0));
}

typedef struct drop {
    mest_dropout_keep keep;
    int64_t count;
    const mest_real *x;
    mest_real *y;
} drop;

enum { CHUNK = 4096 };

static void drop_tile(void *context, size_t tile)
{
    const drop *d = context;
    int64_t from = (int64_t)tile * CHUNK, to = from + CHUNK < d->count ? from + CHUNK : d->count;
    mest_real scale = (mest_real)d->keep.scale;
    for (int64_t i = from; i < to; i++)
        d->y[i] = mest_dropout_kept(&d->keep, (uint64_t)i) ? d->x[i] * scale : 0;
}

static mest_status drop_forward(const mest_args *a)
{
    drop d = { mest_dropout_keep_of(a->params, a->run, &a->in[0].type->shape), (int64_t)a->in[0].count, a->in[0].data, a->out[0].data };
    mest_parallel(a->threads, (size_t)((d.count + CHUNK - 1) / CHUNK), drop_tile, &d);
    return MEST_OK;
}

static mest_status drop_vjp(mest_vjp *v)
{
    mest_id dy = mest_dout(v, 0);
    return mest_give_op(v, 0, "mest.DropoutGrad", NULL, 1, &dy);
}

const mest_op mest_ops_dropout[] = {
    { .domain = "", .name = "Dropout", .limits = "use of its mask in training", .since = 1, .in_min = 1, .in_max = 3, .out_min = 1, .out_max = 2,
      .flags = MEST_OP_INPLACE | MEST_OP_ELEMENTWISE | MEST_OP_ANY_TYPE /* ratio and training_mode */, .act_in = 1u << 0, .act_out = 1u << 0,
      .attrs = dropout_attrs,
      .params_bytes = sizeof(mest_dropout_params), .infer = dropout_infer, .forward = dropout_forward, .vjp = dropout_vjp },
    { .domain = "mest", .name = "mest.DropoutTrain", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
      .flags = MEST_OP_INPLACE | MEST_OP_RANDOM, .act_in = 1u << 0, .act_out = 1u << 0, .params_bytes = sizeof(mest_dropout_params),
      .infer = mest_infer_same, .forward = drop_forward, .vjp = drop_vjp },
    { .domain = "mest", .name = "mest.DropoutGrad", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,
      .flags = MEST_OP_INPLACE | MEST_OP_RANDOM, .act_in = 1u << 0, .act_out = 1u << 0, .params_bytes = sizeof(mest_dropout_params),
      .infer = mest_infer_same, .forward = drop_forward },
    { .name = NULL },
};
