/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/unit_list.h"

#include <string.h>

/* A gap below 128^k takes k bytes. n ids below `limit` have gaps that add up to less than `limit`, so at most limit / 128^k of them take
 * more than k bytes: that bounds the sum whatever the ids are. */
static size_t room_for(int64_t cap, int64_t limit)
{
    size_t bytes = (size_t)cap;
    for (int64_t longer = limit / 128; longer > 0; longer /= 128)
        bytes += (size_t)(longer < cap ? longer : cap);
    return bytes + 1;
}

mest_status mest_unit_list_create(mest_unit_list *list, mest_heap *heap, int64_t cap, int64_t limit, mest_error *err)
{
    memset(list, 0, sizeof *list);
    list->heap = heap;
    list->last = -1;
    list->size = room_for(cap, limit);
    list->bytes = mest_alloc(heap, list->size, 1);
    if (!list->bytes) {
        size_t wanted = list->size;
        list->size = 0;
        return mest_fail(err, MEST_E_NOMEM, "no memory for a list of %zu bytes", wanted);
    }
    return MEST_OK;
}

void mest_unit_list_free(mest_unit_list *list)
{
    if (list->bytes)
        mest_free(list->heap, list->bytes, list->size, 1);
    memset(list, 0, sizeof *list);
}

void mest_unit_list_clear(mest_unit_list *list)
{
    list->used = 0;
    list->n = 0;
    list->last = -1;
}

bool mest_unit_list_put(mest_unit_list *list, int64_t unit)
{
    uint8_t text[10];
    size_t n = 0;
    uint64_t gap = (uint64_t)(unit - list->last - 1);
    for (; gap >= 0x80; gap >>= 7)
        text[n++] = (uint8_t)(gap | 0x80);
    text[n++] = (uint8_t)gap;
    if (list->used + n > list->size)
        return false;
    memcpy(list->bytes + list->used, text, n);
    list->used += n;
    list->last = unit;
    list->n++;
    return true;
}

mest_status mest_unit_list_load(mest_unit_list *list, const uint8_t *bytes, size_t size, int64_t n, int64_t limit, mest_error *err)
{
    mest_unit_list_clear(list);
    size_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t gap = 0;
        for (int shift = 0;; shift += 7) {
            MEST_CHECK(at < size && shift < 63, err, MEST_E_FORMAT, "a list of units is damaged");
            gap |= (uint64_t)(bytes[at] & 0x7f) << shift;
            if (!(bytes[at++] & 0x80))
                break;
        }
        MEST_CHECK(gap < (uint64_t)(limit - list->last - 1), err, MEST_E_FORMAT, "a list of units goes past %lld", (long long)limit);
        MEST_CHECK(mest_unit_list_put(list, list->last + 1 + (int64_t)gap), err, MEST_E_FORMAT, "a list of units is longer than there is room for");
    }
    MEST_CHECK(at == size, err, MEST_E_FORMAT, "a list of units is longer than expected");
    return MEST_OK;
}
