/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters, and the aliases of initializers that exporters make. */
#include "importers/onnx.h"

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

static bool is_alias(onnx_importer *im, const onnx_node *n)
{
    if (*n->domain || strcmp(n->op, "Identity") || n->n_in != 1 || n->n_out != 1 || n->inlined || im->keep_aliases)
        return false;
    const onnx_symbol *from = onnx_find_symbol(im, n->in_names[0]), *to = onnx_find_symbol(im, n->out_names[0]);
    return from && to && from->tensor >= 0 && im->tensors[from->tensor].is_float && !to->is_output;
}

mest_status mest_onnx_add_param(onnx_importer *im, const onnx_tensor *t, const char *name, int32_t *param)
{
    mest_model *m = im->m;
    if (!MEST_REGION_GROW(&m->region, m->params, m->n_params, m->cap_params))
        return out_of_memory(im);
    mest_param *p = &m->params[m->n_params];
    memset(p, 0, sizeof *p);
    p->name = name;
    p->shape = t->shape;
    p->payload = t->payload;
    p->count = t->payload.count;
    p->role = (mest_role)t->kind; /* until the roles are decided */
    *param = m->n_params++;
    return MEST_OK;
}

/* Exporters put Identity in front of initializers that happened to be equal. Each such use gets a parameter of its own; where nobody
 * uses the initializer itself, the first takes it over, name included. */
mest_status mest_onnx_resolve_aliases(onnx_importer *im, mest_onnx_notes *notes)
{
    for (int32_t i = 0; i < im->n_nodes; i++) {
        const onnx_node *n = &im->nodes[i];
        if (n->skip)
            continue;
        if (n->guard) {
            onnx_symbol *s = onnx_find_symbol(im, n->guard);
            MEST_CHECK(s, im->err, MEST_E_FORMAT, "onnx '%s': the condition '%s' of node '%s' (%s) is not defined", im->path, n->guard, n->name, n->op);
            s->uses++;
        }
        for (int32_t k = 0; k < n->n_in; k++) {
            onnx_symbol *s = *n->in_names[k] ? onnx_find_symbol(im, n->in_names[k]) : NULL;
            MEST_CHECK(s || !*n->in_names[k], im->err, MEST_E_FORMAT, "onnx '%s': input '%s' of node '%s' (%s) is not defined", im->path,
                       n->in_names[k], n->name, n->op);
            if (s)
                s->uses++;
            if (s && s->tensor >= 0 && !is_alias(im, n))
                im->tensors[s->tensor].direct++;
        }
    }
    int32_t cap = 0, *dropped = NULL, cap_added = 0, *added = NULL;
    for (int32_t i = 0; i < im->n_nodes; i++) {
        onnx_node *n = &im->nodes[i];
        if (!is_alias(im, n))
            continue;
        onnx_tensor *t = &im->tensors[onnx_find_symbol(im, n->in_names[0])->tensor];
        onnx_symbol *to = onnx_find_symbol(im, n->out_names[0]);
        n->skip = true;
        to->alias = true;
        if (t->direct == 0 && !t->claimed) {
            t->claimed = true;
            to->tensor = (int32_t)(t - im->tensors);
            continue;
        }
        if (!MEST_REGION_GROW(&im->m->region, dropped, notes->n_dropped, cap) || !MEST_REGION_GROW(&im->m->region, added, notes->n_dropped, cap_added))
            return out_of_memory(im);
        const char *name = mest_region_strdup(&im->m->region, n->out_names[0]);
        int32_t param;
        if (!name)
            return out_of_memory(im);
        MEST_TRY(mest_onnx_add_param(im, t, name, &param));
        im->m->params[param].untied = true;
        mest_type type = { .dtype = MEST_F32, .shape = t->shape };
        to->value = mest_graph_value(&im->m->graph, name, MEST_VALUE_PARAM, &type);
        if (to->value == MEST_NONE)
            return out_of_memory(im);
        im->m->graph.values[to->value].param = param;
        dropped[notes->n_dropped] = n->origin;
        added[notes->n_dropped++] = param;
    }
    notes->dropped = dropped;
    notes->added = added;
    im->m->n_untied = notes->n_dropped;
    if (notes->n_dropped)
        mest_logf(&im->m->heap, MEST_LOG_INFO, "%d parameters were aliases of others through Identity (equal values at export) and were untied",
                  notes->n_dropped);
    return MEST_OK;
}
