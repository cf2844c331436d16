/* SPDX-License-Identifier: Apache-2.0 */
/* The header is "\x93NUMPY", major and minor version, the length of the rest (16 bits in 1.0, else 32, little-endian) and a Python dict
 * literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }. Only this dict is understood, in any order of its keys. */
#include "importers/npy_header.h"

#include <inttypes.h>
#include <string.h>

typedef struct cursor {
    const char *p, *end;
} cursor;

static void skip_space(cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r'))
        c->p++;
}

static bool accept(cursor *c, const char *text)
{
    size_t n = strlen(text);
    skip_space(c);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, text, n) != 0)
        return false;
    c->p += n;
    return true;
}

/* 'text' or "text", without escapes. */
static bool string(cursor *c, char *out, size_t size)
{
    skip_space(c);
    if (c->p >= c->end || (*c->p != '\'' && *c->p != '"'))
        return false;
    char quote = *c->p++;
    size_t n = 0;
    while (c->p < c->end && *c->p != quote && *c->p != '\\' && n + 1 < size)
        out[n++] = *c->p++;
    out[n] = 0;
    return c->p < c->end && *c->p++ == quote;
}

static bool number(cursor *c, int64_t *value)
{
    skip_space(c);
    const char *start = c->p;
    for (*value = 0; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
        if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, *c->p - '0', value))
            return false;
    return c->p > start;
}

static bool shape(cursor *c, mest_npy_header *h)
{
    if (!accept(c, "("))
        return false;
    for (h->rank = 0; !accept(c, ")"); h->rank++) {
        if (h->rank == MEST_NPY_MAX_RANK || !number(c, &h->dim[h->rank]))
            return false;
        if (!accept(c, ","))
            return ++h->rank > 1 && accept(c, ")"); /* "(3)" is a number, not a tuple */
    }
    return true;
}

static mest_status element_type(mest_npy_header *h, const char *descr, const char *path, mest_error *err)
{
    static const char *const known[] = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"};
    const char *name = descr;
    if (*name == '<' || *name == '>' || *name == '|' || *name == '=')
        name++;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i]) == 0) {
            h->kind = name[0];
            h->item_bytes = name[1] - '0';
            h->big_endian = descr[0] == '>';
            return MEST_OK;
        }
    return mest_fail(err, MEST_E_DATA, "%s: elements of type '%s' are not read (floats, integers and bool are)", path, descr);
}

static mest_status parse_dict(mest_npy_header *h, cursor c, const char *path, mest_error *err)
{
    char key[32], descr[32] = "";
    bool fortran = false;
    unsigned seen = 0, bit = 0;
    bool ok = accept(&c, "{");
    while (ok && !accept(&c, "}")) {
        ok = string(&c, key, sizeof key) && accept(&c, ":");
        if (ok && strcmp(key, "descr") == 0) {
            bit = 1;
            skip_space(&c);
            MEST_CHECK(c.p >= c.end || *c.p != '[', err, MEST_E_DATA, "%s: elements with fields (a structured type) are not read", path);
            ok = string(&c, descr, sizeof descr);
        } else if (ok && strcmp(key, "fortran_order") == 0) {
            bit = 2;
            fortran = accept(&c, "True");
            ok = fortran || accept(&c, "False");
        } else if (ok && strcmp(key, "shape") == 0) {
            bit = 4;
            ok = shape(&c, h);
        } else {
            ok = false;
        }
        ok = ok && !(seen & bit);
        seen |= bit;
        if (ok && !accept(&c, ",")) {
            ok = accept(&c, "}");
            break;
        }
    }
    skip_space(&c);
    MEST_CHECK(ok && seen == 7 && c.p == c.end, err, MEST_E_DATA, "%s: header: not the dict of descr, fortran_order and shape that NumPy writes",
               path);
    MEST_TRY(element_type(h, descr, path, err));
    MEST_CHECK(!fortran || h->rank < 2, err, MEST_E_DATA,
               "%s: the array is in Fortran order (column-major); save it with numpy.save(path, numpy.ascontiguousarray(array))", path);
    return MEST_OK;
}

mest_status mest_npy_parse(mest_npy_header *h, const uint8_t *bytes, size_t size, const char *path, mest_error *err)
{
    memset(h, 0, sizeof *h);
    MEST_CHECK(size >= 10 && memcmp(bytes, "\x93NUMPY", 6) == 0, err, MEST_E_DATA, "%s: not a .npy file", path);
    int major = bytes[6];
    MEST_CHECK(major >= 1 && major <= 3, err, MEST_E_DATA, "%s: .npy version %d.%d, 1.0 to 3.0 are read", path, major, bytes[7]);
    size_t start = major == 1 ? 10 : 12, length = (size_t)bytes[8] | (size_t)bytes[9] << 8;
    if (major > 1) {
        MEST_CHECK(size >= start, err, MEST_E_DATA, "%s: cut short in the header", path);
        length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    }
    MEST_CHECK(length <= size - start, err, MEST_E_DATA, "%s: header: %zu bytes announced, the file has %zu (cut short?)", path, length,
               size - start);
    h->payload = start + length;
    const char *text = (const char *)bytes + start;
    return parse_dict(h, (cursor){text, text + length}, path, err);
}
