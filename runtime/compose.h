/* SPDX-License-Identifier: Apache-2.0 */
/* What passes use that write an operator out in others: constants, and nodes in front of the one that is written out. All come from the graph's
 * memory; MEST_E_NOMEM (with a text in a->err) or NULL when there is none. */
#ifndef MEST_RUNTIME_COMPOSE_H
#define MEST_RUNTIME_COMPOSE_H

#include "runtime/match.h"

/* Constants: n int64 numbers, one float, a float tensor and a bool tensor whose elements the caller fills in. */
mest_status mest_compose_ints(mest_pass_args *a, int n, const int64_t *v, mest_id *id);
mest_status mest_compose_scalar(mest_pass_args *a, double v, mest_id *id);
mest_real *mest_compose_table(mest_pass_args *a, const mest_shape *shape, mest_id *id);
uint8_t *mest_compose_bools(mest_pass_args *a, const mest_shape *shape, mest_id *id);

/* *v with another shape, with other axes: nodes in front of `at`. */
mest_status mest_compose_reshape(mest_pass_args *a, mest_id at, const mest_shape *shape, mest_id *v);
mest_status mest_compose_transpose(mest_pass_args *a, mest_id at, int rank, const int64_t *perm, mest_id *v);
/* An operator of two inputs. */
mest_status mest_compose_two(mest_pass_args *a, mest_id at, const char *op, mest_id x, mest_id y, mest_id *out);

#endif
