/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/counter.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/perf_event.h>
#include <sys/syscall.h>

int mest_counter_open(void)
{
    struct perf_event_attr a;
    memset(&a, 0, sizeof a);
    a.size = sizeof a;
    a.type = PERF_TYPE_HARDWARE;
    a.config = PERF_COUNT_HW_CPU_CYCLES;
    a.exclude_kernel = 1; /* what an unprivileged process may count */
    a.exclude_hv = 1;
    const long fd = syscall(SYS_perf_event_open, &a, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    return fd < 0 ? -errno : (int)fd;
}
#else
int mest_counter_open(void) { return -ENOSYS; }
#endif

void mest_counter_close(int counter)
{
    if (counter >= 0)
        close(counter);
}

int64_t mest_counter_read(int counter)
{
    uint64_t cycles = 0;
    return counter >= 0 && read(counter, &cycles, sizeof cycles) == (ssize_t)sizeof cycles ? (int64_t)cycles : -1;
}
