/* SPDX-License-Identifier: Apache-2.0 */
/* A table, log.csv: a row for each step that is logged, each epoch, mutation, removal of samples and checkpoint; what an event does not say is empty. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "logs.h"

static const struct column {
    const char *name, *object, *key;
} columns[] = {
    {"epoch", NULL, "epoch"}, {"step", NULL, "step"}, {"time", NULL, "time"}, {"lr", NULL, "lr"},
    {"train_loss", "train", "loss"}, {"train_accuracy", "train", "accuracy"},
    {"validation_loss", "validation", "loss"}, {"validation_accuracy", "validation", "accuracy"},
    {"sparsity", NULL, "sparsity"}, {"images_per_second", NULL, NULL}, {"active_samples", NULL, "active_samples"}, {"peak_bytes", NULL, "peak_bytes"},
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
    n += snprintf(row + n, sizeof row - (size_t)n, "\n");
    return log_write(file, row, (size_t)n);
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
    char row[1024];
    int n = snprintf(row, sizeof row, "%s", kind);
    for (int i = 0; i < COLUMNS; i++) {
        double value;
        bool have = columns[i].key ? log_number(object, columns[i].object, columns[i].key, &value) : log_rate(object, &value);
        n += have ? snprintf(row + n, sizeof row - (size_t)n, ",%.10g", value) : snprintf(row + n, sizeof row - (size_t)n, ",");
    }
    n += snprintf(row + n, sizeof row - (size_t)n, "\n");
    return log_write(file, row, (size_t)n);
}

static bool place(const char *line, log_place *place)
{
    return sscanf(line, "%15[^,],%" SCNd64 ",%" SCNd64 ",", place->event, &place->epoch, &place->step) == 3;
}

const log_form log_csv = {.name = "csv", .file_name = file_name, .begin = begin, .event = event, .place = place};
