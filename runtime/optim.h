/* SPDX-License-Identifier: Apache-2.0 */
/* Optimizers: one update rule on flat arrays, so sparse and dense parameters are the same to it.
 *
 *   mest_optim_rule   name, number of slots, step function
 *   mest_optimizer    the rule's settings and the slots of every parameter
 */
#ifndef MEST_RUNTIME_OPTIM_H
#define MEST_RUNTIME_OPTIM_H

#include "runtime/model.h"
#include "runtime/threads.h"

enum { MEST_OPTIM_SLOTS = 2 };

struct mest_optimizer;

typedef struct mest_optim_rule {
    const char *name;
    int n_slots;
    bool has_momentum;       /* slot 0 is an average of gradients */
    double eps;              /* PyTorch's default */
    /* w, slots updated from g * scale; n entries; lr and weight decay of this parameter; t = 1 for the first step */
    void (*step)(const struct mest_optimizer *o, mest_real *w, const mest_real *g, mest_real *const *slots, int64_t n, double scale, double lr,
                 double weight_decay, uint64_t t);
} mest_optim_rule;

/* optim_rules.c: NULL if there is no such rule; all names, for messages. */
const mest_optim_rule *mest_optim_rule_find(const char *name);
extern const char mest_optim_rule_names[];

typedef struct mest_perturbation mest_perturbation; /* runtime/perturb.h */

typedef struct mest_param_state {
    mest_real *slot[MEST_OPTIM_SLOTS]; /* capacity entries each */
    mest_real *snapshot;             /* lent by the host: where the last step's gradient goes when a scheduler wants it, else NULL */
    uint8_t *turned;                 /* lent by the host: [units] which ones turned around in a disturbed update */
    mest_real *sum;                  /* capacity entries: gradients of the parts of a batch so far; NULL where batches are whole */
    int64_t capacity;
} mest_param_state;

typedef struct mest_optimizer {
    const mest_optim_rule *rule;
    double momentum, weight_decay, beta1, beta2, eps, lr_decay;
    bool nesterov;
    mest_model *model;
    mest_param_state *state; /* per parameter of the model */
    int32_t n_state;
    const mest_perturbation *perturb; /* of the step at work, for sparse parameters; NULL: none */
    int64_t since;           /* steps done when the slots were cleared: 0 unless a version was put back */
} mest_optimizer;

/* Finds the rule by name and allocates nothing. */
mest_status mest_optimizer_init(mest_optimizer *o, mest_model *model, const char *rule, mest_error *err);
/* Slots for every trainable parameter at its present capacity (zeroed). */
mest_status mest_optimizer_allocate(mest_optimizer *o, mest_error *err);
void mest_optimizer_free(mest_optimizer *o);
/* Gives back the slots of one parameter, which is not updated any more. */
void mest_optimizer_drop(mest_optimizer *o, int param);
/* Forgets what it has gathered: slots 0, and Adam and AdamW correct their bias, Adagrad decays its rate anew from step `at` on (steps done so far). */
void mest_optimizer_clear(mest_optimizer *o, int64_t at);
int64_t mest_optimizer_bytes(const mest_optimizer *o);

/* accumulate.c: room for the sums of every parameter that has slots or could have them, or none. Nothing outlives a step in them. */
mest_status mest_optimizer_sums(mest_optimizer *o, bool wanted, const uint8_t *frozen, mest_error *err);

#endif
