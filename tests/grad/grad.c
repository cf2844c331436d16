/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the gradient rule of every operator against central differences, in the build with mest_real = double.
 *
 * Per case: a graph with the one node and a loss behind it, the driver's autodiff, then all nodes run by their reference forwards, each
 * value in memory of its own. Beside the gradient this checks that one and two threads give the same bits, and that operators marked
 * as in-place may indeed write over the inputs they may (mest_op_over). Arguments: names of operators or cases to run (default: all). */
#include "tests/grad/cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/nn.h"
#include "runtime/autodiff.h"
#include "runtime/infer.h"
#include "runtime/rng.h"

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

static const double STEP = 1e-5;
static int n_passed, n_failed;
static mest_threads one_thread, two_threads;

/* ---- one graph with memory for each value ---- */
typedef struct bench {
    const grad_case *c;
    mest_heap heap;
    mest_graph g;
    mest_id input[GRAD_MAX_IN];
    void **data;          /* per value; constants point into the graph */
    size_t *bytes;
    int n_data;
} bench;

static size_t elements(const mest_type *t)
{
    int64_t n = 0;
    return mest_shape_count(&t->shape, &n) ? (size_t)n : 0;
}

static int failed(const grad_case *c, const char *what, const char *text)
{
    printf("FAILED %s (%s): %s%s%s\n", c->op, c->name, what, text && *text ? ": " : "", text ? text : "");
    return 0;
}

static mest_type input_type(const grad_input *in)
{
    mest_type t = { .dtype = in->dtype ? in->dtype : MEST_F32, .shape = in->shape };
    return t;
}

static void store(mest_dtype dtype, void *to, size_t i, double real, int64_t integer)
{
    switch (dtype) {
    case MEST_F32: ((mest_real *)to)[i] = (mest_real)real; break;
    case MEST_F64: ((double *)to)[i] = real; break;
    case MEST_I64: ((int64_t *)to)[i] = integer; break;
    case MEST_I32: ((int32_t *)to)[i] = (int32_t)integer; break;
    case MEST_BOOL: ((uint8_t *)to)[i] = integer != 0; break;
    default: abort(); /* a case with a type nobody needed so far */
    }
}

/* Numbers depend on the case's operator and name and on the input, not on the order of the tables. */
static void fill(const grad_case *c, int input, void *to)
{
    const grad_input *in = &c->in[input];
    mest_type t = input_type(in);
    size_t n = elements(&t);
    uint64_t key = 14695981039346656037u;
    for (const char *p = c->op; *p; p++)
        key = (key ^ (unsigned char)*p) * 1099511628211u;
    for (const char *p = c->name; *p; p++)
        key = (key ^ (unsigned char)*p) * 1099511628211u;
    double lo = in->lo, hi = in->hi;
    if (lo == 0 && hi == 0) {
        lo = in->fill == GRAD_SIGNED ? 0.1 : -1;
        hi = 1;
    }
    for (size_t i = 0; i < n; i++) {
        double u = mest_rng_uniform(key, (uint64_t)input, i);
        double x = lo + (hi - lo) * u;
        if (in->fill == GRAD_SIGNED && mest_rng(key, (uint64_t)input + 100, i) & 1)
            x = -x;
        if (in->fill == GRAD_DISTINCT) { /* rank of u among all, spread evenly, moved a little */
            size_t rank = 0;
            for (size_t k = 0; k < n; k++)
                rank += mest_rng_uniform(key, (uint64_t)input, k) < u;
            x = 0.03 * ((double)rank - (double)n / 2) + 0.01 * u;
        }
        int64_t integer = (int64_t)x;
        if (in->fill == GRAD_NUMBERS) {
            x = in->reals ? in->reals[i] : 0;
            integer = in->ints ? in->ints[i] : 0;
        }
        store(t.dtype, to, i, x, integer);
    }
}

static void bench_free(bench *b)
{
    for (int i = 0; i < b->n_data; i++)
        free(b->data[i]);
    free(b->data);
    free(b->bytes);
    mest_graph_free(&b->g);
}

static mest_id add_node(mest_graph *g, const char *name, const mest_op *op, const void *params, int n_in, const mest_id *in, int n_out, mest_error *err)
{
    mest_id id = mest_graph_node(g, name, op, params, n_in, in, n_out, NULL);
    return id == MEST_NONE || mest_infer_node(g, id, err) != MEST_OK ? MEST_NONE : id;
}

/* Graph of the case with the loss behind output `output`. 1 good, 0 failed, -1 nothing to do for this output. */
static int bench_make(bench *b, const grad_case *c, int output)
{
    mest_error err = { 0 };
    memset(b, 0, sizeof *b);
    b->c = c;
    if (mest_heap_init(&b->heap, NULL, NULL, &err) != MEST_OK)
        return failed(c, "heap", err.msg);
    mest_graph_init(&b->g, &b->heap);
    const mest_op *op = mest_op_find(strncmp(c->op, "mest.", 5) ? "" : "mest", c->op, c->opset ? c->opset : 1000);
    if (!op)
        return failed(c, "no such operator", NULL);
    for (int i = 0; i < c->n_in; i++) {
        mest_type t = input_type(&c->in[i]);
        char name[32];
        snprintf(name, sizeof name, "in%d", i);
        if (c->in[i].role == GRAD_ABSENT) {
            b->input[i] = MEST_NONE;
        } else if (c->in[i].role == GRAD_CONST) {
            void *numbers = calloc(elements(&t) + 1, 8);
            fill(c, i, numbers);
            b->input[i] = mest_graph_const(&b->g, name, &t, numbers);
            free(numbers);
        } else {
            b->input[i] = mest_graph_value(&b->g, name, MEST_VALUE_INPUT, &t);
        }
    }
    int n_out = c->n_out ? c->n_out : 1;
    mest_id node = add_node(&b->g, "node", op, c->params, c->n_in, b->input, n_out, &err);
    if (node == MEST_NONE)
        return failed(c, "building the node", err.msg);
    mest_id y = b->g.nodes[node].out[output];
    mest_type type = b->g.values[y].type;
    if (c->is_loss) {
        b->g.loss = y;
    } else {
        if (type.dtype != MEST_F32 || c->skip_out >> output & 1u)
            return -1;
        size_t n = elements(&type);
        mest_real *target = calloc(n + 1, sizeof *target);
        for (size_t i = 0; i < n; i++)
            target[i] = (mest_real)(4 * mest_rng_uniform(7, (uint64_t)output, i) - 2);
        mest_id pair[2] = { y, mest_graph_const(&b->g, "target", &type, target) };
        free(target);
        static const mest_loss_params none;
        node = add_node(&b->g, "loss", mest_op_find("mest", "mest.MSELoss", 1), &none, 2, pair, 1, &err);
        if (node == MEST_NONE)
            return failed(c, "building the loss", err.msg);
        b->g.loss = b->g.nodes[node].out[0];
    }
    uint8_t *wanted = calloc((size_t)b->g.n_values, 1);
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].role == GRAD_VAR)
            wanted[b->input[i]] = 1;
    mest_status s = mest_autodiff(&b->g, wanted, &err);
    free(wanted);
    if (s != MEST_OK)
        return failed(c, "autodiff", err.msg);
    b->n_data = b->g.n_values;
    b->data = calloc((size_t)b->n_data, sizeof *b->data);
    b->bytes = calloc((size_t)b->n_data, sizeof *b->bytes);
    for (int i = 0; i < b->n_data; i++) {
        const mest_value *v = &b->g.values[i];
        b->bytes[i] = elements(&v->type) * mest_dtype_size(v->type.dtype);
        b->data[i] = aligned_alloc(64, (b->bytes[i] + 64 + 63) / 64 * 64);
        memset(b->data[i], 0xee, b->bytes[i] + 64);
        if (v->kind == MEST_VALUE_CONST)
            memcpy(b->data[i], v->data, b->bytes[i]);
    }
    return 1;
}

static mest_tensor tensor(const bench *b, mest_id id)
{
    mest_tensor t = { .type = NULL };
    if (id != MEST_NONE) {
        t.type = &b->g.values[id].type;
        t.data = b->data[id];
        t.count = elements(t.type);
    }
    return t;
}

static mest_status call(const bench *b, const mest_node *n, const mest_threads *threads, int over, void *inplace, mest_error *err)
{
    enum { MOST = 16 };
    mest_tensor in[MOST] = { { .data = NULL } }, out[MOST] = { { .data = NULL } };
    mest_run run = { .seed = 11, .step = 3 };
    for (int i = 0; i < n->n_in && i < MOST; i++)
        in[i] = tensor(b, n->in[i]);
    for (int i = 0; i < n->n_out && i < MOST; i++)
        out[i] = tensor(b, n->out[i]);
    if (inplace)
        in[over].data = out[0].data = inplace;
    if (n->op->flags & MEST_OP_VIEW) {
        memmove(out[0].data, in[0].data, b->bytes[n->out[0]]);
        return MEST_OK;
    }
    MEST_CHECK(n->op->forward, err, MEST_E_INTERNAL, "%s has no reference", n->op->name);
    mest_args a = { .node = n, .params = n->params, .n_in = n->n_in, .n_out = n->n_out, .in = in, .out = out, .threads = threads, .run = &run, .err = err };
    return n->op->forward(&a);
}

/* Fills the inputs (element `at` of input `moved` plus `by`) and runs the nodes. NaN on failure. */
static double run(bench *b, bool backward, const mest_threads *threads, int moved, size_t at, double by, mest_error *err)
{
    for (int i = 0; i < b->c->n_in; i++)
        if (b->c->in[i].role == GRAD_VAR || b->c->in[i].role == GRAD_FIXED) {
            fill(b->c, i, b->data[b->input[i]]);
            if (i == moved)
                ((mest_real *)b->data[b->input[i]])[at] += (mest_real)by;
        }
    for (int k = 0; k < b->g.n_nodes; k++) {
        const mest_node *n = &b->g.nodes[k];
        if (!backward && n->phase != MEST_PHASE_FORWARD)
            continue;
        if (call(b, n, threads, 0, NULL, err) != MEST_OK)
            return NAN;
        for (int over = 0; backward && over < n->n_in && over < 32; over++) {
            const mest_id x = n->in[over], y = n->n_out ? n->out[0] : MEST_NONE;
            if (!(mest_op_over(n->op) >> over & 1) || x == MEST_NONE || y == MEST_NONE || n->op->flags & (MEST_OP_VIEW | MEST_OP_SIDE_EFFECT) ||
                b->g.values[x].type.dtype != b->g.values[y].type.dtype || !mest_shape_equal(&b->g.values[x].type.shape, &b->g.values[y].type.shape))
                continue;
            void *copy = aligned_alloc(64, (b->bytes[x] + 64 + 63) / 64 * 64);
            memcpy(copy, b->data[x], b->bytes[x]);
            mest_status s = call(b, n, threads, over, copy, err);
            bool same = s == MEST_OK && !memcmp(copy, b->data[y], b->bytes[y]);
            free(copy);
            if (!same) {
                mest_fail(err, MEST_E_INTERNAL, "%s gives another result when it is written over input %d", n->op->name, over);
                return NAN;
            }
        }
    }
    return (double)*(mest_real *)b->data[b->g.loss];
}

static int compare(bench *b, int output)
{
    const grad_case *c = b->c;
    mest_error err = { 0 };
    char text[160];
    double tolerance = c->tolerance > 0 ? c->tolerance : 1e-7;
    if (!isfinite(run(b, true, &two_threads, -1, 0, 0, &err)))
        return failed(c, "running on two threads", err.msg);
    mest_real *gradient[GRAD_MAX_IN] = { 0 };
    int good = 1;
    for (int i = 0; i < c->n_in; i++) {
        mest_id g = c->in[i].role == GRAD_VAR ? b->g.values[b->input[i]].grad : MEST_NONE;
        if (g == MEST_NONE)
            continue;
        gradient[i] = malloc(b->bytes[g] + 1);
        memcpy(gradient[i], b->data[g], b->bytes[g]);
    }
    if (!isfinite(run(b, true, &one_thread, -1, 0, 0, &err)))
        good = failed(c, "running", err.msg[0] ? err.msg : "the loss is not finite");
    for (int i = 0; good && i < c->n_in; i++) {
        if (c->in[i].role != GRAD_VAR)
            continue;
        const mest_type type = input_type(&c->in[i]);
        if (gradient[i] && memcmp(gradient[i], b->data[b->g.values[b->input[i]].grad], elements(&type) * sizeof(mest_real))) {
            snprintf(text, sizeof text, "input %d, output %d", i, output);
            good = failed(c, "one and two threads give different gradients", text);
        }
        double largest = 0;
        for (size_t k = 0; gradient[i] && k < elements(&type); k++)
            largest = fmax(largest, fabs((double)gradient[i][k]));
        for (size_t k = 0; good && k < elements(&type); k++) {
            double up = run(b, false, &one_thread, i, k, STEP, &err), down = run(b, false, &one_thread, i, k, -STEP, &err);
            double want = (up - down) / (2 * STEP), have = gradient[i] ? (double)gradient[i][k] : 0;
            /* the constant is the noise of the difference itself */
            if (!(fabs(want - have) <= tolerance * fmax(largest, fabs(want)) + 1e-9)) {
                snprintf(text, sizeof text, "output %d, input %d, element %zu: %.10g, differences give %.10g (largest %.3g)", output, i, k, have, want, largest);
                good = failed(c, "gradient", err.msg[0] ? err.msg : text);
            }
        }
    }
    for (int i = 0; i < c->n_in; i++)
        free(gradient[i]);
    return good;
}

static void check_case(const grad_case *c)
{
    int n_out = c->is_loss || !c->n_out ? 1 : c->n_out, checked = 0;
    for (int output = 0; output < n_out; output++) {
        bench b;
        int made = bench_make(&b, c, output), good = made > 0 ? compare(&b, output) : made;
        bench_free(&b);
        checked += good > 0;
        if (good == 0) {
            n_failed++;
            return;
        }
    }
    if (!checked)
        failed(c, "no output to differentiate", NULL);
    n_passed += checked > 0;
    n_failed += checked == 0;
}

static bool asked(int argc, char **argv, const grad_case *c)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], c->op) || !strcmp(argv[i], c->name))
            return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    int n_skipped = 0;
    mest_error err = { 0 };
    one_thread.n = 1;
    if (mest_threads_create(&two_threads, 2, &err) != MEST_OK) {
        printf("threads: %s\n", err.msg);
        return 1;
    }
    for (int t = 0; t < N_TABLES; t++)
        for (const grad_case *c = case_tables[t]; c->name; c++)
            if (asked(argc, argv, c))
                check_case(c);
    for (int i = 0; argc < 2 && mest_op_at(i); i++) {
        const mest_op *op = mest_op_at(i);
        const char *reason = NULL;
        bool covered = !op->vjp;
        for (int t = 0; t < N_TABLES; t++) {
            for (const grad_case *c = case_tables[t]; c->name; c++)
                covered |= !strcmp(c->op, op->name);
            for (const grad_exempt *e = exempt_tables[t]; e->op; e++)
                if (!strcmp(e->op, op->name))
                    reason = e->reason;
        }
        if (covered)
            continue;
        if (reason) {
            printf("skipped %s: %s\n", op->name, reason);
            n_skipped++;
        } else {
            printf("FAILED %s has a gradient but no case\n", op->name);
            n_failed++;
        }
    }
    mest_threads_destroy(&two_threads);
    printf("%d passed, %d failed, %d skipped\n", n_passed, n_failed, n_skipped);
    return n_failed ? 1 : 0;
}
