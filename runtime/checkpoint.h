/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoint files: named sections of bytes, each with a checksum. What the sections hold is their writer's business.
 *
 *   mest_checkpoint_writer  begin / append / end for each section, then commit; nothing is visible before commit
 *   mest_checkpoint         an open file; every checksum was verified before anything is handed out
 *   mest_section            a cursor over one section's bytes
 *
 *   file       header  section*  directory  trailer            all numbers in the byte order of the header's mark (little-endian)
 *   header     64 bytes: "MESTCKPT", version u32, byte order mark u32, zeros
 *   section    payload, then zeros up to a multiple of 64: payloads start aligned
 *   directory  one entry a section: name char[64], offset u64, bytes u64, CRC-32 of the payload u32, zero u32
 *   trailer    64 bytes: directory offset u64, file bytes u64, sections u32, CRC-32 of the directory u32, zeros, CRC-32 of the trailer's
 *              first 52 bytes u32, "MESTDONE"
 * A file that was cut, or in which any bit was changed, is MEST_E_FORMAT with the file's name and the section's.
 *
 * Commit keeps the checkpoint that stood at PATH as PATH.prev (only if it is whole: a damaged one must not push out a good one). At every
 * moment PATH or PATH.prev is a whole checkpoint, so a kill or a power cut leaves something to resume from.
 */
#ifndef MEST_RUNTIME_CHECKPOINT_H
#define MEST_RUNTIME_CHECKPOINT_H

#include "runtime/alloc.h"

#define MEST_CHECKPOINT_VERSION 1u
#define MEST_SECTION_NAME_MAX 63

typedef struct mest_checkpoint_writer mest_checkpoint_writer;

/* MEST_E_IO, MEST_E_NOMEM. */
mest_status mest_checkpoint_create(mest_checkpoint_writer **writer, mest_heap *heap, const char *path, mest_error *err);
/* Starts a section; the name is unique in the file, 1..MEST_SECTION_NAME_MAX bytes. One section is open at a time. */
mest_status mest_checkpoint_begin(mest_checkpoint_writer *writer, const char *name, mest_error *err);
mest_status mest_checkpoint_append(mest_checkpoint_writer *writer, const void *bytes, size_t n, mest_error *err);
mest_status mest_checkpoint_end(mest_checkpoint_writer *writer, mest_error *err);
/* begin + append + end. */
mest_status mest_checkpoint_put(mest_checkpoint_writer *writer, const char *name, const void *bytes, size_t n, mest_error *err);
/* Makes the file durable and visible, keeps the old one as PATH.prev. Frees the writer in any case. On failure PATH is as it was. */
mest_status mest_checkpoint_commit(mest_checkpoint_writer *writer, mest_error *err);
/* Gives up; nothing is left behind. NULL is fine. */
void mest_checkpoint_abort(mest_checkpoint_writer *writer);

typedef struct mest_checkpoint mest_checkpoint;

/* Maps the file and verifies all of it. MEST_E_IO, MEST_E_FORMAT, MEST_E_NOMEM. */
mest_status mest_checkpoint_open(mest_checkpoint **file, mest_heap *heap, const char *path, mest_error *err);
/* The same; when PATH cannot be read or is damaged, PATH.prev is taken instead, with a warning to the heap's logger. When both fail, the
 * error is the one of PATH. */
mest_status mest_checkpoint_open_latest(mest_checkpoint **file, mest_heap *heap, const char *path, mest_error *err);
void mest_checkpoint_close(mest_checkpoint *file);
const char *mest_checkpoint_path(const mest_checkpoint *file); /* of the file that was opened; lent until close */
int mest_checkpoint_count(const mest_checkpoint *file);
/* Name of section `index` (file order) and its length; NULL past the end. */
const char *mest_checkpoint_section(const mest_checkpoint *file, int index, uint64_t *bytes);

typedef struct mest_section {
    const mest_checkpoint *file;
    const char *name;
    const uint8_t *bytes;
    size_t size, at;
} mest_section;

/* MEST_E_FORMAT when there is no such section. mest_section_exists for optional ones. */
mest_status mest_section_find(mest_section *section, const mest_checkpoint *file, const char *name, mest_error *err);
bool mest_section_exists(const mest_checkpoint *file, const char *name);
/* The next n bytes. MEST_E_FORMAT naming file and section when fewer are left. */
mest_status mest_section_read(mest_section *section, void *bytes, size_t n, mest_error *err);
/* The next n bytes without a copy, valid until close; the payload's start is 64-byte aligned. */
mest_status mest_section_lend(mest_section *section, const void **bytes, size_t n, mest_error *err);
/* MEST_E_FORMAT when bytes are left over. */
mest_status mest_section_finish(const mest_section *section, mest_error *err);

#endif
