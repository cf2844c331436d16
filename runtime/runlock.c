/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/runlock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

mest_status mest_run_lock_acquire(mest_run_lock *lock, const char *folder, mest_error *err)
{
    char path[PATH_MAX], pid[32];
    lock->held = false;
    int n = snprintf(path, sizeof path, "%s/.lock", folder);
    MEST_CHECK(n > 0 && (size_t)n < sizeof path, err, MEST_E_IO, "%s: %s", folder, strerror(ENAMETOOLONG));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    MEST_CHECK(fd >= 0, err, MEST_E_IO, "%s: cannot open: %s", path, strerror(errno));
    int got;
    do
        got = flock(fd, LOCK_EX | LOCK_NB);
    while (got != 0 && errno == EINTR);
    if (got != 0) {
        int code = errno;
        ssize_t got_bytes = pread(fd, pid, sizeof pid - 1, 0);
        pid[got_bytes > 0 ? got_bytes : 0] = 0;
        long owner = strtol(pid, NULL, 10);
        close(fd);
        if (code != EWOULDBLOCK)
            return mest_fail(err, MEST_E_IO, "%s: cannot lock: %s", path, strerror(code));
        if (owner > 0)
            return mest_fail(err, MEST_E_STATE, "%s: in use by another run (process %ld)", folder, owner);
        return mest_fail(err, MEST_E_STATE, "%s: in use by another run", folder);
    }
    /* The process id is only for the message above; a full disk must not stop the run. The file stays after release: removing it
     * would let two processes lock two different files of the same name. */
    n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)n, 0) != n)
        (void)!ftruncate(fd, 0);
    lock->fd = fd;
    lock->held = true;
    return MEST_OK;
}

void mest_run_lock_release(mest_run_lock *lock)
{
    if (!lock->held)
        return;
    (void)!ftruncate(lock->fd, 0);
    close(lock->fd); /* drops the lock */
    lock->held = false;
}
