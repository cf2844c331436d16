/* SPDX-License-Identifier: Apache-2.0 */
/* Rewriting of the file's nodes before they become nodes of the graph: other operators, attributes made here, nodes put in between; and
 * what is rewritten because it is longer in the file than here: products of more than two operands. */
#include <stdio.h>

#include "importers/onnx.h"

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

static Onnx__AttributeProto *attribute(onnx_importer *im, const char *name, Onnx__AttributeProto__AttributeType type)
{
    Onnx__AttributeProto *a = mest_region_alloc(&im->scratch, 1, sizeof *a);
    if (a) {
        a->name = (char *)(uintptr_t)name;
        a->has_type = 1;
        a->type = type;
    }
    return a;
}

Onnx__AttributeProto *mest_onnx_ints_attribute(onnx_importer *im, const char *name, int64_t value)
{
    Onnx__AttributeProto *a = attribute(im, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    if (a && (a->ints = mest_region_alloc(&im->scratch, 1, sizeof *a->ints)) != NULL)
        a->n_ints = 1, a->ints[0] = value;
    return a && a->ints ? a : NULL;
}

Onnx__AttributeProto *mest_onnx_int_attribute(onnx_importer *im, const char *name, int64_t value)
{
    Onnx__AttributeProto *a = attribute(im, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    if (a)
        a->has_i = 1, a->i = value;
    return a;
}

mest_status mest_onnx_become(onnx_importer *im, onnx_node *n, const char *op, int64_t opset, int n_in, const char *const *in, int n_attrs,
                          Onnx__AttributeProto *const *attrs)
{
    n->op = op;
    n->opset = opset;
    n->inlined = true; /* not a node of the file any more; an Identity made here is no alias that the exporter wrote */
    n->in_names = mest_region_alloc(&im->scratch, (size_t)n_in + 1, sizeof *n->in_names);
    n->in = mest_region_alloc(&im->scratch, (size_t)n_in + ONNX_EXTRA, sizeof *n->in);
    n->attrs = mest_region_alloc(&im->scratch, (size_t)n_attrs + ONNX_EXTRA, sizeof *n->attrs);
    if (!n->in_names || !n->in || !n->attrs)
        return out_of_memory(im);
    for (int i = 0; i < n_in; i++)
        n->in_names[i] = in[i];
    for (int i = 0; i < n_attrs; i++) {
        if (!attrs[i])
            return out_of_memory(im);
        n->attrs[i] = attrs[i];
    }
    n->n_in = n->n_names = n_in;
    n->n_attrs = n_attrs;
    return MEST_OK;
}

mest_status mest_onnx_insert(onnx_importer *im, const onnx_node *like, const char *op, int64_t opset, int n_in, const char *const *in, const char *out,
                             int n_attrs, Onnx__AttributeProto *const *attrs)
{
    onnx_node n = *like;
    n.origin = -1;
    n.n_out = 1;
    n.out_names = mest_region_alloc(&im->scratch, 1, sizeof *n.out_names);
    n.out = mest_region_alloc(&im->scratch, 1, sizeof *n.out);
    if (!n.out_names || !n.out || !MEST_REGION_GROW(&im->scratch, im->nodes, im->n_nodes, im->cap_nodes))
        return out_of_memory(im);
    n.out_names[0] = out;
    n.name = out;
    MEST_TRY(mest_onnx_become(im, &n, op, opset, n_in, in, n_attrs, attrs));
    im->nodes[im->n_nodes++] = n;
    return MEST_OK;
}

mest_status mest_onnx_insert_late(onnx_importer *im, const char *op, int64_t opset, int n_in, const char *const *in, const char *out, int n_attrs,
                                  Onnx__AttributeProto *const *attrs)
{
    const onnx_node like = { .domain = "" };
    MEST_TRY(mest_onnx_insert(im, &like, op, opset, n_in, in, out, n_attrs, attrs));
    MEST_TRY(mest_onnx_survey_add(im, &im->nodes[im->n_nodes - 1]));
    for (int i = 0; i < n_in; i++)
        onnx_find_symbol(im, in[i])->uses++;
    return mest_onnx_add_symbol(im, out, -1, MEST_NONE);
}

Onnx__AttributeProto *mest_onnx_text_attribute(onnx_importer *im, const char *name, const char *value)
{
    Onnx__AttributeProto *a = attribute(im, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    if (a) {
        a->has_s = 1;
        a->s = (ProtobufCBinaryData){ strlen(value), (uint8_t *)(uintptr_t)value };
    }
    return a;
}

/* ---- Einsum ---- */

enum { EINSUM_TERMS = 16, EINSUM_LABELS = 64, ELLIPSIS = '.' };
typedef struct term { char label[EINSUM_LABELS]; } term; /* text; "..." is one '.' */

static bool read_term(const char **at, term *t)
{
    int n = 0;
    for (; **at && **at != ',' && strncmp(*at, "->", 2) != 0; ++*at) {
        if (**at == ' ')
            continue;
        if (!strncmp(*at, "...", 3))
            *at += 2;
        if (n == EINSUM_LABELS - 1)
            return false;
        t->label[n++] = **at;
    }
    t->label[n] = 0;
    return true;
}

/* "ij,jk,k" and what follows "->", or what follows from the labels: those that come once, in order, "..." first. */
static bool read_equation(const char *text, term *in, int n_in, term *out)
{
    int count[128] = { 0 }, n = 0;
    for (int i = 0; i < n_in; i++) {
        if (!read_term(&text, &in[i]) || (*text == ',') != (i + 1 < n_in))
            return false;
        text += *text == ',';
        for (const char *c = in[i].label; *c; c++)
            count[*c & 127]++;
    }
    if (!strncmp(text, "->", 2)) {
        text += 2;
        return read_term(&text, out) && !*text;
    }
    for (int c = 0; c < 128; c++)
        if (c == ELLIPSIS ? count[c] > 0 : count[c] == 1)
            out->label[n++] = (char)c;
    out->label[n] = 0;
    return n < EINSUM_LABELS && !*text;
}

/* Labels of a and b that c.. or the result still need. */
static void meet(const term *a, const term *b, const term *rest, int n_rest, const term *out, term *result)
{
    int n = 0;
    for (int side = 0; side < 2; side++)
        for (const char *c = side ? b->label : a->label; *c; c++) {
            bool wanted = strchr(out->label, *c) != NULL;
            for (int i = 0; i < n_rest; i++)
                wanted |= strchr(rest[i].label, *c) != NULL;
            result->label[n] = 0;
            if (wanted && !strchr(result->label, *c) && n < EINSUM_LABELS - 1)
                result->label[n++] = *c;
        }
    result->label[n] = 0;
}

static const char *write_equation(onnx_importer *im, const term *a, const term *b, const term *out)
{
    char text[3 * EINSUM_LABELS + 24];
    size_t n = 0;
    const term *terms[3] = { a, b, out };
    for (int i = 0; i < 3; i++) {
        for (const char *c = terms[i]->label; *c; c++)
            n += (size_t)snprintf(text + n, sizeof text - n, *c == ELLIPSIS ? "..." : "%c", *c);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s", i == 0 ? "," : i == 1 ? "->" : "");
    }
    return mest_region_strdup(&im->scratch, text);
}

static mest_status split_einsum(onnx_importer *im, int32_t at)
{
    const onnx_node *n = &im->nodes[at];
    const Onnx__AttributeProto *a = onnx_attribute(n, "equation");
    term in[EINSUM_TERMS], out;
    char text[512];
    if (!a || n->n_in > EINSUM_TERMS || a->s.len >= sizeof text)
        return MEST_OK; /* refused later, by the operator */
    memcpy(text, a->s.data, a->s.len);
    text[a->s.len] = 0;
    if (!read_equation(text, in, n->n_in, &out))
        return MEST_OK;
    const int n_in = n->n_in;
    const char *left = n->in_names[0], *right = n->in_names[1];
    const char **names = n->in_names;
    const char *result = n->out_names[0];
    term have = in[0];
    for (int i = 1; i < n_in; i++) {
        bool last = i + 1 == n_in;
        term next = out;
        if (!last)
            meet(&have, &in[i], in + i + 1, n_in - i - 1, &out, &next);
        const char *equation = write_equation(im, &have, &in[i], &next), *name = last ? result : mest_region_printf(&im->scratch, "%.200s/%d", result, i);
        if (!equation || !name)
            return out_of_memory(im);
        Onnx__AttributeProto *attrs[1] = { mest_onnx_text_attribute(im, "equation", equation) };
        right = names[i];
        const char *pair[2] = { left, right };
        MEST_TRY(last ? mest_onnx_become(im, &im->nodes[at], "Einsum", 12, 2, pair, 1, attrs) : mest_onnx_insert(im, &im->nodes[at], "Einsum", 12, 2, pair, name, 1, attrs));
        left = name;
        have = next;
    }
    return MEST_OK;
}

mest_status mest_onnx_split_products(onnx_importer *im)
{
    for (int32_t i = 0, n = im->n_nodes; i < n; i++)
        if (!*im->nodes[i].domain && !strcmp(im->nodes[i].op, "Einsum") && im->nodes[i].n_in > 2 && im->nodes[i].n_out == 1)
            MEST_TRY(split_einsum(im, i));
    return MEST_OK;
}
