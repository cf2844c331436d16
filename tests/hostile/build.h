/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of ONNX files that onnx_write.h has no need of, right or wrong as one wishes. */
#ifndef TESTS_HOSTILE_BUILD_H
#define TESTS_HOSTILE_BUILD_H

#include "tests/onnx_write.h"

/* A tensor of `type` (1 float, 7 int64) with `raw` bytes of zeros, or the given ones; raw SIZE_MAX: no raw_data at all. */
static inline onnx_bytes tensor(const char *name, int type, int rank, const int64_t *dim, const void *bytes, size_t raw)
{
    onnx_bytes t = {0};
    for (int i = 0; i < rank; i++)
        onnx_int(&t, 1, dim[i]);
    onnx_int(&t, 2, type);
    if (name)
        onnx_text(&t, 8, name);
    if (raw != SIZE_MAX) {
        void *zeros = bytes ? NULL : calloc(raw + 1, 1);
        onnx_blob(&t, 9, bytes ? bytes : zeros, raw);
        free(zeros);
    }
    return t;
}

static inline void initializer(onnx_bytes *g, const char *name, int type, int rank, const int64_t *dim, const void *bytes, size_t raw)
{
    onnx_bytes t = tensor(name, type, rank, dim, bytes, raw);
    onnx_nest(g, 5, &t);
}

/* int64 initializer of rank 1. */
static inline void numbers(onnx_bytes *g, const char *name, int n, const int64_t *v)
{
    initializer(g, name, 7, 1, (int64_t[]){ n }, v, (size_t)n * sizeof *v);
}

/* One with external data: key, value, key, value, .., NULL. */
static inline void external(onnx_bytes *g, const char *name, int64_t elements, const char *const *entry)
{
    onnx_bytes t = tensor(name, 1, 1, &elements, NULL, SIZE_MAX);
    for (; *entry; entry += 2) {
        onnx_bytes e = {0};
        onnx_text(&e, 1, entry[0]);
        onnx_text(&e, 2, entry[1]);
        onnx_nest(&t, 13, &e);
    }
    onnx_int(&t, 14, 1);
    onnx_nest(g, 5, &t);
}

/* A node without attributes; inputs and output as in onnx_node, but of any length, and in a domain. */
static inline void node(onnx_bytes *where, int field, const char *op, const char *domain, const char *in, const char *in2, const char *out)
{
    onnx_bytes n = {0};
    if (in)
        onnx_text(&n, 1, in);
    if (in2)
        onnx_text(&n, 1, in2);
    if (out) {
        onnx_text(&n, 2, out);
        onnx_text(&n, 3, out);
    }
    onnx_text(&n, 4, op);
    if (domain)
        onnx_text(&n, 7, domain);
    onnx_nest(where, field, &n);
}

/* Functions in domain "f": each has one input "x" and one output "y". */
static inline void function_begin(onnx_bytes *f, const char *name)
{
    onnx_text(f, 1, name);
    onnx_text(f, 4, "x");
    onnx_text(f, 5, "y");
}

static inline void function_end(onnx_bytes *model, onnx_bytes *f)
{
    onnx_bytes o = {0};
    onnx_int(&o, 2, 17);
    onnx_nest(f, 9, &o);
    o = (onnx_bytes){0};
    onnx_text(&o, 1, "f");
    onnx_int(&o, 2, 1);
    onnx_nest(f, 9, &o);
    onnx_text(f, 10, "f");
    onnx_nest(model, 25, f);
}

static inline void opset(onnx_bytes *model, const char *domain, int64_t version)
{
    onnx_bytes o = {0};
    if (domain)
        onnx_text(&o, 1, domain);
    onnx_int(&o, 2, version);
    onnx_nest(model, 8, &o);
}

#endif
