/* SPDX-License-Identifier: Apache-2.0 */
/* logs.h - the log of a run in --output-dir, in the forms of --log. Each form gets every event as the JSON object that --json prints.
 *
 *   log_form   one form, a file tools/log_NAME.c and a line in logs.def
 *   log_place  what a line of a log says: which event, and where in the run
 *   log_file   an open log: one write a record, so that a record is whole or missing whenever the process ends
 */
#ifndef TOOLS_LOGS_H
#define TOOLS_LOGS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LOG_FORMS = 8 };

typedef struct log_file {
    int fd;        /* -1: not open */
} log_file;

typedef struct log_place {
    char event[16];
    int64_t epoch, step;
} log_place;

typedef struct log_form {
    const char *name;    /* as in --log */
    /* The file's name in the folder. */
    void (*file_name)(char *text, size_t size);
    bool keep;           /* a file of its own for each process: nothing to go on with, nothing to empty */
    bool (*begin)(log_file *file); /* what stands first in a fresh file; NULL: nothing */
    /* `line` is the event as one line of JSON, without its end. event is NULL, and the line says so, when memory ran out. */
    bool (*event)(log_file *file, const cJSON *event, const char *line);
    bool (*place)(const char *line, log_place *place); /* false: the line says none. NULL with keep */
} log_form;

/* Number `index` of logs.def, NULL past the end. */
const log_form *log_form_at(int index);
/* Is the form in the comma-separated list? */
bool log_in_list(const char *list, const char *name);
/* The first word of the list that is no form, into `word`; false: all are. */
bool log_unknown(const char *list, char *word, size_t size);
/* "jsonl, csv, tensorboard"; returns text. */
const char *log_known(char *text, size_t size);

/* For a run that goes on from a checkpoint after so many epochs and steps: what was logged behind it leaves the file. False: errno says why. */
bool log_go_on(const log_form *form, log_file *file, const char *path, int64_t epochs, int64_t steps, const char *checkpoint);
/* All bytes or false, errno says why. */
bool log_write(log_file *file, const void *bytes, size_t n);
/* The number at event.KEY or event.OBJECT.KEY (object may be NULL); false when there is none. */
bool log_number(const cJSON *event, const char *object, const char *key, double *value);
/* Images per second of the epoch so far: train.samples / train.seconds. */
bool log_rate(const cJSON *event, double *value);

#endif
