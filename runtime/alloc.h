/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the library.
 *
 *   mest_heap    the caller's allocator plus counters; one per model or data source, shared by what belongs to it
 *   mest_region  a bump allocator for metadata that is freed at once (graph names, attributes)
 *
 * Nothing else in the library calls malloc. Sizes are checked for overflow. Memory of mest_alloc is not cleared.
 */
#ifndef MEST_RUNTIME_ALLOC_H
#define MEST_RUNTIME_ALLOC_H

#include <stdarg.h>
#include <stdatomic.h>

#include "runtime/status.h"

#define MEST_ALIGN 64u /* every block: one cache line, one AVX-512 vector */

typedef struct mest_heap {
    mest_allocator allocator;
    mest_logger logger;
    _Atomic int64_t current_bytes, peak_bytes, allocations;
    struct mest_heap *parent; /* its counters include these; NULL: none */
} mest_heap;

/* allocator and logger may be NULL. A heap is embedded in its owner and needs no destroy. */
mest_status mest_heap_init(mest_heap *heap, const mest_allocator *allocator, const mest_logger *logger, mest_error *err);

/* A heap with counters of its own whose memory the parent's counters include; same allocator, same logger. */
void mest_heap_init_child(mest_heap *heap, mest_heap *parent);

/* n * size bytes, aligned to MEST_ALIGN; NULL when out of memory or on overflow. n * size == 0 gives a valid pointer. */
void *mest_alloc(mest_heap *heap, size_t n, size_t size);
void *mest_calloc(mest_heap *heap, size_t n, size_t size);
/* n and size as given to mest_alloc. NULL is fine. */
void mest_free(mest_heap *heap, void *memory, size_t n, size_t size);
/* Gives memory that the C library keeps though nobody uses it back to the system, so that the process can be measured. */
void mest_alloc_trim(void);
/* Asks the system for large pages in a big block that is about to be used all over: fewer misses of the address cache. Does nothing for small
 * blocks, where the system has no such pages, and for memory of the caller's allocator. */
void mest_alloc_large_pages(const mest_heap *heap, void *memory, size_t bytes);

/* Allocates into a typed pointer or returns MEST_E_NOMEM with the number of bytes wanted and what for. */
#define MEST_NEW(heap, ptr, n, err, what)                                                                     \
    do {                                                                                                      \
        (ptr) = mest_alloc((heap), (size_t)(n), sizeof *(ptr));                                               \
        MEST_CHECK((ptr) != NULL, (err), MEST_E_NOMEM, "%s: no memory for %zu x %zu bytes", (what), (size_t)(n), sizeof *(ptr)); \
    } while (0)

void mest_logf(mest_heap *heap, mest_log_level level, const char *format, ...) MEST_PRINTF(3, 4);

/* Overflow-checked product; false on overflow. */
static inline bool mest_mul(size_t a, size_t b, size_t *product) { return !__builtin_mul_overflow(a, b, product); }

typedef struct mest_region_block mest_region_block;
typedef struct mest_region {
    mest_heap *heap;
    mest_region_block *blocks;
} mest_region;

void mest_region_init(mest_region *region, mest_heap *heap);
void *mest_region_alloc(mest_region *region, size_t n, size_t size); /* zeroed, 16-byte aligned; NULL when out of memory */
char *mest_region_strdup(mest_region *region, const char *text);
char *mest_region_printf(mest_region *region, const char *format, ...) MEST_PRINTF(2, 3);
void mest_region_free(mest_region *region); /* frees everything; the region may be used again */

/* Grows *array (region memory, the old copy stays until the region is freed) so that index n is valid. NULL when out of memory. */
#define MEST_REGION_GROW(region, array, n, cap) \
    ((n) < (cap) ? (void *)(array) : mest_region_grow((region), (void **)&(array), (n), &(cap), sizeof *(array)))
void *mest_region_grow(mest_region *region, void **array, int32_t n, int32_t *cap, size_t size);

#endif
