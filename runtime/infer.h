/* SPDX-License-Identifier: Apache-2.0 */
/* Types of all values, and folding of what depends on constants only. */
#ifndef MEST_RUNTIME_INFER_H
#define MEST_RUNTIME_INFER_H

#include "runtime/op.h"

/* Infers the types of one node's outputs from its inputs' types (and constant data). */
mest_status mest_infer_node(mest_graph *g, mest_id node, mest_error *err);
/* All nodes in order. fold: nodes whose inputs are constants are run (results up to max_fold_bytes in total) and become constants;
 * the nodes are left without live outputs, mest_graph_prune drops them. Inputs must have complete shapes. */
mest_status mest_infer_graph(mest_graph *g, bool fold, size_t max_fold_bytes, mest_error *err);
/* One node of that: decides the branch it is in, infers, folds while *left bytes suffice. */
mest_status mest_infer_step(mest_graph *g, mest_id node, bool fold, size_t *left, mest_error *err);

#endif
