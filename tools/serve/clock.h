/* SPDX-License-Identifier: Apache-2.0 */
/* clock.h - time that no change of the wall clock disturbs. */
#ifndef TOOLS_SERVE_CLOCK_H
#define TOOLS_SERVE_CLOCK_H

#include <pthread.h>
#include <time.h>

static inline double clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* A condition whose timed waits go by the same clock. */
static inline void clock_condition(pthread_cond_t *c)
{
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(c, &a);
    pthread_condattr_destroy(&a);
}

static inline void clock_wait(pthread_cond_t *c, pthread_mutex_t *m, double until_ms)
{
    double ms = until_ms > 0 ? until_ms : 0;
    struct timespec t = {.tv_sec = (time_t)(ms / 1e3)};
    t.tv_nsec = (long)((ms - (double)t.tv_sec * 1e3) * 1e6);
    t.tv_nsec = t.tv_nsec > 999999999 ? 999999999 : t.tv_nsec < 0 ? 0 : t.tv_nsec;
    pthread_cond_timedwait(c, m, &t);
}

#endif
