/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the host share: host.c (life, applying), host_look.c (services that look), host_propose.c (services that ask). */
#ifndef MEST_RUNTIME_HOST_PARTS_H
#define MEST_RUNTIME_HOST_PARTS_H

#include "runtime/plugin.h"

/* The parameter a scheduler named; NULL, with err, when there is none. */
mest_host_param *mest_host_find(mest_host *host, int param, mest_error *err);
/* MEST_E_UNSUPPORTED if channels are removed as a whole; `does`: what of the scheduler is not for them. */
mest_status mest_host_only_weights(const mest_host *host, const char *does, mest_error *err);
mest_status mest_host_check_range(mest_host *host, const mest_host_param *p, int64_t first, int64_t n, mest_error *err);

/* Is the id in the list? O(log n). */
bool mest_proposal_has(const mest_proposal *p, int64_t id);
/* Adds an ascending list (and its values, if the proposal carries values) without ids that are there already. */
mest_status mest_proposal_add(mest_heap *heap, mest_proposal *p, const int64_t *ids, const float *values, int64_t n, mest_error *err);
void mest_proposal_free(mest_heap *heap, mest_proposal *p);

static inline size_t mest_host_cap_values(const mest_host_param *p)
{
    return (size_t)p->sparse->cap_units * (size_t)p->sparse->unit_elements;
}

/* Brings the copy back into params; the patterns have changed already. */
void mest_host_apply_rewind(mest_host *host);

/* The services, in the order of the table. */
int mest_host_sparse_count(mest_host *host);
mest_status mest_host_sparse_info(mest_host *host, int param, mest_sparse_info *info, mest_error *err);
mest_status mest_host_active_units(mest_host *host, int param, int64_t first, int64_t n, int64_t *units, mest_error *err);
mest_status mest_host_unit_scores(mest_host *host, int param, double lambda, bool normalised, int64_t first, int64_t n, float *scores,
                                  mest_error *err);
mest_status mest_host_lowest_units(mest_host *host, int param, double lambda, bool normalised, int64_t k, int64_t *units, mest_error *err);
mest_status mest_host_sample_inactive(mest_host *host, int param, uint64_t key, const int64_t *exclude, int64_t n_exclude, int64_t n,
                                      int64_t *units, mest_error *err);
mest_status mest_host_reserve(mest_host *host, int param, int64_t units, mest_error *err);
mest_status mest_host_keep_gradients(mest_host *host, mest_error *err);
mest_status mest_host_drop(mest_host *host, int param, const int64_t *units, int64_t n, mest_error *err);
mest_status mest_host_grow(mest_host *host, int param, const int64_t *units, int64_t n, mest_error *err);
mest_status mest_host_remove_samples(mest_host *host, const int64_t *ids, int64_t n, mest_error *err);
bool mest_host_sample_active(mest_host *host, int64_t id);
int64_t mest_host_sample_class(mest_host *host, int64_t id);
mest_status mest_host_get_values(mest_host *host, int param, int64_t first, int64_t n, float *values, mest_error *err);
mest_status mest_host_unit_momentum(mest_host *host, int param, int64_t first, int64_t n, float *norms, mest_error *err);
mest_status mest_host_set_values(mest_host *host, int param, const int64_t *units, int64_t n, const float *values, mest_error *err);
mest_status mest_host_restore_samples(mest_host *host, const int64_t *ids, int64_t n, mest_error *err);
mest_status mest_host_skip_update(mest_host *host, mest_error *err);
mest_status mest_host_probe(mest_host *host, mest_probe *probe, mest_error *err);
mest_status mest_host_watch(mest_host *host, mest_probe *probe, mest_error *err);
int64_t mest_host_units_at(mest_host *host, int param, double sparsity);
mest_status mest_host_perturb(mest_host *host, double l1, double noise, mest_error *err);
mest_status mest_host_turned_units(mest_host *host, int param, int64_t room, int64_t *units, int64_t *n, mest_error *err);
mest_status mest_host_remember(mest_host *host, mest_error *err);
mest_status mest_host_rewind(mest_host *host, mest_error *err);
mest_status mest_host_freeze(mest_host *host, int param, mest_error *err);
mest_status mest_host_schedule_at(mest_host *host, int64_t epoch, int64_t n_epochs, mest_error *err);
mest_status mest_host_unit_products(mest_host *host, int param, int64_t first, int64_t n, float *products, mest_error *err);

#endif
