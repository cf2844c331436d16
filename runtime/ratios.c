/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/ratios.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "runtime/mapfile.h"
#include "runtime/op.h"

enum {
    FILE_MOST = 1 << 20, ENTRY_MOST = 65536, NAME_MOST = 512,
    DEPTH_MOST = 64 /* two levels are ours; the parser's time grows with the square of the depth */
};

void mest_ratios_free(mest_ratios *r)
{
    if (!r->heap)
        return;
    for (int32_t i = 0; i < r->n; i++)
        mest_free(r->heap, r->ratio[i].name, strlen(r->ratio[i].name) + 1, 1);
    mest_free(r->heap, r->ratio, (size_t)r->room, sizeof *r->ratio);
    *r = (mest_ratios){0};
}

/* ---- reading ---- */

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    bool have;            /* event is to be deleted */
    int depth;            /* of the present event */
    const char *path;
    mest_ratios *out;
} reader;

/* The next event; libyaml's own complaint becomes the error. */
static mest_status next(reader *r, mest_error *err)
{
    if (r->have)
        yaml_event_delete(&r->event);
    r->have = yaml_parser_parse(&r->parser, &r->event) != 0;
    MEST_CHECK(r->have, err, MEST_E_FORMAT, "ratios '%s': line %zu: %s", r->path, r->parser.problem_mark.line + 1,
               r->parser.problem ? r->parser.problem : "not YAML");
    const yaml_event_type_t t = r->event.type;
    r->depth += (t == YAML_MAPPING_START_EVENT || t == YAML_SEQUENCE_START_EVENT) - (t == YAML_MAPPING_END_EVENT || t == YAML_SEQUENCE_END_EVENT);
    MEST_CHECK(r->depth <= DEPTH_MOST, err, MEST_E_FORMAT, "ratios '%s': line %zu: nested deeper than %d levels", r->path, r->event.start_mark.line + 1,
               (int)DEPTH_MOST);
    MEST_CHECK(t != YAML_ALIAS_EVENT, err, MEST_E_FORMAT, "ratios '%s': line %zu: aliases are not read", r->path,
               r->event.start_mark.line + 1);
    return MEST_OK;
}

static size_t line(const reader *r) { return r->event.start_mark.line + 1; }

/* Passes over the value that begins with the present event. */
static mest_status skip(reader *r, mest_error *err)
{
    const yaml_event_type_t first = r->event.type;
    const bool opens = first == YAML_MAPPING_START_EVENT || first == YAML_SEQUENCE_START_EVENT;
    for (const int outside = r->depth - opens; r->depth > outside;)
        MEST_TRY(next(r, err));
    return MEST_OK;
}

static mest_status add(reader *r, const char *name, double sparsity, mest_error *err)
{
    mest_ratios *out = r->out;
    for (int32_t i = 0; i < out->n; i++)
        MEST_CHECK(strcmp(out->ratio[i].name, name) != 0, err, MEST_E_FORMAT, "ratios '%s': line %zu: '%s' is there twice", r->path, line(r), name);
    MEST_CHECK(out->n < ENTRY_MOST, err, MEST_E_LIMIT, "ratios '%s': more than %d entries", r->path, (int)ENTRY_MOST);
    if (out->n == out->room) {
        mest_ratio *more;
        const int32_t room = out->room ? 2 * out->room : 64;
        MEST_NEW(out->heap, more, room, err, "ratios");
        if (out->n)
            memcpy(more, out->ratio, (size_t)out->n * sizeof *more);
        mest_free(out->heap, out->ratio, (size_t)out->room, sizeof *more);
        out->ratio = more;
        out->room = room;
    }
    const size_t size = strlen(name) + 1;
    char *own = mest_alloc(out->heap, size, 1);
    MEST_CHECK(own, err, MEST_E_NOMEM, "ratios: no memory for a name");
    memcpy(own, name, size);
    out->ratio[out->n++] = (mest_ratio){own, sparsity, -1};
    return MEST_OK;
}

static mest_status read_ratios(reader *r, mest_error *err)
{
    MEST_CHECK(r->event.type == YAML_MAPPING_START_EVENT, err, MEST_E_FORMAT, "ratios '%s': line %zu: prune_ratios is not a mapping of names to numbers",
               r->path, line(r));
    for (;;) {
        char name[NAME_MOST];
        MEST_TRY(next(r, err));
        if (r->event.type == YAML_MAPPING_END_EVENT)
            return MEST_OK;
        MEST_CHECK(r->event.type == YAML_SCALAR_EVENT && r->event.data.scalar.length < sizeof name && r->event.data.scalar.length > 0, err, MEST_E_FORMAT,
                   "ratios '%s': line %zu: not a parameter's name", r->path, line(r));
        memcpy(name, r->event.data.scalar.value, r->event.data.scalar.length);
        name[r->event.data.scalar.length] = 0;
        MEST_TRY(next(r, err));
        const char *text = r->event.type == YAML_SCALAR_EVENT ? (const char *)r->event.data.scalar.value : "";
        char *end;
        const double sparsity = strtod(text, &end);
        MEST_CHECK(r->event.type == YAML_SCALAR_EVENT && end != text && !*end && sparsity >= 0 && sparsity < 1, err, MEST_E_FORMAT,
                   "ratios '%s': line %zu: '%s' is not a sparsity in [0, 1): '%.40s'", r->path, line(r), name, text);
        MEST_TRY(add(r, name, sparsity, err));
    }
}

static mest_status read_file(reader *r, mest_error *err)
{
    bool found = false;
    for (int i = 0; i < 3; i++) /* stream, document, its top */
        MEST_TRY(next(r, err));
    MEST_CHECK(r->event.type == YAML_MAPPING_START_EVENT, err, MEST_E_FORMAT, "ratios '%s' has no key prune_ratios", r->path);
    for (;;) {
        MEST_TRY(next(r, err));
        if (r->event.type == YAML_MAPPING_END_EVENT)
            break;
        const char *key = r->event.type == YAML_SCALAR_EVENT ? (const char *)r->event.data.scalar.value : "";
        const bool ours = strcmp(key, "prune_ratios") == 0;
        MEST_CHECK(!ours || !found, err, MEST_E_FORMAT, "ratios '%s': line %zu: a second prune_ratios", r->path, line(r));
        if (!ours)
            mest_logf(r->out->heap, MEST_LOG_DEBUG, "ratios '%s': key '%.60s' is not used", r->path, key);
        if (!ours && r->event.type != YAML_SCALAR_EVENT)
            MEST_TRY(skip(r, err)); /* a key that is itself a structure */
        MEST_TRY(next(r, err));
        MEST_TRY(ours ? read_ratios(r, err) : skip(r, err));
        found |= ours;
    }
    MEST_CHECK(found, err, MEST_E_FORMAT, "ratios '%s' has no key prune_ratios", r->path);
    return MEST_OK;
}

mest_status mest_ratios_read(mest_ratios *out, mest_heap *heap, const char *path, mest_error *err)
{
    mest_mapfile file;
    reader r = {.path = path, .out = out};
    *out = (mest_ratios){.heap = heap};
    MEST_TRY(mest_mapfile_open(&file, path, err));
    mest_status status = MEST_OK;
    if (file.size > FILE_MOST) {
        status = mest_fail(err, MEST_E_LIMIT, "ratios '%s': larger than %d bytes", path, (int)FILE_MOST);
    } else if (!yaml_parser_initialize(&r.parser)) {
        status = mest_fail(err, MEST_E_NOMEM, "ratios '%s': no memory for the parser", path);
    } else {
        yaml_parser_set_input_string(&r.parser, file.bytes ? file.bytes : (const unsigned char *)"", file.size);
        status = read_file(&r, err);
        if (r.have)
            yaml_event_delete(&r.event);
        yaml_parser_delete(&r.parser);
    }
    mest_mapfile_close(&file);
    if (status != MEST_OK)
        mest_ratios_free(out);
    return status;
}

/* ---- whose they are ---- */

/* Is `end` the end of `name`, behind a dot? */
static bool ends_with(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);
    return m < n && strcmp(name + n - m, end) == 0 && name[n - m - 1] == '.';
}

/* The path of modules in a node's name: "/layer1/layer1.0/conv1/Conv" is layer1.0.conv1. A part that goes on where the one before ended
 * ("layer1", "layer1.0") takes its place. */
static void module_path(const char *node, char *out, size_t size)
{
    size_t used = 0, last = 0; /* where the last part begins */
    out[0] = 0;
    for (const char *at = node; *at;) {
        at += *at == '/';
        const size_t n = strcspn(at, "/");
        if (!at[n]) /* the operator */
            return;
        const size_t part = used - last;
        const bool goes_on = part && n > part && strncmp(at, out + last, part) == 0 && at[part] == '.';
        if (goes_on)
            used = last;
        else if (used && used + 1 < size)
            out[used++] = '.';
        last = used;
        if (used + n + 1 > size)
            return;
        memcpy(out + used, at, n);
        used += n;
        out[used] = 0;
        at += n;
    }
}

static int32_t by_node(const mest_graph *g, const char *name)
{
    char layer[NAME_MOST], path[NAME_MOST];
    const size_t n = strlen(name);
    int32_t found = -1;
    if (n < 8 || strcmp(name + n - 7, ".weight") != 0 || n >= sizeof layer)
        return -1;
    memcpy(layer, name, n - 7);
    layer[n - 7] = 0;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *node = &g->nodes[i];
        if (!node->op->sparse_in || !node->name)
            continue;
        module_path(node->name, path, sizeof path);
        for (int k = 0; k < node->n_in && strcmp(path, layer) == 0; k++)
            if (node->in[k] != MEST_NONE && (node->op->sparse_in >> k & 1) && g->values[node->in[k]].kind == MEST_VALUE_PARAM) {
                const int32_t param = g->values[node->in[k]].param;
                if (found >= 0 && found != param)
                    return -1;
                found = param;
            }
    }
    return found;
}

static int32_t exactly(const mest_model *m, const char *name)
{
    for (int32_t i = 0; i < m->n_params; i++)
        if (strcmp(m->params[i].name, name) == 0)
            return i;
    return -1;
}

static int32_t find(const mest_model *m, const mest_graph *g, const char *name)
{
    int32_t found = exactly(m, name), count = 0;
    if (found < 0 && strncmp(name, "module.", 7) == 0)
        found = exactly(m, name += 7);
    if (found >= 0)
        return found;
    for (int32_t i = 0; i < m->n_params; i++) /* the model was wrapped once more when it was exported */
        if (ends_with(m->params[i].name, name)) {
            found = i;
            count++;
        }
    if (count)
        return count == 1 ? found : -1;
    const char *dot = strchr(name, '.'); /* or when the file was written */
    found = dot ? exactly(m, dot + 1) : -1;
    return found >= 0 ? found : by_node(g, name);
}

mest_status mest_ratios_match(mest_ratios *r, const mest_model *m, const mest_graph *graph, const char *path, mest_error *err)
{
    char missing[400] = "";
    int n_missing = 0;
    for (int32_t i = 0; i < r->n; i++) {
        mest_ratio *ratio = &r->ratio[i];
        ratio->param = find(m, graph, ratio->name);
        if (ratio->param < 0) {
            const size_t used = strlen(missing);
            if (used + strlen(ratio->name) + 8 < sizeof missing)
                snprintf(missing + used, sizeof missing - used, "%s%s", n_missing ? ", " : "", ratio->name);
            else if (used + 5 < sizeof missing && strcmp(missing + used - 3, "...") != 0)
                strcat(missing, " ...");
            mest_logf(r->heap, MEST_LOG_WARNING, "ratios '%s': no parameter '%s'", path, ratio->name); /* all of them, however many */
            n_missing++;
        }
        for (int32_t k = 0; k < i && ratio->param >= 0; k++)
            MEST_CHECK(r->ratio[k].param != ratio->param, err, MEST_E_ARGUMENT, "ratios '%s': '%s' and '%s' are both '%s' of the model", path,
                       r->ratio[k].name, ratio->name, m->params[ratio->param].name);
    }
    MEST_CHECK(n_missing == 0, err, MEST_E_ARGUMENT, "ratios '%s': the model has no parameter for %d name%s: %s", path, n_missing,
               n_missing == 1 ? "" : "s", missing);
    return MEST_OK;
}
