/* SPDX-License-Identifier: Apache-2.0 */
/* Ascending lists of unit ids, packed: what remembers a pattern without holding a second one.
 *
 *   mest_unit_list   the differences of successive ids as little-endian base-128 numbers: one byte an id up to a gap of 127, so about a
 *                    byte a unit between 50 and 99 % sparsity, a quarter of an index
 */
#ifndef MEST_SPARSE_UNIT_LIST_H
#define MEST_SPARSE_UNIT_LIST_H

#include "sparse/format.h"

typedef struct mest_unit_list {
    mest_heap *heap;
    uint8_t *bytes;
    size_t size, used;
    int64_t n;              /* ids in it */
    int64_t last;           /* the greatest of them; -1: none */
} mest_unit_list;

/* Room for any `cap` distinct ids below `limit`; nothing is allocated later. An empty list. */
mest_status mest_unit_list_create(mest_unit_list *list, mest_heap *heap, int64_t cap, int64_t limit, mest_error *err);
void mest_unit_list_free(mest_unit_list *list);
void mest_unit_list_clear(mest_unit_list *list);
/* Appends an id greater than all before. False, and nothing changed, when the room is used up. */
bool mest_unit_list_put(mest_unit_list *list, int64_t unit);
/* Takes packed bytes as written by another list: n ascending ids below `limit`. MEST_E_FORMAT when they are not. */
mest_status mest_unit_list_load(mest_unit_list *list, const uint8_t *bytes, size_t size, int64_t n, int64_t limit, mest_error *err);

typedef struct mest_unit_reader {
    const uint8_t *at, *end;
    int64_t unit;           /* the last one read; -1 before the first */
} mest_unit_reader;

static inline mest_unit_reader mest_unit_list_read(const mest_unit_list *list)
{
    return (mest_unit_reader){list->bytes, list->bytes + list->used, -1};
}

/* The next id, INT64_MAX behind the last. */
static inline int64_t mest_unit_next(mest_unit_reader *r)
{
    if (r->at == r->end)
        return INT64_MAX;
    uint64_t gap = 0;
    int shift = 0;
    for (; *r->at & 0x80; shift += 7)
        gap |= (uint64_t)(*r->at++ & 0x7f) << shift;
    gap |= (uint64_t)*r->at++ << shift;
    r->unit += 1 + (int64_t)gap;
    return r->unit;
}

#endif
