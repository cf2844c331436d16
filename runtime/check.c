/* SPDX-License-Identifier: Apache-2.0 */
/* mest_session_check: the training program is built with a survey, and what became of every node of the file is read off it. */
#include "mest/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/session.h"
#include "runtime/strmap.h"
#include "runtime/survey.h"

void mest_check_options_init(mest_check_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
}

typedef struct planned { /* a node of the program */
    const char *kernel, *why, *inputs, *outputs;
    int64_t macs, bytes;
} planned;

enum { MOST_ADVICES = 64 }; /* that name what to freeze: each looks at the whole graph */

typedef struct check {
    mest_session *s;
    mest_model *m;
    const mest_check_options *o;
    mest_check_summary *sum;
    mest_survey survey;
    mest_region *region;   /* the survey's: everything reported lives there */
    mest_program *p;       /* NULL: could not be planned */
    planned *node;         /* per node of the program */
    mest_id *forward_of;   /* per node of the model: forward node of the program, or MEST_NONE */
    mest_id *first_of;     /* per node of the model: first node of the program that comes of it, forward or backward, or MEST_NONE */
    mest_id *next_of;      /* per node of the program: the next one that comes of the same */
    mest_id *reader;       /* per value of the model: the first node that reads it, or MEST_NONE */
    uint8_t *before;       /* per value of the model: for freeze_advice */
    int n_advices;
    uint8_t *learns;       /* per value of the model: a trainable parameter is before it */
    uint8_t *reaches;      /* per value of the model: the output of the loss depends on it, through nodes that have a gradient */
    uint8_t *used;         /* per value of the model: the output of the loss depends on it */
    int64_t total_bytes;   /* held by the session with the program planned */
    bool complete;         /* nothing was left out of the plan: what is not there is known */
    bool failed;           /* out of memory while reporting */
    mest_error *err;
} check;

static mest_status out_of_memory(check *c) { return mest_fail(c->err, MEST_E_NOMEM, "check: out of memory"); }

static void find(check *c, mest_check_level level, const char *text, const char *change)
{
    c->sum->n_errors += level == MEST_CHECK_ERROR;
    c->sum->n_warnings += level == MEST_CHECK_WARNING;
    mest_check_finding f = {.struct_size = sizeof f, .level = level, .text = text, .change = change};
    c->failed |= !text;
    if (c->o->finding && text)
        c->o->finding(c->o->user, &f);
}

/* ---- what the graph of the model says without a plan ---- */
static mest_status analyse(check *c)
{
    const mest_graph *g = &c->m->graph;
    size_t n = (size_t)g->n_values + 1;
    c->learns = mest_region_alloc(c->region, n, 1);
    c->reaches = mest_region_alloc(c->region, n, 1);
    c->used = mest_region_alloc(c->region, n, 1);
    c->before = mest_region_alloc(c->region, n, 1);
    c->reader = mest_region_alloc(c->region, n, sizeof *c->reader);
    if (!c->learns || !c->reaches || !c->used || !c->before || !c->reader)
        return out_of_memory(c);
    for (size_t i = 0; i < n; i++)
        c->reader[i] = MEST_NONE;
    for (mest_id i = g->n_nodes - 1; i >= 0; i--)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] != MEST_NONE)
                c->reader[g->nodes[i].in[k]] = i;
    for (int i = 0; i < g->n_values; i++)
        c->learns[i] = g->values[i].kind == MEST_VALUE_PARAM && c->m->params[g->values[i].param].role == MEST_ROLE_TRAINABLE;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *nd = &g->nodes[i];
        bool any = false;
        for (int k = 0; k < nd->n_in; k++)
            any |= nd->in[k] != MEST_NONE && c->learns[nd->in[k]];
        for (int k = 0; k < nd->n_out && !nd->op->no_grad; k++)
            if (nd->out[k] != MEST_NONE)
                c->learns[nd->out[k]] |= any;
    }
    mest_id output = mest_session_chosen_output(c->s);
    if (output != MEST_NONE)
        c->used[output] = c->reaches[output] = 1;
    for (mest_id i = g->n_nodes - 1; i >= 0; i--) {
        const mest_node *nd = &g->nodes[i];
        bool used = false, reaches = false;
        for (int k = 0; k < nd->n_out; k++)
            if (nd->out[k] != MEST_NONE) {
                used |= c->used[nd->out[k]];
                reaches |= c->reaches[nd->out[k]];
            }
        for (int k = 0; k < nd->n_in; k++)
            if (nd->in[k] != MEST_NONE) {
                c->used[nd->in[k]] |= used;
                c->reaches[nd->in[k]] |= reaches && !nd->op->no_grad;
            }
    }
    return MEST_OK;
}

static bool any_in(const uint8_t *flags, const mest_node *n)
{
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] != MEST_NONE && flags[n->in[k]])
            return true;
    return false;
}

static bool any_out(const uint8_t *flags, const mest_node *n)
{
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k] != MEST_NONE && flags[n->out[k]])
            return true;
    return false;
}

/* ---- the plan ---- */
static void keep_node(void *user, const mest_node_info *info)
{
    check *c = user;
    planned *p = &c->node[info->index];
    *p = (planned){.kernel = info->kernel, .why = info->why, .macs = info->macs, .bytes = info->bytes}; /* both texts are static */
    p->inputs = mest_region_strdup(c->region, info->inputs);
    p->outputs = mest_region_strdup(c->region, info->outputs);
    c->failed |= !p->inputs || !p->outputs;
}

static mest_status build(check *c, int64_t batch)
{
    mest_session *s = c->s;
    const mest_model *m = c->m;
    MEST_TRY(mest_survey_init(&c->survey, s->heap, m->graph.n_nodes, batch, c->err));
    c->region = &c->survey.region;
    for (int32_t i = 0; i < m->n_imported; i++)
        if (m->imported[i].status != MEST_OK && m->imported[i].node != MEST_NONE) {
            mest_verdict *v = &c->survey.verdict[m->imported[i].node];
            v->forward = m->imported[i].status;
            v->forward_why = m->imported[i].why;
        }
    mest_session_drop_programs(s);
    s->survey = &c->survey;
    mest_status status = mest_session_program(s, MEST_PROGRAM_TRAIN, batch, &c->p, c->err);
    s->survey = NULL;
    mest_session_memory(s, &c->total_bytes, NULL); /* before anything is reported */
    if (status == MEST_E_NOMEM || status == MEST_E_ARGUMENT || status == MEST_E_INTERNAL)
        return status;
    if (status != MEST_OK && c->survey.n_failures < MEST_SURVEY_FAILURES) { /* not planned, but the verdicts so far stand */
        const char *text = mest_region_strdup(c->region, c->err ? c->err->msg : "it cannot be planned");
        if (!text)
            return out_of_memory(c);
        c->survey.failure[c->survey.n_failures++] = text;
        mest_error_clear(c->err);
    }
    return MEST_OK;
}

static mest_status read_plan(check *c)
{
    const mest_graph *g = c->p ? &c->p->graph : NULL;
    size_t n = (size_t)c->m->graph.n_nodes + 1;
    c->forward_of = mest_region_alloc(c->region, n, sizeof *c->forward_of);
    c->first_of = mest_region_alloc(c->region, n, sizeof *c->first_of);
    c->next_of = mest_region_alloc(c->region, (size_t)(g ? g->n_nodes : 0) + 1, sizeof *c->next_of);
    c->node = mest_region_alloc(c->region, (size_t)(g ? g->n_nodes : 0) + 1, sizeof *c->node);
    if (!c->forward_of || !c->first_of || !c->next_of || !c->node)
        return out_of_memory(c);
    for (size_t i = 0; i < n; i++)
        c->forward_of[i] = c->first_of[i] = MEST_NONE;
    if (!g)
        return MEST_OK;
    for (mest_id i = g->n_nodes - 1; i >= 0; i--) {
        const mest_node *nd = &g->nodes[i];
        const bool forward = nd->phase == MEST_PHASE_FORWARD, backward = nd->phase == MEST_PHASE_BACKWARD && nd->forward != MEST_NONE;
        const int32_t source = forward ? nd->source : backward ? g->nodes[nd->forward].source : -1;
        if (source < 0)
            continue;
        if (forward && c->forward_of[source] == MEST_NONE)
            c->forward_of[source] = i;
        c->next_of[i] = c->first_of[source];
        c->first_of[source] = i;
    }
    mest_program_nodes(c->p, keep_node, c);
    return c->failed ? out_of_memory(c) : MEST_OK;
}

/* ---- verdict on one node ---- */
static bool in_list(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)) != NULL; at += n)
        if ((at == list || at[-1] == '+') && (at[n] == 0 || at[n] == '+'))
            return true;
    return false;
}

/* A pass may have made several nodes of one: what counts is the one with the most work, then the last that is no view. */
static bool stands_for(const check *c, mest_id candidate, mest_id best)
{
    if (best == MEST_NONE || c->node[candidate].macs != c->node[best].macs)
        return best == MEST_NONE || c->node[candidate].macs > c->node[best].macs;
    return strcmp(c->node[candidate].kernel, "view") || !strcmp(c->node[best].kernel, "view");
}

static void add_plan(check *c, int32_t source, mest_check_node *r)
{
    const mest_graph *g = &c->p->graph;
    char kernels[256] = "";
    mest_id best = MEST_NONE;
    for (mest_id i = c->first_of[source]; i != MEST_NONE; i = c->next_of[i]) {
        const planned *p = &c->node[i];
        if (g->nodes[i].phase == MEST_PHASE_FORWARD) {
            best = stands_for(c, i, best) ? i : best;
            r->forward_macs += p->macs;
            r->bytes += p->bytes;
            continue;
        }
        size_t used = strlen(kernels);
        r->backward_macs += p->macs;
        r->bytes += p->bytes;
        if (strcmp(p->kernel, "view") && !in_list(kernels, p->kernel))
            snprintf(kernels + used, sizeof kernels - used, "%s%s", used ? "+" : "", p->kernel);
    }
    if (best != MEST_NONE) {
        r->kernel = c->node[best].kernel;
        r->why = c->node[best].why;
        r->inputs = c->node[best].inputs;
        r->outputs = c->node[best].outputs;
    }
    if (kernels[0]) {
        r->backward = mest_region_strdup(c->region, kernels);
        c->failed |= !r->backward;
    }
}

/* The node that took this one in: the one that now makes its result, or the nearest one behind it that is still there. */
static const char *taken_by(const check *c, mest_id node)
{
    const mest_graph *g = &c->m->graph;
    mest_id y = g->nodes[node].n_out ? g->nodes[node].out[0] : MEST_NONE;
    mest_id producer = y == MEST_NONE ? MEST_NONE : c->p->graph.values[y].producer;
    if (producer != MEST_NONE)
        return c->p->graph.nodes[producer].name;
    for (int hops = 0; hops < 16 && node != MEST_NONE; hops++) {
        mest_id next = MEST_NONE;
        for (int j = 0; j < g->nodes[node].n_out; j++) {
            const mest_id v = g->nodes[node].out[j], by = v == MEST_NONE ? MEST_NONE : c->reader[v];
            next = by != MEST_NONE && (next == MEST_NONE || by < next) ? by : next;
        }
        if (next != MEST_NONE && c->forward_of[next] != MEST_NONE)
            return g->nodes[next].name;
        node = next;
    }
    return NULL;
}

static bool is_constant(const check *c, const mest_node *n)
{
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k] != MEST_NONE && (!c->p || c->p->graph.values[n->out[k]].kind != MEST_VALUE_CONST))
            return false;
    return n->n_out > 0;
}

/* Names of trainable parameters that come before the node, for the advice to freeze them. */
static const char *freeze_advice(check *c, const mest_node *node)
{
    const mest_graph *g = &c->m->graph;
    uint8_t *before = c->before;
    char names[300] = "";
    int n = 0, shown = 0;
    if (++c->n_advices > MOST_ADVICES)
        return "freeze what comes before it with --freeze, or replace the operator before the export";
    memset(before, 0, (size_t)g->n_values);
    for (int k = 0; k < node->n_in; k++)
        if (node->in[k] != MEST_NONE)
            before[node->in[k]] = 1;
    for (mest_id i = node->source; i >= 0; i--)
        if (any_out(before, &g->nodes[i]) && !g->nodes[i].op->no_grad)
            for (int k = 0; k < g->nodes[i].n_in; k++)
                if (g->nodes[i].in[k] != MEST_NONE)
                    before[g->nodes[i].in[k]] = 1;
    for (int i = 0; i < g->n_values; i++) {
        if (!before[i] || g->values[i].kind != MEST_VALUE_PARAM || !c->learns[i])
            continue;
        size_t used = strlen(names);
        n++;
        if (used + strlen(g->values[i].name) + 2 < sizeof names / 2 && shown == n - 1) {
            snprintf(names + used, sizeof names - used, "%s%s", used ? "," : "", g->values[i].name);
            shown = n;
        }
    }
    if (shown == n)
        return mest_region_printf(c->region, "freeze what comes before it: --freeze '%s'; or replace the operator before the export", names);
    return mest_region_printf(c->region, "freeze the %d parameters before it (%s, ..) with --freeze, or replace the operator before the export", n, names);
}

/* The operator has a gradient, be it in the form that training gives it. */
static bool can_learn(const mest_node *n)
{
    char name[80];
    snprintf(name, sizeof name, "mest.%.60s", n->op->name);
    const mest_op *form = mest_op_find("mest", name, 1);
    return n->op->vjp || n->op->composed || (form && form->vjp);
}

static const char *fixed_batch_advice(check *c)
{
    if (!c->survey.fixed_why)
        return "sizes do not fit: if the file has its batch baked in, export it with a dynamic batch axis or take that batch (-b); otherwise the sizes of the data";
    const char *text = mest_region_printf(c->region, "the file fixes its batch at %" PRId64 ": take that batch (-b %" PRId64 "), or export with a dynamic batch axis",
                                          c->survey.fixed_batch, c->survey.fixed_batch);
    c->failed |= !text;
    return text;
}

static void judge_forward(check *c, const mest_imported *e, const mest_node *n, mest_check_node *r)
{
    const mest_verdict *v = &c->survey.verdict[n->source];
    mest_id forward = c->forward_of[n->source];
    r->forward = true;
    if (v->forward != MEST_OK) {
        r->forward = false;
        r->why = v->forward_why;
        r->change = e->advice ? e->advice : v->forward == MEST_E_SHAPE
                        ? fixed_batch_advice(c)
                        : "this form of the operator is not supported: write it differently in the model, or export for another opset";
    } else if (v->unknown != MEST_NONE) {
        r->why = mest_region_printf(c->region, "the operator is supported; its sizes hang on '%s', which is not known", c->m->graph.values[v->unknown].name);
        c->failed |= !r->why;
    } else if (forward != MEST_NONE) {
        add_plan(c, n->source, r);
    } else if (!any_out(c->used, n)) {
        r->kernel = "unused";
        r->why = "the output that the loss is attached to does not depend on it";
    } else if (!c->p) {
        r->why = "the operator is supported; the step could not be planned";
    } else if (is_constant(c, n)) {
        r->kernel = "constant";
        r->why = "known before the first step: folded into a constant";
    } else {
        const char *by = taken_by(c, n->source);
        bool nothing = !strcmp(n->op->name, "Identity") || !strcmp(n->op->name, "Dropout");
        r->kernel = nothing ? "nothing" : "fused";
        r->why = nothing ? "it changes nothing here and is left out" : by ? mest_region_printf(c->region, "part of '%s'", by) : "part of the loss";
        c->failed |= !r->why;
    }
}

static void judge_gradient(check *c, const mest_node *n, mest_check_node *r)
{
    const mest_verdict *v = &c->survey.verdict[n->source];
    bool learns = any_in(c->learns, n), live = learns && any_out(c->reaches, n);
    if (v->backward != MEST_OK) {
        r->gradient = MEST_GRADIENT_NO;
        r->why = v->backward_why;
        r->change = freeze_advice(c, n);
        c->failed |= !r->change;
    } else if (learns && n->op->no_grad && any_out(c->reaches, n)) {
        r->gradient = MEST_GRADIENT_ENDS;
        r->change = "if what comes before it is to learn, put something differentiable in its place (a soft or straight-through form); else freeze that";
    } else if (!live) {
        r->gradient = MEST_GRADIENT_UNNEEDED;
    } else if (!r->forward) {
        r->gradient = MEST_GRADIENT_NO;
    } else if (v->unknown != MEST_NONE || !c->p) {
        r->gradient = can_learn(n) ? MEST_GRADIENT_UNKNOWN : MEST_GRADIENT_NO;
        if (!can_learn(n)) {
            r->why = "the operator has no gradient";
            r->change = freeze_advice(c, n);
            c->failed |= !r->change;
        }
    } else if (!c->complete && !v->live) {
        r->gradient = can_learn(n) ? MEST_GRADIENT_UNKNOWN : MEST_GRADIENT_NO;
    } else if (v->live || (r->kernel && (!strcmp(r->kernel, "fused") || !strcmp(r->kernel, "nothing")))) {
        r->gradient = MEST_GRADIENT_YES;
    }
}

static void report_node(check *c, const mest_imported *e)
{
    mest_check_node r = {.struct_size = sizeof r, .index = e->origin, .name = e->name, .op = e->op, .domain = e->domain, .opset = e->opset};
    if (e->node != MEST_NONE) {
        const mest_node *n = &c->m->graph.nodes[e->node];
        judge_forward(c, e, n, &r);
        judge_gradient(c, n, &r);
    } else {
        r.forward = true;
        r.kernel = e->kind == MEST_IMPORTED_CONSTANT ? "constant" : "nothing";
        r.why = e->kind == MEST_IMPORTED_CONSTANT ? "a constant of the file" : "another name for an initializer: it has become a parameter of its own";
    }
    c->sum->n_nodes++;
    c->sum->n_no_forward += !r.forward;
    c->sum->n_no_gradient += r.gradient == MEST_GRADIENT_NO;
    if (c->o->node)
        c->o->node(c->o->user, &r);
}

/* ---- the model as a whole ---- */
static void report_parameters(check *c)
{
    const mest_graph *g = c->p ? &c->p->graph : NULL;
    int n = 0, without = 0, lost_names = 0;
    const char *first = NULL;
    uint8_t *has_gradient = mest_region_alloc(c->region, (size_t)c->m->n_params + 1, 1);
    if (!has_gradient) {
        c->failed = true;
        return;
    }
    for (int k = 0; g && k < g->n_values; k++)
        if (g->values[k].kind == MEST_VALUE_PARAM && g->values[k].grad != MEST_NONE)
            has_gradient[g->values[k].param] = 1;
    for (int i = 0; i < c->m->n_params; i++) {
        const mest_param *p = &c->m->params[i];
        if (p->role != MEST_ROLE_TRAINABLE)
            continue;
        n++;
        lost_names += !strncmp(p->name, "onnx::", 6);
        const bool has = !c->complete || has_gradient[i]; /* not known then */
        if (!has && !without++)
            first = p->name;
    }
    c->sum->n_trainable = n;
    c->sum->n_without_gradient = without;
    if (n == 0)
        find(c, MEST_CHECK_ERROR, "nothing in the model trains: there is no trainable parameter",
             "--info says why each initializer does not train; --trainable NAME makes a parameter of a Constant node's output or of a buffer; integers do not train");
    else if (without == n)
        find(c, MEST_CHECK_ERROR, "no gradient reaches any trainable parameter: the loss does not depend on them, or only through operators that are not differentiable",
             "look for gradient 'ends' above; the loss is attached to the first output unless another one is named");
    else if (without)
        find(c, MEST_CHECK_WARNING, mest_region_printf(c->region, "no gradient reaches %d of %d trainable parameters, the first is '%s'; they stay as they are",
                                                       without, n, first),
             "look for gradient 'ends' above, and for nodes that only other outputs need");
    if (lost_names)
        find(c, MEST_CHECK_NOTE, mest_region_printf(c->region, "%d parameters have lost their names to constant folding in the exporter ('onnx::..')", lost_names),
             "export with do_constant_folding=False (and dynamo=False) to keep them");
}

/* Some input has a size, other than the batch, that neither the file nor the caller gives. */
static bool sizes_are_free(const check *c)
{
    const mest_graph *g = &c->m->graph;
    for (int i = 0; c->s->n_feeds == 0 && i < g->n_inputs; i++)
        for (int k = 1; k < g->values[g->inputs[i]].type.shape.rank; k++)
            if (g->values[g->inputs[i]].type.shape.dim[k] < 0)
                return true;
    return false;
}

/* Weights that the importer made constants since all that comes of them goes through operators without a gradient. */
static void report_blind_weights(check *c)
{
    const mest_graph *g = &c->m->graph;
    const char *first = NULL, *layer = NULL;
    int n = 0;
    mest_strmap constants;
    mest_strmap_init(&constants, c->region);
    for (int32_t p = 0; p < c->m->n_params; p++)
        if (c->m->params[p].role == MEST_ROLE_CONSTANT && !c->m->params[p].stated)
            c->failed |= !mest_strmap_put(&constants, c->m->params[p].name, p);
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *nd = &g->nodes[i];
        for (int k = 0; k < nd->n_in; k++) {
            if (!(nd->op->sparse_in >> k & 1) || nd->in[k] == MEST_NONE || g->values[nd->in[k]].kind != MEST_VALUE_CONST || !any_out(c->used, nd))
                continue;
            const char *name = g->values[nd->in[k]].name;
            const int32_t p = name ? mest_strmap_get(&constants, name) : -1;
            if (p >= 0 && n++ == 0) {
                first = c->m->params[p].name;
                layer = nd->name;
            }
        }
    }
    if (n)
        find(c, MEST_CHECK_WARNING,
             mest_region_printf(c->region, "%d weights of layers are constants, the first is '%s' of '%s': what comes of them goes through operators without a gradient", n,
                                first, layer),
             "if they are to learn, replace Round, Floor, Sign, ArgMax and comparisons behind them by something differentiable");
}

static void report_findings(check *c)
{
    const mest_model *m = c->m;
    for (int i = 0; i < c->survey.n_failures; i++)
        find(c, MEST_CHECK_ERROR, c->survey.failure[i],
             i == 0 && sizes_are_free(c) ? "give the sizes of one sample: --input-shape or --data of mest-run, mest_session_expect of the library" : NULL);
    if (c->survey.fixed_why && (c->survey.cut || c->survey.n_failures))
        find(c, MEST_CHECK_ERROR, mest_region_printf(c->region, "the file fixes its batch at %" PRId64 " and cannot be taken for one of %" PRId64 ": %s", c->survey.fixed_batch,
                                                     c->survey.batch, c->survey.fixed_why),
             fixed_batch_advice(c));
    report_parameters(c);
    report_blind_weights(c);
    if (m->n_folded)
        find(c, m->folded[0].sign ? MEST_CHECK_WARNING : MEST_CHECK_NOTE,
             mest_region_printf(c->region, "BatchNormalization %s folded into %d Conv nodes at export, the first is '%s'%s%s: without it, learning rates must be smaller",
                                m->folded[0].sign ? "was" : "may have been", m->n_folded, m->graph.nodes[m->folded[0].node].name, m->folded[0].sign ? "; the sign is " : "",
                                m->folded[0].sign ? m->folded[0].sign : ""),
             "train with it unfolded: --bn unfold of mest-run, mest_model_unfold_batch_norm of the library; or export with training=TRAINING");
    if (m->n_untied)
        find(c, MEST_CHECK_NOTE, mest_region_printf(c->region, "%d parameters were aliases of equal ones (Identity) and have been untied", m->n_untied), NULL);
}

static void sum_up(check *c)
{
    mest_check_summary *sum = c->sum;
    sum->trains = c->m->refusal.code == MEST_OK && c->p && sum->n_errors == 0 && sum->n_no_forward == 0 && sum->n_no_gradient == 0;
    sum->planned = c->complete && sum->n_no_gradient == 0;
    if (!sum->planned)
        return;
    mest_session_plan(c->s, c->p, &sum->plan);
    sum->plan.total_bytes = c->total_bytes;
    if (c->s->arena.bytes < c->p->arena_bytes) { /* not taken yet */
        sum->plan.total_bytes += (int64_t)(c->p->arena_bytes - c->s->arena.bytes);
        sum->plan.arena_bytes = (int64_t)c->p->arena_bytes;
    }
}

mest_status mest_session_check(mest_session *s, const mest_check_options *options, mest_check_summary *summary, mest_error *err)
{
    mest_error_clear(err);
    mest_error own = {0};
    mest_check_options o;
    mest_check_summary sum = {.struct_size = sizeof sum};
    mest_check_options_init(&o);
    MEST_CHECK(s && summary && summary->struct_size >= 2 * sizeof(uint32_t), err, MEST_E_ARGUMENT, "check: session and summary must be given");
    MEST_CHECK(!options || mest_take_options(&o, sizeof o, options), err, MEST_E_ARGUMENT, "check: options.struct_size is not set");
    MEST_CHECK(o.batch >= 0 && o.batch <= s->config.batch, err, MEST_E_ARGUMENT, "check: batch %" PRId64 " is not in 0..%" PRId64, o.batch, s->config.batch);
    MEST_CHECK(s->at.step == 0, err, MEST_E_STATE, "check: the run has begun");
    MEST_CHECK(s->model->imported, err, MEST_E_STATE, "check: the model was not loaded with mest_model_options.tolerant");
    check c = {.s = s, .m = s->model, .o = &o, .sum = &sum, .err = err ? err : &own};
    mest_status status;
    MEST_TRY_OUT(build(&c, o.batch ? o.batch : s->config.batch));
    MEST_TRY_OUT(analyse(&c));
    MEST_TRY_OUT(read_plan(&c));
    c.complete = c.p && c.m->refusal.code == MEST_OK && !c.survey.cut && !c.survey.no_loss && c.survey.n_failures == 0;
    for (int32_t i = 0; i < c.m->n_imported; i++)
        report_node(&c, &c.m->imported[i]);
    report_findings(&c);
    sum_up(&c);
    status = c.failed ? out_of_memory(&c) : MEST_OK;
    uint32_t size = summary->struct_size < sizeof sum ? summary->struct_size : (uint32_t)sizeof sum;
    memcpy((char *)summary + sizeof size, (const char *)&sum + sizeof size, size - sizeof size);
out:
    mest_session_drop_programs(s);
    mest_survey_free(&c.survey);
    return status;
}
