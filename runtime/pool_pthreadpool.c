/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/pool.h"

#include <pthreadpool.h>
#include <stdint.h>

/* A mest_pool is a pthreadpool by another name. */
mest_pool *mest_pool_create(size_t n) { return (mest_pool *)pthreadpool_create(n); }
size_t mest_pool_threads(const mest_pool *pool) { return pthreadpool_get_threads_count((pthreadpool_t)(void *)(uintptr_t)pool); }
void mest_pool_run(mest_pool *pool, void (*fn)(void *context, size_t i), void *context, size_t n)
{
    pthreadpool_parallelize_1d((pthreadpool_t)pool, fn, context, n, 0);
}
void mest_pool_destroy(mest_pool *pool) { pthreadpool_destroy((pthreadpool_t)pool); }
struct pthreadpool *mest_pool_native(mest_pool *pool) { return (struct pthreadpool *)pool; }
