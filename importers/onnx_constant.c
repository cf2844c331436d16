/* SPDX-License-Identifier: Apache-2.0 */
/* Constants of the graph: values of Constant nodes, and those that normalisation makes from attributes. */
#include "importers/onnx.h"

static mest_id add_constant(onnx_importer *im, const char *name, const mest_type *type, const void *data)
{
    mest_graph *g = &im->m->graph;
    mest_id id = mest_graph_value(g, name, MEST_VALUE_CONST, type);
    if (id != MEST_NONE)
        g->values[id].data = data;
    return id;
}

mest_id mest_onnx_ints(onnx_importer *im, const int64_t *values, size_t n, bool scalar)
{
    mest_type type = { .dtype = MEST_I64, .shape = { .rank = scalar ? 0 : 1, .dim = { (int64_t)n } } };
    return mest_graph_const(&im->m->graph, NULL, &type, values);
}

mest_id mest_onnx_float(onnx_importer *im, double value)
{
    mest_type type = { .dtype = MEST_F32 };
    mest_real v = (mest_real)value;
    return mest_graph_const(&im->m->graph, NULL, &type, &v);
}

mest_status mest_onnx_constant_node(onnx_importer *im, const onnx_node *n, mest_id *value)
{
    mest_type type = { .dtype = MEST_UNDEFINED };
    const void *data = NULL;
    mest_shape shape;
    mest_payload payload;
    bool external = false;
    const Onnx__AttributeProto *a = n->n_attrs == 1 ? n->attrs[0] : NULL;
    MEST_CHECK(a && n->n_in == 0 && n->n_out == 1, im->err, MEST_E_FORMAT, "onnx '%s': Constant '%s' must have one value, no input and one output",
               im->path, n->name);
    if (!strcmp(a->name, "value") && a->t) {
        MEST_TRY(mest_onnx_payload(im, a->t, n->out_names[0], &shape, &payload, &external));
        MEST_TRY(mest_onnx_constant_data(im, n->out_names[0], &shape, &payload, &type, &data));
    } else if (!strcmp(a->name, "sparse_value") && a->sparse_tensor) {
        MEST_TRY(mest_onnx_sparse_payload(im, a->sparse_tensor, n->out_names[0], &shape, &payload, &external));
        MEST_TRY(mest_onnx_constant_data(im, n->out_names[0], &shape, &payload, &type, &data));
    } else {
        bool one_float = !strcmp(a->name, "value_float"), floats = !strcmp(a->name, "value_floats");
        bool one_int = !strcmp(a->name, "value_int"), ints = !strcmp(a->name, "value_ints");
        MEST_CHECK(one_float || floats || one_int || ints, im->err, MEST_E_UNSUPPORTED, "onnx '%s': Constant '%s' has attribute '%s', which is not supported",
                   im->path, n->name, a->name);
        size_t count = floats ? a->n_floats : ints ? a->n_ints : 1;
        type.dtype = one_float || floats ? MEST_F32 : MEST_I64;
        type.shape = (mest_shape){ .rank = floats || ints, .dim = { (int64_t)count } };
        char *out = mest_region_alloc(&im->m->graph.region, count + 16, mest_dtype_size(type.dtype));
        MEST_CHECK(out, im->err, MEST_E_NOMEM, "onnx '%s': Constant '%s': out of memory", im->path, n->name);
        for (size_t i = 0; i < count; i++)
            if (type.dtype == MEST_F32)
                ((mest_real *)(void *)out)[i] = one_float ? a->f : a->floats[i];
            else
                ((int64_t *)(void *)out)[i] = one_int ? a->i : a->ints[i];
        data = out;
    }
    im->external_attribute |= external;
    *value = add_constant(im, n->out_names[0], &type, data);
    MEST_CHECK(*value != MEST_NONE, im->err, MEST_E_NOMEM, "onnx '%s': Constant '%s': out of memory", im->path, n->name);
    return MEST_OK;
}
