/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.h - what is counted, for GET /metrics. Counters only: any thread adds, nobody waits. */
#ifndef TOOLS_SERVE_METRICS_H
#define TOOLS_SERVE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "serve/text.h"

enum { LATENCY_BUCKETS = 14 };

typedef struct histogram {
    _Atomic int64_t bucket[LATENCY_BUCKETS + 1]; /* the last: everything above */
    _Atomic int64_t sum_us, count;
} histogram;

typedef struct model_metrics {
    histogram latency;                        /* of infer requests, from the last byte of the request to the answer */
    _Atomic int64_t batches, samples, busy_us;
    _Atomic int64_t failed;                   /* infer requests that were refused or failed */
    _Atomic int64_t steps, rounds, trained_samples, training_us, paused_us;
    _Atomic int64_t published, refused, rolled_back, added;
} model_metrics;

typedef struct server_metrics {
    _Atomic int64_t requests[6];              /* by the first digit of the status */
    _Atomic int64_t connections, connections_now, timed_out, bytes_in;
} server_metrics;

void metrics_batch(model_metrics *m, int64_t samples, double seconds);
void metrics_infer(model_metrics *m, double seconds, bool good);

/* One line of the Prometheus text format, version 0.0.4; with a TYPE line before the first of a name. `model` NULL: no label. */
void metrics_line(text *out, const char *name, const char *type, const char *help, const char *model, double value, bool first);
void metrics_histogram(text *out, const char *name, const char *help, const char *model, const histogram *h, bool first);

#endif
