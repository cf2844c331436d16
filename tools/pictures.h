/* SPDX-License-Identifier: Apache-2.0 */
/* pictures.h - what --report shows of a run beside its log, kept in --output-dir while model and data are open.
 *
 *   pattern-start.json, pattern-end.json   where the weights of each sparse layer are, as gray cells
 *   gallery.json                           samples that were forgotten most often, and some that never were, as pixels
 *
 * Each file appears whole or not at all. They are extras: when memory runs out one is left out, and training goes on.
 */
#ifndef TOOLS_PICTURES_H
#define TOOLS_PICTURES_H

#include "tool.h"

/* The patterns of all sparse layers as they are now, to pattern-WHEN.json. An exit code; does nothing without --output-dir. */
int pictures_patterns(tool *t, const char *when);
/* The path that the scheduler "forgetting" shall write its counts to, "" if there is none that its options can express. */
const char *pictures_counts(const tool *t, char *path, size_t size);
/* Reads those counts, if they were written, and saves the gallery. An exit code. */
int pictures_gallery(tool *t);

#endif
