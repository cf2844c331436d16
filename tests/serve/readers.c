/* SPDX-License-Identifier: Apache-2.0 */
/* Readers answer while the weights they answer with are being trained, published, promoted, rolled back and thrown away. Each answer says
 * which version gave it, and its bits must be exactly those that version gives: a reference predictor, pinned to each version as it is
 * published, has written them down. Run it under ThreadSanitizer too. readers SECONDS TRAINING-THREADS */
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "tests/serve/serve_util.h"

enum { READERS = 3, N_SIZES = 4, MOST_VERSIONS = 4000, MOST_ANSWERS = 200000 };
static const int sizes[N_SIZES] = {1, 4, 7, 40}; /* as it is, as it is, filled up to 8, cut in two (the predictor's most is 32) */

typedef struct answer { int64_t version; uint64_t print; int size; } answer;

typedef struct reader {
    mest_model *model;
    int number;
    answer *answers;
    int n_answers, n_moves;
} reader;

static float inputs[40 * PIXELS];
static uint64_t known[MOST_VERSIONS][N_SIZES]; /* by id; written by the trainer, read when all is over */
static _Atomic int64_t newest;
static _Atomic int stop;

static mest_predictor *make_predictor(mest_model *m)
{
    mest_predictor_options o;
    mest_predictor_options_init(&o);
    mest_predictor *p = NULL;
    MUST(mest_predictor_create(&p, m, &o, err));
    return p;
}

static void *read_on(void *user)
{
    reader *r = user;
    mest_predictor *p = make_predictor(r->model);
    float y[40 * CLASSES];
    int64_t last = 0;
    uint32_t random = (uint32_t)r->number * 977 + 1;
    while (!atomic_load(&stop) && r->n_answers < MOST_ANSWERS) {
        random = random * 1664525u + 1013904223u;
        int size = (int)(random >> 16) % N_SIZES, n = sizes[size];
        answer *a = &r->answers[r->n_answers++];
        MUST(mest_predictor_infer(p, inputs, n, y, (size_t)n * CLASSES, &a->version, err));
        a->print = fingerprint(y, (size_t)n * CLASSES);
        a->size = size;
        r->n_moves += a->version != last;
        last = a->version;
        if (random >> 28 == 0) { /* hold a version over several of our own answers, as a long request would */
            mest_snapshot *s = mest_model_acquire(r->model);
            mest_version_info info = {.struct_size = sizeof info};
            MUST(mest_snapshot_describe(s, &info, err));
            float w[10];
            MUST(mest_snapshot_read_parameter(s, mest_model_parameter_count(r->model) - 1, w, 10, err));
            MUST(mest_predictor_pin(p, s, err));
            for (int k = 0; k < 3 && r->n_answers < MOST_ANSWERS; k++) {
                answer *b = &r->answers[r->n_answers++];
                MUST(mest_predictor_infer(p, inputs, n, y, (size_t)n * CLASSES, &b->version, err));
                b->print = fingerprint(y, (size_t)n * CLASSES);
                b->size = size;
                EXPECT(b->version == info.id);
            }
            MUST(mest_predictor_pin(p, NULL, err));
            mest_snapshot_release(s);
        }
        if (random >> 24 == 7) { /* a serving thread that comes and goes */
            mest_predictor_destroy(p);
            p = make_predictor(r->model);
        }
    }
    mest_predictor_destroy(p);
    return NULL;
}

/* Promotes kept versions up and down, and changes how many are kept. */
static void *promote(void *user)
{
    mest_model *m = user;
    for (uint32_t i = 0; !atomic_load(&stop); i++) {
        mest_version_info info = {.struct_size = sizeof info};
        int64_t chosen = 0, at = 0;
        for (uint32_t k = 0; k <= i % 3; k++) {
            MUST(mest_model_next_version(m, at, &info, err));
            if (!info.id)
                break;
            chosen = at = info.id;
        }
        mest_error e;
        if (chosen && mest_model_promote(m, chosen, &e) != MEST_OK)
            EXPECT(e.code == MEST_E_ARGUMENT); /* it went in between */
        if (i % 16 == 0)
            MUST(mest_model_keep_versions(m, 2 + (int)(i / 16 % 5), err));
        mest_snapshot *s = mest_model_acquire_id(m, chosen);
        if (s) {
            MUST(mest_snapshot_describe(s, &info, err));
            EXPECT(info.id == chosen);
            mest_snapshot_release(s);
        }
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    }
    return NULL;
}

typedef struct trainer { mest_model *model; mest_predictor *reference; time_t until; } trainer;

static void write_down(trainer *t, int64_t id)
{
    float y[40 * CLASSES];
    mest_snapshot *s = mest_model_acquire_id(t->model, id);
    EXPECT(id < MOST_VERSIONS);
    EXPECT(s); /* the newest is kept, however few the other thread keeps */
    MUST(mest_predictor_pin(t->reference, s, err));
    mest_snapshot_release(s);
    for (int k = 0; k < N_SIZES; k++) {
        int64_t version;
        MUST(mest_predictor_infer(t->reference, inputs, sizes[k], y, (size_t)sizes[k] * CLASSES, &version, err));
        EXPECT(version == id);
        known[id][k] = fingerprint(y, (size_t)sizes[k] * CLASSES);
    }
    atomic_store(&newest, id);
}

static bool on_event(void *user, const mest_event *e)
{
    trainer *t = user;
    long long id;
    if (e->kind == MEST_EVENT_VERSION && sscanf(e->text, "version %lld published", &id) == 1)
        write_down(t, id);
    return time(NULL) < t->until || atomic_load(&newest) < 8; /* a busy machine takes longer */
}

/* Training that changes patterns and publishes by itself after each epoch's validation. */
static void run(const char *scheme, double sparsity, int threads, int seconds)
{
    mest_model *m = load_digits();
    if (scheme)
        make_sparse(m, scheme, sparsity);
    mest_source train, validation;
    open_digits(&train, false);
    open_digits(&validation, true);
    mest_train_config c = digits_config(threads);
    c.epochs = MOST_VERSIONS - 2;
    c.optimizer = scheme ? "sgd" : "adamw";
    c.lr = scheme ? 0.02 : 0.001;
    mest_session *s = NULL;
    MUST(mest_session_create(&s, m, &c, err));
    if (scheme)
        MUST(mest_session_add_scheduler(s, "mest", "mode=em,freq=1", err));
    EXPECT(mest_model_acquire(m) == NULL);
    MUST(mest_session_publish(s, NULL, NULL, err));
    trainer t = {.model = m, .reference = make_predictor(m), .until = time(NULL) + seconds};
    memset(known, 0, sizeof known);
    atomic_store(&newest, 0);
    write_down(&t, 1);

    pthread_t thread[READERS + 1];
    reader readers[READERS];
    atomic_store(&stop, 0);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (reader){.model = m, .number = i, .answers = malloc(MOST_ANSWERS * sizeof(answer))};
        EXPECT(readers[i].answers && !pthread_create(&thread[i], NULL, read_on, &readers[i]));
    }
    EXPECT(!pthread_create(&thread[READERS], NULL, promote, m));

    mest_publish_options guard;
    mest_publish_options_init(&guard);
    guard.max_loss = 100;
    mest_run_options ro;
    mest_run_options_init(&ro);
    ro.validation = &validation;
    ro.publish = &guard;
    ro.progress = on_event;
    ro.progress_user = &t;
    mest_error e;
    mest_status status = mest_session_train(s, &train, &ro, &e);
    if (status != MEST_OK && status != MEST_E_CANCELLED) {
        printf("training: %s\n", e.msg);
        exit(1);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i <= READERS; i++)
        pthread_join(thread[i], NULL);

    int64_t versions = atomic_load(&newest);
    for (int64_t a = 1; a <= versions; a++) /* the bits tell versions apart */
        for (int64_t b = a + 1; b <= versions; b++)
            EXPECT(known[a][0] != known[b][0] && known[a][3] != known[b][3]);
    static bool seen[MOST_VERSIONS];
    memset(seen, 0, sizeof seen);
    int answers = 0, distinct = 0, moves = 0;
    for (int i = 0; i < READERS; i++) {
        for (int k = 0; k < readers[i].n_answers; k++) {
            const answer *a = &readers[i].answers[k];
            EXPECT(a->version >= 1 && a->version <= versions);
            if (a->print != known[a->version][a->size]) {
                printf("an answer for %d samples claims version %lld, but that one answers otherwise\n", sizes[a->size], (long long)a->version);
                exit(1);
            }
            distinct += !seen[a->version];
            seen[a->version] = true;
        }
        answers += readers[i].n_answers;
        moves += readers[i].n_moves;
        free(readers[i].answers);
    }
    EXPECT(versions >= 8 && distinct >= 3 && answers >= 50);

    mest_predictor_destroy(t.reference);
    MUST(mest_model_keep_versions(m, 1, err));
    int alive;
    int64_t bytes;
    mest_model_version_memory(m, &bytes, &alive);
    EXPECT(alive <= 2 && bytes > 0); /* the current one and the newest: all others were freed when their readers left */
    mest_session_destroy(s);
    mest_source_close(&train);
    mest_source_close(&validation);
    mest_model_destroy(m);
    EXPECT(atomic_load(&bytes_out) == 0);
    printf("%s, %d training threads: %lld versions, %d answers by %d of them, %d changes of version, all as they must be\n", scheme ? scheme : "dense",
           threads, (long long)versions, answers, distinct, moves);
}

int main(int argc, char **argv)
{
    int seconds = argc > 1 ? atoi(argv[1]) : 2, threads = argc > 2 ? atoi(argv[2]) : 1;
    make_inputs(inputs, 40);
    run("csr", 0.9, threads, seconds);
    run("block4", 0.8, threads, seconds);
    run(NULL, 0, threads, seconds);
    printf("3 passed, 0 failed, 0 skipped\n");
    return 0;
}
