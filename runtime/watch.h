/* SPDX-License-Identifier: Apache-2.0 */
/* What became of a pattern: how far it is from where the run began, and how much of what was grown stayed.
 *
 *   mest_watch         one entry for each sparse parameter of the host; exists only if the recipe asks for it (watch_patterns)
 *   mest_watch_param   the pattern of the beginning, what grew last, and the counts since the last report
 *
 * Memory: about two bytes a unit (mest_unit_list). Notes allocate nothing, so schedulers may move patterns at every step.
 */
#ifndef MEST_RUNTIME_WATCH_H
#define MEST_RUNTIME_WATCH_H

#include "mest/plugin.h"
#include "sparse/unit_list.h"

typedef struct mest_watch_param {
    const mest_sparse *sparse;
    mest_unit_list start;           /* units of the beginning */
    mest_unit_list grown;           /* units that grew when something last did */
    int64_t n_removed, n_grown;     /* since the last report */
    double distance;                /* of the pattern with that version; see mest_watch_distance */
    uint32_t distance_version;
    bool distance_known;
    int64_t n_earlier, n_survivors; /* units that had grown before, and those of them that this report's removals left */
} mest_watch_param;

typedef struct mest_watch {
    mest_heap *heap;
    mest_watch_param *params;
    int n;
} mest_watch;

/* Capacities must be final. The present patterns are the beginning. */
mest_status mest_watch_create(mest_watch **watch, mest_heap *heap, mest_sparse *const *weights, int n, mest_error *err);
void mest_watch_destroy(mest_watch *watch);
/* The present patterns are the beginning: of a run that goes on from a checkpoint without this state. */
mest_status mest_watch_restart(mest_watch *watch, mest_error *err);
/* After an edit of parameter `param`: what it dropped and grew, ascending. */
void mest_watch_note(mest_watch *watch, int param, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow);
/* After a report: counts begin again. */
void mest_watch_reset(mest_watch *watch);
/* Jaccard distance of the present pattern to that of the beginning, 1 - |both| / |either|: 0 the same, 1 nothing in common.
 * O(u) once for a pattern, kept until the pattern moves. */
double mest_watch_distance(mest_watch_param *param);

mest_status mest_watch_save(const mest_watch *watch, mest_state_io write, void *stream, mest_error *err);
/* MEST_E_STATE when it was written for other parameters, MEST_E_FORMAT when it is damaged. */
mest_status mest_watch_load(mest_watch *watch, mest_state_io read, void *stream, mest_error *err);

#endif
