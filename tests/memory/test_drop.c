/* SPDX-License-Identifier: Apache-2.0 */
/* The search for what to drop, compared with every subset of small random problems. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/drop.h"
#include "tests/memory/toy.h"

static int passed, failed;

static void check(bool ok, uint64_t seed, const char *what)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL problem %llu: %s\n", (unsigned long long)seed, what);
}

static int32_t looks_at(const mest_lives *l, int32_t v)
{
    while (l->values[v].producer >= 0 && l->ops[l->values[v].producer].form.view && l->ops[l->values[v].producer].out[0] == v && l->values[l->ops[l->values[v].producer].form.in[0]].planned)
        v = l->ops[l->values[v].producer].form.in[0];
    return v;
}

/* What may be chosen: roots under views that backward operations read, if everything that looks at them may be run again. */
static int choices(const mest_lives *l, int32_t *root)
{
    int n = 0;
    for (int32_t v = 0; v < l->n_values; v++) {
        bool free_to = l->values[v].planned && looks_at(l, v) == v, read = false;
        for (int32_t u = 0; u < l->n_values; u++)
            if (l->values[u].planned && looks_at(l, u) == v)
                free_to &= l->values[u].again && !l->values[u].kept;
        for (int32_t i = 0; i < l->n_ops; i++)
            for (int k = 0; k < l->ops[i].form.n_in && !l->ops[i].forward; k++)
                read |= looks_at(l, l->ops[i].form.in[k]) == v;
        if (free_to && read)
            root[n++] = v;
    }
    return n;
}

static void set_of(const mest_lives *l, const int32_t *root, int n, unsigned bits, uint8_t *dropped)
{
    for (int32_t v = 0; v < l->n_values; v++) {
        dropped[v] = l->values[v].planned && l->values[v].again && !l->values[v].kept;
        const int32_t r = looks_at(l, v);
        bool ours = false;
        for (int k = 0; k < n; k++)
            if (root[k] == r) {
                dropped[v] = bits >> k & 1;
                ours = true;
            }
        if (!ours)
            for (int32_t u = 0; u < l->n_values; u++) /* one that cannot be made again holds the memory of all */
                if (looks_at(l, u) == r && !(l->values[u].again && !l->values[u].kept))
                    dropped[v] = 0;
    }
}

static double worst_ratio = 1, sum_found, sum_best;
static int limits_met, limits_possible, problems, near_least;

static void compare(uint64_t seed)
{
    toy t;
    int32_t root[TOY_VALUES];
    uint8_t dropped[TOY_VALUES];
    mest_lives_run r;
    mest_error err = {0};
    toy_make(&t, seed, 5 + (int)(seed % 9));
    const int n = choices(&t.lives, root);
    if (n < 3 || n > 12 || mest_lives_run_create(&r, &t.lives, &err) != MEST_OK) {
        toy_free(&t);
        return;
    }
    static size_t peak[1 << 12];
    static double seconds[1 << 12];
    size_t least = SIZE_MAX;
    for (unsigned bits = 0; bits < 1u << n; bits++) {
        set_of(&t.lives, root, n, bits, dropped);
        mest_lives_evaluate(&r, dropped, SIZE_MAX);
        peak[bits] = r.peak;
        seconds[bits] = r.seconds_again;
        least = r.peak < least ? r.peak : least;
    }
    for (int k = 0; k <= 4 && least < peak[0]; k++) {
        const size_t limit = least + (peak[0] - least) * (size_t)k / 5;
        double best = 1e300;
        for (unsigned bits = 0; bits < 1u << n; bits++)
            if (peak[bits] <= limit && seconds[bits] < best)
                best = seconds[bits];
        mest_drop_result result;
        check(mest_drop_search(&t.lives, limit, dropped, &result, &err) == MEST_OK, seed, "the search runs");
        mest_lives_evaluate(&r, dropped, limit);
        check(r.peak == result.peak && r.seconds_again <= result.seconds_again && r.seconds_again >= result.seconds_again, seed, "the result is that of the set");
        check(toy_plays(&t, &r, dropped), seed, "the set can be played");
        limits_possible++;
        if (result.peak > limit)
            continue;
        limits_met++;
        sum_found += result.seconds_again;
        sum_best += best;
        if (best > 0 && result.seconds_again / best > worst_ratio)
            worst_ratio = result.seconds_again / best;
        check(result.seconds_again >= best - 1e-9, seed, "nothing beats every subset");
    }
    mest_drop_result least_found, half;
    check(mest_drop_within(&t.lives, 1e300, dropped, &least_found, &err) == MEST_OK, seed, "the least runs");
    check(least_found.peak >= least, seed, "the least is not below that of every subset");
    problems++;
    near_least += (double)least_found.peak <= 1.02 * (double)least + 64;
    check(mest_drop_within(&t.lives, least_found.seconds_again / 2, dropped, &half, &err) == MEST_OK && half.seconds_again <= least_found.seconds_again / 2 &&
              half.peak >= least_found.peak, seed, "half the time");
    check(mest_drop_within(&t.lives, 0, dropped, &half, &err) == MEST_OK && half.seconds_again <= 0 && half.peak <= peak[0], seed, "no time at all");
    mest_lives_run_free(&r);
    toy_free(&t);
}

int main(void)
{
    for (uint64_t seed = 1; seed <= 400; seed++)
        compare(seed);
    printf("%d problems, least memory within 2 %% of that of every subset: %d; limits met: %d of %d that can be; time beside the best: %.4f in sum, %.2f at worst\n",
           problems, near_least, limits_met, limits_possible, sum_found / sum_best, worst_ratio);
    check(problems > 200 && near_least >= problems * 0.97, 0, "97 % of the least are near");
    check(limits_met >= limits_possible * 0.98, 0, "98 % of the limits that can be met are met");
    check(sum_found <= 1.05 * sum_best, 0, "within 5 % of the best time, in sum");
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}
