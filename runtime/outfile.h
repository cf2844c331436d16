/* SPDX-License-Identifier: Apache-2.0 */
/* Files that appear whole or not at all: written under a temporary name in the same folder, fsynced, renamed, folder fsynced. */
#ifndef MEST_RUNTIME_OUTFILE_H
#define MEST_RUNTIME_OUTFILE_H

#include "runtime/alloc.h"

typedef struct mest_outfile mest_outfile;

/* MEST_E_IO with path and the system's reason. Nothing of `path` is touched before commit. Buffered; `binary` bytes only. */
mest_status mest_outfile_open(mest_outfile **file, mest_heap *heap, const char *path, mest_error *err);
mest_status mest_outfile_write(mest_outfile *file, const void *bytes, size_t n, mest_error *err);
uint64_t mest_outfile_size(const mest_outfile *file);  /* bytes written so far */
/* Flush and fsync, without publishing: after it only the rename can fail. */
mest_status mest_outfile_sync(mest_outfile *file, mest_error *err);
/* Flush, fsync, rename, fsync of the folder; closes the file in any case. */
mest_status mest_outfile_commit(mest_outfile *file, mest_error *err);
/* Removes the temporary file. NULL is fine. */
void mest_outfile_abort(mest_outfile *file);

/* fsync of a folder, so that renames in it are on disk. File systems that cannot do it are left alone. */
mest_status mest_sync_folder(const char *folder, mest_error *err);

#endif
