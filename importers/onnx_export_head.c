/* SPDX-License-Identifier: Apache-2.0 */
/* A model with another head (runtime/new_head.c) on its way out: declared shapes of the values along which classes lie, and constants with sizes in
 * which their number stands. Weight and bias are written like other parameters. */
#include "importers/onnx_write.h"
#include "runtime/head.h"

enum { NODE_OUTPUT = 2, NODE_OP = 4, NODE_ATTRIBUTE = 5, ATTRIBUTE_NAME = 1, ATTRIBUTE_T = 5, ATTRIBUTE_TYPE = 20, TYPE_TENSOR = 4, INT64 = 7 };

/* ---- declared shapes ---- */

/* ValueInfo -> TypeProto -> Tensor -> TensorShape -> Dimension: the field of each that leads to the next. */
static const uint32_t way[] = {INFO_TYPE, 1, 2, 1};
enum { LEVELS = sizeof way / sizeof *way };

typedef struct info_job {
    const mest_wire_field *at;
    int level, axis;
} info_job;

static mest_status count_axes(onnx_writer *w, const mest_wire_field *shape, int *n)
{
    mest_wire wire = { w->source->bytes, shape->begin, shape->end };
    mest_wire_field f;
    for (*n = 0; wire.at < wire.end; *n += f.number == way[LEVELS - 1])
        MEST_TRY(onnx_next_field(w, &wire, &f));
    return MEST_OK;
}

static mest_status info_body(onnx_writer *w, const void *what)
{
    const info_job *job = what;
    mest_wire wire = { w->source->bytes, job->at->begin, job->at->end };
    mest_wire_field f;
    int axis = job->axis, index = 0, n;
    if (job->level == LEVELS - 1 && axis < 0) {
        MEST_TRY(count_axes(w, job->at, &n));
        axis += n;
    }
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (job->level == LEVELS && f.number == 1 && f.wire == MEST_WIRE_VARINT) { /* dim_value; a symbol stays */
            uint64_t size = 0;
            mest_wire value = { w->source->bytes, f.begin, f.end };
            mest_wire_varint(&value, &size);
            const int64_t was = w->m->head->was;
            MEST_TRY(size > 0 && (int64_t)size % was == 0 ? onnx_put_int(w, 1, (int64_t)size / was * w->m->head->classes) : onnx_copy_field(w, &f));
        } else if (job->level < LEVELS && f.number == way[job->level] && f.wire == MEST_WIRE_BYTES && (job->level < LEVELS - 1 || index++ == axis)) {
            info_job next = { &f, job->level + 1, job->axis };
            MEST_TRY(onnx_put_message(w, f.number, info_body, &next));
        } else {
            MEST_TRY(onnx_copy_field(w, &f));
        }
    }
    return MEST_OK;
}

mest_status onnx_put_head_info(onnx_writer *w, const mest_wire_field *info, bool *done)
{
    const mest_head *h = w->m->head;
    mest_wire wire = { w->source->bytes, info->begin, info->end };
    mest_wire_field f;
    *done = false;
    while (h && wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (f.number != INFO_NAME)
            continue;
        for (int32_t i = 0; i < h->n_results; i++)
            if (onnx_is_text(w, &f, h->results[i].name)) {
                info_job job = { info, 0, h->results[i].axis };
                *done = true;
                return onnx_put_message(w, info->number, info_body, &job);
            }
        const int32_t params[] = { h->weight, h->bias };
        for (int i = 0; i < 2; i++)
            if (params[i] >= 0 && onnx_is_text(w, &f, w->m->params[params[i]].name)) {
                *done = true;
                return onnx_put_message(w, info->number, onnx_param_info_body, &w->m->params[params[i]]);
            }
    }
    return MEST_OK;
}

/* ---- constants with sizes ---- */

const mest_head_sizes *onnx_head_sizes(const onnx_writer *w, const char *name)
{
    for (int32_t i = 0; w->m->head && i < w->m->head->n_sizes; i++)
        if (!strcmp(w->m->head->sizes[i].name, name))
            return &w->m->head->sizes[i];
    return NULL;
}

static mest_status tensor_body(onnx_writer *w, const void *what)
{
    const mest_head_sizes *s = what;
    if (!s->scalar)
        MEST_TRY(onnx_put_int(w, TENSOR_DIMS, s->n));
    MEST_TRY(onnx_put_int(w, TENSOR_TYPE, INT64));
    MEST_TRY(onnx_put_text(w, TENSOR_NAME, s->name));
    MEST_TRY(onnx_put_length(w, TENSOR_RAW, (uint64_t)s->n * sizeof *s->data));
    return onnx_put(w, s->data, (size_t)s->n * sizeof *s->data);
}

mest_status onnx_put_head_sizes(onnx_writer *w, const mest_head_sizes *sizes) { return onnx_put_message(w, GRAPH_INITIALIZER, tensor_body, sizes); }

static mest_status attribute_body(onnx_writer *w, const void *what)
{
    MEST_TRY(onnx_put_text(w, ATTRIBUTE_NAME, "value"));
    MEST_TRY(onnx_put_message(w, ATTRIBUTE_T, tensor_body, what));
    return onnx_put_int(w, ATTRIBUTE_TYPE, TYPE_TENSOR);
}

typedef struct constant_job {
    const mest_wire_field *node;
    const mest_head_sizes *sizes;
} constant_job;

static mest_status constant_body(onnx_writer *w, const void *what)
{
    const constant_job *job = what;
    mest_wire wire = { w->source->bytes, job->node->begin, job->node->end };
    mest_wire_field f;
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (f.number != NODE_ATTRIBUTE)
            MEST_TRY(onnx_copy_field(w, &f));
    }
    return onnx_put_message(w, NODE_ATTRIBUTE, attribute_body, job->sizes);
}

/* The first output of a Constant node is one of them. */
static const mest_head_sizes *sizes_of_node(const onnx_writer *w, const mest_wire_field *node)
{
    mest_wire wire = { w->source->bytes, node->begin, node->end };
    mest_wire_field f;
    const mest_head_sizes *found = NULL;
    bool is_constant = false;
    while (wire.at < wire.end && !mest_wire_next(&wire, &f)) {
        is_constant |= f.number == NODE_OP && onnx_is_text(w, &f, "Constant");
        for (int32_t i = 0; f.number == NODE_OUTPUT && i < w->m->head->n_sizes; i++)
            if (onnx_is_text(w, &f, w->m->head->sizes[i].name))
                found = &w->m->head->sizes[i];
    }
    return is_constant ? found : NULL;
}

mest_status onnx_put_head_node(onnx_writer *w, const mest_wire_field *node, bool *done)
{
    const mest_head_sizes *sizes = w->m->head && w->m->head->n_sizes ? sizes_of_node(w, node) : NULL;
    constant_job job = { node, sizes };
    *done = sizes != NULL;
    return sizes ? onnx_put_message(w, GRAPH_NODE, constant_body, &job) : MEST_OK;
}

/* An initializer, or the output of a Constant node of the graph. */
bool mest_onnx_can_change(const mest_model *m, const char *constant)
{
    for (int32_t i = 0; i < m->notes->n_dense; i++)
        if (!strcmp(m->notes->dense[i].name, constant))
            return true;
    mest_head_sizes wanted = { .name = constant };
    mest_head head = { .sizes = &wanted, .n_sizes = 1 };
    mest_model probe = { .head = &head };
    const onnx_writer w = { .m = &probe, .source = m->mappings };
    mest_wire file = { m->mappings->bytes, 0, m->mappings->size };
    mest_wire_field f, node;
    while (file.at < file.end && !mest_wire_next(&file, &f)) {
        mest_wire graph = { m->mappings->bytes, f.begin, f.end };
        while (f.number == MODEL_GRAPH && f.wire == MEST_WIRE_BYTES && graph.at < graph.end && !mest_wire_next(&graph, &node))
            if (node.number == GRAPH_NODE && node.wire == MEST_WIRE_BYTES && sizes_of_node(&w, &node))
                return true;
    }
    return false;
}
