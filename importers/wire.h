/* SPDX-License-Identifier: Apache-2.0 */
/* Protocol-buffer wire format: bounded reading of one field at a time, and sizes of what is written.
 *
 *   mest_wire        a range of bytes inside a file, with a position
 *   mest_wire_field  one field: number, wire type, where its content lies
 *
 * Offsets are from the start of the file, so that errors can name the place of the damage.
 */
#ifndef MEST_IMPORTERS_WIRE_H
#define MEST_IMPORTERS_WIRE_H

#include "runtime/status.h"

enum { MEST_WIRE_VARINT = 0, MEST_WIRE_FIXED64 = 1, MEST_WIRE_BYTES = 2, MEST_WIRE_FIXED32 = 5 };

typedef struct mest_wire {
    const uint8_t *file;
    size_t at, end; /* offsets in the file */
} mest_wire;

typedef struct mest_wire_field {
    uint32_t number;
    int wire;
    size_t start;        /* offset of the tag */
    size_t begin, end;   /* content: of BYTES without the length prefix */
    uint64_t value;      /* VARINT */
} mest_wire_field;

/* Reads a base-128 number; false when it is cut off or longer than 64 bits. */
static inline bool mest_wire_varint(mest_wire *w, uint64_t *value)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 70 && w->at < w->end; shift += 7) {
        uint8_t byte = w->file[w->at++];
        if (shift == 63 && byte > 1)
            return false;
        v |= (uint64_t)(byte & 127) << shift;
        if (!(byte & 128)) {
            *value = v;
            return true;
        }
    }
    return false;
}

/* Reads the next field. Returns NULL and fills *f, or says what is wrong; at w->at == w->end there is nothing to read (do not call). */
static inline const char *mest_wire_next(mest_wire *w, mest_wire_field *f)
{
    uint64_t tag, n;
    f->start = w->at;
    if (!mest_wire_varint(w, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
        return "no valid field";
    f->number = (uint32_t)(tag >> 3);
    f->wire = (int)(tag & 7);
    f->begin = w->at;
    f->value = 0;
    switch (f->wire) {
    case MEST_WIRE_VARINT:
        if (!mest_wire_varint(w, &f->value))
            return "a number that is cut off";
        break;
    case MEST_WIRE_FIXED64:
    case MEST_WIRE_FIXED32:
        n = f->wire == MEST_WIRE_FIXED64 ? 8 : 4;
        if (w->end - w->at < n)
            return "a number that is cut off";
        w->at += n;
        break;
    case MEST_WIRE_BYTES:
        if (!mest_wire_varint(w, &n))
            return "a length that is cut off";
        if (n > 0x7fffffff)
            return "a length past 2 GiB";
        if (n > w->end - w->at)
            return "a length that reaches past its message";
        f->begin = w->at;
        w->at += (size_t)n;
        break;
    default:
        return "an unknown wire type";
    }
    f->end = w->at;
    return NULL;
}

/* Writes a number in 1..10 bytes and returns how many. */
static inline size_t mest_wire_put(uint8_t *out, uint64_t v)
{
    size_t n = 0;
    for (; v >= 128; v >>= 7)
        out[n++] = (uint8_t)(v | 128);
    out[n++] = (uint8_t)v;
    return n;
}

#endif
