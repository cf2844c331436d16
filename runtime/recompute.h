/* SPDX-License-Identifier: Apache-2.0 */
/* Recomputation: forward values that a training program drops and computes again in its backward part, to need less memory. The second run
 * gives the same bits, so training does too. */
#ifndef MEST_RUNTIME_RECOMPUTE_H
#define MEST_RUNTIME_RECOMPUTE_H

#include "runtime/program.h"

/* After kernels are prepared, before memory is planned: drops as much as p->spec.arena_limit asks for, if p->spec.recompute allows it, and
 * changes the graph accordingly. Whether the limit is met, the plan tells. Fills p->again. */
mest_status mest_recompute(mest_program *p, mest_error *err);

#endif
