/* SPDX-License-Identifier: Apache-2.0 */
/* Reading dense gradients of sparse weights while a program runs backward: the machinery behind mest_probe.
 *
 *   mest_gradient_reader   its hook sees a layer's operands just before the layer's gradient node runs, computes the dense weight gradient
 *                          in bands of whole unit rows, and hands units to heaps and visitors
 *
 * Where the batch comes in parts, a gradient is known with the last of them. The sum of a dense gradient is kept for a window only: for as many
 * numbers as the sparse parameters store. The batch runs once a window (mest_gradient_reader_next), which at 90 % sparsity is ten times. */
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
    mest_real *sum;             /* batches in parts: the sums of the rows that begin at numbers low..low + window - 1; numbers of all layers count through */
    size_t sum_count;
    int64_t low, window, total;
} mest_gradient_reader;

/* Checks that the program can answer, allocates what is needed. The reader stays where it is until it is closed. parts: runs of a program that make a batch. */
mest_status mest_gradient_reader_open(mest_gradient_reader *r, mest_host *host, mest_probe *probe, const mest_program *program, int32_t parts, mest_error *err);
/* About what a look at all sparse parameters takes beside a step, with the lists of a method that replaces a third of the units. */
int64_t mest_gradient_reader_bytes(const mest_host *host, int threads, bool in_parts);
/* After a run over all parts: false if everything was seen, otherwise the batch is to be run once more. */
bool mest_gradient_reader_next(mest_gradient_reader *r);
/* After the run: results into the probe's arrays (in order) if `done`; frees. A reader that was not opened, zeroed, is fine. */
void mest_gradient_reader_close(mest_gradient_reader *r, bool done);

#endif
