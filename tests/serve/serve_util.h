/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of versions share: the digits network and its data, sessions on it, answers as fingerprints. */
#ifndef MEST_TESTS_SERVE_UTIL_H
#define MEST_TESTS_SERVE_UTIL_H

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mest/serve.h"

enum { PIXELS = 64, CLASSES = 10, SAMPLES = 256 };

#define MUST(call)                                                                                                  \
    do {                                                                                                            \
        mest_error must_err = {.code = MEST_OK};                                                                    \
        mest_error *err = &must_err;                                                                                \
        if ((call) != MEST_OK) {                                                                                    \
            printf("%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, mest_status_text(must_err.code), must_err.msg); \
            exit(1);                                                                                                \
        }                                                                                                           \
    } while (0)

#define EXPECT(cond)                                                     \
    do {                                                                 \
        if (!(cond)) {                                                   \
            printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);    \
            exit(1);                                                     \
        }                                                                \
    } while (0)

/* ---- an allocator that knows what is out ---- */
static _Atomic long bytes_out;

static void *counted_take(void *user, size_t size, size_t align)
{
    (void)user;
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (p)
        atomic_fetch_add(&bytes_out, (long)size);
    return p;
}

static void counted_give(void *user, void *p, size_t size)
{
    (void)user;
    atomic_fetch_sub(&bytes_out, (long)size);
    free(p);
}

static inline mest_model *load_digits(void)
{
    mest_allocator allocator = {sizeof allocator, NULL, counted_take, counted_give};
    mest_model_options o;
    mest_model_options_init(&o);
    o.allocator = &allocator;
    char path[1024];
    snprintf(path, sizeof path, "%s/digits_cnn.onnx", getenv("MEST_DIGITS"));
    mest_model *m = NULL;
    MUST(mest_model_load(&m, path, &o, err));
    return m;
}

static inline void make_sparse(mest_model *m, const char *scheme, double sparsity)
{
    mest_sparsity sp;
    mest_sparsity_init(&sp);
    sp.scheme = scheme;
    sp.sparsity = sparsity;
    MUST(mest_model_sparsify(m, &sp, err));
}

static inline void open_digits(mest_source *source, bool validation)
{
    char spec[1100];
    snprintf(spec, sizeof spec, "csv:%s/digits.csv.gz", getenv("MEST_DIGITS"));
    mest_source_options o;
    mest_source_options_init(&o);
    o.input_rank = 3;
    o.input_dim[0] = 1;
    o.input_dim[1] = o.input_dim[2] = 8;
    o.limit = SAMPLES;
    o.val_split = 0.5;
    o.val_part = validation;
    MUST(mest_source_open(source, spec, &o, err));
}

static inline mest_train_config digits_config(int threads)
{
    mest_train_config c;
    mest_train_config_init(&c);
    c.batch = 32;
    c.threads = threads;
    c.lr = 0.02;
    c.seed = 7;
    return c;
}

/* Inputs that no file is needed for. */
static inline void make_inputs(float *x, int n)
{
    for (int i = 0; i < n * PIXELS; i++)
        x[i] = (float)((i * 2654435761u >> 12) % 1000) / 500.0f - 1.0f;
}

/* FNV-1a of an answer's bits: torn weights would give another number. */
static inline uint64_t fingerprint(const float *y, size_t n)
{
    const unsigned char *b = (const unsigned char *)y;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n * sizeof *y; i++)
        h = (h ^ b[i]) * 1099511628211u;
    return h;
}

#endif
