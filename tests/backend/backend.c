/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the ONNX conformance cases through the importer, twice each:
 *   folded    every input is a constant, so constant folding computes the outputs with the reference forwards
 *   program   the first input is fed, the others are constants: layouts, kernels, memory plan, as inference runs
 * Models of opset 1 and 6 are brought to opset 7 first (upgrade.h). The second way is left out where the first input decides a shape, or has no axis
 * to be the batch. Cases of the training domain run our own optimizers (optimizers.h). Arguments: see cases.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpu.h"
#include "runtime/infer.h"
#include "runtime/program.h"
#include "tests/backend/cases.h"
#include "tests/backend/optimizers.h"
#include "tests/backend/upgrade.h"

static int n_programs;
static mest_threads threads = {.n = 1};

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
        case_make_constant(&g, i, &d->in[i]);
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
        s = mest_passes_run(MEST_PASS_FORM, &g, m, &spec, NULL, NULL, NULL, &err);
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
        case_make_constant(g, i, &d->in[i]);
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

static case_result run_case(const char *dir, char *text, size_t size)
{
    char path[1024], why[700];
    mest_error err = {0};
    mest_model *m = NULL;
    const int optimizer = run_optimizer_case(dir, text, size);
    if (optimizer >= 0)
        return optimizer ? CASE_GOOD : CASE_FAILED;
    case_data *d = calloc(1, sizeof *d);
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    bool good = false;
    const char *bad = NULL;
    const char *file = upgrade_model(path, "backend-opset7.onnx");
    if (mest_model_load(&m, file, NULL, &err) != MEST_OK) {
        snprintf(text, size, "%s", strncmp(err.msg, path, strlen(path)) ? err.msg : err.msg + strlen(path) + 2);
    } else if ((bad = case_read(d, dir)) != NULL) {
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
    case_free(d);
    free(d);
    return good ? CASE_GOOD : CASE_FAILED;
}

static void end(void)
{
    remove("backend-opset7.onnx");
    printf("%d cases ran as programs too\n", n_programs);
}

int main(int argc, char **argv) { return cases_main(argc, argv, NULL, run_case, end); }
