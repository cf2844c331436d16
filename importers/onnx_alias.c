/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters, and the aliases of initializers that exporters make. */
#include "importers/onnx.h"

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

static bool is_alias(onnx_importer *im, const onnx_node *n)
{
    if (*n->domain || strcmp(n->op, "Identity") || n->n_in != 1 || n->n_out != 1 || n->inlined || n->repeated || im->keep_aliases)
        return false;
    const onnx_symbol *from = onnx_find_symbol(im, n->in_names[0]), *to = onnx_find_symbol(im, n->out_names[0]);
    return from && to && from->tensor >= 0 && im->tensors[from->tensor].is_float && !to->is_output;
}

/* "/body/conv_1/Conv" of the second call of a module is "/body/conv/Conv" of the first: without the last number. NULL: no such number. */
static const char *first_call(onnx_importer *im, const char *name)
{
    const char *slash = strrchr(name, '/'), *end = slash;
    while (end && end > name && end[-1] >= '0' && end[-1] <= '9')
        end--;
    if (!slash || end == slash || end <= name + 1 || end[-1] != '_')
        return NULL;
    return mest_region_printf(&im->scratch, "%.*s%s", (int)(end - 1 - name), name, slash);
}

bool mest_onnx_is_uniform(const mest_payload *p)
{
    float x[64], first = 0;
    for (int64_t at = 0; at < p->count; at += 64) {
        int64_t n = p->count - at < 64 ? p->count - at : 64;
        if (mest_payload_read(p, at, n, x, NULL) != MEST_OK)
            return false;
        first = at ? first : x[0];
        for (int64_t i = 0; i < n; i++)
            if (x[i] != first)
                return false;
    }
    return true;
}

/* A module that is called twice has one weight. Where BatchNormalization was folded into it, the exporter made a copy for each call, found
 * them equal, and wrote an Identity as for weights that are equal by chance. Node names tell. Where the first call reads an Identity, too
 * (its bias equals that of another layer), the second reads that one: such an input is noted for the exporter. */
static mest_status find_repeats(onnx_importer *im, mest_onnx_notes *notes)
{
    mest_strmap by_name, identities;
    mest_strmap_init(&by_name, &im->scratch);
    mest_strmap_init(&identities, &im->scratch);
    for (int32_t i = 0; i < im->n_nodes; i++) {
        const onnx_node *n = &im->nodes[i];
        bool alias = !n->skip && is_alias(im, n);
        if (!mest_strmap_put(&by_name, n->name, i) || (alias && !mest_strmap_put(&identities, n->out_names[0], i)))
            return out_of_memory(im);
    }
    for (int32_t i = 0; identities.n && i < im->n_nodes; i++) {
        onnx_node *n = &im->nodes[i];
        const char *name = n->n_in > 1 ? first_call(im, n->name) : NULL;
        int32_t at = name ? mest_strmap_get(&by_name, name) : -1;
        const onnx_node *first = at >= 0 ? &im->nodes[at] : NULL;
        bool same = false;
        if (!first || strcmp(first->op, n->op) || first->n_in != n->n_in)
            continue;
        for (int pass = 0; pass < 2; pass++)
            for (int32_t k = 0; k < n->n_in; k++) {
                int32_t id = mest_strmap_get(&identities, n->in_names[k]);
                const onnx_symbol *s = onnx_find_symbol(im, first->in_names[k]);
                const onnx_tensor *t = s && s->tensor >= 0 ? &im->tensors[s->tensor] : NULL;
                bool reads_first = t && t->is_float && (id >= 0 ? !strcmp(im->nodes[id].in_names[0], t->name) : !strcmp(n->in_names[k], t->name));
                int32_t other = mest_strmap_get(&identities, first->in_names[k]);
                if (pass == 1 && same && id >= 0 && other >= 0 && id != other && n->origin >= 0 && !strcmp(im->nodes[id].in_names[0], im->nodes[other].in_names[0])) {
                    MEST_TRY(mest_onnx_note_move(im, notes, (mest_onnx_move){ .node = n->origin, .input = k, .param = i, .again = true }));
                    n->in_names[k] = first->in_names[k];
                    im->nodes[id].skip = true; /* nobody reads it */
                }
                if (pass == 0)
                    same |= reads_first && t->payload.count > 1 && (id < 0 || !mest_onnx_is_uniform(&t->payload));
                else if (same && reads_first && id >= 0)
                    im->nodes[id].repeated = true;
            }
    }
    return MEST_OK;
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
    MEST_TRY(find_repeats(im, notes));
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
        if (n->skip || !is_alias(im, n))
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
    int32_t kept = 0;
    for (int32_t i = 0; i < notes->n_moved; i++) { /* the place held the node's number */
        mest_onnx_move *move = &notes->moved[i];
        onnx_symbol *s = onnx_find_symbol(im, im->nodes[move->param].in_names[move->input]);
        if (s->value != MEST_NONE && im->m->graph.values[s->value].kind == MEST_VALUE_PARAM) { /* else the file stays right as it is */
            move->param = im->m->graph.values[s->value].param;
            notes->moved[kept++] = *move;
        }
    }
    notes->n_moved = kept;
    notes->dropped = dropped;
    notes->added = added;
    im->m->n_untied = notes->n_dropped;
    if (notes->n_dropped)
        mest_logf(&im->m->heap, MEST_LOG_INFO, "%d parameters were aliases of others through Identity (equal values at export) and were untied",
                  notes->n_dropped);
    return MEST_OK;
}
