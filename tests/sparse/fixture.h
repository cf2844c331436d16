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
    { 1, { 6 } },      { 2, { 3, 4097 } },       { 4, { 17, 1, 1, 1 } },
};
static const char *const test_formats[] = { "csr", "block1", "block2", "block3", "block4", "block8", "block16" };
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

/* Norm of unit `u` of a dense weight, as select.c defines it. */
static inline float oracle_norm(const mest_sparse *s, const float *w, int64_t u)
{
    int64_t b = u / s->cols, c = u % s->cols;
    double sum = 0;
    if (s->height == 1)
        return fabsf(w[u]);
    for (int64_t r = b * s->height; r < (b + 1) * s->height && r < s->rows; r++)
        sum += (double)w[r * s->cols + c] * (double)w[r * s->cols + c];
    return (float)sqrt(sum);
}

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

static inline mest_sparse *sparse_make(bench_heap *b, const char *format, const mest_shape *shape, int64_t cap)
{
    mest_sparse *s = NULL;
    mest_error err = { 0 };
    ck_assert_msg(mest_sparse_create(&s, &b->heap, format, shape, 0, &err) == MEST_OK, "%s", err.msg);
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
