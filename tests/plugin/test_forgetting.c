/* SPDX-License-Identifier: Apache-2.0 */
/* Forgetting: hand-made sequences, selection rules against a sort, ties, classes, files, resume. */
#include <sys/stat.h>
#include <unistd.h>

#include "tests/plugin/world.h"

/* One letter per presentation of one sample. */
static void present(world *w, int64_t id, const char *sequence)
{
    for (; *sequence; sequence++) {
        uint8_t right = *sequence == '1';
        OK(mest_schedulers_batch_seen(w->list, &id, &right, 1, err));
    }
}

static void open_with(world *w, int64_t n, const char *options, uint64_t seed)
{
    world_open(w, seed, NULL, 0, n);
    OK(mest_schedulers_add(w->list, "forgetting", options, err));
    world_plan(w);
}

/* create, or what it could not know yet the first epoch_begin. */
static mest_status try_with(world *w, int64_t n, const char *options, int64_t n_epochs, bool *at_once, mest_error *err)
{
    world_open(w, 1, NULL, 0, n);
    mest_status status = mest_schedulers_add(w->list, "forgetting", options, err);
    *at_once = status != MEST_OK;
    world_plan(w);
    mest_epoch e = world_epoch(w, 0, n_epochs);
    return status ? status : mest_schedulers_epoch_begin(w->list, &e, NULL, err);
}

static void begin(world *w, int64_t epoch, int64_t n_epochs)
{
    mest_epoch e = world_epoch(w, epoch, n_epochs);
    OK(mest_schedulers_epoch_begin(w->list, &e, NULL, err));
}

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    char *text = calloc(1, 1 << 20);
    ck_assert(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

START_TEST(sequences_are_counted)
{
    static const struct { const char *sequence; int forgets, learned; } all[] = {
        { "1010", 2, 1 }, { "000", 0, 0 }, { "011", 0, 1 }, { "0110", 1, 1 }, { "", 0, 0 }, { "1", 0, 1 }, { "10", 1, 1 }, { "1001", 1, 1 },
        { "0101010101", 4, 1 },
    };
    enum { N = sizeof all / sizeof *all };
    world w;
    char path[64], want[400] = "id,forgets,learned\n";
    snprintf(path, sizeof path, "forgets-%d.csv", (int)getpid());
    char options[100];
    snprintf(options, sizeof options, "epoch=1,export=%s", path);
    open_with(&w, N, options, 1);
    begin(&w, 0, 2);
    for (int i = 0; i < N; i++) {
        present(&w, i, all[i].sequence);
        size_t used = strlen(want);
        snprintf(want + used, sizeof want - used, "%d,%d,%d\n", i, all[i].forgets, all[i].learned);
    }
    begin(&w, 1, 2);
    char *got = read_all(path);
    ck_assert_str_eq(got, want);
    ck_assert_int_eq(w.samples.active, N);
    free(got);
    remove(path);
    world_close(&w);
}
END_TEST

/* Counts of sample i, by its number: -1 never learned. */
static int forgets_of(int64_t id) { return (int)mest_rng_below(3, 3, (uint64_t)id, 8) - 1; }

static void present_all(world *w)
{
    for (int64_t id = 0; id < w->n_samples; id++) {
        char sequence[20] = "";
        for (int k = 0; k < forgets_of(id); k++)
            strcat(sequence, "10");
        strcat(sequence, forgets_of(id) < 0 ? "0" : "1");
        present(w, id, sequence);
    }
}

START_TEST(rules_take_the_easiest)
{
    static const struct { const char *rule; int64_t keep; } rules[] = {
        { "remove=.25", 0 }, { "fraction=.5", 0 }, { "remove=37", 0 }, { "count=150,keep_lowest=20", 20 }, { "count=1", 0 }, { "count=0", 0 },
        { "max_forgets=0", 0 }, { "max_forgets=1", 0 }, { "max_forgets=2,keep_lowest=11", 11 }, { "count=199", 0 },
    };
    enum { N = 200 };
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
        for (uint64_t seed = 1; seed < 3; seed++) {
            world w;
            char options[100];
            snprintf(options, sizeof options, "epoch=.5,%s", rules[r].rule);
            open_with(&w, N, options, seed);
            begin(&w, 0, 4);
            present_all(&w);
            begin(&w, 1, 4);
            ck_assert_int_eq(w.samples.active, N);
            mest_epoch e = world_epoch(&w, 2, 4);
            mest_host_report report;
            OK(mest_schedulers_epoch_begin(w.list, &e, &report, err));
            int64_t n = 0, bins[8] = { 0 }, gone[8] = { 0 };
            for (int64_t id = 0; id < N; id++) {
                int b = forgets_of(id) < 0 ? 7 : forgets_of(id);
                bool removed = !mest_sample_active(&w.samples, id);
                bins[b]++;
                gone[b] += removed;
                n += removed;
            }
            int64_t want = r == 0 ? 50 : r == 1 ? 100 : r == 2 ? 37 : r == 3 ? 150 : r == 4 ? 1 : r == 5 ? 0 : r == 6 ? bins[0] :
                           r == 7 ? bins[0] + bins[1] : r == 8 ? bins[0] + bins[1] + bins[2] - 11 : 199;
            ck_assert_int_eq(n, want);
            ck_assert_int_eq(report.removed_samples, want);
            int64_t start = 0;
            for (int b = 0; b < 8; b++) { /* ranks keep .. keep + n - 1 in the order of counts */
                int64_t lo = rules[r].keep > start ? rules[r].keep : start, hi = rules[r].keep + n < start + bins[b] ? rules[r].keep + n : start + bins[b];
                ck_assert_int_eq(gone[b], hi > lo ? hi - lo : 0);
                start += bins[b];
            }
            ck_assert(strstr(w.log, "unknown class: 200 -> ") != NULL);
            world_close(&w);
        }
}
END_TEST

/* The boundary bin is filled at random: every tied sample has the same chance, another seed takes others. */
START_TEST(ties_are_broken_evenly)
{
    int count[20] = { 0 };
    for (uint64_t seed = 0; seed < 400; seed++) {
        world w;
        open_with(&w, 20, "epoch=1,count=5", seed);
        begin(&w, 0, 2);
        for (int64_t id = 0; id < 20; id++)
            present(&w, id, "1");
        begin(&w, 1, 2);
        ck_assert_int_eq(w.samples.active, 15);
        for (int64_t id = 0; id < 20; id++)
            count[id] += !mest_sample_active(&w.samples, id);
        world_close(&w);
    }
    for (int id = 0; id < 20; id++) /* 100 expected, deviation 8.7 */
        ck_assert_msg(count[id] > 60 && count[id] < 140, "sample %d went %d times of 400", id, count[id]);
}
END_TEST

START_TEST(classes_are_reported_and_balanced)
{
    for (int balance = 0; balance < 2; balance++) {
        world w;
        open_with(&w, 120, balance ? "epoch=1,count=30,class_balance=yes" : "epoch=1,count=30", 1);
        w.classes = malloc(120 * sizeof *w.classes);
        for (int i = 0; i < 120; i++)
            w.classes[i] = i < 60 ? 0 : i < 100 ? 1 : 2; /* 60, 40, 20 */
        w.host.sample_class = w.classes;
        begin(&w, 0, 2);
        for (int64_t id = 0; id < 120; id++)
            present(&w, id, id < 60 ? "1" : "10"); /* class 0 is the easy one */
        begin(&w, 1, 2);
        int left[3] = { 0 };
        for (int64_t id = 0; id < 120; id++)
            left[w.classes[id]] += mest_sample_active(&w.samples, id);
        if (balance)
            ck_assert(left[0] == 45 && left[1] == 30 && left[2] == 15);
        else
            ck_assert(left[0] == 30 && left[1] == 40 && left[2] == 20);
        ck_assert(strstr(w.log, balance ? "class 0: 60 -> 45, class 1: 40 -> 30, class 2: 20 -> 15" : "class 0: 60 -> 30, class 1: 40 -> 40") != NULL);
        ck_assert(strstr(w.log, "120 samples: 60 learned and never forgotten, 60 forgotten once, 0 never learned; 30 removed") != NULL);
        world_close(&w);
    }
}
END_TEST

START_TEST(counts_travel_by_file)
{
    char path[64], options[200];
    snprintf(path, sizeof path, "counts-%d.csv", (int)getpid());
    snprintf(options, sizeof options, "epoch=1,count=40,export=%s", path);
    world a, b;
    open_with(&a, 200, options, 1);
    begin(&a, 0, 2);
    present_all(&a);
    begin(&a, 1, 2);
    snprintf(options, sizeof options, "count=40,import=%s", path); /* at once, at epoch 0 */
    open_with(&b, 200, options, 1);
    begin(&b, 0, 2);
    ck_assert_int_eq(b.samples.active, 160);
    ck_assert_mem_eq(a.samples.bits, b.samples.bits, 25);
    world_close(&a);
    world_close(&b);
    static const char *const bad[] = { "id,forgets\n1\n", "1,2,3\n", "200,1,1\n", "1,x\n", "1,2,1,4\n", "1,,1\n", "1,2,\n", ",2\n", "-1,2\n",
                                       "11111111111111111111111111111111111111111111111111111111111111111111111111\n", "1,1,1\n\n7 1\n", "", "\n\n", "id,forgets,learned\n", "1,2,1\n5,0,1\n1,2,1\n", "1,2,1\n3,2\n", "1,2\n3,2,1\n",
                                       "id,forgets,learned\n1,2\n", "id,forgets,learned\n1,2,1\n2,", "1,-2,1\n", "1,+2,1\n", "id\n1,2\n", "1,2,1\nid,forgets,learned\n" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        FILE *f = fopen(path, "wb");
        fputs(bad[i], f);
        fclose(f);
        mest_error err = { 0 };
        bool at_once;
        ck_assert_msg(try_with(&b, 200, options, 2, &at_once, &err) == MEST_E_DATA, "'%s' was accepted", bad[i]);
        ck_assert_msg(strstr(err.msg, path) && strstr(err.msg, ", line "), "%s", err.msg);
        ck_assert_msg(at_once != (strstr(err.msg, "no such sample") || strstr(err.msg, "there twice")), "%s", err.msg); /* what needs the samples waits for them */
        ck_assert_int_eq(b.samples.active, 200);
        world_close(&b);
    }
    FILE *f = fopen(path, "wb");
    fputs("id,forgets\r\n5,0\r\n\r\n7,1", f); /* two columns, CRLF, no newline at the end, all others unknown: hardest */
    fclose(f);
    snprintf(options, sizeof options, "count=2,import=%s", path);
    open_with(&b, 200, options, 1);
    begin(&b, 0, 2);
    ck_assert(!mest_sample_active(&b.samples, 5) && !mest_sample_active(&b.samples, 7) && b.samples.active == 198);
    world_close(&b);
    remove(path);
    bool at_once;
    REFUSED(MEST_E_IO, try_with(&b, 200, options, 2, &at_once, err));
    ck_assert(at_once);
    world_close(&b);
    open_with(&b, 200, "epoch=1,export=no/such/folder.csv", 1);
    begin(&b, 0, 2);
    mest_epoch e = world_epoch(&b, 1, 2);
    REFUSED(MEST_E_IO, mest_schedulers_epoch_begin(b.list, &e, NULL, err));
    world_close(&b);
}
END_TEST

static void put_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

/* Nothing is replaced that is no file of counts; it is found when the session is made, and what was there stays. */
START_TEST(other_files_are_not_replaced)
{
    static const char *const texts[] = { "0,1,2,3\n", "id,forgets\n1,2\n", "id,forgets,learne", "x" };
    char path[64], options[200];
    world w;
    snprintf(path, sizeof path, "mine-%d.csv", (int)getpid());
    snprintf(options, sizeof options, "epoch=2,count=4,export=%s", path);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put_text(path, texts[i]);
        mest_error err = { 0 };
        bool at_once;
        ck_assert(try_with(&w, 20, options, 4, &at_once, &err) == MEST_E_IO && at_once);
        ck_assert_msg(strstr(err.msg, path) && strstr(err.msg, "not replaced"), "%s", err.msg);
        world_close(&w);
        char *left = read_all(path);
        ck_assert_str_eq(left, texts[i]);
        free(left);
    }
    remove(path);
    open_with(&w, 20, options, 1); /* it came there meanwhile */
    begin(&w, 0, 4);
    put_text(path, "0,1,2,3\n");
    mest_epoch e = world_epoch(&w, 2, 4);
    REFUSED(MEST_E_IO, mest_schedulers_epoch_begin(w.list, &e, NULL, err));
    world_close(&w);
    put_text(path, "id,forgets,learned\n1,1,1\n"); /* ours, of an earlier run */
    open_with(&w, 20, options, 1);
    begin(&w, 0, 4);
    begin(&w, 2, 4);
    world_close(&w);
    char *got = read_all(path);
    ck_assert(strstr(got, "\n19,0,0\n") != NULL);
    free(got);
    put_text(path, "3,1\n"); /* what was read may be written */
    snprintf(options, sizeof options, "epoch=2,count=4,import=%s,export=./%s", path, path);
    open_with(&w, 20, options, 1);
    begin(&w, 0, 4);
    begin(&w, 2, 4);
    world_close(&w);
    got = read_all(path);
    ck_assert(strncmp(got, "id,forgets,learned\n0,0,0\n", 25) == 0 && strstr(got, "\n3,1,1\n") != NULL);
    free(got);
    remove(path);
}
END_TEST

/* Neither waits for somebody at the other end of a pipe. A file of a later epoch is looked at when the session is made. */
START_TEST(pipes_are_refused)
{
    char path[64], options[200];
    world w;
    snprintf(path, sizeof path, "pipe-%d", (int)getpid());
    for (int export = 0; export < 2; export++) {
        ck_assert_int_eq(mkfifo(path, 0600), 0);
        snprintf(options, sizeof options, "epoch=3,count=4,%s=%s", export ? "export" : "import", path);
        mest_error err = { 0 };
        bool at_once;
        ck_assert(try_with(&w, 20, options, 4, &at_once, &err) == MEST_E_IO && at_once);
        ck_assert_msg(strstr(err.msg, path) && strstr(err.msg, "not a regular file"), "%s", err.msg);
        world_close(&w);
        remove(path);
    }
}
END_TEST

/* Statistics are 2 bytes a sample in phase 1 and gone in phase 2; a resume in either phase goes on alike. */
START_TEST(state_is_small_and_survives)
{
    for (int stop = 0; stop < 2; stop++) {
        world a, b;
        open_with(&a, 1000, "epoch=2,count=100", 1);
        int64_t before = atomic_load(&a.b.heap.current_bytes);
        begin(&a, 0, 4);
        ck_assert_int_eq(atomic_load(&a.b.heap.current_bytes) - before, 2000);
        present_all(&a);
        if (stop) {
            begin(&a, 2, 4);
            ck_assert_int_eq(atomic_load(&a.b.heap.current_bytes), before);
        }
        bytes state = { 0 };
        OK(mest_schedulers_save(a.list, bytes_write, &state, err));
        open_with(&b, 1000, "epoch=2,count=100", 1);
        OK(mest_schedulers_load(b.list, bytes_read, &state, err));
        if (stop) { /* the session restores the samples itself; a second removal would show */
            memcpy(b.samples.bits, a.samples.bits, 125);
            b.samples.active = a.samples.active;
        }
        begin(&a, 1 + stop, 4), begin(&b, 1 + stop, 4);
        present(&a, 17, "1010"), present(&b, 17, "1010");
        begin(&a, 2 + stop, 4), begin(&b, 2 + stop, 4);
        ck_assert_int_eq(a.samples.active, 900);
        ck_assert_int_eq(b.samples.active, 900);
        ck_assert_mem_eq(a.samples.bits, b.samples.bits, 125);
        for (size_t cut = 0; cut < state.n; cut += state.n / 9 + 1) {
            bytes part = { .p = state.p, .n = cut };
            ck_assert_int_ne(mest_schedulers_load(b.list, bytes_read, &part, NULL), MEST_OK);
        }
        free(state.p);
        world_close(&a);
        world_close(&b);
    }
    world w; /* another data set */
    open_with(&w, 100, "epoch=2,count=10", 1);
    begin(&w, 0, 4);
    w.n_samples = 99;
    mest_epoch e = world_epoch(&w, 1, 4);
    REFUSED(MEST_E_DATA, mest_schedulers_epoch_begin(w.list, &e, NULL, err));
    world_close(&w);
}
END_TEST

START_TEST(options_and_tasks_are_checked)
{
    static const char *const bad[] = { "", "epoch=1", "remove=.2,count=5", "remove=-1", "remove=2.5,epoch=1", "fraction=2", "epoch=0,count=1", "epoch=1.5,count=1",
                                       "count=1.5", "max_forgets=99999", "max_forgets=1,class_balance=yes", "count=5,keep_lowest=1,class_balance=1",
                                       "class_balance=maybe,count=1", "keep=3", "import=x,epoch=0,class_balance=yes,count=1" };
    world w;
    world_open(&w, 1, NULL, 0, 10);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mest_error err = { 0 };
        ck_assert_msg(mest_schedulers_add(w.list, "forgetting", bad[i], &err) == MEST_E_ARGUMENT, "'%s' was accepted", bad[i]);
        ck_assert_msg(strncmp(err.msg, "scheduler forgetting: ", 22) == 0, "'%s': %s", bad[i], err.msg);
    }
    world_close(&w);
    static const char *const too_many[] = { "count=10,epoch=1", "fraction=1,epoch=1", "count=5,keep_lowest=5,epoch=1", "fraction=.95,epoch=2", "remove=.99999,epoch=2",
                                            "remove=.5,keep_lowest=5,epoch=3" };
    for (size_t i = 0; i < sizeof too_many / sizeof *too_many; i++) { /* known at once, not in the middle of the run */
        open_with(&w, 10, too_many[i], 1);
        mest_epoch e = world_epoch(&w, 0, 4);
        REFUSED(MEST_E_ARGUMENT, mest_schedulers_epoch_begin(w.list, &e, NULL, err));
        world_close(&w);
    }
    open_with(&w, 10, "remove=.3", 1); /* fractions of an unknown run */
    mest_epoch e = world_epoch(&w, 0, 0);
    REFUSED(MEST_E_ARGUMENT, mest_schedulers_epoch_begin(w.list, &e, NULL, err));
    begin(&w, 0, 1);
    ck_assert(strstr(w.log, "the run ends before") != NULL);
    int64_t id = 3, far = 10;
    uint8_t none = 255, right = 1;
    REFUSED(MEST_E_UNSUPPORTED, mest_schedulers_batch_seen(w.list, &id, &none, 1, err));
    REFUSED(MEST_E_DATA, mest_schedulers_batch_seen(w.list, &far, &right, 1, err));
    world_close(&w);
    open_with(&w, 10, "max_forgets=3,epoch=1", 1); /* everything is easy: nothing is removed, and the run goes on */
    begin(&w, 0, 2);
    for (id = 0; id < 10; id++)
        present(&w, id, "1");
    begin(&w, 1, 2);
    ck_assert(w.samples.active == 10 && strstr(w.log, "every sample is below max_forgets") != NULL);
    world_close(&w);
}
END_TEST

START_TEST(every_failed_allocation_is_survived)
{
    bool finished = false;
    for (int64_t at = 0; !finished; at++) {
        world w;
        world_open(&w, 5, NULL, 0, 50);
        w.b.guard.fail_at = w.b.guard.n + at;
        mest_error err = { 0 };
        mest_status status = mest_schedulers_add(w.list, "forgetting", "epoch=1,count=20", &err);
        status = status ? status : mest_host_plan(&w.host, &err);
        for (int64_t e = 0; e < 3 && status == MEST_OK; e++) {
            mest_epoch now = world_epoch(&w, e, 3);
            status = mest_schedulers_epoch_begin(w.list, &now, NULL, &err);
            ck_assert(status == MEST_OK || w.samples.active == 50);
            if (status == MEST_OK && e == 0)
                present_all(&w);
        }
        finished = status == MEST_OK;
        ck_assert(finished || (status == MEST_E_NOMEM && err.code == MEST_E_NOMEM));
        world_close(&w);
    }
}
END_TEST

RUN("scheduler forgetting", sequences_are_counted, rules_take_the_easiest, ties_are_broken_evenly, classes_are_reported_and_balanced,
    counts_travel_by_file, other_files_are_not_replaced, pipes_are_refused, state_is_small_and_survives, options_and_tasks_are_checked, every_failed_allocation_is_survived)
