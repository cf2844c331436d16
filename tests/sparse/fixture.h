/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of sparse storage share: a guarded, counting allocator, shapes, dense weights, and a dense view of a pattern. */
#ifndef MEST_TESTS_SPARSE_FIXTURE_H
#define MEST_TESTS_SPARSE_FIXTURE_H

#include <check.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rng.h"
#include "sparse/format.h"

/* Check writes a message for each assertion it passes; in inner loops that takes most of the time. */
#define MUST(cond)                                                            \
    do {                                                                      \
        if (!(cond))                                                          \
            ck_abort_msg("%s", #cond);                                        \
    } while (0)

enum { GUARD = 64 };

/* Counts live blocks, remembers the largest one, and puts bytes behind each block that must still be there when it is released. */
typedef struct guarded {
    int64_t live;
    size_t largest;
    int64_t fail_at; /* the allocation with this number fails; -1: none */
    int64_t n;
} guarded;

static inline void *guarded_allocate(void *user, size_t size, size_t align)
{
    guarded *g = user;
    if (g->n++ == g->fail_at)
        return NULL;
    unsigned char *p = aligned_alloc(align, (size + GUARD + align - 1) / align * align);
    if (!p)
        return NULL;
    memset(p + size, 0xa5, GUARD);
    g->live++;
    if (size > g->largest)
        g->largest = size;
    return p;
}

static inline void guarded_release(void *user, void *memory, size_t size)
{
    guarded *g = user;
    unsigned char *p = memory;
    for (int i = 0; i < GUARD; i++)
        MUST(p[size + (size_t)i] == 0xa5);
    g->live--;
    free(p);
}

typedef struct bench_heap { /* a heap and what it stands on */
    guarded guard;
    mest_heap heap;
} bench_heap;

static inline void heap_open(bench_heap *b)
{
    b->guard = (guarded){ .fail_at = -1 };
    mest_allocator a = { sizeof a, &b->guard, guarded_allocate, guarded_release };
    MUST(mest_heap_init(&b->heap, &a, NULL, NULL) == MEST_OK);
}

static inline void heap_close(bench_heap *b)
{
    MUST(b->guard.live == 0);
    MUST(atomic_load(&b->heap.current_bytes) == 0);
}

static const mest_shape test_shapes[] = {
    { 2, { 1, 1 } },   { 2, { 1, 7 } },          { 2, { 7, 1 } },           { 2, { 4, 4 } },   { 2, { 5, 3 } },
    { 2, { 16, 33 } }, { 4, { 3, 2, 3, 3 } },    { 4, { 9, 5, 3, 3 } },     { 3, { 10, 4, 5 } }, { 2, { 33, 300 } },
    { 1, { 6 } },      { 2, { 3, 4097 } },       { 4, { 17, 1, 1, 1 } },    { 2, { 8, 12 } },  { 4, { 8, 16, 3, 3 } },
};
/* A '~' in front: the weight's first axis is its input. */
static const char *const test_formats[] = { "csr",        "block1",     "block2",   "block3",     "block4",       "block8",    "block16", "punched8x4",
                                            "punched3x5", "punched4x1", "pattern",  "nm2:4",      "nm1:3",        "nm3:8x2",   "nm1:2x4", "~csr",
                                            "~block4",    "~block3",    "~nm2:4x3", "~punched3x2" };
#define N_SHAPES ((int)(sizeof test_shapes / sizeof *test_shapes))
#define N_FORMATS ((int)(sizeof test_formats / sizeof *test_formats))

typedef struct dense_weight {
    float *w;
    int64_t n, reads, elements;
    int64_t largest_read;
} dense_weight;

static inline mest_status dense_read(const void *self, int64_t first, int64_t n, float *out, mest_error *err)
{
    dense_weight *d = (dense_weight *)(uintptr_t)self;
    (void)err;
    MUST(first >= 0 && n >= 0 && first + n <= d->n);
    memcpy(out, d->w + first, (size_t)n * sizeof *out);
    d->reads++;
    d->elements += n;
    d->largest_read = n > d->largest_read ? n : d->largest_read;
    return MEST_OK;
}

/* Values in steps of 1/8, so that ties are common; levels == 0: all different. */
static inline dense_weight dense_make(const mest_shape *shape, uint64_t seed, int levels)
{
    dense_weight d = { .n = mest_shape_span(shape, 0, shape->rank) };
    d.w = malloc((size_t)d.n * sizeof *d.w + 1);
    for (int64_t i = 0; i < d.n; i++) {
        double u = 2 * mest_rng_uniform(seed, 77, (uint64_t)i) - 1;
        d.w[i] = (float)(levels ? floor(u * levels) / 8 : u);
    }
    return d;
}

/* Where entry e of unit `id` lies, said once more and by division only: the text at the head of each format's file in numbers.
 * *row and *col of the matrix; false: padding. */
static inline bool oracle_place(const mest_sparse *s, int64_t id, int64_t e, int64_t *row, int64_t *col)
{
    int h = 1, c = 1, n, m = 1;
    const int64_t taps = s->taps, outs = s->inputs_first ? s->channels : s->rows, ins = s->inputs_first ? s->rows : s->channels;
    int64_t out, in, tap; /* of the entry */
    if (!strcmp(s->name, "pattern")) {
        static const int masks[8] = { 0x1b0, 0x0d8, 0x036, 0x01b, 0x1e0, 0x0b8, 0x0b2, 0x09a };
        const int64_t kernel = id / 8;
        int bit = 0;
        for (int64_t left = e; !(masks[id % 8] >> bit & 1) || left-- > 0;)
            bit++;
        *row = kernel / ins;
        *col = kernel % ins * 9 + bit;
        return true;
    }
    if (sscanf(s->name, "punched%dx%d", &h, &c) == 2) {
        const int64_t along = s->inputs_first ? (outs + h - 1) / h : (ins + c - 1) / c, block = id / taps;
        tap = id % taps;
        out = (s->inputs_first ? block % along : block / along) * h + e % h;
        in = (s->inputs_first ? block / along : block % along) * c + e / h;
    } else if (sscanf(s->name, "nm%d:%dx%d", &n, &m, &h) >= 2) {
        const int64_t group = id / m, blocks = s->inputs_first ? (outs + h - 1) / h : ins / m;
        tap = group % taps;
        out = (s->inputs_first ? group / taps % blocks : group / taps / blocks) * h + e;
        in = (s->inputs_first ? group / taps / blocks : group / taps % blocks) * m + id % m;
    } else {
        sscanf(s->name, "block%d", &h); /* csr: 1 */
        if (s->inputs_first) {
            const int64_t along = (outs + h - 1) / h;
            tap = id % taps;
            out = id / taps % along * h + e;
            in = id / taps / along;
        } else {
            tap = id % s->cols % taps;
            out = id / s->cols * h + e;
            in = id % s->cols / taps;
        }
    }
    *row = s->inputs_first ? in : out;
    *col = (s->inputs_first ? out : in) * taps + tap;
    return out < outs && in < ins;
}

/* Norm of unit `id` of a dense weight, as format.h defines it. */
static inline float oracle_norm(const mest_sparse *s, const float *w, int64_t id)
{
    double sum = 0;
    int64_t r, c;
    if (s->unit_elements == 1)
        return oracle_place(s, id, 0, &r, &c) ? fabsf(w[r * s->cols + c]) : 0;
    for (int64_t e = 0; e < s->unit_elements; e++)
        if (oracle_place(s, id, e, &r, &c))
            sum += (double)w[r * s->cols + c] * (double)w[r * s->cols + c];
    return (float)sqrt(sum);
}

/* Slots per group; all of them if there are no groups. */
static inline int64_t oracle_group(const mest_sparse *s) { return s->group_units ? s->group_units : s->n_units ? s->n_units : 1; }

/* Ranks unit ids by (key, id): a plain comparison sort, the oracle of every selection. */
typedef struct ranked {
    double key;
    int64_t id;
} ranked;
static inline int ranked_compare(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}
static inline int id_compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* The k of n units that a balanced removal takes, said greedily: the least (key, then id) of those whose groups hold most. */
static inline void oracle_lowest(const mest_sparse *s, const ranked *order, int64_t n, int64_t k, int64_t *out)
{
    const int64_t size = oracle_group(s), groups = s->n_units / size;
    int64_t *held = calloc((size_t)groups + 1, 8), most = 0, done = 0;
    bool *taken = calloc((size_t)n + 1, 1);
    for (int64_t i = 0; i < n; i++) {
        int64_t *h = &held[order[i].id / s->choices / size];
        most = ++*h > most ? *h : most;
    }
    for (; done < k; most--)
        for (int64_t i = 0; i < n && done < k; i++) {
            int64_t *h = &held[order[i].id / s->choices / size];
            if (taken[i] || (groups > 1 && *h < most))
                continue;
            taken[i] = true;
            --*h;
            out[done++] = order[i].id;
        }
    qsort(out, (size_t)k, sizeof *out, id_compare);
    free(held), free(taken);
}

/* NULL where the format does not fit the shape, which is so only in the cases named here. */
static inline mest_sparse *sparse_make(bench_heap *b, const char *format, const mest_shape *shape, int64_t cap)
{
    mest_sparse *s = NULL;
    mest_error err = { 0 };
    const bool inputs_first = format[0] == '~';
    int n, m;
    mest_status status = mest_sparse_make(&s, &b->heap, &(mest_sparse_spec){ format + inputs_first, shape, inputs_first, NULL }, 0, &err);
    if (status == MEST_E_SHAPE) {
        const int64_t inputs = inputs_first ? shape->dim[0] : shape->rank > 1 ? shape->dim[1] : 1;
        bool misfit = false;
        if (!strcmp(format, "pattern"))
            misfit = shape->rank != 4 || shape->dim[2] != 3 || shape->dim[3] != 3 || shape->dim[1] < 2;
        else if (sscanf(format + inputs_first, "nm%d:%d", &n, &m) == 2)
            misfit = inputs % m != 0;
        ck_assert_msg(misfit && err.msg[0] && !s, "%s: %s", format, err.msg);
        return NULL;
    }
    ck_assert_msg(status == MEST_OK, "%s: %s", format, err.msg);
    ck_assert_msg(mest_sparse_reserve(s, cap < 0 ? s->n_units : cap, &err) == MEST_OK, "%s", err.msg);
    return s;
}

static inline void sparse_check(const mest_sparse *s)
{
    mest_error err = { 0 };
    ck_assert_msg(s->format->check(s, &err) == MEST_OK, "%s", err.msg);
}

#define OK(call)                                                              \
    do {                                                                      \
        mest_error ok_err_ = { 0 }, *err = &ok_err_;                          \
        if ((call) != MEST_OK)                                                \
            ck_abort_msg("%s: %s", #call, ok_err_.msg);        \
    } while (0)
#define REFUSED(want_, call)                                                  \
    do {                                                                      \
        mest_error ok_err_ = { 0 }, *err = &ok_err_;                          \
        ck_assert_int_eq((call), (want_));                                    \
        ck_assert_int_eq(ok_err_.code, (want_));                              \
        MUST(ok_err_.msg[0] != 0);                                       \
    } while (0)

/* Each test program is one suite of loose test functions. */
static inline int run_suite(const char *name, const TTest *const *tests, int n)
{
    Suite *suite = suite_create(name);
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, 60);
    for (int i = 0; i < n; i++)
        tcase_add_test(tc, tests[i]);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
#define RUN(name, ...)                                                        \
    int main(void)                                                            \
    {                                                                         \
        const TTest *const tests[] = { __VA_ARGS__ };                         \
        return run_suite((name), tests, (int)(sizeof tests / sizeof *tests)); \
    }

#endif
