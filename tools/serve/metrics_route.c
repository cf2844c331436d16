/* SPDX-License-Identifier: Apache-2.0 */
/* GET /metrics: everything that is counted, in the text format of Prometheus. */
#include "serve/routes.h"

#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

typedef struct counter {
    const char *name, *help;
    size_t offset;          /* in model_metrics */
    double scale;
} counter;

#define COUNTER(name, field, scale, help) {"mest_" name, help, offsetof(model_metrics, field), scale}
static const counter counters[] = {
    COUNTER("infer_failed_total", failed, 1, "infer requests that were refused or failed"),
    COUNTER("infer_batches_total", batches, 1, "runs of the network"),
    COUNTER("infer_samples_total", samples, 1, "samples that were answered"),
    COUNTER("infer_busy_seconds_total", busy_us, 1e-6, "time that runs of the network took"),
    COUNTER("train_steps_total", steps, 1, "training steps"),
    COUNTER("train_rounds_total", rounds, 1, "candidates for a version"),
    COUNTER("train_samples_total", trained_samples, 1, "samples that were trained on, repeated ones too"),
    COUNTER("train_busy_seconds_total", training_us, 1e-6, "time that training worked"),
    COUNTER("train_paused_seconds_total", paused_us, 1e-6, "time that training paused because of requests"),
    COUNTER("versions_published_total", published, 1, "versions that became current"),
    COUNTER("versions_refused_total", refused, 1, "candidates that did not pass their test"),
    COUNTER("versions_rolled_back_total", rolled_back, 1, "roll backs"),
    COUNTER("samples_added_total", added, 1, "labelled samples that were taken into the store"),
};

static double resident_bytes(void)
{
    long pages = 0, skipped;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld %ld", &skipped, &pages) != 2)
        pages = 0;
    if (f)
        fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void put_models(text *out, const models *m)
{
    for (size_t k = 0; k < sizeof counters / sizeof *counters; k++)
        for (int i = 0; i < m->count; i++) {
            const char *at = (const char *)&m->list[i]->metrics + counters[k].offset;
            metrics_line(out, counters[k].name, "counter", counters[k].help, m->list[i]->name,
                         (double)atomic_load((_Atomic int64_t *)(uintptr_t)at) * counters[k].scale, i == 0);
        }
    for (int i = 0; i < m->count; i++)
        metrics_histogram(out, "mest_infer_seconds", "from the last byte of an infer request to its answer", m->list[i]->name, &m->list[i]->metrics.latency, i == 0);
    bool first = true;
    for (int i = 0; i < m->count; i++)
        if (!m->list[i]->broken.status) {
            metrics_line(out, "mest_infer_load", "gauge", "infer requests that wait or are being answered", m->list[i]->name, (double)batcher_load(m->list[i]->batcher), first);
            first = false;
        }
    first = true;
    for (int i = 0; i < m->count; i++)
        if (!m->list[i]->broken.status) {
            metrics_line(out, "mest_version", "gauge", "version that answers", m->list[i]->name, (double)served_version(m->list[i]), first);
            first = false;
        }
    first = true;
    for (int i = 0; i < m->count; i++)
        if (!m->list[i]->broken.status) {
            int64_t bytes = 0;
            engine *e = served_engine(m->list[i]);
            mest_model_version_memory(e->model, &bytes, NULL);
            engine_release(e);
            metrics_line(out, "mest_version_bytes", "gauge", "memory of all versions", m->list[i]->name, (double)bytes, first);
            first = false;
        }
}

void answer_metrics(exchange *x, served *model, int64_t version)
{
    (void)model, (void)version;
    server *s = x->server;
    text *out = &x->answer;
    text_printf(out, "# HELP mest_http_requests_total requests by class of status\n# TYPE mest_http_requests_total counter\n");
    for (int k = 2; k <= 5; k++)
        text_printf(out, "mest_http_requests_total{status=\"%dxx\"} %lld\n", k, (long long)s->metrics.requests[k]);
    metrics_line(out, "mest_http_connections_total", "counter", "connections", NULL, (double)s->metrics.connections, true);
    metrics_line(out, "mest_http_connections", "gauge", "connections that are open", NULL, (double)s->metrics.connections_now, true);
    metrics_line(out, "mest_http_timeouts_total", "counter", "connections that were ended because a request took too long", NULL, (double)s->metrics.timed_out, true);
    metrics_line(out, "mest_http_received_bytes_total", "counter", "bytes of bodies", NULL, (double)s->metrics.bytes_in, true);
    metrics_line(out, "process_resident_memory_bytes", "gauge", "resident memory", NULL, resident_bytes(), true);
    put_models(out, &s->models);
    x->type = "text/plain; version=0.0.4";
    http_done(x);
}
