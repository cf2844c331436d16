/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/metrics.h"

static const double bound[LATENCY_BUCKETS] = {.0005, .001, .002, .003, .005, .01, .02, .03, .05, .1, .2, .5, 1, 5};

static void observe(histogram *h, double seconds)
{
    int i = 0;
    while (i < LATENCY_BUCKETS && seconds > bound[i])
        i++;
    atomic_fetch_add(&h->bucket[i], 1);
    atomic_fetch_add(&h->sum_us, (int64_t)(seconds * 1e6));
    atomic_fetch_add(&h->count, 1);
}

void metrics_batch(model_metrics *m, int64_t samples, double seconds)
{
    atomic_fetch_add(&m->batches, 1);
    atomic_fetch_add(&m->samples, samples);
    atomic_fetch_add(&m->busy_us, (int64_t)(seconds * 1e6));
}

void metrics_infer(model_metrics *m, double seconds, bool good)
{
    observe(&m->latency, seconds);
    if (!good)
        atomic_fetch_add(&m->failed, 1);
}

static void head(text *out, const char *name, const char *type, const char *help, bool first)
{
    if (first)
        text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_line(text *out, const char *name, const char *type, const char *help, const char *model, double value, bool first)
{
    head(out, name, type, help, first);
    if (model)
        text_printf(out, "%s{model=\"%s\"} %.17g\n", name, model, value);
    else
        text_printf(out, "%s %.17g\n", name, value);
}

void metrics_histogram(text *out, const char *name, const char *help, const char *model, const histogram *h, bool first)
{
    head(out, name, "histogram", help, first);
    int64_t below = 0;
    for (int i = 0; i < LATENCY_BUCKETS; i++) {
        below += h->bucket[i];
        text_printf(out, "%s_bucket{model=\"%s\",le=\"%g\"} %lld\n", name, model, bound[i], (long long)below);
    }
    below += h->bucket[LATENCY_BUCKETS];
    text_printf(out, "%s_bucket{model=\"%s\",le=\"+Inf\"} %lld\n", name, model, (long long)below);
    text_printf(out, "%s_sum{model=\"%s\"} %.6f\n", name, model, (double)h->sum_us / 1e6);
    text_printf(out, "%s_count{model=\"%s\"} %lld\n", name, model, (long long)below);
}
