/* SPDX-License-Identifier: Apache-2.0 */
/* The host against schedulers from shared objects: loading, refusing, checking proposals, applying all or nothing. */
#include "tests/plugin/world.h"

static const world_param two[] = { { "csr", { 2, { 20, 20 } }, .9 }, { "block4", { 2, { 10, 30 } }, .8 } };

static const char *object(const char *variant)
{
    static char path[4096];
    const char *dir = getenv("MEST_PLUGIN_DIR");
    snprintf(path, sizeof path, "%s/scheduler_%s.so", dir ? dir : ".", variant);
    return path;
}

START_TEST(objects_are_loaded_or_refused)
{
    static const struct { const char *variant, *says; } bad[] = {
        { "other_abi", "ABI 2, this library has ABI 1" }, { "short_struct", "bytes, ABI 1 needs" }, { "refuses", "cannot serve a host of ABI 1" },
        { "no_name", "lacks a name" }, { "no_symbol", "no symbol mest_scheduler_entry" }, { "absent", "cannot be loaded" },
    };
    world w;
    world_open(&w, 1, two, 2, 10);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mest_error err = { 0 };
        ck_assert_int_eq(mest_schedulers_add(w.list, object(bad[i].variant), "", &err), MEST_E_PLUGIN);
        ck_assert_msg(strstr(err.msg, bad[i].says) && strstr(err.msg, bad[i].variant), "%s", err.msg);
    }
    REFUSED(MEST_E_ARGUMENT, mest_schedulers_add(w.list, object("honest"), "do=harm", err));
    OK(mest_schedulers_add(w.list, object("honest"), "", err));
    OK(mest_schedulers_add(w.list, "scheduler_honest.so", NULL, err)); /* relative to the working directory */
    ck_assert_str_eq(mest_schedulers_name(w.list, 1, NULL), "sample");
    ck_assert_int_eq(mest_schedulers_count(w.list), 2);
    world_plan(&w);
    mest_epoch e = world_epoch(&w, 0, 3);
    mest_host_report r;
    OK(mest_schedulers_epoch_begin(w.list, &e, &r, err));
    ck_assert(r.removed == 0 && r.grown == 0 && r.text[0] == 0);
    OK(mest_schedulers_add(w.list, object("older"), "", err));
    ck_assert(mest_schedulers_watch_steps(w.list));
    mest_training_step step = { .struct_size = sizeof step };
    for (int i = 0; i < 2; i++) {
        OK(mest_schedulers_step_begin(w.list, &step, &r, err));
        OK(mest_schedulers_step_end(w.list, &step, &r, err));
    }
    bytes state = { 0 };
    OK(mest_schedulers_save(w.list, bytes_write, &state, err));
    OK(mest_schedulers_load(w.list, bytes_read, &state, err));
    ck_assert_uint_eq(state.n, state.at);
    free(state.p);
    mest_schedulers_destroy(w.list);
    ck_assert(strstr(w.log, "sample: saw 1 epochs, 2 steps") != NULL);
    ck_assert(strstr(w.log, "sample: saw 0 epochs, 0 steps") != NULL); /* the older one has no callbacks around steps */
    w.list = NULL;
    world_close(&w);
}
END_TEST

/* Any of the four moments at which patterns may change. */
static mest_status moment(world *w, const char *at, mest_host_report *report, mest_error *why)
{
    mest_epoch e = world_epoch(w, 0, 3);
    mest_training_step step = { .struct_size = sizeof step, .n_epochs = 3, .n_batches = 5 };
    if (!strcmp(at, "epoch_end"))
        return mest_schedulers_epoch_end(w->list, &e, report, why);
    if (!strcmp(at, "step_begin"))
        return mest_schedulers_step_begin(w->list, &step, report, why);
    if (!strcmp(at, "step_end"))
        return mest_schedulers_step_end(w->list, &step, report, why);
    return mest_schedulers_epoch_begin(w->list, &e, report, why);
}

static void add_and_act(world *w, const char *at, const char *act, mest_status want, mest_host_report *report, mest_error *why)
{
    char options[100];
    snprintf(options, sizeof options, "at=%s,do=%s", at, act);
    world_open(w, 1, two, 2, 10);
    OK(mest_schedulers_add(w->list, object("honest"), options, err));
    world_plan(w);
    world_train(w, 3);
    picture before = take_picture(w, 0);
    mest_sample_remove(&w->samples, 9);
    mest_status status = moment(w, at, report, why);
    ck_assert_msg(status == want, "%s: %d, not %d: %s", options, status, want, why->msg);
    if (status != MEST_OK) {
        picture after = take_picture(w, 0);
        ck_assert_msg(same_picture(&before, &after), "%s changed something", options);
        ck_assert_int_eq(w->samples.active, 9);
        ck_assert(w->host.params[0].set.n == 0 && w->host.restored_samples.n == 0);
        ck_assert(w->host.params[0].drop.n == 0 && w->host.params[0].grow.n == 0 && w->host.removed_samples.n == 0);
        drop_picture(&after);
    }
    drop_picture(&before);
    sparse_check(w->host.params[0].sparse);
}

START_TEST(lies_are_refused_and_change_nothing)
{
    static const struct { const char *act; mest_status status; const char *says; } lies[] = {
        { "drop_range", MEST_E_PLUGIN, "unit 400 is out of range" }, { "drop_negative", MEST_E_PLUGIN, "unit -1 is out of range" },
        { "drop_twice", MEST_E_PLUGIN, "twice or out of order" },    { "drop_order", MEST_E_PLUGIN, "twice or out of order" },
        { "drop_inactive", MEST_E_PLUGIN, "it is not active" },      { "drop_again", MEST_E_PLUGIN, "it is not active" },
        { "grow_range", MEST_E_PLUGIN, "unit 405 is out of range" }, { "grow_active", MEST_E_PLUGIN, "it is active already" },
        { "grow_twice", MEST_E_PLUGIN, "twice or out of order" },    { "grow_again", MEST_E_PLUGIN, "it is active already" },
        { "grow_over", MEST_E_PLUGIN, "make 41, but room was reserved for 40" },
        { "bad_param", MEST_E_PLUGIN, "parameter 7 does not exist" }, { "bad_units", MEST_E_PLUGIN, "units 39..+2 of 40" },
        { "late_reserve", MEST_E_PLUGIN, "reserve is for create" },   { "samples_range", MEST_E_PLUGIN, "sample 1000 is out of range" },
        { "samples_twice", MEST_E_PLUGIN, "sample 3 is removed already" }, { "samples_all", MEST_E_PLUGIN, "9 samples to remove of the 9" },
        { "set_range", MEST_E_PLUGIN, "unit 400 is out of range" },  { "set_inactive", MEST_E_PLUGIN, "gets new values, but is not active" },
        { "set_dropped", MEST_E_PLUGIN, "gets new values, but is not active" }, { "set_twice", MEST_E_PLUGIN, "gets new values twice" },
        { "set_nan", MEST_E_PLUGIN, "is not finite" },               { "set_none", MEST_E_PLUGIN, "no values for 1 units" },
        { "drop_set", MEST_E_PLUGIN, "new values were given for it" }, { "late_skip", MEST_E_PLUGIN, "skip_update is for step_begin" },
        { "restore_active", MEST_E_PLUGIN, "cannot be restored, it is active" }, { "restore_twice", MEST_E_PLUGIN, "cannot be restored, it is active" },
        { "fail_after", MEST_E_NUMERIC, "changed its mind" },        { "fail_silent", MEST_E_PLUGIN, "scheduler sample: a limit was exceeded" },
    };
    static const char *const at[] = { "epoch_begin", "epoch_end", "step_begin", "step_end" };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++)
        for (size_t k = 0; k < 4; k++) {
            world w;
            mest_error err = { 0 };
            if (k == 2 && !strcmp(lies[i].act, "late_skip"))
                continue; /* there it is allowed */
            add_and_act(&w, at[k], lies[i].act, lies[i].status, NULL, &err);
            ck_assert_msg(strstr(err.msg, lies[i].says) && strstr(err.msg, "sample"), "%s: %s", lies[i].act, err.msg);
            world_close(&w);
        }
}
END_TEST

START_TEST(honest_proposals_are_applied)
{
    world w;
    mest_error err = { 0 };
    mest_host_report r;
    add_and_act(&w, "epoch_begin", "swap", MEST_OK, &r, &err);
    ck_assert(r.removed == 2 && r.grown == 2 && r.n_params == 1 && r.removed_samples == 0);
    ck_assert_str_eq(r.text, "sample: 2 units removed, 2 grown in 1 parameter");
    ck_assert_int_eq(w.host.params[0].sparse->active_units, 40);
    world_close(&w);
    add_and_act(&w, "step_end", "second_list", MEST_OK, &r, &err);
    ck_assert(r.removed == 4 && r.grown == 4);
    world_close(&w);
    /* a scheduler that goes on after a refusal: the refused list leaves no trace, the others stand */
    add_and_act(&w, "step_begin", "drop_twice,swallow=yes", MEST_OK, &r, &err);
    ck_assert(r.removed == 2 && r.grown == 0);
    ck_assert_int_eq(w.host.params[0].sparse->active_units, 38);
    world_close(&w);
}
END_TEST

/* New values: of a survivor, whose optimizer state stays, and of a new unit, whose state is 0. Blocks keep their padding. */
START_TEST(values_are_set)
{
    world w;
    mest_error why = { 0 };
    mest_host_report r;
    add_and_act(&w, "step_begin", "set", MEST_OK, &r, &why);
    mest_host_param *p = &w.host.params[0];
    int fresh = 0, old = 0;
    for (int64_t i = 0; i < p->sparse->stored; i++) {
        fresh += p->sparse->values[i] == -2 && p->slots[0][i] == 0 && p->slots[1][i] == 0;
        old += p->sparse->values[i] == (mest_real)1.5;
    }
    ck_assert(fresh >= 1 && old >= 1);
    ck_assert(r.removed == 2 && r.grown == 2);
    const mest_host_api *api = mest_host_functions();
    float value[4], norm;
    OK(api->get_values(&w.host, 0, 0, 1, value, err));
    ck_assert(value[0] == (float)p->sparse->values[0]);
    OK(api->unit_momentum(&w.host, 1, 3, 1, &norm, err));
    const mest_host_param *q = &w.host.params[1];
    double sum = 0;
    for (int e = 0; e < 4; e++)
        sum += (double)q->slots[0][12 + e] * (double)q->slots[0][12 + e];
    ck_assert(norm == (float)sqrt(sum));
    REFUSED(MEST_E_ARGUMENT, api->get_values(&w.host, 0, 40, 1, value, err));
    REFUSED(MEST_E_ARGUMENT, api->unit_momentum(&w.host, 0, -1, 1, &norm, err));
    int64_t last = q->sparse->active_units - 1, unit; /* 10 rows in blocks of 4: two rows of the last one are padding */
    OK(api->active_units(&w.host, 1, last, 1, &unit, err));
    ck_assert_int_ge(unit, 60);
    mest_host_enter(&w.host, MEST_HOST_STEP, "x", 0);
    OK(api->set_values(&w.host, 1, &unit, 1, (float[]){ 1, 2, 3, 4 }, err));
    OK(mest_host_leave(&w.host, true, NULL, err));
    const mest_real *v = q->sparse->values + 4 * last;
    ck_assert(v[0] == 1 && v[1] == 2 && v[2] == 0 && v[3] == 0);
    sparse_check(q->sparse);
    world_close(&w);
}
END_TEST

/* A scheduler that acts at every step: after the first one its proposals need no more memory. */
START_TEST(steps_that_mutate_allocate_nothing)
{
    world w;
    world_open(&w, 1, two, 2, 10);
    OK(mest_schedulers_add(w.list, object("honest"), "do=set,at=step_end", err));
    world_plan(&w);
    mest_training_step step = { .struct_size = sizeof step };
    OK(mest_schedulers_step_end(w.list, &step, NULL, err));
    int64_t before = atomic_load(&w.b.heap.allocations);
    for (int i = 0; i < 10; i++) {
        mest_host_report r;
        OK(mest_schedulers_step_begin(w.list, &step, &r, err));
        ck_assert(r.removed == 0 && r.text[0] == 0);
        OK(mest_schedulers_step_end(w.list, &step, &r, err));
        ck_assert(r.removed == 2 && r.grown == 2);
    }
    ck_assert_int_eq(atomic_load(&w.b.heap.allocations), before);
    sparse_check(w.host.params[0].sparse);
    world_close(&w);
}
END_TEST

/* Two schedulers in a row: the second one sees what the first one did; when it fails, the first one's work stands. */
START_TEST(schedulers_act_in_order)
{
    world w;
    world_open(&w, 1, two, 2, 10);
    OK(mest_schedulers_add(w.list, object("honest"), "do=swap", err));
    OK(mest_schedulers_add(w.list, object("honest"), "do=swap", err));
    OK(mest_schedulers_add(w.list, "mest", "mode=vanilla,freq=1", err));
    world_plan(&w);
    world_train(&w, 0);
    mest_epoch e = world_epoch(&w, 0, 3);
    mest_host_report r;
    OK(mest_schedulers_epoch_begin(w.list, &e, &r, err));
    ck_assert_int_eq(r.removed, 2 + 2 + 8 + 4 /* of 18 blocks a fifth: 18 - round(.16 * 90) */);
    ck_assert_int_eq(r.grown, r.removed);
    ck_assert(strstr(r.text, "sample: 2 units removed, 2 grown in 1 parameter; sample: 2 units") == r.text);
    ck_assert(strstr(r.text, "; mest: 12 units removed, 12 grown in 2 parameters") != NULL);
    world_close(&w);
}
END_TEST

/* Two that decide the same thing are refused, and leave the list as it was. */
START_TEST(one_of_a_kind)
{
    static const struct { const char *name, *says; } bad[] = {
        { "mest", "scheduler mest is there already" }, { "set", "schedulers mest and set both move weights" },
        { "forgetting", "scheduler forgetting is there already" }, { "sieve", "schedulers forgetting and sieve both choose the samples" },
    };
    world w;
    world_open(&w, 1, two, 2, 10);
    OK(mest_schedulers_add(w.list, "mest", "", err));
    OK(mest_schedulers_add(w.list, "forgetting", "count=3", err));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mest_error e = { 0 };
        ck_assert_int_eq(mest_schedulers_add(w.list, bad[i].name, !strcmp(bad[i].name, "forgetting") ? "count=3" : "", &e), MEST_E_ARGUMENT);
        ck_assert_msg(strstr(e.msg, bad[i].says), "%s", e.msg);
        ck_assert_int_eq(mest_schedulers_count(w.list), 2);
    }
    world_close(&w);
}
END_TEST

START_TEST(steps_allocate_nothing)
{
    world w;
    world_open(&w, 1, two, 2, 10);
    OK(mest_schedulers_add(w.list, "mest", "", err));
    OK(mest_schedulers_add(w.list, "forgetting", "epoch=2,count=3", err));
    world_plan(&w);
    mest_epoch e = world_epoch(&w, 0, 3);
    OK(mest_schedulers_epoch_begin(w.list, &e, NULL, err));
    int64_t before = atomic_load(&w.b.heap.allocations), ids[] = { 3, 1, 4 };
    uint8_t right[] = { 1, 0, 1 };
    for (int i = 0; i < 10; i++)
        OK(mest_schedulers_batch_seen(w.list, ids, right, 3, err));
    ck_assert_int_eq(atomic_load(&w.b.heap.allocations), before);
    world_close(&w);
}
END_TEST

/* The table of functions outside their phases, and with what a plugin could get wrong. */
START_TEST(functions_check_their_arguments)
{
    world w;
    world_open(&w, 1, two, 2, 10);
    world_plan(&w);
    const mest_host_api *api = mest_host_functions();
    mest_host *h = &w.host;
    int64_t unit = 0, ids[] = { 2 };
    float score[4];
    ck_assert(api->abi == MEST_SCHEDULER_ABI && api->struct_size == sizeof *api);
    REFUSED(MEST_E_STATE, api->drop(h, 0, &unit, 1, err));
    REFUSED(MEST_E_STATE, api->grow(h, 0, &unit, 1, err));
    REFUSED(MEST_E_STATE, api->remove_samples(h, ids, 1, err));
    REFUSED(MEST_E_STATE, api->keep_gradients(h, err));
    REFUSED(MEST_E_STATE, api->reserve(h, 0, 3, err));
    REFUSED(MEST_E_STATE, api->set_values(h, 0, &unit, 1, score, err));
    REFUSED(MEST_E_STATE, api->restore_samples(h, ids, 1, err));
    REFUSED(MEST_E_STATE, api->skip_update(h, err));
    mest_host_enter(h, MEST_HOST_BATCH, "x", 0);
    REFUSED(MEST_E_STATE, api->drop(h, 0, &unit, 1, err));
    mest_host_enter(h, MEST_HOST_CREATE, "x", 0);
    REFUSED(MEST_E_ARGUMENT, api->reserve(h, 0, 401, err));
    REFUSED(MEST_E_ARGUMENT, api->reserve(h, -1, 4, err));
    mest_host_enter(h, MEST_HOST_BEGIN, "x", 0);
    REFUSED(MEST_E_PLUGIN, api->drop(h, 0, &unit, -1, err));
    REFUSED(MEST_E_PLUGIN, api->drop(h, 0, NULL, 1, err));
    REFUSED(MEST_E_ARGUMENT, api->unit_scores(h, 0, -1, false, 0, 4, score, err));
    REFUSED(MEST_E_ARGUMENT, api->unit_scores(h, 0, (double)NAN, false, 0, 4, score, err));
    REFUSED(MEST_E_ARGUMENT, api->unit_scores(h, 0, 0, false, -1, 4, score, err));
    REFUSED(MEST_E_ARGUMENT, api->unit_scores(h, 0, 0, false, INT64_MAX, INT64_MAX, score, err));
    REFUSED(MEST_E_ARGUMENT, api->lowest_units(h, 0, 0, false, 41, &unit, err));
    REFUSED(MEST_E_LIMIT, api->sample_inactive(h, 0, 0, NULL, 0, 361, &unit, err));
    OK(api->unit_scores(h, 1, .5, true, 3, 4, score, err));
    mest_sparse_info info = { 0 };
    REFUSED(MEST_E_ARGUMENT, api->sparse_info(h, 0, &info, err));
    info.struct_size = sizeof(uint32_t) + 2 * sizeof(void *) + 4; /* an older, shorter one: nothing past it is written */
    info.target_sparsity = 42;
    OK(api->sparse_info(h, 1, &info, err));
    ck_assert_str_eq(info.scheme, "block4");
    ck_assert(info.target_sparsity == 42);
    info.struct_size = sizeof info + 100; /* a newer, longer one: told how much was filled */
    OK(api->sparse_info(h, 1, &info, err));
    ck_assert(info.struct_size == sizeof info && info.n_units == 90 && info.n_active == 18 && info.capacity == 18 && info.unit_elements == 4);
    ck_assert(info.rank == 2 && info.dim[0] == 10 && info.dim[1] == 30 && info.target_sparsity == .8);
    ck_assert_int_eq(api->sparse_count(h), 2);
    ck_assert(api->sample_active(h, 9) && !api->sample_active(h, 10) && !api->sample_active(h, -1));
    ck_assert_int_eq(api->sample_class(h, 3), -1);
    ck_assert_uint_eq(api->random(h, 1, 2), api->random(h, 1, 2));
    ck_assert_uint_ne(api->random(h, 1, 2), api->random(h, 1, 3));
    uint64_t first = api->random(h, 1, 2);
    mest_host_enter(h, MEST_HOST_BEGIN, "y", 1); /* another scheduler, other numbers */
    ck_assert_uint_ne(first, api->random(h, 1, 2));
    OK(api->remove_samples(h, ids, 1, err));
    OK(mest_host_leave(h, true, NULL, err));
    ck_assert(!api->sample_active(h, 2) && w.samples.active == 9);
    mest_host_enter(h, MEST_HOST_BEGIN, "y", 1);
    OK(api->restore_samples(h, ids, 1, err));
    mest_host_report r = { 0 };
    OK(mest_host_leave(h, true, &r, err));
    ck_assert(api->sample_active(h, 2) && w.samples.active == 10 && r.restored_samples == 1);
    ck_assert_str_eq(r.text, "y: 0 samples removed, 1 back");
    world_close(&w);
}
END_TEST

RUN("scheduler host", objects_are_loaded_or_refused, lies_are_refused_and_change_nothing, honest_proposals_are_applied, values_are_set,
    schedulers_act_in_order, one_of_a_kind, steps_allocate_nothing, steps_that_mutate_allocate_nothing, functions_check_their_arguments)
