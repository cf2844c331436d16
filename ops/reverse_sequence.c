/* SPDX-License-Identifier: Apache-2.0 */
/* ReverseSequence (X, sequence_lens[batch]): the first sequence_lens[b] steps of row b the other way round, the rest as it is; batch_axis
 * and time_axis are 0 and 1 in either order. ONNX since 10. Gradient: the same of dY. */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct reverse_params { int64_t batch_axis, time_axis; } reverse_params;

static mest_status reverse_infer(mest_infer *c)
{
    const reverse_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape, *n = &c->in[1]->shape;
    MEST_INFER_CHECK(c, x->rank >= 2 && p->batch_axis + p->time_axis == 1 && (p->batch_axis == 0 || p->batch_axis == 1),
                     "batch_axis %" PRId64 ", time_axis %" PRId64 " and an input of rank %d", p->batch_axis, p->time_axis, x->rank);
    MEST_INFER_CHECK(c, c->in[1]->dtype == MEST_I64 && n->rank == 1 && n->dim[0] == x->dim[p->batch_axis], "sequence_lens must be %" PRId64 " int64",
                     x->dim[p->batch_axis]);
    return mest_infer_set(c, 0, c->in[0]->dtype, x);
}

static mest_status reverse_forward(const mest_args *a)
{
    const reverse_params *p = a->params;
    const mest_shape *x = &a->in[0].type->shape;
    int64_t batch = x->dim[p->batch_axis], steps = x->dim[p->time_axis];
    size_t bytes = (size_t)mest_shape_span(x, 2, x->rank) * mest_dtype_size(a->in[0].type->dtype);
    for (int64_t b = 0; b < batch; b++) {
        int64_t n = ((const int64_t *)a->in[1].data)[b];
        if (n < 0 || n > steps)
            return mest_run_fail(a, MEST_E_DATA, "sequence_lens[%" PRId64 "] is %" PRId64 " of %" PRId64 " steps", b, n, steps);
        for (int64_t t = 0; t < steps; t++) {
            int64_t from = t < n ? n - 1 - t : t;
            int64_t to_row = p->time_axis ? b * steps + t : t * batch + b, from_row = p->time_axis ? b * steps + from : from * batch + b;
            memcpy((char *)a->out[0].data + (size_t)to_row * bytes, (const char *)a->in[0].data + (size_t)from_row * bytes, bytes);
        }
    }
    return MEST_OK;
}

static mest_status reverse_vjp(mest_vjp *v)
{
    mest_id in[2] = { mest_dout(v, 0), mest_in(v, 1) };
    return mest_give_op(v, 0, "ReverseSequence", NULL, 2, in);
}

static const mest_attr reverse_attrs[] = {
    { .name = "batch_axis", .kind = MEST_ATTR_INT, .offset = offsetof(reverse_params, batch_axis), .number = 1 },
    { .name = "time_axis", .kind = MEST_ATTR_INT, .offset = offsetof(reverse_params, time_axis), .number = 0 },
    { .name = NULL } };

const mest_op mest_ops_reverse_sequence[] = {
    { .domain = "", .name = "ReverseSequence", .since = 10, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
      .attrs = reverse_attrs, .params_bytes = sizeof(reverse_params), .infer = reverse_infer, .forward = reverse_forward, .vjp = reverse_vjp },
    { .name = NULL },
};
