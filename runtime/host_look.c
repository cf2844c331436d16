/* SPDX-License-Identifier: Apache-2.0 */
/* Services that look: nothing changes here. */
#include "runtime/host_parts.h"

#include "runtime/channels.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/rng.h"

mest_host_param *mest_host_find(mest_host *host, int param, mest_error *err)
{
    if (param >= 0 && param < host->n_params)
        return &host->params[param];
    mest_fail(err, MEST_E_ARGUMENT, "scheduler %s: sparse parameter %d does not exist, there are %d", host->who, param, host->n_params);
    return NULL;
}

mest_status mest_host_check_range(mest_host *host, const mest_host_param *p, int64_t first, int64_t n, mest_error *err)
{
    MEST_CHECK(first >= 0 && n >= 0 && first <= p->sparse->active_units && n <= p->sparse->active_units - first, err, MEST_E_ARGUMENT,
               "scheduler %s: %s: units %" PRId64 "..+%" PRId64 " of %" PRId64 " active ones", host->who, p->name, first, n,
               p->sparse->active_units);
    return MEST_OK;
}

/* The parameter, if it has the active units first..first+n-1; NULL, with err, if not. */
static mest_host_param *find_active(mest_host *host, int param, int64_t first, int64_t n, mest_error *err)
{
    mest_host_param *p = mest_host_find(host, param, err);
    return p && mest_host_check_range(host, p, first, n, err) == MEST_OK ? p : NULL;
}

static mest_status check_lambda(mest_host *host, const mest_host_param *p, double lambda, mest_error *err)
{
    MEST_CHECK(lambda >= 0 && isfinite(lambda), err, MEST_E_ARGUMENT, "scheduler %s: %s: lambda must be finite and not negative", host->who,
               p->name);
    return MEST_OK;
}

int mest_host_sparse_count(mest_host *host) { return host->n_params; }

mest_status mest_host_sparse_info(mest_host *host, int param, mest_sparse_info *info, mest_error *err)
{
    mest_host_param *p = mest_host_find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    uint32_t size = info->struct_size;
    MEST_CHECK(size >= sizeof(uint32_t), err, MEST_E_ARGUMENT, "scheduler %s: mest_sparse_info without struct_size", host->who);
    const mest_sparse *s = p->sparse;
    mest_sparse_info full = { .name = p->name, .scheme = s->name, .rank = s->shape.rank, .n_units = s->n_units, .n_active = s->active_units,
                              .capacity = s->cap_units, .unit_elements = s->unit_elements, .target_sparsity = p->target_sparsity,
                              .choices = s->choices, .group_units = s->group_units, .frozen = p->frozen };
    memcpy(full.dim, s->shape.dim, sizeof full.dim);
    full.struct_size = size < sizeof full ? size : (uint32_t)sizeof full;
    memcpy(info, &full, full.struct_size);
    return MEST_OK;
}

mest_status mest_host_active_units(mest_host *host, int param, int64_t first, int64_t n, int64_t *units, mest_error *err)
{
    mest_host_param *p = find_active(host, param, first, n, err);
    if (!p)
        return MEST_E_ARGUMENT;
    if (n > 0)
        p->sparse->format->units(p->sparse, first, n, units);
    return MEST_OK;
}

mest_status mest_host_only_weights(const mest_host *host, const char *does, mest_error *err)
{
    for (int i = 0; i < host->n_params; i++)
        MEST_CHECK(!host->params[i].group, err, MEST_E_UNSUPPORTED, "scheduler %s: it %s, but %s are removed as a whole", host->who, does,
                   host->params[i].name);
    return MEST_OK;
}

/* Scores of channels are made when they are asked for: of a weight they are its values. */
static void refresh(mest_host *host, const mest_host_param *p)
{
    if (p->group)
        mest_channels_score(host->model, p->group - 1);
}

static const mest_real *snapshot(const mest_host *host, const mest_host_param *p) { return host->gradients_taken ? p->grad_snapshot : NULL; }

mest_status mest_host_unit_scores(mest_host *host, int param, double lambda, bool normalised, int64_t first, int64_t n, float *scores,
                                    mest_error *err)
{
    mest_host_param *p = find_active(host, param, first, n, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_TRY(check_lambda(host, p, lambda, err));
    refresh(host, p);
    mest_sparse_scores(p->sparse, snapshot(host, p), lambda, normalised, first, n, scores);
    return MEST_OK;
}

mest_status mest_host_lowest_units(mest_host *host, int param, double lambda, bool normalised, int64_t k, int64_t *units, mest_error *err)
{
    mest_host_param *p = find_active(host, param, 0, k, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_TRY(check_lambda(host, p, lambda, err));
    refresh(host, p);
    return mest_sparse_lowest(p->sparse, snapshot(host, p), lambda, normalised, k, units, err);
}

mest_status mest_host_sample_inactive(mest_host *host, int param, uint64_t key, const int64_t *exclude, int64_t n_exclude, int64_t n,
                                      int64_t *units, mest_error *err)
{
    mest_host_param *p = mest_host_find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    const mest_change so_far = { p->drop.ids, p->drop.n, p->grow.ids, p->grow.n };
    return mest_sparse_sample_inactive(p->sparse, host->seed, mest_rng((uint64_t)MEST_STREAM_GROW << 32, (uint64_t)param, key), &so_far, exclude,
                                       n_exclude, n, units, err);
}

mest_status mest_host_get_values(mest_host *host, int param, int64_t first, int64_t n, float *values, mest_error *err)
{
    mest_host_param *p = find_active(host, param, first, n, err);
    if (!p)
        return MEST_E_ARGUMENT;
    refresh(host, p);
    const mest_real *from = p->sparse->values + first * p->sparse->unit_elements;
    for (int64_t i = 0; i < n * p->sparse->unit_elements; i++)
        values[i] = (float)from[i];
    return MEST_OK;
}

mest_status mest_host_unit_momentum(mest_host *host, int param, int64_t first, int64_t n, float *norms, mest_error *err)
{
    mest_host_param *p = find_active(host, param, first, n, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_CHECK(!p->group, err, MEST_E_UNSUPPORTED, "scheduler %s: %s: channels have no momentum of their own", host->who, p->name);
    MEST_CHECK(p->has_momentum, err, MEST_E_STATE, "scheduler %s: the optimizer keeps no momentum", host->who);
    mest_sparse_norms(p->sparse, p->slots[0], first, n, norms);
    return MEST_OK;
}

mest_status mest_host_unit_products(mest_host *host, int param, int64_t first, int64_t n, float *products, mest_error *err)
{
    mest_host_param *p = find_active(host, param, first, n, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_CHECK(!p->group, err, MEST_E_UNSUPPORTED, "scheduler %s: %s: channels have no products of weight and gradient", host->who, p->name);
    const mest_real *g = snapshot(host, p), *w = p->sparse->values;
    MEST_CHECK(g, err, MEST_E_STATE, "scheduler %s: no gradients are kept", host->who);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t e = (first + i) * p->sparse->unit_elements; e < (first + i + 1) * p->sparse->unit_elements; e++)
            sum += (double)w[e] * (double)g[e];
        products[i] = (float)sum;
    }
    return MEST_OK;
}

int64_t mest_host_units_at(mest_host *host, int param, double sparsity)
{
    const mest_host_param *p = mest_host_find(host, param, NULL);
    return p ? mest_sparse_units_at(p->sparse, sparsity) : -1;
}

mest_status mest_host_turned_units(mest_host *host, int param, int64_t room, int64_t *units, int64_t *n, mest_error *err)
{
    mest_host_param *p = mest_host_find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_CHECK(host->phase == MEST_HOST_STEP_END && host->perturbed && p->turned, err, MEST_E_STATE,
               "scheduler %s: turned_units is for step_end of a step that was disturbed", host->who);
    *n = 0;
    const uint8_t *at = p->turned, *end = at + p->sparse->active_units;
    for (; at < end && (at = memchr(at, 1, (size_t)(end - at))) != NULL; at++, ++*n)
        if (*n < room)
            p->sparse->format->units(p->sparse, at - p->turned, 1, &units[*n]);
    return MEST_OK;
}

bool mest_host_sample_active(mest_host *host, int64_t id)
{
    return host->samples && id >= 0 && id < host->samples->count && mest_sample_active(host->samples, id);
}

int64_t mest_host_sample_class(mest_host *host, int64_t id)
{
    return host->samples && host->sample_class && id >= 0 && id < host->samples->count && host->sample_class[id] >= 0 ? host->sample_class[id] : -1;
}
