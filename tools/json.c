/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "whole_file.h"

cJSON *json_event(const char *name)
{
    cJSON *object = cJSON_CreateObject();
    if (object && !cJSON_AddStringToObject(object, "event", name)) {
        cJSON_Delete(object);
        object = NULL;
    }
    return object;
}

void json_number(cJSON *object, const char *key, double value)
{
    if (!object)
        return;
    if (isfinite(value))
        cJSON_AddNumberToObject(object, key, value);
    else
        cJSON_AddNullToObject(object, key);
}

/* Length of the UTF-8 sequence at s, 0 if it is none. */
static size_t utf8_length(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2 : (s[0] & 0xF0) == 0xE0 ? 3 : s[0] >= 0xF0 && s[0] < 0xF5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    return n;
}

void json_text(cJSON *object, const char *key, const char *text)
{
    if (!object)
        return;
    if (!text) {
        cJSON_AddNullToObject(object, key);
        return;
    }
    /* Names come from model files and may hold anything; JSON must stay valid. */
    char *copy = strdup(text);
    if (!copy)
        return;
    for (unsigned char *s = (unsigned char *)copy; *s;) {
        size_t n = utf8_length(s);
        if (n == 0)
            *s = '?';
        s += n ? n : 1;
    }
    cJSON_AddStringToObject(object, key, copy);
    free(copy);
}

void json_bool(cJSON *object, const char *key, bool value)
{
    if (object)
        cJSON_AddBoolToObject(object, key, value);
}

void json_shape(cJSON *object, const char *key, const int64_t *dim, int rank)
{
    cJSON *array = object ? cJSON_AddArrayToObject(object, key) : NULL;
    for (int i = 0; array && i < rank; i++)
        cJSON_AddItemToArray(array, dim[i] < 0 ? cJSON_CreateNull() : cJSON_CreateNumber((double)dim[i]));
}

void json_metrics(cJSON *object, const char *key, const mest_metrics *metrics)
{
    cJSON *into = object ? cJSON_AddObjectToObject(object, key) : NULL;
    json_number(into, "loss", metrics->loss);
    json_number(into, "accuracy", metrics->accuracy);
    json_number(into, "samples", (double)metrics->samples);
    json_number(into, "steps", (double)metrics->steps);
    json_number(into, "seconds", metrics->seconds);
}

void json_plan(cJSON *object, const mest_plan_info *plan)
{
    json_number(object, "macs", (double)plan->macs);
    json_number(object, "arena_bytes", (double)plan->arena_bytes);
    json_number(object, "parameter_bytes", (double)plan->parameter_bytes);
    json_number(object, "optimizer_bytes", (double)plan->optimizer_bytes);
    json_number(object, "total_bytes", (double)plan->total_bytes);
    char kernels[24];
    snprintf(kernels, sizeof kernels, "%016" PRIx64, plan->kernels);
    json_text(object, "kernels", kernels);
    json_number(object, "measured_layers", (double)plan->n_measured);
}

bool json_wanted(const tool *t) { return t->s->json || t->logging; }

bool json_emit(tool *t, cJSON *object)
{
    static const char no_memory[] = "{\"event\":\"error\",\"message\":\"out of memory while writing JSON\"}";
    char *text = object ? cJSON_PrintUnformatted(object) : NULL;
    const char *line = text ? text : no_memory;
    size_t n = strlen(line);
    bool good = true;
    if (t->s->json)
        good = fwrite(line, 1, n, stdout) == n && fputc('\n', stdout) != EOF && fflush(stdout) == 0;
    if (t->folder.waiting && object) {
        if (cJSON_AddItemToArray(t->folder.held, object))
            object = NULL;
    }
    for (int i = 0; log_form_at(i); i++)
        if (t->log[i].fd >= 0)
            good = log_form_at(i)->event(&t->log[i], object, line) && good;
    cJSON_free(text);
    cJSON_Delete(object);
    return good;
}

bool json_save(const cJSON *object, const char *path)
{
    whole_file w;
    char *text = object ? cJSON_Print(object) : NULL;
    bool good = text && whole_open(&w, path) && whole_close(&w, fputs(text, w.file) >= 0 && fputc('\n', w.file) != EOF);
    if (!text)
        errno = ENOMEM;
    cJSON_free(text);
    return good;
}
