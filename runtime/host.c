/* SPDX-License-Identifier: Apache-2.0 */
/* The functions a scheduler may call. Everything it says is checked here; what it proposes waits until its callback returned. */
#include "runtime/plugin.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/rng.h"

/* ---- life ---- */

mest_status mest_host_init(mest_host *host, mest_heap *heap, uint64_t seed, int n_params, mest_error *err)
{
    memset(host, 0, sizeof *host);
    host->heap = heap;
    host->seed = seed;
    host->who = "";
    MEST_NEW(heap, host->params, n_params, err, "sparse parameters");
    memset(host->params, 0, (size_t)n_params * sizeof *host->params);
    host->n_params = n_params;
    return MEST_OK;
}

static size_t cap_values(const mest_host_param *p) { return (size_t)p->sparse->cap_units * (size_t)p->sparse->unit_elements; }

static void free_snapshot(mest_host *host, mest_host_param *p)
{
    mest_free(host->heap, p->grad_snapshot, cap_values(p), sizeof *p->grad_snapshot);
    p->grad_snapshot = NULL;
}

mest_status mest_host_plan(mest_host *host, mest_error *err)
{
    size_t most = 0;
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        free_snapshot(host, p); /* sized by the old capacity */
        MEST_TRY(mest_sparse_reserve(p->sparse, p->reserved > p->sparse->active_units ? p->reserved : p->sparse->active_units, err));
        size_t bytes = mest_sparse_edit_scratch(p->sparse, MEST_HOST_SLOTS);
        most = bytes > most ? bytes : most;
    }
    host->gradients_taken = false;
    mest_free(host->heap, host->scratch, host->scratch_bytes, 1);
    host->scratch_bytes = 0;
    host->scratch = mest_alloc(host->heap, most, 1);
    MEST_CHECK(host->scratch, err, MEST_E_NOMEM, "schedulers: no memory for %zu bytes of scratch", most);
    host->scratch_bytes = most;
    return MEST_OK;
}

static void clear_proposal(mest_host *host, mest_proposal *p)
{
    mest_free(host->heap, p->ids, (size_t)p->n, sizeof *p->ids);
    *p = (mest_proposal){ 0 };
}

void mest_host_free(mest_host *host)
{
    if (!host->heap)
        return;
    for (int i = 0; i < host->n_params; i++) {
        clear_proposal(host, &host->params[i].drop);
        clear_proposal(host, &host->params[i].grow);
        if (host->params[i].grad_snapshot)
            free_snapshot(host, &host->params[i]);
    }
    clear_proposal(host, &host->removed_samples);
    mest_free(host->heap, host->params, (size_t)host->n_params, sizeof *host->params);
    mest_free(host->heap, host->scratch, host->scratch_bytes, 1);
    memset(host, 0, sizeof *host);
}

void mest_host_take_gradients(mest_host *host, int param, const mest_real *grad)
{
    mest_host_param *p = &host->params[param];
    if (!p->grad_snapshot)
        return;
    memcpy(p->grad_snapshot, grad, (size_t)p->sparse->stored * sizeof *grad);
    host->gradients_taken = true;
}

void mest_host_settle_gradients(mest_host *host)
{
    host->gradients_taken = false;
    host->gradients_wanted = host->keep_gradients;
    host->keep_gradients = false;
    for (int i = 0; i < host->n_params && !host->gradients_wanted; i++)
        if (host->params[i].grad_snapshot)
            free_snapshot(host, &host->params[i]);
}

void mest_host_enter(mest_host *host, mest_host_phase phase, const char *who, int who_index)
{
    host->phase = phase;
    host->who = who;
    host->who_index = who_index;
}

/* ---- looking ---- */

static mest_host_param *find(mest_host *host, int param, mest_error *err)
{
    if (param >= 0 && param < host->n_params)
        return &host->params[param];
    mest_fail(err, MEST_E_ARGUMENT, "scheduler %s: sparse parameter %d does not exist, there are %d", host->who, param, host->n_params);
    return NULL;
}

static mest_status check_range(mest_host *host, const mest_host_param *p, int64_t first, int64_t n, mest_error *err)
{
    MEST_CHECK(first >= 0 && n >= 0 && first <= p->sparse->active_units && n <= p->sparse->active_units - first, err, MEST_E_ARGUMENT,
               "scheduler %s: %s: units %" PRId64 "..+%" PRId64 " of %" PRId64 " active ones", host->who, p->name, first, n,
               p->sparse->active_units);
    return MEST_OK;
}

static mest_status check_lambda(mest_host *host, const mest_host_param *p, double lambda, mest_error *err)
{
    MEST_CHECK(lambda >= 0 && isfinite(lambda), err, MEST_E_ARGUMENT, "scheduler %s: %s: lambda must be finite and not negative", host->who,
               p->name);
    return MEST_OK;
}

static int host_sparse_count(mest_host *host) { return host->n_params; }

static mest_status host_sparse_info(mest_host *host, int param, mest_sparse_info *info, mest_error *err)
{
    mest_host_param *p = find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    uint32_t size = info->struct_size;
    MEST_CHECK(size >= sizeof(uint32_t), err, MEST_E_ARGUMENT, "scheduler %s: mest_sparse_info without struct_size", host->who);
    const mest_sparse *s = p->sparse;
    mest_sparse_info full = { .name = p->name, .scheme = s->name, .rank = s->shape.rank, .n_units = s->n_units, .n_active = s->active_units,
                              .capacity = s->cap_units, .unit_elements = s->unit_elements, .target_sparsity = p->target_sparsity };
    memcpy(full.dim, s->shape.dim, sizeof full.dim);
    full.struct_size = size < sizeof full ? size : (uint32_t)sizeof full;
    memcpy(info, &full, full.struct_size);
    return MEST_OK;
}

static mest_status host_active_units(mest_host *host, int param, int64_t first, int64_t n, int64_t *units, mest_error *err)
{
    mest_host_param *p = find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_TRY(check_range(host, p, first, n, err));
    if (n > 0)
        p->sparse->format->units(p->sparse, first, n, units);
    return MEST_OK;
}

static const mest_real *snapshot(const mest_host *host, const mest_host_param *p) { return host->gradients_taken ? p->grad_snapshot : NULL; }

static mest_status host_unit_scores(mest_host *host, int param, double lambda, bool normalised, int64_t first, int64_t n, float *scores,
                                    mest_error *err)
{
    mest_host_param *p = find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_TRY(check_range(host, p, first, n, err));
    MEST_TRY(check_lambda(host, p, lambda, err));
    mest_sparse_scores(p->sparse, snapshot(host, p), lambda, normalised, first, n, scores);
    return MEST_OK;
}

static mest_status host_lowest_units(mest_host *host, int param, double lambda, bool normalised, int64_t k, int64_t *units, mest_error *err)
{
    mest_host_param *p = find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_TRY(check_range(host, p, 0, k, err));
    MEST_TRY(check_lambda(host, p, lambda, err));
    return mest_sparse_lowest(p->sparse, snapshot(host, p), lambda, normalised, k, units, err);
}

/* Merges two ascending lists into heap memory; a unit of both is kept once. */
static mest_status merge(mest_host *host, const mest_proposal *a, const int64_t *ids, int64_t n, mest_proposal *out, mest_error *err)
{
    MEST_NEW(host->heap, out->ids, a->n + n, err, "proposals");
    int64_t i = 0, j = 0, k = 0;
    while (i < a->n || j < n) {
        int64_t x = i < a->n ? a->ids[i] : INT64_MAX, y = j < n ? ids[j] : INT64_MAX;
        out->ids[k++] = x < y ? x : y;
        i += x <= y;
        j += y <= x;
    }
    out->n = a->n + n; /* size of the block */
    if (k < out->n) {  /* shrink to fit, so that n stays the size that is released */
        mest_proposal exact = { .n = k };
        exact.ids = mest_alloc(host->heap, (size_t)k, sizeof *exact.ids);
        if (exact.ids)
            memcpy(exact.ids, out->ids, (size_t)k * sizeof *exact.ids);
        clear_proposal(host, out);
        MEST_CHECK(exact.ids, err, MEST_E_NOMEM, "scheduler %s: no memory for %" PRId64 " proposals", host->who, k);
        *out = exact;
    }
    return MEST_OK;
}

static mest_status host_sample_inactive(mest_host *host, int param, uint64_t key, const int64_t *exclude, int64_t n_exclude, int64_t n,
                                        int64_t *units, mest_error *err)
{
    mest_proposal both = { 0 };
    mest_host_param *p = find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    if (p->grow.n > 0) { /* what was proposed for growth already is out as well */
        MEST_CHECK(n_exclude >= 0, err, MEST_E_ARGUMENT, "scheduler %s: %s: %" PRId64 " units to exclude", host->who, p->name, n_exclude);
        MEST_TRY(merge(host, &p->grow, exclude, n_exclude, &both, err));
        exclude = both.ids;
        n_exclude = both.n;
    }
    mest_status status = mest_sparse_sample_inactive(p->sparse, host->seed, mest_rng((uint64_t)MEST_STREAM_GROW << 32, (uint64_t)param, key),
                                                     p->drop.ids, p->drop.n, exclude, n_exclude, n, units, err);
    clear_proposal(host, &both);
    return status;
}

/* ---- asking ---- */

static mest_status host_reserve(mest_host *host, int param, int64_t units, mest_error *err)
{
    mest_host_param *p = find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_CHECK(host->phase == MEST_HOST_CREATE, err, MEST_E_STATE, "scheduler %s: reserve is for create", host->who);
    MEST_CHECK(units >= 0 && units <= p->sparse->n_units, err, MEST_E_ARGUMENT, "scheduler %s: %s: %" PRId64 " units reserved of %" PRId64,
               host->who, p->name, units, p->sparse->n_units);
    p->reserved = units > p->reserved ? units : p->reserved;
    return MEST_OK;
}

static mest_status host_keep_gradients(mest_host *host, mest_error *err)
{
    MEST_CHECK(host->phase == MEST_HOST_BEGIN, err, MEST_E_STATE, "scheduler %s: keep_gradients is for epoch_begin", host->who);
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        if (!p->grad_snapshot) {
            MEST_NEW(host->heap, p->grad_snapshot, cap_values(p), err, "gradient snapshot");
            memset(p->grad_snapshot, 0, cap_values(p) * sizeof *p->grad_snapshot);
        }
    }
    host->keep_gradients = true;
    return MEST_OK;
}

static mest_status check_phase(const mest_host *host, mest_error *err)
{
    MEST_CHECK(host->phase == MEST_HOST_BEGIN || host->phase == MEST_HOST_END, err, MEST_E_STATE,
               "scheduler %s: proposals are for epoch_begin and epoch_end", host->who);
    return MEST_OK;
}

static mest_status check_order(const mest_host *host, const char *what, const char *name, const int64_t *ids, int64_t n, int64_t limit,
                               mest_error *err)
{
    MEST_CHECK(n >= 0 && (n == 0 || ids), err, MEST_E_PLUGIN, "scheduler %s: %s: a list of %" PRId64 " %s", host->who, name, n, what);
    for (int64_t i = 0; i < n; i++) {
        MEST_CHECK(ids[i] >= 0 && ids[i] < limit, err, MEST_E_PLUGIN, "scheduler %s: %s: %s %" PRId64 " is out of range, there are %" PRId64,
                   host->who, name, what, ids[i], limit);
        MEST_CHECK(i == 0 || ids[i] > ids[i - 1], err, MEST_E_PLUGIN, "scheduler %s: %s: %s %" PRId64 " is proposed twice or out of order",
                   host->who, name, what, ids[i]);
    }
    return MEST_OK;
}

static bool listed(const mest_proposal *p, int64_t id)
{
    int64_t low = 0, high = p->n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (p->ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < p->n && p->ids[low] == id;
}

/* Adds a checked list to an open proposal. */
static mest_status accept(mest_host *host, mest_proposal *to, const int64_t *ids, int64_t n, mest_error *err)
{
    mest_proposal merged = { 0 };
    if (n == 0)
        return MEST_OK;
    MEST_TRY(merge(host, to, ids, n, &merged, err));
    clear_proposal(host, to);
    *to = merged;
    return MEST_OK;
}

static mest_status host_drop(mest_host *host, int param, const int64_t *units, int64_t n, mest_error *err)
{
    mest_host_param *p = find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_TRY(check_phase(host, err));
    MEST_TRY(check_order(host, "unit", p->name, units, n, p->sparse->n_units, err));
    for (int64_t i = 0; i < n; i++)
        MEST_CHECK(mest_sparse_active(p->sparse, units[i]) && !listed(&p->drop, units[i]), err, MEST_E_PLUGIN,
                   "scheduler %s: %s: unit %" PRId64 " cannot be dropped, it is not active", host->who, p->name, units[i]);
    return accept(host, &p->drop, units, n, err);
}

static mest_status host_grow(mest_host *host, int param, const int64_t *units, int64_t n, mest_error *err)
{
    mest_host_param *p = find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_TRY(check_phase(host, err));
    MEST_TRY(check_order(host, "unit", p->name, units, n, p->sparse->n_units, err));
    int64_t after = p->sparse->active_units - p->drop.n + p->grow.n;
    MEST_CHECK(n <= p->sparse->cap_units - after, err, MEST_E_PLUGIN,
               "scheduler %s: %s: %" PRId64 " more units make %" PRId64 ", but room was reserved for %" PRId64, host->who, p->name, n, after + n,
               p->sparse->cap_units);
    for (int64_t i = 0; i < n; i++)
        MEST_CHECK((!mest_sparse_active(p->sparse, units[i]) || listed(&p->drop, units[i])) && !listed(&p->grow, units[i]), err, MEST_E_PLUGIN,
                   "scheduler %s: %s: unit %" PRId64 " cannot grow, it is active already", host->who, p->name, units[i]);
    return accept(host, &p->grow, units, n, err);
}

static mest_status host_remove_samples(mest_host *host, const int64_t *ids, int64_t n, mest_error *err)
{
    MEST_TRY(check_phase(host, err));
    MEST_CHECK(host->samples, err, MEST_E_STATE, "scheduler %s: there are no samples", host->who);
    MEST_TRY(check_order(host, "sample", "data", ids, n, host->samples->count, err));
    for (int64_t i = 0; i < n; i++)
        MEST_CHECK(mest_sample_active(host->samples, ids[i]) && !listed(&host->removed_samples, ids[i]), err, MEST_E_PLUGIN,
                   "scheduler %s: sample %" PRId64 " is removed already", host->who, ids[i]);
    MEST_CHECK(n == 0 || host->removed_samples.n + n < host->samples->active, err, MEST_E_PLUGIN,
               "scheduler %s: %" PRId64 " samples to remove of the %" PRId64 " that are left", host->who, host->removed_samples.n + n,
               host->samples->active);
    return accept(host, &host->removed_samples, ids, n, err);
}

static bool host_sample_active(mest_host *host, int64_t id)
{
    return host->samples && id >= 0 && id < host->samples->count && mest_sample_active(host->samples, id);
}

static int64_t host_sample_class(mest_host *host, int64_t id)
{
    return host->samples && host->sample_class && id >= 0 && id < host->samples->count ? host->sample_class[id] : -1;
}

static uint64_t host_random(mest_host *host, uint64_t stream, uint64_t counter)
{
    return mest_rng(mest_rng(host->seed, (uint64_t)MEST_STREAM_PLUGIN << 32, (uint64_t)host->who_index), stream, counter);
}

static void *host_allocate(mest_host *host, size_t bytes) { return mest_alloc(host->heap, bytes, 1); }
static void host_release(mest_host *host, void *memory, size_t bytes) { mest_free(host->heap, memory, bytes, 1); }
static void host_log(mest_host *host, mest_log_level level, const char *text) { mest_logf(host->heap, level, "%s: %s", host->who, text); }

const mest_host_api *mest_host_functions(void)
{
    static const mest_host_api api = {
        .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof api,
        .sparse_count = host_sparse_count, .sparse_info = host_sparse_info, .active_units = host_active_units,
        .unit_scores = host_unit_scores, .lowest_units = host_lowest_units, .sample_inactive = host_sample_inactive,
        .reserve = host_reserve, .keep_gradients = host_keep_gradients, .drop = host_drop, .grow = host_grow,
        .remove_samples = host_remove_samples, .sample_active = host_sample_active, .sample_class = host_sample_class,
        .random = host_random, .allocate = host_allocate, .release = host_release, .log = host_log,
    };
    return &api;
}

/* ---- applying ---- */

mest_status mest_host_leave(mest_host *host, bool apply, mest_host_report *report, mest_error *err)
{
    mest_status status = MEST_OK;
    int64_t removed = 0, grown = 0, samples = host->removed_samples.n;
    int changed = 0;
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        if (apply && status == MEST_OK && (p->drop.n > 0 || p->grow.n > 0)) {
            /* The snapshot follows the pattern like optimizer state: a later scheduler may still ask for scores. */
            mest_real *follow[MEST_HOST_SLOTS + 1];
            int n = 0;
            for (; n < p->n_slots; n++)
                follow[n] = p->slots[n];
            if (p->grad_snapshot)
                follow[n++] = p->grad_snapshot;
            status = host->scratch ? mest_sparse_edit(p->sparse, p->drop.ids, p->drop.n, p->grow.ids, p->grow.n, follow, n, host->scratch, err)
                                   : mest_fail(err, MEST_E_INTERNAL, "schedulers: no scratch was planned");
            removed += p->drop.n;
            grown += p->grow.n;
            changed++;
        }
        clear_proposal(host, &p->drop);
        clear_proposal(host, &p->grow);
    }
    for (int64_t i = 0; apply && status == MEST_OK && i < samples; i++)
        mest_sample_remove(host->samples, host->removed_samples.ids[i]);
    clear_proposal(host, &host->removed_samples);
    host->phase = MEST_HOST_NONE;
    if (!apply || status != MEST_OK || !report || (changed == 0 && samples == 0))
        return status;
    report->removed += removed;
    report->grown += grown;
    report->n_params += changed;
    report->removed_samples += samples;
    size_t used = strlen(report->text);
    if (changed)
        snprintf(report->text + used, sizeof report->text - used, "%s%s: %" PRId64 " units removed, %" PRId64 " grown in %d parameter%s",
                 used ? "; " : "", host->who, removed, grown, changed, changed == 1 ? "" : "s");
    used = strlen(report->text);
    if (samples)
        snprintf(report->text + used, sizeof report->text - used, "%s%s: %" PRId64 " samples removed", used ? "; " : "", host->who, samples);
    return MEST_OK;
}
