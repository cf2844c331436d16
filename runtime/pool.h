/* SPDX-License-Identifier: Apache-2.0 */
/* The threads behind mest_threads. pthreadpool, which XNNPACK shares and whose threads spin for a while when they wait; or our own patient one
 * (runtime/pool_patient.h), where others shall have the cores, and always in builds with ThreadSanitizer (-Dpool=own), which cannot see how a library
 * that was built without it synchronises. */
#ifndef MEST_RUNTIME_POOL_H
#define MEST_RUNTIME_POOL_H

#include <stdbool.h>
#include <stddef.h>

typedef struct mest_pool mest_pool;

/* n threads, the calling one among them; NULL when they cannot be had. patient: they never spin; XNNPACK then has the calling thread alone. */
mest_pool *mest_pool_create(size_t n, bool patient);
size_t mest_pool_threads(const mest_pool *pool);
/* fn(context, i) for i = 0..n-1 in any order and thread; returns when all are done. */
void mest_pool_run(mest_pool *pool, void (*fn)(void *context, size_t i), void *context, size_t n);
void mest_pool_destroy(mest_pool *pool);
/* What XNNPACK can use; NULL: the calling thread alone. */
struct pthreadpool *mest_pool_native(mest_pool *pool);

#endif
