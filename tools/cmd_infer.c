/* SPDX-License-Identifier: Apache-2.0 */
/* --infer: outputs of the model for the samples of --data, in their order; with class names also the best classes. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "json.h"
#include "op_times.h"
#include "options.h"
#include "outputs.h"
#include "progress.h"
#include "report.h"
#include "rundir.h"

typedef struct inference {
    tool *t;
    outputs out;
    int64_t *ids;
    int n_inputs;
    void *inputs[MEST_SAMPLE_MAX_INPUTS];
    float *scores;
    int64_t batch, classes; /* numbers of one output */
    int64_t top;                      /* classes to print, 0: none */
    double began;
} inference;

/* Are these numbers a distribution already? Otherwise they are taken for logits. */
static bool is_distribution(const float *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!(v[i] >= 0))
            return false;
        sum += (double)v[i];
    }
    return fabs(sum - 1) < 1e-3;
}

static double probability(const float *v, int64_t n, int64_t index, bool given)
{
    double most = -INFINITY, sum = 0;
    if (given)
        return (double)v[index];
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, (double)v[i]);
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)v[i] - most);
    return exp((double)v[index] - most) / sum;
}

/* The best class that comes after `last` in the order by score, ties by index; -1: none. */
static int64_t next_best(const float *v, int64_t n, int64_t last)
{
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++) {
        bool after = last < 0 || v[i] < v[last] || (v[i] == v[last] && i > last);
        if (after && (best < 0 || v[i] > v[best]))
            best = i;
    }
    return best;
}

/* One sample: "17 photo.jpg  tulips 97.1%, roses 1.2%". False: the event could not be written. */
static bool print_top(const inference *in, int64_t id, const float *v)
{
    const mest_source *data = &in->t->data;
    char sample[512] = "";
    bool given = is_distribution(v, in->classes);
    cJSON *event = in->t->s->json ? json_event("prediction") : NULL;
    cJSON *list = event ? cJSON_AddArrayToObject(event, "top") : NULL;
    if (data->sample_name)
        data->sample_name(data->self, id, sample, sizeof sample);
    if (!in->t->s->json)
        printf("%" PRId64 "%s%s ", id, *sample ? " " : "", sample);
    json_number(event, "sample", (double)id);
    json_text(event, "name", *sample ? sample : NULL);
    int64_t c = -1;
    for (int64_t k = 0; k < in->top && (c = next_best(v, in->classes, c)) >= 0; k++) {
        const char *name = data->class_name ? data->class_name(data->self, c) : NULL;
        double p = probability(v, in->classes, c, given);
        if (!in->t->s->json) {
            if (name)
                printf("%s %s %.1f%%", k ? "," : "", name, 100 * p);
            else
                printf("%s %" PRId64 " %.1f%%", k ? "," : "", c, 100 * p);
            continue;
        }
        cJSON *row = list ? cJSON_CreateObject() : NULL;
        json_number(row, "class", (double)c);
        json_text(row, "name", name);
        json_number(row, "score", (double)v[c]);
        json_number(row, "probability", p);
        if (row)
            cJSON_AddItemToArray(list, row);
    }
    return in->t->s->json ? json_emit(in->t, event) : putchar('\n') != EOF;
}

static int run_batches(inference *in, progress *p)
{
    tool *t = in->t;
    mest_error err = {0};
    const int64_t count = t->data_info.count;
    const mest_fetch how = {.struct_size = sizeof how, .seed = (uint64_t)t->s->seed};
    for (int64_t first = 0; first < count; first += in->batch) {
        int64_t n = count - first < in->batch ? count - first : in->batch;
        for (int64_t i = 0; i < n; i++)
            in->ids[i] = first + i;
        const void *given[MEST_SAMPLE_MAX_INPUTS];
        mest_status status = t->data_info.n_inputs ? t->data.fetch_inputs(t->data.self, in->ids, n, &how, in->inputs, NULL, &err)
                                                   : t->data.fetch(t->data.self, in->ids, n, &how, in->inputs[0], NULL, &err);
        if (status != MEST_OK)
            return tool_fail(t, STAGE_DATA, &err);
        for (int k = 0; k < in->n_inputs; k++)
            given[k] = in->inputs[k];
        if (mest_session_infer_inputs(t->session, given, n, in->scores, (size_t)(n * in->classes), &err) != MEST_OK)
            return tool_fail(t, STAGE_RUN, &err);
        if (!outputs_write(&in->out, in->scores, n))
            return tool_refuse(t, EXIT_FILES, "'%s': %s", in->out.path, strerror(errno));
        for (int64_t i = 0; i < n && in->top > 0; i++)
            if (!print_top(in, first + i, in->scores + i * in->classes))
                return tool_refuse(t, EXIT_FILES, "standard output: %s", strerror(errno));
        if (signals_caught())
            return tool_refuse(t, EXIT_SIGNAL + signals_caught(), "interrupted");
        double now = progress_clock();
        if (p->bar && in->top == 0 && (now - p->shown > 0.1)) {
            fprintf(stderr, "\rsample %" PRId64 "/%" PRId64 "\033[K", first + n, count);
            t->line_open = true;
            p->shown = now;
        }
    }
    return 0;
}

static int finish(inference *in)
{
    tool *t = in->t;
    const settings *s = t->s;
    double seconds = progress_clock() - in->began;
    if (!outputs_commit(&in->out))
        return tool_refuse(t, EXIT_FILES, "'%s': %s", in->out.path, strerror(errno));
    tool_note(t, "%" PRId64 " samples in %.2f s, %.0f images/s; outputs in '%s'", t->data_info.count, seconds,
              (double)t->data_info.count / fmax(seconds, 1e-9), in->out.path);
    if (s->json) {
        cJSON *event = json_event("summary");
        json_text(event, "model", s->model);
        json_text(event, "output", in->out.path);
        json_number(event, "samples", (double)t->data_info.count);
        json_number(event, "seconds", seconds);
        json_number(event, "resident_peak_bytes", (double)report_resident_peak());
        if (!json_emit(t, event))
            return tool_refuse(t, EXIT_FILES, "standard output: %s", strerror(errno));
    }
    return report_finish(t);
}

/* Room for a batch of each input. */
static bool make_inputs(inference *in)
{
    const mest_source_info *info = &in->t->data_info;
    in->n_inputs = info->n_inputs ? info->n_inputs : 1;
    for (int k = 0; k < in->n_inputs; k++) {
        const bool one = !info->n_inputs;
        size_t bytes = (one ? info->input_type : info->input[k].type) == MEST_SAMPLE_F32 ? 4 : 8;
        for (int i = 0; i < (one ? info->input_rank : info->input[k].rank); i++)
            bytes *= (size_t)(one ? info->input_dim[i] : info->input[k].dim[i]);
        in->inputs[k] = calloc((size_t)in->batch, bytes);
        if (!in->inputs[k])
            return false;
    }
    return true;
}

/* Buffers for a batch, the output file, and what is printed. */
static int begin(inference *in, const char *path)
{
    tool *t = in->t;
    const settings *s = t->s;
    mest_error err = {0};
    int rank = 0;
    int64_t dim[MEST_MAX_RANK];
    if (mest_session_output_shape(t->session, &rank, dim, &err) != MEST_OK)
        return tool_fail(t, STAGE_PREPARE, &err);
    in->batch = t->config.batch;
    in->classes = 1;
    for (int i = 0; i < rank; i++)
        in->classes *= dim[i];
    in->ids = calloc((size_t)in->batch, sizeof *in->ids);
    in->scores = calloc((size_t)in->batch, (size_t)in->classes * sizeof *in->scores);
    if (!in->ids || !in->scores || !make_inputs(in))
        return tool_refuse(t, EXIT_LIMIT, "out of memory for a batch of %" PRId64 "; try a smaller -b", in->batch);
    bool named = t->data.class_name && t->data.class_name(t->data.self, 0);
    bool wanted = options_given(s, "topk") || named || s->json;
    in->top = rank == 1 && in->classes > 1 && wanted && strcmp(path, "-") != 0 ? (s->topk > 0 ? s->topk : 5) : 0;
    if (!outputs_open(&in->out, path, t->data_info.count, dim, rank))
        return tool_refuse(t, EXIT_FILES, "'%s': %s", path, strerror(errno));
    return 0;
}

int cmd_infer(tool *t)
{
    const settings *s = t->s;
    inference in = {.t = t, .began = progress_clock()};
    progress p;
    op_times ops;
    const char *path = s->output ? s->output : "output.npy";
    int code = 0;
    if (strcmp(path, "-") == 0 && s->json)
        return tool_refuse(t, EXIT_USAGE, "-o - and --json both want standard output");
    if (strcmp(path, "-") != 0)
        code = rundir_check_writable(t, "output", path);
    if (code == 0)
        code = tool_load_model(t);
    if (code == 0)
        code = tool_open_sources(t, false);
    if (code == 0)
        code = tool_check_sources(t, false);
    if (code == 0)
        code = tool_sparsify(t);
    if (code == 0)
        code = tool_create_session(t);
    if (code)
        return code;
    signals_watch(t->session);
    progress_init(&p, t);
    code = begin(&in, path);
    if (code == 0)
        code = op_times_profile(t, &ops);
    if (code == 0)
        code = op_times_finish(t, &ops, run_batches(&in, &p));
    progress_clear(&p);
    if (code == 0)
        code = finish(&in);
    outputs_abort(&in.out);
    free(in.ids);
    for (int k = 0; k < in.n_inputs; k++)
        free(in.inputs[k]);
    free(in.scores);
    return code;
}
