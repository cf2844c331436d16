/* SPDX-License-Identifier: Apache-2.0 */
/* summary.h - summary.json of a run: is it whole, and what if not. */
#ifndef TOOLS_SUMMARY_H
#define TOOLS_SUMMARY_H

#include <cjson/cJSON.h>
#include <stdbool.h>

/* The summary, *metrics are those of the end of the run; NULL: the file is not there, or damaged. The caller deletes it. */
cJSON *summary_read(const char *path, const cJSON **metrics);
/* Writes it again from the last event of log.jsonl beside it, which is the same object; false: there is none. */
bool summary_restore(const char *path);

#endif
