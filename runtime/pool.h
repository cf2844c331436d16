/* SPDX-License-Identifier: Apache-2.0 */
/* The threads behind mest_threads. Two implementations, chosen when the library is built (-Dpool): pthreadpool, which XNNPACK shares; and a
 * small one of our own, for builds with ThreadSanitizer, which cannot see how a library that was built without it synchronises. */
#ifndef MEST_RUNTIME_POOL_H
#define MEST_RUNTIME_POOL_H

#include <stddef.h>

typedef struct mest_pool mest_pool;

/* n threads, the calling one among them; NULL when they cannot be had. */
mest_pool *mest_pool_create(size_t n);
size_t mest_pool_threads(const mest_pool *pool);
/* fn(context, i) for i = 0..n-1 in any order and thread; returns when all are done. */
void mest_pool_run(mest_pool *pool, void (*fn)(void *context, size_t i), void *context, size_t n);
void mest_pool_destroy(mest_pool *pool);
/* What XNNPACK can use; NULL: the calling thread alone. */
struct pthreadpool *mest_pool_native(mest_pool *pool);

#endif
