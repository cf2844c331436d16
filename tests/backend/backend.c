/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the ONNX conformance cases through the importer, twice each:
 *   folded    every input is a constant, so constant folding computes the outputs with the reference forwards
 *   program   the first input is fed, the others are constants: layouts, kernels, memory plan, as inference runs
 * Models of opset 1 and 6 are brought to opset 7 first (upgrade.h). The second way is left out where the first input decides a shape, or has no axis to be the batch. Arguments: folder of the suites, list of
 * expected failures, then names of cases to run (default: all). A listed case that passes is a failure of the list. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/cpu.h"
#include "runtime/infer.h"
#include "runtime/program.h"
#include "tests/backend/pb_tensor.h"
#include "tests/backend/upgrade.h"

enum { MAX_VALUES = 64, MAX_CASES = 2048 };
static int n_passed, n_failed, n_skipped, n_programs;
static mest_threads threads = {.n = 1};

typedef struct expectation {
    char name[160], reason[400];
    bool used;
} expectation;
static expectation *expected;
static int n_expected;

typedef struct case_data {
    pb_tensor in[MAX_VALUES], out[MAX_VALUES];
    int n_in, n_out;
} case_data;

static bool exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0;
}

static const char *read_set(const char *dir, const char *kind, pb_tensor *t, int *n)
{
    for (*n = 0; *n < MAX_VALUES; ++*n) {
        char path[1024];
        snprintf(path, sizeof path, "%s/test_data_set_0/%s_%d.pb", dir, kind, *n);
        if (!exists(path))
            return NULL;
        const char *why = pb_tensor_read(&t[*n], path);
        if (why)
            return why;
    }
    return "too many tensors";
}

/* Turns input i of the graph into a constant. The data stays with the case. */
static void make_constant(mest_graph *g, int i, const pb_tensor *t)
{
    mest_value *v = &g->values[g->inputs[i]];
    v->kind = MEST_VALUE_CONST;
    v->type = t->type;
    v->data = t->data;
}

static bool check_outputs(const mest_graph *g, const case_data *d, const mest_program *p, char *text, size_t size)
{
    if (g->n_outputs != d->n_out) {
        snprintf(text, size, "%d outputs, should be %d", g->n_outputs, d->n_out);
        return false;
    }
    for (int i = 0; i < d->n_out; i++) {
        const mest_value *v = &g->values[g->outputs[i]];
        const void *data = v->kind == MEST_VALUE_CONST ? v->data : p ? mest_program_data(p, g->outputs[i]) : NULL;
        char why[256];
        if (!data) {
            snprintf(text, size, "output %d was not computed", i);
            return false;
        }
        if (!pb_tensor_same(&d->out[i], &v->type, data, why, sizeof why)) {
            snprintf(text, size, "output %d: %s", i, why);
            return false;
        }
    }
    return true;
}

/* Everything constant: the folder runs the references. */
static bool run_folded(mest_model *m, const case_data *d, char *text, size_t size)
{
    mest_error err = {0};
    mest_graph g;
    mest_program_spec spec = {.kind = MEST_PROGRAM_INFER, .batch = 1, .batch_norm = "auto", .dropout = -1};
    mest_status s = mest_graph_copy(&g, &m->graph, &err);
    for (int i = 0; s == MEST_OK && i < g.n_inputs; i++)
        make_constant(&g, i, &d->in[i]);
    for (int i = 0; s == MEST_OK && i < g.n_values; i++)
        if (g.values[i].kind == MEST_VALUE_PARAM) {
            mest_param *p = &m->params[g.values[i].param];
            s = mest_param_load(m, p, &err);
            g.values[i].kind = MEST_VALUE_CONST;
            g.values[i].data = p->values;
        }
    if (s == MEST_OK)
        s = mest_graph_sort(&g, &err);
    if (s == MEST_OK)
        s = mest_infer_graph(&g, true, (size_t)1 << 28, &err);
    if (s == MEST_OK)
        s = mest_graph_prune(&g, &err);
    if (s == MEST_OK) { /* outputs nobody reads must not keep Dropout from being lowered */
        mest_graph_trim(&g, mest_region_alloc(&g.region, (size_t)g.n_values + 1, 1));
        s = mest_passes_run(MEST_PASS_FORM, &g, m, &spec, NULL, NULL, &err);
    }
    if (s == MEST_OK)
        s = mest_infer_graph(&g, true, (size_t)1 << 28, &err);
    bool good = s == MEST_OK && check_outputs(&g, d, NULL, text, size);
    if (s != MEST_OK)
        snprintf(text, size, "%s", err.msg);
    mest_graph_free(&g);
    return good;
}

/* The first input is fed to a program. 1 good, 0 failed, -1 not for this case. */
static int run_program(mest_model *m, const case_data *d, char *text, size_t size)
{
    mest_graph *g = &m->graph;
    mest_error err = {0};
    mest_derived *derived = NULL;
    mest_program *p = NULL;
    mest_arena arena = {.heap = &m->heap};
    if (g->n_inputs == 0 || d->in[0].type.shape.rank == 0 || d->in[0].count == 0)
        return -1;
    for (int i = 1; i < g->n_inputs; i++)
        make_constant(g, i, &d->in[i]);
    g->n_inputs = 1;
    g->values[g->inputs[0]].type = d->in[0].type;
    mest_status s = mest_derived_create(&derived, &m->heap, &err);
    mest_program_spec spec = {.kind = MEST_PROGRAM_INFER, .batch = d->in[0].type.shape.dim[0], .batch_norm = "auto", .dropout = -1,
                              .cpu = mest_cpu_features(), .use_xnnpack = true, .threads = &threads, .derived = derived, .arena = &arena};
    if (s == MEST_OK)
        s = mest_program_build(&p, m, &spec, &err);
    int good = 0;
    if (s != MEST_OK) {
        good = strstr(err.msg, "must be a constant") || strstr(err.msg, "must be constant") ? -1 : 0;
    } else {
        mest_run run = {0};
        mest_program_feed(p, p->input, d->in[0].data);
        s = mest_program_run(p, &run, false, &err);
        good = s == MEST_OK && check_outputs(&p->graph, d, p, text, size);
    }
    if (s != MEST_OK)
        snprintf(text, size, "%s", err.msg);
    mest_program_destroy(p);
    mest_arena_free(&arena);
    mest_derived_destroy(derived);
    return good;
}

static bool run_case(const char *dir, char *text, size_t size)
{
    char path[1024], why[700];
    mest_error err = {0};
    mest_model *m = NULL;
    case_data *d = calloc(1, sizeof *d);
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    bool good = false;
    const char *bad = NULL;
    const char *file = upgrade_model(path, "backend-opset7.onnx");
    if (mest_model_load(&m, file, NULL, &err) != MEST_OK) {
        snprintf(text, size, "%s", strncmp(err.msg, path, strlen(path)) ? err.msg : err.msg + strlen(path) + 2);
    } else if ((bad = read_set(dir, "input", d->in, &d->n_in)) || (bad = read_set(dir, "output", d->out, &d->n_out))) {
        snprintf(text, size, "test data: %s", bad);
    } else if (d->n_in < m->graph.n_inputs) {
        snprintf(text, size, "%d input files for %d inputs", d->n_in, m->graph.n_inputs);
    } else if (!run_folded(m, d, why, sizeof why)) {
        snprintf(text, size, "folded: %s", why);
    } else {
        int program = run_program(m, d, why, sizeof why);
        good = program != 0;
        n_programs += program > 0;
        if (!good)
            snprintf(text, size, "program: %s", why);
    }
    mest_model_destroy(m);
    for (int i = 0; i < MAX_VALUES; i++) {
        pb_tensor_free(&d->in[i]);
        pb_tensor_free(&d->out[i]);
    }
    free(d);
    return good;
}

static void read_expected(const char *path)
{
    char line[700];
    FILE *f = fopen(path, "r");
    expected = calloc(MAX_CASES, sizeof *expected);
    while (f && n_expected < MAX_CASES && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *tab = strchr(line, '\t');
        if (line[0] == '#' || !tab)
            continue;
        *tab = 0;
        snprintf(expected[n_expected].name, sizeof expected->name, "%.150s", line);
        snprintf(expected[n_expected++].reason, sizeof expected->reason, "%.390s", tab + 1);
    }
    if (f)
        fclose(f);
}

static expectation *find_expected(const char *name)
{
    for (int i = 0; i < n_expected; i++)
        if (!strcmp(expected[i].name, name))
            return &expected[i];
    return NULL;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void run_suite(const char *root, const char *suite, int n_only, char **only)
{
    char dir[700], *names[MAX_CASES];
    int n = 0;
    snprintf(dir, sizeof dir, "%s/%s", root, suite);
    DIR *list = opendir(dir);
    for (struct dirent *e; list && (e = readdir(list)) && n < MAX_CASES;)
        if (e->d_name[0] != '.')
            names[n++] = strdup(e->d_name);
    if (list)
        closedir(list);
    qsort(names, (size_t)n, sizeof *names, by_name);
    int before = n_passed;
    for (int i = 0; i < n; i++) {
        char path[1024], name[300], text[800] = "";
        bool asked = n_only == 0;
        snprintf(path, sizeof path, "%s/%s/model.onnx", dir, names[i]);
        snprintf(name, sizeof name, "%s/%s", suite, names[i]);
        for (int k = 0; k < n_only; k++)
            asked |= !strcmp(only[k], names[i]) || !strcmp(only[k], name);
        if (asked && exists(path)) {
            expectation *e = find_expected(name);
            path[strlen(path) - strlen("/model.onnx")] = 0;
            bool good = run_case(path, text, sizeof text);
            if (e)
                e->used = true;
            if (good && e) {
                printf("FAILED %s passes, but is listed as an expected failure: %s\n", name, e->reason);
                n_failed++;
            } else if (good) {
                n_passed++;
            } else if (e) {
                n_skipped++;
            } else {
                printf("FAILED %s\t%s\n", name, text);
                n_failed++;
            }
        }
        free(names[i]);
    }
    printf("%s: %d of %d pass\n", suite, n_passed - before, n);
}

int main(int argc, char **argv)
{
    static const char *const suites[] = {"node", "pytorch-converted", "pytorch-operator"};
    if (argc < 3 || !argv[1][0]) {
        printf("skipped: libonnx-testdata is not installed\n0 passed, 0 failed, 1 skipped\n");
        return 77;
    }
    read_expected(argv[2]);
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
        run_suite(argv[1], suites[i], argc - 3, argv + 3);
    for (int i = 0; argc == 3 && i < n_expected; i++)
        if (!expected[i].used) {
            printf("FAILED %s is listed, but there is no such case\n", expected[i].name);
            n_failed++;
        }
    remove("backend-opset7.onnx");
    printf("%d cases ran as programs too; expected failures count as skipped, their reasons are in %s\n", n_programs, argv[2]);
    printf("%d passed, %d failed, %d skipped\n", n_passed, n_failed, n_skipped);
    free(expected);
    return n_failed ? 1 : 0;
}
