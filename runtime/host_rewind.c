/* SPDX-License-Identifier: Apache-2.0 */
/* Services that go back: a copy of all weights that follows the patterns, and the learning-rate schedule of an earlier epoch. The sparse
 * parameters' part of the copy is here, the rest is the session's (keeper). And the service that freezes, which is the session's as well. */
#include <inttypes.h>
#include <string.h>

#include "runtime/host_parts.h"

void mest_host_forget(mest_host *host)
{
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        if (p->remembered)
            mest_free(host->heap, p->remembered, mest_host_cap_values(p), sizeof *p->remembered);
        p->remembered = NULL;
    }
}

static mest_status make_copies(mest_host *host, mest_error *err)
{
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        if (p->remembered)
            continue;
        p->remembered = mest_calloc(host->heap, mest_host_cap_values(p), sizeof *p->remembered);
        if (!p->remembered) {
            mest_host_forget(host);
            return mest_fail(err, MEST_E_NOMEM, "scheduler %s: no memory to remember the %zu values of '%s'", host->who, mest_host_cap_values(p), p->name);
        }
    }
    return MEST_OK;
}

static mest_status check_begin(const mest_host *host, const char *what, mest_error *err)
{
    MEST_CHECK(host->phase == MEST_HOST_BEGIN, err, MEST_E_STATE, "scheduler %s: %s is for epoch_begin", host->who, what);
    return MEST_OK;
}

mest_status mest_host_remember(mest_host *host, mest_error *err)
{
    MEST_TRY(check_begin(host, "remember", err));
    MEST_TRY(mest_host_only_weights(host, "goes back to earlier weights", err));
    MEST_TRY(make_copies(host, err));
    if (host->keeper)
        MEST_TRY(host->keeper(host->keeper_self, false, err));
    for (int i = 0; i < host->n_params; i++)
        memcpy(host->params[i].remembered, host->params[i].sparse->values, (size_t)host->params[i].sparse->stored * sizeof(mest_real));
    return MEST_OK;
}

mest_status mest_host_rewind(mest_host *host, mest_error *err)
{
    MEST_TRY(check_begin(host, "rewind", err));
    MEST_CHECK(host->n_params == 0 || host->params[0].remembered, err, MEST_E_STATE, "scheduler %s: nothing was remembered to go back to", host->who);
    for (int i = 0; i < host->n_params; i++)
        MEST_CHECK(!host->params[i].frozen, err, MEST_E_STATE, "scheduler %s: '%s' is frozen and cannot go back", host->who, host->params[i].name);
    host->rewind = true;
    return MEST_OK;
}

void mest_host_apply_rewind(mest_host *host)
{
    for (int i = 0; i < host->n_params; i++) {
        mest_host_param *p = &host->params[i];
        const size_t n = (size_t)p->sparse->stored;
        memcpy(p->sparse->values, p->remembered, n * sizeof(mest_real));
        p->sparse->value_version++;
        for (int k = 0; k < p->n_slots; k++)
            memset(p->slots[k], 0, n * sizeof(mest_real));
    }
    host->gradients_taken = false; /* they are those of other weights */
    if (host->keeper)
        (void)host->keeper(host->keeper_self, true, NULL); /* bringing back cannot fail */
}

mest_status mest_host_schedule_at(mest_host *host, int64_t epoch, int64_t n_epochs, mest_error *err)
{
    MEST_TRY(check_begin(host, "schedule_at", err));
    MEST_CHECK(epoch >= 0 && epoch < n_epochs, err, MEST_E_ARGUMENT, "scheduler %s: epoch %" PRId64 " of %" PRId64 " for the learning rate", host->who, epoch, n_epochs);
    host->lr_epoch = epoch;
    host->lr_epochs = n_epochs;
    return MEST_OK;
}

mest_status mest_host_freeze(mest_host *host, int param, mest_error *err)
{
    MEST_TRY(check_begin(host, "freeze", err));
    MEST_TRY(mest_host_only_weights(host, "freezes layers", err));
    mest_host_param *p = mest_host_find(host, param, err);
    if (!p)
        return MEST_E_ARGUMENT;
    MEST_CHECK(host->freezer, err, MEST_E_UNSUPPORTED, "scheduler %s: this host cannot freeze", host->who);
    p->freeze = true;
    return MEST_OK;
}

mest_status mest_host_remembered_save(const mest_host *host, mest_state_io write, void *stream)
{
    mest_status status = MEST_OK;
    for (int i = 0; i < host->n_params && status == MEST_OK; i++) {
        const mest_host_param *p = &host->params[i];
        int64_t n = p->remembered ? p->sparse->stored : -1;
        status = write(stream, &n, sizeof n);
        if (status == MEST_OK && p->remembered)
            status = write(stream, p->remembered, (size_t)n * sizeof(mest_real));
    }
    return status;
}

mest_status mest_host_remembered_load(mest_host *host, mest_state_io read, void *stream, mest_error *err)
{
    MEST_TRY(make_copies(host, err));
    for (int i = 0; i < host->n_params; i++) {
        const mest_host_param *p = &host->params[i];
        int64_t n;
        MEST_TRY(read(stream, &n, sizeof n));
        MEST_CHECK(n == p->sparse->stored, err, MEST_E_FORMAT, "'%s': %" PRId64 " values were remembered, not %" PRId64, p->name, n, p->sparse->stored);
        MEST_TRY(read(stream, p->remembered, (size_t)n * sizeof(mest_real)));
    }
    return MEST_OK;
}
