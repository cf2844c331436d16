/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

size_t mest_dtype_size(mest_dtype dtype)
{
    switch (dtype) {
    case MEST_F32: return sizeof(mest_real);
    case MEST_F64: case MEST_I64: case MEST_U64: return 8;
    case MEST_I32: case MEST_U32: return 4;
    case MEST_I16: case MEST_U16: case MEST_F16: case MEST_BF16: return 2;
    case MEST_I8: case MEST_U8: case MEST_BOOL: return 1;
    default: return 0;
    }
}

size_t mest_dtype_file_size(mest_dtype dtype) { return dtype == MEST_F32 ? 4 : mest_dtype_size(dtype); }

const char *mest_dtype_name(mest_dtype dtype)
{
    static const char *const names[] = {"undefined", "float32", "uint8",   "int8",    "uint16", "int16",  "int32", "int64",   "string",
                                        "bool",      "float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"};
    return (unsigned)dtype < sizeof names / sizeof *names ? names[dtype] : "unknown type";
}

bool mest_shape_count(const mest_shape *shape, int64_t *count)
{
    int64_t n = 1;
    bool zero = false;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] < 0)
            return false;
        if (shape->dim[i] == 0)
            zero = true;
        else if (__builtin_mul_overflow(n, shape->dim[i], &n) || n > (int64_t)1 << 62)
            return false;
    }
    *count = zero ? 0 : n;
    return true;
}

bool mest_shape_equal(const mest_shape *a, const mest_shape *b)
{
    return a->rank == b->rank && (a->rank == 0 || memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0);
}

bool mest_shape_broadcast(const mest_shape *a, const mest_shape *b, mest_shape *out)
{
    mest_shape o = {.rank = a->rank > b->rank ? a->rank : b->rank};
    for (int i = 0; i < o.rank; i++) {
        int ia = i - (o.rank - a->rank), ib = i - (o.rank - b->rank);
        int64_t da = ia < 0 ? 1 : a->dim[ia], db = ib < 0 ? 1 : b->dim[ib];
        if (da == db || db == 1)
            o.dim[i] = da;
        else if (da == 1)
            o.dim[i] = db;
        else
            return false;
    }
    *out = o;
    return true;
}

const char *mest_shape_text(const mest_shape *shape, char *buf, size_t size)
{
    size_t n = 0;
    int w = snprintf(buf, size, "[");
    for (int i = 0; i < shape->rank && w >= 0 && n + (size_t)w < size; i++) {
        n += (size_t)w;
        if (shape->dim[i] < 0)
            w = snprintf(buf + n, size - n, i ? ",?" : "?");
        else
            w = snprintf(buf + n, size - n, i ? ",%" PRId64 : "%" PRId64, shape->dim[i]);
    }
    if (w >= 0 && n + (size_t)w < size) {
        n += (size_t)w;
        snprintf(buf + n, size - n, "]");
    }
    return buf;
}

mest_pixels mest_pixel_geometry(const mest_type *type)
{
    const mest_shape *s = &type->shape;
    const mest_layout *l = &type->layout;
    mest_pixels p = {.n = s->rank > 0 ? s->dim[0] : 1, .c = s->rank > 1 ? s->dim[1] : 1, .h = 1, .w = 1};
    if (s->rank == 3) {
        p.w = s->dim[2];
    } else if (s->rank >= 4) {
        p.h = s->dim[2];
        p.w = s->dim[3];
    }
    p.v = l->v;
    p.slots = l->slots;
    p.blocks = (p.n + p.v - 1) / p.v;
    p.pixel = p.slots * p.v;
    p.row = p.pixel * (l->left + p.w + l->right);
    p.block = p.row * (l->top + p.h + l->bottom);
    p.origin = l->top * p.row + l->left * p.pixel;
    p.storage = p.block * p.blocks;
    return p;
}

bool mest_type_storage(const mest_type *type, int64_t *elements)
{
    if (type->layout.kind == MEST_PIXEL) {
        int64_t n;
        if (!mest_shape_count(&type->shape, &n) || n > (int64_t)1 << 50)
            return false;
        *elements = mest_pixel_geometry(type).storage;
        return true;
    }
    return type->layout.kind == MEST_PLAIN && mest_shape_count(&type->shape, elements);
}

void mest_pixel_clear_halo(const mest_type *type, mest_real *data)
{
    const mest_layout *l = &type->layout;
    if (!(l->top | l->left | l->bottom | l->right))
        return;
    mest_pixels g = mest_pixel_geometry(type);
    size_t left = (size_t)(l->left * g.pixel), right = (size_t)(l->right * g.pixel);
    for (int64_t b = 0; b < g.blocks; b++) {
        mest_real *block = data + b * g.block;
        memset(block, 0, (size_t)(l->top * g.row) * sizeof *data);
        for (int64_t y = 0; y < g.h; y++) {
            mest_real *row = block + (l->top + y) * g.row;
            memset(row, 0, left * sizeof *data);
            memset(row + g.row - (int64_t)right, 0, right * sizeof *data);
        }
        memset(block + (l->top + g.h) * g.row, 0, (size_t)(l->bottom * g.row) * sizeof *data);
    }
}
