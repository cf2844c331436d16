/* SPDX-License-Identifier: Apache-2.0 */
/* trainer.h - training of one served model in the background: a thread of low priority that works a share of the time, pauses while many requests wait,
 * and after each round of steps offers a candidate, which becomes the current version if it passes its test on samples that are never trained on. */
#ifndef TOOLS_SERVE_TRAINER_H
#define TOOLS_SERVE_TRAINER_H

#include "serve/replay.h"
#include "serve/served.h"
#include "serve/train_body.h"

/* Opens the store of samples and, if training was going on when the service ended, goes on with it. NULL: f says why the model cannot be trained; it is
 * served all the same. */
trainer *trainer_create(served *model, fault *f);
/* Finishes the step, saves the state, ends the thread. NULL is fine. */
void trainer_destroy(trainer *t);

const sample_spec *trainer_samples(const trainer *t);
/* All of these may be called from any thread, and wait for no step. */
bool trainer_add(trainer *t, const train_call *c, fault *f);
bool trainer_start(trainer *t, const cJSON *changes, fault *f);
void trainer_cancel(trainer *t);
/* Makes version `id` the current one: one in memory, or one of the folder, which is loaded (then training begins anew from it). */
bool trainer_promote(trainer *t, int64_t id, fault *f);
/* The same for an earlier version, 0: the one before the current; training goes on from there. */
bool trainer_rollback(trainer *t, int64_t id, fault *f);
/* A JSON object; the curve's points from round `since` on. */
void trainer_status(trainer *t, int64_t since, text *out);

#endif
