/* SPDX-License-Identifier: Apache-2.0 */
/* ONNX's Attention (since 23; the input of lengths since 24, windows since 25): attributes and shapes. What mest.Attention does not know - keys and
 * values of the past, lengths, windows, softcap, the scores as a result - the pass attention_form writes out; the rest runs as mest.Attention.
 *
 *     Q K V mask? past_key? past_value? lengths?    to    Y present_key? present_value? scores?
 *
 * past and present have four axes [B,Hk,P,E], whatever Q has; T below is P plus the steps of K. A query s sees keys t <= s + P if is_causal
 * (with lengths: t <= s + length - S), and within a window t >= s + P - left and t <= s + P + right. A mask that is shorter than T hides the rest. */
#include "ops/attention.h"

#include <inttypes.h>

#include "ops/elements.h"

enum { Q = MEST_ATTENTION_Q, K, V, MASK, PAST_K, PAST_V, LENGTHS };

#define ATTR(name_, kind_, field) { .name = name_, .kind = kind_, .offset = offsetof(mest_attention_file, field) }
static const mest_attr attrs[] = {
    ATTR("is_causal", MEST_ATTR_INT, run.causal), ATTR("q_num_heads", MEST_ATTR_INT, run.q_heads), ATTR("kv_num_heads", MEST_ATTR_INT, run.kv_heads),
    ATTR("qk_matmul_output_mode", MEST_ATTR_INT, run.output_mode), ATTR("softmax_precision", MEST_ATTR_INT, run.precision),
    ATTR("scale", MEST_ATTR_FLOAT, run.scale), ATTR("softcap", MEST_ATTR_FLOAT, run.softcap),
    { .name = "left_window_size", .kind = MEST_ATTR_INT, .offset = offsetof(mest_attention_file, left), .number = -1 },
    { .name = "right_window_size", .kind = MEST_ATTR_INT, .offset = offsetof(mest_attention_file, right), .number = -1 }, { .name = NULL } };

static const mest_type *given(const mest_infer *c, int i) { return i < c->n_in ? c->in[i] : NULL; }

static mest_status check_past(const mest_infer *c, const mest_attention *t, int64_t *steps)
{
    const mest_type *past[2] = { given(c, PAST_K), given(c, PAST_V) }, *lengths = given(c, LENGTHS);
    *steps = 0;
    MEST_INFER_CHECK(c, !past[0] == !past[1], "keys and values of the past come together: one of them is missing");
    MEST_INFER_CHECK(c, !past[0] || !lengths, "keys of the past and lengths do not go together");
    for (int i = 0; i < 2 && past[0]; i++) {
        const mest_shape *s = &past[i]->shape;
        const mest_operand *o = i ? &t->v : &t->k;
        char text[64];
        MEST_INFER_CHECK(c, past[i]->dtype == MEST_F32, "input %d is %s; only float32 is supported", PAST_K + i, mest_dtype_name(past[i]->dtype));
        MEST_INFER_CHECK(c, s->rank == 4 && s->dim[0] == t->batch && s->dim[1] == o->heads && s->dim[3] == o->size && (i == 0 || s->dim[2] == *steps),
                         "the past %s is %s, must be [%" PRId64 ", %" PRId64 ", steps, %" PRId64 "]", i ? "value" : "key", mest_shape_text(s, text, sizeof text), t->batch,
                         o->heads, o->size);
        *steps = s->dim[2];
    }
    MEST_INFER_CHECK(c, !lengths || (lengths->dtype == MEST_I64 && lengths->shape.rank == 1 && lengths->shape.dim[0] == t->batch), "the lengths are not %" PRId64
                     " int64 numbers", t->batch);
    return MEST_OK;
}

static mest_status check_mask(const mest_infer *c, const mest_shape *scores)
{
    const mest_type *mask = given(c, MASK);
    char have[64], want[64];
    mest_shape whole, all;
    if (!mask)
        return MEST_OK;
    MEST_INFER_CHECK(c, mask->dtype == MEST_BOOL || mask->dtype == MEST_F32, "the mask is %s, neither bool nor float32", mest_dtype_name(mask->dtype));
    whole = mask->shape;
    if (whole.rank > 0 && whole.dim[whole.rank - 1] > 1 && whole.dim[whole.rank - 1] < scores->dim[3])
        whole.dim[whole.rank - 1] = scores->dim[3];
    MEST_INFER_CHECK(c, mest_shape_broadcast(scores, &whole, &all) && mest_shape_equal(&all, scores), "the mask %s does not broadcast to %s",
                     mest_shape_text(&mask->shape, have, sizeof have), mest_shape_text(scores, want, sizeof want));
    return MEST_OK;
}

static mest_status infer(mest_infer *c)
{
    const mest_attention_file *p = c->params;
    mest_attention t;
    char tq[64], tk[64], tv[64];
    int64_t past;
    MEST_INFER_CHECK(c, p->run.softcap >= 0, "softcap %g is below 0", p->run.softcap);
    MEST_INFER_CHECK(c, p->run.output_mode >= 0 && p->run.output_mode <= 3, "qk_matmul_output_mode %" PRId64 " is unknown", p->run.output_mode);
    MEST_INFER_CHECK(c, p->left >= -1 && p->right >= -1, "a window below -1");
    for (int i = 0; i < 3; i++)
        MEST_INFER_CHECK(c, c->in[i]->dtype == MEST_F32, "input %d is %s; only float32 is supported", i, mest_dtype_name(c->in[i]->dtype));
    MEST_INFER_CHECK(c, mest_attention_sizes(&p->run, &c->in[Q]->shape, &c->in[K]->shape, &c->in[V]->shape, &t), "Q %s, K %s, V %s do not fit (q_num_heads %" PRId64
                     ", kv_num_heads %" PRId64 ")", mest_shape_text(&c->in[Q]->shape, tq, sizeof tq), mest_shape_text(&c->in[K]->shape, tk, sizeof tk),
                     mest_shape_text(&c->in[V]->shape, tv, sizeof tv), p->run.q_heads, p->run.kv_heads);
    MEST_TRY(check_past(c, &t, &past));
    const mest_shape scores = { .rank = 4, .dim = { t.batch, t.q.heads, t.q.steps, t.k.steps + past } };
    MEST_TRY(check_mask(c, &scores));
    mest_shape y = c->in[Q]->shape, present = { .rank = 4, .dim = { t.batch, t.k.heads, t.k.steps + past, t.k.size } };
    y.dim[y.rank - 1] = y.rank == 4 ? t.v.size : t.q.heads * t.v.size;
    MEST_TRY(mest_infer_set(c, 0, MEST_F32, &y));
    for (int i = 1; i < c->n_out; i++) {
        present.dim[3] = i == 1 ? t.k.size : t.v.size;
        MEST_TRY(mest_infer_set(c, i, MEST_F32, i == 3 ? &scores : &present));
    }
    return MEST_OK;
}

static int64_t macs(const mest_node *node, const mest_type *const *in, const mest_type *const *out)
{
    mest_attention t;
    (void)out;
    if (!mest_attention_sizes(node->params, &in[Q]->shape, &in[K]->shape, &in[V]->shape, &t))
        return 0;
    return t.batch * t.q.heads * t.q.steps * (t.k.steps + (node->n_in > PAST_K && in[PAST_K] ? in[PAST_K]->shape.dim[2] : 0)) * (t.q.size + t.v.size);
}

const mest_op mest_ops_attention_onnx[] = {
    { .domain = "", .name = "Attention", .since = 23, .in_min = 3, .in_max = MEST_ATTENTION_INPUTS, .out_min = 1, .out_max = 4, .flags = MEST_OP_ANY_TYPE, .attrs = attrs,
      .params_bytes = sizeof(mest_attention_file), .infer = infer, .macs = macs },
    { .name = NULL },
};
