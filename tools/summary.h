/* SPDX-License-Identifier: Apache-2.0 */
/* summary.h - summary.json of a run: is it whole, and what if not; and is the model the one it speaks of. */
#ifndef TOOLS_SUMMARY_H
#define TOOLS_SUMMARY_H

#include <cjson/cJSON.h>
#include <stdbool.h>

/* The summary, *metrics are those of the end of the run; NULL: the file is not there, or damaged. The caller deletes it. */
cJSON *summary_read(const char *path, const cJSON **metrics);
/* Writes it again from the last event of log.jsonl beside it, which is the same object; false: there is none. */
bool summary_restore(const char *path);

/* Notes size and checksum of the run's model. */
void summary_add_model(cJSON *summary, const char *path);
/* Is the file at `path` the model that belongs to the summary, byte for byte? Of a summary that notes neither: can it be loaded? */
bool summary_fits(const cJSON *summary, const char *path);

#endif
