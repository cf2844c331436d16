/* SPDX-License-Identifier: Apache-2.0 */
/* --check: does the model train here? A line for each node of the file, a table of operators, findings, memory and work of a step, verdict.
 * Also for models that no other mode would load. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "json.h"
#include "report.h"

typedef struct op_row {
    char name[96]; /* with the domain in front */
    int n, no_forward, no_gradient;
    int64_t forward_macs, backward_macs;
} op_row;

typedef struct checking {
    tool *t;
    op_row *rows;
    int n_rows, cap_rows;
    bool found;  /* a finding has been printed */
    bool failed; /* no memory for a row */
} checking;

static const char *gradient_word(mest_check_gradient g)
{
    switch (g) {
    case MEST_GRADIENT_UNNEEDED: return "-";
    case MEST_GRADIENT_YES: return "yes";
    case MEST_GRADIENT_NO: return "NO";
    case MEST_GRADIENT_ENDS: return "ends";
    case MEST_GRADIENT_UNKNOWN: return "?";
    }
    return "?";
}

static const char *gradient_json(mest_check_gradient g)
{
    static const char *const words[] = {"unneeded", "yes", "no", "ends", "unknown"};
    return (unsigned)g < sizeof words / sizeof *words ? words[g] : "unknown";
}

static void count_op(checking *c, const char *name, const mest_check_node *n)
{
    int i = 0;
    while (i < c->n_rows && strcmp(c->rows[i].name, name) != 0)
        i++;
    if (i == c->n_rows) {
        if (c->n_rows == c->cap_rows) {
            int cap = c->cap_rows ? 2 * c->cap_rows : 32;
            op_row *rows = realloc(c->rows, (size_t)cap * sizeof *rows);
            if (!rows) {
                c->failed = true;
                return;
            }
            c->rows = rows;
            c->cap_rows = cap;
        }
        c->rows[c->n_rows] = (op_row){.n = 0};
        snprintf(c->rows[c->n_rows++].name, sizeof c->rows->name, "%s", name);
    }
    op_row *r = &c->rows[i];
    r->n++;
    r->no_forward += !n->forward;
    r->no_gradient += n->gradient == MEST_GRADIENT_NO;
    r->forward_macs += n->forward_macs;
    r->backward_macs += n->backward_macs;
}

static void on_node(void *user, const mest_check_node *n)
{
    checking *c = user;
    char name[96], number[16] = "";
    snprintf(name, sizeof name, "%s%s%s", n->domain, *n->domain ? "." : "", n->op);
    count_op(c, name, n);
    if (c->t->s->json) {
        cJSON *event = json_event("check_node");
        if (n->index >= 0)
            json_number(event, "index", n->index);
        json_text(event, "name", n->name);
        json_text(event, "op", n->op);
        json_text(event, "domain", n->domain);
        json_number(event, "opset", (double)n->opset);
        json_bool(event, "forward", n->forward);
        json_text(event, "gradient", gradient_json(n->gradient));
        json_text(event, "kernel", n->kernel);
        json_text(event, "backward", n->backward);
        json_text(event, "why", n->why);
        json_text(event, "change", n->change);
        json_text(event, "inputs", n->inputs);
        json_text(event, "outputs", n->outputs);
        json_number(event, "forward_macs", (double)n->forward_macs);
        json_number(event, "backward_macs", (double)n->backward_macs);
        json_number(event, "bytes", (double)n->bytes);
        (void)json_emit(c->t, event); /* a failure stays in ferror(stdout) */
        return;
    }
    if (c->n_rows == 1 && c->rows[0].n == 1)
        printf("\n%4s %-20s %-7s %-8s %-24s %-24s %s\n", "node", "operator", "forward", "gradient", "kernel", "of the gradient", "name: why");
    if (n->index >= 0)
        snprintf(number, sizeof number, "%d", n->index);
    printf("%4s %-20s %-7s %-8s %-24s %-24s %s", number, report_plain(name).s, n->forward ? "yes" : "NO", gradient_word(n->gradient),
           n->kernel ? n->kernel : "-", n->backward ? n->backward : "-", report_plain(n->name).s);
    printf("%s%s\n", n->why ? ": " : "", report_plain(n->why).s);
    if (n->change)
        printf("       -> %s\n", report_plain(n->change).s);
}

static void on_finding(void *user, const mest_check_finding *f)
{
    static const char *const levels[] = {"note", "warning", "error"};
    checking *c = user;
    if (c->t->s->json) {
        cJSON *event = json_event("finding");
        json_text(event, "level", levels[f->level]);
        json_text(event, "text", f->text);
        json_text(event, "change", f->change);
        (void)json_emit(c->t, event);
        return;
    }
    printf("%s%-11s %s\n", c->found ? "" : "\n", levels[f->level], report_plain(f->text).s);
    c->found = true;
    if (f->change)
        printf("            -> %s\n", report_plain(f->change).s);
}

static void report_ops(checking *c)
{
    if (!c->t->s->json && c->n_rows)
        printf("\n%-24s %6s %10s %11s %16s %16s\n", "operator", "nodes", "no forward", "no gradient", "forward MAC", "gradient MAC");
    for (int i = 0; i < c->n_rows; i++) {
        const op_row *r = &c->rows[i];
        if (c->t->s->json) {
            cJSON *event = json_event("check_op");
            json_text(event, "op", r->name);
            json_number(event, "nodes", r->n);
            json_number(event, "no_forward", r->no_forward);
            json_number(event, "no_gradient", r->no_gradient);
            json_number(event, "forward_macs", (double)r->forward_macs);
            json_number(event, "backward_macs", (double)r->backward_macs);
            (void)json_emit(c->t, event);
        } else {
            printf("%-24s %6d %10d %11d %16" PRId64 " %16" PRId64 "\n", report_plain(r->name).s, r->n, r->no_forward, r->no_gradient, r->forward_macs,
                   r->backward_macs);
        }
    }
}

static void report_verdict(const checking *c, const mest_check_summary *v)
{
    const settings *s = c->t->s;
    if (s->json) {
        cJSON *event = json_event("check");
        json_bool(event, "trains", v->trains);
        json_number(event, "nodes", v->n_nodes);
        json_number(event, "no_forward", v->n_no_forward);
        json_number(event, "no_gradient", v->n_no_gradient);
        json_number(event, "errors", v->n_errors);
        json_number(event, "warnings", v->n_warnings);
        json_number(event, "trainable", v->n_trainable);
        json_number(event, "without_gradient", v->n_without_gradient);
        json_number(event, "batch", (double)c->t->config.batch);
        json_bool(event, "planned", v->planned);
        if (v->planned) {
            json_plan(event, &v->plan);
        }
        (void)json_emit(c->t, event);
        return;
    }
    if (v->planned) {
        char arena[32], parameters[32], optimizer[32], total[32];
        report_bytes(arena, sizeof arena, v->plan.arena_bytes);
        report_bytes(parameters, sizeof parameters, v->plan.parameter_bytes);
        report_bytes(optimizer, sizeof optimizer, v->plan.optimizer_bytes);
        report_bytes(total, sizeof total, v->plan.total_bytes);
        printf("\nwork        %.3f M multiply-accumulates a step of %" PRId64 " samples, %.3f M a sample\n", (double)v->plan.macs / 1e6, c->t->config.batch,
               (double)v->plan.macs / 1e6 / (double)c->t->config.batch);
        printf("memory      %s: activations and gradients %s, parameters %s, optimizer %s\n", total, arena, parameters, optimizer);
    }
    printf("\nverdict     %s: %d nodes, %d cannot run, %d lack a gradient; %d parameters train, %d of them get no gradient; %d errors, %d warnings\n",
           v->trains ? "it trains" : "it does NOT train", v->n_nodes, v->n_no_forward, v->n_no_gradient, v->n_trainable, v->n_without_gradient, v->n_errors,
           v->n_warnings);
}

/* What one sample looks like: by --data, by --input-shape, or as the model says. */
static int expect_samples(tool *t)
{
    mest_error err = {0};
    mest_source_info info = {.struct_size = sizeof info, .input_type = MEST_SAMPLE_F32, .input_rank = t->s->input_shape.n};
    if (t->s->data)
        info = t->data_info;
    else if (t->s->input_shape.n == 0)
        return 0;
    else
        for (int i = 0; i < info.input_rank && i < MEST_SAMPLE_MAX_RANK; i++)
            info.input_dim[i] = t->s->input_shape.v[i];
    if (!t->s->data && info.input_rank > MEST_SAMPLE_MAX_RANK)
        return tool_refuse(t, EXIT_USAGE, "--input-shape: at most %d sizes", MEST_SAMPLE_MAX_RANK);
    mest_tensor_info in = {.struct_size = sizeof in};
    if (!t->s->data && mest_model_input_count(t->model) > 0 && mest_model_input(t->model, 0, &in, NULL) == MEST_OK && in.dtype != 1)
        info.input_type = MEST_SAMPLE_I64;
    if (mest_session_expect(t->session, &info, &err) != MEST_OK)
        return tool_fail(t, STAGE_DATA, &err);
    return 0;
}

int cmd_check(tool *t)
{
    checking c = {.t = t};
    mest_check_options options;
    mest_check_summary verdict = {.struct_size = sizeof verdict};
    mest_error err = {0};
    int code = tool_load_model(t);
    if (code == 0 && t->s->data)
        code = tool_open_sources(t, false);
    if (code == 0 && t->s->data)
        code = tool_check_sources(t, true);
    if (code == 0)
        code = tool_sparsify(t);
    if (code == 0)
        code = tool_create_session(t);
    if (code == 0)
        code = tool_add_schedulers(t); /* they may reserve room for growth */
    if (code == 0)
        code = expect_samples(t);
    if (code)
        return code;
    mest_check_options_init(&options);
    options.node = on_node;
    options.finding = on_finding;
    options.user = &c;
    if (mest_session_check(t->session, &options, &verdict, &err) != MEST_OK) {
        code = tool_fail(t, STAGE_PREPARE, &err);
    } else if (c.failed) {
        code = tool_refuse(t, EXIT_LIMIT, "out of memory");
    } else {
        report_ops(&c);
        report_verdict(&c, &verdict);
        code = report_finish(t);
    }
    free(c.rows);
    return code ? code : verdict.trains ? EXIT_DONE : EXIT_MODEL;
}
