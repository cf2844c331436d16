/* SPDX-License-Identifier: Apache-2.0 */
/* Offset lists in runs of neighbouring taps (sparse/kernels/lanes.h): each list holds the same entries as one without runs, each four of a part is what it
 * says, and weights whose taps lie together mostly end up in them. That the passes compute the right numbers from such lists is what kern.c checks. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sparse/kernels/lanes.h"

static mest_heap heap;
static int failures;
#define CHECK(condition, ...)                                                     \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);       \
            fprintf(stderr, __VA_ARGS__);                                         \
            fputc('\n', stderr);                                                  \
            failures++;                                                           \
        }                                                                         \
    } while (0)

static int by_number(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Entries of a part as offset << 32 | position in storage, ascending. */
static int64_t entries_of(const mest_lanes_list *l, const int32_t *perm, int64_t slot, int64_t *out)
{
    int64_t n = 0;
    for (int32_t e = l->start[slot]; e < l->start[slot + 1]; e++)
        out[n++] = (int64_t)l->off[e] << 32 | (uint32_t)perm[e];
    qsort(out, (size_t)n, sizeof *out, by_number);
    return n;
}

/* Share of the entries that are in fours; least: what it must reach. */
static void one(const char *scheme, double sparsity, int64_t channels, int kernel, int stride, int dilation, bool by_rows, double least)
{
    const mest_shape shape = {.rank = 4, .dim = {channels, channels, kernel, kernel}};
    mest_error err = {0};
    mest_sparse *s = NULL;
    CHECK(mest_sparse_create(&s, &heap, scheme, &shape, 0, &err) == MEST_OK, "%s", err.msg);
    if (!s)
        return;
    const int64_t units = mest_sparse_units_at(s, sparsity);
    CHECK(mest_sparse_reserve(s, units, &err) == MEST_OK && mest_sparse_from_random(s, units, 3, 1, 1.0, &err) == MEST_OK, "%s", err.msg);
    mest_lanes_key plain = {.cap = s->cap_units * s->unit_elements, .pixel_bytes = 64 * 9, .row_bytes = 64 * 9 * 34, .c = (int32_t)channels, .m = (int32_t)channels,
                            .group = 1, .tile = 20, .r = (int16_t)kernel, .s = (int16_t)kernel, .stride_y = 1, .stride_x = (int16_t)stride,
                            .dilation_y = 1, .dilation_x = (int16_t)dilation, .lanes = 16, .height = 1, .by_rows = by_rows};
    mest_lanes_key key = plain;
    key.step_bytes = stride * plain.pixel_bytes;
    void *a = mest_calloc(&heap, 1, mest_lanes_bytes(&plain)), *b = mest_calloc(&heap, 1, mest_lanes_bytes(&key));
    int64_t *x = mest_calloc(&heap, (size_t)s->stored + 1, sizeof *x), *y = mest_calloc(&heap, (size_t)s->stored + 1, sizeof *y), n_a = 0, n_b = 0, in_fours = 0;
    if (!a || !b || !x || !y)
        exit(2);
    mest_lanes_build(a, s, &plain);
    mest_lanes_build(b, s, &key);
    const int32_t *perm_a, *perm_b;
    const mest_lanes_list la = mest_lanes_view(a, &plain, NULL, 0, &perm_a, &n_a), lb = mest_lanes_view(b, &key, NULL, 0, &perm_b, &n_b);
    CHECK(!la.runs && lb.runs && n_a == s->stored && n_b == s->stored, "%s", scheme);
    for (int64_t slot = 0; slot < (int64_t)la.n_tiles * la.n_rows * la.parts; slot++) {
        const int64_t n = entries_of(&la, perm_a, slot, x), m = entries_of(&lb, perm_b, slot, y);
        CHECK(n == m && !memcmp(x, y, (size_t)n * sizeof *x), "%s: other entries in part %" PRId64, scheme, slot);
        const mest_lanes_runs runs = mest_lanes_runs_of(lb.runs[slot]);
        const int32_t *off = lb.off + lb.start[slot];
        CHECK(runs.twos >= 0 && runs.threes >= 0 && 4 * (int64_t)(runs.twos + runs.threes) <= n, "%s: %d and %d fours of %" PRId64 " entries", scheme, runs.twos,
              runs.threes, n);
        for (int32_t i = 0; i < 4 * runs.twos; i += 2)
            CHECK(off[i + 1] - off[i] == key.step_bytes, "%s: part %" PRId64 ", entry %d is not beside the one before", scheme, slot, i + 1);
        for (int32_t i = 4 * runs.twos; i < 4 * (runs.twos + runs.threes); i += 4)
            CHECK(off[i + 1] - off[i] == key.step_bytes && off[i + 2] - off[i + 1] == key.step_bytes, "%s: part %" PRId64 ", no run of three at %d", scheme, slot, i);
        in_fours += 4 * (int64_t)(runs.twos + runs.threes);
    }
    for (int64_t e = 0; e < n_b; e++)
        if (lb.w[e] != s->values[perm_b[e]]) {
            CHECK(false, "%s: value of entry %" PRId64, scheme, e);
            break;
        }
    CHECK((double)in_fours >= least * (double)n_b, "%s %.0f %%, kernel %d, stride %d: %.0f %% of the entries in runs, at least %.0f %% expected", scheme,
          100 * sparsity, kernel, stride, 100.0 * (double)in_fours / (double)n_b, 100 * least);
    mest_free(&heap, x, (size_t)s->stored + 1, sizeof *x);
    mest_free(&heap, y, (size_t)s->stored + 1, sizeof *y);
    mest_free(&heap, a, 1, mest_lanes_bytes(&plain));
    mest_free(&heap, b, 1, mest_lanes_bytes(&key));
    mest_sparse_destroy(s);
}

int main(void)
{
    if (mest_heap_init(&heap, NULL, NULL, NULL) != MEST_OK)
        return 1;
    one("pattern", 0.5556, 40, 3, 1, 1, false, 0.85);
    one("pattern", 0.9, 40, 3, 1, 1, false, 0.6);
    one("pattern", 0.9, 64, 3, 1, 1, true, 0.3);
    one("csr", 0, 17, 3, 1, 1, false, 0.9);
    one("csr", 0, 150, 3, 1, 1, true, 0.9);
    one("csr", 0.5, 40, 3, 1, 1, false, 0.5);
    one("csr", 0.5, 9, 5, 2, 1, false, 0.3);  /* every second tap, for every second position */
    one("csr", 0.5, 9, 3, 2, 1, true, 0);
    one("csr", 0.6, 9, 7, 1, 2, false, 0);    /* neighbouring taps are two positions apart: no runs */
    one("csr", 0.99, 40, 3, 1, 1, false, 0);
    if (failures)
        fprintf(stderr, "%d failures\n", failures);
    return failures != 0;
}
