/* SPDX-License-Identifier: Apache-2.0 */
/* Prints docs/operators.md from the tables of operators and kernels. With a file as argument: compares instead, and names the first line
 * that differs. To refresh the page: op_table > docs/operators.md */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/kernel.h"
#include "tests/docs/training_form.h"

enum { MAX_OPS = 1000, TEXT = 1 << 18 };
static char page[TEXT];
static size_t used;

static void put(const char *text)
{
    size_t n = strlen(text);
    if (used + n < sizeof page)
        memcpy(page + used, text, n + 1);
    used += n;
}

static int by_name(const void *a, const void *b)
{
    const mest_op *x = *(const mest_op *const *)a, *y = *(const mest_op *const *)b;
    int order = strcmp(x->name, y->name);
    return order ? order : x->since - y->since;
}

static const char *gradient(const mest_op *op)
{
    return training_form(op)->vjp || op->composed || !strcmp(op->name, "Identity") ? "yes" : op->no_grad ? "none exists" : "no";
}

/* Names of kernels without their instruction set: conv_nhwc_avx2 and conv_nhwc_scalar are one. */
static void put_kernels(const mest_op *op)
{
    static const char *const sets[] = { "_avx512", "_avx2", "_neon", "_scalar" };
    char names[64][80];
    int n = 0;
    const mest_op *train = training_form(op);
    for (int i = 0; mest_kernel_at(i); i++) {
        const mest_kernel *k = mest_kernel_at(i);
        char name[80];
        bool known = false;
        if (strcmp(k->op, op->name) && strcmp(k->op, train->name))
            continue;
        snprintf(name, sizeof name, "%.79s", k->name);
        for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
            size_t length = strlen(name), tail = strlen(sets[s]);
            if (length > tail && !strcmp(name + length - tail, sets[s]))
                name[length - tail] = 0;
        }
        for (int m = 0; m < n; m++)
            known |= !strcmp(names[m], name);
        if (!known && n < 64)
            memcpy(names[n++], name, sizeof name);
    }
    for (int i = 1; i < n; i++) /* the order of the tables depends on the build */
        for (int m = i; m > 0 && strcmp(names[m - 1], names[m]) > 0; m--) {
            char t[80];
            memcpy(t, names[m], sizeof t);
            memcpy(names[m], names[m - 1], sizeof t);
            memcpy(names[m - 1], t, sizeof t);
        }
    for (int i = 0; i < n; i++) {
        put(i ? ", " : "");
        put(names[i]);
    }
}

static void put_notes(const mest_op *op)
{
    const char *separator = "";
    static const struct { unsigned flag; const char *text; } notes[] = {
        { MEST_OP_VIEW, "moves no data" }, { MEST_OP_INPLACE, "in place" }, { MEST_OP_RANDOM, "random" }, { MEST_OP_TYPE_ONLY, "needs types only" } };
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
        if (op->flags & notes[i].flag) {
            put(separator);
            put(notes[i].text);
            separator = ", ";
        }
    if (!op->forward && strcmp(training_form(op)->name, op->name)) {
        put(separator);
        put("runs as ");
        put(training_form(op)->name);
        separator = ", ";
    }
    if (op->composed) {
        put(separator);
        put("written out in other operators");
        separator = ", ";
    }
    if (op->limits) {
        put(*separator ? "; refused: " : "refused: ");
        put(op->limits);
    }
}

static void put_ops(const mest_op **ops, int n, bool helpers)
{
    char text[200];
    put(helpers ? "| operator | gradient | pixel layout | sparse weight | kernels | notes |\n| --- | --- | --- | --- | --- | --- |\n"
                : "| operator | since opset | gradient | pixel layout | sparse weight | kernels | notes |\n| --- | --- | --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < n; i++) {
        const mest_op *op = ops[i];
        if (is_helper(op) != helpers || (i + 1 < n && !strcmp(op->name, ops[i + 1]->name)))
            continue; /* the newest form stands for all */
        put("| ");
        put(op->name);
        if (!helpers) {
            int first = i;
            while (first > 0 && !strcmp(ops[first - 1]->name, op->name))
                first--;
            put(" |");
            for (int k = first; k <= i; k++) {
                snprintf(text, sizeof text, "%s %d", k > first ? "," : "", ops[k]->since);
                put(text);
            }
        }
        snprintf(text, sizeof text, " | %s | %s | %s | ", helpers && !op->vjp ? "" : gradient(op), op->act_in && op->act_out ? "yes" : "", op->sparse_in ? "yes" : "");
        put(text);
        put_kernels(op);
        put(" | ");
        put_notes(op);
        put(" |\n");
    }
}

int main(int argc, char **argv)
{
    static const mest_op *ops[MAX_OPS];
    char text[300];
    int n = 0, onnx = 0, differentiable = 0;
    while (n < MAX_OPS && mest_op_at(n)) {
        ops[n] = mest_op_at(n);
        n++;
    }
    qsort(ops, (size_t)n, sizeof *ops, by_name);
    for (int i = 0; i < n; i++)
        if (!is_helper(ops[i]) && (i + 1 == n || strcmp(ops[i]->name, ops[i + 1]->name))) {
            onnx++;
            differentiable += !strcmp(gradient(ops[i]), "yes");
        }
    put("# Operators\n\n<!-- generated from the operator table: op_table > docs/operators.md; a test compares -->\n\n");
    snprintf(text, sizeof text, "%d ONNX operators, %d with a gradient.\n\n", onnx, differentiable);
    put(text);
    put("* **since opset**: each form the operator has had here. Older forms of a file (axes as attributes and the like) are brought to the next\n"
        "  newer one on import.\n"
        "* **gradient**: `none exists` - not differentiable by nature, gradients stop there; `no` - a file that needs it is refused before it is trained.\n"
        "* **pixel layout**: may work on values with pixels or batch lanes in front (see docs of the kernels); plain layout always works.\n"
        "* **sparse weight**: the weight may be stored sparse.\n"
        "* **kernels**: fast paths, named without the instruction set; without one (or where none fits) the portable reference runs.\n"
        "* **notes**: how it runs, and which forms are refused, by the node's name and before anything runs. Numbers are float32 (files\n"
        "  in float16, bfloat16 and double are read as such); what shapes depend on (sizes, axes, pads, k) must follow from constants and shapes.\n\n");
    put_ops(ops, n, false);
    put("\n## Helpers\n\nOperators of the runtime itself: gradients, training forms, losses, updates. No file can name them.\n\n");
    put_ops(ops, n, true);
    if (used >= sizeof page) {
        fprintf(stderr, "the page is longer than %d bytes\n", (int)TEXT);
        return 1;
    }
    if (argc < 2) {
        fputs(page, stdout);
        return 0;
    }
    FILE *f = fopen(argv[1], "r");
    static char have[TEXT];
    size_t length = f ? fread(have, 1, sizeof have - 1, f) : 0, line = 1;
    if (f)
        fclose(f);
    if (length == used && !memcmp(have, page, used)) {
        printf("1 passed, 0 failed, 0 skipped\n");
        return 0;
    }
    for (size_t i = 0; i < length && have[i] == page[i]; i++)
        line += have[i] == '\n';
    printf("FAILED %s is not current from line %zu on; refresh it: op_table > docs/operators.md\n0 passed, 1 failed, 0 skipped\n", argv[1], line);
    return 1;
}
