/* SPDX-License-Identifier: Apache-2.0 */
/* Sieving: who goes, who comes back, that nobody comes back too early, that every start is equally likely; freezing layer by layer; resume. */
#include "tests/plugin/world.h"

enum { SAMPLES = 120, EPOCHS = 40 };

static const world_param three[] = { { "csr", { 2, { 20, 20 } }, .9 }, { "block4", { 2, { 10, 30 } }, .8 }, { "csr", { 2, { 9, 9 } }, .5 } };

/* What a session does when a layer is frozen, without what is before it. */
static mest_status freezer(void *self, int model_param, mest_error *err)
{
    world *w = self;
    (void)err;
    w->host.params[model_param].frozen = true;
    return MEST_OK;
}

static void open_both(world *w, const char *options, const char *mest, int64_t samples, uint64_t seed)
{
    world_open(w, seed, three, 3, samples);
    for (int i = 0; i < 3; i++)
        w->host.params[i].model_param = i;
    w->host.freezer = freezer;
    w->host.keeper_self = w;
    if (mest)
        OK(mest_schedulers_add(w->list, "mest", mest, err));
    OK(mest_schedulers_add(w->list, "sieve", options, err));
    world_plan(w);
}

static void open_sieve(world *w, const char *options, int64_t samples, uint64_t seed) { open_both(w, options, NULL, samples, seed); }

static void begin(world *w, int64_t epoch)
{
    mest_epoch e = world_epoch(w, epoch, EPOCHS);
    OK(mest_schedulers_epoch_begin(w->list, &e, NULL, err));
}

/* Is sample id right in an epoch? Some never are, some always, the others now and then. */
static bool right(int64_t id, int64_t epoch) { return id % 7 == 0 ? false : id % 3 == 0 || mest_rng_below(5, (uint64_t)id, (uint64_t)epoch, 3) > 0; }

typedef struct sample {
    bool last, learned, in;
    int events, left; /* left: exchange in which it went, -1 before the first */
} sample;

static void train(world *w, int64_t epoch, sample *s)
{
    for (int64_t id = 0; id < SAMPLES; id++) {
        if (!mest_sample_active(&w->samples, id))
            continue;
        uint8_t ok = right(id, epoch);
        OK(mest_schedulers_batch_seen(w->list, &id, &ok, 1, err));
        if (!s)
            continue;
        s[id].events += s[id].last && !ok;
        s[id].last = ok;
        s[id].learned = s[id].learned || ok;
    }
}

static int hardness(const sample *s) { return s->learned ? s->events : 1000; }

START_TEST(the_easiest_change_places_with_those_that_waited_longest)
{
    world w;
    sample s[SAMPLES] = { { 0 } };
    int64_t exchanges = 0;
    open_sieve(&w, "fraction=.25,exchange=.05,every=2,freeze_from=1", SAMPLES, 3);
    for (int64_t e = 0; e < EPOCHS; e++) {
        begin(&w, e);
        ck_assert_int_eq(w.samples.active, 90);
        int hardest_gone = -1, easiest_kept = 2000;
        int64_t gone = 0, back = 0, round = (exchanges / 5) * 5;
        const bool due = e > 0 && e % 2 == 0;
        for (int64_t id = 0; id < SAMPLES; id++) {
            const bool now = mest_sample_active(&w.samples, id);
            if (e == 0) {
                s[id].left = -1;
            } else if (s[id].in && !now) {
                gone++;
                hardest_gone = hardness(&s[id]) > hardest_gone ? hardness(&s[id]) : hardest_gone;
                s[id].left = (int)exchanges;
            } else if (s[id].in) {
                easiest_kept = hardness(&s[id]) < easiest_kept ? hardness(&s[id]) : easiest_kept;
            } else if (now) {
                back++;
                MUST(s[id].left < round); /* 30 wait, 6 change places: a round has 5 exchanges, and nobody comes back in the round in which it went */
            }
            s[id].in = now;
        }
        ck_assert(gone == (due ? 6 : 0) && back == gone);
        ck_assert(hardest_gone <= easiest_kept);
        for (int64_t id = 0; id < SAMPLES && due; id++)
            s[id].events = 0;
        exchanges += due;
        train(&w, e, s);
    }
    ck_assert_int_eq(exchanges, 19);
    world_close(&w);
}
END_TEST

/* Any sample may be out at first, and any of equally easy ones may go: counts over seeds. */
static double z(const int *count, int n, double expected, double share)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (count[i] - expected) * (count[i] - expected) / (expected * (1 - share));
    return (sum - (n - 1)) / sqrt(2. * (n - 1));
}

START_TEST(chances_are_equal)
{
    int first[20] = { 0 }, later[20] = { 0 };
    for (uint64_t seed = 0; seed < 600; seed++) {
        world w;
        open_sieve(&w, "fraction=.25,exchange=.25,every=1,freeze_from=1", 20, seed);
        begin(&w, 0);
        for (int64_t id = 0; id < 20; id++)
            first[id] += !mest_sample_active(&w.samples, id);
        begin(&w, 1); /* all are equally hard; five of the fifteen go */
        for (int64_t id = 0; id < 20; id++)
            later[id] += !mest_sample_active(&w.samples, id);
        world_close(&w);
    }
    ck_assert_msg(fabs(z(first, 20, 150, .25)) < 4, "first: %g", z(first, 20, 150, .25));
    ck_assert_msg(fabs(z(later, 20, 150, .25)) < 4, "later: %g", z(later, 20, 150, .25));
}
END_TEST

START_TEST(layers_freeze_from_the_front)
{
    world w;
    open_both(&w, "every=4,freeze_from=.5,freeze_part=.67", "mode=em,freq=2", SAMPLES, 3);
    for (int64_t e = 0; e < EPOCHS; e++) {
        mest_epoch now = world_epoch(&w, e, EPOCHS);
        picture before[3];
        for (int i = 0; i < 3; i++)
            before[i] = take_picture(&w, i);
        OK(mest_schedulers_epoch_begin(w.list, &now, NULL, err));
        for (int i = 0; i < 3; i++) {
            picture after = take_picture(&w, i);
            ck_assert_int_eq(w.host.params[i].frozen, i < 2 && e >= (i ? 24 : 20)); /* two thirds of three are two */
            if (w.host.params[i].frozen && e > (i ? 24 : 20)) /* in its own epoch it moved before it was frozen */
                MUST(same_picture(&before[i], &after));
            else
                MUST(e % 2 || e >= 30 || !same_picture(&before[i], &after));
            drop_picture(&after), drop_picture(&before[i]);
        }
        world_train(&w, e);
        train(&w, e, NULL);
    }
    ck_assert(strstr(w.log, "is frozen, 1 of 2 layers") && strstr(w.log, "is frozen, 2 of 2 layers"));
    /* what is proposed for a frozen layer is refused */
    const mest_host_api *api = mest_host_functions();
    int64_t unit;
    mest_sparse_info info = { .struct_size = sizeof info };
    mest_host_enter(&w.host, MEST_HOST_BEGIN, "x", 0);
    OK(api->active_units(&w.host, 0, 0, 1, &unit, err));
    OK(api->sparse_info(&w.host, 0, &info, err));
    ck_assert_int_eq(info.frozen, 1);
    REFUSED(MEST_E_STATE, api->drop(&w.host, 0, &unit, 1, err));
    REFUSED(MEST_E_STATE, api->set_values(&w.host, 0, &unit, 1, (float[1]){ 1 }, err));
    REFUSED(MEST_E_ARGUMENT, api->freeze(&w.host, 3, err));
    OK(mest_host_leave(&w.host, false, NULL, err));
    mest_host_enter(&w.host, MEST_HOST_STEP, "x", 0);
    REFUSED(MEST_E_STATE, api->freeze(&w.host, 2, err));
    world_close(&w);
}
END_TEST

START_TEST(resumed_after_any_epoch_it_is_the_same_run)
{
    static const char options[] = "fraction=.3,exchange=.07,every=3,freeze_from=.4";
    for (int64_t stop = 1; stop < EPOCHS; stop += 2) {
        world a, b;
        open_sieve(&a, options, SAMPLES, 5);
        open_sieve(&b, options, SAMPLES, 5);
        for (int64_t e = 0; e < stop; e++) {
            begin(&a, e);
            train(&a, e, NULL);
        }
        bytes state = { 0 };
        OK(mest_schedulers_save(a.list, bytes_write, &state, err));
        OK(mest_schedulers_load(b.list, bytes_read, &state, err));
        ck_assert_uint_eq(state.at, state.n);
        memcpy(b.samples.bits, a.samples.bits, SAMPLES / 8); /* the session's own part */
        b.samples.active = a.samples.active;
        for (int i = 0; i < 3; i++)
            b.host.params[i].frozen = a.host.params[i].frozen;
        for (int64_t e = stop; e < EPOCHS; e++) {
            begin(&a, e), begin(&b, e);
            train(&a, e, NULL), train(&b, e, NULL);
            ck_assert_mem_eq(a.samples.bits, b.samples.bits, SAMPLES / 8);
            for (int i = 0; i < 3; i++)
                ck_assert(a.host.params[i].frozen == b.host.params[i].frozen);
        }
        for (size_t cut = 0; cut < state.n; cut += state.n / 9 + 1) {
            bytes part = { .p = state.p, .n = cut };
            ck_assert_int_ne(mest_schedulers_load(b.list, bytes_read, &part, NULL), MEST_OK);
        }
        free(state.p);
        world_close(&a), world_close(&b);
    }
}
END_TEST

START_TEST(options_and_tasks_are_checked)
{
    static const char *const bad[] = { "fraction=1", "fraction=-.1", "exchange=2", "every=0", "freeze_from=2", "freeze_part=-1", "q=3" };
    world w;
    int64_t id = 3, far = 10;
    uint8_t none = 255, ok = 1;
    open_sieve(&w, "fraction=.95", 10, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED(MEST_E_ARGUMENT, mest_schedulers_add(w.list, "sieve", bad[i], err));
    mest_epoch e = world_epoch(&w, 0, 4); /* 9.5 of 10 are 10 */
    REFUSED(MEST_E_ARGUMENT, mest_schedulers_epoch_begin(w.list, &e, NULL, err));
    world_close(&w);
    open_sieve(&w, "every=1", 10, 1);
    e = world_epoch(&w, 0, 0);
    OK(mest_schedulers_epoch_begin(w.list, &e, NULL, err));
    REFUSED(MEST_E_UNSUPPORTED, mest_schedulers_batch_seen(w.list, &id, &none, 1, err));
    REFUSED(MEST_E_DATA, mest_schedulers_batch_seen(w.list, &far, &ok, 1, err));
    e = world_epoch(&w, 1, 0); /* parts of an unknown run */
    REFUSED(MEST_E_ARGUMENT, mest_schedulers_epoch_begin(w.list, &e, NULL, err));
    world_close(&w);
}
END_TEST

START_TEST(every_failed_allocation_is_survived)
{
    bool finished = false;
    for (int64_t at = 0; !finished; at++) {
        world w;
        mest_error error = { 0 };
        world_open(&w, 5, NULL, 0, 50);
        w.b.guard.fail_at = w.b.guard.n + at;
        mest_status status = mest_schedulers_add(w.list, "sieve", "every=1,freeze_from=1", &error);
        status = status ? status : mest_host_plan(&w.host, &error);
        for (int64_t e = 0; e < 3 && status == MEST_OK; e++) {
            mest_epoch now = world_epoch(&w, e, 3);
            const int64_t before = w.samples.active;
            status = mest_schedulers_epoch_begin(w.list, &now, NULL, &error);
            ck_assert(status == MEST_OK || w.samples.active == before);
        }
        finished = status == MEST_OK;
        ck_assert(finished || (status == MEST_E_NOMEM && error.code == MEST_E_NOMEM));
        world_close(&w);
    }
}
END_TEST

RUN("sieve", the_easiest_change_places_with_those_that_waited_longest, chances_are_equal, layers_freeze_from_the_front,
    resumed_after_any_epoch_it_is_the_same_run, options_and_tasks_are_checked, every_failed_allocation_is_survived)
