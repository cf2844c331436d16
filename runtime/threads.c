/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/threads.h"

#include <pthreadpool.h>

mest_status mest_threads_create(mest_threads *threads, int n, mest_error *err)
{
    threads->pool = NULL;
    threads->n = 1;
    MEST_CHECK(n >= 0 && n <= 1024, err, MEST_E_ARGUMENT, "threads: %d is not in 0..1024", n);
    if (n == 1)
        return MEST_OK;
    threads->pool = pthreadpool_create((size_t)n);
    MEST_CHECK(threads->pool, err, MEST_E_NOMEM, "threads: cannot create a pool of %d", n);
    threads->n = (int)pthreadpool_get_threads_count(threads->pool);
    if (threads->n == 1) {
        pthreadpool_destroy(threads->pool);
        threads->pool = NULL;
    }
    return MEST_OK;
}

void mest_threads_destroy(mest_threads *threads)
{
    if (threads->pool)
        pthreadpool_destroy(threads->pool);
    threads->pool = NULL;
    threads->n = 1;
}

void mest_parallel(const mest_threads *threads, size_t n_tiles, void (*fn)(void *context, size_t tile), void *context)
{
    if (!threads || !threads->pool || n_tiles < 2) {
        for (size_t i = 0; i < n_tiles; i++)
            fn(context, i);
        return;
    }
    pthreadpool_parallelize_1d(threads->pool, fn, context, n_tiles, 0);
}

typedef struct worker_call {
    void (*fn)(void *context, size_t worker, size_t tile);
    void *context;
    size_t workers, tiles;
} worker_call;

/* One tile of the pool per worker; each takes every workers-th tile, so that a worker's scratch is never shared. */
static void as_worker(void *context, size_t worker)
{
    const worker_call *c = context;
    for (size_t tile = worker; tile < c->tiles; tile += c->workers)
        c->fn(c->context, worker, tile);
}

void mest_parallel_worker(const mest_threads *threads, size_t n_tiles, void (*fn)(void *context, size_t worker, size_t tile), void *context)
{
    worker_call call = {fn, context, threads && threads->pool ? (size_t)threads->n : 1, n_tiles};
    if (call.workers > n_tiles)
        call.workers = n_tiles ? n_tiles : 1;
    mest_parallel(threads, call.workers, as_worker, &call);
}
