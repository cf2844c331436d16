/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* No stdio: its buffer would be memory of the process, too. */
static int read_file(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, size - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* "Name:  123 kB" of /proc/self/status. VmRSS there is exact; /proc/self/statm may lag behind by some pages for each thread. */
static int64_t status_line(const char *name)
{
    char text[4096];
    long long kib = 0;
    if (!read_file("/proc/self/status", text, sizeof text))
        return 0;
    const char *line = strstr(text, name);
    return line && sscanf(line + strlen(name), " %lld", &kib) == 1 ? (int64_t)kib * 1024 : 0;
}

int64_t mest_process_resident(void) { return status_line("VmRSS:"); }
int64_t mest_process_peak(void) { return status_line("VmHWM:"); }

double mest_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
