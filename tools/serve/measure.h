/* SPDX-License-Identifier: Apache-2.0 */
/* measure.h - loss and accuracy of a version on the samples of the store that are never trained on. */
#ifndef TOOLS_SERVE_MEASURE_H
#define TOOLS_SERVE_MEASURE_H

#include "serve/engine.h"
#include "serve/replay.h"
#include "serve/train_body.h"

typedef struct measured {
    int64_t samples;
    double loss;        /* mean; NaN: not known */
    double accuracy;    /* NaN where the task has no classes */
} measured;

typedef struct measure measure; /* predictors of its own, kept from one time to the next */

measure *measure_create(const sample_spec *spec, const char *loss, int64_t batch);
void measure_destroy(measure *m); /* NULL is fine */
/* Measures version `id` of the engine (0: the current) on up to `most` samples; the same ones for each call with the same `seed` while nothing is added.
 * `rest` is called after each batch; when it returns false the measurement ends early (*result has no samples). */
bool measure_version(measure *m, engine *e, int64_t id, replay *store, int64_t most, uint64_t seed, bool (*rest)(void *user), void *user,
                     measured *result, fault *f);

#endif
