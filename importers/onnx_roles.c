/* SPDX-License-Identifier: Apache-2.0 */
/* What an initializer is: a weight that trains, a running statistic, or a constant. The file does not say (older exporters) or says so
 * in metadata (newer ones). Rules, in this order:
 *   1. inputs 3 and 4 of BatchNormalization are statistics
 *   2. metadata: PARAMETER trains, BUFFER and CONSTANT_TENSOR do not; what has neither, in a file with such metadata, trains where it comes
 *      from a parameter that is not in the file under its name (onnx_origin.c), and is constant otherwise
 *   3. what no output depends on through differentiable inputs is constant (masks, indices, unused)
 *   4. a scalar, or one element that only scales or shifts, is constant, unless the older exporter gave it the name that it had in the
 *      network (it makes no such initializers of its own)
 *   5. an operand of an elementwise operator, as it is or moved, that holds infinite or huge negative numbers, or a matrix of
 *      only 0 and 1, is a mask; what is subtracted from an input of the network, and what that is divided by, are the data's mean and deviation;
 *      sines and cosines whose first row is 0 and 1 are a table of positions
 *   6. what the older exporter's constant folding made (names "onnx::Mul_181") is constant where it divides, compares or subtracts, scales
 *      by a table of more than one axis, or adds whole numbers or sines and cosines: grids, anchors, positions; weights come out as vectors
 *      along one axis, or in layers
 *   7. zeros that are the first state of a recurrent layer are constant, unless they have a name as in 4
 *   8. everything else trains */
#include "importers/onnx.h"

/* Inputs that carry no gradient, as bits; ALL: the operator has none. Operators that are not here: all inputs are differentiable. */
enum { ALL = 0xffff };
static const struct {
    const char *op;
    unsigned inputs;
} fixed_inputs[] = {
    { "If", 1 }, { "Reshape", 2 }, { "Expand", 2 }, { "Gather", 2 }, { "GatherElements", 2 }, { "GatherND", 2 }, { "Where", 1 }, { "Slice", 2 | 4 | 8 | 16 },
    { "Pad", 2 | 4 | 8 }, { "Squeeze", 2 }, { "Unsqueeze", 2 }, { "Clip", 2 | 4 }, { "Dropout", 2 | 4 }, { "Resize", 2 | 4 | 8 },
    { "Split", 2 }, { "Tile", 2 }, { "BatchNormalization", 8 | 16 }, { "ScatterND", 2 }, { "ScatterElements", 2 }, { "TopK", 2 },
    { "CumSum", 2 }, { "Trilu", 2 }, { "LSTM", 16 }, { "GRU", 16 }, { "RNN", 16 }, { "SoftmaxCrossEntropyLoss", 2 | 4 },
    { "NegativeLogLikelihoodLoss", 2 | 4 }, { "OneHot", ALL }, { "ReduceSum", 2 }, { "ReduceMean", 2 }, { "ReduceMax", 2 },
    { "ReduceMin", 2 }, { "ReduceProd", 2 }, { "ReduceL1", 2 }, { "ReduceL2", 2 }, { "ReduceLogSum", 2 }, { "ReduceLogSumExp", 2 },
    { "ReduceSumSquare", 2 }, { "Equal", ALL }, { "Greater", ALL }, { "GreaterOrEqual", ALL }, { "Less", ALL }, { "LessOrEqual", ALL },
    { "Not", ALL }, { "And", ALL }, { "Or", ALL }, { "Xor", ALL }, { "Shape", ALL }, { "Size", ALL }, { "ArgMax", ALL }, { "ArgMin", ALL },
    { "NonZero", ALL }, { "ConstantOfShape", ALL }, { "Range", ALL }, { "Floor", ALL }, { "Ceil", ALL }, { "Round", ALL }, { "Sign", ALL },
    { "IsNaN", ALL }, { "IsInf", ALL }, { "EyeLike", ALL },
    { "QuantizeLinear", 2 | 4 }, { "DequantizeLinear", 2 | 4 },
};

bool mest_onnx_differentiable(const mest_op *op, int input)
{
    if (op->no_grad)
        return false;
    for (size_t i = 0; i < sizeof fixed_inputs / sizeof *fixed_inputs; i++)
        if (!strcmp(fixed_inputs[i].op, op->name))
            return input >= 16 || !(fixed_inputs[i].inputs >> input & 1);
    return true;
}

typedef struct use {
    mest_id node;       /* first differentiable use, else first use; MEST_NONE: unused */
    int32_t input;
    bool statistic;     /* input 3 or 4 of a BatchNormalization */
    bool reached;       /* some output depends on it */
    bool only_scales;   /* every use is an elementwise operand */
    const char *origin; /* the lost parameter that the node's call names */
} use;

static bool is_one_of(const char *op, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(op, *list))
            return true;
    return false;
}

/* The node that gives the other operand of an Add. */
static const mest_node *operand_of_add(const mest_graph *g, const mest_node *n, int input)
{
    if (strcmp(n->op->name, "Add") || n->n_in != 2 || n->in[1 - input] == MEST_NONE)
        return NULL;
    mest_id producer = g->values[n->in[1 - input]].producer;
    return producer == MEST_NONE ? NULL : &g->nodes[producer];
}

/* An operand of one of these, with one element, is a factor, an exponent or a bound; a bias of one output after a MatMul is not. */
static bool scales(const mest_graph *g, const mest_node *n, int input)
{
    static const char *const ops[] = { "Mul", "Div", "Add", "Sub", "Pow", "Max", "Min", "Where", NULL };
    if (!is_one_of(n->op->name, ops))
        return false;
    const mest_node *before = operand_of_add(g, n, input);
    return !before || strcmp(before->op->name, "MatMul");
}

static void find_uses(const mest_graph *g, use *uses, uint8_t *live)
{
    for (int32_t i = 0; i < g->n_values; i++)
        uses[i] = (use){ .node = MEST_NONE, .only_scales = true };
    for (int32_t i = 0; i < g->n_outputs; i++)
        live[g->outputs[i]] = 1;
    for (mest_id i = g->n_nodes - 1; i >= 0; i--) {
        const mest_node *n = &g->nodes[i];
        bool wanted = false;
        for (int32_t k = 0; k < n->n_out; k++)
            wanted |= n->out[k] != MEST_NONE && live[n->out[k]];
        for (int32_t k = n->n_in - 1; k >= 0; k--) {
            mest_id v = n->in[k];
            if (v == MEST_NONE)
                continue;
            bool through = wanted && mest_onnx_differentiable(n->op, k);
            if (through)
                live[v] = 1;
            use *u = &uses[v];
            if (through || !u->reached) { /* nodes come last to first: the first one stays */
                u->node = i;
                u->input = k;
            }
            u->reached |= through;
            u->statistic |= (k == 3 || k == 4) && !strcmp(n->op->name, "BatchNormalization");
            u->only_scales &= scales(g, n, k);
        }
    }
}

/* The use behind operators that only move elements; `through` (may be NULL): the first of those. */
static const use *behind_movers(const mest_graph *g, const use *uses, const use *u, const char **through)
{
    static const char *const movers[] = { "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Concat", "Split", "Identity", "Cast", "Expand",
                                          "Flatten", NULL };
    for (int hops = 0; hops < 16; hops++) {
        const mest_node *n = &g->nodes[u->node];
        const use *next = n->n_out > 0 && n->out[0] != MEST_NONE ? &uses[n->out[0]] : NULL;
        if (!is_one_of(n->op->name, movers) || !next || next->node == MEST_NONE)
            break;
        if (through && !*through)
            *through = n->op->name;
        u = next;
    }
    return u;
}

/* "weight of Conv '/conv1/Conv'"; through operators that only move elements it names the one behind them. */
static const char *describe(onnx_importer *im, const use *uses, const use *u)
{
    static const struct {
        const char *op, *input[5];
    } names[] = {
        { "Conv", { "input", "weight", "bias" } },
        { "ConvTranspose", { "input", "weight", "bias" } },
        { "Gemm", { "weight", "weight", "bias" } },
        { "MatMul", { "weight", "weight" } },
        { "BatchNormalization", { "input", "scale", "bias", "running mean", "running variance" } },
        { "LayerNormalization", { "input", "scale", "bias" } },
        { "InstanceNormalization", { "input", "scale", "bias" } },
        { "GroupNormalization", { "input", "scale", "bias" } },
        { "PRelu", { "input", "slope" } },
        { "Gather", { "table" } },
        { "LSTM", { "input", "weight", "recurrent weight", "bias" } },
        { "GRU", { "input", "weight", "recurrent weight", "bias" } },
    };
    const mest_graph *g = &im->m->graph;
    const char *through = NULL;
    u = behind_movers(g, uses, u, &through);
    const mest_node *n = &g->nodes[u->node], *before = operand_of_add(g, n, u->input);
    if (before && !strcmp(before->op->name, "MatMul"))
        return mest_region_printf(&im->m->region, "bias of MatMul '%.200s'", before->name);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].op, n->op->name) && u->input < 5 && names[i].input[u->input])
            return mest_region_printf(&im->m->region, "%s of %s '%.200s'%s%s", names[i].input[u->input], n->op->name, n->name,
                                      through ? " through " : "", through ? through : "");
    return mest_region_printf(&im->m->region, "input %d of %s '%.200s'%s%s", u->input, n->op->name, n->name, through ? " through " : "",
                              through ? through : "");
}

enum { MASK_MOST = 1 << 22 };

/* What the numbers of a small initializer look like. A row is the last axis. */
typedef struct numbers {
    bool known, readable;
    bool huge;                  /* one is infinite or larger than weights are, or no number */
    bool zero, one, other;      /* which there are */
    bool whole, unit;           /* all are whole numbers; all lie in -1..1 */
    bool first_zero, first_one, first_other; /* which there are in the first row */
} numbers;

static const numbers *look(const mest_param *p, numbers *n)
{
    const int64_t row = p->shape.rank ? p->shape.dim[p->shape.rank - 1] : 1;
    float x[256];
    if (n->known)
        return n;
    *n = (numbers){ .known = true, .readable = true, .whole = true, .unit = true };
    for (int64_t at = 0; at < p->count; at += 256) {
        const int64_t count = p->count - at < 256 ? p->count - at : 256;
        if (mest_payload_read(&p->payload, at, count, x, NULL) != MEST_OK) {
            n->readable = false;
            return n;
        }
        for (int64_t i = 0; i < count; i++) {
            const bool zero = x[i] == 0, one = x[i] == 1;
            n->huge |= !(x[i] > -9999 && x[i] < 1e30f);
            n->whole &= x[i] > -0x1p31f && x[i] < 0x1p31f && x[i] == (float)(int32_t)x[i];
            n->unit &= x[i] >= -1 && x[i] <= 1;
            n->zero |= zero;
            n->one |= one;
            n->other |= !zero && !one;
            if (at + i < row) {
                n->first_zero |= zero;
                n->first_one |= one;
                n->first_other |= !zero && !one;
            }
        }
    }
    return n;
}

static int long_axes(const mest_param *p)
{
    int axes = 0;
    for (int i = 0; i < p->shape.rank; i++)
        axes += p->shape.dim[i] > 1;
    return axes;
}

/* Numbers that no weight has: large ones, which are added to attention scores, or nothing but zeros and ones in a matrix. Only of elementwise
 * operands, which are small, as they are or moved. */
static bool is_mask(const mest_graph *g, const mest_param *p, numbers *seen, const use *uses, const use *u)
{
    static const char *const ops[] = { "Add", "Sub", "Mul", "Where", "Min", "Max", "Expand", NULL };
    if (p->count > MASK_MOST || !(is_one_of(g->nodes[u->node].op->name, ops) || is_one_of(g->nodes[behind_movers(g, uses, u, NULL)->node].op->name, ops)))
        return false;
    const numbers *n = look(p, seen); /* zeros and ones: a factor of attention, or what is kept of a picture */
    return n->huge || (n->readable && long_axes(p) >= 2 && n->zero && n->one && !n->other);
}

/* Subtracted from an input of the network, or dividing one from which only such was subtracted: the mean and deviation of the data. */
static bool normalises_input(const mest_graph *g, const use *u)
{
    const mest_node *n = &g->nodes[u->node];
    for (int hops = 0; hops < 2; hops++) {
        if ((strcmp(n->op->name, "Sub") && strcmp(n->op->name, "Div")) || n->n_in != 2 || (hops == 0 && u->input != 1) || n->in[0] == MEST_NONE)
            return false;
        const mest_value *x = &g->values[n->in[0]];
        if (x->kind == MEST_VALUE_INPUT)
            return true;
        if (x->producer == MEST_NONE)
            return false;
        n = &g->nodes[x->producer];
        if (n->n_in == 2 && n->in[1] != MEST_NONE && g->values[n->in[1]].kind != MEST_VALUE_PARAM && g->values[n->in[1]].kind != MEST_VALUE_CONST)
            return false;
    }
    return false;
}

/* All whole numbers, or all of the first row 0 or 1 and none beyond 1: a grid, or sines and cosines of positions. */
static bool is_table(const mest_param *p, numbers *seen)
{
    const numbers *n = look(p, seen);
    return n->readable && (n->whole || (p->shape.rank >= 2 && n->unit && !n->first_other));
}

/* Sines and cosines of positions that are added: the first row has nothing but zeros and ones, of both. */
static bool is_positions(const mest_graph *g, const mest_param *p, numbers *seen, const use *uses, const use *u)
{
    const int64_t row = p->shape.rank >= 2 ? p->shape.dim[p->shape.rank - 1] : 0;
    if (row < 2 || row == p->count || p->count > MASK_MOST || strcmp(g->nodes[behind_movers(g, uses, u, NULL)->node].op->name, "Add"))
        return false;
    const numbers *n = look(p, seen);
    return n->readable && n->unit && n->first_zero && n->first_one && !n->first_other && n->other;
}

/* An elementwise operand that the older exporter folded together, and that no parameter looks like. */
static bool is_folded_constant(const mest_graph *g, const mest_param *p, numbers *seen, const use *u)
{
    static const char *const never[] = { "Sub", "Div", "Pow", "Where", "Min", "Max", NULL };
    const char *op = g->nodes[u->node].op->name;
    if (strncmp(p->name, "onnx::", 6) || p->count > MASK_MOST)
        return false;
    const int axes = long_axes(p);
    return is_one_of(op, never) || (!strcmp(op, "Mul") && axes > 1) || (!strcmp(op, "Add") && axes > 1 && is_table(p, seen));
}

/* In a file whose exporter names the parameters of the program: does this one, which has a made-up name, come from any? */
static bool comes_from_none(onnx_importer *im, const mest_param *p, const use *u, const char **reason)
{
    static const char *const layers[] = { "Conv", "ConvTranspose", "Gemm", "LSTM", "GRU", "RNN", NULL };
    const mest_node *n = &im->m->graph.nodes[u->node];
    const char *origin = u->origin;
    *reason = NULL;
    if (mest_onnx_is_filler(n->op->name, u->input, &p->payload)) {
        *reason = "ones or zeros for a normalisation without scale and shift";
        return true;
    }
    if (!origin && !is_one_of(n->op->name, layers) && !(origin = mest_onnx_scope_origin(im, n, p->name))) {
        *reason = "made by the exporter from no parameter";
        return true;
    }
    if (origin)
        *reason = mest_region_printf(&im->m->region, "'%.150s' of the network, input %d of %s '%.150s'", origin, u->input, n->op->name, n->name);
    return false;
}

/* Zeros that an exporter made for the first state of a recurrent layer, where the batch size is fixed. */
static bool is_first_state(const mest_graph *g, const mest_param *p, const use *u)
{
    static const char *const recurrent[] = { "LSTM", "GRU", "RNN", NULL };
    float first = 1;
    return u->input >= 5 && u->input <= 6 && is_one_of(g->nodes[u->node].op->name, recurrent) && p->count > 0 &&
           mest_payload_read(&p->payload, 0, 1, &first, NULL) == MEST_OK && first == 0 && mest_onnx_is_uniform(&p->payload);
}

/* The older exporter calls nodes "/fc/Gemm", and what it folds together "onnx::Mul_181" or, long ago, "181". */
static bool named_in_network(const onnx_importer *im, const char *name)
{
    bool number = true;
    for (const char *c = name; *c; c++)
        number &= *c >= '0' && *c <= '9';
    return im->older && !number && strncmp(name, "onnx::", 6) != 0 && *name != '/';
}

static const char *decide(onnx_importer *im, mest_param *p, onnx_kind kind, const use *uses, const use *u)
{
    p->role = MEST_ROLE_CONSTANT;
    if (u->node == MEST_NONE)
        return "used by no node";
    if (u->statistic) {
        if (u->reached)
            mest_logf(&im->m->heap, MEST_LOG_WARNING, "'%s' is a running statistic and a weight at once; it will not be trained", p->name);
        p->role = MEST_ROLE_STATISTIC;
        return describe(im, uses, u);
    }
    p->stated = kind == KIND_BUFFER || kind == KIND_CONSTANT;
    if (kind == KIND_BUFFER)
        return "BUFFER in the file's metadata";
    if (kind == KIND_CONSTANT)
        return "CONSTANT_TENSOR in the file's metadata";
    if (!u->reached)
        return "no output depends on it through a differentiable input";
    numbers seen = { .known = false };
    const bool known = kind == KIND_PARAMETER || (kind == KIND_UNKNOWN && named_in_network(im, p->name));
    if (!known && p->shape.rank == 0)
        return "a scalar";
    if (!known && p->count <= 1 && u->only_scales)
        return "one element that only scales";
    if (!known && is_first_state(&im->m->graph, p, u))
        return "zeros, the first state of a recurrent layer";
    if (kind == KIND_UNKNOWN && is_mask(&im->m->graph, p, &seen, uses, u))
        return "infinite or huge numbers, or only 0 and 1: a mask";
    if (kind == KIND_UNKNOWN && is_positions(&im->m->graph, p, &seen, uses, u))
        return "sines and cosines of positions";
    if (kind == KIND_UNKNOWN && normalises_input(&im->m->graph, u))
        return "mean or deviation of the data: it acts on an input";
    if (kind == KIND_UNKNOWN && is_folded_constant(&im->m->graph, p, &seen, u))
        return "a table that the exporter folded together";
    const char *reason = NULL;
    if (kind == KIND_UNKNOWN && im->n_origins && comes_from_none(im, p, u, &reason))
        return reason;
    p->role = MEST_ROLE_TRAINABLE;
    return reason ? reason : describe(im, uses, u);
}

/* The use of value i in the file: behind the Expand that was put before it where the exporter had folded that. */
static use *use_in_file(const mest_graph *g, use *uses, mest_id i)
{
    const mest_node *n = uses[i].node != MEST_NONE ? &g->nodes[uses[i].node] : NULL;
    const bool spread = n && n->origin < 0 && !strcmp(n->op->name, "Expand") && n->out[0] != MEST_NONE && uses[n->out[0]].node != MEST_NONE;
    const size_t length = spread ? strlen(n->name) : 0;
    return length > 7 && !strcmp(n->name + length - 7, "/spread") ? &uses[n->out[0]] : &uses[i];
}

mest_status mest_onnx_roles(onnx_importer *im)
{
    mest_graph *g = &im->m->graph;
    size_t n = (size_t)g->n_values + 1;
    use *uses = mest_alloc(&im->m->heap, n, sizeof *uses);
    uint8_t *live = mest_calloc(&im->m->heap, n, 1);
    mest_status status = MEST_OK;
    if (!uses || !live) {
        status = mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': no memory to find what trains among %d values", im->path, g->n_values);
        goto out;
    }
    find_uses(g, uses, live);
    for (int32_t i = 0; i < im->m->n_params; i++)
        im->m->params[i].role_reason = NULL;
    for (int32_t i = 0; i < g->n_values; i++) { /* what calls name comes before what only a module suggests */
        use *u = use_in_file(g, uses, i);
        if (g->values[i].kind == MEST_VALUE_PARAM && im->m->params[g->values[i].param].role == (mest_role)KIND_UNKNOWN && u->reached &&
            im->m->params[g->values[i].param].count > 1 && !mest_onnx_is_filler(g->nodes[u->node].op->name, u->input, &im->m->params[g->values[i].param].payload))
            u->origin = mest_onnx_called_origin(im, &g->nodes[u->node], u->input, &im->m->params[g->values[i].param]);
    }
    for (int32_t i = 0; i < g->n_values; i++) {
        mest_value *v = &g->values[i];
        if (v->kind != MEST_VALUE_PARAM)
            continue;
        mest_param *p = &im->m->params[v->param];
        const onnx_kind kind = (onnx_kind)p->role; /* the importer left it there */
        p->role_reason = decide(im, p, kind, uses, use_in_file(g, uses, i));
        if (!p->role_reason) {
            status = mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path);
            goto out;
        }
        if (p->role != MEST_ROLE_CONSTANT || uses[i].node == MEST_NONE)
            continue;
        /* what never changes is data of the graph: shape rules and folding may look at it */
        MEST_TRY_OUT(mest_onnx_constant_data(im, p->name, &p->shape, &p->payload, &v->type, &v->data));
        v->kind = MEST_VALUE_CONST;
        v->param = -1;
    }
    for (int32_t i = 0; i < im->m->n_params; i++)
        if (!im->m->params[i].role_reason) {
            im->m->params[i].role = MEST_ROLE_CONSTANT;
            im->m->params[i].role_reason = "used by no node";
        }
    for (int32_t i = 0; i < im->n_tensors; i++)
        if (im->tensors[i].mirror)
            im->m->params[im->tensors[i].param].role_reason = im->tensors[i].twin      ? "copy of a weight that the network uses twice; the other one is used instead"
                                                              : im->tensors[i].repeats ? "copies of a parameter, one a sample; that is used instead"
                                                                                       : "transposed copy of an embedding, which is used instead";
    mest_onnx_tell_lost(im);
out:
    mest_free(&im->m->heap, uses, n, sizeof *uses);
    mest_free(&im->m->heap, live, n, 1);
    return status;
}
