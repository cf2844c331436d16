/* SPDX-License-Identifier: Apache-2.0 */
/* text.h - a growing text. After an allocation failed it stays empty and says so; everything else goes on. */
#ifndef TOOLS_SERVE_TEXT_H
#define TOOLS_SERVE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct text {
    char *data; /* owned; terminated if anything was ever added */
    size_t size, room;
    bool failed;
} text;

void text_add(text *t, const void *data, size_t size);
void text_printf(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with quotes; bytes that are not ASCII are taken for UTF-8 if they are and become '?' otherwise. NULL: null. */
void text_quote(text *t, const char *s);
/* A number as JSON; null if it is not finite. */
void text_number(text *t, double value);
void text_free(text *t);

#endif
