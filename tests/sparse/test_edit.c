/* SPDX-License-Identifier: Apache-2.0 */
/* mest_sparse_edit against a dense oracle: maps from unit to values and slots. */
#include "tests/sparse/fixture.h"

enum { SLOTS = 3 };

typedef struct model_of {       /* what the weight must hold: one row of 1 + SLOTS numbers per unit element, and who is active */
    bool *active;
    mest_real *value[1 + SLOTS];
} model_of;

static void compare(const mest_sparse *s, mest_real *const *slots, const model_of *m)
{
    int64_t e = s->unit_elements, p = 0;
    sparse_check(s);
    for (int64_t u = 0; u < s->n_units; u++) {
        MUST(mest_sparse_active(s, u) == m->active[u]);
        if (!m->active[u])
            continue;
        for (int64_t k = 0; k < e; k++) {
            MUST(s->values[p * e + k] == m->value[0][u * e + k]);
            for (int t = 0; t < SLOTS; t++)
                MUST(slots[t][p * e + k] == m->value[1 + t][u * e + k]);
        }
        p++;
    }
    MUST(p == s->active_units);
}

static void run_edits(const char *format, const mest_shape *shape, uint64_t seed)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, format, shape, 0);
    int64_t cap = (s->n_units * 2 + 2) / 3;
    OK(mest_sparse_reserve(s, cap, err));
    size_t e = (size_t)s->unit_elements, n = (size_t)s->n_units * e;
    model_of m = { .active = calloc((size_t)s->n_units, 1) };
    for (int t = 0; t <= SLOTS; t++)
        m.value[t] = calloc(n, sizeof(mest_real));
    mest_real *slots[SLOTS];
    for (int t = 0; t < SLOTS; t++)
        slots[t] = mest_calloc(&b.heap, (size_t)cap * e, sizeof(mest_real));
    size_t scratch_bytes = mest_sparse_edit_scratch(s, SLOTS);
    void *scratch = mest_alloc(&b.heap, scratch_bytes, 1);
    int64_t *drop = malloc((size_t)s->n_units * 8), *grow = malloc((size_t)s->n_units * 8);
    OK(mest_sparse_from_units(s, NULL, 0, NULL, err));
    uint64_t counter = 0;
    for (int round = 0; round < 30; round++) {
        /* probabilities change from round to round: nothing, everything, a few */
        uint64_t p_drop = mest_rng_below(seed, 1, (uint64_t)round, 5) * 25, p_grow = mest_rng_below(seed, 2, (uint64_t)round, 4) * 20;
        int64_t nd = 0, ng = 0, total = s->active_units;
        for (int64_t u = 0; u < s->n_units; u++) {
            bool drops = m.active[u] && mest_rng_below(seed, 3, counter++, 100) < p_drop;
            bool grows = (!m.active[u] || drops) && mest_rng_below(seed, 3, counter++, 100) < p_grow;
            if (drops) {
                drop[nd++] = u;
                total--;
            }
            if (grows && total < cap) {
                grow[ng++] = u;
                total++;
            }
        }
        if (total > cap) /* drops came too late in the order to make room: only possible with grows before them */
            continue;
        uint32_t version = s->version;
        OK(mest_sparse_edit(s, drop, nd, grow, ng, slots, SLOTS, scratch, err));
        MUST(nd + ng == 0 ? s->version == version : s->version == version + 1);
        for (int64_t i = 0; i < nd; i++)
            m.active[drop[i]] = false;
        for (int64_t i = 0; i < ng; i++) {
            m.active[grow[i]] = true;
            for (int t = 0; t <= SLOTS; t++)
                memset(m.value[t] + (size_t)grow[i] * e, 0, e * sizeof(mest_real));
        }
        compare(s, slots, &m);
        /* "train": give every stored number a new value, padding aside */
        for (int64_t u = 0, p = 0; u < s->n_units; u++) {
            if (!m.active[u])
                continue;
            for (size_t k = 0; k < e; k++) {
                if (u / s->cols * s->height + (int64_t)k >= s->rows)
                    continue;
                for (int t = 0; t <= SLOTS; t++) {
                    mest_real x = (mest_real)(mest_rng(seed, 4, counter++) >> 44);
                    m.value[t][(size_t)u * e + k] = x;
                    *(t ? &slots[t - 1][(size_t)p * e + k] : &s->values[(size_t)p * e + k]) = x;
                }
            }
            p++;
        }
    }
    for (int t = 0; t < SLOTS; t++)
        mest_free(&b.heap, slots[t], (size_t)cap * e, sizeof(mest_real));
    mest_free(&b.heap, scratch, scratch_bytes, 1);
    mest_sparse_destroy(s);
    for (int t = 0; t <= SLOTS; t++)
        free(m.value[t]);
    free(m.active), free(drop), free(grow);
    heap_close(&b);
}

START_TEST(edits_match_the_oracle)
{
    for (int f = 0; f < N_FORMATS; f++)
        for (int i = 0; i < N_SHAPES; i++)
            if (mest_shape_span(&test_shapes[i], 0, test_shapes[i].rank) < 2000)
                run_edits(test_formats[f], &test_shapes[i], (uint64_t)(f * 100 + i));
}
END_TEST

START_TEST(edits_of_a_larger_weight)
{
    run_edits("csr", &(mest_shape){ 2, { 33, 300 } }, 5);
    run_edits("block8", &(mest_shape){ 2, { 33, 300 } }, 6);
}
END_TEST

START_TEST(wrong_lists_change_nothing)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, "csr", &(mest_shape){ 2, { 4, 5 } }, 5);
    int64_t units[] = { 1, 4, 7, 13 };
    mest_real w[] = { 1, 2, 3, 4 }, slot[5] = { 5, 6, 7, 8, 0 }, *slots[] = { slot };
    OK(mest_sparse_from_units(s, units, 4, w, err));
    char scratch[256];
    ck_assert_uint_le(mest_sparse_edit_scratch(s, 1), sizeof scratch);
    uint32_t version = s->version, value_version = s->value_version;
    const struct {
        int64_t drop[3], n_drop, grow[3], n_grow;
        mest_status status;
    } lies[] = {
        { { 2 }, 1, { 0 }, 0, MEST_E_ARGUMENT },          /* not active */
        { { 4, 1 }, 2, { 0 }, 0, MEST_E_ARGUMENT },       /* order */
        { { 4, 4 }, 2, { 0 }, 0, MEST_E_ARGUMENT },       /* twice */
        { { 20 }, 1, { 0 }, 0, MEST_E_ARGUMENT },         /* out of range */
        { { -1 }, 1, { 0 }, 0, MEST_E_ARGUMENT },
        { { 0 }, 0, { 4 }, 1, MEST_E_ARGUMENT },          /* active already */
        { { 1 }, 1, { 1, 4 }, 2, MEST_E_ARGUMENT },
        { { 0 }, 0, { 20 }, 1, MEST_E_ARGUMENT },
        { { 0 }, 0, { 3, 2 }, 2, MEST_E_ARGUMENT },
        { { 0 }, 0, { 2, 2 }, 2, MEST_E_ARGUMENT },
        { { 0 }, 0, { 2, 3 }, 2, MEST_E_LIMIT },          /* over capacity */
        { { 1 }, 1, { 1, 2, 3 }, 3, MEST_E_LIMIT },
        { { 0 }, -1, { 0 }, 0, MEST_E_ARGUMENT },
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        REFUSED(lies[i].status, mest_sparse_edit(s, lies[i].drop, lies[i].n_drop, lies[i].grow, lies[i].n_grow, slots, 1, scratch, err));
        int64_t now[4];
        MUST(s->active_units == 4);
        s->format->units(s, 0, 4, now);
        ck_assert_mem_eq(now, units, sizeof units);
        ck_assert_mem_eq(s->values, w, sizeof w);
        MUST(slot[0] == 5 && slot[3] == 8 && s->version == version && s->value_version == value_version);
    }
    /* drop and grow of the same unit: its value and state start anew */
    int64_t one[] = { 4 };
    OK(mest_sparse_edit(s, one, 1, one, 1, slots, 1, scratch, err));
    MUST(s->values[0] == 1 && s->values[1] == 0 && s->values[2] == 3 && slot[1] == 0 && slot[2] == 7);
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

RUN("sparse edits", edits_match_the_oracle, edits_of_a_larger_weight, wrong_lists_change_nothing)
