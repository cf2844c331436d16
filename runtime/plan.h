/* SPDX-License-Identifier: Apache-2.0 */
/* The memory plan of a program, for those who look inside it: the search for what to recompute, the report. */
#ifndef MEST_RUNTIME_PLAN_H
#define MEST_RUNTIME_PLAN_H

#include "runtime/lives.h"
#include "runtime/program.h"

/* Lifetimes of the program's values as a problem of numbers. Nodes and values keep their ids; id arrays are lent by the graph. */
mest_status mest_plan_lives(const mest_program *p, mest_lives *lives, mest_error *err);
size_t mest_plan_bytes(const mest_program *p, mest_id value); /* what a value takes in the arena; SIZE_MAX: too much */

#endif
