/* SPDX-License-Identifier: Apache-2.0 */
/* json.h - events as JSON, one object a line: to stdout with --json, and to log.jsonl of --output-dir. */
#ifndef TOOLS_JSON_H
#define TOOLS_JSON_H

#include <cjson/cJSON.h>

#include "tool.h"

/* A new object with "event": name. NULL when out of memory; everything below takes NULL and does nothing. */
cJSON *json_event(const char *name);
/* Adds a number; what JSON cannot write (NaN, infinite) becomes null. */
void json_number(cJSON *object, const char *key, double value);
void json_text(cJSON *object, const char *key, const char *text); /* bytes that are not UTF-8 become '?'; NULL: null */
void json_bool(cJSON *object, const char *key, bool value);
void json_shape(cJSON *object, const char *key, const int64_t *dim, int rank); /* -1, symbolic: null */
void json_metrics(cJSON *object, const char *key, const mest_metrics *metrics);
void json_plan(cJSON *object, const mest_plan_info *plan); /* work and memory: macs, and bytes of each kind */

/* Does anybody want events? Spares building them. */
bool json_wanted(const tool *t);
/* Writes the object as one line where it is wanted (to logs when the run's folder is open) and frees it. False: it could not be written to the log or to stdout. */
bool json_emit(tool *t, cJSON *object);
/* Writes the object, indented, to a file that appears whole or not at all; does not free it. */
bool json_save(const cJSON *object, const char *path);

#endif
