/* SPDX-License-Identifier: Apache-2.0 */
/* Which operators the library has: all that it lacks are named in one message. */
#include <inttypes.h>
#include <stdio.h>

#include "importers/onnx.h"

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

static const mest_op *find_op(onnx_node *n)
{
    const char *op;
    int64_t opset;
    if (*n->domain || n->opset < MEST_ONNX_MIN_OPSET || n->opset > MEST_ONNX_MAX_OPSET)
        return NULL;
    mest_onnx_target(n, &op, &opset);
    return mest_op_find("", op, opset);
}

static mest_status check_opset(onnx_importer *im, const onnx_node *n)
{
    MEST_CHECK(*n->domain || (n->opset >= MEST_ONNX_MIN_OPSET && n->opset <= MEST_ONNX_MAX_OPSET), im->err, MEST_E_UNSUPPORTED,
               "onnx '%s': opset %" PRId64 " is not supported (%d to %d are)", im->path, n->opset, MEST_ONNX_MIN_OPSET, MEST_ONNX_MAX_OPSET);
    return MEST_OK;
}

mest_status mest_onnx_check_operator(onnx_importer *im, onnx_node *n)
{
    MEST_TRY(check_opset(im, n));
    MEST_CHECK(find_op(n), im->err, MEST_E_UNSUPPORTED, "onnx '%s': %s%s%s '%s': the operator is not supported at opset %" PRId64, im->path, n->domain,
               *n->domain ? "." : "", n->op, n->name, n->opset);
    return MEST_OK;
}

static mest_status check_operators(onnx_importer *im)
{
    char text[sizeof im->err->msg];
    size_t used = 0;
    int32_t kinds = 0, shown = 0;
    text[0] = 0;
    mest_strmap seen;
    mest_strmap_init(&seen, &im->scratch);
    struct { const onnx_node *first; int32_t count; } *list = NULL;
    int32_t cap = 0;
    for (int32_t i = 0; i < im->n_nodes; i++) {
        onnx_node *n = &im->nodes[i];
        mest_status opset = check_opset(im, n);
        if (opset != MEST_OK && !im->tolerant)
            return opset;
        if (opset != MEST_OK) {
            mest_onnx_refuse(im, im->err);
            mest_error_clear(im->err);
        }
        if (onnx_is_constant(n) || n->skip)
            continue;
        const char *key = mest_region_printf(&im->scratch, "%.300s\n%.300s\n%" PRId64, n->domain, n->op, n->opset);
        if (!key)
            return out_of_memory(im);
        int32_t known = mest_strmap_get(&im->ops, key); /* 0: known; else 1 + place in the list */
        if (known < 0) {
            known = 0;
            if (!find_op(n)) {
                if (!MEST_REGION_GROW(&im->scratch, list, kinds, cap))
                    return out_of_memory(im);
                list[kinds].first = n;
                known = ++kinds;
            }
            if (!mest_strmap_put(&im->ops, key, known))
                return out_of_memory(im);
        }
        n->missing = known > 0;
        if (known)
            list[known - 1].count++;
    }
    if (!kinds)
        return MEST_OK;
    for (; shown < kinds; shown++) {
        const onnx_node *n = list[shown].first;
        char one[400];
        int length = snprintf(one, sizeof one, "%s%.60s%s%.60s (%d x, first '%.80s')", shown ? ", " : "", n->domain, *n->domain ? "." : "", n->op,
                              list[shown].count, n->name);
        mest_logf(&im->m->heap, MEST_LOG_INFO, "not supported: %s", one + (shown ? 2 : 0));
        if (used + (size_t)length + 120 + strlen(im->path) > sizeof text)
            break;
        memcpy(text + used, one, (size_t)length + 1);
        used += (size_t)length;
    }
    for (int32_t i = shown + 1; i < kinds; i++)
        mest_logf(&im->m->heap, MEST_LOG_INFO, "not supported: %s (%d x, first '%s')", list[i].first->op, list[i].count, list[i].first->name);
    char more[40] = "";
    if (shown < kinds)
        snprintf(more, sizeof more, " and %d more", kinds - shown);
    return mest_fail(im->err, MEST_E_UNSUPPORTED, "onnx '%.200s': operators that are not supported at opset %" PRId64 ": %s%s", im->path,
                     im->opset, text, more);
}

mest_status mest_onnx_check_operators(onnx_importer *im)
{
    mest_status status = check_operators(im);
    if (!im->tolerant || status != MEST_E_UNSUPPORTED)
        return status;
    mest_onnx_refuse(im, im->err);
    mest_error_clear(im->err);
    return MEST_OK;
}
