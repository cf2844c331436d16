/* SPDX-License-Identifier: Apache-2.0 */
/* Services that ask for something. Everything a scheduler says is checked here; what it proposes waits until its callback returned. */
#include "runtime/host_parts.h"

#include "runtime/channels.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- lists ---- */

void mest_proposal_free(mest_heap *heap, mest_proposal *p)
{
    mest_free(heap, p->ids, (size_t)p->cap, sizeof *p->ids);
    mest_free(heap, p->values, (size_t)p->cap * (size_t)p->width, sizeof *p->values);
    *p = (mest_proposal){ 0 };
}

/* Room for n entries; what is there stays. */
static mest_status make_room(mest_heap *heap, mest_proposal *p, int64_t n, mest_error *err)
{
    if (n <= p->cap)
        return MEST_OK;
    mest_proposal larger = { .cap = p->cap ? n + n / 2 : n, .width = p->width };
    MEST_NEW(heap, larger.ids, larger.cap, err, "proposals");
    if (p->width > 0) {
        larger.values = mest_alloc(heap, (size_t)larger.cap * (size_t)p->width, sizeof *larger.values);
        if (!larger.values) {
            mest_free(heap, larger.ids, (size_t)larger.cap, sizeof *larger.ids);
            return mest_fail(err, MEST_E_NOMEM, "proposals: no memory for %" PRId64 " values", larger.cap * p->width);
        }
        if (p->n)
            memcpy(larger.values, p->values, (size_t)p->n * (size_t)p->width * sizeof *p->values);
    }
    if (p->n)
        memcpy(larger.ids, p->ids, (size_t)p->n * sizeof *p->ids);
    larger.n = p->n;
    mest_proposal_free(heap, p);
    *p = larger;
    return MEST_OK;
}

bool mest_proposal_has(const mest_proposal *p, int64_t id)
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

/* Merged from the end, in place. */
mest_status mest_proposal_add(mest_heap *heap, mest_proposal *p, const int64_t *ids, const float *values, int64_t n, mest_error *err)
{
    int64_t extra = 0;
    for (int64_t i = 0, k = 0; k < n; k++) {
        while (i < p->n && p->ids[i] < ids[k])
            i++;
        extra += i == p->n || p->ids[i] != ids[k];
    }
    if (extra == 0)
        return MEST_OK;
    MEST_TRY(make_room(heap, p, p->n + extra, err));
    int64_t i = p->n - 1, k = n - 1, to = p->n + extra - 1;
    p->n += extra;
    for (; k >= 0; to--) {
        bool theirs = i < 0 || ids[k] > p->ids[i];
        if (!theirs && ids[k] == p->ids[i])
            k--;
        if (p->width > 0 && theirs) {
            for (int32_t e = 0; e < p->width; e++)
                p->values[to * p->width + e] = (mest_real)values[k * p->width + e];
        } else if (p->width > 0 && to != i) {
            memmove(p->values + to * p->width, p->values + i * p->width, (size_t)p->width * sizeof *p->values);
        }
        p->ids[to] = theirs ? ids[k] : p->ids[i];
        if (theirs)
            k--;
        else
            i--;
    }
    return MEST_OK;
}

/* ---- asking ---- */

mest_status mest_host_reserve(mest_host *host, int param, int64_t units, mest_error *err)
{
    mest_host_param *p = mest_host_find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_CHECK(host->phase == MEST_HOST_CREATE, err, MEST_E_STATE, "scheduler %s: reserve is for create", host->who);
    MEST_CHECK(units >= 0 && units <= p->sparse->n_units, err, MEST_E_ARGUMENT, "scheduler %s: %s: %" PRId64 " units reserved of %" PRId64,
               host->who, p->name, units, p->sparse->n_units);
    p->reserved = units > p->reserved ? units : p->reserved;
    return MEST_OK;
}

/* Room for gradients of the stored weights; it stays until an epoch begins that nobody keeps gradients of. */
static mest_status make_snapshots(mest_host *host, mest_error *err)
{
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        if (p->group)
            MEST_TRY(mest_channels_keep(host->model, p->group - 1, err));
        if (p->grad_snapshot)
            continue;
        MEST_NEW(host->heap, p->grad_snapshot, mest_host_cap_values(p), err, "gradient snapshot");
        memset(p->grad_snapshot, 0, mest_host_cap_values(p) * sizeof *p->grad_snapshot);
    }
    return MEST_OK;
}

mest_status mest_host_keep_gradients(mest_host *host, mest_error *err)
{
    MEST_CHECK(host->phase == MEST_HOST_BEGIN, err, MEST_E_STATE, "scheduler %s: keep_gradients is for epoch_begin", host->who);
    MEST_TRY(make_snapshots(host, err));
    host->keep_gradients = true;
    return MEST_OK;
}

static mest_status check_phase(const mest_host *host, mest_error *err)
{
    MEST_CHECK(host->phase == MEST_HOST_BEGIN || host->phase == MEST_HOST_END || host->phase == MEST_HOST_STEP || host->phase == MEST_HOST_STEP_END, err,
               MEST_E_STATE, "scheduler %s: proposals are for epoch_begin, epoch_end, step_begin and step_end", host->who);
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

mest_status mest_host_drop(mest_host *host, int param, const int64_t *units, int64_t n, mest_error *err)
{
    mest_host_param *p = mest_host_find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_TRY(check_phase(host, err));
    MEST_CHECK(!p->frozen || n == 0, err, MEST_E_STATE, "scheduler %s: %s is frozen, its units stay as they are", host->who, p->name);
    MEST_TRY(check_order(host, "unit", p->name, units, n, mest_sparse_ids(p->sparse), err));
    for (int64_t i = 0; i < n; i++)
        MEST_CHECK(mest_sparse_active(p->sparse, units[i]) && !mest_proposal_has(&p->drop, units[i]), err, MEST_E_PLUGIN,
                   "scheduler %s: %s: unit %" PRId64 " cannot be dropped, it is not active", host->who, p->name, units[i]);
    for (int64_t i = 0; i < n && p->set.n > 0; i++)
        MEST_CHECK(!mest_proposal_has(&p->set, units[i]), err, MEST_E_PLUGIN,
                   "scheduler %s: %s: unit %" PRId64 " cannot be dropped, new values were given for it", host->who, p->name, units[i]);
    return mest_proposal_add(host->heap, &p->drop, units, NULL, n, err);
}

/* Units of list ids in [from, to). */
static int64_t listed_within(const mest_proposal *p, int64_t from, int64_t to)
{
    int64_t bound[2];
    for (int i = 0; i < 2; i++) {
        int64_t low = 0, high = p->n, want = i ? to : from;
        while (low < high) {
            int64_t middle = low + (high - low) / 2;
            if (p->ids[middle] < want)
                low = middle + 1;
            else
                high = middle;
        }
        bound[i] = low;
    }
    return bound[1] - bound[0];
}

/* Active units with ids in [from, to) as they will be when the proposals so far are applied. */
static int64_t active_after(const mest_host_param *p, int64_t from, int64_t to)
{
    return mest_sparse_lower_bound(p->sparse, to) - mest_sparse_lower_bound(p->sparse, from) - listed_within(&p->drop, from, to)
           + listed_within(&p->grow, from, to);
}

/* units, free and in order, against what only some schemes ask: one choice of a slot, groups that are not too full. */
static mest_status check_slots(mest_host *host, const mest_host_param *p, const int64_t *units, int64_t n, mest_error *err)
{
    const mest_sparse *s = p->sparse;
    const int64_t most = mest_sparse_group_most(s), span = s->group_units * s->choices;
    for (int64_t i = 0, in_group = 0; i < n && span; i++) {
        const int64_t slot = units[i] / s->choices, group = units[i] / span;
        MEST_CHECK((i == 0 || slot > units[i - 1] / s->choices) && active_after(p, slot * s->choices, (slot + 1) * s->choices) == 0, err,
                   MEST_E_PLUGIN, "scheduler %s: %s: unit %" PRId64 " cannot grow, another choice of its slot is active", host->who, p->name,
                   units[i]);
        in_group = i && units[i - 1] / span == group ? in_group + 1 : active_after(p, group * span, (group + 1) * span) + 1;
        MEST_CHECK(in_group <= most, err, MEST_E_PLUGIN, "scheduler %s: %s: unit %" PRId64 " cannot grow, its group holds %" PRId64 " already",
                   host->who, p->name, units[i], most);
    }
    return MEST_OK;
}

mest_status mest_host_grow(mest_host *host, int param, const int64_t *units, int64_t n, mest_error *err)
{
    mest_host_param *p = mest_host_find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_TRY(check_phase(host, err));
    MEST_CHECK(!p->frozen || n == 0, err, MEST_E_STATE, "scheduler %s: %s is frozen, its units stay as they are", host->who, p->name);
    MEST_TRY(check_order(host, "unit", p->name, units, n, mest_sparse_ids(p->sparse), err));
    int64_t after = p->sparse->active_units - p->drop.n + p->grow.n;
    MEST_CHECK(n <= p->sparse->cap_units - after, err, MEST_E_PLUGIN,
               "scheduler %s: %s: %" PRId64 " more units make %" PRId64 ", but room was reserved for %" PRId64, host->who, p->name, n, after + n,
               p->sparse->cap_units);
    for (int64_t i = 0; i < n; i++)
        MEST_CHECK((!mest_sparse_active(p->sparse, units[i]) || mest_proposal_has(&p->drop, units[i])) && !mest_proposal_has(&p->grow, units[i]), err, MEST_E_PLUGIN,
                   "scheduler %s: %s: unit %" PRId64 " cannot grow, it is active already", host->who, p->name, units[i]);
    MEST_TRY(check_slots(host, p, units, n, err));
    return mest_proposal_add(host->heap, &p->grow, units, NULL, n, err);
}

mest_status mest_host_remove_samples(mest_host *host, const int64_t *ids, int64_t n, mest_error *err)
{
    MEST_TRY(check_phase(host, err));
    MEST_CHECK(host->samples, err, MEST_E_STATE, "scheduler %s: there are no samples", host->who);
    MEST_TRY(check_order(host, "sample", "data", ids, n, host->samples->count, err));
    for (int64_t i = 0; i < n; i++)
        MEST_CHECK(mest_sample_active(host->samples, ids[i]) && !mest_proposal_has(&host->removed_samples, ids[i]), err, MEST_E_PLUGIN,
                   "scheduler %s: sample %" PRId64 " is removed already", host->who, ids[i]);
    MEST_CHECK(n == 0 || host->removed_samples.n + n < host->samples->active, err, MEST_E_PLUGIN,
               "scheduler %s: %" PRId64 " samples to remove of the %" PRId64 " that are left", host->who, host->removed_samples.n + n,
               host->samples->active);
    return mest_proposal_add(host->heap, &host->removed_samples, ids, NULL, n, err);
}

mest_status mest_host_restore_samples(mest_host *host, const int64_t *ids, int64_t n, mest_error *err)
{
    MEST_TRY(check_phase(host, err));
    MEST_CHECK(host->samples, err, MEST_E_STATE, "scheduler %s: there are no samples", host->who);
    MEST_TRY(check_order(host, "sample", "data", ids, n, host->samples->count, err));
    for (int64_t i = 0; i < n; i++)
        MEST_CHECK(!mest_sample_active(host->samples, ids[i]) && !mest_proposal_has(&host->restored_samples, ids[i]), err, MEST_E_PLUGIN,
                   "scheduler %s: sample %" PRId64 " cannot be restored, it is active", host->who, ids[i]);
    return mest_proposal_add(host->heap, &host->restored_samples, ids, NULL, n, err);
}

mest_status mest_host_set_values(mest_host *host, int param, const int64_t *units, int64_t n, const float *values, mest_error *err)
{
    mest_host_param *p = mest_host_find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_TRY(check_phase(host, err));
    MEST_CHECK(!p->frozen || n == 0, err, MEST_E_STATE, "scheduler %s: %s is frozen, its units stay as they are", host->who, p->name);
    MEST_TRY(check_order(host, "unit", p->name, units, n, mest_sparse_ids(p->sparse), err));
    MEST_CHECK(!p->group, err, MEST_E_UNSUPPORTED, "scheduler %s: %s: channels cannot be given values", host->who, p->name);
    MEST_CHECK(n == 0 || values, err, MEST_E_PLUGIN, "scheduler %s: %s: no values for %" PRId64 " units", host->who, p->name, n);
    for (int64_t i = 0; i < n; i++) {
        bool stays = mest_proposal_has(&p->grow, units[i]) || (mest_sparse_active(p->sparse, units[i]) && !mest_proposal_has(&p->drop, units[i]));
        MEST_CHECK(stays && !mest_proposal_has(&p->set, units[i]), err, MEST_E_PLUGIN, "scheduler %s: %s: unit %" PRId64 " %s", host->who, p->name,
                   units[i], stays ? "gets new values twice" : "gets new values, but is not active");
        for (int32_t e = 0; e < p->sparse->unit_elements; e++)
            MEST_CHECK(isfinite(values[i * p->sparse->unit_elements + e]), err, MEST_E_PLUGIN,
                       "scheduler %s: %s: a value of unit %" PRId64 " is not finite", host->who, p->name, units[i]);
    }
    p->set.width = p->sparse->unit_elements;
    return mest_proposal_add(host->heap, &p->set, units, values, n, err);
}

mest_status mest_host_skip_update(mest_host *host, mest_error *err)
{
    MEST_CHECK(host->phase == MEST_HOST_STEP, err, MEST_E_STATE, "scheduler %s: skip_update is for step_begin", host->who);
    host->skip_update = true;
    return MEST_OK;
}

mest_status mest_host_perturb(mest_host *host, double l1, double noise, mest_error *err)
{
    MEST_CHECK(host->phase == MEST_HOST_STEP, err, MEST_E_STATE, "scheduler %s: perturb is for step_begin", host->who);
    MEST_TRY(mest_host_only_weights(host, "looks at gradients of single weights", err));
    MEST_CHECK(l1 >= 0 && noise >= 0 && isfinite(l1) && isfinite(noise), err, MEST_E_ARGUMENT, "scheduler %s: l1 %g and noise %g must be finite and not negative",
               host->who, l1, noise);
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        if (!p->turned)
            p->turned = mest_alloc(host->heap, (size_t)p->sparse->cap_units, 1);
        MEST_CHECK(p->turned, err, MEST_E_NOMEM, "scheduler %s: no memory for %" PRId64 " marks", host->who, p->sparse->cap_units);
        memset(p->turned, 0, (size_t)p->sparse->cap_units);
    }
    host->perturbed = true;
    host->l1 = l1;
    host->noise = noise;
    return MEST_OK;
}

/* ---- probes ---- */

static mest_status check_probe(mest_host *host, const char *what, const mest_probe *probe, mest_error *err)
{
    MEST_CHECK(host->phase == MEST_HOST_STEP && host->prober, err, MEST_E_STATE, "scheduler %s: %s is for step_begin", host->who, what);
    MEST_TRY(mest_host_only_weights(host, "looks at gradients of single weights", err));
    MEST_CHECK(probe && probe->struct_size >= sizeof *probe, err, MEST_E_ARGUMENT, "scheduler %s: mest_probe without struct_size", host->who);
    MEST_CHECK(probe->n_top >= 0 && (probe->n_top == 0 || probe->top), err, MEST_E_PLUGIN, "scheduler %s: a list of %d wishes", host->who,
               probe->n_top);
    for (int i = 0; i < probe->n_top; i++) {
        const mest_gradient_top *t = &probe->top[i];
        if (!mest_host_find(host, t->param, err))
            return MEST_E_ARGUMENT;
        MEST_TRY(check_order(host, "unit", host->params[t->param].name, t->also, t->n_also, mest_sparse_ids(host->params[t->param].sparse), err));
        MEST_CHECK(t->k >= 0 && (t->k == 0 || (t->units && t->norms)), err, MEST_E_PLUGIN, "scheduler %s: %s: the largest %" PRId64 " gradients",
                   host->who, host->params[t->param].name, t->k);
        for (int k = 0; k < i; k++)
            MEST_CHECK(probe->top[k].param != t->param, err, MEST_E_PLUGIN, "scheduler %s: %s: two wishes in one %s", host->who,
                       host->params[t->param].name, what);
    }
    MEST_CHECK(!probe->visit || (probe->visit_param >= -1 && probe->visit_param < host->n_params), err, MEST_E_ARGUMENT,
               "scheduler %s: sparse parameter %d does not exist, there are %d", host->who, probe->visit_param, host->n_params);
    MEST_CHECK(probe->logit_scale >= 0 && isfinite(probe->logit_scale), err, MEST_E_ARGUMENT, "scheduler %s: logits cannot be scaled by %g", host->who,
               probe->logit_scale);
    MEST_CHECK(!probe->add || (probe->keep && !probe->hessian && host->gradients_taken), err, MEST_E_ARGUMENT,
               "scheduler %s: gradients are added to kept ones, and there are none", host->who);
    MEST_CHECK(!probe->hessian || probe->keep, err, MEST_E_ARGUMENT, "scheduler %s: a Hessian product that is not kept", host->who);
    return MEST_OK;
}

mest_status mest_host_probe(mest_host *host, mest_probe *probe, mest_error *err)
{
    MEST_TRY(check_probe(host, "probe", probe, err));
    if (probe->keep) {
        host->gradients_taken = false; /* should the run fail */
        MEST_TRY(make_snapshots(host, err));
    }
    MEST_TRY(host->prober(host->prober_self, probe, err));
    host->gradients_taken |= probe->keep;
    return MEST_OK;
}

mest_status mest_host_watch(mest_host *host, mest_probe *probe, mest_error *err)
{
    MEST_TRY(check_probe(host, "watch", probe, err));
    MEST_CHECK(!host->watch, err, MEST_E_STATE, "scheduler %s: this step is watched already", host->who);
    MEST_CHECK(!probe->hessian && !probe->add && probe->logit_scale == 0, err, MEST_E_ARGUMENT, "scheduler %s: a watched step is an ordinary one", host->who);
    if (probe->keep) {
        host->gradients_taken = false;
        MEST_TRY(make_snapshots(host, err));
    }
    host->watch = probe;
    return MEST_OK;
}
