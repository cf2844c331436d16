/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions into which a BatchNormalization was folded at export. The file does not say so; exporters leave traces:
 *   - PyTorch's older exporter gives the new weight and bias names of its own, 'onnx::Conv_26'
 *   - its newer one notes the rule in the node's metadata, 'FuseBatchNormIntoConv'
 *   - tf2onnx and ONNX Runtime's optimizer have it in the new names, '.._fused_bn', 'ConvBnFusion_W_..'
 * Without any of them, and with no normalisation in the network, every Conv with a bias in front of an activation or a sum may be one. */
#include "importers/onnx.h"
#include "importers/wire.h"

enum { MODEL_GRAPH = 7, GRAPH_NODE = 1, NODE_METADATA = 9, ENTRY_VALUE = 2, LEAST = 3 };

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

/* The scan has been over the file: what is read here is well formed. */
static bool next(mest_wire *wire, mest_wire_field *f) { return wire->at < wire->end && !mest_wire_next(wire, f); }

static bool notes_a_fold(const uint8_t *file, const mest_wire_field *node)
{
    static const char rule[] = "FuseBatchNormInto";
    mest_wire fields = { file, node->begin, node->end };
    mest_wire_field f, part;
    while (next(&fields, &f)) {
        mest_wire entry = { file, f.begin, f.end };
        while (f.number == NODE_METADATA && f.wire == MEST_WIRE_BYTES && next(&entry, &part))
            if (part.number == ENTRY_VALUE && part.wire == MEST_WIRE_BYTES && memmem(file + part.begin, part.end - part.begin, rule, sizeof rule - 1))
                return true;
    }
    return false;
}

/* noted[i]: metadata of graph.node i. */
static void read_notes(const onnx_importer *im, uint8_t *noted, size_t n)
{
    const mest_mapping *file = im->m->mappings;
    mest_wire model = { file->bytes, 0, file->size };
    mest_wire_field f, node;
    while (next(&model, &f)) {
        mest_wire graph = { file->bytes, f.begin, f.end };
        size_t i = 0;
        while (f.number == MODEL_GRAPH && f.wire == MEST_WIRE_BYTES && next(&graph, &node))
            if (node.number == GRAPH_NODE && i++ < n)
                noted[i - 1] = notes_a_fold(file->bytes, &node);
    }
}

static const char *sign_of(const char *weight, bool noted)
{
    if (noted)
        return "the exporter's note 'FuseBatchNormIntoConv'";
    if (!strncmp(weight, "onnx::Conv_", 11))
        return "the exporter's own name of the weight";
    if (strstr(weight, "fused_bn") || strstr(weight, "ConvBnFusion"))
        return "the name of the weight";
    return NULL;
}

static bool is_one_of(const char *op, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(op, *list))
            return true;
    return false;
}

/* Behind a global pool there is one pixel, as in squeeze-and-excite: nothing was normalised there. */
static bool behind_a_pool(const mest_graph *g, mest_id v)
{
    static const char *const pools[] = { "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", NULL };
    for (int hops = 0; hops < 8 && v != MEST_NONE && g->values[v].producer != MEST_NONE; hops++) {
        const mest_node *n = &g->nodes[g->values[v].producer];
        if (is_one_of(n->op->name, pools))
            return true;
        v = n->n_in ? n->in[0] : MEST_NONE;
    }
    return false;
}

static bool before_an_activation(const mest_graph *g, mest_id y)
{
    static const char *const ops[] = { "Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSwish", "HardSigmoid", "Sigmoid", "Mul", "Mish", "Softplus",
                                       "Tanh", "Gelu", "Add", "Swish", "Conv", "GlobalAveragePool", NULL }; /* Conv: a linear bottleneck */
    bool any = false;
    for (int i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == y)
            return false;
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == y) {
                if (!is_one_of(g->nodes[i].op->name, ops))
                    return false;
                any = true;
            }
    return any;
}

static bool normalises(const mest_node *n)
{
    static const char *const ops[] = { "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization", NULL };
    return is_one_of(n->op->name, ops);
}

mest_status mest_onnx_find_folded(onnx_importer *im)
{
    mest_model *m = im->m;
    mest_graph *g = &m->graph;
    size_t n_file = im->pb->graph->n_node;
    uint8_t *noted = mest_region_alloc(&im->scratch, n_file + 1, 1);
    int32_t *readers = mest_region_alloc(&im->scratch, (size_t)g->n_values + 1, sizeof *readers);
    m->folded = mest_region_alloc(&m->region, (size_t)g->n_nodes + 1, sizeof *m->folded);
    if (!noted || !readers || !m->folded)
        return out_of_memory(im);
    read_notes(im, noted, n_file);
    bool normalised = false;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        normalised |= normalises(&g->nodes[i]);
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] != MEST_NONE)
                readers[g->nodes[i].in[k]]++;
    }
    for (int pass = 0; pass < 2 && m->n_folded == 0; pass++) { /* traces first; what only looks so, where there are none */
        for (mest_id i = 0; i < g->n_nodes && (pass == 0 || !normalised); i++) {
            const mest_node *n = &g->nodes[i];
            if (strcmp(n->op->name, "Conv") || n->in[1] == MEST_NONE || g->values[n->in[1]].kind != MEST_VALUE_PARAM || readers[n->in[1]] != 1)
                continue; /* a weight of two layers cannot take the statistics of both */
            bool bias = n->n_in > 2 && n->in[2] != MEST_NONE, own_bias = bias && g->values[n->in[2]].kind == MEST_VALUE_PARAM && readers[n->in[2]] == 1;
            if ((bias && !own_bias) || (!bias && n->origin < 0))
                continue; /* no place for the bias: shared, or the node is inside of a function */
            const char *sign = sign_of(m->params[g->values[n->in[1]].param].name, n->origin >= 0 && (size_t)n->origin < n_file && noted[n->origin]);
            bool looks_so = pass == 1 && bias && before_an_activation(g, n->out[0]) && !behind_a_pool(g, n->in[0]);
            if (sign || looks_so)
                m->folded[m->n_folded++] = (mest_folded){ .node = i, .sign = sign };
        }
    }
    if (m->n_folded && !m->folded[0].sign && m->n_folded < LEAST)
        m->n_folded = 0; /* one or two layers with a bias say nothing */
    return MEST_OK;
}
