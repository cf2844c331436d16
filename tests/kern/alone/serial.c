/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for the thread pool and the operator context where the kernels are built alone: everything on the calling thread. */
#include <stdarg.h>
#include <stdio.h>

#include "runtime/op.h"

mest_status mest_threads_create(mest_threads *threads, int n, mest_error *err)
{
    (void)n;
    (void)err;
    *threads = (mest_threads){.n = 1};
    return MEST_OK;
}

void mest_threads_destroy(mest_threads *threads) { (void)threads; }

/* Last tile first: results must not depend on the order. */
void mest_parallel(const mest_threads *threads, size_t n_tiles, void (*fn)(void *context, size_t tile), void *context)
{
    (void)threads;
    for (size_t i = n_tiles; i-- > 0;)
        fn(context, i);
}

void mest_parallel_worker(const mest_threads *threads, size_t n_tiles, void (*fn)(void *context, size_t worker, size_t tile), void *context)
{
    (void)threads;
    for (size_t i = n_tiles; i-- > 0;)
        fn(context, 0, i);
}

mest_status mest_run_fail(const mest_args *a, mest_status code, const char *format, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return mest_fail(a->err, code, "%s", text);
}
