/* SPDX-License-Identifier: Apache-2.0 */
/* What a program is made of, in words and numbers: mest_session_explain. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/channels.h"
#include "runtime/session.h"

static void add(char *text, size_t size, const char *piece)
{
    size_t n = strlen(text);
    snprintf(text + n, size - n, "%s", piece);
}

static void describe(const mest_program *p, const mest_id *ids, int n, char *text, size_t size)
{
    char shape[128], piece[400];
    text[0] = 0;
    for (int i = 0; i < n; i++) {
        if (ids[i] == MEST_NONE)
            continue;
        const mest_value *v = &p->graph.values[ids[i]];
        const mest_layout *l = &v->type.layout;
        snprintf(piece, sizeof piece, "%s%.120s%s", text[0] ? ", " : "", v->name, mest_shape_text(&v->type.shape, shape, sizeof shape));
        add(text, size, piece);
        if (l->kind == MEST_PIXEL && l->v == 1)
            add(text, size, " nhwc");
        else if (l->kind == MEST_PIXEL) {
            snprintf(piece, sizeof piece, " lanes%d", l->v);
            add(text, size, piece);
        } else if (l->kind == MEST_SPARSE) {
            const mest_sparse *s = p->model->params[l->param].sparse;
            snprintf(piece, sizeof piece, " %s %.1f%%", s->name, 100 * (1 - (double)mest_sparse_nnz(s) / (double)(s->rows * s->cols)));
            add(text, size, piece);
        }
    }
}

static int64_t bytes_of(const mest_program *p, mest_id v)
{
    const mest_type *t = &p->graph.values[v].type;
    int64_t n = 0;
    if (t->layout.kind == MEST_SPARSE)
        n = p->model->params[t->layout.param].sparse->stored * 2; /* value and index */
    else if (!mest_type_storage(t, &n))
        return 0;
    return n * (int64_t)mest_dtype_size(t->dtype);
}

int64_t mest_program_node_bytes(const mest_program *p, mest_id i)
{
    const mest_node *n = &p->graph.nodes[i];
    int64_t bytes = 0;
    if (p->steps[i].nothing)
        return 0;
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] != MEST_NONE)
            bytes += bytes_of(p, n->in[k]);
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k] != MEST_NONE)
            bytes += bytes_of(p, n->out[k]);
    return bytes;
}

int64_t mest_program_nonzeros(const mest_program *p, mest_id i)
{
    const mest_node *n = &p->graph.nodes[i];
    int64_t entries = 0;
    for (int k = 0; k < n->n_in; k++) {
        const mest_value *v = n->in[k] == MEST_NONE ? NULL : &p->graph.values[n->in[k]];
        if (v && v->kind == MEST_VALUE_PARAM && p->model->params[v->param].sparse)
            entries += mest_sparse_nnz(p->model->params[v->param].sparse);
    }
    return entries;
}

const char *mest_program_kernel(const mest_program *p, mest_id i)
{
    const mest_step *st = &p->steps[i];
    return st->nothing ? "view" : st->kernel ? st->kernel->name : "reference";
}

const char *mest_phase_name(mest_phase phase)
{
    static const char *const phases[] = {"forward", "backward", "update"};
    return phases[phase];
}

void mest_program_nodes(const mest_program *p, void (*node)(void *user, const mest_node_info *info), void *user)
{
    for (mest_id i = 0; i < p->graph.n_nodes; i++) {
        const mest_node *n = &p->graph.nodes[i];
        const mest_step *st = &p->steps[i];
        char in[2048], out[2048];
        describe(p, n->in, n->n_in, in, sizeof in);
        describe(p, n->out, n->n_out, out, sizeof out);
        mest_node_info info = {.struct_size = sizeof info, .index = i, .name = n->name, .op = n->op->name, .phase = mest_phase_name(n->phase), .inputs = in, .outputs = out,
                               .kernel = mest_program_kernel(p, i), .why = st->nothing ? "no data moves" : st->why, .macs = mest_program_macs(p, i),
                               .bytes = mest_program_node_bytes(p, i), .nonzeros = mest_program_nonzeros(p, i)};
        node(user, &info);
    }
}

static int64_t parameter_bytes(const mest_session *s)
{
    int64_t n = 0;
    for (int i = 0; i < s->model->n_params; i++) {
        const mest_param *p = &s->model->params[i];
        if (p->sparse)
            n += p->sparse->cap_units * p->sparse->unit_elements * (int64_t)sizeof(mest_real) + (int64_t)p->sparse->index_size;
        else if (p->loaded)
            n += mest_param_room(p) * (int64_t)sizeof(mest_real);
    }
    return n + (int64_t)mest_derived_bytes(s->derived);
}

static mest_status program_of(mest_session *s, mest_program_kind kind, int64_t batch, mest_program **p, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && batch >= 1, err, MEST_E_ARGUMENT, "explain: session and batch must be given");
    if (kind != MEST_PROGRAM_INFER)
        MEST_TRY(mest_session_shapes(s, err));
    return mest_session_program(s, kind, kind == MEST_PROGRAM_TRAIN && batch > s->part ? s->part : batch, p, err); /* a step may be made in parts */
}

bool mest_pass_list(int index, mest_pass_info *info)
{
    static const char *const phases[MEST_PASS_PHASES] = {"weights", "form", "forward", "backward", "kernels"};
    const mest_pass *pass = mest_pass_at(index);
    if (!pass)
        return false;
    const mest_pass_info all = {.name = pass->name, .summary = pass->summary, .phase = phases[pass->phase], .required = pass->required};
    return mest_tell(info, &all, sizeof all);
}

mest_status mest_session_passes(mest_session *s, mest_program_kind kind, int64_t batch, void (*fn)(void *user, const mest_pass_info *info), void *user,
                                mest_error *err)
{
    mest_program *p;
    MEST_TRY(program_of(s, kind, batch, &p, err));
    mest_pass_info info = {.struct_size = sizeof info};
    for (int i = 0; mest_pass_list(i, &info); i++) {
        if (!(mest_pass_at(i)->serves >> kind & 1))
            continue;
        info.off = mest_pass_is_off(mest_pass_at(i), s->config.no_fuse);
        info.count = p->pass_counts[i];
        fn(user, &info);
    }
    return MEST_OK;
}

/* FNV-1a over the names of the kernels. */
static uint64_t kernels_of(const mest_program *p)
{
    uint64_t hash = 14695981039346656037u;
    for (mest_id i = 0; i < p->graph.n_nodes; i++)
        for (const char *c = mest_program_kernel(p, i); *c; c++)
            hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    return hash;
}

void mest_session_plan(const mest_session *s, const mest_program *p, mest_plan_info *plan)
{
    const size_t arena = p->arena_bytes > s->arena.bytes ? p->arena_bytes : s->arena.bytes; /* it may not be taken yet */
    *plan = (mest_plan_info){.struct_size = sizeof *plan, .arena_bytes = (int64_t)arena, .parameter_bytes = parameter_bytes(s),
                             .optimizer_bytes = mest_optimizer_bytes(&s->optimizer), .macs = p->macs, .n_nodes = p->graph.n_nodes, .n_conversions = p->n_conversions,
                             .n_file_nodes = s->model->n_file_nodes, .n_folded_nodes = p->n_folded_nodes, .n_fused_nodes = p->n_fused_nodes, .kernels = kernels_of(p), .n_measured = p->n_measured};
    mest_session_memory(s, &plan->total_bytes, NULL);
    plan->total_bytes += (int64_t)(arena - s->arena.bytes);
}

mest_status mest_session_explain(mest_session *s, mest_program_kind kind, int64_t batch, void (*node)(void *user, const mest_node_info *info), void *user,
                                 mest_plan_info *plan, mest_error *err)
{
    mest_program *p;
    MEST_TRY(program_of(s, kind, batch, &p, err));
    if (node)
        mest_program_nodes(p, node, user);
    if (plan) {
        mest_plan_info all = {.struct_size = sizeof all};
        mest_session_plan(s, p, &all);
        MEST_CHECK(mest_tell(plan, &all, sizeof all), err, MEST_E_ARGUMENT, "explain: struct_size of the plan is not set");
    }
    return MEST_OK;
}

mest_status mest_session_node_counts(mest_session *s, int64_t batch, mest_node_counts *counts, mest_error *err)
{
    mest_program *p = NULL;
    mest_error_clear(err);
    MEST_CHECK(s && batch >= 1 && counts && counts->struct_size >= sizeof counts->struct_size, err, MEST_E_ARGUMENT,
               "node counts: session, batch and counts must be given");
    mest_node_counts c = {.struct_size = counts->struct_size, .file = s->model->n_file_nodes};
    mest_status status = mest_session_sketch(s, batch, &p, err);
    if (status == MEST_OK) {
        c.folded = p->n_folded_nodes;
        c.fused = p->n_fused_nodes;
        mest_program_destroy(p);
    }
    memcpy(counts, &c, c.struct_size < sizeof c ? c.struct_size : sizeof c);
    return status;
}
