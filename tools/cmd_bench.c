/* SPDX-License-Identifier: Apache-2.0 */
/* --bench infer|train: how fast and in how much memory, on made-up samples of the model's shape or those of --data. Times are those of whole
 * calls without instruments; then the same calls again, node by node, for the table of operators. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "json.h"
#include "op_times.h"
#include "options.h"
#include "progress.h"
#include "report.h"

enum { BATCHES = 4, MOST_RUNS = 1000000, PROFILED_RUNS = 16 };

typedef struct bench {
    tool *t;
    bool train;
    int n_inputs;
    int64_t batch, n_batches, outputs; /* outputs: numbers of one sample's output */
    size_t input_bytes[MEST_SAMPLE_MAX_INPUTS], target_bytes; /* of one batch */
    char *inputs[MEST_SAMPLE_MAX_INPUTS], *targets;
    float *out;
    double *seconds;
    int64_t runs, room;
    double load_seconds, plan_seconds, first_seconds; /* model and patterns; session and plan; first call */
    mest_plan_info plan;
    op_times ops;
    int64_t resident, peak; /* before the node times are taken */
} bench;

/* ---- samples ---- */

static bool give(bench *b, int k, mest_sample_type type, const int64_t *dim, int rank)
{
    b->input_bytes[k] = (type == MEST_SAMPLE_F32 ? sizeof(float) : sizeof(int64_t)) * (size_t)b->batch;
    for (int i = 0; i < rank; i++)
        b->input_bytes[k] *= (size_t)dim[i];
    b->inputs[k] = calloc((size_t)b->n_batches, b->input_bytes[k] + 1);
    return b->inputs[k] != NULL;
}

static int no_room(bench *b)
{
    return tool_refuse(b->t, EXIT_LIMIT, "out of memory for %" PRId64 " batches of %" PRId64 "; try a smaller -b", b->n_batches, b->batch);
}

/* What made-up samples look like: the model's inputs, with --input-shape where its single input leaves sizes free. */
static int made_up_info(bench *b, mest_source_info *info)
{
    tool *t = b->t;
    const int_list *given = &t->s->input_shape;
    mest_error err = {0};
    *info = (mest_source_info){.struct_size = sizeof *info, .count = 1, .n_inputs = mest_model_input_count(t->model)};
    if (info->n_inputs > MEST_SAMPLE_MAX_INPUTS)
        return tool_refuse(t, EXIT_USAGE, "the model has %d inputs; give --data", info->n_inputs);
    for (int k = 0; k < info->n_inputs; k++) {
        mest_tensor_info in = {.struct_size = sizeof in};
        mest_sample_input *to = &info->input[k];
        if (mest_model_input(t->model, k, &in, &err) != MEST_OK)
            return tool_fail(t, STAGE_MODEL, &err);
        to->name = in.name;
        to->type = in.dtype == 1 ? MEST_SAMPLE_F32 : MEST_SAMPLE_I64;
        to->rank = in.rank > 0 ? in.rank - 1 : 0;
        if (given->n > 0 && info->n_inputs == 1)
            to->rank = given->n;
        if (to->rank > MEST_SAMPLE_MAX_RANK)
            return tool_refuse(t, EXIT_USAGE, "input '%s' has too many axes; give --data", report_plain(in.name).s);
        for (int i = 0; i < to->rank; i++) {
            to->dim[i] = given->n > 0 && info->n_inputs == 1 ? given->v[i] : in.dim[i + 1];
            if (to->dim[i] <= 0)
                return tool_refuse(t, EXIT_USAGE, "input '%s' leaves sizes free: give %s--data", report_plain(in.name).s, info->n_inputs == 1 ? "--input-shape or " : "");
        }
        if (k == 0) {
            info->input_type = to->type;
            info->input_rank = to->rank;
            memcpy(info->input_dim, to->dim, sizeof info->input_dim);
        }
    }
    return 0;
}

static uint32_t draw(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

/* Floats near a normal distribution; whole numbers 0 and 1, which every vocabulary, mask and flag has. */
static int made_up(bench *b, const mest_source_info *info)
{
    uint32_t state = (uint32_t)b->t->s->seed * 2654435761u + 1;
    for (int k = 0; k < info->n_inputs; k++) {
        const mest_sample_input *in = &info->input[k];
        if (!give(b, k, in->type, in->dim, in->rank))
            return no_room(b);
        const size_t bytes = b->input_bytes[k] * (size_t)b->n_batches;
        for (size_t i = 0; i < bytes / sizeof(float) && in->type == MEST_SAMPLE_F32; i++) {
            const double u = draw(&state) / 4294967296.0, v = draw(&state) / 4294967296.0, w = draw(&state) / 4294967296.0;
            ((float *)(void *)b->inputs[k])[i] = (float)(2 * (u + v + w) - 3);
        }
        for (size_t i = 0; i < bytes / sizeof(int64_t) && in->type == MEST_SAMPLE_I64; i++)
            ((int64_t *)(void *)b->inputs[k])[i] = draw(&state) >> 31;
    }
    b->n_inputs = info->n_inputs;
    return 0;
}

/* Classes of the last axis, or numbers as many as the output has. */
static int made_up_targets(bench *b, const int64_t *dim, int rank)
{
    tool *t = b->t;
    const bool classes = strcmp(t->s->loss, "ce") == 0;
    uint32_t state = 1;
    if (classes && rank < 1)
        return tool_refuse(t, EXIT_USAGE, "the output has no axis of classes: give --loss mse or --data");
    const int64_t most = classes ? dim[rank - 1] : 1, rows = classes && most > 0 ? b->outputs / most : b->outputs;
    b->target_bytes = (size_t)(b->batch * rows) * (classes ? sizeof(int64_t) : sizeof(float));
    b->targets = calloc((size_t)b->n_batches, b->target_bytes + 1);
    if (!b->targets)
        return no_room(b);
    for (int64_t i = 0; i < b->n_batches * b->batch * rows; i++) {
        if (classes)
            ((int64_t *)(void *)b->targets)[i] = (int64_t)(draw(&state) >> 8) % most;
        else
            ((float *)(void *)b->targets)[i] = (float)(draw(&state) >> 31);
    }
    return 0;
}

/* The first samples of --data, from the start again where there are fewer than a batch. */
static int from_data(bench *b)
{
    tool *t = b->t;
    const mest_source_info *info = &t->data_info;
    const mest_fetch how = {.struct_size = sizeof how, .seed = (uint64_t)t->s->seed};
    mest_error err = {0};
    b->n_inputs = info->n_inputs ? info->n_inputs : 1;
    for (int k = 0; k < b->n_inputs; k++)
        if (!(info->n_inputs ? give(b, k, info->input[k].type, info->input[k].dim, info->input[k].rank)
                             : give(b, k, info->input_type, info->input_dim, info->input_rank)))
            return no_room(b);
    if (b->train) {
        b->target_bytes = (info->target_type == MEST_SAMPLE_F32 ? sizeof(float) : sizeof(int64_t)) * (size_t)b->batch;
        for (int i = 0; i < info->target_rank; i++)
            b->target_bytes *= (size_t)info->target_dim[i];
        if (!(b->targets = calloc((size_t)b->n_batches, b->target_bytes + 1)))
            return no_room(b);
    }
    for (int64_t i = 0; i < b->n_batches * b->batch; i++) { /* one by one: a batch may be larger than the data */
        const int64_t id = i % info->count;
        void *to[MEST_SAMPLE_MAX_INPUTS], *target = b->train ? b->targets + (size_t)i * (b->target_bytes / (size_t)b->batch) : NULL;
        for (int k = 0; k < b->n_inputs; k++)
            to[k] = b->inputs[k] + (size_t)i * (b->input_bytes[k] / (size_t)b->batch);
        mest_status status = info->n_inputs ? t->data.fetch_inputs(t->data.self, &id, 1, &how, to, target, &err)
                                            : t->data.fetch(t->data.self, &id, 1, &how, to[0], target, &err);
        if (status != MEST_OK)
            return tool_fail(t, STAGE_DATA, &err);
    }
    return 0;
}

/* ---- before the first run ---- */

static int prepare(bench *b)
{
    tool *t = b->t;
    const settings *s = t->s;
    mest_error err = {0};
    mest_source_info info;
    int rank = 0;
    int64_t dim[MEST_MAX_RANK];
    double began = progress_clock();
    int code = tool_load_model(t);
    if (code == 0 && s->data)
        code = tool_open_sources(t, false);
    if (code == 0 && s->data)
        code = tool_check_sources(t, b->train);
    if (code == 0 && !s->data)
        code = made_up_info(b, &info);
    if (code == 0)
        code = tool_sparsify(t);
    b->load_seconds = progress_clock() - began;
    began = progress_clock();
    if (code == 0)
        code = tool_create_session(t);
    if (code)
        return code;
    b->batch = t->config.batch;
    signals_watch(t->session);
    if (!s->data && mest_session_expect(t->session, &info, &err) != MEST_OK)
        return tool_fail(t, STAGE_DATA, &err);
    if (b->train)
        code = tool_add_schedulers(t); /* they may reserve room for growth */
    if (code)
        return code;
    if (mest_session_output_shape(t->session, &rank, dim, &err) != MEST_OK ||
        mest_session_explain(t->session, b->train ? MEST_PROGRAM_TRAIN : MEST_PROGRAM_INFER, b->batch, NULL, NULL, &b->plan, &err) != MEST_OK)
        return tool_fail(t, STAGE_PREPARE, &err);
    b->plan_seconds = progress_clock() - began;
    b->outputs = 1;
    for (int i = 0; i < rank; i++)
        b->outputs *= dim[i];
    code = s->data ? from_data(b) : made_up(b, &info);
    if (code == 0 && b->train && !s->data)
        code = made_up_targets(b, dim, rank);
    if (code == 0 && !b->train && !(b->out = calloc((size_t)(b->batch * b->outputs) + 1, sizeof *b->out)))
        code = no_room(b);
    return code;
}

/* ---- running ---- */

static int once(bench *b, int64_t i, double *seconds)
{
    const void *given[MEST_SAMPLE_MAX_INPUTS];
    const size_t k = (size_t)(i % b->n_batches);
    mest_error err = {0};
    for (int n = 0; n < b->n_inputs; n++)
        given[n] = b->inputs[n] + k * b->input_bytes[n];
    const double began = progress_clock();
    mest_status status = b->train ? mest_session_step_inputs(b->t->session, given, b->targets + k * b->target_bytes, b->batch, NULL, &err)
                                  : mest_session_infer_inputs(b->t->session, given, b->batch, b->out, (size_t)(b->batch * b->outputs), &err);
    *seconds = progress_clock() - began;
    if (status != MEST_OK)
        return tool_fail(b->t, STAGE_RUN, &err);
    return signals_caught() ? tool_refuse(b->t, EXIT_SIGNAL + signals_caught(), "interrupted") : 0;
}

static int measure(bench *b)
{
    const settings *s = b->t->s;
    double seconds = 0;
    int code = once(b, 0, &b->first_seconds);
    for (int64_t i = 0; i < s->bench_warmup && code == 0; i++)
        code = once(b, i, &seconds);
    const double until = progress_clock() + s->bench_seconds;
    while (code == 0 && (s->bench_runs > 0 ? b->runs < s->bench_runs : b->runs < 3 || (progress_clock() < until && b->runs < MOST_RUNS))) {
        if (b->runs == b->room) {
            const int64_t room = b->room ? 2 * b->room : 1024;
            double *more = realloc(b->seconds, (size_t)room * sizeof *more);
            if (!more)
                return no_room(b);
            b->seconds = more;
            b->room = room;
        }
        code = once(b, b->runs, &b->seconds[b->runs]);
        b->runs += code == 0;
    }
    b->resident = report_resident_peak();
    mest_session_memory(b->t->session, NULL, &b->peak);
    return code;
}

static int profile(bench *b)
{
    tool *t = b->t;
    const int64_t runs = b->runs < PROFILED_RUNS ? b->runs : PROFILED_RUNS;
    double seconds;
    int code = 0;
    if (!op_times_begin(&b->ops, t->session, t->s->profile))
        return tool_refuse(t, EXIT_FILES, "--profile: '%s': %s", t->s->profile, strerror(errno));
    for (int64_t i = 0; i < runs && code == 0; i++)
        code = once(b, i, &seconds);
    if (!op_times_end(&b->ops, t->session, code == 0) && code == 0)
        return tool_refuse(t, EXIT_FILES, "--profile: '%s': %s", t->s->profile, strerror(errno));
    return code;
}

/* ---- what is said ---- */

static int ascending(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

/* The time that a part `q` of the runs did not exceed. */
static double percentile(const bench *b, double q)
{
    const double at = q * (double)(b->runs - 1);
    const int64_t i = (int64_t)at;
    return i + 1 < b->runs ? b->seconds[i] + (at - (double)i) * (b->seconds[i + 1] - b->seconds[i]) : b->seconds[b->runs - 1];
}

static int report(bench *b)
{
    tool *t = b->t;
    double sum = 0;
    qsort(b->seconds, (size_t)b->runs, sizeof *b->seconds, ascending);
    for (int64_t i = 0; i < b->runs; i++)
        sum += b->seconds[i];
    const double p50 = percentile(b, 0.5), p90 = percentile(b, 0.9), p99 = percentile(b, 0.99), rate = (double)(b->batch * b->runs) / fmax(sum, 1e-12);
    if (t->s->json) {
        cJSON *event = json_event("bench");
        json_text(event, "model", t->s->model);
        json_text(event, "program", t->s->bench);
        json_text(event, "data", t->s->data);
        json_number(event, "batch", (double)b->batch);
        json_number(event, "runs", (double)b->runs);
        json_number(event, "p50_seconds", p50);
        json_number(event, "p90_seconds", p90);
        json_number(event, "p99_seconds", p99);
        json_number(event, "least_seconds", b->seconds[0]);
        json_number(event, "most_seconds", b->seconds[b->runs - 1]);
        json_number(event, "images_per_second", rate);
        json_number(event, "load_seconds", b->load_seconds);
        json_number(event, "plan_seconds", b->plan_seconds);
        json_number(event, "first_seconds", b->first_seconds);
        json_number(event, "peak_bytes", (double)b->peak);
        json_number(event, "resident_peak_bytes", (double)b->resident);
        json_plan(event, &b->plan);
        json_bool(event, "cycles_counted", b->ops.counted);
        op_times_json(&b->ops, event);
        if (!json_emit(t, event))
            return tool_refuse(t, EXIT_FILES, "standard output: %s", strerror(errno));
        return report_finish(t);
    }
    char planned[32], peak[32], resident[32];
    report_bytes(planned, sizeof planned, b->plan.total_bytes);
    report_bytes(peak, sizeof peak, b->peak);
    report_bytes(resident, sizeof resident, b->resident);
    printf("%s, batch %" PRId64 ", %s: %" PRId64 " runs after %" PRId64 " of warm-up\n", b->train ? "a training step" : "inference", b->batch,
           t->s->data ? "samples of --data" : "made-up samples", b->runs, t->s->bench_warmup + 1);
    printf("  time        p50 %.3f ms, p90 %.3f ms, p99 %.3f ms (least %.3f, most %.3f)\n", 1e3 * p50, 1e3 * p90, 1e3 * p99, 1e3 * b->seconds[0],
           1e3 * b->seconds[b->runs - 1]);
    printf("  speed       %.1f images/s\n", rate);
    printf("  start       model and patterns %.0f ms, session and plan %.0f ms, first run %.1f ms\n", 1e3 * b->load_seconds, 1e3 * b->plan_seconds,
           1e3 * b->first_seconds);
    printf("  memory      %s planned, %s held at most, %s whole process (VmHWM)\n", planned, peak, resident);
    if (!b->ops.counted)
        printf("  cycles      not counted: the processor's counter is not to be had here (perf_event_open; -v says why)\n");
    op_times_print(&b->ops, stdout, t->s->verbose ? 20 : 0);
    return report_finish(t);
}

int cmd_bench(tool *t)
{
    bench b = {.t = t, .train = strcmp(t->s->bench, "train") == 0, .n_batches = BATCHES, .plan = {.struct_size = sizeof b.plan}};
    int code = prepare(&b);
    if (code == 0)
        code = measure(&b);
    if (code == 0)
        code = profile(&b);
    if (code == 0)
        code = report(&b);
    signals_watch(NULL);
    op_times_free(&b.ops);
    for (int k = 0; k < MEST_SAMPLE_MAX_INPUTS; k++)
        free(b.inputs[k]);
    free(b.targets);
    free(b.out);
    free(b.seconds);
    return code;
}
