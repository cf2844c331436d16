/* SPDX-License-Identifier: Apache-2.0 */
/* The processor's cycle counter of the calling thread, user mode only, through perf_event_open. Virtual machines and containers often have none. */
#ifndef MEST_RUNTIME_COUNTER_H
#define MEST_RUNTIME_COUNTER_H

#include <stdint.h>

/* A descriptor, or -errno where cycles cannot be counted. Counts what the thread that opens it does, no other. */
int mest_counter_open(void);
void mest_counter_close(int counter); /* negative: does nothing */
/* Cycles since it was opened; -1: not known. */
int64_t mest_counter_read(int counter);

#endif
