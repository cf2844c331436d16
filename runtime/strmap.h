/* SPDX-License-Identifier: Apache-2.0 */
/* Map from text to a number >= 0, in region memory. Keys are borrowed and must outlive the map. */
#ifndef MEST_RUNTIME_STRMAP_H
#define MEST_RUNTIME_STRMAP_H

#include "runtime/alloc.h"

typedef struct mest_strmap {
    mest_region *region;
    struct mest_strmap_slot *slots; /* a power of two, at most half full */
    uint32_t n, cap;
} mest_strmap;

static inline void mest_strmap_init(mest_strmap *map, mest_region *region) { *map = (mest_strmap){ .region = region }; }
/* -1 if the key is not there. */
int32_t mest_strmap_get(const mest_strmap *map, const char *key);
/* Adds or replaces. False when out of memory. */
bool mest_strmap_put(mest_strmap *map, const char *key, int32_t value);

#endif
