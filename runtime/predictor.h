/* SPDX-License-Identifier: Apache-2.0 */
/* The predictor behind the public handle. Programs see a model whose parameters are the predictor's own: another version is moved in by
 * changing their pointers; derived lists and packed copies see by the serial numbers of the blocks what moved. */
#ifndef MEST_RUNTIME_PREDICTOR_H
#define MEST_RUNTIME_PREDICTOR_H

#include "runtime/program.h"
#include "runtime/snapshot.h"

enum { MEST_PREDICTOR_SIZES = 22 };

struct mest_predictor {
    mest_heap *heap;          /* the view's: its counters are those of this predictor */
    mest_snapshot *now;       /* held */
    bool pinned;
    mest_model view;
    mest_model *model;
    mest_param *params;
    mest_sparse *sparse;
    int64_t *cap_units;       /* that derived lists have room for */
    int32_t n_params;
    mest_threads threads;
    unsigned cpu;
    bool use_xnnpack;
    mest_derived *derived;
    mest_arena arena;
    int n_sizes;
    int64_t size[MEST_PREDICTOR_SIZES];         /* samples a program, ascending */
    mest_program *program[MEST_PREDICTOR_SIZES]; /* built when first wanted */
    bool fixed;               /* the file fixes the batch */
    const char *output;       /* the only one, NULL: all */
    mest_shape *shapes;       /* of the graph's inputs, as mest_program_spec wants them */
    uint8_t *needed, *given;  /* of the graph's inputs: do the outputs depend on it; is it among those of the call */
    char *padded;             /* inputs of a run that is filled up */
    size_t padded_bytes;
};

/* Moves to the current version unless pinned. */
void mest_predictor_follow(mest_predictor *p);
/* The smallest program for at least n samples (the largest if there is none), built if needed. */
mest_status mest_predictor_program(mest_predictor *p, int64_t n, mest_program **program, mest_error *err);

#endif
