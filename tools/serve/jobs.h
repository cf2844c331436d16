/* SPDX-License-Identifier: Apache-2.0 */
/* jobs.h - a thread for requests that wait for a disk, so that the one that reads requests never does. */
#ifndef TOOLS_SERVE_JOBS_H
#define TOOLS_SERVE_JOBS_H

#include <stdbool.h>

typedef struct jobs jobs;

typedef struct job {
    void (*run)(struct job *j); /* the job is the caller's again */
    struct job *next;
} job;

jobs *jobs_create(void); /* NULL: no memory or no thread */
/* False: too many wait. */
bool jobs_add(jobs *q, job *j);
/* Runs all that wait, then ends. NULL is fine. */
void jobs_destroy(jobs *q);

#endif
