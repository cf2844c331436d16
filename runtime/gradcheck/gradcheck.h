/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of mest_gradcheck share. Compiled for mest_real = double only.
 *
 *   gradcheck         one check: session, program, data, what was found so far
 *   gradcheck_random  -1 or 1, and uniform numbers, by key: the same check gives the same directions
 */
#ifndef MEST_RUNTIME_GRADCHECK_H
#define MEST_RUNTIME_GRADCHECK_H

#include "mest/gradcheck.h"
#include "runtime/rng.h"
#include "runtime/session.h"

typedef struct gradcheck {
    const mest_gradcheck_options *o;
    mest_gradcheck_summary *sum;
    mest_model *model;
    mest_session *session;
    mest_program *p;
    mest_run run;
    uint8_t *learns;                /* per value of the program: a trainable parameter is before it, through nothing that is not differentiable */
    int32_t n_learns;
    int64_t n;                      /* samples */
    mest_source_info info;          /* of the samples */
    void *inputs[MEST_SAMPLE_MAX_INPUTS], *targets; /* as the caller's library takes them */
    mest_real *real_inputs[MEST_SAMPLE_MAX_INPUTS], *real_targets; /* floats as this library takes them; NULL for whole numbers */
    size_t input_bytes[MEST_SAMPLE_MAX_INPUTS], target_bytes;      /* of the former */
    size_t input_count[MEST_SAMPLE_MAX_INPUTS], target_count;
    double began;
    bool first_is_node;             /* sum->first names a node: nothing later is as good */
    mest_error *err;
} gradcheck;

static inline double gradcheck_sign(uint64_t key, uint64_t i) { return mest_rng(key, 77, i) & 1 ? 1 : -1; }
static inline double gradcheck_noise(uint64_t key, uint64_t i) { return 2 * mest_rng_uniform(key, 78, i) - 1; }

/* gradcheck.c */
bool gradcheck_time_left(const gradcheck *c, double share); /* of the time that was given */
void gradcheck_report(gradcheck *c, mest_gradcheck_item *item); /* counts it and tells the caller */
/* Compares analytic with (plus - minus) / 2h by the rules of the header. `length`: of the gradient along the direction; `noise`: what rounding may
 * do to one of the two values. True: good, and *error is final. */
bool gradcheck_agree(const gradcheck *c, double analytic, double numeric, double length, double noise, double *error);
/* Steps that are tried, relative to the size of values; 0 past the end. */
double gradcheck_step(int k);

/* data.c: samples into c->inputs and c->targets, and the session told what they are. */
mest_status gradcheck_data(gradcheck *c);
void gradcheck_data_free(gradcheck *c);
mest_status gradcheck_feed(gradcheck *c);

/* node.c: every node alone, while the program runs forward. */
mest_status gradcheck_nodes(gradcheck *c);
/* model.c: the loss along directions over the parameters. */
mest_status gradcheck_model(gradcheck *c);
mest_status gradcheck_kernels(gradcheck *c);

#endif
