/* SPDX-License-Identifier: Apache-2.0 */
/* Places in one arena for blocks that live from one step to another. */
#ifndef MEST_RUNTIME_PLACE_H
#define MEST_RUNTIME_PLACE_H

#include "runtime/alloc.h"

typedef struct mest_span {
    int32_t id;            /* the caller's; ties are broken by it */
    int32_t first, last;   /* steps, both inclusive */
    size_t bytes, offset;  /* offset: the result */
} mest_span;

/* Sets offsets so that spans alive at the same time do not overlap, in as little memory as a few greedy orders find; *end is the size of the
 * arena. Offsets are multiples of what the sizes are multiples of. `bound`: a size that cannot be beaten, where the search stops. The order of
 * `spans` changes. */
mest_status mest_place(mest_heap *heap, mest_span *spans, int32_t n, size_t bound, size_t *end, mest_error *err);

#endif
