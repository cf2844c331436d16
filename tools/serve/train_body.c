/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/train_body.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- samples ---- */
bool sample_is_float(const tensor_spec *s) { return s->dtype == 1 || s->dtype == 10 || s->dtype == 11; }

static size_t kept_bytes(const tensor_spec *s) { return (size_t)s->count * (sample_is_float(s) ? sizeof(float) : sizeof(int64_t)); }

bool sample_shape_read(tensor_spec *inputs, int n_inputs, const char *at, fault *f)
{
    for (int k = 0; k < n_inputs; k++) {
        tensor_spec *s = &inputs[k];
        for (int i = 0; i < s->rank; i++) {
            char *end;
            errno = 0;
            long long n = strtoll(at, &end, 10);
            char wanted = i + 1 < s->rank ? ',' : k + 1 < n_inputs ? ';' : 0;
            if (end == at || errno || n < 1 || *end != wanted || (s->dim[i] >= 0 && n != s->dim[i]))
                return refuse(f, 409, "sample_shape says nothing that fits axis %d of input '%.80s'", i + 1, s->name);
            s->dim[i] = n;
            at = end + (*end != 0);
        }
        if (!s->rank && *at == ';')
            at++;
        if (!tensor_spec_complete(s))
            return refuse(f, 409, "sample_shape: input '%.80s' is too large", s->name);
    }
    return true;
}

/* Without an axis all others in their order: the shape of the class numbers. */
static bool same_without(const tensor_spec *o, int a, int b)
{
    for (int i = 0; i + 1 < o->rank; i++)
        if (o->dim[i < a ? i : i + 1] != o->dim[i < b ? i : i + 1])
            return false;
    return true;
}

bool sample_spec_make(sample_spec *s, const tensor_spec *inputs, int n_inputs, const tensor_spec *output, const char *loss, bool classes_first, fault *f)
{
    *s = (sample_spec){.n_inputs = n_inputs, .in = inputs, .out = output, .classes = !strcmp(loss, "ce")};
    for (int k = 0; k < n_inputs; k++)
        s->input_bytes += kept_bytes(&inputs[k]);
    if (s->classes && output->rank < 1)
        return refuse(f, 409, "loss ce: output '%.80s' has no axis of classes", output->name);
    s->class_axis = classes_first || !s->classes ? 0 : output->rank - 1;
    if (s->classes && s->class_axis < output->rank - 1 && same_without(output, s->class_axis, output->rank - 1))
        return refuse(f, 409, "class_axis first: all axes of output '%.80s' have one length, and the last is taken for that of the classes", output->name);
    s->n_classes = s->classes ? output->dim[s->class_axis] : 0;
    s->points = s->classes ? output->count / s->n_classes : 0;
    s->target_bytes = s->classes ? (size_t)s->points * sizeof(int64_t) : (size_t)output->count * sizeof(float);
    return true;
}

void sample_pack(const sample_spec *s, const tensor *in, int64_t row, void *to)
{
    char *at = to;
    for (int k = 0; k < s->n_inputs; k++) {
        const tensor_spec *spec = &s->in[k];
        for (int64_t i = 0; i < spec->count; i++) {
            double v = tensor_value(&in[k], row * spec->count + i);
            float x = (float)v;
            int64_t n = (int64_t)v;
            size_t bytes = sample_is_float(spec) ? sizeof x : sizeof n;
            memcpy(at, sample_is_float(spec) ? (const void *)&x : (const void *)&n, bytes);
            at += bytes;
        }
    }
}

/* ---- the body ---- */
/* Values of nested arrays, one after another; *i counts them. */
static bool read_values(train_call *c, const cJSON *list, const sample_spec *s, int64_t want, int64_t *i, int depth, fault *f)
{
    if (depth > MEST_MAX_RANK + 1)
        return refuse(f, 400, "labels are nested too deeply");
    for (const cJSON *e = list->child; e; e = e->next) {
        if (cJSON_IsArray(e)) {
            if (!read_values(c, e, s, want, i, depth + 1, f))
                return false;
            continue;
        }
        double v = cJSON_IsNumber(e) ? e->valuedouble : (double)NAN;
        if (*i == want)
            return refuse(f, 400, "more than %" PRId64 " values of labels for %" PRId64 " samples", want, c->n);
        if (s->classes && (!(v >= 0 && v < (double)s->n_classes) || v != floor(v)))
            return refuse(f, 400, "labels[%" PRId64 "] is %.9g, classes are 0..%" PRId64, *i, v, s->n_classes - 1);
        if (!s->classes && !(fabs(v) <= 3.4028234663852886e38))
            return refuse(f, 400, "labels[%" PRId64 "] is no finite number", *i);
        if (s->classes)
            ((int64_t *)c->targets)[*i] = (int64_t)v;
        else
            ((float *)c->targets)[*i] = (float)v;
        ++*i;
    }
    return true;
}

static bool read_labels(train_call *c, const cJSON *list, const sample_spec *s, fault *f)
{
    if (!cJSON_IsArray(list))
        return refuse(f, 400, s->classes ? "\"labels\" is no array of class numbers" : "\"targets\" is no array of numbers");
    int64_t i = 0, want = c->n * (s->classes ? s->points : s->out->count);
    return read_values(c, list, s, want, &i, 0, f)
           && (i == want || refuse(f, 400, "%" PRId64 " values of labels for %" PRId64 " samples, %" PRId64 " are needed", i, c->n, want));
}

static bool take_samples(train_call *c, const cJSON *root, const tensor *in, const sample_spec *s, fault *f)
{
    c->inputs = malloc((size_t)c->n * s->input_bytes);
    c->targets = malloc((size_t)c->n * s->target_bytes);
    if (!c->inputs || !c->targets)
        return refuse(f, 503, "out of memory");
    for (int64_t i = 0; i < c->n; i++)
        sample_pack(s, in, i, (char *)c->inputs + (size_t)i * s->input_bytes);
    return read_labels(c, cJSON_GetObjectItemCaseSensitive(root, s->classes ? "labels" : "targets"), s, f);
}

static bool read_samples(train_call *c, const cJSON *root, const unsigned char *tail, size_t tail_bytes, const sample_spec *s, const tensor_limits *limits, fault *f)
{
    tensor in[MAX_TENSORS] = {{0}};
    bool good = infer_read_inputs(in, &c->n, cJSON_GetObjectItemCaseSensitive(root, "inputs"), s->in, s->n_inputs, limits, tail, tail_bytes, f)
                && take_samples(c, root, in, s, f);
    for (int k = 0; k < MAX_TENSORS; k++)
        tensor_free(&in[k]);
    return good;
}

static bool read_action(train_call *c, const cJSON *root, fault *f)
{
    static const char *const names[] = {"status", "add", "start", "cancel", "promote", "rollback"};
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "action"));
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], name)) {
            c->action = (train_action)i;
            return true;
        }
    return refuse(f, 400, "\"action\" is one of status, add, start, cancel, promote, rollback");
}

static bool read_version(train_call *c, const cJSON *value, fault *f)
{
    if (!value)
        return true;
    double v = cJSON_IsNumber(value) ? value->valuedouble : cJSON_IsString(value) ? strtod(value->valuestring, NULL) : 0;
    if (!(v >= 1 && v <= 1e15) || v != floor(v))
        return refuse(f, 400, "\"version\" is no number of a version");
    c->version = (int64_t)v;
    return true;
}

bool train_read(train_call *c, const unsigned char *body, size_t size, size_t json_bytes, const sample_spec *spec, const tensor_limits *limits, fault *f)
{
    *c = (train_call){.action = TRAIN_STATUS};
    if (json_bytes > size)
        return refuse(f, 400, "Inference-Header-Content-Length is %zu, the body has %zu bytes", json_bytes, size);
    size_t head = json_bytes ? json_bytes : size;
    cJSON *root = json_read(body, head, f);
    bool good = root && read_action(c, root, f) && read_version(c, cJSON_GetObjectItemCaseSensitive(root, "version"), f);
    if (good && c->action == TRAIN_ADD)
        good = read_samples(c, root, body + head, size - head, spec, limits, f);
    else if (good && head != size)
        good = refuse(f, 400, "bytes behind the JSON text belong to samples only");
    if (good && c->action == TRAIN_START)
        c->settings = cJSON_DetachItemFromObjectCaseSensitive(root, "settings");
    if (good && c->action == TRAIN_PROMOTE && !c->version)
        good = refuse(f, 400, "\"version\" is missing");
    cJSON_Delete(root);
    return good;
}

void train_free(train_call *c)
{
    cJSON_Delete(c->settings);
    free(c->inputs);
    free(c->targets);
    *c = (train_call){.action = TRAIN_STATUS};
}
