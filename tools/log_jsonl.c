/* SPDX-License-Identifier: Apache-2.0 */
/* One JSON object a line, log.jsonl. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "logs.h"

static void file_name(char *text, size_t size) { snprintf(text, size, "log.jsonl"); }

/* One write, so that a line is whole or missing. */
static bool event(log_file *file, const cJSON *object, const char *line)
{
    size_t n = strlen(line);
    char *joined = malloc(n + 2);
    (void)object;
    if (!joined)
        return true; /* as when memory runs out while an event is built: training goes on */
    memcpy(joined, line, n);
    joined[n] = '\n';
    bool good = log_write(file, joined, n + 1);
    free(joined);
    return good;
}

static bool place(const char *line, log_place *place)
{
    double epoch = 0, step = 0;
    cJSON *object = cJSON_Parse(line);
    const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "event"));
    const bool good = kind && log_number(object, NULL, "epoch", &epoch) && log_number(object, NULL, "step", &step);
    if (good) {
        snprintf(place->event, sizeof place->event, "%s", kind);
        place->epoch = (int64_t)epoch;
        place->step = (int64_t)step;
    }
    cJSON_Delete(object);
    return good;
}

const log_form log_jsonl = {.name = "jsonl", .file_name = file_name, .event = event, .place = place};
