/* SPDX-License-Identifier: Apache-2.0 */
/* Writing of ONNX messages by hand: fields, messages whose length comes first, tensors with the present values of parameters.
 *
 *   onnx_writer   where it goes to, or only a count of bytes
 */
#ifndef MEST_IMPORTERS_ONNX_WRITE_H
#define MEST_IMPORTERS_ONNX_WRITE_H

#include "importers/onnx.h"
#include "importers/wire.h"
#include "runtime/outfile.h"

/* Field numbers of onnx.proto that are touched. */
enum {
    MODEL_IR = 1, MODEL_GRAPH = 7, MODEL_METADATA = 14, MODEL_FUNCTION = 25,
    GRAPH_NODE = 1, NODE_INPUT = 1, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12, GRAPH_VALUE_INFO = 13, GRAPH_SPARSE = 15,
    TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_NAME = 8, TENSOR_RAW = 9,
    SPARSE_VALUES = 1, SPARSE_INDICES = 2, SPARSE_DIMS = 3,
    INFO_NAME = 1, INFO_TYPE = 2, ENTRY_KEY = 1, ENTRY_VALUE = 2
};

typedef struct onnx_sink {    /* where the bytes go */
    mest_outfile *file;       /* or, if NULL, */
    uint8_t *memory;          /* the next byte; there is room for as many as were counted */
} onnx_sink;

enum { ONNX_FORM_AS_IS = 0, ONNX_FORM_INFERENCE, ONNX_FORM_TRAINING }; /* of BatchNormalization and Dropout */

typedef struct onnx_writer {
    const mest_model *m;
    const mest_onnx_notes *notes;
    const mest_export_options *options;
    const mest_mapping *source;
    onnx_sink *to;            /* NULL: only count */
    uint64_t n;               /* bytes written or counted */
    size_t walked;            /* where in the original file its pages were last let go */
    mest_strmap sparse;       /* names written as sparse initializers, to place in `described` */
    uint8_t *described;       /* they have a value_info */
    bool any_sparse;
    char *name;               /* room for the longest of those names */
    size_t longest;
    uint64_t graph_size;
    char version[24], sparsity[24];
    int form;
    bool dropout_switch;      /* some Dropout reads the constant `true` that is to be written */
    mest_error *err;
} onnx_writer;

mest_status onnx_put(onnx_writer *w, const void *bytes, size_t n);
mest_status onnx_put_int(onnx_writer *w, uint32_t field, int64_t v);
mest_status onnx_put_length(onnx_writer *w, uint32_t field, uint64_t n);
mest_status onnx_put_text(onnx_writer *w, uint32_t field, const char *text);
/* A message: counted first, then written after its length. */
typedef mest_status (*onnx_body)(onnx_writer *w, const void *what);
mest_status onnx_put_message(onnx_writer *w, uint32_t field, onnx_body write, const void *what);
/* The next field of the original file; as it is to the output. */
mest_status onnx_next_field(onnx_writer *w, mest_wire *wire, mest_wire_field *f);
mest_status onnx_copy_field(onnx_writer *w, const mest_wire_field *f);
bool onnx_is_text(const onnx_writer *w, const mest_wire_field *f, const char *text); /* the field has these bytes */

/* Does the file get the present, smaller shape of the parameter (structured schemes)? The shape it gets. */
bool onnx_shrinks(const onnx_writer *w, const mest_param *p);
const mest_shape *onnx_shape(const onnx_writer *w, const mest_param *p);
/* Still what the file has, whether or not somebody loaded it. */
bool onnx_untouched(const mest_param *p);
/* Is it written as a sparse initializer, and with how many entries? */
bool onnx_goes_sparse(const onnx_writer *w, const mest_param *p);
int64_t onnx_entries(const mest_param *p);
/* A parameter as an initializer of the graph; `old` is the TensorProto of the file whose name and type it keeps, or NULL. */
mest_status onnx_put_param(onnx_writer *w, const mest_param *p, const mest_wire_field *old);
/* An initializer of the file with its present values. */
mest_status onnx_put_initializer(onnx_writer *w, const mest_onnx_note *note, const mest_wire_field *f, bool is_sparse);

/* onnx_export_node.c: node `number` of the file in the form that is wanted, n_moved of whose inputs read other initializers than the file says; and
 * the initializers that nodes read since. */
mest_status onnx_put_node(onnx_writer *w, const mest_wire_field *node, int32_t number, const mest_onnx_move *moved, int32_t n_moved);
mest_status onnx_put_added(onnx_writer *w);
/* Declared shape of a parameter, a ValueInfoProto. */
mest_status onnx_param_info_body(onnx_writer *w, const void *param);
/* A log line where the file keeps BatchNormalization in training form, which other runtimes take at its word. */
void onnx_warn_training(const onnx_writer *w);
mest_status onnx_warn_functions(onnx_writer *w, const mest_wire_field *function);

/* onnx_export_head.c: a ValueInfoProto or a Constant node that another head changes; *done false: it does not, nothing was written. */
struct mest_head_sizes;
mest_status onnx_put_head_info(onnx_writer *w, const mest_wire_field *info, bool *done);
mest_status onnx_put_head_node(onnx_writer *w, const mest_wire_field *node, bool *done);
/* New values of the constant of this name; NULL: it keeps its own. */
const struct mest_head_sizes *onnx_head_sizes(const onnx_writer *w, const char *name);
mest_status onnx_put_head_sizes(onnx_writer *w, const struct mest_head_sizes *sizes);

#endif
