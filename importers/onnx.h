/* SPDX-License-Identifier: Apache-2.0 */
/* The ONNX importer's own structures, shared by importers/onnx_*.c.
 *
 *   mest_onnx_arena   memory of the unpacked message: counted, capped, freed at once
 *   onnx_tensor       an initializer of the file
 *   onnx_symbol       a name of the graph: input, initializer or result of a node
 *   onnx_node         a node after functions were inlined; normalisation rewrites it in place
 *   onnx_importer     everything above during one import
 *   mest_onnx_notes   what outlives the import because the exporter needs it
 */
#ifndef MEST_IMPORTERS_ONNX_H
#define MEST_IMPORTERS_ONNX_H

#include <string.h>

#include "importers/prescan.h"
#include "onnx.pb-c.h"
#include "runtime/model.h"
#include "runtime/op.h"
#include "runtime/strmap.h"

enum {
    MEST_ONNX_MIN_IR = 3, MEST_ONNX_MAX_IR = 13,
    MEST_ONNX_MIN_OPSET = 7, MEST_ONNX_MAX_OPSET = 25,
    MEST_ONNX_MAX_INLINED = 20000, /* nodes and calls that local functions may expand to */
    MEST_ONNX_MAX_NESTING = 64     /* functions in functions */
};

/* ---- memory of the unpacked message ---- */
typedef struct mest_onnx_arena {
    ProtobufCAllocator allocator;
    mest_heap *heap;
    size_t used, cap;      /* bytes, blocks and large pieces */
    bool over, failed;     /* the cap, or the heap, was the reason of a failure */
    struct arena_block *blocks;
    struct arena_large *large;
    size_t left;           /* in the newest block */
} mest_onnx_arena;
void mest_onnx_arena_init(mest_onnx_arena *arena, mest_heap *heap, size_t cap);
void mest_onnx_arena_free(mest_onnx_arena *arena);

/* ---- what is kept for the exporter ---- */
typedef struct mest_onnx_note {
    const char *name;
    int32_t param;         /* -1: not a parameter, written as it is */
    bool external;         /* not a parameter: payload lies in another file and is folded in */
    int32_t mirror;        /* the values of this parameter are written, transposed unless repeated; -1: no such thing */
    bool left_out;         /* not written: nodes read another one (moved) */
    int64_t repeats;       /* written so many times one after the other; 0: once, as it is */
    mest_payload payload;
} mest_onnx_note;

typedef struct mest_onnx_move {  /* an input of a node that reads another initializer than the file says */
    int32_t node, input;       /* number in graph.node; place among its inputs */
    int32_t param;
    bool again;                /* the parameter has been moved to before, for an earlier node */
} mest_onnx_move;

typedef struct mest_onnx_notes {
    mest_onnx_note *dense, *sparse; /* graph.initializer and graph.sparse_initializer, in file order */
    int32_t n_dense, n_sparse;
    const int32_t *dropped;         /* numbers of graph.node that the exporter leaves out: untied Identity nodes, ascending */
    const int32_t *added;           /* parameters that take their place as initializers */
    int32_t n_dropped;              /* of both */
    mest_onnx_move *moved;          /* merged parameters that were untied: ascending by node, then input; written as initializers too */
    int32_t n_moved, cap_moved;
    bool external_attribute;        /* some node attribute holds external data: cannot be exported */
} mest_onnx_notes;

/* ---- during the import ---- */
typedef enum onnx_kind { KIND_UNKNOWN = 0, KIND_PARAMETER, KIND_BUFFER, KIND_CONSTANT } onnx_kind; /* by metadata_props of IR 10 files */

typedef struct onnx_tensor {
    const char *name;
    mest_shape shape;
    mest_payload payload;
    onnx_kind kind;
    bool external, is_float;
    bool claimed;          /* an alias has taken over the name because nobody uses the initializer directly */
    bool stands_for;       /* made by the exporter, it has been found to be one parameter of the program */
    const struct onnx_tensor *mirror; /* this is its transposed copy, or repeats it, and is used no more */
    bool twin;             /* of `mirror`, and as it is: not written again */
    int64_t repeats;       /* the file holds that many copies of it one after the other; 0: it is as the file has it */
    int32_t direct;        /* uses other than by an Identity that is resolved */
    mest_id value;         /* MEST_NONE until somebody uses it */
    int32_t param;
} onnx_tensor;

typedef struct onnx_origin {   /* a parameter or buffer of the exported program; see onnx_origin.c */
    const char *call_name, *target; /* "p_fc_weight", "fc.weight" */
    onnx_kind kind;
    bool present;              /* an initializer has its name */
    bool claimed;              /* an initializer of another name comes from it */
    const char *claimed_by;    /* that one, where only the module around its node tells */
    const onnx_tensor *stand_in; /* that one, where it is known early */
    const onnx_tensor *merged; /* it had been merged with this one and was untied, as this parameter: */
    int32_t param;
} onnx_origin;

typedef struct onnx_symbol {
    const char *name;
    mest_id value;         /* input or result; initializers: see tensor */
    int32_t tensor;        /* initializer, or -1 */
    int32_t uses;
    bool is_output;        /* of the graph */
    bool alias;            /* the result of a resolved Identity: `tensor` is what it stands for */
} onnx_symbol;

typedef struct onnx_node {
    const char *name, *op, *domain;
    int64_t opset;         /* of its domain; after normalisation, the opset whose form it has */
    int32_t origin;        /* number in graph.node, -1 when inlined */
    bool inlined, skip;
    bool missing;          /* tolerant import: no such operator */
    int32_t entry;         /* tolerant import: in model->imported */
    const char *guard;     /* condition of the If branch that the node is in, NULL: in none */
    bool guard_is;         /* the branch for true or the one for false */
    bool repeated;         /* an Identity for the second call of a module: the weight is one */
    int32_t n_in, n_out, n_attrs;
    int32_t n_names;       /* inputs in the file: in_names */
    const char **in_names, **out_names;
    mest_id *in, *out;     /* room for ONNX_EXTRA more inputs */
    const Onnx__AttributeProto **attrs; /* NULL: taken away by normalisation; room for ONNX_EXTRA more */
} onnx_node;
enum { ONNX_EXTRA = 4 };

typedef struct onnx_importer {
    mest_model *m;
    const char *path;
    mest_error *err;
    bool keep_aliases, tolerant;
    const char *trainable; /* the option of that name */
    int32_t cap_imported;  /* of m->imported */
    size_t max_bytes;      /* of everything but payloads */
    size_t max_constant;   /* of one constant made from sparse values */
    mest_prescan scan;
    mest_onnx_arena arena;
    mest_region scratch;
    Onnx__ModelProto *pb;
    int64_t opset;
    onnx_tensor *tensors;  /* dense first, then sparse */
    int32_t n_tensors;
    onnx_symbol *symbols;
    int32_t n_symbols, cap_symbols;
    mest_strmap names;     /* of symbols */
    onnx_node *nodes;
    int32_t n_nodes, cap_nodes;
    onnx_origin *origins;
    int32_t n_origins, cap_origins, n_lost; /* lost: parameters of the program that are not in the file under their name */
    mest_strmap call_names, targets; /* to origins */
    mest_strmap functions; /* "domain\nname" to number */
    mest_strmap makers;    /* onnx_loop.c: Constant, Identity and Cast by the name of their result, of nodes below n_makers */
    int32_t n_makers;
    mest_strmap ops;       /* "op\nopset" to 1 (known) or 0: lookups are repeated a lot */
    bool external_attribute;
    bool older;            /* from PyTorch's legacy exporter, which names nodes by module paths: "/fc/Gemm" */
} onnx_importer;

/* Text made from two names for messages; NULL counts as "". */
static inline const char *onnx_text(const char *text) { return text ? text : ""; }
static inline const char *onnx_domain(const char *domain) { return !domain || !strcmp(domain, "ai.onnx") ? "" : domain; }

static inline onnx_symbol *onnx_find_symbol(const onnx_importer *im, const char *name)
{
    int32_t at = mest_strmap_get(&im->names, name);
    return at < 0 ? NULL : &im->symbols[at];
}
static inline bool onnx_is_constant(const onnx_node *n) { return !*n->domain && !strcmp(n->op, "Constant"); }

/* onnx_file.c. External data beside the model: relative path inside the model's folder. Mapped once. */
mest_status mest_onnx_map_external(mest_model *m, const char *model_path, const char *location, const char *tensor, const mest_mapping **mapping,
                                   mest_error *err);

/* onnx_tensor.c: where a tensor's values are. `what` names it in messages. Unpacked values are copied to the model's region. */
mest_status mest_onnx_payload(onnx_importer *im, const Onnx__TensorProto *t, const char *what, mest_shape *shape, mest_payload *payload,
                              bool *external);
mest_status mest_onnx_sparse_payload(onnx_importer *im, const Onnx__SparseTensorProto *t, const char *what, mest_shape *shape,
                                     mest_payload *payload, bool *external);
/* Elements in C order for a constant, in graph memory; floating-point types become mest_real. */
mest_status mest_onnx_constant_data(onnx_importer *im, const char *what, const mest_shape *shape, const mest_payload *payload, mest_type *type,
                                    const void **data);

/* onnx_inline.c: graph.node without calls of local functions, in im->nodes. */
mest_status mest_onnx_inline(onnx_importer *im);

/* onnx_origin.c: parameters of the exported program, by the metadata of the newer exporter; sets kinds of initializers. */
mest_status mest_onnx_read_origins(onnx_importer *im);
/* Gives merged parameters their own copies. After aliases are resolved. */
mest_status mest_onnx_untie_merged(onnx_importer *im, mest_onnx_notes *notes);
/* Name of the lost parameter that an initializer with a made-up name comes from, by the node that reads it; NULL: none. By the node's
 * call; or, for what no call has named, by the modules around the node. */
const char *mest_onnx_called_origin(onnx_importer *im, const mest_node *n, int32_t input, const mest_param *p);
const char *mest_onnx_scope_origin(onnx_importer *im, const mest_node *n, const char *name);
/* onnx_alias.c: all numbers are the same, as a fresh network has them in scales and shifts. */
bool mest_onnx_is_uniform(const mest_payload *p);
/* All ones at input 1, all zeros at input 2 of a normalisation. */
bool mest_onnx_is_filler(const char *op, int32_t input, const mest_payload *p);
/* Warns of parameters that are nowhere. After the roles are decided. */
void mest_onnx_tell_lost(onnx_importer *im);

/* Do the calls of both nodes name the same parameter that is not in the file, for this input? */
bool mest_onnx_same_origin(const onnx_importer *im, const onnx_node *a, const onnx_node *b, int32_t input);

/* onnx_retie.c. Notes that an input of a node reads another initializer than the file says. */
mest_status mest_onnx_note_move(onnx_importer *im, mest_onnx_notes *notes, mest_onnx_move move);
/* Transposed copies of embedding tables become Transpose nodes, equal copies of one weight become one. After merged
 * parameters are untied. */
mest_status mest_onnx_retie(onnx_importer *im, mest_onnx_notes *notes);
/* onnx_spread.c. Parameters that the exporter spread over a fixed batch are one row again. */
mest_status mest_onnx_spread(onnx_importer *im);

/* onnx_import.c */
mest_status mest_onnx_add_symbol(onnx_importer *im, const char *name, int32_t tensor, mest_id value);

/* onnx_rewrite.c: turns node `n` into another operator with these inputs; outputs stay. */
mest_status mest_onnx_become(onnx_importer *im, onnx_node *n, const char *op, int64_t opset, int n_in, const char *const *in, int n_attrs,
                             Onnx__AttributeProto *const *attrs);
/* A node with one output beside those of the file, with `like`'s branch; the graph is put in order later. Moves im->nodes. */
mest_status mest_onnx_insert(onnx_importer *im, const onnx_node *like, const char *op, int64_t opset, int n_in, const char *const *in, const char *out,
                             int n_attrs, Onnx__AttributeProto *const *attrs);
/* The same after uses were counted: its result becomes a symbol, its inputs have one use more. */
mest_status mest_onnx_insert_late(onnx_importer *im, const char *op, int64_t opset, int n_in, const char *const *in, const char *out, int n_attrs,
                                  Onnx__AttributeProto *const *attrs);
/* Attributes for these; NULL when out of memory. `name` and text are kept, not copied. */
Onnx__AttributeProto *mest_onnx_ints_attribute(onnx_importer *im, const char *name, int64_t value); /* a list of one */
Onnx__AttributeProto *mest_onnx_int_attribute(onnx_importer *im, const char *name, int64_t value);
Onnx__AttributeProto *mest_onnx_text_attribute(onnx_importer *im, const char *name, const char *value);
/* Einsum of three and more operands becomes a chain of Einsum of two. */
mest_status mest_onnx_split_products(onnx_importer *im);

/* onnx_bag.c: the loops that exporters write for EmbeddingBag become Gather and a reduction. */
mest_status mest_onnx_bags(onnx_importer *im);

/* onnx_sequence.c: sequences that the file knows become Split, Slice, Concat or nothing. */
mest_status mest_onnx_sequences(onnx_importer *im);

/* onnx_operators.c: MEST_E_UNSUPPORTED with all operators that are not known: name, how often, where first. */
mest_status mest_onnx_check_operators(onnx_importer *im);
/* The same for one node. */
mest_status mest_onnx_check_operator(onnx_importer *im, onnx_node *n);

/* onnx_alias.c: appends a parameter with the initializer's shape and values. */
mest_status mest_onnx_add_param(onnx_importer *im, const onnx_tensor *t, const char *name, int32_t *param);
/* Checks that every input is defined, counts uses, resolves Identity(initializer). */
mest_status mest_onnx_resolve_aliases(onnx_importer *im, mest_onnx_notes *notes);

/* onnx_promote.c: initializers that options->trainable names are parameters by kind. Before make_params. */
mest_status mest_onnx_promote_initializers(onnx_importer *im);
/* Constant nodes that it names become parameters, and initializers for the exporter. After aliases are resolved. */
mest_status mest_onnx_promote_constants(onnx_importer *im, mest_onnx_notes *notes);

/* onnx_normalise.c: the op (name, opset) whose internal form the node will have; no change. */
void mest_onnx_target(const onnx_node *n, const char **op, int64_t *opset);
/* Rewrites attributes and inputs of the node to that form. */
mest_status mest_onnx_normalise(onnx_importer *im, onnx_node *n);
const Onnx__AttributeProto *onnx_attribute(const onnx_node *n, const char *name);

/* onnx_attrs.c: attributes to the op's params structure in graph memory (NULL when the op has none). */
mest_status mest_onnx_params(onnx_importer *im, const onnx_node *n, const mest_op *op, const void **params);

/* onnx_roles.c: roles and reasons of all parameters; those that never change become constants of the graph. */
mest_status mest_onnx_roles(onnx_importer *im);
/* Where an op's input is differentiable. */
bool mest_onnx_differentiable(const mest_op *op, int input);

/* onnx_import.c: value of a name; declared type of an input, output or value, symbolic sizes -1 (false: not a tensor with a shape). */
mest_status mest_onnx_symbol_value(onnx_importer *im, onnx_symbol *s, mest_id *value);
bool mest_onnx_read_type(const Onnx__ValueInfoProto *v, mest_type *type);

/* onnx_folded.c: layers into which a BatchNormalization was folded, into m->folded. After the roles. */
mest_status mest_onnx_find_folded(onnx_importer *im);

/* onnx_survey.c: an entry in model->imported for each node; does nothing unless the import is tolerant. */
mest_status mest_onnx_survey_begin(onnx_importer *im);
mest_status mest_onnx_survey_add(onnx_importer *im, onnx_node *n); /* a node made later */
/* Numbers the nodes of the graph in its final order, and finishes the entries. */
mest_status mest_onnx_survey_end(onnx_importer *im);
/* The model cannot be used; the first reason stays. */
void mest_onnx_refuse(onnx_importer *im, const mest_error *why);
/* The node (initializer or input: value) failed with `status` and a text in im->err: an unknown operator takes its place and the result is
 * MEST_OK. When the import is not tolerant, or memory ran out: `status`. */
mest_status mest_onnx_stand_in(onnx_importer *im, onnx_node *n, mest_status status);
mest_status mest_onnx_stand_in_value(onnx_importer *im, const char *name, const char *what, const mest_type *type, mest_status status, mest_id *value);
/* onnx_advice.c: what to do about a node that cannot be taken; never NULL. */
const char *mest_onnx_advice(const char *domain, const char *op, int64_t opset);

/* onnx_constant.c: value of a Constant node. */
mest_status mest_onnx_constant_node(onnx_importer *im, const onnx_node *n, mest_id *value);
/* A constant made by normalisation. MEST_NONE when out of memory. */
mest_id mest_onnx_ints(onnx_importer *im, const int64_t *values, size_t n, bool scalar);
mest_id mest_onnx_float(onnx_importer *im, double value);

#endif
