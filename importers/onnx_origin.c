/* SPDX-License-Identifier: Apache-2.0 */
/* What the newer exporter says of where things come from. The graph's metadata list the parameters of the exported program, each with the
 * name it had in the program's graph ("p_fc_weight") and in the network ("fc.weight"); a node's metadata hold the call it comes from
 * ("%linear = ..(args = (%x, %p_fc_weight, %p_fc_bias), ..)") and the modules around it. From that follow three things:
 *   - what an initializer is that has the name of a parameter
 *   - which parameters are not in the file: folded into others (a weight transposed), merged with one of equal value, or removed
 *   - whether an initializer without a name of its own ("val_17") comes from such a parameter, or is a mask or a table that never trains */
#include <inttypes.h>
#include <stdio.h>

#include "importers/onnx.h"
#include "importers/wire.h"

typedef struct text {
    const char *at;
    size_t n;
} text;

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

/* The value under `key` among the extra fields `tag` of a message; n 0 if there is none. */
static text find_entry(const ProtobufCMessage *message, uint32_t tag, const char *key)
{
    for (unsigned k = 0; k < message->n_unknown_fields; k++) {
        const ProtobufCMessageUnknownField *u = &message->unknown_fields[k];
        mest_wire w = { u->data, 0, u->len };
        mest_wire_field f;
        uint64_t n;
        bool ours = false;
        if (u->tag != tag || u->wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED || !mest_wire_varint(&w, &n))
            continue;
        while (w.at < w.end && !mest_wire_next(&w, &f)) {
            if (f.number == 1)
                ours = f.end - f.begin == strlen(key) && !memcmp(u->data + f.begin, key, f.end - f.begin);
            if (f.number == 2 && ours)
                return (text){ (const char *)u->data + f.begin, f.end - f.begin };
        }
    }
    return (text){ NULL, 0 };
}

/* ---- the program's parameters ---- */

static const char *find_in(text t, const char *what)
{
    size_t n = strlen(what);
    for (size_t i = 0; t.n >= n && i <= t.n - n; i++)
        if (!memcmp(t.at + i, what, n))
            return t.at + i;
    return NULL;
}

/* A line "p_fc_weight: PARAMETER target='fc.weight'". */
static mest_status read_line(onnx_importer *im, text line)
{
    static const struct {
        const char *text;
        onnx_kind kind;
    } kinds[] = { { ": PARAMETER target='", KIND_PARAMETER }, { ": BUFFER target='", KIND_BUFFER }, { ": CONSTANT_TENSOR target='", KIND_CONSTANT } };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const char *at = find_in(line, kinds[i].text), *name = at ? at + strlen(kinds[i].text) : NULL;
        const char *end = name ? memchr(name, '\'', (size_t)(line.at + line.n - name)) : NULL;
        if (!end || end == name || at == line.at)
            continue;
        if (!MEST_REGION_GROW(&im->scratch, im->origins, im->n_origins, im->cap_origins))
            return out_of_memory(im);
        onnx_origin *o = &im->origins[im->n_origins];
        *o = (onnx_origin){ .kind = kinds[i].kind };
        o->call_name = mest_region_printf(&im->scratch, "%.*s", (int)(at - line.at), line.at);
        o->target = mest_region_printf(&im->m->region, "%.*s", (int)(end - name), name);
        if (!o->call_name || !o->target || !mest_strmap_put(&im->call_names, o->call_name, im->n_origins) || !mest_strmap_put(&im->targets, o->target, im->n_origins))
            return out_of_memory(im);
        im->n_origins++;
        return MEST_OK;
    }
    return MEST_OK;
}

mest_status mest_onnx_read_origins(onnx_importer *im)
{
    mest_strmap_init(&im->call_names, &im->scratch);
    mest_strmap_init(&im->targets, &im->scratch);
    text all = find_entry(&im->pb->graph->base, MEST_PRESCAN_GRAPH, "pkg.torch.export.ExportedProgram.graph_signature");
    while (all.n) {
        const char *end = memchr(all.at, '\n', all.n);
        text line = { all.at, end ? (size_t)(end - all.at) : all.n };
        MEST_TRY(read_line(im, line));
        size_t step = line.n + (end != NULL);
        all.at += step;
        all.n -= step;
    }
    for (int32_t i = 0; i < im->n_origins; i++) {
        onnx_origin *o = &im->origins[i];
        const onnx_symbol *s = onnx_find_symbol(im, o->target);
        o->present = s && s->tensor >= 0;
        if (o->present && im->tensors[s->tensor].kind == KIND_UNKNOWN)
            im->tensors[s->tensor].kind = o->kind;
        im->n_lost += !o->present;
    }
    return MEST_OK;
}

/* ---- the calls of nodes ---- */

static const Onnx__NodeProto *proto_of(const onnx_importer *im, int32_t origin)
{
    return origin >= 0 && (size_t)origin < im->pb->graph->n_node ? im->pb->graph->node[origin] : NULL;
}

static bool is_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }

/* The next "%name" of a call that is a parameter (or of another kind) of the program, from *at on; -1 at the end. */
static int32_t next_of_kind(const onnx_importer *im, text call, onnx_kind kind, size_t *at)
{
    char name[256];
    while (*at < call.n) {
        size_t begin = *at;
        if (call.at[(*at)++] != '%')
            continue;
        begin++;
        while (*at < call.n && is_name(call.at[*at]))
            ++*at;
        if (*at - begin == 0 || *at - begin >= sizeof name)
            continue;
        memcpy(name, call.at + begin, *at - begin);
        name[*at - begin] = 0;
        int32_t found = mest_strmap_get(&im->call_names, name);
        if (found >= 0 && im->origins[found].kind == kind)
            return found;
    }
    return -1;
}

static int32_t next_parameter(const onnx_importer *im, text call, size_t *at) { return next_of_kind(im, call, KIND_PARAMETER, at); }

/* Input 3 or 4 of a BatchNormalization. */
static const char *statistic(const char *op, int32_t input)
{
    bool norm = !strcmp(op, "BatchNormalization");
    return norm && input == 3 ? "running_mean" : norm && input == 4 ? "running_var" : NULL;
}

static const char *leaf(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Which lost parameter of the node's call does its initializer `name` stand for? One with the same last name if there is one; for names
 * the exporter made, the last name that the operator suggests. What was merged with `merged` is not lost, but counts. -1: none. */
static int32_t lost_parameter(const onnx_importer *im, const Onnx__NodeProto *node, const char *op, int32_t input, const char *name, bool named,
                              const onnx_tensor *merged)
{
    bool bias = input == 2 || !strcmp(op, "Add") || !strcmp(op, "Sub");
    const char *stat = statistic(op, input), *suggested = stat ? stat : named ? leaf(name) : bias ? "bias" : "weight";
    text call = find_entry(&node->base, MEST_PRESCAN_NODE, "pkg.torch.onnx.fx_node");
    int32_t first = -1, found;
    size_t at = 0;
    while ((found = next_of_kind(im, call, stat ? KIND_BUFFER : KIND_PARAMETER, &at)) >= 0) {
        const onnx_origin *o = &im->origins[found];
        if (o->present && (!merged || o->merged != merged))
            continue;
        if (!strcmp(leaf(o->target), suggested))
            return found;
        first = first < 0 ? found : first;
    }
    return stat ? -1 : first;
}

bool mest_onnx_same_origin(const onnx_importer *im, const onnx_node *a, const onnx_node *b, int32_t input)
{
    const Onnx__NodeProto *pa = proto_of(im, a->origin), *pb = proto_of(im, b->origin);
    int32_t lost = pa && pb && !strcmp(a->op, b->op) ? lost_parameter(im, pa, a->op, input, "", false, NULL) : -1;
    return lost >= 0 && lost == lost_parameter(im, pb, b->op, input, "", false, NULL);
}

/* Does the call name this parameter or buffer, and is the input the place for it? */
static bool calls_it(const onnx_importer *im, const Onnx__NodeProto *node, const char *op, int32_t input, const char *target)
{
    text call = find_entry(&node->base, MEST_PRESCAN_NODE, "pkg.torch.onnx.fx_node");
    const char *stat = statistic(op, input);
    if (stat ? strcmp(leaf(target), stat) != 0 : !strncmp(leaf(target), "running_", 8))
        return false;
    for (onnx_kind kind = KIND_PARAMETER; kind <= KIND_CONSTANT; kind = (onnx_kind)(kind + 1)) {
        int32_t found;
        size_t at = 0;
        while ((found = next_of_kind(im, call, kind, &at)) >= 0)
            if (!strcmp(im->origins[found].target, target))
                return true;
    }
    return false;
}

/* A normalisation that is written without scale and shift gets ones and zeros for them. */
bool mest_onnx_is_filler(const char *op, int32_t input, const mest_payload *p)
{
    static const char *const ops[] = { "InstanceNormalization", "GroupNormalization", "LayerNormalization", "BatchNormalization" };
    bool norm = false;
    float x[64], want = input == 1 ? 1 : 0;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        norm |= !strcmp(op, ops[i]);
    if (!norm || (input != 1 && input != 2))
        return false;
    for (int64_t at = 0; at < p->count; at += 64) {
        int64_t n = p->count - at < 64 ? p->count - at : 64;
        if (mest_payload_read(p, at, n, x, NULL) != MEST_OK)
            return false;
        for (int64_t i = 0; i < n; i++)
            if (x[i] != want)
                return false;
    }
    return true;
}

/* Name of the module that owns a parameter: all before the last dot. */
static bool owned_by(const char *target, const char *scope, size_t n, bool below)
{
    const char *dot = strrchr(target, '.');
    size_t owner = dot ? (size_t)(dot - target) : 0;
    if (owner == n && !memcmp(target, scope, n))
        return true;
    return below && owner > n && (n == 0 || (!memcmp(target, scope, n) && target[n] == '.'));
}

/* The innermost module around the node: the last but one of "['', 'layers.0', 'layers.0.attn', 'matmul']". */
static text innermost(const Onnx__NodeProto *node)
{
    text all = find_entry(&node->base, MEST_PRESCAN_NODE, "pkg.torch.onnx.name_scopes"), last = { NULL, 0 }, before = { NULL, 0 };
    for (size_t i = 0; i < all.n; i++) {
        if (all.at[i] != '\'' && all.at[i] != '"')
            continue;
        size_t begin = ++i;
        while (i < all.n && all.at[i] != '\'' && all.at[i] != '"')
            i++;
        before = last;
        last = (text){ all.at + begin, i - begin };
    }
    return before;
}

/* A normalisation that is written out reads its scale and shift with nodes whose call names neither (reshaped, the two are folded): the lost
 * "weight" or "bias" of the very module. Only for values as a fresh network has them, as tables are read in such ways too. -1: none. */
static int32_t written_out(const onnx_importer *im, const Onnx__NodeProto *node, const char *op, const onnx_tensor *t)
{
    const char *suggested = !strcmp(op, "Mul") ? "weight" : !strcmp(op, "Add") ? "bias" : NULL;
    text scope = suggested ? innermost(node) : (text){ NULL, 0 };
    if (!scope.at || !mest_onnx_is_uniform(&t->payload))
        return -1;
    for (int32_t i = 0; i < im->n_origins; i++) {
        const onnx_origin *o = &im->origins[i];
        if ((!o->present || o->merged == t) && o->kind == KIND_PARAMETER && !strcmp(leaf(o->target), suggested) && owned_by(o->target, scope.at, scope.n, false))
            return i;
    }
    return -1;
}

/* ---- merged parameters ---- */

/* The parameter of its own, once. */
static mest_status add_untied(onnx_importer *im, const onnx_tensor *t, onnx_origin *o)
{
    MEST_CHECK(!onnx_find_symbol(im, o->target), im->err, MEST_E_FORMAT, "onnx '%s': '%s' is a parameter of the program and a result of a node", im->path, o->target);
    MEST_TRY(mest_onnx_add_param(im, t, o->target, &o->param));
    im->m->params[o->param].untied = true;
    im->m->params[o->param].role = (mest_role)o->kind;
    mest_type type = { .dtype = MEST_F32, .shape = t->shape };
    mest_id value = mest_graph_value(&im->m->graph, o->target, MEST_VALUE_PARAM, &type);
    if (value == MEST_NONE)
        return out_of_memory(im);
    im->m->graph.values[value].param = o->param;
    MEST_TRY(mest_onnx_add_symbol(im, o->target, -1, value));
    o->merged = t;
    o->present = true;
    im->n_lost--;
    im->m->n_untied++;
    return MEST_OK;
}

static mest_status untie(onnx_importer *im, mest_onnx_notes *notes, onnx_node *n, int32_t input, onnx_tensor *t, int32_t origin)
{
    onnx_origin *o = &im->origins[origin];
    const bool again = o->merged != NULL; /* a module that is called twice */
    if (!again)
        MEST_TRY(add_untied(im, t, o));
    MEST_TRY(mest_onnx_note_move(im, notes, (mest_onnx_move){ .node = n->origin, .input = input, .param = o->param, .again = again }));
    n->in_names[input] = o->target;
    onnx_find_symbol(im, o->target)->uses++;
    t->direct--;
    return MEST_OK;
}

/* The exporter's optimiser merges initializers of equal values (zeros, ones, layers copied with their values) of up to this size. Larger
 * ones, and any in a file that was not optimised, are one because the network has them as one. A weight that is tied in the network has one
 * name in all calls, that of its initializer. */
enum { MERGED_MOST = 1024 };

static bool was_optimised(const onnx_importer *im)
{
    for (size_t i = 0; i < im->pb->graph->n_node; i++)
        if (!*onnx_domain(im->pb->graph->node[i]->domain) && !strcmp(onnx_text(im->pb->graph->node[i]->op_type), "Constant"))
            return false;
    return true;
}

/* A lost parameter that is in the file under another name: the other name of a tied weight. */
static void found_again(onnx_importer *im, int32_t origin)
{
    im->origins[origin].present = true;
    im->n_lost--;
}

/* The exporter merges initializers of equal values: the scales of all normalisations of a fresh network become one tensor. Trained like
 * that they would move together. Where a node's call names a parameter that is not in the file, and not the one it reads, it gets its own. */
mest_status mest_onnx_untie_merged(onnx_importer *im, mest_onnx_notes *notes)
{
    const char *first = NULL;
    int before = im->m->n_untied;
    const bool merged = im->n_lost > 0 && !im->keep_aliases && was_optimised(im);
    for (int32_t i = 0; i < im->n_nodes && (im->n_lost > 0 || im->m->n_untied > before); i++) {
        onnx_node *n = &im->nodes[i];
        const Onnx__NodeProto *node = n->inlined || n->skip ? NULL : proto_of(im, n->origin);
        for (int32_t k = 0; node && k < n->n_in; k++) {
            onnx_symbol *s = *n->in_names[k] ? onnx_find_symbol(im, n->in_names[k]) : NULL;
            onnx_tensor *t = s && s->tensor >= 0 ? &im->tensors[s->tensor] : NULL;
            if (!t || !t->is_float)
                continue;
            bool named = t->kind != KIND_UNKNOWN;
            if (!named && (t->direct < 2 || t->payload.count < 2 || mest_onnx_is_filler(n->op, k, &t->payload)))
                continue;
            if (named && calls_it(im, node, n->op, k, t->name))
                continue;
            int32_t lost = lost_parameter(im, node, n->op, k, t->name, named, t);
            if (lost < 0 && !named)
                lost = written_out(im, node, n->op, t);
            if (lost < 0 || im->origins[lost].stand_in == t)
                continue;
            if (!named && !t->stands_for) { /* the first of several: it keeps the name that the exporter made */
                t->stands_for = true;
                im->origins[lost].stand_in = t;
                continue;
            }
            if (im->origins[lost].merged != t && (!merged || t->direct < 2 || t->payload.count > MERGED_MOST)) {
                if (named)
                    found_again(im, lost);
                continue;
            }
            first = first ? first : im->origins[lost].target;
            MEST_TRY(untie(im, notes, n, k, t, lost));
        }
    }
    if (im->m->n_untied > before)
        mest_logf(&im->m->heap, MEST_LOG_INFO, "%d parameters had been merged by the exporter with others of equal value ('%s' is the first) and were untied",
                  im->m->n_untied - before, first);
    return MEST_OK;
}

/* ---- initializers without a name of their own ---- */

/* Scale or shift of a BatchNormalization: the module has a buffer "running_mean" too. Exporters fold those into the layer before. */
static bool of_batch_norm(const onnx_importer *im, const char *target)
{
    char name[512];
    const char *dot = strrchr(target, '.');
    int n = snprintf(name, sizeof name, "%.*srunning_mean", dot ? (int)(dot - target) + 1 : 0, target);
    return n > 0 && (size_t)n < sizeof name && mest_strmap_get(&im->targets, name) >= 0;
}

static void claim_call(onnx_importer *im, const Onnx__NodeProto *node)
{
    text call = find_entry(&node->base, MEST_PRESCAN_NODE, "pkg.torch.onnx.fx_node");
    int32_t found;
    size_t at = 0;
    while ((found = next_parameter(im, call, &at)) >= 0)
        im->origins[found].claimed = true;
}

const char *mest_onnx_called_origin(onnx_importer *im, const mest_node *n, int32_t input, const mest_param *p)
{
    const Onnx__NodeProto *node = proto_of(im, n->origin);
    int32_t found = node ? lost_parameter(im, node, n->op->name, input, p->name, false, NULL) : -1;
    if (found >= 0) {
        im->origins[found].claimed = true;
        if (!strcmp(n->op->name, "LSTM") || !strcmp(n->op->name, "GRU") || !strcmp(n->op->name, "RNN"))
            claim_call(im, node); /* packed together: weights of all gates, directions */
        return im->origins[found].target;
    }
    /* a copy of a parameter that is there as well: as many numbers, maybe transposed */
    text call = node ? find_entry(&node->base, MEST_PRESCAN_NODE, "pkg.torch.onnx.fx_node") : (text){ NULL, 0 };
    size_t at = 0;
    while ((found = next_parameter(im, call, &at)) >= 0) {
        const onnx_symbol *s = onnx_find_symbol(im, im->origins[found].target);
        if (s && s->tensor >= 0 && im->tensors[s->tensor].payload.count == p->count && p->count > 1)
            return im->origins[found].target;
    }
    return NULL;
}

/* "select" and "select_1", or "split" and "split_2": parts of one tensor, cut while folding. Names of the kind "val_7" say nothing. */
static bool same_cut(const char *a, const char *b)
{
    static const char *const cuts[] = { "select", "slice", "getitem", "split", "chunk", "unbind" };
    size_t n = strcspn(a, "_");
    if (strncmp(a, b, n) || (b[n] && b[n] != '_'))
        return false;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
        if (strlen(cuts[i]) == n && !strncmp(cuts[i], a, n))
            return true;
    return false;
}

const char *mest_onnx_scope_origin(onnx_importer *im, const mest_node *n, const char *name)
{
    const Onnx__NodeProto *node = proto_of(im, n->origin);
    text scope = node && im->n_lost ? innermost(node) : (text){ NULL, 0 };
    for (int below = 0; scope.at && below <= 1; below++)
        for (int32_t i = 0; i < im->n_origins; i++) {
            onnx_origin *o = &im->origins[i];
            if (o->present || o->kind != KIND_PARAMETER || !owned_by(o->target, scope.at, scope.n, below) || of_batch_norm(im, o->target))
                continue;
            if (o->claimed && !(o->claimed_by && same_cut(o->claimed_by, name)))
                continue;
            o->claimed = true;
            o->claimed_by = name;
            return o->target;
        }
    return NULL;
}

/* Names what is nowhere in the file: a bias that was zero and was removed, a BatchNormalization that was folded away. */
void mest_onnx_tell_lost(onnx_importer *im)
{
    char list[300] = "";
    size_t used = 0;
    int n = 0;
    for (int32_t i = 0; i < im->n_origins; i++) {
        const onnx_origin *o = &im->origins[i];
        if (o->present || o->claimed || o->stand_in || o->kind != KIND_PARAMETER || of_batch_norm(im, o->target))
            continue;
        if (used < sizeof list - 100)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%.80s", n ? ", " : "", o->target);
        n++;
    }
    if (n)
        mest_logf(&im->m->heap, MEST_LOG_WARNING, "%d parameters of the network are not in the file, as they were zero, or were folded into others: %s%s; they "
                  "cannot be trained (export with optimize=False to keep them)", n, list, used >= sizeof list - 100 ? ", .." : "");
}
