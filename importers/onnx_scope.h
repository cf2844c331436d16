/* SPDX-License-Identifier: Apache-2.0 */
/* Where nodes of a file stand when functions, branches and loops are written out (onnx_inline.c, onnx_loop.c). */
#ifndef MEST_IMPORTERS_ONNX_SCOPE_H
#define MEST_IMPORTERS_ONNX_SCOPE_H

#include "importers/onnx.h"

typedef struct onnx_scope {
    struct onnx_scope *parent;                 /* NULL: the graph itself */
    const Onnx__FunctionProto *function;  /* whose attributes and opsets count; NULL: the model's */
    bool branch;                          /* of an If, or a step of a Loop: sees the names around it */
    const char *guard;                    /* condition of the innermost branch, NULL: none */
    bool guard_is;
    mest_strmap names;                    /* function name of a value to index in `actual` */
    const char **actual;
    int32_t n_actual, cap_actual;
    const char *call;                     /* for names of inner values and nodes */
    const Onnx__AttributeProto *const *attrs; /* of the call, resolved */
    int32_t n_attrs;
    int32_t origin;
    int depth;
} onnx_scope;

/* Name of a value as the graph knows it; and of one that a node of the scope makes. NULL when out of memory. */
const char *mest_onnx_outer_name(onnx_importer *im, onnx_scope *s, const char *name);
const char *mest_onnx_result_name(onnx_importer *im, onnx_scope *s, const char *name);
/* A tensor of a branch or loop (an initializer of it) becomes a Constant of the graph. */
mest_status mest_onnx_scope_constant(onnx_importer *im, onnx_scope *s, Onnx__TensorProto *t);
/* Adds nodes of a function, branch or loop to the graph. */
mest_status mest_onnx_walk(onnx_importer *im, onnx_scope *s, Onnx__NodeProto *const *nodes, size_t n, int32_t *budget);
/* A Loop whose number of steps is a constant becomes that many copies of its body; otherwise *done is false and nothing happened. */
mest_status mest_onnx_unroll(onnx_importer *im, onnx_scope *s, const Onnx__NodeProto *pb, const Onnx__AttributeProto **attrs, int32_t n_attrs, int32_t *budget, bool *done);

#endif
