/* SPDX-License-Identifier: Apache-2.0 */
#include "importers/prescan.h"

#include <string.h>

#include "importers/wire.h"

enum { MAX_DEPTH = 40 }; /* messages inside messages: a level of subgraphs takes three, a type about six */

typedef enum message {
    M_MODEL, M_GRAPH, M_NODE, M_ATTRIBUTE, M_TENSOR, M_SPARSE, M_VALUE_INFO, M_TYPE, M_TYPE_TENSOR, M_TYPE_ELEM, M_TYPE_MAP, M_SHAPE,
    M_DIM, M_OPSET, M_ENTRY, M_NODE_ENTRY, M_FUNCTION, M_COUNT
} message;

typedef enum field_kind {
    F_END = 0,
    F_NUMBER, /* varint; with `many` also packed */
    F_FIXED,  /* float or double, also packed */
    F_TEXT,   /* string: no NUL */
    F_BYTES,
    F_MESSAGE,
    F_PAYLOAD /* replaced by the number of the payload; float and double that are not packed are copied */
} field_kind;

typedef struct field_rule {
    uint32_t number;
    uint8_t kind, sub; /* field_kind, message */
    bool many;
    uint32_t as;       /* number in the copy; 0: the same */
} field_rule;

#define ONE false
#define MANY true
/* Fields that are kept; all others are dropped. */
static const field_rule rules[M_COUNT][17] = {
    [M_MODEL] = { { 1, F_NUMBER, 0, ONE, 0 }, { 2, F_TEXT, 0, ONE, 0 }, { 3, F_TEXT, 0, ONE, 0 }, { 7, F_MESSAGE, M_GRAPH, ONE, 0 },
                  { 8, F_MESSAGE, M_OPSET, MANY, 0 }, { 14, F_MESSAGE, M_ENTRY, MANY, 0 }, { 25, F_MESSAGE, M_FUNCTION, MANY, 0 } },
    [M_GRAPH] = { { 1, F_MESSAGE, M_NODE, MANY, 0 }, { 2, F_TEXT, 0, ONE, 0 }, { 5, F_MESSAGE, M_TENSOR, MANY, 0 },
                  { 11, F_MESSAGE, M_VALUE_INFO, MANY, 0 }, { 12, F_MESSAGE, M_VALUE_INFO, MANY, 0 },
                  { 13, F_MESSAGE, M_VALUE_INFO, MANY, 0 }, { 15, F_MESSAGE, M_SPARSE, MANY, 0 }, { 16, F_MESSAGE, M_ENTRY, MANY, MEST_PRESCAN_GRAPH } },
    [M_NODE] = { { 1, F_TEXT, 0, MANY, 0 }, { 2, F_TEXT, 0, MANY, 0 }, { 3, F_TEXT, 0, ONE, 0 }, { 4, F_TEXT, 0, ONE, 0 },
                 { 5, F_MESSAGE, M_ATTRIBUTE, MANY, 0 }, { 7, F_TEXT, 0, ONE, 0 }, { 9, F_MESSAGE, M_NODE_ENTRY, MANY, MEST_PRESCAN_NODE } },
    [M_ATTRIBUTE] = { { 1, F_TEXT, 0, ONE, 0 }, { 2, F_FIXED, 0, ONE, 0 }, { 3, F_NUMBER, 0, ONE, 0 }, { 4, F_BYTES, 0, ONE, 0 },
                      { 5, F_MESSAGE, M_TENSOR, ONE, 0 }, { 6, F_MESSAGE, M_GRAPH, ONE, 0 }, { 7, F_FIXED, 0, MANY, 0 },
                      { 8, F_NUMBER, 0, MANY, 0 }, { 9, F_BYTES, 0, MANY, 0 }, { 10, F_MESSAGE, M_TENSOR, MANY, 0 },
                      { 11, F_MESSAGE, M_GRAPH, MANY, 0 }, { 14, F_MESSAGE, M_TYPE, ONE, 0 }, { 15, F_MESSAGE, M_TYPE, MANY, 0 },
                      { 20, F_NUMBER, 0, ONE, 0 }, { 21, F_TEXT, 0, ONE, 0 }, { 22, F_MESSAGE, M_SPARSE, ONE, 0 } },
    [M_TENSOR] = { { 1, F_NUMBER, 0, MANY, 0 }, { 2, F_NUMBER, 0, ONE, 0 }, { 4, F_PAYLOAD, 0, MANY, MEST_PRESCAN_FLOATS },
                   { 5, F_NUMBER, 0, MANY, 0 }, { 6, F_BYTES, 0, MANY, 0 }, { 7, F_NUMBER, 0, MANY, 0 }, { 8, F_TEXT, 0, ONE, 0 },
                   { 9, F_PAYLOAD, 0, ONE, MEST_PRESCAN_RAW }, { 10, F_PAYLOAD, 0, MANY, MEST_PRESCAN_DOUBLES },
                   { 11, F_NUMBER, 0, MANY, 0 }, { 13, F_MESSAGE, M_ENTRY, MANY, 0 }, { 14, F_NUMBER, 0, ONE, 0 } },
    [M_SPARSE] = { { 1, F_MESSAGE, M_TENSOR, ONE, 0 }, { 2, F_MESSAGE, M_TENSOR, ONE, 0 }, { 3, F_NUMBER, 0, MANY, 0 } },
    [M_VALUE_INFO] = { { 1, F_TEXT, 0, ONE, 0 }, { 2, F_MESSAGE, M_TYPE, ONE, 0 }, { 4, F_MESSAGE, M_ENTRY, MANY, MEST_PRESCAN_METADATA } },
    [M_TYPE] = { { 1, F_MESSAGE, M_TYPE_TENSOR, ONE, 0 }, { 4, F_MESSAGE, M_TYPE_ELEM, ONE, 0 }, { 5, F_MESSAGE, M_TYPE_MAP, ONE, 0 },
                 { 8, F_MESSAGE, M_TYPE_TENSOR, ONE, 0 }, { 9, F_MESSAGE, M_TYPE_ELEM, ONE, 0 } },
    [M_TYPE_TENSOR] = { { 1, F_NUMBER, 0, ONE, 0 }, { 2, F_MESSAGE, M_SHAPE, ONE, 0 } },
    [M_TYPE_ELEM] = { { 1, F_MESSAGE, M_TYPE, ONE, 0 } },
    [M_TYPE_MAP] = { { 1, F_NUMBER, 0, ONE, 0 }, { 2, F_MESSAGE, M_TYPE, ONE, 0 } },
    [M_SHAPE] = { { 1, F_MESSAGE, M_DIM, MANY, 0 } },
    [M_DIM] = { { 1, F_NUMBER, 0, ONE, 0 }, { 2, F_TEXT, 0, ONE, 0 } },
    [M_OPSET] = { { 1, F_TEXT, 0, ONE, 0 }, { 2, F_NUMBER, 0, ONE, 0 } },
    [M_ENTRY] = { { 1, F_TEXT, 0, ONE, 0 }, { 2, F_TEXT, 0, ONE, 0 } },
    [M_NODE_ENTRY] = { { 1, F_TEXT, 0, ONE, 0 }, { 2, F_TEXT, 0, ONE, 0 } },
    [M_FUNCTION] = { { 1, F_TEXT, 0, ONE, 0 }, { 4, F_TEXT, 0, MANY, 0 }, { 5, F_TEXT, 0, MANY, 0 }, { 6, F_TEXT, 0, MANY, 0 },
                     { 7, F_MESSAGE, M_NODE, MANY, 0 }, { 9, F_MESSAGE, M_OPSET, MANY, 0 }, { 10, F_TEXT, 0, ONE, 0 },
                     { 11, F_MESSAGE, M_ATTRIBUTE, MANY, MEST_PRESCAN_DEFAULT } },
};

/* Walks twice: first with out NULL to learn the sizes, then writing. */
typedef struct walk {
    const uint8_t *file;
    const char *path;
    uint8_t *out;
    size_t n_out;
    mest_prescan_payload *payloads;
    size_t n_payloads;
    size_t max_bytes;
    mest_error *err;
} walk;

static mest_status damaged(const walk *w, size_t at, const char *what)
{
    return mest_fail(w->err, MEST_E_FORMAT, "onnx '%s': byte %zu: %s", w->path, at, what);
}

static void put_bytes(walk *w, const void *bytes, size_t n)
{
    if (w->out && n)
        memcpy(w->out + w->n_out, bytes, n);
    w->n_out += n;
}

static void put_tag(walk *w, uint32_t number, int wire)
{
    uint8_t tag[10];
    put_bytes(w, tag, mest_wire_put(tag, (uint64_t)number << 3 | (unsigned)wire));
}

/* A length in five bytes, so that it can be filled in after its message was copied. */
static void put_length_at(walk *w, size_t at, size_t n)
{
    if (!w->out)
        return;
    for (int i = 0; i < 5; i++)
        w->out[at + (size_t)i] = (uint8_t)((n >> (7 * i) & 127) | (i < 4 ? 128 : 0));
}

static bool wire_fits(const field_rule *r, int wire)
{
    switch (r->kind) {
    case F_NUMBER: return wire == MEST_WIRE_VARINT || (r->many && wire == MEST_WIRE_BYTES);
    case F_FIXED: return wire == MEST_WIRE_FIXED32 || (r->many && wire == MEST_WIRE_BYTES);
    case F_PAYLOAD:
        return wire == MEST_WIRE_BYTES || (r->as == MEST_PRESCAN_FLOATS && wire == MEST_WIRE_FIXED32) ||
               (r->as == MEST_PRESCAN_DOUBLES && wire == MEST_WIRE_FIXED64);
    default: return wire == MEST_WIRE_BYTES;
    }
}

static mest_status put_payload(walk *w, const field_rule *r, const mest_wire_field *f)
{
    MEST_CHECK(w->n_payloads < INT32_MAX, w->err, MEST_E_LIMIT, "onnx '%s': too many tensors", w->path);
    uint32_t n = (uint32_t)w->n_payloads;
    uint8_t number[4] = { (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24) };
    put_tag(w, r->as, MEST_WIRE_FIXED32);
    put_bytes(w, number, 4);
    if (w->payloads)
        w->payloads[n] = (mest_prescan_payload){ f->begin, f->end - f->begin };
    w->n_payloads++;
    return MEST_OK;
}

/* Of what exporters say about nodes most is source text, more than all the rest of the file. */
static bool wanted_entry(const walk *w, const mest_wire_field *entry)
{
    static const char *const keys[] = { "pkg.torch.onnx.fx_node", "pkg.torch.onnx.name_scopes" };
    mest_wire wire = { w->file, entry->begin, entry->end };
    mest_wire_field f;
    while (wire.at < wire.end && !mest_wire_next(&wire, &f))
        for (size_t i = 0; f.number == 1 && f.wire == MEST_WIRE_BYTES && i < sizeof keys / sizeof *keys; i++)
            if (f.end - f.begin == strlen(keys[i]) && !memcmp(w->file + f.begin, keys[i], f.end - f.begin))
                return true;
    return false;
}

static mest_status scan_message(walk *w, message type, size_t begin, size_t end, int depth)
{
    mest_wire wire = { w->file, begin, end };
    mest_wire_field f;
    uint32_t seen = 0; /* single messages that were there already, by rule */
    if (depth > MAX_DEPTH)
        return damaged(w, begin, "messages are nested too deeply");
    while (wire.at < wire.end) {
        const char *wrong = mest_wire_next(&wire, &f);
        if (wrong)
            return damaged(w, f.start, wrong);
        const field_rule *r = rules[type];
        while (r->kind != F_END && r->number != f.number)
            r++;
        if (r->kind == F_END)
            continue;
        if (!wire_fits(r, f.wire))
            return damaged(w, f.start, "a field of another type than the schema says");
        uint32_t number = r->as ? r->as : r->number;
        size_t n = f.end - f.begin;
        if (r->kind == F_TEXT && memchr(w->file + f.begin, 0, n))
            return damaged(w, f.begin, "a name or text with a NUL byte in it");
        if (r->sub == M_NODE_ENTRY && !wanted_entry(w, &f))
            continue;
        if (r->kind == F_MESSAGE) {
            uint32_t bit = 1u << (r - rules[type]);
            if (!r->many && seen & bit)
                return damaged(w, f.start, type == M_MODEL ? "a second graph" : "a single message that comes twice");
            seen |= bit;
            put_tag(w, number, MEST_WIRE_BYTES);
            size_t at = w->n_out;
            w->n_out += 5;
            MEST_TRY(scan_message(w, (message)r->sub, f.begin, f.end, depth + 1));
            put_length_at(w, at, w->n_out - at - 5);
        } else if (r->kind == F_PAYLOAD && f.wire == MEST_WIRE_BYTES) {
            if (n > 0 || r->as == MEST_PRESCAN_RAW)
                MEST_TRY(put_payload(w, r, &f));
        } else if (r->kind == F_PAYLOAD) {
            put_bytes(w, w->file + f.start, f.end - f.start);
        } else {
            put_tag(w, number, f.wire);
            if (f.wire == MEST_WIRE_BYTES) {
                uint8_t length[10];
                put_bytes(w, length, mest_wire_put(length, n));
            }
            put_bytes(w, w->file + f.begin, n);
        }
        MEST_CHECK(w->n_out < w->max_bytes && w->n_payloads < w->max_bytes / sizeof(mest_prescan_payload), w->err, MEST_E_LIMIT,
                   "onnx '%s': the model without its tensors is larger than %zu bytes", w->path, w->max_bytes);
    }
    return MEST_OK;
}

mest_status mest_prescan_run(mest_prescan *scan, mest_heap *heap, const char *path, const uint8_t *file, size_t size, size_t max_bytes,
                             mest_error *err)
{
    memset(scan, 0, sizeof *scan);
    scan->heap = heap;
    walk w = { .file = file, .path = path, .max_bytes = max_bytes, .err = err };
    MEST_TRY(scan_message(&w, M_MODEL, 0, size, 0));
    size_t bytes = w.n_out, payloads = w.n_payloads;
    MEST_CHECK(bytes + payloads * sizeof *scan->payloads <= max_bytes, err, MEST_E_LIMIT,
               "onnx '%s': the model without its tensors is larger than %zu bytes", path, max_bytes);
    MEST_NEW(heap, scan->bytes, bytes, err, "onnx");
    scan->size = bytes;
    MEST_NEW(heap, scan->payloads, payloads, err, "onnx");
    scan->n_payloads = payloads;
    w.out = scan->bytes;
    w.payloads = scan->payloads;
    w.n_out = w.n_payloads = 0;
    return scan_message(&w, M_MODEL, 0, size, 0);
}

void mest_prescan_free(mest_prescan *scan)
{
    if (!scan->heap)
        return;
    mest_free(scan->heap, scan->bytes, scan->size, 1);
    mest_free(scan->heap, scan->payloads, scan->n_payloads, sizeof *scan->payloads);
    memset(scan, 0, sizeof *scan);
}
