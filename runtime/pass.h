/* SPDX-License-Identifier: Apache-2.0 */
/* Passes: named changes of a program's graph, one file in runtime/passes/ and one line in passes.def each; the order of the list is the
 * order in which they run.
 *
 *   mest_pass         one pass: name, phase, the programs it serves, what it does
 *   mest_pass_args    what it works on
 *   mest_pass_phase   where in the making of a program it runs
 *
 * A pass leaves a graph that computes the same: outputs, gradients and updates are equal up to rounding with the pass on and off
 * (tests/golden/passes.c compares). Nodes are rewritten in place, so that the order stays valid: the last node of what was found becomes the
 * new node; what nobody reads any longer is dropped by the driver.
 */
#ifndef MEST_RUNTIME_PASS_H
#define MEST_RUNTIME_PASS_H

#include "runtime/op.h"

struct mest_model;
struct mest_program;
struct mest_program_spec;

typedef enum mest_pass_phase {
    MEST_PASS_WEIGHTS = 0,  /* first of all; only parameters and constants have types. What lies between a parameter and the layer that uses
                             * it: decides which weights can be sparse, so it runs on the model's graph too (spec is NULL then) */
    MEST_PASS_FORM = 1,     /* types known, constants folded; before the loss */
    MEST_PASS_FORWARD = 2,  /* loss attached, before differentiation */
    MEST_PASS_BACKWARD = 3, /* gradients there, before updates and layouts */
    MEST_PASS_KERNELS = 4,  /* layouts and kernels chosen, nothing prepared: what follows from which kernels there are. mest_pass_args.program */
    MEST_PASS_PHASES = 5
} mest_pass_phase;

enum { MEST_FOR_TRAIN = 1u << 0, MEST_FOR_EVAL = 1u << 1, MEST_FOR_INFER = 1u << 2, MEST_FOR_ALL = 7u }; /* bit: mest_program_kind */

typedef struct mest_pass_args {
    mest_graph *graph;
    struct mest_model *model;
    const struct mest_program_spec *spec; /* NULL: the model's own graph, to see what weights can be (WEIGHTS only) */
    struct mest_program *program;         /* KERNELS only: its steps go with the nodes; see runtime/refit.h */
    int32_t *uses;                        /* per value at the start of the pass: readers (inputs of nodes, graph outputs, loss) */
    int32_t n_uses;                       /* values at the start of the pass */
    bool typed;                           /* types are known: new nodes get theirs at once */
    mest_id *before;                      /* of nodes that were added (mest_insert): the node in front of which they go */
    int32_t n_before, cap_before;
    int count;                            /* to be counted up: places where the pass did something */
    mest_error *err;
} mest_pass_args;

typedef struct mest_pass {
    const char *name, *summary;
    mest_pass_phase phase;
    unsigned serves;                      /* MEST_FOR_... */
    bool required;                        /* part of what the program means: cannot be turned off */
    mest_status (*run)(mest_pass_args *a);
} mest_pass;

/* Passes in their order, NULL past the end; the number of them is a constant of the build. */
const mest_pass *mest_pass_at(int index);
int mest_pass_count(void);
/* Is the pass named in `off` ("all" or NAME[,NAME]; NULL: none)? Required ones never are. */
bool mest_pass_is_off(const mest_pass *pass, const char *off);
/* MEST_E_ARGUMENT naming what is not a pass, or is a required one. */
mest_status mest_passes_check(const char *off, mest_error *err);
/* For passes of the phase KERNELS, after each change: nodes that nobody needs any longer go, readers are counted again, and *at, the node the pass
 * stands at, becomes the one before the first that came behind it. Pointers into the graph's nodes are void then. */
mest_status mest_pass_settle(mest_pass_args *a, mest_id *at);
/* Runs the passes of a phase. program: in the phase KERNELS only, otherwise NULL. counts: one number a pass, added to; may be NULL. */
mest_status mest_passes_run(mest_pass_phase phase, mest_graph *g, struct mest_model *m, const struct mest_program_spec *spec, struct mest_program *program,
                            const char *off, int *counts, mest_error *err);

#endif
