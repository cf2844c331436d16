/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/backend/upgrade.h"

#include <stdio.h>
#include <stdlib.h>
#include <stdbool.h>
#include <string.h>

#include "onnx.pb-c.h"

/* Takes attribute `name` away; its integer value, or -1 if there was none. */
static int64_t drop(Onnx__NodeProto *n, const char *name)
{
    int64_t value = -1;
    size_t keep = 0;
    for (size_t i = 0; i < n->n_attribute; i++) {
        if (strcmp(n->attribute[i]->name, name)) {
            n->attribute[keep++] = n->attribute[i];
            continue;
        }
        value = n->attribute[i]->i;
        onnx__attribute_proto__free_unpacked(n->attribute[i], NULL);
    }
    n->n_attribute = keep;
    return value;
}

static int rank_of_value(Onnx__ValueInfoProto *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i]->name, name) && list[i]->type && list[i]->type->tensor_type && list[i]->type->tensor_type->shape)
            return (int)list[i]->type->tensor_type->shape->n_dim;
    return -1;
}

static int rank_of(const Onnx__GraphProto *g, const char *name)
{
    int r = rank_of_value(g->input, g->n_input, name);
    return r >= 0 ? r : rank_of_value(g->value_info, g->n_value_info, name);
}

/* b[axis...] broadcast into a from axis on: gives B trailing axes of size 1 by changing the declared shapes of an input or initializer. */
static int widen(Onnx__GraphProto *g, const char *name, int more)
{
    for (size_t i = 0; i < g->n_initializer; i++)
        if (!strcmp(g->initializer[i]->name, name)) {
            Onnx__TensorProto *t = g->initializer[i];
            t->dims = realloc(t->dims, (t->n_dims + (size_t)more) * sizeof *t->dims);
            for (int k = 0; k < more; k++)
                t->dims[t->n_dims++] = 1;
            for (size_t k = 0; k < g->n_input; k++) /* files of that age list initializers as inputs */
                if (!strcmp(g->input[k]->name, name)) {
                    Onnx__ValueInfoProto *v = g->input[k];
                    onnx__value_info_proto__free_unpacked(v, NULL);
                    memmove(&g->input[k], &g->input[k + 1], (g->n_input - k - 1) * sizeof *g->input);
                    g->n_input--;
                    break;
                }
            return 1;
        }
    return 0;
}

static int upgrade(Onnx__ModelProto *m)
{
    Onnx__GraphProto *g = m->graph;
    for (size_t i = 0; i < g->n_node; i++) {
        Onnx__NodeProto *n = g->node[i];
        drop(n, "is_test");
        drop(n, "consumed_inputs");
        static const char *const arithmetic[] = {"Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Less", "Greater", "Gemm", "PRelu"};
        bool is = false;
        for (size_t k = 0; k < sizeof arithmetic / sizeof *arithmetic; k++)
            is |= !strcmp(n->op_type, arithmetic[k]);
        if (!is || n->n_input < 2)
            continue;
        drop(n, "broadcast");
        int64_t axis = strcmp(n->op_type, "Gemm") ? drop(n, "axis") : -1;
        if (axis < 0 && strcmp(n->op_type, "PRelu"))
            continue;
        int a = rank_of(g, n->input[0]), b = -1;
        for (size_t k = 0; k < g->n_initializer; k++)
            if (!strcmp(g->initializer[k]->name, n->input[1]))
                b = (int)g->initializer[k]->n_dims;
        if (axis < 0)
            axis = 1; /* PRelu: slopes of channels */
        if (a < 0 || b < 0)
            return 0;
        if (a - (int)axis - b > 0 && !widen(g, n->input[1], a - (int)axis - b))
            return 0;
    }
    for (size_t i = 0; i < m->n_opset_import; i++)
        m->opset_import[i]->version = 7;
    return 1;
}

const char *upgrade_model(const char *from, const char *to)
{
    const char *result = from;
    static uint8_t bytes[1 << 22];
    FILE *f = fopen(from, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f)
        fclose(f);
    Onnx__ModelProto *m = n > 0 && n < sizeof bytes ? onnx__model_proto__unpack(NULL, n, bytes) : NULL;
    if (m && m->graph && m->n_opset_import == 1 && (m->opset_import[0]->version == 6 || m->opset_import[0]->version == 1) && upgrade(m)) {
        n = onnx__model_proto__get_packed_size(m);
        f = n < sizeof bytes ? fopen(to, "wb") : NULL;
        if (f) {
            onnx__model_proto__pack(m, bytes);
            if (fwrite(bytes, 1, n, f) == n)
                result = to;
            fclose(f);
        }
    }
    if (m)
        onnx__model_proto__free_unpacked(m, NULL);
    return result;
}
