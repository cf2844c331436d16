/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of 32-bit keys that can be read again and from places within: what a threshold is sought in. */
#ifndef MEST_SPARSE_KEYS_H
#define MEST_SPARSE_KEYS_H

#include "sparse/piece.h"

typedef struct mest_keys mest_keys;
struct mest_keys {
    int64_t total;                     /* keys, in all parts */
    int64_t parts;                     /* places to begin at; 0: only the start */
    int64_t room;                      /* keys that may be kept in memory all at once; 0: none, and only a large stream may take memory at all */
    void (*seek)(void *self, int64_t part); /* part 0 is the start */
    /* The next keys, at most MEST_PIECE; after a seek those of that part. *n 0: the end. */
    mest_status (*next)(void *self, uint32_t *key, int64_t *n, mest_error *err);
    void *self;
    mest_heap *heap;
};

#endif
