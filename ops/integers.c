/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of integer tensors of any width. */
#include "ops/elements.h"

bool mest_dtype_is_integer(mest_dtype t)
{
    return t == MEST_U8 || t == MEST_I8 || t == MEST_U16 || t == MEST_I16 || t == MEST_I32 || t == MEST_I64 || t == MEST_U32 || t == MEST_U64 || t == MEST_BOOL;
}

int64_t mest_integer_at(mest_dtype t, const void *data, int64_t i)
{
    switch (t) {
    case MEST_U8: return ((const uint8_t *)data)[i];
    case MEST_I8: return ((const int8_t *)data)[i];
    case MEST_U16: return ((const uint16_t *)data)[i];
    case MEST_I16: return ((const int16_t *)data)[i];
    case MEST_I32: return ((const int32_t *)data)[i];
    case MEST_U32: return ((const uint32_t *)data)[i];
    case MEST_I64: return ((const int64_t *)data)[i];
    case MEST_U64: return (int64_t)((const uint64_t *)data)[i];
    default: return ((const uint8_t *)data)[i] != 0;
    }
}

void mest_integer_store(mest_dtype t, void *data, int64_t i, int64_t v)
{
    switch (t) {
    case MEST_U8: ((uint8_t *)data)[i] = (uint8_t)v; break;
    case MEST_I8: ((int8_t *)data)[i] = (int8_t)v; break;
    case MEST_U16: ((uint16_t *)data)[i] = (uint16_t)v; break;
    case MEST_I16: ((int16_t *)data)[i] = (int16_t)v; break;
    case MEST_I32: ((int32_t *)data)[i] = (int32_t)v; break;
    case MEST_U32: ((uint32_t *)data)[i] = (uint32_t)v; break;
    case MEST_I64: ((int64_t *)data)[i] = v; break;
    case MEST_U64: ((uint64_t *)data)[i] = (uint64_t)v; break;
    default: ((uint8_t *)data)[i] = v != 0; break;
    }
}

void mest_integer_range(mest_dtype t, int64_t *lo, int64_t *hi)
{
    const int bits = 8 * (int)mest_dtype_size(t);
    const bool is_signed = t == MEST_I8 || t == MEST_I16 || t == MEST_I32 || t == MEST_I64;
    *hi = t == MEST_BOOL ? 1 : bits == 64 ? INT64_MAX : ((int64_t)1 << (bits - is_signed)) - 1;
    *lo = is_signed ? -*hi - 1 : 0;
}
