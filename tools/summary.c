/* SPDX-License-Identifier: Apache-2.0 */
#include "summary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "whole_file.h"

static const cJSON *metrics_of(const cJSON *summary)
{
    const cJSON *metrics = cJSON_GetObjectItemCaseSensitive(summary, "after");
    return metrics ? metrics : cJSON_GetObjectItemCaseSensitive(summary, "train");
}

cJSON *summary_read(const char *path, const cJSON **metrics)
{
    char *text = whole_read(path);
    cJSON *summary = text ? cJSON_Parse(text) : NULL;
    free(text);
    *metrics = metrics_of(summary);
    if (*metrics)
        return summary;
    cJSON_Delete(summary);
    return NULL;
}

/* The run is complete, so nothing but its summary can be the last event. */
bool summary_restore(const char *path)
{
    char log[4400], *line = NULL;
    size_t room = 0;
    cJSON *last = NULL;
    const char *slash = strrchr(path, '/');
    snprintf(log, sizeof log, "%.*slog.jsonl", slash ? (int)(slash - path) + 1 : 0, path);
    FILE *file = fopen(log, "rb");
    while (file && getline(&line, &room, file) > 0)
        if (strstr(line, "\"summary\"") || last) {
            cJSON_Delete(last);
            last = cJSON_Parse(line);
        }
    free(line);
    if (file)
        fclose(file);
    const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(last, "event"));
    const bool good = kind && strcmp(kind, "summary") == 0 && metrics_of(last) && json_save(last, path);
    cJSON_Delete(last);
    return good;
}
