/* SPDX-License-Identifier: Apache-2.0 */
/* whole_file.h - files that appear whole or not at all (written beside their place, synced, renamed), and are read whole. */
#ifndef TOOLS_WHOLE_FILE_H
#define TOOLS_WHOLE_FILE_H

#include <stdbool.h>
#include <stdio.h>

typedef struct whole_file {
    FILE *file;
    char path[4096], temporary[4200];
} whole_file;

/* False: errno says why. */
bool whole_open(whole_file *w, const char *path);
/* Puts the file in its place if `good` and everything could be written, else removes it. False: it is not there, errno says why. */
bool whole_close(whole_file *w, bool good);

/* The text of a regular file, terminated; NULL: it cannot be read. The caller frees it. */
char *whole_read(const char *path);

#endif
