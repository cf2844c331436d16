/* SPDX-License-Identifier: Apache-2.0 */
/* Files mapped for reading. */
#ifndef MEST_RUNTIME_MAPFILE_H
#define MEST_RUNTIME_MAPFILE_H

#include "runtime/status.h"

typedef struct mest_mapfile {
    const uint8_t *bytes; /* NULL when the file is empty */
    size_t size;
    int kept; /* descriptor + 1 of a file that stays open; 0: none */
} mest_mapfile;

/* Maps a regular file. MEST_E_IO with the path and the system's reason; *map is zeroed then. */
mest_status mest_mapfile_open(mest_mapfile *map, const char *path, mest_error *err);
/* The same, and the file stays open for mest_mapfile_read. */
mest_status mest_mapfile_open_kept(mest_mapfile *map, const char *path, mest_error *err);
/* Bytes [at, at + n) of a file that was kept open, without touching the mapping: a page that is touched brings up to 2 MiB of the file into the
 * process, and a file that was cut short meanwhile is MEST_E_IO here and a signal there. */
mest_status mest_mapfile_read(const mest_mapfile *map, size_t at, size_t n, void *to, const char *path, mest_error *err);
/* Takes the pages that were read out of the process (they stay in the system's cache): what is mapped of a large data set does not count
 * as our memory between two batches. Small files are left alone. */
void mest_mapfile_forget(const mest_mapfile *map);
/* Closing a zeroed one is fine. */
void mest_mapfile_close(mest_mapfile *map);

#endif
