/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG (libjpeg) and PNG (libpng) files to 8-bit RGB. Grey is repeated, alpha dropped, 16 bits scaled to 8, palettes and CMYK converted. */
#ifndef MEST_IMPORTERS_IMAGE_DECODE_H
#define MEST_IMPORTERS_IMAGE_DECODE_H

#include "runtime/alloc.h"

typedef struct mest_image {
    mest_heap *heap;
    uint8_t *rgb; /* [h, w, 3] */
    int64_t h, w;
} mest_image;

/* Decodes a file that lies at bytes[0..size-1]; `path` is for messages. With pixels false only the header is read and rgb stays NULL.
 * MEST_E_DATA: neither JPEG nor PNG, damaged, cut short, larger than 64 million pixels; MEST_E_NOMEM. */
mest_status mest_image_decode(mest_image *image, mest_heap *heap, const uint8_t *bytes, size_t size, bool pixels, const char *path,
                              mest_error *err);
void mest_image_free(mest_image *image);

#endif
