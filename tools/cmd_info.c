/* SPDX-License-Identifier: Apache-2.0 */
/* --info: what is in the model, which parameters would train, and by which rule. With --sparsity: what would be stored. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "json.h"
#include "report.h"

static const char *role_name(mest_role role)
{
    switch (role) {
    case MEST_ROLE_TRAINABLE: return "trainable";
    case MEST_ROLE_STATISTIC: return "statistic";
    case MEST_ROLE_CONSTANT: return "constant";
    case MEST_ROLE_FROZEN: return "frozen";
    }
    return "unknown";
}

/* ONNX TensorProto.DataType */
static const char *dtype_name(int dtype)
{
    static const char *const names[] = {"undefined", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string",
                                        "bool", "float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"};
    return dtype >= 0 && dtype < (int)(sizeof names / sizeof *names) ? names[dtype] : "other";
}

/* folded and fused are -1 where the file leaves shapes open that matter: --data tells them. */
static mest_node_counts count_nodes(tool *t)
{
    mest_train_config c;
    mest_session *session = NULL;
    mest_node_counts n = {.struct_size = sizeof n};
    mest_tensor_info in = {.struct_size = sizeof in};
    bool fixed = mest_model_input_count(t->model) > 0 && mest_model_input(t->model, 0, &in, NULL) == MEST_OK && in.rank > 0 && in.dim[0] > 0;
    mest_train_config_init(&c);
    c.threads = 1;
    c.no_fuse = t->s->no_fuse;
    c.output = t->s->output_name;
    if (mest_session_create(&session, t->model, &c, NULL) != MEST_OK || (t->data.info && mest_session_expect(session, &t->data_info, NULL) != MEST_OK) ||
        mest_session_node_counts(session, fixed ? in.dim[0] : 1, &n, NULL) != MEST_OK)
        n.folded = n.fused = -1;
    mest_session_destroy(session);
    return n;
}

static void print_summary(tool *t, const mest_model_summary *m, const mest_node_counts *n)
{
    char size[32], external[32];
    report_bytes(size, sizeof size, m->file_bytes);
    report_bytes(external, sizeof external, m->external_bytes);
    printf("model       %s (%s%s%s)\n", t->s->model, size, m->external_bytes ? ", external data " : "", m->external_bytes ? external : "");
    printf("graph       %s, opset %" PRId64 ", IR %" PRId64 "%s%s\n", *m->graph_name ? report_plain(m->graph_name).s : "(no name)", m->opset, m->ir_version,
           *m->producer ? ", from " : "", report_plain(m->producer).s);
    if (n->folded >= 0)
        printf("nodes       %d in the file, %d after folding, %d after fusion (inference, views not counted)\n", n->file, n->folded, n->fused);
    else
        printf("nodes       %d in the file; after folding and fusion: not known without samples (--data)\n", n->file > 0 ? n->file : m->n_nodes);
    printf("parameters  %d trainable (%" PRId64 " numbers), %d statistics, %d constants", m->n_trainable, m->trainable_elements,
           m->n_statistics, m->n_constants);
    if (m->n_untied)
        printf(", %d untied", m->n_untied);
    putchar('\n');
    mest_folded_info folded = {.struct_size = sizeof folded};
    if (mest_model_folded_count(t->model) > 0 && mest_model_folded(t->model, 0, &folded, NULL) == MEST_OK)
        printf("batch norm  %s folded into %d Conv nodes at export (%s): --bn unfold trains with it\n", folded.sign ? "was" : "may have been",
               mest_model_folded_count(t->model), folded.sign ? report_plain(folded.sign).s : "no normalisation, and biases in front of activations");
    if (tool_model_normalisation(t))
        printf("inputs      trained with %s\n", report_plain(tool_model_normalisation(t)).s);
}

static void json_summary(cJSON *event, const tool *t, const mest_model_summary *m, const mest_node_counts *n)
{
    json_text(event, "model", t->s->model);
    json_number(event, "file_bytes", (double)m->file_bytes);
    json_number(event, "external_bytes", (double)m->external_bytes);
    json_text(event, "graph", m->graph_name);
    json_text(event, "producer", m->producer);
    json_number(event, "opset", (double)m->opset);
    json_number(event, "ir_version", (double)m->ir_version);
    json_number(event, "nodes", m->n_nodes);
    json_number(event, "file_nodes", n->file > 0 ? n->file : m->n_nodes);
    json_number(event, "folded_nodes", n->folded < 0 ? NAN : n->folded);
    json_number(event, "fused_nodes", n->folded < 0 ? NAN : n->fused);
    json_number(event, "trainable", m->n_trainable);
    json_number(event, "trainable_elements", (double)m->trainable_elements);
    json_number(event, "statistics", m->n_statistics);
    json_number(event, "constants", m->n_constants);
    json_number(event, "untied", m->n_untied);
    mest_folded_info folded = {.struct_size = sizeof folded};
    json_number(event, "folded", mest_model_folded_count(t->model));
    if (mest_model_folded_count(t->model) > 0 && mest_model_folded(t->model, 0, &folded, NULL) == MEST_OK)
        json_text(event, "folded_sign", folded.sign);
    json_text(event, "normalisation", tool_model_normalisation(t));
}

typedef mest_status (*getter)(const mest_model *model, int index, mest_tensor_info *info, mest_error *err);

/* Inputs, outputs or parameters, one line or event each. */
static int list(tool *t, const char *kind, int count, getter get)
{
    bool parameters = strcmp(kind, "parameter") == 0;
    if (!t->s->json && parameters)
        printf("\n%-10s %-36s %-8s %-20s %-8s %9s  %s\n", "role", "parameter", "type", "shape", "scheme", "sparsity", "because");
    for (int i = 0; i < count; i++) {
        mest_tensor_info info = {.struct_size = sizeof info};
        mest_error err = {0};
        char shape[96];
        if (get(t->model, i, &info, &err) != MEST_OK)
            return tool_fail(t, STAGE_MODEL, &err);
        report_shape(shape, sizeof shape, info.dim, info.rank);
        if (!t->s->json) {
            if (parameters)
                printf("%-10s %-36s %-8s %-20s %-8s %7.2f %%  %s\n", role_name(info.role), report_plain(info.name).s, dtype_name(info.dtype), shape,
                       info.scheme ? info.scheme : "dense", 100 * info.sparsity, report_plain(info.role_reason).s);
            else
                printf("%-11s %s %s %s\n", kind, report_plain(info.name).s, dtype_name(info.dtype), shape);
            continue;
        }
        cJSON *event = json_event(kind);
        json_text(event, "name", info.name);
        json_text(event, "type", dtype_name(info.dtype));
        json_shape(event, "shape", info.dim, info.rank);
        if (parameters) {
            json_text(event, "role", role_name(info.role));
            json_text(event, "because", info.role_reason);
            json_text(event, "scheme", info.scheme);
            json_number(event, "stored", (double)info.stored);
            json_number(event, "sparsity", info.sparsity);
        }
        if (!json_emit(t, event))
            break; /* report_finish says so */
    }
    return 0;
}

int cmd_info(tool *t)
{
    mest_model_summary summary = {.struct_size = sizeof summary};
    mest_error err = {0};
    int code = tool_load_model(t);
    if (code == 0)
        code = tool_sparsify(t);
    if (code == 0 && t->s->data) /* only for what the samples look like */
        code = tool_open_sources(t, false);
    if (code == 0 && t->s->data)
        code = tool_check_sources(t, false);
    if (code)
        return code;
    if (mest_model_summarize(t->model, &summary, &err) != MEST_OK)
        return tool_fail(t, STAGE_MODEL, &err);
    mest_node_counts nodes = count_nodes(t);
    if (t->s->json) {
        cJSON *event = json_event("model");
        json_summary(event, t, &summary, &nodes);
        (void)json_emit(t, event); /* a failure stays in ferror(stdout) */
    } else {
        print_summary(t, &summary, &nodes);
    }
    code = list(t, "input", mest_model_input_count(t->model), mest_model_input);
    if (code == 0)
        code = list(t, "output", mest_model_output_count(t->model), mest_model_output);
    if (code == 0)
        code = list(t, "parameter", mest_model_parameter_count(t->model), mest_model_parameter);
    return code ? code : report_finish(t);
}
