/* SPDX-License-Identifier: Apache-2.0 */
/* What holds for all published methods: a resumed run is the same run, memory may run out anywhere, wrong options are explained */
#include "tests/plugin/methods.h"

static const struct { const char *name, *options; bool dense; } all_methods[] = {
    { "set", "every=2", false }, { "rigl", "every=6,rate=.5", false }, { "dsr", "every=5,threshold=.3", false }, { "magnitude", "every=4", true },
    { "magnitude", "every=4,scope=global,initial=.2", true }, { "snip", "batches=2", true }, { "grasp", "", true },
    { "deepr", "stop=.2", false }, { "snfs", "window=5,rate=.6", false }, { "snfs", "memory=dense", false },
};
enum { N_METHODS = sizeof all_methods / sizeof *all_methods };

static mest_status run_steps(world *w, int64_t from, int64_t to, mest_error *err)
{
    for (int64_t step = from; step < to; step++) {
        mest_host_report r;
        MEST_TRY(world_step(w, step / BATCHES, step % BATCHES, EPOCHS, BATCHES, &r, err));
        world_train(w, step);
        MEST_TRY(world_step_end(w, step / BATCHES, step % BATCHES, EPOCHS, BATCHES, &r, err));
    }
    return MEST_OK;
}

/* A copy of patterns, values and state into another world, as a checkpoint would carry them. */
static void copy_world(const world *from, world *to)
{
    for (int i = 0; i < N; i++) {
        picture p = take_picture(from, i);
        mest_host_param *q = &to->host.params[i];
        OK(mest_sparse_from_units(q->sparse, p.units, p.n, p.values, err));
        for (int t = 0; t < WORLD_SLOTS; t++)
            memcpy(q->slots[t], p.slots[t], p.stored * sizeof(mest_real));
        drop_picture(&p);
    }
}

static bool no_groups(int m) { return !strcmp(all_methods[m].name, "dsr") || !strcmp(all_methods[m].name, "snfs"); }

START_TEST(resumed_at_every_step_it_is_the_same_run)
{
    for (int turn = 0; turn < 2 * N_METHODS; turn++) {
        const int m = turn / 2;
        if (turn % 2 && no_groups(m))
            continue;
        params = turn % 2 ? grouped_params : free_params;
        for (int64_t stop = 1; stop < 60; stop += m == 5 ? 1 : 7) {
            world a, b;
            open_method(&a, all_methods[m].name, all_methods[m].options, all_methods[m].dense, 8);
            open_method(&b, all_methods[m].name, all_methods[m].options, all_methods[m].dense, 8);
            OK(run_steps(&a, 0, stop, err));
            copy_world(&a, &b);
            bytes state = { 0 };
            OK(mest_schedulers_save(a.list, bytes_write, &state, err));
            OK(mest_schedulers_load(b.list, bytes_read, &state, err));
            ck_assert_uint_eq(state.n, state.at);
            OK(run_steps(&a, stop, 80, err));
            OK(run_steps(&b, stop, 80, err));
            for (int i = 0; i < N; i++) {
                picture p = take_picture(&a, i), q = take_picture(&b, i);
                ck_assert_msg(same_picture(&p, &q), "%s resumed at step %d differs", all_methods[m].name, (int)stop);
                drop_picture(&p), drop_picture(&q);
            }
            free(state.p);
            world_close(&a);
            world_close(&b);
        }
    }
    params = free_params;
}
END_TEST

/* Memory runs out at any point: an error, nothing half applied, nothing lost. */
START_TEST(every_failed_allocation_is_survived)
{
    for (int turn = 0; turn < 2 * N_METHODS; turn++) {
        const int m = turn / 2;
        bool finished = turn % 2 && no_groups(m);
        params = turn % 2 ? grouped_params : free_params;
        for (int64_t at = 0; !finished; at++) {
            world w;
            world_param all[N];
            memcpy(all, params, sizeof all);
            for (int i = 0; all_methods[m].dense && i < N; i++)
                all[i].sparsity = 0;
            world_open(&w, 8, all, N, 0);
            for (int i = 0; i < N; i++)
                w.host.params[i].target_sparsity = params[i].sparsity;
            mest_error err = { 0 };
            w.b.guard.fail_at = w.b.guard.n + at;
            mest_status status = mest_schedulers_add(w.list, all_methods[m].name, all_methods[m].options, &err);
            status = status ? status : mest_host_plan(&w.host, &err);
            if (status == MEST_OK) { /* the slots are not what fails here */
                int64_t n = w.b.guard.n, fail_at = w.b.guard.fail_at;
                w.b.guard.fail_at = -1;
                world_slots(&w);
                w.b.guard.fail_at = fail_at;
                w.b.guard.n = n;
            }
            for (int64_t step = 0; step < 45 && status == MEST_OK; step++) {
                picture before[N];
                mest_host_report r;
                for (int i = 0; i < N; i++)
                    before[i] = take_picture(&w, i);
                status = world_step(&w, step / BATCHES, step % BATCHES, EPOCHS, BATCHES, &r, &err);
                if (status == MEST_OK) {
                    for (int i = 0; i < N; i++) {
                        drop_picture(&before[i]);
                        before[i] = take_picture(&w, i);
                    }
                    status = world_step_end(&w, step / BATCHES, step % BATCHES, EPOCHS, BATCHES, &r, &err);
                }
                for (int i = 0; i < N; i++) {
                    picture after = take_picture(&w, i);
                    ck_assert(status == MEST_OK || same_picture(&before[i], &after));
                    drop_picture(&before[i]), drop_picture(&after);
                }
            }
            finished = status == MEST_OK;
            ck_assert_msg(finished || (status == MEST_E_NOMEM && err.code == MEST_E_NOMEM), "%s, allocation %d: %d %s", all_methods[m].name, (int)at, status,
                          err.msg);
            world_close(&w);
        }
    }
    params = free_params;
}
END_TEST

START_TEST(bad_options_are_explained)
{
    static const struct { const char *name, *options, *says; } bad[] = {
        { "rigl", "alpha=1", "there is no option 'alpha'; there are: rate, decay" }, { "rigl", "rate=2", "rate=2 is not a number from 0 to 1" },
        { "rigl", "every=0", "every=0" }, { "rigl", "decay=fast", "is not one of constant, cosine, linear" }, { "set", "unit=days", "is not one of steps, epochs" },
        { "set", "select=size", "is not one of magnitude, sign" }, { "set", "sigma=-1", "sigma=-1" }, { "dsr", "every=5/6", "every has 2 entries for 4 stages" },
        { "dsr", "every=5/6,stages=.5/.6", "every has 2 entries for 3 stages" }, { "dsr", "threshold=0", "threshold must be above 0" },
        { "dsr", "every=1.5", "whole numbers" }, { "dsr", "room=.5", "room=.5" }, { "magnitude", "start=.8,stop=.5", "stop is before start" },
        { "magnitude", "", "stores 60 of 600 units; the method begins with all of them" }, { "snip", "", "begins with all of them" },
        { "grasp", "temperature=0", "temperature=0" }, { "grasp", "", "begins with all of them" }, { "snip", "batches=0", "batches=0" },
        { "deepr", "every=2", "there is no option 'every'" }, { "deepr", "temperature=1/2", "temperature has 2 entries for 4 stages" },
        { "deepr", "temperature=1/2/3,stages=.5/.4", "stages must ascend" }, { "snfs", "unit=steps", "updates come between epochs" },
        { "rigl", "start=.9,stop=.1", "no part of the run lies between start=0.9 and stop=0.1" }, { "rigl", "start=.8", "between start=0.8 and stop=0.75" },
        { "set", "start=1", "between start=1 and stop=1" }, { "dsr", "start=.5,stop=.5", "start=0.5 and stop=0.5" }, { "deepr", "stop=0", "start=0 and stop=0" },
        { "snfs", "start=.6,stop=.5", "start=0.6 and stop=0.5" }, { "magnitude", "start=1,stop=1", "start=1 and stop=1" },
        { "magnitude", "mode=oneshot,start=1", "mode=oneshot with start=1" }, { "mest", "first=5,last=1", "between first=5 and last=1" },
        { "mest", "mode=ems,freq=5,first=1,last=4", "first=1 and last=4 (freq=5)" }, { "rigl", "rate=.1,rate=.3", "option 'rate' is given twice" },
        { "snfs", "memory=all", "is not one of bounded, dense" }, { "snfs", "beta=1", "beta=1" }, { "snfs", "window=1", "window=1" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        world w;
        mest_error err = { 0 };
        world_open(&w, 5, params, N, 0);
        ck_assert_int_ne(mest_schedulers_add(w.list, bad[i].name, bad[i].options, &err), MEST_OK);
        ck_assert_msg(strstr(err.msg, bad[i].says) && strstr(err.msg, bad[i].name), "%s:%s: %s", bad[i].name, bad[i].options, err.msg);
        ck_assert_int_eq(mest_schedulers_count(w.list), 0);
        world_close(&w);
    }
    world v;
    mest_error why = { 0 };
    world_open(&v, 5, grouped_params, N, 0);
    ck_assert_int_eq(mest_schedulers_add(v.list, "dsr", "", &why), MEST_E_UNSUPPORTED);
    ck_assert_msg(strstr(why.msg, "'conv1.weight' is pattern: units of a balanced scheme cannot move"), "%s", why.msg);
    ck_assert_int_eq(mest_schedulers_add(v.list, "snfs", "", NULL), MEST_E_UNSUPPORTED);
    world_close(&v);
    int n = 0;
    const char *summary, *lines;
    for (const char *name; (name = mest_scheduler_builtin(n, &summary, &lines)); n++) {
        ck_assert(summary[0] && lines[0] && lines[strlen(lines) - 1] == '\n');
        ck_assert(mest_scheduler_flags(name) <= 7);
    }
    ck_assert(mest_scheduler_flags("snip") == (MEST_SCHEDULER_MOVES_WEIGHTS | MEST_SCHEDULER_STARTS_DENSE) && mest_scheduler_flags("forgetting") == MEST_SCHEDULER_CHOOSES_SAMPLES &&
              mest_scheduler_flags("none") == 0);
}
END_TEST

RUN("all methods", resumed_at_every_step_it_is_the_same_run, every_failed_allocation_is_survived, bad_options_are_explained)
