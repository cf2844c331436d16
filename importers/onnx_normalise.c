/* SPDX-License-Identifier: Apache-2.0 */
/* Older forms of operators to the one form the library knows: attributes that became inputs, outputs that went away, renamed operators.
 * A rule names the opset from which the new form is the file's own. What only changed its defaults or its meaning (Softmax at 13) is a
 * variant of the operator itself, found by the file's opset. */
#include "importers/onnx.h"

static mest_status wrong(onnx_importer *im, const onnx_node *n, mest_status code, const char *what)
{
    return mest_fail(im->err, code, "onnx '%s': %s '%s': %s", im->path, n->op, n->name, what);
}

static mest_status out_of_memory(onnx_importer *im, const onnx_node *n) { return wrong(im, n, MEST_E_NOMEM, "out of memory"); }

const Onnx__AttributeProto *onnx_attribute(const onnx_node *n, const char *name)
{
    for (int32_t i = 0; i < n->n_attrs; i++)
        if (n->attrs[i] && !strcmp(n->attrs[i]->name, name))
            return n->attrs[i];
    return NULL;
}

/* Takes an attribute away from the node. NULL if it is not there or (*status set) not of the type. */
static const Onnx__AttributeProto *take(onnx_importer *im, onnx_node *n, const char *name, int type, mest_status *status)
{
    for (int32_t i = 0; i < n->n_attrs; i++) {
        const Onnx__AttributeProto *a = n->attrs[i];
        if (!a || strcmp(a->name, name))
            continue;
        if (a->has_type && (int)a->type != type) {
            *status = mest_fail(im->err, MEST_E_FORMAT, "onnx '%s': %s '%s': attribute '%s' has another type than it should", im->path, n->op,
                                n->name, name);
            return NULL;
        }
        n->attrs[i] = NULL;
        return a;
    }
    return NULL;
}

static Onnx__AttributeProto *give(onnx_importer *im, onnx_node *n, const char *name, int type)
{
    Onnx__AttributeProto *a = mest_region_alloc(&im->scratch, 1, sizeof *a);
    if (!a)
        return NULL;
    a->name = mest_region_strdup(&im->scratch, name);
    a->has_type = 1;
    a->type = (Onnx__AttributeProto__AttributeType)type;
    for (int32_t i = 0; i < n->n_attrs; i++)
        if (!n->attrs[i]) {
            n->attrs[i] = a;
            return a->name ? a : NULL;
        }
    n->attrs[n->n_attrs++] = a; /* at most ONNX_EXTRA are added to a node */
    return a->name ? a : NULL;
}

static mest_status give_int(onnx_importer *im, onnx_node *n, const char *name, int64_t value)
{
    Onnx__AttributeProto *a = give(im, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    if (!a)
        return out_of_memory(im, n);
    a->has_i = 1;
    a->i = value;
    return MEST_OK;
}

static mest_status give_text(onnx_importer *im, onnx_node *n, const char *name, const char *value)
{
    Onnx__AttributeProto *a = give(im, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    char *copy = mest_region_strdup(&im->scratch, value);
    if (!a || !copy)
        return out_of_memory(im, n);
    a->has_s = 1;
    a->s = (ProtobufCBinaryData){ strlen(copy), (uint8_t *)copy };
    return MEST_OK;
}

static void set_input(onnx_node *n, int32_t at, mest_id id)
{
    while (n->n_in <= at)
        n->in[n->n_in++] = MEST_NONE;
    n->in[at] = id;
}

/* List attribute `name` becomes input `at`, as int64 [n]. */
static mest_status ints_to_input(onnx_importer *im, onnx_node *n, const char *name, int32_t at)
{
    mest_status status = MEST_OK;
    const Onnx__AttributeProto *a = take(im, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS, &status);
    if (!a)
        return status;
    if (n->n_in > at)
        return wrong(im, n, MEST_E_FORMAT, "more inputs than its opset allows");
    static const int64_t none[1];
    mest_id id = mest_onnx_ints(im, a->n_ints ? a->ints : none, a->n_ints, false);
    if (id == MEST_NONE)
        return out_of_memory(im, n);
    set_input(n, at, id);
    return MEST_OK;
}

static mest_status float_to_input(onnx_importer *im, onnx_node *n, const char *name, int32_t at)
{
    mest_status status = MEST_OK;
    const Onnx__AttributeProto *a = take(im, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT, &status);
    if (!a)
        return status;
    if (n->n_in > at)
        return wrong(im, n, MEST_E_FORMAT, "more inputs than its opset allows");
    mest_id id = mest_onnx_float(im, a->f);
    if (id == MEST_NONE)
        return out_of_memory(im, n);
    set_input(n, at, id);
    return MEST_OK;
}

static mest_status axes_input(onnx_importer *im, onnx_node *n) { return ints_to_input(im, n, "axes", 1); }
static mest_status split_input(onnx_importer *im, onnx_node *n) { return ints_to_input(im, n, "split", 1); }

static mest_status clip(onnx_importer *im, onnx_node *n)
{
    MEST_TRY(float_to_input(im, n, "min", 1));
    return float_to_input(im, n, "max", 2);
}

static mest_status pad(onnx_importer *im, onnx_node *n)
{
    MEST_TRY(ints_to_input(im, n, "pads", 1));
    return float_to_input(im, n, "value", 2);
}

static mest_status slice(onnx_importer *im, onnx_node *n)
{
    MEST_TRY(ints_to_input(im, n, "starts", 1));
    MEST_TRY(ints_to_input(im, n, "ends", 2));
    return ints_to_input(im, n, "axes", 3);
}

static mest_status top_k(onnx_importer *im, onnx_node *n)
{
    mest_status status = MEST_OK;
    const Onnx__AttributeProto *a = take(im, n, "k", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT, &status);
    if (!a)
        return status;
    mest_id id = mest_onnx_ints(im, &a->i, 1, false);
    if (id == MEST_NONE)
        return out_of_memory(im, n);
    set_input(n, 1, id);
    return MEST_OK;
}

/* Below opset 12 there is no training_mode. A Dropout that is still in the file is there to be used in training. */
static mest_status dropout(onnx_importer *im, onnx_node *n)
{
    if (!onnx_attribute(n, "ratio")) {
        mest_id half = mest_onnx_float(im, 0.5);
        if (half == MEST_NONE)
            return out_of_memory(im, n);
        set_input(n, 1, half);
    } else {
        MEST_TRY(float_to_input(im, n, "ratio", 1));
    }
    const mest_type type = { .dtype = MEST_BOOL };
    const bool yes = true;
    mest_id mode = mest_graph_const(&im->m->graph, NULL, &type, &yes);
    if (mode == MEST_NONE)
        return out_of_memory(im, n);
    set_input(n, 2, mode);
    return MEST_OK;
}

/* The training form's extra outputs are the statistics, which the runtime keeps up by itself. */
static mest_status batch_norm(onnx_importer *im, onnx_node *n)
{
    for (int32_t k = 1; k < n->n_out; k++)
        if (n->out[k] != MEST_NONE)
            return wrong(im, n, MEST_E_UNSUPPORTED, "one of its outputs other than the first is used");
    return MEST_OK;
}

/* Before opset 14 five outputs meant training, one meant inference; `spatial` (below 9) must keep its default. */
static mest_status batch_norm_before_14(onnx_importer *im, onnx_node *n)
{
    MEST_TRY(batch_norm(im, n));
    mest_status status = MEST_OK;
    const Onnx__AttributeProto *spatial = take(im, n, "spatial", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT, &status);
    MEST_TRY(status);
    if (spatial && spatial->i != 1)
        return wrong(im, n, MEST_E_UNSUPPORTED, "spatial = 0 is not supported");
    return n->n_out > 1 ? give_int(im, n, "training_mode", 1) : MEST_OK;
}

/* Up to opset 10 scales are measured from the corner of the first pixel. */
static mest_status resize_as_before_11(onnx_importer *im, onnx_node *n)
{
    if (n->n_in == 2)
        set_input(n, 2, n->in[1]);
    if (n->n_in > 1)
        n->in[1] = MEST_NONE;
    MEST_TRY(give_text(im, n, "coordinate_transformation_mode", "asymmetric"));
    return give_text(im, n, "nearest_mode", "floor");
}

static mest_status upsample(onnx_importer *im, onnx_node *n)
{
    mest_status status = MEST_OK;
    const Onnx__AttributeProto *a = take(im, n, "scales", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS, &status);
    MEST_TRY(status);
    if (a && n->n_in == 1) { /* opset 7 and 8 */
        mest_type type = { .dtype = MEST_F32, .shape = { .rank = 1, .dim = { (int64_t)a->n_floats } } };
        mest_real *v = mest_region_alloc(&im->scratch, a->n_floats + 1, sizeof *v);
        if (!v)
            return out_of_memory(im, n);
        for (size_t i = 0; i < a->n_floats; i++)
            v[i] = a->floats[i];
        mest_id id = mest_graph_const(&im->m->graph, NULL, &type, v);
        if (id == MEST_NONE)
            return out_of_memory(im, n);
        set_input(n, 1, id);
    }
    return resize_as_before_11(im, n);
}

/* Opset 11 and 12 have no absent inputs in the middle: empty tensors stand for them. */
static mest_status resize_empty(onnx_importer *im, onnx_node *n)
{
    const mest_graph *g = &im->m->graph;
    for (int32_t i = 1; i < n->n_in; i++) {
        int64_t count;
        if (n->in[i] == MEST_NONE)
            continue;
        const mest_value *v = &g->values[n->in[i]];
        if ((v->kind == MEST_VALUE_CONST || v->kind == MEST_VALUE_PARAM) && mest_shape_count(&v->type.shape, &count) && count == 0)
            n->in[i] = MEST_NONE;
    }
    return MEST_OK;
}

/* Everything floating point is computed in one type. */
static mest_status cast(onnx_importer *im, onnx_node *n)
{
    mest_status status = MEST_OK;
    const Onnx__AttributeProto *a = onnx_attribute(n, "to");
    if (!a || (a->i != MEST_F16 && a->i != MEST_F64 && a->i != MEST_BF16))
        return MEST_OK;
    take(im, n, "to", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT, &status);
    MEST_TRY(status);
    return give_int(im, n, "to", MEST_F32);
}

typedef struct rule {
    const char *op;
    int64_t below;                                         /* applies to files with an opset below this */
    const char *to;                                        /* new name; NULL: the same */
    int64_t form;                                          /* the opset whose form results */
    mest_status (*apply)(onnx_importer *im, onnx_node *n);
} rule;

enum { ALWAYS = MEST_ONNX_MAX_OPSET + 1 };
static const rule rules[] = {
    { "Squeeze", 13, NULL, 13, axes_input },
    { "Unsqueeze", 13, NULL, 13, axes_input },
    { "ReduceSum", 13, NULL, 13, axes_input },
    { "ReduceMean", 18, NULL, 18, axes_input },
    { "ReduceMax", 18, NULL, 18, axes_input },
    { "ReduceMin", 18, NULL, 18, axes_input },
    { "ReduceProd", 18, NULL, 18, axes_input },
    { "ReduceL1", 18, NULL, 18, axes_input },
    { "ReduceL2", 18, NULL, 18, axes_input },
    { "ReduceLogSum", 18, NULL, 18, axes_input },
    { "ReduceLogSumExp", 18, NULL, 18, axes_input },
    { "ReduceSumSquare", 18, NULL, 18, axes_input },
    { "Split", 13, NULL, 13, split_input },
    { "Clip", 11, NULL, 11, clip },
    { "Pad", 11, NULL, 11, pad },
    { "Slice", 10, NULL, 10, slice },
    { "TopK", 10, NULL, 10, top_k },
    { "Dropout", 12, NULL, 12, dropout },
    { "BatchNormalization", 14, NULL, 15, batch_norm_before_14 },
    { "BatchNormalization", ALWAYS, NULL, 15, batch_norm },
    { "Upsample", ALWAYS, "Resize", 11, upsample },
    { "Resize", 11, NULL, 11, resize_as_before_11 },
    { "Resize", ALWAYS, NULL, 11, resize_empty },
    { "Cast", ALWAYS, NULL, 0, cast },
};

static const rule *find_rule(const onnx_node *n)
{
    if (*n->domain)
        return NULL;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (n->opset < rules[i].below && !strcmp(rules[i].op, n->op))
            return &rules[i];
    return NULL;
}

void mest_onnx_target(const onnx_node *n, const char **op, int64_t *opset)
{
    const rule *r = find_rule(n);
    *op = r && r->to ? r->to : n->op;
    *opset = r && r->form > n->opset ? r->form : n->opset;
}

mest_status mest_onnx_normalise(onnx_importer *im, onnx_node *n)
{
    const rule *r = find_rule(n);
    if (r)
        MEST_TRY(r->apply(im, n));
    mest_onnx_target(n, &n->op, &n->opset);
    return MEST_OK;
}
