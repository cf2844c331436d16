/* SPDX-License-Identifier: Apache-2.0 */
/* Files mapped for reading. */
#ifndef MEST_RUNTIME_MAPFILE_H
#define MEST_RUNTIME_MAPFILE_H

#include "runtime/status.h"

typedef struct mest_mapfile {
    const uint8_t *bytes; /* NULL when the file is empty */
    size_t size;
} mest_mapfile;

/* Maps a regular file. MEST_E_IO with the path and the system's reason; *map is zeroed then. */
mest_status mest_mapfile_open(mest_mapfile *map, const char *path, mest_error *err);
/* Takes the pages that were read out of the process (they stay in the system's cache): what is mapped of a large data set does not count
 * as our memory between two batches. Small files are left alone. */
void mest_mapfile_forget(const mest_mapfile *map);
/* Closing a zeroed one is fine. */
void mest_mapfile_close(mest_mapfile *map);

#endif
