/* SPDX-License-Identifier: Apache-2.0 */
/* A shared object to be preloaded: makes one chosen call of the system fail, stay short, or be the last thing the process does.
 *
 *   FAULT=CALL:N:WHAT   CALL  write (and pwrite), fsync, rename, open (to write), close, ftruncate, link, unlink, map, malloc (and its kin),
 *                             or file: any of the calls on files
 *                       N     the N-th such call, from 1; N+ that one and all after it
 *                       WHAT  eio, enospc, eintr, enomem; short (half of a write is done); kill (SIGKILL instead of the call), dead (SIGKILL
 *                             right after it)
 *   FAULT_FOLDER=TEXT   only files whose path contains TEXT count (not for malloc)
 *   FAULT_COUNT=FILE    at the end the number of calls of the kind is written there
 *   FAULT_CLOCK=1       the wall clock jumps by up to ten years, back and forth, at every look; clocks that count on are left alone
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { C_WRITE, C_FSYNC, C_RENAME, C_OPEN, C_CLOSE, C_FTRUNCATE, C_LINK, C_UNLINK, C_MAP, C_MALLOC, C_FILE, C_NONE };
static const char *const calls[] = {"write", "fsync", "rename", "open", "close", "ftruncate", "link", "unlink", "map", "malloc", "file"};
enum { W_NOTHING, W_SHORT, W_KILL, W_DEAD, W_ERRNO };

static int chosen = C_NONE, what, code, forever, clock_jumps;
static long at, n_calls;
static const char *folder, *count_file;

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void)
{
    static const struct { const char *name; int what, code; } kinds[] = {{"eio", W_ERRNO, EIO}, {"enospc", W_ERRNO, ENOSPC}, {"eintr", W_ERRNO, EINTR},
        {"enomem", W_ERRNO, ENOMEM}, {"short", W_SHORT, 0}, {"kill", W_KILL, 0}, {"dead", W_DEAD, 0}, {"nothing", W_NOTHING, 0}};
    const char *text = getenv("FAULT");
    char name[32] = "", kind[32] = "", more = 0;
    folder = getenv("FAULT_FOLDER");
    count_file = getenv("FAULT_COUNT");
    clock_jumps = getenv("FAULT_CLOCK") != NULL;
    if (!text)
        return;
    if (sscanf(text, "%31[a-z]:%ld%c%31s", name, &at, &more, kind) < 3)
        _exit(99);
    forever = more == '+';
    const char *rest = strrchr(text, ':');
    int c = C_NONE;
    for (int i = 0; i < C_NONE; i++)
        if (!strcmp(name, calls[i]))
            c = i;
    what = -1;
    for (size_t i = 0; rest && i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(rest + 1, kinds[i].name))
            what = kinds[i].what, code = kinds[i].code;
    if (c == C_NONE || what < 0)
        _exit(99);
    chosen = c;
}

__attribute__((destructor)) static void end(void)
{
    if (!count_file)
        return;
    chosen = C_NONE;
    char text[32];
    int fd = open(count_file, O_WRONLY | O_CREAT | O_TRUNC, 0666), n = snprintf(text, sizeof text, "%ld\n", n_calls);
    if (fd < 0 || write(fd, text, (size_t)n) != n)
        _exit(99);
    close(fd);
}

/* What is to happen to this call; W_NOTHING: it goes on. */
static int strikes(int call, const char *path, int fd)
{
    char by_fd[64], name[4096];
    if (chosen == C_NONE || (chosen != call && !(chosen == C_FILE && call != C_MALLOC && call != C_MAP)))
        return W_NOTHING;
    if (call != C_MALLOC && folder) {
        if (!path) {
            snprintf(by_fd, sizeof by_fd, "/proc/self/fd/%d", fd);
            ssize_t n = readlink(by_fd, name, sizeof name - 1);
            name[n > 0 ? n : 0] = 0;
            path = name;
        }
        if (!strstr(path, folder))
            return W_NOTHING;
    }
    const long n = __atomic_add_fetch(&n_calls, 1, __ATOMIC_RELAXED);
    if (n != at && !(forever && n > at))
        return W_NOTHING;
    if (what == W_KILL)
        kill(getpid(), SIGKILL);
    if (what == W_ERRNO)
        errno = code;
    return what;
}

static void dead(int w)
{
    if (w == W_DEAD)
        kill(getpid(), SIGKILL);
}

ssize_t write(int fd, const void *p, size_t n)
{
    REAL(write);
    const int w = strikes(C_WRITE, NULL, fd);
    if (w == W_ERRNO)
        return -1;
    ssize_t done = real(fd, p, (w == W_SHORT || w == W_DEAD) && n > 1 ? n / 2 : n); /* dead: in the middle of it */
    dead(w);
    return done;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t to)
{
    REAL(pwrite);
    const int w = strikes(C_WRITE, NULL, fd);
    if (w == W_ERRNO)
        return -1;
    ssize_t done = real(fd, p, w == W_SHORT && n > 1 ? n / 2 : n, to);
    dead(w);
    return done;
}
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t to) { return pwrite(fd, p, n, (off_t)to); }

#define ON_FD(name, call)                              \
    int name(int fd)                                   \
    {                                                  \
        REAL(name);                                    \
        const int w = strikes(call, NULL, fd);         \
        if (w == W_ERRNO) {                            \
            if (call == C_CLOSE) {                     \
                real(fd);                              \
                errno = code;                          \
            }                                          \
            return -1;                                 \
        }                                              \
        const int r = real(fd);                        \
        dead(w);                                       \
        return r;                                      \
    }
ON_FD(fsync, C_FSYNC)
ON_FD(fdatasync, C_FSYNC)
ON_FD(close, C_CLOSE)

int rename(const char *from, const char *to)
{
    REAL(rename);
    const int w = strikes(C_RENAME, to, -1);
    if (w == W_ERRNO)
        return -1;
    const int r = real(from, to);
    dead(w);
    return r;
}

int unlink(const char *path)
{
    REAL(unlink);
    const int w = strikes(C_UNLINK, path, -1);
    if (w == W_ERRNO)
        return -1;
    const int r = real(path);
    dead(w);
    return r;
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    REAL(linkat);
    const int w = strikes(C_LINK, to, -1);
    if (w == W_ERRNO)
        return -1;
    const int r = real(from_folder, from, to_folder, to, flags);
    dead(w);
    return r;
}

int ftruncate(int fd, off_t size)
{
    REAL(ftruncate);
    const int w = strikes(C_FTRUNCATE, NULL, fd);
    if (w == W_ERRNO)
        return -1;
    const int r = real(fd, size);
    dead(w);
    return r;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, (off_t)size); }

int open(const char *path, int flags, ...)
{
    REAL(open);
    va_list ap;
    va_start(ap, flags);
    const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    const int w = (flags & O_ACCMODE) != O_RDONLY ? strikes(C_OPEN, path, -1) : W_NOTHING;
    if (w == W_ERRNO)
        return -1;
    const int r = real(path, flags, mode);
    dead(w);
    return r;
}
int open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return open(path, flags, mode);
}

void *mmap(void *p, size_t n, int protection, int flags, int fd, off_t from)
{
    REAL(mmap);
    return strikes(C_MAP, "", -1) == W_ERRNO ? MAP_FAILED : real(p, n, protection, flags, fd, from);
}

void *mmap64(void *p, size_t n, int protection, int flags, int fd, off64_t from) { return mmap(p, n, protection, flags, fd, from); }

/* ---- memory of everybody: glibc's names of the real ones ---- */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
#define NO_ROOM (strikes(C_MALLOC, NULL, -1) == W_ERRNO)
void *malloc(size_t n) { return NO_ROOM ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return NO_ROOM ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return NO_ROOM ? NULL : __libc_realloc(p, n); }
void *aligned_alloc(size_t align, size_t n) { return NO_ROOM ? NULL : __libc_memalign(align, n); }
void *memalign(size_t align, size_t n);
void *memalign(size_t align, size_t n) { return NO_ROOM ? NULL : __libc_memalign(align, n); }
int posix_memalign(void **p, size_t align, size_t n)
{
    if (NO_ROOM)
        return ENOMEM;
    *p = __libc_memalign(align, n);
    return *p ? 0 : ENOMEM;
}

/* ---- the wall clock ---- */
static time_t jump(void)
{
    static unsigned long looks;
    const unsigned long k = __atomic_add_fetch(&looks, 1, __ATOMIC_RELAXED) * 2654435761u % 1000003;
    return clock_jumps ? (time_t)(k * 631) - 315360000 : 0; /* ten years back .. ten years on */
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    REAL(clock_gettime);
    const int r = real(clock, t);
    if (r == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        t->tv_sec += jump();
    return r;
}

time_t time(time_t *t)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t)
        *t = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}
