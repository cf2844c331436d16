/* SPDX-License-Identifier: Apache-2.0 */
/* The disturbed update of sparse parameters: L1, noise, and which units turned around; any number of threads, the same bits. */
#include "runtime/perturb.h"
#include "tests/plugin/world.h"

enum { UNITS = 9001 };

typedef struct state {
    mest_real *w, *v, *g;
    uint8_t *turned;
} state;

static state make(int elements)
{
    const size_t n = (size_t)UNITS * (size_t)elements;
    state s = { malloc(n * sizeof(mest_real)), calloc(n, sizeof(mest_real)), malloc(n * sizeof(mest_real)), calloc(UNITS, 1) };
    for (size_t i = 0; i < n; i++) {
        s.w[i] = i % 11 == 0 ? 0 : trained(1, 0, 0, (int64_t)i) / 100; /* some are exactly 0 */
        s.g[i] = trained(2, 0, 0, (int64_t)i);
    }
    return s;
}

static void drop(state *s) { free(s->w), free(s->v), free(s->g), free(s->turned); }

static void update(state *s, int elements, double l1, double noise, uint64_t step, int threads)
{
    mest_optimizer o = { .momentum = .5 };
    mest_model model = { 0 };
    mest_threads pool = { 0 };
    mest_heap_init(&model.heap, NULL, NULL, NULL);
    OK(mest_optimizer_init(&o, &model, "sgd", err));
    o.momentum = .5;
    OK(mest_threads_create(&pool, threads, err));
    const mest_perturbation p = { l1, noise, 77, step };
    o.perturb = &p;
    const mest_perturb_job job = { .o = &o, .param = 3, .w = s->w, .slots = { s->v }, .g = s->g, .units = UNITS, .elements = elements, .scale = .5, .lr = .1,
                                   .wd = .01, .t = 1, .turned = s->turned };
    mest_perturbed_update(&job, &pool);
    mest_threads_destroy(&pool);
}

START_TEST(without_noise_it_is_the_rule_with_a_pull_towards_zero)
{
    for (int elements = 1; elements <= 5; elements += 2) {
        state s = make(elements), old = make(elements);
        update(&s, elements, .25, 0, 5, 1);
        for (int64_t u = 0; u < UNITS; u++) {
            double product = 0;
            for (int64_t i = u * elements; i < (u + 1) * elements; i++) {
                double w = (double)old.w[i], sign = w > 0 ? 1 : w < 0 ? -1 : 0;
                mest_real g = (mest_real)(.5 * (double)old.g[i] + .25 * sign), v = (mest_real)(.01 * w + (double)g), want = old.w[i] - (mest_real).1 * v;
                MUST(fabs((double)(s.w[i] - want)) < 1e-6);
                product += w * (double)s.w[i];
            }
            MUST(s.turned[u] == (product < 0));
        }
        drop(&s), drop(&old);
    }
}
END_TEST

START_TEST(noise_is_normal_and_keyed)
{
    state quiet = make(3), a = make(3), b = make(3), c = make(3);
    update(&quiet, 3, 0, 0, 5, 1);
    update(&a, 3, 0, 2, 5, 1);
    update(&b, 3, 0, 2, 5, 3);
    update(&c, 3, 0, 2, 6, 1);
    double sum = 0, squares = 0, fourth = 0, neighbours = 0;
    const double n = UNITS * 3;
    for (int64_t i = 0; i < UNITS * 3; i++) {
        double x = (double)(quiet.w[i] - a.w[i]) / .1, y = i ? (double)(quiet.w[i - 1] - a.w[i - 1]) / .1 : 0;
        sum += x, squares += x * x, fourth += x * x * x * x, neighbours += x * y;
    }
    ck_assert(fabs(sum / n) < 4 * 2 / sqrt(n));
    ck_assert(fabs(squares / n / 4 - 1) < 4 * sqrt(2 / n));
    ck_assert(fabs(fourth / n / (3 * 16) - 1) < .15);
    ck_assert(fabs(neighbours / n / 4) < 4 / sqrt(n));
    ck_assert(!memcmp(a.w, b.w, sizeof(mest_real) * UNITS * 3) && !memcmp(a.turned, b.turned, UNITS));
    ck_assert(memcmp(a.w, c.w, sizeof(mest_real) * UNITS * 3));
    drop(&quiet), drop(&a), drop(&b), drop(&c);
}
END_TEST

START_TEST(services_know_their_moments)
{
    static const world_param two[] = { { "csr", { 2, { 20, 20 } }, .9 }, { "block4", { 2, { 10, 30 } }, .8 } };
    world w;
    world_open(&w, 1, two, 2, 0);
    world_plan(&w);
    const mest_host_api *api = mest_host_functions();
    int64_t units[4], n, want[2];
    mest_host_enter(&w.host, MEST_HOST_STEP_END, "x", 0);
    REFUSED(MEST_E_STATE, api->perturb(&w.host, 0, 0, err));
    REFUSED(MEST_E_STATE, api->turned_units(&w.host, 0, 4, units, &n, err));
    mest_host_enter(&w.host, MEST_HOST_STEP, "x", 0);
    REFUSED(MEST_E_ARGUMENT, api->perturb(&w.host, -1, 0, err));
    REFUSED(MEST_E_ARGUMENT, api->perturb(&w.host, 0, (double)NAN, err));
    OK(api->perturb(&w.host, .1, .2, err));
    REFUSED(MEST_E_STATE, api->turned_units(&w.host, 0, 4, units, &n, err));
    OK(mest_host_leave(&w.host, true, NULL, err));
    w.host.params[0].turned[3] = w.host.params[0].turned[7] = 1;
    mest_host_enter(&w.host, MEST_HOST_STEP_END, "x", 0);
    REFUSED(MEST_E_ARGUMENT, api->turned_units(&w.host, 9, 4, units, &n, err));
    OK(api->turned_units(&w.host, 1, 4, units, &n, err));
    ck_assert_int_eq(n, 0);
    OK(api->active_units(&w.host, 0, 3, 1, &want[0], err));
    OK(api->active_units(&w.host, 0, 7, 1, &want[1], err));
    OK(api->turned_units(&w.host, 0, 1, units, &n, err));
    ck_assert(n == 2 && units[0] == want[0]);
    OK(api->turned_units(&w.host, 0, 4, units, &n, err));
    ck_assert(n == 2 && units[0] == want[0] && units[1] == want[1]);
    /* after a change of the pattern places mean other units: nothing is marked any more */
    OK(api->drop(&w.host, 0, want, 1, err));
    OK(mest_host_leave(&w.host, true, NULL, err));
    mest_host_enter(&w.host, MEST_HOST_STEP_END, "y", 1);
    OK(api->turned_units(&w.host, 0, 4, units, &n, err));
    ck_assert_int_eq(n, 0);
    world_close(&w);
}
END_TEST

RUN("perturb", without_noise_it_is_the_rule_with_a_pull_towards_zero, noise_is_normal_and_keyed, services_know_their_moments)
