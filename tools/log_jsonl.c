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

const log_form log_jsonl = {.name = "jsonl", .file_name = file_name, .event = event};
