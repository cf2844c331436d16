/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes of the graph with local functions and the branches of If expanded. Values inside get the name of the call in front; attributes
 * that refer to a function's attributes are replaced by what the call (or the function's default) says. Nodes of a branch carry its
 * condition; If itself becomes a node that takes the results of both (ops/branch.c). Loops: onnx_loop.c. Bounded by the number of nodes and calls. */
#include <inttypes.h>
#include <stdio.h>

#include "importers/onnx_scope.h"

static mest_status out_of_memory(onnx_importer *im)
{
    return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory while reading nodes", im->path);
}

static bool same_domain(const char *a, const char *b) { return !strcmp(onnx_domain(a), onnx_domain(b)); }

static bool imported(Onnx__OperatorSetIdProto **imports, size_t n, const char *domain, int64_t *opset)
{
    for (size_t i = 0; i < n; i++)
        if (same_domain(imports[i]->domain, domain)) {
            *opset = imports[i]->version;
            return true;
        }
    return false;
}

static mest_status find_opset(onnx_importer *im, const onnx_scope *s, const Onnx__NodeProto *pb, int64_t *opset)
{
    const char *domain = onnx_domain(pb->domain);
    if (s->function && imported(s->function->opset_import, s->function->n_opset_import, domain, opset))
        return MEST_OK;
    MEST_CHECK(imported(im->pb->opset_import, im->pb->n_opset_import, domain, opset), im->err, MEST_E_FORMAT,
               "onnx '%s': node '%s' (%s) is of domain '%s', which the model does not import", im->path, onnx_text(pb->name),
               onnx_text(pb->op_type), domain);
    return MEST_OK;
}

/* A new name for a value of this scope. NULL when out of memory. */
static const char *declare_name(onnx_importer *im, onnx_scope *s, const char *name)
{
    if (!MEST_REGION_GROW(&im->scratch, s->actual, s->n_actual, s->cap_actual))
        return NULL;
    const char *full = strlen(name) < 100 ? mest_region_printf(&im->scratch, "%.100s/%s", s->call, name)
                                          : mest_region_printf(&im->scratch, "%.100s/%d", s->call, s->n_actual);
    if (!full || !mest_strmap_put(&s->names, name, s->n_actual))
        return NULL;
    s->actual[s->n_actual++] = full;
    return full;
}

/* Name of a value as the graph knows it. In a branch, what it does not define itself is defined around it. */
const char *mest_onnx_outer_name(onnx_importer *im, onnx_scope *s, const char *name)
{
    for (; *name; s = s->parent) {
        int32_t at = s->parent ? mest_strmap_get(&s->names, name) : -1;
        if (at >= 0)
            return s->actual[at];
        if (s->parent && !s->branch)
            return declare_name(im, s, name);
        if (!s->parent)
            break;
    }
    return name;
}

const char *mest_onnx_result_name(onnx_importer *im, onnx_scope *s, const char *name)
{
    return s->branch && *name && mest_strmap_get(&s->names, name) < 0 ? declare_name(im, s, name) : mest_onnx_outer_name(im, s, name);
}

static const Onnx__AttributeProto *find_attribute(const Onnx__AttributeProto *const *attrs, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (attrs[i] && !strcmp(onnx_text(attrs[i]->name), name))
            return attrs[i];
    return NULL;
}

/* Default of a function's attribute: IR 9's attribute_proto, which the scan moved to a field of its own. */
static mest_status default_attribute(onnx_importer *im, const Onnx__FunctionProto *f, const char *name, const Onnx__AttributeProto **found)
{
    *found = NULL;
    for (unsigned i = 0; i < f->base.n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *u = &f->base.unknown_fields[i];
        size_t skip = 0;
        if (u->tag != MEST_PRESCAN_DEFAULT)
            continue;
        while (skip < u->len && u->data[skip] & 128)
            skip++;
        if (++skip > u->len)
            continue;
        Onnx__AttributeProto *a = onnx__attribute_proto__unpack(&im->arena.allocator, u->len - skip, u->data + skip);
        if (!a)
            return im->arena.over || im->arena.failed
                       ? out_of_memory(im)
                       : mest_fail(im->err, MEST_E_FORMAT, "onnx '%s': a default of function '%s' cannot be unpacked", im->path, onnx_text(f->name));
        if (!strcmp(onnx_text(a->name), name)) {
            *found = a;
            return MEST_OK;
        }
    }
    return MEST_OK;
}

static mest_status resolve_attributes(onnx_importer *im, const onnx_scope *s, const Onnx__NodeProto *pb, const Onnx__AttributeProto ***attrs, int32_t *n)
{
    *attrs = mest_region_alloc(&im->scratch, pb->n_attribute + ONNX_EXTRA, sizeof **attrs);
    *n = 0;
    if (!*attrs)
        return out_of_memory(im);
    for (size_t i = 0; i < pb->n_attribute; i++) {
        const Onnx__AttributeProto *a = pb->attribute[i];
        const char *name = onnx_text(a->name);
        MEST_CHECK(*name, im->err, MEST_E_FORMAT, "onnx '%s': node '%s' (%s) has an attribute without a name", im->path, onnx_text(pb->name),
                   onnx_text(pb->op_type));
        if (*onnx_text(a->ref_attr_name)) {
            MEST_CHECK(s->function, im->err, MEST_E_FORMAT, "onnx '%s': node '%s' (%s): attribute '%s' refers to a function's attribute",
                       im->path, onnx_text(pb->name), onnx_text(pb->op_type), name);
            const Onnx__AttributeProto *from = find_attribute(s->attrs, (size_t)s->n_attrs, a->ref_attr_name);
            if (!from)
                MEST_TRY(default_attribute(im, s->function, a->ref_attr_name, &from));
            if (!from)
                continue; /* optional and not given */
            Onnx__AttributeProto *copy = mest_region_alloc(&im->scratch, 1, sizeof *copy);
            if (!copy)
                return out_of_memory(im);
            *copy = *from;
            copy->name = a->name;
            a = copy;
        }
        (*attrs)[(*n)++] = a;
    }
    return MEST_OK;
}

static mest_status add_node(onnx_importer *im, onnx_scope *s, const Onnx__NodeProto *pb, const Onnx__AttributeProto **attrs, int32_t n_attrs)
{
    if (!MEST_REGION_GROW(&im->scratch, im->nodes, im->n_nodes, im->cap_nodes))
        return out_of_memory(im);
    MEST_CHECK(atomic_load(&im->m->heap.current_bytes) <= (int64_t)im->max_bytes, im->err, MEST_E_LIMIT,
               "onnx '%s': %d nodes and more need over %zu bytes", im->path, im->n_nodes, im->max_bytes);
    onnx_node *n = &im->nodes[im->n_nodes];
    memset(n, 0, sizeof *n);
    const char *name = onnx_text(pb->name);
    n->op = onnx_text(pb->op_type);
    n->domain = onnx_domain(pb->domain);
    MEST_CHECK(*n->op, im->err, MEST_E_FORMAT, "onnx '%s': node %d ('%s') has no op_type", im->path, s->origin, name);
    MEST_CHECK(pb->n_input < INT32_MAX / 2 && pb->n_output < INT32_MAX / 2, im->err, MEST_E_LIMIT, "onnx '%s': node '%s': too many inputs", im->path, name);
    MEST_TRY(find_opset(im, s, pb, &n->opset));
    n->origin = s->parent ? -1 : s->origin;
    n->inlined = s->parent != NULL;
    n->guard = s->guard;
    n->guard_is = s->guard_is;
    n->attrs = attrs;
    n->n_attrs = n_attrs;
    n->n_in = n->n_names = (int32_t)pb->n_input;
    n->n_out = (int32_t)pb->n_output;
    if (!*name)
        n->name = mest_region_printf(&im->scratch, "%.100s_%d", n->op, im->n_nodes);
    else
        n->name = s->parent ? mest_region_printf(&im->scratch, "%.100s/%.100s", s->call, name) : name;
    n->in_names = mest_region_alloc(&im->scratch, pb->n_input + 1, sizeof *n->in_names);
    n->out_names = mest_region_alloc(&im->scratch, pb->n_output + 1, sizeof *n->out_names);
    n->in = mest_region_alloc(&im->scratch, pb->n_input + ONNX_EXTRA, sizeof *n->in);
    n->out = mest_region_alloc(&im->scratch, pb->n_output + 1, sizeof *n->out);
    if (!n->name || !n->in_names || !n->out_names || !n->in || !n->out)
        return out_of_memory(im);
    for (int32_t i = 0; i < n->n_in; i++)
        if (!(n->in_names[i] = mest_onnx_outer_name(im, s, onnx_text(pb->input[i]))))
            return out_of_memory(im);
    for (int32_t i = 0; i < n->n_out; i++)
        if (!(n->out_names[i] = mest_onnx_result_name(im, s, onnx_text(pb->output[i]))))
            return out_of_memory(im);
    im->n_nodes++;
    return MEST_OK;
}

static const char *function_key(onnx_importer *im, const char *domain, const char *name, char buf[256])
{
    domain = onnx_domain(domain);
    if (strlen(domain) + strlen(name) + 2 > 256)
        return mest_region_printf(&im->scratch, "%.400s\n%.400s", domain, name);
    snprintf(buf, 256, "%s\n%s", domain, name);
    return buf;
}

static mest_status call(onnx_importer *im, onnx_scope *s, const Onnx__NodeProto *pb, const Onnx__FunctionProto *f, const Onnx__AttributeProto **attrs,
                        int32_t n_attrs, int32_t *budget)
{
    const char *name = onnx_text(f->name);
    for (const onnx_scope *up = s; up; up = up->parent)
        MEST_CHECK(up->branch || up->function != f, im->err, MEST_E_FORMAT, "onnx '%s': local function '%s' calls itself", im->path, name);
    MEST_CHECK(s->depth < MEST_ONNX_MAX_NESTING, im->err, MEST_E_LIMIT, "onnx '%s': local functions are nested more than %d deep", im->path,
               MEST_ONNX_MAX_NESTING);
    MEST_CHECK(pb->n_input <= f->n_input && pb->n_output <= f->n_output, im->err, MEST_E_FORMAT,
               "onnx '%s': node '%s' gives function '%s' more inputs or outputs than it has", im->path, onnx_text(pb->name), name);
    onnx_scope *inner = mest_region_alloc(&im->scratch, 1, sizeof *inner); /* not on the stack: calls nest */
    if (!inner)
        return out_of_memory(im);
    *inner = (onnx_scope){ .parent = s, .function = f, .guard = s->guard, .guard_is = s->guard_is, .attrs = attrs, .n_attrs = n_attrs, .origin = s->origin,
                      .depth = s->depth + 1 };
    mest_strmap_init(&inner->names, &im->scratch);
    /* how much of the budget is used up makes the name unique */
    inner->call = mest_region_printf(&im->scratch, "%.80s.%d", *onnx_text(pb->name) ? pb->name : name, MEST_ONNX_MAX_INLINED - *budget);
    inner->actual = mest_region_alloc(&im->scratch, f->n_input + f->n_output + 1, sizeof *inner->actual);
    if (!inner->call || !inner->actual)
        return out_of_memory(im);
    inner->cap_actual = (int32_t)(f->n_input + f->n_output + 1);
    for (size_t i = 0; i < f->n_input + f->n_output; i++) {
        bool is_input = i < f->n_input;
        size_t k = is_input ? i : i - f->n_input;
        const char *formal = is_input ? f->input[k] : f->output[k], *actual = "";
        if (is_input && k < pb->n_input)
            actual = mest_onnx_outer_name(im, s, onnx_text(pb->input[k]));
        if (!is_input) {
            if (k < pb->n_output && *onnx_text(pb->output[k]))
                actual = mest_onnx_outer_name(im, s, pb->output[k]);
            else
                continue; /* an output nobody takes is an inner value */
        }
        if (!actual)
            return out_of_memory(im);
        MEST_CHECK(mest_strmap_get(&inner->names, formal) < 0, im->err, MEST_E_FORMAT,
                   "onnx '%s': local function '%s' has '%s' twice among its inputs and outputs", im->path, name, formal);
        inner->actual[inner->n_actual] = actual;
        if (!mest_strmap_put(&inner->names, formal, inner->n_actual++))
            return out_of_memory(im);
    }
    return mest_onnx_walk(im, inner, f->node, f->n_node, budget);
}

/* An initializer of a branch is a constant of the graph. */
mest_status mest_onnx_scope_constant(onnx_importer *im, onnx_scope *s, Onnx__TensorProto *t)
{
    if (!MEST_REGION_GROW(&im->scratch, im->nodes, im->n_nodes, im->cap_nodes))
        return out_of_memory(im);
    onnx_node *n = &im->nodes[im->n_nodes];
    Onnx__AttributeProto *a = mest_region_alloc(&im->scratch, 1, sizeof *a);
    *n = (onnx_node){ .op = "Constant", .domain = "", .opset = im->opset, .origin = -1, .inlined = true, .guard = s->guard, .guard_is = s->guard_is,
                      .n_out = 1, .n_attrs = 1 };
    n->attrs = mest_region_alloc(&im->scratch, 1 + ONNX_EXTRA, sizeof *n->attrs);
    n->out_names = mest_region_alloc(&im->scratch, 1, sizeof *n->out_names);
    n->in_names = mest_region_alloc(&im->scratch, 1, sizeof *n->in_names);
    n->in = mest_region_alloc(&im->scratch, 1 + ONNX_EXTRA, sizeof *n->in);
    n->out = mest_region_alloc(&im->scratch, 1, sizeof *n->out);
    if (!a || !n->attrs || !n->out_names || !n->in_names || !n->in || !n->out || !(n->out_names[0] = mest_onnx_result_name(im, s, onnx_text(t->name))))
        return out_of_memory(im);
    MEST_CHECK(*n->out_names[0], im->err, MEST_E_FORMAT, "onnx '%s': an initializer in a branch of If has no name", im->path);
    a->name = (char *)(uintptr_t)"value";
    a->t = t;
    n->attrs[0] = a;
    n->name = n->out_names[0];
    im->n_nodes++;
    return MEST_OK;
}

/* Nodes of one branch, guarded; names of its results. */
static mest_status branch(onnx_importer *im, onnx_scope *s, const Onnx__NodeProto *pb, const char *condition, bool when, const Onnx__GraphProto *g,
                          const char **results, int32_t *budget)
{
    const char *name = onnx_text(pb->name);
    MEST_CHECK(g && g->n_input == 0 && g->n_output == pb->n_output && !g->n_sparse_initializer, im->err, MEST_E_FORMAT,
               "onnx '%s': node '%s' (If) needs two branches without inputs and with %zu outputs each", im->path, name, pb->n_output);
    MEST_CHECK(s->depth < MEST_ONNX_MAX_NESTING, im->err, MEST_E_LIMIT, "onnx '%s': branches are nested more than %d deep", im->path, MEST_ONNX_MAX_NESTING);
    onnx_scope *inner = mest_region_alloc(&im->scratch, 1, sizeof *inner);
    if (!inner)
        return out_of_memory(im);
    *inner = (onnx_scope){ .parent = s, .function = s->function, .branch = true, .guard = condition, .guard_is = when, .attrs = s->attrs, .n_attrs = s->n_attrs,
                      .origin = s->origin, .depth = s->depth + 1 };
    mest_strmap_init(&inner->names, &im->scratch);
    inner->call = mest_region_printf(&im->scratch, "%.70s.%d.%s", *name ? name : "If", MEST_ONNX_MAX_INLINED - *budget, when ? "then" : "else");
    inner->cap_actual = 8;
    inner->actual = mest_region_alloc(&im->scratch, (size_t)inner->cap_actual, sizeof *inner->actual);
    if (!inner->call || !inner->actual)
        return out_of_memory(im);
    for (size_t i = 0; i < g->n_initializer; i++)
        MEST_TRY(mest_onnx_scope_constant(im, inner, g->initializer[i]));
    MEST_TRY(mest_onnx_walk(im, inner, g->node, g->n_node, budget));
    for (size_t i = 0; i < g->n_output; i++)
        if (!(results[i] = mest_onnx_outer_name(im, inner, onnx_text(g->output[i]->name))))
            return out_of_memory(im);
    return MEST_OK;
}

static mest_status add_if(onnx_importer *im, onnx_scope *s, const Onnx__NodeProto *pb, const Onnx__AttributeProto **attrs, int32_t n_attrs, int32_t *budget)
{
    const char *name = onnx_text(pb->name), *condition = pb->n_input == 1 ? mest_onnx_outer_name(im, s, onnx_text(pb->input[0])) : "";
    const Onnx__AttributeProto *yes = find_attribute(attrs, (size_t)n_attrs, "then_branch"), *no = find_attribute(attrs, (size_t)n_attrs, "else_branch");
    MEST_CHECK(pb->n_input == 1 && yes && no, im->err, MEST_E_FORMAT, "onnx '%s': node '%s' (If) needs a condition and two branches", im->path, name);
    const char **results = mest_region_alloc(&im->scratch, 2 * pb->n_output + 2, sizeof *results);
    if (!condition || !results)
        return out_of_memory(im);
    results[0] = condition;
    MEST_TRY(branch(im, s, pb, condition, true, yes->g, results + 1, budget));
    MEST_TRY(branch(im, s, pb, condition, false, no->g, results + 1 + pb->n_output, budget));
    MEST_TRY(add_node(im, s, pb, attrs, 0));
    onnx_node *n = &im->nodes[im->n_nodes - 1];
    n->n_in = n->n_names = (int32_t)(1 + 2 * pb->n_output);
    n->in_names = results;
    n->in = mest_region_alloc(&im->scratch, (size_t)n->n_in + ONNX_EXTRA, sizeof *n->in);
    return n->in ? MEST_OK : out_of_memory(im);
}

mest_status mest_onnx_walk(onnx_importer *im, onnx_scope *s, Onnx__NodeProto *const *nodes, size_t n, int32_t *budget)
{
    char buf[256];
    for (size_t i = 0; i < n; i++) {
        const Onnx__NodeProto *pb = nodes[i];
        const Onnx__AttributeProto **attrs;
        int32_t n_attrs, f = -1;
        if (!s->parent)
            s->origin = (int32_t)i;
        else if (--*budget < 0)
            return mest_fail(im->err, MEST_E_LIMIT, "onnx '%s': local functions, branches and loops expand to more than %d nodes", im->path, MEST_ONNX_MAX_INLINED);
        MEST_TRY(resolve_attributes(im, s, pb, &attrs, &n_attrs));
        if (im->functions.n) {
            const char *key = function_key(im, pb->domain, onnx_text(pb->op_type), buf);
            if (!key)
                return out_of_memory(im);
            f = mest_strmap_get(&im->functions, key);
        }
        if (f >= 0) {
            int64_t opset;
            MEST_TRY(find_opset(im, s, pb, &opset));
            MEST_TRY(call(im, s, pb, im->pb->functions[f], attrs, n_attrs, budget));
        } else if (!*onnx_domain(pb->domain) && !strcmp(onnx_text(pb->op_type), "If")) {
            MEST_TRY(add_if(im, s, pb, attrs, n_attrs, budget));
        } else if (!*onnx_domain(pb->domain) && !strcmp(onnx_text(pb->op_type), "Loop")) {
            bool unrolled;
            MEST_TRY(mest_onnx_unroll(im, s, pb, attrs, n_attrs, budget, &unrolled));
            if (!unrolled)
                MEST_TRY(add_node(im, s, pb, attrs, n_attrs));
        } else {
            MEST_TRY(add_node(im, s, pb, attrs, n_attrs));
        }
    }
    return MEST_OK;
}

mest_status mest_onnx_inline(onnx_importer *im)
{
    char buf[256];
    mest_strmap_init(&im->functions, &im->scratch);
    mest_strmap_init(&im->makers, &im->scratch);
    for (size_t i = 0; i < im->pb->n_functions; i++) {
        const Onnx__FunctionProto *f = im->pb->functions[i];
        const char *key = function_key(im, f->domain, onnx_text(f->name), buf);
        key = key ? mest_region_strdup(&im->scratch, key) : NULL;
        if (!key)
            return out_of_memory(im);
        MEST_CHECK(*onnx_text(f->name) && mest_strmap_get(&im->functions, key) < 0, im->err, MEST_E_FORMAT,
                   "onnx '%s': local function %zu ('%s') has no name, or one that is taken", im->path, i, onnx_text(f->name));
        if (!mest_strmap_put(&im->functions, key, (int32_t)i))
            return out_of_memory(im);
    }
    /* calls and inner nodes both count: a chain of empty functions that double must end too */
    int32_t budget = MEST_ONNX_MAX_INLINED;
    onnx_scope *top = mest_region_alloc(&im->scratch, 1, sizeof *top);
    if (!top)
        return out_of_memory(im);
    return mest_onnx_walk(im, top, im->pb->graph->node, im->pb->graph->n_node, &budget);
}
