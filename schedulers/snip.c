/* SPDX-License-Identifier: Apache-2.0 */
/* SNIP (Lee, Ajanthan, Torr; ICLR 2019): which connections matter is decided once, before training. With a multiplier c = 1 on every
 * weight, S = |dL/dc| = |g * w|; for a unit of several weights under one multiplier, |sum of g * w|. The units of largest S stay, over all
 * parameters together (or in each), as many as the targets leave.
 *
 * Training begins with all weights stored. S comes from the run's first batch, or from the mean gradient over the first `batches`, whose
 * optimizer updates are left out. Biases are not scored, and the network that is trained is the one that was scored. No state: kept
 * gradients are the host's. */
#include "schedulers/method_select.h"

typedef struct snip {
    method m;
    bool local;
    int64_t batches;
} snip;

static const char option_text[] =
    "batches=1         batches whose gradients are averaged, at most those of the first epoch\n"
    "scope=global      global: over all parameters; layer: each parameter to its target\n";

static mest_status snip_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    static const char *const scopes[] = { "global", "layer", NULL };
    snip s = { .m = { .name = "snip", .api = api }, .batches = 1 };
    int scope = 0;
    mest_option o = mest_options("snip", options);
    while (mest_option_next(&o, err)) {
        if (mest_option_is(&o, "batches"))
            mest_option_int(&o, 1, 1000000, &s.batches, err);
        else if (mest_option_is(&o, "scope"))
            mest_option_choice(&o, scopes, &scope, err);
        else
            mest_option_unknown(&o, "batches, scope", err);
    }
    s.local = scope == 1;
    mest_status status = o.status == MEST_OK ? method_no_channels(&s.m, host, "looks at gradients of single weights", "", err) : o.status;
    status = status ? status : method_all_stored(&s.m, host, err);
    if (status != MEST_OK)
        return status;
    return method_keep(&s.m, host, &s, sizeof s, self, err);
}

static mest_status saliency(const method *m, mest_host *host, int param, int64_t first, int64_t n, float *scores, mest_error *err)
{
    mest_status status = m->api->unit_products(host, param, first, n, scores, err);
    for (int64_t i = 0; i < n && status == MEST_OK; i++)
        scores[i] = fabsf(scores[i]);
    return status;
}

/* The batches are those of one epoch, and something must be left to train on. */
static mest_status snip_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    const snip *s = (const snip *)self;
    const int64_t steps = method_run_steps(e);
    char text[160];
    if (!method_at_beginning(e) || steps == 0)
        return MEST_OK;
    if (s->batches > 1 && (s->batches < e->n_batches ? s->batches : e->n_batches) >= steps)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler snip: batches=%lld take all %lld steps of the run: nothing would be trained after them", (long long)s->batches,
                                (long long)steps);
    snprintf(text, sizeof text, "batches=%lld: an epoch has %lld, only these are looked at", (long long)s->batches, (long long)e->n_batches);
    if (s->batches > e->n_batches)
        method_log(&s->m, host, MEST_LOG_WARNING, text);
    return MEST_OK;
}

static mest_status snip_step_begin(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    const snip *s = (const snip *)self;
    const method *m = &s->m;
    const int64_t batches = s->batches < step->n_batches ? s->batches : step->n_batches; /* kept gradients end with the epoch */
    if (step->epoch > 0 || step->batch >= batches)
        return MEST_OK;
    mest_probe probe;
    memset(&probe, 0, sizeof probe);
    probe.struct_size = sizeof probe;
    probe.keep = true;
    probe.add = step->batch > 0;
    mest_status status = m->api->probe(host, &probe, err);
    if (status != MEST_OK || step->batch + 1 < batches)
        return status ? status : m->api->skip_update(host, err);
    status = s->local ? method_select_each(m, host, saliency, err) : method_select_all(m, host, saliency, err);
    return status == MEST_OK && batches > 1 ? m->api->skip_update(host, err) : status;
}

static void snip_destroy(void *self, mest_host *host) { method_give(&((snip *)self)->m, host, self, 1, sizeof(snip)); }

extern const mest_scheduler mest_scheduler_snip;
const mest_scheduler mest_scheduler_snip = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "snip",
    .summary = "SNIP: connections of largest |gradient * weight| stay, chosen once before training", .options = option_text,
    .create = snip_create, .destroy = snip_destroy, .epoch_begin = snip_epoch_begin, .step_begin = snip_step_begin,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS | MEST_SCHEDULER_STARTS_DENSE,
};
