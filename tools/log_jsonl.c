/* SPDX-License-Identifier: Apache-2.0 */
/* One JSON object a line, log.jsonl. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "logs.h"

static void file_name(char *text, size_t size) { snprintf(text, size, "log.jsonl"); }

static bool event(log_file *file, const cJSON *object)
{
    char *text = cJSON_PrintUnformatted(object);
    size_t n = text ? strlen(text) : 0;
    bool good = false;
    char *line = text ? malloc(n + 1) : NULL;
    if (line) {
        memcpy(line, text, n);
        line[n] = '\n';
        good = log_write(file, line, n + 1);
    }
    free(line);
    cJSON_free(text);
    return good;
}

const log_form log_jsonl = {.name = "jsonl", .file_name = file_name, .event = event};
