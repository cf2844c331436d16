/* SPDX-License-Identifier: Apache-2.0 */
/* The file of --sweep: YAML with model, options, grid, average. Values are taken as they are written, whatever type YAML gives them. */
#include "sweep.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "whole_file.h"

/* ---- memory ---- */

typedef struct piece {
    struct piece *next;
    max_align_t start[];
} piece;

void *sweep_take(sweep *s, size_t n, size_t size)
{
    if (size && n > (SIZE_MAX - sizeof(piece)) / size)
        return NULL;
    piece *p = calloc(1, sizeof *p + n * size);
    if (!p)
        return NULL;
    p->next = s->memory;
    s->memory = p;
    return p->start;
}

char *sweep_text(sweep *s, const char *text, size_t length)
{
    char *copy = sweep_take(s, length + 1, 1);
    if (copy)
        memcpy(copy, text, length);
    return copy;
}

void sweep_free(sweep *s)
{
    for (piece *p = s->memory, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    memset(s, 0, sizeof *s);
}

/* ---- reading ---- */

typedef struct reader {
    tool *t;
    sweep *s;
    yaml_document_t document;
} reader;

#define WRONG(r, node, ...) wrong(r, node, __VA_ARGS__)

MEST_PRINTF(3, 4) static int wrong(const reader *r, const yaml_node_t *node, const char *format, ...)
{
    char text[400];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return tool_refuse(r->t, EXIT_USAGE, "--sweep: %s, line %zu: %s", r->s->path, node ? node->start_mark.line + 1 : 1, text);
}

static int no_memory(const reader *r) { return tool_refuse(r->t, EXIT_LIMIT, "--sweep: no memory for '%s'", r->s->path); }

static yaml_node_t *node_at(reader *r, int index) { return yaml_document_get_node(&r->document, index); }

static const char *scalar(const yaml_node_t *node) { return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL; }

static size_t length_of(const yaml_node_t *sequence) { return (size_t)(sequence->data.sequence.items.top - sequence->data.sequence.items.start); }
static size_t pairs_of(const yaml_node_t *mapping) { return (size_t)(mapping->data.mapping.pairs.top - mapping->data.mapping.pairs.start); }

/* A scalar as text of its own; no control characters, which would break files and terminals. */
static int take_scalar(reader *r, const yaml_node_t *node, const char *what, const char **out)
{
    const char *text = scalar(node);
    if (!text)
        return WRONG(r, node, "%s must be a single value", what);
    for (size_t i = 0; i < node->data.scalar.length; i++)
        if ((unsigned char)text[i] < 0x20)
            return WRONG(r, node, "%s holds a control character", what);
    *out = sweep_text(r->s, text, node->data.scalar.length);
    return *out ? 0 : no_memory(r);
}

const option *sweep_option(const char *name)
{
    for (int i = 0; i < option_count; i++)
        if (option_table[i].name && strcmp(option_table[i].name, name) == 0)
            return &option_table[i];
    return NULL;
}

/* Is it an option that a run may have? */
static int check_name(const reader *r, const yaml_node_t *node, const char *name, const option **found)
{
    static const char *const own[] = {"output-dir", "output", "resume", "overwrite", "sweep", "jobs", "dry-run", "json", "quiet", "progress", "help", "help-all", "version"};
    *found = sweep_option(name);
    if (!*found) { /* the parser knows what was meant */
        settings ignored;
        char word[120], message[300] = "", *argv[] = {"", word};
        snprintf(word, sizeof word, "--%s", name);
        options_parse(&ignored, 2, argv, message, sizeof message);
        return WRONG(r, node, "%s", *message ? message : "an option is expected");
    }
    if ((*found)->kind == OPT_MODE)
        return WRONG(r, node, "runs of a sweep always train; '%s' cannot be given", name);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcmp(own[i], name) == 0)
            return WRONG(r, node, "'%s' is set by the sweep itself", name);
    return 0;
}

static bool is_word(const char *text, const char *a, const char *b, const char *c) { return !strcmp(text, a) || !strcmp(text, b) || !strcmp(text, c); }

/* The items of a sequence with commas between them. */
static int join(reader *r, const yaml_node_t *node, const char *name, const char **out)
{
    size_t n = 1, used = 0;
    for (size_t i = 0; i < length_of(node); i++) {
        const yaml_node_t *item = node_at(r, node->data.sequence.items.start[i]);
        const char *text;
        int code = take_scalar(r, item, name, &text);
        if (code)
            return code;
        n += strlen(text) + 1;
    }
    char *text = sweep_take(r->s, n, 1);
    if (!text)
        return no_memory(r);
    for (size_t i = 0; i < length_of(node); i++)
        used += (size_t)snprintf(text + used, n - used, "%s%s", i ? "," : "", scalar(node_at(r, node->data.sequence.items.start[i])));
    *out = text;
    return 0;
}

/* Adds option `name` with the node's value to the list, which has room. A switch that is off adds nothing, a repeatable option one each. */
static int add_option(reader *r, const yaml_node_t *at, const char *name, const yaml_node_t *node, sweep_set *list, int *n)
{
    const option *o;
    int code = check_name(r, at, name, &o);
    if (code)
        return code;
    sweep_set set = {name, NULL};
    if (o->kind == OPT_FLAG) {
        const char *text = scalar(node);
        bool on = text && is_word(text, "true", "yes", "on");
        if (!on && !(text && is_word(text, "false", "no", "off")))
            return WRONG(r, node, "'%s' is a switch: true or false", name);
        if (on)
            list[(*n)++] = set;
        return 0;
    }
    if (node->type == YAML_SEQUENCE_NODE && o->kind == OPT_LIST) {
        for (size_t i = 0; i < length_of(node) && code == 0; i++) {
            code = take_scalar(r, node_at(r, node->data.sequence.items.start[i]), name, &set.value);
            list[(*n)++] = set;
        }
        return code;
    }
    code = node->type == YAML_SEQUENCE_NODE ? join(r, node, name, &set.value) : take_scalar(r, node, name, &set.value);
    if (code == 0 && !*set.value)
        return WRONG(r, node, "'%s' has no value", name);
    list[(*n)++] = set;
    return code;
}

/* Which of two would count is nobody's guess. */
static int check_once(reader *r, const yaml_node_t *mapping, const char *what)
{
    for (size_t i = 1; i < pairs_of(mapping); i++) {
        const yaml_node_t *key = node_at(r, mapping->data.mapping.pairs.start[i].key);
        for (size_t k = 0; k < i && scalar(key); k++) {
            const char *before = scalar(node_at(r, mapping->data.mapping.pairs.start[k].key));
            if (before && strcmp(before, scalar(key)) == 0)
                return WRONG(r, key, "'%.60s' stands twice in %s", before, what);
        }
    }
    return 0;
}

/* A mapping of options. */
static int take_options(reader *r, const yaml_node_t *node, const char *what, sweep_set **list, int *n)
{
    size_t room = 0;
    *n = 0;
    if (node->type == YAML_SCALAR_NODE && node->data.scalar.length == 0) /* nothing behind the colon */
        return 0;
    if (node->type != YAML_MAPPING_NODE)
        return WRONG(r, node, "%s must be options, 'name: value'", what);
    int code = check_once(r, node, what);
    if (code)
        return code;
    for (size_t i = 0; i < pairs_of(node); i++) {
        const yaml_node_t *value = node_at(r, node->data.mapping.pairs.start[i].value);
        room += value->type == YAML_SEQUENCE_NODE ? length_of(value) + 1 : 1;
    }
    *list = sweep_take(r->s, room, sizeof **list);
    if (!*list)
        return no_memory(r);
    for (size_t i = 0; i < pairs_of(node) && code == 0; i++) {
        const yaml_node_t *key = node_at(r, node->data.mapping.pairs.start[i].key);
        const char *name;
        code = take_scalar(r, key, "the name of an option", &name);
        if (code == 0)
            code = add_option(r, key, name, node_at(r, node->data.mapping.pairs.start[i].value), *list, n);
    }
    return code;
}

/* ---- axes ---- */

/* One value of an axis that is an option. */
static int take_value(reader *r, const yaml_node_t *at, const char *name, const yaml_node_t *node, sweep_value *v)
{
    size_t room = node->type == YAML_SEQUENCE_NODE ? length_of(node) + 1 : 1;
    v->set = sweep_take(r->s, room, sizeof *v->set);
    if (!v->set)
        return no_memory(r);
    int code = add_option(r, at, name, node, v->set, &v->n);
    if (code == 0)
        code = node->type == YAML_SEQUENCE_NODE ? join(r, node, name, &v->label) : take_scalar(r, node, name, &v->label);
    return code;
}

/* NAME: [VALUE, ..] of an option, NAME: VALUE, or NAME: {LABEL: {OPTION: VALUE, ..}, ..} */
static int take_axis(reader *r, const yaml_node_t *key, const yaml_node_t *node, sweep_axis *axis)
{
    int code = take_scalar(r, key, "the name of an axis", &axis->name);
    if (code)
        return code;
    size_t n = node->type == YAML_SEQUENCE_NODE ? length_of(node) : node->type == YAML_MAPPING_NODE ? pairs_of(node) : 1;
    if (n == 0)
        return WRONG(r, node, "'%s' has no values", axis->name);
    if (n > SWEEP_MOST_RUNS)
        return WRONG(r, node, "'%s' has more than %d values", axis->name, SWEEP_MOST_RUNS);
    axis->value = sweep_take(r->s, n, sizeof *axis->value);
    if (!axis->value)
        return no_memory(r);
    for (size_t i = 0; i < n && code == 0; i++) {
        sweep_value *v = &axis->value[axis->n++];
        if (node->type == YAML_MAPPING_NODE) {
            code = take_scalar(r, node_at(r, node->data.mapping.pairs.start[i].key), "a label", &v->label);
            if (code == 0)
                code = take_options(r, node_at(r, node->data.mapping.pairs.start[i].value), v->label, &v->set, &v->n);
        } else {
            code = take_value(r, key, axis->name, node->type == YAML_SEQUENCE_NODE ? node_at(r, node->data.sequence.items.start[i]) : node, v);
        }
        for (int k = 0; k < axis->n - 1 && code == 0; k++)
            if (strcmp(axis->value[k].label, v->label) == 0)
                code = WRONG(r, node, "'%s' has the value '%s' twice", axis->name, v->label);
    }
    return code;
}

static int take_grid(reader *r, const yaml_node_t *node, sweep_grid *grid)
{
    if (node->type != YAML_MAPPING_NODE)
        return WRONG(r, node, "a grid must be axes, 'name: [values]'");
    grid->axis = sweep_take(r->s, pairs_of(node), sizeof *grid->axis);
    if (!grid->axis)
        return no_memory(r);
    int code = 0;
    for (size_t i = 0; i < pairs_of(node) && code == 0; i++) {
        const yaml_node_t *key = node_at(r, node->data.mapping.pairs.start[i].key);
        code = take_axis(r, key, node_at(r, node->data.mapping.pairs.start[i].value), &grid->axis[grid->n]);
        for (int k = 0; k < grid->n && code == 0; k++)
            if (strcmp(grid->axis[k].name, grid->axis[grid->n].name) == 0)
                code = WRONG(r, key, "the axis '%s' stands there twice", grid->axis[k].name);
        grid->n++;
    }
    return code;
}

/* One grid, or several whose runs follow each other. */
static int take_grids(reader *r, const yaml_node_t *node)
{
    size_t n = node->type == YAML_SEQUENCE_NODE ? length_of(node) : 1;
    r->s->grid = sweep_take(r->s, n, sizeof *r->s->grid);
    if (!r->s->grid)
        return no_memory(r);
    int code = 0;
    for (size_t i = 0; i < n && code == 0; i++)
        code = take_grid(r, node->type == YAML_SEQUENCE_NODE ? node_at(r, node->data.sequence.items.start[i]) : node, &r->s->grid[r->s->n_grids++]);
    return code;
}

static int take_average(reader *r, const yaml_node_t *node)
{
    size_t n = node->type == YAML_SEQUENCE_NODE ? length_of(node) : 1;
    r->s->average = sweep_take(r->s, n, sizeof *r->s->average);
    if (!r->s->average)
        return no_memory(r);
    int code = 0;
    for (size_t i = 0; i < n && code == 0; i++)
        code = take_scalar(r, node->type == YAML_SEQUENCE_NODE ? node_at(r, node->data.sequence.items.start[i]) : node, "average", &r->s->average[r->s->n_average++]);
    return code;
}

static int take_file(reader *r)
{
    const yaml_node_t *root = yaml_document_get_root_node(&r->document);
    if (!root || root->type != YAML_MAPPING_NODE)
        return WRONG(r, root, "expected 'model:', 'options:' and 'grid:'");
    int code = check_once(r, root, "the file");
    for (size_t i = 0; i < pairs_of(root) && code == 0; i++) {
        const yaml_node_t *key = node_at(r, root->data.mapping.pairs.start[i].key), *value = node_at(r, root->data.mapping.pairs.start[i].value);
        const char *name = scalar(key) ? scalar(key) : "";
        if (strcmp(name, "model") == 0)
            code = take_scalar(r, value, "model", &r->s->model);
        else if (strcmp(name, "options") == 0)
            code = take_options(r, value, "options", &r->s->option, &r->s->n_options);
        else if (strcmp(name, "grid") == 0)
            code = take_grids(r, value);
        else if (strcmp(name, "average") == 0)
            code = take_average(r, value);
        else
            code = WRONG(r, key, "'%.60s' is none of model, options, grid, average", name);
    }
    if (code == 0 && (!r->s->model || !*r->s->model))
        code = WRONG(r, root, "no model is named");
    return code;
}

/* Behind the document: the end, or a second one ('---'), which would be passed over. */
static int check_end(const reader *r, yaml_parser_t *parser)
{
    yaml_event_t e;
    if (!yaml_parser_parse(parser, &e))
        return tool_refuse(r->t, EXIT_USAGE, "--sweep: %s, line %zu: %s", r->s->path, parser->problem_mark.line + 1, parser->problem ? parser->problem : "not YAML");
    const bool more = e.type == YAML_DOCUMENT_START_EVENT;
    const size_t line = e.start_mark.line + 1;
    yaml_event_delete(&e);
    return more ? tool_refuse(r->t, EXIT_USAGE, "--sweep: %s, line %zu: a second document begins; a sweep is one", r->s->path, line) : 0;
}

enum { DEEPEST = 64 }; /* more levels than any sweep has: the parser's time grows with the square of the depth */

/* The line where values are nested deeper; 0: nowhere, as far as it is YAML. */
static size_t too_deep(yaml_parser_t *parser)
{
    yaml_event_t e;
    for (int depth = 0; yaml_parser_parse(parser, &e);) {
        const yaml_event_type_t type = e.type;
        const size_t line = e.start_mark.line + 1;
        yaml_event_delete(&e);
        depth += (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT) - (type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT);
        if (depth > DEEPEST)
            return line;
        if (type == YAML_STREAM_END_EVENT)
            break;
    }
    return 0; /* of what is no YAML, and of too little memory, the second pass tells */
}

/* The first of two passes: only then is the whole file built up in memory. */
static int check_depth(tool *t, const char *path, FILE *file)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return tool_refuse(t, EXIT_LIMIT, "--sweep: no memory for '%s'", path);
    yaml_parser_set_input_file(&parser, file);
    const size_t line = too_deep(&parser);
    yaml_parser_delete(&parser);
    rewind(file);
    return line ? tool_refuse(t, EXIT_USAGE, "--sweep: %s, line %zu: nested deeper than %d levels", path, line, (int)DEEPEST) : 0;
}

int sweep_read(tool *t, sweep *s, const char *path)
{
    reader r = {.t = t, .s = s};
    yaml_parser_t parser;
    s->path = path;
    const char *why;
    FILE *file = plain_open(path, &why);
    if (!file)
        return tool_refuse(t, EXIT_FILES, "--sweep: '%s': %s", path, why);
    int code = check_depth(t, path, file);
    if (code == 0 && !yaml_parser_initialize(&parser))
        code = tool_refuse(t, EXIT_LIMIT, "--sweep: no memory for '%s'", path);
    if (code) {
        fclose(file);
        return code;
    }
    yaml_parser_set_input_file(&parser, file);
    if (yaml_parser_load(&parser, &r.document)) {
        code = take_file(&r);
        yaml_document_delete(&r.document);
        code = code ? code : check_end(&r, &parser);
    } else {
        code = tool_refuse(t, EXIT_USAGE, "--sweep: %s, line %zu: %s", path, parser.problem_mark.line + 1, parser.problem ? parser.problem : "not YAML");
    }
    yaml_parser_delete(&parser);
    fclose(file);
    return code;
}
