/* SPDX-License-Identifier: Apache-2.0 */
/* How one sparsity of a whole network becomes a density for each layer: the Erdos-Renyi rules.
 *
 *   density_l = eps * raw_l,   raw_l = (O + I + kh + kw) / (O * I * kh * kw)   erk (with kernel: Evci et al., "Rigging the Lottery", ICML 2020)
 *                              raw_l = (O + I) / (O * I)                       er  (Mocanu et al., 2018: SET)
 *
 * eps is such that the layers together keep a part 1 - sparsity of all their weights. A layer that would get more than it can hold (1, or
 * what its scheme allows) gets just that, and eps is found anew for the others, until none does (RigL's iteration). */
#ifndef MEST_RUNTIME_DISTRIBUTION_H
#define MEST_RUNTIME_DISTRIBUTION_H

#include "runtime/status.h"
#include "runtime/tensor.h"

typedef struct mest_layer_density {
    const char *name;
    const mest_shape *shape; /* rank >= 2 */
    double fixed;            /* density that is given (1: the layer stays dense); < 0: to be found */
    double most;             /* largest density of the layer */
    double density;          /* out */
} mest_layer_density;

/* eps may be NULL. MEST_E_ARGUMENT: the layers whose density is given hold more than there is to share. */
mest_status mest_distribute(mest_layer_density *layers, int n, double sparsity, bool kernel, double *eps, mest_error *err);

#endif
