/* SPDX-License-Identifier: Apache-2.0 */
/* Small ONNX files for tests, written field by field: enough of the wire format for nodes with attributes of numbers and float weights. */
#ifndef MEST_TESTS_ONNX_WRITE_H
#define MEST_TESTS_ONNX_WRITE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct onnx_bytes { unsigned char *p; size_t n; } onnx_bytes;

static inline void onnx_put(onnx_bytes *b, const void *p, size_t n)
{
    b->p = realloc(b->p, b->n + n + 1);
    if (!b->p)
        exit(2);
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

static inline void onnx_varint(onnx_bytes *b, uint64_t v)
{
    do {
        unsigned char c = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
        onnx_put(b, &c, 1);
        v >>= 7;
    } while (v);
}

static inline void onnx_int(onnx_bytes *b, int field, int64_t v)
{
    onnx_varint(b, (uint64_t)field << 3);
    onnx_varint(b, (uint64_t)v);
}

static inline void onnx_blob(onnx_bytes *b, int field, const void *p, size_t n)
{
    onnx_varint(b, (uint64_t)field << 3 | 2);
    onnx_varint(b, n);
    onnx_put(b, p, n);
}

static inline void onnx_text(onnx_bytes *b, int field, const char *s) { onnx_blob(b, field, s, strlen(s)); }

/* Moves a finished message into its parent. */
static inline void onnx_nest(onnx_bytes *b, int field, onnx_bytes *inner)
{
    onnx_blob(b, field, inner->p, inner->n);
    free(inner->p);
    *inner = (onnx_bytes){0};
}

/* A float initializer; value (i) gives element i. */
static inline void onnx_weight(onnx_bytes *graph, const char *name, int rank, const int64_t *dim, float (*value)(uint64_t i))
{
    onnx_bytes t = {0};
    size_t n = 1;
    for (int i = 0; i < rank; i++) {
        onnx_int(&t, 1, dim[i]);
        n *= (size_t)dim[i];
    }
    float *v = malloc(n * sizeof *v + 4);
    if (!v)
        exit(2);
    for (size_t i = 0; i < n; i++)
        v[i] = value(i);
    onnx_int(&t, 2, 1);
    onnx_text(&t, 8, name);
    onnx_blob(&t, 9, v, n * sizeof *v);
    free(v);
    onnx_nest(graph, 5, &t);
}

/* Graph input (field 11) or output (12): a batch axis "N", then dims. */
static inline void onnx_value(onnx_bytes *graph, int field, const char *name, int rank, const int64_t *dim)
{
    onnx_bytes v = {0}, type = {0}, tt = {0}, shape = {0}, d = {0};
    onnx_text(&d, 2, "N");
    onnx_nest(&shape, 1, &d);
    for (int i = 0; i < rank; i++) {
        onnx_int(&d, 1, dim[i]);
        onnx_nest(&shape, 1, &d);
    }
    onnx_int(&tt, 1, 1);
    onnx_nest(&tt, 2, &shape);
    onnx_nest(&type, 1, &tt);
    onnx_text(&v, 1, name);
    onnx_nest(&v, 2, &type);
    onnx_nest(graph, field, &v);
}

/* "Conv:in,W,b:out:strides=2/2,pads=1/1/1/1,group=1" - op, inputs, output, attributes: integers (a list has '/'), floats with a point. The output names the node. */
static inline void onnx_node(onnx_bytes *graph, const char *text)
{
    char copy[400], *part[4] = {copy, "", "", ""};
    onnx_bytes n = {0};
    snprintf(copy, sizeof copy, "%s", text);
    for (int i = 1; i < 4 && part[i - 1] && (part[i] = strchr(part[i - 1], ':')); i++)
        *part[i]++ = 0;
    for (char *in = *part[1] ? part[1] : NULL, *next; in; in = next) {
        if ((next = strchr(in, ',')))
            *next++ = 0;
        onnx_text(&n, 1, in);
    }
    onnx_text(&n, 2, part[2]);
    onnx_text(&n, 3, part[2]);
    onnx_text(&n, 4, part[0]);
    for (char *at = part[3], *next; at && *at; at = next) {
        onnx_bytes a = {0};
        if ((next = strchr(at, ',')))
            *next++ = 0;
        char *value = strchr(at, '=');
        *value++ = 0;
        onnx_text(&a, 1, at);
        if (strchr(value, '/')) {
            for (char *end = value; *end; value = end + 1)
                onnx_int(&a, 8, strtol(value, &end, 10));
            onnx_int(&a, 20, 7);
        } else if (strchr(value, '.')) {
            const float number = strtof(value, NULL);
            onnx_varint(&a, 2 << 3 | 5);
            onnx_put(&a, &number, sizeof number);
            onnx_int(&a, 20, 1);
        } else {
            onnx_int(&a, 3, atoi(value));
            onnx_int(&a, 20, 2);
        }
        onnx_nest(&n, 5, &a);
    }
    onnx_nest(graph, 1, &n);
}

static inline void onnx_save(onnx_bytes *graph, const char *path)
{
    onnx_bytes m = {0}, o = {0};
    onnx_text(graph, 2, "test");
    onnx_int(&m, 1, 8);
    onnx_nest(&m, 7, graph);
    onnx_int(&o, 2, 17);
    onnx_nest(&m, 8, &o);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(m.p, 1, m.n, f) != m.n || fclose(f))
        exit(2);
    free(m.p);
}

#endif
