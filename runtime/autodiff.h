/* SPDX-License-Identifier: Apache-2.0 */
/* Reverse-mode differentiation: appends backward nodes to the graph. */
#ifndef MEST_RUNTIME_AUTODIFF_H
#define MEST_RUNTIME_AUTODIFF_H

#include "runtime/op.h"

/* Differentiates g->loss (scalar) with respect to the values with wanted[id] != 0 (parameters, or inputs in tests); afterwards
 * values[id].grad is the gradient's value, or MEST_NONE where the loss does not depend on it. Types must be inferred.
 * MEST_E_UNSUPPORTED names every op without a gradient on a live path in one message. */
mest_status mest_autodiff(mest_graph *g, const uint8_t *wanted, mest_error *err);
/* The same without a loss: from[0..n_from-1] are differentiated; seed[k], a value that the caller has made, is the gradient of from[k]. */
mest_status mest_autodiff_from(mest_graph *g, const uint8_t *wanted, int n_from, const mest_id *from, const mest_id *seed, mest_error *err);

#endif
