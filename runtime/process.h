/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the process as the system counts it, and its clock. */
#ifndef MEST_RUNTIME_PROCESS_H
#define MEST_RUNTIME_PROCESS_H

#include <stdint.h>

/* Bytes resident now (code, libraries, stacks, mapped files, heap); 0 where the system does not say (/proc). */
int64_t mest_process_resident(void);
/* The most that ever were (VmHWM); 0 where the system does not say. */
int64_t mest_process_peak(void);
/* Seconds of the monotonic clock. */
double mest_seconds(void);

#endif
