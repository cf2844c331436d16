/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for the thread pool and the operator contexts where the kernels are built alone: everything on the calling thread; shape
 * and gradient rules of the operator files are linked but never called. */
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

mest_status mest_infer_fail(const mest_infer *c, mest_status code, const char *format, ...)
{
    (void)format;
    return mest_fail(c->err, code, "not built");
}
bool mest_wants(const mest_vjp *v, int input) { return v && input < 0; }
mest_id mest_in(const mest_vjp *v, int input) { return v && input ? MEST_NONE : MEST_NONE; }
mest_id mest_dout(const mest_vjp *v, int output) { return v && output ? MEST_NONE : MEST_NONE; }
mest_status mest_emit(mest_vjp *v, const char *op, const void *params, int n_in, const mest_id *in, int n_out, const bool *want, mest_id *out)
{
    (void)v, (void)op, (void)params, (void)n_in, (void)in, (void)n_out, (void)want, (void)out;
    return MEST_E_INTERNAL;
}
mest_status mest_give(mest_vjp *v, int input, mest_id gradient)
{
    (void)v, (void)input, (void)gradient;
    return MEST_E_INTERNAL;
}
