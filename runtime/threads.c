/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/threads.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "runtime/pool.h"

/* Cores nobody else is using just now: those this process may run on, less what else is running (median of a few looks). A thread that
 * has to wait for a core costs more than it brings, since all threads of a step meet after each node. */
static int idle_cores(void)
{
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    enum { LOOKS = 5 };
    int others[LOOKS], n = 0;
    for (int i = 0; i < LOOKS && cores > 1; i++) {
        char text[128];
        int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        int running;
        if (fd >= 0)
            close(fd);
        text[got > 0 ? got : 0] = 0;
        if (got <= 0 || sscanf(text, "%*f %*f %*f %d/", &running) != 1)
            return cores; /* not told: assume the machine is ours */
        int k = n++;
        for (; k > 0 && others[k - 1] > running - 1; k--) /* sorted; we are one of those running */
            others[k] = others[k - 1];
        others[k] = running - 1;
        nanosleep(&(struct timespec){.tv_nsec = 4000000}, NULL);
    }
    int idle = cores - (n ? others[n / 2] : 0);
    return idle < 1 ? 1 : idle;
}

static mest_status create(mest_threads *threads, int n, bool nice, mest_error *err)
{
    *threads = (mest_threads){.n = 1, .nice = nice};
    MEST_CHECK(n >= 0 && n <= 1024, err, MEST_E_ARGUMENT, "threads: %d is not in 0..1024", n);
    if (n == 0)
        n = idle_cores();
    if (n == 1)
        return MEST_OK;
    threads->pool = mest_pool_create((size_t)n, nice);
    MEST_CHECK(threads->pool, err, MEST_E_NOMEM, "threads: cannot create a pool of %d", n);
    threads->n = (int)mest_pool_threads(threads->pool);
    return MEST_OK;
}

mest_status mest_threads_create(mest_threads *threads, int n, mest_error *err) { return create(threads, n, false, err); }
mest_status mest_threads_create_nice(mest_threads *threads, int n, mest_error *err) { return create(threads, n, true, err); }

void mest_threads_destroy(mest_threads *threads)
{
    if (threads->pool)
        mest_pool_destroy(threads->pool);
    threads->pool = NULL;
    threads->n = 1;
}

/* Waking the pool costs microseconds, and on a machine with other work a missing worker costs a scheduler's time slice. So the caller
 * does the first tile itself and takes its time: what would be over sooner than this is not worth sharing. Tiles do not depend on who
 * runs them, so the result is the same. */
enum { WORTH_SHARING_NS = 40000 };

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* When the machine gets busy, a shared job ends when the slowest thread got its core back. So what sharing took is compared with what the
 * first tile says it would have taken alone; where it lost, the next jobs are done alone, ever more of them while it keeps losing. Only
 * the session's own thread comes here; the tiles, and so the results, are the same in either case. */
enum { MOST_PENALTY = 10 };

static bool worth_sharing(const mest_threads *threads, int64_t first_tile_ns, size_t tiles_left)
{
    if ((double)first_tile_ns * (double)tiles_left <= WORTH_SHARING_NS)
        return false;
    if (threads->pause == 0)
        return true;
    ((mest_threads *)(uintptr_t)threads)->pause--;
    return false;
}

static void judge_sharing(const mest_threads *threads, int64_t took_ns, int64_t first_tile_ns, size_t tiles)
{
    mest_threads *t = (mest_threads *)(uintptr_t)threads;
    if ((double)took_ns <= (double)first_tile_ns * (double)tiles) {
        t->penalty = t->penalty > 0 ? t->penalty - 1 : 0;
        return;
    }
    t->penalty = t->penalty < MOST_PENALTY ? t->penalty + 1 : MOST_PENALTY;
    t->pause = t->penalty > 1 ? 1 << t->penalty : 0; /* once may be chance */
}

typedef struct tail_call {
    void (*fn)(void *context, size_t tile);
    void *context;
} tail_call;

static void tail_tile(void *context, size_t tile)
{
    const tail_call *c = context;
    c->fn(c->context, tile + 1);
}

void mest_parallel(const mest_threads *threads, size_t n_tiles, void (*fn)(void *context, size_t tile), void *context)
{
    size_t done = 0;
    if (threads && threads->pool && n_tiles > 1) {
        int64_t from = now_ns();
        fn(context, done++);
        int64_t first = now_ns() - from;
        if (worth_sharing(threads, first, n_tiles - 1)) {
            tail_call call = {fn, context};
            mest_pool_run(threads->pool, tail_tile, &call, n_tiles - 1);
            judge_sharing(threads, now_ns() - from - first, first, n_tiles - 1);
            return;
        }
    }
    for (; done < n_tiles; done++)
        fn(context, done);
}

typedef struct worker_call {
    void (*fn)(void *context, size_t worker, size_t tile);
    void *context;
    size_t workers, first, tiles;
} worker_call;

/* One tile of the pool per worker; each takes every workers-th tile, so that a worker's scratch is never shared. */
static void as_worker(void *context, size_t worker)
{
    const worker_call *c = context;
    for (size_t tile = c->first + worker; tile < c->tiles; tile += c->workers)
        c->fn(c->context, worker, tile);
}

void mest_parallel_worker(const mest_threads *threads, size_t n_tiles, void (*fn)(void *context, size_t worker, size_t tile), void *context)
{
    worker_call call = {fn, context, 1, 0, n_tiles};
    if (threads && threads->pool && n_tiles > 1) {
        int64_t from = now_ns();
        fn(context, 0, call.first++);
        int64_t first = now_ns() - from;
        if (worth_sharing(threads, first, n_tiles - 1)) {
            call.workers = n_tiles - 1 < (size_t)threads->n ? n_tiles - 1 : (size_t)threads->n;
            mest_pool_run(threads->pool, as_worker, &call, call.workers);
            judge_sharing(threads, now_ns() - from - first, first, n_tiles - 1);
            return;
        }
    }
    as_worker(&call, 0);
}
