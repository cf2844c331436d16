/* SPDX-License-Identifier: Apache-2.0 */
/* The memory plan of a program, for those who look inside it: the search for what to recompute, the report. */
#ifndef MEST_RUNTIME_PLAN_H
#define MEST_RUNTIME_PLAN_H

#include "runtime/lives.h"
#include "runtime/program.h"

/* Lifetimes of the program's values as a problem of numbers. Nodes and values keep their ids; id arrays are lent by the graph. */
mest_status mest_plan_lives(const mest_program *p, mest_lives *lives, mest_error *err);
/* Places of one order: per value (twins have none of their own in a program) and, for scratch, per step; NULL: only the size is wanted. */
mest_status mest_plan_place(const mest_lives *lives, const mest_lives_run *run, size_t *offset, size_t *scratch, size_t *end, mest_error *err);
/* How a forward node is run a second time in a step: by the operator that its own names for it (mest_op.again), or by its own without what it
 * writes on the side (mest_op.state_in). The kernel that gives the same bits; NULL: the reference. */
bool mest_plan_again_op(const mest_program *p, mest_id node);
const mest_kernel *mest_plan_again_kernel(const mest_program *p, mest_id node);
/* Inputs of mest_op.again: from the node's inputs and outputs. At most n_in + n_out; returns their number. */
int mest_plan_again_inputs(const mest_node *node, mest_id *in);
bool mest_plan_is_view(const mest_program *p, mest_id node); /* its output may share its input's memory; a node with outputs */
size_t mest_plan_bytes(const mest_program *p, mest_id value); /* what a value takes in the arena; SIZE_MAX: too much */

#endif
