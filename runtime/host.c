/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the host, the table of its services, and how proposals are applied. */
#include "runtime/host_parts.h"

#include "runtime/channels.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/rng.h"

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

static void free_snapshot(mest_host *host, mest_host_param *p)
{
    if (p->grad_snapshot)
        mest_free(host->heap, p->grad_snapshot, mest_host_cap_values(p), sizeof *p->grad_snapshot);
    p->grad_snapshot = NULL;
    if (p->group)
        mest_channels_forget(host->model, p->group - 1);
}

void mest_host_free_arrays(mest_host *host)
{
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        free_snapshot(host, p);
        if (p->turned)
            mest_free(host->heap, p->turned, (size_t)p->sparse->cap_units, 1);
        p->turned = NULL;
    }
    mest_host_forget(host);
    host->gradients_taken = false;
}

mest_status mest_host_plan(mest_host *host, mest_error *err)
{
    size_t most = 0;
    mest_host_free_arrays(host); /* sized by the old capacity */
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        MEST_TRY(mest_sparse_reserve(p->sparse, p->reserved > p->sparse->active_units ? p->reserved : p->sparse->active_units, err));
        size_t bytes = mest_sparse_edit_scratch(p->sparse, MEST_HOST_SLOTS);
        most = bytes > most ? bytes : most;
    }
    mest_free(host->heap, host->scratch, host->scratch_bytes, 1);
    host->scratch_bytes = 0;
    host->scratch = mest_alloc(host->heap, most, 1);
    MEST_CHECK(host->scratch, err, MEST_E_NOMEM, "schedulers: no memory for %zu bytes of scratch", most);
    host->scratch_bytes = most;
    return MEST_OK;
}

static void free_lists(mest_host *host)
{
    for (int i = 0; i < host->n_params; i++) {
        mest_proposal_free(host->heap, &host->params[i].drop);
        mest_proposal_free(host->heap, &host->params[i].grow);
        mest_proposal_free(host->heap, &host->params[i].set);
    }
    mest_proposal_free(host->heap, &host->removed_samples);
    mest_proposal_free(host->heap, &host->restored_samples);
}

void mest_host_free(mest_host *host)
{
    mest_watch_destroy(host->account);
    host->account = NULL;
    if (!host->heap)
        return;
    free_lists(host);
    mest_host_free_arrays(host);
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
        free_snapshot(host, &host->params[i]);
}

void mest_host_enter(mest_host *host, mest_host_phase phase, const char *who, int who_index)
{
    host->phase = phase;
    host->who = who;
    host->who_index = who_index;
}

/* ---- the table ---- */

static uint64_t host_random(mest_host *host, uint64_t stream, uint64_t counter)
{
    return mest_rng(mest_rng(host->seed, (uint64_t)MEST_STREAM_PLUGIN << 32, (uint64_t)host->who_index), stream, counter);
}

static void *host_allocate(mest_host *host, size_t bytes) { return mest_alloc(host->heap, bytes, 1); }
static void host_release(mest_host *host, void *memory, size_t bytes) { mest_free(host->heap, memory, bytes, 1); }
static int64_t host_epochs(mest_host *host) { return host->epochs; }
static void host_log(mest_host *host, mest_log_level level, const char *text) { mest_logf(host->heap, level, "%s: %s", host->who, text); }

const mest_host_api *mest_host_functions(void)
{
    static const mest_host_api api = {
        .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof api,
        .sparse_count = mest_host_sparse_count, .sparse_info = mest_host_sparse_info, .active_units = mest_host_active_units,
        .unit_scores = mest_host_unit_scores, .lowest_units = mest_host_lowest_units, .sample_inactive = mest_host_sample_inactive,
        .reserve = mest_host_reserve, .keep_gradients = mest_host_keep_gradients, .drop = mest_host_drop, .grow = mest_host_grow,
        .remove_samples = mest_host_remove_samples, .sample_active = mest_host_sample_active, .sample_class = mest_host_sample_class,
        .random = host_random, .allocate = host_allocate, .release = host_release, .log = host_log,
        .get_values = mest_host_get_values, .unit_momentum = mest_host_unit_momentum, .set_values = mest_host_set_values,
        .restore_samples = mest_host_restore_samples, .skip_update = mest_host_skip_update, .probe = mest_host_probe, .watch = mest_host_watch,
        .perturb = mest_host_perturb, .turned_units = mest_host_turned_units, .unit_products = mest_host_unit_products, .units_at = mest_host_units_at,
        .remember = mest_host_remember, .rewind = mest_host_rewind, .schedule_at = mest_host_schedule_at, .freeze = mest_host_freeze,
        .epochs = host_epochs,
    };
    return &api;
}

/* ---- applying ---- */

/* Pattern and values of one parameter. */
static mest_status apply_param(mest_host *host, mest_host_param *p, mest_error *err)
{
    if (p->drop.n > 0 || p->grow.n > 0) {
        /* The snapshot follows the pattern like optimizer state: a later scheduler may still ask for scores. */
        mest_real *follow[MEST_HOST_SLOTS + 2];
        int n = 0;
        for (; n < p->n_slots; n++)
            follow[n] = p->slots[n];
        if (p->grad_snapshot)
            follow[n++] = p->grad_snapshot;
        if (p->remembered)
            follow[n++] = p->remembered;
        MEST_CHECK(host->scratch, err, MEST_E_INTERNAL, "schedulers: no scratch was planned");
        if (p->turned) /* marks go by place, and places move */
            memset(p->turned, 0, (size_t)p->sparse->cap_units);
        if (p->group) {
            const bool between = host->phase == MEST_HOST_BEGIN || host->phase == MEST_HOST_END;
            MEST_CHECK(between || p->drop.n == p->grow.n, err, MEST_E_UNSUPPORTED, "scheduler %s: %s: their number can change between epochs only", host->who,
                       p->name);
            MEST_TRY(mest_channels_edit(host->model, host->optimizer, p->group - 1, p->drop.ids, p->drop.n, p->grow.ids, p->grow.n, follow, n,
                                        host->scratch, host->seed, host->now, err));
        } else {
            MEST_TRY(mest_sparse_edit(p->sparse, p->drop.ids, p->drop.n, p->grow.ids, p->grow.n, follow, n, host->scratch, err));
        }
        if (host->account)
            mest_watch_note(host->account, (int)(p - host->params), p->drop.ids, p->drop.n, p->grow.ids, p->grow.n);
    }
    if (p->set.n > 0)
        mest_sparse_set(p->sparse, p->set.ids, p->set.n, p->set.values);
    return MEST_OK;
}

static void tell(const mest_host *host, mest_host_report *report, const mest_host_report *now)
{
    report->removed += now->removed;
    report->grown += now->grown;
    report->n_params += now->n_params;
    report->removed_samples += now->removed_samples;
    report->restored_samples += now->restored_samples;
    size_t used = strlen(report->text);
    if (now->n_params)
        snprintf(report->text + used, sizeof report->text - used, "%s%s: %" PRId64 " units removed, %" PRId64 " grown in %d parameter%s",
                 used ? "; " : "", host->who, now->removed, now->grown, now->n_params, now->n_params == 1 ? "" : "s");
    used = strlen(report->text);
    if (now->restored_samples)
        snprintf(report->text + used, sizeof report->text - used, "%s%s: %" PRId64 " samples removed, %" PRId64 " back", used ? "; " : "", host->who,
                 now->removed_samples, now->restored_samples);
    else if (now->removed_samples)
        snprintf(report->text + used, sizeof report->text - used, "%s%s: %" PRId64 " samples removed", used ? "; " : "", host->who,
                 now->removed_samples);
}

mest_status mest_host_leave(mest_host *host, bool apply, mest_host_report *report, mest_error *err)
{
    mest_status status = MEST_OK;
    mest_host_report now = { .removed_samples = host->removed_samples.n, .restored_samples = host->restored_samples.n };
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        if (apply && status == MEST_OK)
            status = apply_param(host, p, err);
        now.removed += p->drop.n;
        now.grown += p->grow.n;
        now.n_params += p->drop.n > 0 || p->grow.n > 0;
        p->drop.n = p->grow.n = p->set.n = 0;
    }
    for (int i = 0; i < host->n_params; i++) {
        if (apply && status == MEST_OK && host->params[i].freeze && !host->params[i].frozen)
            status = host->freezer(host->keeper_self, host->params[i].model_param, err);
        host->params[i].freeze = false;
    }
    for (int64_t i = 0; apply && status == MEST_OK && i < now.restored_samples; i++)
        mest_sample_restore(host->samples, host->restored_samples.ids[i]);
    for (int64_t i = 0; apply && status == MEST_OK && i < now.removed_samples; i++)
        mest_sample_remove(host->samples, host->removed_samples.ids[i]);
    if (apply && status == MEST_OK && host->rewind)
        mest_host_apply_rewind(host);
    host->rewind = false;
    host->removed_samples.n = host->restored_samples.n = 0;
    if (host->phase != MEST_HOST_STEP && host->phase != MEST_HOST_STEP_END) /* mutations of an epoch are rare: no memory stays behind */
        free_lists(host);
    host->phase = MEST_HOST_NONE;
    if (apply && status == MEST_OK && report)
        tell(host, report, &now);
    return status;
}
