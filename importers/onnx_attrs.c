/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes of a node to the params structure of its operator, by the operator's table. */
#include "importers/onnx.h"

static const int wire_type[] = {
    [MEST_ATTR_INT] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT,       [MEST_ATTR_FLOAT] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT,
    [MEST_ATTR_STRING] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING, [MEST_ATTR_INTS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS,
    [MEST_ATTR_FLOATS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS, [MEST_ATTR_TENSOR] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR,
    [MEST_ATTR_STRINGS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS,
};
static const char *const kind_text[] = { "an integer", "a number", "text", "a list of integers", "a list of numbers", "a tensor", "a list of texts" };

/* Attributes that an operator need not know as long as they say nothing new. ANY: they never matter here. */
enum { IS_INT, IS_FLOAT, IS_TEXT, ANY };
static const struct {
    const char *name;
    int kind;
    double number;
    const char *text;
} harmless[] = {
    { "seed", ANY, 0, NULL },              { "storage_order", IS_INT, 0, NULL },    { "ceil_mode", IS_INT, 0, NULL },
    { "count_include_pad", IS_INT, 0, NULL }, { "allowzero", IS_INT, 0, NULL },     { "exclude_outside", IS_INT, 0, NULL },
    { "extrapolation_value", IS_FLOAT, 0, NULL }, { "cubic_coeff_a", IS_FLOAT, -0.75, NULL }, { "antialias", IS_INT, 0, NULL },
    { "keep_aspect_ratio_policy", IS_TEXT, 0, "stretch" }, { "noop_with_empty_axes", IS_INT, 0, NULL }, { "saturate", IS_INT, 1, NULL },
    { "stash_type", IS_INT, 1, NULL },     { "select_last_index", IS_INT, 0, NULL }, { "training_mode", IS_INT, 0, NULL },
    { "num_outputs", ANY, 0, NULL },       { "mode", IS_TEXT, 0, "constant" },      { "approximate", IS_TEXT, 0, "none" },
    { "batch_dims", IS_INT, 0, NULL },     { "start", IS_INT, 0, NULL },            { "auto_pad", IS_TEXT, 0, "NOTSET" },
};

static bool text_is(const ProtobufCBinaryData *s, const char *text) { return s->len == strlen(text) && !memcmp(s->data, text, s->len); }

static bool says_nothing(const Onnx__AttributeProto *a)
{
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        if (strcmp(harmless[i].name, a->name))
            continue;
        switch (harmless[i].kind) {
        case ANY: return true;
        case IS_INT: return a->has_i && (double)a->i == harmless[i].number;
        case IS_FLOAT: return a->has_f && a->f == (float)harmless[i].number;
        default: return a->has_s && text_is(&a->s, harmless[i].text);
        }
    }
    return false;
}

static mest_status out_of_memory(onnx_importer *im, const onnx_node *n)
{
    return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': %s '%s': out of memory", im->path, n->op, n->name);
}

static mest_status store_text(onnx_importer *im, const onnx_node *n, const Onnx__AttributeProto *a, const ProtobufCBinaryData *s, const char **to)
{
    char *text = mest_region_alloc(&im->m->graph.region, s->len + 1, 1);
    if (!text)
        return out_of_memory(im, n);
    MEST_CHECK(!s->len || !memchr(s->data, 0, s->len), im->err, MEST_E_FORMAT, "onnx '%s': %s '%s': attribute '%s' has a NUL byte in it",
               im->path, n->op, n->name, a->name);
    if (s->len)
        memcpy(text, s->data, s->len);
    *to = text;
    return MEST_OK;
}

static mest_status store(onnx_importer *im, const onnx_node *n, const mest_attr *want, const Onnx__AttributeProto *a, char *params)
{
    mest_region *region = &im->m->graph.region;
    void *field = params + want->offset;
    MEST_CHECK((!a->has_type || (int)a->type == wire_type[want->kind]) && (want->kind != MEST_ATTR_TENSOR || a->t), im->err, MEST_E_FORMAT,
               "onnx '%s': %s '%s': attribute '%s' is not %s", im->path, n->op, n->name, a->name, kind_text[want->kind]);
    switch (want->kind) {
    case MEST_ATTR_INT:
        *(int64_t *)field = a->i;
        if (want->given_used)
            *(int32_t *)((char *)field + sizeof(int64_t)) = 1;
        return MEST_OK;
    case MEST_ATTR_FLOAT: *(double *)field = a->f; return MEST_OK;
    case MEST_ATTR_STRING: return store_text(im, n, a, &a->s, field);
    case MEST_ATTR_STRINGS: {
        const char **v = mest_region_alloc(region, a->n_strings + 1, sizeof *v);
        if (!v)
            return out_of_memory(im, n);
        for (size_t i = 0; i < a->n_strings; i++)
            MEST_TRY(store_text(im, n, a, &a->strings[i], &v[i]));
        *(mest_strings *)field = (mest_strings){ (int32_t)a->n_strings, v };
        return MEST_OK;
    }
    case MEST_ATTR_INTS: {
        int64_t *v = mest_region_alloc(region, a->n_ints + 1, sizeof *v);
        if (!v)
            return out_of_memory(im, n);
        if (a->n_ints)
            memcpy(v, a->ints, a->n_ints * sizeof *v);
        *(mest_ints *)field = (mest_ints){ (int32_t)a->n_ints, v };
        return MEST_OK;
    }
    case MEST_ATTR_FLOATS: {
        double *v = mest_region_alloc(region, a->n_floats + 1, sizeof *v);
        if (!v)
            return out_of_memory(im, n);
        for (size_t i = 0; i < a->n_floats; i++)
            v[i] = a->floats[i];
        *(mest_floats *)field = (mest_floats){ (int32_t)a->n_floats, v };
        return MEST_OK;
    }
    case MEST_ATTR_TENSOR: {
        mest_attr_tensor *t = field;
        mest_shape shape;
        mest_payload payload;
        bool external;
        MEST_TRY(mest_onnx_payload(im, a->t, n->name, &shape, &payload, &external));
        im->external_attribute |= external;
        return mest_onnx_constant_data(im, n->name, &shape, &payload, &t->type, &t->data);
    }
    }
    return MEST_OK;
}

mest_status mest_onnx_params(onnx_importer *im, const onnx_node *n, const mest_op *op, const void **params)
{
    uint64_t seen = 0;
    char *p = NULL;
    *params = NULL;
    if (op->params_bytes) {
        p = mest_region_alloc(&im->m->graph.region, 1, op->params_bytes);
        if (!p)
            return out_of_memory(im, n);
        for (const mest_attr *w = op->attrs; w && w->name; w++) {
            if (w->kind == MEST_ATTR_INT)
                *(int64_t *)(void *)(p + w->offset) = (int64_t)w->number;
            else if (w->kind == MEST_ATTR_FLOAT)
                *(double *)(void *)(p + w->offset) = w->number;
            else if (w->kind == MEST_ATTR_STRING)
                *(const char **)(void *)(p + w->offset) = w->text;
        }
        *params = p;
    }
    for (int32_t i = 0; i < n->n_attrs; i++) {
        const Onnx__AttributeProto *a = n->attrs[i];
        if (!a)
            continue;
        int k = 0;
        const mest_attr *w = op->attrs;
        while (w && w->name && strcmp(w->name, a->name))
            w++, k++;
        if (!w || !w->name) {
            MEST_CHECK(says_nothing(a), im->err, MEST_E_UNSUPPORTED, "onnx '%s': %s '%s': attribute '%s' is not supported", im->path, n->op,
                       n->name, a->name);
            continue;
        }
        MEST_CHECK(!(seen >> k & 1), im->err, MEST_E_FORMAT, "onnx '%s': %s '%s': attribute '%s' comes twice", im->path, n->op, n->name, a->name);
        seen |= (uint64_t)1 << k;
        MEST_TRY(store(im, n, w, a, p));
    }
    int k = 0;
    for (const mest_attr *w = op->attrs; w && w->name; w++, k++)
        MEST_CHECK(!w->required || seen >> k & 1, im->err, MEST_E_FORMAT, "onnx '%s': %s '%s': attribute '%s' is missing", im->path, n->op,
                   n->name, w->name);
    return MEST_OK;
}
