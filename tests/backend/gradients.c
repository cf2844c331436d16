/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient of every conformance case that has one, in the build with mest_real = double. The case's model is differentiated as training would do
 * it, L = sum of C * y over its float outputs, C random, and run by the reference forwards at the case's own numbers (moved by at most 0.1 %, so that
 * ties and kinks are left); dL along random directions over each float input is compared with (L(x + h) - L(x - h)) / 2h. A kink in between
 * disturbs the quotient in proportion to h, so smaller h are tried before a gradient is called wrong.
 * A case is left out where no float input has an influence that is differentiable: comparisons, ArgMax, shapes, whole numbers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "importers/onnx.h"
#include "runtime/autodiff.h"
#include "runtime/infer.h"
#include "runtime/program.h"
#include "runtime/rng.h"
#include "tests/backend/cases.h"
#include "tests/backend/upgrade.h"

enum { DIRECTIONS = 2, MOST_NODE = 64 };
static const double steps[] = {1e-4, 1e-5, 1e-6, 1e-7}, tolerance = 1e-5, jitter = 1e-3;
static mest_threads threads = {.n = 1};
static int n_inputs, n_first;

typedef struct net {
    mest_graph g;
    uint8_t *wanted;
    void **data;      /* per value */
    size_t *count;
    mest_id *y, *seed;
    int n_y;
} net;

static void net_free(net *n)
{
    for (int i = 0; n->data && i < n->g.n_values; i++)
        free(n->data[i]);
    free(n->data);
    free(n->count);
    free(n->wanted);
    free(n->y);
    free(n->seed);
    mest_graph_free(&n->g);
    memset(n, 0, sizeof *n);
}

/* All uses of the value are differentiable. */
static bool is_operand(const mest_graph *g, mest_id v)
{
    int64_t n;
    if (g->values[v].type.dtype != MEST_F32 || !mest_shape_count(&g->values[v].type.shape, &n) || n == 0)
        return false;
    bool used = false;
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == v) {
                if (!mest_onnx_differentiable(g->nodes[i].op, k))
                    return false;
                used = true;
            }
    return used;
}

/* Initializers are fed like inputs. */
static mest_status feed_params(mest_model *m, mest_graph *g, mest_error *err)
{
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i].kind == MEST_VALUE_PARAM) {
            mest_param *p = &m->params[g->values[i].param];
            MEST_TRY(mest_param_load(m, p, err));
            g->values[i].kind = MEST_VALUE_INPUT;
            g->values[i].data = p->values;
            g->values[i].type = (mest_type){.dtype = MEST_F32, .shape = p->shape};
        }
    return MEST_OK;
}

/* The graph with its first n_free float inputs free, the others constants; types known, outputs y. */
static mest_status net_build(net *n, mest_model *m, const case_data *d, int n_free, mest_error *err)
{
    mest_program_spec spec = {.kind = MEST_PROGRAM_INFER, .batch = 1, .batch_norm = "frozen", .dropout = -1};
    MEST_TRY(mest_graph_copy(&n->g, &m->graph, err));
    mest_graph *g = &n->g;
    for (int i = 0; i < g->n_inputs; i++) {
        case_make_constant(g, i, &d->in[i]);
        if (d->in[i].type.dtype == MEST_F32 && n_free-- > 0)
            g->values[g->inputs[i]].kind = MEST_VALUE_INPUT; /* data stays: it is fed */
    }
    MEST_TRY(feed_params(m, g, err));
    MEST_TRY(mest_graph_sort(g, err));
    MEST_TRY(mest_infer_graph(g, true, (size_t)1 << 28, err));
    MEST_TRY(mest_graph_prune(g, err));
    mest_graph_trim(g, mest_region_alloc(&g->region, (size_t)g->n_values + 1, 1));
    MEST_TRY(mest_passes_run(MEST_PASS_FORM, g, m, &spec, NULL, NULL, NULL, err));
    MEST_TRY(mest_infer_graph(g, true, (size_t)1 << 28, err));
    return mest_graph_prune(g, err); /* what was folded */
}

/* By the first `most` float outputs, -1: all. 1: differentiated; 0: an error; -1: nothing depends on a float input. */
static int net_differentiate(net *n, int most, mest_error *err)
{
    mest_graph *g = &n->g;
    int wanted = 0;
    n->wanted = calloc((size_t)g->n_values + 1, 1);
    n->y = calloc((size_t)g->n_outputs + 1, sizeof *n->y);
    n->seed = calloc((size_t)g->n_outputs + 1, sizeof *n->seed);
    for (mest_id v = 0; v < g->n_values; v++)
        if (g->values[v].kind == MEST_VALUE_INPUT)
            wanted += n->wanted[v] = is_operand(g, v);
    for (int i = 0; i < g->n_outputs; i++) {
        const mest_value *v = &g->values[g->outputs[i]];
        mest_type type = v->type;
        if (v->kind != MEST_VALUE_RESULT || type.dtype != MEST_F32 || n->n_y == most)
            continue;
        n->y[n->n_y] = g->outputs[i];
        n->seed[n->n_y] = mest_graph_value(g, "seed", MEST_VALUE_INPUT, &type);
        n->n_y++;
    }
    n->wanted = realloc(n->wanted, (size_t)g->n_values + 1);
    for (int i = 0; i < n->n_y; i++)
        n->wanted[n->seed[i]] = 0;
    if (!wanted || !n->n_y)
        return -1;
    mest_status s = mest_autodiff_from(g, n->wanted, n->n_y, n->y, n->seed, err);
    return s == MEST_OK ? 1 : strstr(err->msg, "does not depend on") ? -1 : 0;
}

/* Towards zero (or, outwards, away from it), so that nothing leaves a domain; zeros become small and positive. */
static void leave_ties(mest_real *x, size_t n, double size, bool outwards, uint64_t key)
{
    for (size_t i = 0; i < n; i++) {
        double u = mest_rng_uniform(key, 76, i);
        x[i] = x[i] == 0 ? (mest_real)(jitter * size * (0.1 + u)) : x[i] * (mest_real)(outwards ? 1 + jitter * u : 1 - jitter * u);
    }
}

static double size_of(const mest_real *x, size_t n)
{
    double sum = 0, finite = 0;
    for (size_t i = 0; i < n; i++)
        if (isfinite((double)x[i])) {
            sum += (double)(x[i] * x[i]);
            finite++;
        }
    return sum > 0 ? sqrt(sum / finite) : 1e-2;
}

static void net_reserve(net *n)
{
    n->data = calloc((size_t)n->g.n_values + 1, sizeof *n->data);
    n->count = calloc((size_t)n->g.n_values + 1, sizeof *n->count);
    for (mest_id v = 0; v < n->g.n_values; v++) {
        const mest_type *type = &n->g.values[v].type;
        int64_t count = 0;
        if (!mest_shape_count(&type->shape, &count))
            count = 0;
        n->count[v] = (size_t)count;
        n->data[v] = aligned_alloc(64, ((size_t)count * mest_dtype_size(type->dtype) + 128) / 64 * 64);
    }
}

static void net_fill(net *n, bool outwards)
{
    for (mest_id v = 0; v < n->g.n_values; v++) {
        const mest_value *value = &n->g.values[v];
        const size_t bytes = n->count[v] * mest_dtype_size(value->type.dtype);
        memset(n->data[v], 0, bytes + 64);
        if (value->data)
            memcpy(n->data[v], value->data, bytes);
        if (value->kind == MEST_VALUE_INPUT && n->wanted[v])
            leave_ties(n->data[v], n->count[v], size_of(n->data[v], n->count[v]), outwards, (uint64_t)v);
    }
}

static size_t n_finite(const net *n)
{
    size_t sum = 0;
    for (int i = 0; i < n->n_y; i++)
        for (size_t k = 0; k < n->count[n->y[i]]; k++)
            sum += isfinite((double)((const mest_real *)n->data[n->y[i]])[k]) != 0;
    return sum;
}

static mest_tensor tensor(const net *n, mest_id id)
{
    mest_tensor t = {.type = NULL};
    if (id != MEST_NONE)
        t = (mest_tensor){.type = &n->g.values[id].type, .data = n->data[id], .count = n->count[id]};
    return t;
}

static mest_status net_run(const net *n, bool backward, mest_error *err)
{
    const mest_run run = {.seed = 11, .step = 3};
    for (mest_id k = 0; k < n->g.n_nodes; k++) {
        const mest_node *node = &n->g.nodes[k];
        mest_tensor in[MOST_NODE], out[MOST_NODE];
        if (!backward && node->phase != MEST_PHASE_FORWARD)
            continue;
        MEST_CHECK(node->n_in <= MOST_NODE && node->n_out <= MOST_NODE, err, MEST_E_LIMIT, "a node of %d inputs", node->n_in);
        for (int i = 0; i < node->n_in; i++)
            in[i] = tensor(n, node->in[i]);
        for (int i = 0; i < node->n_out; i++)
            out[i] = tensor(n, node->out[i]);
        if (node->op->flags & MEST_OP_VIEW) {
            memcpy(out[0].data, in[0].data, in[0].count * mest_dtype_size(in[0].type->dtype));
            continue;
        }
        MEST_CHECK(node->op->forward, err, MEST_E_INTERNAL, "%s has no reference", node->op->name);
        mest_args a = {.node = node, .params = node->params, .n_in = node->n_in, .n_out = node->n_out, .in = in, .out = out, .threads = &threads, .run = &run, .err = err};
        MEST_TRY(node->op->forward(&a));
    }
    return MEST_OK;
}

static double loss_of(const net *n, double *magnitude)
{
    double sum = 0;
    *magnitude = 0;
    for (int i = 0; i < n->n_y; i++) {
        const mest_real *y = n->data[n->y[i]], *c = n->data[n->seed[i]];
        for (size_t k = 0; k < n->count[n->y[i]]; k++)
            if (c[k] != 0) {
                sum += (double)(c[k] * y[k]);
                *magnitude += fabs((double)(c[k] * y[k]));
            }
    }
    return sum;
}

static double sign(uint64_t key, size_t i) { return mest_rng(key, 77, i) & 1 ? 1 : -1; }

/* One input along one direction. `dx` NULL: the rule says that it has no influence. */
static bool agrees(const net *n, mest_id v, const mest_real *dx, uint64_t key, char *text, size_t size)
{
    /* an element without a finite gradient (the root of a negative number) stays where it is */
#define MOVES(x, i) (isfinite((double)(x)[i]) && (!dx || isfinite((double)dx[i])))
    mest_error err = {0};
    mest_real *x = n->data[v], *x0 = malloc((n->count[v] + 1) * sizeof *x0);
    double analytic = 0, length = 0, best = INFINITY, best_numeric = 0;
    const double scale = size_of(x, n->count[v]);
    bool good = false;
    memcpy(x0, x, n->count[v] * sizeof *x);
    for (size_t i = 0; dx && i < n->count[v]; i++)
        if (MOVES(x, i)) {
            analytic += (double)dx[i] * sign(key, i);
            length += (double)(dx[i] * dx[i]);
        }
    length = sqrt(length);
    for (size_t k = 0; !good && k < sizeof steps / sizeof *steps; k++) {
        const double h = steps[k] * scale;
        double l[2], magnitude[2];
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < n->count[v]; i++)
                x[i] = MOVES(x0, i) ? x0[i] + (mest_real)((side ? -h : h) * sign(key, i)) : x0[i];
            if (net_run(n, false, &err) != MEST_OK) {
                snprintf(text, size, "running: %s", err.msg);
                memcpy(x, x0, n->count[v] * sizeof *x);
                free(x0);
                return false;
            }
            l[side] = loss_of(n, &magnitude[side]);
        }
        const double numeric = (l[0] - l[1]) / (2 * h), noise = 8 * 2.3e-16 * (magnitude[0] + magnitude[1]) / (2 * h);
        const double error = fabs(numeric - analytic), allowed = tolerance * fmax(length, fabs(numeric)) + noise;
        good = error <= allowed;
        if (error < best) {
            best = error;
            best_numeric = numeric;
        }
    }
    memcpy(x, x0, n->count[v] * sizeof *x);
    free(x0);
    if (!good)
        snprintf(text, size, "'%s': %.10g, differences give %.10g (length of the gradient %.3g)", n->g.values[v].name, analytic, best_numeric, length);
    return good;
#undef MOVES
}

static case_result compare(net *n, char *text, size_t size)
{
    mest_error err = {0};
    net_reserve(n);
    net_fill(n, true);
    mest_status s = net_run(n, false, &err);
    const size_t outwards = s == MEST_OK ? n_finite(n) : 0;
    net_fill(n, false);
    s = net_run(n, false, &err);
    if (s == MEST_OK && n_finite(n) < outwards) { /* Acosh ends at 1, from above */
        net_fill(n, true);
        s = net_run(n, false, &err);
    }
    for (int i = 0; i < n->n_y; i++) { /* a masked -inf has no part in L */
        const mest_real *y = n->data[n->y[i]];
        mest_real *c = n->data[n->seed[i]];
        for (size_t k = 0; k < n->count[n->y[i]]; k++)
            c[k] = isfinite((double)y[k]) ? (mest_real)(2 * mest_rng_uniform(5 + (uint64_t)i, 78, k) - 1) : 0;
    }
    if (s == MEST_OK)
        s = net_run(n, true, &err);
    if (s != MEST_OK) {
        snprintf(text, size, "running: %s", err.msg);
        return CASE_FAILED;
    }
    for (mest_id v = 0; v < n->g.n_values; v++) {
        if (n->g.values[v].kind != MEST_VALUE_INPUT || !n->wanted[v])
            continue;
        const mest_id grad = n->g.values[v].grad;
        for (uint64_t k = 0; k < DIRECTIONS; k++)
            if (!agrees(n, v, grad == MEST_NONE ? NULL : n->data[grad], 100 * (uint64_t)v + k, text, size))
                return CASE_FAILED;
        n_inputs++;
    }
    return CASE_GOOD;
}

static case_result check_model(mest_model *m, const case_data *d, char *text, size_t size)
{
    int n_free = 0, made = -1, used = 0;
    net n = {0};
    mest_error err = {0};
    for (int i = 0; i < m->graph.n_inputs; i++)
        n_free += d->in[i].type.dtype == MEST_F32;
    mest_status s = MEST_E_SHAPE;
    for (int free = n_free; free >= 0; free--) { /* sizes, bounds, scales have to be constants; they come after the data */
        mest_error_clear(&err);
        used = free;
        s = net_build(&n, m, d, free, &err);
        if (s == MEST_OK || !strstr(err.msg, "constant"))
            break;
        net_free(&n);
    }
    if (s != MEST_OK) { /* a case that does not even run is the other test's business */
        net constant = {0};
        mest_error own = {0};
        const bool runs = net_build(&constant, m, d, 0, &own) == MEST_OK;
        net_free(&constant);
        if (!runs) {
            net_free(&n);
            return CASE_NOT_APPLICABLE;
        }
    }
    if (s == MEST_OK)
        made = net_differentiate(&n, -1, &err);
    if (made == 0 && n.n_y > 1) { /* statistics beside the result, which training has no use for */
        net_free(&n);
        mest_error_clear(&err);
        s = net_build(&n, m, d, used, &err);
        made = s == MEST_OK ? net_differentiate(&n, 1, &err) : 0;
        n_first += made > 0;
    }
    case_result result = s != MEST_OK || made == 0 ? CASE_FAILED : made < 0 ? CASE_NOT_APPLICABLE : compare(&n, text, size);
    if (s != MEST_OK || made == 0)
        snprintf(text, size, "%s", err.msg);
    net_free(&n);
    return result;
}

static case_result run_case(const char *dir, char *text, size_t size)
{
    char path[1024];
    mest_error err = {0};
    mest_model *m = NULL;
    case_data *d = calloc(1, sizeof *d);
    case_result result = CASE_NOT_APPLICABLE; /* what cannot be loaded is the other test's business */
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    if (mest_model_load(&m, upgrade_model(path, "gradients-opset7.onnx"), NULL, &err) == MEST_OK && !case_read(d, dir) && d->n_in >= m->graph.n_inputs)
        result = check_model(m, d, text, size);
    mest_model_destroy(m);
    case_free(d);
    free(d);
    return result;
}

static void end(void)
{
    remove("gradients-opset7.onnx");
    printf("%d inputs and weights were checked along %d directions each; %d cases: by the first output only, the others have no gradient\n", n_inputs, DIRECTIONS, n_first);
}

int main(int argc, char **argv) { return cases_main(argc, argv, "gradient:", run_case, end); }
