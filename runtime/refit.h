/* SPDX-License-Identifier: Apache-2.0 */
/* Changes of nodes whose kernels have been chosen, for passes of the phase KERNELS: a node becomes another one only if a kernel serves that in
 * the layouts its operands have.
 *
 *   mest_refit        what a node would become
 *   mest_refit_fits   would it have a kernel?
 *   mest_refit_do     makes it so
 */
#ifndef MEST_RUNTIME_REFIT_H
#define MEST_RUNTIME_REFIT_H

#include "runtime/match.h"
#include "runtime/program.h"

enum { MEST_REFIT_MAX = 12 };
#define MEST_REFIT_NEW ((mest_id)-2) /* an output that does not exist yet */

typedef struct mest_refit {
    mest_id node;
    const char *op;                  /* helper operator */
    const void *params;              /* memory of the graph */
    int n_in, n_out;
    mest_id in[MEST_REFIT_MAX];      /* MEST_NONE: absent */
    mest_id out[MEST_REFIT_MAX];     /* values of this node or of later ones, which lose them; MEST_NONE; MEST_REFIT_NEW */
    int like[MEST_REFIT_MAX];        /* per new output: it has the layout of this input; 0: plain */
} mest_refit;

/* The node as it is. */
mest_refit mest_refit_of(const mest_pass_args *a, mest_id node);
bool mest_refit_fits(mest_pass_args *a, const mest_refit *r);
/* To be called when it fits. Fills in ids of new outputs. Does not count. */
mest_status mest_refit_do(mest_pass_args *a, mest_refit *r);

/* A value in the batch-lane layout? */
bool mest_in_lanes(const mest_graph *g, mest_id v);

#endif
