/* SPDX-License-Identifier: Apache-2.0 */
/* Image folders: DIR/CLASS/... with JPEG and PNG files. Classes are the folders in byte order, samples the files in byte order, class by
 * class. DIR/train and DIR/val (or test) are used when they exist; the classes are then those of DIR/train for both. A folder without class
 * folders is a set without targets. Every image becomes [3, height, width], as resize and centre crop give it (image_ops.h). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "importers/image_decode.h"
#include "importers/image_ops.h"
#include "importers/source.h"
#include "runtime/mapfile.h"

enum { MAX_DEPTH = 8 };

typedef struct sample {
    char *path;
    int32_t class_index;
} sample;

typedef struct images {
    mest_heap *heap;
    mest_region region;
    mest_name_list classes;
    sample *samples; /* region memory */
    int32_t n_samples, cap_samples;
    int64_t height, width;
} images;

static bool is_image_name(const char *name)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".png"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (n > strlen(endings[i]) && strcasecmp(name + n - strlen(endings[i]), endings[i]) == 0)
            return true;
    return false;
}

static char *inside(images *s, const char *folder, const char *name)
{
    const char *const names[] = {name, NULL};
    return mest_find_in_folder(&s->region, folder, names);
}

static bool is_folder_entry(const char *folder, const char *name)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof path && mest_is_folder(path);
}

static bool is_class_entry(const char *folder, const char *name) { return is_folder_entry(folder, name); }

static bool is_sample_entry(const char *folder, const char *name) { return is_image_name(name) || is_folder_entry(folder, name); }

static mest_status add_files(images *s, const char *folder, int32_t class_index, int depth, mest_error *err)
{
    mest_name_list list;
    MEST_CHECK(depth <= MAX_DEPTH, err, MEST_E_DATA, "%s: folders are nested deeper than %d", folder, MAX_DEPTH);
    MEST_TRY(mest_list_folder(&s->region, folder, is_sample_entry, &list, err));
    for (int32_t i = 0; i < list.n; i++) {
        char *path = inside(s, folder, list.names[i]);
        if (!path)
            continue; /* a dangling link, or removed since */
        if (mest_is_folder(path)) {
            MEST_TRY(add_files(s, path, class_index, depth + 1, err));
            continue;
        }
        MEST_CHECK(s->n_samples < INT32_MAX / 4 && MEST_REGION_GROW(&s->region, s->samples, s->n_samples, s->cap_samples), err, MEST_E_NOMEM,
                   "%s: no memory for its list of files", folder);
        s->samples[s->n_samples++] = (sample){path, class_index};
    }
    return MEST_OK;
}

/* `labels` gives the classes, `root` the samples; usually they are the same folder. */
static mest_status scan(images *s, const char *labels, const char *root, mest_error *err)
{
    mest_name_list present;
    MEST_TRY(mest_list_folder(&s->region, labels, is_class_entry, &s->classes, err));
    MEST_TRY(mest_list_folder(&s->region, root, is_class_entry, &present, err));
    if (s->classes.n == 0)
        return add_files(s, root, -1, 0, err);
    for (int32_t i = 0, c = 0; i < present.n; i++) {
        while (c < s->classes.n && strcmp(s->classes.names[c], present.names[i]) < 0)
            c++;
        MEST_CHECK(c < s->classes.n && strcmp(s->classes.names[c], present.names[i]) == 0, err, MEST_E_DATA,
                   "%s: class folder '%s' has no counterpart in %s", root, present.names[i], labels);
        int32_t before = s->n_samples;
        char *folder = inside(s, root, present.names[i]);
        MEST_CHECK(folder, err, MEST_E_IO, "%s/%s: cannot open", root, present.names[i]);
        MEST_TRY(add_files(s, folder, c, 1, err));
        if (s->n_samples == before)
            mest_logf(s->heap, MEST_LOG_WARNING, "%s: no JPEG or PNG file in this class folder", folder);
    }
    return MEST_OK;
}

static mest_status load(images *s, int64_t id, mest_image *image, bool pixels, mest_error *err)
{
    mest_mapfile map;
    MEST_TRY(mest_mapfile_open(&map, s->samples[id].path, err));
    mest_status status = mest_image_decode(image, s->heap, map.bytes, map.size, pixels, s->samples[id].path, err);
    mest_mapfile_close(&map);
    return status;
}

/* Reads each image's header (or all of it, when bad ones may be skipped) and leaves the bad ones out. */
static mest_status drop_bad(images *s, int64_t max_bad, mest_error *err)
{
    int64_t n_bad = 0;
    int32_t kept = 0;
    for (int32_t i = 0; i < s->n_samples; i++) {
        mest_image image;
        mest_error why = {MEST_OK, ""};
        mest_status status = load(s, i, &image, max_bad > 0, &why);
        if (status == MEST_OK) {
            if (s->height == 0)
                s->height = image.h;
            if (s->width == 0)
                s->width = image.w;
            mest_image_free(&image);
            s->samples[kept++] = s->samples[i];
            continue;
        }
        if (status == MEST_E_NOMEM || max_bad == 0)
            return mest_fail(err, status, "%s", why.msg);
        MEST_CHECK(++n_bad <= max_bad, err, status, "%.400s (%" PRId64 " unreadable images, %" PRId64 " are allowed)", why.msg, n_bad, max_bad);
        mest_logf(s->heap, MEST_LOG_WARNING, "%s; skipped", why.msg);
    }
    s->n_samples = kept;
    return MEST_OK;
}

static mest_status images_read(void *self, int64_t id, void *input, void *target, mest_error *err)
{
    images *s = self;
    if (target)
        *(int64_t *)target = s->samples[id].class_index;
    if (!input)
        return MEST_OK;
    mest_image image;
    MEST_TRY(load(s, id, &image, true, err));
    mest_status status = mest_resize_crop(s->heap, image.rgb, image.h, image.w, input, s->height, s->width, err);
    mest_image_free(&image);
    return status;
}

static const char *images_class_name(void *self, int64_t index)
{
    images *s = self;
    return index < s->classes.n ? s->classes.names[index] : NULL;
}

static void images_sample_name(void *self, int64_t id, char *text, size_t size)
{
    images *s = self;
    snprintf(text, size, "%s", s->samples[id].path);
}

static void images_destroy(void *self)
{
    images *s = self;
    mest_heap *heap = s->heap;
    mest_region_free(&s->region);
    mest_free(heap, s, 1, sizeof *s);
}

/* Which folder holds the samples and which one the classes. */
static void choose_folders(images *s, const char *rest, bool val_part, const char **labels, const char **root, bool *is_split)
{
    static const char *const held_names[] = {"val", "test", NULL};
    const char *train = inside(s, rest, "train");
    *labels = *root = rest;
    *is_split = false;
    if (!train || !mest_is_folder(train))
        return;
    *labels = *root = train;
    const char *held = mest_find_in_folder(&s->region, rest, held_names);
    if (held && mest_is_folder(held)) {
        *is_split = true;
        *root = val_part ? held : train;
    }
}

static mest_status images_open(mest_heap *heap, const char *rest, const mest_source_options *options, mest_dataset *data, mest_error *err)
{
    images *s = mest_calloc(heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "images: no memory");
    s->heap = heap;
    mest_region_init(&s->region, heap);
    data->self = s;
    data->destroy = images_destroy;
    data->read = images_read;
    data->class_name = images_class_name;
    data->sample_name = images_sample_name;
    const char *labels, *root;
    choose_folders(s, rest, options->val_part, &labels, &root, &data->is_split);
    MEST_TRY(scan(s, labels, root, err));
    MEST_CHECK(s->n_samples > 0, err, MEST_E_DATA, "%s: no JPEG or PNG files in its class folders", root);
    s->height = options->resize_height;
    s->width = options->resize_width;
    MEST_TRY(drop_bad(s, options->max_bad, err));
    MEST_CHECK(s->n_samples > 0, err, MEST_E_DATA, "%s: no readable image", root);
    data->raw = MEST_RAW_U8;
    data->is_image = true;
    data->info.count = s->n_samples;
    data->info.input_rank = 3;
    data->info.input_dim[0] = 3;
    data->info.input_dim[1] = s->height;
    data->info.input_dim[2] = s->width;
    data->info.has_targets = s->classes.n > 0;
    data->info.n_classes = s->classes.n;
    return MEST_OK;
}

const mest_source_kind mest_source_images[] = {
    {"images", "DIR  a folder per class with JPEG and PNG files; DIR/train and DIR/val (or test) are found", images_open},
    {NULL, NULL, NULL},
};
