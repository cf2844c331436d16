/* SPDX-License-Identifier: Apache-2.0 */
/* Data sources from the settings: normalisation, augmentation, split; and whether they fit the model. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "report.h"
#include "tool.h"

static int read_numbers(tool *t, const char *text, size_t length, int *n, double out[16])
{
    *n = 0;
    for (size_t at = 0; at <= length;) {
        size_t end = at + strcspn(text + at, ",/");
        char copy[40], *rest;
        if (end > length || end == at || end - at >= sizeof copy || *n == 16)
            return tool_refuse(t, EXIT_USAGE, "--normalise: '%s' is not MEAN[,MEAN..]/STD[,STD..]", text);
        memcpy(copy, text + at, end - at);
        copy[end - at] = 0;
        out[(*n)++] = strtod(copy, &rest);
        if (*rest)
            return tool_refuse(t, EXIT_USAGE, "--normalise: '%s' is not a number", copy);
        at = end + 1;
    }
    return 0;
}

/* "0.49,0.48" up to a space; false if it is anything else. Returns where it ends in *text. */
static bool read_list(const char **text, int *n, double out[16])
{
    for (*n = 0; *n < 16;) {
        char *rest;
        out[*n] = strtod(*text, &rest);
        if (rest == *text || !isfinite(out[*n]))
            return false;
        ++*n;
        *text = rest;
        if (*rest != ',')
            return *rest == ' ' || *rest == 0;
        ++*text;
    }
    return false;
}

/* What tool_normalisation_text wrote. The text comes from a file, so anything else is refused. */
static bool read_model_normalisation(const char *text, mest_source_options *o)
{
    double scale[16];
    int n_scale = 0;
    while (*text) {
        size_t n = strcspn(text, " ");
        const char *word = text;
        bool good = false;
        text += n + (text[n] == ' ');
        if (n == 13 && strncmp(word, "--scale-input", n) == 0)
            good = read_list(&text, &n_scale, scale) && n_scale == 1 && scale[0] >= 0;
        else if (n == 6 && strncmp(word, "--mean", n) == 0)
            good = read_list(&text, &o->n_mean, o->mean);
        else if (n == 5 && strncmp(word, "--std", n) == 0)
            good = read_list(&text, &o->n_std, o->std);
        if (!good)
            return false;
        text += *text == ' ';
    }
    for (int i = 0; i < o->n_std; i++)
        if (!(o->std[i] > 0))
            return false;
    o->scale = n_scale ? scale[0] : 0;
    return true;
}

const char *tool_model_normalisation(const tool *t)
{
    const char *text = mest_model_metadata(t->model, "mest.normalisation");
    return text && *text ? text : NULL;
}

static int read_normalisation(tool *t, mest_source_options *o)
{
    static const char *const given[] = {"scale-input", "mean", "std", "measure", "normalise"};
    const settings *s = t->s;
    bool own = false;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        own |= options_given(s, given[i]);
    const char *text = own ? NULL : tool_model_normalisation(t);
    if (text && s->data && strncmp(s->data, "npy:", 4) == 0) { /* arrays are usually what the network takes, made by its owner */
        tool_note(t, "npy arrays are taken as they are; the model was trained with %s", text);
        text = NULL;
    }
    if (text) { /* a trained model has to see the inputs as it saw them in training */
        if (!read_model_normalisation(text, o))
            return tool_refuse(t, EXIT_MODEL, "%s: mest.normalisation '%.200s' is not understood; --scale-input, --mean and --std replace it",
                               s->model, text);
        tool_note(t, "normalisation as in the model: %s", text);
        return 0;
    }
    o->scale = s->scale_input;
    o->measure = s->measure;
    o->n_mean = s->mean.n;
    o->n_std = s->std.n;
    memcpy(o->mean, s->mean.v, sizeof o->mean);
    memcpy(o->std, s->std.v, sizeof o->std);
    if (s->normalise) {
        const char *slash = strchr(s->normalise, '/');
        if (!slash)
            return tool_refuse(t, EXIT_USAGE, "--normalise: '%s' has no '/' between mean and std", s->normalise);
        int code = read_numbers(t, s->normalise, (size_t)(slash - s->normalise), &o->n_mean, o->mean);
        if (code == 0)
            code = read_numbers(t, slash + 1, strlen(slash + 1), &o->n_std, o->std);
        if (code)
            return code;
        for (int i = 0; i < o->n_std; i++)
            if (!(o->std[i] > 0))
                return tool_refuse(t, EXIT_USAGE, "--normalise: std must be above 0");
    }
    if (s->measure && (o->n_mean || o->n_std))
        return tool_refuse(t, EXIT_USAGE, "--measure and given numbers (--mean, --std, --normalise) exclude each other");
    return 0;
}

static int read_augmentation(tool *t, mest_source_options *o)
{
    const settings *s = t->s;
    o->flip = s->hflip;
    for (const char *word = s->augment; word && *word;) {
        size_t n = strcspn(word, ",");
        if (n == 4 && strncmp(word, "flip", 4) == 0) {
            o->flip = s->hflip > 0 ? s->hflip : 0.5;
        } else if (n > 3 && n < 7 && strncmp(word, "pad", 3) == 0 && strspn(word + 3, "0123456789") >= n - 3) {
            o->pad_crop = atoi(word + 3);
        } else if (!(n == 4 && strncmp(word, "none", 4) == 0)) {
            return tool_refuse(t, EXIT_USAGE, "--augment: '%.*s' is none of padN, flip, none", (int)n, word);
        }
        word += n + (word[n] == ',');
    }
    return 0;
}

/* Shape of one sample by the model, without the batch axis; 0 axes if it is not known altogether. */
static int model_sample(const tool *t, int64_t dim[MEST_SAMPLE_MAX_RANK])
{
    mest_tensor_info in = {.struct_size = sizeof in};
    if (mest_model_input_count(t->model) < 1 || mest_model_input(t->model, 0, &in, NULL) != MEST_OK || in.rank < 2)
        return 0;
    for (int i = 1; i < in.rank; i++) {
        if (in.dim[i] < 1)
            return 0;
        dim[i - 1] = in.dim[i];
    }
    return in.rank - 1;
}

/* csv: the shape of a sample; images: the size to bring them to. Both are the model's unless given. */
static int read_shapes(tool *t, mest_source_options *o)
{
    const settings *s = t->s;
    int64_t dim[MEST_SAMPLE_MAX_RANK];
    int rank = model_sample(t, dim);
    if (s->input_shape.n > MEST_SAMPLE_MAX_RANK)
        return tool_refuse(t, EXIT_USAGE, "--input-shape: more than %d axes", MEST_SAMPLE_MAX_RANK);
    if (s->img_size.n > 2)
        return tool_refuse(t, EXIT_USAGE, "--img-size takes one or two numbers");
    o->input_rank = s->input_shape.n ? s->input_shape.n : rank;
    for (int i = 0; i < o->input_rank; i++)
        o->input_dim[i] = s->input_shape.n ? s->input_shape.v[i] : dim[i];
    if (s->img_size.n) {
        o->resize_height = (int)s->img_size.v[0];
        o->resize_width = (int)s->img_size.v[s->img_size.n - 1];
    } else if (rank == 3 && dim[1] <= 16384 && dim[2] <= 16384) {
        o->resize_height = (int)dim[1];
        o->resize_width = (int)dim[2];
    }
    return 0;
}

static int open_one(tool *t, mest_source *source, mest_source_info *info, const char *spec, const mest_source_options *o)
{
    mest_error err = {0};
    if (mest_source_open(source, spec, o, &err) != MEST_OK) {
        /* Without --input-shape the shape of a csv sample is the model's: if the file cannot have it, the data do not fit. */
        if (err.code == MEST_E_ARGUMENT && strncmp(spec, "csv:", 4) == 0 && !strchr(spec, '?') && !t->s->input_shape.n)
            err.code = MEST_E_DATA;
        return tool_fail(t, STAGE_DATA, &err);
    }
    info->struct_size = sizeof *info;
    if (source->info(source->self, info, &err) != MEST_OK)
        return tool_fail(t, STAGE_DATA, &err);
    if (info->count < 1)
        return tool_refuse(t, EXIT_DATA, "%s: no samples", spec);
    return 0;
}

int tool_open_sources(tool *t, bool validation)
{
    const settings *s = t->s;
    mest_source_options o;
    mest_source_options_init(&o);
    o.allocator = s->memory_limit > 0 ? &t->allocator : NULL;
    o.logger = &t->logger;
    o.limit = s->limit;
    o.max_bad = s->max_bad;
    o.val_split = s->val_split;
    o.split_seed = (uint64_t)s->seed;
    o.val_part = s->val_split > 0 && !validation; /* --eval and --infer look at the part that was held out */
    int code = read_normalisation(t, &o);
    if (code == 0)
        code = read_augmentation(t, &o);
    if (code == 0)
        code = read_shapes(t, &o);
    if (code == 0)
        code = open_one(t, &t->data, &t->data_info, s->data, &o);
    if (code == 0)
        tool_recipe(t, &o);
    if (code || !validation || (!s->val && s->val_split <= 0))
        return code;
    /* The network must see the held-out samples as it sees those it learns from. */
    if (s->measure) {
        int n = 0;
        mest_source_normalisation(&t->data, &o.scale, &n, o.mean, o.std);
        o.measure = false;
        o.n_mean = o.n_std = n;
    }
    o.val_part = !s->val;
    o.limit = s->val_limit;
    if (s->val)
        o.val_split = 0;
    code = open_one(t, &t->val, &t->val_info, s->val ? s->val : s->data, &o);
    t->has_val = code == 0;
    return code;
}

static int check_input(tool *t, const char *what, int index, const mest_sample_input *given)
{
    mest_tensor_info in = {.struct_size = sizeof in};
    mest_error err = {0};
    char want[96], have[96];
    if (mest_model_input(t->model, index, &in, &err) != MEST_OK)
        return tool_fail(t, STAGE_MODEL, &err);
    bool fits = in.rank == given->rank + 1;
    for (int i = 1; fits && i < in.rank; i++)
        fits = in.dim[i] < 0 || in.dim[i] == given->dim[i - 1];
    report_shape(want, sizeof want, in.dim + 1, in.rank - 1);
    report_shape(have, sizeof have, given->dim, given->rank);
    if (!fits)
        return tool_refuse(t, EXIT_DATA, "%s: samples are %s, input '%s' of the model takes %s%s", what, have, in.name, want,
                           strncmp(what, "csv", 3) == 0 ? "; see --input-shape" : "");
    if (in.dtype == 1 || given->type == MEST_SAMPLE_I64 || strncmp(what, "npy:", 4) == 0)
        return 0; /* numbers are converted, batch by batch, where they fit */
    return tool_refuse(t, EXIT_DATA, "%s: samples are float32, input '%s' of the model takes %s", what, in.name,
                       in.dtype == 7 ? "int64" : in.dtype == 9 ? "bool" : "another type");
}

/* By name where the data have names, else by place. What is missing or too much is found when the session is told. */
static int check_inputs(tool *t, const char *what, const mest_source_info *info)
{
    mest_sample_input one = {.type = info->input_type, .rank = info->input_rank};
    memcpy(one.dim, info->input_dim, sizeof one.dim);
    int code = 0, n = mest_model_input_count(t->model);
    if (n != 1 && !info->n_inputs)
        return tool_refuse(t, EXIT_DATA, "%s: the model has %d inputs, the data give one; see npy: in the documentation of --data", what, n);
    for (int k = 0; code == 0 && k < (info->n_inputs ? info->n_inputs : 1); k++) {
        const mest_sample_input *given = info->n_inputs ? &info->input[k] : &one;
        int index = given->name ? -1 : k;
        for (int i = 0; given->name && i < n; i++) {
            mest_tensor_info in = {.struct_size = sizeof in};
            if (mest_model_input(t->model, i, &in, NULL) == MEST_OK && strcmp(in.name, given->name) == 0)
                index = i;
        }
        if (index >= 0 && index < n)
            code = check_input(t, what, index, given);
    }
    return code;
}

static int check_targets(tool *t, const char *what, const mest_source_info *info, bool told)
{
    const settings *s = t->s;
    bool ce = strcmp(s->loss, "ce") == 0;
    if (!info->has_targets)
        return tool_refuse(t, EXIT_DATA, "%s: no targets, only --infer is possible", what);
    if (!ce && info->target_type == MEST_SAMPLE_I64)
        return tool_refuse(t, EXIT_DATA, "%s: targets are class indices, --loss %s needs float32 targets", what, s->loss);
    mest_tensor_info out = {.struct_size = sizeof out};
    mest_error err = {0};
    if (mest_model_output_count(t->model) < 1)
        return tool_refuse(t, EXIT_MODEL, "%s: the model has no output", s->model);
    int index = 0;
    for (int i = 0; s->output_name && i < mest_model_output_count(t->model); i++)
        if (mest_model_output(t->model, i, &out, NULL) == MEST_OK && strcmp(out.name, s->output_name) == 0)
            index = i;
    if (mest_model_output(t->model, index, &out, &err) != MEST_OK)
        return tool_fail(t, STAGE_MODEL, &err);
    int64_t classes = s->new_head > 0 ? s->new_head : out.rank == 2 ? out.dim[1] : -1;
    if (ce && classes > 0 && info->n_classes > classes)
        return tool_refuse(t, EXIT_DATA, "%s: %" PRId64 " classes, output '%s' of the model has %" PRId64 "; --new-head %" PRId64 " gives it a layer for them", what, info->n_classes,
                           out.name, classes, info->n_classes);
    if (ce && classes > 0 && info->n_classes > 0 && info->n_classes < classes && !told)
        tool_note(t, "%s: %" PRId64 " classes, output '%s' of the model has %" PRId64, what, info->n_classes, out.name, classes);
    return 0;
}

int tool_check_sources(tool *t, bool targets)
{
    int code = check_inputs(t, t->s->data, &t->data_info);
    if (code == 0 && targets)
        code = check_targets(t, t->s->data, &t->data_info, false);
    const char *val = t->s->val ? t->s->val : t->s->data;
    if (code == 0 && t->has_val)
        code = check_inputs(t, val, &t->val_info);
    if (code == 0 && t->has_val && targets)
        code = check_targets(t, val, &t->val_info, t->val_info.n_classes == t->data_info.n_classes);
    return code;
}

void tool_normalisation_text(const mest_source *source, char *text, size_t size)
{
    double scale = 0, mean[16], std[16];
    int channels = 0;
    mest_source_normalisation(source, &scale, &channels, mean, std);
    text[0] = 0;
    if (channels < 1)
        return;
    size_t n = (size_t)snprintf(text, size, "--scale-input %.9g --mean ", scale);
    for (int i = 0; i < channels && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%.9g", i ? "," : "", mean[i]);
    if (n < size)
        n += (size_t)snprintf(text + n, size - n, " --std ");
    for (int i = 0; i < channels && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%.9g", i ? "," : "", std[i]);
}
