/* SPDX-License-Identifier: Apache-2.0 */
/* Lines and numbers of a CSV file, plain or gzipped. */
#ifndef MEST_IMPORTERS_CSV_LINE_H
#define MEST_IMPORTERS_CSV_LINE_H

#include "runtime/alloc.h"

typedef struct mest_csv_reader {
    mest_heap *heap;
    const char *path;
    void *gz;               /* zlib's gzFile */
    char *buffer;           /* cap bytes; [at, filled) is not consumed yet */
    size_t cap, at, filled;
    bool ended;
    int64_t line;           /* number of the line that was returned last, from 1 */
} mest_csv_reader;

/* MEST_E_IO, MEST_E_NOMEM. `path` must outlive the reader. */
mest_status mest_csv_open(mest_csv_reader *reader, mest_heap *heap, const char *path, mest_error *err);
void mest_csv_close(mest_csv_reader *reader);
/* The next line that is not blank, terminated by 0, without its end; valid until the next call. *line is NULL at the end of the file.
 * MEST_E_DATA: damaged gzip data, a line of more than 64 MiB, a zero byte. */
mest_status mest_csv_next(mest_csv_reader *reader, char **line, mest_error *err);

/* The number at *text up to the next comma or the end; moves *text behind the comma, or to NULL after the last field. Blanks and one pair
 * of double quotes around it are allowed. False when the field is not a number; *value may be infinite or NaN when the text says so. */
bool mest_csv_number(char **text, double *value);
/* Fields of a line. */
int64_t mest_csv_fields(const char *line);

#endif
