/* SPDX-License-Identifier: Apache-2.0 */
/* Layout of checkpoint files, shared by the two sides (see checkpoint.h for the picture). */
#ifndef MEST_RUNTIME_CHECKPOINT_LAYOUT_H
#define MEST_RUNTIME_CHECKPOINT_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/checkpoint.h"

#define MEST_CHECKPOINT_MAGIC "MESTCKPT"
#define MEST_CHECKPOINT_END "MESTDONE"
#define MEST_CHECKPOINT_PREV ".prev"
#define MEST_CHECKPOINT_BYTE_ORDER 0x01020304u
#define MEST_CHECKPOINT_ALIGN 64u

typedef struct mest_checkpoint_header {
    char magic[8];
    uint32_t version, byte_order;
    uint8_t zero[48];
} mest_checkpoint_header;

typedef struct mest_checkpoint_entry {
    char name[MEST_SECTION_NAME_MAX + 1];
    uint64_t offset, bytes;
    uint32_t crc, zero;
} mest_checkpoint_entry;

typedef struct mest_checkpoint_trailer {
    uint64_t directory, file_bytes;
    uint32_t n_sections, directory_crc;
    uint8_t zero[28];
    uint32_t crc; /* of everything above it */
    char magic[8];
} mest_checkpoint_trailer;

_Static_assert(sizeof(mest_checkpoint_header) == 64 && sizeof(mest_checkpoint_trailer) == 64 && sizeof(mest_checkpoint_entry) == 88 &&
                   offsetof(mest_checkpoint_trailer, crc) == 52,
               "the layout has no holes");

static inline uint64_t mest_checkpoint_padded(uint64_t bytes)
{
    return (bytes + MEST_CHECKPOINT_ALIGN - 1) & ~(uint64_t)(MEST_CHECKPOINT_ALIGN - 1);
}

#endif
