/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/v2_infer.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 32, MAX_VALUES = 1 << 20 };

/* cJSON takes 64 bytes for each value, and compares names without an index: what a hostile body can make of that is bounded here first. */
static bool harmless(const unsigned char *s, size_t size, fault *f)
{
    int depth = 0;
    size_t values = 1;
    bool inside = false;
    for (size_t i = 0; i < size; i++) {
        if (inside) {
            if (s[i] == '\\')
                i++;
            else if (s[i] == '"')
                inside = false;
            continue;
        }
        inside = s[i] == '"';
        values += s[i] == ',' || s[i] == ':' || s[i] == '[' || s[i] == '{';
        if (s[i] == '[' || s[i] == '{')
            depth++;
        if (s[i] == ']' || s[i] == '}')
            depth--;
        if (depth > MAX_DEPTH)
            return refuse(f, 400, "JSON is nested more than %d deep", MAX_DEPTH);
        if (s[i] == 0)
            return refuse(f, 400, "byte 0 in JSON");
    }
    return values <= MAX_VALUES || refuse(f, 413, "more than %d values in JSON; send them as binary data", MAX_VALUES);
}

cJSON *json_read(const unsigned char *body, size_t size, fault *f)
{
    if (!size) {
        refuse(f, 400, "the body is empty");
        return NULL;
    }
    if (!harmless(body, size, f))
        return NULL;
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithLengthOpts((const char *)body, size, &end, false);
    if (!json) {
        refuse(f, 400, "not JSON, from byte %td on", end ? end - (const char *)body : 0);
        return NULL;
    }
    for (; end < (const char *)body + size; end++)
        if (!strchr(" \t\r\n", *end)) {
            refuse(f, 400, "bytes behind the JSON text, from %td on", end - (const char *)body);
            cJSON_Delete(json);
            return NULL;
        }
    if (!cJSON_IsObject(json)) {
        refuse(f, 400, "the body is no JSON object");
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

static const cJSON *parameter(const cJSON *of, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(of, "parameters"), name);
}

bool infer_read_inputs(tensor in[MAX_TENSORS], int64_t *n, const cJSON *list, const tensor_spec *inputs, int n_inputs, const tensor_limits *limits,
                       const unsigned char *tail, size_t tail_bytes, fault *f)
{
    if (!cJSON_IsArray(list))
        return refuse(f, 400, "\"inputs\" is no array");
    *n = 0;
    for (const cJSON *e = list->child; e; e = e->next) {
        tensor t;
        if (!tensor_from_json(&t, e, inputs, n_inputs, limits, &tail, &tail_bytes, f)) {
            tensor_free(&t);
            return false;
        }
        tensor *place = &in[t.spec - inputs];
        if (place->data || (*n && *n != t.n)) {
            refuse(f, 400, place->data ? "input '%.80s' is given twice" : "input '%.80s' has another number of samples than the one before", t.spec->name);
            tensor_free(&t);
            return false;
        }
        *place = t;
        *n = t.n;
    }
    for (int i = 0; i < n_inputs; i++)
        if (!in[i].data)
            return refuse(f, 400, "input '%.80s' is missing", inputs[i].name);
    return tail_bytes == 0 || refuse(f, 400, "%zu bytes of the body belong to no input", tail_bytes);
}

static bool read_outputs(infer_call *c, const cJSON *root, const tensor_spec *outputs, int n_outputs, fault *f)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "outputs");
    bool all_binary = cJSON_IsTrue(parameter(root, "binary_data_output"));
    if (!list || (cJSON_IsArray(list) && !list->child)) {
        for (c->n_outputs = 0; c->n_outputs < n_outputs; c->n_outputs++) {
            c->output[c->n_outputs] = c->n_outputs;
            c->binary[c->n_outputs] = all_binary;
        }
        return true;
    }
    if (!cJSON_IsArray(list))
        return refuse(f, 400, "\"outputs\" is no array");
    for (const cJSON *e = list->child; e; e = e->next) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "name"));
        int at = -1;
        for (int i = 0; name && i < n_outputs; i++)
            if (!strcmp(outputs[i].name, name))
                at = i;
        if (at < 0)
            return refuse(f, 400, "the model has no output '%.80s'", name ? name : "");
        if (c->n_outputs == MAX_TENSORS)
            return refuse(f, 400, "more than %d outputs", MAX_TENSORS);
        const cJSON *binary = parameter(e, "binary_data");
        c->binary[c->n_outputs] = binary ? cJSON_IsTrue(binary) : all_binary;
        c->output[c->n_outputs++] = at;
    }
    return true;
}

bool infer_read(infer_call *c, const unsigned char *body, size_t size, size_t json_bytes, const tensor_spec *inputs, int n_inputs,
                const tensor_spec *outputs, int n_outputs, const tensor_limits *limits, fault *f)
{
    if (json_bytes > size)
        return refuse(f, 400, "Inference-Header-Content-Length is %zu, the body has %zu bytes", json_bytes, size);
    if (!json_bytes)
        json_bytes = size;
    cJSON *root = json_read(body, json_bytes, f);
    if (!root)
        return false;
    const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "id"));
    const cJSON *timeout = parameter(root, "timeout");
    bool good = true;
    if (id && strlen(id) >= sizeof c->id)
        good = refuse(f, 400, "\"id\" has more than %zu bytes", sizeof c->id - 1);
    else if (id)
        strcpy(c->id, id);
    if (good && timeout && (!cJSON_IsNumber(timeout) || !(timeout->valuedouble >= 0)))
        good = refuse(f, 400, "parameters.timeout is no number of microseconds");
    else if (timeout)
        c->deadline_ms = fmin(timeout->valuedouble / 1000, 1e9);
    c->n_inputs = n_inputs;
    good = good && read_outputs(c, root, outputs, n_outputs, f)
           && infer_read_inputs(c->in, &c->n, cJSON_GetObjectItemCaseSensitive(root, "inputs"), inputs, n_inputs, limits,
                                body + json_bytes, size - json_bytes, f);
    cJSON_Delete(root);
    return good;
}

void infer_write(const infer_call *c, const char *model, text *out, size_t *json_bytes)
{
    bool any = false;
    text_printf(out, "{\"model_name\":");
    text_quote(out, model);
    text_printf(out, ",\"model_version\":\"%" PRId64 "\"", c->version);
    if (*c->id) {
        text_printf(out, ",\"id\":");
        text_quote(out, c->id);
    }
    text_printf(out, ",\"outputs\":[");
    for (int i = 0; i < c->n_outputs; i++) {
        const tensor *t = &c->out[i];
        text_printf(out, "%s{\"name\":", i ? "," : "");
        text_quote(out, t->spec->name);
        text_printf(out, ",\"datatype\":\"%s\",\"shape\":", t->spec->datatype);
        tensor_shape(out, t->spec->rank, t->dim, t->n);
        if (c->binary[i]) {
            text_printf(out, ",\"parameters\":{\"binary_data_size\":%zu}", t->bytes);
            any = true;
        } else {
            text_printf(out, ",\"data\":");
            tensor_numbers(out, t);
        }
        text_add(out, "}", 1);
    }
    text_add(out, "]}", 2);
    *json_bytes = any ? out->size : 0;
    for (int i = 0; i < c->n_outputs; i++)
        if (c->binary[i])
            text_add(out, c->out[i].data, c->out[i].bytes);
}

void infer_free(infer_call *c)
{
    for (int i = 0; i < MAX_TENSORS; i++) {
        tensor_free(&c->in[i]);
        tensor_free(&c->out[i]);
    }
}
