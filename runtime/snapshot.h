/* SPDX-License-Identifier: Apache-2.0 */
/* Versions of the weights: how they are held, shared and handed to readers.
 *
 *   mest_block       one immutable array (values, or the index of a pattern), shared by the versions in which it is the same
 *   mest_snapshot    one version: the model's parameters as they were, their arrays in blocks
 *   mest_registry    a model's versions: the current one, those it keeps
 *
 * How readers get the current version without waiting. The registry's `current` is one 64-bit word: the slot of the version in its top 8
 * bits, and below them how many references were taken since it became current. Taking one is a single fetch-and-add, which both counts
 * the reference and says to which version it belongs; nobody can free the version between the two, as there is no between. When another
 * version becomes current, the count is moved from the word to the version (split reference counting). While a version is current its
 * own count carries MEST_CURRENT on top, so that references given back early do not bring it to zero. A slot is used again only after
 * its version was freed, so a reader that holds a version may tell by the slot alone whether it is still the current one.
 */
#ifndef MEST_RUNTIME_SNAPSHOT_H
#define MEST_RUNTIME_SNAPSHOT_H

#include <pthread.h>
#include <stdatomic.h>

#include "mest/serve.h"
#include "runtime/model.h"

typedef struct mest_block {
    _Atomic int64_t refs;
    size_t bytes;             /* of the array, which begins at the next multiple of MEST_ALIGN */
    uint32_t serial;          /* of its model: packed copies and derived lists tell by it whether they are stale */
} mest_block;

typedef struct mest_snapshot_param {
    mest_block *values, *index;                 /* NULL: the model's own memory (frozen, constant, or a borrowed version) */
    uint32_t from_version, from_value_version;  /* the model's counters when it was copied: equal ones mean equal content */
    int64_t cap_units;                          /* room the session has planned for the pattern */
} mest_snapshot_param;

struct mest_snapshot {
    mest_model *model;
    struct mest_registry *registry;
    _Atomic int64_t refs;
    unsigned slot;
    bool borrowed;
    bool kept;                /* under the registry's lock */
    mest_version_info info;   /* complete before it is published; `current` and `kept` are told at each look */
    mest_param *params;       /* the model's, with values and sparse pointing at the blocks */
    mest_sparse *sparse;      /* one for each of params; unused where it is dense */
    mest_snapshot_param *blocks;
    int32_t n_params;
};

enum { MEST_SLOT_SHIFT = 56, MEST_VERSION_SLOTS = MEST_MAX_VERSIONS + 1 }; /* slot 0: nothing published */
#define MEST_CURRENT ((int64_t)1 << 60)

typedef struct mest_registry {
    _Atomic uint64_t current;
    mest_snapshot *_Atomic slot[MEST_VERSION_SLOTS];
    _Atomic int64_t bytes;    /* of all blocks */
    _Atomic int32_t n_alive, n_borrowed;
    /* of the thread that trains */
    uint32_t serial;          /* of the last block */
    mest_snapshot *newest;    /* published last, a reference is held: blocks that did not change are shared with it */
    int64_t last_id;
    int64_t parent;           /* of the next version */
    /* under the lock */
    pthread_mutex_t lock;
    mest_snapshot *kept[MEST_MAX_VERSIONS]; /* ascending ids, a reference each */
    int n_kept, most_kept;
} mest_registry;

/* registry.c */
mest_status mest_registry_create(mest_registry **registry, mest_heap *heap, mest_error *err);
void mest_registry_destroy(mest_registry *registry, mest_heap *heap); /* lets go of what is kept */
static inline unsigned mest_registry_current_slot(const mest_registry *r) { return (unsigned)(atomic_load(&r->current) >> MEST_SLOT_SHIFT); }
/* MEST_E_STATE when versions of the model are alive (only_borrowed: those that use its memory). `what` begins the text. */
mest_status mest_registry_idle(const mest_model *m, bool only_borrowed, const char *what, mest_error *err);
typedef struct mest_position { int64_t epoch, step; } mest_position;
mest_status mest_registry_publish(mest_model *m, const mest_publish_options *options, mest_position at, mest_version_info *info, mest_error *err);

/* snapshot.c */
mest_status mest_snapshot_capture(mest_snapshot **snapshot, mest_model *m, bool borrow, mest_error *err);
void mest_snapshot_retain(mest_snapshot *s); /* somebody must hold it already */
/* A model for programs and the exporter: the graph and file of the version's model, the version's parameters. It owns nothing. */
void mest_snapshot_view(const mest_snapshot *s, mest_model *view);

#endif
