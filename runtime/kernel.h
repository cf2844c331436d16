/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels: fast implementations of operators for given layouts, CPUs and formats. Listed in kernels.def files; the reference forward of
 * the operator is the last resort (plain layout, dense).
 *
 *   mest_kernel         one implementation
 *   mest_kernel_query   the node and the types it is asked for
 *   mest_cost           what the layout pass compares
 */
#ifndef MEST_RUNTIME_KERNEL_H
#define MEST_RUNTIME_KERNEL_H

#include "runtime/op.h"
#include "sparse/format.h"

typedef struct mest_kernel_query {
    const mest_node *node;
    const void *params;
    int n_in, n_out;
    const mest_type *const *in;         /* NULL: absent. Layouts are those proposed */
    const mest_type *const *out;        /* NULL: not wanted */
    const mest_sparse *const *sparse;   /* per input: pattern of a sparse weight, else NULL */
    const void *const *in_data;         /* per input: data if constant, else NULL */
    const bool *in_fixed;               /* per input: data rests (constants; frozen; a predictor's weights, which change with the version: kernels
                                         * that keep a packed copy compare it or its value_version) */
    bool learns;                        /* weights that are not fixed change with every run: what is packed of one is of no use in the next */
    unsigned cpu;                       /* allowed features */
    bool use_xnnpack;
    const mest_threads *threads;        /* for the size of scratch only: fits and cost must not depend on their number, or the bits would */
    mest_heap *heap;
    struct mest_derived *derived;       /* lists derived from sparse weights, shared by programs: see mest_derived_get */
    struct mest_measure *measure;       /* NULL: kernels are compared by their models of cost */
} mest_kernel_query;

/* What mest_fastest_kernel is to measure, and what came of it. */
typedef struct mest_measure {
    struct mest_tuner *tuner;           /* NULL: candidates are only counted */
    double below;                       /* kernels of at most so many modelled seconds are candidates */
    int candidates;
    bool measured, missing;             /* the kernel returned was measured; there was a candidate that was not */
} mest_measure;

typedef struct mest_kernel {
    const char *name;        /* "conv_csr_lanes_avx512" */
    const char *op;          /* "Conv", "mest.ConvGrad" */
    unsigned cpu;            /* features needed, all of them */
    uint32_t inplace;        /* bit i: run may write out[0] over in[i], if both have one type and layout */
    /* Can it run the node with these types? NULL why: silent. why: short text for --explain in either case. Halo of PIXEL inputs
     * is not yet final here; `halo` says what is needed. */
    bool (*fits)(const mest_kernel_query *q, const char **why);
    /* Seconds of one run, modelled; only ratios matter. NULL: bytes moved / 10 GB/s. */
    double (*cost)(const mest_kernel_query *q);
    /* Halo that PIXEL input i must have at least; NULL: none. */
    void (*halo)(const mest_kernel_query *q, int input, uint8_t pad[4] /* top, left, bottom, right */);
    /* Once per program, after types are final: state (may be NULL) and scratch bytes. */
    mest_status (*prepare)(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err);
    mest_status (*run)(const mest_args *a);
    void (*release)(void *state, mest_heap *heap);
    size_t (*state_bytes)(const void *state); /* for reports; NULL: 0 */
    /* Bytes that it allocates outside of the heap from its first run on, after prepare; *kept: until it is released, else while it runs. NULL: none */
    size_t (*outside_bytes)(const void *state, bool *kept);
    const char *again;       /* name of the kernel of mest_op.again that repeats this one's output 0 bit for bit; it reads the outputs in
                              * again_out, which this one fills. NULL: the kernel itself runs again (without state_in) */
} mest_kernel;

/* All kernels, best first, NULL past the end. Walks to the index: for loops over all of them that run often, take the lists. */
const mest_kernel *mest_kernel_at(int index);
/* The lists they stand in, in the same order, each ended by an entry without a name; NULL past the end. */
const mest_kernel *mest_kernel_list(int list);

/* ---- lists derived from a sparse weight (transposed index, offset lists), shared by all programs of a session ----
 * A list is found by (weight, key); `key` is any fixed-size bytes (kernel id, strides). build fills `data` from the pattern; it is called
 * again when the weight's version moved, refresh when only value_version did. Size is fixed from cap_units, so nothing is allocated
 * after prepare. */
typedef struct mest_derived mest_derived;
typedef struct mest_derived_list {
    const mest_sparse *weight;
    void *data;
    size_t bytes;
    void (*build)(void *data, const mest_sparse *weight, const void *key);
    void (*refresh)(void *data, const mest_sparse *weight, const void *key); /* may be NULL */
    unsigned char key[64];
    size_t key_bytes;
    uint32_t version, value_version;
    bool built;
    struct mest_derived_list *next;
} mest_derived_list;

mest_status mest_derived_create(mest_derived **derived, mest_heap *heap, mest_error *err);
void mest_derived_destroy(mest_derived *derived);
mest_status mest_derived_get(mest_derived *derived, const mest_sparse *weight, const void *key, size_t key_bytes, size_t bytes,
                             void (*build)(void *, const mest_sparse *, const void *),
                             void (*refresh)(void *, const mest_sparse *, const void *), mest_derived_list **list, mest_error *err);
/* To be called at the start of run: rebuilds or refreshes if the weight moved; returns data. */
const void *mest_derived_use(mest_derived_list *list);
size_t mest_derived_bytes(const mest_derived *derived);

#endif
