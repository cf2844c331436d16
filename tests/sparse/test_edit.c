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
    for (int64_t u = 0; u < mest_sparse_ids(s); u++) {
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
    if (!s) {
        heap_close(&b);
        return;
    }
    int64_t cap = (s->n_units * 2 + 2) / 3;
    OK(mest_sparse_reserve(s, cap, err));
    const int64_t ids = mest_sparse_ids(s), ch = s->choices, size = oracle_group(s), group_most = s->group_units ? mest_sparse_group_most(s) : cap;
    size_t e = (size_t)s->unit_elements, n = (size_t)ids * e;
    int64_t *held = calloc((size_t)(s->n_units / size) + 1, 8); /* units of each group as they will be */
    model_of m = { .active = calloc((size_t)ids, 1) };
    for (int t = 0; t <= SLOTS; t++)
        m.value[t] = calloc(n, sizeof(mest_real));
    mest_real *slots[SLOTS];
    for (int t = 0; t < SLOTS; t++)
        slots[t] = mest_calloc(&b.heap, (size_t)cap * e, sizeof(mest_real));
    size_t scratch_bytes = mest_sparse_edit_scratch(s, SLOTS);
    void *scratch = mest_alloc(&b.heap, scratch_bytes, 1);
    int64_t *drop = malloc((size_t)ids * 8), *grow = malloc((size_t)ids * 8);
    OK(mest_sparse_from_units(s, NULL, 0, NULL, err));
    uint64_t counter = 0;
    for (int round = 0; round < 30; round++) {
        /* probabilities change from round to round: nothing, everything, a part; each third round so few that they are moved in place */
        uint64_t p_drop = mest_rng_below(seed, 1, (uint64_t)round, 5) * 25, p_grow = mest_rng_below(seed, 2, (uint64_t)round, 4) * 20;
        if (round % 3 == 2) {
            p_drop = mest_rng_below(seed, 1, (uint64_t)round, 4);
            p_grow = mest_rng_below(seed, 2, (uint64_t)round, 3);
        }
        int64_t nd = 0, ng = 0, total = s->active_units;
        memset(held, 0, (size_t)(s->n_units / size + 1) * 8);
        for (int64_t id = 0; id < ids; id++)
            held[id / ch / size] += m.active[id];
        for (int64_t u = 0; u < s->n_units; u++) {
            int64_t old = -1;
            for (int64_t id = u * ch; id < (u + 1) * ch; id++)
                old = m.active[id] ? id : old;
            bool drops = old >= 0 && mest_rng_below(seed, 3, counter++, 100) < p_drop;
            bool grows = (old < 0 || drops) && mest_rng_below(seed, 3, counter++, 100) < p_grow;
            if (drops) {
                drop[nd++] = old;
                total--;
                held[u / size]--;
            }
            if (grows && total < cap && held[u / size] < group_most) {
                grow[ng++] = u * ch + (int64_t)mest_rng_below(seed, 5, counter++, (uint64_t)ch);
                total++;
                held[u / size]++;
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
        for (int64_t u = 0, p = 0; u < ids; u++) {
            if (!m.active[u])
                continue;
            for (size_t k = 0; k < e; k++) {
                int64_t row, col;
                if (!oracle_place(s, u, (int64_t)k, &row, &col))
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
    free(m.active), free(drop), free(grow), free(held);
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
    run_edits("nm2:4", &(mest_shape){ 2, { 33, 300 } }, 7);
    run_edits("pattern", &(mest_shape){ 4, { 12, 40, 3, 3 } }, 8);
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

/* Two masks of one kernel, and groups beyond their share: refused, nothing changes. */
START_TEST(choices_and_groups_are_guarded)
{
    bench_heap b;
    heap_open(&b);
    mest_sparse *s = sparse_make(&b, "pattern", &(mest_shape){ 4, { 2, 4, 3, 3 } }, 4);
    int64_t units[] = { 1, 10, 34, 43 }, other_mask[] = { 2 }, first[] = { 1 }, third[] = { 17 }, from_other[] = { 34 }, two[] = { 16, 18 };
    mest_real w[16];
    for (int k = 0; k < 16; k++)
        w[k] = (mest_real)(k + 1);
    OK(mest_sparse_from_units(s, units, 4, w, err));
    char scratch[256];
    uint32_t version = s->version;
    REFUSED(MEST_E_LIMIT, mest_sparse_edit(s, NULL, 0, other_mask, 1, NULL, 0, scratch, err));          /* no room */
    REFUSED(MEST_E_ARGUMENT, mest_sparse_edit(s, from_other, 1, other_mask, 1, NULL, 0, scratch, err)); /* room, but two masks */
    REFUSED(MEST_E_LIMIT, mest_sparse_edit(s, from_other, 1, third, 1, NULL, 0, scratch, err));         /* a third kernel in filter 0 */
    REFUSED(MEST_E_ARGUMENT, mest_sparse_edit(s, units, 2, two, 2, NULL, 0, scratch, err));
    MUST(s->version == version);
    ck_assert_mem_eq(s->values, w, sizeof w);
    OK(mest_sparse_edit(s, first, 1, other_mask, 1, NULL, 0, scratch, err)); /* the mask of a kernel changes: a new unit */
    MUST(s->values[0] == 0 && s->values[4] == 5 && mest_sparse_active(s, 2) && !mest_sparse_active(s, 1));
    OK(mest_sparse_edit(s, other_mask, 1, third, 1, NULL, 0, scratch, err));
    MUST(s->active_units == 4);
    sparse_check(s);
    mest_sparse_destroy(s);
    heap_close(&b);
}
END_TEST

RUN("sparse edits", choices_and_groups_are_guarded, edits_match_the_oracle, edits_of_a_larger_weight, wrong_lists_change_nothing)
