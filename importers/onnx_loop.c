/* SPDX-License-Identifier: Apache-2.0 */
/* Loop with a number of steps that the file says (a Constant or initializer, through Identity and Cast) and without a condition of its own: the body is
 * written out that many times, one after the other, so its nodes have kernels and gradients like any. Results that are stacked become Unsqueeze and
 * Concat. At most STEPS steps, and what all expansions may make together (MEST_ONNX_MAX_INLINED). Other loops stay as they are and are refused later,
 * with what to do. */
#include <inttypes.h>

#include "importers/onnx_scope.h"

enum { STEPS = 4096, HOPS = 16 };

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory while unrolling a loop", im->path); }

static bool is_op(const onnx_node *n, const char *op) { return !*n->domain && !strcmp(n->op, op); }

/* Nodes that numbers come from, by the name of what they make. */
static mest_status note_makers(onnx_importer *im)
{
    for (; im->n_makers < im->n_nodes; im->n_makers++) {
        const onnx_node *n = &im->nodes[im->n_makers];
        if (n->n_out == 1 && (is_op(n, "Constant") || ((is_op(n, "Identity") || is_op(n, "Cast")) && n->n_in == 1)) &&
            !mest_strmap_put(&im->makers, n->out_names[0], im->n_makers))
            return out_of_memory(im);
    }
    return MEST_OK;
}

/* The one number of a constant value; false: it is none. */
static bool number(onnx_importer *im, const char *name, int64_t *value)
{
    mest_payload p = { 0 };
    mest_shape shape;
    bool external = false;
    for (int hop = 0; hop < HOPS; hop++) {
        const onnx_symbol *s = onnx_find_symbol(im, name);
        const int32_t at = s ? -1 : mest_strmap_get(&im->makers, name);
        if (s && s->tensor >= 0) {
            p = im->tensors[s->tensor].payload;
            break;
        }
        if (at < 0)
            return false;
        const onnx_node *n = &im->nodes[at];
        if (n->n_in == 1) {
            name = n->in_names[0];
            continue;
        }
        const Onnx__AttributeProto *one = onnx_attribute(n, "value_int"), *a = onnx_attribute(n, "value");
        if (one) {
            *value = one->i;
            return true;
        }
        if (!a || !a->t || mest_onnx_payload(im, a->t, name, &shape, &p, &external) != MEST_OK || external) {
            mest_error_clear(im->err);
            return false;
        }
        break;
    }
    int32_t narrow;
    if (p.count != 1 || p.linear || !p.raw)
        return false;
    if (p.dtype == MEST_I64)
        memcpy(value, p.raw, sizeof *value);
    else if (p.dtype == MEST_I32)
        *value = (memcpy(&narrow, p.raw, sizeof narrow), narrow);
    else if (p.dtype == MEST_BOOL)
        *value = *(const uint8_t *)p.raw != 0;
    else
        return false;
    return true;
}

static const Onnx__NodeProto *made_in(const Onnx__GraphProto *g, const char *name)
{
    for (size_t i = g->n_node; i-- > 0;)
        if (g->node[i]->n_output == 1 && !strcmp(onnx_text(g->node[i]->output[0]), name))
            return g->node[i];
    return NULL;
}

/* The condition that the body hands on: the one it got, or true. */
static bool goes_on(onnx_importer *im, onnx_scope *s, const Onnx__GraphProto *body)
{
    const char *name = onnx_text(body->output[0]->name);
    int64_t v;
    for (int hop = 0; hop < HOPS; hop++) {
        if (!strcmp(name, onnx_text(body->input[1]->name)))
            return true;
        for (size_t i = 0; i < body->n_initializer; i++)
            if (!strcmp(name, onnx_text(body->initializer[i]->name))) {
                const Onnx__TensorProto *t = body->initializer[i];
                return (t->has_raw_data && t->raw_data.len == 1 && t->raw_data.data[0]) || (t->n_int32_data == 1 && t->int32_data[0]);
            }
        const Onnx__NodeProto *n = made_in(body, name);
        const char *op = n ? onnx_text(n->op_type) : "";
        if (!n) {
            const char *outside = mest_onnx_outer_name(im, s, name);
            return outside && number(im, outside, &v) && v;
        }
        if (!strcmp(op, "Constant") && n->n_attribute == 1 && !strcmp(onnx_text(n->attribute[0]->name), "value_int"))
            return n->attribute[0]->i != 0;
        if (!strcmp(op, "Constant") && n->n_attribute == 1 && n->attribute[0]->t) {
            const Onnx__TensorProto *t = n->attribute[0]->t;
            bool set = t->n_int64_data == 1 ? t->int64_data[0] != 0 : t->n_int32_data == 1 && t->int32_data[0] != 0;
            for (size_t i = 0; t->has_raw_data && i < t->raw_data.len; i++)
                set |= t->raw_data.data[i] != 0;
            return set;
        }
        if ((strcmp(op, "Identity") && strcmp(op, "Cast")) || n->n_input != 1)
            return false;
        name = onnx_text(n->input[0]);
    }
    return false;
}

/* A node of the graph whose inputs have their names there. */
static mest_status add_plain(onnx_importer *im, const onnx_scope *s, const char *op, int n_in, const char *const *in, const char *out, const Onnx__AttributeProto *attr)
{
    if (!MEST_REGION_GROW(&im->scratch, im->nodes, im->n_nodes, im->cap_nodes))
        return out_of_memory(im);
    onnx_node *n = &im->nodes[im->n_nodes];
    *n = (onnx_node){ .op = op, .domain = "", .opset = 13, .origin = -1, .inlined = true, .guard = s->guard, .guard_is = s->guard_is, .n_in = n_in, .n_names = n_in,
                      .n_out = 1, .n_attrs = attr != NULL, .name = out };
    n->attrs = mest_region_alloc(&im->scratch, 1 + ONNX_EXTRA, sizeof *n->attrs);
    n->out_names = mest_region_alloc(&im->scratch, 1, sizeof *n->out_names);
    n->in_names = mest_region_alloc(&im->scratch, (size_t)n_in + 1, sizeof *n->in_names);
    n->in = mest_region_alloc(&im->scratch, (size_t)n_in + ONNX_EXTRA, sizeof *n->in);
    n->out = mest_region_alloc(&im->scratch, 1, sizeof *n->out);
    if (!n->attrs || !n->out_names || !n->in_names || !n->in || !n->out)
        return out_of_memory(im);
    if (n_in) /* a Constant has none, and no list of them */
        memcpy(n->in_names, in, (size_t)n_in * sizeof *in);
    n->out_names[0] = out;
    if (attr)
        n->attrs[0] = attr;
    im->n_nodes++;
    return MEST_OK;
}

/* A scalar under the name of an input of the body. */
static mest_status give(onnx_importer *im, onnx_scope *inner, char *name, mest_dtype dtype, int64_t value)
{
    Onnx__TensorProto *t = mest_region_alloc(&im->scratch, 1, sizeof *t);
    int64_t *wide = mest_region_alloc(&im->scratch, 1, sizeof *wide);
    int32_t *narrow = mest_region_alloc(&im->scratch, 1, sizeof *narrow);
    if (!t || !wide || !narrow)
        return out_of_memory(im);
    onnx__tensor_proto__init(t);
    t->name = name;
    t->has_data_type = 1;
    t->data_type = (int32_t)dtype;
    if (dtype == MEST_I64) {
        t->n_int64_data = 1;
        t->int64_data = wide;
        *wide = value;
    } else {
        t->n_int32_data = 1;
        t->int32_data = narrow;
        *narrow = (int32_t)value;
    }
    return mest_onnx_scope_constant(im, inner, t);
}

typedef struct loop {
    const Onnx__NodeProto *pb;
    const Onnx__GraphProto *body;
    int64_t steps;
    size_t carried, stacked;
    const char **state;     /* names of what goes from step to step */
    const char **row;       /* of results that are stacked: [stacked][steps] */
} loop;

static mest_status step(onnx_importer *im, onnx_scope *s, loop *l, int64_t number_of_step, int32_t *budget)
{
    const Onnx__GraphProto *g = l->body;
    onnx_scope *inner = mest_region_alloc(&im->scratch, 1, sizeof *inner);
    const char *name = onnx_text(l->pb->name);
    if (!inner)
        return out_of_memory(im);
    *inner = (onnx_scope){ .parent = s, .function = s->function, .branch = true, .guard = s->guard, .guard_is = s->guard_is, .attrs = s->attrs, .n_attrs = s->n_attrs,
                           .origin = s->origin, .depth = s->depth + 1 };
    mest_strmap_init(&inner->names, &im->scratch);
    inner->call = mest_region_printf(&im->scratch, "%.70s.%d.%" PRId64, *name ? name : "Loop", MEST_ONNX_MAX_INLINED - *budget, number_of_step);
    inner->cap_actual = 8;
    inner->actual = mest_region_alloc(&im->scratch, (size_t)inner->cap_actual, sizeof *inner->actual);
    if (!inner->call || !inner->actual)
        return out_of_memory(im);
    MEST_TRY(give(im, inner, g->input[0]->name, MEST_I64, number_of_step));
    MEST_TRY(give(im, inner, g->input[1]->name, MEST_BOOL, 1));
    for (size_t k = 0; k < l->carried; k++) {
        const char *formal = onnx_text(g->input[2 + k]->name);
        MEST_CHECK(*formal && mest_strmap_get(&inner->names, formal) < 0, im->err, MEST_E_FORMAT, "onnx '%s': the body of Loop '%s' has '%s' twice among its inputs", im->path,
                   name, formal);
        if (!MEST_REGION_GROW(&im->scratch, inner->actual, inner->n_actual, inner->cap_actual) || !mest_strmap_put(&inner->names, formal, inner->n_actual))
            return out_of_memory(im);
        inner->actual[inner->n_actual++] = l->state[k];
    }
    for (size_t i = 0; i < g->n_initializer; i++)
        MEST_TRY(mest_onnx_scope_constant(im, inner, g->initializer[i]));
    MEST_TRY(mest_onnx_walk(im, inner, g->node, g->n_node, budget));
    const char **next = mest_region_alloc(&im->scratch, l->carried + 1, sizeof *next);
    if (!next)
        return out_of_memory(im);
    for (size_t k = 0; k < l->carried + l->stacked; k++) {
        const char *value = mest_onnx_outer_name(im, inner, onnx_text(g->output[1 + k]->name));
        if (!value)
            return out_of_memory(im);
        if (k < l->carried)
            next[k] = value;
        else
            l->row[(int64_t)(k - l->carried) * l->steps + number_of_step] = value;
    }
    l->state = next;
    return MEST_OK;
}

/* One stacked result: each row with a new axis in front, all of them together. */
static mest_status stack(onnx_importer *im, onnx_scope *s, const loop *l, size_t k, const char *out)
{
    const char **row = l->row + (int64_t)k * l->steps, *axes = mest_region_printf(&im->scratch, "%.200s/axis", out);
    Onnx__AttributeProto *zero = mest_onnx_ints_attribute(im, "value_ints", 0), *axis = mest_onnx_int_attribute(im, "axis", 0);
    if (!axes || !zero || !axis)
        return out_of_memory(im);
    MEST_TRY(add_plain(im, s, "Constant", 0, NULL, axes, zero));
    for (int64_t i = 0; i < l->steps; i++) {
        const char *in[2] = { row[i], axes };
        row[i] = mest_region_printf(&im->scratch, "%.200s/%" PRId64, out, i);
        if (!row[i])
            return out_of_memory(im);
        MEST_TRY(add_plain(im, s, "Unsqueeze", 2, in, row[i], NULL));
    }
    return add_plain(im, s, "Concat", (int)l->steps, row, out, axis);
}

mest_status mest_onnx_unroll(onnx_importer *im, onnx_scope *s, const Onnx__NodeProto *pb, const Onnx__AttributeProto **attrs, int32_t n_attrs, int32_t *budget, bool *done)
{
    const char *name = onnx_text(pb->name);
    const Onnx__GraphProto *body = NULL;
    int64_t steps = 0, condition = 1;
    *done = false;
    for (int32_t i = 0; i < n_attrs; i++)
        if (!strcmp(onnx_text(attrs[i]->name), "body"))
            body = attrs[i]->g;
    if (!body || pb->n_input < 2 || !*onnx_text(pb->input[0]) || body->n_input != pb->n_input || body->n_output != pb->n_output + 1 || body->n_output < body->n_input - 1 ||
        body->n_sparse_initializer)
        return MEST_OK;
    MEST_TRY(note_makers(im));
    const char *count = mest_onnx_outer_name(im, s, onnx_text(pb->input[0])), *go = mest_onnx_outer_name(im, s, onnx_text(pb->input[1]));
    if (!count || !go)
        return out_of_memory(im);
    if (!number(im, count, &steps) || (*go && (!number(im, go, &condition) || !condition)) || steps < 0 || !goes_on(im, s, body))
        return MEST_OK;
    loop l = { .pb = pb, .body = body, .steps = steps, .carried = pb->n_input - 2, .stacked = body->n_output + 1 - body->n_input };
    MEST_CHECK(steps <= STEPS, im->err, MEST_E_LIMIT, "onnx '%s': node '%s' (Loop) has %" PRId64 " steps; at most %d are unrolled", im->path, name, steps, STEPS);
    MEST_CHECK(steps > 0 || l.stacked == 0, im->err, MEST_E_UNSUPPORTED, "onnx '%s': node '%s' (Loop) has no steps to stack results of", im->path, name);
    MEST_CHECK(s->depth < MEST_ONNX_MAX_NESTING, im->err, MEST_E_LIMIT, "onnx '%s': loops are nested more than %d deep", im->path, MEST_ONNX_MAX_NESTING);
    l.state = mest_region_alloc(&im->scratch, l.carried + 1, sizeof *l.state);
    l.row = mest_region_alloc(&im->scratch, l.stacked * (size_t)steps + 1, sizeof *l.row);
    if (!l.state || !l.row)
        return out_of_memory(im);
    for (size_t k = 0; k < l.carried; k++)
        if (!(l.state[k] = mest_onnx_outer_name(im, s, onnx_text(pb->input[2 + k]))))
            return out_of_memory(im);
    for (int64_t i = 0; i < steps; i++) {
        if ((*budget -= 2) < 0)
            return mest_fail(im->err, MEST_E_LIMIT, "onnx '%s': local functions, branches and loops expand to more than %d nodes", im->path, MEST_ONNX_MAX_INLINED);
        MEST_TRY(step(im, s, &l, i, budget));
    }
    for (size_t k = 0; k < pb->n_output; k++) {
        if (!*onnx_text(pb->output[k]))
            continue;
        const char *out = mest_onnx_result_name(im, s, pb->output[k]);
        if (!out)
            return out_of_memory(im);
        MEST_TRY(k < l.carried ? add_plain(im, s, "Identity", 1, &l.state[k], out, NULL) : stack(im, s, &l, k - l.carried, out));
    }
    *done = true;
    return MEST_OK;
}
