/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"
#include "summary.h"

FILE *report_stream(const tool *t) { return t->s->json ? stderr : stdout; }

int64_t report_resident_peak(void)
{
    int64_t peak = 0;
    mest_process_memory(NULL, &peak);
    return peak;
}

void report_reset_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (file) {
        fputs("5", file);
        fclose(file);
    }
}

void report_bytes(char *text, size_t size, int64_t bytes)
{
    if (bytes < 1000)
        snprintf(text, size, "%" PRId64 " B", bytes);
    else if (bytes < 100000)
        snprintf(text, size, "%.1f kB", (double)bytes / 1e3);
    else
        snprintf(text, size, "%.2f MB", (double)bytes / 1e6);
}

plain_text report_plain(const char *text)
{
    plain_text p;
    snprintf(p.s, sizeof p.s, "%s", text ? text : "");
    for (char *c = p.s; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return p;
}

void report_shape(char *text, size_t size, const int64_t *dim, int rank)
{
    size_t n = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && n < size; i++) {
        if (dim[i] < 0)
            n += (size_t)snprintf(text + n, size - n, "%s?", i ? "," : "");
        else
            n += (size_t)snprintf(text + n, size - n, "%s%" PRId64, i ? "," : "", dim[i]);
    }
    if (n < size)
        snprintf(text + n, size - n, "]");
}

int report_finish(tool *t)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    return tool_refuse(t, EXIT_FILES, "standard output: %s", strerror(errno));
}

static int64_t file_bytes(const char *path)
{
    struct stat st;
    return path && *path && stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
}

/* ---- sparsity, layer by layer ---- */

typedef struct stored {
    int64_t sparse_all, sparse_kept; /* of the sparse parameters */
    int n_sparse, n_dense;           /* parameters of rank >= 2 */
} stored;

static int64_t elements(const mest_tensor_info *info)
{
    int64_t n = 1;
    for (int i = 0; i < info->rank; i++)
        n *= info->dim[i] > 0 ? info->dim[i] : 1;
    return n;
}

/* Calls `row` for every weight: parameters of rank >= 2 that are not constants. */
static stored walk_weights(const tool *t, void (*row)(void *user, const mest_tensor_info *info), void *user)
{
    stored sum = {0};
    for (int i = 0; i < mest_model_parameter_count(t->model); i++) {
        mest_tensor_info info = {.struct_size = sizeof info};
        if (mest_model_parameter(t->model, i, &info, NULL) != MEST_OK || info.rank < 2 || info.role == MEST_ROLE_CONSTANT
            || info.role == MEST_ROLE_STATISTIC)
            continue;
        if (strcmp(info.scheme, "dense") == 0) {
            sum.n_dense++;
        } else {
            sum.n_sparse++;
            sum.sparse_all += elements(&info);
            sum.sparse_kept += info.stored;
        }
        if (row)
            row(user, &info);
    }
    return sum;
}

static void print_weight(void *user, const mest_tensor_info *info)
{
    char shape[96];
    report_shape(shape, sizeof shape, info->dim, info->rank);
    fprintf(user, "  %-36s %-8s %-18s %9" PRId64 " of %9" PRId64 "  %6.2f %%\n", report_plain(info->name).s, info->scheme, shape, info->stored,
            elements(info), 100 * info->sparsity);
}

static void json_weight(void *user, const mest_tensor_info *info)
{
    cJSON *row = cJSON_CreateObject();
    if (!row)
        return;
    json_text(row, "name", info->name);
    json_text(row, "scheme", info->scheme);
    json_shape(row, "shape", info->dim, info->rank);
    json_number(row, "stored", (double)info->stored);
    json_number(row, "sparsity", info->sparsity);
    cJSON_AddItemToArray(user, row);
}

/* ---- the table ---- */

static void print_metrics(FILE *out, const char *label, const mest_metrics *m, bool *first)
{
    if (m->samples == 0)
        return;
    fprintf(out, "  %-12s", *first ? "accuracy" : "");
    *first = false;
    if (isfinite(m->accuracy))
        fprintf(out, "%6.2f %%   loss %-9.4f %s\n", 100 * m->accuracy, m->loss, label);
    else
        fprintf(out, "loss %-9.4f %s\n", m->loss, label);
}

static void print_file(FILE *out, const char *label, const char *path)
{
    char size[32];
    if (file_bytes(path) == 0)
        return;
    report_bytes(size, sizeof size, file_bytes(path));
    fprintf(out, "  %-12s%-10s %s\n", label, size, path);
}

static void print_train(tool *t, const train_report *r, const stored *sum)
{
    const settings *s = t->s;
    FILE *out = report_stream(t);
    const char *bold = progress_colour(fileno(out)) ? "\033[1m" : "", *plain = *bold ? "\033[0m" : "";
    char a[32], b[32], c[32];
    int64_t current = 0, peak = 0;
    bool first = true;
    mest_session_memory(t->session, &current, &peak);
    fprintf(out, "\n%s%s%s\n", bold, "Result", plain);
    print_metrics(out, "the model as given", &r->original, &first);
    print_metrics(out, r->made_sparse ? "made sparse, before training" : "before training", &r->start, &first);
    print_metrics(out, t->has_val ? "after training" : "in the last epoch (no --val)", &r->end, &first);
    progress_duration(a, sizeof a, r->seconds);
    fprintf(out, "  %-12s%s (%.1f s), %" PRId64 " epochs, %" PRId64 " steps%s%s\n", "time", a, r->seconds, r->epochs, r->steps,
            r->resumed ? ", from " : "", r->resumed ? r->resumed : "");
    if (r->seconds > 0 && r->samples > 0)
        fprintf(out, "  %-12s%.0f images/s\n", "speed", (double)r->samples / r->seconds);
    report_bytes(a, sizeof a, r->memory.heap_bytes);
    report_bytes(b, sizeof b, peak);
    fprintf(out, "  %-12s%s predicted, %s held at most", "memory", a, b);
    report_bytes(b, sizeof b, r->memory.process_bytes);
    report_bytes(c, sizeof c, report_resident_peak());
    fprintf(out, "; the whole process %s predicted, %s measured (VmHWM)\n", b, c);
    if (*r->memory.chosen)
        fprintf(out, "  %-12s%s\n", "", r->memory.chosen);
    print_file(out, "model in", s->model);
    print_file(out, "model out", s->output ? s->output : t->run_model);
    print_file(out, "checkpoint", t->checkpoint);
    if (sum->n_sparse) {
        fprintf(out, "  %-12s%.2f %% of %" PRId64 " weights in %d layers; %d layers dense\n", "sparsity",
                100 * (1 - (double)sum->sparse_kept / (double)sum->sparse_all), sum->sparse_all, sum->n_sparse, sum->n_dense);
        fprintf(out, "\n%s  %-36s %-8s %-18s %22s  %8s%s\n", bold, "weight", "scheme", "shape", "stored", "sparsity", plain);
        walk_weights(t, print_weight, out);
    }
    fflush(out);
}

static cJSON *json_train(tool *t, const train_report *r, const stored *sum)
{
    const settings *s = t->s;
    int64_t current = 0, peak = 0, epochs = 0, steps = 0; /* the latter two of the whole run, also if it was resumed */
    cJSON *event = json_event("summary");
    mest_session_position(t->session, &epochs, &steps);
    mest_session_memory(t->session, &current, &peak);
    json_text(event, "model", s->model);
    json_text(event, "output", s->output ? s->output : *t->run_model ? t->run_model : NULL);
    if (r->original.samples)
        json_metrics(event, "original", &r->original);
    if (r->start.samples)
        json_metrics(event, "before", &r->start);
    json_metrics(event, t->has_val ? "after" : "train", &r->end);
    json_number(event, "epochs", (double)epochs);
    json_number(event, "steps", (double)steps);
    json_number(event, "seconds", r->seconds);
    json_number(event, "images_per_second", r->seconds > 0 ? (double)r->samples / r->seconds : 0);
    json_number(event, "planned_bytes", (double)r->plan.total_bytes);
    json_number(event, "predicted_heap_bytes", (double)r->memory.heap_bytes);
    json_number(event, "predicted_process_bytes", (double)r->memory.process_bytes);
    json_text(event, "memory_chosen", r->memory.chosen);
    json_number(event, "peak_bytes", (double)peak);
    json_number(event, "resident_peak_bytes", (double)report_resident_peak());
    json_number(event, "input_file_bytes", (double)file_bytes(s->model));
    json_number(event, "output_file_bytes", (double)file_bytes(s->output ? s->output : t->run_model));
    if (*t->run_model)
        summary_add_model(event, t->run_model);
    json_text(event, "method", tool_method(s));
    json_number(event, "sparsity", sum->sparse_all ? 1 - (double)sum->sparse_kept / (double)sum->sparse_all : 0);
    cJSON *weights = event ? cJSON_AddArrayToObject(event, "weights") : NULL;
    if (weights)
        walk_weights(t, json_weight, weights);
    return event;
}

int report_train(tool *t, const train_report *r)
{
    stored sum = walk_weights(t, NULL, NULL);
    if (!t->s->json || !t->s->quiet)
        print_train(t, r, &sum);
    if (json_wanted(t)) {
        cJSON *event = json_train(t, r, &sum);
        if (*t->summary && !json_save(event, t->summary)) {
            cJSON_Delete(event);
            return tool_refuse(t, EXIT_FILES, "'%s': %s", t->summary, strerror(errno));
        }
        if (!json_emit(t, event))
            return tool_refuse(t, EXIT_FILES, "the log or standard output: %s", strerror(errno));
    }
    return report_finish(t);
}

int report_eval(tool *t, const mest_metrics *m)
{
    const settings *s = t->s;
    if (!s->json || !s->quiet) {
        FILE *out = report_stream(t);
        fprintf(out, "loss      %.6f\n", m->loss);
        if (isfinite(m->accuracy))
            fprintf(out, "accuracy  %.2f %%\n", 100 * m->accuracy);
        fprintf(out, "samples   %" PRId64 "\n", m->samples);
        if (m->seconds > 0)
            fprintf(out, "speed     %.0f images/s\n", (double)m->samples / m->seconds);
    }
    if (s->json) {
        cJSON *event = json_event("summary");
        json_text(event, "model", s->model);
        json_text(event, "data", s->data);
        json_metrics(event, "metrics", m);
        json_number(event, "resident_peak_bytes", (double)report_resident_peak());
        if (!json_emit(t, event))
            return tool_refuse(t, EXIT_FILES, "standard output: %s", strerror(errno));
    }
    return report_finish(t);
}
