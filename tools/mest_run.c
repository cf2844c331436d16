/* SPDX-License-Identifier: Apache-2.0 */
/* mest-run: the library at the command line. Reads the options, hands over to the command of the mode. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "options.h"
#include "progress.h"
#include "report.h"

static int print_version(tool *t)
{
    int v = mest_version();
    printf("mest-run %d.%d.%d, libmest %d.%d.%d\n", MEST_VERSION_MAJOR, MEST_VERSION_MINOR, MEST_VERSION_PATCH, v / 10000, v / 100 % 100,
           v % 100);
    return report_finish(t);
}

/* The options of built-in schedulers are asked of the library: they are not part of the table. */
static void print_schedulers(void)
{
    const char *summary, *text, *name;
    puts("\nSchedulers, built in (--scheduler NAME:KEY=VALUE,..):");
    for (int i = 0; (name = mest_scheduler_builtin(i, &summary, &text)) != NULL; i++) {
        printf("  %-12s %s\n", name, summary ? summary : "");
        while (text && *text) {
            int n = (int)strcspn(text, "\n");
            printf("      %.*s\n", n, text);
            text += n + (text[n] == '\n');
        }
    }
}

static int print_help(tool *t)
{
    const char *group = t->s->help_all ? "all" : t->s->help_group;
    if (!options_help(stdout, group, progress_columns(STDOUT_FILENO)))
        return tool_refuse(t, EXIT_USAGE, "--help: no group '%s'", group);
    if (group && (strcmp(group, "all") == 0 || strcmp(group, "sparsity") == 0))
        print_schedulers();
    return report_finish(t);
}

static int run(tool *t)
{
    if (t->s->sweep)
        return cmd_sweep(t);
    int code = tool_check_settings(t);
    if (code)
        return code;
    switch ((run_mode)t->s->mode) {
    case MODE_TRAIN: return cmd_train(t);
    case MODE_EVAL: return cmd_eval(t);
    case MODE_INFER: return cmd_infer(t);
    case MODE_INFO: return cmd_info(t);
    case MODE_EXPLAIN: return cmd_explain(t);
    case MODE_CHECK: return cmd_check(t);
    case MODE_GRADCHECK: return cmd_gradcheck(t);
    case MODE_BENCH: return cmd_bench(t);
    case MODE_REPORT: return cmd_report(t);
    case MODE_NONE: break;
    }
    return EXIT_INTERNAL;
}

int main(int argc, char **argv)
{
    static settings s;
    static tool t;
    char message[512];
    int code;
    bool good = options_parse(&s, argc, argv, message, sizeof message);
    tool_init(&t, &s);
    signals_install();
    if (!good)
        code = tool_refuse(&t, EXIT_USAGE, "%s", message);
    else if (s.version)
        code = print_version(&t);
    else if (s.help || s.help_all)
        code = print_help(&t);
    else if (argc < 2)
        code = (options_help(stderr, NULL, progress_columns(STDERR_FILENO)), EXIT_USAGE);
    else
        code = run(&t);
    tool_close(&t);
    return code;
}
