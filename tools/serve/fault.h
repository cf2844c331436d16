/* SPDX-License-Identifier: Apache-2.0 */
/* fault.h - why a request is refused: an HTTP status and a text for people. */
#ifndef TOOLS_SERVE_FAULT_H
#define TOOLS_SERVE_FAULT_H

#include <stdbool.h>

#include "mest/base.h"

typedef struct fault {
    int status; /* 0: none yet; the first one stays */
    char text[512];
} fault;

/* Fills in status and text unless that was done before; returns false. The text is valid UTF-8 whatever goes into it. */
bool refuse(fault *f, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same from the library's error: what the caller did wrong is 400, what is not possible now 409, limits 503, the rest 500. */
bool refuse_error(fault *f, const mest_error *err);

#endif
