/* SPDX-License-Identifier: Apache-2.0 */
/* The public side of the built-in sources: finds the kind of a spec, and does for all kinds what is the same for all: held-out part, limit,
 * normalisation, augmentation. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "importers/image_ops.h"
#include "importers/source.h"
#include "runtime/rng.h"

#define MEST_SOURCE(file) extern const mest_source_kind mest_source_##file[];
#include "importers/sources.def"
#undef MEST_SOURCE

static const mest_source_kind *const kind_lists[] = {
#define MEST_SOURCE(file) mest_source_##file,
#include "importers/sources.def"
#undef MEST_SOURCE
};

static const mest_source_kind *kind_at(int index)
{
    for (size_t i = 0; i < sizeof kind_lists / sizeof kind_lists[0] && index >= 0; i++)
        for (const mest_source_kind *k = kind_lists[i]; k->name; k++)
            if (index-- == 0)
                return k;
    return NULL;
}

const char *mest_source_kind_at(int index, const char **help)
{
    const mest_source_kind *k = kind_at(index);
    if (help)
        *help = k ? k->help : NULL;
    return k ? k->name : NULL;
}

void mest_source_options_init(mest_source_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
}

/* ---- an opened source ---- */

typedef struct opened {
    mest_heap heap;
    mest_dataset data;
    int64_t count;   /* samples after split and limit */
    int64_t n_ids;
    int64_t *ids;    /* [n_ids] raw id of each sample; NULL: the same */
    mest_normaliser norm;
    mest_augmenter augment; /* pad 0 and flip 0: nothing to do */
    size_t raw_bytes, input_bytes, target_bytes; /* of one sample */
    size_t each_bytes[MEST_SAMPLE_MAX_INPUTS];   /* of each input, where there are several */
    uint8_t *raw, *augmented; /* one raw sample each */
} opened;

static int64_t raw_id(const opened *o, int64_t id) { return o->ids ? o->ids[id] : id; }

static mest_status source_info(void *self, mest_source_info *info, mest_error *err)
{
    opened *o = self;
    uint32_t size = info->struct_size;
    MEST_CHECK(size >= sizeof(uint32_t), err, MEST_E_ARGUMENT, "data source: info.struct_size is not set");
    if (size > sizeof *info)
        size = sizeof *info;
    mest_source_info full = o->data.info;
    full.struct_size = size;
    full.count = o->count;
    memcpy(info, &full, size);
    return MEST_OK;
}

static mest_status source_fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets,
                                mest_error *err)
{
    opened *o = self;
    bool augment = how && how->augment && (o->augment.pad > 0 || o->augment.flip > 0);
    bool direct = !augment && !o->norm.active && o->data.raw != MEST_RAW_U8; /* the raw sample is the sample */
    char *in = inputs, *target = targets;
    MEST_CHECK(!targets || o->data.info.has_targets, err, MEST_E_ARGUMENT, "data source: it has no targets");
    for (int64_t i = 0; i < n; i++) {
        MEST_CHECK(ids[i] >= 0 && ids[i] < o->count, err, MEST_E_ARGUMENT, "data source: sample %" PRId64 " of %" PRId64, ids[i], o->count);
        MEST_TRY(o->data.read(o->data.self, raw_id(o, ids[i]), direct ? in : (char *)o->raw, target, err));
        if (!direct) {
            const void *from = o->raw;
            if (augment) {
                mest_augment(&o->augment, how, ids[i], o->raw, o->augmented);
                from = o->augmented;
            }
            mest_normalise(&o->norm, o->data.raw, from, (float *)(void *)in);
        }
        in += o->input_bytes;
        target = target ? target + o->target_bytes : NULL;
    }
    return MEST_OK;
}

static mest_status source_fetch_inputs(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *const *inputs, void *targets,
                                       mest_error *err)
{
    opened *o = self;
    void *at[MEST_SAMPLE_MAX_INPUTS];
    (void)how;
    MEST_CHECK(!targets || o->data.info.has_targets, err, MEST_E_ARGUMENT, "data source: it has no targets");
    for (int64_t i = 0; i < n; i++) {
        MEST_CHECK(ids[i] >= 0 && ids[i] < o->count, err, MEST_E_ARGUMENT, "data source: sample %" PRId64 " of %" PRId64, ids[i], o->count);
        for (int k = 0; k < o->data.info.n_inputs; k++)
            at[k] = (char *)inputs[k] + (size_t)i * o->each_bytes[k];
        MEST_TRY(o->data.read_inputs(o->data.self, raw_id(o, ids[i]), at, targets ? (char *)targets + (size_t)i * o->target_bytes : NULL, err));
    }
    return MEST_OK;
}

static const char *source_class_name(void *self, int64_t index)
{
    opened *o = self;
    return o->data.class_name && index >= 0 ? o->data.class_name(o->data.self, index) : NULL;
}

static void source_sample_name(void *self, int64_t id, char *text, size_t size)
{
    opened *o = self;
    if (size > 0)
        text[0] = 0;
    if (size > 0 && id >= 0 && id < o->count)
        o->data.sample_name(o->data.self, raw_id(o, id), text, size);
}

static void source_destroy(void *self)
{
    opened *o = self;
    if (o->data.self)
        o->data.destroy(o->data.self);
    mest_normaliser_free(&o->norm, &o->heap);
    mest_free(&o->heap, o->ids, (size_t)o->n_ids, sizeof *o->ids);
    mest_free(&o->heap, o->raw, o->raw_bytes, 1);
    mest_free(&o->heap, o->augmented, o->raw_bytes, 1);
    mest_heap heap = o->heap; /* o is about to go, its heap with it */
    mest_free(&heap, o, 1, sizeof *o);
}

/* ---- opening ---- */

/* Which raw samples this source shows. The order of the parts is the set's; only membership is random. */
static mest_status choose_samples(opened *o, const mest_source_options *options, mest_error *err)
{
    int64_t n = o->data.info.count;
    o->count = n;
    if (!o->data.is_split && options->val_split > 0) {
        int64_t held = (int64_t)((double)n * options->val_split + 0.5);
        MEST_CHECK(held > 0 && held < n, err, MEST_E_ARGUMENT, "val_split %g of %" PRId64 " samples leaves one part empty", options->val_split, n);
        MEST_NEW(&o->heap, o->ids, n, err, "held-out split");
        o->n_ids = n;
        for (int64_t i = 0; i < n; i++)
            o->ids[i] = i;
        for (int64_t i = n - 1; i > 0; i--) {
            int64_t j = (int64_t)mest_rng_below(options->split_seed, MEST_STREAM_SPLIT, (uint64_t)i, (uint64_t)i + 1), keep = o->ids[i];
            o->ids[i] = o->ids[j];
            o->ids[j] = keep;
        }
        uint8_t *is_held;
        MEST_NEW(&o->heap, is_held, n, err, "held-out split");
        memset(is_held, 0, (size_t)n);
        for (int64_t i = n - held; i < n; i++)
            is_held[o->ids[i]] = 1;
        o->count = 0;
        for (int64_t i = 0; i < n; i++)
            if ((is_held[i] != 0) == options->val_part)
                o->ids[o->count++] = i;
        mest_free(&o->heap, is_held, (size_t)n, 1);
    } else if (!o->data.is_split) {
        MEST_CHECK(!options->val_part, err, MEST_E_ARGUMENT, "data source: there is no held-out part, val_split is 0");
    }
    if (options->limit > 0 && options->limit < o->count)
        o->count = options->limit;
    return MEST_OK;
}

static mest_status bytes_of(int rank, const int64_t *dim, size_t element, size_t *bytes, mest_error *err)
{
    *bytes = element;
    for (int i = 0; i < rank; i++)
        MEST_CHECK(dim[i] > 0 && mest_mul(*bytes, (size_t)dim[i], bytes) && *bytes < SIZE_MAX / 4, err, MEST_E_DATA,
                   "data source: samples of impossible size (dimension %d is %" PRId64 ")", i, dim[i]);
    return MEST_OK;
}

static mest_status prepare(opened *o, const mest_source_options *options, mest_error *err)
{
    const mest_source_info *info = &o->data.info;
    static const size_t element[] = {[MEST_RAW_U8] = 1, [MEST_RAW_F32] = sizeof(float), [MEST_RAW_I64] = sizeof(int64_t)};
    MEST_CHECK(info->count > 0, err, MEST_E_DATA, "data source: no samples");
    MEST_TRY(bytes_of(info->input_rank, info->input_dim, element[o->data.raw], &o->raw_bytes, err));
    MEST_TRY(bytes_of(info->input_rank, info->input_dim, info->input_type == MEST_SAMPLE_F32 ? 4 : 8, &o->input_bytes, err));
    if (info->has_targets)
        MEST_TRY(bytes_of(info->target_rank, info->target_dim, info->target_type == MEST_SAMPLE_F32 ? 4 : 8, &o->target_bytes, err));
    for (int k = 0; k < info->n_inputs; k++)
        MEST_TRY(bytes_of(info->input[k].rank, info->input[k].dim, info->input[k].type == MEST_SAMPLE_F32 ? 4 : 8, &o->each_bytes[k], err));
    MEST_TRY(choose_samples(o, options, err));
    if (info->n_inputs) {
        MEST_CHECK(!options->measure && !options->n_mean && !options->n_std && !(options->scale > 0) && !options->pad_crop && !(options->flip > 0), err,
                   MEST_E_ARGUMENT, "data source: normalisation and augmentation are for one input; these data have %d by name or place", info->n_inputs);
        return MEST_OK;
    }
    MEST_NEW(&o->heap, o->raw, o->raw_bytes, err, "data source");
    MEST_TRY(mest_normaliser_init(&o->norm, &o->heap, &o->data, options, err));
    if (options->measure)
        MEST_TRY(mest_normaliser_measure(&o->norm, &o->data, o->ids, o->count, o->raw, err));
    if (options->pad_crop > 0 || options->flip > 0) {
        MEST_CHECK(info->input_rank == 3 && o->data.raw != MEST_RAW_I64, err, MEST_E_ARGUMENT,
                   "augmentation: the samples are not images [channels, height, width]");
        o->augment = (mest_augmenter){.c = info->input_dim[0], .h = info->input_dim[1], .w = info->input_dim[2],
                                      .size = element[o->data.raw], .pad = options->pad_crop, .flip = options->flip};
        MEST_NEW(&o->heap, o->augmented, o->raw_bytes, err, "data source");
    }
    return MEST_OK;
}

static mest_status check_options(const mest_source_options *o, mest_error *err)
{
    MEST_CHECK(o->n_mean >= 0 && o->n_mean <= MEST_MAX_GROUPS && o->n_std >= 0 && o->n_std <= MEST_MAX_GROUPS, err, MEST_E_ARGUMENT,
               "normalisation: %d means and %d deviations, at most %d are possible", o->n_mean, o->n_std, MEST_MAX_GROUPS);
    MEST_CHECK(isfinite(o->scale), err, MEST_E_ARGUMENT, "normalisation: scale must be finite");
    MEST_CHECK(o->pad_crop >= 0 && o->pad_crop <= 65535, err, MEST_E_ARGUMENT, "augmentation: pad of %d pixels", o->pad_crop);
    MEST_CHECK(o->flip >= 0 && o->flip <= 1, err, MEST_E_ARGUMENT, "augmentation: flip probability %g is not in 0..1", o->flip);
    MEST_CHECK(o->val_split >= 0 && o->val_split < 1, err, MEST_E_ARGUMENT, "val_split %g is not in 0..1", o->val_split);
    MEST_CHECK(o->limit >= 0 && o->max_bad >= 0, err, MEST_E_ARGUMENT, "limit and max_bad must not be negative");
    MEST_CHECK(o->resize_height >= 0 && o->resize_height <= 65535 && o->resize_width >= 0 && o->resize_width <= 65535, err, MEST_E_ARGUMENT,
               "image size %dx%d", o->resize_height, o->resize_width);
    MEST_CHECK(o->input_rank >= 0 && o->input_rank <= MEST_SAMPLE_MAX_RANK, err, MEST_E_ARGUMENT, "input rank %d", o->input_rank);
    for (int i = 0; i < o->input_rank; i++)
        MEST_CHECK(o->input_dim[i] > 0, err, MEST_E_ARGUMENT, "input dimension %d is %" PRId64, i, o->input_dim[i]);
    return MEST_OK;
}

static mest_status find_kind(const char *spec, const mest_source_kind **kind, const char **rest, mest_error *err)
{
    const char *colon = strchr(spec, ':');
    size_t n = colon ? (size_t)(colon - spec) : strlen(spec);
    char known[256] = "";
    for (int i = 0; (*kind = kind_at(i)) != NULL; i++) {
        const char *name = (*kind)->name;
        if (strlen(name) == n && memcmp(name, spec, n) == 0)
            break;
        if (strlen(known) + strlen(name) + 3 < sizeof known) {
            strcat(known, i ? ", " : "");
            strcat(known, name);
        }
    }
    MEST_CHECK(*kind, err, MEST_E_ARGUMENT, "data '%s': unknown kind '%.*s', known are: %s", spec, (int)n, spec, known);
    MEST_CHECK(colon && colon[1], err, MEST_E_ARGUMENT, "data '%s': a file or folder is missing after '%s:'", spec, (*kind)->name);
    *rest = colon + 1;
    return MEST_OK;
}

mest_status mest_source_open(mest_source *source, const char *spec, const mest_source_options *options, mest_error *err)
{
    mest_source_options opt;
    const mest_source_kind *kind = NULL;
    const char *rest = NULL;
    mest_heap heap;
    mest_error_clear(err);
    memset(source, 0, sizeof *source);
    mest_source_options_init(&opt);
    if (options) {
        size_t size = options->struct_size < sizeof opt ? options->struct_size : sizeof opt;
        MEST_CHECK(size >= sizeof opt.struct_size, err, MEST_E_ARGUMENT, "data source: options.struct_size is not set");
        memcpy(&opt, options, size);
    }
    MEST_TRY(check_options(&opt, err));
    MEST_TRY(find_kind(spec, &kind, &rest, err));
    MEST_TRY(mest_heap_init(&heap, opt.allocator, opt.logger, err));
    opened *o = mest_calloc(&heap, 1, sizeof *o);
    MEST_CHECK(o, err, MEST_E_NOMEM, "data '%s': no memory", spec);
    /* counters go on from here; nothing else refers to the temporary heap */
    MEST_TRY(mest_heap_init(&o->heap, opt.allocator, opt.logger, err));
    atomic_store(&o->heap.current_bytes, atomic_load(&heap.current_bytes));
    atomic_store(&o->heap.peak_bytes, atomic_load(&heap.peak_bytes));
    o->data.info.struct_size = sizeof o->data.info;
    o->data.info.input_type = MEST_SAMPLE_F32;
    o->data.info.target_type = MEST_SAMPLE_I64;
    mest_status status = kind->open(&o->heap, rest, &opt, &o->data, err);
    if (status == MEST_OK)
        status = prepare(o, &opt, err);
    if (status != MEST_OK) {
        source_destroy(o);
        return status;
    }
    *source = (mest_source){.struct_size = sizeof *source, .self = o, .info = source_info, .fetch = source_fetch,
                            .class_name = source_class_name, .sample_name = source_sample_name, .destroy = source_destroy};
    if (o->data.info.n_inputs) {
        source->fetch = NULL;
        source->fetch_inputs = source_fetch_inputs;
    }
    return MEST_OK;
}

void mest_source_normalisation(const mest_source *source, double *scale, int *n, double mean[16], double std[16])
{
    const opened *o = source->fetch == source_fetch ? source->self : NULL; /* several inputs are not normalised */
    *scale = 1;
    *n = 0;
    if (!o || !o->norm.active)
        return;
    *scale = o->norm.scale;
    *n = o->norm.n;
    memcpy(mean, o->norm.mean, (size_t)o->norm.n * sizeof *mean);
    memcpy(std, o->norm.std, (size_t)o->norm.n * sizeof *std);
}

void mest_source_close(mest_source *source)
{
    if (source->destroy)
        source->destroy(source->self);
    memset(source, 0, sizeof *source);
}
