/* SPDX-License-Identifier: Apache-2.0 */
#include "summary.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "json.h"
#include "whole_file.h"

/* What every summary of a run had from the first: anything else that is JSON is none. */
static bool is_summary(const cJSON *object)
{
    static const char *const numbers[] = {"epochs", "steps", "seconds", "planned_bytes", "output_file_bytes", "sparsity"};
    const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "event"));
    bool good = kind && strcmp(kind, "summary") == 0 && cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(object, "weights"));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        good = good && cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(object, numbers[i]));
    return good;
}

static const cJSON *metrics_of(const cJSON *summary)
{
    const cJSON *metrics = cJSON_GetObjectItemCaseSensitive(summary, "after");
    return metrics ? metrics : cJSON_GetObjectItemCaseSensitive(summary, "train");
}

cJSON *summary_read(const char *path, const cJSON **metrics)
{
    char *text = whole_read(path, 64 << 20);
    cJSON *summary = text ? cJSON_Parse(text) : NULL;
    free(text);
    *metrics = metrics_of(summary);
    if (*metrics && is_summary(summary))
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
    const bool good = is_summary(last) && metrics_of(last) && json_save(last, path);
    cJSON_Delete(last);
    return good;
}

/* ---- the model that belongs to it ---- */

/* CRC-32 as of zip and PNG. */
static uint32_t checksum(uint32_t crc, const unsigned char *at, size_t n)
{
    static uint32_t table[256];
    for (uint32_t i = 0; i < 256 && !table[255]; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
    }
    crc = ~crc;
    for (size_t i = 0; i < n; i++)
        crc = crc >> 8 ^ table[(crc ^ at[i]) & 255];
    return ~crc;
}

/* Size and checksum, in the form of the summary; false: no regular file that can be read. */
static bool measure(const char *path, int64_t *bytes, char text[16])
{
    static unsigned char block[65536];
    const char *why;
    uint32_t crc = 0;
    FILE *file = plain_open(path, &why);
    if (!file)
        return false;
    *bytes = 0;
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0; *bytes += (int64_t)n)
        crc = checksum(crc, block, n);
    const bool good = !ferror(file);
    fclose(file);
    snprintf(text, 16, "%08" PRIx32, crc);
    return good;
}

void summary_add_model(cJSON *summary, const char *path)
{
    char text[16];
    int64_t bytes;
    if (!measure(path, &bytes, text))
        return;
    json_number(summary, "model_bytes", (double)bytes);
    json_text(summary, "model_crc32", text);
}

/* A model of a version that noted no checksum is good if it can be loaded. */
static bool loads(const char *path)
{
    struct stat st;
    mest_model *model = NULL;
    mest_model_options options;
    mest_model_options_init(&options);
    const bool good = stat(path, &st) == 0 && S_ISREG(st.st_mode) && mest_model_load(&model, path, &options, NULL) == MEST_OK;
    mest_model_destroy(model);
    return good;
}

bool summary_fits(const cJSON *summary, const char *path)
{
    char text[16];
    int64_t bytes;
    double noted;
    const char *crc = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(summary, "model_crc32"));
    if (!crc || !log_number(summary, NULL, "model_bytes", &noted))
        return loads(path);
    return measure(path, &bytes, text) && (double)bytes == noted && strcmp(crc, text) == 0;
}
