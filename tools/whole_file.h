/* SPDX-License-Identifier: Apache-2.0 */
/* whole_file.h - files that appear whole or not at all: written beside their place, synced, renamed; and files that can be read to their end. */
#ifndef TOOLS_WHOLE_FILE_H
#define TOOLS_WHOLE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct whole_file {
    FILE *file;
    char path[4096], temporary[4200];
} whole_file;

/* False: errno says why. */
bool whole_open(whole_file *w, const char *path);
/* Puts the file in its place if `good` and everything could be written, else removes it. False: it is not there, errno says why. */
bool whole_close(whole_file *w, bool good);

/* Opens a regular file for reading, without waiting: a named pipe would keep the process for ever where nobody writes, a device may have no
 * end. NULL: *why says why not. */
FILE *plain_open(const char *path, const char **why);
/* The text of a regular file of fewer than `most` bytes, terminated; NULL: it cannot be read. The caller frees it. */
char *whole_read(const char *path, int64_t most);

#endif
