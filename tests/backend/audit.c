/* SPDX-License-Identifier: Apache-2.0 */
/* Is every operator of the table accounted for? Asked of each: a row of docs/operators.md; a gradient case (tests/grad), or why there is none; for those
 * that files can name, a model that has it and is checked: a conformance case that is not in the list of failures, or a fixture.
 *
 *   test_audit operators.md FIXTURES SUITES expected-failures.txt [SUITES expected-failures.txt ...]
 *
 * SUITES are folders of cases (cases.h), one may be "" (not installed); every .onnx file below FIXTURES counts. Prints what is missing, and with
 * AUDIT_TABLE in the environment a line for each operator. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "onnx.pb-c.h"
#include "tests/docs/training_form.h"
#include "tests/grad/cases.h"

enum { MAX_OPS = 1000, MAX_BYTES = 1 << 20, FIXTURE = 0, CASE = 1 };
static const grad_case *const case_tables[] = {
#define GRAD_CASES(author) grad_cases_##author,
#include "tests/grad/cases.def"
#undef GRAD_CASES
};
static const grad_exempt *const exempt_tables[] = {
#define GRAD_CASES(author) grad_exempt_##author,
#include "tests/grad/cases.def"
#undef GRAD_CASES
};
enum { N_TABLES = sizeof case_tables / sizeof *case_tables };

/* Operators whose results no file can hold. */
static const struct { const char *op, *reason; } no_case[] = {
    {"Bernoulli", "tests/ops/test_draw.c"}, {"RandomNormal", "tests/ops/test_draw.c"}, {"RandomNormalLike", "tests/ops/test_draw.c"},
    {"RandomUniform", "tests/ops/test_draw.c"}, {"RandomUniformLike", "tests/ops/test_draw.c"},
};

static int seen[2][MAX_OPS], n_files[2], n_missing; /* models that have the operator, by its first line of the table */

static char *whole(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    char *bytes = malloc(MAX_BYTES + 1);
    *size = f ? fread(bytes, 1, MAX_BYTES, f) : 0;
    bytes[*size] = 0;
    if (f)
        fclose(f);
    return bytes;
}

static int line_of(const char *name)
{
    for (int i = 0; mest_op_at(i); i++)
        if (!is_helper(mest_op_at(i)) && !strcmp(mest_op_at(i)->name, name))
            return i;
    return -1;
}

/* ---- operators of a model, of its functions and of graphs within ---- */
static void mark_graph(const Onnx__GraphProto *g, bool *has);

static void mark(Onnx__NodeProto *const *node, size_t n, bool *has)
{
    for (size_t i = 0; i < n; i++) {
        const bool standard = !node[i]->domain || !node[i]->domain[0] || !strcmp(node[i]->domain, "ai.onnx");
        const int at = standard && node[i]->op_type ? line_of(node[i]->op_type) : -1;
        if (at >= 0)
            has[at] = true;
        for (size_t k = 0; k < node[i]->n_attribute; k++)
            if (node[i]->attribute[k]->g)
                mark_graph(node[i]->attribute[k]->g, has);
    }
}

static void mark_graph(const Onnx__GraphProto *g, bool *has) { mark(g->node, g->n_node, has); }

static void count_model(const char *path, int kind)
{
    size_t size;
    bool has[MAX_OPS] = {false};
    char *bytes = whole(path, &size);
    Onnx__ModelProto *m = size < MAX_BYTES ? onnx__model_proto__unpack(NULL, size, (uint8_t *)bytes) : NULL;
    if (m && m->graph) {
        mark_graph(m->graph, has);
        for (size_t i = 0; i < m->n_functions; i++)
            mark(m->functions[i]->node, m->functions[i]->n_node, has);
        n_files[kind]++;
        for (int i = 0; i < MAX_OPS; i++)
            seen[kind][i] += has[i];
    }
    if (m)
        onnx__model_proto__free_unpacked(m, NULL);
    free(bytes);
}

/* ---- files ---- */

/* `failures`: text of the list whose cases do not count; names in it are relative to the folder the walk began in. */
static void walk(const char *folder, const char *name, int kind, const char *failures)
{
    char path[1024], line[1024];
    struct stat st;
    snprintf(path, sizeof path, "%s%s%s", folder, *name ? "/" : "", name);
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        char below[700], file[2048];
        const size_t length = strlen(e->d_name);
        if (e->d_name[0] == '.')
            continue;
        snprintf(below, sizeof below, "%s%s%.250s", name, *name ? "/" : "", e->d_name);
        snprintf(file, sizeof file, "%s/%s", folder, below);
        if (stat(file, &st) == 0 && S_ISDIR(st.st_mode)) {
            walk(folder, below, kind, failures);
        } else if (length > 5 && !strcmp(e->d_name + length - 5, ".onnx")) {
            snprintf(line, sizeof line, "\n%s\t", name);
            if (!failures || !strstr(failures, line))
                count_model(file, kind);
        }
    }
    closedir(d);
}

/* ---- gradients ---- */

static int gradient_cases(const char *name, const char **reason)
{
    int n = 0;
    for (int t = 0; t < N_TABLES; t++) {
        for (const grad_case *c = case_tables[t]; c->name; c++)
            n += !strcmp(c->op, name);
        for (const grad_exempt *e = exempt_tables[t]; e->op; e++)
            if (!strcmp(e->op, name))
                *reason = e->reason;
    }
    return n;
}

/* Why there is no case; NULL: there is no reason either. */
static const char *reason_of(const mest_op *op)
{
    const mest_op *train = training_form(op);
    const char *reason = NULL;
    static char text[100];
    const int n = gradient_cases(train->name, &reason);
    if (n > 0)
        snprintf(text, sizeof text, "%d case%s%s%s", n, n > 1 ? "s" : "", train == op ? "" : " of ", train == op ? "" : train->name);
    if (n > 0 || reason)
        return reason ? reason : text;
    if (train->vjp)
        return NULL;
    if (op->no_grad)
        return "not differentiable by nature";
    if (op->composed)
        return "that of the operators it is written out in";
    if (!strcmp(op->name, "Identity"))
        return "removed";
    return is_helper(op) ? "made by lowering and by gradients, never differentiated" : op->limits;
}

static bool has_no_case(const char *name)
{
    for (size_t i = 0; i < sizeof no_case / sizeof *no_case; i++)
        if (!strcmp(no_case[i].op, name))
            return true;
    return false;
}

static void missing(const mest_op *op, const char *what)
{
    printf("MISSING %s: %s\n", op->name, what);
    n_missing++;
}

int main(int argc, char **argv)
{
    bool complete = true;
    size_t size;
    if (argc < 5) {
        fprintf(stderr, "test_audit operators.md FIXTURES SUITES expected-failures.txt ...\n");
        return 2;
    }
    char *page = whole(argv[1], &size);
    walk(argv[2], "", FIXTURE, NULL);
    for (int i = 3; i + 1 < argc; i += 2) {
        char *failures = whole(argv[i + 1], &size);
        complete &= argv[i][0] != 0;
        if (argv[i][0])
            walk(argv[i], "", CASE, failures);
        free(failures);
    }
    int n_ops = 0;
    for (int i = 0; mest_op_at(i); i++) {
        const mest_op *op = mest_op_at(i);
        char row[100];
        const int first = is_helper(op) ? -1 : line_of(op->name);
        const char *reason = reason_of(op);
        snprintf(row, sizeof row, "\n| %.80s |", op->name);
        n_ops++;
        if (!strstr(page, row))
            missing(op, "no row in docs/operators.md");
        if (!reason)
            missing(op, "no gradient case and no reason");
        const int models = first < 0 ? 0 : seen[CASE][first] + seen[FIXTURE][first];
        if (first == i && complete && models == 0 && !has_no_case(op->name))
            missing(op, "no conformance case that passes and no fixture has it");
        if (models > 0 && has_no_case(op->name))
            missing(op, "has a case now: it must leave the list of those that have none");
        if (getenv("AUDIT_TABLE") && (first == i || first < 0))
            printf("%s\t%d\t%d\t%s\n", op->name, first < 0 ? 0 : seen[CASE][first], first < 0 ? 0 : seen[FIXTURE][first], reason ? reason : "-");
    }
    free(page);
    printf("%d lines of the table, %d cases, %d fixtures%s: %d missing\n", n_ops, n_files[CASE], n_files[FIXTURE], complete ? "" : " (a suite is not installed)", n_missing);
    return n_missing != 0 || n_files[FIXTURE] == 0;
}
