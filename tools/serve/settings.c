/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/settings.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "serve/v2_infer.h"

enum kind { WHOLE, REAL, TEXT, YES_NO };

typedef struct setting {
    const char *name;
    enum kind kind;
    size_t offset;
    double preset;
    const char *text;      /* preset of TEXT */
    double low, high;      /* both included */
    bool running;          /* may be changed by a request; no TEXT is */
    const char *help;
} setting;

#define WHOLE_AT(field, preset, low, high, running, help) {#field, WHOLE, offsetof(settings, field), preset, NULL, low, high, running, help}
#define REAL_AT(field, preset, low, high, running, help) {#field, REAL, offsetof(settings, field), preset, NULL, low, high, running, help}
#define TEXT_AT(field, preset, help) {#field, TEXT, offsetof(settings, field), 0, preset, 0, 0, false, help}

static const setting table[] = {
    WHOLE_AT(max_batch, 32, 1, 4096, false, "samples that are answered together, and the most of one request"),
    WHOLE_AT(max_axis, 512, 1, 1e9, false, "longest that an axis may be whose length the file leaves free"),
    WHOLE_AT(max_shapes, 4, 1, 16, false, "lengths of the free axes that are planned for at a time, each with memory of its own"),
    REAL_AT(batch_delay_ms, 1, 0, 10000, false, "how long a request may wait for others to join it, milliseconds"),
    WHOLE_AT(infer_threads, 1, 1, 64, false, "threads that answer, each with memory of its own"),
    WHOLE_AT(max_waiting, 1024, 1, 100000, false, "requests that may wait; more are turned away with status 503"),
    TEXT_AT(output, "", "output that is trained; empty: the first"),
    TEXT_AT(scheme, "csr", "sparse format, as mest-run --scheme"),
    REAL_AT(sparsity, 0, 0, 1, false, "share of the weights that is removed; 0: dense"),
    TEXT_AT(dense_layers, "auto", "layers that stay dense, as mest-run --dense-layers"),
    TEXT_AT(freeze, "", "name pattern of parameters that are not trained"),
    TEXT_AT(loss, "ce", "ce, mse or bce"),
    TEXT_AT(class_axis, "last", "loss ce, a class for each point of a sample: axis of the classes, last (words of a text) or first (pixels of an image)"),
    TEXT_AT(sample_shape, "", "shape of a training sample where the file leaves axes free: 64, or 3,32,32; several inputs: 64;64"),
    TEXT_AT(optimizer, "sgd", "sgd, adamw, adam or adagrad"),
    TEXT_AT(batch_norm, "frozen", "train, frozen or auto"),
    TEXT_AT(scheduler, "", "scheduler of the patterns (mest, set, rigl, ...); empty: they stay as they are"),
    TEXT_AT(scheduler_options, "", "its options"),
    REAL_AT(lr, 0.01, 0, 1000, true, "learning rate"),
    REAL_AT(momentum, 0.9, 0, 1, false, "momentum of sgd"),
    REAL_AT(weight_decay, 0, 0, 1000, false, "weight decay"),
    REAL_AT(clip_norm, 0, 0, 1e9, false, "limit of the gradient's norm; 0: none"),
    WHOLE_AT(batch, 32, 1, 4096, false, "samples of a training step"),
    WHOLE_AT(round_steps, 50, 1, 1000000, true, "training steps between two candidates for a version"),
    WHOLE_AT(rounds, 0, 0, 1000000000, true, "rounds after which training ends; 0: it goes on until it is cancelled"),
    WHOLE_AT(seed, 1, 0, 9007199254740992.0, false, "of the random numbers"),
    REAL_AT(hold_out, 0.2, 0.01, 0.9, false, "share of the samples that is tested on and never trained on"),
    REAL_AT(max_accuracy_drop, 0, -1, 1, true, "a candidate may be that much worse than the current version on the held-out samples"),
    WHOLE_AT(min_samples, 16, 2, 1000000000, true, "training waits for that many samples"),
    {"auto_promote", YES_NO, offsetof(settings, auto_promote), 1, NULL, 0, 1, true, "a candidate that passed its test becomes the current version"},
    WHOLE_AT(keep_versions, 8, 2, 200, false, "versions made by training that stay in the folder"),
    REAL_AT(duty, 0.5, 0.01, 1, true, "share of the time that training works"),
    WHOLE_AT(nice, 10, 0, 19, false, "niceness of the training threads"),
    WHOLE_AT(pause_waiting, 16, 0, 1000000, true, "training pauses while more requests are waiting or being answered"),
    REAL_AT(pause_at_most_ms, 200, 0, 86400000, true, "then it makes a step nevertheless, milliseconds; 0: it waits for as long as it takes"),
    TEXT_AT(pause_file, "", "training pauses while a file of this name exists"),
    REAL_AT(min_battery, 0, 0, 100, false, "training pauses while the machine runs on a battery below that, per cent; 0: never"),
    REAL_AT(max_temperature, 0, 0, 200, false, "training pauses while a thermal zone is hotter, degrees Celsius; 0: never"),
    TEXT_AT(sys_root, "/sys", "where the system's readings of battery and temperature are"),
    WHOLE_AT(replay_bytes, 64 << 20, 65536, 1e15, false, "size of the store of samples on disk"),
    TEXT_AT(replay_keep, "newest", "what stays when the store is full: newest, or sample (each sample that ever came has the same chance)"),
};
enum { N_SETTINGS = sizeof table / sizeof *table };

static void *place(settings *s, const setting *o) { return (char *)s + o->offset; }

void settings_init(settings *s)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < N_SETTINGS; i++) {
        const setting *o = &table[i];
        if (o->kind == WHOLE)
            *(int64_t *)place(s, o) = (int64_t)o->preset;
        else if (o->kind == REAL)
            *(double *)place(s, o) = o->preset;
        else if (o->kind == YES_NO)
            *(bool *)place(s, o) = o->preset != 0;
        else
            strcpy(place(s, o), o->text);
    }
}

static bool set(settings *s, const setting *o, const cJSON *value, fault *f)
{
    if (o->kind == TEXT) {
        const char *t = cJSON_GetStringValue(value);
        if (!t || strlen(t) >= SETTING_TEXT)
            return refuse(f, 400, "%s: no text of fewer than %d bytes", o->name, SETTING_TEXT);
        strcpy(place(s, o), t);
        return true;
    }
    if (o->kind == YES_NO) {
        if (!cJSON_IsBool(value))
            return refuse(f, 400, "%s: neither true nor false", o->name);
        *(bool *)place(s, o) = cJSON_IsTrue(value);
        return true;
    }
    double v = cJSON_IsNumber(value) ? value->valuedouble : (double)NAN;
    if (!(v >= o->low && v <= o->high) || (o->kind == WHOLE && v != floor(v)))
        return refuse(f, 400, "%s: no %snumber in %g..%g", o->name, o->kind == WHOLE ? "whole " : "", o->low, o->high);
    if (o->kind == WHOLE)
        *(int64_t *)place(s, o) = (int64_t)v;
    else
        *(double *)place(s, o) = v;
    return true;
}

static bool change(settings *s, const cJSON *object, bool running, fault *f)
{
    if (!cJSON_IsObject(object))
        return refuse(f, 400, "settings are no JSON object");
    settings next = *s;
    for (const cJSON *e = object->child; e; e = e->next) {
        const setting *o = NULL;
        for (int i = 0; i < N_SETTINGS && !o; i++)
            if (!strcmp(table[i].name, e->string))
                o = &table[i];
        if (!o)
            return refuse(f, 400, "there is no setting '%.60s'", e->string);
        if (running && !o->running)
            return refuse(f, 400, "%s can be set in config.json only", o->name);
        if (!set(&next, o, e, f))
            return false;
    }
    if (strcmp(next.class_axis, "last") != 0 && strcmp(next.class_axis, "first") != 0)
        return refuse(f, 400, "class_axis: '%.40s' is neither last nor first", next.class_axis);
    if (strcmp(next.replay_keep, "newest") != 0 && strcmp(next.replay_keep, "sample") != 0)
        return refuse(f, 400, "replay_keep: '%.40s' is neither newest nor sample", next.replay_keep);
    *s = next;
    return true;
}

bool settings_change(settings *s, const cJSON *object, fault *f) { return change(s, object, true, f); }

void settings_changes(const settings *now, const settings *before, text *out)
{
    const char *separator = "";
    text_printf(out, "{");
    for (int i = 0; i < N_SETTINGS; i++) {
        const setting *o = &table[i];
        const void *a = (const char *)now + o->offset, *b = (const char *)before + o->offset;
        size_t bytes = o->kind == WHOLE ? sizeof(int64_t) : o->kind == REAL ? sizeof(double) : sizeof(bool);
        if (!o->running || !memcmp(a, b, bytes))
            continue;
        text_printf(out, "%s\"%s\":", separator, o->name);
        if (o->kind == WHOLE)
            text_printf(out, "%" PRId64, *(const int64_t *)a);
        else if (o->kind == REAL)
            text_printf(out, "%.17g", *(const double *)a);
        else
            text_printf(out, "%s", *(const bool *)a ? "true" : "false");
        separator = ",";
    }
    text_printf(out, "}");
}

bool settings_read(settings *s, const char *path, fault *f)
{
    enum { MOST = 65536 };
    FILE *file = fopen(path, "rb");
    if (!file)
        return errno == ENOENT || refuse(f, 500, "%s: %s", path, strerror(errno));
    unsigned char *body = malloc(MOST);
    size_t size = body ? fread(body, 1, MOST, file) : 0;
    bool good = body && !ferror(file) && size < MOST;
    fclose(file);
    if (!good) {
        free(body);
        return refuse(f, 500, "%s cannot be read, or is larger than %d bytes", path, MOST);
    }
    fault inner = {0};
    cJSON *root = json_read(body, size, &inner);
    free(body);
    good = root && change(s, root, false, &inner);
    cJSON_Delete(root);
    return good || refuse(f, 500, "%s: %s", path, inner.text);
}

bool settings_describe(int index, const char **name, char preset[SETTING_TEXT], const char **help)
{
    if (index < 0 || index >= N_SETTINGS)
        return false;
    const setting *o = &table[index];
    *name = o->name;
    *help = o->help;
    if (o->kind == TEXT)
        snprintf(preset, SETTING_TEXT, "%s", *o->text ? o->text : "empty");
    else if (o->kind == YES_NO)
        snprintf(preset, SETTING_TEXT, "%s", o->preset != 0 ? "true" : "false");
    else
        snprintf(preset, SETTING_TEXT, "%.10g", o->preset);
    return true;
}

void settings_help(FILE *to)
{
    const char *name, *help;
    char preset[SETTING_TEXT];
    for (int i = 0; settings_describe(i, &name, preset, &help); i++)
        fprintf(to, "  %-18s %s [%s]\n", name, help, preset);
}
