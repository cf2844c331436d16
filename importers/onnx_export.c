/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the model back: the original file is copied field by field, initializers that are parameters get their present values. Nothing
 * is unpacked and no weight is held densely: values go out in chunks. Lengths come first in the format, so every part can be written
 * to nowhere to learn its size, and is then written for real. */
#include <inttypes.h>
#include <stdio.h>

#include "importers/onnx.h"
#include "importers/wire.h"
#include "runtime/outfile.h"

enum { CHUNK = 1024 }; /* elements converted at a time */

/* Field numbers of onnx.proto that are touched. */
enum {
    MODEL_IR = 1, MODEL_GRAPH = 7, MODEL_METADATA = 14,
    GRAPH_NODE = 1, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_VALUE_INFO = 13, GRAPH_SPARSE = 15,
    TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_NAME = 8, TENSOR_RAW = 9,
    SPARSE_VALUES = 1, SPARSE_INDICES = 2, SPARSE_DIMS = 3,
    INFO_NAME = 1, INFO_TYPE = 2, ENTRY_KEY = 1, ENTRY_VALUE = 2
};

typedef struct sink {         /* where the bytes go */
    mest_outfile *file;       /* or, if NULL, */
    uint8_t *memory;          /* the next byte; there is room for as many as were counted */
} sink;

typedef struct writer {
    const mest_model *m;
    const mest_onnx_notes *notes;
    const mest_export_options *options;
    const mest_mapping *source;
    sink *to;                 /* NULL: only count */
    uint64_t n;               /* bytes written or counted */
    mest_strmap sparse;       /* names written as sparse initializers, to place in `described` */
    uint8_t *described;       /* they have a value_info */
    bool any_sparse;
    char *name;               /* room for the longest of those names */
    size_t longest;
    uint64_t graph_size;
    char version[24], sparsity[24];
    mest_error *err;
} writer;

static mest_status put(writer *w, const void *bytes, size_t n)
{
    w->n += n;
    if (!w->to || !n)
        return MEST_OK;
    if (w->to->file)
        return mest_outfile_write(w->to->file, bytes, n, w->err);
    memcpy(w->to->memory, bytes, n);
    w->to->memory += n;
    return MEST_OK;
}

static mest_status put_varint(writer *w, uint64_t v)
{
    uint8_t buf[10];
    return put(w, buf, mest_wire_put(buf, v));
}

static mest_status put_tag(writer *w, uint32_t field, int wire) { return put_varint(w, (uint64_t)field << 3 | (unsigned)wire); }

static mest_status put_int(writer *w, uint32_t field, int64_t v)
{
    MEST_TRY(put_tag(w, field, MEST_WIRE_VARINT));
    return put_varint(w, (uint64_t)v);
}

static mest_status put_length(writer *w, uint32_t field, uint64_t n)
{
    MEST_TRY(put_tag(w, field, MEST_WIRE_BYTES));
    return put_varint(w, n);
}

static mest_status put_text(writer *w, uint32_t field, const char *text)
{
    MEST_TRY(put_length(w, field, strlen(text)));
    return put(w, text, strlen(text));
}

/* A message: counted first, then written after its length. */
typedef mest_status (*body)(writer *w, const void *what);
static mest_status put_message(writer *w, uint32_t field, body write, const void *what)
{
    sink *to = w->to;
    uint64_t before = w->n;
    w->to = NULL;
    mest_status status = write(w, what);
    uint64_t size = w->n - before;
    w->to = to;
    w->n = before;
    MEST_TRY(status);
    MEST_TRY(put_length(w, field, size));
    if (to)
        return write(w, what);
    w->n += size;
    return MEST_OK;
}

static mest_status next_field(writer *w, mest_wire *wire, mest_wire_field *f)
{
    const char *wrong = mest_wire_next(wire, f);
    MEST_CHECK(!wrong, w->err, MEST_E_FORMAT, "onnx '%s': byte %zu: %s (has the file changed since it was loaded?)", w->source->path, f->start, wrong);
    return MEST_OK;
}

static mest_status copy_field(writer *w, const mest_wire_field *f) { return put(w, w->source->bytes + f->start, f->end - f->start); }

/* ---- values ---- */

static uint16_t half_of_float(float x)
{
    uint32_t b, sign;
    memcpy(&b, &x, 4);
    sign = b >> 16 & 0x8000;
    b &= 0x7fffffff;
    if (b >= 0x7f800000) /* infinity, not a number */
        return (uint16_t)(sign | 0x7c00 | (b > 0x7f800000 ? 0x200 | (b >> 13 & 0x1ff) : 0));
    if (b >= 0x477ff000) /* rounds past the largest half */
        return (uint16_t)(sign | 0x7c00);
    if (b < 0x38800000) { /* subnormal: the sum rounds to a multiple of 2^-24, ties to even */
        float magnitude, sum;
        memcpy(&magnitude, &b, 4);
        sum = magnitude + 0.5f;
        memcpy(&b, &sum, 4);
        return (uint16_t)(sign | (b - 0x3f000000));
    }
    b += 0xfff + (b >> 13 & 1);
    return (uint16_t)(sign | (b - 0x38000000) >> 13);
}

static uint16_t bfloat_of_float(float x)
{
    uint32_t b;
    memcpy(&b, &x, 4);
    if ((b & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(b >> 16 | 0x40);
    return (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

/* n floats (n <= CHUNK) in the type of the file. */
static mest_status put_floats(writer *w, mest_dtype dtype, const float *x, size_t n)
{
    if (dtype == MEST_F32)
        return put(w, x, n * 4);
    if (dtype == MEST_F64) {
        double d[CHUNK];
        for (size_t i = 0; i < n; i++)
            d[i] = x[i];
        return put(w, d, n * 8);
    }
    uint16_t h[CHUNK];
    for (size_t i = 0; i < n; i++)
        h[i] = dtype == MEST_BF16 ? bfloat_of_float(x[i]) : half_of_float(x[i]);
    return put(w, h, n * 2);
}

/* Still what the file has, whether or not somebody loaded it. */
static bool untouched(const mest_param *p) { return !p->sparse && (!p->loaded || p->role == MEST_ROLE_CONSTANT); }

static mest_status put_dense_values(writer *w, const mest_param *p)
{
    size_t size = mest_dtype_file_size(p->payload.dtype);
    uint64_t bytes = (uint64_t)p->count * size;
    MEST_TRY(put_length(w, TENSOR_RAW, bytes));
    if (!w->to) {
        w->n += bytes;
        return MEST_OK;
    }
    if (untouched(p) && !p->payload.linear) { /* bit for bit, in any type */
        for (size_t at = 0; at < bytes; at += MEST_FORGET_BYTES) {
            MEST_TRY(put(w, p->payload.raw + at, bytes - at < MEST_FORGET_BYTES ? (size_t)bytes - at : MEST_FORGET_BYTES));
            mest_model_forget(w->m);
        }
        return MEST_OK;
    }
    float x[CHUNK];
    for (int64_t i = 0; i < p->count; i += CHUNK) {
        int64_t n = p->count - i < CHUNK ? p->count - i : CHUNK;
        MEST_TRY(mest_param_read(p, i, n, x, w->err));
        MEST_TRY(put_floats(w, p->payload.dtype, x, (size_t)n));
    }
    return MEST_OK;
}

static bool goes_sparse(const writer *w, const mest_param *p) { return w->options->sparse && (p->sparse || (untouched(p) && p->payload.linear)); }

static int64_t entries(const mest_param *p) { return p->sparse ? mest_sparse_nnz(p->sparse) : p->payload.nnz; }

/* Values (indices: false) or linear indices of stored entries, ascending. */
static mest_status put_entries(writer *w, const mest_param *p, bool indices)
{
    const mest_sparse *s = p->sparse;
    size_t size = indices ? 8 : mest_dtype_file_size(p->payload.dtype);
    uint64_t bytes = (uint64_t)entries(p) * size;
    MEST_TRY(put_length(w, TENSOR_RAW, bytes));
    if (!w->to) {
        w->n += bytes;
        return MEST_OK;
    }
    if (!s)
        return put(w, indices ? (const void *)p->payload.linear : p->payload.raw, (size_t)bytes);
    const int64_t most = mest_sparse_row_most(s);
    int64_t *entry, at[CHUNK];
    float x[CHUNK];
    size_t n = 0;
    mest_status status = MEST_OK;
    MEST_NEW(s->heap, entry, most, w->err, "entries of a row");
    for (int64_t row = 0; row < s->rows; row++) {
        const int64_t in_row = mest_sparse_row(s, row, entry);
        for (int64_t i = 0; i < in_row; i++) {
            x[n] = (float)s->values[entry[i] & 0xffffffff];
            at[n++] = row * s->cols + (entry[i] >> 32);
            if (n == CHUNK) {
                MEST_TRY_OUT(indices ? put(w, at, n * 8) : put_floats(w, p->payload.dtype, x, n));
                n = 0;
            }
        }
    }
    MEST_TRY_OUT(indices ? put(w, at, n * 8) : put_floats(w, p->payload.dtype, x, n));
out:
    mest_free(s->heap, entry, (size_t)most, sizeof *entry);
    return status;
}

/* ---- tensors ---- */

typedef struct tensor_job {
    const mest_param *p;            /* or */
    const mest_onnx_note *constant; /* external data that is folded in */
    const mest_wire_field *old;     /* TensorProto of the file; NULL: none */
    bool indices;
} tensor_job;

static mest_status tensor_body(writer *w, const void *what)
{
    const tensor_job *job = what;
    if (job->old) { /* all but the data */
        mest_wire wire = { w->source->bytes, job->old->begin, job->old->end };
        mest_wire_field f;
        while (wire.at < wire.end) {
            MEST_TRY(next_field(w, &wire, &f));
            if (f.number <= 2 || f.number == TENSOR_NAME || f.number == 12 || f.number >= 16)
                MEST_TRY(copy_field(w, &f));
        }
    } else {
        for (int i = 0; i < job->p->shape.rank; i++)
            MEST_TRY(put_int(w, TENSOR_DIMS, job->p->shape.dim[i]));
        MEST_TRY(put_int(w, TENSOR_TYPE, job->p->payload.dtype));
        MEST_TRY(put_text(w, TENSOR_NAME, job->p->name));
    }
    if (job->p)
        return put_dense_values(w, job->p);
    uint64_t bytes = (uint64_t)job->constant->payload.count * mest_dtype_file_size(job->constant->payload.dtype);
    MEST_TRY(put_length(w, TENSOR_RAW, bytes));
    return put(w, job->constant->payload.raw, (size_t)bytes);
}

static mest_status sparse_part(writer *w, const void *what)
{
    const tensor_job *job = what;
    MEST_TRY(put_int(w, TENSOR_DIMS, entries(job->p)));
    MEST_TRY(put_int(w, TENSOR_TYPE, job->indices ? MEST_I64 : job->p->payload.dtype));
    if (!job->indices)
        MEST_TRY(put_text(w, TENSOR_NAME, job->p->name));
    return put_entries(w, job->p, job->indices);
}

static mest_status sparse_body(writer *w, const void *what)
{
    const mest_param *p = what;
    tensor_job values = { .p = p }, indices = { .p = p, .indices = true };
    MEST_TRY(put_message(w, SPARSE_VALUES, sparse_part, &values));
    MEST_TRY(put_message(w, SPARSE_INDICES, sparse_part, &indices));
    for (int i = 0; i < p->shape.rank; i++)
        MEST_TRY(put_int(w, SPARSE_DIMS, p->shape.dim[i]));
    return MEST_OK;
}

static mest_status put_param(writer *w, const mest_param *p, const mest_wire_field *old)
{
    if (goes_sparse(w, p))
        return put_message(w, GRAPH_SPARSE, sparse_body, p);
    tensor_job job = { .p = p, .old = old };
    return put_message(w, GRAPH_INITIALIZER, tensor_body, &job);
}

/* ---- value_info ---- */

static mest_status dim_body(writer *w, const void *what) { return put_int(w, 1, *(const int64_t *)what); }

static mest_status shape_body(writer *w, const void *what)
{
    const mest_param *p = what;
    for (int i = 0; i < p->shape.rank; i++)
        MEST_TRY(put_message(w, 1, dim_body, &p->shape.dim[i]));
    return MEST_OK;
}

static mest_status tensor_type_body(writer *w, const void *what)
{
    MEST_TRY(put_int(w, 1, ((const mest_param *)what)->payload.dtype));
    return put_message(w, 2, shape_body, what);
}

static mest_status type_body(writer *w, const void *what) { return put_message(w, 1, tensor_type_body, what); }

static mest_status info_body(writer *w, const void *what)
{
    MEST_TRY(put_text(w, INFO_NAME, ((const mest_param *)what)->name));
    return put_message(w, INFO_TYPE, type_body, what);
}

/* Place of a ValueInfoProto's name among those that are written sparsely, or -1. */
static mest_status find_sparse(writer *w, const mest_wire_field *info, int32_t *place)
{
    mest_wire wire = { w->source->bytes, info->begin, info->end };
    mest_wire_field f;
    *place = -1;
    while (w->any_sparse && wire.at < wire.end) {
        MEST_TRY(next_field(w, &wire, &f));
        size_t n = f.end - f.begin;
        if (f.number != INFO_NAME || f.wire != MEST_WIRE_BYTES || n > w->longest)
            continue;
        memcpy(w->name, w->source->bytes + f.begin, n);
        w->name[n] = 0;
        *place = mest_strmap_get(&w->sparse, w->name);
    }
    return MEST_OK;
}

/* ---- graph and model ---- */

static mest_status put_initializer(writer *w, const mest_onnx_note *note, const mest_wire_field *f, bool is_sparse)
{
    if (note->param >= 0)
        return put_param(w, &w->m->params[note->param], is_sparse ? NULL : f);
    if (!note->external)
        return copy_field(w, f);
    MEST_CHECK(!is_sparse, w->err, MEST_E_UNSUPPORTED, "export: sparse constant '%s' has external data", note->name);
    tensor_job job = { .constant = note, .old = f };
    return put_message(w, GRAPH_INITIALIZER, tensor_body, &job);
}

static mest_status graph_body(writer *w, const mest_wire_field *graph)
{
    const mest_onnx_notes *notes = w->notes;
    mest_wire wire = { w->source->bytes, graph->begin, graph->end };
    mest_wire_field f;
    int32_t node = 0, next_drop = 0, dense = 0, sparse = 0, place;
    memset(w->described, 0, w->sparse.n);
    while (wire.at < wire.end) {
        MEST_TRY(next_field(w, &wire, &f));
        if (f.number == GRAPH_NODE) {
            if (next_drop < notes->n_dropped && notes->dropped[next_drop] == node++) {
                next_drop++;
                continue;
            }
        } else if (f.number == GRAPH_INITIALIZER && dense < notes->n_dense) {
            MEST_TRY(put_initializer(w, &notes->dense[dense++], &f, false));
            continue;
        } else if (f.number == GRAPH_SPARSE && sparse < notes->n_sparse) {
            MEST_TRY(put_initializer(w, &notes->sparse[sparse++], &f, true));
            continue;
        } else if (f.number == GRAPH_INPUT || f.number == GRAPH_VALUE_INFO) {
            MEST_TRY(find_sparse(w, &f, &place));
            if (place >= 0 && f.number == GRAPH_INPUT)
                continue; /* a sparse initializer cannot be the default of an input */
            if (place >= 0)
                w->described[place] = 1;
        }
        MEST_TRY(copy_field(w, &f));
    }
    for (int32_t i = 0; i < notes->n_dropped; i++) {
        const mest_param *p = &w->m->params[notes->added[i]];
        MEST_TRY(put_param(w, p, NULL));
        if (w->m->ir_version < 4 && !goes_sparse(w, p)) /* there every initializer is an input too */
            MEST_TRY(put_message(w, GRAPH_INPUT, info_body, p));
    }
    for (int32_t i = 0; i < w->m->n_params; i++) {
        const mest_param *p = &w->m->params[i];
        if (goes_sparse(w, p) && !w->described[mest_strmap_get(&w->sparse, p->name)])
            MEST_TRY(put_message(w, GRAPH_VALUE_INFO, info_body, p)); /* strict shape inference needs it */
    }
    return MEST_OK;
}

typedef struct entry { const char *key, *value; } entry;

static mest_status entry_body(writer *w, const void *what)
{
    const entry *e = what;
    MEST_TRY(put_text(w, ENTRY_KEY, e->key));
    return put_text(w, ENTRY_VALUE, e->value);
}

/* Entry i of what is added: the caller's pairs, then the library's own unless the caller gave that key. */
static bool added_entry(const writer *w, int i, entry *e)
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

static mest_status replaced(writer *w, const mest_wire_field *old, bool *yes)
{
    mest_wire wire = { w->source->bytes, old->begin, old->end };
    mest_wire_field f;
    entry e;
    *yes = false;
    while (wire.at < wire.end) {
        MEST_TRY(next_field(w, &wire, &f));
        size_t n = f.end - f.begin;
        for (int i = 0; f.number == ENTRY_KEY && added_entry(w, i, &e); i++)
            *yes |= n == strlen(e.key) && !memcmp(e.key, w->source->bytes + f.begin, n);
    }
    return MEST_OK;
}

static mest_status model_body(writer *w)
{
    mest_wire wire = { w->source->bytes, 0, w->source->size };
    mest_wire_field f;
    entry e;
    while (wire.at < wire.end) {
        MEST_TRY(next_field(w, &wire, &f));
        if (f.number == MODEL_IR && w->any_sparse && w->m->ir_version < 8) {
            MEST_TRY(put_int(w, MODEL_IR, 8));
        } else if (f.number == MODEL_GRAPH) {
            MEST_TRY(put_length(w, MODEL_GRAPH, w->graph_size));
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
            if (f.number == MODEL_METADATA && f.wire == MEST_WIRE_BYTES)
                MEST_TRY(replaced(w, &f, &skip));
            if (!skip)
                MEST_TRY(copy_field(w, &f));
        }
    }
    for (int i = 0; added_entry(w, i, &e); i++)
        MEST_TRY(put_message(w, MODEL_METADATA, entry_body, &e));
    return MEST_OK;
}

static mest_status prepare(writer *w, mest_region *region)
{
    int64_t all = 0, stored = 0;
    mest_strmap_init(&w->sparse, region);
    for (int32_t i = 0; i < w->m->n_params; i++) {
        const mest_param *p = &w->m->params[i];
        if (p->sparse || (untouched(p) && p->payload.linear)) {
            all += p->count;
            stored += entries(p);
        }
        if (!goes_sparse(w, p))
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

/* The options as the caller has them, and everything that is known before a byte is written. */
static mest_status check_export(const mest_model *model, const mest_export_options *options, mest_export_options *given, mest_error *err)
{
    *given = (mest_export_options){ .struct_size = sizeof *given };
    MEST_CHECK(!options || mest_take_options(given, sizeof *given, options), err, MEST_E_ARGUMENT, "export: options.struct_size is not set");
    MEST_CHECK(model->notes && model->mappings, err, MEST_E_STATE, "export: the model does not come from a file");
    MEST_CHECK(!model->notes->external_attribute, err, MEST_E_UNSUPPORTED, "export: an attribute of the model has external data");
    for (const char *const *p = given->metadata; p && *p; p += 2)
        MEST_CHECK(p[1], err, MEST_E_ARGUMENT, "export: metadata '%s' has no value", p[0]);
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
    writer w = { .m = model, .notes = model->notes, .options = &given, .source = model->mappings, .err = err };
    sink to = { .memory = memory };
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
