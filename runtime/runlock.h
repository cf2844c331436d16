/* SPDX-License-Identifier: Apache-2.0 */
/* One process per run folder: an advisory lock on FOLDER/.lock, released by the system even after kill -9. */
#ifndef MEST_RUNTIME_RUNLOCK_H
#define MEST_RUNTIME_RUNLOCK_H

#include "runtime/status.h"

typedef struct mest_run_lock {
    int fd;
    bool held;
} mest_run_lock; /* zeroed = not held */

/* MEST_E_STATE when another process (or another lock of this one) holds it: the text names the folder and, when known, the process;
 * MEST_E_IO when the lock file cannot be made. */
mest_status mest_run_lock_acquire(mest_run_lock *lock, const char *folder, mest_error *err);
void mest_run_lock_release(mest_run_lock *lock);

#endif
