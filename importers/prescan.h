/* SPDX-License-Identifier: Apache-2.0 */
/* One bounded walk over a model file before anything is unpacked.
 *
 *   mest_prescan          a compact copy of the model message without its payloads
 *   mest_prescan_payload  where the payload of a tensor lies in the file
 *
 * The walk knows the messages of onnx.proto by a table. It checks lengths, wire types, nesting, text (no NUL) and that single messages
 * come once; it drops documentation, training_info and unknown fields. raw_data and packed float_data and double_data of tensors are
 * not copied: an extra field of the tensor holds the number of the payload instead. What is left is small and safe for protobuf-c,
 * which by itself recurses without limit and merges repeated single messages in quadratic time.
 */
#ifndef MEST_IMPORTERS_PRESCAN_H
#define MEST_IMPORTERS_PRESCAN_H

#include "runtime/alloc.h"

/* Extra fields of the compact copy (never taken from the file). The first three are fixed32: the payload's number. */
enum {
    MEST_PRESCAN_RAW = 0x0ffffff1,      /* TensorProto: raw_data */
    MEST_PRESCAN_FLOATS = 0x0ffffff2,   /* TensorProto: float_data, packed */
    MEST_PRESCAN_DOUBLES = 0x0ffffff3,  /* TensorProto: double_data, packed */
    MEST_PRESCAN_METADATA = 0x0ffffff4, /* ValueInfoProto: metadata_props (field 4, IR 10) as a StringStringEntryProto */
    MEST_PRESCAN_DEFAULT = 0x0ffffff5,  /* FunctionProto: attribute_proto (field 11, IR 9) as an AttributeProto */
    MEST_PRESCAN_NODE = 0x0ffffff6,     /* NodeProto: the metadata_props (field 9, IR 10) that say which module and call it comes from */
    MEST_PRESCAN_GRAPH = 0x0ffffff7     /* GraphProto: metadata_props (field 16, IR 10) */
};

typedef struct mest_prescan_payload {
    uint64_t offset, size; /* bytes in the file */
} mest_prescan_payload;

typedef struct mest_prescan {
    mest_heap *heap;
    uint8_t *bytes; /* the compact message */
    size_t size;
    mest_prescan_payload *payloads;
    size_t n_payloads;
} mest_prescan;

/* Scans `file`. The copy and the list of payloads take at most max_bytes (MEST_E_LIMIT otherwise). MEST_E_FORMAT names the byte offset of
 * the damage; `path` is for the text. Uses little stack. Free with mest_prescan_free in any case. */
mest_status mest_prescan_run(mest_prescan *scan, mest_heap *heap, const char *path, const uint8_t *file, size_t size, size_t max_bytes,
                             mest_error *err);
void mest_prescan_free(mest_prescan *scan);

#endif
