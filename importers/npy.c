/* SPDX-License-Identifier: Apache-2.0 */
/* NumPy .npy files, format 1.0 to 3.0, first axis = samples; converted while reading. One file for each input of the network.
 *   inputs   f2 f4 f8, bool, i1 u1 i2 u2 -> float32;  i4 u4 i8 u8 -> int64 (token ids)
 *   targets  f2 f4 f8, bool -> float32;  all integers -> int64
 * A target of one integer a sample is a class index: with all of them >= 0, n_classes is the largest + 1. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "importers/npy_header.h"
#include "importers/source.h"
#include "runtime/mapfile.h"

typedef struct array {
    char *path;
    mest_mapfile map;
    mest_npy_header header;
    size_t elements; /* of one sample */
} array;

typedef struct npy {
    mest_heap *heap;
    mest_region region;
    int n_inputs;
    array input[MEST_SAMPLE_MAX_INPUTS], target;
    const char *name[MEST_SAMPLE_MAX_INPUTS]; /* NULL: by place */
} npy;

static mest_status open_array(array *a, mest_error *err)
{
    MEST_TRY(mest_mapfile_open_kept(&a->map, a->path, err));
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
static mest_status convert(const array *a, mest_sample_type type, int64_t id, void *out, mest_error *err)
{
    enum { CHUNK = 4096 };
    uint8_t chunk[CHUNK];
    const size_t item = (size_t)a->header.item_bytes, bytes = a->elements * item, first = a->header.payload + (size_t)id * bytes;
    if (type == MEST_SAMPLE_F32 && a->header.kind == 'f' && item == 4 && !a->header.big_endian)
        return mest_mapfile_read(&a->map, first, bytes, out, a->path, err);
    for (size_t at = 0, i = 0; at < bytes; at += CHUNK) { /* a chunk is a whole number of items of 1, 2, 4 or 8 bytes */
        const size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        MEST_TRY(mest_mapfile_read(&a->map, first + at, n, chunk, a->path, err));
        for (const uint8_t *p = chunk; p < chunk + n; p += item, i++)
            if (type == MEST_SAMPLE_F32)
                ((float *)out)[i] = to_float(a, p);
            else
                ((int64_t *)out)[i] = to_int(a, p);
    }
    return MEST_OK;
}

static mest_sample_type type_of(const array *a, bool is_target)
{
    bool integer = a->header.kind == 'i' || a->header.kind == 'u';
    return integer && (is_target || a->header.item_bytes >= 4) ? MEST_SAMPLE_I64 : MEST_SAMPLE_F32;
}

static mest_status npy_read_inputs(void *self, int64_t id, void *const *inputs, void *target, mest_error *err)
{
    const npy *s = self;
    for (int k = 0; k < s->n_inputs; k++)
        if (inputs[k])
            MEST_TRY(convert(&s->input[k], type_of(&s->input[k], false), id, inputs[k], err));
    return target ? convert(&s->target, type_of(&s->target, true), id, target, err) : MEST_OK;
}

static mest_status npy_read(void *self, int64_t id, void *input, void *target, mest_error *err)
{
    return npy_read_inputs(self, id, &input, target, err);
}

static void npy_sample_name(void *self, int64_t id, char *text, size_t size)
{
    const npy *s = self;
    snprintf(text, size, "%s, row %" PRId64, s->input[0].path, id);
}

static void npy_destroy(void *self)
{
    npy *s = self;
    mest_heap *heap = s->heap;
    for (int k = 0; k < MEST_SAMPLE_MAX_INPUTS; k++)
        mest_mapfile_close(&s->input[k].map);
    mest_mapfile_close(&s->target.map);
    mest_region_free(&s->region);
    mest_free(heap, s, 1, sizeof *s);
}

/* Class indices: how many classes, 0 if the targets cannot be that. */
static mest_status count_classes(const array *a, int64_t *n_classes, mest_error *err)
{
    int64_t largest = -1;
    const uint8_t *labels = a->map.bytes + a->header.payload;
    for (int64_t i = 0; i < a->header.dim[0]; i++) {
        const int64_t v = to_int(a, labels + (size_t)i * (size_t)a->header.item_bytes);
        if (v < 0 && a->header.kind == 'u') /* an unsigned value past int64 */
            return mest_fail(err, MEST_E_DATA, "%s: row %" PRId64 ": the label does not fit into 64 bits", a->path, i);
        if (v < 0)
            return MEST_OK;
        largest = v > largest ? v : largest;
    }
    mest_mapfile_forget(&a->map);
    *n_classes = largest < INT32_MAX ? largest + 1 : 0;
    return MEST_OK;
}

/* "A", "A,T", "A,B,T", "A,B,-", "a=A,b=B,target=T": names and paths, copies in the region. */
static mest_status read_spec(npy *s, const char *rest, mest_error *err)
{
    char *text = mest_region_strdup(&s->region, rest);
    MEST_CHECK(text, err, MEST_E_NOMEM, "npy: no memory");
    if (access(rest, F_OK) == 0) { /* a file whose name holds commas or equals signs is that file */
        s->input[s->n_inputs++].path = text;
        return MEST_OK;
    }
    int named = 0, total = 0;
    for (char *word = text, *next; word; word = next, total++) {
        if ((next = strchr(word, ',')) != NULL)
            *next++ = 0;
        char *equals = strchr(word, '='), *path = equals ? equals + 1 : word;
        bool target = equals ? (size_t)(equals - word) == strlen("target") && !memcmp(word, "target", strlen("target")) : !next && total > 0;
        MEST_CHECK(*path && word != equals, err, MEST_E_ARGUMENT, "data '%s': a file name is missing beside the comma", rest);
        MEST_CHECK(equals ? named == total : named == 0, err, MEST_E_ARGUMENT, "data '%s': files with and without a name; all or none must have one", rest);
        named += equals != NULL;
        if (target) {
            MEST_CHECK(!s->target.path, err, MEST_E_ARGUMENT, "data '%s': two targets", rest);
            s->target.path = path;
            continue;
        }
        MEST_CHECK(s->n_inputs < MEST_SAMPLE_MAX_INPUTS, err, MEST_E_ARGUMENT, "data '%s': more than %d inputs", rest, MEST_SAMPLE_MAX_INPUTS);
        if (equals)
            *equals = 0;
        s->name[s->n_inputs] = equals ? word : NULL;
        s->input[s->n_inputs++].path = path;
    }
    MEST_CHECK(s->n_inputs > 0, err, MEST_E_ARGUMENT, "data '%s': no input", rest);
    if (s->target.path && !named && !strcmp(s->target.path, "-"))
        s->target.path = NULL;
    return MEST_OK;
}

static mest_status open_inputs(npy *s, mest_source_info *info, mest_error *err)
{
    for (int k = 0; k < s->n_inputs; k++) {
        array *a = &s->input[k];
        MEST_TRY(open_array(a, err));
        MEST_CHECK(a->header.dim[0] == s->input[0].header.dim[0], err, MEST_E_DATA, "%s: %" PRId64 " samples, %s has %" PRId64, a->path, a->header.dim[0],
                   s->input[0].path, s->input[0].header.dim[0]);
        mest_sample_input *in = &info->input[k];
        in->name = s->name[k];
        in->type = type_of(a, false);
        in->rank = a->header.rank - 1;
        memcpy(in->dim, a->header.dim + 1, (size_t)in->rank * sizeof *in->dim);
    }
    info->count = s->input[0].header.dim[0];
    info->input_type = info->input[0].type;
    info->input_rank = info->input[0].rank;
    memcpy(info->input_dim, info->input[0].dim, sizeof info->input_dim);
    info->n_inputs = s->n_inputs > 1 || s->name[0] ? s->n_inputs : 0;
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
    data->read_inputs = npy_read_inputs;
    data->sample_name = npy_sample_name;
    MEST_TRY(read_spec(s, rest, err));
    mest_source_info *info = &data->info;
    MEST_TRY(open_inputs(s, info, err));
    data->raw = info->input_type == MEST_SAMPLE_F32 ? MEST_RAW_F32 : MEST_RAW_I64;
    if (!s->target.path)
        return MEST_OK;
    MEST_TRY(open_array(&s->target, err));
    MEST_CHECK(s->target.header.dim[0] == info->count, err, MEST_E_DATA, "%s: %" PRId64 " targets for the %" PRId64 " samples of %s",
               s->target.path, s->target.header.dim[0], info->count, s->input[0].path);
    info->has_targets = true;
    info->target_type = type_of(&s->target, true);
    info->target_rank = s->target.header.rank - 1;
    memcpy(info->target_dim, s->target.header.dim + 1, (size_t)info->target_rank * sizeof *info->target_dim);
    if (info->target_type == MEST_SAMPLE_I64 && info->target_rank == 0)
        return count_classes(&s->target, &info->n_classes, err);
    return MEST_OK;
}

const mest_source_kind mest_source_npy[] = {
    {"npy", "INPUT[,INPUT..][,TARGET] or NAME=INPUT,..,target=TARGET  NumPy .npy files, first axis = samples", npy_open},
    {NULL, NULL, NULL},
};
