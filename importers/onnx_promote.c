/* SPDX-License-Identifier: Apache-2.0 */
/* Constants that the caller calls parameters (mest_model_options.trainable): outputs of Constant nodes, and initializers whose role would
 * be another one. Files written by other converters than PyTorch's hold weights as Constant nodes. */
#include "importers/onnx.h"

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

/* The tensor of a Constant node of the main graph that can become a parameter; NULL: it is none. */
static const Onnx__TensorProto *float_tensor(const onnx_node *n)
{
    if (n->skip || n->inlined || n->guard || n->origin < 0 || !onnx_is_constant(n) || n->n_out != 1 || n->n_attrs != 1)
        return NULL;
    const Onnx__AttributeProto *a = n->attrs[0];
    if (strcmp(a->name, "value") || !a->t)
        return NULL;
    const int type = a->t->data_type;
    return type == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT || type == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16 || type == ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16 ||
                   type == ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE
               ? a->t
               : NULL;
}

static bool matches_something(const onnx_importer *im, const char *pattern)
{
    for (int32_t i = 0; i < im->n_tensors; i++)
        if (im->tensors[i].is_float && mest_match_any(pattern, im->tensors[i].name))
            return true;
    for (int32_t i = 0; i < im->n_nodes; i++)
        if (float_tensor(&im->nodes[i]) && mest_match_any(pattern, im->nodes[i].out_names[0]))
            return true;
    return false;
}

mest_status mest_onnx_promote_initializers(onnx_importer *im)
{
    for (const char *word = im->trainable; word && *word;) {
        size_t n = strcspn(word, ",");
        const char *pattern = mest_region_printf(&im->scratch, "%.*s", (int)n, word);
        if (!pattern)
            return out_of_memory(im);
        MEST_CHECK(n == 0 || matches_something(im, pattern), im->err, MEST_E_ARGUMENT,
                   "onnx '%s': trainable: '%s' matches no floating-point initializer and no output of a Constant node", im->path, pattern);
        word += n + (word[n] == ',');
    }
    for (int32_t i = 0; im->trainable && i < im->n_tensors; i++)
        if (im->tensors[i].is_float && mest_match_any(im->trainable, im->tensors[i].name))
            im->tensors[i].kind = KIND_PARAMETER;
    return MEST_OK;
}

/* The exporter leaves the node out and writes an initializer of the output's name: the same notes as for untied Identity nodes. */
static mest_status promote(onnx_importer *im, onnx_node *n, const Onnx__TensorProto *pb, mest_onnx_notes *notes)
{
    onnx_tensor t = { .value = MEST_NONE, .param = -1, .kind = KIND_PARAMETER };
    onnx_symbol *s = onnx_find_symbol(im, n->out_names[0]);
    MEST_CHECK(s && !s->is_output, im->err, MEST_E_UNSUPPORTED, "onnx '%s': trainable: Constant '%s' is an output of the graph", im->path, n->out_names[0]);
    t.name = mest_region_strdup(&im->m->region, n->out_names[0]);
    if (!t.name)
        return out_of_memory(im);
    MEST_TRY(mest_onnx_payload(im, pb, t.name, &t.shape, &t.payload, &t.external));
    MEST_TRY(mest_onnx_add_param(im, &t, t.name, &t.param));
    mest_type type = { .dtype = MEST_F32, .shape = t.shape };
    s->value = mest_graph_value(&im->m->graph, t.name, MEST_VALUE_PARAM, &type);
    if (s->value == MEST_NONE)
        return out_of_memory(im);
    im->m->graph.values[s->value].param = t.param;
    n->skip = true;

    const size_t count = (size_t)notes->n_dropped + 1;
    int32_t *dropped = mest_region_alloc(&im->m->region, count, sizeof *dropped), *added = mest_region_alloc(&im->m->region, count, sizeof *added);
    if (!dropped || !added)
        return out_of_memory(im);
    int32_t at = 0;
    for (; at < notes->n_dropped && notes->dropped[at] < n->origin; at++) {
        dropped[at] = notes->dropped[at];
        added[at] = notes->added[at];
    }
    dropped[at] = n->origin;
    added[at] = t.param;
    for (; at < notes->n_dropped; at++) {
        dropped[at + 1] = notes->dropped[at];
        added[at + 1] = notes->added[at];
    }
    notes->dropped = dropped;
    notes->added = added;
    notes->n_dropped++;
    return MEST_OK;
}

mest_status mest_onnx_promote_constants(onnx_importer *im, mest_onnx_notes *notes)
{
    for (int32_t i = 0; im->trainable && i < im->n_nodes; i++) {
        const Onnx__TensorProto *pb = float_tensor(&im->nodes[i]);
        if (pb && mest_match_any(im->trainable, im->nodes[i].out_names[0]))
            MEST_TRY(promote(im, &im->nodes[i], pb, notes));
    }
    return MEST_OK;
}
