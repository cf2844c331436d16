/* SPDX-License-Identifier: Apache-2.0 */
/* --sweep: reads the file, looks what is done, runs the rest, prints the table. */
#include <errno.h>
#include <string.h>

#include "commands.h"
#include "report.h"
#include "rundir.h"
#include "sweep.h"

enum { MOST_TRIED = 256 };

/* Options of the runs stand in the file; here only those of the sweep. */
static int check_options(tool *t)
{
    static const char *const own[] = {"sweep", "jobs", "dry-run", "output-dir", "overwrite", "json", "quiet", "verbose"};
    const settings *s = t->s;
    if (s->model)
        return tool_refuse(t, EXIT_USAGE, "--sweep: the model stands in the file, as 'model: %s'", s->model);
    for (int i = 0; i < option_count; i++) {
        const char *name = option_table[i].name;
        bool known = !name || !options_given(s, name);
        for (size_t k = 0; k < sizeof own / sizeof *own && !known; k++)
            known = strcmp(own[k], name) == 0;
        if (!known)
            return tool_refuse(t, EXIT_USAGE, "--sweep: --%s is for the runs; it stands in the file, under 'options:' or 'grid:'", name);
    }
    if (!s->output_dir)
        return tool_refuse(t, EXIT_USAGE, "--sweep needs --output-dir, the folder that holds a folder for each run");
    return 0;
}

static void count(const sweep *s, int n[4])
{
    memset(n, 0, 4 * sizeof *n);
    for (int i = 0; i < s->n_runs; i++)
        n[s->run[i].state]++;
}

static int told(tool *t, sweep *s, const sweep_run *r)
{
    char text[400], result[100] = "";
    int n[4];
    count(s, n);
    sweep_describe(s, r, text, sizeof text);
    if (r->state == SWEEP_FAILED)
        snprintf(result, sizeof result, "failed, exit code %d", r->exit_code);
    else if (r->accuracy == r->accuracy)
        snprintf(result, sizeof result, "%.2f %%, loss %.4f, %.1f s", 100 * r->accuracy, r->loss, r->seconds);
    else
        snprintf(result, sizeof result, "loss %.4f, %.1f s", r->loss, r->seconds);
    tool_note(t, "[%d/%d] %s: %s", n[SWEEP_DONE] + n[SWEEP_FAILED], s->n_runs, text, result);
    int code = t->s->json ? sweep_emit_run(t, s, r) : 0;
    return code ? code : sweep_save(t, s, t->s->output_dir);
}

/* What would run, as commands a shell takes. */
static int print_commands(tool *t, const sweep *s)
{
    FILE *out = report_stream(t);
    for (int i = 0; i < s->n_runs; i++) {
        const sweep_run *r = &s->run[i];
        fprintf(out, "%smest-run", r->state == SWEEP_DONE ? "# done: " : r->begun ? "# begun: " : "");
        for (int k = 0; k < r->n_arguments; k++) {
            bool plain = !strpbrk(r->argument[k], " \t'\"\\$`*?[](){}<>|&;#~!");
            fputs(plain ? " " : " '", out);
            for (const char *x = r->argument[k]; *x; x++)
                fputs(*x == '\'' ? "'\\''" : (char[]){*x, 0}, out);
            fputs(plain ? "" : "'", out);
        }
        fputc('\n', out);
    }
    return report_finish(t);
}

static int first_failure(const sweep *s)
{
    for (int i = 0; i < s->n_runs; i++)
        if (s->run[i].state == SWEEP_FAILED)
            return s->run[i].exit_code ? s->run[i].exit_code : EXIT_INTERNAL;
    return 0;
}

static bool says_it(const sweep_run *r, const char *label, int column) { return r->label[column] && strcmp(r->label[column], label) == 0; }

/* Has the run something, on some axis, that no run before it has? */
static bool is_new(const sweep *s, int run)
{
    bool any = run == 0;
    for (int c = 0; c < s->n_columns && !any; c++) {
        const char *label = s->run[run].label[c];
        any = label != NULL;
        for (int i = 0; i < run && any; i++)
            any = !says_it(&s->run[i], label, c);
    }
    return any;
}

static bool same_label(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

static bool is_averaged(const sweep *s, int column)
{
    for (int i = 0; i < s->n_average; i++)
        if (strcmp(s->average[i], s->column[column]) == 0)
            return true;
    return false;
}

/* Is it a run before it, with another seed? */
static bool is_repeated(const sweep *s, int run)
{
    bool same = false;
    for (int i = 0; i < run && !same; i++) {
        same = true;
        for (int c = 0; c < s->n_columns && same; c++)
            same = is_averaged(s, c) || same_label(s->run[i].label[c], s->run[run].label[c]);
    }
    return same;
}

static bool are_few(const sweep *s)
{
    int n = 0;
    for (int i = 0; i < s->n_runs && n <= MOST_TRIED; i++)
        n += !is_repeated(s, i);
    return n <= MOST_TRIED;
}

/* A scheme that there is not, a pattern that names no layer, rounds that the epochs are too few for: to be known before the first hours have
 * gone. Every value of every axis is tried with model and data once, and, unless they are very many, every combination with the model. A
 * scheduler that cannot do with a scheme is no reason to refuse the others: it is said, and the run will fail. */
static int try_values(tool *t, const sweep *s)
{
    const bool few = are_few(s);
    int code = 0;
    for (int i = 0; i < s->n_runs && code == 0; i++) {
        if (is_new(s, i))
            code = sweep_check_run(t, s, &s->run[i], SWEEP_DATA);
        else if (few && !is_repeated(s, i))
            code = sweep_check_run(t, s, &s->run[i], SWEEP_MODEL);
        if (code == EXIT_PLUGIN) {
            tool_note(t, "it will fail; the other runs are made");
            code = 0;
        }
    }
    return code;
}

static int perform(tool *t, sweep *s)
{
    int n[4], code = sweep_read(t, s, t->s->sweep);
    if (code == 0)
        code = sweep_expand(t, s);
    if (code == 0 && !t->s->dry_run)
        code = try_values(t, s);
    if (code == 0 && !t->s->dry_run)
        code = rundir_prepare_sweep(t);
    if (code == 0)
        code = sweep_look(t, s, t->s->output_dir);
    if (code)
        return code;
    if (t->s->dry_run)
        return print_commands(t, s);
    count(s, n);
    tool_note(t, "%d runs, %d of them done; '%s'", s->n_runs, n[SWEEP_DONE], t->s->output_dir);
    code = sweep_execute(t, s, t->s->jobs, told);
    if (code == 0)
        code = sweep_save(t, s, t->s->output_dir);
    if (code == 0)
        code = sweep_print(t, s);
    if (code == 0)
        code = report_finish(t);
    return code ? code : first_failure(s);
}

int cmd_sweep(tool *t)
{
    sweep s = {0};
    int code = check_options(t);
    if (code == 0)
        code = perform(t, &s);
    sweep_free(&s);
    return code;
}
