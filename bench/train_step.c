/* SPDX-License-Identifier: Apache-2.0 */
/* Speed and memory of one training step (forward, backward, SGD with momentum) of an ONNX model, sparse beside dense, through the public
 * functions only. Both variants are created, timed and destroyed in turn, round after round, so that a machine whose speed wanders
 * slows both alike; the ratio is the median over the rounds. Memory is measured in a process of its own for each variant.
 * `train_step --help` lists the options. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "step_profile.h"

enum { MAX_STEPS = 100000, N_BATCHES = 4 };

typedef struct options {
    const char *model, *scheme, *dense_layers, *loss, *kernels, *data, *only, *no_fuse, *recompute;
    double sparsity;
    int64_t batch, steps, warmup, rounds;
    int threads, input_rank, top;
    int64_t input_dim[MEST_SAMPLE_MAX_RANK];
    bool json, profile, no_xnnpack, from_scratch, turns, infer;
} options;

typedef struct batches { /* N_BATCHES batches, used one after another */
    float *inputs;
    void *targets;
    size_t inputs_floats, target_bytes; /* of one batch */
} batches;

typedef struct memory { /* written by the child through a pipe */
    int64_t hwm_bytes, start_bytes, heap_peak_bytes;
    mest_plan_info plan;
    double sparsity; /* of all trainable elements */
    bool good;
} memory;

typedef struct variant {
    const char *name;
    double sparsity;
    memory memory;
    double *seconds; /* all rounds */
    int64_t n_seconds;
    double *round;   /* median of each round */
    step_profile profile;
} variant;

static clockid_t clock_used = CLOCK_MONOTONIC;

static double now(void)
{
    struct timespec t;
    clock_gettime(clock_used, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what, const mest_error *err)
{
    fprintf(stderr, "train_step: %s: %s%s%s\n", what, err ? mest_status_text(err->code) : strerror(errno), err && err->msg[0] ? ": " : "", err ? err->msg : "");
    exit(1);
}

static void *get(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        die("memory", NULL);
    return p;
}

/* ---- shapes the model leaves open are those of a source of one sample ---- */
static mest_status shape_info(void *self, mest_source_info *info, mest_error *err)
{
    (void)err;
    *info = *(const mest_source_info *)self;
    return MEST_OK;
}
static mest_status shape_fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets, mest_error *err)
{
    (void)ids, (void)how, (void)err;
    const mest_source_info *info = self;
    size_t in = sizeof(float), out = sizeof(int64_t);
    for (int i = 0; i < info->input_rank; i++)
        in *= (size_t)info->input_dim[i];
    memset(inputs, 0, in * (size_t)n);
    if (targets)
        memset(targets, 0, out * (size_t)n);
    return MEST_OK;
}

static void open_session(const options *o, double sparsity, mest_model **model, mest_session **session)
{
    mest_error err = {0};
    if (mest_model_load(model, o->model, NULL, &err) != MEST_OK)
        die("load", &err);
    if (sparsity > 0) {
        mest_sparsity s;
        mest_sparsity_init(&s);
        s.scheme = o->scheme;
        s.sparsity = sparsity;
        s.dense_layers = o->dense_layers;
        s.from_scratch = o->from_scratch;
        if (mest_model_sparsify(*model, &s, &err) != MEST_OK)
            die("sparsify", &err);
    }
    mest_train_config config;
    mest_train_config_init(&config);
    config.batch = o->batch;
    config.eval_batch = o->infer ? o->batch : 1;
    config.threads = o->threads;
    config.loss = o->loss;
    config.kernels = o->kernels;
    config.use_xnnpack = !o->no_xnnpack;
    config.no_fuse = o->no_fuse;
    config.recompute = o->recompute;
    config.lr = 1e-4;
    config.momentum = 0.9;
    if (mest_session_create(session, *model, &config, &err) != MEST_OK)
        die("session", &err);
    if (o->input_rank > 0) {
        mest_source_info info = {.struct_size = sizeof info, .count = 1, .input_type = MEST_SAMPLE_F32, .input_rank = o->input_rank,
                                 .target_type = MEST_SAMPLE_I64, .has_targets = true};
        memcpy(info.input_dim, o->input_dim, sizeof info.input_dim);
        mest_source source = {.struct_size = sizeof source, .self = &info, .info = shape_info, .fetch = shape_fetch};
        mest_metrics metrics = {.struct_size = sizeof metrics};
        if (mest_session_evaluate(*session, &source, NULL, &metrics, &err) != MEST_OK)
            die("--input-shape", &err);
    }
}

/* ---- data ---- */
static float normal(void)
{
    static uint64_t s = 88172645463325252u;
    double sum = 0;
    for (int i = 0; i < 12; i++) { /* near enough to a normal distribution */
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        sum += (double)(s >> 11) / 9007199254740992.0;
    }
    return (float)(sum - 6);
}

static void random_batches(const options *o, batches *b)
{
    mest_model *model;
    mest_session *session;
    mest_error err = {0};
    options one = *o;
    one.batch = one.threads = 1; /* no thread may exist before the fork */
    open_session(&one, 0, &model, &session);
    mest_tensor_info input = {.struct_size = sizeof input};
    int rank = 0;
    int64_t dim[MEST_MAX_RANK], classes = 1, rows = 1, sample = 1;
    if (mest_model_input(model, 0, &input, &err) != MEST_OK || mest_session_output_shape(session, &rank, dim, &err) != MEST_OK)
        die("shapes", &err);
    if (input.dtype != 1) {
        fprintf(stderr, "train_step: input '%s' is not float32: give --data\n", input.name);
        exit(2);
    }
    for (int i = 1; i < input.rank; i++)
        sample *= o->input_rank ? o->input_dim[i - 1] : input.dim[i];
    for (int i = 0; i < rank; i++)
        *(i == rank - 1 ? &classes : &rows) *= dim[i];
    b->inputs_floats = (size_t)(sample * o->batch);
    b->inputs = get(b->inputs_floats * N_BATCHES, sizeof(float));
    for (size_t i = 0; i < b->inputs_floats * N_BATCHES; i++)
        b->inputs[i] = normal();
    bool ce = strcmp(o->loss, "ce") == 0;
    size_t n = (size_t)(ce ? rows * o->batch : rows * classes * o->batch);
    b->target_bytes = n * (ce ? sizeof(int64_t) : sizeof(float));
    b->targets = get(b->target_bytes, N_BATCHES);
    for (size_t i = 0; i < n * N_BATCHES; i++) {
        if (ce)
            ((int64_t *)b->targets)[i] = (int64_t)(i * 2654435761u % (size_t)classes);
        else
            ((float *)b->targets)[i] = normal() > 0;
    }
    mest_session_destroy(session);
    mest_model_destroy(model);
}

static void given_batches(const options *o, batches *b)
{
    mest_error err = {0};
    mest_source source = {.struct_size = sizeof source};
    mest_source_info info = {.struct_size = sizeof info};
    mest_source_options so;
    mest_source_options_init(&so);
    so.input_rank = o->input_rank;
    memcpy(so.input_dim, o->input_dim, sizeof so.input_dim);
    if (mest_source_open(&source, o->data, &so, &err) != MEST_OK || source.info(source.self, &info, &err) != MEST_OK)
        die("--data", &err);
    if (!info.has_targets || info.input_type != MEST_SAMPLE_F32) {
        fprintf(stderr, "train_step: %s: float32 inputs and targets are needed\n", o->data);
        exit(2);
    }
    b->inputs_floats = (size_t)o->batch;
    for (int i = 0; i < info.input_rank; i++)
        b->inputs_floats *= (size_t)info.input_dim[i];
    b->target_bytes = (size_t)o->batch * (info.target_type == MEST_SAMPLE_I64 ? sizeof(int64_t) : sizeof(float));
    for (int i = 0; i < info.target_rank; i++)
        b->target_bytes *= (size_t)info.target_dim[i];
    b->inputs = get(b->inputs_floats * N_BATCHES, sizeof(float));
    b->targets = get(b->target_bytes, N_BATCHES);
    int64_t n = o->batch * N_BATCHES, *ids = get((size_t)n, sizeof *ids);
    for (int64_t i = 0; i < n; i++)
        ids[i] = i * 7919 % info.count;
    mest_fetch how = {.struct_size = sizeof how};
    if (source.fetch(source.self, ids, n, &how, b->inputs, b->targets, &err) != MEST_OK)
        die("--data", &err);
    free(ids);
    mest_source_close(&source);
}

/* ---- measuring ---- */
static double step(mest_session *session, const options *o, const batches *b, int64_t i)
{
    mest_error err = {0};
    size_t k = (size_t)(i % N_BATCHES);
    double from = now();
    if (mest_session_step(session, b->inputs + k * b->inputs_floats, (const char *)b->targets + k * b->target_bytes, o->batch, NULL, &err) != MEST_OK)
        die("step", &err);
    return now() - from;
}

/* Seconds of one inference of a batch; `out` has room for `n_out` floats. */
static double inference(mest_session *session, const options *o, const batches *b, int64_t i, float *out, size_t n_out)
{
    mest_error err = {0};
    double from = now();
    if (mest_session_infer(session, b->inputs + (size_t)(i % N_BATCHES) * b->inputs_floats, o->batch, out, n_out, &err) != MEST_OK)
        die("infer", &err);
    return now() - from;
}

static int64_t high_water(void) /* VmHWM in bytes; 0 where there is none */
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long long kb = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lld", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return (int64_t)kb * 1024;
}

static void stored(const mest_model *model, double *sparsity)
{
    int64_t all = 0, kept = 0;
    for (int i = 0; i < mest_model_parameter_count(model); i++) {
        mest_tensor_info info = {.struct_size = sizeof info};
        int64_t n = 1;
        if (mest_model_parameter(model, i, &info, NULL) != MEST_OK || info.role != MEST_ROLE_TRAINABLE)
            continue;
        for (int d = 0; d < info.rank; d++)
            n *= info.dim[d];
        all += n;
        kept += info.stored;
    }
    *sparsity = all ? 1 - (double)kept / (double)all : 0;
}

/* A child process, so that nothing of the other variant is counted; the data are in it before it starts. */
static void measure_memory(const options *o, const batches *b, variant *v)
{
    int fd[2];
    if (pipe(fd) != 0)
        die("pipe", NULL);
    fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        die("fork", NULL);
    if (child == 0) {
        memory m = {.plan = {.struct_size = sizeof m.plan}, .start_bytes = high_water()};
        mest_model *model;
        mest_session *session;
        mest_error err = {0};
        open_session(o, v->sparsity, &model, &session);
        for (int i = 0; i < 3; i++)
            step(session, o, b, i);
        m.hwm_bytes = high_water();
        mest_session_memory(session, NULL, &m.heap_peak_bytes);
        if (mest_session_explain(session, MEST_PROGRAM_TRAIN, o->batch, NULL, NULL, &m.plan, &err) != MEST_OK)
            die("explain", &err);
        stored(model, &m.sparsity);
        m.good = write(fd[1], &m, sizeof m) == (ssize_t)sizeof m;
        _exit(m.good ? 0 : 1);
    }
    close(fd[1]);
    bool read_all = read(fd[0], &v->memory, sizeof v->memory) == (ssize_t)sizeof v->memory;
    close(fd[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (!read_all || status != 0)
        exit(1); /* the child said why */
}

/* The least this process needs from here on counts as its peak: what was mapped to make the data is forgotten. */
static void forget_high_water(void)
{
    malloc_trim(0);
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f) {
        fputs("5", f);
        fclose(f);
    }
}

/* Takes turns with other programs: a number on standard input asks for so many steps, the answer is their seconds; at its end, what they took in
 * memory. */
static void take_turns(const options *o, const batches *b, double sparsity)
{
    mest_model *model;
    mest_session *session;
    forget_high_water();
    const int64_t before = high_water();
    open_session(o, sparsity, &model, &session);
    mest_error err = {0};
    int rank = 0;
    int64_t dim[MEST_MAX_RANK];
    size_t n_out = (size_t)o->batch;
    if (mest_session_output_shape(session, &rank, dim, &err) != MEST_OK)
        die("shapes", &err);
    for (int k = 0; k < rank; k++)
        n_out *= (size_t)dim[k]; /* of one sample */
    float *out = get(n_out, sizeof *out);
    long long n;
    int64_t i = 0;
    while (scanf("%lld", &n) == 1 && n >= 1 && n <= MAX_STEPS) {
        for (int64_t k = 0; k < n; k++)
            printf("%s%.9g", k ? ", " : "[", o->infer ? inference(session, o, b, i++, out, n_out) : step(session, o, b, i++));
        printf("]\n");
        fflush(stdout);
    }
    double not_stored = 0;
    mest_plan_info plan = {.struct_size = sizeof plan};
    if (mest_session_explain(session, o->infer ? MEST_PROGRAM_INFER : MEST_PROGRAM_TRAIN, o->batch, NULL, NULL, &plan, &err) != MEST_OK)
        die("explain", &err);
    stored(model, &not_stored);
    free(out);
    printf("{\"before_bytes\":%" PRId64 ",\"peak_bytes\":%" PRId64 ",\"planned_bytes\":%" PRId64 ",\"not_stored\":%.4f}\n", before, high_water(), plan.total_bytes, not_stored);
    mest_session_destroy(session);
    mest_model_destroy(model);
}

static int ascending(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

/* Quantile of an array, which is sorted in place. */
static double quantile(double *x, int64_t n, double q)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    double at = q * (double)(n - 1);
    int64_t low = (int64_t)at, high = low + 1 < n ? low + 1 : low;
    return x[low] + (at - (double)low) * (x[high] - x[low]);
}

static void measure_round(const options *o, const batches *b, variant *v, int64_t round)
{
    mest_model *model;
    mest_session *session;
    open_session(o, v->sparsity, &model, &session);
    int64_t i = 0;
    for (; i < o->warmup; i++)
        step(session, o, b, i);
    double *s = v->seconds + v->n_seconds;
    for (int64_t k = 0; k < o->steps; k++)
        s[k] = step(session, o, b, i++);
    v->round[round] = quantile(s, o->steps, 0.5);
    v->n_seconds += o->steps;
    if (o->profile && round == o->rounds - 1) {
        mest_error err = {0};
        if (step_profile_start(&v->profile, session, o->batch, clock_used, &err) != MEST_OK)
            die("profile", &err);
        for (int64_t k = 0; k < o->steps; k++) {
            step_profile_mark(&v->profile);
            step(session, o, b, i++);
        }
        mest_session_profile(session, NULL, NULL);
        step_profile_finish(&v->profile);
    }
    mest_session_destroy(session);
    mest_model_destroy(model);
}

/* ---- reports ---- */
static void report(const options *o, variant *v, bool first)
{
    const memory *m = &v->memory;
    double p10 = quantile(v->seconds, v->n_seconds, 0.1), p50 = quantile(v->seconds, v->n_seconds, 0.5), p90 = quantile(v->seconds, v->n_seconds, 0.9), n = (double)o->batch;
    if (o->json) {
        printf("%s\"%s\":{\"images_per_s\":%.6g,\"images_per_s_p10\":%.6g,\"images_per_s_p90\":%.6g,\"step_ms\":%.6g,\"stored_sparsity\":%.4f,\"vmhwm_bytes\":%" PRId64
               ",\"vmhwm_before_bytes\":%" PRId64 ",\"allocator_peak_bytes\":%" PRId64 ",\"planned_bytes\":%" PRId64 ",\"arena_bytes\":%" PRId64 ",\"parameter_bytes\":%" PRId64
               ",\"optimizer_bytes\":%" PRId64 ",\"macs\":%" PRId64 ",\"conversions\":%d",
               first ? "" : ",", v->name, n / p50, n / p90, n / p10, 1e3 * p50, m->sparsity, m->hwm_bytes, m->start_bytes, m->heap_peak_bytes, m->plan.total_bytes,
               m->plan.arena_bytes, m->plan.parameter_bytes, m->plan.optimizer_bytes, m->plan.macs, m->plan.n_conversions);
        if (o->profile) {
            printf(",\"profile\":");
            step_profile_json(&v->profile, stdout);
        }
        printf("}");
        return;
    }
    const double mb = 1e-6;
    printf("%-7s %9.1f images/s (p10 %.1f, p90 %.1f), step %.2f ms; %.1f%% of the trainable elements not stored\n", v->name, n / p50, n / p90, n / p10, 1e3 * p50,
           100 * m->sparsity);
    printf("        peak MB: process %.1f (of which %.1f before the model), allocator %.1f, planned %.1f = activations %.1f + weights %.2f + optimizer %.2f + other\n",
           mb * (double)m->hwm_bytes, mb * (double)m->start_bytes, mb * (double)m->heap_peak_bytes, mb * (double)m->plan.total_bytes, mb * (double)m->plan.arena_bytes,
           mb * (double)m->plan.parameter_bytes, mb * (double)m->plan.optimizer_bytes);
}

static const char help[] =
    "usage: train_step MODEL.onnx [options]\n"
    "  --sparsity S         of the sparse variant [0.9]\n"
    "  --scheme NAME        csr, block4, block8, block16 [block4]\n"
    "  --dense-layers LIST  patterns of parameters that stay dense, auto, none [auto]\n"
    "  --batch N            [64]\n"
    "  --threads N          [1]\n"
    "  --input-shape LIST   of one sample, C,H,W; needed where the model leaves it open\n"
    "  --data KIND:PATH     samples as for mest-run; random ones otherwise\n"
    "  --loss ce|mse|bce    [ce]\n"
    "  --steps N            timed steps of each variant and round [10]\n"
    "  --warmup N           steps before them [3]\n"
    "  --rounds N           [5]\n"
    "  --only sparse|dense  one variant alone\n"
    "  --kernels LEVEL      auto, scalar, avx2, avx512, neon [auto]\n"
    "  --no-xnnpack         own kernels only\n"
    "  --no-fuse LIST       passes that are off, as in mest-run\n"
    "  --recompute HOW      activations computed again instead of kept, as in mest-run\n"
    "  --from-scratch       random pattern instead of the file's largest weights\n"
    "  --cpu-time           processor time of the process instead of wall time: for one thread on a busy machine\n"
    "  --profile            time by kind of node and the slowest nodes, in steps of their own\n"
    "  --top N              slowest nodes shown [15]\n"
    "  --json               one line of JSON\n"
    "  --infer              with --turns: inferences instead of training steps\n"
    "  --turns              with --only: each number on standard input is that many steps, answered by their seconds; for programs that compare\n";

static void parse(options *o, int argc, char **argv)
{
    static const struct option table[] = {
        {"sparsity", 1, 0, 's'}, {"scheme", 1, 0, 'c'}, {"dense-layers", 1, 0, 'd'}, {"batch", 1, 0, 'b'}, {"threads", 1, 0, 't'}, {"input-shape", 1, 0, 'i'},
        {"data", 1, 0, 'D'}, {"loss", 1, 0, 'l'}, {"steps", 1, 0, 'n'}, {"warmup", 1, 0, 'w'}, {"rounds", 1, 0, 'r'}, {"only", 1, 0, 'o'}, {"kernels", 1, 0, 'k'},
        {"no-xnnpack", 0, 0, 'x'}, {"no-fuse", 1, 0, 'F'}, {"recompute", 1, 0, 'R'}, {"from-scratch", 0, 0, 'f'}, {"profile", 0, 0, 'p'}, {"cpu-time", 0, 0, 'C'}, {"top", 1, 0, 'T'}, {"json", 0, 0, 'j'}, {"turns", 0, 0, 'U'}, {"infer", 0, 0, 'I'}, {"help", 0, 0, 'h'}, {0, 0, 0, 0}};
    for (int c; (c = getopt_long(argc, argv, "b:t:h", table, NULL)) != -1;) {
        switch (c) {
        case 's': o->sparsity = atof(optarg); break;
        case 'c': o->scheme = optarg; break;
        case 'd': o->dense_layers = optarg; break;
        case 'b': o->batch = atoll(optarg); break;
        case 't': o->threads = atoi(optarg); break;
        case 'D': o->data = optarg; break;
        case 'l': o->loss = optarg; break;
        case 'n': o->steps = atoll(optarg); break;
        case 'w': o->warmup = atoll(optarg); break;
        case 'r': o->rounds = atoll(optarg); break;
        case 'o': o->only = optarg; break;
        case 'k': o->kernels = optarg; break;
        case 'x': o->no_xnnpack = true; break;
        case 'F': o->no_fuse = optarg; break;
        case 'R': o->recompute = optarg; break;
        case 'f': o->from_scratch = true; break;
        case 'p': o->profile = true; break;
        case 'C': clock_used = CLOCK_PROCESS_CPUTIME_ID; break;
        case 'T': o->top = atoi(optarg); break;
        case 'j': o->json = true; break;
        case 'U': o->turns = true; break;
        case 'I': o->infer = true; break;
        case 'i':
            for (char *at = optarg; o->input_rank < MEST_SAMPLE_MAX_RANK; at++) {
                o->input_dim[o->input_rank++] = strtoll(at, &at, 10);
                if (*at != ',' && *at != 'x')
                    break;
            }
            break;
        case 'h': printf("%s", help); exit(0);
        default: fprintf(stderr, "%s", help); exit(2);
        }
    }
    o->model = optind + 1 == argc ? argv[optind] : NULL;
    bool only = !o->only || !strcmp(o->only, "sparse") || !strcmp(o->only, "dense");
    if (!o->model || o->batch < 1 || o->steps < 1 || o->steps > MAX_STEPS || o->rounds < 1 || o->rounds > MAX_STEPS || o->warmup < 0 || !only || (o->turns && !o->only) || (o->infer && !o->turns) || o->sparsity < 0 || o->sparsity >= 1) {
        fprintf(stderr, "%s", help);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    options o = {.scheme = "block4", .dense_layers = "auto", .loss = "ce", .kernels = "auto", .sparsity = 0.9, .batch = 64, .steps = 10, .warmup = 3, .rounds = 5, .threads = 1, .top = 15};
    parse(&o, argc, argv);
    batches b = {0};
    o.data ? given_batches(&o, &b) : random_batches(&o, &b);
    if (o.turns) {
        take_turns(&o, &b, strcmp(o.only, "sparse") ? 0 : o.sparsity);
        free(b.inputs);
        free(b.targets);
        return 0;
    }
    variant v[2] = {{.name = "sparse", .sparsity = o.sparsity}, {.name = "dense"}};
    int from = o.only && !strcmp(o.only, "dense"), to = o.only && !strcmp(o.only, "sparse") ? 1 : 2;
    for (int i = from; i < to; i++) {
        v[i].seconds = get((size_t)(o.steps * o.rounds), sizeof(double));
        v[i].round = get((size_t)o.rounds, sizeof(double));
        measure_memory(&o, &b, &v[i]);
    }
    for (int64_t r = 0; r < o.rounds; r++)
        for (int i = from; i < to; i++) /* who goes first changes with the round */
            measure_round(&o, &b, &v[r % 2 && to - from == 2 ? 1 - i : i], r);
    if (o.json)
        printf("{\"model\":\"%s\",\"sparsity\":%g,\"scheme\":\"%s\",\"batch\":%" PRId64 ",\"threads\":%d,\"kernels\":\"%s\",\"steps\":%" PRId64 ",\"rounds\":%" PRId64 ",", o.model,
               o.sparsity, o.scheme, o.batch, o.threads, o.kernels, o.steps, o.rounds);
    else
        printf("%s: batch %" PRId64 ", %d thread%s, sparsity %g %s, %" PRId64 " rounds of %" PRId64 " steps\n", o.model, o.batch, o.threads, o.threads == 1 ? "" : "s", o.sparsity,
               o.scheme, o.rounds, o.steps);
    for (int i = from; i < to; i++)
        report(&o, &v[i], i == from);
    if (to - from == 2) {
        double *ratio = get((size_t)o.rounds, sizeof *ratio);
        for (int64_t r = 0; r < o.rounds; r++)
            ratio[r] = v[1].round[r] / v[0].round[r];
        double low = quantile(ratio, o.rounds, 0), mid = quantile(ratio, o.rounds, 0.5), high = quantile(ratio, o.rounds, 1);
        printf(o.json ? ",\"speedup\":%.4f,\"speedup_min\":%.4f,\"speedup_max\":%.4f" : "sparse is %.2f times as fast as dense (rounds: %.2f to %.2f)\n", mid, low, high);
        free(ratio);
    }
    if (o.json)
        printf("}\n");
    for (int i = from; i < to; i++) {
        if (o.profile && !o.json)
            step_profile_print(&v[i].profile, stdout, v[i].name, o.top);
        step_profile_free(&v[i].profile);
        free(v[i].seconds);
        free(v[i].round);
    }
    free(b.inputs);
    free(b.targets);
    return 0;
}
