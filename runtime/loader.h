/* SPDX-License-Identifier: Apache-2.0 */
/* Batches from a source: keyed order over the active samples, fetched ahead by one worker thread.
 *
 *   mest_sample_set   which samples are still active (one bit each)
 *   mest_loader       walks an epoch batch by batch; two buffers, so that the next batch is decoded while this one trains
 */
#ifndef MEST_RUNTIME_LOADER_H
#define MEST_RUNTIME_LOADER_H

#include "mest/data.h"
#include "runtime/alloc.h"

typedef struct mest_sample_set {
    mest_heap *heap;
    uint8_t *bits;          /* 1 = active */
    int64_t count, active;
} mest_sample_set;
mest_status mest_sample_set_create(mest_sample_set *set, mest_heap *heap, int64_t count, mest_error *err); /* all active */
void mest_sample_set_destroy(mest_sample_set *set);
static inline bool mest_sample_active(const mest_sample_set *s, int64_t id) { return s->bits[id >> 3] >> (id & 7) & 1; }
void mest_sample_remove(mest_sample_set *set, int64_t id);
void mest_sample_restore(mest_sample_set *set, int64_t id);

typedef struct mest_loader mest_loader;
typedef struct mest_batch {
    const int64_t *ids;
    int64_t n;              /* samples, <= the loader's batch */
    int n_inputs;           /* 1 unless the source has several */
    const void *const *inputs; /* each: n packed samples */
    const void *targets;    /* n packed targets */
} mest_batch;

typedef struct mest_loader_plan {
    uint64_t seed;
    int64_t epoch;
    bool shuffle, augment, drop_last;
    int64_t first_batch;    /* batches to skip (resume in the middle of an epoch) */
} mest_loader_plan;

/* The source must outlive the loader. All memory (both buffers, order of ids) is allocated here; next allocates nothing. */
mest_status mest_loader_create(mest_loader **loader, mest_heap *heap, const mest_source *source, int64_t batch, mest_error *err);
void mest_loader_destroy(mest_loader *loader);
const mest_source_info *mest_loader_info(const mest_loader *loader);
/* Starts an epoch: order = the active ids, ascending, shuffled by Fisher-Yates keyed by (seed, epoch) if asked for. set NULL = all. */
mest_status mest_loader_begin(mest_loader *loader, const mest_sample_set *set, const mest_loader_plan *plan, mest_error *err);
int64_t mest_loader_bytes(const mest_loader *loader);    /* of the heap */
int64_t mest_loader_batches(const mest_loader *loader);  /* in this epoch, skipped ones included */
/* The next batch, valid until the following call; batch->n == 0 at the end of the epoch. A failed fetch is reported when its batch is due. */
mest_status mest_loader_next(mest_loader *loader, mest_batch *batch, mest_error *err);

#endif
