/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "runtime/oneline.h"

/* Large blocks are mappings of their own: what is given back is gone from the process at once, and nothing is lost to holes. The C library
 * does the same below a threshold that it raises as it goes. Sanitizers want to see every block. */
#if defined(__SANITIZE_ADDRESS__)
enum { OWN_MAPPINGS = 0 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
enum { OWN_MAPPINGS = 0 };
#else
enum { OWN_MAPPINGS = 1 };
#endif
#else
enum { OWN_MAPPINGS = 1 };
#endif
enum { MAPPING_BYTES = 256 << 10, PAGE_BYTES = 4096 /* the least there is; larger pages align more */ };

static void *default_allocate(void *user, size_t size, size_t align)
{
    (void)user;
    if (OWN_MAPPINGS && size >= MAPPING_BYTES) {
        if (align > PAGE_BYTES)
            return NULL;
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void default_release(void *user, void *memory, size_t size)
{
    (void)user;
    if (OWN_MAPPINGS && size >= MAPPING_BYTES)
        munmap(memory, size);
    else
        free(memory);
}

void mest_allocator_default(mest_allocator *allocator)
{
    *allocator = (mest_allocator){.struct_size = sizeof *allocator, .allocate = default_allocate, .release = default_release};
}

mest_status mest_heap_init(mest_heap *heap, const mest_allocator *allocator, const mest_logger *logger, mest_error *err)
{
    memset(heap, 0, sizeof *heap);
    if (allocator && (allocator->allocate || allocator->release)) {
        MEST_CHECK(mest_take_options(&heap->allocator, sizeof heap->allocator, allocator) && heap->allocator.allocate && heap->allocator.release, err,
                   MEST_E_ARGUMENT, "allocator: struct_size, allocate and release must all be set");
    } else {
        mest_allocator_default(&heap->allocator);
    }
    if (logger && logger->log) /* a zeroed one is silent */
        MEST_CHECK(mest_take_options(&heap->logger, sizeof heap->logger, logger), err, MEST_E_ARGUMENT, "logger: struct_size is not set");
    return MEST_OK;
}

void mest_heap_init_child(mest_heap *heap, mest_heap *parent)
{
    memset(heap, 0, sizeof *heap);
    heap->allocator = parent->allocator;
    heap->logger = parent->logger;
    heap->parent = parent;
}

static void count_bytes(mest_heap *heap, int64_t bytes)
{
    for (; heap; heap = heap->parent) {
        int64_t now = atomic_fetch_add(&heap->current_bytes, bytes) + bytes;
        int64_t peak = atomic_load(&heap->peak_bytes);
        while (now > peak && !atomic_compare_exchange_weak(&heap->peak_bytes, &peak, now))
            ;
        if (bytes > 0)
            atomic_fetch_add(&heap->allocations, 1);
    }
}

void *mest_alloc(mest_heap *heap, size_t n, size_t size)
{
    size_t bytes;
    if (!mest_mul(n, size, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    if (bytes == 0)
        bytes = 1;
    void *p = heap->allocator.allocate(heap->allocator.user, bytes, MEST_ALIGN);
    if (!p)
        return NULL;
    count_bytes(heap, (int64_t)bytes);
    return p;
}

void *mest_calloc(mest_heap *heap, size_t n, size_t size)
{
    void *p = mest_alloc(heap, n, size);
    if (p)
        memset(p, 0, n * size);
    return p;
}

void mest_free(mest_heap *heap, void *memory, size_t n, size_t size)
{
    if (!memory)
        return;
    size_t bytes = n * size;
    if (bytes == 0)
        bytes = 1;
    count_bytes(heap, -(int64_t)bytes);
    heap->allocator.release(heap->allocator.user, memory, bytes);
}

void mest_logf(mest_heap *heap, mest_log_level level, const char *format, ...)
{
    if (!heap->logger.log)
        return;
    char text[1024];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    mest_one_line(text);
    heap->logger.log(heap->logger.user, level, text);
}

struct mest_region_block {
    mest_region_block *next;
    size_t size, used;
    /* 24 bytes of header are rounded up so that the payload stays 16-byte aligned */
    size_t pad;
};

void mest_alloc_large_pages(const mest_heap *heap, void *memory, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t)2 << 20, from = ((uintptr_t)memory + page - 1) / page * page, to = ((uintptr_t)memory + bytes) / page * page;
    if (heap->allocator.allocate == default_allocate && bytes >= 4 * page && from < to)
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE); /* a wish: what it cannot have is as well without */
#else
    (void)heap, (void)memory, (void)bytes;
#endif
}

void mest_alloc_trim(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

void mest_region_init(mest_region *region, mest_heap *heap)
{
    region->heap = heap;
    region->blocks = NULL;
}

void *mest_region_alloc(mest_region *region, size_t n, size_t size)
{
    size_t bytes;
    if (!mest_mul(n, size, &bytes) || bytes > SIZE_MAX / 4)
        return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    mest_region_block *b = region->blocks;
    if (!b || b->size - b->used < bytes) {
        size_t want = bytes > 16000 ? bytes : 16000;
        b = mest_alloc(region->heap, 1, sizeof *b + want);
        if (!b)
            return NULL;
        b->size = want;
        b->used = 0;
        b->next = region->blocks;
        region->blocks = b;
    }
    char *p = (char *)(b + 1) + b->used;
    b->used += bytes;
    memset(p, 0, bytes);
    return p;
}

char *mest_region_strdup(mest_region *region, const char *text)
{
    size_t n = strlen(text) + 1;
    char *p = mest_region_alloc(region, n, 1);
    if (p)
        memcpy(p, text, n);
    return p;
}

char *mest_region_printf(mest_region *region, const char *format, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return mest_region_strdup(region, text);
}

void *mest_region_grow(mest_region *region, void **array, int32_t n, int32_t *cap, size_t size)
{
    int32_t want = *cap ? *cap * 2 : 16;
    while (want <= n)
        want *= 2;
    void *p = mest_region_alloc(region, (size_t)want, size);
    if (!p)
        return NULL;
    if (*cap)
        memcpy(p, *array, (size_t)*cap * size);
    *array = p;
    *cap = want;
    return p;
}

void mest_region_free(mest_region *region)
{
    mest_region_block *b = region->blocks;
    while (b) {
        mest_region_block *next = b->next;
        mest_free(region->heap, b, 1, sizeof *b + b->size);
        b = next;
    }
    region->blocks = NULL;
}
