/* SPDX-License-Identifier: Apache-2.0 */
/* Fields, messages and tensors of an ONNX file. No weight is held densely: values go out in chunks. */
#include <inttypes.h>
#include <stdio.h>

#include "importers/onnx_write.h"
#include "runtime/channels.h"

enum { CHUNK = 1024 }; /* elements converted at a time */

mest_status onnx_put(onnx_writer *w, const void *bytes, size_t n)
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

static mest_status onnx_put_varint(onnx_writer *w, uint64_t v)
{
    uint8_t buf[10];
    return onnx_put(w, buf, mest_wire_put(buf, v));
}

static mest_status onnx_put_tag(onnx_writer *w, uint32_t field, int wire) { return onnx_put_varint(w, (uint64_t)field << 3 | (unsigned)wire); }

mest_status onnx_put_int(onnx_writer *w, uint32_t field, int64_t v)
{
    MEST_TRY(onnx_put_tag(w, field, MEST_WIRE_VARINT));
    return onnx_put_varint(w, (uint64_t)v);
}

mest_status onnx_put_length(onnx_writer *w, uint32_t field, uint64_t n)
{
    MEST_TRY(onnx_put_tag(w, field, MEST_WIRE_BYTES));
    return onnx_put_varint(w, n);
}

mest_status onnx_put_text(onnx_writer *w, uint32_t field, const char *text)
{
    MEST_TRY(onnx_put_length(w, field, strlen(text)));
    return onnx_put(w, text, strlen(text));
}

mest_status onnx_put_message(onnx_writer *w, uint32_t field, onnx_body write, const void *what)
{
    onnx_sink *to = w->to;
    uint64_t before = w->n;
    w->to = NULL;
    mest_status status = write(w, what);
    uint64_t size = w->n - before;
    w->to = to;
    w->n = before;
    MEST_TRY(status);
    MEST_TRY(onnx_put_length(w, field, size));
    if (to)
        return write(w, what);
    w->n += size;
    return MEST_OK;
}

mest_status onnx_next_field(onnx_writer *w, mest_wire *wire, mest_wire_field *f)
{
    const char *wrong = mest_wire_next(wire, f);
    MEST_CHECK(!wrong, w->err, MEST_E_FORMAT, "onnx '%s': byte %zu: %s (has the file changed since it was loaded?)", w->source->path, f->start, wrong);
    if (wire->at > w->walked + MEST_FORGET_BYTES || wire->at < w->walked) { /* stepping over tensors touches pages, too, and a touch maps up to 2 MiB */
        mest_model_forget(w->m);
        w->walked = wire->at;
    }
    return MEST_OK;
}

mest_status onnx_copy_field(onnx_writer *w, const mest_wire_field *f) { return onnx_put(w, w->source->bytes + f->start, f->end - f->start); }

bool onnx_is_text(const onnx_writer *w, const mest_wire_field *f, const char *text)
{
    const size_t n = f->end - f->begin;
    return f->wire == MEST_WIRE_BYTES && n == strlen(text) && !memcmp(w->source->bytes + f->begin, text, n);
}

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
static mest_status put_floats(onnx_writer *w, mest_dtype dtype, const float *x, size_t n)
{
    if (dtype == MEST_F32)
        return onnx_put(w, x, n * 4);
    if (dtype == MEST_F64) {
        double d[CHUNK];
        for (size_t i = 0; i < n; i++)
            d[i] = x[i];
        return onnx_put(w, d, n * 8);
    }
    uint16_t h[CHUNK];
    for (size_t i = 0; i < n; i++)
        h[i] = dtype == MEST_BF16 ? bfloat_of_float(x[i]) : half_of_float(x[i]);
    return onnx_put(w, h, n * 2);
}

/* Elements [first, first + n) of a Conv's weight or bias with the unfolded BatchNormalization behind it in them. */
static void fold_values(const onnx_writer *w, const mest_param *p, int64_t first, int64_t n, float *x)
{
    const bool is_bias = p->fold && &w->m->params[p->fold->weight] != p;
    const int64_t row = p->fold && !is_bias ? p->count / p->shape.dim[0] : 1; /* an empty weight has no elements to come here with */
    double factor = 1, shift = 0;
    for (int64_t i = 0; p->fold && i < n; i++) {
        if (i == 0 || (first + i) % row == 0)
            mest_fold_channel(w->m, p->fold, (first + i) / row, &factor, &shift);
        x[i] = (float)((double)x[i] * factor + (is_bias ? shift : 0));
    }
}

bool onnx_untouched(const mest_param *p) { return !p->fold && !p->sparse && (!p->loaded || p->role == MEST_ROLE_CONSTANT); }
bool onnx_shrinks(const onnx_writer *w, const mest_param *p) { return w->options->shrunk && p->axes; }
const mest_shape *onnx_shape(const onnx_writer *w, const mest_param *p) { return onnx_shrinks(w, p) ? &p->shape : mest_param_file_shape(p); }

static mest_status put_dense_once(onnx_writer *w, const mest_param *p, int64_t count)
{
    const uint64_t bytes = (uint64_t)count * mest_dtype_file_size(p->payload.dtype);
    const bool small = onnx_shrinks(w, p);
    if (onnx_untouched(p) && !p->payload.linear && p->payload.raw) { /* bit for bit, in any type */
        for (size_t at = 0; at < bytes; at += MEST_FORGET_BYTES) {
            MEST_TRY(onnx_put(w, p->payload.raw + at, bytes - at < MEST_FORGET_BYTES ? (size_t)bytes - at : MEST_FORGET_BYTES));
            mest_model_forget(w->m);
        }
        return MEST_OK;
    }
    float x[CHUNK];
    for (int64_t i = 0; i < count; i += CHUNK) {
        int64_t n = count - i < CHUNK ? count - i : CHUNK;
        for (int64_t k = 0; small && k < n; k++)
            x[k] = (float)p->values[i + k];
        if (!small)
            MEST_TRY(mest_param_read(p, i, n, x, w->err));
        fold_values(w, p, i, n, x);
        MEST_TRY(put_floats(w, p->payload.dtype, x, (size_t)n));
    }
    return MEST_OK;
}

/* repeats 0: once. */
static mest_status put_dense_values(onnx_writer *w, const mest_param *p, int64_t repeats)
{
    const int64_t count = onnx_shrinks(w, p) ? p->count : mest_param_file_count(p), times = repeats ? repeats : 1;
    const uint64_t bytes = (uint64_t)count * mest_dtype_file_size(p->payload.dtype) * (uint64_t)times;
    MEST_TRY(onnx_put_length(w, TENSOR_RAW, bytes));
    if (!w->to) {
        w->n += bytes;
        return MEST_OK;
    }
    for (int64_t i = 0; i < times; i++)
        MEST_TRY(put_dense_once(w, p, count));
    return MEST_OK;
}

/* Rows [first, first + n) of the transposed values of p into x[n * rows of p]; p [rows, cols] is read row by row. */
static mest_status read_transposed(onnx_writer *w, const mest_param *p, int64_t first, int64_t n, float *row, float *x)
{
    const int64_t rows = mest_param_file_shape(p)->dim[0], cols = mest_param_file_shape(p)->dim[1];
    for (int64_t i = 0; i < rows; i++) {
        MEST_TRY(mest_param_read(p, i * cols, cols, row, w->err));
        for (int64_t k = 0; k < n; k++)
            x[k * rows + i] = row[first + k];
    }
    return MEST_OK;
}

enum { TRANSPOSED_BYTES = 4 << 20 }; /* held at a time */

static mest_status put_transposed(onnx_writer *w, const mest_param *p)
{
    const int64_t rows = mest_param_file_shape(p)->dim[0], cols = mest_param_file_shape(p)->dim[1];
    int64_t most = TRANSPOSED_BYTES / ((int64_t)sizeof(float) * rows);
    most = most < 1 ? 1 : most > cols ? cols : most;
    uint64_t bytes = (uint64_t)mest_param_file_count(p) * mest_dtype_file_size(p->payload.dtype);
    MEST_TRY(onnx_put_length(w, TENSOR_RAW, bytes));
    if (!w->to) {
        w->n += bytes;
        return MEST_OK;
    }
    mest_heap *heap = (mest_heap *)(uintptr_t)&w->m->heap;
    float *x = mest_alloc(heap, (size_t)(most * rows), sizeof *x), *row = mest_alloc(heap, (size_t)cols, sizeof *row);
    mest_status status = x && row ? MEST_OK : mest_fail(w->err, MEST_E_NOMEM, "export: no memory for '%s' transposed", p->name);
    for (int64_t at = 0; status == MEST_OK && at < cols; at += most) {
        int64_t n = cols - at < most ? cols - at : most;
        status = read_transposed(w, p, at, n, row, x);
        for (int64_t i = 0; status == MEST_OK && i < n * rows; i += CHUNK)
            status = put_floats(w, p->payload.dtype, x + i, (size_t)(n * rows - i < CHUNK ? n * rows - i : CHUNK));
    }
    mest_free(heap, x, (size_t)(most * rows), sizeof *x);
    mest_free(heap, row, (size_t)cols, sizeof *row);
    return status;
}

bool onnx_goes_sparse(const onnx_writer *w, const mest_param *p) { return w->options->sparse && (p->sparse || (onnx_untouched(p) && p->payload.linear)); }

int64_t onnx_entries(const mest_param *p) { return p->sparse ? mest_sparse_nnz(p->sparse) : p->payload.nnz; }

/* Values (indices: false) or linear indices of stored entries, ascending. */
static mest_status put_entries(onnx_writer *w, const mest_param *p, bool indices)
{
    const mest_sparse *s = p->sparse;
    size_t size = indices ? 8 : mest_dtype_file_size(p->payload.dtype);
    uint64_t bytes = (uint64_t)onnx_entries(p) * size;
    MEST_TRY(onnx_put_length(w, TENSOR_RAW, bytes));
    if (!w->to) {
        w->n += bytes;
        return MEST_OK;
    }
    if (!s)
        return onnx_put(w, indices ? (const void *)p->payload.linear : p->payload.raw, (size_t)bytes);
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
            at[n] = row * s->cols + (entry[i] >> 32);
            fold_values(w, p, at[n], 1, &x[n]);
            n++;
            if (n == CHUNK) {
                MEST_TRY_OUT(indices ? onnx_put(w, at, n * 8) : put_floats(w, p->payload.dtype, x, n));
                n = 0;
            }
        }
    }
    MEST_TRY_OUT(indices ? onnx_put(w, at, n * 8) : put_floats(w, p->payload.dtype, x, n));
out:
    mest_free(s->heap, entry, (size_t)most, sizeof *entry);
    return status;
}

/* ---- tensors ---- */

typedef struct tensor_job {
    const mest_param *p;            /* or */
    const mest_onnx_note *constant; /* external data that is folded in */
    const mest_wire_field *old;     /* TensorProto of the file; NULL: none */
    bool indices, transposed;
    int64_t repeats;
} tensor_job;

static mest_status put_dims(onnx_writer *w, const mest_param *p)
{
    const mest_shape *s = onnx_shape(w, p);
    for (int i = 0; i < s->rank; i++)
        MEST_TRY(onnx_put_int(w, TENSOR_DIMS, s->dim[i]));
    return MEST_OK;
}

static mest_status tensor_body(onnx_writer *w, const void *what)
{
    const tensor_job *job = what;
    const bool changed = !job->old || (job->p && (job->p->reshaped || onnx_shrinks(w, job->p)));
    if (job->old) { /* all but the data */
        mest_wire wire = { w->source->bytes, job->old->begin, job->old->end };
        mest_wire_field f;
        while (wire.at < wire.end) {
            MEST_TRY(onnx_next_field(w, &wire, &f));
            if (f.number == TENSOR_DIMS && changed)
                continue;
            if (f.number <= 2 || f.number == TENSOR_NAME || f.number == 12 || f.number >= 16)
                MEST_TRY(onnx_copy_field(w, &f));
        }
    }
    if (changed)
        MEST_TRY(put_dims(w, job->p));
    if (!job->old) {
        MEST_TRY(onnx_put_int(w, TENSOR_TYPE, job->p->payload.dtype));
        MEST_TRY(onnx_put_text(w, TENSOR_NAME, job->p->name));
    }
    if (job->p)
        return job->transposed ? put_transposed(w, job->p) : put_dense_values(w, job->p, job->repeats);
    uint64_t bytes = (uint64_t)job->constant->payload.count * mest_dtype_file_size(job->constant->payload.dtype);
    MEST_TRY(onnx_put_length(w, TENSOR_RAW, bytes));
    return onnx_put(w, job->constant->payload.raw, (size_t)bytes);
}

static mest_status sparse_part(onnx_writer *w, const void *what)
{
    const tensor_job *job = what;
    MEST_TRY(onnx_put_int(w, TENSOR_DIMS, onnx_entries(job->p)));
    MEST_TRY(onnx_put_int(w, TENSOR_TYPE, job->indices ? MEST_I64 : job->p->payload.dtype));
    if (!job->indices)
        MEST_TRY(onnx_put_text(w, TENSOR_NAME, job->p->name));
    return put_entries(w, job->p, job->indices);
}

static mest_status sparse_body(onnx_writer *w, const void *what)
{
    const mest_param *p = what;
    tensor_job values = { .p = p }, indices = { .p = p, .indices = true };
    MEST_TRY(onnx_put_message(w, SPARSE_VALUES, sparse_part, &values));
    MEST_TRY(onnx_put_message(w, SPARSE_INDICES, sparse_part, &indices));
    for (int i = 0; i < p->shape.rank; i++)
        MEST_TRY(onnx_put_int(w, SPARSE_DIMS, p->shape.dim[i]));
    return MEST_OK;
}

mest_status onnx_put_param(onnx_writer *w, const mest_param *p, const mest_wire_field *old)
{
    if (onnx_goes_sparse(w, p))
        return onnx_put_message(w, GRAPH_SPARSE, sparse_body, p);
    tensor_job job = { .p = p, .old = old };
    return onnx_put_message(w, GRAPH_INITIALIZER, tensor_body, &job);
}

mest_status onnx_put_initializer(onnx_writer *w, const mest_onnx_note *note, const mest_wire_field *f, bool is_sparse)
{
    if (note->left_out)
        return MEST_OK;
    if (note->mirror >= 0 || note->repeats) {
        tensor_job job = { .p = &w->m->params[note->mirror >= 0 ? note->mirror : note->param], .old = f, .transposed = !note->repeats, .repeats = note->repeats };
        return onnx_put_message(w, GRAPH_INITIALIZER, tensor_body, &job);
    }
    if (note->param >= 0)
        return onnx_put_param(w, &w->m->params[note->param], is_sparse ? NULL : f);
    if (onnx_head_sizes(w, note->name))
        return onnx_put_head_sizes(w, onnx_head_sizes(w, note->name));
    if (!note->external)
        return onnx_copy_field(w, f);
    MEST_CHECK(!is_sparse, w->err, MEST_E_UNSUPPORTED, "export: sparse constant '%s' has external data", note->name);
    tensor_job job = { .constant = note, .old = f };
    return onnx_put_message(w, GRAPH_INITIALIZER, tensor_body, &job);
}
