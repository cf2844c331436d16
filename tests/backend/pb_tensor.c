/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/backend/pb_tensor.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnx.pb-c.h"

static uint8_t *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    uint8_t *bytes = NULL;
    if (fseek(f, 0, SEEK_END) == 0 && ftell(f) >= 0) {
        *n = (size_t)ftell(f);
        rewind(f);
        bytes = malloc(*n + 1);
        if (bytes && fread(bytes, 1, *n, f) != *n) {
            free(bytes);
            bytes = NULL;
        }
    }
    fclose(f);
    return bytes;
}

/* Element i, wherever the message keeps it. */
static const char *element(const Onnx__TensorProto *p, mest_dtype dtype, int64_t i, void *to)
{
    size_t size = mest_dtype_file_size(dtype), k = (size_t)i;
    if (p->has_raw_data) {
        if ((k + 1) * size > p->raw_data.len)
            return "raw_data is too short";
        memcpy(to, p->raw_data.data + k * size, size);
        return NULL;
    }
    if (dtype == MEST_F32 && k < p->n_float_data)
        memcpy(to, &p->float_data[k], size);
    else if (dtype == MEST_F64 && k < p->n_double_data)
        memcpy(to, &p->double_data[k], size);
    else if (dtype == MEST_I64 && k < p->n_int64_data)
        memcpy(to, &p->int64_data[k], size);
    else if ((dtype == MEST_U32 || dtype == MEST_U64) && k < p->n_uint64_data)
        memcpy(to, &p->uint64_data[k], size); /* little-endian: the low bytes */
    else if (k < p->n_int32_data)
        memcpy(to, &p->int32_data[k], size);
    else
        return "the data is missing";
    return NULL;
}

/* A float of any width from its bits; float32 is what everything is computed in. */
static double real_of(mest_dtype dtype, const uint8_t *raw)
{
    float f = 0;
    double d = 0;
    uint16_t half = 0;
    switch (dtype) {
    case MEST_F64: memcpy(&d, raw, sizeof d); return d;
    case MEST_F32: memcpy(&f, raw, sizeof f); return (double)f;
    case MEST_BF16: memcpy((uint8_t *)&f + 2, raw, 2); return (double)f;
    default: memcpy(&half, raw, sizeof half); break;
    }
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    d = exponent == 31 ? (mantissa ? NAN : INFINITY) : exponent ? ldexp(mantissa + 1024, exponent - 25) : ldexp(mantissa, -24);
    return half & 0x8000 ? -d : d;
}

const char *pb_tensor_read(pb_tensor *t, const char *path)
{
    size_t n = 0;
    const char *why = NULL;
    memset(t, 0, sizeof *t);
    uint8_t *bytes = read_file(path, &n);
    if (!bytes)
        return "the file cannot be read";
    Onnx__TensorProto *p = onnx__tensor_proto__unpack(NULL, n, bytes);
    free(bytes);
    if (!p)
        return "not a TensorProto";
    const mest_dtype stored = (mest_dtype)p->data_type;
    const bool is_float = stored == MEST_F32 || stored == MEST_F64 || stored == MEST_F16 || stored == MEST_BF16;
    t->type.dtype = is_float ? MEST_F32 : stored;
    size_t size = mest_dtype_size(t->type.dtype);
    if (size == 0 || p->n_dims > MEST_MAX_RANK)
        why = "a type or rank without support";
    t->type.shape.rank = (int32_t)p->n_dims;
    t->count = 1;
    for (size_t i = 0; !why && i < p->n_dims; i++) {
        t->type.shape.dim[i] = p->dims[i];
        t->count *= p->dims[i];
    }
    if (!why)
        t->data = calloc((size_t)t->count + 16, size);
    for (int64_t i = 0; !why && i < t->count; i++) {
        uint8_t raw[8] = {0};
        why = element(p, stored, i, raw);
        if (is_float) {
            ((mest_real *)t->data)[i] = (mest_real)real_of(stored, raw);
        } else {
            memcpy((char *)t->data + (size_t)i * size, raw, size);
        }
    }
    onnx__tensor_proto__free_unpacked(p, NULL);
    return why;
}

void pb_tensor_free(pb_tensor *t)
{
    free(t->data);
    memset(t, 0, sizeof *t);
}

bool pb_tensor_same(const pb_tensor *want, const mest_type *type, const void *data, char *text, size_t size)
{
    char a[128], b[128];
    if (type->dtype != want->type.dtype || !mest_shape_equal(&type->shape, &want->type.shape)) {
        snprintf(text, size, "is %s %s, should be %s %s", mest_dtype_name(type->dtype), mest_shape_text(&type->shape, a, sizeof a),
                 mest_dtype_name(want->type.dtype), mest_shape_text(&want->type.shape, b, sizeof b));
        return false;
    }
    size_t bytes = mest_dtype_size(type->dtype);
    for (int64_t i = 0; i < want->count; i++) {
        if (type->dtype == MEST_F32 || type->dtype == MEST_F64) {
            double x = type->dtype == MEST_F32 ? (double)((const mest_real *)data)[i] : ((const double *)data)[i];
            double y = type->dtype == MEST_F32 ? (double)((const mest_real *)want->data)[i] : ((const double *)want->data)[i];
            if (x == y || (isnan(x) && isnan(y)) || fabs(x - y) <= 1e-7 + 1e-3 * fabs(y))
                continue;
            snprintf(text, size, "element %" PRId64 " is %.9g, should be %.9g", i, x, y);
            return false;
        }
        if (memcmp((const char *)data + (size_t)i * bytes, (const char *)want->data + (size_t)i * bytes, bytes)) {
            snprintf(text, size, "element %" PRId64 " differs", i);
            return false;
        }
    }
    return true;
}
