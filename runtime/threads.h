/* SPDX-License-Identifier: Apache-2.0 */
/* Thread pool (runtime/pool.h). Work is cut into tiles whose number never depends on the number of threads, so results are the same
 * bits for any number of threads. */
#ifndef MEST_RUNTIME_THREADS_H
#define MEST_RUNTIME_THREADS_H

#include "runtime/alloc.h"

/* What the shared jobs of one caller (a node of a program) took: the first few jobs of a run, in their order. */
enum { MEST_TIMED_JOBS = 4 };
typedef struct mest_job_times {
    struct mest_job_time {
        int64_t alone;  /* ns one thread needs for all tiles */
        int8_t how;     /* alone is: 0 not known, guessed from one tile, doubted since sharing seemed to lose, measured */
    } job[MEST_TIMED_JOBS];
} mest_job_times;

typedef struct mest_threads {
    struct mest_pool *pool;   /* NULL: the calling thread does everything */
    int n;
    bool nice;                /* others shall have the cores: no thread spins, and programs yield after each node */
    int32_t penalty, pause;   /* of sharing: grows while sharing takes longer than doing it alone; jobs left to do alone */
    mest_job_times *times;    /* of whoever is running; NULL: nobody keeps them */
    int32_t job;              /* jobs it has had in this run */
} mest_threads;

/* n = 0: the cores that are idle now, at least one. Results do not depend on it. */
mest_status mest_threads_create(mest_threads *threads, int n, mest_error *err);
mest_status mest_threads_create_nice(mest_threads *threads, int n, mest_error *err);
void mest_threads_destroy(mest_threads *threads);
/* The jobs that follow are those of a caller that comes back with the same ones and keeps their times; NULL: of nobody known. Threads may be NULL. */
void mest_threads_at(const mest_threads *threads, mest_job_times *times);
/* Calls fn(context, tile) for tile = 0..n_tiles-1, in any order and thread; returns when all are done. */
void mest_parallel(const mest_threads *threads, size_t n_tiles, void (*fn)(void *context, size_t tile), void *context);
/* The same with the worker's number (0..threads->n-1), for private scratch. */
void mest_parallel_worker(const mest_threads *threads, size_t n_tiles, void (*fn)(void *context, size_t worker, size_t tile), void *context);

#endif
