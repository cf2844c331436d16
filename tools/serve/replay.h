/* SPDX-License-Identifier: Apache-2.0 */
/* replay.h - labelled samples on disk, bounded in bytes: what training draws from.
 *
 * One file of equal records behind a header of 4096 bytes:
 *   header  "MESTREPL", u32 version 1, u32 crc of what follows, u64 record_bytes, u64 slots, u64 input_bytes, u64 target_bytes, u64 shape_key; then zeros
 *   record  u32 crc of what follows, u32 0, u64 sequence (1, 2, ..; 0: empty), input, target, zeros up to a multiple of 8
 * All little-endian as the machine is. Sample `sequence` takes the slot that the policy says, over the sample that was there. A record is written with one
 * call and synced before the sample is acknowledged; one that was torn by a power cut fails its checksum, is counted and is an empty slot.
 *
 * Threads: all functions may be called from any thread; a reader never waits for the disk of a writer.
 */
#ifndef TOOLS_SERVE_REPLAY_H
#define TOOLS_SERVE_REPLAY_H

#include <stddef.h>
#include <stdint.h>

#include "serve/fault.h"

typedef struct replay replay;

typedef struct replay_options {
    size_t input_bytes, target_bytes; /* of one sample */
    uint64_t shape_key;     /* of names, types and shapes: a file of another model is refused */
    int64_t max_bytes;      /* of the file */
    bool sample;            /* false: the newest samples stay; true: each sample that ever came has the same chance (reservoir) */
    double hold_out;        /* share that is for tests: by sequence number, so that a sample never changes sides */
    uint64_t seed;
} replay_options;

typedef struct replay_state {
    int64_t held, training, testing; /* samples that can be drawn, and of which part */
    int64_t ever;           /* that were ever added */
    int64_t damaged;        /* records whose checksum is wrong */
    int64_t slots, file_bytes;
} replay_state;

/* Opens or makes the file. A file that is not what its header says, or of another model, is refused and left as it is. So is one
 * that was made for more than max_bytes; one that was made for less stays at its size. max_bytes is at least 4096. */
replay *replay_open(const char *path, const replay_options *options, fault *f);
void replay_close(replay *r); /* NULL is fine */
/* Adds n samples, packed; returns when they are on disk. All or, after an error of the disk, an unknown part of them is in the store. */
bool replay_add(replay *r, int64_t n, const void *inputs, const void *targets, fault *f);
/* Which samples of a part there are: how many now. They can be read by rank 0..n-1 in an order without meaning, until the next add. */
int64_t replay_count(replay *r, bool testing);
/* Reads the sample of that rank (taken modulo the present count). False: it was damaged meanwhile, or there is none. */
bool replay_read(replay *r, bool testing, uint64_t rank, void *input, void *target);
void replay_look(replay *r, replay_state *state);
/* Bits that look random, a function of the two numbers (SplitMix64). */
uint64_t replay_mix(uint64_t seed, uint64_t counter);

#endif
