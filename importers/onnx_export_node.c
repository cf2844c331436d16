/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes on their way out. Most are copied byte for byte; BatchNormalization and Dropout can be brought to the form for inference or for
 * training, since a runtime takes the file at its word: in training form it normalises with the statistics of the batch it is given. */
#include "importers/onnx_write.h"
#include "ops/nn.h"
#include "runtime/channels.h"

enum { NODE_OUTPUT = 2, NODE_OP = 4, NODE_ATTRIBUTE = 5, NODE_DOMAIN = 7, ATTRIBUTE_NAME = 1, ATTRIBUTE_I = 3, ATTRIBUTE_TYPE = 20, TYPE_INT = 2 };

static const char dropout_switch[] = "mest.dropout.training";

/* A node on its way out. */
typedef struct node_job {
    const mest_wire_field *node;
    const mest_onnx_move *moved; /* its inputs that read other initializers */
    int32_t n_moved;
    const mest_bn_fold *fold;       /* it needs the bias of this */
    int64_t group;               /* the attribute of that name becomes this; 0: as it is */
} node_job;

/* Operator of a NodeProto; '\0' for one that has one form only. 'B': BatchNormalization, 'D': Dropout. */
static mest_status find_op(onnx_writer *w, const mest_wire_field *node, char *op)
{
    mest_wire wire = { w->source->bytes, node->begin, node->end };
    mest_wire_field f;
    bool ours = true;
    *op = 0;
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (f.number == NODE_OP)
            *op = onnx_is_text(w, &f, "BatchNormalization") ? 'B' : onnx_is_text(w, &f, "Dropout") ? 'D' : 0;
        else if (f.number == NODE_DOMAIN)
            ours = onnx_is_text(w, &f, "") || onnx_is_text(w, &f, "ai.onnx");
    }
    if (!ours)
        *op = 0;
    return MEST_OK;
}

static mest_status is_attribute(onnx_writer *w, const mest_wire_field *attribute, const char *name, bool *yes)
{
    mest_wire wire = { w->source->bytes, attribute->begin, attribute->end };
    mest_wire_field f;
    *yes = false;
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        *yes |= f.number == ATTRIBUTE_NAME && onnx_is_text(w, &f, name);
    }
    return MEST_OK;
}

/* Input number `input` of the node: as it is, or the initializer that it reads now. */
static mest_status put_input(onnx_writer *w, const node_job *job, const mest_wire_field *f, int32_t input)
{
    for (int32_t i = 0; i < job->n_moved; i++)
        if (job->moved[i].input == input)
            return onnx_put_text(w, NODE_INPUT, w->m->params[job->moved[i].param].name);
    return onnx_copy_field(w, f);
}

static mest_status group_body(onnx_writer *w, const void *what)
{
    MEST_TRY(onnx_put_text(w, ATTRIBUTE_NAME, "group"));
    MEST_TRY(onnx_put_int(w, ATTRIBUTE_I, *(const int64_t *)what));
    return onnx_put_int(w, ATTRIBUTE_TYPE, TYPE_INT);
}

/* A node that keeps its form, a depthwise convolution with the channels it has now. */
static mest_status plain_body(onnx_writer *w, const void *what)
{
    const node_job *job = what;
    mest_wire wire = { w->source->bytes, job->node->begin, job->node->end };
    mest_wire_field f;
    int32_t inputs = 0;
    bool replaced = false;
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (f.number == NODE_ATTRIBUTE && job->group) {
            MEST_TRY(is_attribute(w, &f, "group", &replaced));
            if (replaced)
                continue;
        }
        MEST_TRY(f.number == NODE_INPUT ? put_input(w, job, &f, inputs++) : onnx_copy_field(w, &f));
    }
    return job->group ? onnx_put_message(w, NODE_ATTRIBUTE, group_body, &job->group) : MEST_OK;
}

static mest_status training_mode_body(onnx_writer *w, const void *what)
{
    (void)what;
    MEST_TRY(onnx_put_text(w, ATTRIBUTE_NAME, "training_mode"));
    MEST_TRY(onnx_put_int(w, ATTRIBUTE_I, 1));
    return onnx_put_int(w, ATTRIBUTE_TYPE, TYPE_INT);
}

/* An output that has no name yet: "Y/statistic2" for output 2 of Y. */
static mest_status put_statistic(onnx_writer *w, const mest_wire_field *y, int number)
{
    char end[] = "/statistic0";
    end[sizeof end - 2] = (char)('0' + number);
    MEST_TRY(onnx_put_length(w, NODE_OUTPUT, y->end - y->begin + sizeof end - 1));
    MEST_TRY(onnx_put(w, w->source->bytes + y->begin, y->end - y->begin));
    return onnx_put(w, end, sizeof end - 1);
}

/* One output for inference; all the operator has for training. */
static mest_status batch_normalization_body(onnx_writer *w, const void *what)
{
    const node_job *job = what;
    const bool training = w->form == ONNX_FORM_TRAINING, has_mode = w->m->opset >= 14;
    const int wanted = !training ? 1 : has_mode ? 3 : 5;
    mest_wire wire = { w->source->bytes, job->node->begin, job->node->end };
    mest_wire_field f, y = { 0 };
    int outputs = 0, inputs = 0;
    bool mode = false;
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (f.number == NODE_OUTPUT) {
            y = outputs ? y : f;
            bool empty = f.begin == f.end;
            if (++outputs <= wanted)
                MEST_TRY(empty && outputs > 1 ? put_statistic(w, &y, outputs - 1) : onnx_copy_field(w, &f));
            continue;
        }
        if (f.number == NODE_ATTRIBUTE) {
            MEST_TRY(is_attribute(w, &f, "training_mode", &mode));
            if (mode)
                continue;
        }
        MEST_TRY(f.number == NODE_INPUT ? put_input(w, job, &f, inputs++) : onnx_copy_field(w, &f));
    }
    for (; outputs < wanted; outputs++)
        MEST_TRY(put_statistic(w, &y, outputs));
    return training && has_mode ? onnx_put_message(w, NODE_ATTRIBUTE, training_mode_body, NULL) : MEST_OK;
}

/* The third input, from opset 12 on, says whether it acts. */
static mest_status dropout_body(onnx_writer *w, const void *what)
{
    const node_job *job = what;
    mest_wire wire = { w->source->bytes, job->node->begin, job->node->end };
    mest_wire_field f;
    int inputs = 0;
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (f.number != NODE_INPUT || ++inputs < 3)
            MEST_TRY(f.number == NODE_INPUT ? put_input(w, job, &f, inputs - 1) : onnx_copy_field(w, &f));
    }
    if (w->form != ONNX_FORM_TRAINING)
        return MEST_OK;
    for (; inputs < 2; inputs++)
        MEST_TRY(onnx_put_text(w, NODE_INPUT, ""));
    w->dropout_switch = true;
    return onnx_put_text(w, NODE_INPUT, dropout_switch);
}

/* A Conv without a bias that gets one from the BatchNormalization folded into it. */
static const mest_bn_fold *needs_bias(const onnx_writer *w, int32_t number)
{
    for (int32_t i = 0; i < w->m->n_folds; i++)
        if (w->m->folds[i].origin == number && w->m->folds[i].bias < 0)
            return &w->m->folds[i];
    return NULL;
}

static mest_status put_bias_name(onnx_writer *w, uint32_t field, const mest_bn_fold *fold)
{
    static const char end[] = ".folded_bias";
    const char *weight = w->m->params[fold->weight].name;
    MEST_TRY(onnx_put_length(w, field, strlen(weight) + sizeof end - 1));
    MEST_TRY(onnx_put(w, weight, strlen(weight)));
    return onnx_put(w, end, sizeof end - 1);
}

static mest_status conv_body(onnx_writer *w, const void *what)
{
    const node_job *job = what;
    mest_wire wire = { w->source->bytes, job->node->begin, job->node->end };
    mest_wire_field f;
    int inputs = 0;
    while (wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (f.number != NODE_INPUT || ++inputs < 3) /* a third one was empty */
            MEST_TRY(f.number == NODE_INPUT ? put_input(w, job, &f, inputs - 1) : onnx_copy_field(w, &f));
    }
    return put_bias_name(w, NODE_INPUT, job->fold);
}

/* Channels of a depthwise convolution that has fewer than in the file; 0: it has not, or is none. */
static int64_t shrunk_group(const onnx_writer *w, int32_t number)
{
    const mest_channels *c = w->options->shrunk ? w->m->channels : NULL;
    for (int32_t i = 0; c && i < c->n_convs; i++)
        if (w->m->graph.nodes[c->conv[i].node].origin == number)
            return w->m->params[c->conv[i].param].shape.dim[0];
    return 0;
}

mest_status onnx_put_node(onnx_writer *w, const mest_wire_field *node, int32_t number, const mest_onnx_move *moved, int32_t n_moved)
{
    char op = 0;
    const node_job job = { node, moved, n_moved, needs_bias(w, number), shrunk_group(w, number) };
    if (w->form != ONNX_FORM_AS_IS)
        MEST_TRY(find_op(w, node, &op));
    onnx_body body = op == 'B' ? batch_normalization_body : op == 'D' && w->m->opset >= 12 ? dropout_body : job.fold ? conv_body : n_moved || job.group ? plain_body : NULL;
    return body ? onnx_put_message(w, GRAPH_NODE, body, &job) : onnx_copy_field(w, node);
}

/* ---- initializers that the file did not have: the constant `true` of Dropout in training form, biases ---- */
static mest_status switch_body(onnx_writer *w, const void *what)
{
    (void)what;
    MEST_TRY(onnx_put_int(w, TENSOR_TYPE, MEST_BOOL));
    MEST_TRY(onnx_put_text(w, TENSOR_NAME, dropout_switch));
    MEST_TRY(onnx_put_length(w, TENSOR_RAW, 1));
    return onnx_put(w, "\1", 1);
}

static mest_status bias_body(onnx_writer *w, const void *what)
{
    const mest_bn_fold *fold = what;
    const int64_t n = w->m->params[fold->scale].count;
    double factor, shift;
    MEST_TRY(onnx_put_int(w, TENSOR_DIMS, n));
    MEST_TRY(onnx_put_int(w, TENSOR_TYPE, MEST_F32));
    MEST_TRY(put_bias_name(w, TENSOR_NAME, fold));
    MEST_TRY(onnx_put_length(w, TENSOR_RAW, (uint64_t)n * sizeof(float)));
    for (int64_t c = 0; c < n; c++) {
        mest_fold_channel(w->m, fold, c, &factor, &shift);
        const float x = (float)shift;
        MEST_TRY(onnx_put(w, &x, sizeof x));
    }
    return MEST_OK;
}

mest_status onnx_put_added(onnx_writer *w)
{
    for (int32_t i = 0; i < w->m->n_folds; i++)
        if (w->m->folds[i].bias < 0 && w->m->folds[i].origin >= 0)
            MEST_TRY(onnx_put_message(w, GRAPH_INITIALIZER, bias_body, &w->m->folds[i]));
    for (int32_t i = 0; i < w->notes->n_dense; i++) /* a file that was exported so before has it */
        if (!strcmp(w->notes->dense[i].name, dropout_switch))
            return MEST_OK;
    return w->dropout_switch ? onnx_put_message(w, GRAPH_INITIALIZER, switch_body, NULL) : MEST_OK;
}

void onnx_warn_training(const onnx_writer *w)
{
    const mest_graph *g = &w->m->graph;
    int n = 0;
    for (mest_id i = 0; i < g->n_nodes && w->form == ONNX_FORM_AS_IS; i++)
        n += strcmp(g->nodes[i].op->name, "BatchNormalization") == 0 && ((const mest_bn_params *)g->nodes[i].params)->training_mode;
    if (n)
        mest_logf((mest_heap *)(uintptr_t)&w->m->heap, MEST_LOG_WARNING, "export: %d BatchNormalization %s in training form, as in the file it came from: other "
                  "runtimes normalise each batch by its own statistics; the form \"inference\" (--export-form inference) gives them the running ones", n,
                  n == 1 ? "is" : "are");
}

/* Functions are copied as they are: nodes in them keep their form, which the user should know. */
mest_status onnx_warn_functions(onnx_writer *w, const mest_wire_field *function)
{
    enum { FUNCTION_NODE = 7 };
    mest_wire wire = { w->source->bytes, function->begin, function->end };
    mest_wire_field f;
    char op;
    while (w->to && w->form != ONNX_FORM_AS_IS && wire.at < wire.end) {
        MEST_TRY(onnx_next_field(w, &wire, &f));
        if (f.number != FUNCTION_NODE)
            continue;
        MEST_TRY(find_op(w, &f, &op));
        if (op)
            mest_logf((mest_heap *)(uintptr_t)&w->m->heap, MEST_LOG_WARNING, "export: %s in a local function keeps the form it has in the file",
                      op == 'B' ? "BatchNormalization" : "Dropout");
    }
    return MEST_OK;
}
