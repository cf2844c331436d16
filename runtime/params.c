/* SPDX-License-Identifier: Apache-2.0 */
/* Values of parameters: from the file's payload, and as they are now. */
#include <inttypes.h>
#include <string.h>

#include "runtime/channels.h"
#include "runtime/model.h"
#include "runtime/rng.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "payloads of ONNX files are little-endian and are read as they are"
#endif

enum { CHUNK = 1024 }; /* elements converted at a time, on the stack */

static float float_of_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023, bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000 | mantissa << 13;
    } else if (exponent) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else {
        float f = (float)mantissa * 0x1p-24f; /* subnormal or zero: exact */
        memcpy(&bits, &f, 4);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static void floats_of(mest_dtype dtype, const uint8_t *raw, size_t n, float *out)
{
    if (dtype == MEST_F32) {
        memcpy(out, raw, n * 4);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (dtype == MEST_F64) {
            double d;
            memcpy(&d, raw + i * 8, 8);
            out[i] = (float)d;
        } else {
            uint16_t h;
            memcpy(&h, raw + i * 2, 2);
            uint32_t wide = (uint32_t)h << 16;
            if (dtype == MEST_BF16)
                memcpy(&out[i], &wide, 4);
            else
                out[i] = float_of_half(h);
        }
    }
}

mest_status mest_payload_read(const mest_payload *p, int64_t first, int64_t n, float *out, mest_error *err)
{
    size_t size = mest_dtype_file_size(p->dtype);
    MEST_CHECK(p->dtype == MEST_F32 || p->dtype == MEST_F64 || p->dtype == MEST_F16 || p->dtype == MEST_BF16, err, MEST_E_UNSUPPORTED,
               "payload of type %s is not floating point", mest_dtype_name(p->dtype));
    MEST_CHECK(first >= 0 && n >= 0 && first <= p->count && n <= p->count - first, err, MEST_E_ARGUMENT,
               "elements %" PRId64 " to %" PRId64 " of a payload of %" PRId64, first, first + n, p->count);
    if (n == 0)
        return MEST_OK;
    if (!p->raw && p->bound > 0) {
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)((2 * mest_rng_uniform(p->seed, p->stream, (uint64_t)(first + i)) - 1) * p->bound);
        return MEST_OK;
    }
    if (!p->linear) {
        floats_of(p->dtype, p->raw + (size_t)first * size, (size_t)n, out);
        return MEST_OK;
    }
    memset(out, 0, (size_t)n * sizeof *out);
    int64_t lo = 0, hi = p->nnz; /* first stored entry at or past `first` */
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (p->linear[mid] < first)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < p->nnz && p->linear[lo] < first + n; lo++)
        floats_of(p->dtype, p->raw + (size_t)lo * size, 1, &out[p->linear[lo] - first]);
    return MEST_OK;
}

mest_status mest_param_read(const mest_param *p, int64_t first, int64_t n, float *out, mest_error *err)
{
    const int64_t count = mest_param_file_count(p);
    MEST_CHECK(first >= 0 && n >= 0 && first <= count && n <= count - first, err, MEST_E_ARGUMENT,
               "parameter '%s': elements %" PRId64 " to %" PRId64 " of %" PRId64, p->name, first, first + n, count);
    if (!p->loaded)
        return mest_payload_read(&p->payload, first, n, out, err);
    if (p->sparse) {
        mest_sparse_read(p->sparse, first, n, out);
        return MEST_OK;
    }
    if (p->axes) {
        mest_channels_expand(p, p->values, p->axes->gone, first, n, out);
        return MEST_OK;
    }
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)p->values[first + i];
    return MEST_OK;
}

mest_status mest_param_load(mest_model *m, mest_param *p, mest_error *err)
{
    if (p->loaded)
        return MEST_OK;
    MEST_CHECK(!p->sparse, err, MEST_E_STATE, "parameter '%s' is sparse but has no values yet", p->name);
    if (p->axes)
        return mest_channels_load(m, p, err);
    MEST_CHECK(p->count >= 0 && p->count < INT64_MAX / 16, err, MEST_E_LIMIT, "parameter '%s' is too large", p->name);
    size_t n = (size_t)p->count + 16;
    mest_real *values = mest_alloc(&m->heap, n, sizeof *values);
    MEST_CHECK(values, err, MEST_E_NOMEM, "parameter '%s': no memory for %zu x %zu bytes", p->name, n, sizeof *values);
    mest_status status = MEST_OK;
    if (sizeof(mest_real) == sizeof(float)) {
        const int64_t piece = MEST_FORGET_BYTES / (int64_t)sizeof(float);
        for (int64_t i = 0; i < p->count && status == MEST_OK; i += piece) {
            const int64_t k = p->count - i < piece ? p->count - i : piece;
            status = mest_payload_read(&p->payload, i, k, (float *)(void *)values + i, err);
            mest_model_read(m, k * (int64_t)sizeof(float));
        }
    } else {
        float chunk[CHUNK];
        for (int64_t i = 0; i < p->count && status == MEST_OK; i += CHUNK) {
            int64_t k = p->count - i < CHUNK ? p->count - i : CHUNK;
            status = mest_payload_read(&p->payload, i, k, chunk, err);
            for (int64_t j = 0; j < k; j++)
                values[i + j] = chunk[j];
        }
    }
    if (status != MEST_OK) {
        mest_free(&m->heap, values, n, sizeof *values);
        return status;
    }
    memset(values + p->count, 0, 16 * sizeof *values);
    p->values = values;
    p->loaded = true;
    p->value_version++;
    return MEST_OK;
}

/* One pattern of n bytes; `*` and `?` as in a shell, without backtracking over more than the last star. */
static bool match_one(const char *pattern, size_t n, const char *name)
{
    size_t p = 0, star = SIZE_MAX;
    const char *mark = NULL;
    while (*name) {
        if (p < n && pattern[p] == '*') {
            star = p++;
            mark = name;
        } else if (p < n && (pattern[p] == '?' || pattern[p] == *name)) {
            p++;
            name++;
        } else if (mark) {
            p = star + 1;
            name = ++mark;
        } else {
            return false;
        }
    }
    while (p < n && pattern[p] == '*')
        p++;
    return p == n;
}

bool mest_match_any(const char *patterns, const char *name)
{
    while (patterns && *patterns) {
        size_t n = strcspn(patterns, ",");
        if (n && match_one(patterns, n, name))
            return true;
        patterns += n + (patterns[n] == ',');
    }
    return false;
}
