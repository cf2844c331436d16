/* SPDX-License-Identifier: Apache-2.0 */
/* --explain: the planned program, node by node: operator, layouts, kernel and why it was chosen, work; then what the passes did and the
 * memory plan. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "json.h"
#include "report.h"

typedef struct explanation {
    tool *t;
    char last; /* first letter of the phase of the node before; the text itself is lent only for the call */
} explanation;

static void on_node(void *user, const mest_node_info *n)
{
    explanation *x = user;
    if (x->t->s->json) {
        cJSON *event = json_event("node");
        json_number(event, "index", n->index);
        json_text(event, "phase", n->phase);
        json_text(event, "name", n->name);
        json_text(event, "op", n->op);
        json_text(event, "kernel", n->kernel);
        json_text(event, "why", n->why);
        json_text(event, "inputs", n->inputs);
        json_text(event, "outputs", n->outputs);
        json_number(event, "macs", (double)n->macs);
        json_number(event, "bytes", (double)n->bytes);
        (void)json_emit(x->t, event); /* a failure stays in ferror(stdout) */
        return;
    }
    if (n->phase && n->phase[0] != x->last) {
        printf("\n%s\n", n->phase);
        x->last = n->phase[0];
    }
    printf("%4d %-18s %-28s %12" PRId64 " MAC %11" PRId64 " B  %s\n", n->index, n->op, n->kernel ? n->kernel : "-", n->macs, n->bytes,
           report_plain(n->name).s);
    printf("       %s -> %s\n", report_plain(n->inputs).s, report_plain(n->outputs).s);
    if (n->why && *n->why)
        printf("       %s\n", report_plain(n->why).s);
}

static void on_pass(void *user, const mest_pass_info *p)
{
    explanation *x = user;
    if (x->t->s->json) {
        cJSON *event = json_event("pass");
        json_text(event, "name", p->name);
        json_text(event, "phase", p->phase);
        json_text(event, "summary", p->summary);
        json_bool(event, "required", p->required);
        json_bool(event, "off", p->off);
        json_number(event, "count", p->count);
        (void)json_emit(x->t, event);
        return;
    }
    if (x->last != 'P')
        printf("\npasses\n");
    x->last = 'P';
    char count[24];
    snprintf(count, sizeof count, "%d", p->count);
    printf("%4s %-18s %s\n", p->off ? "off" : count, p->name, p->summary);
}

static void print_plan(const tool *t, const mest_plan_info *plan)
{
    char arena[32], parameters[32], optimizer[32], total[32];
    report_bytes(arena, sizeof arena, plan->arena_bytes);
    report_bytes(parameters, sizeof parameters, plan->parameter_bytes);
    report_bytes(optimizer, sizeof optimizer, plan->optimizer_bytes);
    report_bytes(total, sizeof total, plan->total_bytes);
    printf("\ngraph       %d nodes in the file, %d once shapes are known, %d after the passes (forward, views not counted)\n", plan->n_file_nodes, plan->n_folded_nodes,
           plan->n_fused_nodes);
    printf("plan        %d nodes, %d of them conversions of layout; batch %" PRId64 "\n", plan->n_nodes, plan->n_conversions, t->config.batch);
    printf("work        %.3f M multiply-accumulates a run, %.3f M a sample\n", (double)plan->macs / 1e6,
           (double)plan->macs / 1e6 / (double)t->config.batch);
    printf("kernels     %016" PRIx64 ", %" PRId64 " layers by measurement\n", plan->kernels, plan->n_measured);
    printf("memory      %s: activations and gradients %s, parameters %s, optimizer %s\n", total, arena, parameters, optimizer);
}

/* Which scheme `auto` gave each weight, and why. */
static void print_schemes(explanation *x)
{
    for (int i = 0; i < mest_model_parameter_count(x->t->model); i++) {
        mest_tensor_info info = {.struct_size = sizeof info};
        if (mest_model_parameter(x->t->model, i, &info, NULL) != MEST_OK || !info.scheme_reason)
            continue;
        if (x->t->s->json) {
            cJSON *event = json_event("scheme");
            json_text(event, "name", info.name);
            json_text(event, "scheme", info.scheme);
            json_text(event, "why", info.scheme_reason);
            (void)json_emit(x->t, event);
            continue;
        }
        if (x->last != 'S')
            printf("\nschemes\n");
        x->last = 'S';
        printf("     %-30s %s\n", report_plain(info.name).s, report_plain(info.scheme_reason).s);
    }
}

int cmd_explain(tool *t)
{
    const settings *s = t->s;
    mest_plan_info plan = {.struct_size = sizeof plan};
    mest_error err = {0};
    explanation x = {.t = t};
    mest_program_kind kind = strcmp(s->program, "train") == 0 ? MEST_PROGRAM_TRAIN
                             : strcmp(s->program, "eval") == 0 ? MEST_PROGRAM_EVAL : MEST_PROGRAM_INFER;
    int code = tool_load_model(t);
    if (code == 0 && s->data) /* only for what the samples look like */
        code = tool_open_sources(t, false);
    if (code == 0 && s->data)
        code = tool_check_sources(t, kind != MEST_PROGRAM_INFER);
    if (code == 0)
        code = tool_sparsify(t);
    if (code == 0)
        code = tool_create_session(t);
    if (code == 0 && kind == MEST_PROGRAM_TRAIN)
        code = tool_add_schedulers(t); /* they may reserve room for growth */
    if (code)
        return code;
    if (s->mode_word)
        return explain_memory(t, kind);
    if (mest_session_explain(t->session, kind, t->config.batch, on_node, &x, &plan, &err) != MEST_OK)
        return tool_fail(t, STAGE_PREPARE, &err);
    if (mest_session_passes(t->session, kind, t->config.batch, on_pass, &x, &err) != MEST_OK)
        return tool_fail(t, STAGE_PREPARE, &err);
    print_schemes(&x);
    if (s->json) {
        cJSON *event = json_event("plan");
        json_text(event, "program", s->program);
        json_number(event, "batch", (double)t->config.batch);
        json_number(event, "nodes", plan.n_nodes);
        json_number(event, "conversions", plan.n_conversions);
        json_number(event, "file_nodes", plan.n_file_nodes);
        json_number(event, "folded_nodes", plan.n_folded_nodes);
        json_number(event, "fused_nodes", plan.n_fused_nodes);
        json_plan(event, &plan);
        (void)json_emit(t, event);
    } else {
        print_plan(t, &plan);
    }
    return report_finish(t);
}
