/* SPDX-License-Identifier: Apache-2.0 */
/* GraSP (Wang, Zhang, Grosse; ICLR 2020): once, before training, the weights stay whose removal would hurt the flow of gradients.
 *
 *   S = -w * (H g)       g gradient, H Hessian of the loss with logits divided by `temperature`; a unit's S is the sum over its weights
 *
 * Units of largest S go, over all parameters together (or in each), until as many are left as the targets say. H g comes from central
 * differences of gradients on the run's first batch (mest_probe). Training begins with all weights stored; the batch should hold some
 * samples of every class. The network that is trained is the one that was scored. No state. */
#include "schedulers/method_select.h"

typedef struct grasp {
    method m;
    bool local;
    double temperature;
} grasp;

static const char option_text[] =
    "temperature=200   divides the logits while scoring\n"
    "scope=global      global: over all parameters; layer: each parameter to its target\n";

static mest_status grasp_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    static const char *const scopes[] = { "global", "layer", NULL };
    grasp g = { .m = { .name = "grasp", .api = api }, .temperature = 200 };
    int scope = 0;
    mest_option o = mest_options("grasp", options);
    while (mest_option_next(&o, err)) {
        if (mest_option_is(&o, "temperature"))
            mest_option_real(&o, 1e-6, 1e9, &g.temperature, err);
        else if (mest_option_is(&o, "scope"))
            mest_option_choice(&o, scopes, &scope, err);
        else
            mest_option_unknown(&o, "temperature, scope", err);
    }
    g.local = scope == 1;
    mest_status status = o.status == MEST_OK ? method_no_channels(&g.m, host, "looks at gradients of single weights", "", err) : o.status;
    status = status ? status : method_all_stored(&g.m, host, err);
    if (status != MEST_OK)
        return status;
    return method_keep(&g.m, host, &g, sizeof g, self, err);
}

/* -S = w * (H g): the largest stay. */
static mest_status kept_flow(const method *m, mest_host *host, int param, int64_t first, int64_t n, float *scores, mest_error *err)
{
    return m->api->unit_products(host, param, first, n, scores, err);
}

static mest_status grasp_step_begin(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    const grasp *g = (const grasp *)self;
    const method *m = &g->m;
    if (step->step > 0)
        return MEST_OK;
    mest_probe probe;
    memset(&probe, 0, sizeof probe);
    probe.struct_size = sizeof probe;
    probe.keep = probe.hessian = true;
    probe.logit_scale = 1 / g->temperature;
    mest_status status = m->api->probe(host, &probe, err);
    if (status != MEST_OK)
        return status;
    char text[120];
    snprintf(text, sizeof text, "the Hessian product took %lld bytes beside the step's", (long long)probe.extra_bytes);
    method_log(m, host, MEST_LOG_INFO, text);
    return g->local ? method_select_each(m, host, kept_flow, err) : method_select_all(m, host, kept_flow, err);
}

static void grasp_destroy(void *self, mest_host *host) { method_give(&((grasp *)self)->m, host, self, 1, sizeof(grasp)); }

extern const mest_scheduler mest_scheduler_grasp;
const mest_scheduler mest_scheduler_grasp = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "grasp",
    .summary = "GraSP: weights that keep the gradients flowing stay, chosen once before training", .options = option_text,
    .create = grasp_create, .destroy = grasp_destroy, .step_begin = grasp_step_begin,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS | MEST_SCHEDULER_STARTS_DENSE,
};
