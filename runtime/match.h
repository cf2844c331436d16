/* SPDX-License-Identifier: Apache-2.0 */
/* What passes use to find and rewrite pieces of a graph.
 *
 *   taken     a node that a find of this pass has swallowed: it is not looked at again, and is dropped after the pass
 *   factors   a tree of Mul and of Div by constants as a flat product: scale * value * value ...
 *
 * Values made during a pass count as read more than once: nothing is found through them.
 */
#ifndef MEST_RUNTIME_MATCH_H
#define MEST_RUNTIME_MATCH_H

#include "runtime/pass.h"

/* Operators by name; "mest." names are helpers, others ONNX. */
bool mest_is_op(const mest_node *n, const char *op);
/* The node that computes v if it is `op` and not taken, otherwise NULL. */
mest_node *mest_match(const mest_graph *g, mest_id v, const char *op);
/* The same, if v is read by one input only (so that it may disappear). */
mest_node *mest_match_once(const mest_pass_args *a, mest_id v, const char *op);
bool mest_read_once(const mest_pass_args *a, mest_id v);
/* v is a constant float with one element: its value in *x. */
bool mest_scalar(const mest_graph *g, mest_id v, double *x);
/* v is that constant, to 1e-6 of it: files hold float32. */
bool mest_scalar_is(const mest_graph *g, mest_id v, double x);
bool mest_close(double a, double b);
/* One input of a two-input node is a scalar constant: the other one; MEST_NONE if not. */
mest_id mest_with_scalar(const mest_graph *g, const mest_node *n, double *x);
/* v as a product: at most max values in f[], their number in *n, constants in *scale. Mul and Div nodes inside (not v's readers) are part of
 * it when they are read once, v's own in any case. False: more than max factors. */
enum { MEST_FACTORS = 4 };
typedef struct mest_factors { int n; mest_id v[MEST_FACTORS]; double scale; int n_nodes; mest_id node[8]; } mest_factors;
bool mest_factorise(const mest_pass_args *a, mest_id v, mest_factors *f);
/* Marks the node that computes v as swallowed; no node: nothing. */
void mest_take(mest_graph *g, mest_id v);
void mest_take_factors(mest_graph *g, const mest_factors *f);
static inline bool mest_taken(const mest_node *n) { return n->mark != 0; }

/* The node becomes another operator: op, params and inputs (copied), outputs as they are but for those from n_out on. infer: types anew (not
 * possible before shapes are known). Counts. */
mest_status mest_rewrite(mest_pass_args *a, mest_id node, const char *op, const void *params, int n_in, const mest_id *in, int n_out, bool infer);
/* The node's outputs move up by one: output 0 is a new value (a workspace). Types are inferred where they can be. Does not count. */
mest_status mest_prepend_output(mest_pass_args *a, mest_id node);
/* The same with n_out fresh outputs; and with one output that is the value `out`, whose producer it becomes. */
mest_status mest_insert_many(mest_pass_args *a, mest_id at, const char *op, const void *params, int n_in, const mest_id *in, int n_out, mest_id *out);
mest_status mest_insert_as(mest_pass_args *a, mest_id at, const char *op, const void *params, int n_in, const mest_id *in, mest_id out);
/* A new node with one output in front of node `at`, which will read it. Types are inferred where they can be. Does not count. */
mest_status mest_insert(mest_pass_args *a, mest_id at, const char *op, const void *params, int n_in, const mest_id *in, mest_id *out);
/* Node `layer` computes what node `next`, its only reader, makes of its output 0: it takes over the result. `next` is swallowed. Counts. */
void mest_absorb(mest_pass_args *a, mest_id layer, mest_id next);
/* The node that reads v, if there is exactly one reader and that is a node; otherwise MEST_NONE. */
mest_id mest_only_reader(const mest_pass_args *a, mest_id v);
/* Is the node Relu or a Clip by constants: what a layer can do itself? Fills *clamp. */
struct mest_clamp;
bool mest_match_clamp(const mest_graph *g, const mest_node *n, struct mest_clamp *clamp);
/* Is it another activation that a layer can do (match_act.c)? Fills *act. */
struct mest_act;
bool mest_match_act(const mest_graph *g, const mest_node *n, struct mest_act *act);
/* ---- normalisations (match_norm.c) ---- */
/* v is the mean of x over its last axes, which stay as 1: x and the first of them; otherwise MEST_NONE. */
mest_id mest_match_mean(const mest_graph *g, mest_id v, int *axis);
/* v = x^2 as Pow or Mul: x. */
mest_id mest_match_square(const mest_graph *g, mest_id v);
/* v = numerator / sqrt(z + epsilon), in any of its forms: z. */
mest_id mest_match_over_root(const mest_graph *g, mest_id v, mest_id *numerator, double *epsilon);
/* Follows *node to the Mul with a weight, and (bias not NULL) the Add of one, that alone read its result; the weights have the shape of
 * x's axes from `axis` on. *node becomes the last node. No Mul: *scale is a constant of ones; no Add: *bias stays as it was. */
mest_status mest_match_affine(mest_pass_args *a, mest_id *node, const mest_shape *x, int axis, mest_id *scale, mest_id *bias);

/* Memory that lives as long as the graph, zeroed; NULL and a text in a->err when there is none. */
void *mest_pass_alloc(mest_pass_args *a, size_t bytes);

#endif
