/* SPDX-License-Identifier: Apache-2.0 */
/* A pool that waits in locks. */
#include "runtime/pool_patient.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "runtime/alloc.h"

enum { MOST_THREADS = 64 };

struct mest_patient {
    mest_heap heap;
    pthread_t thread[MOST_THREADS];
    size_t n;                 /* the caller included */
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    void (*fn)(void *context, size_t i);
    void *context;
    size_t count;
    _Atomic size_t next;
    unsigned generation;      /* of the job: workers wait for another one */
    size_t busy;              /* workers that have not finished it */
    bool over;
};

static void take_part(mest_patient *p)
{
    for (size_t i; (i = atomic_fetch_add(&p->next, 1)) < p->count;)
        p->fn(p->context, i);
}

static void *worker(void *user)
{
    mest_patient *p = user;
    unsigned seen = 0;
    pthread_mutex_lock(&p->lock);
    while (!p->over) {
        if (p->generation == seen) {
            pthread_cond_wait(&p->work, &p->lock);
            continue;
        }
        seen = p->generation;
        pthread_mutex_unlock(&p->lock);
        take_part(p);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0)
            pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

mest_patient *mest_patient_create(size_t n)
{
    mest_heap heap;
    if (mest_heap_init(&heap, NULL, NULL, NULL) != MEST_OK)
        return NULL;
    mest_patient *p = mest_calloc(&heap, 1, sizeof *p);
    if (!p)
        return NULL;
    mest_heap_init(&p->heap, NULL, NULL, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->n = 1;
    while (p->n < n && p->n < MOST_THREADS) {
        if (pthread_create(&p->thread[p->n], NULL, worker, p)) {
            mest_patient_destroy(p);
            return NULL;
        }
        p->n++;
    }
    return p;
}

size_t mest_patient_threads(const mest_patient *pool) { return pool->n; }

void mest_patient_run(mest_patient *p, void (*fn)(void *context, size_t i), void *context, size_t n)
{
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->context = context;
    p->count = n;
    atomic_store(&p->next, 0);
    p->busy = p->n - 1;
    p->generation++;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    take_part(p);
    pthread_mutex_lock(&p->lock);
    while (p->busy)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

void mest_patient_destroy(mest_patient *p)
{
    pthread_mutex_lock(&p->lock);
    p->over = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (size_t i = 1; i < p->n; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    mest_heap heap = p->heap;
    mest_free(&heap, p, 1, sizeof *p);
}
