/* SPDX-License-Identifier: Apache-2.0 */
/* Sums node times by node and by kind. */
#include "step_profile.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void copy(char *to, size_t size, const char *from) { snprintf(to, size, "%s", from ? from : ""); }

static void describe(void *user, const mest_node_info *info)
{
    step_profile *p = user;
    if (p->n == p->room) {
        int room = p->room ? 2 * p->room : 256;
        profile_node *nodes = realloc(p->nodes, (size_t)room * sizeof *nodes);
        if (!nodes) {
            p->failed = true;
            return;
        }
        p->nodes = nodes;
        p->room = room;
    }
    profile_node *n = &p->nodes[p->n++];
    memset(n, 0, sizeof *n);
    copy(n->op, sizeof n->op, info->op);
    copy(n->kernel, sizeof n->kernel, info->kernel);
    copy(n->phase, sizeof n->phase, info->phase);
    copy(n->inputs, sizeof n->inputs, info->inputs);
    n->macs = info->macs;
    n->bytes = info->bytes;
}

static double read_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void step_profile_mark(step_profile *p) { p->last = read_clock(p->clock); }

static void timed(void *user, mest_program_kind kind, int index, double seconds)
{
    step_profile *p = user;
    if (p->clock != CLOCK_MONOTONIC) {
        double t = read_clock(p->clock);
        seconds = t - p->last;
        p->last = t;
    }
    if (kind == MEST_PROGRAM_TRAIN && index >= 0 && index < p->n) {
        profile_node *n = &p->nodes[index];
        n->run[n->runs++ % PROFILE_RUNS] = seconds;
    }
}

static int ascending(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

void step_profile_finish(step_profile *p)
{
    for (int i = 0; i < p->n; i++) {
        profile_node *n = &p->nodes[i];
        size_t runs = n->runs < PROFILE_RUNS ? (size_t)n->runs : PROFILE_RUNS;
        qsort(n->run, runs, sizeof *n->run, ascending);
        n->seconds = runs ? 0.5 * (n->run[(runs - 1) / 2] + n->run[runs / 2]) : 0;
    }
}

mest_status step_profile_start(step_profile *profile, mest_session *session, int64_t batch, clockid_t clock, mest_error *err)
{
    *profile = (step_profile){.clock = clock};
    mest_status status = mest_session_explain(session, MEST_PROGRAM_TRAIN, batch, describe, profile, NULL, err);
    if (status == MEST_OK && profile->failed)
        status = MEST_E_NOMEM;
    if (status == MEST_OK)
        mest_session_profile(session, timed, profile);
    return status;
}

static int slower(const void *a, const void *b)
{
    double x = ((const profile_node *)a)->seconds, y = ((const profile_node *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Nodes of one kind added up, slowest first; runs then counts nodes, not runs. NULL without memory. */
static profile_node *kinds(const step_profile *p, int *n_kinds, double *total)
{
    profile_node *k = calloc((size_t)p->n + 1, sizeof *k);
    *n_kinds = 0;
    *total = 0;
    for (int i = 0; k && i < p->n; i++) {
        const profile_node *n = &p->nodes[i];
        if (n->runs == 0)
            continue;
        int at = 0;
        while (at < *n_kinds && (strcmp(k[at].op, n->op) || strcmp(k[at].kernel, n->kernel) || strcmp(k[at].phase, n->phase)))
            at++;
        if (at == *n_kinds) {
            k[(*n_kinds)++] = *n;
            k[at].runs = 1;
        } else {
            k[at].seconds += n->seconds;
            k[at].macs += n->macs;
            k[at].bytes += n->bytes;
            k[at].runs++;
        }
        *total += n->seconds;
    }
    if (k)
        qsort(k, (size_t)*n_kinds, sizeof *k, slower);
    return k;
}

static void rates(FILE *file, const profile_node *n, double seconds)
{
    if (n->macs > 0)
        fprintf(file, " %7.1f", 2e-9 * (double)n->macs / seconds);
    else
        fprintf(file, " %7s", "");
    fprintf(file, " %7.1f", 1e-9 * (double)n->bytes / seconds);
}

void step_profile_print(const step_profile *p, FILE *file, const char *title, int top)
{
    int n_kinds;
    double total;
    profile_node *k = kinds(p, &n_kinds, &total);
    if (!k || total <= 0) {
        free(k);
        return;
    }
    fprintf(file, "\n%s: %.2f ms a step in nodes (sum of the nodes' medians)\n", title, 1e3 * total);
    fprintf(file, "   ms/step   share nodes  GFLOP/s    GB/s  phase     operator                 kernel\n");
    for (int i = 0; i < n_kinds; i++) {
        double seconds = k[i].seconds;
        fprintf(file, "  %8.3f  %5.1f%%  %4" PRId64, 1e3 * seconds, 100 * k[i].seconds / total, k[i].runs);
        rates(file, &k[i], seconds);
        fprintf(file, "  %-8s  %-24s %s\n", k[i].phase, k[i].op, k[i].kernel);
    }
    free(k);
    if (top <= 0)
        return;
    step_profile sorted = {.nodes = malloc((size_t)p->n * sizeof *p->nodes), .n = p->n};
    if (!sorted.nodes)
        return;
    memcpy(sorted.nodes, p->nodes, (size_t)p->n * sizeof *p->nodes);
    qsort(sorted.nodes, (size_t)p->n, sizeof *p->nodes, slower);
    fprintf(file, "  slowest nodes\n");
    for (int i = 0; i < top && i < p->n && sorted.nodes[i].runs; i++) {
        const profile_node *n = &sorted.nodes[i];
        double seconds = n->seconds;
        fprintf(file, "  %8.3f  %5.1f%%      ", 1e3 * seconds, 100 * n->seconds / total);
        rates(file, n, seconds);
        fprintf(file, "  %-8s  %-24s %s\n", n->phase, n->op, n->inputs);
    }
    free(sorted.nodes);
}

void step_profile_json(const step_profile *p, FILE *file)
{
    int n_kinds;
    double total;
    profile_node *k = kinds(p, &n_kinds, &total);
    fprintf(file, "[");
    for (int i = 0; k && i < n_kinds; i++)
        fprintf(file, "%s{\"phase\":\"%s\",\"op\":\"%s\",\"kernel\":\"%s\",\"nodes\":%" PRId64 ",\"ms\":%.6g,\"share\":%.4f,\"macs\":%" PRId64 ",\"bytes\":%" PRId64 "}",
                i ? "," : "", k[i].phase, k[i].op, k[i].kernel, k[i].runs, 1e3 * k[i].seconds, k[i].seconds / total, k[i].macs, k[i].bytes);
    fprintf(file, "]");
    free(k);
}

void step_profile_free(step_profile *p)
{
    free(p->nodes);
    *p = (step_profile){0};
}
