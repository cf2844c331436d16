/* SPDX-License-Identifier: Apache-2.0 */
/* A table, log.csv: a row for each step that is logged, each epoch, mutation, removal of samples and checkpoint; what an event does not say is empty. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "logs.h"

static const struct column {
    const char *name, *object, *key;
} columns[] = {
    {"epoch", NULL, "epoch"}, {"step", NULL, "step"}, {"time", NULL, "time"}, {"lr", NULL, "lr"},
    {"train_loss", "train", "loss"}, {"train_accuracy", "train", "accuracy"},
    {"validation_loss", "validation", "loss"}, {"validation_accuracy", "validation", "accuracy"},
    {"sparsity", NULL, "sparsity"}, {"images_per_second", NULL, NULL}, {"active_samples", NULL, "active_samples"}, {"peak_bytes", NULL, "peak_bytes"},
    {"held_bytes", NULL, "held_bytes"},
    {"removed", NULL, "removed"}, {"grown", NULL, "grown"}, {"earlier", NULL, "earlier"}, {"survivors", NULL, "survivors"},
    {"distance", NULL, "distance"}, {"scheduler_seconds", NULL, "scheduler_seconds"},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void file_name(char *text, size_t size) { snprintf(text, size, "log.csv"); }

static bool begin(log_file *file)
{
    char row[1024];
    int n = snprintf(row, sizeof row, "event");
    for (int i = 0; i < COLUMNS; i++)
        n += snprintf(row + n, sizeof row - (size_t)n, ",%s", columns[i].name);
    n += snprintf(row + n, sizeof row - (size_t)n, ",densities\n");
    return log_write(file, row, (size_t)n);
}

/* The last column, in quotes: NAME=DENSITY of each layer that a mutation changed, with semicolons between. */
static void put_densities(FILE *out, const cJSON *object)
{
    const cJSON *layers = cJSON_GetObjectItemCaseSensitive(object, "layers"), *layer;
    const char *between = "\"";
    cJSON_ArrayForEach(layer, layers) {
        double density;
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(layer, "name"));
        if (!name || !log_number(layer, NULL, "density", &density))
            continue;
        fputs(between, out);
        for (; *name; name++)
            fprintf(out, *name == '"' ? "\"\"" : "%c", *name == '\n' || *name == '\r' ? ' ' : *name);
        fprintf(out, "=%.6g", density);
        between = ";";
    }
    if (*between == ';')
        fputc('"', out);
}

static bool event(log_file *file, const cJSON *object, const char *line)
{
    (void)line;
    static const char *const kinds[] = {"step", "epoch", "mutation", "samples", "checkpoint"};
    const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "event"));
    bool wanted = false;
    for (size_t i = 0; kind && i < sizeof kinds / sizeof *kinds; i++)
        wanted = wanted || strcmp(kind, kinds[i]) == 0;
    if (!wanted)
        return true;
    char *row = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&row, &n);
    if (!out)
        return false;
    fputs(kind, out);
    for (int i = 0; i < COLUMNS; i++) {
        double value;
        const bool have = columns[i].key ? log_number(object, columns[i].object, columns[i].key, &value) : log_rate(object, &value);
        fputc(',', out);
        if (have)
            fprintf(out, "%.10g", value);
    }
    fputc(',', out);
    put_densities(out, object);
    fputc('\n', out);
    bool good = fclose(out) == 0;
    good = good && log_write(file, row, n);
    free(row);
    return good;
}

static bool place(const char *line, log_place *place)
{
    return sscanf(line, "%15[^,],%" SCNd64 ",%" SCNd64 ",", place->event, &place->epoch, &place->step) == 3;
}

const log_form log_csv = {.name = "csv", .file_name = file_name, .begin = begin, .event = event, .place = place};
