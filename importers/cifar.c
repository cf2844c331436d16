/* SPDX-License-Identifier: Apache-2.0 */
/* CIFAR-10's binary form: records of one label byte and 3 x 32 x 32 bytes (red, green, blue planes, rows from the top), nothing else. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "importers/source.h"
#include "runtime/mapfile.h"

enum { PIXELS = 3 * 32 * 32, RECORD = 1 + PIXELS, CLASSES = 10 };

static const char *const class_names[CLASSES] = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};

typedef struct part {
    const char *path;
    mest_mapfile map;
    int64_t first, count; /* sample ids of this file */
} part;

typedef struct cifar {
    mest_heap *heap;
    mest_region region;
    part *parts; /* region memory */
    int n_parts;
} cifar;

static const part *part_of(const cifar *s, int64_t id)
{
    const part *p = s->parts;
    while (id >= p->first + p->count)
        p++;
    return p;
}

static mest_status cifar_read(void *self, int64_t id, void *input, void *target, mest_error *err)
{
    const part *p = part_of(self, id);
    const size_t at = (size_t)(id - p->first) * RECORD;
    uint8_t label = 0;
    if (input)
        MEST_TRY(mest_mapfile_read(&p->map, at + 1, PIXELS, input, p->path, err));
    if (target) {
        MEST_TRY(mest_mapfile_read(&p->map, at, 1, &label, p->path, err));
        *(int64_t *)target = label;
    }
    return MEST_OK;
}

static const char *cifar_class_name(void *self, int64_t index)
{
    (void)self;
    return index < CLASSES ? class_names[index] : NULL;
}

static void cifar_sample_name(void *self, int64_t id, char *text, size_t size)
{
    const part *p = part_of(self, id);
    snprintf(text, size, "%s, record %" PRId64, p->path, id - p->first);
}

static void cifar_destroy(void *self)
{
    cifar *s = self;
    mest_heap *heap = s->heap;
    for (int i = 0; i < s->n_parts; i++)
        mest_mapfile_close(&s->parts[i].map);
    mest_region_free(&s->region);
    mest_free(heap, s, 1, sizeof *s);
}

static mest_status open_part(cifar *s, const char *path, int64_t *total, mest_error *err)
{
    part *p = &s->parts[s->n_parts];
    p->path = path;
    MEST_TRY(mest_mapfile_open_kept(&p->map, path, err));
    s->n_parts++;
    MEST_CHECK(p->map.size > 0 && p->map.size % RECORD == 0, err, MEST_E_DATA,
               "%s: %zu bytes are not a whole number of CIFAR-10 records of %d bytes (cut short, or CIFAR-100?)", path, p->map.size, RECORD);
    p->first = *total;
    p->count = (int64_t)(p->map.size / RECORD);
    *total += p->count;
    for (int64_t i = 0; i < p->count; i++) {
        int label = p->map.bytes[(size_t)i * RECORD];
        MEST_CHECK(label < CLASSES, err, MEST_E_DATA, "%s: record %" PRId64 ": label %d, CIFAR-10 has %d classes", path, i, label, CLASSES);
    }
    mest_mapfile_forget(&p->map);
    return MEST_OK;
}

static bool is_train_batch(const char *folder, const char *name)
{
    size_t n = strlen(name);
    (void)folder;
    return strncmp(name, "data_batch_", 11) == 0 && n > 15 && strcmp(name + n - 4, ".bin") == 0;
}

static mest_status open_set(mest_heap *heap, const char *rest, bool test, mest_dataset *data, mest_error *err)
{
    static const char *const unpacked[] = {"cifar-10-batches-bin", NULL};
    static const char *const test_names[] = {"test_batch.bin", NULL};
    cifar *s = mest_calloc(heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "cifar10: no memory");
    s->heap = heap;
    mest_region_init(&s->region, heap);
    data->self = s;
    data->destroy = cifar_destroy;
    data->read = cifar_read;
    data->class_name = cifar_class_name;
    data->sample_name = cifar_sample_name;
    data->raw = MEST_RAW_U8;
    data->is_image = true;
    data->info.input_rank = 3;
    data->info.input_dim[0] = 3;
    data->info.input_dim[1] = data->info.input_dim[2] = 32;
    data->info.n_classes = CLASSES;
    data->info.has_targets = true;

    const char *folder = NULL;
    mest_name_list list = {0};
    if (mest_is_folder(rest)) {
        const char *inner = mest_find_in_folder(&s->region, rest, unpacked);
        folder = inner && mest_is_folder(inner) ? inner : rest;
        if (!test) {
            MEST_TRY(mest_list_folder(&s->region, folder, is_train_batch, &list, err));
            MEST_CHECK(list.n > 0, err, MEST_E_IO, "%s: no data_batch_*.bin in it", folder);
        }
    }
    int32_t n = list.n ? list.n : 1;
    s->parts = mest_region_alloc(&s->region, (size_t)n, sizeof *s->parts);
    MEST_CHECK(s->parts, err, MEST_E_NOMEM, "%s: no memory", rest);
    for (int32_t i = 0; i < n; i++) {
        const char *const name[] = {list.n ? list.names[i] : test_names[0], NULL};
        const char *path = folder ? mest_find_in_folder(&s->region, folder, name) : mest_region_strdup(&s->region, rest);
        MEST_CHECK(path, err, MEST_E_IO, "%s: no file %s in it", rest, name[0]);
        MEST_TRY(open_part(s, path, &data->info.count, err));
    }
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

const mest_source_kind mest_source_cifar[] = {
    {"cifar10", "FILE or DIR  CIFAR-10 binary records; DIR: its data_batch_*.bin", open_train},
    {"cifar10-test", "FILE or DIR  the same; DIR: its test_batch.bin", open_test},
    {NULL, NULL, NULL},
};
