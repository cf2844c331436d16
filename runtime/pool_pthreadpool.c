/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/pool.h"

#include <pthreadpool.h>

#include "runtime/alloc.h"
#include "runtime/pool_patient.h"

struct mest_pool {
    mest_heap heap;
    pthreadpool_t fast; /* one of the two */
    mest_patient *patient;
};

mest_pool *mest_pool_create(size_t n, bool patient)
{
    mest_heap heap;
    if (mest_heap_init(&heap, NULL, NULL, NULL) != MEST_OK)
        return NULL;
    mest_pool *p = mest_calloc(&heap, 1, sizeof *p);
    if (!p)
        return NULL;
    mest_heap_init(&p->heap, NULL, NULL, NULL);
    if (patient)
        p->patient = mest_patient_create(n);
    else
        p->fast = pthreadpool_create(n);
    if (!p->patient && !p->fast) {
        mest_free(&heap, p, 1, sizeof *p);
        return NULL;
    }
    return p;
}

size_t mest_pool_threads(const mest_pool *p) { return p->fast ? pthreadpool_get_threads_count(p->fast) : mest_patient_threads(p->patient); }

void mest_pool_run(mest_pool *p, void (*fn)(void *context, size_t i), void *context, size_t n)
{
    if (p->fast)
        pthreadpool_parallelize_1d(p->fast, fn, context, n, 0);
    else
        mest_patient_run(p->patient, fn, context, n);
}

void mest_pool_destroy(mest_pool *p)
{
    if (p->fast)
        pthreadpool_destroy(p->fast);
    else
        mest_patient_destroy(p->patient);
    mest_heap heap = p->heap;
    mest_free(&heap, p, 1, sizeof *p);
}

struct pthreadpool *mest_pool_native(mest_pool *p) { return p->fast; }
