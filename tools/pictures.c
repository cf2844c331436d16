/* SPDX-License-Identifier: Apache-2.0 */
#include "pictures.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "rundir.h"
#include "whole_file.h"

enum {
    CELLS = 128,       /* most cells of a picture in each direction */
    GALLERY = 24,      /* samples of each kind */
    PIXELS = 96,       /* most pixels of a sample in each direction; larger images are sampled */
    PATH_OF_COUNTS = 250 /* the scheduler's own limit */
};

static const char *in_folder(const tool *t, const char *name, char *path, size_t size)
{
    snprintf(path, size, "%.*s%s", (int)(strrchr(t->checkpoint, '/') - t->checkpoint + 1), t->checkpoint, name);
    return path;
}

static void json_bytes(cJSON *object, const char *key, const unsigned char *bytes, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = object ? malloc((n + 2) / 3 * 4 + 1) : NULL;
    size_t at = 0;
    if (!text)
        return;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t three = (uint32_t)bytes[i] << 16 | (i + 1 < n ? (uint32_t)bytes[i + 1] << 8 : 0) | (i + 2 < n ? bytes[i + 2] : 0);
        text[at++] = digit[three >> 18];
        text[at++] = digit[three >> 12 & 63];
        text[at++] = i + 1 < n ? digit[three >> 6 & 63] : '=';
        text[at++] = i + 2 < n ? digit[three & 63] : '=';
    }
    text[at] = 0;
    cJSON_AddStringToObject(object, key, text);
    free(text);
}

/* ---- patterns ---- */

/* The weight as a matrix, first axis by all others, under a grid of cells. */
typedef struct grid {
    int64_t rows, columns;           /* of the matrix */
    int64_t cell_rows, cell_columns; /* elements in a cell */
    int64_t height, width;           /* cells */
} grid;

static grid grid_of(const mest_tensor_info *info)
{
    grid g = {.rows = info->dim[0], .columns = 1};
    for (int i = 1; i < info->rank; i++)
        g.columns *= info->dim[i];
    g.cell_rows = (g.rows + CELLS - 1) / CELLS;
    g.cell_columns = (g.columns + CELLS - 1) / CELLS;
    g.height = (g.rows + g.cell_rows - 1) / g.cell_rows;
    g.width = (g.columns + g.cell_columns - 1) / g.cell_columns;
    return g;
}

/* Part of each cell that is stored, 0..255; anything at all is at least 1. */
static bool count_cells(const tool *t, int index, const grid *g, uint32_t *count, unsigned char *cells)
{
    int64_t position[512], n = 0;
    mest_error err = {0};
    memset(count, 0, sizeof *count * CELLS * CELLS);
    for (int64_t first = 0;; first += n) {
        if (mest_model_entries(t->model, index, first, 512, position, &n, &err) != MEST_OK)
            return false;
        for (int64_t i = 0; i < n; i++)
            if (position[i] >= 0)
                count[position[i] / g->columns / g->cell_rows * g->width + position[i] % g->columns / g->cell_columns]++;
        if (n < 512)
            break;
    }
    for (int64_t y = 0; y < g->height; y++)
        for (int64_t x = 0; x < g->width; x++) {
            int64_t h = g->rows - y * g->cell_rows, w = g->columns - x * g->cell_columns;
            double all = (double)(h < g->cell_rows ? h : g->cell_rows) * (double)(w < g->cell_columns ? w : g->cell_columns);
            uint32_t c = count[y * g->width + x];
            cells[y * g->width + x] = (unsigned char)(c ? fmax(1, floor(255 * c / all)) : 0);
        }
    return true;
}

int pictures_patterns(tool *t, const char *when)
{
    char path[4200], name[40];
    if (!*t->checkpoint || !t->s->output_dir)
        return 0;
    cJSON *file = json_event("patterns");
    cJSON *layers = file ? cJSON_AddArrayToObject(file, "layers") : NULL;
    uint32_t *count = malloc(sizeof *count * CELLS * CELLS);
    unsigned char *cells = malloc(CELLS * CELLS);
    mest_pattern_info pattern = {.struct_size = sizeof pattern};
    bool good = layers && count && cells;
    for (int i = 0; good && mest_session_pattern(t->session, i, &pattern); i++) {
        mest_tensor_info info = {.struct_size = sizeof info};
        if (mest_model_parameter(t->model, pattern.parameter, &info, NULL) != MEST_OK || info.rank < 1)
            continue;
        grid g = grid_of(&info);
        cJSON *layer = count_cells(t, pattern.parameter, &g, count, cells) ? cJSON_CreateObject() : NULL;
        if (!layer)
            continue;
        json_text(layer, "name", info.name);
        json_text(layer, "scheme", info.scheme);
        json_shape(layer, "shape", info.dim, info.rank);
        json_number(layer, "stored", (double)info.stored);
        json_number(layer, "density", pattern.density);
        json_number(layer, "distance", pattern.distance);
        json_number(layer, "cell_rows", (double)g.cell_rows);
        json_number(layer, "cell_columns", (double)g.cell_columns);
        json_number(layer, "height", (double)g.height);
        json_number(layer, "width", (double)g.width);
        json_bytes(layer, "cells", cells, (size_t)(g.height * g.width));
        cJSON_AddItemToArray(layers, layer);
    }
    free(cells);
    free(count);
    snprintf(name, sizeof name, "pattern-%s.json", when);
    in_folder(t, t->folder.waiting ? RUNDIR_PATTERN : name, path, sizeof path);
    good = !good || cJSON_GetArraySize(layers) == 0 || json_save(file, path);
    cJSON_Delete(file);
    return good ? 0 : tool_refuse(t, EXIT_FILES, "'%s': %s", path, strerror(errno));
}

/* ---- samples ---- */

const char *pictures_counts(const tool *t, char *path, size_t size)
{
    *path = 0;
    if (!t->s->output_dir)
        return path;
    in_folder(t, "forgetting.csv", path, size);
    if (strlen(path) > PATH_OF_COUNTS || strchr(path, ','))
        *path = 0;
    return path;
}

typedef struct chosen {
    int64_t id;
    long forgets;
} chosen;

typedef struct choice {
    chosen most[GALLERY]; /* by falling count */
    chosen never[GALLERY];
    int n_most, n_never;
    int64_t seen_never, seen;
} choice;

/* Keeps the list in order; the earlier of two equals stands first. */
static void keep_most(choice *c, chosen one)
{
    int at = c->n_most;
    if (at == GALLERY && one.forgets <= c->most[GALLERY - 1].forgets)
        return;
    if (at < GALLERY)
        c->n_most++;
    else
        at--;
    for (; at > 0 && c->most[at - 1].forgets < one.forgets; at--)
        c->most[at] = c->most[at - 1];
    c->most[at] = one;
}

/* A sample of them all of fixed size, the same in each run: number k replaces place (a hash of k) mod k. */
static void keep_never(choice *c, chosen one)
{
    int64_t k = c->seen_never++;
    uint64_t hash = ((uint64_t)k + 1) * 0x9E3779B97F4A7C15u;
    int64_t place = k < GALLERY ? k : (int64_t)((hash >> 20) % (uint64_t)(k + 1));
    if (place < GALLERY)
        c->never[place] = one;
    if (c->n_never < GALLERY)
        c->n_never++;
}

/* id,forgets,learned as the scheduler wrote them. Rows that are something else end the list. */
static bool read_counts(const char *path, int64_t samples, choice *c)
{
    char row[128];
    const char *why;
    FILE *file = plain_open(path, &why);
    if (!file)
        return false;
    memset(c, 0, sizeof *c);
    bool good = fgets(row, sizeof row, file) != NULL;
    while (good && fgets(row, sizeof row, file)) {
        long long id;
        long forgets;
        int learned;
        if (sscanf(row, "%lld,%ld,%d", &id, &forgets, &learned) != 3 || id < 0 || id >= samples)
            break;
        c->seen++;
        if (forgets > 0)
            keep_most(c, (chosen){id, forgets});
        else if (learned)
            keep_never(c, (chosen){id, 0});
    }
    fclose(file);
    return good;
}

/* Shape of an image: channels (1 or 3), height, width. */
static bool image_shape(const mest_source_info *info, int64_t *c, int64_t *h, int64_t *w)
{
    const int64_t *dim = info->input_dim;
    int rank = info->input_rank;
    if (info->n_inputs > 1 || info->input_type != MEST_SAMPLE_F32 || rank < 2 || rank > 3)
        return false;
    *c = rank == 3 ? dim[0] : 1;
    *h = dim[rank - 2];
    *w = dim[rank - 1];
    return (*c == 1 || *c == 3) && *h > 1 && *w > 1 && *h < 4096 && *w < 4096;
}

/* Back to what the file held, as bytes, at most PIXELS each way. Without normalisation the sample's own range is stretched. */
static void to_pixels(const tool *t, const float *x, const int64_t shape[3], int64_t step, unsigned char *out)
{
    double scale = 0, mean[16], std[16], low = INFINITY, high = -INFINITY;
    int channels = 0;
    int64_t plane = shape[1] * shape[2];
    mest_source_normalisation(&t->data, &scale, &channels, mean, std);
    for (int64_t i = 0; channels < 1 && i < shape[0] * plane; i++) {
        low = fmin(low, (double)x[i]);
        high = fmax(high, (double)x[i]);
    }
    for (int64_t y = 0; y < shape[1]; y += step)
        for (int64_t column = 0; column < shape[2]; column += step)
            for (int64_t c = 0; c < shape[0]; c++) {
                double v = (double)x[c * plane + y * shape[2] + column];
                int k = c < channels ? (int)c : 0;
                v = channels > 0 ? v * std[k] + mean[k] : high > low ? (v - low) / (high - low) : 0;
                *out++ = (unsigned char)(v <= 0 || isnan(v) ? 0 : v >= 1 ? 255 : lround(255 * v));
            }
}

static bool add_sample(tool *t, cJSON *list, const chosen *one, const int64_t shape[3], float *values, unsigned char *pixels)
{
    const mest_source *source = &t->data;
    int64_t larger = shape[1] > shape[2] ? shape[1] : shape[2], step = (larger + PIXELS - 1) / PIXELS, label = -1;
    int64_t h = (shape[1] + step - 1) / step, w = (shape[2] + step - 1) / step;
    mest_fetch how = {.struct_size = sizeof how};
    mest_error err = {0};
    bool classes = t->data_info.has_targets && t->data_info.target_type == MEST_SAMPLE_I64 && t->data_info.target_rank == 0;
    void *inputs[1] = {values}, *target = classes ? &label : NULL;
    mest_status status = source->fetch ? source->fetch(source->self, &one->id, 1, &how, values, target, &err)
                                       : source->fetch_inputs(source->self, &one->id, 1, &how, inputs, target, &err);
    if (status != MEST_OK)
        return false;
    cJSON *sample = cJSON_CreateObject();
    if (!sample)
        return false;
    to_pixels(t, values, shape, step, pixels);
    json_number(sample, "id", (double)one->id);
    json_number(sample, "forgets", (double)one->forgets);
    const char *name = classes && source->class_name ? source->class_name(source->self, label) : NULL;
    char number[32];
    snprintf(number, sizeof number, "%" PRId64, label);
    if (classes)
        json_text(sample, "class", name ? name : number);
    json_number(sample, "height", (double)h);
    json_number(sample, "width", (double)w);
    json_number(sample, "channels", (double)shape[0]);
    json_bytes(sample, "pixels", pixels, (size_t)(h * w * shape[0]));
    cJSON_AddItemToArray(list, sample);
    return true;
}

int pictures_gallery(tool *t)
{
    char path[4200];
    int64_t shape[3];
    choice c;
    if (!*pictures_counts(t, path, sizeof path) || !image_shape(&t->data_info, &shape[0], &shape[1], &shape[2])
        || !read_counts(path, t->data_info.count, &c))
        return 0;
    float *values = malloc(sizeof *values * (size_t)(shape[0] * shape[1] * shape[2]));
    unsigned char *pixels = malloc((size_t)PIXELS * PIXELS * 3);
    cJSON *file = json_event("gallery");
    cJSON *most = file ? cJSON_AddArrayToObject(file, "forgotten") : NULL, *never = file ? cJSON_AddArrayToObject(file, "never") : NULL;
    bool good = values && pixels && most && never;
    json_number(file, "samples", (double)c.seen);
    json_number(file, "never_forgotten", (double)c.seen_never);
    for (int i = 0; good && i < c.n_most; i++)
        good = add_sample(t, most, &c.most[i], shape, values, pixels);
    for (int i = 0; good && i < c.n_never; i++)
        good = add_sample(t, never, &c.never[i], shape, values, pixels);
    free(pixels);
    free(values);
    in_folder(t, "gallery.json", path, sizeof path);
    good = !good || json_save(file, path);
    cJSON_Delete(file);
    return good ? 0 : tool_refuse(t, EXIT_FILES, "'%s': %s", path, strerror(errno));
}
