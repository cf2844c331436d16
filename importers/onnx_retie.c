/* SPDX-License-Identifier: Apache-2.0 */
/* One weight that stands in the file twice would go two ways in training.
 * A language model's head often is its embedding, transposed: where an exporter folds the Transpose, the file holds both. A matrix that a MatMul
 * takes and that is, bit for bit, the transposed table of a Gather becomes a Transpose of that table again; export writes both.
 * A layer that the network calls several times (the layers of ALBERT) has its weight folded once a call: matrices of equal bits whose nodes
 * come, by the newer exporter's word, from calls with the same parameter are one again; export writes one, and the nodes read it. */
#include <stdio.h>
#include <stdlib.h>

#include "importers/onnx.h"

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

static onnx_tensor *tensor_of(const onnx_importer *im, const onnx_node *n, int32_t input)
{
    const onnx_symbol *s = input < n->n_in && *n->in_names[input] ? onnx_find_symbol(im, n->in_names[input]) : NULL;
    onnx_tensor *t = s && s->tensor >= 0 ? &im->tensors[s->tensor] : NULL;
    bool fits = t && t->is_float && t->shape.rank == 2 && t->payload.count > 1 && !t->payload.linear && t->kind != KIND_BUFFER && t->kind != KIND_CONSTANT;
    return fits ? t : NULL;
}

/* b is a transposed, and not all of one value. */
static bool is_transposed(const onnx_tensor *a, const onnx_tensor *b)
{
    const int64_t rows = a->shape.dim[0], cols = a->shape.dim[1];
    const size_t size = mest_dtype_file_size(a->payload.dtype);
    bool differ = false;
    if (a->payload.dtype != b->payload.dtype || b->shape.dim[0] != cols || b->shape.dim[1] != rows)
        return false;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < cols; k++) {
            const uint8_t *x = a->payload.raw + (size_t)(i * cols + k) * size;
            if (memcmp(x, b->payload.raw + (size_t)(k * rows + i) * size, size))
                return false;
            differ |= memcmp(x, a->payload.raw, size) != 0;
        }
    return differ;
}

/* The table behind `t`, NULL if there is none. */
static const onnx_tensor *find_table(const onnx_importer *im, const onnx_tensor *t)
{
    for (int32_t i = 0; i < im->n_nodes; i++) {
        const onnx_node *n = &im->nodes[i];
        const onnx_tensor *table = !n->skip && !*n->domain && !strcmp(n->op, "Gather") ? tensor_of(im, n, 0) : NULL;
        if (table && table != t && is_transposed(table, t))
            return table;
    }
    return NULL;
}

mest_status mest_onnx_note_move(onnx_importer *im, mest_onnx_notes *notes, mest_onnx_move move)
{
    if (!MEST_REGION_GROW(&im->m->region, notes->moved, notes->n_moved, notes->cap_moved))
        return out_of_memory(im);
    notes->moved[notes->n_moved++] = move;
    return MEST_OK;
}

/* Who reads `from` reads `to`. With notes, `to` is an initializer, that of `param`, and export says so. */
static mest_status read_instead(onnx_importer *im, const char *from, const char *to, mest_onnx_notes *notes, int32_t param)
{
    onnx_symbol *target = onnx_find_symbol(im, to);
    for (int32_t i = 0; i < im->n_nodes; i++) {
        onnx_node *n = &im->nodes[i];
        for (int32_t k = 0; k < n->n_in && !n->skip; k++) {
            if (strcmp(n->in_names[k], from))
                continue;
            if (notes)
                MEST_TRY(mest_onnx_note_move(im, notes, (mest_onnx_move){ .node = n->origin, .input = k, .param = param, .again = true }));
            n->in_names[k] = to;
            target->uses++;
        }
    }
    return MEST_OK;
}

static mest_status retie(onnx_importer *im, onnx_tensor *t, const onnx_tensor *table)
{
    const char *name = mest_region_printf(&im->scratch, "%.200s/transposed", table->name);
    if (!name)
        return out_of_memory(im);
    if (!onnx_find_symbol(im, name))
        MEST_TRY(mest_onnx_insert_late(im, "Transpose", 13, 1, &table->name, name, 0, NULL));
    t->mirror = table;
    MEST_TRY(read_instead(im, t->name, name, NULL, MEST_NONE));
    mest_logf(&im->m->heap, MEST_LOG_INFO, "'%s' is '%s' transposed (the exporter folded it): they are one weight again", t->name, table->name);
    return MEST_OK;
}

/* ---- copies as they are ---- */

static bool is_copy(const onnx_tensor *a, const onnx_tensor *b)
{
    const size_t size = mest_dtype_file_size(a->payload.dtype);
    if (a->payload.dtype != b->payload.dtype || a->shape.dim[0] != b->shape.dim[0] || a->shape.dim[1] != b->shape.dim[1])
        return false;
    return !memcmp(a->payload.raw, b->payload.raw, (size_t)a->payload.count * size);
}

/* Do only these nodes of the graph itself read it, all as the same input? Others could not be told in the file to read another one. */
static bool only_products(const onnx_importer *im, const onnx_tensor *t)
{
    for (int32_t i = 0; i < im->n_nodes; i++) {
        const onnx_node *n = &im->nodes[i];
        for (int32_t k = 0; k < n->n_in && !n->skip; k++)
            if (!strcmp(n->in_names[k], t->name) && (n->inlined || n->origin < 0 || k != 1 || strcmp(n->op, "MatMul")))
                return false;
    }
    return !onnx_find_symbol(im, t->name)->is_output;
}

static const onnx_tensor *find_twin(const onnx_importer *im, const onnx_node *node, const onnx_tensor *t)
{
    for (const onnx_node *n = im->nodes; n < node; n++) {
        const onnx_tensor *first = !n->skip && !*n->domain && !strcmp(n->op, "MatMul") ? tensor_of(im, n, 1) : NULL;
        if (first && first != t && first->kind == KIND_UNKNOWN && !first->mirror && is_copy(first, t) && mest_onnx_same_origin(im, n, node, 1))
            return first;
    }
    return NULL;
}

static mest_status unite(onnx_importer *im, mest_onnx_notes *notes, onnx_tensor *t, const onnx_tensor *first)
{
    t->mirror = first;
    t->twin = true;
    MEST_TRY(read_instead(im, t->name, first->name, notes, first->param));
    mest_logf(&im->m->heap, MEST_LOG_INFO, "'%s' is a copy of '%s' (the exporter folded it once a call): they are one weight again", t->name, first->name);
    return MEST_OK;
}

static int by_place(const void *a, const void *b)
{
    const mest_onnx_move *x = a, *y = b;
    return x->node != y->node ? (x->node > y->node) - (x->node < y->node) : (x->input > y->input) - (x->input < y->input);
}

mest_status mest_onnx_retie(onnx_importer *im, mest_onnx_notes *notes)
{
    const int32_t n_nodes = im->n_nodes, n_moved = notes->n_moved;
    for (int32_t i = 0; i < n_nodes && !im->keep_aliases; i++) {
        const onnx_node *n = &im->nodes[i];
        onnx_tensor *t = !n->skip && !*n->domain && !strcmp(n->op, "MatMul") ? tensor_of(im, n, 1) : NULL;
        const onnx_tensor *table = t && !t->mirror && !onnx_find_symbol(im, t->name)->is_output ? find_table(im, t) : NULL;
        if (table) {
            MEST_TRY(retie(im, t, table));
            continue;
        }
        const bool made = t && !t->mirror && t->kind == KIND_UNKNOWN && im->n_lost > 0;
        const onnx_tensor *first = made ? find_twin(im, n, t) : NULL;
        if (first && only_products(im, t))
            MEST_TRY(unite(im, notes, t, first));
    }
    if (notes->n_moved > n_moved)
        qsort(notes->moved, (size_t)notes->n_moved, sizeof *notes->moved, by_place);
    return MEST_OK;
}
