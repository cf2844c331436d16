/* SPDX-License-Identifier: Apache-2.0 */
/* The pretended library: sources of samples. */
#include <inttypes.h>
#include <string.h>

#include "fake.h"

void mest_source_options_init(mest_source_options *options) { *options = (mest_source_options){.struct_size = sizeof *options}; }

static mest_status source_info(void *self, mest_source_info *info, mest_error *err)
{
    const fake_source *f = self;
    (void)err;
    *info = (mest_source_info){.struct_size = sizeof *info, .count = f->count, .input_type = MEST_SAMPLE_F32, .input_rank = 1,
                               .input_dim = {f->width}, .target_type = f->floats ? MEST_SAMPLE_F32 : MEST_SAMPLE_I64,
                               .n_classes = f->classes, .has_targets = !f->bare};
    return MEST_OK;
}

static mest_status source_fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets,
                                mest_error *err)
{
    const fake_source *f = self;
    float *in = inputs;
    (void)how;
    (void)targets;
    mest_status status;
    if (asked("fetch", &status, err))
        return status;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < f->width; k++)
            in[i * f->width + k] = (float)ids[i];
    return MEST_OK;
}

static const char *source_class(void *self, int64_t index)
{
    static const char *const names[] = {"tulips", "roses", "daisies"};
    const fake_source *f = self;
    return f->named && index < 3 ? names[index] : NULL;
}

mest_status mest_source_open(mest_source *source, const char *spec, const mest_source_options *o, mest_error *err)
{
    MAY_FAIL(err);
    static const char *const kinds[] = {"idx", "idx-test", "cifar10", "cifar10-test", "images", "npy", "csv"};
    const char *colon = strchr(spec, ':');
    bool known = false;
    for (size_t i = 0; colon && i < sizeof kinds / sizeof *kinds; i++)
        known = known || (strlen(kinds[i]) == (size_t)(colon - spec) && strncmp(kinds[i], spec, (size_t)(colon - spec)) == 0);
    if (!known)
        return fail(err, MEST_E_ARGUMENT, "'%s': unknown kind of data", spec);
    if (strcmp(colon + 1, "missing") == 0)
        return fail(err, MEST_E_IO, "%s: No such file or directory", colon + 1);
    if (strcmp(colon + 1, "damaged") == 0)
        return fail(err, MEST_E_DATA, "%s: label 77 at record 5 is out of range", colon + 1);
    fake_source *f = calloc(1, sizeof *f);
    if (!f)
        return fail(err, MEST_E_NOMEM, "no memory");
    f->width = strcmp(colon + 1, "narrow") == 0 ? 3 : 4;
    f->classes = strcmp(colon + 1, "eleven") == 0 ? 11 : 3;
    f->floats = strcmp(colon + 1, "float") == 0;
    f->bare = strcmp(colon + 1, "bare") == 0;
    f->named = strcmp(colon + 1, "named") == 0;
    f->count = o->limit > 0 && o->limit < 100 ? o->limit : 100;
    if (o->val_split > 0)
        f->count = (int64_t)((double)f->count * (o->val_part ? o->val_split : 1 - o->val_split) + 0.5);
    f->options = *o;
    *source = (mest_source){.struct_size = sizeof *source, .self = f, .info = source_info, .fetch = source_fetch,
                            .class_name = source_class, .destroy = free};
    echo("source %s count=%" PRId64 " scale=%g measure=%d mean=%d:%g std=%d:%g pad=%d flip=%g split=%g part=%d seed=%" PRIu64
         " shape=%d:%" PRId64 " resize=%dx%d",
         spec, f->count, o->scale, o->measure, o->n_mean, o->mean[0], o->n_std, o->std[0], o->pad_crop, o->flip, o->val_split, o->val_part,
         o->split_seed, o->input_rank, o->input_dim[0], o->resize_height, o->resize_width);
    return MEST_OK;
}

void mest_source_normalisation(const mest_source *source, double *scale, int *n, double mean[16], double std[16])
{
    const fake_source *f = source->self;
    *scale = f->options.scale > 0 ? f->options.scale : 255;
    *n = f->options.measure ? 1 : f->options.n_mean;
    for (int i = 0; i < *n; i++) {
        mean[i] = f->options.measure ? 0.125 : f->options.mean[i];
        std[i] = f->options.measure ? 0.5 : f->options.std[i < f->options.n_std ? i : 0];
    }
}

void mest_source_close(mest_source *source)
{
    if (source->destroy)
        source->destroy(source->self);
    memset(source, 0, sizeof *source);
}
