/* SPDX-License-Identifier: Apache-2.0 */
/* The log of a run that goes on. What was logged after the checkpoint happens again, and would stand twice: the log is cut behind the
 * event of that checkpoint. Position alone does not tell: the mutation before a step and the checkpoint after the step before have the
 * same one. Where the event is missing (the process died between the two), nothing was logged behind it, and it is written now. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "logs.h"

/* How much of the file stays, -1: it cannot be read. */
static int64_t find_end(const log_form *form, const char *path, int64_t epochs, int64_t steps, bool *marked)
{
    FILE *file = fopen(path, "rb");
    char *line = NULL;
    size_t room = 0;
    int64_t at = 0, end = -1, beyond = -1;
    *marked = false;
    if (!file)
        return -1;
    for (ssize_t n; (n = getline(&line, &room, file)) > 0 && line[n - 1] == '\n'; at += n) { /* a line without an end was not finished */
        log_place place;
        if (!form->place(line, &place))
            continue;
        if (strcmp(place.event, "checkpoint") == 0 && place.epoch == epochs && place.step == steps) {
            *marked = true;
            end = at + n;
        }
        if (beyond < 0 && place.step > steps)
            beyond = at;
    }
    const bool good = !ferror(file);
    free(line);
    fclose(file);
    return !good ? -1 : *marked ? end : beyond >= 0 ? beyond : at;
}

bool log_go_on(const log_form *form, log_file *file, const char *path, int64_t epochs, int64_t steps, const char *checkpoint)
{
    bool marked;
    const int64_t end = find_end(form, path, epochs, steps, &marked);
    if (end < 0 || ftruncate(file->fd, (off_t)end) != 0)
        return false;
    if (end == 0 && form->begin && !form->begin(file))
        return false;
    if (marked)
        return true;
    cJSON *event = json_event("checkpoint");
    json_number(event, "epoch", (double)epochs);
    json_number(event, "step", (double)steps);
    json_text(event, "text", checkpoint);
    char *line = event ? cJSON_PrintUnformatted(event) : NULL;
    const bool good = !line || form->event(file, event, line);
    cJSON_free(line);
    cJSON_Delete(event);
    return good;
}
