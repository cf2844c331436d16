/* SPDX-License-Identifier: Apache-2.0 */
/* Files that must bounce off.
 *
 *   hostile_each   writes every hostile model of the project's own into a folder, one after the other
 *   hostile_try    loads, infers, plans one file on a 256 KiB stack, with 64 MiB and a second of processor time
 */
#ifndef TESTS_HOSTILE_HOSTILE_H
#define TESTS_HOSTILE_HOSTILE_H

#include <stddef.h>
#include <stdint.h>

#include "mest/train.h"

typedef enum hostile_want { HOSTILE_REJECT, HOSTILE_ACCEPT, HOSTILE_EITHER } hostile_want;

typedef struct hostile_file {
    const char *name;      /* NAME.onnx in the folder */
    hostile_want want;
    const char *place;     /* what the message must contain when it is refused: a name, or "byte"; NULL: any text */
    const char *why;
} hostile_file;

/* Calls `each` for every file once it is written; a number other than 0 ends it and is returned. `folder` must exist and be empty. */
int hostile_each(const char *folder, int (*each)(void *user, const hostile_file *file, const char *path), void *user);

typedef struct hostile_result {
    mest_status status;
    mest_error err;
    int64_t peak_bytes, leaked_bytes;
    double cpu_seconds;
    const char *stage;     /* what gave the status: "load", "infer", "session", "plan" */
} hostile_result;

/* path NULL: `size` bytes in memory. */
void hostile_try(hostile_result *r, const char *path, const void *bytes, size_t size);

/* What a result must not be, as a text; NULL: it is fine. Sanitizers make everything slower and larger: limits are then wider. */
const char *hostile_wrong(const hostile_result *r);

#endif
