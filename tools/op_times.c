/* SPDX-License-Identifier: Apache-2.0 */
#include "op_times.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "progress.h"
#include "report.h"

static void copy(char *to, size_t size, const char *from) { snprintf(to, size, "%s", report_plain(from).s); }

/* Nodes come in the order of the program, so the next one is near. */
static op_node *find(op_times *o, const mest_node_time *t)
{
    for (int i = 0; i < o->n; i++) {
        op_node *n = &o->nodes[(o->last + 1 + i) % o->n];
        if (n->index == t->index && n->kind == t->kind && n->batch == t->batch) {
            o->last = (int)(n - o->nodes);
            return n;
        }
    }
    if (o->n == o->room) {
        const int room = o->room ? 2 * o->room : 256;
        op_node *nodes = realloc(o->nodes, (size_t)room * sizeof *nodes);
        if (!nodes) {
            o->failed = true;
            return NULL;
        }
        o->nodes = nodes;
        o->room = room;
    }
    op_node *n = &o->nodes[o->last = o->n++];
    memset(n, 0, sizeof *n);
    n->kind = t->kind, n->index = t->index, n->batch = t->batch;
    copy(n->op, sizeof n->op, t->op);
    copy(n->kernel, sizeof n->kernel, t->kernel);
    copy(n->phase, sizeof n->phase, t->phase);
    copy(n->name, sizeof n->name, t->name);
    return n;
}

/* ---- the trace ---- */

static void put_text(FILE *file, const char *key, const char *text)
{
    fprintf(file, "\"%s\":\"", key);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fputc('\\', file);
        fputc(*c < 0x20 || *c >= 0x7f ? '?' : *c, file);
    }
    fputc('"', file);
}

static void put_event(op_times *o, const op_node *n, const mest_node_time *t)
{
    static const char *const programs[] = {"train", "eval", "infer"};
    FILE *file = o->trace.file;
    if (o->events == OP_TIMES_EVENTS) {
        o->left_out++;
        return;
    }
    fputs(o->events++ ? ",\n{" : "\n{", file); /* the lines before them end with a comma */
    put_text(file, "name", n->op);
    fputc(',', file);
    put_text(file, "cat", n->phase);
    fprintf(file, ",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":%.3f,\"dur\":%.3f,\"args\":{", 1e6 * (t->start - o->began), 1e6 * t->seconds);
    put_text(file, "node", n->name);
    fputc(',', file);
    put_text(file, "kernel", n->kernel);
    fprintf(file, ",\"program\":\"%s\",\"batch\":%" PRId64 ",\"index\":%d,\"macs\":%" PRId64 ",\"nonzeros\":%" PRId64 ",\"bytes\":%" PRId64,
            programs[t->kind], t->batch, t->index, t->macs, t->nonzeros, t->bytes);
    if (t->cycles >= 0)
        fprintf(file, ",\"cycles\":%" PRId64, t->cycles);
    fputs("}}", file);
}

static void on_node(void *user, const mest_node_time *t)
{
    op_times *o = user;
    op_node *n = find(o, t);
    if (!n)
        return;
    n->macs = t->macs, n->nonzeros = t->nonzeros, n->bytes = t->bytes; /* patterns move */
    n->seconds[n->runs++ % OP_TIMES_RUNS] = t->seconds;
    n->cycles = t->cycles < 0 ? -1 : n->cycles + t->cycles;
    if (o->trace.file)
        put_event(o, n, t);
}

bool op_times_begin(op_times *o, mest_session *session, const char *trace)
{
    memset(o, 0, sizeof *o);
    if (trace && !whole_open(&o->trace, trace))
        return false;
    o->began = progress_clock();
    if (o->trace.file)
        fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"mest-run\"}},"
              "\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":1,\"args\":{\"name\":\"nodes\"}},", o->trace.file);
    o->counted = mest_session_trace(session, on_node, o);
    return true;
}

static int ascending(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

bool op_times_end(op_times *o, mest_session *session, bool good)
{
    mest_session_trace(session, NULL, NULL);
    for (int i = 0; i < o->n; i++) {
        op_node *n = &o->nodes[i];
        const size_t runs = n->runs < OP_TIMES_RUNS ? (size_t)n->runs : OP_TIMES_RUNS;
        qsort(n->seconds, runs, sizeof *n->seconds, ascending);
        n->median = runs ? 0.5 * (n->seconds[(runs - 1) / 2] + n->seconds[runs / 2]) : 0;
    }
    if (!o->trace.file)
        return true;
    if (!o->events) /* no comma behind the last element */
        fputs("\n{\"name\":\"nothing ran\",\"ph\":\"M\",\"pid\":1}", o->trace.file);
    fputs("\n]}\n", o->trace.file);
    return whole_close(&o->trace, good);
}

/* ---- the table ---- */

static int slower(const void *a, const void *b)
{
    const double x = ((const op_node *)a)->median, y = ((const op_node *)b)->median;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Nodes of one kind added up, slowest first; `batch` then counts nodes, cycles are those of a run of each. NULL without memory. */
static op_node *kinds(const op_times *o, int *n_kinds, double *total)
{
    op_node *k = calloc((size_t)o->n + 1, sizeof *k);
    *n_kinds = 0;
    *total = 0;
    for (int i = 0; k && i < o->n; i++) {
        const op_node *n = &o->nodes[i];
        if (!n->runs)
            continue;
        int at = 0;
        while (at < *n_kinds && (strcmp(k[at].op, n->op) || strcmp(k[at].kernel, n->kernel) || strcmp(k[at].phase, n->phase)))
            at++;
        if (at == *n_kinds) {
            k[(*n_kinds)++] = *n;
            k[at].median = 0;
            k[at].macs = k[at].bytes = k[at].nonzeros = k[at].batch = k[at].cycles = 0;
        }
        k[at].median += n->median;
        k[at].macs += n->macs;
        k[at].bytes += n->bytes;
        k[at].nonzeros += n->nonzeros;
        k[at].cycles += n->cycles < 0 ? 0 : n->cycles / n->runs;
        k[at].batch++;
        *total += n->median;
    }
    if (k)
        qsort(k, (size_t)*n_kinds, sizeof *k, slower);
    return k;
}

static void put_rates(FILE *file, const op_times *o, const op_node *n, int64_t cycles)
{
    if (n->macs > 0 && n->median > 0)
        fprintf(file, " %8.1f", 2e-9 * (double)n->macs / n->median);
    else
        fprintf(file, " %8s", "");
    fprintf(file, " %7.1f", n->median > 0 ? 1e-9 * (double)n->bytes / n->median : 0);
    if (!o->counted)
        return;
    if (n->nonzeros > 0)
        fprintf(file, " %9.2f", (double)cycles / (double)n->nonzeros);
    else
        fprintf(file, " %9s", "");
}

void op_times_print(const op_times *o, FILE *file, int top)
{
    int n_kinds;
    double total;
    op_node *k = kinds(o, &n_kinds, &total);
    if (!k || total <= 0) {
        free(k);
        return;
    }
    fprintf(file, "\n%.3f ms a run in nodes (sum of their medians; times of nodes are taken in runs of their own)\n", 1e3 * total);
    fprintf(file, "        ms   share nodes   GFLOP/s    GB/s%s  phase     operator                 kernel\n", o->counted ? " cycles/nz" : "");
    for (int i = 0; i < n_kinds; i++) {
        fprintf(file, "  %8.3f  %5.1f%%  %4" PRId64, 1e3 * k[i].median, 100 * k[i].median / total, k[i].batch);
        put_rates(file, o, &k[i], k[i].cycles);
        fprintf(file, "  %-8s  %-24s %s\n", k[i].phase, k[i].op, k[i].kernel);
    }
    free(k);
    op_node *sorted = top > 0 ? malloc((size_t)o->n * sizeof *sorted) : NULL;
    if (!sorted)
        return;
    memcpy(sorted, o->nodes, (size_t)o->n * sizeof *sorted);
    qsort(sorted, (size_t)o->n, sizeof *sorted, slower);
    fprintf(file, "slowest nodes\n");
    for (int i = 0; i < top && i < o->n && sorted[i].runs; i++) {
        const op_node *n = &sorted[i];
        fprintf(file, "  %8.3f  %5.1f%%      ", 1e3 * n->median, 100 * n->median / total);
        put_rates(file, o, n, n->cycles < 0 ? 0 : n->cycles / n->runs);
        fprintf(file, "  %-8s  %-24s %s\n", n->phase, n->op, n->name);
    }
    free(sorted);
}

void op_times_json(const op_times *o, cJSON *event)
{
    int n_kinds;
    double total;
    op_node *k = kinds(o, &n_kinds, &total);
    cJSON *list = event ? cJSON_AddArrayToObject(event, "ops") : NULL;
    for (int i = 0; k && list && i < n_kinds; i++) {
        cJSON *row = cJSON_CreateObject();
        json_text(row, "phase", k[i].phase);
        json_text(row, "op", k[i].op);
        json_text(row, "kernel", k[i].kernel);
        json_number(row, "nodes", (double)k[i].batch);
        json_number(row, "seconds", k[i].median);
        json_number(row, "share", total > 0 ? k[i].median / total : 0);
        json_number(row, "macs", (double)k[i].macs);
        json_number(row, "bytes", (double)k[i].bytes);
        json_number(row, "nonzeros", (double)k[i].nonzeros);
        if (o->counted)
            json_number(row, "cycles", (double)k[i].cycles);
        cJSON_AddItemToArray(list, row);
    }
    free(k);
}

void op_times_free(op_times *o)
{
    free(o->nodes);
    if (o->trace.file)
        whole_close(&o->trace, false);
    memset(o, 0, sizeof *o);
}

/* ---- --profile ---- */

int op_times_profile(tool *t, op_times *o)
{
    memset(o, 0, sizeof *o);
    if (!t->s->profile || op_times_begin(o, t->session, t->s->profile))
        return 0;
    return tool_refuse(t, EXIT_FILES, "--profile: '%s': %s", t->s->profile, strerror(errno));
}

int op_times_finish(tool *t, op_times *o, int code)
{
    if (!t->s->profile)
        return code;
    const int64_t events = o->events, left_out = o->left_out;
    const bool interrupted = code > EXIT_SIGNAL; /* what was recorded until then is whole */
    const bool written = op_times_end(o, t->session, code == 0 || interrupted);
    const int why = errno;
    op_times_free(o);
    if (code && !interrupted)
        return code;
    if (!written)
        return code ? code : tool_refuse(t, EXIT_FILES, "--profile: '%s': %s", t->s->profile, strerror(why));
    tool_note(t, "'%s': %" PRId64 " node times%s", t->s->profile, events, left_out ? "; the rest of the run is not in it" : "");
    return code;
}
