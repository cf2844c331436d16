/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/threads.h"

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
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

/* Waking the pool costs microseconds, and on a machine with other work a missing worker costs a scheduler's time slice: what would be over sooner
 * than this is not worth sharing. How long a job takes is known from its earlier runs; the first time the caller does the first tile itself and
 * takes its time. Tiles do not depend on who runs them, so the result is the same. */
enum { WORTH_SHARING_NS = 40000 };

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void mest_threads_at(const mest_threads *threads, mest_job_times *times)
{
    if (!threads || !threads->pool)
        return;
    mest_threads *t = (mest_threads *)(uintptr_t)threads; /* only the session's own thread comes here */
    t->times = times;
    t->job = 0;
}

/* When the machine gets busy, a shared job ends when the slowest thread got its core back. So what sharing took is compared with what it
 * takes alone; where it lost, the next jobs are done alone, ever more of them while it keeps losing. A time alone that is only a guess is
 * measured first. The tiles, and so the results, are the same in either case. */
enum { MOST_PENALTY = 10 };
enum { UNKNOWN, GUESSED, DOUBTED, MEASURED };

static bool worth_sharing(mest_threads *t, int64_t alone, int how)
{
    if (alone <= WORTH_SHARING_NS || how == DOUBTED)
        return false;
    if (t->pause == 0)
        return true;
    t->pause--;
    return false;
}

static void judge_sharing(mest_threads *t, int64_t took, int64_t alone)
{
    if (took <= alone) {
        t->penalty = t->penalty > 0 ? t->penalty - 1 : 0;
        return;
    }
    t->penalty = t->penalty < MOST_PENALTY ? t->penalty + 1 : MOST_PENALTY;
    t->pause = t->penalty > 1 ? 1 << t->penalty : 0; /* once may be chance */
}

/* A job: either kind of function, and the next tile to be taken. */
typedef struct shared_job {
    void (*fn)(void *context, size_t tile);
    void (*worker_fn)(void *context, size_t worker, size_t tile);
    void *context;
    size_t tiles, first;
    _Atomic size_t next;
} shared_job;

static void run_tile(shared_job *j, size_t worker, size_t tile)
{
    if (j->fn)
        j->fn(j->context, tile);
    else
        j->worker_fn(j->context, worker, tile);
}

static void pool_tile(void *context, size_t tile)
{
    shared_job *j = context;
    j->fn(j->context, j->first + tile);
}

/* One item of the pool per worker, so that a worker's scratch is never shared; each takes the next tile nobody has. */
static void pool_worker(void *context, size_t worker)
{
    shared_job *j = context;
    for (size_t tile; (tile = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->tiles;)
        j->worker_fn(j->context, worker, tile);
}

static void run_shared(mest_threads *t, shared_job *j)
{
    const size_t left = j->tiles - j->first;
    if (j->fn) {
        mest_pool_run(t->pool, pool_tile, j, left);
        return;
    }
    atomic_store(&j->next, j->first);
    mest_pool_run(t->pool, pool_worker, j, left < (size_t)t->n ? left : (size_t)t->n);
}

static void run_alone(shared_job *j)
{
    for (size_t tile = j->first; tile < j->tiles; tile++)
        run_tile(j, 0, tile);
}

static void run_job(const mest_threads *threads, shared_job *j)
{
    if (!threads || !threads->pool || j->tiles < 2) {
        run_alone(j);
        return;
    }
    mest_threads *t = (mest_threads *)(uintptr_t)threads;
    struct mest_job_time unknown = {0}, *time = t->times && t->job < MEST_TIMED_JOBS ? &t->times->job[t->job++] : &unknown;
    const int64_t from = now_ns();
    int64_t first = 0;
    if (time->how == UNKNOWN) {
        run_tile(j, 0, j->first++);
        first = now_ns() - from;
        *time = (struct mest_job_time){first * (int64_t)j->tiles, GUESSED};
    }
    if (!worth_sharing(t, time->alone - first, time->how)) {
        run_alone(j);
        *time = (struct mest_job_time){now_ns() - from, MEASURED};
        return;
    }
    run_shared(t, j);
    const int64_t took = now_ns() - from - first, most = first + took * t->n; /* alone it takes no longer than all threads together */
    if (took > time->alone - first && time->how == GUESSED)
        time->how = DOUBTED;
    else
        judge_sharing(t, took, time->alone - first);
    if (most < time->alone)
        time->alone -= (time->alone - most) / 2;
}

void mest_parallel(const mest_threads *threads, size_t n_tiles, void (*fn)(void *context, size_t tile), void *context)
{
    run_job(threads, &(shared_job){.fn = fn, .context = context, .tiles = n_tiles});
}

void mest_parallel_worker(const mest_threads *threads, size_t n_tiles, void (*fn)(void *context, size_t worker, size_t tile), void *context)
{
    run_job(threads, &(shared_job){.worker_fn = fn, .context = context, .tiles = n_tiles});
}
