/* SPDX-License-Identifier: Apache-2.0 */
/* The public handle of a model: loading, inspection, freezing. Sparsification and export have files of their own. */
#include "runtime/mapfile.h"
#include "runtime/channels.h"
#include "runtime/snapshot.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

void mest_model_options_init(mest_model_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
}

/* Of a file, or with path NULL of bytes in memory. */
static mest_status load(mest_model **model, const char *path, const void *bytes, size_t size, const mest_model_options *options, mest_error *err)
{
    mest_model_options o;
    mest_model_options_init(&o);
    MEST_CHECK(!options || mest_take_options(&o, sizeof o, options), err, MEST_E_ARGUMENT, "model load: options.struct_size is not set");
    mest_heap heap;
    MEST_TRY(mest_heap_init(&heap, o.allocator, o.logger, err));
    mest_model *m = mest_calloc(&heap, 1, sizeof *m);
    MEST_CHECK(m, err, MEST_E_NOMEM, "model: no memory for %zu bytes", sizeof *m);
    MEST_TRY(mest_heap_init(&m->heap, o.allocator, o.logger, err)); /* cannot fail: it just succeeded */
    mest_region_init(&m->region, &m->heap);
    mest_graph_init(&m->graph, &m->heap);
    mest_status status = mest_registry_create(&m->registry, &m->heap, err);
    m->read_files = o.read_files;
    if (status == MEST_OK)
        status = path ? mest_onnx_map(m, path, err) : mest_onnx_lend(m, bytes, size, !o.lend_memory, err);
    if (status == MEST_OK)
        status = mest_onnx_import(m, &o, err);
    if (status != MEST_OK) {
        mest_model_destroy(m);
        return status;
    }
    *model = m;
    return MEST_OK;
}

mest_status mest_model_load(mest_model **model, const char *path, const mest_model_options *options, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(model, err, MEST_E_ARGUMENT, "model load: no place for the model");
    *model = NULL;
    MEST_CHECK(path && *path, err, MEST_E_ARGUMENT, "model load: no path");
    return load(model, path, NULL, 0, options, err);
}

mest_status mest_model_load_memory(mest_model **model, const void *bytes, size_t size, const mest_model_options *options, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(model, err, MEST_E_ARGUMENT, "model load: no place for the model");
    *model = NULL;
    MEST_CHECK(bytes && size, err, MEST_E_ARGUMENT, "model load: no bytes");
    return load(model, NULL, bytes, size, options, err);
}

void mest_model_destroy(mest_model *model)
{
    if (!model)
        return;
    mest_registry_destroy(model->registry, &model->heap);
    mest_channels_destroy(model);
    for (int32_t i = 0; i < model->n_params; i++) {
        mest_param *p = &model->params[i];
        mest_sparse_destroy(p->sparse);
        mest_free(&model->heap, p->values, (size_t)p->count + 16, sizeof *p->values);
    }
    for (mest_mapping *map = model->mappings; map; map = map->next)
        if (map->size && !map->borrowed)
            munmap((void *)(uintptr_t)map->bytes, map->size);
    mest_graph_free(&model->graph);
    mest_region_free(&model->region);
    mest_heap heap = model->heap; /* the block frees itself: its heap must not lie in it */
    mest_free(&heap, model, 1, sizeof *model);
}

void mest_model_forget(const mest_model *m)
{
    for (const mest_mapping *map = m->mappings; map; map = map->next)
        if (!map->borrowed) /* memory that is no file would come back as zeros */
            mest_mapfile_forget(&(mest_mapfile){.bytes = map->bytes, .size = map->size});
}

static mest_status give(void *to, const void *from, size_t from_size, mest_error *err)
{
    MEST_CHECK(mest_tell(to, from, from_size), err, MEST_E_ARGUMENT, "struct_size is not set");
    return MEST_OK;
}

static void describe_type(mest_tensor_info *info, const mest_shape *shape)
{
    info->rank = shape->rank;
    memcpy(info->dim, shape->dim, sizeof info->dim);
}

int mest_model_parameter_count(const mest_model *model) { return model->n_params; }

mest_status mest_model_parameter(const mest_model *model, int index, mest_tensor_info *info, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(index >= 0 && index < model->n_params, err, MEST_E_ARGUMENT, "parameter %d of %d", index, model->n_params);
    const mest_param *p = &model->params[index];
    mest_tensor_info t = { .name = p->name, .dtype = (int)p->payload.dtype, .role = p->role, .role_reason = p->role_reason, .scheme = "dense" };
    const int64_t count = mest_param_file_count(p);
    describe_type(&t, mest_param_file_shape(p));
    t.stored = p->count;
    if (p->axes)
        t.scheme = mest_param_channel_scheme(p);
    if (p->sparse) {
        t.scheme = p->sparse->name;
        t.scheme_reason = p->scheme_reason;
        t.stored = mest_sparse_nnz(p->sparse);
    } else if (p->payload.linear && !p->loaded) { /* sparse in the file; a session keeps it so where kernels allow it */
        t.scheme = "sparse";
        t.stored = p->payload.nnz;
    }
    t.sparsity = count ? 1 - (double)t.stored / (double)count : 0;
    return give(info, &t, sizeof t, err);
}

static mest_status describe_value(const mest_model *model, const mest_id *ids, int n, int index, const char *what, mest_tensor_info *info,
                                  mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(index >= 0 && index < n, err, MEST_E_ARGUMENT, "%s %d of %d", what, index, n);
    const mest_value *v = &model->graph.values[ids[index]];
    mest_tensor_info t = { .name = v->name, .dtype = (int)v->type.dtype, .scheme = "dense" };
    describe_type(&t, &v->type.shape);
    if (!mest_shape_count(&v->type.shape, &t.stored))
        t.stored = -1;
    return give(info, &t, sizeof t, err);
}

int mest_model_input_count(const mest_model *model) { return model->graph.n_inputs; }

mest_status mest_model_input(const mest_model *model, int index, mest_tensor_info *info, mest_error *err)
{
    return describe_value(model, model->graph.inputs, model->graph.n_inputs, index, "input", info, err);
}

int mest_model_output_count(const mest_model *model) { return model->graph.n_outputs; }

mest_status mest_model_output(const mest_model *model, int index, mest_tensor_info *info, mest_error *err)
{
    return describe_value(model, model->graph.outputs, model->graph.n_outputs, index, "output", info, err);
}

mest_status mest_model_summarize(const mest_model *model, mest_model_summary *summary, mest_error *err)
{
    mest_error_clear(err);
    mest_model_summary s = { .ir_version = model->ir_version, .opset = model->opset, .producer = model->producer ? model->producer : "",
                             .graph_name = model->graph_name ? model->graph_name : "", .external_bytes = model->external_bytes,
                             .file_bytes = model->mappings ? (int64_t)model->mappings->size : 0, .n_nodes = model->graph.n_nodes,
                             .n_untied = model->n_untied, .n_constants = model->n_fixed };
    for (int32_t i = 0; i < model->n_params; i++) {
        const mest_param *p = &model->params[i];
        s.n_statistics += p->role == MEST_ROLE_STATISTIC;
        s.n_constants += p->role == MEST_ROLE_CONSTANT;
        if (p->role == MEST_ROLE_TRAINABLE || p->role == MEST_ROLE_FROZEN) {
            s.n_trainable++;
            s.trainable_elements += p->count;
        }
    }
    return give(summary, &s, sizeof s, err);
}

const char *mest_model_metadata(const mest_model *model, const char *key)
{
    for (size_t i = 0; model && key && i < model->n_metadata; i++)
        if (!strcmp(model->metadata[i].key, key))
            return model->metadata[i].value;
    return NULL;
}

mest_status mest_model_read_parameter(const mest_model *model, int index, float *out, size_t count, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(index >= 0 && index < model->n_params, err, MEST_E_ARGUMENT, "parameter %d of %d", index, model->n_params);
    const mest_param *p = &model->params[index];
    const int64_t all = mest_param_file_count(p);
    MEST_CHECK(count == (size_t)all, err, MEST_E_ARGUMENT, "parameter '%s' has %" PRId64 " elements, not %zu", p->name, all, count);
    return mest_param_read(p, 0, all, out, err);
}

mest_status mest_model_entries(const mest_model *model, int index, int64_t first, int64_t n, int64_t *positions, int64_t *n_read, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(model && n_read, err, MEST_E_ARGUMENT, "entries: model and n_read must be given");
    *n_read = 0;
    MEST_CHECK(index >= 0 && index < model->n_params, err, MEST_E_ARGUMENT, "parameter %d of %d", index, model->n_params);
    const mest_sparse *s = model->params[index].sparse;
    MEST_CHECK(first >= 0 && n >= 0 && (positions || n == 0), err, MEST_E_ARGUMENT, "entries: a range from %" PRId64 ", %" PRId64 " long", first, n);
    if (!s || first >= s->stored)
        return MEST_OK;
    *n_read = n < s->stored - first ? n : s->stored - first;
    mest_sparse_coords(s, first, *n_read, positions);
    return MEST_OK;
}

mest_status mest_model_freeze(mest_model *model, const char *pattern, bool freeze, int *n_matched, mest_error *err)
{
    mest_error_clear(err);
    int n = 0;
    if (n_matched)
        *n_matched = 0;
    MEST_CHECK(pattern, err, MEST_E_ARGUMENT, "freeze: no pattern");
    MEST_CHECK(model->n_sessions == 0, err, MEST_E_STATE, "freeze: a session of this model is alive");
    MEST_TRY(mest_registry_idle(model, false, "freeze", err)); /* they rely on what is frozen staying as it is */
    for (int32_t i = 0; i < model->n_params; i++) {
        mest_param *p = &model->params[i];
        if ((p->role != MEST_ROLE_TRAINABLE && p->role != MEST_ROLE_FROZEN) || !mest_match_any(pattern, p->name))
            continue;
        p->role = freeze ? MEST_ROLE_FROZEN : MEST_ROLE_TRAINABLE;
        n++;
    }
    if (n_matched)
        *n_matched = n;
    return MEST_OK;
}
