/* SPDX-License-Identifier: Apache-2.0 */
/* A language model's head often is its embedding, transposed. Where an exporter folds the Transpose, the file holds the weight twice, and
 * each would go its own way in training. A matrix that a MatMul takes and that is, bit for bit, the transposed table of a Gather becomes a
 * Transpose of that table again; export writes both. */
#include <stdio.h>

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

static mest_status retie(onnx_importer *im, onnx_tensor *t, const onnx_tensor *table)
{
    const char *name = mest_region_printf(&im->scratch, "%.200s/transposed", table->name);
    if (!name)
        return out_of_memory(im);
    if (!onnx_find_symbol(im, name))
        MEST_TRY(mest_onnx_insert_late(im, "Transpose", 13, 1, &table->name, name, 0, NULL));
    t->mirror = table;
    for (int32_t i = 0; i < im->n_nodes; i++) {
        onnx_node *n = &im->nodes[i];
        for (int32_t k = 0; k < n->n_in; k++)
            if (!strcmp(n->in_names[k], t->name)) {
                n->in_names[k] = name;
                onnx_find_symbol(im, name)->uses++;
            }
    }
    mest_logf(&im->m->heap, MEST_LOG_INFO, "'%s' is '%s' transposed (the exporter folded it): they are one weight again", t->name, table->name);
    return MEST_OK;
}

mest_status mest_onnx_retie(onnx_importer *im)
{
    int32_t n_nodes = im->n_nodes;
    for (int32_t i = 0; i < n_nodes && !im->keep_aliases; i++) {
        const onnx_node *n = &im->nodes[i];
        onnx_tensor *t = !n->skip && !*n->domain && !strcmp(n->op, "MatMul") ? tensor_of(im, n, 1) : NULL;
        const onnx_tensor *table = t && !t->mirror && !onnx_find_symbol(im, t->name)->is_output ? find_table(im, t) : NULL;
        if (table)
            MEST_TRY(retie(im, t, table));
    }
    return MEST_OK;
}
