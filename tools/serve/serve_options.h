/* SPDX-License-Identifier: Apache-2.0 */
/* serve_options.h - the command line of mest-serve. */
#ifndef TOOLS_SERVE_OPTIONS_H
#define TOOLS_SERVE_OPTIONS_H

#include "serve/http.h"

typedef struct serve_option {
    const char *name, *argument, *help;
    bool number;                /* an int64_t of server_options; otherwise a text */
    size_t offset;
    double low, high;
} serve_option;

extern const serve_option serve_options[]; /* the last has no name */

/* 0: go on with *o; otherwise, or when *end, the program ends with that code. */
int serve_options_read(server_options *o, int argc, char **argv, bool *end);

#endif
