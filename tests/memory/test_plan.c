/* SPDX-License-Identifier: Apache-2.0 */
/* Lifetimes and placement on random problems: the plan is played through a toy arena in which every cell remembers what was written last, so that a
 * value that is overwritten too early, or never made, is found out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/memory/toy.h"

static int passed, failed;

static void check(bool ok, uint64_t seed, const char *what)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL problem %llu: %s\n", (unsigned long long)seed, what);
}

static void lifetimes(uint64_t seed)
{
    toy t;
    toy_make(&t, seed, 4 + (int)(seed % 30));
    mest_lives_run r;
    mest_error err = {0};
    if (mest_lives_run_create(&r, &t.lives, &err) != MEST_OK)
        exit(2);
    uint8_t dropped[TOY_VALUES] = {0};
    mest_lives_evaluate(&r, NULL, SIZE_MAX);
    const size_t before = r.peak;
    check(r.n_steps == t.lives.n_ops && r.seconds_again <= 0, seed, "nothing dropped: the order is the graph's");
    check(toy_plays(&t, &r, NULL), seed, "nothing dropped");
    mest_lives_evaluate(&r, dropped, before - 1);
    check(r.peak == before && r.excess >= 1, seed, "an empty set is no set; excess above a limit that is too low");
    for (int round = 0; round < 8; round++) {
        for (int32_t v = 0; v < t.lives.n_values; v++)
            dropped[v] = t.lives.values[v].again && toy_below(&t, 2);
        mest_lives_evaluate(&r, dropped, SIZE_MAX);
        check(toy_plays(&t, &r, dropped), seed, "a random set dropped");
        size_t most = 0;
        for (int32_t s = 0; s < r.n_steps; s++)
            most = r.live[s] > most ? r.live[s] : most;
        check(most == r.peak, seed, "the peak is the largest of the steps");
    }
    mest_lives_run_free(&r);
    toy_free(&t);
}

int main(void)
{
    for (uint64_t seed = 1; seed <= 300; seed++)
        lifetimes(seed);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}
