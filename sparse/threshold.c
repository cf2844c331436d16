/* SPDX-License-Identifier: Apache-2.0 */
/* Radix selection over a tensor that is read in pieces. Small tensors: digit by digit, a pass each (kth.h). Large ones: a sample of the pieces says
 * within which norms the threshold lies; then one pass counts the leading 18 bits of all keys and keeps those within. The counts are exact,
 * so the sample decides only whether the remaining 13 bits are counted from memory or in a second pass. */
#include "sparse/threshold.h"

#include <math.h>

enum { HIGH = 18, LOW = 31 - HIGH, SAMPLED = 1 << 20, MOST_KEPT = 6 << 20 };

static mest_status small(mest_threshold *t, mest_piece *p, int64_t k, mest_error *err)
{
    float norm[MEST_PIECE];
    mest_kth kth;
    mest_kth_init(&kth, k);
    for (int pass = 0; pass < MEST_KTH_PASSES; pass++) {
        mest_piece_rewind(p);
        for (;;) {
            MEST_TRY(mest_piece_next(p, err));
            if (p->n_cols == 0)
                break;
            mest_piece_norms(p, norm);
            for (int64_t i = 0; i < p->n_slots; i++)
                mest_kth_count(&kth, mest_descending(norm[i]));
        }
        mest_kth_next(&kth);
    }
    *t = (mest_threshold){ kth.key, kth.need };
    return MEST_OK;
}

typedef struct search {
    mest_piece *p;
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

/* Leading digits of about SAMPLED slots in pieces all over the tensor: 1 in 8 at most. Room is made for what will be kept. */
static mest_status sample(search *s, int64_t k, mest_error *err)
{
    mest_piece *p = s->p;
    mest_heap *heap = p->s->heap;
    const int64_t slots = p->s->n_units, pieces = mest_piece_count(p->s), stride = slots / SAMPLED > 8 ? slots / SAMPLED : 8;
    float norm[MEST_PIECE];
    int64_t n = 0;
    for (int64_t i = 0; i < pieces; i += stride) {
        const int64_t at = i + i / stride * 7 % stride; /* not always the same columns */
        mest_piece_seek(p, at < pieces ? at : pieces - 1);
        MEST_TRY(mest_piece_next(p, err));
        mest_piece_norms(p, norm);
        for (int64_t j = 0; j < p->n_slots; j++)
            s->count[mest_descending(norm[j]) >> LOW]++;
        n += p->n_slots;
    }
    const double share = (double)k / (double)slots, off = 4 * sqrt((double)n * share * (1 - share)) + (double)n / 512 + 1;
    const double rank = share * (double)n;
    int64_t first = (int64_t)(rank - off), last = (int64_t)(rank + off), within = 0;
    s->from = first < 1 ? 0 : digit_of(s->count, &first);
    s->to = last > n ? (1u << HIGH) - 1 : digit_of(s->count, &last);
    for (uint32_t d = s->from; d <= s->to; d++)
        within += s->count[d];
    const double room = (double)within / (double)n * (double)slots * 1.1 + 4096;
    memset(s->count, 0, sizeof *s->count << HIGH);
    if (room <= MOST_KEPT) {
        MEST_NEW(heap, s->kept, (size_t)room, err, "norms near the threshold");
        s->room = (int64_t)room;
    }
    return MEST_OK;
}

static mest_status count_high(search *s, mest_error *err)
{
    mest_piece *p = s->p;
    float norm[MEST_PIECE];
    const uint32_t span = s->to - s->from;
    mest_piece_rewind(p);
    for (;;) {
        MEST_TRY(mest_piece_next(p, err));
        if (p->n_cols == 0)
            return MEST_OK;
        mest_piece_norms(p, norm);
        for (int64_t i = 0; i < p->n_slots; i++) {
            const uint32_t key = mest_descending(norm[i]), d = key >> LOW;
            s->count[d]++;
            if (d - s->from <= span) {
                if (s->n_kept < s->room)
                    s->kept[s->n_kept] = key;
                s->n_kept++;
            }
        }
    }
}

static mest_status count_low(search *s, uint32_t digit, mest_error *err)
{
    mest_piece *p = s->p;
    float norm[MEST_PIECE];
    memset(s->count, 0, sizeof *s->count << LOW);
    if (s->n_kept <= s->room && digit >= s->from && digit <= s->to) {
        for (int64_t i = 0; i < s->n_kept; i++)
            if (s->kept[i] >> LOW == digit)
                s->count[s->kept[i] & ((1u << LOW) - 1)]++;
        return MEST_OK;
    }
    mest_piece_rewind(p);
    for (;;) {
        MEST_TRY(mest_piece_next(p, err));
        if (p->n_cols == 0)
            return MEST_OK;
        mest_piece_norms(p, norm);
        for (int64_t i = 0; i < p->n_slots; i++) {
            const uint32_t key = mest_descending(norm[i]);
            if (key >> LOW == digit)
                s->count[key & ((1u << LOW) - 1)]++;
        }
    }
}

static mest_status large(mest_threshold *t, mest_piece *p, int64_t k, mest_error *err)
{
    mest_heap *heap = p->s->heap;
    search s = { .p = p };
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

mest_status mest_threshold_find(mest_threshold *t, mest_piece *p, int64_t k, mest_error *err)
{
    const int64_t n = p->s->n_units;
    return n >= MEST_THRESHOLD_LARGE && n <= UINT32_MAX ? large(t, p, k, err) : small(t, p, k, err);
}
