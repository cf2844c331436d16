/* SPDX-License-Identifier: Apache-2.0 */
/* Tolerant import: what cannot be taken is written down with its reason and an operator without code takes its place, so that the rest of
 * the model can be judged. The first reason is what an ordinary load would have failed with. */
#include "importers/onnx.h"
#include "runtime/survey.h"

enum { ONNX_MAX_CAPTURED = 4096 };

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

static mest_status add_entry(onnx_importer *im, const char *name, const char *op, const char *domain, int64_t opset, mest_imported_kind kind, int32_t *entry)
{
    mest_model *m = im->m;
    if (!MEST_REGION_GROW(&m->region, m->imported, m->n_imported, im->cap_imported))
        return out_of_memory(im);
    mest_imported *e = &m->imported[m->n_imported];
    *e = (mest_imported){ .opset = opset, .kind = kind, .origin = -1, .node = MEST_NONE };
    e->name = mest_region_strdup(&m->region, name);
    e->op = mest_region_strdup(&m->region, op);
    e->domain = mest_region_strdup(&m->region, domain);
    if (!e->name || !e->op || !e->domain)
        return out_of_memory(im);
    *entry = m->n_imported++;
    return MEST_OK;
}

mest_status mest_onnx_survey_add(onnx_importer *im, onnx_node *n)
{
    if (!im->tolerant)
        return MEST_OK;
    MEST_TRY(add_entry(im, n->name, n->op, n->domain, n->opset, onnx_is_constant(n) ? MEST_IMPORTED_CONSTANT : MEST_IMPORTED_NODE, &n->entry));
    im->m->imported[n->entry].origin = n->origin;
    return MEST_OK;
}

mest_status mest_onnx_survey_begin(onnx_importer *im)
{
    for (int32_t i = 0; i < im->n_nodes; i++)
        MEST_TRY(mest_onnx_survey_add(im, &im->nodes[i]));
    return MEST_OK;
}

void mest_onnx_refuse(onnx_importer *im, const mest_error *why)
{
    if (im->m->refusal.code == MEST_OK)
        im->m->refusal = *why;
}

/* "onnx 'PATH': " in front says nothing that the reader does not know. */
static const char *without_path(const onnx_importer *im, const char *text)
{
    size_t n = strlen(im->path);
    bool has = !strncmp(text, "onnx '", 6) && !strncmp(text + 6, im->path, n) && !strncmp(text + 6 + n, "': ", 3);
    return has ? text + n + 9 : text;
}

/* Moves the error to the entry. Out of memory stays an error. */
static mest_status judge(onnx_importer *im, int32_t entry, mest_status status)
{
    if (status == MEST_E_NOMEM || status == MEST_E_LIMIT || status == MEST_E_INTERNAL || status == MEST_E_IO)
        return status;
    mest_imported *e = &im->m->imported[entry];
    e->status = status;
    e->why = mest_region_strdup(&im->m->region, without_path(im, im->err->msg));
    e->advice = mest_onnx_advice(e->domain, e->op, e->opset);
    if (!e->why)
        return out_of_memory(im);
    mest_onnx_refuse(im, im->err);
    mest_error_clear(im->err);
    return MEST_OK;
}

/* Values of the graph that the bodies of control flow read without naming them as inputs. The scan has bounded the depth. */
static mest_status captured(onnx_importer *im, const Onnx__GraphProto *body, mest_id **in, int32_t *n, int32_t *cap)
{
    for (size_t i = 0; body && i < body->n_node; i++) {
        const Onnx__NodeProto *node = body->node[i];
        for (size_t k = 0; k < node->n_input; k++) {
            onnx_symbol *s = *onnx_text(node->input[k]) ? onnx_find_symbol(im, node->input[k]) : NULL;
            if (!s || *n >= ONNX_MAX_CAPTURED)
                continue;
            if (!MEST_REGION_GROW(&im->scratch, *in, *n, *cap))
                return out_of_memory(im);
            MEST_TRY(mest_onnx_symbol_value(im, s, &(*in)[*n]));
            *n += (*in)[*n] != MEST_NONE;
        }
        for (size_t k = 0; k < node->n_attribute; k++)
            MEST_TRY(captured(im, node->attribute[k]->g, in, n, cap));
    }
    return MEST_OK;
}

mest_status mest_onnx_stand_in(onnx_importer *im, onnx_node *n, mest_status status)
{
    if (!im->tolerant)
        return status;
    MEST_TRY(judge(im, n->entry, status));
    mest_graph *g = &im->m->graph;
    mest_id *in = NULL;
    int32_t n_in = 0, cap = 0;
    for (int32_t k = 0; k < n->n_names; k++) {
        if (!MEST_REGION_GROW(&im->scratch, in, n_in, cap))
            return out_of_memory(im);
        in[n_in] = MEST_NONE;
        if (*n->in_names[k])
            MEST_TRY(mest_onnx_symbol_value(im, onnx_find_symbol(im, n->in_names[k]), &in[n_in]));
        n_in++;
    }
    for (int32_t k = 0; k < n->n_attrs; k++)
        if (n->attrs[k])
            MEST_TRY(captured(im, n->attrs[k]->g, &in, &n_in, &cap));
    const mest_imported *e = &im->m->imported[n->entry];
    const mest_op *op = mest_unknown_op(&g->region, e->domain, e->op);
    if (!op)
        return out_of_memory(im);
    mest_id id = mest_graph_node(g, n->name, op, NULL, n_in, in, n->n_out, n->out);
    if (id == MEST_NONE)
        return out_of_memory(im);
    g->nodes[id].origin = n->origin;
    g->nodes[id].mark = n->entry;
    return MEST_OK;
}

mest_status mest_onnx_stand_in_value(onnx_importer *im, const char *name, const char *what, const mest_type *type, mest_status status, mest_id *value)
{
    if (!im->tolerant)
        return status;
    int32_t entry = 0;
    const mest_error err = *im->err;
    mest_error_clear(im->err);
    MEST_TRY(add_entry(im, name, what, "", im->opset, MEST_IMPORTED_TENSOR, &entry));
    *im->err = err;
    MEST_TRY(judge(im, entry, status));
    mest_graph *g = &im->m->graph;
    const mest_op *op = mest_unknown_op(&g->region, "", what);
    *value = op ? mest_graph_value(g, name, MEST_VALUE_RESULT, type) : MEST_NONE;
    mest_id id = *value != MEST_NONE ? mest_graph_node(g, name, op, NULL, 0, NULL, 1, value) : MEST_NONE;
    if (id == MEST_NONE)
        return out_of_memory(im);
    g->nodes[id].mark = entry;
    return MEST_OK;
}

mest_status mest_onnx_survey_end(onnx_importer *im)
{
    mest_graph *g = &im->m->graph;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        g->nodes[i].source = i;
        if (im->tolerant)
            im->m->imported[g->nodes[i].mark].node = i;
    }
    if (!im->tolerant)
        return MEST_OK;
    for (int32_t i = 0; i < im->n_nodes; i++) /* what is left without a node is an alias or a constant */
        if (im->m->imported[im->nodes[i].entry].node == MEST_NONE && im->m->imported[im->nodes[i].entry].kind == MEST_IMPORTED_NODE)
            im->m->imported[im->nodes[i].entry].kind = MEST_IMPORTED_ALIAS;
    /* declared types, for results that nobody can compute; inference overwrites the others */
    for (size_t i = 0; i < im->pb->graph->n_value_info; i++) {
        const Onnx__ValueInfoProto *info = im->pb->graph->value_info[i];
        const onnx_symbol *s = onnx_find_symbol(im, onnx_text(info->name));
        mest_type type;
        if (s && s->tensor < 0 && s->value != MEST_NONE && g->values[s->value].kind == MEST_VALUE_RESULT && mest_onnx_read_type(info, &type))
            g->values[s->value].type = type;
    }
    return MEST_OK;
}
