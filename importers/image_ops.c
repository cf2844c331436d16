/* SPDX-License-Identifier: Apache-2.0 */
#include "importers/image_ops.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/rng.h"

static float normal(const mest_normaliser *norm, int64_t group, float x)
{
    int64_t i = norm->n == 1 ? 0 : group;
    return (x / (float)norm->scale - (float)norm->mean[i]) / (float)norm->std[i];
}

static void fill_table(mest_normaliser *norm)
{
    if (norm->table)
        for (int g = 0; g < norm->n; g++)
            for (int x = 0; x < 256; x++)
                norm->table[g][x] = normal(norm, g, (float)x);
}

mest_status mest_normaliser_init(mest_normaliser *norm, mest_heap *heap, const mest_dataset *data, const mest_source_options *options,
                                 mest_error *err)
{
    const mest_source_info *info = &data->info;
    memset(norm, 0, sizeof *norm);
    norm->groups = info->input_rank > 0 ? info->input_dim[0] : 1;
    norm->span = 1;
    for (int i = 1; i < info->input_rank; i++)
        norm->span *= info->input_dim[i];
    bool asked = options->scale > 0 || options->n_mean > 0 || options->n_std > 0 || options->measure;
    norm->active = asked || data->is_image;
    if (!norm->active)
        return MEST_OK;
    MEST_CHECK(data->raw != MEST_RAW_I64, err, MEST_E_ARGUMENT, "normalisation: the inputs are integers, not numbers to be scaled");
    norm->scale = options->scale > 0 ? options->scale : data->is_image ? 255 : 1;
    norm->n = norm->groups <= MEST_MAX_GROUPS ? (int)norm->groups : 1;
    const int given[2] = {options->n_mean, options->n_std};
    for (int i = 0; i < 2; i++)
        MEST_CHECK(given[i] == 0 || given[i] == 1 || given[i] == norm->n, err, MEST_E_ARGUMENT,
                   "normalisation: %d %s given, the samples have %" PRId64 " channels", given[i], i ? "deviations" : "means", norm->groups);
    for (int g = 0; g < norm->n; g++) {
        norm->mean[g] = options->n_mean == 0 ? 0 : options->mean[options->n_mean == 1 ? 0 : g];
        norm->std[g] = options->n_std == 0 ? 1 : options->std[options->n_std == 1 ? 0 : g];
        MEST_CHECK(isfinite(norm->mean[g]) && isfinite(norm->scale), err, MEST_E_ARGUMENT, "normalisation: mean and scale must be finite");
        MEST_CHECK(isfinite(norm->std[g]) && (float)norm->std[g] > 0, err, MEST_E_ARGUMENT,
                   "normalisation: standard deviation %g is not positive", norm->std[g]);
    }
    if (data->raw == MEST_RAW_U8)
        MEST_NEW(heap, norm->table, norm->n, err, "normalisation");
    fill_table(norm);
    return MEST_OK;
}

void mest_normaliser_free(mest_normaliser *norm, mest_heap *heap)
{
    mest_free(heap, norm->table, (size_t)norm->n, sizeof *norm->table);
    norm->table = NULL;
}

/* Sums of one raw sample by group: pass 0 adds x, pass 1 adds (x - mean)^2. Sequential in double: the same bits every time. */
static void add_sample(const mest_normaliser *norm, mest_raw_type raw, const void *sample, int pass, double *sum)
{
    for (int64_t g = 0; g < norm->groups; g++) {
        int i = norm->n == 1 ? 0 : (int)g;
        double part = 0;
        for (int64_t p = 0; p < norm->span; p++) {
            int64_t at = g * norm->span + p;
            double x = raw == MEST_RAW_U8 ? ((const uint8_t *)sample)[at] : (double)((const float *)sample)[at];
            x /= norm->scale;
            part += pass == 0 ? x : (x - norm->mean[i]) * (x - norm->mean[i]);
        }
        sum[i] += part;
    }
}

mest_status mest_normaliser_measure(mest_normaliser *norm, const mest_dataset *data, const int64_t *ids, int64_t n, void *scratch,
                                    mest_error *err)
{
    double sum[2][MEST_MAX_GROUPS] = {{0}};
    uint64_t histogram[MEST_MAX_GROUPS][256];
    double elements = (double)n * (double)norm->span * (norm->n == 1 ? (double)norm->groups : 1);
    bool bytes = data->raw == MEST_RAW_U8; /* 8-bit samples may cost a decode each: one pass, exact counts */
    memset(histogram, 0, sizeof histogram);
    for (int pass = 0; pass < (bytes ? 1 : 2); pass++) {
        for (int64_t i = 0; i < n; i++) {
            MEST_TRY(data->read(data->self, ids ? ids[i] : i, scratch, NULL, err));
            const uint8_t *x = scratch;
            for (int64_t g = 0; bytes && g < norm->groups; g++)
                for (int64_t p = 0; p < norm->span; p++)
                    histogram[norm->n == 1 ? 0 : g][*x++]++;
            if (!bytes)
                add_sample(norm, data->raw, scratch, pass, sum[pass]);
        }
        for (int g = 0; g < norm->n; g++) {
            for (int v = 0; bytes && v < 256; v++)
                sum[0][g] += (double)histogram[g][v] * (v / norm->scale);
            if (pass == 0)
                norm->mean[g] = sum[0][g] / elements;
            for (int v = 0; bytes && v < 256; v++)
                sum[1][g] += (double)histogram[g][v] * (v / norm->scale - norm->mean[g]) * (v / norm->scale - norm->mean[g]);
        }
    }
    for (int g = 0; g < norm->n; g++) {
        norm->std[g] = sqrt(sum[1][g] / elements);
        MEST_CHECK(isfinite(norm->mean[g]) && isfinite(norm->std[g]), err, MEST_E_DATA, "measuring mean and deviation: the data is not finite");
        if (!((float)norm->std[g] > 0))
            norm->std[g] = 1; /* a constant channel carries nothing to scale */
    }
    fill_table(norm);
    return MEST_OK;
}

void mest_normalise(const mest_normaliser *norm, mest_raw_type raw, const void *from, float *to)
{
    int64_t n = norm->groups * norm->span;
    if (raw == MEST_RAW_U8) {
        const uint8_t *x = from;
        for (int64_t g = 0; g < norm->groups && norm->active; g++, x += norm->span, to += norm->span) {
            const float *table = norm->table[norm->n == 1 ? 0 : g];
            for (int64_t p = 0; p < norm->span; p++)
                to[p] = table[x[p]];
        }
        for (int64_t i = 0; i < n && !norm->active; i++)
            to[i] = x[i];
        return;
    }
    const float *x = from;
    if (!norm->active) {
        memcpy(to, x, (size_t)n * sizeof *to);
        return;
    }
    for (int64_t g = 0; g < norm->groups; g++, x += norm->span, to += norm->span)
        for (int64_t p = 0; p < norm->span; p++)
            to[p] = normal(norm, g, x[p]);
}

static void mirror(char *row, int64_t w, size_t size)
{
    char keep[sizeof(float)];
    for (int64_t i = 0, j = w - 1; i < j; i++, j--) {
        memcpy(keep, row + (size_t)i * size, size);
        memcpy(row + (size_t)i * size, row + (size_t)j * size, size);
        memcpy(row + (size_t)j * size, keep, size);
    }
}

void mest_augment(const mest_augmenter *a, const mest_fetch *how, int64_t id, const void *from, void *to)
{
    uint64_t stream = (uint64_t)MEST_STREAM_AUGMENT << 32 | (uint32_t)how->epoch, draw = (uint64_t)id * 4;
    uint64_t places = 2 * (uint64_t)a->pad + 1;
    int64_t dy = (int64_t)mest_rng_below(how->seed, stream, draw, places) - a->pad;
    int64_t dx = (int64_t)mest_rng_below(how->seed, stream, draw + 1, places) - a->pad;
    bool flip = mest_rng_uniform(how->seed, stream, draw + 2) < a->flip;
    int64_t left = dx < 0 ? -dx : 0; /* columns of padding on the left; source columns start at dx + left */
    int64_t columns = a->w - (dx < 0 ? -dx : dx);
    size_t row = (size_t)a->w * a->size;
    const char *src = from;
    char *dst = to;
    memset(to, 0, (size_t)a->c * (size_t)a->h * row);
    for (int64_t c = 0; c < a->c; c++, src += (size_t)a->h * row)
        for (int64_t y = 0; y < a->h; y++, dst += row) {
            int64_t sy = y + dy;
            if (sy < 0 || sy >= a->h || columns <= 0)
                continue;
            memcpy(dst + (size_t)left * a->size, src + (size_t)sy * row + (size_t)(dx + left) * a->size, (size_t)columns * a->size);
            if (flip)
                mirror(dst, a->w, a->size);
        }
}
