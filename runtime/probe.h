/* SPDX-License-Identifier: Apache-2.0 */
/* Reading dense gradients of sparse weights while a program runs backward: the machinery behind mest_probe.
 *
 *   mest_gradient_reader   its hook sees a layer's operands just before the layer's gradient node runs, computes the dense weight gradient
 *                          in bands of whole unit rows, and hands units to heaps and visitors
 */
#ifndef MEST_RUNTIME_PROBE_H
#define MEST_RUNTIME_PROBE_H

#include "runtime/growth.h"
#include "runtime/program.h"

typedef struct mest_gradient_reader {
    mest_host *host;
    mest_probe *probe;
    const mest_threads *threads;
    mest_growth *growth;        /* one per wish */
    mest_real *band, *scratch;  /* a band of dW; mest_outer_scratch numbers for each thread */
    size_t band_count, scratch_count;
    int64_t piece_units;
    int64_t *units;             /* one piece */
    uint8_t *active;
    float *gradients;
    size_t gradient_count;
    mest_run_hook hook;
} mest_gradient_reader;

/* Checks that the program can answer, allocates what is needed. The reader stays where it is until it is closed. */
mest_status mest_gradient_reader_open(mest_gradient_reader *r, mest_host *host, mest_probe *probe, const mest_program *program, mest_error *err);
/* After the run: results into the probe's arrays (in order) if `done`; frees. A reader that was not opened, zeroed, is fine. */
void mest_gradient_reader_close(mest_gradient_reader *r, bool done);

#endif
