/* SPDX-License-Identifier: Apache-2.0 */
/* MNIST's idx files: two zero bytes, a type byte (8: unsigned bytes, the only one read here), a byte with the number of dimensions, each
 * dimension as a big-endian 32-bit number, then the bytes in C order. [N,H,W] becomes samples [1,H,W], [N,C,H,W] [C,H,W], [N,D] [D]. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "importers/source.h"
#include "runtime/mapfile.h"

enum { MAX_DIMS = 4, MAX_HEADER = 4 + 4 * MAX_DIMS, MAX_INFLATE = 1032 /* deflate cannot expand more */ };

typedef struct idx_file {
    mest_mapfile map;
    uint8_t *copy; /* of a gzipped file: the inflated payload, copy_size bytes */
    size_t copy_size;
    const uint8_t *payload;
    int rank;
    uint32_t dim[MAX_DIMS];
    size_t count; /* product of dims, bytes */
} idx_file;

typedef struct idx {
    mest_heap *heap;
    mest_region region;
    char *images_path, *labels_path;
    idx_file images, labels;
    size_t sample;
} idx;

static bool is_gzip(const mest_mapfile *map) { return map->size > 2 && map->bytes[0] == 0x1f && map->bytes[1] == 0x8b; }

/* `have` bytes of header were read; fills rank, dims and count and gives the header's length. */
static mest_status parse_header(idx_file *f, const char *path, const uint8_t *h, size_t have, size_t *length, mest_error *err)
{
    MEST_CHECK(have >= 4, err, MEST_E_DATA, "%s: cut short in the header", path);
    MEST_CHECK(h[0] == 0 && h[1] == 0, err, MEST_E_DATA, "%s: not an idx file (it begins %02x %02x %02x %02x)", path, h[0], h[1], h[2], h[3]);
    MEST_CHECK(h[2] == 8, err, MEST_E_DATA, "%s: idx type 0x%02x, only unsigned bytes (0x08) are read", path, h[2]);
    MEST_CHECK(h[3] >= 1 && h[3] <= MAX_DIMS, err, MEST_E_DATA, "%s: idx with %d dimensions, 1 to %d are possible", path, h[3], MAX_DIMS);
    f->rank = h[3];
    f->count = 1;
    *length = 4 + 4 * (size_t)f->rank;
    MEST_CHECK(have >= *length, err, MEST_E_DATA, "%s: cut short in the header", path);
    for (int i = 0; i < f->rank; i++) {
        const uint8_t *p = h + 4 + 4 * i;
        f->dim[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        MEST_CHECK(f->dim[i] > 0 && mest_mul(f->count, f->dim[i], &f->count), err, MEST_E_DATA, "%s: header: dimension %d is %" PRIu32, path, i,
                   f->dim[i]);
    }
    return MEST_OK;
}

/* Inflates exactly the header and the payload it announces; what it announces is checked against the file before memory is taken. */
static mest_status read_gzip(idx_file *f, mest_heap *heap, const char *path, mest_error *err)
{
    uint8_t header[MAX_HEADER], beyond;
    size_t length = 0;
    mest_status status;
    gzFile gz = gzopen(path, "rbe");
    MEST_CHECK(gz, err, MEST_E_IO, "%s: cannot open", path);
    int got = gzread(gz, header, 4);
    if (got == 4 && header[3] <= MAX_DIMS) {
        int more = gzread(gz, header + 4, 4u * header[3]);
        got += more > 0 ? more : 0;
    }
    MEST_TRY_OUT(parse_header(f, path, header, got > 0 ? (size_t)got : 0, &length, err));
    if (f->count / MAX_INFLATE > f->map.size) {
        status = mest_fail(err, MEST_E_DATA, "%s: header: %zu bytes announced, a gzip file of %zu bytes cannot hold them", path, f->count, f->map.size);
        goto out;
    }
    f->copy = mest_alloc(heap, f->count, 1);
    if (!f->copy) {
        status = mest_fail(err, MEST_E_NOMEM, "%s: no memory for %zu bytes", path, f->count);
        goto out;
    }
    f->copy_size = f->count;
    for (size_t at = 0; at < f->count; at += (size_t)got) {
        size_t want = f->count - at < (1u << 30) ? f->count - at : 1u << 30;
        got = gzread(gz, f->copy + at, (unsigned)want);
        if (got <= 0) {
            status = mest_fail(err, MEST_E_DATA, "%s: gzip data ends or is damaged after %zu of %zu bytes", path, at, f->count);
            goto out;
        }
    }
    got = gzread(gz, &beyond, 1); /* also makes zlib verify the checksum at the end, or notice that it is missing */
    int code;
    gzerror(gz, &code);
    if (got != 0 || code != Z_OK)
        status = mest_fail(err, MEST_E_DATA, got > 0 ? "%s: bytes beyond the %zu that the header announces" : "%s: gzip data is damaged near byte %zu",
                           path, f->count);
    f->payload = f->copy;
out:
    gzclose_r(gz);
    return status;
}

static mest_status open_file(idx_file *f, mest_heap *heap, const char *path, mest_error *err)
{
    size_t length = 0;
    MEST_TRY(mest_mapfile_open_kept(&f->map, path, err));
    if (is_gzip(&f->map))
        return read_gzip(f, heap, path, err);
    MEST_TRY(parse_header(f, path, f->map.bytes, f->map.size, &length, err));
    MEST_CHECK(f->count == f->map.size - length, err, MEST_E_DATA, "%s: header: %zu bytes announced, the file has %zu%s", path, f->count,
               f->map.size - length, f->count > f->map.size - length ? " (cut short?)" : "");
    f->payload = f->map.bytes + length;
    return MEST_OK;
}

static void close_file(idx_file *f, mest_heap *heap)
{
    mest_mapfile_close(&f->map);
    mest_free(heap, f->copy, f->copy_size, 1);
}

static mest_status idx_read(void *self, int64_t id, void *input, void *target, mest_error *err)
{
    const idx *s = self;
    const size_t at = (size_t)id * s->sample;
    if (input && s->images.copy)
        memcpy(input, s->images.payload + at, s->sample);
    else if (input)
        MEST_TRY(mest_mapfile_read(&s->images.map, (size_t)(s->images.payload - s->images.map.bytes) + at, s->sample, input, s->images_path, err));
    if (target)
        *(int64_t *)target = s->labels.payload[id];
    return MEST_OK;
}

static void idx_sample_name(void *self, int64_t id, char *text, size_t size)
{
    idx *s = self;
    snprintf(text, size, "%s, image %" PRId64, s->images_path, id);
}

static void idx_destroy(void *self)
{
    idx *s = self;
    mest_heap *heap = s->heap;
    close_file(&s->images, heap);
    close_file(&s->labels, heap);
    mest_region_free(&s->region);
    mest_free(heap, s, 1, sizeof *s);
}

static mest_status find_pair(idx *s, const char *rest, bool test, mest_error *err)
{
    static const char *const names[2][2][9] = {
        {{"train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "train-images.idx3-ubyte", "train-images.idx3-ubyte.gz", NULL},
         {"train-labels-idx1-ubyte", "train-labels-idx1-ubyte.gz", "train-labels.idx1-ubyte", "train-labels.idx1-ubyte.gz", NULL}},
        {{"t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz", "t10k-images.idx3-ubyte", "t10k-images.idx3-ubyte.gz",
          "test-images-idx3-ubyte", "test-images-idx3-ubyte.gz", NULL},
         {"t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz", "t10k-labels.idx1-ubyte", "t10k-labels.idx1-ubyte.gz",
          "test-labels-idx1-ubyte", "test-labels-idx1-ubyte.gz", NULL}},
    };
    if (!mest_is_folder(rest))
        return mest_split_pair(&s->region, rest, &s->images_path, &s->labels_path, err);
    char **found[2] = {&s->images_path, &s->labels_path};
    for (int i = 0; i < 2; i++) {
        *found[i] = mest_find_in_folder(&s->region, rest, names[test][i]);
        MEST_CHECK(*found[i], err, MEST_E_IO, "%s: no file %s (or .gz) in it", rest, names[test][i][0]);
    }
    return MEST_OK;
}

static mest_status open_set(mest_heap *heap, const char *rest, bool test, mest_dataset *data, mest_error *err)
{
    idx *s = mest_calloc(heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "idx: no memory");
    s->heap = heap;
    mest_region_init(&s->region, heap);
    data->self = s;
    data->destroy = idx_destroy;
    data->read = idx_read;
    data->sample_name = idx_sample_name;
    MEST_TRY(find_pair(s, rest, test, err));
    MEST_TRY(open_file(&s->images, heap, s->images_path, err));
    const idx_file *f = &s->images;
    MEST_CHECK(f->rank >= 2, err, MEST_E_DATA, "%s: images need 2 to 4 dimensions, this has 1 (are images and labels swapped?)", s->images_path);
    s->sample = f->count / f->dim[0];
    data->raw = MEST_RAW_U8;
    data->is_image = f->rank > 2;
    data->info.count = f->dim[0];
    if (f->rank == 3)
        data->info.input_dim[data->info.input_rank++] = 1;
    for (int i = 1; i < f->rank; i++)
        data->info.input_dim[data->info.input_rank++] = f->dim[i];
    if (!s->labels_path)
        return MEST_OK;
    MEST_TRY(open_file(&s->labels, heap, s->labels_path, err));
    MEST_CHECK(s->labels.rank == 1, err, MEST_E_DATA, "%s: labels need 1 dimension, this has %d", s->labels_path, s->labels.rank);
    MEST_CHECK(s->labels.dim[0] == f->dim[0], err, MEST_E_DATA, "%s: %" PRIu32 " labels for the %" PRIu32 " images of %s", s->labels_path,
               s->labels.dim[0], f->dim[0], s->images_path);
    data->info.has_targets = true;
    for (uint32_t i = 0; i < f->dim[0]; i++)
        if (s->labels.payload[i] >= data->info.n_classes)
            data->info.n_classes = s->labels.payload[i] + 1;
    return MEST_OK;
}

static mest_status open_train(mest_heap *heap, const char *rest, const mest_source_options *options, mest_dataset *data, mest_error *err)
{
    (void)options;
    return open_set(heap, rest, false, data, err);
}

static mest_status open_test(mest_heap *heap, const char *rest, const mest_source_options *options, mest_dataset *data, mest_error *err)
{
    (void)options;
    return open_set(heap, rest, true, data, err);
}

const mest_source_kind mest_source_idx[] = {
    {"idx", "IMAGES,LABELS or DIR  MNIST idx files, gzip allowed; DIR: train-images-idx3-ubyte and its labels", open_train},
    {"idx-test", "DIR  the t10k-* files of DIR", open_test},
    {NULL, NULL, NULL},
};
