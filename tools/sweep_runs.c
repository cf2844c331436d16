/* SPDX-License-Identifier: Apache-2.0 */
/* From grids to runs: names, commands, and what an earlier call of the same sweep left in the folder. */
#include "sweep.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "summary.h"
#include "whole_file.h"

static int no_memory(tool *t) { return tool_refuse(t, EXIT_LIMIT, "--sweep: out of memory"); }

/* ---- columns ---- */

static int column_of(const sweep *s, const char *name)
{
    for (int i = 0; i < s->n_columns; i++)
        if (strcmp(s->column[i], name) == 0)
            return i;
    return -1;
}

static int find_columns(tool *t, sweep *s)
{
    size_t room = 0;
    for (int g = 0; g < s->n_grids; g++)
        room += (size_t)s->grid[g].n;
    s->column = sweep_take(s, room, sizeof *s->column);
    if (!s->column)
        return no_memory(t);
    for (int g = 0; g < s->n_grids; g++)
        for (int a = 0; a < s->grid[g].n; a++)
            if (column_of(s, s->grid[g].axis[a].name) < 0)
                s->column[s->n_columns++] = s->grid[g].axis[a].name;
    if (!s->average && column_of(s, "seed") >= 0) {
        s->average = sweep_take(s, 1, sizeof *s->average);
        if (!s->average)
            return no_memory(t);
        s->average[s->n_average++] = "seed";
    }
    for (int i = 0; i < s->n_average; i++)
        if (column_of(s, s->average[i]) < 0)
            return tool_refuse(t, EXIT_USAGE, "--sweep: %s: average names '%s', which is no axis", s->path, s->average[i]);
    return 0;
}

/* ---- names ---- */

static uint32_t hash(uint32_t h, const char *text)
{
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 16777619u;
    return (h ^ 0xffu) * 16777619u;
}

/* "method=set,sparsity=0.9,seed=1"; what a file name should not hold becomes _, and a number keeps names apart. */
static char *name_of(sweep *s, const sweep_run *r)
{
    enum { MOST = 160 };
    char text[MOST + 16];
    size_t n = 0;
    bool changed = false;
    uint32_t h = 2166136261u;
    for (int c = 0; c < s->n_columns; c++) {
        if (!r->label[c])
            continue;
        h = hash(hash(h, s->column[c]), r->label[c]);
        const char *part[] = {n ? "," : "", s->column[c], "=", r->label[c]};
        for (int p = 0; p < 4; p++)
            for (const char *x = part[p]; *x; x++) {
                bool plain = p == 0 || p == 2 || strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-", *x);
                changed = changed || !plain || n == MOST;
                if (n < MOST)
                    text[n++] = plain ? *x : '_';
            }
    }
    if (n == 0)
        n = (size_t)snprintf(text, sizeof text, "run");
    if (changed)
        n += (size_t)snprintf(text + n, sizeof text - n, "~%08" PRIx32, h);
    return sweep_text(s, text, n);
}

const char *sweep_describe(const sweep *s, const sweep_run *r, char *text, size_t size)
{
    size_t n = 0;
    snprintf(text, size, "the run");
    for (int c = 0; c < s->n_columns && n < size; c++)
        if (r->label[c])
            n += (size_t)snprintf(text + n, size - n, "%s%s=%s", n ? ", " : "", s->column[c], r->label[c]);
    return text;
}

/* ---- commands ---- */

static char *argument_of(sweep *s, const sweep_set *set)
{
    size_t n = strlen(set->name) + (set->value ? strlen(set->value) : 0) + 4;
    char *text = sweep_take(s, n, 1);
    if (text)
        snprintf(text, n, "--%s%s%s", set->name, set->value ? "=" : "", set->value ? set->value : "");
    return text;
}

static bool add_sets(sweep *s, sweep_run *r, const sweep_set *set, int n)
{
    for (int i = 0; i < n; i++)
        if (!(r->argument[r->n_arguments++] = argument_of(s, &set[i])))
            return false;
    return true;
}

/* The run of a grid whose axes stand at `at`. */
static int make_run(tool *t, sweep *s, const sweep_grid *grid, const int *at, sweep_run *r)
{
    size_t room = 3 + (size_t)s->n_options;
    for (int a = 0; a < grid->n; a++)
        room += (size_t)grid->axis[a].value[at[a]].n;
    r->label = sweep_take(s, (size_t)s->n_columns, sizeof *r->label);
    r->argument = sweep_take(s, room, sizeof *r->argument);
    r->loss = r->accuracy = r->sparsity = r->seconds = r->steps = r->peak_bytes = NAN;
    if (!r->label || !r->argument)
        return no_memory(t);
    r->argument[r->n_arguments++] = sweep_text(s, s->model, strlen(s->model));
    static const sweep_set train = {"train", NULL};
    bool good = r->argument[0] && add_sets(s, r, &train, 1) && add_sets(s, r, s->option, s->n_options);
    for (int a = 0; a < grid->n && good; a++) {
        const sweep_value *v = &grid->axis[a].value[at[a]];
        r->label[column_of(s, grid->axis[a].name)] = v->label;
        good = add_sets(s, r, v->set, v->n);
    }
    r->name = good ? name_of(s, r) : NULL;
    return r->name ? 0 : no_memory(t);
}

/* What --train does before its first step, but for the plan: its memory would be that of this process. */
static int try_run(tool *probe, sweep_depth depth)
{
    tool_budget(probe, true);
    int code = tool_load_model(probe);
    if (code == 0 && depth == SWEEP_DATA)
        code = tool_open_sources(probe, true);
    if (code == 0 && depth == SWEEP_DATA)
        code = tool_check_sources(probe, true);
    if (code == 0)
        code = tool_sparsify(probe);
    if (code == 0)
        code = tool_create_session(probe);
    return code ? code : tool_add_schedulers(probe);
}

int sweep_check_run(tool *t, const sweep *s, const sweep_run *r, sweep_depth depth)
{
    static settings told;
    static tool probe;
    char message[512], text[400];
    char **argv = calloc((size_t)r->n_arguments + 1, sizeof *argv);
    if (!argv)
        return no_memory(t);
    static char self[] = "mest-run";
    argv[0] = self;
    memcpy(argv + 1, r->argument, (size_t)r->n_arguments * sizeof *argv);
    bool good = options_parse(&told, r->n_arguments + 1, argv, message, sizeof message);
    free(argv);
    sweep_describe(s, r, text, sizeof text);
    if (!good)
        return tool_refuse(t, EXIT_USAGE, "--sweep: %s, %s: %s", s->path, text, message);
    told.quiet = true;
    told.measure = false; /* a pass over the data, for the run */
    tool_init(&probe, &told);
    int code = tool_check_settings(&probe);
    if (code == 0 && depth > SWEEP_OPTIONS)
        code = try_run(&probe, depth);
    tool_close(&probe);
    if (code)
        tool_note(t, "that is from '%s', %s", s->path, text);
    return code;
}

static bool same_command(const sweep_run *a, const sweep_run *b)
{
    if (a->n_arguments != b->n_arguments)
        return false;
    for (int i = 0; i < a->n_arguments; i++)
        if (strcmp(a->argument[i], b->argument[i]) != 0)
            return false;
    return true;
}

/* Adds the run unless it is there already: grids may overlap. */
static int add_run(tool *t, sweep *s, const sweep_grid *grid, const int *at)
{
    sweep_run *r = &s->run[s->n_runs];
    char text[400];
    int code = make_run(t, s, grid, at, r);
    for (int i = 0; i < s->n_runs && code == 0; i++) {
        if (strcmp(s->run[i].name, r->name) != 0)
            continue;
        if (same_command(&s->run[i], r))
            return 0;
        return tool_refuse(t, EXIT_USAGE, "--sweep: %s: two runs with different options are both %s", s->path, sweep_describe(s, r, text, sizeof text));
    }
    if (code == 0)
        code = sweep_check_run(t, s, r, SWEEP_OPTIONS);
    s->n_runs += code == 0;
    return code;
}

int sweep_expand(tool *t, sweep *s)
{
    int code = find_columns(t, s);
    if (code)
        return code;
    if (s->n_grids == 0) { /* one run, which may be what somebody wants to see first */
        s->grid = sweep_take(s, 1, sizeof *s->grid);
        s->n_grids = s->grid != NULL;
    }
    int64_t all = 0;
    for (int g = 0; g < s->n_grids; g++) {
        int64_t n = 1;
        for (int a = 0; a < s->grid[g].n && n <= SWEEP_MOST_RUNS; a++)
            n *= s->grid[g].axis[a].n;
        all = all + n;
        if (all > SWEEP_MOST_RUNS)
            return tool_refuse(t, EXIT_USAGE, "--sweep: %s: more than %d runs", s->path, SWEEP_MOST_RUNS);
    }
    s->run = sweep_take(s, (size_t)all, sizeof *s->run);
    int *at = sweep_take(s, (size_t)s->n_columns + 1, sizeof *at);
    if (!s->run || !at)
        return no_memory(t);
    for (int g = 0; g < s->n_grids; g++) {
        const sweep_grid *grid = &s->grid[g];
        memset(at, 0, (size_t)s->n_columns * sizeof *at);
        for (bool more = true; more && code == 0;) {
            code = add_run(t, s, grid, at);
            int a = grid->n - 1; /* the last axis turns fastest */
            while (a >= 0 && ++at[a] == grid->axis[a].n)
                at[a--] = 0;
            more = a >= 0;
        }
    }
    return code;
}

/* ---- what is there ---- */

static void command_path(const sweep_run *r, char *path, size_t size) { snprintf(path, size, "%s/command.txt", r->folder); }

/* One argument a line. */
static bool put_command(const sweep_run *r, char *text, size_t size)
{
    size_t n = 0;
    for (int i = 0; i < r->n_arguments && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s\n", r->argument[i]);
    return n < size;
}

static double number_at(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : (double)NAN;
}

bool sweep_results(sweep_run *r)
{
    char path[4400];
    snprintf(path, sizeof path, "%s/summary.json", r->folder);
    const cJSON *metrics;
    cJSON *summary = summary_read(path, &metrics);
    snprintf(path, sizeof path, "%s/model.onnx", r->folder);
    if (!summary || !summary_fits(summary, path)) {
        cJSON_Delete(summary);
        return false;
    }
    r->loss = number_at(metrics, "loss");
    r->accuracy = number_at(metrics, "accuracy");
    r->sparsity = number_at(summary, "sparsity");
    r->seconds = number_at(summary, "seconds");
    r->steps = number_at(summary, "steps");
    r->peak_bytes = number_at(summary, "peak_bytes");
    r->state = SWEEP_DONE;
    cJSON_Delete(summary);
    return true;
}

static int look_at(tool *t, sweep *s, sweep_run *r)
{
    char path[4400], command[16384], text[400];
    command_path(r, path, sizeof path);
    if (!put_command(r, command, sizeof command))
        return tool_refuse(t, EXIT_USAGE, "--sweep: %s, %s: its options are too long", s->path, sweep_describe(s, r, text, sizeof text));
    char *there = whole_read(path, 64 << 20);
    bool same = there && strcmp(there, command) == 0, other = there && !same;
    free(there);
    if (t->s->overwrite)
        return 0;
    if (other)
        return tool_refuse(t, EXIT_FILES, "--sweep: '%s' was made with other options than '%s' says now (see '%s'): take another --output-dir, or --overwrite", r->folder,
                           s->path, path);
    r->begun = same;
    if (same)
        sweep_results(r);
    return 0;
}

int sweep_look(tool *t, sweep *s, const char *folder)
{
    int code = 0;
    for (int i = 0; i < s->n_runs && code == 0; i++) {
        sweep_run *r = &s->run[i];
        size_t n = strlen(folder) + strlen(r->name) + 2;
        r->folder = sweep_take(s, n, 1);
        if (!r->folder)
            return no_memory(t);
        if (n > 4000)
            return tool_refuse(t, EXIT_FILES, "--output-dir: the path is too long");
        snprintf(r->folder, n, "%s/%s", folder, r->name);
        code = look_at(t, s, r);
    }
    return code;
}

int sweep_begin_run(tool *t, const sweep_run *r)
{
    char path[4400], command[16384];
    whole_file w;
    if (mkdir(r->folder, 0777) != 0 && errno != EEXIST)
        return tool_refuse(t, EXIT_FILES, "--sweep: '%s' cannot be created: %s", r->folder, strerror(errno));
    command_path(r, path, sizeof path);
    if (!put_command(r, command, sizeof command) || !whole_open(&w, path) || !whole_close(&w, fputs(command, w.file) >= 0))
        return tool_refuse(t, EXIT_FILES, "--sweep: '%s' cannot be written: %s", path, strerror(errno));
    return 0;
}
