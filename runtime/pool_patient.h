/* SPDX-License-Identifier: Apache-2.0 */
/* A pool of threads that wait in locks and never spin: slower to hand work over than pthreadpool, but a core that has nothing to do is free for
 * others at once, and every hand-over is one that ThreadSanitizer understands. At most 64 threads. */
#ifndef MEST_RUNTIME_POOL_PATIENT_H
#define MEST_RUNTIME_POOL_PATIENT_H

#include <stddef.h>

typedef struct mest_patient mest_patient;

/* As mest_pool_create and so on (runtime/pool.h). */
mest_patient *mest_patient_create(size_t n);
size_t mest_patient_threads(const mest_patient *pool);
void mest_patient_run(mest_patient *pool, void (*fn)(void *context, size_t i), void *context, size_t n);
void mest_patient_destroy(mest_patient *pool);

#endif
