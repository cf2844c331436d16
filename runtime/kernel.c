/* SPDX-License-Identifier: Apache-2.0 */
/* The registry of kernels (three lists, compiled per instruction set) and the lists derived from sparse weights. */
#include "runtime/kernel.h"

#include <string.h>

#include "mest_config.h"

/* A kernels.def names files for instruction sets; those this build lacks are dropped. The double build has scalar kernels only. */
#define MEST_KERNELS_SCALAR(file) extern const mest_kernel mest_kernels_##file##_scalar[];
#if MEST_HAVE_AVX2 && !MEST_REAL_IS_DOUBLE
#define MEST_KERNELS_AVX2(file) extern const mest_kernel mest_kernels_##file##_avx2[];
#else
#define MEST_KERNELS_AVX2(file)
#endif
#if MEST_HAVE_AVX512 && !MEST_REAL_IS_DOUBLE
#define MEST_KERNELS_AVX512(file) extern const mest_kernel mest_kernels_##file##_avx512[];
#else
#define MEST_KERNELS_AVX512(file)
#endif
#if MEST_HAVE_NEON && !MEST_REAL_IS_DOUBLE
#define MEST_KERNELS_NEON(file) extern const mest_kernel mest_kernels_##file##_neon[];
#else
#define MEST_KERNELS_NEON(file)
#endif
#if MEST_HAVE_XNNPACK && !MEST_REAL_IS_DOUBLE
#define MEST_KERNELS_XNN(file) extern const mest_kernel mest_kernels_##file##_xnn[];
#else
#define MEST_KERNELS_XNN(file)
#endif
#include "sparse/kernels/kernels.def"
#include "ops/kernels/kernels.def"
#include "ops/xnn/kernels.def"

#undef MEST_KERNELS_SCALAR
#define MEST_KERNELS_SCALAR(file) mest_kernels_##file##_scalar,
#if MEST_HAVE_AVX2 && !MEST_REAL_IS_DOUBLE
#undef MEST_KERNELS_AVX2
#define MEST_KERNELS_AVX2(file) mest_kernels_##file##_avx2,
#endif
#if MEST_HAVE_AVX512 && !MEST_REAL_IS_DOUBLE
#undef MEST_KERNELS_AVX512
#define MEST_KERNELS_AVX512(file) mest_kernels_##file##_avx512,
#endif
#if MEST_HAVE_NEON && !MEST_REAL_IS_DOUBLE
#undef MEST_KERNELS_NEON
#define MEST_KERNELS_NEON(file) mest_kernels_##file##_neon,
#endif
#if MEST_HAVE_XNNPACK && !MEST_REAL_IS_DOUBLE
#undef MEST_KERNELS_XNN
#define MEST_KERNELS_XNN(file) mest_kernels_##file##_xnn,
#endif
static const mest_kernel *const tables[] = {
#include "sparse/kernels/kernels.def"
#include "ops/kernels/kernels.def"
#include "ops/xnn/kernels.def"
    NULL};

const mest_kernel *mest_kernel_list(int list) { return tables[list]; }

const mest_kernel *mest_kernel_at(int index)
{
    for (int t = 0; tables[t]; t++)
        for (const mest_kernel *k = tables[t]; k->name; k++)
            if (index-- == 0)
                return k;
    return NULL;
}

/* ---- derived lists ---- */
struct mest_derived {
    mest_heap *heap;
    mest_derived_list *lists;
    size_t bytes;
};

mest_status mest_derived_create(mest_derived **derived, mest_heap *heap, mest_error *err)
{
    *derived = NULL;
    mest_derived *d;
    MEST_NEW(heap, d, 1, err, "derived lists");
    *d = (mest_derived){.heap = heap};
    *derived = d;
    return MEST_OK;
}

void mest_derived_destroy(mest_derived *derived)
{
    if (!derived)
        return;
    mest_heap *heap = derived->heap;
    for (mest_derived_list *l = derived->lists, *next; l; l = next) {
        next = l->next;
        mest_free(heap, l->data, l->bytes, 1);
        mest_free(heap, l, 1, sizeof *l);
    }
    mest_free(heap, derived, 1, sizeof *derived);
}

mest_status mest_derived_get(mest_derived *derived, const mest_sparse *weight, const void *key, size_t key_bytes, size_t bytes,
                             void (*build)(void *, const mest_sparse *, const void *),
                             void (*refresh)(void *, const mest_sparse *, const void *), mest_derived_list **list, mest_error *err)
{
    *list = NULL;
    for (mest_derived_list *l = derived->lists; l; l = l->next)
        if (l->weight == weight && l->build == build && l->bytes == bytes && l->key_bytes == key_bytes && memcmp(l->key, key, key_bytes) == 0) {
            *list = l;
            return MEST_OK;
        }
    mest_derived_list *l;
    MEST_CHECK(key_bytes <= sizeof l->key, err, MEST_E_INTERNAL, "derived list: a key of %zu bytes is too long", key_bytes);
    MEST_NEW(derived->heap, l, 1, err, "derived list");
    memset(l, 0, sizeof *l);
    l->data = mest_calloc(derived->heap, bytes, 1);
    if (!l->data) {
        mest_free(derived->heap, l, 1, sizeof *l);
        return mest_fail(err, MEST_E_NOMEM, "list derived from a sparse weight: no memory for %zu bytes", bytes);
    }
    l->weight = weight;
    l->bytes = bytes;
    l->build = build;
    l->refresh = refresh;
    memcpy(l->key, key, key_bytes);
    l->key_bytes = key_bytes;
    l->next = derived->lists;
    derived->lists = l;
    derived->bytes += bytes + sizeof *l;
    *list = l;
    return MEST_OK;
}

const void *mest_derived_use(mest_derived_list *list)
{
    const mest_sparse *w = list->weight;
    if (!list->built || list->version != w->version)
        list->build(list->data, w, list->key);
    else if (list->value_version != w->value_version && list->refresh)
        list->refresh(list->data, w, list->key);
    list->built = true;
    list->version = w->version;
    list->value_version = w->value_version;
    return list->data;
}

size_t mest_derived_bytes(const mest_derived *derived) { return derived ? derived->bytes : 0; }
