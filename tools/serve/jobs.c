/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/jobs.h"

#include <pthread.h>
#include <stdlib.h>

enum { MOST_WAITING = 256 };

struct jobs {
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    pthread_t thread;
    job *first, **end;
    int waiting;
    bool stopping;
};

static void *work(void *argument)
{
    jobs *q = argument;
    pthread_mutex_lock(&q->lock);
    for (;;) {
        while (!q->first && !q->stopping)
            pthread_cond_wait(&q->arrived, &q->lock);
        job *j = q->first;
        if (!j)
            break;
        q->first = j->next;
        if (!q->first)
            q->end = &q->first;
        q->waiting--;
        pthread_mutex_unlock(&q->lock);
        j->run(j);
        pthread_mutex_lock(&q->lock);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

jobs *jobs_create(void)
{
    jobs *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->arrived, NULL);
    q->end = &q->first;
    if (pthread_create(&q->thread, NULL, work, q) == 0)
        return q;
    free(q);
    return NULL;
}

bool jobs_add(jobs *q, job *j)
{
    pthread_mutex_lock(&q->lock);
    bool room = q->waiting < MOST_WAITING && !q->stopping;
    if (room) {
        j->next = NULL;
        *q->end = j;
        q->end = &j->next;
        q->waiting++;
        pthread_cond_signal(&q->arrived);
    }
    pthread_mutex_unlock(&q->lock);
    return room;
}

void jobs_destroy(jobs *q)
{
    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    q->stopping = true;
    pthread_cond_signal(&q->arrived);
    pthread_mutex_unlock(&q->lock);
    pthread_join(q->thread, NULL);
    pthread_cond_destroy(&q->arrived);
    pthread_mutex_destroy(&q->lock);
    free(q);
}
