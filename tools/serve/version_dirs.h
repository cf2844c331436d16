/* SPDX-License-Identifier: Apache-2.0 */
/* version_dirs.h - the folder of a model: MODELS/NAME/N/model.onnx for N = 1, 2, ..., and MODELS/NAME/current with the number of the version that
 * answers (without it the largest does). Folders appear whole or not at all; a power cut leaves nothing but a name that begins with a dot. */
#ifndef TOOLS_SERVE_VERSION_DIRS_H
#define TOOLS_SERVE_VERSION_DIRS_H

#include <stdint.h>

#include "mest/serve.h"
#include "serve/fault.h"

enum { MAX_DIRS = 4096, DIR_PATH = 3500 };

/* Numbers of the versions in ascending order; returns how many, at most MAX_DIRS of the largest. */
int version_dirs_list(const char *folder, int64_t ids[MAX_DIRS]);
/* Which version answers after a start; 0: the folder has none; -1: `current` cannot be read or names none that is there. */
int64_t version_dirs_current(const char *folder);
bool version_dirs_set_current(const char *folder, int64_t id, fault *f);
/* Where there is no `current` yet, makes it say `id`. */
bool version_dirs_settle(const char *folder, int64_t id, fault *f);
/* Writes the snapshot, which is version `id`, with `facts` (JSON) beside it as version.json: the sign that training made it. */
bool version_dirs_save(const char *folder, int64_t id, const mest_snapshot *snapshot, const char *facts, fault *f);
/* Removes the oldest versions that training made until `keep` of those are left; `current` and `base` stay. */
void version_dirs_prune(const char *folder, int64_t keep, int64_t current, int64_t base);
/* Removes what interrupted saves left; for whoever has the folder for itself. */
void version_dirs_clean(const char *folder);
/* The facts of version `id`, NULL if there are none; to be freed. */
char *version_dirs_facts(const char *folder, int64_t id);
bool sync_folder(const char *folder);

#endif
