/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of the file: raw_data, typed storage, external data, sparse storage. */
#include <inttypes.h>

#include "importers/onnx.h"

static mest_status bad(onnx_importer *im, const char *what, const char *why)
{
    return mest_fail(im->err, MEST_E_FORMAT, "onnx '%s': tensor '%s': %s", im->path, what, why);
}

static mest_status read_dims(onnx_importer *im, const char *what, const int64_t *dims, size_t n, mest_shape *shape, int64_t *count)
{
    MEST_CHECK(n <= MEST_MAX_RANK, im->err, MEST_E_UNSUPPORTED, "onnx '%s': tensor '%s' has rank %zu, at most %d is supported", im->path, what,
               n, MEST_MAX_RANK);
    memset(shape, 0, sizeof *shape);
    shape->rank = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        MEST_CHECK(dims[i] >= 0, im->err, MEST_E_FORMAT, "onnx '%s': tensor '%s': dimension %zu is %" PRId64, im->path, what, i, dims[i]);
        shape->dim[i] = dims[i];
    }
    MEST_CHECK(mest_shape_count(shape, count) && *count <= (int64_t)1 << 48, im->err, MEST_E_FORMAT,
               "onnx '%s': tensor '%s': the number of elements overflows", im->path, what);
    return MEST_OK;
}

/* Strict decimal number. */
static bool decimal(const char *text, uint64_t *value)
{
    uint64_t v = 0;
    if (!*text)
        return false;
    for (; *text; text++)
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
            return false;
    *value = v;
    return true;
}

static mest_status external(onnx_importer *im, const Onnx__TensorProto *t, const char *what, uint64_t bytes, const uint8_t **raw)
{
    const char *location = NULL;
    uint64_t offset = 0, length = bytes;
    for (size_t i = 0; i < t->n_external_data; i++) {
        const char *key = onnx_text(t->external_data[i]->key), *value = onnx_text(t->external_data[i]->value);
        if (!strcmp(key, "location"))
            location = value;
        else if (!strcmp(key, "offset") && !decimal(value, &offset))
            return bad(im, what, "the offset of its external data is not a number");
        else if (!strcmp(key, "length") && !decimal(value, &length))
            return bad(im, what, "the length of its external data is not a number");
    }
    if (!location)
        return bad(im, what, "external data without a location");
    MEST_CHECK(length == bytes, im->err, MEST_E_FORMAT, "onnx '%s': tensor '%s': %" PRIu64 " bytes of external data, its shape wants %" PRIu64,
               im->path, what, length, bytes);
    const mest_mapping *map;
    MEST_TRY(mest_onnx_map_external(im->m, im->path, location, what, &map, im->err));
    if (offset > map->size || bytes > map->size - offset)
        return bad(im, what, "its external data reaches past the end of the file");
    *raw = map->bytes ? map->bytes + offset : (const uint8_t *)"";
    return MEST_OK;
}

/* The payload's number that the scan left in the tensor. */
static mest_status scanned(onnx_importer *im, const Onnx__TensorProto *t, const char *what, uint32_t *kind, mest_prescan_payload *where)
{
    *kind = 0;
    for (unsigned i = 0; i < t->base.n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *f = &t->base.unknown_fields[i];
        if (f->tag < MEST_PRESCAN_RAW || f->tag > MEST_PRESCAN_DOUBLES || f->len != 4)
            continue;
        if (*kind)
            return bad(im, what, "its values come in several pieces");
        uint32_t n = f->data[0] | (uint32_t)f->data[1] << 8 | (uint32_t)f->data[2] << 16 | (uint32_t)f->data[3] << 24;
        if (n >= im->scan.n_payloads)
            return bad(im, what, "its values are not where they should be");
        *kind = f->tag;
        *where = im->scan.payloads[n];
    }
    return MEST_OK;
}

/* Values that protobuf-c unpacked, narrowed to the type of the tensor. */
static mest_status typed(onnx_importer *im, const Onnx__TensorProto *t, const char *what, mest_dtype dtype, int64_t count, const uint8_t **raw)
{
    size_t given = t->n_float_data + t->n_int32_data + t->n_int64_data + t->n_double_data + t->n_uint64_data, n = 0;
    switch (dtype) {
    case MEST_F32: n = t->n_float_data; break;
    case MEST_F64: n = t->n_double_data; break;
    case MEST_I64: n = t->n_int64_data; break;
    case MEST_U32: case MEST_U64: n = t->n_uint64_data; break;
    default: n = t->n_int32_data; break;
    }
    MEST_CHECK(n == given && n == (size_t)count, im->err, MEST_E_FORMAT,
               "onnx '%s': tensor '%s': %zu values (%zu of its type), its shape wants %" PRId64, im->path, what, given, n, count);
    size_t size = mest_dtype_file_size(dtype);
    uint8_t *out = mest_region_alloc(&im->m->region, n + 1, size);
    MEST_CHECK(out, im->err, MEST_E_NOMEM, "onnx '%s': tensor '%s': no memory for %zu x %zu bytes", im->path, what, n, size);
    *raw = out;
    if (n == 0)
        return MEST_OK;
    if (dtype == MEST_F32)
        memcpy(out, t->float_data, n * 4);
    else if (dtype == MEST_F64)
        memcpy(out, t->double_data, n * 8);
    else if (dtype == MEST_I64)
        memcpy(out, t->int64_data, n * 8);
    else if (dtype == MEST_U32 || dtype == MEST_U64)
        for (size_t i = 0; i < n; i++)
            memcpy(out + i * size, &t->uint64_data[i], size); /* little-endian: the low bytes come first */
    else
        for (size_t i = 0; i < n; i++)
            memcpy(out + i * size, &t->int32_data[i], size);
    return MEST_OK;
}

mest_status mest_onnx_payload(onnx_importer *im, const Onnx__TensorProto *t, const char *what, mest_shape *shape, mest_payload *payload,
                              bool *is_external)
{
    int64_t count;
    mest_dtype dtype = (mest_dtype)t->data_type;
    size_t size = mest_dtype_file_size(dtype);
    *is_external = t->has_data_location && t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    MEST_CHECK(size > 0 && t->n_string_data == 0, im->err, MEST_E_UNSUPPORTED, "onnx '%s': tensor '%s' has type %d (%s), which is not supported",
               im->path, what, t->data_type, mest_dtype_name(dtype));
    MEST_TRY(read_dims(im, what, t->dims, t->n_dims, shape, &count));
    *payload = (mest_payload){ .dtype = dtype, .count = count };
    uint32_t kind;
    mest_prescan_payload where = { 0, 0 };
    MEST_TRY(scanned(im, t, what, &kind, &where));
    size_t given = t->n_float_data + t->n_int32_data + t->n_int64_data + t->n_double_data + t->n_uint64_data;
    uint64_t bytes = (uint64_t)count * size;
    if (*is_external) {
        if (kind || given)
            return bad(im, what, "values in the file and external data");
        return external(im, t, what, bytes, &payload->raw);
    }
    if (kind) {
        if (given)
            return bad(im, what, "values in two places");
        if ((kind == MEST_PRESCAN_FLOATS && dtype != MEST_F32) || (kind == MEST_PRESCAN_DOUBLES && dtype != MEST_F64))
            return bad(im, what, "values of another type than it says");
        MEST_CHECK(where.size == bytes, im->err, MEST_E_FORMAT,
                   "onnx '%s': tensor '%s': %" PRIu64 " bytes of values, its shape wants %" PRIu64 " (byte %" PRIu64 ")", im->path, what,
                   where.size, bytes, where.offset);
        payload->raw = im->m->mappings->bytes + where.offset;
        return MEST_OK;
    }
    return typed(im, t, what, dtype, count, &payload->raw);
}

mest_status mest_onnx_sparse_payload(onnx_importer *im, const Onnx__SparseTensorProto *t, const char *what, mest_shape *shape,
                                     mest_payload *payload, bool *is_external)
{
    mest_shape value_shape, index_shape;
    mest_payload index;
    int64_t count;
    bool index_external = false;
    if (!t->values || !t->indices)
        return bad(im, what, "a sparse tensor without values or indices");
    MEST_TRY(read_dims(im, what, t->dims, t->n_dims, shape, &count));
    int64_t rows = shape->rank ? shape->dim[0] : 1, cols = rows ? count / rows : 0;
    MEST_CHECK(rows <= INT32_MAX && cols <= INT32_MAX && count > 0, im->err, MEST_E_LIMIT,
               "onnx '%s': tensor '%s': a sparse tensor of %" PRId64 " x %" PRId64 " elements is not supported", im->path, what, rows, cols);
    MEST_TRY(mest_onnx_payload(im, t->values, what, &value_shape, payload, is_external));
    if (value_shape.rank != 1)
        return bad(im, what, "the values of a sparse tensor must have rank 1");
    MEST_TRY(mest_onnx_payload(im, t->indices, what, &index_shape, &index, &index_external));
    *is_external |= index_external;
    int64_t nnz = payload->count;
    int width = index_shape.rank == 2 ? shape->rank : 1;
    if (index.dtype != MEST_I64 || index_shape.rank < 1 || index_shape.rank > 2 || index_shape.dim[0] != nnz ||
        (index_shape.rank == 2 && index_shape.dim[1] != shape->rank))
        return bad(im, what, "sparse indices must be int64 of shape [values] or [values, rank]");
    int64_t *linear = mest_region_alloc(&im->m->region, (size_t)nnz + 1, sizeof *linear);
    MEST_CHECK(linear, im->err, MEST_E_NOMEM, "onnx '%s': tensor '%s': no memory for %" PRId64 " indices", im->path, what, nnz);
    for (int64_t i = 0; i < nnz; i++) {
        int64_t at = 0;
        for (int k = 0; k < width; k++) {
            int64_t v, limit = width == 1 && index_shape.rank == 1 ? count : shape->dim[k];
            memcpy(&v, index.raw + (size_t)(i * width + k) * 8, 8);
            MEST_CHECK(v >= 0 && v < limit, im->err, MEST_E_FORMAT, "onnx '%s': tensor '%s': sparse index %" PRId64 " is outside 0..%" PRId64,
                       im->path, what, v, limit - 1);
            at = width == 1 && index_shape.rank == 1 ? v : at * limit + v;
        }
        linear[i] = at;
        if (i && at <= linear[i - 1])
            return bad(im, what, at == linear[i - 1] ? "a sparse index that comes twice" : "sparse indices that do not ascend");
    }
    payload->count = count;
    payload->nnz = nnz;
    payload->linear = linear;
    return MEST_OK;
}

mest_status mest_onnx_constant_data(onnx_importer *im, const char *what, const mest_shape *shape, const mest_payload *payload, mest_type *type,
                                    const void **data)
{
    bool is_float = payload->dtype == MEST_F32 || payload->dtype == MEST_F16 || payload->dtype == MEST_BF16 || payload->dtype == MEST_F64;
    memset(type, 0, sizeof *type);
    type->dtype = is_float ? MEST_F32 : payload->dtype;
    type->shape = *shape;
    size_t size = mest_dtype_size(type->dtype), n = (size_t)payload->count, file_size = mest_dtype_file_size(payload->dtype);
    MEST_CHECK(!payload->linear || n <= im->max_constant / size, im->err, MEST_E_LIMIT, "onnx '%s': constant '%s' is sparse and too large", im->path,
               what);
    char *out = mest_region_alloc(&im->m->graph.region, n + 16, size);
    MEST_CHECK(out, im->err, MEST_E_NOMEM, "onnx '%s': constant '%s': no memory for %zu x %zu bytes", im->path, what, n, size);
    *data = out;
    if (is_float) {
        float chunk[256];
        for (size_t i = 0; i < n; i += 256) {
            size_t k = n - i < 256 ? n - i : 256;
            MEST_TRY(mest_payload_read(payload, (int64_t)i, (int64_t)k, chunk, im->err));
            for (size_t j = 0; j < k; j++)
                ((mest_real *)(void *)out)[i + j] = chunk[j];
        }
        return MEST_OK;
    }
    size_t stored = payload->linear ? (size_t)payload->nnz : n;
    for (size_t i = 0; i < stored; i++)
        memcpy(out + (payload->linear ? (size_t)payload->linear[i] : i) * size, payload->raw + i * file_size, size);
    if (payload->dtype == MEST_BOOL)
        for (size_t i = 0; i < n; i++)
            out[i] = out[i] != 0; /* any other byte would not be a bool */
    return MEST_OK;
}
