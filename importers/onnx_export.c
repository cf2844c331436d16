/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the model back: the original file is copied field by field, initializers that are parameters get their present values. Nothing
 * is unpacked and no weight is held densely: values go out in chunks. Lengths come first in the format, so every part can be written
 * to nowhere to learn its size, and is then written for real. */
#include <inttypes.h>
#include <stdio.h>

#include "importers/onnx_write.h"
#include "runtime/channels.h"

/* ---- value_info ---- */

static mest_status dim_body(onnx_writer *w, const void *what) { return onnx_put_int(w, 1, *(const int64_t *)what); }

static mest_status shape_body(onnx_writer *w, const void *what)
{
    const mest_shape *s = onnx_shape(w, what);
    for (int i = 0; i < s->rank; i++)
        MEST_TRY(onnx_put_message(w, 1, dim_body, &s->dim[i]));
    return MEST_OK;
}

static mest_status tensor_type_body(onnx_writer *w, const void *what)
{
    MEST_TRY(onnx_put_int(w, 1, ((const mest_param *)what)->payload.dtype));
    return onnx_put_message(w, 2, shape_body, what);
}

static mest_status type_body(onnx_writer *w, const void *what) { return onnx_put_message(w, 1, tensor_type_body, what); }

mest_status onnx_param_info_body(onnx_writer *w, const void *what)
{
    MEST_TRY(onnx_put_text(w, INFO_NAME, ((const mest_param *)what)->name));
    return onnx_put_message(w, INFO_TYPE, type_body, what);
}

/* Place of a ValueInfoProto's name among those that are written sparsely, or -1. */
static mest_status find_sparse(onnx_writer *w, const mest_wire_field *info, int32_t *place)
{
    mest_wire wire = { w->source->bytes, info->begin, info->end };
    mest_wire_field f;
    *place = -1;
    while (w->any_sparse && wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        size_t n = f.end - f.begin;
        if (f.number != INFO_NAME || f.wire != MEST_WIRE_BYTES || n > w->longest)
            continue;
        memcpy(w->name, w->source->bytes + f.begin, n);
        w->name[n] = 0;
        *place = mest_strmap_get(&w->sparse, w->name);
    }
    return MEST_OK;
}

/* ---- models that became smaller ---- */

/* The parameter a ValueInfoProto is of, if its shape changed; else NULL. */
static mest_status find_smaller(onnx_writer *w, const mest_wire_field *info, const mest_param **p)
{
    mest_wire wire = { w->source->bytes, info->begin, info->end };
    mest_wire_field f;
    *p = NULL;
    while (w->options->shrunk && w->m->channels && wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        for (int32_t i = 0; f.number == INFO_NAME && f.wire == MEST_WIRE_BYTES && i < w->m->n_params; i++)
            if (w->m->params[i].axes && strlen(w->m->params[i].name) == f.end - f.begin &&
                !memcmp(w->m->params[i].name, w->source->bytes + f.begin, f.end - f.begin))
                *p = &w->m->params[i];
    }
    return MEST_OK;
}

/* Copies have the size that the file says. */
static mest_status check_copied(const onnx_writer *w, const mest_onnx_note *n)
{
    const mest_param *p = n->mirror >= 0 ? &w->m->params[n->mirror] : n->repeats ? &w->m->params[n->param] : NULL;
    MEST_CHECK(!p || !p->axes, w->err, MEST_E_UNSUPPORTED, "export: '%s' is in the file more than once%s; only the full size can be written", p->name,
               n->repeats ? "" : ", once transposed");
    return MEST_OK;
}

static mest_status check_shrunk(const onnx_writer *w)
{
    const mest_channels *c = w->options->shrunk ? w->m->channels : NULL;
    if (!c)
        return MEST_OK;
    MEST_CHECK(!c->baked, w->err, MEST_E_UNSUPPORTED, "export: Reshape '%s' has the number of channels in its shape; only the full size can be written",
               c->baked_node);
    for (int32_t i = 0; i < w->notes->n_dense; i++)
        MEST_TRY(check_copied(w, &w->notes->dense[i]));
    for (int32_t i = 0; i < c->n_convs; i++)
        MEST_CHECK(w->m->graph.nodes[c->conv[i].node].origin >= 0, w->err, MEST_E_UNSUPPORTED,
                   "export: Conv '%s' is in a function of the file; only the full size can be written", w->m->graph.nodes[c->conv[i].node].name);
    return MEST_OK;
}

/* ---- graph and model ---- */

static mest_status graph_body(onnx_writer *w, const mest_wire_field *graph)
{
    const mest_onnx_notes *notes = w->notes;
    mest_wire wire = { w->source->bytes, graph->begin, graph->end };
    mest_wire_field f;
    int32_t node = 0, next_drop = 0, next_move = 0, dense = 0, sparse = 0, place;
    bool done;
    memset(w->described, 0, w->sparse.n);
    w->dropout_switch = false;
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (f.number == GRAPH_NODE) {
            int32_t at = node++;
            if (next_drop < notes->n_dropped && notes->dropped[next_drop] == at) {
                next_drop++;
                continue;
            }
            int32_t first = next_move;
            while (next_move < notes->n_moved && notes->moved[next_move].node == at)
                next_move++;
            MEST_TRY(onnx_put_head_node(w, &f, &done));
            if (!done)
                MEST_TRY(onnx_put_node(w, &f, at, notes->n_moved ? notes->moved + first : NULL, next_move - first));
            continue;
        } else if (f.number == GRAPH_INITIALIZER && dense < notes->n_dense) {
            MEST_TRY(onnx_put_initializer(w, &notes->dense[dense++], &f, false));
            continue;
        } else if (f.number == GRAPH_SPARSE && sparse < notes->n_sparse) {
            MEST_TRY(onnx_put_initializer(w, &notes->sparse[sparse++], &f, true));
            continue;
        } else if (f.number == GRAPH_INPUT || f.number == GRAPH_VALUE_INFO) {
            if (w->options->shrunk && w->m->channels && f.number == GRAPH_VALUE_INFO)
                continue; /* shapes of before: whoever wants them infers them anew */
            const mest_param *smaller;
            MEST_TRY(find_smaller(w, &f, &smaller));
            if (smaller) { /* files of IR 3: initializers are inputs too */
                MEST_TRY(onnx_put_message(w, GRAPH_INPUT, onnx_param_info_body, smaller));
                continue;
            }
            MEST_TRY(find_sparse(w, &f, &place));
            if (place >= 0 && f.number == GRAPH_INPUT)
                continue; /* a sparse initializer cannot be the default of an input */
            if (place >= 0)
                w->described[place] = 1;
        }
        done = false;
        if (f.number == GRAPH_INPUT || f.number == GRAPH_OUTPUT || f.number == GRAPH_VALUE_INFO)
            MEST_TRY(onnx_put_head_info(w, &f, &done));
        if (!done)
            MEST_TRY(onnx_copy_field(w, &f));
    }
    for (int32_t i = 0; i < notes->n_dropped; i++) {
        const mest_param *p = &w->m->params[notes->added[i]];
        MEST_TRY(onnx_put_param(w, p, NULL));
        if (w->m->ir_version < 4 && !onnx_goes_sparse(w, p)) /* there every initializer is an input too */
            MEST_TRY(onnx_put_message(w, GRAPH_INPUT, onnx_param_info_body, p));
    }
    for (int32_t i = 0; i < notes->n_moved; i++)
        if (!notes->moved[i].again)
            MEST_TRY(onnx_put_param(w, &w->m->params[notes->moved[i].param], NULL));
    MEST_TRY(onnx_put_added(w));
    for (int32_t i = 0; i < w->m->n_params; i++) {
        const mest_param *p = &w->m->params[i];
        if (onnx_goes_sparse(w, p) && !w->described[mest_strmap_get(&w->sparse, p->name)])
            MEST_TRY(onnx_put_message(w, GRAPH_VALUE_INFO, onnx_param_info_body, p)); /* strict shape inference needs it */
    }
    return MEST_OK;
}

typedef struct entry { const char *key, *value; } entry;

static mest_status entry_body(onnx_writer *w, const void *what)
{
    const entry *e = what;
    MEST_TRY(onnx_put_text(w, ENTRY_KEY, e->key));
    return onnx_put_text(w, ENTRY_VALUE, e->value);
}

/* Entry i of what is added: the caller's pairs, then the library's own unless the caller gave that key. */
static bool added_entry(const onnx_writer *w, int i, entry *e)
{
    const char *const *list = w->options->metadata;
    int given = 0;
    while (list && list[2 * given])
        given++;
    if (i < given) {
        *e = (entry){ list[2 * i], list[2 * i + 1] };
        return true;
    }
    int n = given;
    const entry own[] = { { "mest.version", w->version }, { "mest.sparsity", w->sparsity } };
    for (size_t k = 0; k < sizeof own / sizeof *own; k++) {
        bool taken = !*own[k].value;
        for (int j = 0; j < given; j++)
            taken |= !strcmp(list[2 * j], own[k].key);
        if (!taken && n++ == i) {
            *e = own[k];
            return true;
        }
    }
    return false;
}

static mest_status replaced(onnx_writer *w, const mest_wire_field *old, bool *yes)
{
    mest_wire wire = { w->source->bytes, old->begin, old->end };
    mest_wire_field f;
    entry e;
    *yes = false;
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        size_t n = f.end - f.begin;
        for (int i = 0; f.number == ENTRY_KEY && added_entry(w, i, &e); i++)
            *yes |= n == strlen(e.key) && !memcmp(e.key, w->source->bytes + f.begin, n);
    }
    return MEST_OK;
}

static mest_status model_body(onnx_writer *w)
{
    mest_wire wire = { w->source->bytes, 0, w->source->size };
    mest_wire_field f;
    entry e;
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (f.number == MODEL_IR && w->any_sparse && w->m->ir_version < 8) {
            MEST_TRY(onnx_put_int(w, MODEL_IR, 8));
        } else if (f.number == MODEL_GRAPH) {
            MEST_TRY(onnx_put_length(w, MODEL_GRAPH, w->graph_size));
            if (w->to) {
                MEST_TRY(graph_body(w, &f));
                continue;
            }
            uint64_t before = w->n;
            MEST_TRY(graph_body(w, &f));
            uint8_t length[10];
            w->graph_size = w->n - before;
            w->n += mest_wire_put(length, w->graph_size) - 1; /* it was counted as one byte while still 0 */
        } else {
            bool skip = false;
            if (f.number == MODEL_FUNCTION && f.wire == MEST_WIRE_BYTES)
                MEST_TRY(onnx_warn_functions(w, &f));
            if (f.number == MODEL_METADATA && f.wire == MEST_WIRE_BYTES)
                MEST_TRY(replaced(w, &f, &skip));
            if (!skip)
                MEST_TRY(onnx_copy_field(w, &f));
        }
    }
    for (int i = 0; added_entry(w, i, &e); i++)
        MEST_TRY(onnx_put_message(w, MODEL_METADATA, entry_body, &e));
    return MEST_OK;
}

static mest_status prepare(onnx_writer *w, mest_region *region)
{
    int64_t all = 0, stored = 0;
    MEST_TRY(check_shrunk(w));
    mest_strmap_init(&w->sparse, region);
    for (int32_t i = 0; i < w->m->n_params; i++) {
        const mest_param *p = &w->m->params[i];
        if (p->sparse || (onnx_untouched(p) && p->payload.linear)) {
            all += p->count;
            stored += onnx_entries(p);
        }
        if (p->axes && p->axes->kind != MEST_CHANNEL_VECTOR) {
            all += p->axes->file_count;
            stored += p->count;
        }
        if (!onnx_goes_sparse(w, p))
            continue;
        MEST_CHECK(mest_strmap_put(&w->sparse, p->name, (int32_t)w->sparse.n), w->err, MEST_E_NOMEM, "export: out of memory");
        w->longest = strlen(p->name) > w->longest ? strlen(p->name) : w->longest;
    }
    w->any_sparse = w->sparse.n > 0;
    w->described = mest_region_alloc(region, w->sparse.n + 1, 1);
    w->name = mest_region_alloc(region, w->longest + 1, 1);
    MEST_CHECK(w->described && w->name, w->err, MEST_E_NOMEM, "export: out of memory");
    snprintf(w->version, sizeof w->version, "%d.%d.%d", MEST_VERSION_MAJOR, MEST_VERSION_MINOR, MEST_VERSION_PATCH);
    if (all)
        snprintf(w->sparsity, sizeof w->sparsity, "%.6f", 1 - (double)stored / (double)all);
    return MEST_OK;
}

static int form_of(const char *name)
{
    static const char *const forms[] = { [ONNX_FORM_AS_IS] = "as-is", [ONNX_FORM_INFERENCE] = "inference", [ONNX_FORM_TRAINING] = "training" };
    int form = 0;
    while (name && form < 3 && strcmp(name, forms[form]))
        form++;
    return form;
}

/* The options as the caller has them, and everything that is known before a byte is written. */
static mest_status check_export(const mest_model *model, const mest_export_options *options, mest_export_options *given, mest_error *err)
{
    *given = (mest_export_options){ .struct_size = sizeof *given };
    MEST_CHECK(!options || mest_take_options(given, sizeof *given, options), err, MEST_E_ARGUMENT, "export: options.struct_size is not set");
    MEST_CHECK(model->notes && model->mappings, err, MEST_E_STATE, "export: the model does not come from a file");
    MEST_CHECK(!model->notes->external_attribute, err, MEST_E_UNSUPPORTED, "export: an attribute of the model has external data");
    for (const char *const *p = given->metadata; p && *p; p += 2)
        MEST_CHECK(p[1], err, MEST_E_ARGUMENT, "export: metadata '%s' has no value", p[0]);
    MEST_CHECK(form_of(given->form) < 3, err, MEST_E_ARGUMENT, "export: form '%s' is none of as-is, inference, training", given->form);
    return MEST_OK;
}

/* Counts; with a path or memory, writes as well. */
static mest_status export_to(const mest_model *model, const char *path, void *memory, size_t room, size_t *size, const mest_export_options *options,
                             mest_error *err)
{
    mest_export_options given;
    const char *name = path ? path : "(memory)";
    MEST_TRY(check_export(model, options, &given, err));
    mest_heap *heap = (mest_heap *)(uintptr_t)&model->heap; /* counters only */
    mest_region region;
    mest_region_init(&region, heap);
    onnx_writer w = { .m = model, .notes = model->notes, .options = &given, .source = model->mappings, .form = form_of(given.form), .err = err };
    onnx_sink to = { .memory = memory };
    mest_status status;
    MEST_TRY_OUT(prepare(&w, &region));
    MEST_TRY_OUT(model_body(&w));
    if (w.n > INT32_MAX) {
        status = mest_fail(err, MEST_E_LIMIT, "export '%s': the model would have %" PRIu64 " bytes, ONNX files end at 2 GiB", name, w.n);
        goto out;
    }
    uint64_t expected = w.n;
    if (size)
        *size = (size_t)expected;
    if (!path && !memory)
        goto out;
    if (!path && expected > room) {
        status = mest_fail(err, MEST_E_ARGUMENT, "export: the model has %" PRIu64 " bytes, there is room for %zu", expected, room);
        goto out;
    }
    if (path)
        MEST_TRY_OUT(mest_outfile_open(&to.file, heap, path, err));
    w.to = &to;
    w.n = 0;
    MEST_TRY_OUT(model_body(&w));
    if (w.n != expected)
        status = mest_fail(err, MEST_E_INTERNAL, "export '%s': %" PRIu64 " bytes instead of %" PRIu64, name, w.n, expected);
    else if (path) {
        status = mest_outfile_commit(to.file, err);
        to.file = NULL;
        if (status == MEST_OK)
            onnx_warn_training(&w);
    }
out:
    mest_outfile_abort(to.file);
    mest_region_free(&region);
    return status;
}

mest_status mest_model_export(const mest_model *model, const char *path, const mest_export_options *options, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(model && path && *path, err, MEST_E_ARGUMENT, "export: no model or no path");
    return export_to(model, path, NULL, 0, NULL, options, err);
}

mest_status mest_model_export_memory(const mest_model *model, void *out, size_t room, size_t *size, const mest_export_options *options, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(model && (out || size), err, MEST_E_ARGUMENT, "export: no model, or neither memory nor a place for its size");
    return export_to(model, NULL, out, room, size, options, err);
}
