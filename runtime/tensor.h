/* SPDX-License-Identifier: Apache-2.0 */
/* Types of values.
 *
 *   mest_real     float in the library; double in the build that checks gradients (-DMEST_REAL_DOUBLE)
 *   mest_dtype    ONNX TensorProto.DataType numbers; a value of dtype MEST_F32 is stored as mest_real
 *   mest_layout   how elements lie in memory: plain (ONNX, C order), pixel-major with batch lanes, or sparse
 *   mest_type     dtype + shape + layout
 *   mest_tensor   a typed piece of memory, what kernels see
 *
 * Pixel layout (kernels.md's batch lanes; v = 1 is NHWC). For a value [N, C, H, W], [N, C, L] (H = 1, W = L) or [N, C] (H = W = 1):
 *     element (n, c, y, x) is at  ((((n / v) * HH + y + top) * WW + x + left) * cs + c) * v + n % v
 *     with HH = top + H + bottom, WW = left + W + right, cs = channel slots >= C (one spare slot avoids cache-set conflicts)
 * The halo (top, left, bottom, right) is zero whenever the value is read: the executor clears it after the node that wrote it.
 * Lanes past the batch: finite in forward values, ZERO in gradients (kernels that reduce over the batch count only real lanes).
 * Slots c in [C, cs) hold anything.
 */
#ifndef MEST_RUNTIME_TENSOR_H
#define MEST_RUNTIME_TENSOR_H

#include "mest/model.h"
#include "runtime/status.h"

#ifdef MEST_REAL_DOUBLE
typedef double mest_real;
#define MEST_REAL_IS_DOUBLE 1
#else
typedef float mest_real;
#define MEST_REAL_IS_DOUBLE 0
#endif

typedef enum mest_dtype {
    MEST_UNDEFINED = 0, MEST_F32 = 1, MEST_U8 = 2, MEST_I8 = 3, MEST_U16 = 4, MEST_I16 = 5, MEST_I32 = 6, MEST_I64 = 7, MEST_STRING = 8,
    MEST_BOOL = 9, MEST_F16 = 10, MEST_F64 = 11, MEST_U32 = 12, MEST_U64 = 13, MEST_BF16 = 16
} mest_dtype;

/* Bytes of one element in memory (MEST_F32: sizeof(mest_real)), 0 if the type is not supported as a value. */
size_t mest_dtype_size(mest_dtype dtype);
/* Bytes of one element in a file (MEST_F32: 4). */
size_t mest_dtype_file_size(mest_dtype dtype);
const char *mest_dtype_name(mest_dtype dtype);

typedef struct mest_shape {
    int32_t rank;
    int64_t dim[MEST_MAX_RANK]; /* >= 0, or -1 while symbolic */
} mest_shape;

typedef enum mest_layout_kind { MEST_PLAIN = 0, MEST_PIXEL = 1, MEST_SPARSE = 2 } mest_layout_kind;

typedef struct mest_layout {
    uint8_t kind;
    uint8_t v;                        /* PIXEL: batch lanes, 1, 4, 8 or 16 */
    uint8_t top, left, bottom, right; /* PIXEL: halo */
    int32_t slots;                    /* PIXEL: cs */
    int32_t param;                    /* SPARSE: parameter whose stored entries the values follow */
} mest_layout;

typedef struct mest_type {
    mest_dtype dtype;
    mest_shape shape; /* logical shape, also for PIXEL and SPARSE */
    mest_layout layout;
} mest_type;

struct mest_sparse;

/* What a kernel sees. data is NULL for an absent optional input or an output nobody wants. */
typedef struct mest_tensor {
    const mest_type *type;
    void *data;
    size_t count;               /* logical elements (product of dims); SPARSE: stored entries, padding included */
    struct mest_sparse *sparse; /* SPARSE: pattern; data holds one value per stored entry (weights, gradients alike) */
    const uint32_t *value_version; /* parameters: moves whenever the values change (packed copies compare it); NULL: not a parameter */
} mest_tensor;

/* Product of dims; false when symbolic or past 2^62. */
bool mest_shape_count(const mest_shape *shape, int64_t *count);
bool mest_shape_equal(const mest_shape *a, const mest_shape *b);
/* numpy broadcasting; false if they do not fit. */
bool mest_shape_broadcast(const mest_shape *a, const mest_shape *b, mest_shape *out);
/* "[16,3,32,32]"; returns buf. */
const char *mest_shape_text(const mest_shape *shape, char *buf, size_t size);
/* Product of dims [from, to). */
static inline int64_t mest_shape_span(const mest_shape *s, int from, int to)
{
    int64_t n = 1;
    for (int i = from; i < to; i++)
        n *= s->dim[i];
    return n;
}
/* axis in [-rank, rank) to [0, rank), -1 if out of range. */
static inline int mest_axis(int64_t axis, int rank) { return axis < -rank || axis >= rank ? -1 : (int)(axis < 0 ? axis + rank : axis); }

/* Geometry of a PIXEL value. Strides in elements. */
typedef struct mest_pixels {
    int64_t n, c, h, w;       /* logical */
    int64_t blocks;           /* ceil(n / v) */
    int64_t v, slots;
    int64_t pixel, row, block; /* strides: from pixel to pixel, row to row, image block to image block */
    int64_t origin;           /* offset of (block 0, y 0, x 0, c 0) */
    int64_t storage;          /* elements in all */
} mest_pixels;
/* type->layout.kind must be MEST_PIXEL, rank 2..4. */
mest_pixels mest_pixel_geometry(const mest_type *type);
/* Elements of storage: PLAIN product of dims, PIXEL with halo, lanes and slots; SPARSE is asked of the parameter instead. */
bool mest_type_storage(const mest_type *type, int64_t *elements);
/* Default channel slots for c channels and v lanes: c, plus 1 where v > 1 and c is a multiple of 32. */
static inline int32_t mest_default_slots(int64_t c, int v) { return (int32_t)(c + (v > 1 && c % 32 == 0 ? 1 : 0)); }
/* Clears the halo of a PIXEL value (of element type mest_real). */
void mest_pixel_clear_halo(const mest_type *type, mest_real *data);

#endif
