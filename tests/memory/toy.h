/* SPDX-License-Identifier: Apache-2.0 */
/* Random memory problems in the shape of a training step, and an arena that knows what each of its cells holds. */
#ifndef TESTS_MEMORY_TOY_H
#define TESTS_MEMORY_TOY_H

#include "runtime/lives.h"

enum { TOY_OPS = 200, TOY_VALUES = 300, TOY_IN = 4 };

typedef struct toy {
    mest_heap heap;
    mest_lives lives;
    int32_t in[TOY_OPS][TOY_IN], out[TOY_OPS][2], again[TOY_OPS][2];
    uint64_t state;
} toy;

/* A chain of n forward operations with some branches, views, in-place operations and a few that may not run twice; then its backward part. */
void toy_make(toy *t, uint64_t seed, int n);
void toy_free(toy *t);
uint32_t toy_below(toy *t, uint32_t n);
/* Places the values of the order and plays it. False: something is read that is not there (any more), or two values overlap. */
bool toy_plays(toy *t, const mest_lives_run *r, const uint8_t *dropped);

#endif
