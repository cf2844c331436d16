/* SPDX-License-Identifier: Apache-2.0 */
#include "logs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MEST_LOG(name) extern const log_form log_##name;
#include "logs.def"
#undef MEST_LOG

static const log_form *const forms[] = {
#define MEST_LOG(name) &log_##name,
#include "logs.def"
#undef MEST_LOG
    NULL,
};

_Static_assert(sizeof forms / sizeof *forms <= LOG_FORMS + 1, "LOG_FORMS is less than the lines of logs.def");

const log_form *log_form_at(int index) { return forms[index]; }

bool log_in_list(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == n && memcmp(at, name, n) == 0)
            return true;
    return false;
}

bool log_unknown(const char *list, char *word, size_t size)
{
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',') {
        snprintf(word, size, "%.*s", (int)strcspn(at, ","), at);
        bool known = false;
        for (int i = 0; forms[i]; i++)
            known = known || strcmp(forms[i]->name, word) == 0;
        if (!known)
            return true;
    }
    return false;
}

const char *log_known(char *text, size_t size)
{
    size_t n = 0;
    *text = 0;
    for (int i = 0; forms[i] && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%s", i ? ", " : "", forms[i]->name);
    return text;
}

bool log_write(log_file *file, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n > 0) {
        ssize_t done = write(file->fd, at, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return false;
        at += done;
        n -= (size_t)done;
    }
    return true;
}

bool log_number(const cJSON *event, const char *object, const char *key, double *value)
{
    const cJSON *in = object ? cJSON_GetObjectItemCaseSensitive(event, object) : event;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(in, key);
    if (!cJSON_IsNumber(item))
        return false;
    *value = item->valuedouble;
    return true;
}

bool log_rate(const cJSON *event, double *value)
{
    double samples, seconds;
    if (!log_number(event, "train", "samples", &samples) || !log_number(event, "train", "seconds", &seconds) || seconds <= 0)
        return false;
    *value = samples / seconds;
    return true;
}
