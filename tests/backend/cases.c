/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/backend/cases.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_CASES = 2048 };

typedef struct expectation {
    char name[160], reason[400];
    bool used;
} expectation;

typedef struct runner {
    expectation *expected;
    int n_expected;
    int n_passed, n_failed, n_skipped, n_apart;
    case_result (*run)(const char *dir, char *text, size_t size);
} runner;

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

const char *case_read(case_data *d, const char *dir)
{
    memset(d, 0, sizeof *d);
    const char *why = read_set(dir, "input", d->in, &d->n_in);
    return why ? why : read_set(dir, "output", d->out, &d->n_out);
}

void case_free(case_data *d)
{
    for (int i = 0; i < MAX_VALUES; i++) {
        pb_tensor_free(&d->in[i]);
        pb_tensor_free(&d->out[i]);
    }
}

void case_make_constant(mest_graph *g, int i, const pb_tensor *t)
{
    mest_value *v = &g->values[g->inputs[i]];
    v->kind = MEST_VALUE_CONST;
    v->type = t->type;
    v->data = t->data;
}

static void read_expected(runner *r, const char *path, const char *prefix)
{
    char line[700];
    FILE *f = fopen(path, "r");
    const size_t skip = prefix ? strlen(prefix) : 0;
    r->expected = calloc(MAX_CASES, sizeof *r->expected);
    while (f && r->n_expected < MAX_CASES && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *tab = strchr(line, '\t');
        if (line[0] == '#' || !tab)
            continue;
        *tab = 0;
        if (prefix ? strncmp(line, prefix, skip) != 0 : strchr(line, ':') != NULL)
            continue;
        snprintf(r->expected[r->n_expected].name, sizeof r->expected->name, "%.150s", line + skip);
        snprintf(r->expected[r->n_expected++].reason, sizeof r->expected->reason, "%.390s", tab + 1);
    }
    if (f)
        fclose(f);
}

static expectation *find_expected(const runner *r, const char *name)
{
    for (int i = 0; i < r->n_expected; i++)
        if (!strcmp(r->expected[i].name, name))
            return &r->expected[i];
    return NULL;
}

static void run_one(runner *r, const char *dir, const char *name)
{
    char text[800] = "";
    expectation *e = find_expected(r, name);
    case_result result = r->run(dir, text, sizeof text);
    if (e)
        e->used = true;
    if (e && result != CASE_FAILED) {
        printf("FAILED %s passes, but is listed as an expected failure: %s\n", name, e->reason);
        r->n_failed++;
    } else if (result == CASE_GOOD) {
        r->n_passed++;
    } else if (result == CASE_NOT_APPLICABLE) {
        r->n_apart++;
    } else if (e) {
        r->n_skipped++;
    } else {
        printf("FAILED %s\t%s\n", name, text);
        r->n_failed++;
    }
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void run_suite(runner *r, const char *root, const char *suite, int n_only, char **only)
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
    int before = r->n_passed, models = 0;
    for (int i = 0; i < n; i++) {
        char path[1024], name[300];
        bool asked = n_only == 0;
        snprintf(path, sizeof path, "%s/%s/model.onnx", dir, names[i]);
        snprintf(name, sizeof name, "%s/%s", suite, names[i]);
        for (int k = 0; k < n_only; k++)
            asked |= !strcmp(only[k], names[i]) || !strcmp(only[k], name);
        if (asked && exists(path)) {
            path[strlen(path) - strlen("/model.onnx")] = 0;
            models++;
            run_one(r, path, name);
        }
        free(names[i]);
    }
    if (models)
        printf("%s: %d of %d pass\n", suite, r->n_passed - before, models);
}

int cases_main(int argc, char **argv, const char *prefix, case_result (*run)(const char *dir, char *text, size_t size), void (*end)(void))
{
    static const char *const suites[] = {"node", "pytorch-converted", "pytorch-operator", "simple"};
    runner r = {.run = run};
    if (argc < 3 || !argv[1][0]) {
        printf("skipped: libonnx-testdata is not installed\n0 passed, 0 failed, 1 skipped\n");
        return 77;
    }
    read_expected(&r, argv[2], prefix);
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
        run_suite(&r, argv[1], suites[i], argc - 3, argv + 3);
    for (int i = 0; argc == 3 && i < r.n_expected; i++)
        if (!r.expected[i].used) {
            printf("FAILED %s is listed, but there is no such case\n", r.expected[i].name);
            r.n_failed++;
        }
    if (r.n_apart)
        printf("%d cases have nothing to check here\n", r.n_apart);
    if (end)
        end();
    printf("expected failures count as skipped, their reasons are in %s\n%d passed, %d failed, %d skipped\n", argv[2], r.n_passed, r.n_failed, r.n_skipped);
    free(r.expected);
    return r.n_failed ? 1 : 0;
}
