/* SPDX-License-Identifier: Apache-2.0 */
/* Allocator for protobuf-c. Small pieces come from blocks and are never returned; large ones (arrays, the scanner's own tables) are
 * returned at once. Everything counts against one cap, so that a small file cannot ask for much. */
#include "importers/onnx.h"

enum { BLOCK = 65536 - 64, LARGE = 4096, HEADER = 16 };

struct arena_block {
    struct arena_block *next;
    size_t size;
};

struct arena_large {
    struct arena_large *next, *prev;
    size_t size, pad;
    size_t zero, marker; /* the last 16 bytes are the header every piece has: its second word says how it was made */
};

static void *take(mest_onnx_arena *a, size_t size)
{
    if (size > a->cap - a->used) {
        a->over = true;
        return NULL;
    }
    void *p = mest_alloc(a->heap, 1, size);
    a->failed |= !p;
    if (p)
        a->used += size;
    return p;
}

static void *arena_alloc(void *user, size_t size)
{
    mest_onnx_arena *a = user;
    if (size > a->cap) {
        a->over = true;
        return NULL;
    }
    if (size >= LARGE) {
        struct arena_large *l = take(a, size + sizeof *l);
        if (!l)
            return NULL;
        *l = (struct arena_large){ .next = a->large, .size = size + sizeof *l, .marker = 1 };
        if (l->next)
            l->next->prev = l;
        a->large = l;
        return l + 1;
    }
    size_t want = ((size + 15) & ~(size_t)15) + HEADER;
    if (want > a->left) {
        struct arena_block *b = take(a, BLOCK);
        if (!b)
            return NULL;
        b->next = a->blocks;
        b->size = BLOCK;
        a->blocks = b;
        a->left = BLOCK - sizeof *b;
    }
    char *p = (char *)a->blocks + BLOCK - a->left;
    a->left -= want;
    memset(p, 0, HEADER);
    return p + HEADER;
}

static void arena_release(void *user, void *piece)
{
    mest_onnx_arena *a = user;
    if (!piece || ((size_t *)piece)[-1] == 0)
        return;
    struct arena_large *l = (struct arena_large *)piece - 1;
    if (l->next)
        l->next->prev = l->prev;
    if (l->prev)
        l->prev->next = l->next;
    else
        a->large = l->next;
    a->used -= l->size;
    mest_free(a->heap, l, 1, l->size);
}

void mest_onnx_arena_init(mest_onnx_arena *a, mest_heap *heap, size_t cap)
{
    memset(a, 0, sizeof *a);
    a->heap = heap;
    a->cap = cap;
    a->allocator = (ProtobufCAllocator){ arena_alloc, arena_release, a };
}

void mest_onnx_arena_free(mest_onnx_arena *a)
{
    while (a->large) {
        struct arena_large *next = a->large->next;
        mest_free(a->heap, a->large, 1, a->large->size);
        a->large = next;
    }
    while (a->blocks) {
        struct arena_block *next = a->blocks->next;
        mest_free(a->heap, a->blocks, 1, a->blocks->size);
        a->blocks = next;
    }
    a->left = a->used = 0;
}
