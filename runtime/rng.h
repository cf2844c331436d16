/* SPDX-License-Identifier: Apache-2.0 */
/* Keyed random numbers: a number is a function of its key, so any thread may draw any number in any order.
 * The mixer is splitmix64's finaliser (Steele, Lea, Flood 2014), applied once per key word. */
#ifndef MEST_RUNTIME_RNG_H
#define MEST_RUNTIME_RNG_H

#include <stdint.h>

static inline uint64_t mest_mix64(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 64 uniform bits for (seed, stream, counter). */
static inline uint64_t mest_rng(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return mest_mix64(mest_mix64(mest_mix64(seed) ^ stream) ^ counter);
}

/* Uniform in [0, 1), 53 bits. */
static inline double mest_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return (double)(mest_rng(seed, stream, counter) >> 11) * 0x1p-53;
}

/* Uniform in [0, n); the bias is below n / 2^64. */
static inline uint64_t mest_rng_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t n)
{
    __extension__ typedef unsigned __int128 u128;
    return (uint64_t)(((u128)mest_rng(seed, stream, counter) * n) >> 64);
}

/* Stream numbers: what is drawn for. The rest of a stream word is free for ids (stream << 32 | id). */
enum {
    MEST_STREAM_SHUFFLE = 1, MEST_STREAM_DROPOUT = 2, MEST_STREAM_INIT = 3, MEST_STREAM_PATTERN = 4, MEST_STREAM_AUGMENT = 5,
    MEST_STREAM_GROW = 6, MEST_STREAM_PLUGIN = 7, MEST_STREAM_SPLIT = 8, MEST_STREAM_NOISE = 9, MEST_STREAM_HEAD = 10, MEST_STREAM_DRAW = 11
};

#endif
