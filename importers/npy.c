/* SPDX-License-Identifier: Apache-2.0 */
/* NumPy .npy files, format 1.0 to 3.0, first axis = samples; mapped, converted while reading.
 *   inputs   f2 f4 f8, bool, i1 u1 i2 u2 -> float32;  i4 u4 i8 u8 -> int64 (token ids)
 *   targets  f2 f4 f8, bool -> float32;  all integers -> int64
 * A target of one integer a sample is a class index: with all of them >= 0, n_classes is the largest + 1. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "importers/npy_header.h"
#include "importers/source.h"
#include "runtime/mapfile.h"

typedef struct array {
    char *path;
    mest_mapfile map;
    mest_npy_header header;
    const uint8_t *payload;
    size_t elements; /* of one sample */
} array;

typedef struct npy {
    mest_heap *heap;
    mest_region region;
    array input, target;
} npy;

static mest_status open_array(array *a, mest_error *err)
{
    MEST_TRY(mest_mapfile_open(&a->map, a->path, err));
    MEST_TRY(mest_npy_parse(&a->header, a->map.bytes, a->map.size, a->path, err));
    const mest_npy_header *h = &a->header;
    MEST_CHECK(h->rank >= 1, err, MEST_E_DATA, "%s: a single number; the first axis must be the samples", a->path);
    MEST_CHECK(h->rank - 1 <= MEST_SAMPLE_MAX_RANK, err, MEST_E_DATA, "%s: %d dimensions, at most %d are possible", a->path, h->rank,
               MEST_SAMPLE_MAX_RANK + 1);
    size_t room = a->map.size - h->payload, bytes = h->item_bytes;
    a->elements = 1;
    for (int i = 0; i < h->rank; i++) {
        MEST_CHECK(h->dim[i] > 0, err, MEST_E_DATA, "%s: header: dimension %d is %" PRId64, a->path, i, h->dim[i]);
        MEST_CHECK((uint64_t)h->dim[i] <= SIZE_MAX && mest_mul(bytes, (size_t)h->dim[i], &bytes), err, MEST_E_DATA,
                   "%s: header: the shape is larger than any file", a->path);
        a->elements *= i ? (size_t)h->dim[i] : 1;
    }
    MEST_CHECK(bytes == room, err, MEST_E_DATA, "%s: header: the shape needs %zu bytes, the file has %zu%s", a->path, bytes, room,
               bytes > room ? " (cut short?)" : "");
    a->payload = a->map.bytes + h->payload;
    return MEST_OK;
}

static uint64_t load(const array *a, const uint8_t *p)
{
    uint64_t v = 0;
    int n = a->header.item_bytes;
    for (int i = 0; i < n; i++)
        v |= (uint64_t)p[a->header.big_endian ? n - 1 - i : i] << (8 * i);
    return v;
}

static double half(uint64_t bits)
{
    int exponent = bits >> 10 & 31;
    double m = (double)(bits & 1023), sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31)
        return bits & 1023 ? (double)__builtin_nanf("") : sign * (double)__builtin_inff();
    return sign * (exponent ? (m + 1024) * 0x1p-25 * (double)(1ull << exponent) : m * 0x1p-24);
}

static int64_t to_int(const array *a, const uint8_t *p)
{
    uint64_t v = load(a, p);
    int unused = 64 - 8 * a->header.item_bytes;
    return a->header.kind == 'i' ? (int64_t)(v << unused) >> unused : (int64_t)v;
}

static float to_float(const array *a, const uint8_t *p)
{
    uint64_t v = load(a, p);
    union {
        uint64_t u;
        double d;
    } f8 = {.u = v};
    union {
        uint32_t u;
        float f;
    } f4 = {.u = (uint32_t)v};
    switch (a->header.kind) {
    case 'f': return a->header.item_bytes == 4 ? f4.f : (float)(a->header.item_bytes == 8 ? f8.d : half(v));
    case 'b': return v ? 1.0f : 0.0f;
    default: return (float)to_int(a, p);
    }
}

/* Sample `id` as float32 or int64. */
static void convert(const array *a, mest_sample_type type, int64_t id, void *out)
{
    size_t item = (size_t)a->header.item_bytes;
    const uint8_t *p = a->payload + (size_t)id * a->elements * item;
    if (type == MEST_SAMPLE_F32 && a->header.kind == 'f' && item == 4 && !a->header.big_endian) {
        memcpy(out, p, a->elements * item);
        return;
    }
    for (size_t i = 0; i < a->elements; i++, p += item)
        if (type == MEST_SAMPLE_F32)
            ((float *)out)[i] = to_float(a, p);
        else
            ((int64_t *)out)[i] = to_int(a, p);
}

static mest_sample_type type_of(const array *a, bool is_target)
{
    bool integer = a->header.kind == 'i' || a->header.kind == 'u';
    return integer && (is_target || a->header.item_bytes >= 4) ? MEST_SAMPLE_I64 : MEST_SAMPLE_F32;
}

static mest_status npy_read(void *self, int64_t id, void *input, void *target, mest_error *err)
{
    const npy *s = self;
    (void)err;
    if (input)
        convert(&s->input, type_of(&s->input, false), id, input);
    if (target)
        convert(&s->target, type_of(&s->target, true), id, target);
    return MEST_OK;
}

static void npy_sample_name(void *self, int64_t id, char *text, size_t size)
{
    const npy *s = self;
    snprintf(text, size, "%s, row %" PRId64, s->input.path, id);
}

static void npy_rest(void *self)
{
    npy *s = self;
    mest_mapfile_forget(&s->input.map);
    mest_mapfile_forget(&s->target.map);
}

static void npy_destroy(void *self)
{
    npy *s = self;
    mest_heap *heap = s->heap;
    mest_mapfile_close(&s->input.map);
    mest_mapfile_close(&s->target.map);
    mest_region_free(&s->region);
    mest_free(heap, s, 1, sizeof *s);
}

/* Class indices: how many classes, 0 if the targets cannot be that. */
static mest_status count_classes(const array *a, int64_t *n_classes, mest_error *err)
{
    int64_t largest = -1;
    for (int64_t i = 0; i < a->header.dim[0]; i++) {
        int64_t v;
        convert(a, MEST_SAMPLE_I64, i, &v);
        if (v < 0 && a->header.kind == 'u') /* an unsigned value past int64 */
            return mest_fail(err, MEST_E_DATA, "%s: row %" PRId64 ": the label does not fit into 64 bits", a->path, i);
        if (v < 0)
            return MEST_OK;
        largest = v > largest ? v : largest;
    }
    *n_classes = largest < INT32_MAX ? largest + 1 : 0;
    return MEST_OK;
}

static mest_status npy_open(mest_heap *heap, const char *rest, const mest_source_options *options, mest_dataset *data, mest_error *err)
{
    (void)options;
    npy *s = mest_calloc(heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "npy: no memory");
    s->heap = heap;
    mest_region_init(&s->region, heap);
    data->self = s;
    data->destroy = npy_destroy;
    data->read = npy_read;
    data->rest = npy_rest;
    data->sample_name = npy_sample_name;
    MEST_TRY(mest_split_pair(&s->region, rest, &s->input.path, &s->target.path, err));
    MEST_TRY(open_array(&s->input, err));
    mest_source_info *info = &data->info;
    info->count = s->input.header.dim[0];
    info->input_type = type_of(&s->input, false);
    data->raw = info->input_type == MEST_SAMPLE_F32 ? MEST_RAW_F32 : MEST_RAW_I64;
    info->input_rank = s->input.header.rank - 1;
    memcpy(info->input_dim, s->input.header.dim + 1, (size_t)info->input_rank * sizeof *info->input_dim);
    if (!s->target.path)
        return MEST_OK;
    MEST_TRY(open_array(&s->target, err));
    MEST_CHECK(s->target.header.dim[0] == info->count, err, MEST_E_DATA, "%s: %" PRId64 " targets for the %" PRId64 " samples of %s",
               s->target.path, s->target.header.dim[0], info->count, s->input.path);
    info->has_targets = true;
    info->target_type = type_of(&s->target, true);
    info->target_rank = s->target.header.rank - 1;
    memcpy(info->target_dim, s->target.header.dim + 1, (size_t)info->target_rank * sizeof *info->target_dim);
    if (info->target_type == MEST_SAMPLE_I64 && info->target_rank == 0)
        return count_classes(&s->target, &info->n_classes, err);
    return MEST_OK;
}

const mest_source_kind mest_source_npy[] = {
    {"npy", "INPUT[,TARGET]  NumPy .npy files, first axis = samples", npy_open},
    {NULL, NULL, NULL},
};
