/* SPDX-License-Identifier: Apache-2.0 */
/* batcher.h - dynamic batching: requests that come within a short time are answered by one run of the network, on one version of the weights.
 * The first of a batch waits for others at most batch_delay_ms; a batch is full at max_batch samples. */
#ifndef TOOLS_SERVE_BATCHER_H
#define TOOLS_SERVE_BATCHER_H

#include "serve/engine.h"
#include "serve/v2_infer.h"

typedef struct batcher batcher;

typedef struct batch_item {
    infer_call *call;                       /* read; its out[] and version are filled in */
    fault fault;                            /* status 0: answered */
    void (*done)(struct batch_item *item);  /* called by a worker, or by batcher_stop; the item is the caller's again */
    void *user;
    double arrived_ms, waited_ms;           /* set by the batcher */
    struct batch_item *next;
} batch_item;

typedef struct batcher_options {
    const settings *settings;               /* lent */
    const tensor_spec *in, *out;            /* lent, for as long as the batcher lives */
    int n_inputs, n_outputs;
    engine *(*engine)(void *user);          /* a reference to the engine that answers now */
    void (*ran)(void *user, int64_t samples, double seconds); /* after each batch; from workers */
    void *user;
} batcher_options;

/* NULL: f says why. */
batcher *batcher_create(const batcher_options *options, fault *f);
/* False: too many wait already, or it was stopped; `done` is not called. */
bool batcher_add(batcher *b, batch_item *item, fault *f);
/* Requests that wait or are being answered. */
int64_t batcher_load(const batcher *b);
/* Answers all that wait, ends the workers, frees everything. NULL is fine. */
void batcher_destroy(batcher *b);

#endif
