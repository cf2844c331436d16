/* SPDX-License-Identifier: Apache-2.0 */
/* Every pool is a patient one: for ThreadSanitizer. */
#include "runtime/pool.h"
#include "runtime/pool_patient.h"

mest_pool *mest_pool_create(size_t n, bool patient)
{
    (void)patient;
    return (mest_pool *)mest_patient_create(n);
}
size_t mest_pool_threads(const mest_pool *pool) { return mest_patient_threads((const mest_patient *)pool); }
void mest_pool_run(mest_pool *pool, void (*fn)(void *context, size_t i), void *context, size_t n) { mest_patient_run((mest_patient *)pool, fn, context, n); }
void mest_pool_destroy(mest_pool *pool) { mest_patient_destroy((mest_patient *)pool); }
struct pthreadpool *mest_pool_native(mest_pool *pool)
{
    (void)pool;
    return NULL;
}
