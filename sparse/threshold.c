/* SPDX-License-Identifier: Apache-2.0 */
/* Radix selection over a stream of keys. Few keys: from memory, or digit by digit, a pass each (kth.h). Many: a sample of the parts says
 * within which keys the threshold lies; then one pass counts the leading 18 bits of all keys and keeps those within. The counts are exact,
 * so the sample decides only whether the remaining 13 bits are counted from memory or in a second pass. */
#include "sparse/threshold.h"

#include <math.h>

enum { HIGH = 18, LOW = 31 - HIGH, SAMPLED = 1 << 20, MOST_KEPT = 6 << 20 };

static mest_status digit_by_digit(mest_threshold *t, const mest_keys *keys, int64_t k, mest_error *err)
{
    uint32_t key[MEST_PIECE];
    int64_t n;
    mest_kth kth;
    mest_kth_init(&kth, k);
    for (int pass = 0; pass < MEST_KTH_PASSES; pass++) {
        keys->seek(keys->self, 0);
        for (;;) {
            MEST_TRY(keys->next(keys->self, key, &n, err));
            if (n == 0)
                break;
            for (int64_t i = 0; i < n; i++)
                mest_kth_count(&kth, key[i]);
        }
        mest_kth_next(&kth);
    }
    *t = (mest_threshold){ kth.key, kth.need };
    return MEST_OK;
}

static mest_status from_memory(mest_threshold *t, const mest_keys *keys, int64_t k, mest_error *err)
{
    uint32_t key[MEST_PIECE], *all;
    int64_t n, have = 0;
    mest_kth kth;
    mest_status status;
    mest_kth_init(&kth, k);
    MEST_NEW(keys->heap, all, (size_t)keys->total, err, "norms");
    keys->seek(keys->self, 0);
    for (;;) {
        MEST_TRY_OUT(keys->next(keys->self, key, &n, err));
        if (n == 0)
            break;
        memcpy(all + have, key, (size_t)n * sizeof *key);
        have += n;
    }
    for (int pass = 0; pass < MEST_KTH_PASSES; pass++) {
        for (int64_t i = 0; i < have; i++)
            mest_kth_count(&kth, all[i]);
        mest_kth_next(&kth);
    }
    *t = (mest_threshold){ kth.key, kth.need };
out:
    mest_free(keys->heap, all, (size_t)keys->total, sizeof *all);
    return status;
}

typedef struct search {
    const mest_keys *keys;
    uint32_t *count;          /* [1 << HIGH] */
    uint32_t from, to;        /* leading digits of keys that are kept */
    uint32_t *kept;           /* NULL: none */
    int64_t n_kept, room;     /* n_kept > room: not all of them */
} search;

/* The digit that holds the key of rank `rank` (from 1), which becomes the rank among those of that digit. */
static uint32_t digit_of(const uint32_t *count, int64_t *rank)
{
    uint32_t d = 0;
    while (*rank > count[d])
        *rank -= count[d++];
    return d;
}

/* Leading digits of about SAMPLED keys in parts all over the stream: 1 in 8 at most. Room is made for what will be kept. */
static mest_status sample(search *s, int64_t k, mest_error *err)
{
    const mest_keys *keys = s->keys;
    const int64_t total = keys->total, stride = total / SAMPLED > 8 ? total / SAMPLED : 8;
    uint32_t key[MEST_PIECE];
    int64_t n = 0, got;
    for (int64_t i = 0; i < keys->parts; i += stride) {
        const int64_t at = i + i / stride * 7 % stride; /* not always the same columns */
        keys->seek(keys->self, at < keys->parts ? at : keys->parts - 1);
        MEST_TRY(keys->next(keys->self, key, &got, err));
        for (int64_t j = 0; j < got; j++)
            s->count[key[j] >> LOW]++;
        n += got;
    }
    const double share = (double)k / (double)total, off = 4 * sqrt((double)n * share * (1 - share)) + (double)n / 512 + 1;
    const double rank = share * (double)n;
    int64_t first = (int64_t)(rank - off), last = (int64_t)(rank + off), within = 0;
    s->from = first < 1 ? 0 : digit_of(s->count, &first);
    s->to = last > n ? (1u << HIGH) - 1 : digit_of(s->count, &last);
    for (uint32_t d = s->from; d <= s->to; d++)
        within += s->count[d];
    const double room = (double)within / (double)n * (double)total * 1.1 + 4096;
    memset(s->count, 0, sizeof *s->count << HIGH);
    if (room <= MOST_KEPT) {
        MEST_NEW(keys->heap, s->kept, (size_t)room, err, "norms near the threshold");
        s->room = (int64_t)room;
    }
    return MEST_OK;
}

static mest_status count_high(search *s, mest_error *err)
{
    const mest_keys *keys = s->keys;
    uint32_t key[MEST_PIECE];
    int64_t n;
    const uint32_t span = s->to - s->from;
    keys->seek(keys->self, 0);
    for (;;) {
        MEST_TRY(keys->next(keys->self, key, &n, err));
        if (n == 0)
            return MEST_OK;
        for (int64_t i = 0; i < n; i++) {
            const uint32_t d = key[i] >> LOW;
            s->count[d]++;
            if (d - s->from <= span) {
                if (s->n_kept < s->room)
                    s->kept[s->n_kept] = key[i];
                s->n_kept++;
            }
        }
    }
}

static mest_status count_low(search *s, uint32_t digit, mest_error *err)
{
    const mest_keys *keys = s->keys;
    uint32_t key[MEST_PIECE];
    int64_t n;
    memset(s->count, 0, sizeof *s->count << LOW);
    if (s->n_kept <= s->room && digit >= s->from && digit <= s->to) {
        for (int64_t i = 0; i < s->n_kept; i++)
            if (s->kept[i] >> LOW == digit)
                s->count[s->kept[i] & ((1u << LOW) - 1)]++;
        return MEST_OK;
    }
    keys->seek(keys->self, 0);
    for (;;) {
        MEST_TRY(keys->next(keys->self, key, &n, err));
        if (n == 0)
            return MEST_OK;
        for (int64_t i = 0; i < n; i++)
            if (key[i] >> LOW == digit)
                s->count[key[i] & ((1u << LOW) - 1)]++;
    }
}

static mest_status by_sample(mest_threshold *t, const mest_keys *keys, int64_t k, mest_error *err)
{
    mest_heap *heap = keys->heap;
    search s = { .keys = keys };
    MEST_NEW(heap, s.count, 1 << HIGH, err, "norms by size");
    memset(s.count, 0, sizeof *s.count << HIGH);
    mest_status status;
    MEST_TRY_OUT(sample(&s, k, err));
    MEST_TRY_OUT(count_high(&s, err));
    t->equal = k;
    const uint32_t high = digit_of(s.count, &t->equal);
    MEST_TRY_OUT(count_low(&s, high, err));
    t->key = high << LOW | digit_of(s.count, &t->equal);
out:
    mest_free(heap, s.kept, (size_t)s.room, sizeof *s.kept);
    mest_free(heap, s.count, 1 << HIGH, sizeof *s.count);
    return status;
}

mest_status mest_threshold_find(mest_threshold *t, const mest_keys *keys, int64_t k, mest_error *err)
{
    const int64_t n = keys->total;
    if (n <= keys->room)
        return from_memory(t, keys, k, err);
    return n >= (keys->room ? 0 : MEST_THRESHOLD_LARGE) && n <= UINT32_MAX && keys->parts ? by_sample(t, keys, k, err) : digit_by_digit(t, keys, k, err);
}
