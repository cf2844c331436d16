/* SPDX-License-Identifier: Apache-2.0 */
/* Values of the forward part as bfloat16 between their last use there and their first in the backward part (runtime/halves.c).
 *   mest.StoreBf16  X               -> the numbers of its storage, in its order, halo and lanes past the batch included: [count], rounded to nearest, ties to even
 *   mest.LoadBf16   [count]         -> Y, which has the layout that X had */
#include <string.h>

#include "ops/nn.h"

enum { CHUNK = 32768 };

typedef struct job { const void *from; void *to; int64_t n; } job;

static uint16_t rounded(float x)
{
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    const uint32_t nearest = (b + 0x7fff + (b >> 16 & 1)) >> 16, nan = b >> 16 | 0x40; /* a NaN must not become infinity */
    return (uint16_t)((b & 0x7fffffff) > 0x7f800000 ? nan : nearest);
}

static void store_tile(void *context, size_t tile)
{
    const job *j = context;
    const int64_t from = (int64_t)tile * CHUNK, to = from + CHUNK < j->n ? from + CHUNK : j->n;
    const mest_real *x = j->from;
    uint16_t *y = j->to;
    for (int64_t i = from; i < to; i++)
        y[i] = rounded((float)x[i]);
}

static void load_tile(void *context, size_t tile)
{
    const job *j = context;
    const int64_t from = (int64_t)tile * CHUNK, to = from + CHUNK < j->n ? from + CHUNK : j->n;
    const uint16_t *x = j->from;
    mest_real *y = j->to;
    for (int64_t i = from; i < to; i++) {
        const uint32_t b = (uint32_t)x[i] << 16;
        float f;
        memcpy(&f, &b, sizeof f);
        y[i] = (mest_real)f;
    }
}

static mest_status run(const mest_args *a, const mest_tensor *halves, void (*tile)(void *, size_t))
{
    job j = {a->in[0].data, a->out[0].data, (int64_t)halves->count};
    mest_parallel(a->threads, (size_t)((j.n + CHUNK - 1) / CHUNK), tile, &j);
    return MEST_OK;
}
static mest_status store_forward(const mest_args *a) { return run(a, &a->out[0], store_tile); }
static mest_status load_forward(const mest_args *a) { return run(a, &a->in[0], load_tile); }

static mest_status infer(mest_infer *c) /* the pass knows the types */
{
    return mest_infer_fail(c, MEST_E_INTERNAL, "it is made once layouts are known");
}

const mest_op mest_ops_bf16[] = {
    {.domain = "mest", .name = "mest.StoreBf16", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, .infer = infer,
     .forward = store_forward, .no_grad = true},
    {.domain = "mest", .name = "mest.LoadBf16", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, .infer = infer,
     .forward = load_forward, .no_grad = true},
    {.name = NULL},
};
