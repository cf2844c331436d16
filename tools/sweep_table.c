/* SPDX-License-Identifier: Apache-2.0 */
/* What a sweep found: the table on stdout, sweep.csv with a row a run, sweep.json with runs and groups. A group holds the runs that differ in
 * the averaged axes only; its spread is the sample standard deviation. */
#include "sweep.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "report.h"
#include "whole_file.h"

typedef struct spread {
    int n;
    double mean, deviation, least, most; /* NaN: no value; deviation: fewer than two */
} spread;

typedef struct group {
    const sweep_run *first;
    int runs, done, failed;
    spread accuracy, loss, sparsity, seconds, peak_bytes;
} group;

/* ---- numbers ---- */

static bool averaged(const sweep *s, int column)
{
    for (int i = 0; i < s->n_average; i++)
        if (strcmp(s->average[i], s->column[column]) == 0)
            return true;
    return false;
}

static bool same_label(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

static bool same_group(const sweep *s, const sweep_run *a, const sweep_run *b)
{
    for (int c = 0; c < s->n_columns; c++)
        if (!averaged(s, c) && !same_label(a->label[c], b->label[c]))
            return false;
    return true;
}

/* Of the member at `offset` of the finished runs of a group. */
static spread spread_of(const sweep *s, const sweep_run *first, size_t offset)
{
    spread x = {0, NAN, NAN, NAN, NAN};
    double sum = 0, squares = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < s->n_runs; i++) {
            double v;
            memcpy(&v, (const char *)&s->run[i] + offset, sizeof v);
            if (s->run[i].state != SWEEP_DONE || !isfinite(v) || !same_group(s, first, &s->run[i]))
                continue;
            if (pass) {
                squares += (v - x.mean) * (v - x.mean);
                continue;
            }
            sum += v;
            x.n++;
            x.least = x.n > 1 && x.least < v ? x.least : v;
            x.most = x.n > 1 && x.most > v ? x.most : v;
        }
        if (x.n)
            x.mean = sum / x.n;
    }
    if (x.n > 1)
        x.deviation = sqrt(squares / (x.n - 1));
    return x;
}

/* groups: room for one a run. Returns their number; they stand in the order of their first runs. */
static int make_groups(const sweep *s, group *groups)
{
    int n = 0;
    for (int i = 0; i < s->n_runs; i++) {
        const sweep_run *r = &s->run[i];
        int g = 0;
        while (g < n && !same_group(s, groups[g].first, r))
            g++;
        if (g == n)
            groups[n++] = (group){.first = r};
        groups[g].runs++;
        groups[g].done += r->state == SWEEP_DONE;
        groups[g].failed += r->state == SWEEP_FAILED;
    }
    for (int g = 0; g < n; g++) {
        const sweep_run *first = groups[g].first;
        groups[g].accuracy = spread_of(s, first, offsetof(sweep_run, accuracy));
        groups[g].loss = spread_of(s, first, offsetof(sweep_run, loss));
        groups[g].sparsity = spread_of(s, first, offsetof(sweep_run, sparsity));
        groups[g].seconds = spread_of(s, first, offsetof(sweep_run, seconds));
        groups[g].peak_bytes = spread_of(s, first, offsetof(sweep_run, peak_bytes));
    }
    return n;
}

/* ---- the table ---- */

static void cell(FILE *out, int width, int decimals, double value)
{
    if (isfinite(value))
        fprintf(out, "  %*.*f", width, decimals, value);
    else
        fprintf(out, "  %*s", width, "-");
}

static const char *label_of(const sweep_run *r, int column) { return r->label[column] ? r->label[column] : "-"; }

static int width_of(const sweep *s, int column)
{
    size_t width = strlen(s->column[column]);
    for (int i = 0; i < s->n_runs; i++)
        width = strlen(label_of(&s->run[i], column)) > width ? strlen(label_of(&s->run[i], column)) : width;
    return width < 60 ? (int)width : 60;
}

/* The last line of the program in a run's messages. */
static void last_message(const sweep_run *r, char *text, size_t size)
{
    static const char mark[] = "mest-run: ";
    char path[4400], line[600];
    snprintf(text, size, "no message");
    snprintf(path, sizeof path, "%s/messages.txt", r->folder);
    const char *why;
    FILE *file = plain_open(path, &why);
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, mark, sizeof mark - 1) == 0)
            snprintf(text, size, "%.*s", (int)strcspn(line + sizeof mark - 1, "\n"), line + sizeof mark - 1);
    if (file)
        fclose(file);
}

static void print_failed(FILE *out, const sweep *s)
{
    char text[400], message[500];
    for (int i = 0; i < s->n_runs; i++) {
        const sweep_run *r = &s->run[i];
        if (r->state != SWEEP_FAILED)
            continue;
        last_message(r, message, sizeof message);
        if (r->unreadable)
            snprintf(message, sizeof message, "'%.400s/summary.json' or model.onnx cannot be read", r->folder);
        fprintf(out, "failed (%d): %s: %s\n", r->exit_code, sweep_describe(s, r, text, sizeof text), message);
    }
}

static void print_groups(FILE *out, const sweep *s, const group *groups, int n)
{
    bool percent = false;
    for (int g = 0; g < n; g++)
        percent = percent || groups[g].accuracy.n > 0;
    fputc('\n', out);
    for (int c = 0; c < s->n_columns; c++)
        if (!averaged(s, c))
            fprintf(out, "%-*s  ", width_of(s, c), s->column[c]);
    fprintf(out, "%5s", "runs");
    if (percent)
        fprintf(out, "  %10s  %6s  %6s  %6s", "accuracy %", "sd", "min", "max");
    fprintf(out, "  %9s  %7s  %10s  %9s  %9s\n", "loss", "sd", "sparsity %", "seconds", "peak MB");
    for (int g = 0; g < n; g++) {
        const group *x = &groups[g];
        for (int c = 0; c < s->n_columns; c++)
            if (!averaged(s, c))
                fprintf(out, "%-*.60s  ", width_of(s, c), report_plain(label_of(x->first, c)).s);
        char runs[32];
        snprintf(runs, sizeof runs, x->done < x->runs ? "%d/%d" : "%d", x->done, x->runs);
        fprintf(out, "%5s", runs);
        if (percent) {
            cell(out, 10, 2, 100 * x->accuracy.mean);
            cell(out, 6, 2, 100 * x->accuracy.deviation);
            cell(out, 6, 2, 100 * x->accuracy.least);
            cell(out, 6, 2, 100 * x->accuracy.most);
        }
        cell(out, 9, 4, x->loss.mean);
        cell(out, 7, 4, x->loss.deviation);
        cell(out, 10, 2, 100 * x->sparsity.mean);
        cell(out, 9, 1, x->seconds.mean);
        cell(out, 9, 2, x->peak_bytes.mean / 1e6);
        fputc('\n', out);
    }
}

/* ---- files ---- */

static void csv_text(FILE *file, const char *text)
{
    bool plain = !strpbrk(text, ",\"\r\n");
    if (plain) {
        fputs(text, file);
        return;
    }
    fputc('"', file);
    for (; *text; text++)
        fputs(*text == '"' ? "\"\"" : (char[]){*text, 0}, file);
    fputc('"', file);
}

static const char *state_name(const sweep_run *r)
{
    static const char *const names[] = {"open", "running", "done", "failed"};
    return names[r->state];
}

static void csv_number(FILE *file, double value)
{
    if (isfinite(value))
        fprintf(file, ",%.9g", value);
    else
        fputc(',', file);
}

static void write_csv(FILE *file, const sweep *s)
{
    for (int c = 0; c < s->n_columns; c++) {
        csv_text(file, s->column[c]);
        fputc(',', file);
    }
    fputs("state,accuracy,loss,stored_sparsity,steps,seconds,peak_bytes,folder\n", file);
    for (int i = 0; i < s->n_runs; i++) {
        const sweep_run *r = &s->run[i];
        for (int c = 0; c < s->n_columns; c++) {
            csv_text(file, r->label[c] ? r->label[c] : "");
            fputc(',', file);
        }
        fputs(state_name(r), file);
        csv_number(file, r->accuracy);
        csv_number(file, r->loss);
        csv_number(file, r->sparsity);
        csv_number(file, r->steps);
        csv_number(file, r->seconds);
        csv_number(file, r->peak_bytes);
        fputc(',', file);
        csv_text(file, r->name);
        fputc('\n', file);
    }
}

static bool save_csv(const sweep *s, const char *path)
{
    char temporary[4420];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    FILE *file = fopen(temporary, "w");
    bool good = file != NULL;
    if (file) {
        write_csv(file, s);
        good = !ferror(file) && fflush(file) == 0 && fsync(fileno(file)) == 0;
        good = fclose(file) == 0 && good;
    }
    good = good && rename(temporary, path) == 0;
    if (!good)
        unlink(temporary);
    return good;
}

static void json_labels(cJSON *object, const sweep *s, const sweep_run *r, bool all)
{
    cJSON *axes = object ? cJSON_AddObjectToObject(object, "axes") : NULL;
    for (int c = 0; c < s->n_columns; c++)
        if (r->label[c] && (all || !averaged(s, c)))
            json_text(axes, s->column[c], r->label[c]);
}

static void json_run(cJSON *row, const sweep *s, const sweep_run *r)
{
    json_labels(row, s, r, true);
    json_text(row, "folder", r->name);
    json_text(row, "state", state_name(r));
    if (r->state == SWEEP_FAILED)
        json_number(row, "exit", r->exit_code);
    json_number(row, "accuracy", r->accuracy);
    json_number(row, "loss", r->loss);
    json_number(row, "sparsity", r->sparsity);
    json_number(row, "steps", r->steps);
    json_number(row, "seconds", r->seconds);
    json_number(row, "peak_bytes", r->peak_bytes);
}

static void json_spread(cJSON *object, const char *key, const spread *x)
{
    cJSON *into = object ? cJSON_AddObjectToObject(object, key) : NULL;
    json_number(into, "n", x->n);
    json_number(into, "mean", x->mean);
    json_number(into, "sd", x->deviation);
    json_number(into, "min", x->least);
    json_number(into, "max", x->most);
}

static cJSON *json_sweep(const sweep *s, const group *groups, int n)
{
    cJSON *event = json_event("sweep");
    json_text(event, "file", s->path);
    cJSON *list = event ? cJSON_AddArrayToObject(event, "groups") : NULL;
    for (int g = 0; g < n && list; g++) {
        cJSON *row = cJSON_CreateObject();
        json_labels(row, s, groups[g].first, false);
        json_number(row, "runs", groups[g].runs);
        json_number(row, "done", groups[g].done);
        json_number(row, "failed", groups[g].failed);
        json_spread(row, "accuracy", &groups[g].accuracy);
        json_spread(row, "loss", &groups[g].loss);
        json_spread(row, "sparsity", &groups[g].sparsity);
        json_spread(row, "seconds", &groups[g].seconds);
        json_spread(row, "peak_bytes", &groups[g].peak_bytes);
        if (row)
            cJSON_AddItemToArray(list, row);
    }
    list = event ? cJSON_AddArrayToObject(event, "runs") : NULL;
    for (int i = 0; i < s->n_runs && list; i++) {
        cJSON *row = cJSON_CreateObject();
        json_run(row, s, &s->run[i]);
        if (row)
            cJSON_AddItemToArray(list, row);
    }
    return event;
}

int sweep_emit_run(tool *t, const sweep *s, const sweep_run *r)
{
    cJSON *event = json_event("run");
    json_run(event, s, r);
    return json_emit(t, event) ? 0 : tool_refuse(t, EXIT_FILES, "standard output: %s", strerror(errno));
}

int sweep_save(tool *t, const sweep *s, const char *folder)
{
    char path[4400];
    group *groups = calloc((size_t)s->n_runs + 1, sizeof *groups);
    if (!groups)
        return tool_refuse(t, EXIT_LIMIT, "--sweep: out of memory");
    snprintf(path, sizeof path, "%s/sweep.csv", folder);
    bool good = save_csv(s, path);
    if (good) {
        snprintf(path, sizeof path, "%s/sweep.json", folder);
        cJSON *all = json_sweep(s, groups, make_groups(s, groups));
        good = json_save(all, path);
        cJSON_Delete(all);
    }
    int code = good ? 0 : tool_refuse(t, EXIT_FILES, "--sweep: '%s' cannot be written: %s", path, strerror(errno));
    free(groups);
    return code;
}

int sweep_print(tool *t, const sweep *s)
{
    group *groups = calloc((size_t)s->n_runs + 1, sizeof *groups);
    if (!groups)
        return tool_refuse(t, EXIT_LIMIT, "--sweep: out of memory");
    int n = make_groups(s, groups);
    if (!t->s->json || !t->s->quiet) {
        FILE *out = report_stream(t);
        print_groups(out, s, groups, n);
        print_failed(out, s);
        fflush(out);
    }
    bool good = !t->s->json || json_emit(t, json_sweep(s, groups, n));
    free(groups);
    return good ? 0 : tool_refuse(t, EXIT_FILES, "standard output: %s", strerror(errno));
}
