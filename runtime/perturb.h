/* SPDX-License-Identifier: Apache-2.0 */
/* A disturbed update of a sparse parameter (mest_host_api.perturb): L1 and noise join the gradient, and units that turn around are noted. */
#ifndef MEST_RUNTIME_PERTURB_H
#define MEST_RUNTIME_PERTURB_H

#include "runtime/optim.h"

struct mest_perturbation {
    double l1, noise;   /* added to each gradient: l1 * sign(w) + noise * n, n standard normal */
    uint64_t seed, step;
};

typedef struct mest_perturb_job {
    const mest_optimizer *o;
    int32_t param;
    mest_real *w, *slots[MEST_OPTIM_SLOTS];
    const mest_real *g;
    int64_t units, elements;
    double scale, lr, wd;
    uint64_t t;
    uint8_t *turned;    /* [units]; NULL: nobody asks */
} mest_perturb_job;

void mest_perturbed_update(const mest_perturb_job *job, const mest_threads *threads);

#endif
