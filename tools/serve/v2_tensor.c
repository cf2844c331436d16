/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/v2_tensor.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- types ---- */
typedef struct data_type {
    int onnx;          /* TensorProto.DataType */
    const char *name;  /* of the protocol */
    size_t item;
    double low, high;  /* of whole numbers; 0, 0: floating point */
} data_type;

static const data_type types[] = {
    {1, "FP32", 4, 0, 0}, {11, "FP64", 8, 0, 0}, {10, "FP16", 2, 0, 0}, {9, "BOOL", 1, 0, 1},
    {2, "UINT8", 1, 0, UINT8_MAX}, {3, "INT8", 1, INT8_MIN, INT8_MAX}, {4, "UINT16", 2, 0, UINT16_MAX}, {5, "INT16", 2, INT16_MIN, INT16_MAX},
    {12, "UINT32", 4, 0, UINT32_MAX}, {6, "INT32", 4, INT32_MIN, INT32_MAX},
    {7, "INT64", 8, -9007199254740992.0, 9007199254740992.0}, /* in JSON: what a double holds exactly */
    {13, "UINT64", 8, 0, 9007199254740992.0},
};

static const data_type *type_of(int onnx)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].onnx == onnx)
            return &types[i];
    return NULL;
}

bool tensor_spec_complete(tensor_spec *s)
{
    const data_type *type = type_of(s->dtype);
    if (!type)
        return false;
    s->datatype = type->name;
    s->item = type->item;
    s->count = 1;
    bool open = false;
    for (int i = 0; i < s->rank; i++) {
        if (s->dim[i] == -1) {
            open = true;
            continue;
        }
        if (s->dim[i] < 1 || s->dim[i] > (INT64_C(1) << 32) / s->count)
            return false;
        s->count *= s->dim[i];
    }
    s->count = open ? 0 : s->count;
    return true;
}

bool tensor_make(tensor *t, const tensor_spec *spec, const int64_t *dim, int64_t n)
{
    *t = (tensor){.spec = spec, .n = n, .count = 1};
    int64_t all;
    for (int i = 0; i < spec->rank; i++)
        if (__builtin_mul_overflow(t->count, t->dim[i] = dim[i], &t->count))
            return false;
    return !__builtin_mul_overflow(t->count, n, &all) && !__builtin_mul_overflow((size_t)all, spec->item, &t->bytes);
}

void tensor_free(tensor *t)
{
    free(t->data);
    *t = (tensor){0};
}

/* ---- numbers ---- */
static void store(char *to, int onnx, double v)
{
    switch (onnx) {
#define STORE(number, type)                        \
    case number: {                                 \
        type x = (type)v;                          \
        memcpy(to, &x, sizeof x);                  \
        break;                                     \
    }
        STORE(1, float) STORE(11, double) STORE(9, uint8_t) STORE(2, uint8_t) STORE(3, int8_t) STORE(4, uint16_t) STORE(5, int16_t)
        STORE(12, uint32_t) STORE(6, int32_t) STORE(7, int64_t) STORE(13, uint64_t)
#undef STORE
    default: break;
    }
}

static double half(uint16_t h) /* IEEE 754 binary16 */
{
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 31 ? (m ? (double)NAN : (double)INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

static uint16_t to_half(double v) /* rounds to nearest, ties to even; what is too large becomes infinite */
{
    int e;
    double a = fabs(v), m = frexp(a, &e); /* a = m * 2^e, m in [0.5, 1) */
    unsigned sign = v < 0 ? 0x8000u : 0;
    if (!(a < 65520))
        return (uint16_t)(sign | 0x7C00u);
    unsigned bits = e < -13 ? (unsigned)nearbyint(ldexp(a, 24)) : ((unsigned)(e + 13) << 10) + (unsigned)nearbyint(ldexp(m, 11));
    return (uint16_t)(sign | bits);
}

static double load(const char *from, int onnx)
{
    switch (onnx) {
#define LOAD(number, type)                         \
    case number: {                                 \
        type x;                                    \
        memcpy(&x, from, sizeof x);                \
        return (double)x;                          \
    }
        LOAD(1, float) LOAD(11, double) LOAD(9, uint8_t) LOAD(2, uint8_t) LOAD(3, int8_t) LOAD(4, uint16_t) LOAD(5, int16_t)
        LOAD(12, uint32_t) LOAD(6, int32_t) LOAD(7, int64_t) LOAD(13, uint64_t)
#undef LOAD
    case 10: {
        uint16_t h;
        memcpy(&h, from, sizeof h);
        return half(h);
    }
    default: return (double)NAN;
    }
}

double tensor_value(const tensor *t, int64_t i) { return load((const char *)t->data + (size_t)i * t->spec->item, t->spec->dtype); }

void tensor_put(const tensor_spec *s, void *data, int64_t i, double v)
{
    char *at = (char *)data + (size_t)i * s->item;
    uint16_t h;
    if (s->dtype != 10) {
        store(at, s->dtype, v);
        return;
    }
    h = to_half(v);
    memcpy(at, &h, sizeof h);
}

typedef struct filling {
    tensor *t;
    const data_type *type;
    int64_t at, count;
    fault *f;
} filling;

/* The protocol allows nested arrays as well as one flat array. */
static bool fill(filling *s, const cJSON *array, int depth)
{
    if (depth > MEST_MAX_RANK + 1)
        return refuse(s->f, 400, "input '%.80s': data are nested too deeply", s->t->spec->name);
    for (const cJSON *e = array->child; e; e = e->next) {
        if (cJSON_IsArray(e)) {
            if (!fill(s, e, depth + 1))
                return false;
            continue;
        }
        double v = cJSON_IsNumber(e) ? e->valuedouble : cJSON_IsBool(e) && s->type->onnx == 9 ? cJSON_IsTrue(e) : (double)NAN;
        if (!isfinite(v) || (s->type->high > 0 && (v < s->type->low || v > s->type->high || v != floor(v)))
            || (s->type->onnx == 1 && fabs(v) > 3.4028234663852886e38))
            return refuse(s->f, 400, "input '%.80s': value %" PRId64 " is no finite number that fits %s", s->t->spec->name, s->at, s->type->name);
        if (s->at == s->count)
            return refuse(s->f, 400, "input '%.80s': more values than its shape says (%" PRId64 ")", s->t->spec->name, s->count);
        store((char *)s->t->data + (size_t)s->at++ * s->type->item, s->type->onnx, v);
    }
    return true;
}

static bool take_binary(tensor *t, const data_type *type, int64_t count, double size, const unsigned char **tail, size_t *tail_bytes, fault *f)
{
    if (size != (double)t->bytes)
        return refuse(f, 400, "input '%.80s': binary_data_size is %.0f, its shape says %zu bytes", t->spec->name, size, t->bytes);
    if (t->bytes > *tail_bytes)
        return refuse(f, 400, "input '%.80s': the body ends %zu bytes too early", t->spec->name, t->bytes - *tail_bytes);
    memcpy(t->data, *tail, t->bytes);
    *tail += t->bytes;
    *tail_bytes -= t->bytes;
    for (int64_t i = 0; i < count; i++) {
        double v = load((const char *)t->data + (size_t)i * type->item, type->onnx);
        if (!isfinite(v) || (type->onnx == 9 && v > 1))
            return refuse(f, 400, "input '%.80s': value %" PRId64 " is no finite number that fits %s", t->spec->name, i, type->name);
    }
    return true;
}

/* ---- a tensor of a request ---- */
static bool take_shape(tensor *t, const tensor_spec *s, const cJSON *shape, const tensor_limits *limits, fault *f)
{
    bool fits = cJSON_IsArray(shape) && cJSON_GetArraySize(shape) == s->rank + 1;
    int64_t dim[MEST_MAX_RANK], n = 0;
    const cJSON *e = fits ? shape->child : NULL;
    for (int i = -1; fits && i < s->rank; i++, e = e->next) {
        double v = cJSON_IsNumber(e) ? e->valuedouble : 0;
        fits = v >= 1 && v <= 1e9 && v == floor(v) && (i < 0 || s->dim[i] < 0 || v == (double)s->dim[i]);
        if (!fits)
            break;
        *(i < 0 ? &n : &dim[i]) = (int64_t)v;
        if (i >= 0 && s->dim[i] < 0 && dim[i] > limits->axis)
            return refuse(f, 400, "input '%.80s': axis %d has length %" PRId64 ", the longest is %" PRId64 " (max_axis)", s->name, i + 1, dim[i], limits->axis);
    }
    if (!fits) {
        text want = {0};
        tensor_shape(&want, s->rank, s->dim, -1);
        refuse(f, 400, "input '%.80s': its shape must be %.200s with at least one sample", s->name, want.data ? want.data : "");
        text_free(&want);
        return false;
    }
    if (n > limits->samples)
        return refuse(f, 400, "input '%.80s': %" PRId64 " samples, at most %" PRId64 " are taken at once", s->name, n, limits->samples);
    return (tensor_make(t, s, dim, n) && t->bytes <= limits->bytes) || refuse(f, 413, "input '%.80s' is larger than %zu bytes", s->name, limits->bytes);
}

bool tensor_from_json(tensor *t, const cJSON *entry, const tensor_spec *known, int n_known, const tensor_limits *limits,
                      const unsigned char **tail, size_t *tail_bytes, fault *f)
{
    *t = (tensor){0};
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "name"));
    const char *datatype = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "datatype"));
    if (!name || !datatype)
        return refuse(f, 400, "an input needs \"name\", \"shape\" and \"datatype\"");
    const tensor_spec *spec = NULL;
    for (int i = 0; i < n_known && !spec; i++)
        if (!strcmp(known[i].name, name))
            spec = &known[i];
    if (!spec)
        return refuse(f, 400, "the model has no input '%.80s'", name);
    if (strcmp(datatype, spec->datatype) != 0)
        return refuse(f, 400, "input '%.80s': datatype '%.20s', the model takes %s", name, datatype, spec->datatype);
    if (!take_shape(t, spec, cJSON_GetObjectItemCaseSensitive(entry, "shape"), limits, f))
        return false;
    int64_t count = t->n * t->count;
    const data_type *type = type_of(t->spec->dtype);
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(entry, "data");
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(entry, "parameters"), "binary_data_size");
    if (!size && !cJSON_IsArray(data))
        return refuse(f, 400, "input '%.80s' has neither \"data\" nor parameters.binary_data_size", name);
    if (!size && type->onnx == 10)
        return refuse(f, 400, "input '%.80s': FP16 is taken as binary data only", name);
    t->data = malloc(t->bytes);
    if (!t->data)
        return refuse(f, 503, "out of memory");
    if (size)
        return cJSON_IsNumber(size) ? take_binary(t, type, count, size->valuedouble, tail, tail_bytes, f)
                                    : refuse(f, 400, "input '%.80s': binary_data_size is no number", name);
    filling s = {t, type, 0, count, f};
    return fill(&s, data, 0)
           && (s.at == count || refuse(f, 400, "input '%.80s': %" PRId64 " values, its shape says %" PRId64, name, s.at, count));
}

/* ---- a tensor of an answer ---- */
void tensor_shape(text *out, int rank, const int64_t *dim, int64_t n)
{
    text_printf(out, "[%" PRId64, n < 0 ? -1 : n);
    for (int i = 0; i < rank; i++)
        text_printf(out, ",%" PRId64, dim[i]);
    text_add(out, "]", 1);
}

void tensor_numbers(text *out, const tensor *t)
{
    const tensor_spec *s = t->spec;
    text_add(out, "[", 1);
    for (int64_t i = 0; i < t->n * t->count; i++) {
        const char *at = (const char *)t->data + (size_t)i * s->item;
        if (i)
            text_add(out, ",", 1);
        double v = load(at, s->dtype);
        int64_t whole;
        if (s->dtype == 9)
            text_printf(out, "%s", v != 0 ? "true" : "false");
        else if (s->dtype == 7) {
            memcpy(&whole, at, sizeof whole);
            text_printf(out, "%" PRId64, whole);
        } else if (s->dtype == 11 && isfinite(v))
            text_printf(out, "%.17g", v);
        else if (type_of(s->dtype)->high > 0)
            text_printf(out, "%.0f", v);
        else
            text_number(out, v);
    }
    text_add(out, "]", 1);
}
