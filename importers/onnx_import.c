/* SPDX-License-Identifier: Apache-2.0 */
/* ONNX file to graph and parameters: map, scan, unpack, check, inline functions, name everything, build nodes, decide roles. */
#include <inttypes.h>
#include <stdio.h>

#include "importers/onnx.h"
#include "importers/wire.h"

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

static mest_status bad(onnx_importer *im, const char *what, const char *name)
{
    return mest_fail(im->err, MEST_E_FORMAT, "onnx '%s': %s '%s'", im->path, what, name);
}

static bool is_float(mest_dtype t) { return t == MEST_F32 || t == MEST_F16 || t == MEST_BF16 || t == MEST_F64; }

/* ---- the file ---- */

static mest_status unpack(onnx_importer *im, size_t max_bytes)
{
    const mest_mapping *file = im->m->mappings;
    MEST_TRY(mest_prescan_run(&im->scan, &im->m->heap, im->path, file->bytes, file->size, max_bytes, im->err));
    size_t used = im->scan.size + im->scan.n_payloads * sizeof *im->scan.payloads;
    mest_onnx_arena_init(&im->arena, &im->m->heap, max_bytes - used);
    im->pb = onnx__model_proto__unpack(&im->arena.allocator, im->scan.size, im->scan.bytes);
    if (im->pb)
        return MEST_OK;
    if (im->arena.over)
        return mest_fail(im->err, MEST_E_LIMIT, "onnx '%s': the model without its tensors needs more than %zu bytes", im->path, max_bytes);
    if (im->arena.failed)
        return out_of_memory(im);
    return mest_fail(im->err, MEST_E_FORMAT, "onnx '%s': byte 0: not an ONNX model (the message cannot be unpacked)", im->path);
}

/* metadata_props of the model: small texts, kept for mest_model_metadata. */
static mest_status read_metadata(onnx_importer *im)
{
    const Onnx__ModelProto *pb = im->pb;
    mest_model *m = im->m;
    m->metadata = mest_region_alloc(&m->region, pb->n_metadata_props + 1, sizeof *m->metadata);
    if (!m->metadata)
        return out_of_memory(im);
    for (size_t i = 0; i < pb->n_metadata_props; i++) {
        mest_metadata *d = &m->metadata[m->n_metadata++];
        d->key = mest_region_strdup(&m->region, onnx_text(pb->metadata_props[i]->key));
        d->value = mest_region_strdup(&m->region, onnx_text(pb->metadata_props[i]->value));
        if (!d->key || !d->value)
            return out_of_memory(im);
    }
    return MEST_OK;
}

static mest_status check_header(onnx_importer *im)
{
    const Onnx__ModelProto *pb = im->pb;
    MEST_CHECK(pb->graph, im->err, MEST_E_FORMAT, "onnx '%s': not an ONNX model (no graph)", im->path);
    MEST_CHECK(pb->ir_version >= MEST_ONNX_MIN_IR && pb->ir_version <= MEST_ONNX_MAX_IR, im->err, MEST_E_UNSUPPORTED,
               "onnx '%s': IR version %" PRId64 " is not supported (%d to %d are)", im->path, (int64_t)pb->ir_version, MEST_ONNX_MIN_IR, MEST_ONNX_MAX_IR);
    for (size_t i = 0; i < pb->n_opset_import; i++)
        if (!*onnx_domain(onnx_text(pb->opset_import[i]->domain)) && pb->opset_import[i]->version > im->opset)
            im->opset = pb->opset_import[i]->version;
    MEST_CHECK(im->opset, im->err, MEST_E_FORMAT, "onnx '%s': no opset_import of the ONNX domain", im->path);
    im->m->ir_version = pb->ir_version;
    im->m->opset = im->opset;
    im->m->producer = mest_region_strdup(&im->m->region, onnx_text(pb->producer_name));
    im->m->graph_name = mest_region_strdup(&im->m->region, onnx_text(pb->graph->name));
    return im->m->producer && im->m->graph_name ? MEST_OK : out_of_memory(im);
}

/* ---- names ---- */

mest_status mest_onnx_add_symbol(onnx_importer *im, const char *name, int32_t tensor, mest_id value)
{
    if (!MEST_REGION_GROW(&im->scratch, im->symbols, im->n_symbols, im->cap_symbols))
        return out_of_memory(im);
    im->symbols[im->n_symbols] = (onnx_symbol){ .name = name, .tensor = tensor, .value = value };
    return mest_strmap_put(&im->names, name, im->n_symbols++) ? MEST_OK : out_of_memory(im);
}

static mest_status read_tensors(onnx_importer *im)
{
    const Onnx__GraphProto *g = im->pb->graph;
    size_t n = g->n_initializer + g->n_sparse_initializer;
    MEST_CHECK(n < INT32_MAX, im->err, MEST_E_LIMIT, "onnx '%s': too many initializers", im->path);
    im->tensors = mest_region_alloc(&im->scratch, n + 1, sizeof *im->tensors);
    if (!im->tensors)
        return out_of_memory(im);
    for (size_t i = 0; i < n; i++) {
        onnx_tensor *t = &im->tensors[i];
        bool dense = i < g->n_initializer;
        const Onnx__SparseTensorProto *sparse = dense ? NULL : g->sparse_initializer[i - g->n_initializer];
        const Onnx__TensorProto *pb = dense ? g->initializer[i] : sparse->values;
        const char *name = pb ? onnx_text(pb->name) : "";
        MEST_CHECK(*name, im->err, MEST_E_FORMAT, "onnx '%s': initializer %zu has no name", im->path, i);
        if (onnx_find_symbol(im, name))
            return bad(im, "two initializers have the name", name);
        t->name = mest_region_strdup(&im->m->region, name);
        if (!t->name)
            return out_of_memory(im);
        t->value = MEST_NONE;
        t->param = -1;
        mest_status status = dense ? mest_onnx_payload(im, pb, name, &t->shape, &t->payload, &t->external)
                                   : mest_onnx_sparse_payload(im, sparse, name, &t->shape, &t->payload, &t->external);
        if (status == MEST_E_UNSUPPORTED)
            status = mest_onnx_stand_in_value(im, t->name, "initializer", NULL, status, &t->value);
        MEST_TRY(status);
        t->is_float = is_float(t->payload.dtype) && t->value == MEST_NONE;
        im->n_tensors++;
        MEST_TRY(mest_onnx_add_symbol(im, t->name, (int32_t)i, MEST_NONE));
    }
    return MEST_OK;
}

/* Declared type of an input or output; dimensions that are not numbers are -1. False when it is not a tensor with a shape. */
bool mest_onnx_read_type(const Onnx__ValueInfoProto *v, mest_type *type)
{
    memset(type, 0, sizeof *type);
    if (!v->type || v->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        return false;
    const Onnx__TypeProto__Tensor *t = v->type->tensor_type;
    mest_dtype dtype = (mest_dtype)t->elem_type;
    if (!mest_dtype_size(dtype) || !t->shape || t->shape->n_dim > MEST_MAX_RANK)
        return false;
    type->dtype = is_float(dtype) ? MEST_F32 : dtype; /* everything floating point is computed in one type */
    type->shape.rank = (int32_t)t->shape->n_dim;
    for (size_t i = 0; i < t->shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *d = t->shape->dim[i];
        bool known = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE && d->dim_value >= 0;
        type->shape.dim[i] = known ? d->dim_value : -1;
    }
    return true;
}

static mest_status read_inputs(onnx_importer *im)
{
    const Onnx__GraphProto *pb = im->pb->graph;
    mest_graph *g = &im->m->graph;
    g->inputs = mest_region_alloc(&g->region, pb->n_input + 1, sizeof *g->inputs);
    if (!g->inputs)
        return out_of_memory(im);
    for (size_t i = 0; i < pb->n_input; i++) {
        const char *name = onnx_text(pb->input[i]->name);
        mest_type type;
        MEST_CHECK(*name, im->err, MEST_E_FORMAT, "onnx '%s': input %zu has no name", im->path, i);
        const onnx_symbol *s = onnx_find_symbol(im, name);
        if (s && s->tensor >= 0)
            continue; /* IR 3 lists initializers as inputs; later it means a default value, which a training graph always takes */
        if (s)
            return bad(im, "two inputs have the name", name);
        mest_id id;
        if (!mest_onnx_read_type(pb->input[i], &type)) {
            mest_status status = mest_fail(im->err, MEST_E_UNSUPPORTED, "onnx '%s': input '%s' is not a tensor of numbers with a shape of at most %d dimensions",
                                           im->path, name, MEST_MAX_RANK);
            MEST_TRY(mest_onnx_stand_in_value(im, name, "input", NULL, status, &id));
            MEST_TRY(mest_onnx_add_symbol(im, g->values[id].name, -1, id));
            continue;
        }
        id = mest_graph_value(g, name, MEST_VALUE_INPUT, &type);
        if (id == MEST_NONE)
            return out_of_memory(im);
        g->inputs[g->n_inputs++] = id;
        MEST_TRY(mest_onnx_add_symbol(im, g->values[id].name, -1, id));
    }
    return MEST_OK;
}

/* metadata_props of value_info (IR 10): what the exporter says an initializer is. */
static void read_kinds(onnx_importer *im)
{
    static const char key[] = "pkg.torch.export.graph_signature.InputSpec.kind";
    static const char *const kinds[] = { [KIND_PARAMETER] = "PARAMETER", [KIND_BUFFER] = "BUFFER", [KIND_CONSTANT] = "CONSTANT_TENSOR" };
    for (size_t i = 0; i < im->pb->graph->n_value_info; i++) {
        const Onnx__ValueInfoProto *v = im->pb->graph->value_info[i];
        const onnx_symbol *s = onnx_find_symbol(im, onnx_text(v->name));
        if (!s || s->tensor < 0)
            continue;
        for (unsigned k = 0; k < v->base.n_unknown_fields; k++) {
            const ProtobufCMessageUnknownField *u = &v->base.unknown_fields[k];
            mest_wire w = { u->data, 0, u->len };
            mest_wire_field f;
            uint64_t n;
            bool ours = false;
            if (u->tag != MEST_PRESCAN_METADATA || u->wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED || !mest_wire_varint(&w, &n))
                continue;
            while (w.at < w.end && !mest_wire_next(&w, &f)) {
                if (f.number == 1)
                    ours = f.end - f.begin == sizeof key - 1 && !memcmp(u->data + f.begin, key, sizeof key - 1);
                for (int kind = KIND_PARAMETER; f.number == 2 && ours && kind <= KIND_CONSTANT; kind++)
                    if (f.end - f.begin == strlen(kinds[kind]) && !memcmp(u->data + f.begin, kinds[kind], f.end - f.begin))
                        im->tensors[s->tensor].kind = (onnx_kind)kind;
            }
        }
    }
}

static mest_status name_results(onnx_importer *im)
{
    for (int32_t i = 0; i < im->n_nodes; i++) {
        onnx_node *n = &im->nodes[i];
        for (int32_t k = 0; k < n->n_out && !n->skip; k++) {
            n->out[k] = MEST_NONE;
            if (!*n->out_names[k])
                continue;
            MEST_CHECK(!onnx_find_symbol(im, n->out_names[k]), im->err, MEST_E_FORMAT,
                       "onnx '%s': output '%s' of node '%s' (%s) has a name that is already taken", im->path, n->out_names[k], n->name, n->op);
            MEST_TRY(mest_onnx_add_symbol(im, n->out_names[k], -1, MEST_NONE));
        }
    }
    const Onnx__GraphProto *g = im->pb->graph;
    MEST_CHECK(g->n_output > 0, im->err, MEST_E_FORMAT, "onnx '%s': the graph has no output", im->path);
    for (size_t i = 0; i < g->n_output; i++) {
        onnx_symbol *s = onnx_find_symbol(im, onnx_text(g->output[i]->name));
        if (!s)
            return bad(im, "nothing computes the graph's output", onnx_text(g->output[i]->name));
        if (s->is_output)
            return bad(im, "the graph has twice the output", s->name);
        s->is_output = true;
        s->uses++;
        if (s->tensor >= 0)
            im->tensors[s->tensor].direct++;
    }
    return MEST_OK;
}

/* ---- the graph ---- */

/* Parameters of the file's own initializers, in file order; untied ones follow. */
static mest_status make_params(onnx_importer *im)
{
    for (int32_t i = 0; i < im->n_tensors; i++) {
        onnx_tensor *t = &im->tensors[i];
        if (!t->is_float)
            im->m->n_fixed++;
        else
            MEST_TRY(mest_onnx_add_param(im, t, t->name, &t->param));
    }
    return MEST_OK;
}

static mest_status tensor_value(onnx_importer *im, onnx_tensor *t, mest_id *value)
{
    mest_graph *g = &im->m->graph;
    if (t->value == MEST_NONE) {
        mest_type type = { .dtype = MEST_F32, .shape = t->shape };
        const void *data = NULL;
        if (!t->is_float)
            MEST_TRY(mest_onnx_constant_data(im, t->name, &t->shape, &t->payload, &type, &data));
        t->value = mest_graph_value(g, t->name, t->is_float ? MEST_VALUE_PARAM : MEST_VALUE_CONST, &type);
        if (t->value == MEST_NONE)
            return out_of_memory(im);
        g->values[t->value].param = t->param;
        g->values[t->value].data = data;
    }
    *value = t->value;
    return MEST_OK;
}

mest_status mest_onnx_symbol_value(onnx_importer *im, onnx_symbol *s, mest_id *value)
{
    if (s->tensor >= 0)
        return tensor_value(im, &im->tensors[s->tensor], value);
    *value = s->value;
    return MEST_OK;
}

/* Constant nodes become constants; results of all others become values that their nodes will fill. */
static mest_status make_values(onnx_importer *im)
{
    for (int32_t i = 0; i < im->n_nodes; i++) {
        onnx_node *n = &im->nodes[i];
        if (n->skip)
            continue;
        if (onnx_is_constant(n)) {
            MEST_CHECK(n->n_out == 1 && *n->out_names[0], im->err, MEST_E_FORMAT, "onnx '%s': Constant '%s' must have one output", im->path, n->name);
            onnx_symbol *s = onnx_find_symbol(im, n->out_names[0]);
            mest_status status = mest_onnx_constant_node(im, n, &s->value);
            if (status == MEST_OK) {
                n->skip = true;
                continue;
            }
            if (!im->tolerant || status != MEST_E_UNSUPPORTED)
                return status;
            n->missing = true; /* make_node says so again */
            mest_error_clear(im->err);
        }
        for (int32_t k = 0; k < n->n_out; k++) {
            onnx_symbol *s = *n->out_names[k] ? onnx_find_symbol(im, n->out_names[k]) : NULL;
            if (!s || (k > 0 && !s->uses))
                continue; /* nobody reads it: kernels need not compute it */
            s->value = mest_graph_value(&im->m->graph, s->name, MEST_VALUE_RESULT, NULL);
            if (s->value == MEST_NONE)
                return out_of_memory(im);
            n->out[k] = s->value;
        }
    }
    return MEST_OK;
}

static mest_status make_node(onnx_importer *im, onnx_node *n)
{
    for (int32_t k = 0; k < n->n_in; k++) {
        n->in[k] = MEST_NONE;
        if (*n->in_names[k])
            MEST_TRY(mest_onnx_symbol_value(im, onnx_find_symbol(im, n->in_names[k]), &n->in[k]));
    }
    MEST_TRY(mest_onnx_normalise(im, n));
    const mest_op *op = mest_op_find("", n->op, n->opset);
    MEST_CHECK(op, im->err, MEST_E_INTERNAL, "onnx '%s': operator %s is gone", im->path, n->op);
    while (n->n_in > op->in_min && n->in[n->n_in - 1] == MEST_NONE)
        n->n_in--;
    MEST_CHECK(n->n_in >= op->in_min && (op->in_max < 0 || n->n_in <= op->in_max), im->err, MEST_E_FORMAT,
               "onnx '%s': node '%s' (%s) has %d inputs, the operator takes %d to %d", im->path, n->name, n->op, n->n_in, op->in_min, op->in_max);
    for (int32_t k = 0; k < op->in_min; k++)
        MEST_CHECK(n->in[k] != MEST_NONE, im->err, MEST_E_FORMAT, "onnx '%s': node '%s' (%s): input %d is missing", im->path, n->name, n->op, k);
    /* Split gives as many parts as it has outputs, wanted or not */
    while (n->n_out > op->out_min && n->n_out > 1 && n->out[n->n_out - 1] == MEST_NONE && strcmp(n->op, "Split"))
        n->n_out--;
    MEST_CHECK(n->n_out >= op->out_min && (op->out_max < 0 || n->n_out <= op->out_max), im->err, MEST_E_UNSUPPORTED,
               "onnx '%s': node '%s' (%s) has %d outputs in use, %d to %d are supported", im->path, n->name, n->op, n->n_out, op->out_min, op->out_max);
    const void *params;
    MEST_TRY(mest_onnx_params(im, n, op, &params));
    mest_id id = mest_graph_node(&im->m->graph, n->name, op, params, n->n_in, n->in, n->n_out, n->out);
    if (id == MEST_NONE)
        return out_of_memory(im);
    mest_node *made = &im->m->graph.nodes[id];
    made->origin = n->origin;
    made->mark = n->entry;
    if (n->guard) {
        mest_id condition = MEST_NONE;
        MEST_TRY(mest_onnx_symbol_value(im, onnx_find_symbol(im, n->guard), &condition));
        MEST_CHECK(condition != MEST_NONE, im->err, MEST_E_FORMAT, "onnx '%s': the condition '%s' of a branch has no value", im->path, n->guard);
        made->guard = n->guard_is ? condition + 1 : -(condition + 1);
    }
    return MEST_OK;
}

/* make_node, or what stands in for a node that cannot be made. */
static mest_status take_node(onnx_importer *im, onnx_node *n)
{
    mest_status status;
    if (!n->missing)
        status = make_node(im, n);
    else if (onnx_is_constant(n)) {
        mest_id value;
        status = mest_onnx_constant_node(im, n, &value);
    } else
        status = mest_onnx_check_operator(im, n);
    return status == MEST_OK ? MEST_OK : mest_onnx_stand_in(im, n, status);
}

static mest_status make_outputs(onnx_importer *im)
{
    const Onnx__GraphProto *pb = im->pb->graph;
    mest_graph *g = &im->m->graph;
    g->outputs = mest_region_alloc(&g->region, pb->n_output + 1, sizeof *g->outputs);
    if (!g->outputs)
        return out_of_memory(im);
    for (size_t i = 0; i < pb->n_output; i++) {
        mest_id id;
        mest_type type;
        MEST_TRY(mest_onnx_symbol_value(im, onnx_find_symbol(im, pb->output[i]->name), &id));
        g->outputs[g->n_outputs++] = id;
        if (g->values[id].kind == MEST_VALUE_RESULT && mest_onnx_read_type(pb->output[i], &type))
            g->values[id].type = type; /* for inspection; inference decides */
    }
    return MEST_OK;
}

static mest_status make_notes(onnx_importer *im, mest_onnx_notes *notes)
{
    mest_onnx_note *list = mest_region_alloc(&im->m->region, (size_t)im->n_tensors + 1, sizeof *list);
    if (!list)
        return out_of_memory(im);
    for (int32_t i = 0; i < im->n_tensors; i++) {
        const onnx_tensor *t = &im->tensors[i];
        list[i] = (mest_onnx_note){ .name = t->name, .param = t->param, .external = t->external, .payload = t->payload,
                                    .repeats = t->repeats, .left_out = t->twin, .mirror = t->mirror ? t->mirror->param : -1 };
    }
    notes->n_dense = (int32_t)im->pb->graph->n_initializer;
    notes->n_sparse = im->n_tensors - notes->n_dense;
    notes->dense = list;
    notes->sparse = list + notes->n_dense;
    notes->external_attribute = im->external_attribute;
    im->m->notes = notes;
    return MEST_OK;
}

static mest_status build(onnx_importer *im)
{
    mest_onnx_notes *notes = mest_region_alloc(&im->m->region, 1, sizeof *notes);
    if (!notes)
        return out_of_memory(im);
    MEST_TRY(check_header(im));
    MEST_TRY(read_metadata(im));
    MEST_TRY(read_tensors(im));
    MEST_TRY(read_inputs(im));
    read_kinds(im);
    MEST_TRY(mest_onnx_read_origins(im));
    MEST_TRY(mest_onnx_inline(im));
    im->m->n_file_nodes = im->n_nodes;
    for (size_t i = 0; i < im->pb->graph->n_node && !im->older; i++)
        im->older = !strcmp(im->m->producer, "pytorch") && im->n_origins == 0 && *onnx_text(im->pb->graph->node[i]->name) == '/';
    MEST_TRY(mest_onnx_survey_begin(im));
    MEST_TRY(mest_onnx_bags(im));
    MEST_TRY(mest_onnx_sequences(im));
    MEST_TRY(mest_onnx_split_products(im));
    MEST_TRY(mest_onnx_check_operators(im));
    MEST_TRY(name_results(im));
    MEST_TRY(mest_onnx_promote_initializers(im));
    MEST_TRY(make_params(im));
    MEST_TRY(mest_onnx_resolve_aliases(im, notes));
    MEST_TRY(mest_onnx_promote_constants(im, notes));
    MEST_TRY(mest_onnx_untie_merged(im, notes));
    MEST_TRY(mest_onnx_retie(im, notes));
    MEST_TRY(mest_onnx_spread(im));
    MEST_TRY(make_values(im));
    for (int32_t i = 0; i < im->n_nodes; i++)
        if (!im->nodes[i].skip)
            MEST_TRY(take_node(im, &im->nodes[i]));
    MEST_TRY(make_outputs(im));
    MEST_TRY(make_notes(im, notes));
    MEST_TRY(mest_graph_sort(&im->m->graph, im->err));
    MEST_TRY(mest_graph_check(&im->m->graph, "import", im->err));
    MEST_TRY(mest_onnx_survey_end(im));
    MEST_TRY(mest_onnx_roles(im));
    return mest_onnx_find_folded(im);
}

mest_status mest_onnx_import(mest_model *m, const mest_model_options *options, mest_error *err)
{
    const char *path = m->mappings->path;
    mest_status status = MEST_E_NOMEM;
    mest_error own = { 0 };
    err = err ? err : &own; /* texts are used here, too */
    onnx_importer *im = mest_calloc(&m->heap, 1, sizeof *im);
    MEST_CHECK(im, err, MEST_E_NOMEM, "onnx '%s': out of memory", path);
    size_t max_bytes = options && options->max_metadata_bytes ? (size_t)options->max_metadata_bytes : (size_t)64 << 20;
    im->m = m;
    im->err = err;
    im->keep_aliases = options && options->keep_aliases;
    im->tolerant = options && options->tolerant;
    im->trainable = options ? options->trainable : NULL;
    im->max_bytes = max_bytes;
    im->max_constant = max_bytes / 4;
    mest_region_init(&im->scratch, &m->heap);
    mest_strmap_init(&im->names, &im->scratch);
    mest_strmap_init(&im->ops, &im->scratch);
    im->path = path;
    MEST_TRY_OUT(unpack(im, max_bytes));
    status = build(im);
out:
    mest_prescan_free(&im->scan);
    mest_onnx_arena_free(&im->arena);
    mest_region_free(&im->scratch);
    mest_free(&m->heap, im, 1, sizeof *im);
    return status;
}
